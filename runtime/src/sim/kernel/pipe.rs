//! Pipes.
//!
//! A pipe holds pages, not bytes: a write that does not fit into what is left of the last page takes a
//! new one, and a page is free again when all of it was read. So sixteen small writes may fill it.

use std::collections::VecDeque;

use super::{Kernel, Kind, ObjectId};

/// How many pages a pipe holds, and how large they are; a write of up to one page goes in as a whole
/// (`PIPE_BUF`). `pipe(7)`.
const PAGES: usize = 16;
const PAGE: usize = 4096;

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
    Reads(VecDeque<Page>),
    Writes {
        /// Nobody reads any more, and there was no room when the last one left.
        left_full: bool,
    },
}

#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    /// How many were read.
    read: usize,
}

impl Kernel {
    pub(crate) fn make_pipe(&mut self) -> [ObjectId; 2] {
        let end = |side| Kind::Pipe(PipeEnd { side, other: None });
        let read = self.make(end(Side::Reads(VecDeque::new())));
        let write = self.make(end(Side::Writes { left_full: false }));
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
        let Side::Reads(pages) = &mut end.side else {
            return Some(Err(libc::EBADF));
        };
        // Nothing is asked for: `pipe_read` looks at nothing else.
        if most == 0 {
            return Some(Ok(Vec::new()));
        }
        if pages.is_empty() {
            return other.is_none().then(|| Ok(Vec::new()));
        }
        let mut taken = Vec::new();
        while let Some(page) = pages.front_mut() {
            let count = (most - taken.len()).min(page.bytes.len() - page.read);
            taken.extend_from_slice(&page.bytes[page.read..page.read + count]);
            page.read += count;
            if page.read < page.bytes.len() {
                break;
            }
            pages.pop_front();
        }
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
        // Nothing is written: `pipe_write` does not look for readers before that.
        if from.is_empty() {
            return Some(Ok(0));
        }
        let Some(other) = end.other else {
            return Some(Err(libc::EPIPE));
        };
        let Side::Reads(pages) = &mut self.pipe_end(other).side else {
            unreachable!("the other end of one that writes");
        };
        // What goes beyond whole pages comes first, onto the last page if it fits there.
        let odd = from.len() % PAGE;
        let mut count = 0;
        if odd > 0
            && let Some(last) = pages.back_mut()
            && last.bytes.len() + odd <= PAGE
        {
            last.bytes.extend_from_slice(&from[..odd]);
            count = odd;
        }
        while count < from.len() && pages.len() < PAGES {
            let end = from.len().min(count + PAGE);
            pages.push_back(Page {
                bytes: from[count..end].to_vec(),
                read: 0,
            });
            count = end;
        }
        if count == 0 {
            return None;
        }
        self.counts.bytes += count as u64;
        self.changed(other);
        Some(Ok(count))
    }

    /// Returns what the end is ready for. `poll(2)`.
    pub(crate) fn pipe_events(&mut self, id: ObjectId) -> u32 {
        let end = self.pipe_end(id);
        let other = end.other;
        let events = match &end.side {
            Side::Reads(pages) => {
                let hung_up = if other.is_none() { libc::POLLHUP } else { 0 };
                let readable = if pages.is_empty() { 0 } else { libc::POLLIN };
                hung_up | readable
            }
            Side::Writes { left_full } => match other {
                None if *left_full => libc::POLLERR,
                None => libc::POLLERR | libc::POLLOUT,
                Some(other) => match &self.pipe_end(other).side {
                    Side::Reads(pages) if pages.len() < PAGES => libc::POLLOUT,
                    _ => 0,
                },
            },
        };
        events as u32
    }

    pub(crate) fn release_pipe(&mut self, end: &PipeEnd) {
        if let Some(other) = end.other {
            let full = matches!(&end.side, Side::Reads(pages) if pages.len() == PAGES);
            let other_end = self.pipe_end(other);
            other_end.other = None;
            if let Side::Writes { left_full } = &mut other_end.side {
                *left_full = full;
            }
            self.changed(other);
        }
    }
}
