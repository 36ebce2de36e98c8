//! The parts of monoio, one at a time, as quoit's own program measures its parts.
//!
//! Left out: `cross_rt_busy`, for a runtime with a task that can always run never looks at what other threads
//! woke, so the scenario does not end; `scope_enter_exit`, `check` and `remote_cancel`, for there is nothing that
//! cancels a task, from here or elsewhere. In `cancel_100k_tasks` each task waits for a message of its own instead,
//! or for its sender to be gone.

mod cancels;
mod files;
mod ring;

use std::time::Duration;

use common::micro::{LONG, run};
use common::scenarios::{self, Runtime};

/// monoio, for the scenarios.
struct Monoio;

impl Runtime for Monoio {
    type Task<T: 'static> = monoio::task::JoinHandle<T>;
    type Joined<T: 'static> = T;

    fn block_on<F: Future<Output: 'static> + 'static>(future: F) -> F::Output {
        ring::build(ring::tuned()).block_on(future)
    }

    fn spawn<F: Future<Output: 'static> + 'static>(future: F) -> Self::Task<F::Output> {
        monoio::spawn(future)
    }

    fn output<T: 'static>(joined: T) -> T {
        joined
    }

    fn sleep(duration: Duration) -> impl Future + 'static {
        monoio::time::sleep(duration)
    }
}

fn main() {
    run(
        &[
            ("spawn_join_1k", || {
                scenarios::spawn_join::<Monoio>(1_000, 500)
            }),
            ("spawn_join_100k", || {
                scenarios::spawn_join::<Monoio>(100_000, 5)
            }),
            ("yield_1", || scenarios::yields::<Monoio>(1, 1_000_000)),
            ("yield_100", || scenarios::yields::<Monoio>(100, 20_000)),
            ("timer_create_cancel_100k", || {
                scenarios::create_and_cancel::<Monoio>(100_000)
            }),
            ("op_write_null", || files::write_null(300_000, 0)),
            ("op_write_null_10k_timers", || {
                files::write_null(300_000, 10_000)
            }),
            ("read_4k_cached_qd1", || files::read_cached(1, 100_000)),
            ("read_4k_cached_qd32", || files::read_cached(32, 200_000)),
            ("local_channel_rt", || {
                scenarios::local_round_trips::<Monoio>(500_000)
            }),
            ("cross_rt_parked", || {
                scenarios::round_trips::<Monoio>(10_000, false)
            }),
            ("cross_stream", || scenarios::stream::<Monoio>(1_000_000)),
            ("cancel_100k_tasks", || cancels::tasks(100_000, false, None)),
            ("cancel_100k_tasks_aged", || {
                cancels::tasks(100_000, true, None)
            }),
            ("cancel_100k_tasks_aged_timeout", || {
                cancels::tasks(100_000, true, Some(LONG))
            }),
            ("cancel_4k_recv", || cancels::receives(4_000)),
            ("scope_timeout_enter_exit", || {
                cancels::enter_and_exit_with(1_000_000, LONG)
            }),
        ],
        &[(
            [("sleep_1ms_late_p50", 0.5), ("sleep_1ms_late_p99", 0.99)],
            || scenarios::lateness::<Monoio>(500),
        )],
    );
}
