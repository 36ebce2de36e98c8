//! `Core`: all state of one core, and what its parts ask of each other.
//!
//! One thread owns a core; everything here is reached through `task/current.rs` while the core's
//! turn runs. Each part lies in a cell of its own, so that one can be changed while another is
//! looked at.
//!
//! The rule for borrows: none is held while a foreign waker is woken or a foreign value dropped,
//! since either may call back into the core. Parts say what is to be done as values; the methods
//! here carry it out.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use crate::blocking::threads::PoolOwner;
use crate::buf::provided::{BufferPool, GROUP};
use crate::config::CoreConfig;
use crate::driver::{Driver, RingOptions};
use crate::kernel_op::fd::SharedFd;
use crate::kernel_op::payload::Operation;
use crate::kernel_op::slab::{Notify, OpId, OpSlab};
use crate::kernel_op::state::Asker;
use crate::mailbox::closures::ClosureQueue;
use crate::mailbox::{CoreShared, Place};
use crate::metrics::Counters;
use crate::panics::contained;
use crate::process::guardian::Guardian;
use crate::prompt::Prompt;
use crate::runtime::{CoreId, Handle};
use crate::scope::patience::{self, Forgotten, Patience};
use crate::scope::tree::{Effect, IdleTimer, Kind, NodeId, ParkId, Shield, Told, Tree};
use crate::scope::unopened::ActiveScope;
use crate::scope::{Cancelled, park};
use crate::slab::Slab;
use crate::spin::Spin;
use crate::task::TaskId;
use crate::task::cell::boxed;
use crate::task::memory::{TaskBox, TaskMemory};
use crate::task::table::TaskTable;
use crate::task::waker::{task_of, wakes};
use crate::time::Instant;
use crate::time::store::{Due, Of, Order, TimerId, TimerStore};

/// What a timer stands for. Parked ops and scopes keep their deadlines themselves.
#[derive(Debug)]
pub(crate) enum TimerTarget {
    /// The end of a cancelled scope's grace.
    Grace(NodeId),
    /// The pause of a task that swallows every cancel.
    Pause(u32),
    /// One more wake for a cancelled body that waits in something foreign.
    Foreign(NodeId),
    /// Somebody who knows nothing of parks.
    Alarm(Waker),
}

/// Some scopes, of which there are seldom more than one: as many as a task has branches.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    last: Cell<Option<NodeId>>,
    /// There are some beside the last: looked at for each poll, as the set is not.
    has_more: Cell<bool>,
    before: RefCell<BTreeSet<NodeId>>,
}

/// What [`Scopes`] were.
#[derive(Debug)]
pub(crate) struct Taken {
    last: Option<NodeId>,
    before: Option<BTreeSet<NodeId>>,
}

