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

use super::child::Child;
use super::command::{Group, Stdio};
use super::ending::Ending;
use super::guardian::{Guardian, MARK};
use super::not_started::{NotStarted, Why};
use super::running::Process;
use crate::blocking::{self, JobError};
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
        let mut child = self
            .command(mark.as_deref())
            .and_then(|mut command| command.spawn())
            .map_err(refused)?;
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        // From here on it is ended and reaped if something fails.
        let mut process = Process::new(child, self.group);
        let pidfd = crate::driver::process::open(process.id())
            .map_err(|error| NotStarted::error(self.program.clone(), Why::Other, error))?;
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
