//! `Address`: where a server listens, and whose a connection is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::unix::UnixAddress;

/// The address of either end of a connection.
///
/// ```
/// use std::net::SocketAddr;
/// use quoit_net::Address;
///
/// let home = SocketAddr::from(([127, 0, 0, 1], 8080));
/// let address = Address::from(home);
/// assert_eq!(address, home);
/// assert_eq!(address.to_string(), "127.0.0.1:8080");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// Of a TCP socket.
    Tcp(SocketAddr),
    /// Of a Unix socket; shown with `unix:` before it.
    Unix(UnixAddress),
}

impl Address {
    /// Returns the address and port of a TCP socket.
    pub fn as_tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Returns the address of a Unix socket.
    pub fn as_unix(&self) -> Option<&UnixAddress> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(address) => Some(address),
        }
    }

    /// Returns the address without the port, of a TCP socket.
    pub fn ip(&self) -> Option<IpAddr> {
        self.as_tcp().map(|address| address.ip())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(address) => write!(f, "unix:{address}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<UnixAddress> for Address {
    fn from(address: UnixAddress) -> Self {
        Self::Unix(address)
    }
}

impl PartialEq<SocketAddr> for Address {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.as_tcp() == Some(*other)
    }
}
