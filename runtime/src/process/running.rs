//! `Process`: a child until it has been reaped, and `Running`: one that a core waits for.
//!
//! The kernel keeps the number of a child, and of the group that it leads, until the child is reaped; and
//! nobody but `Process` reaps it. So whatever is signalled here is the child, or its group, and no stranger.
//! (A host that waits for any child of its process, or ignores SIGCHLD, takes them from us. So each time the
//! kernel is asked first whether the child is still ours; what remains is the moment in between.)
//!
//! Invariants:
//! - What is left in a group that a child leads is killed before the child is reaped.
//! - Dropped, a process is killed and reaped. It takes a moment, during which the thread waits.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process::{self, ExitStatus};
use std::time::Duration;

use super::command::Group;
use super::guardian::Watch;
use crate::driver::process as calls;
use crate::op::{self, SharedFd};
use crate::time::sleep;

/// A child that nobody has reaped.
#[derive(Debug)]
pub(super) struct Process {
    child: process::Child,
    group: Group,
    watch: Option<Watch>,
    status: Option<ExitStatus>,
    /// Something else has reaped it: its number may be another's.
    is_taken: bool,
}

/// How long a thread waits for a process that it has killed. The kernel takes a moment; more only for one
/// that hangs in a disk or a network file system.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How long a child that has ended, and is its tracer's still, is left alone before it is asked for again: at first,
/// and in the end.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

impl Process {
    pub(super) fn new(child: process::Child, group: Group) -> Self {
        Self {
            child,
            group,
            watch: None,
            status: None,
            is_taken: false,
        }
    }

