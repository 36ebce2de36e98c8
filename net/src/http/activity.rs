//! What a connection is doing, as seen from outside while hyper has it.
//!
//! hyper knows when a head takes too long in HTTP/1, and no more. Whether a request has begun to
//! arrive, whether an answer is stuck, and whether anything happens at all, is counted here.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use memchr::memchr;
use quoit::time::Instant;

use super::BoxError;
use super::connection::is_clients_doing;
use super::figures::Figures;
use super::lookout::Expiry;
use super::trouble::{Listener, Trouble};
use crate::Address;

/// The counts of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Grows with every transfer.
    transfers: Cell<u64>,
    last_transfer: Cell<Option<Instant>>,
    /// Grows with every transfer towards us.
    received: Cell<u64>,
    /// `received` when the last request had come to its end, as far as can be seen from here: a head
    /// when its handler begins, a body when its answer has been sent.
    at_last_end: Cell<u64>,
    /// Handlers that work.
    handlers: Cell<u32>,
    /// Answers whose bodies hyper still has.
    bodies: Cell<u32>,
    /// Of these, bodies that hyper waits for: what comes next is not made yet.
    awaited: Cell<u32>,
    /// Pieces of answers that hyper took.
    answered: Cell<u64>,
    /// Of these, pieces that hyper has yet to write, in HTTP/2: they wait for the client's windows.
    unwritten: Cell<u32>,
    /// Grows with every part of such a piece that is written.
    written: Cell<u64>,
    /// Bodies of requests that somebody has: a handler, or whom it has left it to.
    reading: Cell<u32>,
    /// Of these, bodies of which there is more to come.
    unread: Cell<u32>,
    /// Who is told when nobody has such a body any more, of which hyper may not hear.
    reader: RefCell<Option<Waker>>,
    /// Tells requests that follow each other apart; and whether of the last there may be something left to be read.
    asked: Cell<u32>,
    is_body_left: Cell<bool>,
    /// How much of an answer hyper got whose request has not come to its end, since all that it got before was on its
    /// way; and who is told when this is.
    ahead: Cell<usize>,
    on_its_way: RefCell<Option<Waker>>,
    /// Nobody has that body any more, of which hyper may read the rest as it is polled next.
    is_rest_due: Cell<bool>,
    /// Grows with every request and every answer.
    steps: Cell<u64>,
    /// When the request that is open has to have been answered, in HTTP/1.
    expiry: RefCell<Option<Rc<Expiry>>>,
    /// It is HTTP/2, in which what is received need not ask for anything.
    has_streams: Cell<bool>,
    /// Something that was gathered waits for the client to take what came before.
    is_unsent: Cell<bool>,
    /// It went on as something else, of which nothing is seen here.
    is_upgraded: Cell<bool>,
    /// Since when a frame or a field block of HTTP/2 has been coming that is not whole.
    frame_begun: Cell<Option<Instant>>,
    /// The client has closed its side.
    has_left: Cell<bool>,
    /// The client was turned away for what it sent.
    flooded: Cell<bool>,
    /// In this turn of the connection nothing more can be received.
    drained: Cell<bool>,
    /// Whether hyper is to begin anew, in HTTP/1.
    renewal: Cell<Renewal>,
    /// The request line of the next request, as far as it came.
    line: Cell<Line>,
    /// When the connection was accepted, as long as nothing was sent.
    unsent: Cell<Option<Instant>>,
    /// When requests began that are not measured yet, and how many: hyper took their answers in this turn.
    unmeasured: Cell<Option<(Instant, u64)>>,
    figures: OnceCell<Rc<Figures>>,
    /// Who is told of bodies of answers that fail, and whose requests they were for: in HTTP/2, where that ends no
    /// connection.
    listener: OnceCell<Box<(Listener, Address)>>,
}

/// What a connection of HTTP/1 is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was asked.
    Idle,
    /// A head has begun to come.
    Head,
    /// A handler works.
    Handling,
    /// An answer is sent.
    Answering,
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

/// How far hyper is from beginning anew, as one that does not copy what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Renewal {
    /// Not wanted: it copies nothing, or only what is small.
    #[default]
    None,
    /// It copies: wanted as soon as something large is sent.
    Copies,
    /// Something large was sent: wanted at rest.
    Wanted,
    /// All has been handed over, and nothing was asked or said since.
    AtRest,
    /// hyper is polled once more, or was, with nothing asked or said. Where it ends a connection behind its answer it
    /// has shut it down by then: in the same poll, unless it gave way there to others.
    Settled,
    /// It has begun anew, and nothing was asked since.
    Begun,
}

