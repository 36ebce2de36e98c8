//! Why a call did nothing: what was to be sent comes back.

use std::error::Error;
use std::{fmt, io};

use crate::scope::Cancelled;

/// It is not to be had now: somebody else has it, or waits for it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WouldBlock;

impl fmt::Display for WouldBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("somebody else has it, or waits for it already")
    }
}

impl Error for WouldBlock {}

impl From<WouldBlock> for io::Error {
    fn from(error: WouldBlock) -> Self {
        Self::new(io::ErrorKind::WouldBlock, error)
    }
}

/// Why nothing was received at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing is there, or it belongs to somebody who waited for it.
    Empty,
    /// Nothing is there, and nothing will come.
    Closed,
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "nothing is there to be received",
            Self::Closed => "nothing is there to be received, and nothing will come",
        })
    }
}

impl Error for TryRecvError {}

impl From<TryRecvError> for io::Error {
    fn from(error: TryRecvError) -> Self {
        let kind = match error {
            TryRecvError::Empty => io::ErrorKind::WouldBlock,
            TryRecvError::Closed => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}

/// Why an item was not sent; here it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// There is no receiver any more.
    Closed(T),
    /// The send was cancelled first.
    Cancelled(T, Cancelled),
}

impl<T> SendError<T> {
    /// Returns the item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Closed(item) | Self::Cancelled(item, _) => item,
        }
    }

    /// Returns the cancellation, if that is why.
    pub fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Closed(_) => None,
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
            Self::Closed(_) => f.write_str(CLOSED),
            Self::Cancelled(_, cancelled) => cancelled.fmt(f),
        }
    }
}

impl<T> Error for SendError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Closed(_) => None,
            Self::Cancelled(_, cancelled) => Some(cancelled),
        }
    }
}

/// The item is dropped.
impl<T> From<SendError<T>> for io::Error {
    fn from(error: SendError<T>) -> Self {
        match error {
            SendError::Closed(_) => Self::new(io::ErrorKind::BrokenPipe, CLOSED),
            SendError::Cancelled(_, cancelled) => cancelled.into(),
        }
    }
}

/// Why an item was not sent at once; here it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room, or somebody waits for it already.
    Full(T),
    /// There is no receiver any more.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// Returns the item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) => item,
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrySendError({self})")
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => FULL,
            Self::Closed(_) => CLOSED,
        })
    }
}

impl<T> Error for TrySendError<T> {}

/// The item is dropped.
impl<T> From<TrySendError<T>> for io::Error {
    fn from(error: TrySendError<T>) -> Self {
        match error {
            TrySendError::Full(_) => Self::new(io::ErrorKind::WouldBlock, FULL),
            TrySendError::Closed(_) => Self::new(io::ErrorKind::BrokenPipe, CLOSED),
        }
    }
}

const FULL: &str = "the channel is full";
const CLOSED: &str = "the channel is closed: nobody receives from it";
