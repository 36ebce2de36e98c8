//! One request: its handler is a child task of the connection, and a scope.
//!
//! ```text
//!   hyper ──asks──► Asked (what hyper polls) ──starts──► the handler, a task of the connection's group
//!     │                 ▲                                      │
//!     │ drops: the      └────────────── its answer ────────────┘
//!     ▼ client has gone
//!   the handler's scope is cancelled, for that reason
//! ```
//!
//! hyper drops a request's future when its client goes away or resets its stream. A handler that was
//! that future would be gone in the middle of its work, and of its clean-up. Here it is cancelled: its
//! ops fail, its work on other cores ends, and it ends as it sees fit.
//!
//! In HTTP/2 the task has what hyper polls as well ([`streams`](super::streams)).

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use quoit::time::Instant;
use quoit::{Cancelled, Group, JoinError, JoinHandle, Reason, Scope};

use super::activity::Handling;
use super::connection::{Limits, Site};
use super::incoming::{Fate, Fault};
use super::streams::Line;
use super::{BoxError, Incoming};

/// What came of a request.
pub(super) enum Outcome<B> {
    Answer(Response<B>),
    /// The server's own.
    Own(Response<Bytes>),
    /// There is none of the handler's, for a reason that the client is told.
    Refused(StatusCode),
    /// The handler took longer than it may.
    Late,
    /// The handler failed.
    Failed(BoxError),
    /// Nobody waits for one any more.
    Nobody(BoxError),
}

/// What a handler ended with.
pub(super) type Ended<B> = Result<Response<B>, Failure>;

/// Why a handler made no answer.
#[derive(Debug)]
pub(super) enum Failure {
    Error(BoxError),
    Late,
    /// With what it says then.
    Panicked(String),
}

impl Failure {
    /// Of a handler that has panicked with this.
    pub(super) fn of_panic(payload: Box<dyn Any + Send>) -> Self {
        Self::Panicked(JoinError::<Infallible>::Panicked(payload).to_string())
    }
}

/// A request as hyper polls it. Dropped before its end, it cancels the handler.
pub(super) struct Pending<H, B: 'static> {
    handler: Handler<H, B>,
    fate: Fate,
    /// The connection counts a handler for as long as hyper waits for it.
    _handling: Handling,
    ended: bool,
}

/// Who works at an answer.
pub(super) enum Handler<H, B: 'static> {
    /// A task of its own.
    Child(JoinHandle<Ended<B>, Cancelled>),
    /// The task that has the stream, which is cancelled where the stream ends first.
    Beside(Rc<Line<H, B>>),
}

impl<H, B> Pending<H, B> {
    pub(super) fn new(handler: Handler<H, B>, fate: Fate, handling: Handling) -> Self {
        Self {
            handler,
            fate,
            _handling: handling,
            ended: false,
        }
    }
}

/// Starts the handler of a request.
pub(super) fn start<H, F, B, E>(
    group: Group<Cancelled>,
    site: &Rc<Site<H>>,
    request: Request<Incoming>,
    until: Option<Instant>,
) -> Handler<H, B>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: Body + 'static,
    E: Into<BoxError> + 'static,
{
    let site = Rc::clone(site);
    // Two futures, so that who sets no deadline has the small one.
    Handler::Child(match until {
        None => group.spawn_eager(async move {
            let answer = (site.handler)(request).await;
            Ok(answer.map_err(|error| Failure::Error(error.into())))
        }),
        Some(until) => {
            group.spawn_eager(async move { Ok(handle_until(site, request, until).await) })
        }
    })
}

/// Asks a handler for an answer by then.
pub(super) async fn handle_until<H, F, B, E>(
    site: Rc<Site<H>>,
    request: Request<Incoming>,
    until: Instant,
) -> Ended<B>
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    let answer = async { (site.handler)(request).await.map_err(Into::into) };
    // Its own failures, a cancellation from further out among them, are told by value.
    match Scope::new().deadline(until).run(answer).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Failure::Late),
        Err(error) => Err(Failure::Error(error)),
    }
}

/// Returns when a handler has to have made its answer, of a request that has to be answered by then.
pub(super) fn deadline(limits: &Limits, until: Option<Instant>) -> Option<Instant> {
    let timeout = limits.handler_timeout;
    match (timeout.map(|timeout| Instant::now() + timeout), until) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl<H, B> Future for Pending<H, B> {
    type Output = Outcome<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<B>> {
        let this = &mut *self;
        let ended = match &mut this.handler {
            Handler::Child(child) => match ready!(Pin::new(child).poll(cx)) {
                Ok(ended) => ended,
                Err(JoinError::Cancelled(cancelled)) => {
                    // The connection is cancelled, and so is the handler.
                    this.ended = true;
                    return Poll::Ready(Outcome::Nobody(cancelled.into()));
                }
                Err(error) => Err(Failure::Panicked(error.to_string())),
            },
            Handler::Beside(line) => match line.answer() {
                Some(ended) => ended,
                None => return Poll::Pending,
            },
        };
        this.ended = true;
        Poll::Ready(match ended {
            Ok(answer) => Outcome::Answer(answer),
            Err(Failure::Late) => Outcome::Late,
            Err(Failure::Error(error)) => match this.fate.fault() {
                Some(Fault::Refused(status)) => Outcome::Refused(status),
                Some(Fault::Gone) => Outcome::Nobody(error),
                // Whoever asks is there still, whatever the error says, unless he is cancelled himself.
                None if quoit::is_cancelled() => Outcome::Nobody(error),
                None => Outcome::Failed(error),
            },
            Err(Failure::Panicked(how)) => Outcome::Failed(how.into()),
        })
    }
}

impl<H, B> Drop for Pending<H, B> {
    fn drop(&mut self) {
        if let (false, Handler::Child(child)) = (self.ended, &self.handler) {
            child.cancel_for(Reason::Disconnected);
        }
    }
}
