//! RFC 9113, sections 8.1, 8.2 and 8.6: messages, their fields, and malformed ones.

use crate::cases;
use crate::client::{Client, Frame};
use crate::codes::*;
use crate::hpack::{self, GET, with};

/// A POST that says how long its body is.
fn post(length: &str) -> Vec<(&str, &str)> {
    with(
        &hpack::request("POST", "/echo"),
        &[("content-length", length)],
    )
}

/// Trailers with one field.
fn trailer(name: &str, value: &str) -> Vec<u8> {
    hpack::encode(&[(name, value)])
}

/// Begins a POST on stream 1 that is answered with its trailers.
fn begin(client: &mut Client) -> &mut Client {
    client.post(1, "/fields").data(NONE, 1, b"body")
}

cases! {
    // 8.1: a message is a head, a body, and trailers that end it.
    "8.1" s8_1_trailers_are_handed_over: |c| begin(&mut c).frame(HEADERS, WHOLE, 1, &trailer("x-sum", "7")) => answers_with(1, "Some({\"x-sum\": \"7\"})");
    "8.1" s8_1_trailers_without_a_body: |c| c.post(1, "/fields").frame(HEADERS, WHOLE, 1, &trailer("x-sum", "7")) => answers_with(1, "Some({\"x-sum\": \"7\"})");
    "8.1" s8_1_second_headers_that_do_not_end: |c| begin(&mut c).frame(HEADERS, END_HEADERS, 1, &trailer("x-sum", "7")) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.1" s8_1_trailers_in_two_frames:
        |c| begin(&mut c).frame(HEADERS, END_STREAM, 1, b"").frame(CONTINUATION, END_HEADERS, 1, &trailer("x-sum", "7")) => answers_with(1, "Some({\"x-sum\": \"7\"})");

    // 8.1.1: what is malformed is a stream error.
    "8.1.1" s8_1_1_body_as_long_as_it_said: |c| c.fields(NONE, 1, &post("4")).data(END_STREAM, 1, b"data") => answers_with(1, "data");
    "8.1.1" s8_1_1_body_longer_than_it_said: |c| c.fields(NONE, 1, &post("1")).data(END_STREAM, 1, b"data") => resets(1, PROTOCOL_ERROR);
    "8.1.1" s8_1_1_body_shorter_than_it_said: |c| c.fields(NONE, 1, &post("5")).data(END_STREAM, 1, b"data") => resets(1, PROTOCOL_ERROR);
    "8.1.1" s8_1_1_several_frames_longer_than_it_said:
        |c| c.fields(NONE, 1, &post("3")).data(NONE, 1, b"da").data(END_STREAM, 1, b"ta") => resets(1, PROTOCOL_ERROR);
    "8.1.1" s8_1_1_several_frames_shorter_than_it_said:
        |c| c.fields(NONE, 1, &post("5")).data(NONE, 1, b"da").data(END_STREAM, 1, b"ta") => resets(1, PROTOCOL_ERROR);
    "8.1.1" s8_1_1_no_body_though_it_said_one: |c| c.fields(END_STREAM, 1, &post("1")) => resets(1, PROTOCOL_ERROR);
    "8.1.1" s8_1_1_trailers_before_the_length_it_said:
        |c| c.fields(NONE, 1, &post("5")).data(NONE, 1, b"data").frame(HEADERS, WHOLE, 1, &trailer("x-sum", "7")) => resets(1, PROTOCOL_ERROR);
    "8.1.1" s8_1_1_no_body_and_a_length_of_zero: |c| c.fields(END_STREAM, 1, &post("0")) => answers_with(1, "");
    "8.1.1" s8_1_1_length_that_is_none: |c| c.fields(NONE, 1, &post("four")).data(END_STREAM, 1, b"data") => resets(1, PROTOCOL_ERROR);
    "8.1.1" s8_1_1_negative_length: |c| c.fields(NONE, 1, &post("-4")).data(END_STREAM, 1, b"data") => resets(1, PROTOCOL_ERROR);
    "8.1.1" s8_1_1_length_past_all_numbers: |c| c.fields(NONE, 1, &post("99999999999999999999999")).data(END_STREAM, 1, b"data") => resets(1, PROTOCOL_ERROR);
    "8.1.1" s8_1_1_padding_is_no_content: |c| c.fields(NONE, 1, &post("4")).data(END_STREAM | PADDED, 1, b"\x02data\0\0") => answers_with(1, "data");

    // 8.2: fields. hyper makes what no field can be called or hold an error of the connection.
    "8.2" s8_2_upper_case_in_a_name: |c| c.fields(END_STREAM, 1, &with(&GET, &[("X-Upper", "no")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2" s8_2_upper_case_in_a_trailer: |c| begin(&mut c).frame(HEADERS, WHOLE, 1, &trailer("X-Sum", "7")) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2" s8_2_empty_name: |c| c.fields(END_STREAM, 1, &with(&GET, &[("", "no")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2.1" s8_2_1_space_in_a_name: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x space", "no")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2.1" s8_2_1_colon_in_a_name: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x:colon", "no")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2.1" s8_2_1_control_character_in_a_name: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x\x01", "no")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2.1" s8_2_1_delete_in_a_name: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x\x7f", "no")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2.1" s8_2_1_zero_in_a_value: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x-zero", "a\0b")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2.1" s8_2_1_line_feed_in_a_value: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x-line", "a\nb: c")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2.1" s8_2_1_carriage_return_in_a_value: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x-line", "a\rb")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.2.1" s8_2_1_space_before_a_value: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x-space", " a")])) => answers(1, 400);
    "8.2.1" s8_2_1_tab_behind_a_value: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x-space", "a\t")])) => answers(1, 400);
    "8.2.1" s8_2_1_space_within_a_value: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x-space", "a b")])) => answers(1, 200);
    "8.2.1" s8_2_1_empty_value: |c| c.fields(END_STREAM, 1, &with(&GET, &[("x-empty", "")])) => answers(1, 200);

    // 8.2.2: what belongs to one connection.
    "8.2.2" s8_2_2_connection: |c| c.fields(END_STREAM, 1, &with(&GET, &[("connection", "keep-alive")])) => resets(1, PROTOCOL_ERROR);
    "8.2.2" s8_2_2_keep_alive: |c| c.fields(END_STREAM, 1, &with(&GET, &[("keep-alive", "timeout=5")])) => resets(1, PROTOCOL_ERROR);
    "8.2.2" s8_2_2_proxy_connection: |c| c.fields(END_STREAM, 1, &with(&GET, &[("proxy-connection", "keep-alive")])) => resets(1, PROTOCOL_ERROR);
    "8.2.2" s8_2_2_transfer_encoding: |c| c.fields(END_STREAM, 1, &with(&GET, &[("transfer-encoding", "chunked")])) => resets(1, PROTOCOL_ERROR);
    "8.2.2" s8_2_2_te_of_trailers: |c| c.fields(END_STREAM, 1, &with(&GET, &[("te", "trailers")])) => answers(1, 200);
    "8.2.2" s8_2_2_te_of_anything_else: |c| c.fields(END_STREAM, 1, &with(&GET, &[("te", "trailers, deflate")])) => resets(1, PROTOCOL_ERROR);
    "8.2.2" s8_2_2_te_of_chunked: |c| c.fields(END_STREAM, 1, &with(&GET, &[("te", "chunked")])) => resets(1, PROTOCOL_ERROR);
    "8.6" s8_6_upgrade: |c| c.fields(END_STREAM, 1, &with(&GET, &[("upgrade", "websocket")])) => resets(1, PROTOCOL_ERROR);
    "8.6" s8_6_upgrade_with_connection: |c| c.fields(END_STREAM, 1, &with(&GET, &[("connection", "upgrade"), ("upgrade", "h2c")])) => resets(1, PROTOCOL_ERROR);
}

