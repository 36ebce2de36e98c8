//! What happened on a core, in numbers, and what goes on there now.
//!
//! In reading order: the counters, here; [`dump`] the live scope trees, [`text`] and [`json`] how
//! they are told.
//!
//! Counters have one writer, their core, which adds with a plain load and store; anybody may read
//! them at any time. The few that other threads add to say so. All count from the core's start.

pub(crate) mod dump;
mod json;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, and only its core adds to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds, as the one writer.
    pub(crate) fn add(&self, count: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Adds, as one of several writers.
    pub(crate) fn add_shared(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets a gauge, as the one writer.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of one core, as it writes them.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        /// What one core has done since it started.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct CoreMetrics {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Starts from zero, for a new core in an old place.
            pub(crate) fn reset(&self) {
                $(self.$name.set(0);)+
            }

            /// Reads all.
            pub(crate) fn snapshot(&self) -> CoreMetrics {
                CoreMetrics { $($name: self.$name.get(),)+ }
            }
        }

        impl CoreMetrics {
            /// Returns each with its name, in the order of the documentation.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Turns of the core's loop.
    turns,
    /// Polls of tasks.
    polls,
    /// Tasks started.
    spawned,
    /// Tasks that live now.
    tasks,
    /// Panics caught at a task's boundary.
    panics,
    /// Times the core entered the kernel, parks included.
    enters,
    /// Times it did so to wait.
    parks,
    /// Times it found the kernel too busy to take more, and came back for completions first.
    busy_enters,
    /// Requests that were put into the submission queue.
    submitted,
    /// Completions that were taken.
    completions,
    /// Times completions had overflowed their queue; the kernel keeps them, none is lost.
    overflows,
    /// Cancel requests sent to the kernel.
    cancel_requests,
    /// Kernel ops in flight now.
    in_flight,
    /// Of these, ops whose future is gone and which the kernel has yet to end.
    orphans,
    /// Orphans that ended with EFAULT: a late write found its memory unreadable. Always zero.
    orphan_faults,
    /// Slots of kernel ops that are occupied now.
    op_slots,
    /// Scopes that are open now: the core's root, one per task, and those of the program.
    scopes,
    /// Ops that are parked now.
    parked,
    /// Timers that are armed now.
    timers,
    /// Timers that fired.
    timers_fired,
    /// Scopes whose deadline passed.
    deadlines,
    /// Cancels that changed something: the first of each scope.
    deliveries,
    /// Parked ops that a cancel reached. Each is reached once.
    aborts,
    /// Wakes of cancelled bodies that wait in something the runtime does not know.
    foreign_wakes,
    /// Pauses that tasks were made to take which ask again and again though they are cancelled.
    pauses,
    /// Tasks that have to pause now, for having been refused too often.
    swallowing,
    /// Cancelled bodies that were woken in vain and are left alone now.
    unresponsive,
    /// Groups that were dropped before their end, and whose tasks the scope around has taken over.
    adopted_groups,
    /// Scopes cancelled through a handle.
    remote_cancels,
    /// Cancels that tasks of this core sent through handles.
    cancels_sent,
    /// Of these, those that found their scope gone.
    cancels_gone,
    /// Tasks woken by other threads.
    remote_wakes,
    /// System calls that other threads made to wake this core. Added to by them.
    wake_calls,
    /// Such calls that failed. Added to by other threads.
    failed_wakes,
    /// Closures sent to this core that it ran.
    closures,
    /// Received messages that were copied out because half of the provided buffers were lent.
    copied_chunks,
    /// Ops that the kernel still held when the grace period was over: their memory is kept for ever.
    quarantined,
}
