//! What a step came to, as plain data that two kernels can be compared by.

use std::future::Future;
use std::io;
use std::time::Duration;

use quoit::{CarriesCancelled, Scope};

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is done, and there is nothing more to tell.
    Done,
    /// It came to a number: of bytes, of events.
    Count(u64),
    /// It gave bytes.
    Bytes { count: usize, hash: u64 },
    /// It came to a few words.
    Said(String),
    /// The kernel refused, with this errno.
    Refused(i32),
    /// Something of quoit's refused.
    Failed(io::ErrorKind),
    /// It was cancelled.
    Cancelled,
    /// It had not ended when patience had.
    Waits,
    /// Its object is gone, or was never there.
    Nothing,
}

/// What a script came to, step by step.
pub(crate) type Record = Vec<Outcome>;

impl Outcome {
    /// Bytes, of which no two stretches are alike for long: a hash tells them apart (FNV-1a).
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        let fold =
            |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self::Bytes {
            count: bytes.len(),
            hash: bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold),
        }
    }

    pub(crate) fn said(word: impl Into<String>) -> Self {
        Self::Said(word.into())
    }

    /// What a read into a buffer came to.
    pub(crate) fn read((result, bytes): (io::Result<usize>, Vec<u8>)) -> Self {
        result.map(|count| Self::bytes(&bytes[..count])).into()
    }

    pub(crate) fn counted(result: io::Result<usize>) -> Self {
        result.map(|count| Self::Count(count as u64)).into()
    }

    pub(crate) fn done<T>(result: io::Result<T>) -> Self {
        result.map(|_| Self::Done).into()
    }
}

impl From<io::Result<Self>> for Outcome {
    fn from(result: io::Result<Self>) -> Self {
        let error = match result {
            Ok(outcome) => return outcome,
            Err(error) => error,
        };
        if error.cancelled().is_some() {
            return Self::Cancelled;
        }
        match error.raw_os_error() {
            Some(errno) => Self::Refused(errno),
            None => Self::Failed(error.kind()),
        }
    }
}

/// Waits for a step as long as `patience` lasts.
pub(crate) async fn within(patience: Duration, step: impl Future<Output = Outcome>) -> Outcome {
    let body = async {
        match step.await {
            // To the scope around it, whose deadline it was.
            Outcome::Cancelled => Err(quoit::check().map_or_else(io::Error::from, |()| {
                io::Error::other("cancelled, though its scope is not")
            })),
            outcome => Ok(outcome),
        }
    };
    match Scope::new().timeout(patience).run(body).await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Outcome::Waits,
        Err(error) => Err(error).into(),
    }
}

/// Lets what was let go be let go: a stream that is dropped ends when the kernel is done with it, which
/// takes a cancel request and its answer.
pub(crate) async fn settle() {
    for _ in 0..3 {
        quoit::op::nop().await.expect("nobody cancels it");
    }
}
