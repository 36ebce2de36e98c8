//! Clients that take an answer slowly, while what they ask for next is there: hyper has all of the answer, and has yet to
//! hand it over.

use std::convert::Infallible;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use quoit::spawn;
use quoit_net::http::{Incoming, Server};
use tests::Serve;
use tests::http_client::{Client, pause, until};

use crate::support::{Text, at_rest, narrow, one_core, text};

const SHORT: Duration = Duration::from_millis(300);

/// More than both kernels have room for, and the server beside.
const LARGE: usize = 1_000_000;

/// Answers with much, or with what was asked for; reads bodies before, or behind the answer.
async fn answer(mut request: Request<Incoming>) -> Result<Text, Infallible> {
    match request.uri().path() {
        "/large" => text(vec![b'x'; LARGE]),
        "/early" => {
            drop(spawn(async move { request.body_mut().collect().await }));
            text(vec![b'x'; LARGE])
        }
        "/read" => {
            let body = request.body_mut().collect().await.expect("a body");
            text(body.to_bytes())
        }
        path => text(path.to_owned()),
    }
}

/// Whether hyper copies what it sends on a connection that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hyper {
    Copies,
    CopiesNothing,
}

const BOTH: [Hyper; 2] = [Hyper::Copies, Hyper::CopiesNothing];

/// A client that takes nothing yet.
fn narrow_client(server: &Server, hyper: Hyper) -> Client {
    if hyper == Hyper::CopiesNothing {
        let other = Client::connect(server.local_addr()).get("/large");
        assert_eq!(other.body.len(), LARGE);
    }
    Client::connect_narrow(server.local_addr())
}

fn head(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

/// Takes an answer that is large.
fn takes_large(client: &mut Client) {
    let answer = client.answer();
    let odd = answer.body.iter().position(|&byte| byte != b'x');
    let odd = odd.map(|at| String::from_utf8_lossy(&answer.body[at..][..40]));
    assert_eq!(odd, None, "nothing else is in it");
    assert_eq!(answer.body.len(), LARGE);
}

#[test]
fn what_is_asked_behind_an_answer_that_is_taken_slowly_is_not_late() {
    for hyper in BOTH {
        let server = one_core().options(narrow()).head_timeout(SHORT);
        let server = server.serve_boxed(answer).expect("a server");
        let mut client = narrow_client(&server, hyper);
        client.send(head("/large"));
        at_rest(&server);
        // All but the last of it hyper may have to wait for.
        let mut came = 0;
        let told = client.head();
        assert_eq!(told.status, 200);
        client
            .exactly(400_000, &mut |part| came += part.len())
            .expect("more is to come");
        at_rest(&server);
        client.send(head("/next"));
        at_rest(&server);
        pause(SHORT * 2);
        let rest = client.exactly(600_000, &mut |part| came += part.len());
        rest.expect("it is not cut");
        assert_eq!(came, LARGE);
        assert_eq!(client.answer().text(), "/next", "{hyper:?}");
    }
}

#[test]
fn whoever_takes_an_answer_is_not_idle() {
    for (hyper, at_once) in [
        (Hyper::Copies, true),
        (Hyper::CopiesNothing, true),
        (Hyper::CopiesNothing, false),
    ] {
        let server = one_core().options(narrow()).idle_timeout(SHORT);
        let server = server.serve_boxed(answer).expect("a server");
        let mut client = narrow_client(&server, hyper);
        let next = if at_once {
            head("/next")
        } else {
            String::new()
        };
        client.send(head("/large") + &next);
        at_rest(&server);
        pause(SHORT * 2);
        takes_large(&mut client);
        if !at_once {
            client.send(head("/next"));
        }
        assert_eq!(client.answer().text(), "/next", "{hyper:?}");
        client.ends();
    }
}

#[test]
fn whoever_takes_nothing_of_the_end_of_an_answer_is_let_go() {
    for hyper in BOTH {
        let server = one_core()
            .options(narrow())
            .idle_timeout(SHORT)
            .stall_timeout(SHORT);
        let server = server.serve_boxed(answer).expect("a server");
        let client = narrow_client(&server, hyper);
        client.send(head("/large"));
        let handle = server.handle();
        until(|| handle.snapshot().cores[0].count("requests", Some("http1")) > Some(0));
        until(|| handle.open_connections() == 0);
    }
}

/// A body that ends behind the answer to its request has hyper go on to the next while that answer waits for the client,
/// and say at once what it says by itself.
#[test]
fn nothing_is_said_in_the_middle_of_an_answer() {
    let goes_on =
        "POST /read HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    for hyper in BOTH {
        for (next, status) in [(goes_on, 100), ("no request\r\n\r\n", 400)] {
            let server = one_core().options(narrow());
            let server = server.serve_boxed(answer).expect("a server");
            let mut client = narrow_client(&server, hyper);
            client.ask("POST", "/early", "content-length: 5\r\n");
            at_rest(&server);
            client.send(["hello", next].concat());
            at_rest(&server);
            takes_large(&mut client);
            assert_eq!(client.head().status, status, "{hyper:?}");
            if status == 100 {
                client.send("body");
                assert_eq!(client.answer().text(), "body");
                let snapshot = server.snapshot();
                assert_eq!(snapshot.cores[0].count("given_up", None), Some(0));
            } else {
                client.ends();
                let snapshot = server.snapshot();
                assert_eq!(snapshot.cores[0].count("refused", None), Some(1));
            }
        }
    }
}
