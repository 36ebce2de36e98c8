//! Scopes in scopes: whose a cancel is, and where an op stands that is older or younger than its scope.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::op;
use quoit::sim::{self, Fault};
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{Cancelled, Group, Reason, Scope, Started, check, group, spawn, yield_now};
use tests::{Child, Kernel, both_streams, conform, gauges, poll_once};

use crate::support::{
    Either, IntoResult, LONG, SHORT, after_exactly, at_once, both, either, pipe, reason,
    some_turns, watched,
};

fn why(scope: &Scope) -> Option<Reason> {
    scope.cancelled().map(Cancelled::reason)
}

/// Cancelled from the inside out, and the other way round.
#[test]
fn c064_outermost_cancelled_scope_takes_it() {
    conform(|_| async {
        for inner_first in [true, false] {
            let (s1, s2, s3) = (Scope::new(), Scope::new(), Scope::new());
            let (h2, h3) = (s2.handle(), s3.handle());
            let after = Cell::new(false);
            let outcome = s1
                .run(async {
                    let taken = s2
                        .run(async {
                            s3.run(async {
                                if inner_first {
                                    h3.cancel_with(Reason::User(3), Duration::ZERO);
                                    check().expect_err("cancelled");
                                    h2.cancel_with(Reason::User(2), Duration::ZERO);
                                } else {
                                    h2.cancel_with(Reason::User(2), Duration::ZERO);
                                    check().expect_err("cancelled");
                                    h3.cancel_with(Reason::User(3), Duration::ZERO);
                                }
                                let refused = sleep(LONG).await;
                                assert_eq!(reason(&refused), Some(Reason::User(2)));
                                refused
                            })
                            .await?;
                            after.set(true);
                            Ok::<_, Cancelled>(())
                        })
                        .await?;
                    assert_eq!(taken, None);
                    yield_now().await
                })
                .await;
            assert_eq!(outcome, Ok(Some(())));
            assert!(!after.get(), "it passed the inner one");
            assert_eq!(
                (why(&s2), why(&s3)),
                (Some(Reason::User(2)), Some(Reason::User(3)))
            );
            assert_eq!(why(&s1), None);
        }
    });
}

#[test]
fn c065_shielded_scope_keeps_its_own_cancel_when_an_outer_one_follows() {
    conform(|_| async {
        let (a, b) = (Scope::new(), Scope::new().shielded());
        let (cancel_a, cancel_b) = (a.handle(), b.handle());
        let after = Cell::new(false);
        let outcome = a
            .run(async {
                let taken = b
                    .run(async {
                        cancel_b.cancel_with(Reason::User(2), Duration::ZERO);
                        let refused = op::nop().await;
                        cancel_a.cancel_with(Reason::User(1), Duration::ZERO);
                        refused
                    })
                    .await;
                assert!(matches!(taken, Ok(None)), "{taken:?}");
                after.set(true);
                Ok::<_, io::Error>(7)
            })
            .await;
        assert!(matches!(outcome, Ok(Some(7))), "{outcome:?}");
        assert!(after.get());
        assert_eq!(why(&b), Some(Reason::User(2)));
    });
}

