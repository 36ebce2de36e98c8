//! The rules of cancellation where two of them meet, and no scenario says so.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::future::{Future, Ready, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use quoit::buf::Interrupted;
use quoit::op::{PipeReader, PipeWriter};
use quoit::process::Command;
use quoit::sync::{Event, OnceCell, Semaphore, broadcast, channel, oneshot, shared, watch};
use quoit::time::{Instant, sleep};
use quoit::{
    AlreadyStarted, Cancelled, CarriesCancelled, CoreId, Cores, Delivery, Group, GroupPanic,
    Misuse, Reason, Runtime, Scope, Started, effective_deadline, group, is_cancelled,
    isolating_group, on, op, spawn, yield_now, yield_uncancellable,
};
use tests::{
    Kernel, both_streams, conform, conform_on, gauges, on_ring, poll_once, turns_of_others,
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

/// Checks that so much time has passed since `began`, and in simulated time no more.
#[track_caller]
fn after_exactly(duration: Duration, began: Instant) {
    let elapsed = began.elapsed();
    assert!(elapsed >= duration, "{elapsed:?} is less than {duration:?}");
    if Kernel::here() == Kernel::Simulated {
        assert_eq!(elapsed, duration);
    }
}

// --- a child on another core is under its caller's scope as if it ran there ---

#[test]
fn a_child_elsewhere_sees_the_deadlines_around_it() {
    conform_on(2, |handle| async move {
        let there = handle.cores()[1];
        for is_there in [false, true] {
            let seen = || {
                here_and_there(there, is_there, || async {
                    let plain = effective_deadline();
                    let shield = Scope::new().grace_shielded();
                    let graced = shield.run(async { Ok::<_, io::Error>(effective_deadline()) });
                    let graced = graced.await?.expect("not cancelled");
                    let shield = Scope::new().shielded();
                    let hidden = shield.run(async { Ok::<_, io::Error>(effective_deadline()) });
                    assert_eq!(hidden.await?, Some(None));
                    let sooner = Scope::new().timeout(SHORT * 1000);
                    let sooner = sooner.run(async { Ok::<_, io::Error>(effective_deadline()) });
                    let sooner = sooner.await?.expect("not cancelled");
                    Ok((plain, graced, sooner.expect("there is one")))
                })
            };
            assert!(matches!(seen().await, Ok((None, None, _))));

            let (at, earlier) = (Instant::now() + LONG * 2, Instant::now() + LONG);
            let scope = Scope::new().deadline(at).grace(SHORT);
            let around = Scope::new().deadline(earlier).grace(LONG * 3);
            let (plain, graced, sooner) = around
                .run(async { scope.run(seen()).await })
                .await
                .expect("no failure")
                .flatten()
                .expect("not cancelled");
            assert_eq!((plain, graced), (Some(earlier), Some(at + SHORT)));
            assert!(sooner < earlier);
            // Behind a grace shield of the caller's.
            let scope = Scope::new().deadline(at).grace(SHORT);
            let shield = Scope::new().grace_shielded();
            let (plain, graced, _) = scope
                .run(async { shield.run(seen()).await })
                .await
                .expect("no failure")
                .flatten()
                .expect("not cancelled");
            assert_eq!((plain, graced), (Some(at + SHORT), Some(at + SHORT)));
        }
    });
}

/// Runs `body` here, and on the other core.
async fn here_and_there<T, F>(
    there: CoreId,
    is_there: bool,
    body: impl FnOnce() -> F + Send + 'static,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>> + 'static,
    T: Send + 'static,
{
    match is_there {
        true => on(there, body).await,
        false => body().await,
    }
}

#[test]
fn a_child_elsewhere_has_the_grace_of_the_cancel() {
    conform_on(2, |handle| async move {
        for is_there in [false, true] {
            for (takes, grace, saved) in [(SHORT * 2, LONG, Some("saved")), (LONG, SHORT * 3, None)]
            {
                let began = Instant::now();
                let scope = Scope::new().timeout(SHORT).grace(grace);
                let work = move || async move {
                    let shield = Scope::new().grace_shielded();
                    let saved = shield.run(async {
                        sleep(takes).await?;
                        Ok::<_, io::Error>("saved")
                    });
                    Ok(saved.await?.expect("nobody cancels the shield itself"))
                };
                let call = here_and_there(handle.cores()[1], is_there, work);
                assert_eq!(scope.run(call).await.expect("no failure"), saved);
                after_exactly(takes.min(SHORT + grace), began);
            }
        }
    });
}

/// As a scope does, a call ends after what was dropped in it.
#[test]
fn a_call_ends_after_the_groups_that_its_child_dropped() {
    conform_on(2, |handle| async move {
        let has_ended = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&has_ended);
        let called = on(handle.cores()[1], move || async move {
            let mut left = Box::pin(group(async |g| {
                g.spawn(async move {
                    let refused = sleep(LONG).await;
                    let shield = Scope::new().shielded();
                    shield.run(sleep(SHORT)).await?;
                    noted.store(true, Ordering::Release);
                    refused
                });
                sleep(LONG).await
            }));
            assert!(poll_once(left.as_mut()).await.is_pending());
            yield_now().await?;
            drop(left);
            io::Result::Ok(())
        });
        called.await.expect("it ends well");
        assert!(has_ended.load(Ordering::Acquire), "a task of it runs still");
    });
}

#[test]
fn a_child_elsewhere_that_leaks_a_group_has_failed() {
    conform_on(2, |handle| async move {
        let called = on(handle.cores()[1], || async {
            let mut left = Box::pin(group(async |g| {
                g.spawn(sleep(LONG));
                pending::<Result<(), Cancelled>>().await
            }));
            assert!(poll_once(left.as_mut()).await.is_pending());
            std::mem::forget(left);
            Ok::<_, io::Error>(())
        });
        let failed = called.await.expect_err("it left a group behind");
        let reason = failed.cancelled().map(Cancelled::reason);
        assert_eq!(reason, Some(Reason::Misuse(Misuse::AbandonedGroup)));
    });
}

#[test]
fn a_transfer_elsewhere_that_is_cancelled_says_how_far_it_came() {
    conform_on(2, |handle| async move {
        for is_there in [false, true] {
            let scope = Scope::new();
            let cancel = scope.handle();
            let (tell, told) = shared::channel::bounded(1);
            let canceller = spawn(async move {
                told.recv().await.expect("nobody cancels");
                cancel.cancel()
            });
            let transferred = Cell::new(0);
            let worked = scope.run(async {
                let write = here_and_there(handle.cores()[1], is_there, || async move {
                    let (reader, writer) = op::pipe()?;
                    let reader = Rc::new(reader);
                    let first = Rc::clone(&reader);
                    drop(spawn(async move {
                        op::read(&first, [0; 1]).await.0.expect("a byte");
                        tell.send(()).await.expect("nobody cancels");
                    }));
                    // More than a pipe takes.
                    let written = PipeWriter::new(writer)?.write_all(vec![1; 1 << 20]).await;
                    drop(reader);
                    written.0
                });
                let written = write.await;
                if let Err(error) = &written
                    && let Some(told) = error.get_ref()
                    && let Some(told) = told.downcast_ref::<Interrupted>()
                {
                    transferred.set(told.transferred);
                }
                written
            });
            assert!(matches!(worked.await, Ok(None)), "the scope takes it");
            assert!(transferred.get() > 0, "there: {is_there}");
            assert_eq!(canceller.await.expect("no panic"), Delivery::Delivered);
        }
    });
}

#[test]
fn failures_elsewhere_come_with_the_cancellation_that_they_came_with() {
    conform_on(2, |handle| async move {
        for is_there in [false, true] {
            let scope = Scope::new().timeout(SHORT);
            let work = here_and_there(handle.cores()[1], is_there, || async {
                let failing = group(async |g| {
                    g.spawn(async {
                        sleep(LONG).await.expect_err("cancelled");
                        Err::<(), _>(io::Error::other("while it cleaned up"))
                    });
                    Ok::<_, io::Error>(sleep(LONG).await?)
                });
                Ok(failing.await.map(drop)?)
            });
            let failed = scope.run(work).await.expect_err("it failed");
            assert_eq!(failed.to_string(), "while it cleaned up");
            assert!(scope.absorbed(), "there: {is_there}");
        }
    });
}

// --- in a waker no scope is active ---

/// A waker that looks at its scope.
#[derive(Debug, Default)]
struct Looks {
    found: Mutex<Vec<bool>>,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let mut found = self.found.lock().expect("nobody panics with it");
        found.push(is_cancelled());
    }
}

