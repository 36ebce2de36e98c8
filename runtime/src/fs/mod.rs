//! Files and folders, by way of the ring.
//!
//! Positions are explicit: a file has no cursor that two tasks could fight over. [`Folder`] opens
//! what lies beneath it and nothing else: no `..`, no symbolic link, however it is spelled, leads
//! out.
//!
//! Whatever waits here, but for [`File::close`], fails with [`Cancelled`](crate::Cancelled) in a cancelled scope before
//! it has begun. What the kernel has begun on a regular file cannot be ended: its result is returned, and the scope
//! ends after it.
//!
//! What has to wait for a disk, the kernel does on threads of its own. Where the process may have no more threads, it
//! fails with `ECANCELED` ("Operation canceled"), which is no [`Cancelled`](crate::Cancelled).

mod folder;
mod metadata;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use io_uring::types::OpenHow;

pub use folder::{Entry, EntryKind, Folder};
pub use metadata::Metadata;

use crate::buf::{BufResult, Interrupted, IoBuf, IoBufMut, SliceExt};
use crate::driver::sys;
use crate::kernel_op::KernelOp;
use crate::kernel_op::at_once::AtOnce;
use crate::kernel_op::ops;
use crate::op::{self, SharedFd};

/// An open file.
///
/// Dropped, it is closed once no op uses it.
#[derive(Debug, Clone)]
pub struct File {
    fd: SharedFd,
}

/// How a file is opened. `openat2(2)`.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    extra: i32,
    mode: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! switches {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        $($(#[doc = $doc])+
        #[must_use]
        pub fn $name(mut self, $name: bool) -> Self {
            self.$name = $name;
            self
        })+
    };
}

impl OpenOptions {
    /// Nothing switched on yet.
    pub fn new() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            extra: 0,
            mode: 0o666,
        }
    }

    switches! {
        /// For reading.
        read,
        /// For writing.
        write,
        /// For writing, always at the end.
        append,
        /// Empties the file first.
        truncate,
        /// Creates the file if it is not there.
        create,
        /// Creates the file, and fails if it is there.
        create_new,
    }

    /// The permissions of a file that is created, before the process's umask. Default `0o666`.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// More flags of `open(2)`, such as `libc::O_NONBLOCK`.
    #[must_use]
    pub fn custom_flags(mut self, flags: i32) -> Self {
        self.extra = flags;
        self
    }

    /// Opens `path`, relative to the process's working folder.
    ///
    /// A FIFO may be opened as if with `O_NONBLOCK`, since io_uring tries that first: for reading it is there before
    /// anybody writes, and for writing the open fails with `ENXIO` while nobody reads. Where the other end is to be waited
    /// for, open it on a thread ([`blocking`](crate::blocking)).
    ///
    /// # Errors
    ///
    /// Those of `openat2(2)`; `InvalidInput` for switches that make no sense together, and for a
    /// path with a NUL in it.
    pub async fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        self.open_in(None, path.as_ref(), 0).await
    }

    async fn open_in(
        &self,
        folder: Option<&SharedFd>,
        path: &Path,
        resolve: u64,
    ) -> io::Result<File> {
        let flags = self.flags()?;
        let mut how = OpenHow::new().flags(flags as u64).resolve(resolve);
        if flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE {
            // The kernel wants no mode where nothing can be created.
            how = how.mode(u64::from(self.mode));
        }
        let mut walks = if resolve & libc::RESOLVE_BENEATH != 0 {
            MOST_WALKS
        } else {
            1
        };
        let fd = loop {
            let operation = ops::Open {
                path: c_path(path)?,
                how,
            };
            walks -= 1;
            match KernelOp::new(operation, folder.cloned()).await {
                // Something was renamed meanwhile, wherever it was: the kernel cannot tell whether `..` leads out.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && walks > 0 => {}
                opened => break opened?,
            }
        };
        if self.only_reads_through_the_cache() {
            // Who reads it once need not be asked first what it is.
            fd.set_at_once(AtOnce::Reads);
        }
        Ok(File { fd })
    }

    fn only_reads_through_the_cache(&self) -> bool {
        self.read && !self.write && !self.append && self.extra & libc::O_DIRECT == 0
    }

    fn flags(&self) -> io::Result<i32> {
        let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let writes = self.write || self.append;
        let mut flags = match (self.read, writes) {
            (true, false) => libc::O_RDONLY,
            (false, true) => libc::O_WRONLY,
            (true, true) => libc::O_RDWR,
            (false, false) => return wrong("a file is opened for reading, writing or appending"),
        };
        if (self.truncate || self.create || self.create_new) && !writes {
            return wrong("a file is emptied or created only when it is opened for writing");
        }
        if self.append && self.truncate {
            return wrong("a file is emptied or appended to, not both");
        }
        flags |= if self.append { libc::O_APPEND } else { 0 };
        flags |= if self.truncate { libc::O_TRUNC } else { 0 };
        flags |= if self.create { libc::O_CREAT } else { 0 };
        flags |= if self.create_new {
            libc::O_CREAT | libc::O_EXCL
        } else {
            0
        };
        Ok(flags | libc::O_CLOEXEC | self.extra)
    }
}

