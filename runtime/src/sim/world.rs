//! `World`: everything that a simulated program runs in, and the scheduler of its cores.
//!
//! What is asked of it past the rings is in [`super::calls`], what it looks for in [`super::checks`].
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
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

use super::fault::Fault;
use super::kernel::{Coming, Kernel, RingId};
use super::trace::What;
use crate::core_loop::{Life, MainPoll, Step};
use crate::core_state::Core;
use crate::driver::{Driver, Wait};
use crate::metrics::CoreMetrics;
use crate::task::current;

/// The machine has been up for a second when the simulation begins.
pub(super) const START: u64 = 1_000_000_000;

/// Steps of one core in a row that get nothing done, before it counts as spinning.
pub(super) const IDLE_STEPS: u32 = 64;

/// How often the clock may be looked at in one step, before that counts as waiting for it in place.
pub(super) const CLOCK_READS: u64 = 3_000_000;

/// Entries into the kernel that one step may make: a turn makes one, and some more to get rid of
/// what found the queue full.
pub(super) const ENTRIES_PER_STEP: u32 = 20_000;

/// Steps that the destructors of a program that has failed may take.
pub(super) const STEPS_TO_UNWIND: u64 = 200_000;

/// What a run is bounded by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) steps: u64,
    pub(crate) steps_per_instant: u64,
}

pub(super) type Script = Box<dyn FnOnce()>;

pub(crate) struct World {
    pub(crate) kernel: RefCell<Kernel>,
    pub(super) cores: RefCell<Vec<Rc<SimCore>>>,
    pub(super) scripts: RefCell<BTreeMap<usize, Script>>,
    /// Which of this process it is. Nothing that happens depends on it.
    pub(super) number: u64,
    pub(super) seed: u64,
    pub(super) limits: Limits,
    pub(super) default_cores: usize,
    pub(super) steps: Cell<u64>,
    pub(super) steps_at_instant: Cell<u64>,
    /// How often the clock was looked at since somebody last took a step.
    pub(super) clock_reads: Cell<u64>,
    /// How often the kernel was entered since a step began.
    pub(super) entries: Cell<u32>,
    pub(super) std_base: std::time::Instant,
    /// What is left is being ended, after a failure.
    pub(super) calmed: Cell<bool>,
    /// What the run has failed by.
    pub(super) failure: RefCell<String>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// A core and how it stands with the scheduler.
pub(super) struct SimCore {
    pub(super) core: RefCell<Option<Rc<Core>>>,
    pub(super) life: RefCell<Life>,
    pub(super) standing: Cell<Standing>,
    pub(super) ring: RingId,
    pub(super) stalled_until: Cell<u64>,
    pub(super) seen: Cell<CoreMetrics>,
    pub(super) idle_steps: Cell<u32>,
}

impl SimCore {
    /// Whether its steps may be taken by who waits for the end of `main`, or by anybody.
    pub(super) fn may_run_here(&self, place: Place, main: Option<Place>) -> bool {
        main == Some(place) || !matches!(*self.life.borrow(), Life::Main { .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
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
            // Who waits in the place of a thread holds up the core of a `block_on` below it as
            // little as a thread would.
            current::with_lent(|main| self.go_on(main));
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
    pub(super) fn go_on(&self, main: Option<(Place, MainPoll<'_>)>) {
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
            None => self.happen(main),
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
        let due = {
            let kernel = self.kernel.borrow();
            let due = kernel.next_coming().is_some_and(|at| at <= kernel.now);
            // This core is on the stack: what waits for it here would wait for ever.
            due && !kernel.next_may_block()
        };
        if due {
            self.happen(None);
        } else if !others.is_empty() {
            let chosen = self.kernel.borrow_mut().choices.choose(others.len());
            self.step(others[chosen], None);
        }
    }

    pub(super) fn now_nanos(&self) -> u64 {
        self.kernel.borrow().now
    }

    /// Returns every core that can take a step. One with a main future takes its steps under its own
    /// caller, who has that future.
    pub(super) fn runnable(&self, main: Option<Place>) -> Vec<Place> {
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
    pub(super) fn jump(&self, main: Option<Place>) {
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

    pub(super) fn advance_to(&self, at: u64) {
        let mut kernel = self.kernel.borrow_mut();
        if at > kernel.now {
            kernel.now = at;
            self.steps_at_instant.set(0);
        }
    }

    /// Lets something of the world's own happen.
    pub(super) fn happen(&self, main: Option<(Place, MainPoll<'_>)>) {
        let coming = {
            let mut kernel = self.kernel.borrow_mut();
            let Some(coming) = kernel.take_due() else {
                return;
            };
            let before = kernel.running.take();
            kernel.happen(&coming);
            match coming {
                Coming::Script(_) => kernel.record(What::World("a script runs")),
                Coming::Work(_) => kernel.record(What::World("a thread goes on")),
                _ => {}
            }
            kernel.running = before;
            coming
        };
        if let Coming::Script(script) | Coming::Work(script) = coming {
            let closure = self.scripts.borrow_mut().remove(&script);
            if let Some(closure) = closure {
                // Also when a core waits for others, and this comes in between.
                current::lend(main, || current::outside(closure));
            }
        }
    }

    /// Lets a core take a step.
    pub(super) fn step(&self, place: Place, main: Option<MainPoll<'_>>) {
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
        if standing == Standing::Runs && next == Standing::Waits {
            self.check_park(&core, was_busy);
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
    pub(super) fn finish_wait(&self, sim_core: &SimCore) -> bool {
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
