//! Peers that make mistakes, under seeds: answers with bytes wrong, frames that nobody asked for. Whatever they
//! say, every request ends, with an answer or an error, no place is lost, and nothing is left.

use std::time::Duration;

use http::{Method, StatusCode};
use quoit::sim::for_seeds;
use quoit::spawn;
use quoit_pool::http::{Client, Error};
use tests::{Dice, quietly};

use crate::frames::{Frames, HEADERS};
use crate::patient;
use crate::peer::{Host, Peer, end_of};

/// Answers that are right, until somebody meddles with them.
const ANSWERS: [&str; 7] = [
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\nhello",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nh",
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello",
];

/// Answers each request, with up to two mistakes.
async fn answer_wrongly(mut peer: Peer, mut dice: Dice) {
    while peer.head().await.is_some() {
        let mut bytes = dice.one_of(&ANSWERS).as_bytes().to_vec();
        for _ in 0..dice.below(3) {
            let (place, byte) = (dice.below(bytes.len()), dice.below(256) as u8);
            match dice.below(3) {
                0 => bytes[place] = byte,
                1 => drop(bytes.remove(place)),
                _ => bytes.insert(place, byte),
            }
        }
        if !peer.say(bytes).await || dice.one_in(4) {
            return;
        }
    }
}

/// Sends frames of all kinds about streams that are there, and some that are not.
async fn frame_wrongly(peer: Peer, mut dice: Dice) {
    let allowed = 1 + dice.below(4) as u32;
    let Some(mut frames) = Frames::greet(peer, allowed).await else {
        return;
    };
    let Some(mut stream) = frames.request().await else {
        return;
    };
    for _ in 0..dice.below(40) {
        let kind = dice.below(11) as u8;
        let flags = dice.one_of(&[0, 1, 4, 5, 8, 0x20, 0xff]);
        let about = dice.one_of(&[0, stream, stream, stream, stream + 2, 2, 1]);
        let length = dice.one_of(&[0, 1, 4, 5, 6, 8, 9, 17, 100]);
        let payload: Vec<u8> = match kind {
            // `:status: 200`.
            HEADERS if dice.flip() => vec![0x88],
            _ if dice.flip() => (0..length).map(|_| dice.below(8) as u8).collect(),
            _ => (0..length).map(|_| dice.below(256) as u8).collect(),
        };
        if !frames.send(kind, flags, about, &payload).await {
            return;
        }
        if dice.one_in(10) {
            let Some(next) = frames.request().await else {
                return;
            };
            stream = next;
        }
    }
    if dice.flip() {
        frames.end().await;
    }
}

/// Asks once, in one way of several.
async fn ask(client: &Client, url: &str, mut dice: Dice) -> Result<(), Error> {
    let method = dice.one_of(&[&Method::GET, &Method::POST, &Method::HEAD]);
    let request = client.request(method.clone(), url);
    let request = request.timeout(Duration::from_secs(20));
    match dice.below(4) {
        0 => request.send().await.map(drop),
        1 => {
            // Some of them are more than a window has room for.
            let length = dice.one_of(&[9, 20_000, 65_536, 200_000]);
            let answer = request.body(vec![7; length]).send().await?;
            answer.bytes().await.map(drop)
        }
        2 => {
            let request = request.header("connection", "upgrade");
            let answer = request.header("upgrade", "x").send().await?;
            match answer.status() {
                StatusCode::SWITCHING_PROTOCOLS => answer.upgrade().await.map(drop),
                _ => answer.bytes().await.map(drop),
            }
        }
        _ => request.send().await?.bytes().await.map(drop),
    }
}

fn over_nonsense(speaks_http2: bool) {
    for_seeds(0..150, |sim| {
        let mut dice = Dice::new(sim.seed());
        sim.run(move || {
            quietly(move |_| async move {
                let host = Host::new();
                let url = host.url();
                let seed = dice.seed();
                let serving = host.serve(move |number, peer| async move {
                    let dice = Dice::new(seed ^ number as u64);
                    match speaks_http2 {
                        true => frame_wrongly(peer, dice).await,
                        false => answer_wrongly(peer, dice).await,
                    }
                });
                let mut builder = patient()
                    .max_connections(1 + dice.below(2))
                    .keep_alive(Duration::from_secs(5), Duration::from_secs(5));
                if dice.flip() {
                    builder = builder.idle_timeout(Duration::ZERO);
                }
                if speaks_http2 {
                    builder = builder.http2_prior_knowledge();
                }
                let client = builder.build().expect("a client");
                let asking: Vec<_> = (0..6)
                    .map(|_| {
                        let (client, url) = (client.clone(), url.clone());
                        let dice = Dice::new(dice.seed());
                        spawn(async move { ask(&client, &url, dice).await })
                    })
                    .collect();
                for asking in asking {
                    // Whether it is an answer or an error is the peer's affair.
                    let _: Result<(), Error> = asking.await.expect("no panic");
                }
                assert_eq!(client.pool().counts().waiting, 0);
                client.pool().close().await.expect("nobody cancels");
                assert_eq!(client.pool().counts().connections, 0);
                end_of(serving).await;
            });
        });
    });
}

#[test]
fn whatever_a_server_of_http1_says_requests_end() {
    over_nonsense(false);
}

#[test]
fn whatever_a_server_of_http2_says_requests_end() {
    over_nonsense(true);
}
