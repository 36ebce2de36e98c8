//! RFC 9113, sections 4.1 and 4.2: the form of frames, and their sizes.

use crate::cases;
use crate::client::{Client, frame};
use crate::codes::*;
use crate::hpack;

cases! {
    "4.1" s4_1_unknown_kind_is_ignored: |c| c.frame(0x16, NONE, 0, b"what is this?") => ignores();
    "4.1" s4_1_unknown_kind_on_a_stream_is_ignored: |c| c.frame(0xff, 0xff, 1, b"") => ignores();
    "4.1" s4_1_undefined_flags_are_ignored: |c| c.frame(PING, 0xfe, 0, b"settled?") => still_answers_ping();
    "4.1" s4_1_undefined_flags_of_a_request_are_ignored:
        |c| c.frame(HEADERS, WHOLE | 0x42, 1, &hpack::encode(&hpack::GET)) => answers(1, 200);
    "4.1" s4_1_undefined_flags_of_data_are_ignored:
        |c| c.post(1, "/echo").data(END_STREAM | 0x46, 1, b"data") => answers_with(1, "data");
    "4.1" s4_1_reserved_bit_is_ignored: |c| c.frame(PING, NONE, 1 << 31, b"settled?") => still_answers_ping();
    "4.1" s4_1_reserved_bit_of_a_request_is_ignored:
        |c| c.frame(HEADERS, WHOLE, 1 << 31 | 1, &hpack::encode(&hpack::GET)) => answers(1, 200);
    "4.2" s4_2_data_of_the_largest_size_is_taken:
        |c| c.post(1, "/echo").data(END_STREAM, 1, &[b'd'; LARGEST]) => answers_with_so_many(1, LARGEST);
    "4.2" s4_2_data_past_the_largest_size_is_refused:
        |c| c.post(1, "/echo").data(END_STREAM, 1, &[0; LARGEST + 1]) => resets_or_ends(1, FRAME_SIZE_ERROR);
    // A frame that alters the state of the whole connection makes it a connection error.
    "4.2" s4_2_field_block_past_the_largest_size_is_refused:
        |c| c.frame(HEADERS, WHOLE, 1, &[0; LARGEST + 1]) => ends_with(FRAME_SIZE_ERROR);
    "4.2" s4_2_settings_past_the_largest_size_are_refused:
        |c| c.frame(SETTINGS, NONE, 0, &[0; 6 * 2731]) => ends_with(FRAME_SIZE_ERROR);
    "4.2" s4_2_unknown_frame_past_the_largest_size_is_refused:
        |c| c.frame(0x16, NONE, 0, &[0; LARGEST + 1]) => ends_with(FRAME_SIZE_ERROR);
}

impl Client {
    /// The PING that was sent with "settled?" is answered.
    fn still_answers_ping(&mut self) {
        self.settle();
        let answer =
            |frame: &&crate::client::Frame| frame.kind == PING && frame.payload == b"settled?";
        let answered = self.came().iter().find(answer);
        let answered = answered.unwrap_or_else(|| panic!("{self:?}\nno answer"));
        assert_eq!((answered.flags, answered.stream), (ACK, 0));
    }

    /// An answer of so many bytes comes.
    fn answers_with_so_many(&mut self, stream: u32, count: usize) {
        self.answers(stream, 200);
        assert_eq!(self.body(stream).len(), count);
    }
}

/// A frame is the same in whatever pieces it comes.
#[test]
fn s4_1_frames_may_come_in_any_pieces() {
    let block = hpack::encode(&hpack::request("POST", "/echo"));
    let said = [
        frame(HEADERS, END_HEADERS, 1, &block),
        frame(0xfa, NONE, 1, b"grease"),
        frame(DATA, NONE, 1, b"one "),
        frame(DATA, END_STREAM, 1, b"two"),
    ]
    .concat();
    for size in [1, 2, 7, 8, 9, 10, 64] {
        let mut client = Client::open("4.1");
        for piece in said.chunks(size) {
            client.raw(piece);
        }
        client.answers_with(1, "one two");
    }
}

/// No frame of a server's is larger than a client allows, which is 16,384 bytes unless it says more.
#[test]
fn s4_2_answers_keep_to_the_largest_size() {
    let mut client = Client::open("4.2");
    client.number(WINDOW_UPDATE, 0, 1 << 20);
    client.settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    client.get(1, "/large");
    assert_eq!(client.body(1).len(), crate::servers::LARGE);
    let largest = client.came().iter().map(|frame| frame.payload.len()).max();
    assert_eq!(largest, Some(LARGEST), "and it makes use of it");
}
