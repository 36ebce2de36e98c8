//! The latest value: a receiver sees that it has changed, and not how often.
//!
//! Each value has a number, and a receiver carries the number of the one it has seen, so a wait that
//! is cancelled or dropped loses nothing. Values are shared, not lent: who looks at one holds nobody
//! up who sends the next.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::wait_list::{Place, WaitList};
use crate::scope::Cancelled;

/// Makes a value that changes, and a first receiver, which has seen it as it is.
///
/// ```
/// use quoit::sync::watch;
///
/// quoit::block_on(async {
///     let (level, mut watcher) = watch::channel(0);
///     level.send(1);
///     level.send(2);
///     assert_eq!(watcher.changed().await?.as_deref(), Some(&2));
///     drop(level);
///     assert_eq!(watcher.changed().await?, None);
///     assert_eq!(*watcher.latest(), 2);
///     Ok::<_, quoit::Cancelled>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
pub fn channel<T>(first: T) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared {
        value: RefCell::new(Rc::new(first)),
        number: Cell::new(0),
        senders: Cell::new(1),
        waiting: WaitList::default(),
    });
    let receiver = Receiver {
        shared: Rc::clone(&shared),
        seen: Cell::new(0),
    };
    (Sender { shared }, receiver)
}

struct Shared<T> {
    value: RefCell<Rc<T>>,
    number: Cell<u64>,
    senders: Cell<usize>,
    waiting: WaitList,
}

impl<T> Shared<T> {
    fn latest(&self) -> Rc<T> {
        Rc::clone(&self.value.borrow())
    }
}

/// The side that changes the value. Clone it for more; with the last of them the value is final.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Puts another value in the place of the one before; returns that. It does not wait, so it takes
    /// no notice of a cancel.
    pub fn send(&self, value: T) -> Rc<T> {
        let before = self.shared.value.replace(Rc::new(value));
        self.shared.number.update(|number| number + 1);
        self.shared.waiting.wake_all();
        before
    }

    /// Returns the latest value.
    pub fn latest(&self) -> Rc<T> {
        self.shared.latest()
    }

    /// Makes a receiver that has seen the value as it is.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver {
            seen: self.shared.number.clone(),
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.update(|count| count + 1);
        Self {
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.senders.update(|count| count - 1);
        if self.shared.senders.get() == 0 {
            self.shared.waiting.wake_all();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.latest()).finish()
    }
}

/// The side that sees the value. Clone it for more, which have seen what this one has seen.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    /// The number of the value that it has seen.
    seen: Cell<u64>,
}

impl<T> Receiver<T> {
    /// Waits until the value is another than this receiver has seen, and returns the latest. `None`:
    /// the last sender is gone, and this receiver has seen the final value.
    ///
    /// Cancelled, or dropped before it ended, it has seen nothing: the next call does.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled first.
    pub async fn changed(&mut self) -> Result<Option<Rc<T>>, Cancelled> {
        Wait {
            receiver: self,
            place: Place::default(),
        }
        .await?;
        let number = self.shared.number.get();
        let changed = self.seen.replace(number) != number;
        Ok(changed.then(|| self.shared.latest()))
    }

    /// Returns the latest value. Whether it was seen stays as it is.
    pub fn latest(&self) -> Rc<T> {
        self.shared.latest()
    }

    /// Returns whether [`Receiver::changed`] would return a value at once.
    pub fn has_changed(&self) -> bool {
        self.seen.get() != self.shared.number.get()
    }

    /// Returns whether the last sender is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.senders.get() == 0
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Rc::clone(&self.shared),
            seen: self.seen.clone(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.latest()).finish()
    }
}

struct Wait<'a, T> {
    receiver: &'a Receiver<T>,
    place: Place,
}

impl<T> Future for Wait<'_, T> {
    type Output = Result<(), Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let is_there = || this.receiver.has_changed() || this.receiver.is_closed();
        let waiting = &this.receiver.shared.waiting;
        waiting.poll(&mut this.place, cx, is_there)
    }
}

impl<T> Drop for Wait<'_, T> {
    fn drop(&mut self) {
        self.receiver.shared.waiting.leave(&mut self.place);
    }
}
