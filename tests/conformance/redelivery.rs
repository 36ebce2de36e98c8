//! A cancel holds for every op until its scope is left, and wakes each of its parked ops once.

use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::fs::OpenOptions;
use quoit::op;
use quoit::sim::{Fault, for_seeds, point};
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{CancelHandle, Cancelled, CarriesCancelled, Reason, Scope, check, spawn, yield_now};
use tests::{conform, conform_in, poll_once, quietly};

use crate::support::{
    Branches, LONG, SHORT, all_ways, at_once, pipe, reason, some_turns, waiting, watched,
};

#[test]
fn c015_second_op_of_a_task_that_swallowed_the_first_cancel_is_refused() {
    conform(|handle| async move {
        let scope = Rc::new(Scope::new());
        let cancel = scope.handle();
        let inner = Rc::clone(&scope);
        let (run, polls) = watched(async move {
            inner
                .run(async {
                    assert!(sleep(LONG).await.is_err());
                    let never = Event::new();
                    never.wait().await
                })
                .await
        });
        let task = spawn(run);
        some_turns(1).await;
        assert_eq!(polls.get(), 1);
        let before = handle.metrics()[0];
        let began = Instant::now();
        cancel.cancel();
        assert_eq!(task.await.expect("it ended"), Ok(None));
        at_once(began);
        assert_eq!(polls.get(), 2, "it was woken once");
        let after = handle.metrics()[0];
        assert_eq!(after.aborts - before.aborts, 1);
        assert_eq!(after.timers_fired, before.timers_fired);
    });
}

/// A set of futures polls what its own wakers were told of.
#[test]
fn c021_only_the_branch_whose_scope_was_cancelled_is_polled() {
    conform(|handle| async move {
        let scopes: Vec<_> = (0..100).map(|_| Rc::new(Scope::new())).collect();
        let cancels: Vec<CancelHandle> = scopes.iter().map(|scope| scope.handle()).collect();
        let branches = scopes
            .into_iter()
            .map(|scope| async move { scope.run(sleep(LONG)).await });
        let mut branches = Branches::new(branches);
        let (task, polls) = watched(async {
            let ended = branches.next().await;
            (ended, branches)
        });
        let canceller = spawn(async move {
            some_turns(1).await;
            cancels[41].cancel()
        });
        let before = handle.metrics()[0].aborts;
        let ((place, ended), branches) = task.await;
        assert_eq!((place, ended), (41, Ok(None)));
        assert_eq!(polls.get(), 2);
        assert_eq!(handle.metrics()[0].aborts - before, 1);
        let mut expected = [1; 100];
        expected[41] = 2;
        assert_eq!(branches.polls(), expected);
        canceller.await.expect("it ended");
    });
}

#[test]
fn c021_only_the_branch_whose_kernel_op_was_cancelled_is_polled() {
    conform(|handle| async move {
        let (reader, _writer) = pipe();
        let scopes: Vec<_> = (0..20).map(|_| Rc::new(Scope::new())).collect();
        let cancels: Vec<CancelHandle> = scopes.iter().map(|scope| scope.handle()).collect();
        let branches = scopes.into_iter().map(|scope| {
            let reader = reader.clone();
            async move {
                let read = async { op::read(&reader, vec![0; 8]).await.0 };
                scope.run(read).await.expect("no failure")
            }
        });
        let mut branches = Branches::new(branches);
        let canceller = spawn(async move {
            some_turns(1).await;
            cancels[7].cancel();
            some_turns(1).await;
            handle.metrics()[0].aborts
        });
        let (place, ended) = branches.next().await;
        assert_eq!((place, ended), (7, None));
        let mut expected = [1; 20];
        expected[7] = 2;
        assert_eq!(branches.polls(), expected);
        drop(branches);
        assert_eq!(canceller.await.expect("it ended"), 1);
    });
}

