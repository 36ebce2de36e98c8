//! What the two sides of a channel share. Knows nothing of tasks and scopes.
//!
//! ```text
//!               under the lock          open to all      under the lock
//!   receivers ◄── front: promised, ◄──── ring ◄─────────── back ◄── senders in line, each with its item
//!                 or given back
//! ```
//!
//! While nobody waits, items lie in the ring alone, and sends and receives come and go through two gates, without the
//! lock. Whoever is about to wait shuts both, looks once more, and stands in line; from there on everybody comes to the
//! lock, also those who were on their way. The next who meets nobody there opens the gates, that for receives once
//! nothing is promised any more, so that items leave in their order.
//!
//! The ring has room for the capacity, if that fits a reasonable block of memory. What goes beyond lies in the back,
//! and moves up as the ring empties.
//!
//! Invariants, whenever the lock is free and nobody is on his way through a gate, where "waits" excludes those who
//! gave up:
//! - While a receiver waits, no item is free, and the channel can still bring one.
//! - While a sender waits, there is no room, and in a channel without room no receiver waits.
//! - While sends pass, the front has nothing but what is promised, and the back nothing.
//! - While receives pass, or one is on its way still, the front is empty.
//! - An item is in one place: its sender's line, front, ring or back, or somebody's hands.
//!
//! A send on its way may still put its item into the ring, and a receive take one out; each then comes to the lock and
//! hands on. So no room is given to a sender in line, and nobody is told of the end, while a send is on its way, and no
//! item to a receiver in line while a receive is.

use std::collections::VecDeque;
use std::fmt;
use std::task::Waker;

use super::errors::{TryRecvError, TrySendError};
use super::gate::Gate;
use super::kept::Kept;
use super::line::{self, Chosen, Line};
use super::lock::Lock;
use super::near::NearQueue;
use super::ring::Ring;
use super::seat::Wait;
use crate::sync::slots::Index;

/// What both sides share.
pub(super) struct Channel<T> {
    open: Open<T>,
    state: Lock<State<T>>,
}

/// What those use who have passed a gate.
struct Open<T> {
    ring: Ring<T>,
    sends: Gate,
    receives: Gate,
}

/// What changes with each item that is handed to somebody who waits comes first: where that item is small and nobody
/// else waits, it is one cache line with the lock, and the others change seldom.
#[repr(C)]
struct State<T> {
    /// The gates, whether each is open.
    sends_pass: bool,
    receives_pass: bool,
    /// A call has sent or received, and met nobody who waits.
    met_nobody: bool,
    /// No more is taken in, though there are receivers.
    shut: bool,
    /// How many items of the front are promised to receivers that have not been polled since.
    promised: u32,
    /// With whether each was promised an item.
    receiving: Line<bool>,
    /// The oldest items.
    front: NearQueue<T>,
    capacity: usize,
    senders: usize,
    receivers: usize,
    /// The newest items, for which the ring has no room.
    back: VecDeque<T>,
    /// With what each wants to send; taken out when it went on.
    sending: Line<Option<T>>,
}

/// What became of a send that may have to wait.
pub(super) enum Offered<T> {
    Sent,
    Closed(T),
    /// It stands in line with this number, and the item with it.
    Stands(Index),
}

/// What became of a receive that may have to wait.
pub(super) enum Taken<T> {
    Received(T),
    Closed,
    /// It stands in line with this number.
    Stands(Index),
}

impl<T> Channel<T> {
    pub(super) fn new(capacity: usize) -> Self {
        // Where there is no room, everybody meets under the lock.
        let has_room = capacity > 0;
        Self {
            open: Open {
                ring: Ring::new(ring_items::<T>(capacity)),
                sends: Gate::new(has_room),
                receives: Gate::new(has_room),
            },
            state: Lock::new(State {
                sends_pass: has_room,
                receives_pass: has_room,
                met_nobody: false,
                shut: false,
                promised: 0,
                receiving: Line::new(),
                front: NearQueue::new(),
                capacity,
                senders: 1,
                receivers: 1,
                back: VecDeque::new(),
                sending: Line::new(),
            }),
        }
    }

