//! What quoit costs, as far as that can be told without a clock, held against what it was.
//!
//! No clock, because machines that test are busy with other things: what is counted here is the same on all of them.
//!
//! - Parts of the runtime (`parts.rs`): instructions, allocations, system calls and readings of the clock for each
//!   piece, under valgrind (`callgrind.rs`). So are requests to an echo server, which has one thread.
//! - Requests (`requests.rs`): what the core counts itself, and allocations, natively. A server of HTTP has a second
//!   thread, and valgrind takes entering the ring for a call that does not block: while a core waits there, no other
//!   thread runs.
//! - Connections that are idle (`idle.rs`): resident memory.
//!
//! The figures are a table (`table.rs`), and `judge.rs` compares two of them. All is counted by one program, which
//! starts itself for each scenario.

pub mod callgrind;
pub mod idle;
pub mod judge;
pub mod parts;
pub mod requests;
pub mod table;

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use callgrind::Counted;
use parts::PARTS;
use requests::Protocol;
use table::{Conditions, Counter, Table};

use crate::matrix::program::Processors;

/// The word that makes the program do a part of the runtime: with its name, and how many times.
pub const DO_PART: &str = "do-part";
/// The word that makes it ask a server: with the name of a kind of requests, and how many rounds.
pub const ASK: &str = "ask";
/// The word that makes it serve, until it is killed.
pub const SERVE: &str = "serve";

/// A kind of requests.
#[derive(Debug)]
pub struct Requests {
    /// What it is called.
    pub name: &'static str,
    /// What is asked.
    pub protocol: Protocol,
    /// On how many connections at a time.
    pub connections: u32,
    /// How many rounds valgrind counts.
    rounds: u32,
}

/// How many times as many rounds are counted natively. What comes once and when the clock wills it, as the first value
/// in a part of a histogram, or a table that grows, is nothing among so many.
const NATIVELY: u32 = 20;

/// All of them.
pub const REQUESTS: [Requests; 6] = [
    requests("echo_1", Protocol::Echo, 1, 200),
    requests("echo_64", Protocol::Echo, 64, 20),
    requests("http1_1", Protocol::Http1, 1, 200),
    requests("http1_64", Protocol::Http1, 64, 20),
    requests("http2_1", Protocol::Http2, 1, 200),
    requests("http2_64", Protocol::Http2, 64, 20),
];

const fn requests(
    name: &'static str,
    protocol: Protocol,
    connections: u32,
    rounds: u32,
) -> Requests {
    Requests {
        name,
        protocol,
        connections,
        rounds,
    }
}

/// What was counted.
#[derive(Debug)]
pub struct Taken {
    /// The figures.
    pub table: Table,
    /// What could not be counted here.
    pub left_out: BTreeSet<(String, Counter)>,
    /// Why.
    pub notes: Vec<String>,
}

const BY_VALGRIND: [Counter; 4] = [
    Counter::Instructions,
    Counter::Allocations,
    Counter::SystemCalls,
    Counter::ClockReads,
];

/// Counts everything. `program` is this program, which is started with the words above, and `descriptors` says how many
/// it may have open.
///
/// # Errors
///
/// A scenario that fails, with what it said. That valgrind is not there is none: it is noted.
pub fn count(program: &Path, conditions: Conditions, descriptors: u64) -> io::Result<Taken> {
    let mut taken = Taken {
        table: Table::new(conditions),
        left_out: BTreeSet::new(),
        notes: Vec::new(),
    };
    let profiled = profiled();
    if Command::new("valgrind").arg("--version").output().is_ok() {
        for (scenario, [short, long]) in profiled.iter().zip(profile(program, &profiled)?) {
            let each = |of: fn(&Counted) -> u64| {
                (of(&long) as f64 - of(&short) as f64) / f64::from(scenario.pieces)
            };
            let values = [
                each(|counted| counted.instructions),
                each(|counted| counted.allocations),
                each(|counted| counted.system_calls),
                each(|counted| counted.clock_reads),
            ];
            for (counter, value) in BY_VALGRIND.into_iter().zip(values) {
                taken.table.put(scenario.name, counter, value);
            }
        }
    } else {
        let what = "valgrind is not installed: what it counts is left out";
        taken.notes.push(what.to_owned());
        for scenario in &profiled {
            let figures = BY_VALGRIND.map(|counter| (scenario.name.to_owned(), counter));
            taken.left_out.extend(figures);
        }
    }
    let processors = Processors::here()?;
    for kind in &REQUESTS {
        ask((&processors, PATIENCE), program, kind, &mut taken.table)?;
    }
    let bytes = idle::bytes_per_connection(program, &[SERVE], descriptors)?;
    taken.table.put("idle_connection", Counter::Bytes, bytes);
    Ok(taken)
}

