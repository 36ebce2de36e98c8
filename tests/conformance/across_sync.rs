//! Locks, permits and channels whose two sides are on different cores.
//!
//! The thread that runs a test is no core: it says what is done where, step by step.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use quoit::sim::explore;
use quoit::sync::shared::channel::{self, SendError, TrySendError};
use quoit::sync::shared::{Mutex, Semaphore, TryRecvError, WouldBlock};
use quoit::time::sleep;
use quoit::{CancelHandle, CoreId, Cores, Handle, RemoteHandle, Runtime, Scope, check, yield_now};
use tests::{Drops, on_both, poll_once, thorough};

/// Two cores, and the thread that tells them what to do.
struct Two {
    handle: Handle,
    a: CoreId,
    b: CoreId,
}

/// A task in a scope of its own.
struct Waiter<T> {
    scope: CancelHandle,
    polls: Arc<AtomicU32>,
    task: RemoteHandle<io::Result<Option<T>>>,
}

/// Runs a program on two cores, on the real ring and in the simulation.
fn on_two_cores(program: impl Fn(&Two)) {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(2))
            .build()
            .expect("tests need io_uring");
        program(&Two::of(&runtime));
        runtime.shutdown(Duration::ZERO);
    });
}

impl Two {
    fn of(runtime: &Runtime) -> Self {
        let handle = runtime.handle();
        let (a, b) = (handle.cores()[0], handle.cores()[1]);
        Self { handle, a, b }
    }

    /// Runs `code` on a core, in one go, and returns when that is done.
    fn run<T: Send + 'static>(&self, core: CoreId, code: impl FnOnce() -> T + Send + 'static) -> T {
        let task = self.handle.spawn(core, move || async { code() });
        task.expect("room").wait().expect("no panic")
    }

    /// Starts a task on a core whose body runs in a scope of its own.
    fn start<T: Send + 'static, M>(
        &self,
        core: CoreId,
        body: impl FnOnce() -> M + Send + 'static,
    ) -> Waiter<T>
    where
        M: Future<Output = io::Result<T>> + 'static,
    {
        let (tell, told) = RemoteHandle::channel();
        let polls = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&polls);
        let task = self.handle.spawn(core, move || async move {
            let scope = Scope::new();
            tell.send(scope.handle());
            let mut run = pin!(scope.run(body()));
            poll_fn(|cx| {
                count.fetch_add(1, Ordering::Relaxed);
                run.as_mut().poll(cx)
            })
            .await
        });
        Waiter {
            task: task.expect("room"),
            scope: told.wait().expect("it begins"),
            polls,
        }
    }

    /// Starts a task on a core that wants a permit, and keeps it until it is cancelled.
    fn wants(&self, core: CoreId, permits: &Arc<Semaphore>, seen: &Arc<AtomicU32>) -> Waiter<()> {
        let (permits, seen) = (Arc::clone(permits), Arc::clone(seen));
        self.start(core, move || async move {
            let _permit = permits.acquire().await?;
            seen.fetch_add(1, Ordering::Relaxed);
            keep().await
        })
    }

    /// Lets both cores go on until something holds, and until the poll has ended that made it so.
    fn until(&self, mut holds: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            let held = holds();
            for core in [self.a, self.b] {
                let turn = self.handle.spawn(core, yield_now);
                let turn = turn.expect("room").wait().expect("no panic");
                turn.expect("nobody cancels it");
            }
            if held {
                return;
            }
        }
        panic!("it does not come to hold");
    }
}

impl<T> Waiter<T> {
    /// Waits for the end; `None` if the scope has absorbed a cancel.
    fn end(self) -> Option<T> {
        let output = self.task.wait().expect("no panic");
        output.expect("no error but a cancel")
    }

    /// Waits for the end of a task that was polled so often: once to begin, and once for each wake.
    fn end_after(self, polls: u32) -> Option<T> {
        let count = Arc::clone(&self.polls);
        let value = self.end();
        assert_eq!(count.load(Ordering::Relaxed), polls, "polls");
        value
    }
}

