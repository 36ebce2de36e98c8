//! What a server says of itself: counts and latencies, the page, and who is told of each request.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;
use tests::{Serve, on_ring};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG, TRAILER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::Full;
use quoit::metrics::Snapshot;
use quoit::sync::Event;
use quoit_net::http::{Incoming, Page, Server, ServerHandle};
use serde_json::Value;
use tests::http_client::Client;

use crate::peers;
use crate::support::{Pieces, Text, narrow, one_core, text};

/// `/fail` fails, `/wait` waits for ever, `/none` is answered without content, all else with a text.
async fn handler(request: Request<Incoming>) -> io::Result<Text> {
    match request.uri().path() {
        "/fail" => Err(io::Error::other("as it was told to")),
        "/panic" => panic!("as it was told to"),
        "/none" => {
            let mut none = text("").expect("a text");
            *none.status_mut() = StatusCode::NO_CONTENT;
            Ok(none)
        }
        "/wait" => {
            Event::new().wait().await?;
            unreachable!("it never happens")
        }
        _ => Ok(text("hello").expect("a text")),
    }
}

/// Waits until nobody is connected any more: every request has ended then. Returns the figures.
fn when_all_have_gone(handle: &ServerHandle) -> Snapshot {
    while handle.open_connections() > 0 {
        std::thread::yield_now();
    }
    handle.snapshot()
}

fn count(snapshot: &Snapshot, name: &str, label: Option<&str>) -> u64 {
    let count = snapshot.cores[0].count(name, label);
    count.expect("something that is counted")
}

/// Requests that come together are measured together, when the send begins that answers them.
#[test]
fn pipelined_requests_are_measured_when_their_answers_are_there() {
    let server = one_core().serve_boxed(handler).expect("a server");
    let mut client = TcpStream::connect(server.local_addr()).expect("a connection");
    let asked = "GET / HTTP/1.1\r\nhost: test\r\n\r\n".repeat(5);
    for round in 1..=2 {
        client.write_all(asked.as_bytes()).expect("it is sent");
        let mut came = Vec::new();
        while came.windows(5).filter(|bytes| bytes == b"hello").count() < 5 {
            let mut bytes = [0; 4096];
            let count = client.read(&mut bytes).expect("answers");
            assert_ne!(count, 0, "the server goes on");
            came.extend_from_slice(&bytes[..count]);
        }
        let figures = server.handle().snapshot();
        assert_eq!(figures.merged("request").count(), 5 * round);
    }
}

#[test]
fn every_request_is_counted_once_by_what_became_of_it() {
    let server = one_core()
        .handler_timeout(Duration::from_millis(20))
        .max_body(10)
        .on_trouble(|_| {})
        .serve_boxed(handler)
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(client.get("/none").status(), 204);
    assert_eq!(client.get("/fail").status(), 500);
    assert_eq!(client.get("/panic").status(), 500);
    assert_eq!(client.get("/wait").status(), 503);
    assert_eq!(client.get_with("/", "content-length: 11\r\n").status(), 413);
    drop(client);
    let figures = when_all_have_gone(&server.handle());
    for (name, label, expected) in [
        ("connections", None, 0),
        ("connections_limit", None, 16_384),
        ("connections_accepted", None, 1),
        ("requests", Some("http1"), 8),
        ("requests", Some("http2"), 0),
        ("answers", Some("2xx"), 4),
        ("answers", Some("4xx"), 1),
        ("answers", Some("5xx"), 3),
        ("failed", None, 2),
        ("late", None, 1),
        ("refused", None, 1),
        ("given_up", None, 0),
    ] {
        assert_eq!(count(&figures, name, label), expected, "{name} {label:?}");
    }
    let took = figures.merged("request");
    assert_eq!(took.count(), 8);
    assert!(took.max() >= Duration::from_millis(20), "{took:?}");
    assert_eq!(figures.merged("first_byte").count(), 1);
    // The late handler was cancelled, and no other.
    assert_eq!(figures.merged("cancel").count(), 1);
}

#[test]
fn what_is_no_request_is_counted_as_refused() {
    const GOOD: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    let server = one_core()
        .max_head(8192)
        .serve_boxed(handler)
        .expect("a server");
    let long = "x".repeat(10_000);
    let wrong = [
        "no request\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nwrong field: 1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nlong: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
    ];
    let mut refused = 0;
    for before in [0, 1, 3] {
        for wrong in &wrong {
            let mut client = Client::connect(server.local_addr());
            client.send(GOOD.repeat(before) + wrong);
            for _ in 0..before {
                assert_eq!(client.answer().status(), 200);
            }
            assert!((400..500).contains(&client.answer().status()), "{wrong:?}");
            client.ends();
            refused += 1;
            let figures = server.snapshot();
            assert_eq!(
                count(&figures, "refused", None),
                refused,
                "{wrong:?}, {before}"
            );
        }
    }
    let figures = when_all_have_gone(&server.handle());
    assert_eq!(count(&figures, "answers", Some("4xx")), 0);
    assert_eq!(count(&figures, "requests", Some("http1")), 16);
}

