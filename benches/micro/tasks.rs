//! Starting tasks, waiting for them, and letting others go first: by how many there are at a time.

mod shared;

use benches::micro::tasks;

fn main() {
    let mut criterion = shared::criterion();
    let mut group = criterion.benchmark_group("spawn_join");
    for at_once in [1, 1_000, 100_000] {
        shared::bench(&mut group, at_once, at_once, |times| {
            tasks::spawn_join(at_once, times)
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("yield");
    for at_once in [1, 100, 10_000] {
        shared::bench(&mut group, at_once, at_once, |times| {
            tasks::yields(at_once, times)
        });
    }
    group.finish();
    criterion.final_summary();
}
