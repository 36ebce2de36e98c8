//! `Semaphore`: at most so many at a time.
//!
//! Permits are handed to the waiter itself, not put down for whoever comes first: from that moment
//! they are held, though the waiter has not been polled. A waiter that is dropped before it looked
//! passes them on.
//!
//! Invariants:
//! - No more than `total` permits are held, but for those that were out when the total was lowered.
//! - What could be had by the first who waits is never free: nobody overtakes, also not a small
//!   request a large one.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::WouldBlock;
use super::wait_list::{self, Heeds, Line, Place, Standing};
use crate::scope::Cancelled;
use crate::scope::park::Look;

/// A number of permits that the tasks of a core share: at most so many at a time.
///
/// It is the capacity limiter as well: [`Semaphore::set_total`] changes how many there are.
///
/// First come, first served: while somebody waits, nobody else gets a permit, also not by
/// [`Semaphore::try_acquire`], and a request for one permit does not overtake a request for ten.
/// A permit that is given back is handed to the first in line at once.
///
/// ```
/// use std::rc::Rc;
/// use quoit::sync::Semaphore;
///
/// quoit::block_on(async {
///     let connections = Rc::new(Semaphore::new(100));
///     let permit = Rc::clone(&connections).acquire_owned().await?;
///     let serving = quoit::spawn(async move {
///         let _one_of_them = permit;
///     });
///     serving.await.expect("the task ended");
///     assert_eq!(connections.available(), 100);
///     Ok::<_, quoit::Cancelled>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
pub struct Semaphore {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    total: usize,
    held: usize,
    /// With how many permits each wants.
    waiting: Line<usize>,
}

impl Semaphore {
    /// Makes a semaphore with `total` permits, all of them free.
    pub fn new(total: usize) -> Self {
        Self {
            state: RefCell::new(State {
                total,
                held: 0,
                waiting: Line::default(),
            }),
        }
    }

    /// Waits for one permit.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled first; then no permit was taken.
    pub fn acquire(&self) -> impl Future<Output = Result<Permit<'_>, Cancelled>> {
        self.acquire_many(1)
    }

    /// Waits for `count` permits at once. More than there are in total are waited for until the total
    /// is raised, and whoever comes later waits as well.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled first; then no permit was taken.
    pub fn acquire_many(
        &self,
        count: usize,
    ) -> impl Future<Output = Result<Permit<'_>, Cancelled>> {
        Acquire {
            semaphore: self,
            count,
            heeds: Heeds::Cancels,
            place: Place::default(),
        }
    }

    /// Waits for one permit, to be kept for as long as its owner likes.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled first; then no permit was taken.
    pub async fn acquire_owned(self: Rc<Self>) -> Result<OwnedPermit, Cancelled> {
        let count = self.acquire().await?.keep();
        Ok(OwnedPermit {
            semaphore: self,
            count,
        })
    }

    /// Takes one permit if one is free and nobody waits.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`], if [`Semaphore::acquire`] would have to wait.
    pub fn try_acquire(&self) -> Result<Permit<'_>, WouldBlock> {
        self.try_acquire_many(1)
    }

    /// Takes `count` permits if they are free and nobody waits.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`], if [`Semaphore::acquire_many`] would have to wait.
    pub fn try_acquire_many(&self, count: usize) -> Result<Permit<'_>, WouldBlock> {
        wait_list::see_cancels();
        if self.state.borrow_mut().take(count) {
            Ok(self.permit(count))
        } else {
            Err(WouldBlock)
        }
    }

    /// Waits for a permit though the scope is cancelled.
    pub(super) fn acquire_in_any_case(&self) -> impl Future<Output = Permit<'_>> {
        let acquire = Acquire {
            semaphore: self,
            count: 1,
            heeds: Heeds::Nothing,
            place: Place::default(),
        };
        async {
            match acquire.await {
                Ok(permit) => permit,
                Err(_) => unreachable!("a wait that heeds no cancel is not cancelled"),
            }
        }
    }

    /// Returns how many permits there are, free or held.
    pub fn total(&self) -> usize {
        self.state.borrow().total
    }

    /// Changes how many permits there are.
    ///
    /// If more are held than that, nothing is taken away: the next are handed out when enough have
    /// come back.
    pub fn set_total(&self, total: usize) {
        self.state.borrow_mut().total = total;
        self.settle();
    }

    /// Returns how many permits are free. They may be too few for the first who waits.
    pub fn available(&self) -> usize {
        self.state.borrow().available()
    }

    /// Returns how many permits are held, those included that a waiter was just handed.
    pub fn held(&self) -> usize {
        self.state.borrow().held
    }

    /// Returns how many stand in line.
    pub fn waiting(&self) -> usize {
        self.state.borrow().waiting.len()
    }

    fn permit(&self, count: usize) -> Permit<'_> {
        Permit {
            semaphore: self,
            count,
        }
    }

    fn give_back(&self, count: usize) {
        self.state.borrow_mut().held -= count;
        self.settle();
    }

    fn settle(&self) {
        wait_list::settle(|| self.state.borrow_mut().hand_out());
    }
}

