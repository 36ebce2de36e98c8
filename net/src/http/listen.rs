//! Where a server listens: what a program says, and what the cores are given.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use quoit::op::{Listener, SharedFd, Stream};
use quoit::time::Instant;
use quoit::{CoreId, Handle};

use super::connection::Client;
use crate::Address;
use crate::sharded::ShardedListener;
use crate::tcp::{TcpOptions, cannot_listen, stands_for_none};
use crate::unix::{self, Place, SecondLook, SharedUnix, UnixAddress, UnixOptions};

/// Something that a server can listen on: whatever stands for internet addresses, and a
/// [`UnixAddress`]. An error shows it as its `Debug` does.
pub trait Listen: fmt::Debug {
    /// Returns the addresses that it stands for; the first that works is taken.
    ///
    /// # Errors
    ///
    /// If it stands for none.
    fn addresses(&self) -> io::Result<Vec<Address>>;
}

impl<A: ToSocketAddrs + fmt::Debug> Listen for A {
    fn addresses(&self) -> io::Result<Vec<Address>> {
        Ok(self.to_socket_addrs()?.map(Address::Tcp).collect())
    }
}

impl Listen for UnixAddress {
    fn addresses(&self) -> io::Result<Vec<Address>> {
        Ok(vec![Address::Unix(self.clone())])
    }
}

impl Listen for Address {
    fn addresses(&self) -> io::Result<Vec<Address>> {
        Ok(vec![self.clone()])
    }
}

/// What one thing to listen on has come to: one address at least. Looked up when it is said, told when the server
/// starts.
#[derive(Debug, Clone)]
pub(super) struct Named(Result<Vec<Address>, (io::ErrorKind, String)>);

impl Named {
    pub(super) fn new(address: &impl Listen) -> Self {
        let found = address.addresses().and_then(|found| match &*found {
            [] => Err(stands_for_none()),
            _ => Ok(found),
        });
        Self(found.map_err(|error| {
            let error = cannot_listen(address, &error);
            (error.kind(), error.to_string())
        }))
    }

    fn addresses(self) -> io::Result<Vec<Address>> {
        self.0.map_err(|(kind, what)| io::Error::new(kind, what))
    }
}

/// How sockets shall listen.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) tcp: TcpOptions,
    pub(super) unix: UnixOptions,
}

/// One address that all cores listen on.
#[derive(Debug, Clone)]
pub(super) enum Port {
    Tcp(ShardedListener),
    Unix(SharedUnix),
}

impl Port {
    /// Binds each of several, or none.
    pub(super) fn bind_all(
        named: Vec<Named>,
        cores: &Handle,
        options: &Options,
    ) -> io::Result<Vec<Self>> {
        let mut ports = Vec::new();
        for named in named {
            let port = Self::bind_first(named, cores, options, &ports)?;
            ports.push(port);
        }
        Ok(ports)
    }

    /// Binds the first address that works, beside those that are bound already.
    fn bind_first(
        named: Named,
        cores: &Handle,
        options: &Options,
        bound: &[Self],
    ) -> io::Result<Self> {
        let mut failure = None;
        for address in named.addresses()? {
            match Self::bind(&address, cores, options) {
                Ok(port) => return Ok(port),
                Err(error) => failure = Some(explain(&address, error, bound)),
            }
        }
        Err(failure.expect("one address at least was found"))
    }

    fn bind(address: &Address, cores: &Handle, options: &Options) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                ShardedListener::bind_with(*address, cores, &options.tcp).map(Self::Tcp)
            }
            Address::Unix(address) => {
                SharedUnix::bind(address, &options.unix, cores.cores().len()).map(Self::Unix)
            }
        }
    }

    /// Returns the address, with what the kernel chose.
    pub(super) fn local_addr(&self) -> Address {
        match self {
            Self::Tcp(port) => port.local_addr().into(),
            Self::Unix(port) => port.local_addr().clone().into(),
        }
    }

    /// Takes the share of a core; call it there, once.
    pub(super) fn take(&self, core: CoreId) -> io::Result<Door> {
        Ok(match self {
            Self::Tcp(port) => Door {
                listener: port.take(core)?.into_op(),
                family: Family::Tcp,
                shared: None,
            },
            Self::Unix(port) => {
                let (listener, place) = port.take()?;
                Door {
                    listener,
                    family: Family::Unix(place),
                    shared: port.second_look().map(|second_look| SharedDoor {
                        second_look,
                        is_armed: Cell::new(false),
                        looks: Cell::new(false),
                    }),
                }
            }
        })
    }
}

