//! `World`: everything that a simulated program runs in, and the scheduler of its cores.
//!
//! One thread. A core takes a step when the scheduler picks it; a core that waits in the kernel is
//! picked again when the kernel has something for it. Code outside of all cores is the program itself:
//! when it blocks, the scheduler runs until what it waits for is there. Time stands still while
//! anybody can go on, and jumps to the next thing that happens when nobody can.
//!
//! Invariants:
//! - Nothing of the world is borrowed while a core takes a step or a scripted closure runs.
//! - Whatever may come in more than one order is decided by the seed (or the path), and only there.

use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::{Duration, SystemTime};

use super::fault::Fault;
use super::kernel::{Coming, Kernel, Kind, RingId, net};
use super::trace::What;
use crate::core_loop::{Life, MainPoll, Step};
use crate::core_state::Core;
use crate::driver::socket::SocketOption;
use crate::driver::{Driver, Wait};
use crate::metrics::CoreMetrics;
use crate::task::current;
use crate::time::Instant;

/// The machine has been up for a second when the simulation begins.
const START: u64 = 1_000_000_000;

/// Steps of one core in a row that get nothing done, before it counts as spinning.
const IDLE_STEPS: u32 = 64;

/// How often the clock may be read in one step, before that counts as waiting for it in place.
const CLOCK_READS: u64 = 3_000_000;

/// Entries into the kernel that one step may make: a turn makes one, and some more to get rid of
/// what found the queue full.
const ENTRIES_PER_STEP: u32 = 20_000;

/// Steps that the destructors of a program that has failed may take.
const STEPS_TO_UNWIND: u64 = 200_000;

/// What a run is bounded by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) steps: u64,
    pub(crate) steps_per_instant: u64,
}

type Script = Box<dyn FnOnce()>;

