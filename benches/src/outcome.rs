//! What programs say, and how they end: with 0, or with a line that says what is wrong and 1.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Says on standard error what went wrong in a program, if something did, and returns what it ends with.
pub fn ended(program: &str, outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{program}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says a line on standard error. Whether anybody reads that is no matter of a program that measures.
pub fn complain(what: impl Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// Says something on standard output, at once.
///
/// # Errors
///
/// Those of writing: it may be full, or closed.
pub fn say(text: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let said = write!(out, "{text}").and_then(|()| out.flush());
    said.map_err(|error| io::Error::new(error.kind(), format!("standard output: {error}")))
}
