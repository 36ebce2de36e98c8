//! Sends all of a buffer, however often the kernel stops half-way.
//!
//! ```text
//!   new ──► (in line) ──turn──► sending ──all of it went out, or it failed──► ended
//!                                ▲   │ some of it did
//!                                └───┘
//! ```
//!
//! One future from end to end, and not futures within futures: what is sent is moved once, into the slot, and
//! once out of it.

use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::fd::{Closed, SharedFd};
use super::ops::Send;
use super::payload::Outcome;
use super::turn::{SendTurn, Take};
use super::{Started, start};
use crate::buf::{BufResult, Interrupted, IoBuf};
use crate::core_state::Core;
use crate::scope::park::{self, Entry};
use crate::task::current;

/// A buffer on its way out of a socket, as a whole.
#[must_use = "a send does nothing unless it is awaited"]
pub(crate) struct SendAll<'a, B: IoBuf> {
    fd: &'a SharedFd,
    stage: Stage<'a, B>,
}

enum Stage<'a, B> {
    New(B),
    /// In a box: few wait, and those who do not need no room for it.
    InLine(B, Box<Take<'a>>),
    /// It is our turn, and so many bytes went out before.
    Between(B, usize, SendTurn),
    /// The kernel has what lies behind so many bytes.
    Sending(Started, usize),
    Ended,
}

impl<'a, B: IoBuf> SendAll<'a, B> {
    #[inline]
    pub(crate) fn new(fd: &'a SharedFd, buf: B) -> Self {
        let stage = Stage::New(buf);
        Self { fd, stage }
    }

    /// Looks at the scope, and takes a turn if there is one.
    #[inline]
    fn poll_new(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<BufResult<(), B>> {
        let Stage::New(buf) = &self.stage else {
            unreachable!("looked at by the caller");
        };
        if buf.len() == 0 {
            return Poll::Ready((crate::op::checked(), self.take_unsent()));
        }
        if let Err(cancelled) = ready!(park::entry(core, cx.waker())) {
            return Poll::Ready((Err(cancelled.into()), self.take_unsent()));
        }
        let turn = SendTurn::try_take(self.fd);
        let buf = self.take_unsent();
        match turn {
            Some(turn) => self.begin(core, cx, buf, 0, turn),
            None => {
                self.stage = Stage::InLine(buf, Box::new(SendTurn::take(self.fd)));
                self.poll_in_line(core, cx)
            }
        }
    }

    #[inline(always)]
    fn take_unsent(&mut self) -> B {
        match mem::replace(&mut self.stage, Stage::Ended) {
            Stage::New(buf) | Stage::InLine(buf, _) => buf,
            Stage::Between(..) | Stage::Sending(..) | Stage::Ended => {
                unreachable!("nothing has begun")
            }
        }
    }

    #[cold]
    fn poll_in_line(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<BufResult<(), B>> {
        let Stage::InLine(_, take) = &mut self.stage else {
            unreachable!("looked at by the caller");
        };
        let taken = ready!(Pin::new(take).poll(cx));
        let buf = self.take_unsent();
        match taken {
            Ok(turn) => {
                self.stage = Stage::Between(buf, 0, turn);
                self.poll_between(core, cx)
            }
            Err(cancelled) => Poll::Ready((Err(cancelled.into()), buf)),
        }
    }

    /// Looks at the scope again, which may have been cancelled while others or the kernel had the turn.
    #[cold]
    fn poll_between(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<BufResult<(), B>> {
        let verdict = ready!(park::entry(core, cx.waker()));
        let Stage::Between(buf, sent, turn) = mem::replace(&mut self.stage, Stage::Ended) else {
            unreachable!("looked at by the caller");
        };
        match verdict {
            Ok(()) => self.begin(core, cx, buf, sent, turn),
            Err(cancelled) => Poll::Ready((Err(Interrupted::after(sent, cancelled.into())), buf)),
        }
    }

    /// Starts to send what lies behind the first `sent` bytes.
    #[inline(always)]
    fn begin(
        &mut self,
        core: &Core,
        cx: &Context<'_>,
        buf: B,
        sent: usize,
        turn: SendTurn,
    ) -> Poll<BufResult<(), B>> {
        if self.fd.is_closed() {
            return Poll::Ready((Err(Interrupted::after(sent, Closed.into())), buf));
        }
        let send = Send::all_behind(buf, sent, turn);
        let started = start(core, cx, send, Some(self.fd.clone()), Entry::Checked);
        // Of what was here nothing is left: it need not be asked whether to drop any.
        let before = mem::replace(&mut self.stage, Stage::Sending(started, sent));
        debug_assert!(matches!(before, Stage::Ended));
        mem::forget(before);
        Poll::Pending
    }

    /// Looks whether the kernel is done.
    #[inline]
    fn poll_sending(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<BufResult<(), B>> {
        let Stage::Sending(started, sent) = &mut self.stage else {
            unreachable!("looked at by the caller");
        };
        let Some((result, asked)) = started.look::<Send<B>>(core, cx) else {
            return Poll::Pending;
        };
        let sent = *sent;
        let collected = core.ops.borrow_mut().collect::<Send<B>>(started.id);
        let outcome = started.end::<Send<B>>(core, result, asked);
        // Of what has ended nothing is left: it need not be asked whether to drop any.
        mem::forget(mem::replace(&mut self.stage, Stage::Ended));
        let Send { buf, turn, .. } = collected.operation;
        let count = match outcome {
            Ok(Outcome::Done(0)) => {
                let end = io::ErrorKind::WriteZero.into();
                return Poll::Ready((Err(Interrupted::after(sent, end)), buf));
            }
            Ok(Outcome::Done(count)) => count as usize,
            Ok(Outcome::Failed(error)) => {
                return Poll::Ready((Err(Interrupted::after(sent, error)), buf));
            }
            // It was interrupted, and goes on.
            Err(_) => 0,
        };
        if sent + count >= buf.len() {
            return Poll::Ready((Ok(()), buf));
        }
        // The kernel goes on after a short send by itself; it stops only for an error, a signal, or a cancel.
        self.stage = Stage::Between(buf, sent + count, turn);
        self.poll_between(core, cx)
    }
}

// The buffer moves into the slot before anything points into it.
impl<B: IoBuf> Unpin for SendAll<'_, B> {}

impl<B: IoBuf> Drop for SendAll<'_, B> {
    #[inline]
    fn drop(&mut self) {
        if let Stage::Sending(started, _) = &self.stage {
            started.give_up();
        }
    }
}

impl<B: IoBuf> Future for SendAll<'_, B> {
    type Output = BufResult<(), B>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        current::with(|core| match self.stage {
            Stage::New(_) => self.poll_new(core, cx),
            Stage::Sending(..) => self.poll_sending(core, cx),
            Stage::InLine(..) => self.poll_in_line(core, cx),
            Stage::Between(..) => self.poll_between(core, cx),
            Stage::Ended => panic!("a send was polled after it had ended"),
        })
    }
}
