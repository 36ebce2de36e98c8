//! Jobs on threads of their own.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use quoit::blocking::{JobContext, JobError, Usage, run, run_abandonable};
use quoit::sim::{self, Fault, Sim};
use quoit::time::sleep;
use quoit::{
    Builder, CancelHandle, Cancelled, CarriesCancelled, Handle, JoinHandle, Reason, RemoteError,
    Runtime, Scope, block_on, check, spawn, yield_now,
};
use tests::{Counted, Drops, Kernel, conform, on_core_of, on_ring, on_ring_of, poll_once};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// What a job waits for.
#[derive(Debug, Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Blocks the thread of a job. In a simulation that can be done by way of a core alone.
    fn block(&self, job: &JobContext) {
        if !sim::is_running() {
            while !self.is_open() {
                std::thread::yield_now();
            }
            return;
        }
        let gate = self.clone();
        let passed = job.run_on_core(|| {
            let looks = async move { until(|| gate.is_open()).await };
            async { Scope::new().shielded().run(looks).await }
        });
        assert!(matches!(passed, Ok(Ok(Some(())))), "{passed:?}");
    }
}

/// Lets time pass until something is so.
async fn until(mut reached: impl FnMut() -> bool) -> Result<(), Cancelled> {
    while !reached() {
        sleep(Duration::from_micros(50)).await?;
    }
    Ok(())
}

/// As [`until`], where nobody cancels.
async fn wait_until(reached: impl FnMut() -> bool) {
    until(reached).await.expect("nobody cancels a test");
}

/// Lets tasks and completions come before the caller, some times.
async fn some_turns() {
    for _ in 0..20 {
        quoit::op::nop().await.expect("nobody cancels a test");
    }
}

/// Both kinds of jobs, by the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    WaitedFor,
    Abandonable,
}

impl Kind {
    const BOTH: [Self; 2] = [Self::WaitedFor, Self::Abandonable];

    async fn run<T: Send + 'static>(
        self,
        job: impl FnOnce(&JobContext) -> T + Send + 'static,
    ) -> Result<T, JobError> {
        match self {
            Self::WaitedFor => run(job).await,
            Self::Abandonable => run_abandonable(job).await,
        }
    }
}

/// A task that waits for a job in a scope of its own.
struct Host<T: 'static> {
    cancel: CancelHandle,
    polls: Rc<Cell<u32>>,
    task: JoinHandle<(Result<T, JobError>, Result<(), Cancelled>)>,
}

impl<T: Send + 'static> Host<T> {
    /// Waits for `job`; whatever comes of it, asks whether the scope is cancelled then.
    fn of(job: impl Future<Output = Result<T, JobError>> + 'static) -> Self {
        let scope = Scope::new();
        let cancel = scope.handle();
        let polls = Rc::new(Cell::new(0));
        let watched = Watched(Box::pin(job), Rc::clone(&polls));
        let task = spawn(async move {
            let mut told = None;
            scope
                .run(async {
                    let outcome = watched.await;
                    told = Some((outcome, check()));
                    Ok::<_, Cancelled>(())
                })
                .await
                .expect("nothing else is cancelled");
            told.expect("the body ran to its end")
        });
        Self {
            cancel,
            polls,
            task,
        }
    }

    async fn outcome(self) -> (Result<T, JobError>, Result<(), Cancelled>) {
        self.task.await.expect("no panic")
    }
}

/// A future that counts its polls.
struct Watched<F>(Pin<Box<F>>, Rc<Cell<u32>>);

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.1.set(self.1.get() + 1);
        self.0.as_mut().poll(cx)
    }
}

fn cause<T, E: CarriesCancelled>(outcome: &Result<T, E>) -> Option<Reason> {
    outcome.as_ref().err()?.cancelled().map(Cancelled::reason)
}

fn usage() -> Usage {
    Handle::current().expect("on a core").blocking_usage()
}

fn threads(most: usize) -> Builder {
    Runtime::builder().blocking_threads(most)
}

