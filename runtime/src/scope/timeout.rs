//! `timeout`: a body that fails if it is late.

use std::borrow::Borrow;
use std::error::Error;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use pin_project_lite::pin_project;

use super::running::Run;
use super::{Cancelled, CarriesCancelled, Reason, Scope};

/// The body did not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOut(());

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

impl Error for TimedOut {}

/// Of kind [`io::ErrorKind::TimedOut`].
impl From<TimedOut> for io::Error {
    fn from(late: TimedOut) -> Self {
        Self::new(io::ErrorKind::TimedOut, late)
    }
}

/// Runs a body that has so much time.
///
/// As [`Scope::timeout`], for callers to whom lateness is an error:
///
/// ```
/// use std::{io, time::Duration};
/// use quoit::{time::sleep, timeout};
///
/// quoit::block_on(async {
///     let late = timeout(Duration::from_millis(5), async {
///         sleep(Duration::from_secs(3600)).await?;
///         Ok::<_, io::Error>(())
///     });
///     assert_eq!(late.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
/// })?;
/// # Ok::<_, quoit::BuildError>(())
/// ```
///
/// # Errors
///
/// [`TimedOut`], if the body ended with [`Cancelled`] because its time was over; what else it ended
/// with. A body that ends with a value in spite of it gives its value.
pub fn timeout<T, E>(
    time: Duration,
    body: impl IntoFuture<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>>
where
    E: CarriesCancelled + From<TimedOut>,
{
    let scope = Scope::new().timeout(time);
    Timeout {
        run: InTime {
            run: Run::new(scope, body.into_future()),
        },
    }
}

impl Scope {
    /// Runs `body` as [`Scope::run`] does, but fails with [`TimedOut`] if this scope took a
    /// [`Cancelled`] whose first cause was its deadline. Cancelled by anybody else, it is `Ok(None)`.
    ///
    /// # Errors
    ///
    /// As for [`Scope::run`], and [`TimedOut`].
    pub fn run_in_time<T, E>(
        &self,
        body: impl IntoFuture<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<Option<T>, E>>
    where
        E: CarriesCancelled + From<TimedOut>,
    {
        InTime {
            run: Run::new(self, body.into_future()),
        }
    }
}

pin_project! {
    /// A run that fails if its scope took its deadline.
    struct InTime<S: Borrow<Scope>, F: Future> {
        #[pin]
        run: Run<S, F>,
    }
}

impl<S, F, T, E> Future for InTime<S, F>
where
    S: Borrow<Scope>,
    F: Future<Output = Result<T, E>>,
    E: CarriesCancelled + From<TimedOut>,
{
    type Output = Result<Option<T>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut run = self.project().run;
        let outcome = ready!(run.as_mut().poll(cx))?;
        let cause = run.as_ref().scope().cancelled();
        let late = cause.map(Cancelled::reason) == Some(Reason::Deadline);
        if outcome.is_none() && late {
            return Poll::Ready(Err(TimedOut(()).into()));
        }
        Poll::Ready(Ok(outcome))
    }
}

pin_project! {
    /// The same, of a scope that nobody else can cancel.
    struct Timeout<F: Future> {
        #[pin]
        run: InTime<Scope, F>,
    }
}

impl<F, T, E> Future for Timeout<F>
where
    F: Future<Output = Result<T, E>>,
    E: CarriesCancelled + From<TimedOut>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().run.poll(cx).map_ok(|value| match value {
            Some(value) => value,
            None => unreachable!("nobody else can cancel this scope"),
        })
    }
}
