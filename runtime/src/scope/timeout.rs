//! `timeout`: a body that fails if it is late.

use std::error::Error;
use std::future::IntoFuture;
use std::time::Duration;
use std::{fmt, io};

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
pub async fn timeout<T, E>(
    time: Duration,
    body: impl IntoFuture<Output = Result<T, E>>,
) -> Result<T, E>
where
    E: CarriesCancelled + From<TimedOut>,
{
    match Scope::new().timeout(time).run_in_time(body).await? {
        Some(value) => Ok(value),
        None => unreachable!("nobody else can cancel this scope"),
    }
}

impl Scope {
    /// Runs `body` as [`Scope::run`] does, but fails with [`TimedOut`] if this scope took a
    /// [`Cancelled`] whose first cause was its deadline. Cancelled by anybody else, it is `Ok(None)`.
    ///
    /// # Errors
    ///
    /// As for [`Scope::run`], and [`TimedOut`].
    pub async fn run_in_time<T, E>(
        &self,
        body: impl IntoFuture<Output = Result<T, E>>,
    ) -> Result<Option<T>, E>
    where
        E: CarriesCancelled + From<TimedOut>,
    {
        let outcome = self.run(body).await?;
        let late = self.cancelled().map(Cancelled::reason) == Some(Reason::Deadline);
        if outcome.is_none() && late {
            return Err(TimedOut(()).into());
        }
        Ok(outcome)
    }
}