/// Lets `wait` begin, ends it by `deed` in a cancelled scope, and returns what its waker saw there.
async fn seen_by_the_waker(wait: impl Future, deed: impl FnOnce()) -> Vec<bool> {
    let looks = Arc::new(Looks::default());
    let mut wait = pin!(wait);
    let waker = Waker::from(Arc::clone(&looks));
    let polled = wait.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let scope = Scope::new();
    let done = scope.run(async {
        scope.cancel();
        assert!(is_cancelled());
        deed();
        assert!(is_cancelled(), "the waker has left it as it was");
        Ok::<_, Cancelled>(())
    });
    assert_eq!(done.await, Ok(Some(())));
    let found = looks.found.lock().expect("nobody panics with it");
    found.clone()
}

#[test]
fn a_waker_does_not_see_the_scope_of_whoever_wakes() {
    conform(|_| async {
        let once = vec![false];
        let event = Event::new();
        assert_eq!(seen_by_the_waker(event.wait(), || event.set()).await, once);
        let (sender, receiver) = channel::bounded(1);
        let send = || sender.try_send(1).expect("there is room");
        assert_eq!(seen_by_the_waker(receiver.recv(), send).await, once);
        let permits = Semaphore::new(1);
        let permit = permits.acquire().await.expect("it is free");
        let release = || drop(permit);
        assert_eq!(seen_by_the_waker(permits.acquire(), release).await, once);
        let lock = shared::Mutex::new(());
        let guard = lock.lock().await.expect("it is free");
        assert_eq!(seen_by_the_waker(lock.lock(), || drop(guard)).await, once);
        let (sender, receiver) = shared::channel::bounded(1);
        let send = || sender.try_send(1).expect("there is room");
        assert_eq!(seen_by_the_waker(receiver.recv(), send).await, once);
        let other = Scope::new();
        other.handle();
        let wait = other.run(sleep(LONG));
        let cancel = || assert_eq!(other.cancel(), Delivery::Delivered);
        assert_eq!(seen_by_the_waker(wait, cancel).await, once);
    });
}