#[test]
fn c126_running_job_is_waited_for_and_its_result_returned() {
    conform(|handle| async move {
        let (began, gate) = (Gate::default(), Gate::default());
        let (tell, go) = (began.clone(), gate.clone());
        let host = Host::of(run(move |job| {
            let before = job.check_cancelled();
            tell.open();
            go.block(job);
            (before, job.check_cancelled(), job.is_cancelled())
        }));
        wait_until(|| began.is_open()).await;
        let aborts = handle.metrics()[0].aborts;
        host.cancel.cancel_with(Reason::User(7), Duration::ZERO);
        some_turns().await;
        assert_eq!(host.polls.get(), 1, "a cancel wakes nobody");
        assert!(!host.task.is_finished());
        assert_eq!(handle.metrics()[0].aborts - aborts, 1, "it was told once");
        gate.open();
        let polls = Rc::clone(&host.polls);
        let (outcome, next) = host.outcome().await;
        assert_eq!(polls.get(), 2);
        let (before, after, cancelled) = outcome.expect("a result is never lost");
        assert_eq!(before, Ok(()));
        assert_eq!(cause(&after), Some(Reason::User(7)));
        assert!(cancelled);
        assert_eq!(cause(&next), Some(Reason::User(7)));
    });
}

#[test]
fn c126_wait_that_is_told_is_left_alone_also_beside_another_op() {
    conform(|handle| async move {
        let (began, gate) = (Gate::default(), Gate::default());
        let (tell, go) = (began.clone(), gate.clone());
        let host = Host::of(async move {
            let mut job = pin!(run(move |job| {
                tell.open();
                go.block(job);
                7
            }));
            let mut pause = Some(Box::pin(sleep(LONG)));
            poll_fn(|cx| {
                if let Some(waits) = &mut pause
                    && let Poll::Ready(slept) = waits.as_mut().poll(cx)
                {
                    assert!(slept.is_err(), "it is cancelled");
                    pause = None;
                }
                job.as_mut().poll(cx)
            })
            .await
        });
        wait_until(|| began.is_open()).await;
        let before = handle.metrics()[0].foreign_wakes;
        host.cancel.cancel();
        // The pause is aborted, and with it the task polled that waits for the job.
        wait_until(|| host.polls.get() == 2).await;
        // Long enough for every wake that a wait in something foreign would get.
        sleep(Duration::from_millis(300))
            .await
            .expect("nobody cancels a test");
        assert_eq!(host.polls.get(), 2);
        assert_eq!(handle.metrics()[0].foreign_wakes, before);
        gate.open();
        assert_eq!(host.outcome().await.0.expect("a result"), 7);
    });
}

#[test]
fn c126_result_that_was_there_before_the_cancel_is_returned() {
    // The job ends while its core is held: on the ring alone.
    for kind in Kind::BOTH {
        on_ring(move |_| async move {
            let (began, gate) = (Gate::default(), Gate::default());
            let (tell, go) = (began.clone(), gate.clone());
            let host = Host::of(kind.run(move |job| {
                tell.open();
                go.block(job);
                7
            }));
            wait_until(|| began.is_open()).await;
            gate.open();
            while usage().busy > 0 {
                std::thread::yield_now();
            }
            host.cancel.cancel();
            let polls = Rc::clone(&host.polls);
            let (outcome, next) = host.outcome().await;
            assert_eq!(outcome.expect("a result is never lost"), 7, "{kind:?}");
            assert_eq!(cause(&next), Some(Reason::Requested));
            assert_eq!(polls.get(), 2, "it was woken once");
        });
    }
}

#[test]
fn c126_job_that_ends_after_the_cancel_and_before_the_poll_is_given_up_or_not() {
    // The job ends while its core is held: on the ring alone.
    for kind in Kind::BOTH {
        on_ring(move |_| async move {
            let (began, gate, drops) = (Gate::default(), Gate::default(), Drops::new());
            let (tell, go, result) = (began.clone(), gate.clone(), drops.value());
            let host = Host::of(kind.run(move |job| {
                tell.open();
                go.block(job);
                result
            }));
            wait_until(|| began.is_open()).await;
            host.cancel.cancel();
            // The cancel is seen and carried out here, and the host has not been polled.
            check().expect("nobody cancels a test");
            gate.open();
            while usage().busy > 0 {
                std::thread::yield_now();
            }
            assert_eq!(host.polls.get(), 1);
            let polls = Rc::clone(&host.polls);
            let (outcome, next) = host.outcome().await;
            assert_eq!(cause(&next), Some(Reason::Requested));
            assert_eq!(polls.get(), 2, "it was woken once");
            match kind {
                Kind::WaitedFor => assert!(outcome.is_ok(), "a result is never lost"),
                Kind::Abandonable => assert_eq!(cause(&outcome), Some(Reason::Requested)),
            }
            drop(outcome);
            assert_eq!((drops.dropped(), drops.alive()), (1, 0));
        });
    }
}

