//! `Tail`: the last lines of what a child writes to its standard error. Pure.
//!
//! Invariant: no more is kept than so many lines, and so many bytes of each.

use std::collections::VecDeque;

/// The last lines of a text that may be endless.
#[derive(Debug)]
pub(super) struct Tail {
    most_lines: usize,
    lines: VecDeque<Vec<u8>>,
    /// The line that has not ended yet.
    part: Vec<u8>,
}

/// How much of a line is kept: a path and a sentence; the first part says more than the rest.
const MOST_BYTES: usize = 1_024;

impl Tail {
    pub(super) fn new(most_lines: usize) -> Self {
        Self {
            most_lines,
            lines: VecDeque::new(),
            part: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = MOST_BYTES - self.part.len();
            self.part.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.part);
        if self.most_lines == 0 || line.trim_ascii().is_empty() {
            return;
        }
        if self.lines.len() == self.most_lines {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Returns the lines, the oldest first, with the one that has not ended.
    pub(super) fn lines(&self) -> Vec<String> {
        let part = Some(&self.part).filter(|part| !part.is_empty() && self.most_lines > 0);
        let lines = self.lines.iter().chain(part);
        let text = |line: &Vec<u8>| String::from_utf8_lossy(line).trim_end().to_owned();
        let lines: Vec<_> = lines.map(text).collect();
        let first = lines.len().saturating_sub(self.most_lines);
        lines[first..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_kept_however_the_bytes_are_cut() {
        let text = b"one\ntwo\r\n\nthree\nfour";
        for size in 1..=text.len() {
            let mut tail = Tail::new(3);
            for piece in text.chunks(size) {
                tail.push(piece);
            }
            assert_eq!(tail.lines(), ["two", "three", "four"], "pieces of {size}");
        }
    }

    #[test]
    fn endless_line_is_kept_in_part() {
        let mut tail = Tail::new(2);
        for _ in 0..100 {
            tail.push(&[b'x'; 1_000]);
        }
        assert_eq!(tail.lines(), ["x".repeat(MOST_BYTES)]);
        tail.push(b"\ny\nz\n");
        assert_eq!(tail.lines(), ["y", "z"]);
        assert!(tail.part.is_empty());
    }

    #[test]
    fn none_are_kept_if_none_shall_be() {
        let mut tail = Tail::new(0);
        tail.push(b"one\ntwo");
        assert_eq!(tail.lines(), [""; 0]);
    }
}