// --- what came first ---

/// Cancels a wait by a handle, does then what ends it, and returns whether the wait was cancelled.
async fn is_cancelled_first<T: 'static, E: CarriesCancelled + 'static>(
    wait: impl Future<Output = Result<T, E>> + 'static,
    deed: impl FnOnce(),
) -> bool {
    let scope = Rc::new(Scope::new());
    let cancel = scope.handle();
    let waits = spawn(async move { scope.run(wait).await });
    yield_now().await.expect("not cancelled");
    cancel.cancel();
    deed();
    let waited = waits.await.expect("it ended");
    matches!(waited, Ok(None))
}

#[test]
fn who_was_cancelled_by_a_handle_first_is_not_told_of_what_comes_then() {
    conform(|_| async {
        let event = Rc::new(Event::new());
        let ours = Rc::clone(&event);
        let wait = async move { ours.wait().await };
        assert!(is_cancelled_first(wait, || event.set()).await, "event");

        let cell = Rc::new(OnceCell::new());
        let ours = Rc::clone(&cell);
        let makes = Box::pin(async move {
            let made = ours.get_or_init(async || {
                let mut polled = false;
                poll_fn(|_| match std::mem::replace(&mut polled, true) {
                    false => Poll::Pending,
                    true => Poll::Ready(7),
                })
                .await
            });
            made.await.copied()
        });
        let mut makes = makes;
        assert!(poll_once(makes.as_mut()).await.is_pending());
        let ours = Rc::clone(&cell);
        let wait = async move { ours.get_or_init(async || 8).await.copied() };
        let make = || {
            let polled = makes.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Ready(Ok(7)));
        };
        assert!(is_cancelled_first(wait, make).await, "cell");

        let (sender, mut receiver) = oneshot::channel();
        let wait = async move { receiver.recv().await };
        let send = || sender.send(7).expect("it is waited for");
        assert!(is_cancelled_first(wait, send).await, "oneshot");
        let (sender, mut receiver) = broadcast::bounded(1);
        let wait = async move { receiver.recv().await };
        let send = || assert_eq!(sender.send(7), Ok(1));
        assert!(is_cancelled_first(wait, send).await, "broadcast");
        let (sender, mut receiver) = watch::channel(0);
        let wait = async move { receiver.changed().await };
        let send = || drop(sender.send(7));
        assert!(is_cancelled_first(wait, send).await, "watch");
        let (sender, receiver) = channel::bounded(1);
        let wait = async move { receiver.recv().await };
        let send = || sender.try_send(7).expect("there is room");
        assert!(is_cancelled_first(wait, send).await, "channel");
        let (sender, receiver) = shared::channel::bounded(1);
        let wait = async move { receiver.recv().await };
        let send = || sender.try_send(7).expect("there is room");
        assert!(is_cancelled_first(wait, send).await, "shared channel");
    });
}

#[test]
fn who_was_cancelled_by_a_handle_first_does_not_join_what_ends_then() {
    conform(|_| async {
        let scope = Rc::new(Scope::new());
        let cancel = scope.handle();
        let ends = spawn(async move {
            yield_now().await.expect("not cancelled");
            cancel.cancel();
        });
        let joins = spawn(async move { scope.run(ends).await });
        let joined = joins.await.expect("it ended");
        assert!(matches!(joined, Ok(None)), "{joined:?}");
    });
}

// --- grace ---

#[test]
fn a_deadline_is_seen_from_behind_a_grace_shield_with_its_grace() {
    conform(|_| async {
        // Long enough for what comes before them, on a machine that has other things to do.
        let at = Instant::now() + SHORT * 20;
        let end = at + SHORT * 40;
        let scope = Scope::new().deadline(at).grace(SHORT * 40);
        let worked = scope.run(async {
            assert_eq!(effective_deadline(), Some(at));
            let shield = Scope::new().grace_shielded();
            let worked = shield.run(async {
                assert_eq!(effective_deadline(), Some(end));
                sleep(SHORT * 21).await?;
                let left = effective_deadline().expect("the scope is cancelled");
                assert!(left >= end, "the grace has begun");
                if Kernel::here() == Kernel::Simulated {
                    assert_eq!(left, end);
                }
                let inner = Scope::new().shielded();
                let hidden = inner.run(async { Ok::<_, Cancelled>(effective_deadline()) });
                assert_eq!(hidden.await, Ok(Some(None)));
                sleep(LONG).await
            });
            worked.await
        });
        assert_eq!(worked.await, Ok(None));
    });
}

/// Whoever gives all the time there is, arms no timer for its end.
#[test]
fn a_grace_without_end_arms_no_timer() {
    conform_on(2, |handle| async move {
        let before = gauges(&handle).await.timers;
        for is_there in [false, true] {
            let (tell, told) = shared::channel::bounded(1);
            let (begins, begun) = shared::channel::bounded(1);
            let scope = Scope::new();
            let cancel = scope.handle();
            let there = handle.cores()[usize::from(is_there)];
            let waits = spawn(async move {
                let wait = here_and_there(there, is_there, move || async move {
                    let shield = Scope::new().grace_shielded();
                    let waited = shield.run(async {
                        begins.send(()).await?;
                        let received = told.recv().await?;
                        assert_eq!(effective_deadline(), None);
                        Ok::<_, io::Error>(received)
                    });
                    waited.await
                });
                scope.run(wait).await
            });
            begun.recv().await.expect("not cancelled");
            cancel.cancel_with(Reason::Requested, Duration::MAX);
            assert_eq!(gauges(&handle).await.timers, before);
            assert_eq!(handle.metrics()[1].timers, 0);
            tell.send(7).await.expect("it goes on");
            let waited = waits.await.expect("it ended");
            assert_eq!(waited.expect("in time"), Some(Some(Some(7))));
        }
    });
}

