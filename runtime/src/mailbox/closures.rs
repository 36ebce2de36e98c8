//! The bounded door for closures.
//!
//! One queue per core and life of it, shared with the handles of its runtime. When the core ends it
//! closes the queue; whoever finds the queue closed after putting something in takes out what is
//! there, so that nothing is kept for ever and nobody waits for an answer that cannot come.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
use std::collections::BTreeMap;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, PoisonError};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};

#[cfg(not(loom))]
use crossbeam_queue::ArrayQueue;
#[cfg(loom)]
use model::ArrayQueue;

use crate::panics::contained;
use crate::task::waker::wake_from_anywhere;

/// Work for a core, sent by somebody else.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Why a closure was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No room.
    Full,
    /// The core has ended.
    Closed,
}

/// The closures on their way to one core.
pub(crate) struct ClosureQueue {
    jobs: ArrayQueue<Job>,
    closed: AtomicBool,
    /// Those that wait for room. Locked for a few instructions, and only where there was no room.
    waiting: Mutex<Waiting>,
    somebody_waits: AtomicBool,
}

/// Those that wait for room, by their tickets: who has waited longest comes first, also when he finds that others have
/// taken what he was woken for.
#[derive(Default)]
struct Waiting {
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

/// One that sends, and may have to wait for room.
pub(crate) struct Sender<'a> {
    queue: &'a ClosureQueue,
    ticket: Option<u64>,
    is_done: bool,
}

impl Waiting {
    /// Lets somebody wait, or wait on; returns the waker that is not needed.
    fn put(&mut self, waker: Waker, ticket: &mut Option<u64>) -> Option<Waker> {
        let ticket = ticket.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.wakers.insert(*ticket, waker)
    }

    /// Takes somebody out; nothing if he was woken.
    fn leave(&mut self, ticket: u64) -> Option<Waker> {
        self.wakers.remove(&ticket)
    }

    /// Takes out so many, those first who have waited longest.
    fn take(&mut self, count: usize) -> Vec<Waker> {
        let first = std::iter::from_fn(|| self.wakers.pop_first());
        first.take(count).map(|(_, waker)| waker).collect()
    }
}

impl<'a> Sender<'a> {
    pub(crate) fn new(queue: &'a ClosureQueue) -> Self {
        Self {
            queue,
            ticket: None,
            is_done: false,
        }
    }

    /// As [`ClosureQueue::send`]; where there is no room, `waker` is woken when there may be some.
    pub(crate) fn send_or_wait(
        &mut self,
        job: Job,
        waker: &Waker,
    ) -> Result<(), (Refused, Option<Job>)> {
        let sent = self.try_send_or_wait(job, waker);
        self.is_done = sent.is_ok();
        sent
    }

    fn try_send_or_wait(&mut self, job: Job, waker: &Waker) -> Result<(), (Refused, Option<Job>)> {
        let queue = self.queue;
        let job = match queue.send(job) {
            Err((Refused::Full, Some(job))) => job,
            other => return other,
        };
        let own = waker.clone();
        let mut waiting = lock(&queue.waiting);
        let unneeded = waiting.put(own, &mut self.ticket);
        queue.somebody_waits.store(true, Ordering::Relaxed);
        drop(waiting);
        drop(unneeded);
        // Pairs with the fence in `wake_waiting`: either it sees us, or we see the room it made, or that it was the last.
        fence(Ordering::SeqCst);
        queue.push(job).map_err(|(refused, job)| {
            // What fills it then is of others who come late, and drop it without a word.
            let is_last = queue.closed.load(Ordering::Relaxed);
            (if is_last { Refused::Closed } else { refused }, job)
        })
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut waiting = lock(&self.queue.waiting);
        let unneeded = waiting.leave(ticket);
        // The room that one was woken for, and has not taken, is the next one's.
        let passes_on = unneeded.is_none() && !self.is_done;
        let next = waiting.take(usize::from(passes_on));
        drop(waiting);
        drop(unneeded);
        next.into_iter().for_each(wake_from_anywhere);
    }
}

