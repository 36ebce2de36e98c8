//! A cancel holds for every op until its scope is left, and wakes each of its parked ops once.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use quoit::fs::OpenOptions;
use quoit::sim::{Fault, for_seeds, force, point};
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{
    CancelHandle, Cancelled, CarriesCancelled, CoreId, Group, JoinError, Reason, Scope, check,
    group, on, op, race, run_until_cancelled, spawn, timeout, yield_now,
};
use tests::{Drops, Kernel, conform, conform_in, conform_on, gauges, poll_once, quietly};

use crate::support::{
    Branches, Either, LONG, SHORT, after_exactly, all_ways, at_once, cancels_sent, either,
    join_anyway, pipe, reason, some_turns, waiting, watched,
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
        if Kernel::here().counts_exactly() {
            // None of the others was interrupted, and had to be begun again.
            let mut expected = [1; 20];
            expected[7] = 2;
            assert_eq!(branches.polls(), expected);
        }
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

/// As above, where so many are aborted that they stand in line to be woken.
#[test]
fn c023_waits_that_are_to_be_woken_for_a_cancel_are_not_told_any_more() {
    const WAITS: u32 = 3_000;
    conform(|_| async {
        let (event, begun) = (Rc::new(Event::new()), Rc::new(Cell::new(0)));
        let refused = Rc::new(Cell::new(0));
        let outcome = group(async |g: Group<Cancelled>| {
            for _ in 0..WAITS {
                let (event, begun) = (Rc::clone(&event), Rc::clone(&begun));
                let refused = Rc::clone(&refused);
                g.spawn(async move {
                    begun.set(begun.get() + 1);
                    let told = event.wait().await;
                    refused.set(refused.get() + u32::from(told.is_err()));
                    told
                });
            }
            while begun.get() < WAITS {
                yield_now().await?;
            }
            g.cancel();
            event.set();
            Ok(())
        })
        .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        assert_eq!(refused.get(), WAITS);
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

// --- who swallows every cancel ---

/// Asks again and again in a cancelled scope until it is told to stop; returns how often it was
/// refused.
async fn swallows(scope: &Scope, stop: &Cell<bool>) -> u32 {
    let mut refused = 0;
    let outcome = scope
        .run(async {
            while !stop.get() {
                refused += u32::from(op::nop().await.is_err());
            }
            Ok::<_, Cancelled>(())
        })
        .await;
    assert_eq!(outcome, Ok(Some(())));
    refused
}

#[test]
fn c016_loop_that_ignores_every_refusal_is_slowed_down() {
    conform(|handle| async move {
        const TICK: Duration = Duration::from_millis(5);
        let (scope, stop) = (Rc::new(Scope::new()), Rc::new(Cell::new(false)));
        scope.cancel();
        let (inner, until) = (Rc::clone(&scope), Rc::clone(&stop));
        let (swallower, polls) = watched(async move { swallows(&inner, &until).await });
        let swallower = spawn(swallower);
        let ticks = if Kernel::here().is_simulated() {
            400
        } else {
            40
        };
        let mut slow = None;
        for tick in 0..ticks {
            let began = Instant::now();
            sleep(TICK).await.expect("nobody cancels");
            after_exactly(TICK, began);
            if tick == ticks / 2 {
                slow = Some((polls.get(), Instant::now()));
            }
        }
        let (before, since) = slow.expect("half of it");
        let counters = gauges(&handle).await;
        assert_eq!((counters.swallowing, counters.unresponsive), (1, 0));
        assert!(counters.pauses > 0);
        if Kernel::here() == Kernel::Simulated {
            // At most 50 polls in a second.
            let spent = since.elapsed().as_millis() as u32;
            let polls = polls.get() - before;
            assert!(polls <= spent / 20 + 1, "{polls} polls in {spent} ms");
        }
        stop.set(true);
        let refused = swallower.await.expect("it ended");
        assert!(refused >= 1_000, "{refused}");
        let counters = gauges(&handle).await;
        assert_eq!((counters.swallowing, counters.timers), (0, 1));
    });
}

/// Between two refusals of many others run: it is made to yield.
#[test]
fn c016_loop_that_ignores_every_refusal_yields() {
    conform(|_| async {
        let (scope, stop) = (Rc::new(Scope::new()), Rc::new(Cell::new(false)));
        scope.cancel();
        let (inner, until) = (Rc::clone(&scope), Rc::clone(&stop));
        let swallower = spawn(async move { swallows(&inner, &until).await });
        let turns = Rc::new(Cell::new(0));
        for _ in 0..10 {
            yield_now().await.expect("another scope is cancelled");
            turns.set(turns.get() + 1);
        }
        stop.set(true);
        let refused = swallower.await.expect("it ended");
        assert!(refused <= 32 * 12, "{refused} refusals in ten turns");
    });
}

#[test]
fn c017_loop_that_ignores_many_refusals_and_ends_keeps_its_value() {
    conform(|handle| async move {
        let began = Instant::now();
        let outcome = group(async |g: Group<Cancelled>| {
            let child = g.spawn(async {
                for _ in 0..1_100 {
                    assert!(op::nop().await.is_err());
                }
                Ok(7)
            });
            g.cancel();
            Ok(join_anyway(child).await.expect("it ended well"))
        })
        .await;
        assert!(matches!(outcome, Ok(Some(7))), "{outcome:?}");
        if Kernel::here() == Kernel::Simulated {
            let took = began.elapsed();
            assert!(took <= Duration::from_secs(2), "{took:?}");
        }
        let counters = gauges(&handle).await;
        assert_eq!((counters.swallowing, counters.timers), (0, 1));
        assert!(counters.pauses > 0);
    });
}

/// A scope or a time limit around each op is none of those that refuse it.
#[test]
fn c017_loop_that_ignores_refusals_in_scopes_of_their_own_is_slowed_down() {
    conform(|handle| async move {
        for kind in ["a scope", "a timeout", "a race", "a group"] {
            let before = handle.metrics()[0].pauses;
            let scope = Scope::new();
            scope.cancel();
            let done = scope.run(async {
                let mut asked = 0;
                while handle.metrics()[0].pauses == before {
                    asked += 1;
                    assert!(asked <= 1_030, "{kind}: nothing slows it down");
                    let group = group(async |_: Group<io::Error>| op::nop().await);
                    let refused = match kind {
                        "a scope" => Scope::new().run(op::nop()).await.is_err(),
                        "a timeout" => timeout(LONG, op::nop()).await.is_err(),
                        "a race" => race(op::nop(), op::nop()).await.is_err(),
                        _ => group.await.is_err(),
                    };
                    assert!(refused, "{kind}");
                }
                Ok::<_, Cancelled>(())
            });
            assert_eq!(done.await, Ok(Some(())));
            let counters = gauges(&handle).await;
            assert_eq!((counters.swallowing, counters.timers), (0, 1));
        }
    });
}

#[test]
fn c018_child_that_swallows_a_cancel_keeps_its_value() {
    conform(|_| async {
        let outcome = group(async |g: Group<Cancelled>| {
            let child = g.spawn(async {
                assert!(sleep(LONG).await.is_err());
                Ok(7)
            });
            some_turns(1).await;
            g.cancel();
            Ok(join_anyway(child).await.expect("it ended well"))
        })
        .await;
        assert!(matches!(outcome, Ok(Some(7))), "{outcome:?}");
    });
}

// --- who waits for something foreign ---

/// A wait that nobody but its own bell ends; it notes when it was polled.
struct Foreign {
    rung: Rc<Cell<bool>>,
    polls: Rc<RefCell<Vec<Instant>>>,
    waker: Rc<RefCell<Option<Waker>>>,
}

impl Foreign {
    fn new() -> Self {
        Self {
            rung: Rc::default(),
            polls: Rc::default(),
            waker: Rc::default(),
        }
    }

    fn wait(&self) -> impl Future<Output = ()> + 'static {
        let (rung, polls, waker) = (
            Rc::clone(&self.rung),
            Rc::clone(&self.polls),
            Rc::clone(&self.waker),
        );
        poll_fn(move |cx| {
            polls.borrow_mut().push(Instant::now());
            if rung.get() {
                return Poll::Ready(());
            }
            waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
    }

    fn ring(&self) {
        self.rung.set(true);
        let waker = self.waker.take();
        waker.expect("it waits").wake();
    }
}

#[test]
fn c019_foreign_wait_is_woken_a_few_times_and_then_left_alone() {
    conform(|handle| async move {
        let foreign = Foreign::new();
        let scope = Rc::new(Scope::new());
        let (inner, wait) = (Rc::clone(&scope), foreign.wait());
        let task = spawn(async move {
            inner
                .run(async {
                    wait.await;
                    check()
                })
                .await
        });
        some_turns(1).await;
        let before = gauges(&handle).await;
        let cancelled = Instant::now();
        scope.cancel();
        // 1 + 2 + 4 + … + 64 ms.
        sleep(Duration::from_secs(1)).await.expect("nobody cancels");
        let polls = foreign.polls.borrow().clone();
        assert_eq!(polls.len(), 1 + 8, "begun, and woken eight times");
        let mut gap = Duration::from_millis(1);
        for pair in polls[1..].windows(2) {
            assert!(
                pair[1] - pair[0] >= gap,
                "{:?} is too soon",
                pair[1] - pair[0]
            );
            gap *= 2;
        }
        if Kernel::here() == Kernel::Simulated {
            assert_eq!(polls[1], cancelled, "the first one comes at once");
        }
        let after = gauges(&handle).await;
        assert_eq!(after.unresponsive, 1);
        assert_eq!(after.foreign_wakes - before.foreign_wakes, 8);
        // The pause in which the gauges were taken has the only timer.
        assert_eq!(after.timers, 1);
        let parks = handle.metrics()[0].parks;
        sleep(Duration::from_secs(1)).await.expect("nobody cancels");
        if Kernel::here().counts_exactly() {
            assert_eq!(handle.metrics()[0].parks - parks, 1);
        }
        assert_eq!(foreign.polls.borrow().len(), 9);
        foreign.ring();
        assert_eq!(task.await.expect("it ended"), Ok(None));
    });
}

/// A set of futures polls the branch that is told, and no other: beside one that yields in the same poll, in
/// either order, a body that begins to wait in something foreign is told all the same.
#[test]
fn c019_foreign_wait_that_begins_while_its_task_yields_is_woken() {
    conform(|_| async {
        for yields_first in [true, false] {
            let scope = Scope::new();
            let cancel = scope.handle();
            // It looks when it is polled, and wakes nobody.
            let foreign = poll_fn(|_| match check() {
                Ok(()) => Poll::Pending,
                Err(cancelled) => Poll::Ready(Err::<(), _>(cancelled)),
            });
            let waits: Pin<Box<dyn Future<Output = _>>> = Box::pin(scope.run(foreign));
            let yields: Pin<Box<dyn Future<Output = _>>> =
                Box::pin(async { yield_now().await.map(Some) });
            let mut set = Branches::new(if yields_first {
                [yields, waits]
            } else {
                [waits, yields]
            });
            assert_eq!(set.next().await.1, Ok(Some(())));
            let canceller = spawn(async move {
                some_turns(2).await;
                cancel.cancel();
            });
            let Either::First((_, ended)) = either(set.next(), sleep(200 * SHORT)).await else {
                panic!("nobody told it, yields first: {yields_first}");
            };
            assert_eq!(ended, Ok(None));
            canceller.await.expect("it ended");
        }
    });
}

#[test]
fn c020_foreign_wait_that_ends_late_goes_on_to_its_next_op() {
    conform(|handle| async move {
        let foreign = Foreign::new();
        let scope = Rc::new(Scope::new());
        let (inner, wait) = (Rc::clone(&scope), foreign.wait());
        let reached = Rc::new(Cell::new(false));
        let noted = Rc::clone(&reached);
        let task = spawn(async move {
            inner
                .run(async {
                    wait.await;
                    noted.set(true);
                    op::nop().await
                })
                .await
        });
        some_turns(1).await;
        scope.cancel();
        let pause = if Kernel::here().is_simulated() { 10 } else { 1 };
        sleep(Duration::from_secs(pause))
            .await
            .expect("nobody cancels");
        assert_eq!(gauges(&handle).await.unresponsive, 1);
        assert!(!reached.get());
        foreign.ring();
        assert!(matches!(task.await.expect("it ended"), Ok(None)));
        assert!(reached.get() && scope.absorbed());
        assert_eq!(gauges(&handle).await.unresponsive, 0);
    });
}

/// Wrapped, it is dropped by the cancel at once.
#[test]
fn c019_foreign_wait_that_is_wrapped_ends_at_once() {
    conform(|handle| async move {
        let drops = Drops::new();
        let value = drops.value();
        let scope = Rc::new(Scope::new());
        let inner = Rc::clone(&scope);
        let task = spawn(async move {
            let foreign = async move {
                let _value = value;
                pending::<()>().await;
            };
            inner.run(run_until_cancelled(foreign)).await
        });
        some_turns(1).await;
        let before = gauges(&handle).await.foreign_wakes;
        let began = Instant::now();
        scope.cancel();
        assert_eq!(task.await.expect("it ended"), Ok(None));
        at_once(began);
        assert_eq!(drops.alive(), 0);
        assert_eq!(gauges(&handle).await.foreign_wakes, before);
    });
}

// --- an abort that takes its time ---

#[test]
fn c024_shield_that_comes_up_during_an_abort_takes_nothing_back() {
    conform(|_| async {
        let (reader, _writer) = pipe();
        let (outer, inner) = (Scope::new(), Scope::new());
        let outcome = outer
            .run(async {
                let passed = inner
                    .run(async {
                        let mut read = pin!(op::read(&reader, vec![0; 8]));
                        assert!(poll_once(read.as_mut()).await.is_pending());
                        op::nop().await?;
                        force(Fault::CancelledLate);
                        outer.cancel();
                        inner.set_shielded(true);
                        let (refused, _) = read.await;
                        assert_eq!(reason(&refused), Some(Reason::Requested));
                        op::nop().await?;
                        refused
                    })
                    .await;
                assert_eq!(reason(&passed), Some(Reason::Requested));
                passed
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert!(outer.absorbed() && !inner.absorbed());
        assert_eq!(inner.cancelled(), None);
    });
}

/// The wait for a child elsewhere cannot be aborted: it ends with the child.
#[test]
fn c026_op_that_refuses_its_abort_is_asked_once_by_five_scopes() {
    conform_on(2, |handle| async move {
        let there = handle.cores()[1];
        let minute = if Kernel::here().is_simulated() {
            60_000
        } else {
            // Long beside what a busy machine is late.
            600
        };
        let scopes: Rc<[Scope; 5]> = Rc::new([(); 5].map(|()| Scope::new()));
        let (waits, polls) = watched(nested(Rc::clone(&scopes), 0, there, minute));
        let task = spawn(waits);
        some_turns(10).await;
        assert_eq!(polls.get(), 1);
        let before = (handle.metrics()[0], cancels_sent(&handle));
        for (scope, turn) in scopes.iter().rev().zip(1..) {
            scope.cancel();
            let parks = handle.metrics()[0].parks;
            sleep(Duration::from_millis(minute / 10))
                .await
                .expect("not this one");
            // On a machine that is late the child's end may fall into the last of them.
            if Kernel::here() == Kernel::Simulated {
                assert_eq!(handle.metrics()[0].parks - parks, 1, "{turn}");
            }
        }
        let after = handle.metrics()[0];
        assert_eq!(after.aborts - before.0.aborts, 1);
        assert_eq!(cancels_sent(&handle) - before.1, 1);
        assert_eq!(polls.get(), 1, "nobody has woken it");
        assert!(matches!(task.await.expect("it ended"), Ok(7)));
        assert_eq!(polls.get(), 2);
    });
}

/// Runs a child elsewhere that is shielded for so many milliseconds, in all of these scopes.
fn nested(
    scopes: Rc<[Scope; 5]>,
    depth: usize,
    there: CoreId,
    millis: u64,
) -> Pin<Box<dyn Future<Output = io::Result<u32>>>> {
    Box::pin(async move {
        let Some(scope) = scopes.get(depth) else {
            return on(there, move || async move {
                let shield = Scope::new().shielded();
                shield.run(sleep(Duration::from_millis(millis))).await?;
                Ok(7)
            })
            .await;
        };
        let inside = nested(Rc::clone(&scopes), depth + 1, there, millis);
        Ok(scope.run(inside).await?.unwrap_or(0))
    })
}

#[test]
fn c027_child_of_a_group_that_was_cancelled_before_its_first_poll_runs_to_its_first_op() {
    conform(|_| async {
        let steps = Rc::new(Cell::new(0));
        let inner = Rc::clone(&steps);
        let outcome = group(async |g: Group<io::Error>| {
            let steps = Rc::clone(&inner);
            let (child, polls) = watched(async move {
                steps.set(1);
                op::nop().await?;
                steps.set(2);
                Ok(())
            });
            let child = g.spawn(child);
            g.cancel();
            let joined = join_anyway(child).await;
            assert!(
                matches!(joined, Err(JoinError::TaskCancelled(_))),
                "{joined:?}"
            );
            assert_eq!(polls.get(), 1);
            op::nop().await
        })
        .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(steps.get(), 1);
    });
}

#[test]
fn c028_deadline_that_is_moved_after_it_has_passed_changes_nothing() {
    conform(|handle| async move {
        let scope = Scope::new().timeout(SHORT);
        let outcome = scope
            .run(async {
                assert_eq!(reason(&sleep(LONG).await), Some(Reason::Deadline));
                scope.set_deadline(Some(Instant::now() + LONG));
                assert_eq!(reason(&op::nop().await), Some(Reason::Deadline));
                // It is armed no more: the one timer is that of the pause.
                let shield = Scope::new().shielded();
                let timers = shield.run(async { Ok::<_, Cancelled>(gauges(&handle).await.timers) });
                assert_eq!(timers.await, Ok(Some(1)));
                scope.set_deadline(None);
                sleep(LONG).await
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert!(scope.absorbed());
    });
}

#[test]
fn c030_two_groups_one_after_the_other_are_both_cancelled() {
    conform(|handle| async move {
        let before = gauges(&handle).await.deliveries;
        for round in 0..2 {
            let outcome = group(async |g: Group<Cancelled>| {
                g.spawn(async move {
                    yield_now().await?;
                    g.cancel();
                    Ok(())
                });
                sleep(LONG).await
            })
            .await;
            assert!(matches!(outcome, Ok(None)), "{round}: {outcome:?}");
        }
        assert_eq!(gauges(&handle).await.deliveries - before, 2);
    });
}
