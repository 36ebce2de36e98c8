//! One wait, as both of its sides see it.
//!
//! ```text
//!              hand over: whoever has something, under the lock of the line
//!   waiting ─────────────────────────────────────────────────────────────► handed
//!      │
//!      └─────── give up: the core of the wait, without a lock ───────────► given up
//! ```
//!
//! Whether a wait was handed something stands in its line, and whether it was given up in its seat, which is its core's.
//! Whoever hands over looks at the seat first. So a wait that was given up, as far as he can know, is skipped; if both
//! happen at once, it was handed something first, and returns that though it is cancelled. Giving up takes no lock, so a
//! core that delivers cancels waits for nobody.
//!
//! A seat serves many waits, one at a time. Only a wait that is given up changes it; so whoever hands over to the same
//! core again and again has its cache line already.
//!
//! Invariants:
//! - A wait is given up by its own core alone, before its owner takes it out of its line.
//! - Of a seat's waits one at a time stands in a line, unless its owner was leaked with it.

use std::sync::Arc;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};

/// Which of its waits was given up last. Apart from its count, which its owner changes with each wait.
#[derive(Debug)]
#[repr(align(64))]
struct Seat {
    given_up: AtomicU32,
}

/// A wait on a seat, by its number.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    seat: Arc<Seat>,
    number: u32,
}

impl Wait {
    /// The first one of a new seat.
    pub(super) fn new() -> Self {
        let seat = Seat {
            given_up: AtomicU32::new(0),
        };
        Self {
            seat: Arc::new(seat),
            number: 1,
        }
    }

    /// The one that comes after this, which has ended.
    pub(super) fn next(self) -> Self {
        match self.number.checked_add(1) {
            Some(number) => Self { number, ..self },
            None => Self::new(),
        }
    }

    /// Gives it up: whoever hands out from now on skips it.
    pub(super) fn give_up(&self) {
        // Release: whoever sees it given up sees what led to that.
        self.seat.given_up.store(self.number, Ordering::Release);
    }

    /// Returns whether it was given up. Who asks holds the lock of the line.
    #[inline]
    pub(super) fn was_given_up(&self) -> bool {
        self.seat.given_up.load(Ordering::Acquire) == self.number
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_seat_tells_its_waits_from_each_other() {
        let first = Wait::new();
        let in_line = first.clone();
        first.give_up();
        assert!(in_line.was_given_up());
        let second = first.next();
        assert!(!second.was_given_up() && in_line.was_given_up());
        let last = Wait {
            number: u32::MAX,
            ..second
        };
        last.give_up();
        let next = last.clone().next();
        assert!(!Arc::ptr_eq(&next.seat, &last.seat) && !next.was_given_up());
    }
}
