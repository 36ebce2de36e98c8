//! `CancelHandle`: cancels a scope from anywhere.
//!
//! Scopes stay on their core; handles travel. A cancel goes through a cell that the scope's node
//! has in its core's shared part, whoever calls it: also a task of the same core, since a signal
//! handler may interrupt the core in the middle of a change of its tree.

use std::fmt;

use super::tree::NodeId;
use super::{Cancelled, Reason};
use crate::core_state::Core;
use crate::mailbox::{CoreShared, Sent};

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

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The scope's core will see it: at the next op of the scope, or by its next turn.
    Delivered,
    /// The scope was cancelled through a handle before.
    AlreadyCancelled,
    /// The scope, or its whole runtime, has ended.
    Gone,
}

impl CancelHandle {
    pub(crate) fn new(core: &Core, node: NodeId) -> Self {
        let (index, generation) = node.to_parts();
        core.shared.cancels.announce(index, generation);
        Self {
            core: core.shared,
            incarnation: core.incarnation(),
            index,
            generation,
        }
    }

    /// Cancels the scope, with reason [`Reason::Requested`].
    pub fn cancel(&self) -> Delivery {
        self.send(None)
    }

    /// Cancels the scope with a word of the caller's own: [`Reason::User`].
    pub fn cancel_with(&self, word: u32) -> Delivery {
        self.send(Some(word))
    }

    fn send(&self, word: Option<u32>) -> Delivery {
        match self
            .core
            .send_cancel(self.incarnation, self.index, self.generation, word)
        {
            Sent::Delivered => Delivery::Delivered,
            Sent::Already => Delivery::AlreadyCancelled,
            Sent::Gone => Delivery::Gone,
        }
    }
}

/// Makes the cause of a cancel that came by handle.
pub(crate) fn cause_of(word: Option<u32>) -> Cancelled {
    word.map_or_else(Cancelled::requested, |word| {
        Cancelled::new(Reason::User(word))
    })
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle")
            .field("core", &self.core.number())
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
