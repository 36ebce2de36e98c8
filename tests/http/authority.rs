//! Whom a request of HTTP/2 is for: its `:authority`, and a Host field that says the same (RFC 9113, 8.3.1).

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request};
use http_body_util::Empty;
use quoit_net::http::{Incoming, Strictness};
use tests::{Serve, on_ring};

use crate::peers::{self, whole};
use crate::support::{one_core, text};

/// A request for this URI, with these Host fields.
fn request(uri: &str, hosts: &[&str]) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri.parse().expect("a URI");
    for host in hosts {
        let host = HeaderValue::from_str(host).expect("a field value");
        request.headers_mut().append(HOST, host);
    }
    request
}

/// Asks a server of this strictness, on one connection, and checks with which status each is answered.
fn ask(strictness: Strictness, asked: &'static [(&str, &[&str], u16)]) {
    let server = one_core().strictness(strictness);
    let server = server.serve_boxed(|request: Request<Incoming>| async move {
        text(request.uri().host().unwrap_or_default().to_owned())
    });
    let server = server.expect("a server");
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        for (uri, hosts, status) in asked {
            let answer = sender.send_request(request(uri, hosts)).await;
            let answer = answer.expect("an answer, whatever it is");
            assert_eq!(answer.status(), *status, "{uri} {hosts:?}");
        }
        let next = sender.send_request(request("http://next/", &[])).await;
        assert_eq!(whole(next.expect("an answer")).await, "next");
    });
}

#[test]
fn a_host_that_is_not_the_authority_costs_its_stream() {
    ask(
        Strictness::Strict,
        &[
            ("http://test/", &[], 200),
            ("http://test/", &["test"], 200),
            ("http://TEST/", &["test:80"], 200),
            ("http://test/", &["other"], 400),
            ("http://test/", &["test:81"], 400),
            ("http://test/", &["test", "test"], 400),
            ("http://test/", &["te st"], 400),
            ("http://test/", &["test"], 200),
        ],
    );
}

#[test]
fn a_lenient_server_leaves_the_host_to_its_handler() {
    ask(
        Strictness::Lenient,
        &[
            ("http://test/", &["other"], 200),
            ("http://test/", &["test", "test"], 200),
        ],
    );
}
