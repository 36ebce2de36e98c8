//! Sleeps that are given up, and sleeps that are slept.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use quoit::time::{Instant, sleep};

use super::{each, on_one};

/// Begins so many sleeps and gives all up; nanoseconds per sleep.
pub fn create_and_cancel(count: u32) -> f64 {
    on_one(async {
        let mut cx = Context::from_waker(Waker::noop());
        let begin = Instant::now();
        let mut sleeps: Vec<_> = (0..count)
            .map(|number| {
                let after = Duration::from_secs(100) + Duration::from_nanos(u64::from(number));
                Box::pin(sleep(after))
            })
            .collect();
        for sleep in &mut sleeps {
            assert!(sleep.as_mut().poll(&mut cx).is_pending());
        }
        sleeps.clear();
        each(begin, count)
    })
}

/// Sleeps a millisecond so many times; by how many nanoseconds each was late.
pub fn lateness(times: u32) -> Vec<f64> {
    on_one(async {
        let nap = Duration::from_millis(1);
        let mut late = Vec::with_capacity(times as usize);
        for _ in 0..times {
            let begin = Instant::now();
            pin!(sleep(nap)).await.expect("nobody cancels");
            late.push((begin.elapsed() - nap).as_nanos() as f64);
        }
        late
    })
}
