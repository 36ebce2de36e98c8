//! Why a request came to nothing, and how a session ended.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;

use quoit::{Cancelled, CarriesCancelled};

use super::framing::FrameError;
use super::json_rpc::{NotJsonRpc, RpcError};
use crate::CallError;

/// Why a session was not opened, or a request on it came to nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// The caller's scope was cancelled. The child was told, if it had been asked; the session goes on.
    Cancelled(Cancelled),
    /// The program was not started.
    Start(io::Error),
    /// The child answered with an error. The session goes on.
    Refused(RpcError),
    /// The child answered, and the answer is not what the protocol says: this is wrong with it.
    Unexpected(String),
    /// The session has ended, and with it all that was asked. Open another.
    Ended(Arc<Ended>),
    /// The session was leased, and the lease is of no use.
    Lease(CallError),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(cancelled) => cancelled.fmt(f),
            Self::Start(error) => write!(f, "the child process was not started: {error}"),
            Self::Refused(error) => write!(f, "the child process refused: {error}"),
            Self::Unexpected(what) => write!(f, "the child process does not keep to MCP: {what}"),
            Self::Ended(ended) => ended.fmt(f),
            Self::Lease(error) => error.fmt(f),
        }
    }
}

impl Error for SessionError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cancelled(cancelled) => Some(cancelled),
            Self::Start(error) => Some(error),
            Self::Refused(error) => Some(error),
            Self::Unexpected(_) => None,
            Self::Ended(ended) => Some(&**ended),
            Self::Lease(error) => Some(error),
        }
    }
}

impl From<Cancelled> for SessionError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl From<CallError> for SessionError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Lease(other),
        }
    }
}

impl CarriesCancelled for SessionError {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Cancelled(cancelled) => Some(*cancelled),
            Self::Start(error) => error.cancelled(),
            _ => None,
        }
    }
}

impl From<SessionError> for io::Error {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Cancelled(cancelled) => cancelled.into(),
            SessionError::Start(error) => error,
            other => Self::other(other),
        }
    }
}

/// How a session ended, and what the child said last.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended {
    /// The child's number.
    pub pid: u32,
    /// What ended the session.
    pub why: Why,
    /// What became of the child; nothing, if it had not ended a second after the session.
    pub status: Option<ExitStatus>,
    /// The last lines that the child wrote to its standard error, as many as were kept.
    pub complaints: Vec<String>,
}

/// What ended a session.
#[derive(Debug)]
#[non_exhaustive]
pub enum Why {
    /// It was closed on this side.
    Closed,
    /// The child has exited, or has closed its output.
    Exited,
    /// The child's bytes are no messages: too long, cut off, without a head.
    Frame(FrameError),
    /// A message of the child's is no JSON-RPC.
    NotJsonRpc(NotJsonRpc),
    /// The child could not read what it was sent, and said so.
    Misread(RpcError),
    /// The child answered what it was never asked: with this id.
    NeverAsked(String),
    /// The child asked more at once than it may, this many, or does not take the answers.
    AsksTooMuch(usize),
    /// The child's output could not be read.
    Read(io::Error),
    /// The child's input could not be written to, and the child had not exited.
    Write(io::Error),
    /// The child could not be waited for.
    Lost(io::Error),
    /// A handler of the child's words panicked, or the core ended with the session open.
    Abandoned,
}

impl Why {
    /// Returns whether what is found out later may say more.
    pub(super) fn is_vague(&self) -> bool {
        matches!(self, Self::Exited | Self::Write(_))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the session was closed"),
            Self::Exited => f.write_str("it exited, or closed its output"),
            Self::Frame(error) => error.fmt(f),
            Self::NotJsonRpc(error) => error.fmt(f),
            Self::Misread(error) => write!(f, "it could not read what it was sent: {error}"),
            Self::NeverAsked(id) => write!(f, "it answered what it was never asked, with id {id}"),
            Self::AsksTooMuch(most) => write!(
                f,
                "it asked for more than {most} things at once, or does not take the answers"
            ),
            Self::Read(error) => write!(f, "its output could not be read: {error}"),
            Self::Write(error) => write!(f, "its input could not be written to: {error}"),
            Self::Lost(error) => write!(f, "it could not be waited for: {error}"),
            Self::Abandoned => f.write_str(
                "a handler of its words panicked, or the core ended with the session open",
            ),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, why, .. } = self;
        write!(f, "the session with child process {pid} has ended: {why}")?;
        match self.status {
            Some(status) => write!(f, " ({status})")?,
            None => f.write_str(" (it has yet to exit)")?,
        }
        if !self.complaints.is_empty() {
            f.write_str("; the last it wrote to its standard error:")?;
            for line in &self.complaints {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}

impl Error for Ended {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.why {
            Why::Frame(error) => Some(error),
            Why::NotJsonRpc(error) => Some(error),
            Why::Misread(error) => Some(error),
            Why::Read(error) | Why::Write(error) | Why::Lost(error) => Some(error),
            _ => None,
        }
    }
}
