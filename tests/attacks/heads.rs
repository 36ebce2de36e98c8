//! Heads of HTTP/1 that never come to an end, or are too large, or none.

use tests::bytes;

use crate::contest::{Contest, Ends, Neighbours, Stay};
use crate::flood::Flood;
use crate::victim::{SHORT, Setup, attacked};

/// What hyper reads ahead for a connection of which no head has come to its end: twice what a head may
/// have, since the room is doubled; and 16 KiB for the connection itself: its task, its state, its slot.
const HEAD_KIB: u64 = 2 * 64 + 16;

/// Hundreds of clients, each of which sends a byte of its head now and then.
#[test]
fn heads_that_drip_are_ended_by_their_deadline() {
    let setup = Setup {
        server: |builder| builder.head_timeout(SHORT),
        ..Setup::default()
    };
    attacked(
        "heads::heads_that_drip_are_ended_by_their_deadline",
        setup,
        |victim| {
            const MANY: usize = 300;
            // No head gets far in a second; what it is read into is 8 KiB large.
            let contest = Contest {
                neighbours: Neighbours {
                    count: MANY,
                    bytes: 1,
                    stay: Stay::Keeps,
                },
                memory_kib: MANY as u64 * (8 + 16),
                ends: Ends::Always,
            };
            let drip = |turn| match turn {
                0 => b"GET / HTTP/1.1\r\nhost: test\r\nx-".to_vec(),
                _ => b"y".to_vec(),
            };
            contest.fight(victim, vec![Flood::of(MANY, victim.address, drip)]);
        },
    );
}

/// A field that fills a head to its limit and beyond.
#[test]
fn heads_that_are_too_large_are_refused() {
    attacked(
        "heads::heads_that_are_too_large_are_refused",
        Setup::default(),
        |victim| {
            const MANY: usize = 30;
            let contest = Contest {
                neighbours: Neighbours {
                    count: MANY,
                    bytes: 4096,
                    stay: Stay::Keeps,
                },
                memory_kib: MANY as u64 * HEAD_KIB,
                ends: Ends::Always,
            };
            let fill = |turn| match turn {
                0 => b"GET / HTTP/1.1\r\nhost: test\r\nx: ".to_vec(),
                _ => vec![b'y'; 4096],
            };
            contest.fight(victim, vec![Flood::of(MANY, victim.address, fill)]);
        },
    );
}

/// Many small fields: a head of them is refused with its second piece, so the neighbours come anew as well.
#[test]
fn heads_of_too_many_fields_are_refused() {
    attacked(
        "heads::heads_of_too_many_fields_are_refused",
        Setup::default(),
        |victim| {
            const MANY: usize = 30;
            let contest = Contest {
                neighbours: Neighbours {
                    count: MANY,
                    bytes: 4096,
                    stay: Stay::Comes,
                },
                memory_kib: MANY as u64 * HEAD_KIB,
                ends: Ends::Always,
            };
            let fill = |turn| match turn {
                0 => b"GET / HTTP/1.1\r\nhost: test\r\n".to_vec(),
                _ => b"a: b\r\n".repeat(700),
            };
            contest.fight(victim, vec![Flood::of(MANY, victim.address, fill)]);
        },
    );
}

/// Bytes that are no request.
#[test]
fn garbage_is_refused() {
    attacked("heads::garbage_is_refused", Setup::default(), |victim| {
        const MANY: usize = 30;
        let contest = Contest {
            neighbours: Neighbours {
                count: MANY,
                bytes: 1024,
                stay: Stay::Comes,
            },
            memory_kib: MANY as u64 * HEAD_KIB,
            ends: Ends::Always,
        };
        let garbage = |turn: u32| bytes(1024, u64::from(turn) + 1);
        contest.fight(victim, vec![Flood::of(MANY, victim.address, garbage)]);
    });
}
