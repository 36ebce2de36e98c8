//! `Mutex`: one at a time, also across an await.
//!
//! The turn is the one permit of a [`Semaphore`], so it is handed on as permits are; the value lies
//! in a cell that only the holder of the turn looks into.

use std::cell::{Cell, RefCell, RefMut};
use std::error::Error;
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::WouldBlock;
use super::semaphore::{Permit, Semaphore};
use crate::scope::{Cancelled, Scope};

/// A value that one task of a core uses at a time, also across an `await`.
///
/// First come, first served: a lock that is released belongs to the first who waits from that moment,
/// and nobody overtakes.
///
/// Where nothing is awaited while the value is in use, a `RefCell` does.
///
/// ```
/// use quoit::sync::Mutex;
///
/// quoit::block_on(async {
///     let journal = Mutex::new(Vec::new());
///     let mut lines = journal.lock().await?;
///     lines.push("begin");
///     quoit::yield_now().await?;
///     lines.push("end");
///     drop(lines);
///     assert_eq!(journal.into_inner(), ["begin", "end"]);
///     Ok::<_, quoit::Cancelled>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
///
/// # Cancelled in the middle
///
/// A guard is dropped when a [`Cancelled`] travels through: the lock is released, and the value is
/// left as it is. Where that may be half-way between two states, say what shall happen instead:
///
/// - [`Mutex::protect`] runs a section to its end, whatever is cancelled meanwhile.
/// - [`MutexGuard::section`] marks the value as poisoned if the section is not finished.
pub struct Mutex<T: ?Sized> {
    turn: Semaphore,
    poisoned: Cell<bool>,
    value: RefCell<T>,
}

impl<T> Mutex<T> {
    /// Makes a mutex around `value`.
    pub fn new(value: T) -> Self {
        Self {
            turn: Semaphore::new(1),
            poisoned: Cell::new(false),
            value: RefCell::new(value),
        }
    }

    /// Gives the value back.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    ///
    /// A task that has the lock and asks for it waits for itself.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled first; then the lock was not taken.
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

    /// Waits for the lock and runs `section` with it, under a shield: a cancel that comes while it
    /// runs is seen by the first op after it.
    ///
    /// ```
    /// use quoit::sync::Mutex;
    ///
    /// # async fn write(_: &str) -> Result<(), quoit::Cancelled> { quoit::yield_now().await }
    /// # async fn record(journal: &Mutex<u64>) -> Result<(), quoit::Cancelled> {
    /// journal
    ///     .protect(async |lines| {
    ///         write("begin").await?;
    ///         write("end").await?;
    ///         *lines += 2;
    ///         Ok(())
    ///     })
    ///     .await?
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled before the lock was had; then the section was
    /// not entered.
    pub async fn protect<R>(&self, section: impl AsyncFnOnce(&mut T) -> R) -> Result<R, Cancelled> {
        let mut guard = self.lock().await?;
        let body = async { Ok::<R, Cancelled>(section(&mut guard).await) };
        match Scope::new().shielded().run(body).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => unreachable!("this body ends with a value"),
            // Polled by another task than before.
            Err(misuse) => Err(misuse),
        }
    }

    /// Takes the lock though the scope is cancelled.
    pub(super) async fn lock_in_any_case(&self) -> MutexGuard<'_, T> {
        let turn = self.turn.acquire_in_any_case().await;
        self.guard(turn)
    }

    /// Returns the value: nobody else can have it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Returns whether somebody has the lock, or was handed it.
    pub fn is_locked(&self) -> bool {
        self.turn.held() > 0
    }

    /// Returns how many stand in line for it.
    pub fn waiting(&self) -> usize {
        self.turn.waiting()
    }

    /// Returns whether a [`Section`] was left before it was finished.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.get()
    }

    /// Says that the value is in order again.
    pub fn clear_poison(&self) {
        self.poisoned.set(false);
    }

    fn guard<'a>(&'a self, turn: Permit<'a>) -> MutexGuard<'a, T> {
        MutexGuard {
            value: self.value.borrow_mut(),
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
        shown
            .field("waiting", &self.waiting())
            .field("poisoned", &self.is_poisoned())
            .finish()
    }
}

