//! Addresses and listeners: who may bind what, who may connect, how many may wait.

use std::fmt::Debug;
use std::net::SocketAddr;

use quoit::op::{Listener, Socket, SocketOption, Stream};
use tests::Dice;

use crate::compare::{Place, Script, Steps, all_hold, comes_to, comes_to_plainly};
use crate::outcome::{Outcome, Record, settle, within};

/// Steps on a few sockets, of which each has a place.
#[derive(Debug, Clone)]
pub(crate) struct Ports(pub(crate) Vec<Step>);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A new socket, with both options, or without.
    Make(usize, bool, bool),
    /// Binds a socket to a port that nobody has.
    BindFree(usize, &'static str),
    /// Binds a socket to the last port that [`Step::BindFree`] gave.
    BindLast(usize, &'static str),
    Listen(usize, i32),
    /// Connects to the last port.
    Connect(&'static str),
    /// Connects from a socket that is bound.
    ConnectFrom(usize),
    Accept(usize),
    /// Stops listening, and takes whom it finds waiting.
    Finish(usize),
    DropSocket(usize),
    /// Ends the oldest connection, at the end that dialled, or that accepted.
    DropDialled,
    DropAccepted,
    ReceiveDialled,
    SendDialled,
}

const LOOPBACK: &str = "127.0.0.1";
const OTHER: &str = "127.0.0.2";
const ANY: &str = "0.0.0.0";

#[derive(Default)]
struct World {
    sockets: [Option<Made>; 4],
    port: u16,
    dialled: Vec<Stream>,
    accepted: Vec<Stream>,
}

enum Made {
    Fresh(Socket),
    Listens(Listener),
}

impl Steps for Ports {
    fn steps(&mut self) -> &mut Vec<impl Debug> {
        &mut self.0
    }
}

impl Script for Ports {
    async fn run(&self, place: &Place) -> Record {
        let mut world = World::default();
        let mut record = Record::new();
        for step in &self.0 {
            record.push(within(place.patience, step.take(&mut world)).await);
            settle().await;
        }
        record
    }
}

impl Step {
    async fn take(self, world: &mut World) -> Outcome {
        match self {
            Self::Make(place, reuse_address, reuse_port) => {
                let socket = Socket::tcp(address(ANY, 0)).expect("a socket");
                let told = socket
                    .set(SocketOption::ReuseAddress(reuse_address))
                    .and_then(|()| socket.set(SocketOption::ReusePort(reuse_port)));
                world.sockets[place] = Some(Made::Fresh(socket));
                Outcome::done(told)
            }
            Self::BindFree(place, ip) => {
                let Some(Made::Fresh(socket)) = &world.sockets[place] else {
                    return Outcome::Nothing;
                };
                let bound = socket.bind(address(ip, 0));
                if bound.is_ok() {
                    world.port = socket.local_addr().expect("it is bound").port();
                }
                Outcome::done(bound)
            }
            Self::BindLast(place, ip) => match &world.sockets[place] {
                Some(Made::Fresh(socket)) if world.port != 0 => {
                    Outcome::done(socket.bind(address(ip, world.port)))
                }
                _ => Outcome::Nothing,
            },
            Self::Listen(place, backlog) => match world.sockets[place].take() {
                Some(Made::Fresh(socket)) => {
                    let listens = socket.listen(backlog);
                    world.sockets[place] = Some(match listens {
                        Ok(()) => Made::Listens(Listener::new(socket)),
                        Err(_) => Made::Fresh(socket),
                    });
                    Outcome::done(listens)
                }
                other => {
                    world.sockets[place] = other;
                    Outcome::Nothing
                }
            },
            Self::Connect(ip) if world.port != 0 => {
                let socket = Socket::tcp(address(ANY, 0)).expect("a socket");
                world.connect(socket, ip).await
            }
            Self::ConnectFrom(place) if world.port != 0 => match world.sockets[place].take() {
                // From the very port it would connect to itself.
                Some(Made::Fresh(socket))
                    if socket
                        .local_addr()
                        .is_ok_and(|local| local.port() != world.port) =>
                {
                    world.connect(socket, LOOPBACK).await
                }
                other => {
                    world.sockets[place] = other;
                    Outcome::Nothing
                }
            },
            Self::Connect(_) | Self::ConnectFrom(_) => Outcome::Nothing,
            Self::Accept(place) => match &world.sockets[place] {
                Some(Made::Listens(listener)) => {
                    let accepted = listener.accept().await;
                    let accepted = accepted.map(|fd| world.accepted.push(Stream::new(fd)));
                    Outcome::done(accepted)
                }
                _ => Outcome::Nothing,
            },
            Self::Finish(place) => match world.sockets[place].take() {
                Some(Made::Listens(listener)) => {
                    let left = listener.finish().await;
                    let count = left.len() as u64;
                    world.accepted.extend(left.into_iter().map(Stream::new));
                    Outcome::Count(count)
                }
                other => {
                    world.sockets[place] = other;
                    Outcome::Nothing
                }
            },
            Self::DropSocket(place) => gone(world.sockets[place].take()),
            Self::DropDialled => gone(first(&mut world.dialled)),
            Self::DropAccepted => gone(first(&mut world.accepted)),
            Self::ReceiveDialled => match world.dialled.first() {
                None => Outcome::Nothing,
                Some(stream) => {
                    let received = stream.receive().await;
                    let count = received
                        .map(|chunk| Outcome::Count(chunk.map_or(0, |chunk| chunk.len()) as u64));
                    count.into()
                }
            },
            Self::SendDialled => match world.dialled.first() {
                None => Outcome::Nothing,
                Some(stream) => Outcome::counted(stream.send(vec![1; 10]).await.0),
            },
        }
    }
}

impl World {
    async fn connect(&mut self, socket: Socket, ip: &str) -> Outcome {
        let connected = Stream::connect(socket, address(ip, self.port).into()).await;
        Outcome::done(connected.map(|stream| self.dialled.push(stream)))
    }
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn first<T>(of: &mut Vec<T>) -> Option<T> {
    (!of.is_empty()).then(|| of.remove(0))
}

fn gone<T>(taken: Option<T>) -> Outcome {
    taken.map_or(Outcome::Nothing, |_| Outcome::Done)
}

fn script(dice: &mut Dice) -> Ports {
    let mut steps = vec![
        Step::Make(0, dice.flip(), dice.flip()),
        Step::BindFree(0, dice.one_of(&[LOOPBACK, LOOPBACK, ANY])),
    ];
    if dice.flip() {
        steps.push(Step::Listen(0, dice.one_of(&[0, 1, 2, 16])));
    }
    let length = 3 + dice.below(14);
    steps.extend((0..length).map(|_| step(dice)));
    Ports(steps)
}

fn step(dice: &mut Dice) -> Step {
    let place = dice.below(4);
    let ip = dice.one_of(&[LOOPBACK, LOOPBACK, OTHER, ANY]);
    match dice.below(23) {
        0..3 => Step::Make(place, dice.flip(), dice.flip()),
        3 => Step::BindFree(place, ip),
        4..7 => Step::BindLast(place, ip),
        7..9 => Step::Listen(place, dice.one_of(&[0, 1, 2])),
        9..13 => Step::Connect(dice.one_of(&[LOOPBACK, LOOPBACK, LOOPBACK, OTHER])),
        13 => Step::ConnectFrom(place),
        14..16 => Step::Accept(place),
        16 => Step::Accept(0),
        17 => Step::DropSocket(place),
        18 => Step::DropDialled,
        19 => Step::DropAccepted,
        20 => Step::ReceiveDialled,
        21 => Step::Finish(place),
        _ => Step::SendDialled,
    }
}

#[test]
fn ports_and_listeners_are_as_the_kernel_has_them() {
    all_hold(150, script);
}

/// A connection is made and ended, first at one end; then its listener's port is bound again.
fn bound_again(first: [Step; 2], shares: bool, comes: Outcome) {
    let mut steps = vec![
        Step::Make(0, shares, false),
        Step::BindFree(0, LOOPBACK),
        Step::Listen(0, 4),
        Step::Connect(LOOPBACK),
        Step::Accept(0),
    ];
    steps.extend(first);
    steps.extend([
        Step::DropSocket(0),
        Step::Make(1, shares, false),
        Step::BindLast(1, LOOPBACK),
    ]);
    let mut expected = vec![Outcome::Done; steps.len() - 1];
    if let Some(place) = steps
        .iter()
        .position(|step| matches!(step, Step::SendDialled))
    {
        expected[place] = Outcome::Count(10);
    }
    expected.push(comes);
    // Under a fault an end may still be on its way.
    comes_to_plainly(&Ports(steps), &expected);
}

const IN_USE: Outcome = Outcome::Refused(libc::EADDRINUSE);

#[test]
fn a_port_lingers_where_the_connection_was_closed_first() {
    bound_again([Step::DropAccepted, Step::DropDialled], false, IN_USE);
    bound_again(
        [Step::DropDialled, Step::DropAccepted],
        false,
        Outcome::Done,
    );
}

#[test]
fn a_port_that_lingers_may_be_shared() {
    let first = [Step::DropAccepted, Step::DropDialled];
    bound_again(first, true, Outcome::Done);
}

#[test]
fn a_port_lingers_no_more_when_its_connection_was_reset() {
    let first = [Step::DropAccepted, Step::SendDialled];
    bound_again(first, false, Outcome::Done);
}

#[test]
fn a_port_is_taken_also_while_nobody_listens() {
    let steps = |shares, listens| {
        let mut steps = vec![Step::Make(0, shares, false), Step::BindFree(0, LOOPBACK)];
        if listens {
            steps.push(Step::Listen(0, 1));
        }
        steps.extend([
            Step::Make(1, shares, false),
            Step::BindLast(1, ANY),
            Step::Make(2, false, false),
            Step::BindLast(2, OTHER),
        ]);
        Ports(steps)
    };
    use Outcome::Done;
    comes_to(
        &steps(false, false),
        &[vec![Done, Done, Done, IN_USE, Done, Done]],
    );
    // Shared with the first by the second, and then not with the third.
    comes_to(
        &steps(true, false),
        &[vec![Done, Done, Done, Done, Done, IN_USE]],
    );
    comes_to(
        &steps(true, true),
        &[vec![Done, Done, Done, Done, IN_USE, Done, Done]],
    );
}
