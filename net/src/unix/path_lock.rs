//! `PathLock`: the right to look at the path of a socket and to change what is there, one program at a time.
//!
//! Whether a socket is stale is seen by asking it, and one that is stale is removed by its name: between the
//! two another program may have put its own in place, and one that is bound and does not listen yet looks
//! stale. So whoever binds at a path holds its lock from before it looks until it listens.
//!
//! ```text
//!                      open, lock                      drop
//!   (no file beside) ─────────────► PATH.quoit-lock ──────────► (no file beside)
//! ```
//!
//! It is a lock (`flock(2)`) on a file beside the socket, which lasts for a moment and goes with it. A process
//! that is killed in that moment leaves the file behind, empty and unlocked: the next takes it over. A lock on
//! the folder would need no file, and others lock folders for reasons of their own.
//!
//! Invariants:
//! - Nobody waits for the lock: whoever has it listens in a moment.
//! - The file is removed by whoever has it locked, and a lock on a file that was removed counts for nothing.
//! - Programs that know nothing of the lock are not kept apart by it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A lock that we hold.
#[derive(Debug)]
pub(super) struct PathLock {
    path: PathBuf,
    /// Locked, and unlocked when it is closed: after the file was removed.
    _locked: File,
}

impl PathLock {
    /// Locks the path of a socket. `AddrInUse` if somebody else has it locked.
    pub(super) fn take(socket: &Path) -> io::Result<Self> {
        let path = beside(socket);
        loop {
            let file = open(&path)?;
            if let Some(lock) = Self::lock(&path, file)? {
                return Ok(lock);
            }
        }
    }

    /// Locks the file that lies at `path`; `None` if it has gone from there since it was opened.
    fn lock(path: &Path, file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another program is about to listen there";
                return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let ours = file.metadata()?;
        let is_there = match fs::symlink_metadata(path) {
            Ok(found) => (found.dev(), found.ino()) == (ours.dev(), ours.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(is_there.then(|| Self {
            path: path.to_owned(),
            _locked: file,
        }))
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // Left behind it harms nobody, and nobody is there to be told.
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens the file, which is made if it is not there. Reading is enough for a lock, and also another user's
/// file can be read; a link is not followed, and nobody at the other end of a pipe waited for.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_CREAT | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags).open(path)
}

fn beside(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".quoit-lock");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of this test's own, the path of a socket in it, and that of its lock.
    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let lock = beside(&socket);
        (folder, socket, lock)
    }

    #[test]
    fn one_at_a_time_has_the_lock_and_nothing_is_left_of_it() {
        let (_folder, socket, lock) = place();
        let first = PathLock::take(&socket).expect("it is free");
        let error = PathLock::take(&socket).expect_err("somebody has it");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(lock.exists(), "who was refused took nothing away");
        drop(first);
        assert!(!lock.exists());
        drop(PathLock::take(&socket).expect("it is free again"));
    }

    /// The second opens the file before the first is done, and locks it afterwards.
    #[test]
    fn a_lock_on_a_file_that_has_gone_counts_for_nothing() {
        for another in [false, true] {
            let (_folder, socket, lock) = place();
            let first = PathLock::take(&socket).expect("it is free");
            let opened = open(&lock).expect("it is there");
            drop(first);
            let third = another.then(|| PathLock::take(&socket).expect("it is free"));
            let second = PathLock::lock(&lock, opened).expect("nobody has it locked");
            assert!(second.is_none(), "another is there: {another}");
            assert_eq!(lock.exists(), another, "it has taken nothing away");
            drop(third);
        }
    }

    #[test]
    fn a_lock_that_a_killed_process_left_is_taken_over() {
        let (_folder, socket, lock) = place();
        fs::write(&lock, "").expect("a new file");
        drop(PathLock::take(&socket).expect("nobody has it locked"));
        assert!(!lock.exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let (folder, socket, lock) = place();
        let aim = folder.path().join("aim");
        std::os::unix::fs::symlink(&aim, &lock).expect("a new link");
        let error = PathLock::take(&socket).expect_err("a link");
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        assert!(!aim.exists());
    }
}
