//! What a connection has to send: gathered, and sent in one go.
//!
//! ```text
//!   gathered ──flush, or the end of the connection's poll──► sending ──► (done)
//! ```
//!
//! A server polls a connection and then [ends its turn](Outgoing::end_turn): the answers to requests that
//! came together go out together, however often hyper flushes.
//!
//! Invariants:
//! - At most one send is on its way, so bytes keep their order.
//! - What a send has failed to take because it was cancelled is gathered again, in its place.
//! - Behind a send that has failed otherwise nothing goes out, whatever hyper still says: the peer would
//!   take the next answer for the one that was lost.
//! - While none is, what was flushed goes out before the connection's poll is over; while one is, its end
//!   wakes the connection if anything was gathered behind it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quoit::CarriesCancelled;
use quoit::op::{PendingSend, Stream};

use super::activity::Activity;
use super::stall::Stall;

/// A send of so many bytes is not waited for: it ends by itself, and keeps little memory until
/// somebody looks.
const SMALL: usize = 4096;

/// The bytes on their way out of a stream.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: Rc<Stream>,
    activity: Rc<Activity>,
    /// What goes out next.
    pub(super) gathered: Vec<u8>,
    sending: Option<PendingSend>,
    /// How many bytes `sending` is about.
    sending_bytes: usize,
    /// The error of a send, until the next call takes it.
    failed: Option<io::Error>,
    /// A send has failed, so the peer misses something: nothing goes out behind it.
    is_broken: bool,
    stall: Stall,
    /// Somebody ends the turns of the connection: a flush may wait for that.
    has_turns: bool,
}

/// What the peer has taken of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    All,
    /// Nothing, for the stall timeout.
    Nothing,
}

impl Outgoing {
    pub(super) fn new(stream: Rc<Stream>, activity: Rc<Activity>, stall: Duration) -> Self {
        Self {
            stream,
            activity,
            gathered: Vec::new(),
            sending: None,
            sending_bytes: 0,
            failed: None,
            is_broken: false,
            stall: Stall::new(stall),
            has_turns: false,
        }
    }

    /// How long the peer may take nothing.
    pub(super) fn set_stall_timeout(&mut self, stall: Duration) {
        self.stall = Stall::new(stall);
    }

    /// From now on somebody ends the turns.
    pub(super) fn expect_turns(&mut self) {
        self.has_turns = true;
    }

    /// How many bytes are on their way.
    pub(super) fn sending_bytes(&self) -> usize {
        match self.sending {
            Some(_) => self.sending_bytes,
            None => 0,
        }
    }

    /// Looks, before anything is gathered, whether the last send has ended: its memory serves again.
    pub(super) fn make_ready(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.gathered.is_empty() && self.sending.is_some() {
            let _ = self.poll_send(cx);
        }
        self.check()
    }

