//! One turn of one core: inbox, timers, tasks, submit, reap; and the park when nothing is ready.
//!
//! ```text
//!   turn:  inbox ─► timers ─► ready tasks, up to a budget ─► submit and reap, without waiting
//!   park:  publish "parked" ─► look once more ─► submit and wait until the next deadline ─► reap
//! ```
//!
//! A step of a core is a turn and, if that leaves nothing to do, the beginning of a park, which is
//! the last thing it does: so whoever schedules cores may be a thread's loop or something else. There
//! is one entry into the kernel per turn: a turn that leaves nothing ready submits with its park, or just before it
//! where answers come at once (`prompt.rs`).
//!
//! Invariants:
//! - A core never waits with a request that is not submitted, with a message in its inbox, or with
//!   completions that overflowed.
//! - However long tasks stay ready, inbox and completions are looked for every 32 polls, and timers
//!   once a turn, which has an end; it comes earlier if calls to the kernel within polls take long.
//! - Nothing is done "at the next turn" unless somebody asked for it: an idle core makes no turns.

use std::mem::ManuallyDrop;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::core_state::Core;
use crate::driver::Wait;
use crate::kernel_op::request::Request;
use crate::kernel_op::slab::{About, Reaction, WAKE, WAKE_CANCEL};
use crate::scope::tree::{NodeId, ParkId};
use crate::task::TaskId;
use crate::task::cell::Ended;
use crate::task::current;
use crate::task::memory::TaskBox;
use crate::task::table::{AfterEnd, Left, Owner};
use crate::time::Instant;

/// The future of `block_on`, which lies on its caller's stack: polled when its task is ready; true
/// once it has ended.
pub(crate) type MainPoll<'a> = &'a mut dyn FnMut(&mut Context<'_>) -> bool;

/// Polls of tasks in one turn, at most.
const POLLS_PER_TURN: u32 = 256;

/// After so many polls a turn looks whether somebody else waits for the core.
const LOOK_EVERY: u32 = 32;

/// A turn that has run tasks for this long ends at the next look.
const TIME_PER_TURN: Duration = Duration::from_micros(500);

/// Closures run in one turn, at most; half as many where so many tasks are ready.
const CLOSURES_PER_TURN: usize = 64;

/// After so many turns a core says what it has, as it does when it parks: it may not park for long.
const PUBLISH_EVERY: u64 = 64;

/// How long the end of a core waits for the kernel, past the grace period, before it gives memory
/// up to it.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Pause before a kernel that was too busy is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Where a core is in its life.
#[derive(Debug)]
pub(crate) enum Life {
    /// It runs the future of `block_on`, and stops with it, within this grace period.
    Main {
        task: TaskId,
        node: NodeId,
        grace: Duration,
    },
    /// It runs until it is asked to stop.
    Running,
    /// It waits for the kernel, at the latest until `last`.
    Ending { last: Instant, wake_cancelled: bool },
    /// It has nothing left.
    Ended,
}

/// What a step of a core came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do.
    Again,
    /// It has entered the kernel to wait: next comes [`Core::woken`].
    Waited,
    /// It has ended.
    Ended,
}

impl Core {
    /// Runs until the core was asked to stop and has stopped.
    pub(crate) fn run(&self) {
        self.live(Life::Running, &mut no_main);
    }

    /// Runs until `main` says that it has ended, then stops within `grace`.
    pub(crate) fn run_main(&self, main: MainPoll<'_>, grace: Duration) {
        self.live(self.with_main(grace), main);
    }

    /// Makes room for a future of `block_on`.
    pub(crate) fn with_main(&self, grace: Duration) -> Life {
        let (task, node) = self.add_main();
        Life::Main { task, node, grace }
    }

    fn live(&self, mut life: Life, main: MainPoll<'_>) {
        current::enter(self, || {
            loop {
                match self.step(&mut life, main) {
                    Step::Again => {}
                    // The kernel has let this thread wait already.
                    Step::Waited => self.woken(&life),
                    Step::Ended => return,
                }
            }
        });
    }

    /// One step of this core's life. It waits in the kernel at most once, at its end.
    pub(crate) fn step(&self, life: &mut Life, main: MainPoll<'_>) -> Step {
        match *life {
            Life::Main { task, node, grace } => {
                let mut ended = false;
                let is_done = self.turn(&mut |cx| {
                    ended = main(cx);
                    ended
                });
                if ended {
                    self.tasks.borrow_mut().remove_main(task);
                    self.has_main.set(false);
                    self.close_node(node);
                    self.forget_task(task);
                    self.begin_to_stop(grace);
                    *life = Life::Running;
                    return Step::Again;
                }
                self.wait_if(is_done)
            }
            Life::Running => {
                let is_done = self.turn(&mut no_main);
                if self.has_stopped() {
                    *life = self.begin_to_end();
                    return Step::Again;
                }
                self.wait_if(is_done)
            }
            Life::Ending {
                ref mut last,
                ref mut wake_cancelled,
            } => {
                if let Some(grace) = self.asked_for_less() {
                    self.stop_grace.set(grace);
                    *last = (*last).min(Instant::now() + grace + LAST_WAIT);
                    return Step::Again;
                }
                let step = self.wait_to_end(*last, wake_cancelled);
                if step == Step::Ended {
                    self.publish_gauges();
                    *life = Life::Ended;
                }
                step
            }
            Life::Ended => Step::Ended,
        }
    }

    /// Goes on after a wait in the kernel.
    pub(crate) fn woken(&self, life: &Life) {
        match life {
            Life::Main { .. } | Life::Running => self.end_park(),
            Life::Ending { .. } => {
                self.shared.park.withdraw();
                self.reap();
            }
            Life::Ended => {}
        }
    }

