//! What happened on each core, in numbers.
//!
//! [`CoreMetrics`] are the counters of a core; [`Snapshot`] is everything a runtime counts and
//! measures at one moment, for people ([`Histogram::percentile`]), for scrapers
//! ([`Snapshot::to_prometheus`]), for programs ([`Snapshot::to_json`]) and for HdrHistogram's tools
//! ([`HdrLog`]). A program measures its own with a [`Recorder`].
//!
//! Counters have one writer, their core, which adds with a plain load and store; anybody may read
//! them at any time. The few that other threads add to say so. All count from the core's start.

pub(crate) mod dump;
mod exposition;
mod hdr_log;
mod histogram;
mod json;
pub(crate) mod latencies;
mod snapshot;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};

pub use hdr_log::HdrLog;
pub use histogram::{Bucket, Histogram, Reader, Recorder};
pub(crate) use latencies::{Latencies, ParkedTime};
pub use snapshot::{CoreSnapshot, Count, CountKind, Latency, Snapshot};

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

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:ident,)+) => {
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

            /// Returns each as it is told to scrapers.
            pub(crate) fn counts(&self) -> Vec<Count> {
                vec![$(Count::new(
                    stringify!($name),
                    concat!($($doc),+),
                    CountKind::$kind,
                    self.$name,
                ),)+]
            }
        }
    };
}

counters! {
    /// Turns of the core's loop.
    Counter turns,
    /// Polls of tasks.
    Counter polls,
    /// Tasks started.
    Counter spawned,
    /// Tasks that live now.
    Gauge tasks,
    /// Panics caught at a task's boundary, and those of wakers. What a child of a group panics with is the group's.
    Counter panics,
    /// Times the core entered the kernel, parks included.
    Counter enters,
    /// Times the core entered the kernel to wait.
    Counter parks,
    /// Times the core looked on in memory before it parked, where its builder allows it to spin.
    Counter spins,
    /// Times the core looked on and found something to do, and did not park.
    Counter spin_hits,
    /// Nanoseconds that the core looked on: the time of its processor that spinning has cost.
    Counter spin_nanos,
    /// Times the core found the kernel too busy to take more, and came back for completions first.
    Counter busy_enters,
    /// Requests that were put into the submission queue.
    Counter submitted,
    /// Completions that were taken.
    Counter completions,
    /// Sends that the kernel answered at once, past the ring: they would have been submitted alone.
    Counter direct_sends,
    /// Reads of what lay in the page cache, past the ring.
    Counter direct_reads,
    /// Writes that a pipe or a device took at once, past the ring.
    Counter direct_writes,
    /// Times completions had overflowed their queue; the kernel keeps them, none is lost.
    Counter overflows,
    /// Cancel requests sent to the kernel.
    Counter cancel_requests,
    /// Kernel ops in flight now.
    Gauge in_flight,
    /// Kernel ops in flight now whose future is gone: the kernel has yet to end them.
    Gauge orphans,
    /// Orphans that ended with EFAULT: a late write found its memory unreadable. Always zero.
    Counter orphan_faults,
    /// Slots of kernel ops that are occupied now.
    Gauge op_slots,
    /// Scopes that are open now: the core's root, one per task, and those of the program.
    Gauge scopes,
    /// Ops that are parked now.
    Gauge parked,
    /// Timers that are armed now.
    Gauge timers,
    /// Timers that fired.
    Counter timers_fired,
    /// Scopes whose deadline passed.
    Counter deadlines,
    /// Cancels that changed something: the first of each scope.
    Counter deliveries,
    /// Parked ops that a cancel reached. Each is reached once.
    Counter aborts,
    /// Wakes of cancelled bodies that wait in something the runtime does not know.
    Counter foreign_wakes,
    /// Pauses that tasks were made to take which ask again and again though they are cancelled.
    Counter pauses,
    /// Tasks that have to pause now, for having been refused too often.
    Gauge swallowing,
    /// Cancelled bodies that were woken in vain and are left alone now.
    Gauge unresponsive,
    /// Groups that were dropped before their end, and whose tasks the scope around has taken over.
    Counter adopted_groups,
    /// Scopes cancelled through a handle.
    Counter remote_cancels,
    /// Cancels that tasks of this core sent through handles.
    Counter cancels_sent,
    /// Cancels that tasks of this core sent through handles, and that found their scope gone.
    Counter cancels_gone,
    /// Tasks woken by other threads.
    Counter remote_wakes,
    /// System calls that other threads made to wake this core. Added to by them.
    Counter wake_calls,
    /// System calls to wake this core that failed. Added to by the threads that made them.
    Counter failed_wakes,
    /// Closures sent to this core that it ran.
    Counter closures,
    /// Received messages that were copied out because half of the provided buffers were lent.
    Counter copied_chunks,
    /// Provided buffers that the kernel has used up, and in which received messages still lie.
    Gauge lent_buffers,
    /// Ops that the kernel still held when the grace period was over: their memory is kept for ever.
    Gauge quarantined,
}