    /// Returns the error of a send that has failed, once.
    pub(super) fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Sees to it that what was gathered goes out: ready when no earlier send is on its way.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() {
            return Poll::Ready(self.look_at_send(cx));
        }
        ready!(self.poll_sent(cx))?;
        if self.has_turns {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.begin_send(cx))
    }

    /// The connection has been polled: what was gathered goes out, if nothing is on its way. Returns false if
    /// that has failed just now, of which the next call tells.
    pub(super) fn end_turn(&mut self, cx: &mut Context<'_>) -> bool {
        self.note_end_of_turn();
        let begun = self.begin_next(cx);
        // A small send on its way ends by itself.
        let is_stuck = self.sending_bytes() > SMALL || !self.gathered.is_empty();
        self.activity.note_unsent(is_stuck);
        match begun {
            Ok(()) => true,
            Err(error) => {
                self.failed = Some(error);
                false
            }
        }
    }

    /// Notes that the connection has been polled, without sending anything.
    pub(super) fn note_end_of_turn(&self) {
        self.activity.note_end_of_turn();
    }

    /// Sends what was gathered, if nothing is on its way.
    pub(super) fn begin_next(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.sending {
            None => self.begin_send(cx),
            Some(_) => Ok(()),
        }
    }

    /// Collects the outcome of a send, if it has ended, and any error that waits to be told.
    fn look_at_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.sending.is_some() && self.poll_send(cx).is_pending() {
            // Nobody waits for it now.
            if let Some(sending) = &mut self.sending {
                sending.mute(self.sending_bytes);
            }
        }
        self.check()
    }

    /// Waits until no send is on its way.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sending.is_some() && self.poll_send(cx).is_pending() {
            // A send may take long and yet get on: a peer that takes something is not given up.
            let stream = &self.stream;
            ready!(self.stall.poll(|| taken(stream), cx));
            self.sending = None;
            // It is not tried again.
            self.gathered = Vec::new();
            self.is_broken = true;
            let what = "the peer took nothing of what was sent for too long";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)));
        }
        Poll::Ready(self.check())
    }

    /// Waits until all that was gathered has been sent. Where a send has failed it never is, whoever has
    /// heard of that before.
    pub(super) fn poll_all_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_sent(cx))?;
            if self.is_broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if self.gathered.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.begin_send(cx)?;
        }
    }

    /// Sends all that was gathered, also what a scope has cancelled that is over by now.
    pub(super) fn poll_all_sent_after_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match ready!(self.poll_all_sent(cx)) {
                Err(error) if error.cancelled().is_some() && !quoit::is_cancelled() => {}
                ended => return Poll::Ready(ended),
            }
        }
    }

    /// Waits until all that was flushed was taken, or nothing of it for as long as the peer may take nothing. That a send
    /// has failed the next call tells.
    pub(super) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Taken> {
        if self.sending.is_some() && self.poll_send(cx).is_pending() {
            let stream = &self.stream;
            ready!(self.stall.poll(|| taken(stream), cx));
            return Poll::Ready(Taken::Nothing);
        }
        if self.gathered.is_empty() && self.failed.is_none() {
            return Poll::Ready(Taken::All);
        }
        // It goes out in the connection's next turn, or is told there.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(());
        };
        let (result, buf) = ready!(Pin::new(sending).poll(cx));
        self.sending = None;
        self.stall.note_sent();
        if matches!(result, Ok(1..)) {
            self.activity.note_sent(self.sending_bytes <= SMALL);
        }
        match result {
            // The kernel stopped half-way, as for a signal: the rest goes first.
            Ok(count) if count < self.sending_bytes && count > 0 => {
                let mut rest = buf;
                rest.drain(..count);
                rest.extend_from_slice(&self.gathered);
                self.gathered = rest;
                match self.begin_send(cx) {
                    Ok(()) => return self.poll_send(cx),
                    Err(error) => self.failed = Some(error),
                }
            }
            Ok(0) => {
                self.failed = Some(io::ErrorKind::WriteZero.into());
                self.is_broken = true;
            }
            Ok(_) => {
                if self.gathered.capacity() == 0 && buf.capacity() <= SMALL {
                    // Gather the next into the same memory.
                    self.gathered = buf;
                    self.gathered.clear();
                }
            }
            Err(error) => {
                if error.cancelled().is_some() {
                    // Nothing of it went out: it comes first, if anybody goes on outside of that scope.
                    let mut unsent = buf;
                    unsent.append(&mut self.gathered);
                    self.gathered = unsent;
                } else {
                    self.is_broken = true;
                }
                self.failed = Some(error);
            }
        }
        Poll::Ready(())
    }

    /// Hands what was gathered to the kernel. No send is on its way.
    pub(super) fn begin_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        if self.is_broken {
            self.gathered = Vec::new();
            return self.check();
        }
        // Whoever has an answer finds it in the figures.
        self.activity.measure();
        let buf = std::mem::take(&mut self.gathered);
        let is_small = buf.len() <= SMALL;
        if is_small {
            // Its end is seen at the next look, which may be at the end of a timeout.
            self.activity.note_leaving();
        }
        self.sending_bytes = buf.len();
        self.sending = Some(self.stream.start_send(buf));
        let has_ended = self.poll_send(cx).is_ready();
        if !is_small {
            if has_ended {
                // Who waits for the end of a large one is told of it, as the kernel would.
                cx.waker().wake_by_ref();
            }
        } else if let Some(sending) = &mut self.sending {
            sending.mute(self.sending_bytes);
        }
        self.check()
    }
}

/// Returns what changes as the peer takes something. A Unix stream acknowledges nothing, but while a send
/// waits it only gets emptier: what is gathered fits into its buffer as soon as the kernel says that there
/// is room.
fn taken(stream: &Stream) -> Option<u64> {
    let acknowledged = stream.bytes_acknowledged();
    acknowledged.or_else(|_| stream.bytes_untaken()).ok()
}