#[test]
fn c022_cancel_from_inside_a_shield_waits_for_the_first_op_behind_it() {
    conform(|_| async {
        let (a, b, c) = (Scope::new(), Scope::new(), Scope::new().shielded());
        let cancel = a.handle();
        let outcome = a
            .run(async {
                let inner = b
                    .run(async {
                        let shielded = c
                            .run(async {
                                cancel.cancel();
                                op::nop().await
                            })
                            .await;
                        assert!(matches!(shielded, Ok(Some(()))), "{shielded:?}");
                        op::nop().await
                    })
                    .await;
                assert_eq!(reason(&inner), Some(Reason::Requested));
                inner
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!((b.cancelled(), c.cancelled()), (None, None));
        assert!(a.cancelled().is_some());
    });
}

/// What each wait is told first, and its next op.
async fn a_stored_result_is_returned<T: 'static>(
    wait: impl Future<Output = T> + 'static,
    store: impl FnOnce(),
    aborts: impl Fn() -> u64,
) -> T {
    let scope = Rc::new(Scope::new());
    let cancel = scope.handle();
    let inner = Rc::clone(&scope);
    let (run, polls) = watched(async move {
        let body = async {
            let value = wait.await;
            assert!(sleep(LONG).await.is_err());
            assert!(check().is_err());
            Ok::<_, Cancelled>(value)
        };
        inner.run(body).await
    });
    let task = spawn(run);
    some_turns(1).await;
    let before = (aborts(), polls.get());
    store();
    cancel.cancel();
    check().expect("another scope is cancelled");
    let outcome = task.await.expect("it ended").expect("no failure");
    assert_eq!((aborts(), polls.get()), (before.0, before.1 + 1));
    outcome.expect("a value")
}

#[test]
fn c023_result_that_was_there_first_is_returned() {
    conform(|handle| async move {
        let aborts = || handle.metrics()[0].aborts;
        let event = Rc::new(Event::new());
        let inner = Rc::clone(&event);
        let wait = async move { inner.wait().await };
        let told = a_stored_result_is_returned(wait, || event.set(), aborts).await;
        assert_eq!(told, Ok(()));
    });
}

/// A child ends and its joiner is cancelled, in every order: the value is returned, or the join was
/// cancelled before there was one.
#[test]
fn c023_value_of_a_child_that_ended_first_is_returned() {
    let ways = all_ways(|| {
        quietly(|_| async {
            let scope = Scope::new();
            let handle = scope.handle();
            let child = spawn(async { 7 });
            let canceller = spawn(async move {
                handle.cancel();
                // The next op of the core takes the cancel in.
                yield_now().await
            });
            let joined = scope
                .run(async {
                    match child.await {
                        Ok(value) => Ok(value),
                        Err(error) if error.cancelled().is_some() => Err(io::Error::from(error)),
                        Err(error) => panic!("{error}"),
                    }
                })
                .await
                .expect("no failure");
            canceller
                .await
                .expect("it ended")
                .expect("nobody cancels it");
            joined
        })
    });
    assert_eq!(ways, [None, Some(7)].into());
}

/// As above, for a waiter that is told of an event.
#[test]
fn c023_event_and_cancel_end_a_wait_in_every_order() {
    let ways = all_ways(|| {
        quietly(|_| async {
            let event = Rc::new(Event::new());
            let scope = Scope::new();
            let handle = scope.handle();
            let teller = {
                let event = Rc::clone(&event);
                spawn(async move { event.set() })
            };
            let canceller = spawn(async move {
                handle.cancel();
                // The next op of the core takes the cancel in.
                yield_now().await
            });
            let told = scope.run(event.wait()).await.expect("no failure").is_some();
            teller.await.expect("it ended");
            canceller
                .await
                .expect("it ended")
                .expect("nobody cancels it");
            told
        })
    });
    assert_eq!(ways, [false, true].into());
}

#[test]
fn c023_wait_that_was_aborted_first_is_not_told_any_more() {
    conform(|_| async {
        for cancel_first in [true, false] {
            let event = Rc::new(Event::new());
            let inner = Rc::clone(&event);
            let (cancel, task) = waiting(async move { inner.wait().await }).await;
            if cancel_first {
                cancel.cancel();
                // The cancel is seen now, and the event comes too late.
                check().expect("another scope is cancelled");
                event.set();
            } else {
                event.set();
                cancel.cancel();
                check().expect("another scope is cancelled");
            }
            let outcome = task.await.expect("it ended").expect("no failure");
            assert_eq!(outcome.is_none(), cancel_first);
        }
    });
}

/// Waits for a file's bytes to be on the disk, which nothing ends once a worker of the kernel's is at
/// it, and cancels the wait. Returns whether it was done all the same; nothing, if it was done before.
async fn sync_that_is_cancelled(path: &Path) -> Option<bool> {
    let options = OpenOptions::new().write(true).create(true);
    let file = options.open(path).await.expect("a file");
    file.write_at("x", 0).await.0.expect("room on the disk");
    let scope = Rc::new(Scope::new());
    let cancel = scope.handle();
    let inner = Rc::clone(&scope);
    let (run, polls) = watched(async move {
        let body = async {
            point("sync");
            file.sync_all().await?;
            Ok::<_, io::Error>(reason(&check()))
        };
        let outcome = inner.run(body).await.expect("no error but a cancel");
        drop(file);
        outcome
    });
    let task = spawn(run);
    yield_now().await.expect("nobody cancels");
    if task.is_finished() {
        return None;
    }
    assert_eq!(polls.get(), 1);
    cancel.cancel();
    check().expect("another scope is cancelled");
    let next = task.await.expect("it ended");
    assert_eq!(polls.get(), 2, "it was woken by the completion alone");
    if let Some(next) = next {
        assert_eq!(next, Some(Reason::Requested));
    }
    Some(next.is_some())
}

#[test]
fn c025_op_that_cannot_be_stopped_returns_its_result() {
    let (mut done, mut stopped) = (0, 0);
    for_seeds(0..20, |sim| {
        sim.folder("/f").force_at("sync", Fault::Delay).run(|| {
            let outcome = quietly(|_| async { sync_that_is_cancelled(Path::new("/f/a")).await });
            done += u32::from(outcome == Some(true));
            stopped += u32::from(outcome == Some(false));
        });
    });
    assert!(done > 0, "it never was at work when it was cancelled");
    assert!(stopped > 0, "it never was in line when it was cancelled");
}

/// What a machine's worker is at when the cancel comes is up to the machine.
#[test]
fn c025_sync_that_is_cancelled_is_done_or_never_began() {
    conform_in(&[], |_, folder| async move {
        for round in 0..20 {
            sync_that_is_cancelled(&folder.join(format!("{round}"))).await;
        }
    });
}

#[test]
fn c029_task_goes_on_as_before_outside_of_a_scope_that_took_its_cancel() {
    conform(|handle| async move {
        for round in 0..10 {
            let outcome = Scope::new()
                .run(async {
                    let inner = Scope::new().timeout(SHORT);
                    assert_eq!(inner.run(sleep(LONG)).await, Ok(None));
                    check()?;
                    op::nop().await?;
                    sleep(Duration::from_millis(1)).await?;
                    Ok::<_, io::Error>(round)
                })
                .await;
            assert_eq!(outcome.expect("no failure"), Some(round));
        }
        let before = handle.metrics()[0].aborts;
        yield_now().await.expect("no residue");
        op::nop().await.expect("no residue");
        assert_eq!(handle.metrics()[0].aborts, before);
    });
}

/// Code that knows nothing of this runtime polls when it likes.
#[test]
fn c015_aborted_op_that_is_polled_late_is_aborted_all_the_same() {
    conform(|_| async {
        let scope = Scope::new();
        let cancel = scope.handle();
        let outcome = scope
            .run(async {
                let mut late = Box::pin(sleep(LONG));
                assert!(poll_once(late.as_mut()).await.is_pending());
                cancel.cancel_with(Reason::User(3), Duration::ZERO);
                check().expect_err("cancelled");
                // Others run meanwhile, and nobody polls it.
                let mut turns = 0;
                poll_fn(|cx| {
                    turns += 1;
                    if turns == 5 {
                        return Poll::Ready(());
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
                late.await
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::User(3))
        );
    });
}