    /// Lets the guardian know of it until it has been reaped.
    pub(super) fn watched(&mut self, watch: Watch) {
        self.watch = Some(watch);
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Signals the group, if the child leads one, and else the child.
    pub(super) fn signal(&self, pidfd: RawFd, signal: i32) -> io::Result<()> {
        if !self.is_ours(pidfd) {
            let what = "the child has ended, and was reaped";
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        if self.leads_its_group() {
            calls::signal_group(self.id(), signal)
        } else {
            calls::signal(pidfd, signal)
        }
    }

    /// Returns whether its number is still its own.
    fn is_ours(&self, pidfd: RawFd) -> bool {
        self.status.is_none() && calls::is_ours(pidfd)
    }

    /// A child may have gone to another group.
    fn leads_its_group(&self) -> bool {
        self.group == Group::Own && calls::group_of(self.id()).is_ok_and(|group| group == self.id())
    }

    /// Kills the child, and its group if it was made to lead one.
    pub(super) fn kill(&self, pidfd: RawFd) {
        if self.is_ours(pidfd) {
            self.kill_group();
            // It may have gone to another group. It may have ended.
            let _ = calls::signal(pidfd, libc::SIGKILL);
        }
    }

    fn kill_group(&self) {
        if self.group == Group::Own {
            // Nobody may be left in it.
            let _ = calls::signal_group(self.id(), libc::SIGKILL);
        }
    }

    /// Reaps it if it has ended.
    pub(super) fn reap(&mut self, pidfd: RawFd) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() && calls::has_ended(pidfd)? {
            if !calls::is_ours(pidfd) {
                self.is_taken = true;
                return Err(taken());
            }
            self.kill_group();
            self.status = self.child.try_wait()?;
            if self.status.is_some() {
                self.watch = None;
            }
        }
        Ok(self.status)
    }

    /// Kills and reaps it, and waits for that.
    fn end_here(&mut self) -> io::Result<()> {
        let pidfd = calls::open(self.id())?;
        self.kill(pidfd.as_raw_fd());
        // One that hangs is the guardian's, or that of the end of this process.
        calls::ended_within(pidfd.as_fd(), LAST_WAIT)?;
        self.reap(pidfd.as_raw_fd()).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_some() || self.is_taken {
            return;
        }
        if self.end_here().is_err() && calls::number_is_ours(self.id()) {
            // Without a descriptor to wait with; there may be too few.
            self.kill_group();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The child is gone, and with it its status.
fn taken() -> io::Error {
    let what = "something else in this process has reaped the child: let it wait for its own children \
                only, and do not ignore SIGCHLD";
    io::Error::new(io::ErrorKind::NotFound, what)
}

/// A child that a core waits for.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
    pidfd: SharedFd,
}

impl Running {
    pub(super) fn new(process: Process, pidfd: SharedFd) -> Self {
        Self { process, pidfd }
    }

    /// Waits for its end, and reaps it.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.process.status() {
            return Ok(status);
        }
        let mut pause = SHORTEST_PAUSE;
        loop {
            op::poll(&self.pidfd, libc::POLLIN as u32).await?;
            if let Some(status) = self.reap()? {
                return Ok(status);
            }
            // Somebody traces it, who hears of its end first, and nobody tells us when he has: `ptrace(2)`.
            sleep(pause).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    pub(super) fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.reap(self.pidfd.open_number()?)
    }

    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        self.process.signal(self.pidfd.open_number()?, signal)
    }

    pub(super) fn kill(&self) {
        if let Ok(pidfd) = self.pidfd.open_number() {
            self.process.kill(pidfd);
        } else if let Ok(pidfd) = calls::open(self.process.id()) {
            self.process.kill(pidfd.as_raw_fd());
        }
    }

    pub(super) fn fd(&self) -> &SharedFd {
        &self.pidfd
    }
}

impl Drop for Running {
    /// Whether it is still ours is told by its descriptor alone.
    fn drop(&mut self) {
        let _ = self.reap();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use super::*;
    use crate::process::{Command, Stdio};

    /// The number of a child that the host has reaped is that of its next one.
    #[test]
    fn child_that_got_the_number_of_another_is_left_alone() {
        let cat = || {
            let mut cat = process::Command::new("cat");
            cat.stdin(process::Stdio::piped()).process_group(0);
            cat.spawn().expect("it starts")
        };
        let (mut before, stranger) = (cat(), cat());
        let pidfd = calls::open(before.id()).expect("it is there");
        drop(before.stdin.take());
        before.wait().expect("it ends");
        let id = stranger.id();
        let mut process = Process::new(stranger, Group::Own);
        let input = process.child.stdin.take();
        drop(Running::new(process, pidfd.into()));
        let pidfd = calls::open(id).expect("it lives");
        assert!(calls::is_ours(pidfd.as_raw_fd()), "nobody has reaped it");
        assert!(!calls::has_ended(pidfd.as_raw_fd()).expect("it can be asked"));
        drop(input);
        let ended = calls::ended_within(pidfd.as_fd(), LAST_WAIT);
        assert!(ended.expect("it can be asked"), "its input has ended");
        let pid = i32::try_from(id).ok();
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        let options = rustix::process::WaitOptions::empty();
        let status = rustix::process::waitpid(pid, options).expect("it is ours");
        let (_, status) = status.expect("it has ended");
        assert_eq!(status.exit_status(), Some(0));
    }

    #[test]
    fn child_that_somebody_else_has_reaped_is_left_alone() {
        let ended: io::Result<()> = crate::block_on(async {
            let mut cat = Command::new("cat");
            let mut child = cat.stdin(Stdio::Piped).spawn().await?;
            drop(child.stdin.take());
            let pid = i32::try_from(child.id()).ok();
            let pid = pid.and_then(rustix::process::Pid::from_raw);
            let options = rustix::process::WaitOptions::empty();
            rustix::process::waitpid(pid, options).expect("it ends");
            for _ in 0..2 {
                let error = child.wait().await.expect_err("its status is gone");
                assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
            }
            let error = child.end().await.expect_err("its status is gone");
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
            child
                .signal(crate::signal::Signal::Terminate)
                .expect_err("it is gone");
            child.kill();
            Ok(())
        })
        .expect("tests need io_uring");
        ended.expect("it starts");
    }
}
