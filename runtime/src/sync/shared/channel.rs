//! A channel of items between cores and threads: many may send, many may receive, and each item is
//! received once.
//!
//! Items are kept in order until they are received. A receiver that waits is *promised* an item when
//! one comes: the item stays, and whoever is promised one takes the oldest when he is polled. So a
//! promise that is given up, because the wait is dropped, passes to the next receiver, and no item
//! overtakes another. A sender that waits keeps its item in the line of senders until there is room.
//!
//! While nobody waits, sends and receives take no lock (`channel_state.rs`); who sends or receives
//! many items at a time pays for the way once.
//!
//! Large items lie in boxes of their own (`kept.rs`).
//!
//! The end of a channel comes to those who wait a few at a time. In between it is closed already to
//! whoever comes.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::channel_state::{Channel, Offered, Taken};
use super::errors::TryRecvError;
pub use super::errors::{SendError, TrySendError};
use super::kept::{Either, Kept, Way, either};
use super::place::{self, Place, thread_waker};
use super::seat::Wait;
use crate::scope::Cancelled;
use crate::scope::park::Look;

/// Makes a channel that holds up to `capacity` items which nobody has received.
///
/// With a capacity of 0 an item is handed over: a send ends when a receiver is there for it.
///
/// First come, first served, on both sides and whichever core they are on: an item goes to the
/// receiver that has waited longest, room to the sender that has waited longest, and nobody overtakes,
/// also not by a `try_` call.
///
/// ```
/// use quoit::sync::shared::channel;
///
/// let (jobs, todo) = channel::bounded(8);
/// let thread = std::thread::spawn(move || {
///     for job in 1..=100 {
///         jobs.send_blocking(job).expect("somebody receives");
///     }
/// });
/// let sum = quoit::block_on(async {
///     let mut sum = 0;
///     while let Some(job) = todo.recv().await? {
///         sum += job;
///     }
///     Ok::<_, quoit::Cancelled>(sum)
/// })??;
/// assert_eq!(sum, 5050);
/// thread.join().unwrap();
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let way = Way::new(capacity);
    (Sender { way: way.clone() }, Receiver { way })
}

/// The side that sends. Clone it for more senders; with the last of them the channel is closed, and
/// receivers still get what is in it.
pub struct Sender<T> {
    way: Way<T>,
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
        match &self.way {
            Way::Plain(channel) => Either::Plain(Sending::new(channel, Some(item))),
            Way::Boxed(channel) => Either::Boxed(Sending::new(channel, Some(item))),
        }
    }

    /// Sends all that is in `items`, in order, and waits for room where there is none. What is sent is
    /// taken out of `items`.
    ///
    /// Many items cost less than as many calls of [`Sender::send`]. Other senders' items may come in
    /// between.
    ///
    /// Cancelled, closed, or dropped before it ended, it leaves what was not sent in `items`, in order.
    ///
    /// # Errors
    ///
    /// [`SendError`]: closed, if the last receiver is gone; cancelled, if a scope around is cancelled
    /// first.
    pub async fn send_many(&self, items: &mut VecDeque<T>) -> Result<(), SendError<()>> {
        match &self.way {
            Way::Plain(channel) => Either::Plain(SendingMany::new(channel, items)),
            Way::Boxed(channel) => Either::Boxed(SendingMany::new(channel, items)),
        }
        .await
    }

    /// Sends an item if there is room for it and nobody waits to send.
    ///
    /// # Errors
    ///
    /// [`TrySendError`], with the item: full, if [`Sender::send`] would have to wait; closed, if the
    /// last receiver is gone.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        either!(&self.way, channel => {
            let sent = channel.try_send(Kept::keep(item));
            sent.map_err(|error| match error {
                TrySendError::Full(item) => TrySendError::Full(item.given()),
                TrySendError::Closed(item) => TrySendError::Closed(item.given()),
            })
        })
    }

    /// As [`Sender::send`], and blocks the calling thread meanwhile. It stands in the same line as the
    /// tasks.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`], with the item.
    ///
    /// # Panics
    ///
    /// On a core, which it would block.
    pub fn send_blocking(&self, item: T) -> Result<(), SendError<T>> {
        let waker = thread_waker();
        either!(&self.way, channel => Sending::new(channel, Some(item)).block(waker))
    }

    /// Returns whether a send would find the channel closed.
    pub fn is_closed(&self) -> bool {
        either!(&self.way, channel => channel.refuses())
    }

    /// Returns how many items are in the channel.
    pub fn len(&self) -> usize {
        either!(&self.way, channel => channel.len())
    }

    /// Returns whether no item is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many stand in line to send. It counts them.
    pub fn waiting(&self) -> usize {
        either!(&self.way, channel => channel.sending())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        either!(&self.way, channel => channel.add_sender());
        Self {
            way: self.way.clone(),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        either!(&self.way, channel => channel.drop_sender());
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        either!(&self.way, channel => channel.describe("Sender", f))
    }
}

