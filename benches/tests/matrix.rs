//! The matrix as a program: what it refuses, what it says of failures, and what it leaves behind.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Returns the command that runs the matrix without the others.
fn matrix(program: &Path, arguments: &[&str]) -> Command {
    let mut matrix = Command::new(program);
    if !arguments.contains(&"--comparators") {
        matrix.args(["--comparators", "/nowhere"]);
    }
    matrix.args(arguments);
    matrix
}

fn run(arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    matrix(program, arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_cannot_be_measured_is_refused_at_once_and_says_why() {
    let only = ["--only", "echo-c64-d16"];
    for (arguments, told) in [
        (&["--rounds", "0"][..], "0 is not in 1..=1000"),
        (&["--seconds", "0"], "--seconds is between 0.1 and 3600"),
        (&["--seconds", "nan"], "--seconds is between 0.1 and 3600"),
        (&["--server-core", "1"], "name two"),
        (
            &["--server-core", "4096"],
            "--server-core: processor 4096 is not among",
        ),
        (
            &["--load-core", "4096"],
            "--load-core: processor 4096 is not among",
        ),
        (
            &["--only", "no-such"],
            "no scenario has \"no-such\" in its name",
        ),
        (
            &["--json", "/nowhere/rounds.json"],
            "/nowhere/rounds.json cannot be written",
        ),
        (&["--html", "/"], "/ cannot be written"),
    ] {
        let said = run(&[&only, arguments].concat());
        let complaint = text(&said.stderr);
        assert!(!said.status.success(), "{arguments:?}");
        assert!(complaint.contains(told), "{arguments:?}: {complaint}");
        assert!(
            said.stdout.is_empty(),
            "{arguments:?}: {}",
            text(&said.stdout)
        );
    }
}

#[test]
fn one_report_is_written_whatever_becomes_of_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("report.html");
    let arguments = [
        "--only",
        "micro-check",
        "--rounds",
        "1",
        "--json",
        "/dev/full",
        "--html",
    ];
    let said = run(&[&arguments[..], &[page.to_str().expect("text")]].concat());
    let complaint = text(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.contains("/dev/full cannot be written"),
        "{complaint}"
    );
    let page = fs::read_to_string(page).expect("it is written");
    assert!(
        page.contains("Part: check") && page.contains("1 round of"),
        "{page}"
    );
}

#[test]
fn nobody_who_reads_is_an_error_and_no_panic() {
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("Linux");
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    let said = matrix(program, &["--list"]).stdout(full).output();
    let said = said.expect("it runs");
    assert_eq!(said.status.code(), Some(1));
    let complaint = text(&said.stderr);
    assert!(
        complaint.starts_with("matrix: standard output: "),
        "{complaint}"
    );
}

#[test]
fn reports_are_written_though_nobody_reads_what_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let rounds = folder.path().join("rounds.json");
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("Linux");
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    let only = ["--only", "micro-check", "--rounds", "1"];
    let mut matrix = matrix(program, &only);
    matrix.arg("--json").arg(&rounds).stdout(full);
    let said = matrix.output().expect("it runs");
    assert_eq!(said.status.code(), Some(1));
    let complaint = text(&said.stderr);
    assert!(
        complaint.contains("matrix: standard output: "),
        "{complaint}"
    );
    let rounds = fs::read_to_string(rounds).expect("it is written");
    assert!(rounds.contains("\"name\": \"micro-check\""), "{rounds}");
}

#[test]
fn a_part_that_this_machine_does_not_have_is_no_failure_of_quoit() {
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    let part = ["--only", "read_4k_direct_qd1", "--rounds", "1"];
    let mut matrix = matrix(program, &part);
    // It lies in memory, as the usual folder of temporary files does on many machines.
    let said = matrix.env("TMPDIR", "/dev/shm").output().expect("it runs");
    assert_eq!(said.status.code(), Some(1));
    assert_eq!(
        text(&said.stderr),
        "matrix: micro-read_4k_direct_qd1 cannot be measured here: /dev/shm lies in memory: name another TMPDIR\n"
    );
}

