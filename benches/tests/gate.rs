//! The gate as a program: what it says of files, and what it does without valgrind.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Runs the gate where there is no other program than it.
fn gate(expected: &Path, arguments: &[&str]) -> Output {
    let nothing = tempfile::tempdir().expect("a folder");
    let mut gate = Command::new(env!("CARGO_BIN_EXE_gate"));
    gate.env("PATH", nothing.path()).args(arguments);
    gate.arg("--expected").arg(expected);
    gate.output().expect("it runs")
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_broken_file_is_told_before_anything_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("expected");
    fs::write(&file, "scenario turns\nhttp1_1 two\n").expect("room");
    // Neither compared with, nor written over.
    for arguments in [&[][..], &["--accept"]] {
        let said = gate(&file, arguments);
        assert_eq!(said.status.code(), Some(2));
        let told = complaint(&said);
        let what = "expected: line 2: http1_1, turns: \"two\" is no figure";
        assert!(told.contains(what), "{told}");
        let text = fs::read_to_string(&file).expect("it is there");
        assert!(text.ends_with("two\n"), "{text}");
    }
}

#[test]
fn a_file_that_is_not_there_can_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = gate(&folder.path().join("expected"), &[]);
    assert_eq!(said.status.code(), Some(2));
    let told = complaint(&said);
    assert!(told.contains("`--accept` writes it"), "{told}");
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_anything_is_counted() {
    let said = gate(Path::new("/nowhere/expected"), &["--accept"]);
    assert_eq!(said.status.code(), Some(2));
    let told = complaint(&said);
    assert!(told.starts_with("gate: /nowhere/expected: "), "{told}");
    assert!(!told.contains("valgrind"), "{told}");
}

#[test]
fn without_valgrind_the_rest_is_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("expected");
    let text = "scenario turns instructions\nhttp1_1 9 -\nno_more 1 -\ncheck - 5\n";
    fs::write(&file, text).expect("room");
    let said = gate(&file, &[]);
    let told = complaint(&said);
    assert_eq!(said.status.code(), Some(1), "{told}");
    for what in [
        "valgrind is not installed",
        // What the file says of it is nothing.
        "these are of rustc 1.",
        "no_more: turns are expected and were not counted",
        "http2_1: turns are new, nothing is expected",
        "`benches/gate --accept` writes the new figures down",
    ] {
        assert!(told.contains(what), "{told}");
    }
    assert!(!told.contains("check"), "valgrind would count that: {told}");
    // Two turns a request: one that reads and answers, and one that takes what was sent. A machine that stalls ends
    // turns early, and there are more.
    let turns = told
        .lines()
        .find_map(|line| line.strip_prefix("http1_1: ")?.split_once(" turns, "));
    let (turns, judged) = turns.expect("turns are compared");
    let turns: f64 = turns.parse().expect("a figure");
    assert!((2.0..9.0).contains(&turns), "{told}");
    assert!(judged.starts_with("was 9 (better: -"), "{told}");
    assert!(judged.ends_with(" %, margin 1 %)"), "{told}");

    let said = gate(&file, &["--accept"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(complaint(&said).contains("half a table is not written"));
    assert_eq!(fs::read_to_string(&file).expect("it is there"), text);
}

/// Returns the number of a process that has left a file `valgrind.number` in a folder, if one has.
fn begun(folder: &Path) -> Option<i32> {
    let mut entries = fs::read_dir(folder).expect("it is there");
    entries.find_map(|entry| {
        let name = entry.expect("it is listed").file_name();
        name.to_str()?.strip_prefix("valgrind.")?.parse().ok()
    })
}

#[test]
fn what_ends_the_gate_and_its_group_ends_what_it_started() {
    // A valgrind that does not end by itself.
    const FOLDER: &str = r#"
cd "$0" && ln -s "$(command -v timeout)" "$(command -v sleep)" . &&
printf '#!/bin/sh\n[ "$1" = --version ] || { : > "$0.$$"; exec sleep 1000; }\n' > valgrind &&
chmod 755 valgrind
"#;
    let folder = tempfile::tempdir().expect("a folder");
    let mut shell = Command::new("sh");
    let written = shell.args(["-c", FOLDER]).arg(folder.path()).status();
    assert!(written.expect("a shell").success());
    let mut gate = Command::new(env!("CARGO_BIN_EXE_gate"));
    gate.env("PATH", folder.path()).process_group(0);
    gate.stdout(Stdio::null()).stderr(Stdio::null());
    let mut gate = gate.spawn().expect("it runs");
    let valgrind = loop {
        if let Some(number) = begun(folder.path()) {
            break Pid::from_raw(number).expect("a number");
        }
        assert!(
            gate.try_wait().expect("it is ours").is_none(),
            "it has ended"
        );
        thread::yield_now();
    };
    let valgrind = pidfd_open(valgrind, PidfdFlags::empty()).expect("it runs");
    kill_process_group(Pid::from_child(&gate), Signal::TERM).expect("it runs");
    gate.wait().expect("it is ours");
    let mut polled = [PollFd::new(&valgrind, PollFlags::IN)];
    let patience = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut polled, Some(&patience)),
        Ok(1),
        "valgrind goes on"
    );
}
