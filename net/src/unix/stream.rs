//! `UnixStream`: bytes both ways.

use std::io;

use quoit::op::{Credentials, Socket, Stream};

use super::UnixAddress;
use crate::stream::{self, byte_stream};

byte_stream! {
    /// A Unix connection on one core.
    UnixStream
}

impl UnixStream {
    /// Connects. Where too many wait to be accepted, this waits as well.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`, with the address in the message; [`Cancelled`](quoit::Cancelled). A
    /// socket that did not connect is closed. `Unsupported` in a simulation.
    pub async fn connect(address: impl Into<UnixAddress>) -> io::Result<Self> {
        let address = address.into();
        let told = address.to_sock_addr()?;
        let stream = stream::connect(Socket::unix()?, told, &address).await?;
        Ok(Self::from_stream(stream))
    }

    /// Returns the peer's address; of a client mostly none.
    ///
    /// # Errors
    ///
    /// Those of `getpeername(2)`.
    pub fn peer_addr(&self) -> io::Result<UnixAddress> {
        peer_addr(&self.stream)
    }

    /// Returns the address of this end.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<UnixAddress> {
        let address = self.stream.with_socket(|socket| socket.local_addr())??;
        Ok(UnixAddress::from_sock_addr(&address))
    }

    /// Returns who made the other end: the process that connected, or the one that listened.
    /// `SO_PEERCRED`.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        self.stream.peer_credentials()
    }
}

/// Returns the address of the other end of a Unix stream.
pub(crate) fn peer_addr(stream: &Stream) -> io::Result<UnixAddress> {
    let address = stream.with_socket(|socket| socket.peer_addr())??;
    Ok(UnixAddress::from_sock_addr(&address))
}
