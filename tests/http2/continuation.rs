//! RFC 9113, section 6.10: CONTINUATION.

use crate::cases;
use crate::client::Client;
use crate::codes::*;
use crate::hpack;

/// A GET's fields, in two parts.
fn halves() -> (Vec<u8>, Vec<u8>) {
    let mut first = hpack::encode(&hpack::GET);
    // In the middle of a field.
    let second = first.split_off(first.len() / 2);
    (first, second)
}

/// Sends the first half of a GET on stream 1.
fn begin(client: &mut Client) -> &mut Client {
    client.frame(HEADERS, END_STREAM, 1, &halves().0)
}

cases! {
    "6.10" s6_10_fields_in_two_frames: |c| begin(&mut c).frame(CONTINUATION, END_HEADERS, 1, &halves().1) => answers(1, 200);
    "6.10" s6_10_fields_behind_an_empty_frame:
        |c| c.frame(HEADERS, END_STREAM, 1, b"").frame(CONTINUATION, END_HEADERS, 1, &hpack::encode(&hpack::GET)) => answers(1, 200);
    "6.10" s6_10_last_frame_may_be_empty:
        |c| c.frame(HEADERS, END_STREAM, 1, &hpack::encode(&hpack::GET)).frame(CONTINUATION, END_HEADERS, 1, b"") => answers(1, 200);
    "6.10" s6_10_continuation_on_stream_zero: |c| begin(&mut c).frame(CONTINUATION, END_HEADERS, 0, &halves().1) => ends_with(PROTOCOL_ERROR);
    "6.10" s6_10_continuation_of_another_stream: |c| begin(&mut c).frame(CONTINUATION, END_HEADERS, 3, &halves().1) => ends_with(PROTOCOL_ERROR);
    "6.10" s6_10_continuation_of_nothing: |c| c.frame(CONTINUATION, END_HEADERS, 1, &halves().1) => ends_with(PROTOCOL_ERROR);
    "6.10" s6_10_continuation_behind_the_end: |c| c.get(1, "/wait").frame(CONTINUATION, END_HEADERS, 1, b"") => ends_with(PROTOCOL_ERROR);
    "6.10" s6_10_continuation_behind_the_last:
        |c| begin(&mut c).frame(CONTINUATION, END_HEADERS, 1, &halves().1).frame(CONTINUATION, END_HEADERS, 1, b"") => ends_with(PROTOCOL_ERROR);
    "6.10" s6_10_continuation_behind_data:
        |c| c.post(1, "/wait").data(NONE, 1, b"data").frame(CONTINUATION, END_HEADERS, 1, b"") => ends_with(PROTOCOL_ERROR);
    "6.10" s6_10_headers_between: |c| begin(&mut c).frame(HEADERS, WHOLE, 1, &halves().1) => ends_with(PROTOCOL_ERROR);
    "6.10" s6_10_settings_between: |c| begin(&mut c).settings(&[]).frame(CONTINUATION, END_HEADERS, 1, &halves().1) => ends_with(PROTOCOL_ERROR);
    "6.10" s6_10_reset_between: |c| begin(&mut c).number(RST_STREAM, 1, CANCEL) => ends_with(PROTOCOL_ERROR);
    "6.10" s6_10_end_of_stream_flag_means_nothing_there:
        |c| c.frame(HEADERS, NONE, 1, &hpack::encode(&hpack::request("POST", "/echo")))
            .frame(CONTINUATION, END_HEADERS | END_STREAM, 1, b"").data(END_STREAM, 1, b"data") => answers_with(1, "data");
}

/// Fields may come in several frames, wherever they are cut.
#[test]
fn s6_10_fields_may_be_cut_anywhere() {
    let mut client = Client::open("6.10");
    let block = hpack::encode(&hpack::GET);
    for (stream, cut) in (1..).step_by(2).zip(0..=block.len()) {
        client.frame(HEADERS, END_STREAM, stream, &block[..cut]);
        client.frame(CONTINUATION, END_HEADERS, stream, &block[cut..]);
        client.answers(stream, 200);
    }
}
