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
//! The end of a channel comes to those who wait a few at a time. In between it is closed already to
//! whoever comes.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use super::channel_state::{Channel, Offered, Taken};
use super::errors::TryRecvError;
pub use super::errors::{SendError, TrySendError};
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
    let channel = Arc::new(Channel::new(capacity));
    let sender = Sender {
        channel: Arc::clone(&channel),
    };
    (sender, Receiver { channel })
}

/// The side that sends. Clone it for more senders; with the last of them the channel is closed, and
/// receivers still get what is in it.
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
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
        SendingMany {
            sending: Sending {
                channel: &self.channel,
                item: None,
                place: Place::default(),
            },
            rest: items,
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
        self.channel.try_send(item)
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
        let mut sending = Sending {
            channel: &self.channel,
            item: Some(item),
            place: Place::default(),
        };
        if let Poll::Ready(sent) = sending.begin(|| waker) {
            return sent;
        }
        sending
            .place
            .block(|number| self.channel.has_sent(number, &mut None));
        match sending.collect() {
            None => Ok(()),
            Some(item) => Err(SendError::Closed(item)),
        }
    }

    /// Returns whether a send would find the channel closed.
    pub fn is_closed(&self) -> bool {
        self.channel.refuses()
    }

    /// Returns how many items are in the channel.
    pub fn len(&self) -> usize {
        self.channel.len()
    }

    /// Returns whether no item is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many stand in line to send. It counts them.
    pub fn waiting(&self) -> usize {
        self.channel.sending()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.channel.add_sender();
        Self {
            channel: Arc::clone(&self.channel),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.drop_sender();
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
    channel: Arc<Channel<T>>,
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
        ReceivingMany {
            receiving: Receiving {
                channel: &self.channel,
                place: Place::default(),
            },
            buffer,
            limit,
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
        self.channel.try_recv()
    }

    /// As [`Receiver::recv`], and blocks the calling thread meanwhile. It stands in the same line as
    /// the tasks.
    ///
    /// # Panics
    ///
    /// On a core, which it would block.
    pub fn recv_blocking(&self) -> Option<T> {
        let waker = thread_waker();
        let mut receiving = Receiving {
            channel: &self.channel,
            place: Place::default(),
        };
        if let Poll::Ready(received) = receiving.begin(|| waker) {
            return received;
        }
        receiving
            .place
            .block(|number| self.channel.may_receive(number, &mut None));
        receiving.collect()
    }

    /// Closes the channel: sends fail from here on, also those that wait. What is in it can be
    /// received.
    pub fn close(&self) {
        self.channel.close();
    }

    /// Returns whether nothing will come but what is in the channel.
    pub fn is_closed(&self) -> bool {
        self.channel.has_ended()
    }

    /// Returns how many items are in the channel.
    pub fn len(&self) -> usize {
        self.channel.len()
    }

    /// Returns whether no item is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many stand in line to receive. It counts them.
    pub fn waiting(&self) -> usize {
        self.channel.receiving()
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.channel.add_receiver();
        Self {
            channel: Arc::clone(&self.channel),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let unread = self.channel.drop_receiver();
        drop(unread);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.channel.describe("Receiver", f)
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

impl<T> Sending<'_, T> {
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
            Offered::Closed(item) => Poll::Ready(Err(SendError::Closed(item))),
            Offered::Stands(number) => {
                self.place.stand(made.expect("made just now"), number);
                Poll::Pending
            }
        }
    }

    /// Leaves the line after a wait that has ended; with the item, unless it was sent.
    fn collect(&mut self) -> Option<T> {
        self.place.end(|number| self.channel.end_send(number))?
    }
}

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.place.is_in_line() {
            if let Err(cancelled) = ready!(this.place.entry(cx)) {
                let item = this.item.take().expect("polled after it had ended");
                return Poll::Ready(Err(SendError::Cancelled(item, cancelled)));
            }
            let begun = this.begin(|| cx.waker().clone());
            if begun.is_pending() {
                this.place.register(cx);
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
            (Ok(()), Some(item)) => Err(SendError::Closed(item)),
            (Err(cancelled), Some(item)) => Err(SendError::Cancelled(item, cancelled)),
            (Err(_), None) => unreachable!("who gave up first keeps the item"),
        })
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        let unsent = self.collect();
        drop(unsent);
    }
}

