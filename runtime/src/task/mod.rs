//! Futures that run.
//!
//! In reading order: [`cell`] a future and its output, [`table`] the tasks of a core and which of
//! them are ready, in the order of [`queue`], [`waker`] waking by number, [`join`] waiting for a task, [`current`] the pointer
//! to the core whose turn it is.
//!
//! A task belongs to one core from spawn to end and is polled by its thread alone. The table owns
//! it; while it is polled, it lies on the loop's stack, so no borrow is held meanwhile.

#![expect(unsafe_code, reason = "one of the four folders that may")]

pub(crate) mod cell;
#[cfg(all(test, not(loom)))]
mod copies_tests;
pub(crate) mod current;
pub(crate) mod join;
pub(crate) mod memory;
mod probe;
mod queue;
pub(crate) mod table;
pub(crate) mod waker;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use join::{JoinError, JoinHandle};
pub(crate) use waker::TaskId;

use crate::core_state::Core;
use crate::scope::Cancelled;
use crate::scope::park;

/// Starts a task on this core, under the core's root scope.
///
/// The task runs until it ends or the runtime shuts down, whether or not its handle is kept.
///
/// # Panics
///
/// Off a core: from other threads use [`Handle::spawn`](crate::Handle::spawn). And on one that has 2^24 tasks already,
/// or their outputs.
#[must_use = "a handle that is dropped lets its task go on; say so with `drop` or `let _ =`"]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: 'static> + 'static,
{
    let object = cell::boxed(future);
    current::with(|core| {
        let task = core.spawn_at_root(object);
        JoinHandle::new(task, core.identity())
    })
}

/// Starts a task under the active scope, which ends after it: for what a destructor begins, and cannot wait for.
///
/// A cancel of the scope reaches it, also one that came before: what has to be done all the same is shielded.
/// Where no scope is active it is a task of the core's root; off a core the future is dropped.
///
/// ```
/// use std::time::Duration;
/// use quoit::{Cancelled, Scope, leave_behind, time::sleep};
///
/// /// Takes a while to go.
/// struct Guest;
///
/// impl Drop for Guest {
///     fn drop(&mut self) {
///         leave_behind(async {
///             let farewell = Scope::new().shielded().timeout(Duration::from_secs(1));
///             let _ = farewell.run(sleep(Duration::from_millis(5))).await;
///             println!("gone");
///         });
///     }
/// }
///
/// quoit::block_on(async {
///     let visit = Scope::new();
///     visit
///         .run(async {
///             drop(Guest);
///             Ok::<_, Cancelled>(())
///         })
///         .await?;
///     // Behind "gone".
///     println!("closed");
///     Ok::<_, Cancelled>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
pub fn leave_behind<F>(future: F)
where
    F: Future<Output = ()> + 'static,
{
    let mut future = Some(future);
    current::try_with(|core| {
        if let Some(future) = future.take() {
            let (task, _) = core.spawn_under(core.active(), future);
            let output = core.tasks.borrow_mut().detach(task);
            drop(output);
        }
    });
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
pub fn yield_now() -> impl Future<Output = Result<(), Cancelled>> {
    Yield { yielded: false }
}

/// Lets other ready tasks and arrived I/O go first, also where the active scope is cancelled.
///
/// Of a deadline that has passed it takes notice, as any op that yields: [`check`](crate::check) sees it then.
///
/// # Panics
///
/// Off a core.
pub async fn yield_uncancellable() {
    current::with(Core::notice_deadlines);
    after_others().await;
}

/// As [`yield_uncancellable`], of an end, which is no op.
pub(crate) async fn after_others() {
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

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.yielded {
            return Poll::Ready(Ok(()));
        }
        self.begin(cx)
    }
}

impl Yield {
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cancelled>> {
        current::with(|core| {
            core.notice_deadlines();
            std::task::ready!(park::entry(core, cx.waker()))?;
            self.yielded = true;
            core.yield_to_others(cx.waker());
            Poll::Pending
        })
    }
}
