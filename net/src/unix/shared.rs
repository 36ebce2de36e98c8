//! One Unix listener for several cores.

use std::io;
use std::sync::Arc;

use quoit::op::{Listener, Socket};

use super::options::{Bound, Place};
use super::{UnixAddress, UnixOptions};

/// A Unix socket that every core of a runtime accepts from.
#[derive(Debug, Clone)]
pub(crate) struct SharedUnix {
    /// Dropped first: the file goes before the socket is closed.
    place: Arc<Place>,
    socket: Arc<Socket>,
    local: UnixAddress,
    is_shared: bool,
}

impl SharedUnix {
    /// Listens, for so many cores.
    pub(crate) fn bind(
        address: &UnixAddress,
        options: &UnixOptions,
        cores: usize,
    ) -> io::Result<Self> {
        let Bound { socket, place } = options.listen(address)?;
        Ok(Self {
            place: Arc::new(place),
            socket: Arc::new(socket),
            local: address.clone(),
            is_shared: cores > 1,
        })
    }

    /// Makes the listener of a core; call it there.
    pub(crate) fn take(&self) -> io::Result<(Listener, Arc<Place>)> {
        let listener = Listener::new(self.socket.try_clone()?);
        Ok((listener, Arc::clone(&self.place)))
    }

    /// Returns whether several cores accept from it, which thus take one connection at a time.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    pub(crate) fn local_addr(&self) -> &UnixAddress {
        &self.local
    }
}
