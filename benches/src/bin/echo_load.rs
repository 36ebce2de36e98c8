//! Load for echo servers, on one core of quoit: many connections, each answer checked byte by byte.
//!
//! A *closed loop* keeps so many messages of each connection under way (`--depth`). An *open loop* (`--rate`) sends
//! when it is time, whether or not earlier messages came back, and counts each latency from the instant at which its
//! message was due: a server that stalls is not asked less. `--churn` opens a connection for each message; `--idle`
//! opens all, uses each once, and holds them until its standard input ends.
//!
//! Prints one line of JSON.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use benches::matrix::program::raise_descriptor_limit;
use benches::outcome::{complain, ended, say};
use benches::process::Usage;
use clap::Parser;
use hdrhistogram::Histogram;
use quoit::op::{Socket, SocketOption, Stream};
use quoit::time::{Instant, sleep_until};
use quoit::{CarriesCancelled, Cores, GroupError, Runtime, Scope, blocking, group};
use quoit_net::TcpStream;
use serde_json::{Value, json};

/// Asks an echo server, and says how fast it was.
#[derive(Debug, Parser, Clone)]
struct Arguments {
    /// The server.
    #[arg(long, default_value = "127.0.0.1:7000")]
    connect: SocketAddr,
    /// The processor that the only thread is pinned to.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// How many connections there are.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How many messages of a connection are under way at once, in a closed loop.
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// For how many seconds is measured.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// For how many seconds it goes on before.
    #[arg(long, default_value_t = 0.2)]
    warm_up: f64,
    /// Messages a second, of all connections together: an open loop.
    #[arg(long)]
    rate: Option<f64>,
    /// Opens a connection for each message, and closes it.
    #[arg(long, conflicts_with_all = ["rate", "idle"])]
    churn: bool,
    /// Holds connections that say nothing.
    #[arg(long, conflicts_with = "rate")]
    idle: bool,
    /// For how many microseconds the thread looks on before it parks: what is measured is the server then.
    #[arg(long, value_name = "MICROS", default_value_t = 0)]
    spin: u64,
    /// The server's process: what it used while it was measured is told as well.
    #[arg(long)]
    server: Option<u32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(wrong) = check(&arguments) {
        complain(format_args!("echo_load: {wrong}"));
        return ExitCode::from(2);
    }
    ended("echo_load", run(arguments))
}

fn run(arguments: Arguments) -> io::Result<()> {
    raise_descriptor_limit()?;
    let runtime = Runtime::builder()
        .cores(Cores::List(vec![arguments.core]))
        .spin_before_park(Duration::from_micros(arguments.spin))
        .build()?;
    let handle = runtime.handle();
    let (connections, is_idle) = (arguments.connections, arguments.idle);
    let measured = handle.spawn(handle.cores()[0], move || measure(arguments));
    let said = measured.map_err(io::Error::other)?.wait();
    let said = said.map_err(|error| io::Error::other(error.to_string()))??;
    writeln!(io::stdout(), "{said}")?;
    runtime.shutdown(Duration::from_secs(5));
    if let Some(why) = said["error"].as_str() {
        let failed = &said["errors"];
        let what =
            format!("{failed} of {connections} connections failed, the first of them: {why}");
        return Err(io::Error::other(what));
    }
    if !is_idle && said["requests"] == 0 {
        return Err(io::Error::other("no answer came in that time"));
    }
    Ok(())
}