/// Wakes a thread that waits for room.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl std::fmt::Debug for ClosureQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClosureQueue")
            .field("len", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

impl ClosureQueue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            jobs: ArrayQueue::new(capacity),
            closed: AtomicBool::new(false),
            waiting: Mutex::new(Waiting::default()),
            somebody_waits: AtomicBool::new(false),
        }
    }

    /// Puts a closure in. One that was not taken comes back, unless the core ended in between: then
    /// it is dropped, here or there.
    pub(crate) fn send(&self, job: Job) -> Result<(), (Refused, Option<Job>)> {
        if self.closed.load(Ordering::Acquire) {
            return Err((Refused::Closed, Some(job)));
        }
        #[cfg(feature = "sim")]
        if crate::sim::world().is_some_and(|world| world.mailbox_is_full()) {
            return Err((Refused::Full, Some(job)));
        }
        self.push(job)
    }

    /// As [`ClosureQueue::send`], on a thread that runs no core: it waits for room. False if the core has ended.
    pub(crate) fn send_in_turn(&self, job: Job) -> bool {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut sender = Sender::new(self);
        let mut unsent = Some(job);
        let mut attempt = || match sender.send_or_wait(unsent.take()?, &waker) {
            Ok(()) => Some(true),
            Err((Refused::Closed, _)) => Some(false),
            Err((Refused::Full, back)) => {
                unsent = back;
                None
            }
        };
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            return world.drive(attempt);
        }
        loop {
            if let Some(is_sent) = attempt() {
                return is_sent;
            }
            thread::park();
        }
    }

    /// Wakes those who wait for room, after so many were taken out: as many as find some. Owner only.
    pub(crate) fn wake_waiting(&self, taken: usize) {
        // Pairs with the fence in `Sender::send_or_wait`.
        fence(Ordering::SeqCst);
        if self.somebody_waits.load(Ordering::Relaxed) {
            // Whoever was woken before for what is empty may be slow.
            let is_empty = self.jobs.is_empty();
            let room = if is_empty {
                self.jobs.capacity()
            } else {
                taken
            };
            self.wake_first(room);
        }
    }

    fn wake_first(&self, count: usize) {
        let mut waiting = lock(&self.waiting);
        let first = waiting.take(count);
        let is_last = waiting.wakers.is_empty();
        self.somebody_waits.store(!is_last, Ordering::Relaxed);
        drop(waiting);
        for waker in first {
            contained(|| waker.wake());
        }
    }

    fn push(&self, job: Job) -> Result<(), (Refused, Option<Job>)> {
        self.jobs
            .push(job)
            .map_err(|job| (Refused::Full, Some(job)))?;
        // Pairs with the fence in `close`: either we see it closed, or it sees our closure.
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.discard();
            return Err((Refused::Closed, None));
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(crate) fn take(&self) -> Option<Job> {
        self.jobs.pop()
    }

    /// Refuses everything from now on, and drops what is there.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.discard();
        self.wake_first(usize::MAX);
    }

    fn discard(&self) {
        while let Some(job) = self.jobs.pop() {
            contained(|| drop(job));
        }
    }
}

/// A thread that panicked while it held this lock left nothing half done.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bounded queue in the place of the real one, which a model cannot look into. It promises less:
/// what is put in and taken out is in order, and nothing else is by it. Whoever finds it empty may be
/// late with that, and so may whoever finds it full, if he looks before he puts in.
///
/// There are both kinds of looking, because loom does not go back to what another thread did before a
/// thread's own look.
#[cfg(loom)]
mod model {
    use std::collections::VecDeque;
    use std::sync::{Mutex, PoisonError};

    use loom::sync::atomic::{AtomicUsize, Ordering};

    pub(super) struct ArrayQueue<T> {
        capacity: usize,
        looks_first: bool,
        count: AtomicUsize,
        /// Unknown to the model, so it puts nothing in order there; changed with the count at one
        /// stroke, since threads of a model change over at its own atomics alone.
        items: Mutex<VecDeque<T>>,
    }

    impl<T> ArrayQueue<T> {
        pub(super) fn new(capacity: usize) -> Self {
            Self::looking(capacity, true)
        }

        pub(super) fn looking(capacity: usize, looks_first: bool) -> Self {
            Self {
                capacity,
                looks_first,
                count: AtomicUsize::new(0),
                items: Mutex::default(),
            }
        }

        pub(super) fn push(&self, item: T) -> Result<(), T> {
            let mut count = if self.looks_first {
                self.count.load(Ordering::Relaxed)
            } else {
                0
            };
            while count < self.capacity {
                match self.exchange(count, count + 1) {
                    Ok(()) => {
                        self.items().push_back(item);
                        return Ok(());
                    }
                    Err(now) => count = now,
                }
            }
            Err(item)
        }

        pub(super) fn pop(&self) -> Option<T> {
            let mut count = self.count.load(Ordering::Relaxed);
            while count > 0 {
                match self.exchange(count, count - 1) {
                    Ok(()) => return self.items().pop_front(),
                    Err(now) => count = now,
                }
            }
            None
        }

        pub(super) fn capacity(&self) -> usize {
            self.capacity
        }

        pub(super) fn is_empty(&self) -> bool {
            self.len() == 0
        }

        pub(super) fn len(&self) -> usize {
            self.count.load(Ordering::Relaxed)
        }

