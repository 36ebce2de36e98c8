//! Scopes that are entered and left, and scopes that are cancelled with much in them.

use std::hint::black_box;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use quoit::metrics::CoreMetrics;
use quoit::op::{self, SharedFd};
use quoit::sync::Event;
use quoit::time::Instant;
use quoit::{Cancelled, Handle, Scope, group, spawn};

use super::{Random, each, on_one};

/// Runs nothing in a scope, so many times; nanoseconds per scope.
pub fn enter_and_exit(times: u32, timeout: Option<Duration>) -> f64 {
    on_one(async {
        let begin = Instant::now();
        for _ in 0..times {
            let mut scope = Scope::new();
            if let Some(timeout) = timeout {
                scope = scope.timeout(timeout);
            }
            black_box(scope.run(async { Ok::<_, Cancelled>(()) }).await.ok());
        }
        each(begin, times)
    })
}

/// Asks whether the scope is cancelled, so many times; nanoseconds per check.
pub fn checks(times: u32) -> f64 {
    on_one(async {
        let begin = Instant::now();
        for _ in 0..times {
            black_box(quoit::check().ok());
        }
        each(begin, times)
    })
}

/// Opens a group with nothing in it, so many times, with the yield at its end; nanoseconds per group.
pub fn empty_groups(times: u32) -> f64 {
    on_one(async {
        let begin = Instant::now();
        for _ in 0..times {
            black_box(group(async |_| Ok::<_, Cancelled>(())).await.ok());
        }
        each(begin, times)
    })
}

/// What has happened on a core before its tasks are cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Core {
    /// Nothing.
    Fresh,
    /// As many other tasks have been parked and have ended, in any order.
    Aged,
}

/// Parks so many tasks in one scope, each in a timeout scope of its own if there is one, and cancels that;
/// nanoseconds per task, until all have ended.
pub fn tasks(count: u32, core: Core, timeout: Option<Duration>) -> f64 {
    on_one(async {
        if core == Core::Aged {
            age(count).await;
        }
        park_and_cancel(count, timeout).await.1
    })
}

/// Does what [`tasks`] does, on the core of the caller; nanoseconds per task for starting and parking them, and for
/// cancelling them.
///
/// # Panics
///
/// If the caller is cancelled.
pub async fn park_and_cancel(count: u32, timeout: Option<Duration>) -> (f64, f64) {
    let event = Rc::new(Event::new());
    let start = Instant::now();
    let (mut parked, mut begin) = (start, start);
    let ended = group(async |g| {
        for _ in 0..count {
            let event = Rc::clone(&event);
            g.spawn(async move {
                match timeout {
                    None => event.wait().await,
                    Some(timeout) => {
                        let scope = Scope::new().timeout(timeout);
                        scope.run(event.wait()).await.map(drop)
                    }
                }
            });
        }
        // All of them go first, and wait from then on. That they do is seen by and by, in naps that are not theirs.
        quoit::yield_now().await?;
        parked = Instant::now();
        until(|core| core.parked, count).await?;
        begin = Instant::now();
        g.cancel();
        Ok::<_, Cancelled>(())
    });
    assert!(ended.await.is_ok());
    let spawned = (parked - start).as_nanos() as f64 / f64::from(count);
    (spawned, each(begin, count))
}

/// Ends so many tasks in an order that leaves the core's tables as a long life does.
async fn age(count: u32) {
    let mut parked: Vec<_> = (0..count)
        .map(|_| {
            let event = Rc::new(Event::new());
            let waits = Rc::clone(&event);
            (event, spawn(async move { waits.wait().await }))
        })
        .collect();
    let mut random = Random::new(7);
    while !parked.is_empty() {
        let place = random.below(parked.len() as u64) as usize;
        let (event, task) = parked.swap_remove(place);
        event.set();
        task.await.expect("it ends well").expect("nobody cancels");
    }
}

/// Waits until a figure of the core's is so high. It is told when the core parks: what was told before is of what was.
async fn until(figure: fn(&CoreMetrics) -> u64, count: u32) -> Result<(), Cancelled> {
    let now = || Handle::current().expect("on a core").metrics()[0];
    let parks = now().parks;
    while now().parks == parks || figure(&now()) < u64::from(count) {
        quoit::time::sleep(NAP).await?;
    }
    Ok(())
}

const NAP: Duration = Duration::from_millis(1);

/// Begins so many receives, each of a socket of its own, and cancels all; nanoseconds per receive, until the
/// kernel has given all buffers back.
///
/// # Panics
///
/// If there are not enough descriptors: two for each.
pub fn receives(count: u32) -> f64 {
    let pairs = (0..count).map(|_| {
        let pair = UnixStream::pair();
        let (socket, peer) = pair.expect("descriptors enough: `ulimit -n` has to allow two each");
        (SharedFd::from(OwnedFd::from(socket)), peer)
    });
    let (sockets, _peers): (Vec<_>, Vec<_>) = pairs.unzip();
    on_one(async {
        let mut begin = Instant::now();
        let ended = group(async |g| {
            for socket in &sockets {
                let socket = socket.clone();
                g.spawn(async move {
                    op::receive_into(&socket, [0; 64]).await.0?;
                    Ok::<_, io::Error>(())
                });
            }
            until(|core| core.in_flight, count).await?;
            begin = Instant::now();
            g.cancel();
            Ok(())
        });
        assert!(ended.await.is_ok());
        each(begin, count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_wait_before_they_are_cancelled_in_a_used_core_too() {
        on_one(async {
            // They are counted at the end of a turn.
            let polls = async || {
                quoit::time::sleep(NAP).await.expect("nobody cancels");
                Handle::current().expect("on a core").metrics()[0].polls
            };
            let before = polls().await;
            for _ in 0..3 {
                park_and_cancel(1_000, None).await;
            }
            // Each task once to begin to wait, once to end.
            let polled = polls().await - before;
            assert!(polled >= 6_000, "{polled}");
        });
    }

    #[test]
    fn starting_a_task_is_told_without_the_naps_of_who_looks_whether_it_waits() {
        on_one(async {
            // As often as it takes on a machine that stalls.
            while park_and_cancel(1, None).await.0 >= NAP.as_nanos() as f64 {}
        });
    }
}
