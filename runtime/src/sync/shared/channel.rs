//! A channel of items between cores and threads: many may send, many may receive, and each item is
//! received once.
//!
//! Items lie in one queue until they are received. A receiver that waits is *promised* an item when
//! one comes: the item stays where it is, and whoever is promised one takes the oldest when he is
//! polled. So a promise that is given up, because the wait is dropped, passes to the next receiver
//! without an item moving. A sender that waits keeps its item in the line of senders until there is
//! room.
//!
//! Invariants, whenever the lock is free, where "waits" excludes those who gave up:
//! - While a receiver waits, no item is free, and the channel can still bring one.
//! - While a sender waits, there is no room, and in a channel without room no receiver waits.
//! - An item is in one place: its sender's line, the queue, or somebody's hands.
//!
//! The end of a channel comes to those who wait a few at a time. In between it is closed already to
//! whoever comes.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use super::errors::TryRecvError;
pub use super::errors::{SendError, TrySendError};
use super::line::{self, Chosen, HandsOut, Line};
use super::lock::Lock;
use super::place::{Place, thread_waker};
use super::seat::Seat;
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
        sending.place.block();
        match sending.collect() {
            None => Ok(()),
            Some(item) => Err(SendError::Closed(item)),
        }
    }

    /// Returns whether a send would find the channel closed.
    pub fn is_closed(&self) -> bool {
        self.channel.state.lock().refuses()
    }

    /// Returns how many items are in the channel.
    pub fn len(&self) -> usize {
        self.channel.state.lock().queue.len()
    }

    /// Returns whether no item is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many stand in line to send. It counts them.
    pub fn waiting(&self) -> usize {
        self.channel.state.lock().sending.waiting()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.channel.state.lock().senders += 1;
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
        receiving.place.block();
        receiving.collect()
    }

    /// Closes the channel: sends fail from here on, also those that wait. What is in it can be
    /// received.
    pub fn close(&self) {
        self.channel.close();
    }

    /// Returns whether nothing will come but what is in the channel.
    pub fn is_closed(&self) -> bool {
        let state = self.channel.state.lock();
        state.refuses() || state.senders == 0
    }

    /// Returns how many items are in the channel.
    pub fn len(&self) -> usize {
        self.channel.state.lock().queue.len()
    }

    /// Returns whether no item is in the channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many stand in line to receive. It counts them.
    pub fn waiting(&self) -> usize {
        self.channel.state.lock().receiving.waiting()
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.channel.state.lock().receivers += 1;
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

/// What both sides share. Knows nothing of tasks and scopes.
struct Channel<T> {
    state: Lock<State<T>>,
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

    /// Returns whether nothing is there, promised or not, and nothing will come.
    fn is_over(&self) -> bool {
        (self.refuses() || self.senders == 0) && self.queue.is_empty()
    }

    /// Takes an item in, for a receiver that waits or where there is room.
    fn offer(&mut self, item: T, chosen: &mut Chosen) -> Result<(), TrySendError<T>> {
        if self.refuses() {
            return Err(TrySendError::Closed(item));
        }
        match self.promise() {
            Some(receiver) => chosen.add(receiver),
            None if self.free() >= self.capacity => return Err(TrySendError::Full(item)),
            None => {}
        }
        self.queue.push_back(item);
        Ok(())
    }

    /// Promises an item to the first receiver that waits.
    fn promise(&mut self) -> Option<Arc<Seat>> {
        let (promised, seat) = self.receiving.choose()?;
        *promised = true;
        self.promised += 1;
        Some(seat)
    }

    /// Takes an item that nobody was promised; from its sender, where there is no queue.
    fn take(&mut self, chosen: &mut Chosen) -> Result<T, TryRecvError> {
        if self.free() > 0 {
            let item = self.queue.pop_front();
            return Ok(item.expect("a free item is in the queue"));
        }
        if self.capacity == 0
            && !self.refuses()
            && let Some((item, seat)) = self.sending.choose()
        {
            chosen.add(seat);
            return Ok(item.take().expect("a sender in line has its item"));
        }
        Err(if self.is_over() {
            TryRecvError::Closed
        } else {
            TryRecvError::Empty
        })
    }
}

impl<T> HandsOut for State<T> {
    /// Room goes to a sender, an item or the end to a receiver.
    fn hand_out(&mut self) -> Option<Arc<Seat>> {
        if self.refuses() {
            // Each finds its item where it was.
            if let Some((_, seat)) = self.sending.choose() {
                return Some(seat);
            }
        } else if self.free() < self.capacity
            && let Some((item, seat)) = self.sending.choose()
        {
            let item = item.take().expect("a sender in line has its item");
            self.queue.push_back(item);
            return Some(seat);
        }
        if self.free() > 0 {
            self.promise()
        } else if self.is_over() {
            self.receiving.choose().map(|(_, seat)| seat)
        } else {
            None
        }
    }
}

/// What became of a send that may have to wait.
enum Offered<T> {
    Sent,
    Closed(T),
    /// It stands in line with this number, and the item with it.
    Stands(u64),
}

/// What became of a receive that may have to wait.
enum Taken<T> {
    Received(T),
    Closed,
    /// It stands in line with this number.
    Stands(u64),
}

impl<T> Channel<T> {
    fn new(capacity: usize) -> Self {
        Self {
            state: Lock::new(State {
                capacity,
                queue: VecDeque::new(),
                promised: 0,
                senders: 1,
                receivers: 1,
                shut: false,
                sending: Line::new(),
                receiving: Line::new(),
            }),
        }
    }

    fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        line::change(&self.state, |state, chosen| state.offer(item, chosen))
    }

    fn try_recv(&self) -> Result<T, TryRecvError> {
        line::change(&self.state, State::take)
    }

    /// Sends, or stands in line to send.
    fn send_or_stand(&self, item: T, seat: &Arc<Seat>) -> Offered<T> {
        line::change(&self.state, |state, chosen| {
            match state.offer(item, chosen) {
                Ok(()) => Offered::Sent,
                Err(TrySendError::Closed(item)) => Offered::Closed(item),
                Err(TrySendError::Full(item)) => {
                    Offered::Stands(state.sending.push(seat, Some(item)))
                }
            }
        })
    }

    /// Receives, or stands in line to receive.
    fn recv_or_stand(&self, seat: &Arc<Seat>) -> Taken<T> {
        line::change(&self.state, |state, chosen| match state.take(chosen) {
            Ok(item) => Taken::Received(item),
            Err(TryRecvError::Closed) => Taken::Closed,
            Err(TryRecvError::Empty) => Taken::Stands(state.receiving.push(seat, false)),
        })
    }

    /// Takes a sender out whose wait has ended. Its item is here, unless it was sent.
    fn end_send(&self, number: u64) -> Option<T> {
        let (item, seat) = line::change(&self.state, |state, _| state.sending.remove(number))?;
        drop(seat);
        item
    }

    /// Takes a receiver out whose wait has ended. If it was promised an item, here it is.
    fn end_recv(&self, number: u64) -> Option<T> {
        let (item, seat) = line::change(&self.state, |state, _| {
            let (promised, seat) = state.receiving.remove(number)?;
            if !promised {
                return Some((None, seat));
            }
            state.promised -= 1;
            let item = state.queue.pop_front();
            Some((Some(item.expect("what is promised is in the queue")), seat))
        })?;
        drop(seat);
        item
    }

    /// Takes a receiver out that is not interested any more. What it was promised is the next's.
    fn abandon_recv(&self, number: u64) {
        let removed = line::change(&self.state, |state, _| {
            let (promised, seat) = state.receiving.remove(number)?;
            state.promised -= usize::from(promised);
            Some(seat)
        });
        drop(removed);
    }

    fn drop_sender(&self) {
        line::change(&self.state, |state, _| state.senders -= 1);
    }

    /// With the last receiver, what nobody will read comes back.
    fn drop_receiver(&self) -> VecDeque<T> {
        line::change(&self.state, |state, _| {
            state.receivers -= 1;
            if state.receivers > 0 {
                return VecDeque::new();
            }
            state.promised = 0;
            std::mem::take(&mut state.queue)
        })
    }

    fn close(&self) {
        line::change(&self.state, |state, _| state.shut = true);
    }

    fn describe(&self, side: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let (items, capacity) = (state.queue.len(), state.capacity);
        let (senders, receivers) = (state.senders, state.receivers);
        drop(state);
        f.debug_struct(side)
            .field("items", &items)
            .field("capacity", &capacity)
            .field("senders", &senders)
            .field("receivers", &receivers)
            .finish_non_exhaustive()
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
        let item = match self.channel.try_send(item) {
            Ok(()) => return Poll::Ready(Ok(())),
            Err(TrySendError::Closed(item)) => return Poll::Ready(Err(SendError::Closed(item))),
            Err(TrySendError::Full(item)) => item,
        };
        let seat = Arc::new(Seat::new(waker()));
        match self.channel.send_or_stand(item, &seat) {
            Offered::Sent => Poll::Ready(Ok(())),
            Offered::Closed(item) => Poll::Ready(Err(SendError::Closed(item))),
            Offered::Stands(number) => {
                self.place.stand(seat, number);
                Poll::Pending
            }
        }
    }

    /// Leaves the line after a wait that has ended; with the item, unless it was sent.
    fn collect(&mut self) -> Option<T> {
        let (number, _) = self.place.end()?;
        self.channel.end_send(number)
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
        let outcome = match this.place.look(cx) {
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

struct Receiving<'a, T> {
    channel: &'a Channel<T>,
    place: Place,
}

impl<T> Receiving<'_, T> {
    /// Receives, or stands in line from now on.
    fn begin(&mut self, waker: impl FnOnce() -> Waker) -> Poll<Option<T>> {
        match self.channel.try_recv() {
            Ok(item) => return Poll::Ready(Some(item)),
            Err(TryRecvError::Closed) => return Poll::Ready(None),
            Err(TryRecvError::Empty) => {}
        }
        let seat = Arc::new(Seat::new(waker()));
        match self.channel.recv_or_stand(&seat) {
            Taken::Received(item) => Poll::Ready(Some(item)),
            Taken::Closed => Poll::Ready(None),
            Taken::Stands(number) => {
                self.place.stand(seat, number);
                Poll::Pending
            }
        }
    }

    /// Leaves the line after a wait that has ended; with the item, if it was promised one.
    fn collect(&mut self) -> Option<T> {
        let (number, _) = self.place.end()?;
        self.channel.end_recv(number)
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
        let outcome = match this.place.look(cx) {
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
        if let Some((number, _)) = self.place.end() {
            self.channel.abandon_recv(number);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::seat::Standing;
    use super::super::testing::Bell;
    use super::*;
    use loom::sync::Arc as Shared;
    use loom::thread;

    /// A wait, its waker, and its number in its line.
    struct Stood {
        seat: Arc<Seat>,
        bell: Arc<Bell>,
        number: u64,
    }

    fn seat() -> (Arc<Seat>, Arc<Bell>) {
        let bell = Bell::new();
        (Arc::new(Seat::new(bell.waker())), bell)
    }

    fn stand_to_receive(channel: &Channel<u32>) -> Stood {
        let (seat, bell) = seat();
        match channel.recv_or_stand(&seat) {
            Taken::Stands(number) => Stood { seat, bell, number },
            _ => unreachable!("there is nothing yet"),
        }
    }

    fn stand_to_send(channel: &Channel<u32>, item: u32) -> Stood {
        let (seat, bell) = seat();
        match channel.send_or_stand(item, &seat) {
            Offered::Stands(number) => Stood { seat, bell, number },
            _ => unreachable!("there is no room"),
        }
    }

    /// How the owner of a wait ends it.
    #[derive(Debug, Clone, Copy)]
    enum Ends {
        ByACancel,
        ByADrop,
    }

    const BOTH: [Ends; 2] = [Ends::ByACancel, Ends::ByADrop];

    fn in_queue(channel: &Channel<u32>) -> Vec<u32> {
        let state = channel.state.lock();
        state.queue.iter().copied().collect()
    }

    /// An item is sent while the first receiver is cancelled or dropped, and another waits: one of
    /// the two has it.
    #[test]
    fn loom_an_item_is_received_once_whoever_gives_up() {
        for ends in BOTH {
            loom::model(move || {
                let channel = Shared::new(Channel::new(1));
                let first = stand_to_receive(&channel);
                let second = stand_to_receive(&channel);
                let sends = {
                    let channel = channel.clone();
                    thread::spawn(move || channel.try_send(7).is_ok())
                };
                let leaves = {
                    let channel = channel.clone();
                    thread::spawn(move || {
                        if let Ends::ByADrop = ends {
                            first.seat.end();
                            channel.abandon_recv(first.number);
                            return None;
                        }
                        first.seat.give_up();
                        let standing = first.seat.end();
                        let item = channel.end_recv(first.number);
                        assert_eq!(item.is_some(), standing == Standing::Handed);
                        item
                    })
                };
                assert!(sends.join().unwrap());
                let received = leaves.join().unwrap();
                let handed = second.seat.standing() == Standing::Handed;
                assert_eq!(handed, second.bell.has_rung());
                second.seat.end();
                let other = channel.end_recv(second.number);
                assert_eq!(handed, other.is_some());
                assert_eq!([received, other].into_iter().flatten().sum::<u32>(), 7);
                assert!(in_queue(&channel).is_empty());
            });
        }
    }

    /// Room is made while the sender that waits for it is cancelled: its item was sent or is given
    /// back.
    #[test]
    fn loom_an_item_is_sent_or_given_back() {
        for (capacity, ends) in [0, 1]
            .into_iter()
            .flat_map(|at| BOTH.map(|ends| (at, ends)))
        {
            loom::model(move || {
                let channel = Shared::new(Channel::new(capacity));
                if capacity > 0 {
                    assert!(channel.try_send(1).is_ok());
                }
                let sender = stand_to_send(&channel, 2);
                let receives = {
                    let channel = channel.clone();
                    thread::spawn(move || channel.try_recv().ok())
                };
                let leaves = {
                    let channel = channel.clone();
                    thread::spawn(move || {
                        if let Ends::ByACancel = ends {
                            sender.seat.give_up();
                        }
                        let standing = sender.seat.end();
                        let item = channel.end_send(sender.number);
                        assert_eq!(item.is_none(), standing == Standing::Handed);
                        item
                    })
                };
                let received = receives.join().unwrap();
                let back = leaves.join().unwrap();
                let mut items = in_queue(&channel);
                items.extend(received);
                items.extend(back);
                items.sort_unstable();
                let sent: &[u32] = if capacity > 0 { &[1, 2] } else { &[2] };
                assert_eq!(items, sent);
                if capacity > 0 {
                    assert_eq!(received, Some(1), "in order");
                }
            });
        }
    }

    /// A sender and a receiver come at once, with room and without: both end, and both know.
    #[test]
    fn loom_two_who_meet_see_each_other() {
        for capacity in [0, 1] {
            loom::model(move || {
                let channel = Shared::new(Channel::new(capacity));
                let sends = {
                    let channel = channel.clone();
                    thread::spawn(move || {
                        let (seat, bell) = seat();
                        match channel.send_or_stand(7, &seat) {
                            Offered::Sent => None,
                            Offered::Closed(_) => unreachable!("it is open"),
                            Offered::Stands(number) => Some(Stood { seat, bell, number }),
                        }
                    })
                };
                let (seat, bell) = seat();
                let taken = channel.recv_or_stand(&seat);
                if let Some(stood) = sends.join().unwrap() {
                    assert_eq!(stood.seat.standing(), Standing::Handed);
                    assert!(stood.bell.has_rung());
                    assert_eq!(channel.end_send(stood.number), None);
                }
                let received = match taken {
                    Taken::Received(item) => Some(item),
                    Taken::Closed => None,
                    Taken::Stands(number) => {
                        assert!(seat.standing() == Standing::Handed && bell.has_rung());
                        channel.end_recv(number)
                    }
                };
                assert_eq!(received, Some(7));
            });
        }
    }

    /// The last receiver goes while one sender gives up and another one comes: each item is in one
    /// place, and nobody is left waiting.
    #[test]
    fn loom_the_last_receiver_leaves_no_sender_waiting() {
        loom::model(|| {
            let channel = Shared::new(Channel::new(1));
            assert!(channel.try_send(1).is_ok());
            let first = stand_to_send(&channel, 2);
            let second = stand_to_send(&channel, 4);
            let leaves = {
                let channel = channel.clone();
                thread::spawn(move || {
                    first.seat.give_up();
                    channel.end_send(first.number)
                })
            };
            let comes = {
                let channel = channel.clone();
                thread::spawn(move || match channel.try_send(8) {
                    Err(TrySendError::Closed(item) | TrySendError::Full(item)) => item,
                    Ok(()) => unreachable!("it is full until it is closed"),
                })
            };
            let unread = channel.drop_receiver();
            let back = leaves.join().unwrap();
            let refused = comes.join().unwrap();
            assert!(second.seat.standing() == Standing::Handed && second.bell.has_rung());
            let kept = channel.end_send(second.number);
            assert_eq!((unread.into_iter().collect(), back), (vec![1], Some(2)));
            assert_eq!((refused, kept), (8, Some(4)));
            assert!(in_queue(&channel).is_empty());
        });
    }

    /// The last sender goes while a receiver comes, and one that waits gives up: nobody is left
    /// waiting, and what was sent is received.
    #[test]
    fn loom_the_last_sender_leaves_no_receiver_waiting() {
        loom::model(|| {
            let channel = Shared::new(Channel::new(1));
            let waits = stand_to_receive(&channel);
            let leaves = {
                let channel = channel.clone();
                thread::spawn(move || {
                    waits.seat.give_up();
                    waits.seat.end();
                    channel.end_recv(waits.number)
                })
            };
            let comes = {
                let channel = channel.clone();
                thread::spawn(move || {
                    let (seat, bell) = seat();
                    match channel.recv_or_stand(&seat) {
                        Taken::Received(item) => (Some(item), None),
                        Taken::Closed => (None, None),
                        Taken::Stands(number) => (None, Some(Stood { seat, bell, number })),
                    }
                })
            };
            assert!(channel.try_send(7).is_ok());
            channel.drop_sender();
            let left = leaves.join().unwrap();
            let (mut received, stood) = comes.join().unwrap();
            if let Some(stood) = stood {
                assert!(stood.seat.standing() == Standing::Handed && stood.bell.has_rung());
                received = channel.end_recv(stood.number);
            }
            // Who comes first may be told of the end while the item is another's.
            let rest = channel.try_recv();
            let items = [left, received, rest.ok()];
            assert_eq!(items.into_iter().flatten().collect::<Vec<_>>(), [7]);
        });
    }

    /// The channel is shut while a receiver takes the last item and a sender waits: the sender has
    /// its item back or it was received, and whoever receives next is told of the end.
    #[test]
    fn loom_a_shut_channel_comes_to_its_end() {
        loom::model(|| {
            let channel = Shared::new(Channel::new(1));
            assert!(channel.try_send(1).is_ok());
            let sender = stand_to_send(&channel, 2);
            let receives = {
                let channel = channel.clone();
                thread::spawn(move || channel.try_recv().expect("there is one"))
            };
            channel.close();
            assert_eq!(receives.join().unwrap(), 1);
            assert!(sender.seat.standing() == Standing::Handed && sender.bell.has_rung());
            let back = channel.end_send(sender.number);
            let rest = channel.try_recv();
            assert_eq!(
                (back.is_some(), rest.is_err()),
                (rest.is_err(), back.is_some())
            );
            assert!(channel.try_recv() == Err(TryRecvError::Closed));
        });
    }
}
