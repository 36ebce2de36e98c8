//! Scopes and groups that are entered and left with nothing in them, and the question whether one is cancelled.

mod shared;

use std::time::Duration;

use benches::micro::cancels;

fn main() {
    let timeout = Some(Duration::from_secs(100));
    let mut criterion = shared::criterion();
    let mut group = criterion.benchmark_group("scope");
    shared::bench(&mut group, "enter_exit", 1, |times| {
        cancels::enter_and_exit(times, None)
    });
    shared::bench(&mut group, "timeout_enter_exit", 1, |times| {
        cancels::enter_and_exit(times, timeout)
    });
    shared::bench(&mut group, "group_enter_exit", 1, cancels::empty_groups);
    shared::bench(&mut group, "check", 1, cancels::checks);
    group.finish();
    criterion.final_summary();
}
