//! Clients of HTTP/2 that ping, in virtual time: what time gives back is given back, and no more.

use std::time::Duration;

use http::Response;
use quoit::Cores;
use quoit::sim::for_seeds;
use quoit::time::{Instant, sleep};
use quoit_net::TcpStream;
use quoit_net::http::Server;

use crate::support::{Clients, World, address};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u8 = 11;

/// More pings than a client may send at once.
const MANY: u64 = 2_000;

/// One frame of the connection's.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

/// Reads the next frame: its kind and payload. `None` at the end.
async fn next(stream: &TcpStream, ahead: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    loop {
        if let Some((&[_, high, low, kind, ..], behind)) = ahead.split_first_chunk::<9>() {
            let length = usize::from(high) << 8 | usize::from(low);
            if behind.len() >= length {
                let payload = behind[..length].to_vec();
                ahead.drain(..9 + length);
                return Some((kind, payload));
            }
        }
        match stream.recv().await {
            Ok(Some(chunk)) => ahead.extend_from_slice(&chunk),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Pings, each a while after the answer to the last; returns how many were answered, and how the server
/// ended it.
async fn ping(pause: Duration) -> (u64, Option<u8>) {
    let stream = TcpStream::connect(address()).await.expect("it listens");
    let greeting = [PREFACE, &frame(SETTINGS, 0, b""), &frame(SETTINGS, 1, b"")].concat();
    stream.write_all(greeting).await.0.expect("it listens");
    let mut ahead = Vec::new();
    for answered in 0..MANY {
        sleep(pause).await.expect("nobody cancels");
        let _ = stream.write_all(frame(PING, 0, &[0; 8])).await.0;
        loop {
            match next(&stream, &mut ahead).await {
                Some((PING, _)) => break,
                Some((GOAWAY, said)) => return (answered, Some(said[7])),
                Some(_) => {}
                None => return (answered, None),
            }
        }
    }
    (MANY, None)
}

/// Pings once, after this pause, and says nothing more; returns how long it was until the goodbye.
async fn ping_and_rest(pause: Duration) -> Duration {
    let stream = TcpStream::connect(address()).await.expect("it listens");
    let greeting = [PREFACE, &frame(SETTINGS, 0, b""), &frame(SETTINGS, 1, b"")].concat();
    stream.write_all(greeting).await.0.expect("it listens");
    sleep(pause).await.expect("nobody cancels");
    let pinged = stream.write_all(frame(PING, 0, &[0; 8])).await;
    pinged.0.expect("it listens");
    let mut ahead = Vec::new();
    let mut answered = None;
    loop {
        match next(&stream, &mut ahead).await {
            Some((PING, _)) => answered = Some(Instant::now()),
            Some((GOAWAY, _)) => return answered.expect("first the answer").elapsed(),
            Some(_) => {}
            None => panic!("it ended without a goodbye"),
        }
    }
}

#[test]
fn a_goodbye_comes_when_the_idle_timeout_is_over() {
    const IDLE: Duration = Duration::from_secs(75);
    for seconds in [0, 1, 29, 31, 44, 74] {
        for_seeds(0..4, |sim| {
            World::Kind.of(sim).run(|| {
                let server = Server::bind(address())
                    .cores(Cores::Count(1))
                    .idle_timeout(IDLE)
                    .serve(|_| async { Ok::<_, std::io::Error>(Response::new(String::new())) });
                let server = server.expect("a kind world");
                let mut clients = Clients::on(1);
                clients.start(move || async move {
                    let took = ping_and_rest(Duration::from_secs(seconds)).await;
                    // The server counts from when its answer went out, which takes some time on its way.
                    let within = IDLE - Duration::from_secs(1)..IDLE + Duration::from_secs(1);
                    assert!(within.contains(&took), "{took:?} after {seconds} s");
                });
                clients.end();
                drop(server);
            });
        });
    }
}

/// Runs a client that pings with this pause in between; how that ended, and how long it took, is checked.
fn run(pause: Duration, check: fn((u64, Option<u8>), Duration)) {
    for_seeds(0..3, |sim| {
        World::Kind.of(sim).run(|| {
            let server = Server::bind(address())
                .cores(Cores::Count(1))
                .on_trouble(|_| {})
                .serve(|_| async { Ok::<_, std::io::Error>(Response::new(String::new())) });
            let server = server.expect("a kind world");
            let mut clients = Clients::on(1);
            clients.start(move || async move {
                let begun = Instant::now();
                let ended = ping(pause).await;
                check(ended, begun.elapsed());
            });
            clients.end();
            drop(server);
        });
    });
}

#[test]
fn ten_pings_a_second_are_answered_for_ever() {
    run(Duration::from_millis(100), |(answered, end), _| {
        assert_eq!((answered, end), (MANY, None));
    });
}

#[test]
fn a_thousand_pings_a_second_are_answered_for_a_second() {
    run(Duration::from_millis(1), |(answered, end), took| {
        if end.is_none() {
            // Faults have slowed it down to what time gives back: 1 024 frames, and 64 in each second.
            assert_eq!(answered, MANY);
            assert!(took > Duration::from_secs(14), "after {took:?}");
            return;
        }
        assert_eq!(end, Some(ENHANCE_YOUR_CALM));
        assert!((900..MANY).contains(&answered), "{answered} were answered");
    });
}
