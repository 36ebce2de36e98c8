//! Sends all of a buffer, however often the kernel stops half-way.
//!
//! ```text
//!   new ──► (in line) ──turn──► sending ──all of it went out, or it failed──► ended
//!                         │      ▲   │ some of it did                           ▲
//!                         │      └───┘                                          │
//!                         └──it would be submitted alone, and went out at once──┘
//! ```
//!
//! Where nothing else is to be submitted or done, the ring saves no system call: what the socket takes at once is sent
//! without it (`MSG_DONTWAIT`, `send(2)`), and the task goes on.
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
    /// It is our turn, with what is left to send. In a box, since it is seldom waited here.
    Between(Box<Send<B>>),
    /// The kernel has it.
    Sending(Started),
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
        let is_empty = buf.len() == 0;
        if let Err(cancelled) = ready!(park::entry(core, cx.waker())) {
            return Poll::Ready((Err(cancelled.into()), self.take_unsent()));
        }
        if is_empty {
            let is_open = self.fd.open_number().map(drop);
            return Poll::Ready((is_open.map_err(io::Error::from), self.take_unsent()));
        }
        let turn = SendTurn::try_take(self.fd);
        let buf = self.take_unsent();
        match turn {
            Some(turn) => self.begin(core, cx, Send::all_behind(buf, 0, turn)),
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
            Ok(turn) => self.go_on(core, cx, Send::all_behind(buf, 0, turn)),
            Err(cancelled) => Poll::Ready((Err(cancelled.into()), buf)),
        }
    }

    #[cold]
    fn poll_between(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<BufResult<(), B>> {
        let Stage::Between(send) = mem::replace(&mut self.stage, Stage::Ended) else {
            unreachable!("looked at by the caller");
        };
        self.go_on(core, cx, *send)
    }

    /// Looks at the scope again, which may have been cancelled while others or the kernel had the turn.
    #[cold]
    fn go_on(
        &mut self,
        core: &Core,
        cx: &mut Context<'_>,
        send: Send<B>,
    ) -> Poll<BufResult<(), B>> {
        match park::entry(core, cx.waker()) {
            Poll::Ready(Ok(())) => self.begin(core, cx, send),
            Poll::Ready(Err(cancelled)) => {
                let error = Interrupted::after(send.skipped(), cancelled.into());
                Poll::Ready((Err(error), send.buf))
            }
            Poll::Pending => {
                self.stage = Stage::Between(Box::new(send));
                Poll::Pending
            }
        }
    }

    /// Starts to send what is left.
    #[inline(always)]
    fn begin(&mut self, core: &Core, cx: &Context<'_>, send: Send<B>) -> Poll<BufResult<(), B>> {
        if self.fd.is_closed() {
            let error = Interrupted::after(send.skipped(), Closed.into());
            return Poll::Ready((Err(error), send.buf));
        }
        let mut send = send;
        if core.is_alone() {
            match send.at_once(core, self.fd) {
                None => {}
                Some(Ok(count)) if send.skipped() + count >= send.buf.len() => {
                    return Poll::Ready((Ok(()), send.buf));
                }
                Some(Ok(count)) => send.skip(count),
                Some(Err(error)) => {
                    let error = Interrupted::after(send.skipped(), error);
                    return Poll::Ready((Err(error), send.buf));
                }
            }
        }
        let started = start(core, cx, send, Some(self.fd.clone()), Entry::Checked);
        // Of what was here nothing is left: it need not be asked whether to drop any.
        let before = mem::replace(&mut self.stage, Stage::Sending(started));
        debug_assert!(matches!(before, Stage::Ended));
        mem::forget(before);
        Poll::Pending
    }

    /// Looks whether the kernel is done.
    #[inline]
    fn poll_sending(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<BufResult<(), B>> {
        let Stage::Sending(started) = &mut self.stage else {
            unreachable!("looked at by the caller");
        };
        let Some((result, asked)) = started.look::<Send<B>>(core, cx) else {
            return Poll::Pending;
        };
        let collected = core.ops.borrow_mut().collect::<Send<B>>(started.id);
        let outcome = started.end(core, result, asked, || true);
        // Of what has ended nothing is left: it need not be asked whether to drop any.
        mem::forget(mem::replace(&mut self.stage, Stage::Ended));
        let mut send = collected.operation;
        let sent = send.skipped();
        let count = match outcome {
            Ok(Outcome::Done(0)) => {
                let end = io::ErrorKind::WriteZero.into();
                return Poll::Ready((Err(Interrupted::after(sent, end)), send.buf));
            }
            Ok(Outcome::Done(count)) => count as usize,
            Ok(Outcome::Failed(error)) => {
                return Poll::Ready((Err(Interrupted::after(sent, error)), send.buf));
            }
            // It was interrupted, and goes on.
            Err(_) => 0,
        };
        if sent + count >= send.buf.len() {
            return Poll::Ready((Ok(()), send.buf));
        }
        // The kernel goes on after a short send by itself; it stops only for an error, a signal, or a cancel.
        send.skip(count);
        self.go_on(core, cx, send)
    }
}

// The buffer moves into the slot before anything points into it.
impl<B: IoBuf> Unpin for SendAll<'_, B> {}

impl<B: IoBuf> Drop for SendAll<'_, B> {
    #[inline]
    fn drop(&mut self) {
        if let Stage::Sending(started) = &self.stage {
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
