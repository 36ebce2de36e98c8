//! Where a server listens: on several addresses, and on Unix sockets. Those on the real ring alone: the
//! simulated kernel knows none.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tests::Serve;

use http::{Request, Response};
use quoit::Cores;
use quoit_net::http::{Incoming, Peer, Server, Trouble};
use quoit_net::unix::{UnixAddress, UnixOptions};
use quoit_net::{Address, http::Builder};
use tests::http_client::{Client, nobody_listens, pause, until};

use crate::support::{LONG, PIECE, Pieces, Text, at_rest, one_core, text};

/// Says whose the request is.
async fn whose(request: Request<Incoming>) -> Result<Text, std::convert::Infallible> {
    let peer = request.body().peer();
    let pid = peer.credentials.map(|whose| whose.pid);
    text(format!("{} {pid:?}", peer.address))
}

/// Says whose the request is, and whether nobody was here before; leaves something behind.
async fn whose_alone(mut request: Request<Incoming>) -> Result<Text, std::convert::Infallible> {
    let peer: Peer = request.body().peer().clone();
    let is_first = request.extensions_mut().insert(peer).is_none();
    text(format!("{} {is_first}", request.body().peer().address))
}

/// Asks once on a connection of its own, and returns all that comes.
fn asked_at(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).expect("it listens");
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        .expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn on_unix(address: UnixAddress) -> Builder<UnixAddress> {
    Server::bind(address)
        .cores(Cores::Count(1))
        .head_timeout(LONG)
        .stall_timeout(LONG)
}

/// Also one that asks for an upgrade, with which hyper has put something there.
#[test]
fn each_request_of_a_connection_says_whose_it_is() {
    let server = one_core().serve_boxed(whose_alone).expect("a server");
    let mut client = Client::connect(server.local_addr());
    let address = client.socket().local_addr().expect("it is connected");
    for fields in ["", "", "connection: upgrade\r\nupgrade: echo\r\n", ""] {
        let told = client.get_with("/", fields);
        assert_eq!(told.text(), format!("{address} true"), "{fields:?}");
    }
}

#[test]
fn all_addresses_serve_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("site");
    for cores in [Cores::Count(1), Cores::All] {
        let server = one_core()
            .cores(cores)
            .also("127.0.0.1:0")
            .also(UnixAddress::path(&*path))
            .also(SocketAddr::from(([127, 0, 0, 1], 0)))
            .serve_boxed(whose);
        let server = server.expect("all are free");
        let all = server.local_addrs();
        assert_eq!(all.len(), 4);
        assert_eq!(all[0], server.local_addr());
        assert_eq!(all[2], Address::from(UnixAddress::path(&*path)));
        let tcp: Vec<SocketAddr> = all.iter().filter_map(Address::as_tcp).collect();
        for _ in 0..3 {
            for address in &tcp {
                let mut client = Client::connect(*address);
                let ours = client.socket().local_addr().expect("connected");
                assert_eq!(client.get("/").text(), format!("{ours} None"));
            }
            let said = asked_at(&path);
            let us = format!("unix:(unnamed) Some({})", process::id());
            assert!(said.ends_with(&us), "{said}");
        }
        let report = server.shutdown(LONG).expect("every core ended well");
        assert_eq!(report.cut, 0);
        assert!(!path.exists(), "the file goes with the server");
        assert!(tcp.into_iter().all(nobody_listens));
    }
}

#[test]
fn an_address_that_cannot_be_bound_is_named_and_none_stays_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("site");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let first = free.local_addr().expect("bound");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().map(|address| (taken, address));
    let (_taken, second) = taken.expect("bound");
    drop(free);
    let server = Server::bind(first)
        .cores(Cores::Count(1))
        .also(UnixAddress::path(&*path))
        .also(second)
        .serve_boxed(whose);
    let error = server.expect_err("the last is taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let said = error.to_string();
    assert!(
        said.contains(&format!("cannot listen on {second}: ")),
        "{said}"
    );
    assert!(nobody_listens(first));
    assert!(!path.exists());

    let error = one_core()
        .also("nonsense")
        .serve_boxed(whose)
        .expect_err("no address");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let said = error.to_string();
    assert!(said.contains("cannot listen on \"nonsense\": "), "{said}");
}

#[test]
fn of_two_servers_the_second_is_refused_the_socket_of_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("site");
    let options = UnixOptions::new().mode(0o600);
    let server = on_unix(UnixAddress::path(&*path)).unix_options(options);
    let server = server.serve_boxed(whose).expect("a free path");
    let mode = fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = on_unix(UnixAddress::path(&*path)).serve_boxed(whose);
    let error = error.expect_err("the first listens");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("choose another path"), "{error}");
    assert!(asked_at(&path).starts_with("HTTP/1.1 200"));
    drop(server);
    let again = on_unix(UnixAddress::path(&*path)).serve_boxed(whose);
    drop(again.expect("it is free again"));
}

