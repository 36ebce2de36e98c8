//! `UnixListener`: accepts connections.

use std::io;

use quoit::op::{Listener, Stream};

use super::options::{Bound, Place};
use super::{UnixAddress, UnixOptions, UnixStream};

/// Accepts Unix connections on one core.
///
/// Dropped, it is closed, and its file removed.
///
/// ```
/// use quoit_net::unix::{UnixAddress, UnixListener, UnixStream};
///
/// # let name = format!("quoit-doc-{}", std::process::id());
/// # let address = UnixAddress::abstract_name(name);
/// quoit::block_on(async {
///     let listener = UnixListener::bind(address.clone())?;
///     let client = UnixStream::connect(address).await?;
///     let server = listener.accept().await?;
///     assert_eq!(server.peer_credentials()?.pid, std::process::id());
///     client.write_all("hello").await.0?;
///     assert_eq!(&*server.recv().await?.expect("bytes"), b"hello");
///     Ok::<_, std::io::Error>(())
/// })
/// # ??;
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct UnixListener {
    /// Dropped first: the file goes before the socket is closed.
    place: Place,
    listener: Listener,
    local: UnixAddress,
}

impl UnixListener {
    /// Binds an address and listens. The file of a socket that nobody listens on any more is
    /// replaced. Of several that begin at once one gets the path: for a moment it holds a lock on a file
    /// beside the socket, `PATH.quoit-lock`.
    ///
    /// # Errors
    ///
    /// With the address in the message: `AddrInUse` if somebody listens there or is about to,
    /// `AlreadyExists` if a file is there that is no socket, and those of `open(2)`, `flock(2)`, `bind(2)`
    /// and `listen(2)`. `Unsupported` in a simulation.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub fn bind(address: impl Into<UnixAddress>) -> io::Result<Self> {
        Self::bind_with(address, &UnixOptions::new())
    }

    /// Binds an address with options.
    ///
    /// # Errors
    ///
    /// As for [`UnixListener::bind`].
    pub fn bind_with(address: impl Into<UnixAddress>, options: &UnixOptions) -> io::Result<Self> {
        let local = address.into();
        let Bound { socket, place } = options.listen(&local)?;
        Ok(Self {
            listener: Listener::new(socket),
            local,
            place,
        })
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`. After one the next call tries again; with too many open files
    /// (`EMFILE`), wait a little first. Cancelled, no connection is lost.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        let fd = self.listener.accept().await?;
        Ok(UnixStream::from_stream(Stream::new(fd)))
    }

    /// Stops listening, removes the file, and returns every connection that had been made and not yet
    /// taken: for a server that stops, and answers those before it goes.
    pub async fn finish(self) -> Vec<UnixStream> {
        self.place.remove();
        let left = self.listener.finish().await;
        left.into_iter()
            .map(|fd| UnixStream::from_stream(Stream::new(fd)))
            .collect()
    }

    /// Returns the address it listens on.
    pub fn local_addr(&self) -> &UnixAddress {
        &self.local
    }
}