#[test]
fn c126_job_that_is_done_before_any_cancel_is_as_any_op() {
    conform(|_| async {
        for kind in Kind::BOTH {
            let host = Host::of(kind.run(|job| {
                job.check_cancelled().expect("nobody cancels");
                7
            }));
            let polls = Rc::clone(&host.polls);
            let (outcome, next) = host.outcome().await;
            assert_eq!(outcome.expect("a result"), 7);
            assert_eq!(next, Ok(()));
            assert!(polls.get() <= 2);
        }
    });
}

#[test]
fn c126_shielded_wait_tells_its_job_nothing() {
    conform(|_| async {
        let (began, gate) = (Gate::default(), Gate::default());
        let (tell, go) = (began.clone(), gate.clone());
        let shielded = async move {
            let wait = run_abandonable(move |job| {
                tell.open();
                go.block(job);
                job.is_cancelled()
            });
            let outcome = Scope::new().shielded().run(wait).await;
            outcome.map(|told| told.expect("nothing inside is cancelled"))
        };
        let host = Host::of(shielded);
        wait_until(|| began.is_open()).await;
        host.cancel.cancel();
        some_turns().await;
        gate.open();
        let (outcome, next) = host.outcome().await;
        assert!(!outcome.expect("a result"));
        assert_eq!(cause(&next), Some(Reason::Requested));
    });
}

/// A result that notes where it is dropped.
struct Noted {
    _counted: Counted,
    by_a_worker: Arc<AtomicBool>,
}

impl Drop for Noted {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        let by_a_worker = name.starts_with("quoit-blocking-");
        self.by_a_worker.store(by_a_worker, Ordering::Release);
    }
}

#[test]
fn c127_abandoned_job_runs_on_and_keeps_its_thread() {
    on_core_of(threads(1), |_| async {
        let (began, gate, drops) = (Gate::default(), Gate::default(), Drops::new());
        let told = Arc::new(AtomicU64::new(0));
        let by_a_worker = Arc::new(AtomicBool::new(false));
        let host = {
            let (tell, go, drops) = (began.clone(), gate.clone(), drops.clone());
            let (told, by_a_worker) = (Arc::clone(&told), Arc::clone(&by_a_worker));
            Host::of(run_abandonable(move |job| {
                let result = Noted {
                    _counted: drops.value(),
                    by_a_worker,
                };
                tell.open();
                go.block(job);
                if cause(&job.check_cancelled()) == Some(Reason::User(7)) {
                    told.store(7, Ordering::Release);
                }
                result
            }))
        };
        wait_until(|| began.is_open()).await;
        host.cancel.cancel_with(Reason::User(7), Duration::ZERO);
        let polls = Rc::clone(&host.polls);
        let (outcome, next) = host.outcome().await;
        assert_eq!(cause(&outcome), Some(Reason::User(7)));
        assert_eq!(cause(&next), Some(Reason::User(7)));
        assert_eq!(polls.get(), 2, "it was woken once");
        // The thread is not free: who comes next stands in line.
        let next = spawn(run(|_| 8));
        some_turns().await;
        let (busy, queued) = (usage().busy, usage().queued);
        assert_eq!((busy, queued), (1, 1));
        assert_eq!(drops.dropped(), 0);
        gate.open();
        assert_eq!(next.await.expect("no panic").expect("a thread"), 8);
        assert_eq!((drops.dropped(), drops.alive()), (1, 0));
        assert_eq!(told.load(Ordering::Acquire), 7);
        if !Kernel::here().is_simulated() {
            assert!(by_a_worker.load(Ordering::Acquire), "dropped elsewhere");
        }
    });
}

