//! A channel of items that every receiver sees.
//!
//! The last `capacity` items are kept until all receivers have seen them. A send never waits: where
//! there is no room the oldest item goes, and a receiver that had not seen it is told how many it
//! lost. What a receiver has seen is a number that it carries, so a wait that is cancelled or dropped
//! loses nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::TryRecvError;
use super::wait_list::{Place, WaitList};
use crate::scope::{Cancelled, CarriesCancelled};

/// Makes a channel whose receivers each see every item, and a first receiver.
///
/// ```
/// use quoit::sync::broadcast;
///
/// quoit::block_on(async {
///     let (news, mut first) = broadcast::bounded(16);
///     let mut second = news.subscribe();
///     news.send("it begins").ok();
///     assert_eq!(first.recv().await?, Some("it begins"));
///     assert_eq!(second.recv().await?, Some("it begins"));
///     drop(news);
///     assert_eq!(first.recv().await?, None);
///     Ok::<_, broadcast::RecvError>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
///
/// # Panics
///
/// If `capacity` is 0: then nobody could see anything.
pub fn bounded<T: Clone>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a broadcast keeps at least one item");
    let shared = Rc::new(Shared {
        state: RefCell::new(State {
            capacity,
            items: VecDeque::new(),
            end: 0,
            senders: 1,
            receivers: 1,
        }),
        waiting: WaitList::default(),
    });
    let receiver = Receiver {
        shared: Rc::clone(&shared),
        next: Cell::new(0),
    };
    (Sender { shared }, receiver)
}

struct Shared<T> {
    state: RefCell<State<T>>,
    waiting: WaitList,
}

struct State<T> {
    capacity: usize,
    /// The items up to number `end`, each with how many receivers have yet to see it: no fewer than
    /// have yet to see the one before.
    items: VecDeque<(Rc<T>, usize)>,
    /// The number of the next item.
    end: u64,
    senders: usize,
    receivers: usize,
}

impl<T> State<T> {
    fn first(&self) -> u64 {
        self.end - self.items.len() as u64
    }

    /// Returns the item that a receiver sees next, and moves the receiver on. What all have seen is
    /// taken out; it comes back to be dropped, or given away.
    fn see(&mut self, next: &Cell<u64>) -> Result<Rc<T>, TryRecvError> {
        let first = self.first();
        if next.get() < first {
            let lost = first - next.replace(first);
            return Err(TryRecvError::Lagged(lost));
        }
        let at = (next.get() - first) as usize;
        let Some((item, unseen)) = self.items.get_mut(at) else {
            return Err(if self.senders == 0 {
                TryRecvError::Closed
            } else {
                TryRecvError::Empty
            });
        };
        next.set(next.get() + 1);
        *unseen -= 1;
        if *unseen > 0 {
            return Ok(Rc::clone(item));
        }
        debug_assert_eq!(at, 0, "whoever has seen this has seen those before");
        let (item, _) = self.items.pop_front().expect("it is there");
        Ok(item)
    }

    /// Takes leave of a receiver; returns what nobody is left to see.
    fn leave(&mut self, next: u64) -> Vec<Rc<T>> {
        self.receivers -= 1;
        let at = next.saturating_sub(self.first()) as usize;
        for (_, unseen) in self.items.iter_mut().skip(at) {
            *unseen -= 1;
        }
        let mut seen = Vec::new();
        while let Some((item, _)) = self.items.pop_front_if(|(_, unseen)| *unseen == 0) {
            seen.push(item);
        }
        seen
    }
}

/// The side that sends. Clone it for more; with the last of them the channel is closed, and receivers
/// still see what was sent.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T: Clone> Sender<T> {
    /// Sends an item to all receivers there are; returns how many. It does not wait, so it takes no
    /// notice of a cancel: where there is no room, the oldest item goes.
    ///
    /// # Errors
    ///
    /// The item, if there is no receiver.
    pub fn send(&self, item: T) -> Result<usize, T> {
        let (receivers, overwritten) = {
            let mut state = self.shared.state.borrow_mut();
            if state.receivers == 0 {
                return Err(item);
            }
            let full = state.items.len() == state.capacity;
            let overwritten = full.then(|| state.items.pop_front());
            let receivers = state.receivers;
            state.items.push_back((Rc::new(item), receivers));
            state.end += 1;
            (receivers, overwritten)
        };
        self.shared.waiting.wake_all();
        drop(overwritten);
        Ok(receivers)
    }

    /// Makes a receiver that sees what is sent from here on.
    pub fn subscribe(&self) -> Receiver<T> {
        let mut state = self.shared.state.borrow_mut();
        state.receivers += 1;
        Receiver {
            shared: Rc::clone(&self.shared),
            next: Cell::new(state.end),
        }
    }
}

impl<T> Sender<T> {
    /// Returns how many receivers there are.
    pub fn receivers(&self) -> usize {
        self.shared.state.borrow().receivers
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.state.borrow_mut().senders += 1;
        Self {
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.shared.state.borrow_mut();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.shared.waiting.wake_all();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("receivers", &self.receivers())
            .finish_non_exhaustive()
    }
}

/// A receiver: it sees every item that is sent while it lives.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    /// The number of the item that it sees next.
    next: Cell<u64>,
}

