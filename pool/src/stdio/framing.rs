//! Messages out of bytes, and bytes out of messages. Pure.
//!
//! Two ways to say where a message ends are in use between programs and their children: a line each (the
//! Model Context Protocol), and a head with the length (language servers).
//!
//! Invariants:
//! - A decoder keeps no more than one message of the longest length that is allowed, and a head: what is
//!   longer fails as soon as that is known.
//! - How the bytes were cut into pieces makes no difference.
//! - After a failure a decoder gives nothing more: where the next message begins is not known.

use std::error::Error;
use std::fmt;

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Framing {
    /// A message is a line, and has no line end inside; an empty line is none. The Model Context Protocol.
    #[default]
    Lines,
    /// A message has a head in front, with its `Content-Length` in bytes, and an empty line behind that. The
    /// Language Server Protocol.
    ContentLength,
}

impl Framing {
    /// Writes a message as it goes into the pipe.
    ///
    /// # Errors
    ///
    /// [`FrameError::LineEndInside`], as a line.
    pub fn encode(self, message: &[u8]) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Lines => {
                if message.contains(&b'\n') {
                    return Err(FrameError::LineEndInside);
                }
                let mut frame = Vec::with_capacity(message.len() + 1);
                frame.extend_from_slice(message);
                frame.push(b'\n');
                Ok(frame)
            }
            Self::ContentLength => {
                let mut frame = format!("Content-Length: {}\r\n\r\n", message.len()).into_bytes();
                frame.extend_from_slice(message);
                Ok(frame)
            }
        }
    }
}

/// Takes messages out of bytes, in whatever pieces these come.
///
/// ```
/// use quoit_pool::stdio::{Decoder, Framing};
///
/// let mut decoder = Decoder::new(Framing::Lines, 1_024);
/// let mut bytes: &[u8] = b"{\"a\":1}\n{\"b\"";
/// assert_eq!(decoder.next(&mut bytes)?.as_deref(), Some(&b"{\"a\":1}"[..]));
/// assert_eq!(decoder.next(&mut bytes)?, None, "there is no more yet");
/// let mut bytes: &[u8] = b":2}\n";
/// assert_eq!(decoder.next(&mut bytes)?.as_deref(), Some(&b"{\"b\":2}"[..]));
/// decoder.finish()?;
/// # Ok::<_, quoit_pool::stdio::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    limit: usize,
    /// What is there of the message, or of its head.
    part: Vec<u8>,
    /// How long the message is, once its head was read.
    length: Option<usize>,
    failed: Option<FrameError>,
}

impl Decoder {
    /// Makes a decoder for messages of at most `limit` bytes.
    pub fn new(framing: Framing, limit: usize) -> Self {
        Self {
            framing,
            limit,
            part: Vec::new(),
            length: None,
            failed: None,
        }
    }

    /// Takes bytes off the front of `bytes`, up to the end of a message, and returns that; `None` when all
    /// were taken and the message goes on.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the same from then on.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let taken = match self.framing {
            Framing::Lines => self.next_line(bytes),
            Framing::ContentLength => self.next_measured(bytes),
        };
        if let Err(error) = &taken {
            self.failed = Some(error.clone());
            self.part = Vec::new();
        }
        taken
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] if a message was not whole.
    pub fn finish(&mut self) -> Result<(), FrameError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if self.part.is_empty() && self.length.is_none() {
            return Ok(());
        }
        let error = FrameError::Truncated {
            beginning: beginning(&self.part),
        };
        self.failed = Some(error.clone());
        self.part = Vec::new();
        Err(error)
    }

    fn next_line(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        loop {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let taken = &bytes[..end.unwrap_or(bytes.len())];
            // One more may be the CR of a line end.
            if self.part.len() + taken.len() > self.limit.saturating_add(1) {
                return Err(self.too_long(taken));
            }
            self.part.extend_from_slice(taken);
            let Some(end) = end else {
                *bytes = &[];
                return Ok(None);
            };
            *bytes = &bytes[end + 1..];
            let mut line = std::mem::take(&mut self.part);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.len() > self.limit {
                return Err(FrameError::TooLong {
                    limit: self.limit,
                    beginning: beginning(&line),
                });
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line));
            }
        }
    }

    fn next_measured(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError> {
        while self.length.is_none() {
            let Some((&first, rest)) = bytes.split_first() else {
                return Ok(None);
            };
            *bytes = rest;
            self.part.push(first);
            if self.part.ends_with(b"\r\n\r\n") || self.part.ends_with(b"\n\n") {
                let head = std::mem::take(&mut self.part);
                let length = length_in(&head)?;
                if length > self.limit {
                    return Err(FrameError::TooLong {
                        limit: self.limit,
                        beginning: beginning(&head),
                    });
                }
                self.length = Some(length);
            } else if self.part.len() >= HEAD_LIMIT {
                return Err(FrameError::BadHead {
                    beginning: beginning(&self.part),
                });
            }
        }
        let length = self.length.unwrap_or_default();
        let taken = (length - self.part.len()).min(bytes.len());
        self.part.extend_from_slice(&bytes[..taken]);
        *bytes = &bytes[taken..];
        if self.part.len() < length {
            return Ok(None);
        }
        self.length = None;
        Ok(Some(std::mem::take(&mut self.part)))
    }

    fn too_long(&self, more: &[u8]) -> FrameError {
        let shown = [&self.part[..], &more[..more.len().min(SHOWN)]].concat();
        FrameError::TooLong {
            limit: self.limit,
            beginning: beginning(&shown),
        }
    }
}

