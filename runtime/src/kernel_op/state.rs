//! The life of one kernel op, seen from the kernel's side. Pure.
//!
//! Between submission and the final completion the kernel may use the op's memory, whether or not a
//! task still waits for the answer. So the slot owns the memory; the future holds a ticket to the
//! slot. A multishot op completes many times; only the completion without the "more" flag is final.
//!
//! ```text
//!             push            final completion             collect
//!   Queued ─────────► InKernel ───────────────► Completed ─────────► (vacant)
//!     │                  │                          │
//!     │ abandon, cancel  │ abandon                  │ abandon
//!     ▼                  ▼      final completion    ▼
//!  (vacant)           Orphaned ────────────────► (vacant)
//! ```
//!
//! Invariants:
//! - Memory leaves its slot only in states that the kernel does not hold: never from `InKernel` or
//!   `Orphaned`.
//! - At most one cancel request is made for an op, whoever asks and however often.
//! - A result nobody reads is still disposed of: an accepted descriptor is closed.

/// Who wanted an op to end early. The first stays: it decides what the op's answer is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A scope was cancelled: the answer is `Cancelled`.
    Scope,
    /// The owner has enough for now and will ask again: a full queue of a multishot op.
    Pause,
    /// The descriptor is being closed for all its owners: the answer is `Closed`.
    Close,
}

/// The state of one occupied slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpState {
    /// No room in the submission queue yet; the kernel knows nothing of it.
    Queued,
    /// Pushed; the kernel may use the memory.
    InKernel { asked: Option<Asker> },
    /// The kernel is done; the future has yet to collect the outcome.
    Completed { result: i32, asked: Option<Asker> },
    /// The future is gone; the kernel may still use the memory.
    Orphaned,
}

/// What a transition wants done, once no borrow is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// Send a cancel request to the kernel.
    RequestCancel,
    /// Take the op out of the backlog: it is `Completed` without the kernel ever knowing it.
    LeaveBacklog,
    /// Wake the waiter.
    Wake,
    /// Dispose of the result and free the memory: the slot is vacant.
    Free { result: Option<i32> },
}

impl OpState {
    /// Records that the request went into the submission queue.
    pub(crate) fn on_push(self) -> Self {
        match self {
            Self::Queued => Self::InKernel { asked: None },
            Self::InKernel { .. } | Self::Completed { .. } | Self::Orphaned => {
                unreachable!("an op is pushed once")
            }
        }
    }

    /// Records a completion; `more` says that it is not the final one.
    pub(crate) fn on_completion(self, result: i32, more: bool) -> (Option<Self>, Effect) {
        match self {
            Self::InKernel { asked } if more => (Some(Self::InKernel { asked }), Effect::Wake),
            Self::InKernel { asked } => (Some(Self::Completed { result, asked }), Effect::Wake),
            Self::Orphaned if more => (Some(Self::Orphaned), Effect::None),
            Self::Orphaned => (
                None,
                Effect::Free {
                    result: Some(result),
                },
            ),
            Self::Queued | Self::Completed { .. } => {
                unreachable!("nothing completes that is not in the kernel")
            }
        }
    }

    /// Records that somebody wants the op to end early, and still wants its answer.
    pub(crate) fn cancel(self, asker: Asker) -> (Option<Self>, Effect) {
        match self {
            Self::Queued => (
                Some(Self::Completed {
                    result: -libc::ECANCELED,
                    asked: Some(asker),
                }),
                Effect::LeaveBacklog,
            ),
            Self::InKernel { asked: None } => (
                Some(Self::InKernel { asked: Some(asker) }),
                Effect::RequestCancel,
            ),
            Self::InKernel { asked: Some(_) } | Self::Completed { .. } | Self::Orphaned => {
                (Some(self), Effect::None)
            }
        }
    }

    /// Records that the future was dropped before it collected the outcome.
    pub(crate) fn abandon(self) -> (Option<Self>, Effect) {
        match self {
            Self::Queued => (None, Effect::LeaveBacklog),
            Self::InKernel { asked: None } => (Some(Self::Orphaned), Effect::RequestCancel),
            Self::InKernel { asked: Some(_) } => (Some(Self::Orphaned), Effect::None),
            Self::Completed { result, asked: _ } => (
                None,
                Effect::Free {
                    result: Some(result),
                },
            ),
            // The end of a core gives up whatever it finds.
            Self::Orphaned => (Some(Self::Orphaned), Effect::None),
        }
    }

    /// Returns whether the kernel may still use the op's memory.
    pub(crate) fn kernel_holds(self) -> bool {
        match self {
            Self::InKernel { .. } | Self::Orphaned => true,
            Self::Queued | Self::Completed { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUED: OpState = OpState::Queued;
    const IN_KERNEL: OpState = OpState::InKernel { asked: None };
    const ASKED: OpState = OpState::InKernel {
        asked: Some(Asker::Scope),
    };
    const DONE: OpState = OpState::Completed {
        result: 5,
        asked: None,
    };
    const ORPHAN: OpState = OpState::Orphaned;

    #[test]
    fn every_state_answers_every_event() {
        let cancelled_in_queue = OpState::Completed {
            result: -libc::ECANCELED,
            asked: Some(Asker::Scope),
        };
        let table = [
            (
                QUEUED.cancel(Asker::Scope),
                Some(cancelled_in_queue),
                Effect::LeaveBacklog,
            ),
            (
                IN_KERNEL.cancel(Asker::Scope),
                Some(ASKED),
                Effect::RequestCancel,
            ),
            (ASKED.cancel(Asker::Pause), Some(ASKED), Effect::None),
            (DONE.cancel(Asker::Scope), Some(DONE), Effect::None),
            (ORPHAN.cancel(Asker::Scope), Some(ORPHAN), Effect::None),
            (QUEUED.abandon(), None, Effect::LeaveBacklog),
            (IN_KERNEL.abandon(), Some(ORPHAN), Effect::RequestCancel),
            (ASKED.abandon(), Some(ORPHAN), Effect::None),
            (ORPHAN.abandon(), Some(ORPHAN), Effect::None),
            (DONE.abandon(), None, Effect::Free { result: Some(5) }),
            (IN_KERNEL.on_completion(5, false), Some(DONE), Effect::Wake),
            (
                IN_KERNEL.on_completion(5, true),
                Some(IN_KERNEL),
                Effect::Wake,
            ),
            (
                ASKED.on_completion(-125, false),
                Some(OpState::Completed {
                    result: -125,
                    asked: Some(Asker::Scope),
                }),
                Effect::Wake,
            ),
            (ASKED.on_completion(5, true), Some(ASKED), Effect::Wake),
            (
                ORPHAN.on_completion(5, false),
                None,
                Effect::Free { result: Some(5) },
            ),
            (ORPHAN.on_completion(5, true), Some(ORPHAN), Effect::None),
        ];
        for (row, (got, state, effect)) in table.into_iter().enumerate() {
            assert_eq!(got, (state, effect), "row {row}");
        }
        assert_eq!(QUEUED.on_push(), IN_KERNEL);
    }

    #[test]
    fn memory_is_never_freed_while_the_kernel_holds_it() {
        for state in [IN_KERNEL, ASKED, ORPHAN] {
            assert!(state.kernel_holds());
            let (next, effect) = state.cancel(Asker::Scope);
            assert!(next.is_some() && !matches!(effect, Effect::Free { .. }));
            let (next, _) = state.on_completion(1, true);
            assert!(next.is_some_and(OpState::kernel_holds));
        }
        for state in [IN_KERNEL, ASKED] {
            assert!(state.abandon().0.is_some_and(OpState::kernel_holds));
        }
    }
}