impl Activity {
    /// Notes that something was received. Line ends alone begin no request (RFC 9112, section 2.2).
    pub(super) fn note_received(&self, bytes: &[u8]) {
        if bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.received.set(self.received.get() + 1);
        }
        self.note_transfer();
    }

    fn note_transfer(&self) {
        self.transfers.set(self.transfers.get() + 1);
        self.note_leaving();
    }

    /// Notes that something goes out of which nobody may hear for long that it has.
    pub(super) fn note_leaving(&self) {
        self.last_transfer.set(Some(Instant::recent()));
    }

    /// Returns when something was received or sent last.
    pub(super) fn last_transfer(&self) -> Option<Instant> {
        self.last_transfer.get()
    }

    /// Notes what is handed to hyper, for the length of the request line that may be in it.
    pub(super) fn note_line(&self, bytes: &[u8]) {
        if let Line::Coming(before) = self.line.get() {
            // Line ends before it are none of its own.
            let skipped = bytes
                .iter()
                .take_while(|&&byte| before == 0 && matches!(byte, b'\r' | b'\n'));
            let bytes = &bytes[skipped.count()..];
            self.line.set(match memchr(b'\n', bytes) {
                None => Line::Coming(before + bytes.len()),
                Some(end) => Line::Ended(before + end),
            });
        }
    }

    /// Notes that hyper has handed over all that it had to say. If nobody is to be answered, what it says
    /// next, before it asks for an answer, is its own.
    pub(super) fn note_flushed(&self) {
        if self.handlers.get() == 0
            && self.bodies.get() == 0
            && matches!(self.line.get(), Line::Asked)
        {
            self.line.set(Line::default());
        }
    }

    /// Notes that what hyper has handed over goes out by itself. If nobody is to be answered, and nobody is left who
    /// has something of a request to read, hyper has nothing that it would lose: a body that nobody has it reads to its
    /// end as it is polled next, or it ends the connection.
    #[inline]
    pub(super) fn note_way_out(&self) {
        if self.renewal.get() == Renewal::Wanted
            && self.handlers.get() == 0
            && self.bodies.get() == 0
            && (self.reading.get() == 0 || !self.is_body_left.get())
        {
            self.renewal.set(Renewal::AtRest);
        }
        if self.ahead.get() > 0 {
            self.ahead.set(0);
            if let Some(waker) = self.on_its_way.take() {
                waker.wake();
            }
        }
    }

    /// Returns whether an answer goes out before its request has come to its end, in HTTP/1. As soon as it has, hyper
    /// goes on to the next request, and says at once what is its own to say about that: to go on, or that it is none.
    /// It would say so in front of what it has yet to hand over of the answer.
    #[inline]
    pub(super) fn is_ahead(&self) -> bool {
        self.is_body_left.get() && !self.has_streams.get()
    }

    /// Notes that hyper got so much of an answer.
    #[inline]
    pub(super) fn note_handed(&self, length: usize) {
        if self.is_ahead() {
            self.ahead.set(self.ahead.get() + length);
        }
    }

    /// Returns whether hyper has so much of an answer that is ahead of its request, and is to hand that over before it
    /// gets more. Then it is told.
    pub(super) fn is_far_ahead(&self, much: usize, cx: &mut Context<'_>) -> bool {
        let is_far = self.is_ahead() && self.ahead.get() >= much;
        if is_far {
            let before = self.on_its_way.replace(Some(cx.waker().clone()));
            drop(before);
        }
        is_far
    }

    /// Notes that hyper copies what it sends.
    pub(super) fn note_copies(&self) {
        self.renewal.set(Renewal::Copies);
    }

    /// Returns whether hyper copies what it sends.
    #[inline]
    pub(super) fn is_copying(&self) -> bool {
        !matches!(self.renewal.get(), Renewal::None | Renewal::Begun)
    }

    /// Notes that something large is sent.
    pub(super) fn note_bulk(&self) {
        self.figures().bulk.note();
        if self.renewal.get() == Renewal::Copies {
            self.renewal.set(Renewal::Wanted);
        }
    }

    /// Notes that hyper has much to say at a time, in one piece, which it has copied if it copies.
    pub(super) fn note_copied_much(&self) {
        if self.renewal.get() == Renewal::Copies {
            self.note_bulk();
        }
    }

    /// Notes that hyper says something.
    #[inline]
    pub(super) fn note_words(&self) {
        if matches!(self.renewal.get(), Renewal::AtRest | Renewal::Settled) {
            self.renewal.set(Renewal::Wanted);
        }
    }

    /// Notes that hyper ends the connection, now or once what it has said is out.
    pub(super) fn note_last_words(&self) {
        self.renewal.set(Renewal::None);
    }

    /// Returns whether hyper is to be polled once more, before it can begin anew.
    #[inline]
    pub(super) fn is_to_settle(&self) -> bool {
        let is_at_rest = self.renewal.get() == Renewal::AtRest;
        if is_at_rest {
            self.renewal.set(Renewal::Settled);
        }
        is_at_rest
    }

    /// Returns whether hyper can begin anew: it has read nothing but whole requests and what comes behind them, said
    /// all that it had to say, and goes on.
    #[inline]
    pub(super) fn is_to_begin_anew(&self) -> bool {
        self.renewal.get() == Renewal::Settled && !self.has_left.get()
    }

    /// Notes that hyper begins anew, with what it has read and nobody has asked for.
    pub(super) fn note_beginning(&self) {
        self.renewal.set(Renewal::Begun);
        self.line.set(Line::default());
    }

    /// Returns whether hyper has begun anew, and is asked for nothing. It knows of no rest then: for it whatever it has
    /// read, line ends as well, is the beginning of the first request, which it waits for.
    pub(super) fn is_idle_anew(&self) -> bool {
        self.renewal.get() == Renewal::Begun && !self.has_begun()
    }

    /// Returns how long the request line is that hyper answers on its own, as far as it came; `None` if it
    /// is an answer of ours that it sends. Several requests sent at once may hide the beginning of the line.
    pub(super) fn unasked_line(&self) -> Option<usize> {
        match self.line.get() {
            Line::Asked => None,
            Line::Coming(length) | Line::Ended(length) => Some(length),
        }
    }

    /// Notes that hyper has refused on its own what was no request.
    pub(super) fn note_refusal(&self) {
        if let Some(figures) = self.figures.get() {
            figures.tally.refused.add_one();
        }
    }

    /// Notes that there was nothing more to receive, which stays so until the connection's turn ends.
    pub(super) fn note_drained(&self) {
        self.drained.set(true);
    }

    /// Returns whether that was noted in this turn.
    pub(super) fn is_drained(&self) -> bool {
        self.drained.get()
    }

    /// Returns whether what hyper reads in its next poll is the rest of a body that nobody wants, once.
    #[inline]
    pub(super) fn take_rest(&self) -> bool {
        self.is_rest_due.take()
    }

    /// Notes that what has come is the rest of a request, and begins none.
    pub(super) fn note_rest(&self) {
        self.note_end_of_request();
    }

    /// Notes that the connection was polled, and that others have their turns.
    pub(super) fn note_end_of_turn(&self) {
        self.drained.set(false);
        self.measure();
    }

    /// Notes that hyper took the whole answer to a request that began then.
    pub(super) fn note_whole(&self, begun: Instant) {
        let before = match self.unmeasured.get() {
            Some((since, count)) if since == begun => count,
            _ => {
                self.measure();
                0
            }
        };
        self.unmeasured.set(Some((begun, before + 1)));
    }

    /// Measures the requests whose answers go out now. One look at the clock: what came together goes out
    /// together.
    pub(super) fn measure(&self) {
        if let Some((begun, count)) = self.unmeasured.take()
            && let Some(figures) = self.figures.get()
        {
            figures.request.record_many(begun.elapsed(), count);
        }
    }

    /// Notes that it is HTTP/2.
    pub(super) fn note_streams(&self) {
        self.has_streams.set(true);
    }

    /// Notes whether something waits for the client to take what was sent before.
    pub(super) fn note_unsent(&self, is_unsent: bool) {
        self.is_unsent.set(is_unsent);
    }

    /// Returns whether that is so.
    pub(super) fn is_unsent(&self) -> bool {
        self.is_unsent.get()
    }

    /// Notes that the connection goes on as something else.
    pub(super) fn note_upgrade(&self) {
        self.is_upgraded.set(true);
    }

    /// Notes that all was said, and that the client was told so: what it still sends is thrown away.
    pub(super) fn note_goodbye(&self) {
        self.is_unsent.set(false);
        self.note_end_of_request();
    }

    /// Returns whether the client would miss something if the connection ended now: an answer, or the rest of
    /// one, to what it has asked or begun to ask.
    pub(super) fn is_owing(&self) -> bool {
        let is_asked = match self.has_streams.get() {
            true => self.handlers.get() > 0 || self.unread.get() > 0,
            false => self.has_begun(),
        };
        let is_unsent = self.unwritten.get() > 0 || self.is_unsent.get();
        is_asked || self.bodies.get() > 0 || is_unsent || self.is_upgraded.get()
    }

    fn note_end_of_request(&self) {
        self.at_last_end.set(self.received.get());
    }

    /// Notes that something was sent; some time ago, if it was `noted` when it went out.
    pub(super) fn note_sent(&self, noted: bool) {
        match noted {
            true => self.transfers.set(self.transfers.get() + 1),
            false => self.note_transfer(),
        }
        if let Some(accepted) = self.unsent.take()
            && let Some(figures) = self.figures.get()
        {
            figures.first_byte.record(accepted.elapsed());
        }
    }

    /// Returns how many pieces of answers hyper took.
    pub(super) fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// Notes since when a frame or a field block has been coming that is not whole.
    pub(super) fn note_frame(&self, begun: Option<Instant>) {
        self.frame_begun.set(begun);
    }

    /// Returns since when that is so.
    pub(super) fn frame_begun(&self) -> Option<Instant> {
        self.frame_begun.get()
    }

    /// Notes that the client has closed its side.
    pub(super) fn note_left(&self) {
        self.has_left.set(true);
    }

    /// Returns whether that was noted.
    pub(super) fn has_left(&self) -> bool {
        self.has_left.get()
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
                self.answered.get() + self.written.get()
            } else {
                self.transfers.get()
            },
        )
    }

    /// Returns whether something came in after the last request: the head of another.
    pub(super) fn has_begun(&self) -> bool {
        self.handlers.get() > 0 || self.received.get() > self.at_last_end.get()
    }

    /// Returns whether it is us who work: a handler at its answer, whoever reads a body, or all that make bodies at
    /// what comes next.
    pub(super) fn is_handling(&self) -> bool {
        let is_asked = self.handlers.get() > 0 || self.unread.get() > 0;
        is_asked || (self.awaited.get() > 0 && !self.is_answering())
    }

    /// Returns whether hyper still has an answer, of which there is more to be sent.
    pub(super) fn is_answering(&self) -> bool {
        self.bodies.get() > self.awaited.get() || self.unwritten.get() > 0
    }

    /// Returns where a connection of HTTP/1 stands, with a number that changes whenever it came there anew.
    pub(super) fn stage(&self) -> (Stage, u64) {
        let stage = if self.handlers.get() > 0 || (self.reading.get() > 0 && self.bodies.get() == 0)
        {
            Stage::Handling
        } else if self.bodies.get() > 0 {
            Stage::Answering
        } else if self.received.get() > self.at_last_end.get() {
            Stage::Head
        } else {
            Stage::Idle
        };
        (stage, self.steps.get())
    }

    /// Notes when the request that was just read has to have been answered.
    pub(super) fn expire(&self, expiry: Option<Rc<Expiry>>) {
        let before = self.expiry.replace(expiry);
        drop(before);
    }

    /// Returns when the request that is open has to have been answered.
    pub(super) fn expiry(&self) -> Option<Rc<Expiry>> {
        self.expiry.borrow().clone()
    }

    /// Counts a handler for as long as the guard lives.
    pub(super) fn handling(self: &Rc<Self>, asked: Asked) -> Handling {
        self.handlers.set(self.handlers.get() + 1);
        self.steps.set(self.steps.get() + 1);
        self.line.set(Line::Asked);
        self.asked.set(self.asked.get().wrapping_add(1));
        self.is_body_left.set(asked == Asked::HeadAndBody);
        match self.renewal.get() {
            Renewal::AtRest | Renewal::Settled => self.renewal.set(Renewal::Wanted),
            Renewal::Begun => self.renewal.set(Renewal::None),
            Renewal::None | Renewal::Copies | Renewal::Wanted => {}
        }
        if asked == Asked::Head {
            self.note_end_of_request();
        }
        Handling(Rc::clone(self))
    }

    /// Counts a body of a request for as long as somebody has it.
    pub(super) fn reading(self: &Rc<Self>) -> Reading {
        self.reading.set(self.reading.get() + 1);
        self.unread.set(self.unread.get() + 1);
        Reading {
            activity: Rc::clone(self),
            of: self.asked.get(),
            is_over: Cell::new(false),
        }
    }

    /// Lets this be woken once nobody has a body of a request any more.
    pub(super) fn tell_of_read(&self, waker: &Waker) {
        if self.reading.get() > 0 {
            let before = self.reader.replace(Some(waker.clone()));
            drop(before);
        }
    }

    /// Notes that hyper has the body of an answer. If nobody has the body of its request, hyper has read that to its end,
    /// or reads no more.
    pub(super) fn begin_answer(&self) {
        if self.reading.get() == 0 {
            self.is_body_left.set(false);
        }
        self.bodies.set(self.bodies.get() + 1);
    }

    /// Notes whether hyper waits for the body of an answer, which was otherwise before.
    pub(super) fn note_awaited(&self, is_awaited: bool) {
        let awaited = self.awaited.get();
        self.awaited.set(match is_awaited {
            true => awaited + 1,
            false => awaited - 1,
        });
    }

    /// Notes that hyper took a piece of an answer.
    pub(super) fn note_answered(&self) {
        self.answered.set(self.answered.get() + 1);
    }

    /// Counts a piece of an answer of HTTP/2 until it is written, or given up.
    pub(super) fn unwritten(self: &Rc<Self>) -> Unwritten {
        self.unwritten.set(self.unwritten.get() + 1);
        Unwritten(Rc::clone(self))
    }

    /// Notes that hyper is done with the body of an answer.
    pub(super) fn end_answer(&self, asked: Asked) {
        self.bodies.set(self.bodies.get() - 1);
        self.steps.set(self.steps.get() + 1);
        self.note_answered();
        if asked == Asked::HeadAndBody {
            // What came meanwhile was the rest of it, and begins nothing.
            self.note_end_of_request();
        }
    }

    /// Returns where what is to be measured is recorded.
    pub(super) fn figures(&self) -> &Figures {
        self.figures.get().expect("a server has the connection")
    }

    /// Lets this be told of bodies of answers that fail.
    pub(super) fn tell_failures_to(&self, listener: Listener, peer: Address) {
        let set = self.listener.set(Box::new((listener, peer)));
        debug_assert!(set.is_ok(), "a connection belongs to one server");
    }

    /// Tells of the body of an answer that failed, where the connection does not end with it.
    pub(super) fn tell_failure(&self, error: &BoxError) {
        if let Some(told) = self.listener.get()
            && !is_clients_doing(&**error)
        {
            let (listener, peer) = &**told;
            listener.tell(&Trouble::Request { peer, error });
        }
    }

    /// Lets what is to be measured be recorded there, the first byte that is sent from when the connection was
    /// accepted.
    pub(super) fn record_in(&self, figures: Rc<Figures>, accepted: Instant) {
        self.unsent.set(Some(accepted));
        let set = self.figures.set(figures);
        debug_assert!(set.is_ok(), "a connection belongs to one server");
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.measure();
    }
}

