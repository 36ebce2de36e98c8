//! The few system calls that do not go through the ring, each wrapped once.
//!
//! All of them return at once, but for those that say that they wait. Those on a descriptor look
//! first whether it is a simulated one.

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::{Duration, SystemTime};

use rustix::event::Timespec;

use crate::kernel_op::at_once::AtOnce;
use crate::kernel_op::request::{Region, RegionMut};
use crate::time::Instant;

/// Reads `CLOCK_MONOTONIC`. `clock_gettime(2)`.
pub(crate) fn monotonic_now() -> Instant {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local of the right type. The call cannot fail with a clock that
    // every Linux has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Instant::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// Reads the wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the driver: the one place that reads it"
)]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Closes a descriptor. An error cannot be acted on: the number is free either way. `close(2)`.
pub(crate) fn close(fd: RawFd) {
    simulated!(fd, |world| world.close(fd));
    #[cfg(feature = "sim")]
    if crate::sim::is_simulated(fd) {
        // Its simulation is over, or runs on another thread: nothing of the real kernel's.
        return;
    }
    // SAFETY: only `Descriptor` calls this, once, with a number it owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Sends what the socket takes at once, of memory that the caller vouches for: an op would send it. `send(2)`.
pub(crate) fn send_at_once(fd: RawFd, from: Region) -> io::Result<usize> {
    // Also on a descriptor that is not simulated: as the op, a simulated program sends nothing there.
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return world.send_at_once(fd, from);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let address = std::ptr::with_exposed_provenance(from.address);
    // SAFETY: a `Region` is made of a buffer whose bytes stay where they are for as long as nobody touches it; its owner
    // waits for this call.
    let sent = unsafe { libc::send(fd, address, from.length as usize, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Reads what needs no waiting, into memory that the caller vouches for: an op would read it. `preadv2(2)`.
pub(crate) fn read_at_once(fd: RawFd, into: RegionMut, offset: u64) -> io::Result<usize> {
    // As above.
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return world.read_at_once(fd, into, offset);
    }
    let part = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(into.address),
        iov_len: into.length as usize,
    };
    // SAFETY: a `RegionMut` is made of a buffer whose bytes stay where they are for as long as nobody touches it; its
    // owner waits for this call.
    let read = unsafe { libc::preadv2(fd, &raw const part, 1, offset as i64, libc::RWF_NOWAIT) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes what needs no waiting, at the descriptor's own position, of memory that the caller vouches for: an op would
/// write it. `pwritev2(2)`.
pub(crate) fn write_at_once(fd: RawFd, from: Region) -> io::Result<usize> {
    // As above.
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return world.write_at_once(fd, from);
    }
    let part = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(from.address),
        iov_len: from.length as usize,
    };
    // SAFETY: as for a send; the kernel only reads what a write is given.
    let written = unsafe { libc::pwritev2(fd, &raw const part, 1, -1, libc::RWF_NOWAIT) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Returns what of a descriptor may be done past the ring. `statx(2)`, `fcntl(2)`, `isatty(3)`.
pub(crate) fn at_once(fd: RawFd) -> AtOnce {
    // As above.
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return world.at_once(fd);
    }
    let Ok(status) = known_status(fd, libc::STATX_TYPE) else {
        return AtOnce::Nothing;
    };
    match u32::from(status.stx_mode) & libc::S_IFMT {
        libc::S_IFREG => {
            // SAFETY: takes no pointer.
            let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
            if flags < 0 || flags & libc::O_DIRECT != 0 {
                AtOnce::Nothing
            } else {
                AtOnce::Reads
            }
        }
        // SAFETY: takes no pointer.
        libc::S_IFCHR if unsafe { libc::isatty(fd) } == 1 => AtOnce::Terminal,
        libc::S_IFIFO | libc::S_IFCHR => AtOnce::Writes,
        _ => AtOnce::Nothing,
    }
}

/// Returns how long a file is, as far as this machine knows. `statx(2)`.
pub(crate) fn size(fd: RawFd) -> io::Result<u64> {
    simulated!(fd, |world| world.status(fd).map(|status| status.stx_size));
    known_status(fd, libc::STATX_SIZE).map(|status| status.stx_size)
}

/// Takes over a descriptor that a call here has just made.
pub(crate) fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: only called with the number of a descriptor that was just made, which nobody else
    // knows of.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes a pipe: the end to read from, and the one to write to. `pipe2(2)`.
pub(crate) fn pipe() -> io::Result<[RawFd; 2]> {
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return world.pipe();
    }
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes two numbers to a local of that size.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok(ends)
}

/// Sees to it that a write to a pipe that nobody reads does not end the process: where SIGPIPE has its
/// default effect, it is blocked for the calling thread. `sigaction(2)`, `pthread_sigmask(3)`.
pub(crate) fn outlive_broken_pipes() -> io::Result<()> {
    let mut found = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is changed; the kernel writes to a local of the right type.
    check(unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), found.as_mut_ptr()) })?;
    // SAFETY: the call has succeeded, and so has filled it.
    let found = unsafe { found.assume_init() };
    if found.sa_sigaction == libc::SIG_DFL {
        block_signals(&[libc::SIGPIPE])?;
    }
    Ok(())
}

