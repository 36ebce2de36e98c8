//! Starting tasks, waiting for them, and letting others go first.

use quoit::time::Instant;
use quoit::{spawn, yield_now};

use super::{each, on_one};

/// Starts so many tasks and waits for each, again and again; nanoseconds per task.
pub fn spawn_join(at_once: u32, times: u32) -> f64 {
    on_one(async {
        let mut handles = Vec::with_capacity(at_once as usize);
        let begin = Instant::now();
        for _ in 0..times {
            handles.extend((0..at_once).map(|number| spawn(async move { number })));
            for (number, handle) in (0..).zip(handles.drain(..)) {
                assert_eq!(handle.await.expect("it ends well"), number);
            }
        }
        each(begin, at_once * times)
    })
}

/// So many tasks yield in turn; nanoseconds per yield.
pub fn yields(tasks: u32, times: u32) -> f64 {
    on_one(async {
        let begin = Instant::now();
        let yielding = (0..tasks).map(|_| {
            spawn(async move {
                for _ in 0..times {
                    yield_now().await.expect("nobody cancels");
                }
            })
        });
        for task in yielding.collect::<Vec<_>>() {
            task.await.expect("it ends well");
        }
        each(begin, tasks * times)
    })
}