impl Scopes {
    #[inline]
    pub(crate) fn add(&self, node: NodeId) {
        let last = self.last.replace(Some(node));
        if let Some(last) = last
            && last != node
        {
            self.add_before(last);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_before(&self, node: NodeId) {
        self.has_more.set(true);
        self.before.borrow_mut().insert(node);
    }

    pub(crate) fn contain(&self, node: NodeId) -> bool {
        let last = self.last.get();
        last == Some(node) || self.has_more.get() && self.before.borrow().contains(&node)
    }

    #[inline]
    pub(crate) fn clear(&self) {
        self.last.set(None);
        if self.has_more.get() {
            self.take_before();
        }
    }

    #[cold]
    #[inline(never)]
    fn take_before(&self) -> BTreeSet<NodeId> {
        self.has_more.set(false);
        self.before.take()
    }

    /// Takes all of them out.
    #[inline]
    pub(crate) fn take(&self) -> Taken {
        Taken {
            last: self.last.take(),
            before: self.has_more.get().then(|| self.take_before()),
        }
    }

    /// Has these from now on, and no others.
    #[inline]
    pub(crate) fn set(&self, taken: Taken) {
        self.clear();
        self.last.set(taken.last);
        if let Some(before) = taken.before {
            self.set_before(before);
        }
    }

    #[cold]
    #[inline(never)]
    fn set_before(&self, before: BTreeSet<NodeId>) {
        self.has_more.set(true);
        self.before.replace(before);
    }
}

/// Waits of the running task that a cancel had reached and that have ended since its poll began, looked at or dropped,
/// and are not noted.
#[derive(Debug)]
pub(crate) struct AbortsSeen {
    count: Cell<u32>,
    /// All of them were told by the same scope; where one stood then.
    told: Cell<Told>,
}

impl AbortsSeen {
    fn new(root: NodeId) -> Self {
        let told = Told {
            under: root,
            by: root,
        };
        Self {
            count: Cell::new(0),
            told: Cell::new(told),
        }
    }

    #[inline(always)]
    pub(crate) fn clear(&self) {
        self.count.set(0);
    }

    #[inline]
    fn add(&self, told: Told) {
        self.told.set(told);
        self.count.set(self.count.get() + 1);
    }

    /// Takes all of them out.
    pub(crate) fn take(&self) -> (u32, Told) {
        (self.count.take(), self.told.get())
    }

    /// Has these from now on, and no others.
    pub(crate) fn set(&self, (count, told): (u32, Told)) {
        self.count.set(count);
        self.told.set(told);
    }
}

/// Ops on files in one poll, at most, that go past the ring: then who goes on lets others have their turn. One of more
/// than a piece counts as so many more.
const PAST_THE_RING: u8 = 16;
const PIECE: u32 = 16 * 1024;

/// So many items or permits a task may have at once, in one poll, of what cores and threads share.
const MOST_AT_ONCE: u16 = 256;

/// How much of what cancels want done is done in one turn: the rest is for those to come, so that
/// others have theirs.
const EFFECTS_PER_TURN: u32 = 1024;

/// One core.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) id: CoreId,
    identity: u64,
    pub(crate) shared: &'static CoreShared,
    place: RefCell<Place>,
    pub(crate) driver: RefCell<Driver>,
    pub(crate) ops: RefCell<OpSlab>,
    pub(crate) buffers: Rc<BufferPool>,
    pub(crate) tasks: RefCell<TaskTable>,
    pub(crate) task_memory: TaskMemory,
    pub(crate) tree: RefCell<Tree>,
    pub(crate) root: NodeId,
    pub(crate) timers: RefCell<TimerStore<TimerTarget>>,
    pub(crate) closures: Arc<ClosureQueue>,
    /// The threads of its runtime that may block.
    pub(crate) blocking: Arc<PoolOwner>,
    /// Who ends the children of its runtime if this process is killed.
    pub(crate) guardian: Arc<Guardian>,
    /// The runtime it belongs to, once all its cores are there.
    pub(crate) runtime: Arc<OnceLock<Handle>>,
    /// The innermost scope whose body is being polled.
    pub(crate) active: ActiveScope,
    /// The task that is being polled.
    pub(crate) running: Cell<Option<TaskId>>,
    /// It was asked since its poll began whether it has the core for itself; those whom it polls at once share the poll.
    pub(crate) was_alone: Cell<bool>,
    /// Ops on files that were done past the ring since then, and pieces of long ones.
    pub(crate) past_the_ring: Cell<u8>,
    /// How much it has had at once since then of what others than its core have a part in.
    pub(crate) had_at_once: Cell<u16>,
    /// Somebody has found that this turn has lasted for long.
    pub(crate) turn_is_long: Cell<bool>,
    /// How often the running task has asked in a cancelled scope since its poll began, which is refused or makes it yield,
    /// and how many of them are noted.
    pub(crate) refusals: Cell<u32>,
    pub(crate) refusals_noted: Cell<u32>,
    /// Under which scope those were that are not.
    pub(crate) refused_under: Cell<NodeId>,
    /// How many more it may be refused before it has to pause, once it has been.
    pub(crate) allowance: Cell<u32>,
    pub(crate) aborts_seen: AbortsSeen,
    /// A cancel was passed on to a child on another core, or on this one, since handles were last looked at.
    pub(crate) has_relayed: Cell<bool>,
    /// The scopes in which it has yielded or pauses: there it will be polled again, whatever else it
    /// waits in.
    pub(crate) coming_back: Scopes,
    pub(crate) patience: RefCell<Patience>,
    /// How much of what cancels want done may still be done in this turn.
    effects_left: Cell<u32>,
    /// The groups that are open: a `GroupState` each.
    pub(crate) groups: RefCell<Slab<Rc<dyn Any>>>,
    /// How many scopes have a deadline armed.
    pub(crate) armed_scopes: Cell<u32>,
    /// The running task lets others go first, once it was polled.
    pub(crate) yielding: Cell<bool>,
    /// Who yielded and is no task of this core, which knows its own: woken once I/O was looked at.
    pub(crate) yields: RefCell<Vec<Waker>>,
    /// When what is left is dropped, once the core was asked to stop; and the grace it has.
    pub(crate) stop_at: Cell<Option<Instant>>,
    pub(crate) stop_grace: Cell<Duration>,
    /// The future of `block_on` has not ended: a stop waits for it, however long it takes.
    pub(crate) has_main: Cell<bool>,
    /// Whether the kernel watches the eventfd.
    pub(crate) wake_armed: Cell<bool>,
    pub(crate) scratch: RefCell<Vec<u32>>,
    /// One moment on both clocks.
    pub(crate) clock_base: (std::time::Instant, Instant),
    /// When the clock was last read.
    pub(crate) now: Cell<Instant>,
    /// A turn has run that may have made timers due since the clock was last read.
    pub(crate) clock_is_old: Cell<bool>,
    /// Whether what it submits is answered at once.
    pub(crate) prompt: Prompt,
    /// Whether it spins before it parks, if it ever does.
    pub(crate) spin: Option<RefCell<Spin>>,
    /// When the last park began.
    pub(crate) parked_at: Cell<Instant>,
    /// It was read since timers were last looked at.
    pub(crate) time_is_new: Cell<bool>,
}

impl Core {
    /// Sets a core up on this thread.
    pub(crate) fn new(index: u32, config: &CoreConfig) -> io::Result<Self> {
        let mut driver = Driver::new(&RingOptions {
            submission_entries: config.submission_entries,
            completion_entries: config.completion_entries,
            features: config.features,
        })?;
        let (count, size) = config.receive_buffers;
        let spins = driver.shows_work() && !config.spin_before_park.is_zero();
        let buffers = BufferPool::new(count, size)?;
        let incremental =
            driver.register_buffers(buffers.ring_address(), buffers.count(), GROUP)?;
        buffers.set_incremental(incremental);
        let mut place = Place::take()?;
        place.join_simulation();
        let shared = place.shared;
        shared.counters.reset();
        shared.latencies.reset();
        shared.parked.reset();
        let tree = Tree::new(shared.incarnation());
        let root = tree.root();
        let closures = Arc::new(ClosureQueue::new(config.mailbox_capacity));
        shared.set_door(Some(Arc::clone(&closures)));
        let id = CoreId::new(index, shared.number(), shared.incarnation());
        Ok(Self {
            id,
            identity: id.identity(),
            shared,
            place: RefCell::new(place),
            driver: RefCell::new(driver),
            ops: RefCell::new(OpSlab::new(&shared.latencies)),
            buffers,
            tasks: RefCell::new(TaskTable::new(shared)),
            task_memory: TaskMemory::default(),
            tree: RefCell::new(tree),
            root,
            timers: RefCell::default(),
            closures,
            blocking: Arc::clone(&config.blocking),
            guardian: Arc::clone(&config.guardian),
            runtime: Arc::clone(&config.runtime),
            active: ActiveScope::new(root),
            running: Cell::new(None),
            was_alone: Cell::new(false),
            past_the_ring: Cell::new(0),
            had_at_once: Cell::new(0),
            turn_is_long: Cell::new(false),
            refusals: Cell::new(0),
            refusals_noted: Cell::new(0),
            refused_under: Cell::new(root),
            allowance: Cell::new(u32::MAX),
            has_relayed: Cell::new(false),
            aborts_seen: AbortsSeen::new(root),
            coming_back: Scopes::default(),
            patience: RefCell::default(),
            effects_left: Cell::new(EFFECTS_PER_TURN),
            groups: RefCell::default(),
            armed_scopes: Cell::new(0),
            yielding: Cell::new(false),
            yields: RefCell::default(),
            stop_at: Cell::new(None),
            stop_grace: Cell::new(Duration::MAX),
            has_main: Cell::new(false),
            wake_armed: Cell::new(false),
            scratch: RefCell::default(),
            clock_base: crate::driver::clock_base(),
            now: Cell::new(Instant::now()),
            clock_is_old: Cell::new(true),
            prompt: Prompt::default(),
            spin: spins.then(|| RefCell::new(Spin::new(config.spin_before_park))),
            parked_at: Cell::new(Instant::NEVER),
            time_is_new: Cell::new(false),
        })
    }

