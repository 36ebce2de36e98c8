//! Fields: names that are tokens, values without control bytes, each on a line of its own.

use crate::case::{answered, cases, refused};

/// A request with this line among its fields.
fn with(line: &str) -> Vec<u8> {
    format!("GET /field HTTP/1.1\r\nhost: test\r\n{line}\r\n\r\n").into_bytes()
}

/// A request with these bytes in a value.
fn with_value(value: &[u8]) -> Vec<u8> {
    let before = b"GET /field HTTP/1.1\r\nhost: test\r\nx-field: ".as_slice();
    [before, value, b"\r\n\r\n"].concat()
}

cases! {
    // --- names ---

    "RFC 9112, 5.1" a_space_before_the_colon: with("x-field : a") => refused(&[400]);
    "RFC 9112, 5.1" a_tab_before_the_colon: with("x-field\t: a") => refused(&[400]);
    "RFC 9112, 5.1" a_space_before_the_colon_of_the_length:
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length : 5\r\n\r\nhello" => refused(&[400]);
    "RFC 9112, 5.1" a_space_before_the_colon_of_the_coding:
        "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n"
        => refused(&[400]);
    "RFC 9112, 5" no_name: with(": a") => refused(&[400]);
    "RFC 9112, 5" no_colon: with("x-field") => refused(&[400]);
    "RFC 9110, 5.6.2" a_space_in_a_name: with("x field: a") => refused(&[400]);
    "RFC 9110, 5.6.2" a_bracket_in_a_name: with("x(field: a") => refused(&[400]);
    "RFC 9110, 5.6.2" a_slash_in_a_name: with("x/field: a") => refused(&[400]);
    "RFC 9110, 5.6.2" a_quote_in_a_name: with("\"x-field\": a") => refused(&[400]);
    "RFC 9110, 5.6.2" a_null_in_a_name: with("x\0field: a") => refused(&[400]);
    "RFC 9110, 5.6.2" a_letter_outside_of_ascii_in_a_name: with("x-f\u{ef}eld: a") => refused(&[400]);
    "RFC 9110, 5.6.2" all_that_a_token_may_have:
        with("!#$%&'*+-.^_`|~09azAZ: a\r\nx-field: b") => answered(r#"Some("b")"#);
    "RFC 9110, 5.1" a_name_in_capitals: with("X-FIELD: a") => answered(r#"Some("a")"#);

    // --- values ---

    "RFC 9110, 5.5" white_space_around_a_value:
        with("x-field: \t a b\tc \t") => answered("Some(\"a b\tc\")");
    "RFC 9110, 5.5" no_white_space_before_a_value: with("x-field:a") => answered(r#"Some("a")"#);
    "RFC 9110, 5.5" an_empty_value: with("x-field:") => answered(r#"Some("")"#);
    "RFC 9110, 5.5" a_value_of_white_space: with("x-field: \t ") => answered(r#"Some("")"#);
    "RFC 9110, 5.5" a_colon_in_a_value: with("x-field: a:b") => answered(r#"Some("a:b")"#);
    "RFC 9110, 5.5" bytes_outside_of_ascii_in_a_value:
        with_value(b"\xe9\xff") => answered(r#"Some("\xe9\xff")"#);
    "RFC 9110, 5.5" a_null_in_a_value: with_value(b"a\0b") => refused(&[400]);
    "RFC 9110, 5.5" a_null_at_the_end_of_a_value: with_value(b"a\0") => refused(&[400]);
    "RFC 9110, 5.5" a_control_byte_in_a_value: with_value(b"a\x01b") => refused(&[400]);
    "RFC 9110, 5.5" a_vertical_tab_in_a_value: with_value(b"a\x0bb") => refused(&[400]);
    "RFC 9110, 5.5" a_delete_in_a_value: with_value(b"a\x7fb") => refused(&[400]);

    // --- folded lines ---

    "RFC 9112, 5.2" a_value_folded_with_a_space: with("x-field: a\r\n b") => refused(&[400]);
    "RFC 9112, 5.2" a_value_folded_with_a_tab: with("x-field: a\r\n\tb") => refused(&[400]);
    "RFC 9112, 5.2" a_value_that_begins_folded: with("x-field:\r\n a") => refused(&[400]);
    "RFC 9112, 5.2" a_value_folded_after_a_line_feed: with("x-field: a\n b") => refused(&[400]);
    "RFC 9112, 5.2" a_line_of_white_space: with("x-field: a\r\n ") => refused(&[400]);
    "RFC 9112, 5.2" a_folded_coding:
        "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"
        => refused(&[400]);
    "RFC 9112, 5.2" a_folded_host: "GET / HTTP/1.1\r\nhost: test\r\n .example\r\n\r\n" => refused(&[400]);
}
