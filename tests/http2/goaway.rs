//! RFC 9113, sections 6.8 and 5.4.1: GOAWAY.

use crate::cases;
use crate::client::Client;
use crate::codes::*;

/// A goodbye with a code.
fn goodbye(code: u32) -> Vec<u8> {
    [[0; 4], code.to_be_bytes()].concat()
}

cases! {
    "6.8" s6_8_goaway_on_a_stream: |c| c.frame(GOAWAY, NONE, 1, &goodbye(NO_ERROR)) => ends_with(PROTOCOL_ERROR);
    "6.8" s6_8_goaway_too_short: |c| c.frame(GOAWAY, NONE, 0, b"\0\0\0\0") => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.8" s6_8_goaway_ends_an_idle_connection: |c| c.frame(GOAWAY, NONE, 0, &goodbye(NO_ERROR)) => ends_with(NO_ERROR);
    // An error code that nobody knows is one like any other (section 7).
    "7" s7_unknown_code_of_a_goaway: |c| c.frame(GOAWAY, NONE, 0, &goodbye(0xffff_ffff)) => ends_with(NO_ERROR);
    "7" s7_unknown_code_of_a_reset: |c| c.get(1, "/wait").number(RST_STREAM, 1, 0xffff_ffff) => ignores();
    "6.8" s6_8_goaway_with_debug_data: |c| c.frame(GOAWAY, NONE, 0, &[&goodbye(NO_ERROR)[..], b"for no reason"].concat()) => ends_with(NO_ERROR);
}

/// What a client has begun before its GOAWAY is answered.
#[test]
fn s6_8_what_was_begun_is_answered() {
    let mut client = Client::open("6.8");
    client.post(1, "/echo").data(NONE, 1, b"be");
    client.frame(GOAWAY, NONE, 0, &goodbye(NO_ERROR));
    client.data(END_STREAM, 1, b"gun").answers_with(1, "begun");
    client.ends_with(NO_ERROR);
}

/// A server's GOAWAY names the last stream that it may have acted upon.
#[test]
fn s6_8_goaway_names_the_last_stream() {
    let mut client = Client::open("6.8");
    client.get(1, "/").answers(1, 200);
    client.get(5, "/").answers(5, 200);
    // An error of the connection.
    client
        .frame(PING, NONE, 1, &[0; 8])
        .ends_with(PROTOCOL_ERROR);
    let goodbye = client
        .came()
        .iter()
        .rev()
        .find(|frame| frame.kind == GOAWAY);
    let goodbye = goodbye.expect("it ended with one");
    assert_eq!((goodbye.stream, goodbye.number(0)), (0, 5), "{client:?}");
}
