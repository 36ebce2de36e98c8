//! Why there is no session, and why a call on one came to nothing.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quoit::{Cancelled, CarriesCancelled};

use crate::Key;

/// Why no session could be leased.
#[derive(Debug)]
#[non_exhaustive]
pub enum LeaseError<E> {
    /// The caller's scope was cancelled while it waited. It has left the queue.
    Cancelled(Cancelled),
    /// The session was closed before it could be leased: [`close_all`](crate::SessionPool::close_all) and
    /// its kind. The next lease opens a new one.
    Closed,
    /// The server refused the session, or opening it failed. All who waited for it get the same error,
    /// after what was begun has been cleaned up.
    Open(Arc<E>),
    /// Opening it took longer than [`Builder::open_timeout`](crate::Builder::open_timeout).
    OpenTimedOut(Duration),
    /// Opening it failed just before, and more than once: it is not tried again so soon.
    BackingOff {
        /// When it will be.
        retry_in: Duration,
        /// How often it has failed in a row.
        failures: u32,
        /// The last failure.
        last: Arc<E>,
    },
    /// Every session is leased, and as many callers wait as may.
    Exhausted {
        /// How many sessions there may be.
        max_sessions: usize,
        /// How many callers wait.
        waiting: usize,
    },
    /// There was no session within [`Builder::lease_timeout`](crate::Builder::lease_timeout).
    TimedOut(Duration),
    /// The task that was opening the session panicked, with this in words.
    Panicked(String),
    /// The core that was opening it shuts down.
    ShuttingDown,
}

impl<E: fmt::Display> fmt::Display for LeaseError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(cancelled) => cancelled.fmt(f),
            Self::Closed => f.write_str("the session was closed before it could be leased"),
            Self::Open(error) => write!(f, "the session could not be opened: {error}"),
            Self::OpenTimedOut(timeout) => {
                write!(f, "the session was not open within {timeout:?}")
            }
            Self::BackingOff {
                retry_in,
                failures,
                last,
            } => write!(
                f,
                "opening the session has failed {failures} times in a row, the next attempt may be \
                 made in {retry_in:?}; the last failure: {last}"
            ),
            Self::Exhausted {
                max_sessions,
                waiting,
            } => write!(
                f,
                "all {max_sessions} sessions are leased and {waiting} callers wait already: lease \
                 fewer at a time, or raise max_sessions or max_waiting"
            ),
            Self::TimedOut(timeout) => write!(
                f,
                "there was no session within {timeout:?}: all are leased, or opening one takes long"
            ),
            Self::Panicked(text) => write!(f, "the task that opened the session panicked: {text}"),
            Self::ShuttingDown => {
                f.write_str("the core that was opening the session is shutting down")
            }
        }
    }
}

impl<E: Error + 'static> Error for LeaseError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cancelled(cancelled) => Some(cancelled),
            Self::Open(error) | Self::BackingOff { last: error, .. } => Some(&**error),
            _ => None,
        }
    }
}

impl<E> From<Cancelled> for LeaseError<E> {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl<E> CarriesCancelled for LeaseError<E> {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Cancelled(cancelled) => Some(*cancelled),
            _ => None,
        }
    }
}

/// Why a call on a leased session came to nothing. The lease is of no use any more, but for
/// [`CallError::Cancelled`] and [`CallError::Elsewhere`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The caller's scope was cancelled.
    Cancelled(Cancelled),
    /// The session is being closed, or is closed.
    Closed,
    /// The task that owned the session panicked, with this in words.
    OwnerPanicked(String),
    /// The session's core shuts down, or has ended.
    CoreGone,
    /// The session lives on another core: [`Lease::call`](crate::Lease::call) reaches it there.
    Elsewhere,
    /// The call itself panicked on the session's core, with this in words.
    Panicked(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(cancelled) => cancelled.fmt(f),
            Self::Closed => f.write_str("the session is closed: lease another"),
            Self::OwnerPanicked(text) => write!(
                f,
                "the task that owned the session panicked, lease another: {text}"
            ),
            Self::CoreGone => {
                f.write_str("the session's core shuts down, or has ended: lease another")
            }
            Self::Elsewhere => {
                f.write_str("the session lives on another core, where `call` reaches it")
            }
            Self::Panicked(text) => write!(f, "the call panicked on the session's core: {text}"),
        }
    }
}

impl Error for CallError {}

impl From<Cancelled> for CallError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl CarriesCancelled for CallError {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Cancelled(cancelled) => Some(*cancelled),
            _ => None,
        }
    }
}

impl From<CallError> for std::io::Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Cancelled(cancelled) => cancelled.into(),
            other => Self::other(other),
        }
    }
}

/// Why [`close_all_blocking`](crate::SessionPool::close_all_blocking) did not see the end. What it has
/// begun goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseError {
    /// This thread runs a core, which would wait for itself.
    WouldBlock,
    /// These had not ended in time.
    TimedOut(Vec<Key>),
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldBlock => f.write_str(
                "waiting here would block a core: the sessions are being closed; await `close_all` \
                 instead",
            ),
            Self::TimedOut(keys) => {
                f.write_str("these sessions had not ended in time:")?;
                let mut separator = ' ';
                keys.iter().try_for_each(|key| {
                    let before = std::mem::replace(&mut separator, ',');
                    write!(f, "{before}{}{key}", if before == ',' { " " } else { "" })
                })
            }
        }
    }
}

impl Error for CloseError {}