/// Asks the kernel for something, and again while it refuses that with an error which passes by itself: after a
/// millisecond, and then twice as long each time, up to `longest`. The calling thread waits meanwhile.
pub(crate) fn ask_patiently<T>(
    passing: i32,
    longest: Duration,
    mut ask: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let mut wait = Duration::from_millis(1);
    loop {
        match ask() {
            Err(error) if error.raw_os_error() == Some(passing) && wait <= longest => {
                pause(wait)?;
                wait *= 2;
            }
            answer => return answer,
        }
    }
}

/// Lets the calling thread wait so long, or until a signal comes in. For one that runs no core. `poll(2)`.
fn pause(time: Duration) -> io::Result<()> {
    let time = Timespec::try_from(time).map_err(io::Error::other)?;
    match rustix::event::poll(&mut [], Some(&time)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Draws a random number. `getrandom(2)`.
pub(crate) fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: the kernel writes at most as many bytes as the local has.
    let drawn = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // So few bytes come whole, or not at all (getrandom(2)).
    if drawn == bytes.len() as isize {
        Ok(u64::from_ne_bytes(bytes))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes an eventfd that a reader waits on. `eventfd(2)`.
pub(crate) fn eventfd() -> io::Result<RawFd> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// Takes back what was added to an eventfd. `eventfd(2)`.
pub(crate) fn empty_eventfd(fd: RawFd) {
    let mut count = 0_u64;
    // SAFETY: reads 8 bytes into a local, as an eventfd gives them. It does not wait, and what it says is of no use.
    let _ = unsafe { libc::read(fd, (&raw mut count).cast(), 8) };
}

/// Adds one to an eventfd, which wakes who reads it. Async-signal-safe. `eventfd(2)`.
pub(crate) fn eventfd_add_one(fd: RawFd) -> io::Result<()> {
    simulated!(fd, |world| world.wake(fd));
    let one = 1_u64;
    // SAFETY: writes 8 bytes from a local, as an eventfd wants.
    let written = unsafe { libc::write(fd, (&raw const one).cast(), 8) };
    if written == 8 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns a soft resource limit. `getrlimit(2)`.
fn soft_limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a local of the right type.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (result == 0).then_some(limit.rlim_cur)
}

/// Returns how many bytes this process may lock.
pub(crate) fn memlock_limit() -> Option<u64> {
    soft_limit(libc::RLIMIT_MEMLOCK)
}

/// Returns how many descriptors this process may have.
pub(crate) fn descriptor_limit() -> Option<u64> {
    soft_limit(libc::RLIMIT_NOFILE)
}

/// Returns the kernel's release, such as "6.18.4". `uname(2)`.
pub(crate) fn kernel_release() -> String {
    // SAFETY: an all-zero `utsname` is a valid one: arrays of characters.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a local of the right type.
    unsafe { libc::uname(&raw mut names) };
    // SAFETY: the field ends with NUL: the kernel wrote it, or it is still all zero.
    unsafe { CStr::from_ptr(names.release.as_ptr()) }
        .to_string_lossy()
        .into_owned()
}

/// The processors the calling thread may run on.
#[derive(Clone, Copy)]
pub(crate) struct Affinity(libc::cpu_set_t);

impl Affinity {
    /// Reads the calling thread's set. `sched_getaffinity(2)`.
    pub(crate) fn current() -> io::Result<Self> {
        // SAFETY: an all-zero set is a valid one: the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer and the size are those of a local; 0 is the calling thread.
        check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) })?;
        Ok(Self(set))
    }

    /// Returns the processors of the set, by the kernel's numbers. `CPU_SET(3)`.
    pub(crate) fn processors(&self) -> Vec<usize> {
        let all = 0..libc::CPU_SETSIZE as usize;
        // SAFETY: the number lies within the set.
        all.filter(|&processor| unsafe { libc::CPU_ISSET(processor, &self.0) })
            .collect()
    }

    /// Puts the calling thread back on this set. `sched_setaffinity(2)`.
    pub(crate) fn restore(self) -> io::Result<()> {
        // SAFETY: the pointer and the size are those of a local; 0 is the calling thread.
        check(unsafe {
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0)
        })
        .map(drop)
    }
}

