//! How a server ends: what it has begun is answered, and what does not end is cut.

use std::convert::Infallible;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use quoit::spawn;
use quoit::time::{Instant, sleep};
use quoit_net::http::{Incoming, Server};
use tests::http_client::{Client, nobody_listens, pause, until};
use tests::{Drops, Serve, on_ring};

use crate::peers::{self, get, whole};
use crate::support::{LONG, PIECE, Pieces, all_cores, at_rest, narrow, one_core, text};

// --- under load ---

/// What clients have seen, all together.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    is_draining: AtomicBool,
    is_over: AtomicBool,
}

impl Seen {
    /// Asks again and again, until the connection ends, at most `most` times.
    ///
    /// A whole answer is counted. The connection may end where an answer could begin, and nowhere
    /// else.
    fn ask_in_a_loop(&self, client: &mut Client, most: u64) {
        for _ in 0..most {
            let asked = client.try_send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
            let head = asked.and_then(|()| client.try_head());
            let head = match head {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::UnexpectedEof, "a head is cut");
                    break;
                }
            };
            let mut sum = 0;
            let size = client.body(&head, |bytes| sum += bytes.len());
            assert_eq!(size.expect("a whole answer"), sum as u64);
            self.answers.fetch_add(1, Ordering::Relaxed);
            if head.says_close() {
                client.ends();
                break;
            }
            assert!(
                !self.is_over.load(Ordering::Acquire),
                "nobody is there to answer"
            );
        }
    }

    /// Connects, unless nobody listens any more.
    fn connect(&self, address: SocketAddr) -> Option<Client> {
        match Client::try_connect(address) {
            Ok(client) => Some(client),
            Err(error) => {
                let is_draining = self.is_draining.load(Ordering::Acquire);
                assert!(is_draining, "refused before the drain: {error}");
                None
            }
        }
    }
}

/// Answers of 100 B, 10 kB and 1 MB, some of them after a while; counted when they are made.
fn load_server() -> (Server, Arc<AtomicU64>) {
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let server = all_cores().serve_boxed(move |_| {
        let count = Arc::clone(&count);
        async move {
            let number = count.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(7) {
                sleep(Duration::from_millis(2)).await?;
            }
            let size = match number % 10 {
                0 => 1_000_000,
                1..4 => 10_000,
                _ => 100,
            };
            Ok::<_, quoit::Cancelled>(Response::new(Full::new(Bytes::from(vec![b'x'; size]))))
        }
    });
    (server.expect("a server"), made)
}

/// Drains a server while `clients` threads do `work`; every answer that was made must arrive.
fn drained_under_load(clients: usize, work: impl Fn(&Arc<Seen>, SocketAddr) + Sync) {
    let (server, made) = load_server();
    let address = server.local_addr();
    let seen = Arc::new(Seen::default());
    let report = thread::scope(|scope| {
        let working: Vec<_> = (0..clients)
            .map(|_| scope.spawn(|| work(&seen, address)))
            .collect();
        // Or all have failed.
        until(|| {
            seen.answers.load(Ordering::Relaxed) >= 200
                || working.iter().all(|client| client.is_finished())
        });
        seen.is_draining.store(true, Ordering::Release);
        let report = server.shutdown(LONG).expect("every core ended well");
        seen.is_over.store(true, Ordering::Release);
        report
    });
    assert_eq!(report.cut, 0);
    let answers = seen.answers.load(Ordering::Relaxed);
    assert_eq!(made.load(Ordering::Relaxed), answers, "answers are lost");
}

#[test]
fn a_drain_under_load_loses_no_answer_of_connections_that_stay_open() {
    drained_under_load(8, |seen, address| {
        if let Some(mut client) = seen.connect(address) {
            seen.ask_in_a_loop(&mut client, u64::MAX);
        }
    });
}

#[test]
fn a_drain_under_load_loses_no_answer_of_connections_that_come_and_go() {
    drained_under_load(8, |seen, address| {
        while let Some(mut client) = seen.connect(address) {
            seen.ask_in_a_loop(&mut client, 3);
        }
    });
}

#[test]
fn a_drain_under_load_loses_no_answer_of_http_2() {
    drained_under_load(1, |seen, address| {
        let seen = Arc::clone(seen);
        on_ring(move |_| async move {
            let mut connections = Vec::new();
            for _ in 0..4 {
                connections.push(peers::http2(address).await);
            }
            let mut streams = Vec::new();
            for (sender, _) in &connections {
                for _ in 0..8 {
                    let (mut sender, seen) = (sender.clone(), Arc::clone(&seen));
                    streams.push(spawn(async move {
                        while let Ok(answer) = sender.send_request(get(address, "/")).await {
                            whole(answer).await;
                            seen.answers.fetch_add(1, Ordering::Relaxed);
                        }
                    }));
                }
            }
            for stream in streams {
                stream.await.expect("every answer was whole");
            }
            for (_, connection) in connections {
                connection.await.expect("no panic").expect("an orderly end");
            }
        });
    });
}

