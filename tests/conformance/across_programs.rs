//! Random programs on several cores: senders, receivers and lockers, some of them cancelled and some
//! waits dropped at random points. Nothing is lost, nothing is had twice, and nobody is left waiting.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::task::Poll;
use std::time::Duration;

use quoit::sim::{Faults, for_seeds};
use quoit::sync::shared::channel::{self, Receiver, SendError, Sender, TrySendError};
use quoit::sync::shared::{Mutex, Semaphore};
use quoit::time::sleep;
use quoit::{CancelHandle, CoreId, Cores, Handle, RemoteHandle, Runtime, Scope, random, yield_now};
use tests::{Counted, Drops};

/// How many seeds each program is run under.
const SEEDS: u64 = 300;

/// Runs a program under seeds on three simulated cores, half of them with faults that nobody has to
/// notice; and a few times on two cores of the ring.
fn on_cores(program: impl Fn(&Crowd)) {
    let run = |cores| {
        let runtime = Runtime::builder().cores(Cores::Count(cores)).build();
        let runtime = runtime.expect("tests need io_uring");
        program(&Crowd::on(&runtime));
        runtime.shutdown(Duration::from_secs(1));
    };
    for _ in 0..20 {
        run(2);
    }
    for_seeds(0..SEEDS, |sim| {
        let faults = if sim.seed().is_multiple_of(2) {
            Faults::none()
        } else {
            Faults::benign()
        };
        let outcome = sim.cores(3).faults(faults).run(|| run(3));
        assert_eq!(outcome.counts.left_behind, 0, "waits or scopes are left");
    });
}

fn below(end: u64) -> u64 {
    random().expect("there is randomness") % end
}

/// Lets others run, or time pass.
async fn pause() -> io::Result<()> {
    match below(4) {
        0 => Ok(()),
        1 => Ok(yield_now().await?),
        _ => Ok(sleep(Duration::from_nanos(1 + below(50))).await?),
    }
}

/// Polls a call to its end; or drops it when it was polled so often: `None`.
async fn perhaps_dropped<F: Future>(call: F) -> Option<F::Output> {
    let mut left = if below(4) == 0 { below(3) } else { u64::MAX };
    let mut call = pin!(call);
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = call.as_mut().poll(cx).map(Some);
        if polled.is_pending() && left < 3 {
            // Nobody else would.
            cx.waker().wake_by_ref();
        }
        polled
    })
    .await
}

/// The tasks of a program, on random cores, and what cancels them.
struct Crowd {
    handle: Handle,
    cores: Vec<CoreId>,
    tasks: StdMutex<Vec<(CancelHandle, RemoteHandle<bool>)>>,
}

impl Crowd {
    fn on(runtime: &Runtime) -> Self {
        let handle = runtime.handle();
        Self {
            cores: handle.cores(),
            handle,
            tasks: StdMutex::default(),
        }
    }

