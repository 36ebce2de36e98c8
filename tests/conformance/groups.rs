//! Tasks that end together: failures, cancels, children that report, races.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{
    AlreadyStarted, Cancelled, CarriesCancelled, Delivery, Group, GroupError, JoinError, Reason,
    Scope, StartError, Started, check, group, isolating_group, op, race, race_all, race_with,
    spawn, yield_now,
};
use tests::{Drops, Kernel, conform, gauges};

use crate::support::{LONG, SHORT, after_exactly, both, join_anyway, reason, some_turns, watched};

/// A failure with a name.
fn failure(name: &str) -> io::Error {
    io::Error::other(name)
}

/// Returns the names of what failed in a group, sorted.
fn names(error: &GroupError<io::Error>) -> Vec<String> {
    let mut names: Vec<String> = error.errors().iter().map(io::Error::to_string).collect();
    names.sort();
    names
}

/// Waits for ever, and notes when it was cancelled.
async fn waits(refusals: Rc<Cell<u32>>) -> io::Result<()> {
    let refused = sleep(LONG).await;
    assert!(refused.is_err());
    refusals.set(refusals.get() + 1);
    Ok(refused?)
}

fn counter() -> Rc<Cell<u32>> {
    Rc::default()
}

#[test]
fn c074_group_ends_after_its_children_and_lets_others_run() {
    conform(|_| async {
        let ended = counter();
        let outcome = group(async |g: Group<Cancelled>| {
            for millis in [2, 5] {
                let ended = Rc::clone(&ended);
                g.spawn(async move {
                    sleep(Duration::from_millis(millis)).await?;
                    ended.set(ended.get() + 1);
                    Ok(())
                });
            }
            Ok(7)
        })
        .await;
        assert!(matches!(outcome, Ok(Some(7))), "{outcome:?}");
        assert_eq!(ended.get(), 2);

        let ran = counter();
        let other = Rc::clone(&ran);
        let other = spawn(async move { other.set(1) });
        let empty = group(async |_: Group<Cancelled>| Ok(8)).await;
        assert!(matches!(empty, Ok(Some(8))), "{empty:?}");
        assert_eq!(ran.get(), 1, "another task was ready");
        other.await.expect("it ended");
    });
}

#[test]
fn c075_child_that_fails_cancels_the_others_and_the_body() {
    conform(|handle| async move {
        let refused = counter();
        let before = gauges(&handle).await;
        let outcome = group(async |g: Group<io::Error>| {
            g.spawn(waits(Rc::clone(&refused)));
            g.spawn(async {
                some_turns(2).await;
                Err::<(), _>(failure("E"))
            });
            waits(Rc::clone(&refused)).await
        })
        .await;
        let error = outcome.expect_err("a child failed");
        assert_eq!(names(&error), ["E"]);
        assert!(error.cancelled().is_none());
        assert_eq!(refused.get(), 2);
        let after = gauges(&handle).await;
        assert_eq!(after.aborts - before.aborts, 2);
        assert_eq!(after.deliveries - before.deliveries, 1);
    });
}

/// The cause is the first of them: of the children in the order of their ends, the body among them.
#[test]
fn c075_failures_are_told_in_the_order_in_which_they_came() {
    conform(|_| async {
        let outcome = group(async |g: Group<io::Error>| {
            for (name, turns) in [("later", 2), ("last", 3), ("first", 0)] {
                g.spawn(async move {
                    if turns > 0 {
                        assert_eq!(reason(&sleep(LONG).await), Some(Reason::Failure));
                        let shield = Scope::new().shielded();
                        shield.run(sleep(SHORT * turns)).await?;
                    } else {
                        sleep(SHORT).await?;
                    }
                    Err::<(), _>(failure(name))
                });
            }
            assert_eq!(reason(&sleep(LONG).await), Some(Reason::Failure));
            let shield = Scope::new().shielded();
            shield.run(sleep(SHORT)).await?;
            Err::<(), _>(failure("body"))
        })
        .await;
        let error = outcome.expect_err("all failed");
        let names: Vec<_> = error.errors().iter().map(io::Error::to_string).collect();
        assert_eq!(names, ["first", "body", "later", "last"]);
    });
}

