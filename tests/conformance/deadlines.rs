//! A deadline that passes is a cancel: never early, noticed at the next op, and gone with its scope.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use quoit::sync::Event;
use quoit::time::{Instant, sleep, sleep_until};
use quoit::{
    Cancelled, CarriesCancelled, Delivery, Group, GroupError, Reason, Scope, check, group, op,
    spawn, timeout, yield_now, yield_uncancellable,
};
use tests::{Kernel, conform, conform_on, gauges, poll_once, quietly};

use crate::support::{
    Answer, LONG, SHORT, after_exactly, at_once, pipe, reason, some_turns, until_parked, watched,
};

const TENTH: Duration = Duration::from_millis(100);

fn is_over(scope: &Scope) -> bool {
    scope.cancelled().map(Cancelled::reason) == Some(Reason::Deadline)
}

#[test]
fn c045_wait_without_an_end_ends_at_its_deadline() {
    conform(|handle| async move {
        let event = Event::new();
        let scope = Scope::new().timeout(TENTH);
        let before = handle.metrics()[0];
        let began = Instant::now();
        let (run, polls) = watched(scope.run(event.wait()));
        assert_eq!(run.await, Ok(None));
        after_exactly(TENTH, began);
        assert_eq!(polls.get(), 2);
        assert!(is_over(&scope));
        let after = handle.metrics()[0];
        assert_eq!(after.deadlines - before.deadlines, 1);
        assert_eq!(after.timers_fired - before.timers_fired, 1);
    });
}

#[test]
fn c047_deadline_that_has_passed_refuses_the_first_op() {
    conform(|_| async {
        for scope in [
            Scope::new().timeout(Duration::ZERO),
            Scope::new().deadline(Instant::now()),
            Scope::new().deadline(Instant::now() - LONG),
        ] {
            let (before, after) = (Cell::new(false), Cell::new(false));
            let began = Instant::now();
            let (run, polls) = watched(scope.run(async {
                before.set(true);
                op::nop().await?;
                after.set(true);
                op::nop().await
            }));
            let outcome = run.await;
            assert!(matches!(outcome, Ok(None)), "{outcome:?}");
            assert_eq!((before.get(), after.get()), (true, false));
            assert_eq!(polls.get(), 1);
            assert!(is_over(&scope));
            at_once(began);
        }
    });
}

#[test]
fn c048_deadline_past_the_clock_s_range_is_none() {
    conform(|handle| async move {
        let now = Instant::now();
        for scope in [
            Scope::new().timeout(Duration::MAX),
            Scope::new().deadline(now + Duration::MAX),
            Scope::new().deadline(Instant::NEVER),
            Scope::new().timeout(Duration::MAX).deadline(Instant::NEVER),
            // The last instant there is before that.
            Scope::new().timeout(Duration::from_nanos(u64::MAX)),
        ] {
            let timers = gauges(&handle).await.timers;
            let outcome = scope
                .run(async {
                    // The pause in which the gauges are taken has a timer.
                    assert_eq!(gauges(&handle).await.timers, timers);
                    sleep(SHORT).await
                })
                .await;
            assert_eq!(outcome, Ok(Some(())));
            assert_eq!(scope.cancelled(), None);
        }
        // The op itself, as well.
        let forever = Scope::new().timeout(SHORT);
        assert_eq!(forever.run(sleep(Duration::MAX)).await, Ok(None));
    });
}

#[test]
fn c049_deadline_of_a_scope_that_ended_in_time_ends_no_wait() {
    conform(|handle| async move {
        let scope = Scope::new().timeout(TENTH);
        let outcome = scope.run(sleep(TENTH / 10)).await;
        assert_eq!(outcome, Ok(Some(())));
        assert_eq!(gauges(&handle).await.timers, 1);
        let before = handle.metrics()[0];
        sleep(2 * TENTH).await.expect("nobody cancels");
        let after = handle.metrics()[0];
        assert_eq!(after.timers_fired - before.timers_fired, 1);
        assert_eq!(after.deadlines, before.deadlines);
        if Kernel::here().counts_exactly() {
            assert_eq!(after.parks - before.parks, 1);
        }
    });
}

