//! A channel of items: many may send, many may receive, and each item is received once.
//!
//! Items lie in one queue until they are received. A receiver that waits is *promised* an item when
//! one comes: the item stays where it is, and whoever is promised one takes the oldest when he is
//! polled. So a promise that is given up, because the wait is dropped, passes to the next receiver
//! without an item moving, and items are received in the order in which they were sent. A sender that
//! waits keeps its item in the line of senders until there is room.
//!
//! ```text
//!   senders in line        queue                              receivers in line
//!   [item] [item] ──room──► [ free ... free | promised ... ] ──promise──► woken ──poll──► item
//!      ▲                        ▲
//!      └── send, full           └── send, room
//! ```
//!
//! Invariants, where "waits" excludes those who were aborted:
//! - While a receiver waits, no item is free.
//! - While a sender waits, there is no room, and in a channel without room no receiver waits.
//! - An item is in one place: its sender's line, the queue, or a receiver's hands.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::TryRecvError;
use super::wait_list::{self, Heeds, Line, Place, Standing};
use crate::scope::Cancelled;
use crate::scope::park::Look;

/// Makes a channel that holds up to `capacity` items which nobody has received.
///
/// With a capacity of 0 an item is handed over: a send ends when a receiver is there for it.
///
/// First come, first served, on both sides: an item goes to the receiver that has waited longest, room
/// to the sender that has waited longest, and nobody overtakes, also not by a `try_` call.
///
/// ```
/// use quoit::sync::channel;
///
/// quoit::block_on(async {
///     let (jobs, todo) = channel::bounded(8);
///     let worker = quoit::spawn(async move {
///         let mut sum = 0;
///         while let Some(job) = todo.recv().await? {
///             sum += job;
///         }
///         Ok::<_, quoit::Cancelled>(sum)
///     });
///     for job in 1..=100 {
///         jobs.send(job).await?;
///     }
///     drop(jobs);
///     assert_eq!(worker.await.expect("the task ended"), Ok(5050));
///     Ok::<_, std::io::Error>(())
/// })??;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let channel = Rc::new(Channel {
        state: RefCell::new(State {
            capacity,
            queue: VecDeque::new(),
            promised: 0,
            senders: 1,
            receivers: 1,
            shut: false,
            sending: Line::default(),
            receiving: Line::default(),
        }),
    });
    let sender = Sender {
        channel: Rc::clone(&channel),
    };
    (sender, Receiver { channel })
}

struct Channel<T> {
    state: RefCell<State<T>>,
}

struct State<T> {
    capacity: usize,
    queue: VecDeque<T>,
    /// How many of these are promised to receivers that have not been polled since.
    promised: usize,
    senders: usize,
    receivers: usize,
    /// No more is taken in, though there are receivers.
    shut: bool,
    /// With what each wants to send; taken out when it went into the queue.
    sending: Line<Option<T>>,
    /// With whether each was promised an item.
    receiving: Line<bool>,
}

impl<T> State<T> {
    fn free(&self) -> usize {
        self.queue.len() - self.promised
    }

    fn refuses(&self) -> bool {
        self.shut || self.receivers == 0
    }

    /// Those who were aborted, and were not looked at since, count.
    fn somebody_waits(&self) -> bool {
        !(self.sending.is_empty() && self.receiving.is_empty())
    }

    /// Returns whether nothing is there, promised or not, and nothing will come.
    fn is_over(&self) -> bool {
        (self.refuses() || self.senders == 0) && self.queue.is_empty()
    }

    /// Takes an item in, for a receiver that waits or where there is room; with the waker of that
    /// receiver.
    fn offer(&mut self, item: T) -> Result<Option<Waker>, TrySendError<T>> {
        if self.refuses() {
            return Err(TrySendError::Closed(item));
        }
        let receiver = self.promise();
        if receiver.is_none() && self.free() >= self.capacity {
            return Err(TrySendError::Full(item));
        }
        self.queue.push_back(item);
        Ok(receiver)
    }

    /// Promises an item to the first receiver that waits.
    fn promise(&mut self) -> Option<Waker> {
        let (promised, waker) = self.receiving.choose()?;
        *promised = true;
        self.promised += 1;
        Some(waker)
    }

