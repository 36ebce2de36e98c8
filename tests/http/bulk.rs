//! Connections on which something large is sent after small answers: hyper begins anew on them, and nobody hears of it.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use quoit::time::sleep;
use quoit::{blocking, spawn};
use quoit_net::TcpStream;
use quoit_net::http::{Incoming, Server, Upgraded, upgrade};
use quoit_net::tls::TlsStream;
use tests::http_client::Client;
use tests::{Serve, on_ring};

use crate::support::{LONG, Text, at_rest, narrow, one_core, text};
use crate::tls::{OURS, server_tls};

type AnyBody = BoxBody<Bytes, Infallible>;

const LARGE: usize = 300_000;

/// How long the head of an answer is, without the digits of its body's length.
const HEAD: usize = "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n".len() + DATE;
const DATE: usize = "date: Mon, 23 Nov 2026 09:18:12 GMT\r\n".len();

fn large() -> Vec<u8> {
    (0..LARGE).map(|place| (place * 31 % 251) as u8).collect()
}

/// Answers with much, or with what was asked for; reads bodies, but not all of them; goes on as an echo.
async fn answer(mut request: Request<Incoming>) -> Result<Text, Infallible> {
    match request.uri().path() {
        "/large" => text(large()),
        "/read" => {
            let body = request.body_mut().collect().await.expect("a body");
            text(format!("{}", body.to_bytes().len()))
        }
        "/upgrade" => {
            let echo = async |stream: Upgraded| {
                while let Ok(Some(bytes)) = stream.recv().await {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            };
            upgrade(&mut request, echo).expect("it asks for it");
            let mut answer = Response::new(Full::new(Bytes::new()));
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let fields = answer.headers_mut();
            fields.insert(CONNECTION, "upgrade".parse().expect("a value"));
            fields.insert(UPGRADE, "echo".parse().expect("a value"));
            Ok(answer)
        }
        path => match path.strip_prefix("/size/") {
            Some(size) => text(vec![b'x'; size.parse().expect("a size")]),
            None => text(path.to_owned()),
        },
    }
}

/// A server, and a client to which it has sent something large.
fn sent_much() -> (Server, Client) {
    let server = one_core().serve_boxed(answer).expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/first").text(), "/first");
    assert!(client.get("/large").body == large());
    (server, client)
}

fn head(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

#[test]
fn what_came_behind_a_request_is_read_by_whom_begins_anew() {
    let whole = [head("/a"), head("/b"), head("/c")].concat();
    // The rest of it comes once the others were answered, wherever it was cut.
    for cut in [1, 2, 10, head("/c").len() - 2] {
        let (_server, mut client) = sent_much();
        let (now, later) = whole.split_at(whole.len() - cut);
        client.send(now);
        assert_eq!(client.answer().text(), "/a");
        assert_eq!(client.answer().text(), "/b");
        client.send(later);
        assert_eq!(client.answer().text(), "/c");
        assert!(client.get("/large").body == large());
        assert_eq!(client.get("/d").text(), "/d");
    }
}

#[test]
fn large_answers_follow_each_other() {
    let (_server, mut client) = sent_much();
    let paths = ["/large", "/a", "/large", "/large", "/b"];
    client.send(paths.map(head).concat());
    for path in paths {
        let told = client.answer();
        match path {
            "/large" => assert!(told.body == large()),
            path => assert_eq!(told.text(), path),
        }
    }
}

#[test]
fn a_body_is_read_to_its_end_by_whom_has_begun_with_it() {
    let (_server, mut client) = sent_much();
    let size = 100_000;
    for _ in 0..2 {
        client.ask("POST", "/read", &format!("content-length: {size}\r\n"));
        client.send(vec![b'x'; size]);
        assert_eq!(client.answer().text(), size.to_string());
        assert_eq!(client.get("/a").text(), "/a");
    }
    // Nobody reads this one, which looks like a request.
    let hidden = head("/hidden");
    let length = hidden.len();
    client.ask("POST", "/unread", &format!("content-length: {length}\r\n"));
    assert_eq!(client.answer().text(), "/unread");
    client.send(hidden);
    client.send(head("/b"));
    if let Ok(Some(told)) = client.try_answer() {
        assert_eq!(told.text(), "/b");
    }
}

#[test]
fn a_connection_that_is_to_end_ends() {
    for (fields, version) in [("connection: close\r\n", "1.1"), ("", "1.0")] {
        let (_server, mut client) = sent_much();
        client.send(format!(
            "GET /a HTTP/{version}\r\nhost: test\r\n{fields}\r\n"
        ));
        assert_eq!(client.answer().text(), "/a");
        client.ends();
    }
    let (_server, mut client) = sent_much();
    client.send("no request\r\n\r\n");
    assert_eq!(client.head().status, 400);
    let (server, mut client) = sent_much();
    assert_eq!(client.get("/a").text(), "/a");
    let report = server.shutdown(Duration::from_secs(10)).expect("a report");
    assert_eq!(report.cut, 0, "{report}");
    client.ends();
}

/// Answers behind which hyper ends the connection, whatever was asked for: with what cannot be written, and with what
/// ends with its connection.
async fn last_answer(request: Request<Incoming>) -> Result<Response<AnyBody>, Infallible> {
    match request.uri().path() {
        "/broken" => {
            let mut answer = Response::new(Full::new(Bytes::from_static(b"body")).boxed());
            let fields = answer.headers_mut();
            fields.insert(CONTENT_LENGTH, "4".parse().expect("a value"));
            fields.insert(TRANSFER_ENCODING, "chunked".parse().expect("a value"));
            Ok(answer)
        }
        "/old" => {
            let of_no_length = Full::new(Bytes::from_static(b"old")).map_frame(|frame| frame);
            let mut answer = Response::new(of_no_length.boxed());
            *answer.version_mut() = Version::HTTP_10;
            Ok(answer)
        }
        _ => Ok(answer(request).await?.map(BodyExt::boxed)),
    }
}

#[test]
fn behind_a_last_answer_nothing_is_answered() {
    for (last, status, said) in [
        (head("/broken"), None, ""),
        (head("/old"), Some(200), "old"),
        ("no request\r\n\r\n".to_owned(), Some(400), ""),
    ] {
        // Of some of them a last part waits for the client, which takes nothing until the server has come as far as
        // it comes: of the second of each two all of it is on its way then, since it fills what the server gathers.
        let filling = |length: usize| length - HEAD - length.to_string().len();
        let lengths = (1..16).step_by(2).map(|count| count * 64 * 1024);
        for size in lengths.flat_map(|length| [length, filling(length)]) {
            let server = one_core().options(narrow()).serve_boxed(last_answer);
            let server = server.expect("a server");
            let mut client = Client::connect_narrow(server.local_addr());
            client.send(
                [&head(&format!("/size/{size}")), &last]
                    .map(String::as_str)
                    .concat(),
            );
            client.ask("GET", "/behind", "connection: close\r\n");
            at_rest(&server);
            assert_eq!(client.answer().body.len(), size);
            if let Some(status) = status {
                assert_eq!(client.head().status, status);
            }
            let rest = client.rest().expect("an orderly end");
            let rest = String::from_utf8_lossy(&rest);
            assert_eq!(rest, said, "{last:?} behind {size} bytes");
        }
    }
}

/// A body in one piece, which keeps its request until it is sent.
struct Keeping {
    piece: Option<Bytes>,
    _request: Request<Incoming>,
}

impl Body for Keeping {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.piece.take().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.piece.as_ref().map_or(0, Bytes::len) as u64)
    }
}

