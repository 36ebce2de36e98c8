//! RFC 9113, sections 6.9 and 5.2: WINDOW_UPDATE and the windows.

use crate::cases;
use crate::client::{Client, Frame};
use crate::codes::*;
use crate::servers;

/// The largest window.
const MOST: u32 = (1 << 31) - 1;

cases! {
    "6.9" s6_9_update_of_zero_on_the_connection: |c| c.number(WINDOW_UPDATE, 0, 0) => ends_with(PROTOCOL_ERROR);
    "6.9" s6_9_update_of_zero_on_a_stream: |c| c.get(1, "/wait").number(WINDOW_UPDATE, 1, 0) => resets_or_ends(1, PROTOCOL_ERROR);
    "6.9" s6_9_update_too_short: |c| c.frame(WINDOW_UPDATE, NONE, 0, b"\0\0\x01") => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.9" s6_9_update_too_long: |c| c.frame(WINDOW_UPDATE, NONE, 0, b"\0\0\0\x01\0") => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.9" s6_9_reserved_bit_is_ignored: |c| c.number(WINDOW_UPDATE, 0, 1 << 31 | 1) => ignores();
    "6.9.1" s6_9_1_window_of_the_connection_overflows: |c| c.number(WINDOW_UPDATE, 0, MOST) => ends_with(FLOW_CONTROL_ERROR);
    "6.9.1" s6_9_1_windows_of_the_connection_overflow_in_two:
        |c| c.number(WINDOW_UPDATE, 0, MOST - 65_535).number(WINDOW_UPDATE, 0, 1) => ends_with(FLOW_CONTROL_ERROR);
    "6.9.1" s6_9_1_window_of_a_stream_overflows: |c| c.get(1, "/wait").number(WINDOW_UPDATE, 1, MOST) => resets_or_ends(1, FLOW_CONTROL_ERROR);
    "6.9.1" s6_9_1_largest_windows_are_taken: |c| c.get(1, "/wait").number(WINDOW_UPDATE, 0, MOST - 65_535).number(WINDOW_UPDATE, 1, MOST - 65_535) => ignores();
    "6.9" s6_9_update_on_a_half_closed_stream: |c| c.get(1, "/wait").number(WINDOW_UPDATE, 1, 10) => ignores();
    "6.9" s6_9_update_on_an_idle_stream: |c| c.number(WINDOW_UPDATE, 1, 10) => ends_with(PROTOCOL_ERROR);
    "6.9.2" s6_9_2_initial_window_makes_a_stream_overflow:
        |c| c.get(1, "/wait").number(WINDOW_UPDATE, 1, MOST - 65_535).settings(&[(INITIAL_WINDOW_SIZE, 65_536)]) => ends_with(FLOW_CONTROL_ERROR);
}

impl Client {
    /// How much of an answer came so far.
    fn so_far(&self, stream: u32) -> usize {
        let of_stream = |frame: &&Frame| frame.kind == DATA && frame.stream == stream;
        let frames = self.came().iter().filter(of_stream);
        frames.map(|frame| frame.payload.len()).sum()
    }

    /// Reads until so much of an answer came, and makes sure that no more comes.
    fn comes_to(&mut self, stream: u32, count: usize) {
        while self.so_far(stream) < count {
            self.wait_for(|frame| frame.kind == DATA && frame.stream == stream);
        }
        self.settle();
        assert_eq!(self.so_far(stream), count, "{self:?}");
    }
}

/// A client's initial window holds for what was sent before anything else is said.
#[test]
fn s6_9_1_answer_stops_at_the_window_of_its_stream() {
    let mut client = Client::open("6.9.1");
    client
        .settings(&[(INITIAL_WINDOW_SIZE, 10)])
        .get(1, "/large");
    client.comes_to(1, 10);
    client.number(WINDOW_UPDATE, 1, 1);
    client.comes_to(1, 11);
    client.number(WINDOW_UPDATE, 1, 989);
    client.comes_to(1, 1000);
}

