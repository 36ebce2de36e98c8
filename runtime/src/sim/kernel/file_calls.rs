//! What is asked of files: opening, reading, writing, describing, listing.

use super::files::{Contents, Ino, OpenFile, ROOT, Walk};
use super::{FIRST_FD, Kernel, Kind, ObjectId};
use crate::buf::door;
use crate::kernel_op::request::{CURRENT_POSITION, Request};
use crate::sim::fault::Fault;

/// What is asked of a file.
pub(crate) enum FileCall {
    Read { most: usize, offset: u64 },
    Write { bytes: Vec<u8>, offset: u64 },
    Asked(Request),
}

impl FileCall {
    pub(crate) fn read(most: usize, offset: u64) -> Self {
        Self::Read { most, offset }
    }

    pub(crate) fn write(bytes: Vec<u8>, offset: u64) -> Self {
        Self::Write { bytes, offset }
    }
}

impl From<Request> for FileCall {
    fn from(request: Request) -> Self {
        Self::Asked(request)
    }
}

impl Kernel {
    /// Does what is asked of a file, or of the folder that a path starts from.
    pub(crate) fn call_file(
        &mut self,
        object: Option<ObjectId>,
        call: impl Into<FileCall>,
    ) -> Result<i32, i32> {
        match call.into() {
            FileCall::Read { most, offset } => self.read_file(object, most, offset),
            FileCall::Write { bytes, offset } => self.write_file(object, &bytes, offset),
            FileCall::Asked(Request::Sync { .. }) => {
                let errors = [libc::EIO, libc::ENOSPC, libc::EDQUOT];
                match self.refused(Fault::SyncFails, &errors) {
                    Some(errno) => Err(errno),
                    None => self.file(object).map(|_| 0),
                }
            }
            FileCall::Asked(Request::Open { path, how, .. }) => {
                let errors = [
                    libc::EMFILE,
                    libc::ENFILE,
                    libc::ENOMEM,
                    libc::EACCES,
                    libc::EPERM,
                    libc::EINTR,
                    libc::ENOSPC,
                    libc::EDQUOT,
                    libc::EROFS,
                    libc::EOVERFLOW,
                ];
                if let Some(errno) = self.refused(Fault::OpenFails, &errors) {
                    return Err(errno);
                }
                let (path, how) = (door::path(path), door::open_how(how));
                let [_, _, resolve] = how;
                if resolve & libc::RESOLVE_BENEATH != 0
                    && path.split(|&byte| byte == b'/').any(|part| part == b"..")
                    && self.comes(Fault::RenamedMeanwhile)
                {
                    return Err(libc::EAGAIN);
                }
                self.open_file(object, path, how)
            }
            FileCall::Asked(Request::Status {
                path, flags, into, ..
            }) => {
                if let Some(errno) = self.refused(Fault::StatusFails, &[libc::ENOMEM, libc::EACCES])
                {
                    return Err(errno);
                }
                if path == 0 {
                    return Err(libc::EFAULT);
                }
                let start = self.start(object)?;
                let walk = Walk::new(start, flags, 0);
                let found = self.files.walk(walk, door::path(path))?;
                let status = self.status_of(found.ino.ok_or(libc::ENOENT)?);
                door::status(into, &status);
                Ok(0)
            }
            FileCall::Asked(_) => Err(libc::EINVAL),
        }
    }

    pub(super) fn file(&mut self, object: Option<ObjectId>) -> Result<&mut OpenFile, i32> {
        let object = object.ok_or(libc::EBADF)?;
        match &mut self.object_mut(object).kind {
            Kind::File(file) => Ok(file),
            _ => Err(libc::EINVAL),
        }
    }

    pub(super) fn start(&mut self, object: Option<ObjectId>) -> Result<Ino, i32> {
        match object {
            None => Ok(ROOT),
            Some(_) => Ok(self.file(object).map_err(|_| libc::ENOTDIR)?.ino),
        }
    }

