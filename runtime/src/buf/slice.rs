//! Part of an owned buffer.

use std::ops::{Bound, RangeBounds};

use super::{IoBuf, IoBufMut};

/// Part of a buffer, which it owns: for writing the rest, or reading behind what is there.
///
/// ```
/// use quoit::buf::{IoBuf, SliceExt};
///
/// let rest = vec![1, 2, 3, 4].slice(1..3);
/// assert_eq!(rest.len(), 2);
/// assert_eq!(rest.into_inner(), [1, 2, 3, 4]);
/// ```
#[derive(Debug)]
pub struct Slice<B> {
    buf: B,
    begin: usize,
    end: usize,
}

impl<B> Slice<B> {
    /// Returns the whole buffer.
    pub fn into_inner(self) -> B {
        self.buf
    }

    /// Returns where in the buffer this part begins.
    pub fn begin(&self) -> usize {
        self.begin
    }
}

/// Cutting parts out of buffers.
pub trait SliceExt: IoBuf + Sized {
    /// Takes the part of the buffer within `range`; without an end, all the rest.
    ///
    /// # Panics
    ///
    /// If the range begins past the bytes that are there, or ends before it begins.
    fn slice(self, range: impl RangeBounds<usize>) -> Slice<Self> {
        let begin = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&at) => at.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&at) => at.saturating_add(1),
            Bound::Excluded(&at) => at,
            Bound::Unbounded => usize::MAX,
        };
        assert!(
            begin <= end,
            "a slice that ends at {end} cannot begin at {begin}"
        );
        assert!(
            begin <= self.len(),
            "a slice cannot begin at {begin} of {} bytes",
            self.len()
        );
        Slice {
            buf: self,
            begin,
            end,
        }
    }
}

impl<B: IoBuf> SliceExt for B {}

// SAFETY: part of what `B` promises: `begin` lies within its bytes, and `len` ends with them.
unsafe impl<B: IoBuf> IoBuf for Slice<B> {
    fn as_ptr(&self) -> *const u8 {
        self.buf.as_ptr().wrapping_add(self.begin)
    }

    fn len(&self) -> usize {
        self.buf.len().min(self.end).saturating_sub(self.begin)
    }
}

// SAFETY: part of what `B` promises: `begin` lies within its capacity, and `capacity` ends with it.
unsafe impl<B: IoBufMut> IoBufMut for Slice<B> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.buf.as_mut_ptr().wrapping_add(self.begin)
    }

    fn capacity(&self) -> usize {
        self.buf.capacity().min(self.end).saturating_sub(self.begin)
    }

    unsafe fn set_filled(&mut self, filled: usize) {
        // What lies behind stays: filling less than was there does not cut the buffer short.
        let filled = (self.begin + filled).max(self.buf.len());
        // SAFETY: the bytes before `begin` were there, the caller vouches for those after, and
        // what lay behind was initialised before.
        unsafe { self.buf.set_filled(filled) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::{bytes, fill};

    #[test]
    fn filling_behind_appends() {
        let mut tail = {
            let mut vec = Vec::with_capacity(8);
            vec.extend_from_slice(b"ab");
            vec.slice(2..)
        };
        assert_eq!(fill(&mut tail, b"cdefghijk"), tail.buf.capacity() - 2);
        assert!(tail.into_inner().starts_with(b"abcdefgh"));
    }

    #[test]
    fn filling_a_middle_leaves_what_lies_behind() {
        let mut middle = vec![b'x'; 6].slice(1..3);
        assert_eq!(fill(&mut middle, b"abcdef"), 2);
        assert_eq!(middle.into_inner(), b"xabxxx");
    }

    #[test]
    fn a_range_past_the_end_ends_with_the_bytes() {
        assert_eq!(bytes(&vec![1, 2, 3].slice(1..100)), [2, 3]);
        assert_eq!(bytes(&vec![1, 2, 3].slice(1..=usize::MAX)), [2, 3]);
        assert_eq!(bytes(&vec![1, 2, 3].slice(3..)), []);
    }
}
