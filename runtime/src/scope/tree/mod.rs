//! The scope tree of one core: who is effectively cancelled, and who waits where. Pure.
//!
//! A node stands for one scope, group or task, or for the core's root. A *park* stands for one op
//! that answered `Pending`; it is registered under the node that was active when it was polled.
//!
//! Two bits per node say what its ops see, so that an op's entry check is a load. **Refused**: the
//! node was cancelled itself, or it sees a cancel from outside. **Hard**: the same, with no grace
//! left. A shield hides what is outside; a grace shield hides it until it is hard. The bits are
//! pushed down in one go when something changes ([`Tree::refresh`]); what that wants done, a wake or
//! a request to the kernel per park, is queued and carried out by the core, in slices and when no
//! borrow is held.
//!
//! ```text
//!   park:   register            complete                 collect
//!  (none) ──────────► Waiting ───────────► Ready ───────────────► (none)
//!                      │   │                 ▲             ▲
//!                abort │   └──► Asked ───────┘             │
//!                      └──────────────────► Aborted ───────┘
//! ```
//!
//! A wait that a cancel does not end stays `Waiting` (nobody tells it) or becomes `Asked` (the other
//! side was told, and ends it).
//!
//! Invariants:
//! - A park ends once: what is `Ready` is not aborted any more, what is `Aborted` is skipped by
//!   whoever wanted to complete it.
//! - A park is told of a cancel once; nothing delivers to it again.
//! - A node leaves the tree only when no kernel op is accounted to it or to a node below it whose
//!   owner has gone; until then it stays as a *ghost*.
//!
//! No system call, no timer and no waking here.

mod links;
#[cfg(test)]
mod tests;
mod view;

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::cancelled::{Cancelled, Misuse, Reason};
use crate::slab::{Key, Slab};
use crate::time::Instant;
use crate::time::store::TimerId;
pub(crate) use view::{View, Waiting, Waits};

/// A node's address; a stranger once the node is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// What a node hides from its inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shield {
    /// Nothing.
    #[default]
    None,
    /// Cancellation from outside, until its grace period is over.
    Grace,
    /// Cancellation from outside.
    Full,
}

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All of the core.
    Root,
    /// A body within a task.
    Scope,
    /// A body within a task, and tasks of its own below.
    Group,
    /// The task in this slot.
    Task(u32),
}

#[derive(Debug)]
struct Node {
    parent: Option<Key>,
    first_child: Option<Key>,
    previous: Option<Key>,
    next: Option<Key>,
    first_park: Option<Key>,
    /// Parks that were told of a cancel and end when the other side does. They are in no list.
    told: u32,
    kind: Kind,
    /// This scope's own cancel. The first cause stays.
    cause: Option<Cancelled>,
    /// When that was.
    cancelled_at: Instant,
    shield: Shield,
    refused: bool,
    hard: bool,
    /// The own cancel has no grace, or none left.
    out_of_grace: bool,
    /// The owner is gone; only the kernel still holds the node.
    ghost: bool,
    /// Others have a handle.
    announced: bool,
    /// Kernel ops started here whose futures are gone and which the kernel has not ended.
    orphans: u32,
    /// How many of the children are ghosts.
    ghost_children: u32,
    /// Living tasks directly below, and promises that there will be some.
    tasks: u32,
    /// Of these, promises.
    promises: u32,
    /// Living scopes and groups directly below: bodies of the same task.
    bodies: u32,
    /// The body has ended, and its end waits for what is left below.
    ending: bool,
    /// Woken when nothing is left below that an end has to wait for.
    end_waiter: Option<Waker>,
    /// The body waits, and not in any op: whoever polled it last.
    foreign: Option<Waker>,
    deadline: Option<(Instant, TimerId)>,
    /// When the grace period ends.
    grace: Option<TimerId>,
    /// The grace that a cancel has which says nothing of it.
    grace_period: Duration,
}

/// What a parked op waits for, and so what a cancel does to it.
#[derive(Debug)]
pub(crate) enum Wait {
    /// Something in memory: the waker is woken.
    Memory { waker: Waker, purpose: Purpose },
    /// A completion: the kernel op is asked to end, and ends when its completion arrives.
    Kernel(u64),
    /// Something in memory that a cancel does not end, and that nobody is told of.
    Deaf { waker: Waker, purpose: Purpose },
    /// Something in memory that a cancel does not end: the other side is told, and ends it.
    Relayed {
        waker: Waker,
        purpose: Purpose,
        relay: Rc<dyn Relay>,
    },
}

