//! `NotStarted`: why there is no child.

use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::start::Order;

/// Why a program was not started. It comes inside an [`io::Error`], where `error.get_ref()` finds it; the
/// error's kind is that of the kernel's refusal.
#[derive(Debug)]
pub struct NotStarted {
    program: OsString,
    why: Why,
    cause: io::Error,
}

/// What was in the way of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// There is no such program: not at its path, or in no folder of `PATH`.
    NotFound,
    /// The program is there, and what shall run it is not: the interpreter in its first line, or its
    /// loader.
    NoInterpreter,
    /// It may not be run: it is no program or no file, or its folder may not be searched.
    NotExecutable,
    /// The working folder is not there, is none, or may not be entered.
    Folder(PathBuf),
    /// No guardian could be started, which needs `/bin/sh`; see [`Command::unguarded`](super::Command::unguarded).
    NoGuardian,
    /// This is a simulation.
    Simulation,
    /// Something else: too few processes, threads, descriptors, or memory; arguments that are too long.
    Other,
}

impl NotStarted {
    pub(super) fn error(program: OsString, why: Why, cause: io::Error) -> io::Error {
        let kind = cause.kind();
        io::Error::new(
            kind,
            Self {
                program,
                why,
                cause,
            },
        )
    }

    /// Looks for the reason of a refusal of `fork(2)`, `chdir(2)` or `execve(2)`, which are not told from
    /// each other by their errors.
    pub(super) fn diagnose(order: &Order, cause: io::Error) -> io::Error {
        let (program, folder) = (&order.program, order.folder.as_deref());
        let errno = cause.raw_os_error().unwrap_or(0);
        let why = match errno {
            libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::ELOOP | libc::ENAMETOOLONG => {
                match folder.filter(|folder| !can_be_entered(folder)) {
                    Some(folder) => Why::Folder(folder.to_owned()),
                    None => about_program(order, errno),
                }
            }
            libc::ENOEXEC | libc::EPERM | libc::EISDIR | libc::ETXTBSY => Why::NotExecutable,
            _ => Why::Other,
        };
        Self::error(program.clone(), why, cause)
    }

    /// The program, as it was asked for.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// What was in the way.
    pub fn why(&self) -> &Why {
        &self.why
    }
}

/// Returns whether a folder can be made the working folder: asked by looking for itself in it.
fn can_be_entered(folder: &Path) -> bool {
    // To join takes an empty path, which names nothing, for this process's own folder.
    !folder.as_os_str().is_empty()
        && folder
            .join(".")
            .metadata()
            .is_ok_and(|found| found.is_dir())
}

/// Returns whether a program is looked for where it says, and not in `PATH`. `execvp(3)`.
fn is_path(program: &OsStr) -> bool {
    program.as_bytes().contains(&b'/')
}

fn about_program(order: &Order, errno: i32) -> Why {
    if errno == libc::EACCES {
        return Why::NotExecutable;
    }
    let is_there = |path: &Path| {
        let folder = order.folder.as_deref();
        folder.is_some_and(|folder| folder.join(path).is_file()) || path.is_file()
    };
    let path = Path::new(&order.program);
    let is_there = if is_path(&order.program) {
        is_there(path)
    } else {
        let folders = order.search_path();
        env::split_paths(&folders).any(|folder| is_there(&folder.join(path)))
    };
    if is_there {
        Why::NoInterpreter
    } else {
        Why::NotFound
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (program, cause) = (Path::new(&self.program).display(), &self.cause);
        match &self.why {
            Why::NotFound if is_path(&self.program) => {
                write!(f, "there is no program {program}: check its path")
            }
            Why::NotFound => write!(
                f,
                "there is no program {program} in any folder of PATH: install it, or give its path"
            ),
            Why::NoInterpreter => write!(
                f,
                "{program} is there, but not what runs it: check the interpreter in its first line, \
                 or whether it was built for another machine"
            ),
            Why::NotExecutable => write!(
                f,
                "{program} may not be run: check that it is a program, that its mode says so, and that \
                 its folder may be searched ({cause})"
            ),
            Why::Folder(folder) => write!(
                f,
                "{program} cannot be started in {}: it is no folder that can be entered ({cause})",
                folder.display()
            ),
            Why::NoGuardian => write!(
                f,
                "{program} was not started, since nobody would end it if this process were killed: the \
                 guardian needs /bin/sh and /proc ({cause}); Command::unguarded does without"
            ),
            Why::Simulation => write!(
                f,
                "{program} was not started: a simulation has no processes; give the code that talks to \
                 one the ends of pipes instead"
            ),
            Why::Other => write!(f, "{program} could not be started: {cause}"),
        }
    }
}

impl Error for NotStarted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}
