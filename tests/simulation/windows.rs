//! Clients of HTTP/2 that take their time with an answer, in virtual time. hyper has all of it, and what their windows
//! have no room for waits there.

use std::time::Duration;

use http::Response;
use quoit::sim::for_seeds;
use quoit::time::{Instant, sleep};
use quoit::{Cores, RemoteHandle};
use quoit_net::TcpStream;
use quoit_net::http::Server;

use crate::support::{Clients, World, address};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;

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
    async fn ask() -> Self {
        let stream = TcpStream::connect(address()).await.expect("it listens");
        // GET, http, / and the authority (RFC 7541, appendix A).
        let get = frame(HEADERS, 5, 1, b"\x82\x86\x84\x41\x04site");
        let settings = [frame(SETTINGS, 0, 0, b""), frame(SETTINGS, 1, 0, b"")].concat();
        let asked = stream.write_all([PREFACE, &settings, &get].concat()).await;
        asked.0.expect("it listens");
        Self {
            stream,
            ahead: Vec::new(),
            taken: 0,
        }
    }

    /// Takes so much of the answer; false if the connection ends before that.
    async fn take(&mut self, until: usize) -> bool {
        while self.taken < until {
            if let Some((head, behind)) = self.ahead.split_first_chunk::<9>() {
                let [high, middle, low, kind, flags, ..] = *head;
                let length = u32::from_be_bytes([0, high, middle, low]) as usize;
                if behind.len() >= length {
                    self.ahead.drain(..9 + length);
                    if kind == DATA {
                        self.taken += length;
                        assert_eq!(flags & END_STREAM != 0, self.taken == LENGTH);
                    }
                    continue;
                }
            }
            match self.stream.recv().await {
                Ok(Some(chunk)) => self.ahead.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    /// Makes room for all of it.
    async fn make_room(&self) {
        let room = (1_u32 << 20).to_be_bytes();
        let updates = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &room));
        let made = self.stream.write_all(updates.concat()).await;
        made.0.expect("it is open");
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
