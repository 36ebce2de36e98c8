//! Sleeps that are begun and given up: by how many there are at a time.

mod shared;

use benches::micro::{mean, timers};

fn main() {
    let mut criterion = shared::criterion();
    let mut group = criterion.benchmark_group("timer_create_cancel");
    for count in [1_000, 100_000] {
        shared::bench(&mut group, count, count, |times| {
            mean(times, || timers::create_and_cancel(count))
        });
    }
    group.finish();
    criterion.final_summary();
}
