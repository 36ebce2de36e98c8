//! Follows the frames that an HTTP/2 client sends, and says when it has sent too many that ask for
//! nothing.
//!
//! hyper answers every PING and every SETTINGS, and looks at every frame, however many come. Here they
//! are counted, from the heads of frames alone: 9 bytes say what comes and how long it is. A client has
//! a budget, of which such frames take, and which grows with time and with what the client really asks
//! for. What hyper bounds by itself is left to it: CONTINUATION, small DATA, streams that are reset
//! before they were begun.
//!
//! A client past its budget hears GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, section 10.5). Only hyper
//! can say that at the right place among its own frames and name the last stream, and it has no door for
//! it. But it says the same to a field block that never ends: so this is what it gets to read instead of
//! what the client sent, from the end of a frame on. The debug data of that GOAWAY speak of CONTINUATION.
//!
//! ```text
//!   Preface ──► Head ──9 bytes──► Payload ──► Head ──► …
//!                │
//!                │ the budget was spent by the frame before
//!                ▼
//!               Over: hyper reads a field block without an end
//! ```
//!
//! Invariants:
//! - What hyper reads is what the client sent, whole frames of it, and then, if need be, our block.
//! - Bytes are looked at where they lie; of a head that comes in pieces 9 bytes are kept.
//! - The clock is read only when a budget seems to be spent.

use std::io;
use std::time::Duration;

use hyper::rt::ReadBufCursor;
use quoit::time::Instant;

/// Where in the frames of a connection its client is.
#[derive(Debug)]
pub(super) struct Frames {
    /// What is still to come of the preface or of a frame's payload.
    payload: usize,
    /// The head of a frame, as far as it came.
    head: [u8; HEAD],
    came: usize,
    /// What is still to come is data.
    is_data: bool,
    /// A field block has begun, and not ended.
    is_in_block: bool,
    /// Since when something else is still to come that has begun.
    begun: Option<Instant>,
    budget: Budget,
    is_spent: bool,
    /// How much of our own block hyper has read.
    told: usize,
}

/// How long the head of a frame is.
const HEAD: usize = 9;

/// How long a client's preface is.
const PREFACE: usize = 24;

impl Frames {
    /// Begins before the preface.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            payload: PREFACE,
            head: [0; HEAD],
            came: 0,
            is_data: false,
            is_in_block: false,
            begun: None,
            budget: Budget::new(now),
            is_spent: false,
            told: 0,
        }
    }

    /// Notes so many bytes on their way to the client.
    pub(super) fn note_sent(&mut self, count: usize) {
        self.budget.sent += count as i64;
    }

    /// Follows the next bytes and returns how many of them hyper may read: at least one, unless the
    /// client is past its budget.
    ///
    /// `answered` is how many pieces of answers were taken so far.
    pub(super) fn follow(&mut self, bytes: &[u8], answered: u64) -> usize {
        let mut rest = bytes;
        loop {
            let skipped = rest.len().min(self.payload);
            self.payload -= skipped;
            rest = &rest[skipped..];
            if self.payload == 0 && self.came == 0 && !self.is_in_block {
                self.begun = None;
            }
            if rest.is_empty() || self.is_over() {
                self.note_begun();
                return bytes.len() - rest.len();
            }
            if self.came == 0
                && let Some((head, behind)) = rest.split_first_chunk()
            {
                rest = behind;
                self.begin_frame(*head, answered);
                continue;
            }
            let taken = rest.len().min(HEAD - self.came);
            self.head[self.came..self.came + taken].copy_from_slice(&rest[..taken]);
            self.came += taken;
            rest = &rest[taken..];
            if self.came == HEAD {
                self.came = 0;
                self.begin_frame(self.head, answered);
            }
        }
    }

    /// Notes since when the client has been at something other than data.
    fn note_begun(&mut self) {
        let is_at_frame = self.came > 0 || self.payload > 0 && !self.is_data;
        if self.begun.is_none() && (is_at_frame || self.is_in_block) {
            self.begun = Some(Instant::recent());
        }
    }

    /// Returns since when a frame or a field block has been coming that is not whole. Of data this is none: whoever
    /// reads them has patience of his own.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun
    }

    fn begin_frame(&mut self, head: [u8; HEAD], answered: u64) {
        let [high, middle, low, kind, flags, ..] = head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.payload = length as usize;
        self.is_data = kind == DATA;
        if self.is_data {
            self.begun = None;
        }
        if matches!(kind, HEADERS | CONTINUATION) {
            self.is_in_block = flags & END_HEADERS == 0;
        }
        self.budget.left += worth(kind, flags, i64::from(length));
        self.budget.left = self.budget.left.min(MOST);
        if self.budget.left < 0 {
            self.is_spent = !self.budget.refill(Instant::now(), answered);
        }
    }

    /// Returns whether the client is past its budget, and the last of its frames is through.
    pub(super) fn is_over(&self) -> bool {
        self.is_spent && self.payload == 0 && self.came == 0
    }

    /// Gives hyper what makes it end the connection with ENHANCE_YOUR_CALM.
    ///
    /// # Errors
    ///
    /// When hyper has read more of it than it can want.
    pub(super) fn turn_away(&mut self, buf: &mut ReadBufCursor<'_>) -> io::Result<()> {
        if self.told >= LONGEST_BLOCK {
            let what = "the client sent too many frames that ask for nothing";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, what));
        }
        while buf.remaining() > 0 {
            let frame = if self.told < HEAD {
                FIRST_OF_BLOCK
            } else {
                REST_OF_BLOCK
            };
            let part = &frame[self.told % HEAD..];
            let part = &part[..part.len().min(buf.remaining())];
            buf.put_slice(part);
            self.told += part.len();
        }
        Ok(())
    }
}

