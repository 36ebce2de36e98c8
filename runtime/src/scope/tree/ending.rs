//! The end of a node, and what it waits for.

use std::task::Waker;

use super::node::More;
use super::{Cancelled, Effect, Kind, Node, NodeId, Own, Reason, Shield, Tree};
use crate::slab::Link;
use crate::time::Instant;
use crate::time::store::Order;

impl Tree {
    /// Removes a node whose owner is done with it. Returns whether others have a handle.
    ///
    /// Ops whose futures live on elsewhere move to the parent, and so do nodes below it; where the
    /// parent is cancelled that is one more way of becoming cancelled. Tasks below it that it has
    /// cancelled stay so. A group below a task that ends has been leaked: its tasks are cancelled.
    #[inline(always)]
    pub(crate) fn close(&mut self, node: NodeId) -> bool {
        let Some(found) = self.nodes.get(node.0).filter(|found| !found.ghost) else {
            return false;
        };
        let (parent, link) = (
            found.parent.expect("the root is never closed"),
            node.0.link(),
        );
        let announced = found.announced;
        if found.has_anything() {
            self.empty(link, parent);
        }
        let found = self.node(link);
        let counted = (found.is_task(), found.is_body());
        self.take_out(link, parent, counted);
        announced
    }

    /// As [`Tree::close`], of a node of which nothing is left and that nobody else knows of; `None` if it is no such.
    /// Returns whether its parent waited for it alone, and somebody is to be told.
    #[inline(always)]
    pub(crate) fn close_plain(&mut self, node: NodeId) -> Option<bool> {
        let found = self.nodes.get(node.0)?;
        let parent = found.parent.filter(|_| found.is_plain())?;
        let counted = (found.is_task(), found.is_body());
        Some(self.take_out(node.0.link(), parent, counted))
    }

    /// As [`Tree::close_plain`], of the node of a task.
    #[inline(always)]
    pub(crate) fn close_plain_task(&mut self, node: NodeId) -> Option<bool> {
        let found = self.nodes.get(node.0)?;
        debug_assert!(found.is_task(), "the caller has polled it");
        let parent = found.parent.filter(|_| found.is_plain())?;
        Some(self.take_out(node.0.link(), parent, (true, false)))
    }

    /// As [`Tree::close`], of a node that has nothing to tell anybody of; false if it has. Its deadline comes back, to
    /// be withdrawn, if it has one.
    #[inline]
    pub(crate) fn close_if_unnoticed(&mut self, node: NodeId) -> (bool, Option<Order>) {
        let Some(found) = self.nodes.get(node.0) else {
            return (false, None);
        };
        let is_plain =
            !found.ghost && !found.announced && !found.has_anything_near() && found.is_quiet();
        let Some(parent) = found.parent.filter(|_| is_plain) else {
            return (false, None);
        };
        let counted = (found.is_task(), found.is_body());
        let deadline = match found.more() {
            More::Nothing => None,
            More::Deadline(link) => Some(self.free_deadline(link).1),
            More::Extra(link) => match self.extras.linked(link).deadline_alone() {
                None => return (false, None),
                Some((_, order)) => {
                    self.extras.clear_plain(link);
                    Some(order)
                }
            },
        };
        self.take_out(node.0.link(), parent, counted);
        (true, deadline)
    }

    /// Takes out a node with nothing left below; what the kernel still has of it stays as a ghost. Returns whether it
    /// was the last that the parent's end waits for, who counts it as a task, or as a body, or not.
    #[inline(always)]
    fn take_out(&mut self, link: Link, parent: Link, (is_task, is_body): (bool, bool)) -> bool {
        let found = self.node(link);
        debug_assert_eq!(found.tasks, 0, "tasks move outward before");
        let is_quiet = found.is_quiet();
        let (previous, next) = (found.previous, found.next);
        let above = self.node_mut(parent);
        above.tasks -= u32::from(is_task);
        above.bodies -= u32::from(is_body);
        if !is_quiet {
            above.ghost_children += 1;
            self.node_mut(link).ghost = true;
            return false;
        }
        let is_last = is_task && (above.ending || above.ghost) && above.is_quiet();
        if previous.is_none() {
            above.first_child = next;
        }
        self.join_siblings(previous, next);
        self.remove(link);
        if is_last {
            self.tell_quiet(parent);
        }
        is_last
    }

