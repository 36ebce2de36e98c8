//! `Socket`: a stream socket, and the calls on it that do not go through the ring.
//!
//! All of them return at once. The calls are `socket2`'s; here is the one place that chooses between
//! them and the simulated kernel.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, TcpKeepalive, Type};

use super::sys;
use crate::kernel_op::fd::{Descriptor, SharedFd};

/// A stream socket that is not in use yet: to be told its options, and to become a
/// [`Stream`](crate::op::Stream) or a [`Listener`](crate::op::Listener).
///
/// It belongs to no core yet and may be sent to one. Dropped, it is closed.
#[derive(Debug)]
pub struct Socket(Descriptor);

/// Who made the other end of a Unix stream, as the kernel noted it then. `unix(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The process; 0 if it is in a place that ours cannot see.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Something a socket can be told. `socket(7)`, `tcp(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketOption {
    /// Small messages go out at once. `TCP_NODELAY`.
    NoDelay(bool),
    /// An address may be bound while old connections of it linger. `SO_REUSEADDR`.
    ReuseAddress(bool),
    /// Several listeners may share an address. `SO_REUSEPORT`.
    ReusePort(bool),
    /// Bytes that were sent and not acknowledged. `SO_SNDBUF`.
    SendBuffer(usize),
    /// Bytes that arrived and were not received. `SO_RCVBUF`.
    ReceiveBuffer(usize),
    /// A peer that is silent for so long is probed, and then every tenth of it. In whole seconds, rounded up; the
    /// longest that the kernel takes is 32 767 of them. `SO_KEEPALIVE`.
    KeepAlive(Duration),
}

impl SocketOption {
    /// Returns what comes nearest to it of what the kernel takes.
    fn as_taken(self) -> Self {
        // Of a longer number it would take the lower half.
        let most_bytes = i32::MAX as usize;
        match self {
            Self::SendBuffer(bytes) => Self::SendBuffer(bytes.min(most_bytes)),
            Self::ReceiveBuffer(bytes) => Self::ReceiveBuffer(bytes.min(most_bytes)),
            Self::KeepAlive(after) => {
                let begun = u64::from(after.subsec_nanos() > 0);
                let seconds = after.as_secs().saturating_add(begun);
                Self::KeepAlive(Duration::from_secs(seconds.clamp(1, MAX_KEEP_ALIVE)))
            }
            taken => taken,
        }
    }
}

/// `MAX_TCP_KEEPIDLE`, `linux/tcp.h`: seconds.
const MAX_KEEP_ALIVE: u64 = 32_767;

impl Socket {
    /// Makes a TCP socket of the family of `address`. `socket(2)`.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)`.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            let family = crate::sim::kernel::address::Family::of(address);
            return world.socket(family).map(|fd| Self(Descriptor::new(fd)));
        }
        let domain = Domain::for_address(address);
        socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map(Self::from)
    }

    /// Makes a Unix stream socket. `unix(7)`.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)`; `Unsupported` in a simulation, whose kernel knows none.
    pub fn unix() -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if crate::sim::world().is_some() {
            let what = "the simulated kernel knows no Unix sockets: use TCP there";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        socket2::Socket::new(Domain::UNIX, Type::STREAM, None).map(Self::from)
    }

    /// Returns another descriptor of the same socket. `dup(2)`.
    ///
    /// # Errors
    ///
    /// Those of `dup(2)`; `Unsupported` in a simulation.
    pub fn try_clone(&self) -> io::Result<Self> {
        with(self.as_raw_fd(), |socket| socket.try_clone())?.map(Self::from)
    }

    /// Tells the socket something. `setsockopt(2)`.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set(&self, option: SocketOption) -> io::Result<()> {
        set(self.as_raw_fd(), option)
    }

    /// Gives the socket an address. `bind(2)`.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`.
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        simulated!(self.as_raw_fd(), |world| world
            .bind(self.as_raw_fd(), address));
        sys::with_socket(self.as_raw_fd(), |socket| socket.bind(&address.into()))
    }

    /// Gives the socket an address of another family. `bind(2)`.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`; `Unsupported` in a simulation.
    pub fn bind_to(&self, address: &SockAddr) -> io::Result<()> {
        with(self.as_raw_fd(), |socket| socket.bind(address))?
    }

    /// Lets others connect; at most `backlog` of them wait to be accepted. `listen(2)`.
    ///
    /// # Errors
    ///
    /// Those of `listen(2)`.
    pub fn listen(&self, backlog: i32) -> io::Result<()> {
        simulated!(self.as_raw_fd(), |world| world
            .listen(self.as_raw_fd(), backlog));
        sys::with_socket(self.as_raw_fd(), |socket| socket.listen(backlog))
    }

    /// Returns the address of this end. `getsockname(2)`.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`; and if it is no internet address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(self.as_raw_fd())
    }

    pub(crate) fn into_shared(self) -> SharedFd {
        SharedFd::new(self.0)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// For sockets of other families and options of other kinds.
impl From<socket2::Socket> for Socket {
    fn from(socket: socket2::Socket) -> Self {
        Self::from(OwnedFd::from(socket))
    }
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(Descriptor::new(fd.into_raw_fd()))
    }
}

