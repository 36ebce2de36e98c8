//! The gate as a program: what it says of files, and what it does without valgrind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

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
