//! Clients that say too little, take too little, or are gone: each costs itself, and nobody else.
//!
//! How long something may take at least is measured. That it ends at all is what the tests wait for.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Either, Full};
use quoit::spawn;
use quoit::time::{Instant, sleep};
use quoit_net::http::{Incoming, Server};
use quoit_net::tcp::TcpOptions;
use tests::http_client::{Client, pause, until};
use tests::{Drops, Serve, on_ring, reset};

use crate::peers::{self, get};
use crate::support::{LONG, PIECE, Pieces, at_rest, narrow, one_core, text};

/// The patience of a server that has little.
const SHORT: Duration = Duration::from_millis(200);

/// How many others are let go before one counts as held.
const FIVE: u64 = 5;

/// Pieces that no socket takes at once: 64 MiB.
const LARGE: u64 = 4096;

// --- clients that say too little ---

/// A server that gives a client little time for its request.
fn hasty() -> Server {
    let server = one_core()
        .head_timeout(SHORT)
        .idle_timeout(SHORT)
        .serve_boxed(|_| async { text("soon") });
    server.expect("a server")
}

/// Ends the loop of [`among_others`], also when its test has failed.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `slow`, while others are served; returns how long it took.
fn among_others(address: SocketAddr, slow: impl FnOnce()) -> Duration {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // On a new connection each time, and once at least.
            while {
                assert_eq!(Client::connect(address).get("/").text(), "soon");
                !done.load(Ordering::Acquire)
            } {}
        });
        let _done = Done(&done);
        let start = Instant::now();
        slow();
        start.elapsed()
    })
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let server = hasty();
    let address = server.local_addr();
    let took = among_others(address, || Client::connect(address).ends());
    assert!(took >= SHORT, "{took:?}");
}

#[test]
fn a_client_that_says_nothing_after_an_answer_is_let_go() {
    let server = hasty();
    let address = server.local_addr();
    let took = among_others(address, || {
        let mut client = Client::connect(address);
        assert_eq!(client.get("/").text(), "soon");
        client.ends();
    });
    assert!(took >= SHORT, "{took:?}");
}

/// hyper is done with such a body before, and hears nothing of it.
#[test]
fn a_client_whose_body_was_kept_behind_the_answer_is_let_go() {
    let server = one_core().idle_timeout(SHORT);
    let server = server.serve_boxed(|mut request: Request<Incoming>| async move {
        let read = request.body_mut().collect().await;
        let _task = spawn(async move {
            let _ = sleep(SHORT / 2).await;
            drop(request);
        });
        text(read.expect("a body").to_bytes())
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ask("POST", "/", "content-length: 4\r\n");
    client.send("kept");
    assert_eq!(client.answer().text(), "kept");
    client.ends();
}

/// Sends `begin`, and then `forever` byte by byte, until the connection is ended by the other side.
fn dribble(address: SocketAddr, begin: &[u8], forever: u8) {
    let client = Client::connect(address);
    let socket = client.socket();
    for byte in begin {
        client.send([*byte]);
    }
    socket.set_nonblocking(true).expect("an option");
    // A byte each time nothing came from the other side.
    until(|| match socket.peek(&mut [0]) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            client.try_send([forever]).is_err()
        }
        Ok(_) | Err(_) => true,
    });
}

#[test]
fn a_client_that_sends_a_head_byte_by_byte_for_ever_is_let_go() {
    let server = hasty();
    let address = server.local_addr();
    let begin = b"GET / HTTP/1.1\r\nhost: ";
    let took = among_others(address, || dribble(address, begin, b'x'));
    assert!(took >= SHORT, "{took:?}");
}

#[test]
fn a_client_that_is_slow_with_the_preface_is_let_go() {
    let server = hasty();
    let address = server.local_addr();
    let took = among_others(address, || {
        let mut client = Client::connect(address);
        client.send("PRI * HT");
        client.ends();
    });
    assert!(took >= SHORT, "{took:?}");
}

#[test]
fn a_client_of_http_2_that_asks_for_nothing_is_let_go() {
    let server = hasty();
    let address = server.local_addr();
    let mut client = Client::connect(address);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let socket = client.socket().try_clone().expect("a descriptor");
    let ended = AtomicBool::new(false);
    let was_let_go = thread::scope(|scope| {
        scope.spawn(|| {
            client.until_cut();
            ended.store(true, Ordering::Release);
        });
        for _ in 0..FIVE {
            Client::connect(address).ends();
        }
        let was_let_go = ended.load(Ordering::Acquire);
        // The other thread is not kept waiting.
        let _ = socket.shutdown(Shutdown::Both);
        was_let_go
    });
    assert!(
        was_let_go,
        "it is held while five others were let go, one after the other"
    );
}

