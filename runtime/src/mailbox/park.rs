//! Parking without a lost wake-up.
//!
//! ```text
//!   owner                                  sender
//!   publish "parked"                       put the message in
//!   fence (SeqCst)                         fence (SeqCst)
//!   look into the inbox once more          is it parked? ──► take "parked" away, wake it
//!   empty? ──► enter the kernel
//! ```
//!
//! Of the two fences one comes first. Either the sender then sees "parked", or the owner sees the
//! message: never neither. Only one sender takes "parked" away, so a parked core is woken by one
//! system call, however many messages arrive; a running core by none.
//!
//! The word has room for a few wakes. Whoever leaves one there changes one word, alone on its cache lines, and learns
//! by the same exchange whether the core is parked: there is no order to be kept, and no fence.
//!
//! Invariants:
//! - A task stands in the word at most once.
//! - Of a wake that is left and a take of the owner one comes first.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::task::waker::MAX_TASKS;

/// Whether a core is parked, or about to; and the first of the wakes that it has not seen.
///
/// Bits: 63 whether it is parked; below, a place per wake, 0 or one more than the task's slot.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ParkWord(AtomicU64);

const PARKED: u64 = 1 << 63;
const PLACES: u32 = 2;
const PLACE_BITS: u32 = 25;
const PLACE: u64 = (1 << PLACE_BITS) - 1;

const _: () = assert!((MAX_TASKS as u64) < PLACE && PLACES * PLACE_BITS < 63);

/// What became of a wake that was to be left in the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// It is there; and whether the caller must wake the owner.
    Left { must_wake: bool },
    /// Others have the places: it has to be left elsewhere.
    NoRoom,
}

impl ParkWord {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Publishes that the owner is about to park. It then looks into its inbox once more.
    pub(crate) fn publish(&self) {
        self.0.fetch_or(PARKED, Ordering::Relaxed);
        // Pairs with the fence in `must_wake`.
        fence(Ordering::SeqCst);
    }

    /// Takes the word back: the owner runs. False if a sender has done so already.
    pub(crate) fn withdraw(&self) -> bool {
        self.take_parked(Ordering::Relaxed)
    }

    /// Says again that the owner is parked: the caller was to wake it, and could not.
    ///
    /// Should the owner have woken meanwhile, somebody wakes it for nothing, once.
    pub(crate) fn restore(&self) {
        self.0.fetch_or(PARKED, Ordering::AcqRel);
        // Pairs with the fence in `must_wake`: who puts a message in after this sees it.
        fence(Ordering::SeqCst);
    }

    /// Returns whether the caller, who has put a message in, must wake the owner.
    pub(crate) fn must_wake(&self) -> bool {
        // Pairs with the fence in `publish`.
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) & PARKED != 0 && self.take_parked(Ordering::AcqRel)
    }

    fn take_parked(&self, order: Ordering) -> bool {
        self.0.fetch_and(!PARKED, order) & PARKED != 0
    }

    /// Leaves a wake for a task of this slot.
    pub(crate) fn leave_wake(&self, slot: u32) -> Wake {
        // Guessed, not read: a core that is busy has taken what was there, and reading first would fetch the word twice.
        let mut seen = 0;
        loop {
            let Some(with) = with_wake(seen & !PARKED, slot) else {
                return Wake::NoRoom;
            };
            // Also where it stands there already. AcqRel: pairs with the Acquire in `take_wakes`, by way of whoever
            // leaves one in between.
            match self
                .0
                .compare_exchange_weak(seen, with, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => {
                    let must_wake = seen & PARKED != 0;
                    return Wake::Left { must_wake };
                }
                Err(now) => seen = now,
            }
        }
    }

    pub(crate) fn has_wakes(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !PARKED != 0
    }

    /// Takes the wakes, oldest first, as slots. Owner only.
    pub(crate) fn take_wakes(&self) -> impl Iterator<Item = u32> {
        // Acquire: pairs with the Release in `leave_wake`.
        let word = self.0.fetch_and(PARKED, Ordering::Acquire);
        (0..PLACES)
            .map(move |place| word >> (place * PLACE_BITS) & PLACE)
            .take_while(|&slot| slot != 0)
            .map(|slot| slot as u32 - 1)
    }
}

