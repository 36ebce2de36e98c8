//! `Folder`: opens what lies beneath it, and lists it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{File, Metadata, OpenOptions};
use crate::driver::sys;
use crate::op::SharedFd;

/// An open folder.
#[derive(Debug, Clone)]
pub struct Folder {
    file: File,
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// What it is, as far as the folder itself says.
    pub kind: EntryKind,
}

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A socket, a pipe, a device, or the file system does not say.
    Other,
}

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// Those of `openat2(2)`; `NotADirectory` if it is none.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let options = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY);
        options.open(path).await.map(|file| Self { file })
    }

    /// Opens a file or folder beneath this one.
    ///
    /// A path that leads out, by `..`, by a symbolic link, or by being absolute, fails with
    /// `CrossesDevices` (`EXDEV`): the kernel sees to it while it walks the path, so no race with
    /// somebody who moves folders gets past (`RESOLVE_BENEATH`, `openat2(2)`). The links below
    /// `/proc` that are no paths at all are not followed either (`ELOOP`).
    ///
    /// Where a path goes up (`..`) while somebody renames something on this machine, the kernel cannot tell; then it is
    /// walked anew, some times, before that is an error (`WouldBlock`).
    ///
    /// # Errors
    ///
    /// Those of `openat2(2)`.
    pub async fn open_beneath(
        &self,
        path: impl AsRef<Path>,
        options: &OpenOptions,
    ) -> io::Result<File> {
        let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
        options
            .open_in(Some(self.fd()), path.as_ref(), resolve)
            .await
    }

    /// Lists the folder, in no particular order, without `.` and `..`.
    ///
    /// There is no request of the ring for this: the folder is read in slices of 32 KiB, a system
    /// call each, and other tasks run in between.
    ///
    /// # Errors
    ///
    /// Those of `getdents64(2)`, and [`Cancelled`](crate::Cancelled).
    pub async fn entries(&self) -> io::Result<Vec<Entry>> {
        // Opened anew, for a position of our own.
        let own = self
            .open_beneath(
                ".",
                &OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_DIRECTORY),
            )
            .await?;
        let mut entries = Vec::new();
        let mut slice = vec![0; 32 * 1024];
        loop {
            let filled = sys::read_folder(own.fd().open_number()?, &mut slice)?;
            if filled == 0 {
                return Ok(entries);
            }
            parse(&slice[..filled], &mut entries);
            crate::yield_now().await?;
        }
    }

    /// Returns the folder's times and kind. `statx(2)`.
    ///
    /// # Errors
    ///
    /// Those of `statx(2)`.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Returns the descriptor.
    pub fn fd(&self) -> &SharedFd {
        self.file.fd()
    }
}

/// A file that was opened and turned out to be a folder.
impl From<File> for Folder {
    fn from(file: File) -> Self {
        Self { file }
    }
}

/// Reads records of `getdents64(2)`: inode (8 bytes), offset (8), length of the record (2), kind
/// (1), name up to a NUL.
fn parse(mut records: &[u8], into: &mut Vec<Entry>) {
    while records.len() > NAME {
        let length = usize::from(u16::from_ne_bytes([records[16], records[17]]));
        let record = &records[..length.clamp(NAME, records.len())];
        records = &records[record.len()..];
        let kind = match record[18] {
            libc::DT_REG => EntryKind::File,
            libc::DT_DIR => EntryKind::Folder,
            libc::DT_LNK => EntryKind::Link,
            _ => EntryKind::Other,
        };
        let name = record[NAME..]
            .split(|&byte| byte == 0)
            .next()
            .unwrap_or_default();
        if name != b"." && name != b".." {
            into.push(Entry {
                name: OsStr::from_bytes(name).to_owned(),
                kind,
            });
        }
    }
}

/// Where a record's name begins.
const NAME: usize = 19;
