//! The real ring, set up for one issuer.
//!
//! Owned by one core and touched by its thread alone. Set-up asks for everything in
//! [`RingFeatures::WANTED`] that the kernel has; what it lacks is given up flag by flag
//! (`probe.rs`). The ring's descriptor is registered with the kernel, which saves a look-up per
//! enter, and given back on drop: a thread has 16 places for such.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, types};

use super::probe::RingFeatures;
use super::{Completion, CompletionFlags, Full, Wait, encode};
use crate::kernel_op::request::Request;

/// How a ring shall be.
#[derive(Debug, Clone)]
pub(crate) struct RingOptions {
    /// Room for requests between two enters.
    pub(crate) submission_entries: u32,
    /// Room for completions between two enters; more overflow into the kernel's own list.
    pub(crate) completion_entries: u32,
    /// What to ask of the kernel.
    pub(crate) features: RingFeatures,
}

/// A ring and its two queues.
///
/// The three views borrow from `ring`, which is a heap allocation of our own that `Drop` frees
/// after them.
pub(crate) struct Uring {
    submitter: ManuallyDrop<Submitter<'static>>,
    submissions: ManuallyDrop<SubmissionQueue<'static>>,
    completions: ManuallyDrop<CompletionQueue<'static>>,
    ring: NonNull<IoUring>,
    features: RingFeatures,
    registered: bool,
    #[cfg(test)]
    number: i32,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

impl Uring {
    pub(super) fn new(options: &RingOptions) -> io::Result<Self> {
        let mut builder = options.features.builder();
        builder.setup_cqsize(options.completion_entries);
        let ring = with_memory(|| builder.build(options.submission_entries))?;
        let ring = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: the pointer comes from a box that was just leaked, so it is valid and nobody else
        // has it. The views made from this reference are dropped before the box is freed (`Drop`),
        // and no other reference to the ring is made before that.
        let borrowed: &'static mut IoUring = unsafe { &mut *ring.as_ptr() };
        #[cfg(test)]
        let number = std::os::fd::AsRawFd::as_raw_fd(borrowed);
        let no_iowait = borrowed.params().is_feature_no_iowait();
        let (submitter, submissions, completions) = borrowed.split();
        let mut uring = Self {
            submitter: ManuallyDrop::new(submitter),
            submissions: ManuallyDrop::new(submissions),
            completions: ManuallyDrop::new(completions),
            ring,
            features: options.features,
            registered: false,
            #[cfg(test)]
            number,
        };
        uring.features.no_iowait &= no_iowait;
        if uring.features.registered_ring {
            uring.registered = uring.submitter.register_ring_fd().is_ok();
        }
        Ok(uring)
    }

    #[cfg(test)]
    pub(super) fn number(&self) -> i32 {
        self.number
    }

    #[inline]
    pub(super) fn push(&mut self, request: &Request, user_data: u64) -> Result<(), Full> {
        let entry = encode::entry(request, user_data);
        // SAFETY: every address in `entry` comes from a `Request`, and those are made from the
        // payload of an occupied op slot (or from the core's own static wake word). Slots never
        // move, and are emptied only by `OpState` transitions, none of which frees memory that the
        // kernel still holds (the invariants of `kernel_op/state.rs`).
        unsafe { self.submissions.push(&entry) }.map_err(|_| Full)
    }

    #[inline]
    pub(super) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        self.submissions.sync();
        let submit = self.submissions.len() as u32;
        let mut flags = EnterFlags::GETEVENTS;
        let want = match wait {
            Wait::No => 0,
            Wait::Until(_) => 1,
        };
        if want > 0 && self.features.no_iowait {
            // Waiting for work is not waiting for a disk: the core counts as idle. Kernel 6.15.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let entered = match wait {
            Wait::Until(Some(deadline)) => {
                let nanos = if self.features.absolute_timeout {
                    flags |= EnterFlags::ABS_TIMER;
                    deadline.as_nanos()
                } else {
                    (deadline - super::sys::monotonic_now()).as_nanos() as u64
                };
                let timespec = types::Timespec::new()
                    .sec(nanos / NANOS_PER_SECOND)
                    .nsec((nanos % NANOS_PER_SECOND) as u32);
                let arguments = types::SubmitArgs::new().timespec(&timespec);
                flags |= EnterFlags::EXT_ARG;
                // SAFETY: `arguments` is what EXT_ARG asks for, and it and the timespec it points
                // to live until the call returns. The entries are sound by `push`.
                unsafe {
                    self.submitter
                        .enter(submit, want, flags.bits(), Some(&arguments))
                }
            }
            Wait::No | Wait::Until(None) => {
                // SAFETY: without EXT_ARG the argument is a signal mask, and null means none. The
                // entries are sound by `push`.
                unsafe {
                    self.submitter
                        .enter::<libc::sigset_t>(submit, want, flags.bits(), None)
                }
            }
        };
        self.submissions.sync();
        entered.map(drop)
    }

