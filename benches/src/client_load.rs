//! What the programs that measure HTTP clients have in common, whatever they run on: what they can be told,
//! what they count, and the line they print.
//!
//! No connection and no clock of a runtime is here; only the processor time of the process is read.

use std::sync::Mutex;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

/// Asks for one URL over and over, and prints one line of JSON: how often, how fast, at what price.
#[derive(Debug, Parser, Clone)]
pub(crate) struct Arguments {
    /// What to ask for: a numeric address, so that no name is looked up.
    #[arg(long, default_value = "http://127.0.0.1:7001/")]
    pub(crate) url: String,
    /// What to speak. HTTP/2 is spoken without asking.
    #[arg(long, value_enum, default_value_t = Spoken::H1)]
    pub(crate) protocol: Spoken,
    /// How many requests there are at once: each is asked again as soon as its answer was read.
    #[arg(long, default_value_t = 64, value_parser = concurrency)]
    pub(crate) concurrency: usize,
    /// For how many seconds that is measured.
    #[arg(long, default_value_t = 2.0, value_parser = measured)]
    pub(crate) seconds: f64,
    /// For how many seconds it goes on before: connections are made, memory is touched.
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// The processor that the only thread is pinned to.
    #[arg(long, default_value_t = 1)]
    pub(crate) core: usize,
    /// How many bytes each answer has; another length is an error.
    #[arg(long, default_value_t = 13)]
    pub(crate) length: usize,
}

fn concurrency(text: &str) -> Result<usize, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=65_536).contains(number));
    number.ok_or_else(|| "1 to 65536 requests can be under way".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "write seconds, 0 to 86400".to_owned())
}

fn measured(text: &str) -> Result<f64, String> {
    let seconds = seconds(text).ok().filter(|seconds| *seconds >= 0.001);
    seconds.ok_or_else(|| "write seconds, 0.001 to 86400".to_owned())
}

/// The protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spoken {
    /// HTTP/1.1, a connection for each request that is under way.
    H1,
    /// HTTP/2, one connection.
    H2,
}

/// How long each request took. Shared by all who ask.
#[derive(Debug)]
pub(crate) struct Tally(Mutex<Histogram<u64>>);

impl Tally {
    pub(crate) fn new() -> Self {
        let longest = Duration::from_secs(60).as_nanos() as u64;
        let histogram = Histogram::new_with_bounds(1, longest, 3);
        Self(Mutex::new(histogram.expect("the bounds are right")))
    }

    /// Counts a request.
    pub(crate) fn record(&self, took: Duration) {
        let mut histogram = self.0.lock().expect("nobody panics here");
        histogram.saturating_record(took.as_nanos() as u64);
    }

    /// Returns the line: `wall` and `cpu` are what all requests took together.
    pub(crate) fn line(
        &self,
        client: &str,
        arguments: &Arguments,
        wall: Duration,
        cpu: Duration,
    ) -> String {
        let histogram = self.0.lock().expect("nobody panics here");
        let requests = histogram.len();
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile: f64| micros(histogram.value_at_quantile(quantile));
        format!(
            "{{\"client\": \"{client}\", \"protocol\": \"{:?}\", \"concurrency\": {}, \"requests\": {requests}, \
             \"rps\": {:.0}, \"p50_us\": {:.1}, \"p90_us\": {:.1}, \"p99_us\": {:.1}, \"p99_9_us\": {:.1}, \
             \"max_us\": {:.1}, \"cpu_us\": {:.3}}}",
            arguments.protocol,
            arguments.concurrency,
            requests as f64 / wall.as_secs_f64(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            micros(histogram.max()),
            cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
        )
    }
}

/// Checks an answer.
pub(crate) fn check(status: u16, length: usize, arguments: &Arguments) -> Result<(), String> {
    if status != 200 {
        return Err(format!("an answer has the status {status}, not 200"));
    }
    if length != arguments.length {
        let wanted = arguments.length;
        return Err(format!(
            "an answer has {length} bytes, not {wanted}: see --length"
        ));
    }
    Ok(())
}

/// Returns the processor time that this process has used, in user space and in the kernel.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
