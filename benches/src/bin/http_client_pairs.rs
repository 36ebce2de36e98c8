//! Runs several HTTP clients against one server, in turn (A B C A B C …), and says how they compare.
//!
//! The machine's speed changes by a third from one minute to the next; clients that take turns share that. So
//! each round gives a ratio, and the median of the rounds counts. The server is started here, on a core of its
//! own; how busy it was is told, for a server that is busy all the time measures itself.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{fs, io};

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
    #[arg(long, default_value = "127.0.0.1:7001")]
    listen: String,
    /// The server's processor.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The clients' processor.
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    #[arg(long, value_delimiter = ',', default_value = "h1,h2")]
    protocols: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    concurrency: Vec<usize>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// The server, until it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let killed = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = killed {
            eprintln!("the server does not end: {error}");
        }
    }
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

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let server = start(&arguments)?;
    let clients = arguments.clients.iter().map(|client| {
        let parts = client.split_once('=');
        parts.ok_or_else(|| format!("{client:?} is no client: write name=program"))
    });
    let clients: Vec<(&str, &str)> = clients.collect::<Result<_, _>>()?;
    for protocol in &arguments.protocols {
        for &concurrency in &arguments.concurrency {
            let mut rounds: Vec<Rounds> = clients.iter().map(|_| Rounds::default()).collect();
            for _ in 0..arguments.rounds {
                for ((_, command), rounds) in clients.iter().zip(&mut rounds) {
                    run(&arguments, &server, command, protocol, concurrency, rounds)?;
                }
            }
            println!("{protocol}, {concurrency} at once");
            for ((name, _), rounds) in clients.iter().zip(&rounds) {
                tell(name, rounds);
            }
            for ((name, _), other) in clients.iter().zip(&rounds).skip(1) {
                let first = (clients[0].0, &rounds[0]);
                compare(first, (name, other));
            }
        }
    }
    Ok(())
}

fn start(arguments: &Arguments) -> io::Result<Server> {
    let mut server = Command::new(&arguments.server)
        .args(["--listen", &arguments.listen])
        .args(["--cores", &arguments.server_core.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            let server = arguments.server.display();
            io::Error::new(error.kind(), format!("{server} cannot be run: {error}"))
        })?;
    let said = server.stdout.take().expect("it is piped");
    let server = Server(server);
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    if !line.starts_with("listening") {
        return Err(io::Error::other("the server does not listen"));
    }
    Ok(server)
}

/// Runs a client once.
fn run(
    arguments: &Arguments,
    server: &Server,
    command: &str,
    protocol: &str,
    concurrency: usize,
    rounds: &mut Rounds,
) -> Result<(), Box<dyn Error>> {
    let mut words = command.split_whitespace();
    let program = words
        .next()
        .ok_or("a client has no program: write name=program")?;
    let (before, begun) = (worked(server)?, Instant::now());
    let ended = Command::new(program)
        .args(words)
        .args(["--protocol", protocol])
        .args(["--concurrency", &concurrency.to_string()])
        .args(["--seconds", &arguments.seconds.to_string()])
        .args(["--core", &arguments.client_core.to_string()])
        .args(["--url", &format!("http://{}/", arguments.listen)])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let (took, worked) = (begun.elapsed(), worked(server)? - before);
    if !ended.status.success() {
        return Err(format!("{command} failed: {}", ended.status).into());
    }
    let said: Value = serde_json::from_slice(&ended.stdout)?;
    let figure = |name: &str| {
        let value = said[name].as_f64();
        value.ok_or_else(|| format!("{command} says no {name}: {said}"))
    };
    rounds.rate.push(figure("rps")?);
    rounds.cpu.push(figure("cpu_us")?);
    rounds.p50.push(figure("p50_us")?);
    rounds.p99.push(figure("p99_us")?);
    rounds.server.push(worked / took.as_secs_f64());
    Ok(())
}

/// Returns for how many seconds the server's threads have been on a processor.
fn worked(server: &Server) -> io::Result<f64> {
    let mut nanos = 0.0;
    for task in fs::read_dir(format!("/proc/{}/task", server.0.id()))? {
        nanos += on_processor(&task?.path())?;
    }
    Ok(nanos / 1e9)
}

fn on_processor(task: &Path) -> io::Result<f64> {
    let text = fs::read_to_string(task.join("schedstat"))?;
    let first = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok());
    first.ok_or_else(|| io::Error::other("the kernel does not say how long threads have run"))
}

fn tell(name: &str, rounds: &Rounds) {
    let (rate, cpu) = (spread(&rounds.rate), spread(&rounds.cpu));
    println!(
        "  {name:<12} {:8.0} /s [{:.0} to {:.0}]  cpu {:6.2} us [{:.2} to {:.2}]  p50 {:7.1} us  p99 {:7.1} us  \
         server busy {:3.0} %",
        rate.median,
        rate.least,
        rate.most,
        cpu.median,
        cpu.least,
        cpu.most,
        spread(&rounds.p50).median,
        spread(&rounds.p99).median,
        spread(&rounds.server).median * 100.0,
    );
}

fn compare((first, one): (&str, &Rounds), (name, other): (&str, &Rounds)) {
    let ratios = |one: &[f64], other: &[f64]| {
        let ratios: Vec<f64> = one
            .iter()
            .zip(other)
            .map(|(one, other)| one / other)
            .collect();
        spread(&ratios)
    };
    let (rate, cpu) = (ratios(&one.rate, &other.rate), ratios(&one.cpu, &other.cpu));
    println!(
        "  {first} / {name:<12} rate {:.3} [{:.3} to {:.3}]  cpu {:.3} [{:.3} to {:.3}]",
        rate.median, rate.least, rate.most, cpu.median, cpu.least, cpu.most,
    );
}

struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

fn spread(values: &[f64]) -> Spread {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    Spread {
        median: values[values.len() / 2],
        least: values[0],
        most: values[values.len() - 1],
    }
}
