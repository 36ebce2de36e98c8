//! How long a connection may be idle, and a request may take in all.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{CarriesCancelled, Reason};
use quoit_net::http::body::{self, Sender, StreamBody};
use quoit_net::http::{Incoming, Server};
use tests::http_client::{Client, pause};
use tests::{Serve, on_ring};

use crate::peers::{self, get};
use crate::support::{LONG, one_core, text};

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn a_connection_that_is_idle_is_closed_and_no_sooner() {
    let server = one_core()
        .idle_timeout(SHORT)
        .serve_boxed(|_| async { text("x") })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    let begun = Instant::now();
    assert_eq!(client.get("/").text(), "x");
    client.ends();
    assert!(begun.elapsed() >= SHORT);
}

#[test]
fn a_connection_that_is_asked_in_time_stays_open() {
    let server = one_core()
        .idle_timeout(SHORT * 10)
        .serve_boxed(|_| async { text("x") })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    let begun = Instant::now();
    // Longer in all than it may be idle, and never idle for so long.
    while begun.elapsed() < SHORT * 12 {
        assert_eq!(client.get("/").text(), "x");
        pause(SHORT / 2);
    }
    client.ends();
}

#[test]
fn who_has_begun_to_ask_is_not_idle() {
    let server = one_core()
        .idle_timeout(SHORT)
        .serve_boxed(|_| async { text("x") })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.send("GET / HTTP/1.1\r\nho");
    pause(SHORT * 3);
    client.send("st: test\r\n\r\n");
    assert_eq!(client.answer().text(), "x");
}

#[test]
fn a_head_after_an_idle_time_has_its_own_time() {
    let server = one_core()
        .idle_timeout(LONG)
        .head_timeout(SHORT * 5)
        .serve_boxed(|_| async { text("x") })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/").text(), "x");
    // Idle for longer than a head may take.
    pause(SHORT * 6);
    assert_eq!(client.get("/").text(), "x");
    let begun = Instant::now();
    client.send("GET / HTTP/1.1\r\nho");
    client.ends();
    assert!(begun.elapsed() >= SHORT * 5);
}

#[test]
fn handlers_and_bodies_are_no_idle_time() {
    async fn after_a_while(sender: Sender) -> io::Result<()> {
        sender.send("a beginning").await?;
        sleep(SHORT * 3).await?;
        Ok(sender.send(", an end").await?)
    }
    let server = one_core()
        .idle_timeout(SHORT)
        .serve_boxed(|_: Request<Incoming>| async {
            sleep(SHORT * 3).await?;
            Ok::<_, io::Error>(Response::new(body::stream(after_a_while)))
        })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    assert_eq!(client.answer().text(), "a beginning, an end");
    let address = server.local_addr();
    let came = on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let answer = sender.send_request(get(address, "/")).await;
        peers::whole(answer.expect("an answer")).await
    });
    assert_eq!(came, "a beginning, an end");
}