/// An empty HEADERS that neither ends its block nor belongs to a stream that anybody has opened, and an
/// empty CONTINUATION that does not end it either.
const FIRST_OF_BLOCK: [u8; HEAD] = [0, 0, 0, HEADERS, 0, 0x7f, 0xff, 0xff, 0xff];
const REST_OF_BLOCK: [u8; HEAD] = [0, 0, 0, CONTINUATION, 0, 0x7f, 0xff, 0xff, 0xff];

/// hyper gives up after as many frames as the largest head would need, and a quarter more: for a head
/// of 4 GiB in frames of 16 KiB.
const LONGEST_BLOCK: usize = HEAD * (1 << 19);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a client may still cost us, in parts of a frame: a byte is one.
#[derive(Debug)]
struct Budget {
    left: i64,
    refilled_at: Instant,
    /// What was sent since.
    sent: i64,
    /// What had been answered then.
    answered: u64,
}

/// What a frame that asks for nothing costs.
const FRAME: i64 = 512;

/// What a client begins with, and what time alone gives back: a thousand frames, more than any client
/// sends before its first request, and less than a millisecond of work for us.
const BEGINNING: i64 = 1024 * FRAME;

/// What a client can have: earned with what it asked for, and spent on what it says about that later,
/// such as windows for what lay in buffers of the network.
const MOST: i64 = 8 * BEGINNING;

/// How many frames time gives back in a second: six times as many as a client that pings often sends.
const FRAMES_PER_SECOND: i64 = 64;

/// Two frames may come with each request or piece of an answer: a PING and a priority, a window for the
/// stream and one for the connection.
const WORK: i64 = 2 * FRAME;

