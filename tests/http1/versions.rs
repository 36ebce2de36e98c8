//! Versions: 1.1 and 1.0 are spoken here, and what names another is refused before it is understood.

use crate::case::{cases, ok, refused};

/// A request of this version.
fn of(version: &str) -> Vec<u8> {
    format!("GET / {version}\r\nhost: test\r\n\r\n").into_bytes()
}

cases! {
    "RFC 9112, 2.3" version_1_1: of("HTTP/1.1") => ok("GET / []").and_more();
    "RFC 9112, 2.3" version_1_0: of("HTTP/1.0") => ok("GET / []").and_end();
    "RFC 9112, 2.3" the_name_in_small_letters: of("http/1.1") => refused(&[400]);
    "RFC 9112, 2.3" another_name: of("HTTQ/1.1") => refused(&[400]);
    "RFC 9112, 2.3" no_number: of("HTTP/") => refused(&[400]);
    "RFC 9112, 2.3" no_minor_number: of("HTTP/1") => refused(&[400]);
    "RFC 9112, 2.3" an_empty_minor_number: of("HTTP/1.") => refused(&[400]);
    "RFC 9112, 2.3" a_minor_number_of_two_digits: of("HTTP/1.10") => refused(&[400]);
    "RFC 9112, 2.3" a_major_number_of_two_digits: of("HTTP/01.1") => refused(&[400]);
    "RFC 9112, 2.3" a_space_in_the_version: of("HTTP/ 1.1") => refused(&[400]);
    "RFC 9112, 2.3" a_comma_in_the_version: of("HTTP/1,1") => refused(&[400]);
    "RFC 9112, 2.3" version_0_9: "GET /\r\n\r\n" => refused(&[400]);
    "RFC 9110, 2.5" version_0_9_by_name: of("HTTP/0.9") => refused(&[400, 505]);
    // A server should take it for 1.1; hyper's parser does not.
    "RFC 9110, 2.5" version_1_2: of("HTTP/1.2") => refused(&[400, 505]);
    "RFC 9110, 15.6.6" version_2_0: of("HTTP/2.0") => refused(&[400, 505]);
    "RFC 9110, 15.6.6" version_2: of("HTTP/2") => refused(&[400, 505]);
    "RFC 9110, 15.6.6" version_9_9: of("HTTP/9.9") => refused(&[400, 505]);
    "RFC 9113, 3.4" the_preface_of_version_2_with_a_field:
        "PRI * HTTP/2.0\r\nhost: test\r\n\r\nSM\r\n\r\n" => refused(&[400, 505]);
}