    /// Tells this core, in this life, from every other.
    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    pub(crate) fn number(&self) -> u32 {
        (self.identity >> 32) as u32
    }

    pub(crate) fn incarnation(&self) -> u32 {
        self.id.incarnation()
    }

    pub(crate) fn counters(&self) -> &'static Counters {
        &self.shared.counters
    }

    /// Reads the clock, for all who want to know what time it is now, more or less.
    pub(crate) fn read_clock(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        self.tree.borrow_mut().set_now(now);
        now
    }

    /// Starts a task under the root scope.
    pub(crate) fn spawn_at_root(&self, object: TaskBox) -> TaskId {
        // The root has no end that would wait for it.
        self.insert_new(|| self.root, object)
    }

    /// Starts a task under a scope of this core, of which nobody has to know the node.
    pub(crate) fn spawn_new(&self, parent: NodeId, object: TaskBox) -> TaskId {
        self.insert_new(|| self.expect_task(parent), object)
    }

    #[inline]
    fn expect_task(&self, parent: NodeId) -> NodeId {
        let counted = self.tree.borrow_mut().expect_task(parent);
        counted.unwrap_or(self.root)
    }

    #[inline(always)]
    fn insert_new(&self, parent: impl FnOnce() -> NodeId, object: TaskBox) -> TaskId {
        let mut tasks = self.tasks.borrow_mut();
        // Before anybody expects it: a core that has as many as it can have starts none.
        let slot = tasks.reserve();
        self.counters().spawned.add(1);
        tasks.insert_new(slot, object, parent())
    }

    /// Starts a task under a scope of this core.
    pub(crate) fn spawn_under<F>(&self, parent: NodeId, future: F) -> (TaskId, NodeId)
    where
        F: Future<Output: 'static> + 'static,
    {
        self.spawn_boxed(parent, boxed(future))
    }

    /// As [`Core::spawn_under`], of a future that is in its place already.
    pub(crate) fn spawn_boxed(&self, parent: NodeId, object: TaskBox) -> (TaskId, NodeId) {
        let task = self.add_task(parent, |tasks, slot, node| tasks.insert(slot, object, node));
        self.counters().spawned.add(1);
        task
    }

    /// Opens a node for a task, and lets `insert` put that into the table.
    fn add_task(
        &self,
        parent: NodeId,
        insert: impl FnOnce(&mut TaskTable, u32, NodeId) -> TaskId,
    ) -> (TaskId, NodeId) {
        let mut tasks = self.tasks.borrow_mut();
        let slot = tasks.reserve();
        let mut tree = self.tree.borrow_mut();
        let node = tree.open(parent, Kind::Task(slot), Shield::None);
        (insert(&mut tasks, slot, node), node)
    }

    /// As [`Core::spawn_new`], and polls the task at once.
    pub(crate) fn spawn_eager(&self, parent: NodeId, object: TaskBox) -> TaskId {
        let mut tasks = self.tasks.borrow_mut();
        let slot = tasks.reserve();
        self.counters().spawned.add(1);
        let parent = self.expect_task(parent);
        let task = tasks.insert_running(slot, parent);
        drop(tasks);
        self.poll_at_once(task, parent, object);
        task
    }

    /// Lets a task go on whose handle is dropped, with the wait of that; returns its output, if it has ended.
    pub(crate) fn detach(&self, task: TaskId) -> Option<TaskBox> {
        let mut tasks = self.tasks.borrow_mut();
        let joiner = tasks.joiner(task);
        let output = tasks.detach(task);
        drop(tasks);
        if let Some(park) = joiner {
            park::end(self, park);
        }
        output
    }

    /// Starts a kernel op, whose first completion is told as `notify` says.
    #[inline]
    pub(crate) fn start<O: Operation>(
        &self,
        operation: O,
        fd: Option<SharedFd>,
        notify: Notify,
    ) -> OpId {
        let starts = Starts(self);
        let mut driver = self.driver.borrow_mut();
        let mut ops = self.ops.borrow_mut();
        let op = ops.start(&mut driver, operation, fd, notify);
        std::mem::forget(starts);
        op
    }

    /// Gives a kernel op up: its future is gone, and the scope `under` is charged for it.
    pub(crate) fn abandon(&self, op: OpId, under: NodeId) {
        let charge = || account(self.tree.borrow_mut().orphan_started(under));
        let leftover = self.ops.borrow_mut().abandon(op, charge);
        if let Some(mut leftover) = leftover {
            // Whoever was to be told is foreign code, and none of whoever drops the op.
            let untold = std::mem::take(&mut leftover.notify);
            self.contain(|| drop(untold));
        }
    }

    /// Asks a kernel op to end because its scope is cancelled.
    fn abort_op(&self, user_data: u64) {
        let told = self
            .ops
            .borrow_mut()
            .cancel(OpId::from_user_data(user_data), Asker::Scope);
        self.tell(told);
    }

    /// Wakes somebody. A waker may be foreign code; a panic in it is counted, and stops nothing.
    #[inline(always)]
    pub(crate) fn wake(&self, waker: Waker) {
        match task_of(&waker, self.number()) {
            Some(task) => {
                self.tasks.borrow_mut().wake(task.slot(), task.generation());
                // It is a word.
                std::mem::forget(waker);
            }
            None => self.wake_stranger(waker),
        }
    }

