//! `ServerHandle`: what a program holds on to while its server runs.
//!
//! Everything here belongs to one server; there is nothing that servers of a process share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quoit::metrics::Snapshot;
use quoit::time::Instant;
use quoit::{CancelHandle, CoreMetrics, Handle, ScopeDump};

use super::figures::{Figures, Tally};
use crate::Address;

/// Reaches a server from anywhere: to see what it does, and to let it drain. Cheap to clone.
///
/// It does not keep the server running. Of one that has stopped it says that it drains, and that
/// nothing is open.
///
/// ```no_run
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use http::Response;
/// use quoit_net::http::Server;
///
/// let server = Server::bind("127.0.0.1:8080")
///     .serve(|_| async { Ok::<_, Infallible>(Response::new("hello\n".to_owned())) })?;
/// let handle = server.handle();
/// std::thread::spawn(move || {
///     // … until something happens …
///     handle.drain(Duration::from_secs(10));
/// });
/// println!("{}", server.wait()?);
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

/// The connections of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// Open now.
    pub open: u64,
    /// Begun since the server started.
    pub begun: u64,
    /// How often as many were open as may be, so that no more were accepted; see
    /// [`Builder::max_connections`](super::Builder::max_connections).
    pub full: u64,
}

impl ServerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Begins to drain: the server stops accepting and lets open connections answer what they have
    /// begun to read; what is left after `grace` is cancelled. Returns at once;
    /// [`Server::wait`](super::Server::wait) waits for it.
    ///
    /// Called again with less patience, the server has less; with more, it stays as it was.
    pub fn drain(&self, grace: Duration) {
        self.shared.drain(grace);
    }

    /// Returns whether the server drains, or has stopped.
    pub fn is_draining(&self) -> bool {
        !matches!(*self.shared.phase(), Phase::Serving { .. })
    }

    /// Returns the connections of each core.
    pub fn connections(&self) -> Vec<ConnectionCounts> {
        self.shared
            .tallies
            .iter()
            .map(|tally| tally.connections())
            .collect()
    }

    /// Returns how many connections are open on all cores together.
    pub fn open_connections(&self) -> u64 {
        self.connections().iter().map(|core| core.open).sum()
    }

    /// Returns what each core has done so far; nothing once the server has stopped.
    pub fn metrics(&self) -> Vec<CoreMetrics> {
        self.shared
            .while_it_runs(Handle::metrics)
            .unwrap_or_default()
    }

    /// Returns everything that the cores have counted and measured, those of the runtime and of the
    /// server; nothing once the server has stopped. The server's own:
    ///
    /// | count | |
    /// |---|---|
    /// | `connections`, `connections_limit` | open now; that may be |
    /// | `connections_accepted`, `connections_full` | see [`ConnectionCounts`] |
    /// | `requests` | heads that were read, by protocol: `http1`, `http2` |
    /// | `answers` | that were begun, by class: `1xx` to `5xx` |
    /// | `given_up` | requests that ended before their answers were whole: clients went away, or were cut for being too slow |
    /// | `refused` | requests that the server refused by itself, with 4xx or 501, and what was no request, which counts here alone |
    /// | `failed`, `late` | requests whose handlers or bodies failed or panicked; whose handlers took longer than they may |
    ///
    /// | latency | |
    /// |---|---|
    /// | `request` | from the turn in which a head was read until the last of the answer was taken over for sending |
    /// | `first_byte` | from accepting a connection until the first byte was sent on it |
    pub fn snapshot(&self) -> Snapshot {
        self.shared
            .while_it_runs(|_| self.shared.snapshot())
            .unwrap_or_default()
    }

    /// Asks every core for its scope tree; see [`Handle::dump`]. A server that has stopped has none,
    /// which is said for each core.
    pub fn dump(&self, patience: Duration) -> ScopeDump {
        self.shared.dump(patience)
    }

    /// Returns the first internet address it listens on, if there is one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addrs().iter().find_map(Address::as_tcp)
    }

    /// Returns all addresses it listens on, in the order in which they were given.
    pub fn local_addrs(&self) -> &[Address] {
        &self.shared.local
    }
}

