//! `Runtime`: starts the cores, joins them, shuts them down. `Handle`: reaches them from outside.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use crate::blocking::Usage;
use crate::blocking::threads::Pool;
use crate::config::{BuildError, Builder, CoreConfig};
use crate::core_loop::MainPoll;
use crate::core_state::Core;
use crate::driver::sys;
use crate::mailbox::CoreShared;
use crate::mailbox::closures::{ClosureQueue, Job, Refused};
use crate::metrics::{CoreMetrics, Snapshot};
#[cfg(feature = "sim")]
use crate::panics::caught;
use crate::panics::{contained, guarded, text_of};
use crate::scope::remote::{FarScope, has_leaked_a_group};
use crate::scope::{Cancelled, CarriesCancelled, Misuse, Reason};
use crate::task::current;
use crate::time::Instant;

/// One core of a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoreId {
    index: u32,
    number: u32,
    incarnation: u32,
}

impl CoreId {
    pub(crate) fn new(index: u32, number: u32, incarnation: u32) -> Self {
        Self {
            index,
            number,
            incarnation,
        }
    }

    /// Returns the core's place in its runtime, counted from 0.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Returns the core this code runs on, if it runs on one.
    pub fn current() -> Option<Self> {
        current::try_with(|core| core.id)
    }

    pub(crate) fn identity(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.incarnation)
    }

    pub(crate) fn incarnation(self) -> u32 {
        self.incarnation
    }

    pub(crate) fn shared(self) -> Option<&'static CoreShared> {
        crate::mailbox::core(self.number)
    }
}

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.index.fmt(f)
    }
}

/// Cores that run, each a pinned thread with a ring of its own.
///
/// Dropped, it stops: every core's root scope is cancelled, what has not ended within the grace
/// period is dropped, and the drop returns when all threads have ended (at once on a thread that is
/// one of its own cores).
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
    lives: Vec<CoreLife>,
    grace: Duration,
}

/// What carries a core.
#[derive(Debug)]
enum CoreLife {
    /// A thread of its own.
    Thread(thread::JoinHandle<()>),
    /// The simulation that runs on this thread.
    #[cfg(feature = "sim")]
    Simulated(crate::sim::world::Home),
}

impl CoreLife {
    /// Blocks until the core has ended.
    fn join(self) -> thread::Result<()> {
        match self {
            Self::Thread(thread) => thread.join(),
            #[cfg(feature = "sim")]
            Self::Simulated(home) => {
                // In another simulation, or in none, its own is over, and the core with it.
                if let Some(world) = crate::sim::world()
                    && let Some(place) = world.place(home)
                {
                    world.drive(|| world.has_ended(place).then_some(()));
                }
                Ok(())
            }
        }
    }
}

/// Reaches a runtime's cores from any thread.
#[derive(Debug, Clone)]
pub struct Handle {
    cores: Arc<[CoreHandle]>,
    grace: Duration,
    blocking: Arc<Pool>,
}

#[derive(Debug, Clone)]
struct CoreHandle {
    id: CoreId,
    shared: &'static CoreShared,
    closures: Arc<ClosureQueue>,
}

