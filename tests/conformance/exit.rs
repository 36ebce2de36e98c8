//! The end of a scope: in order, out of order, dropped and unwound.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use quoit::time::{Instant, sleep};
use quoit::{
    Cancelled, CarriesCancelled, Delivery, Group, JoinError, Misuse, Reason, Scope, Started, check,
    effective_deadline, group, op, run_until_cancelled, spawn, yield_now,
};
use tests::{Drops, conform, gauges, on_both, one_core, poll_once};

use crate::support::{
    Either, IntoResult, LONG, SHORT, after_exactly, both, either, kernel_is_done, pipe, reason,
    some_turns, watched,
};

/// Who says its name when it is dropped, and notes the deadline there.
struct Named(&'static str, Rc<RefCell<Dropped>>);

/// What they have said and noted.
#[derive(Default)]
struct Dropped {
    names: Vec<&'static str>,
    deadlines: Vec<Option<Instant>>,
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut dropped = self.1.borrow_mut();
        dropped.names.push(self.0);
        dropped.deadlines.push(effective_deadline());
    }
}

/// There is no way to leave a scope but to end or drop its run: the run of an inner scope may still
/// outlive the outer one. It goes on under the scope around.
#[test]
fn c096_run_that_outlives_the_scope_around_goes_on_outside() {
    conform(|handle| async move {
        let around = Scope::new().timeout(3 * SHORT);
        let outcome = around
            .run(async {
                let (outer, inner) = (Scope::new(), Scope::new());
                let cancel = outer.handle();
                let mut run = Box::pin(inner.run(sleep(LONG)));
                let ended = outer
                    .run(async {
                        assert!(poll_once(run.as_mut()).await.is_pending());
                        Ok::<_, Cancelled>(())
                    })
                    .await;
                assert_eq!(ended, Ok(Some(())));
                assert_eq!(cancel.cancel(), Delivery::Gone);
                assert!(check().is_ok(), "the scope around is active");
                let late = run.await;
                assert_eq!(inner.cancelled(), None);
                late.map(drop)
            })
            .await;
        assert_eq!(outcome, Ok(None), "it was cancelled from around");
        assert_eq!(gauges(&handle).await.scopes, 2);
    });
}

/// As before, of an outer scope that was cancelled before it ended: so was what stood in it, and says so outside.
#[test]
fn c096_run_that_outlives_the_scope_around_keeps_its_cancellation() {
    conform(|_| async {
        for by_handle in [false, true] {
            let (outer, inner) = (Scope::new(), Scope::new());
            let handle = outer.handle();
            let mut run = Box::pin(inner.run(sleep(LONG)));
            let ended = outer.run(async {
                assert!(poll_once(run.as_mut()).await.is_pending());
                let told = match by_handle {
                    true => handle.cancel(),
                    false => outer.cancel(),
                };
                assert_eq!(told, Delivery::Delivered);
                Ok::<_, Cancelled>(())
            });
            assert_eq!(ended.await, Ok(Some(())));
            assert!(check().is_ok(), "nothing around is cancelled");
            let late = run.await.map_err(Cancelled::reason);
            assert_eq!(late, Err(Reason::Requested), "{by_handle}");
            assert_eq!(inner.cancelled(), None);
        }
    });
}

#[test]
fn c097_scope_runs_once() {
    conform(|_| async {
        let scope = Scope::new();
        assert_eq!(scope.run(yield_now()).await, Ok(Some(())));
        let mut ran = false;
        let again = scope.run(async {
            ran = true;
            Ok::<_, Cancelled>(())
        });
        let error = again.await.expect_err("used up");
        assert!(!ran);
        assert_eq!(error.reason(), Reason::Misuse(Misuse::RunTwice));
    });
}

