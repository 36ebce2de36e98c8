//! Starting a child, on a thread that may block.
//!
//! A child that was started and is given to nobody is killed and reaped where it is dropped.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use super::child::Child;
use super::command::{Group, Stdio};
use super::ending::Ending;
use super::guardian::{Guardian, MARK};
use super::not_started::{NotStarted, Why};
use super::running::Process;
use crate::blocking::{self, JobError};
use crate::driver::sys;
use crate::task::current;

/// What shall be started: all of it our own, so that it can go to another thread.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
    /// `None`: left out.
    env: BTreeMap<OsString, Option<OsString>>,
    env_is_clear: bool,
    pub(super) folder: Option<PathBuf>,
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
    pub(super) group: Group,
    pub(super) ending: Ending,
    pub(super) guarded: bool,
}

/// A child on its way from the thread that started it to the core.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) process: Process,
    pub(super) pidfd: OwnedFd,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

impl Order {
    pub(super) fn new(program: OsString) -> Self {
        Self {
            program,
            args: Vec::new(),
            env: BTreeMap::new(),
            env_is_clear: false,
            folder: None,
            stdin: Stdio::Inherit,
            stdout: Stdio::Inherit,
            stderr: Stdio::Inherit,
            group: Group::Own,
            ending: Ending::default(),
            guarded: true,
        }
    }

    pub(super) fn set_env(&mut self, name: OsString, value: Option<OsString>) {
        self.env.insert(name, value);
    }

    pub(super) fn clear_env(&mut self) {
        self.env.clear();
        self.env_is_clear = true;
    }

    /// Returns the folders in which a program is looked for that is only a name. `execvp(3)`.
    pub(super) fn search_path(&self) -> OsString {
        let path = match self.env.get(OsStr::new("PATH")) {
            Some(said) => said.clone(),
            None if self.env_is_clear => None,
            None => env::var_os("PATH"),
        };
        path.unwrap_or_else(|| "/bin:/usr/bin".into())
    }

    fn command(&self, mark: Option<&OsStr>) -> io::Result<process::Command> {
        let mut command = process::Command::new(&self.program);
        command.args(&self.args);
        if self.env_is_clear {
            command.env_clear();
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(mark) = mark {
            command.env(MARK, mark);
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.stdin(self.stdin.stdio()?);
        command.stdout(self.stdout.stdio()?);
        command.stderr(self.stderr.stdio()?);
        if self.group == Group::Own {
            command.process_group(0);
        }
        Ok(command)
    }

    fn start(self, guardian: &Arc<Guardian>) -> io::Result<Started> {
        let unguarded = |error| NotStarted::error(self.program.clone(), Why::NoGuardian, error);
        let mark = if self.guarded {
            Some(guardian.stand_ready().map_err(unguarded)?)
        } else {
            None
        };
        let refused = |error| NotStarted::diagnose(&self, error);
        let spawn = || self.command(mark.as_deref())?.spawn();
        let mut child = unless_busy(spawn).map_err(refused)?;
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        // From here on it is ended and reaped if something fails.
        let mut process = Process::new(child, self.group);
        let unwatched =
            |error| NotStarted::error(self.program.clone(), Why::Other, unopened(error));
        let pidfd = crate::driver::process::open(process.id()).map_err(unwatched)?;
        if self.guarded {
            process.watched(guardian.watch(process.id()).map_err(unguarded)?);
        }
        Ok(Started {
            process,
            pidfd,
            stdin,
            stdout,
            stderr,
        })
    }
}

/// Starts a program, and tries again for a while if somebody has it open for writing (`ETXTBSY`, `execve(2)`). It need not
/// be whoever wrote it: a child that another thread of this process forks meanwhile has a copy of all that is open, until
/// it runs a program of its own.
fn unless_busy<T>(start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    sys::ask_patiently(libc::ETXTBSY, LONGEST_PAUSE, start)
}

/// Says what to do where it is the call that is refused by which a child is waited for, and not the child.
fn unopened(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
            let what = format!(
                "it ran, and was ended: nobody could wait for it ({error}); let the filter of system calls of this \
                 process allow pidfd_open, and waitid, pidfd_send_signal and kill"
            );
            io::Error::new(error.kind(), what)
        }
        _ => error,
    }
}

/// How long it is waited at a time for a program that is open for writing: an eighth of a second in all. A fork takes
/// less than a millisecond.
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

impl Stdio {
    fn stdio(&self) -> io::Result<process::Stdio> {
        Ok(match self {
            Self::Inherit => process::Stdio::inherit(),
            Self::Null => process::Stdio::null(),
            Self::Piped => process::Stdio::piped(),
            Self::File(file) => file.try_clone()?.into(),
        })
    }
}

/// Starts a child, and takes it over.
pub(super) async fn start(order: Order) -> io::Result<Child> {
    #[cfg(feature = "sim")]
    if crate::sim::is_running() {
        let cause = io::ErrorKind::Unsupported.into();
        return Err(NotStarted::error(order.program, Why::Simulation, cause));
    }
    let (ending, program) = (order.ending, order.program.clone());
    let guardian = current::with(|core| Arc::clone(&core.guardian));
    let started = match blocking::run(move |_| order.start(&guardian)).await {
        Err(JobError::NoThread(error)) => {
            let cause = format!("there is no thread that could do it: {error}");
            let cause = io::Error::new(error.kind(), cause);
            return Err(NotStarted::error(program, Why::Other, cause));
        }
        started => started??,
    };
    Child::new(started, ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_busy_is_tried_again_and_not_for_ever() {
        let tried = |errors: &[i32]| {
            let mut errors = errors.iter();
            let mut tries = 0;
            let started = unless_busy(|| {
                tries += 1;
                match errors.next() {
                    Some(&errno) => Err(io::Error::from_raw_os_error(errno)),
                    None => Ok(()),
                }
            });
            (started.map_err(|error| error.raw_os_error()), tries)
        };
        const BUSY: i32 = libc::ETXTBSY;
        assert_eq!(tried(&[]), (Ok(()), 1));
        assert_eq!(tried(&[BUSY, BUSY]), (Ok(()), 3));
        assert_eq!(tried(&[libc::ENOENT]), (Err(Some(libc::ENOENT)), 1));
        assert_eq!(tried(&[BUSY, libc::EACCES]), (Err(Some(libc::EACCES)), 2));
        assert_eq!(tried(&[BUSY; 99]), (Err(Some(BUSY)), 8));
    }
}
