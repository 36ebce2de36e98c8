//! `Child`: a process of ours, and its end.
//!
//! ```text
//!            wait, try_wait                        the kernel says: ended
//!   (runs) ─────────────────► (runs) ──────────────────────────────────────► (reaped)
//!     │                                                                          ▲
//!     │ end, or drop     after a while       at the end of the grace             │
//!     ▼                                                                          │
//!   input closed ──────► SIGTERM ──────────► SIGKILL ────────────────────────────┘
//! ```
//!
//! A child that is dropped before it was reaped is left to a task under the active scope, shielded, which
//! ends it; so that scope ends after it. What is dropped at the end of its core, where no task goes on, is
//! killed and reaped there and then.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::process::ExitStatus;
use std::task::Poll;

use super::ending::{Ending, Next, Step};
use super::output::{Output, wait_with_output};
use super::running::Running;
use super::start::Started;
use crate::Scope;
use crate::op::{PipeReader, PipeWriter, SharedFd};
use crate::signal::Signal;
use crate::task;
use crate::time::Instant;

/// A child process, and this side of its pipes.
///
/// Dropped before its end was seen, it is ended as its [`Ending`] says, and the scope around ends after
/// it; see [the module](super#how-a-child-ends).
#[derive(Debug)]
pub struct Child {
    /// What the child reads, if [`Stdio::Piped`](super::Stdio::Piped) said so. Dropped, it is closed.
    pub stdin: Option<PipeWriter>,
    /// What the child writes, if it was piped.
    pub stdout: Option<PipeReader>,
    /// What the child complains, if it was piped.
    pub stderr: Option<PipeReader>,
    id: u32,
    ending: Ending,
    /// Until it is handed to the task that ends it.
    running: Option<Running>,
    /// How far its end has come, since when.
    begun: Option<(Step, Instant)>,
    /// It was dropped once, and is that task's.
    left_behind: bool,
}

impl Child {
    pub(super) fn new(started: Started, ending: Ending) -> io::Result<Self> {
        let Started {
            process,
            pidfd,
            stdin,
            stdout,
            stderr,
        } = started;
        let mut child = Self {
            stdin: None,
            stdout: stdout.map(PipeReader::from),
            stderr: stderr.map(PipeReader::from),
            id: process.id(),
            ending,
            running: Some(Running::new(process, pidfd.into())),
            begun: None,
            left_behind: false,
        };
        child.stdin = stdin.map(writer).transpose()?;
        Ok(child)
    }

