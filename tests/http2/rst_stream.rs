//! RFC 9113, section 6.4: RST_STREAM.

use crate::cases;
use crate::client::Client;
use crate::codes::*;

cases! {
    "6.4" s6_4_reset_of_stream_zero: |c| c.number(RST_STREAM, 0, CANCEL) => ends_with(PROTOCOL_ERROR);
    "6.4" s6_4_reset_of_an_idle_stream: |c| c.number(RST_STREAM, 1, CANCEL) => ends_with(PROTOCOL_ERROR);
    "6.4" s6_4_reset_too_short: |c| c.get(1, "/wait").frame(RST_STREAM, NONE, 1, b"\0\0\x08") => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.4" s6_4_reset_too_long: |c| c.get(1, "/wait").frame(RST_STREAM, NONE, 1, b"\0\0\0\x08\0") => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.4" s6_4_reset_of_an_open_stream_ends_it: |c| c.post(1, "/wait").number(RST_STREAM, 1, CANCEL) => ignores();
    "6.4" s6_4_reset_of_a_half_closed_stream_ends_it: |c| c.get(1, "/wait").number(RST_STREAM, 1, CANCEL) => ignores();
    "6.4" s6_4_reset_twice_is_ignored: |c| c.get(1, "/wait").number(RST_STREAM, 1, CANCEL).number(RST_STREAM, 1, CANCEL) => ignores();
}

/// A stream that was reset makes room for another, and no answer comes on it.
#[test]
fn s6_4_reset_costs_its_stream_only() {
    let mut client = Client::open("6.4");
    client.get(1, "/wait").number(RST_STREAM, 1, NO_ERROR);
    client.goes_on(3);
    assert_eq!(
        client.code_of_reset(1),
        None,
        "a reset is not answered with one"
    );
}
