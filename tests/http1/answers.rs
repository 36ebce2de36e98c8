//! What answers look like: their lengths, their dates, and those that have no body.

use crate::case::{all, cases, ok, refused, status};
use crate::server::BIRTHDAY;

/// A request for this path.
fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
}

/// A request with a body.
fn post(path: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nab").into_bytes()
}

/// A request of the version before, which is kept open.
fn get_1_0(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").into_bytes()
}

/// The same for HEAD, and a request after it.
fn head(path: &str) -> Vec<u8> {
    let after = "GET /after HTTP/1.1\r\nhost: test\r\n\r\n";
    format!("HEAD {path} HTTP/1.1\r\nhost: test\r\n\r\n{after}").into_bytes()
}

fn after() -> crate::case::Want {
    ok("GET /after []")
}

const PIECES: &str = "piece piece piece ";

cases! {
    // --- lengths ---

    "RFC 9110, 8.6" an_answer_says_its_length:
        get("/") => ok("GET / []").has("content-length", "8").and_more();
    "RFC 9112, 6.1" an_answer_without_a_length_comes_in_chunks:
        get("/unmeasured") => ok(PIECES).has("transfer-encoding", "chunked").and_more();
    "RFC 9112, 6.1" version_1_0_gets_no_chunks:
        get_1_0("/unmeasured") => ok(PIECES).lacks("transfer-encoding").and_end();
    "RFC 9112, 6.1" version_1_0_gets_no_chunks_whatever_the_handler_says:
        get_1_0("/coded") => ok(PIECES).lacks("transfer-encoding").and_end();
    "RFC 9112, 6.1" a_coding_of_the_handler_is_said_once:
        get("/coded") => ok(PIECES).has("transfer-encoding", "chunked").and_more();

    "RFC 9110, 6.5.1" trailers_for_who_takes_them:
        "GET /trailing HTTP/1.1\r\nhost: test\r\nte: trailers\r\nconnection: te\r\n\r\n"
        => ok(PIECES).trailer("x-trailer: last").and_more();
    "RFC 9110, 6.5.1" no_trailers_for_who_may_not_take_them: get("/trailing") => ok(PIECES).and_more();
    "RFC 9112, 7.1.2" no_trailers_in_1_0: get_1_0("/trailing") => ok(PIECES).lacks("trailer").and_end();

    // --- HEAD ---

    "RFC 9110, 9.3.2" an_answer_to_head_has_no_body:
        head("/a") => all([ok("").without_body().has("content-length", "10"), after()]);
    "RFC 9110, 9.3.2" an_answer_to_head_without_a_length:
        head("/unmeasured") => all([ok("").without_body(), after()]);
    "RFC 9110, 9.3.2" an_answer_to_head_that_is_none:
        head("/status/404") => all([status(&[404]).without_body(), after()]);
    "RFC 9110, 9.3.2" a_refusal_of_head_has_no_body:
        "HEAD / HTTP/1.1\r\n\r\n" => status(&[400]).without_body().and_end();
    "RFC 9110, 9.3.2" a_failure_at_head_has_no_body:
        head("/fails") => all([status(&[500]).without_body(), after()]);

    // --- answers without a body ---

    "RFC 9110, 15.3.5" no_content: get("/status/204") => status(&[204]).and_more();
    "RFC 9110, 8.6" no_content_says_no_length:
        get("/no-content-with-a-length") => status(&[204]).lacks("content-length").and_more();
    "RFC 9112, 6.1" no_content_says_no_coding:
        get("/no-content-with-a-coding") => status(&[204]).lacks("transfer-encoding").and_more();
    "RFC 9110, 15.3.6" reset_content_has_no_content: get("/status/205") => status(&[205]).body("").and_more();
    "RFC 9112, 9.3" no_content_after_a_body_leaves_the_connection:
        post("/status/204") => status(&[204]).and_more();
    "RFC 9112, 9.3" reset_content_after_a_body_leaves_the_connection:
        post("/status/205") => status(&[205]).body("").lacks("connection").and_more();
    "RFC 9110, 15.4.5" not_modified: get("/status/304") => status(&[304]).and_more();
    "RFC 9110, 15.4.5" not_modified_with_a_length:
        get("/not-modified-with-a-length") => status(&[304]).and_more();

    // --- dates ---

    "RFC 9110, 6.6.1" a_redirection_is_dated: get("/status/301") => status(&[301]).and_more();
    "RFC 9110, 6.6.1" an_error_is_dated: get("/status/404") => status(&[404]).and_more();
    "RFC 9110, 6.6.1" the_date_of_the_handler_is_kept:
        get("/dated") => ok("dated").has("date", BIRTHDAY).and_more();
    "RFC 9110, 6.6.1" what_was_not_understood_is_answered_with_a_date:
        "GET / HTTP/1.1\r\nno colon\r\n\r\n" => refused(&[400]);

    // --- failures ---

    "RFC 9110, 15.6.1" a_handler_that_fails: get("/fails") => status(&[500]).body("").and_more();
    "RFC 9110, 15" a_status_that_nobody_knows: get("/status/299") => status(&[299]).and_more();
    "RFC 9110, 15.2" an_interim_status_ends_nothing: get("/status/103") => status(&[500]).body("").and_more();
}
