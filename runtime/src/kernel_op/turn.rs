//! Whose turn it is to send on a socket.
//!
//! A turn lies in the slot of the send, so it lasts until the kernel is done with it, also when the
//! future is dropped: bytes of two sends never mix, and what is left of a cancelled one never
//! follows what was sent after it.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::scope::Cancelled;
use crate::sync::wait_list::{Place, WaitList};

/// The sends of one socket, in a line.
///
/// While somebody waits, the turn is never free: it is handed to the first in line, so that one who
/// sends again and again does not keep the others waiting.
#[derive(Debug, Default)]
pub(crate) struct SendLine {
    busy: Cell<bool>,
    /// Made when somebody waits for the first time: few sockets have several who send.
    waiting: OnceCell<Box<WaitList>>,
}

/// The right to send.
#[derive(Debug)]
pub(crate) struct SendTurn(Rc<SendLine>);

impl SendLine {
    /// Takes the turn if nobody has it.
    pub(crate) fn try_take(self: &Rc<Self>) -> Option<SendTurn> {
        (!self.busy.replace(true)).then(|| SendTurn(Rc::clone(self)))
    }

    /// Waits for the turn. An op like any other: in a cancelled scope it fails.
    pub(crate) fn take(self: &Rc<Self>) -> Take {
        Take {
            line: Rc::clone(self),
            place: Place::default(),
        }
    }
}

impl Drop for SendTurn {
    #[inline]
    fn drop(&mut self) {
        let waiting = self.0.waiting.get();
        if !waiting.is_some_and(|waiting| waiting.wake_first()) {
            self.0.busy.set(false);
        }
    }
}

/// A wait for the turn.
pub(crate) struct Take {
    line: Rc<SendLine>,
    place: Place,
}

impl Future for Take {
    type Output = Result<SendTurn, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.place.is_in_line() {
            ready!(this.place.entry(cx))?;
            if let Some(turn) = this.line.try_take() {
                return Poll::Ready(Ok(turn));
            }
        }
        // Woken, it is ours: `busy` was left set for us.
        this.line
            .waiting
            .get_or_init(Box::default)
            .poll(&mut this.place, cx)
            .map_ok(|()| SendTurn(Rc::clone(&this.line)))
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        let waiting = self.line.waiting.get();
        if waiting.is_some_and(|waiting| waiting.leave(&mut self.place)) {
            // It was handed to us, and we do not want it any more: the next.
            drop(SendTurn(Rc::clone(&self.line)));
        }
    }
}
