//! `TcpListener`: accepts connections.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use quoit::op::{Listener, Socket, Stream};

use super::options::{cannot_listen, explain, stands_for_none};
use super::{TcpOptions, TcpStream};

/// Accepts TCP connections on one core.
///
/// For a server on every core use [`ShardedListener`](crate::ShardedListener).
///
/// Dropped, it is closed once the kernel has ended its accept, a moment later: to bind the same port
/// again at once, wait for [`TcpListener::finish`].
#[derive(Debug)]
pub struct TcpListener {
    listener: Listener,
    local: SocketAddr,
}

impl TcpListener {
    /// Binds an address and listens.
    ///
    /// Of several addresses that a name stands for, the first that works is taken. A name is looked
    /// up by the system, which may block: give an address where that matters.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)` and `listen(2)`, with the address in the message.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub fn bind(address: impl ToSocketAddrs + fmt::Debug) -> io::Result<Self> {
        Self::bind_with(address, &TcpOptions::new())
    }

    /// Binds an address that the listeners of other cores bind as well; the kernel spreads
    /// connections over them.
    ///
    /// # Errors
    ///
    /// As for [`TcpListener::bind`].
    pub fn bind_shared(address: impl ToSocketAddrs + fmt::Debug) -> io::Result<Self> {
        Self::bind_with(address, &TcpOptions::new().reuse_port(true))
    }

    /// Binds an address with options.
    ///
    /// # Errors
    ///
    /// As for [`TcpListener::bind`].
    pub fn bind_with(
        address: impl ToSocketAddrs + fmt::Debug,
        options: &TcpOptions,
    ) -> io::Result<Self> {
        let mut failure = None;
        let found = address.to_socket_addrs();
        for address in found.map_err(|error| cannot_listen(&address, &error))? {
            match Self::bind_one(address, options) {
                Ok(listener) => return Ok(listener),
                Err(error) => failure = Some(explain(address, &error)),
            }
        }
        Err(failure.unwrap_or_else(|| cannot_listen(&address, &stands_for_none())))
    }

    fn bind_one(address: SocketAddr, options: &TcpOptions) -> io::Result<Self> {
        let socket = options.listening_socket(address)?;
        Self::from_socket(socket)
    }

    /// Takes over a socket that listens already, such as one of [`TcpOptions::listen`].
    ///
    /// # Errors
    ///
    /// If its address cannot be read.
    pub fn from_socket(socket: Socket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self {
            listener: Listener::new(socket),
            local,
        })
    }

    /// Takes over a socket that listens already, such as one inherited from a supervisor.
    ///
    /// # Errors
    ///
    /// If its address cannot be read.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        Self::from_socket(Socket::from(OwnedFd::from(listener)))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`. After one the next call tries again; with too many open files
    /// (`EMFILE`), wait a little first. Cancelled, no connection is lost.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let fd = self.listener.accept().await?;
        Ok(TcpStream::from_stream(Stream::new(fd)))
    }

    /// Stops listening, and returns every connection that had been made and not yet taken: for a
    /// server that stops, and answers those before it goes. When this returns the port is free.
    pub async fn finish(self) -> Vec<TcpStream> {
        let left = self.listener.finish().await;
        left.into_iter()
            .map(|fd| TcpStream::from_stream(Stream::new(fd)))
            .collect()
    }

    /// Gives the socket back, for whoever takes connections of any kind.
    pub(crate) fn into_op(self) -> Listener {
        self.listener
    }

    /// Returns the address it listens on, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}