/// Why bytes are no messages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// A message is longer than is allowed.
    TooLong {
        /// How long it may be, in bytes.
        limit: usize,
        /// How it begins; with a [`ContentLength`](Framing::ContentLength), its head.
        beginning: String,
    },
    /// What stands where a head should stand is none, or has no length that is a number.
    BadHead {
        /// How it begins.
        beginning: String,
    },
    /// The bytes ended in the middle of a message.
    Truncated {
        /// How that begins.
        beginning: String,
    },
    /// A message that is to be sent as a line has a line end inside.
    LineEndInside,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit, beginning } => write!(
                f,
                "a message is longer than {limit} bytes, which is the limit; it begins with \
                 {beginning:?}"
            ),
            Self::BadHead { beginning } => write!(
                f,
                "a head with a Content-Length should stand here, and this does: {beginning:?}"
            ),
            Self::Truncated { beginning } => write!(
                f,
                "the bytes end in the middle of a message, which begins with {beginning:?}"
            ),
            Self::LineEndInside => {
                f.write_str("a message that is sent as a line has a line end inside")
            }
        }
    }
}

impl Error for FrameError {}

/// Returns how bytes begin, for an error message.
pub(super) fn beginning(bytes: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned();
    match bytes.len() > SHOWN {
        true => shown + "…",
        false => shown,
    }
}

fn length_in(head: &[u8]) -> Result<usize, FrameError> {
    let bad = || FrameError::BadHead {
        beginning: beginning(head),
    };
    let text = str::from_utf8(head).map_err(|_| bad())?;
    let mut length = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        if name.trim().eq_ignore_ascii_case("content-length") {
            let value = value.trim();
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number || length.is_some() {
                return Err(bad());
            }
            length = Some(value.parse().map_err(|_| bad())?);
        }
    }
    length.ok_or_else(bad)
}

/// How many bytes of a message that is wrong are shown: enough to recognise it, not to fill a log.
const SHOWN: usize = 120;