#[test]
fn c076_body_that_fails_cancels_the_children() {
    conform(|_| async {
        let refused = counter();
        let outcome = group(async |g: Group<io::Error>| {
            g.spawn(waits(Rc::clone(&refused)));
            some_turns(1).await;
            Err::<(), _>(failure("E"))
        })
        .await;
        assert_eq!(refused.get(), 1);
        let error = outcome.expect_err("the body failed");
        assert_eq!(names(&error), ["E"]);
        assert!(error.cancelled().is_none());
    });
}

#[test]
fn c077_one_cancellation_comes_out_of_a_group() {
    conform(|_| async {
        let refused = counter();
        let outer = Scope::new().timeout(SHORT);
        let outcome = outer
            .run(async {
                let inner = group(async |g: Group<io::Error>| {
                    for _ in 0..3 {
                        g.spawn(waits(Rc::clone(&refused)));
                    }
                    waits(Rc::clone(&refused)).await
                })
                .await;
                let error = inner.expect_err("it is on its way out");
                assert!(error.errors().is_empty());
                assert_eq!(
                    error.cancelled().map(Cancelled::reason),
                    Some(Reason::Deadline)
                );
                Err::<(), _>(error)
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert!(outer.absorbed());
        assert_eq!(refused.get(), 4);
    });
}

/// The two fail in one turn, one or the other first. An inner group that fails with one error fails
/// with that error.
#[test]
fn c078_failures_of_nested_groups_are_all_told() {
    conform(|_| async {
        let go = Rc::new(Event::new());
        let fails = |name: &'static str| {
            let go = Rc::clone(&go);
            async move {
                go.wait().await?;
                Err::<(), _>(failure(name))
            }
        };
        let trigger = Rc::clone(&go);
        let trigger = spawn(async move {
            some_turns(3).await;
            trigger.set();
        });
        let outcome = group(async |outer: Group<io::Error>| {
            outer.spawn(fails("E1"));
            let inner = group(async |inner: Group<io::Error>| {
                inner.spawn(fails("E2"));
                Ok(sleep(LONG).await?)
            });
            Ok(inner.await?)
        })
        .await;
        let error = outcome.expect_err("both failed");
        assert_eq!(names(&error), ["E1", "E2"]);
        assert!(error.cancelled().is_none(), "{error:?}");
        trigger.await.expect("it ended");
    });
}

/// An error that keeps what a group within failed with as it is.
#[derive(Debug)]
enum Failure {
    Named(&'static str),
    Within(GroupError<Self>),
    Cancelled(Cancelled),
}

impl From<Cancelled> for Failure {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl CarriesCancelled for Failure {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Named(_) => None,
            Self::Within(group) => group.cancelled(),
            Self::Cancelled(cancelled) => Some(*cancelled),
        }
    }

    fn rest(self) -> Result<Self, Self> {
        match self {
            Self::Named(_) => Ok(self),
            Self::Within(group) => group.rest().map(Self::Within).map_err(Self::Within),
            Self::Cancelled(_) => Err(self),
        }
    }
}

#[test]
fn c078_group_that_failed_within_is_told_as_a_group() {
    conform(|_| async {
        let go = Rc::new(Event::new());
        let fails = |name: &'static str| {
            let go = Rc::clone(&go);
            async move {
                go.wait().await?;
                Err::<(), _>(Failure::Named(name))
            }
        };
        let trigger = Rc::clone(&go);
        let trigger = spawn(async move {
            some_turns(3).await;
            trigger.set();
        });
        let outcome = group(async |outer: Group<Failure>| {
            outer.spawn(fails("E1"));
            let within = group(async |inner: Group<Failure>| {
                inner.spawn(fails("E2"));
                Ok(sleep(LONG).await?)
            });
            within.await.map_err(Failure::Within)
        })
        .await;
        let error = outcome.expect_err("both failed");
        let [Failure::Named("E1"), Failure::Within(within)] = error.errors() else {
            panic!("{error:?}");
        };
        assert!(matches!(within.errors(), [Failure::Named("E2")]));
        assert_eq!((error.cancelled(), within.cancelled()), (None, None));
        trigger.await.expect("it ended");
    });
}

