//! A queue of items with room for so many, that needs no lock.
//!
//! What is put in is there for whoever hears of it. Who takes may have to wait, spinning, for another who is in the
//! middle of putting in.

#[cfg(not(loom))]
pub(super) use crossbeam_queue::ArrayQueue as Ring;
#[cfg(loom)]
pub(super) use model::Ring;

/// The least that the real one promises: a count that is exchanged, and puts nothing else in order.
#[cfg(loom)]
mod model {
    use std::collections::VecDeque;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use loom::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug)]
    pub(in super::super) struct Ring<T> {
        capacity: usize,
        count: AtomicUsize,
        /// Unknown to the model; changed with the count at one stroke, since threads of a model change over at its
        /// own atomics alone.
        items: Mutex<VecDeque<T>>,
    }

    impl<T> Ring<T> {
        pub(in super::super) fn new(capacity: usize) -> Self {
            Self {
                capacity,
                count: AtomicUsize::new(0),
                items: Mutex::default(),
            }
        }

        pub(in super::super) fn capacity(&self) -> usize {
            self.capacity
        }

        pub(in super::super) fn push(&self, item: T) -> Result<(), T> {
            let mut count = self.len();
            while count < self.capacity {
                match self.exchange(count, count + 1) {
                    Ok(()) => {
                        self.items().push_back(item);
                        return Ok(());
                    }
                    Err(now) => count = now,
                }
            }
            Err(item)
        }

        pub(in super::super) fn pop(&self) -> Option<T> {
            let mut count = self.len();
            while count > 0 {
                match self.exchange(count, count - 1) {
                    Ok(()) => return self.items().pop_front(),
                    Err(now) => count = now,
                }
            }
            None
        }

        pub(in super::super) fn len(&self) -> usize {
            self.count.load(Ordering::Relaxed)
        }

        fn exchange(&self, from: usize, to: usize) -> Result<(), usize> {
            self.count
                .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
                .map(drop)
        }

        fn items(&self) -> MutexGuard<'_, VecDeque<T>> {
            self.items.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
