//! The active scope of a core, and scopes that have no node yet.
//!
//! A body that ends at its first poll has mostly not waited, started nothing and given nobody a handle: all that a node
//! of the tree is for. So a scope without a shield, which nobody has cancelled, is opened when somebody asks which scope
//! is active: an op that waits, a task that is started, a call of the scope itself; at the latest when its first poll
//! has ended and it waits. Its deadline is that of its beginning, and is armed then.
//!
//! Until then the scope around stands for it: what that refuses, this refuses.
//!
//! Invariants:
//! - Scopes whose first poll goes on are noted from the outermost to the innermost; those without a node are the last.
//! - No other scope becomes active before those have been opened: they lie where they would have been.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::tree::{Kind, NodeId, Shield};
use crate::core_state::Core;
use crate::time::Instant;

/// Which scope is active on a core.
#[derive(Debug)]
pub(crate) struct ActiveScope {
    /// The innermost that has a node.
    opened: Cell<NodeId>,
    /// How many have none.
    unopened: Cell<usize>,
    first_polls: RefCell<Vec<FirstPoll>>,
}

/// A scope whose first poll goes on.
#[derive(Debug)]
pub(super) struct FirstPoll {
    /// Where the scope lies: nothing but a name.
    pub(super) scope: usize,
    pub(super) grace: Duration,
    /// To be armed with the node; [`Instant::NEVER`] if there is none.
    pub(super) deadline: Instant,
    /// The scope's node, and the one around it.
    pub(super) nodes: Option<(NodeId, NodeId)>,
}

impl ActiveScope {
    pub(crate) fn new(root: NodeId) -> Self {
        Self {
            opened: Cell::new(root),
            unopened: Cell::new(0),
            first_polls: RefCell::default(),
        }
    }

    /// Returns the innermost active scope that has a node: what it refuses, those without one refuse.
    #[inline(always)]
    pub(crate) fn opened(&self) -> NodeId {
        self.opened.get()
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
        let count = self.active.unopened.replace(0);
        let mut polls = self.active.first_polls.borrow_mut();
        let first = polls.len() - count;
        let mut tree = self.tree.borrow_mut();
        for poll in &mut polls[first..] {
            let outside = self.active.opened.get();
            let node = tree.open(outside, Kind::Scope, Shield::None);
            if poll.grace > Duration::ZERO {
                tree.set_grace_period(node, poll.grace);
            }
            poll.nodes = Some((node, outside));
            self.active.opened.set(node);
        }
        drop((polls, tree));
        for place in first..first + count {
            let (nodes, deadline) = {
                let poll = &self.active.first_polls.borrow()[place];
                (poll.nodes, poll.deadline)
            };
            if deadline != Instant::NEVER
                && let Some((node, _)) = nodes
            {
                // One that has passed meanwhile is noticed as any other.
                self.set_deadline(node, Some(deadline), Instant::from_nanos(0));
            }
        }
    }

    /// Begins the first poll of a scope.
    #[inline]
    pub(super) fn begin_first_poll(&self, poll: FirstPoll) {
        self.active.first_polls.borrow_mut().push(poll);
        self.active.unopened.set(self.active.unopened.get() + 1);
    }

    /// Ends the first poll that was begun last; returns the scope's node and the one around it, if it was opened.
    #[inline]
    pub(super) fn end_first_poll(&self) -> Option<(NodeId, NodeId)> {
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
        let place = {
            let polls = self.active.first_polls.borrow();
            polls.iter().rposition(|poll| poll.scope == scope)?
        };
        self.active();
        let polls = self.active.first_polls.borrow();
        polls[place].nodes.map(|(node, _)| node)
    }
}
