//! How a job's result gets from its thread to the task that waits for it.
//!
//! ```text
//!   taker, each poll:  add STORING ─► store the waker ─► take STORING away ─► done meanwhile? take it
//!   taker, leaving:    add GONE ─► done before? the result is the taker's, else the giver's to drop
//!   giver, once:       store the result ─► add DONE ─► GONE? take it back
//!                                                     STORING? the taker will look
//!                                                     else: wake the taker
//! ```
//!
//! All three bits lie in one word and change by read-modify-writes, so of a giver and a taker one
//! comes second and sees what the other did. The two cells are never waited for: the word says whose
//! they are.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};

use std::sync::TryLockError;
use std::task::{Poll, Waker};

/// The result is there.
const DONE: u32 = 1;
/// Nobody will take it any more.
const GONE: u32 = 2;
/// The taker changes the waker just now.
const STORING: u32 = 4;

/// The place where one result changes hands.
#[derive(Debug)]
pub(super) struct HandOver<T> {
    word: AtomicU32,
    result: Mutex<Option<T>>,
    waiter: Mutex<Option<Waker>>,
}

/// What the giver finds.
#[derive(Debug)]
pub(super) enum Given<T> {
    /// The taker has it; this wakes the one that waits.
    Taken(Option<Waker>),
    /// Nobody wants it.
    Unwanted(T),
}

/// What the taker finds when it leaves.
#[derive(Debug)]
pub(super) enum Left<T> {
    /// The result was there already.
    Result(T),
    /// The giver will drop it. This one is not woken any more.
    Early(Option<Waker>),
}

impl<T> HandOver<T> {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU32::new(0),
            result: Mutex::new(None),
            waiter: Mutex::new(None),
        }
    }

    /// Gives the result, once. The waker that comes back is to be woken.
    pub(super) fn give(&self, result: T) -> Given<T> {
        *own(&self.result) = Some(result);
        // AcqRel: releases the result to the taker; acquires the waker, or that it has left.
        let before = self.word.fetch_or(DONE, Ordering::AcqRel);
        if before & GONE != 0 {
            let back = own(&self.result).take();
            return Given::Unwanted(back.expect("given just above, and nobody takes it"));
        }
        if before & STORING != 0 {
            return Given::Taken(None);
        }
        // The taker looks at the word first, and leaves the waker alone from here on.
        let waiter = own(&self.waiter).take();
        Given::Taken(waiter)
    }

    /// Takes the result, or leaves word whom to wake when it is there. For the taker, until it has
    /// the result or leaves; `has_left` says whether it did so while the waker was copied.
    ///
    /// A waker that is not needed comes back, to be dropped when the taker has noted what this said: that is foreign
    /// code as well, and may let it leave.
    pub(super) fn poll(
        &self,
        waker: &Waker,
        has_left: impl FnOnce() -> bool,
        unneeded: &mut Option<Waker>,
    ) -> Poll<T> {
        // Acquire: pairs with the giver's release.
        if self.word.load(Ordering::Acquire) & DONE != 0 {
            return Poll::Ready(self.take());
        }
        // Foreign code, run before anything is held.
        let fresh = waker.clone();
        if has_left() {
            *unneeded = Some(fresh);
            return Poll::Pending;
        }
        if self.word.fetch_or(STORING, Ordering::AcqRel) & DONE != 0 {
            *unneeded = Some(fresh);
            return Poll::Ready(self.take());
        }
        *unneeded = own(&self.waiter).replace(fresh);
        // AcqRel: releases the waker to the giver; acquires the result, if it came meanwhile.
        let before = self.word.fetch_and(!STORING, Ordering::AcqRel);
        if before & DONE != 0 {
            return Poll::Ready(self.take());
        }
        Poll::Pending
    }

    /// Leaves: the taker will not look again.
    pub(super) fn leave(&self) -> Left<T> {
        // AcqRel: acquires the result; a giver that comes later acquires that nobody is there.
        if self.word.fetch_or(GONE, Ordering::AcqRel) & DONE != 0 {
            return Left::Result(self.take());
        }
        Left::Early(own(&self.waiter).take())
    }

    fn take(&self) -> T {
        let result = own(&self.result).take();
        result.expect("a result is taken once, by whom the word says")
    }
}

