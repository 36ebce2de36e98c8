//! The parts of the runtime, one at a time. Prints a JSON object a line: `{"name": …, "ns": …}`, the median of
//! some rounds in this process. The same parts of other runtimes are in `comparators/`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use benches::matrix::program::raise_descriptor_limit;
use benches::matrix::statistics::spread;
use benches::micro::cancels::Core;
use benches::micro::{cancels, channels, cores, missing, ops, quantile, tasks, timers};
use benches::outcome::complain;
use clap::Parser;

/// Measures parts of the runtime.
#[derive(Parser)]
struct Arguments {
    /// Which figures to take, by name; all, if none is named.
    names: Vec<String>,
    /// How often each is taken; the median counts.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Lists the names.
    #[arg(long)]
    list: bool,
}

/// A figure that is one number a round.
type Figure = (&'static str, fn() -> f64);
/// A figure that not every machine has.
type Refusable = (&'static str, fn() -> io::Result<f64>);
/// A figure of many values, of which two quantiles are told.
type Spread = ([(&'static str, f64); 2], fn() -> Vec<f64>);

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(100));

const FIGURES: [Figure; 22] = [
    ("spawn_join_1k", || tasks::spawn_join(1_000, 500)),
    ("spawn_join_100k", || tasks::spawn_join(100_000, 5)),
    ("yield_1", || tasks::yields(1, 1_000_000)),
    ("yield_100", || tasks::yields(100, 20_000)),
    ("timer_create_cancel_100k", || {
        timers::create_and_cancel(100_000)
    }),
    ("op_nop", || ops::nop(300_000)),
    ("op_write_null", || ops::write_null(300_000, 0)),
    ("op_write_null_10k_timers", || {
        ops::write_null(300_000, 10_000)
    }),
    ("read_4k_cached_qd1", || ops::read_cached(1, 100_000)),
    ("read_4k_cached_qd32", || ops::read_cached(32, 200_000)),
    ("local_channel_rt", || channels::round_trips(500_000)),
    ("cross_rt_parked", || cores::round_trips(10_000, false)),
    ("cross_rt_busy", || cores::round_trips(200_000, true)),
    ("cross_stream", || cores::stream(1_000_000)),
    ("cross_stream_32", || cores::stream_in_batches(2_000_000)),
    ("cancel_100k_tasks", || {
        cancels::tasks(100_000, Core::Fresh, None)
    }),
    ("cancel_100k_tasks_aged", || {
        cancels::tasks(100_000, Core::Aged, None)
    }),
    ("cancel_100k_tasks_aged_timeout", || {
        cancels::tasks(100_000, Core::Aged, TIMEOUT)
    }),
    ("cancel_4k_recv", || cancels::receives(4_000)),
    ("scope_enter_exit", || {
        cancels::enter_and_exit(1_000_000, None)
    }),
    ("scope_timeout_enter_exit", || {
        cancels::enter_and_exit(1_000_000, TIMEOUT)
    }),
    ("check", || cancels::checks(10_000_000)),
];

const REFUSABLE: [Refusable; 2] = [
    ("read_4k_direct_qd1", || ops::read_direct(1, 2_000)),
    ("read_4k_direct_qd32", || ops::read_direct(32, 10_000)),
];

const SPREADS: [Spread; 2] = [
    (
        [("sleep_1ms_late_p50", 0.5), ("sleep_1ms_late_p99", 0.99)],
        || timers::lateness(500),
    ),
    (
        [("remote_cancel_p50", 0.5), ("remote_cancel_p99", 0.99)],
        || cores::cancels(1_000),
    ),
];

fn main() -> ExitCode {
    run(&Arguments::parse()).unwrap_or_else(|error| {
        complain(format_args!("micro: {error}"));
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let spreads = SPREADS
        .iter()
        .flat_map(|(names, _)| names)
        .map(|(name, _)| *name);
    let known: Vec<_> = FIGURES
        .iter()
        .map(|(name, _)| *name)
        .chain(REFUSABLE.iter().map(|(name, _)| *name))
        .chain(spreads)
        .collect();
    if arguments.list {
        for name in known {
            writeln!(io::stdout(), "{name}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = arguments
        .names
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        complain(format_args!(
            "there is no figure {unknown:?}: `--list` lists them"
        ));
        return Ok(ExitCode::from(2));
    }
    let mut code = ExitCode::SUCCESS;
    let descriptors = raise_descriptor_limit()?;
    let mut is_wanted = |name: &str| {
        if !(arguments.names.is_empty() || arguments.names.iter().any(|wanted| wanted == name)) {
            return false;
        }
        let missing = missing(name, descriptors);
        if let Some(missing) = &missing {
            complain(format_args!("{name}: {missing}"));
            code = ExitCode::FAILURE;
        }
        missing.is_none()
    };
    let rounds = 0..arguments.rounds;
    for (name, figure) in FIGURES {
        if is_wanted(name) {
            say(name, &rounds.clone().map(|_| figure()).collect::<Vec<_>>())?;
        }
    }
    let mut refused = false;
    for (name, figure) in REFUSABLE {
        if !is_wanted(name) {
            continue;
        }
        match rounds
            .clone()
            .map(|_| figure())
            .collect::<io::Result<Vec<_>>>()
        {
            Ok(values) => say(name, &values)?,
            Err(error) => {
                complain(format_args!("{name}: {error}"));
                refused = true;
            }
        }
    }
    for (quantiles, take) in SPREADS {
        let wanted: Vec<_> = quantiles
            .into_iter()
            .filter(|(name, _)| is_wanted(name))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let mut taken: Vec<_> = rounds.clone().map(|_| take()).collect();
        for (name, share) in wanted {
            let values = taken.iter_mut().map(|values| quantile(values, share));
            say(name, &values.collect::<Vec<_>>())?;
        }
    }
    Ok(if refused { ExitCode::FAILURE } else { code })
}

fn say(name: &str, values: &[f64]) -> io::Result<()> {
    let median = spread(values)
        .expect("there are rounds, and numbers")
        .median;
    writeln!(io::stdout(), r#"{{"name": "{name}", "ns": {median:.1}}}"#)
}