/// Waits until it is cancelled.
async fn keep<T>() -> io::Result<T> {
    sleep(Duration::from_secs(3600)).await?;
    unreachable!("it is cancelled before")
}

/// Takes all permits there are.
fn all_of(permits: &Arc<Semaphore>) -> Vec<quoit::sync::shared::OwnedPermit> {
    let handle = |_| {
        let taken = quoit::block_on(Arc::clone(permits).acquire_owned());
        taken.expect("a core").expect("it is free")
    };
    (0..permits.available()).map(handle).collect()
}

fn count() -> Arc<AtomicU32> {
    Arc::default()
}

fn value(count: &AtomicU32) -> u32 {
    count.load(Ordering::Relaxed)
}

// --- C145: one core hands the lock over, the other cancels ---

/// Core A has the lock and lets it go when told; then, in the same go, it runs `then`.
fn held_by_a(
    two: &Two,
    mutex: &Arc<Mutex<u32>>,
    then: impl FnOnce() + Send + 'static,
) -> (channel::Sender<()>, Waiter<()>) {
    let (go, told) = channel::bounded(1);
    let ours = Arc::clone(mutex);
    let holder = two.start(two.a, move || async move {
        let guard = ours.lock().await?;
        assert_eq!(told.recv().await?, Some(()));
        drop(guard);
        then();
        Ok(())
    });
    two.until(|| mutex.is_locked());
    (go, holder)
}

#[test]
fn c145_a_lock_that_was_handed_over_first_is_had_though_its_waiter_is_cancelled() {
    on_two_cores(|two| {
        let mutex = Arc::new(Mutex::new(0));
        let scope: Arc<std::sync::Mutex<Option<CancelHandle>>> = Arc::default();
        let victim = Arc::clone(&scope);
        let (go, holder) = held_by_a(two, &mutex, move || {
            // It was handed over a moment ago, and whether B has looked by now is B's affair.
            let victim = victim.lock().expect("no panic").take();
            victim.expect("it waits").cancel();
        });
        let (ours, had) = (Arc::clone(&mutex), count());
        let seen = Arc::clone(&had);
        let waiter = two.start(two.b, move || async move {
            let mut guard = ours.lock().await?;
            *guard += 1;
            seen.fetch_add(1, Ordering::Relaxed);
            keep::<()>().await
        });
        two.until(|| mutex.waiting() == 1);
        let ours = Arc::clone(&mutex);
        let next = two.start(two.a, move || async move { Ok(*ours.lock().await?) });
        two.until(|| mutex.waiting() == 2);
        *scope.lock().expect("no panic") = Some(waiter.scope);
        go.try_send(()).expect("room");
        assert_eq!(waiter.end(), None, "its next op is refused");
        assert_eq!(value(&had), 1, "it had the lock");
        assert_eq!(next.end_after(2), Some(1));
        holder.end();
        assert!(!mutex.is_locked() && mutex.waiting() == 0);
    });
}

#[test]
fn c145_a_waiter_that_was_cancelled_first_never_has_the_lock() {
    on_two_cores(|two| {
        let mutex = Arc::new(Mutex::new(0));
        let (go, holder) = held_by_a(two, &mutex, || {});
        let ours = Arc::clone(&mutex);
        let waiter = two.start(two.b, move || async move {
            *ours.lock().await? += 1;
            Ok(())
        });
        two.until(|| mutex.waiting() == 1);
        let ours = Arc::clone(&mutex);
        let next = two.start(two.a, move || async move { Ok(*ours.lock().await?) });
        two.until(|| mutex.waiting() == 2);
        let (scope, ours) = (waiter.scope, Arc::clone(&mutex));
        two.run(two.b, move || {
            scope.cancel();
            // An op of the core sees it, and the wait is given up before its task is polled.
            check().expect("not this task");
            assert_eq!(ours.waiting(), 1);
            go.try_send(()).expect("room");
        });
        assert_eq!(
            next.end_after(2),
            Some(0),
            "it is handed on past the cancelled one"
        );
        assert_eq!(waiter.end_after(2), None);
        holder.end();
        assert!(!mutex.is_locked() && mutex.waiting() == 0);
    });
}

