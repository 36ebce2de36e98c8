//! Whether a peer takes anything of what it is sent.
//!
//! Most sends end in the turn that began them, so nothing is asked of the kernel and no timer is made
//! for one. One alarm goes on from send to send, and looks twice in the time that a peer may stall: what
//! is still the same after that time is stuck.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quoit::time::{Alarm, Instant};

/// Looks after the sends of one connection.
#[derive(Debug)]
pub(super) struct Stall {
    patience: Duration,
    /// Counts sends, so that one is told from the next.
    send: u64,
    next_look: Option<Look>,
    /// What the last look saw, of which send, and since when it has been so.
    seen: Option<(u64, Option<u64>, Instant)>,
}

/// A look that will be taken.
#[derive(Debug)]
struct Look {
    at: Instant,
    /// Armed as long as it is kept.
    _alarm: Alarm,
    waker: Waker,
}

impl Stall {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            send: 0,
            next_look: None,
            seen: None,
        }
    }

    /// Notes that a send has ended.
    pub(super) fn note_sent(&mut self) {
        self.send += 1;
    }

    /// Waits for a send that is on its way: ready once the peer has taken nothing of it for as long as it
    /// may. `taken` says what changes as the peer takes something.
    pub(super) fn poll(
        &mut self,
        taken: impl FnOnce() -> Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let now = Instant::recent();
        match &self.next_look {
            Some(look) if now < look.at && look.waker.will_wake(cx.waker()) => {
                return Poll::Pending;
            }
            Some(look) if now >= look.at => {
                let taken = taken();
                match self.seen {
                    Some((send, before, since)) if send == self.send && before == taken => {
                        if now - since >= self.patience {
                            return Poll::Ready(());
                        }
                    }
                    _ => self.seen = Some((self.send, taken, now)),
                }
            }
            _ => {}
        }
        let at = match &self.next_look {
            Some(look) if now < look.at => look.at,
            _ => now + self.patience / 2,
        };
        let mut alarm = Alarm::at(at);
        // One that is due already wakes us all the same, by the next turn.
        if Pin::new(&mut alarm).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        let waker = cx.waker().clone();
        self.next_look = Some(Look {
            at,
            _alarm: alarm,
            waker,
        });
        Poll::Pending
    }
}
