//! Files and folders, in memory.
//!
//! One tree, whose root is also the working folder. Contents last as long as a name or a descriptor
//! leads to them. There are no permissions: whoever runs the simulation may do everything.

use std::collections::BTreeMap;

pub(super) type Ino = u64;

pub(super) const ROOT: Ino = 1;

/// How many symbolic links one path may have. `path_resolution(7)`.
const MAX_LINKS: u32 = 40;

/// How many bytes a name may have. `NAME_MAX`, `pathconf(3)`.
const MAX_NAME: usize = 255;

#[derive(Debug)]
pub(super) struct Inode {
    pub(super) what: Contents,
    pub(super) mode: u32,
    /// Names that lead here, and descriptors.
    pub(super) uses: u32,
    /// Nanoseconds since 1970.
    pub(super) modified: i64,
}

#[derive(Debug)]
pub(super) enum Contents {
    File(Vec<u8>),
    Folder(BTreeMap<Vec<u8>, Ino>),
    Link(Vec<u8>),
}

/// A file as a descriptor sees it.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(super) ino: Ino,
    pub(super) flags: i32,
    pub(super) position: u64,
    /// Entries of a folder that were listed already.
    pub(super) listed: usize,
}

/// All files.
#[derive(Debug)]
pub(crate) struct FileTree {
    pub(super) inodes: BTreeMap<Ino, Inode>,
    pub(super) next: Ino,
    /// What the last read has read.
    pub(crate) last_read: Vec<u8>,
}

impl Default for FileTree {
    fn default() -> Self {
        let root = Inode {
            what: Contents::Folder(BTreeMap::new()),
            mode: libc::S_IFDIR | 0o755,
            uses: 1,
            modified: 0,
        };
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            last_read: Vec::new(),
        }
    }
}

impl FileTree {
    pub(super) fn inode(&mut self, ino: Ino) -> &mut Inode {
        self.inodes.get_mut(&ino).expect("an inode that is used")
    }

    pub(super) fn add(&mut self, what: Contents, mode: u32, now: i64) -> Ino {
        let ino = self.next;
        self.next += 1;
        let inode = Inode {
            what,
            mode,
            uses: 0,
            modified: now,
        };
        self.inodes.insert(ino, inode);
        ino
    }

    pub(super) fn entries(&mut self, ino: Ino) -> Result<&mut BTreeMap<Vec<u8>, Ino>, i32> {
        match &mut self.inode(ino).what {
            Contents::Folder(entries) => Ok(entries),
            Contents::File(_) | Contents::Link(_) => Err(libc::ENOTDIR),
        }
    }

    pub(super) fn name(&mut self, folder: Ino, name: &[u8], ino: Ino) {
        self.inode(ino).uses += 1;
        let old = self
            .entries(folder)
            .expect("a folder")
            .insert(name.to_vec(), ino);
        if let Some(old) = old {
            self.unuse(old);
        }
    }

    pub(super) fn unuse(&mut self, ino: Ino) {
        let inode = self.inode(ino);
        inode.uses -= 1;
        if inode.uses == 0 {
            self.inodes.remove(&ino);
        }
    }

    pub(crate) fn release(&mut self, file: &OpenFile) {
        self.unuse(file.ino);
    }

    /// Puts a file at a path, with the folders that lead to it: before the program starts.
    pub(crate) fn put(&mut self, path: &str, bytes: Option<&[u8]>, now: i64) {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut folder = ROOT;
        for (place, part) in parts.iter().enumerate() {
            let last = place + 1 == parts.len();
            let found = self
                .entries(folder)
                .ok()
                .and_then(|entries| entries.get(part.as_bytes()).copied());
            let next = match (last, bytes, found) {
                (true, Some(bytes), _) => {
                    let file = Contents::File(bytes.to_vec());
                    let ino = self.add(file, libc::S_IFREG | 0o644, now);
                    self.name(folder, part.as_bytes(), ino);
                    ino
                }
                (_, _, Some(found)) => found,
                (_, _, None) => {
                    let made = Contents::Folder(BTreeMap::new());
                    let ino = self.add(made, libc::S_IFDIR | 0o755, now);
                    self.name(folder, part.as_bytes(), ino);
                    ino
                }
            };
            folder = next;
        }
    }