    /// Waits after a turn that has left nothing to do.
    #[inline]
    fn wait_if(&self, is_done: bool) -> Step {
        if is_done && self.begin_park() {
            Step::Waited
        } else {
            Step::Again
        }
    }

    /// Does what is to do, without waiting. Returns whether nothing is left, as far as this core itself
    /// can tell: what others send has to be looked for.
    #[inline]
    fn turn(&self, main: MainPoll<'_>) -> bool {
        self.counters().turns.add(1);
        if self.counters().turns.get().is_multiple_of(PUBLISH_EVERY) {
            self.publish_while_busy();
        }
        self.shared.wake_the_unwoken();
        self.carry_out_a_slice();
        self.take_inbox();
        self.look_at_the_clock();
        self.run_ready(main);
        self.wake_starved();
        if !self.has_work() {
            return true;
        }
        self.enter_if_needed();
        self.reap();
        // What was reaped may have given buffers back.
        self.wake_starved();
        self.wake_yielded();
        !self.has_work()
    }

    /// Waits in the kernel until there is something to do; false if there is already.
    fn begin_park(&self) -> bool {
        if self.task_memory.has_excess() {
            self.give_memory_back();
            return false;
        }
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            world.before_a_park();
        }
        self.shared.wake_the_unwoken();
        if let Some(spin) = &self.spin
            && self.look_on(spin)
        {
            return false;
        }
        if self.is_answered_at_once() {
            return false;
        }
        self.shared.park.publish();
        if self.has_mail() {
            self.shared.park.withdraw();
            return false;
        }
        self.counters().parks.add(1);
        self.publish_gauges();
        self.tasks.borrow_mut().plan_probe();
        let now = self.fresh_time();
        self.shared.parked.begin(now);
        self.parked_at.set(now);
        self.enter(Wait::Until(self.next_deadline()));
        true
    }

    /// Gives back a slice of what ended tasks have left. It may take many: what came in has gone to the kernel before
    /// the next.
    #[cold]
    fn give_memory_back(&self) {
        self.enter_if_needed();
        self.task_memory.trim();
        self.reap();
        self.wake_starved();
    }

    /// Submits before the park, where the kernel has answered at once of late. Returns whether it did again; what it
    /// said has been reaped then.
    #[inline]
    fn is_answered_at_once(&self) -> bool {
        let submits = self.driver.borrow_mut().unsubmitted() > 0;
        if !submits || !self.prompt.guess() {
            return false;
        }
        self.enter(Wait::No);
        let is_answered = self.reap() > 0;
        self.prompt.note(is_answered);
        if is_answered {
            self.wake_starved();
        }
        is_answered
    }

    /// Returns until when a core waits that nobody wakes.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let tree = self.tree.borrow();
        let timer = self.timers.borrow_mut().next_deadline(&*tree);
        let stop = self.stop_at.get();
        let stop = stop.filter(|&at| at != Instant::NEVER && !self.has_main.get());
        match (timer, stop) {
            (Some(timer), Some(stop)) => Some(timer.min(stop)),
            (one, other) => one.or(other),
        }
    }

    fn end_park(&self) {
        self.shared.park.withdraw();
        self.clock_is_old.set(true);
        let now = self.fresh_time();
        self.shared.parked.end(now);
        if let Some(spin) = &self.spin {
            spin.borrow_mut().parked(now - self.parked_at.get());
        }
        if let Some(sent) = self.shared.take_woken_at(self.parked_at.get()) {
            self.shared.latencies.wake.record_one(now - sent);
        }
        self.reap();
        self.wake_starved();
    }

    /// Returns whether a turn would find something to do.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.tasks.borrow().has_ready()
            || self.tree.borrow().has_effects()
            || self.has_yielded()
            || self.has_mail()
            || self.driver.borrow_mut().has_completions()
    }

    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.shared.has_wakes() || self.has_mail_beside_wakes()
    }

    #[inline]
    fn has_mail_beside_wakes(&self) -> bool {
        let shared = self.shared;
        self.asked_for_less().is_some() || shared.cancels.has_mail() || !self.closures.is_empty()
    }

    /// Returns the grace period that was asked for, if it is less than the one we have.
    fn asked_for_less(&self) -> Option<Duration> {
        let asked = self.shared.asked_to_stop()?;
        (self.stop_at.get().is_none() || asked < self.stop_grace.get()).then_some(asked)
    }

    fn has_stopped(&self) -> bool {
        let Some(at) = self.stop_at.get() else {
            return false;
        };
        self.tasks.borrow().live() == 0 || at <= Instant::now()
    }

    // --- inbox ---

    fn take_inbox(&self) {
        if let Some(grace) = self.asked_for_less() {
            self.begin_to_stop(grace);
        }
        self.see_remote_cancels();
        if self.shared.has_wakes() {
            self.take_wakes();
        }
        if !self.closures.is_empty() {
            self.take_closures();
        }
    }

    /// Runs closures that others have sent; fewer, the more tasks are ready: else those of a core that has too much to
    /// do would pile up there, and nobody would find its mailbox full.
    fn take_closures(&self) {
        let ready = self.tasks.borrow().ready();
        let most = CLOSURES_PER_TURN * CLOSURES_PER_TURN / (CLOSURES_PER_TURN + ready);
        let mut taken = 0;
        while taken < most.max(1)
            && let Some(job) = self.closures.take()
        {
            taken += 1;
            self.counters().closures.add(1);
            self.contain(job);
        }
        self.closures.wake_waiting(taken);
    }

    /// Makes ready whom others have woken.
    fn take_wakes(&self) {
        let mut scratch = self.scratch.take();
        scratch.clear();
        self.shared.take_wakes(&mut scratch);
        self.counters().remote_wakes.add(scratch.len() as u64);
        let mut tasks = self.tasks.borrow_mut();
        for &slot in &scratch {
            tasks.wake_slot(slot);
        }
        drop(tasks);
        self.scratch.replace(scratch);
    }

    // --- timers ---

    fn look_at_the_clock(&self) {
        let now = self.fresh_time();
        if self.time_is_new.replace(false) && self.timers.borrow().len() > 0 {
            self.fire_timers(now);
        }
    }

    /// Is told what time it is by who has read the clock in a poll: a turn that has lasted for long ends with that.
    #[inline]
    pub(crate) fn note_time(&self, now: Instant) {
        if now - self.now.get() >= TIME_PER_TURN {
            self.turn_is_long.set(true);
        }
    }

    /// Returns what time it is, read since the last task was polled.
    #[inline]
    pub(crate) fn fresh_time(&self) -> Instant {
        if self.clock_is_old.replace(false) {
            self.time_is_new.set(true);
            self.read_clock();
        }
        self.now.get()
    }

    // --- tasks ---

    #[inline(never)]
    fn run_ready(&self, main: MainPoll<'_>) {
        let mut polls = 0;
        let mut began = None;
        loop {
            let first = self.first_of_ready();
            let next = self.tasks.borrow_mut().next_ready(first);
            let Some(next) = next else {
                // Whom others have woken meanwhile runs in this turn.
                if self.shared.has_wakes() {
                    self.take_wakes();
                    if self.tasks.borrow().has_ready() {
                        continue;
                    }
                }
                // Who is no task may have gone on where he was woken, and yielded again: what else there is has its
                // turn then.
                if self.nobody_else_waits() && self.wake_yielded() {
                    continue;
                }
                break;
            };
            let polled = if next.is_measured {
                self.poll_measured(next.id, next.of, next.object, main)
            } else {
                self.poll(next.id, next.of, next.object, main)
            };
            let ended_main = match polled {
                Polled::YieldsAlone(node, object) => {
                    if self.go_on_alone((next.id, node, object), &mut polls, &mut began) {
                        break;
                    }
                    false
                }
                Polled::EndedMain => true,
                Polled::Done => false,
            };
            polls += 1;
            if ended_main {
                self.turn_is_long.set(false);
                break;
            }
            if self.ends_turn(polls, &mut began) {
                break;
            }
        }
        self.counters().polls.add(u64::from(polls));
        if polls > 0 {
            self.clock_is_old.set(true);
        }
    }

    /// Returns whether a turn ends after so many polls.
    #[inline(always)]
    fn ends_turn(&self, polls: u32, began: &mut Option<Instant>) -> bool {
        if polls >= POLLS_PER_TURN || self.turn_is_long.get() {
            self.turn_is_long.set(false);
            return true;
        }
        if !polls.is_multiple_of(LOOK_EVERY) {
            return false;
        }
        let now = Instant::now();
        let began = *began.get_or_insert(now);
        now - began >= TIME_PER_TURN || self.has_mail() || self.driver.borrow_mut().wants_enter()
    }

    /// Polls a task again that has yielded where nobody is to go before it, and again if it does so again: it need not
    /// stand in the queue for that. Returns whether the turn ends with that, and all its polls are counted; else the
    /// last of them has yet to be.
    #[inline(never)]
    fn go_on_alone(
        &self,
        (id, node, mut object): (TaskId, NodeId, TaskBox),
        polls: &mut u32,
        began: &mut Option<Instant>,
    ) -> bool {
        loop {
            *polls += 1;
            if self.ends_turn(*polls, began) {
                self.tasks.borrow_mut().put_back(id, object, true);
                return true;
            }
            let is_measured = self.tasks.borrow_mut().goes_on(id);
            let of = Owner::Itself(node);
            let polled = if is_measured {
                self.poll_measured(id, of, Some(object), &mut no_main)
            } else {
                self.poll(id, of, Some(object), &mut no_main)
            };
            match polled {
                Polled::YieldsAlone(_, again) => object = again,
                Polled::Done | Polled::EndedMain => return false,
            }
        }
    }

    /// Returns whether those who have yielded may go on in this turn: no task is ready or was woken, and what a turn
    /// would look for is not there.
    #[inline]
    fn nobody_else_waits(&self) -> bool {
        self.has_yielded() && self.nothing_else_waits()
    }

    #[inline(always)]
    fn nothing_else_waits(&self) -> bool {
        let mut driver = self.driver.borrow_mut();
        #[cfg(feature = "sim")]
        if let crate::driver::Driver::Simulated(_) = &*driver {
            // Other cores take their steps between turns: whoever waits for one of them by yielding ends his.
            return false;
        }
        !(driver.wants_enter()
            || driver.has_completions()
            || self.has_mail_beside_wakes()
            || self.ops.borrow().has_waiting()
            || self.tree.borrow().has_effects()
            || self.buffers.has_starved())
    }

    /// Returns which of the ready tasks comes first: they are in no promised order.
    fn first_of_ready(&self) -> usize {
        #[cfg(feature = "sim")]
        if let crate::driver::Driver::Simulated(ring) = &*self.driver.borrow() {
            return ring.choose(self.tasks.borrow().ready());
        }
        0
    }

    /// Polls the task that stands for others: how long it was ready, and how long its poll takes, is
    /// noted for all that became ready since the last such.
    #[cold]
    fn poll_measured(
        &self,
        id: TaskId,
        of: Owner,
        object: Option<TaskBox>,
        main: MainPoll<'_>,
    ) -> Polled {
        let latencies = &self.shared.latencies;
        let probe = self.tasks.borrow_mut().take_probe(id);
        let probe = probe.expect("what is measured was chosen");
        let begun = Instant::now();
        latencies
            .run_delay
            .record_for(begun - probe.ready, probe.weight);
        let polled = self.poll(id, of, object, main);
        let took = Instant::now() - begun;
        latencies.poll.record_for(took, probe.weight);
        polled
    }

    /// Polls one task.
    #[inline(always)]
    fn poll(&self, id: TaskId, of: Owner, object: Option<TaskBox>, main: MainPoll<'_>) -> Polled {
        self.was_alone.set(false);
        self.past_the_ring.set(0);
        self.had_at_once.set(0);
        match (object, of) {
            (Some(object), Owner::Itself(node)) => self.poll_task(id, node, object),
            (Some(object), Owner::Above(parent)) => self.poll_new(id, parent, object),
            (None, Owner::Itself(node) | Owner::Above(node)) => {
                match self.poll_main(id, node, main) {
                    true => Polled::EndedMain,
                    false => Polled::Done,
                }
            }
        }
    }

    fn poll_main(&self, id: TaskId, node: NodeId, main: MainPoll<'_>) -> bool {
        let ended = self.poll_as(id, node, |cx| main(cx));
        let yields = self.yielding.take();
        if !ended {
            let mut tasks = self.tasks.borrow_mut();
            if yields {
                tasks.wake_last(id);
            }
            let is_queued = tasks.is_queued(id);
            drop(tasks);
            self.after_poll(id, node, is_queued);
        }
        ended
    }

    /// Polls a task that has just been started, from within the poll of another, which then goes on
    /// as if nothing had been.
    pub(crate) fn poll_at_once(&self, id: TaskId, parent: NodeId, object: TaskBox) {
        let outer = (
            self.running.get(),
            self.refusals.get(),
            self.refused_under.get(),
            self.allowance.get(),
            self.aborts_seen.take(),
            self.coming_back.take(),
            self.yielding.take(),
            self.refusals_noted.get(),
        );
        self.counters().polls.add(1);
        if let Polled::YieldsAlone(_, object) = self.poll_new(id, parent, object) {
            // Who goes on is the one that has started it.
            self.tasks.borrow_mut().put_back(id, object, true);
        }
        self.running.set(outer.0);
        self.refusals.set(outer.1);
        self.refused_under.set(outer.2);
        self.allowance.set(outer.3);
        self.aborts_seen.set(outer.4);
        self.coming_back.set(outer.5);
        self.yielding.set(outer.6);
        self.refusals_noted.set(outer.7);
    }

    #[inline(always)]
    fn poll_task(&self, id: TaskId, node: NodeId, mut object: TaskBox) -> Polled {
        let polled = self.poll_as(id, node, |cx| object.as_mut().poll(cx));
        self.conclude(id, node, object, polled)
    }

    /// Returns whether nobody is to go before a task whose poll has ended with a yield, which may go on at once then:
    /// no other is ready or has yielded, as the caller has seen, nor has it been woken itself, and what a turn would
    /// look for is not there.
    #[inline(never)]
    fn is_nobody_to_go_first(&self) -> bool {
        !self.has_seen_more()
            && !self.shared.has_wakes()
            && self.yields.borrow().is_empty()
            && self.nothing_else_waits()
    }

    /// Polls a task for the first time: it has a node only if somebody has asked for it, or if it goes on.
    #[inline(always)]
    fn poll_new(&self, id: TaskId, parent: NodeId, mut object: TaskBox) -> Polled {
        let waker = waker_of(id);
        let mut cx = Context::from_waker(&waker);
        let outside = self.activate(parent);
        self.begin_first_poll_of_task(id.slot());
        self.begin_poll(id);
        let polled = object.as_mut().poll(&mut cx);
        if polled.is_pending() {
            self.active();
        }
        let nodes = self.end_first_poll_of_task();
        self.end_poll(outside);
        match (nodes, polled) {
            (Some((node, _)), polled) => return self.conclude(id, node, object, polled),
            (None, Poll::Ready(ended)) => self.finish_new(id, parent, object, ended),
            (None, Poll::Pending) => unreachable!("it was opened"),
        }
        Polled::Done
    }

    /// Goes on after the poll of a task.
    #[inline(always)]
    fn conclude(&self, id: TaskId, node: NodeId, object: TaskBox, polled: Poll<Ended>) -> Polled {
        let yields = self.yielding.take();
        match polled {
            Poll::Pending => {
                let mut tasks = self.tasks.borrow_mut();
                if yields && tasks.is_nobody_queued() {
                    drop(tasks);
                    if self.is_nobody_to_go_first() {
                        return Polled::YieldsAlone(node, object);
                    }
                    tasks = self.tasks.borrow_mut();
                }
                let is_queued = tasks.put_back(id, object, yields);
                drop(tasks);
                self.after_poll(id, node, is_queued);
            }
            Poll::Ready(ended) => {
                if ended == Ended::Panicked {
                    self.counters().panics.add(1);
                }
                self.finish(id, node, object, ended);
            }
        }
        Polled::Done
    }

    /// As [`Core::finish`], of a task that never had a node.
    #[inline(always)]
    fn finish_new(&self, id: TaskId, parent: NodeId, object: TaskBox, ended: Ended) {
        self.yielding.set(false);
        if ended == Ended::Panicked {
            self.counters().panics.add(1);
        }
        let has_told = parent != self.root && self.tree.borrow_mut().expected_ended(parent);
        self.let_end(id, object);
        if has_told {
            // As in `finish`, whoever is woken finds that it has ended.
            self.carry_out();
        }
    }

    /// Runs a poll of this task.
    #[inline(always)]
    fn poll_as<R>(&self, id: TaskId, node: NodeId, poll: impl FnOnce(&mut Context<'_>) -> R) -> R {
        let waker = waker_of(id);
        let mut cx = Context::from_waker(&waker);
        let outside = self.activate(node);
        self.begin_poll(id);
        let polled = poll(&mut cx);
        self.end_poll(outside);
        polled
    }

    #[inline(always)]
    fn begin_poll(&self, id: TaskId) {
        self.running.set(Some(id));
        self.refusals.set(0);
        self.refusals_noted.set(0);
        self.aborts_seen.clear();
        self.coming_back.clear();
    }

    #[inline(always)]
    fn end_poll(&self, outside: NodeId) {
        self.running.set(None);
        self.activate_again(outside);
    }

    /// Looks at what a poll has left that did not end the task.
    #[inline(always)]
    fn after_poll(&self, id: TaskId, node: NodeId, is_queued: bool) {
        if self.has_seen_more() {
            self.note_refusals(id);
        }
        if !is_queued && self.refuses(node) {
            self.after_pending(node, None);
        }
    }

    #[inline]
    fn has_yielded(&self) -> bool {
        self.tasks.borrow().has_yielded() || !self.yields.borrow().is_empty()
    }

    /// Lets those go on who have yielded; returns whether a task is ready then.
    #[inline]
    fn wake_yielded(&self) -> bool {
        let has_ready = self.tasks.borrow_mut().resume();
        if self.yields.borrow().is_empty() {
            return has_ready;
        }
        self.wake_others_yielded();
        self.tasks.borrow().has_ready()
    }

    /// Those that are no tasks of this core.
    #[cold]
    fn wake_others_yielded(&self) {
        for waker in self.yields.take() {
            self.wake(waker);
        }
        // They may have gone on there, as others do in a poll.
        self.clock_is_old.set(true);
    }

    #[inline]
    pub(crate) fn wake_starved(&self) {
        if self.buffers.has_starved() {
            self.wake_those_starved();
        }
    }

    #[cold]
    fn wake_those_starved(&self) {
        for waker in self.buffers.wakes() {
            self.wake(waker);
        }
    }

    // --- the kernel ---

    /// Enters the kernel without a wait, where something is there to enter it for.
    #[inline(never)]
    pub(crate) fn enter_if_needed(&self) {
        if self.driver.borrow_mut().wants_enter() || self.ops.borrow().has_waiting() {
            self.enter(Wait::No);
        }
    }

    /// Submits everything that waits, and waits itself if told to.
    #[inline(always)]
    fn enter(&self, wait: Wait) {
        let mut wait = wait;
        loop {
            let all_pushed = self.push_waiting();
            let now = if all_pushed { wait } else { Wait::No };
            match self.enter_once(now) {
                Entered::Submitted if all_pushed => return,
                Entered::Submitted => {}
                Entered::Busy => {
                    // The kernel has no room for more: take completions, and come back later. Who does not wait takes
                    // them himself: he has to know of them before he parks.
                    if matches!(wait, Wait::No) || self.reap() > 0 {
                        return;
                    }
                    wait = Wait::Until(Some(Instant::now() + BUSY_PAUSE));
                    self.pause(wait);
                    return;
                }
            }
        }
    }

    /// Pushes what stands in line, the watch of the eventfd first; true if all of it went in.
    #[inline]
    fn push_waiting(&self) -> bool {
        let mut driver = self.driver.borrow_mut();
        if !self.wake_armed.get() {
            self.arm_wake(&mut driver);
        }
        let all = self.ops.borrow_mut().push_waiting(&mut driver);
        all && self.wake_armed.get()
    }

    #[inline(always)]
    fn enter_once(&self, wait: Wait) -> Entered {
        let mut ops = self.ops.borrow_mut();
        if ops.has_pushed() {
            ops.submit_at(self.fresh_time());
        }
        drop(ops);
        let mut driver = self.driver.borrow_mut();
        if driver.overflowed() {
            self.counters().overflows.add(1);
        }
        let before = driver.unsubmitted();
        let entered = driver.enter(wait);
        let after = driver.unsubmitted();
        drop(driver);
        self.count_entry(before, after);
        self.clock_is_old.set(true);
        match entered {
            Ok(()) if after == 0 => Entered::Submitted,
            Ok(()) if after < before => Entered::Submitted,
            Ok(()) => self.busy(),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EBUSY | libc::EBADR | libc::ENOMEM) => self.busy(),
                _ => panic!(
                    "io_uring_enter failed in a way that leaves the core without a kernel: {error}"
                ),
            },
        }
    }

    #[inline]
    fn count_entry(&self, unsubmitted_before: u32, unsubmitted_after: u32) {
        self.counters().enters.add(1);
        let submitted = unsubmitted_before - unsubmitted_after;
        self.counters().submitted.add(u64::from(submitted));
    }

    fn busy(&self) -> Entered {
        self.counters().busy_enters.add(1);
        Entered::Busy
    }

    /// Waits for completions, with nothing new in the queue: the kernel was too busy to take what
    /// lies there. It may take it now.
    #[cold]
    fn pause(&self, wait: Wait) {
        let mut driver = self.driver.borrow_mut();
        let before = driver.unsubmitted();
        let entered = driver.enter(wait);
        let after = driver.unsubmitted();
        drop(driver);
        self.count_entry(before, after);
        if let Err(error) = entered {
            let busy = matches!(
                error.raw_os_error(),
                Some(libc::EAGAIN | libc::EBUSY | libc::EBADR | libc::ENOMEM)
            );
            assert!(
                busy,
                "io_uring_enter failed in a way that leaves the core without a kernel: {error}"
            );
        }
    }

    /// Has the kernel watch the eventfd: that is how others wake a parked core. It is never read: each write wakes who
    /// watches, whatever its count is, which 2^64 writes fill.
    #[cold]
    fn arm_wake(&self, driver: &mut crate::driver::Driver) {
        let watch = Request::PollMulti {
            fd: self.shared.eventfd(),
            events: libc::POLLIN as u32,
        };
        self.wake_armed.set(driver.push(&watch, WAKE).is_ok());
    }

    /// Takes the completions that lie ready. Returns how many.
    pub(crate) fn reap(&self) -> u64 {
        let mut count = 0;
        loop {
            let next = self.driver.borrow_mut().reap();
            let Some(completion) = next else { break };
            count += 1;
            match About::of(completion.user_data) {
                About::Wake => self.wake_armed.set(completion.flags.more()),
                // 0: found, its own completion follows; ENOENT, EALREADY: it follows all the same.
                About::CancelOf(_) | About::Nothing => {}
                About::Op(op) => {
                    let now = self.fresh_time();
                    let (reaction, closer) =
                        self.ops.borrow_mut().on_completion(op, completion, now);
                    if let Some(closer) = closer {
                        self.complete(ParkId::from_token(closer));
                    }
                    match reaction {
                        Reaction::None => {}
                        Reaction::Tell(notify) => self.tell(notify),
                        Reaction::GivesUp(turn) => drop(turn),
                        Reaction::OrphanEnded { account, ended } => {
                            if completion.result == -libc::EFAULT {
                                self.counters().orphan_faults.add(1);
                            }
                            let leftover = self.ops.borrow_mut().clear(ended);
                            self.contain(|| drop(leftover));
                            self.orphan_ended(account);
                        }
                    }
                }
            }
        }
        self.counters().completions.add(count);
        count
    }

    #[inline(always)]
    pub(crate) fn publish_gauges(&self) {
        let ops = self.ops.borrow();
        let counters = self.counters();
        counters.in_flight.set(u64::from(ops.in_kernel()));
        counters.orphans.set(u64::from(ops.orphans()));
        counters.cancel_requests.set(ops.cancel_requests());
        counters.copied_chunks.set(self.buffers.copied());
        counters.lent_buffers.set(u64::from(self.buffers.lent()));
        counters.op_slots.set(u64::from(ops.occupied()));
        counters.tasks.set(u64::from(self.tasks.borrow().live()));
        counters.timers.set(self.timers.borrow().len() as u64);
        let tree = self.tree.borrow();
        counters.deliveries.set(tree.deliveries());
        let without_node = self.tasks.borrow().new_ones();
        counters
            .scopes
            .set(tree.node_count() as u64 + u64::from(without_node));
        counters.parked.set(tree.park_count() as u64);
        let (swallowing, unresponsive) = self.patience.borrow().listed();
        counters.swallowing.set(swallowing as u64);
        counters.unresponsive.set(unresponsive as u64);
    }

    #[cold]
    fn publish_while_busy(&self) {
        self.publish_gauges();
    }

    // --- the end ---

    /// Lets go of everything at once, as at the end: what a simulation that has failed leaves.
    #[cfg(feature = "sim")]
    pub(crate) fn give_up(&self) {
        self.begin_to_stop(Duration::ZERO);
        self.begin_to_end();
    }

    /// Drops what has not ended. What the kernel still has is waited for afterwards.
    fn begin_to_end(&self) -> Life {
        self.drop_tasks();
        self.closures.close();
        for waker in self.yields.take() {
            self.contain(|| drop(waker));
        }
        // Ops whose futures live outside of any task, or were leaked.
        let left = self.ops.borrow().with_future();
        for op in left {
            self.contain(|| self.abandon(op, self.active()));
        }
        let mut timers = self.timers.borrow_mut().empty();
        let mut next = || timers.pop_due(Instant::NEVER, &*self.tree.borrow());
        while let Some(due) = next() {
            self.contain(|| drop(due));
        }
        // What has been dropped since may have started some.
        self.drop_tasks();
        let now = Instant::now();
        Life::Ending {
            last: self.stop_at.get().unwrap_or(now).max(now) + LAST_WAIT,
            wake_cancelled: false,
        }
    }

    /// Waits for the kernel to give something back, unless it has nothing of ours any more, or has had its time. Who
    /// has less patience wakes it meanwhile: the eventfd is watched until all else has ended.
    fn wait_to_end(&self, last: Instant, wake_cancelled: &mut bool) -> Step {
        let has_ops = self.ops.borrow().in_kernel() > 0;
        if self.wake_armed.get() && !has_ops && !*wake_cancelled {
            let cancel = Request::Cancel { target: WAKE };
            *wake_cancelled = self.driver.borrow_mut().push(&cancel, WAKE_CANCEL).is_ok();
        }
        if !has_ops && !self.wake_armed.get() || Instant::now() >= last {
            return Step::Ended;
        }
        if has_ops && !self.wake_armed.get() {
            self.arm_wake(&mut self.driver.borrow_mut());
        }
        self.shared.park.publish();
        if self.asked_for_less().is_some() {
            self.shared.park.withdraw();
            return Step::Again;
        }
        self.enter_to_end(Wait::Until(Some(last)));
        Step::Waited
    }

    /// As `enter`, but the eventfd is not watched again by that.
    fn enter_to_end(&self, wait: Wait) {
        let all_pushed = {
            let mut driver = self.driver.borrow_mut();
            self.ops.borrow_mut().push_waiting(&mut driver)
        };
        let now = if all_pushed { wait } else { Wait::No };
        if let Entered::Busy = self.enter_once(now)
            && self.reap() == 0
        {
            self.pause(Wait::Until(Some(Instant::now() + BUSY_PAUSE)));
        }
    }

    /// Ends every task, and drops every output that nobody took.
    fn drop_tasks(&self) {
        // A destructor may start tasks; one that always does must not hold the end up.
        for _ in 0..ROUNDS {
            self.open_new_tasks();
            let left = self.tasks.borrow_mut().take_all();
            if left.is_empty() {
                return;
            }
            for task in left {
                self.drop_task(task);
            }
        }
        // What still comes is kept for ever, unpolled: its destructor would only start the next.
        for task in self.tasks.borrow_mut().take_all() {
            std::mem::forget(task);
        }
    }

    fn drop_task(&self, task: Left) {
        let (id, node, mut object) = match task {
            Left::Output(output) => return self.contain(|| drop(output)),
            Left::Task { id, node, object } => (id, node, object),
        };
        let outside = self.activate(node);
        object.as_mut().drop_future();
        self.activate_again(outside);
        let after = self.end_in_table(id, object);
        self.close_node(node);
        self.follow_up(after);
    }

    /// Takes a task whose poll has ended it off the core, with its scope.
    #[inline(never)]
    fn finish(&self, id: TaskId, node: NodeId, mut object: TaskBox, ended: Ended) {
        let closed = self.tree.borrow_mut().close_plain_task(node);
        if closed.is_none() && ended == Ended::Normally && self.tree.borrow().has_group_below(node)
        {
            self.report_abandoned_group(id, node, &mut object);
        }
        // Whoever is woken finds that it has ended: it has no node that he could ask for any more.
        let after = self.end_in_table(id, object);
        match closed {
            Some(has_told) => self.after_close(node, has_told),
            None => self.close_noticed(node),
        }
        self.follow_up(after);
    }

    /// A group that is still there now, below the task, is there for ever. The output is dropped as within the task.
    #[cold]
    fn report_abandoned_group(&self, id: TaskId, node: NodeId, object: &mut TaskBox) {
        self.poll_as(id, node, |_| object.as_mut().report_abandoned_group());
        self.yielding.set(false);
    }

    /// Takes a task that has ended off the core: its output if nobody wants it, and tells who waits for it.
    #[inline(always)]
    fn let_end(&self, id: TaskId, object: TaskBox) {
        let after = self.end_in_table(id, object);
        self.follow_up(after);
    }

    #[inline(always)]
    fn end_in_table(&self, id: TaskId, object: TaskBox) -> AfterEnd {
        let after = self.tasks.borrow_mut().end(id, object);
        if !self.patience.borrow().is_empty() {
            self.forget_known_task(id);
        }
        after
    }

    #[inline(always)]
    fn follow_up(&self, after: AfterEnd) {
        if let Some(unwanted) = after.unwanted {
            self.contain(|| drop(unwanted));
        }
        if let Some(park) = after.joiner {
            self.tell_joiner(park);
        }
    }

    #[inline(never)]
    fn tell_joiner(&self, park: ParkId) {
        // One who was cancelled before the end is told of that.
        self.see_remote_cancels();
        self.complete(park);
    }
}

