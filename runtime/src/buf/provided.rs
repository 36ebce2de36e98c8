//! Buffers the kernel picks from: one ring of them per core.
//!
//! A multishot receive owns no memory. When bytes arrive, the kernel takes a buffer from this ring
//! and says which; we hand the bytes out as a [`Chunk`]. Where the kernel can (6.12), a buffer is
//! filled piece by piece, so that small messages share one and large ones arrive whole.
//!
//! ```text
//!              kernel has used it up            last chunk dropped
//!   provided ────────────────────────► lent ────────────────────────► provided
//! ```
//!
//! Invariants:
//! - Bytes that a chunk covers are not written by the kernel until the chunk is gone: a buffer goes
//!   back only when it is used up and no chunk of it is left.
//! - At most half of the buffers are lent, as a whole or in part. Past that, bytes are copied out as they are reaped, so
//!   a reader who is slow, or a program that keeps its chunks, cannot drain the ring for the others.
//! - While buffers are scarce, each receive takes one of them and asks again, behind the others. A
//!   multishot receive would take as many as its socket can fill, which may be all of them.
//! - `provided + lent` is the number of buffers at any time.
//! - The memory outlives every chunk, and the kernel's use of it: it is unmapped when the last
//!   owner is gone, and the core is an owner until its ring is drained.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::Waker;

use io_uring::types::BufRingEntry;

use super::IoBuf;

/// The one group of provided buffers of a core's ring.
pub(crate) const GROUP: u16 = 0;

/// The buffers of one core.
pub(crate) struct BufferPool {
    memory: Mapping,
    /// A power of two.
    count: u16,
    size: u32,
    incremental: Cell<bool>,
    tail: Cell<u16>,
    /// How many the kernel may still fill.
    provided: Cell<u16>,
    buffers: RefCell<Vec<Buffer>>,
    starved: RefCell<Vec<Waker>>,
    copied: Cell<u64>,
    /// How many receives are still to take one buffer each.
    scarce: Cell<u32>,
}

/// How many receives take one buffer each since the last that has found none: some for each of the
/// thousands of sockets that a core may have.
const SCARCE: u32 = 16 * 1024;

#[derive(Debug, Clone, Copy, Default)]
struct Buffer {
    chunks: u32,
    filled: u32,
    used_up: bool,
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("count", &self.count)
            .field("size", &self.size)
            .field("provided", &self.provided.get())
            .finish_non_exhaustive()
    }
}

impl BufferPool {
    /// Maps memory for `count` buffers (a power of two) of `size` bytes, and their ring.
    pub(crate) fn new(count: u16, size: u32) -> io::Result<Rc<Self>> {
        assert!(
            count.is_power_of_two(),
            "checked where the configuration enters"
        );
        let ring_bytes = ring_bytes(count);
        let memory = Mapping::new(ring_bytes + count as usize * size as usize)?;
        let pool = Self {
            memory,
            count,
            size,
            incremental: Cell::new(false),
            tail: Cell::new(0),
            provided: Cell::new(0),
            buffers: RefCell::new(vec![Buffer::default(); count as usize]),
            starved: RefCell::new(Vec::new()),
            copied: Cell::new(0),
            scarce: Cell::new(0),
        };
        for id in 0..count {
            pool.provide(id);
        }
        Ok(Rc::new(pool))
    }

