//! `TcpStream`: bytes both ways.

use std::io;
use std::net::SocketAddr;

use quoit::buf::{BufResult, IoBuf};
use quoit::op::SocketOption;

use super::TcpOptions;
use crate::stream::{self, byte_stream};

byte_stream! {
    /// A TCP connection on one core.
    TcpStream
}

impl TcpStream {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`, with the address in the message; [`Cancelled`](quoit::Cancelled). A
    /// socket that did not connect is closed.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_with(address, &TcpOptions::new()).await
    }

    /// Connects with options.
    ///
    /// # Errors
    ///
    /// As for [`TcpStream::connect`].
    pub async fn connect_with(address: SocketAddr, options: &TcpOptions) -> io::Result<Self> {
        let socket = options.socket(address)?;
        options.apply_to_stream(&socket)?;
        let stream = stream::connect(socket, address.into(), &address).await?;
        Ok(Self::from_stream(stream))
    }

    /// Writes what the socket takes, out of the buffer itself instead of a copy; returns how much. The
    /// buffer comes back when the kernel is done with it: once the peer has acknowledged the bytes.
    /// For large buffers on a real network.
    ///
    /// Until then nothing ends this write, no deadline either: a cancelled scope waits for a peer that
    /// takes nothing, and so do the next writes. For peers that may stall use [`TcpStream::write`].
    ///
    /// # Errors
    ///
    /// Those of `send(2)`; never a signal.
    pub async fn write_zero_copy<B: IoBuf>(&self, buf: B) -> BufResult<usize, B> {
        self.stream.send_zero_copy(buf).await
    }

    /// Returns the peer's address.
    ///
    /// # Errors
    ///
    /// Those of `getpeername(2)`: the connection may be gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Returns the address of this end.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends small messages at once instead of gathering them. Default: on. `TCP_NODELAY`.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_no_delay(&self, on: bool) -> io::Result<()> {
        self.stream.set(SocketOption::NoDelay(on))
    }
}