#[test]
fn a_program_that_cannot_say_its_parts_is_asked_once_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = folder.path().join("micro-tokio");
    write(
        &peer,
        r#"printf '#!/bin/sh\necho asked >> "$0.log"; exit 3\n'"#,
    );
    let said = run(&[
        "--only",
        "micro-check",
        "--only",
        "micro-yield_1",
        "--rounds",
        "1",
        "--comparators",
        folder.path().to_str().expect("text"),
    ]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    let told = text(&said.stdout);
    assert!(
        told.contains("left out: tokio in all parts: exit status: 3"),
        "{told}"
    );
    let asked = fs::read_to_string(folder.path().join("micro-tokio.log"));
    assert_eq!(asked.expect("it was asked"), "asked\n");
}

#[test]
fn two_reports_are_two_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let [report, same] = ["report", "same"].map(|name| folder.path().join(name));
    fs::write(&report, "").expect("a file");
    symlink(&report, &same).expect("a link");
    let said = run(&[
        "--only",
        "micro-check",
        "--rounds",
        "1",
        "--json",
        report.to_str().expect("text"),
        "--html",
        same.to_str().expect("text"),
    ]);
    assert_eq!(said.status.code(), Some(1));
    let complaint = text(&said.stderr);
    assert!(
        complaint.contains("cannot be two reports: name two files"),
        "{complaint}"
    );
}

/// Writes a program that a shell prints. Another process does it: one that is open for writing cannot be run, and what
/// this one has open, others inherit for a moment.
fn write(program: &Path, prints: &str) {
    let script = format!("{prints} > \"$0\" && chmod 755 \"$0\"");
    let mut shell = Command::new("sh");
    shell.env("MATRIX", env!("CARGO_BIN_EXE_matrix"));
    let written = shell.arg("-c").arg(script).arg(program).status();
    assert!(written.expect("a shell").success());
}

/// A round of one scenario, of so many seconds.
fn one_round(seconds: &str) -> [&str; 6] {
    [
        "--only",
        "echo-c64-d16",
        "--rounds",
        "1",
        "--seconds",
        seconds,
    ]
}

#[test]
fn a_failure_of_quoit_is_told_and_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let [program, server] = ["matrix", "echo"].map(|name| folder.path().join(name));
    write(&program, "cat \"$MATRIX\"");
    let arguments = one_round("0.1");
    let missing = matrix(&program, &arguments).output().expect("it runs");
    let complaint = text(&missing.stderr);
    assert!(
        complaint.contains("echo is not built: `cargo build"),
        "{complaint}"
    );

    write(&server, "printf '#!/bin/sh\\necho no ring >&2; exit 3\\n'");
    let load = folder.path().join("echo_load");
    symlink(env!("CARGO_BIN_EXE_echo_load"), load).expect("a link");
    let said = matrix(&program, &arguments).output().expect("it runs");
    assert_eq!(said.status.code(), Some(1));
    let (told, complaint) = (text(&said.stdout), text(&said.stderr));
    let why = "failed: the server does not listen: exit status: 3: no ring";
    assert!(told.contains(why), "{told}");
    assert!(
        complaint.contains("quoit failed in echo-c64-d16"),
        "{complaint}"
    );
}

/// Returns the children of a process, with their names.
fn children(process: u32) -> Vec<(i32, String)> {
    let listed = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let listed = listed.expect("the kernel lists them");
    let numbers = listed
        .split_whitespace()
        .map(|number| number.parse().expect("a number"));
    numbers
        .map(|number: i32| {
            let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
            (number, name.trim().to_owned())
        })
        .collect()
}

#[test]
fn a_matrix_that_is_killed_leaves_nothing_behind() {
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    let arguments = one_round("600");
    let mut running = matrix(program, &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let all = loop {
        let all = children(running.id());
        if all.iter().any(|(_, name)| name == "echo_load") {
            break all;
        }
        assert!(
            running.try_wait().expect("it is ours").is_none(),
            "it has ended"
        );
        thread::yield_now();
    };
    let names: Vec<_> = all.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["sh", "echo", "echo_load"]);
    let handles: Vec<_> = all
        .iter()
        .map(|(number, _)| {
            let number = Pid::from_raw(*number).expect("a number");
            pidfd_open(number, PidfdFlags::empty()).expect("it runs")
        })
        .collect();
    running.kill().expect("it runs");
    running.wait().expect("it is ours");
    let patience = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    for (handle, name) in handles.iter().zip(names) {
        let mut polled = [PollFd::new(handle, PollFlags::IN)];
        assert_eq!(poll(&mut polled, Some(&patience)), Ok(1), "{name} goes on");
    }
}
