//! The parts of tokio, one at a time, as quoit's own program measures its parts.
//!
//! tokio has no scopes. What stands in for them is what its documentation teaches: `JoinSet::abort_all` for
//! tasks, `timeout`, and the `CancellationToken` of tokio-util, with a child token for a scope.

mod between;
mod cancels;
mod local;

use common::micro::{LONG, run};

fn main() {
    run(
        &[
            ("spawn_join_1k", || local::spawn_join(1_000, 500)),
            ("spawn_join_100k", || local::spawn_join(100_000, 5)),
            ("yield_1", || local::yields(1, 1_000_000)),
            ("yield_100", || local::yields(100, 20_000)),
            ("timer_create_cancel_100k", || {
                local::create_and_cancel(100_000)
            }),
            ("op_write_null", || local::write_null(30_000, 0)),
            ("op_write_null_10k_timers", || {
                local::write_null(30_000, 10_000)
            }),
            ("read_4k_cached_qd1", || local::read_cached(1, 20_000)),
            ("read_4k_cached_qd32", || local::read_cached(32, 40_000)),
            ("local_channel_rt", || local::round_trips(500_000)),
            ("cross_rt_parked", || between::round_trips(10_000, false)),
            ("cross_rt_busy", || between::round_trips(50_000, true)),
            ("cross_stream", || between::stream(1_000_000)),
            ("cancel_100k_tasks", || cancels::tasks(100_000, false, None)),
            ("cancel_100k_tasks_aged", || {
                cancels::tasks(100_000, true, None)
            }),
            ("cancel_100k_tasks_aged_timeout", || {
                cancels::tasks(100_000, true, Some(LONG))
            }),
            ("cancel_4k_recv", || cancels::receives(4_000)),
            ("scope_enter_exit", || cancels::enter_and_exit(1_000_000)),
            ("scope_timeout_enter_exit", || {
                cancels::enter_and_exit_with(1_000_000, LONG)
            }),
            ("check", || cancels::checks(10_000_000)),
        ],
        &[
            (
                [("sleep_1ms_late_p50", 0.5), ("sleep_1ms_late_p99", 0.99)],
                || local::lateness(500),
            ),
            (
                [("remote_cancel_p50", 0.5), ("remote_cancel_p99", 0.99)],
                || between::cancels(1_000),
            ),
        ],
    );
}

/// A runtime for the calling thread.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
