//! Everything that the cores of a runtime count and measure, at one moment.

use std::borrow::Cow;
use std::time::Duration;

use super::CoreMetrics;
use super::histogram::Histogram;
use super::latencies::Latencies;
use crate::kernel_op::kind::OpKind;
use crate::mailbox::CoreShared;
use crate::time::Instant;

/// What the cores of a runtime have counted and measured since they started.
///
/// A server, or a program, adds what it counts itself to each core's lists, and has one text for all.
///
/// ```
/// use quoit::Runtime;
///
/// let runtime = Runtime::builder().build()?;
/// let cores = runtime.handle();
/// let snapshot = cores.snapshot();
/// for core in &snapshot.cores {
///     println!("core {}: parked for {:?} of {:?}", core.core, core.parked, core.uptime);
///     for latency in &core.latencies {
///         println!("  {}: p99 {:?}", latency.name, latency.histogram.percentile(99.0));
///     }
/// }
/// print!("{}", snapshot.to_prometheus());
/// # Ok::<_, quoit::BuildError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// The cores, in the runtime's order.
    pub cores: Vec<CoreSnapshot>,
}

/// What one core has counted and measured.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoreSnapshot {
    /// Its place in the runtime.
    pub core: usize,
    /// Since when it counts.
    pub uptime: Duration,
    /// How much of that it was parked in the kernel, with nothing to do: the rest is its load.
    pub parked: Duration,
    /// Counters and gauges.
    pub counts: Vec<Count>,
    /// Histograms. Those that have seen nothing are there as well.
    pub latencies: Vec<Latency>,
}

/// A number with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Count {
    /// In words of lower case, joined by underscores.
    pub name: Cow<'static, str>,
    /// What it counts, in a sentence.
    pub help: Cow<'static, str>,
    /// Whether it only grows.
    pub kind: CountKind,
    /// Tells it from others of the same name: a label's name and value.
    pub label: Option<(&'static str, Cow<'static, str>)>,
    /// The number.
    pub value: u64,
}

/// How a number behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A histogram with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// In words of lower case, joined by underscores.
    pub name: Cow<'static, str>,
    /// What it measures, in a sentence.
    pub help: Cow<'static, str>,
    /// Tells it from others of the same name: a label's name and value.
    pub label: Option<(&'static str, Cow<'static, str>)>,
    /// The values.
    pub histogram: Histogram,
}

impl Count {
    /// Makes a number without a label.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        kind: CountKind,
        value: u64,
    ) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            kind,
            label: None,
            value,
        }
    }

    /// Tells it from others of the same name.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.label = Some((name, value.into()));
        self
    }
}

impl Latency {
    /// Makes a histogram with a name, without a label.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
        histogram: Histogram,
    ) -> Self {
        Self {
            name: name.into(),
            help: help.into(),
            label: None,
            histogram,
        }
    }

    /// Tells it from others of the same name.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.label = Some((name, value.into()));
        self
    }
}

impl Snapshot {
    /// Reads all cores; of each it is asked when it was read whether that was its own.
    pub(crate) fn of<'a>(cores: impl Iterator<Item = (&'a CoreShared, impl Fn() -> bool)>) -> Self {
        let mut snapshot = Self::default();
        for (core, (shared, is_its_own)) in cores.enumerate() {
            let read = CoreSnapshot::of(core, shared);
            let own = is_its_own().then_some(read);
            snapshot
                .cores
                .push(own.unwrap_or_else(|| CoreSnapshot::nothing(core)));
        }
        snapshot
    }

    /// Returns the histogram of this name over all cores and labels; empty if there is none.
    pub fn merged(&self, name: &str) -> Histogram {
        let mut all = Histogram::default();
        let latencies = self.cores.iter().flat_map(|core| &core.latencies);
        for latency in latencies.filter(|latency| latency.name == name) {
            all.merge(&latency.histogram);
        }
        all
    }
}

impl CoreSnapshot {
    fn of(core: usize, shared: &CoreShared) -> Self {
        // In this order, so that it was parked for no longer than it was there.
        let parked = shared.parked.until(Instant::now);
        Self {
            core,
            uptime: shared.parked.started().elapsed(),
            parked: Duration::from_nanos(parked),
            counts: shared.counters.snapshot().counts(),
            latencies: shared.latencies.read(),
        }
    }

    /// What a core says that has counted and measured nothing.
    fn nothing(core: usize) -> Self {
        Self {
            core,
            uptime: Duration::ZERO,
            parked: Duration::ZERO,
            counts: CoreMetrics::default().counts(),
            latencies: Latencies::default().read(),
        }
    }

    /// Returns the histogram of this name and label, if the core has one.
    pub fn latency(&self, name: &str, label: Option<&str>) -> Option<&Histogram> {
        let is_it = |latency: &&Latency| {
            let value = latency.label.as_ref().map(|(_, value)| &**value);
            latency.name == name && value == label
        };
        self.latencies
            .iter()
            .find(is_it)
            .map(|latency| &latency.histogram)
    }

    /// Returns the number of this name and label, if the core has one.
    pub fn count(&self, name: &str, label: Option<&str>) -> Option<u64> {
        let is_it = |count: &&Count| {
            let value = count.label.as_ref().map(|(_, value)| &**value);
            count.name == name && value == label
        };
        self.counts.iter().find(is_it).map(|count| count.value)
    }
}

impl Latencies {
    /// Reads all.
    fn read(&self) -> Vec<Latency> {
        let own = [
            (
                "poll",
                "How long a poll of a task took, sampled: each sample counts for those it stands for.",
                &self.poll,
            ),
            (
                "run_delay",
                "How long a task was ready before it was polled, sampled as polls are.",
                &self.run_delay,
            ),
            (
                "wake",
                "How long a parked core took to run, from the call of another thread that woke it.",
                &self.wake,
            ),
            (
                "cancel",
                "How long a cancelled scope took to end, with everything in it.",
                &self.cancel,
            ),
        ];
        let own = own
            .into_iter()
            .map(|(name, help, cells)| Latency::new(name, help, cells.snapshot()));
        let help =
            "How long a kernel op took from submission to completion, cancelled ones left out.";
        let measured = OpKind::ALL.iter().filter(|kind| kind.is_measured());
        let ops = measured.map(|&kind| {
            Latency::new("op", help, self.op(kind).snapshot()).label("op", kind.name())
        });
        own.chain(ops).collect()
    }
}
