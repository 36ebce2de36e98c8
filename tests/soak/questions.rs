//! What can be asked of the server, and the one right answer to it.
//!
//! The path of a request is `/what/number/size`.

use std::fmt;

use tests::{Dice, bytes};

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A text about the request's body, once all of it is here.
    Sum,
    /// The request's body, while it comes.
    Mirror,
    /// So many bytes, made piece by piece while they are sent.
    Pieces,
    /// A text, from the other core.
    Elsewhere,
    /// A text, after so many milliseconds.
    Wait,
    /// No answer: the handler fails.
    Fail,
    /// No answer: the handler panics.
    Panic,
    /// An answer whose body fails behind its first piece.
    Cut,
    /// Another protocol: what comes goes back.
    Upgrade,
}

const NAMES: [(What, &str); 9] = [
    (What::Sum, "sum"),
    (What::Mirror, "mirror"),
    (What::Pieces, "pieces"),
    (What::Elsewhere, "elsewhere"),
    (What::Wait, "wait"),
    (What::Fail, "fail"),
    (What::Panic, "panic"),
    (What::Cut, "cut"),
    (What::Upgrade, "upgrade"),
];

/// A request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    pub(crate) what: What,
    pub(crate) number: u64,
    pub(crate) size: usize,
}

impl Question {
    /// Draws one that any client can ask.
    pub(crate) fn drawn(dice: &mut Dice, number: u64) -> Self {
        use What::{Cut, Elsewhere, Fail, Mirror, Panic, Pieces, Sum, Wait};
        let what = dice.one_of(&[
            Sum, Sum, Mirror, Mirror, Pieces, Pieces, Elsewhere, Elsewhere, Wait, Fail, Panic, Cut,
        ]);
        let size = match what {
            Wait => dice.below(50),
            _ => size(dice),
        };
        Self { what, number, size }
    }

    /// Draws one that is answered with a text, to a request that has a body of this size.
    pub(crate) fn drawn_for_text(dice: &mut Dice, number: u64, size: usize) -> Self {
        let what = dice.one_of(&[What::Sum, What::Sum, What::Elsewhere]);
        Self { what, number, size }
    }

    /// Reads a path.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let name = parts.next()?;
        let (what, _) = NAMES.into_iter().find(|(_, known)| *known == name)?;
        Some(Self {
            what,
            number: parts.next()?.parse().ok()?,
            size: parts.next()?.parse().ok()?,
        })
    }

    /// Returns whether the request has a body, of `size` bytes.
    pub(crate) fn has_body(self) -> bool {
        matches!(self.what, What::Sum | What::Mirror)
    }

    /// Returns the request's body.
    pub(crate) fn body(self) -> Vec<u8> {
        match self.has_body() {
            true => bytes(self.size, self.number),
            false => Vec::new(),
        }
    }

    /// Returns the status of the answer.
    pub(crate) fn status(self) -> u16 {
        match self.what {
            What::Fail | What::Panic => 500,
            What::Upgrade => 101,
            _ => 200,
        }
    }

    /// Returns the body of the answer.
    pub(crate) fn answer(self) -> Vec<u8> {
        match self.what {
            What::Sum => self.text(&self.body()),
            What::Elsewhere | What::Wait => self.text(b""),
            What::Mirror | What::Pieces => bytes(self.size, self.number),
            What::Cut => bytes(PIECE, self.number),
            What::Fail | What::Panic | What::Upgrade => Vec::new(),
        }
    }

    /// Returns the text about a body: a line that begins with the number.
    pub(crate) fn text(self, body: &[u8]) -> Vec<u8> {
        // FNV-1a.
        let sum = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let (number, length) = (self.number, body.len());
        format!("{number} {length} {sum:x}\n").into_bytes()
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = NAMES[self.what as usize];
        write!(f, "/{name}/{}/{}", self.number, self.size)
    }
}

/// How large the pieces of an answer are.
pub(crate) const PIECE: usize = 8 * 1024;

/// What the servers let a body have.
pub(crate) const MAX_BODY: u64 = 1 << 20;

/// Draws a size: mostly small, and now and then more than the buffers between two sockets hold.
pub(crate) fn size(dice: &mut Dice) -> usize {
    match dice.below(16) {
        0 => 0,
        1..10 => 1 + dice.below(2_000),
        10..15 => dice.below(60_000),
        _ => dice.below(MAX_BODY as usize),
    }
}
