//! Tasks that are cancelled, and timeouts.

use std::future::pending;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::micro::each;
use common::scenarios::{Runtime, age, yield_now};
use glommio::spawn_local;
use glommio::timer::timeout;

use crate::Glommio;

/// Runs nothing under a timeout, so many times; nanoseconds each.
pub(crate) fn enter_and_exit_with(times: u32, limit: Duration) -> f64 {
    Glommio::block_on(async move {
        let begin = Instant::now();
        for _ in 0..times {
            assert!(
                black_box(timeout(limit, async { Ok(()) }).await).is_ok(),
                "it ends at once"
            );
        }
        each(begin, times)
    })
}

/// Parks so many tasks, each under a timeout of its own if there is one, and drops their handles, which cancels
/// them; nanoseconds per task, until all have ended. On an aged executor, as many others have ended before in any
/// order.
pub(crate) fn tasks(count: u32, is_aged: bool, limit: Option<Duration>) -> f64 {
    Glommio::block_on(async move {
        if is_aged {
            age::<Glommio>(count).await;
        }
        let held = Rc::new(());
        let tasks: Vec<_> = (0..count)
            .map(|_| {
                let held = Rc::clone(&held);
                spawn_local(async move {
                    match limit {
                        None => pending().await,
                        Some(limit) => drop(timeout(limit, pending::<Result<(), _>>()).await),
                    }
                    drop(held);
                })
            })
            .collect();
        yield_now().await;
        let begin = Instant::now();
        drop(tasks);
        while Rc::strong_count(&held) > 1 {
            yield_now().await;
        }
        each(begin, count)
    })
}