    #[cold]
    fn wake_stranger(&self, waker: Waker) {
        // No scope is active in a waker.
        let outside = self.activate(self.root);
        self.contain(|| waker.wake());
        self.activate_again(outside);
    }

    /// Runs somebody else's code; a panic in it does not take the core down.
    #[inline]
    pub(crate) fn contain(&self, job: impl FnOnce()) {
        if !contained(job) {
            self.counters().panics.add(1);
        }
    }

    /// Does what a change of the tree wants done; if that is a lot, the rest is for turns to come.
    #[inline]
    pub(crate) fn carry_out(&self) {
        if self.tree.borrow().has_effects() {
            self.carry_out_now();
        }
    }

    fn carry_out_now(&self) {
        let mut tree = self.tree.borrow_mut();
        self.disarm_idle(&mut tree);
        if tree.has_effects() {
            drop(tree);
            self.carry_out_some();
        }
    }

    /// Takes away timers of nodes that are gone or need them no more.
    #[inline]
    fn disarm_idle(&self, tree: &mut Tree) {
        while let Some(timer) = tree.next_idle_timer() {
            match timer {
                // It stands for a node: nothing of anybody else's is dropped here.
                IdleTimer::OfGrace(timer) => drop(self.timers.borrow_mut().remove(timer, tree)),
                IdleTimer::OfDeadline(order) => self.disarm(order, tree),
            }
        }
    }

    #[cold]
    fn carry_out_some(&self) {
        // No scope is active while somebody else's code runs.
        let root = self.tree.borrow().root();
        let outside = self.activate(root);
        loop {
            self.carry_out_own_wakes();
            let Some(left) = self.effects_left.get().checked_sub(1) else {
                break;
            };
            let effect = self.tree.borrow_mut().next_effect();
            let Some(effect) = effect else { break };
            self.effects_left.set(left);
            self.carry_out_one(effect);
        }
        self.activate_again(outside);
    }

    /// Wakes tasks of this core, as long as nothing else is to be done before: no other code runs meanwhile.
    fn carry_out_own_wakes(&self) {
        let (mut tree, mut tasks) = (self.tree.borrow_mut(), self.tasks.borrow_mut());
        let number = self.number();
        let most = self.effects_left.get();
        let mut left = most;
        while left > 0
            && let Some((waker, task)) = tree.next_wake(|waker| task_of(waker, number))
        {
            tasks.wake(task.slot(), task.generation());
            // It is a word.
            std::mem::forget(waker);
            left -= 1;
        }
        self.effects_left.set(left);
        self.counters().aborts.add(u64::from(most - left));
    }

    /// Does what is left of what cancels want done: a slice each turn.
    pub(crate) fn carry_out_a_slice(&self) {
        self.effects_left.set(EFFECTS_PER_TURN);
        self.carry_out();
    }

    fn carry_out_one(&self, effect: Effect) {
        match effect {
            Effect::Wake(waker) => {
                self.counters().aborts.add(1);
                self.wake(waker);
            }
            Effect::Seen(waker) => {
                self.counters().aborts.add(1);
                self.contain(|| drop(waker));
            }
            Effect::Kernel(op) => {
                self.counters().aborts.add(1);
                self.abort_op(op);
            }
            Effect::Relay(relay, cause, node, grace_end) => {
                self.counters().aborts.add(1);
                let grace_end = self.tree.borrow().grace_left(node, grace_end);
                self.has_relayed.set(true);
                self.contain(|| relay.relay(cause, grace_end));
            }
            Effect::EndGrace(node, end) => self.end_grace_at(node, end),
            Effect::End(waker) => self.wake(waker),
            Effect::Drop(waker) => self.contain(|| drop(waker)),
            Effect::Foreign(node) => self.wake_foreign(node),
            Effect::ForeignTask(node, slot) => {
                let runs = self.running.get().is_some_and(|task| task.slot() == slot);
                // It may have gone on meanwhile, and its slot be another's.
                let waits = self.tree.borrow().is_stuck(node);
                if !runs
                    && waits
                    && self.patience.borrow().may_wake(node)
                    && self.tasks.borrow_mut().wake_slot(slot)
                {
                    self.counters().foreign_wakes.add(1);
                    self.patience.borrow_mut().woken(node);
                }
            }
        }
    }

    /// Wakes a body that waits in something foreign, unless it has been polled since it was to be woken.
    #[cold]
    fn wake_foreign(&self, node: NodeId) {
        if !self.tree.borrow().is_stuck(node) || !self.patience.borrow().may_wake(node) {
            return;
        }
        let waker = self.tree.borrow_mut().take_foreign(node);
        let Some(waker) = waker else { return };
        self.counters().foreign_wakes.add(1);
        self.patience.borrow_mut().woken(node);
        // Copied where no borrow is held: it is foreign code, which may end the body.
        self.contain(|| {
            let again = waker.clone();
            let unwanted = self.tree.borrow_mut().return_foreign(node, again);
            drop(unwanted);
        });
        self.wake(waker);
    }

    /// Cancels a scope; `grace` as the scope has it, unless said otherwise. False if it was cancelled
    /// before, or has gone: by what its handles were told, or by its deadline.
    pub(crate) fn cancel(&self, node: NodeId, cause: Cancelled, grace: Option<Duration>) -> bool {
        self.see_remote_cancels();
        self.notice_deadline_of(node);
        self.cancel_first(node, cause, grace)
    }

    /// As [`Core::cancel`], of a scope that ends because of what cancels it from outside, if anything does: with the
    /// grace that is left of that.
    pub(crate) fn cancel_in_grace(&self, node: NodeId, cause: Cancelled) -> bool {
        self.see_remote_cancels();
        self.notice_deadline_of(node);
        let grace_end = self.tree.borrow().grace_end(node);
        self.cancel_until(node, cause, grace_end)
    }

    /// As [`Core::cancel`], of what came before all that nobody has seen yet.
    fn cancel_first(&self, node: NodeId, cause: Cancelled, grace: Option<Duration>) -> bool {
        let grace = grace.unwrap_or_else(|| self.tree.borrow().grace_period(node));
        let grace_end = (grace > Duration::ZERO).then(|| Instant::now() + grace);
        self.cancel_until(node, cause, grace_end)
    }