    /// Returns where the ring lies, for the driver to announce.
    pub(crate) fn ring_address(&self) -> usize {
        self.memory.start.as_ptr() as usize
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    pub(crate) fn set_incremental(&self, incremental: bool) {
        self.incremental.set(incremental);
    }

    /// Returns how many buffers the kernel may still fill.
    pub(crate) fn provided(&self) -> u16 {
        self.provided.get()
    }

    /// Returns how many buffers the kernel has used up and nobody has given back.
    pub(crate) fn lent(&self) -> u16 {
        self.count - self.provided.get()
    }

    /// Notes that a receive has found no buffer.
    pub(crate) fn note_scarcity(&self) {
        self.scarce.set(SCARCE);
    }

    /// Returns whether receives have found no buffers lately.
    pub(crate) fn is_scarce(&self) -> bool {
        self.scarce.get() > 0
    }

    /// Returns whether a receive that begins now is to take one buffer at the most.
    pub(crate) fn take_part_in_scarcity(&self) -> bool {
        let left = self.scarce.get();
        self.scarce.set(left.saturating_sub(1));
        left > 0
    }

    /// Returns how many times bytes were copied out because half of the buffers were lent.
    pub(crate) fn copied(&self) -> u64 {
        self.copied.get()
    }

    /// Takes over the `length` bytes that the kernel put into buffer `id`.
    ///
    /// `goes_on` says that the kernel will fill the same buffer further.
    #[inline(always)]
    pub(crate) fn take(self: &Rc<Self>, id: u16, length: u32, goes_on: bool) -> Chunk {
        let before = self.provided.get();
        let begin = {
            let mut buffers = self.buffers.borrow_mut();
            let buffer = &mut buffers[id as usize];
            let begin = buffer.filled;
            buffer.filled += length;
            assert!(buffer.filled <= self.size, "the kernel fills a buffer once");
            buffer.chunks += 1;
            if !(goes_on && self.incremental.get()) {
                buffer.used_up = true;
                self.provided.set(before - 1);
            }
            begin
        };
        // Also one that the kernel goes on with is lent from here on: it will not come back before this part does.
        if before - 1 < self.count / 2 {
            return self.copy_out(id, begin, length);
        }
        self.lend(id, begin, length)
    }

    #[inline(always)]
    fn lend(self: &Rc<Self>, id: u16, begin: u32, length: u32) -> Chunk {
        Chunk(Bytes::Lent {
            id,
            begin,
            length,
            pool: Rc::clone(self),
        })
    }

    /// Copies what would be lent, and gives that back: the kernel has few buffers left.
    #[cold]
    fn copy_out(self: &Rc<Self>, id: u16, begin: u32, length: u32) -> Chunk {
        let lent = self.lend(id, begin, length);
        self.copied.set(self.copied.get() + 1);
        Chunk(Bytes::Owned {
            skipped: 0,
            bytes: (*lent).into(),
        })
    }

    /// Returns how many buffers the kernel has used up and chunks still hold.
    #[cfg(feature = "sim")]
    pub(crate) fn held(&self) -> u16 {
        let buffers = self.buffers.borrow();
        let held = |buffer: &&Buffer| buffer.used_up && buffer.chunks > 0;
        buffers.iter().filter(held).count() as u16
    }

    /// Notes who wants to be woken when a buffer comes back.
    pub(crate) fn wake_when_provided(&self, waker: &Waker) {
        let is_known = |known: &Waker| known.will_wake(waker);
        if !self.starved.borrow().iter().any(is_known) {
            let own = waker.clone();
            self.starved.borrow_mut().push(own);
        }
    }

    /// Ends one chunk of a buffer; gives the buffer back with its last.
    fn give_back(&self, id: u16) {
        let done = {
            let mut buffers = self.buffers.borrow_mut();
            let buffer = &mut buffers[id as usize];
            buffer.chunks -= 1;
            let done = buffer.used_up && buffer.chunks == 0;
            if done {
                *buffer = Buffer::default();
            }
            done
        };
        if done {
            self.provide(id);
        }
    }

    /// Returns whether somebody waits for a buffer, and one is there.
    #[inline]
    pub(crate) fn has_starved(&self) -> bool {
        self.provided.get() > 0 && !self.starved.borrow().is_empty()
    }

    /// Returns whom to wake because buffers came back. A chunk may be dropped while parts of the
    /// core are borrowed, so the core asks at a moment of its own choice.
    pub(crate) fn wakes(&self) -> Vec<Waker> {
        if self.provided.get() == 0 {
            Vec::new()
        } else {
            self.starved.take()
        }
    }

    /// Puts a buffer at the ring's tail.
    fn provide(&self, id: u16) {
        let tail = self.tail.get();
        let ring = self.memory.start.as_ptr().cast::<BufRingEntry>();
        let place = (tail & (self.count - 1)) as usize;
        let buffer = self.buffer_address(id) as u64;
        // SAFETY: the mapping starts with `count` entries, and `place` is below `count`.
        let entry = unsafe { ring.add(place) };
        // SAFETY: the entry lies in the mapping, and the kernel does not read it before the tail is
        // past it.
        let entry = unsafe { &mut *entry };
        entry.set_addr(buffer);
        entry.set_len(self.size);
        entry.set_bid(id);
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        self.provided.set(self.provided.get() + 1);
        // SAFETY: the pointer is to the first entry of the ring, which `new` has mapped.
        let shared_tail = unsafe { BufRingEntry::tail(ring) };
        // SAFETY: the kernel reads the tail while we write it, so both sides take it as an atomic;
        // it is aligned, being a field of an entry, and lives as long as the mapping.
        let shared_tail = unsafe { AtomicU16::from_ptr(shared_tail.cast_mut()) };
        // Release: pairs with the kernel's acquire of the tail, after which it reads the entry.
        shared_tail.store(tail, Ordering::Release);
    }

    fn buffer_address(&self, id: u16) -> *mut u8 {
        let offset = ring_bytes(self.count) + id as usize * self.size as usize;
        self.memory.start.as_ptr().wrapping_add(offset)
    }
}

/// The ring's entries take whole pages, and the buffers begin behind them.
fn ring_bytes(count: u16) -> usize {
    (count as usize * size_of::<BufRingEntry>()).next_multiple_of(4096)
}

/// Bytes that were received.
///
/// They lie in the core's provided buffers until the chunk is dropped (or in memory of their own,
/// when many buffers are lent already), so drop it, or copy out of it, before a long wait. Derefs
/// to `[u8]`, and can be written as it is:
///
/// ```no_run
/// # async fn echo(stream: quoit::op::Stream) -> std::io::Result<()> {
/// while let Some(chunk) = stream.receive().await? {
///     let (sent, _chunk) = stream.send_all(chunk).await;
///     sent?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Chunk(Bytes);

/// Where they lie. One enum and none within another, so that small fields lie beside the tag.
enum Bytes {
    /// In a buffer of the pool's, which is told when they are not needed any more.
    Lent {
        id: u16,
        begin: u32,
        length: u32,
        pool: Rc<BufferPool>,
    },
    /// In memory of their own.
    Owned { skipped: u32, bytes: Box<[u8]> },
}

/// Chunks lie in tasks that wait and in the slots of their ops, where each byte counts.
#[cfg(not(random_layout))]
const _: () = assert!(size_of::<Option<Chunk>>() <= 24);

impl Drop for Chunk {
    #[inline]
    fn drop(&mut self) {
        if let Bytes::Lent { id, pool, .. } = &self.0 {
            pool.give_back(*id);
        }
    }
}

impl Chunk {
    /// Forgets the first `count` bytes.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.len(),
            "cannot advance {count} in {} bytes",
            self.len()
        );
        let count = count as u32;
        match &mut self.0 {
            Bytes::Lent { begin, length, .. } => {
                *begin += count;
                *length -= count;
            }
            Bytes::Owned { skipped, .. } => *skipped += count,
        }
    }

    /// Returns whether the bytes still lie in a buffer of the ring.
    pub fn is_lent(&self) -> bool {
        matches!(self.0, Bytes::Lent { .. })
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Lent {
                id,
                begin,
                length,
                pool,
            } => {
                let start = pool.buffer_address(*id).wrapping_add(*begin as usize);
                // SAFETY: these bytes are a part of those that the kernel said it wrote to this buffer (`advance`
                // only makes the part smaller), and it does not write them again before the buffer is provided
                // anew, which waits for us (`Buffer::chunks`). The mapping lives as long as `pool`.
                unsafe { std::slice::from_raw_parts(start, *length as usize) }
            }
            Bytes::Owned { skipped, bytes } => &bytes[*skipped as usize..],
        }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("len", &self.len())
            .field("lent", &self.is_lent())
            .finish()
    }
}

