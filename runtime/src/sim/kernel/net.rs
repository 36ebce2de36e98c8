//! Sockets: TCP between programs of the simulation.
//!
//! Here: addresses, options, listening, connecting, and the end of a socket. What goes over a
//! connection is in [`super::stream`].
//!
//! A connection is two sockets that know each other. Bytes that are sent are on their way for a while,
//! then lie with the receiver until he takes them; both together have a limit, which is what makes a
//! sender wait. An end, too, is on its way behind the bytes before it; a reset overtakes them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;

use super::address::{Family, is_nowhere, listened_at, somewhere, source};
use super::ports::{Ports, Sharing};
use super::{Coming, Kernel, Kind, ObjectId};
use crate::driver::socket::SocketOption;
use crate::sim::fault::Fault;

/// What a socket holds for its reader, if nobody says otherwise.
const RECEIVE_BUFFER: usize = 128 * 1024;

/// The most that a socket can be told to hold. `net.core.rmem_max`, socket(7).
const RECEIVE_BUFFER_MAX: usize = 212_992;

/// How many may wait at most to be accepted. `net.core.somaxconn`, listen(2).
const SOMAXCONN: u32 = 4096;

/// Who listens where, and which ports are taken. A port that a socket was given without asking for it
/// is free again when the connection is over, one it asked for when it is closed.
#[derive(Debug, Default)]
pub(crate) struct Net {
    pub(super) listeners: BTreeMap<SocketAddr, Vec<ObjectId>>,
    pub(crate) ports: Ports,
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(super) family: Family,
    pub(super) local: Option<SocketAddr>,
    /// It asked for its port.
    pub(super) asked: bool,
    pub(super) sharing: Sharing,
    pub(super) capacity: usize,
    /// A peer that is silent for so long is probed.
    pub(super) keep_alive: Option<Duration>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    Fresh,
    Listening {
        backlog: usize,
        queue: VecDeque<ObjectId>,
    },
    Connected(Connection),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    /// The other socket, while it is there.
    pub(super) peer: Option<ObjectId>,
    /// On the way to us, with the time of arrival.
    pub(super) transit: VecDeque<(u64, Piece)>,
    pub(super) in_transit: usize,
    /// What lies here to be received.
    pub(super) arrived: VecDeque<u8>,
    /// The peer has sent all it wanted.
    pub(super) ended: bool,
    /// We take no more.
    pub(super) read_shut: bool,
    /// We send no more.
    pub(super) write_shut: bool,
    /// The peer knows.
    pub(super) end_arrived: bool,
    /// To be reported once, by whoever comes first. `SO_ERROR`, `socket(7)`.
    pub(super) error: Option<i32>,
    /// Nothing goes any more.
    pub(super) dead: bool,
    /// Bytes of ours that have arrived there.
    pub(super) acknowledged: u64,
    /// Takes nothing until then.
    pub(super) stalled_until: u64,
    /// The peer has vanished: nothing arrives any more, here or there.
    pub(super) cut_off: bool,
    /// Bytes that were sent and did not arrive before the peer had vanished.
    pub(super) lost: usize,
    /// When the kernel takes the peer for gone.
    pub(super) gives_up_at: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    End,
}

impl Socket {
    pub(crate) fn fresh(family: Family) -> Self {
        Self {
            family,
            local: None,
            asked: false,
            sharing: Sharing::default(),
            capacity: RECEIVE_BUFFER,
            keep_alive: None,
            state: State::Fresh,
        }
    }

    pub(super) fn connection(&mut self) -> Result<&mut Connection, i32> {
        match &mut self.state {
            State::Connected(connection) => Ok(connection),
            State::Fresh | State::Listening { .. } => Err(libc::ENOTCONN),
        }
    }
}

