//! `Process`: a child until it has been reaped, and `Running`: one that a core waits for.
//!
//! The kernel keeps the number of a child, and of the group that it leads, until the child is reaped; and
//! nobody but `Process` reaps it. So whatever is signalled here is the child, or its group, and no stranger.
//! (A host that waits for any child of its process, or ignores SIGCHLD, takes them from us: then only the
//! signals to the child itself, which go by its descriptor, are safe.)
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

/// A child that nobody has reaped.
#[derive(Debug)]
pub(super) struct Process {
    child: process::Child,
    group: Group,
    watch: Option<Watch>,
    status: Option<ExitStatus>,
}

/// How long a thread waits for a process that it has killed. The kernel takes a moment; more only for one
/// that hangs in a disk or a network file system.
const LAST_WAIT: Duration = Duration::from_secs(1);

impl Process {
    pub(super) fn new(child: process::Child, group: Group) -> Self {
        Self {
            child,
            group,
            watch: None,
            status: None,
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
        if self.status.is_some() {
            let what = "the child has ended, and was reaped";
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        if self.leads_its_group() {
            calls::signal_group(self.id(), signal)
        } else {
            calls::signal(pidfd, signal)
        }
    }

    /// A child may have gone to another group.
    fn leads_its_group(&self) -> bool {
        self.group == Group::Own && calls::group_of(self.id()).is_ok_and(|group| group == self.id())
    }

    /// Kills the child, and its group if it was made to lead one.
    pub(super) fn kill(&self, pidfd: RawFd) {
        if self.status.is_none() {
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
        if self.status.is_none() && self.end_here().is_err() {
            // Without a descriptor to wait with; there may be too few.
            self.kill_group();
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
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
        loop {
            if let Some(status) = self.process.status() {
                return Ok(status);
            }
            op::poll(&self.pidfd, libc::POLLIN as u32).await?;
            self.reap()?;
        }
    }

    pub(super) fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.reap(self.pidfd.as_raw_fd())
    }

    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        self.process.signal(self.pidfd.as_raw_fd(), signal)
    }

    pub(super) fn kill(&self) {
        self.process.kill(self.pidfd.as_raw_fd());
    }

    pub(super) fn fd(&self) -> &SharedFd {
        &self.pidfd
    }
}
