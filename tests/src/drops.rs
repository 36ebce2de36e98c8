//! Destructors that count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many values were made, and how many of them were dropped.
#[derive(Debug, Clone, Default)]
pub struct Drops {
    made: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

/// A value whose drop is counted.
#[derive(Debug)]
pub struct Counted(Drops);

impl Drops {
    /// Starts from zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a value that is counted when it is dropped.
    pub fn value(&self) -> Counted {
        self.made.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }

    /// Returns how many values were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    /// Returns how many values live.
    pub fn alive(&self) -> u64 {
        self.made.load(Ordering::Relaxed) - self.dropped()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `Drops::dropped`.
        self.0.dropped.fetch_add(1, Ordering::Release);
    }
}