/// Tells a socket something.
pub(crate) fn set(fd: RawFd, option: SocketOption) -> io::Result<()> {
    let option = option.as_taken();
    simulated!(fd, |world| world.set_option(fd, option));
    sys::with_socket(fd, |socket| match option {
        SocketOption::NoDelay(on) => socket.set_tcp_nodelay(on),
        SocketOption::ReuseAddress(on) => socket.set_reuse_address(on),
        SocketOption::ReusePort(on) => socket.set_reuse_port(on),
        SocketOption::SendBuffer(bytes) => socket.set_send_buffer_size(bytes),
        SocketOption::ReceiveBuffer(bytes) => socket.set_recv_buffer_size(bytes),
        SocketOption::KeepAlive(after) => {
            let every = (after / 10).max(Duration::from_secs(1));
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after).with_interval(every))
        }
    })
}

pub(crate) fn shutdown(fd: RawFd, how: Shutdown) -> io::Result<()> {
    simulated!(fd, |world| world.shutdown(fd, how));
    sys::with_socket(fd, |socket| socket.shutdown(how))
}

/// Returns whether a close waits for the peer to have what was sent. `SO_LINGER`, `socket(7)`.
pub(crate) fn lingers(fd: RawFd) -> bool {
    simulated!(fd, |_world| false);
    let time = sys::with_socket(fd, socket2::Socket::linger);
    time.is_ok_and(|time| time.is_some_and(|time| !time.is_zero()))
}

pub(crate) fn local_addr(fd: RawFd) -> io::Result<SocketAddr> {
    simulated!(fd, |world| world.local_addr(fd));
    sys::with_socket(fd, |socket| inet(socket.local_addr()?))
}

pub(crate) fn peer_addr(fd: RawFd) -> io::Result<SocketAddr> {
    simulated!(fd, |world| world.peer_addr(fd));
    sys::with_socket(fd, |socket| inet(socket.peer_addr()?))
}

/// Runs `f` on the socket of the real kernel.
pub(crate) fn with<R>(fd: RawFd, f: impl FnOnce(&socket2::Socket) -> R) -> io::Result<R> {
    #[cfg(feature = "sim")]
    if crate::sim::is_simulated(fd) {
        let what = "a simulated socket is none of the real kernel's: use the methods of Stream";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(sys::with_socket(fd, f))
}

/// Accepts every connection that waits at a simulated socket; `None` of a real one, which the ring is to ask.
pub(crate) fn accept_waiting(fd: RawFd) -> Option<Vec<SharedFd>> {
    simulated!(fd, |world| Some(
        world
            .accept_waiting(fd)
            .into_iter()
            .map(|fd| SharedFd::new(Descriptor::new(fd)))
            .collect()
    ));
    debug_assert!(fd >= 0, "a listener that is open");
    None
}

fn inet(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address
        .as_socket()
        .ok_or_else(|| io::Error::other("the socket has no internet address"))
}