#[test]
fn children_of_a_group_that_is_dropped_keep_the_grace_of_its_cancel() {
    conform(|_| async {
        for (takes, grace, kind, is_outside) in [
            (SHORT * 2, LONG, "child", false),
            (SHORT * 2, LONG, "daemon", false),
            (SHORT * 2, LONG, "start", false),
            (LONG, SHORT * 4, "child", false),
            (SHORT * 2, LONG, "child", true),
            (SHORT * 2, LONG, "daemon", true),
            (SHORT * 2, LONG, "start", true),
            (LONG, SHORT * 4, "child", true),
        ] {
            let began = Instant::now();
            let saved = Rc::new(Cell::new(false));
            let noted = Rc::clone(&saved);
            let around = Scope::new();
            let cancel_around = around.handle();
            let dropped = around.run(async {
                let mut left = Box::pin(group(async |g| {
                    let has_begun = Rc::new(Cell::new(false));
                    let begins = Rc::clone(&has_begun);
                    let child = async move {
                        begins.set(true);
                        let shield = Scope::new().grace_shielded();
                        shield.run(sleep(takes)).await?;
                        noted.set(true);
                        Ok(())
                    };
                    let starting = g.start(async move |_: Started<()>| {
                        match kind {
                            "child" => drop(g.spawn(child)),
                            "daemon" => drop(g.spawn_daemon(child)),
                            _ => child.await?,
                        }
                        Ok(())
                    });
                    let mut starting = Box::pin(starting);
                    while poll_once(starting.as_mut()).await.is_pending() && !has_begun.get() {
                        yield_now().await?;
                    }
                    let own = g.handle().expect("it is open");
                    let cancel = if is_outside { cancel_around } else { own };
                    cancel.cancel_with(Reason::User(1), grace);
                    Scope::new().shielded().run(sleep(LONG)).await
                }));
                for _ in 0..6 {
                    assert!(poll_once(left.as_mut()).await.is_pending());
                    yield_uncancellable().await;
                }
                assert_eq!(is_cancelled(), is_outside);
                drop(left);
                Ok::<_, Cancelled>(())
            });
            assert_eq!(dropped.await, Ok(Some(())));
            assert_eq!(saved.get(), takes < LONG, "{kind}, {is_outside}");
            after_exactly(takes.min(grace), began);
        }
    });
}

/// So many waits are aborted before that the cancel has yet to be passed on.
#[test]
fn a_call_that_is_dropped_behind_a_crowd_leaves_its_child_the_grace_of_a_cancel() {
    const CROWD: usize = 2_000;
    conform_on(2, |handle| async move {
        for (takes, grace, is_saved) in [(SHORT * 2, LONG, true), (LONG, Duration::ZERO, false)] {
            let flags = Arc::new([const { AtomicBool::new(false) }; 2]);
            let noted = Arc::clone(&flags);
            let around = Scope::new();
            let dropped = around.run(async {
                let mut call = Box::pin(on(handle.cores()[1], move || async move {
                    noted[0].store(true, Ordering::Relaxed);
                    let shield = Scope::new().grace_shielded();
                    shield.run(sleep(takes)).await?;
                    noted[1].store(true, Ordering::Relaxed);
                    Ok::<_, io::Error>(())
                }));
                assert!(poll_once(call.as_mut()).await.is_pending());
                while !flags[0].load(Ordering::Relaxed) {
                    sleep(SHORT).await?;
                }
                let crowd = Scope::new();
                let waits = crowd.run(async {
                    let mut waits: Vec<_> = (0..CROWD).map(|_| Box::pin(sleep(LONG))).collect();
                    for wait in &mut waits {
                        assert!(poll_once(wait.as_mut()).await.is_pending());
                    }
                    crowd.cancel();
                    Ok::<_, Cancelled>(waits)
                });
                let waits = waits.await?;
                around.cancel_with(Reason::User(1), grace);
                drop(call);
                drop(waits);
                Ok::<_, Cancelled>(())
            });
            assert_eq!(dropped.await, Ok(Some(())));
            assert_eq!(flags[1].load(Ordering::Relaxed), is_saved);
        }
    });
}

