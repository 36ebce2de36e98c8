//! A client of others: whether it is here, and what it says.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// What it takes to leave a test out: a partner that answers this.
#[track_caller]
pub(crate) fn has(name: &str, asked: &[&str]) -> bool {
    let found = Command::new(name)
        .args(asked)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        println!("left out: there is no {name} here (.ci/setup installs it)");
    }
    there
}

/// A command that is ended if it has not ended after minutes: a partner that hangs is to fail a test.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120", name]);
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end, which must be a good one, and returns what it said.
#[track_caller]
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}{complaints}",
        output.status
    );
    said
}

/// Runs a script of this suite with arguments, and returns what it said.
#[track_caller]
pub(crate) fn script<S: AsRef<OsStr>>(
    interpreter: &str,
    file: &str,
    arguments: impl IntoIterator<Item = S>,
) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    said(
        command(interpreter)
            .arg(here.join(interpreter.trim_end_matches('3')).join(file))
            .args(arguments),
    )
}
