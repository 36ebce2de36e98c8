//! TCP echo on one hand-written ring: the limit that a runtime on io_uring is measured against.
//!
//! One send for each receive, straight out of the buffer that the kernel chose.

mod buffers;
mod server;

use std::collections::VecDeque;
use std::io;

use buffers::{Buffers, Piece};
use server::Connection;

fn main() -> io::Result<()> {
    server::run::<Echo>()
}

/// What was received, and is not sent yet.
#[derive(Default)]
struct Echo {
    pieces: VecDeque<Piece>,
}

impl Connection for Echo {
    fn take(&mut self, piece: Piece, _: &Buffers) -> Option<Piece> {
        self.pieces.push_back(piece);
        None
    }

    fn next<'a>(&'a mut self, buffers: &'a Buffers) -> Option<&'a [u8]> {
        Some(buffers.bytes(self.pieces.front()?))
    }

    fn on_sent(&mut self) -> Option<Piece> {
        self.pieces.pop_front()
    }
}
