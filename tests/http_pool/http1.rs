//! HTTP/1.1: connections that are used again, or closed.

use quoit::spawn;
use quoit_pool::http::Client;
use tests::on_core;

use crate::patient;
use crate::peer::Host;

/// Asks for the text of an answer.
async fn text(client: &Client, url: &str) -> String {
    let answer = client.get(url).send().await.expect("an answer");
    answer.text().await.expect("all of it")
}

#[test]
fn p040_two_requests_in_turn_share_a_connection() {
    on_core(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = spawn(async move {
            let mut peer = host.accept().await;
            for text in ["one", "two"] {
                let head = peer.head().await.expect("a request");
                assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
                peer.answer(text).await;
            }
            peer.end().await;
        });
        let client = patient().build().expect("a client");
        assert_eq!(text(&client, &url).await, "one");
        assert_eq!(text(&client, &url).await, "two");
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.reuses), (1, 1), "{counts:?}");
        client.pool().close().await.expect("nobody cancels");
        serving.await.expect("it ends");
    });
}
