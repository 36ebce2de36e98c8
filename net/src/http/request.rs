//! One request: its handler is a child task of the connection, and a scope.
//!
//! ```text
//!   hyper ──asks──► Exchange (what hyper polls) ──starts──► the handler, a task of the connection's group
//!     │                 ▲                                      │
//!     │ drops: the      └──────── its answer, by the line ─────┘
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
use pin_project_lite::pin_project;
use quoit::time::Instant;
use quoit::{Cancelled, Group, JoinError, JoinHandle, Reason, Scope};

use super::connection::{Limits, Site};
use super::incoming::{Fate, Fault};
use super::line::{Handler, Line};
use super::{BoxError, Incoming};

/// What came of a request.
pub(super) enum Outcome {
    /// The handler's answer, which lies in the line: it is large.
    Answered,
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

/// An answer that is waited for. Dropped before there is one, it cancels the handler.
pub(super) struct Pending<H, B: 'static> {
    /// Who works at it; none where it was made at once, or in HTTP/2, where the task that has the stream is
    /// cancelled if the stream ends first.
    child: Option<JoinHandle<(), Cancelled>>,
    line: Rc<Line<H, B>>,
    fate: Fate,
}

impl<H, B> Pending<H, B> {
    pub(super) fn new(
        child: Option<JoinHandle<(), Cancelled>>,
        line: Rc<Line<H, B>>,
        fate: Fate,
    ) -> Self {
        Self { child, line, fate }
    }
}

/// Starts a handler for the request in the line, as a task of its own. Returns nothing if it has its answer at
/// once.
pub(super) fn start<H, F, B, E>(
    group: Group<Cancelled>,
    line: &Rc<Line<H, B>>,
) -> Option<JoinHandle<(), Cancelled>>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: 'static,
    E: Into<BoxError> + 'static,
{
    if line.is_answered() {
        line.drop_answer();
    }
    let mut child = group.spawn_eager(Alone {
        handler: Handler::NotAsked,
        line: Rc::clone(line),
    });
    // Of a connection that is cancelled is told when the answer is looked at.
    if !line.is_answered() || quoit::is_cancelled() {
        return Some(child);
    }
    // It has ended, perhaps in a way that it could not know: a group that it has leaked.
    if let Some(Err(error)) = child.try_join() {
        line.fail(Failure::Panicked(error.to_string()));
    }
    None
}

pin_project! {
    /// A handler that is a task alone.
    struct Alone<H, F, B> {
        #[pin]
        handler: Handler<F, B>,
        line: Rc<Line<H, B>>,
    }
}

impl<H, F, B, E> Future for Alone<H, F, B>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: 'static,
    E: Into<BoxError> + 'static,
{
    type Output = Result<(), Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Cancelled>> {
        let mut this = self.project();
        this.handler.as_mut().work(this.line, cx);
        if !this.handler.is_done() {
            return Poll::Pending;
        }
        this.line.clear();
        Poll::Ready(Ok(()))
    }
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

impl<H, B> Pending<H, B> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(child) = &mut self.child {
            let joined = ready!(Pin::new(child).poll(cx));
            self.child = None;
            match joined {
                Ok(()) => {}
                Err(JoinError::Cancelled(cancelled)) => {
                    // The connection is cancelled, and so is the handler.
                    self.line.leave();
                    self.line.clear();
                    return Poll::Ready(Outcome::Nobody(cancelled.into()));
                }
                // It may have left an answer all the same: that is nobody's, and the next request's least of all.
                Err(error) => self.line.fail(Failure::Panicked(error.to_string())),
            }
        }
        let Some(ended) = self.line.ended() else {
            return Poll::Pending;
        };
        Poll::Ready(match ended {
            Ok(()) => Outcome::Answered,
            Err(Failure::Late) => Outcome::Late,
            Err(Failure::Error(error)) => match self.fate.fault() {
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
        if let Some(child) = &self.child {
            self.line.leave();
            child.cancel_for(Reason::Disconnected);
        }
    }
}
