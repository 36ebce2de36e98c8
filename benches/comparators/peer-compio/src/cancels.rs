//! Tasks that are cancelled, tokens and timeouts.

use std::future::pending;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::micro::each;
use common::scenarios::{Runtime, age, yield_now};
use compio::runtime::{CancelToken, FutureExt, spawn};
use compio::time::timeout;

use crate::Compio;

/// Runs nothing under a token, so many times; nanoseconds each.
pub(crate) fn enter_and_exit(times: u32) -> f64 {
    Compio::block_on(async move {
        let begin = Instant::now();
        for _ in 0..times {
            async {}.with_cancel(CancelToken::new()).await;
        }
        each(begin, times)
    })
}

/// Runs nothing under a timeout, so many times; nanoseconds each.
pub(crate) fn enter_and_exit_with(times: u32, limit: Duration) -> f64 {
    Compio::block_on(async move {
        let begin = Instant::now();
        for _ in 0..times {
            assert!(
                black_box(timeout(limit, async {}).await).is_ok(),
                "it ends at once"
            );
        }
        each(begin, times)
    })
}

/// Asks whether a token is cancelled, so many times; nanoseconds per check.
pub(crate) fn checks(times: u32) -> f64 {
    Compio::block_on(async move {
        let token = CancelToken::new();
        let begin = Instant::now();
        for _ in 0..times {
            black_box(black_box(&token).is_cancelled());
        }
        each(begin, times)
    })
}

/// Parks so many tasks, each under a timeout of its own if there is one, and drops their handles, which cancels
/// them; nanoseconds per task, until all have ended. On an aged runtime, as many others have ended before in any
/// order.
pub(crate) fn tasks(count: u32, is_aged: bool, limit: Option<Duration>) -> f64 {
    Compio::block_on(async move {
        if is_aged {
            age::<Compio>(count).await;
        }
        let held = Rc::new(());
        let handles: Vec<_> = (0..count)
            .map(|_| {
                let held = Rc::clone(&held);
                spawn(async move {
                    match limit {
                        None => pending().await,
                        Some(limit) => drop(timeout(limit, pending::<()>()).await),
                    }
                    drop(held);
                })
            })
            .collect();
        // A turn of the runtime takes a part of them.
        for _ in 0..=count / 16 {
            yield_now().await;
        }
        let begin = Instant::now();
        drop(handles);
        while Rc::strong_count(&held) > 1 {
            yield_now().await;
        }
        each(begin, count)
    })
}