/// The window of the connection holds for all streams together.
#[test]
fn s6_9_1_answers_stop_at_the_window_of_the_connection() {
    let mut client = Client::open("6.9.1");
    client.settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    client.get(1, "/large").get(3, "/large");
    while client.so_far(1) + client.so_far(3) < 65_535 {
        client.wait_for(|frame| frame.kind == DATA);
    }
    client.settle();
    assert_eq!(client.so_far(1) + client.so_far(3), 65_535, "{client:?}");
    client.number(WINDOW_UPDATE, 0, 1 << 20);
    assert_eq!(client.body(1).len(), servers::LARGE);
    assert_eq!(client.body(3).len(), servers::LARGE);
}

/// A change of the initial window changes the windows of open streams.
#[test]
fn s6_9_2_initial_window_holds_for_open_streams() {
    let mut client = Client::open("6.9.2");
    client
        .settings(&[(INITIAL_WINDOW_SIZE, 0)])
        .get(1, "/large");
    client.answers(1, 200);
    client.comes_to(1, 0);
    client.settings(&[(INITIAL_WINDOW_SIZE, 3)]);
    client.comes_to(1, 3);
    client.settings(&[(INITIAL_WINDOW_SIZE, 5)]);
    client.comes_to(1, 5);
}

/// A window that shrinks may become negative, and is made good before more is sent.
#[test]
fn s6_9_2_window_may_become_negative() {
    let mut client = Client::open("6.9.2");
    client
        .settings(&[(INITIAL_WINDOW_SIZE, 8)])
        .get(1, "/large");
    client.comes_to(1, 8);
    // 3 - 8 = -5.
    client.settings(&[(INITIAL_WINDOW_SIZE, 3)]);
    client.number(WINDOW_UPDATE, 1, 5);
    client.comes_to(1, 8);
    client.number(WINDOW_UPDATE, 1, 2);
    client.comes_to(1, 10);
}

/// A change of the initial window leaves the window of the connection as it is.
#[test]
fn s6_9_2_initial_window_is_none_of_the_connections() {
    let mut client = Client::open("6.9.2");
    client.settings(&[(INITIAL_WINDOW_SIZE, 0)]);
    client.settings(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    client.get(1, "/large");
    client.comes_to(1, 65_535);
}

/// Data past the window that the server gave a stream is an error of the stream or the connection.
#[test]
fn s6_9_1_data_past_the_window_of_its_stream_is_refused() {
    let mut client = Client::open("6.9.1");
    // Nobody reads it, so no window is given back.
    client.post(1, "/wait").fill_window(1);
    client.settle();
    assert_eq!(client.code_of_reset(1), None, "{client:?}");
    client
        .data(NONE, 1, b"!")
        .resets_or_ends(1, FLOW_CONTROL_ERROR);
}

/// Data past the window that the server gave the connection is an error of the connection.
#[test]
fn s6_9_1_data_past_the_window_of_the_connection_is_refused() {
    let mut client = Client::open("6.9.1");
    let mut stream = 1;
    while client.room(stream) > 0 {
        client.post(stream, "/wait").fill_window(stream);
        stream += 2;
    }
    client.settle();
    client.post(stream, "/wait").data(NONE, stream, b"!");
    client.ends_with(FLOW_CONTROL_ERROR);
}

/// What a handler has read is given back: a body larger than all windows comes through.
#[test]
fn s6_9_windows_are_given_back_as_a_body_is_read() {
    let mut client = Client::open("6.9");
    client.settings(&[(INITIAL_WINDOW_SIZE, MOST)]);
    client.number(WINDOW_UPDATE, 0, MOST - 65_535);
    client.post(1, "/echo");
    const FRAMES: usize = 300;
    for _ in 0..FRAMES {
        client.upload(NONE, 1, &[b'd'; LARGEST]);
    }
    client.data(END_STREAM, 1, b"");
    assert_eq!(client.body(1).len(), FRAMES * LARGEST);
}
