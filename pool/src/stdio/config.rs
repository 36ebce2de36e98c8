//! `RpcConfig`: how a session speaks with its child, and how much it bears.

use std::time::Duration;

use super::framing::Framing;
use super::tell::CancelWord;

/// How a session speaks with its child, and how much it bears.
#[derive(Debug, Clone)]
#[must_use = "this is how a session shall be, and makes none"]
pub struct RpcConfig {
    pub(super) framing: Framing,
    pub(super) cancel_word: CancelWord,
    pub(super) frame_limit: usize,
    pub(super) queue: usize,
    pub(super) asks: usize,
    pub(super) complaints: usize,
    pub(super) flush: Duration,
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            framing: Framing::Lines,
            cancel_word: CancelWord::None,
            frame_limit: 4 << 20,
            queue: 64,
            asks: 256,
            complaints: 20,
            flush: Duration::from_millis(500),
        }
    }
}

impl RpcConfig {
    /// How messages are told apart. Lines.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// How the child is told that a call was cancelled. Not at all.
    pub fn cancel_word(mut self, word: CancelWord) -> Self {
        self.cancel_word = word;
        self
    }

    /// How long a message of the child's may be, in bytes. 4 MiB: a picture as text, and no more memory than a
    /// machine has for many children. A longer one ends the session. As a
    /// [`Value`](serde_json::Value), a message of many small parts takes some twenty times its length.
    pub fn frame_limit(mut self, bytes: usize) -> Self {
        self.frame_limit = bytes;
        self
    }

    /// How many messages may wait for the child to read; callers with more wait themselves. 64; at least one.
    pub fn queue(mut self, messages: usize) -> Self {
        self.queue = messages.max(1);
        self
    }

    /// How much the child may ask for at once, with the answers that it has not read. 256; more ends the
    /// session.
    pub fn asks(mut self, requests: usize) -> Self {
        self.asks = requests;
        self
    }

    /// How many lines of the child's standard error are kept for the error message, up to a KiB of each. 20.
    pub fn complaints(mut self, lines: usize) -> Self {
        self.complaints = lines;
        self
    }

    /// How long a session that is closed waits for its child to read what waits. Half a second: a child that
    /// reads at all takes less.
    pub fn flush(mut self, patience: Duration) -> Self {
        self.flush = patience;
        self
    }
}
