//! Cancels that come from other cores, threads and signal handlers, and children that run elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use quoit::op::SharedFd;
use quoit::sim::{self, Fault, Faults, for_seeds, point};
use quoit::time::{Instant, sleep};
use quoit::{
    Builder, CancelHandle, Cancelled, Cores, Delivery, Group, Handle, JoinHandle, Reason, Runtime,
    Scope, SpawnError, check, on, op, spawn, yield_now,
};
use tests::{
    Kernel, Outside, conform, conform_of, conform_on, gauges, on_both, poll_once, quietly,
    quietly_of,
};

use crate::support::{
    Answer, Either, LONG, SHORT, after_exactly, all_ways, at_once, cancels_sent, either, pipe,
    reason, repetitions, some_turns, until_parked, waiting, watched,
};

fn two_cores() -> Builder {
    Runtime::builder().cores(Cores::Count(2))
}

/// Cancels on the second core, when the first has parked.
fn cancel_when_parked(handle: &Handle, cancel: CancelHandle) -> Answer<Delivery> {
    let (inner, parks) = (handle.clone(), handle.metrics()[0].parks);
    Answer::on(handle, handle.cores()[1], move || async move {
        until_parked(&inner, 0, parks).await;
        cancel.cancel()
    })
}

#[test]
fn c104_cancel_from_another_core_wakes_a_parked_core_once() {
    conform_on(2, |handle| async move {
        let scope = Scope::new();
        let before = handle.metrics()[0];
        let began = Instant::now();
        let told = cancel_when_parked(&handle, scope.handle());
        let (run, polls) = watched(scope.run(sleep(LONG)));
        assert_eq!(run.await, Ok(None));
        let after = handle.metrics()[0];
        at_once(began);
        assert_eq!(told.get().await, Delivery::Delivered);
        assert_eq!(polls.get(), 2);
        assert_eq!(after.remote_cancels - before.remote_cancels, 1);
        assert_eq!(after.aborts - before.aborts, 1);
        if Kernel::here().counts_exactly() {
            assert_eq!(after.parks - before.parks, 1);
            assert_eq!(after.wake_calls - before.wake_calls, 1);
            assert_eq!(after.failed_wakes, 0);
        }
    });
}

/// The waiter is one of many tasks; the others keep the core busy.
#[test]
fn c105_cancel_of_a_busy_core_makes_no_system_call() {
    conform_on(2, |handle| async move {
        let ended = Rc::new(Cell::new(0));
        let (noted, counters) = (Rc::clone(&ended), handle.clone());
        let (cancel, task) = waiting(async move {
            let refused = sleep(LONG).await;
            noted.set(counters.metrics()[0].turns);
            refused
        })
        .await;
        let inner = handle.clone();
        let before = handle.metrics()[0];
        let sent = Answer::on(&handle, handle.cores()[1], move || async move {
            assert_eq!(cancel.cancel(), Delivery::Delivered);
            // In this turn, or a later one.
            inner.metrics()[0].turns
        });
        // Yields meanwhile, so the core is busy.
        let sent = sent.get().await;
        assert_eq!(task.await.expect("it ended"), Ok(None));
        let after = handle.metrics()[0];
        assert_eq!(after.wake_calls, before.wake_calls);
        assert_eq!(after.parks, before.parks);
        assert!(ended.get() <= sent + 1, "{} after {sent}", ended.get());
    });
}

/// One core is cancelled by the other; returns whether it had to be woken for it.
fn cancelled_by_the_other_core() -> bool {
    quietly_of(two_cores(), |handle| async move {
        let scope = Scope::new();
        let cancel = scope.handle();
        let told = Answer::on(&handle, handle.cores()[1], move || async move {
            cancel.cancel()
        });
        // The other may come before this goes on.
        yield_now().await.expect("nobody cancels");
        let before = handle.metrics()[0].wake_calls;
        assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
        let wakes = handle.metrics()[0].wake_calls - before;
        assert_eq!(told.get().await, Delivery::Delivered);
        wakes > 0
    })
}

/// The core takes step by step with the other, in all orders there are.
#[test]
fn c106_no_cancel_is_slept_over_in_any_order() {
    assert_eq!(all_ways(cancelled_by_the_other_core), [false, true].into());
}

