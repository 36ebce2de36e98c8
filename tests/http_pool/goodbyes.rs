//! P056: whoever's connection is closed is told so: `close_notify` over TLS, GOAWAY over HTTP/2; and a peer that
//! takes nothing does not hold it up.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use quoit::time::{Instant, sleep};
use quoit::{Scope, spawn};
use quoit_net::http::body;
use quoit_pool::http::{Client, ClientBuilder, Error};
use tests::{Kernel, bytes, conform};

use crate::frames::{Frames, NO_ERROR};
use crate::peer::{Host, Peer, end_of, trusting};
use crate::{LONG, alone, patient, text, until};

/// Why a connection without a request is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Expired,
    TooMany,
    Closed,
    Dropped,
}

const ALL: [Why; 4] = [Why::Expired, Why::TooMany, Why::Closed, Why::Dropped];

impl Why {
    /// Asks a host for something with a client whose connection ends for this reason.
    async fn happens(self, host: &str, client: ClientBuilder) {
        let client = match self {
            Self::Expired => client.idle_timeout(Duration::from_millis(5)),
            Self::TooMany => client.max_idle(0),
            Self::Closed | Self::Dropped => client,
        };
        let client = client.build().expect("a client");
        text(&client, host).await.expect("an answer");
        match self {
            Self::Expired | Self::TooMany => {
                until(|| client.pool().counts().connections == 0).await;
            }
            Self::Closed => client.pool().close().await.expect("nobody cancels"),
            Self::Dropped => drop(client),
        }
    }
}

/// Serves one connection, and returns what `serve` made of it once `ask` is done.
async fn farewell_of<F, T>(
    host: Host,
    serve: impl Fn(Peer) -> F + 'static,
    ask: impl Future<Output = ()>,
) -> T
where
    F: Future<Output = T> + 'static,
    T: Copy + 'static,
{
    let heard = Rc::new(Cell::new(None));
    let place = Rc::clone(&heard);
    let serving = host.serve(move |_, peer| {
        let (place, serving) = (Rc::clone(&place), serve(peer));
        async move { place.set(Some(serving.await)) }
    });
    ask.await;
    until(|| heard.get().is_some()).await;
    end_of(serving).await;
    alone().await;
    heard.get().expect("it was here")
}

async fn answer_once(mut peer: Peer) -> bool {
    peer.head().await.expect("a request");
    peer.answer("once").await;
    peer.farewell().await
}

async fn answer_once_in_frames(peer: Peer) -> (Option<u32>, bool) {
    let mut frames = Frames::greet(peer, 10).await.expect("a preface");
    let stream = frames.request().await.expect("a request");
    frames.answer(stream, "once").await;
    frames.farewell().await
}

#[test]
fn p056_an_idle_connection_of_http1_is_ended_in_order() {
    for why in ALL {
        for host in [Host::new, || Host::encrypted(&[b"http/1.1"])] {
            conform(move |_| async move {
                let host = host();
                let builder = patient().tls(trusting());
                let builder = builder.addresses("site.test", &[host.address()]);
                let asking = async |url: String| why.happens(&url, builder).await;
                let url = host.url();
                let is_in_order = farewell_of(host, answer_once, asking(url)).await;
                assert!(is_in_order, "{why:?}");
            });
        }
    }
}

#[test]
fn p056_an_idle_connection_of_http2_goes_away() {
    for why in ALL {
        for host in [Host::new, || Host::encrypted(&[b"h2"])] {
            conform(move |_| async move {
                let host = host();
                let builder = patient().tls(trusting()).http2_prior_knowledge();
                let builder = builder.addresses("site.test", &[host.address()]);
                let asking = async |url: String| why.happens(&url, builder).await;
                let url = host.url();
                let heard = farewell_of(host, answer_once_in_frames, asking(url)).await;
                assert_eq!(heard, (Some(NO_ERROR), true), "{why:?}");
            });
        }
    }
}

#[test]
fn p056_a_pool_that_is_closed_over_requests_goes_away() {
    conform(|_| async {
        let host = Host::encrypted(&[b"h2"]);
        let (url, address) = (host.url(), host.address());
        let builder = patient().tls(trusting());
        let client = builder.addresses("site.test", &[address]).build();
        let client = client.expect("a client");
        let serve = async |peer| {
            let mut frames = Frames::greet(peer, 10).await.expect("a preface");
            let stream = frames.request().await.expect("a request");
            frames.head(stream).await;
            frames.farewell().await
        };
        let asking = async {
            let answer = client.get(&url).send().await.expect("a head");
            client.pool().close().await.expect("nobody cancels");
            let ended = answer.text().await;
            assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
        };
        let heard = farewell_of(host, serve, asking).await;
        assert_eq!(heard, (Some(NO_ERROR), true));
    });
}

#[test]
fn p056_a_request_that_is_given_up_ends_its_connection_in_order() {
    conform(|_| async {
        let host = Host::encrypted(&[b"http/1.1"]);
        let (url, address) = (host.url(), host.address());
        let builder = patient().tls(trusting());
        let client = builder.addresses("site.test", &[address]).build();
        let client = client.expect("a client");
        let asking = async {
            let scope = Scope::new().timeout(Duration::from_millis(20));
            let ended = scope.run(text(&client, &url)).await;
            assert!(matches!(ended, Ok(None)), "{ended:?}");
        };
        assert!(farewell_of(host, Peer::farewell, asking).await);
        client.pool().close().await.expect("nobody cancels");
    });
}

/// Sends a body to a peer that reads none of it, until nothing fits in between.
async fn pour(client: &Client, url: &str) {
    let (sender, pieces) = body::channel(1);
    let making = spawn(async move {
        let piece = bytes(64 * 1024, 1);
        while sender.send(piece.clone()).await.is_ok() {}
    });
    let scope = Scope::new().timeout(Duration::from_millis(200));
    let ended = scope.run(client.post(url).body(pieces).send()).await;
    assert!(matches!(ended, Ok(None)), "{ended:?}");
    making.await.expect("it ends");
}

#[test]
fn p056_a_peer_that_takes_nothing_holds_nothing_up() {
    conform(|_| async {
        for protocol in [&b"http/1.1"[..], b"h2"] {
            let host = Host::encrypted(&[protocol]);
            let (url, address) = (host.url(), host.address());
            let serving = host.serve(|_, peer| async move {
                // Until the test is over.
                let _ = sleep(LONG).await;
                drop(peer);
            });
            let builder = patient().tls(trusting());
            let client = builder.addresses("site.test", &[address]).build();
            let client = client.expect("a client");
            pour(&client, &url).await;
            let begun = Instant::now();
            client.pool().close().await.expect("nobody cancels");
            let took = begun.elapsed();
            if Kernel::here().is_simulated() {
                assert!(took < Duration::from_millis(200), "{took:?}");
            }
            assert_eq!(client.pool().counts().connections, 0);
            end_of(serving).await;
        }
    });
}