impl Runtime {
    /// Begins to say how a runtime shall be.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns a handle to the cores.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Calls `main` once on every core, and returns when all have ended. Where a core's mailbox is full, it
    /// waits for room.
    ///
    /// The first error cancels the others and comes out. When the runtime was shut down through a
    /// handle, mains that end with [`Cancelled`](crate::Cancelled) count as ended; what else their
    /// error says does not. Tasks that are
    /// still running when the last main has ended are cancelled, and dropped after the grace period; of a shutdown
    /// through a handle, after the one that was given there.
    ///
    /// # Errors
    ///
    /// The first one of a main. One that has leaked a group, and does not fail, has failed for that misuse.
    ///
    /// # Panics
    ///
    /// Goes on with the first panic of a main, after all cores have stopped; so with that of a core that is lost, whose
    /// kernel refuses to go on, which stops the others. On a thread that runs a core: this call waits.
    pub fn run<F, M, E>(mut self, main: F) -> Result<(), E>
    where
        F: Fn(CoreId) -> M + Clone + Send + 'static,
        M: Future<Output = Result<(), E>> + 'static,
        E: CarriesCancelled + Send + 'static,
    {
        assert!(
            CoreId::current().is_none(),
            "Runtime::run was called on a thread that runs a core already, which it would block"
        );
        let (ended, mains) = mpsc::channel();
        for core in self.handle.cores.iter() {
            let (id, main, ended) = (core.id, main.clone(), ended.clone());
            let report = Report {
                to: ended,
                sent: false,
            };
            let start = move || {
                drop(crate::spawn(async move {
                    let mut report = report;
                    let ends = async move {
                        main(id).await?;
                        match has_leaked_a_group() {
                            true => Err(Cancelled::misuse(Misuse::AbandonedGroup).into()),
                            false => Ok(()),
                        }
                    };
                    let outcome = guarded(ends).await;
                    report.send(Some(outcome));
                }));
            };
            // If the core was shut down before it began, `Report` says so when it is dropped.
            core.send_in_turn(Box::new(start));
        }
        drop(ended);
        let mut first = None;
        while let Ok(outcome) = receive(&mains) {
            let failure = match outcome {
                None => {
                    self.stop_if_lost();
                    continue;
                }
                Some(Ok(Ok(()))) => continue,
                Some(Ok(Err(error))) => match self.failure_of(error) {
                    None => continue,
                    Some(failure) => Ok(failure),
                },
                Some(Err(payload)) => Err(payload),
            };
            if first.is_none() {
                first = Some(failure);
                self.handle.shutdown_within(self.grace);
            }
        }
        // Somebody may have said how long what the mains have left may take.
        if !self.handle.is_stopping() {
            self.handle.shutdown_within(self.grace);
        }
        self.join();
        match first {
            None => Ok(()),
            Some(Ok(error)) => Err(error),
            Some(Err(payload)) => resume_unwind(payload),
        }
    }

    /// Shuts down after a main that has ended without a word, unless that was a shutdown: its core is lost, as those who
    /// wait for the cores are to hear.
    fn stop_if_lost(&self) {
        let goes_on = |core: &CoreHandle| !core.shared.was_asked_to_stop(core.id.incarnation);
        if self.handle.cores.iter().any(goes_on) {
            self.handle.shutdown_within(self.grace);
        }
    }

    /// Returns what of a main's error is a failure: a cancellation is none, where the runtime stops.
    fn failure_of<E: CarriesCancelled>(&self, error: E) -> Option<E> {
        if error.cancelled().is_none_or(Cancelled::is_misuse) {
            return Some(error);
        }
        let is_stopping = self.handle.is_stopping();
        let stray = || (!is_stopping).then(|| Cancelled::misuse(Misuse::Stray).into());
        error.rest().ok().or_else(stray)
    }

    /// Stops the runtime: tasks are cancelled at once and dropped after `grace`.
    ///
    /// Returns when all cores have ended.
    pub fn shutdown(mut self, grace: Duration) {
        self.grace = grace;
        self.stop();
    }

    fn stop(&mut self) {
        self.handle.shutdown_within(self.grace);
        self.join();
    }

