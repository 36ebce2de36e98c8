//! What cancelling costs: tasks and kernel ops by the thousand, entering and leaving a scope, and a
//! cancel from one core until the task on a parked other one runs.
//!
//! Prints one line per figure, `name value unit`; each is the median of some rounds in this process.
//! `cancel tasks ops` measures those two alone. The same without quoit is in `comparators/`.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use quoit::sync::Event;
use quoit::time::Instant;
use quoit::{CancelHandle, Cancelled, Cores, RemoteHandle, Runtime, Scope, block_on, group, op};

#[derive(Parser)]
#[command(about = "Measures what cancelling costs")]
struct Options {
    /// What to measure; everything, if nothing is said.
    #[arg(value_enum)]
    what: Vec<What>,
    /// How many tasks or ops are cancelled at once.
    #[arg(long, default_value_t = 100_000)]
    count: u32,
    /// How often each figure is taken.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Tasks,
    Ops,
    Scopes,
    Cores,
}

fn main() {
    let options = Options::parse();
    let wants = |what| options.what.is_empty() || options.what.contains(&what);
    if wants(What::Scopes) {
        scopes(options.rounds);
    }
    if wants(What::Tasks) {
        tasks(&options);
    }
    if wants(What::Ops) {
        ops(&options);
    }
    if wants(What::Cores) {
        cores();
    }
}

fn say(name: &str, mut values: Vec<f64>, unit: &str) {
    values.sort_by(f64::total_cmp);
    let (first, last) = (values[0], values[values.len() - 1]);
    let median = values[values.len() / 2];
    println!("{name:<44} {median:9.1} {unit}  ({first:.1} to {last:.1})");
}

/// Nanoseconds per piece.
fn each(begin: Instant, count: u32) -> f64 {
    begin.elapsed().as_nanos() as f64 / f64::from(count)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = status.split(' ').nth(1).expect("its second number");
    pages.parse::<u64>().expect("a number") * 4
}

fn scopes(rounds: usize) {
    const COUNT: u32 = 1_000_000;
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let measured = block_on(async {
            let begin = Instant::now();
            for _ in 0..COUNT {
                let scope = Scope::new();
                black_box(scope.run(async { Ok::<_, Cancelled>(()) }).await.ok());
            }
            let plain = each(begin, COUNT);
            let begin = Instant::now();
            for _ in 0..COUNT {
                let scope = Scope::new().timeout(Duration::from_secs(100));
                black_box(scope.run(async { Ok::<_, Cancelled>(()) }).await.ok());
            }
            let timed = each(begin, COUNT);
            let begin = Instant::now();
            for _ in 0..COUNT {
                black_box(quoit::check().ok());
            }
            let check = each(begin, COUNT);
            let begin = Instant::now();
            for _ in 0..COUNT / 10 {
                black_box(group(async |_| Ok::<_, Cancelled>(())).await.ok());
            }
            [plain, timed, check, each(begin, COUNT / 10)]
        });
        for (figure, value) in figures.iter_mut().zip(measured.expect("io_uring")) {
            figure.push(value);
        }
    }
    let names = [
        "scope: enter and leave",
        "scope: the same with a timeout",
        "check",
        "group: empty (with its yield)",
    ];
    for (name, values) in names.into_iter().zip(figures) {
        say(name, values, "ns");
    }
}

fn tasks(options: &Options) {
    let count = options.count;
    let mut figures = [const { Vec::new() }; 4];
    let mut memory = 0;
    for _ in 0..options.rounds {
        let measured = block_on(async {
            let before = resident_kib();
            let plain = cancel_tasks(count, None).await;
            let spawned = plain.1;
            // The second time the slots lie there already, in the order in which they were freed.
            let again = cancel_tasks(count, None).await;
            let timed = cancel_tasks(count, Some(Duration::from_secs(100))).await;
            (
                [plain.0, again.0, timed.0, spawned],
                resident_kib() - before,
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
        say(name, values, "ns");
    }
    println!("{:<44} {memory:9} KiB", "resident after, beyond before");
}

/// Returns nanoseconds per task: from the cancel until the group has ended, and for starting it.
async fn cancel_tasks(count: u32, timeout: Option<Duration>) -> (f64, f64) {
    let event = Rc::new(Event::new());
    let mut spawned = 0.0;
    let mut begin = Instant::now();
    let ended = group(async |g| {
        let start = Instant::now();
        for _ in 0..count {
            let event = Rc::clone(&event);
            g.spawn(async move {
                match timeout {
                    None => event.wait().await,
                    Some(timeout) => {
                        let scope = Scope::new().timeout(timeout);
                        scope.run(event.wait()).await.map(drop)
                    }
                }
            });
        }
        while parked() < u64::from(count) {
            quoit::time::sleep(Duration::from_millis(1)).await?;
        }
        spawned = each(start, count);
        begin = Instant::now();
        g.cancel();
        Ok::<_, Cancelled>(())
    })
    .await;
    let cancelled = each(begin, count);
    assert!(ended.is_ok());
    (cancelled, spawned)
}

/// How many ops are parked on this core, as of its last park.
fn parked() -> u64 {
    let handle = quoit::Handle::current().expect("on a core");
    handle.metrics()[0].parked
}

fn ops(options: &Options) {
    let count = options.count.min(100_000);
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
                        Ok::<_, std::io::Error>(())
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
            each(begin, count)
        });
        values.push(measured.expect("io_uring"));
    }
    say("cancel kernel reads of one pipe, each", values, "ns");
}

fn cores() {
    const ROUNDS: usize = 2_000;
    let runtime = Runtime::builder()
        .cores(Cores::Count(2))
        .build()
        .expect("two cores and io_uring");
    let handle = runtime.handle();
    let [a, b] = handle.cores()[..] else {
        unreachable!("two cores");
    };
    // Core b waits in a scope; core a cancels it and reads the clock; b reads it when it runs.
    let mut sorted = Vec::new();
    for _ in 0..ROUNDS {
        let (sender, told): (_, RemoteHandle<CancelHandle>) = RemoteHandle::channel();
        let waits = handle.spawn(b, move || async move {
            let scope = Scope::new();
            sender.send(scope.handle());
            let outcome = scope.run(Event::new().wait()).await;
            assert_eq!(outcome, Ok(None));
            Instant::now()
        });
        let cancel = told.wait().expect("it was sent");
        let parks = handle.metrics()[1].parks;
        while handle.metrics()[1].parks == parks && handle.metrics()[1].parked == 0 {
            std::thread::yield_now();
        }
        let sends = handle.spawn(a, move || async move {
            let begin = Instant::now();
            cancel.cancel();
            begin
        });
        let begin = sends.expect("room").wait().expect("it ran");
        let end = waits.expect("room").wait().expect("it ran");
        sorted.push((end - begin).as_nanos() as f64 / 1000.0);
    }
    sorted.sort_by(f64::total_cmp);
    println!(
        "{:<44} {:9.1} µs p50 {:.1} µs p99",
        "cancel on one core until it runs on a parked",
        sorted[ROUNDS / 2],
        sorted[ROUNDS * 99 / 100]
    );
}