impl Connection {
    pub(super) fn new(remote: SocketAddr, peer: ObjectId) -> Self {
        Self {
            remote,
            peer: Some(peer),
            transit: VecDeque::new(),
            in_transit: 0,
            arrived: VecDeque::new(),
            ended: false,
            read_shut: false,
            write_shut: false,
            end_arrived: false,
            error: None,
            dead: false,
            acknowledged: 0,
            stalled_until: 0,
            cut_off: false,
            lost: 0,
            gives_up_at: None,
        }
    }

    /// Whether nothing is left of it but the two ends: reset, or closed in both directions. `TCP_CLOSE`,
    /// and `TIME_WAIT` as the socket sees it.
    pub(super) fn is_over(&self) -> bool {
        self.dead || self.ended && self.end_arrived
    }
}

impl Kernel {
    pub(crate) fn socket_mut(&mut self, id: ObjectId) -> Result<&mut Socket, i32> {
        match &mut self.object_mut(id).kind {
            Kind::Socket(socket) => Ok(socket),
            _ => Err(libc::ENOTSOCK),
        }
    }

    pub(super) fn connection_mut(&mut self, id: ObjectId) -> Result<&mut Connection, i32> {
        self.socket_mut(id)?.connection()
    }

    // --- calls that do not go through the ring ---

    pub(crate) fn set_option(&mut self, id: ObjectId, option: SocketOption) -> Result<(), i32> {
        let socket = self.socket_mut(id)?;
        match option {
            SocketOption::ReusePort(on) => socket.sharing.port = on,
            SocketOption::ReuseAddress(on) => socket.sharing.address = on,
            // The kernel doubles what it is told, and has a most and a least (socket(7)).
            SocketOption::ReceiveBuffer(bytes) => {
                socket.capacity = (bytes.min(RECEIVE_BUFFER_MAX) * 2).max(2304);
            }
            // Seconds, of which it takes so many (`MAX_TCP_KEEPIDLE`, tcp(7)).
            SocketOption::KeepAlive(after) if !(1..=32_767).contains(&after.as_secs()) => {
                return Err(libc::EINVAL);
            }
            SocketOption::KeepAlive(after) => socket.keep_alive = Some(after),
            SocketOption::NoDelay(_) | SocketOption::SendBuffer(_) => {}
        }
        Ok(())
    }

    pub(crate) fn bind_socket(&mut self, id: ObjectId, wanted: SocketAddr) -> Result<(), i32> {
        let socket = self.socket_mut(id)?;
        let sharing = socket.sharing;
        let wanted = socket.family.taken(wanted)?;
        if socket.local.is_some() {
            return Err(libc::EINVAL);
        }
        if is_nowhere(wanted.ip()) {
            return Err(libc::EADDRNOTAVAIL);
        }
        let address = if wanted.port() == 0 {
            self.free_port(wanted.ip(), sharing)?
        } else {
            wanted
        };
        if self.is_taken(address, sharing, None) {
            return Err(libc::EADDRINUSE);
        }
        let socket = self.socket_mut(id)?;
        socket.local = Some(address);
        socket.asked = wanted.port() != 0;
        self.net.ports.take(address.port(), id);
        Ok(())
    }

    /// Returns the address of a socket that has one, how it shares that, and whether it listens there.
    pub(crate) fn as_bound(&self, id: ObjectId) -> Option<(SocketAddr, Sharing, bool)> {
        match &self.object(id).kind {
            Kind::Socket(socket) => {
                let listens = matches!(socket.state, State::Listening { .. });
                socket.local.map(|local| (local, socket.sharing, listens))
            }
            _ => None,
        }
    }

    pub(super) fn free_port(&mut self, ip: IpAddr, sharing: Sharing) -> Result<SocketAddr, i32> {
        // Those that linger are passed over.
        for _ in 0..u16::MAX {
            let address = SocketAddr::new(ip, self.net.ports.free()?);
            if !self.is_taken(address, sharing, None) {
                return Ok(address);
            }
        }
        Err(libc::EADDRINUSE)
    }

