//! Series of requests on one connection of HTTP/1, some of which have large answers: each gets its own answer or none,
//! and nothing else is taken for a request.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use quoit::Cores;
use quoit::sim::{Sim, for_seeds};
use quoit::spawn;
use quoit_net::TcpStream;
use quoit_net::http::{Incoming, Server};
use quoit_net::tcp::TcpOptions;

use crate::raw_client::send_cut;
use crate::site::{AnyBody, Failure, in_pieces, whole};
use crate::support::{Clients, World, address, at_most, below, one_in, pause_up_to, size, text};

/// After so long the server ends a connection on which nothing is asked.
const IDLE: Duration = Duration::from_secs(5);

/// What every body consists of: whoever takes it for a request asks for what nobody may.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: site\r\n\r\n";

/// What becomes of a connection behind a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    MayEnd,
    Ends,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Back {
    /// An answer that says which it is, with so many bytes.
    Whole(usize),
    /// An answer that has a head alone.
    Head,
    /// An answer that ends with the connection.
    UntilTheEnd(usize),
    Refusal,
    Nothing,
}

/// One request.
#[derive(Debug)]
struct Ask {
    bytes: Vec<u8>,
    back: Back,
    then: Then,
}

fn hidden(least: usize) -> Vec<u8> {
    HIDDEN.repeat(least / HIDDEN.len() + 1).into_bytes()
}