/// What the cores and the outside share.
pub(super) struct Shared {
    phase: Mutex<Phase>,
    cores: Handle,
    local: Vec<Address>,
    tallies: Vec<Arc<Tally>>,
}

#[derive(Debug)]
enum Phase {
    Serving {
        /// These cancel the accept loops.
        accepting: Vec<CancelHandle>,
    },
    Draining {
        grace: Duration,
        until: Instant,
        /// Where cores wait for their connections, no longer than until then.
        finishing: Vec<CancelHandle>,
    },
    /// No core is there any more.
    Stopped,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Makes it, with the figures that each core will write, which may have so many connections.
    pub(super) fn new(
        cores: Handle,
        local: Vec<Address>,
        max_connections: usize,
    ) -> (Self, Vec<Figures>) {
        let figures = cores.cores().into_iter();
        let figures: Vec<_> = figures.map(|_| Figures::new(max_connections)).collect();
        let tallies = figures.iter().map(|core| Arc::clone(&core.tally)).collect();
        let shared = Self {
            phase: Mutex::new(Phase::Serving {
                accepting: Vec::new(),
            }),
            cores,
            local,
            tallies,
        };
        (shared, figures)
    }

    pub(super) fn local(&self) -> &[Address] {
        &self.local
    }

    /// Returns everything that is counted and measured.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.cores.snapshot();
        for (core, tally) in snapshot.cores.iter_mut().zip(&self.tallies) {
            tally.add_to(core);
        }
        snapshot
    }

    pub(super) fn dump(&self, patience: Duration) -> ScopeDump {
        self.cores.dump(patience)
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how this core's accept loop is ended; does it at once if the server drains already.
    pub(super) fn accepting(&self, handle: CancelHandle) {
        match &mut *self.phase() {
            Phase::Serving { accepting } => accepting.push(handle),
            Phase::Draining { .. } | Phase::Stopped => drop(handle.cancel()),
        }
    }

    /// Notes where this core waits for its connections.
    pub(super) fn finishing(&self, handle: CancelHandle) {
        if let Phase::Draining {
            until, finishing, ..
        } = &mut *self.phase()
        {
            // It may have moved since the core asked for it.
            handle.set_deadline(*until);
            finishing.push(handle);
        }
    }

    pub(super) fn drain(&self, grace: Duration) {
        let until = Instant::now() + grace;
        let phase = &mut *self.phase();
        match phase {
            Phase::Serving { accepting } => {
                let accepting = std::mem::take(accepting);
                *phase = Phase::Draining {
                    grace,
                    until,
                    finishing: Vec::new(),
                };
                for handle in accepting {
                    handle.cancel();
                }
            }
            Phase::Draining {
                until: before,
                finishing,
                ..
            } if until < *before => {
                *before = until;
                for handle in finishing {
                    handle.set_deadline(until);
                }
            }
            Phase::Draining { .. } | Phase::Stopped => {}
        }
    }

    /// Returns how much patience the drain began with.
    pub(super) fn grace(&self) -> Duration {
        match *self.phase() {
            Phase::Draining { grace, .. } => grace,
            Phase::Serving { .. } | Phase::Stopped => Duration::ZERO,
        }
    }

    /// Returns when patience ends.
    pub(super) fn deadline(&self) -> Instant {
        match *self.phase() {
            Phase::Draining { until, .. } => until,
            Phase::Serving { .. } | Phase::Stopped => Instant::now(),
        }
    }

    /// Notes that the cores are about to go.
    pub(super) fn stop(&self) {
        *self.phase() = Phase::Stopped;
    }

    fn while_it_runs<T>(&self, ask: impl FnOnce(&Handle) -> T) -> Option<T> {
        let phase = self.phase();
        (!matches!(*phase, Phase::Stopped)).then(|| ask(&self.cores))
    }
}
