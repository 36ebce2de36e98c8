//! The bounded door for closures.
//!
//! One queue per core and life of it, shared with the handles of its runtime. When the core ends it
//! closes the queue; whoever finds the queue closed after putting something in takes out what is
//! there, so that nothing is kept for ever and nobody waits for an answer that cannot come.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crossbeam_queue::ArrayQueue;

use crate::panics::contained;

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
    /// Tasks that wait for room. Locked for a few instructions, and only where there was no room.
    waiting: Mutex<Vec<Waker>>,
    somebody_waits: AtomicBool,
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
            waiting: Mutex::default(),
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

    /// As `send`; where there is no room, `waker` is woken when there may be some.
    pub(crate) fn send_or_wait(
        &self,
        job: Job,
        waker: &Waker,
    ) -> Result<(), (Refused, Option<Job>)> {
        let job = match self.send(job) {
            Err((Refused::Full, Some(job))) => job,
            other => return other,
        };
        let own = waker.clone();
        let mut waiting = lock(&self.waiting);
        let is_new = !waiting.iter().any(|known| known.will_wake(&own));
        let unneeded = if is_new {
            waiting.push(own);
            None
        } else {
            Some(own)
        };
        self.somebody_waits.store(true, Ordering::Relaxed);
        drop(waiting);
        drop(unneeded);
        // Pairs with the fence in `wake_waiting`: either it sees us, or we see the room it made.
        fence(Ordering::SeqCst);
        self.push(job)
    }

    /// Wakes who waits for room, after some was made. Owner only.
    pub(crate) fn wake_waiting(&self) {
        // Pairs with the fence in `send_or_wait`.
        fence(Ordering::SeqCst);
        if self.somebody_waits.load(Ordering::Relaxed) {
            self.somebody_waits.store(false, Ordering::Relaxed);
            let waiting = std::mem::take(&mut *lock(&self.waiting));
            for waker in waiting {
                contained(|| waker.wake());
            }
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
        self.wake_waiting();
    }

    fn discard(&self) {
        while let Some(job) = self.jobs.pop() {
            contained(|| drop(job));
        }
    }
}

/// A thread that panicked while it held this lock left nothing half done.
fn lock(waiting: &Mutex<Vec<Waker>>) -> MutexGuard<'_, Vec<Waker>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
