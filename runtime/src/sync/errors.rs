//! What calls answer that do not wait.

use std::error::Error;
use std::{fmt, io};

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
    /// So many items were overwritten before this receiver had seen them. The next call goes on with
    /// the oldest that is left. Only a [`broadcast`](super::broadcast) answers this.
    Lagged(u64),
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("nothing is there to be received"),
            Self::Closed => f.write_str("nothing is there to be received, and nothing will come"),
            Self::Lagged(lost) => write!(f, "{lost} items were overwritten before they were seen"),
        }
    }
}

impl Error for TryRecvError {}

impl From<TryRecvError> for io::Error {
    fn from(error: TryRecvError) -> Self {
        let kind = match error {
            TryRecvError::Empty => io::ErrorKind::WouldBlock,
            TryRecvError::Closed => io::ErrorKind::UnexpectedEof,
            TryRecvError::Lagged(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
