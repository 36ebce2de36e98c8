//! One runtime after another in the same place: what the earlier one left is a stranger to the next.
//!
//! A core's part that threads may reach outlives the core and is given to the next one, so scopes,
//! events, cancels and handles of an earlier life may still be around. Each test has a process of its
//! own, where the next runtime gets the place of the last.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Duration;

use quoit::op;
use quoit::sync::Event;
use quoit::time::sleep;
use quoit::{
    CancelHandle, Cancelled, Delivery, Misuse, Reason, Runtime, Scope, check, group, spawn,
    yield_now,
};
use tests::{in_child, on_both, poll_once};

const LONG: Duration = Duration::from_secs(3600);

/// Lives one life on this thread. What it leaves behind is dropped when it has ended.
fn live<F: Future>(body: F) -> F::Output {
    Runtime::builder()
        .grace_period(Duration::ZERO)
        .block_on(body)
        .expect("tests need io_uring")
}

/// Makes a scope that others may cancel, and leaves it to the next life.
fn left_behind() -> Scope {
    live(async {
        let scope = Scope::new();
        let _handle = scope.handle();
        scope
    })
}

/// Runs a program on the ring and in the simulation, in a process of its own.
fn both_in_child(test: &str, program: impl Fn()) {
    in_child(test, || on_both(program));
}

async fn some_turns() {
    for _ in 0..5 {
        yield_now().await.expect("nobody cancels");
    }
}

// --- scopes ---

#[test]
fn a_scope_does_not_run_in_another_life() {
    both_in_child("lives::a_scope_does_not_run_in_another_life", || {
        let old = left_behind();
        live(async move {
            // In the tree of this life, this scope has the place that the other had in its own.
            let here = Scope::new();
            let outcome = here
                .run(async {
                    let refused = old.run(async { Ok::<(), Cancelled>(()) }).await;
                    let refused = refused.expect_err("it belongs elsewhere");
                    assert_eq!(refused.reason(), Reason::Misuse(Misuse::OtherRuntime));
                    check()
                })
                .await;
            assert_eq!(outcome, Ok(Some(())));
            // The way from a scope to the root still has an end.
            let next = Scope::new();
            next.handle().cancel();
            assert_eq!(next.run(sleep(LONG)).await, Ok(None));
        });
    });
}

#[test]
fn a_scope_gives_no_handle_in_another_life() {
    both_in_child("lives::a_scope_gives_no_handle_in_another_life", || {
        let old = left_behind();
        live(async move {
            let task = spawn(async {
                some_turns().await;
                check()
            });
            yield_now().await.expect("nobody cancels");
            let refused = catch_unwind(AssertUnwindSafe(|| old.handle().cancel()));
            let payload = refused.expect_err("its handle would name a stranger");
            let said = payload.downcast_ref::<&str>().expect("it says why");
            assert!(
                said.contains("the runtime that the scope belongs to"),
                "{said}"
            );
            let ended = task.await.expect("it ended");
            assert_eq!(ended, Ok(()), "nobody cancelled this task");
        });
    });
}

/// No core is here then, nor is one where another has come.
#[test]
fn what_is_kept_of_a_group_or_a_task_has_ended_with_its_core() {
    both_in_child(
        "lives::what_is_kept_of_a_group_or_a_task_has_ended_with_its_core",
        || {
            let (group, child, task) = live(async {
                let task = spawn(sleep(LONG));
                let ended = group(async |g| Ok::<_, Cancelled>((g, g.spawn(async { Ok(()) }))));
                let (group, child) = ended.await.expect("nothing failed").expect("a value");
                (group, child, task)
            });
            let look = || {
                assert_eq!(group.cancel(), Delivery::Gone);
                assert_eq!(group.cancelled(), None);
                group.set_shielded(true);
                assert!(group.handle().is_none());
                assert!(child.is_finished() && task.is_finished());
                task.cancel();
                assert!(task.cancel_handle().is_none());
            };
            look();
            live(async { look() });
        },
    );
}

// --- cancels ---

