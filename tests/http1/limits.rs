//! What is too large or too late is refused with the status that says so.

use std::time::Duration;

use crate::case::{Wire, answered, cases, refused, status};
use crate::server::{self, MAX_BODY, MAX_HEAD};

/// A request with this line among its fields.
fn with(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nhost: test\r\n{lines}\r\n").into_bytes()
}

/// A request with a body of so many bytes.
fn body(size: usize) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {size}\r\n\r\n");
    format!("{head}{}", "x".repeat(size)).into_bytes()
}

/// A request with a body of one chunk of so many bytes.
fn chunk(size: usize) -> Vec<u8> {
    let head = "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    format!("{head}{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size)).into_bytes()
}

/// A request with a target of so many bytes.
fn target(size: usize) -> Vec<u8> {
    let path = "x".repeat(size - 1);
    format!("GET /{path} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
}

cases! {
    "RFC 9112, 3" a_target_of_8000_bytes:
        target(8000) => answered(&format!("GET /{} []", "x".repeat(7999)));
    "RFC 9112, 3" a_target_past_the_limit: target(2 * MAX_HEAD) => refused(&[414]);
    "RFC 9112, 3" a_target_far_past_the_limit: target(100 * MAX_HEAD) => refused(&[414]);
    "RFC 9112, 3" a_long_target_after_a_request:
        [with(""), target(2 * MAX_HEAD)].concat()
        => crate::case::all([status(&[200]), status(&[414, 431])]).closing();
    "RFC 6585, 5" a_field_past_the_limit:
        with(&format!("x-field: {}\r\n", "x".repeat(2 * MAX_HEAD))) => refused(&[431]);
    "RFC 6585, 5" a_name_past_the_limit:
        with(&format!("{}: a\r\n", "x".repeat(2 * MAX_HEAD))) => refused(&[431]);
    "RFC 6585, 5" fields_past_the_limit:
        with(&"x-field: a\r\n".repeat(MAX_HEAD / 4)) => refused(&[431]);
    "RFC 6585, 5" more_fields_than_are_taken: with(&"x: y\r\n".repeat(200)) => refused(&[431]);
    "RFC 6585, 5" one_field_more_than_is_taken: with(&"x: y\r\n".repeat(100)) => refused(&[431]);
    "RFC 6585, 5" as_many_fields_as_are_taken: with(&"x: y\r\n".repeat(99)) => answered("GET / []");
    "RFC 9110, 15.5.14" a_body_of_the_largest_size:
        chunk(MAX_BODY) => answered(&format!("POST / [{}]", "x".repeat(MAX_BODY)));
    "RFC 9110, 15.5.14" a_length_past_the_limit: body(MAX_BODY + 1) => refused(&[413]);
    "RFC 9110, 15.5.14" chunks_past_the_limit: chunk(MAX_BODY + 1) => refused(&[413]);
}

/// The line is measured from where it begins, after whatever was asked and answered before.
#[test]
fn a_long_target_after_an_answer() {
    for before in [0, MAX_HEAD / 2, MAX_BODY] {
        for (next, expected) in [
            (target(2 * MAX_HEAD), 414),
            (with(&"x-field: a\r\n".repeat(MAX_HEAD / 4)), 431),
            (with("no colon\r\n"), 400),
        ] {
            let name = "a_long_target_after_an_answer";
            let mut wire = Wire::open(name, "RFC 9112, 3", server::strict());
            wire.send(body(before));
            wire.expect(&status(&[200]));
            wire.goes_on();
            wire.send(next);
            wire.expect(&status(&[expected]));
            wire.ends();
        }
    }
}

#[test]
fn a_body_that_does_not_come_is_given_up_with_408() {
    let builder = server::builder().body_timeout(Duration::from_millis(20));
    let impatient = builder.serve(server::answer).expect("a server");
    let name = "a_body_that_does_not_come_is_given_up_with_408";
    let mut wire = Wire::open(name, "RFC 9110, 15.5.9", impatient.local_addr());
    wire.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhel");
    wire.expect(&status(&[408]).has("connection", "close"));
    wire.ends();
}

#[test]
fn a_head_that_does_not_come_is_the_end() {
    let builder = server::builder().head_timeout(Duration::from_millis(20));
    let impatient = builder.serve(server::answer).expect("a server");
    let name = "a_head_that_does_not_come_is_the_end";
    let mut wire = Wire::open(name, "RFC 9112, 9.5", impatient.local_addr());
    wire.send("GET / HTTP/1.1\r\nhost:");
    wire.ends();
}
