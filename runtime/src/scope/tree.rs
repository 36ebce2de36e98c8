//! The scope tree of one core: who is effectively cancelled, and who waits where. Pure.
//!
//! A node stands for one scope (or one task, or the core's root). A *park* stands for one op that
//! answered `Pending`; it is registered under the node that was active when it was polled.
//!
//! Whether a node is **effectively cancelled** (cancelled itself, or not shielded under a parent
//! that is) is kept as one bit per node. It is pushed down when something changes, so that an op's
//! entry check is a load.
//!
//! ```text
//!   park:   register            complete                 collect
//!  (none) ──────────► Waiting ───────────► Ready ───────────────► (none)
//!                        │                                 ▲
//!                  abort └────────────────► Aborted ───────┘
//! ```
//!
//! Invariants:
//! - A park ends once: what is `Ready` is not aborted any more, what is `Aborted` is skipped by
//!   whoever wanted to complete it.
//! - A park that ended is in no list; nothing delivers to it again.
//! - A node leaves the tree only when no kernel op is accounted to it or to a node below it whose
//!   owner has gone; until then it stays as a *ghost*.
//!
//! No system call, no timer and no waking here: what must be done comes back as a value and is
//! carried out when no borrow of the core is held.

use std::task::Waker;

use super::cancelled::Cancelled;
use crate::slab::{Key, Slab};

/// A node's address; a stranger once the node is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(Key);

/// A park's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParkId(Key);

impl NodeId {
    /// Returns the address as plain numbers, for handles that travel.
    pub(crate) fn to_parts(self) -> (u32, u32) {
        (self.0.index, self.0.generation)
    }

    pub(crate) fn from_parts(index: u32, generation: u32) -> Self {
        Self(Key { index, generation })
    }
}

impl ParkId {
    pub(crate) fn key(self) -> Key {
        self.0
    }

    pub(crate) fn from_key(key: Key) -> Self {
        Self(key)
    }
}

#[derive(Debug)]
struct Node {
    parent: Option<Key>,
    first_child: Option<Key>,
    previous: Option<Key>,
    next: Option<Key>,
    first_park: Option<Key>,
    /// This scope's own cancel. The first cause stays.
    cause: Option<Cancelled>,
    effective: bool,
    shielded: bool,
    /// The owner is gone; only the kernel still holds the node.
    ghost: bool,
    /// Kernel ops started here whose futures are gone and which the kernel has not ended.
    orphans: u32,
    /// How many of the children are ghosts.
    ghost_children: u32,
    /// Woken when the last orphan below has ended.
    end_waiter: Option<Waker>,
}

/// What a parked op waits for, and so how it is aborted.
#[derive(Debug)]
pub(crate) enum Wait {
    /// Something in memory: the waker is woken.
    Memory {
        waker: Waker,
        /// Only a simulation's reports tell it.
        #[cfg(feature = "sim")]
        purpose: Purpose,
    },
    /// A completion: the kernel op is asked to end, and ends when its completion arrives.
    Kernel(u64),
}

impl Wait {
    /// A wait in memory.
    #[cfg_attr(
        not(feature = "sim"),
        expect(
            unused_variables,
            reason = "so far, only a simulation's reports tell it"
        )
    )]
    pub(crate) fn memory(waker: Waker, purpose: Purpose) -> Self {
        Self::Memory {
            waker,
            #[cfg(feature = "sim")]
            purpose,
        }
    }
}

/// What a wait in memory is for: to be told to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A point in time.
    Time,
    /// The end of a task.
    Join,
    /// The next item of a stream or listener.
    Item,
    /// Something another task of this core does.
    Turn,
}

/// A node, as it is told to people.
#[cfg(feature = "sim")]
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) depth: usize,
    pub(crate) cause: Option<Cancelled>,
    pub(crate) effective: bool,
    pub(crate) shielded: bool,
    pub(crate) orphans: u32,
    pub(crate) waits: Vec<Waits>,
}

