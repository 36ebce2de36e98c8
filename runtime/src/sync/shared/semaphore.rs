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
use super::place::{Place, thread_waker};
use super::seat::{Seat, Standing};
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
        acquire.place.block();
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
    fn hand_out(&mut self) -> Option<Arc<Seat>> {
        if self.free == 0 {
            return None;
        }
        let ((), seat) = self.line.choose()?;
        self.free -= 1;
        Some(seat)
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
    fn take_or_stand(&self, seat: &Arc<Seat>) -> Option<Index> {
        line::change(&self.state, |state, _| {
            (!state.take()).then(|| state.line.push(Arc::clone(seat), ()))
        })
    }

    fn give_back(&self) {
        line::change(&self.state, |state, _| state.free += 1);
    }

    /// Takes a wait out that has ended.
    fn remove(&self, number: Index) {
        let removed = line::change(&self.state, |state, _| state.line.remove(number));
        drop(removed);
    }
}

struct Acquire<'a> {
    semaphore: &'a Semaphore,
    place: Place,
}

impl Acquire<'_> {
    /// Stands in line; false if there was a permit by now, which is the caller's.
    fn stand(&mut self, waker: Waker) -> bool {
        let seat = Arc::new(Seat::new(waker));
        let number = self.semaphore.permits.take_or_stand(&seat);
        if let Some(number) = number {
            self.place.stand(seat, number);
        }
        number.is_some()
    }

    /// Leaves the line after a wait that has ended. If it was handed a permit, that is the caller's.
    fn collect(&mut self) -> Standing {
        let Some((number, standing)) = self.place.end() else {
            return Standing::GivenUp;
        };
        self.semaphore.permits.remove(number);
        standing
    }
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<Permit<'a>, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.place.is_in_line() {
            ready!(this.place.entry(cx))?;
            if this.semaphore.permits.take() || !this.stand(cx.waker().clone()) {
                return Poll::Ready(Ok(this.semaphore.permit()));
            }
            this.place.register(cx);
            return Poll::Pending;
        }
        let outcome = match this.place.look(cx) {
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
        if self.collect() == Standing::Handed {
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
        /// A cancel gives the seat up; the task is polled later.
        ByACancel,
        /// The future is dropped.
        ByADrop,
    }

    /// What the owner does; returns whether it had the permit, which it gives back.
    fn end(permits: &Permits, seat: &Seat, number: Index, ends: Ends) -> bool {
        if let Ends::ByACancel = ends
            && seat.give_up()
        {
            seat.wake();
        }
        let had = seat.end() == Standing::Handed;
        permits.remove(number);
        if had {
            permits.give_back();
        }
        had
    }

    /// The lock is released while the first who waits is cancelled or dropped: it had it or it had
    /// not, and in both cases the next has it and is woken.
    #[test]
    fn loom_a_lock_is_never_nobodys_while_somebody_waits() {
        for ends in [Ends::ByACancel, Ends::ByADrop] {
            loom::model(move || {
                let permits = Shared::new(Permits::new(0));
                let bells = [Bell::new(), Bell::new()];
                let [first, second] = [0, 1].map(|at: usize| {
                    let seat = Arc::new(Seat::new(bells[at].waker()));
                    let number = permits.take_or_stand(&seat).expect("none is free");
                    (seat, number)
                });
                let releases = {
                    let permits = permits.clone();
                    thread::spawn(move || permits.give_back())
                };
                let leaves = {
                    let (permits, (seat, number)) = (permits.clone(), first);
                    thread::spawn(move || {
                        let had = end(&permits, &seat, number, ends);
                        assert_eq!(had, seat.standing() == Standing::Handed);
                    })
                };
                releases.join().unwrap();
                leaves.join().unwrap();
                assert_eq!(second.0.standing(), Standing::Handed);
                assert!(bells[1].has_rung());
                permits.remove(second.1);
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
            let seat = Arc::new(Seat::new(Bell::new().waker()));
            let number = permits.take_or_stand(&seat).expect("none is free");
            let leaves = {
                let (permits, holders) = (permits.clone(), holders.clone());
                thread::spawn(move || {
                    seat.give_up();
                    if seat.end() == Standing::Handed {
                        assert_eq!(holders.fetch_add(1, Ordering::Relaxed), 0);
                        holders.fetch_sub(1, Ordering::Relaxed);
                        permits.remove(number);
                        permits.give_back();
                    } else {
                        permits.remove(number);
                    }
                })
            };
            let comes = {
                let (permits, holders) = (permits.clone(), holders.clone());
                thread::spawn(move || {
                    let bell = Bell::new();
                    let seat = Arc::new(Seat::new(bell.waker()));
                    let number = permits.take_or_stand(&seat);
                    if number.is_none() {
                        assert_eq!(holders.fetch_add(1, Ordering::Relaxed), 0);
                    }
                    number.map(|_| (seat, bell))
                })
            };
            holders.fetch_sub(1, Ordering::Relaxed);
            permits.give_back();
            leaves.join().unwrap();
            if let Some((seat, bell)) = comes.join().unwrap() {
                assert_eq!(seat.standing(), Standing::Handed);
                assert!(bell.has_rung());
            }
            assert_eq!(permits.state.lock().free, 0, "the newcomer has it");
        });
    }
}
