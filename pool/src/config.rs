//! How many sessions there may be, and how long things may take.

use std::fmt;
use std::time::Duration;

use crate::{SessionPool, Sessions};

/// What the registry goes by.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) max_sessions: usize,
    pub(crate) max_waiting: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) check_after: Duration,
    pub(crate) backoff: Backoff,
}

/// How long a server is left alone after openings that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// How long after so many failures in a row: none after one, then twice as long each time; between half
    /// of that and all, by `jitter` of 1024.
    pub(crate) fn pause(self, failures: u32, jitter: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(2) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(doublings.min(30)).unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(factor).min(self.longest);
        whole / 2 + whole / 2 / 1024 * (jitter % 1024)
    }
}

/// What owners and callers go by.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    pub(crate) open_timeout: Duration,
    pub(crate) lease_timeout: Option<Duration>,
    pub(crate) grace: Duration,
}

/// Sets up a pool: [`SessionPool::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct Builder<S> {
    sessions: S,
    limits: Limits,
    times: Times,
}

/// What is wrong with how a pool was set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(&'static str);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ConfigError {}

impl<S: Sessions> Builder<S> {
    pub(crate) fn new(sessions: S) -> Self {
        Self {
            sessions,
            limits: Limits {
                max_sessions: 64,
                max_waiting: 1024,
                idle_timeout: Some(Duration::from_secs(300)),
                max_age: None,
                check_after: Duration::from_millis(500),
                backoff: Backoff {
                    first: Duration::from_millis(100),
                    longest: Duration::from_secs(30),
                },
            },
            times: Times {
                open_timeout: Duration::from_secs(30),
                lease_timeout: None,
                grace: Duration::from_secs(5),
            },
        }
    }

    /// How many sessions there may be at once in all, with those that are being opened or closed. 64, which
    /// child processes of a usual size bear.
    ///
    /// At the limit the one that was used least recently, of those that nobody has leased, is closed for a
    /// new one; if all are leased, callers wait in order.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.limits.max_sessions = sessions;
        self
    }

    /// How many callers may wait for room. 1024; one more fails with
    /// [`Exhausted`](crate::LeaseError::Exhausted). Those who wait for a session that is being opened, or
    /// that somebody else uses alone, do not count; nor do those for whom a session is being closed.
    pub fn max_waiting(mut self, callers: usize) -> Self {
        self.limits.max_waiting = callers;
        self
    }

    /// For how long a session is kept that nobody leases. Five minutes; zero: closed when its last lease comes
    /// back; `None`: for ever.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.limits.idle_timeout = timeout.into();
        self
    }

    /// How old a session may get: after that it is leased no more, and closed when the last lease has come
    /// back. `None`, which is the default: no matter.
    pub fn max_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.limits.max_age = age.into();
        self
    }

    /// How long opening a session may take. 30 seconds.
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.times.open_timeout = timeout;
        self
    }

    /// How long a caller waits for a lease, from its call to the lease. `None`, which is the default: as long
    /// as its scope lets it.
    pub fn lease_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.times.lease_timeout = timeout.into();
        self
    }

    /// How long closing a session may take. 5 seconds: up to half of it for calls that are running to end, a
    /// quarter more for them to end once they are cancelled, and what is left for [`Sessions::close`], which is
    /// cancelled then. A call that does not end, since nobody polls it any more or it is shielded, is not waited
    /// for: the session is not closed then, but [abandoned](Sessions::abandon), and dropped with that call.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.times.grace = grace;
        self
    }

    /// After how long out of use a session is [checked](Sessions::is_fit) before it is leased. Half a second,
    /// since a peer seldom dies between two calls; zero: each time, unless others are using it.
    pub fn check_after(mut self, unused: Duration) -> Self {
        self.limits.check_after = unused;
        self
    }

    /// How long a key is left alone after openings that failed: not at all after the first, then `first`,
    /// and twice as long after each more, up to `longest`; a random share, up to half, is taken off. 100 ms
    /// and 30 s. Meanwhile a lease fails with [`BackingOff`](crate::LeaseError::BackingOff).
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.limits.backoff = Backoff { first, longest };
        self
    }

    /// Makes the pool.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there may be no session at all, or the first back-off is longer than the longest.
    pub fn build(self) -> Result<SessionPool<S>, ConfigError> {
        let Self {
            sessions,
            limits,
            times,
        } = self;
        if limits.max_sessions == 0 {
            return Err(ConfigError(
                "max_sessions is 0, so nobody could ever lease: allow at least one",
            ));
        }
        if limits.backoff.first > limits.backoff.longest {
            return Err(ConfigError(
                "the first back-off is longer than the longest: swap them",
            ));
        }
        Ok(SessionPool::new(sessions, limits, times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_jitter_takes_off_half_at_most() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(1),
        };
        let most: Vec<_> = (1..=7)
            .map(|n| backoff.pause(n, 1023).as_millis())
            .collect();
        assert_eq!(most, [0, 99, 199, 399, 799, 999, 999]);
        let least: Vec<_> = (1..=7)
            .map(|n| backoff.pause(n, 1024).as_millis())
            .collect();
        assert_eq!(least, [0, 50, 100, 200, 400, 500, 500]);
        assert_eq!(backoff.pause(u32::MAX, 0), Duration::from_millis(500));
        let endless = Backoff {
            first: Duration::MAX,
            longest: Duration::MAX,
        };
        let pause = endless.pause(2, 1023);
        assert!((Duration::MAX / 2..=Duration::MAX).contains(&pause));
    }
}
