//! RFC 9113, section 8.5: CONNECT; and RFC 8441, which is not offered.

use crate::cases;
use crate::codes::*;

/// A CONNECT as it should be.
const CONNECT: [(&str, &str); 2] = [(":method", "CONNECT"), (":authority", "test:443")];

cases! {
    "8.5" s8_5_connect_reaches_the_handler: |c| c.fields(NONE, 1, &CONNECT) => answers(1, 200);
    "8.5" s8_5_connect_with_a_scheme: |c| c.fields(NONE, 1, &[&CONNECT[..], &[(":scheme", "http")]].concat()) => resets(1, PROTOCOL_ERROR);
    "8.5" s8_5_connect_with_a_path: |c| c.fields(NONE, 1, &[&CONNECT[..], &[(":path", "/")]].concat()) => resets(1, PROTOCOL_ERROR);
    // A server may answer a malformed request before it is done with it (section 8.1.1).
    "8.5" s8_5_connect_without_an_authority: |c| c.fields(NONE, 1, &CONNECT[..1]) => answers(1, 400);
    "8.5" s8_5_protocol_without_connect: |c| c.fields(END_STREAM, 1, &[&crate::hpack::GET[..], &[(":protocol", "websocket")]].concat()) => resets(1, PROTOCOL_ERROR);
}