/// Says what is wrong with the arguments.
fn check(arguments: &Arguments) -> Result<(), String> {
    let Arguments {
        connections,
        size,
        depth,
        ..
    } = arguments;
    if *connections == 0 || *size == 0 || *depth == 0 {
        return Err("--connections, --size and --depth are at least 1".to_owned());
    }
    if *connections > MOST_CONNECTIONS {
        return Err(format!("--connections is at most {MOST_CONNECTIONS}"));
    }
    if depth.saturating_mul(*size) > LARGEST_FLIGHT {
        // Both sides would write, and none read, once the socket buffers are full.
        let flight = format!("{depth} messages of {size} bytes are too much at once");
        return Err(format!(
            "{flight}: --depth times --size is at most {LARGEST_FLIGHT}"
        ));
    }
    if arguments.rate.is_some_and(|rate| !RATES.contains(&rate)) {
        let (least, most) = (RATES.start(), RATES.end());
        return Err(format!(
            "--rate is messages a second, between {least} and {most}"
        ));
    }
    let (measured, before) = (arguments.seconds, arguments.warm_up);
    if !(measured > 0.0 && measured <= LONGEST && (0.0..=LONGEST).contains(&before)) {
        return Err(format!(
            "--seconds is more than 0, --warm-up 0 or more, and both at most {LONGEST}"
        ));
    }
    Ok(())
}

/// When is measured.
#[derive(Debug, Clone, Copy)]
struct Course {
    /// When load begins.
    start: Instant,
    /// When it counts.
    begin: Instant,
    until: Instant,
}

/// What all connections have in common.
struct Load {
    arguments: Arguments,
    course: Cell<Course>,
    pattern: Pattern,
    tally: RefCell<Tally>,
}

async fn measure(arguments: Arguments) -> io::Result<Value> {
    let now = Instant::now();
    let load = Rc::new(Load {
        course: Cell::new(Course {
            start: now,
            begin: now,
            until: now,
        }),
        pattern: Pattern::new(),
        tally: RefCell::new(Tally::new()),
        arguments,
    });
    let arguments = &load.arguments;
    let mut streams = Vec::new();
    if !arguments.churn {
        for index in 0..arguments.connections {
            let stream = TcpStream::connect(arguments.connect).await;
            streams.push(stream.map_err(|error| not_connected(index, arguments, &error))?);
        }
    }
    if arguments.idle {
        return hold(&load, streams).await;
    }
    let start = Instant::now();
    let begin = start + Duration::from_secs_f64(arguments.warm_up);
    let until = begin + Duration::from_secs_f64(arguments.seconds);
    load.course.set(Course {
        start,
        begin,
        until,
    });

    let server = Rc::new(Cell::new(None));
    let all = group(async |tasks| {
        if let Some(process) = arguments.server {
            let (load, server) = (Rc::clone(&load), Rc::clone(&server));
            tasks.spawn(async move {
                sleep_until(begin).await?;
                let (before, answered) = (Usage::of(process)?, load.tally.borrow().answers);
                sleep_until(until).await?;
                let used = Usage::of(process)?.since(before);
                server.set(Some((used, load.tally.borrow().answers - answered)));
                Ok::<_, io::Error>(())
            });
        }
        for index in 0..arguments.connections {
            let (load, stream) = (Rc::clone(&load), streams.pop());
            tasks.spawn(async move {
                if let Err(error) = one(&load, stream, index).await {
                    load.tally.borrow_mut().fail(&error);
                }
                Ok(())
            });
        }
        Ok(())
    });
    // What does not come back ends the measurement some time, and is an error.
    let patience = Duration::from_secs_f64(arguments.warm_up + arguments.seconds) + PATIENCE;
    let ended = Scope::new().timeout(patience).run(all).await;
    ended.map_err(|error: GroupError<io::Error>| io::Error::other(error.to_string()))?;

    let tally = load.tally.borrow();
    let mut said = tally.told(begin, until);
    if let Some((used, answers)) = server.get() {
        said["server"] = json!({
            "answers": answers,
            "cpu_us": used.cpu.as_secs_f64() * 1e6,
            "user_us": used.user.as_secs_f64() * 1e6,
            "switches": used.switches,
        });
    }
    Ok(said)
}

/// One connection, or one after the other.
async fn one(load: &Rc<Load>, stream: Option<TcpStream>, index: usize) -> io::Result<()> {
    match (stream, load.arguments.rate) {
        (None, _) => churn(load, index).await,
        (Some(stream), None) => ask(load, &stream).await,
        (Some(stream), Some(rate)) => keep_time(load, stream, index, rate).await,
    }
}

