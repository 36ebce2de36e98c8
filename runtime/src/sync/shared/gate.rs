//! Lets calls pass without a lock while nobody waits; tells those on their way through that somebody does.
//!
//! ```text
//!   a call                                   whoever holds the lock
//!   is it shut? ──► to the lock              shut it
//!   enter: count itself in                   look at what lies open; stand in line
//!   change what lies open                        ⋮
//!   leave: count itself out                  open it again
//!      └─ shut meanwhile? ──► to the lock, to hand on what is free
//! ```
//!
//! One word has the count and whether it is shut, so of a call that leaves and of somebody who shuts the gate one
//! comes first: either the call is told, or the other sees all that it did. None of them waits for the other.
//!
//! Invariants:
//! - It is shut and opened under the lock alone.
//! - Who entered, or tried to, leaves; and goes to the lock if it was shut by then.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// A gate, alone on its cache lines: in the best case one core uses it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Gate(AtomicU64);

const SHUT: u64 = 1;
const ONE: u64 = 2;

impl Gate {
    pub(super) fn new(is_open: bool) -> Self {
        Self(AtomicU64::new(if is_open { 0 } else { SHUT }))
    }

    /// Returns whether the caller may pass. It leaves then; otherwise it goes to the lock.
    #[inline]
    pub(super) fn enter(&self) -> bool {
        if self.0.load(Ordering::Relaxed) & SHUT != 0 {
            return false;
        }
        // Acquire: pairs with the Release in `open`.
        if self.0.fetch_add(ONE, Ordering::Acquire) & SHUT == 0 {
            return true;
        }
        self.leave();
        false
    }

    /// Returns whether it was shut meanwhile: then the caller goes to the lock.
    #[inline]
    pub(super) fn leave(&self) -> bool {
        // Release: pairs with the Acquire in `shut` and `is_empty`.
        self.0.fetch_sub(ONE, Ordering::Release) & SHUT != 0
    }

    /// Lets nobody enter. Those who are on their way come to the lock when they leave.
    pub(super) fn shut(&self) {
        // Acquire: pairs with the Release in `leave`.
        self.0.fetch_or(SHUT, Ordering::AcqRel);
    }

    pub(super) fn open(&self) {
        self.0.fetch_and(!SHUT, Ordering::AcqRel);
    }

    /// Returns whether nobody is on his way through. While it is shut, that stays so.
    pub(super) fn is_empty(&self) -> bool {
        // Acquire: pairs with the Release in `leave`.
        self.0.load(Ordering::Acquire) < ONE
    }
}
