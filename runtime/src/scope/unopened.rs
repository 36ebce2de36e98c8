//! The active scope of a core, and scopes that have no node yet.
//!
//! A body that ends at its first poll has mostly not waited, started nothing and given nobody a handle: all that a node
//! of the tree is for. So a scope without a shield, which nobody has cancelled, is opened when somebody asks which scope
//! is active: an op that waits, a task that is started, a call of the scope itself; at the latest when its first poll
//! has ended and it waits. Its deadline is that of its beginning, and is armed then.
//!
//! Until then the scope around stands for it: what that refuses, this refuses.
//!
//! A task is the same: it is new until its first poll has ended, or somebody has asked for its scope. The node that its
//! own will lie under counts it, so that an end waits for it; what looks at all that lies below a node, or closes one
//! with something below, [opens](Core::open_new_tasks) those that are new.
//!
//! Invariants:
//! - Scopes and tasks whose first poll goes on are noted from the outermost to the innermost; those without a node are
//!   the last. A task that has none is the outermost of those: when its poll begins, all others have been opened. It is
//!   noted beside them, since most tasks that end at their first poll never have one.
//! - No other scope becomes active before those have been opened: they lie where they would have been.
//! - A new task that nobody polls stands in the run queue.
//! - No foreign code runs when a scope or task is opened: whoever asks stands in the middle of something.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::tree::{Kind, NodeId, Shield};
use crate::core_state::Core;
use crate::task::TaskId;
use crate::time::Instant;

/// Which scope is active on a core.
#[derive(Debug)]
pub(crate) struct ActiveScope {
    /// The innermost that has a node.
    opened: Cell<NodeId>,
    /// How many have none.
    unopened: Cell<usize>,
    /// Of those, a task, by its slot.
    new_task: Cell<Option<u32>>,
    /// The others, and all that have one.
    first_polls: RefCell<Vec<FirstPoll>>,
}

/// A scope or task whose first poll goes on.
#[derive(Debug)]
pub(super) struct FirstPoll {
    pub(super) of: Of,
    /// Its node, and the one around it.
    pub(super) nodes: Option<(NodeId, NodeId)>,
}

/// What is polled for the first time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    Scope {
        /// Where it lies: nothing but a name.
        name: usize,
        grace: Duration,
        /// To be armed with the node; [`Instant::NEVER`] if there is none.
        deadline: Instant,
    },
    Task,
}

impl ActiveScope {
    pub(crate) fn new(root: NodeId) -> Self {
        Self {
            opened: Cell::new(root),
            unopened: Cell::new(0),
            new_task: Cell::new(None),
            first_polls: RefCell::default(),
        }
    }

    /// Returns the innermost active scope that has a node: what it refuses, those without one refuse.
    #[inline(always)]
    pub(crate) fn opened(&self) -> NodeId {
        self.opened.get()
    }

    /// Returns the scope or task that is being polled, if it has a node.
    pub(crate) fn polled(&self) -> Option<NodeId> {
        (self.unopened.get() == 0).then(|| self.opened.get())
    }
}

impl Core {
    /// Returns the active scope, which has a node from now on.
    #[inline(always)]
    pub(crate) fn active(&self) -> NodeId {
        if self.active.unopened.get() > 0 {
            self.open_scopes();
        }
        self.active.opened.get()
    }

    /// Makes another scope active; returns the one that was.
    #[inline(always)]
    pub(crate) fn activate(&self, node: NodeId) -> NodeId {
        if self.active.unopened.get() > 0 {
            self.open_scopes();
        }
        self.active.opened.replace(node)
    }

    /// Makes a scope active again, within which others were that have ended their polls.
    #[inline(always)]
    pub(crate) fn activate_again(&self, node: NodeId) {
        debug_assert_eq!(self.active.unopened.get(), 0, "first polls end before");
        self.active.opened.set(node);
    }