#[test]
fn c127_dropped_wait_abandons_the_job() {
    conform(|_| async {
        let (began, gate, drops) = (Gate::default(), Gate::default(), Drops::new());
        let scope = Scope::new();
        {
            let (tell, go, result) = (began.clone(), gate.clone(), drops.value());
            let outcome = scope
                .run(async {
                    let mut wait = Box::pin(run_abandonable(move |job| {
                        tell.open();
                        go.block(job);
                        assert_eq!(cause(&job.check_cancelled()), Some(Reason::Dropped));
                        result
                    }));
                    assert!(poll_once(wait.as_mut()).await.is_pending());
                    wait_until(|| began.is_open()).await;
                    drop(wait);
                    Ok::<_, Cancelled>(())
                })
                .await;
            // The scope has ended, and the job has not.
            assert_eq!(outcome, Ok(Some(())));
        }
        assert_eq!(drops.dropped(), 0);
        gate.open();
        wait_until(|| drops.dropped() == 1).await;
        wait_until(|| usage().busy == 0).await;
    });
}

#[test]
fn c126_scope_of_a_dropped_wait_ends_after_the_job() {
    conform(|_| async {
        let (began, gate, drops) = (Gate::default(), Gate::default(), Drops::new());
        let result = drops.value();
        let (tell, begun, go) = (began.clone(), began.clone(), gate.clone());
        let task = spawn(async move {
            let scope = Scope::new();
            scope
                .run(async {
                    let mut wait = Box::pin(run(move |job| {
                        tell.open();
                        go.block(job);
                        assert_eq!(cause(&job.check_cancelled()), Some(Reason::Dropped));
                        result
                    }));
                    assert!(poll_once(wait.as_mut()).await.is_pending());
                    wait_until(|| begun.is_open()).await;
                    drop(wait);
                    Ok::<_, Cancelled>(())
                })
                .await
        });
        wait_until(|| began.is_open()).await;
        some_turns().await;
        assert!(!task.is_finished(), "the scope has left its job behind");
        assert_eq!(drops.dropped(), 0);
        gate.open();
        assert_eq!(task.await.expect("no panic"), Ok(Some(())));
        assert_eq!(drops.dropped(), 1);
    });
}

#[test]
fn c128_job_in_a_cancelled_scope_is_never_run() {
    conform(|_| async {
        for kind in Kind::BOTH {
            let drops = Drops::new();
            let captured = drops.value();
            let host = Host::of(async move {
                Scope::new().cancel();
                let scope = Scope::new();
                scope.cancel();
                let wait = kind.run(move |_| {
                    drop(captured);
                    unreachable!("the scope was cancelled before");
                });
                let outcome: Result<Option<()>, JobError> = scope.run(wait).await;
                assert!(matches!(outcome, Ok(None)), "{outcome:?}");
                Ok(())
            });
            let (outcome, next) = host.outcome().await;
            assert!(outcome.is_ok());
            assert_eq!(next, Ok(()), "the cancel was the inner scope's");
            assert_eq!((drops.dropped(), drops.alive()), (1, 0));
            let seen = usage();
            assert_eq!((seen.threads, seen.queued), (0, 0));
        }
    });
}

#[test]
fn c128_job_that_is_cancelled_in_line_is_never_run() {
    on_core_of(threads(1), |_| async {
        for kind in Kind::BOTH {
            let (began, gate, drops) = (Gate::default(), Gate::default(), Drops::new());
            let (tell, go) = (began.clone(), gate.clone());
            let first = Host::of(run(move |job| {
                tell.open();
                go.block(job);
            }));
            wait_until(|| began.is_open()).await;
            let queued: Vec<_> = (0..3)
                .map(|number| {
                    let captured = drops.value();
                    Host::of(kind.run(move |_| {
                        drop(captured);
                        number
                    }))
                })
                .collect();
            wait_until(|| usage().queued == 3).await;
            let [a, b, c] = <[_; 3]>::try_from(queued).unwrap_or_else(|_| unreachable!());
            b.cancel.cancel_with(Reason::User(3), Duration::ZERO);
            let polls = Rc::clone(&b.polls);
            let (outcome, next) = b.outcome().await;
            assert_eq!(cause(&outcome), Some(Reason::User(3)), "{kind:?}");
            assert_eq!(cause(&next), Some(Reason::User(3)));
            assert_eq!(polls.get(), 2, "it was woken once");
            assert_eq!(drops.dropped(), 1, "the closure is gone at once");
            assert_eq!(usage().queued, 2, "its place is free");
            gate.open();
            assert!(first.outcome().await.0.is_ok());
            assert_eq!(a.outcome().await.0.expect("a result"), 0);
            assert_eq!(c.outcome().await.0.expect("a result"), 2);
            assert_eq!((drops.dropped(), drops.alive()), (3, 0));
        }
    });
}

