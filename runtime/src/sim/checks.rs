//! What a world looks for after each step and at the end: rules that were broken, things that were lost.

use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use super::world::{CLOCK_READS, ENTRIES_PER_STEP, IDLE_STEPS, SimCore, Standing, World};
use crate::core_state::Core;
use crate::driver::Driver;
use crate::metrics::CoreMetrics;
use crate::task::current;
use crate::time::Instant;

impl World {
    /// Fails if a rule was broken.
    pub(super) fn check(&self) {
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
    pub(super) fn count_step(&self) {
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
    pub(crate) fn count_read(&self) {
        self.clock_reads.set(self.clock_reads.get() + 1);
        if self.clock_reads.get() > CLOCK_READS {
            self.clock_reads.set(0);
            let what = format!(
                "the clock was looked at {CLOCK_READS} times in one step: a loop waits for it to go on, \
                 which it does only when the loop waits for something"
            );
            // For the run, should a task contain the panic.
            self.violated("spin", what.clone());
            self.fail("spin", what);
        }
    }

    pub(super) fn look_for_progress(&self, sim_core: &SimCore, core: &Core) {
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
        // Memory is given back in slices.
        let gives_back = core.task_memory.has_excess();
        if gives_back || done(&now) != done(&before) {
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
    pub(super) fn check_park(&self, core: &Core, was_busy: bool) {
        let unsubmitted = core.driver.borrow_mut().unsubmitted();
        let waits = match &*core.driver.borrow() {
            Driver::Simulated(ring) => ring.is_waiting(),
            Driver::Ring(_) => false,
        };
        if waits && !was_busy && unsubmitted > 0 {
            self.violated(
                "park",
                format!("a core waits while {unsubmitted} requests are not submitted"),
            );
        }
        if waits && core.tasks.borrow().has_ready() {
            self.violated("park", "a core waits while a task is ready".to_owned());
        }
        // Nobody has had a turn since the core's last look.
        if waits && core.has_mail() {
            self.violated("park", "a core waits with mail in its inbox".to_owned());
        }
        if was_busy {
            return;
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
    pub(super) fn check_end(&self, sim_core: &SimCore, core: &Core, last: Option<Instant>) {
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
            super::left::by_an_end(ring)
        };
        if let Some((check, what)) = left {
            self.violated(check, what);
        }
        self.kernel.borrow_mut().counts.left_behind += super::left::in_the_books(core);
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
    pub(super) fn fail(&self, check: &'static str, what: String) {
        if std::thread::panicking() {
            return self.calm_down(check, &what);
        }
        let report = super::report::failure(self, check, &what);
        self.failure.replace(report.clone());
        panic!("{report}");
    }

    /// The program unwinds, and one of its destructors waits for cores: they are stopped at once.
    pub(super) fn calm_down(&self, check: &'static str, what: &str) {
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

    pub(super) fn living(&self) -> Vec<(usize, Rc<Core>)> {
        let cores = self.cores.borrow();
        let living = cores.iter().enumerate();
        living
            .filter_map(|(place, core)| Some((place, core.core.borrow().clone()?)))
            .collect()
    }
}
