//! How the program ends: in order at the first signal, at once at the second.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;

use tempfile::TempDir;
use tests::http_client::{Client, Head, nobody_listens, until};

use crate::program::{Program, folder};

const LARGE: u64 = 64 << 20;

/// A program with a request open: more than fits into any socket is asked for, and only the head
/// of the answer was read.
fn with_an_open_request(options: &[&str]) -> (TempDir, Program, Client, Head) {
    let root = folder();
    let file = File::create(root.path().join("large")).expect("a new file");
    file.set_len(LARGE).expect("a hole costs nothing");
    let program = Program::serving(root.path(), options);
    let mut client = Client::connect_narrow(program.address());
    client.ask("GET", "/large", "");
    let head = client.head();
    assert_eq!(head.status, 200);
    (root, program, client, head)
}

/// Options of a program that has all the time in the world.
const PATIENT: &[&str] = &["--grace", "3600", "--stall-timeout", "3600"];

#[test]
fn the_first_signal_ends_it_in_order() {
    for signal in ["TERM", "INT"] {
        let root = folder();
        let mut program = Program::serving(root.path(), &[]);
        assert_eq!(program.client().get("/").status(), 200);
        program.signal(signal);
        let line = program.next_line();
        assert!(line.starts_with(&format!("SIG{signal}: ")), "{line}");
        let end = program.end();
        assert_eq!(end.status.code(), Some(0), "{signal}");
        assert!(end.said.contains(" 0 cut"), "{}", end.said);
    }
}

#[test]
fn an_open_request_is_finished_before_the_end() {
    for signal in ["TERM", "INT"] {
        let (_root, mut program, mut client, head) = with_an_open_request(PATIENT);
        program.signal(signal);
        let line = program.next_line();
        assert!(line.starts_with(&format!("SIG{signal}: ")), "{line}");
        let address = program.address();
        until(|| nobody_listens(address));
        let size = client.body(&head, |bytes| assert!(bytes.iter().all(|&byte| byte == 0)));
        assert_eq!(size.expect("a whole answer"), LARGE);
        client.ends();
        drop(client);
        let end = program.end();
        assert_eq!(end.status.code(), Some(0), "{signal}");
        assert!(
            end.said.contains("1 connections finished, 0 cut"),
            "{}",
            end.said
        );
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let (_root, mut program, mut client, head) = with_an_open_request(PATIENT);
        program.signal(first);
        let line = program.next_line();
        assert!(line.contains("once more to end at once"), "{line}");
        program.signal(second);
        let end = program.end();
        assert_eq!(end.status.signal(), None, "it ends by itself");
        assert_eq!(end.status.code(), Some(130), "{first}, {second}");
        let _ = client.body(&head, |_| {}).expect_err("the answer is cut");
    }
}

#[test]
fn a_request_that_outlasts_the_grace_period_is_cut() {
    let options = &["--grace", "1", "--stall-timeout", "3600"];
    let (_root, program, mut client, head) = with_an_open_request(options);
    program.signal("TERM");
    let end = program.end();
    assert_eq!(end.status.code(), Some(0));
    assert!(
        end.said.contains("0 connections finished, 1 cut"),
        "{}",
        end.said
    );
    let _ = client.body(&head, |_| {}).expect_err("the answer is cut");
}

#[test]
fn a_reader_that_stalls_is_let_go_while_others_are_served() {
    let options = &["--stall-timeout", "1"];
    let (_root, program, mut client, head) = with_an_open_request(options);
    let mut other = program.client();
    assert_eq!(other.get("/").status(), 200);
    let before = program.descriptors();
    until(|| {
        assert_eq!(other.get("/").status(), 200);
        // The connection and the file.
        program.descriptors() <= before - 2
    });
    let _ = client.body(&head, |_| {}).expect_err("the answer is cut");
}