/// The same in HTTP/2, where the last one is given up by its client, in the middle of its handler.
#[test]
fn every_request_of_http_2_is_counted_once_by_what_became_of_it() {
    let (said, heard) = mpsc::channel();
    let server = one_core()
        .handler_timeout(Duration::from_millis(20))
        .max_body(10)
        .on_trouble(|_| {})
        .on_answer(move |answered| {
            let status = answered.status.map_or(0, |status| status.as_u16());
            let said = said.send((status, answered.whole, answered.sent));
            said.expect("a test listens");
        })
        .serve_boxed(handler)
        .expect("a server");
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, connection) = peers::http2(address).await;
        for (path, status) in [
            ("/", 200),
            ("/", 200),
            ("/none", 204),
            ("/fail", 500),
            ("/panic", 500),
            ("/wait", 503),
        ] {
            let text = Full::new(Bytes::new());
            let answer = sender.send_request(peers::request(address, path, text));
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), status, "{path}");
            peers::whole(answer).await;
        }
        let large = Full::new(Bytes::from_static(b"more than 10"));
        let refused = sender.send_request(peers::request(address, "/", large));
        assert_eq!(refused.await.expect("an answer").status(), 413);
        drop(sender);
        let _ = connection.await;
    });
    let figures = when_all_have_gone(&server.handle());
    for (name, label, expected) in [
        ("requests", Some("http1"), 0),
        ("requests", Some("http2"), 7),
        ("answers", Some("2xx"), 3),
        ("answers", Some("4xx"), 1),
        ("answers", Some("5xx"), 3),
        ("failed", None, 2),
        ("late", None, 1),
        ("refused", None, 1),
        ("given_up", None, 0),
    ] {
        assert_eq!(count(&figures, name, label), expected, "{name} {label:?}");
    }
    assert_eq!(figures.merged("request").count(), 7);
    assert_eq!(figures.merged("cancel").count(), 1);
    let told: Vec<_> = heard.try_iter().collect();
    let (text, none) = ((200, true, 5), (204, true, 0));
    let (failed, late, large) = ((500, true, 0), (503, true, 0), (413, true, 0));
    assert_eq!(told, [text, text, none, failed, failed, late, large]);
}

/// No interim status ends a request. Told that the server has failed, the client goes on.
#[test]
fn a_handler_that_answers_with_an_interim_status_has_failed() {
    const INTERIM: [&str; 4] = ["/100", "/101", "/103", "/199"];
    let (said, heard) = mpsc::channel();
    let server = one_core()
        .on_trouble(|_| {})
        .on_answer(move |answered| {
            let status = answered.status.map_or(0, |status| status.as_u16());
            said.send((status, answered.whole)).expect("a test listens");
        })
        .serve_boxed(|request: Request<Incoming>| async move {
            let mut answer = text("hello").expect("a text");
            *answer.status_mut() = request.uri().path()[1..].parse().expect("a status");
            Ok::<_, io::Error>(answer)
        })
        .expect("a server");
    let address = server.local_addr();
    let mut client = Client::connect(address);
    for path in INTERIM {
        assert_eq!(client.get(path).status(), 500, "{path}");
        assert_eq!(client.get("/200").text(), "hello", "after {path}");
    }
    drop(client);
    on_ring(move |_| async move {
        let (mut sender, connection) = peers::http2(address).await;
        for path in INTERIM {
            for (path, status) in [(path, 500), ("/200", 200)] {
                let none = Full::new(Bytes::new());
                let answer = sender.send_request(peers::request(address, path, none));
                let answer = answer.await.expect("an answer");
                assert_eq!(answer.status(), status, "{path}");
                peers::whole(answer).await;
            }
        }
        drop(sender);
        let _ = connection.await;
    });
    let figures = when_all_have_gone(&server.handle());
    for (name, label, expected) in [
        ("connections_accepted", None, 2),
        ("answers", Some("1xx"), 0),
        ("answers", Some("2xx"), 8),
        ("answers", Some("5xx"), 8),
        ("failed", None, 8),
        ("given_up", None, 0),
    ] {
        assert_eq!(count(&figures, name, label), expected, "{name} {label:?}");
    }
    let told: Vec<_> = heard.try_iter().collect();
    assert_eq!(told, [(500, true), (200, true)].repeat(8));
}

