//! What is asked is answered: on every core, in both protocols, in order, and byte by byte.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use quoit::sync::Event;
use quoit::time::sleep;
use quoit::{CoreId, spawn};
use quoit_net::http::{Incoming, Server};
use tests::http_client::Client;
use tests::{bytes, on_ring};

use crate::peers::{self, get, request, whole};
use crate::support::{Check, PIECE, Pieces, all_cores, at_rest, narrow, one_core, text};

const MIB: usize = 1 << 20;

/// The index of the core that answers.
fn this_core() -> usize {
    CoreId::current().expect("handlers run on cores").index()
}

/// Answers with what it was sent, once all of it is there.
fn collecting_echo() -> Server {
    let echo = |request: Request<Incoming>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, std::io::Error>(Response::new(Full::new(body)))
    };
    one_core().serve(echo).expect("a server")
}

/// Answers with what it is sent, while it is sent.
fn streaming_echo() -> Server {
    let echo = |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    };
    one_core().serve(echo).expect("a server")
}

// --- cores and connections ---

#[test]
fn every_core_answers_and_keeps_its_connections() {
    let server = all_cores().serve(|_| async { text(this_core().to_string()) });
    let server = server.expect("a server");
    let cores = server.metrics().len();
    let mut open: BTreeMap<String, Client> = BTreeMap::new();
    // The kernel spreads connections by their ports: it takes a few until every core has one.
    while open.len() < cores {
        let mut client = Client::connect(server.local_addr());
        let core = client.get("/").text().to_owned();
        open.insert(core, client);
    }
    for _ in 0..100 {
        for (core, client) in &mut open {
            let answer = client.get("/");
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.text(), core, "a connection stays on its core");
            assert!(!answer.head.says_close());
        }
    }
}

#[test]
fn a_handler_may_hold_what_is_not_send_across_awaits() {
    let server = all_cores().serve_with(|core| async move {
        let answered = Rc::new(Cell::new(0_u64));
        Ok(move |_| {
            let answered = Rc::clone(&answered);
            async move {
                sleep(Duration::from_micros(100)).await?;
                answered.set(answered.get() + 1);
                Ok::<_, quoit::Cancelled>(Response::new(format!("{core} {}", answered.get())))
            }
        })
    });
    let server = server.expect("a server");
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut asked = 0;
    while asked < 50 || last.len() < server.metrics().len() {
        asked += 1;
        let answer = Client::connect(server.local_addr()).get("/");
        let (core, count) = answer.text().split_once(' ').expect("two numbers");
        last.insert(core.to_owned(), count.parse().expect("a number"));
    }
    assert_eq!(
        last.values().sum::<u64>(),
        asked,
        "each core counted its own"
    );
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    const COUNT: usize = 200;
    let server = one_core().serve(|request: Request<Incoming>| async move {
        let number: u64 = request.uri().path()[1..].parse().expect("a number");
        // The later ones would be done first.
        sleep(Duration::from_micros((COUNT as u64 - number) * 10)).await?;
        Ok::<_, quoit::Cancelled>(Response::new(format!("answer {number}")))
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    let requests: String = (0..COUNT)
        .map(|number| format!("GET /{number} HTTP/1.1\r\nhost: test\r\n\r\n"))
        .collect();
    client.send(requests);
    for number in 0..COUNT {
        assert_eq!(client.answer().text(), format!("answer {number}"));
    }
}

#[test]
fn a_client_of_http_1_0_gets_its_answer_and_the_end() {
    let server = one_core()
        .serve(|_| async { text("old") })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().text(), "old");
    client.ends();
}

#[test]
fn a_connection_that_the_client_closes_ends_at_once_for_the_server() {
    let server = one_core()
        .serve(|_| async { text("bye") })
        .expect("a server");
    let before = at_rest(&server);
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get_with("/", "connection: close\r\n").text(), "bye");
    client.ends();
    drop(client);
    assert_eq!(at_rest(&server)[0].tasks, before[0].tasks);
}

// --- HTTP/2 ---

#[test]
fn a_hundred_streams_of_one_connection_are_answered_together() {
    const STREAMS: usize = 100;
    // Nobody is answered before all have asked.
    let server = one_core().serve_with(|_| async {
        let asked = Rc::new((Cell::new(0_usize), Event::new()));
        Ok(move |request: Request<Incoming>| {
            let asked = Rc::clone(&asked);
            async move {
                assert_eq!(request.version(), Version::HTTP_2);
                let (count, all) = &*asked;
                count.set(count.get() + 1);
                if count.get() == STREAMS {
                    all.set();
                }
                all.wait().await?;
                Ok::<_, quoit::Cancelled>(Response::new(request.uri().path().to_owned()))
            }
        })
    });
    let server = server.expect("a server");
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (sender, _connection) = peers::http2(address).await;
        let streams: Vec<_> = (0..STREAMS)
            .map(|number| {
                let mut sender = sender.clone();
                spawn(async move {
                    let path = format!("/{number}");
                    let answer = sender.send_request(get(address, &path)).await;
                    (path, whole(answer.expect("an answer")).await)
                })
            })
            .collect();
        for stream in streams {
            let (path, body) = stream.await.expect("no panic");
            assert_eq!(path, body);
        }
    });
}

#[test]
fn the_answer_to_head_is_a_head_in_both_protocols() {
    let server = one_core().serve(|_| async { text("well") });
    let server = server.expect("a server");
    let address = server.local_addr();
    on_ring(move |_| async move {
        let head = || {
            let mut question = get(address, "/");
            *question.method_mut() = Method::HEAD;
            question
        };
        let (mut one, _first) = peers::http1(address).await;
        let (mut two, _second) = peers::http2(address).await;
        for answer in [
            one.send_request(head()).await,
            two.send_request(head()).await,
        ] {
            let answer = answer.expect("an answer");
            assert_eq!(answer.headers()["content-length"], "4");
            // A piece of a body would be an error of its client.
            assert_eq!(whole(answer).await, "");
        }
    });
}