/// Core A lets go of the lock while B cancels the first who waits there, in one order after the other,
/// up to a bound: the next has it in the end, and whether the first had it depends on the order.
#[test]
fn c145_in_any_order_exactly_one_of_the_two_happens() {
    let mut ways = BTreeSet::new();
    let explored = explore(thorough(30_000), |sim| {
        let had = sim.cores(2).run(|| {
            let runtime = Runtime::builder().cores(Cores::Count(2)).build();
            let runtime = runtime.expect("cores");
            let two = Two::of(&runtime);
            let permits = Arc::new(Semaphore::new(1));
            let permit = all_of(&permits);
            let (had, next_had) = (count(), count());
            let waiter = two.wants(two.b, &permits, &had);
            two.until(|| permits.waiting() == 1);
            let next = two.wants(two.a, &permits, &next_had);
            two.until(|| permits.waiting() == 2);
            // From here on the cores are on their own.
            let release = two.handle.spawn(two.a, move || async { drop(permit) });
            let scope = waiter.scope;
            let cancel = two.handle.spawn(two.b, move || async move {
                scope.cancel();
            });
            release.expect("room").wait().expect("no panic");
            cancel.expect("room").wait().expect("no panic");
            waiter.end();
            two.until(|| value(&next_had) == 1);
            assert_eq!((permits.available(), permits.waiting()), (0, 0));
            next.scope.cancel();
            next.end();
            assert_eq!(permits.available(), 1);
            runtime.shutdown(Duration::ZERO);
            value(&had) == 1
        });
        ways.insert(had.value);
    });
    assert!(explored.orders > 100, "{explored:?}");
    assert_eq!(ways, [false, true].into(), "both can happen");
}

/// On the ring, at full speed: the lock is let go of and its first waiter cancelled at the same moment,
/// and each time the second has it in the end.
#[test]
fn c145_at_full_speed_the_lock_is_never_nobodys() {
    const ROUNDS: u32 = 2_000;
    let runtime = Runtime::builder().cores(Cores::Count(2)).build();
    let runtime = runtime.expect("tests need io_uring");
    let two = Two::of(&runtime);
    let permits = Arc::new(Semaphore::new(1));
    for _ in 0..ROUNDS {
        let permit = permits.acquire_blocking();
        let seen = count();
        let waiter = two.wants(two.b, &permits, &seen);
        two.until(|| permits.waiting() == 1);
        let together = Barrier::new(2);
        thread::scope(|threads| {
            let second = threads.spawn(|| drop(permits.acquire_blocking()));
            two.until(|| permits.waiting() == 2);
            threads.spawn(|| {
                together.wait();
                drop(permit);
            });
            together.wait();
            waiter.scope.cancel();
            second.join().expect("it had the permit");
        });
        assert_eq!(waiter.end(), None);
        assert!(value(&seen) <= 1);
        assert_eq!((permits.available(), permits.waiting()), (1, 0));
    }
}

// --- C134 to C139, across ---

#[test]
fn c134_what_was_handed_over_is_passed_on_if_its_wait_is_dropped() {
    on_two_cores(|two| {
        let permits = Arc::new(Semaphore::new(1));
        let permit = all_of(&permits);
        let had = count();
        // B polls a wait once, gets it handed by A, and drops it unseen.
        let (go, told) = channel::bounded(1);
        let ours = Arc::clone(&permits);
        let dropper = two.start(two.b, move || async move {
            let mut wait = Box::pin(ours.acquire());
            assert!(poll_once(wait.as_mut()).await.is_pending());
            told.recv().await?;
            assert!(ours.try_acquire().is_err(), "it is ours, though unseen");
            drop(wait);
            Ok(())
        });
        two.until(|| permits.waiting() == 1);
        let next = two.wants(two.a, &permits, &had);
        two.until(|| permits.waiting() == 2);
        two.run(two.a, move || drop(permit));
        assert_eq!((permits.waiting(), value(&had)), (1, 0));
        go.try_send(()).expect("room");
        dropper.end();
        two.until(|| value(&had) == 1);
        next.scope.cancel();
        assert_eq!(next.end_after(3), None);
        assert_eq!(permits.available(), 1);
    });
}