/// The waker of a task: a word, of which nothing is to be dropped.
#[inline(always)]
fn waker_of(task: TaskId) -> ManuallyDrop<Waker> {
    ManuallyDrop::new(task.waker())
}

/// A core of its own thread has no future of `block_on`.
fn no_main(_: &mut Context<'_>) -> bool {
    unreachable!("only block_on has a main future")
}

/// How many times the end of a core drops the tasks that destructors have started meanwhile.
const ROUNDS: u32 = 16;

/// What came of a poll.
enum Polled {
    /// Nothing that is to be done here.
    Done,
    /// The future of `block_on` has ended.
    EndedMain,
    /// The task of this node has yielded, and nobody is to go before it.
    YieldsAlone(NodeId, TaskBox),
}

/// What came of an entry into the kernel.
enum Entered {
    /// It took what there was to submit, or a part of it.
    Submitted,
    /// It took nothing: no memory, or too many completions that nobody has taken.
    Busy,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::any::Any;
    use std::cell::Cell;
    use std::future::{Future, pending, poll_fn};
    use std::pin::pin;
    use std::rc::Rc;

    use super::*;
    use crate::{Cancelled, Group, GroupError, Handle, Scope, time};

    /// Each of its polls is, though it stands in no queue between them.
    #[test]
    fn polls_of_a_task_that_yields_alone_are_counted_and_measured() {
        const YIELDS: u64 = 10_000;
        crate::block_on(async {
            let figures = || {
                current::with(|core| {
                    let latencies = &core.shared.latencies;
                    let measured = [&latencies.poll, &latencies.run_delay];
                    let [polls, delays] = measured.map(|cells| cells.snapshot().count());
                    [core.counters().polls.get(), polls, delays]
                })
            };
            let before = figures();
            let yields = crate::spawn(async {
                for _ in 0..YIELDS {
                    crate::yield_now().await.expect("nobody cancels");
                }
            });
            yields.await.expect("it ends");
            for (before, after) in before.into_iter().zip(figures()) {
                let came = after - before;
                // Those of a turn are counted at its end, and one of 32 is measured for all.
                assert!(came.abs_diff(YIELDS) <= 256 + 32, "{came}");
            }
        })
        .expect("a core");
    }

