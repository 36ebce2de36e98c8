//! One wait, as both of its sides see it.
//!
//! ```text
//!              hand over: whoever has something, on any thread
//!   Waiting ───────────────────────────────────────────────────► Handed
//!      │
//!      └─────── give up: the core of the wait ─────────────────► GivenUp
//! ```
//!
//! Whoever changes the word first has decided it: a wait that was handed something returns that,
//! though it is cancelled a moment later; one that was given up is skipped by whoever hands out.
//! Giving up takes no lock, so a core that delivers cancels waits for nobody.
//!
//! Invariants:
//! - The word changes once.
//! - Whoever else changes it wakes the owner, which sees the change or is woken, whatever waker it had
//!   left in between.
//! - The waker lies under a lock that one of two threads may take: the owner's, and that of whoever
//!   handed something over. Where the wait was given up, there is no other.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering};
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;

use super::lock::Lock;
use crate::panics::contained;

/// How a wait stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Handed,
    GivenUp,
}

const WAITING: u8 = 0;
const HANDED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// What the two sides of a wait share.
#[derive(Debug)]
pub(super) struct Seat {
    word: AtomicU8,
    /// Taken by whoever wakes.
    waker: Lock<Option<Waker>>,
}

impl Seat {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            word: AtomicU8::new(WAITING),
            waker: Lock::new(Some(waker)),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        // Acquire: pairs with the Release in `decide`.
        match self.word.load(Ordering::Acquire) {
            WAITING => Standing::Waiting,
            HANDED => Standing::Handed,
            _ => Standing::GivenUp,
        }
    }

    /// Returns whether it waited, and was handed something now. The caller says what under the lock
    /// of the line, and wakes when it has let go of that.
    pub(super) fn hand_over(&self) -> bool {
        self.decide(HANDED)
    }

    /// Returns whether it waited, and was given up now.
    pub(super) fn give_up(&self) -> bool {
        self.decide(GIVEN_UP)
    }

    /// Ends the wait: gives it up unless it was handed something. Returns how it stands for ever.
    pub(super) fn end(&self) -> Standing {
        if self.standing() == Standing::Waiting {
            self.give_up();
        }
        self.standing()
    }

    /// Wakes the owner, once. A panic of its waker is nobody's.
    pub(super) fn wake(&self) {
        wake(self.take_waker());
    }

    /// The same, by somebody who is done with the seat before the owner comes for it.
    pub(super) fn wake_last(seat: Arc<Self>) {
        let waker = seat.take_waker();
        drop(seat);
        wake(waker);
    }

    fn take_waker(&self) -> Option<Waker> {
        self.waker.lock().take()
    }

    /// Leaves a waker in the place of the one before. The owner looks at the word after that: whoever
    /// changes it later finds this waker.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let known = self.waker.lock();
        // Gone: it was woken, and there is nothing more to wake it for.
        if known.as_ref().is_none_or(|known| known.will_wake(waker)) {
            return;
        }
        drop(known);
        let waker = waker.clone();
        let mut known = self.waker.lock();
        // Only the owner leaves wakers. If this was taken meanwhile, the word has changed.
        let stale = if known.is_some() {
            known.replace(waker)
        } else {
            Some(waker)
        };
        drop(known);
        drop(stale);
    }

    fn decide(&self, word: u8) -> bool {
        // Release: what was done before is seen by whoever sees the new word.
        self.word
            .compare_exchange(WAITING, word, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        contained(|| waker.wake());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::testing::Bell;
    use super::*;
    use loom::sync::Arc;

    /// One hands over and one gives up while the owner leaves another waker: one of the two comes
    /// first, and the owner sees it or its last waker is woken.
    #[test]
    fn loom_one_side_wins_and_the_owner_hears_of_it() {
        loom::model(|| {
            let (old, new) = (Bell::new(), Bell::new());
            let seat = Arc::new(Seat::new(old.waker()));
            let sides: Vec<_> = [Seat::hand_over, Seat::give_up]
                .into_iter()
                .map(|change| {
                    let seat = seat.clone();
                    loom::thread::spawn(move || {
                        let won = change(&seat);
                        if won {
                            seat.wake();
                        }
                        won
                    })
                })
                .collect();
            seat.set_waker(&new.waker());
            let seen = seat.standing();
            let won: Vec<bool> = sides.into_iter().map(|side| side.join().unwrap()).collect();
            assert!(won[0] != won[1], "one of the two");
            let last = seat.standing();
            assert_eq!(last == Standing::Handed, won[0]);
            if seen == Standing::Waiting {
                assert!(new.has_rung(), "the owner sleeps on");
            } else {
                assert_eq!(seen, last);
            }
        });
    }
}