    #[cold]
    fn open_scopes(&self) {
        let mut count = self.active.unopened.replace(0);
        let mut polls = self.active.first_polls.borrow_mut();
        if let Some(slot) = self.active.new_task.take() {
            count -= 1;
            let place = polls.len() - count;
            let outside = self.active.opened.get();
            let node = self.open_task(slot, outside);
            let poll = FirstPoll {
                of: Of::Task,
                nodes: Some((node, outside)),
            };
            self.active.opened.set(node);
            if count == 0 {
                // As each task that waits is opened, mostly.
                return polls.push(poll);
            }
            polls.insert(place, poll);
        }
        let first = polls.len() - count;
        for poll in &mut polls[first..] {
            let outside = self.active.opened.get();
            let Of::Scope { grace, .. } = poll.of else {
                unreachable!("a task without a node is noted elsewhere");
            };
            let mut tree = self.tree.borrow_mut();
            let node = tree.open(outside, Kind::Scope, Shield::None);
            if grace > Duration::ZERO {
                tree.set_grace_period(node, grace);
            }
            drop(tree);
            poll.nodes = Some((node, outside));
            self.active.opened.set(node);
        }
        drop(polls);
        for place in first..first + count {
            let (nodes, of) = {
                let poll = &self.active.first_polls.borrow()[place];
                (poll.nodes, poll.of)
            };
            if let Of::Scope { deadline, .. } = of
                && deadline != Instant::NEVER
                && let Some((node, _)) = nodes
            {
                // One that has passed meanwhile is noticed as any other.
                self.set_deadline(node, Some(deadline), Instant::from_nanos(0));
            }
        }
    }

    /// Begins the first poll of a task, where all others have been opened.
    #[inline]
    pub(crate) fn begin_first_poll_of_task(&self, slot: u32) {
        debug_assert_eq!(self.active.unopened.get(), 0, "a scope was activated");
        self.active.new_task.set(Some(slot));
        self.active.unopened.set(1);
    }

    /// Ends that; returns the node of the task and the one around it, if it was opened.
    #[inline]
    pub(crate) fn end_first_poll_of_task(&self) -> Option<(NodeId, NodeId)> {
        if self.active.new_task.take().is_some() {
            debug_assert_eq!(self.active.unopened.get(), 1, "scopes inside end before");
            self.active.unopened.set(0);
            return None;
        }
        let nodes = self.end_first_poll();
        debug_assert!(nodes.is_some(), "it was opened");
        nodes
    }

    /// Begins the first poll of a scope.
    #[inline]
    pub(super) fn begin_first_poll(&self, poll: FirstPoll) {
        self.active.first_polls.borrow_mut().push(poll);
        self.active.unopened.set(self.active.unopened.get() + 1);
    }

    /// Ends the first poll that was begun last; returns the node and the one around it, if it was opened.
    #[inline]
    pub(crate) fn end_first_poll(&self) -> Option<(NodeId, NodeId)> {
        let poll = self.active.first_polls.borrow_mut().pop();
        let nodes = poll.expect("it was begun").nodes;
        match nodes {
            Some((_, outside)) => self.activate_again(outside),
            None => self.active.unopened.set(self.active.unopened.get() - 1),
        }
        nodes
    }

    /// Returns the node of the scope whose first poll ends next, if it has one.
    pub(super) fn node_of_first_poll(&self) -> Option<NodeId> {
        let polls = self.active.first_polls.borrow();
        polls.last()?.nodes.map(|(node, _)| node)
    }

    /// Returns the node of a scope whose first poll goes on: it has one from now on.
    pub(super) fn open_scope(&self, scope: usize) -> Option<NodeId> {
        let place = || {
            let polls = self.active.first_polls.borrow();
            let is_it = |of| matches!(of, Of::Scope { name, .. } if name == scope);
            polls.iter().rposition(|poll| is_it(poll.of))
        };
        place()?;
        // Which may note a task before it.
        self.active();
        let place = place()?;
        let polls = self.active.first_polls.borrow();
        polls[place].nodes.map(|(node, _)| node)
    }

    /// Returns the node of a task that has not ended: it has one from now on.
    pub(crate) fn node_of(&self, task: TaskId) -> Option<NodeId> {
        let (node, is_new) = self.tasks.borrow().node_of(task)?;
        if !is_new {
            return Some(node);
        }
        self.open_new_tasks();
        let (node, is_new) = self.tasks.borrow().node_of(task)?;
        debug_assert!(!is_new, "it is polled or stands in the queue");
        Some(node)
    }

    /// Opens a node for each task that has none.
    #[cold]
    pub(crate) fn open_new_tasks(&self) {
        // That of one that is polled now lies where it would have been.
        self.active();
        let mut tasks = self.tasks.borrow_mut();
        let mut tree = self.tree.borrow_mut();
        for (slot, parent) in tasks.unpolled() {
            let node = tree.open_expected(parent, slot);
            tasks.opened(slot, node);
        }
    }

    #[inline]
    fn open_task(&self, slot: u32, parent: NodeId) -> NodeId {
        let node = self.tree.borrow_mut().open_expected(parent, slot);
        self.tasks.borrow_mut().opened(slot, node);
        node
    }
}
