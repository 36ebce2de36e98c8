//! HTTP/1.1 on one hand-written ring: the limit of a server that answers every request alike.
//!
//! It knows where a head ends and nothing else. What one receive brought is answered with one send, out of answers
//! that were written beforehand.

mod buffers;
mod server;

use std::io;

use buffers::{Buffers, Piece};
use memchr::memmem;
use server::Connection;

fn main() -> io::Result<()> {
    server::run::<Http>()
}

/// What hyper answers, on one day.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\
date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nHello, world!";

/// How many answers one send has at most.
const MOST: usize = 512;

/// So many answers in a row.
static ANSWERS: [u8; MOST * ANSWER.len()] = {
    let mut answers = [0; MOST * ANSWER.len()];
    let mut at = 0;
    while at < answers.len() {
        answers[at] = ANSWER[at % ANSWER.len()];
        at += 1;
    }
    answers
};

/// What ends a head.
const END: &[u8; 4] = b"\r\n\r\n";

#[derive(Default)]
struct Http {
    /// How much of `END` the last bytes were.
    matched: usize,
    /// Requests without an answer.
    unanswered: usize,
}

impl Http {
    /// Counts the heads that end in these bytes.
    fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut ended = 0;
        // The end of a head that began before.
        while self.matched > 0
            && let Some((first, others)) = bytes.split_first()
        {
            ended += self.step(*first);
            bytes = others;
        }
        let mut rest = 0;
        for at in memmem::find_iter(bytes, END) {
            ended += 1;
            rest = at + END.len();
        }
        // What may be the beginning of one that ends later.
        let rest = rest.max(bytes.len().saturating_sub(END.len() - 1));
        for byte in &bytes[rest..] {
            self.step(*byte);
        }
        ended
    }

    /// Goes on by a byte; returns how many heads end with it.
    fn step(&mut self, byte: u8) -> usize {
        self.matched = match byte {
            _ if byte == END[self.matched] => self.matched + 1,
            b'\r' => 1,
            _ => 0,
        };
        if self.matched < END.len() {
            return 0;
        }
        self.matched = 0;
        1
    }
}

impl Connection for Http {
    fn take(&mut self, piece: Piece, buffers: &Buffers) -> Option<Piece> {
        self.unanswered += self.count(buffers.bytes(&piece));
        Some(piece)
    }

    fn next(&mut self, _: &Buffers) -> Option<&[u8]> {
        let answers = self.unanswered.min(MOST);
        self.unanswered -= answers;
        (answers > 0).then(|| &ANSWERS[..answers * ANSWER.len()])
    }

    fn on_sent(&mut self) -> Option<Piece> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_counted_wherever_they_are_cut() {
        let requests = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /\r b HTTP/1.1\r\n\r\n";
        for cut in 0..=requests.len() {
            let mut connection = Http::default();
            let (first, second) = requests.split_at(cut);
            let counted = connection.count(first) + connection.count(second);
            assert_eq!((counted, connection.matched), (2, 0), "cut at {cut}");
        }
        let mut connection = Http::default();
        let counted: usize = requests.chunks(1).map(|byte| connection.count(byte)).sum();
        assert_eq!(counted, 2);
    }
}
