//! Parks: ops that wait, each registered under the node that was active when it was polled.

use std::rc::Rc;
use std::task::Waker;

use super::view::Waits;
use super::{Cancelled, Effect, Node, NodeId, ParkId, Tree};
use crate::slab::{Key, Link, Slab};
use crate::time::Instant;

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
        relay: RelayId,
    },
    /// The same, whose other side was told, because of this scope; no list has it any more.
    Asked {
        waker: Waker,
        purpose: Purpose,
        by: Key,
    },
}

/// The other side of a wait, which the tree keeps beside its parks: few have one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelayId(Key);

/// Tells the other side of a wait that its scope is cancelled.
pub(crate) trait Relay {
    /// The cause, and when its grace ends, if it has one.
    fn relay(&self, cause: Cancelled, grace_end: Option<Instant>);
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
    /// The last op on a descriptor that is being closed.
    Close,
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
            Self::Close => "the last op on what it closes",
        })
    }
}

#[derive(Debug)]
pub(super) struct Park {
    /// The node that it is registered under; one that was told of a cancel may outlive it.
    pub(super) node: Key,
    /// Its neighbours in the list of its node, or in the line of those whose owners are to be woken.
    pub(super) previous: Option<Link>,
    pub(super) next: Option<Link>,
    /// Since when it waits, in nanoseconds; of one in memory that waits no more, which scope has aborted it, as the word
    /// of its key.
    word: u64,
    state: ParkState,
}

/// A core has one for each of its waits: with its generation it fits a cache line.
#[cfg(not(random_layout))]
const _: () = assert!(size_of::<Option<Park>>() <= 60);

impl Park {
    /// A park of which nothing is known: put in its place and filled there.
    const BLANK: Self = Self {
        node: Key::FIRST,
        previous: None,
        next: None,
        word: 0,
        state: ParkState::Waiting(Wait::Kernel(0)),
    };

    /// It was told of a cancel, and waits for the other side all the same.
    pub(super) fn is_told(&self) -> bool {
        match self.state {
            ParkState::Waiting(Wait::Asked { .. }) | ParkState::Ending(..) => true,
            ParkState::Waiting(_) | ParkState::Due(..) | ParkState::Aborted(_) => false,
        }
    }

    /// It stands in the list of its node.
    fn is_listed(&self) -> bool {
        matches!(self.state, ParkState::Waiting(_)) && !self.is_told()
    }

    /// Returns since when it waits; of no meaning, if it waits no more.
    pub(super) fn since(&self) -> Instant {
        Instant::from_nanos(self.word)
    }

    /// Returns by whom it was told of a cancel, if it was.
    fn told(&self) -> Option<Told> {
        match self.state {
            ParkState::Waiting(Wait::Asked { by, .. }) | ParkState::Ending(_, _, by) => {
                Some(self.told_by(by))
            }
            ParkState::Waiting(_) => None,
            ParkState::Due(..) | ParkState::Aborted(_) => Some(self.told_in_memory()),
        }
    }

    /// Returns by whom a wait in memory was aborted, that was.
    #[inline(always)]
    fn told_in_memory(&self) -> Told {
        self.told_by(Key::from_word(self.word))
    }

    #[inline(always)]
    fn told_by(&self, by: Key) -> Told {
        Told {
            under: NodeId(self.node),
            by: NodeId(by),
        }
    }

    /// Aborts a wait in memory, whose owner is to stand in line behind `last`.
    #[inline(always)]
    fn become_due(&mut self, why: Why, last: Option<Link>) {
        let ParkState::Waiting(Wait::Memory { waker, .. }) = &mut self.state else {
            unreachable!("looked at by the caller")
        };
        let waker = std::mem::replace(waker, Waker::noop().clone());
        let blank = std::mem::replace(&mut self.state, ParkState::Due(why.cause, waker));
        std::mem::forget(blank);
        self.word = why.by.to_word();
        (self.previous, self.next) = (last, None);
    }

    /// Returns what it waits for; nothing any more, if it has an outcome.
    pub(super) fn waits(&self) -> Option<Waits> {
        match &self.state {
            ParkState::Waiting(wait) => Some(Waits::of(wait)),
            ParkState::Ending(_, op, _) => Some(Waits::Kernel(*op)),
            ParkState::Due(..) | ParkState::Aborted(_) => None,
        }
    }
}