#[test]
fn c049_many_scopes_that_end_in_time_leave_no_timer() {
    conform(|handle| async move {
        for _ in 0..100 {
            let scope = Scope::new().timeout(LONG);
            let outcome = scope.run(async { Ok::<_, Cancelled>(1) }).await;
            assert_eq!(outcome, Ok(Some(1)));
        }
        let counters = gauges(&handle).await;
        assert_eq!((counters.timers, counters.deadlines), (1, 0));
    });
}

#[test]
fn c050_inner_deadline_leaves_the_outer_scope_alone() {
    conform(|_| async {
        let outer = Scope::new().timeout(5 * TENTH);
        let began = Instant::now();
        let outcome = outer
            .run(async {
                let inner = Scope::new().timeout(TENTH / 2);
                assert_eq!(inner.run(sleep(LONG)).await, Ok(None));
                after_exactly(TENTH / 2, began);
                assert!(is_over(&inner));
                op::nop().await?;
                Ok::<_, std::io::Error>(3)
            })
            .await;
        assert_eq!(outcome.expect("no failure"), Some(3));
        assert_eq!(outer.cancelled(), None);
    });
}

/// Either deadline may be the one that is armed first, and so passes first.
#[test]
fn c051_of_two_equal_deadlines_the_outer_one_takes_it() {
    conform(|_| async {
        for outer_first in [true, false] {
            let at = Instant::now() + SHORT;
            let (outer, inner) = (Scope::new().deadline(at), Scope::new().deadline(at));
            let after = Cell::new(false);
            let mut run = pin!(inner.run(sleep(LONG)));
            if !outer_first {
                assert!(poll_once(run.as_mut()).await.is_pending());
            }
            let outcome = outer
                .run(async {
                    run.as_mut().await?;
                    after.set(true);
                    Ok::<_, Cancelled>(())
                })
                .await;
            assert_eq!(outcome, Ok(None));
            assert!(!after.get());
            assert!(is_over(&outer) && is_over(&inner));
        }
    });
}

#[test]
fn c053_timeout_counts_from_the_beginning_of_the_run() {
    conform(|_| async {
        let scope = Scope::new().timeout(5 * SHORT);
        // A handle makes the scope, and does not begin its run.
        let _handle = scope.handle();
        sleep(3 * SHORT).await.expect("nobody cancels");
        let began = Instant::now();
        assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
        after_exactly(5 * SHORT, began);

        // A deadline counts from nowhere, with a handle as without.
        let began = Instant::now();
        let scope = Scope::new().deadline(began + 5 * SHORT);
        let _handle = scope.handle();
        sleep(3 * SHORT).await.expect("nobody cancels");
        assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
        after_exactly(5 * SHORT, began);
    });
}

/// Timers that are due at one instant fire in the order in which they were armed.
#[test]
fn c057_of_a_deadline_and_a_result_the_first_counts() {
    conform(|_| async {
        for result_first in [true, false] {
            let at = Instant::now() + SHORT;
            let scope = Scope::new().deadline(at);
            let mut wait = pin!(sleep_until(at));
            if result_first {
                assert!(poll_once(wait.as_mut()).await.is_pending());
            }
            let outcome = scope
                .run(async {
                    let waited = wait.as_mut().await;
                    let next = yield_now().await;
                    assert_eq!(reason(&next), Some(Reason::Deadline));
                    Ok::<_, Cancelled>(waited.is_ok())
                })
                .await;
            assert_eq!(outcome, Ok(Some(result_first)));
            assert!(is_over(&scope));
        }
    });
}

