//! A request of HTTP/2 as a task: its handler, and behind it the stream by which hyper answers.
//!
//! ```text
//!   hyper ──asks──► Line: the request ──hyper starts a stream──► Served, polled at once
//!                                                                 handler ──► its stream
//!                                                                        Line: the answer
//! ```
//!
//! Most handlers have their answer at hand. Then the request is over when hyper has started its stream.
//!
//! Invariants:
//! - What is in the line is taken by whoever is polled next: there is no await in between.
//! - A stream that ends first, because its client has gone, cancels the handler; the task ends after it.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use quoit::time::Instant;
use quoit::{Cancelled, Group, JoinHandle, Reason};

use super::connection::Site;
use super::lookout::{Bound, Expiry};
use super::request::{Ended, Failure, handle_until};
use super::{BoxError, Incoming};

/// What the service, the handlers and the streams of a connection hand each other.
pub(super) struct Line<H, B> {
    /// When the stream expires that hyper starts next, if that is one of a request: it does so right after
    /// it has asked for the answer.
    next: RefCell<Option<Option<Rc<Expiry>>>>,
    asked: RefCell<Option<Asked<H>>>,
    answer: RefCell<Option<Ended<B>>>,
    waiting: RefCell<Option<Rc<Own>>>,
}

/// What a handler is asked.
struct Asked<H> {
    site: Rc<Site<H>>,
    request: Request<Incoming>,
    until: Option<Instant>,
}

/// A task of which the handler goes on after its first poll.
#[derive(Default)]
struct Own {
    task: OnceCell<JoinHandle<(), Cancelled>>,
    is_abandoned: Cell<bool>,
}

impl<H, B> Default for Line<H, B> {
    fn default() -> Self {
        Self {
            next: RefCell::new(None),
            asked: RefCell::new(None),
            answer: RefCell::new(None),
            waiting: RefCell::new(None),
        }
    }
}

impl<H, B> fmt::Debug for Line<H, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl<H, B> Line<H, B> {
    /// A stream comes next, which expires then.
    pub(super) fn begin(&self, expiry: Option<Rc<Expiry>>) {
        let before = self.next.replace(Some(expiry));
        drop(before);
    }

    /// Its handler is to be asked this, and to have answered by then.
    pub(super) fn ask(
        &self,
        site: &Rc<Site<H>>,
        request: Request<Incoming>,
        until: Option<Instant>,
    ) {
        let site = Rc::clone(site);
        // In its place: it is large, and there is none before it.
        *self.asked.borrow_mut() = Some(Asked {
            site,
            request,
            until,
        });
    }

    /// Takes the answer of the handler whose stream is polled, if it has one.
    pub(super) fn answer(&self) -> Option<Ended<B>> {
        self.answer.take()
    }
}

impl Own {
    fn abandon(&self) {
        self.is_abandoned.set(true);
        if let Some(task) = self.task.get() {
            task.cancel_for(Reason::Disconnected);
        }
    }

    fn is(&self, task: JoinHandle<(), Cancelled>) {
        if self.is_abandoned.get() {
            task.cancel_for(Reason::Disconnected);
        }
        let set = self.task.set(task);
        debug_assert!(set.is_ok(), "a task is started once");
    }
}

/// Starts the streams of a connection in its group.
pub(super) struct Streams<H, B> {
    group: Group<Cancelled>,
    line: Rc<Line<H, B>>,
}

impl<H, B> Streams<H, B> {
    pub(super) fn new(group: Group<Cancelled>, line: Rc<Line<H, B>>) -> Self {
        Self { group, line }
    }
}

impl<H, B> Clone for Streams<H, B> {
    fn clone(&self) -> Self {
        Self::new(self.group, Rc::clone(&self.line))
    }
}

