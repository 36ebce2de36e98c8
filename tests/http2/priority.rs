//! RFC 9113, sections 5.3 and 6.3: PRIORITY, which is deprecated, and still has a form.

use crate::cases;
use crate::client::Client;
use crate::codes::*;
use crate::hpack;

cases! {
    "5.3" s5_3_priority_is_ignored: |c| c.frame(PRIORITY, NONE, 1, b"\0\0\0\x03\x0f") => ignores();
    "5.3" s5_3_exclusive_priority_is_ignored: |c| c.frame(PRIORITY, NONE, 1, b"\x80\0\0\x03\xff") => ignores();
    "5.3" s5_3_priority_update_is_ignored: |c| c.frame(0x10, NONE, 0, b"\0\0\0\x01u=1") => ignores();
    // Dependencies mean nothing any more; RFC 7540, section 5.3.1, made these stream errors, and hyper does.
    "5.3" s5_3_headers_that_depend_on_themselves:
        |c| c.frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[b"\0\0\0\x01\x0f", &hpack::encode(&hpack::GET)[..]].concat()) => answers_or_resets(1, PROTOCOL_ERROR);
    "5.3" s5_3_priority_that_depends_on_itself: |c| c.post(1, "/wait").frame(PRIORITY, NONE, 1, b"\0\0\0\x01\x0f") => ignores_or_resets(1, PROTOCOL_ERROR);
    "6.3" s6_3_priority_on_stream_zero: |c| c.frame(PRIORITY, NONE, 0, b"\0\0\0\x01\x0f") => ends_with(PROTOCOL_ERROR);
    "6.3" s6_3_priority_too_short: |c| c.post(1, "/wait").frame(PRIORITY, NONE, 1, b"\0\0\0\0") => resets_or_ends_or_unspecific(1, FRAME_SIZE_ERROR);
    "6.3" s6_3_priority_too_long: |c| c.post(1, "/wait").frame(PRIORITY, NONE, 1, b"\0\0\0\0\0\0") => resets_or_ends_or_unspecific(1, FRAME_SIZE_ERROR);
    "6.3" s6_3_priority_on_a_half_closed_stream: |c| c.get(1, "/wait").frame(PRIORITY, NONE, 1, b"\0\0\0\0\x0f") => ignores();
}

impl Client {
    fn answers_or_resets(&mut self, stream: u32, code: u32) {
        self.settle();
        match self.code_of_reset(stream) {
            Some(_) => self.resets(stream, code),
            None => self.answers(stream, 200),
        }
    }

    fn ignores_or_resets(&mut self, stream: u32, code: u32) {
        self.settle();
        match self.code_of_reset(stream) {
            Some(_) => self.resets(stream, code),
            None => self.ignores(),
        }
    }
}
