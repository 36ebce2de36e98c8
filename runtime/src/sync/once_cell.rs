//! `OnceCell`: a value that the first who asks for it makes, while the others wait.
//!
//! ```text
//!            get_or_init             made
//!   (empty) ────────────► (making) ────────► (set): everybody who waits is told
//!      ▲                    │    ▲
//!      │  nobody waits      │    │ handed to the first who waits
//!      └────────────────────┴────┘
//!              not made: cancelled, failed, panicked or dropped
//! ```

use std::cell::{self, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use super::wait_list::{self, Heeds, Line, Place, Standing};
use crate::scope::Cancelled;
use crate::scope::park::Look;

/// A value that is made once, by the first task that asks for it.
///
/// Who asks while it is being made waits. If the making ends without a value, because its task was
/// cancelled, failed or panicked, the first who waits makes it with his own function; nothing is
/// poisoned.
///
/// ```
/// use quoit::sync::OnceCell;
///
/// quoit::block_on(async {
///     let address = OnceCell::new();
///     let first = address.get_or_init(async || 7).await?;
///     let again = address.get_or_init(async || unreachable!("it is there")).await?;
///     assert_eq!((*first, *again), (7, 7));
///     Ok::<_, quoit::Cancelled>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
pub struct OnceCell<T> {
    value: cell::OnceCell<T>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody makes the value, or was told to.
    making: bool,
    waiting: Line<()>,
}

impl<T> OnceCell<T> {
    /// Makes an empty cell.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the value, if it was made.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Sets the value.
    ///
    /// # Errors
    ///
    /// The value, if there is one already or one is being made.
    pub fn set(&self, value: T) -> Result<(), T> {
        if self.state.borrow().making {
            return Err(value);
        }
        self.value.set(value)
    }

    /// Returns the value; makes it, if nobody has, or waits until it was made.
    ///
    /// `init` runs in the caller's scopes: cancelled in an op of its own, it ends as it likes. A
    /// function that asks for its own cell waits for itself.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around was cancelled before the call, or while it waited.
    pub async fn get_or_init(&self, init: impl AsyncFnOnce() -> T) -> Result<&T, Cancelled> {
        self.get_or_try_init(async || Ok(init().await)).await
    }

    /// Returns the value; makes it, if nobody has, or waits until it was made.
    ///
    /// # Errors
    ///
    /// What `init` failed with; then the cell is as before, and the next makes the value. And
    /// [`Cancelled`], if a scope around was cancelled before the call, or while it waited.
    pub async fn get_or_try_init<E: From<Cancelled>>(
        &self,
        init: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        let turn = Ask {
            cell: self,
            place: Place::default(),
        };
        match turn.await? {
            Answer::Value(value) => Ok(value),
            Answer::Turn(turn) => {
                let value = init().await?;
                if self.value.set(value).is_err() {
                    unreachable!("only who has the turn sets the value");
                }
                drop(turn);
                Ok(self.value.get().expect("it was set just above"))
            }
        }
    }

    /// Gives the value back, if it was made.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Ends a turn: everybody is told of the value, or one has the next turn.
    fn end_turn(&self) {
        wait_list::see_cancels();
        if self.value.get().is_some() {
            let chosen = {
                let mut state = self.state.borrow_mut();
                state.making = false;
                state.waiting.choose_all()
            };
            wait_list::wake_each(chosen);
        } else {
            let next = self.state.borrow_mut().pass_on();
            wait_list::wake_each(next);
        }
    }
}

impl State {
    fn pass_on(&mut self) -> Option<Waker> {
        let chosen = self.waiting.choose().map(|((), waker)| waker);
        self.making = chosen.is_some();
        chosen
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        Self {
            value: cell::OnceCell::new(),
            state: RefCell::default(),
        }
    }
}

impl<T> From<T> for OnceCell<T> {
    fn from(value: T) -> Self {
        Self {
            value: value.into(),
            state: RefCell::default(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnceCell").field(&self.get()).finish()
    }
}

/// What one who asks is told.
enum Answer<'a, T> {
    Value(&'a T),
    Turn(Turn<'a, T>),
}

/// The right to make the value. Dropped, it is the next one's, or the value is there.
struct Turn<'a, T>(&'a OnceCell<T>);

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.0.end_turn();
    }
}

struct Ask<'a, T> {
    cell: &'a OnceCell<T>,
    place: Place,
}

impl<'a, T> Future for Ask<'a, T> {
    type Output = Result<Answer<'a, T>, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let cell = this.cell;
        if !this.place.is_in_line() {
            ready!(this.place.entry(cx))?;
            let look = || match cell.value.get() {
                Some(value) => Some(Answer::Value(value)),
                None => {
                    let is_free = !std::mem::replace(&mut cell.state.borrow_mut().making, true);
                    is_free.then(|| Answer::Turn(Turn(cell)))
                }
            };
            if let Some(answer) = look() {
                return Poll::Ready(Ok(answer));
            }
            if let Some(answer) = ready!(this.place.register(Heeds::Cancels, cx, look))? {
                return Poll::Ready(Ok(answer));
            }
            cell.state.borrow_mut().waiting.push(&mut this.place, ());
            return Poll::Pending;
        }
        let outcome = match this.place.look(cx) {
            Look::Waiting => return Poll::Pending,
            Look::Ready => Ok(match cell.value.get() {
                Some(value) => Answer::Value(value),
                // `making` was left set for us.
                None => Answer::Turn(Turn(cell)),
            }),
            Look::Aborted(cancelled) => Err(cancelled),
        };
        cell.state.borrow_mut().waiting.remove(&mut this.place);
        this.place.end();
        Poll::Ready(outcome)
    }
}

impl<T> Drop for Ask<'_, T> {
    fn drop(&mut self) {
        let left = self.cell.state.borrow_mut().waiting.remove(&mut self.place);
        if let Some((Standing::Chosen, ())) = left
            && self.cell.value.get().is_none()
        {
            self.cell.end_turn();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_set_once() {
        let cell = OnceCell::new();
        assert_eq!(
            (cell.get(), cell.set(1), cell.set(2)),
            (None, Ok(()), Err(2))
        );
        assert_eq!(
            (cell.get(), OnceCell::from(3).into_inner()),
            (Some(&1), Some(3))
        );
    }
}
