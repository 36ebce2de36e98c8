//! `SessionPool`: sessions by key, each with an owner of its own.

use std::error::Error;
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use quoit::time::Instant;
use quoit::{
    Cancelled, CarriesCancelled, CoreId, RemoteHandle, RemoteSender, Scope, run_until_cancelled,
};

use crate::config::{Limits, Times};
use crate::figures::PoolMetrics;
use crate::owner::caught;
use crate::registry::{Line, Registry};
use crate::state::{Decision, EntryId, Failure, Mode, Outcome, Place, Selection, TicketId};
use crate::{Builder, CallError, CloseError, Key, Lease, LeaseError, owner};

/// How sessions of one kind are opened, looked after and closed.
///
/// All of it is called by a session's owner, and [`is_fit`](Sessions::is_fit) for who leases it, on the
/// session's core; only this value itself is shared between cores.
pub trait Sessions: Send + Sync + 'static {
    /// A session. It stays on the core that opened it.
    type Session: 'static;

    /// Why opening one fails.
    type Error: CarriesCancelled + Error + Send + Sync + 'static;

    /// Opens a session.
    ///
    /// It runs in a scope that ends with [`Builder::open_timeout`], and that is cancelled when nobody waits
    /// for the session any more or it is closed. What was begun is to be cleaned up before this returns: the
    /// callers that wait are told after that.
    ///
    /// # Errors
    ///
    /// Told to all who wait for this session.
    fn open(&self, key: &Key) -> impl Future<Output = Result<Self::Session, Self::Error>>;

    /// Closes a session in order, when no call runs on it any more. Without this, it is dropped.
    ///
    /// It runs in a scope that is deaf to what goes on outside and is cancelled when the
    /// [grace period](Builder::grace) is over: then it is to end at once.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], when it could not end in time.
    fn close(
        &self,
        key: &Key,
        session: Self::Session,
    ) -> impl Future<Output = Result<(), Cancelled>> {
        let _ = key;
        drop(session);
        async { Ok(()) }
    }

    /// Ends a session that cannot be closed, since a call on it did not end in time: nobody polls that any more,
    /// or it is shielded. Without this, the session is dropped with that call, whenever that is.
    ///
    /// It runs where [`close`](Sessions::close) would have, with what is left of the grace period.
    fn abandon(&self, key: &Key, session: &Self::Session) -> impl Future<Output = ()> {
        let _ = (key, session);
        async {}
    }

    /// Ends when the session's peer has gone: nobody leases it then. Dropped when the session is to end.
    /// Without this, nobody looks.
    fn gone(&self, session: &Self::Session) -> impl Future<Output = ()> {
        let _ = session;
        pending()
    }

    /// Returns whether a session that nobody has used for a while is still good for a lease. If it is not,
    /// another takes its place, and the caller does not notice; so it is if this panics. Without this, it is.
    fn is_fit(&self, session: &Self::Session) -> impl Future<Output = bool> {
        let _ = session;
        async { true }
    }
}

/// Sessions on loan, by [`Key`]: of each key at most one, opened when it is wanted first.
///
/// A pool is shared by all cores and threads: clone it. A session lives on the core of the caller who caused
/// it, in a task of its own, the owner, which opens, keeps and closes it; leases of other cores reach it by
/// message. When the last clone is dropped, all sessions are closed; the runtime's shutdown waits for that.
///
/// ```
/// use quoit::Cancelled;
/// use quoit_pool::{Key, Lease, SessionPool, Sessions};
///
/// /// Counts how often each session was asked.
/// struct Counters;
///
/// impl Sessions for Counters {
///     type Session = std::cell::Cell<u32>;
///     type Error = std::io::Error;
///
///     async fn open(&self, _: &Key) -> std::io::Result<Self::Session> {
///         Ok(std::cell::Cell::new(0))
///     }
/// }
///
/// async fn next(lease: &Lease<Counters>) -> std::io::Result<u32> {
///     lease
///         .call(async |counter| {
///             counter.set(counter.get() + 1);
///             Ok(counter.get())
///         })
///         .await
/// }
///
/// quoit::block_on(async {
///     let pool = SessionPool::builder(Counters).build().expect("the defaults are right");
///     let key = Key::new("counter", "conversation-7");
///     let lease = pool.lease(&key).await.expect("a counter");
///     assert_eq!(next(&lease).await?, 1);
///     drop(lease);
///     let lease = pool.lease(&key).await.expect("the same one");
///     assert_eq!(next(&lease).await?, 2);
///     assert_eq!(pool.metrics().opens, 1);
///     drop(lease);
///     pool.close_all().await?;
///     Ok::<_, std::io::Error>(())
/// })??;
/// # Ok::<_, std::io::Error>(())
/// ```
pub struct SessionPool<S: Sessions> {
    handle: Arc<PoolHandle<S>>,
}

/// What all clones share, and nobody else: when it goes, the sessions do.
struct PoolHandle<S: Sessions> {
    registry: Arc<Registry<S>>,
}