impl State {
    fn available(&self) -> usize {
        self.total.saturating_sub(self.held)
    }

    /// Takes permits for somebody who does not wait.
    fn take(&mut self, count: usize) -> bool {
        let free = self.available() >= count && self.waiting.first().is_none();
        if free {
            self.held += count;
        }
        free
    }

    /// Hands the first who waits what he wants, if it is there; returns whom to wake.
    fn hand_out(&mut self) -> Option<Waker> {
        let wanted = *self.waiting.first()?;
        if wanted > self.available() {
            return None;
        }
        let (_, waker) = self.waiting.choose()?;
        self.held += wanted;
        Some(waker)
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("total", &self.total())
            .field("held", &self.held())
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// Permits on loan. Dropped, they go to the first who waits.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    count: usize,
}

impl Permit<'_> {
    /// Returns how many these are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Goes on holding them without this.
    fn keep(mut self) -> usize {
        std::mem::take(&mut self.count)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.semaphore.give_back(self.count);
        }
    }
}

/// A permit on loan that borrows nothing. Dropped, it goes to the first who waits.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct OwnedPermit {
    semaphore: Rc<Semaphore>,
    count: usize,
}

impl OwnedPermit {
    /// Returns the semaphore that it is of.
    pub fn semaphore(&self) -> &Rc<Semaphore> {
        &self.semaphore
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.semaphore.give_back(self.count);
    }
}

struct Acquire<'a> {
    semaphore: &'a Semaphore,
    count: usize,
    heeds: Heeds,
    place: Place,
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<Permit<'a>, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let state = &this.semaphore.state;
        if !this.place.is_in_line() {
            if this.heeds == Heeds::Cancels {
                ready!(this.place.entry(cx))?;
            }
            let count = this.count;
            let take = || state.borrow_mut().take(count).then_some(());
            if take().is_some() || ready!(this.place.register(this.heeds, cx, take))?.is_some() {
                return Poll::Ready(Ok(this.semaphore.permit(count)));
            }
            state.borrow_mut().waiting.push(&mut this.place, this.count);
            return Poll::Pending;
        }
        let outcome = match this.place.look(cx) {
            Look::Waiting => return Poll::Pending,
            // They were counted as held when we were chosen.
            Look::Ready => Ok(this.semaphore.permit(this.count)),
            Look::Aborted(cancelled) => Err(cancelled),
        };
        state.borrow_mut().waiting.remove(&mut this.place);
        this.place.end();
        if outcome.is_err() {
            // Who stood behind us may want less.
            this.semaphore.settle();
        }
        Poll::Ready(outcome)
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let left = self
            .semaphore
            .state
            .borrow_mut()
            .waiting
            .remove(&mut self.place);
        match left {
            Some((Standing::Chosen, count)) => self.semaphore.give_back(count),
            // Who stood behind us may want less.
            Some((Standing::InLine | Standing::Out, _)) => self.semaphore.settle(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn polled<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn permits_can_be_taken_and_given_back_off_a_core() {
        let permits = Semaphore::new(3);
        let two = permits.try_acquire_many(2).expect("free");
        assert_eq!(permits.try_acquire_many(2).err(), Some(WouldBlock));
        let one = permits.try_acquire().expect("free");
        assert_eq!((permits.held(), permits.available()), (3, 0));
        permits.set_total(1);
        drop(one);
        assert_eq!((permits.held(), permits.available()), (2, 0));
        drop(two);
        assert_eq!((permits.held(), permits.available()), (0, 1));
    }

    #[test]
    fn nothing_is_free_that_the_first_in_line_could_have() {
        crate::block_on(async {
            let permits = Semaphore::new(2);
            let one = permits.try_acquire().expect("free");
            let mut large = pin!(permits.acquire_many(2));
            let mut small = pin!(permits.acquire());
            assert!(polled(large.as_mut()).is_pending());
            assert!(polled(small.as_mut()).is_pending());
            assert!(permits.try_acquire().is_err());
            drop(one);
            assert_eq!((permits.held(), permits.waiting()), (2, 1));
            assert!(polled(small.as_mut()).is_pending());
            let Poll::Ready(Ok(two)) = polled(large.as_mut()) else {
                panic!("it was handed both");
            };
            drop(two);
            assert!(polled(small.as_mut()).is_ready());
            assert_eq!((permits.held(), permits.waiting()), (0, 0));
        })
        .expect("a core");
    }

    #[test]
    fn a_permit_outlives_the_core_on_which_it_was_handed_over() {
        let permits = Semaphore::new(1);
        let handed = crate::block_on(async {
            let permit = permits.try_acquire().expect("free");
            let mut handed = Box::pin(permits.acquire());
            assert!(polled(handed.as_mut()).is_pending());
            drop(permit);
            Some(handed)
        });
        assert_eq!(permits.held(), 1);
        drop(handed);
        assert_eq!((permits.held(), permits.waiting()), (0, 0));
    }
}