/// What a park waits for, as it is told to people.
#[cfg(feature = "sim")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Memory(Purpose),
    Kernel(u64),
}

#[derive(Debug)]
struct Park {
    node: Key,
    previous: Option<Key>,
    next: Option<Key>,
    state: ParkState,
}

#[derive(Debug)]
enum ParkState {
    Waiting(Wait),
    Ready,
    /// With the cause of that moment: what it reports, whatever is cancelled later.
    Aborted(Cancelled),
}

/// How a park stands, as its owner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parked {
    /// Neither completed nor aborted.
    Waiting,
    /// Completed first; a later cancel does not touch it.
    Ready,
    /// Aborted first, for this reason.
    Aborted(Cancelled),
}

/// What a look at a park found.
#[derive(Debug)]
pub(crate) struct Polled {
    pub(crate) parked: Parked,
    /// To be carried out.
    pub(crate) abort: Option<Abort>,
    /// A waker that is not needed any more, to be dropped outside the borrow.
    pub(crate) stale: Option<Waker>,
}

/// One thing a cancel wants done, outside any borrow.
#[derive(Debug)]
pub(crate) enum Abort {
    /// Wake a wait in memory, which will find itself aborted.
    Wake(Waker),
    /// Ask the kernel to end this op.
    Kernel(u64),
}

/// Keeps the generations of different lives of a core apart (the golden ratio, as a hash would).
const SPREAD: u32 = 0x9e37_79b1;

/// The nodes and parks of one core.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Slab<Node>,
    parks: Slab<Park>,
    root: Key,
}

impl Tree {
    /// Makes a tree that is a root alone.
    ///
    /// `life` tells it from the trees that were in the same place before.
    pub(crate) fn new(life: u32) -> Self {
        let mut nodes = Slab::starting_at(life.wrapping_mul(SPREAD));
        let root = nodes.insert(Node::new(None, false));
        Self {
            nodes,
            parks: Slab::default(),
            root,
        }
    }

    pub(crate) fn root(&self) -> NodeId {
        NodeId(self.root)
    }

    /// Adds a node below `parent`, or below the root where the parent is gone.
    pub(crate) fn open(&mut self, parent: NodeId, shielded: bool) -> NodeId {
        let parent = if self.nodes.get(parent.0).is_some() {
            parent.0
        } else {
            self.root
        };
        let effective = !shielded && self.node(parent).effective;
        let mut node = Node::new(Some(parent), effective);
        node.shielded = shielded;
        let key = self.nodes.insert(node);
        self.link(key, parent);
        NodeId(key)
    }

    /// Returns the node that has this index now, if its owner still has it.
    pub(crate) fn living(&self, index: u32) -> Option<NodeId> {
        let (key, node) = self.nodes.at(index)?;
        (!node.ghost).then_some(NodeId(key))
    }

    /// Returns whether ops under the node are refused.
    pub(crate) fn is_cancelled(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_none_or(|node| node.effective)
    }

    /// Returns what an op refused under this node reports: the cause of the outermost cancelled
    /// scope it can see, which is the one that will absorb it.
    pub(crate) fn cause(&self, node: NodeId) -> Cancelled {
        let mut seen = None;
        let mut at = Some(node.0);
        while let Some(node) = at.and_then(|key| self.nodes.get(key)) {
            seen = node.cause.or(seen);
            at = if node.shielded { None } else { node.parent };
        }
        seen.unwrap_or_else(Cancelled::misuse)
    }

    /// Returns the node's own cause, if its own cancel was called.
    pub(crate) fn own_cause(&self, node: NodeId) -> Option<Cancelled> {
        self.nodes.get(node.0).and_then(|node| node.cause)
    }