/// The side that receives. Clone it for more receivers, which share the items; with the last of them
/// the channel is closed, and what is in it is dropped.
pub struct Receiver<T> {
    way: Way<T>,
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
        match &self.way {
            Way::Plain(channel) => Either::Plain(Receiving::new(channel)),
            Way::Boxed(channel) => Either::Boxed(Receiving::new(channel)),
        }
    }

    /// Receives what is there, up to `limit` items, and appends it to `buffer`; waits until there is
    /// something. Returns how many it has received. 0: the channel is closed, and empty, or `limit`
    /// is 0.
    ///
    /// Many items cost less than as many calls of [`Receiver::recv`].
    ///
    /// Cancelled, or dropped before it ended, it has received nothing.
    ///
    /// ```
    /// # quoit::block_on(async {
    /// let (sender, receiver) = quoit::sync::shared::channel::bounded(8);
    /// sender.send_many(&mut (1..=5).collect()).await?;
    /// drop(sender);
    /// let mut items = Vec::new();
    /// while receiver.recv_many(&mut items, 32).await? > 0 {}
    /// assert_eq!(items, [1, 2, 3, 4, 5]);
    /// # Ok::<_, std::io::Error>(())
    /// # })??;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled before there was an item for this call.
    pub async fn recv_many(&self, buffer: &mut Vec<T>, limit: usize) -> Result<usize, Cancelled> {
        match &self.way {
            Way::Plain(channel) => Either::Plain(ReceivingMany::new(channel, buffer, limit)),
            Way::Boxed(channel) => Either::Boxed(ReceivingMany::new(channel, buffer, limit)),
        }
        .await
    }

    /// Receives an item if one is there that nobody was promised who waited for it.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], if [`Receiver::recv`] would have to wait; [`TryRecvError::Closed`], if
    /// the channel is closed and empty.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        either!(&self.way, channel => channel.try_recv().map(Kept::given))
    }

    /// As [`Receiver::recv`], and blocks the calling thread meanwhile. It stands in the same line as
    /// the tasks.
    ///
    /// # Panics
    ///
    /// On a core, which it would block.
    pub fn recv_blocking(&self) -> Option<T> {
        let waker = thread_waker();
        either!(&self.way, channel => Receiving::new(channel).block(waker))
    }

    /// Closes the channel: sends fail from here on, also those that wait. What is in it can be
    /// received.
    pub fn close(&self) {
        either!(&self.way, channel => channel.close());
    }

    /// Returns whether nothing will come but what is in the channel.
    pub fn is_closed(&self) -> bool {
        either!(&self.way, channel => channel.has_ended())
    }

    /// Returns how many items are in the channel.
    pub fn len(&self) -> usize {
        either!(&self.way, channel => channel.len())
    }

    /// Returns whether no item is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many stand in line to receive. It counts them.
    pub fn waiting(&self) -> usize {
        either!(&self.way, channel => channel.receiving())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        either!(&self.way, channel => channel.add_receiver());
        Self {
            way: self.way.clone(),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        either!(&self.way, channel => {
            let unread = channel.drop_receiver();
            drop(unread);
        });
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        either!(&self.way, channel => channel.describe("Receiver", f))
    }
}

struct Sending<'a, T, I: Kept<T>> {
    channel: &'a Channel<I>,
    /// Until it stands in line.
    item: Option<I>,
    place: Place,
    of: PhantomData<T>,
}

/// The item is moved in and out; nothing points to it.
impl<T, I: Kept<T>> Unpin for Sending<'_, T, I> {}

impl<'a, T, I: Kept<T>> Sending<'a, T, I> {
    fn new(channel: &'a Channel<I>, item: Option<T>) -> Self {
        Self {
            channel,
            item: item.map(I::keep),
            place: Place::default(),
            of: PhantomData,
        }
    }

    /// Sends, and blocks this thread until that is done.
    fn block(mut self, waker: Waker) -> Result<(), SendError<T>> {
        if let Poll::Ready(sent) = self.begin(|| waker) {
            return sent;
        }
        let channel = self.channel;
        self.place
            .block(|number| channel.has_sent(number, &mut None));
        match self.collect() {
            None => Ok(()),
            Some(item) => Err(SendError::Closed(item.given())),
        }
    }

