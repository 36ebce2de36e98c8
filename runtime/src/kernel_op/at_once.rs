//! What is done past the ring, by a task that has the core for itself: the ring would save no system call there.
//!
//! Of files, only what cannot keep the core waiting: a read of what lies in the page cache, and a write to a pipe or a
//! device that says it need not wait (`RWF_NOWAIT`, `preadv2(2)`). Not a direct read or write, which waits for the
//! disk all the same; nor a write to a file, which waits while its file system is frozen (`fsfreeze(8)`), for ops
//! of this core as well.

use std::io;
use std::os::fd::AsRawFd;

use super::fd::SharedFd;
use super::kind::OpKind;
use super::payload::{Operation, Outcome};
use super::request::{CURRENT_POSITION, Region, RegionMut, Request};
use crate::core_state::Core;
use crate::driver::sys;
use crate::time::Instant;

/// What of a descriptor may be done past the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtOnce {
    /// Nobody has looked yet.
    Unknown,
    Nothing,
    /// Reads at an offset: of a file, through the page cache.
    Reads,
    /// Writes at its own position: a pipe, or a device.
    Writes,
    /// Nothing of a terminal. The ring asks it whether there is any room, and then writes all, where it is submitted: on a
    /// terminal that is held up (Ctrl-S), a core would wait until it goes on.
    Terminal,
}

/// Makes a system call in place of an op; `None` if the ring is to do it.
fn call(
    core: &Core,
    kind: OpKind,
    call: impl FnOnce() -> Option<io::Result<usize>>,
) -> Option<io::Result<usize>> {
    let begun = Instant::now();
    let result = call()?;
    let ended = Instant::now();
    core.note_time(ended);
    core.shared.latencies.op(kind).record_one(ended - begun);
    Some(result)
}

/// Returns whether a call that has failed so is the ring's to do: it cannot be done at once, or a filter of system
/// calls refuses it. `seccomp(2)`.
fn is_for_the_ring(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::EPERM | libc::ENOSYS | libc::EOPNOTSUPP)
    )
}

/// Does an op past the ring, if it may be and it can be.
#[inline]
pub(crate) fn attempt<O: Operation>(
    core: &Core,
    fd: &SharedFd,
    operation: &mut O,
) -> Option<Outcome> {
    match O::KIND {
        OpKind::Read | OpKind::Write => on_file(core, fd, operation),
        OpKind::Send if core.is_alone() => match operation.request(fd.as_raw_fd()) {
            Request::Send { from, .. } => send(core, fd, from).map(outcome),
            _ => None,
        },
        _ => None,
    }
}

/// Sends what a socket takes.
pub(crate) fn send(core: &Core, fd: &SharedFd, from: Region) -> Option<io::Result<usize>> {
    let sent = call(core, OpKind::Send, || {
        match sys::send_at_once(fd.as_raw_fd(), from) {
            Err(error) if is_for_the_ring(&error) => None,
            sent => Some(sent),
        }
    });
    core.counters().direct_sends.add(u64::from(sent.is_some()));
    sent
}

/// Reads what lies in the page cache, and writes what a pipe or a device takes.
#[inline]
fn on_file<O: Operation>(core: &Core, fd: &SharedFd, operation: &mut O) -> Option<Outcome> {
    let known = fd.at_once();
    if known == AtOnce::Nothing {
        return None;
    }
    let request = operation.request(fd.as_raw_fd());
    let (asks, bytes) = match request {
        Request::Read { offset, into, .. } if offset != CURRENT_POSITION => {
            (AtOnce::Reads, into.length)
        }
        Request::Write { from, .. } => (AtOnce::Writes, from.length),
        _ => return None,
    };
    let known = match known {
        // Also who is not alone has to know whether it is a terminal.
        AtOnce::Unknown if asks == AtOnce::Writes => look(fd),
        known => known,
    };
    if known == AtOnce::Terminal && asks == AtOnce::Writes {
        operation.set_apart();
        return None;
    }
    if let Request::Write { offset, .. } = request
        && offset != CURRENT_POSITION
    {
        return None;
    }
    if known != asks && known != AtOnce::Unknown || !core.is_alone_on_a_file(bytes) {
        return None;
    }
    // What is not asked of it need not be known.
    if known == AtOnce::Unknown && look(fd) != asks {
        return None;
    }
    match request {
        Request::Read { into, offset, .. } => read(core, fd, into, offset),
        Request::Write { from, .. } => write(core, fd, from),
        _ => None,
    }
}