#[test]
fn c079_scope_that_takes_a_cancellation_passes_the_failures_on() {
    conform(|_| async {
        let refused = counter();
        let outer = Scope::new();
        let outcome = outer
            .run(group(async |g: Group<io::Error>| {
                g.spawn(waits(Rc::clone(&refused)));
                g.spawn(waits(Rc::clone(&refused)));
                g.spawn(async {
                    assert!(sleep(LONG).await.is_err());
                    Err::<(), _>(failure("E"))
                });
                some_turns(1).await;
                outer.cancel();
                waits(Rc::clone(&refused)).await
            }))
            .await;
        let error = outcome.expect_err("a child failed");
        assert_eq!(names(&error), ["E"]);
        assert!(error.cancelled().is_none(), "the scope took that");
        assert!(outer.absorbed());
        assert_eq!(refused.get(), 3);
    });
}

#[test]
fn c080_failure_cancels_the_group_also_below_a_cancelled_scope() {
    conform(|_| async {
        let outer = Scope::new();
        let refused_again = counter();
        let outcome = outer
            .run(group(async |g: Group<io::Error>| {
                for _ in 0..2 {
                    let again = Rc::clone(&refused_again);
                    g.spawn(async move {
                        assert!(sleep(LONG).await.is_err());
                        // Its clean-up, while the group gets its shield.
                        let shield = Scope::new().shielded();
                        shield.run(sleep(4 * SHORT)).await?;
                        let next = op::nop().await;
                        again.set(again.get() + u32::from(reason(&next).is_some()));
                        next
                    });
                }
                g.spawn(async {
                    assert!(sleep(LONG).await.is_err());
                    Err::<(), _>(failure("E"))
                });
                some_turns(1).await;
                outer.cancel();
                let shield = Scope::new().shielded();
                shield.run(sleep(SHORT)).await?;
                assert_eq!(g.cancelled().map(Cancelled::reason), Some(Reason::Failure));
                g.set_shielded(true);
                op::nop().await
            }))
            .await;
        assert_eq!(refused_again.get(), 2, "the shield revived nobody");
        let error = outcome.expect_err("a child failed");
        assert_eq!(names(&error), ["E"]);
    });
}

#[test]
fn c081_wait_at_the_end_of_a_group_is_cancelled_by_nobody() {
    conform(|_| async {
        let outer = Scope::new();
        let began = Instant::now();
        let (inner, polls) = watched(group(async |g: Group<io::Error>| {
            for _ in 0..3 {
                g.spawn(async {
                    let refused = sleep(LONG).await;
                    let shield = Scope::new().shielded();
                    shield.run(sleep(Duration::from_millis(50))).await?;
                    Ok(refused?)
                });
            }
            Ok::<_, io::Error>(7)
        }));
        let cancel = outer.handle();
        let canceller = spawn(async move {
            sleep(SHORT).await.expect("nobody cancels");
            cancel.cancel()
        });
        let polled = Rc::clone(&polls);
        let outcome = outer
            .run(async {
                let inner = inner.await;
                if Kernel::here().counts_exactly() {
                    assert_eq!(polled.get(), 2, "begun, and told of the last child's end");
                }
                inner
            })
            .await;
        after_exactly(SHORT + Duration::from_millis(50), began);
        // The children's, for the body had its value.
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        canceller.await.expect("it ended");
    });
}