    /// Sends, or stands in line from now on.
    fn begin(&mut self, waker: impl FnOnce() -> Waker) -> Poll<Result<(), SendError<T>>> {
        let item = self.item.take().expect("polled after it had ended");
        let item = match self.channel.send_past(item) {
            Ok(()) => return Poll::Ready(Ok(())),
            Err(item) => item,
        };
        // Made for those who stand in line, and dropped outside of the lock.
        let mut waker = Some(waker());
        let mut made = None;
        let offered = self
            .channel
            .send_or_stand(item, || wait_of(&mut waker, &mut made));
        match offered {
            Offered::Sent => Poll::Ready(Ok(())),
            Offered::Closed(item) => Poll::Ready(Err(SendError::Closed(item.given()))),
            Offered::Stands(number) => {
                self.place.stand(made.expect("made just now"), number);
                Poll::Pending
            }
        }
    }

    /// Leaves the line after a wait that has ended; with the item, unless it was sent.
    fn collect(&mut self) -> Option<I> {
        self.place.end(|number| self.channel.end_send(number))?
    }
}

impl<T, I: Kept<T>> Future for Sending<'_, T, I> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.place.is_in_line() {
            if let Err(cancelled) = ready!(this.place.entry(cx)) {
                let item = this.item.take().expect("polled after it had ended");
                return Poll::Ready(Err(SendError::Cancelled(item.given(), cancelled)));
            }
            let begun = this.begin(|| cx.waker().clone());
            match begun.is_pending() {
                true => this.place.register(cx),
                false => this.place.note_at_once(1),
            }
            return begun;
        }
        let channel = this.channel;
        let outcome = match this
            .place
            .look(cx, |number, waker| channel.has_sent(number, waker))
        {
            Look::Waiting => return Poll::Pending,
            Look::Ready => Ok(()),
            Look::Aborted(cancelled) => Err(cancelled),
        };
        let item = this.collect();
        Poll::Ready(match (outcome, item) {
            (Ok(()), None) => Ok(()),
            (Ok(()), Some(item)) => Err(SendError::Closed(item.given())),
            (Err(cancelled), Some(item)) => Err(SendError::Cancelled(item.given(), cancelled)),
            (Err(_), None) => unreachable!("who gave up first keeps the item"),
        })
    }
}

impl<T, I: Kept<T>> Drop for Sending<'_, T, I> {
    fn drop(&mut self) {
        let unsent = self.collect();
        drop(unsent);
    }
}

struct SendingMany<'a, T, I: Kept<T>> {
    sending: Sending<'a, T, I>,
    /// What is not on its way yet.
    rest: &'a mut VecDeque<T>,
}

impl<'a, T, I: Kept<T>> SendingMany<'a, T, I> {
    fn new(channel: &'a Channel<I>, items: &'a mut VecDeque<T>) -> Self {
        Self {
            sending: Sending::new(channel, None),
            rest: items,
        }
    }

    /// Puts an item back that was on its way.
    fn keep(&mut self, item: T) {
        self.rest.push_front(item);
    }
}

impl<T, I: Kept<T>> Future for SendingMany<'_, T, I> {
    type Output = Result<(), SendError<()>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if this.sending.item.is_none() && !this.sending.place.is_in_line() {
                if let Err(cancelled) = ready!(this.sending.place.entry(cx)) {
                    return Poll::Ready(Err(SendError::Cancelled((), cancelled)));
                }
                let before = this.rest.len();
                this.sending.channel.try_send_many(this.rest);
                this.sending.place.note_at_once(before - this.rest.len());
                let Some(next) = this.rest.pop_front() else {
                    return Poll::Ready(Ok(()));
                };
                this.sending.item = Some(I::keep(next));
            }
            match ready!(Pin::new(&mut this.sending).poll(cx)) {
                Ok(()) => {}
                Err(SendError::Closed(item)) => {
                    this.keep(item);
                    return Poll::Ready(Err(SendError::Closed(())));
                }
                Err(SendError::Cancelled(item, cancelled)) => {
                    this.keep(item);
                    return Poll::Ready(Err(SendError::Cancelled((), cancelled)));
                }
            }
        }
    }
}

impl<T, I: Kept<T>> Drop for SendingMany<'_, T, I> {
    fn drop(&mut self) {
        let unsent = self.sending.item.take();
        if let Some(item) = unsent.or_else(|| self.sending.collect()) {
            self.keep(item.given());
        }
    }
}

struct Receiving<'a, T, I: Kept<T>> {
    channel: &'a Channel<I>,
    place: Place,
    of: PhantomData<T>,
}

