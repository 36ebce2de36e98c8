//! The system calls of child processes.
//!
//! None of them waits, but for the one that says for how long. There are no simulated processes: nobody
//! comes here in a simulation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// Opens a child that nobody has reaped. `pidfd_open(2)`.
pub(crate) fn open(pid: u32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(
        number(pid)?,
        PidfdFlags::empty(),
    )?)
}

/// Signals one process, and never another that got its number. `pidfd_send_signal(2)`.
pub(crate) fn signal(pidfd: RawFd, signal: i32) -> io::Result<()> {
    let signal = named(signal)?;
    Ok(rustix::process::pidfd_send_signal(borrowed(pidfd), signal)?)
}

/// Signals a process group whose leader is a child that nobody has reaped, so that the number is still
/// its own. `kill(2)`.
pub(crate) fn signal_group(leader: u32, signal: i32) -> io::Result<()> {
    let signal = named(signal)?;
    Ok(rustix::process::kill_process_group(
        number(leader)?,
        signal,
    )?)
}

/// Returns the process group of a child that nobody has reaped. `getpgid(2)`.
pub(crate) fn group_of(pid: u32) -> io::Result<u32> {
    let group = rustix::process::getpgid(Some(number(pid)?))?;
    Ok(group.as_raw_nonzero().get().unsigned_abs())
}

/// Returns whether a process is a child of ours that nobody has reaped. `waitid(2)`.
pub(crate) fn is_ours(pidfd: RawFd) -> bool {
    is_waited_for(WaitId::PidFd(borrowed(pidfd)))
}

/// The same, where there is only a number.
pub(crate) fn number_is_ours(pid: u32) -> bool {
    number(pid).is_ok_and(|pid| is_waited_for(WaitId::Pid(pid)))
}

fn is_waited_for(child: WaitId<'_>) -> bool {
    // Leaves it as it is.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(
        rustix::process::waitid(child, look),
        Err(rustix::io::Errno::CHILD)
    )
}

/// Returns whether a process has ended, reaped or not. `poll(2)`.
pub(crate) fn has_ended(pidfd: RawFd) -> io::Result<bool> {
    ended_within(borrowed(pidfd), Duration::ZERO)
}

/// Waits so long for a process to end; returns whether it has. `poll(2)`.
pub(crate) fn ended_within(pidfd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    ready(pidfd, PollFlags::IN, &timeout)
}

/// Waits so long for room in a socket; returns whether there is some. `poll(2)`.
pub(crate) fn writable_within(socket: impl AsFd, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    ready(socket.as_fd(), PollFlags::OUT, &timeout)
}

fn ready(fd: BorrowedFd<'_>, events: PollFlags, timeout: &Timespec) -> io::Result<bool> {
    loop {
        match rustix::event::poll(&mut [PollFd::new(&fd, events)], Some(timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Returns when a process was started, in the kernel's own terms: two that had one number, one after the
/// other, differ in it. `proc_pid_stat(5)`.
pub(crate) fn started_at(pid: u32) -> io::Result<String> {
    // The second field is a name, in parentheses, and may have any of both in it; and bytes that are no text, were it
    // only since the kernel cuts it off after so many.
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    let stat = String::from_utf8_lossy(&stat);
    let behind = stat.rsplit_once(')').map(|(_, behind)| behind);
    let field = behind.and_then(|behind| behind.split_whitespace().nth(STARTED));
    field.map(str::to_owned).ok_or_else(|| {
        let what = format!("/proc/{pid}/stat says \"{stat}\", which has no start time");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// The place of the start time behind the name: the 22nd of all.
const STARTED: usize = 19;

fn number(pid: u32) -> io::Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

fn named(signal: i32) -> io::Result<Signal> {
    Signal::from_named_raw(signal).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

fn borrowed<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the caller's `SharedFd` keeps the number open for the duration of the call, and the
    // functions here keep nothing of it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_the_next_with_its_number_by_its_start() {
        let me = std::process::id();
        let start = started_at(me).expect("every process has a start");
        assert!(start.parse::<u64>().expect("a number") > 0);
        assert_eq!(started_at(me).expect("it lives"), start);
        let first = started_at(1).expect("every machine has a first process");
        assert_ne!(first, start);
    }
}
