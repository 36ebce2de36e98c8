//! Who tells a core something allocates nothing; what a large answer took is given back.
//!
//! A binary of its own: allocations are counted for the whole process, by one test at a time.

use std::alloc::System;
use std::convert::Infallible;
use std::future::poll_fn;
use std::hint::spin_loop;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use quoit::time::{Instant, sleep};
use quoit::{CancelHandle, Cancelled, Delivery, Reason, Scope, spawn, yield_now};
use quoit_net::http::Server;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::on_ring;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const LONG: Duration = Duration::from_secs(3600);

static ALONE: Mutex<()> = Mutex::new(());

/// Lets no other test allocate meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// Tells each of these scopes something else, and all of them that they are cancelled, again and again.
fn tell(handles: &[CancelHandle]) {
    for (place, handle) in handles.iter().enumerate() {
        assert_eq!(handle.set_deadline(Instant::NEVER), Delivery::Delivered);
        let told = match place % 3 {
            0 => handle.cancel(),
            1 => handle.cancel_with(Reason::User(7), Duration::ZERO),
            _ => handle.cancel_with(Reason::Requested, LONG),
        };
        assert_eq!(told, Delivery::Delivered);
        assert_eq!(handle.cancel(), Delivery::AlreadyCancelled);
    }
}

#[test]
fn who_cancels_from_elsewhere_or_wakes_allocates_nothing() {
    let _alone = alone();
    on_ring(|_| async {
        let mut handles = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..1000 {
            let scope = Scope::new();
            handles.push(scope.handle());
            tasks.push(spawn(async move { scope.run(sleep(LONG)).await }));
        }
        yield_now().await.expect("not cancelled");
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let gone = Scope::new();
        let gone_handle = gone.handle();
        assert_eq!(gone.run(async { Ok::<_, Cancelled>(7) }).await, Ok(Some(7)));

        let is_told = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&is_told);
        let teller = thread::spawn(move || {
            // The core is busy meanwhile, and allocates nothing itself.
            let before = allocations();
            tell(&handles);
            assert_eq!(gone_handle.cancel(), Delivery::Gone);
            waker.wake_by_ref();
            let after = allocations();
            tells.store(true, Ordering::Release);
            after - before
        });
        while !is_told.load(Ordering::Acquire) && !teller.is_finished() {
            spin_loop();
        }
        assert_eq!(teller.join().expect("all were told"), 0);
        for task in tasks {
            assert_eq!(task.await.expect("it ended"), Ok(None));
        }
    });
}

const LARGE: usize = 1 << 20;

/// What is asked for, and how, of which the answer is large.
const WAYS: [&str; 5] = [
    "GET /large",
    "GET /pieces",
    "POST /large",
    "POST /large in chunks",
    "POST /unread",
];

/// Asks, and reads the answer without allocating anything.
fn ask(client: &mut TcpStream, way: &str, length: usize) {
    let fields = match way {
        "POST /large" | "POST /unread" => "content-length: 4\r\n\r\nbody",
        "POST /large in chunks" => "transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        // As browsers say.
        _ => "connection: keep-alive\r\n\r\n",
    };
    let mut words = way.split(' ');
    let (method, path) = (words.next(), words.next());
    let (method, path) = (method.expect("a method"), path.expect("a path"));
    write!(client, "{method} {path} HTTP/1.1\r\nhost: test\r\n{fields}").expect("it is taken");
    let mut room = [0; 8192];
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut room[..1]).expect("a head");
        head.push(room[0]);
    }
    let mut left = length;
    while left > 0 {
        let part = left.min(room.len());
        left -= client.read(&mut room[..part]).expect("a body");
    }
}

/// A body that is there at once, in pieces of so many bytes.
struct Pieces {
    size: usize,
    left: usize,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static BODY: [u8; LARGE] = [b'x'; LARGE];
        let size = self.size.min(self.left);
        self.left -= size;
        let piece = || Ok(Frame::data(Bytes::from_static(&BODY[..size])));
        Poll::Ready((size > 0).then(piece))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

/// Where hyper copies what it sends, its memory would be as large as its largest answer for as long as the connection is
/// there.
#[test]
fn what_a_large_answer_took_is_given_back_while_its_connection_stays() {
    let _alone = alone();
    for way in WAYS {
        let server = Server::bind("127.0.0.1:0").serve(|request| async move {
            let (size, left) = match request.uri().path() {
                "/large" | "/unread" => (LARGE, LARGE),
                "/pieces" => (4096, LARGE),
                _ => (5, 5),
            };
            if request.uri().path() != "/unread" {
                let read = request.into_body().collect().await?;
                drop(read);
            }
            Ok::<_, io::Error>(Response::new(Pieces { size, left }))
        });
        let server = server.expect("a server");
        let connect = |_| TcpStream::connect(server.local_addr()).expect("it listens");
        let mut clients: Vec<_> = (0..16).map(connect).collect();
        for client in &mut clients {
            ask(client, "GET /small", 5);
        }
        // A core that tells its figures has come to the end of the turn in which it answered.
        drop(server.metrics());
        let before = ALLOCATOR.stats();
        for client in &mut clients {
            ask(client, way, LARGE);
        }
        drop(server.metrics());
        let change = ALLOCATOR.stats() - before;
        let kept = change
            .bytes_allocated
            .saturating_sub(change.bytes_deallocated);
        let bound = clients.len() * LARGE / 8;
        assert!(kept < bound, "{way}: {kept} bytes are kept");
    }
}