/// What a frame takes from the budget, or adds to it.
fn worth(kind: u8, flags: u8, length: i64) -> i64 {
    match kind {
        HEADERS => WORK,
        // Bounded by hyper for each block.
        CONTINUATION => 0,
        DATA if length > 0 => length,
        DATA if flags & END_STREAM != 0 => 0,
        // More than its request has brought: who resets whatever it asks for gets nowhere.
        RST_STREAM => -(WORK + FRAME),
        // Is not answered, and comes in numbers to those who read in small pieces.
        WINDOW_UPDATE => -FRAME / 4,
        // PING, SETTINGS, PRIORITY, GOAWAY, what is unknown, and DATA without data.
        _ => -(FRAME + length),
    }
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            left: BEGINNING,
            refilled_at: now,
            sent: 0,
            answered: 0,
        }
    }

    /// Adds what time and work have brought since the last time; returns whether that is enough.
    fn refill(&mut self, now: Instant, answered: u64) -> bool {
        let since = (now - self.refilled_at).min(Duration::from_secs(3600));
        let by_time = since.as_micros() as i64 * FRAMES_PER_SECOND * FRAME / 1_000_000;
        let pieces = (answered - self.answered).min(MOST as u64) as i64;
        self.left += by_time.min(BEGINNING) + self.sent + pieces * WORK;
        self.left = self.left.min(MOST);
        self.refilled_at = now;
        self.sent = 0;
        self.answered = answered;
        self.left >= 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = (length as u32).to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + length, 0xff);
        frame
    }

    const PING: u8 = 6;

    /// Behind the preface.
    fn begun() -> Frames {
        let mut frames = Frames::new(Instant::now());
        assert_eq!(frames.follow(&[0; PREFACE], 0), PREFACE);
        frames
    }

    /// Sends frames until no more are let through, `most` at the utmost; returns how many were.
    fn flood(frames: &mut Frames, frame: &[u8], most: usize) -> usize {
        (0..most)
            .find(|_| frames.follow(frame, 0) < frame.len() || frames.is_over())
            .map_or(most, |count| count + 1)
    }

    #[test]
    fn control_frames_are_let_through_up_to_the_budget() {
        for kind in [2, 4, PING, 7, 0xfa] {
            let mut frames = begun();
            let count = flood(&mut frames, &frame(kind, 0, 8), 100_000);
            assert!((900..20_000).contains(&count), "{count} of kind {kind}");
        }
    }

    #[test]
    fn larger_control_frames_are_fewer() {
        let mut frames = begun();
        let count = flood(&mut frames, &frame(0xfa, 0, 16_384), 100_000);
        assert!((10..1_000).contains(&count), "{count}");
    }

    #[test]
    fn frames_are_followed_over_any_split() {
        let said: Vec<u8> = [
            vec![0; PREFACE],
            frame(4, 0, 12),
            frame(HEADERS, 5, 40),
            frame(DATA, 0, 700),
            frame(DATA, END_STREAM, 0),
            frame(PING, 0, 8),
        ]
        .concat();
        let left = |size| {
            let mut frames = Frames::new(Instant::now());
            for piece in said.chunks(size) {
                assert_eq!(frames.follow(piece, 0), piece.len());
            }
            assert_eq!((frames.payload, frames.came), (0, 0), "pieces of {size}");
            frames.budget.left
        };
        for size in 1..said.len() {
            assert_eq!(left(size), left(said.len()), "pieces of {size}");
        }
    }

    #[test]
    fn a_flood_is_cut_at_the_end_of_a_frame() {
        let said = frame(PING, 0, 8).repeat(100_000);
        for size in [1, 7, 17, 1000, said.len()] {
            let mut frames = begun();
            let mut let_through = 0;
            for piece in said.chunks(size) {
                let count = frames.follow(piece, 0);
                let_through += count;
                if count < piece.len() {
                    break;
                }
            }
            assert!(frames.is_over(), "pieces of {size}");
            assert_eq!(let_through % 17, 0, "pieces of {size}");
        }
    }

    #[test]
    fn what_has_begun_is_known_until_it_is_whole() {
        let open = frame(HEADERS, 0, 40);
        let end = frame(CONTINUATION, END_HEADERS, 7);
        let data = frame(DATA, 0, 700);
        let ping = frame(PING, 0, 8);
        for (said, has_begun) in [
            (&open[..1], true),
            (&open[..20], true),
            (&open, true),
            (&[&open[..], &end[..12]].concat(), true),
            (&[&open[..], &end].concat(), false),
            (&data[..8], true),
            (&data[..9], false),
            (&data[..600], false),
            (&ping[..16], true),
            (&ping, false),
        ] {
            for size in 1..=said.len() {
                let mut frames = begun();
                for piece in said.chunks(size) {
                    frames.follow(piece, 0);
                }
                let kept = frames.begun().is_some();
                assert_eq!(kept, has_begun, "{said:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_block_that_comes_in_many_frames_has_begun_with_the_first() {
        let mut frames = begun();
        frames.follow(&frame(HEADERS, 0, 1), 0);
        let first = frames.begun().expect("it has begun");
        frames.begun = Some(first - Duration::from_secs(1));
        for _ in 0..3 {
            frames.follow(&frame(CONTINUATION, 0, 1), 0);
        }
        assert!(frames.begun().expect("it goes on") < first);
        let next = [frame(CONTINUATION, END_HEADERS, 1), frame(HEADERS, 0, 1)].concat();
        frames.follow(&next, 0);
        assert!(frames.begun().expect("the next has begun") >= first);
    }

    #[test]
    fn requests_and_bodies_pay_for_what_comes_with_them() {
        let mut frames = begun();
        for _ in 0..100_000 {
            for frame in [
                frame(HEADERS, 4, 40),
                frame(PING, 0, 8),
                frame(DATA, 1, 1000),
            ] {
                assert_eq!(frames.follow(&frame, 0), frame.len());
            }
        }
        assert!(!frames.is_over());
    }

    #[test]
    fn requests_that_are_all_reset_do_not_pay_for_that() {
        let mut frames = begun();
        let both = [frame(HEADERS, 5, 3), frame(RST_STREAM, 0, 4)].concat();
        let count = flood(&mut frames, &both, 100_000);
        assert!((900..20_000).contains(&count), "{count}");
    }

    #[test]
    fn what_was_sent_pays_for_windows() {
        let mut frames = begun();
        let window = frame(WINDOW_UPDATE, 0, 4);
        for _ in 0..100_000 {
            // One for the stream and one for the connection, every kilobyte.
            frames.note_sent(1024);
            assert_eq!(frames.follow(&window, 0), window.len());
            assert_eq!(frames.follow(&window, 0), window.len());
        }
        assert!(!frames.is_over());
    }

    #[test]
    fn pieces_of_answers_pay_for_windows() {
        let mut frames = begun();
        let window = frame(WINDOW_UPDATE, 0, 4);
        for piece in 0..100_000 {
            assert_eq!(frames.follow(&window, piece), window.len());
            assert_eq!(frames.follow(&window, piece), window.len());
        }
        assert!(!frames.is_over());
    }

    #[test]
    fn time_gives_back_up_to_the_beginning_and_no_more() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        budget.left = -1;
        assert!(!budget.refill(start, 0), "no time went by");
        assert!(budget.refill(start + Duration::from_secs(1), 0));
        assert_eq!(budget.left, FRAMES_PER_SECOND * FRAME - 1);
        budget.left = 0;
        assert!(budget.refill(start + Duration::from_secs(1_000_000), 0));
        assert_eq!(budget.left, BEGINNING);
    }

    #[test]
    fn ten_pings_a_second_are_never_too_many() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for tenth in 0..1_000_000 {
            budget.left += worth(PING, 0, 8);
            if budget.left < 0 {
                assert!(budget.refill(start + Duration::from_millis(100) * tenth, 0));
            }
        }
    }
}