impl<S: Sessions> Drop for PoolHandle<S> {
    fn drop(&mut self) {
        self.registry.close(Selection::All);
    }
}

impl<S: Sessions> Clone for SessionPool<S> {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
        }
    }
}

impl<S: Sessions> fmt::Debug for SessionPool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPool").finish_non_exhaustive()
    }
}

impl<S: Sessions> SessionPool<S> {
    /// Sets up a pool of such sessions.
    pub fn builder(sessions: S) -> Builder<S> {
        Builder::new(sessions)
    }

    pub(crate) fn new(sessions: S, limits: Limits, times: Times) -> Self {
        let registry = Arc::new(Registry::new(sessions, limits, times));
        Self {
            handle: Arc::new(PoolHandle { registry }),
        }
    }

    fn registry(&self) -> &Arc<Registry<S>> {
        &self.handle.registry
    }

    /// Leases the session of `key`, which others may have leased at the same time.
    ///
    /// It is opened if there is none; callers that come meanwhile wait for the same opening. Waiting is an
    /// op: a caller that is cancelled leaves alone, and the opening goes on as long as anybody waits for it.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    ///
    /// # Panics
    ///
    /// Off a core.
    pub async fn lease(&self, key: &Key) -> Result<Lease<S>, LeaseError<S::Error>> {
        self.lease_as(key, Mode::Shared).await
    }

    /// Leases the session of `key` alone: waits until all other leases of it have been given back, and keeps
    /// new ones waiting.
    ///
    /// # Errors
    ///
    /// [`LeaseError`].
    ///
    /// # Panics
    ///
    /// Off a core.
    pub async fn lease_exclusive(&self, key: &Key) -> Result<Lease<S>, LeaseError<S::Error>> {
        self.lease_as(key, Mode::Exclusive).await
    }

    async fn lease_as(&self, key: &Key, mode: Mode) -> Result<Lease<S>, LeaseError<S::Error>> {
        let Some(timeout) = self.registry().times.lease_timeout else {
            return self.lease_fit(key, mode).await;
        };
        let scope = Scope::new().timeout(timeout);
        let leased = scope.run(self.lease_fit(key, mode)).await?;
        leased.ok_or(LeaseError::TimedOut(timeout))
    }

    /// Leases a session that is good for it.
    async fn lease_fit(&self, key: &Key, mode: Mode) -> Result<Lease<S>, LeaseError<S::Error>> {
        loop {
            quoit::op::entry().await?;
            let (lease, is_checked) = self.lease_any(key, mode).await?;
            if !is_checked {
                return Ok(lease);
            }
            // Given up in the middle, it is retired.
            if self.is_fit(&lease).await? {
                lease.prove();
                return Ok(lease);
            }
            if lease.was_closed() {
                // Whoever closed it wants no other that was asked for before.
                return Err(LeaseError::Closed);
            }
            lease.retire();
        }
    }

    async fn is_fit(&self, lease: &Lease<S>) -> Result<bool, LeaseError<S::Error>> {
        let registry = Arc::clone(self.registry());
        let asked = lease.call(async move |session: &S::Session| {
            let looked = caught(async { registry.sessions.is_fit(session).await }).await;
            // One whose look panics is good for nothing.
            Ok::<_, CallError>(looked.unwrap_or(false))
        });
        match asked.await {
            Ok(is_fit) => Ok(is_fit),
            Err(CallError::Cancelled(cancelled)) => Err(cancelled.into()),
            // Closed meanwhile, or its core has gone.
            Err(_) => Ok(false),
        }
    }

    /// Leases a session, and says whether it is to be checked first.
    async fn lease_any(
        &self,
        key: &Key,
        mode: Mode,
    ) -> Result<(Lease<S>, bool), LeaseError<S::Error>> {
        let registry = self.registry();
        let here = CoreId::current().expect("a session is leased on a core: call this from a task");
        let (decision, line, place) = registry.lease(key, mode, here);
        let ticket = match decision {
            Decision::Leased(entry, is_checked) => {
                return Ok((self.loan(entry, key, line), is_checked));
            }
            Decision::Wait(ticket) => Ticket {
                registry,
                id: Some(ticket),
            },
            Decision::BackingOff {
                retry_in,
                failures,
                last,
            } => {
                return Err(LeaseError::BackingOff {
                    retry_in,
                    failures,
                    last,
                });
            }
            Decision::Exhausted {
                max_sessions,
                waiting,
            } => {
                return Err(LeaseError::Exhausted {
                    max_sessions,
                    waiting,
                });
            }
        };
        // Nobody has used it before, or somebody has just now.
        let lease = self.wait(ticket, key, place).await?;
        Ok((lease, false))
    }