    fn join(&mut self) {
        let here = CoreId::current();
        if self.handle.cores.iter().any(|core| Some(core.id) == here) {
            // A core cannot wait for its own end: the threads end by themselves.
            self.lives.clear();
        }
        // All of them, before one that was lost is told of.
        let ends: Vec<_> = self.lives.drain(..).map(CoreLife::join).collect();
        for end in ends {
            if let Err(payload) = end
                && !thread::panicking()
            {
                // A core never ends by a panic of a task: this one is ours.
                resume_unwind(payload);
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Says how a main ended, also when it was dropped.
struct Report<E> {
    to: mpsc::Sender<Option<thread::Result<Result<(), E>>>>,
    sent: bool,
}

impl<E> Report<E> {
    fn send(&mut self, outcome: Option<thread::Result<Result<(), E>>>) {
        self.sent = true;
        // Nobody listens any more: then nobody minds.
        let _ = self.to.send(outcome);
    }
}

impl<E> Drop for Report<E> {
    fn drop(&mut self) {
        if !self.sent {
            self.send(None);
        }
    }
}

impl Builder {
    /// Starts the cores.
    ///
    /// # Errors
    ///
    /// [`BuildError`] says what was wrong and what to do: a setting outside its limits, cores that
    /// are not there, a kernel that refuses io_uring.
    pub fn build(self) -> Result<Runtime, BuildError> {
        let config = self.check()?;
        let processors = self.processors()?;
        let mut runtime = Runtime {
            handle: Handle {
                cores: Arc::new([]),
                grace: self.grace_period,
                blocking: Arc::clone(config.blocking.pool()),
            },
            lives: Vec::new(),
            grace: self.grace_period,
        };
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            let mut cores = Vec::new();
            for (index, _) in processors.into_iter().enumerate() {
                let core = Core::new(index as u32, &config).map_err(BuildError::ring)?;
                cores.push(CoreHandle::of(&core));
                runtime.handle.cores = cores.clone().into();
                let place = world.add(core, None);
                runtime.lives.push(CoreLife::Simulated(world.home(place)));
            }
            let _ = config.runtime.set(runtime.handle());
            return Ok(runtime);
        }
        let (tell, told) = mpsc::channel();
        let mut cores = Vec::new();
        for (index, processor) in processors.into_iter().enumerate() {
            let (config, tell) = (config.clone(), tell.clone());
            let body = move || core_thread(index as u32, processor, &config, &tell);
            let thread = thread::Builder::new()
                .name(format!("quoit-{index}"))
                .spawn(body)
                .map_err(BuildError::Thread)?;
            runtime.lives.push(CoreLife::Thread(thread));
            // One after the other, so that cores are numbered in order, and the first refusal is
            // the one reported.
            let core = told
                .recv()
                .expect("a core's thread says how its set-up went")?;
            cores.push(core);
            runtime.handle.cores = cores.clone().into();
        }
        let _ = config.runtime.set(runtime.handle());
        Ok(runtime)
    }

    /// Runs one future to its end on the calling thread, with a core of its own there.
    ///
    /// The thread is pinned only if one core was chosen, and only until this returns. Tasks that
    /// the future leaves behind are cancelled, and dropped after the grace period.
    ///
    /// # Errors
    ///
    /// As for [`Builder::build`]; and if more than one core was chosen.
    ///
    /// # Panics
    ///
    /// On a thread that runs a core already. A panic of the future goes on, after the core has
    /// stopped.
    pub fn block_on<F: Future>(self, future: F) -> Result<F::Output, BuildError> {
        assert!(
            CoreId::current().is_none(),
            "block_on was called on a thread that runs a core already: await the future instead"
        );
        let config = self.check()?;
        let _pinned = match &self.cores {
            None => None,
            Some(_) => match self.processors()?[..] {
                #[cfg(feature = "sim")]
                [_] if crate::sim::is_running() => None,
                [processor] => Some(Pinned::to(processor).map_err(BuildError::Thread)?),
                [..] => {
                    let what = "block_on runs on one core: choose one, or none".to_owned();
                    return Err(BuildError::Cores(what));
                }
            },
        };
        let core = Core::new(0, &config).map_err(BuildError::ring)?;
        let _ = config.runtime.set(Handle {
            cores: Arc::new([CoreHandle::of(&core)]),
            grace: self.grace_period,
            blocking: Arc::clone(config.blocking.pool()),
        });
        let mut future = pin!(Some(guarded(future)));
        let mut output = None;
        let main: MainPoll<'_> = &mut |cx| {
            let future = future.as_mut().as_pin_mut();
            match future.expect("dropped at the end only").poll(cx) {
                Poll::Ready(value) => {
                    output = Some(value);
                    true
                }
                Poll::Pending => false,
            }
        };
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            let life = core.with_main(self.grace_period);
            let place = world.add(core, Some(life));
            if let Err(failure) = caught(|| world.drive_main(place, main)) {
                // The simulation has failed, while the future was waiting: its destructors need
                // their core, and must not panic while this does.
                world.end_on(place, || future.set(None));
                resume_unwind(failure);
            }
        } else {
            core.run_main(main, self.grace_period);
        }
        #[cfg(not(feature = "sim"))]
        core.run_main(main, self.grace_period);
        match output.expect("run_main returns once the future has ended") {
            Ok(value) => Ok(value),
            Err(payload) => resume_unwind(payload),
        }
    }
}

/// Starts a thread, for work that blocks and whose end nobody waits for. In a simulation `work` runs
/// outside of all cores, soon. A thread that a core starts is not pinned as the core is: it may run where the
/// runtime was built.
///
/// # Errors
///
/// Those of `pthread_create(3)`; `InvalidInput` for a name with a zero byte in it.
pub fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    if name.contains('\0') {
        let what = "the name of a thread has no zero byte in it";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        world.script(Duration::ZERO, Box::new(work));
        return Ok(());
    }
    let pool = current::try_with(|core| Arc::clone(core.blocking.pool()));
    let body = move || {
        if let Some(pool) = pool {
            pool.leave_the_core();
        }
        work();
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
}

/// Blocks until a message is there; an error when none will come.
fn receive<T>(from: &mpsc::Receiver<T>) -> Result<T, mpsc::RecvError> {
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return world.drive(|| match from.try_recv() {
            Ok(message) => Some(Ok(message)),
            Err(mpsc::TryRecvError::Disconnected) => Some(Err(mpsc::RecvError)),
            Err(mpsc::TryRecvError::Empty) => None,
        });
    }
    from.recv()
}

