//! Who tells a core something allocates nothing; what a large answer took is given back.
//!
//! A binary of its own: allocations are counted for the whole process, by one test at a time.

use std::alloc::System;
use std::convert::Infallible;
use std::future::poll_fn;
use std::hint::spin_loop;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
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

/// Asks for so many bytes, and reads them without allocating anything.
fn ask(client: &mut TcpStream, length: usize) {
    let path = if length == LARGE { "large" } else { "small" };
    // As browsers say.
    let fields = "host: test\r\nconnection: keep-alive\r\n";
    write!(client, "GET /{path} HTTP/1.1\r\n{fields}\r\n").expect("it is taken");
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

/// Where hyper copies what it sends, its memory would be as large as its largest answer for as long as the connection is
/// there.
#[test]
fn what_a_large_answer_took_is_given_back_while_its_connection_stays() {
    static BODY: [u8; LARGE] = [b'x'; LARGE];
    let _alone = alone();
    let server = Server::bind("127.0.0.1:0").serve(|request| async move {
        let is_large = request.uri().path() == "/large";
        let body: &[u8] = if is_large { &BODY } else { b"small" };
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(body))))
    });
    let server = server.expect("a server");
    let connect = |_| TcpStream::connect(server.local_addr()).expect("it listens");
    let mut clients: Vec<_> = (0..16).map(connect).collect();
    for client in &mut clients {
        ask(client, 5);
    }
    let before = ALLOCATOR.stats();
    for client in &mut clients {
        ask(client, LARGE);
        // With the first its connection comes to rest; with the second it has.
        ask(client, 5);
        ask(client, 5);
    }
    let change = ALLOCATOR.stats() - before;
    let kept = change
        .bytes_allocated
        .saturating_sub(change.bytes_deallocated);
    assert!(kept < clients.len() * LARGE / 4, "{kept} bytes are kept");
}