/// How often a path beneath a folder is walked at most. To rename takes longer than to walk, so that a second time is
/// rare; and whoever renames without end is not to keep us for ever.
const MOST_WALKS: u32 = 16;

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// Those of `openat2(2)`.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path).await
    }

    /// Opens a file for writing, empty; creates it if it is not there.
    ///
    /// # Errors
    ///
    /// Those of `openat2(2)`.
    pub async fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .await
    }

    /// Reads at `offset` into a buffer, from its start; 0 at the end of the file. `pread(2)`.
    ///
    /// # Errors
    ///
    /// Those of `pread(2)`.
    pub async fn read_at<B: IoBufMut>(&self, buf: B, offset: u64) -> BufResult<usize, B> {
        op::read_at(&self.fd, buf, offset).await
    }

    /// Writes at `offset`; returns how much. `pwrite(2)`.
    ///
    /// # Errors
    ///
    /// Those of `pwrite(2)`.
    pub async fn write_at<B: IoBuf>(&self, buf: B, offset: u64) -> BufResult<usize, B> {
        op::write_at(&self.fd, buf, offset).await
    }

    /// Writes all of a buffer at `offset`.
    ///
    /// # Errors
    ///
    /// Those of `pwrite(2)`; an [`Interrupted`] inside says how much was written before.
    pub async fn write_all_at<B: IoBuf>(&self, buf: B, offset: u64) -> BufResult<(), B> {
        let (total, mut buf) = (buf.len(), buf);
        if total == 0 {
            return (op::nothing_on(&self.fd).await, buf);
        }
        let mut written = 0;
        while written < total {
            let at = offset.saturating_add(written as u64);
            let (result, rest) = op::write_at(&self.fd, buf.slice(written..), at).await;
            buf = rest.into_inner();
            match result {
                Ok(0) => {
                    return (
                        Err(Interrupted::after(written, io::ErrorKind::WriteZero.into())),
                        buf,
                    );
                }
                Ok(count) => written += count,
                Err(error) => return (Err(Interrupted::after(written, error)), buf),
            }
        }
        (Ok(()), buf)
    }

    /// Makes what was written durable, with the file's metadata. `fsync(2)`.
    ///
    /// # Errors
    ///
    /// Those of `fsync(2)`.
    pub async fn sync_all(&self) -> io::Result<()> {
        KernelOp::new(ops::Sync { data_only: false }, Some(self.fd.clone())).await
    }

    /// Makes what was written durable, without metadata that reading it does not need.
    /// `fdatasync(2)`.
    ///
    /// # Errors
    ///
    /// Those of `fdatasync(2)`.
    pub async fn sync_data(&self) -> io::Result<()> {
        KernelOp::new(ops::Sync { data_only: true }, Some(self.fd.clone())).await
    }

    /// Returns the file's size, times and kind. `statx(2)`.
    ///
    /// A plain system call: of an open file the kernel has this in memory, while the ring hands
    /// every such request to a worker thread, which costs twenty times as much. A network file
    /// system may ask its server, and hold up the core meanwhile; [`metadata`] never does.
    ///
    /// # Errors
    ///
    /// Those of `statx(2)`; [`Closed`](crate::Closed). Never `Cancelled`: it waits for nothing.
    pub fn metadata(&self) -> io::Result<Metadata> {
        sys::status(self.fd.open_number()?).map(Metadata::new)
    }

    /// Closes the file, for all who have it, by way of the ring, where the kernel may take its time, and
    /// reports its error; see [`op::close`].
    ///
    /// # Errors
    ///
    /// As for [`op::close`].
    pub fn close(self) -> impl Future<Output = io::Result<()>> {
        op::close(self.fd)
    }

    /// Returns the descriptor.
    pub fn fd(&self) -> &SharedFd {
        &self.fd
    }
}

/// Returns the size, times and kind of what `path` leads to, by way of the ring. `statx(2)`.
///
/// # Errors
///
/// Those of `statx(2)`; `InvalidInput` for a path with a NUL in it.
pub async fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let status = ops::Status::new(c_path(path.as_ref())?, 0);
    KernelOp::new(status, None)
        .await
        .map(|status| Metadata::new(*status))
}

/// Returns the size, times and kind of `path` itself, which may be a symbolic link, by way of the
/// ring. `statx(2)`.
///
/// # Errors
///
/// As for [`metadata`].
pub async fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let status = ops::Status::new(c_path(path.as_ref())?, libc::AT_SYMLINK_NOFOLLOW);
    KernelOp::new(status, None)
        .await
        .map(|status| Metadata::new(*status))
}

impl From<SharedFd> for File {
    fn from(fd: SharedFd) -> Self {
        Self { fd }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the path {} has a NUL in it", path.display()),
        )
    })
}
