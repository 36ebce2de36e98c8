//! What cancelling costs: tasks and kernel ops by the thousand, entering and leaving a scope, and a
//! cancel from one core until the task on a parked other one runs.
//!
//! Prints one line per figure, `name value unit`; each is the median of some rounds in this process.
//! `cancel tasks ops` measures those two alone. The same without quoit is in `comparators/`.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use benches::matrix::statistics::{Spread, spread};
use benches::micro::{cancels, cores, quantile};
use benches::outcome::{ended, say};
use clap::Parser;
use quoit::time::Instant;
use quoit::{block_on, group, op};

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(100));

/// A core has 2^24 tasks at a time at most, some of them of the measurement.
const MOST_TASKS: i64 = 16_000_000;

/// All of them are reads of one pipe.
const MOST_OPS: u32 = 100_000;

#[derive(Parser)]
#[command(about = "Measures what cancelling costs")]
struct Options {
    /// What to measure; everything, if nothing is said.
    #[arg(value_enum)]
    what: Vec<What>,
    /// How many tasks or ops are cancelled at once; no more than 100 000 ops.
    #[arg(long, default_value_t = MOST_OPS, value_parser = clap::value_parser!(u32).range(1..=MOST_TASKS))]
    count: u32,
    /// How often each figure is taken.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Tasks,
    Ops,
    Scopes,
    Cores,
}

fn main() -> ExitCode {
    ended("cancel", run(&Options::parse()))
}

fn run(options: &Options) -> io::Result<()> {
    let wants = |what| options.what.is_empty() || options.what.contains(&what);
    if wants(What::Scopes) {
        scopes(options.rounds)?;
    }
    if wants(What::Tasks) {
        tasks(options)?;
    }
    if wants(What::Ops) {
        ops(options)?;
    }
    if wants(What::Cores) {
        if thread::available_parallelism().map_or(1, usize::from) < 2 {
            let missing = "cores: it takes two processors, and this process may use one";
            return Err(io::Error::other(missing));
        }
        cores()?;
    }
    Ok(())
}

fn tell(name: &str, values: &[f64], unit: &str) -> io::Result<()> {
    let Spread {
        median,
        least,
        most,
    } = spread(values).expect("there are rounds");
    say(format_args!(
        "{name:<44} {median:9.1} {unit}  ({least:.1} to {most:.1})\n"
    ))
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = status.split(' ').nth(1).expect("its second number");
    pages.parse::<u64>().expect("a number") * 4
}

fn scopes(rounds: u32) -> io::Result<()> {
    const COUNT: u32 = 1_000_000;
    let figures: [(_, fn() -> f64); 4] = [
        ("scope: enter and leave", || {
            cancels::enter_and_exit(COUNT, None)
        }),
        ("scope: the same with a timeout", || {
            cancels::enter_and_exit(COUNT, TIMEOUT)
        }),
        ("check", || cancels::checks(COUNT)),
        ("group: empty (with its yield)", || {
            cancels::empty_groups(COUNT / 10)
        }),
    ];
    for (name, figure) in figures {
        tell(
            name,
            &(0..rounds).map(|_| figure()).collect::<Vec<_>>(),
            "ns",
        )?;
    }
    Ok(())
}

fn tasks(options: &Options) -> io::Result<()> {
    let count = options.count;
    let mut figures = [const { Vec::new() }; 4];
    let mut memory = 0;
    for _ in 0..options.rounds {
        let measured = block_on(async {
            let before = resident_kib();
            let (spawned, plain) = cancels::park_and_cancel(count, None).await;
            // The second time the slots lie there already, in the order in which they were freed.
            let (_, again) = cancels::park_and_cancel(count, None).await;
            let (_, timed) = cancels::park_and_cancel(count, TIMEOUT).await;
            (
                [plain, again, timed, spawned],
                resident_kib().saturating_sub(before),
            )
        });
        let (values, kept) = measured.expect("io_uring");
        memory = kept;
        for (figure, value) in figures.iter_mut().zip(values) {
            figure.push(value);
        }
    }
    let names = [
        "cancel parked tasks, each",
        "the same in a used core, each",
        "the same with a timeout scope each",
        "(starting and parking them, each)",
    ];
    for (name, values) in names.into_iter().zip(figures) {
        tell(name, &values, "ns")?;
    }
    let name = "resident after, beyond before";
    say(format_args!("{name:<44} {memory:9} KiB\n"))
}

fn ops(options: &Options) -> io::Result<()> {
    let count = options.count.min(MOST_OPS);
    let mut values = Vec::new();
    for _ in 0..options.rounds {
        let measured = block_on(async {
            let (reader, _writer) = op::pipe().expect("a pipe");
            let mut begin = Instant::now();
            let ended = group(async |g| {
                for _ in 0..count {
                    let reader = reader.clone();
                    g.spawn(async move {
                        op::read(&reader, [0; 8]).await.0?;
                        Ok::<_, io::Error>(())
                    });
                }
                let handle = quoit::Handle::current().expect("on a core");
                while handle.metrics()[0].in_flight < u64::from(count) {
                    quoit::time::sleep(Duration::from_millis(1)).await?;
                }
                begin = Instant::now();
                g.cancel();
                Ok(())
            })
            .await;
            assert!(ended.is_ok());
            begin.elapsed().as_nanos() as f64 / f64::from(count)
        });
        values.push(measured.expect("io_uring"));
    }
    tell("cancel kernel reads of one pipe, each", &values, "ns")
}

fn cores() -> io::Result<()> {
    let mut took = cores::cancels(2_000);
    say(format_args!(
        "{:<44} {:9.1} µs p50 {:.1} µs p99\n",
        "cancel on one core until it runs on a parked",
        quantile(&mut took, 0.5) / 1000.0,
        quantile(&mut took, 0.99) / 1000.0
    ))
}
