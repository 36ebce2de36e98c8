//! A node of the tree: what every visit reads in one cache line, and what few have beside it.

use std::task::Waker;
use std::time::Duration;

use super::Cancelled;
use crate::slab::Link;
use crate::time::Instant;
use crate::time::store::{Order, TimerId};

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
    /// The daemons of the group above: tasks, and no body.
    Daemons,
    /// A call that waits for a child to say that it has started: the child, and no body.
    Start,
    /// The task in this slot.
    Task(u32),
}

/// The node's own cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// There was none.
    None,
    /// What is in a grace shield goes on.
    WithGrace,
    /// It has no grace, or none left.
    Hard,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: Option<Link>,
    pub(super) first_child: Option<Link>,
    pub(super) previous: Option<Link>,
    pub(super) next: Option<Link>,
    pub(super) first_park: Option<Link>,
    /// What few nodes have; or the deadline, of one that has nothing else of it.
    pub(super) more: Option<Link>,
    /// Parks that were told of a cancel and end when the other side does. They are in no list.
    pub(super) told: u32,
    /// Kernel ops started here whose futures are gone and which the kernel has not ended.
    pub(super) orphans: u32,
    /// How many of the children are ghosts.
    pub(super) ghost_children: u32,
    /// Living tasks directly below, and promises that there will be some.
    pub(super) tasks: u32,
    /// Living scopes and groups directly below: bodies of the same task.
    pub(super) bodies: u32,
    /// Of a task.
    slot: u32,
    kind: Label,
    pub(super) shield: Shield,
    pub(super) own: Own,
    pub(super) refused: bool,
    pub(super) hard: bool,
    /// The owner is gone; only the kernel still holds the node.
    pub(super) ghost: bool,
    /// Others have a handle.
    pub(super) announced: bool,
    /// The body has ended, and its end waits for what is left below.
    pub(super) ending: bool,
    /// The task has ended whose body it was: it is none of the parent's, which waits in it no more.
    pub(super) stray: bool,
    /// It has a deadline, and nothing else of what few nodes have.
    pub(super) has_deadline_alone: bool,
}

/// Where the rest of a node lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// Nowhere: there is none.
    Nothing,
    /// Among the deadlines, as those of most scopes that have one.
    Deadline(Link),
    /// Among the extras, whatever there is of them.
    Extra(Link),
}

/// A [`Kind`] without its slot: a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Root,
    Scope,
    Group,
    Daemons,
    Start,
    Task,
}

/// Every entry check reads a node, and a cancel visits each: one cache line, with its generation.
#[cfg(not(random_layout))]
const _: () = assert!(size_of::<Option<Node>>() <= 60);

/// When it is, and which of all that are armed.
pub(super) type Deadline = (Instant, Order);

/// What few nodes have.
#[derive(Debug)]
pub(super) struct Extra {
    /// The own cancel, and when that was. The first cause stays.
    pub(super) cause: Option<(Cancelled, Instant)>,
    pub(super) deadline: Option<Deadline>,
    /// When the grace period ends, and the timer for it; one without an end has none.
    pub(super) grace: Option<(Instant, Option<TimerId>)>,
    /// The grace that a cancel has which says nothing of it.
    pub(super) grace_period: Duration,
    /// The deadlines around that are another core's: as they are seen here, and from behind a grace shield.
    pub(super) around: Option<Box<[Instant; 2]>>,
    /// Of the tasks below, how many are promised only.
    pub(super) promises: u32,
    /// Woken when nothing is left below that an end has to wait for.
    pub(super) end_waiter: Option<Waker>,
    /// The body waits, and not in any op: whoever polled it last.
    pub(super) foreign: Option<Waker>,
}

impl Node {
    /// A node that nothing is known of: put in its place and filled there. (Built elsewhere, byte by
    /// byte, and copied, it would be read before it is written.)
    pub(super) const BLANK: Self = Self {
        parent: None,
        first_child: None,
        previous: None,
        next: None,
        first_park: None,
        more: None,
        told: 0,
        orphans: 0,
        ghost_children: 0,
        tasks: 0,
        bodies: 0,
        slot: 0,
        kind: Label::Root,
        shield: Shield::None,
        own: Own::None,
        refused: false,
        hard: false,
        ghost: false,
        announced: false,
        ending: false,
        stray: false,
        has_deadline_alone: false,
    };

