//! `Core`: all state of one core, and what its parts ask of each other.
//!
//! One thread owns a core; everything here is reached through `task/current.rs` while the core's
//! turn runs. Each part lies in a cell of its own, so that one can be changed while another is
//! looked at.
//!
//! The rule for borrows: none is held while a foreign waker is woken or a foreign value dropped,
//! since either may call back into the core. Parts say what is to be done as values; the methods
//! here carry it out.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

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
use crate::runtime::CoreId;
use crate::scope::Cancelled;
use crate::scope::handle::cause_of;
use crate::scope::tree::{Abort, NodeId, ParkId, Tree};
use crate::task::cell::TaskCell;
use crate::task::table::{TaskBox, TaskTable};
use crate::task::{JoinHandle, TaskId};
use crate::time::Instant;
use crate::time::store::TimerStore;

/// What a timer stands for.
#[derive(Debug)]
pub(crate) enum TimerTarget {
    /// A parked op.
    Park(ParkId),
    /// A scope's deadline.
    Scope(NodeId),
    /// Somebody who knows nothing of parks.
    Alarm(Waker),
}

/// One core.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) id: CoreId,
    pub(crate) shared: &'static CoreShared,
    place: RefCell<Place>,
    pub(crate) driver: RefCell<Driver>,
    pub(crate) ops: RefCell<OpSlab>,
    pub(crate) buffers: Rc<BufferPool>,
    pub(crate) tasks: RefCell<TaskTable>,
    pub(crate) tree: RefCell<Tree>,
    pub(crate) timers: RefCell<TimerStore<TimerTarget>>,
    pub(crate) closures: Arc<ClosureQueue>,
    /// The innermost scope whose body is being polled.
    pub(crate) active: Cell<NodeId>,
    /// Ops that the running task was refused since its poll began.
    pub(crate) refusals: Cell<u32>,
    /// How many scopes have a deadline armed.
    pub(crate) armed_scopes: Cell<u32>,
    /// Who yielded: woken once I/O was looked at.
    pub(crate) yields: RefCell<Vec<Waker>>,
    /// When what is left is dropped, once the core was asked to stop; and the grace it has.
    pub(crate) stop_at: Cell<Option<Instant>>,
    pub(crate) stop_grace: Cell<Duration>,
    /// Whether the eventfd is being read.
    pub(crate) wake_armed: Cell<bool>,
    pub(crate) scratch: RefCell<Vec<u32>>,
    /// One moment on both clocks.
    pub(crate) clock_base: (std::time::Instant, Instant),
    /// A turn has run that may have made timers due since the clock was last read.
    pub(crate) clock_is_old: Cell<bool>,
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
        let buffers = BufferPool::new(count, size)?;
        let incremental =
            driver.register_buffers(buffers.ring_address(), buffers.count(), GROUP)?;
        buffers.set_incremental(incremental);
        let mut place = Place::take()?;
        place.join_simulation();
        let shared = place.shared;
        shared.counters.reset();
        let tree = Tree::new(shared.incarnation());
        let root = tree.root();
        Ok(Self {
            id: CoreId::new(index, shared.number(), shared.incarnation()),
            shared,
            place: RefCell::new(place),
            driver: RefCell::new(driver),
            ops: RefCell::new(OpSlab::new()),
            buffers,
            tasks: RefCell::new(TaskTable::new(shared)),
            tree: RefCell::new(tree),
            timers: RefCell::default(),
            closures: Arc::new(ClosureQueue::new(config.mailbox_capacity)),
            active: Cell::new(root),
            refusals: Cell::new(0),
            armed_scopes: Cell::new(0),
            yields: RefCell::default(),
            stop_at: Cell::new(None),
            stop_grace: Cell::new(Duration::MAX),
            wake_armed: Cell::new(false),
            scratch: RefCell::default(),
            clock_base: crate::driver::clock_base(),
            clock_is_old: Cell::new(true),
        })
    }

    /// Tells this core, in this life, from every other.
    pub(crate) fn identity(&self) -> u64 {
        self.id.identity()
    }

    pub(crate) fn number(&self) -> u32 {
        self.shared.number()
    }

    pub(crate) fn incarnation(&self) -> u32 {
        self.id.incarnation()
    }

    pub(crate) fn counters(&self) -> &'static Counters {
        &self.shared.counters
    }

    /// Starts a task under the root scope.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: 'static> + 'static,
    {
        let object: TaskBox = Box::pin(TaskCell::Running(future));
        let node = {
            let mut tree = self.tree.borrow_mut();
            let root = tree.root();
            tree.open(root, false)
        };
        let task = self.tasks.borrow_mut().insert(object, node);
        self.counters().spawned.add(1);
        JoinHandle::new(task, self.identity())
    }

    /// Starts a kernel op.
    pub(crate) fn start<O: Operation>(&self, operation: O, fd: Option<SharedFd>) -> OpId {
        self.ops
            .borrow_mut()
            .start(&mut self.driver.borrow_mut(), operation, fd)
    }

    /// Gives a kernel op up: its future is gone, and the scope `under` is charged for it.
    pub(crate) fn abandon(&self, op: OpId, under: NodeId) {
        let charge = || account(self.tree.borrow_mut().orphan_started(under));
        let leftover = self.ops.borrow_mut().abandon(op, charge);
        drop(leftover);
    }

    /// Asks a kernel op to end because its scope is cancelled.
    pub(crate) fn abort_op(&self, user_data: u64) {
        let told = self
            .ops
            .borrow_mut()
            .cancel(OpId::from_user_data(user_data), Asker::Scope);
        self.tell(told);
    }

    /// Wakes somebody. A waker may be foreign code; a panic in it is counted, and stops nothing.
    pub(crate) fn wake(&self, waker: Waker) {
        self.contain(|| waker.wake());
    }

    /// Runs somebody else's code; a panic in it does not take the core down.
    pub(crate) fn contain(&self, job: impl FnOnce()) {
        if !contained(job) {
            self.counters().panics.add(1);
        }
    }

    /// Does what a cancel wants done.
    pub(crate) fn carry_out(&self, aborts: Vec<Abort>) {
        self.counters().aborts.add(aborts.len() as u64);
        for abort in aborts {
            match abort {
                Abort::Wake(waker) => self.wake(waker),
                Abort::Kernel(op) => self.abort_op(op),
            }
        }
    }

    /// Tells of a completion.
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
        let waiter = self.tree.borrow_mut().orphan_ended(node_of(charged));
        if let Some(waker) = waiter {
            self.wake(waker);
        }
    }

    /// Wakes `waker` when other ready tasks have run and I/O was looked at.
    pub(crate) fn yield_to_others(&self, waker: &Waker) {
        self.yields.borrow_mut().push(waker.clone());
    }

    /// Takes cancels that came by handle, so that an op's entry check sees them.
    pub(crate) fn see_remote_cancels(&self) {
        if self.shared.cancels.has_mail() {
            self.take_remote_cancels();
        }
    }

    #[cold]
    fn take_remote_cancels(&self) {
        let mut found = Vec::new();
        let mut scratch = self.scratch.take();
        self.shared
            .cancels
            .take(&mut scratch, |cancel| found.push(cancel));
        self.scratch.replace(scratch);
        for cancel in found {
            self.counters().remote_cancels.add(1);
            let aborts = {
                let mut tree = self.tree.borrow_mut();
                match tree.living(cancel.index) {
                    Some(node) if cancel.is_of(node.to_parts().1) => {
                        tree.cancel(node, cause_of(cancel.word))
                    }
                    _ => Vec::new(),
                }
            };
            self.carry_out(aborts);
        }
    }

    /// Notices scope deadlines that passed while the running task computed.
    pub(crate) fn notice_deadlines(&self) {
        if self.armed_scopes.get() > 0 {
            self.fire_timers(Instant::now());
        }
    }

    /// Fires every timer that is due.
    pub(crate) fn fire_timers(&self, now: Instant) {
        loop {
            let due = self.timers.borrow_mut().pop_due(now);
            let Some(target) = due else { return };
            self.counters().timers_fired.add(1);
            match target {
                TimerTarget::Park(park) => {
                    self.complete(park);
                }
                TimerTarget::Alarm(waker) => self.wake(waker),
                TimerTarget::Scope(node) => {
                    self.counters().deadlines.add(1);
                    let aborts = self.tree.borrow_mut().cancel(node, Cancelled::deadline());
                    self.carry_out(aborts);
                }
            }
        }
    }

    /// Begins to stop: the root scope is cancelled, and every task is polled once, also one that
    /// waits for something the runtime does not know.
    pub(crate) fn begin_to_stop(&self, grace: Duration) {
        let at = Instant::now() + grace;
        self.stop_grace.set(grace);
        match self.stop_at.get() {
            Some(earlier) => self.stop_at.set(Some(earlier.min(at))),
            None => {
                self.stop_at.set(Some(at));
                let aborts = {
                    let mut tree = self.tree.borrow_mut();
                    let root = tree.root();
                    tree.cancel(root, Cancelled::shutdown())
                };
                self.carry_out(aborts);
                self.tasks.borrow_mut().wake_all();
            }
        }
    }

    /// Says what each task waits for, and in which scopes: lines for people.
    #[cfg(feature = "sim")]
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (slot, node, ready) in self.tasks.borrow().living() {
            let views = self.tree.borrow().views(node);
            let waits = views.iter().any(|view| !view.waits.is_empty());
            lines.push(match (ready, waits) {
                (true, _) => format!("task {slot} is ready to run"),
                (false, true) => format!("task {slot} waits"),
                (false, false) => {
                    format!("task {slot} waits for something the runtime does not know")
                }
            });
            for view in views {
                let indent = "  ".repeat(view.depth + 1);
                if view.depth > 0 || view.effective {
                    lines.push(format!("{indent}{}", described(&view)));
                }
                for wait in view.waits {
                    lines.push(format!("{indent}  {}", self.described_wait(wait)));
                }
            }
        }
        let in_kernel = self.ops.borrow().in_kernel();
        let timers = self.timers.borrow().len();
        lines.push(format!(
            "{in_kernel} ops are in the kernel, {timers} timers are armed"
        ));
        lines
    }

    #[cfg(feature = "sim")]
    fn described_wait(&self, wait: crate::scope::tree::Waits) -> String {
        use crate::scope::tree::{Purpose, Waits};
        match wait {
            Waits::Memory(Purpose::Time) => "for a point in time".to_owned(),
            Waits::Memory(Purpose::Join) => "for the end of a task".to_owned(),
            Waits::Memory(Purpose::Item) => "for bytes or a connection".to_owned(),
            Waits::Memory(Purpose::Turn) => "for another task of this core".to_owned(),
            Waits::Kernel(op) => self.ops.borrow_mut().describe(op),
        }
    }

    /// Makes a task's node vanish with the task.
    pub(crate) fn close_node(&self, node: NodeId) {
        let aborts = self.tree.borrow_mut().close(node);
        self.carry_out(aborts);
    }

    /// Opens a node for the future of `block_on`.
    pub(crate) fn add_main(&self) -> (TaskId, NodeId) {
        let node = {
            let mut tree = self.tree.borrow_mut();
            let root = tree.root();
            tree.open(root, false)
        };
        (self.tasks.borrow_mut().insert_main(node), node)
    }

    /// Keeps for ever what the kernel may still write to.
    fn quarantine(&self) {
        let ops = self.ops.replace(OpSlab::new());
        self.counters().quarantined.add(u64::from(ops.in_kernel()));
        std::mem::forget(ops);
        std::mem::forget(Rc::clone(&self.buffers));
        self.place.borrow_mut().never_recycle();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.closures.close();
        // Closing a ring is no barrier: only completions give memory back. The orderly end of a
        // core has waited for them; what is left now, the kernel may still write to.
        let kernel_is_done = self.ops.get_mut().in_kernel() == 0 && !self.wake_armed.get()
            || !self.driver.get_mut().may_still_write();
        if kernel_is_done {
            if self.driver.get_mut().unregister_buffers(GROUP).is_err() {
                std::mem::forget(Rc::clone(&self.buffers));
            }
        } else {
            self.quarantine();
        }
    }
}

#[cfg(feature = "sim")]
fn described(view: &crate::scope::tree::View) -> String {
    let mut text = if view.depth == 0 {
        "its task".to_owned()
    } else {
        "a scope".to_owned()
    };
    match view.cause {
        Some(cause) => text += &format!(", cancelled: {cause}"),
        None if view.effective => text += ", cancelled from outside",
        None => {}
    }
    if view.shielded {
        text += ", shielded";
    }
    if view.orphans > 0 {
        text += &format!(", {} ops of it are given up and not ended", view.orphans);
    }
    text
}

/// An orphan's account is the node it was started under, as a number.
fn account(node: NodeId) -> u64 {
    let (index, generation) = node.to_parts();
    u64::from(index) | u64::from(generation) << 32
}

fn node_of(account: u64) -> NodeId {
    NodeId::from_parts(account as u32, (account >> 32) as u32)
}
