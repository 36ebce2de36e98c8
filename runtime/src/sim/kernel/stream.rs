//! What goes over a connection: bytes, ends, resets, and what a network does to them.

use std::time::Duration;

use super::net::{Piece, Socket, State};
use super::{Coming, Kernel, ObjectId};
use crate::sim::fault::Fault;

/// How long the kernel sends again what nobody acknowledges. `tcp_retries2`, tcp(7): 15 times, in all so long at least.
const GIVES_UP_AFTER: Duration = Duration::from_millis(924_600);

impl Kernel {
    /// Takes what has arrived; an empty answer is the end; `None` if there is nothing yet.
    pub(crate) fn receive(&mut self, id: ObjectId, most: usize) -> Option<Result<Vec<u8>, i32>> {
        let connection = match self.connection_mut(id) {
            Ok(connection) => connection,
            Err(errno) => return Some(Err(errno)),
        };
        if !connection.arrived.is_empty() {
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
        // Who has heard that the peer sends no more hears of no failure (`SOCK_DONE`, `tcp_recvmsg`).
        if !connection.ended
            && let Some(errno) = connection.error.take()
        {
            return Some(Err(errno));
        }
        // Also a receive of nothing waits for something (`sock_rcvlowat` is at least one).
        let over = connection.ended || connection.read_shut || connection.dead;
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
        let Ok(Socket {
            capacity,
            state: State::Connected(connection),
            ..
        }) = self.socket_mut(id)
        else {
            return Some(Err(libc::EPIPE));
        };
        if let Some(errno) = connection.error.take() {
            return Some(Err(errno));
        }
        if connection.dead || connection.write_shut {
            return Some(Err(libc::EPIPE));
        }
        if connection.cut_off {
            // It takes what it can keep to send again.
            let room = capacity.saturating_sub(connection.lost);
            return (room > 0).then_some(Ok(room));
        }
        let Some(peer) = connection.peer else {
            // Nobody there: what is sent is answered with a reset.
            return Some(Ok(usize::MAX));
        };
        let other = self.socket_mut(peer).expect("a peer is a socket");
        let capacity = other.capacity;
        let other = other.connection().expect("a peer is connected");
        if other.stalled_until > now {
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
        if bytes.is_empty() {
            return;
        }
        if connection.cut_off {
            return self.lose(id, bytes.len());
        }
        if connection.peer.is_none() {
            let remote = connection.remote;
            if let Some((local, _, _)) = self.as_bound(id) {
                self.net.ports.linger_no_more(remote, local);
            }
            self.reset_by_peer(id);
            return;
        }
        if bytes.len() > 1 && self.comes(Fault::OneByteSegments) {
            // Enough of them to be felt.
            let (single, rest) = bytes.split_at(bytes.len().min(8));
            for (after, &byte) in (0..).zip(single) {
                self.deliver(id, Piece::Bytes(vec![byte]), after * 1_000);
            }
            if !rest.is_empty() {
                self.deliver(id, Piece::Bytes(rest.to_vec()), 0);
            }
            return;
        }
        self.deliver(id, Piece::Bytes(bytes), 0);
    }

    /// Sends a piece on its way to the peer, which it takes at least so long.
    pub(super) fn deliver(&mut self, from: ObjectId, piece: Piece, least: u64) {
        let late = self.drawn(Fault::LateArrival, 5_000_000);
        let now = self.now;
        let Ok(connection) = self.connection_mut(from) else {
            return;
        };
        if connection.cut_off {
            return self.lose(from, 1);
        }
        let Some(peer) = connection.peer else {
            // Closed there, which still acknowledges an end.
            connection.end_arrived = true;
            self.leave_port(from);
            return;
        };
        let Ok(other) = self.connection_mut(peer) else {
            return;
        };
        // In order: never before what was sent earlier.
        let before = other.transit.back().map_or(now, |(at, _)| *at);
        let at = (now + late.unwrap_or(0).max(least)).max(before);
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
        let mut ended = false;
        // Who has closed in both directions, short of closing, takes no more (RFC 1122, 4.2.2.13).
        let deaf = connection.read_shut && connection.write_shut;
        while let Some((at, _)) = connection.transit.front() {
            if *at > now || connection.cut_off {
                break;
            }
            something = true;
            match connection.transit.pop_front().expect("looked at above").1 {
                Piece::Bytes(bytes) => {
                    connection.in_transit -= bytes.len();
                    arrived += bytes.len();
                    if !deaf {
                        connection.arrived.extend(bytes);
                    }
                }
                Piece::End => ended = true,
            }
        }
        let peer = connection.peer;
        if !something {
            return;
        }
        if deaf && arrived > 0 {
            self.reset_both(id);
            return;
        }
        if ended {
            connection.ended = true;
            let first = connection.write_shut;
            let over = connection.is_over();
            if first {
                self.linger(id);
            }
            if over {
                self.leave_port(id);
            }
            if let Some(peer) = peer
                && let Ok(other) = self.connection_mut(peer)
            {
                other.end_arrived = true;
                if other.is_over() {
                    self.leave_port(peer);
                }
            }
        }
        if let Some(peer) = peer
            && let Ok(other) = self.connection_mut(peer)
        {
            // The end as a byte more (`tcp_snd_una_update`).
            other.acknowledged += arrived as u64 + u64::from(ended);
        }
        self.changed(id);
        self.disturb(id);
    }

    /// Troubles of the network, at the occasion of an arrival.
    pub(super) fn disturb(&mut self, id: ObjectId) {
        if self.comes(Fault::PeerReset) {
            self.reset_both(id);
            return;
        }
        if self.comes(Fault::PeerVanishes) {
            if let Some(peer) = self.cut_off(id) {
                self.cut_off(peer);
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

    /// Leaves a socket alone. Returns its peer until then.
    fn cut_off(&mut self, id: ObjectId) -> Option<ObjectId> {
        let peer = self.connection_mut(id).ok()?.peer;
        let lost = peer.map_or(0, |peer| self.on_its_way(peer));
        let Ok(socket) = self.socket_mut(id) else {
            return None;
        };
        let probed = socket.keep_alive;
        let connection = socket.connection().ok()?;
        connection.cut_off = true;
        connection.peer = None;
        if let Some(after) = probed {
            // As many probes as `tcp_keepalive_probes` says, tcp(7).
            let every = (after / 10).max(Duration::from_secs(1));
            self.gives_up_after(id, after + every * 9);
        }
        if lost > 0 {
            self.lose(id, lost);
        }
        peer
    }

    /// How much is on its way to a socket: bytes, or an end.
    fn on_its_way(&mut self, id: ObjectId) -> usize {
        self.connection_mut(id).map_or(0, |connection| {
            connection.in_transit.max(connection.transit.len())
        })
    }

    /// Something is sent to a peer that has vanished, again and again until the kernel gives up.
    fn lose(&mut self, id: ObjectId, count: usize) {
        let Ok(connection) = self.connection_mut(id) else {
            return;
        };
        let is_first = connection.lost == 0;
        connection.lost += count;
        if is_first {
            self.gives_up_after(id, GIVES_UP_AFTER);
        }
    }

    fn gives_up_after(&mut self, id: ObjectId, duration: Duration) {
        let nanos = duration.as_nanos() as u64;
        let at = self.now + nanos;
        if let Ok(connection) = self.connection_mut(id) {
            connection.gives_up_at = Some(at);
            self.after(nanos, Coming::GivesUp(id));
        }
    }

    /// Takes a peer for gone that was not heard of for long enough.
    pub(crate) fn give_up(&mut self, id: ObjectId) {
        let now = self.now;
        if self.objects[id].is_none() {
            return;
        }
        let Ok(connection) = self.connection_mut(id) else {
            return;
        };
        if connection.gives_up_at == Some(now) && !connection.dead {
            connection.dead = true;
            connection.error = Some(libc::ETIMEDOUT);
            self.leave_port(id);
            self.changed(id);
        }
    }

    /// The peer's machine says that there is no such connection.
    pub(super) fn reset_by_peer(&mut self, id: ObjectId) {
        let Ok(connection) = self.connection_mut(id) else {
            return;
        };
        if !connection.is_over() {
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
            self.leave_port(id);
        }
        self.changed(id);
    }

    pub(super) fn reset_both(&mut self, id: ObjectId) {
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
                if over {
                    events |= libc::POLLRDHUP;
                }
                if connection.error.is_some() {
                    events |= libc::POLLERR;
                }
                if over && (connection.dead || connection.write_shut) {
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
}