type Local = Pin<Box<dyn Body<Data = Bytes, Error = Infallible>>>;

/// Keeps requests, until their answers are sent or for longer.
async fn keep_or_last_answer(request: Request<Incoming>) -> Result<Response<Local>, Infallible> {
    let path = request.uri().path();
    if path == "/later" {
        let _task = spawn(async {
            // What was answered has gone out.
            let _ = sleep(Duration::from_millis(10)).await;
            drop(request);
        });
        return Ok(text("later")?.map(|body| Box::pin(body) as _));
    }
    let Some(size) = path.strip_prefix("/keep/") else {
        return Ok(last_answer(request).await?.map(|body| Box::pin(body) as _));
    };
    let size = size.parse().expect("a size");
    Ok(Response::new(Box::pin(Keeping {
        piece: Some(vec![b'x'; size].into()),
        _request: request,
    })))
}

/// Behind requests whose bodies were read no further than their answers hyper gives way in the middle of its work, and
/// may have to end then.
#[test]
fn behind_a_last_answer_nothing_is_answered_however_many_requests_came_before() {
    let post = |path: &str| {
        let body = "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        format!("POST {path} HTTP/1.1\r\nhost: test\r\n{body}")
    };
    let close = "GET /a HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    for (last, status, said) in [
        (close.to_owned(), Some(200), "/a"),
        (head("/broken"), None, ""),
        (head("/old"), Some(200), "old"),
        ("no request\r\n\r\n".to_owned(), Some(400), ""),
    ] {
        for count in 0..20 {
            let server = one_core().idle_timeout(Duration::from_secs(1));
            let server = server.serve_boxed(keep_or_last_answer);
            let server = server.expect("a server");
            let mut client = Client::connect(server.local_addr());
            let before = [post("/later"), post("/keep/10").repeat(count)].concat();
            client.send([before, post("/keep/20000"), last.clone(), head("/behind")].concat());
            assert_eq!(client.answer().text(), "later");
            for _ in 0..count {
                assert_eq!(client.answer().body.len(), 10);
            }
            assert_eq!(client.answer().body.len(), 20_000);
            if let Some(status) = status {
                assert_eq!(client.head().status, status);
            }
            let rest = client.rest().expect("an orderly end");
            let rest = String::from_utf8_lossy(&rest);
            assert_eq!(rest, said, "{last:?} behind {count} requests");
        }
    }
}

