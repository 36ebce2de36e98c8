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

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether a core is parked, or about to.
#[derive(Debug)]
pub(crate) struct ParkWord(AtomicBool);

impl ParkWord {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Publishes that the owner is about to park. It then looks into its inbox once more.
    pub(crate) fn publish(&self) {
        self.0.store(true, Ordering::Relaxed);
        // Pairs with the fence in `must_wake`.
        fence(Ordering::SeqCst);
    }

    /// Takes the word back: the owner runs. False if a sender has done so already.
    pub(crate) fn withdraw(&self) -> bool {
        // A plain store would do for the protocol; the answer is for counting.
        self.0.swap(false, Ordering::Relaxed)
    }

    /// Says again that the owner is parked: the caller was to wake it, and could not.
    ///
    /// Should the owner have woken meanwhile, somebody wakes it for nothing, once.
    pub(crate) fn restore(&self) {
        // Exchanged, not stored: a sender that takes the word away in the same moment comes before
        // or after this, and in the latter case has it.
        self.0.swap(true, Ordering::AcqRel);
        // Pairs with the fence in `must_wake`: who puts a message in after this sees it.
        fence(Ordering::SeqCst);
    }

    /// Returns whether the caller, who has put a message in, must wake the owner.
    pub(crate) fn must_wake(&self) -> bool {
        // Pairs with the fence in `publish`.
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
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
}
