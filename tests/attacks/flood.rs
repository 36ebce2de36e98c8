//! Connections of an attacker: each says what it was made to say, as far as the server takes it, and is
//! made anew when the server has ended it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tests::http_client::pause;

use crate::wire;

/// What an attacker does with what the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ears {
    /// Takes it from the socket.
    Open,
    /// Leaves it there, and has little room for it.
    Shut,
}

/// What a connection says at its n-th turn, the first being 0.
pub(crate) type Script = dyn Fn(u32) -> Vec<u8> + Send;

/// How long there is between two turns.
pub(crate) const PACE: Duration = Duration::from_millis(20);

/// Many connections that say the same.
pub(crate) struct Flood {
    address: SocketAddr,
    script: Box<Script>,
    ears: Ears,
    leaves: bool,
    connections: Vec<Option<Connection>>,
    /// How many connections the server has ended.
    pub(crate) ended: u64,
    /// How many bytes it took; or how many connections, of those that leave.
    pub(crate) taken: u64,
}

struct Connection {
    wire: TcpStream,
    turn: u32,
    /// What the server has not taken yet.
    unsaid: Vec<u8>,
}

impl Flood {
    /// So many connections, which are made at the first turn.
    pub(crate) fn of(
        connections: usize,
        address: SocketAddr,
        script: impl Fn(u32) -> Vec<u8> + Send + 'static,
    ) -> Self {
        Self {
            address,
            script: Box::new(script),
            ears: Ears::Open,
            leaves: false,
            connections: (0..connections).map(|_| None).collect(),
            ended: 0,
            taken: 0,
        }
    }

    /// Reads nothing, and has little room.
    pub(crate) fn deaf(mut self) -> Self {
        self.ears = Ears::Shut;
        self
    }

    /// Is gone again at the end of each turn: in one way or the other, by turns.
    pub(crate) fn that_leaves(mut self) -> Self {
        self.leaves = true;
        self
    }

    /// Lets each connection have a turn.
    pub(crate) fn step(&mut self) {
        for place in 0..self.connections.len() {
            let connection = match self.connections[place].take() {
                Some(connection) => connection,
                // Whoever is not let in tries it again.
                None => match self.connect() {
                    Ok(connection) => connection,
                    Err(_) => continue,
                },
            };
            match self.turn(connection) {
                Ok(_) if self.leaves => {
                    self.taken += 1;
                }
                Ok((connection, moved)) => {
                    self.taken += moved;
                    self.connections[place] = Some(connection);
                }
                Err(_) => self.ended += 1,
            }
        }
        pause(PACE);
    }

    fn connect(&self) -> io::Result<Connection> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        if self.leaves && self.taken.is_multiple_of(2) {
            // A close is a reset.
            socket.set_linger(Some(Duration::ZERO))?;
        }
        if self.ears == Ears::Shut {
            socket.set_recv_buffer_size(1)?;
        }
        socket.connect(&self.address.into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            wire: stream,
            turn: 0,
            unsaid: Vec::new(),
        })
    }

    /// Says what is to be said; an error is the end of the connection.
    fn turn(&self, mut connection: Connection) -> io::Result<(Connection, u64)> {
        let Connection { wire, turn, unsaid } = &mut connection;
        if unsaid.is_empty() {
            *unsaid = (self.script)(*turn);
            *turn += 1;
        }
        let mut moved = 0;
        match wire.write(unsaid) {
            Ok(count) => {
                unsaid.drain(..count);
                moved += count as u64;
            }
            Err(error) if wire::is_for_later(&error) => {}
            Err(error) => return Err(error),
        }
        if self.ears == Ears::Open {
            let mut heard = [0; 16 * 1024];
            match wire.read(&mut heard) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => moved += count as u64,
                Err(error) if wire::is_for_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((connection, moved))
    }
}
