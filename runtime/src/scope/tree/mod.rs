//! The scope tree of one core: who is effectively cancelled, and who waits where. Pure.
//!
//! A node stands for one scope, group or task, or for the core's root. A *park* stands for one op
//! that answered `Pending`; it is registered under the node that was active when it was polled.
//!
//! Two bits per node say what its ops see, so that an op's entry check is a load. **Refused**: the
//! node was cancelled itself, or it sees a cancel from outside. **Hard**: the same, with no grace
//! left. A shield hides what is outside; a grace shield hides it until it is hard. The bits are
//! pushed down in one go when something changes ([`Tree::refresh`]); what that wants done, a wake or
//! a request to the kernel per park, stands in line and is carried out by the core, in slices and when no
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

mod ending;
mod links;
mod node;
mod parks;
#[cfg(test)]
mod tests;
mod view;
#[cfg(test)]
mod waits_tests;
mod walk;

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use super::cancelled::{Cancelled, Misuse, Reason};
use crate::panics::contained;
use crate::slab::{Key, Link, Slab};
use crate::time::Instant;
use crate::time::store::{Elsewhere, Of, Order, TimerId};
use node::{Deadline, Extra, Node, Own};
pub(crate) use node::{Kind, Shield};
pub(crate) use parks::{GivenUp, Outcome, Parked, Purpose, Relay, Told, Wait};
use parks::{Park, Why};
pub(crate) use view::{View, Waiting, Waits};

/// A node's address; a stranger once the node is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(Key);

/// A park's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParkId(Key);

/// What a node that is gone has left armed, or one that needs it no more.
#[derive(Debug)]
pub(crate) enum IdleTimer {
    /// The timer that was to end a grace.
    OfGrace(TimerId),
    /// A deadline.
    OfDeadline(Order),
}

impl NodeId {
    pub(crate) fn key(self) -> Key {
        self.0
    }

    pub(crate) fn from_key(key: Key) -> Self {
        Self(key)
    }

    /// Returns the address as plain numbers, for handles that travel.
    pub(crate) fn to_parts(self) -> (u32, u32) {
        (self.0.index(), self.0.generation())
    }

    pub(crate) fn from_parts(index: u32, generation: u32) -> Self {
        Self(Key::new(index, generation))
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

/// One thing a change of the tree wants done, outside any borrow.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Wake a wait in memory, which will find itself aborted.
    Wake(Waker),
    /// Let go of the owner of such a wait, who has looked before he was woken.
    Seen(Waker),
    /// Ask the kernel to end this op.
    Kernel(u64),
    /// Tell the other side of a wait, which stood under this node, where the cancel had grace until then.
    Relay(Rc<dyn Relay>, Cancelled, NodeId, Option<Instant>),
    /// End the grace of a cancel, at this moment.
    EndGrace(NodeId, Instant),
    /// Wake whoever waits for the end of a scope: nothing holds it any more.
    End(Waker),
    /// Let go of somebody who waits no more.
    Drop(Waker),
    /// Wake a body that waits in nothing the runtime knows.
    Foreign(NodeId),
    /// The same, of a task's own body.
    ForeignTask(NodeId, u32),
}

/// Parks that a cancel has aborted and whose owners are to be woken. They are linked where they lie: to cancel
/// 100 000 takes no memory.
#[derive(Debug, Default)]
struct Line {
    first: Option<Link>,
    last: Option<Link>,
}

/// Keeps the generations of different lives of a core apart (the golden ratio, as a hash would).
const SPREAD: u32 = 0x9e37_79b1;

/// The nodes and parks of one core.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Slab<Node>,
    /// How many nodes are refused, and how many are gone whose bodies may still be polled. While there are none, nobody
    /// is refused.
    refusing: u64,
    extras: Slab<Extra>,
    /// Of nodes that have one, and no extras.
    deadlines: Slab<Deadline>,
    parks: Slab<Park>,
    /// Of the parks that have another side.
    relays: Slab<Rc<dyn Relay>>,
    root: Link,
    effects: VecDeque<Effect>,
    due: Line,
    /// Timers of nodes that are gone or need them no more, to be disarmed.
    idle_timers: Vec<IdleTimer>,
    /// Nodes that were closed with another, since their owner had leaked them.
    abandoned: Vec<(NodeId, bool)>,
    /// Tasks that closed nodes have left cancelled, and that others have a handle of.
    kept_cancelled: Vec<NodeId>,
    /// When the core last looked at the clock: since then a park is parked.
    now: Instant,
    /// Since when the node was cancelled that was closed last.
    acknowledged: Option<Instant>,
    /// How many cancels have changed something.
    deliveries: u64,
}

