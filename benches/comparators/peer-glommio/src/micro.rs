//! The parts of glommio, one at a time, as quoit's own program measures its parts.
//!
//! Left out: `cancel_4k_recv`, for a read here waits until its socket can be read, and gives the kernel no buffer;
//! `scope_enter_exit`, `check` and `remote_cancel`, for it has nothing of the kind. A file is a `BufferedFile`, which
//! allocates a buffer for each read and takes one for each write.

mod between;
mod cancels;
mod local;

use std::time::Duration;

use common::micro::{LONG, run};
use common::scenarios::{self, Runtime};
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement, Task};

/// glommio, for the scenarios.
struct Glommio;

impl Runtime for Glommio {
    type Task<T: 'static> = Task<T>;
    type Joined<T: 'static> = T;

    fn block_on<F: Future<Output: 'static> + 'static>(future: F) -> F::Output {
        let executor = LocalExecutorBuilder::new(Placement::Unbound).make();
        executor.expect("io_uring").run(future)
    }

    fn spawn<F: Future<Output: 'static> + 'static>(future: F) -> Self::Task<F::Output> {
        glommio::spawn_local(future)
    }

    fn output<T: 'static>(joined: T) -> T {
        joined
    }

    fn sleep(duration: Duration) -> impl Future + 'static {
        Timer::new(duration)
    }
}

fn main() {
    run(
        &[
            ("spawn_join_1k", || {
                scenarios::spawn_join::<Glommio>(1_000, 500)
            }),
            ("spawn_join_100k", || {
                scenarios::spawn_join::<Glommio>(100_000, 5)
            }),
            ("yield_1", || scenarios::yields::<Glommio>(1, 1_000_000)),
            ("yield_100", || scenarios::yields::<Glommio>(100, 20_000)),
            ("timer_create_cancel_100k", || {
                scenarios::create_and_cancel::<Glommio>(100_000)
            }),
            ("op_write_null", || local::write_null(100_000, 0)),
            ("op_write_null_10k_timers", || {
                local::write_null(100_000, 10_000)
            }),
            ("read_4k_cached_qd1", || local::read_cached(1, 20_000)),
            ("read_4k_cached_qd32", || local::read_cached(32, 100_000)),
            ("local_channel_rt", || local::round_trips(500_000)),
            ("cross_rt_parked", || between::round_trips(10_000, false)),
            // A tenth of a second each.
            ("cross_rt_busy", || between::round_trips(10, true)),
            ("cross_stream", || between::stream(1_000_000)),
            ("cancel_100k_tasks", || cancels::tasks(100_000, false, None)),
            ("cancel_100k_tasks_aged", || {
                cancels::tasks(100_000, true, None)
            }),
            ("cancel_100k_tasks_aged_timeout", || {
                cancels::tasks(100_000, true, Some(LONG))
            }),
            ("scope_timeout_enter_exit", || {
                cancels::enter_and_exit_with(1_000_000, LONG)
            }),
        ],
        &[(
            [("sleep_1ms_late_p50", 0.5), ("sleep_1ms_late_p99", 0.99)],
            || scenarios::lateness::<Glommio>(500),
        )],
    );
}