/// Nothing of an item is here.
impl<T, I: Kept<T>> Unpin for Receiving<'_, T, I> {}

impl<'a, T, I: Kept<T>> Receiving<'a, T, I> {
    fn new(channel: &'a Channel<I>) -> Self {
        Self {
            channel,
            place: Place::default(),
            of: PhantomData,
        }
    }

    /// Receives, and blocks this thread until that is done.
    fn block(mut self, waker: Waker) -> Option<T> {
        if let Poll::Ready(received) = self.begin(|| waker) {
            return received;
        }
        let channel = self.channel;
        self.place
            .block(|number| channel.may_receive(number, &mut None));
        self.collect()
    }

    /// Receives, or stands in line from now on.
    fn begin(&mut self, waker: impl FnOnce() -> Waker) -> Poll<Option<T>> {
        if let Some(item) = self.channel.recv_past() {
            return Poll::Ready(Some(item.given()));
        }
        // Made for those who stand in line, and dropped outside of the lock.
        let mut waker = Some(waker());
        let mut made = None;
        match self
            .channel
            .recv_or_stand(|| wait_of(&mut waker, &mut made))
        {
            Taken::Received(item) => Poll::Ready(Some(item.given())),
            Taken::Closed => Poll::Ready(None),
            Taken::Stands(number) => {
                self.place.stand(made.expect("made just now"), number);
                Poll::Pending
            }
        }
    }

    /// Leaves the line with the item, if it is seen at a glance that it was promised one.
    fn collect_promised(&mut self) -> Option<T> {
        let number = self.place.number()?;
        // It looks for cancels on its way, of which one may be for this wait.
        let item = self.place.looking(|| self.channel.try_end_recv(number))?;
        self.place.end(drop);
        Some(item.given())
    }

    /// Leaves the line after a wait that has ended; with the item, if it was promised one.
    fn collect(&mut self) -> Option<T> {
        let item = self.place.end(|number| self.channel.end_recv(number))?;
        item.map(I::given)
    }
}

impl<T, I: Kept<T>> Future for Receiving<'_, T, I> {
    type Output = Result<Option<T>, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.place.is_in_line() {
            ready!(this.place.entry(cx))?;
            let begun = this.begin(|| cx.waker().clone());
            match begun.is_pending() {
                true => this.place.register(cx),
                false => this.place.note_at_once(1),
            }
            return begun.map(Ok);
        }
        if let Some(item) = this.collect_promised() {
            return Poll::Ready(Ok(Some(item)));
        }
        let channel = this.channel;
        let outcome = match this
            .place
            .look(cx, |number, waker| channel.may_receive(number, waker))
        {
            Look::Waiting => return Poll::Pending,
            Look::Ready => Ok(()),
            Look::Aborted(cancelled) => Err(cancelled),
        };
        let item = this.collect();
        Poll::Ready(outcome.map(|()| item))
    }
}

impl<T, I: Kept<T>> Drop for Receiving<'_, T, I> {
    fn drop(&mut self) {
        self.place.end(|number| self.channel.abandon_recv(number));
    }
}

struct ReceivingMany<'a, T, I: Kept<T>> {
    receiving: Receiving<'a, T, I>,
    buffer: &'a mut Vec<T>,
    limit: usize,
}

impl<'a, T, I: Kept<T>> ReceivingMany<'a, T, I> {
    fn new(channel: &'a Channel<I>, buffer: &'a mut Vec<T>, limit: usize) -> Self {
        Self {
            receiving: Receiving::new(channel),
            buffer,
            limit,
        }
    }
}

impl<T, I: Kept<T>> Future for ReceivingMany<'_, T, I> {
    type Output = Result<usize, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let channel = this.receiving.channel;
        if !this.receiving.place.is_in_line() {
            ready!(this.receiving.place.entry(cx))?;
            let received = channel.try_recv_many(this.buffer, this.limit);
            if received > 0 || this.limit == 0 {
                this.receiving.place.note_at_once(received);
                return Poll::Ready(Ok(received));
            }
        }
        let Some(first) = ready!(Pin::new(&mut this.receiving).poll(cx))? else {
            return Poll::Ready(Ok(0));
        };
        this.buffer.push(first);
        let more = channel.try_recv_many(this.buffer, this.limit - 1);
        this.receiving.place.note_at_once(more);
        Poll::Ready(Ok(1 + more))
    }
}

/// Makes a wait with this waker, and leaves it in `made` too.
fn wait_of(waker: &mut Option<Waker>, made: &mut Option<Wait>) -> (Wait, Waker) {
    let wait = made.insert(place::new_wait()).clone();
    (wait, waker.take().expect("one wait is made"))
}
