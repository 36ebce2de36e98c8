//! The Host field: once in each request of HTTP/1.1, and the name of a host.

use crate::case::{answered, cases, ok, refused};

/// A request with this for its only Host.
fn host(value: &str) -> Vec<u8> {
    format!("GET /host HTTP/1.1\r\nHost:{value}\r\n\r\n").into_bytes()
}

cases! {
    // --- once ---

    "RFC 9112, 3.2" no_host: "GET / HTTP/1.1\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" no_host_among_other_fields:
        "GET / HTTP/1.1\r\naccept: */*\r\nx-host: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" two_hosts:
        "GET / HTTP/1.1\r\nhost: one\r\nhost: two\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" the_same_host_twice:
        "GET / HTTP/1.1\r\nhost: test\r\naccept: */*\r\nHost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" a_host_and_an_empty_one:
        "GET / HTTP/1.1\r\nhost: test\r\nhost:\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" no_host_and_a_second_request:
        "GET / HTTP/1.1\r\n\r\nGET /second HTTP/1.1\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" no_host_and_a_body:
        "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello" => refused(&[400]);
    "RFC 9112, 3.2" no_host_for_the_server_itself:
        "OPTIONS * HTTP/1.1\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" no_host_in_1_0: "GET / HTTP/1.0\r\n\r\n" => ok("GET / []").and_end();
    "RFC 9112, 3.2" two_hosts_in_1_0:
        "GET / HTTP/1.0\r\nhost: test\r\nhost: test\r\n\r\n" => refused(&[400]);
    "RFC 9112, 3.2" an_invalid_host_in_1_0:
        "GET / HTTP/1.0\r\nhost: te st\r\n\r\n" => refused(&[400]);

    // --- what is one ---

    "RFC 9110, 7.2" a_name: host(" test") => answered(r#"["test"]"#);
    "RFC 9110, 5.5" a_name_in_white_space: host("\t test \t") => answered(r#"["test"]"#);
    "RFC 9110, 5.5" a_name_without_white_space: host("test") => answered(r#"["test"]"#);
    "RFC 9110, 5.1" the_field_in_capitals:
        "GET /host HTTP/1.1\r\nHOST: test\r\n\r\n" => answered(r#"["test"]"#);
    "RFC 3986, 3.2.2" a_name_in_capitals: host(" TEST.example") => answered(r#"["TEST.example"]"#);
    "RFC 3986, 3.2.2" a_name_with_a_dot_at_its_end: host(" test.") => answered(r#"["test."]"#);
    "RFC 3986, 3.2.2" a_name_with_an_underscore: host(" my_host") => answered(r#"["my_host"]"#);
    "RFC 3986, 3.2.2" a_name_with_an_escape: host(" t%65st") => answered(r#"["t%65st"]"#);
    "RFC 3986, 3.2.3" a_port: host(" test:8080") => answered(r#"["test:8080"]"#);
    "RFC 3986, 3.2.3" an_empty_port: host(" test:") => answered(r#"["test:"]"#);
    "RFC 3986, 3.2.3" the_largest_port: host(" test:65535") => answered(r#"["test:65535"]"#);
    "RFC 3986, 3.2.2" an_ipv4_address: host(" 127.0.0.1") => answered(r#"["127.0.0.1"]"#);
    "RFC 3986, 3.2.2" an_ipv6_address: host(" [::1]") => answered(r#"["[::1]"]"#);
    "RFC 3986, 3.2.2" an_ipv6_address_with_a_port:
        host(" [2001:db8::7]:443") => answered(r#"["[2001:db8::7]:443"]"#);
    "RFC 3986, 3.2.2" an_ipv6_address_with_an_ipv4_end:
        host(" [::ffff:10.0.0.1]") => answered(r#"["[::ffff:10.0.0.1]"]"#);
    "RFC 3986, 3.2.2" an_address_of_the_future: host(" [v1.a:b]") => answered(r#"["[v1.a:b]"]"#);

    // --- what is none ---

    "RFC 9110, 4.2.1" an_empty_host: host("") => refused(&[400]);
    "RFC 9110, 4.2.1" a_host_of_white_space: host(" \t ") => refused(&[400]);
    "RFC 9110, 4.2.1" a_port_without_a_host: host(" :80") => refused(&[400]);
    "RFC 9110, 7.2" a_user: host(" user@test") => refused(&[400]);
    "RFC 9110, 7.2" a_user_with_a_password: host(" user:secret@test") => refused(&[400]);
    "RFC 9110, 7.2" a_uri: host(" http://test") => refused(&[400]);
    "RFC 9110, 7.2" a_path: host(" test/path") => refused(&[400]);
    "RFC 9110, 7.2" a_query: host(" test?query") => refused(&[400]);
    "RFC 9110, 7.2" a_fragment: host(" test#fragment") => refused(&[400]);
    "RFC 9110, 7.2" a_space: host(" te st") => refused(&[400]);
    "RFC 9110, 7.2" a_tab: host(" te\tst") => refused(&[400]);
    "RFC 9110, 7.2" a_list: host(" one, two") => refused(&[400]);
    "RFC 9110, 7.2" a_backslash: host(" test\\path") => refused(&[400]);
    "RFC 9110, 7.2" quotes: host(" \"test\"") => refused(&[400]);
    "RFC 9110, 7.2" angle_brackets: host(" <test>") => refused(&[400]);
    "RFC 9110, 7.2" letters_outside_of_ascii: host(" t\u{e9}st") => refused(&[400]);
    "RFC 3986, 2.1" half_an_escape: host(" test%2") => refused(&[400]);
    "RFC 3986, 2.1" an_escape_of_no_digits: host(" te%zzst") => refused(&[400]);
    "RFC 3986, 3.2.3" a_port_of_letters: host(" test:http") => refused(&[400]);
    "RFC 3986, 3.2.3" a_port_with_a_sign: host(" test:+80") => refused(&[400]);
    "RFC 3986, 3.2.3" a_negative_port: host(" test:-80") => refused(&[400]);
    "RFC 3986, 3.2.3" a_port_past_the_largest: host(" test:65536") => refused(&[400]);
    "RFC 3986, 3.2.3" a_port_that_overflows:
        host(" test:99999999999999999999") => refused(&[400]);
    "RFC 3986, 3.2.3" two_ports: host(" test:80:80") => refused(&[400]);
    "RFC 3986, 3.2.2" an_ipv6_address_without_brackets: host(" ::1") => refused(&[400]);
    "RFC 3986, 3.2.2" an_open_bracket: host(" [::1") => refused(&[400]);
    "RFC 3986, 3.2.2" a_closed_bracket: host(" ::1]") => refused(&[400]);
    "RFC 3986, 3.2.2" nothing_in_brackets: host(" []") => refused(&[400]);
    "RFC 3986, 3.2.2" a_name_in_brackets: host(" [test]") => refused(&[400]);
    "RFC 3986, 3.2.2" no_digits_in_an_ipv6_address: host(" [::g]") => refused(&[400]);
    "RFC 3986, 3.2.2" letters_after_a_bracket: host(" [::1]test") => refused(&[400]);
    "RFC 3986, 3.2.2" an_address_of_the_future_without_a_version:
        host(" [v.a]") => refused(&[400]);
}