#[test]
fn c082_end_of_a_group_is_no_op() {
    conform(|_| async {
        let scope = Scope::new();
        let outcome = scope
            .run(async {
                scope.cancel();
                let empty = group(async |_: Group<Cancelled>| Ok(1)).await?;
                let idle = group(async |g: Group<Cancelled>| {
                    g.spawn(async { Ok(()) });
                    Ok(2)
                })
                .await?;
                Ok::<_, GroupError<Cancelled>>((empty, idle))
            })
            .await;
        assert!(
            matches!(outcome, Ok(Some((Some(1), Some(2))))),
            "{outcome:?}"
        );
        assert!(!scope.absorbed());
    });
}

#[test]
fn c083_group_that_has_ended_takes_no_child() {
    conform(|_| async {
        let drops = Drops::new();
        let ended = group(async |g: Group<Cancelled>| Ok(g)).await;
        let ended = ended.expect("no failure").expect("a value");
        let (value, polled) = (drops.value(), counter());
        let noted = Rc::clone(&polled);
        let refused = ended.spawn(async move {
            let _value = value;
            noted.set(1);
            Ok(())
        });
        assert_eq!((drops.dropped(), polled.get()), (1, 0));
        assert!(refused.is_finished());
        let error = refused.await.expect_err("there is no group");
        assert!(matches!(error, JoinError::GroupClosed), "{error}");
        assert_eq!(ended.cancel(), Delivery::Gone);
        assert!(ended.handle().is_none());
    });
}

/// By the body, and by a child in its clean-up.
#[test]
fn c084_cancelled_group_takes_a_child_which_is_refused_its_first_op() {
    conform(|_| async {
        let (begun, refused) = (counter(), counter());
        let child = || {
            let (begun, refused) = (Rc::clone(&begun), Rc::clone(&refused));
            watched(async move {
                begun.set(begun.get() + 1);
                let outcome = op::nop().await;
                refused.set(refused.get() + u32::from(outcome.is_err()));
                outcome
            })
        };
        let (first, first_polls) = child();
        let (second, second_polls) = child();
        let outcome = group(async |g: Group<io::Error>| {
            g.spawn(async move {
                let outcome = sleep(LONG).await;
                g.spawn(second);
                Ok(outcome?)
            });
            some_turns(1).await;
            g.cancel();
            g.spawn(first);
            op::nop().await
        })
        .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!((begun.get(), refused.get()), (2, 2));
        assert_eq!((first_polls.get(), second_polls.get()), (1, 1));
    });
}

#[test]
fn c085_child_is_cancelled_alone_by_its_own_handle() {
    conform(|_| async {
        let outcome = group(async |g: Group<io::Error>| {
            let refused = counter();
            let child = g.spawn(waits(Rc::clone(&refused)));
            let others: Vec<_> = (0..2)
                .map(|_| g.spawn(async { Ok(sleep(2 * SHORT).await?) }))
                .collect();
            some_turns(1).await;
            child.cancel();
            let joined = child.await.expect_err("it was cancelled");
            assert!(matches!(joined, JoinError::TaskCancelled(_)), "{joined}");
            assert!(joined.cancelled().is_none(), "it is not the joiner's");
            assert_eq!(refused.get(), 1);
            sleep(SHORT).await?;
            for other in others {
                other.await.map_err(io::Error::from)?;
            }
            assert!(g.cancelled().is_none());
            Ok(7)
        })
        .await;
        assert!(matches!(outcome, Ok(Some(7))), "{outcome:?}");
    });
}