    #[inline]
    pub(super) fn more(&self) -> More {
        match self.more {
            None => More::Nothing,
            Some(link) if self.has_deadline_alone => More::Deadline(link),
            Some(link) => More::Extra(link),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.kind {
            Label::Root => Kind::Root,
            Label::Scope => Kind::Scope,
            Label::Group => Kind::Group,
            Label::Daemons => Kind::Daemons,
            Label::Start => Kind::Start,
            Label::Task => Kind::Task(self.slot),
        }
    }

    pub(super) fn set_kind(&mut self, kind: Kind) {
        self.kind = match kind {
            Kind::Root => Label::Root,
            Kind::Scope => Label::Scope,
            Kind::Group => Label::Group,
            Kind::Daemons => Label::Daemons,
            Kind::Start => Label::Start,
            Kind::Task(slot) => {
                self.slot = slot;
                Label::Task
            }
        };
    }

    pub(super) fn is_task(&self) -> bool {
        self.kind == Label::Task
    }

    /// Something is registered or kept here, or lies below.
    #[inline]
    pub(super) fn has_anything(&self) -> bool {
        self.has_anything_near() | self.more.is_some()
    }

    /// Something is registered here, or lies below.
    #[inline]
    pub(super) fn has_anything_near(&self) -> bool {
        self.first_park.is_some() | self.first_child.is_some()
    }

    /// Nothing is left of it, and nobody else knows of it.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        let is_known = self.ghost | self.announced;
        !is_known && !self.has_anything() && self.is_quiet()
    }

    /// A body that its parent counts.
    pub(super) fn is_body(&self) -> bool {
        matches!(self.kind, Label::Scope | Label::Group) && !self.stray
    }

    /// What the two bits have to be, where the parent's are these.
    pub(super) fn wanted(&self, (refused, hard): (bool, bool)) -> (bool, bool) {
        let outside = match self.shield {
            Shield::None => (refused, hard),
            Shield::Grace => (hard, hard),
            Shield::Full => (false, false),
        };
        (
            outside.0 || self.own != Own::None,
            outside.1 || self.own == Own::Hard,
        )
    }

    pub(super) fn bits(&self) -> (bool, bool) {
        (self.refused, self.hard)
    }

    /// Nothing is registered here that will wake the body. What goes on below without it, tasks and
    /// ops in the kernel, wakes it when it has ended, and not before.
    pub(super) fn is_bare(&self) -> bool {
        self.first_park.is_none()
            && self.told == 0
            && self.bodies == 0
            && !matches!(self.kind, Label::Daemons | Label::Start)
            && !self.ending
            && !self.ghost
    }

    /// Nothing in the kernel, and no task: no orphan here, and no ghost below. Living children that
    /// are scopes do not count: they have owners of their own.
    pub(super) fn is_quiet(&self) -> bool {
        self.orphans | self.ghost_children | self.tasks == 0
    }
}

impl Extra {
    pub(super) const BLANK: Self = Self {
        cause: None,
        deadline: None,
        grace: None,
        grace_period: Duration::ZERO,
        around: None,
        promises: 0,
        end_waiter: None,
        foreign: None,
    };

    /// Returns the deadline, if there is nothing else.
    #[inline]
    pub(super) fn deadline_alone(&self) -> Option<Deadline> {
        let Self {
            cause: None,
            deadline,
            grace: None,
            // Of a cancel that did not come.
            grace_period: _,
            around: None,
            promises: 0,
            end_waiter: None,
            foreign: None,
        } = self
        else {
            return None;
        };
        *deadline
    }

    /// Returns when the grace of the own cancel ends.
    pub(super) fn grace_end(&self) -> Option<Instant> {
        self.grace.map(|(end, _)| end)
    }

    /// Returns the cause of the own cancel.
    pub(super) fn why(&self) -> Option<Cancelled> {
        self.cause.map(|(cause, _)| cause)
    }
}
