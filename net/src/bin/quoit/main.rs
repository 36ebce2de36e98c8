//! The program `quoit`: serves a folder on every core, and says what this machine offers.

mod access_log;
mod answer;
mod arguments;
mod body;
mod files;
mod serve;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use arguments::Arguments;
use clap::{Parser, Subcommand};
use quoit::CoreId;
use quoit_net::stdio;

/// A server on io_uring: one pinned thread and one ring per core.
#[derive(Parser)]
#[command(name = "quoit", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a folder over HTTP/1.1 and HTTP/2; the default
    Serve(Box<Arguments>),
    /// Says what this machine offers, and what is missing
    Doctor,
}

fn main() -> ExitCode {
    let command = Cli::parse()
        .command
        .unwrap_or_else(|| Command::Serve(Box::default()));
    let outcome = match command {
        Command::Serve(arguments) => {
            complain_of_panics();
            serve::run(*arguments).map(|()| ExitCode::SUCCESS)
        }
        Command::Doctor => doctor(),
    };
    let code = outcome.unwrap_or_else(|error| {
        complain(format_args!("{error}"));
        ExitCode::FAILURE
    });
    for stream in [stdio::stdout(), stdio::stderr()] {
        // Nobody is left to be told.
        let _is_said = stream.flush(LAST_WORDS);
    }
    code
}

/// How long the end of the program waits for each of those who read what it says.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Says on standard error what is wrong. Whoever reads that, or does not, holds up nothing.
fn complain(what: fmt::Arguments<'_>) {
    stdio::stderr().write(format!("quoit: {what}\n"));
}

/// Has panics told as complaints are: the hook of the standard library would have a core wait.
fn complain_of_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let trace = Backtrace::capture();
        let name = thread.name().unwrap_or("without a name");
        complain(format_args!("thread {name:?} {panic}"));
        if trace.status() == BacktraceStatus::Captured {
            complain(format_args!("{trace}"));
        }
        if CoreId::current().is_none() {
            // It may be the program's last word.
            let _is_said = stdio::stderr().flush(LAST_WORDS);
        }
    }));
}

fn doctor() -> io::Result<ExitCode> {
    let report = quoit::doctor::examine();
    writeln!(io::stdout(), "{report}")?;
    Ok(if report.is_usable() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
