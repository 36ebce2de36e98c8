//! What the service, the handlers and the streams of a connection hand each other, without moving it through
//! futures: requests and answers are large.
//!
//! ```text
//!   the service ──asks──► the request ──first poll──► Handler ──its answer──► what hyper polls
//! ```
//!
//! Invariants:
//! - What is in the line is taken by whoever is polled next: there is no await in between. An answer of HTTP/1
//!   alone may lie here until hyper looks again, and there is one request at a time.
//! - A panic of the handler is its answer.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use quoit::time::Instant;

use super::connection::Site;
use super::lookout::Expiry;
use super::request::{Ended, Failure, handle_until};
use super::streams::Own;
use super::{BoxError, Incoming};

/// The hand-over of one connection.
pub(super) struct Line<H, B> {
    site: Rc<Site<H>>,
    /// When the stream expires that hyper starts next, if that is one of a request: it does so right after
    /// it has asked for the answer.
    pub(super) next: RefCell<Option<Option<Rc<Expiry>>>>,
    /// The request that is taken in. It is looked at where it lies: it is large.
    request: RefCell<Option<Request<Incoming>>>,
    /// When its handler has to have an answer.
    until: Cell<Option<Instant>>,
    answer: RefCell<Option<Ended<B>>>,
    pub(super) waiting: RefCell<Option<Rc<Own>>>,
    /// Nobody takes answers any more.
    is_left: Cell<bool>,
}

impl<H, B> fmt::Debug for Line<H, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl<H, B> Line<H, B> {
    pub(super) fn new(site: Rc<Site<H>>) -> Self {
        Self {
            site,
            next: RefCell::new(None),
            request: RefCell::new(None),
            until: Cell::new(None),
            answer: RefCell::new(None),
            waiting: RefCell::new(None),
            is_left: Cell::new(false),
        }
    }

    /// A stream comes next, which expires then.
    pub(super) fn begin(&self, expiry: Option<Rc<Expiry>>) {
        let before = self.next.replace(Some(expiry));
        drop(before);
    }

    /// Returns the place of a request: what lies here a handler is asked next.
    pub(super) fn request(&self) -> RefMut<'_, Option<Request<Incoming>>> {
        self.request.borrow_mut()
    }

    /// The handler that is asked next has to have its answer by then.
    pub(super) fn expect_by(&self, until: Option<Instant>) {
        self.until.set(until);
    }

    /// Returns whether there is an answer.
    pub(super) fn is_answered(&self) -> bool {
        self.answer.borrow().is_some()
    }

    /// Returns what the handler that was asked last has ended with. An answer stays here, a failure does not.
    pub(super) fn ended(&self) -> Option<Result<(), Failure>> {
        let mut answer = self.answer.borrow_mut();
        match answer.take_if(|ended| ended.is_err()) {
            Some(Err(failure)) => Some(Err(failure)),
            Some(Ok(_)) | None => answer.is_some().then_some(Ok(())),
        }
    }

    /// Takes the answer of the handler that was asked last, if it has one.
    pub(super) fn answer(&self) -> Option<Ended<B>> {
        self.answer.take()
    }

    /// The handler has failed, whatever it has answered.
    pub(super) fn fail(&self, failure: Failure) {
        let replaced = self.answer.replace(Some(Err(failure)));
        // It may panic: that is told.
        let _ = caught(|| drop(replaced));
    }

    /// Notes that nobody takes answers any more, in HTTP/1.
    pub(super) fn leave(&self) {
        self.is_left.set(true);
    }

    /// Drops the answer, if nobody takes it.
    pub(super) fn clear(&self) {
        if self.is_left.get() {
            self.drop_answer();
        }
    }

    /// Drops what a request has left that is over: it is none of the next one's.
    pub(super) fn drop_answer(&self) {
        let unwanted = self.answer.take();
        // It may panic: that is nobody's failure.
        let _ = caught(|| drop(unwanted));
    }
}

pin_project! {
    /// A handler. Not an `async` block: it would keep the request twice, as what it was given and as what
    /// the handler has.
    #[project = HandlerProjection]
    pub(super) enum Handler<F, B> {
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
    /// Asks the handler, at first, and polls it; what it comes to is put into the line.
    pub(super) fn work<H>(mut self: Pin<&mut Self>, line: &Line<H, B>, cx: &mut Context<'_>)
    where
        H: Fn(Request<Incoming>) -> F + 'static,
    {
        // What it comes to is not handed through here: it is large.
        let worked = caught(|| {
            if matches!(*self, Self::NotAsked) {
                self.set(Self::ask(line));
            }
            if self.as_mut().poll(line, cx).is_ready() {
                self.set(Self::Done);
            }
        });
        if let Err(failure) = worked {
            line.fail(failure);
            let _ = caught(|| self.set(Self::Done));
        }
    }

    fn ask<H>(line: &Line<H, B>) -> Self
    where
        H: Fn(Request<Incoming>) -> F + 'static,
    {
        let request = line.request.borrow_mut().take();
        let Some(request) = request else {
            return Self::Done;
        };
        match line.until.take() {
            None => Self::Works {
                work: (line.site.handler)(request),
            },
            Some(until) => Self::WorksUntil {
                work: Box::pin(handle_until(Rc::clone(&line.site), request, until)),
            },
        }
    }

    /// Puts what it comes to into the line.
    fn poll<H>(self: Pin<&mut Self>, line: &Line<H, B>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project() {
            HandlerProjection::Works { work } => match ready!(work.poll(cx)) {
                Ok(answer) => *line.answer.borrow_mut() = Some(Ok(answer)),
                Err(error) => {
                    *line.answer.borrow_mut() = Some(Err(Failure::Error(error.into())));
                }
            },
            HandlerProjection::WorksUntil { work } => {
                *line.answer.borrow_mut() = Some(ready!(work.as_mut().poll(cx)));
            }
            HandlerProjection::NotAsked | HandlerProjection::Done => return Poll::Pending,
        }
        Poll::Ready(())
    }
}

impl<F, B> Handler<F, B> {
    pub(super) fn is_asked(&self) -> bool {
        !matches!(self, Self::NotAsked)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// Runs what is the handler's: a panic in it is its failure.
fn caught<R>(f: impl FnOnce() -> R) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(f)).map_err(Failure::of_panic)
}
