//! A runtime of one core, and a body that runs there: on the real ring, and in the simulation.

use std::cell::Cell;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use quoit::sim::{self, Faults, Sim, for_seeds};
use quoit::{
    Builder, Cancelled, CarriesCancelled, CoreId, CoreMetrics, Cores, Handle, RemoteError, Runtime,
    Scope, spawn, yield_now,
};

/// The seeds that every program is run under: the first one without faults.
pub(crate) const SEEDS: Range<u64> = 0..6;

thread_local! {
    /// What the program on this thread runs on. A core of its own is a thread on the real ring.
    static KERNEL: Cell<Kernel> = const { Cell::new(Kernel::Real) };
}

/// What a program runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The machine's own.
    Real,
    /// The simulated one, which does what it is asked to and nothing else.
    Simulated,
    /// The simulated one, with late, short, early and interrupted answers in any order: whatever a
    /// program need not notice.
    Unruly,
}

impl Kernel {
    /// Returns what the caller runs on. A simulation of the caller's own is taken for an unruly one.
    pub fn here() -> Self {
        match KERNEL.get() {
            Self::Real if sim::is_running() => Self::Unruly,
            known => known,
        }
    }

    /// Returns whether requests, entries and parks come in the number that the program gives rise
    /// to. An unruly kernel adds some.
    pub fn counts_exactly(self) -> bool {
        self != Self::Unruly
    }

    /// Returns whether the kernel is a simulated one: no file, socket or thread of the machine's
    /// own has a part in it.
    pub fn is_simulated(self) -> bool {
        self != Self::Real
    }
}

/// Checks that a transfer was as long as it could be, which it need not be if the kernel is unruly;
/// returns its length.
pub fn whole(transferred: std::io::Result<usize>, most: usize) -> usize {
    let count = transferred.expect("no error");
    if Kernel::here().counts_exactly() {
        assert_eq!(count, most);
    }
    assert!((1..=most).contains(&count), "{count} of {most}");
    count
}

/// Runs a program on the real ring, and then in the simulation under some seeds; returns what it
/// returned on the ring.
///
/// With `QUOIT_SIM_SEED` only that seed is run after the ring.
pub fn on_both<T>(program: impl Fn() -> T) -> T {
    on_both_with(SEEDS, |sim| sim, program)
}

/// As [`on_both`], under these seeds, on simulated machines that `prepare` has had a hand in.
pub(crate) fn on_both_with<T>(
    seeds: Range<u64>,
    prepare: impl Fn(Sim) -> Sim,
    program: impl Fn() -> T,
) -> T {
    let real = program();
    simulated(seeds, &prepare, &|| drop(program()));
    real
}

/// The part of [`on_both_with`] that is the same for every program: built once, not for each of hundreds.
fn simulated(seeds: Range<u64>, prepare: &dyn Fn(Sim) -> Sim, program: &dyn Fn()) {
    for_seeds(seeds, |sim| {
        let (kernel, faults) = if sim.seed() == SEEDS.start {
            (Kernel::Simulated, Faults::none())
        } else {
            (Kernel::Unruly, Faults::benign())
        };
        let before = KERNEL.replace(kernel);
        prepare(sim.faults(faults)).run(program);
        KERNEL.set(before);
    });
}

/// Runs `body` as a task on the one core of a new runtime, on the real ring and in the simulation
/// ([`on_both`]), and returns what it returned on the ring.
pub fn on_core<M>(body: impl FnOnce(Handle) -> M + Clone + Send + 'static) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    on_core_of(Runtime::builder(), body)
}

/// As [`on_core`], with the runtime that `builder` makes.
pub fn on_core_of<M>(
    builder: Builder,
    body: impl FnOnce(Handle) -> M + Clone + Send + 'static,
) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    on_both(|| on_ring_of(builder.clone(), body.clone()))
}