#[derive(Debug)]
enum ParkState {
    Waiting(Wait),
    /// As [`ParkState::Aborted`], of a wait in memory whose owner has not been woken: he stands in line for that.
    Due(Cancelled, Waker),
    /// With the cause of that moment: what it reports, whatever is cancelled later.
    Aborted(Cancelled),
    /// The same, of the kernel op that was asked to end, because of this scope, and is waited for all the same.
    Ending(Cancelled, u64, Key),
}

/// Why parks are aborted, and which scope's cancel that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Why {
    pub(super) cause: Cancelled,
    pub(super) by: Key,
}

/// That a wait was told of a cancel: where it stood then, and by which scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) under: NodeId,
    pub(crate) by: NodeId,
}

/// What a park that was forgotten leaves: wakers and other sides, which are foreign code. It is dropped outside the
/// borrow.
#[derive(Debug)]
pub(crate) struct Remains {
    waker: Option<Waker>,
    /// The waker was to be woken for a cancel.
    is_due: bool,
    told: Option<Told>,
    _relay: Option<Rc<dyn Relay>>,
}

impl Remains {
    /// Returns whom a cancel was about to wake.
    pub(crate) fn due(self) -> Option<Waker> {
        self.waker.filter(|_| self.is_due)
    }

    /// Returns by whom it was told of a cancel, if it was.
    pub(crate) fn told(&self) -> Option<Told> {
        self.told
    }

    fn of(park: Park, relays: &mut Slab<Rc<dyn Relay>>) -> Self {
        let is_due = matches!(park.state, ParkState::Due(..));
        let told = park.told();
        let (waker, relay) = match park.state {
            ParkState::Waiting(
                Wait::Memory { waker, .. } | Wait::Deaf { waker, .. } | Wait::Asked { waker, .. },
            )
            | ParkState::Due(_, waker) => (Some(waker), None),
            ParkState::Waiting(Wait::Relayed { waker, relay, .. }) => (Some(waker), Some(relay)),
            ParkState::Waiting(Wait::Kernel(_)) | ParkState::Aborted(_) | ParkState::Ending(..) => {
                (None, None)
            }
        };
        Self {
            waker,
            is_due,
            told,
            _relay: relay.and_then(|relay| relays.remove(relay.0)),
        }
    }
}

/// What a wait leaves that was given up.
#[derive(Debug)]
pub(crate) enum GivenUp {
    /// Nothing; also where it is gone already.
    Nothing,
    /// Who was to be woken: foreign code, to be dropped outside the borrow.
    Waker(Waker),
    /// It is there still: it was told of a cancel, or has another side.
    Told,
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

/// What became of a wait in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ready,
    Aborted(Cancelled, Told),
    /// It goes on, under who polls it again, with the same waker.
    Unchanged,
    /// It goes on.
    None,
}

/// What a look at a park found.
#[derive(Debug)]
pub(crate) struct Polled {
    pub(crate) parked: Parked,
    /// A waker that is not needed any more, to be dropped outside the borrow.
    pub(crate) stale: Option<Waker>,
}

impl Tree {
    /// Registers an op under `node`; under one that is cancelled, that aborts it.
    #[cfg(test)]
    pub(crate) fn park(&mut self, node: NodeId, wait: Wait) -> ParkId {
        self.park_with(node, || wait)
    }

    /// As [`Tree::park`], of a wait that is built where it stays: copied while it is new, it would be read before it
    /// is written.
    #[inline(always)]
    pub(crate) fn park_with(&mut self, node: NodeId, wait: impl FnOnce() -> Wait) -> ParkId {
        let (under, found) = match self.nodes.get_mut(node.0) {
            Some(found) => (node.0, found),
            None => {
                let root = self.nodes.key(self.root);
                (root, self.nodes.linked_mut(self.root))
            }
        };
        let next = found.first_park;
        let (key, park) = self.parks.place(Park::BLANK);
        park.node = under;
        park.next = next;
        park.word = self.now.as_nanos();
        // Of a blank park nothing is to be dropped.
        let blank = std::mem::replace(&mut park.state, ParkState::Waiting(wait()));
        std::mem::forget(blank);
        found.first_park = Some(key.link());
        let refused = found.refused;
        if let Some(next) = next {
            self.parks.linked_mut(next).previous = Some(key.link());
        }
        if refused {
            self.abort_late(key.link(), under.link());
        }
        ParkId(key)
    }

    /// Keeps the other side of a wait that is to be parked next.
    pub(crate) fn keep_relay(&mut self, relay: Rc<dyn Relay>) -> RelayId {
        RelayId(self.relays.insert(relay))
    }

    /// Tells a park that came when its node was cancelled already: foreign code has done that since the op looked.
    #[cold]
    fn abort_late(&mut self, park: Link, node: Link) {
        let why = self.why_from(node, false);
        self.abort(park, why);
    }

