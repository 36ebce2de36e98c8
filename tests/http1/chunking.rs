//! Bodies in chunks.

use crate::case::{all, answered, cases, ok, refused, silence, status};
use crate::server::MAX_BODY;

/// A request with this for its body.
fn chunks(body: &str) -> Vec<u8> {
    to("/", body)
}

/// A request to this path with this for its body.
fn to(path: &str, body: &str) -> Vec<u8> {
    let head = "HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    format!("POST {path} {head}{body}").into_bytes()
}

cases! {
    // --- what is one ---

    "RFC 9112, 7.1" no_chunk: chunks("0\r\n\r\n") => answered("POST / []");
    "RFC 9112, 7.1" one_chunk: chunks("5\r\nhello\r\n0\r\n\r\n") => answered("POST / [hello]");
    "RFC 9112, 7.1" two_chunks:
        chunks("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n") => answered("POST / [hello world]");
    "RFC 9112, 7.1" line_ends_in_a_chunk:
        chunks("7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n") => answered("POST / [\r\n0\r\n\r\n]");
    "RFC 9112, 7.1" a_size_in_small_letters:
        chunks("a\r\n0123456789\r\n0\r\n\r\n") => answered("POST / [0123456789]");
    "RFC 9112, 7.1" a_size_in_capitals:
        chunks("A\r\n0123456789\r\n0\r\n\r\n") => answered("POST / [0123456789]");
    "RFC 9112, 7.1" a_size_that_begins_with_zeros:
        chunks("0005\r\nhello\r\n000\r\n\r\n") => answered("POST / [hello]");
    "RFC 9112, 7.1" a_request_after_chunks:
        chunks("5\r\nhello\r\n0\r\n\r\nGET /b HTTP/1.1\r\nhost: test\r\n\r\n")
        => all([ok("POST / [hello]"), ok("GET /b []")]);

    // --- extensions ---

    "RFC 9112, 7.1.1" an_extension:
        chunks("5;name\r\nhello\r\n0\r\n\r\n") => answered("POST / [hello]");
    "RFC 9112, 7.1.1" an_extension_with_a_value:
        chunks("5;name=value\r\nhello\r\n0;last\r\n\r\n") => answered("POST / [hello]");
    "RFC 9112, 7.1.1" an_extension_with_a_quoted_value:
        chunks("5;name=\"a;b\"\r\nhello\r\n0\r\n\r\n") => answered("POST / [hello]");
    "RFC 9112, 7.1.1" an_extension_in_white_space:
        chunks("5 ; name = value\r\nhello\r\n0\r\n\r\n") => answered("POST / [hello]");
    "RFC 9112, 7.1.1" an_extension_without_end:
        chunks(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(MAX_BODY))) => refused(&[400]);
    "RFC 9112, 2.2" a_line_feed_in_an_extension:
        chunks("5;name\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 2.2" a_carriage_return_in_an_extension:
        chunks("5;na\rme\r\nhello\r\n0\r\n\r\n") => refused(&[400]);

    // --- what is no size ---

    "RFC 9112, 7.1" no_size: chunks("\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" an_extension_without_a_size: chunks(";a\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_size_with_a_plus: chunks("+5\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_size_with_a_minus: chunks("-5\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_size_with_a_prefix: chunks("0x5\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_size_of_other_letters: chunks("g\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_size_of_two_numbers: chunks("5 5\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_size_with_an_underscore: chunks("0_5\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_space_before_a_size: chunks(" 5\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_size_in_quotes: chunks("\"5\"\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_size_that_overflows:
        chunks("10000000000000005\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_size_of_forty_digits:
        chunks(&format!("{}\r\nhello\r\n0\r\n\r\n", "f".repeat(40))) => refused(&[400]);

    // --- lines that end otherwise ---

    "RFC 9112, 7.1" a_line_feed_after_a_size: chunks("5\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_carriage_return_after_a_size:
        chunks("5\rhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_line_feed_after_a_chunk: chunks("5\r\nhello\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_carriage_return_after_a_chunk:
        chunks("5\r\nhello\r0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" nothing_after_a_chunk: chunks("5\r\nhello0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_chunk_longer_than_its_size:
        chunks("5\r\nhello world\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_chunk_shorter_than_its_size:
        chunks("9\r\nhello\r\n0\r\n\r\n") => refused(&[400]);
    "RFC 9112, 7.1" a_line_feed_after_the_last_size: chunks("0\n\r\n") => refused(&[400]);

    // --- the end ---

    "RFC 9112, 8" no_last_chunk: chunks("5\r\nhello\r\n") => silence().half_closed();
    "RFC 9112, 8" half_a_chunk: chunks("5\r\nhel") => silence().half_closed();
    "RFC 9112, 8" no_line_after_the_last_chunk:
        chunks("5\r\nhello\r\n0\r\n") => silence().half_closed();

    // --- trailers ---

    "RFC 9112, 7.1.2" trailers:
        to("/trailers", "5\r\nhello\r\n0\r\nx-one: a\r\nx-two: b\r\n\r\n") => answered("Some(2)");
    "RFC 9110, 6.5.1" trailers_are_no_fields_of_the_head:
        to("/field", "0\r\nx-field: a\r\n\r\n") => answered("None");
    "RFC 9110, 6.5.1" a_length_among_the_trailers:
        chunks("5\r\nhello\r\n0\r\ncontent-length: 50\r\n\r\n") => answered("POST / [hello]");
    "RFC 9110, 6.5.1" a_host_among_the_trailers:
        to("/host", "0\r\nhost: other\r\n\r\n") => answered(r#"["test"]"#);
    "RFC 9112, 7.1.2" a_request_after_trailers:
        chunks("0\r\nx-one: a\r\n\r\nGET /b HTTP/1.1\r\nhost: test\r\n\r\n")
        => all([ok("POST / []"), ok("GET /b []")]);
    "RFC 9112, 5" a_trailer_without_a_colon: chunks("0\r\nx-one\r\n\r\n") => refused(&[400]);
    "RFC 9112, 5.1" a_trailer_with_a_space_before_its_colon:
        chunks("0\r\nx-one : a\r\n\r\n") => refused(&[400]);
    "RFC 9112, 5" a_trailer_without_a_name: chunks("0\r\n: a\r\n\r\n") => refused(&[400]);
    "RFC 9112, 5.2" a_folded_trailer: chunks("0\r\nx-one: a\r\n b\r\n\r\n") => refused(&[400]);
    "RFC 9110, 5.5" a_null_in_a_trailer: chunks("0\r\nx-one: a\0b\r\n\r\n") => refused(&[400]);
    "RFC 9112, 2.2" a_carriage_return_in_a_trailer:
        chunks("0\r\nx-one: a\rb\r\n\r\n") => refused(&[400]);

    // --- requests hidden in chunks ---

    "RFC 9112, 7.1" a_request_in_a_chunk:
        chunks("24\r\nGET /hidden HTTP/1.1\r\nhost: test\r\n\r\n\r\n0\r\n\r\n")
        => answered("POST / [GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n]");
    "RFC 9112, 7.1" a_request_after_a_malformed_chunk:
        chunks("5\r\nhello0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: test\r\n\r\n") => refused(&[400]);
    "RFC 9112, 9.3" a_request_in_a_body_that_is_left:
        to("/unread", "24\r\nGET /hidden HTTP/1.1\r\nhost: test\r\n\r\n\r\n0\r\n\r\n")
        => status(&[200]).body("unread").and_more().closing_or_not();
}
