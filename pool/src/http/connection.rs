//! One connection and its owner: the task that makes it, drives it, and ends it.
//!
//! ```text
//!   owner: connect ──► drive hyper ──► (stopped, or the peer has ended it) ──► say goodbye ──► gone
//!              ▲            ▲
//!              └── stop ────┴── wake: a request has left, or the time as an idle one is known
//! ```
//!
//! The owner is a task at the core's root, with a group for what hyper starts. Callers hold the [`Handle`]:
//! they hand requests to hyper through it, and tell the owner what becomes of the connection.
//!
//! Invariants:
//! - Nobody but the owner makes, polls or drops the connection.
//! - The owner tells the pool that it is gone after its group has ended and a goodbye was said, for which a peer
//!   has little time: then the descriptor is closed.
//! - The owner keeps no pool alive.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use pin_project_lite::pin_project;
use quoit::sync::{Event, oneshot};
use quoit::time::{Alarm, Instant};
use quoit::{CancelHandle, Cancelled, Group, Scope, group, op, run_until_cancelled};
use quoit_net::http::{Io, Timer};

use super::body::{OutgoingBody, Piping};
use super::connect::connect;
use super::error::Error;
use super::origin::Origin;
use super::registry::{ConnectionId, Speaks};
use super::shared::Shared;
use super::streams::{Fate, StreamId};
use super::wire::{Return, Wire};

/// How much of an answer that nobody reads is taken off an HTTP/1 connection, so that it can be used again.
const DRAINED: u64 = 64 * 1024;

/// How long a peer has to take a goodbye. The kernel takes it at once, unless much that the peer has not read is
/// before it; then the connection's place in the pool is worth more.
const GOODBYE: Duration = Duration::from_millis(100);

/// What hyper adds to an instant of the standard library's, which has an end: more is as good as never.
const FAR: Duration = Duration::from_secs(u32::MAX as u64);

/// What becomes of a request, as hyper tells it.
pub(super) trait Answer:
    Future<Output = Result<Response<Incoming>, TrySendError<Request<OutgoingBody>>>>
{
}

impl<F> Answer for F where
    F: Future<Output = Result<Response<Incoming>, TrySendError<Request<OutgoingBody>>>>
{
}