    /// Looks at a park again: notes the waker of this poll, and follows the active scope if the op
    /// is polled under another one than before. Moving under a cancelled scope aborts.
    ///
    /// `None` if the waker is new and `copy` is not there: it is copied outside of the borrow, being foreign code.
    pub(crate) fn poll_park(
        &mut self,
        id: ParkId,
        active: NodeId,
        waker: &Waker,
        copy: &mut Option<Waker>,
    ) -> Option<Polled> {
        let mut stale = None;
        let Some(park) = self.parks.get_mut(id.0) else {
            return Some(Polled {
                parked: Parked::Ready,
                stale,
            });
        };
        match &mut park.state {
            ParkState::Aborted(_)
            | ParkState::Ending(..)
            | ParkState::Due(..)
            | ParkState::Waiting(Wait::Kernel(_)) => {}
            ParkState::Waiting(
                Wait::Memory { waker: known, .. }
                | Wait::Deaf { waker: known, .. }
                | Wait::Relayed { waker: known, .. }
                | Wait::Asked { waker: known, .. },
            ) => {
                if !known.will_wake(waker) {
                    stale = Some(std::mem::replace(known, copy.take()?));
                }
            }
        }
        if park.is_listed() && park.node != active.0 && self.nodes.get(active.0).is_some() {
            self.move_to(id.0.link(), active.0.link());
        }
        let parked = match self.aborted(id) {
            Some(cause) => {
                self.look_in_line(id.0.link(), waker);
                Parked::Aborted(cause)
            }
            None => Parked::Waiting,
        };
        Some(Polled { parked, stale })
    }

    /// Forgets a wait in memory that has its outcome, and returns that. `polled` is what is being polled, if it has a
    /// node.
    #[inline(always)]
    pub(crate) fn outcome(&mut self, id: ParkId, polled: Option<NodeId>, waker: &Waker) -> Outcome {
        let Some(park) = self.parks.get(id.0) else {
            return Outcome::Ready;
        };
        let (cause, told) = if let ParkState::Aborted(cause) = &park.state {
            (*cause, park.told_in_memory())
        } else if let ParkState::Due(cause, _) = &park.state {
            let aborted = (*cause, park.told_in_memory());
            self.look_in_line(id.0.link(), waker);
            aborted
        } else if let ParkState::Waiting(Wait::Memory { waker: known, .. }) = &park.state
            && polled.is_some_and(|node| node.0 == park.node)
            && known.will_wake(waker)
        {
            return Outcome::Unchanged;
        } else {
            return Outcome::None;
        };
        self.parks.clear_plain(id.0.link());
        Outcome::Aborted(cause, told)
    }

    /// Ends a wait in memory with success, and forgets it: whoever looks at it from here on finds nothing, and knows.
    /// Returns whom to wake, or `None` if it was aborted first.
    pub(crate) fn complete(&mut self, id: ParkId) -> Option<Waker> {
        match self.parks.get(id.0)?.state {
            // A kernel op is completed by its slot alone.
            ParkState::Aborted(_)
            | ParkState::Ending(..)
            | ParkState::Due(..)
            | ParkState::Waiting(Wait::Kernel(_)) => None,
            ParkState::Waiting(Wait::Memory { .. }) => self.complete_in_memory(id.0.link()),
            // Its owner, who waits, has the other side as well: that is not dropped here.
            ParkState::Waiting(_) => self.unpark(id)?.waker,
        }
    }

    /// Forgets a plain wait in memory; returns whom to wake. Only the waker is moved.
    fn complete_in_memory(&mut self, park: Link) -> Option<Waker> {
        self.unlink_park(park);
        let ParkState::Waiting(Wait::Memory { waker, .. }) = &mut self.parks.linked_mut(park).state
        else {
            unreachable!("looked at by the caller")
        };
        let waker = std::mem::replace(waker, Waker::noop().clone());
        self.parks.clear_plain(park);
        Some(waker)
    }

    /// Returns whether a park was completed.
    pub(crate) fn is_ready(&self, id: ParkId) -> bool {
        self.parks.get(id.0).is_none()
    }

    /// Returns whether a park is there and has no outcome.
    pub(crate) fn is_waiting(&self, id: ParkId) -> bool {
        let park = self.parks.get(id.0);
        park.is_some_and(|park| matches!(park.state, ParkState::Waiting(_)))
    }