/// As above, and somebody has looked at the outer cancel meanwhile; the next op outside sees it.
#[test]
fn c065_outer_cancel_is_seen_by_the_first_op_behind_the_shield() {
    conform(|_| async {
        let (a, b) = (Scope::new(), Scope::new().shielded());
        let (cancel_a, cancel_b) = (a.handle(), b.handle());
        let outcome = a
            .run(async {
                let taken = b
                    .run(async {
                        cancel_b.cancel_with(Reason::User(2), Duration::ZERO);
                        let refused = op::nop().await;
                        cancel_a.cancel_with(Reason::User(1), Duration::ZERO);
                        check().expect_err("cancelled");
                        refused
                    })
                    .await;
                assert!(matches!(taken, Ok(None)), "{taken:?}");
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(
            (why(&a), why(&b)),
            (Some(Reason::User(1)), Some(Reason::User(2)))
        );
    });
}

#[test]
fn c066_cancelling_oneself_inside_a_cancelled_scope_is_the_outer_scope_s_cancel() {
    conform(|_| async {
        let (a, b) = (Scope::new(), Scope::new());
        let (cancel_a, cancel_b) = (a.handle(), b.handle());
        let after = Cell::new(false);
        let outcome = a
            .run(async {
                cancel_a.cancel_with(Reason::User(1), Duration::ZERO);
                b.run(async {
                    cancel_b.cancel_with(Reason::User(2), Duration::ZERO);
                    sleep(LONG).await
                })
                .await?;
                after.set(true);
                Ok::<_, Cancelled>(())
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert!(!after.get());
        assert_eq!(
            (why(&a), why(&b)),
            (Some(Reason::User(1)), Some(Reason::User(2)))
        );
    });
}

/// Each level is polled by the one around it, so the thread's stack is the limit: it is made as large
/// as an unoptimised build needs.
#[test]
fn c067_two_thousand_nested_scopes_pass_one_cancel_on() {
    type Nested = Pin<Box<dyn Future<Output = Result<u32, Cancelled>>>>;

    fn nest(depth: u32, passed: Rc<Cell<u32>>) -> Nested {
        Box::pin(async move {
            if depth == 0 {
                sleep(LONG).await?;
                return Ok(0);
            }
            let inner = nest(depth - 1, Rc::clone(&passed));
            let outcome = Scope::new().run(inner).await;
            passed.set(passed.get() + u32::from(outcome.is_err()));
            Ok(outcome?.unwrap_or(depth))
        })
    }
    // What threads have by themselves, and more where nothing is optimised.
    let mebibytes = if cfg!(debug_assertions) { 8 } else { 2 };
    let stack = format!("RUST_MIN_STACK={}", mebibytes << 20);
    let test = "nesting::c067_two_thousand_nested_scopes_pass_one_cancel_on";
    Child::new().under(["env".to_owned(), stack]).run(test, || {
        conform(|handle| async move {
            const DEPTH: u32 = 2_000;
            let passed = Rc::new(Cell::new(0));
            let before = handle.metrics()[0].aborts;
            let scope = Scope::new().timeout(SHORT);
            let (run, polls) = watched(scope.run(nest(DEPTH, Rc::clone(&passed))));
            assert_eq!(run.await, Ok(None));
            assert_eq!((passed.get(), polls.get()), (DEPTH, 2));
            assert_eq!(handle.metrics()[0].aborts - before, 1);
            assert_eq!(gauges(&handle).await.scopes, 2);
        });
    });
}

#[test]
fn c068_branches_of_a_task_do_not_see_each_other_s_scopes() {
    conform(|_| async {
        let (a, b) = (Scope::new(), Scope::new());
        let cancel = a.handle();
        let go = Rc::new(Event::new());
        let other = {
            let go = Rc::clone(&go);
            spawn(async move {
                some_turns(1).await;
                cancel.cancel();
                some_turns(2).await;
                go.set();
            })
        };
        let (first, second) = both(a.run(sleep(LONG)), b.run(go.wait())).await;
        assert_eq!((first, second), (Ok(None), Ok(Some(()))));
        assert!(a.cancelled().is_some());
        assert_eq!(b.cancelled(), None);
        other.await.expect("it ended");
    });
}

/// The branch whose op is in no scope is polled first or last, from then on.
#[test]
fn c069_scope_of_one_branch_does_not_reach_the_other() {
    conform(|_| async {
        for scope_first in [true, false] {
            let scope = Scope::new();
            let cancel = scope.handle();
            let go = Rc::new(Event::new());
            let other = {
                let go = Rc::clone(&go);
                spawn(async move {
                    some_turns(1).await;
                    cancel.cancel();
                    some_turns(2).await;
                    go.set();
                })
            };
            let mut inside = pin!(scope.run(sleep(LONG)));
            let mut outside = pin!(go.wait());
            assert!(poll_once(inside.as_mut()).await.is_pending());
            assert!(poll_once(outside.as_mut()).await.is_pending());
            let (mut ended_inside, mut ended_outside) = (None, None);
            poll_fn(|cx| {
                for turn in [scope_first, !scope_first] {
                    if turn && ended_inside.is_none() {
                        if let Poll::Ready(ended) = inside.as_mut().poll(cx) {
                            ended_inside = Some(ended);
                        }
                    } else if !turn
                        && ended_outside.is_none()
                        && let Poll::Ready(ended) = outside.as_mut().poll(cx)
                    {
                        ended_outside = Some(ended);
                    }
                }
                if ended_inside.is_some() && ended_outside.is_some() {
                    return Poll::Ready(());
                }
                Poll::Pending
            })
            .await;
            assert_eq!(
                (ended_inside, ended_outside),
                (Some(Ok(None)), Some(Ok(())))
            );
            other.await.expect("it ended");
        }
    });
}

#[test]
fn c070_scope_of_a_branch_that_lost_is_gone_from_the_tree() {
    conform(|handle| async move {
        let outer = Scope::new();
        let cancel = outer.handle();
        let scopes = gauges(&handle).await.scopes;
        let before = handle.metrics()[0].aborts;
        let outcome = outer
            .run(async {
                let inner = Scope::new();
                let picked = either(inner.run(sleep(LONG)), sleep(SHORT)).await;
                assert_eq!(picked, Either::Second(Ok(())));
                assert_eq!(gauges(&handle).await.scopes, scopes);
                cancel.cancel();
                assert!(check().is_err());
                assert_eq!(
                    handle.metrics()[0].aborts,
                    before,
                    "nobody is left to be told"
                );
                yield_now().await
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

#[test]
fn c071_cancel_passes_inner_scopes_and_stops_at_the_shield_that_was_cancelled() {
    conform(|_| async {
        let (a, b, c) = (Scope::new(), Scope::new().shielded(), Scope::new());
        let (cancel_a, cancel_b) = (a.handle(), b.handle());
        let after = Cell::new(false);
        let outcome = a
            .run(async {
                cancel_a.cancel_with(Reason::User(1), Duration::ZERO);
                let taken = b
                    .run(async {
                        cancel_b.cancel_with(Reason::User(2), Duration::ZERO);
                        let inside = c.run(op::nop()).await;
                        assert_eq!(reason(&inside), Some(Reason::User(2)));
                        inside?;
                        after.set(true);
                        Ok::<_, io::Error>(())
                    })
                    .await;
                assert!(matches!(taken, Ok(None)), "{taken:?}");
                let refused = op::nop().await;
                assert_eq!(reason(&refused), Some(Reason::User(1)));
                refused
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert!(!after.get());
        assert_eq!(why(&c), None);
    });
}

/// A wait in memory, a receive, and an op of the kernel's.
#[test]
fn c236_op_moves_into_the_scope_that_polls_it() {
    conform(|handle| async move {
        let (ours, theirs) = both_streams().await;
        let (reader, writer) = pipe();
        let mut wait = pin!(async { Ok::<_, io::Error>(sleep(LONG).await?) });
        let mut receive = pin!(async { ours.receive().await.map(drop) });
        let mut read = pin!(async { op::read(&reader, [0; 4]).await.0.map(drop) });
        let older: [Pin<&mut dyn Future<Output = io::Result<()>>>; 3] =
            [wait.as_mut(), receive.as_mut(), read.as_mut()];
        for mut op in older {
            assert!(poll_once(op.as_mut()).await.is_pending());
            op::nop().await.expect("it waits in the kernel");
            let before = handle.metrics()[0].aborts;
            let began = Instant::now();
            let scope = Scope::new().timeout(10 * SHORT);
            let outcome = scope.run(op.as_mut()).await;
            assert!(matches!(outcome, Ok(None)), "{outcome:?}");
            after_exactly(10 * SHORT, began);
            assert_eq!(handle.metrics()[0].aborts - before, 1);
        }
        // None of them took anything.
        theirs.send_all("x").await.0.expect("the socket takes it");
        let chunk = ours.receive().await.expect("no error").expect("no end");
        assert_eq!(&*chunk, b"x");
        op::write(&writer, "y").await.0.expect("room");
        let (count, _) = op::read(&reader, [0; 4]).await;
        assert_eq!(count.expect("a byte"), 1);
    });
}

/// A run of a scope is an op in this as well.
#[test]
fn c236_run_moves_into_the_scope_that_polls_it() {
    conform(|_| async {
        let scope = Scope::new();
        let mut run = Box::pin(scope.run(sleep(LONG)));
        assert!(poll_once(run.as_mut()).await.is_pending());
        let outcome = Scope::new()
            .timeout(SHORT)
            .run(async { run.await.map(drop) })
            .await;
        assert_eq!(outcome, Ok(None));
        assert_eq!(scope.cancelled(), None, "it was cancelled from outside");
    });
}

/// A wait in memory, and an op of the kernel's.
#[test]
fn c237_op_that_outlives_its_scope_moves_to_the_scope_around() {
    conform(|handle| async move {
        let (reader, _writer) = pipe();
        let mut wait = pin!(async { Ok::<_, io::Error>(sleep(LONG).await?) });
        let mut read = pin!(async { op::read(&reader, [0; 4]).await.0.map(drop) });
        let younger: [Pin<&mut dyn Future<Output = io::Result<()>>>; 2] =
            [wait.as_mut(), read.as_mut()];
        for mut op in younger {
            let parent = Scope::new();
            let cancel = parent.handle();
            let before = handle.metrics()[0].aborts;
            let outcome = parent
                .run(async {
                    let inner = Scope::new().timeout(LONG);
                    let ended = inner
                        .run(async {
                            assert!(poll_once(op.as_mut()).await.is_pending());
                            Ok::<_, Cancelled>(1)
                        })
                        .await;
                    assert_eq!(ended, Ok(Some(1)));
                    drop(spawn(async move {
                        some_turns(1).await;
                        cancel.cancel();
                    }));
                    op.as_mut().await
                })
                .await;
            assert!(matches!(outcome, Ok(None)), "{outcome:?}");
            assert_eq!(handle.metrics()[0].aborts - before, 1);
        }
    });
}

/// The op keeps the cause of the moment in which it was aborted.
#[test]
fn c237_aborted_op_that_outlives_its_scope_says_why() {
    conform(|_| async {
        let mut wait = pin!(sleep(LONG));
        let inner = Scope::new();
        let cancel = inner.handle();
        let outcome = inner
            .run(async {
                assert!(poll_once(wait.as_mut()).await.is_pending());
                cancel.cancel_with(Reason::User(5), Duration::ZERO);
                check()
            })
            .await;
        assert_eq!(outcome, Ok(None));
        let late = wait.await.expect_err("it was aborted");
        assert_eq!(late.reason(), Reason::User(5));
    });
}

#[test]
fn c238_run_ends_when_the_kernel_is_done_with_what_lost() {
    conform(|handle| async move {
        let (reader, _writer) = pipe();
        let inner = reader.clone();
        let picked_at = Rc::new(Cell::new(None));
        let picked = Rc::clone(&picked_at);
        let began = Instant::now();
        let outcome = Scope::new()
            .run(async move {
                // The kernel takes its time to end what it is asked to end.
                sim::force(Fault::CancelledLate);
                let read = op::read(&inner, vec![0; 8]).into_result();
                let either = either(read, sleep(SHORT)).await;
                drop(inner);
                picked.set(Some(Instant::now()));
                assert!(matches!(either, Either::Second(Ok(()))));
                Ok::<_, Cancelled>(())
            })
            .await;
        assert_eq!(outcome, Ok(Some(())));
        assert!(reader.is_unique(), "an op still uses the descriptor");
        let picked = picked_at.get().expect("it was noted");
        if Kernel::here() == Kernel::Simulated {
            assert_eq!(picked, began + SHORT);
            assert!(
                picked.elapsed() > Duration::ZERO,
                "it waited for the kernel"
            );
        }
        let counters = gauges(&handle).await;
        assert_eq!((counters.orphans, counters.op_slots), (0, 0));
    });
}

#[test]
fn c238_run_ends_when_the_kernel_is_done_with_everything_dropped_inside() {
    conform(|handle| async move {
        let (reader, _writer) = pipe();
        let inner = reader.clone();
        let outcome = Scope::new()
            .run(async {
                for _ in 0..100 {
                    let mut read = pin!(op::read(&inner, vec![0; 64]));
                    assert!(poll_once(read.as_mut()).await.is_pending());
                    // Half of them are in the kernel, half still in line when they are dropped.
                    op::nop().await?;
                    let mut other = pin!(op::read(&inner, vec![0; 64]));
                    assert!(poll_once(other.as_mut()).await.is_pending());
                }
                drop(inner);
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))));
        assert!(reader.is_unique(), "an op still uses the descriptor");
        let counters = gauges(&handle).await;
        assert_eq!((counters.orphans, counters.in_flight), (0, 0));
        assert_eq!(counters.op_slots, 0);
    });
}

/// The scope that the op stood under when it was aborted has ended before its future is dropped.
#[test]
fn c238_run_waits_for_the_kernel_s_part_of_an_op_that_an_inner_scope_aborted() {
    conform(|_| async {
        let (reader, _writer) = pipe();
        let shared = reader.clone();
        let outcome = Scope::new()
            .run(async move {
                let mut read = Box::pin(op::read(&shared, vec![0; 8]));
                let inner = Scope::new();
                let cancel = inner.handle();
                let aborted = inner
                    .run(async {
                        assert!(poll_once(read.as_mut()).await.is_pending());
                        cancel.cancel();
                        check()
                    })
                    .await;
                assert_eq!(aborted, Ok(None));
                drop(read);
                Ok::<_, Cancelled>(())
            })
            .await;
        assert_eq!(outcome, Ok(Some(())));
        assert!(reader.is_unique(), "an op still uses the descriptor");
    });
}

/// A run that is dropped hands it to the scope around.
#[test]
fn c238_scope_around_a_run_that_is_dropped_waits_for_the_kernel_s_part() {
    conform(|_| async {
        let (reader, _writer) = pipe();
        let inner = reader.clone();
        let outcome = Scope::new()
            .run(async move {
                let scope = Scope::new();
                {
                    let mut run = pin!(scope.run(op::read(&inner, vec![0; 64]).into_result()));
                    assert!(poll_once(run.as_mut()).await.is_pending());
                    op::nop().await?;
                }
                drop(inner);
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))));
        assert!(reader.is_unique(), "an op still uses the descriptor");
    });
}

/// While the inner scope waits for the kernel, the outer one is cancelled as well.
#[test]
fn c238_whose_a_cancel_is_is_decided_before_the_kernel_is_waited_for() {
    conform(|_| async {
        let (reader, _writer) = pipe();
        let outer = Scope::new();
        let (inner, outer_handle) = (Scope::new(), outer.handle());
        let inner_handle = inner.handle();
        let began = Instant::now();
        let outcome = outer
            .run(async {
                let taken = inner
                    .run(async {
                        let mut read = Box::pin(op::read(&reader, vec![0; 8]));
                        assert!(poll_once(read.as_mut()).await.is_pending());
                        for _ in 0..3 {
                            yield_now().await?;
                        }
                        drop(read);
                        inner_handle.cancel_with(Reason::User(1), Duration::ZERO);
                        drop(spawn(async move {
                            outer_handle.cancel_with(Reason::User(2), Duration::ZERO);
                        }));
                        check()
                    })
                    .await;
                Ok::<_, Cancelled>(taken)
            })
            .await;
        at_once(began);
        assert_eq!(outcome, Ok(Some(Ok(None))), "the inner scope takes its own");
        let late = outer
            .cancelled()
            .expect("cancelled while the kernel was waited for");
        assert_eq!(late.reason(), Reason::User(2));
    });
}

/// A tree as deep as there are tasks: each opens a group for the next.
#[test]
fn c067_hundred_thousand_nested_groups_pass_one_cancel_on() {
    type Level = Pin<Box<dyn Future<Output = Result<(), Cancelled>>>>;

    fn level(left: u32, deepest: Rc<Event>) -> Level {
        Box::pin(async move {
            if left == 0 {
                deepest.set();
                return sleep(LONG).await;
            }
            let outcome = group(async |g: Group<Cancelled>| {
                g.spawn(level(left - 1, Rc::clone(&deepest)));
                Ok(())
            })
            .await;
            outcome.map(drop).map_err(Cancelled::from)
        })
    }
    conform(|handle| async move {
        let depth = if Kernel::here().is_simulated() {
            500
        } else {
            100_000
        };
        let before = gauges(&handle).await;
        let deepest = Rc::new(Event::new());
        let outer = Rc::new(Scope::new());
        let (inner, told) = (Rc::clone(&outer), Rc::clone(&deepest));
        let task = spawn(async move { inner.run(level(depth, told)).await });
        deepest.wait().await.expect("nobody cancels");
        outer.cancel();
        assert_eq!(task.await.expect("it ended"), Ok(None));
        assert!(outer.absorbed());
        let after = gauges(&handle).await;
        assert_eq!(after.aborts - before.aborts, 1);
        assert_eq!((after.scopes, after.tasks), (before.scopes, before.tasks));
    });
}

// --- moved by `started` ---

#[test]
fn c072_child_that_starts_into_a_cancelled_group_is_cancelled_by_the_move() {
    conform(|handle| async move {
        let outcome = group(async |caller: Group<io::Error>| {
            let target_is = Rc::new(Cell::new(None));
            let (told, asleep) = (Rc::clone(&target_is), Rc::new(Cell::new(0)));
            let counted = Rc::clone(&asleep);
            let target = caller.spawn(async move {
                let ended = group(async |target: Group<io::Error>| {
                    told.set(Some(target));
                    Ok(sleep(LONG).await?)
                })
                .await;
                assert!(matches!(ended, Ok(None)), "{ended:?}");
                Ok(())
            });
            some_turns(1).await;
            let target_group: Group<io::Error> = target_is.get().expect("it was noted");
            let before = handle.metrics()[0].aborts;
            let started = target_group
                .start(async move |started: Started<u32>| {
                    let outcome = group(async |g: Group<io::Error>| {
                        for _ in 0..3 {
                            let counted = Rc::clone(&counted);
                            g.spawn(async move {
                                let outcome = sleep(LONG).await;
                                counted.set(counted.get() + 1);
                                Ok(outcome?)
                            });
                        }
                        some_turns(1).await;
                        // Its body waits, and so do these.
                        target_group.cancel();
                        started.report(7).expect("once");
                        Ok(())
                    })
                    .await;
                    Ok(outcome.map(drop)?)
                })
                .await;
            assert!(matches!(started, Ok(7)), "{started:?}");
            target.await.expect("it took its cancel");
            assert_eq!(asleep.get(), 3);
            // These three, and the body's.
            assert_eq!(handle.metrics()[0].aborts - before, 4);
            Ok(())
        })
        .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
    });
}

#[test]
fn c073_child_that_has_started_is_its_group_s() {
    conform(|_| async {
        let refused = Rc::new(Cell::new(None));
        let inner = Rc::clone(&refused);
        let outcome = group(async |target: Group<io::Error>| {
            let caller = Scope::new();
            let refused = Rc::clone(&inner);
            let started = caller
                .run(async {
                    let told = target
                        .start(async move |started: Started<u32>| {
                            started.report(7).expect("once");
                            let outcome = sleep(LONG).await;
                            refused.set(reason(&outcome));
                            Ok(outcome?)
                        })
                        .await;
                    caller.cancel();
                    assert!(check().is_err());
                    Ok::<_, io::Error>(told)
                })
                .await;
            assert!(matches!(started, Ok(Some(Ok(7)))), "{started:?}");
            some_turns(2).await;
            assert_eq!(inner.get(), None, "it is the caller's no more");
            target.cancel_for(Reason::User(2));
            op::nop().await
        })
        .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(refused.get(), Some(Reason::User(2)));
    });
}