    /// Takes an item that nobody was promised; with the waker of the sender that handed it over.
    fn take(&mut self) -> Result<(T, Option<Waker>), TryRecvError> {
        let mut sender = None;
        if self.free() == 0 {
            if self.capacity == 0 && !self.refuses() {
                // Behind those that are promised, which are older: any of them will do for those.
                sender = self.take_in();
            }
            if sender.is_none() {
                return Err(if self.is_over() {
                    TryRecvError::Closed
                } else {
                    TryRecvError::Empty
                });
            }
        }
        let item = self.queue.pop_front();
        Ok((item.expect("a free item is in the queue"), sender))
    }

    /// Moves the item of the first sender that waits into the queue.
    fn take_in(&mut self) -> Option<Waker> {
        let (item, waker) = self.sending.choose()?;
        let item = item.take().expect("a sender in line has its item");
        self.queue.push_back(item);
        Some(waker)
    }

    /// Hands on what there is: room to a sender, an item or the end to a receiver. Returns whom to
    /// wake.
    fn hand_out(&mut self) -> Option<Waker> {
        if self.refuses() {
            // Each finds its item where it was.
            if let Some((_, waker)) = self.sending.choose() {
                return Some(waker);
            }
        } else if self.free() < self.capacity
            && let Some(waker) = self.take_in()
        {
            return Some(waker);
        }
        if self.free() > 0 {
            self.promise()
        } else if self.is_over() {
            self.receiving.choose().map(|(_, waker)| waker)
        } else {
            None
        }
    }
}

impl<T> Channel<T> {
    fn settle(&self) {
        if self.state.borrow().somebody_waits() {
            wait_list::settle(|| self.state.borrow_mut().hand_out());
        }
    }

    /// The caller has seen the cancels that were asked for so far.
    fn send_now(&self, item: T) -> Result<(), TrySendError<T>> {
        let receiver = self.state.borrow_mut().offer(item)?;
        if receiver.is_some() {
            wait_list::wake_each(receiver);
        }
        Ok(())
    }

    /// The caller has seen the cancels that were asked for so far.
    fn recv_now(&self) -> Result<T, TryRecvError> {
        let taken = self.state.borrow_mut().take();
        let (item, sender) = taken?;
        if sender.is_some() {
            wait_list::wake_each(sender);
        }
        self.settle();
        Ok(item)
    }

    fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        wait_list::see_cancels();
        self.send_now(item)
    }

    fn try_recv(&self) -> Result<T, TryRecvError> {
        wait_list::see_cancels();
        self.recv_now()
    }
}

/// The side that sends. Clone it for more senders; with the last of them the channel is closed, and
/// receivers still get what is in it.
pub struct Sender<T> {
    channel: Rc<Channel<T>>,
}

impl<T> Sender<T> {
    /// Sends an item; waits until there is room for it, or, in a channel without room, until a
    /// receiver is there.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the item: closed, if the last receiver is gone; cancelled, if a scope around
    /// is cancelled first. Then the item was never in the channel.
    pub fn send(&self, item: T) -> impl Future<Output = Result<(), SendError<T>>> {
        Sending {
            channel: &self.channel,
            item: Some(item),
            place: Place::default(),
        }
    }

    /// Sends an item if there is room for it and nobody waits to send.
    ///
    /// # Errors
    ///
    /// [`TrySendError`], with the item: full, if [`Sender::send`] would have to wait; closed, if the
    /// last receiver is gone.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        self.channel.try_send(item)
    }

    /// Returns whether a send would find the channel closed.
    pub fn is_closed(&self) -> bool {
        self.channel.state.borrow().refuses()
    }

    /// Returns how many items are in the channel.
    pub fn len(&self) -> usize {
        self.channel.state.borrow().queue.len()
    }

    /// Returns whether no item is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many stand in line to send.
    pub fn waiting(&self) -> usize {
        self.channel.state.borrow().sending.len()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.channel.state.borrow_mut().senders += 1;
        Self {
            channel: Rc::clone(&self.channel),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.channel.state.borrow_mut();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.channel.settle();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.channel.describe("Sender", f)
    }
}

/// The side that receives. Clone it for more receivers, which share the items; with the last of them
/// the channel is closed, and what is in it is dropped.
pub struct Receiver<T> {
    channel: Rc<Channel<T>>,
}

