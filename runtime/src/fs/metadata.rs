//! What the kernel says of a file.

use std::time::{Duration, SystemTime};

/// A file's size, times and kind.
#[derive(Clone, Copy)]
pub struct Metadata(libc::statx);

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata")
            .field("len", &self.len())
            .field("mode", &format_args!("{:o}", self.mode()))
            .field("modified", &self.modified())
            .finish_non_exhaustive()
    }
}

impl Metadata {
    pub(super) fn new(status: libc::statx) -> Self {
        Self(status)
    }

    /// Returns the size in bytes.
    pub fn len(&self) -> u64 {
        self.0.stx_size
    }

    /// Returns whether the size is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == libc::S_IFREG
    }

    /// Returns whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// Returns when the contents last changed.
    pub fn modified(&self) -> SystemTime {
        let seconds = self.0.stx_mtime.tv_sec;
        let past = Duration::from_secs(seconds.unsigned_abs());
        let whole = if seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(past)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(past)
        };
        whole.unwrap_or(SystemTime::UNIX_EPOCH)
            + Duration::from_nanos(u64::from(self.0.stx_mtime.tv_nsec))
    }

    /// Returns the inode's number.
    pub fn inode(&self) -> u64 {
        self.0.stx_ino
    }

    /// Returns kind and permissions. `inode(7)`.
    pub fn mode(&self) -> u32 {
        u32::from(self.0.stx_mode)
    }

    fn kind(&self) -> u32 {
        self.mode() & libc::S_IFMT
    }
}
