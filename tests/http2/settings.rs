//! RFC 9113, section 6.5: SETTINGS.

use crate::cases;
use crate::client::{Client, Frame, PREFACE};
use crate::codes::*;
use crate::servers;

cases! {
    "6.5" s6_5_settings_ack_with_a_payload: |c| c.frame(SETTINGS, ACK, 0, &[0; 6]) => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.5" s6_5_settings_on_a_stream: |c| c.frame(SETTINGS, NONE, 1, &[0; 6]) => ends_with(PROTOCOL_ERROR);
    "6.5" s6_5_settings_of_an_odd_length: |c| c.frame(SETTINGS, NONE, 0, &[0; 5]) => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.5" s6_5_settings_ack_on_a_stream: |c| c.frame(SETTINGS, ACK, 1, b"") => ends_with(PROTOCOL_ERROR);
    "6.5.2" s6_5_2_enable_push_of_two: |c| c.settings(&[(ENABLE_PUSH, 2)]) => ends_with(PROTOCOL_ERROR);
    "6.5.2" s6_5_2_initial_window_past_the_largest: |c| c.settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]) => ends_with_or_unspecific(FLOW_CONTROL_ERROR);
    "6.5.2" s6_5_2_frame_size_below_the_least: |c| c.settings(&[(MAX_FRAME_SIZE, 16_383)]) => ends_with(PROTOCOL_ERROR);
    "6.5.2" s6_5_2_frame_size_of_zero: |c| c.settings(&[(MAX_FRAME_SIZE, 0)]) => ends_with(PROTOCOL_ERROR);
    "6.5.2" s6_5_2_frame_size_past_the_largest: |c| c.settings(&[(MAX_FRAME_SIZE, 1 << 24)]) => ends_with(PROTOCOL_ERROR);
    "6.5.2" s6_5_2_unknown_setting_is_ignored: |c| c.settings(&[(0xfafa, 7)]) => acknowledges_and_goes_on(1);
    "6.5.2" s6_5_2_every_known_setting_is_taken: |c| c.settings(&[
        (HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (MAX_CONCURRENT_STREAMS, 0),
        (INITIAL_WINDOW_SIZE, 1000), (MAX_FRAME_SIZE, (1 << 24) - 1), (MAX_HEADER_LIST_SIZE, 1000),
    ]) => acknowledges_and_goes_on(1);
    "6.5.2" s6_5_2_enable_push_of_one_is_taken: |c| c.settings(&[(ENABLE_PUSH, 1)]) => acknowledges_and_goes_on(1);
    "6.5.3" s6_5_3_settings_are_acknowledged: |c| c.settings(&[]) => acknowledges_and_goes_on(1);
    "6.5.3" s6_5_3_last_value_counts:
        |c| c.settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 2)]).get(1, "/") => sends_so_many_at_first(1, 2);
}

fn is_ack(frame: &Frame) -> bool {
    frame.kind == SETTINGS && frame.flags == ACK
}

impl Client {
    /// One acknowledgement comes, and then an answer.
    fn acknowledges_and_goes_on(&mut self, acknowledgements: usize) {
        self.settle();
        let came = self.came().iter().filter(|frame| is_ack(frame)).count();
        assert_eq!(came, acknowledgements, "{self:?}");
        self.goes_on(1);
    }

    /// So much of the answer comes before the window is opened.
    fn sends_so_many_at_first(&mut self, stream: u32, count: usize) {
        self.wait_for(|frame| frame.kind == DATA && frame.stream == stream);
        self.settle();
        let of_stream = |frame: &&Frame| frame.kind == DATA && frame.stream == stream;
        let came = self.came().iter().filter(of_stream);
        assert_eq!(
            came.map(|frame| frame.payload.len()).sum::<usize>(),
            count,
            "{self:?}"
        );
    }
}

/// Each of several SETTINGS is acknowledged.
#[test]
fn s6_5_3_each_is_acknowledged() {
    let mut client = Client::open("6.5.3");
    for _ in 0..5 {
        client.settings(&[]);
    }
    client.acknowledges_and_goes_on(5);
}

/// What a server says of itself is within the limits of each setting.
#[test]
fn s6_5_2_settings_of_the_server_are_sound() {
    let mut client = Client::silent(servers::shared(), "6.5.2");
    client.raw(PREFACE).settings(&[]);
    let theirs = client.read().expect("its settings");
    for setting in theirs.payload.chunks(6) {
        let name = u16::from_be_bytes([setting[0], setting[1]]);
        let value = u32::from_be_bytes(setting[2..].try_into().expect("four bytes"));
        match name {
            ENABLE_PUSH => assert_eq!(value, 0, "a server must not say anything else"),
            MAX_CONCURRENT_STREAMS => assert_eq!(value, servers::STREAMS),
            INITIAL_WINDOW_SIZE => assert!(value < 1 << 31),
            MAX_FRAME_SIZE => assert!((1 << 14..1 << 24).contains(&value)),
            _ => {}
        }
    }
}
