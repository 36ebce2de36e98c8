//! After a delivery nothing is left that would wake a core: no retry, no timer, no registration.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::op;
use quoit::sim::{Fault, for_seeds, point};
use quoit::sync::Event;
use quoit::time::{Alarm, Instant, sleep};
use quoit::{
    Cancelled, Group, Handle, JoinHandle, Reason, Scope, group, spawn, yield_now,
    yield_uncancellable,
};
use tests::{Kernel, both_streams, conform, conform_of, gauges, one_core, poll_once, quietly};

use crate::support::{
    Branches, Either, LONG, SHORT, either, join_anyway, pipe, reason, some_turns, watched,
};

/// One other task is left, which waits for ever.
#[test]
fn c146_core_is_quiet_after_very_many_were_cancelled() {
    conform(|handle| async move {
        let waiters: u32 = if Kernel::here().is_simulated() {
            500
        } else {
            10_000
        };
        let never = Rc::new(Event::new());
        let inner = Rc::clone(&never);
        let other = spawn(async move { inner.wait().await });
        let (ours, _theirs) = both_streams().await;
        let before = gauges(&handle).await;
        let begun = Rc::new(Cell::new(0));
        let outcome = group(async |g: Group<io::Error>| {
            for _ in 0..waiters {
                let (fd, begun) = (ours.fd(), Rc::clone(&begun));
                g.spawn(async move {
                    begun.set(begun.get() + 1);
                    op::poll(&fd, libc::POLLIN as u32).await.map(drop)
                });
            }
            while begun.get() < waiters {
                yield_now().await?;
            }
            op::nop().await?;
            g.cancel();
            op::nop().await
        })
        .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        let after = gauges(&handle).await;
        assert_eq!(after.deliveries - before.deliveries, 1);
        assert_eq!(after.aborts - before.aborts, u64::from(waiters));
        assert!(after.cancel_requests - before.cancel_requests <= u64::from(waiters));
        let left = (after.tasks, after.timers, after.in_flight, after.parked);
        assert_eq!(
            left,
            (before.tasks, before.timers, before.in_flight, before.parked)
        );
        // It parks once for a pause, however long.
        let parks = handle.metrics()[0].parks;
        sleep(Duration::from_secs(1)).await.expect("nobody cancels");
        if Kernel::here().counts_exactly() {
            assert_eq!(handle.metrics()[0].parks - parks, 1);
        }
        never.set();
        other.await.expect("it ended").expect("nobody cancels it");
    });
}

#[test]
fn c147_groups_that_end_in_a_cancelled_scope_are_left_alone() {
    conform(|handle| async move {
        let shielded = Duration::from_millis(500);
        let outer = Rc::new(Scope::new());
        let inner = Rc::clone(&outer);
        let (task, polls) = watched(async move {
            let body = group(async |first: Group<io::Error>| {
                first.spawn(async move {
                    let ended = group(async |second: Group<io::Error>| {
                        second.spawn(async move {
                            let shield = Scope::new().shielded();
                            shield.run(sleep(shielded)).await?;
                            Ok(())
                        });
                        Ok(())
                    })
                    .await;
                    Ok(ended.map(drop)?)
                });
                Ok(())
            });
            inner.run(body).await.map(drop)
        });
        let task = spawn(task);
        some_turns(2).await;
        let (before, began, polled) = (gauges(&handle).await, Instant::now(), polls.get());
        outer.cancel();
        task.await.expect("it ended").expect("nothing failed");
        assert!(began.elapsed() >= shielded / 2);
        let after = handle.metrics()[0];
        if Kernel::here().counts_exactly() {
            assert_eq!(after.parks - before.parks, 1, "for the sleep alone");
            assert_eq!(polls.get() - polled, 1);
        }
        assert_eq!(after.aborts, before.aborts);
        assert!(gauges(&handle).await.deliveries - before.deliveries <= 3);
    });
}