// --- one request at a time ---

/// Says that a handler has begun.
type Begun = (mpsc::Sender<()>, mpsc::Receiver<()>);

/// Begins a drain on a thread of its own.
fn drained_aside(server: Server, grace: Duration) -> thread::JoinHandle<quoit_net::http::Report> {
    thread::spawn(move || server.shutdown(grace).expect("every core ended well"))
}

#[test]
fn a_request_in_progress_is_answered_as_the_last() {
    let (tell, told): Begun = mpsc::channel();
    let drains = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&drains);
    let server = one_core().serve_boxed(move |_| {
        let (tell, seen) = (tell.clone(), Arc::clone(&seen));
        async move {
            tell.send(()).expect("the test listens");
            while !seen.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(1)).await?;
            }
            Ok::<_, quoit::Cancelled>(Response::new("the last".to_owned()))
        }
    });
    let server = server.expect("a server");
    let address = server.local_addr();
    let mut client = Client::connect(address);
    client.ask("GET", "/", "");
    told.recv().expect("the handler begins");
    let draining = drained_aside(server, LONG);
    until(|| nobody_listens(address));
    drains.store(true, Ordering::Relaxed);
    let answer = client.answer();
    assert_eq!(answer.text(), "the last");
    assert!(answer.head.says_close());
    client.ends();
    drop(client);
    let report = draining.join().expect("no panic");
    assert_eq!((report.finished, report.cut), (1, 0));
}

#[test]
fn an_answer_that_is_being_sent_is_sent_to_its_end() {
    const COUNT: u64 = 1024;
    let server = one_core()
        .options(narrow())
        .serve_boxed(|_| async { Ok::<_, Infallible>(Response::new(Pieces::new(COUNT))) });
    let server = server.expect("a server");
    let mut client = Client::connect_narrow(server.local_addr());
    client.ask("GET", "/", "");
    let head = client.head();
    assert_eq!(head.status, 200);
    let address = server.local_addr();
    let draining = drained_aside(server, LONG);
    until(|| nobody_listens(address));
    let size = client.body(&head, |_| {}).expect("a whole answer");
    assert_eq!(size, COUNT * PIECE as u64);
    client.ends();
    drop(client);
    let report = draining.join().expect("no panic");
    assert_eq!((report.finished, report.cut), (1, 0));
}

#[test]
fn a_request_whose_body_is_still_coming_is_answered() {
    let (tell, told): Begun = mpsc::channel();
    let server = one_core().serve_boxed(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            tell.send(()).expect("the test listens");
            let body = request.into_body().collect().await?;
            Ok::<_, std::io::Error>(Response::new(Full::new(body.to_bytes())))
        }
    });
    let server = server.expect("a server");
    let address = server.local_addr();
    let mut client = Client::connect(address);
    client.ask("POST", "/", "content-length: 9\r\n");
    client.send("one ");
    told.recv().expect("the handler begins");
    let draining = drained_aside(server, LONG);
    until(|| nobody_listens(address));
    client.send("whole");
    let answer = client.answer();
    assert_eq!(answer.text(), "one whole");
    assert!(answer.head.says_close());
    client.ends();
    drop(client);
    assert_eq!(draining.join().expect("no panic").cut, 0);
}

/// Sends `begun` of a request, after `before` others were answered, and the rest of it when the
/// server has been draining for longer than an idle connection is kept for a last request.
fn begun_before_the_drain(before: usize, begun: &str) {
    let server = one_core().serve_boxed(|_| async { text("answered") });
    let server = server.expect("a server");
    let address = server.local_addr();
    let mut client = Client::connect(address);
    for _ in 0..before {
        assert_eq!(client.get("/").text(), "answered");
    }
    client.send(begun);
    at_rest(&server);
    let draining = drained_aside(server, LONG);
    until(|| nobody_listens(address));
    pause(Duration::from_millis(700));
    let rest = &"POST / HTTP/1.1\r\nhost: test\r\n\r\n"[begun.len()..];
    let outcome = client.try_send(rest).and_then(|()| client.try_answer());
    let answer = outcome
        .expect("a whole answer")
        .expect("an answer before the end");
    assert_eq!(answer.text(), "answered");
    assert!(answer.head.says_close());
    drop(client);
    assert_eq!(draining.join().expect("no panic").cut, 0);
}