    /// Decides who takes a `Cancelled` that a body ended with: true for this node, false for
    /// somebody further out.
    pub(crate) fn absorbs(&self, node: NodeId) -> bool {
        let Some(node) = self.nodes.get(node.0) else {
            return false;
        };
        let outside = !node.shielded
            && node
                .parent
                .is_some_and(|parent| self.node(parent).effective);
        node.effective && !outside
    }

    /// Cancels a scope: pushes the bit down and collects every park that it reaches.
    ///
    /// The first cause stays. Each park is collected once, here, and is out of reach of any later
    /// cancel.
    pub(crate) fn cancel(&mut self, node: NodeId, cause: Cancelled) -> Vec<Abort> {
        let mut aborts = Vec::new();
        let Some(found) = self.nodes.get_mut(node.0) else {
            return aborts;
        };
        if found.cause.is_some() {
            return aborts;
        }
        found.cause = Some(cause);
        if !found.effective {
            self.push_down(node.0, cause, &mut aborts);
        }
        aborts
    }

    /// Puts a node below another parent: a scope that was made in one place and is entered in
    /// another. What that makes cancelled is aborted.
    pub(crate) fn move_under(&mut self, node: NodeId, parent: NodeId) -> Vec<Abort> {
        let mut aborts = Vec::new();
        let Some(found) = self.nodes.get(node.0) else {
            return aborts;
        };
        if found.parent != Some(parent.0) && !self.is_within(parent, node) {
            self.relink(node.0, parent.0, &mut aborts);
        }
        aborts
    }

    /// Hangs a node below a parent that is not below it, and makes the bit say what it must there.
    fn relink(&mut self, node: Key, parent: Key, aborts: &mut Vec<Abort>) {
        self.unlink(node);
        self.node_mut(node).parent = Some(parent);
        self.link(node, parent);
        let found = self.node(node);
        let inherits = self.node(parent).effective && !found.shielded;
        match (found.effective, inherits || found.cause.is_some()) {
            (false, true) => {
                let cause = self.cause(NodeId(parent));
                self.push_down(node, cause, aborts);
            }
            (true, false) => self.take_back(node),
            (true, true) | (false, false) => {}
        }
    }

    /// Clears the bit of a node that was cancelled by its surroundings alone, and has left them; and
    /// of those below that inherited it. What was aborted stays so.
    fn take_back(&mut self, top: Key) {
        let mut left = vec![top];
        while let Some(key) = left.pop() {
            self.node_mut(key).effective = false;
            let mut child = self.node(key).first_child;
            while let Some(key) = child {
                let node = self.node(key);
                child = node.next;
                if node.effective && node.cause.is_none() && !node.shielded {
                    left.push(key);
                }
            }
        }
    }

    /// Returns whether `node` is `top`, lies below it, or is no node at all.
    fn is_within(&self, node: NodeId, top: NodeId) -> bool {
        if self.nodes.get(node.0).is_none() {
            return true;
        }
        let mut at = Some(node.0);
        while let Some(key) = at {
            if key == top.0 {
                return true;
            }
            at = self.node(key).parent;
        }
        false
    }

    /// Removes a node whose owner is done with it.
    ///
    /// Ops whose futures live on elsewhere move to the parent, and so do nodes below it; where the
    /// parent is cancelled that is one more way of becoming cancelled, hence the aborts.
    pub(crate) fn close(&mut self, node: NodeId) -> Vec<Abort> {
        let mut aborts = Vec::new();
        let Some(found) = self.nodes.get(node.0) else {
            return aborts;
        };
        let parent = found.parent.expect("the root is never closed");
        while let Some(park) = self.node(node.0).first_park {
            self.move_to(park, parent, &mut aborts);
        }
        let mut child = self.node(node.0).first_child;
        while let Some(key) = child {
            child = self.node(key).next;
            if !self.node(key).ghost {
                self.relink(key, parent, &mut aborts);
            }
        }
        let closing = self.node_mut(node.0);
        closing.ghost = true;
        closing.end_waiter = None;
        self.node_mut(parent).ghost_children += 1;
        if let Some(waker) = self.free_quiet_ghosts(node.0) {
            aborts.push(Abort::Wake(waker));
        }
        aborts
    }

