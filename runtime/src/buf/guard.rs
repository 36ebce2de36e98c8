//! Buffers for hunting late writes: freed, their memory becomes unreadable.
//!
//! A kernel write into freed memory is seen by no sanitizer. A [`GuardBuf`] lies on a page of its
//! own; when it is dropped the page loses all access, so a kernel that still writes to it gets
//! `EFAULT`, which the op's completion reports (`CoreMetrics::orphan_faults`). For tests: feature
//! `guard`.
//!
//! Pages are kept for reuse, oldest first, so that a late write meets a closed page and not the
//! next buffer.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Mutex;

use super::{IoBuf, IoBufMut};

const PAGE: usize = 4096;

/// Pages stay closed until so many others were freed after them.
const REST: usize = 256;

struct Page(NonNull<u8>);

// SAFETY: a page is plain memory that has one owner at a time.
unsafe impl Send for Page {}

static CLOSED: Mutex<VecDeque<Page>> = Mutex::new(VecDeque::new());

/// A page of memory that nobody can touch once it is freed.
#[derive(Debug)]
pub struct GuardBuf {
    page: NonNull<u8>,
    capacity: usize,
    filled: usize,
}

impl GuardBuf {
    /// Makes a buffer of `capacity` bytes.
    ///
    /// # Panics
    ///
    /// If that is more than a page, or there is no memory.
    pub fn new(capacity: usize) -> Self {
        assert!(
            capacity <= PAGE,
            "a guarded buffer has at most {PAGE} bytes"
        );
        let rested = {
            let mut closed = CLOSED.lock().expect("nothing panics under this lock");
            if closed.len() > REST {
                closed.pop_front()
            } else {
                None
            }
        };
        let page = rested.map_or_else(map_page, |page| page.0);
        set_access(page, libc::PROT_READ | libc::PROT_WRITE);
        Self {
            page,
            capacity,
            filled: 0,
        }
    }

    /// Returns the bytes that were filled.
    pub fn bytes(&self) -> &[u8] {
        super::bytes(self)
    }
}

impl Drop for GuardBuf {
    fn drop(&mut self) {
        set_access(self.page, libc::PROT_NONE);
        CLOSED
            .lock()
            .expect("nothing panics under this lock")
            .push_back(Page(self.page));
    }
}

// SAFETY: the page stays where it is, and is the buffer's alone until it is dropped.
unsafe impl IoBuf for GuardBuf {
    fn as_ptr(&self) -> *const u8 {
        self.page.as_ptr()
    }

    fn len(&self) -> usize {
        self.filled
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for GuardBuf {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.page.as_ptr()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    unsafe fn set_filled(&mut self, filled: usize) {
        self.filled = filled;
    }
}

fn map_page() -> NonNull<u8> {
    // SAFETY: asks for new memory anywhere; nothing that exists is touched.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert!(start != libc::MAP_FAILED, "no memory for a guarded buffer");
    NonNull::new(start.cast()).expect("the kernel maps nothing at null")
}

fn set_access(page: NonNull<u8>, access: i32) {
    // SAFETY: the page was mapped by `map_page` and is never unmapped.
    let result = unsafe { libc::mprotect(page.as_ptr().cast(), PAGE, access) };
    assert!(
        result == 0,
        "the access of a page of our own can be changed"
    );
}
