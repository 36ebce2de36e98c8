//! The requests on one connection, and what the connection is: one state, which moves together with them.
//!
//! ```text
//!              assign                      end (the last)
//!     Idle ───────────────► Active ───────────────────────► Idle
//!      │                      │  end (the last, unfit) ───► Retired
//!      │ expire, evict        │ retire
//!      ▼                      ▼           end (the last)
//!   Expired                Retired ────────────────────────► (closed)
//! ```
//!
//! Invariants:
//! - A connection is active exactly while a request is assigned to it or a retired one has some left. A
//!   request that was assigned counts from that moment, before anything of it was sent.
//! - Only an idle connection expires or is evicted, and nothing is assigned to one that has.
//! - It is told to close once.
//!
//! No clock, no await, no connection here: what happens is told, and what shall happen is returned.

use std::collections::BTreeSet;

use quoit::time::Instant;

/// One request on a connection.
pub(super) type StreamId = u64;

/// What a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No request is on it, since then.
    Idle { since: Instant },
    /// Requests are on it.
    Active,
    /// It was idle for too long, or its room was wanted.
    Expired,
    /// It takes nothing new, and closes after the last that is on it.
    Retired,
}

/// How a request left its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// As the protocol wants it: the next can come.
    Reusable,
    /// In the middle: nobody can tell where the next would begin.
    Unfit,
}

/// What is to be done after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Then {
    Nothing,
    /// It is idle: it may be used, or expire.
    Idle,
    Close,
}

/// The state of one connection, and its requests.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    state: State,
    open: BTreeSet<StreamId>,
    limit: usize,
}