/// A closed loop: as many messages under way as are wanted.
async fn ask(load: &Load, stream: &TcpStream) -> io::Result<()> {
    let Arguments { size, depth, .. } = load.arguments;
    let mut sent = VecDeque::with_capacity(depth);
    let (mut written, mut read) = (0, 0);
    loop {
        let now = Instant::now();
        let more = if now < load.course.get().until {
            depth - sent.len()
        } else {
            0
        };
        if more > 0 {
            sent.extend(std::iter::repeat_n(now, more));
            stream
                .write_all(load.pattern.at(written, more * size))
                .await
                .0?;
            written += more * size;
        }
        if sent.is_empty() {
            return Ok(());
        }
        let chunk = stream.recv().await?.ok_or_else(gone)?;
        let whole = read / size;
        load.pattern.check(read, &chunk)?;
        read += chunk.len();
        let now = Instant::now();
        for _ in whole..read / size {
            let at = sent.pop_front().ok_or_else(too_much)?;
            load.record(now, now, at);
        }
    }
}

/// An open loop: a message when it is due.
async fn keep_time(load: &Rc<Load>, stream: TcpStream, index: usize, rate: f64) -> io::Result<()> {
    let course = load.course.get();
    let due = Due {
        start: course.start,
        first: index,
        step: load.arguments.connections,
        rate,
    };
    if due.at(0) >= course.until {
        return Ok(());
    }
    let size = load.arguments.size;
    let stream = Rc::new(stream);
    let sent = Rc::new(RefCell::new(VecDeque::new()));
    let is_last = Rc::new(Cell::new(false));
    let (answers, due_at, ended) = (Rc::clone(&stream), Rc::clone(&sent), Rc::clone(&is_last));
    let (sends, receives) = (Rc::clone(load), Rc::clone(load));
    let both = group(async |tasks| {
        tasks.spawn(async move {
            let (mut count, mut written) = (0, 0);
            while due.at(count) < course.until {
                sleep_until(due.at(count)).await?;
                let (now, before) = (Instant::now(), count);
                while due.at(count) <= now && due.at(count) < course.until {
                    sent.borrow_mut().push_back(due.at(count));
                    count += 1;
                }
                // Said before the write, so that whoever reads its answer knows.
                is_last.set(due.at(count) >= course.until);
                let length = (count - before) * size;
                // After a stall many are due at once.
                for piece in (0..length).step_by(LARGEST_FLIGHT) {
                    let length = LARGEST_FLIGHT.min(length - piece);
                    stream
                        .write_all(sends.pattern.at(written, length))
                        .await
                        .0?;
                    written += length;
                }
            }
            Ok::<_, io::Error>(())
        });
        tasks.spawn(async move {
            let mut read = 0;
            while !ended.get() || !due_at.borrow().is_empty() {
                let chunk = answers.recv().await?.ok_or_else(gone)?;
                let whole = read / size;
                receives.pattern.check(read, &chunk)?;
                read += chunk.len();
                let now = Instant::now();
                for _ in whole..read / size {
                    let at = due_at.borrow_mut().pop_front().ok_or_else(too_much)?;
                    receives.record(at, now, at);
                }
            }
            Ok(())
        });
        Ok(())
    });
    both.await
        .map(drop)
        .map_err(|error| io::Error::other(error.to_string()))
}

/// Connections one after the other, a message each. The latency is that of all of it.
async fn churn(load: &Load, index: usize) -> io::Result<()> {
    let Arguments { size, connect, .. } = load.arguments;
    loop {
        let begun = Instant::now();
        if begun >= load.course.get().until {
            return Ok(());
        }
        let socket = Socket::tcp(connect)?;
        socket.set(SocketOption::NoDelay(true))?;
        if let Some(own) = source(connect, index) {
            socket.bind(own)?;
        }
        let stream = Stream::connect(socket, connect.into()).await?;
        once(load, &stream, size).await?;
        stream.shutdown(Shutdown::Write)?;
        if stream.receive().await?.is_some() {
            return Err(too_much());
        }
        stream.close().await?;
        let now = Instant::now();
        load.record(now, now, begun);
    }
}

