//! Futures that know nothing of scopes: a cancel drops them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

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
pub fn run_until_cancelled<F: Future>(
    future: F,
) -> impl Future<Output = Result<F::Output, Cancelled>> {
    Foreign {
        future: Some(future),
        park: Park::new(),
        waits: false,
    }
}

pin_project! {
    struct Foreign<F> {
        #[pin]
        future: Option<F>,
        park: Park,
        waits: bool,
    }
}

impl<F: Future> Future for Foreign<F> {
    type Output = Result<F::Output, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if !*this.waits {
            ready!(current::with(|core| park::entry(core, cx.waker())))?;
        }
        let future = this.future.as_mut().as_pin_mut();
        if let Poll::Ready(output) = future.expect("not polled after its end").poll(cx) {
            this.park.end();
            return Poll::Ready(Ok(output));
        }
        let look = current::with(|core| {
            if !*this.waits {
                *this.waits = true;
                this.park
                    .register_memory(core, cx.waker(), Purpose::Foreign);
            }
            this.park.look(core, cx.waker())
        });
        match look {
            Look::Aborted(cancelled) => {
                this.future.set(None);
                Poll::Ready(Err(cancelled))
            }
            Look::Waiting | Look::Ready => Poll::Pending,
        }
    }
}