/// A deadline of some microseconds may pass at any moment of a write's and a read's life.
#[test]
fn c057_deadline_at_any_moment_of_a_read_loses_no_byte() {
    conform(|_| async {
        let rounds = if Kernel::here().is_simulated() {
            300
        } else {
            3_000
        };
        let (reader, writer) = pipe();
        let feeder = spawn(async move {
            for round in 0..rounds {
                op::write(&writer, vec![round as u8]).await.0.expect("room");
                some_turns(round % 3).await;
            }
        });
        let (mut received, mut cancelled) = (Vec::new(), 0_u64);
        while received.len() < rounds as usize {
            let timeout = Duration::from_nanos((received.len() as u64 + cancelled) * 37 % 30_000);
            let scope = Scope::new().timeout(timeout);
            let outcome = scope
                .run(async {
                    let (count, byte) = op::read(&reader, [0; 1]).await;
                    assert_eq!(count?, 1);
                    Ok::<_, std::io::Error>(byte[0])
                })
                .await;
            match outcome.expect("no failure") {
                Some(byte) => received.push(byte),
                None => cancelled += 1,
            }
        }
        let sent: Vec<u8> = (0..rounds).map(|round| round as u8).collect();
        assert_eq!(received, sent);
        feeder.await.expect("it ended");
    });
}

// On the real ring: a simulated clock stands still while a core computes.
#[test]
fn c059_first_yield_after_the_deadline_notices_it() {
    quietly(|_| async {
        for by in 0..3 {
            let scope = Scope::new().timeout(SHORT);
            let began = Instant::now();
            let (run, polls) = watched(scope.run(async {
                while began.elapsed() < 2 * SHORT {
                    std::hint::spin_loop();
                }
                match by {
                    0 => yield_now().await?,
                    1 => sleep(LONG).await?,
                    _ => Event::new().wait().await?,
                }
                Ok::<_, Cancelled>(())
            }));
            assert_eq!(run.await, Ok(None), "{by}");
            assert!(polls.get() <= 2);
            assert!(is_over(&scope));
        }
    });
}

