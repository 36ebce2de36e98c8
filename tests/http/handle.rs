//! What a program holds on to: a handle that sees what its server does, and lets it drain.

use std::convert::Infallible;
use std::future::pending;
use std::io::ErrorKind;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use http::Response;
use quoit::time::sleep;
use quoit::{Cores, Reason, spawn};
use quoit_net::http::{Server, ServerHandle};
use tests::http_client::{Client, nobody_listens, until};
use tests::{Serve, on_ring};

use crate::support::{LONG, Text, all_cores, at_rest, one_core, text};

fn is_for_any_thread<T: Clone + Send + Sync + 'static>(_: &T) {}

/// A handler that never ends by itself, and says why it was cancelled.
fn stuck(say: mpsc::Sender<Reason>) -> Server {
    let server = one_core().serve_boxed(move |_| {
        let say = say.clone();
        async move {
            let cancelled = sleep(LONG).await.expect_err("nobody waits so long");
            say.send(cancelled.reason()).expect("the test listens");
            Err::<Text, _>(cancelled)
        }
    });
    server.expect("a server")
}

#[test]
fn two_servers_of_a_process_drain_apart() {
    let servers: Vec<Server> = (0..2)
        .map(|_| {
            all_cores()
                .serve_boxed(|_| async { text("well") })
                .expect("a server")
        })
        .collect();
    let handles: Vec<ServerHandle> = servers.iter().map(Server::handle).collect();
    is_for_any_thread(&handles[0]);
    let mut clients: Vec<Client> = servers
        .iter()
        .map(|server| Client::connect(server.local_addr()))
        .collect();
    for (client, handle) in clients.iter_mut().zip(&handles) {
        assert_eq!(client.get("/").text(), "well");
        assert_eq!(handle.open_connections(), 1);
        assert!(!handle.is_draining());
    }
    let mut servers = servers.into_iter();
    let [first, second] = [(); 2].map(|()| servers.next().expect("two"));
    let [gone, stays] = [&first, &second].map(Server::local_addr);

    handles[0].drain(LONG);
    assert!(handles[0].is_draining() && !handles[1].is_draining());
    clients[0].ends();
    let report = first.wait().expect("every core ended well");
    assert_eq!((report.finished, report.cut), (1, 0));
    assert!(nobody_listens(gone));
    assert!(handles[0].metrics().is_empty(), "it has stopped");
    assert_eq!(handles[0].open_connections(), 0);

    assert_eq!(clients[1].get("/").text(), "well");
    assert_eq!(Client::connect(stays).get("/").text(), "well");
    assert!(!handles[1].metrics().is_empty());
    let report = second.shutdown(LONG).expect("every core ended well");
    assert_eq!(report.cut, 0);
    assert!(handles[1].is_draining());
}

#[test]
fn a_handle_tells_where_its_server_listens_and_what_it_does() {
    let (say, _said) = mpsc::channel();
    let server = stuck(say);
    let handle = server.handle();
    assert_eq!(handle.local_addr(), Some(server.local_addr()));
    assert_eq!(handle.local_addrs(), server.local_addrs());
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    at_rest(&server);
    assert_eq!(handle.metrics(), server.metrics());
    let counts = handle.connections();
    assert_eq!((counts.len(), counts[0].open, counts[0].begun), (1, 1, 1));
    let dump = handle.dump(LONG).to_string();
    assert!(dump.contains("sleep") || dump.contains("timer"), "{dump}");
    server
        .shutdown(Duration::ZERO)
        .expect("every core ended well");
    assert_eq!(client.until_cut(), 0);
    // Of a server that is gone nothing is made up.
    assert_eq!(handle.connections()[0].begun, 1);
    let dump = handle.dump(Duration::from_millis(100)).to_string();
    assert!(!dump.contains("sleep"), "{dump}");
}

/// Nobody waits for the server: when the patience is over, what is left is cancelled all the same.
#[test]
fn a_drain_that_nobody_waits_for_cuts_what_is_left() {
    let (say, said) = mpsc::channel();
    let server = stuck(say);
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    at_rest(&server);
    let handle = server.handle();
    handle.drain(Duration::from_millis(50));
    assert_eq!(said.recv().expect("it is cancelled"), Reason::Shutdown);
    assert_eq!(client.until_cut(), 0);
    until(|| handle.open_connections() == 0);
    let report = server.wait().expect("every core ended well");
    assert_eq!((report.finished, report.cut), (0, 1));
}

#[test]
fn a_second_drain_with_less_patience_counts_and_one_with_more_does_not() {
    let (say, said) = mpsc::channel();
    let server = stuck(say);
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    at_rest(&server);
    let handle = server.handle();
    handle.drain(LONG);
    at_rest(&server);
    assert_eq!(handle.open_connections(), 1);
    handle.drain(Duration::from_millis(20));
    handle.drain(LONG);
    assert_eq!(said.recv().expect("it is cancelled"), Reason::Shutdown);
    let report = server.shutdown(LONG).expect("every core ended well");
    assert_eq!((report.finished, report.cut), (0, 1));
    assert_eq!(client.until_cut(), 0);
}

#[test]
fn wait_ends_with_the_drain_of_another_thread() {
    let server = one_core()
        .serve_boxed(|_| async { text("well") })
        .expect("a server");
    let handle = server.handle();
    let address = server.local_addr();
    let draining = thread::spawn(move || {
        assert_eq!(Client::connect(address).get("/").text(), "well");
        until(|| handle.open_connections() == 0);
        handle.drain(LONG);
    });
    let report = server.wait().expect("every core ended well");
    assert_eq!((report.finished, report.cut), (0, 0));
    draining.join().expect("no panic");
}

#[test]
fn a_wait_on_a_core_answers_would_block() {
    let server = Server::bind("127.0.0.1:0")
        .cores(Cores::Count(1))
        .serve_boxed(|_| pending::<Result<Response<String>, Infallible>>());
    let server = server.expect("a server");
    let handle = server.handle();
    let error = on_ring(move |_| async move {
        let waiting = spawn(async move { server.wait().expect_err("it would block") });
        waiting.await.expect("no panic")
    });
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(handle.is_draining(), "nobody could end it any more");
}
