//! Pipes.

use std::collections::VecDeque;

use super::{Kernel, Kind, ObjectId};

/// How much a pipe holds. `pipe(7)`.
const CAPACITY: usize = 65_536;

/// One end of a pipe.
#[derive(Debug)]
pub(crate) struct PipeEnd {
    side: Side,
    /// The other end, while somebody has it.
    other: Option<ObjectId>,
}

#[derive(Debug)]
enum Side {
    /// The bytes lie with the end that reads them.
    Reads(VecDeque<u8>),
    Writes,
}

impl Kernel {
    pub(crate) fn make_pipe(&mut self) -> [ObjectId; 2] {
        let end = |side| Kind::Pipe(PipeEnd { side, other: None });
        let read = self.make(end(Side::Reads(VecDeque::new())));
        let write = self.make(end(Side::Writes));
        for (end, other) in [(read, write), (write, read)] {
            if let Kind::Pipe(pipe) = &mut self.object_mut(end).kind {
                pipe.other = Some(other);
            }
        }
        [read, write]
    }

    fn pipe_end(&mut self, id: ObjectId) -> &mut PipeEnd {
        match &mut self.object_mut(id).kind {
            Kind::Pipe(end) => end,
            _ => unreachable!("asked of a pipe only"),
        }
    }

    /// Takes bytes out; `None` if there are none yet.
    pub(crate) fn read_pipe(&mut self, id: ObjectId, most: usize) -> Option<Result<Vec<u8>, i32>> {
        let end = self.pipe_end(id);
        let other = end.other;
        let Side::Reads(bytes) = &mut end.side else {
            return Some(Err(libc::EBADF));
        };
        if bytes.is_empty() {
            return other.is_none().then(|| Ok(Vec::new()));
        }
        let count = most.min(bytes.len());
        let taken = bytes.drain(..count).collect();
        if let Some(other) = other {
            self.changed(other);
        }
        Some(Ok(taken))
    }

    /// Puts bytes in, as many as there is room for; `None` if there is no room yet.
    pub(crate) fn write_pipe(&mut self, id: ObjectId, from: &[u8]) -> Option<Result<usize, i32>> {
        let end = self.pipe_end(id);
        if let Side::Reads(_) = end.side {
            return Some(Err(libc::EBADF));
        }
        let Some(other) = end.other else {
            return Some(Err(libc::EPIPE));
        };
        let Side::Reads(bytes) = &mut self.pipe_end(other).side else {
            unreachable!("the other end of one that writes");
        };
        let room = CAPACITY - bytes.len();
        // So few bytes are written as a whole (PIPE_BUF, pipe(7)).
        let whole = from.len() <= 4096;
        if room == 0 && !from.is_empty() || whole && room < from.len() {
            return None;
        }
        let count = room.min(from.len());
        bytes.extend(&from[..count]);
        self.counts.bytes += count as u64;
        self.changed(other);
        Some(Ok(count))
    }

    /// Returns what the end is ready for. `poll(2)`.
    pub(crate) fn pipe_events(&mut self, id: ObjectId) -> u32 {
        let end = self.pipe_end(id);
        let other = end.other;
        let events = match &end.side {
            Side::Reads(bytes) => {
                let hung_up = if other.is_none() { libc::POLLHUP } else { 0 };
                let readable = if bytes.is_empty() { 0 } else { libc::POLLIN };
                hung_up | readable
            }
            Side::Writes => match other {
                None => libc::POLLERR | libc::POLLOUT,
                Some(other) => match &self.pipe_end(other).side {
                    Side::Reads(bytes) if CAPACITY - bytes.len() >= 4096 => libc::POLLOUT,
                    _ => 0,
                },
            },
        };
        events as u32
    }

    pub(crate) fn release_pipe(&mut self, end: &PipeEnd) {
        if let Some(other) = end.other {
            self.pipe_end(other).other = None;
            self.changed(other);
        }
    }
}