/// Tells the other side of a wait that its scope is cancelled.
pub(crate) trait Relay {
    fn relay(&self, cause: Cancelled);
}

impl std::fmt::Debug for dyn Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Relay")
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
    /// What a library does that knows nothing of scopes.
    Foreign,
    /// A child to report that it has started.
    Start,
    /// A task on another core.
    Remote,
    /// The end of a job on a thread of its own.
    Job,
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Time => "a point in time",
            Self::Join => "the end of a task",
            Self::Item => "bytes or a connection",
            Self::Turn => "another task of this core",
            Self::Foreign => "a future of another library",
            Self::Start => "a child to report that it has started",
            Self::Remote => "another core",
            Self::Job => "a blocking job",
        })
    }
}

#[derive(Debug)]
struct Park {
    node: Key,
    previous: Option<Key>,
    next: Option<Key>,
    since: Instant,
    waits: Waits,
    state: ParkState,
}

impl Park {
    /// It was told of a cancel, and waits for the other side all the same.
    fn is_told(&self) -> bool {
        match self.state {
            ParkState::Asked(_) => true,
            ParkState::Aborted(_) => matches!(self.waits, Waits::Kernel(_)),
            ParkState::Waiting(_) | ParkState::Ready => false,
        }
    }
}

#[derive(Debug)]
enum ParkState {
    Waiting(Wait),
    /// The other side was told; no list has it any more.
    Asked(Waker),
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
    /// A waker that is not needed any more, to be dropped outside the borrow.
    pub(crate) stale: Option<Waker>,
}

/// One thing a change of the tree wants done, outside any borrow.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Wake a wait in memory, which will find itself aborted.
    Wake(Waker),
    /// Ask the kernel to end this op.
    Kernel(u64),
    /// Tell the other side of a wait.
    Relay(Rc<dyn Relay>, Cancelled),
    /// Wake whoever waits for the end of a scope: nothing holds it any more.
    End(Waker),
    /// Wake a body that waits in nothing the runtime knows.
    Foreign(NodeId, Waker),
    /// The same, of a task's own body.
    ForeignTask(NodeId, u32),
}

/// Keeps the generations of different lives of a core apart (the golden ratio, as a hash would).
const SPREAD: u32 = 0x9e37_79b1;

/// The nodes and parks of one core.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Slab<Node>,
    parks: Slab<Park>,
    root: Key,
    effects: VecDeque<Effect>,
    /// Timers of nodes that are gone or need them no more, to be disarmed.
    idle_timers: Vec<TimerId>,
    /// When the core's turn began: since then a park is parked.
    now: Instant,
    /// How many cancels have changed something.
    deliveries: u64,
}

impl Tree {
    /// Makes a tree that is a root alone.
    ///
    /// `life` tells it from the trees that were in the same place before.
    pub(crate) fn new(life: u32) -> Self {
        let mut nodes = Slab::starting_at(life.wrapping_mul(SPREAD));
        let root = nodes.insert(Node::new(None, Kind::Root));
        Self {
            nodes,
            parks: Slab::default(),
            root,
            effects: VecDeque::new(),
            idle_timers: Vec::new(),
            now: Instant::from_nanos(0),
            deliveries: 0,
        }
    }

    pub(crate) fn root(&self) -> NodeId {
        NodeId(self.root)
    }

    /// Says what time it is, for those who ask since when somebody waits.
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Returns the next thing to be done.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns the next timer to disarm.
    pub(crate) fn next_idle_timer(&mut self) -> Option<TimerId> {
        self.idle_timers.pop()
    }

    pub(crate) fn has_effects(&self) -> bool {
        !self.effects.is_empty() || !self.idle_timers.is_empty()
    }

    /// Returns how many cancels have changed something.
    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    // --- nodes ---

    /// Adds a node below `parent`, or below the root where the parent is gone.
    pub(crate) fn open(&mut self, parent: NodeId, kind: Kind, shield: Shield) -> NodeId {
        let parent = self.key_or_root(parent);
        let mut node = Node::new(Some(parent), kind);
        node.shield = shield;
        let key = self.nodes.insert(node);
        self.link(key, parent);
        match kind {
            Kind::Task(_) => self.node_mut(parent).tasks += 1,
            _ => self.node_mut(parent).bodies += 1,
        }
        let (refused, hard) = self.wanted(key);
        let node = self.node_mut(key);
        (node.refused, node.hard) = (refused, hard);
        NodeId(key)
    }