/// The scope has ended by then, and the call goes on in the one around.
#[test]
fn a_call_that_outlives_a_scope_behind_a_crowd_has_the_grace_of_its_cancel() {
    const CROWD: usize = 2_000;
    conform_on(2, |handle| async move {
        for (takes, grace, is_saved) in [
            (SHORT * 2, LONG, true),
            (SHORT * 2, Duration::MAX, true),
            (LONG, SHORT * 4, false),
            (LONG, Duration::ZERO, false),
        ] {
            let began = Instant::now();
            let flags = Arc::new([const { AtomicBool::new(false) }; 2]);
            let noted = Arc::clone(&flags);
            let mut call = Box::pin(on(handle.cores()[1], move || async move {
                noted[0].store(true, Ordering::Relaxed);
                let shield = Scope::new().grace_shielded();
                let saved = shield.run(sleep(takes)).await;
                noted[1].store(saved.is_ok(), Ordering::Relaxed);
                Ok::<_, io::Error>(())
            }));
            let scope = Scope::new();
            let left = scope.run(async {
                assert!(poll_once(call.as_mut()).await.is_pending());
                while !flags[0].load(Ordering::Relaxed) {
                    yield_uncancellable().await;
                }
                let crowd = Scope::new();
                let waits = crowd.run(async {
                    let mut waits: Vec<_> = (0..CROWD).map(|_| Box::pin(sleep(LONG))).collect();
                    for wait in &mut waits {
                        assert!(poll_once(wait.as_mut()).await.is_pending());
                    }
                    crowd.cancel();
                    Ok::<_, Cancelled>(waits)
                });
                let waits = waits.await?;
                scope.cancel_with(Reason::User(1), grace);
                Ok::<_, Cancelled>(waits)
            });
            let waits = left.await;
            assert!(matches!(waits, Ok(Some(_))));
            call.await.expect("the child has a value");
            drop(waits);
            assert_eq!(flags[1].load(Ordering::Relaxed), is_saved, "{grace:?}");
            assert!(began.elapsed() >= takes.min(grace));
        }
    });
}

/// What lives in a group or a race with a body that is cancelled from outside, and how that ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ends {
    /// The body passes the cancellation on.
    Body {
        daemon: bool,
    },
    /// The body takes it, and ends well; so do the other children.
    Well {
        daemon: bool,
    },
    /// As the first, in the body of another group.
    Nested,
    Race,
    RaceOfAll,
    /// The body fails for a reason of its own.
    Failure,
    /// A body of the race has a value all the same.
    Value,
}

async fn ends_so(how: Ends, saves: impl Future<Output = Result<(), Cancelled>> + 'static) {
    let cancelled = || async { sleep(LONG).await };
    match how {
        Ends::Body { daemon } | Ends::Well { daemon } => {
            let ended = group(async |g| {
                g.spawn(cancelled());
                match daemon {
                    true => drop(g.spawn_daemon(saves)),
                    false => drop(g.spawn(saves)),
                }
                let refused = cancelled().await;
                if let Ends::Body { .. } = how {
                    refused
                } else {
                    Ok(())
                }
            });
            drop(ended.await);
        }
        Ends::Nested => {
            let ended = group(async |g: Group<Cancelled>| {
                g.spawn(saves);
                let inner = group(async |_: Group<Cancelled>| cancelled().await).await;
                assert!(
                    matches!(inner, Err(ref x) if x.cancelled().is_some()),
                    "{inner:?}"
                );
                inner.map(drop).map_err(|_| is_refused())
            });
            drop(ended.await);
        }
        Ends::Race => drop(quoit::race(cancelled(), saves).await),
        Ends::RaceOfAll => {
            type Body = Pin<Box<dyn Future<Output = Result<(), Cancelled>>>>;
            let all: [Body; 3] = [
                Box::pin(saves),
                Box::pin(cancelled()),
                Box::pin(cancelled()),
            ];
            drop(quoit::race_all(all).await);
        }
        Ends::Failure => {
            let ended = group(async |g: Group<io::Error>| {
                g.spawn(async { Ok(saves.await?) });
                assert!(cancelled().await.is_err());
                Err::<(), _>(io::Error::other("of its own"))
            });
            assert_eq!(ended.await.expect_err("it failed").errors().len(), 1);
        }
        Ends::Value => {
            let value = async {
                assert!(cancelled().await.is_err());
                Ok(())
            };
            assert!(quoit::race(value, saves).await.is_ok());
        }
    }
}

/// The cancellation that this place is in.
fn is_refused() -> Cancelled {
    quoit::check().expect_err("it is cancelled")
}

/// A core may stand still for longer than anything here takes.
fn may_stall() -> bool {
    Kernel::here() != Kernel::Simulated
}

#[test]
fn what_ends_because_of_a_cancel_leaves_its_grace_to_what_works_on() {
    conform(|handle| async move {
        let timers = gauges(&handle).await.timers;
        let because = [
            Ends::Body { daemon: false },
            Ends::Body { daemon: true },
            Ends::Well { daemon: false },
            Ends::Well { daemon: true },
            Ends::Nested,
            Ends::Race,
            Ends::RaceOfAll,
        ];
        let otherwise = [Ends::Failure, Ends::Value];
        for how in because.into_iter().chain(otherwise) {
            for (takes, grace) in [(SHORT * 2, LONG), (LONG, SHORT * 4)] {
                let around = Rc::new(Scope::new());
                let inside = Rc::clone(&around);
                let saved = Rc::new(Cell::new(false));
                let noted = Rc::clone(&saved);
                let began = Instant::now();
                let task = spawn(async move {
                    let saves = async move {
                        let shield = Scope::new().grace_shielded();
                        shield.run(sleep(takes)).await?;
                        noted.set(true);
                        Ok(())
                    };
                    let inside = inside.run(async {
                        ends_so(how, saves).await;
                        quoit::check()
                    });
                    inside.await
                });
                yield_now().await.expect("nobody cancels");
                yield_now().await.expect("nobody cancels");
                let is_early = saved.get();
                around.cancel_with(Reason::User(1), grace);
                let ended = task.await.expect("it ended");
                if is_early {
                    assert!(may_stall(), "nothing else takes so long");
                    continue;
                }
                assert_eq!(ended, Ok(None), "{how:?}");
                let has_grace = because.contains(&how);
                // A core that stalls may come to both its cancel and the end of what it does in one turn.
                let ends_first = !has_grace && saved.get() && may_stall();
                let has_time = has_grace || ends_first;
                assert_eq!(saved.get(), has_time && takes < grace, "{how:?}");
                let lasts = if has_grace {
                    takes.min(grace)
                } else {
                    Duration::ZERO
                };
                after_exactly(lasts, began);
            }
        }
        assert_eq!(gauges(&handle).await.timers, timers);
    });
}