/// Cookies may come in pieces: all of them reach the handler.
#[test]
fn s8_2_3_cookies_may_come_in_pieces() {
    let mut client = Client::open("8.2.3");
    let cookies = [("cookie", "a=1"), ("cookie", "b=2")];
    client.fields(
        END_STREAM,
        1,
        &with(&hpack::request("GET", "/cookie"), &cookies),
    );
    client.answers(1, 200);
    let text = String::from_utf8(client.body(1)).expect("text");
    assert!(text.contains("a=1") && text.contains("b=2"), "{text}");
}

/// A head past the limit is refused for itself, and the connection goes on.
#[test]
fn s8_1_head_past_the_limit_is_refused() {
    let mut client = Client::open("8.1");
    let value = "x".repeat(8_000);
    let fields: Vec<(&str, &str)> = (0..9).map(|_| ("x-large", value.as_str())).collect();
    let block = hpack::encode(&with(&GET, &fields));
    let mut parts = block.chunks(LARGEST).peekable();
    client.frame(
        HEADERS,
        END_STREAM,
        1,
        parts.next().expect("it is not empty"),
    );
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() {
            END_HEADERS
        } else {
            NONE
        };
        client.frame(CONTINUATION, last, 1, part);
    }
    client.answers(1, 431);
    client.goes_on(3);
}

/// A malformed request costs its stream: the others go on.
#[test]
fn s8_1_1_malformed_request_costs_its_stream_only() {
    let mut client = Client::open("8.1.1");
    client.post(1, "/echo").data(NONE, 1, b"be");
    client.fields(END_STREAM, 3, &with(&GET, &[("connection", "close")]));
    client.resets(3, PROTOCOL_ERROR);
    client
        .data(END_STREAM, 1, b"fore")
        .answers_with(1, "before");
}

/// An answer may end before its request has: the rest of that is not wanted.
#[test]
fn s8_1_answer_may_end_before_its_request() {
    let mut client = Client::open("8.1");
    client.post(1, "/early").data(NONE, 1, b"some");
    client.answers_with(1, "POST http://test/early");
    client.settle();
    assert_eq!(client.code_of_reset(1), Some(NO_ERROR), "{client:?}");
    // What was on its way before the client knew is not minded.
    client.forget().data(END_STREAM, 1, b"more").settle();
    client.goes_on(3);
}

/// Whatever body its handler gave it (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
#[test]
fn s8_1_an_answer_that_has_no_content_ends_with_its_head() {
    for status in [204, 205, 304] {
        let mut client = Client::open("8.1");
        client.get(1, &format!("/status/{status}"));
        client.answers(1, status);
        client.settle();
        let of_stream = client.came().iter().filter(|frame| frame.stream == 1);
        let kinds: Vec<_> = of_stream.map(|frame| (frame.kind, frame.flags)).collect();
        assert_eq!(kinds, [(HEADERS, WHOLE)], "{status}: {client:?}");
    }
}

/// No 100 is sent: hyper has no way to do so over HTTP/2, and a client must not count on it.
#[test]
fn s8_1_who_expects_to_be_told_to_go_on_is_answered_when_he_does() {
    let mut client = Client::open("8.1");
    let head = with(&post("4"), &[("expect", "100-continue")]);
    client.fields(NONE, 1, &head).settle();
    let is_head = |frame: &&Frame| frame.kind == HEADERS && frame.stream == 1;
    assert_eq!(client.came().iter().find(is_head), None);
    client.data(END_STREAM, 1, b"data");
    client.answers_with(1, "data");
    assert_eq!(client.came().iter().filter(is_head).count(), 1);
}