    pub(super) fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        match self.send_past(item) {
            Ok(()) => Ok(()),
            Err(item) => self.change(|state, chosen| state.offer(&self.open, item, chosen)),
        }
    }

    /// Sends past the lock, if nobody waits and there is room. Where it did not, the lock knows more.
    #[inline]
    pub(super) fn send_past(&self, item: T) -> Result<(), T> {
        if !self.open.sends.enter() {
            return Err(item);
        }
        let pushed = self.open.ring.push(item);
        // Who has done nothing goes to the lock in any case.
        if self.open.sends.leave() && pushed.is_ok() {
            self.hand_on();
        }
        pushed
    }

    /// Sends from the front of `items` as many as there is room for at once, and no more than lie there now.
    pub(super) fn try_send_many<O>(&self, items: &mut VecDeque<O>)
    where
        T: Kept<O>,
    {
        if items.is_empty() {
            return;
        }
        if !self.open.sends.enter() {
            // Also who only tried the gate comes to the lock: others may have left it to him to hand on.
            return self.change(|state, chosen| {
                for _ in 0..items.len().min(RING_ITEMS) {
                    let Some(item) = items.pop_front() else {
                        return;
                    };
                    if let Err(unsent) = state.offer(&self.open, T::keep(item), chosen) {
                        return items.push_front(unsent.into_inner().given());
                    }
                }
            });
        }
        while let Some(item) = items.pop_front() {
            if let Err(unsent) = self.open.ring.push(T::keep(item)) {
                items.push_front(unsent.given());
                break;
            }
        }
        if self.open.sends.leave() {
            self.hand_on();
        }
    }

    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.recv_past() {
            Some(item) => Ok(item),
            None => self.change(|state, chosen| state.take(&self.open, chosen)),
        }
    }

    /// Receives past the lock, if nobody waits and something is there. Where it did not, the lock knows more.
    #[inline]
    pub(super) fn recv_past(&self) -> Option<T> {
        if !self.open.receives.enter() {
            return None;
        }
        let item = self.open.ring.pop();
        // Who has done nothing goes to the lock in any case.
        if self.open.receives.leave() && item.is_some() {
            self.hand_on();
        }
        item
    }

    /// Receives what is there, up to `limit` items, and appends it to `buffer`. Returns how many.
    pub(super) fn try_recv_many<O>(&self, buffer: &mut Vec<O>, limit: usize) -> usize
    where
        T: Kept<O>,
    {
        if limit == 0 {
            return 0;
        }
        let before = buffer.len();
        // Room is made here: nothing is allocated, and nothing can go wrong, on the way through the gate.
        let limit = limit.min(self.open.ring.len().max(1));
        buffer.reserve(limit);
        if self.open.receives.enter() {
            while buffer.len() - before < limit
                && let Some(item) = self.open.ring.pop()
            {
                buffer.push(item.given());
            }
            if self.open.receives.leave() {
                self.hand_on();
            }
        } else {
            self.change(|state, chosen| {
                while buffer.len() - before < limit
                    && !chosen.is_full()
                    && let Ok(item) = state.take(&self.open, chosen)
                {
                    buffer.push(item.given());
                }
            });
        }
        buffer.len() - before
    }

    /// Sends, or stands in line to send.
    pub(super) fn send_or_stand(
        &self,
        item: T,
        wait: impl FnOnce() -> (Wait, Waker),
    ) -> Offered<T> {
        self.change(|state, chosen| {
            state.shut_gates(&self.open);
            match state.offer(&self.open, item, chosen) {
                Ok(()) => Offered::Sent,
                Err(TrySendError::Closed(item)) => Offered::Closed(item),
                Err(TrySendError::Full(item)) => {
                    let (wait, waker) = wait();
                    Offered::Stands(state.sending.push(wait, waker, Some(item)))
                }
            }
        })
    }

    /// Receives, or stands in line to receive.
    pub(super) fn recv_or_stand(&self, wait: impl FnOnce() -> (Wait, Waker)) -> Taken<T> {
        self.change(|state, chosen| {
            state.shut_gates(&self.open);
            match state.take(&self.open, chosen) {
                Ok(item) => Taken::Received(item),
                Err(TryRecvError::Closed) => Taken::Closed,
                Err(TryRecvError::Empty) => {
                    let (wait, waker) = wait();
                    Taken::Stands(state.receiving.push(wait, waker, false))
                }
            }
        })
    }

    /// Takes a sender out whose wait has ended. Its item is here, unless it was sent.
    pub(super) fn end_send(&self, number: Index) -> Option<T> {
        let removed = self.change(|state, _| state.sending.remove(number));
        removed.data
    }

    /// Takes a receiver out whose wait has ended. If it was promised an item, here it is.
    pub(super) fn end_recv(&self, number: Index) -> Option<T> {
        let (item, removed) = self.change(|state, _| {
            let removed = state.receiving.remove(number);
            (removed.data.then(|| state.take_promised()), removed)
        });
        drop(removed);
        item
    }

    /// Returns whether a wait to send was handed room, or the end; leaves another waker there, if not.
    pub(super) fn has_sent(&self, number: Index, waker: &mut Option<Waker>) -> bool {
        self.state.lock().sending.is_handed(number, waker)
    }

    /// Returns whether a wait to receive was handed an item, or the end; leaves another waker there, if not.
    pub(super) fn may_receive(&self, number: Index, waker: &mut Option<Waker>) -> bool {
        self.state.lock().receiving.is_handed(number, waker)
    }

    /// Takes a receiver out that was promised an item, for that item. `None` also where somebody has the lock.
    pub(super) fn try_end_recv(&self, number: Index) -> Option<T> {
        line::try_change_with(
            &self.state,
            |state| *state.receiving.data(number),
            |state, _| {
                // Chosen, it has no waker.
                state.receiving.remove(number);
                state.take_promised()
            },
            |state| state.hand_out(&self.open),
            |state| state.settle_gates(&self.open),
        )
    }

    /// Takes a receiver out that is not interested any more. What it was promised is the next's.
    pub(super) fn abandon_recv(&self, number: Index) {
        let removed = self.change(|state, _| {
            let removed = state.receiving.remove(number);
            state.promised -= u32::from(removed.data);
            removed
        });
        drop(removed);
    }

    pub(super) fn add_sender(&self) {
        self.state.lock().senders += 1;
    }

    pub(super) fn drop_sender(&self) {
        self.change(|state, _| state.senders -= 1);
    }

    pub(super) fn add_receiver(&self) {
        self.state.lock().receivers += 1;
    }

    /// With the last receiver, what nobody will read comes back.
    pub(super) fn drop_receiver(&self) -> VecDeque<T> {
        self.change(|state, _| {
            state.receivers -= 1;
            if state.receivers > 0 {
                return VecDeque::new();
            }
            state.shut_gates(&self.open);
            state.promised = 0;
            state.take_all(&self.open)
        })
    }

    pub(super) fn close(&self) {
        self.change(|state, _| {
            state.shut_gates(&self.open);
            state.shut = true;
        });
    }

    /// Returns whether a send would find it closed.
    pub(super) fn refuses(&self) -> bool {
        self.state.lock().refuses()
    }

    /// Returns whether nothing will come but what is there.
    pub(super) fn has_ended(&self) -> bool {
        let state = self.state.lock();
        state.refuses() || state.senders == 0
    }

    pub(super) fn len(&self) -> usize {
        self.state.lock().items(&self.open)
    }

    /// Returns how many stand in line to send.
    pub(super) fn sending(&self) -> usize {
        self.state.lock().sending.waiting()
    }

    /// Returns how many stand in line to receive.
    pub(super) fn receiving(&self) -> usize {
        self.state.lock().receiving.waiting()
    }

    pub(super) fn describe(&self, side: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let (items, capacity) = (state.items(&self.open), state.capacity);
        let (senders, receivers) = (state.senders, state.receivers);
        drop(state);
        f.debug_struct(side)
            .field("items", &items)
            .field("capacity", &capacity)
            .field("senders", &senders)
            .field("receivers", &receivers)
            .finish_non_exhaustive()
    }

    /// Hands on what a call has changed that found its gate shut behind it.
    #[cold]
    fn hand_on(&self) {
        let unread = self.change(|state, _| {
            // It may have put an item in after the last receiver took its leave.
            if state.receivers == 0 {
                state.take_all(&self.open)
            } else {
                VecDeque::new()
            }
        });
        drop(unread);
    }

    fn change<R>(&self, change: impl FnOnce(&mut State<T>, &mut Chosen) -> R) -> R {
        line::change_with(
            &self.state,
            change,
            |state| state.hand_out(&self.open),
            |state| state.settle_gates(&self.open),
        )
    }
}