    /// A connection is over: its port is free, unless the socket asked for it, or closed first.
    pub(super) fn leave_port(&mut self, id: ObjectId) {
        if let Ok(socket) = self.socket_mut(id)
            && !socket.asked
            && let Some(local) = socket.local
        {
            self.net.ports.leave(local.port(), id);
        }
    }

    /// The end that closed first waits, lest something old arrives at somebody new.
    pub(super) fn linger(&mut self, id: ObjectId) {
        let now = self.now;
        if let Ok(socket) = self.socket_mut(id)
            && let Some(local) = socket.local
            && let State::Connected(connection) = &socket.state
        {
            let (remote, sharing) = (connection.remote, socket.sharing);
            self.net.ports.linger(now, local, remote, sharing);
        }
    }

    pub(crate) fn listen_socket(&mut self, id: ObjectId, backlog: i32) -> Result<(), i32> {
        let socket = self.socket_mut(id)?;
        if socket.local.is_none() {
            let any = socket.family.any();
            self.bind_socket(id, SocketAddr::new(any, 0))?;
        }
        let socket = self.socket_mut(id)?;
        let (address, sharing) = (socket.local.expect("bound just above"), socket.sharing);
        // Others may have bound it meanwhile, sharing it; only one listens, if not all share the port.
        if self.is_taken(address, sharing, Some(id)) {
            return Err(libc::EADDRINUSE);
        }
        let socket = self.socket_mut(id)?;
        // Unsigned, and cut (`__sys_listen`); one more than it says (listen(2) on Linux).
        let most = (backlog as u32).min(SOMAXCONN) as usize + 1;
        match &mut socket.state {
            State::Fresh => {
                socket.state = State::Listening {
                    backlog: most,
                    queue: VecDeque::new(),
                };
                self.net.listeners.entry(address).or_default().push(id);
                Ok(())
            }
            State::Listening { backlog, .. } => {
                *backlog = most;
                // Who found no room may have some now.
                self.changed(id);
                Ok(())
            }
            State::Connected(_) => Err(libc::EINVAL),
        }
    }

    pub(crate) fn local_address(&mut self, id: ObjectId) -> Result<SocketAddr, i32> {
        let socket = self.socket_mut(id)?;
        let unbound = SocketAddr::new(socket.family.any(), 0);
        Ok(socket.family.told(socket.local.unwrap_or(unbound)))
    }

    pub(crate) fn peer_address(&mut self, id: ObjectId) -> Result<SocketAddr, i32> {
        let socket = self.socket_mut(id)?;
        let family = socket.family;
        let connection = socket.connection()?;
        if connection.is_over() {
            return Err(libc::ENOTCONN);
        }
        Ok(family.told(connection.remote))
    }

    pub(crate) fn shut_down(&mut self, id: ObjectId, how: Shutdown) -> Result<(), i32> {
        let connection = self.connection_mut(id)?;
        if connection.is_over() {
            return Err(libc::ENOTCONN);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            connection.read_shut = true;
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) && !connection.write_shut {
            connection.write_shut = true;
            self.deliver(id, Piece::End, 0);
        }
        self.changed(id);
        Ok(())
    }

    pub(crate) fn acknowledged(&mut self, id: ObjectId) -> Result<u64, i32> {
        Ok(self.connection_mut(id)?.acknowledged)
    }

    // --- making connections ---

