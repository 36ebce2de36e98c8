//! Items between tasks of one core.

mod shared;

use benches::micro::channels;

fn main() {
    let mut criterion = shared::criterion();
    let mut group = criterion.benchmark_group("local_channel");
    shared::bench(&mut group, "round_trip", 1, channels::round_trips);
    group.finish();
    criterion.final_summary();
}