impl<T> State<T> {
    fn refuses(&self) -> bool {
        self.shut || self.receivers == 0
    }

    /// How many items of the front nobody was promised.
    fn given_back(&self) -> usize {
        self.front.len() - self.promised as usize
    }

    /// How many items nobody was promised.
    fn free(&self, open: &Open<T>) -> usize {
        self.items(open) - self.promised as usize
    }

    fn items(&self, open: &Open<T>) -> usize {
        self.front.len() + open.ring.len() + self.back.len()
    }

    /// Returns whether nothing is there, promised or not, and nothing will come.
    fn is_over(&self, open: &Open<T>) -> bool {
        // First the gate: what was put in by those who have left is seen then.
        (self.refuses() || self.senders == 0) && open.sends.is_empty() && self.items(open) == 0
    }

    /// Takes an item in, for a receiver that waits or where there is room.
    fn offer(
        &mut self,
        open: &Open<T>,
        item: T,
        chosen: &mut Chosen,
    ) -> Result<(), TrySendError<T>> {
        if self.refuses() {
            return Err(TrySendError::Closed(item));
        }
        while !chosen.is_full()
            && open.receives.is_empty()
            && let Some(receiver) = self.promise()
        {
            chosen.add(receiver);
            // What a send on its way has put in is older.
            let Some(older) = open.ring.pop() else {
                self.front.push_back(item);
                return Ok(());
            };
            self.front.push_back(older);
        }
        if !self.sending.is_empty() || self.free(open) >= self.capacity {
            return Err(TrySendError::Full(item));
        }
        self.put(open, item).map_err(TrySendError::Full)?;
        self.met_nobody = true;
        Ok(())
    }

    /// Puts an item behind the others; not where sends on their way have filled the ring.
    fn put(&mut self, open: &Open<T>, item: T) -> Result<(), T> {
        let item = if self.back.is_empty() {
            match open.ring.push(item) {
                Ok(()) => return Ok(()),
                Err(item) => item,
            }
        } else {
            item
        };
        if self.capacity <= open.ring.capacity() {
            return Err(item);
        }
        self.shut_gates(open);
        self.back.push_back(item);
        Ok(())
    }

    /// Promises an item to the first receiver that waits.
    fn promise(&mut self) -> Option<Waker> {
        let (promised, waker) = self.receiving.choose()?;
        *promised = true;
        self.promised += 1;
        Some(waker)
    }

    /// Takes an item that was promised.
    fn take_promised(&mut self) -> T {
        self.promised -= 1;
        let item = self.front.pop_front();
        item.expect("what is promised is in front")
    }