struct SendingMany<'a, T> {
    sending: Sending<'a, T>,
    /// What is not on its way yet.
    rest: &'a mut VecDeque<T>,
}

impl<T> SendingMany<'_, T> {
    /// Puts an item back that was on its way.
    fn keep(&mut self, item: T) {
        self.rest.push_front(item);
    }
}

impl<T> Future for SendingMany<'_, T> {
    type Output = Result<(), SendError<()>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if this.sending.item.is_none() && !this.sending.place.is_in_line() {
                if let Err(cancelled) = ready!(this.sending.place.entry(cx)) {
                    return Poll::Ready(Err(SendError::Cancelled((), cancelled)));
                }
                this.sending.channel.try_send_many(this.rest);
                let Some(next) = this.rest.pop_front() else {
                    return Poll::Ready(Ok(()));
                };
                this.sending.item = Some(next);
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

impl<T> Drop for SendingMany<'_, T> {
    fn drop(&mut self) {
        let unsent = self.sending.item.take();
        if let Some(item) = unsent.or_else(|| self.sending.collect()) {
            self.keep(item);
        }
    }
}

struct Receiving<'a, T> {
    channel: &'a Channel<T>,
    place: Place,
}

impl<T> Receiving<'_, T> {
    /// Receives, or stands in line from now on.
    fn begin(&mut self, waker: impl FnOnce() -> Waker) -> Poll<Option<T>> {
        if let Some(item) = self.channel.recv_past() {
            return Poll::Ready(Some(item));
        }
        // Made for those who stand in line, and dropped outside of the lock.
        let mut waker = Some(waker());
        let mut made = None;
        match self
            .channel
            .recv_or_stand(|| wait_of(&mut waker, &mut made))
        {
            Taken::Received(item) => Poll::Ready(Some(item)),
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
        Some(item)
    }

    /// Leaves the line after a wait that has ended; with the item, if it was promised one.
    fn collect(&mut self) -> Option<T> {
        self.place.end(|number| self.channel.end_recv(number))?
    }
}

impl<T> Future for Receiving<'_, T> {
    type Output = Result<Option<T>, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.place.is_in_line() {
            ready!(this.place.entry(cx))?;
            let begun = this.begin(|| cx.waker().clone());
            if begun.is_pending() {
                this.place.register(cx);
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

impl<T> Drop for Receiving<'_, T> {
    fn drop(&mut self) {
        self.place.end(|number| self.channel.abandon_recv(number));
    }
}

struct ReceivingMany<'a, T> {
    receiving: Receiving<'a, T>,
    buffer: &'a mut Vec<T>,
    limit: usize,
}

impl<T> Future for ReceivingMany<'_, T> {
    type Output = Result<usize, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let channel = this.receiving.channel;
        if !this.receiving.place.is_in_line() {
            ready!(this.receiving.place.entry(cx))?;
            let received = channel.try_recv_many(this.buffer, this.limit);
            if received > 0 || this.limit == 0 {
                return Poll::Ready(Ok(received));
            }
        }
        let Some(first) = ready!(Pin::new(&mut this.receiving).poll(cx))? else {
            return Poll::Ready(Ok(0));
        };
        this.buffer.push(first);
        let more = channel.try_recv_many(this.buffer, this.limit - 1);
        Poll::Ready(Ok(1 + more))
    }
}

/// Makes a wait with this waker, and leaves it in `made` too.
fn wait_of(waker: &mut Option<Waker>, made: &mut Option<Wait>) -> (Wait, Waker) {
    let wait = made.insert(place::new_wait()).clone();
    (wait, waker.take().expect("one wait is made"))
}