#[test]
fn c148_scope_of_finished_tasks_has_nobody_to_tell() {
    conform(|handle| async move {
        let outcome = group(async |g: Group<io::Error>| {
            let finished: Vec<_> = (0..10)
                .map(|value| g.spawn(async move { Ok(value) }))
                .collect();
            while !finished.iter().all(JoinHandle::is_finished) {
                yield_now().await?;
            }
            let before = gauges(&handle).await;
            g.cancel();
            yield_uncancellable().await;
            let after = handle.metrics()[0];
            assert_eq!(
                (after.aborts, after.foreign_wakes),
                (before.aborts, before.foreign_wakes)
            );
            let mut values = Vec::new();
            for task in finished {
                values.push(join_anyway(task).await.expect("it ended well"));
            }
            Ok(values)
        })
        .await;
        let values = outcome.expect("nothing failed").expect("a value");
        assert_eq!(values, (0..10).collect::<Vec<_>>());
    });
}

/// The completion of the wake-up channel itself may be among those that overflow.
#[test]
fn c149_core_whose_completions_overflowed_is_woken_as_ever() {
    for nth in 0..40 {
        for_seeds(0..2, |sim| {
            sim.force(Fault::CompletionOverflow, nth).run(|| {
                quietly(|handle| async move { reads_that_are_cancelled(&handle, 10).await });
            });
        });
    }
    // A queue that is too small for all of them.
    let small = one_core().submission_entries(64).completion_entries(64);
    conform_of(small, |handle| async move {
        reads_that_are_cancelled(&handle, 500).await;
        assert!(Kernel::here().is_simulated() || handle.metrics()[0].overflows > 0);
    });
}

/// Bytes come for so many reads at once.
async fn reads_that_are_cancelled(handle: &Handle, count: usize) {
    let (reader, writer) = pipe();
    let scope = Scope::new();
    let outcome = scope
        .run(async {
            let mut reads: Vec<_> = (0..count)
                .map(|_| Box::pin(op::read(&reader, vec![0; 1])))
                .collect();
            for read in &mut reads {
                assert!(poll_once(read.as_mut()).await.is_pending());
            }
            point("all wait");
            op::write(&writer, vec![1; count / 2]).await.0?;
            some_turns(3).await;
            scope.cancel();
            for read in reads {
                drop(read.await);
            }
            Ok::<_, io::Error>(())
        })
        .await;
    assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
    let counters = gauges(handle).await;
    assert_eq!((counters.in_flight, counters.op_slots), (0, 0));
}

/// What it waits for comes again and again, and is never what it wants.
#[test]
fn c150_task_that_is_left_alone_is_polled_when_its_own_source_wakes_it() {
    conform(|handle| async move {
        let (millis, ticks) = (Duration::from_millis(1), Rc::new(Cell::new(0_u64)));
        let (scope, stop) = (Rc::new(Scope::new()), Rc::new(Cell::new(false)));
        let (inner, ticking, until) = (Rc::clone(&scope), Rc::clone(&ticks), Rc::clone(&stop));
        let (foreign, polls) = watched(async move {
            let mut alarm = Alarm::at(Instant::now() + Duration::from_millis(500));
            inner
                .run(poll_fn(move |cx| {
                    let mut ticks = false;
                    // A machine that stalls lets several pass in one poll.
                    while Pin::new(&mut alarm).poll(cx).is_ready() {
                        if until.get() {
                            return Poll::Ready(Ok::<_, Cancelled>(()));
                        }
                        ticks = true;
                        alarm = Alarm::at(Instant::now() + millis);
                    }
                    ticking.set(ticking.get() + u64::from(ticks));
                    Poll::Pending
                }))
                .await
        });
        let task = spawn(foreign);
        some_turns(1).await;
        scope.cancel();
        // It is woken eight times within some 130 ms, and then left alone; then its source begins.
        sleep(Duration::from_millis(400))
            .await
            .expect("nobody cancels");
        let before = gauges(&handle).await;
        assert_eq!((before.unresponsive, before.foreign_wakes), (1, 8));
        let (polled, ticked) = (polls.get(), ticks.get());
        sleep(Duration::from_secs(1)).await.expect("nobody cancels");
        let after = gauges(&handle).await;
        assert_eq!((after.unresponsive, after.foreign_wakes), (1, 8));
        assert_eq!(after.deliveries, before.deliveries);
        let (polled, ticked) = (u64::from(polls.get() - polled), ticks.get() - ticked);
        assert!(ticked > 10, "{ticked}");
        assert_eq!(polled, ticked, "one poll for each of its own wakes");
        stop.set(true);
        assert_eq!(task.await.expect("it ended"), Ok(Some(())));
    });
}