    /// Takes an item that nobody was promised; from its sender, where there is no room.
    fn take(&mut self, open: &Open<T>, chosen: &mut Chosen) -> Result<T, TryRecvError> {
        // Whoever waits comes first, also to what arrives in this moment.
        if self.receiving.is_empty() {
            if self.given_back() == 0 {
                let mut next = open.ring.pop().or_else(|| self.back.pop_front());
                if next.is_none()
                    && self.capacity == 0
                    && !self.refuses()
                    && let Some((item, waker)) = self.sending.choose()
                {
                    chosen.add(waker);
                    next = item.take();
                }
                // Behind what is promised, which is older: any item will do for a promise.
                if let Some(next) = next {
                    self.front.push_back(next);
                }
            }
            if self.given_back() > 0 {
                let item = self.front.pop_front();
                self.met_nobody = self.sending.is_empty();
                return Ok(item.expect("more is in front than is promised"));
            }
        }
        Err(if self.is_over(open) {
            TryRecvError::Closed
        } else {
            TryRecvError::Empty
        })
    }

    /// Takes everything out.
    fn take_all(&mut self, open: &Open<T>) -> VecDeque<T> {
        let mut all = self.front.take();
        all.extend(std::iter::from_fn(|| open.ring.pop()));
        all.append(&mut self.back);
        all
    }

    /// Hands one thing that is free to one who waits for it: room to a sender, an item or the end to a receiver.
    /// Returns whom to wake.
    fn hand_out(&mut self, open: &Open<T>) -> Option<Waker> {
        if self.sends_pass {
            return None;
        }
        if self.refuses() {
            // Each finds its item where it was.
            if let Some((_, waker)) = self.sending.choose() {
                return Some(waker);
            }
        } else {
            self.move_up(open);
            if !self.sending.is_empty()
                && open.sends.is_empty()
                && self.free(open) < self.capacity
                && let Some((item, waker)) = self.sending.choose()
            {
                let item = item.take().expect("a sender in line has its item");
                let put = self.put(open, item);
                assert!(
                    put.is_ok(),
                    "with the gate shut, there is room while nobody fills it"
                );
                return Some(waker);
            }
        }
        if self.receiving.is_empty() || !open.receives.is_empty() {
            return None;
        }
        if self.given_back() == 0 {
            let next = open.ring.pop().or_else(|| self.back.pop_front());
            if let Some(next) = next {
                self.front.push_back(next);
            }
        }
        if self.given_back() > 0 {
            self.promise()
        } else if self.is_over(open) {
            self.receiving.choose().map(|(_, waker)| waker)
        } else {
            None
        }
    }

    /// Moves items from the back into the ring.
    fn move_up(&mut self, open: &Open<T>) {
        while let Some(item) = self.back.pop_front() {
            if let Err(item) = open.ring.push(item) {
                self.back.push_front(item);
                return;
            }
        }
    }

    fn shut_gates(&mut self, open: &Open<T>) {
        if std::mem::take(&mut self.sends_pass) {
            open.sends.shut();
        }
        if std::mem::take(&mut self.receives_pass) {
            open.receives.shut();
        }
    }

    /// Opens the gates that nobody needs shut, and shuts the others.
    ///
    /// Who has met somebody leaves them shut: where each waits for the other in turn, nobody needs them open, and the
    /// cores would pull them from each other.
    fn settle_gates(&mut self, open: &Open<T>) {
        let met_nobody = std::mem::take(&mut self.met_nobody);
        let nobody_waits = self.sending.is_empty() && self.receiving.is_empty();
        let has_room = self.capacity > 0 && !self.refuses() && self.back.is_empty();
        if !nobody_waits || !has_room || self.given_back() > 0 {
            return self.shut_gates(open);
        }
        if !met_nobody {
            return;
        }
        if !self.sends_pass {
            self.sends_pass = true;
            open.sends.open();
        }
        if !self.receives_pass && self.front.len() == 0 {
            self.receives_pass = true;
            open.receives.open();
        }
    }
}

/// How many items a ring has room for, in a channel that takes so many.
fn ring_items<T>(capacity: usize) -> usize {
    let fit = RING_BYTES / (size_of::<T>() + size_of::<usize>());
    capacity.clamp(1, fit.clamp(FEW_ITEMS, RING_ITEMS))
}