// --- bodies ---

#[test]
fn a_mebibyte_comes_back_by_http_1_as_it_was_sent() {
    for server in [collecting_echo(), streaming_echo()] {
        let mut client = Client::connect(server.local_addr());
        for seed in 0..3 {
            let sent = bytes(MIB + seed, 5 + seed as u64);
            let mut writer = client.socket().try_clone().expect("a descriptor");
            let answer = thread::scope(|scope| {
                scope.spawn(|| {
                    write!(
                        writer,
                        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
                        sent.len()
                    )
                    .expect("the server takes it");
                    writer.write_all(&sent).expect("the server takes it");
                });
                client.answer()
            });
            assert_eq!(answer.status(), 200);
            assert!(answer.body == sent, "the bytes are others");
        }
    }
}

#[test]
fn a_chunked_request_comes_back_as_it_was_sent() {
    let server = streaming_echo();
    let mut client = Client::connect(server.local_addr());
    let sent = bytes(MIB / 4, 9);
    let mut writer = client.socket().try_clone().expect("a descriptor");
    let answer = thread::scope(|scope| {
        scope.spawn(|| {
            let head = "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
            writer
                .write_all(head.as_bytes())
                .expect("the server takes it");
            for chunk in sent.chunks(4099) {
                let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
                framed.extend_from_slice(chunk);
                framed.extend_from_slice(b"\r\n");
                writer.write_all(&framed).expect("the server takes it");
            }
            writer.write_all(b"0\r\n\r\n").expect("the server takes it");
        });
        client.answer()
    });
    assert!(answer.body == sent, "the bytes are others");
}

/// Sends a mebibyte with hyper's client, and compares what comes back.
async fn echoed(address: SocketAddr, version: Version) {
    let sent = Bytes::from(bytes(MIB, 11));
    let question = request(address, "/", Full::new(sent.clone()));
    let answer = if version == Version::HTTP_2 {
        let (mut sender, connection) = peers::http2(address).await;
        let answer = sender.send_request(question).await.expect("an answer");
        drop(connection);
        answer
    } else {
        let (mut sender, connection) = peers::http1(address).await;
        let answer = sender.send_request(question).await.expect("an answer");
        drop(connection);
        answer
    };
    assert_eq!(answer.version(), version);
    assert!(whole(answer).await == sent, "the bytes are others");
}

#[test]
fn a_mebibyte_comes_back_from_server_to_client_of_ours_in_both_protocols() {
    for server in [collecting_echo(), streaming_echo()] {
        let address = server.local_addr();
        on_ring(move |_| async move {
            echoed(address, Version::HTTP_11).await;
            echoed(address, Version::HTTP_2).await;
        });
    }
}

// --- large answers, slowly read ---

/// 64 MiB.
const LARGE: u64 = 64 * MIB as u64 / PIECE as u64;

/// A server of large answers, and how many bytes their bodies were asked for.
fn large_answers() -> (Server, Arc<AtomicU64>) {
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let server = one_core().options(narrow()).serve(move |_| {
        let body = Pieces::new(LARGE).counting(&count);
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    (server.expect("a server"), made)
}

#[test]
fn an_answer_is_made_no_faster_than_a_client_of_http_1_takes_it() {
    // What fits into the sockets of both sides, and what hyper and its stream gather.
    const AHEAD: u64 = 2 * MIB as u64;
    let (server, made) = large_answers();
    let mut client = Client::connect_narrow(server.local_addr());
    client.ask("GET", "/", "");
    let head = client.head();
    let mut check = Check::default();
    let size = LARGE * PIECE as u64;
    assert_eq!(
        head.field("content-length"),
        Some(size.to_string().as_str())
    );
    let mut stops = 0;
    while check.taken() < size {
        if stops < 4 && check.taken() >= stops * 8 * MIB as u64 {
            stops += 1;
            // It has all the time it wants to run ahead.
            at_rest(&server);
        }
        let ahead = made.load(Ordering::Relaxed) - check.taken();
        assert!(
            ahead <= AHEAD,
            "{ahead} bytes were made ahead of the client"
        );
        let part = client.exactly(PIECE as u64, &mut |bytes| check.take(bytes));
        part.expect("more is to come");
    }
    assert_eq!(stops, 4);
    assert_eq!(made.load(Ordering::Relaxed), size);
    client.ask("GET", "/", "");
    assert_eq!(client.head().status, 200, "the connection lives on");
}

#[test]
fn an_answer_is_made_no_faster_than_a_client_of_http_2_takes_it() {
    // The window of a stream, what HTTP/2 keeps to send, and what sockets take.
    const AHEAD: u64 = 8 * MIB as u64;
    let (server, made) = large_answers();
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let answer = sender.send_request(get(address, "/")).await;
        let mut body = answer.expect("an answer").into_body();
        let mut check = Check::default();
        let mut stops = 0;
        loop {
            if stops < 4 && check.taken() >= stops * 12 * MIB as u64 {
                stops += 1;
                // It has the time to run ahead.
                sleep(Duration::from_millis(100))
                    .await
                    .expect("not cancelled");
            }
            let ahead = made.load(Ordering::Relaxed) - check.taken();
            assert!(
                ahead <= AHEAD,
                "{ahead} bytes were made ahead of the client"
            );
            let Some(frame) = body.frame().await else {
                break;
            };
            let data = frame.expect("more is to come").into_data();
            check.take(&data.expect("no trailers"));
        }
        assert_eq!(check.taken(), LARGE * PIECE as u64);
        assert_eq!(stops, 4);
    });
}