/// What has come behind a request and asks for nothing holds nothing up, whoever has read it.
#[test]
fn what_is_no_request_is_not_waited_for() {
    let half = "GET /half HTTP/1.1\r\nhost: te";
    for (with, later) in [("", "\r\n"), ("\r\n", ""), ("\n\r\n", "\n"), (half, "")] {
        let (server, mut client) = sent_much();
        client.send([&head("/a"), with].concat());
        assert_eq!(client.answer().text(), "/a");
        client.send(later);
        at_rest(&server);
        let report = server.shutdown(LONG).expect("a report");
        assert_eq!(report.cut, 0, "{with:?} and {later:?}: {report}");
        client.ends();
    }
}

/// Nor is it kept for longer than what says nothing.
#[test]
fn what_is_no_request_keeps_no_connection_open() {
    for (with, later) in [("", "\r\n"), ("\r\n", ""), ("GET /half", "")] {
        let server = one_core().idle_timeout(Duration::from_millis(50));
        let server = server.serve_boxed(answer).expect("a server");
        let mut client = Client::connect(server.local_addr());
        client.send([head("/large"), head("/a"), with.to_owned()].concat());
        assert!(client.answer().body == large());
        assert_eq!(client.answer().text(), "/a");
        client.send(later);
        client.ends();
    }
}

#[test]
fn an_upgrade_carries_what_came_with_it() {
    let (_server, mut client) = sent_much();
    assert_eq!(client.get("/a").text(), "/a");
    let fields = "connection: upgrade\r\nupgrade: echo\r\n";
    client.send(format!(
        "GET /upgrade HTTP/1.1\r\nhost: test\r\n{fields}\r\nearly"
    ));
    assert_eq!(client.head().status, 101);
    client.send(" and late");
    let mut came = Vec::new();
    let taken = client.exactly(14, &mut |part: &[u8]| came.extend_from_slice(part));
    taken.expect("it comes back");
    assert_eq!(came, b"early and late");
}

/// Reads the body of an answer, of which `came` may be the beginning; leaves what comes behind it.
async fn answer_over_tls(stream: &TlsStream, came: &mut Vec<u8>) -> Vec<u8> {
    loop {
        if let Some((begin, length)) = body_of(came)
            && came.len() >= begin + length
        {
            let rest = came.split_off(begin + length);
            return mem::replace(came, rest).split_off(begin);
        }
        let bytes = stream.recv().await.expect("connected");
        assert!(!bytes.is_empty(), "the connection stays");
        came.extend_from_slice(&bytes);
    }
}

/// Where the body of an answer begins, and how long it is; `None` while its head is not there.
fn body_of(came: &[u8]) -> Option<(usize, usize)> {
    let text = String::from_utf8_lossy(came);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let (_, length) = head.split_once("content-length: ").expect("a length");
    let length = length.lines().next().expect("a line").parse();
    Some((head.len() + 4, length.expect("a number")))
}

#[test]
fn what_came_encrypted_is_read_by_whom_begins_anew() {
    let server = one_core().tls(server_tls()).serve_boxed(answer);
    let server = server.expect("a server");
    let address = server.local_addr();
    on_ring(move |_| async move {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let stream = OURS.client().connect("site.test", stream).await;
        let (stream, mut came) = (stream.expect("shaken"), Vec::new());
        for path in ["/first", "/large"] {
            stream
                .write_all(head(path).as_bytes())
                .await
                .expect("connected");
            let told = answer_over_tls(&stream, &mut came).await;
            assert!(told == path.as_bytes() || told == large());
        }
        let whole = [head("/a"), head("/b"), head("/c")].concat();
        let (now, later) = whole.as_bytes().split_at(whole.len() - 9);
        stream.write_all(now).await.expect("connected");
        assert_eq!(answer_over_tls(&stream, &mut came).await, b"/a");
        assert_eq!(answer_over_tls(&stream, &mut came).await, b"/b");
        stream.write_all(later).await.expect("connected");
        assert_eq!(answer_over_tls(&stream, &mut came).await, b"/c");
    });
}

#[test]
fn an_encrypted_connection_on_which_nothing_is_asked_ends_as_announced() {
    let server = one_core().tls(server_tls()).serve_boxed(answer);
    let server = server.expect("a server");
    on_ring(move |_| async move {
        let stream = TcpStream::connect(server.local_addr()).await;
        let stream = stream.expect("it listens");
        let stream = OURS.client().connect("site.test", stream).await;
        let (stream, mut came) = (stream.expect("shaken"), Vec::new());
        let asked = head("/large") + "\r\n";
        stream.write_all(asked.as_bytes()).await.expect("connected");
        assert!(answer_over_tls(&stream, &mut came).await == large());
        let drained = spawn(blocking::run(move |_| server.shutdown(LONG)));
        let rest = stream.recv().await.expect("an announced end");
        assert!(rest.is_empty());
        stream.shutdown().await.expect("it takes it");
        drop(stream);
        let report = drained.await.expect("no panic").expect("it runs");
        assert_eq!(report.expect("a report").cut, 0);
    });
}