/// Runs one future to its end on the calling thread, with a core of its own there.
///
/// # Errors
///
/// As for [`Builder::build`].
///
/// # Panics
///
/// On a thread that runs a core already. A panic of the future goes on.
pub fn block_on<F: Future>(future: F) -> Result<F::Output, BuildError> {
    Builder::default().block_on(future)
}

/// The calling thread on one processor; put back when dropped.
struct Pinned(sys::Affinity);

impl Pinned {
    fn to(processor: usize) -> io::Result<Self> {
        let before = sys::Affinity::current()?;
        pin_to(processor)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The thread stays where it is if it cannot go back.
        let _ = self.0.restore();
    }
}

fn pin_to(processor: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: processor }) {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the thread could not be pinned to processor {processor}"
        )))
    }
}

/// The life of a core's thread.
fn core_thread(
    index: u32,
    processor: usize,
    config: &CoreConfig,
    tell: &mpsc::Sender<Result<CoreHandle, BuildError>>,
) {
    let set_up = pin_to(processor)
        .map_err(BuildError::Thread)
        .and_then(|()| Core::new(index, config).map_err(BuildError::ring));
    match set_up {
        Ok(core) => {
            if tell.send(Ok(CoreHandle::of(&core))).is_ok() {
                core.run();
            }
        }
        Err(error) => {
            let _ = tell.send(Err(error));
        }
    }
}

/// Why a closure could not be sent to a core. It comes back, unless the core ended meanwhile.
#[non_exhaustive]
pub enum SpawnError<F> {
    /// The core's mailbox is full: try again later, or elsewhere.
    Full(F),
    /// The core has ended.
    Closed(F),
}

impl<F> SpawnError<F> {
    /// Returns the closure that was not sent.
    pub fn into_inner(self) -> F {
        match self {
            Self::Full(closure) | Self::Closed(closure) => closure,
        }
    }
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpawnError({self})")
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the core's mailbox is full",
            Self::Closed(_) => "the core has ended",
        })
    }
}

impl<F> Error for SpawnError<F> {}