    async fn wait(
        &self,
        mut ticket: Ticket<'_, S>,
        key: &Key,
        place: Place,
    ) -> Result<Lease<S>, LeaseError<S::Error>> {
        loop {
            match ticket.outcome().await? {
                Outcome::Appointed(entry) => {
                    owner::start(self.registry(), entry, key.clone(), place);
                }
                Outcome::Granted(entry) => {
                    let line = self.registry().line(entry);
                    return Ok(self.loan(entry, key, line));
                }
                Outcome::Failed(failure) => {
                    return Err(match failure {
                        Failure::Error(error) => LeaseError::Open(error),
                        Failure::TimedOut(timeout) => LeaseError::OpenTimedOut(timeout),
                        Failure::Panicked(text) => LeaseError::Panicked(text),
                        Failure::ShuttingDown => LeaseError::ShuttingDown,
                        Failure::Closed => LeaseError::Closed,
                    });
                }
            }
        }
    }

    fn loan(&self, entry: EntryId, key: &Key, line: Option<Arc<Line>>) -> Lease<S> {
        let registry = self.registry();
        // An owner that has ended since then has left its lease without anything behind it.
        let line = line.unwrap_or_else(|| {
            let here = CoreId::current().expect("a session is leased on a core");
            Arc::new(Line::new(here))
        });
        Lease::new(Arc::clone(registry), entry, key.clone(), line)
    }

    /// Closes the session of `key`, also one that is being opened.
    ///
    /// It is taken out at once: a lease that comes after this call opens a new one, and callers that wait
    /// fail with [`LeaseError::Closed`]. This returns when the owner has ended: how many there were.
    ///
    /// # Errors
    ///
    /// [`Cancelled`]: nobody waits any more; the closing goes on.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub async fn close_session(&self, key: &Key) -> Result<usize, Cancelled> {
        self.close(Selection::Session(key)).await
    }

    /// Closes all sessions on behalf of `scope`, as [`SessionPool::close_session`] does one.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub async fn close_scope(&self, scope: &str) -> Result<usize, Cancelled> {
        self.close(Selection::Scope(scope)).await
    }

    /// Closes all sessions with `server`, as [`SessionPool::close_session`] does one.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub async fn close_server(&self, server: &str) -> Result<usize, Cancelled> {
        self.close(Selection::Server(server)).await
    }

    /// Closes all sessions, as [`SessionPool::close_session`] does one. The pool can be used on.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub async fn close_all(&self) -> Result<usize, Cancelled> {
        self.close(Selection::All).await
    }

    async fn close(&self, which: Selection<'_>) -> Result<usize, Cancelled> {
        let registry = self.registry();
        let mut closing = registry.close(which);
        let count = closing.len();
        run_until_cancelled(poll_fn(|cx| {
            match registry.have_ended(&mut closing, cx.waker()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }))
        .await?;
        Ok(count)
    }

    /// Closes all sessions, from any thread, and waits at most so long.
    ///
    /// # Errors
    ///
    /// [`CloseError::TimedOut`] with the keys that had not ended: their closing goes on.
    /// [`CloseError::WouldBlock`] on a thread that runs a core: the closing has begun, and waiting there
    /// could never end.
    pub fn close_all_blocking(&self, timeout: Duration) -> Result<usize, CloseError> {
        let registry = self.registry();
        let mut closing = registry.close(Selection::All);
        let count = closing.len();
        if CoreId::current().is_some() {
            return Err(CloseError::WouldBlock);
        }
        let until = Instant::now() + timeout;
        loop {
            // In a simulation this is what the cores go on for.
            let (sender, told) = RemoteHandle::channel();
            let waker = Waker::from(Arc::new(Tell(Mutex::new(Some(sender)))));
            if registry.have_ended(&mut closing, &waker) {
                return Ok(count);
            }
            if told.wait_for(until - Instant::now()).is_err() {
                let left = registry.left(closing);
                if left.is_empty() {
                    return Ok(count);
                }
                return Err(CloseError::TimedOut(left));
            }
        }
    }

    /// Returns what the pool has done, and what is there now.
    pub fn metrics(&self) -> PoolMetrics {
        self.registry().metrics()
    }

    /// Returns the keys that have a session, or one that is being opened.
    pub fn keys(&self) -> Vec<Key> {
        self.registry().step(|state, _| state.keys())
    }
}

/// Tells a thread that waits, once.
struct Tell(Mutex<Option<RemoteSender<()>>>);

impl Wake for Tell {
    fn wake(self: Arc<Self>) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            sender.send(());
        }
    }
}

/// A place in a line; given up when it is dropped.
struct Ticket<'a, S: Sessions> {
    registry: &'a Arc<Registry<S>>,
    /// As long as there is one.
    id: Option<TicketId>,
}

impl<S: Sessions> Ticket<'_, S> {
    async fn outcome(&mut self) -> Result<Outcome<S::Error>, Cancelled> {
        let id = self.id.expect("asked until it is decided");
        let outcome = self.registry.outcome(id).await?;
        if !matches!(outcome, Outcome::Appointed(_)) {
            self.id = None;
        }
        Ok(outcome)
    }
}

impl<S: Sessions> Drop for Ticket<'_, S> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.registry.leave(id);
        }
    }
}