    /// Returns the node that has this index now, if its owner still has it.
    pub(crate) fn living(&self, index: u32) -> Option<NodeId> {
        let (key, node) = self.nodes.at(index)?;
        (!node.ghost).then_some(NodeId(key))
    }

    /// Returns whether a node is there, and its owner as well.
    pub(crate) fn has_owner(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_some_and(|node| !node.ghost)
    }

    /// Returns whether ops under the node are refused.
    pub(crate) fn is_cancelled(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_none_or(|node| node.refused)
    }

    /// Returns what an op refused under this node reports: the cause of the outermost cancelled
    /// scope it can see, which is the one that will absorb it.
    pub(crate) fn cause(&self, node: NodeId) -> Cancelled {
        self.cause_from(node, false)
    }

    fn cause_from(&self, node: NodeId, hard_only: bool) -> Cancelled {
        self.source_from(node, hard_only)
            .and_then(|source| self.node(source.0).cause)
            .unwrap_or_else(|| Cancelled::misuse(Misuse::Ended))
    }

    /// Returns the outermost cancelled scope that this node can see.
    pub(crate) fn source(&self, node: NodeId) -> Option<NodeId> {
        self.source_from(node, false)
    }

    /// As [`Tree::source`]; with `hard_only`, seen through a grace shield.
    fn source_from(&self, node: NodeId, mut hard_only: bool) -> Option<NodeId> {
        let mut seen = None;
        let mut at = Some(node.0);
        while let Some(key) = at {
            let Some(node) = self.nodes.get(key) else {
                break;
            };
            if node.cause.is_some() && (node.out_of_grace || !hard_only) {
                seen = Some(NodeId(key));
            }
            hard_only |= node.shield == Shield::Grace;
            at = if node.shield == Shield::Full {
                None
            } else {
                node.parent
            };
        }
        seen
    }

    /// Returns the node's own cause, if its own cancel was called.
    pub(crate) fn own_cause(&self, node: NodeId) -> Option<Cancelled> {
        self.nodes.get(node.0).and_then(|node| node.cause)
    }

    /// Decides who takes a `Cancelled` that a body ended with: true for this node, false for
    /// somebody further out.
    pub(crate) fn absorbs(&self, node: NodeId) -> bool {
        self.nodes
            .get(node.0)
            .is_some_and(|found| found.refused && !self.sees_outside(found))
    }

    fn sees_outside(&self, node: &Node) -> bool {
        let Some(parent) = node.parent.map(|key| self.node(key)) else {
            return false;
        };
        match node.shield {
            Shield::None => parent.refused,
            Shield::Grace => parent.hard,
            Shield::Full => false,
        }
    }

    /// What the two bits of a node have to be.
    fn wanted(&self, key: Key) -> (bool, bool) {
        let node = self.node(key);
        let outside = node.parent.map_or((false, false), |key| {
            let parent = self.node(key);
            match node.shield {
                Shield::None => (parent.refused, parent.hard),
                Shield::Grace => (parent.hard, parent.hard),
                Shield::Full => (false, false),
            }
        });
        (
            outside.0 || node.cause.is_some(),
            outside.1 || (node.cause.is_some() && node.out_of_grace),
        )
    }

    /// Cancels a scope: pushes the bits down and queues an effect for every park that this reaches.
    /// Returns whether it was the first cancel of this scope.
    ///
    /// The first cause stays. Each park is told once, here, and is out of reach of any later cancel.
    /// With `grace`, what is in a grace shield goes on until [`Tree::end_grace`].
    pub(crate) fn cancel(&mut self, node: NodeId, cause: Cancelled, grace: bool) -> bool {
        let now = self.now;
        let Some(found) = self.nodes.get_mut(node.0) else {
            return false;
        };
        if found.cause.is_some() || found.ghost {
            return false;
        }
        found.cause = Some(cause);
        found.cancelled_at = now;
        found.out_of_grace = !grace;
        // A deadline of a scope that is cancelled wakes nobody.
        let deadline = found.deadline.take();
        self.disarm(deadline.map(|(_, timer)| timer));
        self.deliveries += 1;
        self.refresh(node.0);
        true
    }