    /// Returns why a park was aborted, if it was.
    pub(crate) fn aborted(&self, id: ParkId) -> Option<Cancelled> {
        match self.parks.get(id.0)?.state {
            ParkState::Aborted(cause) | ParkState::Ending(cause, ..) | ParkState::Due(cause, _) => {
                Some(cause)
            }
            ParkState::Waiting(_) => None,
        }
    }

    /// Returns the node a park is registered under, if that still is there.
    pub(crate) fn node_of(&self, id: ParkId) -> Option<NodeId> {
        let node = self.parks.get(id.0)?.node;
        self.nodes.get(node).map(|_| NodeId(node))
    }

    /// Forgets a wait that goes on, if it is no more than an op that nobody was told to end, or a waker.
    #[inline(always)]
    pub(crate) fn give_up(&mut self, id: ParkId) -> GivenUp {
        let Some(park) = self.parks.get_mut(id.0) else {
            return GivenUp::Nothing;
        };
        let given_up = if let ParkState::Waiting(Wait::Kernel(_)) = park.state {
            GivenUp::Nothing
        } else if let ParkState::Waiting(Wait::Memory { waker, .. }) = &mut park.state {
            GivenUp::Waker(std::mem::replace(waker, Waker::noop().clone()))
        } else {
            return GivenUp::Told;
        };
        self.unlink_park(id.0.link());
        self.parks.clear_plain(id.0.link());
        given_up
    }

    /// Forgets a park, whose op has ended or was dropped.
    pub(crate) fn unpark(&mut self, id: ParkId) -> Option<Remains> {
        match self.parks.get(id.0)?.state {
            ParkState::Waiting(Wait::Asked { .. }) | ParkState::Ending(..) => {
                self.told_no_more(id.0);
            }
            ParkState::Waiting(_) => self.unlink_park(id.0.link()),
            ParkState::Due(..) => self.leave_line(id.0.link()),
            ParkState::Aborted(_) => {}
        }
        let park = self.parks.remove(id.0)?;
        Some(Remains::of(park, &mut self.relays))
    }

    /// Returns how many ops are parked, or aborted and have not seen it.
    pub(crate) fn park_count(&self) -> usize {
        self.parks.len()
    }

    /// Tells every op parked under a node that is refused; where there is none, and nothing else
    /// below, the body waits in something foreign.
    #[inline(always)]
    pub(super) fn abort_parks(&mut self, link: Link, why: Why) {
        let node = self.nodes.linked_mut(link);
        // One wait in memory is what most have.
        if let Some(first) = node.first_park
            && let alone = self.parks.linked_mut(first)
            && alone.next.is_none()
            && matches!(alone.state, ParkState::Waiting(Wait::Memory { .. }))
        {
            alone.become_due(why, self.due.last);
            node.first_park = None;
            self.join_line(first);
        } else if node.first_park.is_some() || node.bodies == 0 {
            self.abort_others(link, why);
        }
    }

    /// As [`Tree::abort_parks`], where there is more than one, or another, or none and no body that would have one.
    #[inline(never)]
    fn abort_others(&mut self, link: Link, why: Why) {
        let node = self.node(link);
        let mut next = node.first_park;
        if next.is_none() && node.is_bare() {
            let node = NodeId(self.nodes.key(link));
            self.effects.extend(self.foreign_wake(node));
        }
        while let Some(park) = next {
            next = self.parks.linked(park).next;
            self.abort(park, why);
        }
    }

    /// Tells one linked park, unless nobody is to be told.
    fn abort(&mut self, park: Link, why: Why) {
        let Why { cause, by } = why;
        let found = self.parks.linked_mut(park);
        match found.state {
            ParkState::Waiting(Wait::Deaf { .. }) => return,
            ParkState::Waiting(Wait::Memory { .. }) => {
                self.unlink_park(park);
                return self.abort_in_memory(park, why);
            }
            _ => {}
        }
        let aborted = ParkState::Aborted(cause);
        let (state, mut effect) = match std::mem::replace(&mut found.state, aborted) {
            ParkState::Waiting(Wait::Kernel(op)) => {
                (ParkState::Ending(cause, op, by), Effect::Kernel(op))
            }
            ParkState::Waiting(Wait::Relayed {
                waker,
                purpose,
                relay,
            }) => {
                let relay = self.relays.remove(relay.0);
                let relay = relay.expect("it is kept as long as it waits");
                (
                    ParkState::Waiting(Wait::Asked { waker, purpose, by }),
                    Effect::Relay(relay, cause, NodeId(found.node), None),
                )
            }
            ParkState::Waiting(Wait::Memory { .. } | Wait::Deaf { .. } | Wait::Asked { .. })
            | ParkState::Due(..)
            | ParkState::Aborted(_)
            | ParkState::Ending(..) => unreachable!("only a waiting park is linked"),
        };
        found.state = state;
        let told = found.is_told().then_some(found.node);
        self.unlink_park(park);
        if let Some(node) = told {
            self.nodes.linked_mut(node.link()).told += 1;
        }
        if let Effect::Relay(_, _, node, grace_end) = &mut effect {
            // By the time that it is carried out, what has the grace may have gone.
            *grace_end = self.grace_end(*node);
        }
        self.effects.push_back(effect);
    }