    /// As [`Core::cancel_first`], with grace until then.
    fn cancel_until(&self, node: NodeId, cause: Cancelled, grace_end: Option<Instant>) -> bool {
        self.read_clock();
        let first = self.tree.borrow_mut().cancel(node, cause, grace_end);
        if let Some(end) = grace_end.filter(|_| first) {
            self.end_grace_at(node, end);
        }
        if first && self.tree.borrow().is_announced(node) {
            self.tell_handles(node);
        }
        self.carry_out();
        first
    }

    /// Lets a node's handles find that it was cancelled.
    fn tell_handles(&self, node: NodeId) {
        let (index, generation) = node.to_parts();
        self.shared.cancels.note_cancelled(index, generation);
    }

    /// Lets the grace of a cancelled scope end at `end`, and not when it was to end before.
    fn end_grace_at(&self, node: NodeId, end: Instant) {
        let target = TimerTarget::Grace(node);
        let has_end = end != Instant::NEVER;
        let timer = has_end.then(|| self.timers.borrow_mut().insert(end, target));
        self.tree.borrow_mut().set_grace_end(node, (end, timer));
        self.carry_out();
    }

    /// Sets, moves or takes away a scope's deadline; one that has passed `now` cancels it.
    pub(crate) fn set_deadline(&self, node: NodeId, deadline: Option<Instant>, now: Instant) {
        if self.tree.borrow().own_cause(node).is_some() {
            return;
        }
        let armed = match deadline {
            Some(at) if at <= now => {
                // Those that were due before it come first.
                self.fire_due(at);
                // One of them may have been its own.
                if self.cancel_first(node, Cancelled::deadline(), None) {
                    self.counters().deadlines.add(1);
                }
                return;
            }
            Some(at) if at != Instant::NEVER => {
                let order = self.timers.borrow_mut().arm(at, Of::Scope, node.key());
                self.armed_scopes.set(self.armed_scopes.get() + 1);
                Some((at, order))
            }
            _ => None,
        };
        let mut tree = self.tree.borrow_mut();
        tree.set_deadline(node, armed);
        // What else is to be done has its time: it is foreign code, and a scope is opened in the middle of something.
        self.disarm_idle(&mut tree);
    }

    /// Ends a scope in which nothing is left and of which nobody knows; false if it is not so.
    #[inline]
    pub(crate) fn close_if_unnoticed(&self, node: NodeId) -> bool {
        if !self.patience.borrow().is_empty() {
            return false;
        }
        let mut tree = self.tree.borrow_mut();
        // As before any close, where this is one.
        let is_refused_under = self.refused_under.get() == node;
        let above = is_refused_under.then(|| tree.refused_above(node)).flatten();
        let (closed, deadline) = tree.close_if_unnoticed(node);
        if let Some(order) = deadline {
            self.disarm(order, &tree);
        }
        if closed && let Some(above) = above {
            self.refused_under.set(above);
        }
        closed
    }

    /// Takes away the deadline of a scope that keeps it no more.
    #[inline]
    fn disarm(&self, order: Order, tree: &Tree) {
        self.timers.borrow_mut().withdraw(order, tree);
        self.armed_scopes.set(self.armed_scopes.get() - 1);
    }

    /// Takes away the deadline of a wait that is over.
    #[inline]
    pub(crate) fn withdraw(&self, order: Order) {
        let tree = self.tree.borrow();
        self.timers.borrow_mut().withdraw(order, &*tree);
    }

    /// Takes away a timer, and returns what it stood for, to be dropped where no borrow is held.
    pub(crate) fn remove_timer(&self, timer: TimerId) -> Option<TimerTarget> {
        let tree = self.tree.borrow();
        self.timers.borrow_mut().remove(timer, &*tree)
    }

    /// Ends a scope, group or task of the tree.
    pub(crate) fn close_node(&self, node: NodeId) {
        self.before_close(node);
        let closed = self.tree.borrow_mut().close_plain(node);
        match closed {
            Some(has_told) => self.after_close(node, has_told),
            None => self.close_noticed(node),
        }
    }

    /// Goes on after the end of a node of which nothing was left, and that nobody else knew of.
    #[inline(always)]
    pub(crate) fn after_close(&self, node: NodeId, has_told: bool) {
        if !self.patience.borrow().is_empty() {
            self.forget_node(node, false);
            self.carry_out();
        } else if has_told {
            self.carry_out();
        }
    }

    /// Ends what others have to be told of.
    pub(crate) fn close_noticed(&self, node: NodeId) {
        if self.tasks.borrow().new_ones() > 0 && self.tree.borrow().has_tasks_or_nodes_below(node) {
            // What lies below goes to the node above.
            self.open_new_tasks();
        }
        let mut tree = self.tree.borrow_mut();
        let announced = tree.close(node);
        let abandoned = tree.next_abandoned();
        let cancelled_at = tree.take_acknowledged();
        let has_effects = tree.has_effects();
        drop(tree);
        if let Some(at) = cancelled_at {
            let took = Instant::now() - at;
            self.shared.latencies.cancel.record_one(took);
            while let Some(task) = self.tree.borrow_mut().next_kept_cancelled() {
                self.tell_handles(task);
            }
        }
        if announced || !self.patience.borrow().is_empty() {
            self.forget_node(node, announced);
        }
        if let Some((group, announced)) = abandoned {
            self.forget_abandoned(group, announced);
        }
        if has_effects {
            self.carry_out();
        }
    }

    #[cold]
    fn forget_abandoned(&self, first: NodeId, announced: bool) {
        let mut next = Some((first, announced));
        while let Some((node, announced)) = next {
            self.forget_node(node, announced);
            next = self.tree.borrow_mut().next_abandoned();
        }
    }

    #[cold]
    fn forget_node(&self, node: NodeId, announced: bool) {
        if announced {
            self.shared.cancels.retire(node.to_parts().0);
        }
        let forgotten = self.patience.borrow_mut().forget_node(node);
        self.let_go(forgotten);
    }