#[test]
fn c128_wait_that_is_dropped_in_line_leaves_it() {
    on_core_of(threads(1), |_| async {
        for kind in Kind::BOTH {
            let (began, gate, drops) = (Gate::default(), Gate::default(), Drops::new());
            let (tell, go) = (began.clone(), gate.clone());
            let first = Host::of(run(move |job| {
                tell.open();
                go.block(job);
            }));
            wait_until(|| began.is_open()).await;
            let captured = drops.value();
            let mut wait = Box::pin(kind.run(move |_| drop(captured)));
            assert!(poll_once(wait.as_mut()).await.is_pending());
            assert_eq!(usage().queued, 1);
            drop(wait);
            assert_eq!((usage().queued, drops.dropped()), (0, 1));
            gate.open();
            assert!(first.outcome().await.0.is_ok());
            assert_eq!(drops.dropped(), 1);
        }
    });
}

#[test]
fn c128_deadline_takes_a_job_out_of_the_line() {
    on_core_of(threads(1), |_| async {
        let (began, gate) = (Gate::default(), Gate::default());
        let (tell, go) = (began.clone(), gate.clone());
        let first = Host::of(run(move |job| {
            tell.open();
            go.block(job);
        }));
        wait_until(|| began.is_open()).await;
        let outcome = Scope::new()
            .timeout(Duration::from_millis(5))
            .run(run(|_| ()))
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(usage().queued, 0);
        gate.open();
        assert!(first.outcome().await.0.is_ok());
    });
}

#[test]
fn c129_abandoned_job_is_told_long_after_its_scope_has_gone() {
    // That somebody asks who is no job cannot be written: see `JobContext`.
    conform(|_| async {
        let (began, gate) = (Gate::default(), Gate::default());
        let told = Arc::new(AtomicU32::new(0));
        let host = {
            let (tell, go, told) = (began.clone(), gate.clone(), Arc::clone(&told));
            Host::of(run_abandonable(move |job| {
                tell.open();
                go.block(job);
                for _ in 0..3 {
                    assert!(job.is_cancelled());
                    if cause(&job.check_cancelled()) == Some(Reason::Requested) {
                        told.fetch_add(1, Ordering::Release);
                    }
                }
            }))
        };
        wait_until(|| began.is_open()).await;
        host.cancel.cancel();
        let (outcome, _) = host.outcome().await;
        assert_eq!(cause(&outcome), Some(Reason::Requested));
        // Scope, host and all are gone; others have taken their places.
        for _ in 0..5 {
            Scope::new()
                .run(yield_now())
                .await
                .expect("nobody cancels")
                .expect("nor this");
        }
        gate.open();
        wait_until(|| told.load(Ordering::Acquire) == 3).await;
    });
}