    /// Returns a node and those below it, each before its children.
    #[cfg(feature = "sim")]
    pub(crate) fn views(&self, top: NodeId) -> Vec<View> {
        let mut views = Vec::new();
        let mut left = vec![(0, top.0)];
        while let Some((depth, key)) = left.pop() {
            let Some(node) = self.nodes.get(key) else {
                continue;
            };
            let mut waits = Vec::new();
            let mut next = node.first_park;
            while let Some(park) = next.and_then(|key| self.parks.get(key)) {
                if let ParkState::Waiting(wait) = &park.state {
                    waits.push(match wait {
                        Wait::Memory { purpose, .. } => Waits::Memory(*purpose),
                        Wait::Kernel(op) => Waits::Kernel(*op),
                    });
                }
                next = park.next;
            }
            views.push(View {
                depth,
                cause: node.cause,
                effective: node.effective,
                shielded: node.shielded,
                orphans: node.orphans,
                waits,
            });
            let mut child = node.first_child;
            while let Some(key) = child {
                left.push((depth + 1, key));
                child = self.nodes.get(key).and_then(|node| node.next);
            }
        }
        views
    }

    /// Notes that a kernel op started under `node` goes on without its future.
    pub(crate) fn orphan_started(&mut self, node: NodeId) -> NodeId {
        let key = if self.nodes.get(node.0).is_some() {
            node.0
        } else {
            self.root
        };
        self.node_mut(key).orphans += 1;
        NodeId(key)
    }

    /// Notes that the kernel is done with such an op; returns who waited for that.
    pub(crate) fn orphan_ended(&mut self, node: NodeId) -> Option<Waker> {
        let ended = self
            .nodes
            .get_mut(node.0)
            .expect("a node with orphans stays");
        ended.orphans -= 1;
        self.free_quiet_ghosts(node.0)
    }

    /// Returns whether the kernel is done with everything that was started under the node and
    /// dropped there; if not, `waker` is woken once it is. An older waker comes back, to be dropped
    /// outside the borrow.
    pub(crate) fn kernel_is_done(&mut self, node: NodeId, waker: &Waker) -> (bool, Option<Waker>) {
        if self.is_quiet(node.0) {
            return (true, None);
        }
        (
            false,
            self.node_mut(node.0).end_waiter.replace(waker.clone()),
        )
    }

    /// Registers an op under `node`.
    pub(crate) fn park(&mut self, node: NodeId, wait: Wait) -> ParkId {
        let node = if self.nodes.get(node.0).is_some() {
            node.0
        } else {
            self.root
        };
        let key = self.parks.insert(Park {
            node,
            previous: None,
            next: None,
            state: ParkState::Waiting(wait),
        });
        self.link_park(key, node);
        ParkId(key)
    }

    /// Looks at a park again: notes the waker of this poll, and follows the active scope if the op
    /// is polled under another one than before. Moving under a cancelled scope aborts.
    pub(crate) fn poll_park(&mut self, id: ParkId, active: NodeId, waker: &Waker) -> Polled {
        let mut stale = None;
        let park = self
            .parks
            .get_mut(id.0)
            .expect("a park lives as long as its op");
        match &mut park.state {
            ParkState::Ready => {
                return Polled {
                    parked: Parked::Ready,
                    abort: None,
                    stale,
                };
            }
            ParkState::Aborted(cause) => {
                return Polled {
                    parked: Parked::Aborted(*cause),
                    abort: None,
                    stale,
                };
            }
            ParkState::Waiting(Wait::Memory { waker: known, .. }) => {
                if !known.will_wake(waker) {
                    stale = Some(std::mem::replace(known, waker.clone()));
                }
            }
            ParkState::Waiting(Wait::Kernel(_)) => {}
        }
        let mut aborts = Vec::new();
        if park.node != active.0 && self.nodes.get(active.0).is_some() {
            self.move_to(id.0, active.0, &mut aborts);
        }
        let parked = match self.parks.get(id.0).map(|park| &park.state) {
            Some(ParkState::Aborted(cause)) => Parked::Aborted(*cause),
            _ => Parked::Waiting,
        };
        match aborts.pop() {
            None => Polled {
                parked,
                abort: None,
                stale,
            },
            // The one who would be woken is the one who is looking.
            Some(Abort::Wake(waker)) => Polled {
                parked,
                abort: None,
                stale: Some(waker),
            },
            Some(kernel) => Polled {
                parked,
                abort: Some(kernel),
                stale,
            },
        }
    }

