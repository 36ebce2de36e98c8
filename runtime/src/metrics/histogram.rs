//! Latencies: written by one thread in a few nanoseconds, read by any.
//!
//! Buckets are log-linear, as HdrHistogram's with two significant digits: 128 to each power of two.
//! They lie in blocks of half a power each, made when the first value falls there: what a core never
//! sees takes no memory, and once it has seen its usual values it allocates nothing. A block is small to the
//! allocator, which may tidy up for a large one (glibc does, from a kibibyte on) and take milliseconds for it.
//!
//! ```text
//!   value < 128 ns                    chunk 0, a bucket per nanosecond
//!   128 << (k-1) ≤ value < 128 << k   chunk k, a bucket per 1 << (k-1) nanoseconds
//! ```
//!
//! Invariants:
//! - A bucket, the sum and the maximum have one writer, which adds with a plain load and store. A
//!   reader may see the three out of step by the values of a moment.
//! - Buckets only grow: the difference of two snapshots is what came between them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Buckets in a chunk.
const PER_CHUNK: usize = 128;

/// Buckets in a block.
const PER_BLOCK: usize = PER_CHUNK / 2;

/// Values up to 2^44 ns, which is close to five hours; larger ones count as that.
const CHUNKS: usize = 38;

/// The largest value that has a bucket of its own.
const LARGEST: u64 = (PER_CHUNK as u64) << (CHUNKS - 1);

type Block = Box<[AtomicU64; PER_BLOCK]>;

/// The place of a value that is not too large: its chunk, and the bucket there.
fn place_of(nanos: u64) -> (usize, usize) {
    let bits = u64::BITS - nanos.leading_zeros();
    match bits.saturating_sub(7) as usize {
        0 => (0, nanos as usize),
        chunk => (chunk, (nanos >> (chunk - 1)) as usize - PER_CHUNK),
    }
}

/// The largest value of a bucket, in nanoseconds.
fn end_of(bucket: u32) -> u64 {
    let (chunk, offset) = (bucket as usize / PER_CHUNK, bucket as usize % PER_CHUNK);
    match chunk {
        0 => offset as u64,
        _ => ((PER_CHUNK + offset + 1) as u64) << (chunk - 1) as u64,
    }
    .saturating_sub(u64::from(chunk > 0))
}

/// The smallest value of a bucket, in nanoseconds.
fn start_of(bucket: u32) -> u64 {
    match bucket {
        0 => 0,
        _ => end_of(bucket - 1) + 1,
    }
}

/// A histogram as its one writer writes it.
#[derive(Debug)]
pub(crate) struct Cells {
    blocks: [OnceLock<Block>; CHUNKS * PER_CHUNK / PER_BLOCK],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            blocks: [const { OnceLock::new() }; CHUNKS * PER_CHUNK / PER_BLOCK],
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl Cells {
    /// Adds a value that stands for `weight` of its kind. One thread at a time.
    pub(crate) fn record(&self, nanos: u64, weight: u64) {
        let nanos = nanos.min(LARGEST - 1);
        let (chunk, offset) = place_of(nanos);
        let bucket = chunk * PER_CHUNK + offset;
        let block = self.blocks[bucket / PER_BLOCK]
            .get_or_init(|| Box::new([const { AtomicU64::new(0) }; PER_BLOCK]));
        add(&block[bucket % PER_BLOCK], weight);
        add(&self.sum, nanos.saturating_mul(weight));
        if nanos > self.max.load(Ordering::Relaxed) {
            self.max.store(nanos, Ordering::Relaxed);
        }
    }

    /// Returns how many more of this value can be counted at a time: what comes one by one never fills the rest.
    fn room_for(&self, nanos: u64) -> u64 {
        let (chunk, offset) = place_of(nanos.min(LARGEST - 1));
        let bucket = chunk * PER_CHUNK + offset;
        let block = self.blocks[bucket / PER_BLOCK].get();
        let count = block.map_or(0, |block| block[bucket % PER_BLOCK].load(Ordering::Relaxed));
        (u64::MAX / 2).saturating_sub(count)
    }

    /// Starts from zero, for a new writer.
    pub(crate) fn reset(&self) {
        for block in self.blocks.iter().filter_map(OnceLock::get) {
            for bucket in block.iter() {
                bucket.store(0, Ordering::Relaxed);
            }
        }
        self.sum.store(0, Ordering::Relaxed);
        self.max.store(0, Ordering::Relaxed);
    }

    /// Reads all.
    pub(crate) fn snapshot(&self) -> Histogram {
        let mut counts = BTreeMap::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let Some(block) = block.get() else { continue };
            for (offset, bucket) in block.iter().enumerate() {
                let count = bucket.load(Ordering::Relaxed);
                if count > 0 {
                    counts.insert((index * PER_BLOCK + offset) as u32, count);
                }
            }
        }
        Histogram {
            counts,
            sum: self.sum.load(Ordering::Relaxed),
            max: self.max.load(Ordering::Relaxed),
        }
    }
}