/// The cancel comes when the core has found nothing to do, and has not said yet that it parks.
#[test]
fn c106_no_cancel_is_slept_over_in_the_last_moment() {
    let mut woken = BTreeSet::new();
    for_seeds(0..100, |sim| {
        let sim = sim.faults(Faults::none().rate(Fault::LastLook, 0.5));
        woken.insert(sim.run(cancelled_by_the_other_core).value);
    });
    assert_eq!(woken, [false, true].into());
}

// On the real ring: two threads race.
#[test]
fn c106_no_cancel_is_slept_over() {
    let rounds = repetitions(50_000, 1_000_000);
    quietly_of(two_cores(), move |handle| async move {
        let (tell, told) = mpsc::channel::<(CancelHandle, u32)>();
        let other = Answer::on(&handle, handle.cores()[1], move || async move {
            let mut cancelled = 0;
            loop {
                match told.try_recv() {
                    Ok((cancel, delay)) => {
                        for _ in 0..delay {
                            std::hint::spin_loop();
                        }
                        assert_eq!(cancel.cancel(), Delivery::Delivered);
                        cancelled += 1;
                    }
                    Err(mpsc::TryRecvError::Empty) => yield_now().await.expect("nobody cancels"),
                    Err(mpsc::TryRecvError::Disconnected) => return cancelled,
                }
            }
        });
        let mut state = 1_u32;
        for _ in 0..rounds {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let scope = Scope::new();
            tell.send((scope.handle(), state >> 24))
                .expect("it listens");
            assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
        }
        drop(tell);
        assert_eq!(other.get().await, rounds);
        let counters = gauges(&handle).await;
        assert_eq!(counters.remote_cancels, u64::from(rounds));
        assert!(counters.aborts > 0, "no wait was ever parked");
    });
}

/// On the real ring the first core computes until the other is done; in the simulation the other does
/// it all in one step, so the first has no turn meanwhile.
#[test]
fn c107_burst_of_cancels_is_delivered_though_the_mailbox_is_full() {
    let builder = Runtime::builder()
        .cores(Cores::Count(2))
        .mailbox_capacity(8);
    conform_of(builder, |handle| async move {
        let simulated = Kernel::here().is_simulated();
        let scopes: usize = if simulated { 1_000 } else { 100_000 };
        let ended = Rc::new(Cell::new(0));
        let cancels = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..scopes {
            let (ended, cancels) = (Rc::clone(&ended), Rc::clone(&cancels));
            drop(spawn(async move {
                let scope = Scope::new();
                cancels.borrow_mut().push(scope.handle());
                assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
                ended.set(ended.get() + 1);
            }));
        }
        while cancels.borrow().len() < scopes {
            yield_now().await.expect("nobody cancels");
        }
        let (cancels, before) = (cancels.take(), handle.metrics()[0]);
        let (inner, cores) = (handle.clone(), handle.cores());
        let done = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&done);
        let other = Answer::on(&handle, cores[1], move || async move {
            let mut sent = 0;
            let full = loop {
                match inner.spawn(cores[0], || async {}) {
                    Ok(_) => sent += 1,
                    Err(SpawnError::Full(_)) => break sent,
                    Err(refused) => panic!("{refused}"),
                }
            };
            let delivered = cancels
                .iter()
                .filter(|cancel| cancel.cancel() == Delivery::Delivered);
            let delivered = delivered.count();
            let wakes = inner.metrics()[0].wake_calls;
            tell.store(true, Ordering::Release);
            (full, delivered, wakes)
        });
        while !simulated && !done.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let (full, delivered, wakes) = other.get().await;
        assert_eq!((full, delivered), (8, scopes));
        assert_eq!(wakes, before.wake_calls, "it was busy");
        while ended.get() < scopes {
            yield_now().await.expect("nobody cancels");
        }
        let after = handle.metrics()[0];
        assert_eq!(after.remote_cancels - before.remote_cancels, scopes as u64);
        assert_eq!(after.aborts - before.aborts, scopes as u64);
    });
}

