//! How long a client may take, seen over its connection.
//!
//! ```text
//!   HTTP/1:  idle ──first byte of a head──► head ──► busy: a handler works, or its answer is sent
//!             ▲                                        │
//!             └────────────────────────────────────────┘
//! ```
//!
//! Each stage has its deadline. It is armed once and moved only when it comes: a connection that is asked
//! again and again arms nothing.
//!
//! A client that has yet to take an answer is neither idle, nor late with a head that hyper does not read before: what it
//! has to do is to take something, in the stall timeout.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use quoit::time::{Alarm, Instant};

use super::activity::{Activity, Stage};
use super::connection::Limits;
use super::outgoing::{Outgoing, Taken};

/// What is to become of a connection whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has nothing to do: it shall finish.
    Finish,
    /// It is in the middle of something, and is cut.
    Cut,
}

/// Looks out for what takes too long on a connection of HTTP/1.
#[derive(Debug)]
pub(super) struct Lookout {
    seen: (Stage, u64),
    since: Instant,
    /// What was sent before is taken so slowly that nothing else is asked of the client meanwhile.
    is_behind: bool,
    armed: Option<(Instant, Alarm)>,
}

impl Lookout {
    pub(super) fn new(activity: &Activity) -> Self {
        Self {
            seen: activity.stage(),
            since: Instant::now(),
            is_behind: false,
            armed: None,
        }
    }

    /// Says what is to become of the connection, once something has taken too long.
    pub(super) fn poll(
        &mut self,
        activity: &Activity,
        outgoing: &RefCell<Outgoing>,
        limits: &Limits,
        cx: &mut Context<'_>,
    ) -> Poll<Verdict> {
        let now = activity.stage();
        if now != self.seen {
            self.seen = now;
            self.since = Instant::now();
            self.is_behind = false;
        }
        let (due, verdict) = match now.0 {
            Stage::Idle => (self.since + limits.idle_timeout, Verdict::Finish),
            Stage::Head => (self.since + limits.head_timeout, Verdict::Cut),
            // Its scope is cancelled by then, and its end is waited for.
            Stage::Handling => {
                activity.tell_of_read(cx.waker());
                return Poll::Pending;
            }
            Stage::Answering => match activity.expiry() {
                Some(expiry) if !expiry.is_over() => (expiry.at, Verdict::Cut),
                _ => return Poll::Pending,
            },
        };
        if self.is_before(due, cx) {
            return Poll::Pending;
        }
        if matches!(self.seen.0, Stage::Answering) {
            return Poll::Ready(verdict);
        }
        // Looked at only here: mostly all of it was taken long ago.
        match outgoing.borrow_mut().poll_taken(cx) {
            Poll::Pending => {
                self.is_behind = true;
                return Poll::Pending;
            }
            Poll::Ready(Taken::Nothing) => return Poll::Ready(Verdict::Cut),
            Poll::Ready(Taken::All) if !self.is_behind => return Poll::Ready(verdict),
            Poll::Ready(Taken::All) => {}
        }
        self.is_behind = false;
        self.since = Instant::now();
        self.poll(activity, outgoing, limits, cx)
    }

    /// Returns whether `due` lies ahead, and has the connection polled by then.
    fn is_before(&mut self, due: Instant, cx: &mut Context<'_>) -> bool {
        let now = Instant::recent();
        if now >= due {
            return false;
        }
        // It comes before that is due, and then looks again.
        if matches!(self.armed, Some((at, _)) if now < at && at <= due) {
            return true;
        }
        let mut alarm = Alarm::at(due);
        // It may have come since the core looked at the clock.
        let is_before = Pin::new(&mut alarm).poll(cx).is_pending();
        self.armed = is_before.then_some((due, alarm));
        is_before
    }
}

/// When a request has to have been answered to the end.
#[derive(Debug)]
pub(super) struct Expiry {
    pub(super) at: Instant,
    /// The handler has made an answer.
    answered: Cell<bool>,
    /// It makes no difference any more: the client was told that it took too long.
    over: Cell<bool>,
}

impl Expiry {
    /// Of a request whose head was just read.
    pub(super) fn of(limits: &Limits) -> Option<Rc<Self>> {
        let timeout = limits.request_timeout?;
        Some(Rc::new(Self {
            // Not the turn's time: a neighbour that was long at work takes none of it.
            at: Instant::now() + timeout,
            answered: Cell::new(false),
            over: Cell::new(false),
        }))
    }

    /// Notes that there is an answer, which has to be sent in time.
    pub(super) fn note_answer(&self) {
        self.answered.set(true);
    }

    /// Notes that the client is told that it was late.
    pub(super) fn note_over(&self) {
        self.over.set(true);
    }

    fn is_over(&self) -> bool {
        self.over.get()
    }
}

/// What gives a request of HTTP/2 up where an answer is not sent in time. While there is none the handler is
/// cancelled by its own scope.
#[derive(Debug)]
pub(super) struct Bound {
    expiry: Rc<Expiry>,
    alarm: Alarm,
    rung: bool,
}

impl Bound {
    pub(super) fn new(expiry: Rc<Expiry>) -> Self {
        Self {
            alarm: Alarm::at(expiry.at),
            expiry,
            rung: false,
        }
    }

    /// Ready if the request is to be given up now. Looked at whenever the request got on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.rung = self.rung || Pin::new(&mut self.alarm).poll(cx).is_ready();
        match self.rung && self.expiry.answered.get() && !self.expiry.is_over() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}
