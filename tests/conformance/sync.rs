//! Locks, permits and values that tasks wait for.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;

use quoit::sim::explore;
use quoit::sync::{Condition, Event, Mutex, OnceCell, Semaphore, WouldBlock};
use quoit::{Scope, check, spawn, yield_now};
use tests::{conform, park_once, poll_once};

use super::waiters::{next_op_is_refused, nothing_is_left, until, waiter};

// --- C134: handed over, then cancelled ---

#[test]
fn c134_a_lock_that_was_handed_over_first_is_had_and_passed_on() {
    conform(|handle| async move {
        let mutex = Rc::new(Mutex::new(0));
        let guard = mutex.lock().await.expect("nobody cancels");
        let seen = Rc::new(Cell::new(None));
        let (ours, inside) = (Rc::clone(&mutex), Rc::clone(&seen));
        let chosen = waiter(async move {
            let mut guard = ours.lock().await?;
            *guard += 1;
            next_op_is_refused((), &inside).await
        });
        until(|| mutex.waiting() == 1).await;
        let ours = Rc::clone(&mutex);
        let next = waiter(async move { Ok(*ours.lock().await?) });
        until(|| mutex.waiting() == 2).await;
        drop(guard);
        chosen.cancel();
        assert!(mutex.is_locked() && mutex.waiting() == 1);
        assert_eq!(chosen.end_after(2).await, None);
        assert_eq!(seen.get(), Some(()), "it had the lock");
        assert_eq!(next.end_after(2).await, Some(1));
        assert!(!mutex.is_locked() && mutex.waiting() == 0);
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c134_what_was_handed_over_is_passed_on_if_its_wait_is_dropped() {
    conform(|handle| async move {
        let mutex = Rc::new(Mutex::new(0));
        let guard = mutex.lock().await.expect("nobody cancels");
        let mut dropped = Box::pin(mutex.lock());
        assert!(poll_once(dropped.as_mut()).await.is_pending());
        let ours = Rc::clone(&mutex);
        let next = waiter(async move { Ok(*ours.lock().await?) });
        until(|| mutex.waiting() == 2).await;
        drop(guard);
        assert!(mutex.try_lock().is_err());
        drop(dropped);
        assert!(mutex.try_lock().is_err());
        assert_eq!(next.end_after(2).await, Some(0));
        assert!(mutex.try_lock().is_ok());
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c134_every_order_of_release_and_cancel_leaves_the_lock_free() {
    let explored = explore(20_000, |sim| {
        sim.block_on(async {
            let mutex = Rc::new(Mutex::new(0));
            let take = |mutex: Rc<Mutex<i32>>| async move {
                let mut guard = mutex.lock().await?;
                *guard += 1;
                yield_now().await?;
                Ok(())
            };
            let tasks: Vec<_> = (0..3).map(|_| waiter(take(Rc::clone(&mutex)))).collect();
            let scope = tasks[1].scope;
            drop(spawn(async move { scope.cancel() }));
            let mut ended = 0;
            for task in tasks {
                ended += i32::from(task.end().await.is_some());
            }
            let entered = *mutex.try_lock().expect("it is free");
            assert!(ended >= 2 && (2..=3).contains(&entered) && entered >= ended);
            assert_eq!(mutex.waiting(), 0);
        });
    });
    assert!(explored.complete && explored.orders > 10, "{explored:?}");
}

// --- C135: cancelled, then released ---

#[test]
fn c135_a_waiter_that_was_cancelled_first_is_not_chosen() {
    conform(|handle| async move {
        let mutex = Rc::new(Mutex::new(0));
        let guard = mutex.lock().await.expect("nobody cancels");
        let ours = Rc::clone(&mutex);
        let cancelled = waiter(async move { Ok(*ours.lock().await?) });
        until(|| mutex.waiting() == 1).await;
        cancelled.cancel();
        drop(guard);
        let mut taken = pin!(mutex.lock());
        let taken = poll_once(taken.as_mut()).await;
        assert!(taken.is_ready(), "within the turn");
        drop(taken);
        assert_eq!(cancelled.end_after(2).await, None);
        assert!(!mutex.is_locked() && mutex.waiting() == 0);
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c135_what_a_cancelled_waiter_stood_in_front_of_is_handed_out() {
    conform(|handle| async move {
        let permits = Rc::new(Semaphore::new(2));
        let held = permits.try_acquire().expect("free");
        let ours = Rc::clone(&permits);
        let large = waiter(async move { Ok(ours.acquire_many(2).await?.count()) });
        until(|| permits.waiting() == 1).await;
        let ours = Rc::clone(&permits);
        let small = waiter(async move { Ok(ours.acquire().await?.count()) });
        until(|| permits.waiting() == 2).await;
        assert_eq!(permits.available(), 1, "the small one does not overtake");
        assert!(permits.try_acquire().is_err(), "nor does anybody else");
        large.cancel();
        assert_eq!(large.end_after(2).await, None);
        assert_eq!(small.end_after(2).await, Some(1));
        // The same, where the wait is dropped.
        let mut large = Box::pin(permits.acquire_many(2));
        assert!(poll_once(large.as_mut()).await.is_pending());
        let ours = Rc::clone(&permits);
        let small = waiter(async move { Ok(ours.acquire().await?.count()) });
        until(|| permits.waiting() == 2).await;
        drop(large);
        assert_eq!(small.end_after(2).await, Some(1));
        drop(held);
        assert_eq!((permits.available(), permits.waiting()), (2, 0));
        nothing_is_left(&handle).await;
    });
}

// --- C137, C138: a capacity limiter ---

#[test]
fn c137_a_token_that_was_handed_over_is_passed_on_by_its_cancelled_holder() {
    conform(|handle| async move {
        let limiter = Rc::new(Semaphore::new(1));
        let held = limiter.try_acquire().expect("free");
        let seen = Rc::new(Cell::new(None));
        let (ours, inside) = (Rc::clone(&limiter), Rc::clone(&seen));
        let first = waiter(async move {
            let token = ours.acquire_owned().await?;
            let held = token.semaphore().held();
            next_op_is_refused(held, &inside).await
        });
        until(|| limiter.waiting() == 1).await;
        let ours = Rc::clone(&limiter);
        let second = waiter(async move {
            let token = ours.acquire_owned().await?;
            Ok(token.semaphore().held())
        });
        until(|| limiter.waiting() == 2).await;
        drop(held);
        first.cancel();
        assert_eq!(first.end_after(2).await, None);
        assert_eq!(seen.take(), Some(1));
        assert_eq!(second.end_after(2).await, Some(1));
        assert_eq!((limiter.held(), limiter.waiting()), (0, 0));
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c137_a_limit_can_be_moved_while_tokens_are_out() {
    conform(|handle| async move {
        let limiter = Rc::new(Semaphore::new(2));
        let both = limiter.try_acquire_many(2).expect("free");
        let ours = Rc::clone(&limiter);
        let waits = waiter(async move { Ok(ours.acquire().await?.count()) });
        until(|| limiter.waiting() == 1).await;
        limiter.set_total(1);
        assert_eq!((limiter.held(), limiter.available()), (2, 0));
        park_once(&handle).await;
        assert_eq!(waits.polls(), 1);
        limiter.set_total(3);
        assert_eq!(waits.end_after(2).await, Some(1));
        drop(both);
        assert_eq!((limiter.total(), limiter.available()), (3, 3));
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c138_nothing_is_free_between_a_release_and_the_poll_of_the_chosen() {
    conform(|handle| async move {
        let permits = Rc::new(Semaphore::new(1));
        let mutex = Rc::new(Mutex::new(()));
        let (permit, guard) = (permits.try_acquire(), mutex.try_lock());
        let (ours, lock) = (Rc::clone(&permits), Rc::clone(&mutex));
        let chosen = waiter(async move {
            let guard = lock.lock().await?;
            let permit = ours.acquire().await?;
            drop(guard);
            Ok(permit.count())
        });
        until(|| mutex.waiting() == 1).await;
        drop(guard);
        assert!(matches!(mutex.try_lock(), Err(WouldBlock)));
        until(|| permits.waiting() == 1).await;
        drop(permit);
        assert!(matches!(permits.try_acquire(), Err(WouldBlock)));
        assert_eq!((permits.held(), permits.available()), (1, 0));
        assert_eq!(chosen.end_after(3).await, Some(1));
        let refused = io::Error::from(WouldBlock);
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        nothing_is_left(&handle).await;
    });
}

// --- C139: one in the middle ---

#[test]
fn c139_the_others_keep_their_order_and_are_woken_once_each() {
    conform(|handle| async move {
        for polled_before in [false, true] {
            let permits = Rc::new(Semaphore::new(1));
            let held = permits.try_acquire().expect("free");
            let order = Rc::new(RefCell::new(Vec::new()));
            let mut tasks = Vec::new();
            for place in 0..5 {
                let (permits, order) = (Rc::clone(&permits), Rc::clone(&order));
                let inside = Rc::clone(&permits);
                tasks.push(waiter(async move {
                    let permit = inside.acquire().await?;
                    order.borrow_mut().push(place);
                    drop(permit);
                    Ok(())
                }));
                until(|| permits.waiting() == tasks.len()).await;
            }
            tasks[2].cancel();
            if polled_before {
                park_once(&handle).await;
                assert_eq!(permits.waiting(), 4);
            }
            drop(held);
            for (place, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.end_after(2).await.is_some(), place != 2);
            }
            assert_eq!(order.take(), [0, 1, 3, 4]);
            assert_eq!((permits.available(), permits.waiting()), (1, 0));
        }
        nothing_is_left(&handle).await;
    });
}

// --- C140, C141: cancelled in a critical section ---

#[test]
fn c140_a_protected_section_runs_to_its_end_and_is_not_entered_once_cancelled() {
    conform(|handle| async move {
        let mutex = Rc::new(Mutex::new(Vec::new()));
        let go = Rc::new(Event::new());
        let seen = Rc::new(Cell::new(None));
        let (ours, gate, inside) = (Rc::clone(&mutex), Rc::clone(&go), Rc::clone(&seen));
        let enters = waiter(async move {
            ours.protect(async |steps| {
                steps.push("begin");
                gate.wait().await?;
                yield_now().await?;
                steps.push("end");
                Ok::<_, io::Error>(())
            })
            .await??;
            next_op_is_refused((), &inside).await
        });
        until(|| mutex.is_locked()).await;
        let ours = Rc::clone(&mutex);
        let waits = waiter(async move {
            ours.protect(async |steps| steps.push("never")).await?;
            Ok(())
        });
        until(|| mutex.waiting() == 1).await;
        enters.cancel();
        waits.cancel();
        assert_eq!(waits.end_after(2).await, None);
        assert_eq!(enters.polls(), 1, "a cancel does not wake it");
        go.set();
        assert_eq!(enters.end().await, None);
        assert_eq!(seen.get(), Some(()));
        assert_eq!(*mutex.try_lock().expect("free"), ["begin", "end"]);
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c141_a_section_that_is_left_by_a_cancel_releases_the_lock_once() {
    conform(|handle| async move {
        for declared in [false, true] {
            let mutex = Rc::new(Mutex::new(0));
            let for_ever = Rc::new(Event::new());
            let (ours, never) = (Rc::clone(&mutex), Rc::clone(&for_ever));
            let writes = waiter(async move {
                let guard = ours.lock().await?;
                if declared {
                    let mut section = guard.section()?;
                    *section += 1;
                    never.wait().await?;
                    section.finish();
                } else {
                    let mut guard = guard;
                    *guard += 1;
                    never.wait().await?;
                }
                Ok(())
            });
            until(|| mutex.is_locked()).await;
            let next: Vec<_> = (0..2)
                .map(|_| {
                    let ours = Rc::clone(&mutex);
                    waiter(async move { Ok(*ours.lock().await?) })
                })
                .collect();
            until(|| mutex.waiting() == 2).await;
            writes.cancel();
            assert_eq!(writes.end_after(2).await, None);
            for next in next {
                assert_eq!(next.end_after(2).await, Some(1));
            }
            assert!(!mutex.is_locked());
            assert_eq!(mutex.is_poisoned(), declared);
            let section = mutex.try_lock().expect("free").section();
            if declared {
                let mut guard = section.expect_err("poisoned").into_guard();
                *guard = 0;
                mutex.clear_poison();
                guard.section().expect("in order again").finish();
            } else {
                section.expect("in order").finish();
            }
            assert!(!mutex.is_poisoned() && !mutex.is_locked());
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c141_a_section_that_panics_poisons_and_releases() {
    conform(|handle| async move {
        let mutex = Rc::new(Mutex::new(0));
        let ours = Rc::clone(&mutex);
        let writes = spawn(async move {
            let guard = ours.lock().await.expect("nobody cancels");
            let _section = guard.section().expect("in order");
            panic!("on purpose");
        });
        assert!(writes.await.is_err());
        assert!(mutex.is_poisoned() && !mutex.is_locked());
        nothing_is_left(&handle).await;
    });
}

// --- C142: a cell that is made by whoever is first ---

#[test]
fn c142_the_next_waiter_makes_the_value_if_the_first_was_cancelled() {
    conform(|handle| async move {
        let cell = Rc::new(OnceCell::new());
        let go = Rc::new(Event::new());
        let begun = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..3)
            .map(|place| {
                let (cell, go, begun) = (Rc::clone(&cell), Rc::clone(&go), Rc::clone(&begun));
                waiter(async move {
                    let value = cell
                        .get_or_try_init(async || {
                            begun.borrow_mut().push(place);
                            go.wait().await?;
                            Ok::<_, io::Error>(place)
                        })
                        .await?;
                    Ok(*value)
                })
            })
            .collect();
        park_once(&handle).await;
        let first = begun.borrow()[0];
        assert_eq!(cell.set(9), Err(9), "one is being made");
        let mut cancelled = None;
        let mut others = Vec::new();
        for (place, task) in tasks.into_iter().enumerate() {
            if place == first {
                task.cancel();
                cancelled = Some(task);
            } else {
                others.push(task);
            }
        }
        assert_eq!(cancelled.expect("one was first").end_after(2).await, None);
        park_once(&handle).await;
        assert_eq!(begun.borrow().len(), 2, "one of the others makes it");
        go.set();
        let second = begun.borrow()[1];
        for task in others {
            assert_eq!(task.end().await, Some(second));
        }
        assert_eq!((cell.get(), begun.borrow().len()), (Some(&second), 2));
        assert_eq!(cell.set(9), Err(9));
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c142_a_turn_that_was_handed_over_and_dropped_goes_to_the_next() {
    conform(|handle| async move {
        let cell = Rc::new(OnceCell::new());
        let mut first = Box::pin(cell.get_or_init(async || {
            yield_now().await.expect("nobody cancels");
            1
        }));
        assert!(poll_once(first.as_mut()).await.is_pending());
        let mut second = Box::pin(cell.get_or_init(async || 2));
        assert!(poll_once(second.as_mut()).await.is_pending());
        let ours = Rc::clone(&cell);
        let third = waiter(async move { Ok(*ours.get_or_init(async || 3).await?) });
        park_once(&handle).await;
        drop(first);
        drop(second);
        assert_eq!(third.end_after(2).await, Some(3));
        let refused = Scope::new();
        refused.handle().cancel();
        let refused =
            refused.run(async { Ok::<_, io::Error>(*cell.get_or_init(async || 4).await?) });
        assert!(
            matches!(refused.await, Ok(None)),
            "an op, though the value is there"
        );
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c142_a_failed_or_panicked_making_is_the_next_ones_turn() {
    conform(|handle| async move {
        let cell = Rc::new(OnceCell::new());
        let failed = cell.get_or_try_init(async || Err::<i32, _>(io::Error::other("on purpose")));
        assert!(failed.await.is_err());
        let (ours, begun) = (Rc::clone(&cell), Rc::new(Cell::new(false)));
        let inside = Rc::clone(&begun);
        let panics = spawn(async move {
            let made = ours.get_or_init(async || {
                inside.set(true);
                yield_now().await.expect("nobody cancels");
                panic!("on purpose")
            });
            made.await.expect("nobody cancels");
        });
        until(|| begun.get()).await;
        assert!(matches!(cell.get_or_init(async || 7).await, Ok(7)));
        assert!(panics.await.is_err());
        nothing_is_left(&handle).await;
    });
}

// --- C144: many ---

#[test]
fn c144_ten_thousand_waiters_are_cancelled_together_with_one_wake_each() {
    const COUNT: usize = 10_000;
    conform(|handle| async move {
        let mutex = Rc::new(Mutex::new(()));
        let guard = mutex.try_lock().expect("free");
        let tasks: Vec<_> = (0..COUNT)
            .map(|_| {
                let ours = Rc::clone(&mutex);
                waiter(async move {
                    drop(ours.lock().await?);
                    Ok(())
                })
            })
            .collect();
        park_once(&handle).await;
        assert_eq!(mutex.waiting(), COUNT);
        for task in &tasks {
            task.cancel();
        }
        for task in tasks {
            assert_eq!(task.end_after(2).await, None);
        }
        assert_eq!(mutex.waiting(), 0);
        drop(guard);
        assert!(mutex.try_lock().is_ok());
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c144_ten_thousand_waiters_of_one_task_and_scope_are_cancelled_together() {
    const COUNT: usize = 10_000;
    conform(|handle| async move {
        let mutex = Mutex::new(());
        let guard = mutex.try_lock().expect("free");
        let scope = Scope::new();
        let cancel = scope.handle();
        let outcome = scope
            .run(async {
                let mut waits: Vec<_> = (0..COUNT).map(|_| Box::pin(mutex.lock())).collect();
                for wait in &mut waits {
                    assert!(poll_once(wait.as_mut()).await.is_pending());
                }
                assert_eq!(mutex.waiting(), COUNT);
                cancel.cancel();
                drop(guard);
                let mut last = Ok(());
                for wait in waits {
                    last = wait.await.map(drop);
                    assert!(last.is_err());
                }
                last
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert!(mutex.waiting() == 0 && !mutex.is_locked());
        nothing_is_left(&handle).await;
    });
}

// --- C025, C026: taking the lock of a condition back ---

/// A value, and who is told of it.
type Shared = Rc<(Mutex<i32>, Condition)>;

fn shared() -> Shared {
    Rc::new((Mutex::new(0), Condition::new()))
}

#[test]
fn c025_a_lock_is_taken_back_though_the_scope_is_cancelled() {
    conform(|handle| async move {
        for notified_first in [true, false] {
            let shared = shared();
            let ours = Rc::clone(&shared);
            let seen = Rc::new(Cell::new(None));
            let inside = Rc::clone(&seen);
            let waits = waiter(async move {
                let (value, changed) = &*ours;
                match changed.wait(value.lock().await?).await {
                    Ok(guard) => {
                        assert!(notified_first);
                        next_op_is_refused(*guard, &inside).await
                    }
                    Err(error) => {
                        assert!(!notified_first);
                        let cancelled = error.cancelled();
                        inside.set(Some(*error.into_guard()));
                        Err(cancelled.into())
                    }
                }
            });
            let (value, changed) = &*shared;
            until(|| changed.waiting() == 1).await;
            let mut guard = value.try_lock().expect("let go for the wait");
            *guard = 7;
            if notified_first {
                changed.notify_one();
                until(|| value.waiting() == 1).await;
                waits.cancel();
            } else {
                waits.cancel();
                changed.notify_one();
                until(|| value.waiting() == 1).await;
            }
            let polls = waits.polls();
            park_once(&handle).await;
            assert_eq!((waits.polls(), polls), (2, 2), "a cancel does not wake it");
            drop(guard);
            assert_eq!(waits.end_after(3).await, None);
            assert_eq!(seen.get(), Some(7), "with the lock");
            assert!(!value.is_locked() && changed.waiting() == 0);
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c026_five_cancels_do_not_touch_a_lock_that_is_taken_back() {
    conform(|handle| async move {
        let shared = shared();
        let ours = Rc::clone(&shared);
        let scopes: [_; 5] = std::array::from_fn(|_| Scope::new());
        let handles = scopes.each_ref().map(Scope::handle);
        let waits = waiter(async move {
            let (value, changed) = &*ours;
            let [a, b, c, d, e] = &scopes;
            let wait = async {
                let guard = changed.wait(value.lock().await?).await?;
                let value = *guard;
                assert!(check().is_err());
                Ok::<_, io::Error>(value)
            };
            // Each in a box of its own: a scope in a scope is several times as large.
            let inner = Box::pin(d.run(Box::pin(e.run(Box::pin(wait)))));
            let outer = a.run(Box::pin(b.run(Box::pin(c.run(inner)))));
            Ok(outer.await?.flatten().flatten().flatten().flatten())
        });
        let (value, changed) = &*shared;
        until(|| changed.waiting() == 1).await;
        let guard = value.try_lock().expect("let go for the wait");
        changed.notify_all();
        until(|| value.waiting() == 1).await;
        for cancel in handles.iter().rev() {
            cancel.cancel();
            park_once(&handle).await;
            assert_eq!(waits.polls(), 2);
        }
        drop(guard);
        assert_eq!(waits.end_after(3).await, Some(Some(0)), "a value is kept");
        nothing_is_left(&handle).await;
    });
}

#[test]
fn a_condition_in_a_cancelled_scope_does_not_let_go_of_the_lock() {
    conform(|_| async {
        let (value, changed) = &*shared();
        let scope = Scope::new();
        scope.handle().cancel();
        let guard = value.try_lock().expect("free");
        let outcome = scope
            .run(async {
                let error = changed.wait(guard).await.expect_err("cancelled");
                let error = changed
                    .wait_while(error.into_guard(), |_| unreachable!("an op first"))
                    .await
                    .expect_err("cancelled");
                assert!(value.is_locked());
                let cancelled = error.cancelled();
                drop(error);
                assert!(!value.is_locked());
                Err::<(), _>(cancelled)
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

#[test]
fn a_notification_that_is_not_made_use_of_passes_on() {
    conform(|handle| async move {
        for has_looked in [false, true] {
            let shared = shared();
            let (value, changed) = &*shared;
            let guard = value.try_lock().expect("free");
            let mut first = Box::pin(changed.wait(guard));
            assert!(poll_once(first.as_mut()).await.is_pending());
            let ours = Rc::clone(&shared);
            let second = waiter(async move {
                let guard = ours.1.wait(ours.0.lock().await?).await?;
                Ok(*guard)
            });
            until(|| changed.waiting() == 2).await;
            let guard = value.try_lock().expect("let go for the waits");
            changed.notify_one();
            assert_eq!(changed.waiting(), 1);
            if has_looked {
                assert!(poll_once(first.as_mut()).await.is_pending());
            }
            // Told, and dropped before it had the lock.
            drop(first);
            assert_eq!(changed.waiting(), 0);
            drop(guard);
            assert_eq!(second.end().await, Some(0));
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn everybody_is_notified_once_and_gets_the_lock_in_order() {
    conform(|handle| async move {
        let shared = shared();
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for place in 0..4 {
            let (ours, order) = (Rc::clone(&shared), Rc::clone(&order));
            tasks.push(waiter(async move {
                let (value, changed) = &*ours;
                let _guard = changed
                    .wait_while(value.lock().await?, |value| *value == 0)
                    .await?;
                order.borrow_mut().push(place);
                Ok(())
            }));
            until(|| shared.1.waiting() == tasks.len()).await;
        }
        let mut guard = shared.0.try_lock().expect("free");
        *guard = 1;
        shared.1.notify_all();
        until(|| shared.0.waiting() == 4).await;
        drop(guard);
        for task in tasks {
            assert!(task.end_after(3).await.is_some());
        }
        order.borrow_mut().sort_unstable();
        assert_eq!(order.take(), [0, 1, 2, 3]);
        nothing_is_left(&handle).await;
    });
}

// --- foreign wakers ---

#[test]
fn a_waker_that_panics_or_calls_back_takes_no_wake_with_it() {
    use std::sync::Arc;
    use std::task::{Context, Wake, Waker};

    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }

    conform(|handle| async move {
        let permits = Rc::new(Semaphore::new(2));
        let both = permits.try_acquire_many(2).expect("free");
        let mut first = Box::pin(permits.acquire());
        let waker = Waker::from(Arc::new(Panics));
        let mut cx = Context::from_waker(&waker);
        assert!(first.as_mut().poll(&mut cx).is_pending());
        let ours = Rc::clone(&permits);
        let second = waiter(async move { Ok(ours.acquire().await?.count()) });
        until(|| permits.waiting() == 2).await;
        drop(both);
        assert_eq!(second.end_after(2).await, Some(1));
        assert!(poll_once(first.as_mut()).await.is_ready());
        drop(first);
        assert_eq!(permits.available(), 2);
        assert_eq!(tests::gauges(&handle).await.panics, 1);
        nothing_is_left(&handle).await;
    });
}
