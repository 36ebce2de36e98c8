//! Values that are recorded, and histograms that are read.

use std::hint::black_box;
use std::time::Duration;

use quoit::metrics::Recorder;
use quoit::time::Instant;

use super::{Random, each, on_one};

/// Records so many values, from a nanosecond to some milliseconds; nanoseconds per value.
pub fn record(times: u32) -> f64 {
    on_one(async {
        let (recorder, reader) = Recorder::new();
        let values = values();
        let begin = Instant::now();
        for value in values.iter().cycle().take(times as usize) {
            recorder.record(*value);
        }
        let took = each(begin, times);
        assert_eq!(reader.read().count(), u64::from(times));
        took
    })
}

/// Reads a histogram of a thousand values, and its 99th percentile, so many times; nanoseconds per reading.
pub fn read(times: u32) -> f64 {
    on_one(async {
        let (recorder, reader) = Recorder::new();
        values()
            .into_iter()
            .for_each(|value| recorder.record(value));
        let begin = Instant::now();
        for _ in 0..times {
            black_box(reader.read().percentile(99.0));
        }
        each(begin, times)
    })
}

/// As many small values as large ones.
fn values() -> Vec<Duration> {
    let mut random = Random::new(3);
    let mut value = || {
        let bits = random.below(23);
        Duration::from_nanos(1 + random.below(1 << bits))
    };
    (0..1_000).map(|_| value()).collect()
}
