//! Why a piece of a body was not sent.

use std::error::Error;
use std::{fmt, io};

use quoit::Cancelled;

/// Why a piece of a body, or what follows one, was not sent; here it is.
#[derive(Clone, PartialEq, Eq)]
pub enum SendError<T> {
    /// Nobody takes the body any more: the client has gone, or did not want it.
    Gone(T),
    /// The send was cancelled first: it can be sent again, by whoever is not.
    Cancelled(T, Cancelled),
}

impl<T> SendError<T> {
    /// Returns what was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::Gone(piece) | Self::Cancelled(piece, _) => piece,
        }
    }

    /// Returns the cancellation, if that is why.
    pub fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Gone(_) => None,
            Self::Cancelled(_, cancelled) => Some(*cancelled),
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendError({self})")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(_) => f.write_str(GONE),
            Self::Cancelled(_, cancelled) => cancelled.fmt(f),
        }
    }
}

impl<T> Error for SendError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Gone(_) => None,
            Self::Cancelled(_, cancelled) => Some(cancelled),
        }
    }
}

/// What was not sent is dropped. `BrokenPipe` if nobody takes the body.
impl<T> From<SendError<T>> for io::Error {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Gone(_) => Self::new(io::ErrorKind::BrokenPipe, GONE),
            SendError::Cancelled(_, cancelled) => cancelled.into(),
        }
    }
}

const GONE: &str = "nobody takes this body any more: the client has gone, or did not want it";
