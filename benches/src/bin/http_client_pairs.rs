//! Runs several HTTP clients against one server, in turn (A B C A B C …), and says how they compare.
//!
//! The machine's speed changes by a third from one minute to the next; clients that take turns share that. So
//! each round gives a ratio, and the median of the rounds counts. The server is started here, on a core of its
//! own; how busy it was is told, for a server that is busy all the time measures itself.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use benches::matrix::program::{Processors, Server, raise_descriptor_limit};
use benches::matrix::statistics::{Spread, paired, spread};
use benches::outcome::{complain, ended, say};
use benches::process::Usage;
use clap::Parser;
use quoit::time::Instant;
use serde_json::Value;

/// Compares HTTP clients.
#[derive(Debug, Parser)]
struct Arguments {
    /// A client: `name=program argument…`; it is run with `--protocol`, `--concurrency`, `--seconds`, `--core` and
    /// `--url` behind that, and prints a line of JSON. The first is compared with each of the others.
    #[arg(long = "client", required = true)]
    clients: Vec<String>,
    /// The server: a program that is told `--listen` and `--cores`, and says when it listens.
    #[arg(long, default_value = "target/release/http")]
    server: PathBuf,
    /// The server's processor.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The clients' processor.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// What is spoken.
    #[arg(long, value_delimiter = ',', default_value = "h1,h2")]
    protocols: Vec<String>,
    /// How many requests there are at once.
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    concurrency: Vec<usize>,
    /// How many rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// For how many seconds a client asks in each.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// What a client did in each round.
#[derive(Default)]
struct Rounds {
    rate: Vec<f64>,
    cpu: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// What part of the time the server worked.
    server: Vec<f64>,
}

fn main() -> ExitCode {
    ended("http_client_pairs", run_all(&Arguments::parse()))
}

fn run_all(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if !(0.001..=3600.0).contains(&arguments.seconds) {
        return Err("--seconds is between 0.001 and 3600".into());
    }
    let clients = arguments.clients.iter().map(|client| {
        let parts = client.split_once('=');
        parts.ok_or_else(|| format!("{client:?} is no client: write name=program"))
    });
    let clients: Vec<(&str, &str)> = clients.collect::<Result<_, _>>()?;
    if arguments.server_core == arguments.client_core {
        let core = arguments.server_core;
        complain(format_args!(
            "http_client_pairs: the server and the clients share processor {core}, and measure each other"
        ));
    }
    raise_descriptor_limit()?;
    let processors = Processors::here()?;
    let mut server = Command::new(&arguments.server);
    let server = processors.server(arguments.server_core, &mut server)?;
    for protocol in &arguments.protocols {
        for &concurrency in &arguments.concurrency {
            let mut rounds: Vec<Rounds> = clients.iter().map(|_| Rounds::default()).collect();
            for _ in 0..arguments.rounds {
                for ((_, command), rounds) in clients.iter().zip(&mut rounds) {
                    let asked = (protocol.as_str(), concurrency);
                    run(arguments, &processors, &server, command, asked, rounds)?;
                }
            }
            say(format_args!("{protocol}, {concurrency} at once\n"))?;
            for ((name, _), rounds) in clients.iter().zip(&rounds) {
                tell(name, rounds)?;
            }
            for ((name, _), other) in clients.iter().zip(&rounds).skip(1) {
                let first = (clients[0].0, &rounds[0]);
                compare(first, (name, other))?;
            }
        }
    }
    Ok(())
}

/// Runs a client once.
fn run(
    arguments: &Arguments,
    processors: &Processors,
    server: &Server,
    client: &str,
    (protocol, concurrency): (&str, usize),
    rounds: &mut Rounds,
) -> Result<(), Box<dyn Error>> {
    let mut words = client.split_whitespace();
    let program = words
        .next()
        .ok_or("a client has no program: write name=program")?;
    let mut command = Command::new(program);
    command
        .args(words)
        .args(["--protocol", protocol])
        .args(["--concurrency", &concurrency.to_string()])
        .args(["--seconds", &arguments.seconds.to_string()])
        .args(["--core", &arguments.client_core.to_string()])
        .args(["--url", &format!("http://{}/", server.address())]);
    let patience = Duration::from_secs_f64(arguments.seconds) + PATIENCE;
    let (before, begun) = (Usage::of(server.process())?, Instant::now());
    let said = processors.output(Some(arguments.client_core), &mut command, patience);
    let said = said.map_err(|error| format!("{client}: {error}"))?;
    let (took, used) = (begun.elapsed(), Usage::of(server.process())?.since(before));
    let line: Value = serde_json::from_str(&said)
        .map_err(|_| format!("{client} says {said:?}, which is no line of JSON"))?;
    let figure = |name: &str| {
        let value = line[name].as_f64();
        value.ok_or_else(|| format!("{client} says no {name}: {line}"))
    };
    rounds.rate.push(figure("rps")?);
    rounds.cpu.push(figure("cpu_us")?);
    rounds.p50.push(figure("p50_us")?);
    rounds.p99.push(figure("p99_us")?);
    rounds
        .server
        .push(used.cpu.as_secs_f64() / took.as_secs_f64());
    Ok(())
}

/// Returns the median with the least and the most.
fn middle(values: &[f64]) -> Spread {
    spread(values).expect("there are rounds, and numbers")
}

fn tell(name: &str, rounds: &Rounds) -> io::Result<()> {
    let (rate, cpu) = (middle(&rounds.rate), middle(&rounds.cpu));
    say(format_args!(
        "  {name:<12} {:8.0} /s [{:.0} to {:.0}]  cpu {:6.2} us [{:.2} to {:.2}]  p50 {:7.1} us  p99 {:7.1} us  \
         server busy {:3.0} %\n",
        rate.median,
        rate.least,
        rate.most,
        cpu.median,
        cpu.least,
        cpu.most,
        middle(&rounds.p50).median,
        middle(&rounds.p99).median,
        middle(&rounds.server).median * 100.0,
    ))
}

fn compare((first, one): (&str, &Rounds), (name, other): (&str, &Rounds)) -> io::Result<()> {
    let ratio = |one: &[f64], other: &[f64]| {
        let told = paired(one, other);
        told.map_or_else(
            || "-".to_owned(),
            |ratio| {
                format!(
                    "{:.3} [{:.3} to {:.3}]",
                    ratio.median, ratio.least, ratio.most
                )
            },
        )
    };
    say(format_args!(
        "  {first} / {name:<12} rate {}  cpu {}\n",
        ratio(&one.rate, &other.rate),
        ratio(&one.cpu, &other.cpu),
    ))
}

/// How long a client may take beside its rounds, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(30);
