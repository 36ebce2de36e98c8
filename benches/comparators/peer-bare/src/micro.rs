//! The limits: what quoit's own program measures, done by hand on one ring, in shared memory, or with a collection
//! of the standard library.
//!
//! Left out is what has no meaning without tasks: `spawn_join`, `yield`, `local_channel_rt`, scopes and checks.
//! `cancel_100k_tasks` drops as many boxed futures, which is what has to be done at least.

mod between;
mod memory;
mod ops;

use common::micro::run_all;

fn main() {
    run_all(
        &[
            ("timer_create_cancel_100k", || {
                memory::create_and_cancel(100_000)
            }),
            ("op_nop", || ops::nop(300_000)),
            ("op_write_null", || ops::write_null(300_000, 0)),
            ("op_write_null_10k_timers", || {
                ops::write_null(300_000, 10_000)
            }),
            ("read_4k_cached_qd1", || ops::read_cached(1, 100_000)),
            ("read_4k_cached_qd32", || ops::read_cached(32, 200_000)),
            ("cross_rt_parked", || between::parked(10_000)),
            ("cross_rt_busy", || between::busy(200_000)),
            ("cross_stream", || between::stream(1_000_000)),
            ("cancel_100k_tasks", || memory::drop_futures(100_000)),
            ("cancel_4k_recv", || ops::cancel_receives(4_000)),
        ],
        &[
            ("read_4k_direct_qd1", || ops::read_direct(1, 2_000)),
            ("read_4k_direct_qd32", || ops::read_direct(32, 10_000)),
        ],
        &[
            (
                [("sleep_1ms_late_p50", 0.5), ("sleep_1ms_late_p99", 0.99)],
                || ops::lateness(500),
            ),
            (
                [("remote_cancel_p50", 0.5), ("remote_cancel_p99", 0.99)],
                || between::wakes(1_000),
            ),
        ],
    );
}
