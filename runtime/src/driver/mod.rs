//! The kernel's edge: the one place that talks to the kernel.
//!
//! `Driver` is a closed enum with a thin surface: push a request, enter the kernel, reap
//! completions. The queues' limits, the overflow flag and the "more" flag stay visible, so that
//! everything with state lies above the cut. No type above is generic over the driver.
//!
//! In reading order: [`uring`] is the real ring, [`encode`] makes entries of requests, [`probe`]
//! says what this kernel can do, [`refusal`] explains a kernel that says no, [`sys`] wraps each
//! system call that does not go through the ring, [`socket`] those on sockets.
//!
//! With the feature `sim` there is a second kernel, `sim/`. Which of the two answers a call is
//! decided here and nowhere else: by the variant for what goes through the ring, by its number for a
//! call on a descriptor, and by whether the thread runs a simulation for the rest.

#![expect(unsafe_code, reason = "one of the four folders that may")]

/// Answers a call on a simulated descriptor by the simulated kernel, and returns.
///
/// Without the feature it is nothing.
macro_rules! simulated {
    ($fd:expr, |$world:ident| $answer:expr) => {
        #[cfg(feature = "sim")]
        if let Some($world) = $crate::sim::world_of($fd) {
            return $answer;
        }
    };
}

mod encode;
#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod fork_tests;
#[cfg(test)]
mod handler_tests;
#[cfg(test)]
mod loss_tests;
#[cfg(test)]
mod pipe_signal_tests;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod refusal;
pub(crate) mod socket;
pub(crate) mod sys;
pub(crate) mod table;
#[cfg(test)]
mod trace_tests;
mod uring;

use std::io;

use crate::kernel_op::request::Request;
use crate::time::Instant;
pub(crate) use uring::RingOptions;
use uring::Uring;

#[cfg(feature = "sim")]
use crate::sim::ring::SimRing;

/// Where requests go.
#[derive(Debug)]
pub(crate) enum Driver {
    /// The kernel's ring.
    Ring(Uring),
    /// A ring of the simulated kernel.
    #[cfg(feature = "sim")]
    Simulated(SimRing),
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

    /// The kernel lets go of the memory of a zero-copy send (`IORING_CQE_F_NOTIF`).
    pub(crate) fn notification(self) -> bool {
        io_uring::cqueue::notif(self.0)
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
    /// Sets up a ring on this thread, which becomes its only issuer.
    pub(crate) fn new(options: &RingOptions) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            return SimRing::new(world, options).map(Self::Simulated);
        }
        Uring::new(options).map(Self::Ring)
    }

    /// Returns the number of the ring's descriptor.
    #[cfg(test)]
    fn ring_number(&self) -> i32 {
        match self {
            Self::Ring(ring) => ring.number(),
            #[cfg(feature = "sim")]
            Self::Simulated(_) => unreachable!("the test runs on the real kernel"),
        }
    }

    /// Returns whether the kernel may still write to memory that it was given.
    pub(crate) fn may_still_write(&self) -> bool {
        match self {
            Self::Ring(_) => true,
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.may_still_write(),
        }
    }

    /// Puts a request into the submission queue.
    ///
    /// The memory that the request names must stay in place until its final completion. That is
    /// what op slots are for; see `kernel_op/slab.rs`.
    #[inline]
    pub(crate) fn push(&mut self, request: &Request, user_data: u64) -> Result<(), Full> {
        match self {
            Self::Ring(ring) => ring.push(request, user_data),
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.push(request, user_data),
        }
    }

    /// Enters the kernel. A deadline that passes, or a signal, is no error.
    #[inline]
    pub(crate) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let entered = match self {
            Self::Ring(ring) => ring.enter(wait),
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.enter(wait),
        };
        match entered {
            // The deadline passed, or a signal came in: look around and come back.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => Ok(()),
            entered => entered,
        }
    }

    /// Takes the next completion.
    #[inline]
    pub(crate) fn reap(&mut self) -> Option<Completion> {
        match self {
            Self::Ring(ring) => ring.reap(),
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.reap(),
        }
    }

    /// Returns whether an enter has something to do now: entries to submit, work the kernel
    /// deferred to us, or completions that overflowed. Told without a system call.
    #[inline]
    pub(crate) fn wants_enter(&mut self) -> bool {
        match self {
            Self::Ring(ring) => ring.wants_enter(),
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.wants_enter(),
        }
    }

    /// Returns whether all that the kernel has for us can be seen without entering it, as it comes.
    pub(crate) fn shows_work(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.shows_work(),
            // Time stands still there while a core looks on.
            #[cfg(feature = "sim")]
            Self::Simulated(_) => false,
        }
    }

    /// Returns whether completions lie ready.
    #[inline]
    pub(crate) fn has_completions(&mut self) -> bool {
        match self {
            Self::Ring(ring) => ring.has_completions(),
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.has_completions(),
        }
    }

    /// Returns how many entries wait in the submission queue.
    #[inline]
    pub(crate) fn unsubmitted(&mut self) -> u32 {
        match self {
            Self::Ring(ring) => ring.unsubmitted(),
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.unsubmitted(),
        }
    }

    /// Returns whether completions overflowed their queue and wait in the kernel.
    #[inline]
    pub(crate) fn overflowed(&mut self) -> bool {
        match self {
            Self::Ring(ring) => ring.overflowed(),
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.overflowed(),
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
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.register_buffers(ring_address, entries, group),
        }
    }

    /// Withdraws a ring of provided buffers.
    pub(crate) fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.unregister_buffers(group),
            #[cfg(feature = "sim")]
            Self::Simulated(ring) => ring.unregister_buffers(group),
        }
    }
}

/// Reads the monotonic clock.
pub(crate) fn monotonic_now() -> Instant {
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return world.now();
    }
    sys::monotonic_now()
}

/// Notes that somebody has looked what time it was: in a simulation, who waits so for the clock waits for ever.
#[inline]
pub(crate) fn note_look() {
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        world.count_read();
    }
}

/// Reads the standard library's clock, whatever runs on this thread: as the fixed point that a
/// simulation's instants are converted by.
#[cfg(feature = "sim")]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the driver: the one place that reads it"
)]
pub(crate) fn real_std_now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Reads the wall clock.
pub(crate) fn wall_clock() -> std::time::SystemTime {
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return world.wall_clock();
    }
    sys::wall_clock()
}

/// Returns whether clocks and random numbers are those of a simulation.
pub(crate) fn is_simulated() -> bool {
    #[cfg(feature = "sim")]
    return crate::sim::world().is_some();
    #[cfg(not(feature = "sim"))]
    false
}

/// Returns a random number.
pub(crate) fn random() -> io::Result<u64> {
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return Ok(world.random());
    }
    sys::random()
}

/// Reads both clocks, ours last: what is converted by this is never early.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the driver: the one place that reads it"
)]
pub(crate) fn clock_base() -> (std::time::Instant, Instant) {
    #[cfg(feature = "sim")]
    if let Some(world) = crate::sim::world() {
        return world.clock_base();
    }
    let std_base = std::time::Instant::now();
    (std_base, monotonic_now())
}
