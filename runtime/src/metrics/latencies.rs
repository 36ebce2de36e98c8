//! What a core measures of itself.
//!
//! Of one clock reading many things are told: when a park ended, when completions were seen, and what
//! time it is for timers, are the same moment. Polls are sampled (`task/probe.rs`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::Cells;
use crate::kernel_op::kind::OpKind;
use crate::time::Instant;

impl Cells {
    /// Adds a duration that stands for `weight` of its kind.
    pub(crate) fn record_for(&self, took: Duration, weight: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.record(nanos, weight);
    }

    /// Adds a duration.
    pub(crate) fn record_one(&self, took: Duration) {
        self.record_for(took, 1);
    }
}

/// The histograms of one core, as it writes them.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    /// How long polls of tasks took.
    pub(crate) poll: Cells,
    /// How long tasks were ready before they were polled.
    pub(crate) run_delay: Cells,
    /// From the system call that wakes the core until it runs.
    pub(crate) wake: Cells,
    /// From the cancel of a scope until its body, and all in it, has ended.
    pub(crate) cancel: Cells,
    /// From submission to completion, by what the op does.
    ops: [Cells; OpKind::ALL.len()],
}

impl Latencies {
    /// Returns the histogram of a kind of op.
    pub(crate) fn op(&self, kind: OpKind) -> &Cells {
        &self.ops[kind as usize]
    }

    /// Starts from zero, for a new core in an old place.
    pub(crate) fn reset(&self) {
        let own = [&self.poll, &self.run_delay, &self.wake, &self.cancel];
        for cells in own.into_iter().chain(&self.ops) {
            cells.reset();
        }
    }
}

/// How long a core was parked, in one word: it never goes back, whoever reads it when.
///
/// While the core runs, the nanoseconds so far. While it is parked, with the highest bit, that less
/// the moment at which the park began: a reader adds the present.
#[derive(Debug, Default)]
pub(crate) struct ParkedTime {
    word: AtomicU64,
    /// When the core began to count.
    started: AtomicU64,
}

const PARKED: u64 = 1 << 63;

impl ParkedTime {
    /// Starts from zero, for a new core in an old place.
    pub(crate) fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
        let now = Instant::now().as_nanos();
        self.started.store(now, Ordering::Relaxed);
    }

    /// Notes that the core parks. Owner only.
    pub(crate) fn begin(&self, now: Instant) {
        let total = self.word.load(Ordering::Relaxed);
        if total & PARKED == 0 {
            let word = total.wrapping_sub(now.as_nanos()) | PARKED;
            // Release: who sees that it is parked reads a clock that is past the beginning.
            self.word.store(word, Ordering::Release);
        }
    }

    /// Notes that it runs again. Owner only.
    pub(crate) fn end(&self, now: Instant) {
        let total = self.until(|| now);
        self.word.store(total, Ordering::Relaxed);
    }

    /// Returns when the core began to count.
    pub(crate) fn started(&self) -> Instant {
        Instant::from_nanos(self.started.load(Ordering::Relaxed))
    }

    /// Returns the nanoseconds until now, which is looked at after the core's word: a core that parks in
    /// between would seem to have begun that in the future.
    pub(crate) fn until(&self, now: impl FnOnce() -> Instant) -> u64 {
        let word = self.word.load(Ordering::Acquire);
        if word & PARKED == 0 {
            return word;
        }
        word.wrapping_add(now().as_nanos()) & !PARKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_time_goes_on_while_the_core_is_parked() {
        let at = Instant::from_nanos;
        let parked = ParkedTime::default();
        assert_eq!(parked.until(|| at(5_000)), 0);
        parked.begin(at(6_000));
        assert_eq!(parked.until(|| at(6_000)), 0);
        assert_eq!(parked.until(|| at(6_700)), 700);
        parked.end(at(7_000));
        assert_eq!(parked.until(|| at(9_000)), 1_000);
        parked.begin(at(9_000));
        // Said again, as after an entry that was refused: it was parked all the while.
        parked.begin(at(9_100));
        parked.end(at(9_500));
        assert_eq!(parked.until(|| at(9_900)), 1_500);
    }
}