/// A scenario that valgrind runs twice, once with twice as many pieces.
struct Profiled {
    name: &'static str,
    word: &'static str,
    times: u32,
    /// By how many pieces the two differ.
    pieces: u32,
}

fn profiled() -> Vec<Profiled> {
    let parts = PARTS.iter().map(|part| Profiled {
        name: part.name,
        word: DO_PART,
        times: part.times,
        pieces: part.times * part.pieces,
    });
    let echoes = REQUESTS
        .iter()
        .filter(|kind| kind.protocol == Protocol::Echo);
    let echoes = echoes.map(|kind| Profiled {
        name: kind.name,
        word: ASK,
        times: kind.rounds,
        pieces: kind.rounds * kind.connections,
    });
    parts.chain(echoes).collect()
}

/// Runs each scenario short and long, as many at a time as there are processors.
fn profile(program: &Path, scenarios: &[Profiled]) -> io::Result<Vec<[Counted; 2]>> {
    let jobs = scenarios
        .iter()
        .flat_map(|scenario| [scenario.times, 2 * scenario.times].map(|times| (scenario, times)));
    let jobs = Mutex::new(jobs.enumerate());
    let results: Vec<_> = (0..2 * scenarios.len()).map(|_| None).collect();
    let results = Mutex::new(results);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let job = jobs.lock().expect("nobody panics with it").next();
                    let Some((place, (scenario, times))) = job else {
                        break;
                    };
                    let arguments = [scenario.word, scenario.name, &times.to_string()];
                    let counted = Counted::of(program, &arguments);
                    results.lock().expect("nobody panics with it")[place] = Some(counted);
                }
            });
        }
    });
    let results = results.into_inner().expect("nobody panicked with it");
    let counted = results
        .into_iter()
        .map(|result| result.expect("each job was done"));
    let counted: Vec<_> = counted.collect::<io::Result<_>>()?;
    let (pairs, _) = counted.as_chunks::<2>();
    Ok(pairs.to_vec())
}

/// How often requests are counted natively: what a machine that stalls adds is not in the least of them. A count that
/// came twice is taken for the one without; where none does, so many times are enough.
const REPEATS: [usize; 2] = [3, 15];

/// How long one count may take. A server that lost a wake would be waited for without end.
const PATIENCE: Duration = Duration::from_secs(300);

/// Asks a server in a process of its own, and puts what its core counted into the table.
fn ask(
    (processors, patience): (&Processors, Duration),
    program: &Path,
    kind: &Requests,
    table: &mut Table,
) -> io::Result<()> {
    const COUNTED: [(Counter, &str); 7] = [
        (Counter::Allocations, "allocations"),
        (Counter::Turns, "turns"),
        (Counter::Polls, "polls"),
        (Counter::Spawned, "spawned"),
        (Counter::Enters, "enters"),
        (Counter::Submitted, "submitted"),
        (Counter::Completions, "completions"),
    ];
    let mut least = [(f64::INFINITY, 0); COUNTED.len()];
    let rounds = kind.rounds * NATIVELY;
    let [few, many] = REPEATS;
    for repeat in 0..many {
        if repeat >= few && least.iter().all(|&(_, times)| times > 1) {
            break;
        }
        let mut asks = Command::new(program);
        asks.args([ASK, kind.name, &rounds.to_string()]);
        let said = processors.output(None, &mut asks, patience);
        let failed =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", kind.name));
        let text = said.map_err(failed)?;
        for ((least, times), (_, name)) in least.iter_mut().zip(COUNTED) {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|number| number.trim().parse::<f64>().ok());
            let number = number.ok_or_else(|| {
                io::Error::other(format!("{} says no {name}, but: {text}", kind.name))
            })?;
            match number.total_cmp(least) {
                Ordering::Less => (*least, *times) = (number, 1),
                Ordering::Equal => *times += 1,
                Ordering::Greater => {}
            }
        }
    }
    let pieces = f64::from(rounds * kind.connections);
    for ((counter, _), (least, _)) in COUNTED.into_iter().zip(least) {
        table.put(kind.name, counter, least / pieces);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_answer_is_named_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("program");
        let script = "printf '#!/bin/sh\nexec sleep 1000\n' > \"$0\" && chmod 755 \"$0\"";
        let written = Command::new("sh")
            .args(["-c", script])
            .arg(&program)
            .status();
        assert!(written.expect("a shell").success());
        let processors = Processors::here().expect("there are some");
        let patience = Duration::from_millis(20);
        let mut table = Table::default();
        let asked = ask((&processors, patience), &program, &REQUESTS[2], &mut table);
        let error = asked.expect_err("it hangs");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(
            error.to_string().starts_with("http1_1: not done "),
            "{error}"
        );
    }
}