    /// Returns its number. It stays the child's until that has been reaped.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits for the child to end by itself, and reaps it. Closes its input first, so that one that waits
    /// for more does not wait for ever. What was piped is read elsewhere, or a child that writes much waits
    /// for that: see [`Child::wait_with_output`].
    ///
    /// What the child has left behind in the [group](super::Group) that it leads is killed.
    ///
    /// May be called again: the status stays.
    ///
    /// # Errors
    ///
    /// [`Cancelled`](crate::Cancelled), and nothing has happened but that the input was closed, unless it was cancelled
    /// before it began: the child runs on, and can be waited for again, or ended with [`Child::end`]. Those of
    /// `waitid(2)`; `NotFound` if something else in this process has reaped it.
    ///
    /// # Panics
    ///
    /// When polled off a core.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        crate::op::entry().await?;
        self.stdin = None;
        self.running_mut().ended().await
    }

    /// Returns the child's status if it has ended, and reaps it, as [`Child::wait`] does; `None` while it
    /// runs.
    ///
    /// # Errors
    ///
    /// As for [`Child::wait`], but for `Cancelled`.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.running_mut().reap()
    }

    /// Takes what the child writes, to its end, at most `limit` bytes of each stream; waits for it, and
    /// reaps it. Its input is closed first.
    ///
    /// A stream ends when nobody can write to it any more. What the child leaves behind in its group goes
    /// when it ends; something in another group, which has the child's output, holds this up.
    ///
    /// # Errors
    ///
    /// [`Cancelled`](crate::Cancelled): the child is ended as if it were dropped.
    /// [`OutputTooLong`](super::OutputTooLong) inside an error of the kind `FileTooLarge`: it was ended, and
    /// has been reaped. Those of [`Child::wait`] and `read(2)`.
    pub async fn wait_with_output(mut self, limit: usize) -> io::Result<Output> {
        wait_with_output(&mut self, limit).await
    }

    /// Sends a signal to the child's [group](super::Group), or, if it leads none, to the child. Never to a
    /// stranger: see [`Child::id`].
    ///
    /// # Errors
    ///
    /// `NotFound` once the child has been reaped. Those of `kill(2)`.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.running().signal(signal.number())
    }

    /// Kills the child and its [group](super::Group), with SIGKILL. It has still to be waited for, or
    /// dropped. Of a child that has ended it is too late, and does nothing.
    pub fn kill(&self) {
        self.running().kill();
    }

    /// Ends the child as its [`Ending`] says, waits for that, and reaps it. Of one that has ended it returns
    /// the status.
    ///
    /// A release: no cancel ends or shortens it, and it happens also in a cancelled scope. It takes no
    /// longer than the grace, and the moment that the kernel needs; only a process that hangs in the kernel,
    /// in a disk that does not answer, takes as long as that. Dropped, it goes on without its caller, from
    /// where it was.
    ///
    /// What the child still writes to its pipes is read, and lost, so that it neither waits nor dies of that.
    ///
    /// # Errors
    ///
    /// Those of [`Child::wait`], but for `Cancelled`.
    pub async fn end(&mut self) -> io::Result<ExitStatus> {
        let scope = Scope::new().shielded();
        let ended = scope.run(self.end_in_time()).await?;
        Ok(ended.expect("nobody cancels this scope"))
    }

    /// Returns the descriptor of the process itself, for `pidfd_getfd(2)` and the like. `pidfd_open(2)`.
    ///
    /// The child is known by it. Closed with [`op::close`](crate::op::close), it lets all that asks for the child's
    /// end fail with [`Closed`](crate::Closed); the child can still be killed, and is when it is dropped.
    pub fn fd(&self) -> SharedFd {
        self.running().fd().clone()
    }

    async fn end_in_time(&mut self) -> io::Result<ExitStatus> {
        self.stdin = None;
        let ending = self.ending;
        let running = self.running.as_mut().expect("taken by the drop alone");
        let begun = self
            .begun
            .get_or_insert_with(|| (Step::CloseInput, Instant::now()));
        // They stay the child's: whoever goes on with the end goes on with them.
        let outputs = [self.stdout.as_ref(), self.stderr.as_ref()];
        let status = unheard(outputs, end_by_steps(running, ending, begun)).await;
        (self.stdout, self.stderr) = (None, None);
        status
    }

    /// As [`Child::wait`]; what the child writes meanwhile is read, and lost.
    pub(super) async fn wait_unheard(&mut self) -> io::Result<ExitStatus> {
        crate::op::entry().await?;
        self.stdin = None;
        let (outputs, running) = self.parts();
        unheard(outputs, running.ended()).await
    }

    /// Returns what its output is read by, and what waits for its end meanwhile.
    pub(super) fn parts(&mut self) -> ([Option<&PipeReader>; 2], &mut Running) {
        let running = self.running.as_mut().expect("taken by the drop alone");
        ([self.stdout.as_ref(), self.stderr.as_ref()], running)
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("taken by the drop alone")
    }

    fn running_mut(&mut self) -> &mut Running {
        self.running.as_mut().expect("taken by the drop alone")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        if self.left_behind || matches!(running.reap(), Ok(Some(_))) {
            return;
        }
        let mut left = Self {
            stdin: self.stdin.take(),
            stdout: self.stdout.take(),
            stderr: self.stderr.take(),
            running: Some(running),
            left_behind: true,
            ..*self
        };
        task::leave_behind(async move {
            // There is nobody to tell of an error; what is left is killed when the child is dropped.
            let _ = left.end().await;
        });
    }
}

/// Goes on with the end of a child from where it is.
async fn end_by_steps(
    running: &mut Running,
    ending: Ending,
    begun: &mut (Step, Instant),
) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = running.reap()? {
            return Ok(status);
        }
        let (last, since) = *begun;
        match ending.next(last, since.elapsed()) {
            Next::Do(step) => {
                match step {
                    Step::CloseInput => unreachable!("that was the first"),
                    // It may have ended in this moment; then the next look finds that. Stopped, it would not hear.
                    Step::Terminate => {
                        drop(running.signal(libc::SIGTERM));
                        drop(running.signal(libc::SIGCONT));
                    }
                    Step::Kill => running.kill(),
                }
                *begun = (step, since);
            }
            Next::Wait(None) => return running.ended().await,
            Next::Wait(Some(passed)) => {
                let scope = Scope::new().deadline(since + passed);
                if let Some(status) = scope.run(running.ended()).await? {
                    return Ok(status);
                }
            }
        }
    }
}

/// Waits for something, and loses what a child writes meanwhile.
async fn unheard<T>(outputs: [Option<&PipeReader>; 2], waits: impl Future<Output = T>) -> T {
    let mut lost = pin!(lose(outputs));
    let mut waits = pin!(waits);
    poll_fn(|cx| {
        let _ = lost.as_mut().poll(cx);
        waits.as_mut().poll(cx)
    })
    .await
}

/// Reads to the end, for nobody.
async fn lose(outputs: [Option<&PipeReader>; 2]) {
    let mut readers = outputs.map(|reader| reader.map(|reader| Box::pin(lose_one(reader))));
    poll_fn(|cx| {
        for place in &mut readers {
            if let Some(reader) = place
                && reader.as_mut().poll(cx).is_ready()
            {
                *place = None;
            }
        }
        Poll::<()>::Pending
    })
    .await;
}

async fn lose_one(reader: &PipeReader) {
    while let Ok(Some(_)) = reader.receive().await {}
}

fn writer(fd: OwnedFd) -> io::Result<PipeWriter> {
    PipeWriter::new(fd.into())
}