const RING_ITEMS: usize = 1024;
/// A ring takes no more memory than this, unless for few items.
const RING_BYTES: usize = 1 << 16;
const FEW_ITEMS: usize = 16;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::shared::channel::{self, Receiver};
    use crate::{Cancelled, Scope};
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake};

    /// More than a ring has room for: the rest lies behind it, and everything comes in order.
    #[test]
    fn what_the_ring_has_no_room_for_comes_behind() {
        let channel = Channel::new(3 * RING_ITEMS);
        let mut next = 0;
        for round in 0..3 {
            while channel.try_send(next).is_ok() {
                next += 1;
            }
            assert_eq!(channel.len(), 3 * RING_ITEMS);
            let mut items = Vec::new();
            let wanted = (round + 1) * 700;
            while items.len() < wanted {
                let limit = (wanted - items.len()).min(33);
                assert!(channel.try_recv_many(&mut items, limit) > 0);
            }
            let first = next - 3 * RING_ITEMS;
            assert_eq!(items, (first..first + wanted).collect::<Vec<_>>());
        }
        while channel.try_recv().is_ok() {}
        assert_eq!((channel.len(), channel.send_past(7)), (0, Ok(())));
    }

    #[test]
    fn a_ring_takes_little_memory() {
        assert_eq!(ring_items::<u32>(0), 1);
        assert_eq!(ring_items::<u32>(5), 5);
        assert_eq!(ring_items::<u32>(usize::MAX), RING_ITEMS);
        assert_eq!(ring_items::<[u8; 4088]>(1000), FEW_ITEMS);
        assert_eq!(ring_items::<[u8; 1 << 20]>(usize::MAX), FEW_ITEMS);
    }

    /// Many threads at once, with little room and with none to spare in between: each item comes once, and those of
    /// one sender in their order.
    #[test]
    fn each_item_is_received_once_by_whoever_comes() {
        use super::super::channel;
        for (capacity, limit) in [(0, 1), (1, 1), (3, 2), (64, 32)] {
            let (sender, receiver) = channel::bounded::<(u32, u32)>(capacity);
            let senders: Vec<_> = (0..2)
                .map(|own| {
                    let sender = sender.clone();
                    std::thread::spawn(move || {
                        for number in 0..ITEMS {
                            sender.send_blocking((own, number)).expect("it is taken");
                        }
                    })
                })
                .collect();
            drop(sender);
            let receivers: Vec<_> = (0..2)
                .map(|_| {
                    let receiver = receiver.clone();
                    std::thread::spawn(move || {
                        let mut all = Vec::new();
                        crate::block_on(async {
                            while receiver.recv_many(&mut all, limit).await? > 0 {}
                            Ok::<_, crate::Cancelled>(())
                        })
                        .expect("a core")
                        .expect("nobody cancels");
                        all
                    })
                })
                .collect();
            let mut counts = [[0_u8; ITEMS as usize]; 2];
            for received in receivers {
                let mut last = [None, None];
                for (own, number) in received.join().expect("it ends well") {
                    counts[own as usize][number as usize] += 1;
                    assert!(last[own as usize] < Some(number), "in order");
                    last[own as usize] = Some(number);
                }
            }
            assert!(counts.iter().flatten().all(|&count| count == 1));
            for sender in senders {
                sender.join().expect("it ends well");
            }
        }
    }

    const ITEMS: u32 = 2000;

    /// Counts the wakes.
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    type Receives<'a> = Vec<Pin<Box<dyn Future<Output = Result<Option<u32>, Cancelled>> + 'a>>>;

    /// Begins so many receives in a scope, with one waker, and cancels that. What `then` does with them comes before
    /// the core's next turn. Returns how many wakes there were then, and how many there are some turns later.
    fn wakes_of_cancelled_receives(
        count: usize,
        then: impl FnOnce(&Receiver<u32>, Receives<'_>, &mut Context<'_>),
    ) -> [usize; 2] {
        let wakes = Arc::new(Count(0.into()));
        let waker = Waker::from(Arc::clone(&wakes));
        let scope = Scope::new();
        crate::block_on(async {
            let (_sender, receiver) = channel::bounded::<u32>(1);
            let handle = scope.handle();
            let body = async {
                let mut cx = Context::from_waker(&waker);
                let mut receives: Receives<'_> = Vec::new();
                for _ in 0..count {
                    receives.push(Box::pin(receiver.recv()));
                }
                for receive in &mut receives {
                    assert!(receive.as_mut().poll(&mut cx).is_pending());
                }
                handle.cancel();
                then(&receiver, receives, &mut cx);
                Ok::<_, Cancelled>(wakes.0.load(Ordering::Relaxed))
            };
            let ran = scope.run(body).await;
            let at_once = ran.expect("nothing in it fails").expect("nor is cancelled");
            for _ in 0..10 {
                crate::yield_now().await.expect("nobody cancels");
            }
            [at_once, wakes.0.load(Ordering::Relaxed)]
        })
        .expect("a core")
    }

    /// So many are cancelled that the last are told in a later turn: by then their waits have ended.
    #[test]
    fn a_cancel_that_is_carried_out_late_wakes_nobody_whose_wait_has_ended() {
        let [at_once, later] = wakes_of_cancelled_receives(3000, |receiver, receives, _| {
            // It takes the cancel in.
            assert!(receiver.try_recv().is_err());
            drop(receives);
        });
        assert!((1..3000).contains(&at_once), "{at_once}");
        assert_eq!(later, at_once);
    }

    /// The cancel is seen by the very poll that it ends.
    #[test]
    fn who_is_polled_is_not_woken_by_what_the_poll_finds() {
        let wakes = wakes_of_cancelled_receives(1, |_, mut receives, cx| {
            let polled = receives[0].as_mut().poll(cx);
            assert!(matches!(polled, Poll::Ready(Err(_))));
        });
        assert_eq!(wakes, [0, 0]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::testing::Bell;
    use super::*;
    use loom::sync::Arc as Shared;
    use loom::thread;
    use std::sync::Arc;

    /// A wait, its waker, and its number in its line.
    struct Stood {
        wait: Wait,
        bell: Arc<Bell>,
        number: Index,
    }

    impl Stood {
        fn may_receive(&self, channel: &Channel<u32>) -> bool {
            let is_handed = channel.may_receive(self.number, &mut None);
            assert!(!is_handed || self.bell.has_rung());
            is_handed
        }

        fn has_sent(&self, channel: &Channel<u32>) -> bool {
            let is_handed = channel.has_sent(self.number, &mut None);
            assert!(!is_handed || self.bell.has_rung());
            is_handed
        }
    }

    fn wait() -> (Wait, Arc<Bell>) {
        (Wait::new(), Bell::new())
    }

    fn stand_to_receive(channel: &Channel<u32>) -> Stood {
        let (wait, bell) = wait();
        match channel.recv_or_stand(|| (wait.clone(), bell.waker())) {
            Taken::Stands(number) => Stood { wait, bell, number },
            _ => unreachable!("there is nothing yet"),
        }
    }

    fn stand_to_send(channel: &Channel<u32>, item: u32) -> Stood {
        let (wait, bell) = wait();
        match channel.send_or_stand(item, || (wait.clone(), bell.waker())) {
            Offered::Stands(number) => Stood { wait, bell, number },
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
        let all = channel.state.lock().take_all(&channel.open);
        Vec::from(all)
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
                            channel.abandon_recv(first.number);
                            return None;
                        }
                        first.wait.give_up();
                        let is_handed = channel.may_receive(first.number, &mut None);
                        let item = channel.end_recv(first.number);
                        assert_eq!(item.is_some(), is_handed);
                        item
                    })
                };
                assert!(sends.join().unwrap());
                let received = leaves.join().unwrap();
                let handed = second.may_receive(&channel);
                assert_eq!(handed, second.bell.has_rung());
                let other = channel.end_recv(second.number);
                assert_eq!(handed, other.is_some());
                assert_eq!([received, other].into_iter().flatten().sum::<u32>(), 7);
                assert!(in_queue(&channel).is_empty());
            });
        }
    }

    /// An item is sent while its receiver leaves another waker: it sees the item, or is woken by the last it has left.
    #[test]
    fn loom_the_last_waker_is_woken() {
        loom::model(|| {
            let channel = Shared::new(Channel::new(1));
            let stood = stand_to_receive(&channel);
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || channel.try_send(7).is_ok())
            };
            let last = Bell::new();
            let mut waker = Some(last.waker());
            let seen = channel.may_receive(stood.number, &mut waker);
            drop(waker);
            assert!(sends.join().unwrap());
            assert!(seen || last.has_rung(), "it sleeps on");
            assert_eq!(channel.end_recv(stood.number), Some(7));
        });
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
                            sender.wait.give_up();
                            let is_handed = channel.has_sent(sender.number, &mut None);
                            let item = channel.end_send(sender.number);
                            assert_eq!(item.is_none(), is_handed);
                            return item;
                        }
                        channel.end_send(sender.number)
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
                        let (wait, bell) = wait();
                        match channel.send_or_stand(7, || (wait.clone(), bell.waker())) {
                            Offered::Sent => None,
                            Offered::Closed(_) => unreachable!("it is open"),
                            Offered::Stands(number) => Some(Stood { wait, bell, number }),
                        }
                    })
                };
                let (wait, bell) = wait();
                let taken = channel.recv_or_stand(|| (wait.clone(), bell.waker()));
                if let Some(stood) = sends.join().unwrap() {
                    assert!(stood.has_sent(&channel));
                    assert_eq!(channel.end_send(stood.number), None);
                }
                let received = match taken {
                    Taken::Received(item) => Some(item),
                    Taken::Closed => None,
                    Taken::Stands(number) => {
                        let stood = Stood { wait, bell, number };
                        assert!(stood.may_receive(&channel));
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
                    first.wait.give_up();
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
            assert!(second.has_sent(&channel));
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
                    waits.wait.give_up();
                    channel.end_recv(waits.number)
                })
            };
            let comes = {
                let channel = channel.clone();
                thread::spawn(move || {
                    let (wait, bell) = wait();
                    match channel.recv_or_stand(|| (wait.clone(), bell.waker())) {
                        Taken::Received(item) => (Some(item), None),
                        Taken::Closed => (None, None),
                        Taken::Stands(number) => (None, Some(Stood { wait, bell, number })),
                    }
                })
            };
            assert!(channel.try_send(7).is_ok());
            channel.drop_sender();
            let left = leaves.join().unwrap();
            let (mut received, stood) = comes.join().unwrap();
            if let Some(stood) = stood {
                assert!(stood.may_receive(&channel));
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
            assert!(sender.has_sent(&channel));
            let back = channel.end_send(sender.number);
            let rest = channel.try_recv();
            assert_eq!(
                (back.is_some(), rest.is_err()),
                (rest.is_err(), back.is_some())
            );
            assert!(channel.try_recv() == Err(TryRecvError::Closed));
        });
    }

    /// Receives as a task does: past the lock, or in line.
    fn receive(channel: &Channel<u32>) -> Result<Option<u32>, Stood> {
        if let Some(item) = channel.recv_past() {
            return Ok(Some(item));
        }
        let (wait, bell) = wait();
        match channel.recv_or_stand(|| (wait.clone(), bell.waker())) {
            Taken::Received(item) => Ok(Some(item)),
            Taken::Closed => Ok(None),
            Taken::Stands(number) => Err(Stood { wait, bell, number }),
        }
    }

    /// What a receiver that stood in line finds when all others have ended.
    fn after_all(channel: &Channel<u32>, received: Result<Option<u32>, Stood>) -> Option<u32> {
        received.unwrap_or_else(|stood| {
            assert!(stood.may_receive(channel), "it sleeps on");
            channel.end_recv(stood.number)
        })
    }

    /// Every order in which threads change over so many times: what has three threads past the lock has too many
    /// others.
    fn model_in_part(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    /// An item goes past the lock while a receiver comes: it is received, and nobody sleeps over it.
    #[test]
    fn loom_who_is_about_to_wait_sees_what_goes_past() {
        loom::model(|| {
            let channel = Shared::new(Channel::new(2));
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || channel.try_send(7).is_ok())
            };
            let received = receive(&channel);
            assert!(sends.join().unwrap());
            assert_eq!(after_all(&channel, received), Some(7));
            assert!(in_queue(&channel).is_empty());
            assert_eq!(channel.try_send(8), Ok(()));
            assert_eq!(channel.send_past(9), Ok(()), "the way is free again");
        });
    }

    /// One sends two items, and two receive: each has one, and nobody has the older one later.
    #[test]
    fn loom_two_who_come_to_receive_share_what_goes_past() {
        model_in_part(|| {
            let channel = Shared::new(Channel::new(2));
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || (1..=2).all(|item| channel.try_send(item).is_ok()))
            };
            let other = {
                let channel = channel.clone();
                thread::spawn(move || receive(&channel))
            };
            let received = receive(&channel);
            assert!(sends.join().unwrap());
            let other = other.join().unwrap();
            let items = [received, other].map(|received| after_all(&channel, received));
            let sum: u32 = items.into_iter().flatten().sum();
            assert_eq!(sum, 3, "each was received once");
            assert!(in_queue(&channel).is_empty());
        });
    }

    /// A receiver that is promised an item is slow, while another takes what follows: nobody has two items in another
    /// order than they were sent.
    #[test]
    fn loom_what_is_promised_leaves_first() {
        model_in_part(|| {
            let channel = Shared::new(Channel::new(2));
            let slow = {
                let channel = channel.clone();
                thread::spawn(move || receive(&channel))
            };
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || (1..=2).all(|item| channel.try_send(item).is_ok()))
            };
            let own: Vec<_> = std::iter::from_fn(|| channel.try_recv().ok())
                .take(2)
                .collect();
            assert!(own.is_sorted(), "{own:?}");
            assert!(sends.join().unwrap());
            let slow = slow.join().unwrap();
            let after = own.last().copied();
            let last = channel.try_recv().ok();
            assert!(last.is_none() || after < last, "{after:?}, {last:?}");
            let mut items = own;
            items.extend(last);
            match slow {
                Ok(item) => items.extend(item),
                Err(stood) => {
                    items.extend(channel.end_recv(stood.number));
                }
            }
            items.extend(in_queue(&channel));
            items.sort_unstable();
            assert_eq!(items, [1, 2]);
        });
    }

    /// A receiver takes an item past the lock while a sender comes that finds no room: the sender is let in.
    #[test]
    fn loom_who_is_about_to_wait_sees_room_that_is_made() {
        loom::model(|| {
            let channel = Shared::new(Channel::new(1));
            assert_eq!(channel.send_past(1), Ok(()));
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || {
                    let Err(item) = channel.send_past(2) else {
                        return None;
                    };
                    let (wait, bell) = wait();
                    match channel.send_or_stand(item, || (wait.clone(), bell.waker())) {
                        Offered::Sent => None,
                        Offered::Closed(_) => unreachable!("it is open"),
                        Offered::Stands(number) => Some(Stood { wait, bell, number }),
                    }
                })
            };
            assert_eq!(channel.try_recv(), Ok(1));
            if let Some(stood) = sends.join().unwrap() {
                assert!(stood.has_sent(&channel));
                assert_eq!(channel.end_send(stood.number), None);
            }
            assert_eq!(in_queue(&channel), [2]);
        });
    }

    /// Many are sent at a time, none or one, while a sender stands in line and room is made: the sender is let in.
    #[test]
    fn loom_who_sends_many_hides_no_room() {
        for many in [0, 1] {
            loom::model(move || {
                let channel = Shared::new(Channel::new(1));
                assert_eq!(channel.send_past(1), Ok(()));
                let sends = {
                    let channel = channel.clone();
                    thread::spawn(move || {
                        let mut items: VecDeque<_> = (0..many).map(|_| 3).collect();
                        channel.try_send_many(&mut items);
                    })
                };
                let stood = stand_to_send(&channel, 2);
                assert_eq!(channel.try_recv(), Ok(1));
                sends.join().unwrap();
                assert!(stood.has_sent(&channel), "it sleeps on");
                assert_eq!(channel.end_send(stood.number), None);
            });
        }
    }

    /// The channel is shut while an item goes past the lock: who is told of the end has received all that was sent.
    #[test]
    fn loom_nothing_comes_after_the_end() {
        model_in_part(|| {
            let channel = Shared::new(Channel::new(1));
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || channel.try_send(7).is_ok())
            };
            let shuts = {
                let channel = channel.clone();
                thread::spawn(move || channel.close())
            };
            let received = receive(&channel);
            let was_told = matches!(received, Ok(None));
            let sent = sends.join().unwrap();
            shuts.join().unwrap();
            let mut item = after_all(&channel, received);
            if item.is_none() {
                let rest = channel.try_recv();
                assert!(rest.is_err() || !was_told, "an item after the end");
                item = rest.ok();
            }
            assert_eq!(item.is_some(), sent);
            assert_eq!(channel.try_recv(), Err(TryRecvError::Closed));
        });
    }

    /// The last receiver goes while an item goes past the lock, or two: none of them is kept.
    #[test]
    fn loom_nothing_is_left_behind_the_last_receiver() {
        for senders in [1, 2] {
            model_in_part(move || {
                let channel = Shared::new(Channel::new(2));
                let senders: Vec<_> = (0..senders)
                    .map(|item| {
                        let channel = channel.clone();
                        thread::spawn(move || {
                            channel.try_send(item).ok();
                        })
                    })
                    .collect();
                drop(channel.drop_receiver());
                for sender in senders {
                    sender.join().unwrap();
                }
                assert!(in_queue(&channel).is_empty());
            });
        }
    }

    /// A promise is given up while an item goes past the lock: the oldest is received first.
    #[test]
    fn loom_what_is_given_back_comes_first() {
        loom::model(|| {
            let channel = Shared::new(Channel::new(2));
            let first = stand_to_receive(&channel);
            assert!(channel.try_send(1).is_ok());
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || channel.try_send(2).is_ok())
            };
            channel.abandon_recv(first.number);
            assert_eq!(channel.try_recv(), Ok(1));
            assert!(sends.join().unwrap());
            assert_eq!(channel.try_recv(), Ok(2));
        });
    }

    /// A seat is used again while a send races with the wait before.
    #[test]
    fn loom_a_seat_that_is_used_again_is_of_its_new_wait_alone() {
        loom::model(|| {
            let channel = Shared::new(Channel::new(2));
            let first = stand_to_receive(&channel);
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || channel.try_send(7).is_ok())
            };
            first.wait.give_up();
            let handed = channel.may_receive(first.number, &mut None);
            let one = channel.end_recv(first.number);
            assert_eq!(handed, one.is_some());
            let next = first.wait.next();
            let bell = Bell::new();
            let taken = channel.recv_or_stand(|| (next.clone(), bell.waker()));
            assert!(sends.join().unwrap());
            let two = match taken {
                Taken::Received(item) => Some(item),
                Taken::Closed => unreachable!(),
                Taken::Stands(number) => {
                    assert_eq!(
                        channel.may_receive(number, &mut None),
                        one.is_none(),
                        "sleeps on"
                    );
                    assert_eq!(bell.has_rung(), one.is_none());
                    channel.end_recv(number)
                }
            };
            assert_eq!([one, two].into_iter().flatten().collect::<Vec<_>>(), [7]);
            assert!(in_queue(&channel).is_empty());
        });
    }

    /// One looks whether it was promised an item, while two are sent and another leaves the line.
    #[test]
    fn loom_a_glance_at_a_promise_loses_nothing() {
        model_in_part(|| {
            let channel = Shared::new(Channel::new(1));
            let first = stand_to_receive(&channel);
            let second = stand_to_receive(&channel);
            let third = stand_to_receive(&channel);
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || (1..=2).all(|item| channel.try_send(item).is_ok()))
            };
            let drops = {
                let channel = channel.clone();
                thread::spawn(move || channel.abandon_recv(first.number))
            };
            let mut got = channel.try_end_recv(second.number);
            let taken = got.is_some();
            if !taken && channel.may_receive(second.number, &mut None) {
                got = channel.end_recv(second.number);
                assert!(got.is_some());
            }
            let sent = sends.join().unwrap();
            drops.join().unwrap();
            assert!(sent);
            if got.is_none() {
                assert!(second.bell.has_rung(), "sleeps on");
                got = channel.try_end_recv(second.number);
            }
            assert!(third.bell.has_rung(), "third sleeps on");
            let other = channel.try_end_recv(third.number);
            let mut items: Vec<_> = [got, other].into_iter().flatten().collect();
            items.sort_unstable();
            assert_eq!(items, [1, 2]);
            let state = channel.state.lock();
            assert_eq!((state.promised, state.front.len()), (0, 0));
        });
    }

    /// The last sender goes while one takes what it was promised at a glance, and another gives up.
    #[test]
    fn loom_a_glance_at_a_promise_and_a_close() {
        model_in_part(|| {
            let channel = Shared::new(Channel::new(1));
            let first = stand_to_receive(&channel);
            let second = stand_to_receive(&channel);
            let sends = {
                let channel = channel.clone();
                thread::spawn(move || {
                    assert!(channel.try_send(1).is_ok());
                    channel.drop_sender();
                })
            };
            let gives = {
                let channel = channel.clone();
                thread::spawn(move || {
                    first.wait.give_up();
                    channel
                        .try_end_recv(first.number)
                        .or_else(|| channel.end_recv(first.number))
                })
            };
            let mut got = channel.try_end_recv(second.number);
            let one = gives.join().unwrap();
            sends.join().unwrap();
            if got.is_none() {
                assert!(second.may_receive(&channel), "sleeps on");
                got = channel.end_recv(second.number);
            }
            assert_eq!([one, got].into_iter().flatten().collect::<Vec<_>>(), [1]);
        });
    }
}
