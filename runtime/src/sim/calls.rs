//! What is asked of a world past the rings: by the driver, whose calls end here, and by the program.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::time::{Duration, SystemTime};

use super::fault::Fault;
use super::kernel::address::Family;
use super::kernel::{Coming, Kernel, Kind, net};
use super::trace::What;
use super::world::{START, Script, World};
use crate::driver::socket::SocketOption;
use crate::kernel_op::at_once::AtOnce;
use crate::kernel_op::request::{Region, RegionMut};
use crate::time::Instant;

impl World {
    pub(crate) fn now(&self) -> Instant {
        self.count_read();
        Instant::from_nanos(START + self.kernel.borrow().now)
    }

    /// The time since the simulation began.
    pub(crate) fn virtual_nanos(&self, at: Instant) -> u64 {
        at.as_nanos().saturating_sub(START)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.kernel.borrow().now)
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    pub(crate) fn clock_base(&self) -> (std::time::Instant, Instant) {
        (self.std_base, Instant::from_nanos(START))
    }

    pub(crate) fn wall_clock(&self) -> SystemTime {
        self.count_read();
        let nanos = self.kernel.borrow_mut().wall_nanos();
        SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos.max(0) as u64)
    }

    pub(crate) fn random(&self) -> u64 {
        self.kernel.borrow_mut().random.next()
    }

    pub(crate) fn default_cores(&self) -> usize {
        self.default_cores
    }

    /// Whether a message to a core finds its mailbox full.
    pub(crate) fn mailbox_is_full(&self) -> bool {
        self.kernel.borrow_mut().comes(Fault::MailboxFull)
    }

    pub(super) fn call<R>(&self, f: impl FnOnce(&mut Kernel) -> Result<R, i32>) -> io::Result<R> {
        f(&mut self.kernel.borrow_mut()).map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn socket(&self, family: Family) -> io::Result<RawFd> {
        self.call(|kernel| {
            let errors = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
            if let Some(errno) = kernel.refused(Fault::SocketRefused, &errors) {
                return Err(errno);
            }
            let object = kernel.make(Kind::Socket(net::Socket::fresh(family)));
            open_or_release(kernel, object, "socket")
        })
    }

    pub(crate) fn pipe(&self) -> io::Result<[RawFd; 2]> {
        self.call(|kernel| {
            let errors = [libc::EMFILE, libc::ENFILE];
            if let Some(errno) = kernel.refused(Fault::SocketRefused, &errors) {
                return Err(errno);
            }
            let [read, write] = kernel.make_pipe();
            let reads = match kernel.open(read, "pipe") {
                Ok(fd) => fd,
                Err(errno) => {
                    kernel.release(read);
                    kernel.release(write);
                    return Err(errno);
                }
            };
            match open_or_release(kernel, write, "pipe") {
                Ok(writes) => Ok([reads, writes]),
                Err(errno) => {
                    kernel.close(reads)?;
                    Err(errno)
                }
            }
        })
    }

    /// The channel that a core is woken by. Not one of the program's descriptors: it has no limit.
    pub(crate) fn eventfd(&self) -> RawFd {
        let mut kernel = self.kernel.borrow_mut();
        let object = kernel.make(Kind::Counter(0));
        kernel.open_own(object, "wake-up channel")
    }

    pub(crate) fn close_eventfd(&self, fd: RawFd) {
        self.kernel.borrow_mut().close_own(fd);
    }

    pub(crate) fn bind(&self, fd: RawFd, address: SocketAddr) -> io::Result<()> {
        self.call(|kernel| {
            kernel
                .look_up(fd)
                .and_then(|id| kernel.bind_socket(id, address))
        })
    }

    /// Sends what the socket takes at once; nothing, where a send by the ring would not be done at once either.
    pub(crate) fn send_at_once(&self, fd: RawFd, from: Region) -> io::Result<usize> {
        self.call(|kernel| kernel.send_at_once(fd, from))
    }

    /// Says what of a descriptor may be done past the ring.
    pub(crate) fn at_once(&self, fd: RawFd) -> AtOnce {
        self.kernel.borrow().at_once(fd)
    }

    pub(crate) fn read_at_once(
        &self,
        fd: RawFd,
        into: RegionMut,
        offset: u64,
    ) -> io::Result<usize> {
        self.call(|kernel| kernel.read_at_once(fd, into, offset))
    }

    pub(crate) fn write_at_once(&self, fd: RawFd, from: Region) -> io::Result<usize> {
        self.call(|kernel| kernel.write_at_once(fd, from))
    }

    pub(crate) fn listen(&self, fd: RawFd, backlog: i32) -> io::Result<()> {
        self.call(|kernel| {
            kernel
                .look_up(fd)
                .and_then(|id| kernel.listen_socket(id, backlog))
        })
    }

    pub(crate) fn set_option(&self, fd: RawFd, option: SocketOption) -> io::Result<()> {
        self.call(|kernel| {
            kernel
                .look_up(fd)
                .and_then(|id| kernel.set_option(id, option))
        })
    }

    pub(crate) fn shutdown(&self, fd: RawFd, how: Shutdown) -> io::Result<()> {
        self.call(|kernel| kernel.look_up(fd).and_then(|id| kernel.shut_down(id, how)))
    }

    pub(crate) fn local_addr(&self, fd: RawFd) -> io::Result<SocketAddr> {
        self.call(|kernel| kernel.look_up(fd).and_then(|id| kernel.local_address(id)))
    }

    pub(crate) fn peer_addr(&self, fd: RawFd) -> io::Result<SocketAddr> {
        self.call(|kernel| kernel.look_up(fd).and_then(|id| kernel.peer_address(id)))
    }

    pub(crate) fn bytes_acknowledged(&self, fd: RawFd) -> io::Result<u64> {
        self.call(|kernel| kernel.look_up(fd).and_then(|id| kernel.acknowledged(id)))
    }

    pub(crate) fn accept_waiting(&self, fd: RawFd) -> Vec<RawFd> {
        let mut kernel = self.kernel.borrow_mut();
        let mut accepted = Vec::new();
        let Ok(listener) = kernel.look_up(fd) else {
            return accepted;
        };
        while let Some(Ok(taken)) = kernel.take_connection(listener) {
            match kernel.open(taken, "accept") {
                Ok(fd) => {
                    kernel.disown(taken);
                    accepted.push(fd);
                }
                Err(_) => {
                    kernel.put_connection_back(listener, taken);
                    break;
                }
            }
        }
        accepted
    }

    pub(crate) fn status(&self, fd: RawFd) -> io::Result<libc::statx> {
        self.call(|kernel| kernel.status_of_descriptor(fd))
    }

    pub(crate) fn read_folder(&self, fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
        self.call(|kernel| kernel.list(fd, buffer))
    }

    pub(crate) fn close(&self, fd: RawFd) {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.close(fd).is_err() {
            kernel.violated(
                "descriptor",
                format!(
                    "descriptor {} was closed twice",
                    fd - super::kernel::FIRST_FD
                ),
            );
        }
    }

    pub(crate) fn wake(&self, fd: RawFd) -> io::Result<()> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.comes(Fault::WakeFails) {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        kernel.add_to_counter(fd)
    }

    // --- what the program asks ---

    pub(crate) fn note(&self, note: String) {
        self.kernel.borrow_mut().record(What::Note(note));
    }

    pub(crate) fn pass(&self, point: &'static str) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.record(What::Note(format!("point {point:?}")));
        kernel.faults.pass(point);
    }

    pub(crate) fn force(&self, fault: Fault) {
        self.kernel.borrow_mut().faults.force(fault);
    }

    pub(crate) fn end_faults(&self) {
        self.kernel.borrow_mut().faults.end();
    }

    pub(crate) fn script(&self, after: Duration, closure: Script) {
        let script = Coming::Script(self.keep(closure));
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.kernel.borrow_mut().after(nanos, script);
    }

    /// Runs a closure that may block outside of all cores, when the seed says: soon, as a rule.
    pub(crate) fn work(&self, closure: impl FnOnce() + 'static) {
        let work = Coming::Work(self.keep(Box::new(closure)));
        let mut kernel = self.kernel.borrow_mut();
        let most = if kernel.random.below(8) == 0 {
            20_000_000
        } else {
            100_000
        };
        let nanos = kernel.random.below(most);
        kernel.after(nanos, work);
    }

    /// Says whether a thread can be started.
    pub(crate) fn thread_starts(&self) -> io::Result<()> {
        self.call(
            |kernel| match kernel.refused(Fault::ThreadRefused, &[libc::EAGAIN]) {
                Some(errno) => Err(errno),
                None => Ok(()),
            },
        )
    }

    fn keep(&self, closure: Script) -> usize {
        let mut scripts = self.scripts.borrow_mut();
        let next = scripts.last_key_value().map_or(0, |(last, _)| last + 1);
        scripts.insert(next, closure);
        next
    }
}

fn open_or_release(kernel: &mut Kernel, object: usize, name: &'static str) -> Result<RawFd, i32> {
    let opened = kernel.open(object, name);
    if opened.is_err() {
        kernel.release(object);
    }
    opened
}