/// Returns a `statx` that says nothing.
pub(crate) fn empty_status() -> libc::statx {
    // SAFETY: an all-zero `statx` is a valid one: numbers only.
    unsafe { std::mem::zeroed() }
}

/// Describes an open file. `statx(2)`.
pub(crate) fn status(fd: RawFd) -> io::Result<libc::statx> {
    simulated!(fd, |world| world.status(fd));
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    status_with(fd, 0, mask)
}

/// Describes an open file without asking whoever serves its file system, which may be another machine, or a program
/// that waits for this core (`fuse(4)`).
fn known_status(fd: RawFd, mask: u32) -> io::Result<libc::statx> {
    status_with(fd, libc::AT_STATX_DONT_SYNC, mask)
}

fn status_with(fd: RawFd, flags: i32, mask: u32) -> io::Result<libc::statx> {
    let mut status = empty_status();
    let flags = flags | libc::AT_EMPTY_PATH;
    // SAFETY: the path is a static string that ends with NUL, and the result goes to a local of the
    // right type.
    check(unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, &raw mut status) })?;
    Ok(status)
}

/// Reads entries of a folder into `buffer`; returns how many bytes of it are filled, 0 at the end.
/// `getdents64(2)`.
pub(crate) fn read_folder(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    simulated!(fd, |world| world.read_folder(fd, buffer));
    let (start, length) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `length` bytes to the buffer, which is borrowed mutably.
    let result = unsafe { libc::syscall(libc::SYS_getdents64, fd, start, length) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Makes a set of signals.
fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid place to initialise.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a local of the right type.
    unsafe { libc::sigemptyset(&raw mut set) };
    for &signal in signals {
        // SAFETY: as above; a number that is no signal is an error that changes nothing.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// Blocks signals for the calling thread and those it starts. `pthread_sigmask(3)`.
pub(crate) fn block_signals(signals: &[i32]) -> io::Result<()> {
    let set = signal_set(signals);
    // SAFETY: the set is a local; no old set is asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Waits until one of these blocked signals comes in. Blocks the thread. `sigwait(3)`.
pub(crate) fn wait_for_signal(signals: &[i32]) -> io::Result<i32> {
    let set = signal_set(signals);
    let mut signal = 0;
    // SAFETY: both pointers are to locals of the right type.
    match unsafe { libc::sigwait(&raw const set, &raw mut signal) } {
        0 => Ok(signal),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Makes a descriptor that signals are taken from. `signalfd(2)`.
pub(crate) fn signal_descriptor(signals: &[i32]) -> io::Result<RawFd> {
    let set = signal_set(signals);
    // SAFETY: the set is a local; -1 makes a new descriptor.
    check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })
}

/// Takes a signal, if one has come in. `signalfd(2)`.
pub(crate) fn take_signal(fd: RawFd) -> io::Result<Option<i32>> {
    let mut record = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let length = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the kernel writes at most `length` bytes to a local of that size. It does not wait.
    if unsafe { libc::read(fd, record.as_mut_ptr().cast(), length) } == length as isize {
        // SAFETY: the kernel says that it has filled it.
        let record = unsafe { record.assume_init() };
        return Ok(i32::try_from(record.ssi_signo).ok());
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        error => Err(error),
    }
}

/// Returns how many bytes the peer of a TCP socket has acknowledged so far. `tcp(7)`, `TCP_INFO`.
pub(crate) fn bytes_acknowledged(fd: RawFd) -> io::Result<u64> {
    simulated!(fd, |world| world.bytes_acknowledged(fd));
    /// Where the kernel's `struct tcp_info` has `tcpi_bytes_acked` (Linux 4.1, `linux/tcp.h`).
    const AT: usize = 120;
    let mut info = [0_u8; 256];
    let mut length = info.len() as libc::socklen_t;
    let into = info.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `length` bytes to the array, and to `length` how many.
    check(unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut length)
    })?;
    let field = info.get(AT..AT + 8).filter(|_| length as usize >= AT + 8);
    let field = field.and_then(|field| field.try_into().ok());
    field
        .map(u64::from_ne_bytes)
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Returns how many bytes of a socket the other side has yet to take. `SIOCOUTQ`, `tcp(7)`, `unix(7)`.
pub(crate) fn bytes_untaken(fd: RawFd) -> io::Result<u64> {
    simulated!(fd, |_world| Err(io::ErrorKind::Unsupported.into()));
    let mut count: libc::c_int = 0;
    // SAFETY: the kernel writes one `int` to `count`.
    check(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut count) })?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns who made the other end of a Unix stream. `SO_PEERCRED`, `unix(7)`.
pub(crate) fn peer_credentials(fd: RawFd) -> io::Result<libc::ucred> {
    simulated!(fd, |_world| Err(io::ErrorKind::Unsupported.into()));
    let mut found = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let into = (&raw mut found).cast();
    // SAFETY: the kernel writes at most `length` bytes to `found`, of which every pattern is valid.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            into,
            &raw mut length,
        )
    })?;
    Ok(found)
}

