//! From one core to another: an item there and back, with cores that park or are busy, and a stream of items.

mod shared;

use benches::micro::cores;

fn main() {
    let mut criterion = shared::criterion();
    let mut group = criterion.benchmark_group("cross_core");
    shared::bench(&mut group, "round_trip_parked", 1, |times| {
        cores::round_trips(times, false)
    });
    shared::bench(&mut group, "round_trip_busy", 1, |times| {
        cores::round_trips(times, true)
    });
    shared::bench(&mut group, "stream", 1, cores::stream);
    group.finish();
    criterion.final_summary();
}
