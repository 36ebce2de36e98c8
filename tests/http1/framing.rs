//! Where a message ends: lengths, codings, and both; what is in doubt is refused, and nothing after it is
//! taken for a request.

use crate::case::{Want, all, answered, cases, ok, refused, silence, status};

/// What somebody hides in a body, or behind one.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: test\r\n\r\n";

/// A request with these fields and this after them.
fn post(fields: &str, rest: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n{rest}").into_bytes()
}

/// A request of so many bytes, as the field says, and a hidden one.
fn length(value: &str) -> Vec<u8> {
    post(
        &format!("content-length: {value}"),
        &format!("hello{HIDDEN}"),
    )
}

/// A request in this coding, as chunks are, and a hidden one.
fn coding(value: &str) -> Vec<u8> {
    let chunks = format!("5\r\nhello\r\n0\r\n\r\n{HIDDEN}");
    post(&format!("transfer-encoding: {value}"), &chunks)
}

/// The body is understood, or the request refused.
fn understood_or_refused() -> Want {
    status(&[200, 400])
}

/// The body is five bytes, and what was hidden is the next request.
fn hello_and_the_next() -> [Want; 2] {
    [ok("POST / [hello]"), ok("GET /hidden []")]
}

cases! {
    // --- lengths ---

    "RFC 9112, 6.2" a_length: length("5") => all(hello_and_the_next());
    "RFC 9112, 6.2" a_length_in_white_space: length(" \t5 \t") => all(hello_and_the_next());
    "RFC 9110, 8.6" a_length_that_begins_with_zeros: length("0005") => all(hello_and_the_next());
    "RFC 9112, 6.3" no_length: post("x-field: a", HIDDEN) => all([ok("POST / []"), ok("GET /hidden []")]);
    "RFC 9112, 6.3" a_length_of_nothing:
        post("content-length: 0", HIDDEN) => all([ok("POST / []"), ok("GET /hidden []")]);
    "RFC 9112, 6.3" a_request_in_a_body_is_a_body:
        format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{HIDDEN}", HIDDEN.len())
        => answered(&format!("POST / [{HIDDEN}]"));
    "RFC 9110, 9.3.1" the_body_of_a_get_is_a_body:
        format!("GET / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{HIDDEN}", HIDDEN.len())
        => answered(&format!("GET / [{HIDDEN}]"));
    "RFC 9112, 6.3" one_length_twice:
        post("content-length: 5\r\ncontent-length: 5", "hello")
        => understood_or_refused().and_more().closing_or_not();
    "RFC 9112, 6.3" one_length_in_a_list:
        post("content-length: 5, 5", "hello") => understood_or_refused().and_more().closing_or_not();
    "RFC 9112, 6.3" two_lengths:
        post("content-length: 5\r\ncontent-length: 6", &format!("hello{HIDDEN}")) => refused(&[400]);
    "RFC 9112, 6.3" two_lengths_the_other_way_round:
        post("content-length: 6\r\ncontent-length: 5", &format!("hello{HIDDEN}")) => refused(&[400]);
    "RFC 9112, 6.3" two_lengths_and_something_between:
        post("content-length: 0\r\nx-field: a\r\ncontent-length: 5", "hello") => refused(&[400]);
    "RFC 9112, 6.3" two_lengths_in_a_list: length("5, 6") => refused(&[400]);
    "RFC 9112, 6.3" a_length_and_an_empty_one:
        post("content-length: 5\r\ncontent-length:", "hello") => refused(&[400]);
    "RFC 9110, 8.6" a_length_with_a_plus: length("+5") => refused(&[400]);
    "RFC 9110, 8.6" a_length_with_a_minus: length("-5") => refused(&[400]);
    "RFC 9110, 8.6" minus_zero: length("-0") => refused(&[400]);
    "RFC 9110, 8.6" a_length_of_two_numbers: length("5 5") => refused(&[400]);
    "RFC 9110, 8.6" a_length_with_a_fraction: length("5.0") => refused(&[400]);
    "RFC 9110, 8.6" a_hexadecimal_length: length("0x5") => refused(&[400]);
    "RFC 9110, 8.6" a_length_with_an_exponent: length("5e0") => refused(&[400]);
    "RFC 9110, 8.6" a_length_in_quotes: length("\"5\"") => refused(&[400]);
    "RFC 9110, 8.6" a_length_of_letters: length("five") => refused(&[400]);
    "RFC 9110, 8.6" digits_of_another_alphabet: length("\u{665}") => refused(&[400]);
    "RFC 9110, 8.6" an_empty_length: length("") => refused(&[400]);
    "RFC 9112, 6.3" a_length_of_2_to_the_64: length("18446744073709551616") => refused(&[400, 413]);
    "RFC 9112, 6.3" a_length_of_2_to_the_64_and_5: length("18446744073709551621") => refused(&[400, 413]);
    // hyper calls it a head that is too large.
    "RFC 9112, 6.3" a_length_below_2_to_the_64: length("18446744073709551615") => refused(&[400, 413, 431]);
    "RFC 9112, 6.3" a_length_of_forty_digits: length(&"9".repeat(40)) => refused(&[400, 413]);
    "RFC 9112, 8" a_body_that_is_cut_short:
        post("content-length: 50", "hello") => silence().half_closed();

    // --- codings ---

    "RFC 9112, 7.1" chunks: coding("chunked") => all(hello_and_the_next());
    "RFC 9112, 7" a_coding_in_capitals: coding("CHUNKED") => all(hello_and_the_next());
    "RFC 9110, 5.6.3" a_coding_in_white_space: coding("\t chunked \t") => all(hello_and_the_next());
    "RFC 9110, 5.6.1" an_empty_element_before_a_coding: coding(", ,chunked") => all(hello_and_the_next());
    "RFC 9112, 7.1" chunked_twice: coding("chunked, chunked") => refused(&[400]);
    "RFC 9112, 7.1" chunked_on_two_lines:
        coding("chunked\r\ntransfer-encoding: chunked") => refused(&[400]);
    "RFC 9112, 6.1" a_coding_that_nobody_knows: coding("unknown, chunked") => refused(&[501]);
    "RFC 9112, 6.1" a_coding_that_is_not_undone_here: coding("gzip, chunked") => refused(&[501]);
    "RFC 9112, 6.1" a_coding_on_a_line_of_its_own:
        coding("gzip\r\ntransfer-encoding: chunked") => refused(&[501]);
    "RFC 9112, 7" identity_before_chunked: coding("identity, chunked") => refused(&[400, 501]);
    "RFC 9112, 6.3" chunked_is_not_the_last: coding("chunked, gzip") => refused(&[400]);
    "RFC 9112, 6.3" chunked_is_not_on_the_last_line:
        coding("chunked\r\ntransfer-encoding: gzip") => refused(&[400]);
    "RFC 9112, 6.3" not_chunked: coding("gzip") => refused(&[400, 501]);
    "RFC 9112, 6.3" identity: coding("identity") => refused(&[400, 501]);
    "RFC 9112, 6.3" an_empty_coding: coding("") => refused(&[400]);
    "RFC 9112, 6.3" a_coding_that_begins_like_chunked: coding("chunkedd") => refused(&[400, 501]);
    "RFC 9112, 6.3" a_coding_that_ends_like_chunked: coding("xchunked") => refused(&[400, 501]);
    "RFC 9112, 6.3" chunked_in_quotes: coding("\"chunked\"") => refused(&[400, 501]);
    "RFC 9112, 7" chunked_with_a_parameter: coding("chunked;a=b") => refused(&[400, 501]);
    "RFC 9112, 6.3" two_codings_in_one_word: coding("gzip chunked") => refused(&[400, 501]);
    "RFC 9112, 6.3" a_vertical_tab_before_a_coding: coding("\x0bchunked") => refused(&[400]);
    "RFC 9112, 6.1" a_coding_in_1_0:
        "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" => refused(&[400]);
    "RFC 9112, 6.1" a_coding_in_1_0_that_stays_open:
        "POST / HTTP/1.0\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"
        => refused(&[400]);

    // --- both ---

    "RFC 9112, 6.1" a_length_and_then_a_coding:
        post("content-length: 5\r\ntransfer-encoding: chunked", &format!("0\r\n\r\n{HIDDEN}"))
        => understood_or_refused().and_end();
    "RFC 9112, 6.1" a_coding_and_then_a_length:
        post("transfer-encoding: chunked\r\ncontent-length: 5", &format!("0\r\n\r\n{HIDDEN}"))
        => understood_or_refused().and_end();
    "RFC 9112, 6.3" a_coding_overrides_a_length:
        post("content-length: 100\r\ntransfer-encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")
        => understood_or_refused().and_end();
    "RFC 9112, 6.1" a_coding_and_two_lengths:
        post("content-length: 5\r\ntransfer-encoding: chunked\r\ncontent-length: 6", &format!("0\r\n\r\n{HIDDEN}"))
        => understood_or_refused().and_end();
    "RFC 9112, 6.3" a_length_and_an_unknown_coding:
        post("content-length: 5\r\ntransfer-encoding: gzip", &format!("hello{HIDDEN}"))
        => refused(&[400, 501]);
}
