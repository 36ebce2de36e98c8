//! Against a server of another make: node's, over TLS, with both protocols. Left out where node is missing.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Version;
use quoit::Scope;
use tests::{bytes, quietly};

use crate::peer::{site_pem, trusting};
use crate::{close, patient, until};

/// What node is told: echo what comes, after a while for `/slow`; say on which port.
const SCRIPT: &str = r#"
const http2 = require('http2');
const fs = require('fs');
const [cert, key] = fs.readFileSync(0, 'utf8').split('====');
const server = http2.createSecureServer({ cert, key, allowHTTP1: true }, (request, answer) => {
    const begin = () => request.pipe(answer);
    if (request.url === '/slow') setTimeout(begin, 5); else begin();
    request.on('error', () => {});
    answer.on('error', () => {});
});
server.on('sessionError', () => {});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"#;

/// A server that ends with the test.
struct Node {
    child: Child,
    address: SocketAddr,
}

impl Node {
    fn start() -> Option<Self> {
        let started = Command::new("node")
            .args(["-e", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = started else {
            eprintln!("left out: there is no node");
            return None;
        };
        let (certificate, key) = site_pem();
        let mut input = child.stdin.take().expect("a pipe");
        let told = write!(input, "{certificate}===={key}");
        told.expect("it reads");
        drop(input);
        let mut port = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        output.read_line(&mut port).expect("it speaks");
        let port = port.trim().parse().expect("a port");
        Some(Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended by itself, or does now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn p048_cancelled_at_any_moment_nothing_is_lost_with_node() {
    let Some(node) = Node::start() else {
        return;
    };
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let builder = patient().tls(trusting());
        let builder = builder.addresses("site.test", &[node.address]);
        let builder = match version {
            Version::HTTP_11 => builder.http1_only(),
            _ => builder,
        };
        quietly(move |_| async move {
            let client = builder.build().expect("a client");
            for round in 0..150_u64 {
                let path = if round % 3 == 0 { "slow" } else { "echo" };
                let url = format!("https://site.test/{path}");
                let sent = bytes(if round % 2 == 0 { 10 } else { 200_000 }, round);
                let after = Duration::from_micros(round * 97 % 20_000);
                let scope = Scope::new().timeout(after);
                let asking = async {
                    let request = client.post(&url).body(sent.clone());
                    request.send().await?.bytes().await
                };
                if let Some(came) = scope.run(asking).await.expect("an answer, or none") {
                    assert!(came == sent, "round {round}: {} came back", came.len());
                }
            }
            // More than any window: all credit is there.
            for round in 0..10 {
                let sent = bytes(1_000_000, round);
                let request = client.post("https://site.test/echo").body(sent.clone());
                let answer = request.send().await.expect("an answer");
                assert_eq!(answer.version(), version);
                let came = answer.bytes().await.expect("all of it");
                assert!(came == sent, "{} came back", came.len());
            }
            until(|| {
                let counts = client.pool().counts();
                counts.idle == counts.connections
            })
            .await;
            let counts = client.pool().counts();
            assert_eq!((counts.connections, counts.waiting), (1, 0), "{counts:?}");
            close(client).await;
        });
    }
}
