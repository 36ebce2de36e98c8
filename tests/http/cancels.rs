//! What becomes of a request that nobody waits for any more: its handler is cancelled, its clean-up
//! runs, and its work on other cores ends. And what a client is told whose request was refused.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use quoit::sync::Event;
use quoit::time::sleep;
use quoit::{Cancelled, CoreId, Cores, Handle, Scope, on, yield_now};
use quoit_net::http::{Incoming, Server, Trouble};
use tests::http_client::Client;
use tests::{Serve, on_ring};

use crate::peers;
use crate::support::{LONG, Text, one_core, text};

/// Waits for something that never comes, and says why it ended; then cleans up behind a shield.
async fn wait_in_vain(said: Sender<String>, who: &'static str) -> io::Result<()> {
    let cancelled = Event::new().wait().await.expect_err("it never happens");
    let goodbye = Scope::new().shielded();
    let cleaned = goodbye.run(async { sleep(Duration::from_millis(1)).await });
    assert_eq!(cleaned.await, Ok(Some(())), "a shield holds");
    say(&said, &format!("{who}: {:?}", cancelled.reason()));
    Err(cancelled.into())
}

fn say(said: &Sender<String>, what: &str) {
    said.send(what.to_owned()).expect("a test listens");
}

/// Waits for what handlers say.
fn hear(heard: &Receiver<String>, count: usize) -> Vec<String> {
    let mut said: Vec<_> = heard.iter().take(count).collect();
    said.sort();
    said
}

/// Answers everything at once but `/wait`, whose handler waits on every core.
fn waiting_everywhere() -> (Server, Receiver<String>) {
    let (said, heard) = mpsc::channel();
    let server =
        one_core()
            .cores(Cores::Count(2))
            .serve_boxed(move |request: Request<Incoming>| {
                let said = said.clone();
                async move {
                    if request.uri().path() == "/wait" {
                        say(&said, "begun");
                        let here = CoreId::current().expect("on a core");
                        let cores = Handle::current().expect("on a core").cores();
                        let there = cores.into_iter().find(|&core| core != here);
                        let elsewhere = said.clone();
                        let call = on(there.expect("two"), || wait_in_vain(elsewhere, "elsewhere"));
                        let ended: io::Result<()> = call.await;
                        ended.expect_err("it waits in vain");
                        wait_in_vain(said, "here").await?;
                    }
                    Ok::<Text, io::Error>(Response::new(Full::new(Bytes::from("well"))))
                }
            });
    (server.expect("a server"), heard)
}

const ALL_ENDED: [&str; 2] = ["elsewhere: Disconnected", "here: Disconnected"];

#[test]
fn a_handler_whose_client_closes_is_cancelled_on_every_core() {
    let (server, heard) = waiting_everywhere();
    let client = Client::connect(server.local_addr());
    client.ask("GET", "/wait", "");
    assert_eq!(hear(&heard, 1), ["begun"]);
    drop(client);
    assert_eq!(hear(&heard, 2), ALL_ENDED);
}

#[test]
fn a_handler_whose_client_resets_is_cancelled_on_every_core() {
    let (server, heard) = waiting_everywhere();
    let client = Client::connect(server.local_addr());
    client.ask("GET", "/wait", "");
    assert_eq!(hear(&heard, 1), ["begun"]);
    tests::reset(client.into_socket());
    assert_eq!(hear(&heard, 2), ALL_ENDED);
}

