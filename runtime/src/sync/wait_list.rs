//! Who waits, in the order of arrival; a waiter that gives up leaves no trace.
//!
//! A waiter that was aborted first is skipped by whoever hands something out: `complete` of the
//! scope tree decides that.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use crate::scope::Cancelled;
use crate::scope::park::{self, Look, Park};
use crate::scope::tree::ParkId;
use crate::scope::tree::Purpose;
use crate::task::current;

/// A line of waiting tasks.
#[derive(Debug, Default)]
pub(crate) struct WaitList {
    line: RefCell<Line>,
    not_send: PhantomData<*const ()>,
}

#[derive(Debug, Default)]
struct Line {
    tickets: u64,
    /// With the core that each park is on, this time round.
    waiting: BTreeMap<u64, (ParkId, u64)>,
}

/// One place in a line.
#[derive(Debug, Default)]
pub(crate) struct Place {
    park: Park,
    ticket: Option<u64>,
}

impl WaitList {
    /// Waits in line until woken. The caller has found that there is nothing to be had yet; it
    /// looks again when this is ready.
    pub(crate) fn poll(&self, place: &mut Place, cx: &Context<'_>) -> Poll<Result<(), Cancelled>> {
        current::with(|core| {
            if place.ticket.is_none() {
                place.park.register_memory(core, cx.waker(), Purpose::Turn);
                let park = place.park.id(core).expect("registered just above");
                let mut line = self.line.borrow_mut();
                line.tickets += 1;
                let ticket = line.tickets;
                line.waiting.insert(ticket, (park, core.identity()));
                place.ticket = Some(ticket);
                return Poll::Pending;
            }
            match place.park.look(core, cx.waker()) {
                Look::Waiting => Poll::Pending,
                Look::Ready => {
                    self.leave(place);
                    Poll::Ready(Ok(()))
                }
                Look::Aborted(cancelled) => {
                    self.leave(place);
                    Poll::Ready(Err(cancelled))
                }
            }
        })
    }

    /// Gives a place up. True if it had been woken, and nobody has seen that.
    pub(crate) fn leave(&self, place: &mut Place) -> bool {
        let Some(ticket) = place.ticket.take() else {
            return false;
        };
        self.line.borrow_mut().waiting.remove(&ticket);
        let woken = place.park.is_ready();
        place.park.end();
        woken
    }

    /// Wakes the first in line who has not been aborted; false if there is none.
    pub(crate) fn wake_first(&self) -> bool {
        loop {
            let Some((_, (park, home))) = self.line.borrow_mut().waiting.pop_first() else {
                return false;
            };
            let woken = current::try_with(|core| home == core.identity() && core.complete(park));
            if woken == Some(true) {
                return true;
            }
        }
    }

    /// Wakes everybody who waits now.
    pub(crate) fn wake_all(&self) {
        let waiting = std::mem::take(&mut self.line.borrow_mut().waiting);
        current::try_with(|core| {
            for (park, home) in waiting.into_values() {
                if home == core.identity() {
                    core.complete(park);
                }
            }
        });
    }

    /// Returns how many wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.line.borrow().waiting.len()
    }
}

impl Place {
    /// Returns whether it stands in line already.
    pub(crate) fn is_in_line(&self) -> bool {
        self.ticket.is_some()
    }

    /// Looks at the active scope, as every op does at its first poll.
    pub(crate) fn entry(&self, cx: &Context<'_>) -> Poll<Result<(), Cancelled>> {
        if self.ticket.is_some() {
            return Poll::Ready(Ok(()));
        }
        current::with(|core| park::entry(core, cx.waker()))
    }
}