/// Somebody has the body of a request, which may go on after the answer.
#[derive(Debug)]
pub(super) struct Reading {
    activity: Rc<Activity>,
    /// Which request it is of.
    of: u32,
    /// No more of it comes.
    is_over: Cell<bool>,
}

impl Reading {
    /// Notes that hyper has read it to its end.
    pub(super) fn note_whole(&self) {
        self.note_over();
        if self.activity.asked.get() == self.of {
            self.activity.is_body_left.set(false);
        }
    }

    /// Notes that no more of it comes.
    pub(super) fn note_over(&self) {
        if !self.is_over.replace(true) {
            let unread = &self.activity.unread;
            unread.set(unread.get() - 1);
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let activity = &self.activity;
        activity.reading.set(activity.reading.get() - 1);
        self.note_over();
        activity.steps.set(activity.steps.get() + 1);
        // What came was the rest of it, and begins nothing.
        activity.note_end_of_request();
        // Before there is an answer hyper reads on before it sends that, whose end tells.
        if activity.handlers.get() == 0
            && activity.is_body_left.get()
            && activity.asked.get() == self.of
        {
            activity.is_rest_due.set(true);
        }
        if activity.reading.get() == 0
            && let Some(waker) = activity.reader.take()
        {
            waker.wake();
        }
    }
}

/// A piece of an answer is to be written.
#[derive(Debug)]
pub(super) struct Unwritten(Rc<Activity>);

impl Unwritten {
    /// Notes that a part of it was.
    pub(super) fn note_written(&self) {
        self.0.written.set(self.0.written.get() + 1);
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.0.unwritten.set(self.0.unwritten.get() - 1);
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
        activity.begin_answer();
        drop(handling);
        activity.note_flushed();
        assert_eq!(activity.unasked_line(), None, "hyper has the answer");
        activity.end_answer(Asked::Head);
        assert_eq!(activity.unasked_line(), None, "it has not handed over all");
        activity.note_flushed();
        assert_eq!(activity.unasked_line(), Some(0));
    }
}
