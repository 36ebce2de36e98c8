//! HTTP/2: frames by the thousand, streams that are opened and left, windows that stay shut.
//!
//! `tests/http2` sees to it that each flood is ended, frame by frame; here others are served meanwhile.

use crate::contest::{Contest, Ends, Neighbours, Stay};
use crate::flood::Flood;
use crate::victim::{SHORT, Setup, Victim, attacked};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a connection of HTTP/2 may keep: bodies that nobody has read (1 MiB), received and read ahead
/// (256 KiB and 512 KiB), what is gathered to be sent, one part of it on its way, and for each of 128
/// streams a head of 64 KiB and 64 KiB of an answer. None of the attacks here can have all of that at once.
const RECEIVED_KIB: u64 = 256 + 512;
const GATHERED_KIB: u64 = 2 * 64;
const ITSELF_KIB: u64 = 64;
const STREAMS: u64 = 128;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, size @ ..] = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let head = [&size[..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// What a client says first.
fn greeting(settings: &[u8]) -> Vec<u8> {
    let ours = frame(SETTINGS, 0, 0, settings);
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &ours[..],
        &frame(SETTINGS, 1, 0, b""),
    ]
    .concat()
}

/// A field as a literal that is not indexed (RFC 7541, section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.push(u8::try_from(text.len()).expect("short"));
        field.extend_from_slice(text.as_bytes());
    }
    field
}

fn fields(method: &str, path: &str) -> Vec<u8> {
    let all = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
    ];
    all.iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

fn request(stream: u32, method: &str, path: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &fields(method, path))
}

/// Lets connections that say the same after their greeting attack; `memory_kib` is for each.
fn flood(
    victim: &mut Victim,
    connections: usize,
    memory_kib: u64,
    bytes: usize,
    script: impl Fn(u32) -> Vec<u8> + Send + 'static,
) {
    let contest = Contest {
        neighbours: Neighbours {
            count: connections,
            bytes,
            stay: Stay::Keeps,
        },
        memory_kib: connections as u64 * memory_kib,
        ends: Ends::Always,
    };
    let script = move |turn| match turn {
        0 => greeting(b""),
        turn => script(turn - 1),
    };
    contest.fight(victim, vec![Flood::of(connections, victim.address, script)]);
}

/// Streams that a connection has not used yet at this turn, so many at a turn.
fn streams(turn: u32, at_once: u32) -> impl Iterator<Item = u32> {
    (0..at_once).map(move |number| 2 * (turn * at_once + number) + 1)
}

/// How much is kept for the streams of a connection that are not ended: a task, a slot, and hyper's own.
const OPEN_STREAMS_KIB: u64 = STREAMS * 16;

#[test]
fn requests_that_are_reset_at_once() {
    attacked(
        "frames::requests_that_are_reset_at_once",
        Setup::default(),
        |victim| {
            flood(
                victim,
                4,
                RECEIVED_KIB + ITSELF_KIB + OPEN_STREAMS_KIB,
                4000,
                |turn| {
                    let both = |stream| {
                        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
                        [request(stream, "GET", "/wait", END_STREAM), reset].concat()
                    };
                    streams(turn, 50).flat_map(both).collect()
                },
            );
        },
    );
}

#[test]
fn pings_and_settings() {
    attacked("frames::pings_and_settings", Setup::default(), |victim| {
        flood(
            victim,
            4,
            RECEIVED_KIB + GATHERED_KIB + ITSELF_KIB,
            2000,
            |_| {
                [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, b"")]
                    .concat()
                    .repeat(75)
            },
        );
    });
}

/// A head in as many parts as there can be, which does not end.
#[test]
fn heads_that_go_on_and_on() {
    attacked(
        "frames::heads_that_go_on_and_on",
        Setup::default(),
        |victim| {
            const HEAD_KIB: u64 = 2 * 64;
            flood(
                victim,
                4,
                RECEIVED_KIB + HEAD_KIB + ITSELF_KIB,
                10_000,
                |turn| match turn {
                    0 => frame(HEADERS, END_STREAM, 1, &fields("GET", "/")),
                    _ => frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(100))).repeat(100),
                },
            );
        },
    );
}

/// One large field in the table, and heads that consist of nothing but references to it.
#[test]
fn heads_that_are_larger_than_what_was_sent() {
    attacked(
        "frames::heads_that_are_larger_than_what_was_sent",
        Setup::default(),
        |victim| {
            const TABLE_KIB: u64 = 4;
            // Of a head that is too large no more is kept than a head may have.
            let memory = RECEIVED_KIB + TABLE_KIB + 2 * 64 + ITSELF_KIB + OPEN_STREAMS_KIB;
            flood(victim, 4, memory, 16_000, |turn| {
                let mut block = fields("GET", "/");
                if turn == 0 {
                    // A literal with incremental indexing (section 6.2.1), of 3000 bytes.
                    block.extend_from_slice(b"\x40\x01x\x7f\xb9\x16");
                    block.extend_from_slice(&[b'y'; 3000]);
                    // 3000 = 127 + 0x39 + (0x16 << 7).
                } else {
                    // The first entry of the table, again and again.
                    block.extend_from_slice(&[0x80 | 62; 16_000]);
                }
                frame(HEADERS, END_HEADERS | END_STREAM, 2 * turn + 1, &block)
            });
        },
    );
}

/// Many answers are asked for, and no window is opened for them.
#[test]
fn windows_that_stay_shut() {
    let setup = Setup {
        server: |builder| builder.stall_timeout(SHORT),
        ..Setup::default()
    };
    attacked("frames::windows_that_stay_shut", setup, |victim| {
        const MANY: usize = 10;
        let contest = Contest {
            neighbours: Neighbours {
                count: MANY,
                bytes: 1000,
                stay: Stay::Keeps,
            },
            // 64 KiB of each answer lie ready.
            memory_kib: MANY as u64
                * (STREAMS * (64 + 16) + RECEIVED_KIB + GATHERED_KIB + ITSELF_KIB),
            ends: Ends::Always,
        };
        let script = |turn| match turn {
            // SETTINGS_INITIAL_WINDOW_SIZE is 0.
            0 => greeting(&[0, 4, 0, 0, 0, 0]),
            1 => streams(0, 100)
                .flat_map(|stream| request(stream, "GET", "/large", END_STREAM))
                .collect(),
            _ => Vec::new(),
        };
        contest.fight(victim, vec![Flood::of(MANY, victim.address, script)]);
    });
}

/// As many bodies as there can be, of which nobody reads anything.
#[test]
fn bodies_that_nobody_reads() {
    attacked(
        "frames::bodies_that_nobody_reads",
        Setup::default(),
        |victim| {
            const MANY: usize = 10;
            const UNREAD_KIB: u64 = 1024;
            let contest = Contest {
                neighbours: Neighbours {
                    count: MANY,
                    bytes: 16_000,
                    stay: Stay::Keeps,
                },
                // hyper keeps a body in pieces of what it has read at once: twice as much at the most.
                memory_kib: MANY as u64
                    * (2 * UNREAD_KIB + RECEIVED_KIB + ITSELF_KIB + OPEN_STREAMS_KIB),
                // Whoever sends more than there is room for breaks the rules.
                ends: Ends::Always,
            };
            let script = |turn| match turn {
                0 => greeting(b""),
                1 => streams(0, 100)
                    .flat_map(|stream| request(stream, "POST", "/wait", 0))
                    .collect(),
                turn => frame(DATA, 0, 2 * (turn % 100) + 1, &[b'd'; 16_000]),
            };
            contest.fight(victim, vec![Flood::of(MANY, victim.address, script)]);
        },
    );
}
