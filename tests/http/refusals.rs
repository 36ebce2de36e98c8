//! What is no request is refused in its own protocol, and a handler's failure is its connection's.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use quoit::Cancelled;
use quoit_net::http::{Incoming, Server};
use tests::http_client::Client;
use tests::{Serve, on_ring};

use crate::peers::{self, get, whole};
use crate::support::{one_core, text};

/// A server that says which method and path it was asked for.
fn repeating() -> Server {
    let server = one_core().serve_boxed(|request: Request<Incoming>| async move {
        text(format!("{} {}", request.method(), request.uri().path()))
    });
    server.expect("a server")
}

// --- malformed and too large ---

#[test]
fn a_malformed_request_is_answered_with_400_and_the_end() {
    let server = repeating();
    for nonsense in [
        "\0\x01\x02\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\ncontent-length: many\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    ] {
        let mut client = Client::connect(server.local_addr());
        client.send(nonsense);
        assert_eq!(client.answer().status(), 400, "{nonsense:?}");
        client.ends();
    }
    assert_eq!(
        Client::connect(server.local_addr()).get("/next").text(),
        "GET /next"
    );
}

#[test]
fn a_malformed_request_after_a_good_one_does_not_spoil_its_answer() {
    let server = repeating();
    let mut client = Client::connect(server.local_addr());
    client.send("GET /good HTTP/1.1\r\nhost: test\r\n\r\n\0nonsense\r\n\r\n");
    assert_eq!(client.answer().text(), "GET /good");
    assert_eq!(client.answer().status(), 400);
    client.ends();
}

#[test]
fn a_head_past_the_limit_is_answered_with_431() {
    let server = repeating();
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", &format!("x-large: {}\r\n", "x".repeat(1 << 20)));
    assert_eq!(client.answer().status(), 431);
    client.ends();
}

#[test]
fn the_limit_of_a_head_is_what_it_was_set_to() {
    let server = one_core()
        .max_head(8192)
        .serve_boxed(|_| async { text("fits") });
    let server = server.expect("a server");
    for (size, status) in [(7_000, 200), (9_000, 431)] {
        let mut client = Client::connect(server.local_addr());
        client.ask("GET", "/", &format!("x-large: {}\r\n", "x".repeat(size)));
        assert_eq!(client.answer().status(), status, "{size} bytes");
    }
}

#[test]
fn a_head_past_the_limit_is_answered_with_431_by_http_2() {
    let server = repeating();
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let mut large = get(address, "/large");
        let value = "x".repeat(100 * 1024).parse().expect("a field value");
        large.headers_mut().insert("x-large", value);
        let answer = sender.send_request(large).await.expect("an answer");
        assert_eq!(answer.status(), 431);
        let next = sender.send_request(get(address, "/next")).await;
        assert_eq!(whole(next.expect("an answer")).await, "GET /next");
    });
}

// --- telling the protocols apart ---

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;

#[test]
fn a_preface_that_comes_byte_by_byte_is_http_2() {
    let server = repeating();
    let mut client = Client::connect(server.local_addr());
    let mut said = PREFACE.to_vec();
    said.extend(frame(SETTINGS, 0, 0, b""));
    // GET http /, each an entry of the static table (RFC 7541, appendix A), and that is all.
    said.extend(frame(HEADERS, 0x5, 1, &[0x82, 0x86, 0x84]));
    for byte in said {
        client.send([byte]);
    }
    let mut kinds = Vec::new();
    while kinds.last() != Some(&(HEADERS, 1)) {
        let mut header = Vec::new();
        let read = client.exactly(9, &mut |bytes| header.extend_from_slice(bytes));
        read.expect("another frame");
        kinds.push((header[3], header[8]));
        let length = u64::from(header[1]) << 8 | u64::from(header[2]);
        let mut payload = Vec::new();
        let read = client.exactly(length, &mut |bytes| payload.extend_from_slice(bytes));
        read.expect("a whole frame");
        if kinds.last() == Some(&(HEADERS, 1)) {
            assert_eq!(payload[0], 0x88, "status 200 in the static table");
        }
    }
    assert_eq!(kinds[0], (SETTINGS, 0), "a server begins with its settings");
}