/// The request and its reset come in one read, so the stream ends before its handler has waited once.
#[test]
fn a_handler_whose_stream_is_reset_at_once_is_cancelled_on_every_core() {
    let (server, heard) = waiting_everywhere();
    let mut client = TcpStream::connect(server.local_addr()).expect("the server listens");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend(b"\0\0\x10\x01\x05\0\0\0\x01\x82\x86\x04\x05/wait\x01\x05quoit");
    bytes.extend(b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08");
    client.write_all(&bytes).expect("it is taken");
    let [elsewhere, here] = ALL_ENDED;
    assert_eq!(hear(&heard, 3), ["begun", elsewhere, here]);
}

#[test]
fn a_handler_whose_stream_is_reset_is_cancelled_and_the_others_are_not() {
    let (server, heard) = waiting_everywhere();
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let mut waits = Box::pin(sender.send_request(peers::get(address, "/wait")));
        // Until the handler has begun; the client's side is driven by what it asks besides.
        while heard.try_recv().is_err() {
            let polled = futures_poll(&mut waits).await;
            assert!(polled.is_none(), "it is answered never");
            yield_now().await.expect("not cancelled");
        }
        drop(waits);
        let next = sender.send_request(peers::get(address, "/")).await;
        assert_eq!(peers::whole(next.expect("an answer")).await, "well");
        let mut said = Vec::new();
        while said.len() < 2 {
            said.extend(heard.try_recv());
            sleep(Duration::from_millis(1))
                .await
                .expect("not cancelled");
        }
        said.sort();
        assert_eq!(said, ALL_ENDED);
    });
}

/// With a deadline of its own and without: the handler has begun work elsewhere, and panics then.
#[test]
fn what_a_handler_of_http_2_has_begun_ends_where_it_panics() {
    for timeout in [None, Some(LONG)] {
        let (said, heard) = mpsc::channel();
        let mut server = one_core().cores(Cores::Count(2)).on_trouble(|_| {});
        if let Some(timeout) = timeout {
            server = server.handler_timeout(timeout);
        }
        let server = server.serve_boxed(move |request: Request<Incoming>| {
            let said = said.clone();
            async move {
                if request.uri().path() == "/panic" {
                    let here = CoreId::current().expect("on a core");
                    let cores = Handle::current().expect("on a core").cores();
                    let there = cores.into_iter().find(|&core| core != here);
                    let elsewhere = said.clone();
                    let mut call = Box::pin(on(there.expect("two"), || async {
                        say(&elsewhere, "begun");
                        wait_in_vain(elsewhere, "elsewhere").await
                    }));
                    assert!(futures_poll(&mut call).await.is_none(), "it waits");
                    sleep(Duration::from_millis(1)).await?;
                    panic!("a handler panics in the middle of it");
                }
                Ok::<Text, io::Error>(Response::new(Full::new(Bytes::from("well"))))
            }
        });
        let server = server.expect("a server");
        let address = server.local_addr();
        on_ring(move |_| async move {
            let (mut sender, _connection) = peers::http2(address).await;
            let failed = sender.send_request(peers::get(address, "/panic")).await;
            assert_eq!(failed.expect("an answer").status(), 500);
            let next = sender.send_request(peers::get(address, "/")).await;
            assert_eq!(peers::whole(next.expect("an answer")).await, "well");
        });
        let said = hear(&heard, 2);
        assert_eq!(said[0], "begun");
        assert!(said[1].starts_with("elsewhere: "), "{said:?}");
    }
}

/// A body that does not go quietly.
struct Explosive;

impl Drop for Explosive {
    fn drop(&mut self) {
        panic!("a body panics where it is dropped");
    }
}

impl http_body::Body for Explosive {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(None)
    }
}

/// It comes when its client has gone, so nobody takes it, and it panics where it is dropped.
#[test]
fn a_late_answer_of_http_2_that_panics_harms_nobody() {
    let (said, heard) = mpsc::channel();
    let troubles = said.clone();
    let server = one_core()
        .on_trouble(move |trouble| say(&troubles, &trouble.to_string()))
        .serve_boxed(move |request: Request<Incoming>| {
            let said = said.clone();
            async move {
                if request.uri().path() == "/" {
                    let body = Full::new(Bytes::from("well")).boxed_unsync();
                    return Ok::<_, Infallible>(Response::new(body));
                }
                say(&said, "begun");
                let _ = Event::new().wait().await.expect_err("it never happens");
                say(&said, "ended");
                Ok(Response::new(Explosive.boxed_unsync()))
            }
        })
        .expect("a server");
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, connection) = peers::http2(address).await;
        let mut waits = Box::pin(sender.send_request(peers::get(address, "/wait")));
        while heard.try_recv().is_err() {
            assert!(futures_poll(&mut waits).await.is_none(), "it waits");
            yield_now().await.expect("not cancelled");
        }
        drop(waits);
        let next = sender.send_request(peers::get(address, "/")).await;
        assert_eq!(peers::whole(next.expect("an answer")).await, "well");
        while heard.try_recv().is_err() {
            yield_now().await.expect("not cancelled");
        }
        drop(sender);
        let _ = connection.await;
        let (mut other, _connection) = peers::http2(address).await;
        let next = other.send_request(peers::get(address, "/")).await;
        assert_eq!(peers::whole(next.expect("an answer")).await, "well");
        assert!(heard.try_recv().is_err(), "nothing is told of it");
    });
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[test]
fn a_handler_that_is_late_is_cancelled_and_its_client_told() {
    let (said, heard) = mpsc::channel();
    let server = one_core()
        .handler_timeout(Duration::from_millis(20))
        .serve_boxed(move |request: Request<Incoming>| {
            let said = said.clone();
            async move {
                if request.uri().path() == "/wait" {
                    wait_in_vain(said, "here").await?;
                }
                Ok::<Text, io::Error>(Response::new(Full::new(Bytes::from("well"))))
            }
        })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/wait").status(), 503);
    assert_eq!(hear(&heard, 1), ["here: Deadline"]);
    assert_eq!(client.get("/").text(), "well", "the connection lives on");
}