// --- starts, and failures that nobody asked for ---

#[test]
fn a_second_report_is_told_so_also_if_nobody_waits_for_the_first() {
    conform(|_| async {
        let ended = group(async |g| {
            let mut start = Box::pin(g.start(async |started: Started<u32>| {
                let refused = sleep(LONG).await;
                assert_eq!(started.report(1), Ok(()));
                assert_eq!(started.report(2), Err(AlreadyStarted(2)));
                refused
            }));
            assert!(poll_once(start.as_mut()).await.is_pending());
            yield_now().await?;
            drop(start);
            Ok(())
        });
        assert_eq!(ended.await.expect("nothing failed"), Some(()));
    });
}

/// The child has failed, and nobody has asked the call for that.
#[test]
fn a_failure_that_a_start_was_to_tell_is_told_by_the_group_if_the_start_is_dropped() {
    conform(|_| async {
        let failing = async |panics: bool| {
            group(async |g: Group<io::Error>| {
                let runs = Rc::new(());
                let held = Rc::clone(&runs);
                let mut start = Box::pin(g.start(async move |_: Started<()>| {
                    let _held = held;
                    assert!(!panics, "unheard");
                    Err::<(), _>(io::Error::other("unheard"))
                }));
                assert!(poll_once(start.as_mut()).await.is_pending());
                while Rc::strong_count(&runs) > 1 {
                    yield_now().await?;
                }
                drop(start);
                assert!(is_cancelled(), "the failure has ended the group");
                Ok(())
            })
            .await
        };
        let failed = failing(false).await.expect_err("the child failed");
        assert_eq!(failed.to_string(), "unheard");
        assert_eq!(panics_with(failing(true)).await, "unheard");
    });
}

/// What the body gave goes where nobody gets it, with the handle.
#[test]
fn a_failure_in_an_isolating_group_is_told_by_the_group_if_its_handle_goes_with_the_value() {
    conform(|_| async {
        let failed = isolating_group(async |g| {
            let kept = g.spawn(async { Err::<(), _>(io::Error::other("kept")) });
            drop(g.spawn(async { Err::<(), _>(io::Error::other("unheard")) }));
            Ok(kept)
        });
        let failed = failed.await.map(drop).expect_err("two of them failed");
        let told: BTreeSet<_> = failed.errors().iter().map(io::Error::to_string).collect();
        assert_eq!(
            told,
            BTreeSet::from(["kept".to_owned(), "unheard".to_owned()])
        );
    });
}

#[test]
fn a_failure_in_an_isolating_group_is_told_by_the_group_if_its_handle_is_dropped_unasked() {
    conform(|_| async {
        let ended = isolating_group(async |g| {
            let fails = g.spawn(async { Err::<(), _>(io::Error::other("unheard")) });
            while !fails.is_finished() {
                yield_now().await?;
            }
            drop(fails);
            Ok(())
        });
        let failed = ended.await.expect_err("one failed");
        assert_eq!(failed.to_string(), "unheard");
    });
}

// --- very many ---

/// Returns how long this thread has run so far.
fn time_on_the_processor() -> u64 {
    // It is added up where a thread might make way for another.
    std::thread::yield_now();
    let told = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts it");
    let first = told.split(' ').next();
    first
        .and_then(|nanos| nanos.parse().ok())
        .expect("a number")
}

/// Cancels so many children, each of which asks once more and then cleans up behind a shield; returns what that cost.
async fn clean_ups(count: usize) -> u64 {
    let began = time_on_the_processor();
    let ended = group(async |g| {
        for _ in 0..count {
            g.spawn(async {
                sleep(LONG).await.expect_err("cancelled");
                let refused = sleep(LONG).await;
                Scope::new().shielded().run(sleep(SHORT)).await?;
                refused
            });
        }
        yield_now().await?;
        g.cancel();
        Ok::<_, Cancelled>(())
    });
    assert_eq!(ended.await.expect("nothing failed"), Some(()));
    time_on_the_processor() - began
}

// On the real ring: it is about the time that the core takes.
#[test]
fn clean_ups_of_very_many_cost_as_much_each_as_those_of_few() {
    on_ring(|_| async {
        clean_ups(100).await;
        let mut told = Vec::new();
        // A machine with other things to do may make some dearer: of several attempts, one has to be right.
        for _ in 0..3 {
            let few = clean_ups(500).await / 500;
            let many = clean_ups(10_000).await / 10_000;
            if many < few * 5 {
                return;
            }
            told.push((few, many));
        }
        panic!("nanoseconds each, of few and of many: {told:?}");
    });
}

