//! Methods: tokens, of which each reaches the handler as it was sent.

use crate::case::{answered, cases, ok, refused};

/// A request with this method.
fn method(method: &str) -> Vec<u8> {
    format!("{method} /a HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
}

cases! {
    "RFC 9110, 9.3" get: method("GET") => answered("GET /a []");
    "RFC 9110, 9.3" post: method("POST") => answered("POST /a []");
    "RFC 9110, 9.3" put: method("PUT") => answered("PUT /a []");
    "RFC 9110, 9.3" delete: method("DELETE") => answered("DELETE /a []");
    "RFC 5789, 2" patch: method("PATCH") => answered("PATCH /a []");
    "RFC 9110, 9.3.8" trace: method("TRACE") => answered("TRACE /a []");
    "RFC 9110, 9.3.2" head: method("HEAD") => ok("").without_body().and_more();
    "RFC 9110, 9.1" a_method_in_small_letters_is_another: method("get") => answered("get /a []");
    "RFC 9110, 9.1" a_method_in_mixed_letters_is_another: method("Head") => answered("Head /a []");
    "RFC 9110, 9.1" a_method_that_nobody_knows: method("BREW") => answered("BREW /a []");
    "RFC 9110, 9.1" a_method_that_begins_like_one: method("GETS") => answered("GETS /a []");
    "RFC 9110, 9.1" a_method_of_one_letter: method("G") => answered("G /a []");
    "RFC 9110, 9.1" a_long_method:
        method(&"M".repeat(100)) => answered(&format!("{} /a []", "M".repeat(100)));
    "RFC 9110, 5.6.2" a_method_of_all_that_a_token_may_have:
        method("!#$%&'*+-.^_`|~09azAZ") => answered("!#$%&'*+-.^_`|~09azAZ /a []");
    "RFC 9110, 9.1" no_method: method("") => refused(&[400]);
    "RFC 9110, 5.6.2" a_bracket_in_a_method: method("GE(T") => refused(&[400]);
    "RFC 9110, 5.6.2" a_colon_in_a_method: method("GET:") => refused(&[400]);
    "RFC 9110, 5.6.2" a_quoted_method: method("\"GET\"") => refused(&[400]);
    "RFC 9110, 5.6.2" a_slash_in_a_method: method("GET/") => refused(&[400]);
    "RFC 9110, 5.6.2" a_null_in_a_method: method("GE\0T") => refused(&[400]);
    "RFC 9110, 5.6.2" a_letter_outside_of_ascii_in_a_method: method("G\u{c9}T") => refused(&[400]);
}