#[test]
fn a_request_whose_client_goes_away_is_given_up() {
    let (said, heard) = mpsc::channel();
    let server = one_core()
        .options(narrow())
        .on_answer(move |answered| {
            let said = said.send((answered.status, answered.whole, answered.sent));
            said.expect("a test listens");
        })
        .serve_boxed(|request: Request<Incoming>| async move {
            if request.uri().path() == "/wait" {
                Event::new().wait().await.map_err(io::Error::from)?;
            }
            Ok::<_, io::Error>(Response::new(Pieces::new(10_000)))
        })
        .expect("a server");
    let waits = Client::connect(server.local_addr());
    waits.ask("GET", "/wait", "");
    while server.metrics()[0].parked < 2 {
        std::thread::yield_now();
    }
    drop(waits);
    assert_eq!(heard.recv().expect("told"), (None, false, 0));
    let mut reads = Client::connect_narrow(server.local_addr());
    reads.ask("GET", "/", "");
    reads.head();
    drop(reads);
    let (status, whole, sent) = heard.recv().expect("told");
    assert_eq!((status, whole), (Some(StatusCode::OK), false));
    assert!(sent > 0);
    let figures = when_all_have_gone(&server.handle());
    assert_eq!(count(&figures, "given_up", None), 2);
    assert_eq!(count(&figures, "answers", Some("2xx")), 1);
    assert!(figures.merged("request").is_empty());
    // The one that waited was cancelled, and it was seen how long that took.
    assert_eq!(figures.merged("cancel").count(), 1);
}

#[test]
fn an_access_log_is_told_everything_it_usually_says() {
    let (said, heard) = mpsc::channel();
    let server = one_core()
        .on_answer(move |answered| {
            let field = |value: Option<&http::HeaderValue>| {
                value.map(|value| value.to_str().expect("text").to_owned())
            };
            let line = format!(
                "{} {} {} {:?} {:?} {} {} {:?} {:?}",
                answered.peer.address.ip().expect("an address"),
                answered.method,
                answered.uri,
                answered.version,
                answered.status.map(|status| status.as_u16()),
                answered.sent,
                answered.whole,
                field(answered.referer),
                field(answered.user_agent),
            );
            said.send(line).expect("a test listens");
        })
        .serve_boxed(handler)
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.get_with("/a?b=c", "referer: there\r\nuser-agent: test\r\n");
    assert_eq!(
        heard.recv().expect("told"),
        "127.0.0.1 GET /a?b=c HTTP/1.1 Some(200) 5 true Some(\"there\") Some(\"test\")"
    );
    client.ask("HEAD", "/", "");
    client.head();
    assert_eq!(
        heard.recv().expect("told"),
        "127.0.0.1 HEAD / HTTP/1.1 Some(200) 0 true None None"
    );
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer().status(), 400);
    assert_eq!(
        heard.recv().expect("told"),
        "127.0.0.1 GET / HTTP/1.1 Some(400) 0 true None None"
    );
}

/// A server that says what it does beneath `/_quoit/`.
fn with_page(page: Page) -> Server {
    one_core()
        .page(page)
        .serve_boxed(handler)
        .expect("a server")
}

#[test]
fn the_page_is_answered_before_any_handler() {
    let server = with_page(Page::at("_quoit"));
    let mut client = Client::connect(server.local_addr());
    let page = client.get("/_quoit/");
    assert_eq!(page.status(), 200);
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().to_lowercase().starts_with("<!doctype html>"));
    let policy = page.field("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let moved = client.get("/_quoit");
    assert_eq!(moved.status(), 308);
    assert_eq!(moved.field("location"), Some("/_quoit/"));
    assert_eq!(client.get("/_quoit/other").status(), 404);
    client.ask("POST", "/_quoit/metrics", "content-length: 0\r\n");
    let refused = client.answer();
    assert_eq!(refused.status(), 405);
    assert_eq!(refused.field("allow"), Some("GET, HEAD"));
    assert_eq!(client.get("/else").text(), "hello");
}

