//! Other people's code, whose panics must not reach the loop.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// Runs foreign code; a panic in it comes back as what it panicked with.
pub(crate) fn caught<R>(f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Runs foreign code whose panic is nobody's: false if it panicked.
pub(crate) fn contained(f: impl FnOnce()) -> bool {
    match caught(f) {
        Ok(()) => true,
        Err(payload) => {
            discard(payload);
            false
        }
    }
}

/// Drops what somebody panicked with, which may panic as well; what that panics with is kept for
/// ever, since it could go on like this.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(next) = caught(|| drop(payload)) {
        std::mem::forget(next);
    }
}

pin_project! {
    /// A future whose panic, and that of its destructor, becomes its output.
    pub(crate) struct Guarded<F> {
        #[pin]
        future: Option<F>,
    }
}

/// Catches a panic of a future, and of its destructor.
pub(crate) fn guarded<F: Future>(future: F) -> Guarded<F> {
    Guarded {
        future: Some(future),
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Box<dyn Any + Send>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut future = self.project().future;
        let polled = caught(|| future.as_mut().as_pin_mut().map(|future| future.poll(cx)));
        let ended = match polled {
            Ok(Some(Poll::Pending)) => return Poll::Pending,
            Ok(Some(Poll::Ready(value))) => Ok(value),
            Ok(None) => unreachable!("not polled after its end"),
            Err(payload) => Err(payload),
        };
        let dropped = caught(|| future.set(None));
        Poll::Ready(match (ended, dropped) {
            (Ok(value), Ok(())) => Ok(value),
            (Ok(value), Err(payload)) => {
                contained(|| drop(value));
                Err(payload)
            }
            (Err(first), Ok(())) => Err(first),
            (Err(first), Err(second)) => {
                discard(second);
                Err(first)
            }
        })
    }
}

pin_project! {
    /// A future that is made where it is polled first.
    #[project = CalledProjection]
    pub(crate) enum Called<C, F> {
        New { call: Option<C> },
        Made { #[pin] future: F },
    }
}

/// Makes a future when it is polled first: to make it is foreign code as well, where that is no async closure's. It is
/// held once.
pub(crate) fn called<C: FnOnce() -> F, F: Future>(call: C) -> Called<C, F> {
    Called::New { call: Some(call) }
}

impl<C: FnOnce() -> F, F: Future> Future for Called<C, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let CalledProjection::New { call } = self.as_mut().project() {
            let call = call.take().expect("not polled after it has panicked");
            self.set(Self::Made { future: call() });
        }
        match self.project() {
            CalledProjection::Made { future } => future.poll(cx),
            CalledProjection::New { .. } => unreachable!("it was made just above"),
        }
    }
}

/// Says in words what somebody panicked with.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else if let Some(group) = payload.downcast_ref::<crate::GroupPanic>() {
        group.to_string()
    } else {
        "with a value that is no text".to_owned()
    }
}
