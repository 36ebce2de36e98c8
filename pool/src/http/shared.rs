//! A pool's state, and what carries out what it decides.
//!
//! The [`Registry`] decides, in single steps; what it wants done is done here, when it is not borrowed any
//! more. A [`Lease`] is a place on a connection: whoever drops it gives it back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;

use http::{Request, Uri};
use hyper::body::Incoming;
use quoit::sync::Event;
use quoit::sync::oneshot::{self, RecvError};
use quoit::time::Instant;
use quoit::{Cancelled, Scope};
use quoit_net::unix::UnixAddress;

use super::Counts;
use super::Error;
use super::body::{OutgoingBody, Sending};
use super::config::Config;
use super::connection::{Answer, Handle, Stop};
use super::origin::{self, Origin};
use super::registry::{ConnectionId, Effect, Place, Registry, Speaks, Ticket};
use super::streams::{Fate, StreamId};

pub(super) struct Shared {
    pub(super) config: Rc<Config>,
    registry: RefCell<Registry<Rc<Origin>>>,
    /// The origin of the last request: it is often that of the next.
    last_origin: RefCell<Option<Rc<Origin>>>,
    handles: RefCell<BTreeMap<ConnectionId, Rc<Handle>>>,
    waiting: RefCell<HashMap<Ticket, oneshot::Sender<Result<Lease, Error>>>>,
    retries: Cell<u64>,
    /// The pool is closed, and all owners have ended.
    emptied: Rc<Event>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Drop for Shared {
    /// Nobody can ask any more, and no answer is being read.
    fn drop(&mut self) {
        for handle in self.handles.get_mut().values() {
            handle.stop(Stop::Closed);
        }
    }
}

impl Shared {
    pub(super) fn new(config: Config) -> Rc<Self> {
        Rc::new(Self {
            registry: RefCell::new(Registry::new(config.limits.clone())),
            config: Rc::new(config),
            last_origin: RefCell::default(),
            handles: RefCell::default(),
            waiting: RefCell::default(),
            retries: Cell::default(),
            emptied: Rc::default(),
        })
    }

    pub(super) fn counts(&self) -> Counts {
        let registry = self.registry.borrow();
        let tally = registry.tally();
        Counts {
            connects: tally.connects,
            failed_connects: tally.failed_connects,
            reuses: tally.reuses,
            retries: self.retries.get(),
            evictions: tally.evictions,
            expiries: tally.expiries,
            retired: tally.retired,
            connections: registry.connections(),
            idle: registry.idle(),
            waiting: registry.waiting(),
        }
    }

    pub(super) fn note_retry(&self) {
        self.retries.set(self.retries.get() + 1);
    }

    /// Returns whether somebody waits for a connection.
    pub(super) fn is_awaited(&self) -> bool {
        self.registry.borrow().waiting() > 0
    }

    /// Returns the origin of a URL.
    pub(super) fn origin_of(
        &self,
        url: &Uri,
        unix: Option<UnixAddress>,
    ) -> Result<Rc<Origin>, Error> {
        let place = origin::Place::of(url)?;
        let mut last = self.last_origin.borrow_mut();
        if let Some(last) = &*last
            && last.unix == unix
            && last.is_at(&place)
        {
            return Ok(Rc::clone(last));
        }
        let origin = Rc::new(Origin::new(&place, unix));
        *last = Some(Rc::clone(&origin));
        Ok(origin)
    }

    /// Waits for a place on a connection.
    pub(super) async fn lease(self: &Rc<Self>, origin: &Rc<Origin>) -> Result<Lease, Error> {
        quoit::op::entry().await?;
        let place = self.registry.borrow_mut().take(origin);
        if let Some(place) = place {
            return Ok(self.lease_of(place));
        }
        let speaks = match (origin.is_encrypted, self.config.has_prior_knowledge) {
            (true, _) => None,
            (false, true) => Some(Speaks::Http2),
            (false, false) => Some(Speaks::Http1),
        };
        let (sender, mut receiver) = oneshot::channel();
        let (ticket, effects) = self.registry.borrow_mut().ask(Rc::clone(origin), speaks);
        self.waiting.borrow_mut().insert(ticket, sender);
        let _leaves = Leaves { pool: self, ticket };
        self.perform(effects, None);
        self.look_at_limits(ticket);
        let Some(limit) = self.config.pool_timeout else {
            return received(receiver.recv().await);
        };
        if let Ok(lease) = receiver.try_recv() {
            return lease;
        }
        let waiting = async { received(receiver.recv().await) };
        let leased = Scope::new().timeout(limit).run(waiting).await?;
        leased.ok_or(Error::PoolTimeout { waited: limit })
    }

