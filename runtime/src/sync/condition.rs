//! `Condition`: waits, with a lock let go, until somebody says that the value has changed.
//!
//! A wait has two parts. The first, in line for a notification, is ended by a cancel. The second
//! takes the lock back, and runs to its end whatever is cancelled: who waits for a condition has the
//! lock when the wait is over, however it ended.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future;
use std::io;
use std::task::{Context, Poll, Waker, ready};

use super::mutex::MutexGuard;
use super::wait_list::{self, Heeds, Line, Place};
use crate::scope::Cancelled;
use crate::scope::park::Look;

/// Lets tasks of a core wait until a value behind a [`Mutex`](super::Mutex) is as they want it.
///
/// The task that changes the value notifies, with or without the lock. First come, first notified. A
/// notification that nobody waits for is gone: look at the value before every wait, as
/// [`Condition::wait_while`] does.
///
/// ```
/// use std::rc::Rc;
/// use quoit::sync::{Condition, Mutex};
///
/// quoit::block_on(async {
///     let shared = Rc::new((Mutex::new(0), Condition::new()));
///     let waiter = quoit::spawn({
///         let shared = Rc::clone(&shared);
///         async move {
///             let (count, changed) = &*shared;
///             let count = changed.wait_while(count.lock().await?, |count| *count < 3).await?;
///             Ok::<_, quoit::Cancelled>(*count)
///         }
///     });
///     for _ in 0..3 {
///         *shared.0.lock().await? += 1;
///         shared.1.notify_one();
///         quoit::yield_now().await?;
///     }
///     assert_eq!(waiter.await.expect("the task ended"), Ok(3));
///     Ok::<_, quoit::Cancelled>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Default)]
pub struct Condition {
    waiting: RefCell<Line<Told>>,
}

/// What a waiter was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    /// The notification was for one: who does not make use of it passes it on.
    One,
    All,
}

impl Condition {
    /// Makes a condition that nobody waits for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Releases the lock, waits for a notification, and takes the lock again.
    ///
    /// Between the notification and the lock others may have changed the value: look at it again.
    ///
    /// A cancel ends the wait for a notification, not the one for the lock: who was notified first
    /// returns with the lock, though it takes long and the scope is cancelled meanwhile. Who was
    /// cancelled first takes the lock as well, and returns it with the error.
    ///
    /// # Errors
    ///
    /// [`WaitError`], with the lock, if a scope around is cancelled before the notification. If that
    /// was so before the wait began, the lock was not released in between.
    pub async fn wait<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
    ) -> Result<MutexGuard<'a, T>, WaitError<'a, T>> {
        let mutex = MutexGuard::mutex(&guard);
        let mut held = Some(guard);
        let mut notification = Notification {
            condition: self,
            place: Place::default(),
            told: Told::Nothing,
        };
        let outcome = future::poll_fn(|cx| notification.poll(&mut held, cx)).await;
        let guard = match held {
            Some(guard) => guard,
            None => mutex.lock_in_any_case().await,
        };
        notification.told = Told::Nothing;
        match outcome {
            Ok(()) => Ok(guard),
            Err(cancelled) => Err(WaitError { guard, cancelled }),
        }
    }

    /// Waits for as long as `holds` says that the value is not as it is wanted.
    ///
    /// # Errors
    ///
    /// [`WaitError`], with the lock, if a scope around is cancelled before. If the scope is cancelled
    /// already, that is so whatever the value is.
    pub async fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut holds: impl FnMut(&mut T) -> bool,
    ) -> Result<MutexGuard<'a, T>, WaitError<'a, T>> {
        if let Err(cancelled) = future::poll_fn(|cx| Place::default().entry(cx)).await {
            return Err(WaitError { guard, cancelled });
        }
        while holds(&mut guard) {
            guard = self.wait(guard).await?;
        }
        Ok(guard)
    }

    /// Notifies the first who waits, if somebody does.
    pub fn notify_one(&self) {
        wait_list::see_cancels();
        let chosen = self.waiting.borrow_mut().choose().map(|(told, waker)| {
            *told = Told::One;
            waker
        });
        wait_list::wake_each(chosen);
    }

    /// Notifies everybody who waits now. They get the lock one after the other.
    pub fn notify_all(&self) {
        wait_list::see_cancels();
        let mut chosen: Vec<Waker> = Vec::new();
        {
            let mut waiting = self.waiting.borrow_mut();
            while let Some((told, waker)) = waiting.choose() {
                *told = Told::All;
                chosen.push(waker);
            }
        }
        wait_list::wake_each(chosen);
    }

    /// Returns how many wait for a notification.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition")
            .field("waiting", &self.waiting())
            .finish()
    }
}

/// A wait in line for a notification, and the notification until it was made use of.
struct Notification<'a> {
    condition: &'a Condition,
    place: Place,
    told: Told,
}

impl Notification<'_> {
    fn poll<T: ?Sized>(
        &mut self,
        held: &mut Option<MutexGuard<'_, T>>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Cancelled>> {
        let waiting = &self.condition.waiting;
        if !self.place.is_in_line() {
            ready!(self.place.entry(cx))?;
            ready!(self.place.register(Heeds::Cancels, cx, || None::<()>))?;
            waiting.borrow_mut().push(&mut self.place, Told::Nothing);
            // In line first: whoever gets the lock now may notify at once.
            drop(held.take());
            return Poll::Pending;
        }
        let outcome = match self.place.look(cx) {
            Look::Waiting => return Poll::Pending,
            Look::Ready => Ok(()),
            Look::Aborted(cancelled) => Err(cancelled),
        };
        let left = waiting.borrow_mut().remove(&mut self.place);
        self.place.end();
        self.told = left.map_or(Told::Nothing, |(_, told)| told);
        Poll::Ready(outcome)
    }
}

impl Drop for Notification<'_> {
    fn drop(&mut self) {
        let left = self.condition.waiting.borrow_mut().remove(&mut self.place);
        let told = left.map_or(self.told, |(_, told)| told);
        if told == Told::One {
            self.condition.notify_one();
        }
    }
}

/// The wait for a [`Condition`] was cancelled; here is the lock.
pub struct WaitError<'a, T: ?Sized> {
    guard: MutexGuard<'a, T>,
    cancelled: Cancelled,
}

impl<'a, T: ?Sized> WaitError<'a, T> {
    /// Returns why.
    pub fn cancelled(&self) -> Cancelled {
        self.cancelled
    }

    /// Returns the lock.
    pub fn into_guard(self) -> MutexGuard<'a, T> {
        self.guard
    }
}

impl<T: ?Sized> fmt::Debug for WaitError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitError").field(&self.cancelled).finish()
    }
}

impl<T: ?Sized> fmt::Display for WaitError<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cancelled.fmt(f)
    }
}

impl<T: ?Sized> Error for WaitError<'_, T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cancelled)
    }
}

/// The lock is released.
impl<T: ?Sized> From<WaitError<'_, T>> for Cancelled {
    fn from(error: WaitError<'_, T>) -> Self {
        error.cancelled
    }
}

/// The lock is released.
impl<T: ?Sized> From<WaitError<'_, T>> for io::Error {
    fn from(error: WaitError<'_, T>) -> Self {
        error.cancelled.into()
    }
}
