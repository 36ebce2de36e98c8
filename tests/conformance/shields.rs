//! A shielded scope does not see cancellation from outside; its own works as always.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::op;
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{
    Cancelled, CarriesCancelled, Group, JoinError, Reason, Scope, StartError, Started, check,
    effective_deadline, group, is_cancelled, isolating_group, race, spawn, yield_now,
};
use tests::{Kernel, both_streams, conform};

use crate::support::{
    Either, LONG, SHORT, after_exactly, at_once, either, pipe, reason, some_turns, watched,
};

/// The op in the shield is parked when the cancel comes: in memory, or in the kernel.
#[test]
fn c031_op_in_a_shield_does_not_see_a_cancel_from_outside() {
    conform(|handle| async move {
        for in_the_kernel in [false, true] {
            let (reader, writer) = pipe();
            let go = Rc::new(Event::new());
            let outer = Scope::new();
            let cancel = outer.handle();
            let other = {
                let go = Rc::clone(&go);
                spawn(async move {
                    some_turns(1).await;
                    cancel.cancel();
                    some_turns(1).await;
                    go.set();
                    op::write(&writer, "x").await.0.expect("room");
                })
            };
            let before = handle.metrics()[0].aborts;
            let shield = Scope::new().shielded();
            let outcome = outer
                .run(async {
                    let inside = shield.run(async {
                        if in_the_kernel {
                            op::read(&reader, [0; 1]).await.0
                        } else {
                            go.wait().await?;
                            Ok(1)
                        }
                    });
                    assert!(matches!(inside.await, Ok(Some(1))));
                    op::nop().await
                })
                .await;
            assert!(matches!(outcome, Ok(None)), "{outcome:?}");
            assert_eq!(shield.cancelled(), None);
            assert_eq!(handle.metrics()[0].aborts, before);
            other.await.expect("it ended");
        }
    });
}

