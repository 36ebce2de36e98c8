//! Who waits, in the order of arrival, with something of each.
//!
//! A line lies in a state under a [`Lock`]. Whoever changes that state hands out what has become free
//! before it lets go of the lock ([`change`]), and wakes afterwards; so between two holders of the
//! lock nothing is free that somebody waits for.
//!
//! Invariants:
//! - An entry stays until its owner takes it out; nobody else drops what it holds.
//! - Nobody before the cursor is waiting: each entry is looked at once, and chosen or skipped.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lock::Lock;
use super::seat::{Seat, Standing};
use crate::core_state::Core;
use crate::task::current;

/// The waits in their order, each with a `D` that the two sides pass to each other.
#[derive(Debug)]
pub(super) struct Line<D> {
    /// By number of arrival.
    entries: BTreeMap<u64, Entry<D>>,
    next: u64,
    /// Where the first who waits is looked for.
    cursor: u64,
}

#[derive(Debug)]
struct Entry<D> {
    seat: Arc<Seat>,
    data: D,
}

impl<D> Line<D> {
    pub(super) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            next: 0,
            cursor: 0,
        }
    }

    /// Adds a wait at the end; returns its number.
    pub(super) fn push(&mut self, seat: &Arc<Seat>, data: D) -> u64 {
        let number = self.next;
        self.next += 1;
        let seat = Arc::clone(seat);
        self.entries.insert(number, Entry { seat, data });
        number
    }

    /// Hands over to the first who waits and has not given up: returns what it holds, and whom to
    /// wake.
    pub(super) fn choose(&mut self) -> Option<(&mut D, Arc<Seat>)> {
        let entries = self.entries.range_mut(self.cursor..);
        self.cursor = self.next;
        for (&number, entry) in entries {
            if entry.seat.hand_over() {
                self.cursor = number + 1;
                return Some((&mut entry.data, Arc::clone(&entry.seat)));
            }
        }
        None
    }

    /// Takes out a wait that has ended, by its owner. The seat comes along, to be dropped when the
    /// lock has been let go of.
    pub(super) fn remove(&mut self, number: u64) -> Option<(D, Arc<Seat>)> {
        let entry = self.entries.remove(&number)?;
        Some((entry.data, entry.seat))
    }

    /// Returns how many wait. Counts them, one by one.
    pub(super) fn waiting(&self) -> usize {
        self.entries
            .range(self.cursor..)
            .filter(|(_, entry)| entry.seat.standing() == Standing::Waiting)
            .count()
    }
}

/// A state that has something for those who wait.
pub(super) trait HandsOut {
    /// Hands one thing that is free to one who waits for it; returns whom to wake.
    fn hand_out(&mut self) -> Option<Arc<Seat>>;
}

/// Those who are to be woken when the lock has been let go of.
#[derive(Default)]
pub(super) struct Chosen {
    seats: [Option<Arc<Seat>>; AT_ONCE],
    count: usize,
}

/// So many are chosen before the lock is let go of. More than one change gives rise to, but for the
/// end of a channel, which comes to all who wait there.
const AT_ONCE: usize = 16;

impl Chosen {
    pub(super) fn add(&mut self, seat: Arc<Seat>) {
        self.seats[self.count] = Some(seat);
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count == AT_ONCE
    }

    fn wake(&mut self) {
        for seat in self.seats.iter_mut().take(self.count) {
            if let Some(seat) = seat.take() {
                seat.wake();
            }
        }
        self.count = 0;
    }
}

/// Changes a state, hands out what that has made free, and wakes.
///
/// What `change` returns is dropped by the caller, outside the lock.
pub(super) fn change<S: HandsOut, R>(
    lock: &Lock<S>,
    change: impl FnOnce(&mut S, &mut Chosen) -> R,
) -> R {
    see_cancels();
    let mut chosen = Chosen::default();
    let mut state = lock.lock();
    let result = change(&mut state, &mut chosen);
    loop {
        while !chosen.is_full()
            && let Some(seat) = state.hand_out()
        {
            chosen.add(seat);
        }
        let more = chosen.is_full();
        drop(state);
        chosen.wake();
        if !more {
            return result;
        }
        state = lock.lock();
    }
}

/// Sees the cancels that were asked for on this core so far: who was cancelled before is not handed
/// anything.
fn see_cancels() {
    current::try_with(Core::see_remote_cancels);
}
