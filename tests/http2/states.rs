//! RFC 9113, section 5.1: the states of streams, and what may come in each.

use crate::cases;
use crate::client::Client;
use crate::codes::*;
use crate::hpack;

/// Trailers of a request.
fn trailers() -> Vec<u8> {
    hpack::encode(&[("x-checksum", "7")])
}

/// Resets stream 1, which is open, and is then closed.
fn reset(client: &mut Client) -> &mut Client {
    client
        .post(1, "/wait")
        .number(RST_STREAM, 1, CANCEL)
        .settle()
}

/// Ends stream 1 from both sides.
fn end(client: &mut Client) -> &mut Client {
    client.get(1, "/");
    client.body(1);
    client.settle().forget()
}

cases! {
    // Idle: HEADERS and PRIORITY alone.
    "5.1" s5_1_idle_data: |c| c.data(END_STREAM, 1, b"") => ends_with_any(&[PROTOCOL_ERROR, STREAM_CLOSED]);
    "5.1" s5_1_idle_reset: |c| c.number(RST_STREAM, 1, CANCEL) => ends_with(PROTOCOL_ERROR);
    "5.1" s5_1_idle_window_update: |c| c.number(WINDOW_UPDATE, 1, 1) => ends_with(PROTOCOL_ERROR);
    "5.1" s5_1_idle_continuation: |c| c.frame(CONTINUATION, END_HEADERS, 1, &trailers()) => ends_with(PROTOCOL_ERROR);
    "5.1" s5_1_idle_priority: |c| c.frame(PRIORITY, NONE, 1, b"\0\0\0\0\x0f") => ignores();
    "5.1" s5_1_idle_stream_of_the_servers_data: |c| c.data(NONE, 2, b"data") => ends_with_any(&[PROTOCOL_ERROR, STREAM_CLOSED]);
    "5.1" s5_1_idle_stream_of_the_servers_reset: |c| c.number(RST_STREAM, 2, CANCEL) => ends_with(PROTOCOL_ERROR);
    "5.1" s5_1_idle_stream_of_the_servers_window_update: |c| c.number(WINDOW_UPDATE, 2, 1) => ends_with(PROTOCOL_ERROR);
    "5.1" s5_1_idle_higher_stream_data: |c| c.get(1, "/").data(NONE, 5, b"data") => ends_with_any(&[PROTOCOL_ERROR, STREAM_CLOSED]);

    // Half-closed by the client: WINDOW_UPDATE, PRIORITY, RST_STREAM alone.
    "5.1" s5_1_half_closed_data: |c| c.get(1, "/wait").data(END_STREAM, 1, b"data") => resets_or_ends_or_unspecific(1, STREAM_CLOSED);
    "5.1" s5_1_half_closed_empty_data: |c| c.get(1, "/wait").data(END_STREAM, 1, b"") => resets_or_ends_or_unspecific(1, STREAM_CLOSED);
    "5.1" s5_1_half_closed_headers: |c| c.get(1, "/wait").frame(HEADERS, WHOLE, 1, &trailers()) => resets_or_ends_or_unspecific(1, STREAM_CLOSED);
    "5.1" s5_1_half_closed_continuation: |c| c.get(1, "/wait").frame(CONTINUATION, END_HEADERS, 1, &trailers()) => ends_with_any(&[PROTOCOL_ERROR, STREAM_CLOSED]);
    "5.1" s5_1_half_closed_window_update: |c| c.get(1, "/wait").number(WINDOW_UPDATE, 1, 1) => ignores();
    "5.1" s5_1_half_closed_priority: |c| c.get(1, "/wait").frame(PRIORITY, NONE, 1, b"\0\0\0\0\x0f") => ignores();
    "5.1" s5_1_half_closed_reset: |c| c.get(1, "/wait").number(RST_STREAM, 1, CANCEL) => ignores();
    "5.1" s5_1_half_closed_by_trailers_data:
        |c| c.post(1, "/wait").frame(HEADERS, WHOLE, 1, &trailers()).data(NONE, 1, b"data") => resets_or_ends_or_unspecific(1, STREAM_CLOSED);

    // Closed by a reset of the client's: it knows, and has no excuse.
    "5.1" s5_1_reset_data: |c| reset(&mut c).data(END_STREAM, 1, b"data") => resets_or_ends(1, STREAM_CLOSED);
    "5.1" s5_1_reset_headers: |c| reset(&mut c).frame(HEADERS, WHOLE, 1, &trailers()) => resets_or_ends_or_unspecific(1, STREAM_CLOSED);
    "5.1" s5_1_reset_request: |c| reset(&mut c).get(1, "/") => resets_or_ends_or_unspecific(1, STREAM_CLOSED);
    "5.1" s5_1_reset_continuation: |c| reset(&mut c).frame(CONTINUATION, END_HEADERS, 1, &trailers()) => ends_with_any(&[PROTOCOL_ERROR, STREAM_CLOSED]);
    "5.1" s5_1_reset_priority: |c| reset(&mut c).frame(PRIORITY, NONE, 1, b"\0\0\0\0\x0f") => ignores();
    "5.1" s5_1_reset_reset: |c| reset(&mut c).number(RST_STREAM, 1, CANCEL) => ignores();
    "5.1" s5_1_reset_window_update: |c| reset(&mut c).number(WINDOW_UPDATE, 1, 1) => ignores();

    // Closed by both ends.
    "5.1" s5_1_closed_data: |c| end(&mut c).data(END_STREAM, 1, b"data") => resets_or_ends(1, STREAM_CLOSED);
    "5.1" s5_1_closed_headers: |c| end(&mut c).frame(HEADERS, WHOLE, 1, &trailers()) => resets_or_ends_or_unspecific(1, STREAM_CLOSED);
    "5.1" s5_1_closed_request: |c| end(&mut c).get(1, "/") => resets_or_ends_or_unspecific(1, STREAM_CLOSED);
    "5.1" s5_1_closed_continuation: |c| end(&mut c).frame(CONTINUATION, END_HEADERS, 1, &trailers()) => ends_with_any(&[PROTOCOL_ERROR, STREAM_CLOSED]);
    "5.1" s5_1_closed_window_update: |c| end(&mut c).number(WINDOW_UPDATE, 1, 1) => ignores();
    "5.1" s5_1_closed_priority: |c| end(&mut c).frame(PRIORITY, NONE, 1, b"\0\0\0\0\x0f") => ignores();
    "5.1" s5_1_closed_reset: |c| end(&mut c).number(RST_STREAM, 1, CANCEL) => ignores();
}