        fn exchange(&self, from: usize, to: usize) -> Result<(), usize> {
            self.count
                .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
                .map(drop)
        }

        fn items(&self) -> std::sync::MutexGuard<'_, VecDeque<T>> {
            self.items.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Bell {
        fn rung(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn waits(sender: &mut Sender<'_>, bell: &Arc<Bell>) {
        let refused = sender.send_or_wait(Box::new(|| ()), &Arc::clone(bell).into());
        assert!(matches!(refused, Err((Refused::Full, Some(_)))));
    }

    /// A queue with room for `capacity`, which are taken.
    fn full(capacity: usize) -> ClosureQueue {
        let queue = ClosureQueue::new(capacity);
        for _ in 0..capacity {
            let sent = queue.send(Box::new(|| ()));
            assert!(sent.is_ok());
        }
        queue
    }

    #[test]
    fn who_waits_no_more_is_not_woken() {
        let queue = full(1);
        let (gone, stays) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let mut staying = Sender::new(&queue);
        for _ in 0..3 {
            let mut going = Sender::new(&queue);
            waits(&mut going, &gone);
            waits(&mut staying, &stays);
            drop(going);
            assert_eq!(lock(&queue.waiting).wakers.len(), 1);
        }
        assert_eq!(Arc::strong_count(&gone), 1);
        queue.wake_waiting(1);
        assert_eq!((gone.rung(), stays.rung()), (0, 1));
    }

    /// Very many who wait would else be woken for each that is let in.
    #[test]
    fn as_many_are_woken_as_find_room_and_those_first_who_came_first() {
        let queue = full(3);
        let bells: Vec<_> = (0..5).map(|_| Arc::new(Bell::default())).collect();
        let rung = || bells.iter().map(|bell| bell.rung()).collect::<Vec<_>>();
        let mut senders: Vec<_> = bells
            .iter()
            .map(|bell| {
                let mut sender = Sender::new(&queue);
                waits(&mut sender, bell);
                sender
            })
            .collect();
        drop(queue.take());
        queue.wake_waiting(1);
        assert_eq!(rung(), [1, 0, 0, 0, 0]);
        // Somebody else was faster: the first waits on, and before the others.
        assert!(queue.send(Box::new(|| ())).is_ok());
        waits(&mut senders[0], &bells[0]);
        drop(queue.take());
        queue.wake_waiting(1);
        assert_eq!(rung(), [2, 0, 0, 0, 0]);
        // It goes without a word: its room is the next one's, who takes it.
        drop(senders.remove(0));
        assert_eq!(rung(), [2, 1, 0, 0, 0]);
        let sent = senders[0].send_or_wait(Box::new(|| ()), Waker::noop());
        assert!(sent.is_ok());
        drop(senders.remove(0));
        assert_eq!(rung(), [2, 1, 0, 0, 0]);
        while let Some(job) = queue.take() {
            drop(job);
        }
        queue.wake_waiting(1);
        assert_eq!(rung(), [2, 1, 1, 1, 1], "it is empty");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;
    use std::task::Wake;

    /// A waker that counts.
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A queue with room for one, which is taken, and how many of those in there were run or dropped.
    fn full(
        looks_first: bool,
    ) -> (
        Arc<ClosureQueue>,
        std::sync::Arc<std::sync::atomic::AtomicUsize>,
    ) {
        let mut queue = ClosureQueue::new(1);
        queue.jobs = ArrayQueue::looking(1, looks_first);
        let queue = Arc::new(queue);
        let ended = std::sync::Arc::default();
        let sent = queue.send(job(&ended));
        assert!(sent.is_ok());
        (queue, ended)
    }

    /// A job that counts when it ends, run or not.
    fn job(ended: &std::sync::Arc<std::sync::atomic::AtomicUsize>) -> Job {
        struct Ends(std::sync::Arc<std::sync::atomic::AtomicUsize>);
        impl Drop for Ends {
            fn drop(&mut self) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let ends = Ends(ended.clone());
        Box::new(move || drop(ends))
    }

    /// One who comes with a job: whether it was refused for want of room, and his bell.
    fn comes(
        queue: &Arc<ClosureQueue>,
        ended: &std::sync::Arc<std::sync::atomic::AtomicUsize>,
    ) -> thread::JoinHandle<(Result<(), Refused>, std::sync::Arc<Bell>)> {
        let (queue, job) = (queue.clone(), job(ended));
        thread::spawn(move || {
            let bell = std::sync::Arc::new(Bell(AtomicUsize::new(0)));
            let mut sender = Sender::new(&queue);
            let sent = sender.send_or_wait(job, &bell.clone().into());
            // He waits on.
            std::mem::forget(sender);
            (sent.map_err(|(refused, _)| refused), bell)
        })
    }

    /// Who found no room is woken when there is some, or has put his job in.
    #[test]
    fn loom_who_waits_for_room_is_woken() {
        for looks_first in [false, true] {
            loom::model(move || {
                let (queue, ended) = full(looks_first);
                let sender = comes(&queue, &ended);
                queue.take().expect("there is one")();
                queue.wake_waiting(1);
                let (sent, bell) = sender.join().unwrap();
                match sent {
                    Ok(()) => assert_eq!(queue.jobs.len(), 1),
                    Err(Refused::Full) => assert_eq!(bell.0.load(Ordering::Relaxed), 1),
                    Err(Refused::Closed) => unreachable!("it is open"),
                }
            });
        }
    }

    /// One waits for room and another comes: there is room for one of them, the first is woken, and the other when that
    /// one has gone, or the other was faster.
    #[test]
    fn loom_of_two_who_wait_for_room_none_is_forgotten() {
        for looks_first in [false, true] {
            loom::model(move || {
                let (queue, ended) = full(looks_first);
                let waits = std::sync::Arc::new(Bell(AtomicUsize::new(0)));
                let mut first = Sender::new(&queue);
                let refused = first.send_or_wait(job(&ended), &waits.clone().into());
                assert!(matches!(refused, Err((Refused::Full, Some(_)))));
                let sender = comes(&queue, &ended);
                queue.take().expect("there is one")();
                queue.wake_waiting(1);
                assert_eq!(waits.0.load(Ordering::Relaxed), 1);
                let (sent, bell) = sender.join().unwrap();
                drop(first);
                match sent {
                    Ok(()) => assert_eq!(queue.jobs.len(), 1),
                    Err(Refused::Full) => assert_eq!(bell.0.load(Ordering::Relaxed), 1),
                    Err(Refused::Closed) => unreachable!("it is open"),
                }
            });
        }
    }

    /// Two wait and there is room for one, who goes at that moment: the other is woken, or was before.
    #[test]
    fn loom_who_goes_leaves_the_room_he_was_woken_for_to_the_next() {
        for looks_first in [false, true] {
            loom::model(move || {
                let (queue, ended) = full(looks_first);
                let goes = {
                    let (queue, job) = (queue.clone(), job(&ended));
                    thread::spawn(move || {
                        let mut sender = Sender::new(&queue);
                        let sent = sender.send_or_wait(job, Waker::noop());
                        sent.is_ok()
                    })
                };
                let bell = std::sync::Arc::new(Bell(AtomicUsize::new(0)));
                let mut waits = Sender::new(&queue);
                let sent = waits.send_or_wait(job(&ended), &bell.clone().into());
                queue.take().expect("there is one")();
                queue.wake_waiting(1);
                let has_sent = goes.join().unwrap();
                if sent.is_err() && !has_sent {
                    assert_eq!(bell.0.load(Ordering::Relaxed), 1, "it sleeps on");
                }
            });
        }
    }

    /// The core ends while somebody waits for room: he is woken or told, and no job is kept.
    #[test]
    fn loom_who_waits_for_room_hears_of_the_end() {
        for looks_first in [false, true] {
            loom::model(move || {
                let (queue, ended) = full(looks_first);
                let sender = comes(&queue, &ended);
                queue.close();
                let (sent, bell) = sender.join().unwrap();
                match sent {
                    Ok(()) | Err(Refused::Closed) => {}
                    Err(Refused::Full) => assert_eq!(bell.0.load(Ordering::Relaxed), 1),
                }
                assert!(queue.is_empty(), "a job is kept for ever");
                assert_eq!(ended.load(std::sync::atomic::Ordering::Relaxed), 2);
            });
        }
    }

    /// The core ends while two come, of whom one takes the other's room: the other is woken or told as well.
    #[test]
    fn loom_who_finds_no_room_behind_the_end_hears_of_it() {
        for looks_first in [false, true] {
            // All orders are too many.
            let mut model = loom::model::Builder::new();
            model.preemption_bound = Some(2);
            model.check(move || {
                let mut queue = ClosureQueue::new(1);
                queue.jobs = ArrayQueue::looking(1, looks_first);
                let (queue, ended) = (Arc::new(queue), std::sync::Arc::default());
                let senders = [comes(&queue, &ended), comes(&queue, &ended)];
                queue.close();
                for sender in senders {
                    let (sent, bell) = sender.join().unwrap();
                    if sent == Err(Refused::Full) {
                        assert_eq!(bell.0.load(Ordering::Relaxed), 1, "it sleeps on");
                    }
                }
                assert!(queue.is_empty(), "a job is kept for ever");
                assert_eq!(ended.load(std::sync::atomic::Ordering::Relaxed), 2);
            });
        }
    }
}
