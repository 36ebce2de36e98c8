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