/// Returns the word with a wake for this slot; `None` if there is no room.
fn with_wake(word: u64, slot: u32) -> Option<u64> {
    let wake = u64::from(slot) + 1;
    for place in (0..PLACES).map(|place| place * PLACE_BITS) {
        match word >> place & PLACE {
            0 => return Some(word | wake << place),
            known if known == wake => return Some(word),
            _ => {}
        }
    }
    None
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_few_wakes_are_kept_in_their_order_and_each_once() {
        const LEFT: Wake = Wake::Left { must_wake: false };
        let word = ParkWord::new();
        for _ in 0..2 {
            let left = [0, MAX_TASKS - 1, 0, 7].map(|slot| word.leave_wake(slot));
            assert_eq!(left, [LEFT, LEFT, LEFT, Wake::NoRoom]);
            assert!(word.has_wakes());
            assert_eq!(word.take_wakes().collect::<Vec<_>>(), [0, MAX_TASKS - 1]);
            assert!(!word.has_wakes());
        }
    }

    #[test]
    fn one_who_leaves_a_wake_must_wake_a_parked_core() {
        let word = ParkWord::new();
        word.publish();
        assert!(!word.has_wakes());
        assert_eq!(word.leave_wake(3), Wake::Left { must_wake: true });
        assert_eq!(word.leave_wake(3), Wake::Left { must_wake: false });
        word.restore();
        assert_eq!(word.leave_wake(3), Wake::Left { must_wake: true });
        assert!(!word.withdraw() && word.has_wakes());
        word.publish();
        assert_eq!(word.take_wakes().collect::<Vec<_>>(), [3]);
        assert!(word.withdraw(), "a take leaves it as it is");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    /// Two senders, one owner who parks: it never sleeps over a message.
    #[test]
    fn loom_no_message_is_slept_over() {
        loom::model(|| {
            let park = Arc::new(ParkWord::new());
            let mail = Arc::new(AtomicUsize::new(0));
            let wakes = Arc::new(AtomicUsize::new(0));
            let senders: Vec<_> = (0..2)
                .map(|_| {
                    let (park, mail, wakes) = (park.clone(), mail.clone(), wakes.clone());
                    loom::thread::spawn(move || {
                        mail.fetch_add(1, Ordering::Relaxed);
                        if park.must_wake() {
                            wakes.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            park.publish();
            let seen = mail.load(Ordering::Relaxed);
            if seen > 0 {
                park.withdraw();
            }
            for sender in senders {
                sender.join().unwrap();
            }
            if seen == 0 {
                assert_eq!(
                    wakes.load(Ordering::Relaxed),
                    1,
                    "parked over a message, or woken twice"
                );
            } else {
                assert!(wakes.load(Ordering::Relaxed) <= 1);
            }
        });
    }

    /// A sender whose wake fails says so, and the next one wakes the owner.
    #[test]
    fn loom_after_a_wake_that_failed_the_next_sender_wakes() {
        loom::model(|| {
            let park = Arc::new(ParkWord::new());
            park.publish();
            let first = {
                let park = park.clone();
                loom::thread::spawn(move || {
                    let fails = park.must_wake();
                    if fails {
                        park.restore();
                    }
                    fails
                })
            };
            let second = {
                let park = park.clone();
                loom::thread::spawn(move || park.must_wake())
            };
            let (failed, woke) = (first.join().unwrap(), second.join().unwrap());
            assert!(failed || woke, "nobody found it parked");
            assert!(
                woke || park.must_wake(),
                "the owner is parked, and nobody will wake it"
            );
        });
    }

    /// Two senders leave wakes in the word while the owner parks: it sees each, or is woken once.
    #[test]
    fn loom_no_wake_in_the_word_is_slept_over() {
        loom::model(|| {
            let park = Arc::new(ParkWord::new());
            let senders: Vec<_> = (0..2)
                .map(|slot| {
                    let park = park.clone();
                    loom::thread::spawn(move || {
                        let left = park.leave_wake(slot);
                        assert_ne!(left, Wake::NoRoom);
                        left == Wake::Left { must_wake: true }
                    })
                })
                .collect();
            park.publish();
            let slept = !park.has_wakes();
            if !slept {
                park.withdraw();
            }
            let woken: usize = senders
                .into_iter()
                .map(|sender| usize::from(sender.join().unwrap()))
                .sum();
            assert!(woken <= 1, "woken twice");
            assert!(woken == 1 || !slept, "parked over a wake");
            let mut slots: Vec<_> = park.take_wakes().collect();
            slots.sort_unstable();
            assert_eq!(slots, [0, 1]);
        });
    }

    /// Two wake the same task while the owner takes: what both have said before is seen with the last take.
    #[test]
    fn loom_what_was_said_before_a_wake_is_seen_with_it() {
        loom::model(|| {
            let park = Arc::new(ParkWord::new());
            let said = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let senders: Vec<_> = (0..2)
                .map(|own| {
                    let (park, said) = (park.clone(), said.clone());
                    loom::thread::spawn(move || {
                        said[own].store(1, Ordering::Relaxed);
                        park.leave_wake(5);
                    })
                })
                .collect();
            let mut seen = 0;
            let mut takes = 0;
            while seen < 2 {
                if park.has_wakes() {
                    assert_eq!(park.take_wakes().collect::<Vec<_>>(), [5]);
                    takes += 1;
                    seen = said.iter().map(|said| said.load(Ordering::Relaxed)).sum();
                }
                loom::thread::yield_now();
            }
            assert!(takes <= 2);
            for sender in senders {
                sender.join().unwrap();
            }
        });
    }
}