#[test]
fn c086_cancel_of_a_child_that_has_ended_or_was_cancelled_does_nothing() {
    conform(|handle| async move {
        let outcome = group(async |g: Group<io::Error>| {
            let ended = g.spawn(async { Ok(7) });
            while !ended.is_finished() {
                yield_now().await?;
            }
            assert!(ended.cancel_handle().is_none());
            ended.cancel();
            assert_eq!(ended.await.expect("it ended well"), 7);

            let refused = counter();
            let running = g.spawn(waits(Rc::clone(&refused)));
            some_turns(1).await;
            let before = gauges(&handle).await.deliveries;
            running.cancel();
            running.cancel();
            assert!(running.await.is_err());
            assert_eq!(refused.get(), 1);
            assert_eq!(gauges(&handle).await.deliveries - before, 1);
            Ok(())
        })
        .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
    });
}

#[test]
fn c087_child_goes_on_without_its_handle() {
    conform(|_| async {
        let ended = counter();
        let began = Instant::now();
        let outcome = group(async |g: Group<Cancelled>| {
            let ended = Rc::clone(&ended);
            let child = g.spawn(async move {
                sleep(SHORT).await?;
                ended.set(1);
                Ok(())
            });
            drop(child);
            Ok(())
        })
        .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        after_exactly(SHORT, began);
        assert_eq!(ended.get(), 1);
    });
}

// --- start ---

#[test]
fn c088_start_returns_what_the_child_reports_or_how_it_ended() {
    conform(|_| async {
        let outcome = group(async |g: Group<io::Error>| {
            let reported = g
                .start(async |started: Started<u32>| {
                    started.report(8080).expect("the first time");
                    let again = started.report(1);
                    assert_eq!(again, Err(AlreadyStarted(1)));
                    Ok(())
                })
                .await;
            assert!(matches!(reported, Ok(8080)), "{reported:?}");

            let failed = g
                .start(async |_: Started<u32>| {
                    op::nop().await?;
                    Err::<(), _>(failure("E"))
                })
                .await;
            match failed {
                Err(StartError::Failed(error)) => assert_eq!(error.to_string(), "E"),
                other => panic!("{other:?}"),
            }
            assert!(g.cancelled().is_none(), "it was not the group's failure");

            let silent = g.start(async |_: Started<u32>| Ok(())).await;
            assert!(matches!(silent, Err(StartError::NotStarted)), "{silent:?}");
            Ok(())
        })
        .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
    });
}

#[test]
fn c089_start_in_a_cancelled_scope_ignores_the_report() {
    conform(|_| async {
        let outcome = group(async |g: Group<io::Error>| {
            let scope = Scope::new();
            let done = scope
                .run(async {
                    scope.cancel();
                    let reported = g
                        .start(async |started: Started<u32>| {
                            started.report(1).expect("once");
                            Ok(())
                        })
                        .await;
                    assert!(matches!(reported, Ok(1)), "{reported:?}");
                    let failed = g
                        .start(async |started: Started<u32>| {
                            started.report(2).expect("once");
                            Err::<(), _>(failure("E"))
                        })
                        .await;
                    match failed {
                        Err(StartError::Failed(error)) => assert_eq!(error.to_string(), "E"),
                        other => panic!("{other:?}"),
                    }
                    Ok::<_, io::Error>(())
                })
                .await;
            assert!(matches!(done, Ok(Some(()))), "{done:?}");
            assert!(!scope.absorbed() && g.cancelled().is_none());
            Ok(())
        })
        .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
    });
}

#[test]
fn c090_sibling_that_fails_ends_a_start_bound_for_another_group() {
    conform(|_| async {
        let refused = counter();
        let inner = Rc::clone(&refused);
        let outcome = group(async |outer: Group<io::Error>| {
            let here = group(async |g: Group<io::Error>| {
                g.spawn(async {
                    some_turns(3).await;
                    Err::<(), _>(failure("E"))
                });
                let refused = Rc::clone(&inner);
                let told = outer
                    .start(async move |started: Started<u32>| {
                        let outcome = waits(Rc::clone(&refused)).await;
                        drop(started);
                        outcome
                    })
                    .await;
                assert_eq!(inner.get(), 1, "the child has ended before");
                let error = told.expect_err("it was cancelled");
                assert!(error.cancelled().is_some(), "{error}");
                Err::<(), _>(io::Error::from(error))
            })
            .await;
            let error = here.expect_err("the sibling failed");
            assert_eq!(names(&error), ["E"]);
            assert!(outer.cancelled().is_none());
            Ok(())
        })
        .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
    });
}