#[test]
fn a_client_of_http_2_that_sends_a_head_byte_by_byte_is_let_go() {
    // The head of a frame, a frame, and a field block.
    for (begin, more) in [
        (&b"\x00"[..], &b""[..]),
        (b"\x00\x40\x00\x01\x04\x00\x00\x00\x01", b"\x82"),
        (b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82", b""),
    ] {
        let server = one_core()
            .head_timeout(SHORT)
            .serve_boxed(|_| async { text("soon") });
        let server = server.expect("a server");
        let address = server.local_addr();
        let took = among_others(address, || {
            let mut client = Client::connect(address);
            client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
            client.send(begin);
            let mut socket = client.socket().try_clone().expect("a descriptor");
            thread::scope(|scope| {
                let sending = scope.spawn(move || {
                    while !more.is_empty() && socket.write_all(more).is_ok() {
                        pause(SHORT / 20);
                    }
                });
                client.until_cut();
                sending.join().expect("no panic");
            });
        });
        assert!(took >= SHORT, "{took:?} with {begin:?}");
    }
}

/// Nobody reads the rest of it, as long as the client takes nothing of its answer.
#[test]
fn a_frame_that_is_not_read_is_no_slow_one() {
    const COUNT: u64 = 512;
    let server = one_core()
        .head_timeout(SHORT)
        .options(narrow())
        .serve_boxed(|_| async { Ok::<_, Infallible>(Response::new(Pieces::new(COUNT))) });
    let server = server.expect("a server");
    let client = Client::connect_narrow(server.local_addr());
    let ping = b"\0\0\x08\x06\0\0\0\0\0pingpong";
    // Windows as large as can be, and a request.
    let begin = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff"[..],
        b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0",
        b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x84\x01\x04test",
        &ping[..5],
    ];
    client.send(begin.concat());
    pause(SHORT * 3);
    client.send(&ping[5..]);
    let mut socket = client.socket().try_clone().expect("a descriptor");
    let mut came = 0;
    let mut bytes = vec![0; PIECE];
    while came < COUNT * PIECE as u64 {
        let count = socket.read(&mut bytes).expect("the answer");
        assert_ne!(count, 0, "it is cut after {came} bytes");
        came += count as u64;
    }
}