#[test]
fn a_first_head_that_has_begun_is_waited_for() {
    begun_before_the_drain(0, "POST / HTTP/1.1\r\nho");
}

#[test]
fn a_first_head_that_has_begun_with_one_letter_is_waited_for() {
    // It may still be HTTP/2.
    begun_before_the_drain(0, "P");
}

#[test]
fn a_later_head_that_has_begun_is_waited_for() {
    begun_before_the_drain(1, "POST / HTTP/1.1\r\nho");
}

#[test]
fn idle_connections_end_in_order_when_the_server_drains() {
    let server = all_cores()
        .serve_boxed(|_| async { text("before") })
        .expect("a server");
    let mut idle: Vec<Client> = (0..20)
        .map(|_| Client::connect(server.local_addr()))
        .collect();
    for client in &mut idle[..10] {
        assert_eq!(client.get("/").text(), "before");
    }
    let report = thread::scope(|scope| {
        for mut client in idle {
            scope.spawn(move || client.ends());
        }
        server.shutdown(LONG).expect("every core ended well")
    });
    assert_eq!((report.finished, report.cut), (20, 0));
}

#[test]
fn a_stream_of_http_2_in_progress_is_answered_and_its_connection_ends() {
    let (tell, told): Begun = mpsc::channel();
    let server = one_core().serve_boxed(move |_| {
        let tell = tell.clone();
        async move {
            tell.send(()).expect("the test listens");
            sleep(Duration::from_millis(200)).await?;
            Ok::<_, quoit::Cancelled>(Response::new("the last".to_owned()))
        }
    });
    let server = server.expect("a server");
    let address = server.local_addr();
    let draining = thread::spawn(move || {
        told.recv().expect("the handler begins");
        server.shutdown(LONG).expect("every core ended well")
    });
    on_ring(move |_| async move {
        let (mut sender, connection) = peers::http2(address).await;
        let answer = sender.send_request(get(address, "/")).await;
        assert_eq!(whole(answer.expect("an answer")).await, "the last");
        let ended = connection.await.expect("no panic");
        ended.expect("an orderly end");
        let late = sender.send_request(get(address, "/")).await;
        let _ = late.expect_err("the connection has ended");
    });
    let report = draining.join().expect("no panic");
    assert_eq!((report.finished, report.cut), (1, 0));
}

#[test]
fn an_answer_of_http_2_that_is_being_sent_is_sent_to_its_end() {
    const COUNT: u64 = 1024;
    let server = one_core()
        .options(narrow())
        .serve_boxed(|_| async { Ok::<_, Infallible>(Response::new(Pieces::new(COUNT))) });
    let server = server.expect("a server");
    let address = server.local_addr();
    let (tell, told): Begun = mpsc::channel();
    let draining = thread::spawn(move || {
        told.recv().expect("the answer has begun");
        server.shutdown(LONG).expect("every core ended well")
    });
    on_ring(move |_| async move {
        let (mut sender, connection) = peers::http2(address).await;
        let answer = sender
            .send_request(get(address, "/"))
            .await
            .expect("an answer");
        tell.send(()).expect("the other thread listens");
        sleep(Duration::from_millis(100))
            .await
            .expect("not cancelled");
        assert_eq!(whole(answer).await.len() as u64, COUNT * PIECE as u64);
        let ended = connection.await.expect("no panic");
        ended.expect("an orderly end");
    });
    let report = draining.join().expect("no panic");
    assert_eq!((report.finished, report.cut), (1, 0));
}

/// It may sleep, or its network may be gone: nothing is lost to it.
#[test]
fn an_idle_client_of_http_2_that_hears_no_goodbye_is_not_waited_for() {
    let server = one_core()
        .serve_boxed(|_| async { text("before") })
        .expect("a server");
    let client = Client::connect(server.local_addr());
    client.send(HTTP2);
    at_rest(&server);
    let report = server.shutdown(LONG).expect("every core ended well");
    assert_eq!((report.finished, report.cut), (1, 0));
}

// --- what does not end ---

const GRACE: Duration = Duration::from_millis(200);

/// What a handler waits for in vain.
#[derive(Debug, Clone, Copy)]
enum Endless {
    /// An op, which fails with the cancel.
    Op,
    /// Something that the runtime does not know.
    Foreign,
}

