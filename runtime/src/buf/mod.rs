//! Memory the kernel may write to.
//!
//! An op takes its buffer by value and gives it back with its answer, in every case: success,
//! failure and cancellation. In between the buffer lies in the op's slot, which never moves, so
//! even an array is a good buffer.
//!
//! In reading order: the traits here, [`Slice`] for a part of a buffer, [`Chunk`] for buffers
//! the kernel picks from.

#![expect(unsafe_code, reason = "one of the four folders that may")]

#[cfg(feature = "sim")]
pub(crate) mod door;
#[cfg(feature = "guard")]
pub mod guard;
pub(crate) mod provided;
mod slice;

use std::error::Error;
use std::fmt;
use std::io;

pub use provided::Chunk;
pub use slice::{Slice, SliceExt};

/// The answer of an op that borrowed a buffer: the outcome, and the buffer back in every case.
pub type BufResult<T, B> = (io::Result<T>, B);

/// An error after some bytes had gone out or come in: how many, and why no more.
#[derive(Debug)]
pub struct Interrupted {
    /// How many bytes were transferred.
    pub transferred: usize,
    /// What ended it.
    pub cause: io::Error,
}

impl Interrupted {
    /// Wraps `cause`, if anything was transferred before it.
    pub(crate) fn after(transferred: usize, cause: io::Error) -> io::Error {
        if transferred == 0 {
            return cause;
        }
        io::Error::new(cause.kind(), Self { transferred, cause })
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} bytes: {}", self.transferred, self.cause)
    }
}

impl Error for Interrupted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// A buffer the kernel reads from.
///
/// # Safety
///
/// While the value is neither moved nor touched, `as_ptr()` stays the same and points to `len()`
/// initialised bytes that nobody writes to.
pub unsafe trait IoBuf: 'static {
    /// Returns where the bytes start.
    fn as_ptr(&self) -> *const u8;

    /// Returns how many bytes there are.
    fn len(&self) -> usize;

    /// Returns whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A buffer the kernel writes to, from its start.
///
/// # Safety
///
/// While the value is neither moved nor touched, `as_mut_ptr()` stays the same and points to
/// `capacity()` bytes that nobody else reads or writes.
pub unsafe trait IoBufMut: IoBuf {
    /// Returns where the bytes start.
    fn as_mut_ptr(&mut self) -> *mut u8;

    /// Returns how many bytes may be written.
    fn capacity(&self) -> usize;

    /// Notes that the first `filled` bytes were written.
    ///
    /// # Safety
    ///
    /// They were, and `filled` is at most `capacity()`.
    unsafe fn set_filled(&mut self, filled: usize);
}

// SAFETY: a vector's elements stay where they are while it is not touched.
unsafe impl IoBuf for Vec<u8> {
    fn as_ptr(&self) -> *const u8 {
        Self::as_ptr(self)
    }

    fn len(&self) -> usize {
        Self::len(self)
    }
}

// SAFETY: as above; the spare capacity belongs to the vector alone.
unsafe impl IoBufMut for Vec<u8> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        Self::as_mut_ptr(self)
    }

    fn capacity(&self) -> usize {
        Self::capacity(self)
    }

    unsafe fn set_filled(&mut self, filled: usize) {
        // SAFETY: the caller says that so many bytes were written and fit.
        unsafe { self.set_len(filled) };
    }
}

// SAFETY: the bytes of a box stay where they are.
unsafe impl IoBuf for Box<[u8]> {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Box<[u8]> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        (**self).as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        (**self).len()
    }

    unsafe fn set_filled(&mut self, _: usize) {}
}

// SAFETY: an array's bytes stay where they are while it is not moved.
unsafe impl<const N: usize> IoBuf for [u8; N] {
    fn as_ptr(&self) -> *const u8 {
        self.as_slice().as_ptr()
    }

    fn len(&self) -> usize {
        N
    }
}

// SAFETY: as above.
unsafe impl<const N: usize> IoBufMut for [u8; N] {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_slice().as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        N
    }

    unsafe fn set_filled(&mut self, _: usize) {}
}

// SAFETY: static bytes stay where they are and never change.
unsafe impl IoBuf for &'static [u8] {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

// SAFETY: static bytes stay where they are and never change.
unsafe impl IoBuf for &'static str {
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    fn len(&self) -> usize {
        (**self).len()
    }
}

// SAFETY: a string's bytes stay where they are while it is not touched.
unsafe impl IoBuf for String {
    fn as_ptr(&self) -> *const u8 {
        self.as_str().as_ptr()
    }

    fn len(&self) -> usize {
        Self::len(self)
    }
}

/// Copies bytes into a buffer from its start; returns how many fit.
pub(crate) fn fill<B: IoBufMut>(buf: &mut B, bytes: &[u8]) -> usize {
    let count = bytes.len().min(buf.capacity());
    // SAFETY: `bytes` is readable for `count`, the buffer is writable for its capacity, and the two
    // cannot overlap: the buffer is ours alone (`IoBufMut`).
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buf.as_mut_ptr(), count) };
    // SAFETY: these bytes were written just above.
    unsafe { buf.set_filled(count) };
    count
}

/// Views a buffer's bytes.
#[cfg(any(test, feature = "guard"))]
pub(crate) fn bytes<B: IoBuf>(buf: &B) -> &[u8] {
    // SAFETY: `IoBuf` promises so many initialised bytes, and the borrow keeps them untouched.
    unsafe { std::slice::from_raw_parts(buf.as_ptr(), buf.len()) }
}