impl<T> Receiver<T> {
    /// Receives an item; waits until there is one. `None`: the channel is closed, and empty.
    ///
    /// Cancelled, or dropped before it ended, it has received nothing: the item is the next
    /// receiver's.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled before there was an item for this call.
    pub fn recv(&self) -> impl Future<Output = Result<Option<T>, Cancelled>> {
        Receiving {
            channel: &self.channel,
            place: Place::default(),
        }
    }

    /// Receives an item if one is there that nobody was promised who waited for it.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], if [`Receiver::recv`] would have to wait; [`TryRecvError::Closed`], if
    /// the channel is closed and empty.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.channel.try_recv()
    }

    /// Closes the channel: sends fail from here on, also those that wait. What is in it can be
    /// received.
    pub fn close(&self) {
        self.channel.state.borrow_mut().shut = true;
        self.channel.settle();
    }

    /// Returns whether nothing will come but what is in the channel.
    pub fn is_closed(&self) -> bool {
        let state = self.channel.state.borrow();
        state.refuses() || state.senders == 0
    }

    /// Returns how many items are in the channel.
    pub fn len(&self) -> usize {
        self.channel.state.borrow().queue.len()
    }

    /// Returns whether no item is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many stand in line to receive.
    pub fn waiting(&self) -> usize {
        self.channel.state.borrow().receiving.len()
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.channel.state.borrow_mut().receivers += 1;
        Self {
            channel: Rc::clone(&self.channel),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let unread = {
            let mut state = self.channel.state.borrow_mut();
            state.receivers -= 1;
            if state.receivers > 0 {
                return;
            }
            state.promised = 0;
            std::mem::take(&mut state.queue)
        };
        // First the wakes: a destructor may panic.
        self.channel.settle();
        drop(unread);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.channel.describe("Receiver", f)
    }
}

impl<T> Channel<T> {
    fn describe(&self, side: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        f.debug_struct(side)
            .field("items", &state.queue.len())
            .field("capacity", &state.capacity)
            .field("senders", &state.senders)
            .field("receivers", &state.receivers)
            .finish_non_exhaustive()
    }
}

/// Why an item was not sent; here it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// There is no receiver any more.
    Closed(T),
    /// The send was cancelled first.
    Cancelled(T, Cancelled),
}

impl<T> SendError<T> {
    /// Returns the item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Closed(item) | Self::Cancelled(item, _) => item,
        }
    }

    /// Returns the cancellation, if that is why.
    pub fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Closed(_) => None,
            Self::Cancelled(_, cancelled) => Some(*cancelled),
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendError({self})")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(_) => f.write_str(CLOSED),
            Self::Cancelled(_, cancelled) => cancelled.fmt(f),
        }
    }
}

impl<T> Error for SendError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Closed(_) => None,
            Self::Cancelled(_, cancelled) => Some(cancelled),
        }
    }
}

/// The item is dropped.
impl<T> From<SendError<T>> for io::Error {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Closed(_) => Self::new(io::ErrorKind::BrokenPipe, CLOSED),
            SendError::Cancelled(_, cancelled) => cancelled.into(),
        }
    }
}

/// Why an item was not sent at once; here it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room, or somebody waits for it already.
    Full(T),
    /// There is no receiver any more.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// Returns the item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) => item,
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrySendError({self})")
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => FULL,
            Self::Closed(_) => CLOSED,
        })
    }
}

impl<T> Error for TrySendError<T> {}

/// The item is dropped.
impl<T> From<TrySendError<T>> for io::Error {
    fn from(error: TrySendError<T>) -> Self {
        match error {
            TrySendError::Full(_) => Self::new(io::ErrorKind::WouldBlock, FULL),
            TrySendError::Closed(_) => Self::new(io::ErrorKind::BrokenPipe, CLOSED),
        }
    }
}

struct Sending<'a, T> {
    channel: &'a Channel<T>,
    /// Until it stands in line.
    item: Option<T>,
    place: Place,
}