/// The second is refused at its first poll; the first goes on, and is cancelled as ever.
#[test]
fn c097_scope_that_two_tasks_run_runs_for_the_first() {
    conform(|_| async {
        let scope = Rc::new(Scope::new());
        let cancel = scope.handle();
        let inner = Rc::clone(&scope);
        let first = spawn(async move { inner.run(sleep(LONG)).await });
        some_turns(1).await;
        let drops = Drops::new();
        let value = drops.value();
        let second = scope.run(async move {
            let _value = value;
            Ok::<_, Cancelled>(())
        });
        let error = second.await.expect_err("in use");
        assert_eq!(
            (error.reason(), drops.alive()),
            (Reason::Misuse(Misuse::RunTwice), 0)
        );
        assert!(!first.is_finished());
        cancel.cancel();
        assert_eq!(first.await.expect("it ended"), Ok(None));
    });
}

/// A misuse is nobody's cancel, so no scope takes it.
#[test]
fn c097_misuse_is_absorbed_by_nobody() {
    conform(|_| async {
        let used = Scope::new();
        assert_eq!(used.run(yield_now()).await, Ok(Some(())));
        let around = Scope::new();
        let cancel = around.handle();
        let outcome = around
            .run(async {
                cancel.cancel();
                used.run(yield_now()).await
            })
            .await;
        let error = outcome.expect_err("a bug is told");
        assert_eq!(error.reason(), Reason::Misuse(Misuse::RunTwice));
    });
}

