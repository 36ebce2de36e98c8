//! What a connection is doing, as seen from outside while hyper has it.
//!
//! hyper knows when a head takes too long in HTTP/1, and no more. Whether a request has begun to
//! arrive, whether an answer is stuck, and whether anything happens at all, is counted here.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::BoxError;

/// The counts of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Grows with every transfer.
    transfers: Cell<u64>,
    /// Grows with every transfer towards us.
    received: Cell<u64>,
    /// `received` when the last request had come to its end, as far as can be seen from here: a head
    /// when its handler begins, a body when its answer has been sent.
    at_last_end: Cell<u64>,
    /// Handlers that work.
    handlers: Cell<u32>,
    /// Answers whose bodies hyper still has.
    bodies: Cell<u32>,
    /// Pieces of answers that hyper took.
    answered: Cell<u64>,
    /// The client was turned away for what it sent.
    flooded: Cell<bool>,
    /// The request line of the next request, as far as it came.
    line: Cell<Line>,
}

/// A request line that comes in.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// There is a request that was not answered to its end.
    Asked,
    /// So many bytes came, and no line end.
    Coming(usize),
    /// It was so long.
    Ended(usize),
}

impl Default for Line {
    fn default() -> Self {
        Self::Coming(0)
    }
}

impl Activity {
    /// Notes that something was received. Line ends alone begin no request (RFC 9112, section 2.2).
    pub(super) fn note_received(&self, bytes: &[u8]) {
        if bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.received.set(self.received.get() + 1);
        }
        self.transfers.set(self.transfers.get() + 1);
    }

    /// Notes what is handed to hyper, for the length of the request line that may be in it.
    pub(super) fn note_line(&self, bytes: &[u8]) {
        if let Line::Coming(before) = self.line.get() {
            // Line ends before it are none of its own.
            let skipped = bytes
                .iter()
                .take_while(|&&byte| before == 0 && matches!(byte, b'\r' | b'\n'));
            let bytes = &bytes[skipped.count()..];
            self.line
                .set(match bytes.iter().position(|&byte| byte == b'\n') {
                    None => Line::Coming(before + bytes.len()),
                    Some(end) => Line::Ended(before + end),
                });
        }
    }

    /// Notes that hyper has handed over all that it had to say. If nobody is to be answered, what it says
    /// next, before it asks for an answer, is its own.
    pub(super) fn note_flushed(&self) {
        if self.handlers.get() == 0
            && !self.is_answering()
            && matches!(self.line.get(), Line::Asked)
        {
            self.line.set(Line::default());
        }
    }

    /// Returns how long the request line is that hyper answers on its own, as far as it came; `None` if it
    /// is an answer of ours that it sends. Several requests sent at once may hide the beginning of the line.
    pub(super) fn unasked_line(&self) -> Option<usize> {
        match self.line.get() {
            Line::Asked => None,
            Line::Coming(length) | Line::Ended(length) => Some(length),
        }
    }

    fn note_end_of_request(&self) {
        self.at_last_end.set(self.received.get());
    }

    /// Notes that something was sent.
    pub(super) fn note_sent(&self) {
        self.transfers.set(self.transfers.get() + 1);
    }

    /// Returns how many pieces of answers hyper took.
    pub(super) fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// Notes that the client sends too much that asks for nothing.
    pub(super) fn note_flood(&self) {
        self.flooded.set(true);
    }

    /// Returns whether that was noted.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    /// Returns what changes as long as the connection gets on: while answers are under way, only
    /// that more of them was taken, since a ping is no progress of theirs; else any transfer.
    pub(super) fn progress(&self) -> (bool, u64) {
        let answering = self.is_answering();
        (
            answering,
            if answering {
                self.answered.get()
            } else {
                self.transfers.get()
            },
        )
    }

    /// Returns whether something came in after the last request: the head of another.
    pub(super) fn has_begun(&self) -> bool {
        self.handlers.get() > 0 || self.received.get() > self.at_last_end.get()
    }

    /// Returns whether a handler works.
    pub(super) fn is_handling(&self) -> bool {
        self.handlers.get() > 0
    }

    /// Returns whether hyper still has the body of an answer.
    pub(super) fn is_answering(&self) -> bool {
        self.bodies.get() > 0
    }

    /// Counts a handler for as long as the guard lives.
    pub(super) fn handling(self: &Rc<Self>, asked: Asked) -> Handling {
        self.handlers.set(self.handlers.get() + 1);
        self.line.set(Line::Asked);
        if asked == Asked::Head {
            self.note_end_of_request();
        }
        Handling(Rc::clone(self))
    }
}

/// A handler works.
#[derive(Debug)]
pub(super) struct Handling(Rc<Activity>);

impl Drop for Handling {
    fn drop(&mut self) {
        self.0.handlers.set(self.0.handlers.get() - 1);
    }
}

/// What a request consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A head alone: whatever comes after it is another request.
    Head,
    /// A head and a body, which may come after the answer was made.
    HeadAndBody,
}

/// Hyper has the body of an answer.
#[derive(Debug)]
struct Answering {
    activity: Rc<Activity>,
    asked: Asked,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let activity = &self.activity;
        activity.bodies.set(activity.bodies.get() - 1);
        activity.answered.set(activity.answered.get() + 1);
        if self.asked == Asked::HeadAndBody {
            // What came meanwhile was the rest of it, and begins nothing.
            activity.note_end_of_request();
        }
    }
}

pin_project! {
    /// A body that is counted for as long as hyper has it; `None` is an empty one. A panic in it is an
    /// error of its answer, and of nothing else.
    #[derive(Debug)]
    pub(super) struct Counted<B> {
        #[pin]
        body: Option<B>,
        answering: Answering,
    }
}

impl<B> Counted<B> {
    pub(super) fn new(body: Option<B>, activity: &Rc<Activity>, asked: Asked) -> Self {
        activity.bodies.set(activity.bodies.get() + 1);
        let activity = Rc::clone(activity);
        Self {
            body,
            answering: Answering { activity, asked },
        }
    }
}

impl<B: Body<Error: Into<BoxError>>> Body for Counted<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let polled = catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx)));
        let frame = match polled {
            Ok(polled) => ready!(polled).map(|frame| frame.map_err(Into::into)),
            Err(payload) => {
                drop(payload);
                Some(Err("the body of the answer panicked".into()))
            }
        };
        let answered = &this.answering.activity.answered;
        answered.set(answered.get() + 1);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let empty = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(empty, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_as_long_as_it_is_in_whatever_pieces() {
        let line = b"\r\n\r\nGET / HTTP/1.1\r\nhost: test\r\n";
        for size in 1..line.len() {
            let activity = Activity::default();
            for piece in line.chunks(size) {
                activity.note_line(piece);
            }
            assert_eq!(activity.unasked_line(), Some(15), "pieces of {size}");
        }
    }

    #[test]
    fn what_is_said_after_an_answer_is_an_answer_to_nobody() {
        let activity = Rc::new(Activity::default());
        activity.note_line(b"GET / HTTP/1.1\r\n");
        let handling = activity.handling(Asked::Head);
        assert_eq!(activity.unasked_line(), None);
        activity.note_flushed();
        assert_eq!(activity.unasked_line(), None, "a handler works");
        let answer = Counted::<String>::new(None, &activity, Asked::Head);
        drop(handling);
        activity.note_flushed();
        assert_eq!(activity.unasked_line(), None, "hyper has the answer");
        drop(answer);
        assert_eq!(activity.unasked_line(), None, "it has not handed over all");
        activity.note_flushed();
        assert_eq!(activity.unasked_line(), Some(0));
    }
}
