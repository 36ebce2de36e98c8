//! Wakes: from this core, from other cores, from threads that know nothing of cores.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use quoit::time::sleep;
use quoit::{Cores, Runtime, spawn, yield_now};
use tests::{Kernel, Outside, in_child, on_both, on_core, on_ring, park_once};

/// A word that one side says and the other waits for.
#[derive(Debug, Default)]
struct Bell {
    rung: AtomicU64,
    polls: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Rings, and wakes who waits.
    fn ring(&self) {
        self.rung.fetch_add(1, Ordering::Release);
        self.wake();
    }

    /// Wakes who waits, without a reason.
    fn wake(&self) {
        let waker = self.waker.lock().expect("no panic").clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until it was rung more than `heard` times; returns how often.
    async fn rung_after(&self, heard: u64) -> u64 {
        poll_fn(|cx| {
            self.polls.fetch_add(1, Ordering::Relaxed);
            *self.waker.lock().expect("no panic") = Some(cx.waker().clone());
            match self.rung.load(Ordering::Acquire) {
                rung if rung > heard => Poll::Ready(rung),
                _ => Poll::Pending,
            }
        })
        .await
    }

    fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    fn waker(&self) -> Waker {
        let waker = self.waker.lock().expect("no panic").clone();
        waker.expect("somebody has waited")
    }
}

#[test]
fn a_wake_of_a_busy_core_makes_no_system_call() {
    on_core(|handle| async move {
        let bell = Bell::new();
        let inner = Arc::clone(&bell);
        let task = spawn(async move { inner.rung_after(0).await });
        while bell.polls() == 0 {
            yield_now().await.expect("not cancelled");
        }
        let before = handle.metrics()[0];
        // While the core runs this task, somebody else wakes the other, many times.
        let other = Arc::clone(&bell);
        let waking = Outside::run(move || {
            for _ in 0..1_000 {
                other.ring();
            }
        });
        waking.join().await;
        assert_eq!(task.await.expect("it ended"), 1_000);
        let after = handle.metrics()[0];
        assert_eq!(after.wake_calls, before.wake_calls);
        // A thousand wakes before the core looks are one.
        assert_eq!(after.remote_wakes - before.remote_wakes, 1);
        assert_eq!(bell.polls(), 2);
    });
}

#[test]
fn a_wake_of_a_parked_core_makes_one_system_call() {
    const ROUNDS: u64 = 500;
    on_core(|handle| async move {
        let bell = Bell::new();
        let before = handle.metrics()[0];
        for round in 0..ROUNDS {
            let inner = Arc::clone(&bell);
            let waking = Outside::run_when_parked(&handle, move || inner.ring());
            bell.rung_after(round).await;
            waking.join().await;
        }
        let after = handle.metrics()[0];
        let (calls, wakes) = (
            after.wake_calls - before.wake_calls,
            after.remote_wakes - before.remote_wakes,
        );
        assert_eq!(wakes, ROUNDS);
        // A kernel that ends a park for no reason may save some; one where the call fails needs more.
        assert!(calls - after.failed_wakes <= ROUNDS);
        if Kernel::here().counts_exactly() {
            assert_eq!((calls, after.failed_wakes), (ROUNDS, 0));
        }
    });
}

#[test]
fn a_wake_from_the_same_core_makes_no_system_call() {
    on_core(|handle| async move {
        let bell = Bell::new();
        let inner = Arc::clone(&bell);
        let task = spawn(async move {
            let mut heard = 0;
            while heard < 1_000 {
                heard = inner.rung_after(heard).await;
            }
        });
        let before = handle.metrics()[0];
        for _ in 0..1_000 {
            bell.ring();
            yield_now().await.expect("not cancelled");
        }
        task.await.expect("it ended");
        let after = handle.metrics()[0];
        assert_eq!(after.wake_calls, before.wake_calls);
        assert_eq!(after.remote_wakes, before.remote_wakes);
    });
}

#[test]
fn a_task_that_wakes_itself_is_polled_again_and_others_run_in_between() {
    on_core(|_| async {
        struct Spin(u32);
        impl Future for Spin {
            type Output = ();
            fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
                self.0 -= 1;
                if self.0 == 0 {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
        let spinning = spawn(Spin(100_000));
        for _ in 0..10 {
            yield_now().await.expect("not cancelled");
        }
        assert!(!spinning.is_finished(), "others ran in between");
        spinning.await.expect("it ended");
    });
}

/// A turn is 256 polls: whoever yields where nobody else waits is polled again in the same turn, and whoever
/// comes meanwhile is not held up by that.
#[test]
fn tasks_that_yield_to_nobody_share_turns() {
    const YIELDS: u64 = 25_600;
    on_ring(|handle| async move {
        let yields = |count| async move {
            for _ in 0..count {
                yield_now().await.expect("not cancelled");
            }
        };
        let before = handle.metrics()[0];
        yields(YIELDS).await;
        let alone = handle.metrics()[0];
        // What this turn has polled is counted at its end.
        let polls = alone.polls - before.polls;
        assert!(polls.abs_diff(YIELDS) <= 256, "{polls}");
        // A turn that has taken long, on a busy machine, ends before its 256th poll.
        let turns = alone.turns - before.turns;
        assert!((YIELDS / 256 - 1..YIELDS / 16).contains(&turns), "{turns}");

        let others: Vec<_> = (0..10).map(|_| spawn(yields(YIELDS / 10))).collect();
        for other in others {
            other.await.expect("it ended");
        }
        let together = handle.metrics()[0].turns - alone.turns;
        assert!(
            (YIELDS / 256 - 1..YIELDS / 16).contains(&together),
            "{together}"
        );
    });
}

/// What another thread wants is seen between the yields of a task that never stops.
#[test]
fn a_task_that_yields_all_the_time_holds_up_no_wake_from_outside() {
    on_ring(|_| async move {
        let bell = Bell::new();
        let inner = Arc::clone(&bell);
        let waiting = spawn(async move { inner.rung_after(0).await });
        while bell.polls() == 0 {
            yield_now().await.expect("not cancelled");
        }
        let ringer = thread::spawn(move || bell.ring());
        while !waiting.is_finished() {
            yield_now().await.expect("not cancelled");
        }
        waiting.await.expect("it ended");
        ringer.join().expect("no panic");
    });
}

#[test]
fn a_waker_that_outlived_its_task_does_nothing() {
    on_core(|handle| async move {
        let bell = Bell::new();
        let inner = Arc::clone(&bell);
        let task = spawn(async move { inner.rung_after(0).await });
        while bell.polls() == 0 {
            yield_now().await.expect("not cancelled");
        }
        let stale = bell.waker();
        bell.ring();
        task.await.expect("it ended");
        // The next task lies in the same place.
        let next = Bell::new();
        let inner = Arc::clone(&next);
        let task = spawn(async move { inner.rung_after(0).await });
        while next.polls() == 0 {
            yield_now().await.expect("not cancelled");
        }
        let before = handle.metrics()[0];
        let from_afar = stale.clone();
        let waking = Outside::run(move || from_afar.wake());
        waking.join().await;
        stale.wake_by_ref();
        stale.wake();
        park_once(&handle).await;
        assert_eq!(next.polls(), 1);
        let after = handle.metrics()[0];
        assert_eq!(after.remote_wakes, before.remote_wakes);
        assert_eq!(after.wake_calls, before.wake_calls);
        next.ring();
        task.await.expect("it ended");
    });
}

#[test]
fn a_waker_that_outlived_its_runtime_does_nothing_in_the_next() {
    in_child(
        "wakes::a_waker_that_outlived_its_runtime_does_nothing_in_the_next",
        || {
            on_both(|| {
                // In a process of its own the next runtime gets the places of the last.
                for _ in 0..3 {
                    let bell = Bell::new();
                    let inner = Arc::clone(&bell);
                    on_ring(move |handle| async move {
                        drop(spawn(async move { inner.rung_after(0).await }));
                        park_once(&handle).await;
                    });
                    assert_eq!(bell.polls(), 2, "the second when the runtime stopped");
                    let stale = bell.waker();
                    stale.wake_by_ref();
                    on_ring(move |handle| async move {
                        let next = Bell::new();
                        let inner = Arc::clone(&next);
                        let task = spawn(async move { inner.rung_after(0).await });
                        park_once(&handle).await;
                        stale.wake_by_ref();
                        let waking = Outside::run(move || stale.wake());
                        waking.join().await;
                        park_once(&handle).await;
                        assert_eq!(next.polls(), 1);
                        assert_eq!(handle.metrics()[0].remote_wakes, 0);
                        next.ring();
                        task.await.expect("it ended");
                    });
                }
            })
        },
    );
}

#[test]
fn two_cores_wake_each_other() {
    on_both(|| {
        const ROUNDS: u64 = 5_000;
        let one = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let two = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("b");
        let (ping, pong) = (Bell::new(), Bell::new());
        let (asks, answers) = (Arc::clone(&ping), Arc::clone(&pong));
        let first = one
            .handle()
            .spawn(one.handle().cores()[0], move || async move {
                for round in 0..ROUNDS {
                    asks.ring();
                    answers.rung_after(round).await;
                }
            });
        let second = two
            .handle()
            .spawn(two.handle().cores()[0], move || async move {
                for round in 0..ROUNDS {
                    ping.rung_after(round).await;
                    pong.ring();
                }
            });
        first.expect("room").wait().expect("it ended");
        second.expect("room").wait().expect("it ended");
    });
}

#[test]
fn a_wake_reaches_a_task_among_ten_thousand() {
    on_core(|handle| async move {
        let tasks: u64 = match Kernel::here() {
            Kernel::Real => 10_000,
            Kernel::Simulated | Kernel::Unruly => 1_000,
        };
        let bells: Vec<_> = (0..tasks).map(|_| Bell::new()).collect();
        let waiting: Vec<_> = bells
            .iter()
            .map(|bell| {
                let bell = Arc::clone(bell);
                spawn(async move { bell.rung_after(0).await })
            })
            .collect();
        park_once(&handle).await;
        let some: Vec<_> = bells.iter().step_by(100).cloned().collect();
        let waking = Outside::run(move || some.iter().for_each(|bell| bell.ring()));
        waking.join().await;
        for (place, task) in waiting.into_iter().enumerate() {
            if place % 100 == 0 {
                task.await.expect("it ended");
            }
        }
        let polled = bells.iter().map(|bell| bell.polls()).sum::<u64>();
        assert_eq!(polled, tasks + tasks / 100);
        // The others still wait, and are dropped with the runtime.
    });
}

#[test]
fn timers_fire_in_order_and_never_early() {
    on_core(|handle| async move {
        let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let begin = quoit::time::Instant::now();
        let tasks: Vec<_> = [9_u64, 3, 7, 1, 5]
            .into_iter()
            .map(|millis| {
                let order = std::rc::Rc::clone(&order);
                spawn(async move {
                    let duration = Duration::from_millis(millis);
                    sleep(duration).await.expect("not cancelled");
                    assert!(begin.elapsed() >= duration);
                    order.borrow_mut().push(millis);
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("it ended");
        }
        if Kernel::here().counts_exactly() {
            // Those that are due at once, as when a core is late, wake tasks in any order.
            assert_eq!(*order.borrow(), [1, 3, 5, 7, 9]);
        }
        assert_eq!(handle.metrics()[0].timers_fired, 5);
    });
}

// --- on the real ring: threads that race, and that wait ---

#[test]
fn of_a_hundred_thousand_wakes_none_is_lost() {
    const THREADS: u64 = 4;
    const EACH: u64 = 25_000;
    on_ring(|_| async {
        let bell = Bell::new();
        let waking: Vec<_> = (0..THREADS)
            .map(|_| {
                let bell = Arc::clone(&bell);
                thread::spawn(move || {
                    for _ in 0..EACH {
                        bell.ring();
                    }
                })
            })
            .collect();
        // A lost wake is one after which this waits for ever.
        let mut heard = 0;
        while heard < THREADS * EACH {
            heard = bell.rung_after(heard).await;
        }
        for thread in waking {
            thread.join().expect("no panic");
        }
        assert_eq!(heard, THREADS * EACH);
    });
}

#[test]
fn each_wake_of_a_long_exchange_with_a_thread_arrives() {
    const ROUNDS: u64 = 20_000;

    /// Wakes a thread.
    struct Unpark(thread::Thread, AtomicBool);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.1.store(true, Ordering::Release);
            self.0.unpark();
        }
    }

    on_ring(|_| async {
        let (ping, pong) = (Bell::new(), Bell::new());
        let (asks, answers) = (Arc::clone(&ping), Arc::clone(&pong));
        let other = thread::spawn(move || {
            for round in 0..ROUNDS {
                asks.ring();
                let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
                let waker = Waker::from(Arc::clone(&unpark));
                let mut cx = Context::from_waker(&waker);
                let mut answer = std::pin::pin!(answers.rung_after(round));
                while answer.as_mut().poll(&mut cx).is_pending() {
                    while !unpark.1.swap(false, Ordering::Acquire) {
                        thread::park();
                    }
                }
            }
        });
        for round in 0..ROUNDS {
            assert_eq!(ping.rung_after(round).await, round + 1);
            pong.ring();
        }
        other.join().expect("no panic");
    });
}