#[test]
fn c031_scope_inside_a_shield_is_shielded_with_it() {
    conform(|_| async {
        let outer = Scope::new().timeout(SHORT);
        let outcome = outer
            .run(async {
                let shielded = Scope::new().shielded();
                let slept = shielded
                    .run(async { Scope::new().run(sleep(4 * SHORT)).await })
                    .await?;
                assert_eq!(slept, Some(Some(())));
                yield_now().await
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

/// By a handle before its op, by one while the op is parked, and by its deadline.
#[test]
fn c032_shield_does_not_protect_from_its_own_scope() {
    conform(|_| async {
        let shield = Scope::new().shielded();
        let cancel = shield.handle();
        let outcome = shield
            .run(async {
                cancel.cancel();
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");

        let shield = Scope::new().shielded();
        let cancel = shield.handle();
        let canceller = spawn(async move { cancel.cancel() });
        assert_eq!(shield.run(sleep(LONG)).await, Ok(None));
        canceller.await.expect("it ended");

        let shield = Scope::new().shielded().timeout(SHORT);
        let began = Instant::now();
        assert_eq!(shield.run(sleep(LONG)).await, Ok(None));
        after_exactly(SHORT, began);
        assert_eq!(
            shield.cancelled().map(Cancelled::reason),
            Some(Reason::Deadline)
        );
    });
}

#[test]
fn c033_scope_in_a_shield_takes_its_own_cancel() {
    conform(|_| async {
        let (shield, inner) = (Scope::new().shielded(), Scope::new());
        let cancel = inner.handle();
        let outcome = shield
            .run(async {
                let inside = inner.run(async {
                    cancel.cancel();
                    op::nop().await
                });
                assert!(matches!(inside.await, Ok(None)));
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        assert_eq!(shield.cancelled(), None);
    });
}

/// Says goodbye to a peer that answers after a while, or never, within 100 ms; returns whether it
/// answered.
async fn goodbye(answers: bool) -> io::Result<Option<()>> {
    let (ours, theirs) = Scope::new()
        .shielded()
        .run(async { Ok::<_, io::Error>(both_streams().await) })
        .await?
        .expect("nobody cancels a shield");
    let peer = spawn(async move {
        assert!(theirs.receive().await?.is_some());
        if answers {
            sleep(Duration::from_millis(20)).await?;
            theirs.send_all("bye").await.0?;
        }
        // Until we have hung up.
        while theirs.receive().await?.is_some() {}
        Ok::<_, io::Error>(())
    });
    let shield = Scope::new().shielded().timeout(Duration::from_millis(100));
    let said = shield
        .run(async {
            ours.send_all("bye").await.0?;
            // To its end: what lies unread when we hang up is lost to the peer as well.
            let mut answered = 0;
            while answered < "bye".len() {
                answered += ours.receive().await?.expect("no end").len();
            }
            Ok(())
        })
        .await;
    assert_eq!(shield.cancelled().is_some(), !answers);
    drop(ours);
    let shield = Scope::new().shielded();
    shield
        .run(async {
            peer.await.expect("it ended").expect("connected");
            Ok::<_, io::Error>(())
        })
        .await?;
    said
}

#[test]
fn c040_goodbye_behind_a_shield_is_said() {
    conform(|_| async {
        let outer = Scope::new();
        let cancel = outer.handle();
        let began = Instant::now();
        let outcome = outer
            .run(async {
                cancel.cancel();
                let cancelled = op::nop().await.expect_err("cancelled");
                let said = goodbye(true).await;
                assert!(matches!(said, Ok(Some(()))), "{said:?}");
                Err::<(), _>(cancelled)
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        after_exactly(Duration::from_millis(20), began);
    });
}

#[test]
fn c041_goodbye_that_nobody_answers_is_given_up() {
    conform(|_| async {
        let outer = Scope::new();
        let cancel = outer.handle();
        let began = Instant::now();
        let outcome = outer
            .run(async {
                cancel.cancel();
                let cancelled = op::nop().await.expect_err("cancelled");
                let said = goodbye(false).await;
                assert!(matches!(said, Ok(None)), "{said:?}");
                Err::<(), _>(cancelled)
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        after_exactly(Duration::from_millis(100), began);
    });
}

#[test]
fn c042_shield_goes_with_the_run_that_is_dropped() {
    conform(|handle| async move {
        let outer = Scope::new();
        let cancel = outer.handle();
        let before = handle.metrics()[0].aborts;
        let outcome = outer
            .run(async {
                cancel.cancel();
                let began = Instant::now();
                let shield = Scope::new().shielded();
                let mut polled = false;
                let picked = either(
                    shield.run(sleep(LONG)),
                    // No op: it comes back once.
                    poll_fn(|cx| {
                        if std::mem::replace(&mut polled, true) {
                            return Poll::Ready(());
                        }
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }),
                );
                assert_eq!(picked.await, Either::Second(()));
                assert!(check().is_err(), "the shield is gone");
                at_once(began);
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(handle.metrics()[0].aborts, before);
    });
}

// --- shields that come and go ---

#[test]
fn c034_clearing_a_shield_aborts_what_waits_behind_it() {
    conform(|handle| async move {
        let (outer, shield) = (Rc::new(Scope::new()), Rc::new(Scope::new().shielded()));
        let (outside, inside) = (Rc::clone(&outer), Rc::clone(&shield));
        let (task, polls) = watched(async move {
            outside
                .run(async { inside.run(sleep(LONG)).await.map(drop) })
                .await
        });
        let task = spawn(task);
        some_turns(1).await;
        outer.cancel();
        some_turns(2).await;
        assert_eq!(polls.get(), 1);
        let (before, began) = (handle.metrics()[0].aborts, Instant::now());
        shield.set_shielded(false);
        assert_eq!(task.await.expect("it ended"), Ok(None));
        at_once(began);
        assert_eq!(polls.get(), 2);
        assert_eq!(handle.metrics()[0].aborts - before, 1);
        assert!(outer.absorbed() && !shield.absorbed());
    });
}

#[test]
fn c035_shield_of_a_group_holds_until_it_is_cleared() {
    conform(|_| async {
        let outer = Scope::new();
        let refused = Rc::new(Cell::new(0));
        let began = Instant::now();
        let inner = Rc::clone(&refused);
        let outcome = outer
            .run(async {
                outer.cancel();
                let passed = group(async |g: Group<io::Error>| {
                    g.set_shielded(true);
                    for _ in 0..3 {
                        let refused = Rc::clone(&inner);
                        g.spawn(async move {
                            let outcome = sleep(LONG).await;
                            refused.set(refused.get() + 1);
                            Ok(outcome?)
                        });
                    }
                    sleep(Duration::from_millis(50)).await?;
                    assert_eq!(inner.get(), 0);
                    g.set_shielded(false);
                    Ok(7)
                })
                .await;
                let error = passed.expect_err("it is on its way out");
                assert!(error.errors().is_empty());
                Err::<(), _>(error)
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        after_exactly(Duration::from_millis(50), began);
        assert_eq!(refused.get(), 3);
        assert!(outer.absorbed());
    });
}

#[test]
fn c036_shield_around_the_body_of_a_group_is_not_its_children_s() {
    conform(|_| async {
        let outer = Scope::new();
        let told = Rc::new(Event::new());
        let outcome = outer
            .run(group(async |g: Group<io::Error>| {
                let child = Rc::clone(&told);
                g.spawn(async move {
                    let outcome = sleep(LONG).await;
                    child.set();
                    Ok(outcome?)
                });
                some_turns(1).await;
                let shield = Scope::new().shielded();
                let waited = shield
                    .run(async {
                        outer.cancel();
                        told.wait().await
                    })
                    .await;
                assert_eq!(waited, Ok(Some(())));
                op::nop().await
            }))
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    });
}

#[test]
fn c037_child_that_is_started_inside_a_shield_stands_under_its_group() {
    conform(|_| async {
        let outcome = group(async |g: Group<io::Error>| {
            let shield = Scope::new().shielded();
            let said = shield
                .run(async {
                    let child = g.spawn(async { Ok(sleep(LONG).await?) });
                    some_turns(1).await;
                    g.cancel();
                    let joined = child.await.expect_err("it was cancelled");
                    assert!(matches!(joined, JoinError::TaskCancelled(_)), "{joined}");
                    op::nop().await?;
                    Ok::<_, io::Error>(7)
                })
                .await;
            assert!(matches!(said, Ok(Some(7))), "{said:?}");
            op::nop().await
        })
        .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    });
}

#[test]
fn c038_shield_that_comes_up_late_makes_no_scope_take_what_is_not_its_own() {
    conform(|_| async {
        let (outer, inner) = (Scope::new(), Scope::new());
        let outcome = outer
            .run(async {
                let passed = inner
                    .run(async {
                        outer.cancel();
                        let refused = op::nop().await;
                        inner.set_shielded(true);
                        refused
                    })
                    .await;
                assert_eq!(reason(&passed), Some(Reason::Requested));
                passed
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert!(outer.absorbed() && !inner.absorbed());
    });
}

/// What a child was refused for is around it all the same: it has kept nothing.
#[test]
fn c038_shield_of_a_group_that_comes_up_late_makes_no_child_fail() {
    conform(|_| async {
        for is_isolating in [false, true] {
            let outer = Scope::new();
            let members = async |g: Group<Cancelled>| {
                let child = g.spawn(async move {
                    let refused = sleep(LONG).await;
                    g.set_shielded(true);
                    yield_now().await?;
                    refused
                });
                yield_now().await?;
                outer.cancel_with(Reason::User(7), Duration::ZERO);
                let shield = Scope::new().shielded();
                let joined = shield
                    .run(async { Ok::<_, Cancelled>(child.await) })
                    .await?;
                let told = joined
                    .expect("it is shielded")
                    .expect_err("it was cancelled");
                assert!(matches!(told, JoinError::TaskCancelled(_)), "{told}");
                assert_eq!(g.cancelled(), None);
                Ok(())
            };
            let outcome = outer
                .run(async {
                    let passed = match is_isolating {
                        false => group(members).await,
                        true => isolating_group(members).await,
                    };
                    let passed = passed.expect_err("it is not the group's to take");
                    assert_eq!(passed.errors(), []);
                    assert_eq!(
                        passed.cancelled().map(Cancelled::reason),
                        Some(Reason::User(7))
                    );
                    Err::<(), _>(passed)
                })
                .await;
            assert!(matches!(outcome, Ok(None)), "{outcome:?}");
            assert!(outer.absorbed());
        }
    });
}

#[test]
fn c038_shield_of_a_caller_that_comes_up_late_makes_no_start_fail() {
    conform(|_| async {
        let outer = Scope::new();
        let caller = Rc::new(Scope::new());
        let inner = Rc::clone(&caller);
        let handle = outer.handle();
        let outcome = outer
            .run(group(async |g: Group<Cancelled>| {
                let started = caller.run(g.start(async move |_: Started<()>| {
                    handle.cancel();
                    let refused = sleep(LONG).await;
                    inner.set_shielded(true);
                    refused
                }));
                let Err(StartError::Failed(passed)) = started.await else {
                    panic!("it has not started, and is nobody's here");
                };
                Err::<(), _>(passed)
            }))
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert!(outer.absorbed() && !caller.absorbed());
    });
}

#[test]
fn c039_shield_is_seen_by_whoever_asks() {
    conform(|_| async {
        let outer = Scope::new().timeout(LONG);
        let outcome = outer
            .run(async {
                let far = effective_deadline().expect("there is one");
                assert!(far > Instant::now() && !is_cancelled());
                outer.cancel();
                let seen = || {
                    let passed = |deadline: Instant| deadline <= Instant::now();
                    (is_cancelled(), effective_deadline().map(passed))
                };
                assert_eq!(seen(), (true, Some(true)));
                let shield = Scope::new().shielded();
                let inside = shield.run(async { Ok::<_, Cancelled>(seen()) }).await;
                assert_eq!(inside, Ok(Some((false, None))));
                assert_eq!(seen(), (true, Some(true)));
                Ok::<_, Cancelled>(())
            })
            .await;
        assert_eq!(outcome, Ok(Some(())));
    });
}

#[test]
fn c043_shield_that_is_set_before_the_run_is_there_from_its_first_op() {
    conform(|_| async {
        let shield = Rc::new(Scope::new());
        shield.set_shielded(true);
        let entered = Rc::clone(&shield);
        let task = spawn(async move {
            let outer = Scope::new();
            outer.cancel();
            outer
                .run(async {
                    let inside = entered.run(async {
                        op::nop().await?;
                        entered.set_shielded(false);
                        op::nop().await
                    });
                    inside.await.map(drop)
                })
                .await
        });
        assert!(matches!(task.await.expect("it ended"), Ok(None)));
        assert!(!shield.absorbed());
    });
}

#[test]
fn c044_grace_shield_ends_with_the_grace() {
    conform(|_| async {
        let grace = Duration::from_millis(50);
        let outer = Rc::new(Scope::new());
        let inner = Rc::clone(&outer);
        let (plain_at, graced_at) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
        let (plain, graced) = (Rc::clone(&plain_at), Rc::clone(&graced_at));
        let task = spawn(async move {
            inner
                .run(group(async |g: Group<io::Error>| {
                    let (plain, graced) = (Rc::clone(&plain), Rc::clone(&graced));
                    g.spawn(async move {
                        let refused = sleep(LONG).await;
                        plain.set(Some(Instant::now()));
                        Ok(refused?)
                    });
                    g.spawn(async move {
                        let shield = Scope::new().grace_shielded();
                        let refused = shield
                            .run(async {
                                // What it does has time.
                                sleep(grace / 2).await?;
                                sleep(LONG).await
                            })
                            .await;
                        graced.set(Some(Instant::now()));
                        assert!(refused.is_err(), "it is not the shield's to take");
                        Ok(refused.map(drop)?)
                    });
                    Ok(())
                }))
                .await
        });
        some_turns(1).await;
        let cancelled = Instant::now();
        outer.cancel_with(Reason::User(1), grace);
        let outcome = task.await.expect("it ended");
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        let late = |at: &Cell<Option<Instant>>| at.get().expect("it was noted") - cancelled;
        assert!(late(&graced_at) >= grace);
        if Kernel::here() == Kernel::Simulated {
            assert_eq!((late(&plain_at), late(&graced_at)), (Duration::ZERO, grace));
        }
    });
}

/// Whatever is not in the shield ends at once, be it the group's own body, or the other branch of a race; a deadline
/// may have a grace as well.
#[test]
fn c044_grace_shield_outlasts_the_body_of_its_group_and_its_rival_in_a_race() {
    async fn graced(kept: Rc<Cell<bool>>, takes: Duration) -> io::Result<()> {
        let shield = Scope::new().grace_shielded();
        shield.run(sleep(takes)).await?;
        kept.set(true);
        Ok(())
    }
    conform(|_| async {
        for (in_group, has_deadline, takes, grace) in [
            (true, false, 2 * SHORT, LONG),
            (true, false, LONG, 4 * SHORT),
            (true, true, 2 * SHORT, LONG),
            (false, false, 2 * SHORT, LONG),
            (false, false, LONG, 4 * SHORT),
            (false, true, 2 * SHORT, LONG),
        ] {
            let began = Instant::now();
            let scope = Scope::new().grace(grace);
            let scope = if has_deadline {
                scope.timeout(SHORT)
            } else {
                let cancel = scope.handle();
                drop(spawn(async move {
                    sleep(SHORT).await.expect("nobody cancels it");
                    cancel.cancel_with(Reason::User(1), grace);
                }));
                scope
            };
            let (kept, plain_at) = (Rc::new(Cell::new(false)), Cell::new(None));
            let shielded = graced(Rc::clone(&kept), SHORT + takes);
            let plain = async {
                let refused = sleep(LONG).await;
                plain_at.set(Some(began.elapsed()));
                Ok(refused?)
            };
            let outcome = match in_group {
                true => scope
                    .run(group(async |g: Group<io::Error>| {
                        g.spawn(shielded);
                        plain.await
                    }))
                    .await
                    .map(Option::flatten),
                false => scope.run(race(plain, shielded)).await,
            };
            let case = (in_group, has_deadline, takes, grace);
            assert_eq!(kept.get(), takes < grace, "{case:?}");
            // A group that its body has left gives nothing; a race gives what a branch has.
            let expected = (takes < grace && !in_group).then_some(());
            assert_eq!(outcome.expect("no failure"), expected, "{case:?}");
            after_exactly(SHORT + takes.min(grace), began);
            if Kernel::here() == Kernel::Simulated {
                assert_eq!(plain_at.get(), Some(SHORT), "{case:?}");
            }
        }
    });
}

/// It begins with the cancel, also with one that comes before the run.
#[test]
fn c044_grace_of_a_cancel_before_the_run_lasts_into_it() {
    conform(|_| async {
        let began = Instant::now();
        let outer = Scope::new();
        outer.cancel_with(Reason::User(1), 5 * SHORT);
        sleep(SHORT).await.expect("nobody cancels this one");
        let outcome = outer
            .run(async {
                let shield = Scope::new().grace_shielded();
                let refused = shield.run(sleep(LONG)).await;
                assert_eq!(reason(&refused), Some(Reason::User(1)));
                refused
            })
            .await;
        assert_eq!(outcome, Ok(None));
        after_exactly(5 * SHORT, began);
    });
}

/// What it lets through is the cancel without grace, and so is the reason, of what waits and of what follows.
#[test]
fn c044_grace_shield_shows_the_cancel_that_has_no_grace() {
    conform(|_| async {
        let (outer, inner) = (Scope::new(), Rc::new(Scope::new()));
        let second = Rc::clone(&inner);
        let outcome = outer
            .run(inner.run(async {
                outer.cancel_with(Reason::User(1), LONG);
                assert_eq!(reason(&yield_now().await), Some(Reason::User(1)));
                let shield = Scope::new().grace_shielded();
                let canceller = spawn(async move {
                    yield_now().await.expect("nobody cancels this one");
                    second.cancel_with(Reason::User(2), Duration::ZERO)
                });
                let refused = shield.run(async {
                    let waits = sleep(LONG).await;
                    assert_eq!(reason(&waits), Some(Reason::User(2)));
                    yield_now().await
                });
                let refused = refused.await;
                assert_eq!(reason(&refused), Some(Reason::User(2)));
                assert!(canceller.is_finished());
                refused
            }))
            .await;
        assert_eq!(outcome, Ok(None));
        assert!(outer.absorbed() && !inner.absorbed());
    });
}

/// Without a grace, a grace shield is none.
#[test]
fn c044_grace_shield_is_none_for_a_cancel_without_grace() {
    conform(|_| async {
        let outer = Scope::new();
        let outcome = outer
            .run(async {
                let shield = Scope::new().grace_shielded();
                outer.cancel();
                shield.run(op::nop()).await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    });
}

/// While the grace lasts the cancel from outside is not to be seen, so the shield takes its own.
#[test]
fn c044_own_cancel_of_a_grace_shield_is_its_own_while_the_grace_lasts() {
    conform(|_| async {
        let outer = Scope::new();
        let outcome = outer
            .run(async {
                outer.cancel_with(Reason::User(1), LONG);
                let shield = Scope::new().grace_shielded();
                let inside = shield
                    .run(async {
                        op::nop().await?;
                        shield.cancel();
                        op::nop().await
                    })
                    .await;
                assert!(matches!(inside, Ok(None)), "{inside:?}");
                assert!(shield.absorbed());
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    });
}
