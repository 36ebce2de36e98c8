//! A future and, later, its output: one allocation per task.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::memory::TaskBox;
use crate::panics::{caught, contained, discard};

/// A task as its core sees it, with the future's type forgotten.
pub(crate) trait TaskObject {
    /// Polls the future; a panic is caught and becomes the output. Ready means that the output is
    /// there and the future is gone.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended>;

    /// Drops the future, if it is still there; the output says that it was dropped.
    fn drop_future(self: Pin<&mut Self>);

    /// Says of a task that has ended normally that it left a group behind, in place of its output. A child of a group
    /// has told of that itself, or of its failure, which is not to be lost.
    fn report_abandoned_group(self: Pin<&mut Self>);

    /// Returns the output: an `Option<Result<T, TaskEnd>>`, for whoever knows the `T`.
    fn output(self: Pin<&mut Self>) -> &mut dyn Any;
}

/// How a future ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Normally,
    Panicked,
}

/// Why a task that has ended has no output.
#[derive(Debug)]
pub(crate) enum TaskEnd {
    /// It panicked, with this.
    Panicked(Box<dyn Any + Send>),
    /// It was dropped before its end.
    Dropped,
    /// It left a group behind that it had leaked.
    AbandonedGroup,
}

/// Holds a future until it ends, then its output until somebody takes it. That of a child tells of groups that were
/// left behind.
enum TaskCell<F: Future, const IS_CHILD: bool> {
    Running(F),
    Ended(Option<Result<F::Output, TaskEnd>>),
}

/// Puts a future where it stays until it has ended. It is moved as seldom as can be before: futures are
/// large, and the closures that find the core would copy it at each step.
#[inline]
pub(crate) fn boxed<F>(future: F) -> TaskBox
where
    F: Future<Output: 'static> + 'static,
{
    TaskBox::new(TaskCell::<F, false>::Running(future))
}

/// As [`boxed`], of a child of a group, whose output says how it failed.
#[inline]
pub(crate) fn boxed_child<F>(future: F) -> TaskBox
where
    F: Future<Output: 'static> + 'static,
{
    TaskBox::new(TaskCell::<F, true>::Running(future))
}

impl<F: Future<Output: 'static>, const IS_CHILD: bool> TaskCell<F, IS_CHILD> {
    fn future(self: Pin<&mut Self>) -> Option<Pin<&mut F>> {
        // SAFETY: the reference is not used to move the future: it is projected, or left alone.
        match unsafe { self.get_unchecked_mut() } {
            // SAFETY: the future is pinned because the cell is: it is never moved out of
            // `Running`, only overwritten in place, which drops it first.
            Self::Running(future) => Some(unsafe { Pin::new_unchecked(future) }),
            Self::Ended(_) => None,
        }
    }

    /// Overwrites the future, whose destructor may panic, and so may that of its output.
    #[inline(always)]
    fn end(mut self: Pin<&mut Self>, output: Result<F::Output, TaskEnd>) -> Ended {
        let failed = output.is_err();
        // An assignment stores the new value also when dropping the old one panics.
        match caught(|| self.as_mut().set(Self::Ended(Some(output)))) {
            Ok(()) if !failed => Ended::Normally,
            Ok(()) => Ended::Panicked,
            Err(payload) => self.fail_at_end(failed, payload),
        }
    }

    /// Tells of a destructor that has panicked, unless the task has failed before.
    #[cold]
    #[inline(never)]
    fn fail_at_end(mut self: Pin<&mut Self>, failed: bool, payload: Box<dyn Any + Send>) -> Ended {
        if failed {
            // The first panic is the one to tell of.
            discard(payload);
        } else {
            let told = Err(TaskEnd::Panicked(payload));
            contained(|| self.set(Self::Ended(Some(told))));
        }
        Ended::Panicked
    }

    /// Ends a task whose future has panicked. Elsewhere than the poll: what it needs is not put aside for each.
    #[cold]
    #[inline(never)]
    fn fail(self: Pin<&mut Self>, payload: Box<dyn Any + Send>) -> Ended {
        self.end(Err(TaskEnd::Panicked(payload)))
    }
}

impl<F: Future<Output: 'static>, const IS_CHILD: bool> TaskObject for TaskCell<F, IS_CHILD> {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let future = self
            .as_mut()
            .future()
            .expect("a task is polled until it ends");
        let polled = caught(|| future.poll(cx));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(self.end(Ok(output))),
            Err(payload) => Poll::Ready(self.fail(payload)),
        }
    }

    fn drop_future(mut self: Pin<&mut Self>) {
        if self.as_mut().future().is_some() {
            self.end(Err(TaskEnd::Dropped));
        }
    }

    fn report_abandoned_group(self: Pin<&mut Self>) {
        if IS_CHILD {
            return;
        }
        let output = self.output();
        if let Some(output) = output.downcast_mut::<Option<Result<F::Output, TaskEnd>>>() {
            let unwanted = output.replace(Err(TaskEnd::AbandonedGroup));
            contained(|| drop(unwanted));
        }
    }

    fn output(self: Pin<&mut Self>) -> &mut dyn Any {
        // SAFETY: the reference is not used to move a future: it leads to an output only.
        match unsafe { self.get_unchecked_mut() } {
            Self::Ended(output) => output,
            Self::Running(_) => unreachable!("asked of tasks that have ended"),
        }
    }
}