/// Runs `f` on the socket behind a number that somebody else owns.
pub(crate) fn with_socket<R>(fd: RawFd, f: impl FnOnce(&socket2::Socket) -> R) -> R {
    /// Lets go of the number even if `f` panics: it is not ours to close.
    struct Borrowed(Option<socket2::Socket>);
    impl Drop for Borrowed {
        fn drop(&mut self) {
            if let Some(socket) = self.0.take() {
                let _ = socket.into_raw_fd();
            }
        }
    }
    // SAFETY: the caller's `SharedFd` keeps the number open for the duration of the call, and
    // `Borrowed` does not close it.
    let socket = Borrowed(Some(unsafe { socket2::Socket::from_raw_fd(fd) }));
    f(socket.0.as_ref().expect("taken in drop only"))
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read};

    use super::*;

    #[test]
    fn an_emptied_eventfd_has_nothing_of_what_was_added() {
        let fd = eventfd().expect("an eventfd");
        for _ in 0..3 {
            eventfd_add_one(fd).expect("there is room");
        }
        empty_eventfd(fd);
        // Of an empty one as well: it does not wait.
        empty_eventfd(fd);
        let mut count = [0; 8];
        let left = File::from(owned(fd)).read(&mut count);
        assert_eq!(
            left.map_err(|error| error.kind()),
            Err(ErrorKind::WouldBlock)
        );
    }
}
