//! How many connections a core lets in, and that it rests while it lets in no more.

use std::io;
use std::net::TcpStream;
use std::process;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tests::Serve;

use quoit::sync::shared::Semaphore;
use quoit_net::http::{ConnectionCounts, Server};
use quoit_net::unix::UnixAddress;
use tests::http_client::{Client, pause, until};

use crate::support::{LONG, at_rest, one_core, text};

fn counts(server: &Server) -> ConnectionCounts {
    server.handle().connections()[0]
}

/// Asks, and says whether an answer has come by now.
fn is_answered(client: &Client) -> bool {
    let socket = client.socket();
    socket.set_nonblocking(true).expect("an option");
    let peeked = socket.peek(&mut [0]);
    socket.set_nonblocking(false).expect("an option");
    match peeked {
        Ok(count) => count > 0,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_core_at_its_limit_rests_and_lets_one_in_for_each_that_ends() {
    const MOST: usize = 3;
    const MORE: usize = 5;
    let server = one_core()
        .max_connections(MOST)
        .serve_boxed(|_| async { text("well") });
    let server = server.expect("a server");
    let address = server.local_addr();
    let mut inside: Vec<Client> = (0..MOST).map(|_| Client::connect(address)).collect();
    for client in &mut inside {
        assert_eq!(client.get("/").text(), "well");
    }
    at_rest(&server);
    let full = counts(&server);
    assert_eq!(
        (full.open, full.begun, full.full),
        (MOST as u64, MOST as u64, 1)
    );
    let before = server.metrics()[0];
    let mut outside: Vec<Client> = (0..MORE).map(|_| Client::connect(address)).collect();
    for client in &outside {
        client.ask("GET", "/", "");
    }
    pause(Duration::from_millis(200));
    let after = server.metrics()[0];
    // Not a turn for those who wait: the kernel was not asked for them, and has no timer to tell.
    assert_eq!(after, before);
    assert_eq!(counts(&server), full);

    for begun in 1..=MORE {
        drop(inside.remove(0));
        let at = {
            until(|| outside.iter().any(is_answered));
            outside.iter().position(is_answered).expect("just seen")
        };
        let mut let_in = outside.remove(at);
        assert_eq!(let_in.answer().text(), "well");
        inside.push(let_in);
        at_rest(&server);
        let now = counts(&server);
        assert_eq!((now.open, now.begun), (MOST as u64, (MOST + begun) as u64));
        assert!(!outside.iter().any(is_answered), "one for one");
    }
    // Those inside are served all the while.
    for client in &mut inside {
        assert_eq!(client.get("/").text(), "well");
    }
}

#[test]
fn all_addresses_count_together() {
    let name = format!("quoit-{}-together", process::id());
    let server = one_core()
        .also("127.0.0.1:0")
        .also(UnixAddress::abstract_name(name))
        .max_connections(1)
        .serve_boxed(|_| async { text("well") });
    let server = server.expect("a server");
    let addresses: Vec<_> = server.local_addrs().to_vec();
    let tcp = |place: usize| addresses[place].as_tcp().expect("of TCP");
    let mut first = Client::connect(tcp(0));
    assert_eq!(first.get("/").text(), "well");
    let mut second = Client::connect(tcp(1));
    second.ask("GET", "/", "");
    let before = at_rest(&server);
    pause(Duration::from_millis(100));
    assert_eq!(server.metrics(), before);
    assert!(!is_answered(&second));
    drop(first);
    assert_eq!(second.answer().text(), "well");
    assert_eq!(counts(&server).begun, 2);
}

/// Connections that were taken ahead, and those in the kernel's queue, are answered when the server
/// drains, as many at a time as there may be.
#[test]
fn whoever_waits_for_room_is_answered_before_the_server_goes() {
    const MOST: usize = 2;
    let at_once = Arc::new(Mutex::new((0, 0)));
    let gate = Arc::new(Semaphore::new(1));
    let closed = gate.acquire_blocking();
    let (seen, opened) = (Arc::clone(&at_once), Arc::clone(&gate));
    let server = one_core().max_connections(MOST).serve_boxed(move |_| {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&opened));
        async move {
            {
                let mut seen = seen.lock().expect("no panic");
                seen.0 += 1;
                seen.1 = seen.1.max(seen.0);
            }
            drop(gate.acquire().await?);
            seen.lock().expect("no panic").0 -= 1;
            Ok::<_, quoit::Cancelled>(text("answered").expect("a text"))
        }
    });
    let server = server.expect("a server");
    let mut clients: Vec<Client> = (0..10)
        .map(|_| Client::connect(server.local_addr()))
        .collect();
    for client in &clients {
        client.ask("GET", "/", "");
    }
    until(|| at_once.lock().expect("no panic").0 == MOST);
    let draining = thread::spawn(move || server.shutdown(LONG).expect("every core ended well"));
    drop(closed);
    for client in &mut clients {
        assert_eq!(client.answer().text(), "answered");
        client.ends();
    }
    let report = draining.join().expect("no panic");
    assert_eq!((report.finished, report.cut), (10, 0));
    assert_eq!(at_once.lock().expect("no panic").1, MOST, "at a time");
}

/// Many come and go under a limit that is met and left again: nobody is forgotten.
#[test]
fn a_crowd_gets_through_a_narrow_door() {
    for most in [1, 2, 130] {
        let server = one_core()
            .max_connections(most)
            .serve_boxed(|_| async { text("well") });
        let server = server.expect("a server");
        let address = server.local_addr();
        let (done, all) = mpsc::channel();
        for _ in 0..4 {
            let done = done.clone();
            thread::spawn(move || {
                for _ in 0..25 {
                    let mut clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address)).collect();
                    drop(clients.pop());
                    drop(clients);
                    let mut client = Client::connect(address);
                    assert_eq!(client.get("/").text(), "well");
                }
                done.send(()).expect("the test waits");
            });
        }
        drop(done);
        assert_eq!(all.iter().count(), 4, "with room for {most}");
        let report = server.shutdown(LONG).expect("every core ended well");
        assert_eq!(report.cut, 0);
    }
}

#[test]
fn room_for_nobody_is_refused() {
    let server = one_core()
        .max_connections(0)
        .serve_boxed(|_| async { text("never") });
    let error = server.expect_err("it could serve nobody");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("max_connections is 0"),
        "{error}"
    );
}