    /// Tries to connect; `None` if the other side has no room for us yet.
    pub(crate) fn connect(
        &mut self,
        id: ObjectId,
        address: SocketAddr,
        first: bool,
    ) -> Option<Result<(), i32>> {
        let address = match self.destination(id, address) {
            Err(errno) => return Some(Err(errno)),
            Ok(address) => address,
        };
        if first {
            if self.comes(Fault::ConnectRefused) {
                return Some(Err(libc::ECONNREFUSED));
            }
            let unreachable = [
                libc::ENETUNREACH,
                libc::EHOSTUNREACH,
                libc::ETIMEDOUT,
                libc::EACCES,
                libc::EPERM,
                libc::EADDRNOTAVAIL,
                libc::EAGAIN,
            ];
            if let Some(errno) = self.refused(Fault::ConnectUnreachable, &unreachable) {
                return Some(Err(errno));
            }
        }
        let listeners = listened_at(address)
            .find_map(|address| self.net.listeners.get(&address))
            .cloned();
        let Some(listeners) = listeners else {
            return Some(Err(libc::ECONNREFUSED));
        };
        // The kernel spreads connections by a hash that nobody knows.
        let listener = listeners[self.choices.choose(listeners.len())];
        let full = match &self.object(listener).kind {
            Kind::Socket(Socket {
                state: State::Listening { backlog, queue },
                ..
            }) => queue.len() >= *backlog,
            _ => true,
        };
        if full || self.comes(Fault::BacklogFull) {
            // Try again when somebody was accepted, or in a while, as a lost SYN is.
            return None;
        }
        let bound = self.as_bound(id).map(|(local, _, _)| local);
        let local = match bound {
            Some(local) if local.ip().is_unspecified() => {
                SocketAddr::new(source(address.ip()), local.port())
            }
            Some(local) => local,
            None => match self.net.ports.free() {
                Ok(port) => SocketAddr::new(source(address.ip()), port),
                Err(_) => return Some(Err(libc::EADDRNOTAVAIL)),
            },
        };
        if self.is_connected(local, address) {
            return Some(Err(libc::EADDRNOTAVAIL));
        }
        // A connection before may linger; the new one takes its place (`tcp_tw_reuse`, tcp(7)).
        self.net.ports.linger_no_more(local, address);
        let Ok(Socket {
            family,
            capacity,
            keep_alive,
            sharing,
            ..
        }) = self.socket_mut(listener)
        else {
            unreachable!("a listener is a socket");
        };
        let (family, capacity, keep_alive, sharing) = (*family, *capacity, *keep_alive, *sharing);
        let other = self.make(Kind::Socket(Socket {
            family,
            local: Some(address),
            asked: false,
            sharing,
            capacity,
            keep_alive,
            state: State::Connected(Connection::new(local, id)),
        }));
        self.net.ports.take(address.port(), other);
        // The listener's queue owns it until it is accepted.
        self.own(other);
        if bound.is_none() {
            self.net.ports.take(local.port(), id);
        }
        let socket = self.socket_mut(id).expect("looked at above");
        socket.local = Some(local);
        let mut connection = Connection::new(address, other);
        // Of who connects the beginning was answered (`tcp_snd_una_update`).
        connection.acknowledged = 1;
        socket.state = State::Connected(connection);
        if let Ok(Socket {
            state: State::Listening { queue, .. },
            ..
        }) = self.socket_mut(listener)
        {
            queue.push_back(other);
        }
        self.changed(listener);
        Some(Ok(()))
    }

    pub(super) fn is_connected(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let mut owners = self.net.ports.owners(local.port()).iter();
        owners.any(|owner| match &self.object(*owner).kind {
            Kind::Socket(Socket {
                local: Some(theirs),
                state: State::Connected(connection),
                ..
            }) => *theirs == local && connection.remote == remote,
            _ => false,
        })
    }

    /// Returns where a socket that may connect is led by this address.
    fn destination(&mut self, id: ObjectId, address: SocketAddr) -> Result<SocketAddr, i32> {
        let socket = self.socket_mut(id)?;
        match socket.state {
            State::Fresh => {
                let address = socket.family.taken(address)?;
                let ip = somewhere(address.ip(), socket.local.map(|local| local.ip()));
                Ok(SocketAddr::new(ip, address.port()))
            }
            State::Connected(_) | State::Listening { .. } => Err(libc::EISCONN),
        }
    }

