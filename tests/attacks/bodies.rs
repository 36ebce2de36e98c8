//! Bodies that do not come, and answers that nobody takes.

use crate::contest::{Contest, Ends, Neighbours, Stay};
use crate::flood::Flood;
use crate::victim::{SHORT, Setup, attacked};

/// What a connection may keep of what its client has sent and nobody has read yet: 256 KiB that were
/// received, as much as hyper reads ahead (400 KiB, and as the room is doubled at most 512 KiB), and what
/// is gathered to be sent, twice 64 KiB, one part of it on its way; and 16 KiB for itself.
const UNREAD_KIB: u64 = 256 + 512;
const UNSENT_KIB: u64 = 2 * 64;
const ITSELF_KIB: u64 = 16;

/// A body is announced, and comes byte by byte.
#[test]
fn bodies_that_drip_keep_nobody_waiting() {
    attacked(
        "bodies::bodies_that_drip_keep_nobody_waiting",
        Setup::default(),
        |victim| {
            const MANY: usize = 200;
            let contest = Contest {
                neighbours: Neighbours {
                    count: MANY,
                    bytes: 1,
                    stay: Stay::Keeps,
                },
                // So little comes that it fits where the head was read.
                memory_kib: MANY as u64 * (8 + ITSELF_KIB),
                ends: Ends::Maybe,
            };
            let drip = |turn| match turn {
                0 => b"POST /count HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n"
                    .to_vec(),
                _ => b"y".to_vec(),
            };
            contest.fight(victim, vec![Flood::of(MANY, victim.address, drip)]);
        },
    );
}

/// A body is announced, and nothing comes of it.
#[test]
fn bodies_that_never_come_are_given_up() {
    let setup = Setup {
        server: |builder| builder.body_timeout(SHORT),
        ..Setup::default()
    };
    attacked(
        "bodies::bodies_that_never_come_are_given_up",
        setup,
        |victim| {
            const MANY: usize = 200;
            let contest = Contest {
                neighbours: Neighbours {
                    count: MANY,
                    bytes: 1000,
                    stay: Stay::Keeps,
                },
                memory_kib: MANY as u64 * (8 + ITSELF_KIB),
                ends: Ends::Always,
            };
            let announce = |turn| match turn {
                0 => {
                    b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n".to_vec()
                }
                _ => Vec::new(),
            };
            contest.fight(victim, vec![Flood::of(MANY, victim.address, announce)]);
        },
    );
}

/// A body that no handler reads is not received either, beyond what a connection may keep.
///
/// Whoever goes is not missed then: his end stands behind bytes that the kernel holds back. What bounds
/// that is how long a handler may take.
#[test]
fn bodies_that_nobody_reads_stay_with_their_senders() {
    let setup = Setup {
        server: |builder| builder.handler_timeout(SHORT),
        ..Setup::default()
    };
    let name = "bodies::bodies_that_nobody_reads_stay_with_their_senders";
    attacked(name, setup, |victim| {
        const MANY: usize = 100;
        let contest = Contest {
            neighbours: Neighbours {
                count: MANY,
                bytes: 16 * 1024,
                stay: Stay::Keeps,
            },
            memory_kib: MANY as u64 * (UNREAD_KIB + ITSELF_KIB),
            ends: Ends::Always,
        };
        let send = |turn| match turn {
            0 => b"POST /wait HTTP/1.1\r\nhost: test\r\ncontent-length: 10000000\r\n\r\n".to_vec(),
            _ => vec![b'y'; 64 * 1024],
        };
        contest.fight(victim, vec![Flood::of(MANY, victim.address, send)]);
    });
}

/// Large answers are asked for, and nothing is taken of them.
#[test]
fn answers_that_nobody_takes_are_given_up() {
    let setup = Setup {
        server: |builder| builder.stall_timeout(SHORT),
        ..Setup::default()
    };
    attacked(
        "bodies::answers_that_nobody_takes_are_given_up",
        setup,
        |victim| {
            const MANY: usize = 100;
            let contest = Contest {
                neighbours: Neighbours {
                    count: MANY,
                    bytes: 16 * 1024,
                    stay: Stay::Keeps,
                },
                memory_kib: MANY as u64 * (UNSENT_KIB + ITSELF_KIB),
                ends: Ends::Always,
            };
            // That the server has gone is told to those who speak.
            let ask = |turn| match turn {
                0 => b"GET /large HTTP/1.1\r\nhost: test\r\n\r\n".to_vec(),
                _ => b"G".to_vec(),
            };
            contest.fight(victim, vec![Flood::of(MANY, victim.address, ask).deaf()]);
        },
    );
}

/// The same on connections that had a small answer before: there hyper copies what it sends, and the large one whole if
/// it gets it whole.
#[test]
fn large_answers_behind_small_ones_are_not_copied_whole() {
    let setup = Setup {
        server: |builder| builder.stall_timeout(SHORT),
        ..Setup::default()
    };
    attacked(
        "bodies::large_answers_behind_small_ones_are_not_copied_whole",
        setup,
        |victim| {
            const MANY: usize = 100;
            // What it copies at a time, in a buffer that grows by doubling.
            const COPIED_KIB: u64 = 1024;
            let contest = Contest {
                neighbours: Neighbours {
                    count: MANY,
                    bytes: 16 * 1024,
                    stay: Stay::Keeps,
                },
                memory_kib: MANY as u64 * (COPIED_KIB + UNSENT_KIB + ITSELF_KIB),
                ends: Ends::Always,
            };
            let ask = |turn| match turn {
                0 => b"GET / HTTP/1.1\r\nhost: test\r\n\r\n".to_vec(),
                1 => b"GET /large HTTP/1.1\r\nhost: test\r\n\r\n".to_vec(),
                _ => b"G".to_vec(),
            };
            contest.fight(victim, vec![Flood::of(MANY, victim.address, ask).deaf()]);
        },
    );
}

/// A thousand requests at once, and nothing is taken of the answers.
#[test]
fn requests_by_the_thousand_wait_for_their_answers_to_be_taken() {
    let setup = Setup {
        server: |builder| builder.stall_timeout(SHORT),
        ..Setup::default()
    };
    let name = "bodies::requests_by_the_thousand_wait_for_their_answers_to_be_taken";
    attacked(name, setup, |victim| {
        const MANY: usize = 50;
        let contest = Contest {
            neighbours: Neighbours {
                count: MANY,
                bytes: 1000,
                stay: Stay::Keeps,
            },
            memory_kib: MANY as u64 * (UNREAD_KIB + UNSENT_KIB + ITSELF_KIB),
            ends: Ends::Always,
        };
        // That the server has gone is told to those who speak.
        let ask = |turn| match turn {
            0 => b"GET /large HTTP/1.1\r\nhost: test\r\n\r\n".repeat(1000),
            _ => b"G".to_vec(),
        };
        contest.fight(victim, vec![Flood::of(MANY, victim.address, ask).deaf()]);
    });
}