    /// Forgets how patient it was with a task that has ended.
    pub(crate) fn forget_task(&self, task: TaskId) {
        if !self.patience.borrow().is_empty() {
            self.forget_known_task(task);
        }
    }

    /// As [`Core::forget_task`], where it was patient with somebody.
    #[cold]
    pub(crate) fn forget_known_task(&self, task: TaskId) {
        let forgotten = self.patience.borrow_mut().forget_task(task.slot());
        self.let_go(forgotten);
    }

    fn let_go(&self, forgotten: Forgotten) {
        for timer in forgotten.timers {
            drop(self.remove_timer(timer));
        }
        // Who paused is refused no more, or by somebody else.
        for waker in forgotten.wakers {
            self.wake(waker);
        }
    }

    /// Lets an op of the running task, which is refused too often, wait for the end of a pause.
    pub(crate) fn pause_task(&self, waker: &Waker) {
        self.coming_back.add(self.active());
        let Some(task) = self.running.get() else {
            return self.yield_to_others(waker);
        };
        self.note_refusals(task);
        // Copied where no borrow is held: it is foreign code.
        let is_known = self.patience.borrow().will_wake(task.slot(), waker);
        let mut copy = (!is_known).then(|| waker.clone());
        let pause = self.patience.borrow_mut().pause(task.slot(), &mut copy);
        if let Some(pause) = pause {
            self.pause_for(task.slot(), pause);
        }
    }

    fn pause_for(&self, slot: u32, pause: Duration) {
        self.counters().pauses.add(1);
        let at = Instant::now() + pause;
        let timer = self
            .timers
            .borrow_mut()
            .insert(at, TimerTarget::Pause(slot));
        self.patience.borrow_mut().paused(slot, timer);
    }

    /// Returns how often the running task may be refused before it has to pause.
    #[cold]
    pub(crate) fn allowance_of_running(&self, active: NodeId) -> u32 {
        let Some(task) = self.running.get() else {
            return u32::MAX;
        };
        if !self.patience.borrow().knows_task(task.slot()) {
            return u32::MAX;
        }
        let source = self.tree.borrow().source(active);
        source.map_or(u32::MAX, |source| {
            self.patience.borrow_mut().allowance(task.slot(), source)
        })
    }

    /// Lets what was refused under a node that ends, and is not noted, have been under the one above: what cancels that
    /// has refused it.
    #[inline(always)]
    fn before_close(&self, node: NodeId) {
        if self.refused_under.get() == node {
            self.refused_above(node);
        }
    }

    #[cold]
    fn refused_above(&self, node: NodeId) {
        let above = self.tree.borrow().refused_above(node);
        if let Some(above) = above {
            self.refused_under.set(above);
        }
    }

    /// Lets what the running task is refused from here on count as this scope's doing.
    #[cold]
    pub(crate) fn refuse_under(&self, active: NodeId) {
        let has_more = self.refusals.get() > self.refusals_noted.get();
        let before = self.refused_under.replace(active);
        if has_more {
            let tree = self.tree.borrow();
            let is_same = tree.source(before) == tree.source(active);
            drop(tree);
            if is_same {
                return;
            }
            if let Some(task) = self.running.get() {
                self.refused_under.set(before);
                self.note_refusals(task);
                self.refused_under.set(active);
            }
        }
        self.allowance.set(self.allowance_of_running(active));
    }

    /// Returns whether the running task has been refused or aborted since that was last noted.
    pub(crate) fn has_seen_more(&self) -> bool {
        self.aborts_seen.count.get() > 0 || self.refusals.get() > self.refusals_noted.get()
    }

    /// Counts a wait that a cancel had reached and that has ended, if it was the running task's.
    #[inline]
    pub(crate) fn saw_abort(&self, told: Told) {
        let seen = &self.aborts_seen;
        let is_like_before = seen.count.get() == 0 || seen.told.get().by == told.by;
        match is_like_before && self.active.polled() == Some(told.under) {
            true => seen.add(told),
            false => self.saw_other_abort(told),
        }
    }

    /// As [`Core::saw_abort`], where it stood elsewhere than in the active scope, or was told by another than the last.
    #[cold]
    fn saw_other_abort(&self, told: Told) {
        let Some(task) = self.running.get() else {
            return;
        };
        if !self.tree.borrow().may_be_of(told.under, task.slot()) {
            return;
        }
        if self.aborts_seen.told.get().by != told.by {
            self.note_aborts(task);
        }
        self.aborts_seen.add(told);
    }

    /// Lets the waits count that a cancel has ended in this poll: what they let the running task be refused more.
    pub(crate) fn count_aborts(&self, active: NodeId) {
        if self.aborts_seen.count.get() > 0
            && let Some(task) = self.running.get()
        {
            self.note_refusals(task);
            self.allowance.set(self.allowance_of_running(active));
        }
    }

    /// Notes what the running task was refused since this was last asked, and its waits that a cancel has ended.
    pub(crate) fn note_refusals(&self, task: TaskId) {
        self.note_aborts(task);
        let asked = self.refusals.get();
        let noted = self.refusals_noted.replace(asked);
        let refused = patience::refused(asked) - patience::refused(noted);
        if refused > 0 {
            let source = self.tree.borrow().source(self.refused_under.get());
            self.note_of(task, source, refused, 0);
        }
    }

    fn note_aborts(&self, task: TaskId) {
        let (aborted, told) = self.aborts_seen.take();
        if aborted > 0 {
            let source = self.tree.borrow().teller(told);
            self.note_of(task, source, 0, aborted);
        }
    }

    fn note_of(&self, task: TaskId, source: Option<NodeId>, refused: u32, aborted: u32) {
        if let Some(source) = source {
            let mut patience = self.patience.borrow_mut();
            patience.note(task.slot(), source, refused, aborted);
        }
    }

    /// Looks at a body whose poll ended with `Pending`: a cancelled one that waits in something
    /// foreign is woken a few times more, and then left alone; one that is not cancelled yet is
    /// noted down with `waker`, for when it is. Returns whether it was.
    #[inline]
    pub(crate) fn after_pending(&self, node: NodeId, waker: Option<&Waker>) -> bool {
        let waits_in_foreign = self.tree.borrow().waits_in_foreign(node);
        (waits_in_foreign || !self.patience.borrow().is_empty())
            && self.look_after(node, waker, waits_in_foreign)
    }