#[test]
fn a_client_of_http_2_that_goes_in_the_middle_of_a_frame_is_no_trouble() {
    let (tell, told) = mpsc::channel();
    let server = one_core()
        .on_trouble(move |trouble| tell.send(trouble.to_string()).expect("the test listens"))
        .serve_boxed(|_| async { text("soon") });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0");
    client
        .socket()
        .shutdown(Shutdown::Write)
        .expect("it is open");
    client.until_cut();
    drop(server);
    assert_eq!(told.iter().collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_handler_may_take_longer_than_a_head() {
    let server = one_core().head_timeout(SHORT).serve_boxed(|_| async {
        sleep(SHORT * 2).await?;
        Ok::<_, quoit::Cancelled>(Response::new("at last".to_owned()))
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "at last");
    }
}

// --- clients that take too little ---

type Answer = Either<Pieces, Full<Bytes>>;

/// A server with small answers for the path `/`, and large ones for the others, which are counted:
/// in `watched` for `/watched`, in `drops` else.
fn large_and_small(stall: Duration, drops: &Drops, watched: &Drops) -> Server {
    let (drops, watched) = (drops.clone(), watched.clone());
    let server = one_core()
        .stall_timeout(stall)
        .options(narrow())
        .serve_boxed(move |request: Request<Incoming>| {
            let body: Answer = match request.uri().path() {
                "/" => Either::Right("soon".into()),
                "/watched" => Either::Left(Pieces::new(LARGE).holding(watched.value())),
                _ => Either::Left(Pieces::new(LARGE).holding(drops.value())),
            };
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
    server.expect("a server")
}

#[test]
fn a_client_that_does_not_read_its_answer_is_let_go() {
    let drops = Drops::new();
    let server = large_and_small(SHORT, &drops, &drops);
    let address = server.local_addr();
    let mut client = Client::connect_narrow(address);
    let took = among_others(address, || {
        client.ask("GET", "/large", "");
        until(|| drops.dropped() == 1);
    });
    assert!(took >= SHORT, "{took:?}");
    // What had been sent is there, and it is not all.
    let head = client.head();
    let _ = client.body(&head, |_| {}).expect_err("the answer is cut");
}

#[test]
fn a_client_that_reads_slowly_is_not_let_go() {
    const STEP: u64 = 4 << 20;
    let drops = Drops::new();
    let server = large_and_small(SHORT * 2, &drops, &drops);
    let mut client = Client::connect_narrow(server.local_addr());
    client.ask("GET", "/large", "");
    let head = client.head();
    let size: u64 = head
        .field("content-length")
        .expect("known")
        .parse()
        .expect("a number");
    for _ in 0..size / STEP {
        pause(SHORT / 4);
        client.exactly(STEP, &mut |_| {}).expect("more is to come");
    }
    until(|| drops.dropped() == 1);
    assert_eq!(client.get("/").text(), "soon");
}

#[test]
fn a_client_that_takes_little_at_a_time_is_not_let_go() {
    const STALL: Duration = Duration::from_secs(1);
    // Neither kernel has room for what the client takes in that time: whenever it looks, the server
    // could see that some of it went.
    const ROOM: usize = 4096;
    let drops = Drops::new();
    let held = drops.clone();
    let server = one_core()
        .stall_timeout(STALL)
        .options(TcpOptions::new().send_buffer(ROOM))
        .serve_boxed(move |_| {
            let body = Pieces::new(LARGE).holding(held.value());
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
    let server = server.expect("a server");
    let mut client = Client::connect_with_room(server.local_addr(), ROOM);
    client.ask("GET", "/", "");
    assert_eq!(client.head().status, 200);
    let start = Instant::now();
    while start.elapsed() < STALL * 3 {
        pause(STALL / 20);
        let part = client.exactly(1024, &mut |_| {});
        part.expect("more is to come");
    }
    assert_eq!(drops.dropped(), 0, "it took something all the time");
}

#[test]
fn a_client_of_http_2_that_does_not_read_its_answer_is_let_go() {
    let drops = Drops::new();
    let watched = Drops::new();
    let server = large_and_small(SHORT, &drops, &watched);
    let address = server.local_addr();
    let others_are_let_go = move || {
        for count in 1..=FIVE {
            let client = Client::connect_narrow(address);
            client.ask("GET", "/large", "");
            until(|| drops.dropped() == count);
        }
    };
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let answer = sender.send_request(get(address, "/watched")).await;
        // Its head has come; of its body no frame is taken, and the window is soon used up.
        let _unread = answer.expect("an answer");
        let others = thread::spawn(others_are_let_go);
        while !others.is_finished() {
            sleep(Duration::from_millis(1))
                .await
                .expect("not cancelled");
        }
        others.join().expect("no panic");
        let was_let_go = watched.dropped() == 1;
        assert!(
            was_let_go,
            "it is held while five others were let go, one after the other"
        );
    });
}

// --- clients that are gone ---

#[test]
fn clients_that_vanish_in_the_middle_of_an_answer_harm_nobody() {
    const COUNT: u64 = 20;
    let drops = Drops::new();
    let server = large_and_small(LONG, &drops, &drops);
    let address = server.local_addr();
    let before = at_rest(&server);
    let mut other = Client::connect(address);
    for _ in 0..COUNT {
        let mut client = Client::connect_narrow(address);
        client.ask("GET", "/large", "");
        assert_eq!(client.head().status, 200);
        reset(client.into_socket());
        assert_eq!(other.get("/").text(), "soon");
    }
    until(|| drops.dropped() == COUNT);
    assert_eq!(other.get_with("/", "connection: close\r\n").text(), "soon");
    drop(other);
    assert_eq!(
        at_rest(&server)[0].tasks,
        before[0].tasks,
        "nothing is left of them"
    );
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_its_request_harms_nobody() {
    let collected = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&collected);
    let server = one_core().serve_boxed(move |request: Request<Incoming>| {
        let count = Arc::clone(&count);
        async move {
            let body = request.into_body().collect().await?;
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Response::new(Full::new(body.to_bytes())))
        }
    });
    let server = server.expect("a server");
    let before = at_rest(&server);
    for begun in [
        "POST / HT",
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 9\r\n\r\nabc",
    ] {
        for ends_with_reset in [false, true] {
            let client = Client::connect(server.local_addr());
            client.send(begun);
            at_rest(&server);
            if ends_with_reset {
                reset(client.into_socket());
            }
        }
    }
    assert_eq!(
        at_rest(&server)[0].tasks,
        before[0].tasks,
        "nothing is left of them"
    );
    assert_eq!(collected.load(Ordering::Relaxed), 0);
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn a_stream_of_http_2_that_is_given_up_drops_its_answer() {
    let drops = Drops::new();
    let server = large_and_small(LONG, &drops, &drops);
    let address = server.local_addr();
    let watched = drops.clone();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let mut first = sender.clone();
        let asked = spawn(async move { first.send_request(get(address, "/large")).await });
        let answer = asked.await.expect("no panic").expect("an answer");
        drop(answer);
        while watched.dropped() == 0 {
            sleep(Duration::from_millis(1))
                .await
                .expect("not cancelled");
        }
        let small = sender.send_request(get(address, "/")).await;
        let body = peers::whole(small.expect("the connection lives on")).await;
        assert_eq!(body, "soon");
    });
}