/// A runtime that has ended is not quiet, it is gone.
#[test]
fn c108_cancel_of_a_core_that_has_ended_finds_nobody() {
    on_both(|| {
        let runtime = two_cores().build();
        let runtime = runtime.expect("tests need io_uring");
        let handle = runtime.handle();
        let taken = handle.spawn(handle.cores()[0], || async {
            // One that never runs, and one that is in its run when the core ends.
            let (idle, open) = (Scope::new(), Scope::new());
            let handles = (idle.handle(), open.handle());
            drop(spawn(async move {
                let _idle = idle;
                let refused = open.run(sleep(LONG)).await;
                assert_eq!(reason(&refused), Some(Reason::Shutdown));
            }));
            some_turns(1).await;
            handles
        });
        let (idle, open) = taken.expect("room").wait().expect("it ended");
        handle.shutdown();
        // Somewhere in its end, or past it; a real core goes on meanwhile.
        for handle in [idle, open] {
            let _ = handle.cancel();
        }
        runtime.shutdown(Duration::ZERO);
        assert_eq!(
            (idle.cancel(), open.cancel()),
            (Delivery::Gone, Delivery::Gone)
        );
        // Somebody else is in their place, and is not meant.
        quietly(move |_| async move {
            let scope = Scope::new();
            let _handle = scope.handle();
            assert_eq!(
                (idle.cancel(), open.cancel()),
                (Delivery::Gone, Delivery::Gone)
            );
            assert_eq!(scope.run(yield_now()).await, Ok(Some(())));
        });
    });
}

/// The child is on its way to another core when its scope is cancelled.
#[test]
fn c109_child_that_was_cancelled_on_its_way_is_refused_its_first_op() {
    conform_on(2, |handle| async move {
        let there = handle.cores()[1];
        let scope = Scope::new();
        let ran = Arc::new(AtomicU64::new(0));
        let inner = Arc::clone(&ran);
        let outcome = scope
            .run(async {
                let mut child = Box::pin(on(there, move || async move {
                    inner.fetch_add(1, Ordering::Relaxed);
                    op::nop().await?;
                    inner.fetch_add(100, Ordering::Relaxed);
                    Ok::<_, io::Error>(())
                }));
                // The message is in its mailbox, and the cancel behind it.
                if let Poll::Ready(ended) = tests::poll_once(child.as_mut()).await {
                    // A real core may do all of it meanwhile.
                    assert!(!Kernel::here().is_simulated());
                    return ended;
                }
                scope.cancel();
                child.await
            })
            .await;
        match (outcome, ran.load(Ordering::Relaxed)) {
            (Ok(None), 1) => {}
            // In the simulation the other core has had no turn in between; a real one may have.
            (Ok(None | Some(())), 1 | 101) if !Kernel::here().is_simulated() => {}
            (outcome, ran) => panic!("{outcome:?} after {ran}"),
        }
    });
}

/// The scope ends by itself, and is cancelled at the same moment, by one who keeps nothing.
#[test]
fn c110_scope_that_ends_while_it_is_cancelled_ends_once() {
    let mut ways = BTreeSet::new();
    for_seeds(0..200, |sim| {
        let outcome = sim.run(|| {
            quietly_of(
                Runtime::builder().cores(Cores::Count(2)),
                |handle| async move {
                    let scope = Scope::new();
                    let told = {
                        let cancel = scope.handle();
                        Answer::on(&handle, handle.cores()[1], move || async move {
                            some_turns(2).await;
                            cancel.cancel()
                        })
                    };
                    let body = async {
                        for _ in 0..4 {
                            op::nop().await?;
                        }
                        Ok::<_, io::Error>(())
                    };
                    let ended = scope.run(body).await.expect("no failure").is_some();
                    // The next one in its place is none of the canceller's business.
                    let next = Scope::new();
                    let _cancel = next.handle();
                    let going_on = async {
                        for _ in 0..4 {
                            op::nop().await?;
                        }
                        Ok::<_, io::Error>(())
                    };
                    assert!(matches!(next.run(going_on).await, Ok(Some(()))));
                    let told = told.get().await;
                    assert!(ended || told == Delivery::Delivered, "{told:?}");
                    (ended, told == Delivery::Gone)
                },
            )
        });
        ways.insert(outcome.value);
    });
    assert!(ways.len() > 1, "{ways:?}");
}