#[test]
fn c135_who_was_cancelled_first_is_passed_over_within_the_turn() {
    on_two_cores(|two| {
        let permits = Arc::new(Semaphore::new(1));
        let permit = all_of(&permits);
        let had = count();
        let waiter = two.wants(two.b, &permits, &had);
        two.until(|| permits.waiting() == 1);
        let (scope, ours) = (waiter.scope, Arc::clone(&permits));
        two.run(two.b, move || {
            scope.cancel();
            drop(permit);
            drop(
                ours.try_acquire()
                    .expect("nobody waits who was not cancelled"),
            );
        });
        assert_eq!(waiter.end_after(2), None);
        assert_eq!((value(&had), permits.available()), (0, 1));
    });
}

#[test]
fn c137_a_permit_handed_to_a_cancelled_waiter_goes_on_to_the_other_core() {
    on_two_cores(|two| {
        let permits = Arc::new(Semaphore::new(2));
        let mut held = all_of(&permits);
        let (first_had, second_had) = (count(), count());
        let first = two.wants(two.b, &permits, &first_had);
        two.until(|| permits.waiting() == 1);
        let second = two.wants(two.a, &permits, &second_had);
        two.until(|| permits.waiting() == 2);
        let (permit, scope) = (held.pop(), first.scope);
        two.run(two.a, move || {
            drop(permit);
            scope.cancel();
        });
        assert_eq!(first.end(), None);
        assert_eq!(value(&first_had), 1);
        two.until(|| value(&second_had) == 1);
        assert_eq!((permits.available(), permits.waiting()), (0, 0));
        second.scope.cancel();
        second.end();
        drop(held);
        assert_eq!(permits.available(), 2);
    });
}

#[test]
fn c138_who_does_not_wait_gets_nothing_that_was_handed_to_another_core() {
    on_two_cores(|two| {
        let permits = Arc::new(Semaphore::new(1));
        let permit = all_of(&permits);
        let had = count();
        let waiter = two.wants(two.b, &permits, &had);
        two.until(|| permits.waiting() == 1);
        let ours = Arc::clone(&permits);
        two.run(two.a, move || {
            drop(permit);
            assert_eq!(ours.try_acquire().err(), Some(WouldBlock));
            assert_eq!(ours.available(), 0);
        });
        two.until(|| value(&had) == 1);
        waiter.scope.cancel();
        assert_eq!(waiter.end_after(3), None);
        assert!(permits.try_acquire().is_ok());
    });
}

#[test]
fn c139_the_line_keeps_its_order_over_the_cores_when_one_leaves_it() {
    on_two_cores(|two| {
        let mutex = Arc::new(Mutex::new(Vec::new()));
        let guard = mutex.lock_blocking();
        let mut waiters = Vec::new();
        for place in 0..5 {
            let ours = Arc::clone(&mutex);
            let core = if place % 2 == 0 { two.a } else { two.b };
            waiters.push(two.start(core, move || async move {
                ours.lock().await?.push(place);
                Ok(())
            }));
            two.until(|| mutex.waiting() == waiters.len());
        }
        let middle = waiters.remove(2);
        middle.scope.cancel();
        assert_eq!(middle.end_after(2), None);
        assert_eq!(mutex.waiting(), 4);
        drop(guard);
        for waiter in waiters {
            assert_eq!(waiter.end_after(2), Some(()));
        }
        assert_eq!(*mutex.lock_blocking(), [0, 1, 3, 4]);
    });
}