/// Returns where one of those begins its connections that open one after the other, with a port that the kernel picks.
///
/// Each of them has an address of its own. A port stays taken for a minute, towards this server from this address, and
/// where most are, the kernel looks for one for longer than everything else takes: the load would measure itself.
/// Only the loopback interface has so many addresses.
fn source(server: SocketAddr, index: usize) -> Option<SocketAddr> {
    let [_, _, high, low] = (index as u32 % (1 << 16)).to_be_bytes();
    match server.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Some(SocketAddr::from(([127, 1, high, low], 0))),
        _ => None,
    }
}

/// Uses each connection once, says how many there are, and holds them until the standard input ends, and then uses each
/// once more. One on which anything happens meanwhile, such as its end, ends it: a server that lets go of connections
/// has none that are idle.
async fn hold(load: &Load, streams: Vec<TcpStream>) -> io::Result<Value> {
    let streams: Vec<_> = streams.into_iter().map(Stream::from).map(Rc::new).collect();
    for stream in &streams {
        once(load, stream, load.arguments.size).await?;
    }
    let said = json!({ "connections": streams.len() });
    let held = group(async |tasks| {
        for stream in &streams {
            let stream = Rc::clone(stream);
            tasks.spawn(async move {
                let received = stream.receive().await?;
                Err::<(), _>(received.map_or_else(gone, |_| too_much()))
            });
        }
        let waited = blocking::run_abandonable(move |_| {
            say(format_args!("{said}\n"))?;
            io::copy(&mut io::stdin(), &mut io::sink())
        });
        waited.await.map_err(io::Error::from)??;
        tasks.cancel();
        Ok::<_, io::Error>(())
    });
    held.await.map_err(one_of)?;
    for stream in &streams {
        once(load, stream, load.arguments.size).await?;
    }
    Ok(json!({ "connections": streams.len(), "errors": 0 }))
}

/// What happens to one tells enough.
fn one_of(failures: GroupError<io::Error>) -> io::Error {
    let text = failures.to_string();
    let one = failures.into_errors().into_iter().next();
    one.unwrap_or_else(|| io::Error::other(text))
}

/// A message, and its answer.
async fn once(load: &Load, stream: &Stream, size: usize) -> io::Result<()> {
    stream.send_all(load.pattern.at(0, size)).await.0?;
    let mut read = 0;
    while read < size {
        let chunk = stream.receive().await?.ok_or_else(gone)?;
        load.pattern.check(read, &chunk)?;
        read += chunk.len();
    }
    if read > size { Err(too_much()) } else { Ok(()) }
}

impl Load {
    /// Counts an answer that came `now`: as one of those that are told, if `counted` lies in the time that is measured.
    fn record(&self, counted: Instant, now: Instant, since: Instant) {
        let Course { begin, until, .. } = self.course.get();
        let mut tally = self.tally.borrow_mut();
        tally.answers += 1;
        if (begin..=until).contains(&counted) {
            tally.record(now, now - since);
        }
    }
}

/// When the messages of one connection are due: those of all connections are evenly apart.
#[derive(Debug, Clone, Copy)]
struct Due {
    start: Instant,
    first: usize,
    step: usize,
    rate: f64,
}

