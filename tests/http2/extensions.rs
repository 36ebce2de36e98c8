//! RFC 9113, section 5.5: extensions. What is not known is not minded.

use crate::cases;
use crate::client::Client;
use crate::codes::*;

cases! {
    "5.5" s5_5_unknown_frame_on_an_open_stream: |c| c.post(1, "/echo").frame(0xfa, 0x5, 1, b"grease").data(END_STREAM, 1, b"data") => answers_with(1, "data");
    "5.5" s5_5_unknown_frame_on_a_half_closed_stream: |c| c.get(1, "/wait").frame(0xfa, 0, 1, b"grease") => ignores();
    "5.5" s5_5_unknown_frame_on_an_idle_stream: |c| c.frame(0xfa, 0, 7, b"grease") => ignores();
    "5.5" s5_5_unknown_frame_on_a_stream_of_the_servers: |c| c.frame(0xfa, 0, 2, b"grease") => ignores();
    "5.5" s5_5_origin_and_alt_svc_are_not_minded: |c| c.frame(0xa, 0, 0, b"\0\0").frame(0xc, 0, 0, b"\0\0") => ignores();
    "5.5" s5_5_unknown_frame_within_a_field_block:
        |c| c.frame(HEADERS, END_STREAM, 1, b"\x82").frame(0xfa, NONE, 0, b"") => ends_with(PROTOCOL_ERROR);
}

/// An unknown frame opens no stream: a lower one may still be opened.
#[test]
fn s5_5_unknown_frame_opens_no_stream() {
    let mut client = Client::open("5.5");
    client.frame(0xfa, 0xff, 9, b"grease");
    client.goes_on(1);
}

/// Unknown settings are not minded, however many there are of them in a frame.
#[test]
fn s5_5_unknown_settings_are_not_minded() {
    let mut client = Client::open("5.5");
    let unknown: Vec<(u16, u32)> = (0x100..0x200).map(|name| (name, u32::MAX)).collect();
    client.settings(&unknown);
    client.goes_on(1);
}
