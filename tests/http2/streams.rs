//! RFC 9113, sections 5.1.1 and 5.1.2: the numbers of streams, and how many may be open.

use crate::cases;
use crate::client::Client;
use crate::codes::*;
use crate::servers::{self, STREAMS};

cases! {
    "5.1.1" s5_1_1_even_number: |c| c.get(2, "/") => ends_with(PROTOCOL_ERROR);
    "5.1.1" s5_1_1_number_below_the_last: |c| c.get(5, "/wait").get(3, "/") => ends_with_any(&[PROTOCOL_ERROR, STREAM_CLOSED]);
    "5.1.1" s5_1_1_numbers_may_be_left_out: |c| c.get(101, "/") => answers(101, 200);
    "5.1.1" s5_1_1_highest_number: |c| c.get((1 << 31) - 1, "/") => answers((1 << 31) - 1, 200);
}

/// A higher stream closes the lower ones that were never opened.
#[test]
fn s5_1_1_lower_idle_streams_are_closed() {
    let mut client = Client::open("5.1.1");
    client.get(5, "/wait").get(7, "/").answers(7, 200);
    client.number(WINDOW_UPDATE, 3, 1);
    // It is late for a closed stream, and no error of an idle one.
    client.settle();
    assert!(client.code_of_reset(5).is_none(), "{client:?}");
}

/// Opens so many streams that stay open, from stream 1.
fn open_many(client: &mut Client, count: u32) -> u32 {
    for index in 0..count {
        client.get(1 + 2 * index, "/wait");
    }
    client.settle();
    1 + 2 * count
}

/// As many streams as the server allows may be open.
#[test]
fn s5_1_2_as_many_as_allowed_are_served() {
    let mut client = Client::open("5.1.2");
    let next = open_many(&mut client, STREAMS - 1);
    client.goes_on(next);
    assert!((1..next).all(|stream| client.code_of_reset(stream).is_none()));
}

/// One more is refused, as a stream error, and may be tried again.
#[test]
fn s5_1_2_one_more_is_refused() {
    let mut client = Client::open("5.1.2");
    let next = open_many(&mut client, STREAMS);
    client.get(next, "/");
    client.resets_with_any(next, &[REFUSED_STREAM, PROTOCOL_ERROR]);
    client.number(RST_STREAM, 1, CANCEL);
    client.goes_on(next + 2);
}

/// What a client says of its own limit does not count for its requests.
#[test]
fn s5_1_2_limit_of_the_client_is_for_the_server() {
    let mut client = Client::open_at(servers::shared(), "5.1.2");
    client.settings(&[(MAX_CONCURRENT_STREAMS, 0)]);
    client.goes_on(1);
}