    /// Returns whom a socket waits for until there is room, while it connects to this address.
    pub(crate) fn listeners_at(&mut self, id: ObjectId, address: SocketAddr) -> Vec<ObjectId> {
        let Ok(address) = self.destination(id, address) else {
            return Vec::new();
        };
        listened_at(address)
            .filter_map(|address| self.net.listeners.get(&address))
            .flatten()
            .copied()
            .collect()
    }

    /// Takes a connection out of a listener's queue; `None` if there is none yet.
    pub(crate) fn take_connection(&mut self, id: ObjectId) -> Option<Result<ObjectId, i32>> {
        let socket = match self.socket_mut(id) {
            Ok(socket) => socket,
            Err(errno) => return Some(Err(errno)),
        };
        let State::Listening { queue, .. } = &mut socket.state else {
            return Some(Err(libc::EINVAL));
        };
        let taken = queue.pop_front()?;
        self.changed(id);
        Some(Ok(taken))
    }

    /// Puts a connection back that could not be accepted after all.
    pub(crate) fn put_connection_back(&mut self, id: ObjectId, connection: ObjectId) {
        if let Ok(Socket {
            state: State::Listening { queue, .. },
            ..
        }) = self.socket_mut(id)
        {
            queue.push_front(connection);
        }
    }

    // --- the end of a socket ---

    pub(crate) fn release_socket(&mut self, id: ObjectId, socket: Socket) {
        if let Some(address) = socket.local {
            if let State::Listening { .. } = socket.state
                && let Some(listeners) = self.net.listeners.get_mut(&address)
            {
                listeners.retain(|&listener| listener != id);
                if listeners.is_empty() {
                    self.net.listeners.remove(&address);
                }
            }
            self.net.ports.leave(address.port(), id);
        }
        let (local, sharing) = (socket.local, socket.sharing);
        match socket.state {
            State::Listening { queue, .. } => {
                // Who was not accepted is sent away, by a reset: no end goes before, no port lingers.
                for waiting in queue {
                    let peer = self
                        .connection_mut(waiting)
                        .ok()
                        .and_then(|waiting| waiting.peer);
                    self.reset_by_peer(waiting);
                    if let Some(peer) = peer {
                        self.reset_by_peer(peer);
                    }
                    self.disown(waiting);
                }
            }
            State::Connected(connection) => self.hang_up(connection, local, sharing),
            State::Fresh => {}
        }
    }

    pub(super) fn hang_up(
        &mut self,
        connection: Connection,
        local: Option<SocketAddr>,
        sharing: Sharing,
    ) {
        // An end that nobody has looked at is no byte (`__tcp_close` leaves it out of its count).
        let coming = |(_, piece): &(u64, Piece)| matches!(piece, Piece::Bytes(_));
        let unread = !connection.arrived.is_empty() || connection.transit.iter().any(coming);
        if let Some(local) = local.filter(|_| !connection.is_over() && !connection.ended && !unread)
        {
            let (now, remote) = (self.now, connection.remote);
            self.net.ports.linger(now, local, remote, sharing);
        }
        let Some(peer) = connection.peer else { return };
        if let Ok(other) = self.connection_mut(peer) {
            other.peer = None;
        }
        if connection.is_over() {
            return;
        }
        if unread {
            // What was sent and not received is lost, and the sender is told so (RFC 2525, 2.17).
            self.reset_by_peer(peer);
        } else if !connection.write_shut {
            let now = self.now;
            let late = self.drawn(Fault::LateArrival, 5_000_000).unwrap_or(0);
            if let Ok(other) = self.connection_mut(peer) {
                let before = other.transit.back().map_or(now, |(at, _)| *at);
                let at = (now + late).max(before);
                other.transit.push_back((at, Piece::End));
                if at == now {
                    self.arrive(peer);
                } else {
                    self.after(at - now, Coming::Arrival(peer));
                }
            }
        }
        // Whoever waits to send finds that nobody is there.
        self.changed(peer);
    }
}
