//! Which connections there are, who waits for one, and who gets which: all of it in single steps.
//!
//! ```text
//!   take ──► a connection with room, and nobody waits ──────────► a Place
//!     │ there is none
//!     ▼
//!   ask ──► a connection with room ──────────────────────────────► Give
//!     └──► waits in line ──► Connect ──► connected ──► settle ───► Give
//!                 │             └──► not connected ──────────────► Fail
//!                 └──► leave: a connect that nobody needs any more is given up
//! ```
//!
//! Every event is told to it, with the time where that matters, and it returns what is to be done, as values
//! ([`Effect`]); `shared.rs` carries them out when nothing is borrowed any more. No await, no clock, no
//! connection here.
//!
//! Invariants:
//! - Who waits for an origin is served in order, and nobody overtakes.
//! - A connection counts towards the limits from its connect until its owner has ended.
//! - To an origin that speaks HTTP/2, or of which nobody knows what it speaks, at most one connect is on its
//!   way; to one that speaks HTTP/1, no more than there are requests that wait.
//! - After `close` nothing is given, and nothing new is there.
//! - An owner that has to look whether its connection has expired was told so once: it looks, and is told again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use quoit::time::Instant;

use super::streams::{Fate, StreamId, Streams, Then};

/// One connection, from its connect on.
pub(super) type ConnectionId = u64;

/// One who waits for a connection.
pub(super) type Ticket = u64;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

/// How much there may be.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) per_origin: usize,
    pub(super) in_all: usize,
    pub(super) idle: usize,
    pub(super) idle_timeout: Option<Duration>,
    /// How many streams of a connection are used at most, whatever its peer allows.
    pub(super) streams: usize,
}

/// A request's place on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) connection: ConnectionId,
    pub(super) stream: StreamId,
    /// It was used before.
    pub(super) is_reused: bool,
    /// Of one that was used before: nobody was on it.
    pub(super) was_idle: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect<K> {
    /// Who waited has a place.
    Give {
        ticket: Ticket,
        place: Place,
    },
    /// Who waited learns why there is no connection: its connect has failed.
    Fail {
        ticket: Ticket,
    },
    /// Who waited, or asks, learns that the pool is closed.
    Refuse {
        ticket: Ticket,
    },
    Connect {
        connection: ConnectionId,
        origin: K,
    },
    /// The owner shall look at this time whether it has [expired](Registry::expire), once.
    Arm {
        connection: ConnectionId,
        at: Instant,
    },
    /// The owner shall end.
    Close {
        connection: ConnectionId,
    },
}

/// What has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) connects: u64,
    pub(super) failed_connects: u64,
    pub(super) reuses: u64,
    pub(super) evictions: u64,
    pub(super) expiries: u64,
    pub(super) retired: u64,
}

#[derive(Debug)]
pub(super) struct Registry<K> {
    limits: Limits,
    origins: HashMap<K, OriginState>,
    connections: BTreeMap<ConnectionId, Connection<K>>,
    /// Origins that may need a connect and had no room for it in all, by who is first in line there.
    wanting: BTreeMap<Ticket, K>,
    waiting: HashMap<Ticket, K>,
    /// Idle connections, the one that is so for the longest time first. By numbers, since a clock may say the same
    /// of two.
    idle: BTreeSet<(u64, ConnectionId)>,
    /// Connections that were told to close, and are still there.
    closing: usize,
    is_closed: bool,
    next: u64,
    tally: Tally,
}

#[derive(Debug, Default)]
struct OriginState {
    connections: Vec<ConnectionId>,
    /// Those that have room, by when that is wanted least: the one that is used is the last.
    roomy: BTreeSet<(u64, ConnectionId)>,
    line: BTreeSet<Ticket>,
    /// What it spoke when it was last connected to, or has to speak.
    speaks: Option<Speaks>,
}

#[derive(Debug)]
struct Connection<K> {
    origin: K,
    phase: Phase,
    was_used: bool,
    /// Its request is over, and it is about to be free for the next one, or to end.
    is_settling: bool,
    /// When it became idle, as a number.
    idle_number: u64,
    /// Where it stands among those of its origin that have room.
    roomy_at: Option<u64>,
    /// Its owner was told to look whether it has expired, and has not looked since.
    is_armed: bool,
}

impl<K> Connection<K> {
    /// Returns where it should stand among those that have room: the one that was used last is at the end, so
    /// that those which are not needed can expire.
    fn room(&self) -> Option<u64> {
        match &self.phase {
            Phase::Open(_, streams) if streams.has_room() => {
                let is_idle = streams.idle_since().is_some();
                Some(if is_idle { self.idle_number } else { u64::MAX })
            }
            Phase::Open(..) | Phase::Connecting | Phase::Closing => None,
        }
    }
}