#[test]
fn the_page_has_the_figures_as_text_and_as_json() {
    let server = with_page(Page::at("/_quoit/"));
    let mut client = Client::connect(server.local_addr());
    for _ in 0..5 {
        client.get("/");
    }
    let metrics = client.get("/_quoit/metrics");
    assert_eq!(
        metrics.field("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for line in [
        "quoit_requests_total{core=\"0\",protocol=\"http1\"} 6\n",
        "quoit_answers_total{core=\"0\",class=\"2xx\"} 5\n",
        "quoit_connections{core=\"0\"} 1\n",
        "quoit_request_seconds_count{core=\"0\"} 5\n",
        "# TYPE quoit_op_seconds histogram\n",
    ] {
        assert!(metrics.text().contains(line), "{line}{}", metrics.text());
    }
    let json = client.get("/_quoit/metrics.json");
    assert_eq!(json.field("content-type"), Some("application/json"));
    let json: Value = serde_json::from_str(json.text()).expect("JSON");
    let latencies = json["cores"][0]["latencies"].as_array().expect("a list");
    let request = latencies
        .iter()
        .find(|latency| latency["name"] == "request");
    let request = request.expect("it is measured");
    assert_eq!(request["count"], 6);
    let buckets = request["buckets"].as_array().expect("a list").iter();
    let counted: u64 = buckets
        .map(|pair| pair[1].as_u64().expect("a number"))
        .sum();
    assert_eq!(counted, 6);
}

#[test]
fn the_page_says_who_waits_for_what() {
    let server = with_page(Page::at("/_quoit/"));
    let waits = Client::connect(server.local_addr());
    waits.ask("GET", "/wait", "");
    while server.metrics()[0].scopes < 6 {
        std::thread::yield_now();
    }
    let mut client = Client::connect(server.local_addr());
    let scopes = client.get("/_quoit/scopes");
    assert!(scopes.text().starts_with("core 0: "), "{}", scopes.text());
    assert!(
        scopes.text().contains("for another task of this core"),
        "{}",
        scopes.text()
    );
    let json = client.get("/_quoit/scopes.json");
    let json: Value = serde_json::from_str(json.text()).expect("JSON");
    assert!(json["cores"][0]["nodes"].as_array().expect("a list").len() > 4);
}

#[test]
fn who_may_not_see_the_page_is_sent_to_the_handler() {
    let server = with_page(Page::at("/_quoit/").only_for(|_| false));
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/_quoit/metrics").text(), "hello");
    assert_eq!(client.get("/_quoit").text(), "hello");
}

#[test]
fn a_server_without_a_page_has_none() {
    let server = one_core().serve_boxed(handler).expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/_quoit/").text(), "hello");
}

#[test]
fn a_server_that_has_stopped_has_no_figures() {
    let server = one_core()
        .serve_boxed(|_: Request<Incoming>| async { text("x") })
        .expect("a server");
    let handle = server.handle();
    assert_eq!(handle.snapshot().cores.len(), 1);
    server.shutdown(Duration::ZERO).expect("it stops");
    assert!(handle.snapshot().cores.is_empty());
}

#[test]
fn requests_that_come_together_are_answered_with_one_send() {
    let server = one_core().serve_boxed(handler).expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/").status(), 200);
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n".repeat(12));
    for _ in 0..12 {
        assert_eq!(client.answer().status(), 200);
    }
    drop(client);
    let figures = when_all_have_gone(&server.handle());
    let sends = figures.cores[0].latency("op", Some("send"));
    assert_eq!(sends.expect("sends are measured").count(), 2);
}

/// A body that ends without a word behind its trailers, or before it has come to the length that was said.
struct Ending {
    pieces: Vec<Frame<Bytes>>,
}

impl Body for Ending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop().map(Ok))
    }
}

#[test]
fn an_answer_is_whole_with_its_trailers_and_not_short_of_its_length() {
    let server = one_core().on_trouble(|_| {});
    let server = server.serve_boxed(|request: Request<Incoming>| async move {
        let piece = Frame::data(Bytes::from_static(b"hello"));
        let mut answer = Response::new(Ending {
            pieces: vec![piece],
        });
        if request.uri().path() == "/short" {
            answer.headers_mut().insert(CONTENT_LENGTH, 6.into());
        } else {
            let last = HeaderMap::from_iter([(ETAG, HeaderValue::from_static("last"))]);
            answer.body_mut().pieces.insert(0, Frame::trailers(last));
            let named = HeaderValue::from_static("etag");
            answer.headers_mut().insert(TRAILER, named);
        }
        Ok::<_, Infallible>(answer)
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/trailers").text(), "hello");
    client.ask("GET", "/short", "");
    client.until_cut();
    drop(client);
    let figures = when_all_have_gone(&server.handle());
    assert_eq!(figures.merged("request").count(), 1);
    assert_eq!(count(&figures, "given_up", None), 0);
    assert_eq!(count(&figures, "failed", None), 1);
}
