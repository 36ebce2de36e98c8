//! RFC 9113, section 6.1: DATA.

use crate::cases;
use crate::client::Client;
use crate::codes::*;

cases! {
    "6.1" s6_1_data_on_stream_zero: |c| c.data(NONE, 0, b"data") => ends_with(PROTOCOL_ERROR);
    "6.1" s6_1_data_on_an_idle_stream: |c| c.data(END_STREAM, 1, b"data") => ends_with_any(&[PROTOCOL_ERROR, STREAM_CLOSED]);
    "6.1" s6_1_padding_is_taken_off:
        |c| c.post(1, "/echo").data(END_STREAM | PADDED, 1, b"\x03data\0\0\0") => answers_with(1, "data");
    "6.1" s6_1_padding_may_be_all: |c| c.post(1, "/echo").data(END_STREAM | PADDED, 1, b"\x03\0\0\0") => answers_with(1, "");
    "6.1" s6_1_padding_of_no_length_is_fine: |c| c.post(1, "/echo").data(END_STREAM | PADDED, 1, b"\0data") => answers_with(1, "data");
    "6.1" s6_1_padding_as_long_as_the_payload: |c| c.post(1, "/echo").data(END_STREAM | PADDED, 1, b"\x05data") => ends_with(PROTOCOL_ERROR);
    "6.1" s6_1_padding_longer_than_the_payload: |c| c.post(1, "/echo").data(END_STREAM | PADDED, 1, b"\xffdata") => ends_with(PROTOCOL_ERROR);
    // Too short for what it must hold (section 4.2).
    "6.1" s6_1_padded_and_empty: |c| c.post(1, "/echo").data(END_STREAM | PADDED, 1, b"") => ends_with_any(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
    "6.1" s6_1_empty_data_ends_a_stream: |c| c.post(1, "/echo").data(NONE, 1, b"data").data(END_STREAM, 1, b"") => answers_with(1, "data");
    "6.1" s6_1_data_after_the_end: |c| c.post(1, "/wait").data(END_STREAM, 1, b"").data(NONE, 1, b"data") => resets_or_ends_or_unspecific(1, STREAM_CLOSED);
}

/// Padding counts against the windows, so that what is thrown away is given back as well.
#[test]
fn s6_1_padding_is_given_back_to_the_window() {
    const COUNT: usize = 5_000;
    const CONTENT: usize = 512;
    let mut client = Client::open("6.1");
    client.post(1, "/echo");
    let mut padded = vec![255_u8];
    padded.resize(256 + CONTENT, 0);
    // The padding alone is more than the window of the connection and that of the stream.
    for _ in 0..COUNT {
        client.upload(PADDED, 1, &padded);
    }
    client.data(END_STREAM, 1, b"");
    client.settings(&[(INITIAL_WINDOW_SIZE, 1 << 24)]);
    client.number(WINDOW_UPDATE, 0, 1 << 24);
    client.answers(1, 200);
    assert_eq!(client.body(1).len(), COUNT * CONTENT);
}