    /// Puts a symbolic link at a path whose folder is there.
    pub(crate) fn put_link(&mut self, path: &str, target: &str, now: i64) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !folder.is_empty() {
            self.put(folder, None, now);
        }
        let walk = Walk::new(ROOT, libc::AT_FDCWD, 0);
        if let Ok(Found { folder, name, .. }) =
            self.walk(walk, [folder.as_bytes(), name.as_bytes()].join(&b'/'))
        {
            let link = Contents::Link(target.as_bytes().to_vec());
            let ino = self.add(link, libc::S_IFLNK | 0o777, now);
            self.name(folder, &name, ino);
        }
    }

    /// Follows a path.
    pub(super) fn walk(&mut self, mut walk: Walk, path: Vec<u8>) -> Result<Found, i32> {
        if path.is_empty() {
            return Err(libc::ENOENT);
        }
        if path.len() >= libc::PATH_MAX as usize {
            return Err(libc::ENAMETOOLONG);
        }
        let mut parents: Vec<Ino> = Vec::new();
        let mut folder = walk.start;
        if path[0] == b'/' {
            if walk.beneath {
                return Err(libc::EXDEV);
            }
            folder = ROOT;
        }
        let mut rest: Vec<Vec<u8>> = split(&path);
        rest.reverse();
        let must_be_folder = path.ends_with(b"/");
        loop {
            let Some(part) = rest.pop() else {
                // The path leads to the folder itself.
                return Ok(Found {
                    folder,
                    name: b".".to_vec(),
                    ino: Some(folder),
                });
            };
            self.entries(folder)?;
            if part.len() > MAX_NAME {
                return Err(libc::ENAMETOOLONG);
            }
            if part == b"." {
                continue;
            }
            if part == b".." {
                match parents.pop() {
                    Some(parent) => folder = parent,
                    None if walk.beneath => return Err(libc::EXDEV),
                    None => {}
                }
                continue;
            }
            let last = rest.is_empty();
            if last && must_be_folder && walk.creates {
                // A name that ends with a slash is never a new file's, also if there is one.
                return Err(libc::EISDIR);
            }
            let ino = self.entries(folder)?.get(&part).copied();
            let link = ino.and_then(|ino| match &self.inode(ino).what {
                Contents::Link(target) => Some(target.clone()),
                _ => None,
            });
            if let Some(target) = link.filter(|_| !last || walk.follow || must_be_folder) {
                walk.links += 1;
                if walk.links > MAX_LINKS {
                    return Err(libc::ELOOP);
                }
                if target.starts_with(b"/") {
                    if walk.beneath {
                        return Err(libc::EXDEV);
                    }
                    folder = ROOT;
                    parents.clear();
                }
                rest.extend(split(&target).into_iter().rev());
                continue;
            }
            if last {
                if must_be_folder && let Some(ino) = ino {
                    self.entries(ino)?;
                }
                return Ok(Found {
                    folder,
                    name: part,
                    ino,
                });
            }
            parents.push(folder);
            folder = ino.ok_or(libc::ENOENT)?;
        }
    }
}

fn split(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// How a path is followed.
pub(super) struct Walk {
    pub(super) start: Ino,
    pub(super) beneath: bool,
    pub(super) follow: bool,
    pub(super) creates: bool,
    pub(super) links: u32,
}

impl Walk {
    pub(super) fn new(start: Ino, flags: i32, resolve: u64) -> Self {
        Self {
            start,
            beneath: resolve & libc::RESOLVE_BENEATH != 0,
            follow: flags & libc::AT_SYMLINK_NOFOLLOW == 0 || flags == libc::AT_FDCWD,
            creates: false,
            links: 0,
        }
    }
}

/// Where a path leads.
pub(super) struct Found {
    pub(super) folder: Ino,
    pub(super) name: Vec<u8>,
    pub(super) ino: Option<Ino>,
}