#[test]
fn c111_cancel_is_passed_on_to_a_child_elsewhere_once() {
    conform_on(2, |handle| async move {
        let (there, inner) = (handle.cores()[1], handle.clone());
        let (before, sent) = (handle.metrics(), cancels_sent(&handle));
        let began = Instant::now();
        let scope = Scope::new().timeout(SHORT);
        let (run, polls) = watched(scope.run(async {
            let child = on(there, || async {
                let refused = sleep(LONG).await;
                assert_eq!(reason(&refused), Some(Reason::Deadline));
                // Its clean-up takes a while, and the caller waits.
                let shield = Scope::new().shielded();
                shield.run(sleep(2 * SHORT)).await?;
                refused.map_err(io::Error::from)
            })
            .await;
            assert_eq!(reason(&child), Some(Reason::Deadline));
            child
        }));
        assert!(matches!(run.await, Ok(None)));
        after_exactly(3 * SHORT, began);
        let after = inner.metrics();
        assert_eq!(cancels_sent(&inner) - sent, 1);
        assert_eq!(after[1].remote_cancels - before[1].remote_cancels, 1);
        if Kernel::here().counts_exactly() {
            assert_eq!(polls.get(), 2, "begun, and told of the child's end");
        }
    });
}

/// A select drops the call: that returns at once, and the scope around waits for the child's clean-up.
#[test]
fn c111_call_that_is_dropped_cancels_its_child_and_holds_the_scope_around() {
    conform_on(2, |handle| async move {
        let there = handle.cores()[1];
        let ended = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&ended);
        let began = Instant::now();
        let outcome = Scope::new()
            .run(async {
                let call = on(there, move || async move {
                    let refused = sleep(LONG).await;
                    assert_eq!(reason(&refused), Some(Reason::Dropped));
                    let shield = Scope::new().shielded();
                    shield.run(sleep(2 * SHORT)).await?;
                    tell.store(true, Ordering::Release);
                    refused.map_err(io::Error::from)
                });
                let picked = either(call, sleep(SHORT)).await;
                assert!(matches!(picked, Either::Second(Ok(()))));
                after_exactly(SHORT, began);
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        assert!(ended.load(Ordering::Acquire));
        after_exactly(3 * SHORT, began);
    });
}

/// What the child has given up is over as well when the call is.
#[test]
fn c111_call_ends_after_the_ops_that_its_child_has_given_up() {
    conform_on(2, |handle| async move {
        let call = on(handle.cores()[1], || async {
            let (reader, _writer) = pipe();
            let mut read = Box::pin(op::read(&reader, vec![0; 8]));
            assert!(poll_once(read.as_mut()).await.is_pending());
            op::nop().await?;
            // The kernel takes its time, if it is one that can be told to.
            sim::force(Fault::CancelledLate);
            drop(read);
            Ok::<_, io::Error>(Instant::now())
        });
        let given_up = call.await.expect("nobody cancels");
        if Kernel::here() == Kernel::Simulated {
            assert!(given_up.elapsed() > Duration::ZERO);
        }
    });
}

/// The child ends well while the cancel is on its way to it.
#[test]
fn c112_value_of_a_child_elsewhere_that_came_first_is_returned() {
    let mut ways = BTreeSet::new();
    for_seeds(0..300, |sim| {
        let outcome = sim.run(|| {
            quietly_of(
                Runtime::builder().cores(Cores::Count(2)),
                |handle| async move {
                    let there = handle.cores()[1];
                    let scope = Scope::new();
                    let cancel = scope.handle();
                    let canceller = spawn(async move {
                        some_turns(2).await;
                        cancel.cancel()
                    });
                    let outcome = scope
                        .run(async {
                            let value = on(there, || async {
                                op::nop().await?;
                                op::nop().await?;
                                Ok::<_, io::Error>(7)
                            })
                            .await?;
                            Ok::<_, io::Error>((value, reason(&check())))
                        })
                        .await
                        .expect("no failure");
                    canceller.await.expect("it ended");
                    let counters = gauges(&handle).await;
                    (outcome, counters.cancels_gone)
                },
            )
        });
        ways.insert(format!("{:?}", outcome.value));
    });
    // Cancelled, and the child as well; cancelled, and it had ended; not cancelled in time.
    let told = |way: &str| ways.iter().any(|told| told.starts_with(way));
    assert!(told("(None"), "{ways:?}");
    assert!(told("(Some((7, Some(Requested)))"), "{ways:?}");
}

#[test]
fn c113_cores_are_quiet_while_a_child_elsewhere_is_in_a_shield() {
    conform_on(2, |handle| async move {
        let there = handle.cores()[1];
        let scope = Scope::new().timeout(SHORT);
        let shield_time = Duration::from_secs(1);
        let (counters, begun) = (handle.clone(), Arc::new(Mutex::new(None)));
        let note = Arc::clone(&begun);
        let outcome = scope
            .run(on(there, move || async move {
                let refused = sleep(LONG).await;
                note.lock().expect("no panic").replace(counters.metrics());
                let shield = Scope::new().shielded();
                shield.run(sleep(shield_time)).await?;
                refused.map_err(io::Error::from)
            }))
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        let (after, before) = (handle.metrics(), begun.lock().expect("no panic").take());
        let before = before.expect("it was noted");
        if Kernel::here().counts_exactly() {
            for (after, before) in after.iter().zip(&before) {
                // Into the wait, and out of it.
                let parks = after.parks - before.parks;
                assert!(parks <= 2, "{parks} parks");
                assert!(after.turns - before.turns <= 3);
            }
        }
    });
}

/// Whether a type may travel: the method of every type is found where its own is not there.
struct Travels<T>(PhantomData<T>);

trait Stays {
    fn travels(&self) -> bool {
        false
    }
}

impl<T> Stays for &Travels<T> {}

impl<T: Send> Travels<T> {
    const fn travels(&self) -> bool {
        true
    }
}

#[test]
fn c114_what_belongs_to_a_core_does_not_travel() {
    assert!(Travels::<CancelHandle>(PhantomData).travels());
    assert!(Travels::<Handle>(PhantomData).travels());
    assert!(!(&&Travels::<Scope>(PhantomData)).travels());
    assert!(!(&&Travels::<Group<Cancelled>>(PhantomData)).travels());
    assert!(!(&&Travels::<JoinHandle<u32>>(PhantomData)).travels());
    assert!(!(&&Travels::<SharedFd>(PhantomData)).travels());
}

/// A waker that cancels the next scope, and so runs where a cancel is delivered.
struct Passes {
    /// Which wait it is, of those that lie in `told` to be polled.
    place: usize,
    told: Arc<Mutex<Vec<usize>>>,
    next: Option<CancelHandle>,
    /// Polls the task that waits.
    then: Waker,
}

impl Wake for Passes {
    fn wake(self: Arc<Self>) {
        if let Some(next) = self.next {
            let _ = next.cancel();
        }
        let mut told = self.told.lock().expect("nobody panics with it");
        told.push(self.place);
        drop(told);
        self.then.wake_by_ref();
    }
}

/// Opens so many scopes, tells the other side of them, and waits in all. Whoever is told of a cancel
/// cancels one of the other side's: that at `ahead` places further on. Returns how many were told.
async fn pass_on(
    count: usize,
    start: usize,
    ahead: usize,
    own: mpsc::Sender<Vec<CancelHandle>>,
    theirs: mpsc::Receiver<Vec<CancelHandle>>,
) -> usize {
    let scopes: Vec<Scope> = (0..count).map(|_| Scope::new()).collect();
    let handles: Vec<CancelHandle> = scopes.iter().map(Scope::handle).collect();
    own.send(handles.clone()).expect("it listens");
    let others = loop {
        match theirs.try_recv() {
            Ok(others) => break others,
            Err(_) => yield_now().await.expect("nobody cancels"),
        }
    };
    let mut waits = Vec::new();
    // A real core may have been cancelled by the other already: each is polled once.
    let told = Arc::new(Mutex::new((0..count).collect::<Vec<usize>>()));
    let mut ended = 0;
    poll_fn(|cx| {
        if waits.is_empty() {
            for (place, scope) in scopes.iter().enumerate() {
                let passes = Arc::new(Passes {
                    place,
                    told: Arc::clone(&told),
                    next: others.get(place + ahead).copied(),
                    then: cx.waker().clone(),
                });
                waits.push(Some((Box::pin(scope.run(sleep(LONG))), passes)));
            }
            let _ = handles[start].cancel();
        }
        let polled = std::mem::take(&mut *told.lock().expect("nobody panics with it"));
        for place in polled {
            let Some((run, passes)) = &mut waits[place] else {
                continue;
            };
            let waker = Waker::from(Arc::clone(passes));
            if let Poll::Ready(outcome) = run.as_mut().poll(&mut Context::from_waker(&waker)) {
                assert_eq!(outcome, Ok(None));
                // One that was refused at its first poll was told by nobody.
                let passes = Arc::clone(passes);
                waits[place] = None;
                passes.wake();
                ended += 1;
            }
        }
        if ended == count {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    ended
}

/// Each delivery cancels a scope of the other core, whose delivery cancels the next one here; two such
/// chains are on their way at once.
#[test]
fn c115_cancels_that_cancel_each_other_across_cores_all_arrive() {
    conform_on(2, |handle| async move {
        let count = if Kernel::here().is_simulated() {
            100
        } else {
            100_000
        };
        let (tell_there, told_there) = mpsc::channel();
        let (tell_here, told_here) = mpsc::channel();
        let there = Answer::on(&handle, handle.cores()[1], move || {
            pass_on(count, count / 2, 1, tell_here, told_there)
        });
        let here = pass_on(count, 0, 0, tell_there, told_here).await;
        assert_eq!((here, there.get().await), (count, count));
    });
}

#[test]
fn c116_cancel_from_a_thread_wakes_a_parked_core_once() {
    conform(|handle| async move {
        let scope = Scope::new();
        let cancel = scope.handle();
        let before = handle.metrics()[0];
        let other = Outside::run_when_parked(&handle, move || {
            let first = cancel.cancel();
            let rest: Vec<Delivery> = (0..100).map(|_| cancel.cancel()).collect();
            (first, rest)
        });
        assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
        let (first, rest) = other.join().await;
        assert_eq!(first, Delivery::Delivered);
        assert!(rest.iter().all(|&delivery| delivery != Delivery::Delivered));
        let after = handle.metrics()[0];
        assert_eq!(after.remote_cancels - before.remote_cancels, 1);
        assert_eq!(after.aborts - before.aborts, 1);
        if Kernel::here().counts_exactly() {
            assert_eq!(after.wake_calls - before.wake_calls, 1);
            assert_eq!(after.failed_wakes, 0);
        }
    });
}

// On the real ring: a thread cancels while the core computes.
#[test]
fn c116_cancel_from_a_thread_is_seen_by_the_next_check() {
    quietly(|_| async {
        let scope = Scope::new();
        let cancel = scope.handle();
        let outcome = scope
            .run(async {
                let other =
                    thread::spawn(move || cancel.cancel_with(Reason::User(3), Duration::ZERO));
                let cancelled = loop {
                    if let Err(cancelled) = check() {
                        break cancelled;
                    }
                };
                assert_eq!(other.join().expect("no panic"), Delivery::Delivered);
                Err::<(), _>(cancelled)
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::User(3))
        );
    });
}

// On the real ring: threads.
#[test]
fn c116_cancels_from_many_threads_reach_every_scope_once() {
    quietly(|handle| async move {
        const SCOPES: usize = 1_000;
        let (tell, told) = mpsc::channel();
        let tasks: Vec<_> = (0..SCOPES)
            .map(|_| {
                let tell = tell.clone();
                spawn(async move {
                    let scope = Scope::new();
                    tell.send(scope.handle()).expect("the test listens");
                    scope.run(sleep(LONG)).await
                })
            })
            .collect();
        let mut handles = Vec::new();
        while handles.len() < SCOPES {
            handles.extend(told.try_iter());
            yield_now().await.expect("not cancelled");
        }
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let handles = handles.clone();
                thread::spawn(move || {
                    let delivered = handles
                        .iter()
                        .filter(|handle| handle.cancel() == Delivery::Delivered);
                    delivered.count()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.expect("it ended"), Ok(None));
        }
        let delivered: usize = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum();
        assert_eq!(delivered, SCOPES);
        assert_eq!(handle.metrics()[0].remote_cancels, SCOPES as u64);
    });
}

/// New scopes come as fast as they are cancelled, and ten tasks want the core as well: each of them has
/// its poll in every turn.
#[test]
fn c117_flood_of_cancels_leaves_the_other_tasks_their_turns() {
    conform_on(2, |handle| async move {
        let cancels = if Kernel::here().is_simulated() {
            200
        } else {
            20_000
        };
        let stop = Rc::new(Cell::new(false));
        let ticks = Rc::new(Cell::new(0_u64));
        let tickers: Vec<_> = (0..10)
            .map(|_| {
                let (stop, ticks) = (Rc::clone(&stop), Rc::clone(&ticks));
                spawn(async move {
                    while !stop.get() {
                        ticks.set(ticks.get() + 1);
                        yield_now().await.expect("nobody cancels");
                    }
                })
            })
            .collect();
        let (tell, told) = mpsc::channel::<CancelHandle>();
        let flood = Answer::on(&handle, handle.cores()[1], move || async move {
            let mut sent = 0;
            loop {
                match told.try_recv() {
                    Ok(cancel) => {
                        assert_eq!(cancel.cancel(), Delivery::Delivered);
                        sent += 1;
                    }
                    Err(mpsc::TryRecvError::Empty) => yield_now().await.expect("nobody cancels"),
                    Err(mpsc::TryRecvError::Disconnected) => return sent,
                }
            }
        });
        let before = (handle.metrics()[0].turns, ticks.get());
        for _ in 0..cancels {
            let scope = Scope::new();
            tell.send(scope.handle()).expect("it listens");
            assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
        }
        let (turns, ticked) = (handle.metrics()[0].turns - before.0, ticks.get() - before.1);
        drop(tell);
        stop.set(true);
        for ticker in tickers {
            ticker.await.expect("it ended");
        }
        assert_eq!(flood.get().await, cancels);
        // A turn in which a ticker was not there is one that ended early, for its mail.
        assert!(ticked >= 5 * turns, "{ticked} ticks in {turns} turns");
    });
}

/// The cancel waits in its scope's cell for the core's next turn; somebody tries the wake again.
#[test]
fn c172_cancel_whose_wake_failed_is_delivered_all_the_same() {
    for_seeds(0..20, |sim| {
        let outcome = sim.force_at("wake", Fault::WakeFails).run(|| {
            quietly_of(two_cores(), |handle| async move {
                let scope = Scope::new();
                let cancel = scope.handle();
                let (inner, parks) = (handle.clone(), handle.metrics()[0].parks);
                let told = Answer::on(&handle, handle.cores()[1], move || async move {
                    until_parked(&inner, 0, parks).await;
                    point("wake");
                    cancel.cancel()
                });
                let began = Instant::now();
                assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
                assert!(began.elapsed() < LONG, "it slept over the cancel");
                assert_eq!(told.get().await, Delivery::Delivered);
                handle.metrics()[0].failed_wakes
            })
        });
        assert_eq!((outcome.value, outcome.came(Fault::WakeFails)), (1, 1));
    });
}

/// Each wake is tried three times, all in vain; the sender remembers whom it has not woken, and tries again
/// in its next turn.
#[test]
fn c172_cores_whose_wakes_failed_are_all_woken_later() {
    for_seeds(0..20, |sim| {
        let failing = (0..6).fold(sim, |sim, _| sim.force_at("wake", Fault::WakeFails));
        let outcome = failing.run(|| {
            let three = Runtime::builder().cores(Cores::Count(3));
            quietly_of(three, |handle| async move {
                let began = Instant::now();
                let (tell, told) = mpsc::channel();
                let there = handle.clone();
                let sleeper = Answer::on(&handle, handle.cores()[2], move || async move {
                    let scope = Scope::new();
                    let parks = there.metrics()[2].parks;
                    tell.send((scope.handle(), parks)).expect("it listens");
                    scope.run(sleep(LONG)).await
                });
                let scope = Scope::new();
                let cancel = scope.handle();
                let (inner, parks) = (handle.clone(), handle.metrics()[0].parks);
                let canceller = Answer::on(&handle, handle.cores()[1], move || async move {
                    let (other, its_parks) = loop {
                        match told.try_recv() {
                            Ok(found) => break found,
                            Err(_) => yield_now().await.expect("nobody cancels"),
                        }
                    };
                    until_parked(&inner, 0, parks).await;
                    until_parked(&inner, 2, its_parks).await;
                    point("wake");
                    [cancel.cancel(), other.cancel()]
                });
                assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
                assert_eq!(sleeper.get().await, Ok(None));
                assert!(began.elapsed() < LONG, "a cancel was slept over");
                assert_eq!(canceller.get().await, [Delivery::Delivered; 2]);
            });
        });
        assert_eq!(outcome.came(Fault::WakeFails), 6);
    });
}
