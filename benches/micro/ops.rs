//! Ops of the kernel: round trips by the ring, a write in a row, beside armed timers, and reads of cached pages, by how
//! many are under way.

mod shared;

use benches::micro::ops;

fn main() {
    let mut criterion = shared::criterion();
    let mut group = criterion.benchmark_group("nop");
    shared::bench(&mut group, 1, 1, ops::nop);
    group.finish();
    let mut group = criterion.benchmark_group("write_null_beside_timers");
    for timers in [0, 10_000] {
        shared::bench(&mut group, timers, 1, |times| {
            ops::write_null(times, timers)
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("read_4k_cached");
    for at_once in [1, 32] {
        shared::bench(&mut group, at_once, at_once, |times| {
            ops::read_cached(at_once, times * at_once)
        });
    }
    group.finish();
    criterion.final_summary();
}