    #[cold]
    fn look_after(&self, node: NodeId, waker: Option<&Waker>, waits_in_foreign: bool) -> bool {
        if self.coming_back.contain(node) {
            return false;
        }
        if !waits_in_foreign {
            if self.patience.borrow().knows(node) {
                let forgotten = self.patience.borrow_mut().moved(node);
                self.let_go(forgotten);
            }
            return false;
        }
        if let Some(waker) = waker {
            // Copied where no borrow is held: it is foreign code.
            let waker = waker.clone();
            let before = self.tree.borrow_mut().set_foreign(node, Some(waker));
            drop(before);
        }
        if !self.tree.borrow().is_cancelled(node) {
            // A shield has come up; what it waits in now may be something else.
            let forgotten = self.patience.borrow_mut().moved(node);
            self.let_go(forgotten);
        } else {
            let gap = self.patience.borrow_mut().still_waits(node);
            if let Some(gap) = gap {
                let at = Instant::now() + gap;
                let timer = self
                    .timers
                    .borrow_mut()
                    .insert(at, TimerTarget::Foreign(node));
                self.patience.borrow_mut().wake_armed(node, timer);
            }
        }
        waker.is_some()
    }

    /// Tells of a completion.
    #[inline(always)]
    pub(crate) fn tell(&self, notify: Notify) {
        match notify {
            Notify::Nobody => {}
            Notify::Waker(waker) => self.wake(waker),
            // It was what they expected.
            Notify::Unless(waker, _) => self.contain(|| drop(waker)),
            Notify::Token(token) => {
                self.complete(ParkId::from_token(token));
            }
        }
    }

    /// Ends a wait in memory with success; false if it had ended before.
    pub(crate) fn complete(&self, park: ParkId) -> bool {
        let waker = self.tree.borrow_mut().complete(park);
        let completed = waker.is_some();
        if let Some(waker) = waker {
            self.wake(waker);
        }
        completed
    }

    /// Notes that the kernel is done with an orphan.
    pub(crate) fn orphan_ended(&self, charged: u64) {
        self.tree.borrow_mut().orphan_ended(node_of(charged));
        self.carry_out();
    }

    /// Wakes `waker` when other ready tasks have run and I/O was looked at.
    #[inline(always)]
    pub(crate) fn yield_to_others(&self, waker: &Waker) {
        self.coming_back.add(self.active());
        self.wake_after_others(waker);
    }

    /// Notes that the running task has had so much at once of what others than its core have a part in.
    #[inline]
    pub(crate) fn note_at_once(&self, count: usize) {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        let before = self.had_at_once.get();
        self.had_at_once.set(before.saturating_add(count));
    }

    /// Returns whether the running task has had so much of that, in one poll, that it lets others go first before it
    /// asks for more: those who provide it may never stop.
    #[inline]
    pub(crate) fn had_much_at_once(&self) -> bool {
        self.had_at_once.get() >= MOST_AT_ONCE
    }

    /// Lets them go first. Whoever polls again goes on, also where that is no poll of a task.
    #[cold]
    pub(crate) fn yield_for_more(&self, waker: &Waker) {
        self.had_at_once.set(0);
        self.yield_to_others(waker);
    }

    /// As [`Core::yield_to_others`], where the task may have other reasons to be polled.
    #[inline(always)]
    pub(crate) fn wake_after_others(&self, waker: &Waker) {
        let running = self.running.get();
        match running.is_some_and(|running| wakes(waker, running)) {
            true => self.yielding.set(true),
            false => self.wake_other_after_others(waker),
        }
    }

    #[cold]
    fn wake_other_after_others(&self, waker: &Waker) {
        match task_of(waker, self.number()) {
            Some(task) => self.tasks.borrow_mut().wake_last(task),
            None => {
                let own = waker.clone();
                self.yields.borrow_mut().push(own);
            }
        }
    }

    /// Returns whether ops are refused under this node: the active one, or that of a task that was just polled. Mostly
    /// nobody is refused on the core, and no node is looked at.
    #[inline(always)]
    pub(crate) fn refuses(&self, node: NodeId) -> bool {
        let refuses_any = self.tree.borrow().refuses_any();
        refuses_any && self.tree.borrow().is_cancelled(node)
    }

    /// Takes cancels that came by handle, so that an op's entry check sees them.
    #[inline]
    pub(crate) fn see_remote_cancels(&self) {
        if self.shared.cancels.has_mail() {
            self.take_remote_cancels();
        }
    }

    #[cold]
    fn take_remote_cancels(&self) {
        self.take_mail();
        // A call of another core that is this one as well passes it on by a handle: that is no reason to be behind.
        while self.has_relayed.take() && self.shared.cancels.has_mail() {
            self.take_mail();
        }
    }

    fn take_mail(&self) {
        let mut found = Vec::new();
        let mut scratch = self.scratch.take();
        self.shared
            .cancels
            .take(&mut scratch, |cancel| found.push(cancel));
        self.scratch.replace(scratch);
        // Whoever is woken for one of them finds what all have said.
        let effects_left = self.effects_left.replace(0);
        for message in found {
            let node = self.tree.borrow().living(message.index);
            let Some(node) = node.filter(|node| message.is_of(node.to_parts().1)) else {
                continue;
            };
            if let Some(deadline) = message.deadline {
                self.set_deadline(node, Some(deadline), Instant::now());
            }
            if let Some(cancel) = message.cancel
                && self.cancel_first(node, Cancelled::new(cancel.reason()), cancel.grace)
            {
                self.counters().remote_cancels.add(1);
            }
        }
        self.effects_left.set(effects_left);
        self.carry_out();
    }

    /// Notices scope deadlines that passed while the running task computed.
    pub(crate) fn notice_deadlines(&self) {
        // Of scopes whose first poll goes on as well.
        self.active();
        if self.armed_scopes.get() > 0 {
            self.fire_timers(Instant::now());
        }
    }