    /// Frees a node that is in no list any more.
    #[inline(always)]
    fn remove(&mut self, link: Link) {
        self.refusing -= u64::from(self.node(link).refused);
        self.nodes.clear(link);
    }

    /// Takes from a node that ends what few nodes still have then.
    fn empty(&mut self, link: Link, parent: Link) {
        let found = self.node(link);
        if found.first_park.is_some() || found.first_child.is_some() {
            self.hand_on(link, parent);
        }
        self.drop_extra(link);
    }

    /// Gives the parent what is registered under a node that ends.
    fn hand_on(&mut self, link: Link, parent: Link) {
        while let Some(park) = self.node(link).first_park {
            self.move_to(park, parent);
        }
        let closing = self.node(link);
        let is_task = closing.is_task();
        let extra = self.extra(closing);
        let cause = extra.and_then(|extra| Some((extra.why()?, extra.grace_end())));
        let mut child = self.node(link).first_child;
        while let Some(at) = child {
            let below = self.node(at);
            child = below.next;
            if below.ghost {
                continue;
            }
            match below.kind() {
                Kind::Task(_) => {
                    if let Some(cause) = cause.filter(|_| below.shield == Shield::None) {
                        self.keep_cancelled(at, cause);
                    }
                    self.relink(at, parent);
                }
                // Those of a group that was leaked are its own as well.
                Kind::Group if is_task => child = self.abandon(at, link),
                Kind::Daemons => child = self.abandon(at, link),
                Kind::Start => self.relink(at, parent),
                _ => {
                    if is_task && !below.stray {
                        self.node_mut(at).stray = true;
                        self.node_mut(link).bodies -= 1;
                    }
                    self.relink(at, parent);
                }
            }
        }
        // Those groups have left here the waits that heed no cancel.
        while let Some(park) = self.node(link).first_park {
            self.move_to(park, parent);
        }
    }

    /// Cancels and closes what a group that was leaked has left. Its tasks come to `parent`, behind
    /// those that were seen there: the first child of all comes back.
    #[cold]
    fn abandon(&mut self, left: Link, parent: Link) -> Option<Link> {
        let left = NodeId(self.nodes.key(left));
        self.cancel(left, Cancelled::new(Reason::Abandoned), None);
        let announced = self.close(left);
        // Somebody has its body, and is refused wherever he polls it.
        self.refusing += 1;
        self.abandoned.push((left, announced));
        self.node(parent).first_child
    }

    /// Returns the next node that was closed with another, and whether others have a handle of it.
    pub(crate) fn next_abandoned(&mut self) -> Option<(NodeId, bool)> {
        self.abandoned.pop()
    }

    /// Returns since when the node was cancelled that was closed last, if it was and nobody has asked.
    pub(crate) fn take_acknowledged(&mut self) -> Option<Instant> {
        self.acknowledged.take()
    }

    /// Lets go of what few nodes have.
    fn drop_extra(&mut self, node: Link) {
        let deadline = self.take_deadline(node);
        self.disarm_deadline(deadline);
        let Some(link) = self.node_mut(node).more.take() else {
            return;
        };
        let extra = self.extras.linked_mut(link);
        let promises = extra.promises;
        if let Some((_, since)) = extra.cause {
            self.acknowledged = Some(since);
        }
        let grace = extra.grace.take();
        if let Some(waker) = extra.foreign.take() {
            self.effects.push_back(Effect::Drop(waker));
        }
        if let Some(waker) = extra.end_waiter.take() {
            self.effects.push_back(Effect::Drop(waker));
        }
        self.extras.clear(link);
        self.node_mut(node).tasks -= promises;
        self.disarm_grace(grace);
    }