/// Says it if an address is in use because the same server listens there.
fn explain(address: &Address, error: io::Error, bound: &[Port]) -> io::Error {
    let mut bound = bound.iter().map(Port::local_addr);
    let ours = bound.find(|bound| error.kind() == io::ErrorKind::AddrInUse && meet(bound, address));
    let Some(ours) = ours else { return error };
    let what = format!(
        "cannot listen on {address}: this server listens on {ours}, and so there already; leave one of them out"
    );
    io::Error::new(error.kind(), what)
}

/// Returns whether a connection could be for either of two addresses.
fn meet(one: &Address, other: &Address) -> bool {
    let (Some(one), Some(other)) = (one.as_tcp(), other.as_tcp()) else {
        return one == other;
    };
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    // Those of IPv6 without an address take connections of IPv4 as well.
    let takes = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    one.port() == other.port() && (a == b || takes(a, b) || takes(b, a))
}

/// Where connections come in, on one core.
#[derive(Debug)]
pub(super) struct Door {
    /// Dropped first: the file of a socket goes before it is closed.
    family: Family,
    listener: Listener,
    /// If other cores accept from the same socket.
    shared: Option<SharedDoor>,
}

/// What a core keeps of a door that is also that of others.
#[derive(Debug)]
struct SharedDoor {
    second_look: SecondLook,
    /// An accept may be in the kernel.
    is_armed: Cell<bool>,
    /// We look since we were asked to: whoever finds something asks the next.
    looks: Cell<bool>,
}

/// How many connections are asked of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appetite {
    One,
    /// All that come: asked once, and cheaper than one after the other.
    All,
}

/// What is on the other side of a door.
#[derive(Debug)]
enum Family {
    Tcp,
    /// The file goes when the last core stops listening, or the first that finishes.
    Unix(Arc<Place>),
}

impl Door {
    /// Waits for a connection. What waits while this waits at other doors is not lost.
    pub(super) async fn accept(&self, appetite: Appetite) -> io::Result<SharedFd> {
        match (&self.shared, appetite) {
            (Some(shared), _) => self.accept_shared(shared).await,
            (None, Appetite::One) => self.listener.accept_one().await,
            (None, Appetite::All) => self.listener.accept().await,
        }
    }

    async fn accept_shared(&self, shared: &SharedDoor) -> io::Result<SharedFd> {
        loop {
            shared.is_armed.set(true);
            let accepted = {
                let mut accept = pin!(self.listener.accept_one());
                let mut asked = pin!(shared.second_look.asked());
                let accepted = poll_fn(|cx| {
                    if let Poll::Ready(accepted) = accept.as_mut().poll(cx) {
                        return Poll::Ready(accepted.map(Some));
                    }
                    asked.as_mut().poll(cx).map_ok(|()| None)
                });
                accepted.await?
            };
            // The kernel looks when it is asked: so it is asked anew.
            let found = match accepted {
                Some(fd) => Some(fd),
                None => {
                    shared.looks.set(true);
                    self.listener.pause().await.pop()
                }
            };
            if let Some(fd) = found {
                shared.is_armed.set(false);
                if shared.looks.take() {
                    shared.second_look.ask();
                }
                return Ok(fd);
            }
        }
    }

    /// Leaves connections with the kernel until the next accept; returns those that it had given.
    pub(super) async fn pause(&self) -> Vec<(Stream, Client)> {
        let taken = self.listener.pause().await;
        if let Some(shared) = &self.shared
            && shared.is_armed.take()
            && taken.is_empty()
        {
            shared.second_look.ask();
        }
        taken.into_iter().filter_map(|fd| self.meet(fd)).collect()
    }

    /// Returns a connection that came in here, with whose it is; `None` if it has gone already.
    pub(super) fn meet(&self, fd: SharedFd) -> Option<(Stream, Client)> {
        self.family.meet(fd)
    }

    /// Stops listening; returns the connections that had been made and not yet taken.
    pub(super) async fn finish(self) -> Vec<(Stream, Client)> {
        if let Family::Unix(place) = &self.family {
            place.remove();
        }
        let Self {
            listener, family, ..
        } = self;
        let left = listener.finish().await;
        let met = left.into_iter().filter_map(|fd| family.meet(fd));
        met.collect()
    }
}