#[test]
fn what_begins_like_a_preface_and_is_none_is_http_1() {
    let server = repeating();
    for almost in [
        "PRI * HTTP/2.0\r\n\r\nNO\r\n\r\n",
        "PRI * HTTP/2.0\r\nhost: test\r\n\r\n",
        "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
    ] {
        let mut client = Client::connect(server.local_addr());
        for byte in almost.bytes() {
            if client.try_send([byte]).is_err() {
                // It has heard enough.
                break;
            }
        }
        assert_eq!(client.answer().status(), 400, "{almost:?}");
    }
    let mut client = Client::connect(server.local_addr());
    for part in ["P", "RI", " /method HTTP/1.1\r\nho", "st: test\r\n\r\n"] {
        client.send(part);
    }
    assert_eq!(
        client.answer().text(),
        "PRI /method",
        "a method like any other"
    );
}

#[test]
fn a_first_request_may_come_in_any_pieces() {
    let server = repeating();
    let said = b"POST /pieces HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nab";
    for size in [1, 2, 3, 7, 23, 24, 25] {
        let mut client = Client::connect(server.local_addr());
        for part in said.chunks(size) {
            client.send(part);
        }
        assert_eq!(client.answer().text(), "POST /pieces", "pieces of {size}");
    }
}

// --- handlers that fail ---

/// A server whose handler panics, fails, or answers, as the path says.
fn failing() -> Server {
    let server = one_core().serve_boxed(|request: Request<Incoming>| async move {
        match request.uri().path() {
            "/panic" => panic!("a handler panics"),
            "/late" => {
                quoit::yield_now().await.expect("not cancelled");
                panic!("a handler panics later");
            }
            "/fail" => Err("a handler fails"),
            path @ ("/leak" | "/leak-later") => {
                if path == "/leak-later" {
                    quoit::yield_now().await.expect("not cancelled");
                }
                let mut left = Box::pin(quoit::group(async |_| {
                    pending::<Result<(), Cancelled>>().await
                }));
                let is_open = poll_fn(|cx| Poll::Ready(left.as_mut().poll(cx).is_pending())).await;
                assert!(is_open);
                std::mem::forget(left);
                Ok(Response::new("a handler leaves a group".to_owned()))
            }
            "/next-later" => {
                quoit::yield_now().await.expect("not cancelled");
                Ok(Response::new("well, later".to_owned()))
            }
            path => Ok(Response::new(format!("well, {path}"))),
        }
    });
    server.expect("a server")
}

#[test]
fn a_handler_that_panics_or_fails_costs_its_request_only() {
    let server = failing();
    // On the same core.
    let mut other = Client::connect(server.local_addr());
    let mut client = Client::connect(server.local_addr());
    assert_eq!(other.get("/before").text(), "well, /before");
    for path in ["/panic", "/late", "/fail", "/leak", "/leak-later"] {
        let failed = client.get(path);
        assert_eq!((failed.status(), failed.text()), (500, ""), "{path}");
        // Neither by one whose answer comes later.
        assert_eq!(client.get("/next-later").text(), "well, later", "{path}");
        assert_eq!(client.get("/next").text(), "well, /next");
        assert_eq!(other.get("/after").text(), "well, /after");
    }
}

#[test]
fn a_handler_that_panics_costs_its_stream_only_in_http_2() {
    let server = failing();
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2::<Empty<Bytes>>(address).await;
        for path in ["/panic", "/late", "/fail"] {
            let answer = sender.send_request(get(address, path)).await;
            let failed = answer.expect("an answer");
            assert_eq!(failed.status(), 500, "{path}");
            let next = sender.send_request(get(address, "/next")).await;
            assert_eq!(whole(next.expect("an answer")).await, "well, /next");
        }
    });
}

/// A body of which the second half fails.
struct Half(Option<Bytes>);

impl Body for Half {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let first = self.0.take().map(Frame::data);
        Poll::Ready(Some(first.ok_or("the second half fails")))
    }
}

#[test]
fn a_body_that_fails_leaves_no_answer_that_looks_whole() {
    let server = one_core().serve_boxed(|_| async {
        let body = Half(Some(Bytes::from_static(b"half of ")));
        Ok::<_, Infallible>(Response::new(body))
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    // The head may have been gathered with the half, and both lost with the connection.
    if let Ok(Some(head)) = client.try_head() {
        let outcome = client.body(&head, |_| {});
        let error = outcome.expect_err("the answer is not whole");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        // With the head, or with what follows it.
        if let Ok(answer) = sender.send_request(get(address, "/")).await {
            let body = answer.into_body().collect().await;
            let _ = body.expect_err("the answer is not whole");
        }
    });
}