    #[test]
    fn a_child_that_yields_alone_when_it_is_polled_at_once_goes_on_after_its_maker() {
        crate::block_on(async {
            let seen = Rc::new(Cell::new(0));
            let ended = crate::group(async |g| {
                let told = Rc::clone(&seen);
                let mut child = g.spawn_eager(async move {
                    for n in 1..=3 {
                        told.set(n);
                        crate::yield_now().await?;
                    }
                    Ok::<_, Cancelled>(())
                });
                assert_eq!((seen.get(), child.try_join().is_none()), (1, true));
                child.await.expect("it ends well");
                Ok(seen.get())
            });
            assert_eq!(ended.await.expect("nothing fails"), Some(3));
        })
        .expect("a core");
    }

    /// It does not park, since all that it submits is answered at once.
    #[test]
    fn a_core_that_does_not_park_says_what_it_has() {
        const LONG: Duration = Duration::from_secs(1000);
        crate::block_on(async {
            let ask = async |times| {
                for _ in 0..times {
                    crate::op::nop().await.expect("nobody cancels");
                }
            };
            ask(100).await;
            let handle = Handle::current().expect("on a core");
            let before = handle.metrics()[0];
            let tasks: Vec<_> = (0..10).map(|_| crate::spawn(time::sleep(LONG))).collect();
            ask(1_000).await;
            let after = handle.metrics()[0];
            assert_eq!(
                (after.parks, after.enters),
                (before.parks, before.enters + 1_000)
            );
            assert_eq!(after.tasks, before.tasks + 10);
            drop(tasks);
        })
        .expect("a core");
    }