#[test]
fn a_handler_that_never_ends_is_cut_at_the_end_of_the_grace_period() {
    for endless in [Endless::Op, Endless::Foreign] {
        let drops = Drops::new();
        let (tell, told): Begun = mpsc::channel();
        let held = drops.clone();
        let server = all_cores().serve_boxed(move |_| {
            let (tell, held) = (tell.clone(), held.value());
            async move {
                let _held = held;
                tell.send(()).expect("the test listens");
                match endless {
                    Endless::Op => sleep(LONG).await?,
                    Endless::Foreign => pending().await,
                }
                Ok::<_, quoit::Cancelled>(Response::new("never".to_owned()))
            }
        });
        let server = server.expect("a server");
        let mut idle = Client::connect(server.local_addr());
        let mut client = Client::connect(server.local_addr());
        client.ask("GET", "/", "");
        told.recv().expect("the handler begins");
        let start = Instant::now();
        let report = thread::scope(|scope| {
            // Closes when it is told that this is the end.
            scope.spawn(|| {
                idle.ends();
                drop(idle);
            });
            server.shutdown(GRACE).expect("every core ended well")
        });
        assert!(start.elapsed() >= GRACE);
        assert_eq!(report.cut, 1, "{endless:?}");
        assert_eq!(report.finished, 1, "{endless:?}");
        assert_eq!((drops.dropped(), drops.alive()), (1, 0), "{endless:?}");
        assert_eq!(client.until_cut(), 0, "{endless:?}");
    }
}

#[test]
fn a_stream_of_http_2_that_never_ends_is_cut_as_well() {
    let drops = Drops::new();
    let (tell, told): Begun = mpsc::channel();
    let held = drops.clone();
    let server = one_core().serve_boxed(move |_| {
        let (tell, held) = (tell.clone(), held.value());
        async move {
            let _held = held;
            tell.send(()).expect("the test listens");
            pending::<()>().await;
            text("never")
        }
    });
    let server = server.expect("a server");
    let address = server.local_addr();
    let draining = thread::spawn(move || {
        told.recv().expect("the handler begins");
        server.shutdown(GRACE).expect("every core ended well")
    });
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let outcome = sender.send_request(get(address, "/")).await;
        let _ = outcome.expect_err("it is cut");
    });
    let report = draining.join().expect("no panic");
    assert_eq!((report.finished, report.cut), (0, 1));
    assert_eq!((drops.dropped(), drops.alive()), (1, 0));
}