#[test]
#[should_panic(expected = "ask local_addrs")]
fn a_server_on_unix_sockets_alone_has_no_internet_address() {
    let name = UnixAddress::abstract_name(format!("quoit-{}-alone", process::id()));
    let server = on_unix(name.clone())
        .serve_boxed(whose)
        .expect("a free name");
    assert_eq!(server.local_addrs(), [Address::from(name)]);
    let _ = server.local_addr();
}

#[test]
fn all_cores_serve_a_unix_socket() {
    let cores = match thread::available_parallelism() {
        Ok(count) if count.get() > 1 => 2,
        _ => return,
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("site");
    let counts: Arc<[AtomicU64; 2]> = Arc::default();
    let seen = Arc::clone(&counts);
    let server = on_unix(UnixAddress::path(&*path)).cores(Cores::Count(cores));
    let server = server.serve_boxed(move |request: Request<Incoming>| {
        let peer = request.body().peer();
        seen[peer.core.index()].fetch_add(1, Ordering::Relaxed);
        async { text("well") }
    });
    let server = server.expect("a server");
    until(|| server.metrics().iter().all(|core| core.in_flight > 0));
    for _ in 0..100 {
        assert!(asked_at(&path).ends_with("well"));
    }
    let served = [0, 1].map(|core: usize| counts[core].load(Ordering::Relaxed));
    assert_eq!(served.iter().sum::<u64>(), 100);
    assert!(served.iter().all(|count| *count > 20), "{served:?}");
}

#[test]
fn connections_to_a_unix_socket_made_before_the_drain_are_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("site");
    let (tell, told) = mpsc::channel::<()>();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Arc::new(std::sync::Mutex::new(Some(gone)));
    let server = on_unix(UnixAddress::path(&*path)).serve_boxed(move |_| {
        let (tell, gone) = (tell.clone(), Arc::clone(&gone));
        async move {
            let gone = gone.lock().expect("no panic").take();
            if let Some(gone) = gone {
                tell.send(()).expect("the test listens");
                // Holds up the core itself.
                gone.recv().expect("the test goes on");
            }
            text("answered")
        }
    });
    let server = server.expect("a server");
    let clients: Vec<_> = (0..10)
        .map(|client| {
            let path = path.clone();
            let asking = thread::spawn(move || asked_at(&path));
            if client == 0 {
                told.recv().expect("the handler begins");
            }
            asking
        })
        .collect();
    // They wait in the kernel, which alone knows.
    pause(Duration::from_millis(100));
    let draining = thread::spawn(move || server.shutdown(LONG).expect("every core ended well"));
    go.send(()).expect("the handler waits");
    for client in clients {
        assert!(client.join().expect("no panic").ends_with("answered"));
    }
    assert_eq!(draining.join().expect("no panic").cut, 0);
}

/// What a slow client takes is progress, though a Unix stream acknowledges nothing; who takes nothing is
/// given up.
#[test]
fn a_slow_reader_of_a_unix_socket_is_waited_for_and_a_stalled_one_is_not() {
    const STALL: Duration = Duration::from_secs(1);
    const COUNT: u64 = 32;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("site");
    let made = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&made);
    let server = on_unix(UnixAddress::path(&*path)).stall_timeout(STALL);
    let server = server.serve_boxed(move |_| {
        let body = Pieces::new(COUNT).counting(&counts);
        async { Ok::<_, std::convert::Infallible>(Response::new(body)) }
    });
    let server = server.expect("a server");
    let ask = || {
        let mut stream = UnixStream::connect(&path).expect("it listens");
        let asked = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        stream.write_all(asked).expect("it is taken");
        stream
    };
    let mut slow = ask();
    let mut came = 0;
    let mut piece = [0; PIECE];
    loop {
        let count = slow.read(&mut piece).expect("it is not given up");
        if count == 0 {
            break;
        }
        came += count as u64;
        // Slow enough that a send waits for longer than the patience, and fast enough to be seen.
        pause(STALL / 5);
    }
    assert!(came > COUNT * PIECE as u64, "{came} bytes came");
    let stalled = ask();
    at_rest(&server);
    until(|| server.metrics()[0].orphans == 0 && server.metrics()[0].tasks == 1);
    let mut rest = Vec::new();
    let mut stalled = stalled;
    let _ = stalled.read_to_end(&mut rest);
    assert!((rest.len() as u64) < COUNT * PIECE as u64, "all of it came");
    stalled.shutdown(Shutdown::Both).ok();
}

#[test]
fn trouble_names_the_peer_of_a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("site");
    let (say, said) = mpsc::channel();
    let server = on_unix(UnixAddress::path(&*path)).on_trouble(move |trouble| {
        if let Trouble::Request { .. } = trouble {
            say.send(trouble.to_string()).expect("the test listens");
        }
    });
    let server = server.serve_boxed(|_| async { Err::<Text, _>(io::Error::other("no")) });
    let _server = server.expect("a server");
    assert!(asked_at(&path).starts_with("HTTP/1.1 500"));
    assert_eq!(
        said.recv().expect("told"),
        "a request of unix:(unnamed) failed: no"
    );
}