/// The op in the innermost scope is one of the kernel's.
#[test]
fn c101_dropped_future_takes_its_scopes_from_the_inside_out() {
    conform(|handle| async move {
        let before = gauges(&handle).await;
        let (reader, _writer) = pipe();
        let shared = reader.clone();
        let order = Rc::new(RefCell::new(Dropped::default()));
        let named = |name| Named(name, Rc::clone(&order));
        let times = [1, 2, 3].map(|hours| Instant::now() + hours * LONG);
        let outcome = Scope::new()
            .run(async {
                let scope = |at: Instant| Scope::new().deadline(at);
                let (a, b, c) = (scope(times[2]), scope(times[1]), scope(times[0]));
                let (in_a, in_b, in_c) = (named("a"), named("b"), named("c"));
                let nested = a.run(async {
                    let _in_a = in_a;
                    b.run(async {
                        let _in_b = in_b;
                        c.run(async {
                            let _in_c = in_c;
                            op::read(&shared, vec![0; 8]).into_result().await
                        })
                        .await
                    })
                    .await
                });
                {
                    let mut nested = pin!(nested);
                    assert!(poll_once(nested.as_mut()).await.is_pending());
                    op::nop().await?;
                }
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        assert_eq!(order.borrow().names, ["c", "b", "a"]);
        // Each in its own scope.
        assert_eq!(order.borrow().deadlines, times.map(Some));
        assert!(check().is_ok());
        let after = gauges(&handle).await;
        assert_eq!(after.cancel_requests - before.cancel_requests, 1);
        assert_eq!((after.scopes, after.parked), (before.scopes, before.parked));
        assert_eq!((after.orphans, after.op_slots), (0, 0));
        drop(shared);
        assert!(reader.is_unique());
    });
}

#[test]
fn c103_panic_of_a_body_unwinds_its_scopes_and_stays_in_the_task() {
    conform(|handle| async move {
        let before = gauges(&handle).await;
        let (reader, writer) = pipe();
        let order = Rc::new(RefCell::new(Dropped::default()));
        let named = |name| Named(name, Rc::clone(&order));
        let (around, inner, sibling) = (named("around"), named("inner"), named("sibling"));
        let task = spawn(async move {
            let _around = around;
            let outer = Scope::new();
            let waits = async {
                let _sibling = sibling;
                op::read(&reader, vec![0; 8]).await.0.map(drop)
            };
            let panics = async {
                let _inner = inner;
                op::nop().await?;
                if check().is_ok() {
                    panic!("as planned");
                }
                Ok::<_, io::Error>(())
            };
            let (sibling, inner) = (Scope::new(), Scope::new());
            let both =
                async { Ok::<_, io::Error>(both(sibling.run(waits), inner.run(panics)).await) };
            outer.run(both).await.map(drop)
        });
        let error = task.await.expect_err("it panicked");
        assert_eq!(error.to_string(), "the task panicked: as planned");
        assert_eq!(order.borrow().names, ["inner", "sibling", "around"]);
        let after = kernel_is_done(&handle).await;
        assert_eq!(after.panics - before.panics, 1);
        assert_eq!(after.scopes, before.scopes);
        assert_eq!(after.cancel_requests - before.cancel_requests, 1);
        drop(writer);
    });
}

/// What a body still has when it has ended goes in its scope as well; that of a group is none that sees the deadline.
#[test]
fn c101_body_that_has_ended_is_dropped_in_its_scope() {
    conform(|_| async {
        for yields in [false, true] {
            let order = Rc::new(RefCell::new(Dropped::default()));
            let body = |name| {
                let (held, mut yields) = (Named(name, Rc::clone(&order)), yields);
                poll_fn(move |cx| {
                    let _held = &held;
                    if std::mem::take(&mut yields) {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok::<_, Cancelled>(()))
                })
            };
            let at = Instant::now() + LONG;
            let scope = Scope::new().deadline(at);
            assert_eq!(scope.run(body("scope")).await, Ok(Some(())));
            let around = Scope::new().deadline(at);
            let grouped = around.run(group(|g: Group<Cancelled>| {
                g.set_shielded(true);
                body("group")
            }));
            assert!(matches!(grouped.await, Ok(Some(Some(())))));
            let dropped = order.borrow();
            assert_eq!(dropped.names, ["scope", "group"]);
            assert_eq!(dropped.deadlines, [Some(at), None], "yields: {yields}");
        }
    });
}

/// The body of a group as well, and what its child has open goes with that: the child has ended.
#[test]
fn c101_child_whose_future_is_dropped_has_ended_for_its_group() {
    conform(|handle| async move {
        let before = gauges(&handle).await;
        let (reader, _writer) = pipe();
        let shared = reader.clone();
        let order = Rc::new(RefCell::new(Dropped::default()));
        let named = |name| Named(name, Rc::clone(&order));
        let in_body = named("body");
        let at = Instant::now() + LONG;
        let outcome = group(async |g: Group<io::Error>| {
            let nested = async move {
                let scope = Scope::new().deadline(at);
                let open = scope.run(group(async |inner: Group<io::Error>| {
                    let _in_body = in_body;
                    inner.set_shielded(true);
                    let innermost = Scope::new();
                    let read = op::read(&shared, vec![0; 8]).into_result();
                    innermost.run(read).await
                }));
                open.await.map(drop)
            };
            let child = g.spawn(async { Ok(run_until_cancelled(nested).await?) });
            some_turns(2).await;
            child.cancel();
            Ok(7)
        })
        .await;
        assert!(matches!(outcome, Ok(Some(7))), "{outcome:?}");
        // In the group, which lets no deadline be seen.
        assert_eq!(order.borrow().deadlines, [None]);
        assert!(reader.is_unique());
        let after = gauges(&handle).await;
        assert_eq!(after.cancel_requests - before.cancel_requests, 1);
        assert_eq!((after.scopes, after.tasks), (before.scopes, before.tasks));
        assert_eq!((after.parked, after.orphans), (before.parked, 0));
    });
}

/// A task that nobody polls again is dropped with all that it had open when its core ends.
#[test]
fn c101_task_that_its_core_drops_takes_its_scopes_along() {
    on_both(|| {
        let drops = Drops::new();
        let value = drops.value();
        let runtime = one_core().build().expect("tests need io_uring");
        let handle = runtime.handle();
        let started = handle.spawn(handle.cores()[0], move || async move {
            drop(spawn(async move {
                let scope = Scope::new().shielded();
                let inner = Scope::new();
                let body = inner.run(async {
                    let _value = value;
                    pending::<Result<(), Cancelled>>().await
                });
                scope.run(body).await
            }));
            yield_now().await.expect("nobody cancels");
        });
        started.expect("room").wait().expect("it ended");
        assert_eq!(drops.alive(), 1);
        runtime.shutdown(Duration::ZERO);
        assert_eq!((drops.alive(), drops.dropped()), (0, 1));
    });
}

/// Whoever begins to poll a run has to go on with it.
#[test]
fn c099_run_that_goes_on_in_another_task_has_failed() {
    conform(|handle| async move {
        let before = gauges(&handle).await;
        let (reader, _writer) = pipe();
        let inner = reader.clone();
        let (begun, polls) = watched(async move { op::read(&inner, vec![0; 8]).await.0 });
        let scope = Rc::new(Scope::new());
        let entered = Rc::clone(&scope);
        let mut run: Pin<Box<dyn Future<Output = io::Result<Option<usize>>>>> =
            Box::pin(async move { entered.run(begun).await });
        let first = spawn(async move {
            assert!(poll_once(run.as_mut()).await.is_pending());
            (run,)
        });
        let (run,) = first.await.expect("it ended");
        // Polled further, it would wait for ever.
        let Either::First(second) = either(spawn(run), sleep(200 * SHORT)).await else {
            panic!("the run goes on in another task");
        };
        let error = second.expect("it ended").expect_err("a misuse");
        let why = error.cancelled().map(Cancelled::reason);
        assert_eq!(why, Some(Reason::Misuse(Misuse::ForeignTask)));
        assert_eq!(polls.get(), 1, "the body is polled no further");
        let after = kernel_is_done(&handle).await;
        assert_eq!((after.scopes, after.parked), (before.scopes, before.parked));
        assert!(reader.is_unique());
    });
}

/// A scope that another task has entered is left to it: whoever asks for its end asks by a cancel.
#[test]
fn c098_scope_of_another_task_can_be_cancelled_and_not_left() {
    conform(|_| async {
        let scope = Rc::new(Scope::new());
        let entered = Rc::clone(&scope);
        let owner = spawn(async move { entered.run(sleep(LONG)).await });
        some_turns(1).await;
        let stranger = Rc::clone(&scope);
        let stranger = spawn(async move {
            let refused = stranger.run(yield_now()).await;
            // Dropping its own reference ends nothing.
            drop(stranger);
            refused
        });
        let refused = stranger.await.expect("it ended").expect_err("in use");
        assert_eq!(refused.reason(), Reason::Misuse(Misuse::RunTwice));
        assert!(!owner.is_finished());
        scope.cancel();
        assert_eq!(owner.await.expect("it ended"), Ok(None));
        assert!(scope.absorbed());
    });
}

#[test]
fn c100_task_that_leaks_a_group_has_failed_and_its_children_end() {
    conform(|handle| async move {
        let before = gauges(&handle).await;
        let refused = Rc::new(Cell::new(0));
        let inner = Rc::clone(&refused);
        let task = spawn(async move {
            let mut open = Box::pin(group(async move |g: Group<io::Error>| {
                for _ in 0..2 {
                    let refused = Rc::clone(&inner);
                    g.spawn(async move {
                        let outcome = sleep(LONG).await;
                        let abandoned = reason(&outcome);
                        assert_eq!(abandoned, Some(Reason::Abandoned));
                        refused.set(refused.get() + 1);
                        Ok(outcome?)
                    });
                }
                // What is leaked with it would stay: so it waits for nothing of ours.
                pending::<io::Result<()>>().await
            }));
            assert!(poll_once(open.as_mut()).await.is_pending());
            std::mem::forget(open);
            7
        });
        let error = task.await.expect_err("it left a group behind");
        assert!(matches!(error, JoinError::AbandonedGroup), "{error}");
        while refused.get() < 2 {
            yield_now().await.expect("nobody cancels");
        }
        assert_eq!(gauges(&handle).await.tasks, before.tasks);
    });
}

/// It has not reported, or its report was ignored.
#[test]
fn c100_child_that_leaks_a_group_and_has_not_started_has_failed() {
    conform(|_| async {
        for reports in [false, true] {
            let outcome = group(async |g: Group<io::Error>| {
                let caller = Scope::new();
                let started = caller.run(async {
                    if reports {
                        caller.cancel();
                    }
                    let child = async move |started: Started<u8>| {
                        let mut open = Box::pin(group(async |_: Group<io::Error>| {
                            pending::<io::Result<()>>().await
                        }));
                        assert!(poll_once(open.as_mut()).await.is_pending());
                        std::mem::forget(open);
                        if reports {
                            started.report(7).expect("once");
                        }
                        Ok(())
                    };
                    Ok::<_, Cancelled>(g.start(child).await)
                });
                let started = started.await?.expect("it has a value");
                let error = started.expect_err("it left a group behind");
                let why = error.cancelled().map(Cancelled::reason);
                let leaked = Reason::Misuse(Misuse::AbandonedGroup);
                assert_eq!(why, Some(leaked), "reports: {reports}");
                Ok(())
            })
            .await;
            assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        }
    });
}

#[test]
fn c102_dropped_group_is_taken_over_by_the_scope_around() {
    conform(|handle| async move {
        let before = gauges(&handle).await;
        let ended = Rc::new(Cell::new(0));
        let inner = Rc::clone(&ended);
        let began = Instant::now();
        let around = Scope::new();
        let outcome = around
            .run(async {
                let open = group(async move |g: Group<io::Error>| {
                    for _ in 0..3 {
                        let ended = Rc::clone(&inner);
                        g.spawn(async move {
                            let outcome = sleep(LONG).await;
                            assert_eq!(reason(&outcome), Some(Reason::Dropped));
                            let shield = Scope::new().shielded();
                            shield.run(sleep(2 * SHORT)).await?;
                            ended.set(ended.get() + 1);
                            Ok(outcome?)
                        });
                    }
                    Ok(sleep(LONG).await?)
                });
                let picked = either(open, sleep(SHORT)).await;
                assert!(matches!(picked, Either::Second(Ok(()))));
                after_exactly(SHORT, began);
                assert_eq!(ended.get(), 0, "it was not waited for");
                Ok::<_, Cancelled>(7)
            })
            .await;
        assert_eq!(outcome, Ok(Some(7)));
        after_exactly(3 * SHORT, began);
        assert_eq!(ended.get(), 3);
        let after = gauges(&handle).await;
        assert_eq!(after.adopted_groups - before.adopted_groups, 1);
        assert_eq!((after.tasks, after.scopes), (before.tasks, before.scopes));
    });
}

#[test]
fn c102_shutdown_waits_for_the_children_of_a_dropped_group() {
    on_both(|| {
        let ended = Arc::new(AtomicU32::new(0));
        let runtime = one_core().build().expect("tests need io_uring");
        let handle = runtime.handle();
        let counted = Arc::clone(&ended);
        let started = handle.spawn(handle.cores()[0], move || async move {
            let mut open = Box::pin(group(async move |g: Group<io::Error>| {
                for _ in 0..3 {
                    let counted = Arc::clone(&counted);
                    g.spawn(async move {
                        let outcome = sleep(LONG).await;
                        let shield = Scope::new().shielded();
                        shield.run(sleep(2 * SHORT)).await?;
                        counted.fetch_add(1, Ordering::Relaxed);
                        Ok(outcome?)
                    });
                }
                pending::<io::Result<()>>().await
            }));
            assert!(poll_once(open.as_mut()).await.is_pending());
            some_turns(1).await;
        });
        started.expect("room").wait().expect("it ended");
        runtime.shutdown(LONG);
        assert_eq!(ended.load(Ordering::Relaxed), 3);
    });
}
