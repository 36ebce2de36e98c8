//! `JoinHandle`: waits for a task's end and takes its output.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{TaskId, current};
use crate::scope::Cancelled;
use crate::scope::park::{self, Look, Park};
use crate::scope::tree::Purpose;

/// Waits for a task on the same core, and gives its output.
///
/// Dropping the handle does nothing to the task. Awaiting it is an op like any other: in a
/// cancelled scope it fails with [`JoinError::Cancelled`], and the task goes on.
#[must_use = "a handle that is dropped lets its task go on; say so with `drop` or `let _ =`"]
pub struct JoinHandle<T> {
    task: TaskId,
    home: u64,
    park: Park,
    waiting: bool,
    taken: bool,
    output: PhantomData<fn() -> T>,
}

/// Why a task gave no output.
#[non_exhaustive]
pub enum JoinError {
    /// The task panicked, and this is what it panicked with.
    Panicked(Box<dyn Any + Send>),
    /// The runtime shut down and dropped the task before it had ended.
    Dropped,
    /// It was the wait that was cancelled; the task goes on.
    Cancelled(Cancelled),
}

impl JoinError {
    /// Goes on with the task's panic on this side.
    ///
    /// # Panics
    ///
    /// With what the task panicked with; or, if it did not, with the error's text.
    pub fn resume(self) -> ! {
        match self {
            Self::Panicked(payload) => resume_unwind(payload),
            other => panic!("{other}"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(payload) => {
                let text = payload
                    .downcast_ref::<&str>()
                    .copied()
                    .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                write!(
                    f,
                    "the task panicked: {}",
                    text.unwrap_or("with a value that is no text")
                )
            }
            Self::Dropped => f.write_str("the runtime shut down before the task had ended"),
            Self::Cancelled(cancelled) => write!(f, "waiting for the task was {cancelled}"),
        }
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cancelled(cancelled) => Some(cancelled),
            Self::Panicked(_) | Self::Dropped => None,
        }
    }
}

impl From<Cancelled> for JoinError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl crate::CarriesCancelled for JoinError {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Cancelled(cancelled) => Some(*cancelled),
            Self::Panicked(_) | Self::Dropped => None,
        }
    }

    fn rest(self) -> Result<Self, Self> {
        if self.cancelled().is_some() {
            Err(self)
        } else {
            Ok(self)
        }
    }
}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Cancelled(cancelled) => cancelled.into(),
            other => Self::other(other.to_string()),
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}

impl<T: 'static> JoinHandle<T> {
    pub(crate) fn new(task: TaskId, home: u64) -> Self {
        Self {
            task,
            home,
            park: Park::new(),
            waiting: false,
            taken: false,
            output: PhantomData,
        }
    }

    /// Returns whether the task has ended.
    pub fn is_finished(&self) -> bool {
        current::with(|core| {
            core.identity() != self.home || core.tasks.borrow().has_ended(self.task)
        })
    }
}

impl<T> Unpin for JoinHandle<T> {}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(
            !self.taken,
            "a join handle was polled after it had given its output"
        );
        current::with(|core| {
            if core.identity() != self.home {
                self.taken = true;
                return Poll::Ready(Err(JoinError::Dropped));
            }
            if self.waiting {
                match self.park.look(core, cx.waker()) {
                    // Spurious, or the end came without a word to this park.
                    Look::Waiting | Look::Ready => {}
                    Look::Aborted(cancelled) => {
                        self.waiting = false;
                        self.park.end();
                        core.tasks.borrow_mut().set_joiner(self.task, None);
                        return Poll::Ready(Err(cancelled.into()));
                    }
                }
            } else if let Err(cancelled) = std::task::ready!(park::entry(core, cx.waker())) {
                return Poll::Ready(Err(cancelled.into()));
            }
            if core.tasks.borrow().has_ended(self.task) {
                self.park.end();
                self.taken = true;
                let object = core.tasks.borrow_mut().take_ended(self.task);
                let Some(mut object) = object else {
                    return Poll::Ready(Err(JoinError::Dropped));
                };
                let output = object
                    .as_mut()
                    .output()
                    .downcast_mut::<Option<Result<T, JoinError>>>()
                    .expect("a handle has the type of its task's output")
                    .take();
                return Poll::Ready(output.expect("an output is taken once"));
            }
            if !self.waiting {
                self.waiting = true;
                self.park.register_memory(core, cx.waker(), Purpose::Join);
                let park = self.park.id(core);
                core.tasks.borrow_mut().set_joiner(self.task, park);
            }
            Poll::Pending
        })
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        current::try_with(|core| {
            if core.identity() == self.home {
                let output = core.tasks.borrow_mut().detach(self.task);
                drop(output);
            }
        });
    }
}