/// The item is moved in and out; nothing points to it.
impl<T> Unpin for Sending<'_, T> {}

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let state = &this.channel.state;
        if !this.place.is_in_line() {
            let mut copy = None;
            loop {
                let entered = ready!(this.place.entry(cx));
                let item = this.item.take().expect("polled after it had ended");
                if let Err(cancelled) = entered {
                    return Poll::Ready(Err(SendError::Cancelled(item, cancelled)));
                }
                let offered = this.channel.send_now(item);
                let item = match offered {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(TrySendError::Closed(item)) => {
                        return Poll::Ready(Err(SendError::Closed(item)));
                    }
                    Err(TrySendError::Full(item)) => item,
                };
                if this.place.try_register(Heeds::Cancels, cx, &mut copy) {
                    let mut state = state.borrow_mut();
                    state.sending.push(&mut this.place, Some(item));
                    return Poll::Pending;
                }
                this.item = Some(item);
            }
        }
        let outcome = match this.place.look(cx) {
            Look::Waiting => return Poll::Pending,
            Look::Ready => Ok(()),
            Look::Aborted(cancelled) => Err(cancelled),
        };
        let left = state.borrow_mut().sending.remove(&mut this.place);
        this.place.end();
        let item = left.and_then(|(_, item)| item);
        Poll::Ready(match (outcome, item) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(item)) => Err(SendError::Closed(item)),
            (Err(cancelled), Some(item)) => Err(SendError::Cancelled(item, cancelled)),
            (Err(_), None) => unreachable!("who was aborted first keeps the item"),
        })
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        let left = self
            .channel
            .state
            .borrow_mut()
            .sending
            .remove(&mut self.place);
        drop(left);
    }
}

struct Receiving<'a, T> {
    channel: &'a Channel<T>,
    place: Place,
}

impl<T> Future for Receiving<'_, T> {
    type Output = Result<Option<T>, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let state = &this.channel.state;
        if !this.place.is_in_line() {
            let mut copy = None;
            loop {
                ready!(this.place.entry(cx))?;
                match this.channel.recv_now() {
                    Ok(item) => return Poll::Ready(Ok(Some(item))),
                    Err(TryRecvError::Closed) => return Poll::Ready(Ok(None)),
                    Err(_) => {}
                }
                if this.place.try_register(Heeds::Cancels, cx, &mut copy) {
                    state.borrow_mut().receiving.push(&mut this.place, false);
                    return Poll::Pending;
                }
            }
        }
        let was_chosen = state.borrow().receiving.has_chosen(&this.place);
        let outcome = if was_chosen {
            this.place.end_chosen();
            Ok(())
        } else {
            match this.place.look(cx) {
                Look::Waiting => return Poll::Pending,
                Look::Ready => Ok(()),
                Look::Aborted(cancelled) => Err(cancelled),
            }
        };
        let item = {
            let mut state = state.borrow_mut();
            match state.receiving.remove(&mut this.place) {
                Some((Standing::Chosen, true)) => {
                    state.promised -= 1;
                    let item = state.queue.pop_front();
                    Some(item.expect("what is promised is in the queue"))
                }
                _ => None,
            }
        };
        this.place.end();
        if item.is_some() {
            // It may have been the last, and others wait for the end.
            this.channel.settle();
        }
        Poll::Ready(outcome.map(|()| item))
    }
}

impl<T> Drop for Receiving<'_, T> {
    fn drop(&mut self) {
        let left = self
            .channel
            .state
            .borrow_mut()
            .receiving
            .remove(&mut self.place);
        if let Some((Standing::Chosen, true)) = left {
            self.channel.state.borrow_mut().promised -= 1;
            self.channel.settle();
        }
    }
}

const FULL: &str = "the channel is full";
const CLOSED: &str = "the channel is closed: nobody receives from it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_free_until_somebody_is_promised_them() {
        let (sender, receiver) = bounded(2);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Ok(()));
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        receiver.channel.state.borrow_mut().promised = 1;
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        drop(sender);
        assert_eq!(
            receiver.try_recv(),
            Err(TryRecvError::Empty),
            "one is on its way"
        );
        receiver.channel.state.borrow_mut().promised = 0;
        assert_eq!(receiver.try_recv(), Ok(2));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
    }

    #[test]
    fn values_may_borrow() {
        let text = "borrowed".to_owned();
        let (sender, receiver) = bounded::<&str>(1);
        assert_eq!(sender.try_send(&text), Ok(()));
        assert_eq!(receiver.try_recv(), Ok("borrowed"));
        drop(receiver);
        let refused = sender.try_send(&text).expect_err("nobody receives");
        assert_eq!(io::Error::from(refused).kind(), io::ErrorKind::BrokenPipe);
    }
}
