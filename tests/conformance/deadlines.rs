//! A deadline that passes is a cancel: never early, noticed at the next op, and gone with its scope.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use quoit::sync::Event;
use quoit::time::{Instant, sleep, sleep_until};
use quoit::{Cancelled, Reason, Scope, op, spawn, yield_now};
use tests::{Kernel, conform, gauges, poll_once, quietly};

use crate::support::{LONG, SHORT, after_exactly, at_once, pipe, reason, some_turns, watched};

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
