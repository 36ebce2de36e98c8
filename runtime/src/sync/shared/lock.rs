//! A lock that is held for a few instructions.
//!
//! What runs under it is code of this folder alone: no waker is cloned, woken or dropped there, no
//! item is dropped, nobody waits. It may allocate.

#[cfg(loom)]
pub(super) use loom::sync::MutexGuard as Guard;
#[cfg(not(loom))]
pub(super) use std::sync::MutexGuard as Guard;

#[cfg(loom)]
use loom::sync::Mutex;
#[cfg(not(loom))]
use std::sync::Mutex;
use std::sync::{PoisonError, TryLockError};

/// A state that threads share.
#[derive(Debug)]
pub(super) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(super) fn new(state: T) -> Self {
        Self(Mutex::new(state))
    }

    /// A thread that panicked while it held this left nothing half done.
    pub(super) fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `lock`, unless somebody has it.
    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
