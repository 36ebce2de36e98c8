//! `TcpStream`: bytes both ways.

use std::io;
use std::net::{Shutdown, SocketAddr};

use quoit::buf::{BufResult, Chunk, IoBuf, IoBufMut};
use quoit::op::{SocketOption, Stream};

use super::TcpOptions;

/// A TCP connection on one core.
///
/// A stream that waits for bytes owns no memory: they are received into buffers that all streams of
/// the core share. One task at a time may receive; writes of several tasks go out one after
/// the other, each as a whole. Share the stream in an `Rc` to do both at once.
#[derive(Debug)]
pub struct TcpStream {
    stream: Stream,
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
        match Stream::connect(socket, address.into()).await {
            Ok(stream) => Ok(Self { stream }),
            Err(error) if error.raw_os_error().is_some() => Err(io::Error::new(
                error.kind(),
                format!("cannot connect to {address}: {error}"),
            )),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn from_stream(stream: Stream) -> Self {
        Self { stream }
    }

    /// Waits for bytes; `None` at the end of the stream.
    ///
    /// The chunk lies in memory that the core's streams share: drop it soon.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`. Cancelled, nothing is lost: what arrives is there for the next call.
    pub async fn recv(&self) -> io::Result<Option<Chunk>> {
        self.stream.receive().await
    }

    /// Reads into a buffer, from its start: as much as is there, at least a byte; 0 at the end of
    /// the stream, or if the buffer has no room. The buffer comes back in every case.
    ///
    /// # Errors
    ///
    /// As for [`TcpStream::recv`].
    pub async fn read<B: IoBufMut>(&self, buf: B) -> BufResult<usize, B> {
        self.stream.read(buf).await
    }

    /// Reads until the buffer is full, from its start. The buffer comes back in every case.
    ///
    /// # Errors
    ///
    /// As for [`TcpStream::recv`], and `UnexpectedEof` if the stream ends before that. If some bytes
    /// came before a failure or a cancel, they are in the buffer, and the error holds an
    /// [`Interrupted`](quoit::buf::Interrupted) that says how many.
    pub async fn read_exact<B: IoBufMut>(&self, buf: B) -> BufResult<(), B> {
        self.stream.read_exact(buf).await
    }

    /// Writes what the socket takes; returns how much.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`; never a signal.
    pub async fn write<B: IoBuf>(&self, buf: B) -> BufResult<usize, B> {
        self.stream.send(buf).await
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

    /// Writes all of a buffer.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`. If some bytes went out before a failure or a cancel, the error holds an
    /// [`Interrupted`](quoit::buf::Interrupted) that says how many.
    pub async fn write_all<B: IoBuf>(&self, buf: B) -> BufResult<(), B> {
        self.stream.send_all(buf).await
    }

    /// Writes all of several buffers, in order, gathered into few calls.
    ///
    /// # Errors
    ///
    /// As for [`TcpStream::write_all`].
    pub async fn write_all_vectored<B: IoBuf>(&self, bufs: Vec<B>) -> BufResult<(), Vec<B>> {
        self.stream.send_all_vectored(bufs).await
    }

    /// Ends one or both directions; what was written before still arrives. Never waits, and happens
    /// also in a cancelled scope.
    ///
    /// # Errors
    ///
    /// Those of `shutdown(2)`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    /// Closes the connection and waits until that is done, also in a cancelled scope. Dropping the stream closes it as well.
    ///
    /// # Errors
    ///
    /// Those of `close(2)`.
    pub async fn close(self) -> io::Result<()> {
        self.stream.close().await
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

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        stream.stream
    }
}