fn add(cell: &AtomicU64, count: u64) {
    let sum = cell.load(Ordering::Relaxed).wrapping_add(count);
    cell.store(sum, Ordering::Relaxed);
}

/// Adds up, as far as can be counted.
fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// Writes down how long something took, for a [`Reader`] on any thread: for latencies of a program's
/// own, one recorder on each core.
///
/// To record costs a few nanoseconds, without a lock; a value beyond five hours counts as five hours.
///
/// ```
/// use std::time::Duration;
/// use quoit::metrics::Recorder;
///
/// let (recorder, reader) = Recorder::new();
/// recorder.record(Duration::from_micros(250));
/// let so_far = reader.read();
/// assert_eq!(so_far.count(), 1);
/// assert!(so_far.percentile(99.0) >= Duration::from_micros(250));
/// ```
#[derive(Debug)]
pub struct Recorder {
    cells: Arc<Cells>,
    /// One thread at a time: it may move, and is not shared.
    _one_writer: std::marker::PhantomData<std::cell::Cell<()>>,
}

impl Recorder {
    /// Makes a recorder, and the reader of what it records.
    pub fn new() -> (Self, Reader) {
        let cells = Arc::new(Cells::default());
        let reader = Reader {
            cells: Arc::clone(&cells),
        };
        let recorder = Self {
            cells,
            _one_writer: std::marker::PhantomData,
        };
        (recorder, reader)
    }

    /// Adds one value.
    pub fn record(&self, took: Duration) {
        self.cells.record(nanos(took), 1);
    }

    /// Records that so many took this long each; past 2^63 as many as can be counted.
    pub fn record_many(&self, took: Duration, count: u64) {
        let took = nanos(took);
        let count = count.min(self.cells.room_for(took));
        if count > 0 {
            self.cells.record(took, count);
        }
    }
}

/// Reads what a [`Recorder`] has recorded, on any thread and at any time.
#[derive(Debug, Clone)]
pub struct Reader {
    cells: Arc<Cells>,
}

impl Reader {
    /// Returns everything that was recorded so far. Values that are being recorded just then may be
    /// in the count and not yet in the sum.
    pub fn read(&self) -> Histogram {
        self.cells.snapshot()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How long things took, as it was at one moment.
///
/// Values are kept to within 0.8 %. Histograms add up ([`merge`](Self::merge)), and the difference of
/// two moments ([`since`](Self::since)) is what came between them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many values each bucket has that has any.
    counts: BTreeMap<u32, u64>,
    sum: u64,
    max: u64,
}

/// A part of a [`Histogram`]: values of nearly the same size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bucket {
    /// The smallest value that would be in it.
    pub from: Duration,
    /// The largest.
    pub to: Duration,
    /// How many are.
    pub count: u64,
}

impl Histogram {
    /// Returns how many values there are.
    pub fn count(&self) -> u64 {
        total(self.counts.values().copied())
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns the sum of all values; past 584 years it begins anew.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// Returns the mean; zero if there is no value.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.checked_div(self.count()).unwrap_or(0))
    }

    /// Returns the largest value; zero if there is none. Of an interval, to within a bucket.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// Returns the value that this share of all, in percent, does not exceed; zero if there is no
    /// value. What lies outside of 0 to 100 counts as 0 or 100.
    pub fn percentile(&self, percent: f64) -> Duration {
        let count = self.count();
        // Multiplied first, and less by more than is rounded: a share that comes out even is not to be one value more.
        let share = percent.clamp(0.0, 100.0) * count as f64 / 100.0;
        let rank = ((share * (1.0 - 4.0 * f64::EPSILON)).ceil() as u64).max(1);
        let mut seen = 0;
        for (&bucket, count) in &self.counts {
            seen = u64::saturating_add(seen, *count);
            if seen >= rank {
                return Duration::from_nanos(end_of(bucket).min(self.max));
            }
        }
        Duration::ZERO
    }

    /// Returns how many values are at most this large, to within a bucket.
    pub fn count_to(&self, limit: Duration) -> u64 {
        let limit = nanos(limit);
        let counts = self.counts.iter();
        let as_small = counts.take_while(|&(&bucket, _)| start_of(bucket) <= limit);
        total(as_small.map(|(_, &count)| count))
    }

