//! `CancelHandle`: cancels a scope from anywhere.
//!
//! Scopes stay on their core; handles travel. A cancel goes through a cell that the scope's node
//! has in its core's shared part, whoever calls it: also a task of the same core, since a signal
//! handler may interrupt the core in the middle of a change of its tree.

use std::fmt;
use std::time::Duration;

use super::tree::NodeId;
use super::{Cancelled, Reason};
use crate::core_state::Core;
use crate::mailbox::{self, Cancel, CoreShared, Sent};
use crate::task::current;
use crate::time::Instant;

/// Cancels one scope, from any task, thread or signal handler.
///
/// Never blocks, never allocates, never fails for lack of room. A handle that outlived its scope
/// does nothing.
#[derive(Clone, Copy)]
pub struct CancelHandle {
    core: &'static CoreShared,
    incarnation: u32,
    index: u32,
    generation: u32,
}

/// What became of a message to a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The scope's core will see it: at the next op of the scope, or by its next turn.
    ///
    /// Nothing comes of it where the scope is cancelled otherwise in the same moment, by itself or by a deadline of
    /// which its core has not taken notice.
    Delivered,
    /// The scope itself was cancelled before, in whatever way.
    AlreadyCancelled,
    /// The scope, or its whole runtime, has ended.
    Gone,
}

impl CancelHandle {
    pub(crate) fn new(core: &Core, node: NodeId) -> Self {
        let (index, generation) = node.to_parts();
        core.shared.cancels.announce(index, generation);
        let mut tree = core.tree.borrow_mut();
        tree.announce(node);
        if tree.own_cause(node).is_some() {
            core.shared.cancels.note_cancelled(index, generation);
        }
        drop(tree);
        Self {
            core: core.shared,
            incarnation: core.incarnation(),
            index,
            generation,
        }
    }

    /// Cancels the scope, with reason [`Reason::Requested`] and the grace that the scope has.
    pub fn cancel(&self) -> Delivery {
        self.send(Cancel::default())
    }

    /// Cancels the scope for this reason, such as [`Reason::User`] with a word of the caller's own,
    /// and with this grace: for so long, what is in a
    /// [grace shield](crate::Scope::grace_shielded) may go on. All else in the scope is cancelled at
    /// once.
    pub fn cancel_with(&self, reason: Reason, grace: Duration) -> Delivery {
        self.send(Cancel::new(reason, Some(grace)))
    }

    /// Cancels the scope for this reason, with the grace that it has.
    pub(crate) fn cancel_for(&self, reason: Reason) -> Delivery {
        self.send(Cancel::new(reason, None))
    }

    /// Sets or moves the scope's deadline; [`Instant::NEVER`] takes it away. Of several calls the
    /// last counts. A scope that is cancelled stays so.
    ///
    /// The deadline is rounded up to whole units of 1024 ns.
    pub fn set_deadline(&self, deadline: Instant) -> Delivery {
        delivery(
            self.core
                .send_deadline(self.incarnation, self.index, self.generation, deadline),
        )
    }

    /// Packs the handle into two numbers.
    pub(crate) fn pack(&self) -> [u64; 2] {
        [
            u64::from(self.core.number()) << 32 | u64::from(self.incarnation),
            u64::from(self.index) << 32 | u64::from(self.generation),
        ]
    }

    pub(crate) fn unpack([core, node]: [u64; 2]) -> Option<Self> {
        Some(Self {
            core: mailbox::core((core >> 32) as u32)?,
            incarnation: core as u32,
            index: (node >> 32) as u32,
            generation: node as u32,
        })
    }

    fn send(&self, cancel: Cancel) -> Delivery {
        let sent = self
            .core
            .send_cancel(self.incarnation, self.index, self.generation, cancel);
        current::try_with(|core| {
            core.counters().cancels_sent.add_shared(1);
            if sent == Sent::Gone {
                core.counters().cancels_gone.add_shared(1);
            }
        });
        delivery(sent)
    }
}

fn delivery(sent: Sent) -> Delivery {
    match sent {
        Sent::Delivered => Delivery::Delivered,
        Sent::Already => Delivery::AlreadyCancelled,
        Sent::Gone => Delivery::Gone,
    }
}

const IS_OWN: u64 = 1 << 32;

impl Reason {
    /// Packs the reason into a number.
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::User(word) => IS_OWN | u64::from(word),
            // So that a word of zero is a request, as of a cancel that says nothing.
            told => u64::from(Cancelled::for_reason(told).kind()) - 1,
        }
    }

    pub(crate) fn from_word(word: u64) -> Self {
        if word & IS_OWN != 0 {
            Self::User(word as u32)
        } else {
            Cancelled::of_kind(word as u32 + 1).reason()
        }
    }
}

impl Cancel {
    fn new(reason: Reason, grace: Option<Duration>) -> Self {
        let word = reason.to_word();
        Self {
            word: word as u32,
            is_own: word & IS_OWN != 0,
            grace,
        }
    }

    /// Returns the reason that its scope will have.
    pub(crate) fn reason(self) -> Reason {
        Reason::from_word(u64::from(self.word) | if self.is_own { IS_OWN } else { 0 })
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle")
            .field("core", &self.core.number())
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
