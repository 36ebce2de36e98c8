//! `UnixStream`: bytes both ways.

use std::io;
use std::net::Shutdown;

use quoit::buf::{BufResult, Chunk, IoBuf, IoBufMut};
use quoit::op::{Credentials, Socket, Stream};

use super::UnixAddress;

/// A Unix connection on one core.
///
/// A stream that waits for bytes owns no memory: they are received into buffers that all streams of
/// the core share. One task at a time may receive; writes of several tasks go out one after
/// the other, each as a whole. Share the stream in an `Rc` to do both at once.
#[derive(Debug)]
pub struct UnixStream {
    stream: Stream,
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
        match Stream::connect(Socket::unix()?, told).await {
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
    /// As for [`UnixStream::recv`].
    pub async fn read<B: IoBufMut>(&self, buf: B) -> BufResult<usize, B> {
        self.stream.read(buf).await
    }

    /// Reads until the buffer is full, from its start. The buffer comes back in every case.
    ///
    /// # Errors
    ///
    /// As for [`UnixStream::recv`], and `UnexpectedEof` if the stream ends before that. If some bytes
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
    /// As for [`UnixStream::write_all`].
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

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        stream.stream
    }
}
