//! Clients of HTTP/2 that take their time, in virtual time: with an answer, of which hyper has all, and what their
//! windows have no room for waits there; and with the body of a request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use quoit::sim::for_seeds;
use quoit::time::{Instant, sleep};
use quoit::{Cores, RemoteHandle, spawn};
use quoit_net::TcpStream;
use quoit_net::http::{Incoming, Server};

use crate::support::{Clients, World, address};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How long the answer is, which is made in one piece, and how much of it a client has room for at first.
const LENGTH: usize = 300_000;
const WINDOW: usize = 65_535;

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(600);

/// A client that has asked once.
struct Client {
    stream: TcpStream,
    ahead: Vec<u8>,
    taken: usize,
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

impl Client {
    /// Asks for an answer.
    async fn ask() -> Self {
        // GET, http, / and the authority (RFC 7541, appendix A).
        Self::begin(b"\x82\x86\x84\x41\x04site", END_HEADERS | END_STREAM).await
    }

    /// Begins with a head.
    async fn begin(head: &[u8], flags: u8) -> Self {
        let stream = TcpStream::connect(address()).await.expect("it listens");
        let client = Self {
            stream,
            ahead: Vec::new(),
            taken: 0,
        };
        let settings = [frame(SETTINGS, 0, 0, b""), frame(SETTINGS, 1, 0, b"")].concat();
        let head = frame(HEADERS, flags, 1, head);
        client.say([PREFACE, &settings, &head].concat()).await;
        client
    }

    async fn say(&self, frames: Vec<u8>) {
        let said = self.stream.write_all(frames).await;
        said.0.expect("it is open");
    }

    /// Waits until more has come; false at the end.
    async fn receive(&mut self) -> bool {
        match self.stream.recv().await {
            Ok(Some(chunk)) => {
                self.ahead.extend_from_slice(&chunk);
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Takes the next frame: its kind, its flags, and how long it is. `None` at the end.
    async fn next(&mut self) -> Option<(u8, u8, usize)> {
        loop {
            if let Some((head, behind)) = self.ahead.split_first_chunk::<9>() {
                let [high, middle, low, kind, flags, ..] = *head;
                let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                if behind.len() >= length {
                    self.ahead.drain(..9 + length);
                    return Some((kind, flags, length));
                }
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// Waits for the head of an answer; false if the connection ends before that.
    async fn is_answered(&mut self) -> bool {
        while let Some((kind, ..)) = self.next().await {
            if kind == HEADERS {
                return true;
            }
        }
        false
    }

    /// Takes so much of the answer; false if the connection ends before that.
    async fn take(&mut self, until: usize) -> bool {
        while self.taken < until {
            let Some((kind, flags, length)) = self.next().await else {
                return false;
            };
            if kind == DATA {
                self.taken += length;
                assert_eq!(flags & END_STREAM != 0, self.taken == LENGTH);
            }
        }
        true
    }

    /// Makes room for all of it.
    async fn make_room(&self) {
        let room = (1_u32 << 20).to_be_bytes();
        let updates = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &room));
        self.say(updates.concat()).await;
    }
}

/// A server that is patient with who takes nothing of an answer, and not with who asks for nothing.
fn server(stall: Duration) -> Server {
    let server = Server::bind(address())
        .cores(Cores::Count(1))
        .idle_timeout(Duration::from_secs(5))
        .stall_timeout(stall)
        .serve(|_| async { Ok::<_, std::io::Error>(Response::new("x".repeat(LENGTH))) });
    server.expect("a kind world")
}

#[test]
fn who_makes_no_room_for_a_while_is_neither_idle_nor_done_when_the_server_drains() {
    for drains in [false, true] {
        for_seeds(0..4, |sim| {
            World::Kind.of(sim).run(move || {
                let server = server(LONG);
                let (tell, told) = RemoteHandle::<()>::channel();
                let mut clients = Clients::on(1);
                clients.start(move || async move {
                    let mut client = Client::ask().await;
                    assert!(client.take(WINDOW).await, "there is room for it");
                    tell.send(());
                    let pause = sleep(Duration::from_secs(60)).await;
                    pause.expect("nobody cancels");
                    client.make_room().await;
                    let is_whole = client.take(LENGTH).await;
                    assert!(is_whole, "it has {} of {LENGTH}", client.taken);
                });
                told.wait().expect("the client goes on");
                if drains {
                    let report = server.shutdown(LONG).expect("no core failed");
                    assert_eq!((report.finished, report.cut), (1, 0));
                    clients.end();
                } else {
                    clients.end();
                    drop(server);
                }
            });
        });
    }
}

#[test]
fn who_never_makes_room_is_let_go_when_the_stall_timeout_is_over() {
    const STALL: Duration = Duration::from_secs(30);
    for_seeds(0..4, |sim| {
        World::Kind.of(sim).run(|| {
            let server = server(STALL);
            let mut clients = Clients::on(1);
            clients.start(|| async {
                let mut client = Client::ask().await;
                assert!(client.take(WINDOW).await, "there is room for it");
                let begun = Instant::now();
                assert!(!client.take(LENGTH).await, "it is never given more");
                let took = begun.elapsed();
                // The server counts from when the last of it went out, and looks now and then.
                let within = STALL - Duration::from_secs(1)..STALL + Duration::from_secs(10);
                assert!(within.contains(&took), "{took:?}");
            });
            clients.end();
            drop(server);
        });
    });
}

/// The task that reads it has more of it to come, whoever has answered meanwhile.
#[test]
fn a_body_that_is_read_behind_its_answer_is_waited_for_when_the_server_drains() {
    for_seeds(0..4, |sim| {
        World::Kind.of(sim).run(|| {
            let (tell, told) = RemoteHandle::<usize>::channel();
            let tell = Arc::new(Mutex::new(Some(tell)));
            let server = Server::bind(address())
                .cores(Cores::Count(1))
                .body_timeout(LONG)
                .serve(move |request: Request<Incoming>| {
                    let tell = tell.lock().expect("no panic").take();
                    async move {
                        drop(spawn(async move {
                            let read = request.into_body().collect().await;
                            let length = read.map_or(0, |read| read.to_bytes().len());
                            tell.expect("it is asked once").send(length);
                        }));
                        Ok::<_, std::io::Error>(Response::new(String::new()))
                    }
                });
            let server = server.expect("a kind world");
            let (begin, begun) = RemoteHandle::<()>::channel();
            let mut clients = Clients::on(1);
            clients.start(move || async move {
                let mut client = Client::begin(b"\x83\x86\x84\x41\x04site", END_HEADERS).await;
                assert!(client.is_answered().await, "at once");
                client.say(frame(DATA, 0, 1, b"the first half")).await;
                begin.send(());
                let pause = sleep(Duration::from_secs(60)).await;
                pause.expect("nobody cancels");
                client
                    .say(frame(DATA, END_STREAM, 1, b" and the other"))
                    .await;
                while client.receive().await {}
            });
            begun.wait().expect("the client goes on");
            let report = server.shutdown(LONG).expect("no core failed");
            assert_eq!(told.wait().expect("it is read"), 28);
            assert_eq!((report.finished, report.cut), (1, 0));
            clients.end();
        });
    });
}
