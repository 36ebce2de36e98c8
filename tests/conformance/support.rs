//! What the scenarios share: polls that are counted, futures that poll several others, and points in
//! time.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use quoit::op::{self, SharedFd};
use quoit::sim::explore;
use quoit::time::Instant;
use quoit::{
    CancelHandle, Cancelled, CarriesCancelled, CoreId, CoreMetrics, Handle, JoinError, JoinHandle,
    Reason, Scope,
};
use tests::{Kernel, gauges};

/// Longer than any test.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Short, and long enough to be told from nothing.
pub(crate) const SHORT: Duration = Duration::from_millis(5);

/// A pipe whose ends are used on a core.
pub(crate) fn pipe() -> (SharedFd, SharedFd) {
    op::pipe().expect("a pipe")
}

/// Returns why an op was cancelled, if it was.
pub(crate) fn reason<T, E: CarriesCancelled>(outcome: &Result<T, E>) -> Option<Reason> {
    let error = outcome.as_ref().err()?;
    error.cancelled().map(Cancelled::reason)
}

/// Checks that so much time has passed since `began`, and in simulated time no more.
#[track_caller]
pub(crate) fn after_exactly(duration: Duration, began: Instant) {
    let elapsed = began.elapsed();
    assert!(elapsed >= duration, "{elapsed:?} is less than {duration:?}");
    if Kernel::here() == Kernel::Simulated {
        assert_eq!(elapsed, duration);
    }
}

/// Checks that no time has passed since `began`; it does on a real machine.
#[track_caller]
pub(crate) fn at_once(began: Instant) {
    after_exactly(Duration::ZERO, began);
}

/// A future that notes how often it is polled.
pub(crate) struct Watched<F> {
    future: Pin<Box<F>>,
    polls: Rc<Cell<u32>>,
}

/// Notes how often a future is polled.
pub(crate) fn watched<F: Future>(future: F) -> (Watched<F>, Rc<Cell<u32>>) {
    let polls = Rc::new(Cell::new(0));
    let watched = Watched {
        future: Box::pin(future),
        polls: Rc::clone(&polls),
    };
    (watched, polls)
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.set(self.polls.get() + 1);
        self.future.as_mut().poll(cx)
    }
}

/// Polls both until both have ended, the first one first.
pub(crate) async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (Box::pin(a), Box::pin(b));
    let (mut ended_a, mut ended_b) = (None, None);
    poll_fn(|cx| {
        if ended_a.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            ended_a = Some(output);
        }
        if ended_b.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            ended_b = Some(output);
        }
        match (ended_a.take(), ended_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (ended_a, ended_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// Which of two has ended first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Polls two until one has ended, the first one first, and drops the other.
pub(crate) async fn either<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (Box::pin(a), Box::pin(b));
    poll_fn(|cx| {
        if let Poll::Ready(output) = a.as_mut().poll(cx) {
            return Poll::Ready(Either::First(output));
        }
        b.as_mut().poll(cx).map(Either::Second)
    })
    .await
}

/// Polls what was woken, each branch by a waker of its own, as sets of futures do.
pub(crate) struct Branches<F: Future> {
    branches: Vec<Branch<F>>,
}

struct Branch<F: Future> {
    future: Option<Pin<Box<F>>>,
    bell: Arc<Bell>,
    polls: u32,
}

struct Bell {
    rung: AtomicBool,
    task: Mutex<Waker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self.task.lock().expect("nobody panics with it").clone();
        task.wake();
    }
}

impl<F: Future> Branches<F> {
    /// Takes futures in. None is polled yet.
    pub(crate) fn new(futures: impl IntoIterator<Item = F>) -> Self {
        let branch = |future| Branch {
            future: Some(Box::pin(future)),
            bell: Arc::new(Bell {
                rung: AtomicBool::new(true),
                task: Mutex::new(Waker::noop().clone()),
            }),
            polls: 0,
        };
        Self {
            branches: futures.into_iter().map(branch).collect(),
        }
    }

    /// Returns how often each was polled.
    pub(crate) fn polls(&self) -> Vec<u32> {
        self.branches.iter().map(|branch| branch.polls).collect()
    }