    /// A panic is counted where nobody else tells of it.
    #[test]
    fn a_panic_of_a_child_is_its_groups_and_counts_for_none_else() {
        crate::block_on(async {
            let panics = || Handle::current().expect("on a core").metrics()[0].panics;
            let told = crate::isolating_group(async |g| {
                let child = g.spawn(async { panic!("on purpose") });
                Ok::<_, Cancelled>(matches!(
                    child.await,
                    Err::<(), _>(crate::JoinError::Panicked(_))
                ))
            });
            assert!(told.await.expect("nobody cancels").is_some_and(|told| told));
            assert_eq!(panics(), 0);
            assert!(crate::spawn(async { panic!("on purpose") }).await.is_err());
            assert_eq!(panics(), 1);
        })
        .expect("a core");
    }

    /// The loop finds the group when the poll is over.
    #[test]
    fn an_output_whose_place_a_leaked_group_takes_is_dropped_within_its_task() {
        struct Output(Rc<Cell<Option<bool>>>);
        impl Drop for Output {
            fn drop(&mut self) {
                self.0.set(Some(crate::check().is_err()));
            }
        }
        crate::block_on(async {
            let was_refused = Rc::new(Cell::new(None));
            let output = Output(Rc::clone(&was_refused));
            let kept = Rc::new(Cell::new(None));
            let keeps = Rc::clone(&kept);
            let task = crate::spawn(async move {
                let mut left = Box::pin(crate::group(async |_| pending().await));
                let polled = poll_fn(|cx| Poll::Ready(left.as_mut().poll(cx))).await;
                assert!(matches!(
                    polled,
                    Poll::Pending::<Result<Option<()>, GroupError<Cancelled>>>
                ));
                // Its task ends before it is dropped.
                let left: Box<dyn Any> = Box::new(left);
                keeps.set(Some(left));
                output
            });
            task.cancel();
            let ended = task.await;
            assert!(matches!(ended, Err(crate::JoinError::AbandonedGroup)));
            assert_eq!(was_refused.get(), Some(true), "its scope was active");
            drop(kept.take());
        })
        .expect("a core");
    }

