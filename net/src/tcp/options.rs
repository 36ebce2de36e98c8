//! What a socket is told when it is made.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quoit::op::{Socket, SocketOption};

/// Options of listeners and streams.
#[derive(Debug, Clone)]
pub struct TcpOptions {
    backlog: i32,
    no_delay: bool,
    keep_alive: Option<Duration>,
    reuse_port: bool,
    send_buffer: Option<usize>,
    receive_buffer: Option<usize>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            backlog: 1024,
            no_delay: true,
            keep_alive: None,
            reuse_port: false,
            send_buffer: None,
            receive_buffer: None,
        }
    }
}

impl TcpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections may wait to be accepted. Default 1024; the kernel cuts it to
    /// `net.core.somaxconn`. `listen(2)`.
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = i32::try_from(connections).unwrap_or(i32::MAX);
        self
    }

    /// Sends small messages at once instead of gathering them for a while. Default on: a server
    /// gathers by itself, and knows when an answer is complete. `TCP_NODELAY`, `tcp(7)`.
    #[must_use]
    pub fn no_delay(mut self, on: bool) -> Self {
        self.no_delay = on;
        self
    }

    /// Probes a silent peer after this time, and every tenth of it from then on: in whole seconds, rounded up, and
    /// after 32 767 of them at the latest. Default off. `SO_KEEPALIVE`, `tcp(7)`.
    #[must_use]
    pub fn keep_alive(mut self, after: Option<Duration>) -> Self {
        self.keep_alive = after;
        self
    }

    /// Lets several listeners share one port; the kernel spreads connections over them. Default
    /// off. `SO_REUSEPORT`, `socket(7)`.
    #[must_use]
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// The kernel's buffer for what was sent and not acknowledged. Default: the kernel's own rule.
    /// `SO_SNDBUF`, `socket(7)`.
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// The kernel's buffer for what arrived and was not received. Default: the kernel's own rule.
    /// `SO_RCVBUF`, `socket(7)`.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Makes a listening socket, on no core yet: to settle a port that several cores will share,
    /// and to hear of a failure before they start.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)` and `listen(2)`, with the address in the message.
    pub fn listen(&self, address: SocketAddr) -> io::Result<Socket> {
        self.listening_socket(address)
            .map_err(|error| explain(address, &error))
    }

    pub(super) fn socket(&self, address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::tcp(address)?;
        if let Some(bytes) = self.send_buffer {
            socket.set(SocketOption::SendBuffer(bytes))?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set(SocketOption::ReceiveBuffer(bytes))?;
        }
        Ok(socket)
    }

    pub(super) fn listening_socket(&self, address: SocketAddr) -> io::Result<Socket> {
        let socket = self.socket(address)?;
        // A port is free again at once when its last listener has gone, whatever old connections
        // still linger.
        socket.set(SocketOption::ReuseAddress(true))?;
        socket.set(SocketOption::ReusePort(self.reuse_port))?;
        // Accepted sockets inherit these.
        self.apply_to_stream(&socket)?;
        socket.bind(address)?;
        socket.listen(self.backlog)?;
        Ok(socket)
    }

    pub(super) fn apply_to_stream(&self, socket: &Socket) -> io::Result<()> {
        socket.set(SocketOption::NoDelay(self.no_delay))?;
        if let Some(after) = self.keep_alive {
            socket.set(SocketOption::KeepAlive(after))?;
        }
        Ok(())
    }
}

/// Says what failed and what to do.
/// Says of what it was that no address could be had.
pub(crate) fn cannot_listen(address: &impl fmt::Debug, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot listen on {address:?}: {error}"),
    )
}

pub(crate) fn stands_for_none() -> io::Error {
    let what = "it stands for no address: name a host and a port, such as 127.0.0.1:8080";
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

pub(super) fn explain(address: SocketAddr, error: &io::Error) -> io::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            ": another program listens there; choose another port, or 0 for a free one"
        }
        Some(libc::EACCES) => ": ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        Some(libc::EADDRNOTAVAIL) => ": no interface of this machine has that address",
        Some(libc::EMFILE) => ": this process has no descriptor left: raise ulimit -n",
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("cannot listen on {address}: {error}{remedy}"),
    )
}
