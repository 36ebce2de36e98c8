//! Connections that go on as something else.

use std::io;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use quoit::{blocking, spawn};
use quoit_net::http::{Incoming, Server, Upgraded, upgrade};
use tests::http_client::Client;
use tests::{Serve, on_ring};

use crate::peers::{self, get};
use crate::support::{LONG, at_rest, one_core};
use crate::tls::{OURS, server_tls};

async fn echo(stream: Upgraded) {
    while let Ok(Some(bytes)) = stream.recv().await {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

fn switching() -> Response<String> {
    let mut answer = Response::new(String::new());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = answer.headers_mut();
    fields.insert(CONNECTION, "upgrade".parse().expect("a value"));
    fields.insert(UPGRADE, "echo".parse().expect("a value"));
    answer
}

/// Upgrades to an echo; elsewhere it thinks better of it.
async fn answer(mut request: Request<Incoming>) -> io::Result<Response<String>> {
    if request.uri().path() == "/plain" {
        return Ok(Response::new("plain".to_owned()));
    }
    match upgrade(&mut request, echo) {
        Ok(()) if request.uri().path() == "/no" => Ok(Response::new("no".to_owned())),
        Ok(()) if request.method() == "CONNECT" => Ok(Response::new(String::new())),
        Ok(()) => Ok(switching()),
        Err(error) => Ok(Response::new(format!("{:?}: {error}", error.kind()))),
    }
}

const ASKS: &str = "connection: keep-alive, Upgrade\r\nupgrade: echo\r\n";

fn server() -> Server {
    one_core().serve_boxed(answer).expect("a server")
}

fn echoed(client: &mut Client, bytes: &[u8]) {
    let mut came = Vec::new();
    let size = bytes.len() as u64;
    let taken = client.exactly(size, &mut |part: &[u8]| came.extend_from_slice(part));
    taken.expect("it comes back");
    assert!(came == bytes, "other bytes came back");
}

fn ends(mut client: Client, socket: &TcpStream) {
    socket
        .shutdown(std::net::Shutdown::Write)
        .expect("connected");
    client.ends();
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways() {
    let server = server();
    let handle = server.handle();
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/plain").text(), "plain");
    client.ask("GET", "/", ASKS);
    let head = client.head();
    assert_eq!(head.status, 101);
    assert_eq!(head.field("upgrade"), Some("echo"));
    assert_eq!(head.field("connection"), Some("upgrade"));
    for round in 0..3 {
        let bytes = tests::bytes(1 << (8 + 4 * round), round);
        client.send(&bytes);
        echoed(&mut client, &bytes);
    }
    at_rest(&server);
    assert_eq!(
        handle.open_connections(),
        1,
        "it counts as one that is open"
    );
    let socket = client.socket().try_clone().expect("a descriptor");
    ends(client, &socket);
}

#[test]
fn what_came_behind_the_request_is_not_lost() {
    let server = server();
    for size in [1, 100, 100_000] {
        let early = tests::bytes(size, 3);
        let client = Client::connect(server.local_addr());
        let head = format!("GET / HTTP/1.1\r\nhost: test\r\n{ASKS}\r\n");
        let mut client = client;
        client.send([head.as_bytes(), &early].concat());
        assert_eq!(client.head().status, 101);
        echoed(&mut client, &early);
        client.send("and more");
        echoed(&mut client, b"and more");
    }
}

#[test]
fn connect_is_an_upgrade_as_well() {
    let server = server();
    let mut client = Client::connect(server.local_addr());
    client.send("CONNECT there:80 HTTP/1.1\r\nhost: there:80\r\n\r\n");
    assert_eq!(client.head().status, 200);
    client.send("through");
    echoed(&mut client, b"through");
}

#[test]
fn after_any_other_answer_it_is_http_still() {
    let server = server();
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get_with("/no", ASKS).text(), "no");
    // Who does not ask is not heard.
    let answer = client.get("/");
    let told = answer.text();
    assert!(
        told.starts_with("InvalidInput: the request does not ask"),
        "{told}"
    );
    for fields in [
        "connection: upgrade\r\n",
        "upgrade: echo\r\n",
        "connection: upgrades\r\nupgrade: echo\r\n",
    ] {
        assert!(
            client
                .get_with("/", fields)
                .text()
                .starts_with("InvalidInput")
        );
    }
    client.ask("GET", "/", ASKS);
    assert_eq!(client.head().status, 101);
    let address = server.local_addr();
    let told = on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2::<Empty<_>>(address).await;
        let answer = sender
            .send_request(get(address, "/"))
            .await
            .expect("an answer");
        peers::whole(answer).await
    });
    assert!(
        told.starts_with(b"Unsupported: HTTP/2 has no upgrades"),
        "{told:?}"
    );
}