/// The child starts well, or fails.
#[test]
fn c091_group_stays_open_for_a_start_that_is_under_way() {
    conform(|_| async {
        for fails in [false, true] {
            let group_of_the_child = Rc::new(Cell::new(None));
            let shared = Rc::clone(&group_of_the_child);
            let began = Instant::now();
            let starter = spawn(async move {
                let target: Group<io::Error> = loop {
                    if let Some(target) = shared.get() {
                        break target;
                    }
                    yield_now().await.expect("nobody cancels");
                };
                target
                    .start(async move |started: Started<u32>| {
                        sleep(Duration::from_secs(1)).await?;
                        if fails {
                            return Err(failure("E"));
                        }
                        started.report(7).expect("once");
                        Ok(())
                    })
                    .await
            });
            let outcome = group(async |g: Group<io::Error>| {
                group_of_the_child.set(Some(g));
                some_turns(3).await;
                Ok(())
            })
            .await;
            let late = began.elapsed();
            assert!(late >= Duration::from_secs(1), "{late:?}");
            assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
            let started = starter.await.expect("it ended");
            assert_eq!(started.is_err(), fails, "{started:?}");
        }
    });
}

// --- daemons, and failures that stay ---

#[test]
fn c092_daemon_is_cancelled_when_all_others_have_ended() {
    conform(|_| async {
        let (refused, began) = (counter(), Instant::now());
        let outcome = group(async |g: Group<io::Error>| {
            g.spawn_daemon(waits(Rc::clone(&refused)));
            g.spawn(async { Ok(sleep(SHORT).await?) });
            Ok(7)
        })
        .await;
        assert!(matches!(outcome, Ok(Some(7))), "{outcome:?}");
        after_exactly(SHORT, began);
        assert_eq!(refused.get(), 1);

        // One that fails is a failure like any other.
        let outcome = group(async |g: Group<io::Error>| {
            g.spawn_daemon(async { Err::<(), _>(failure("E")) });
            waits(counter()).await
        })
        .await;
        assert_eq!(names(&outcome.expect_err("it failed")), ["E"]);
        // Also in its clean-up.
        let outcome = group(async |g: Group<io::Error>| {
            g.spawn_daemon(async {
                assert!(sleep(LONG).await.is_err());
                Err::<(), _>(failure("F"))
            });
            Ok(())
        })
        .await;
        assert_eq!(names(&outcome.expect_err("it failed")), ["F"]);
    });
}

/// A cancel from outside reaches it as any child, while the others go on.
#[test]
fn c092_daemon_is_cancelled_with_all_that_its_group_is_in() {
    conform(|_| async {
        let (outer, told) = (Scope::new(), Rc::new(Event::new()));
        let outcome = outer
            .run(group(async |g: Group<io::Error>| {
                let tells = Rc::clone(&told);
                g.spawn_daemon(async move {
                    let refused = sleep(LONG).await;
                    assert_eq!(reason(&refused), Some(Reason::User(3)));
                    tells.set();
                    Ok(refused?)
                });
                some_turns(1).await;
                outer.cancel_with(Reason::User(3), Duration::ZERO);
                let shield = Scope::new().shielded();
                shield.run(told.wait()).await?;
                Ok(())
            }))
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    });
}