#[test]
fn c144_ten_thousand_waiters_of_two_cores_are_cancelled_together() {
    const EACH: usize = 5_000;
    on_two_cores(|two| {
        let permits = Arc::new(Semaphore::new(1));
        let permit = all_of(&permits);
        let groups = [two.a, two.b].map(|core| {
            let ours = Arc::clone(&permits);
            two.start(core, move || async move {
                let waited = quoit::group(async |group| {
                    for _ in 0..EACH {
                        let ours = Arc::clone(&ours);
                        group.spawn(async move {
                            drop(ours.acquire().await?);
                            Ok::<_, io::Error>(())
                        });
                    }
                    Ok(())
                });
                waited.await.map_err(io::Error::from)
            })
        });
        two.until(|| permits.waiting() == 2 * EACH);
        for group in &groups {
            group.scope.cancel();
        }
        for group in groups {
            assert_eq!(group.end(), None);
        }
        assert_eq!((permits.available(), permits.waiting()), (0, 0));
        drop(permit);
        assert_eq!(permits.available(), 1);
    });
}

// --- C118 to C121, across ---

#[test]
fn c118_a_receiver_that_was_cancelled_takes_nothing() {
    on_two_cores(|two| {
        for capacity in [0, 1] {
            let (sender, receiver) = channel::bounded(capacity);
            let ours = receiver.clone();
            let waiter = two.start(two.b, move || async move { Ok(ours.recv().await?) });
            two.until(|| receiver.waiting() == 1);
            waiter.scope.cancel();
            assert_eq!(waiter.end_after(2), None);
            assert_eq!(receiver.waiting(), 0);
            let sent = two.run(two.a, move || sender.try_send(7));
            if capacity == 0 {
                assert_eq!(sent, Err(TrySendError::Full(7)));
            } else {
                assert_eq!((sent, receiver.try_recv()), (Ok(()), Ok(7)));
            }
        }
    });
}

#[test]
fn c119_an_item_that_was_handed_over_first_is_received() {
    on_two_cores(|two| {
        let (sender, receiver) = channel::bounded(1);
        let seen = count();
        let (ours, inside) = (receiver.clone(), Arc::clone(&seen));
        let waiter = two.start(two.b, move || async move {
            let item: Option<u32> = ours.recv().await?;
            inside.fetch_add(item.expect("one was sent"), Ordering::Relaxed);
            keep::<()>().await
        });
        two.until(|| receiver.waiting() == 1);
        let scope = waiter.scope;
        two.run(two.a, move || {
            sender.try_send(7).expect("somebody waits");
            scope.cancel();
        });
        assert_eq!(waiter.end(), None);
        assert_eq!(value(&seen), 7);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    });
}

#[test]
fn c119_an_item_passes_by_a_receiver_that_was_cancelled_first() {
    on_two_cores(|two| {
        let (sender, receiver) = channel::bounded(1);
        let ours = receiver.clone();
        let waiter = two.start(two.b, move || async move { Ok(ours.recv().await?) });
        two.until(|| receiver.waiting() == 1);
        let ours = receiver.clone();
        let next = two.start(two.a, move || async move { Ok(ours.recv().await?) });
        two.until(|| receiver.waiting() == 2);
        let scope = waiter.scope;
        two.run(two.b, move || {
            scope.cancel();
            sender.try_send(7).expect("somebody waits");
        });
        assert_eq!(next.end_after(2), Some(Some(7)));
        assert_eq!(waiter.end_after(2), None);
    });
}

