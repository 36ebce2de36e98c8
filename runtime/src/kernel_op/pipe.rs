//! Ops on pipes that wait without memory, and write in turn.
//!
//! A socket has `recv(2)`, which goes on by itself and never ends the process with a signal; a pipe has
//! `read(2)` and `write(2)`. So [`FromPipe`] asks for one provided buffer at a time, whenever somebody
//! waits: what nobody takes stays in the pipe.

use std::io;
use std::os::fd::RawFd;

use super::kind::OpKind;
use super::multishot::{End, Queue};
use super::ops::{Received, Write};
use super::payload::{Operation, Outcome};
use super::request::{CURRENT_POSITION, Request};
use super::state::Asker;
use super::turn::SendTurn;
use crate::buf::provided::GROUP;
use crate::buf::{Chunk, IoBuf};
use crate::core_state::Core;
use crate::driver::Completion;

/// Bytes of a pipe, waiting for somebody to take them.
#[derive(Debug)]
pub(crate) struct FromPipe(Received);

impl Operation for FromPipe {
    type Output = ();
    const KIND: OpKind = OpKind::Read;

    fn request(&mut self, fd: RawFd) -> Request {
        Request::ReadProvided { fd, group: GROUP }
    }

    fn finish(self, outcome: Outcome) {
        self.0.finish(outcome);
    }

    fn deliver(&mut self, completion: Completion) -> Option<Asker> {
        self.0.deliver(completion)
    }

    const MULTISHOT: bool = true;
}

impl Queue for FromPipe {
    type Item = Chunk;

    /// A FIFO may be opened for writing again, and a terminal has an end for each Ctrl-D.
    const ENDS_FOR_GOOD: bool = false;

    fn new(core: &Core) -> Self {
        Self(Received::new(core))
    }

    fn pop(&mut self) -> Option<Chunk> {
        self.0.pop()
    }

    fn end(&self) -> Option<End> {
        self.0.end()
    }

    fn gives_way(&mut self) -> bool {
        self.0.gives_way()
    }
}

/// `write(2)`, when it is its turn.
#[derive(Debug)]
pub(crate) struct IntoPipe<B> {
    write: Write<B>,
    /// Ours until the kernel is done: writes of several tasks do not mix.
    turn: SendTurn,
}

impl<B> IntoPipe<B> {
    pub(crate) fn new(buf: B, turn: SendTurn) -> Self {
        let write = Write::new(buf, CURRENT_POSITION);
        Self { write, turn }
    }
}

impl<B: IoBuf> Operation for IntoPipe<B> {
    type Output = (io::Result<usize>, B, SendTurn);
    const KIND: OpKind = OpKind::Write;

    fn request(&mut self, fd: RawFd) -> Request {
        self.write.request(fd)
    }

    fn set_apart(&mut self) {
        self.write.set_apart();
    }

    fn finish(self, outcome: Outcome) -> Self::Output {
        let (result, buf) = self.write.finish(outcome);
        (result, buf, self.turn)
    }
}
