//! Where a server listens: what a program says, and what the cores are given.

use std::fmt;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;

use quoit::op::{Listener, SharedFd, Stream};
use quoit::time::Instant;
use quoit::{CoreId, Handle};

use super::connection::Client;
use crate::Address;
use crate::sharded::ShardedListener;
use crate::tcp::TcpOptions;
use crate::unix::{self, Place, SharedUnix, UnixAddress, UnixOptions};

/// Something that a server can listen on: whatever stands for internet addresses, and a
/// [`UnixAddress`].
pub trait Listen {
    /// Returns the addresses that it stands for; the first that works is taken.
    ///
    /// # Errors
    ///
    /// If it stands for none.
    fn addresses(&self) -> io::Result<Vec<Address>>;
}

impl<A: ToSocketAddrs> Listen for A {
    fn addresses(&self) -> io::Result<Vec<Address>> {
        Ok(self.to_socket_addrs()?.map(Address::Tcp).collect())
    }
}

impl Listen for UnixAddress {
    fn addresses(&self) -> io::Result<Vec<Address>> {
        Ok(vec![Address::Unix(self.clone())])
    }
}

impl Listen for Address {
    fn addresses(&self) -> io::Result<Vec<Address>> {
        Ok(vec![self.clone()])
    }
}

/// What one thing to listen on has come to. Looked up when it is said, told when the server starts.
#[derive(Debug, Clone)]
pub(super) struct Named(Result<Vec<Address>, (io::ErrorKind, String)>);

impl Named {
    pub(super) fn new(address: &(impl Listen + fmt::Debug)) -> Self {
        let found = address.addresses();
        Self(found.map_err(|error| {
            let what = format!("cannot listen on {address:?}: {error}");
            (error.kind(), what)
        }))
    }

    fn addresses(self) -> io::Result<Vec<Address>> {
        self.0.map_err(|(kind, what)| io::Error::new(kind, what))
    }
}

/// How sockets shall listen.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) tcp: TcpOptions,
    pub(super) unix: UnixOptions,
}

/// One address that all cores listen on.
#[derive(Debug, Clone)]
pub(super) enum Port {
    Tcp(ShardedListener),
    Unix(SharedUnix),
}

impl Port {
    /// Binds the first address that works.
    pub(super) fn bind_first(
        addresses: Vec<Address>,
        cores: &Handle,
        options: &Options,
    ) -> io::Result<Self> {
        let mut failure = None;
        for address in addresses {
            match Self::bind(&address, cores, options) {
                Ok(port) => return Ok(port),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name stands for no address to listen on",
            )
        }))
    }

    /// Binds each of several, or none.
    pub(super) fn bind_all(
        named: Vec<Named>,
        cores: &Handle,
        options: &Options,
    ) -> io::Result<Vec<Self>> {
        let bind = |named: Named| Self::bind_first(named.addresses()?, cores, options);
        named.into_iter().map(bind).collect()
    }

    fn bind(address: &Address, cores: &Handle, options: &Options) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                ShardedListener::bind_with(*address, cores, &options.tcp).map(Self::Tcp)
            }
            Address::Unix(address) => {
                SharedUnix::bind(address, &options.unix, cores.cores().len()).map(Self::Unix)
            }
        }
    }

    /// Returns the address, with what the kernel chose.
    pub(super) fn local_addr(&self) -> Address {
        match self {
            Self::Tcp(port) => port.local_addr().into(),
            Self::Unix(port) => port.local_addr().clone().into(),
        }
    }

    /// Takes the share of a core; call it there, once.
    pub(super) fn take(&self, core: CoreId) -> io::Result<Door> {
        Ok(match self {
            Self::Tcp(port) => Door {
                listener: port.take(core)?.into_op(),
                family: Family::Tcp,
                is_shared: false,
            },
            Self::Unix(port) => {
                let (listener, place) = port.take()?;
                Door {
                    listener,
                    family: Family::Unix(place),
                    is_shared: port.is_shared(),
                }
            }
        })
    }
}

/// Where connections come in, on one core.
#[derive(Debug)]
pub(super) struct Door {
    /// Dropped first: the file of a socket goes before it is closed.
    family: Family,
    listener: Listener,
    is_shared: bool,
}

/// How many connections are asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appetite {
    One,
    /// All that come: asked once, and cheaper than one after the other.
    All,
}

/// What is on the other side of a door.
#[derive(Debug)]
enum Family {
    Tcp,
    /// The file goes when the last core stops listening, or the first that finishes.
    Unix(Arc<Place>),
}

impl Door {
    /// Waits for a connection. What waits while this waits at other doors is not lost.
    pub(super) async fn accept(&self, appetite: Appetite) -> io::Result<SharedFd> {
        if self.is_shared || appetite == Appetite::One {
            self.listener.accept_one().await
        } else {
            self.listener.accept().await
        }
    }

    /// Leaves connections with the kernel until the next accept; returns those that it had given.
    pub(super) async fn pause(&self) -> Vec<(Stream, Client)> {
        let taken = self.listener.pause().await;
        taken.into_iter().filter_map(|fd| self.meet(fd)).collect()
    }

    /// Returns a connection that came in here, with whose it is; `None` if it has gone already.
    pub(super) fn meet(&self, fd: SharedFd) -> Option<(Stream, Client)> {
        self.family.meet(fd)
    }

    /// Stops listening; returns the connections that had been made and not yet taken.
    pub(super) async fn finish(self) -> Vec<(Stream, Client)> {
        if let Family::Unix(place) = &self.family {
            place.remove();
        }
        let Self {
            listener, family, ..
        } = self;
        let left = listener.finish().await;
        let met = left.into_iter().filter_map(|fd| family.meet(fd));
        met.collect()
    }
}

impl Family {
    fn meet(&self, fd: SharedFd) -> Option<(Stream, Client)> {
        let stream = Stream::new(fd);
        let accepted = Instant::recent();
        let client = match self {
            Self::Tcp => Client {
                accepted,
                address: stream.peer_addr().ok()?.into(),
                credentials: None,
            },
            Self::Unix(_) => Client {
                accepted,
                address: unix::peer_addr(&stream).ok()?.into(),
                credentials: stream.peer_credentials().ok(),
            },
        };
        Some((stream, client))
    }
}
