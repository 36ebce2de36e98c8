//! `Expect: 100-continue`: the client is told to go on when somebody reads, and not otherwise.

use crate::case::{Wire, answered, cases, ok, refused, status};
use crate::server::{self, MAX_BODY};

fn open(name: &'static str) -> Wire {
    Wire::open(name, "RFC 9110, 10.1.1", server::strict())
}

/// A head that waits to be told.
fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    )
}

cases! {
    "RFC 9110, 10.1.1" version_1_0_is_not_told:
        "POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello"
        => ok("POST / [hello]").and_end();
    "RFC 9110, 10.1.1" nobody_is_told_without_a_body:
        "GET / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\n\r\n" => answered("GET / []");
    "RFC 9110, 10.1.1" who_expects_nothing_is_not_told:
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello" => answered("POST / [hello]");
    "RFC 9110, 10.1.1" an_expectation_that_nobody_knows:
        "GET / HTTP/1.1\r\nhost: test\r\nexpect: wonders\r\n\r\n"
        => status(&[200, 417]).and_more().closing_or_not();
    "RFC 9110, 10.1.1" who_is_refused_for_his_host_is_not_told:
        "POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n" => refused(&[400]);
    "RFC 9110, 10.1.1" who_is_refused_for_his_target_is_not_told:
        "POST * HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        => refused(&[400]);
}

#[test]
fn a_client_is_told_when_its_body_is_read() {
    let mut wire = open("a_client_is_told_when_its_body_is_read");
    wire.send(head("/", 5));
    wire.expect(&status(&[100]));
    wire.send("hello");
    wire.expect(&ok("POST / [hello]"));
    wire.goes_on();
}

#[test]
fn a_client_that_sends_chunks_is_told() {
    let mut wire = open("a_client_that_sends_chunks_is_told");
    let fields = "host: test\r\nExpect: 100-Continue\r\ntransfer-encoding: chunked";
    wire.send(format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n"));
    wire.expect(&status(&[100]));
    wire.send("5\r\nhello\r\n0\r\n\r\n");
    wire.expect(&ok("POST / [hello]"));
    wire.goes_on();
}

#[test]
fn a_client_that_does_not_wait_is_told_as_well() {
    let mut wire = open("a_client_that_does_not_wait_is_told_as_well");
    wire.send(head("/", 5) + "hello");
    // The server need not say it once the body is there; ours does.
    wire.expect(&status(&[100]));
    wire.expect(&ok("POST / [hello]"));
    wire.goes_on();
}

/// The client sends no body then, or all of it; the server cannot know which.
#[test]
fn a_client_whose_body_is_not_read_gets_the_answer_and_the_end() {
    let mut wire = open("a_client_whose_body_is_not_read_gets_the_answer_and_the_end");
    wire.send(head("/forbidden", 5));
    wire.expect(&status(&[403]));
    wire.ends();
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let mut wire = open("a_body_that_is_too_large_is_refused_before_it_is_sent");
    wire.send(head("/", MAX_BODY + 1));
    wire.expect(&status(&[413]));
    wire.ends();
}