impl<T: Clone> Receiver<T> {
    /// Returns the next item; waits until there is one. `None`: the last sender is gone, and this
    /// receiver has seen all.
    ///
    /// Cancelled, or dropped before it ended, it has received nothing: the next call does.
    ///
    /// # Errors
    ///
    /// [`RecvError::Lagged`], if items were overwritten that this receiver had not seen.
    /// [`RecvError::Cancelled`], if a scope around is cancelled first.
    pub async fn recv(&mut self) -> Result<Option<T>, RecvError> {
        Wait {
            receiver: self,
            place: Place::default(),
        }
        .await?;
        match self.try_recv() {
            Ok(item) => Ok(Some(item)),
            Err(TryRecvError::Lagged(lost)) => Err(RecvError::Lagged(lost)),
            Err(TryRecvError::Closed) => Ok(None),
            Err(TryRecvError::Empty) => unreachable!("what was sent stays, or was lost"),
        }
    }

    /// Returns the next item, if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], if [`Receiver::recv`] would have to wait; [`TryRecvError::Closed`], if
    /// nothing will come; [`TryRecvError::Lagged`], if items were overwritten that this receiver had
    /// not seen.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let item = self.shared.state.borrow_mut().see(&self.next)?;
        Ok(Rc::unwrap_or_clone(item))
    }
}

impl<T> Receiver<T> {
    /// Returns how many items there are for this receiver, lost ones excluded.
    pub fn len(&self) -> usize {
        let state = self.shared.state.borrow();
        (state.end - self.next.get().max(state.first())) as usize
    }

    /// Returns whether there is no item for this receiver.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_over(&self) -> bool {
        let state = self.shared.state.borrow();
        self.next.get() < state.end || state.senders == 0
    }
}

/// Another receiver, which has seen what this one has seen.
impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        let mut state = self.shared.state.borrow_mut();
        state.receivers += 1;
        let at = self.next.get().saturating_sub(state.first()) as usize;
        for (_, unseen) in state.items.iter_mut().skip(at) {
            *unseen += 1;
        }
        Self {
            shared: Rc::clone(&self.shared),
            next: self.next.clone(),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let seen = self.shared.state.borrow_mut().leave(self.next.get());
        drop(seen);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("items", &self.len())
            .finish_non_exhaustive()
    }
}

/// Why a receiver got no item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvError {
    /// So many items were overwritten before this receiver had seen them. The next call goes on with
    /// the oldest that is left.
    Lagged(u64),
    /// The wait was cancelled; an item that comes is there for the next call.
    Cancelled(Cancelled),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagged(lost) => TryRecvError::Lagged(*lost).fmt(f),
            Self::Cancelled(cancelled) => cancelled.fmt(f),
        }
    }
}

impl Error for RecvError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Lagged(_) => None,
            Self::Cancelled(cancelled) => Some(cancelled),
        }
    }
}

impl From<Cancelled> for RecvError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl CarriesCancelled for RecvError {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Lagged(_) => None,
            Self::Cancelled(cancelled) => Some(*cancelled),
        }
    }

    fn rest(self) -> Result<Self, Self> {
        match self {
            Self::Lagged(_) => Ok(self),
            Self::Cancelled(_) => Err(self),
        }
    }
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Lagged(_) => Self::other(error),
            RecvError::Cancelled(cancelled) => cancelled.into(),
        }
    }
}

struct Wait<'a, T> {
    receiver: &'a Receiver<T>,
    place: Place,
}

impl<T> Future for Wait<'_, T> {
    type Output = Result<(), Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let is_there = || this.receiver.is_over();
        let waiting = &this.receiver.shared.waiting;
        waiting.poll(&mut this.place, cx, is_there)
    }
}

impl<T> Drop for Wait<'_, T> {
    fn drop(&mut self) {
        self.receiver.shared.waiting.leave(&mut self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_kept_until_the_last_receiver_has_seen_it() {
        let (news, mut first) = bounded(4);
        let mut second = first.clone();
        let item = Rc::new(());
        for _ in 0..3 {
            assert_eq!(news.send(Rc::clone(&item)), Ok(2));
        }
        assert!(first.try_recv().is_ok());
        assert_eq!(Rc::strong_count(&item), 4);
        assert!(second.try_recv().is_ok());
        assert_eq!(Rc::strong_count(&item), 3);
        // It has seen one, as has the one it is a clone of.
        let third = second.clone();
        assert_eq!((second.len(), third.len()), (2, 2));
        drop((second, third));
        assert_eq!(Rc::strong_count(&item), 3);
        drop(first);
        assert_eq!(Rc::strong_count(&item), 1);
        assert!(news.send(item).is_err(), "nobody listens");
    }

    #[test]
    fn one_that_is_overtaken_goes_on_with_the_oldest() {
        let (news, mut slow) = bounded(2);
        for item in 0..7 {
            assert_eq!(news.send(item), Ok(1));
        }
        let late = news.subscribe();
        drop(news);
        assert_eq!(slow.try_recv(), Err(TryRecvError::Lagged(5)));
        assert_eq!((slow.try_recv(), slow.try_recv()), (Ok(5), Ok(6)));
        assert_eq!(slow.try_recv(), Err(TryRecvError::Closed));
        assert!(late.is_empty());
    }

    #[test]
    fn a_receiver_that_lagged_behind_takes_leave_of_what_is_left() {
        let (news, slow) = bounded(2);
        let mut other = news.subscribe();
        for item in 0..5 {
            assert_eq!(news.send(item), Ok(2));
        }
        drop(slow);
        assert_eq!(other.try_recv(), Err(TryRecvError::Lagged(3)));
        assert_eq!((other.try_recv(), other.try_recv()), (Ok(3), Ok(4)));
        assert_eq!(other.try_recv(), Err(TryRecvError::Empty));
    }
}
