//! How programs end: with 0, or with a line that says what is wrong and 1.

use std::fmt::Display;
use std::process::ExitCode;

/// Says on standard error what went wrong in a program, if something did, and returns what it ends with.
pub fn ended(program: &str, outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}
