//! RFC 9113, section 6.7: PING.

use crate::cases;
use crate::client::Client;
use crate::codes::*;

cases! {
    "6.7" s6_7_ping_on_a_stream: |c| c.frame(PING, NONE, 1, &[0; 8]) => ends_with(PROTOCOL_ERROR);
    "6.7" s6_7_ping_too_short: |c| c.frame(PING, NONE, 0, &[0; 6]) => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.7" s6_7_ping_too_long: |c| c.frame(PING, NONE, 0, &[0; 9]) => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.7" s6_7_empty_ping: |c| c.frame(PING, NONE, 0, b"") => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.7" s6_7_ack_of_no_ping_is_not_answered: |c| c.frame(PING, ACK, 0, b"unasked?") => ignores();
    "6.7" s6_7_ack_on_a_stream: |c| c.frame(PING, ACK, 1, b"unasked?") => ends_with(PROTOCOL_ERROR);
}

/// A PING is answered with its own payload, and each with one.
#[test]
fn s6_7_ping_is_answered_with_its_payload() {
    let mut client = Client::open("6.7");
    for payload in [
        b"\0\x01\x02\x03\x04\x05\x06\x07",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        client.frame(PING, NONE, 0, payload);
        let answer = client.wait_for(|frame| frame.kind == PING);
        assert_eq!((answer.flags, answer.stream), (ACK, 0), "{client:?}");
        assert_eq!(answer.payload, payload);
    }
}

/// A PING is answered while requests are under way.
#[test]
fn s6_7_ping_among_requests_is_answered() {
    let mut client = Client::open("6.7");
    client
        .get(1, "/wait")
        .post(3, "/echo")
        .data(NONE, 3, b"some ");
    client.frame(PING, NONE, 0, b"among!!!");
    client.wait_for(|frame| frame.kind == PING && frame.payload == b"among!!!");
    client
        .data(END_STREAM, 3, b"more")
        .answers_with(3, "some more");
}
