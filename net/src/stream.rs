//! What streams of every family have in common: bytes both ways, written down once.
//!
//! Each family has a type of its own, with its own ways to connect and its own addresses, around the same
//! [`Stream`]. The common part is a macro: a type with a parameter would show in every message of the
//! compiler, and its documentation could not name the type that its reader holds.

use std::fmt;
use std::io;

use quoit::op::{Socket, Stream};
use socket2::SockAddr;

/// Connects; what the kernel says is told with the address.
pub(crate) async fn connect(
    socket: Socket,
    told: SockAddr,
    address: &impl fmt::Display,
) -> io::Result<Stream> {
    Stream::connect(socket, told).await.map_err(|error| {
        if error.raw_os_error().is_none() {
            return error;
        }
        let what = format!("cannot connect to {address}: {error}");
        io::Error::new(error.kind(), what)
    })
}

/// Its calls return the futures of the stream below as they are: an `async fn` around each would hold its arguments
/// once more.
///
/// Makes the type of a stream: `byte_stream!(/** what it is */ Name)`.
macro_rules! byte_stream {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// A stream that waits for bytes owns no memory: they are received into buffers that all streams of
        /// the core share. One task at a time may receive; writes of several tasks go out one after
        /// the other, each as a whole. Share the stream in an `Rc` to do both at once.
        #[derive(Debug)]
        pub struct $name {
            stream: quoit::op::Stream,
        }

        impl $name {
            pub(crate) fn from_stream(stream: quoit::op::Stream) -> Self {
                Self { stream }
            }

            /// Waits for bytes; `None` at the end of the stream.
            ///
            /// The chunk lies in memory that the core's streams share: drop it soon.
            ///
            /// # Errors
            ///
            /// Those of `recv(2)`. Cancelled, nothing is lost: what arrives is there for the next call.
            pub fn recv(
                &self,
            ) -> impl Future<Output = std::io::Result<Option<quoit::buf::Chunk>>> {
                self.stream.receive()
            }

            /// Reads into a buffer, from its start: as much as is there, at least a byte; 0 at the end of
            /// the stream, or if the buffer has no room. The buffer comes back in every case.
            ///
            /// # Errors
            ///
            #[doc = concat!("As for [`", stringify!($name), "::recv`].")]
            pub fn read<B: quoit::buf::IoBufMut>(
                &self,
                buf: B,
            ) -> impl Future<Output = quoit::buf::BufResult<usize, B>> {
                self.stream.read(buf)
            }

            /// Reads until the buffer is full, from its start. The buffer comes back in every case.
            ///
            /// # Errors
            ///
            #[doc = concat!("As for [`", stringify!($name), "::recv`], and `UnexpectedEof` if the stream ends before")]
            /// that. If some bytes came before a failure or a cancel, they are in the buffer, and the error
            /// holds an [`Interrupted`](quoit::buf::Interrupted) that says how many.
            pub fn read_exact<B: quoit::buf::IoBufMut>(
                &self,
                buf: B,
            ) -> impl Future<Output = quoit::buf::BufResult<(), B>> {
                self.stream.read_exact(buf)
            }

            /// Writes what the socket takes; returns how much.
            ///
            /// # Errors
            ///
            /// Those of `send(2)`; never a signal.
            pub fn write<B: quoit::buf::IoBuf>(
                &self,
                buf: B,
            ) -> impl Future<Output = quoit::buf::BufResult<usize, B>> {
                self.stream.send(buf)
            }

            /// Writes all of a buffer.
            ///
            /// # Errors
            ///
            /// Those of `send(2)`. If some bytes went out before a failure or a cancel, the error holds an
            /// [`Interrupted`](quoit::buf::Interrupted) that says how many.
            pub fn write_all<B: quoit::buf::IoBuf>(
                &self,
                buf: B,
            ) -> impl Future<Output = quoit::buf::BufResult<(), B>> {
                self.stream.send_all(buf)
            }

            /// Writes all of several buffers, in order, gathered into few calls.
            ///
            /// # Errors
            ///
            #[doc = concat!("As for [`", stringify!($name), "::write_all`].")]
            pub fn write_all_vectored<B: quoit::buf::IoBuf>(
                &self,
                bufs: Vec<B>,
            ) -> impl Future<Output = quoit::buf::BufResult<(), Vec<B>>> {
                self.stream.send_all_vectored(bufs)
            }

            /// Ends one or both directions; what was written before still arrives. Never waits, and happens
            /// also in a cancelled scope.
            ///
            /// # Errors
            ///
            /// Those of `shutdown(2)`.
            pub fn shutdown(&self, how: std::net::Shutdown) -> std::io::Result<()> {
                self.stream.shutdown(how)
            }

            /// Closes the connection and waits until that is done, also in a cancelled scope. Dropping the
            /// stream closes it as well.
            ///
            /// # Errors
            ///
            /// Those of `close(2)`.
            pub async fn close(self) -> std::io::Result<()> {
                self.stream.close().await
            }
        }

        impl From<$name> for quoit::op::Stream {
            fn from(stream: $name) -> Self {
                stream.stream
            }
        }
    };
}

pub(crate) use byte_stream;