    /// Returns the buckets that have values, the smallest first.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        self.counts.iter().map(|(&bucket, &count)| Bucket {
            from: Duration::from_nanos(start_of(bucket)),
            to: Duration::from_nanos(end_of(bucket)),
            count,
        })
    }

    /// Adds the values of another: of another core, say.
    pub fn merge(&mut self, other: &Self) {
        for (&bucket, &count) in &other.counts {
            let all = self.counts.entry(bucket).or_default();
            *all = all.saturating_add(count);
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// Returns what came after `earlier`, which is an earlier reading of the same. One that is none, as
    /// after a restart, counts as empty.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let sum = self.sum.wrapping_sub(earlier.sum);
        let has_more = |(bucket, count)| self.counts.get(bucket).is_some_and(|now| now >= count);
        // A sum that has begun anew has grown all the same; by as much as is left, none grows between two readings.
        let is_earlier = self.max >= earlier.max
            && i64::try_from(sum).is_ok()
            && earlier.counts.iter().all(has_more);
        if !is_earlier {
            return self.clone();
        }
        let counts: BTreeMap<_, _> = self
            .counts
            .iter()
            .map(|(&bucket, &count)| {
                let before = earlier.counts.get(&bucket).copied().unwrap_or(0);
                (bucket, count - before)
            })
            .filter(|&(_, count)| count > 0)
            .collect();
        let largest = counts.keys().next_back().copied().map_or(0, end_of);
        Self {
            counts,
            sum,
            max: largest.min(self.max),
        }
    }

    /// Returns the same as a histogram of the crate `hdrhistogram`, in nanoseconds and with two
    /// significant digits: each value as the largest of its bucket.
    pub fn to_hdr(&self) -> hdrhistogram::Histogram<u64> {
        let mut hdr = hdrhistogram::Histogram::new_with_bounds(1, LARGEST, 2)
            .expect("the bounds are in order, and two digits are allowed");
        for (&bucket, &count) in &self.counts {
            let value = end_of(bucket).min(self.max).max(1);
            hdr.record_n(value, count)
                .expect("no bucket lies outside of the bounds");
        }
        hdr
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.percentile(50.0))
            .field("p99", &self.percentile(99.0))
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let cells = Cells::default();
        for &value in values {
            cells.record(value, 1);
        }
        cells.snapshot()
    }

    #[test]
    fn several_at_once_are_as_one_by_one() {
        let took = Duration::from_nanos(70_000);
        let [(at_once, all), (one_by_one, each)] = [(); 2].map(|()| Recorder::new());
        at_once.record_many(took, 3);
        at_once.record_many(took, 0);
        for _ in 0..3 {
            one_by_one.record(took);
        }
        let (all, each) = (all.read(), each.read());
        assert_eq!((all.count(), all.sum()), (3, 3 * took));
        assert_eq!((all.count(), all.sum()), (each.count(), each.sum()));
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        let edges = (0..44).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + 1, power + power / 3]
        });
        for value in edges.chain([LARGEST - 1]) {
            let (chunk, offset) = place_of(value);
            let bucket = (chunk * PER_CHUNK + offset) as u32;
            let (from, to) = (start_of(bucket), end_of(bucket));
            assert!(
                (from..=to).contains(&value),
                "{value} is not in {from}..={to}"
            );
            assert!(
                (to - from) as f64 <= value as f64 / 128.0,
                "{value}: {from}..={to}"
            );
        }
    }

    #[test]
    fn buckets_leave_no_gap() {
        for bucket in 1..(CHUNKS * PER_CHUNK) as u32 {
            assert_eq!(start_of(bucket), end_of(bucket - 1) + 1);
            let (chunk, offset) = place_of(start_of(bucket));
            assert_eq!((chunk * PER_CHUNK + offset) as u32, bucket);
        }
    }

    #[test]
    fn what_is_too_large_counts_as_the_largest() {
        let most = of(&[u64::MAX, LARGEST]);
        assert_eq!(most.count(), 2);
        assert_eq!(most.buckets().count(), 1);
        assert_eq!(most.to_hdr().len(), 2);
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let values: Vec<u64> = (1..=1000).map(|n| n * 1000).collect();
        let histogram = of(&values);
        for percent in [0.1, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0] {
            let exact = (percent * 1000.0 / 100.0_f64).ceil() * 1000.0;
            let found = histogram.percentile(percent).as_nanos() as f64;
            assert!(
                found >= exact && found <= exact * 1.008,
                "p{percent}: {found} for {exact}"
            );
        }
        assert_eq!(histogram.percentile(100.0), Duration::from_nanos(1_000_000));
        assert_eq!(histogram.max(), Duration::from_nanos(1_000_000));
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
        assert_eq!(histogram.percentile(-3.0), histogram.percentile(0.0));
    }

    /// 99.9 % of a thousand values are 999 of them, and not one more for a rounding.
    #[test]
    fn a_share_that_comes_out_even_is_not_one_value_more() {
        for (percent, share, all) in [
            (7.0, 7, 100),
            (55.0, 55, 100),
            (99.9, 999, 1_000),
            (99.99, 9_999, 10_000),
            (99.999, 9_999_900_000, 10_000_000_000),
        ] {
            let cells = Cells::default();
            cells.record(1_000, share);
            cells.record(1_000_000_000, all - share);
            let found = cells.snapshot().percentile(percent);
            assert!(found < Duration::from_micros(2), "p{percent}: {found:?}");
            let past = cells.snapshot().percentile(percent + 0.001);
            assert!(past > Duration::from_millis(999), "p{percent}: {past:?}");
        }
    }

    #[test]
    fn no_value_is_no_largest_one() {
        let (recorder, reader) = Recorder::new();
        recorder.record_many(Duration::from_secs(1), 0);
        assert_eq!(reader.read(), Histogram::default());
    }

    #[test]
    fn more_than_can_be_counted_are_as_many_as_can_be() {
        let (recorder, reader) = Recorder::new();
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(1));
        for _ in 0..3 {
            recorder.record_many(short, u64::MAX);
        }
        recorder.record(long);
        recorder.record(short);
        let mut all = reader.read();
        assert_eq!(all.count(), u64::MAX / 2 + 2);
        assert_eq!(all.count_to(Duration::MAX), u64::MAX / 2 + 2);
        assert!(all.percentile(50.0) < 2 * short);
        for _ in 0..2 {
            all.merge(&reader.read());
        }
        assert_eq!((all.count(), all.max()), (u64::MAX, long));
        assert!(all.percentile(50.0) < 2 * short);
    }

    #[test]
    fn what_is_too_large_counts_as_the_largest_in_the_sum_as_well() {
        let (recorder, reader) = Recorder::new();
        recorder.record(Duration::MAX);
        recorder.record(Duration::from_millis(1));
        let both = reader.read();
        assert_eq!(both.max(), Duration::from_nanos(LARGEST - 1));
        assert_eq!(both.sum(), both.max() + Duration::from_millis(1));
    }

    #[test]
    fn nothing_has_neither_mean_nor_percentile() {
        let nothing = of(&[]);
        assert!(nothing.is_empty());
        assert_eq!(nothing.mean(), Duration::ZERO);
        assert_eq!(nothing.percentile(99.0), Duration::ZERO);
    }

    #[test]
    fn the_difference_of_two_readings_is_what_came_between() {
        let cells = Cells::default();
        cells.record(5_000_000, 1);
        cells.record(70, 2);
        let earlier = cells.snapshot();
        cells.record(70, 3);
        cells.record(900, 1);
        let between = cells.snapshot().since(&earlier);
        assert_eq!(between.count(), 4);
        assert_eq!(between.sum(), Duration::from_nanos(3 * 70 + 900));
        let max = between.max().as_nanos() as u64;
        assert!((900..908).contains(&max), "{max}");
        // A stranger's: a core that began anew.
        assert_eq!(of(&[1]).since(&earlier), of(&[1]));
        // Also where it has seen as many, each nearly as large.
        let [smallest, largest] = [1 << 20, (1 << 20) + (1 << 13) - 1];
        for most in [largest, 1 << 30] {
            let anew = of(&[smallest, most]);
            assert_eq!(anew.since(&of(&[largest, most])), anew, "{most}");
        }
        // A sum that has begun anew on its way.
        let hours = Duration::from_secs(4 * 3600);
        let (recorder, reader) = Recorder::new();
        recorder.record_many(hours, u64::MAX / nanos(hours));
        let earlier = reader.read();
        recorder.record(hours);
        assert_eq!(reader.read().since(&earlier).sum(), hours);
    }

    #[test]
    fn cores_add_up() {
        let mut both = of(&[10, 20]);
        both.merge(&of(&[20, 3_000_000]));
        assert_eq!(both, of(&[10, 20, 20, 3_000_000]));
    }

    #[test]
    fn the_hdr_form_has_every_value_within_two_digits() {
        let values = [3, 999, 12_345, 8_000_000, 61_000_000_000];
        let hdr = of(&values).to_hdr();
        assert_eq!(hdr.len(), values.len() as u64);
        for value in values {
            let near = hdr.count_between(value - value / 100, value + value / 100 + 1);
            assert_eq!(near, 1, "{value}");
        }
    }

    #[test]
    fn a_reset_leaves_nothing() {
        let cells = Cells::default();
        cells.record(1_000, 7);
        cells.reset();
        assert_eq!(cells.snapshot(), Histogram::default());
    }
}