/// The group has come to its end by then: what is cancelled around it later takes its value away no more than it would
/// a moment after.
#[test]
fn c092_a_group_that_ends_its_daemons_keeps_the_value_of_its_body() {
    conform(|_| async {
        let outer = Scope::new();
        let grouped = outer.run(async {
            let outcome = group(async |g: Group<io::Error>| {
                let cancel = outer.handle();
                g.spawn_daemon(async move {
                    let refused = sleep(LONG).await.expect_err("the others have ended");
                    assert_eq!(refused.reason(), Reason::Finished);
                    cancel.cancel();
                    check().expect_err("all is cancelled");
                    Err::<(), _>(refused.into())
                });
                Ok(7)
            })
            .await;
            assert!(matches!(outcome, Ok(Some(7))), "{outcome:?}");
            check()
        });
        assert_eq!(grouped.await, Ok(None));

        // Cancelled before, they end for that.
        let outer = Scope::new();
        let grouped = outer.run(async {
            let outcome = group(async |g: Group<io::Error>| {
                g.spawn_daemon(waits(counter()));
                some_turns(1).await;
                outer.cancel();
                Ok(7)
            })
            .await;
            let error = outcome.expect_err("a daemon was cancelled from outside");
            Err::<(), _>(error)
        });
        assert!(matches!(grouped.await, Ok(None)));
    });
}

#[test]
fn c093_failure_in_an_isolating_group_stays_with_its_child() {
    conform(|_| async {
        let refused = counter();
        let outcome = isolating_group(async |g: Group<io::Error>| {
            let fails = g.spawn(async {
                op::nop().await?;
                Err::<(), _>(failure("E"))
            });
            let other = g.spawn(async { Ok(sleep(SHORT).await?) });
            let failed = fails.await.expect_err("it failed");
            assert!(matches!(&failed, JoinError::Failed(error) if error.to_string() == "E"));
            other.await.map_err(io::Error::from)?;
            // One whose handle nobody has is told by the group.
            g.spawn(async { Err::<(), _>(failure("F")) });
            sleep(SHORT).await?;
            assert!(g.cancelled().is_none());
            Ok(())
        })
        .await;
        assert_eq!(names(&outcome.expect_err("one failed unheard")), ["F"]);

        // A cancel from outside reaches all.
        let outer = Scope::new().timeout(SHORT);
        let outcome = outer
            .run(isolating_group(async |g: Group<io::Error>| {
                g.spawn(waits(Rc::clone(&refused)));
                waits(Rc::clone(&refused)).await
            }))
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(refused.get(), 2);
    });
}

// --- races ---

#[test]
fn c094_loser_of_a_race_has_ended_before_the_winner_is_told() {
    conform(|_| async {
        let refused = counter();
        let began = Instant::now();
        let winner = race(
            async {
                sleep(SHORT).await?;
                Ok::<_, io::Error>("a")
            },
            async {
                let outcome = waits(Rc::clone(&refused)).await;
                let shield = Scope::new().shielded();
                shield.run(sleep(SHORT)).await?;
                outcome.map(|()| "b")
            },
        )
        .await;
        assert!(matches!(winner, Ok("a")), "{winner:?}");
        assert_eq!(refused.get(), 1);
        after_exactly(2 * SHORT, began);
    });
}

#[test]
fn c094_losers_of_a_race_of_many_have_ended_before_the_winner_is_told() {
    conform(|handle| async move {
        let lost = Cell::new(0);
        let before = handle.metrics()[0].aborts;
        let winner = race_all((0..5).map(|place| {
            let lost = &lost;
            async move {
                if place == 3 {
                    sleep(SHORT).await?;
                    return Ok::<_, Cancelled>(place);
                }
                let refused = sleep(LONG).await;
                assert_eq!(reason(&refused), Some(Reason::Lost));
                lost.set(lost.get() + 1);
                refused.map(|()| place)
            }
        }))
        .await;
        assert!(matches!(winner, Ok(3)), "{winner:?}");
        assert_eq!((lost.get(), handle.metrics()[0].aborts - before), (4, 4));
    });
}