    /// Lets owners look how many streams their peers allow, where somebody waits because of that: a peer may have
    /// said it when nobody did.
    fn look_at_limits(&self, ticket: Ticket) {
        let full = self.registry.borrow().full(ticket);
        for handle in full.into_iter().filter_map(|id| self.handle(id)) {
            handle.wake();
        }
    }

    /// A connection is there, for so many requests at a time.
    pub(super) fn connected(self: &Rc<Self>, id: ConnectionId, speaks: Speaks, limit: usize) {
        let now = Instant::now();
        let effects = self.registry.borrow_mut().connected(id, speaks, limit, now);
        self.perform(effects, None);
    }

    pub(super) fn not_connected(self: &Rc<Self>, id: ConnectionId, error: &Error) {
        let effects = self.registry.borrow_mut().not_connected(id);
        self.perform(effects, Some(error));
    }

    pub(super) fn set_limit(self: &Rc<Self>, id: ConnectionId, limit: usize) {
        let effects = self.registry.borrow_mut().set_limit(id, limit);
        self.perform(effects, None);
    }

    pub(super) fn ended(self: &Rc<Self>, id: ConnectionId, stream: StreamId, fate: Fate) {
        let now = Instant::now();
        let effects = self.registry.borrow_mut().ended(id, stream, fate, now);
        self.perform(effects, None);
    }

    pub(super) fn retire(self: &Rc<Self>, id: ConnectionId) {
        let effects = self.registry.borrow_mut().retire(id);
        self.perform(effects, None);
    }

    pub(super) fn retire_idle(self: &Rc<Self>, origin: &Rc<Origin>) {
        let effects = self.registry.borrow_mut().retire_idle(origin);
        self.perform(effects, None);
    }

    pub(super) fn expire(self: &Rc<Self>, id: ConnectionId) {
        let effects = self.registry.borrow_mut().expire(id, Instant::now());
        self.perform(effects, None);
    }

    pub(super) fn gone(self: &Rc<Self>, id: ConnectionId) {
        let handle = self.handles.borrow_mut().remove(&id);
        drop(handle);
        let effects = self.registry.borrow_mut().gone(id);
        self.perform(effects, None);
        self.look_whether_empty();
    }

    /// Refuses whatever comes, and lets all connections end.
    pub(super) fn begin_close(self: &Rc<Self>) {
        let effects = self.registry.borrow_mut().close();
        // Those as well that were about to end for another reason: whoever is on them is to hear this one.
        let handles: Vec<_> = self.handles.borrow().values().cloned().collect();
        for handle in handles {
            handle.stop(Stop::Closed);
        }
        self.perform(effects, None);
        self.look_whether_empty();
    }

    /// Waits until nothing is left of a pool that was closed.
    pub(super) async fn emptied(&self) -> Result<(), Cancelled> {
        self.emptied.wait().await
    }

    fn look_whether_empty(&self) {
        let registry = self.registry.borrow();
        let is_empty = registry.is_closed() && registry.connections() == 0;
        drop(registry);
        if is_empty {
            self.emptied.set();
        }
    }

    fn perform(self: &Rc<Self>, effects: Vec<Effect<Rc<Origin>>>, failure: Option<&Error>) {
        for effect in effects {
            match effect {
                Effect::Give { ticket, place } => self.answer(ticket, Ok(self.lease_of(place))),
                Effect::Fail { ticket } => {
                    let error = failure.expect("a connect has failed").once_more();
                    self.answer(ticket, Err(error));
                }
                Effect::Refuse { ticket } => self.answer(ticket, Err(Error::Closed)),
                Effect::Connect { connection, origin } => {
                    let handle = Handle::start(self, connection, origin);
                    self.handles.borrow_mut().insert(connection, handle);
                }
                Effect::Arm { connection, at } => {
                    if let Some(handle) = self.handle(connection) {
                        handle.arm(at);
                    }
                }
                Effect::Close { connection } => {
                    if let Some(handle) = self.handle(connection) {
                        handle.stop(Stop::Useless);
                    }
                }
            }
        }
    }

    fn handle(&self, id: ConnectionId) -> Option<Rc<Handle>> {
        self.handles.borrow().get(&id).cloned()
    }

    fn lease_of(self: &Rc<Self>, place: Place) -> Lease {
        let handle = self.handle(place.connection);
        Lease {
            pool: Rc::clone(self),
            handle: handle.expect("its owner has not ended"),
            stream: place.stream,
            is_reused: place.is_reused,
            was_idle: place.was_idle,
            sending: RefCell::default(),
            is_answered: Cell::new(false),
            is_over: Cell::new(false),
        }
    }