/// What wakes nobody.
struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

/// Polls so many branches of this task, each of which has a waker of its own and waits; returns what that cost.
fn branches_that_wait<F: Future>(count: usize, branch: impl Fn() -> F) -> u64 {
    let wakers: Vec<_> = (0..count).map(|_| Waker::from(Arc::new(Nobody))).collect();
    let mut branches: Vec<_> = (0..count).map(|_| Box::pin(branch())).collect();
    let began = time_on_the_processor();
    for (branch, waker) in branches.iter_mut().zip(&wakers) {
        let polled = branch.as_mut().poll(&mut Context::from_waker(waker));
        assert!(polled.is_pending());
    }
    time_on_the_processor() - began
}

/// Lets so many branches of this task ask in a scope that has refused it too much, so that all of them pause; returns
/// what that cost.
async fn pauses(count: usize) -> u64 {
    let scope = Scope::new();
    let body = async {
        scope.cancel();
        // As many as are free, and some.
        for _ in 0..1_050 {
            sleep(LONG).await.expect_err("cancelled");
        }
        Ok::<_, Cancelled>(branches_that_wait(count, || sleep(LONG)))
    };
    let cost = scope.run(body).await;
    cost.expect("nothing failed").expect("a value")
}

// On the real ring: it is about the time that the core takes.
#[test]
fn very_many_branches_that_pause_cost_as_much_each_as_few() {
    on_ring(|_| async {
        pauses(100).await;
        let mut told = Vec::new();
        // As above.
        for _ in 0..3 {
            let few = pauses(500).await / 500;
            let many = pauses(10_000).await / 10_000;
            if many < few * 5 {
                return;
            }
            told.push((few, many));
        }
        panic!("nanoseconds each, of few and of many: {told:?}");
    });
}

/// Each is within two scopes, one of which nobody yields in, and the core has to be patient with somebody.
#[test]
fn very_many_branches_that_yield_cost_as_much_each_as_few() {
    on_ring(|_| async {
        let cleaning = spawn(async {
            let scope = Scope::new();
            scope.cancel();
            let body = async {
                sleep(LONG).await.expect_err("cancelled");
                Scope::new().shielded().run(sleep(LONG)).await
            };
            scope.run(body).await
        });
        let yields = async |count| {
            // In a poll of its own, behind the other task's.
            yield_now().await.expect("nobody cancels");
            branches_that_wait(count, || async {
                let scopes = [(); 2].map(|()| Scope::new());
                let inside = async { scopes[1].run(yield_now()).await.map(drop) };
                scopes[0].run(inside).await.map(drop)
            })
        };
        yields(100).await;
        let mut told = Vec::new();
        // As above.
        for _ in 0..3 {
            let few = yields(500).await / 500;
            let many = yields(10_000).await / 10_000;
            if many < few * 5 {
                return drop(cleaning);
            }
            told.push((few, many));
        }
        panic!("nanoseconds each, of few and of many: {told:?}");
    });
}

/// Lets so many wait for room in the mailbox of a core that takes nothing, and cancels them; returns what that cost.
async fn wait_for_room(there: CoreId, count: usize) -> u64 {
    let began = time_on_the_processor();
    let ended = group(async |g| {
        for _ in 0..count {
            g.spawn(async move { on(there, || async { Ok::<_, io::Error>(()) }).await });
        }
        yield_now().await?;
        g.cancel();
        Ok::<_, io::Error>(())
    });
    assert_eq!(ended.await.expect("nothing failed"), Some(()));
    time_on_the_processor() - began
}

/// Returns what it costs to wait so, each of few and each of many, with a mailbox that is full.
fn waits_for_room() -> (u64, u64) {
    let builder = Runtime::builder().mailbox_capacity(1);
    let runtime = builder.cores(Cores::Count(2)).build();
    let handle = runtime.as_ref().expect("tests need io_uring").handle();
    let (here, there) = (handle.cores()[0], handle.cores()[1]);
    let (begins, begun) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let busy = handle.spawn(there, move || async move {
        begins.send(()).expect("it is waited for");
        ends.recv().expect_err("nobody tells it anything");
    });
    begun.recv().expect("it begins");
    let full = handle.spawn(there, || async {});
    let costs = handle.spawn(here, move || async move {
        wait_for_room(there, 100).await;
        let few = wait_for_room(there, 1_000).await / 1_000;
        (few, wait_for_room(there, 20_000).await / 20_000)
    });
    let costs = costs.expect("room").wait();
    drop(end);
    busy.expect("room").wait().expect("no panic");
    full.expect("room").wait().expect("no panic");
    costs.expect("no panic")
}

#[test]
fn very_many_who_wait_for_room_in_a_mailbox_cost_as_much_each_as_few() {
    let mut told = Vec::new();
    // As above.
    for _ in 0..3 {
        let (few, many) = waits_for_room();
        if many < few * 5 {
            return;
        }
        told.push((few, many));
    }
    panic!("nanoseconds each, of few and of many: {told:?}");
}

// --- errors that panic ---

/// An error that panics when it is asked what is left of it.
#[derive(Debug)]
struct Panicky(Cancelled);

