//! Every kernel op as plain data.
//!
//! A request names what the kernel shall do, with addresses into memory that an op's slot keeps in
//! place until the final completion. It has one interpreter per driver: `driver/encode.rs` makes a
//! submission queue entry of it. Nothing above the driver ever sees a raw entry.
//!
//! The numbers are those of the man pages (`io_uring_enter(2)` and the system call each op mirrors).

use std::os::fd::RawFd;

#[cfg(feature = "sim")]
use super::kind::OpKind;

/// Memory the kernel reads from: the address and length of bytes that an op's slot owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) address: usize,
    pub(crate) length: u32,
}

/// Memory the kernel writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegionMut {
    pub(crate) address: usize,
    pub(crate) length: u32,
}

/// One thing to ask of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Does nothing and completes with 0.
    Nop,
    /// Accepts one connection. Of those who wait on one socket the kernel wakes whoever came first.
    /// `accept4(2)`.
    Accept { fd: RawFd },
    /// Accepts connections until cancelled or failed: a completion with a descriptor each.
    /// `accept4(2)`; kernel 5.19.
    AcceptMulti { fd: RawFd },
    /// Connects; `address` holds a socket address. `connect(2)`.
    Connect { fd: RawFd, address: Region },
    /// Receives into `into`. `recv(2)`.
    Receive { fd: RawFd, into: RegionMut },
    /// Receives into buffers of the group until cancelled or failed: one completion each; with `once`,
    /// into one of them. Kernel 6.0.
    ReceiveMulti { fd: RawFd, group: u16, once: bool },
    /// Sends; with `all` a short send is continued by the kernel. `send(2)`.
    Send { fd: RawFd, from: Region, all: bool },
    /// Sends without copying: the kernel reads `from` until a second completion, the notification, has
    /// come. `io_uring_enter(2)`, `IORING_OP_SEND_ZC`; kernel 6.0.
    SendZeroCopy { fd: RawFd, from: Region },
    /// Sends what the message header at `header` gathers. `sendmsg(2)`.
    SendMessage { fd: RawFd, header: usize, all: bool },
    /// Reads at `offset`, or at the file's own position for [`CURRENT_POSITION`]. `pread(2)`.
    Read {
        fd: RawFd,
        into: RegionMut,
        offset: u64,
    },
    /// Reads at the file's own position into a buffer of the group, as much as that holds. `read(2)`;
    /// `IOSQE_BUFFER_SELECT`, kernel 5.19.
    ReadProvided { fd: RawFd, group: u16 },
    /// Writes at `offset`, or at the file's own position for [`CURRENT_POSITION`]. `pwrite(2)`. With `apart` on a thread
    /// of the kernel's own. `IOSQE_ASYNC`.
    Write {
        fd: RawFd,
        from: Region,
        offset: u64,
        apart: bool,
    },
    /// Makes written data durable. `fsync(2)`, `fdatasync(2)`.
    Sync { fd: RawFd, data_only: bool },
    /// Opens `path` (ends with NUL) below `directory`, as the `open_how` at `how` says.
    /// `openat2(2)`.
    Open {
        directory: RawFd,
        path: usize,
        how: usize,
    },
    /// Describes `path` below `directory` into the `statx` at `into`. `statx(2)`.
    Status {
        directory: RawFd,
        path: usize,
        flags: i32,
        mask: u32,
        into: usize,
    },
    /// Closes a descriptor; with `apart` on a thread of the kernel's own. `close(2)`.
    Close { fd: RawFd, apart: bool },
    /// Waits until the descriptor is ready for one of `events`. `poll(2)`.
    Poll { fd: RawFd, events: u32 },
    /// The same, again and again: whenever something happens to the descriptor and it is ready.
    PollMulti { fd: RawFd, events: u32 },
    /// Ends the op that was submitted with this `user_data`.
    Cancel { target: u64 },
}

/// The offset that stands for the file's own position.
pub(crate) const CURRENT_POSITION: u64 = u64::MAX;

#[cfg(feature = "sim")]
impl Request {
    /// Returns the descriptor that the kernel works on.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match *self {
            Self::Accept { fd }
            | Self::AcceptMulti { fd }
            | Self::Connect { fd, .. }
            | Self::Receive { fd, .. }
            | Self::ReceiveMulti { fd, .. }
            | Self::Send { fd, .. }
            | Self::SendZeroCopy { fd, .. }
            | Self::SendMessage { fd, .. }
            | Self::Read { fd, .. }
            | Self::ReadProvided { fd, .. }
            | Self::Write { fd, .. }
            | Self::Sync { fd, .. }
            | Self::Close { fd, .. }
            | Self::Poll { fd, .. }
            | Self::PollMulti { fd, .. } => Some(fd),
            Self::Open { directory, .. } | Self::Status { directory, .. } => Some(directory),
            Self::Nop | Self::Cancel { .. } => None,
        }
    }

    /// Returns what it is called.
    pub(crate) fn kind(&self) -> OpKind {
        match self {
            Self::Nop => OpKind::Nop,
            Self::Accept { .. } | Self::AcceptMulti { .. } => OpKind::Accept,
            Self::Connect { .. } => OpKind::Connect,
            Self::Receive { .. } => OpKind::Receive,
            Self::ReceiveMulti { .. } => OpKind::ReceiveMulti,
            Self::Send { .. } => OpKind::Send,
            Self::SendZeroCopy { .. } => OpKind::SendZeroCopy,
            Self::SendMessage { .. } => OpKind::SendVectored,
            Self::Read { .. } | Self::ReadProvided { .. } => OpKind::Read,
            Self::Write { .. } => OpKind::Write,
            Self::Sync { .. } => OpKind::Sync,
            Self::Open { .. } => OpKind::Open,
            Self::Status { .. } => OpKind::Status,
            Self::Close { .. } => OpKind::Close,
            Self::Poll { .. } | Self::PollMulti { .. } => OpKind::Poll,
            Self::Cancel { .. } => OpKind::Cancel,
        }
    }
}