impl Family {
    fn meet(&self, fd: SharedFd) -> Option<(Stream, Client)> {
        let stream = Stream::new(fd);
        let accepted = Instant::recent();
        let client = match self {
            Self::Tcp => Client {
                accepted,
                address: stream.peer_addr().ok()?.into(),
                credentials: None,
            },
            Self::Unix(_) => Client {
                accepted,
                address: unix::peer_addr(&stream).ok()?.into(),
                credentials: stream.peer_credentials().ok(),
            },
        };
        Some((stream, client))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::time::Duration;

    use quoit::sync::shared::channel;
    use quoit::{Cores, Runtime, Scope};

    use super::*;

    /// What a core does first, with the door that it shares.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum First {
        /// It takes its accept back, and then somebody connects.
        Pauses,
        /// Somebody connects, for which it is woken, and it takes its accept back before it looks.
        IsWoken,
    }

    #[test]
    fn addresses_meet_where_a_connection_could_be_for_either() {
        let tcp = |text: &str| Address::Tcp(text.parse().expect("an address"));
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("0.0.0.0:80", "[::]:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "[::1]:81", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(meet(&tcp(one), &tcp(other)), expected, "{one} {other}");
            }
        }
        let unix = |path: &str| Address::Unix(UnixAddress::path(path));
        assert!(meet(&unix("/run/a"), &unix("/run/a")));
        assert!(!meet(&unix("/run/a"), &unix("/run/b")));
        assert!(!meet(&unix("/run/a"), &tcp("127.0.0.1:80")));
    }

    /// More than any machine takes.
    const LONG: Duration = Duration::from_secs(30);

    /// Two cores wait at one door, and the one that the kernel would wake pauses: the other gets the
    /// connection, whichever comes first.
    #[test]
    fn a_core_that_pauses_takes_no_wake_along() {
        for first in [First::Pauses, First::IsWoken] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("socket");
            let runtime = Runtime::builder().cores(Cores::Count(2)).build();
            let runtime = runtime.expect("two cores");
            let handle = runtime.handle();
            let address = UnixAddress::path(&*path);
            let port = SharedUnix::bind(&address, &UnixOptions::new(), 2).map(Port::Unix);
            let port = port.expect("a free path");
            let [one, two] = handle.cores()[..] else {
                unreachable!("two cores")
            };
            let (say, said) = mpsc::channel();
            let (go, gone) = mpsc::channel::<()>();
            let (end, ended) = channel::bounded::<()>(1);

            let (door, tell) = (port.clone(), say.clone());
            let pausing = handle.spawn(one, move || async move {
                let door = door.take(one).expect("its share");
                // The scope's end leaves the accept in the kernel: it is the first there.
                let moment = Scope::new().timeout(Duration::from_millis(1));
                let accepted = moment.run(door.accept(Appetite::One)).await;
                assert!(accepted.expect("no error").is_none(), "nobody connects yet");
                tell.send("waits").expect("the test listens");
                // Holds up the core: it does not enter the kernel until it has paused.
                gone.recv().expect("the test goes on");
                let taken = door.pause().await.len();
                tell.send("paused").expect("the test listens");
                let _ = ended.recv().await;
                taken
            });
            let pausing = pausing.expect("room in the mailbox");
            assert_eq!(said.recv().expect("it runs"), "waits");

            let waiting = handle.spawn(two, move || async move {
                let door = port.take(two).expect("its share");
                let moment = Scope::new().timeout(Duration::from_millis(1));
                let accepted = moment.run(door.accept(Appetite::One)).await;
                assert!(accepted.expect("no error").is_none(), "nobody connects yet");
                say.send("waits").expect("the test listens");
                let long = Scope::new().timeout(LONG);
                let accepted = long.run(door.accept(Appetite::One)).await;
                accepted.expect("no error").is_some()
            });
            let waiting = waiting.expect("room in the mailbox");
            assert_eq!(said.recv().expect("it runs"), "waits");

            let pause = || {
                go.send(()).expect("it waits");
                assert_eq!(said.recv().expect("it runs"), "paused");
            };
            let connect = || UnixStream::connect(&path).expect("it listens");
            let _client = match first {
                First::Pauses => {
                    pause();
                    connect()
                }
                First::IsWoken => {
                    let client = connect();
                    pause();
                    client
                }
            };
            let was_taken = waiting.wait().expect("no panic");
            end.try_send(()).expect("it waits");
            assert_eq!(pausing.wait().expect("no panic"), 0, "{first:?} first");
            assert!(was_taken, "{first:?} first: nobody looks");
        }
    }
}
