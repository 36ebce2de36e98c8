//! Request targets: four forms, each for its methods.

use crate::case::{answered, cases, refused, status};

/// A request with this target.
fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
}

/// CONNECT to this target.
fn connect(target: &str) -> Vec<u8> {
    format!("CONNECT {target} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
}

cases! {
    // --- origin-form ---

    "RFC 9112, 3.2.1" a_path: get("/a/b.c") => answered("GET /a/b.c []");
    "RFC 9112, 3.2.1" a_path_and_a_query: get("/a?b=c&d?/") => answered("GET /a?b=c&d?/ []");
    "RFC 9112, 3.2.1" an_empty_query: get("/?") => answered("GET /? []");
    "RFC 9112, 3.2.1" escapes_stay_as_they_are: get("/%2F%41%20") => answered("GET /%2F%41%20 []");
    "RFC 9112, 3.2.1" dots_stay_as_they_are: get("/a/../b/./") => answered("GET /a/../b/./ []");
    "RFC 3986, 3.3" two_slashes_begin_a_path: get("//other/path") => answered("GET //other/path []");
    "RFC 9112, 3.2.1" a_uri_in_a_query: get("/?http://other/") => answered("GET /?http://other/ []");
    "RFC 9112, 3.2" no_slash: get("path") => refused(&[400]);
    "RFC 9112, 3.2" no_slash_in_the_beginning: get("path/more") => refused(&[400]);
    "RFC 9112, 3.2" a_query_alone: get("?query") => refused(&[400]);
    "RFC 9112, 3.2" a_path_of_dots: get("../path") => refused(&[400]);
    "RFC 9112, 3" no_target: "GET  HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3" no_target_and_no_space: "GET HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" a_space: get("/a b") => refused(&[400]);
    "RFC 9112, 3.2" a_tab: get("/a\tb") => refused(&[400]);
    "RFC 9112, 3.2" a_null: get("/a\0b") => refused(&[400]);
    "RFC 9112, 3.2" a_control_byte: get("/a\x01b") => refused(&[400]);
    "RFC 9112, 3.2" a_delete: get("/a\x7fb") => refused(&[400]);
    "RFC 9112, 3.2" bytes_that_are_no_text:
        b"GET /\xff\xfe HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    // It should be refused, but hyper takes it off before anybody sees it.
    "RFC 9112, 3.2.1" a_fragment_never_reaches_a_handler: get("/a#b") => answered("GET /a []");

    // --- absolute-form ---

    "RFC 9112, 3.2.2" absolute: get("http://test/a?b") => answered("GET http://test/a?b []");
    "RFC 9112, 3.2.2" absolute_with_a_port:
        get("http://test:8080/a") => answered("GET http://test:8080/a []");
    "RFC 9112, 3.2.2" absolute_without_a_path: get("http://test") => answered("GET http://test/ []");
    "RFC 9112, 3.2.2" absolute_with_an_ipv6_address:
        get("http://[::1]:80/") => answered("GET http://[::1]:80/ []");
    "RFC 9110, 4.2.3" absolute_with_a_scheme_in_capitals:
        get("HTTP://test/a") => answered("GET http://test/a []");
    "RFC 9112, 3.2.2" absolute_in_1_0:
        "GET http://test/a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
        => answered("GET http://test/a []");
    "RFC 9112, 3.2.2" the_host_of_an_absolute_target_comes_before_the_field:
        "GET http://target:81/host HTTP/1.1\r\nhost: field\r\n\r\n" => answered(r#"["target:81"]"#);
    "RFC 9112, 3.2.2" the_host_of_an_absolute_target_comes_before_an_empty_field:
        "GET http://target/host HTTP/1.1\r\nhost:\r\n\r\n" => answered(r#"["target"]"#);
    "RFC 9112, 3.2" absolute_without_a_host_field:
        "GET http://test/ HTTP/1.1\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" absolute_with_two_host_fields:
        "GET http://test/ HTTP/1.1\r\nhost: test\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" absolute_with_an_invalid_host_field:
        "GET http://test/ HTTP/1.1\r\nhost: te st\r\n\r\n" => refused(&[400]);
    "RFC 9110, 4.2.1" absolute_without_a_host: get("http:///path") => refused(&[400]);
    "RFC 9110, 4.2.1" absolute_with_a_port_and_no_host: get("http://:80/path") => refused(&[400]);
    "RFC 9110, 4.2.4" absolute_with_a_user: get("http://user@test/") => refused(&[400]);
    "RFC 9110, 4.2.4" absolute_with_a_password: get("http://user:secret@test/") => refused(&[400]);
    "RFC 3986, 3.2.3" absolute_with_a_port_of_letters: get("http://test:http/") => refused(&[400]);
    "RFC 3986, 3.2.3" absolute_with_a_port_past_the_largest:
        get("http://test:65536/") => refused(&[400]);
    "RFC 3986, 3.2.2" absolute_with_an_open_bracket: get("http://[::1/") => refused(&[400]);
    "RFC 3986, 3.2.2" absolute_with_no_address_in_brackets: get("http://[::g]/") => refused(&[400]);
    "RFC 9112, 3.2.2" a_scheme_without_slashes: get("http:test") => refused(&[400]);

    // --- authority-form ---

    "RFC 9112, 3.2.3" an_authority_for_get: get("test") => refused(&[400]);
    "RFC 9112, 3.2.3" an_authority_with_a_port_for_get: get("test:80") => refused(&[400]);
    "RFC 9112, 3.2.3" connect_reaches_the_handler:
        "CONNECT test:443 HTTP/1.1\r\nhost: test:443\r\n\r\n"
        => status(&[200]).and_more().closing_or_not();
    "RFC 9112, 3.2.3" connect_to_a_path: connect("/path") => refused(&[400]);
    "RFC 9112, 3.2.3" connect_to_a_uri: connect("http://test:80/") => refused(&[400]);
    "RFC 9112, 3.2.3" connect_to_an_asterisk: connect("*") => refused(&[400]);
    "RFC 9110, 9.3.6" connect_without_a_port: connect("test") => refused(&[400]);
    "RFC 9110, 9.3.6" connect_with_an_empty_port: connect("test:") => refused(&[400]);
    "RFC 9110, 9.3.6" connect_with_port_zero: connect("test:0") => refused(&[400]);
    "RFC 9110, 9.3.6" connect_with_a_port_of_letters: connect("test:https") => refused(&[400]);
    "RFC 9110, 9.3.6" connect_with_a_port_past_the_largest: connect("test:65536") => refused(&[400]);
    "RFC 9112, 3.2.3" connect_with_a_user: connect("user@test:443") => refused(&[400]);
    "RFC 9112, 3.2.3" connect_without_a_host: connect(":443") => refused(&[400]);

    // --- asterisk-form ---

    "RFC 9112, 3.2.4" options_of_the_server:
        "OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n" => answered("OPTIONS * []");
    "RFC 9112, 3.2.4" options_of_a_path:
        "OPTIONS /a HTTP/1.1\r\nhost: test\r\n\r\n" => answered("OPTIONS /a []");
    "RFC 9112, 3.2.4" an_asterisk_for_get: get("*") => refused(&[400]);
    "RFC 9112, 3.2.4" an_asterisk_for_post:
        "POST * HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2.4" an_asterisk_and_more:
        "OPTIONS *a HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2.4" an_asterisk_with_a_query:
        "OPTIONS *?a HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
}