#[test]
fn c120_a_sender_that_was_cancelled_has_its_item_back() {
    on_two_cores(|two| {
        let (sender, receiver) = channel::bounded(1);
        sender.try_send(0).expect("room");
        let mut waiters = Vec::new();
        let back = count();
        for item in 1..=3 {
            let (ours, back) = (sender.clone(), Arc::clone(&back));
            let core = if item == 2 { two.b } else { two.a };
            waiters.push(two.start(core, move || async move {
                let sent = ours.send(item).await;
                if let Err(SendError::Cancelled(item, cause)) = sent {
                    back.fetch_add(item, Ordering::Relaxed);
                    return Err(cause.into());
                }
                Ok(sent?)
            }));
            two.until(|| sender.waiting() == waiters.len());
        }
        let middle = waiters.remove(1);
        middle.scope.cancel();
        assert_eq!(middle.end_after(2), None);
        assert_eq!(value(&back), 2);
        let received = [(); 3].map(|()| receiver.recv_blocking());
        assert_eq!(received, [Some(0), Some(1), Some(3)]);
        for waiter in waiters {
            assert_eq!(waiter.end_after(2), Some(()));
        }
        assert!(receiver.is_empty());
    });
}

#[test]
fn c121_an_item_in_hand_over_is_dropped_once() {
    on_two_cores(|two| {
        for capacity in [0, 1] {
            let drops = Drops::new();
            let (sender, receiver) = channel::bounded(capacity);
            let (go, told) = channel::bounded(1);
            let waits = count();
            let begun = Arc::clone(&waits);
            // It is handed an item, is cancelled, and drops its wait unseen.
            let waiter = two.start(two.b, move || async move {
                let mut wait = Box::pin(receiver.recv());
                assert!(poll_once(wait.as_mut()).await.is_pending());
                begun.fetch_add(1, Ordering::Relaxed);
                told.recv().await?;
                drop(wait);
                drop(receiver);
                keep::<()>().await
            });
            two.until(|| value(&waits) == 1);
            assert!(sender.try_send(drops.value()).is_ok(), "it is waited for");
            let ours = sender.clone();
            let other = drops.value();
            let parked = two.start(two.a, move || async move {
                let sent = ours.send(other).await;
                drop(sent);
                keep::<()>().await
            });
            two.until(|| sender.waiting() == 1 || capacity == 1);
            waiter.scope.cancel();
            parked.scope.cancel();
            go.try_send(()).ok();
            assert_eq!((waiter.end(), parked.end()), (None, None));
            drop(sender);
            assert_eq!(drops.alive(), 0);
        }
    });
}

// --- ends ---

#[test]
fn a_core_that_ends_leaves_no_waiter_behind() {
    on_both(|| {
        let mutex = Arc::new(Mutex::new(0));
        let (sender, receiver) = channel::bounded::<u32>(0);
        let guard = mutex.lock_blocking();
        let runtime = Runtime::builder().cores(Cores::Count(2)).build();
        let runtime = runtime.expect("tests need io_uring");
        let two = Two::of(&runtime);
        // Shielded, so that it is dropped rather than cancelled.
        let ours = Arc::clone(&mutex);
        let locks = two.start(two.b, move || async move {
            let shielded = Scope::new().shielded();
            shielded.run(async { Ok(*ours.lock().await?) }).await
        });
        let ours = sender.clone();
        let sends = two.start(two.a, move || async move {
            Scope::new()
                .shielded()
                .run(async { Ok(ours.send(7).await?) })
                .await
        });
        two.until(|| mutex.waiting() == 1 && sender.waiting() == 1);
        runtime.shutdown(Duration::ZERO);
        assert_eq!((mutex.waiting(), sender.waiting()), (0, 0));
        assert!(locks.task.wait().is_err() && sends.task.wait().is_err());
        drop(guard);
        assert!(!mutex.is_locked());
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn the_end_of_a_channel_reaches_all_who_wait_on_all_cores() {
    on_two_cores(|two| {
        // More of them than are told in one go.
        let (sender, receiver) = channel::bounded::<u32>(1);
        let mut waiters = Vec::new();
        for place in 0..40 {
            let ours = receiver.clone();
            let core = if place % 2 == 0 { two.a } else { two.b };
            waiters.push(two.start(core, move || async move { Ok(ours.recv().await?) }));
        }
        two.until(|| receiver.waiting() == 40);
        two.run(two.a, move || drop(sender));
        for waiter in waiters {
            assert_eq!(waiter.end_after(2), Some(None));
        }

        let (sender, receiver) = channel::bounded(1);
        sender.try_send(0).expect("room");
        let mut waiters = Vec::new();
        for place in 0..40 {
            let ours = sender.clone();
            let core = if place % 2 == 0 { two.a } else { two.b };
            waiters.push(two.start(core, move || async move {
                Ok(ours.send(place).await == Err(SendError::Closed(place)))
            }));
        }
        two.until(|| sender.waiting() == 40);
        two.run(two.b, move || drop(receiver));
        for waiter in waiters {
            assert_eq!(waiter.end_after(2), Some(true));
        }
        assert!(sender.is_closed() && sender.is_empty());
    });
}

#[test]
fn a_thread_stands_in_the_same_line_as_the_tasks() {
    on_two_cores(|two| {
        let (jobs, todo) = channel::bounded(2);
        let (done, results) = channel::bounded(0);
        let worker = two.start(two.a, move || async move {
            while let Some(job) = todo.recv().await? {
                done.send(job * 2).await?;
            }
            Ok(())
        });
        for job in 0..3_u32 {
            jobs.send_blocking(job).expect("it receives");
        }
        for job in 0..3 {
            assert_eq!(results.recv_blocking(), Some(job * 2));
        }
        drop(jobs);
        assert_eq!(results.recv_blocking(), None);
        assert_eq!(worker.end(), Some(()));
    });
}

#[test]
fn a_call_that_blocks_is_refused_on_a_core() {
    on_two_cores(|two| {
        let mutex = Arc::new(Mutex::new(0));
        let ours = Arc::clone(&mutex);
        let task = two.handle.spawn(two.a, move || async move {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                drop(ours.lock_blocking());
            }));
            caught.is_err()
        });
        assert!(task.expect("room").wait().expect("it goes on"));
        assert!(mutex.try_lock().is_ok());
    });
}