/// Locks what the word says is the caller's: nobody else holds it.
fn own<T>(cell: &Mutex<T>) -> MutexGuard<'_, T> {
    match cell.try_lock() {
        Ok(guard) => guard,
        // Nothing foreign runs while it is held.
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => unreachable!("the word says whose the cell is"),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn result_given_before_the_first_look_is_taken() {
        let place = HandOver::new();
        assert!(matches!(place.give(7), Given::Taken(None)));
        assert_eq!(
            place.poll(Waker::noop(), || false, &mut None),
            Poll::Ready(7)
        );
    }

    #[test]
    fn waker_of_the_last_look_comes_back_with_the_result() {
        let place = HandOver::new();
        assert!(place.poll(Waker::noop(), || false, &mut None).is_pending());
        assert!(matches!(place.give(7), Given::Taken(Some(_))));
        assert_eq!(
            place.poll(Waker::noop(), || false, &mut None),
            Poll::Ready(7)
        );
    }

    #[test]
    fn result_that_nobody_wants_comes_back_to_its_giver() {
        let place = HandOver::new();
        assert!(place.poll(Waker::noop(), || false, &mut None).is_pending());
        assert!(matches!(place.leave(), Left::Early(Some(_))));
        assert!(matches!(place.give(7), Given::Unwanted(7)));
    }

    #[test]
    fn who_leaves_after_the_end_has_the_result() {
        let place = HandOver::new();
        assert!(matches!(place.give(7), Given::Taken(None)));
        assert!(matches!(place.leave(), Left::Result(7)));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc as StdArc;
    use std::task::Wake;

    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: StdArc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn bell() -> (StdArc<Bell>, Waker) {
        let bell = StdArc::new(Bell(AtomicUsize::new(0)));
        (StdArc::clone(&bell), Waker::from(bell))
    }

    fn giver(place: &Arc<HandOver<u32>>) -> loom::thread::JoinHandle<bool> {
        let place = place.clone();
        loom::thread::spawn(move || match place.give(7) {
            Given::Taken(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
                true
            }
            Given::Unwanted(result) => {
                assert_eq!(result, 7);
                false
            }
        })
    }

    /// A taker that looks with one waker, and then with another: it finds the result, or the last
    /// waker is woken, once.
    #[test]
    fn loom_no_result_is_slept_over() {
        loom::model(|| {
            let place = Arc::new(HandOver::new());
            let (first, second) = (bell(), bell());
            let giver = giver(&place);
            let mut found = place.poll(&first.1, || false, &mut None).is_ready();
            if !found {
                found = place.poll(&second.1, || false, &mut None).is_ready();
            }
            assert!(giver.join().unwrap());
            let rung = |bell: &(StdArc<Bell>, Waker)| bell.0.0.load(Ordering::Relaxed);
            assert!(rung(&first) + rung(&second) <= 1);
            if !found {
                assert_eq!(rung(&second), 1, "slept over a result");
                assert_eq!(place.poll(&second.1, || false, &mut None), Poll::Ready(7));
            }
        });
    }

    /// A taker that looks and then leaves: exactly one of the two has the result.
    #[test]
    fn loom_a_result_has_one_owner() {
        loom::model(|| {
            let place = Arc::new(HandOver::new());
            let (_, waker) = bell();
            let giver = giver(&place);
            let taken = match place.poll(&waker, || false, &mut None) {
                Poll::Ready(_) => true,
                Poll::Pending => matches!(place.leave(), Left::Result(7)),
            };
            assert_eq!(giver.join().unwrap(), taken);
        });
    }
}