/// How long a head may be: it says a length and a content type.
const HEAD_LIMIT: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a decoder makes of bytes in these pieces: the messages, and how it ends.
    fn decode(
        framing: Framing,
        limit: usize,
        pieces: &[&[u8]],
    ) -> (Vec<String>, Result<(), FrameError>) {
        let mut decoder = Decoder::new(framing, limit);
        let mut messages = Vec::new();
        for piece in pieces {
            let mut bytes = *piece;
            loop {
                match decoder.next(&mut bytes) {
                    Ok(Some(message)) => {
                        messages.push(String::from_utf8(message).expect("the tests send text"));
                    }
                    Ok(None) => break,
                    Err(error) => return (messages, Err(error)),
                }
            }
        }
        let end = decoder.finish();
        (messages, end)
    }

    fn too_long(limit: usize) -> impl Fn(&Result<(), FrameError>) -> bool {
        move |end| matches!(end, Err(FrameError::TooLong { limit: told, .. }) if *told == limit)
    }

    fn bad_head(end: &Result<(), FrameError>) -> bool {
        matches!(end, Err(FrameError::BadHead { .. }))
    }

    fn truncated(end: &Result<(), FrameError>) -> bool {
        matches!(end, Err(FrameError::Truncated { .. }))
    }

    #[test]
    fn messages_are_the_same_however_the_bytes_are_cut() {
        type Check = Box<dyn Fn(&Result<(), FrameError>) -> bool>;
        let (lines, measured) = (Framing::Lines, Framing::ContentLength);
        let table: Vec<(Framing, &str, &[&str], Check)> = vec![
            (lines, "", &[], Box::new(Result::is_ok)),
            (lines, "abc\nde\n", &["abc", "de"], Box::new(Result::is_ok)),
            (
                lines,
                "abc\r\n\n\r\n \nde\n",
                &["abc", "de"],
                Box::new(Result::is_ok),
            ),
            (
                lines,
                "12345678\n12345678\r\n",
                &["12345678", "12345678"],
                Box::new(Result::is_ok),
            ),
            (lines, "abc\n123456789\n", &["abc"], Box::new(too_long(8))),
            (lines, "abc\n1234567890", &["abc"], Box::new(too_long(8))),
            (lines, "abc\nde", &["abc"], Box::new(truncated)),
            (
                measured,
                "Content-Length: 3\r\n\r\nabccontent-length:2\r\nContent-Type: x\r\n\r\nde",
                &["abc", "de"],
                Box::new(Result::is_ok),
            ),
            (
                measured,
                "Content-Length: 3\n\na\nc",
                &["a\nc"],
                Box::new(Result::is_ok),
            ),
            (
                measured,
                "Content-Length: 0\r\n\r\n",
                &[""],
                Box::new(Result::is_ok),
            ),
            (
                measured,
                "Content-Length: 9\r\n\r\n",
                &[],
                Box::new(too_long(8)),
            ),
            (
                measured,
                "Content-Length: -1\r\n\r\n",
                &[],
                Box::new(bad_head),
            ),
            (
                measured,
                "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
                &[],
                Box::new(bad_head),
            ),
            (
                measured,
                "Content-Length: 99999999999999999999\r\n\r\n",
                &[],
                Box::new(bad_head),
            ),
            (
                measured,
                "Content-Type: x\r\n\r\nabc",
                &[],
                Box::new(bad_head),
            ),
            (measured, "garbage\n\n", &[], Box::new(bad_head)),
            (
                measured,
                "Content-Length: 3\r\n\r\nab",
                &[],
                Box::new(truncated),
            ),
            (measured, "Content-Len", &[], Box::new(truncated)),
            (
                measured,
                "Content-Length: 3\r\n\r\n",
                &[],
                Box::new(truncated),
            ),
        ];
        for (framing, text, messages, check) in table {
            let bytes = text.as_bytes();
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    let (got, end) = decode(framing, 8, &pieces);
                    assert_eq!(got, messages, "{text:?} cut at {first} and {second}");
                    assert!(check(&end), "{text:?} cut at {first} and {second}: {end:?}");
                }
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let (got, end) = decode(framing, 8, &single);
            assert_eq!(got, messages, "{text:?} byte by byte");
            assert!(check(&end), "{text:?} byte by byte: {end:?}");
        }
    }

    #[test]
    fn message_that_does_not_end_fails_at_the_limit_and_is_not_kept() {
        for framing in [Framing::Lines, Framing::ContentLength] {
            let mut decoder = Decoder::new(framing, 2_000);
            let mut fed = 0;
            let error = loop {
                let mut bytes: &[u8] = &[b'x'; 100];
                match decoder.next(&mut bytes) {
                    Ok(message) => assert_eq!(message, None),
                    Err(error) => break error,
                }
                fed += 100;
                assert!(fed <= 2_100, "{framing:?}");
            };
            let text = error.to_string();
            assert!(text.contains("xxx"), "{text}");
            assert!(text.len() < 400, "{text}");
            assert_eq!(decoder.part.capacity(), 0);
            // What follows is not taken for a message.
            assert_eq!(decoder.next(&mut &b"\n{}\n"[..]), Err(error.clone()));
            assert_eq!(decoder.finish(), Err(error));
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for framing in [Framing::Lines, Framing::ContentLength] {
            let frame = framing.encode(br#"{"a":"\n"}"#).expect("it is one line");
            let (messages, end) = decode(framing, 100, &[&frame, &frame]);
            assert_eq!(messages, [r#"{"a":"\n"}"#; 2]);
            assert_eq!(end, Ok(()));
        }
        assert_eq!(
            Framing::Lines.encode(b"a\nb"),
            Err(FrameError::LineEndInside)
        );
        let frame = Framing::ContentLength.encode(b"a\nb");
        assert_eq!(frame.as_deref(), Ok(&b"Content-Length: 3\r\n\r\na\nb"[..]));
    }

    #[test]
    fn limit_may_be_whatever_a_number_can_be() {
        for limit in [usize::MAX, usize::MAX - 1] {
            let lines = decode(Framing::Lines, limit, &[b"one\r", b"\ntwo\n"]);
            assert_eq!(lines, (vec!["one".to_owned(), "two".to_owned()], Ok(())));
        }
    }
}