    fn answer(&self, ticket: Ticket, answer: Result<Lease, Error>) {
        let waiting = self.waiting.borrow_mut().remove(&ticket);
        if let Some(waiting) = waiting {
            // Whoever has gone meanwhile gives the lease back by dropping it.
            drop(waiting.send(answer));
        }
    }
}

fn received(received: Result<Result<Lease, Error>, RecvError>) -> Result<Lease, Error> {
    match received {
        Ok(lease) => lease,
        Err(RecvError::Cancelled(cancelled)) => Err(cancelled.into()),
        Err(RecvError::Closed) => Err(Error::Closed),
    }
}

/// Takes one who waits out of the line, if he still stands there.
struct Leaves<'a> {
    pool: &'a Rc<Shared>,
    ticket: Ticket,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        let waiting = self.pool.waiting.borrow_mut().remove(&self.ticket);
        if waiting.is_some() {
            let effects = self.pool.registry.borrow_mut().leave(self.ticket);
            self.pool.perform(effects, None);
        }
    }
}

/// A place on a connection, for one request.
pub(super) struct Lease {
    pub(super) pool: Rc<Shared>,
    pub(super) handle: Rc<Handle>,
    stream: StreamId,
    pub(super) is_reused: bool,
    pub(super) was_idle: bool,
    /// The request's body, once it was handed to the connection.
    sending: RefCell<Option<Sending>>,
    /// The answer was read to its end.
    is_answered: Cell<bool>,
    is_over: Cell<bool>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("connection", &self.handle.id)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl Lease {
    /// Hands the request to hyper; `None` if the connection has gone.
    #[inline]
    pub(super) fn send(
        &self,
        request: Request<OutgoingBody>,
        sending: &Sending,
    ) -> Option<impl Answer + use<>> {
        let answer = self.handle.send(request)?;
        self.sending.replace(Some(sending.clone()));
        Some(answer)
    }

    /// The answer was read to its end. While the request's body is still being sent, the request goes on, and its
    /// connection is neither free nor idle: until this is dropped, which ends that body.
    pub(super) fn complete(&self) {
        self.is_answered.set(true);
        if self.is_sent() {
            self.finish();
        }
    }

    /// Returns whether the request has a body.
    pub(super) fn has_body(&self) -> bool {
        let sending = self.sending.borrow();
        sending.as_ref().is_some_and(Sending::is_some)
    }

    /// Returns whether the connection has taken all of the request's body.
    fn is_sent(&self) -> bool {
        let sending = self.sending.borrow();
        sending.as_ref().is_none_or(|sending| sending.is_done())
    }

    fn finish(&self) {
        if self.is_over.replace(true) {
            return;
        }
        match self.handle.speaks() {
            // Usually hyper was done with the connection when it gave the end of the answer away.
            Some(Speaks::Http1) if self.handle.is_ready() => self.end(Fate::Reusable),
            Some(Speaks::Http1) => {
                self.settles();
                self.handle.settle(self.stream);
            }
            Some(Speaks::Http2) | None => self.end(Fate::Reusable),
        }
    }

    /// The answer is not wanted any more, and this is what was not read of it.
    pub(super) fn leave(&self, rest: Incoming) {
        if self.is_over.get() {
            return;
        }
        if self.is_sent() && self.handle.speaks() == Some(Speaks::Http1) {
            self.is_over.set(true);
            self.settles();
            self.handle.drain(self.stream, rest);
        }
    }

    /// The connection takes nothing new.
    pub(super) fn retire_connection(&self) {
        self.pool.retire(self.handle.id);
    }

    /// It was dead, and so may be all that are idle to its origin: none of them is used any more.
    pub(super) fn retire_idle(&self) {
        self.pool.retire_idle(&self.handle.origin);
    }

    fn settles(&self) {
        self.pool.registry.borrow_mut().settles(self.handle.id);
    }

    fn end(&self, fate: Fate) {
        self.pool.ended(self.handle.id, self.stream, fate);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_answered.get() && self.is_sent() {
            self.finish();
        }
        let sending = self.sending.take();
        let was_sent = sending.is_some();
        if let Some(sending) = sending
            && !sending.is_done()
        {
            sending.stop();
        }
        if self.is_over.get() {
            return;
        }
        let fate = match self.handle.speaks() {
            _ if !was_sent => Fate::Reusable,
            Some(Speaks::Http2) => Fate::Reusable,
            Some(Speaks::Http1) | None => Fate::Unfit,
        };
        self.end(fate);
    }
}
