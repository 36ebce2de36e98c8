//! The ring of provided buffers, from which the kernel takes one for each receive.
//!
//! The memory is never freed: the server runs until it is killed.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{Submitter, cqueue};

/// The number of the group that the receives name.
pub(crate) const GROUP: u16 = 0;

/// `IOU_PBUF_RING_INC`, since Linux 6.12: a buffer is used up piece by piece.
const INCREMENTAL: u16 = 2;

/// What one receive brought: a part of a buffer.
pub(crate) struct Piece {
    buffer: u16,
    at: u32,
    len: u32,
}

/// One buffer, as far as it is with us.
#[derive(Default)]
struct Lent {
    /// Where the next piece begins.
    at: u32,
    /// Pieces that are out.
    pieces: u32,
    /// The kernel takes nothing more from it.
    is_used_up: bool,
}

/// The buffers of a ring.
pub(crate) struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    count: usize,
    size: usize,
    flags: u16,
    lent: Vec<Lent>,
    /// How many the kernel may still take from.
    free: usize,
    tail: u16,
}

impl Buffers {
    /// So many buffers, each for one receive.
    pub(crate) fn whole(count: u16, size: usize) -> Self {
        Self::new(count, size, 0)
    }

    /// So many buffers, each for as many receives as fit.
    pub(crate) fn incremental(count: u16, size: usize) -> Self {
        Self::new(count, size, INCREMENTAL)
    }

    fn new(count: u16, size: usize, flags: u16) -> Self {
        assert!(count.is_power_of_two(), "the kernel wants a power of two");
        let count = usize::from(count);
        let mut buffers = Self {
            entries: pages(count * size_of::<BufRingEntry>()).cast(),
            memory: pages(count * size),
            count,
            size,
            flags,
            lent: Vec::new(),
            free: 0,
            tail: 0,
        };
        for buffer in 0..count {
            buffers.lent.push(Lent::default());
            buffers.provide(buffer as u16);
        }
        buffers
    }

    /// Announces the buffers to the kernel.
    pub(crate) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let (address, count) = (self.entries as u64, self.lent.len() as u16);
        // SAFETY: the entries are on pages of their own, as many as told, and are never freed.
        unsafe { submitter.register_buf_ring_with_flags(address, count, GROUP, self.flags) }
    }

    /// Takes what a completion brought.
    pub(crate) fn take(&mut self, len: u32, flags: u32) -> Piece {
        let buffer = cqueue::buffer_select(flags).expect("bytes come in a buffer");
        let lent = &mut self.lent[usize::from(buffer)];
        let piece = Piece {
            buffer,
            at: lent.at,
            len,
        };
        lent.at += len;
        lent.pieces += 1;
        lent.is_used_up = !cqueue::buffer_more(flags);
        self.free -= usize::from(lent.is_used_up);
        piece
    }

    /// Whether a receive that begins now finds a buffer, as far as the completions tell that were seen.
    pub(crate) fn has_free(&self) -> bool {
        self.free > 0
    }

    /// Where a piece begins.
    fn start(&self, piece: &Piece) -> *const u8 {
        self.address(piece.buffer).wrapping_add(piece.at as usize)
    }

    /// The bytes of a piece.
    pub(crate) fn bytes(&self, piece: &Piece) -> &[u8] {
        // SAFETY: the kernel has filled them, and writes to none of them again before the piece is given back, which
        // takes `self` mutably.
        unsafe { std::slice::from_raw_parts(self.start(piece), piece.len as usize) }
    }

    /// Gives a piece back; returns whether the kernel has one more buffer by it.
    pub(crate) fn give_back(&mut self, piece: &Piece) -> bool {
        let lent = &mut self.lent[usize::from(piece.buffer)];
        lent.pieces -= 1;
        if lent.pieces > 0 || !lent.is_used_up {
            return false;
        }
        *lent = Lent::default();
        self.provide(piece.buffer);
        true
    }

    fn provide(&mut self, buffer: u16) {
        self.free += 1;
        // As many entries as buffers: there is room for each.
        let place = usize::from(self.tail) & (self.count - 1);
        let address = self.address(buffer) as u64;
        // SAFETY: the place is within the entries, and the kernel does not read it before the tail tells it to.
        let entry = unsafe { &mut *self.entries.add(place) };
        entry.set_addr(address);
        entry.set_len(self.size as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in the first entry, which is there.
        let tail = unsafe { BufRingEntry::tail(self.entries) };
        // SAFETY: it is aligned, and both sides use it as an atomic from here on.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the kernel reads the entry after the tail.
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        self.memory.wrapping_add(usize::from(buffer) * self.size)
    }
}

fn pages(size: usize) -> *mut u8 {
    let layout = Layout::from_size_align(size, 4096).expect("a small size");
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    memory
}
