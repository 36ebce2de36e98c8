//! Whose turn it is to send on a socket.
//!
//! A turn lies in the slot of the send, so it lasts until the kernel is done with it, also when the
//! future is dropped: bytes of two sends never mix, and what is left of a cancelled one never
//! follows what was sent after it.
//!
//! Each descriptor has one line (`fd.rs`). While somebody waits, the turn is never free: it is handed to the first in
//! line, so that one who sends again and again does not keep the others waiting. On a descriptor that is closed for all
//! everybody has it: what they begin is refused.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::fd::SharedFd;
use crate::scope::Cancelled;
use crate::sync::wait_list::Place;

/// The right to send on a socket.
#[derive(Debug)]
pub(crate) struct SendTurn(SharedFd);

impl SendTurn {
    /// Takes the turn if nobody has it.
    #[inline]
    pub(crate) fn try_take(fd: &SharedFd) -> Option<Self> {
        (!fd.is_sending().replace(true) || fd.is_closed()).then(|| Self(fd.clone()))
    }

    /// Waits for the turn. An op like any other: in a cancelled scope it fails.
    pub(crate) fn take(fd: &SharedFd) -> Take<'_> {
        Take {
            fd,
            place: Place::default(),
        }
    }
}

impl Drop for SendTurn {
    #[inline]
    fn drop(&mut self) {
        let waiting = self.0.waiting_senders();
        if !waiting.is_some_and(|waiting| waiting.wake_first()) {
            self.0.is_sending().set(false);
        }
    }
}

/// A wait for the turn.
pub(crate) struct Take<'a> {
    fd: &'a SharedFd,
    place: Place,
}

impl Future for Take<'_> {
    type Output = Result<SendTurn, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut taken = None;
        let try_take = || {
            taken = SendTurn::try_take(this.fd);
            taken.is_some()
        };
        let polled = this.fd.senders().poll(&mut this.place, cx, try_take);
        // Woken, it is ours: the turn was left taken for us.
        polled.map_ok(|()| taken.unwrap_or_else(|| SendTurn(this.fd.clone())))
    }
}

impl Drop for Take<'_> {
    fn drop(&mut self) {
        let waiting = self.fd.waiting_senders();
        if waiting.is_some_and(|waiting| waiting.leave(&mut self.place)) {
            // It was handed to us, and we do not want it any more: the next.
            drop(SendTurn(self.fd.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::sys;
    use crate::kernel_op::fd::Descriptor;

    #[test]
    fn all_owners_of_a_descriptor_stand_in_one_line() {
        let [reader, writer] = sys::pipe().expect("a pipe");
        drop(Descriptor::new(reader));
        let first = SharedFd::new(Descriptor::new(writer));
        let second = first.clone();
        let turn = SendTurn::try_take(&first).expect("nobody has it");
        assert!(SendTurn::try_take(&second).is_none());
        drop(turn);
        assert!(SendTurn::try_take(&second).is_some());
    }
}
