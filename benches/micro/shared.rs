//! How criterion takes the scenarios of `benches::micro`, which say nanoseconds per piece.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};

/// Seconds for each benchmark, not minutes. Only what is measured counts as time: what each scenario prepares comes on
/// top, so scenarios that prepare much are no smaller than they have to be.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// Benchmarks a scenario under a name, which in groups is its size.
pub(crate) fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: impl ToString,
    pieces: u32,
    scenario: impl Fn(u32) -> f64,
) {
    group.throughput(Throughput::Elements(pieces.into()));
    group.bench_function(BenchmarkId::from_parameter(name.to_string()), |bencher| {
        bencher.iter_custom(|times| {
            let times = u32::try_from(times).expect("less than the seconds allow");
            let nanos = scenario(times) * f64::from(times) * f64::from(pieces);
            Duration::from_secs_f64(nanos / 1e9)
        });
    });
}