#[test]
fn c094_first_in_order_wins_a_race_that_both_win() {
    conform(|_| async {
        let go = Event::new();
        let drops = Drops::new();
        let (one, other) = (drops.value(), drops.value());
        let racing = async {
            let wins = |name, value| {
                let go = &go;
                async move {
                    go.wait().await?;
                    Ok::<_, io::Error>((name, value))
                }
            };
            race(wins("a", one), wins("b", other)).await
        };
        let setting = async {
            yield_now().await.expect("nobody cancels");
            go.set();
        };
        let (winner, ()) = both(racing, setting).await;
        let (name, value) = winner.expect("both won");
        assert_eq!((name, drops.dropped()), ("a", 1));
        drop(value);
        // Both go to the hook, the winner's first.
        let combined = race_with(
            async { Ok::<_, io::Error>("a".to_owned()) },
            async { Ok("b".to_owned()) },
            |winner, other| winner + &other,
        );
        assert_eq!(combined.await.expect("both won"), "ab");
    });
}

#[test]
fn c094_failure_in_the_clean_up_of_a_loser_is_told() {
    conform(|_| async {
        let told = race(async { Ok::<_, io::Error>("a") }, async {
            assert!(sleep(LONG).await.is_err());
            Err(failure("E"))
        })
        .await;
        assert_eq!(names(&told.expect_err("the loser failed")), ["E"]);
    });
}

// --- many ---

#[test]
fn c095_very_many_children_are_cancelled_once_each() {
    conform(|handle| async move {
        let children: u32 = if Kernel::here().is_simulated() {
            1_000
        } else {
            100_000
        };
        let before = gauges(&handle).await;
        let (refused, polled) = (counter(), counter());
        let outcome = group(async |g: Group<io::Error>| {
            for _ in 0..children {
                let (refused, polled) = (Rc::clone(&refused), Rc::clone(&polled));
                let child = async move {
                    let scope = Scope::new();
                    let waits = scope.run(waits(refused)).await;
                    assert!(!scope.absorbed());
                    waits.map(drop)
                };
                let mut child = Box::pin(child);
                g.spawn(poll_fn(move |cx| {
                    polled.set(polled.get() + 1);
                    child.as_mut().poll(cx)
                }));
            }
            while polled.get() < children {
                yield_now().await?;
            }
            g.cancel();
            waits(counter()).await
        })
        .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!((refused.get(), polled.get()), (children, 2 * children));
        let after = gauges(&handle).await;
        assert_eq!(after.aborts - before.aborts, u64::from(children));
        assert_eq!((after.tasks, after.scopes), (before.tasks, before.scopes));
        assert_eq!((after.parked, after.timers), (before.parked, before.timers));
    });
}

/// Who yields gets its turn while very many are being cancelled.
#[test]
fn c095_cancel_of_very_many_leaves_others_their_turns() {
    conform(|_| async {
        let children: u32 = if Kernel::here().is_simulated() {
            2_000
        } else {
            20_000
        };
        let left = Rc::new(Cell::new(children));
        let (begun, seen) = (counter(), counter());
        let outcome = group(async |g: Group<io::Error>| {
            for _ in 0..children {
                let (left, begun) = (Rc::clone(&left), Rc::clone(&begun));
                g.spawn(async move {
                    begun.set(begun.get() + 1);
                    let outcome = waits(counter()).await;
                    left.set(left.get() - 1);
                    outcome
                });
            }
            while begun.get() < children {
                yield_now().await?;
            }
            let (left, seen) = (Rc::clone(&left), Rc::clone(&seen));
            let other = spawn(async move {
                yield_now().await.expect("nobody cancels");
                seen.set(left.get());
            });
            g.cancel();
            join_anyway(other).await.expect("it ended");
            check().map_err(io::Error::from)
        })
        .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(left.get(), 0);
        if Kernel::here() == Kernel::Real {
            // A simulation may choose the one among all that are ready last.
            assert!(seen.get() > 0, "its turn came after the last of them");
        }
    });
}
