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
        wait: ForeignWait::default(),
    }
}

pin_project! {
    struct Foreign<F> {
        #[pin]
        future: Option<F>,
        wait: ForeignWait,
    }
}

impl<F: Future> Future for Foreign<F> {
    type Output = Result<F::Output, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut future = this.future;
        let polled = ready!(this.wait.poll(cx, |cx| {
            let future = future.as_mut().as_pin_mut();
            future.expect("not polled after its end").poll(cx)
        }));
        if polled.is_err() {
            future.set(None);
        }
        Poll::Ready(polled)
    }
}

/// The same for what is polled by hand and is no future: a body, a stream of another library.
///
/// One wait at a time; once it has ended, the next may begin. Dropped, it waits no more.
#[derive(Debug, Default)]
pub struct ForeignWait {
    park: Park,
    waits: bool,
}

impl ForeignWait {
    /// Calls `poll`, which may wait, unless the scope is cancelled; a cancel ends the wait, and it is
    /// then for the caller to drop what waited, or to leave it.
    ///
    /// # Errors
    ///
    /// [`Cancelled`]: `poll` was not called, or is waiting no more for anybody.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Cancelled>> {
        if !self.waits {
            ready!(current::with(|core| park::entry(core, cx.waker())))?;
        }
        if let Poll::Ready(output) = poll(cx) {
            self.end();
            return Poll::Ready(Ok(output));
        }
        let look = current::with(|core| {
            if !self.waits {
                self.waits = true;
                self.park
                    .register_memory(core, cx.waker(), Purpose::Foreign);
            }
            self.park.look(core, cx.waker())
        });
        match look {
            Look::Aborted(cancelled) => {
                self.end();
                Poll::Ready(Err(cancelled))
            }
            Look::Waiting | Look::Ready => Poll::Pending,
        }
    }

    fn end(&mut self) {
        self.park.end();
        self.waits = false;
    }
}
