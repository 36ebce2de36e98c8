//! What bodies fail with, and what they come to.

use std::future::Future;
use std::pin::Pin;

use quoit::{Cancelled, CarriesCancelled, GroupError, TimedOut};

/// What a body fails with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Own(usize),
    Cancelled(Cancelled),
    Both(usize, Cancelled),
    Late,
}

impl From<Cancelled> for Failure {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl From<TimedOut> for Failure {
    fn from(_: TimedOut) -> Self {
        Self::Late
    }
}

impl From<GroupError<Self>> for Failure {
    fn from(error: GroupError<Self>) -> Self {
        let cancelled = error.cancelled();
        // Of children that fail at the same time, any may be the first.
        let first = error.errors().iter().min_by_key(|error| match error {
            Self::Own(id) | Self::Both(id, _) => *id,
            Self::Cancelled(_) | Self::Late => 0,
        });
        match (first, cancelled) {
            (Some(Self::Own(id)), Some(cancelled)) => Self::Both(*id, cancelled),
            (Some(first), _) => first.clone(),
            (None, Some(cancelled)) => Self::Cancelled(cancelled),
            (None, None) => unreachable!("something has failed"),
        }
    }
}

impl CarriesCancelled for Failure {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Cancelled(cancelled) | Self::Both(_, cancelled) => Some(*cancelled),
            Self::Own(_) | Self::Late => None,
        }
    }

    fn rest(self) -> Result<Self, Self> {
        match self {
            Self::Both(id, _) => Ok(Self::Own(id)),
            Self::Cancelled(_) => Err(self),
            other => Ok(other),
        }
    }
}

pub(super) type Outcome = Result<(), Failure>;
pub(super) type Body = Pin<Box<dyn Future<Output = Outcome>>>;