    /// Ends a wait in memory with success; returns whom to wake, or `None` if it was aborted first.
    pub(crate) fn complete(&mut self, id: ParkId) -> Option<Waker> {
        let park = self.parks.get_mut(id.0)?;
        // A kernel op is completed by its slot alone.
        let ParkState::Waiting(Wait::Memory { .. }) = &park.state else {
            return None;
        };
        let ended = std::mem::replace(&mut park.state, ParkState::Ready);
        self.unlink_park(id.0);
        match ended {
            ParkState::Waiting(Wait::Memory { waker, .. }) => Some(waker),
            _ => unreachable!("looked at just above"),
        }
    }

    /// Returns whether a park was completed.
    pub(crate) fn is_ready(&self, id: ParkId) -> bool {
        self.parks
            .get(id.0)
            .is_some_and(|park| matches!(park.state, ParkState::Ready))
    }

    /// Returns why a park was aborted, if it was.
    pub(crate) fn aborted(&self, id: ParkId) -> Option<Cancelled> {
        match self.parks.get(id.0)?.state {
            ParkState::Aborted(cause) => Some(cause),
            ParkState::Waiting(_) | ParkState::Ready => None,
        }
    }

    /// Returns the node a park is registered under, if that still is there.
    pub(crate) fn node_of(&self, id: ParkId) -> Option<NodeId> {
        let node = self.parks.get(id.0)?.node;
        self.nodes.get(node).map(|_| NodeId(node))
    }

    /// Forgets a park, whose op has ended or was dropped. The waker comes back to be dropped
    /// outside the borrow.
    pub(crate) fn unpark(&mut self, id: ParkId) -> Option<Waker> {
        if matches!(self.parks.get(id.0)?.state, ParkState::Waiting(_)) {
            self.unlink_park(id.0);
        }
        match self.parks.remove(id.0)?.state {
            ParkState::Waiting(Wait::Memory { waker, .. }) => Some(waker),
            _ => None,
        }
    }

    /// Returns whether a park is there.
    #[cfg(feature = "sim")]
    pub(crate) fn has_park(&self, id: ParkId) -> bool {
        self.parks.get(id.0).is_some()
    }

    /// Returns whether a node is there, and its owner as well.
    #[cfg(feature = "sim")]
    pub(crate) fn has_owner(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_some_and(|node| !node.ghost)
    }

    /// Returns how many nodes there are, the root and ghosts included.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns how many ops are parked or have an outcome nobody has collected.
    pub(crate) fn park_count(&self) -> usize {
        self.parks.len()
    }

    // --- below: the walk, and the links ---

    /// Marks `top` and all it can reach, without recursion: a tree may be 100 000 deep.
    fn push_down(&mut self, top: Key, cause: Cancelled, aborts: &mut Vec<Abort>) {
        let mut at = top;
        loop {
            let node = self.node_mut(at);
            node.effective = true;
            let mut park = node.first_park.take();
            let first_child = node.first_child;
            while let Some(key) = park {
                let found = self.parks.get_mut(key).expect("a linked park lives");
                park = found.next.take();
                found.previous = None;
                aborts.push(found.abort(cause));
            }
            let mut next = self.first_reachable(first_child);
            while next.is_none() && at != top {
                let node = self.node(at);
                next = self.first_reachable(node.next);
                at = node.parent.expect("below the top there is a parent");
            }
            match next {
                Some(key) => at = key,
                None => return,
            }
        }
    }