impl Due {
    fn at(self, count: usize) -> Instant {
        let number = self.first + count * self.step;
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// The bytes of every connection: a stream that repeats after a prime number, so that what is lost, doubled or out of
/// order is noticed wherever a message ends.
struct Pattern(&'static [u8]);

impl Pattern {
    fn new() -> Self {
        let bytes: Vec<u8> = (0..PERIOD + LARGEST_FLIGHT)
            .map(|at| (at % PERIOD) as u8 ^ 0x5a)
            .collect();
        Self(bytes.leak())
    }

    /// Returns so many bytes from a position of the stream.
    fn at(&self, position: usize, length: usize) -> &'static [u8] {
        &self.0[position % PERIOD..][..length]
    }

    /// Compares what came back at a position.
    fn check(&self, position: usize, bytes: &[u8]) -> io::Result<()> {
        let mut at = position;
        for piece in bytes.chunks(LARGEST_FLIGHT) {
            if piece != self.at(at, piece.len()) {
                let place = format!("what came back at byte {at} is not what was sent");
                return Err(io::Error::new(io::ErrorKind::InvalidData, place));
            }
            at += piece.len();
        }
        Ok(())
    }
}

/// What came back, and what did not.
struct Tally {
    histogram: Histogram<u64>,
    /// How many answers came so far, whenever they were due: what the server had to do for what it used.
    answers: u64,
    /// How many connections failed.
    errors: u64,
    /// Why the first of them did: that is enough to know what is wrong.
    error: Option<String>,
    last: Option<Instant>,
}

impl Tally {
    fn new() -> Self {
        let longest = Duration::from_secs(60).as_nanos() as u64;
        let histogram = Histogram::new_with_bounds(1, longest, 3);
        Self {
            histogram: histogram.expect("the bounds are right"),
            answers: 0,
            errors: 0,
            error: None,
            last: None,
        }
    }

    fn record(&mut self, now: Instant, took: Duration) {
        self.histogram.saturating_record(took.as_nanos() as u64);
        self.last = Some(now);
    }

    fn fail(&mut self, error: &io::Error) {
        self.error.get_or_insert_with(|| match error.cancelled() {
            Some(_) => format!("no answer, until {PATIENCE:?} after the end"),
            None => error.to_string(),
        });
        self.errors += 1;
    }

    /// The line. What came back late makes the time longer, and so the rate that which was reached.
    fn told(&self, begin: Instant, until: Instant) -> Value {
        let seconds = (self.last.unwrap_or(until).max(until) - begin).as_secs_f64();
        let requests = self.histogram.len();
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |percent: f64| micros(self.histogram.value_at_percentile(percent));
        let curve: Vec<_> = CURVE
            .iter()
            .map(|&percent| [percent, at(percent)])
            .collect();
        let mut said = json!({
            "requests": requests,
            "seconds": seconds,
            "rate": requests as f64 / seconds,
            "errors": self.errors,
            "latency_us": {
                "p50": at(50.0),
                "p90": at(90.0),
                "p99": at(99.0),
                "p99.9": at(99.9),
                "max": micros(self.histogram.max()),
            },
            "curve_us": curve,
        });
        if let Some(error) = &self.error {
            said["error"] = json!(error);
        }
        said
    }
}

fn not_connected(index: usize, arguments: &Arguments, error: &io::Error) -> io::Error {
    let (number, of) = (index + 1, arguments.connections);
    let remedy = match error.raw_os_error() {
        Some(TOO_MANY_FILES) => ": `ulimit -Hn` says how many there may be",
        _ => "",
    };
    let what = format!("connection {number} of {of}: {error}{remedy}");
    io::Error::new(error.kind(), what)
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the server closed a connection that it should hold",
    )
}

fn too_much() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "more came back than was sent")
}

/// How many bytes of a connection are under way at most.
const LARGEST_FLIGHT: usize = 128 * 1024;

/// Ports that one address can connect from are fewer.
const MOST_CONNECTIONS: usize = 1_000_000;

/// Messages a second that can be told apart, and of which there is one some time.
const RATES: std::ops::RangeInclusive<f64> = 0.01..=10_000_000.0;

/// A day, in seconds.
const LONGEST: f64 = 86_400.0;

/// `EMFILE`.
const TOO_MANY_FILES: i32 = 24;

/// After how many bytes the pattern repeats.
const PERIOD: usize = 251;