/// hyper leaves the end to whom it takes to go on.
#[test]
fn a_connection_that_goes_on_with_nothing_else_ends_as_announced() {
    for (path, fields) in [
        ("GET /no", ASKS),
        (
            "GET /plain",
            "connection: upgrade, close\r\nupgrade: echo\r\n",
        ),
        ("CONNECT there:80", ""),
    ] {
        let server =
            one_core()
                .tls(server_tls())
                .serve_boxed(|request: Request<Incoming>| async move {
                    match request.method() == "CONNECT" {
                        true => Ok(Response::new(String::new())),
                        false => answer(request).await,
                    }
                });
        let server = server.expect("a server");
        let address = server.local_addr();
        on_ring(move |_| async move {
            let stream = quoit_net::TcpStream::connect(address).await;
            let stream = stream.expect("it listens");
            let stream = OURS.client().connect("site.test", stream).await;
            let stream = stream.expect("shaken");
            let asked = format!("{path} HTTP/1.1\r\nhost: there:80\r\n{fields}\r\n");
            stream.write_all(asked.as_bytes()).await.expect("connected");
            let first = stream.recv().await.expect("an answer");
            assert!(first.starts_with(b"HTTP/1.1 200 OK"), "{path}");
            let drained = spawn(blocking::run(move |_| server.shutdown(LONG)));
            while !stream.recv().await.expect("an announced end").is_empty() {}
            stream.shutdown().await.expect("it takes it");
            drop(stream);
            let report = drained.await.expect("no panic").expect("it runs");
            assert_eq!(report.expect("a report").cut, 0);
        });
    }
}

#[test]
fn a_drain_waits_for_an_upgraded_connection_and_cuts_it_in_the_end() {
    let server = server();
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", ASKS);
    assert_eq!(client.head().status, 101);
    let handle = server.handle();
    handle.drain(LONG);
    at_rest(&server);
    client.send("still there");
    echoed(&mut client, b"still there");
    assert_eq!(handle.open_connections(), 1);
    handle.drain(Duration::from_millis(20));
    assert_eq!(client.until_cut(), 0);
    let report = server.wait().expect("every core ended well");
    assert_eq!((report.finished, report.cut), (0, 1));
}

#[test]
fn who_has_upgraded_is_cancelled_as_any_other_task() {
    let (say, said) = mpsc::channel();
    let server = one_core().serve_boxed(move |mut request| {
        let say = say.clone();
        let upgraded = upgrade(&mut request, async move |stream: Upgraded| {
            let error = stream.recv().await.expect_err("nothing comes");
            say.send(error.to_string()).expect("the test listens");
        });
        async move { upgraded.map(|()| switching()) }
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", ASKS);
    assert_eq!(client.head().status, 101);
    at_rest(&server);
    let report = server
        .shutdown(Duration::ZERO)
        .expect("every core ended well");
    assert_eq!(report.cut, 1);
    let told = said.recv().expect("it is cancelled");
    assert!(told.contains("shut"), "{told}");
}

#[test]
fn an_upgrade_works_over_tls() {
    let server = one_core().tls(server_tls()).serve_boxed(answer);
    let server = server.expect("a server");
    let address = server.local_addr();
    on_ring(move |_| async move {
        let stream = quoit_net::TcpStream::connect(address)
            .await
            .expect("it listens");
        let stream = OURS
            .client()
            .connect("site.test", stream)
            .await
            .expect("it is trusted");
        let head = format!("GET / HTTP/1.1\r\nhost: test\r\n{ASKS}\r\nearly");
        stream
            .write_all(head.as_bytes())
            .await
            .expect("it is taken");
        let mut came = Vec::new();
        while !came.ends_with(b"\r\n\r\nearly") {
            let part = stream.recv().await.expect("no error");
            assert!(!part.is_empty(), "{}", String::from_utf8_lossy(&came));
            came.extend(part);
        }
        assert!(came.starts_with(b"HTTP/1.1 101 "));
        stream.write_all(b"late").await.expect("it is taken");
        assert_eq!(stream.recv().await.expect("no error"), b"late");
        stream.shutdown().await.expect("it is taken");
        assert!(stream.recv().await.expect("an orderly end").is_empty());
    });
}
