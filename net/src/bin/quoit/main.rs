//! The program `quoit`: serves a folder on every core, and says what this machine offers.

mod access_log;
mod answer;
mod arguments;
mod body;
mod files;
mod serve;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use arguments::Arguments;
use clap::{Parser, Subcommand};

/// A server on io_uring: one pinned thread and one ring per core.
#[derive(Parser)]
#[command(version)]
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
        Command::Serve(arguments) => serve::run(*arguments).map(|()| ExitCode::SUCCESS),
        Command::Doctor => doctor(),
    };
    outcome.unwrap_or_else(|error| {
        complain(format_args!("{error}"));
        ExitCode::FAILURE
    })
}

/// Says on standard error what is wrong. That nobody reads it any more is no reason to end anything, as
/// `eprintln!` would have it.
fn complain(what: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("quoit: {what}\n").as_bytes());
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
