//! The two ends of a pipe, as streams of bytes.
//!
//! [`PipeReader`] waits without memory of its own, and loses nothing when a wait is given up;
//! [`PipeWriter`] lets several tasks write one after the other, each as a whole.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use crate::buf::{BufResult, Chunk, Interrupted, IoBuf, IoBufMut, SliceExt};
use crate::driver::sys;
use crate::kernel_op::KernelOp;
use crate::kernel_op::multishot::{Multishot, NextWait};
use crate::kernel_op::pipe::{FromPipe, IntoPipe};
use crate::kernel_op::turn::SendTurn;
use crate::op::{self, SharedFd};
use crate::scope::park;
use crate::task::current;

/// The end of a pipe that is read from. Dropped, it is closed: who writes then fails with `BrokenPipe`.
///
/// One task at a time may read.
///
/// ```
/// use quoit::op::{self, PipeReader, PipeWriter};
///
/// quoit::block_on(async {
///     let (reader, writer) = op::pipe()?;
///     let (reader, writer) = (PipeReader::new(reader), PipeWriter::new(writer)?);
///     writer.write_all("hello").await.0?;
///     drop(writer);
///     assert_eq!(reader.receive().await?.as_deref(), Some(&b"hello"[..]));
///     assert!(reader.receive().await?.is_none());
///     Ok::<_, std::io::Error>(())
/// })??;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PipeReader {
    received: Multishot<FromPipe>,
    /// What is left of a chunk that was read in part.
    rest: RefCell<Option<Chunk>>,
}

impl PipeReader {
    /// Takes over the end of a pipe that is read from: of a pipe, a FIFO or a terminal; a file has no
    /// end to wait at, and a socket is an [`op::Stream`].
    pub fn new(fd: SharedFd) -> Self {
        Self {
            received: Multishot::new(fd),
            rest: RefCell::new(None),
        }
    }

    /// Waits for bytes; `None` when nobody can write any more and all was read. The bytes lie in a
    /// buffer of the core's, which goes back when the chunk is dropped.
    ///
    /// The kernel is asked each time: a FIFO that somebody opens anew, and a terminal behind a Ctrl-D, have more to give
    /// after a `None`.
    ///
    /// # Errors
    ///
    /// Those of `read(2)`; `ResourceBusy` while another task waits. Cancelled or dropped, nothing is
    /// lost: what arrives is there for the next call.
    pub fn receive(&self) -> impl Future<Output = io::Result<Option<Chunk>>> {
        let mut wait = Wait {
            reader: self,
            wait: NextWait::default(),
        };
        poll_fn(move |cx| wait.poll(cx))
    }

    /// Reads into a buffer, from its start: as much as is there, at least a byte; 0 at the end, or if
    /// the buffer has no room.
    ///
    /// # Errors
    ///
    /// As for [`PipeReader::receive`].
    pub async fn read<B: IoBufMut>(&self, mut buf: B) -> BufResult<usize, B> {
        if buf.capacity() == 0 {
            let checked = op::nothing_on(self.received.fd()).await;
            return (checked.map(|()| 0), buf);
        }
        match self.receive().await {
            Ok(Some(mut chunk)) => {
                let count = crate::buf::fill(&mut buf, &chunk);
                chunk.advance(count);
                if !chunk.is_empty() {
                    self.rest.replace(Some(chunk));
                }
                (Ok(count), buf)
            }
            Ok(None) => (Ok(0), buf),
            Err(error) => (Err(error), buf),
        }
    }

    /// Returns the descriptor.
    pub fn fd(&self) -> SharedFd {
        self.received.fd().clone()
    }

    fn poll_receive(
        &self,
        wait: &mut NextWait,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Chunk>>> {
        if self.rest.borrow().is_none() {
            return self.received.poll_next(wait, cx);
        }
        // An op looks at its scope also when what it wants is there.
        ready!(current::with(|core| park::entry(core, cx.waker())))?;
        match self.rest.take() {
            // The look may have woken somebody who polls where he is woken, and has taken it.
            None => self.received.poll_next(wait, cx),
            rest => Poll::Ready(Ok(rest)),
        }
    }
}

/// One wait for bytes.
struct Wait<'a> {
    reader: &'a PipeReader,
    wait: NextWait,
}

impl Wait<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        self.reader.poll_receive(&mut self.wait, cx)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.reader.received.end_wait(&mut self.wait);
    }
}

/// The end of a pipe that is written to. Dropped, it is closed, once no write uses it: who reads finds
/// the end.
///
/// Writes of several tasks go in one after the other, each as a whole.
#[derive(Debug)]
pub struct PipeWriter {
    fd: SharedFd,
}

impl PipeWriter {
    /// Takes over the end of a pipe that is written to.
    ///
    /// A write to a pipe that nobody reads fails with `BrokenPipe`, and never ends the process: where
    /// SIGPIPE would do that, it is blocked from here on, for this thread alone. A program whose `main`
    /// is Rust's ignores it anyway.
    ///
    /// # Errors
    ///
    /// Those of `pthread_sigmask(3)`.
    pub fn new(fd: SharedFd) -> io::Result<Self> {
        sys::outlive_broken_pipes()?;
        Ok(Self { fd })
    }

    /// Writes what the pipe takes; returns how much. `write(2)`.
    ///
    /// # Errors
    ///
    /// Those of `write(2)`; `BrokenPipe` if nobody reads; never a signal.
    pub async fn write<B: IoBuf>(&self, buf: B) -> BufResult<usize, B> {
        match SendTurn::take(&self.fd).await {
            Ok(turn) => {
                let (result, buf, _turn) = self.write_op(buf, turn).await;
                (result, buf)
            }
            Err(cancelled) => (Err(cancelled.into()), buf),
        }
    }

    /// Writes all of a buffer.
    ///
    /// # Errors
    ///
    /// As for [`PipeWriter::write`]. If some bytes went in before a failure or a cancel, the error
    /// holds an [`Interrupted`] that says how many.
    pub async fn write_all<B: IoBuf>(&self, mut buf: B) -> BufResult<(), B> {
        let total = buf.len();
        if total == 0 {
            return (op::nothing_on(&self.fd).await, buf);
        }
        let mut turn = match SendTurn::take(&self.fd).await {
            Ok(turn) => turn,
            Err(cancelled) => return (Err(cancelled.into()), buf),
        };
        let mut written = 0;
        while written < total {
            let (result, rest);
            (result, rest, turn) = self.write_op(buf.slice(written..), turn).await;
            buf = rest.into_inner();
            match result {
                Ok(0) => {
                    let none = io::ErrorKind::WriteZero.into();
                    return (Err(Interrupted::after(written, none)), buf);
                }
                Ok(count) => written += count,
                Err(error) => return (Err(Interrupted::after(written, error)), buf),
            }
        }
        (Ok(()), buf)
    }

    /// Closes this end, also under writes that are on their way, and waits until that is done: who
    /// reads finds the end. Happens also in a cancelled scope.
    ///
    /// # Errors
    ///
    /// As for [`op::close`].
    pub fn close(self) -> impl Future<Output = io::Result<()>> {
        op::close(self.fd)
    }

    /// Returns the descriptor.
    pub fn fd(&self) -> SharedFd {
        self.fd.clone()
    }

    async fn write_op<B: IoBuf>(&self, buf: B, turn: SendTurn) -> (io::Result<usize>, B, SendTurn) {
        KernelOp::new(IntoPipe::new(buf, turn), Some(self.fd.clone())).await
    }
}

impl From<OwnedFd> for PipeReader {
    fn from(fd: OwnedFd) -> Self {
        Self::new(fd.into())
    }
}