impl Tree {
    /// Makes a tree that is a root alone.
    ///
    /// `life` tells it from the trees that were in the same place before.
    pub(crate) fn new(life: u32) -> Self {
        let mut nodes = Slab::starting_at(life.wrapping_mul(SPREAD));
        let root = nodes.insert(Node::BLANK);
        Self {
            nodes,
            refusing: 0,
            // The first cancel is not to wait for memory.
            extras: Slab::with_room(),
            deadlines: Slab::default(),
            parks: Slab::default(),
            relays: Slab::default(),
            root: root.link(),
            effects: VecDeque::new(),
            due: Line::default(),
            idle_timers: Vec::new(),
            abandoned: Vec::new(),
            kept_cancelled: Vec::new(),
            now: Instant::from_nanos(0),
            acknowledged: None,
            deliveries: 0,
        }
    }

    /// Ends the tree with its core. Wakers and other sides that were leaked are foreign code: each of them may panic as
    /// it is dropped.
    pub(crate) fn end(mut self) {
        for park in self.parks.end() {
            contained(|| drop(park));
        }
        for relay in self.relays.end() {
            contained(|| drop(relay));
        }
        for extra in self.extras.end() {
            contained(|| drop(extra));
        }
        for effect in self.effects {
            contained(|| drop(effect));
        }
    }

    pub(crate) fn root(&self) -> NodeId {
        NodeId(self.nodes.key(self.root))
    }

