//! RFC 9113, section 6.2: HEADERS.

use crate::cases;
use crate::codes::*;
use crate::hpack;

/// A GET's fields, with this before and that behind.
fn block(before: &[u8], behind: &[u8]) -> Vec<u8> {
    [before, &hpack::encode(&hpack::GET), behind].concat()
}

cases! {
    "6.2" s6_2_headers_on_stream_zero: |c| c.frame(HEADERS, WHOLE, 0, &block(b"", b"")) => ends_with(PROTOCOL_ERROR);
    "6.2" s6_2_padding_is_taken_off:
        |c| c.frame(HEADERS, WHOLE | PADDED, 1, &block(b"\x04", b"\0\0\0\0")) => answers(1, 200);
    "6.2" s6_2_priority_is_taken_off:
        |c| c.frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &block(b"\0\0\0\0\xff", b"")) => answers(1, 200);
    "6.2" s6_2_padding_and_priority_are_taken_off:
        |c| c.frame(HEADERS, WHOLE | PADDED | WITH_PRIORITY, 1, &block(b"\x02\0\0\0\0\xff", b"\0\0")) => answers(1, 200);
    "6.2" s6_2_padding_longer_than_the_payload:
        |c| c.frame(HEADERS, WHOLE | PADDED, 1, &block(b"\xff", b"")) => ends_with(PROTOCOL_ERROR);
    "6.2" s6_2_padding_one_byte_too_long: |c| c.frame(HEADERS, WHOLE | PADDED, 1, b"\x04\x82\x86\x84") => ends_with(PROTOCOL_ERROR);
    "6.2" s6_2_padded_and_empty: |c| c.frame(HEADERS, WHOLE | PADDED, 1, b"") => ends_with_any(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
    "6.2" s6_2_priority_cut_short: |c| c.frame(HEADERS, WHOLE | WITH_PRIORITY, 1, b"\0\0") => ends_with_any(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
    "6.2" s6_2_frames_of_others_within_a_field_block:
        |c| c.frame(HEADERS, END_STREAM, 1, &block(b"", b"")).get(3, "/") => ends_with(PROTOCOL_ERROR);
    "6.2" s6_2_ping_within_a_field_block:
        |c| c.frame(HEADERS, END_STREAM, 1, &block(b"", b"")).frame(PING, NONE, 0, &[0; 8]) => ends_with(PROTOCOL_ERROR);
    "6.2" s6_2_unknown_frame_within_a_field_block:
        |c| c.frame(HEADERS, END_STREAM, 1, &block(b"", b"")).frame(0xfa, NONE, 1, b"") => ends_with(PROTOCOL_ERROR);
    "6.2" s6_2_data_within_a_field_block:
        |c| c.frame(HEADERS, NONE, 1, &block(b"", b"")).data(END_STREAM, 1, b"data") => ends_with(PROTOCOL_ERROR);
}
