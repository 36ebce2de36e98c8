//! What the bodies of these programs fail with: known again wherever it turns up.

use std::fmt;

use quoit::{
    Cancelled, CarriesCancelled, GroupError, Misuse, Reason, Remote, StartError, TimedOut,
};

/// A failure, a cancellation, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Cancelled(Cancelled),
    /// One of the program's own, with its number.
    Own(u32),
    Remote(Remote),
    /// What a group or a race failed with.
    Several {
        errors: Vec<Self>,
        cancelled: Option<Cancelled>,
    },
    NotStarted,
    /// The scope took its own deadline, and was to say so.
    TimedOut,
    /// A cancellation that was kept and returned where nothing is cancelled, and the like.
    Misuse(Misuse),
    GroupClosed,
    /// The kernel said no, or something of the world outside.
    Io(String),
}

/// What a body came to.
pub(super) type Outcome = Result<u32, Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<Cancelled> for Failure {
    fn from(cancelled: Cancelled) -> Self {
        match cancelled.reason() {
            Reason::Misuse(how) => Self::Misuse(how),
            _ => Self::Cancelled(cancelled),
        }
    }
}

impl From<TimedOut> for Failure {
    fn from(_: TimedOut) -> Self {
        Self::TimedOut
    }
}

impl From<Remote> for Failure {
    fn from(remote: Remote) -> Self {
        Self::Remote(remote)
    }
}

impl From<GroupError<Self>> for Failure {
    fn from(error: GroupError<Self>) -> Self {
        let cancelled = error.cancelled();
        Self::Several {
            errors: error.into_errors(),
            cancelled,
        }
    }
}

impl From<StartError<Self>> for Failure {
    fn from(error: StartError<Self>) -> Self {
        match error {
            StartError::Failed(failure) => failure,
            StartError::NotStarted => Self::NotStarted,
            _ => Self::GroupClosed,
        }
    }
}

impl CarriesCancelled for Failure {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Cancelled(cancelled) => Some(*cancelled),
            Self::Several { cancelled, .. } => *cancelled,
            _ => None,
        }
    }

    fn rest(self) -> Result<Self, Self> {
        match self {
            Self::Several { errors, .. } if !errors.is_empty() => Ok(Self::Several {
                errors,
                cancelled: None,
            }),
            Self::Cancelled(_) | Self::Several { .. } => Err(self),
            other => Ok(other),
        }
    }
}

/// What a body ended with, taken apart as the rules do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// A cancellation on its way out.
    pub(super) cancelled: Option<Cancelled>,
    /// What is left without it.
    pub(super) failure: Option<Failure>,
}

impl Failure {
    pub(super) fn parts(&self) -> Parts {
        let cancelled = self.cancelled();
        Parts {
            cancelled,
            failure: match cancelled {
                Some(_) => self.clone().rest().ok(),
                None => Some(self.clone()),
            },
        }
    }

    /// A cancellation, and nothing else.
    pub(super) fn is_cancellation(&self) -> bool {
        let parts = self.parts();
        parts.cancelled.is_some() && parts.failure.is_none()
    }
}
