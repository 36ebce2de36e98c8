//! Which port is whose.
//!
//! A socket that is bound, or connected, has its port until it is closed. After that the port lingers
//! with the end that closed first, for a minute: `TIME_WAIT`, `tcp(7)`. Two sockets may have the same
//! port if their addresses differ, or if both say that they share it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::address::overlap;
use super::{Kernel, ObjectId};

/// The ports of sockets that asked for none. `ip_local_port_range`, `ip(7)`.
const FIRST_PORT: u16 = 32_768;

/// How long a port lingers. `TCP_TIMEWAIT_LEN`, `net/tcp.h`.
const TIME_WAIT: u64 = 60_000_000_000;

/// How a socket shares its port.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sharing {
    /// With others that say so too and do not listen. `SO_REUSEADDR`.
    pub(crate) address: bool,
    /// With others that say so too. `SO_REUSEPORT`.
    pub(crate) port: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Ports {
    owners: BTreeMap<u16, Vec<ObjectId>>,
    /// Connections that are over, by their two addresses.
    lingering: BTreeMap<(u16, SocketAddr, SocketAddr), Lingering>,
    /// From how many on those that are over are looked for.
    tidy_at: usize,
    next: u16,
}

#[derive(Debug)]
struct Lingering {
    until: u64,
    sharing: Sharing,
}

impl Ports {
    pub(crate) fn take(&mut self, port: u16, id: ObjectId) {
        self.owners.entry(port).or_default().push(id);
    }

    pub(crate) fn leave(&mut self, port: u16, id: ObjectId) {
        if let Some(owners) = self.owners.get_mut(&port) {
            owners.retain(|owner| *owner != id);
            if owners.is_empty() {
                self.owners.remove(&port);
            }
        }
    }

    /// Returns who has this port.
    pub(crate) fn owners(&self, port: u16) -> &[ObjectId] {
        self.owners.get(&port).map_or(&[], Vec::as_slice)
    }

    /// Returns a port that no socket has.
    pub(crate) fn free(&mut self) -> Result<u16, i32> {
        for _ in FIRST_PORT..=u16::MAX {
            let port = FIRST_PORT + self.next % (u16::MAX - FIRST_PORT);
            self.next = self.next.wrapping_add(1) % (u16::MAX - FIRST_PORT);
            if !self.owners.contains_key(&port) {
                return Ok(port);
            }
        }
        Err(libc::EADDRINUSE)
    }

    /// Lets the port of a connection linger that was closed here first.
    pub(crate) fn linger(
        &mut self,
        now: u64,
        local: SocketAddr,
        remote: SocketAddr,
        sharing: Sharing,
    ) {
        if self.lingering.len() >= self.tidy_at {
            self.lingering.retain(|_, lingering| lingering.until > now);
            self.tidy_at = (self.lingering.len() * 2).max(1024);
        }
        let until = now + TIME_WAIT;
        let lingering = Lingering { until, sharing };
        self.lingering
            .insert((local.port(), local, remote), lingering);
    }

    /// Ends it: the other end was heard of once more, and told that nobody is here.
    pub(crate) fn linger_no_more(&mut self, local: SocketAddr, remote: SocketAddr) {
        self.lingering.remove(&(local.port(), local, remote));
    }

    fn lingers(&self, now: u64, wanted: SocketAddr, sharing: Sharing) -> bool {
        let lowest = SocketAddr::from(([0, 0, 0, 0], 0));
        self.lingering
            .range((wanted.port(), lowest, lowest)..)
            .take_while(|((port, _, _), _)| *port == wanted.port())
            .any(|((_, local, _), lingering)| {
                lingering.until > now
                    && overlap(wanted.ip(), local.ip())
                    && !may_share(sharing, lingering.sharing, false)
            })
    }
}

impl Kernel {
    /// Whether somebody has this address already who does not share it. `inet_csk_bind_conflict`.
    pub(crate) fn is_taken(
        &self,
        wanted: SocketAddr,
        sharing: Sharing,
        except: Option<ObjectId>,
    ) -> bool {
        let others = self.net.ports.owners(wanted.port()).iter();
        let clash = others
            .filter(|other| Some(**other) != except)
            .filter_map(|other| self.as_bound(*other))
            .any(|(local, theirs, listens)| {
                overlap(wanted.ip(), local.ip()) && !may_share(sharing, theirs, listens)
            });
        clash || self.net.ports.lingers(self.now, wanted, sharing)
    }
}

fn may_share(ours: Sharing, theirs: Sharing, they_listen: bool) -> bool {
    ours.port && theirs.port || ours.address && theirs.address && !they_listen
}
