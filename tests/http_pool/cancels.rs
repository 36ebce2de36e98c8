//! P048: a request is cancelled wherever it is, and the next one works.

use std::time::Duration;

use quoit::time::sleep;
use quoit::{Cancelled, Scope, spawn};
use quoit_net::http::body;
use quoit_pool::http::{Body, Client, Error};
use tests::{bytes, conform, full_address};

use crate::peer::{Host, end_of, trusting};
use crate::{LONG, close, patient, text, until};

/// How long a request goes on that is cancelled in the middle.
const SOON: Duration = Duration::from_millis(20);

/// Sends a request in a scope that is cancelled in a while, and reads its answer.
async fn cancelled(client: &Client, url: &str, body: impl Into<Body>) {
    let body = body.into();
    let scope = Scope::new().timeout(SOON);
    let asking = async {
        let answer = client.post(url).body(body).send().await?;
        answer.bytes().await
    };
    let ended = scope.run(asking).await;
    assert!(matches!(ended, Ok(None)), "{ended:?}");
}

#[test]
fn p048_while_connecting() {
    conform(|_| async {
        let (silent, queue) = full_address().await;
        let client = patient().build().expect("a client");
        cancelled(&client, &format!("http://{silent}/"), ()).await;
        // The connect had nobody else who waited for it.
        until(|| client.pool().counts().connections == 0).await;
        drop(queue);
    });
}

#[test]
fn p048_in_the_handshake() {
    conform(|_| async {
        let host = Host::new();
        let address = host.address();
        let serving = host.serve(|_, peer| peer.end());
        let builder = patient().tls(trusting());
        let client = builder.addresses("site.test", &[address]).build();
        let client = client.expect("a client");
        cancelled(&client, "https://site.test/", ()).await;
        until(|| client.pool().counts().connections == 0).await;
        end_of(serving).await;
    });
}

/// The first connection is served as told, and has to end; the next ones answer.
///
/// The first one reads nothing behind the head, so that a body without end comes to a halt.
async fn cancelled_at(first: &'static str, with: impl Into<Body>) {
    let host = Host::new();
    let url = host.url();
    let serving = host.serve(move |number, mut peer| async move {
        if number > 0 {
            return peer.count().await;
        }
        peer.head().await;
        if !first.is_empty() {
            peer.say(first).await;
        }
        // Until the test is over.
        let _ = sleep(LONG).await;
    });
    let builder = patient().max_connections_per_origin(1);
    let client = builder.build().expect("a client");
    cancelled(&client, &url, with).await;
    // There is room for one: the connection must be gone before this gets another.
    assert_eq!(text(&client, &url).await.expect("an answer"), "0");
    let counts = client.pool().counts();
    assert_eq!((counts.connections, counts.waiting), (1, 0), "{counts:?}");
    close(client).await;
    end_of(serving).await;
}

#[test]
fn p048_while_waiting_for_the_head() {
    conform(|_| cancelled_at("", ()));
}

#[test]
fn p048_while_reading_the_body() {
    conform(|_| cancelled_at("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", ()));
}

#[test]
fn p048_while_writing_the_body() {
    conform(|_| async {
        let (sender, pieces) = body::channel(1);
        let making = spawn(async move {
            let piece = bytes(16 * 1024, 1);
            while sender.send(piece.clone()).await.is_ok() {}
        });
        cancelled_at("", pieces).await;
        // Whoever makes the body hears that nobody wants it.
        making.await.expect("it ends");
    });
}

/// A lease that is handed over in the moment in which its caller is cancelled goes to the next.
#[test]
fn p048_at_the_hand_over() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| peer.count());
        let client = patient().max_connections_per_origin(1).build();
        let client = client.expect("a client");
        let first = client.get(&url).send().await.expect("an answer");
        let second = spawn({
            let (client, url) = (client.clone(), url.clone());
            async move { text(&client, &url).await }
        });
        let third = spawn({
            let (client, url) = (client.clone(), url.clone());
            async move { text(&client, &url).await }
        });
        until(|| client.pool().counts().waiting == 2).await;
        first.text().await.expect("all of it");
        until(|| client.pool().counts().waiting < 2 || second.is_finished()).await;
        second.cancel();
        third.await.expect("no panic").expect("an answer");
        let ended = second.await;
        drop(ended);
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn a_request_in_a_cancelled_scope_does_nothing() {
    conform(|_| async {
        let client = patient().build().expect("a client");
        let scope = Scope::new();
        scope.cancel();
        let ended: Result<Option<String>, Error> =
            scope.run(text(&client, "http://127.0.0.1:9/")).await;
        assert!(matches!(ended, Ok(None)), "{ended:?}");
        assert_eq!(client.pool().counts().failed_connects, 0);
        assert_eq!(client.pool().counts().connections, 0);
        Ok::<_, Cancelled>(())
    })
    .expect("nobody cancels");
}
