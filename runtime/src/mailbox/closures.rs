//! The bounded door for closures.
//!
//! One queue per core and life of it, shared with the handles of its runtime. When the core ends it
//! closes the queue; whoever finds the queue closed after putting something in takes out what is
//! there, so that nothing is kept for ever and nobody waits for an answer that cannot come.

use std::sync::atomic::{AtomicBool, Ordering, fence};

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
    }

    fn discard(&self) {
        while let Some(job) = self.jobs.pop() {
            contained(|| drop(job));
        }
    }
}