pin_project! {
    /// The same from either protocol, without a box.
    #[project = EitherAnswer]
    enum Either<A, B> {
        Http1 { #[pin] answer: A },
        Http2 { #[pin] answer: B },
    }
}

impl<A: Future, B: Future<Output = A::Output>> Future for Either<A, B> {
    type Output = A::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A::Output> {
        match self.project() {
            EitherAnswer::Http1 { answer } => answer.poll(cx),
            EitherAnswer::Http2 { answer } => answer.poll(cx),
        }
    }
}

/// The wait for how a connection has ended.
pub(super) type Verdict = Pin<Box<dyn Future<Output = Result<(), Cancelled>>>>;

/// What hyper gives back of a connection that goes on as something else.
pub(super) type Switched = (Io, Bytes);

/// A connection, as the rest of the pool sees it.
pub(super) struct Handle {
    pub(super) id: ConnectionId,
    pub(super) origin: Rc<Origin>,
    sender: RefCell<Option<Sender>>,
    /// Of HTTP/2: whose body is about to get a task that sends it.
    pub(super) piping: Rc<Piping>,
    /// Of HTTP/1: what is left of a request before the next can come.
    left: RefCell<Option<Left>>,
    /// When the pool is asked whether it has expired.
    look_at: Cell<Option<Instant>>,
    /// Why it was stopped.
    stopped: Cell<Option<Stop>>,
    owner: RefCell<Option<Waker>>,
    scope: Cell<Option<CancelHandle>>,
    switch: RefCell<Option<oneshot::Sender<Switched>>>,
    /// The peer has answered no ping.
    is_silent: Cell<bool>,
    /// hyper has ended the connection, or nobody drives it any more.
    driven: Rc<Event>,
}

/// Why an owner ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nobody needs the connection, or it is of no use.
    Useless,
    /// The pool is closed.
    Closed,
}

enum Sender {
    Http1(http1::SendRequest<OutgoingBody>),
    Http2(http2::SendRequest<OutgoingBody>),
}

/// What is left to be done about a request whose caller has gone.
enum Left {
    /// The answer was read: hyper says when the next request can come.
    Settle {
        stream: StreamId,
        /// The connection was polled, and the next could not come.
        was_busy: bool,
    },
    /// The answer was not read to its end: if the rest is there already, it is taken.
    Drain {
        stream: StreamId,
        body: Incoming,
        taken: u64,
        /// The connection was polled, and had no more.
        had_none: bool,
    },
}

impl Left {
    fn settle(stream: StreamId) -> Self {
        Self::Settle {
            stream,
            was_busy: false,
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("id", &self.id)
            .field("origin", &self.origin)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// Starts the owner of a new connection.
    pub(super) fn start(pool: &Rc<Shared>, id: ConnectionId, origin: Rc<Origin>) -> Rc<Self> {
        let handle = Rc::new(Self {
            id,
            origin,
            sender: RefCell::default(),
            piping: Rc::default(),
            left: RefCell::default(),
            look_at: Cell::default(),
            stopped: Cell::default(),
            owner: RefCell::default(),
            scope: Cell::default(),
            switch: RefCell::default(),
            is_silent: Cell::default(),
            driven: Rc::default(),
        });
        let owner = Owner {
            pool: Rc::downgrade(pool),
            handle: Rc::clone(&handle),
            stream: Rc::default(),
        };
        drop(quoit::spawn(owner.run()));
        handle
    }

    pub(super) fn speaks(&self) -> Option<Speaks> {
        match &*self.sender.borrow() {
            Some(Sender::Http1(_)) => Some(Speaks::Http1),
            Some(Sender::Http2(_)) => Some(Speaks::Http2),
            None => None,
        }
    }

    /// Hands a request to hyper; `None` if the connection has gone.
    #[inline]
    pub(super) fn send(&self, request: Request<OutgoingBody>) -> Option<impl Answer + use<>> {
        // hyper wakes the owner, which is a task of this core: nothing comes back to here.
        match self.sender.borrow_mut().as_mut()? {
            Sender::Http1(sender) => {
                let answer = sender.try_send_request(request);
                Some(Either::Http1 { answer })
            }
            Sender::Http2(sender) => {
                let answer = sender.try_send_request(request);
                Some(Either::Http2 { answer })
            }
        }
    }

    /// Returns whether the next request of HTTP/1 can come at once.
    pub(super) fn is_ready(&self) -> bool {
        matches!(&*self.sender.borrow(), Some(Sender::Http1(sender)) if sender.is_ready())
    }

    /// Asks for what is left when hyper is done with a connection that goes on as something else.
    pub(super) fn expect_switch(&self) -> oneshot::Receiver<Switched> {
        let (sender, receiver) = oneshot::channel();
        let before = self.switch.replace(Some(sender));
        drop(before);
        receiver
    }

    /// It goes on with HTTP.
    pub(super) fn forget_switch(&self) {
        let forgotten = self.switch.take();
        drop(forgotten);
    }

    /// The answer of an HTTP/1 request was read to its end.
    pub(super) fn settle(&self, stream: StreamId) {
        self.leave(Left::settle(stream));
    }

    /// The answer of an HTTP/1 request was left before its end.
    pub(super) fn drain(&self, stream: StreamId, body: Incoming) {
        self.leave(Left::Drain {
            stream,
            body,
            taken: 0,
            had_none: false,
        });
    }

    fn leave(&self, left: Left) {
        let before = self.left.replace(Some(left));
        drop(before);
        self.wake();
    }

    /// The pool is to be asked at this time whether it has expired.
    pub(super) fn arm(&self, at: Instant) {
        self.look_at.set(Some(at));
        self.wake();
    }

    /// Lets the owner end. The first reason stays, but that the pool is closed is told to all.
    pub(super) fn stop(&self, why: Stop) {
        if self.stopped.get() != Some(Stop::Closed) {
            self.stopped.set(Some(why));
        }
        if let Some(scope) = self.scope.get() {
            scope.cancel();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.stopped.get() == Some(Stop::Closed)
    }

    /// Waits until the owner knows how the connection has ended: soon after a request has failed by that.
    pub(super) fn verdict(&self) -> Verdict {
        let driven = Rc::clone(&self.driven);
        Box::pin(async move { driven.wait().await })
    }

    /// Says what a failure is, from what is known of the connection.
    pub(super) fn explain(&self, error: Error) -> Error {
        match error {
            _ if self.is_closed() => Error::Closed,
            Error::Lost(_) if self.is_silent.get() => Error::PeerSilent,
            error => error,
        }
    }

    pub(super) fn wake(&self) {
        // It is noted anew in the poll that comes of this.
        let owner = self.owner.take();
        if let Some(owner) = owner {
            op::wake(owner);
        }
    }

    fn note_owner(&self, cx: &Context<'_>) {
        let is_known = matches!(&*self.owner.borrow(), Some(known) if known.will_wake(cx.waker()));
        if !is_known {
            let before = self.owner.replace(Some(cx.waker().clone()));
            drop(before);
        }
    }

    /// Does what is left of a request. Ready: the next one can come, or none ever.
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<Option<(StreamId, Fate)>> {
        loop {
            let Some(left) = self.left.take() else {
                return Poll::Pending;
            };
            match left {
                Left::Settle { stream, was_busy } => {
                    let Some(Sender::Http1(mut sender)) = self.sender.take() else {
                        return Poll::Ready(Some((stream, Fate::Unfit)));
                    };
                    let polled = sender.poll_ready(cx);
                    self.sender.replace(Some(Sender::Http1(sender)));
                    match polled {
                        Poll::Ready(Ok(())) => {
                            return Poll::Ready(Some((stream, Fate::Reusable)));
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(Some((stream, Fate::Unfit))),
                        Poll::Pending if !was_busy => {
                            self.left.replace(Some(Left::Settle {
                                stream,
                                was_busy: true,
                            }));
                            return Poll::Ready(None);
                        }
                        // The request still goes out, to a peer that has answered it and may never read the rest.
                        Poll::Pending => return Poll::Ready(Some((stream, Fate::Unfit))),
                    }
                }
                Left::Drain {
                    stream,
                    mut body,
                    taken,
                    had_none,
                } => match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(None) => {
                        self.left.replace(Some(Left::settle(stream)));
                    }
                    Poll::Ready(Some(Ok(frame))) => {
                        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                        let taken = taken + length;
                        if taken > DRAINED {
                            return Poll::Ready(Some((stream, Fate::Unfit)));
                        }
                        self.left.replace(Some(Left::Drain {
                            stream,
                            body,
                            taken,
                            had_none: false,
                        }));
                    }
                    Poll::Pending if !had_none => {
                        self.left.replace(Some(Left::Drain {
                            stream,
                            body,
                            taken,
                            had_none: true,
                        }));
                        // The connection learns that more is wanted when it is polled again.
                        return Poll::Ready(None);
                    }
                    Poll::Ready(Some(Err(_))) | Poll::Pending => {
                        return Poll::Ready(Some((stream, Fate::Unfit)));
                    }
                },
            }
        }
    }
}

/// The task of a connection.
struct Owner {
    pool: Weak<Shared>,
    handle: Rc<Handle>,
    /// The stream, once hyper has let go of it.
    stream: Rc<Return>,
}

impl Drop for Owner {
    /// At the end of the task, however it came to it.
    fn drop(&mut self) {
        self.is_driven_no_more();
        if let Some(pool) = self.pool.upgrade() {
            pool.gone(self.handle.id);
        }
    }
}

impl Owner {
    async fn run(self) {
        let this = &self;
        let ended = group(async |tasks: Group<Cancelled>| {
            this.handle.scope.set(tasks.handle());
            match this.handle.stopped.get() {
                Some(_) => Ok(()),
                None => this.live(tasks).await,
            }
        })
        .await;
        if ended.is_err() && self.handle.stopped.get().is_none() {
            // The core ends: there is no use in further connections.
            self.with_pool(|pool| pool.begin_close());
        }
        self.is_driven_no_more();
        // Said also where the core ends, which waits that long at most.
        let goodbye = Scope::new().shielded().timeout(GOODBYE);
        // A peer that takes nothing, or has gone, hears none.
        drop(goodbye.run(self.stream.say_goodbye()).await);
    }

    /// Whoever is on the connection may learn how it has ended, and nobody else comes.
    fn is_driven_no_more(&self) {
        let sender = self.handle.sender.take();
        drop(sender);
        self.handle.driven.set();
        self.with_pool(|pool| pool.retire(self.handle.id));
    }

    fn with_pool(&self, then: impl FnOnce(&Rc<Shared>)) {
        if let Some(pool) = self.pool.upgrade() {
            then(&pool);
        }
    }

    async fn live(&self, tasks: Group<Cancelled>) -> Result<(), Cancelled> {
        let Some(config) = self.pool.upgrade().map(|pool| Rc::clone(&pool.config)) else {
            return Ok(());
        };
        let connected = connect(&config, &self.handle.origin).await;
        let begun = match connected {
            Ok((io, Speaks::Http1)) => self.speak_http1(io).await?,
            Ok((io, Speaks::Http2)) => {
                let mut builder = http2::Builder::new(Tasks {
                    group: tasks,
                    owner: Rc::clone(&self.handle),
                    pool: Weak::clone(&self.pool),
                });
                // Until the peer has said how many it wants. The first request need not wait for that.
                builder.timer(Timer).initial_max_send_streams(1);
                if let Some((interval, limit)) = config.keep_alive {
                    builder
                        .keep_alive_interval(interval.min(FAR))
                        .keep_alive_timeout(limit.min(FAR));
                }
                self.speak_http2(&builder, io).await?
            }
            Err(Error::Cancelled(cancelled)) => return Err(cancelled),
            Err(error) => Err(error),
        };
        if let Err(error) = begun {
            self.with_pool(|pool| pool.not_connected(self.handle.id, &error));
        }
        Ok(())
    }

    /// Drives a connection of HTTP/1 to its end.
    async fn speak_http1(&self, io: Io) -> Result<Result<(), Error>, Cancelled> {
        let wire = Wire::new(io, Speaks::Http1, &self.stream);
        let shaken = run_until_cancelled(http1::handshake(wire)).await?;
        let (sender, mut connection) = match shaken {
            Ok(both) => both,
            Err(error) => return Ok(Err(Error::of_hyper(error))),
        };
        self.handle.sender.replace(Some(Sender::Http1(sender)));
        self.with_pool(|pool| pool.connected(self.handle.id, Speaks::Http1, 1));
        let mut idle = Idle::default();
        let driving = poll_fn(|cx| {
            self.handle.note_owner(cx);
            loop {
                if connection.poll_without_shutdown(cx).is_ready() {
                    return Poll::Ready(());
                }
                let Poll::Ready(left) = self.handle.poll_left(cx) else {
                    break;
                };
                if let Some((stream, fate)) = left {
                    self.with_pool(|pool| pool.ended(self.handle.id, stream, fate));
                }
            }
            ready!(idle.poll(self, cx));
            Poll::Ready(())
        });
        run_until_cancelled(driving).await?;
        let sender = self.handle.sender.take();
        drop(sender);
        // Nobody else comes here; whoever did would have to go elsewhere.
        self.with_pool(|pool| pool.retire(self.handle.id));
        let parts = connection.into_parts();
        if let Some(switch) = self.handle.switch.take() {
            let refused = switch.send((parts.io.into_io(), parts.read_buf));
            if let Err((io, _)) = refused {
                // It was not for this that the connection ended, or nobody wants it any more.
                self.stream.give_back(io);
            }
        }
        Ok(Ok(()))
    }

    /// Drives a connection of HTTP/2 until it takes nothing new. What is on it then is in the group.
    async fn speak_http2(
        &self,
        builder: &http2::Builder<Tasks>,
        io: Io,
    ) -> Result<Result<(), Error>, Cancelled> {
        let wire = Wire::new(io, Speaks::Http2, &self.stream);
        let shaken = run_until_cancelled(builder.handshake(wire)).await?;
        let (sender, mut connection) = match shaken {
            Ok(both) => both,
            Err(error) => return Ok(Err(Error::of_hyper(error))),
        };
        let mut limit = connection.current_max_send_streams();
        self.handle.sender.replace(Some(Sender::Http2(sender)));
        self.with_pool(|pool| pool.connected(self.handle.id, Speaks::Http2, limit));
        let mut idle = Idle::default();
        let driving = poll_fn(|cx| {
            self.handle.note_owner(cx);
            let polled = Pin::new(&mut connection).poll(cx);
            let is_now = connection.current_max_send_streams();
            if is_now != limit {
                limit = is_now;
                self.with_pool(|pool| pool.set_limit(self.handle.id, limit));
            }
            if let Poll::Ready(ended) = polled {
                let is_silent = ended.is_err_and(|error| error.is_timeout());
                self.handle.is_silent.set(is_silent);
                return Poll::Ready(());
            }
            idle.poll(self, cx)
        });
        run_until_cancelled(driving).await?;
        let sender = self.handle.sender.take();
        drop(sender);
        drop(connection);
        self.handle.driven.set();
        self.with_pool(|pool| pool.retire(self.handle.id));
        Ok(Ok(()))
    }
}

/// Looks at the time of an idle connection.
#[derive(Default)]
struct Idle {
    alarm: Option<(Instant, Alarm)>,
}

impl Idle {
    /// Ready when the connection has expired.
    fn poll(&mut self, owner: &Owner, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(at) = owner.handle.look_at.get() else {
                self.alarm = None;
                return Poll::Pending;
            };
            if self.alarm.as_ref().is_none_or(|(known, _)| *known != at) {
                self.alarm = Some((at, Alarm::at(at)));
            }
            let (_, alarm) = self.alarm.as_mut().expect("it was just set");
            ready!(Pin::new(alarm).poll(cx));
            owner.handle.look_at.set(None);
            owner.with_pool(|pool| pool.expire(owner.handle.id));
            if owner.handle.stopped.get().is_some() {
                return Poll::Ready(());
            }
        }
    }
}

/// Starts what hyper starts for a connection of HTTP/2, in its owner's group.
#[derive(Clone)]
struct Tasks {
    group: Group<Cancelled>,
    owner: Rc<Handle>,
    pool: Weak<Shared>,
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, task: F) {
        let (owner, pool) = (Rc::clone(&self.owner), Weak::clone(&self.pool));
        let body = owner.piping.take();
        // hyper's future is large, whatever it is about: it is moved once, to where it stays.
        let mut task = Box::pin(task);
        let task = run_until_cancelled(async move {
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                let asked = owner.piping.take();
                drop(asked);
                // A peer that allows more streams tells that to this task, and the owner hears of it here.
                if pool.upgrade().is_some_and(|pool| pool.is_awaited()) {
                    owner.wake();
                }
                if polled.is_pending() && body.as_ref().is_some_and(|body| body.is_stopped(cx)) {
                    // The peer has no room for what hyper has of it, and hyper asks for no more. Dropped, it is reset.
                    return Poll::Ready(());
                }
                polled.map(drop)
            })
            .await
        });
        // At once: most are about to wait, and need no turn of their own before that.
        drop(self.group.spawn_eager(task));
    }
}
