//! Where the parts of a connection meet: bodies that look like heads, neighbours that are long at work,
//! lengths that are known before the end.

use std::io;
use std::sync::mpsc;
use std::time::Duration;
use tests::Serve;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected};
use quoit::time::{Instant, sleep};
use quoit::{Cancelled, Scope, spawn};
use quoit_net::http::body::{self, Sender, StreamBody};
use quoit_net::http::{Incoming, Page, upgrade};
use tests::http_client::Client;

use crate::support::{Text, one_core, text};

/// What a client might take for the beginning of another answer.
const LIKE_A_HEAD: &str = "HTTP/1.1 200 OK\r\nserver: recorded\r\n\r\n";

/// A body whose first piece is not there at once.
fn later(piece: &'static str) -> StreamBody {
    body::stream(async move |sender: Sender| {
        sleep(Duration::from_millis(5)).await?;
        sender.send(piece).await?;
        Ok::<_, io::Error>(())
    })
}

#[test]
fn a_body_that_looks_like_a_head_is_left_alone() {
    let server = one_core()
        .serve_boxed(|request: Request<Incoming>| async move {
            let mut answer = Response::new(later(LIKE_A_HEAD));
            if request.uri().path() == "/length" {
                let length = LIKE_A_HEAD.len().into();
                answer.headers_mut().insert(CONTENT_LENGTH, length);
            }
            Ok::<_, io::Error>(answer)
        })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    for path in ["/length", "/chunks", "/length"] {
        assert_eq!(client.get(path).text(), LIKE_A_HEAD, "{path}");
    }
}

#[test]
fn an_answer_of_the_page_that_takes_a_while_is_dated_once() {
    let server = one_core()
        .page(Page::at("/_quoit/"))
        .serve_boxed(|_| async { text("x") })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    for part in ["scopes", "scopes.json", "metrics"] {
        let answer = client.get(&format!("/_quoit/{part}"));
        let dates = answer.head.fields.iter().filter(|(name, _)| name == "date");
        assert_eq!(dates.count(), 1, "{part}");
    }
}

#[test]
fn the_time_of_a_handler_begins_with_the_handler() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let server = one_core()
        .handler_timeout(PATIENCE)
        .serve_boxed(|request: Request<Incoming>| async move {
            if request.uri().path() == "/long" {
                let begun = Instant::now();
                while begun.elapsed() < PATIENCE * 3 / 2 {
                    std::hint::spin_loop();
                }
                return Ok(text("long").expect("a text"));
            }
            sleep(Duration::from_millis(1)).await?;
            Ok::<Text, Cancelled>(text("short").expect("a text"))
        })
        .expect("a server");
    let mut long = Client::connect(server.local_addr());
    let mut others: Vec<_> = (0..4)
        .map(|_| Client::connect(server.local_addr()))
        .collect();
    long.ask("GET", "/long", "");
    // They come in while the core is at it, and are read together.
    for other in &others {
        other.ask("GET", "/long", "");
        other.ask("GET", "/short", "");
    }
    assert_eq!(long.answer().text(), "long");
    for other in &mut others {
        assert_eq!(other.answer().text(), "long");
        assert_eq!(other.answer().status(), 200);
    }
}

#[test]
fn whoever_sends_as_much_as_was_said_is_left_to_end() {
    let (say, said) = mpsc::channel();
    let (log, logged) = mpsc::channel();
    let server = one_core()
        .on_answer(move |answered| {
            let entry = log.send((answered.sent, answered.whole));
            entry.expect("a test listens");
        })
        .serve_boxed(move |_: Request<Incoming>| {
            let say = say.clone();
            let body = body::stream(async move |sender: Sender| {
                sender.send("hello").await?;
                let tidied = sleep(Duration::from_millis(20)).await;
                say.send(tidied).expect("a test listens");
                Ok::<_, io::Error>(())
            });
            let mut answer = Response::new(body);
            answer.headers_mut().insert(CONTENT_LENGTH, 5.into());
            async { Ok::<_, io::Error>(answer) }
        })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!(said.recv().expect("it ended"), Ok(()));
    assert_eq!(logged.recv().expect("told"), (5, true));
    let snapshot = server.snapshot();
    assert_eq!(snapshot.cores[0].count("given_up", None), Some(0));
    assert_eq!(snapshot.merged("request").count(), 1);
}

/// Requests of a core follow each other in one place.
#[test]
fn what_is_told_of_a_request_is_its_own_whatever_came_before() {
    let (log, logged) = mpsc::channel();
    let server = one_core()
        .on_trouble(|_| {})
        .on_answer(move |answered| {
            let status = answered.status.map_or(0, |status| status.as_u16());
            let has_referer = answered.referer.is_some();
            let entry = log.send((status, answered.sent, answered.whole, has_referer));
            entry.expect("a test listens");
        })
        .serve_boxed(|request: Request<Incoming>| async move {
            let breaks = request.uri().path() == "/breaks";
            Ok::<_, io::Error>(Response::new(body::stream(async move |sender: Sender| {
                sender.send("hello").await?;
                match breaks {
                    true => Err(io::Error::other("as it was told to")),
                    false => Ok(()),
                }
            })))
        })
        .expect("a server");
    let told = || logged.recv().expect("told");
    let connected = || Client::connect(server.local_addr());
    for _ in 0..2 {
        let mut breaks = connected();
        breaks.ask("GET", "/breaks", "referer: there\r\n");
        breaks.until_cut();
        assert_eq!(told(), (200, 5, false, true));
        let mut goes_on = connected();
        assert_eq!(goes_on.get("/").text(), "hello");
        assert_eq!(told(), (200, 5, true, false));
        goes_on.ask("HEAD", "/", "");
        goes_on.head();
        assert_eq!(told(), (200, 0, true, false));
        assert_eq!(goes_on.get("/").text(), "hello");
        assert_eq!(told(), (200, 5, true, false));
        goes_on.send("GET / HTTP/1.1\r\n\r\n");
        assert_eq!(goes_on.answer().status(), 400);
        assert_eq!(told(), (400, 0, true, false));
    }
    let snapshot = server.snapshot();
    let count = |name| snapshot.cores[0].count(name, None);
    assert_eq!(count("failed"), Some(2));
    assert_eq!(count("refused"), Some(2));
    assert_eq!(count("given_up"), Some(0));
}