/// Without the closure. A full mailbox is of kind [`io::ErrorKind::WouldBlock`].
impl<F> From<SpawnError<F>> for io::Error {
    fn from(error: SpawnError<F>) -> Self {
        let kind = match error {
            SpawnError::Full(_) => io::ErrorKind::WouldBlock,
            SpawnError::Closed(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error.to_string())
    }
}

impl Handle {
    /// Returns the handle of the runtime that this code runs in, if it runs on a core.
    pub fn current() -> Option<Self> {
        current::try_with(|core| core.runtime.get().cloned()).flatten()
    }

    /// Returns the cores, in order.
    pub fn cores(&self) -> Vec<CoreId> {
        self.cores.iter().map(|core| core.id).collect()
    }

    /// Starts a task on a core of this runtime: `closure` is called there, and the future it makes
    /// need not be `Send`.
    ///
    /// Never waits. From a foreign thread, [`RemoteHandle::wait`] waits for the output.
    ///
    /// # Errors
    ///
    /// Gives the closure back if the core's mailbox is full, or the core has ended.
    ///
    /// # Panics
    ///
    /// If `core` belongs to another runtime.
    pub fn spawn<F, M>(
        &self,
        core: CoreId,
        closure: F,
    ) -> Result<RemoteHandle<M::Output>, SpawnError<F>>
    where
        F: FnOnce() -> M + Send + 'static,
        M: Future<Output: Send + 'static> + 'static,
    {
        let target = self.find(core);
        let slot = Arc::new(RemoteSlot::default());
        let scope = Arc::new(FarScope::new());
        // The closure lies where both sides can reach it, so that it comes back if it is not sent.
        let shelf = Arc::new(Mutex::new(Some(closure)));
        let job = {
            let (shelf, scope, fill) = (
                Arc::clone(&shelf),
                Arc::clone(&scope),
                Fill {
                    slot: Arc::clone(&slot),
                    filled: false,
                },
            );
            move || {
                let Some(closure) = lock(&shelf).take() else {
                    return;
                };
                let mut fill = fill;
                current::with(|core| {
                    let root = core.tree.borrow().root();
                    let (task, node) = core.spawn_under(root, async move {
                        fill.fill(outcome_of(async move { closure().await }).await);
                    });
                    scope.arrive(core, node);
                    let output = core.tasks.borrow_mut().detach(task);
                    drop(output);
                });
            }
        };
        match target.send(Box::new(job)) {
            Ok(()) => Ok(RemoteHandle { slot, scope }),
            Err(refused) => {
                let closure = lock(&shelf).take();
                match (refused, closure) {
                    (Refused::Full, Some(closure)) => Err(SpawnError::Full(closure)),
                    (Refused::Closed, Some(closure)) => Err(SpawnError::Closed(closure)),
                    // It was taken in the last moment: the handle tells how it ended.
                    (_, None) => Ok(RemoteHandle { slot, scope }),
                }
            }
        }
    }

    /// Asks the runtime to stop, with its own grace period. Returns at once.
    pub fn shutdown(&self) {
        self.shutdown_within(self.grace);
    }

    /// Asks the runtime to stop: tasks are cancelled, and dropped after `grace`. Returns at once.
    ///
    /// Called again with less patience, the runtime has less. One of `block_on` waits for its future, which is
    /// cancelled as well, however long that takes: what is left then is dropped.
    pub fn shutdown_within(&self, grace: Duration) {
        for core in self.cores.iter() {
            core.shared.ask_to_stop(core.id.incarnation, grace);
        }
    }

    /// Returns what each core has done so far. A core that has ended says what it said last, and zero once
    /// another has taken its place in the process.
    pub fn metrics(&self) -> Vec<CoreMetrics> {
        let of = |core: &CoreHandle| {
            let metrics = core.shared.counters.snapshot();
            let is_its_own = core.shared.is_or_was(core.id.incarnation);
            if is_its_own {
                metrics
            } else {
                CoreMetrics::default()
            }
        };
        self.cores.iter().map(of).collect()
    }