    pub(super) fn open_file(
        &mut self,
        object: Option<ObjectId>,
        path: Vec<u8>,
        [flags, mode, resolve]: [u64; 3],
    ) -> Result<i32, i32> {
        // The path is fetched before anything is looked at (`getname`).
        if path.is_empty() {
            return Err(libc::ENOENT);
        }
        if path.len() >= libc::PATH_MAX as usize {
            return Err(libc::ENAMETOOLONG);
        }
        if flags & !KNOWN_FLAGS != 0 || mode & !0o7777 != 0 {
            return Err(libc::EINVAL);
        }
        let flags = flags as i32;
        if flags & libc::O_PATH != 0 && flags & !(libc::O_PATH | WITH_PATH) != 0 {
            return Err(libc::EINVAL);
        }
        let start = self.start(object)?;
        let follow = if flags & libc::O_NOFOLLOW != 0 || flags & libc::O_EXCL != 0 {
            libc::AT_SYMLINK_NOFOLLOW
        } else {
            0
        };
        // `O_CREAT` makes no folders; refused since 6.4 (open(2), bugs).
        if flags & libc::O_CREAT != 0 && flags & libc::O_DIRECTORY != 0 {
            return Err(libc::EINVAL);
        }
        // Before anything is made or emptied (`io_openat2`).
        if !self.has_descriptor() {
            return Err(libc::EMFILE);
        }
        let unnamed = flags & libc::O_TMPFILE == libc::O_TMPFILE;
        if unnamed && flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(libc::EINVAL);
        }
        let now = self.wall_nanos();
        let mode = libc::S_IFREG | (mode as u32 & !0o022);
        let creates = flags & libc::O_CREAT != 0;
        let mut walk = Walk::new(start, follow, resolve);
        walk.creates = creates;
        let found = self.files.walk(walk, path)?;
        let ino = match found.ino {
            Some(_) if flags & libc::O_EXCL != 0 && creates => return Err(libc::EEXIST),
            Some(folder) if unnamed => {
                self.files.entries(folder)?;
                self.files.add(Contents::File(Vec::new()), mode, now)
            }
            Some(ino) => ino,
            None if !creates => return Err(libc::ENOENT),
            None => {
                let ino = self.files.add(Contents::File(Vec::new()), mode, now);
                self.files.name(found.folder, &found.name, ino);
                self.files.inode(found.folder).modified = now;
                ino
            }
        };
        // What is emptied is written to, however it is opened (`build_open_flags`).
        let empties = flags & libc::O_TRUNC != 0;
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || empties;
        let inode = self.files.inode(ino);
        match &mut inode.what {
            Contents::Folder(_) if writes || creates => return Err(libc::EISDIR),
            Contents::Folder(_) => {}
            Contents::File(_) | Contents::Link(_) if flags & libc::O_DIRECTORY != 0 && !unnamed => {
                return Err(libc::ENOTDIR);
            }
            Contents::Link(_) if flags & libc::O_PATH == 0 => return Err(libc::ELOOP),
            Contents::File(bytes) if empties => {
                bytes.clear();
                // Also of one that was empty (open(2)).
                inode.modified = now;
            }
            Contents::File(_) | Contents::Link(_) => {}
        }
        inode.uses += 1;
        let object = self.make(Kind::File(OpenFile {
            ino,
            flags,
            position: 0,
            listed: 0,
        }));
        let opened = self.open(object, "open");
        if opened.is_err() {
            self.release(object);
        }
        opened
    }

    pub(super) fn read_file(
        &mut self,
        object: Option<ObjectId>,
        most: usize,
        offset: u64,
    ) -> Result<i32, i32> {
        let file = self.file(object)?;
        let (ino, flags, position) = (file.ino, file.flags, file.position);
        if flags & libc::O_ACCMODE == libc::O_WRONLY || flags & libc::O_PATH != 0 {
            return Err(libc::EBADF);
        }
        if is_past_the_end(offset, most) {
            return Err(libc::EINVAL);
        }
        let at = if offset == CURRENT_POSITION {
            position
        } else {
            offset
        };
        let bytes = match &self.files.inode(ino).what {
            Contents::File(bytes) => bytes,
            // The ring asks a file without `read_iter` only as long as something is left to be read.
            _ if most == 0 => &Vec::new(),
            _ => return Err(libc::EISDIR),
        };
        let begin = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let read = bytes[begin..begin.saturating_add(most).min(bytes.len())].to_vec();
        if let Some(errno) = self.refused(Fault::ReadFails, &[libc::EIO]) {
            return Err(errno);
        }
        let count = read.len();
        self.files.last_read = read;
        if offset == CURRENT_POSITION {
            self.file(object)?.position = at + count as u64;
        }
        Ok(count as i32)
    }

    pub(super) fn write_file(
        &mut self,
        object: Option<ObjectId>,
        bytes: &[u8],
        offset: u64,
    ) -> Result<i32, i32> {
        let file = self.file(object)?;
        let (ino, flags, position) = (file.ino, file.flags, file.position);
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(libc::EBADF);
        }
        if is_past_the_end(offset, bytes.len()) {
            return Err(libc::EINVAL);
        }
        let errors = [libc::EIO, libc::ENOSPC, libc::EDQUOT];
        if let Some(errno) = self.refused(Fault::WriteFails, &errors) {
            return Err(errno);
        }
        if bytes.is_empty() {
            // Nothing is written: neither the length nor the time changes.
            return Ok(0);
        }
        let now = self.wall_nanos();
        let inode = self.files.inode(ino);
        inode.modified = now;
        let Contents::File(contents) = &mut inode.what else {
            return Err(libc::EISDIR);
        };
        let at = if flags & libc::O_APPEND != 0 {
            contents.len() as u64
        } else if offset == CURRENT_POSITION {
            position
        } else {
            offset
        };
        let begin = usize::try_from(at)
            .ok()
            .filter(|begin| *begin <= MAX_FILE - bytes.len().min(MAX_FILE))
            .ok_or(libc::EFBIG)?;
        if contents.len() < begin + bytes.len() {
            contents.resize(begin + bytes.len(), 0);
        }
        contents[begin..begin + bytes.len()].copy_from_slice(bytes);
        if offset == CURRENT_POSITION {
            self.file(object)?.position = at + bytes.len() as u64;
        }
        Ok(bytes.len() as i32)
    }

    pub(super) fn status_of(&mut self, ino: Ino) -> libc::statx {
        let inode = self.files.inode(ino);
        let mut status = crate::driver::sys::empty_status();
        status.stx_mask = libc::STATX_BASIC_STATS;
        status.stx_mode = inode.mode as u16;
        status.stx_ino = ino;
        status.stx_nlink = 1;
        status.stx_blksize = 4096;
        status.stx_size = match &inode.what {
            Contents::File(bytes) => bytes.len() as u64,
            Contents::Folder(entries) => entries.len() as u64,
            Contents::Link(target) => target.len() as u64,
        };
        status.stx_mtime.tv_sec = inode.modified.div_euclid(1_000_000_000);
        status.stx_mtime.tv_nsec = inode.modified.rem_euclid(1_000_000_000) as u32;
        status
    }

    pub(crate) fn status_of_descriptor(&mut self, fd: i32) -> Result<libc::statx, i32> {
        let object = self.look_up(fd)?;
        let ino = match &self.object(object).kind {
            Kind::File(file) => file.ino,
            kind => {
                let mode = match kind {
                    Kind::Socket(_) => libc::S_IFSOCK,
                    _ => libc::S_IFIFO,
                };
                let mut status = crate::driver::sys::empty_status();
                status.stx_mask = libc::STATX_BASIC_STATS;
                status.stx_mode = (mode | 0o600) as u16;
                status.stx_ino = (fd - FIRST_FD) as u64;
                return Ok(status);
            }
        };
        Ok(self.status_of(ino))
    }

    /// Lists a folder as `getdents64(2)` does: as many records as fit.
    pub(crate) fn list(&mut self, fd: i32, buffer: &mut [u8]) -> Result<usize, i32> {
        let object = self.look_up(fd)?;
        let file = self.file(Some(object)).map_err(|_| libc::ENOTDIR)?;
        let (ino, listed) = (file.ino, file.listed);
        let mut names = vec![(b".".to_vec(), ino), (b"..".to_vec(), ino)];
        let entries = self.files.entries(ino)?;
        names.extend(entries.iter().map(|(name, ino)| (name.clone(), *ino)));
        let mut filled = 0;
        let mut count = listed;
        for (name, ino) in names.iter().skip(listed) {
            let length = (19 + name.len() + 1).next_multiple_of(8);
            if filled + length > buffer.len() {
                break;
            }
            let kind = match self.files.inode(*ino).what {
                Contents::File(_) => libc::DT_REG,
                Contents::Folder(_) => libc::DT_DIR,
                Contents::Link(_) => libc::DT_LNK,
            };
            let record = &mut buffer[filled..filled + length];
            record.fill(0);
            record[..8].copy_from_slice(&ino.to_ne_bytes());
            record[8..16].copy_from_slice(&(count as u64 + 1).to_ne_bytes());
            record[16..18].copy_from_slice(&(length as u16).to_ne_bytes());
            record[18] = kind;
            record[19..19 + name.len()].copy_from_slice(name);
            filled += length;
            count += 1;
        }
        if filled == 0 && count < names.len() {
            return Err(libc::EINVAL);
        }
        self.file(Some(object))?.listed = count;
        Ok(filled)
    }
}

/// Whether this reaches beyond the last place that any file can have. `rw_verify_area`.
pub(super) fn is_past_the_end(offset: u64, length: usize) -> bool {
    let last = i64::MAX as u64;
    offset != CURRENT_POSITION && length > 0 && offset > last.saturating_sub(length as u64)
}

/// More than any simulated file may have: they lie in memory.
const MAX_FILE: usize = 1 << 30;

/// `VALID_OPEN_FLAGS`, which `openat2(2)` demands.
const KNOWN_FLAGS: u64 = (libc::O_ACCMODE
    | libc::O_CREAT
    | libc::O_EXCL
    | libc::O_NOCTTY
    | libc::O_TRUNC
    | libc::O_APPEND
    | libc::O_NONBLOCK
    | libc::O_SYNC
    | libc::O_ASYNC
    | libc::O_DIRECT
    | libc::O_LARGEFILE
    | libc::O_DIRECTORY
    | libc::O_NOFOLLOW
    | libc::O_NOATIME
    | libc::O_CLOEXEC
    | libc::O_PATH
    | libc::O_TMPFILE) as u64;

/// What may stand beside `O_PATH`. `O_PATH_FLAGS`.
const WITH_PATH: i32 = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
