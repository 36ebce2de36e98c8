//! Whether a connection goes on after an answer, and in which order answers come.

use crate::case::{Wire, all, answered, cases, ok, status};
use crate::server;

/// A request with this field.
fn with(version: &str, field: &str) -> Vec<u8> {
    format!("GET /a {version}\r\nhost: test\r\n{field}\r\n").into_bytes()
}

/// A request with this field, and one after it.
fn two(version: &str, field: &str) -> Vec<u8> {
    let mut two = with(version, field);
    two.extend_from_slice(b"GET /b HTTP/1.1\r\nhost: test\r\n\r\n");
    two
}

const ANSWER: &str = "GET /a []";

cases! {
    "RFC 9112, 9.3" version_1_1_goes_on: with("HTTP/1.1", "") => answered(ANSWER);
    "RFC 9112, 9.3" version_1_1_goes_on_as_it_says:
        with("HTTP/1.1", "connection: keep-alive\r\n") => answered(ANSWER);
    "RFC 9112, 9.3" version_1_0_ends: with("HTTP/1.0", "") => ok(ANSWER).and_end();
    "RFC 9112, 9.3" version_1_0_goes_on_when_it_says_so:
        with("HTTP/1.0", "connection: keep-alive\r\n")
        => ok(ANSWER).has("connection", "keep-alive").and_more();
    "RFC 9112, 9.3" version_1_0_goes_on_when_it_says_so_in_capitals:
        with("HTTP/1.0", "Connection: Keep-Alive\r\n") => answered(ANSWER);
    "RFC 9112, 9.6" close: with("HTTP/1.1", "connection: close\r\n")
        => ok(ANSWER).has("connection", "close").and_end();
    "RFC 9112, 9.6" close_in_capitals: with("HTTP/1.1", "Connection: CLOSE\r\n")
        => ok(ANSWER).and_end();
    "RFC 9112, 9.6" close_at_the_end_of_a_list:
        with("HTTP/1.1", "connection: x-field, close\r\n") => ok(ANSWER).and_end();
    "RFC 9110, 5.6.1" close_among_empty_elements:
        with("HTTP/1.1", "connection: , ,close,\r\n") => ok(ANSWER).and_end();
    "RFC 9112, 9.6" close_on_another_line:
        with("HTTP/1.1", "connection: x-field\r\nconnection: close\r\n") => ok(ANSWER).and_end();
    "RFC 9112, 9.6" close_is_stronger_than_keep_alive:
        with("HTTP/1.1", "connection: close, keep-alive\r\n") => ok(ANSWER).and_end();
    "RFC 9112, 9.6" close_is_stronger_than_a_later_keep_alive:
        with("HTTP/1.1", "connection: close\r\nconnection: keep-alive\r\n") => ok(ANSWER).and_end();
    "RFC 9112, 9.6" close_in_1_0:
        with("HTTP/1.0", "connection: close\r\n") => ok(ANSWER).and_end();
    "RFC 9110, 7.6.1" a_name_that_begins_like_close:
        with("HTTP/1.1", "connection: closed\r\n") => answered(ANSWER);
    "RFC 9112, 9.6" nothing_is_answered_after_close:
        two("HTTP/1.1", "connection: close\r\n") => ok(ANSWER).and_end();
    "RFC 9112, 9.3" nothing_is_answered_after_1_0: two("HTTP/1.0", "") => ok(ANSWER).and_end();
    "RFC 9112, 9.3.2" requests_sent_at_once: two("HTTP/1.1", "") => all([ok(ANSWER), ok("GET /b []")]);
    "RFC 9112, 9.3.2" requests_with_bodies_sent_at_once:
        "POST /a HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nabPOST /b HTTP/1.1\r\nhost: test\r\n\
         transfer-encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\nGET /d HTTP/1.1\r\nhost: test\r\n\r\n"
        => all([ok("POST /a [ab]"), ok("POST /b [c]"), ok("GET /d []")]);
    "RFC 9112, 9.3.2" a_refusal_comes_after_the_answers_before_it:
        "GET /a HTTP/1.1\r\nhost: test\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\nhost: test\r\n\r\n"
        => all([ok(ANSWER), status(&[400])]).closing();
    "RFC 9112, 9.3.2" nonsense_comes_after_the_answers_before_it:
        "GET /a HTTP/1.1\r\nhost: test\r\n\r\n\0\r\n\r\nGET /c HTTP/1.1\r\nhost: test\r\n\r\n"
        => all([ok(ANSWER), status(&[400])]).closing();
    "RFC 9112, 9.3" a_body_that_is_left_is_no_request:
        "POST /unread HTTP/1.1\r\nhost: test\r\ncontent-length: 36\r\n\r\n\
         GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n"
        => status(&[200]).body("unread").and_more().closing_or_not();
    "RFC 9110, 7.8" an_upgrade_that_is_not_known:
        with("HTTP/1.1", "connection: upgrade\r\nupgrade: another/2\r\n")
        => ok(ANSWER).and_more();
    "RFC 9110, 7.8" an_upgrade_in_1_0:
        with("HTTP/1.0", "connection: upgrade\r\nupgrade: another/2\r\n") => ok(ANSWER).and_end();
    "RFC 9113, 3.1" an_upgrade_to_version_2_is_not_taken:
        with("HTTP/1.1", "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n")
        => ok(ANSWER).and_more();
}

/// A head is complete with its last byte, and not before.
#[test]
fn a_request_that_comes_byte_by_byte() {
    let name = "a_request_that_comes_byte_by_byte";
    let mut wire = Wire::open(name, "RFC 9112, 2.2", server::strict());
    let request =
        "POST /a HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in request.bytes() {
        wire.send([byte]);
    }
    wire.expect(&ok("POST /a [abc]"));
    wire.goes_on();
}

/// What is wrong is wrong in whatever pieces it comes.
#[test]
fn a_refused_request_that_comes_byte_by_byte() {
    let name = "a_refused_request_that_comes_byte_by_byte";
    let mut wire = Wire::open(name, "RFC 9112, 3.2", server::strict());
    for byte in "GET /a HTTP/1.1\r\nhost: te st\r\n\r\n".bytes() {
        wire.send([byte]);
    }
    wire.expect(&status(&[400]));
    wire.ends();
}