    /// Returns everything that the cores have counted and measured so far, from any thread and without
    /// asking them. A core that has ended says what it said last, and nothing once another has taken its place in
    /// the process.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self.cores.iter().map(|core| {
            let is_its_own = || core.shared.is_or_was(core.id.incarnation);
            (core.shared, is_its_own)
        }))
    }

    /// Puts a closure into the mailbox of a core.
    pub(crate) fn send(&self, core: CoreId, job: Job) -> Result<(), Refused> {
        self.find(core).send(job)
    }

    /// Returns how many turns a core has begun.
    pub(crate) fn turns_of(&self, core: CoreId) -> u64 {
        self.find(core).shared.counters.snapshot().turns
    }

    /// Returns how much of the runtime's threads for blocking jobs is in use.
    pub fn blocking_usage(&self) -> Usage {
        self.blocking.usage()
    }

    fn is_stopping(&self) -> bool {
        let asked = |core: &CoreHandle| core.shared.was_asked_to_stop(core.id.incarnation);
        self.cores.iter().any(asked)
    }

    fn find(&self, id: CoreId) -> &CoreHandle {
        self.cores
            .iter()
            .find(|core| core.id == id)
            .expect("a core is reached through a handle of its own runtime")
    }
}

impl CoreHandle {
    fn of(core: &Core) -> Self {
        Self {
            id: core.id,
            shared: core.shared,
            closures: Arc::clone(&core.closures),
        }
    }

    fn send(&self, job: Job) -> Result<(), Refused> {
        self.closures.send(job).map_err(|(refused, job)| {
            drop(job);
            refused
        })?;
        self.shared.rouse();
        Ok(())
    }

    /// As `send`, on a foreign thread, which waits for room. A core that has ended drops what it is sent.
    fn send_in_turn(&self, job: Job) {
        self.closures.send_in_turn(job);
        self.shared.rouse();
    }
}

/// Waits, on a foreign thread, for the output of a task that was started by [`Handle::spawn`].
///
/// Dropped, it lets the task go on.
#[must_use = "a handle that is dropped lets its task go on; say so with `drop` or `let _ =`"]
pub struct RemoteHandle<T> {
    slot: Arc<RemoteSlot<T>>,
    scope: Arc<FarScope>,
}

/// Why a task on a core gave no output.
#[non_exhaustive]
pub enum RemoteError {
    /// The task panicked, and this is what it panicked with.
    Panicked(Box<dyn Any + Send>),
    /// The core ended before the task had.
    Gone,
    /// The task left a group behind, leaked; its output is gone with it.
    AbandonedGroup,
    /// The caller runs a core itself: waiting would block it, so nothing was waited for.
    WouldBlock,
}

impl fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteError({self})")
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panicked(_) => "the task panicked",
            Self::Gone => "the core ended before the task had",
            Self::AbandonedGroup => {
                "the task ended while a group that it had opened was there: it was leaked"
            }
            Self::WouldBlock => {
                "a core cannot block to wait for a task: wait on a thread of your own"
            }
        })
    }
}

impl Error for RemoteError {}

/// In words, also what the task panicked with.
impl From<RemoteError> for io::Error {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Panicked(payload) => {
                Self::other(format!("the task panicked: {}", text_of(&*payload)))
            }
            RemoteError::WouldBlock => Self::new(
                io::ErrorKind::WouldBlock,
                RemoteError::WouldBlock.to_string(),
            ),
            RemoteError::Gone | RemoteError::AbandonedGroup => Self::other(error.to_string()),
        }
    }
}

/// Runs a task whose end somebody waits for on a thread, and says what it came to.
pub(crate) async fn outcome_of<F: Future>(future: F) -> Result<F::Output, RemoteError> {
    match guarded(future).await {
        Ok(output) if has_leaked_a_group() => {
            contained(|| drop(output));
            Err(RemoteError::AbandonedGroup)
        }
        outcome => outcome.map_err(RemoteError::Panicked),
    }
}

struct RemoteSlot<T> {
    output: Mutex<Option<Result<T, RemoteError>>>,
    filled: Condvar,
}

impl<T> Default for RemoteSlot<T> {
    fn default() -> Self {
        Self {
            output: Mutex::new(None),
            filled: Condvar::new(),
        }
    }
}

