//! Timers and futures that are made and thrown away: no kernel.

use std::collections::BTreeMap;
use std::future::pending;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use common::micro::{LONG, each};

/// Enters so many deadlines in a tree and takes all out again; nanoseconds per deadline.
pub(crate) fn create_and_cancel(count: u32) -> f64 {
    let mut timers = BTreeMap::new();
    let begin = Instant::now();
    let deadlines: Vec<_> = (0..count)
        .map(|number| {
            let after = LONG + Duration::from_nanos(u64::from(number));
            (Instant::now() + after, number)
        })
        .collect();
    for deadline in &deadlines {
        timers.insert(*deadline, Waker::noop().clone());
    }
    for deadline in &deadlines {
        assert!(timers.remove(deadline).is_some());
    }
    each(begin, count)
}

/// Drops so many boxed futures; nanoseconds per future.
pub(crate) fn drop_futures(count: u32) -> f64 {
    let held = Rc::new(());
    let futures: Vec<_> = (0..count)
        .map(|_| {
            let held = Rc::clone(&held);
            let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                pending::<()>().await;
                drop(held);
            });
            black_box(future)
        })
        .collect();
    let begin = Instant::now();
    drop(futures);
    let took = each(begin, count);
    assert_eq!(Rc::strong_count(&held), 1);
    took
}