#[test]
fn a_handler_that_outlives_the_grace_of_a_drain_is_cancelled() {
    let (server, heard) = waiting_everywhere();
    let client = Client::connect(server.local_addr());
    client.ask("GET", "/wait", "");
    assert_eq!(hear(&heard, 1), ["begun"]);
    let report = server
        .shutdown(Duration::from_millis(20))
        .expect("it stops");
    assert_eq!((report.finished, report.cut), (0, 1));
    let said = hear(&heard, 2);
    assert_eq!(said, ["elsewhere: Shutdown", "here: Shutdown"]);
}

/// Collects the body of a request; refuses large ones and slow ones.
fn careful(patience: Duration) -> Server {
    let server = one_core()
        .max_body(1000)
        .body_timeout(patience)
        .serve_boxed(|request: Request<Incoming>| async move {
            let body = request.into_body().collect().await?;
            Ok::<_, io::Error>(Response::new(Full::new(body.to_bytes())))
        });
    server.expect("a server")
}

#[test]
fn a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let server = careful(LONG);
    let mut client = Client::connect(server.local_addr());
    client.ask("POST", "/", "content-length: 1000\r\n");
    client.send([b'x'; 1000]);
    assert_eq!(client.answer().status(), 200);
    client.ask("POST", "/", "content-length: 1001\r\n");
    let refused = client.head();
    assert_eq!((refused.status, refused.says_close()), (413, true));

    let mut client = Client::connect(server.local_addr());
    client.ask("POST", "/", "transfer-encoding: chunked\r\n");
    client.send(format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001)));
    assert_eq!(client.head().status, 413);
}

#[test]
fn a_body_of_which_nothing_comes_is_given_up() {
    let server = careful(Duration::from_millis(50));
    let mut client = Client::connect(server.local_addr());
    client.ask("POST", "/", "content-length: 10\r\n");
    client.send("half ");
    let refused = client.head();
    assert_eq!((refused.status, refused.says_close()), (408, true));
}

#[test]
fn a_body_that_is_none_is_refused() {
    let server = careful(LONG);
    let mut client = Client::connect(server.local_addr());
    client.ask("POST", "/", "transfer-encoding: chunked\r\n");
    client.send("no size\r\n");
    assert_eq!(client.head().status, 400);
}

