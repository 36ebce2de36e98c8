//! What a pool has done, in numbers.

use std::time::Duration;

use quoit::metrics::{Count, CountKind, Histogram, Latency, Reader, Recorder};

/// What the registry counts, a writer at a time: whoever holds it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) opens: u64,
    pub(crate) joins: u64,
    pub(crate) reuses: u64,
    pub(crate) failures: u64,
    pub(crate) exhausted: u64,
    pub(crate) evicted: u64,
    pub(crate) expired: u64,
    pub(crate) retired: u64,
    pub(crate) closed: u64,
    pub(crate) unwanted: u64,
    pub(crate) shut_down: u64,
    pub(crate) opening: Times,
    pub(crate) waiting: Times,
}

/// A histogram that is written under a lock.
#[derive(Debug)]
pub(crate) struct Times {
    recorder: Recorder,
    reader: Reader,
}

impl Default for Times {
    fn default() -> Self {
        let (recorder, reader) = Recorder::new();
        Self { recorder, reader }
    }
}

impl Times {
    pub(crate) fn push(&self, took: Duration) {
        self.recorder.record(took);
    }
}

/// What a pool has done since it was made, and what is there now: [`SessionPool::metrics`].
///
/// [`SessionPool::metrics`]: crate::SessionPool::metrics
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolMetrics {
    /// Sessions that were opened.
    pub opens: u64,
    /// Leases that waited for an opening that somebody else had caused.
    pub joins: u64,
    /// Leases of a session that was there, without a wait.
    pub reuses: u64,
    /// Openings that failed.
    pub failures: u64,
    /// Leases that were refused because as many waited as may.
    pub exhausted: u64,
    /// Sessions closed to make room.
    pub evicted: u64,
    /// Sessions closed because nobody had leased them for too long.
    pub expired: u64,
    /// Sessions that were unfit, whose peer had gone, or that were too old.
    pub retired: u64,
    /// Sessions and openings that were closed by somebody.
    pub closed: u64,
    /// Openings that nobody waited for any more.
    pub unwanted: u64,
    /// Sessions and openings whose core was shut down.
    pub shut_down: u64,
    /// Sessions there are, with those that are being opened or closed.
    pub sessions: usize,
    /// Leases there are.
    pub leases: usize,
    /// Callers that wait.
    pub waiting: usize,
    /// How long openings took.
    pub opening_time: Histogram,
    /// How long callers waited, those that had to.
    pub waiting_time: Histogram,
}

impl Counts {
    pub(crate) fn metrics(&self, gauges: (usize, usize, usize)) -> PoolMetrics {
        let (sessions, leases, waiting) = gauges;
        PoolMetrics {
            opens: self.opens,
            joins: self.joins,
            reuses: self.reuses,
            failures: self.failures,
            exhausted: self.exhausted,
            evicted: self.evicted,
            expired: self.expired,
            retired: self.retired,
            closed: self.closed,
            unwanted: self.unwanted,
            shut_down: self.shut_down,
            sessions,
            leases,
            waiting,
            opening_time: self.opening.reader.read(),
            waiting_time: self.waiting.reader.read(),
        }
    }
}

impl PoolMetrics {
    /// Returns the numbers in the form that [`quoit::metrics`] writes out.
    pub fn counts(&self) -> Vec<Count> {
        let counter = |name: &'static str, help: &'static str, value| {
            Count::new(name, help, CountKind::Counter, value)
        };
        let gauge = |name: &'static str, help: &'static str, value: usize| {
            Count::new(name, help, CountKind::Gauge, value as u64)
        };
        let end = |by: &'static str, value| {
            counter("sessions_ended", "Sessions that ended, by why.", value).label("by", by)
        };
        vec![
            counter("sessions_opened", "Sessions that were opened.", self.opens),
            counter(
                "leases_joined",
                "Leases that joined an opening.",
                self.joins,
            ),
            counter("leases_reused", "Leases of a session at hand.", self.reuses),
            counter("openings_failed", "Openings that failed.", self.failures),
            counter(
                "leases_refused",
                "Leases that found no room to wait.",
                self.exhausted,
            ),
            end("eviction", self.evicted),
            end("expiry", self.expired),
            end("retirement", self.retired),
            end("close", self.closed),
            end("nobody", self.unwanted),
            end("shutdown", self.shut_down),
            gauge("sessions", "Sessions there are.", self.sessions),
            gauge("leases", "Leases there are.", self.leases),
            gauge("lease_waiters", "Callers that wait.", self.waiting),
        ]
    }

    /// Returns the latencies in the form that [`quoit::metrics`] writes out.
    pub fn latencies(&self) -> Vec<Latency> {
        vec![
            Latency::new(
                "session_opening",
                "How long opening a session took.",
                self.opening_time.clone(),
            ),
            Latency::new(
                "lease_waiting",
                "How long callers waited for a lease.",
                self.waiting_time.clone(),
            ),
        ]
    }
}