// SAFETY: lent bytes lie in the mapping, owned ones on the heap: neither moves with the chunk, and
// nobody writes to them while it lives.
unsafe impl IoBuf for Chunk {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

/// Anonymous memory, aligned to pages.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        // SAFETY: asks for new memory anywhere; nothing that exists is touched.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at null");
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no chunk and no ring refers to it any more: they own
        // the pool that owns it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(incremental: bool) -> Rc<BufferPool> {
        let pool = BufferPool::new(4, 4096).expect("memory");
        pool.set_incremental(incremental);
        pool
    }

    #[test]
    fn a_buffer_comes_back_with_its_last_chunk() {
        let pool = pool(true);
        let first = pool.take(0, 100, true);
        let second = pool.take(0, 3996, false);
        assert_eq!((first.len(), second.len()), (100, 3996));
        assert_eq!(pool.provided(), 3);
        drop(second);
        assert_eq!(pool.provided(), 3);
        drop(first);
        assert_eq!(pool.provided(), 4);
    }

    #[test]
    fn a_buffer_the_kernel_still_fills_is_not_given_back() {
        let pool = pool(true);
        drop(pool.take(0, 100, true));
        assert_eq!(pool.provided(), 4);
        assert_eq!(pool.buffers.borrow()[0].filled, 100);
    }

    #[test]
    fn past_half_of_the_buffers_bytes_are_copied_out() {
        let pool = pool(false);
        let kept: Vec<Chunk> = (0..4).map(|id| pool.take(id, 10, false)).collect();
        let lent: Vec<bool> = kept.iter().map(Chunk::is_lent).collect();
        assert_eq!(lent, [true, true, false, false]);
        assert_eq!(pool.provided(), 2);
        assert_eq!(pool.copied(), 2);
        drop(kept);
        assert_eq!(pool.provided(), 4);
    }

    #[test]
    fn a_part_of_a_buffer_counts_as_one_that_is_lent() {
        let pool = pool(true);
        let mut kept: Vec<Chunk> = (0..2).map(|id| pool.take(id, 4096, false)).collect();
        kept.extend([pool.take(2, 10, true), pool.take(2, 4086, false)]);
        let lent: Vec<bool> = kept.iter().map(Chunk::is_lent).collect();
        assert_eq!(lent, [true, true, false, false]);
        assert_eq!((pool.provided(), pool.copied()), (2, 2));
        drop(kept);
        assert_eq!(pool.provided(), 4);
    }

    #[test]
    fn what_was_skipped_is_left_out_wherever_it_lies() {
        let pool = pool(false);
        let kept: Vec<Chunk> = (0..3).map(|id| pool.take(id, 10, false)).collect();
        for mut chunk in kept {
            let start = chunk.as_ptr();
            chunk.advance(3);
            chunk.advance(5);
            assert_eq!(chunk.len(), 2);
            assert_eq!(chunk.as_ptr(), start.wrapping_add(8));
            chunk.advance(2);
            assert!(chunk.is_empty());
        }
        assert_eq!((pool.provided(), pool.copied()), (4, 1));
    }

    #[test]
    fn chunks_outlive_their_pool() {
        let pool = pool(false);
        let chunk = pool.take(1, 5, false);
        drop(pool);
        assert_eq!(&chunk[..], [0; 5]);
    }
}
