//! Facts about addresses of both families: what a socket is told, and who is reached where. A machine without IPv6
//! has none.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;

use quoit::op::{Listener, Socket, Stream};

use crate::compare::Place;
use crate::facts;
use crate::outcome::{Outcome, Outcome::*, Record, within};

type Body = for<'a> fn(&'a Place) -> Pin<Box<dyn Future<Output = Record> + 'a>>;

fn fact(what: &'static str, body: Body, expected: Record) {
    if UdpSocket::bind("[::1]:0").is_ok() {
        facts::fact(what, body, &[expected]);
    }
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

fn socket(ip: &str) -> Socket {
    Socket::tcp(at(ip, 0)).expect("a socket")
}

fn bound(ip: &str) -> Socket {
    let socket = socket(ip);
    socket.bind(at(ip, 0)).expect("a free port");
    socket
}

/// Connects to somebody who listens at one address by another; says what all four ends are told.
async fn reached(place: &Place, listens: &str, at_ip: &str) -> Outcome {
    let socket = bound(listens);
    socket.listen(1).expect("a bound socket listens");
    let port = socket.local_addr().expect("it is bound").port();
    let listener = Listener::new(socket);
    let to = at(at_ip, port);
    let dial = async {
        let socket = Socket::tcp(to).expect("a socket");
        let dialled = match Stream::connect(socket, to.into()).await {
            Ok(dialled) => dialled,
            Err(error) => return Err(error).into(),
        };
        let accepted = Stream::new(listener.accept().await.expect("somebody has connected"));
        let ip = |address: std::io::Result<SocketAddr>| -> IpAddr {
            address.expect("they are connected").ip()
        };
        Outcome::said(format!(
            "{} to {}, {} from {}",
            ip(dialled.local_addr()),
            ip(dialled.peer_addr()),
            ip(accepted.local_addr()),
            ip(accepted.peer_addr()),
        ))
    };
    within(place.patience, dial).await
}

const REFUSED: Outcome = Refused(libc::ECONNREFUSED);

#[test]
fn a_listener_at_all_addresses_of_ipv6_has_those_of_ipv4_and_is_told_mapped_ones() {
    let mapped = "127.0.0.1 to 127.0.0.1, ::ffff:127.0.0.1 from ::ffff:127.0.0.1";
    fact(
        "reaches all addresses of IPv6",
        |place| {
            Box::pin(async move {
                let mut record = Record::new();
                for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.2"] {
                    record.push(reached(place, "::", ip).await);
                }
                record
            })
        },
        vec![
            Outcome::said(mapped),
            Outcome::said("::1 to ::1, ::1 from ::1"),
            Outcome::said(mapped.replace(
                "127.0.0.1 to 127.0.0.1",
                "::ffff:127.0.0.1 to ::ffff:127.0.0.1",
            )),
            Outcome::said("127.0.0.1 to 127.0.0.2, ::ffff:127.0.0.2 from ::ffff:127.0.0.1"),
        ],
    );
}

#[test]
fn a_listener_of_ipv4_has_none_of_ipv6() {
    let home = "127.0.0.1 to 127.0.0.1, 127.0.0.1 from 127.0.0.1";
    fact(
        "reaches addresses of IPv4",
        |place| {
            Box::pin(async move {
                let mut record = Record::new();
                for (listens, ip) in [
                    ("0.0.0.0", "::1"),
                    ("0.0.0.0", "::ffff:127.0.0.1"),
                    ("127.0.0.1", "127.0.0.2"),
                    ("::1", "127.0.0.1"),
                    ("::ffff:127.0.0.1", "127.0.0.1"),
                    // No address in particular is this machine.
                    ("127.0.0.1", "0.0.0.0"),
                    ("::1", "::"),
                ] {
                    record.push(reached(place, listens, ip).await);
                }
                record
            })
        },
        vec![
            REFUSED,
            Outcome::said(
                "::ffff:127.0.0.1 to ::ffff:127.0.0.1, 127.0.0.1 from 127.0.0.1".to_owned(),
            ),
            REFUSED,
            REFUSED,
            Outcome::said("127.0.0.1 to 127.0.0.1, ::ffff:127.0.0.1 from ::ffff:127.0.0.1"),
            Outcome::said(home),
            Outcome::said("::1 to ::1, ::1 from ::1"),
        ],
    );
}

#[test]
fn two_families_share_a_port_unless_one_has_the_address_of_the_other() {
    fact(
        "binds beside the other family",
        |_| {
            Box::pin(async {
                let beside = |first: &str, second: &str| {
                    let first = bound(first);
                    let port = first.local_addr().expect("it is bound").port();
                    Outcome::done(socket(second).bind(at(second, port)))
                };
                vec![
                    beside("::", "0.0.0.0"),
                    beside("127.0.0.1", "::"),
                    beside("0.0.0.0", "::1"),
                    beside("::1", "127.0.0.1"),
                    beside("127.0.0.1", "::ffff:127.0.0.1"),
                ]
            })
        },
        vec![
            Refused(libc::EADDRINUSE),
            Refused(libc::EADDRINUSE),
            Done,
            Done,
            Refused(libc::EADDRINUSE),
        ],
    );
}

#[test]
fn a_socket_takes_addresses_of_its_own_family_alone() {
    fact(
        "takes addresses of the other family",
        |place| {
            Box::pin(async move {
                let connect = async |socket, to: &str| {
                    let connected = Stream::connect(socket, at(to, 9).into());
                    within(place.patience, async { Outcome::done(connected.await) }).await
                };
                let own = |socket: Socket| {
                    let own = socket.local_addr().expect("every socket has one");
                    Outcome::said(own.ip().to_string())
                };
                let listens = socket("::");
                listens.listen(1).expect("it gets a port");
                vec![
                    Outcome::done(socket("0.0.0.0").bind(at("::1", 0))),
                    Outcome::done(socket("::").bind(at("127.0.0.1", 0))),
                    connect(socket("0.0.0.0"), "::1").await,
                    connect(socket("::"), "127.0.0.1").await,
                    own(socket("::")),
                    own(listens),
                ]
            })
        },
        vec![
            Refused(libc::EAFNOSUPPORT),
            Refused(libc::EINVAL),
            Refused(libc::EAFNOSUPPORT),
            Refused(libc::EINVAL),
            Outcome::said("::"),
            Outcome::said("::"),
        ],
    );
}
