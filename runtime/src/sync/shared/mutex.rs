//! `Mutex`: one at a time over all cores and threads, also across an await.
//!
//! The turn is the one permit of a [`Semaphore`]; the value lies in a lock of the standard library
//! that nobody but the holder of the turn touches, so it is always free.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{self, TryLockError};

use super::WouldBlock;
use super::semaphore::{Permit, Semaphore};
use crate::scope::Cancelled;

/// A value that one task or thread uses at a time, whichever core it is on, also across an `await`.
///
/// First come, first served: a lock that is released belongs to the first who waits from that moment,
/// and nobody overtakes.
///
/// Where nothing is awaited while the value is in use, `std::sync::Mutex` does.
///
/// ```
/// use std::sync::Arc;
/// use quoit::sync::shared::Mutex;
/// use quoit::{Cores, Runtime};
///
/// let journal = Arc::new(Mutex::new(Vec::new()));
/// let lines = Arc::clone(&journal);
/// Runtime::builder().cores(Cores::Count(1)).build()?.run(move |core| {
///     let lines = Arc::clone(&lines);
///     async move {
///         let mut lines = lines.lock().await?;
///         lines.push(format!("core {core} begins"));
///         quoit::yield_now().await?;
///         lines.push(format!("core {core} ends"));
///         Ok::<_, quoit::Cancelled>(())
///     }
/// })?;
/// assert_eq!(journal.lock_blocking().len(), 2);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// A guard is dropped when a [`Cancelled`] or a panic travels through: the lock is released, and the
/// value is left as it is. A section that must be run to its end is awaited in a
/// [shielded](crate::Scope::shielded) scope.
pub struct Mutex<T: ?Sized> {
    turn: Semaphore,
    value: sync::Mutex<T>,
}

impl<T> Mutex<T> {
    /// Makes a mutex around `value`.
    pub fn new(value: T) -> Self {
        Self {
            turn: Semaphore::new(1),
            value: sync::Mutex::new(value),
        }
    }

    /// Gives the value back.
    pub fn into_inner(self) -> T {
        let value = self.value.into_inner();
        value.unwrap_or_else(sync::PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    ///
    /// A task that has the lock and asks for it waits for itself.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled before the lock was handed over; then it was not
    /// taken. A lock that was handed over first is returned, and the next op fails.
    pub async fn lock(&self) -> Result<MutexGuard<'_, T>, Cancelled> {
        let turn = self.turn.acquire().await?;
        Ok(self.guard(turn))
    }

    /// Takes the lock if it is free.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`], if [`Mutex::lock`] would have to wait.
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, WouldBlock> {
        let turn = self.turn.try_acquire()?;
        Ok(self.guard(turn))
    }

    /// Blocks the calling thread until it has the lock. It stands in the same line as the tasks.
    ///
    /// # Panics
    ///
    /// On a core, which it would block.
    pub fn lock_blocking(&self) -> MutexGuard<'_, T> {
        let turn = self.turn.acquire_blocking();
        self.guard(turn)
    }

    /// Returns the value: nobody else can have it.
    pub fn get_mut(&mut self) -> &mut T {
        let value = self.value.get_mut();
        value.unwrap_or_else(sync::PoisonError::into_inner)
    }

    /// Returns whether somebody has the lock, or was handed it.
    pub fn is_locked(&self) -> bool {
        self.turn.available() == 0
    }

    /// Returns how many stand in line for it. It counts them.
    pub fn waiting(&self) -> usize {
        self.turn.waiting()
    }

    fn guard<'a>(&'a self, turn: Permit<'a>) -> MutexGuard<'a, T> {
        let value = match self.value.try_lock() {
            Ok(value) => value,
            // A guard was dropped by a panic, and released the lock like any other.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => unreachable!("whoever has the turn is alone"),
        };
        MutexGuard {
            value,
            mutex: self,
            _turn: turn,
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Mutex");
        // Under the lock: whoever comes meanwhile finds it taken.
        match self.try_lock() {
            Ok(value) => shown.field("value", &value),
            Err(WouldBlock) => shown.field("value", &format_args!("<locked>")),
        };
        shown.field("waiting", &self.waiting()).finish()
    }
}

/// The lock of a [`Mutex`]. Dropped, it goes to the first who waits, on whichever core.
///
/// It stays on its thread.
#[must_use = "a guard that is dropped releases the lock"]
pub struct MutexGuard<'a, T: ?Sized> {
    // The value is let go of before the turn is handed on.
    value: sync::MutexGuard<'a, T>,
    mutex: &'a Mutex<T>,
    _turn: Permit<'a>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Returns the mutex that this is the lock of.
    pub fn mutex(guard: &Self) -> &'a Mutex<T> {
        guard.mutex
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{Arc, Weak};

    use super::*;

    /// A value that asks for its own lock while it is shown, as another thread may.
    struct Asks(Weak<Mutex<Self>>);

    impl fmt::Debug for Asks {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mutex = self.0.upgrade().expect("it is being shown");
            write!(f, "free: {}", mutex.try_lock().is_ok())
        }
    }

    #[test]
    fn a_mutex_is_locked_while_its_value_is_shown() {
        let mutex = Arc::new_cyclic(|mutex| Mutex::new(Asks(Weak::clone(mutex))));
        let shown = format!("{mutex:?}");
        assert!(shown.contains("value: free: false"), "{shown}");
        let guard = mutex.try_lock().expect("free again");
        let shown = format!("{mutex:?}");
        assert!(shown.contains("value: <locked>"), "{shown}");
        drop(guard);
    }
}
