//! Attacks upon TLS: bytes that are none of it, handshakes that do not go on, keys that are changed for
//! nothing.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tests::bytes;

use crate::contest::{Contest, Ends, Neighbours, Stay};
use crate::flood::Flood;
use crate::victim::{SHORT, Setup, attacked};
use crate::wire::{self, Client};

/// What a connection keeps for TLS: rustls's state, what it has received of a handshake (64 KiB at most)
/// and of a record (18 KiB), and what it has to say.
const SESSION_KIB: u64 = 64 + 2 * 18 + 64;

fn greet(address: SocketAddr, certificate: &str) -> Client {
    let config = wire::client_of(certificate, &[b"http/1.1"]);
    Client::over(wire::over_tls(
        &config,
        wire::connect(address).expect("it listens"),
    ))
}

#[test]
fn garbage_ends_a_handshake() {
    let setup = Setup {
        tls: true,
        ..Setup::default()
    };
    attacked("tls::garbage_ends_a_handshake", setup, |victim| {
        const MANY: usize = 10;
        let contest = Contest {
            neighbours: Neighbours {
                count: MANY,
                bytes: 1024,
                stay: Stay::Comes,
            },
            memory_kib: MANY as u64 * SESSION_KIB,
            ends: Ends::Always,
        };
        let garbage = |turn: u32| bytes(1024, u64::from(turn) + 1);
        contest.fight_over(
            victim,
            vec![Flood::of(MANY, victim.address, garbage)],
            greet,
        );
    });
}

/// A hello, and nothing more: the deadline of a head is that of a handshake too.
#[test]
fn handshakes_that_do_not_go_on_are_ended() {
    let setup = Setup {
        server: |builder| builder.head_timeout(SHORT),
        tls: true,
        ..Setup::default()
    };
    attacked(
        "tls::handshakes_that_do_not_go_on_are_ended",
        setup,
        |victim| {
            const MANY: usize = 100;
            let contest = Contest {
                neighbours: Neighbours {
                    count: 10,
                    bytes: 100,
                    stay: Stay::Keeps,
                },
                memory_kib: MANY as u64 * SESSION_KIB,
                ends: Ends::Always,
            };
            let config = wire::client_of(&victim.certificate, &[]);
            let hello = move |turn| {
                let mut hello = Vec::new();
                if turn == 0 {
                    let name = ServerName::try_from("site.test").expect("a name");
                    let client = ClientConnection::new(config.clone(), name);
                    client
                        .expect("a configuration")
                        .write_tls(&mut hello)
                        .expect("a vector");
                }
                hello
            };
            let flood = Flood::of(MANY, victim.address, hello);
            contest.fight_over(victim, vec![flood], greet);
        },
    );
}

/// New keys, again and again: rustls takes some for each byte that means something, and no more.
#[test]
fn keys_that_are_changed_for_nothing_end_the_connection() {
    let setup = Setup {
        tls: true,
        ..Setup::default()
    };
    let name = "tls::keys_that_are_changed_for_nothing_end_the_connection";
    attacked(name, setup, |victim| {
        let mut honest = greet(victim.address, &victim.certificate);
        honest.echo(100);
        let resident = victim.resident_kib();
        victim.forget_peak();
        const MANY: u64 = 20;
        // More than rustls takes at once, and more than fits anywhere if it took them.
        const MOST: usize = 100_000;
        let config = wire::client_of(&victim.certificate, &[b"http/1.1"]);
        thread::scope(|threads| {
            for _ in 0..MANY {
                threads.spawn(|| {
                    let stream = wire::connect(victim.address).expect("it listens");
                    let mut tls = wire::over_tls(&config, stream);
                    tls.flush().expect("a handshake");
                    let ended = (0..MOST).any(|_| {
                        tls.conn.refresh_traffic_keys().expect("TLS 1.3");
                        tls.flush().is_err() || tls.conn.write_tls(&mut tls.sock).is_err()
                    });
                    assert!(ended, "{MOST} keys were taken");
                });
            }
            for round in 0..300 {
                honest.echo(round);
            }
        });
        let peak = victim.peak_kib();
        let most = resident + MANY * SESSION_KIB + 8 * 1024;
        assert!(peak <= most, "{peak} KiB, and {resident} KiB before");
        honest.echo(100);
    });
}
