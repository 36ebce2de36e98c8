//! Sockets: TCP between programs of the simulation.
//!
//! A connection is two sockets that know each other. Bytes that are sent are on their way for a while,
//! then lie with the receiver until he takes them; both together have a limit, which is what makes a
//! sender wait. An end, too, is on its way behind the bytes before it; a reset overtakes them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};

use super::{Coming, Kernel, Kind, ObjectId};
use crate::driver::socket::SocketOption;
use crate::sim::fault::Fault;

/// What a socket holds for its reader, if nobody says otherwise.
const RECEIVE_BUFFER: usize = 128 * 1024;

/// The ports of sockets that asked for none. `ip_local_port_range`, `ip(7)`.
const FIRST_PORT: u16 = 32_768;

/// Who listens where, and which ports are taken.
#[derive(Debug, Default)]
pub(crate) struct Net {
    listeners: BTreeMap<SocketAddr, Vec<ObjectId>>,
    bound: BTreeMap<SocketAddr, u32>,
    next_port: u16,
}

#[derive(Debug)]
pub(crate) struct Socket {
    local: Option<SocketAddr>,
    reuse_port: bool,
    capacity: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Fresh,
    Listening {
        backlog: usize,
        queue: VecDeque<ObjectId>,
    },
    Connected(Connection),
}

#[derive(Debug)]
struct Connection {
    remote: SocketAddr,
    /// The other socket, while it is there.
    peer: Option<ObjectId>,
    /// On the way to us, with the time of arrival.
    transit: VecDeque<(u64, Piece)>,
    in_transit: usize,
    /// What lies here to be received.
    arrived: VecDeque<u8>,
    /// The peer has sent all it wanted.
    ended: bool,
    /// We take no more.
    read_shut: bool,
    /// We send no more.
    write_shut: bool,
    /// To be reported once, by whoever comes first. `SO_ERROR`, `socket(7)`.
    error: Option<i32>,
    /// Nothing goes any more.
    dead: bool,
    /// Bytes of ours that have arrived there.
    acknowledged: u64,
    /// Takes nothing until then.
    stalled_until: u64,
    /// Nothing arrives here any more.
    cut_off: bool,
}

#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    End,
}

impl Socket {
    pub(crate) fn fresh() -> Self {
        Self {
            local: None,
            reuse_port: false,
            capacity: RECEIVE_BUFFER,
            state: State::Fresh,
        }
    }

    fn connection(&mut self) -> Result<&mut Connection, i32> {
        match &mut self.state {
            State::Connected(connection) => Ok(connection),
            State::Fresh | State::Listening { .. } => Err(libc::ENOTCONN),
        }
    }
}

impl Connection {
    fn new(remote: SocketAddr, peer: ObjectId) -> Self {
        Self {
            remote,
            peer: Some(peer),
            transit: VecDeque::new(),
            in_transit: 0,
            arrived: VecDeque::new(),
            ended: false,
            read_shut: false,
            write_shut: false,
            error: None,
            dead: false,
            acknowledged: 0,
            stalled_until: 0,
            cut_off: false,
        }
    }
}

impl Kernel {
    pub(crate) fn socket_mut(&mut self, id: ObjectId) -> Result<&mut Socket, i32> {
        match &mut self.object_mut(id).kind {
            Kind::Socket(socket) => Ok(socket),
            _ => Err(libc::ENOTSOCK),
        }
    }

    fn connection_mut(&mut self, id: ObjectId) -> Result<&mut Connection, i32> {
        self.socket_mut(id)?.connection()
    }

    // --- calls that do not go through the ring ---

    pub(crate) fn set_option(&mut self, id: ObjectId, option: SocketOption) -> Result<(), i32> {
        let socket = self.socket_mut(id)?;
        match option {
            SocketOption::ReusePort(on) => socket.reuse_port = on,
            // The kernel doubles what it is told, and has a least (socket(7)).
            SocketOption::ReceiveBuffer(bytes) => socket.capacity = (bytes * 2).max(2304),
            SocketOption::NoDelay(_)
            | SocketOption::ReuseAddress(_)
            | SocketOption::SendBuffer(_)
            | SocketOption::KeepAlive(_) => {}
        }
        Ok(())
    }

