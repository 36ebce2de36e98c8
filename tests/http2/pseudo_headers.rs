//! RFC 9113, section 8.3: pseudo-header fields.

use crate::cases;
use crate::client::Client;
use crate::codes::*;
use crate::hpack::{GET, encode, get_but, get_without, with};

cases! {
    "8.3" s8_3_unknown: |c| c.fields(END_STREAM, 1, &with(&[(":unknown", "x")], &GET)) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.3" s8_3_status_in_a_request: |c| c.fields(END_STREAM, 1, &with(&GET, &[(":status", "200")])) => resets(1, PROTOCOL_ERROR);
    "8.3" s8_3_in_trailers: |c| c.post(1, "/fields").data(NONE, 1, b"data").frame(HEADERS, WHOLE, 1, &encode(&[(":method", "POST")])) => resets_or_hides(1, PROTOCOL_ERROR);
    "8.3" s8_3_status_in_trailers: |c| c.post(1, "/fields").data(NONE, 1, b"data").frame(HEADERS, WHOLE, 1, &encode(&[(":status", "200")])) => resets_or_hides(1, PROTOCOL_ERROR);
    "8.3" s8_3_behind_a_regular_field:
        |c| c.fields(END_STREAM, 1, &with(&get_without(":path"), &[("x-regular", "x"), (":path", "/")])) => resets(1, PROTOCOL_ERROR);
    "8.3" s8_3_all_behind_a_regular_field: |c| c.fields(END_STREAM, 1, &with(&[("x-regular", "x")], &GET)) => resets(1, PROTOCOL_ERROR);
    "8.3" s8_3_upper_case: |c| c.fields(END_STREAM, 1, &with(&get_without(":path"), &[(":Path", "/")])) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_no_method: |c| c.fields(END_STREAM, 1, &get_without(":method")) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_no_scheme: |c| c.fields(END_STREAM, 1, &get_without(":scheme")) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_no_path: |c| c.fields(END_STREAM, 1, &get_without(":path")) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_none_at_all: |c| c.fields(END_STREAM, 1, &[("x-regular", "x")]) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_empty_path: |c| c.fields(END_STREAM, 1, &get_but(":path", "")) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_empty_method: |c| c.fields(END_STREAM, 1, &get_but(":method", "")) => resets_or_ends(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_method_with_a_space: |c| c.fields(END_STREAM, 1, &get_but(":method", "GET /")) => resets_or_ends(1, PROTOCOL_ERROR);
    // A server may answer a malformed request before it is done with it (section 8.1.1).
    "8.3.1" s8_3_1_empty_scheme: |c| c.fields(END_STREAM, 1, &get_but(":scheme", "")) => answers(1, 400);
    "8.3.1" s8_3_1_path_with_a_line_feed: |c| c.fields(END_STREAM, 1, &get_but(":path", "/a\nb")) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_path_with_a_space: |c| c.fields(END_STREAM, 1, &get_but(":path", "/a b")) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_method_twice: |c| c.fields(END_STREAM, 1, &with(&[(":method", "GET")], &GET)) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_scheme_twice: |c| c.fields(END_STREAM, 1, &with(&[(":scheme", "http")], &GET)) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_path_twice: |c| c.fields(END_STREAM, 1, &with(&[(":path", "/")], &GET)) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_authority_twice: |c| c.fields(END_STREAM, 1, &with(&[(":authority", "test")], &GET)) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_authority_that_is_none: |c| c.fields(END_STREAM, 1, &get_but(":authority", "a b")) => resets(1, PROTOCOL_ERROR);
    "8.3.1" s8_3_1_host_instead_of_authority: |c| c.fields(END_STREAM, 1, &with(&get_without(":authority"), &[("host", "test")])) => answers(1, 200);
    "8.3.1" s8_3_1_options_of_the_whole_server: |c| c.fields(END_STREAM, 1, &with(&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")], &[(":authority", "test")])) => answers(1, 200);
    "8.3.1" s8_3_1_any_order: |c| c.fields(END_STREAM, 1, &GET.into_iter().rev().collect::<Vec<_>>()) => answers(1, 200);
}

impl Client {
    /// Pseudo-header fields in trailers make a request malformed. hyper takes them off instead: it does
    /// no harm as long as no handler sees them.
    fn resets_or_hides(&mut self, stream: u32, code: u32) {
        self.settle();
        match self.code_of_reset(stream) {
            Some(_) => self.resets(stream, code),
            None => self.answers_with(stream, "Some({})"),
        }
    }
}
