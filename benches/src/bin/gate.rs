//! Counts what quoit costs, and fails if that is another than what a file says. See `benches/gate`, which builds it.

use std::alloc::System;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use benches::gate::judge::judge;
use benches::gate::parts::PARTS;
use benches::gate::table::{Conditions, Counter, Table};
use benches::gate::{ASK, DO_PART, REQUESTS, SERVE, count, idle, requests};
use benches::matrix::program::raise_descriptor_limit;
use benches::outcome::{complain, say};
use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Counts what quoit costs, and compares it with what is expected.
#[derive(Parser)]
struct Arguments {
    /// The file that says what is expected.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/gate.txt"))]
    expected: PathBuf,
    /// Writes what was counted to that file; margins stay.
    #[arg(long)]
    accept: bool,
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

/// What the program does when it starts itself.
#[derive(Subcommand)]
enum Scenario {
    #[command(name = DO_PART, hide = true)]
    DoPart { name: String, times: u32 },
    #[command(name = ASK, hide = true)]
    Ask { name: String, rounds: u32 },
    #[command(name = SERVE, hide = true)]
    Serve,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.scenario {
        None => hold(&arguments),
        Some(Scenario::DoPart { name, times }) => do_part(name, *times).map(|()| true),
        Some(Scenario::Ask { name, rounds }) => ask(name, *rounds).map(|()| true),
        Some(Scenario::Serve) => idle::serve().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(format_args!("gate: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Returns whether all is as expected, or accepted.
fn hold(arguments: &Arguments) -> io::Result<bool> {
    let file = &arguments.expected;
    let named = |error: io::Error| {
        let what = format!("{}: {error}", file.display());
        io::Error::new(error.kind(), what)
    };
    // Read before anything is counted, which takes its time.
    let expected = match fs::read_to_string(file) {
        Ok(text) => Table::parse(&text).map_err(named)?,
        Err(error) if error.kind() == ErrorKind::NotFound && arguments.accept => Table::default(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let what = format!("{} is not there: `--accept` writes it", file.display());
            return Err(io::Error::new(ErrorKind::NotFound, what));
        }
        Err(error) => return Err(named(error)),
    };
    if arguments.accept {
        can_write(file).map_err(named)?;
    }
    let descriptors = raise_descriptor_limit()?;
    let program = std::env::current_exe()?;
    let mut taken = count(&program, conditions(&program)?, descriptors)?;
    for note in &taken.notes {
        complain(format_args!("gate: {note}"));
    }
    if arguments.accept {
        if !taken.left_out.is_empty() {
            let what = "not all could be counted, and half a table is not written";
            return Err(io::Error::other(what));
        }
        taken.table.keep_margins(&expected);
        fs::write(file, format!("{HEAD}{}", taken.table)).map_err(named)?;
        say(format_args!("{} is written\n", file.display()))?;
        return Ok(true);
    }
    let (is, was) = (&taken.table.conditions, &expected.conditions);
    if is != was {
        complain(format_args!(
            "gate: instructions are not compared: {} has those of {was}, and these are of {is}",
            file.display()
        ));
        let rows = taken.table.rows.iter().chain(&expected.rows);
        let names = rows.map(|(name, _)| (name.clone(), Counter::Instructions));
        taken.left_out.extend(names);
    }
    let findings = judge(&taken.table, &expected, &taken.left_out);
    if findings.is_empty() {
        let what = if taken.left_out.is_empty() {
            "all"
        } else {
            "all that was compared"
        };
        say(format_args!("gate: {what} is as {} says\n", file.display()))?;
        return Ok(true);
    }
    for finding in &findings {
        complain(finding);
    }
    complain("gate: if that is meant, `benches/gate --accept` writes the new figures down");
    Ok(false)
}

/// Tries whether a file can be written, and leaves it as it was.
fn can_write(file: &Path) -> io::Result<()> {
    if file.exists() {
        return OpenOptions::new().append(true).open(file).map(drop);
    }
    fs::write(file, "")?;
    fs::remove_file(file)
}

const HEAD: &str = "\
# What quoit costs, as far as it can be told without a clock, for each piece of each scenario. Lower is better.
# Written by `benches/gate --accept`, which keeps the margins: those of the columns, and those that figures have
# for themselves.
";

/// Returns under what this program was built, and runs.
fn conditions(program: &Path) -> io::Result<Conditions> {
    let library = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let library = library.map_or_else(
        |_| "unknown".to_owned(),
        |said| String::from_utf8_lossy(&said.stdout).trim().to_owned(),
    );
    Ok(Conditions {
        compiler: compiler(&fs::read(program)?).unwrap_or_else(|| "unknown".to_owned()),
        library,
        build: option_env!("QUOIT_GATE_BUILD")
            .unwrap_or("by hand")
            .to_owned(),
    })
}

/// Finds what the compiler writes into each program.
fn compiler(program: &[u8]) -> Option<String> {
    let words = b"rustc version ";
    let places = program.windows(words.len()).enumerate();
    let mut after = places
        .filter(|(_, window)| window == words)
        .map(|(at, _)| &program[at + words.len()..]);
    // The words stand above as well, without a number behind them.
    let version = after.find(|after| after.first().is_some_and(u8::is_ascii_digit))?;
    let version = version.split(|&byte| byte == 0).next()?;
    Some(format!("rustc {}", String::from_utf8_lossy(version)))
}

fn unknown(name: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        format!("there is no scenario {name:?}"),
    )
}

fn do_part(name: &str, times: u32) -> io::Result<()> {
    let part = PARTS.iter().find(|part| part.name == name);
    (part.ok_or_else(|| unknown(name))?.run)(times);
    Ok(())
}

fn ask(name: &str, rounds: u32) -> io::Result<()> {
    let kind = REQUESTS.iter().find(|kind| kind.name == name);
    let kind = kind.ok_or_else(|| unknown(name))?;
    let (before, after) = requests::run(kind.protocol, kind.connections, rounds, || {
        let stats = ALLOCATOR.stats();
        (stats.allocations + stats.reallocations) as u64
    })?;
    let allocations = after.allocations - before.allocations;
    say(format_args!("allocations {allocations}\n"))?;
    for ((name, before), (_, after)) in before.core.named().zip(after.core.named()) {
        // Those that only grow.
        say(format_args!(
            "{name} {}\n",
            after.wrapping_sub(before) as i64
        ))?;
    }
    Ok(())
}