// On the real ring, as above.
#[test]
fn c059_uncancellable_yield_after_the_deadline_notices_it_and_goes_on() {
    quietly(|_| async {
        let scope = Scope::new().timeout(SHORT);
        let began = Instant::now();
        let outcome = scope
            .run(async {
                while began.elapsed() < 2 * SHORT {
                    std::hint::spin_loop();
                }
                yield_uncancellable().await;
                check()
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert!(is_over(&scope));
    });
}

// On the real ring, as above.
#[test]
fn c059_loop_that_yields_sees_its_deadline() {
    quietly(|_| async {
        let scope = Scope::new().timeout(SHORT);
        let outcome = scope
            .run(async {
                loop {
                    yield_now().await?;
                }
                #[expect(unreachable_code, reason = "it says what the body would return")]
                Ok::<(), Cancelled>(())
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

#[test]
fn c062_core_parks_once_for_a_deadline() {
    conform(|handle| async move {
        let event = Event::new();
        let scope = Scope::new().timeout(Duration::from_secs(1));
        let before = handle.metrics()[0];
        let began = Instant::now();
        assert_eq!(scope.run(event.wait()).await, Ok(None));
        after_exactly(Duration::from_secs(1), began);
        let after = handle.metrics()[0];
        assert_eq!(after.timers_fired - before.timers_fired, 1);
        if Kernel::here().counts_exactly() {
            let spent = (after.parks - before.parks, after.enters - before.enters);
            assert_eq!(spent, (1, 1));
        }
    });
}

// --- `timeout` ---

fn is_late<T>(outcome: &io::Result<T>) -> bool {
    let error = outcome.as_ref().err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[test]
fn c046_body_that_is_late_has_failed() {
    conform(|_| async {
        let began = Instant::now();
        let seen = Cell::new(None);
        let outcome: io::Result<()> = timeout(TENTH, async {
            let refused = sleep(LONG).await;
            seen.set(reason(&refused));
            Ok(refused?)
        })
        .await;
        assert!(is_late(&outcome), "{outcome:?}");
        assert_eq!(seen.get(), Some(Reason::Deadline));
        after_exactly(TENTH, began);

        let scope = Scope::new().timeout(SHORT);
        let outcome: io::Result<Option<()>> =
            scope.run_in_time(async { Ok(sleep(LONG).await?) }).await;
        assert!(is_late(&outcome), "{outcome:?}");
        assert!(scope.absorbed());
    });
}

#[test]
fn c054_scope_that_was_cancelled_before_its_deadline_is_not_late() {
    conform(|_| async {
        let scope = Scope::new().timeout(Duration::from_secs(1));
        let outcome: io::Result<Option<()>> = scope
            .run_in_time(async {
                scope.cancel();
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    });
}

#[test]
fn c055_scope_whose_deadline_passes_after_its_cancel_is_not_late() {
    conform(|handle| async move {
        let before = handle.metrics()[0].deadlines;
        let scope = Scope::new().timeout(5 * SHORT);
        let outcome: io::Result<Option<()>> = scope
            .run_in_time(async {
                scope.cancel();
                let shield = Scope::new().shielded();
                shield.run(sleep(6 * SHORT)).await?;
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        let why = scope.cancelled().map(Cancelled::reason);
        assert_eq!(why, Some(Reason::Requested));
        let passed = handle.metrics()[0].deadlines;
        assert_eq!(passed, before, "that of a cancelled scope wakes nobody");
    });
}

#[test]
fn c056_body_that_is_late_and_has_a_value_is_not_late() {
    conform(|_| async {
        let outcome: io::Result<u32> = timeout(5 * SHORT, async {
            assert!(sleep(LONG).await.is_err());
            Ok(7)
        })
        .await;
        assert!(matches!(outcome, Ok(7)), "{outcome:?}");
        let scope = Scope::new().timeout(SHORT);
        let outcome: io::Result<Option<u32>> = scope
            .run_in_time(async {
                assert!(sleep(LONG).await.is_err());
                Ok(8)
            })
            .await;
        assert!(matches!(outcome, Ok(Some(8))), "{outcome:?}");
        assert!(!scope.absorbed());
    });
}

#[test]
fn c061_late_group_is_late_once() {
    conform(|handle| async move {
        let refused = Rc::new(Cell::new(0));
        let inner = Rc::clone(&refused);
        let before = handle.metrics()[0].aborts;
        let waits = |refused: Rc<Cell<u32>>| async move {
            let outcome = sleep(LONG).await;
            refused.set(refused.get() + 1);
            Ok::<(), io::Error>(outcome?)
        };
        let outcome: Result<_, GroupError<io::Error>> = timeout(
            10 * SHORT,
            group(async |g: Group<io::Error>| {
                g.spawn(waits(Rc::clone(&inner)));
                waits(Rc::clone(&inner)).await
            }),
        )
        .await;
        let error = outcome.expect_err("it was late");
        assert!(error.cancelled().is_none());
        let kinds: Vec<_> = error.errors().iter().map(io::Error::kind).collect();
        assert_eq!(kinds, [io::ErrorKind::TimedOut]);
        assert_eq!(refused.get(), 2);
        assert_eq!(handle.metrics()[0].aborts - before, 2);
    });
}

// --- deadlines that are moved ---

#[test]
fn c052_deadline_that_is_moved_passes_where_it_was_moved_to() {
    conform(|_| async {
        let scope = Rc::new(Scope::new().timeout(TENTH));
        let inner = Rc::clone(&scope);
        let began = Instant::now();
        let (run, polls) = watched(async move { inner.run(sleep(LONG)).await });
        let task = spawn(run);
        sleep(TENTH / 2).await.expect("nobody cancels");
        scope.set_deadline(Some(began + 3 * TENTH));
        sleep(TENTH).await.expect("nobody cancels");
        assert_eq!(polls.get(), 1, "nothing has happened at the old one");
        assert_eq!(scope.cancelled(), None);
        assert_eq!(task.await.expect("it ended"), Ok(None));
        after_exactly(3 * TENTH, began);
        assert_eq!(polls.get(), 2);
        // Taken away, it never passes.
        let scope = Scope::new().timeout(SHORT);
        let outcome = scope
            .run(async {
                scope.set_deadline(None);
                sleep(2 * SHORT).await
            })
            .await;
        assert_eq!(outcome, Ok(Some(())));
    });
}

#[test]
fn c058_deadline_that_is_moved_a_million_times_is_one_timer() {
    conform(|handle| async move {
        let moves: u32 = if Kernel::here().is_simulated() {
            20_000
        } else {
            1_000_000
        };
        let scope = Scope::new();
        let fired = handle.metrics()[0].timers_fired;
        let outcome = scope
            .run(async {
                let at = Instant::now() + LONG;
                for step in 0..moves {
                    scope.set_deadline(Some(at + Duration::from_micros(u64::from(step % 977))));
                    if step % 5_000 == 0 {
                        // So that the simulated clock is not taken for one that is waited for.
                        yield_now().await?;
                    }
                }
                let counters = gauges(&handle).await;
                // The scope's, and that of the pause.
                assert!(counters.timers <= 2 * 2 + 64, "{} timers", counters.timers);
                assert_eq!(counters.deadlines, 0);
                let at = Instant::now() + SHORT;
                scope.set_deadline(Some(at));
                sleep(LONG).await
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert!(is_over(&scope));
        let counters = gauges(&handle).await;
        assert_eq!(counters.deadlines, 1);
        // The deadline, and the pauses in which gauges were taken.
        assert!(counters.timers_fired - fired >= 2);
    });
}

#[test]
fn c060_deadline_that_has_passed_is_a_cancel_whether_or_not_it_was_noticed() {
    conform(|_| async {
        // One that has not been entered.
        let scope = Scope::new().deadline(Instant::now() + SHORT);
        assert_eq!(scope.cancelled(), None);
        sleep(SHORT).await.expect("nobody cancels");
        assert!(is_over(&scope));
        scope.set_deadline(Some(Instant::now() + LONG));
        assert!(is_over(&scope));
        assert_eq!(scope.run(yield_now()).await, Ok(None));
    });
    // On the real ring: a simulated clock stands still while a core computes.
    quietly(|_| async {
        let scope = Scope::new().timeout(SHORT);
        let outcome = scope
            .run(async {
                let began = Instant::now();
                assert_eq!(scope.cancelled(), None);
                while began.elapsed() <= SHORT {
                    std::hint::spin_loop();
                }
                assert!(is_over(&scope));
                scope.set_deadline(Some(Instant::now() + LONG));
                assert!(is_over(&scope));
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        // Nobody has looked before it is moved, or cancelled otherwise.
        for moves in [true, false] {
            let scope = Scope::new().timeout(SHORT);
            let outcome = scope.run(async {
                let began = Instant::now();
                while began.elapsed() <= SHORT {
                    std::hint::spin_loop();
                }
                if moves {
                    scope.set_deadline(Some(Instant::now() + LONG));
                } else {
                    assert_eq!(scope.cancel(), Delivery::AlreadyCancelled);
                }
                op::nop().await
            });
            assert!(matches!(outcome.await, Ok(None)), "{moves}");
            assert!(is_over(&scope), "{moves}");
        }
    });
}

#[test]
fn c063_deadline_that_another_core_shortens_passes_there() {
    conform_on(2, |handle| async move {
        let scope = Scope::new().timeout(LONG);
        let cancel = scope.handle();
        let (inner, began) = (handle.clone(), Instant::now());
        let before = handle.metrics()[0];
        let parks = before.parks;
        let at = began + TENTH;
        let told = Answer::on(&handle, handle.cores()[1], move || async move {
            until_parked(&inner, 0, parks).await;
            cancel.set_deadline(at)
        });
        let (run, polls) = watched(scope.run(sleep(LONG)));
        assert_eq!(run.await, Ok(None));
        assert!(began.elapsed() >= TENTH);
        if Kernel::here() == Kernel::Simulated {
            // Rounded up to whole units of 1024 ns.
            assert!(began.elapsed() <= TENTH + Duration::from_nanos(1_024));
        }
        assert!(is_over(&scope));
        assert_eq!(told.get().await, Delivery::Delivered);
        let after = handle.metrics()[0];
        if Kernel::here().counts_exactly() {
            assert_eq!(polls.get(), 2);
            assert_eq!(
                after.parks - before.parks,
                2,
                "to arm it anew, and when it passed"
            );
            assert_eq!(after.wake_calls - before.wake_calls, 1);
        }
    });
}