    /// Gives a task that leaves a cancelled group the group's cause for its own, with what is left of its grace.
    fn keep_cancelled(&mut self, task: Link, cause: (Cancelled, Option<Instant>)) {
        if self.node(task).own != Own::None {
            return;
        }
        let (cause, grace_end) = cause;
        let node = NodeId(self.nodes.key(task));
        self.note_cause(task, cause);
        self.node_mut(task).own = match grace_end {
            None => Own::Hard,
            Some(end) => {
                self.effects.push_back(Effect::EndGrace(node, end));
                Own::WithGrace
            }
        };
        if self.node(task).announced {
            self.kept_cancelled.push(node);
        }
    }

    /// Returns the next task that a closed node has left cancelled, and that others have a handle of.
    pub(crate) fn next_kept_cancelled(&mut self) -> Option<NodeId> {
        self.kept_cancelled.pop()
    }

    /// Returns whether any node lies below, or a task is counted there that has none.
    pub(crate) fn has_tasks_or_nodes_below(&self, node: NodeId) -> bool {
        let node = self.nodes.get(node.0);
        node.is_some_and(|node| node.tasks > 0 || node.first_child.is_some())
    }

    /// Returns whether a group that lies below `task`, but in no other task, has not ended.
    pub(crate) fn has_group_below(&self, task: NodeId) -> bool {
        let first = self.nodes.get(task.0).and_then(|top| top.first_child);
        let mut left: Vec<Link> = first.into_iter().collect();
        while let Some(link) = left.pop() {
            let node = self.node(link);
            left.extend(node.next);
            match node.kind() {
                _ if node.ghost => {}
                Kind::Group => return true,
                Kind::Scope | Kind::Daemons | Kind::Root => left.extend(node.first_child),
                Kind::Start | Kind::Task(_) => {}
            }
        }
        false
    }

    // --- what an end waits for ---

    /// Notes that a kernel op started under `node` goes on without its future.
    pub(crate) fn orphan_started(&mut self, node: NodeId) -> NodeId {
        let link = self.link_or_root(node);
        self.node_mut(link).orphans += 1;
        NodeId(self.nodes.key(link))
    }

    /// Notes that the kernel is done with such an op.
    pub(crate) fn orphan_ended(&mut self, node: NodeId) {
        let ended = self.nodes.get_mut(node.0);
        ended.expect("a node with orphans stays").orphans -= 1;
        self.tell_quiet(node.0.link());
    }

    /// Notes that somebody waits for the end of this node. Returns whether nothing is left that this has to wait for:
    /// kernel ops that were started below and dropped there, and tasks.
    pub(crate) fn is_done(&mut self, node: NodeId) -> bool {
        self.nodes.get_mut(node.0).is_none_or(|found| {
            found.ending = true;
            found.is_quiet()
        })
    }

    /// Lets `waker` be woken once nothing is left that the end of this node has to wait for. An older waker comes back,
    /// or this one if nothing is, to be dropped outside the borrow.
    #[cold]
    pub(crate) fn await_end(&mut self, node: NodeId, waker: Waker) -> Option<Waker> {
        if self.has_ended_below(node) {
            return Some(waker);
        }
        let extra = self.ensure_extra(node.0.link());
        extra.end_waiter.replace(waker)
    }

    /// Returns whether nothing is left that the end of this node has to wait for.
    pub(crate) fn has_ended_below(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_none_or(Node::is_quiet)
    }

    /// A task has left this node, or a promise of one.
    pub(super) fn task_left(&mut self, parent: Link) {
        self.node_mut(parent).tasks -= 1;
        self.tell_quiet(parent);
    }

    /// Frees `node` if it is a ghost without orphans, then the ghosts above it that waited for it;
    /// wakes whoever waits for a living node that thereby has nothing left.
    pub(super) fn tell_quiet(&mut self, node: Link) {
        let mut at = node;
        while self.node(at).is_quiet() {
            if !self.node(at).ghost {
                let waker = self.extra_mut(at).and_then(|extra| extra.end_waiter.take());
                self.effects.extend(waker.map(Effect::End));
                return;
            }
            let parent = self.node(at).parent.expect("the root is no ghost");
            self.unlink(at);
            self.remove(at);
            at = parent;
            self.node_mut(at).ghost_children -= 1;
        }
    }
}