    /// Notices that the deadline of this scope has passed, if it has.
    pub(crate) fn notice_deadline_of(&self, node: NodeId) {
        let deadline = self.tree.borrow().deadline(node);
        if let Some(deadline) = deadline {
            let now = Instant::now();
            if deadline <= now {
                self.fire_due(now);
            }
        }
    }

    /// Fires every timer that is due, once what handles were told is seen.
    pub(crate) fn fire_timers(&self, now: Instant) {
        self.see_remote_cancels();
        self.fire_due(now);
    }

    fn fire_due(&self, now: Instant) {
        // Those of scopes whose first poll goes on are armed before.
        self.active();
        loop {
            let due = self.pop_due(now);
            let Some(due) = due else { return };
            self.counters().timers_fired.add(1);
            let target = match due {
                Due::Park(key) => {
                    if !self.complete(ParkId::from_key(key)) {
                        self.timers.borrow_mut().came_late();
                    }
                    continue;
                }
                Due::Scope(key) => {
                    let node = NodeId::from_key(key);
                    self.armed_scopes.set(self.armed_scopes.get() - 1);
                    self.tree.borrow_mut().deadline_fired(node);
                    self.counters().deadlines.add(1);
                    self.cancel_first(node, Cancelled::deadline(), None);
                    continue;
                }
                Due::Timer(target) => target,
            };
            match target {
                TimerTarget::Alarm(waker) => self.wake(waker),
                TimerTarget::Grace(node) => {
                    let mut tree = self.tree.borrow_mut();
                    tree.grace_fired(node);
                    tree.end_grace(node);
                    drop(tree);
                    self.carry_out();
                }
                TimerTarget::Pause(slot) => {
                    let (first, more) = self.patience.borrow_mut().pause_over(slot);
                    if let Some(pause) = more {
                        self.pause_for(slot, pause);
                    }
                    if let Some(waker) = first {
                        self.wake(waker);
                    }
                }
                TimerTarget::Foreign(node) => {
                    self.patience.borrow_mut().wake_due(node);
                    let wake = self.tree.borrow().foreign_wake(node);
                    if let Some(wake) = wake {
                        self.carry_out_one(wake);
                    }
                }
            }
        }
    }

    /// Takes out the earliest deadline if it has come.
    #[inline]
    fn pop_due(&self, now: Instant) -> Option<Due<TimerTarget>> {
        let tree = self.tree.borrow();
        self.timers.borrow_mut().pop_due(now, &*tree)
    }

    /// Begins to stop: the root scope is cancelled; what is in a grace shield goes on for that long.
    pub(crate) fn begin_to_stop(&self, grace: Duration) {
        let at = Instant::now() + grace;
        self.stop_grace.set(grace);
        let root = self.tree.borrow().root();
        match self.stop_at.get() {
            Some(before) if before <= at => {}
            Some(_) => {
                self.stop_at.set(Some(at));
                self.end_grace_at(root, at);
            }
            None => {
                self.stop_at.set(Some(at));
                self.cancel(root, Cancelled::shutdown(), Some(grace));
            }
        }
    }

    /// Returns whether the running task has the core for itself, and what it asks of the kernel now would be submitted
    /// alone. Once in each poll, with all that is polled at once within it: who goes on and on lets others have their
    /// turns.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        !self.was_alone.replace(true) && self.has_nothing_else()
    }

    /// As [`Core::is_alone`], for what copies so many bytes and neither waits nor sends: some times in each poll, fewer
    /// where there is much to copy.
    pub(crate) fn is_alone_on_a_file(&self, bytes: u32) -> bool {
        let before = self.past_the_ring.get();
        if before >= PAST_THE_RING || !self.has_nothing_else() {
            return false;
        }
        let pieces = (bytes / PIECE).min(u32::from(PAST_THE_RING)) as u8;
        self.past_the_ring.set(before + 1 + pieces);
        true
    }

    #[inline]
    fn has_nothing_else(&self) -> bool {
        if self.tasks.borrow().has_ready() {
            return false;
        }
        let mut driver = self.driver.borrow_mut();
        !driver.wants_enter()
            && !driver.has_completions()
            && !self.ops.borrow().has_waiting()
            && !self.has_mail()
    }

    /// Opens a node for the future of `block_on`.
    pub(crate) fn add_main(&self) -> (TaskId, NodeId) {
        let root = self.tree.borrow().root();
        self.has_main.set(true);
        self.add_task(root, TaskTable::insert_main)
    }

    /// Keeps for ever what the kernel may still write to.
    fn quarantine(&self) {
        let ops = self.ops.replace(OpSlab::new(&self.shared.latencies));
        self.counters().quarantined.add(u64::from(ops.in_kernel()));
        std::mem::forget(ops);
        std::mem::forget(Rc::clone(&self.buffers));
        self.place.borrow_mut().never_recycle();
    }
}

/// The start of a kernel op, dropped where a buffer has panicked that was asked for its bytes.
struct Starts<'a>(&'a Core);

impl Drop for Starts<'_> {
    #[cold]
    fn drop(&mut self) {
        // Where they are borrowed, it was asked within the start of another.
        let left = self.0.ops.try_borrow_mut();
        let left = left.ok().and_then(|mut ops| ops.take_unstarted());
        self.0.contain(|| drop(left));
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.closures.close();
        self.shared.set_door(None);
        self.tree.replace(Tree::new(0)).end();
        // Closing a ring is no barrier: only completions give memory back. The orderly end of a
        // core has waited for them; what is left now, the kernel may still write to.
        let kernel_is_done =
            self.ops.get_mut().in_kernel() == 0 || !self.driver.get_mut().may_still_write();
        if kernel_is_done {
            if self.driver.get_mut().unregister_buffers(GROUP).is_err() {
                std::mem::forget(Rc::clone(&self.buffers));
            }
        } else {
            self.quarantine();
        }
    }
}

/// An orphan's account is the node it was started under, as a number.
pub(crate) fn account(node: NodeId) -> u64 {
    let (index, generation) = node.to_parts();
    u64::from(index) | u64::from(generation) << 32
}

fn node_of(account: u64) -> NodeId {
    NodeId::from_parts(account as u32, (account >> 32) as u32)
}
