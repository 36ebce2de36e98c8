//! The kernel's edge: the one place that talks to the kernel.
//!
//! `Driver` is a closed enum with a thin surface: push a request, enter the kernel, reap
//! completions. The queues' limits, the overflow flag and the "more" flag stay visible, so that
//! everything with state lies above the cut. No type above is generic over the driver.
//!
//! In reading order: [`uring`] is the real ring, [`encode`] makes entries of requests, [`probe`]
//! says what this kernel can do, [`refusal`] explains a kernel that says no, [`sys`] wraps each
//! system call that does not go through the ring.

#![expect(unsafe_code, reason = "one of the four folders that may")]

mod encode;
pub(crate) mod probe;
pub(crate) mod refusal;
pub(crate) mod sys;
mod uring;

use std::io;

use crate::kernel_op::request::Request;
use crate::time::Instant;
pub(crate) use uring::RingOptions;
use uring::Uring;

/// Where requests go.
#[derive(Debug)]
pub(crate) enum Driver {
    /// The kernel's ring.
    Ring(Uring),
}

/// One completion queue entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    pub(crate) flags: CompletionFlags,
}

/// What came with a completion besides its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CompletionFlags(u32);

impl CompletionFlags {
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// More completions of this op follow (`IORING_CQE_F_MORE`).
    pub(crate) fn more(self) -> bool {
        io_uring::cqueue::more(self.0)
    }

    /// Which provided buffer the kernel chose.
    pub(crate) fn buffer(self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.0)
    }

    /// The kernel will go on filling the same buffer (`IORING_CQE_F_BUF_MORE`, kernel 6.12).
    pub(crate) fn buffer_goes_on(self) -> bool {
        io_uring::cqueue::buffer_more(self.0)
    }
}

/// The submission queue has no room; the request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Whether an enter waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Submit, run what the kernel deferred, and come back.
    No,
    /// Submit, and wait for a completion or until the deadline.
    Until(Option<Instant>),
}

impl Driver {
    /// Sets up the real ring on this thread, which becomes its only issuer.
    pub(crate) fn ring(options: &RingOptions) -> io::Result<Self> {
        Uring::new(options).map(Self::Ring)
    }

    /// Puts a request into the submission queue.
    ///
    /// The memory that the request names must stay in place until its final completion. That is
    /// what op slots are for; see `kernel_op/slab.rs`.
    pub(crate) fn push(&mut self, request: &Request, user_data: u64) -> Result<(), Full> {
        match self {
            Self::Ring(ring) => ring.push(request, user_data),
        }
    }

    /// Enters the kernel. A deadline that passes, or a signal, is no error.
    pub(crate) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.enter(wait),
        }
    }

    /// Takes the next completion.
    pub(crate) fn reap(&mut self) -> Option<Completion> {
        match self {
            Self::Ring(ring) => ring.reap(),
        }
    }

    /// Returns whether an enter has something to do now: entries to submit, work the kernel
    /// deferred to us, or completions that overflowed. Told without a system call.
    pub(crate) fn wants_enter(&mut self) -> bool {
        match self {
            Self::Ring(ring) => ring.wants_enter(),
        }
    }

    /// Returns whether completions lie ready.
    pub(crate) fn has_completions(&mut self) -> bool {
        match self {
            Self::Ring(ring) => ring.has_completions(),
        }
    }

    /// Returns how many entries wait in the submission queue.
    pub(crate) fn unsubmitted(&mut self) -> u32 {
        match self {
            Self::Ring(ring) => ring.unsubmitted(),
        }
    }

    /// Returns whether completions overflowed their queue and wait in the kernel.
    pub(crate) fn overflowed(&mut self) -> bool {
        match self {
            Self::Ring(ring) => ring.overflowed(),
        }
    }

    /// Announces a ring of provided buffers; true if the kernel fills them incrementally.
    pub(crate) fn register_buffers(
        &mut self,
        ring_address: usize,
        entries: u16,
        group: u16,
    ) -> io::Result<bool> {
        match self {
            Self::Ring(ring) => ring.register_buffers(ring_address, entries, group),
        }
    }

    /// Withdraws a ring of provided buffers.
    pub(crate) fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.unregister_buffers(group),
        }
    }
}

/// Reads the monotonic clock.
pub(crate) fn monotonic_now() -> Instant {
    sys::monotonic_now()
}

/// Reads both clocks, ours last: what is converted by this is never early.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the driver: the one place that reads it"
)]
pub(crate) fn clock_base() -> (std::time::Instant, Instant) {
    let std_base = std::time::Instant::now();
    (std_base, monotonic_now())
}
