//! The parts of compio, one at a time, as quoit's own program measures its parts.
//!
//! A scope is a `CancelToken` here. Left out: `remote_cancel`, for nothing but a task of the same thread can cancel
//! one; and `cancel_4k_recv`, for of 4 000 receives under one token, which was cancelled, not all came to an end, with
//! a submission queue of 1 024 entries or of 4 096.

mod cancels;
mod files;
mod ring;

use std::time::Duration;

use common::micro::{LONG, run};
use common::scenarios::{self, Runtime};
use compio::runtime::{JoinError, JoinHandle};

/// compio, for the scenarios.
struct Compio;

impl Runtime for Compio {
    type Task<T: 'static> = JoinHandle<T>;
    type Joined<T: 'static> = Result<T, JoinError>;

    fn block_on<F: Future<Output: 'static> + 'static>(future: F) -> F::Output {
        ring::build(ring::tuned()).block_on(future)
    }

    fn spawn<F: Future<Output: 'static> + 'static>(future: F) -> Self::Task<F::Output> {
        compio::runtime::spawn(future)
    }

    fn output<T: 'static>(joined: Self::Joined<T>) -> T {
        joined.unwrap_or_else(|_| panic!("it ends well"))
    }

    fn sleep(duration: Duration) -> impl Future + 'static {
        compio::time::sleep(duration)
    }
}

fn main() {
    run(
        &[
            ("spawn_join_1k", || {
                scenarios::spawn_join::<Compio>(1_000, 500)
            }),
            ("spawn_join_100k", || {
                scenarios::spawn_join::<Compio>(100_000, 5)
            }),
            ("yield_1", || scenarios::yields::<Compio>(1, 1_000_000)),
            ("yield_100", || scenarios::yields::<Compio>(100, 20_000)),
            ("timer_create_cancel_100k", || {
                scenarios::create_and_cancel::<Compio>(100_000)
            }),
            ("op_write_null", || files::write_null(300_000, 0)),
            ("op_write_null_10k_timers", || {
                files::write_null(300_000, 10_000)
            }),
            ("read_4k_cached_qd1", || files::read_cached(1, 100_000)),
            ("read_4k_cached_qd32", || files::read_cached(32, 200_000)),
            ("local_channel_rt", || {
                scenarios::local_round_trips::<Compio>(500_000)
            }),
            ("cross_rt_parked", || {
                scenarios::round_trips::<Compio>(10_000, false)
            }),
            ("cross_rt_busy", || {
                scenarios::round_trips::<Compio>(100_000, true)
            }),
            ("cross_stream", || scenarios::stream::<Compio>(1_000_000)),
            ("cancel_100k_tasks", || cancels::tasks(100_000, false, None)),
            ("cancel_100k_tasks_aged", || {
                cancels::tasks(100_000, true, None)
            }),
            ("cancel_100k_tasks_aged_timeout", || {
                cancels::tasks(100_000, true, Some(LONG))
            }),
            ("scope_enter_exit", || cancels::enter_and_exit(1_000_000)),
            ("scope_timeout_enter_exit", || {
                cancels::enter_and_exit_with(1_000_000, LONG)
            }),
            ("check", || cancels::checks(10_000_000)),
        ],
        &[(
            [("sleep_1ms_late_p50", 0.5), ("sleep_1ms_late_p99", 0.99)],
            || scenarios::lateness::<Compio>(500),
        )],
    );
}
