//! What this kernel's io_uring can do.
//!
//! Every set-up flag is tried alone, on a ring of one entry that is thrown away, so that one
//! missing flag costs that flag and not the others. Opcodes are asked for with the kernel's own
//! probe. Of what some kernels have and get wrong, it is tried whether it works.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use io_uring::{IoUring, Probe, opcode};

use super::uring::{INCREMENTAL, with_memory};
use super::{CompletionFlags, encode, sys};
use crate::buf::provided::{BufferPool, GROUP};
use crate::kernel_op::fd::Descriptor;
use crate::kernel_op::request::Request;

/// What a ring is asked to use. Everything the kernel lacks is given up alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingFeatures {
    /// `IORING_SETUP_SUBMIT_ALL`, 5.18: one bad entry does not hold up the rest.
    pub(crate) submit_all: bool,
    /// `IORING_SETUP_SINGLE_ISSUER`, 6.0.
    pub(crate) single_issuer: bool,
    /// `IORING_SETUP_DEFER_TASKRUN`, 6.1: completions are worked off when we enter, not when an
    /// interrupt likes. Needs `single_issuer`.
    pub(crate) defer_taskrun: bool,
    /// `IORING_SETUP_TASKRUN_FLAG`, 5.19: deferred work is told in shared memory. Needs
    /// `defer_taskrun`.
    pub(crate) taskrun_flag: bool,
    /// `IORING_SETUP_NO_SQARRAY`, 6.6.
    pub(crate) no_sqarray: bool,
    /// `IORING_REGISTER_RING_FDS`, 5.18.
    pub(crate) registered_ring: bool,
    /// `IORING_ENTER_ABS_TIMER`, 6.12: parks take the deadline as it is.
    pub(crate) absolute_timeout: bool,
    /// `IORING_ENTER_NO_IOWAIT`, 6.15: a parked core counts as idle.
    pub(crate) no_iowait: bool,
    /// `IOU_PBUF_RING_INC`, 6.12: a provided buffer is filled piece by piece.
    pub(crate) incremental_buffers: bool,
}

impl RingFeatures {
    /// All that quoit uses when it can.
    pub(crate) const WANTED: Self = Self {
        submit_all: true,
        single_issuer: true,
        defer_taskrun: true,
        taskrun_flag: true,
        no_sqarray: true,
        registered_ring: true,
        absolute_timeout: true,
        no_iowait: true,
        incremental_buffers: true,
    };

    const NONE: Self = Self {
        submit_all: false,
        single_issuer: false,
        defer_taskrun: false,
        taskrun_flag: false,
        no_sqarray: false,
        registered_ring: false,
        absolute_timeout: false,
        no_iowait: false,
        incremental_buffers: false,
    };

    /// Returns what of `self` this kernel has.
    ///
    /// The error is that of the plainest ring: the kernel refuses io_uring as such.
    pub(crate) fn available(self) -> io::Result<Self> {
        let plain = Self::NONE.ring()?;
        let mut found = Self {
            no_iowait: self.no_iowait && plain.params().is_feature_no_iowait(),
            // Both came with 6.12 and have no flag of their own; this one came with them.
            absolute_timeout: self.absolute_timeout && plain.params().is_feature_min_timeout(),
            incremental_buffers: self.incremental_buffers
                && plain.params().is_feature_min_timeout()
                && incremental_buffers_work(),
            registered_ring: self.registered_ring,
            ..Self::NONE
        };
        drop(plain);
        let fits = |features: Self| features.ring().is_ok();
        found.submit_all = self.submit_all
            && fits(Self {
                submit_all: true,
                ..Self::NONE
            });
        found.no_sqarray = self.no_sqarray
            && fits(Self {
                no_sqarray: true,
                ..Self::NONE
            });
        let issuer = Self {
            single_issuer: true,
            ..Self::NONE
        };
        found.single_issuer = self.single_issuer && fits(issuer);
        let deferred = Self {
            defer_taskrun: true,
            ..issuer
        };
        found.defer_taskrun = found.single_issuer && self.defer_taskrun && fits(deferred);
        let flagged = Self {
            taskrun_flag: true,
            ..deferred
        };
        found.taskrun_flag = found.defer_taskrun && self.taskrun_flag && fits(flagged);
        Ok(found)
    }

    /// Returns a ring of one entry with the set-up flags, to be thrown away.
    fn ring(self) -> io::Result<IoUring> {
        with_memory(|| self.builder().build(1))
    }

    /// Returns a builder with the set-up flags.
    pub(crate) fn builder(self) -> io_uring::Builder {
        let mut builder = IoUring::builder();
        if self.submit_all {
            builder.setup_submit_all();
        }
        if self.single_issuer {
            builder.setup_single_issuer();
        }
        if self.defer_taskrun {
            builder.setup_defer_taskrun();
        }
        if self.taskrun_flag {
            builder.setup_taskrun_flag();
        }
        if self.no_sqarray {
            builder.setup_no_sqarray();
        }
        builder
    }