    /// Says what time it is, for those who ask since when somebody waits.
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Returns the next thing to be done.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        match self.effects.pop_front() {
            None => self
                .next_due(|_| Some(()))
                .map(|(waker, ())| Effect::Wake(waker)),
            effect => effect,
        }
    }

    /// Takes the waker of the next thing to be done, if that is to wake it and `take` says so of it.
    #[inline]
    pub(crate) fn next_wake<T>(
        &mut self,
        take: impl FnOnce(&Waker) -> Option<T>,
    ) -> Option<(Waker, T)> {
        if !self.effects.is_empty() {
            return None;
        }
        self.next_due(take)
    }

    /// Returns the next timer to disarm.
    pub(crate) fn next_idle_timer(&mut self) -> Option<IdleTimer> {
        self.idle_timers.pop()
    }

    pub(crate) fn has_effects(&self) -> bool {
        !self.effects.is_empty() || self.due.first.is_some() || !self.idle_timers.is_empty()
    }

    /// Returns how many cancels have changed something.
    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    // --- nodes ---

    /// Adds a node below `parent`, or below the root where the parent is gone.
    #[inline(always)]
    pub(crate) fn open(&mut self, parent: NodeId, kind: Kind, shield: Shield) -> NodeId {
        self.add_node(parent, kind, shield, false)
    }

    /// As [`Tree::open`]; a parent that expects the node has counted it already.
    #[inline(always)]
    fn add_node(
        &mut self,
        parent: NodeId,
        kind: Kind,
        shield: Shield,
        is_expected: bool,
    ) -> NodeId {
        let (parent, above) = match self.nodes.get(parent.0) {
            Some(above) => (parent.0.link(), above),
            None => (self.root, self.node(self.root)),
        };
        let (outside, next) = (above.bits(), above.first_child);
        let (key, node) = self.nodes.place(Node::BLANK);
        node.parent = Some(parent);
        node.next = next;
        node.set_kind(kind);
        node.shield = shield;
        if outside.0 {
            (node.refused, node.hard) = node.wanted(outside);
            self.refusing += u64::from(node.refused);
        }
        if let Some(next) = next {
            self.node_mut(next).previous = Some(key.link());
        }
        let above = self.node_mut(parent);
        above.first_child = Some(key.link());
        match kind {
            Kind::Task(_) => above.tasks += u32::from(!is_expected),
            Kind::Scope | Kind::Group => above.bodies += 1,
            Kind::Root | Kind::Daemons | Kind::Start => {}
        }
        NodeId(key)
    }

    /// Counts a task that has no node yet: the end of `parent` waits for it. `None` if that is gone.
    #[inline]
    pub(crate) fn expect_task(&mut self, parent: NodeId) -> Option<NodeId> {
        self.nodes.get_mut(parent.0)?.tasks += 1;
        Some(parent)
    }

    /// Adds a node for such a task, or for one that is to be below the root, which counts none.
    pub(crate) fn open_expected(&mut self, parent: NodeId, slot: u32) -> NodeId {
        let is_expected = parent.0.link() != self.root;
        self.add_node(parent, Kind::Task(slot), Shield::None, is_expected)
    }

    /// Counts such a task no more, which has ended. Returns whether its parent waited for it alone, and somebody is to
    /// be told.
    #[inline]
    pub(crate) fn expected_ended(&mut self, parent: NodeId) -> bool {
        let link = parent.0.link();
        let above = self.node_mut(link);
        above.tasks -= 1;
        let is_last = (above.ending || above.ghost) && above.is_quiet();
        if is_last {
            self.tell_quiet(link);
        }
        is_last
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
    #[inline]
    pub(crate) fn is_cancelled(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_none_or(|node| node.refused)
    }

    /// Returns whether ops are refused anywhere: under some node, or one that was closed with another and may still be
    /// polled.
    #[inline(always)]
    pub(crate) fn refuses_any(&self) -> bool {
        self.refusing > 0
    }

    /// Returns whether the node, or any around it, was cancelled itself, behind whatever shields: one may have come up
    /// since an op here was told.
    pub(crate) fn is_cancelled_around(&self, node: NodeId) -> bool {
        let mut at = self.nodes.get(node.0);
        while let Some(node) = at {
            if node.own != Own::None {
                return true;
            }
            at = node.parent.map(|parent| self.node(parent));
        }
        false
    }

    /// Returns what an op refused under this node reports: the cause of the outermost cancelled
    /// scope it can see, which is the one that will absorb it.
    pub(crate) fn cause(&self, node: NodeId) -> Cancelled {
        match self.nodes.get(node.0) {
            Some(_) => self.why_from(node.0.link(), false).cause,
            None => Cancelled::misuse(Misuse::Ended),
        }
    }

    fn why_from(&self, link: Link, hard_only: bool) -> Why {
        let source = self.source_from(link, hard_only);
        let cause = source.and_then(|source| self.extra(self.node(source))?.why());
        Why {
            cause: cause.unwrap_or_else(|| Cancelled::misuse(Misuse::Ended)),
            by: self.nodes.key(source.unwrap_or(link)),
        }
    }

    /// Returns the outermost cancelled scope that this node can see.
    pub(crate) fn source(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.get(node.0)?;
        let source = self.source_from(node.0.link(), false)?;
        Some(NodeId(self.nodes.key(source)))
    }

    /// Returns which scope's doing it is that a wait was told of a cancel: the one that has told it. If that has gone and
    /// left where the wait stood cancelled, it is who refuses that now.
    pub(crate) fn teller(&self, told: Told) -> Option<NodeId> {
        match self.has_owner(told.by) {
            true => Some(told.by),
            false => self.source(told.under),
        }
    }

    /// Returns whether a node lies in the task in this slot, and in no other below; also where it has gone, and nobody
    /// knows.
    pub(crate) fn may_be_of(&self, node: NodeId, slot: u32) -> bool {
        let mut at = self.nodes.get(node.0);
        if at.is_none() {
            return true;
        }
        while let Some(node) = at {
            if let Kind::Task(of) = node.kind() {
                return of == slot;
            }
            at = node.parent.map(|parent| self.node(parent));
        }
        false
    }

    /// Returns the node above, if a cancel from outside is to be seen in this one: what that refuses, this refuses.
    #[inline]
    pub(crate) fn refused_above(&self, node: NodeId) -> Option<NodeId> {
        let found = self.nodes.get(node.0)?;
        let above = found.parent.filter(|_| self.sees_outside(found))?;
        Some(NodeId(self.nodes.key(above)))
    }

    /// As [`Tree::source`]; with `hard_only`, seen through a grace shield.
    fn source_from(&self, link: Link, mut hard_only: bool) -> Option<Link> {
        let mut seen = None;
        let mut at = Some(link);
        while let Some(link) = at {
            let node = self.node(link);
            if node.own == Own::Hard || (node.own == Own::WithGrace && !hard_only) {
                seen = Some(link);
            }
            hard_only |= node.shield == Shield::Grace;
            at = node.parent.filter(|_| node.shield != Shield::Full);
        }
        seen
    }

    /// Returns the node's own cause, if its own cancel was called.
    pub(crate) fn own_cause(&self, node: NodeId) -> Option<Cancelled> {
        self.extra(self.nodes.get(node.0)?)?.why()
    }

    /// Decides who takes a `Cancelled` that a body ended with: true for this node, false for
    /// somebody further out.
    pub(crate) fn absorbs(&self, node: NodeId) -> bool {
        self.refusal(node).1
    }

    /// Returns whether ops under the node are refused, and whether it takes the `Cancelled` of a body itself.
    #[inline]
    pub(crate) fn refusal(&self, node: NodeId) -> (bool, bool) {
        let found = self.nodes.get(node.0);
        found.map_or((true, false), |found| {
            (found.refused, found.refused && !self.sees_outside(found))
        })
    }

    #[inline]
    fn sees_outside(&self, node: &Node) -> bool {
        let outside = |parent| {
            let parent = self.node(parent);
            match node.shield {
                Shield::None => parent.refused,
                Shield::Grace => parent.hard,
                Shield::Full => false,
            }
        };
        node.parent.is_some_and(outside)
    }

    /// Cancels a scope: pushes the bits down and queues an effect for every park that this reaches.
    /// Returns whether it was the first cancel of this scope.
    ///
    /// The first cause stays. Each park is told once, here, and is out of reach of any later cancel.
    /// With grace, what is in a grace shield goes on until [`Tree::end_grace`], which is to be called at `grace_end`.
    pub(crate) fn cancel(
        &mut self,
        node: NodeId,
        cause: Cancelled,
        grace_end: Option<Instant>,
    ) -> bool {
        let Some(found) = self.nodes.get_mut(node.0) else {
            return false;
        };
        if found.own != Own::None || found.ghost {
            return false;
        }
        found.own = match grace_end {
            Some(_) => Own::WithGrace,
            None => Own::Hard,
        };
        self.note_cause(node.0.link(), cause);
        if let Some(end) = grace_end {
            // Who is told below asks for it, before there is a timer.
            self.ensure_extra(node.0.link()).grace = Some((end, None));
        }
        self.deliveries += 1;
        self.refresh(node.0.link());
        true
    }

    /// Notes what a node is cancelled for. A deadline of a scope that is cancelled wakes nobody.
    fn note_cause(&mut self, node: Link, cause: Cancelled) {
        let now = self.now;
        let deadline = self.take_deadline(node);
        self.disarm_deadline(deadline);
        self.ensure_extra(node).cause = Some((cause, now));
    }

    /// Ends the grace of a cancel: grace shields hide it no more.
    pub(crate) fn end_grace(&mut self, node: NodeId) {
        if let Some(found) = self.nodes.get_mut(node.0)
            && found.own != Own::None
        {
            found.own = Own::Hard;
            let link = node.0.link();
            let grace = self.extra_mut(link).and_then(|extra| extra.grace.take());
            self.disarm_grace(grace);
            self.refresh(link);
        }
    }

    /// Sets or clears a node's shield. An abort already begun is not taken back.
    pub(crate) fn set_shield(&mut self, node: NodeId, shield: Shield) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            found.shield = shield;
            self.refresh(node.0.link());
        }
    }

    /// Sets the grace that a cancel has which says nothing of it.
    pub(crate) fn set_grace_period(&mut self, node: NodeId, grace: Duration) {
        if self.nodes.get(node.0).is_some() {
            self.ensure_extra(node.0.link()).grace_period = grace;
        }
    }

    pub(crate) fn grace_period(&self, node: NodeId) -> Duration {
        let node = self.nodes.get(node.0);
        let extra = node.and_then(|node| self.extra(node));
        extra.map_or(Duration::ZERO, |extra| extra.grace_period)
    }

    /// Notes a node's deadline; the one before is disarmed.
    pub(crate) fn set_deadline(&mut self, node: NodeId, deadline: Option<Deadline>) {
        let before = match (self.nodes.get(node.0), deadline) {
            (None, deadline) => deadline,
            (Some(_), Some(deadline)) => self.put_deadline(node.0.link(), deadline),
            (Some(_), None) => self.take_deadline(node.0.link()),
        };
        self.disarm_deadline(before);
    }

    /// Forgets a node's deadline, which has come.
    pub(crate) fn deadline_fired(&mut self, node: NodeId) {
        if self.nodes.get(node.0).is_some() {
            self.take_deadline(node.0.link());
        }
    }

    /// Notes when a node's grace ends, and the timer that ends it, if it has an end.
    pub(crate) fn set_grace_end(&mut self, node: NodeId, grace: (Instant, Option<TimerId>)) {
        let before = match self.nodes.get(node.0) {
            Some(_) => self.ensure_extra(node.0.link()).grace.replace(grace),
            None => Some(grace),
        };
        self.disarm_grace(before);
    }

    /// Returns when the grace ends of what cancels this node; `None` if it has none, or none left.
    pub(crate) fn grace_end(&self, node: NodeId) -> Option<Instant> {
        let found = self.nodes.get(node.0)?;
        let mut earliest: Option<Instant> = None;
        let mut at = (!found.hard).then_some(found);
        while let Some(node) = at {
            let own = self.extra(node).and_then(Extra::grace_end);
            earliest = earliest.into_iter().chain(own).min();
            // A grace shield as well hides what has some left.
            let parent = node.parent.filter(|_| node.shield == Shield::None);
            at = parent.map(|parent| self.node(parent));
        }
        earliest
    }

    /// Returns when the grace ends of a cancel that a wait under this node was told of, when it had this end. The node
    /// may have gone, or what it is in.
    pub(crate) fn grace_left(&self, node: NodeId, told: Option<Instant>) -> Option<Instant> {
        match self.nodes.get(node.0) {
            Some(found) if found.hard => None,
            _ => self.grace_end(node).or(told),
        }
    }

    /// Forgets the timer that ends a node's grace, which has fired.
    pub(crate) fn grace_fired(&mut self, node: NodeId) {
        if self.nodes.get(node.0).is_some()
            && let Some(extra) = self.extra_mut(node.0.link())
        {
            extra.grace = None;
        }
    }

    /// Returns the node's own deadline.
    pub(crate) fn deadline(&self, node: NodeId) -> Option<Instant> {
        let deadline = self.deadline_of(self.nodes.get(node.0)?);
        deadline.map(|(at, _)| at)
    }

    /// Returns the earliest deadline that an op under this node can see: from behind a grace shield, with the grace
    /// that it has.
    pub(crate) fn effective_deadline(&self, node: NodeId) -> Option<Instant> {
        let [seen, _] = self.deadlines(node);
        (seen != Instant::NEVER).then_some(seen)
    }

    /// Returns the earliest deadlines that can be seen under this node, and from behind a grace shield there;
    /// [`Instant::NEVER`] where there is none.
    pub(crate) fn deadlines(&self, node: NodeId) -> [Instant; 2] {
        let mut earliest = [Instant::NEVER; 2];
        let mut is_behind = [false, true];
        let mut at = self.nodes.get(node.0);
        while let Some(node) = at {
            let (extra, deadline) = (self.extra(node), self.deadline_of(node));
            let is_open = node.shield != Shield::Full;
            for (earliest, has_grace) in earliest.iter_mut().zip(&mut is_behind) {
                let period = extra.map_or(Duration::ZERO, |extra| extra.grace_period);
                let own = match deadline {
                    Some((deadline, _)) if *has_grace => Some(deadline + period),
                    Some((deadline, _)) => Some(deadline),
                    None => extra.and_then(Extra::grace_end).filter(|_| *has_grace),
                };
                *has_grace |= node.shield == Shield::Grace;
                let around = extra.and_then(|extra| extra.around.as_deref());
                let around = around
                    .filter(|_| is_open)
                    .map(|of| of[usize::from(*has_grace)]);
                *earliest = own.into_iter().chain(around).fold(*earliest, Instant::min);
            }
            let parent = node.parent.filter(|_| is_open);
            at = parent.map(|parent| self.node(parent));
        }
        earliest
    }

    /// Notes the [deadlines](Tree::deadlines) that a node sees which are another core's, and fire there.
    pub(crate) fn set_around(&mut self, node: NodeId, deadlines: [Instant; 2]) {
        if self.nodes.get(node.0).is_some() && deadlines != [Instant::NEVER; 2] {
            self.ensure_extra(node.0.link()).around = Some(Box::new(deadlines));
        }
    }

    /// Puts a node below another parent: a scope that was made in one place and is entered in
    /// another, or a child that has started. What that makes cancelled is aborted.
    pub(crate) fn move_under(&mut self, node: NodeId, parent: NodeId) {
        let Some(found) = self.nodes.get(node.0) else {
            return;
        };
        let parent_link = parent.0.link();
        if !found.ghost && found.parent != Some(parent_link) && !self.is_within(parent, node) {
            self.relink(node.0.link(), parent_link);
        }
    }

    /// Hangs a living node below a parent that is not below it, and makes the bits say what they must
    /// there.
    fn relink(&mut self, link: Link, parent: Link) {
        let node = self.node(link);
        debug_assert!(!node.ghost, "a ghost stays where it is");
        let (kind, counts) = (node.kind(), u32::from(!node.stray));
        let old = node.parent.expect("never the root");
        match kind {
            Kind::Task(_) => self.node_mut(parent).tasks += 1,
            Kind::Scope | Kind::Group => {
                self.node_mut(old).bodies -= counts;
                self.node_mut(parent).bodies += counts;
            }
            Kind::Root | Kind::Daemons | Kind::Start => {}
        }
        self.unlink(link);
        self.node_mut(link).parent = Some(parent);
        self.link(link, parent);
        self.refresh(link);
        if matches!(kind, Kind::Task(_)) {
            self.task_left(old);
        }
    }

    /// Notes that others have a handle of a node.
    pub(crate) fn announce(&mut self, node: NodeId) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            found.announced = true;
        }
    }

    /// Returns whether others have a handle of a node.
    pub(crate) fn is_announced(&self, node: NodeId) -> bool {
        let found = self.nodes.get(node.0);
        found.is_some_and(|found| found.announced)
    }

    /// Promises that a task may come below a node: its end waits.
    pub(crate) fn promise(&mut self, node: NodeId) {
        if let Some(found) = self.nodes.get_mut(node.0) {
            found.tasks += 1;
            self.ensure_extra(node.0.link()).promises += 1;
        }
    }

    /// Takes such a promise back.
    pub(crate) fn unpromise(&mut self, node: NodeId) {
        if self.nodes.get(node.0).is_some()
            && let Some(extra) = self.extra_mut(node.0.link())
            && extra.promises > 0
        {
            extra.promises -= 1;
            self.task_left(node.0.link());
        }
    }

    /// Returns how many tasks live directly below a node.
    pub(crate) fn tasks_below(&self, node: NodeId) -> u32 {
        self.nodes.get(node.0).map_or(0, |node| node.tasks)
    }

    /// Returns whether `node` is `top`, lies below it, or is no node at all.
    pub(crate) fn is_within(&self, node: NodeId, top: NodeId) -> bool {
        if self.nodes.get(node.0).is_none() {
            return true;
        }
        let top = top.0.link();
        let mut at = Some(node.0.link());
        while let Some(link) = at {
            if link == top {
                return true;
            }
            at = self.node(link).parent;
        }
        false
    }

    /// Returns how many nodes there are, the root and ghosts included.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    // --- bodies that wait in nothing the runtime knows ---

    /// Returns whether the body of a node waits, and in no op: what it waits in is foreign.
    ///
    /// Asked after a poll that ended `Pending`; a node with anything below it waits in that.
    #[inline]
    pub(crate) fn waits_in_foreign(&self, node: NodeId) -> bool {
        self.nodes.get(node.0).is_some_and(Node::is_bare)
    }

    /// Notes whom to wake should this body be cancelled: it waits in something foreign. `None`: it
    /// does not, or is being polled. The one before comes back.
    pub(crate) fn set_foreign(&mut self, node: NodeId, waker: Option<Waker>) -> Option<Waker> {
        let found = self.nodes.get(node.0)?;
        if waker.is_none() && self.extra(found).is_none() {
            return None;
        }
        let extra = self.ensure_extra(node.0.link());
        std::mem::replace(&mut extra.foreign, waker)
    }

    /// Takes whom to wake of a body that waits in something foreign, to be given back by [`Tree::return_foreign`].
    pub(crate) fn take_foreign(&mut self, node: NodeId) -> Option<Waker> {
        self.nodes.get(node.0)?;
        self.extra_mut(node.0.link())?.foreign.take()
    }

    /// Gives back who is to be woken again; he comes back if another has taken his place.
    pub(crate) fn return_foreign(&mut self, node: NodeId, waker: Waker) -> Option<Waker> {
        match self.nodes.get(node.0).and_then(|found| self.extra(found)) {
            Some(extra) if extra.foreign.is_none() => self.set_foreign(node, Some(waker)),
            _ => Some(waker),
        }
    }

    /// Returns whether a body is cancelled and waits in something foreign, as far as the tree can tell.
    pub(crate) fn is_stuck(&self, node: NodeId) -> bool {
        let found = self.nodes.get(node.0);
        found.is_some_and(|found| found.refused && found.is_bare())
    }

    /// Returns what wakes a body that waits in something foreign.
    pub(crate) fn foreign_wake(&self, node: NodeId) -> Option<Effect> {
        let found = self.nodes.get(node.0).filter(|found| found.is_bare())?;
        if let Kind::Task(slot) = found.kind() {
            return Some(Effect::ForeignTask(node, slot));
        }
        self.extra(found)?.foreign.as_ref()?;
        Some(Effect::Foreign(node))
    }

    fn disarm_deadline(&mut self, deadline: Option<Deadline>) {
        let order = deadline.map(|(_, order)| IdleTimer::OfDeadline(order));
        self.idle_timers.extend(order);
    }

    fn disarm_grace(&mut self, grace: Option<(Instant, Option<TimerId>)>) {
        let timer = grace.and_then(|(_, timer)| timer);
        self.idle_timers.extend(timer.map(IdleTimer::OfGrace));
    }

    fn link_or_root(&self, node: NodeId) -> Link {
        match self.nodes.get(node.0) {
            Some(_) => node.0.link(),
            None => self.root,
        }
    }
}

/// A wait keeps its deadline as long as it is there, whatever its outcome.
impl Elsewhere for Tree {
    fn is_armed(&self, of: Of, key: Key, order: Order) -> bool {
        match of {
            Of::Timer => false,
            Of::Park => self.parks.get(key).is_some(),
            Of::Scope => {
                let node = self.nodes.get(key);
                let deadline = node.and_then(|node| self.deadline_of(node));
                deadline.is_some_and(|(_, armed)| armed == order)
            }
        }
    }
}