/// Says something for ever, a little at a time, and why it ended.
async fn for_ever(sender: Sender, say: mpsc::Sender<Reason>) -> io::Result<()> {
    loop {
        let sent = match sender.send("again\n").await {
            Ok(()) => sleep(SHORT / 10).await.map_err(io::Error::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = sent {
            let cancelled = error.cancelled().expect("it is cancelled first");
            say.send(cancelled.reason()).expect("the test listens");
            return Err(error);
        }
    }
}

/// Gives requests some time: `/wait` waits for ever, `/stream` streams for ever, `/slow` takes some of it.
fn bounded(timeout: Duration) -> (Server, mpsc::Receiver<Reason>) {
    let (say, said) = mpsc::channel();
    let server = one_core()
        .request_timeout(timeout)
        .on_trouble(|_| {})
        .serve_boxed(move |request: Request<Incoming>| {
            let say = say.clone();
            async move {
                match request.uri().path() {
                    "/wait" => {
                        let ended = Event::new().wait().await.expect_err("it never happens");
                        say.send(ended.reason()).expect("the test listens");
                        Err(io::Error::from(ended))
                    }
                    "/stream" => Ok(Response::new(body::stream(|to| for_ever(to, say)))),
                    "/slow" => {
                        sleep(SHORT).await?;
                        Ok(Response::new(once("slow")))
                    }
                    _ => Ok(Response::new(once("at once"))),
                }
            }
        });
    (server.expect("a server"), said)
}

fn once(what: &'static str) -> StreamBody {
    body::stream(async move |sender: Sender| sender.send(what).await)
}

#[test]
fn a_handler_that_takes_longer_than_a_request_may_is_cancelled() {
    let (server, said) = bounded(SHORT);
    let mut client = Client::connect(server.local_addr());
    let begun = Instant::now();
    assert_eq!(client.get("/wait").status(), 503);
    assert!(begun.elapsed() >= SHORT);
    // Of the runs around its wait, the one of the request is late.
    assert_eq!(said.recv().expect("it was cancelled"), Reason::Deadline);
    // The next is counted from its own head.
    assert_eq!(client.get("/").text(), "at once");
}

#[test]
fn an_answer_that_takes_longer_than_a_request_may_is_cut() {
    let (server, said) = bounded(SHORT);
    let mut client = Client::connect(server.local_addr());
    let begun = Instant::now();
    client.ask("GET", "/stream", "");
    let head = client.head();
    assert_eq!(head.status, 200);
    let ended = client.body(&head, |_| {});
    assert!(ended.is_err(), "{ended:?}");
    assert!(begun.elapsed() >= SHORT);
    said.recv().expect("who made it was cancelled");
}

#[test]
fn a_request_in_time_is_left_alone_and_so_is_the_next() {
    let (server, _said) = bounded(SHORT * 15);
    let mut client = Client::connect(server.local_addr());
    let begun = Instant::now();
    // More in all than each may take.
    while begun.elapsed() < SHORT * 16 {
        assert_eq!(client.get("/slow").text(), "slow");
    }
    assert_eq!(client.get("/").text(), "at once");
}

#[test]
fn a_stream_of_http_2_that_takes_too_long_is_reset_and_the_others_are_not() {
    async fn asks(address: SocketAddr) {
        let (mut sender, _connection) = peers::http2(address).await;
        let streams = sender.send_request(get(address, "/stream"));
        let answer = streams.await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let ended = answer.into_body().collect().await;
        assert!(ended.is_err(), "it has no end");
        let late = sender.send_request(get(address, "/wait"));
        let late = late.await.expect("the connection goes on");
        assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
        let next = sender.send_request(get(address, "/"));
        let next = next.await.expect("the connection goes on");
        assert_eq!(peers::whole(next).await, "at once");
    }
    let (server, said) = bounded(SHORT);
    let address = server.local_addr();
    on_ring(move |_| asks(address));
    let mut why = [said.recv().expect("told"), said.recv().expect("told")];
    why.sort_by_key(|reason| format!("{reason:?}"));
    assert_eq!(why, [Reason::Deadline, Reason::Disconnected]);
}

/// Whoever takes 0 for "without end", or means it: nobody looks at it without a pause.
#[test]
fn a_timeout_of_nothing_does_not_keep_the_core_busy() {
    let zero = Duration::ZERO;
    for at_work in [true, false] {
        let builder = one_core().stall_timeout(zero);
        let builder = if at_work {
            builder.idle_timeout(zero)
        } else {
            builder
        };
        let server = builder.serve_boxed(|_| async {
            let _ = sleep(LONG).await;
            text("late")
        });
        let server = server.expect("a server");
        let mut client = TcpStream::connect(server.local_addr()).expect("it listens");
        client
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .expect("connected");
        if at_work {
            // GET / of x.
            let head = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01x";
            client.write_all(head).expect("connected");
        }
        client.read_exact(&mut [0; 9]).expect("its settings");
        let (before, begun) = (server.metrics()[0].polls, Instant::now());
        pause(SHORT);
        let (after, took) = (server.metrics()[0].polls, begun.elapsed());
        let looks = took.as_millis() as u64 / 10;
        assert!(
            after - before < 3 * looks + 20,
            "{} polls in {took:?}",
            after - before
        );
        drop(client);
        server.shutdown(zero).expect("it stops");
    }
}