#[test]
fn a_body_that_fails_is_a_request_that_failed() {
    let server = one_core()
        .on_trouble(|_| {})
        .serve_boxed(|_: Request<Incoming>| async {
            Ok::<_, io::Error>(Response::new(body::stream(async |sender: Sender| {
                sender.send("a beginning").await?;
                Err(io::Error::other("as it was told to"))
            })))
        })
        .expect("a server");
    let client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    let mut client = client;
    client.until_cut();
    let handle = server.handle();
    while handle.open_connections() > 0 {
        std::thread::yield_now();
    }
    let snapshot = handle.snapshot();
    assert_eq!(snapshot.cores[0].count("failed", None), Some(1));
    assert_eq!(snapshot.cores[0].count("given_up", None), Some(0));
}

#[test]
fn a_channel_whose_producer_is_cancelled_is_cut() {
    let server = one_core()
        .on_trouble(|_| {})
        .serve_boxed(|_: Request<Incoming>| async {
            let (sender, body) = body::channel(1);
            drop(spawn(async move {
                let scope = Scope::new().timeout(Duration::from_millis(5));
                let made = scope.run(async move {
                    sender.send("one piece").await?;
                    sleep(Duration::MAX).await?;
                    sender.send(", another").await?;
                    Ok(())
                });
                let made: io::Result<Option<()>> = made.await;
                assert!(matches!(made, Ok(None)));
            }));
            Ok::<_, io::Error>(Response::new(body))
        })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    let head = client.head();
    let ended = client.body(&head, |_| {});
    assert!(ended.is_err(), "{ended:?}");
}

#[test]
fn what_has_a_body_or_is_too_old_is_not_upgraded() {
    let server = one_core()
        .serve_boxed(|mut request: Request<Incoming>| async move {
            let why = upgrade(&mut request, async |_| {}).expect_err("it cannot be");
            let mut answer = text(why.to_string()).expect("a text");
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            Ok::<_, io::Error>(answer)
        })
        .expect("a server");
    for (request, why) in [
        (
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\ncontent-length: 5\r\n\r\nhello",
            "with a body",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "with a body",
        ),
        (
            "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
            "does not ask",
        ),
    ] {
        let mut client = Client::connect(server.local_addr());
        client.send(request);
        let answer = client.answer();
        assert_eq!(answer.status(), 400);
        assert!(answer.text().contains(why), "{}", answer.text());
    }
}

#[test]
fn a_body_that_another_task_reads_after_the_answer_comes_whole_and_ends() {
    let (say, said) = mpsc::channel();
    let server = one_core()
        .serve_boxed(move |request: Request<Incoming>| {
            let say = say.clone();
            async move {
                drop(spawn(async move {
                    let body = request.into_body().collect().await;
                    let whole = body.map(Collected::to_bytes);
                    say.send(whole.map_err(|error| error.to_string()))
                        .expect("a test listens");
                }));
                text("accepted")
            }
        })
        .expect("a server");
    for framing in ["content-length: 10\r\n", "transfer-encoding: chunked\r\n"] {
        let mut client = Client::connect(server.local_addr());
        client.ask("POST", "/", framing);
        assert_eq!(client.answer().text(), "accepted");
        let is_chunked = framing.contains("chunked");
        for byte in b"0123456789" {
            let byte = char::from(*byte);
            client.send(match is_chunked {
                true => format!("1\r\n{byte}\r\n"),
                false => byte.to_string(),
            });
        }
        if is_chunked {
            client.send("0\r\n\r\n");
        }
        // The client asks for nothing more meanwhile.
        let read = said.recv().expect("a task reads");
        assert_eq!(read, Ok(Bytes::from_static(b"0123456789")), "{framing}");
        // And the connection goes on.
        client.ask("POST", "/", "content-length: 1\r\n");
        client.send("1");
        assert_eq!(client.answer().text(), "accepted");
        let read = said.recv().expect("a task reads");
        assert_eq!(read, Ok(Bytes::from_static(b"1")), "{framing}");
    }
}

#[test]
fn whole_answers_before_one_that_fails_arrive() {
    let server = one_core()
        .on_trouble(|_| {})
        .serve_boxed(|request: Request<Incoming>| async move {
            let fails = request.uri().path() == "/fails";
            let body = body::stream(async move |sender: Sender| match fails {
                true => Err(io::Error::other("as it was told to")),
                false => Ok(sender.send("whole").await?),
            });
            Ok::<_, io::Error>(Response::new(body))
        })
        .expect("a server");
    for whole in 1..=3 {
        let mut client = Client::connect(server.local_addr());
        let head = |path| format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        client.send(head("/").repeat(whole) + &head("/fails"));
        for _ in 0..whole {
            assert_eq!(client.answer().text(), "whole");
        }
    }
}