impl<S, H, F, B, E> hyper::rt::Executor<S> for Streams<H, B>
where
    S: Future<Output: 'static> + 'static,
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: 'static,
    E: Into<BoxError> + 'static,
{
    fn execute(&self, stream: S) {
        let Some(expiry) = self.line.next.take() else {
            // What goes on behind an answer to CONNECT.
            drop(self.group.spawn_daemon(async {
                stream.await;
                Ok(())
            }));
            return;
        };
        let task = self.group.spawn_eager(Served {
            handler: Handler::NotAsked,
            stream: Some(stream),
            bound: expiry.map(Bound::new),
            line: Rc::clone(&self.line),
            own: None,
        });
        if let Some(own) = self.line.waiting.take() {
            own.is(task);
        }
    }
}

pin_project! {
    /// A request that is served.
    struct Served<S, H, F, B> {
        #[pin]
        handler: Handler<F, B>,
        #[pin]
        stream: Option<S>,
        bound: Option<Bound>,
        line: Rc<Line<H, B>>,
        own: Option<Rc<Own>>,
    }
}

pin_project! {
    /// A handler. Not an `async` block: it would keep the request twice, as what it was given and as what
    /// the handler has.
    #[project = HandlerProjection]
    enum Handler<F, B> {
        NotAsked,
        Works { #[pin] work: F },
        /// In a scope with a deadline. In a place of its own, so that who sets none has a small task.
        WorksUntil { work: Pin<Box<dyn Future<Output = Ended<B>>>> },
        Done,
    }
}

impl<F, B, E> Handler<F, B>
where
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: 'static,
    E: Into<BoxError> + 'static,
{
    fn ask<H>(asked: Asked<H>) -> Self
    where
        H: Fn(Request<Incoming>) -> F + 'static,
    {
        let Asked {
            site,
            request,
            until,
        } = asked;
        match until {
            None => Self::Works {
                work: (site.handler)(request),
            },
            Some(until) => Self::WorksUntil {
                work: Box::pin(handle_until(site, request, until)),
            },
        }
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended<B>> {
        match self.project() {
            HandlerProjection::Works { work } => {
                work.poll(cx).map_err(|error| Failure::Error(error.into()))
            }
            HandlerProjection::WorksUntil { work } => work.as_mut().poll(cx),
            HandlerProjection::NotAsked | HandlerProjection::Done => Poll::Pending,
        }
    }
}

impl<S, H, F, B, E> Future for Served<S, H, F, B>
where
    S: Future,
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: 'static,
    E: Into<BoxError> + 'static,
{
    type Output = Result<(), Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Cancelled>> {
        let mut this = self.project();
        let is_first = matches!(*this.handler, Handler::NotAsked);
        if !matches!(*this.handler, Handler::Done) {
            let (line, handler) = (&*this.line, &mut this.handler);
            // What it comes to is not handed through here: it is large.
            let worked = caught(|| {
                if is_first {
                    handler.set(line.asked.take().map_or(Handler::Done, Handler::ask));
                }
                if let Poll::Ready(ended) = handler.as_mut().poll(cx) {
                    *line.answer.borrow_mut() = Some(ended);
                    handler.set(Handler::Done);
                }
            });
            if let Err(failure) = worked {
                let replaced = line.answer.replace(Some(Err(failure)));
                // They have panicked already, or do so now: that is told.
                let _ = caught(|| drop(replaced));
                let _ = caught(|| handler.set(Handler::Done));
            }
        }
        let is_done = matches!(*this.handler, Handler::Done);
        if let Some(stream) = this.stream.as_mut().as_pin_mut() {
            let mut has_ended = stream.poll(cx).is_ready();
            if let (false, Some(bound)) = (has_ended, &mut *this.bound) {
                has_ended = bound.poll(cx).is_ready();
            }
            if has_ended {
                this.stream.set(None);
            }
        }
        // Nobody wants it any more, if it is still there.
        drop(this.line.answer.take());
        let is_over = this.stream.is_none();
        if is_done {
            return match is_over {
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            };
        }
        if is_first {
            let own = this.own.insert(Rc::default());
            let before = this.line.waiting.replace(Some(Rc::clone(own)));
            drop(before);
        }
        if is_over && let Some(own) = this.own.take() {
            own.abandon();
        }
        Poll::Pending
    }
}

/// Runs what is the handler's: a panic in it is its failure.
fn caught<R>(f: impl FnOnce() -> R) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(f)).map_err(Failure::of_panic)
}
