//! One value, from one task to another.
//!
//! The value lies in the state that both sides share until the receiver takes it, so a wait that is
//! cancelled or dropped loses nothing.

use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::TryRecvError;
use super::wait_list::{self, Heeds, Place, Seat};
use crate::scope::park::Look;
use crate::scope::{Cancelled, CarriesCancelled};

/// Makes the two sides of a channel for one value.
///
/// ```
/// use quoit::sync::oneshot;
///
/// quoit::block_on(async {
///     let (sender, mut receiver) = oneshot::channel();
///     drop(quoit::spawn(async move { sender.send(7) }));
///     assert_eq!(receiver.recv().await?, 7);
///     Ok::<_, oneshot::RecvError>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(RefCell::new(State {
        value: None,
        sender: true,
        receiver: true,
        receiving: None,
        closing: None,
    }));
    let sender = Sender {
        shared: Rc::clone(&shared),
    };
    (sender, Receiver { shared })
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    sender: bool,
    receiver: bool,
    /// Who waits for the value, or for the end of the sender.
    receiving: Option<Seat>,
    /// Who waits for the end of the receiver.
    closing: Option<Seat>,
}

impl<T> State<T> {
    fn is_over(&self, wait: For) -> bool {
        match wait {
            For::Value => self.value.is_some() || !self.sender,
            For::Close => !self.receiver,
        }
    }

    fn seat(&mut self, wait: For) -> &mut Option<Seat> {
        match wait {
            For::Value => &mut self.receiving,
            For::Close => &mut self.closing,
        }
    }
}

/// The side that sends. Dropped, it tells the receiver that nothing comes.
pub struct Sender<T> {
    shared: Rc<RefCell<State<T>>>,
}

impl<T> Sender<T> {
    /// Sends the value. It does not wait, so it takes no notice of a cancel.
    ///
    /// # Errors
    ///
    /// The value, if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut state = self.shared.borrow_mut();
        if !state.receiver {
            return Err(value);
        }
        state.value = Some(value);
        Ok(())
    }

    /// Returns whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        !self.shared.borrow().receiver
    }

    /// Waits until the receiver is gone, and nobody wants the value any more.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled first.
    pub fn closed(&mut self) -> impl Future<Output = Result<(), Cancelled>> {
        Wait::new(&self.shared, For::Close)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let receiving = {
            let mut state = self.shared.borrow_mut();
            state.sender = false;
            state.receiving.take()
        };
        wait_list::settle_one(receiving);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// The side that receives. Dropped, it drops a value that was sent and not received.
pub struct Receiver<T> {
    shared: Rc<RefCell<State<T>>>,
}

impl<T> Receiver<T> {
    /// Waits for the value.
    ///
    /// Cancelled, or dropped before it ended, it has taken nothing: the next call gets the value.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`], if the sender was dropped without sending, or the value was received
    /// before. [`RecvError::Cancelled`], if a scope around is cancelled first.
    pub async fn recv(&mut self) -> Result<T, RecvError> {
        Wait::new(&self.shared, For::Value).await?;
        let value = self.shared.borrow_mut().value.take();
        value.ok_or(RecvError::Closed)
    }

    /// Takes the value, if it was sent.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`], if [`Receiver::recv`] would have to wait; [`TryRecvError::Closed`],
    /// if nothing will come.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let mut state = self.shared.borrow_mut();
        match state.value.take() {
            Some(value) => Ok(value),
            None if state.sender => Err(TryRecvError::Empty),
            None => Err(TryRecvError::Closed),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (value, closing) = {
            let mut state = self.shared.borrow_mut();
            state.receiver = false;
            (state.value.take(), state.closing.take())
        };
        wait_list::settle_one(closing);
        drop(value);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.borrow();
        f.debug_struct("Receiver")
            .field("sent", &state.value.is_some())
            .field("closed", &!state.sender)
            .finish()
    }
}

/// Why no value was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvError {
    /// The sender was dropped without sending, or the value was received before.
    Closed,
    /// The wait was cancelled; a value that comes is there for the next.
    Cancelled(Cancelled),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the sender was dropped without sending"),
            Self::Cancelled(cancelled) => cancelled.fmt(f),
        }
    }
}

impl Error for RecvError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Closed => None,
            Self::Cancelled(cancelled) => Some(cancelled),
        }
    }
}

impl From<Cancelled> for RecvError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl CarriesCancelled for RecvError {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Closed => None,
            Self::Cancelled(cancelled) => Some(*cancelled),
        }
    }

    fn rest(self) -> Result<Self, Self> {
        match self {
            Self::Closed => Ok(self),
            Self::Cancelled(_) => Err(self),
        }
    }
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => Self::new(io::ErrorKind::UnexpectedEof, error),
            RecvError::Cancelled(cancelled) => cancelled.into(),
        }
    }
}

/// What a side waits for.
#[derive(Debug, Clone, Copy)]
enum For {
    Value,
    Close,
}

struct Wait<'a, T> {
    shared: &'a RefCell<State<T>>,
    wait: For,
    place: Place,
    waits: bool,
}

impl<'a, T> Wait<'a, T> {
    fn new(shared: &'a RefCell<State<T>>, wait: For) -> Self {
        Self {
            shared,
            wait,
            place: Place::default(),
            waits: false,
        }
    }
}

impl<T> Future for Wait<'_, T> {
    type Output = Result<(), Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.waits {
            ready!(this.place.entry(cx))?;
            let look = || this.shared.borrow().is_over(this.wait).then_some(());
            if look().is_some() || ready!(this.place.register(Heeds::Cancels, cx, look))?.is_some()
            {
                return Poll::Ready(Ok(()));
            }
            *this.shared.borrow_mut().seat(this.wait) = this.place.seat();
            this.waits = true;
            return Poll::Pending;
        }
        let outcome = match this.place.look(cx) {
            Look::Waiting => return Poll::Pending,
            Look::Ready => Ok(()),
            Look::Aborted(cancelled) => Err(cancelled),
        };
        *this.shared.borrow_mut().seat(this.wait) = None;
        this.waits = false;
        this.place.end();
        Poll::Ready(outcome)
    }
}

impl<T> Drop for Wait<'_, T> {
    fn drop(&mut self) {
        if self.waits {
            *self.shared.borrow_mut().seat(self.wait) = None;
        }
    }
}
