//! Addresses: what a socket of either family may be told, and which of them are the same.
//!
//! Inside of the kernel an address of IPv4 is one, whoever has it. To a socket of IPv6 it is told as a mapped one
//! (`::ffff:127.0.0.1`), and such a socket that is bound to all addresses has those of IPv4 as well: `ipv6(7)`, where
//! `bindv6only` is off.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    /// All addresses.
    pub(super) fn any(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Takes what a socket was told. `inet_bind` looks at the family, `inet6_bind` at the length.
    pub(super) fn taken(self, address: SocketAddr) -> Result<SocketAddr, i32> {
        match (self, address) {
            (Self::V4, SocketAddr::V6(_)) => Err(libc::EAFNOSUPPORT),
            (Self::V6, SocketAddr::V4(_)) => Err(libc::EINVAL),
            _ => Ok(SocketAddr::new(address.ip().to_canonical(), address.port())),
        }
    }

    /// Returns what a socket is told.
    pub(super) fn told(self, address: SocketAddr) -> SocketAddr {
        match (self, address.ip()) {
            (Self::V6, IpAddr::V4(ip)) => (ip.to_ipv6_mapped(), address.port()).into(),
            _ => address,
        }
    }
}

/// Whether two sockets would have an address in common.
pub(super) fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other || covers(one, other) || covers(other, one)
}

fn covers(all: IpAddr, one: IpAddr) -> bool {
    match all {
        IpAddr::V4(all) => all.is_unspecified() && one.is_ipv4(),
        IpAddr::V6(all) => all.is_unspecified(),
    }
}

/// Returns where somebody may listen who is connected to at this address; the first that is found has it
/// (`__inet_lookup_listener`).
pub(super) fn listened_at(address: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let any = [Family::V4, Family::V6].map(Family::any);
    let any = any
        .into_iter()
        .filter(move |any| covers(*any, address.ip()));
    let ips = std::iter::once(address.ip()).chain(any);
    ips.map(move |ip| SocketAddr::new(ip, address.port()))
}

/// Returns where a connection leads that was asked for at this address, and maybe from that one: no address in
/// particular is its own socket's, or else the loopback interface's.
pub(super) fn somewhere(ip: IpAddr, from: Option<IpAddr>) -> IpAddr {
    if !ip.is_unspecified() {
        return ip;
    }
    let from = from.filter(|from| !from.is_unspecified() && from.is_ipv4() == ip.is_ipv4());
    from.unwrap_or(match ip {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    })
}

/// Returns where a connection to this address comes from, if its socket has none: all addresses are this machine's
/// own, and of the loopback interface's many the first is taken.
pub(super) fn source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Whether no interface has this address, as for those that are kept for documents (RFC 5737, RFC
/// 3849). All others are the machine's.
pub(super) fn is_nowhere(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(
            ip.octets(),
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _]
        ),
        IpAddr::V6(ip) => ip.segments()[..2] == [0x2001, 0xdb8],
    }
}