    /// Ends the grace of a cancel: grace shields hide it no more.
    pub(crate) fn end_grace(&mut self, node: NodeId) {
        if let Some(found) = self.nodes.get_mut(node.0)
            && found.cause.is_some()
        {
            found.out_of_grace = true;
            let timer = found.grace.take();
            self.disarm(timer);
            self.refresh(node.0);
        }
    }

    /// Sets or clears a node's shield. An abort already begun is not taken back.
    pub(crate) fn set_shield(&mut self, node: NodeId, shield: Shield) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            found.shield = shield;
            self.refresh(node.0);
        }
    }

    /// Sets the grace that a cancel has which says nothing of it.
    pub(crate) fn set_grace_period(&mut self, node: NodeId, grace: Duration) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            found.grace_period = grace;
        }
    }

    pub(crate) fn grace_period(&self, node: NodeId) -> Duration {
        self.nodes
            .get(node.0)
            .map_or(Duration::ZERO, |node| node.grace_period)
    }

    /// Notes a node's deadline; the timer of the one before is disarmed.
    pub(crate) fn set_deadline(&mut self, node: NodeId, deadline: Option<(Instant, TimerId)>) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            let before = std::mem::replace(&mut found.deadline, deadline);
            self.disarm(before.map(|(_, timer)| timer));
        } else {
            self.disarm(deadline.map(|(_, timer)| timer));
        }
    }

    /// Forgets the timer of a node's deadline, which has fired.
    pub(crate) fn deadline_fired(&mut self, node: NodeId) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            found.deadline = None;
        }
    }

    /// Notes the timer that ends a node's grace.
    pub(crate) fn set_grace_timer(&mut self, node: NodeId, timer: TimerId) {
        let before = match self.nodes.get_mut(node.0) {
            Some(found) => found.grace.replace(timer),
            None => Some(timer),
        };
        self.disarm(before);
    }

    /// Forgets the timer that ends a node's grace, which has fired.
    pub(crate) fn grace_fired(&mut self, node: NodeId) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            found.grace = None;
        }
    }

    /// Returns the node's own deadline.
    pub(crate) fn deadline(&self, node: NodeId) -> Option<Instant> {
        self.nodes.get(node.0)?.deadline.map(|(at, _)| at)
    }

    /// Returns the earliest deadline that an op under this node can see.
    pub(crate) fn effective_deadline(&self, node: NodeId) -> Option<Instant> {
        let mut earliest: Option<Instant> = None;
        let mut at = Some(node.0);
        while let Some(node) = at.and_then(|key| self.nodes.get(key)) {
            if let Some((deadline, _)) = node.deadline {
                earliest = Some(earliest.map_or(deadline, |known| known.min(deadline)));
            }
            at = if node.shield == Shield::Full {
                None
            } else {
                node.parent
            };
        }
        earliest
    }

    /// Puts a node below another parent: a scope that was made in one place and is entered in
    /// another, or a child that has started. What that makes cancelled is aborted.
    pub(crate) fn move_under(&mut self, node: NodeId, parent: NodeId) {
        let Some(found) = self.nodes.get(node.0) else {
            return;
        };
        if !found.ghost && found.parent != Some(parent.0) && !self.is_within(parent, node) {
            self.relink(node.0, parent.0);
        }
    }

    /// Hangs a node below a parent that is not below it, and makes the bits say what they must there.
    fn relink(&mut self, node: Key, parent: Key) {
        if matches!(self.node(node).kind, Kind::Task(_)) && !self.node(node).ghost {
            let old = self.node(node).parent.expect("a task lies below something");
            self.node_mut(parent).tasks += 1;
            self.unlink(node);
            self.node_mut(node).parent = Some(parent);
            self.link(node, parent);
            self.refresh(node);
            self.task_left(old);
            return;
        }
        if !self.node(node).ghost {
            let old = self.node(node).parent.expect("never the root");
            self.node_mut(old).bodies -= 1;
            self.node_mut(parent).bodies += 1;
        }
        self.unlink(node);
        self.node_mut(node).parent = Some(parent);
        self.link(node, parent);
        self.refresh(node);
    }

    /// Notes that others have a handle of a node.
    pub(crate) fn announce(&mut self, node: NodeId) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            found.announced = true;
        }
    }

    /// Returns whether others have a handle of a node.
    pub(crate) fn is_announced(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_some_and(|node| node.announced)
    }

    /// Notes that a node has no body of its own: nobody is to be woken for it.
    pub(crate) fn has_no_body(&mut self, node: NodeId) {
        self.node_mut(node.0).ending = true;
    }

    /// Says in which slot the task of a node lies.
    pub(crate) fn name_task(&mut self, node: NodeId, slot: u32) {
        self.node_mut(node.0).kind = Kind::Task(slot);
    }

    /// Promises that a task may come below a node: its end waits.
    pub(crate) fn promise(&mut self, node: NodeId) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            found.tasks += 1;
            found.promises += 1;
        }
    }

    /// Takes such a promise back.
    pub(crate) fn unpromise(&mut self, node: NodeId) {
        if let Some(found) = self.nodes.get_mut(node.0)
            && found.promises > 0
        {
            found.promises -= 1;
            self.task_left(node.0);
        }
    }

    /// Returns how many tasks live directly below a node.
    pub(crate) fn tasks_below(&self, node: NodeId) -> u32 {
        self.nodes.get(node.0).map_or(0, |node| node.tasks)
    }

    fn task_left(&mut self, parent: Key) {
        self.node_mut(parent).tasks -= 1;
        self.tell_quiet(parent);
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
    /// parent is cancelled that is one more way of becoming cancelled. Tasks below it that it has
    /// cancelled stay so. A group below a task that ends has been leaked: its tasks are cancelled.
    pub(crate) fn close(&mut self, node: NodeId) {
        let Some(found) = self.nodes.get(node.0) else {
            return;
        };
        if found.ghost {
            return;
        }
        let parent = found.parent.expect("the root is never closed");
        let (kind, cause) = (found.kind, found.cause);
        while let Some(park) = self.node(node.0).first_park {
            self.move_to(park, parent);
        }
        let mut child = self.node(node.0).first_child;
        while let Some(key) = child {
            let below = self.node(key);
            child = below.next;
            if below.ghost {
                continue;
            }
            match (below.kind, kind) {
                (Kind::Task(_), _) => {
                    if let Some(cause) = cause.filter(|_| below.shield == Shield::None) {
                        self.keep_cancelled(key, cause);
                    }
                    self.relink(key, parent);
                }
                (Kind::Group, Kind::Task(_)) => {
                    self.cancel(NodeId(key), Cancelled::new(Reason::Abandoned), false);
                    self.close(NodeId(key));
                    // Its tasks have come to us, behind those we have seen.
                    child = self.node(node.0).first_child;
                }
                _ => self.relink(key, parent),
            }
        }
        let closing = self.node_mut(node.0);
        closing.ghost = true;
        closing.end_waiter = None;
        let foreign = closing.foreign.take();
        let (deadline, grace) = (closing.deadline.take(), closing.grace.take());
        let promised = std::mem::take(&mut closing.promises);
        closing.tasks -= promised;
        debug_assert_eq!(closing.tasks, 0, "tasks move outward before");
        self.disarm(deadline.map(|(_, timer)| timer));
        self.disarm(grace);
        if let Some(waker) = foreign {
            // Dropped where no borrow is held, like every waker; a wake does no harm.
            self.effects.push_back(Effect::End(waker));
        }
        self.node_mut(parent).ghost_children += 1;
        match kind {
            Kind::Task(_) => self.node_mut(parent).tasks -= 1,
            _ => self.node_mut(parent).bodies -= 1,
        }
        self.tell_quiet(node.0);
    }

    /// Gives a task that leaves a cancelled group the group's cause for its own.
    fn keep_cancelled(&mut self, task: Key, cause: Cancelled) {
        let now = self.now;
        let node = self.node_mut(task);
        if node.cause.is_none() {
            node.cause = Some(cause);
            node.cancelled_at = now;
            node.out_of_grace = true;
        }
    }

    /// Returns whether a group that lies below `task`, but in no other task, has not ended.
    pub(crate) fn has_group_below(&self, task: NodeId) -> bool {
        let Some(top) = self.nodes.get(task.0) else {
            return false;
        };
        let mut left: Vec<Key> = top.first_child.into_iter().collect();
        while let Some(key) = left.pop() {
            let node = self.node(key);
            left.extend(node.next);
            match node.kind {
                _ if node.ghost => {}
                Kind::Group => return true,
                Kind::Scope | Kind::Root => left.extend(node.first_child),
                Kind::Task(_) => {}
            }
        }
        false
    }

    // --- what an end waits for ---

    /// Notes that a kernel op started under `node` goes on without its future.
    pub(crate) fn orphan_started(&mut self, node: NodeId) -> NodeId {
        let key = self.key_or_root(node);
        self.node_mut(key).orphans += 1;
        NodeId(key)
    }

    /// Notes that the kernel is done with such an op.
    pub(crate) fn orphan_ended(&mut self, node: NodeId) {
        let ended = self
            .nodes
            .get_mut(node.0)
            .expect("a node with orphans stays");
        ended.orphans -= 1;
        self.tell_quiet(node.0);
    }

    /// Returns whether nothing is left that the end of this node has to wait for: kernel ops that
    /// were started below and dropped there, and tasks. If something is, `waker` is woken once it is
    /// gone. An older waker comes back, to be dropped outside the borrow.
    pub(crate) fn is_done(&mut self, node: NodeId, waker: &Waker) -> (bool, Option<Waker>) {
        let Some(found) = self.nodes.get_mut(node.0) else {
            return (true, None);
        };
        found.ending = true;
        if self.is_quiet(node.0) {
            return (true, None);
        }
        (
            false,
            self.node_mut(node.0).end_waiter.replace(waker.clone()),
        )
    }

    /// Returns whether nothing is left that the end of this node has to wait for.
    pub(crate) fn has_ended_below(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_none() || self.is_quiet(node.0)
    }

    // --- parks ---

    /// Registers an op under `node`.
    pub(crate) fn park(&mut self, node: NodeId, wait: Wait) -> ParkId {
        let node = self.key_or_root(node);
        let key = self.parks.insert(Park {
            node,
            previous: None,
            next: None,
            since: self.now,
            waits: Waits::of(&wait),
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
            ParkState::Ready | ParkState::Aborted(_) | ParkState::Waiting(Wait::Kernel(_)) => {}
            ParkState::Asked(known)
            | ParkState::Waiting(
                Wait::Memory { waker: known, .. }
                | Wait::Deaf { waker: known, .. }
                | Wait::Relayed { waker: known, .. },
            ) => {
                if !known.will_wake(waker) {
                    stale = Some(std::mem::replace(known, waker.clone()));
                }
            }
        }
        if matches!(park.state, ParkState::Waiting(_))
            && park.node != active.0
            && self.nodes.get(active.0).is_some()
        {
            self.move_to(id.0, active.0);
            if self.aborted(id).is_some()
                && let Some(Effect::Wake(_)) = self.effects.back()
                && let Some(Effect::Wake(waker)) = self.effects.pop_back()
            {
                // The one who would be woken is the one who is looking.
                stale = Some(waker);
            }
        }
        let parked = match self.parks.get(id.0).map(|park| &park.state) {
            Some(ParkState::Ready) => Parked::Ready,
            Some(ParkState::Aborted(cause)) => Parked::Aborted(*cause),
            _ => Parked::Waiting,
        };
        Polled { parked, stale }
    }

    /// Ends a wait in memory with success; returns whom to wake, or `None` if it was aborted first.
    pub(crate) fn complete(&mut self, id: ParkId) -> Option<Waker> {
        let park = self.parks.get_mut(id.0)?;
        match &park.state {
            ParkState::Ready | ParkState::Aborted(_) => return None,
            // A kernel op is completed by its slot alone.
            ParkState::Waiting(Wait::Kernel(_)) => return None,
            ParkState::Asked(_) | ParkState::Waiting(_) => {}
        }
        self.told_no_more(id.0);
        let park = self.parks.get_mut(id.0)?;
        match std::mem::replace(&mut park.state, ParkState::Ready) {
            ParkState::Waiting(
                Wait::Memory { waker, .. } | Wait::Deaf { waker, .. } | Wait::Relayed { waker, .. },
            ) => {
                self.unlink_park(id.0);
                Some(waker)
            }
            ParkState::Asked(waker) => Some(waker),
            _ => unreachable!("looked at just above"),
        }
    }

    /// Returns whether a park was completed.
    #[cfg(test)]
    pub(crate) fn is_ready(&self, id: ParkId) -> bool {
        self.parks
            .get(id.0)
            .is_some_and(|park| matches!(park.state, ParkState::Ready))
    }

    /// Returns why a park was aborted, if it was.
    pub(crate) fn aborted(&self, id: ParkId) -> Option<Cancelled> {
        match self.parks.get(id.0)?.state {
            ParkState::Aborted(cause) => Some(cause),
            ParkState::Waiting(_) | ParkState::Asked(_) | ParkState::Ready => None,
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
        self.told_no_more(id.0);
        match self.parks.remove(id.0)?.state {
            ParkState::Waiting(
                Wait::Memory { waker, .. } | Wait::Deaf { waker, .. } | Wait::Relayed { waker, .. },
            )
            | ParkState::Asked(waker) => Some(waker),
            _ => None,
        }
    }

    /// Returns whether a park is there.
    #[cfg(feature = "sim")]
    pub(crate) fn has_park(&self, id: ParkId) -> bool {
        self.parks.get(id.0).is_some()
    }

    /// Returns how many nodes there are, the root and ghosts included.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns how many ops are parked or have an outcome nobody has collected.
    pub(crate) fn park_count(&self) -> usize {
        self.parks.len()
    }

    // --- bodies that wait in nothing the runtime knows ---

    /// Returns whether the body of a node waits, and in no op: what it waits in is foreign.
    ///
    /// Asked after a poll that ended `Pending`; a node with anything below it waits in that.
    pub(crate) fn waits_in_foreign(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_some_and(Node::is_bare)
    }

    /// Notes whom to wake should this body be cancelled: it waits in something foreign. `None`: it
    /// does not, or is being polled. The one before comes back.
    pub(crate) fn set_foreign(&mut self, node: NodeId, waker: Option<Waker>) -> Option<Waker> {
        let found = self.nodes.get_mut(node.0)?;
        std::mem::replace(&mut found.foreign, waker)
    }

    /// Returns whom to wake of a body that waits in something foreign.
    pub(crate) fn foreign_wake(&self, node: NodeId) -> Option<Effect> {
        let found = self.nodes.get(node.0)?;
        match (found.kind, &found.foreign) {
            _ if !found.is_bare() => None,
            (Kind::Task(slot), _) => Some(Effect::ForeignTask(node, slot)),
            (_, Some(waker)) => Some(Effect::Foreign(node, waker.clone())),
            (_, None) => None,
        }
    }

    // --- below: the walk ---

    /// Makes the bits of `top` and of all below say what they must, without recursion: a tree may
    /// be 100 000 deep. Visits only nodes that change, and their neighbours.
    fn refresh(&mut self, top: Key) {
        if self.wanted(top) == self.bits(top) {
            return;
        }
        // All that is newly refused below is so for the reason that `top` has; behind a grace shield,
        // for the one that it has past all grace.
        let why = [false, true].map(|hard_only| self.cause_from(NodeId(top), hard_only));
        self.refresh_one(top, why[0]);
        let mut at = top;
        // Grace shields on the way from `top` down to here.
        let mut shields = 0;
        loop {
            let mut next = self.first_changed(self.node(at).first_child, why, shields);
            while next.is_none() && at != top {
                let node = self.node(at);
                let (sibling, parent) = (node.next, node.parent);
                shields -= u32::from(node.shield == Shield::Grace);
                next = self.first_changed(sibling, why, shields);
                at = parent.expect("below the top there is a parent");
            }
            let Some(key) = next else { return };
            shields += u32::from(self.node(key).shield == Shield::Grace);
            at = key;
        }
    }

    /// The first of these siblings whose bits change; they are behind so many grace shields.
    fn first_changed(
        &mut self,
        mut sibling: Option<Key>,
        why: [Cancelled; 2],
        shields: u32,
    ) -> Option<Key> {
        while let Some(key) = sibling {
            let behind = shields > 0 || self.node(key).shield == Shield::Grace;
            if self.refresh_one(key, why[usize::from(behind)]) {
                return Some(key);
            }
            sibling = self.node(key).next;
        }
        None
    }

    /// Sets the bits of one node; true if they changed. What is newly refused is aborted, for this
    /// cause.
    fn refresh_one(&mut self, key: Key, cause: Cancelled) -> bool {
        let (wanted, bits) = (self.wanted(key), self.bits(key));
        let node = self.node_mut(key);
        (node.refused, node.hard) = wanted;
        if wanted.0 && !bits.0 {
            self.abort_parks(key, cause);
        }
        wanted != bits
    }

    fn bits(&self, key: Key) -> (bool, bool) {
        let node = self.node(key);
        (node.refused, node.hard)
    }

    /// Tells every op parked under a node that is refused; where there is none, and nothing else
    /// below, the body waits in something foreign.
    fn abort_parks(&mut self, key: Key, cause: Cancelled) {
        if self.node(key).is_bare() {
            self.effects.extend(self.foreign_wake(NodeId(key)));
            return;
        }
        let mut next = self.node(key).first_park;
        while let Some(park) = next {
            let found = self.parks.get(park).expect("a linked park lives");
            next = found.next;
            self.abort(park, cause);
        }
    }

    /// Tells one linked park, unless nobody is to be told.
    fn abort(&mut self, park: Key, cause: Cancelled) {
        let found = self.parks.get_mut(park).expect("a linked park lives");
        if matches!(found.state, ParkState::Waiting(Wait::Deaf { .. })) {
            return;
        }
        let (state, effect) = match std::mem::replace(&mut found.state, ParkState::Aborted(cause)) {
            ParkState::Waiting(Wait::Memory { waker, .. }) => {
                (ParkState::Aborted(cause), Effect::Wake(waker))
            }
            ParkState::Waiting(Wait::Kernel(op)) => (ParkState::Aborted(cause), Effect::Kernel(op)),
            ParkState::Waiting(Wait::Relayed { waker, relay, .. }) => {
                (ParkState::Asked(waker), Effect::Relay(relay, cause))
            }
            ParkState::Waiting(Wait::Deaf { .. })
            | ParkState::Asked(_)
            | ParkState::Ready
            | ParkState::Aborted(_) => unreachable!("only a waiting park is linked"),
        };
        found.state = state;
        let told = found.is_told().then_some(found.node);
        self.unlink_park(park);
        if let Some(node) = told {
            self.node_mut(node).told += 1;
        }
        self.effects.push_back(effect);
    }

    /// Notes that a park ends, or is forgotten, which may have been told of a cancel.
    fn told_no_more(&mut self, park: Key) {
        let told = self.parks.get(park).filter(|park| park.is_told());
        if let Some(node) = told.and_then(|park| self.nodes.get_mut(park.node)) {
            node.told -= 1;
        }
    }

    fn move_to(&mut self, park: Key, node: Key) {
        self.unlink_park(park);
        self.parks.get_mut(park).expect("a linked park lives").node = node;
        self.link_park(park, node);
        if self.node(node).refused {
            self.abort(park, self.cause(NodeId(node)));
        }
    }

    /// Frees `node` if it is a ghost without orphans, then the ghosts above it that waited for it;
    /// wakes whoever waits for a living node that thereby has nothing left.
    fn tell_quiet(&mut self, node: Key) {
        let mut at = node;
        while self.is_quiet(at) {
            if !self.node(at).ghost {
                if let Some(waker) = self.node_mut(at).end_waiter.take() {
                    self.effects.push_back(Effect::End(waker));
                }
                return;
            }
            self.unlink(at);
            let gone = self.nodes.remove(at).expect("it was just looked at");
            let Some(parent) = gone.parent else { return };
            at = parent;
            self.node_mut(at).ghost_children -= 1;
        }
    }

    /// Nothing in the kernel, and no task: no orphan here, and no ghost below. Living children that
    /// are scopes do not count: they have owners of their own.
    fn is_quiet(&self, key: Key) -> bool {
        let node = self.node(key);
        node.orphans == 0 && node.ghost_children == 0 && node.tasks == 0
    }

    fn disarm(&mut self, timer: Option<TimerId>) {
        self.idle_timers.extend(timer);
    }

    fn key_or_root(&self, node: NodeId) -> Key {
        match self.nodes.get(node.0) {
            Some(_) => node.0,
            None => self.root,
        }
    }
}

impl Node {
    fn new(parent: Option<Key>, kind: Kind) -> Self {
        Self {
            parent,
            first_child: None,
            previous: None,
            next: None,
            first_park: None,
            told: 0,
            kind,
            cause: None,
            cancelled_at: Instant::from_nanos(0),
            shield: Shield::None,
            refused: false,
            hard: false,
            out_of_grace: false,
            ghost: false,
            announced: false,
            orphans: 0,
            ghost_children: 0,
            tasks: 0,
            promises: 0,
            bodies: 0,
            ending: false,
            end_waiter: None,
            foreign: None,
            deadline: None,
            grace: None,
            grace_period: Duration::ZERO,
        }
    }

    /// Nothing is registered here that will wake the body. What goes on below without it, tasks and
    /// ops in the kernel, wakes it when it has ended, and not before.
    fn is_bare(&self) -> bool {
        self.first_park.is_none()
            && self.told == 0
            && self.bodies == 0
            && !self.ending
            && !self.ghost
    }
}
