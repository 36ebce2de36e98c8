//! One Unix listener for several cores.
//!
//! Each core has an accept in the kernel, which wakes one of them for each connection. An accept that is taken
//! back may have been woken already: it ends, its connection stays in the queue, and the kernel wakes nobody
//! else for it. So whoever takes one back has another core look ([`SecondLook`]), and whoever finds a connection
//! after he was told to look, at once or later, has the next look.

use std::io;
use std::sync::Arc;

use quoit::op::{Listener, Socket};
use quoit::sync::shared::channel::{self, Receiver, Sender};

use super::options::{Bound, Place};
use super::{UnixAddress, UnixOptions};

/// A Unix socket that every core of a runtime accepts from.
#[derive(Debug, Clone)]
pub(crate) struct SharedUnix {
    /// Dropped first: the file goes before the socket is closed.
    place: Arc<Place>,
    socket: Arc<Socket>,
    local: UnixAddress,
    /// If there are several cores.
    second_look: Option<SecondLook>,
}

/// The word that there may be a connection which nobody was woken for. It is heard by one core that waits, or
/// by the next that does.
#[derive(Debug, Clone)]
pub(crate) struct SecondLook {
    ask: Sender<()>,
    asked: Receiver<()>,
}

impl SecondLook {
    fn new() -> Self {
        // To be asked twice is to be asked.
        let (ask, asked) = channel::bounded(1);
        Self { ask, asked }
    }

    /// Has somebody look.
    pub(crate) fn ask(&self) {
        // If there is no room, he is asked already.
        let _ = self.ask.try_send(());
    }

    /// Waits until somebody is asked, and it is us.
    pub(crate) async fn asked(&self) -> io::Result<()> {
        self.asked.recv().await?;
        Ok(())
    }
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
            second_look: (cores > 1).then(SecondLook::new),
        })
    }

    /// Makes the listener of a core; call it there.
    pub(crate) fn take(&self) -> io::Result<(Listener, Arc<Place>)> {
        let listener = Listener::new(self.socket.try_clone()?);
        Ok((listener, Arc::clone(&self.place)))
    }

    /// Returns the word among the cores, if several accept from it, which thus take one connection at a time.
    pub(crate) fn second_look(&self) -> Option<SecondLook> {
        self.second_look.clone()
    }

    pub(crate) fn local_addr(&self) -> &UnixAddress {
        &self.local
    }
}