    /// The first of these siblings that a cancel of their parent changes.
    fn first_reachable(&self, mut sibling: Option<Key>) -> Option<Key> {
        while let Some(key) = sibling {
            let node = self.node(key);
            if !node.shielded && !node.effective {
                return Some(key);
            }
            sibling = node.next;
        }
        None
    }

    fn move_to(&mut self, park: Key, node: Key, aborts: &mut Vec<Abort>) {
        self.unlink_park(park);
        let cancelled = self.node(node).effective.then(|| self.cause(NodeId(node)));
        let found = self.parks.get_mut(park).expect("a linked park lives");
        found.node = node;
        if let Some(cause) = cancelled {
            aborts.push(found.abort(cause));
        } else {
            self.link_park(park, node);
        }
    }

    /// Frees `node` if it is a ghost without orphans, then the ghosts above it that waited for it;
    /// returns the waker of a living node that thereby has nothing left in the kernel.
    fn free_quiet_ghosts(&mut self, node: Key) -> Option<Waker> {
        let mut at = node;
        while self.is_quiet(at) {
            if !self.node(at).ghost {
                return self.node_mut(at).end_waiter.take();
            }
            self.unlink(at);
            at = self
                .nodes
                .remove(at)
                .expect("it was just looked at")
                .parent?;
            self.node_mut(at).ghost_children -= 1;
        }
        None
    }

    /// Nothing in the kernel: no orphan here, and no ghost below. Living children do not count:
    /// they have owners of their own.
    fn is_quiet(&self, key: Key) -> bool {
        let node = self.node(key);
        node.orphans == 0 && node.ghost_children == 0
    }

    fn link(&mut self, key: Key, parent: Key) {
        let first = self.node_mut(parent).first_child.replace(key);
        self.node_mut(key).next = first;
        if let Some(first) = first {
            self.node_mut(first).previous = Some(key);
        }
    }

    fn unlink(&mut self, key: Key) {
        let (parent, previous, next) = {
            let node = self.node_mut(key);
            (node.parent, node.previous.take(), node.next.take())
        };
        match (previous, parent) {
            (Some(previous), _) => self.node_mut(previous).next = next,
            (None, Some(parent)) => self.node_mut(parent).first_child = next,
            (None, None) => {}
        }
        if let Some(next) = next {
            self.node_mut(next).previous = previous;
        }
    }

    fn link_park(&mut self, key: Key, node: Key) {
        let first = self.node_mut(node).first_park.replace(key);
        self.parks.get_mut(key).expect("the park lives").next = first;
        if let Some(first) = first {
            self.parks
                .get_mut(first)
                .expect("a linked park lives")
                .previous = Some(key);
        }
    }

    fn unlink_park(&mut self, key: Key) {
        let park = self.parks.get_mut(key).expect("the park lives");
        let (node, previous, next) = (park.node, park.previous.take(), park.next.take());
        match previous {
            Some(previous) => {
                self.parks
                    .get_mut(previous)
                    .expect("a linked park lives")
                    .next = next
            }
            None => {
                let node = self.node_mut(node);
                if node.first_park == Some(key) {
                    node.first_park = next;
                }
            }
        }
        if let Some(next) = next {
            self.parks
                .get_mut(next)
                .expect("a linked park lives")
                .previous = previous;
        }
    }

    fn node(&self, key: Key) -> &Node {
        self.nodes.get(key).expect("links lead to nodes that live")
    }

    fn node_mut(&mut self, key: Key) -> &mut Node {
        self.nodes
            .get_mut(key)
            .expect("links lead to nodes that live")
    }
}

