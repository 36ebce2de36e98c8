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
//! Invariant: a stream that ends first, because its client has gone, cancels the handler; the task ends after
//! it.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use quoit::{Cancelled, Group, JoinHandle, Reason};

use super::line::{Handler, Line};
use super::lookout::Bound;
use super::{BoxError, Incoming};

/// A task of which the handler goes on after its first poll.
#[derive(Default)]
pub(super) struct Own {
    task: OnceCell<JoinHandle<(), Cancelled>>,
    is_abandoned: Cell<bool>,
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
        let is_first = !this.handler.is_asked();
        if !this.handler.is_done() {
            this.handler.as_mut().work(this.line, cx);
        }
        let is_done = this.handler.is_done();
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
        drop(this.line.answer());
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
