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

/// Why a handler made no answer.
#[derive(Debug)]
enum Failure {
    Error(BoxError),
    Late,
}

/// A request as hyper polls it. Dropped before its end, it cancels the handler.
pub(super) struct Pending<B: 'static> {
    child: JoinHandle<Result<Response<B>, Failure>, Cancelled>,
    fate: Fate,
    /// The connection counts a handler for as long as hyper waits for it.
    _handling: Handling,
    ended: bool,
}

/// Starts the handler of a request.
pub(super) fn start<H, F, B, E>(
    group: Group<Cancelled>,
    site: &Rc<Site<H>>,
    request: Request<Incoming>,
    fate: Fate,
    handling: Handling,
    until: Option<Instant>,
) -> Pending<B>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: Body + 'static,
    E: Into<BoxError> + 'static,
{
    let site = Rc::clone(site);
    // Two futures, so that who sets no deadline has the small one.
    let child = match deadline(&site.limits, until) {
        None => group.spawn_eager(async move {
            let answer = (site.handler)(request).await;
            Ok(answer.map_err(|error| Failure::Error(error.into())))
        }),
        Some(until) => group.spawn_eager(async move {
            let answer = async { (site.handler)(request).await.map_err(Into::into) };
            // Its own failures, a cancellation from further out among them, are told by value.
            Ok(match Scope::new().deadline(until).run(answer).await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => Err(Failure::Late),
                Err(error) => Err(Failure::Error(error)),
            })
        }),
    };
    Pending {
        child,
        fate,
        _handling: handling,
        ended: false,
    }
}

/// Returns when a handler has to have made its answer, of a request that has to be answered by then.
fn deadline(limits: &Limits, until: Option<Instant>) -> Option<Instant> {
    let timeout = limits.handler_timeout;
    match (timeout.map(|timeout| Instant::now() + timeout), until) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl<B> Future for Pending<B> {
    type Output = Outcome<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<B>> {
        let this = &mut *self;
        let ended = ready!(Pin::new(&mut this.child).poll(cx));
        this.ended = true;
        Poll::Ready(match ended {
            Ok(Ok(answer)) => Outcome::Answer(answer),
            Ok(Err(Failure::Late)) => Outcome::Late,
            Ok(Err(Failure::Error(error))) => match this.fate.fault() {
                Some(Fault::Refused(status)) => Outcome::Refused(status),
                Some(Fault::Gone) => Outcome::Nobody(error),
                // Whoever asks is there still, whatever the error says, unless he is cancelled himself.
                None if quoit::is_cancelled() => Outcome::Nobody(error),
                None => Outcome::Failed(error),
            },
            Err(JoinError::Cancelled(cancelled)) => {
                // The connection is cancelled, and so is the handler.
                Outcome::Nobody(cancelled.into())
            }
            // It has panicked.
            Err(error) => Outcome::Failed(error.to_string().into()),
        })
    }
}

impl<B> Drop for Pending<B> {
    fn drop(&mut self) {
        if !self.ended {
            self.child.cancel_for(Reason::Disconnected);
        }
    }
}