/// As [`on_core_of`] for each of the builders, in the simulation under two seeds of its own. The body
/// also gets what the builder was told.
pub fn on_core_of_each<M>(
    builders: impl IntoIterator<Item = Builder>,
    body: impl FnOnce(Handle, String) -> M + Clone + Send + 'static,
) where
    M: Future<Output = ()> + 'static,
{
    for (place, builder) in (0..).step_by(2).zip(builders) {
        let told = format!("{builder:?}");
        let program = || {
            let (body, told) = (body.clone(), told.clone());
            on_ring_of(builder.clone(), |handle| body(handle, told))
        };
        on_both_with(place..place + 2, |sim| sim, program);
    }
}

/// Runs `body` as a task on the one core of a new runtime, on the real ring alone: for bodies with
/// a partner that is not simulated, such as a thread.
pub fn on_ring<M>(body: impl FnOnce(Handle) -> M + Send + 'static) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    on_ring_of(Runtime::builder(), body)
}

/// As [`on_ring`], with the runtime that `builder` makes.
pub fn on_ring_of<M>(builder: Builder, body: impl FnOnce(Handle) -> M + Send + 'static) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    // What a body leaves behind is dropped when it has ended.
    let runtime = builder
        .cores(Cores::Count(1))
        .grace_period(Duration::ZERO)
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    let inner = handle.clone();
    on(&handle, handle.cores()[0], move || body(inner))
}

/// Runs a task on a core, and returns what it returned.
pub(crate) fn on<M>(
    handle: &Handle,
    core: CoreId,
    body: impl FnOnce() -> M + Send + 'static,
) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    let (sender, output) = mpsc::sync_channel(1);
    let boxed = Box::new(move || -> Pin<Box<dyn Future<Output = ()>>> {
        let body = body();
        Box::pin(async move {
            let output = body.await;
            sender.send(output).expect("somebody waits for it");
        })
    });
    on_boxed(handle, core, boxed);
    output.recv().expect("it has ended")
}

type Boxed = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The part of [`on`] that is the same for every body: built once, not for each of hundreds.
fn on_boxed(handle: &Handle, core: CoreId, body: Boxed) {
    let task = handle.spawn(core, body);
    match task.expect("there is room in the mailbox").wait() {
        Ok(()) => {}
        Err(RemoteError::Panicked(payload)) => resume_unwind(payload),
        Err(error) => panic!("{error}"),
    }
}

/// Returns once the core of `handle`, which this runs on, has parked: that publishes its gauges.
pub async fn park_once(handle: &Handle) {
    let before = handle.metrics()[0].parks;
    // A core parks for a deadline that lies ahead; so short a one may have passed before it does.
    while handle.metrics()[0].parks == before {
        quoit::time::sleep(Duration::from_micros(50))
            .await
            .expect("nobody cancels a test's own pause");
    }
}

/// Returns the counters of the core of `handle`, which this runs on, with gauges that are as of now.
pub async fn gauges(handle: &Handle) -> CoreMetrics {
    park_once(handle).await;
    handle.metrics()[0]
}

/// Does something again and again in a cancelled scope, and returns how often another task had a turn meanwhile.
pub async fn turns_of_others<E: CarriesCancelled + Debug>(
    mut deed: impl AsyncFnMut() -> Result<(), E>,
) -> u32 {
    let turns = Rc::new(Cell::new(0));
    let counted = Rc::clone(&turns);
    let other = spawn(async move {
        while Rc::strong_count(&counted) > 1 {
            counted.set(counted.get() + 1);
            yield_now().await.expect("nobody cancels");
        }
    });
    let scope = Scope::new();
    let done = scope.run(async {
        scope.cancel();
        for _ in 0..320 {
            let refused = deed().await.expect_err("its scope is cancelled");
            assert!(refused.cancelled().is_some());
        }
        Ok::<_, Cancelled>(())
    });
    assert_eq!(done.await, Ok(Some(())));
    let seen = turns.get();
    drop(turns);
    other.await.expect("no panic");
    seen
}

/// Polls a future once, and says what came of it.
pub async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Sees to it that the running task has not the core for itself: what it asks of the kernel next goes by the ring.
pub fn beside_another() {
    drop(quoit::spawn(async {}));
}

/// Waits, on a foreign thread, until the core of `handle` has parked more than `parks` times.
pub fn until_parked(handle: &Handle, parks: u64) {
    while handle.metrics()[0].parks <= parks {
        std::thread::yield_now();
    }
}