/// A scope ends between two wakes of a foreign wait, and in a pause.
#[test]
fn c151_retries_go_with_their_scope() {
    conform(|handle| async move {
        for foreign in [true, false] {
            let scope = Scope::new();
            let before = gauges(&handle).await;
            let outcome = either(
                scope.run(async {
                    scope.cancel();
                    if foreign {
                        pending::<()>().await;
                    }
                    loop {
                        drop(op::nop().await);
                    }
                    #[expect(unreachable_code, reason = "it says what the body would return")]
                    Ok::<(), Cancelled>(())
                }),
                sleep(4 * SHORT),
            )
            .await;
            assert_eq!(outcome, Either::Second(Ok(())));
            let counters = gauges(&handle).await;
            assert_eq!(
                (counters.timers, counters.unresponsive),
                (1, 0),
                "{foreign}"
            );
            let told = (
                counters.foreign_wakes - before.foreign_wakes,
                counters.pauses - before.pauses,
            );
            if Kernel::here().counts_exactly() {
                assert!(told.0 > 0 || told.1 > 0, "there was nothing to retry");
            }
            let fired = counters.timers_fired;
            sleep(Duration::from_millis(200))
                .await
                .expect("nobody cancels");
            assert_eq!(handle.metrics()[0].timers_fired - fired, 1, "this sleep");
        }
    });
}

/// So many waits in memory, so many in the kernel, in scopes of their own, in one task and in several.
#[test]
fn c152_cancel_of_a_tree_costs_one_abort_for_each_wait() {
    conform(|handle| async move {
        const WAITS: u64 = 200;
        const IN_KERNEL: u64 = 100;
        let (reader, _writer) = pipe();
        let outer = Scope::new();
        let before = gauges(&handle).await;
        let in_one_task = |in_kernel: bool| {
            let reader = reader.clone();
            async move {
                let (outside, inside) = (Scope::new(), Scope::new());
                let refused = outside
                    .run(inside.run(async {
                        if in_kernel {
                            op::read(&reader, [0; 8]).await.0.map(drop)
                        } else {
                            Ok(sleep(LONG).await?)
                        }
                    }))
                    .await;
                assert_eq!(reason(&refused), Some(Reason::Requested));
                refused
            }
        };
        let polls = Rc::new(RefCell::new(Vec::new()));
        let outcome = outer
            .run(group(async |g: Group<io::Error>| {
                for _ in 0..10 {
                    let waits = (0..(WAITS + IN_KERNEL) / 10).map(|at| in_one_task(at % 3 == 0));
                    let mut branches = Branches::new(waits);
                    let (child, polled) = watched(async move {
                        let mut last = Ok(None);
                        for _ in 0..(WAITS + IN_KERNEL) / 10 {
                            last = branches.next().await.1;
                        }
                        last
                    });
                    polls.borrow_mut().push(polled);
                    g.spawn(child);
                }
                some_turns(2).await;
                outer.cancel();
                op::nop().await
            }))
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        let after = gauges(&handle).await;
        assert_eq!(after.aborts - before.aborts, WAITS + IN_KERNEL);
        assert!(after.cancel_requests - before.cancel_requests <= IN_KERNEL);
        // The group cancels itself as well, when its body has ended so; that reaches nobody.
        assert_eq!(after.deliveries - before.deliveries, 2);
        let turns = after.turns - before.turns;
        for polled in polls.borrow().iter() {
            assert!(u64::from(polled.get()) <= turns, "{} polls", polled.get());
        }
    });
}
