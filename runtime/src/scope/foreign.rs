//! Futures that know nothing of scopes: a cancel drops them.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, ready};

use super::Cancelled;
use super::park::{self, Look, Park};
use super::tree::Purpose;
use crate::task::current;

/// Waits for a future of another library, which knows nothing of scopes: a cancel drops it.
///
/// quoit's own ops need no such thing. A foreign future that waits without it cannot be aborted: it
/// is woken a few times when its scope is cancelled and is then left alone until it ends by itself.
///
/// ```
/// use std::{future, time::Duration};
/// use quoit::{Cancelled, Scope, run_until_cancelled};
///
/// quoit::block_on(async {
///     let answer = Scope::new()
///         .timeout(Duration::from_millis(5))
///         .run(run_until_cancelled(future::pending::<u32>()))
///         .await;
///     assert_eq!(answer, Ok(None));
/// })?;
/// # Ok::<_, quoit::BuildError>(())
/// ```
///
/// # Errors
///
/// [`Cancelled`]: the future was dropped, in the scope where it ran, or was never polled because the
/// scope was cancelled before. One that is ready in the moment of the cancel gives its output.
///
/// # Panics
///
/// When polled off a core.
pub async fn run_until_cancelled<F: Future>(future: F) -> Result<F::Output, Cancelled> {
    let mut future = pin!(future);
    let mut park = Park::new();
    let mut waits = false;
    poll_fn(|cx| {
        if !waits {
            ready!(current::with(|core| park::entry(core, cx.waker())))?;
        }
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        current::with(|core| {
            if !waits {
                waits = true;
                park.register_memory(core, cx.waker(), Purpose::Foreign);
            }
            match park.look(core, cx.waker()) {
                Look::Aborted(cancelled) => Poll::Ready(Err(cancelled)),
                Look::Waiting | Look::Ready => Poll::Pending,
            }
        })
    })
    .await
}
