//! RFC 9113, sections 6.6 and 8.4: PUSH_PROMISE, which no client may send.

use crate::cases;
use crate::codes::*;
use crate::hpack;

/// What promises a stream.
fn promise(stream: u32) -> Vec<u8> {
    [&stream.to_be_bytes()[..], &hpack::encode(&hpack::GET)].concat()
}

cases! {
    "8.4" s8_4_promise_of_a_client: |c| c.post(1, "/wait").frame(PUSH_PROMISE, END_HEADERS, 1, &promise(2)) => ends_with(PROTOCOL_ERROR);
    "8.4" s8_4_promise_of_a_client_on_an_idle_stream: |c| c.frame(PUSH_PROMISE, END_HEADERS, 1, &promise(2)) => ends_with(PROTOCOL_ERROR);
    "6.6" s6_6_promise_on_stream_zero: |c| c.frame(PUSH_PROMISE, END_HEADERS, 0, &promise(2)) => ends_with(PROTOCOL_ERROR);
    "6.6" s6_6_promise_of_stream_zero: |c| c.post(1, "/wait").frame(PUSH_PROMISE, END_HEADERS, 1, &promise(0)) => ends_with(PROTOCOL_ERROR);
    "6.6" s6_6_promise_of_an_odd_stream: |c| c.post(1, "/wait").frame(PUSH_PROMISE, END_HEADERS, 1, &promise(3)) => ends_with(PROTOCOL_ERROR);
}