/// The check at entry comes first: nothing is taken in a cancelled scope, though it is there.
#[test]
fn nothing_is_taken_in_a_cancelled_scope() {
    on_two_cores(|two| {
        let mutex = Arc::new(Mutex::new(0));
        let (sender, receiver) = channel::bounded(2);
        sender.try_send(1).expect("room");
        let (ours, ends) = (Arc::clone(&mutex), (sender.clone(), receiver.clone()));
        let refused = two.start(two.b, move || async move {
            let scope = Scope::new();
            let handle = scope.handle();
            let body = async {
                handle.cancel();
                assert!(ours.lock().await.is_err());
                assert!(ends.1.recv().await.is_err());
                let sent = ends.0.send(2).await;
                assert!(matches!(sent, Err(SendError::Cancelled(2, _))));
                Ok::<_, io::Error>(())
            };
            scope.run(body).await
        });
        assert_eq!(refused.end(), Some(Some(())));
        assert!(mutex.try_lock().is_ok());
        assert_eq!((sender.len(), receiver.try_recv()), (1, Ok(1)));
    });
}

/// A wait is polled under another scope than before, which is cancelled: it ends, and the next has
/// its turn.
#[test]
fn a_wait_that_moves_under_a_cancelled_scope_ends() {
    on_two_cores(|two| {
        let permits = Arc::new(Semaphore::new(1));
        let permit = all_of(&permits);
        let ours = Arc::clone(&permits);
        let moved = two.start(two.b, move || async move {
            let mut wait = Box::pin(ours.acquire());
            assert!(poll_once(wait.as_mut()).await.is_pending());
            let scope = Scope::new();
            let handle = scope.handle();
            let body = async {
                handle.cancel();
                let ended = poll_once(wait.as_mut()).await;
                assert!(matches!(ended, Poll::Ready(Err(_))));
                Ok::<_, io::Error>(())
            };
            scope.run(body).await
        });
        assert_eq!(moved.end_after(1), Some(Some(())));
        assert_eq!(permits.waiting(), 0);
        drop(permit);
        assert_eq!(permits.available(), 1);
    });
}
