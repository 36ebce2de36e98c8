//! Futures that run.
//!
//! In reading order: [`cell`] a future and its output, [`table`] the tasks of a core and which of
//! them are ready, [`waker`] waking by number, [`join`] waiting for a task, [`current`] the pointer
//! to the core whose turn it is.
//!
//! A task belongs to one core from spawn to end and is polled by its thread alone. The table owns
//! it; while it is polled, it lies on the loop's stack, so no borrow is held meanwhile.

#![expect(unsafe_code, reason = "one of the four folders that may")]

pub(crate) mod cell;
pub(crate) mod current;
pub(crate) mod join;
mod probe;
pub(crate) mod table;
pub(crate) mod waker;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use join::{JoinError, JoinHandle};
pub(crate) use table::TaskId;

use crate::scope::Cancelled;
use crate::scope::park;

/// Starts a task on this core, under the core's root scope.
///
/// The task runs until it ends or the runtime shuts down, whether or not its handle is kept.
///
/// # Panics
///
/// Off a core. From other threads use [`Handle::spawn`](crate::Handle::spawn).
#[must_use = "a handle that is dropped lets its task go on; say so with `drop` or `let _ =`"]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: 'static> + 'static,
{
    let object = cell::boxed(future);
    current::with(|core| {
        let (task, node) = core.spawn_at_root(object);
        JoinHandle::new(task, node, core.identity())
    })
}

/// Lets other ready tasks and arrived I/O go first.
///
/// # Errors
///
/// [`Cancelled`] if the active scope is cancelled; then it does not yield.
///
/// # Panics
///
/// Off a core.
pub async fn yield_now() -> Result<(), Cancelled> {
    Yield { yielded: false }.await
}

/// Lets other ready tasks and arrived I/O go first, also where the active scope is cancelled.
///
/// # Panics
///
/// Off a core.
pub async fn yield_uncancellable() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        current::with(|core| core.yield_to_others(cx.waker()));
        Poll::Pending
    })
    .await;
}

struct Yield {
    yielded: bool,
}

impl Future for Yield {
    type Output = Result<(), Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.yielded {
            return Poll::Ready(Ok(()));
        }
        current::with(|core| {
            core.notice_deadlines();
            std::task::ready!(park::entry(core, cx.waker()))?;
            self.yielded = true;
            core.yield_to_others(cx.waker());
            Poll::Pending
        })
    }
}