pub(crate) struct World {
    pub(crate) kernel: RefCell<Kernel>,
    cores: RefCell<Vec<Rc<SimCore>>>,
    scripts: RefCell<Vec<Option<Script>>>,
    /// Which of this process it is. Nothing that happens depends on it.
    number: u64,
    seed: u64,
    limits: Limits,
    default_cores: usize,
    steps: Cell<u64>,
    steps_at_instant: Cell<u64>,
    /// How often the clock was read since somebody last took a step.
    clock_reads: Cell<u64>,
    /// How often the kernel was entered since a step began.
    entries: Cell<u32>,
    std_base: std::time::Instant,
    /// What is left is being ended, after a failure.
    calmed: Cell<bool>,
    /// What the run has failed by.
    failure: RefCell<String>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// A core and how it stands with the scheduler.
struct SimCore {
    core: RefCell<Option<Rc<Core>>>,
    life: RefCell<Life>,
    standing: Cell<Standing>,
    ring: RingId,
    stalled_until: Cell<u64>,
    seen: Cell<CoreMetrics>,
    idle_steps: Cell<u32>,
}

impl SimCore {
    /// Whether its steps may be taken by who waits for the end of `main`, or by anybody.
    fn may_run_here(&self, place: Place, main: Option<Place>) -> bool {
        main == Some(place) || !matches!(*self.life.borrow(), Life::Main { .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It can take a step.
    Runs,
    /// It waits in the kernel.
    Waits,
    /// A step of it is on the stack.
    Busy,
    /// It is no more.
    Ended,
}

/// The number of a core in its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) usize);

/// Where a core is, for those who may outlive its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Home {
    world: u64,
    place: Place,
}

impl World {
    pub(crate) fn new(seed: u64, kernel: Kernel, limits: Limits, default_cores: usize) -> Rc<Self> {
        static WORLDS: AtomicU64 = AtomicU64::new(0);
        Rc::new(Self {
            number: WORLDS.fetch_add(1, Ordering::Relaxed),
            seed,
            kernel: RefCell::new(kernel),
            cores: RefCell::default(),
            scripts: RefCell::default(),
            limits,
            default_cores,
            steps: Cell::new(0),
            steps_at_instant: Cell::new(0),
            clock_reads: Cell::new(0),
            entries: Cell::new(0),
            std_base: crate::driver::real_std_now(),
            calmed: Cell::new(false),
            failure: RefCell::default(),
        })
    }

    // --- what the driver asks ---

    pub(crate) fn now(&self) -> Instant {
        self.count_read();
        Instant::from_nanos(START + self.kernel.borrow().now)
    }

    /// The time since the simulation began.
    pub(crate) fn virtual_nanos(&self, at: Instant) -> u64 {
        at.as_nanos().saturating_sub(START)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.kernel.borrow().now)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    pub(crate) fn clock_base(&self) -> (std::time::Instant, Instant) {
        (self.std_base, Instant::from_nanos(START))
    }

    pub(crate) fn wall_clock(&self) -> SystemTime {
        self.count_read();
        let nanos = self.kernel.borrow_mut().wall_nanos();
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos.max(0) as u64)
    }

    pub(crate) fn random(&self) -> u64 {
        self.kernel.borrow_mut().random.next()
    }

    pub(crate) fn default_cores(&self) -> usize {
        self.default_cores
    }

    /// Whether a message to a core finds its mailbox full.
    pub(crate) fn mailbox_is_full(&self) -> bool {
        self.kernel.borrow_mut().comes(Fault::MailboxFull)
    }

    fn call<R>(&self, f: impl FnOnce(&mut Kernel) -> Result<R, i32>) -> io::Result<R> {
        f(&mut self.kernel.borrow_mut()).map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn socket(&self) -> io::Result<RawFd> {
        self.call(|kernel| {
            let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
            if let Some(errno) = kernel.refused(Fault::SocketRefused, &errors) {
                return Err(errno);
            }
            let object = kernel.make(Kind::Socket(net::Socket::fresh()));
            open_or_release(kernel, object, "socket")
        })
    }

    pub(crate) fn pipe(&self) -> io::Result<[RawFd; 2]> {
        self.call(|kernel| {
            let errors = [libc::EMFILE, libc::ENFILE];
            if let Some(errno) = kernel.refused(Fault::SocketRefused, &errors) {
                return Err(errno);
            }
            let [read, write] = kernel.make_pipe();
            let reads = match kernel.open(read, "pipe") {
                Ok(fd) => fd,
                Err(errno) => {
                    kernel.release(read);
                    kernel.release(write);
                    return Err(errno);
                }
            };
            match open_or_release(kernel, write, "pipe") {
                Ok(writes) => Ok([reads, writes]),
                Err(errno) => {
                    kernel.close(reads)?;
                    Err(errno)
                }
            }
        })
    }

    /// The channel that a core is woken by. Not one of the program's descriptors: it has no limit.
    pub(crate) fn eventfd(&self) -> RawFd {
        let mut kernel = self.kernel.borrow_mut();
        let object = kernel.make(Kind::Counter(0));
        kernel.open_own(object, "wake-up channel")
    }

    pub(crate) fn close_eventfd(&self, fd: RawFd) {
        self.kernel.borrow_mut().close_own(fd);
    }

    pub(crate) fn bind(&self, fd: RawFd, address: SocketAddr) -> io::Result<()> {
        self.call(|kernel| {
            kernel
                .look_up(fd)
                .and_then(|id| kernel.bind_socket(id, address))
        })
    }

    pub(crate) fn listen(&self, fd: RawFd, backlog: i32) -> io::Result<()> {
        self.call(|kernel| {
            kernel
                .look_up(fd)
                .and_then(|id| kernel.listen_socket(id, backlog))
        })
    }

    pub(crate) fn set_option(&self, fd: RawFd, option: SocketOption) -> io::Result<()> {
        self.call(|kernel| {
            kernel
                .look_up(fd)
                .and_then(|id| kernel.set_option(id, option))
        })
    }

    pub(crate) fn shutdown(&self, fd: RawFd, how: Shutdown) -> io::Result<()> {
        self.call(|kernel| kernel.look_up(fd).and_then(|id| kernel.shut_down(id, how)))
    }

    pub(crate) fn local_addr(&self, fd: RawFd) -> io::Result<SocketAddr> {
        self.call(|kernel| kernel.look_up(fd).and_then(|id| kernel.local_address(id)))
    }

    pub(crate) fn peer_addr(&self, fd: RawFd) -> io::Result<SocketAddr> {
        self.call(|kernel| kernel.look_up(fd).and_then(|id| kernel.peer_address(id)))
    }

    pub(crate) fn bytes_acknowledged(&self, fd: RawFd) -> io::Result<u64> {
        self.call(|kernel| kernel.look_up(fd).and_then(|id| kernel.acknowledged(id)))
    }

    pub(crate) fn accept_waiting(&self, fd: RawFd) -> Vec<RawFd> {
        let mut kernel = self.kernel.borrow_mut();
        let mut accepted = Vec::new();
        let Ok(listener) = kernel.look_up(fd) else {
            return accepted;
        };
        while let Some(Ok(taken)) = kernel.take_connection(listener) {
            match kernel.open(taken, "accept") {
                Ok(fd) => {
                    kernel.disown(taken);
                    accepted.push(fd);
                }
                Err(_) => {
                    kernel.put_connection_back(listener, taken);
                    break;
                }
            }
        }
        accepted
    }

    pub(crate) fn status(&self, fd: RawFd) -> io::Result<libc::statx> {
        self.call(|kernel| kernel.status_of_descriptor(fd))
    }

    pub(crate) fn read_folder(&self, fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
        self.call(|kernel| kernel.list(fd, buffer))
    }

    pub(crate) fn close(&self, fd: RawFd) {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.close(fd).is_err() {
            kernel.violated(
                "descriptor",
                format!(
                    "descriptor {} was closed twice",
                    fd - super::kernel::FIRST_FD
                ),
            );
        }
    }

    pub(crate) fn wake(&self, fd: RawFd) -> io::Result<()> {
        self.kernel.borrow_mut().add_to_counter(fd)
    }

    // --- what the program asks ---

    pub(crate) fn note(&self, note: String) {
        self.kernel.borrow_mut().record(What::Note(note));
    }

    pub(crate) fn pass(&self, point: &'static str) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.record(What::Note(format!("point {point:?}")));
        kernel.faults.pass(point);
    }

    pub(crate) fn force(&self, fault: Fault) {
        self.kernel.borrow_mut().faults.force(fault);
    }

    pub(crate) fn end_faults(&self) {
        self.kernel.borrow_mut().faults.end();
    }

    pub(crate) fn script(&self, after: Duration, closure: Script) {
        let mut scripts = self.scripts.borrow_mut();
        scripts.push(Some(closure));
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        let script = Coming::Script(scripts.len() - 1);
        self.kernel.borrow_mut().after(nanos, script);
    }

    // --- cores ---

    /// Takes a core in, which runs from now on.
    pub(crate) fn add(&self, core: Core, life: Option<Life>) -> Place {
        let ring = match &*core.driver.borrow() {
            Driver::Simulated(ring) => ring.id(),
            Driver::Ring(_) => {
                unreachable!("a core that is made in a simulation has its ring there")
            }
        };
        let mut cores = self.cores.borrow_mut();
        cores.push(Rc::new(SimCore {
            core: RefCell::new(Some(Rc::new(core))),
            life: RefCell::new(life.unwrap_or(Life::Running)),
            standing: Cell::new(Standing::Runs),
            ring,
            stalled_until: Cell::new(0),
            seen: Cell::default(),
            idle_steps: Cell::new(0),
        }));
        Place(cores.len() - 1)
    }

    pub(crate) fn home(&self, place: Place) -> Home {
        Home {
            world: self.number,
            place,
        }
    }

    /// Returns the place of a core, if it is one of this world's.
    pub(crate) fn place(&self, home: Home) -> Option<Place> {
        (home.world == self.number).then_some(home.place)
    }

    pub(crate) fn has_ended(&self, place: Place) -> bool {
        self.cores.borrow()[place.0].standing.get() == Standing::Ended
    }

    /// Runs the world until `done` says so: what a thread does that blocks.
    pub(crate) fn drive<T>(&self, mut done: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(value) = done() {
                return value;
            }
            self.go_on(None);
        }
    }

    /// As [`Self::drive`], with a core whose main future lies on the caller's stack.
    pub(crate) fn drive_main(&self, place: Place, main: MainPoll<'_>) {
        while !self.has_ended(place) {
            self.go_on(Some((place, main)));
        }
    }

    /// Lets a core that will go no further do something that may fail once more, such as dropping its
    /// main future.
    pub(crate) fn end_on(&self, place: Place, f: impl FnOnce()) {
        let core = self.cores.borrow()[place.0].core.borrow().clone();
        if let Some(core) = core {
            crate::panics::contained(|| current::enter(&core, f));
        }
    }

    /// Lets one thing happen.
    fn go_on(&self, main: Option<(Place, MainPoll<'_>)>) {
        self.check();
        self.clock_reads.set(0);
        self.steps.set(self.steps.get() + 1);
        let limit = if self.calmed.get() {
            STEPS_TO_UNWIND
        } else {
            self.limits.steps
        };
        if self.steps.get() > limit {
            self.fail(
                "end",
                format!("the program has not ended within {limit} steps of the simulation"),
            );
        }
        let whose = main.as_ref().map(|(place, _)| *place);
        let runnable = self.runnable(whose);
        let due = self
            .kernel
            .borrow()
            .next_coming()
            .is_some_and(|at| at <= self.now_nanos());
        let ways = runnable.len() + usize::from(due);
        if ways == 0 {
            return self.jump(whose);
        }
        let chosen = self.kernel.borrow_mut().choices.choose(ways);
        match runnable.get(chosen) {
            None => self.happen(),
            Some(&place) => {
                let main = main.and_then(|(whose, main)| (whose == place).then_some(main));
                self.step(place, main);
            }
        }
    }

    /// A core is about to park: lets others do something first, as threads may.
    pub(crate) fn before_a_park(&self) {
        if self.calmed.get() || !self.kernel.borrow_mut().comes(Fault::LastLook) {
            return;
        }
        let others = self.runnable(None);
        let due = self.kernel.borrow().next_coming();
        if due.is_some_and(|at| at <= self.now_nanos()) {
            self.happen();
        } else if !others.is_empty() {
            let chosen = self.kernel.borrow_mut().choices.choose(others.len());
            self.step(others[chosen], None);
        }
    }

    fn now_nanos(&self) -> u64 {
        self.kernel.borrow().now
    }

    /// Returns every core that can take a step. One with a main future takes its steps under its own
    /// caller, who has that future.
    fn runnable(&self, main: Option<Place>) -> Vec<Place> {
        let kernel = self.kernel.borrow();
        let now = kernel.now;
        let can_run = |core: &SimCore| {
            if core.stalled_until.get() > now {
                return false;
            }
            match core.standing.get() {
                Standing::Runs => true,
                Standing::Busy | Standing::Ended => false,
                Standing::Waits => wake_time(&kernel, core).is_some_and(|at| at <= now),
            }
        };
        let cores = self.cores.borrow();
        let places = cores.iter().enumerate();
        places
            .map(|(place, core)| (Place(place), core))
            .filter(|(place, core)| can_run(core) && core.may_run_here(*place, main))
            .map(|(place, _)| place)
            .collect()
    }

    /// Nobody can go on: moves the clock to when somebody can.
    fn jump(&self, main: Option<Place>) {
        let next = {
            let kernel = self.kernel.borrow();
            let cores = self.cores.borrow();
            let places = cores.iter().enumerate();
            let here = places.filter(|(place, core)| core.may_run_here(Place(*place), main));
            let cores = here.filter_map(|(_, core)| match core.standing.get() {
                Standing::Runs => Some(core.stalled_until.get()),
                Standing::Waits => {
                    wake_time(&kernel, core).map(|at| at.max(core.stalled_until.get()))
                }
                Standing::Busy | Standing::Ended => None,
            });
            cores.chain(kernel.next_coming()).min()
        };
        match next {
            Some(at) if at < u64::MAX - START => self.advance_to(at),
            _ => self.fail("deadlock", super::report::deadlock(&self.living())),
        }
    }

    fn advance_to(&self, at: u64) {
        let mut kernel = self.kernel.borrow_mut();
        if at > kernel.now {
            kernel.now = at;
            self.steps_at_instant.set(0);
        }
    }

    /// Lets something of the world's own happen.
    fn happen(&self) {
        let coming = {
            let mut kernel = self.kernel.borrow_mut();
            let Some(coming) = kernel.take_due() else {
                return;
            };
            let before = kernel.running.take();
            kernel.happen(&coming);
            if let Coming::Script(_) = coming {
                kernel.record(What::World("a script runs"));
            }
            kernel.running = before;
            coming
        };
        if let Coming::Script(script) = coming {
            let closure = self.scripts.borrow_mut()[script].take();
            if let Some(closure) = closure {
                // Also when a core waits for others, and this comes in between.
                current::outside(closure);
            }
        }
    }

    /// Lets a core take a step.
    fn step(&self, place: Place, main: Option<MainPoll<'_>>) {
        let sim_core = Rc::clone(&self.cores.borrow()[place.0]);
        if sim_core.standing.get() == Standing::Runs {
            let drawn = self
                .kernel
                .borrow_mut()
                .drawn(Fault::CoreStalls, 50_000_000);
            if let Some(nanos) = drawn {
                return sim_core.stalled_until.set(self.now_nanos() + nanos);
            }
        }
        let core = sim_core
            .core
            .borrow()
            .clone()
            .expect("a core that has not ended");
        self.entries.set(0);
        let outside = self.kernel.borrow_mut().running.replace(place.0);
        let standing = sim_core.standing.replace(Standing::Busy);
        let last = match *sim_core.life.borrow() {
            Life::Ending { last, .. } => Some(last),
            _ => None,
        };
        let next = current::enter(&core, || {
            if standing == Standing::Waits {
                if !self.finish_wait(&sim_core) {
                    return Standing::Waits;
                }
                core.woken(&sim_core.life.borrow());
                return Standing::Runs;
            }
            let mut life = sim_core.life.replace(Life::Ended);
            {
                let mut kernel = self.kernel.borrow_mut();
                kernel.record(What::Step);
                kernel.runs(core.shared.eventfd());
            }
            let step = match main {
                Some(main) => core.step(&mut life, main),
                None => core.step(&mut life, &mut not_now),
            };
            sim_core.life.replace(life);
            match step {
                Step::Again => Standing::Runs,
                Step::Waited => Standing::Waits,
                Step::Ended => Standing::Ended,
            }
        });
        if standing == Standing::Waits && next == Standing::Waits {
            // A wait that has a reason to end and does not: it must not go on like this.
            self.count_step();
        }
        let before = sim_core.seen.get();
        if standing == Standing::Runs {
            self.count_step();
            self.look_for_progress(&sim_core, &core);
        }
        // A kernel that was too busy to take more is waited for with entries in hand.
        let was_busy = before.busy_enters != sim_core.seen.get().busy_enters;
        if standing == Standing::Runs && next == Standing::Waits && !was_busy {
            self.check_park(&core);
        }
        sim_core.standing.set(next);
        if next == Standing::Ended {
            self.kernel.borrow_mut().record(What::End);
            self.check_end(&sim_core, &core, last);
            sim_core.core.replace(None);
            drop(core);
        }
        self.kernel.borrow_mut().running = outside;
        let slow = self.kernel.borrow_mut().drawn(Fault::SlowTurn, 300_000);
        if let Some(nanos) = slow {
            self.advance_to(self.now_nanos() + nanos);
        }
    }

    /// Ends a core's wait in the kernel, if there is a reason to.
    fn finish_wait(&self, sim_core: &SimCore) -> bool {
        let mut kernel = self.kernel.borrow_mut();
        kernel.run_deferred(sim_core.ring);
        let now = kernel.now;
        let ring = kernel.rings[sim_core.ring]
            .as_mut()
            .expect("a ring of a core that lives");
        let over = match ring.waiting {
            Some(Wait::Until(Some(deadline))) => deadline.as_nanos() <= START + now,
            Some(Wait::Until(None)) => false,
            Some(Wait::No) | None => true,
        };
        let wakes = over || ring.interrupted || !ring.completions.is_empty();
        if wakes {
            ring.waiting = None;
            if std::mem::take(&mut ring.interrupted) {
                // That it gets nothing done then is not its doing.
                sim_core.idle_steps.set(0);
            }
            kernel.record(What::Wake);
        }
        wakes
    }

    // --- checks ---

    /// Fails if a rule was broken.
    fn check(&self) {
        let violation = self.kernel.borrow().violation.clone();
        if let Some(violation) = violation {
            if self.calmed.get() {
                self.kernel.borrow_mut().violation = None;
                return;
            }
            self.fail(violation.check, violation.what);
        }
    }

    pub(crate) fn violated(&self, check: &'static str, what: String) {
        self.kernel.borrow_mut().violated(check, what);
    }

    /// Counts an entry into the kernel: a step has to end some day.
    pub(crate) fn count_entry(&self) {
        self.entries.set(self.entries.get() + 1);
        if self.entries.get() > ENTRIES_PER_STEP {
            self.entries.set(0);
            let what = format!("a core entered the kernel {ENTRIES_PER_STEP} times in one step");
            self.fail("spin", what);
        }
    }

    /// Counts a step at this instant: time has to pass some day.
    fn count_step(&self) {
        self.steps_at_instant.set(self.steps_at_instant.get() + 1);
        if self.steps_at_instant.get() > self.limits.steps_per_instant {
            self.violated(
                "spin",
                format!(
                    "{} steps were taken and no time has passed: something never waits. What runs:\n{}",
                    self.limits.steps_per_instant,
                    super::report::cores(&self.living()),
                ),
            );
        }
    }

    /// Counts a look at the clock: it does not go on while somebody runs, so who waits for it in place
    /// would do so for ever.
    fn count_read(&self) {
        self.clock_reads.set(self.clock_reads.get() + 1);
        if self.clock_reads.get() > CLOCK_READS {
            self.clock_reads.set(0);
            let what = format!(
                "the clock was read {CLOCK_READS} times in one step: a loop waits for it to go on, \
                 which it does only when the loop waits for something"
            );
            // For the run, should a task contain the panic.
            self.violated("spin", what.clone());
            self.fail("spin", what);
        }
    }

    fn look_for_progress(&self, sim_core: &SimCore, core: &Core) {
        let now = core.counters().snapshot();
        let before = sim_core.seen.replace(now);
        let done = |metrics: &CoreMetrics| {
            [
                metrics.polls,
                metrics.completions,
                metrics.timers_fired,
                metrics.remote_wakes,
                metrics.remote_cancels,
                metrics.closures,
                metrics.submitted,
                metrics.spawned,
                metrics.busy_enters,
            ]
        };
        if done(&now) != done(&before) {
            sim_core.idle_steps.set(0);
            return;
        }
        sim_core.idle_steps.set(sim_core.idle_steps.get() + 1);
        if sim_core.idle_steps.get() > IDLE_STEPS {
            self.violated(
                "idle turns",
                format!("a core took {IDLE_STEPS} steps in which it got nothing done"),
            );
        }
    }

    /// A core that waits must have left nothing undone.
    fn check_park(&self, core: &Core) {
        let unsubmitted = core.driver.borrow_mut().unsubmitted();
        let waits = match &*core.driver.borrow() {
            Driver::Simulated(ring) => ring.is_waiting(),
            Driver::Ring(_) => false,
        };
        if waits && unsubmitted > 0 {
            self.violated(
                "park",
                format!("a core waits while {unsubmitted} requests are not submitted"),
            );
        }
        if waits && core.tasks.borrow().has_ready() {
            self.violated("park", "a core waits while a task is ready".to_owned());
        }
        if let Some((check, what)) = super::left::by_a_park(core) {
            self.violated(check, what);
        }
        if waits && core.ops.borrow().has_waiting() {
            self.violated(
                "park",
                "a core waits while an op or a cancel request stands in line".to_owned(),
            );
        }
    }

    /// A core that has ended must have given everything back.
    fn check_end(&self, sim_core: &SimCore, core: &Core, last: Option<Instant>) {
        let left = {
            let kernel = self.kernel.borrow();
            let ring = kernel.rings[sim_core.ring].as_ref().expect("still open");
            let missing = ring.provided.as_ref().map_or(0, |provided| {
                let there = provided.ring.tail().wrapping_sub(provided.head);
                provided.ring.entries - there
            });
            (ring.in_flight.len(), missing)
        };
        let was_patient = last.is_none_or(|last| self.now() >= last);
        if left.0 > 0 && !was_patient {
            self.violated(
                "ops",
                format!(
                    "a core has ended, and {} ops are left in the kernel",
                    left.0
                ),
            );
        }
        let held = core.buffers.held();
        if left.0 == 0 && left.1 != held {
            self.violated(
                "provided buffers",
                format!(
                    "{} of the provided buffers never came back, and chunks hold {held}",
                    left.1
                ),
            );
        }
        let slots = core.ops.borrow().occupied();
        let in_kernel = core.ops.borrow().in_kernel();
        if left.0 == 0 && in_kernel > 0 {
            self.violated(
                "ops",
                format!("the core believes {in_kernel} ops in the kernel, which has none"),
            );
        }
        if left.0 == 0 && slots > 0 {
            self.violated("ops", format!("{slots} slots of ops were never vacated"));
        }
        if core.tasks.borrow().live() > 0 {
            self.violated(
                "tasks",
                "a core has ended with tasks that have not".to_owned(),
            );
        }
        let left = {
            let kernel = self.kernel.borrow();
            let ring = kernel.rings[sim_core.ring].as_ref().expect("still open");
            super::left::by_an_end(core, ring)
        };
        if let Some((check, what)) = left {
            self.violated(check, what);
        }
    }

    /// Runs what the program has left behind to its end, and looks for what it has lost.
    pub(crate) fn settle(&self) {
        let failure = self.failure.borrow().clone();
        if !failure.is_empty() {
            // The program has caught it, or a task has contained it: it is a failure all the same.
            std::panic::resume_unwind(Box::new(failure));
        }
        self.drive(|| {
            let ended = |core: &Rc<SimCore>| core.standing.get() == Standing::Ended;
            self.cores.borrow().iter().all(ended).then_some(())
        });
        self.check();
        let open = self.kernel.borrow().open_descriptors();
        if !open.is_empty() {
            let list: Vec<String> = open
                .iter()
                .map(|(fd, name)| format!("{fd} ({name})"))
                .collect();
            self.fail(
                "descriptors",
                format!("the program has ended and left open: {}", list.join(", ")),
            );
        }
        self.check();
    }

    /// After a failure: lets go of the cores, whatever state they are in.
    pub(crate) fn tear_down(&self) {
        self.kernel.borrow_mut().faults.end();
        for sim_core in self.cores.take() {
            let core = sim_core.core.take();
            if let Some(core) = core {
                // Destructors of the program may fail once more; nobody listens.
                crate::panics::contained(|| current::enter(&core, || core.give_up()));
                crate::panics::contained(|| drop(core));
            }
        }
        let scripts = self.scripts.take();
        crate::panics::contained(|| drop(scripts));
    }

    /// Ends the run: panics, with everything that helps to find out why. Returns only while the
    /// program unwinds already: then its destructors are helped to an end.
    fn fail(&self, check: &'static str, what: String) {
        if std::thread::panicking() {
            return self.calm_down(check, &what);
        }
        let report = super::report::failure(self, check, &what);
        self.failure.replace(report.clone());
        panic!("{report}");
    }

    /// The program unwinds, and one of its destructors waits for cores: they are stopped at once.
    fn calm_down(&self, check: &'static str, what: &str) {
        if self.calmed.replace(true) {
            // Past whatever a test harness captures: it would die with the process.
            let _ = writeln!(
                std::io::stderr(),
                "{}\nand the program cannot even be ended ({check}): {what}\n\
                 SIM FAIL seed={:#x}; run it again with\n    {}",
                self.failure.borrow(),
                self.seed,
                super::report::replay(self.seed),
            );
            std::process::abort();
        }
        {
            let mut kernel = self.kernel.borrow_mut();
            kernel.faults.end();
            kernel.violation = None;
        }
        self.steps.set(0);
        self.steps_at_instant.set(0);
        for (_, core) in self.living() {
            core.shared
                .ask_to_stop(core.id.incarnation(), Duration::ZERO);
        }
    }

    fn living(&self) -> Vec<(usize, Rc<Core>)> {
        let cores = self.cores.borrow();
        let living = cores.iter().enumerate();
        living
            .filter_map(|(place, core)| Some((place, core.core.borrow().clone()?)))
            .collect()
    }
}

fn open_or_release(kernel: &mut Kernel, object: usize, name: &'static str) -> Result<RawFd, i32> {
    let opened = kernel.open(object, name);
    if opened.is_err() {
        kernel.release(object);
    }
    opened
}

/// When a core that waits has a reason to wake.
fn wake_time(kernel: &Kernel, core: &SimCore) -> Option<u64> {
    let ring = kernel.rings[core.ring].as_ref()?;
    let waits = match ring.waiting {
        Some(Wait::Until(deadline)) => deadline.map(|at| at.as_nanos().saturating_sub(START)),
        // It has not waited at all.
        Some(Wait::No) | None => Some(0),
    };
    let ready = !ring.completions.is_empty() || !ring.overflow.is_empty() || ring.interrupted;
    let now = ready.then_some(0);
    [waits, ring.next_work(), now].into_iter().flatten().min()
}

/// Another core's main future is not this core's to poll.
fn not_now(_: &mut Context<'_>) -> bool {
    // A core of `block_on` that is stepped by somebody else's wait: its future has to wait.
    unreachable!("a core with a main future is stepped by its own caller only")
}
