//! The parts of the runtime, one at a time: a figure in nanoseconds for each.
//!
//! Each function runs its scenario once, on cores of its own, and returns nanoseconds per piece.

pub mod cancels;
pub mod channels;
pub mod cores;
pub mod histograms;
pub mod ops;
pub mod tasks;
pub mod timers;

use std::future::Future;
use std::thread;

use quoit::time::Instant;
use quoit::{Cores, Handle, Runtime};

/// Runs a scenario on one core of its own.
pub(crate) fn on_one<T>(scenario: impl Future<Output = T>) -> T {
    quoit::block_on(scenario).expect("io_uring")
}

/// Makes two cores, for a scenario between them.
pub(crate) fn two() -> (Runtime, Handle) {
    let runtime = Runtime::builder().cores(Cores::Count(2)).build();
    let runtime = runtime.expect("two cores and io_uring");
    let handle = runtime.handle();
    (runtime, handle)
}

/// Nanoseconds since `begin`, for each of so many.
pub(crate) fn each(begin: Instant, count: u32) -> f64 {
    begin.elapsed().as_nanos() as f64 / f64::from(count)
}

/// Runs a scenario so many times; the mean of what it says.
pub fn mean(times: u32, scenario: impl Fn() -> f64) -> f64 {
    let sum: f64 = (0..times).map(|_| scenario()).sum();
    sum / f64::from(times)
}

/// Returns the value below which this share of the values lies.
///
/// # Panics
///
/// If there are none.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    values[(last as f64 * share).round() as usize]
}

/// Returns what a figure of `micro` needs and this process has not; so many descriptors are allowed.
#[must_use]
pub fn missing(name: &str, descriptors: u64) -> Option<String> {
    // Two each, and some for the program.
    const NEEDED: u64 = 8_100;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    if (name.starts_with("cross_") || name.starts_with("remote_")) && processors < 2 {
        return Some("it takes two processors, and this process may use one".to_owned());
    }
    if name.starts_with("read_4k_direct_") {
        let refused = ops::takes_direct_reads().err();
        return refused.map(|error| error.to_string());
    }
    (name == "cancel_4k_recv" && descriptors < NEEDED).then(|| {
        format!("it takes {NEEDED} descriptors, and {descriptors} are allowed (`ulimit -Hn`)")
    })
}

/// A stream of numbers that a seed decides (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }
}