#[test]
fn an_answer_that_nobody_takes_is_cut_at_the_end_of_the_grace_period() {
    let drops = Drops::new();
    let held = drops.clone();
    let server = one_core().options(narrow()).serve_boxed(move |_| {
        let body = Pieces::new(4096).holding(held.value());
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let server = server.expect("a server");
    let mut client = Client::connect_narrow(server.local_addr());
    client.ask("GET", "/", "");
    let head = client.head();
    let report = server.shutdown(GRACE).expect("every core ended well");
    assert_eq!((report.finished, report.cut), (0, 1));
    assert_eq!(drops.alive(), 0);
    let _ = client.body(&head, |_| {}).expect_err("the answer is cut");
}

#[test]
fn a_shutdown_without_grace_cuts_at_once() {
    let server = one_core().serve_boxed(|_| pending::<Result<Response<String>, Infallible>>());
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    at_rest(&server);
    let report = server
        .shutdown(Duration::ZERO)
        .expect("every core ended well");
    assert_eq!((report.finished, report.cut), (0, 1));
    assert_eq!(client.until_cut(), 0);
}

/// A connection of HTTP/2 on which nothing is asked.
const HTTP2: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What a client has said when the grace period is over, and has not closed its connection.
#[test]
fn who_is_owed_nothing_is_not_counted_as_cut() {
    for grace in [Duration::ZERO, GRACE] {
        for (said, answers, then, is_cut) in [
            ("", 0, "", false),
            ("GET / HTTP/1.1\r\nhost: test\r\n\r\n", 1, "", false),
            (
                "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n",
                1,
                "",
                false,
            ),
            ("no request\r\n\r\n", 1, "", false),
            (HTTP2, 0, "", false),
            ("", 0, "G", true),
            ("", 0, "P", true),
            ("GET / HTTP/1.1\r\nhost: test\r\n\r\n", 1, "GET /", true),
        ] {
            let server = one_core().serve_boxed(|_| async { text("answered") });
            let server = server.expect("a server");
            let mut client = Client::connect(server.local_addr());
            client.send(said);
            for _ in 0..answers {
                let _ = client.answer();
            }
            client.send(then);
            at_rest(&server);
            let report = server.shutdown(grace).expect("every core ended well");
            let expected = (u64::from(!is_cut), u64::from(is_cut));
            let counted = (report.finished, report.cut);
            assert_eq!(counted, expected, "{said:?}, {then:?}, {grace:?}");
        }
    }
}

#[test]
fn a_connection_that_is_cut_is_no_trouble() {
    for said in [HTTP2, "GET / HTTP/1.1\r\nhost: test\r\n\r\n"] {
        let (tell, told) = mpsc::channel();
        let server = one_core()
            .on_trouble(move |trouble| tell.send(trouble.to_string()).expect("the test listens"))
            .serve_boxed(|_| pending::<Result<Response<String>, Infallible>>());
        let server = server.expect("a server");
        let client = Client::connect(server.local_addr());
        client.send(said);
        at_rest(&server);
        let _ = server
            .shutdown(Duration::ZERO)
            .expect("every core ended well");
        assert_eq!(told.iter().collect::<Vec<_>>(), [""; 0], "{said:?}");
    }
}

#[test]
fn a_server_without_connections_ends_at_once() {
    let server = all_cores()
        .serve_boxed(|_| async { text("nobody asks") })
        .expect("a server");
    let report = server.shutdown(LONG).expect("every core ended well");
    assert_eq!((report.finished, report.cut), (0, 0));
    assert_eq!(report.to_string(), "0 connections finished, 0 cut");
}

// --- from a core ---

#[test]
fn a_shutdown_on_a_core_of_another_runtime_only_begins_the_drain() {
    let (tell, told): Begun = mpsc::channel();
    let server = one_core().serve_boxed(move |_| {
        let tell = tell.clone();
        async move {
            tell.send(()).expect("the test listens");
            // Longer than connections that are cut may take.
            sleep(Duration::from_secs(1)).await?;
            Ok::<_, quoit::Cancelled>(Response::new("the last".to_owned()))
        }
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    told.recv().expect("the handler begins");
    let error = on_ring(move |_| async move { server.shutdown(LONG).expect_err("it would block") });
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(client.answer().text(), "the last");
}

#[test]
fn a_shutdown_in_a_handler_answers_would_block() {
    let shelf: Arc<Mutex<Option<Server>>> = Arc::default();
    let (tell, told) = mpsc::channel();
    let own = Arc::clone(&shelf);
    let server = one_core().serve_boxed(move |_| {
        let server = own.lock().expect("no panic").take();
        let tell = tell.clone();
        async move {
            if let Some(server) = server {
                let outcome = server.shutdown(LONG);
                tell.send(outcome.map_err(|error| error.kind()))
                    .expect("the test listens");
            }
            text("it ends")
        }
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    *shelf.lock().expect("no panic") = Some(server);
    client.ask("GET", "/", "");
    let outcome = told.recv().expect("the shutdown returns");
    assert_eq!(outcome, Err(io::ErrorKind::WouldBlock));
    assert_eq!(client.answer().text(), "it ends");
}

/// Requests that had arrived before the server was told to stop, on connections that nobody had
/// accepted yet: a handler keeps the core busy meanwhile.
#[test]
fn connections_made_before_the_drain_are_answered() {
    const COUNT: usize = 60;
    for _ in 0..3 {
        let (tell, told): Begun = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let gone = Arc::new(Mutex::new(gone));
        let server = one_core().serve_boxed(move |request: Request<Incoming>| {
            let (tell, gone) = (tell.clone(), Arc::clone(&gone));
            async move {
                if request.uri().path() == "/hold" {
                    tell.send(()).expect("the test listens");
                    // Holds up the core itself, as a long computation does.
                    gone.lock()
                        .expect("one at a time")
                        .recv()
                        .expect("the test goes on");
                }
                text("answered")
            }
        });
        let server = server.expect("a server");
        let address = server.local_addr();
        let mut holding = Client::connect(address);
        holding.ask("GET", "/hold", "");
        told.recv().expect("the handler begins");
        let mut clients: Vec<Client> = (0..COUNT).map(|_| Client::connect(address)).collect();
        for client in &clients {
            client.ask("GET", "/", "");
        }
        let draining = drained_aside(server, LONG);
        go.send(()).expect("the handler waits");
        assert_eq!(holding.answer().text(), "answered");
        for client in &mut clients {
            assert_eq!(client.answer().text(), "answered");
        }
        // It is the drain that ends them: who left before it would not be counted.
        for mut client in clients.into_iter().chain([holding]) {
            client.ends();
        }
        let report = draining.join().expect("no panic");
        assert_eq!((report.finished, report.cut), (COUNT as u64 + 1, 0));
    }
}