    /// Waits for the next one that ends: its place, and its output.
    pub(crate) async fn next(&mut self) -> (usize, F::Output) {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Polls what was woken, until one has ended.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(usize, F::Output)> {
        for (place, branch) in self.branches.iter_mut().enumerate() {
            let Some(future) = &mut branch.future else {
                continue;
            };
            let task = &branch.bell.task;
            task.lock()
                .expect("nobody panics with it")
                .clone_from(cx.waker());
            if !branch.bell.rung.swap(false, Ordering::Acquire) {
                continue;
            }
            branch.polls += 1;
            let waker = Waker::from(Arc::clone(&branch.bell));
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            if let Poll::Ready(output) = polled {
                branch.future = None;
                return Poll::Ready((place, output));
            }
        }
        Poll::Pending
    }
}

/// Starts `wait` in a scope of its own, in a task, and returns the scope's handle once it waits, also
/// in the kernel.
pub(crate) async fn waiting<T: 'static, E: CarriesCancelled + 'static>(
    wait: impl Future<Output = Result<T, E>> + 'static,
) -> (CancelHandle, JoinHandle<Result<Option<T>, E>>) {
    let (tell, told) = mpsc::channel();
    let task = quoit::spawn(async move {
        let scope = Scope::new();
        tell.send(scope.handle()).expect("the test listens");
        scope.run(wait).await
    });
    loop {
        if let Ok(handle) = told.try_recv() {
            op::nop().await.expect("not cancelled");
            return (handle, task);
        }
        quoit::yield_now().await.expect("not cancelled");
    }
}

/// Lets tasks and completions come before the caller, so many turns of them.
pub(crate) async fn some_turns(count: u32) {
    for _ in 0..count {
        op::nop().await.expect("nobody cancels");
    }
}

/// How often something is tried: a few times, or as often as its scenario says if `QUOIT_LONG` is set.
pub(crate) fn repetitions(few: u32, all: u32) -> u32 {
    if std::env::var_os("QUOIT_LONG").is_some() {
        all
    } else {
        few
    }
}

/// Returns how many cancels cores have sent to each other: one that is passed on to a child elsewhere is
/// sent by the caller's core, or by the child's if the child had not begun by then.
pub(crate) fn cancels_sent(handle: &Handle) -> u64 {
    handle.metrics().iter().map(|core| core.cancels_sent).sum()
}

/// Joins a task also where the caller is cancelled.
pub(crate) async fn join_anyway<T: 'static, E: 'static>(
    task: JoinHandle<T, E>,
) -> Result<T, JoinError<E>> {
    let shield = Scope::new().shielded();
    let joined = shield.run(task).await?;
    Ok(joined.expect("nobody cancels the shield itself"))
}

/// Waits until the kernel has ended what was given up; returns the counters of that moment.
pub(crate) async fn kernel_is_done(handle: &Handle) -> CoreMetrics {
    loop {
        let counters = gauges(handle).await;
        if counters.orphans == 0 {
            return counters;
        }
    }
}

/// Runs a program in every order there is, and returns every way it came out.
pub(crate) fn all_ways<T: Ord>(program: impl Fn() -> T) -> BTreeSet<T> {
    let mut ways = BTreeSet::new();
    let explored = explore(200_000, |sim| {
        ways.insert(sim.run(&program).value);
    });
    assert!(explored.complete, "not all orders in {}", explored.orders);
    assert!(explored.orders > 1, "there is but one order");
    ways
}

/// The answer of an op with a buffer, as a scope's body returns it.
pub(crate) trait IntoResult<T, B>: Future<Output = (io::Result<T>, B)> + Sized {
    async fn into_result(self) -> io::Result<(T, B)> {
        let (outcome, buf) = self.await;
        outcome.map(|value| (value, buf))
    }
}

impl<T, B, F: Future<Output = (io::Result<T>, B)>> IntoResult<T, B> for F {}

/// What a task on another core, or a thread, gives back.
pub(crate) struct Answer<T>(mpsc::Receiver<thread::Result<T>>);

impl<T: Send + 'static> Answer<T> {
    /// Runs `body` as a task on a core.
    pub(crate) fn on<M>(
        handle: &Handle,
        core: CoreId,
        body: impl FnOnce() -> M + Send + 'static,
    ) -> Self
    where
        M: Future<Output = T> + 'static,
    {
        let (tell, told) = mpsc::channel();
        let started = handle.spawn(core, move || async move {
            let task = quoit::spawn(body()).await;
            // Nobody listens any more if the test has failed already.
            let _ = tell.send(task.map_err(|error| match error {
                JoinError::Panicked(panic) => panic,
                other => Box::new(other.to_string()),
            }));
        });
        drop(started.expect("room in the mailbox"));
        Self(told)
    }

    /// Keeps this core busy until the answer is there: a core that waited so would be parked.
    pub(crate) async fn get(self) -> T {
        loop {
            match self.0.try_recv() {
                Ok(Ok(answer)) => return answer,
                Ok(Err(panic)) => resume_unwind(panic),
                Err(mpsc::TryRecvError::Empty) => {
                    quoit::yield_now().await.expect("nobody cancels");
                }
                Err(mpsc::TryRecvError::Disconnected) => panic!("the core has ended"),
            }
        }
    }
}

/// Keeps this core busy until the core of that index has parked more than `parks` times.
pub(crate) async fn until_parked(handle: &Handle, index: usize, parks: u64) {
    while handle.metrics()[index].parks <= parks {
        quoit::yield_now().await.expect("nobody cancels");
    }
}