#[cold]
fn look(fd: &SharedFd) -> AtOnce {
    let found = sys::at_once(fd.as_raw_fd());
    fd.set_at_once(found);
    found
}

fn read(core: &Core, fd: &SharedFd, into: RegionMut, offset: u64) -> Option<Outcome> {
    let read = call(core, OpKind::Read, || {
        let read = or_never_again(fd, sys::read_at_once(fd.as_raw_fd(), into, offset)).ok()?;
        // Of what is there in part, the ring reads all.
        let is_all = read == into.length as usize
            || read == 0
            || sys::size(fd.as_raw_fd()).is_ok_and(|size| is_the_end(offset, read, size));
        is_all.then_some(Ok(read))
    });
    core.counters().direct_reads.add(u64::from(read.is_some()));
    read.map(outcome)
}

/// Returns whether so many bytes from there on are the last of a file of this size. A disk, where more may follow, says
/// that it has none.
fn is_the_end(offset: u64, read: usize, size: u64) -> bool {
    offset < size && offset + read as u64 >= size
}

fn write(core: &Core, fd: &SharedFd, from: Region) -> Option<Outcome> {
    let written = call(core, OpKind::Write, || {
        match or_never_again(fd, sys::write_at_once(fd.as_raw_fd(), from)) {
            Err(error) if is_for_the_ring(&error) => None,
            written => Some(written),
        }
    });
    core.counters()
        .direct_writes
        .add(u64::from(written.is_some()));
    written.map(outcome)
}

fn outcome(result: io::Result<usize>) -> Outcome {
    match result {
        Ok(count) => Outcome::Done(count as u32),
        Err(error) => Outcome::Failed(error),
    }
}

/// Remembers where nothing can be done without waiting, whatever there is: also where there are no offsets, of which
/// the ring makes nothing.
fn or_never_again(fd: &SharedFd, result: io::Result<usize>) -> io::Result<usize> {
    if let Err(error) = &result
        && let Some(libc::EOPNOTSUPP | libc::ESPIPE) = error.raw_os_error()
    {
        fd.set_at_once(AtOnce::Nothing);
    }
    result
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::fs::OpenOptions;
    use crate::op;

    #[test]
    fn what_ends_where_the_file_does_is_all_there_is() {
        for (offset, read, size) in [(0, 100, 100), (90, 10, 100), (90, 20, 100)] {
            assert!(is_the_end(offset, read, size), "{offset} {read} {size}");
        }
        // The last two are of a disk.
        for (offset, read, size) in [(0, 50, 100), (50, 49, 100), (0, 4096, 0), (4096, 4096, 0)] {
            assert!(!is_the_end(offset, read, size), "{offset} {read} {size}");
        }
    }

    #[test]
    fn a_descriptor_is_looked_at_once_something_may_be_done_on_it_past_the_ring() {
        crate::block_on(async {
            let program = std::env::current_exe().expect("it has a name");
            let file = File::open(program).expect("it is there");
            let file = SharedFd::from(OwnedFd::from(file));
            // Not at its own position, nor beside another task.
            op::read(&file, [0; 4]).await.0.expect("no error");
            let other = crate::spawn(async {});
            op::read_at(&file, [0; 4], 0).await.0.expect("no error");
            assert_eq!(file.at_once(), AtOnce::Unknown);
            other.await.expect("no panic");
            op::read_at(&file, [0; 4], 0).await.0.expect("no error");
            assert_ne!(file.at_once(), AtOnce::Unknown);
        })
        .expect("tests need io_uring");
    }

    /// It was said when it was opened.
    #[test]
    fn a_file_that_was_opened_for_reading_alone_is_not_looked_at() {
        crate::block_on(async {
            let program = std::env::current_exe().expect("it has a name");
            let opened = async |options: OpenOptions| {
                let opened = options.open(&program).await;
                opened.map(|file| file.fd().at_once()).ok()
            };
            let reads = OpenOptions::new().read(true);
            assert_eq!(opened(reads.clone()).await, Some(AtOnce::Reads));
            // Not every file system has direct reads.
            let direct = opened(reads.custom_flags(libc::O_DIRECT)).await;
            assert_ne!(direct, Some(AtOnce::Reads));
        })
        .expect("tests need io_uring");
    }
}