    pub(crate) fn bind_socket(&mut self, id: ObjectId, wanted: SocketAddr) -> Result<(), i32> {
        if is_nowhere(wanted.ip()) {
            return Err(libc::EADDRNOTAVAIL);
        }
        let address = if wanted.port() == 0 {
            self.free_port(wanted.ip())?
        } else {
            wanted
        };
        let shared = self.socket_mut(id)?.reuse_port;
        if self.socket_mut(id)?.local.is_some() {
            return Err(libc::EINVAL);
        }
        let clash = self.net.listeners.iter().any(|(taken, listeners)| {
            let same = taken.port() == address.port()
                && (taken.ip() == address.ip()
                    || taken.ip().is_unspecified()
                    || address.ip().is_unspecified());
            same && !listeners.is_empty() && !(shared && self.all_share(listeners))
        });
        if clash {
            return Err(libc::EADDRINUSE);
        }
        self.socket_mut(id)?.local = Some(address);
        *self.net.bound.entry(address).or_default() += 1;
        Ok(())
    }

    fn all_share(&self, listeners: &[ObjectId]) -> bool {
        listeners.iter().all(|&id| match &self.object(id).kind {
            Kind::Socket(socket) => socket.reuse_port,
            _ => false,
        })
    }

    fn free_port(&mut self, ip: IpAddr) -> Result<SocketAddr, i32> {
        for _ in FIRST_PORT..=u16::MAX {
            let port = FIRST_PORT + self.net.next_port % (u16::MAX - FIRST_PORT);
            self.net.next_port = self.net.next_port.wrapping_add(1) % (u16::MAX - FIRST_PORT);
            let address = SocketAddr::new(ip, port);
            if !self.net.bound.contains_key(&address) {
                return Ok(address);
            }
        }
        Err(libc::EADDRINUSE)
    }