impl Streams {
    /// A new connection, for so many requests at a time.
    pub(super) fn new(limit: usize, now: Instant) -> Self {
        Self {
            state: State::Idle { since: now },
            open: BTreeSet::new(),
            limit,
        }
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Returns how many requests are on it.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Returns whether a request can be assigned to it.
    pub(super) fn has_room(&self) -> bool {
        self.takes_requests() && self.open.len() < self.limit
    }

    /// Returns whether it takes requests, now or when others have ended.
    pub(super) fn takes_requests(&self) -> bool {
        matches!(self.state, State::Idle { .. } | State::Active)
    }

    /// Returns since when it is idle.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.state {
            State::Idle { since } => Some(since),
            State::Active | State::Expired | State::Retired => None,
        }
    }

    /// Assigns a request; it has to [have room](Self::has_room).
    pub(super) fn assign(&mut self, stream: StreamId) {
        assert!(self.has_room(), "a request is assigned where there is room");
        self.state = State::Active;
        let is_new = self.open.insert(stream);
        assert!(is_new, "a request is assigned once");
    }

    /// A request has left.
    pub(super) fn end(&mut self, stream: StreamId, fate: Fate, now: Instant) -> Then {
        if !self.open.remove(&stream) {
            return Then::Nothing;
        }
        if fate == Fate::Unfit {
            self.state = State::Retired;
        }
        match self.state {
            _ if !self.open.is_empty() => Then::Nothing,
            State::Active => {
                self.state = State::Idle { since: now };
                Then::Idle
            }
            State::Retired => Then::Close,
            State::Idle { .. } | State::Expired => unreachable!("it had a request"),
        }
    }

    /// The peer allows so many requests at a time from now on. Those that are there may go on.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// It takes nothing new any more.
    pub(super) fn retire(&mut self) -> Then {
        match self.state {
            State::Idle { .. } => {
                self.state = State::Retired;
                Then::Close
            }
            State::Active => {
                self.state = State::Retired;
                Then::Nothing
            }
            State::Expired | State::Retired => Then::Nothing,
        }
    }

    /// Its time as an idle one is over, or its room is wanted; false if it is not idle.
    pub(super) fn expire(&mut self) -> bool {
        let is_idle = self.idle_since().is_some();
        if is_idle {
            self.state = State::Expired;
        }
        is_idle
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Assign(StreamId),
        End(StreamId, Fate),
        Expire,
        Retire,
        Limit(usize),
    }

    /// What a connection has to be, told from what happened to it and nothing else.
    #[derive(Debug, Default)]
    struct Expected {
        open: BTreeSet<StreamId>,
        closed: usize,
        takes_nothing: bool,
        limit: usize,
    }

    /// Every order of these events, of any number of them.
    fn for_every_order(events: &[Event], check: &mut impl FnMut(&[Event])) {
        fn go(left: &mut Vec<Event>, order: &mut Vec<Event>, check: &mut impl FnMut(&[Event])) {
            check(order);
            for place in 0..left.len() {
                let event = left.remove(place);
                order.push(event);
                go(left, order, check);
                order.pop();
                left.insert(place, event);
            }
        }
        go(&mut events.to_vec(), &mut Vec::new(), check);
    }

    fn start() -> Instant {
        Instant::NEVER
    }

    fn run(order: &[Event]) {
        let mut streams = Streams::new(2, start());
        let mut expected = Expected {
            limit: 2,
            ..Expected::default()
        };
        for &event in order {
            let before = streams.state();
            let then = match event {
                Event::Assign(stream) => {
                    let may = !expected.takes_nothing && expected.open.len() < expected.limit;
                    assert_eq!(streams.has_room(), may, "{order:?}");
                    if may {
                        streams.assign(stream);
                        expected.open.insert(stream);
                    }
                    Then::Nothing
                }
                Event::End(stream, fate) => {
                    let was_there = expected.open.remove(&stream);
                    expected.takes_nothing |= was_there && fate == Fate::Unfit;
                    streams.end(stream, fate, start())
                }
                Event::Expire => {
                    let expired = streams.expire();
                    let idle = expected.open.is_empty() && !expected.takes_nothing;
                    assert_eq!(expired, idle, "only an idle one expires: {order:?}");
                    expected.takes_nothing |= expired;
                    if expired { Then::Close } else { Then::Nothing }
                }
                Event::Retire => {
                    expected.takes_nothing = true;
                    streams.retire()
                }
                Event::Limit(limit) => {
                    expected.limit = limit;
                    streams.set_limit(limit);
                    Then::Nothing
                }
            };
            expected.closed += usize::from(then == Then::Close);
            assert_eq!(streams.open(), expected.open.len(), "{order:?}");
            assert_eq!(
                streams.idle_since().is_some(),
                expected.open.is_empty() && !expected.takes_nothing,
                "idle exactly when it has none and takes some, from {before:?}: {order:?}"
            );
            assert!(expected.closed <= 1, "closed once: {order:?}");
            assert_eq!(
                expected.closed == 1,
                expected.open.is_empty() && expected.takes_nothing,
                "closed when, and not before, the last has left: {order:?}"
            );
        }
    }

    /// All orders of two requests that come and go while the connection's time runs out, the peer retires
    /// it, and the limit moves: 8 events, and every beginning of each order.
    #[test]
    fn p043_an_active_connection_never_closes_under_a_request_in_any_order() {
        use Event::{Assign, End, Expire, Limit, Retire};
        use Fate::{Reusable, Unfit};
        let mut orders = 0;
        for first in [Reusable, Unfit] {
            let events = [
                Assign(1),
                End(1, first),
                Assign(2),
                End(2, Reusable),
                Expire,
                Retire,
                Limit(1),
                Expire,
            ];
            for_every_order(&events, &mut |order| {
                orders += 1;
                run(order);
            });
        }
        assert_eq!(orders, 2 * 109_601);
    }

    /// The last request ends and a new one is assigned, in either order: it is active after both.
    #[test]
    fn p043_the_last_end_and_a_new_assignment_leave_it_active() {
        for end_first in [true, false] {
            let mut streams = Streams::new(2, start());
            streams.assign(1);
            if end_first {
                assert_eq!(streams.end(1, Fate::Reusable, start()), Then::Idle);
                streams.assign(2);
            } else {
                streams.assign(2);
                assert_eq!(streams.end(1, Fate::Reusable, start()), Then::Nothing);
            }
            assert_eq!(streams.state(), State::Active, "end first: {end_first}");
            assert!(!streams.expire(), "end first: {end_first}");
        }
    }

    #[test]
    fn idle_counts_from_the_last_end() {
        let mut streams = Streams::new(1, start());
        streams.assign(1);
        let later = start() + Duration::from_secs(1);
        assert_eq!(streams.end(1, Fate::Reusable, later), Then::Idle);
        assert_eq!(streams.idle_since(), Some(later));
        // A second end of the same request is none.
        assert_eq!(streams.end(1, Fate::Unfit, later), Then::Nothing);
        assert!(streams.has_room());
    }
}
