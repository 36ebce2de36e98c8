//! What a child writes, as a whole.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::task::{Context, Poll};

use super::child::Child;
use crate::op::PipeReader;

/// What a child has written, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its output, if that was piped.
    pub stdout: Vec<u8>,
    /// What it wrote to its error output, if that was piped.
    pub stderr: Vec<u8>,
}

/// A child wrote more than was asked for. It comes inside an [`io::Error`] of the kind `FileTooLarge`,
/// where `error.get_ref()` finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputTooLong {
    /// The most that was wanted of each stream.
    pub limit: usize,
    /// What came of its output before.
    pub stdout: Vec<u8>,
    /// What came of its error output before.
    pub stderr: Vec<u8>,
}

impl fmt::Display for OutputTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the child wrote more than {} bytes, and was ended: allow more, or read it piece by piece",
            self.limit
        )
    }
}

impl Error for OutputTooLong {}

/// Reads what a child writes until its end; ends it if it writes too much.
pub(super) async fn wait_with_output(child: &mut Child, limit: usize) -> io::Result<Output> {
    crate::op::entry().await?;
    child.stdin = None;
    // The readers stay the child's: one that is ended before it has said all may go on saying it.
    let ([stdout, stderr], running) = child.parts();
    let mut stdout = Collected::of(stdout, limit);
    let mut stderr = Collected::of(stderr, limit);
    let read = {
        let (first, second) = (pin!(stdout.read()), pin!(stderr.read()));
        let mut reads = [Some(first), Some(second)];
        let mut wait = pin!(running.ended());
        let mut ended = None;
        poll_fn(|cx| {
            for read in &mut reads {
                if poll_part(read, cx)?.is_none() {
                    return Poll::Ready(Ok::<_, io::Error>(None));
                }
            }
            if ended.is_none()
                && let Poll::Ready(status) = wait.as_mut().poll(cx)
            {
                ended = Some(status?);
            }
            match ended {
                Some(status) if reads.iter().all(Option::is_none) => Poll::Ready(Ok(Some(status))),
                _ => Poll::Pending,
            }
        })
        .await?
    };
    let (stdout, stderr) = (stdout.bytes, stderr.bytes);
    let Some(status) = read else {
        child.end().await?;
        let too_long = OutputTooLong {
            limit,
            stdout,
            stderr,
        };
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, too_long));
    };
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Polls a reader until it has ended; `None` if there was too much for it.
fn poll_part<F: Future<Output = io::Result<bool>>>(
    part: &mut Option<Pin<&mut F>>,
    cx: &mut Context<'_>,
) -> io::Result<Option<()>> {
    if let Some(read) = part
        && let Poll::Ready(whole) = read.as_mut().poll(cx)
    {
        *part = None;
        return Ok(whole?.then_some(()));
    }
    Ok(Some(()))
}

struct Collected<'a> {
    reader: Option<&'a PipeReader>,
    limit: usize,
    bytes: Vec<u8>,
}

impl<'a> Collected<'a> {
    fn of(reader: Option<&'a PipeReader>, limit: usize) -> Self {
        Self {
            reader,
            limit,
            bytes: Vec::new(),
        }
    }

    /// Reads to the end; false if there is more than was wanted.
    async fn read(&mut self) -> io::Result<bool> {
        let Some(reader) = self.reader else {
            return Ok(true);
        };
        while let Some(chunk) = reader.receive().await? {
            let room = self.limit - self.bytes.len();
            let part = chunk.len().min(room);
            self.bytes.extend_from_slice(&chunk[..part]);
            if part < chunk.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
