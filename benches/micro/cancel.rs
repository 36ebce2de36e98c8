//! Cancelling a scope until all in it has ended: by how many tasks there are, on a core with a past, tasks with
//! scopes of their own, and receives in the kernel.

mod shared;

use std::time::Duration;

use benches::micro::cancels::{self, Core};
use benches::micro::mean;

fn main() {
    let timeout = Some(Duration::from_secs(100));
    let mut criterion = shared::criterion();
    for (name, core, timeout) in [
        ("cancel_tasks", Core::Fresh, None),
        ("cancel_tasks_aged", Core::Aged, None),
        ("cancel_tasks_aged_timeout", Core::Aged, timeout),
    ] {
        let mut group = criterion.benchmark_group(name);
        for count in [10_000, 100_000] {
            shared::bench(&mut group, count, count, |times| {
                mean(times, || cancels::tasks(count, core, timeout))
            });
        }
        group.finish();
    }
    // Two descriptors each, and most systems allow 1 024.
    let mut group = criterion.benchmark_group("cancel_recv");
    shared::bench(&mut group, 256, 256, |times| {
        mean(times, || cancels::receives(256))
    });
    group.finish();
    criterion.final_summary();
}
