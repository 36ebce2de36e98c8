//! What a lenient server lets pass, and what it does not: nothing about where a message ends.

use crate::case::{Expected, Wire, answered, ok, refused};
use crate::server;

fn check(name: &'static str, sent: &str, expected: &Expected) {
    Wire::open(name, "lenient", server::lenient()).run(sent.as_bytes(), expected);
}

#[test]
fn hosts_are_taken_as_they_come() {
    for (fields, seen) in [
        ("", "[]"),
        ("host:\r\n", r#"[""]"#),
        ("host: one\r\nhost: two\r\n", r#"["one", "two"]"#),
        ("host: user@te st:port\r\n", r#"["user@te st:port"]"#),
    ] {
        let sent = format!("GET /host HTTP/1.1\r\n{fields}\r\n");
        check("hosts_are_taken_as_they_come", &sent, &answered(seen));
    }
}

#[test]
fn the_host_field_stays_beside_an_absolute_target() {
    let name = "the_host_field_stays_beside_an_absolute_target";
    let sent = "GET http://target/host HTTP/1.1\r\nhost: field\r\n\r\n";
    check(name, sent, &answered(r#"["field"]"#));
}

#[test]
fn targets_are_of_any_form() {
    for target in ["test:80", "*", "http://user@test:80/"] {
        let sent = format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n");
        let expected = answered(&format!("GET {target} []"));
        check("targets_are_of_any_form", &sent, &expected);
    }
}

#[test]
fn messages_without_a_certain_end_are_refused() {
    for fields in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: +5",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked, gzip",
        "content-length : 5",
        "x-field: a\r\n b",
    ] {
        let name = "messages_without_a_certain_end_are_refused";
        let sent = format!("POST / HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\nhello");
        check(name, &sent, &refused(&[400]));
    }
    let name = "a length and a coding";
    let fields = "content-length: 9\r\ntransfer-encoding: chunked";
    let sent = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n");
    check(name, &sent, &ok("POST / []").and_end());
}