    /// Adds a task whose body runs in a scope that may be cancelled.
    fn add<M>(&self, body: impl FnOnce() -> M + Send + 'static)
    where
        M: Future<Output = io::Result<()>> + 'static,
    {
        let task = self.start(body);
        self.tasks.lock().expect("no panic").push(task);
    }

    /// Adds a task that is not cancelled.
    fn add_patient<M>(&self, body: impl FnOnce() -> M + Send + 'static) -> RemoteHandle<bool>
    where
        M: Future<Output = io::Result<()>> + 'static,
    {
        self.start(body).1
    }

    fn start<M>(
        &self,
        body: impl FnOnce() -> M + Send + 'static,
    ) -> (CancelHandle, RemoteHandle<bool>)
    where
        M: Future<Output = io::Result<()>> + 'static,
    {
        let core = self.cores[below(self.cores.len() as u64) as usize];
        let (tell, told) = RemoteHandle::channel();
        let task = self.handle.spawn(core, move || async move {
            let scope = Scope::new();
            tell.send(scope.handle());
            let outcome = scope.run(body()).await;
            outcome.expect("no error but a cancel").is_some()
        });
        (told.wait().expect("it begins"), task.expect("room"))
    }

    /// Cancels some of them, now and then, from one of the cores, and waits for all; returns how many
    /// were not cancelled.
    fn end(&self) -> usize {
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no panic"));
        let scopes: Vec<_> = tasks.iter().map(|(scope, _)| *scope).collect();
        let core = self.cores[below(self.cores.len() as u64) as usize];
        let canceller = self.handle.spawn(core, move || async move {
            for scope in scopes {
                if below(3) == 0 {
                    pause().await.expect("nobody cancels this");
                    scope.cancel();
                }
            }
        });
        let whole = tasks
            .into_iter()
            .map(|(_, task)| usize::from(task.wait().expect("no panic")))
            .sum();
        canceller.expect("room").wait().expect("no panic");
        whole
    }
}

/// What became of items.
#[derive(Default)]
struct Fates {
    made: AtomicU64,
    sent: StdMutex<BTreeSet<u64>>,
    received: StdMutex<Vec<u64>>,
}

type Item = (u64, Counted);

impl Fates {
    /// Sends an item in one of the ways there are, and notes how that went.
    async fn send(&self, sender: &Sender<Item>, value: Counted) -> io::Result<()> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        if below(5) == 0 {
            match sender.try_send((number, value)) {
                Ok(()) => self.was_sent(number),
                Err(TrySendError::Full(back) | TrySendError::Closed(back)) => {
                    assert_eq!(back.0, number);
                }
            }
            return Ok(());
        }
        // Known before it is sent: it may be received first.
        match perhaps_dropped(sender.send((number, value))).await {
            Some(Ok(())) => self.was_sent(number),
            Some(Err(SendError::Closed(back))) => assert_eq!(back.0, number),
            Some(Err(SendError::Cancelled(back, cause))) => {
                assert_eq!(back.0, number);
                return Err(cause.into());
            }
            // It was sent or not, and dropped with its future in that case.
            None => {}
        }
        Ok(())
    }

    fn was_sent(&self, number: u64) {
        self.sent.lock().expect("no panic").insert(number);
    }

    /// Receives until the end.
    async fn receive(&self, receiver: &Receiver<Item>) -> io::Result<()> {
        loop {
            let received = if below(5) == 0 {
                receiver.try_recv().ok().map(Some)
            } else {
                perhaps_dropped(receiver.recv()).await.transpose()?
            };
            match received {
                Some(Some((number, _))) => {
                    self.received.lock().expect("no panic").push(number);
                }
                Some(None) => return Ok(()),
                None => {}
            }
            pause().await?;
        }
    }

    /// Each item was received once at most; if all were received, each that was sent.
    fn check(&self, all_received: bool) -> usize {
        let sent = self.sent.lock().expect("no panic");
        let received = self.received.lock().expect("no panic");
        let distinct: BTreeSet<u64> = received.iter().copied().collect();
        assert_eq!(distinct.len(), received.len(), "an item was received twice");
        if all_received {
            let lost: Vec<_> = sent.difference(&distinct).collect();
            assert!(lost.is_empty(), "items were lost: {lost:?}");
        }
        received.len()
    }
}

#[test]
fn every_item_is_received_once_or_given_back() {
    let total = AtomicUsize::new(0);
    on_cores(|crowd| {
        let drops = Drops::new();
        let fates = Arc::new(Fates::default());
        let (sender, receiver) = channel::bounded(below(4) as usize);
        for _ in 0..9 {
            let (sender, fates, drops) = (sender.clone(), Arc::clone(&fates), drops.clone());
            crowd.add(move || async move {
                for _ in 0..5 {
                    fates.send(&sender, drops.value()).await?;
                    pause().await?;
                }
                Ok(())
            });
        }
        for _ in 0..5 {
            let (receiver, fates) = (receiver.clone(), Arc::clone(&fates));
            crowd.add(move || async move { fates.receive(&receiver).await });
        }
        // Now and then the receivers may all be gone before the senders.
        let patient = (below(3) > 0).then(|| {
            let (receiver, fates) = (receiver.clone(), Arc::clone(&fates));
            crowd.add_patient(move || async move { fates.receive(&receiver).await })
        });
        let all_received = patient.is_some();
        drop((sender, receiver));
        crowd.end();
        if let Some(patient) = patient {
            assert!(patient.wait().expect("no panic"));
        }
        total.fetch_add(fates.check(all_received), Ordering::Relaxed);
        assert_eq!(drops.alive(), 0, "each item was dropped, and once");
    });
    let total = total.into_inner();
    assert!(total > 1_000, "too few were received: {total}");
}

/// Somebody has the lock, until this is dropped.
struct Inside<'a>(&'a AtomicUsize);