/// A request with a body, in one of the ways there are.
fn with_body(path: &str, fields: &str) -> Vec<u8> {
    let body = hidden(size() / 4);
    let head = format!("POST {path} HTTP/1.1\r\nhost: site\r\n{fields}");
    let length = body.len();
    let framed = match one_in(2) {
        true => [
            format!("content-length: {length}\r\n\r\n").as_bytes(),
            &body,
        ]
        .concat(),
        false => {
            let begin = format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n");
            [begin.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()
        }
    };
    [head.as_bytes(), &framed].concat()
}

impl Ask {
    /// Draws one, which is to have this number, and comes behind these.
    fn some(number: usize, before: &[Self]) -> Self {
        let length = size().max(1);
        let path = |kind: &str| format!("/{kind}/{number}/{length}");
        let head = |method: &str, kind: &str, version: &str, fields: &str| {
            let path = path(kind);
            format!("{method} {path} HTTP/{version}\r\nhost: site\r\n{fields}\r\n").into_bytes()
        };
        let of = |bytes: Vec<u8>, then: Then| Self {
            bytes,
            back: Back::Whole(length),
            then,
        };
        // Where a body is read to its end behind its answer, hyper says what it says on its own before the rest of that
        // answer.
        let is_behind_body = before.iter().any(|ask| ask.bytes.starts_with(b"POST"));
        let expect = match is_behind_body {
            true => "",
            false => "expect: 100-continue\r\n",
        };
        match below(24) {
            0..5 => of(head("GET", "plain", "1.1", ""), Then::GoesOn),
            5 => Self {
                back: Back::Head,
                ..of(head("HEAD", "plain", "1.1", ""), Then::GoesOn)
            },
            6 => of(head("GET", "pieces", "1.1", ""), Then::GoesOn),
            7 => of(head("GET", "slow", "1.1", ""), Then::GoesOn),
            8 | 9 => of(with_body(&path("read"), ""), Then::GoesOn),
            10 => of(with_body(&path("read"), expect), Then::GoesOn),
            11 | 12 => of(with_body(&path("unread"), ""), Then::MayEnd),
            13 => of(with_body(&path("unread"), expect), Then::MayEnd),
            14 | 15 => of(with_body(&path("later"), ""), Then::GoesOn),
            16 => of(with_body(&path("some"), ""), Then::MayEnd),
            17 => Self {
                back: Back::Whole(HIDDEN.len() / 2),
                ..of(with_body(&path("cut"), ""), Then::MayEnd)
            },
            18 => {
                let line_ends = ["\r\n", "\n", "\r\n\r\n"][below(3)];
                let bytes = [line_ends.as_bytes(), &head("GET", "plain", "1.1", "")].concat();
                of(bytes, Then::GoesOn)
            }
            19 => {
                let fields = "content-length: 4\r\ntransfer-encoding: chunked\r\n";
                let mut bytes = head("POST", "read", "1.1", fields);
                bytes.extend_from_slice(b"4\r\nGET \r\n0\r\n\r\n");
                of(bytes, Then::Ends)
            }
            20 => {
                let fields = ["close", "Close", "keep-alive, close", "upgrade, CLOSE"][below(4)];
                let fields = format!("connection: {fields}\r\n");
                of(head("GET", "plain", "1.1", &fields), Then::Ends)
            }
            21 => of(head("GET", "plain", "1.0", ""), Then::Ends),
            22 => match below(3) {
                0 => Self {
                    back: Back::Nothing,
                    ..of(head("GET", "broken", "1.1", ""), Then::Ends)
                },
                1 => Self {
                    back: Back::UntilTheEnd(length),
                    ..of(head("GET", "old", "1.1", ""), Then::Ends)
                },
                _ => of(head("GET", "last", "1.1", ""), Then::Ends),
            },
            _ => {
                let bytes = match is_behind_body || one_in(2) {
                    true => "GET / HTTP/1.1\r\n\r\n",
                    false => "no request\r\n\r\n",
                };
                Self {
                    bytes: bytes.into(),
                    back: Back::Refusal,
                    then: Then::Ends,
                }
            }
        }
    }
}

/// A body that passes on some of another, and says that it is so long.
struct Part {
    of: Incoming,
    left: usize,
}

impl Body for Part {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let frame = ready!(Pin::new(&mut self.of).poll_frame(cx)).transpose()?;
        Poll::Ready(frame.map(|frame| {
            Ok(frame.map_data(|data| {
                let part = data.slice(..data.len().min(self.left));
                self.left -= part.len();
                part
            }))
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

/// A body that is there at once, in small pieces.
struct AtOnce(VecDeque<Bytes>);

impl Body for AtOnce {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<AnyBody>, Failure> {
    let path = request.uri().path().to_owned();
    let mut parts = path[1..].split('/');
    let kind = parts.next().expect("a kind");
    assert_ne!(kind, "hidden", "a body was taken for a request");
    let number = parts.next().expect("a number");
    let length = parts.next().expect("a length").parse::<usize>();
    let bytes = text(number.parse()?, length.expect("a number"));
    if one_in(6) {
        pause_up_to(30).await;
    }
    let mut body = whole(bytes);
    match kind {
        "plain" | "unread" | "broken" | "old" | "last" => {}
        "pieces" => body = in_pieces(bytes),
        "slow" => {
            let pieces = bytes.chunks(1_000).map(Bytes::from_static).collect();
            body = Box::pin(AtOnce(pieces));
        }
        "read" => {
            let came = request.into_body().collect().await?.to_bytes();
            assert!(came.starts_with(b"GET "));
        }
        "later" => {
            let mut left = request.into_body();
            let _task = spawn(async move {
                while let Some(Ok(_)) = left.frame().await {
                    if one_in(4) {
                        pause_up_to(20).await;
                    }
                }
                pause_up_to(20).await;
            });
        }
        "some" => {
            let mut left = request.into_body();
            let _some = left.frame().await;
            if one_in(2) {
                let _task = spawn(async move {
                    let _some = left.frame().await;
                    pause_up_to(20).await;
                });
            }
        }
        "cut" => {
            let left = HIDDEN.len() / 2;
            let of = request.into_body();
            body = Box::pin(Part { of, left });
        }
        kind => unreachable!("{kind}"),
    }
    let mut answer = Response::new(body);
    answer.headers_mut().insert("x-number", number.parse()?);
    if kind == "old" {
        let of_no_length = in_pieces(bytes);
        *answer.body_mut() = of_no_length;
        *answer.version_mut() = Version::HTTP_10;
    }
    if kind == "broken" {
        let fields = answer.headers_mut();
        fields.insert(CONTENT_LENGTH, bytes.len().into());
        fields.insert(TRANSFER_ENCODING, "chunked".parse()?);
    }
    if kind == "last" {
        let fields = answer.headers_mut();
        fields.insert("connection", "close".parse()?);
    }
    Ok(answer)
}

/// Takes a line from the beginning of what came.
fn line<'a>(came: &mut &'a [u8]) -> Option<&'a str> {
    let end = came.windows(2).position(|two| two == b"\r\n")?;
    let line = std::str::from_utf8(&came[..end]).expect("a head is text");
    *came = &came[end + 2..];
    Some(line)
}

fn exactly<'a>(came: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (part, rest) = came.split_at_checked(length)?;
    *came = rest;
    Some(part)
}

/// Takes an answer from the beginning of what came: that to this request; `None` if it is not whole.
fn take(came: &mut &[u8], number: usize, ask: &Ask) -> Option<()> {
    let begin = &ask.bytes[..ask.bytes.len().min(60)];
    let what = format!("{number}: {:?}", String::from_utf8_lossy(begin));
    let (mut status, mut length, mut of, mut is_chunked) = (100, None, None, false);
    while status == 100 {
        let first = line(came)?;
        let code = first.get(9..12).and_then(|code| code.parse::<u16>().ok());
        status = code.unwrap_or_else(|| panic!("{what}: {first:?} begins no answer"));
        loop {
            let field = line(came)?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(": ").expect("a field");
            match name {
                "content-length" => length = value.parse::<usize>().ok(),
                "transfer-encoding" => is_chunked = true,
                "x-number" => of = value.parse::<usize>().ok(),
                _ => {}
            }
        }
    }
    let expected = match ask.back {
        Back::Refusal => {
            assert_eq!((status, length), (400, Some(0)), "{what}");
            return Some(());
        }
        Back::Nothing => panic!("{what} has an answer"),
        Back::Head => 0,
        Back::Whole(length) | Back::UntilTheEnd(length) => length,
    };
    assert_eq!((status, of), (200, Some(number)), "{what}");
    let body = match (&ask.back, is_chunked, length) {
        (Back::Head, ..) => Vec::new(),
        (_, true, _) => {
            let mut body = Vec::new();
            loop {
                let size = line(came)?;
                let size = usize::from_str_radix(size, 16).expect("a chunk begins with its size");
                body.extend_from_slice(exactly(came, size)?);
                assert_eq!(line(came)?, "", "{what}: a chunk has another size");
                if size == 0 {
                    break body;
                }
            }
        }
        (_, false, Some(length)) => exactly(came, length)?.to_vec(),
        (_, false, None) => std::mem::take(came).to_vec(),
    };
    let is_hidden = body == hidden(0)[..body.len().min(HIDDEN.len())];
    assert!(
        is_hidden || body == text(number, body.len()),
        "{what}: other bytes"
    );
    (body.len() == expected).then_some(())
}

/// Checks all that came on a connection.
fn check(asks: &[Ask], mut came: &[u8], may_be_cut: bool) {
    let mut may_end = may_be_cut;
    for (number, ask) in asks.iter().enumerate() {
        if ask.back != Back::Nothing {
            if came.is_empty() && may_end {
                return;
            }
            if take(&mut came, number, ask).is_none() {
                assert!(may_be_cut, "the answer to {number} is not whole");
                return;
            }
        }
        if ask.then == Then::Ends {
            break;
        }
        may_end |= ask.then == Then::MayEnd;
    }
    let rest = String::from_utf8_lossy(&came[..came.len().min(100)]);
    assert!(came.is_empty(), "{rest:?} is an answer to nothing");
}

/// How a client ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It waits for the server.
    Stays,
    /// It says that it has nothing more to ask, at some time.
    Leaves,
}

async fn ask_in_series(world: World, client: Client) {
    let options = match one_in(3) {
        true => TcpOptions::new().receive_buffer(1 + below(10_000)),
        false => TcpOptions::new(),
    };
    let stream = TcpStream::connect_with(address(), &options).await;
    let Some(stream) = world.allows(stream) else {
        return;
    };
    let stream = Rc::new(stream);
    let mut asks = Vec::new();
    for number in 0..1 + below(9) {
        asks.push(Ask::some(number, &asks));
    }
    let mut bytes = asks
        .iter()
        .flat_map(|ask| ask.bytes.clone())
        .collect::<Vec<_>>();
    let rest = ["", "\r\n", "\n\n", "GET /half HTTP/1.1\r\nhost: si"][below(4)];
    bytes.extend_from_slice(rest.as_bytes());
    let sending = spawn({
        let stream = Rc::clone(&stream);
        async move {
            if send_cut(&stream, bytes).await.is_err() && world == World::Harsh {
                // The server waits for the rest of a body.
                let _ = stream.shutdown(Shutdown::Both);
            }
            if client == Client::Leaves {
                pause_up_to(50).await;
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    });
    let mut came = Vec::new();
    let outcome = loop {
        match stream.recv().await {
            Ok(Some(chunk)) => came.extend_from_slice(&chunk),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
        if one_in(10) {
            pause_up_to(50).await;
        }
    };
    let may_be_cut = world == World::Harsh || client == Client::Leaves;
    check(&asks, &came, may_be_cut);
    let may_be_reset = may_be_cut || asks.iter().any(|ask| ask.then != Then::GoesOn);
    assert!(outcome.is_ok() || may_be_reset, "{outcome:?}");
    drop(stream);
    sending.await.expect("nobody drops it");
}

fn series_under(world: World, client: Client, sim: Sim) {
    world.of(sim).run(|| {
        let server = Server::bind(address())
            .cores(Cores::Count(1))
            .idle_timeout(IDLE)
            .head_timeout(IDLE)
            .on_trouble(|_| {})
            .serve(answer);
        let Some(server) = world.allows(server) else {
            return;
        };
        let mut clients = Clients::on(1);
        for _ in 0..1 + below(4) {
            clients.start(move || async move {
                pause_up_to(20).await;
                let asking = ask_in_series(world, client);
                let whole = at_most(Some(IDLE * 100), asking).await;
                whole.expect("the server ends what is idle");
            });
        }
        clients.end();
        drop(server);
    });
}

#[test]
fn each_request_of_a_series_gets_its_own_answer() {
    for_seeds(0..600, |sim| {
        series_under(World::Kind, Client::Stays, sim);
    });
}

#[test]
fn no_request_of_a_series_that_is_broken_off_gets_the_answer_of_another() {
    for_seeds(0..100, |sim| {
        series_under(World::Harsh, Client::Stays, sim);
    });
    for_seeds(100..200, |sim| {
        series_under(World::Kind, Client::Leaves, sim);
    });
}
