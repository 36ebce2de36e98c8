//! What a server needs before it serves: an address, cores, and a handler.

use std::io;
use std::net::{SocketAddr, TcpListener};
use tests::Serve;

use quoit::Cores;
use quoit_net::http::Server;
use tests::http_client::Client;
use tests::on_ring;

use crate::support::{Text, all_cores, one_core, text};

type Never = std::convert::Infallible;

async fn hello(_: http::Request<quoit_net::http::Incoming>) -> Result<Text, Never> {
    text("hello")
}

fn refused(address: &str) -> io::Error {
    let server = Server::bind(address)
        .cores(Cores::Count(1))
        .serve_boxed(hello);
    server.expect_err("it cannot be bound")
}

#[test]
fn an_address_in_use_is_named_with_what_to_do() {
    let (taken, ours) = (
        TcpListener::bind("127.0.0.1:0"),
        all_cores().serve_boxed(hello),
    );
    let (taken, ours) = (taken.expect("a free port"), ours.expect("a server"));
    // A stranger's, and one of the same user that shares its port between its cores.
    for address in [taken.local_addr().expect("bound"), ours.local_addr()] {
        let error = refused(&address.to_string());
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let said = error.to_string();
        assert!(
            said.contains(&format!("cannot listen on {address}")),
            "{said}"
        );
        assert!(said.contains("choose another port"), "{said}");
    }
    assert_eq!(Client::connect(ours.local_addr()).get("/").text(), "hello");
}

/// An address of IPv6 that is none in particular takes connections of IPv4 as well.
#[test]
fn an_address_that_the_server_itself_has_taken_is_not_said_to_be_anothers() {
    let free = TcpListener::bind("[::]:0").expect("a free port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let [all, v4] = [format!("[::]:{port}"), format!("0.0.0.0:{port}")];
    for (first, second) in [(&all, &v4), (&v4, &all), (&v4, &v4)] {
        let server = Server::bind(&**first).cores(Cores::Count(1));
        let error = server.also(&**second).serve_boxed(hello);
        let error = error.expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let said = error.to_string();
        assert!(
            said.contains(&format!("cannot listen on {second}: ")),
            "{said}"
        );
        assert!(
            said.contains(&format!("this server listens on {first}")),
            "{said}"
        );
    }
}

#[test]
fn an_address_of_another_machine_is_named_with_what_is_wrong() {
    // Reserved for documents (RFC 5737).
    let error = refused("192.0.2.1:0");
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    let said = error.to_string();
    assert!(said.contains("192.0.2.1:0: "), "{said}");
    assert!(said.contains("no interface of this machine"), "{said}");
}

#[test]
fn what_is_no_address_is_invalid_input() {
    for nonsense in ["", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536"] {
        let error = refused(nonsense);
        assert_eq!(
            error.kind(),
            io::ErrorKind::InvalidInput,
            "{nonsense:?}: {error}"
        );
        let said = error.to_string();
        assert!(
            said.starts_with(&format!("cannot listen on {nonsense:?}: ")),
            "{said}"
        );
        let error =
            on_ring(
                move |_| async move { quoit_net::TcpListener::bind(nonsense).expect_err("none") },
            );
        assert_eq!(error.to_string(), said);
    }
    let none: &[SocketAddr] = &[];
    let error = Server::bind(none)
        .serve_boxed(hello)
        .expect_err("no address");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let said = error.to_string();
    assert!(
        said.starts_with("cannot listen on []: it stands for no address"),
        "{said}"
    );
}

#[test]
fn of_several_addresses_the_first_that_works_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addresses = [
        taken.local_addr().expect("bound"),
        SocketAddr::from(([127, 0, 0, 1], 0)),
    ];
    let server = Server::bind(&addresses[..])
        .cores(Cores::Count(1))
        .serve_boxed(hello);
    let server = server.expect("the second is free");
    assert_ne!(server.local_addr(), addresses[0]);
    assert_eq!(
        Client::connect(server.local_addr()).get("/").text(),
        "hello"
    );
}

#[test]
fn cores_that_are_not_there_are_named() {
    for (cores, named) in [
        (Cores::List(vec![9999]), "core 9999"),
        (Cores::List(vec![]), "no core at all"),
        (Cores::Count(0), "no core at all"),
        (Cores::Count(9999), "9999 cores"),
    ] {
        let error = one_core()
            .cores(cores)
            .serve_boxed(hello)
            .expect_err("not there");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn a_handler_that_cannot_be_made_stops_the_server() {
    let outcome = all_cores().serve_with(|core| async move {
        if core.index() == 0 {
            return Err(io::Error::other("the handler lacks something"));
        }
        Ok(hello)
    });
    let error = outcome.expect_err("no handler");
    assert_eq!(error.to_string(), "the handler lacks something");
}

#[test]
fn a_server_that_is_dropped_frees_its_port() {
    for _ in 0..5 {
        let server = all_cores().serve_boxed(hello).expect("a server");
        let address = server.local_addr();
        // Connections that the server closes first linger on its port.
        let mut client = Client::connect(address);
        client.ask("GET", "/", "connection: close\r\n");
        assert_eq!(client.answer().text(), "hello");
        client.ends();
        drop(client);
        drop(server);
        let listener = TcpListener::bind(address).expect("free again at once");
        drop(listener);
        let again = Server::bind(address)
            .serve_boxed(hello)
            .expect("free again at once");
        assert_eq!(Client::connect(address).get("/").text(), "hello");
        drop(again);
        let error = Client::try_connect(address).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