    #[inline]
    pub(super) fn reap(&mut self) -> Option<Completion> {
        let entry = match self.completions.next() {
            Some(entry) => entry,
            None => {
                // Publishes what was taken and looks for what is new.
                self.completions.sync();
                self.completions.next()?
            }
        };
        Some(Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: CompletionFlags::from_bits(entry.flags()),
        })
    }

    /// Without the flag the kernel does not tell of work that it has deferred to us.
    #[inline]
    pub(super) fn shows_work(&self) -> bool {
        !self.features.defer_taskrun || self.features.taskrun_flag
    }

    #[inline]
    pub(super) fn wants_enter(&mut self) -> bool {
        // Nobody tells of deferred work: it has to be asked for.
        !self.shows_work()
            || !self.submissions.is_empty()
            || self.submissions.taskrun()
            || self.submissions.cq_overflow()
    }

    #[inline]
    pub(super) fn has_completions(&mut self) -> bool {
        self.completions.sync();
        !self.completions.is_empty()
    }

    /// The kernel takes entries only while it is entered, and `enter` looks afterwards how many it took.
    #[inline]
    pub(super) fn unsubmitted(&mut self) -> u32 {
        self.submissions.len() as u32
    }

    #[inline]
    pub(super) fn overflowed(&mut self) -> bool {
        self.submissions.cq_overflow()
    }

    pub(super) fn register_buffers(
        &mut self,
        ring_address: usize,
        entries: u16,
        group: u16,
    ) -> io::Result<bool> {
        if self.features.incremental_buffers {
            // SAFETY: `buf/provided.rs` keeps the ring's memory mapped until `unregister_buffers`
            // has returned or, if the kernel was not done by the end of the grace period, for ever.
            let registered = with_memory(|| unsafe {
                self.submitter.register_buf_ring_with_flags(
                    ring_address as u64,
                    entries,
                    group,
                    INCREMENTAL,
                )
            });
            match registered {
                Ok(()) => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Err(error) => return Err(error),
            }
        }
        // SAFETY: as above.
        with_memory(|| unsafe {
            self.submitter
                .register_buf_ring_with_flags(ring_address as u64, entries, group, 0)
        })
        .map(|()| false)
    }

    pub(super) fn unregister_buffers(&mut self, group: u16) -> io::Result<()> {
        self.submitter.unregister_buf_ring(group)
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.registered {
            // A failure leaves a place of this thread taken, which the thread's end frees.
            let _ = self.submitter.unregister_ring_fd();
        }
        // SAFETY: dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.completions) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.submissions) };
        // SAFETY: as above.
        unsafe { ManuallyDrop::drop(&mut self.submitter) };
        // SAFETY: the pointer came from `Box::leak` in `new`; the views that borrowed from it were
        // dropped just above.
        drop(unsafe { Box::from_raw(self.ring.as_ptr()) });
    }
}

/// Asks the kernel for something that takes memory which may be locked. It counts what a ring has locked until some time
/// after the ring was dropped, for all processes of a user together; so where there is none, that is waited for.
pub(super) fn with_memory<T>(ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    super::sys::ask_patiently(libc::ENOMEM, LONGEST_PAUSE, ask)
}

/// How long it is waited for memory at a time: a second in all. The kernel takes some milliseconds.
const LONGEST_PAUSE: Duration = Duration::from_millis(512);

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// `IOU_PBUF_RING_INC`, kernel 6.12: a buffer is filled piece by piece.
pub(super) const INCREMENTAL: u16 = 2;