    pub(crate) fn listen_socket(&mut self, id: ObjectId, backlog: i32) -> Result<(), i32> {
        if self.socket_mut(id)?.local.is_none() {
            self.bind_socket(id, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        }
        let socket = self.socket_mut(id)?;
        let address = socket.local.expect("bound just above or before");
        let shared = socket.reuse_port;
        let others = self
            .net
            .listeners
            .get(&address)
            .cloned()
            .unwrap_or_default();
        let may_share = others.is_empty() || shared && self.all_share(&others);
        if !may_share {
            return Err(libc::EADDRINUSE);
        }
        let socket = self.socket_mut(id)?;
        match socket.state {
            State::Fresh => {
                socket.state = State::Listening {
                    // One more than it says; `listen(2)` on Linux.
                    backlog: usize::try_from(backlog).unwrap_or(0) + 1,
                    queue: VecDeque::new(),
                };
                self.net.listeners.entry(address).or_default().push(id);
                Ok(())
            }
            State::Listening { .. } => Ok(()),
            State::Connected(_) => Err(libc::EINVAL),
        }
    }

    pub(crate) fn local_address(&mut self, id: ObjectId) -> Result<SocketAddr, i32> {
        let unbound = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Ok(self.socket_mut(id)?.local.unwrap_or(unbound))
    }

    pub(crate) fn peer_address(&mut self, id: ObjectId) -> Result<SocketAddr, i32> {
        let connection = self.connection_mut(id)?;
        if connection.dead {
            return Err(libc::ENOTCONN);
        }
        Ok(connection.remote)
    }

    pub(crate) fn shut_down(&mut self, id: ObjectId, how: Shutdown) -> Result<(), i32> {
        let connection = self.connection_mut(id)?;
        if connection.dead {
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
        match self.socket_mut(id) {
            Err(errno) => return Some(Err(errno)),
            Ok(socket) => match socket.state {
                State::Connected(_) => return Some(Err(libc::EISCONN)),
                State::Listening { .. } => return Some(Err(libc::EINVAL)),
                State::Fresh => {}
            },
        }
        if first {
            if self.comes(Fault::ConnectRefused) {
                return Some(Err(libc::ECONNREFUSED));
            }
            let unreachable = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ETIMEDOUT];
            if let Some(errno) = self.refused(Fault::ConnectUnreachable, &unreachable) {
                return Some(Err(errno));
            }
        }
        let any = SocketAddr::new(unspecified_like(address.ip()), address.port());
        let listeners = [address, any]
            .iter()
            .find_map(|address| self.net.listeners.get(address))
            .filter(|listeners| !listeners.is_empty())
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
        let local = match self.socket_mut(id).map(|socket| socket.local) {
            Ok(Some(local)) => local,
            _ => match self.free_port(loopback_like(address.ip())) {
                Ok(local) => local,
                Err(_) => return Some(Err(libc::EADDRNOTAVAIL)),
            },
        };
        *self.net.bound.entry(local).or_default() += 1;
        let capacity = self
            .socket_mut(listener)
            .map_or(RECEIVE_BUFFER, |socket| socket.capacity);
        *self.net.bound.entry(address).or_default() += 1;
        let other = self.make(Kind::Socket(Socket {
            local: Some(address),
            reuse_port: false,
            capacity,
            state: State::Connected(Connection::new(local, id)),
        }));
        // The listener's queue owns it until it is accepted.
        self.own(other);
        let socket = self.socket_mut(id).expect("looked at above");
        if socket.local.replace(local).is_some() {
            self.unbind(local);
        }
        let socket = self.socket_mut(id).expect("looked at above");
        socket.state = State::Connected(Connection::new(address, other));
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

    /// Returns whom to wait for until there is room, while connecting to this address.
    pub(crate) fn listeners_at(&self, address: SocketAddr) -> Vec<ObjectId> {
        let any = SocketAddr::new(unspecified_like(address.ip()), address.port());
        [address, any]
            .iter()
            .filter_map(|address| self.net.listeners.get(address))
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

    // --- bytes ---

    /// Takes what has arrived; an empty answer is the end; `None` if there is nothing yet.
    pub(crate) fn receive(&mut self, id: ObjectId, most: usize) -> Option<Result<Vec<u8>, i32>> {
        let connection = match self.connection_mut(id) {
            Ok(connection) => connection,
            Err(errno) => return Some(Err(errno)),
        };
        if !connection.arrived.is_empty() && most > 0 {
            let count = most.min(connection.arrived.len());
            // Moved as a whole: byte by byte it is what a debug build spends most of its time on.
            let rest = connection.arrived.split_off(count);
            let taken = std::mem::replace(&mut connection.arrived, rest).into();
            let peer = connection.peer;
            if let Some(peer) = peer {
                // There is room again.
                self.changed(peer);
            }
            return Some(Ok(taken));
        }
        if let Some(errno) = connection.error.take() {
            return Some(Err(errno));
        }
        let over = connection.ended || connection.read_shut || connection.dead || most == 0;
        over.then(|| Ok(Vec::new()))
    }

    /// How many bytes lie there to be received.
    pub(crate) fn receivable(&mut self, id: ObjectId) -> usize {
        self.connection_mut(id)
            .map_or(0, |connection| connection.arrived.len())
    }

    /// Returns how many bytes could be sent now; `None` if the sender has to wait.
    pub(crate) fn sendable(&mut self, id: ObjectId) -> Option<Result<usize, i32>> {
        let now = self.now;
        let connection = match self.connection_mut(id) {
            Ok(connection) => connection,
            Err(_) => return Some(Err(libc::EPIPE)),
        };
        if let Some(errno) = connection.error.take() {
            return Some(Err(errno));
        }
        if connection.dead || connection.write_shut {
            return Some(Err(libc::EPIPE));
        }
        let Some(peer) = connection.peer else {
            // Nobody there: what is sent is answered with a reset.
            return Some(Ok(usize::MAX));
        };
        let cut_off = connection.cut_off;
        let other = self.socket_mut(peer).expect("a peer is a socket");
        let capacity = other.capacity;
        let other = other.connection().expect("a peer is connected");
        if cut_off || other.stalled_until > now {
            return None;
        }
        let used = other.in_transit + other.arrived.len();
        let room = capacity.saturating_sub(used);
        (room > 0).then_some(Ok(room))
    }

    /// Sends bytes that there is room for.
    pub(crate) fn send(&mut self, id: ObjectId, bytes: Vec<u8>) {
        self.counts.bytes += bytes.len() as u64;
        let connection = self.connection_mut(id).expect("asked for its room before");
        if connection.peer.is_none() {
            self.reset_by_peer(id);
            return;
        }
        if bytes.len() > 1 && self.comes(Fault::OneByteSegments) {
            // Enough of them to be felt.
            let (single, rest) = bytes.split_at(bytes.len().min(8));
            for &byte in single {
                self.deliver(id, Piece::Bytes(vec![byte]), 1_000);
            }
            if !rest.is_empty() {
                self.deliver(id, Piece::Bytes(rest.to_vec()), 0);
            }
            return;
        }
        self.deliver(id, Piece::Bytes(bytes), 0);
    }

    /// Sends a piece on its way to the peer, so far behind the one before it.
    fn deliver(&mut self, from: ObjectId, piece: Piece, apart: u64) {
        let late = self.drawn(Fault::LateArrival, 5_000_000);
        let now = self.now;
        let Ok(connection) = self.connection_mut(from) else {
            return;
        };
        let Some(peer) = connection.peer else { return };
        let Ok(other) = self.connection_mut(peer) else {
            return;
        };
        // In order: never before what was sent earlier.
        let before = other.transit.back().map_or(now, |(at, _)| *at);
        let at = (now + late.unwrap_or(0)).max(before + apart);
        if let Piece::Bytes(bytes) = &piece {
            other.in_transit += bytes.len();
        }
        other.transit.push_back((at, piece));
        if at == now {
            self.arrive(peer);
        } else {
            self.after(at - now, Coming::Arrival(peer));
        }
    }

    /// Lets arrive what is due.
    pub(crate) fn arrive(&mut self, id: ObjectId) {
        let now = self.now;
        if self.objects[id].is_none() {
            return;
        }
        let Ok(connection) = self.connection_mut(id) else {
            return;
        };
        let mut arrived = 0;
        let mut something = false;
        while let Some((at, _)) = connection.transit.front() {
            if *at > now || connection.cut_off {
                break;
            }
            something = true;
            match connection.transit.pop_front().expect("looked at above").1 {
                Piece::Bytes(bytes) => {
                    connection.in_transit -= bytes.len();
                    arrived += bytes.len();
                    connection.arrived.extend(bytes);
                }
                Piece::End => connection.ended = true,
            }
        }
        let peer = connection.peer;
        if !something {
            return;
        }
        if let Some(peer) = peer
            && let Ok(other) = self.connection_mut(peer)
        {
            other.acknowledged += arrived as u64;
        }
        self.changed(id);
        self.disturb(id);
    }

    /// Troubles of the network, at the occasion of an arrival.
    fn disturb(&mut self, id: ObjectId) {
        if self.comes(Fault::PeerReset) {
            self.reset_both(id);
            return;
        }
        if self.comes(Fault::PeerVanishes) {
            let peer = self.connection_mut(id).ok().and_then(|connection| {
                connection.cut_off = true;
                connection.peer
            });
            if let Some(other) = peer.and_then(|peer| self.connection_mut(peer).ok()) {
                other.cut_off = true;
            }
            return;
        }
        if let Some(drawn) = self.drawn(Fault::PeerStalls, 50_000_000) {
            let until = self.now + drawn;
            if let Ok(connection) = self.connection_mut(id) {
                connection.stalled_until = until;
                // Whoever waits to send here looks again then.
                if let Some(peer) = connection.peer {
                    self.after(drawn, Coming::Arrival(id));
                    self.after(drawn, Coming::Arrival(peer));
                }
            }
        }
    }

    /// The peer's machine says that there is no such connection.
    fn reset_by_peer(&mut self, id: ObjectId) {
        let Ok(connection) = self.connection_mut(id) else {
            return;
        };
        if !connection.dead {
            connection.dead = true;
            // It overtakes what is on its way; what has arrived can still be received.
            connection.transit.clear();
            connection.in_transit = 0;
            // `tcp_reset`: a half-closed connection hears of a broken pipe.
            connection.error = Some(if connection.ended {
                libc::EPIPE
            } else {
                libc::ECONNRESET
            });
        }
        self.changed(id);
    }

    fn reset_both(&mut self, id: ObjectId) {
        let peer = self
            .connection_mut(id)
            .ok()
            .and_then(|connection| connection.peer);
        self.reset_by_peer(id);
        if let Some(peer) = peer {
            self.reset_by_peer(peer);
        }
    }

    /// Breaks a connection: what the network does when it gives up.
    pub(crate) fn break_connection(&mut self, id: ObjectId) {
        self.reset_both(id);
        if let Ok(connection) = self.connection_mut(id) {
            // It is reported by the request that found it.
            connection.error = None;
        }
    }

    /// Returns what a socket is ready for. `poll(2)`.
    pub(crate) fn socket_events(&mut self, id: ObjectId) -> u32 {
        let sendable = match self.socket_mut(id) {
            Ok(Socket {
                state: State::Connected(connection),
                ..
            }) => {
                let mut events = 0;
                let over = connection.dead || connection.ended || connection.read_shut;
                if !connection.arrived.is_empty() || over {
                    events |= libc::POLLIN;
                }
                if connection.ended || connection.read_shut || connection.dead {
                    events |= libc::POLLRDHUP;
                }
                if connection.error.is_some() {
                    events |= libc::POLLERR;
                }
                if connection.dead || (connection.ended && connection.write_shut) {
                    events |= libc::POLLHUP;
                }
                events
            }
            Ok(Socket {
                state: State::Listening { queue, .. },
                ..
            }) => {
                return if queue.is_empty() {
                    0
                } else {
                    libc::POLLIN as u32
                };
            }
            _ => return (libc::POLLOUT | libc::POLLHUP) as u32,
        };
        let error = self
            .connection_mut(id)
            .ok()
            .and_then(|connection| connection.error);
        let writable = self.sendable(id).is_some();
        if let Ok(connection) = self.connection_mut(id) {
            connection.error = error;
        }
        (sendable | if writable { libc::POLLOUT } else { 0 }) as u32
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
            self.unbind(address);
        }
        match socket.state {
            State::Listening { queue, .. } => {
                // Who was not accepted is sent away: with a reset, and no end before it
                // (`inet_csk_listen_stop`).
                for waiting in queue {
                    let peer = self.connection_mut(waiting).ok().and_then(|waiting| {
                        waiting.dead = true;
                        waiting.peer
                    });
                    if let Some(peer) = peer {
                        self.reset_by_peer(peer);
                    }
                    self.disown(waiting);
                }
            }
            State::Connected(connection) => self.hang_up(connection),
            State::Fresh => {}
        }
    }

    fn hang_up(&mut self, connection: Connection) {
        let Some(peer) = connection.peer else { return };
        // An end that nobody has looked at is no byte (`__tcp_close` leaves it out of its count).
        let coming = |(_, piece): &(u64, Piece)| matches!(piece, Piece::Bytes(_));
        let unread = !connection.arrived.is_empty() || connection.transit.iter().any(coming);
        if let Ok(other) = self.connection_mut(peer) {
            other.peer = None;
        }
        if connection.dead {
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

    fn unbind(&mut self, address: SocketAddr) {
        if let Some(count) = self.net.bound.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.net.bound.remove(&address);
            }
        }
    }
}

/// Whether no interface has this address, as for those that are kept for documents (RFC 5737, RFC
/// 3849). All others are the machine's.
fn is_nowhere(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(
            ip.octets(),
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _]
        ),
        IpAddr::V6(ip) => ip.segments()[..2] == [0x2001, 0xdb8],
    }
}

fn unspecified_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

fn loopback_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
    }
}
