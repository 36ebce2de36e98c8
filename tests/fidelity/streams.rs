//! Two ends of a TCP connection: bytes, halves that are closed, resets, readiness.
//!
//! Every step is awaited before the next, so that on the loopback interface little is left to chance.

use std::fmt::Debug;
use std::net::{Shutdown, SocketAddr};

use quoit::op::{self, Listener, Socket, SocketOption, Stream};
use tests::{Dice, bytes};

use crate::compare::{Place, Script, Steps, all_hold};
use crate::outcome::{Outcome, Record, settle, within};

/// Steps on a connection; each says on which end.
#[derive(Debug, Clone)]
pub(crate) struct Connection(pub(crate) Vec<Step>);

/// An end of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Dialled,
    Accepted,
}

pub(crate) use End::{Accepted, Dialled};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Send(End, usize),
    SendAll(End, usize),
    SendParts(End, usize),
    Write(End, usize),
    /// By the stream, with a request that stays armed.
    Receive(End),
    /// By a request for once.
    ReceiveInto(End, usize),
    Read(End, usize),
    Poll(End, i16),
    Shutdown(End, Shutdown),
    Close(End),
    Drop(End),
    PeerName(End),
    OwnName(End),
}

impl Steps for Connection {
    fn steps(&mut self) -> &mut Vec<impl Debug> {
        &mut self.0
    }
}

impl Script for Connection {
    async fn run(&self, place: &Place) -> Record {
        let mut ends = connected().await.map(Some);
        let mut record = Record::new();
        for (number, step) in self.0.iter().enumerate() {
            record.push(within(place.patience, step.take(number, &mut ends)).await);
            settle().await;
        }
        record
    }
}

/// Makes a connection over the loopback interface.
pub(crate) async fn connected() -> [Stream; 2] {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let socket = Socket::tcp(any).expect("a socket");
    socket.bind(any).expect("a free port");
    socket.listen(1).expect("a bound socket listens");
    let listener = Listener::new(socket);
    let address = listener.local_addr().expect("it is bound");
    let dialled = Stream::connect(Socket::tcp(any).expect("a socket"), address.into());
    let dialled = dialled.await.expect("somebody listens");
    let accepted = listener.accept().await.expect("somebody has connected");
    let ends = [dialled, Stream::new(accepted)];
    for end in &ends {
        // Else what is small waits for an acknowledgement, which comes with whatever happens next. In the
        // model such bytes are late by a fault, which seldom lasts until just that.
        let told = end.set(SocketOption::NoDelay(true));
        told.expect("an option of every connection");
    }
    ends
}

impl Step {
    async fn take(self, number: usize, ends: &mut [Option<Stream>; 2]) -> Outcome {
        let place = &mut ends[self.end() as usize];
        if let Self::Close(_) | Self::Drop(_) = self {
            let Some(stream) = place.take() else {
                return Outcome::Nothing;
            };
            if let Self::Close(_) = self {
                return Outcome::done(stream.close().await);
            }
            return Outcome::Done;
        }
        let Some(stream) = place else {
            return Outcome::Nothing;
        };
        let made = |count| bytes(count, number as u64);
        let room = |count| vec![0; count];
        match self {
            Self::Send(_, count) => Outcome::counted(stream.send(made(count)).await.0),
            Self::SendAll(_, count) => Outcome::done(stream.send_all(made(count)).await.0),
            Self::SendParts(_, count) => {
                let parts = vec![made(count / 3), Vec::new(), made(count)];
                Outcome::done(stream.send_all_vectored(parts).await.0)
            }
            Self::Write(_, count) => Outcome::counted(op::write(&stream.fd(), made(count)).await.0),
            Self::Receive(_) => match stream.receive().await {
                Ok(Some(chunk)) => Outcome::bytes(&chunk),
                Ok(None) => Outcome::said("end"),
                Err(error) => Err(error).into(),
            },
            Self::ReceiveInto(_, count) => {
                Outcome::read(op::receive_into(&stream.fd(), room(count)).await)
            }
            Self::Read(_, count) => Outcome::read(op::read(&stream.fd(), room(count)).await),
            Self::Poll(_, events) => {
                let ready = op::poll(&stream.fd(), events as u32).await;
                ready.map(|ready| Outcome::Count(ready.into())).into()
            }
            Self::Shutdown(_, how) => Outcome::done(stream.shutdown(how)),
            Self::PeerName(_) => Outcome::done(stream.peer_addr()),
            Self::OwnName(_) => Outcome::done(stream.local_addr()),
            Self::Close(_) | Self::Drop(_) => unreachable!("see above"),
        }
    }

    fn end(self) -> End {
        match self {
            Self::Send(end, _)
            | Self::SendAll(end, _)
            | Self::SendParts(end, _)
            | Self::Write(end, _)
            | Self::Receive(end)
            | Self::ReceiveInto(end, _)
            | Self::Read(end, _)
            | Self::Poll(end, _)
            | Self::Shutdown(end, _)
            | Self::Close(end)
            | Self::Drop(end)
            | Self::PeerName(end)
            | Self::OwnName(end) => end,
        }
    }
}

/// Which steps a script is made of.
#[derive(Debug, Clone, Copy)]
enum Taste {
    /// Streams alone: a request that is armed takes what arrives, also for nobody.
    Armed,
    /// Requests for once: what nobody takes stays in the socket.
    Once,
}

const SIZES: [usize; 7] = [0, 1, 2, 10, 100, 1000, 4000];
const EVENTS: [i16; 5] = [
    libc::POLLIN,
    libc::POLLOUT,
    libc::POLLIN | libc::POLLRDHUP,
    libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP,
    libc::POLLHUP,
];

fn script(dice: &mut Dice, taste: Taste) -> Connection {
    let length = 3 + dice.below(10);
    Connection((0..length).map(|_| step(dice, taste)).collect())
}

fn step(dice: &mut Dice, taste: Taste) -> Step {
    let end = dice.one_of(&[Dialled, Accepted]);
    let count = dice.one_of(&SIZES);
    match dice.below(16) {
        0..3 => Step::Send(end, count),
        3 => Step::SendAll(end, count),
        4 => Step::SendParts(end, count),
        5 => Step::Write(end, count),
        6..10 => match (taste, dice.flip()) {
            (Taste::Armed, _) => Step::Receive(end),
            (Taste::Once, false) => Step::ReceiveInto(end, count),
            (Taste::Once, true) => Step::Read(end, count),
        },
        10 => Step::Poll(end, dice.one_of(&EVENTS)),
        11 | 12 => {
            let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both];
            Step::Shutdown(end, dice.one_of(&how))
        }
        13 => Step::Close(end),
        14 => Step::Drop(end),
        _ => dice.one_of(&[Step::PeerName(end), Step::OwnName(end)]),
    }
}

#[test]
fn a_stream_that_receives_is_as_the_kernel_has_it() {
    all_hold(150, |dice| script(dice, Taste::Armed));
}

#[test]
fn a_socket_that_is_received_from_once_is_as_the_kernel_has_it() {
    all_hold(150, |dice| script(dice, Taste::Once));
}