#[test]
fn c129_job_may_outlive_its_runtime() {
    // Nobody ever waits for that thread: on the ring alone.
    let (began, gate) = (Gate::default(), Gate::default());
    let (tell, go) = (began.clone(), gate.clone());
    let (answer, answered) = quoit::RemoteHandle::channel();
    let runtime = Runtime::builder()
        .cores(quoit::Cores::Count(1))
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    let job = move |job: &JobContext| {
        tell.open();
        go.block(job);
        let gone = job.run_on_core(|| async {});
        answer.send((cause(&job.check_cancelled()), gone.is_err()));
    };
    let task = handle.spawn(handle.cores()[0], move || run_abandonable(job));
    let task = task.expect("there is room");
    while !began.is_open() {
        std::thread::yield_now();
    }
    runtime.shutdown(LONG);
    let outcome = task.wait().expect("it has ended by itself");
    assert_eq!(cause(&outcome), Some(Reason::Shutdown));
    assert_eq!(handle.blocking_usage().busy, 1);
    gate.open();
    assert_eq!(
        answered.wait().expect("it answers"),
        (Some(Reason::Shutdown), true)
    );
    while handle.blocking_usage().threads > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn c130_function_of_a_job_is_cancelled_with_its_host() {
    conform(|_| async {
        let began = Gate::default();
        let tell = began.clone();
        let host = Host::of(run(move |job| {
            let told = tell.clone();
            job.run_on_core(move || async move {
                told.open();
                let slept = sleep(LONG).await;
                (slept, check())
            })
        }));
        wait_until(|| began.is_open()).await;
        host.cancel.cancel_with(Reason::User(9), Duration::ZERO);
        let polls = Rc::clone(&host.polls);
        let (outcome, next) = host.outcome().await;
        let (slept, after) = outcome.expect("the job ran").expect("and its function");
        assert_eq!(cause(&slept), Some(Reason::User(9)));
        assert_eq!(cause(&after), Some(Reason::User(9)));
        assert_eq!(cause(&next), Some(Reason::User(9)));
        assert_eq!(polls.get(), 2);
    });
}

/// The wait has moved to the scope around, though nobody has polled it there.
#[test]
fn c130_function_follows_a_wait_whose_scope_has_ended() {
    conform(|_| async {
        let (began, gate, runs, end) = (
            Gate::default(),
            Gate::default(),
            Gate::default(),
            Gate::default(),
        );
        let (tell, go, tell_again, ends) = (began.clone(), gate.clone(), runs.clone(), end.clone());
        let mut waiting = Box::pin(run(move |job| {
            tell.open();
            go.block(job);
            job.run_on_core(move || async move {
                tell_again.open();
                until(|| ends.is_open()).await?;
                check()
            })
        }));
        let outer = Scope::new();
        let cancel = outer.handle();
        let body = async {
            let inner = Scope::new();
            let begun = inner.run(async {
                assert!(poll_once(waiting.as_mut()).await.is_pending());
                Ok::<_, Cancelled>(())
            });
            begun.await?;
            wait_until(|| began.is_open()).await;
            gate.open();
            wait_until(|| runs.is_open()).await;
            cancel.cancel();
            end.open();
            let outcome = waiting.as_mut().await.expect("the job ran");
            assert_eq!(
                cause(&outcome.expect("and its function")),
                Some(Reason::Requested)
            );
            Ok::<_, Cancelled>(())
        };
        outer.run(body).await.expect("the cancel was its own");
    });
}

#[test]
fn c130_function_that_begins_after_the_cancel_is_cancelled_at_once() {
    conform(|_| async {
        let (began, gate) = (Gate::default(), Gate::default());
        let (tell, go) = (began.clone(), gate.clone());
        let host = Host::of(run(move |job| {
            tell.open();
            go.block(job);
            job.run_on_core(|| sleep(LONG))
        }));
        wait_until(|| began.is_open()).await;
        host.cancel.cancel();
        some_turns().await;
        gate.open();
        let (outcome, _) = host.outcome().await;
        let slept = outcome.expect("the job ran").expect("and its function");
        assert_eq!(cause(&slept), Some(Reason::Requested));
    });
}

#[test]
fn c130_cancellation_of_a_function_travels_to_the_scope_it_was_meant_for() {
    conform(|_| async {
        let scope = Scope::new();
        let cancel = scope.handle();
        let body = async {
            let job = move |job: &JobContext| {
                let slept = job.run_on_core(move || async move {
                    cancel.cancel();
                    sleep(LONG).await
                });
                slept.expect("the core lives")
            };
            run(job).await??;
            unreachable!("the function was cancelled");
        };
        let outcome: Result<Option<()>, JobError> = scope.run(body).await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    });
}

#[test]
fn c130_function_of_an_abandoned_job_runs_to_its_end() {
    conform(|_| async {
        for before in [true, false] {
            let (began, gate, ended) = (Gate::default(), Gate::default(), Gate::default());
            let host = {
                let (tell, go, end) = (began.clone(), gate.clone(), ended.clone());
                Host::of(run_abandonable(move |job| {
                    if before {
                        // It is abandoned before it calls.
                        tell.open();
                        go.block(job);
                    }
                    let function = || async move {
                        tell.open();
                        until(|| go.is_open()).await?;
                        sleep(Duration::from_micros(10)).await?;
                        check()
                    };
                    let told = job.run_on_core(function);
                    assert_eq!(told.expect("the core lives"), Ok(()));
                    end.open();
                }))
            };
            wait_until(|| began.is_open()).await;
            host.cancel.cancel();
            let (outcome, _) = host.outcome().await;
            assert_eq!(cause(&outcome), Some(Reason::Requested));
            assert!(!ended.is_open());
            gate.open();
            wait_until(|| ended.is_open()).await;
        }
    });
}

#[test]
fn c130_panic_of_a_function_comes_back_to_the_job() {
    conform(|_| async {
        let outcome = run(|job| {
            let panicked = job.run_on_core(|| async { panic!("of the function") });
            let Err(RemoteError::Panicked(payload)) = panicked else {
                unreachable!("it panicked");
            };
            *payload.downcast_ref::<&str>().expect("a text")
        });
        assert_eq!(outcome.await.expect("the job did not"), "of the function");
    });
}

#[test]
fn c130_call_waits_for_room_in_the_mailbox() {
    // The core is held until its mailbox is full: on the ring alone.
    on_ring_of(
        Runtime::builder().mailbox_capacity(1),
        |handle| async move {
            let full = Gate::default();
            let tell = full.clone();
            let job = move |job: &JobContext| {
                let core = handle.cores()[0];
                // What was taken makes room for one more.
                while handle.spawn(core, || async {}).is_ok() {}
                tell.open();
                job.run_on_core(|| async { 7 }).expect("the core lives")
            };
            let mut wait = pin!(run(job));
            assert!(poll_once(wait.as_mut()).await.is_pending());
            while !full.is_open() {
                std::thread::yield_now();
            }
            assert_eq!(wait.await.expect("a result"), 7);
        },
    );
    // In a simulation it is full when that is asked for.
    Sim::with_seed(0).force(Fault::MailboxFull, 0).run(|| {
        let outcome = block_on(run(|job| {
            job.run_on_core(|| async { 7 }).expect("the core lives")
        }));
        assert_eq!(outcome.expect("a ring").expect("a result"), 7);
    });
}

#[test]
fn c130_call_ends_with_the_core() {
    tests::on_both(|| {
        let runtime = Runtime::builder()
            .cores(quoit::Cores::Count(1))
            .build()
            .expect("tests need io_uring");
        let handle = runtime.handle();
        let (answer, answered) = quoit::RemoteHandle::channel();
        let began = Gate::default();
        let tell = began.clone();
        let job = move |job: &JobContext| {
            let gone = job.run_on_core(move || {
                tell.open();
                std::future::pending::<()>()
            });
            answer.send(matches!(gone, Err(RemoteError::Gone)));
        };
        let task = handle.spawn(handle.cores()[0], move || run(job));
        let task = task.expect("there is room");
        let grace = Duration::from_millis(5);
        if sim::is_running() {
            // The job stands on the stack above this: it is a script that goes on meanwhile.
            let handle = handle.clone();
            sim::after(LONG, move || handle.shutdown_within(grace));
        } else {
            while !began.is_open() {
                std::thread::yield_now();
            }
            handle.shutdown_within(grace);
        }
        assert!(answered.wait().expect("it answers"));
        assert!(matches!(task.wait(), Err(RemoteError::Gone)));
        assert!(began.is_open());
        drop(runtime);
    });
}

#[test]
fn panic_of_a_job_reaches_who_waits_for_it() {
    conform(|_| async {
        for kind in Kind::BOTH {
            let host = Host::of(kind.run(|_| panic!("of the job")));
            let (outcome, next): (Result<(), _>, _) = host.outcome().await;
            let Err(JobError::Panicked(payload)) = outcome else {
                unreachable!("it panicked");
            };
            assert_eq!(payload.downcast_ref(), Some(&"of the job"));
            assert_eq!(next, Ok(()));
        }
        // The thread goes on.
        assert_eq!(run(|_| 7).await.expect("a result"), 7);
    });
}

#[test]
fn all_cores_of_a_runtime_share_its_threads() {
    tests::on_both(|| {
        let most = Arc::new(AtomicU32::new(0));
        let (running, seen) = (Arc::new(AtomicU32::new(0)), Arc::clone(&most));
        threads(2)
            .cores(quoit::Cores::Count(2))
            .build()
            .expect("tests need io_uring")
            .run(move |_| {
                let (running, seen) = (Arc::clone(&running), Arc::clone(&seen));
                async move {
                    let jobs: Vec<_> = (0..8)
                        .map(|_| {
                            let (running, seen) = (Arc::clone(&running), Arc::clone(&seen));
                            spawn(run(move |job| {
                                let now = running.fetch_add(1, Ordering::AcqRel) + 1;
                                seen.fetch_max(now, Ordering::AcqRel);
                                let pause = job.run_on_core(|| sleep(Duration::from_micros(50)));
                                pause.expect("the core lives").expect("nobody cancels");
                                running.fetch_sub(1, Ordering::AcqRel);
                            }))
                        })
                        .collect();
                    for job in jobs {
                        job.await.expect("no panic")?;
                    }
                    assert!(usage().threads <= 2);
                    Ok::<_, JobError>(())
                }
            })
            .expect("every job runs");
        let most = most.load(Ordering::Acquire);
        assert!((1..=2).contains(&most), "{most} at a time");
    });
}

#[test]
fn job_is_not_bound_to_the_processor_of_its_core() {
    let allowed = std::thread::available_parallelism().expect("a number");
    on_ring(move |_| async move {
        let seen = run(|_| std::thread::available_parallelism().expect("a number"));
        assert_eq!(seen.await.expect("a result"), allowed);
    });
}

#[test]
fn job_without_a_thread_is_dropped_unrun() {
    Sim::with_seed(0).force(Fault::ThreadRefused, 0).run(|| {
        let outcome = block_on(async {
            let drops = Drops::new();
            let captured = drops.value();
            let refused = run(move |_| drop(captured)).await;
            assert!(matches!(refused, Err(JobError::NoThread(_))), "{refused:?}");
            assert_eq!((drops.dropped(), drops.alive()), (1, 0));
            assert_eq!(usage(), Usage::default());
            run(|_| 7).await.expect("the next one starts")
        });
        assert_eq!(outcome.expect("a ring"), 7);
    });
}

#[test]
fn job_waits_for_a_thread_that_lives_if_no_other_starts() {
    Sim::with_seed(0).force(Fault::ThreadRefused, 1).run(|| {
        block_on(async {
            let (began, gate) = (Gate::default(), Gate::default());
            let (tell, go) = (began.clone(), gate.clone());
            let first = spawn(run(move |job| {
                tell.open();
                go.block(job);
            }));
            wait_until(|| began.is_open()).await;
            let second = spawn(run(|_| 7));
            some_turns().await;
            let seen = usage();
            assert_eq!((seen.threads, seen.queued), (1, 1));
            gate.open();
            first.await.expect("no panic").expect("a result");
            assert_eq!(second.await.expect("no panic").expect("a result"), 7);
        })
        .expect("a ring");
    });
}

#[test]
fn future_that_is_never_polled_runs_nothing() {
    conform(|_| async {
        let drops = Drops::new();
        let captured = drops.value();
        drop(run(move |_| drop(captured)));
        assert_eq!((drops.dropped(), drops.alive()), (1, 0));
        assert_eq!(usage(), Usage::default());
    });
}

#[test]
fn waiter_whose_waker_changes_is_woken_by_the_last_one() {
    conform(|_| async {
        let gate = Gate::default();
        let go = gate.clone();
        let mut wait = Box::pin(run(move |job| {
            go.block(job);
            7
        }));
        // Polled by this task, and then by another.
        let polled = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx).is_ready())).await;
        assert!(!polled);
        let task = spawn(wait);
        some_turns().await;
        gate.open();
        assert_eq!(task.await.expect("no panic").expect("a result"), 7);
    });
}
