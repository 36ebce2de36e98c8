//! `Semaphore`: at most so many at a time, over all cores and threads.
//!
//! A permit that comes back is handed to the first who waits, under the lock: from that moment it is
//! his, though he has not been polled. Dropped before he looked, he passes it on.
//!
//! Invariants:
//! - Free permits and those on loan are `total` together.
//! - While somebody waits who has not given up, no permit is free.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use super::WouldBlock;
use super::line::{self, HandsOut, Line};
use super::lock::Lock;
use super::place::{self, Place, thread_waker};
use super::seat::Wait;
use crate::scope::Cancelled;
use crate::scope::park::Look;
use crate::sync::slots::Index;

/// A number of permits that cores and threads share: at most so many are on loan at a time.
///
/// First come, first served, whichever core they are on: a permit that is given back is handed to the
/// first in line at once, and nobody overtakes, also not by [`Semaphore::try_acquire`].
///
/// ```
/// use std::sync::Arc;
/// use quoit::sync::shared::Semaphore;
///
/// let licences = Arc::new(Semaphore::new(2));
/// let other = Arc::clone(&licences);
/// let thread = std::thread::spawn(move || {
///     let _one_of_them = other.acquire_blocking();
/// });
/// quoit::block_on(async {
///     let permit = licences.acquire().await?;
///     drop(permit);
///     Ok::<_, quoit::Cancelled>(())
/// })??;
/// thread.join().unwrap();
/// assert_eq!(licences.available(), 2);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Semaphore {
    total: usize,
    permits: Permits,
}

impl Semaphore {
    /// Makes a semaphore with `total` permits, all of them free.
    pub fn new(total: usize) -> Self {
        Self {
            total,
            permits: Permits::new(total),
        }
    }

    /// Waits for a permit.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled before a permit was handed over; then none was
    /// taken. A permit that was handed over first is returned.
    pub fn acquire(&self) -> impl Future<Output = Result<Permit<'_>, Cancelled>> {
        Acquire {
            semaphore: self,
            place: Place::default(),
        }
    }

    /// Waits for a permit that borrows nothing.
    ///
    /// # Errors
    ///
    /// As for [`Semaphore::acquire`].
    pub async fn acquire_owned(self: Arc<Self>) -> Result<OwnedPermit, Cancelled> {
        let permit = self.acquire().await?;
        // It goes on being held, by another name.
        std::mem::forget(permit);
        Ok(OwnedPermit { semaphore: self })
    }

    /// Takes a permit if one is free.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`], if [`Semaphore::acquire`] would have to wait.
    pub fn try_acquire(&self) -> Result<Permit<'_>, WouldBlock> {
        if self.permits.take() {
            Ok(self.permit())
        } else {
            Err(WouldBlock)
        }
    }

    /// Blocks the calling thread until it has a permit. It stands in the same line as the tasks.
    ///
    /// # Panics
    ///
    /// On a core, which it would block.
    pub fn acquire_blocking(&self) -> Permit<'_> {
        let waker = thread_waker();
        let mut acquire = Acquire {
            semaphore: self,
            place: Place::default(),
        };
        if self.permits.take() || !acquire.stand(waker) {
            return self.permit();
        }
        acquire
            .place
            .block(|number| self.permits.is_handed(number, &mut None));
        acquire.collect();
        self.permit()
    }

    /// Returns how many permits there are, free or on loan.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Returns how many permits are free.
    pub fn available(&self) -> usize {
        self.permits.state.lock().free
    }

    /// Returns how many stand in line. It counts them.
    pub fn waiting(&self) -> usize {
        self.permits.state.lock().line.waiting()
    }

    fn permit(&self) -> Permit<'_> {
        Permit { semaphore: self }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("total", &self.total)
            .field("available", &self.available())
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// A permit on loan. Dropped, on any thread, it goes to the first who waits.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.semaphore.permits.give_back();
    }
}

/// A permit on loan that borrows nothing. Dropped, on any thread, it goes to the first who waits.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct OwnedPermit {
    semaphore: Arc<Semaphore>,
}

impl OwnedPermit {
    /// Returns the semaphore that it is of.
    pub fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.semaphore.permits.give_back();
    }
}

/// The permits themselves, and who waits for them. Knows nothing of tasks and scopes.
struct Permits {
    state: Lock<State>,
}

struct State {
    free: usize,
    line: Line<()>,
}

impl HandsOut for State {
    fn hand_out(&mut self) -> Option<Waker> {
        if self.free == 0 {
            return None;
        }
        let ((), waker) = self.line.choose()?;
        self.free -= 1;
        Some(waker)
    }
}

impl State {
    fn take(&mut self) -> bool {
        let taken = self.free > 0;
        self.free -= usize::from(taken);
        taken
    }
}

impl Permits {
    fn new(free: usize) -> Self {
        Self {
            state: Lock::new(State {
                free,
                line: Line::new(),
            }),
        }
    }

    /// Takes a permit if one is free.
    fn take(&self) -> bool {
        line::change(&self.state, |state, _| state.take())
    }

    /// Takes a permit if one is free; stands in line otherwise, with this number.
    fn take_or_stand(&self, wait: &Wait, waker: &mut Option<Waker>) -> Option<Index> {
        line::change(&self.state, |state, _| {
            (!state.take()).then(|| {
                let waker = waker.take().expect("it stands in line once");
                state.line.push(wait.clone(), waker, ())
            })
        })
    }

    /// Returns whether a wait was handed a permit; leaves another waker there, if not.
    fn is_handed(&self, number: Index, waker: &mut Option<Waker>) -> bool {
        self.state.lock().line.is_handed(number, waker)
    }