    /// Returns name, first kernel and worth of each, with whether it is there: for a person.
    pub(crate) fn described(self) -> [(&'static str, &'static str, &'static str, bool); 9] {
        [
            (
                "SUBMIT_ALL",
                "5.18",
                "a bad request does not delay the others",
                self.submit_all,
            ),
            (
                "SINGLE_ISSUER",
                "6.0",
                "cheaper locking in the kernel",
                self.single_issuer,
            ),
            (
                "DEFER_TASKRUN",
                "6.1",
                "up to 70 % less CPU at partial load",
                self.defer_taskrun,
            ),
            (
                "TASKRUN_FLAG",
                "5.19",
                "busy cores see completions without a system call",
                self.taskrun_flag,
            ),
            (
                "NO_SQARRAY",
                "6.6",
                "one indirection less per request",
                self.no_sqarray,
            ),
            (
                "registered ring",
                "5.18",
                "one look-up less per system call",
                self.registered_ring,
            ),
            (
                "ABS_TIMER",
                "6.12",
                "parks without reading the clock",
                self.absolute_timeout,
            ),
            (
                "NO_IOWAIT",
                "6.15",
                "idle cores are shown as idle, not as waiting for a disk",
                self.no_iowait,
            ),
            (
                "incremental buffers",
                "6.12",
                "messages of 16 KiB and more cost a fourth",
                self.incremental_buffers,
            ),
        ]
    }
}

/// Returns whether the kernel says of a buffer with room that it goes on with it, also when nothing was put in. Kernels of
/// 2025 and early 2026 do not at the end of a pipe (`axboe/liburing`, issue 1553): given back then, the buffer would be
/// in the ring twice, and what is received be taken from the wrong place.
fn incremental_buffers_work() -> bool {
    /// Tried once: no kernel changes while a process runs.
    static WORK: OnceLock<bool> = OnceLock::new();
    if let Some(&work) = WORK.get() {
        return work;
    }
    // What failed for want of something says nothing of the next time.
    end_of_a_pipe()
        .is_ok_and(|flags| *WORK.get_or_init(|| flags.buffer().is_none() || flags.buffer_goes_on()))
}

/// Reads the end of a pipe into an incremental buffer, and returns what the kernel says of that.
fn end_of_a_pipe() -> io::Result<CompletionFlags> {
    let pool = BufferPool::new(1, 512)?;
    let mut ring = RingFeatures::NONE.ring()?;
    let (address, count) = (pool.ring_address() as u64, pool.count());
    // SAFETY: `pool` was made first, so it keeps the memory for longer than the kernel has the ring.
    with_memory(|| unsafe {
        ring.submitter()
            .register_buf_ring_with_flags(address, count, GROUP, INCREMENTAL)
    })?;
    let [reader, writer] = sys::pipe()?.map(Descriptor::new);
    drop(writer);
    let fd = reader.as_raw_fd();
    let entry = encode::entry(&Request::ReadProvided { fd, group: GROUP }, 0);
    // SAFETY: the entry has no address in it: the kernel takes a buffer of the pool's.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    while let Err(error) = ring.submit_and_wait(1) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let told = ring.completion().next();
    told.map(|entry| CompletionFlags::from_bits(entry.flags()))
        .ok_or_else(|| io::ErrorKind::WouldBlock.into())
}

/// Returns the opcodes quoit cannot do without that this kernel lacks.
pub(crate) fn missing_opcodes() -> io::Result<Vec<&'static str>> {
    let ring = RingFeatures::NONE.ring()?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        ("ACCEPT", opcode::Accept::CODE),
        ("CONNECT", opcode::Connect::CODE),
        ("RECV", opcode::Recv::CODE),
        ("SEND", opcode::Send::CODE),
        ("SENDMSG", opcode::SendMsg::CODE),
        ("READ", opcode::Read::CODE),
        ("WRITE", opcode::Write::CODE),
        ("OPENAT2", opcode::OpenAt2::CODE),
        ("STATX", opcode::Statx::CODE),
        ("FSYNC", opcode::Fsync::CODE),
        ("CLOSE", opcode::Close::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
    ];
    Ok(needed
        .into_iter()
        .filter(|(_, code)| !probe.is_supported(*code))
        .map(|(name, _)| name)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_given_up_leaves_the_others() {
        let without = RingFeatures {
            no_sqarray: false,
            ..RingFeatures::WANTED
        };
        let found = without.available().expect("tests need io_uring");
        assert!(!found.no_sqarray);
        assert_eq!(
            RingFeatures {
                no_sqarray: true,
                ..found
            },
            RingFeatures {
                no_sqarray: true,
                ..RingFeatures::WANTED
                    .available()
                    .expect("tests need io_uring")
            }
        );
    }

    /// Where the kernel has them, the end of a pipe costs no buffer, or says which it leaves.
    #[test]
    fn incremental_buffers_are_used_where_they_work() {
        let found = RingFeatures::WANTED.available();
        let found = found.expect("tests need io_uring").incremental_buffers;
        match end_of_a_pipe() {
            Ok(flags) => assert_eq!(found, flags.buffer().is_none() || flags.buffer_goes_on()),
            // Older than they are.
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
                assert!(!found);
            }
        }
    }

    #[test]
    fn what_needs_a_missing_feature_is_given_up_with_it() {
        let without = RingFeatures {
            single_issuer: false,
            ..RingFeatures::WANTED
        };
        let found = without.available().expect("tests need io_uring");
        assert!(!found.single_issuer && !found.defer_taskrun && !found.taskrun_flag);
        assert!(found.submit_all);
    }
}