/// The lock of a [`Mutex`]. Dropped, it goes to the first who waits.
#[must_use = "a guard that is dropped releases the lock"]
pub struct MutexGuard<'a, T: ?Sized> {
    // The value is let go of before the turn is handed on.
    value: RefMut<'a, T>,
    mutex: &'a Mutex<T>,
    _turn: Permit<'a>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Begins a section that must not be left half-way: if it is dropped before
    /// [`Section::finish`], by a `?`, a panic or a future that is dropped, the mutex is poisoned.
    ///
    /// Poison concerns sections alone: the next is refused until [`Mutex::clear_poison`]. A lock is
    /// given in any case, also to whoever sets the value right.
    ///
    /// ```
    /// use quoit::sync::Mutex;
    ///
    /// # async fn read() -> Result<u64, quoit::Cancelled> { quoit::yield_now().await?; Ok(1) }
    /// # async fn refill(pair: &Mutex<(u64, u64)>) -> std::io::Result<()> {
    /// let mut section = pair.lock().await?.section()?;
    /// section.0 = read().await?;
    /// section.1 = read().await?;
    /// section.finish();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Poisoned`] with the guard, if an earlier section was not finished.
    pub fn section(self) -> Result<Section<'a, T>, Poisoned<Self>> {
        if self.mutex.is_poisoned() {
            return Err(Poisoned { guard: self });
        }
        Ok(Section { guard: Some(self) })
    }

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

/// The lock of a [`Mutex`] whose value is between two states. Dropped before
/// [`Section::finish`] or [`Section::into_guard`], it poisons the mutex and releases the lock.
#[must_use = "a section that is dropped poisons its mutex"]
pub struct Section<'a, T: ?Sized> {
    guard: Option<MutexGuard<'a, T>>,
}

impl<'a, T: ?Sized> Section<'a, T> {
    /// Says that the value is in order, and releases the lock.
    pub fn finish(self) {
        drop(self.into_guard());
    }

    /// Says that the value is in order, and keeps the lock.
    pub fn into_guard(mut self) -> MutexGuard<'a, T> {
        self.guard
            .take()
            .expect("a section has its guard until it ends")
    }
}

impl<T: ?Sized> Deref for Section<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard
            .as_ref()
            .expect("a section has its guard until it ends")
    }
}

impl<T: ?Sized> DerefMut for Section<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard
            .as_mut()
            .expect("a section has its guard until it ends")
    }
}

impl<T: ?Sized> Drop for Section<'_, T> {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.mutex.poisoned.set(true);
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Section<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// An earlier section was left before it was finished, so the value may be half-way between two
/// states.
pub struct Poisoned<G> {
    guard: G,
}

impl<G> Poisoned<G> {
    /// Returns the guard: to set the value right, and to say so with [`Mutex::clear_poison`].
    pub fn into_guard(self) -> G {
        self.guard
    }
}

impl<G> fmt::Debug for Poisoned<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poisoned")
    }
}

impl<G> fmt::Display for Poisoned<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a section with this lock was not finished")
    }
}

impl<G> Error for Poisoned<G> {}

impl<G> From<Poisoned<G>> for std::io::Error {
    fn from(poisoned: Poisoned<G>) -> Self {
        Self::other(poisoned.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::{Rc, Weak};

    use super::*;

    #[test]
    fn off_a_core_a_free_lock_can_be_had() {
        let mut mutex = Mutex::new([1, 2]);
        let mut guard = mutex.try_lock().expect("free");
        guard[0] = 7;
        assert!(mutex.try_lock().is_err() && mutex.is_locked());
        drop(guard);
        mutex.get_mut()[1] = 8;
        assert_eq!(*mutex.try_lock().expect("free"), [7, 8]);
    }

    #[test]
    fn a_section_that_is_finished_leaves_no_poison() {
        let mutex = Mutex::new(0);
        let section = mutex.try_lock().expect("free").section();
        section.expect("in order").finish();
        assert!(!mutex.is_poisoned());
        drop(mutex.try_lock().expect("free").section());
        assert!(mutex.is_poisoned() && !mutex.is_locked());
        let refused = mutex.try_lock().expect("free").section();
        assert!(
            std::io::Error::from(refused.expect_err("poisoned"))
                .raw_os_error()
                .is_none()
        );
        assert!(!mutex.is_locked());
    }

    /// A value that asks for its own lock while it is shown.
    struct Asks(Weak<Mutex<Self>>);

    impl fmt::Debug for Asks {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mutex = self.0.upgrade().expect("it is being shown");
            write!(f, "free: {}", mutex.try_lock().is_ok())
        }
    }

    #[test]
    fn a_mutex_is_locked_while_its_value_is_shown() {
        let mutex = Rc::new_cyclic(|mutex| Mutex::new(Asks(Weak::clone(mutex))));
        let shown = format!("{mutex:?}");
        assert!(shown.contains("value: free: false"), "{shown}");
        let guard = mutex.try_lock().expect("free again");
        let shown = format!("{mutex:?}");
        assert!(shown.contains("value: <locked>"), "{shown}");
        drop(guard);
    }
}