    fn give_back(&self) {
        line::change(&self.state, |state, _| state.free += 1);
    }

    /// Takes a wait out that has ended. Returns whether it was handed a permit.
    fn remove(&self, number: Index) -> bool {
        let removed = line::change(&self.state, |state, _| state.line.remove(number));
        removed.was_handed()
    }
}

struct Acquire<'a> {
    semaphore: &'a Semaphore,
    place: Place,
}

impl Acquire<'_> {
    /// Stands in line; false if there was a permit by now, which is the caller's.
    fn stand(&mut self, waker: Waker) -> bool {
        let wait = place::new_wait();
        let mut waker = Some(waker);
        let number = self.semaphore.permits.take_or_stand(&wait, &mut waker);
        if let Some(number) = number {
            self.place.stand(wait, number);
        }
        number.is_some()
    }

    /// Leaves the line after a wait that has ended. Returns whether it was handed a permit, which is the caller's.
    fn collect(&mut self) -> bool {
        let permits = &self.semaphore.permits;
        self.place.end(|number| permits.remove(number)) == Some(true)
    }
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<Permit<'a>, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.place.is_in_line() {
            ready!(this.place.entry(cx))?;
            if this.semaphore.permits.take() || !this.stand(cx.waker().clone()) {
                this.place.note_at_once(1);
                return Poll::Ready(Ok(this.semaphore.permit()));
            }
            this.place.register(cx);
            return Poll::Pending;
        }
        let permits = &this.semaphore.permits;
        let outcome = match this
            .place
            .look(cx, |number, waker| permits.is_handed(number, waker))
        {
            Look::Waiting => return Poll::Pending,
            Look::Ready => Ok(this.semaphore.permit()),
            Look::Aborted(cancelled) => Err(cancelled),
        };
        this.collect();
        Poll::Ready(outcome)
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        if self.collect() {
            self.semaphore.permits.give_back();
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::testing::Bell;
    use super::*;
    use loom::sync::Arc as Shared;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    /// How the owner of a wait ends it.
    #[derive(Debug, Clone, Copy)]
    enum Ends {
        /// A cancel gives the wait up; the task is polled later.
        ByACancel,
        /// The future is dropped.
        ByADrop,
    }

    /// Comes for the permit, which another has: stands in line.
    fn stand(permits: &Permits, bell: &Arc<Bell>) -> (Wait, Index) {
        let wait = Wait::new();
        let number = permits.take_or_stand(&wait, &mut Some(bell.waker()));
        (wait, number.expect("none is free"))
    }

    /// What the owner does: it gives the permit back, if it had it.
    fn end(permits: &Permits, wait: &Wait, number: Index, ends: Ends) {
        if let Ends::ByACancel = ends {
            wait.give_up();
        }
        if permits.remove(number) {
            permits.give_back();
        }
    }

    /// The lock is released while the first who waits is cancelled or dropped: it had it or it had
    /// not, and in both cases the next has it and is woken.
    #[test]
    fn loom_a_lock_is_never_nobodys_while_somebody_waits() {
        for ends in [Ends::ByACancel, Ends::ByADrop] {
            loom::model(move || {
                let permits = Shared::new(Permits::new(0));
                let bells = [Bell::new(), Bell::new()];
                let [first, second] = [0, 1].map(|at: usize| stand(&permits, &bells[at]));
                let releases = {
                    let permits = permits.clone();
                    thread::spawn(move || permits.give_back())
                };
                let leaves = {
                    let (permits, (wait, number)) = (permits.clone(), first);
                    thread::spawn(move || end(&permits, &wait, number, ends))
                };
                releases.join().unwrap();
                leaves.join().unwrap();
                assert!(bells[1].has_rung());
                assert!(permits.remove(second.1));
                assert_eq!(permits.state.lock().free, 0, "it is the second's");
                assert_eq!(permits.state.lock().line.waiting(), 0);
            });
        }
    }

    /// The lock is released while the one who waits is cancelled and a third comes: one at a time has
    /// it, whoever waits in the end has it, and if nobody does it is free.
    #[test]
    fn loom_a_newcomer_neither_shares_the_lock_nor_misses_it() {
        loom::model(|| {
            let permits = Shared::new(Permits::new(0));
            let holders = Shared::new(AtomicUsize::new(1));
            let (wait, number) = stand(&permits, &Bell::new());
            let leaves = {
                let (permits, holders) = (permits.clone(), holders.clone());
                thread::spawn(move || {
                    wait.give_up();
                    if permits.remove(number) {
                        assert_eq!(holders.fetch_add(1, Ordering::Relaxed), 0);
                        holders.fetch_sub(1, Ordering::Relaxed);
                        permits.give_back();
                    }
                })
            };
            let comes = {
                let (permits, holders) = (permits.clone(), holders.clone());
                thread::spawn(move || {
                    let bell = Bell::new();
                    let number = permits.take_or_stand(&Wait::new(), &mut Some(bell.waker()));
                    if number.is_none() {
                        assert_eq!(holders.fetch_add(1, Ordering::Relaxed), 0);
                    }
                    number.map(|number| (number, bell))
                })
            };
            holders.fetch_sub(1, Ordering::Relaxed);
            permits.give_back();
            leaves.join().unwrap();
            if let Some((number, bell)) = comes.join().unwrap() {
                assert!(permits.is_handed(number, &mut None));
                assert!(bell.has_rung());
            }
            assert_eq!(permits.state.lock().free, 0, "the newcomer has it");
        });
    }
}