impl From<Cancelled> for Panicky {
    fn from(cancelled: Cancelled) -> Self {
        Self(cancelled)
    }
}

impl CarriesCancelled for Panicky {
    fn cancelled(&self) -> Option<Cancelled> {
        Some(self.0)
    }

    fn rest(self) -> Result<Self, Self> {
        panic!("asked")
    }
}

/// Waits for something that panics, and returns in which words.
async fn panics_with<T>(group: impl Future<Output = T>) -> String {
    let mut group = pin!(group);
    let payload = poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| group.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(_)) => panic!("it did not panic"),
            Err(payload) => Poll::Ready(payload),
        }
    });
    let first = match payload.await.downcast::<GroupPanic>() {
        Ok(several) => several.into_first(),
        Err(one) => one,
    };
    let text = first.downcast::<&str>().expect("a text");
    (*text).to_owned()
}

#[test]
fn a_group_panics_with_what_an_error_of_it_panics_with_after_all_have_ended() {
    conform(|_| async {
        for by_its_body in [false, true] {
            let ended = Rc::new(Cell::new(0));
            let noted = Rc::clone(&ended);
            let working = group(async |g| {
                g.spawn(async move {
                    let refused = sleep(LONG).await;
                    let shield = Scope::new().shielded();
                    shield.run(sleep(SHORT)).await?;
                    noted.set(noted.get() + 1);
                    assert!(refused.is_err());
                    Ok(())
                });
                let other = g.spawn(async { Ok::<_, Panicky>(sleep(LONG).await?) });
                yield_now().await?;
                g.cancel();
                drop(other);
                if by_its_body {
                    sleep(LONG).await?;
                }
                Ok(())
            });
            assert_eq!(panics_with(working).await, "asked");
            assert_eq!(ended.get(), 1, "by the body: {by_its_body}");
        }
    });
}

#[test]
fn a_start_ends_though_the_error_of_its_child_panics() {
    conform(|_| async {
        let worked = group(async |g: Group<Panicky>| {
            let kept = kept().await;
            let start = g.start(async move |_: Started<()>| Err::<(), _>(Panicky(kept)));
            assert_eq!(panics_with(start).await, "asked");
            Ok(())
        });
        assert!(matches!(worked.await, Ok(Some(()))));
    });
}

/// A function may panic before there is a future: one that is no async closure.
#[test]
fn a_group_panics_with_what_its_function_panics_with_after_all_have_ended() {
    conform(|_| async {
        let ended = Rc::new(Cell::new(false));
        let noted = Rc::clone(&ended);
        let working = group(move |g: Group<Cancelled>| -> Ready<Result<(), Cancelled>> {
            g.spawn(async move {
                assert!(sleep(LONG).await.is_err());
                Scope::new().shielded().run(sleep(SHORT)).await?;
                noted.set(true);
                Ok(())
            });
            panic!("made")
        });
        assert_eq!(panics_with(working).await, "made");
        assert!(ended.get());
    });
}

#[test]
fn a_start_ends_though_the_function_of_its_child_panics() {
    conform(|_| async {
        let worked = group(async |g: Group<Cancelled>| {
            let child = |_: Started<()>| -> Ready<Result<(), Cancelled>> { panic!("made") };
            assert_eq!(panics_with(g.start(child)).await, "made");
            Ok(())
        });
        assert!(matches!(worked.await, Ok(Some(()))));
    });
}

/// Returns what an op has answered in a scope that has ended.
async fn kept() -> Cancelled {
    let scope = Scope::new();
    let mut kept = None;
    let done = scope.run(async {
        scope.cancel();
        kept = sleep(LONG).await.err();
        Ok::<_, Cancelled>(())
    });
    assert_eq!(done.await, Ok(Some(())));
    kept.expect("it was refused")
}

// --- who ignores a refusal lets others have their turn ---

#[test]
fn an_op_that_has_nothing_to_do_yields_as_others_where_it_is_refused() {
    conform(|_| async {
        let (ours, _theirs) = both_streams().await;
        let (reader, writer) = op::pipe().expect("a pipe");
        let reader = PipeReader::new(reader);
        let writer = PipeWriter::new(writer).expect("a pipe");
        let none = Vec::<u8>::new;
        let turns = [
            turns_of_others(async || ours.read(none()).await.0.map(drop)).await,
            turns_of_others(async || ours.read_exact(none()).await.0).await,
            turns_of_others(async || ours.send_all(none()).await.0).await,
            turns_of_others(async || ours.send_all_vectored(vec![none()]).await.0).await,
            turns_of_others(async || reader.read(none()).await.0.map(drop)).await,
            turns_of_others(async || writer.write_all(none()).await.0).await,
            turns_of_others(op::entry).await,
        ];
        assert!(turns.iter().all(|&turns| turns >= 10), "{turns:?}");
    });
}

// On the real ring: processes.
#[test]
fn a_wait_for_a_child_process_yields_where_it_is_refused() {
    on_ring(|_| async {
        let child = Command::new("sleep").arg("3600").spawn().await;
        let mut child = child.expect("it starts");
        let turns = turns_of_others(async || child.wait().await.map(drop)).await;
        assert!(turns >= 10, "{turns}");
        child.kill();
        child.wait().await.expect("it ends");
    });
}