impl<'a> Inside<'a> {
    fn enter(inside: &'a AtomicUsize, most: usize) -> Self {
        assert!(inside.fetch_add(1, Ordering::Relaxed) < most, "too many");
        Self(inside)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn a_lock_is_had_by_one_at_a_time_and_by_everybody_who_waits() {
    let whole = AtomicUsize::new(0);
    on_cores(|crowd| {
        let mutex = Arc::new(Mutex::new(0_u64));
        let (inside, entered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        for _ in 0..12 {
            let mutex = Arc::clone(&mutex);
            let (inside, entered) = (Arc::clone(&inside), Arc::clone(&entered));
            crowd.add(move || async move {
                for _ in 0..4 {
                    let guard = if below(5) == 0 {
                        mutex.try_lock().ok()
                    } else {
                        perhaps_dropped(mutex.lock()).await.transpose()?
                    };
                    if let Some(mut guard) = guard {
                        let _inside = Inside::enter(&inside, 1);
                        entered.fetch_add(1, Ordering::Relaxed);
                        let before = *guard;
                        // A cancel in here releases it as well.
                        let paused = pause().await;
                        assert_eq!(*guard, before);
                        *guard += 1;
                        paused?;
                    }
                    pause().await?;
                }
                Ok(())
            });
        }
        // This thread wants it too.
        let mut guard = mutex.lock_blocking();
        let outside = Inside::enter(&inside, 1);
        entered.fetch_add(1, Ordering::Relaxed);
        *guard += 1;
        drop(outside);
        drop(guard);
        whole.fetch_add(crowd.end(), Ordering::Relaxed);
        assert!(!mutex.is_locked() && mutex.waiting() == 0);
        let entered = entered.load(Ordering::Relaxed);
        assert_eq!(*mutex.lock_blocking(), entered);
    });
    assert!(whole.into_inner() > 100, "somebody has to get through");
}

#[test]
fn c136_permits_are_all_free_at_the_end_and_never_more_held_than_there_are() {
    on_cores(|crowd| {
        let total = 1 + below(4) as usize;
        let permits = Arc::new(Semaphore::new(total));
        let inside = Arc::new(AtomicUsize::new(0));
        for _ in 0..12 {
            let (permits, inside) = (Arc::clone(&permits), Arc::clone(&inside));
            crowd.add(move || async move {
                for _ in 0..4 {
                    let permit = if below(5) == 0 {
                        permits.try_acquire().ok()
                    } else {
                        perhaps_dropped(permits.acquire()).await.transpose()?
                    };
                    if permit.is_some() {
                        let _inside = Inside::enter(&inside, total);
                        pause().await?;
                    }
                }
                Ok(())
            });
        }
        crowd.end();
        assert_eq!((permits.available(), permits.waiting()), (total, 0));
    });
}

/// The same with 1 000 tasks, as the scenario says, under a few seeds.
#[test]
fn c136_a_thousand_tasks_of_three_cores_share_a_few_permits() {
    for_seeds(0..3, |sim| {
        sim.cores(3).run(|| {
            let runtime = Runtime::builder().cores(Cores::Count(3)).build();
            let runtime = runtime.expect("cores");
            let crowd = Crowd::on(&runtime);
            let permits = Arc::new(Semaphore::new(7));
            let inside = Arc::new(AtomicUsize::new(0));
            for _ in 0..1_000 {
                let (permits, inside) = (Arc::clone(&permits), Arc::clone(&inside));
                crowd.add(move || async move {
                    let permit = permits.acquire_owned().await?;
                    let _inside = Inside::enter(&inside, 7);
                    pause().await?;
                    drop(permit);
                    Ok(())
                });
            }
            assert!(crowd.end() > 100);
            assert_eq!((permits.available(), permits.waiting()), (7, 0));
            runtime.shutdown(Duration::ZERO);
        });
    });
}