impl Node {
    fn new(parent: Option<Key>, effective: bool) -> Self {
        Self {
            parent,
            first_child: None,
            previous: None,
            next: None,
            first_park: None,
            cause: None,
            effective,
            shielded: false,
            ghost: false,
            orphans: 0,
            ghost_children: 0,
            end_waiter: None,
        }
    }
}

impl Park {
    fn abort(&mut self, cause: Cancelled) -> Abort {
        match std::mem::replace(&mut self.state, ParkState::Aborted(cause)) {
            ParkState::Waiting(Wait::Memory { waker, .. }) => Abort::Wake(waker),
            ParkState::Waiting(Wait::Kernel(op)) => Abort::Kernel(op),
            ParkState::Ready | ParkState::Aborted(_) => {
                unreachable!("only a waiting park is linked")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> Wait {
        Wait::memory(Waker::noop().clone(), Purpose::Time)
    }

    fn cause() -> Cancelled {
        Cancelled::requested()
    }

    #[test]
    fn cancel_reaches_what_is_below_and_nothing_else() {
        let mut tree = Tree::new(0);
        let outer = tree.open(tree.root(), false);
        let inner = tree.open(outer, false);
        let shield = tree.open(outer, true);
        let beside = tree.open(tree.root(), false);
        for node in [outer, inner, shield, beside] {
            tree.park(node, waiting());
        }
        assert_eq!(tree.cancel(outer, cause()).len(), 2);
        assert!(tree.is_cancelled(inner));
        assert!(!tree.is_cancelled(shield));
        assert!(!tree.is_cancelled(beside));
        assert!(tree.absorbs(outer));
        assert!(!tree.absorbs(inner));
    }

    #[test]
    fn second_cancel_finds_nothing_to_do() {
        let mut tree = Tree::new(0);
        let scope = tree.open(tree.root(), false);
        tree.park(scope, Wait::Kernel(1));
        assert_eq!(tree.cancel(scope, cause()).len(), 1);
        assert!(tree.cancel(scope, Cancelled::deadline()).is_empty());
        assert!(tree.cancel(tree.root(), cause()).is_empty());
        assert_eq!(tree.own_cause(scope), Some(cause()));
    }

    #[test]
    fn completed_park_is_not_aborted() {
        let mut tree = Tree::new(0);
        let scope = tree.open(tree.root(), false);
        let park = tree.park(scope, waiting());
        assert!(tree.complete(park).is_some());
        assert!(tree.cancel(scope, cause()).is_empty());
        assert_eq!(
            tree.poll_park(park, scope, Waker::noop()).parked,
            Parked::Ready
        );
    }

    #[test]
    fn aborted_park_is_skipped_by_who_would_complete_it() {
        let mut tree = Tree::new(0);
        let scope = tree.open(tree.root(), false);
        let park = tree.park(scope, waiting());
        assert_eq!(tree.cancel(scope, cause()).len(), 1);
        assert!(tree.complete(park).is_none());
        assert_eq!(
            tree.poll_park(park, scope, Waker::noop()).parked,
            Parked::Aborted(cause())
        );
    }

    #[test]
    fn a_park_follows_the_scope_it_is_polled_under() {
        let mut tree = Tree::new(0);
        let before = tree.open(tree.root(), false);
        let now = tree.open(tree.root(), false);
        let park = tree.park(before, waiting());
        assert_eq!(
            tree.poll_park(park, now, Waker::noop()).parked,
            Parked::Waiting
        );
        assert!(tree.cancel(before, cause()).is_empty());
        assert_eq!(tree.cancel(now, cause()).len(), 1);
    }

    #[test]
    fn a_park_that_outlives_its_scope_moves_to_the_parent() {
        let mut tree = Tree::new(0);
        let outer = tree.open(tree.root(), false);
        let inner = tree.open(outer, false);
        tree.park(inner, waiting());
        assert!(tree.close(inner).is_empty());
        assert_eq!(tree.cancel(outer, cause()).len(), 1);
    }

    #[test]
    fn a_node_that_leaves_a_cancelled_scope_is_as_its_new_parent() {
        let mut tree = Tree::new(0);
        let cancelled = tree.open(tree.root(), false);
        let moving = tree.open(cancelled, false);
        let below = tree.open(moving, false);
        let own = tree.open(moving, false);
        tree.cancel(own, cause());
        tree.cancel(cancelled, Cancelled::deadline());
        assert!(tree.move_under(moving, tree.root()).is_empty());
        assert!(!tree.is_cancelled(moving) && !tree.is_cancelled(below));
        assert!(tree.is_cancelled(own), "its own cancel is for ever");
        assert!(tree.move_under(cancelled, moving).is_empty());
        assert!(
            tree.move_under(moving, cancelled).is_empty(),
            "no node lies below itself"
        );
        assert!(!tree.is_cancelled(moving));
    }

    #[test]
    fn a_closed_scope_stays_until_its_orphans_have_ended() {
        let mut tree = Tree::new(0);
        let outer = tree.open(tree.root(), false);
        let inner = tree.open(outer, false);
        let account = tree.orphan_started(inner);
        tree.close(inner);
        assert_eq!(tree.node_count(), 3);
        assert!(!tree.kernel_is_done(outer, Waker::noop()).0);
        assert!(
            tree.orphan_ended(account).is_some(),
            "the outer scope's end is woken"
        );
        assert!(tree.kernel_is_done(outer, Waker::noop()).0);
        assert_eq!(tree.node_count(), 2);
    }

    #[test]
    fn a_dropped_scope_hands_its_orphans_outward() {
        let mut tree = Tree::new(0);
        let outer = tree.open(tree.root(), false);
        let middle = tree.open(outer, false);
        let inner = tree.open(middle, false);
        let account = tree.orphan_started(inner);
        tree.close(inner);
        tree.close(middle);
        assert!(!tree.kernel_is_done(outer, Waker::noop()).0);
        assert!(tree.orphan_ended(account).is_some());
        assert_eq!(tree.node_count(), 2);
    }

    #[test]
    fn a_hundred_thousand_deep_is_cancelled_without_recursion() {
        let mut tree = Tree::new(0);
        let outermost = tree.open(tree.root(), false);
        let mut node = outermost;
        for _ in 0..100_000 {
            node = tree.open(node, false);
        }
        tree.park(node, waiting());
        assert_eq!(tree.cancel(outermost, cause()).len(), 1);
        assert!(tree.is_cancelled(node));
    }

    /// The bit against its definition, in random trees.
    #[test]
    fn the_bit_says_what_the_definition_says() {
        for seed in 0..200_u64 {
            let mut random = seed;
            let mut draw = |below: usize| {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) as usize % below
            };
            let mut tree = Tree::new(0);
            // (node, its parent's place in this list, shielded)
            let mut model = vec![(tree.root(), None, false)];
            let mut cancelled = vec![false];
            for _ in 0..60 {
                if draw(4) > 0 {
                    let parent = draw(model.len());
                    let shielded = draw(4) == 0;
                    model.push((tree.open(model[parent].0, shielded), Some(parent), shielded));
                    cancelled.push(false);
                } else {
                    let pick = draw(model.len());
                    tree.cancel(model[pick].0, cause());
                    cancelled[pick] = true;
                }
                for place in 0..model.len() {
                    let mut at = Some(place);
                    let mut expected = false;
                    while let Some(here) = at {
                        expected |= cancelled[here];
                        at = if model[here].2 { None } else { model[here].1 };
                    }
                    assert_eq!(tree.is_cancelled(model[place].0), expected, "seed {seed}");
                }
            }
        }
    }

    /// What is told to people takes no room in a program that nobody simulates.
    #[cfg(not(feature = "sim"))]
    #[test]
    fn a_wait_is_no_larger_than_its_waker() {
        assert_eq!(size_of::<Wait>(), size_of::<Waker>());
    }
}