#[derive(Debug)]
enum Phase {
    Connecting,
    Open(Speaks, Streams),
    /// Told to close.
    Closing,
}

impl<K: Clone + Eq + Hash> Registry<K> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            origins: HashMap::new(),
            connections: BTreeMap::new(),
            wanting: BTreeMap::new(),
            waiting: HashMap::new(),
            idle: BTreeSet::new(),
            closing: 0,
            is_closed: false,
            next: 0,
            tally: Tally::default(),
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns how many connections there are: being made, open, or about to be closed.
    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Gives a place on a connection to this origin, if there is one that nobody waits for.
    pub(super) fn take(&mut self, origin: &K) -> Option<Place> {
        let state = self.origins.get_mut(origin)?;
        if self.is_closed || !state.line.is_empty() {
            return None;
        }
        let &(_, id) = state.roomy.last()?;
        Some(self.assign(id))
    }

    /// Returns the connections of HTTP/2 to an origin that somebody waits for: their peers may allow more by now.
    pub(super) fn full(&self, ticket: Ticket) -> Vec<ConnectionId> {
        let origin = self.waiting.get(&ticket);
        let state = origin.and_then(|origin| self.origins.get(origin));
        let ids = state.map_or(&[][..], |state| &state.connections);
        let speaks_http2 = |id: &&ConnectionId| {
            matches!(self.connections[id].phase, Phase::Open(Speaks::Http2, _))
        };
        ids.iter().filter(speaks_http2).copied().collect()
    }

    /// Somebody wants a place on a connection to this origin, of which it may be known what it speaks.
    pub(super) fn ask(&mut self, origin: K, speaks: Option<Speaks>) -> (Ticket, Vec<Effect<K>>) {
        let ticket = self.number();
        let mut effects = Vec::new();
        if self.is_closed {
            effects.push(Effect::Refuse { ticket });
            return (ticket, effects);
        }
        let state = self.origins.entry(origin.clone()).or_default();
        state.speaks = state.speaks.or(speaks);
        state.line.insert(ticket);
        self.waiting.insert(ticket, origin.clone());
        self.settle(&origin, &mut effects);
        (ticket, effects)
    }

    /// Somebody waits no more.
    pub(super) fn leave(&mut self, ticket: Ticket) -> Vec<Effect<K>> {
        let mut effects = Vec::new();
        let Some(origin) = self.waiting.remove(&ticket) else {
            return effects;
        };
        self.remove_from_line(&origin, ticket);
        let state = self.origins.get(&origin).expect("somebody waited there");
        let wanted = self.wanted(state);
        let connecting = self.connecting(state);
        // The newest has come the least far.
        for connection in connecting.into_iter().skip(wanted) {
            self.begin_close(connection, &mut effects);
        }
        self.settle(&origin, &mut effects);
        self.forget_if_empty(&origin);
        effects
    }

    /// A connect has succeeded.
    pub(super) fn connected(
        &mut self,
        id: ConnectionId,
        speaks: Speaks,
        limit: usize,
        now: Instant,
    ) -> Vec<Effect<K>> {
        let mut effects = Vec::new();
        let limit = limit.min(self.limits.streams);
        let Some(connection) = self.connections.get_mut(&id) else {
            return effects;
        };
        if !matches!(connection.phase, Phase::Connecting) {
            // It was told to close meanwhile.
            return effects;
        }
        connection.phase = Phase::Open(speaks, Streams::new(limit, now));
        self.tally.connects += 1;
        let origin = connection.origin.clone();
        if let Some(state) = self.origins.get_mut(&origin) {
            state.speaks = Some(speaks);
        }
        self.note_idle(id);
        self.note_room(id);
        self.settle(&origin, &mut effects);
        self.after_idle(id, now, &mut effects);
        effects
    }

    /// A connect has failed, and its owner is about to end.
    ///
    /// Of an origin that speaks HTTP/1 each connect was for one who waits; else it was for all.
    pub(super) fn not_connected(&mut self, id: ConnectionId) -> Vec<Effect<K>> {
        let mut effects = Vec::new();
        let Some(connection) = self.connections.get(&id) else {
            return effects;
        };
        if !matches!(connection.phase, Phase::Connecting) {
            return effects;
        }
        let origin = connection.origin.clone();
        self.tally.failed_connects += 1;
        self.begin_close(id, &mut Vec::new());
        let state = self.origins.get_mut(&origin).expect("it has a connection");
        let failed: Vec<Ticket> = match state.speaks {
            Some(Speaks::Http1) => state.line.first().copied().into_iter().collect(),
            Some(Speaks::Http2) | None => state.line.iter().copied().collect(),
        };
        for ticket in failed {
            self.waiting.remove(&ticket);
            self.remove_from_line(&origin, ticket);
            effects.push(Effect::Fail { ticket });
        }
        effects
    }

    /// The answer of a request was read, or left: its connection will be free at once, or never. Until then
    /// nobody connects because of it.
    pub(super) fn settles(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_settling = true;
        }
    }

    /// A request has left its connection.
    pub(super) fn ended(
        &mut self,
        id: ConnectionId,
        stream: StreamId,
        fate: Fate,
        now: Instant,
    ) -> Vec<Effect<K>> {
        let mut effects = Vec::new();
        let Some(Connection {
            origin,
            phase: Phase::Open(_, streams),
            is_settling,
            ..
        }) = self.connections.get_mut(&id)
        else {
            return effects;
        };
        let origin = origin.clone();
        *is_settling = false;
        match streams.end(stream, fate, now) {
            Then::Nothing => {}
            Then::Idle => self.note_idle(id),
            Then::Close => {
                self.tally.retired += 1;
                self.begin_close(id, &mut effects);
            }
        }
        self.note_room(id);
        self.settle(&origin, &mut effects);
        self.after_idle(id, now, &mut effects);
        effects
    }

    /// The peer of a connection allows so many streams.
    pub(super) fn set_limit(&mut self, id: ConnectionId, limit: usize) -> Vec<Effect<K>> {
        let mut effects = Vec::new();
        let limit = limit.min(self.limits.streams);
        if let Some(Connection {
            origin,
            phase: Phase::Open(Speaks::Http2, streams),
            ..
        }) = self.connections.get_mut(&id)
        {
            let origin = origin.clone();
            streams.set_limit(limit);
            self.note_room(id);
            self.settle(&origin, &mut effects);
        }
        effects
    }

    /// A connection takes nothing new: its peer has said so, or has gone.
    pub(super) fn retire(&mut self, id: ConnectionId) -> Vec<Effect<K>> {
        let mut effects = Vec::new();
        let Some(connection) = self.connections.get_mut(&id) else {
            return effects;
        };
        let Phase::Open(_, streams) = &mut connection.phase else {
            return effects;
        };
        let origin = connection.origin.clone();
        let then = streams.retire();
        self.idle.remove(&(connection.idle_number, id));
        if then == Then::Close {
            self.tally.retired += 1;
            self.begin_close(id, &mut effects);
        }
        self.note_room(id);
        self.settle(&origin, &mut effects);
        effects
    }

    /// One of the idle connections to an origin was found to be dead: the others have been idle for longer, or were so
    /// while it died, and nothing is given to them any more.
    pub(super) fn retire_idle(&mut self, origin: &K) -> Vec<Effect<K>> {
        let state = self.origins.get(origin);
        let ids = state.map_or(&[][..], |state| &state.connections);
        let is_idle = |id: &&ConnectionId| match &self.connections[id].phase {
            Phase::Open(_, streams) => streams.idle_since().is_some(),
            _ => false,
        };
        let idle: Vec<_> = ids.iter().filter(is_idle).copied().collect();
        idle.into_iter().flat_map(|id| self.retire(id)).collect()
    }

    /// The time has come that an owner was told to look again.
    pub(super) fn expire(&mut self, id: ConnectionId, now: Instant) -> Vec<Effect<K>> {
        let mut effects = Vec::new();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_armed = false;
        }
        self.after_idle(id, now, &mut effects);
        effects
    }

    /// The owner of a connection has ended, and its descriptor is closed.
    pub(super) fn gone(&mut self, id: ConnectionId) -> Vec<Effect<K>> {
        let mut effects = Vec::new();
        self.begin_close(id, &mut Vec::new());
        if let Some(connection) = self.connections.remove(&id) {
            self.closing -= 1;
            if let Some(state) = self.origins.get_mut(&connection.origin) {
                state.connections.retain(|other| *other != id);
            }
            self.settle(&connection.origin, &mut effects);
            self.forget_if_empty(&connection.origin);
        }
        effects
    }

    /// Ends everything.
    pub(super) fn close(&mut self) -> Vec<Effect<K>> {
        self.is_closed = true;
        self.wanting.clear();
        let mut tickets: Vec<Ticket> = self.waiting.drain().map(|(ticket, _)| ticket).collect();
        tickets.sort_unstable();
        for state in self.origins.values_mut() {
            state.line.clear();
        }
        let refused = tickets.into_iter().map(|ticket| Effect::Refuse { ticket });
        let mut effects: Vec<_> = refused.collect();
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.begin_close(id, &mut effects);
        }
        effects
    }

    /// Gives what there is at an origin, of which something has changed, to those who wait there, and has made what is
    /// needed: there, and where there was no room for it before. Of all others nothing is asked: there may be many.
    fn settle(&mut self, origin: &K, effects: &mut Vec<Effect<K>>) {
        if let Some(first) = self.give(origin, effects) {
            self.wanting.entry(first).or_insert_with(|| origin.clone());
        }
        while let Some((first, origin)) = self.wanting.pop_first() {
            if !self.connect(&origin, effects) {
                self.wanting.insert(first, origin);
                return;
            }
        }
    }

    /// Gives places at an origin to those who wait for them, in order. Returns who is first of those that are left.
    fn give(&mut self, origin: &K, effects: &mut Vec<Effect<K>>) -> Option<Ticket> {
        loop {
            let state = self.origins.get(origin)?;
            let &ticket = state.line.first()?;
            let Some(&(_, id)) = state.roomy.last() else {
                return Some(ticket);
            };
            let place = self.assign(id);
            self.waiting.remove(&ticket);
            self.remove_from_line(origin, ticket);
            effects.push(Effect::Give { ticket, place });
        }
    }

    /// Assigns a request to a connection that has room.
    fn assign(&mut self, id: ConnectionId) -> Place {
        let stream = self.number();
        let connection = self.connections.get_mut(&id).expect("it has room");
        let Phase::Open(_, streams) = &mut connection.phase else {
            unreachable!("it has room");
        };
        let is_idle = streams.idle_since().is_some();
        if is_idle {
            self.idle.remove(&(connection.idle_number, id));
        }
        streams.assign(stream);
        let is_reused = std::mem::replace(&mut connection.was_used, true);
        self.tally.reuses += u64::from(is_reused);
        self.note_room(id);
        Place {
            connection: id,
            stream,
            is_reused,
            was_idle: is_reused && is_idle,
        }
    }

    /// A connection is idle from now on.
    fn note_idle(&mut self, id: ConnectionId) {
        let number = self.number();
        let connection = self.connections.get_mut(&id).expect("it is idle");
        connection.idle_number = number;
        self.idle.insert((number, id));
    }

    /// A connection may have room now, or none any more.
    fn note_room(&mut self, id: ConnectionId) {
        let connection = self.connections.get_mut(&id).expect("it is known");
        let room = connection.room();
        let before = std::mem::replace(&mut connection.roomy_at, room);
        if before == room {
            return;
        }
        let state = self.origins.get_mut(&connection.origin);
        let roomy = &mut state.expect("it has a connection").roomy;
        if let Some(before) = before {
            roomy.remove(&(before, id));
        }
        if let Some(room) = room {
            roomy.insert((room, id));
        }
    }

    /// Begins the connects that an origin needs; false if there is no room for them in all.
    fn connect(&mut self, origin: &K, effects: &mut Vec<Effect<K>>) -> bool {
        loop {
            let state = self.origins.get(origin).expect("it is known");
            // The cheap question first: at the limit it is asked for each request that ends.
            if state.connections.len() >= self.limits.per_origin
                || self.connecting(state).len() >= self.wanted(state)
            {
                return true;
            }
            if self.connections.len() >= self.limits.in_all {
                let becomes_free = self.closing > self.connections.len() - self.limits.in_all;
                if becomes_free {
                    return false;
                }
                let Some(&(_, oldest)) = self.idle.first() else {
                    return false;
                };
                self.expire_idle(oldest, effects);
                self.tally.evictions += 1;
                continue;
            }
            let id = self.number();
            let connection = Connection {
                origin: origin.clone(),
                phase: Phase::Connecting,
                was_used: false,
                is_settling: false,
                idle_number: 0,
                roomy_at: None,
                is_armed: false,
            };
            self.connections.insert(id, connection);
            let state = self.origins.get_mut(origin).expect("it is known");
            state.connections.push(id);
            effects.push(Effect::Connect {
                connection: id,
                origin: origin.clone(),
            });
        }
    }

    /// Returns how many connects should be on their way to an origin.
    fn wanted(&self, state: &OriginState) -> usize {
        match state.speaks {
            Some(Speaks::Http1) => {
                let ids = state.connections.iter();
                let settling = ids.filter(|id| {
                    let connection = &self.connections[id];
                    connection.is_settling && matches!(connection.phase, Phase::Open(..))
                });
                state.line.len().saturating_sub(settling.count())
            }
            Some(Speaks::Http2) | None => {
                let is_served = state.connections.iter().any(|id| {
                    let phase = &self.connections[id].phase;
                    matches!(phase, Phase::Open(_, streams) if streams.takes_requests())
                });
                usize::from(!is_served && !state.line.is_empty())
            }
        }
    }

    /// The connects that are on their way to an origin, the oldest first.
    fn connecting(&self, state: &OriginState) -> Vec<ConnectionId> {
        let ids = state.connections.iter().copied();
        ids.filter(|id| matches!(self.connections[id].phase, Phase::Connecting))
            .collect()
    }

    /// What becomes of a connection that may be idle.
    fn after_idle(&mut self, id: ConnectionId, now: Instant, effects: &mut Vec<Effect<K>>) {
        let Some(Connection {
            phase: Phase::Open(_, streams),
            is_armed,
            ..
        }) = self.connections.get_mut(&id)
        else {
            return;
        };
        let Some(since) = streams.idle_since() else {
            return;
        };
        let was_armed = std::mem::replace(is_armed, true);
        while self.idle.len() > self.limits.idle {
            let &(_, oldest) = self.idle.first().expect("there are some");
            self.expire_idle(oldest, effects);
            self.tally.evictions += 1;
            if oldest == id {
                return;
            }
        }
        let Some(timeout) = self.limits.idle_timeout else {
            return;
        };
        let at = since + timeout;
        if at <= now {
            self.expire_idle(id, effects);
            self.tally.expiries += 1;
        } else if !was_armed {
            // One that was armed before looks earlier, and is told then when to look again: a timer for each
            // request would cost more than that.
            effects.push(Effect::Arm { connection: id, at });
        }
    }

    fn expire_idle(&mut self, id: ConnectionId, effects: &mut Vec<Effect<K>>) {
        let connection = self.connections.get_mut(&id).expect("it is idle");
        let Phase::Open(_, streams) = &mut connection.phase else {
            unreachable!("it is idle");
        };
        let expired = streams.expire();
        assert!(expired, "it is idle");
        self.idle.remove(&(connection.idle_number, id));
        self.begin_close(id, effects);
    }

    /// Tells an owner to end, once.
    fn begin_close(&mut self, id: ConnectionId, effects: &mut Vec<Effect<K>>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let phase = std::mem::replace(&mut connection.phase, Phase::Closing);
        self.idle.remove(&(connection.idle_number, id));
        if matches!(phase, Phase::Closing) {
            return;
        }
        self.note_room(id);
        self.closing += 1;
        effects.push(Effect::Close { connection: id });
    }

    fn remove_from_line(&mut self, origin: &K, ticket: Ticket) {
        let state = self.origins.get_mut(origin).expect("somebody waited there");
        let was_first = state.line.first() == Some(&ticket);
        state.line.remove(&ticket);
        if was_first
            && let Some(origin) = self.wanting.remove(&ticket)
            && let Some(&first) = state.line.first()
        {
            self.wanting.insert(first, origin);
        }
    }

    fn forget_if_empty(&mut self, origin: &K) {
        let is_empty = |state: &OriginState| state.connections.is_empty() && state.line.is_empty();
        if self.origins.get(origin).is_some_and(is_empty) {
            self.origins.remove(origin);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::VecDeque;

    use super::*;

    const NOW: Instant = Instant::NEVER;

    fn limits() -> Limits {
        Limits {
            per_origin: 2,
            in_all: 2,
            idle: 2,
            idle_timeout: Some(Duration::ZERO),
            streams: 2,
        }
    }

    /// A pool, and what has come of what it wanted.
    struct World {
        registry: Registry<char>,
        given: BTreeMap<Ticket, (ConnectionId, StreamId)>,
        refused: BTreeSet<Ticket>,
        connecting: VecDeque<ConnectionId>,
        open: Vec<ConnectionId>,
        closing: VecDeque<ConnectionId>,
        speaks: Speaks,
        /// Whoever asks takes what nobody waits for, before he stands in line.
        takes: bool,
    }

    impl World {
        fn new(limits: Limits, speaks: Speaks) -> Self {
            Self {
                registry: Registry::new(limits),
                given: BTreeMap::new(),
                refused: BTreeSet::new(),
                connecting: VecDeque::new(),
                open: Vec::new(),
                closing: VecDeque::new(),
                speaks,
                takes: false,
            }
        }

        fn perform(&mut self, effects: Vec<Effect<char>>) {
            for effect in effects {
                match effect {
                    Effect::Give { ticket, place } => {
                        let (connection, stream) = (place.connection, place.stream);
                        assert!(self.open.contains(&connection), "given what is open");
                        let before = self.given.insert(ticket, (connection, stream));
                        assert!(before.is_none(), "given once");
                    }
                    Effect::Fail { ticket } | Effect::Refuse { ticket } => {
                        assert!(self.refused.insert(ticket), "refused once");
                    }
                    Effect::Connect { connection, .. } => self.connecting.push_back(connection),
                    Effect::Arm { .. } => {}
                    Effect::Close { connection } => {
                        let is_used = self.given.values().any(|(used, _)| *used == connection);
                        assert!(
                            !is_used || self.registry.is_closed(),
                            "closed under a request"
                        );
                        self.connecting.retain(|other| *other != connection);
                        self.open.retain(|other| *other != connection);
                        assert!(!self.closing.contains(&connection), "closed once");
                        self.closing.push_back(connection);
                    }
                }
            }
            let limit = self.registry.limits.in_all;
            assert!(self.registry.connections() <= limit, "the limit is kept");
            self.check_room();
            self.check_connects();
        }

        /// Those that have room are known as such, and nobody waits for what is there.
        fn check_room(&self) {
            for (origin, state) in &self.registry.origins {
                let connections = &self.registry.connections;
                let ids = state.connections.iter();
                let room = ids.filter_map(|id| Some((connections[id].room()?, *id)));
                let room: BTreeSet<_> = room.collect();
                assert_eq!(state.roomy, room, "{origin}");
                assert!(room.is_empty() || state.line.is_empty(), "{origin}");
            }
        }

        /// Who needs a connect that there is room for has it.
        fn check_connects(&self) {
            let registry = &self.registry;
            let (there, most) = (registry.connections(), registry.limits.in_all);
            let has_room = there < most || there - most >= registry.closing && registry.idle() > 0;
            for (origin, state) in &registry.origins {
                let needs = state.connections.len() < registry.limits.per_origin
                    && registry.connecting(state).len() < registry.wanted(state);
                assert!(!(needs && has_room), "{origin}");
            }
        }

        fn ask(&mut self, origin: char) -> Ticket {
            let place = self.takes.then(|| self.registry.take(&origin)).flatten();
            if let Some(place) = place {
                let (connection, stream) = (place.connection, place.stream);
                assert!(self.open.contains(&connection), "taken what is open");
                // Numbers of both kinds are given once.
                self.given.insert(stream, (connection, stream));
                self.check_room();
                return stream;
            }
            let speaks = (self.speaks == Speaks::Http1).then_some(Speaks::Http1);
            let (ticket, effects) = self.registry.ask(origin, speaks);
            self.perform(effects);
            ticket
        }

        fn connected(&mut self) {
            if let Some(id) = self.connecting.pop_front() {
                self.open.push(id);
                let limit = if self.speaks == Speaks::Http1 { 1 } else { 2 };
                let effects = self.registry.connected(id, self.speaks, limit, NOW);
                self.perform(effects);
            }
        }

        fn not_connected(&mut self) {
            if let Some(id) = self.connecting.pop_front() {
                let effects = self.registry.not_connected(id);
                self.perform(effects);
                self.closing.push_back(id);
            }
        }

        fn end_first(&mut self, fate: Fate) {
            if let Some((_, (connection, stream))) = self.given.pop_first() {
                let effects = self.registry.ended(connection, stream, fate, NOW);
                self.perform(effects);
            }
        }

        fn gone(&mut self) {
            if let Some(id) = self.closing.pop_front() {
                let effects = self.registry.gone(id);
                self.perform(effects);
            }
        }

        /// Lets everything come to its end: whoever asked must have got something.
        fn settle(mut self, asked: usize, left: usize) {
            let mut served = 0;
            for _ in 0..50 {
                if self.connecting.is_empty() && self.given.is_empty() && self.closing.is_empty() {
                    break;
                }
                self.connected();
                served += usize::from(!self.given.is_empty());
                self.end_first(Fate::Reusable);
                self.gone();
            }
            assert_eq!(self.registry.waiting(), 0, "nobody waits for ever");
            assert!(self.given.is_empty() && served + self.refused.len() + left <= asked);
            while let Some(id) = self.open.first().copied() {
                let effects = self.registry.retire(id);
                self.perform(effects);
                self.gone();
            }
            assert_eq!(self.registry.connections(), 0, "nothing is left");
            assert_eq!((self.registry.closing, self.registry.idle()), (0, 0));
            assert!(self.registry.origins.is_empty() && self.registry.wanting.is_empty());
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Event {
        Ask(char),
        LeaveNewest,
        Connected,
        NotConnected,
        End(Fate),
        Gone,
        Limit(usize),
        Retire,
        RetireIdle(char),
        Close,
    }

    fn run(order: &[Event], speaks: Speaks, idle_timeout: Option<Duration>, takes: bool) {
        let limits = Limits {
            idle_timeout,
            ..limits()
        };
        let mut world = World::new(limits, speaks);
        world.takes = takes;
        let (mut asked, mut left, mut newest) = (0, 0, None);
        for event in order {
            match *event {
                Event::Ask(origin) => {
                    newest = Some(world.ask(origin));
                    asked += 1;
                }
                Event::LeaveNewest => {
                    if let Some(ticket) = newest.take()
                        && world.registry.waiting.contains_key(&ticket)
                    {
                        let effects = world.registry.leave(ticket);
                        world.perform(effects);
                        left += 1;
                    }
                }
                Event::Connected => world.connected(),
                Event::NotConnected => world.not_connected(),
                Event::End(fate) => world.end_first(fate),
                Event::Gone => world.gone(),
                Event::Limit(limit) => {
                    if let Some(&id) = world.open.first() {
                        let effects = world.registry.set_limit(id, limit);
                        world.perform(effects);
                    }
                }
                Event::Retire => {
                    if let Some(&id) = world.open.first() {
                        let effects = world.registry.retire(id);
                        world.perform(effects);
                    }
                }
                Event::RetireIdle(origin) => {
                    let effects = world.registry.retire_idle(&origin);
                    world.perform(effects);
                }
                Event::Close => {
                    let effects = world.registry.close();
                    world.given.clear();
                    world.perform(effects);
                }
            }
        }
        // A limit of none would keep those who wait where they are.
        if let Some(&id) = world.open.first() {
            let effects = world.registry.set_limit(id, 2);
            world.perform(effects);
        }
        world.settle(asked, left);
    }

    /// Every order of these events, and every beginning of each.
    fn for_every_order(events: &[Event], check: &impl Fn(&[Event])) {
        fn go(left: &mut Vec<Event>, order: &mut Vec<Event>, check: &impl Fn(&[Event])) {
            check(order);
            for place in 0..left.len() {
                // Of equal ones the first stands for all.
                if left[..place].contains(&left[place]) {
                    continue;
                }
                let event = left.remove(place);
                order.push(event);
                go(left, order, check);
                order.pop();
                left.insert(place, event);
            }
        }
        go(&mut events.to_vec(), &mut Vec::new(), check);
    }

    /// Requests to two origins that come, leave and end while connections come, fail and go, in all orders:
    /// nothing is closed under a request, no limit is passed, nobody is forgotten, nothing is left.
    #[test]
    fn p043_no_order_of_events_closes_a_connection_under_a_request() {
        use Event::{Ask, Close, Connected, End, Gone, LeaveNewest, Limit, NotConnected};
        use Event::{Retire, RetireIdle};
        let sets: [&[Event]; 5] = [
            &[
                Ask('a'),
                Ask('a'),
                Ask('b'),
                Connected,
                Connected,
                End(Fate::Reusable),
                End(Fate::Unfit),
            ],
            &[
                Ask('a'),
                Ask('b'),
                Ask('b'),
                LeaveNewest,
                Connected,
                NotConnected,
                End(Fate::Reusable),
                Gone,
            ],
            &[
                Ask('a'),
                Ask('a'),
                Ask('a'),
                Connected,
                Limit(1),
                Retire,
                End(Fate::Reusable),
            ],
            &[
                Ask('a'),
                Ask('a'),
                Ask('b'),
                Connected,
                Connected,
                End(Fate::Reusable),
                RetireIdle('a'),
                Gone,
            ],
            &[
                Ask('a'),
                Ask('b'),
                Connected,
                Connected,
                End(Fate::Reusable),
                Close,
                LeaveNewest,
                Gone,
            ],
        ];
        let orders = Cell::new(0);
        for set in sets {
            for speaks in [Speaks::Http1, Speaks::Http2] {
                for (idle_timeout, takes) in [(None, true), (Some(Duration::ZERO), false)] {
                    for_every_order(set, &|order| {
                        orders.set(orders.get() + 1);
                        run(order, speaks, idle_timeout, takes);
                    });
                }
            }
        }
        assert!(orders.get() > 200_000, "{}", orders.get());
    }

    #[test]
    fn a_connect_that_nobody_waits_for_is_given_up() {
        let mut world = World::new(limits(), Speaks::Http1);
        let (first, second) = (world.ask('a'), world.ask('a'));
        assert_eq!(world.connecting.len(), 2);
        let effects = world.registry.leave(first);
        world.perform(effects);
        assert_eq!((world.connecting.len(), world.closing.len()), (1, 1));
        world.connected();
        assert!(
            world.given.contains_key(&second),
            "it was for whoever waits"
        );
    }

    /// A connection that is used over and over has one timer, not one for each request; and it expires when its
    /// time after the last one is over, neither before nor later.
    #[test]
    fn an_owner_is_told_once_when_to_look_and_again_when_it_has_looked() {
        let timeout = Duration::from_secs(60);
        let limits = Limits {
            idle_timeout: Some(timeout),
            ..limits()
        };
        let start = NOW - Duration::from_secs(1 << 20);
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut registry = Registry::new(limits);
        let (_, effects) = registry.ask('a', Some(Speaks::Http1));
        let [Effect::Connect { connection: id, .. }] = effects[..] else {
            unreachable!("it connects: {effects:?}");
        };
        let mut given = registry.connected(id, Speaks::Http1, 1, at(0));
        let Some(Effect::Give { place, .. }) = given.pop() else {
            unreachable!("it is for the one who waits");
        };
        let arm = |seconds| {
            [Effect::Arm {
                connection: id,
                at: at(seconds),
            }]
        };
        let ended = registry.ended(id, place.stream, Fate::Reusable, at(1));
        assert_eq!(ended, arm(61));
        let place = registry.take(&'a').expect("it is idle");
        assert!(registry.take(&'a').is_none(), "it is in use");
        let ended = registry.ended(id, place.stream, Fate::Reusable, at(2));
        assert_eq!(ended, [], "it will look, and early enough");
        assert_eq!(registry.expire(id, at(61)), arm(62));
        let place = registry.take(&'a').expect("it has not expired");
        assert_eq!(registry.expire(id, at(62)), [], "it is not idle");
        let ended = registry.ended(id, place.stream, Fate::Reusable, at(70));
        assert_eq!(ended, arm(130));
        let close = [Effect::Close { connection: id }];
        assert_eq!(registry.expire(id, at(130)), close);
    }

    #[test]
    fn who_waits_longest_is_served_first() {
        let limits = Limits {
            in_all: 1,
            ..limits()
        };
        let mut world = World::new(limits, Speaks::Http1);
        let tickets: Vec<_> = "aba".chars().map(|origin| world.ask(origin)).collect();
        let mut order = Vec::new();
        for _ in 0..10 {
            world.connected();
            order.extend(world.given.keys().copied());
            world.end_first(Fate::Unfit);
            world.gone();
        }
        assert_eq!(order, tickets);
    }

    /// An origin that says how often it was looked up or copied.
    #[derive(Debug, PartialEq, Eq)]
    struct Counted<'a>(u32, &'a Cell<u32>);

    impl Clone for Counted<'_> {
        fn clone(&self) -> Self {
            self.1.set(self.1.get() + 1);
            Self(self.0, self.1)
        }
    }

    impl Hash for Counted<'_> {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.1.set(self.1.get() + 1);
            self.0.hash(state);
        }
    }

    /// All connections are in use, and so many other origins wait for one. Returns what requests cost that end and
    /// begin at one that has a connection.
    fn touched_beside(waiting: u32) -> u32 {
        let touched = Cell::new(0);
        let mut registry = Registry::new(Limits {
            in_all: 1,
            idle_timeout: None,
            ..limits()
        });
        let busy = || Counted(0, &touched);
        registry.ask(busy(), Some(Speaks::Http2));
        let connection = *registry.connections.keys().next().expect("it connects");
        let effects = registry.connected(connection, Speaks::Http2, 2, NOW);
        let [Effect::Give { place, .. }] = effects[..] else {
            panic!("{effects:?}");
        };
        let mut streams = VecDeque::from([place.stream]);
        let others = (1..=waiting).map(|number| Counted(number, &touched));
        for other in others {
            let (_, effects) = registry.ask(other, None);
            assert!(effects.is_empty(), "there is no room");
        }
        touched.set(0);
        for _ in 0..100 {
            let next = registry.take(&busy()).expect("there is room for two");
            streams.push_back(next.stream);
            let ends = streams.pop_front().expect("there are two");
            let effects = registry.ended(connection, ends, Fate::Reusable, NOW);
            assert!(effects.is_empty(), "another one is under way");
        }
        touched.get()
    }

    #[test]
    fn a_request_costs_the_same_however_many_other_origins_wait() {
        assert_eq!(touched_beside(10), touched_beside(1_000));
    }
}
