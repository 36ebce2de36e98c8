//! The parts of the runtime whose cost is counted: scenarios of [`crate::micro`] that stay on one core, small.
//!
//! What has two cores is left out: how often each finds the other parked is another matter at each run, under
//! valgrind above all, which runs one thread at a time. So is what is late, which only a clock tells.

use std::time::Duration;

use crate::micro::cancels::{self, Core};
use crate::micro::{channels, histograms, ops, tasks, timers};

/// A scenario that can be made twice as long.
#[derive(Debug)]
pub struct Part {
    /// What it is called, as in `micro` where that has it.
    pub name: &'static str,
    /// How many times it does what it does, for the shorter of two runs.
    pub times: u32,
    /// How many pieces each time has.
    pub pieces: u32,
    /// Does it so many times.
    pub run: fn(u32) -> f64,
}

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(100));

/// All of them. What has much to prepare is done often: how that goes differs a little.
pub const PARTS: [Part; 20] = [
    part("spawn_join_1k", 4, 1_000, |times| {
        tasks::spawn_join(1_000, times)
    }),
    part("yield_1", 5_000, 1, |times| tasks::yields(1, times)),
    part("yield_100", 60, 100, |times| tasks::yields(100, times)),
    part("timer_create_cancel", 4_096, 1, timers::create_and_cancel),
    part("op_nop", 1_000, 1, ops::nop),
    part("op_write_null", 1_000, 1, |times| ops::write_null(times, 0)),
    part("op_write_null_10k_timers", 60_000, 1, |times| {
        ops::write_null(times, 10_000)
    }),
    part("read_4k_cached_qd1", 1_000, 1, |times| {
        ops::read_cached(1, times)
    }),
    part("read_4k_cached_qd32", 3_200, 1, |times| {
        ops::read_cached(32, times)
    }),
    part("local_channel_rt", 2_000, 1, channels::round_trips),
    part("cancel_tasks", 4_096, 1, |times| {
        cancels::tasks(times, Core::Fresh, None)
    }),
    part("cancel_tasks_aged", 4_096, 1, |times| {
        cancels::tasks(times, Core::Aged, None)
    }),
    part("cancel_tasks_aged_timeout", 4_096, 1, |times| {
        cancels::tasks(times, Core::Aged, TIMEOUT)
    }),
    part("cancel_recv", 128, 1, cancels::receives),
    part("group_enter_exit", 4_000, 1, cancels::empty_groups),
    part("scope_enter_exit", 8_000, 1, |times| {
        cancels::enter_and_exit(times, None)
    }),
    part("scope_timeout_enter_exit", 8_000, 1, |times| {
        cancels::enter_and_exit(times, TIMEOUT)
    }),
    part("check", 100_000, 1, cancels::checks),
    part("histogram_record", 8_000, 1, histograms::record),
    part("histogram_read", 200, 1, histograms::read),
];

const fn part(name: &'static str, times: u32, pieces: u32, run: fn(u32) -> f64) -> Part {
    Part {
        name,
        times,
        pieces,
        run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_runs_in_any_size() {
        for part in &PARTS {
            // Reads are taken by 32 at once.
            let took = (part.run)(part.times.div_ceil(100).max(32));
            assert!(took.is_finite() && took > 0.0, "{}: {took}", part.name);
        }
    }
}