impl<T> fmt::Debug for RemoteHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHandle").finish_non_exhaustive()
    }
}

/// Answers a [`RemoteHandle`], once. Dropped before, it says that nobody will.
pub struct RemoteSender<T>(Fill<T>);

impl<T> fmt::Debug for RemoteSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSender").finish_non_exhaustive()
    }
}

impl<T> RemoteSender<T> {
    /// Gives the answer.
    pub fn send(mut self, value: T) {
        self.0.fill(Ok(value));
    }

    /// Tells how a task has ended.
    pub(crate) fn end(mut self, outcome: Result<T, RemoteError>) {
        self.0.fill(outcome);
    }
}

impl<T> RemoteHandle<T> {
    /// Makes a handle that waits for whatever is sent: how a task tells a thread something before it
    /// ends.
    pub fn channel() -> (RemoteSender<T>, Self) {
        let slot = Arc::new(RemoteSlot::default());
        let fill = Fill {
            slot: Arc::clone(&slot),
            filled: false,
        };
        let scope = Arc::new(FarScope::new());
        (RemoteSender(fill), Self { slot, scope })
    }

    /// Cancels the task, at once or before it begins: it is polled, and its ops fail. It ends as it
    /// sees fit, and can still be waited for. Only the first call counts; a handle of
    /// [`RemoteHandle::channel`] has no task.
    pub fn cancel(&self) {
        self.scope.cancel(Reason::Requested, None);
    }

    /// Blocks the calling thread until the task has ended.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: the task panicked, or its core ended first; on a core, at once, that
    /// waiting would block it.
    pub fn wait(self) -> Result<T, RemoteError> {
        match self.wait_until(Instant::NEVER) {
            Ok(outcome) => outcome,
            Err(_) => unreachable!("nobody has waited for ever"),
        }
    }

    /// As [`RemoteHandle::wait`], for so long at most. The handle comes back if the task has not
    /// ended by then: wait again, [cancel](RemoteHandle::cancel) it, or let it go on.
    ///
    /// # Errors
    ///
    /// The handle, after `patience`. Inside, those of [`RemoteHandle::wait`].
    pub fn wait_for(self, patience: Duration) -> Result<Result<T, RemoteError>, Self> {
        self.wait_until(Instant::now() + patience)
    }

    fn wait_until(self, deadline: Instant) -> Result<Result<T, RemoteError>, Self> {
        if CoreId::current().is_some() {
            return Ok(Err(RemoteError::WouldBlock));
        }
        let is_over = || deadline != Instant::NEVER && Instant::now() >= deadline;
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            if deadline != Instant::NEVER {
                // So that time passes, should nobody have anything else to do.
                world.script(deadline - Instant::now(), Box::new(|| {}));
            }
            let outcome = world.drive(|| {
                let output = lock(&self.slot.output).take();
                output.map(Some).or_else(|| is_over().then_some(None))
            });
            return outcome.ok_or(self);
        }
        let mut output = lock(&self.slot.output);
        loop {
            if let Some(outcome) = output.take() {
                return Ok(outcome);
            }
            if is_over() {
                drop(output);
                return Err(self);
            }
            let patience = deadline - Instant::now();
            let filled = &self.slot.filled;
            output = if deadline == Instant::NEVER {
                filled.wait(output).unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = filled.wait_timeout(output, patience);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }
}

/// The task's end of a [`RemoteSlot`]: dropped without an output, it says that the core is gone.
struct Fill<T> {
    slot: Arc<RemoteSlot<T>>,
    filled: bool,
}

impl<T> Fill<T> {
    fn fill(&mut self, outcome: Result<T, RemoteError>) {
        self.filled = true;
        *lock(&self.slot.output) = Some(outcome);
        self.slot.filled.notify_one();
    }
}

impl<T> Drop for Fill<T> {
    fn drop(&mut self) {
        if !self.filled {
            self.fill(Err(RemoteError::Gone));
        }
    }
}

/// A thread that panicked while it held one of these locks left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