/// How long what is under way at the end may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The percentiles that are told.
const CURVE: [f64; 14] = [
    0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_lost_doubled_or_elsewhere_are_noticed() {
        let pattern = Pattern::new();
        for size in [1, 64, 4096, 16 * 1024] {
            let sent = pattern.at(3 * size, size);
            assert!(pattern.check(3 * size, sent).is_ok());
            assert!(pattern.check(2 * size, sent).is_err(), "{size}: doubled");
            assert!(pattern.check(4 * size, sent).is_err(), "{size}: lost");
            let mut wrong = sent.to_vec();
            wrong[size - 1] ^= 1;
            assert!(pattern.check(3 * size, &wrong).is_err(), "{size}: another");
        }
    }

    #[test]
    fn messages_of_all_connections_are_evenly_apart() {
        let start = Instant::now();
        let of = |first| Due {
            start,
            first,
            step: 4,
            rate: 1000.0,
        };
        assert_eq!(of(0).at(0), start);
        assert_eq!(of(3).at(0), start + Duration::from_millis(3));
        assert_eq!(of(1).at(2), start + Duration::from_millis(9));
    }

    #[test]
    fn who_opens_one_connection_after_the_other_has_an_address_of_its_own() {
        let server = |text: &str| text.parse().expect("an address");
        let of = |index| source(server("127.0.0.1:7000"), index);
        let mut sources: Vec<_> = (0..1_000).map(|index| of(index).expect("one")).collect();
        assert!(
            sources
                .iter()
                .all(|own| own.ip().is_loopback() && own.port() == 0)
        );
        sources.sort_unstable();
        sources.dedup();
        assert_eq!(sources.len(), 1_000);
        for elsewhere in ["192.0.2.1:7000", "[::1]:7000"] {
            assert_eq!(source(server(elsewhere), 3), None);
        }
    }

    #[test]
    fn what_comes_late_lowers_the_rate() {
        let begin = Instant::now();
        let until = begin + Duration::from_secs(1);
        let mut tally = Tally::new();
        for _ in 0..100 {
            tally.record(begin + Duration::from_secs(2), Duration::from_millis(1));
        }
        let said = tally.told(begin, until);
        assert_eq!(said["rate"], 50.0);
        assert_eq!(said["requests"], 100);
        let median = said["latency_us"]["p50"].as_f64().expect("a number");
        assert!((median - 1000.0).abs() < 2.0, "{median}");
    }

    #[test]
    fn an_answer_that_counts_elsewhere_was_the_servers_work_nevertheless() {
        let begin = Instant::now();
        let until = begin + Duration::from_secs(1);
        let load = Load {
            course: Cell::new(Course {
                start: begin,
                begin,
                until,
            }),
            pattern: Pattern::new(),
            tally: RefCell::new(Tally::new()),
            arguments: Arguments::parse_from(["echo_load"]),
        };
        let late = until + Duration::from_secs(1);
        load.record(begin, begin, begin);
        load.record(late, late, until);
        let tally = load.tally.borrow();
        assert_eq!((tally.answers, tally.histogram.len()), (2, 1));
    }

    #[test]
    fn a_flight_that_fills_both_buffers_is_refused() {
        let told = ["echo_load", "--depth", "100", "--size", "16384"];
        let wrong = check(&Arguments::parse_from(told)).expect_err("too much");
        assert!(wrong.contains("at most 131072"), "{wrong}");
        assert!(check(&Arguments::parse_from(["echo_load"])).is_ok());
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_what_can() {
        for (option, values, told) in [
            (
                "--rate",
                ["0", "1e-300", "1e18", "nan", "inf"],
                "between 0.01 and 10000000",
            ),
            (
                "--seconds",
                ["0", "-1", "nan", "1e300", "inf"],
                "--seconds is more than 0",
            ),
            (
                "--connections",
                ["0", "1000001", "0", "0", "0"],
                "--connections",
            ),
        ] {
            for value in values {
                let option = format!("{option}={value}");
                let wrong = check(&Arguments::parse_from(["echo_load", &option]));
                let wrong = wrong.expect_err(&option);
                assert!(wrong.contains(told), "{option}: {wrong}");
            }
        }
    }
}