#[test]
fn a_request_says_whose_it_is_and_on_which_core() {
    let server = one_core().serve_boxed(|request: Request<Incoming>| async move {
        let peer = request.body().peer();
        assert_eq!(Some(peer.core), CoreId::current());
        text(peer.address.to_string())
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    let ours = client.socket().local_addr().expect("connected");
    assert_eq!(client.get("/").text(), ours.to_string());
}

#[test]
fn a_handler_that_fails_is_told_of_with_its_client() {
    let (said, heard) = mpsc::channel();
    let server = one_core()
        .head_timeout(LONG)
        .on_trouble(move |trouble| match trouble {
            Trouble::Request { peer, error } => say(&said, &format!("{peer}: {error}")),
            other => panic!("{other}"),
        })
        .serve_boxed(|_| async { Err::<Text, _>("no luck today") })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    let ours = client.socket().local_addr().expect("connected");
    assert_eq!(client.get("/").status(), 500);
    assert_eq!(hear(&heard, 1), [format!("{ours}: no luck today")]);
    drop(server);
    assert_eq!(heard.iter().count(), 0, "and of nothing else");
}

/// It is a failure like any other, where nobody is cancelled: the client waits, and is told.
#[test]
fn a_cancellation_that_a_handler_makes_up_leaves_nobody_without_an_answer() {
    let (said, heard) = mpsc::channel();
    let server = one_core()
        .on_trouble(move |trouble| say(&said, &trouble.to_string()))
        .serve_boxed(|request: Request<Incoming>| async move {
            if request.uri().path() == "/" {
                return Ok(Response::new(Full::new(Bytes::from("well"))));
            }
            let scope = Scope::new();
            scope.cancel();
            let mut kept = None;
            let body = async {
                kept = yield_now().await.err();
                Ok::<_, Cancelled>(())
            };
            scope.run(body).await?;
            Err::<Text, io::Error>(kept.expect("it was refused").into())
        })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/kept").status(), 500);
    assert!(hear(&heard, 1)[0].contains("cancelled"));
    assert_eq!(client.get("/").text(), "well", "the connection lives on");
}

#[test]
fn a_panic_in_the_body_of_an_answer_costs_that_answer() {
    let server = one_core().serve_boxed(|request: Request<Incoming>| async move {
        let body = if request.uri().path() == "/panic" {
            Full::new(Bytes::from("well"))
                .map_frame(|_| panic!("a body panics"))
                .boxed_unsync()
        } else {
            Full::new(Bytes::from("well")).boxed_unsync()
        };
        Ok::<_, Infallible>(Response::new(body))
    });
    let server = server.expect("a server");
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let cut = sender.send_request(peers::get(address, "/panic")).await;
        // The head may be lost with the body.
        if let Ok(head) = cut {
            let body = head.into_body().collect().await;
            body.expect_err("it is not whole");
        }
        let next = sender.send_request(peers::get(address, "/")).await;
        assert_eq!(peers::whole(next.expect("an answer")).await, "well");
    });
}

/// Whoever listens has panicked at each request that ended, those of a client that went away among them.
#[test]
fn a_panic_of_who_listens_costs_nobody() {
    let (tell, told) = mpsc::channel();
    let (say, said) = mpsc::channel();
    let server = one_core()
        .on_answer(move |_| {
            tell.send(()).expect("a test listens");
            panic!("a listener panics at an answer");
        })
        .on_trouble(move |_| {
            say.send(()).expect("a test listens");
            panic!("a listener panics at trouble");
        })
        .serve_boxed(|request: Request<Incoming>| async move {
            match request.uri().path() {
                "/fail" => return Err(io::Error::other("a handler fails")),
                "/wait" => sleep(LONG).await?,
                _ => {}
            }
            Ok::<Text, io::Error>(Response::new(Full::new(Bytes::from("well"))))
        })
        .expect("a server");
    let address = server.local_addr();
    let mut client = Client::connect(address);
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "well");
        assert_eq!(client.get("/fail").status(), 500);
    }
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let failed = sender.send_request(peers::get(address, "/fail")).await;
        assert_eq!(failed.expect("an answer").status(), 500);
        let mut waits = Vec::new();
        for _ in 0..3 {
            let mut wait = Box::pin(sender.send_request(peers::get(address, "/wait")));
            assert!(futures_poll(&mut wait).await.is_none(), "it waits");
            waits.push(wait);
        }
        let next = sender.send_request(peers::get(address, "/")).await;
        assert_eq!(peers::whole(next.expect("an answer")).await, "well");
    });
    // Each of them was told, the last when their client had gone.
    assert_eq!(told.iter().take(9).count(), 9);
    assert_eq!(said.iter().take(3).count(), 3);
    assert_eq!(client.get("/").text(), "well");
    let report = server.shutdown(LONG).expect("every core ended well");
    assert_eq!(report.cut, 0);
}