    /// Aborts a wait in memory that no list has, and lets its owner stand in line to be woken.
    fn abort_in_memory(&mut self, park: Link, why: Why) {
        let last = self.due.last;
        self.parks.linked_mut(park).become_due(why, last);
        self.join_line(park);
    }

    /// Puts a park behind the last in line, which it knows already.
    #[inline(always)]
    fn join_line(&mut self, park: Link) {
        match self.due.last.replace(park) {
            Some(last) => self.parks.linked_mut(last).next = Some(park),
            None => self.due.first = Some(park),
        }
    }

    /// Takes the waker of a park that stands in line, which it leaves.
    fn take_due(&mut self, park: Link) -> Option<Waker> {
        let found = self.parks.linked_mut(park);
        let ParkState::Due(cause, waker) = &mut found.state else {
            return None;
        };
        let cause = *cause;
        let waker = std::mem::replace(waker, Waker::noop().clone());
        let blank = std::mem::replace(&mut found.state, ParkState::Aborted(cause));
        std::mem::forget(blank);
        self.leave_line(park);
        Some(waker)
    }

    /// Takes a park that somebody looks at out of the line, if it stands there. Who looks is awake; if another one has
    /// waited, that one is woken all the same: he may have no other wait that a cancel reaches.
    fn look_in_line(&mut self, park: Link, looks: &Waker) {
        if let Some(waker) = self.take_due(park) {
            self.effects.push_back(match waker.will_wake(looks) {
                true => Effect::Seen(waker),
                false => Effect::Wake(waker),
            });
        }
    }

    /// Queues the wake of somebody whose wait a cancel has ended.
    pub(crate) fn wake_later(&mut self, waker: Waker) {
        self.effects.push_back(Effect::Wake(waker));
    }

    /// Takes a park out of the line of those whose owners are to be woken.
    fn leave_line(&mut self, park: Link) {
        let found = self.parks.linked_mut(park);
        let (previous, next) = (found.previous.take(), found.next.take());
        match previous {
            Some(previous) => self.parks.linked_mut(previous).next = next,
            None => self.due.first = next,
        }
        match next {
            Some(next) => self.parks.linked_mut(next).previous = previous,
            None => self.due.last = previous,
        }
    }

    /// Takes the waker of the first in line, if `take` says something of it: that comes with it.
    #[inline(always)]
    pub(super) fn next_due<T>(
        &mut self,
        take: impl FnOnce(&Waker) -> Option<T>,
    ) -> Option<(Waker, T)> {
        let found = self.parks.linked_mut(self.due.first?);
        let ParkState::Due(cause, waker) = &mut found.state else {
            unreachable!("it stands in line")
        };
        let taken = take(waker)?;
        let cause = *cause;
        let waker = std::mem::replace(waker, Waker::noop().clone());
        let blank = std::mem::replace(&mut found.state, ParkState::Aborted(cause));
        std::mem::forget(blank);
        let next = found.next.take();
        self.due.first = next;
        match next {
            Some(next) => self.parks.linked_mut(next).previous = None,
            None => self.due.last = None,
        }
        Some((waker, taken))
    }

    /// Notes that a park ends, or is forgotten, which may have been told of a cancel.
    fn told_no_more(&mut self, park: Key) {
        let told = self.parks.get(park).is_some_and(Park::is_told);
        if told && let Some(node) = self.node_told(park) {
            node.told -= 1;
        }
    }

    /// Returns the node of a park, where that still is.
    fn node_told(&mut self, park: Key) -> Option<&mut Node> {
        self.nodes.get_mut(self.parks.get(park)?.node)
    }

    /// Registers a waiting park under another node; under one that is cancelled, that aborts it.
    pub(super) fn move_to(&mut self, park: Link, node: Link) {
        self.unlink_park(park);
        self.parks.linked_mut(park).node = self.nodes.key(node);
        self.link_park(park, node);
        if self.nodes.linked(node).refused {
            self.abort(park, self.why_from(node, false));
        }
    }
}