    #[test]
    fn a_group_ends_whose_child_could_not_be_started_for_want_of_a_place() {
        type Start = fn(Group<Cancelled>);
        let starts: [Start; 4] = [
            |g| drop(g.spawn(time::sleep(Duration::MAX))),
            |g| drop(g.spawn_eager(time::sleep(Duration::MAX))),
            |g| drop(g.spawn_daemon(time::sleep(Duration::MAX))),
            |g| {
                let mut start = pin!(g.start::<(), _>(async |_| time::sleep(Duration::MAX).await));
                let polled = start.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending());
            },
        ];
        for start in starts {
            crate::block_on(async {
                let host = crate::spawn(crate::group(async move |g| {
                    current::with(|core| core.tasks.borrow_mut().stop_growing());
                    loop {
                        start(g);
                    }
                    #[expect(unreachable_code, reason = "it says what the group gives")]
                    Ok(())
                }));
                for _ in 0..1_000 {
                    crate::yield_now().await.expect("nobody cancels");
                }
                assert!(host.is_finished(), "what was not started is not waited for");
                let Err(crate::JoinError::Panicked(payload)) = host.await else {
                    panic!("it could not be started");
                };
                let text = crate::panics::text_of(&*payload);
                assert!(text.starts_with("a core can have 2^24 tasks"), "{text}");
            })
            .expect("a core");
        }
    }

    /// The grace of a stop is over, and the future of `block_on` goes on: there is nothing to come back for.
    #[test]
    fn a_main_future_that_outlives_its_grace_is_waited_for_in_a_park() {
        let parks = crate::block_on(async {
            let handle = Handle::current().expect("on a core");
            handle.shutdown_within(Duration::ZERO);
            let before = handle.metrics()[0].parks;
            let pause = time::sleep(Duration::from_millis(50));
            Scope::new().shielded().run(pause).await.expect("a shield");
            Ok::<_, Cancelled>(handle.metrics()[0].parks - before)
        });
        let parks = parks.expect("a core").expect("a shield");
        assert!((1..=20).contains(&parks), "{parks}");
    }
}
