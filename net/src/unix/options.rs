//! How a Unix socket listens, and what becomes of its file.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use quoit::op::Socket;

use super::UnixAddress;
use super::path_lock::PathLock;

/// Options of Unix listeners.
#[derive(Debug, Clone)]
pub struct UnixOptions {
    backlog: i32,
    mode: Option<u32>,
}

impl Default for UnixOptions {
    fn default() -> Self {
        Self {
            backlog: 1024,
            mode: None,
        }
    }
}

/// A socket that listens, and the file that goes with it.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) socket: Socket,
    pub(crate) place: Place,
}

/// The file of a listener, removed when this is dropped at the latest, if it is still ours. That is while the
/// socket listens: until then nobody else takes the file for one that he may remove, and no other file can
/// have its number.
#[derive(Debug)]
pub(crate) struct Place {
    /// With its device and inode; `None` for an abstract name, and when it was removed.
    file: Mutex<Option<(PathBuf, (u64, u64))>>,
}

impl UnixOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections may wait to be accepted. Default 1024; the kernel cuts it to
    /// `net.core.somaxconn`. Whoever connects past that waits. `listen(2)`.
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = i32::try_from(connections).unwrap_or(i32::MAX);
        self
    }

    /// The mode of the socket's file, such as `0o660`: who may write to it may connect. It holds
    /// before the first can connect. Default: what the process's `umask(2)` leaves. An abstract name
    /// has none.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Binds an address and listens.
    pub(crate) fn listen(&self, address: &UnixAddress) -> io::Result<Bound> {
        self.bind(address).map_err(|error| explain(address, &error))
    }

    fn bind(&self, address: &UnixAddress) -> io::Result<Bound> {
        let told = address.to_sock_addr()?;
        let socket = Socket::unix()?;
        // Until it listens: a socket that is only bound looks as one that was left behind.
        let _lock = address.as_path().map(PathLock::take).transpose()?;
        match socket.bind_to(&told) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                remove_if_stale(address)?;
                socket.bind_to(&told)?;
            }
            bound => bound?,
        }
        let place = Place::of(address)?;
        if let (Some(mode), Some(path)) = (self.mode, address.as_path()) {
            // Nobody can connect before it listens.
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        socket.listen(self.backlog)?;
        Ok(Bound { socket, place })
    }
}

/// Removes the file of a socket that nobody listens on: of a process that was killed.
fn remove_if_stale(address: &UnixAddress) -> io::Result<()> {
    let in_use = || io::Error::from_raw_os_error(libc::EADDRINUSE);
    let path = address.as_path().ok_or_else(in_use)?;
    let is_socket = fs::symlink_metadata(path).map(|found| found.file_type().is_socket());
    match is_socket {
        Ok(true) => {}
        Ok(false) => {
            let what = "a file that is no socket is there";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        // It has gone by itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // On a socket that does not block: one that lives and has a full queue says EAGAIN.
    match probe(path)? {
        Some(libc::ECONNREFUSED) => fs::remove_file(path),
        Some(libc::ENOENT) => Ok(()),
        _ => Err(in_use()),
    }
}

/// Returns why a connection is refused, if it is. Fails where nobody could be asked.
fn probe(path: &Path) -> io::Result<Option<i32>> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let refused = socket.connect(&socket2::SockAddr::unix(path)?).err();
    Ok(refused.and_then(|error| error.raw_os_error()))
}

impl Place {
    fn of(address: &UnixAddress) -> io::Result<Self> {
        let file = match address.as_path() {
            Some(path) => {
                // A process that changes its folder later still means this one.
                let path = std::path::absolute(path)?;
                let found = fs::symlink_metadata(&path)?;
                Some((path, (found.dev(), found.ino())))
            }
            None => None,
        };
        Ok(Self {
            file: Mutex::new(file),
        })
    }

    /// Removes the file: nobody finds the socket any more.
    pub(crate) fn remove(&self) {
        let file = self
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some((path, ours)) = file else {
            return;
        };
        // Somebody may have put another in its place.
        let found = fs::symlink_metadata(&path).map(|found| (found.dev(), found.ino()));
        if found.is_ok_and(|found| found == ours) {
            // It may be gone in this moment; nobody is there to be told.
            let _ = fs::remove_file(&path);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Says what failed and what to do.
fn explain(address: &UnixAddress, error: &io::Error) -> io::Error {
    let remedy = match error.raw_os_error() {
        None if error.kind() == io::ErrorKind::AddrInUse => "; choose another path, or try again",
        Some(libc::EADDRINUSE) => ": another program listens there; choose another path",
        Some(libc::EACCES) => ": the folder has to be writable, and its parents searchable",
        Some(libc::ENOENT) => ": the folder has to be there",
        Some(libc::EMFILE) => ": this process has no descriptor left: raise ulimit -n",
        Some(libc::ELOOP) => ": PATH.quoit-lock beside it is not to be a link",
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("cannot listen on {address}: {error}{remedy}"),
    )
}
