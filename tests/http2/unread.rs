//! Clients that never read what they asked for: what is kept for them is bounded, and so is the time.

use std::convert::Infallible;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use quoit_net::http::Server;
use quoit_net::tcp::TcpOptions;
use socket2::{Domain, Protocol, Socket, Type};
use tests::http_client::pause;

use crate::client::{Client, frame, is_hang_up};
use crate::codes::*;
use crate::hpack;
use crate::servers::{answer, patient};

/// How much room there is in the kernel, at each end.
const ROOM: usize = 64 * 1024;

/// How many answers nobody reads.
const STREAMS: u32 = 50;

/// Connects with little room in the kernel for what comes.
fn narrow(server: &Server) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    socket.set_recv_buffer_size(ROOM).expect("an option");
    let address = server.local_addr();
    socket.connect(&address.into()).expect("it listens");
    let mut client = Client::over_tcp(TcpStream::from(socket), "10.5");
    client.greet();
    // As far as the windows go, all may come.
    client.settings(&[(INITIAL_WINDOW_SIZE, 1 << 30)]);
    client.number(WINDOW_UPDATE, 0, 1 << 30);
    client
}

/// A body that never ends, and counts.
struct Endless(Arc<AtomicUsize>);

const PIECE: usize = 16 * 1024;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.fetch_add(PIECE, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(vec![b'e'; PIECE].into()))))
    }
}

/// Answers are made ahead of their client by no more than the send buffer of each stream.
#[test]
fn s10_5_answers_that_nobody_reads_are_not_made() {
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let server = patient()
        .options(TcpOptions::new().send_buffer(ROOM))
        .serve(move |_| {
            let body = Endless(Arc::clone(&counted));
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
    let server = server.expect("a server");
    let mut client = narrow(&server);
    for stream in 0..STREAMS {
        client.get(1 + 2 * stream, "/");
    }
    for _ in 0..STREAMS {
        client.wait_for(|frame| frame.kind == HEADERS);
    }
    let read: usize = client.came().iter().map(|frame| frame.payload.len()).sum();
    // Until the server has nothing more to do.
    let mut before = server.metrics();
    let kept = loop {
        pause(Duration::from_millis(50));
        let now = server.metrics();
        if now == before {
            break made.load(Ordering::Relaxed) - read;
        }
        before = now;
    };
    // 64 KiB for each and the piece that went past them; what is gathered and sent; the kernel's.
    let most = STREAMS as usize * (64 * 1024 + 2 * PIECE) + 16 * ROOM;
    assert!(kept <= most, "{kept} bytes were made, and not {most}");
}

/// A flood behind answers that are not read: the server stops reading, and then gives up.
#[test]
fn s10_5_flood_of_a_client_that_reads_nothing_ends() {
    for kind in [PING, SETTINGS] {
        let server = patient()
            .options(TcpOptions::new().send_buffer(ROOM))
            .stall_timeout(Duration::from_millis(200))
            .serve(answer);
        let server = server.expect("a server");
        let mut client = narrow(&server);
        let block = hpack::encode(&hpack::request("GET", "/large"));
        for stream in 0..STREAMS {
            client.raw(&frame(HEADERS, WHOLE, 1 + 2 * stream, &block));
        }
        let payload: &[u8] = if kind == PING { &[0; 8] } else { b"" };
        let batch = frame(kind, NONE, 0, payload).repeat(1000);
        // What is taken is in the buffers of the kernel.
        let most = 64 << 20;
        let error = (0..most / batch.len())
            .find_map(|_| client.try_raw(&batch).err())
            .expect("it is not taken without end");
        assert!(is_hang_up(&error), "{error}");
    }
}