#[test]
fn a_cancel_of_an_earlier_life_swallows_none_of_this() {
    both_in_child(
        "lives::a_cancel_of_an_earlier_life_swallows_none_of_this",
        || {
            let kept = live(async {
                let scope = Scope::new();
                assert_eq!(scope.handle().cancel(), Delivery::Delivered);
                // The core has seen it.
                check().expect("this task is in no scope");
                scope
            });
            live(async {
                let scope = Scope::new();
                assert_eq!(scope.handle().cancel(), Delivery::Delivered);
                let outcome = scope.run(async { check() }).await;
                assert_eq!(outcome, Ok(None), "the cancel was lost");
            });
            drop(kept);
        },
    );
}

#[test]
fn a_cancel_reaches_its_scope_whatever_earlier_lives_left_unseen() {
    both_in_child(
        "lives::a_cancel_reaches_its_scope_whatever_earlier_lives_left_unseen",
        || {
            let mut kept: Vec<Scope> = Vec::new();
            let mut stale: Vec<CancelHandle> = Vec::new();
            for round in 0..6 {
                // A cancelled scope that never ran: leaked, dropped in between, or still around.
                let (unrun, handle) = live(async {
                    let scope = Scope::new();
                    let handle = scope.handle();
                    assert_eq!(handle.cancel(), Delivery::Delivered, "round {round}");
                    (scope, handle)
                });
                match round % 3 {
                    0 => std::mem::forget(unrun),
                    1 => drop(unrun),
                    _ => kept.push(unrun),
                }
                stale.push(handle);
                let outcome = live(async {
                    for earlier in &stale {
                        assert_eq!(earlier.cancel(), Delivery::Gone, "round {round}");
                    }
                    let scope = Scope::new();
                    let handle = scope.handle();
                    let watchdog = spawn(async move {
                        some_turns().await;
                        handle.cancel()
                    });
                    // Many turns more than the watchdog takes.
                    let outcome = scope
                        .run(async {
                            for _ in 0..1_000 {
                                yield_now().await?;
                            }
                            Ok::<_, Cancelled>(())
                        })
                        .await;
                    // It has run and has been seen, so leaking it harms nobody either.
                    std::mem::forget(scope);
                    (outcome, watchdog.await.expect("it ended"))
                });
                assert_eq!(outcome, (Ok(None), Delivery::Delivered), "round {round}");
            }
        },
    );
}

// --- events ---

/// Makes `event` have a waiter of a life that is over.
fn waited_for(event: &Event) -> Pin<Box<dyn Future<Output = Result<(), Cancelled>> + '_>> {
    let mut wait: Pin<Box<dyn Future<Output = _>>> = Box::pin(event.wait());
    let polled = live(async { poll_once(wait.as_mut()).await });
    assert!(polled.is_pending());
    wait
}

#[test]
fn an_event_with_a_waiter_of_an_earlier_life_ends_nobody_s_sleep() {
    both_in_child(
        "lives::an_event_with_a_waiter_of_an_earlier_life_ends_nobody_s_sleep",
        || {
            let event = Event::new();
            let stale = waited_for(&event);
            live(async {
                // One of them waits where the waiter of the earlier life did.
                let sleepers: Vec<_> = (0..4).map(|_| spawn(sleep(LONG))).collect();
                some_turns().await;
                event.set();
                some_turns().await;
                for sleeper in &sleepers {
                    assert!(!sleeper.is_finished(), "an hour has not passed");
                }
            });
            drop(stale);
        },
    );
}

#[test]
fn an_event_with_a_waiter_of_an_earlier_life_ends_nobody_s_read() {
    both_in_child(
        "lives::an_event_with_a_waiter_of_an_earlier_life_ends_nobody_s_read",
        || {
            let event = Event::new();
            let stale = waited_for(&event);
            live(async {
                let (reader, writer) = op::pipe().expect("a pipe");
                let read = spawn(async move { op::read(&reader, vec![0; 8]).await });
                some_turns().await;
                event.set();
                some_turns().await;
                assert!(!read.is_finished(), "nothing was written");
                op::write(&writer, "!").await.0.expect("room");
                let (count, bytes) = read.await.expect("it ended");
                assert_eq!((count.expect("there is one"), bytes), (1, b"!".to_vec()));
            });
            drop(stale);
        },
    );
}
