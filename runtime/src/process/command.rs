//! `Command`: what shall run, and how.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use super::child::Child;
use super::ending::Ending;
use super::output::{Output, wait_with_output};
use super::start::{self, Order};
use crate::CarriesCancelled;

/// A program that shall run, with its arguments, its environment and its pipes: in the shape of
/// [`std::process::Command`].
///
/// What it needs it owns, so it can be kept, cloned, and started again. Unless told otherwise a child has
/// the environment and the working folder of this process, and its three standard streams.
#[derive(Debug, Clone)]
pub struct Command {
    order: Order,
}

/// What a standard stream of a child is.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// That of this process.
    #[default]
    Inherit,
    /// Nothing: reads find the end, what is written is gone.
    Null,
    /// A pipe, whose other end is in the [`Child`].
    Piped,
    /// A file, or whatever else is behind a descriptor.
    File(Arc<OwnedFd>),
}

impl<F: Into<OwnedFd>> From<F> for Stdio {
    fn from(file: F) -> Self {
        Self::File(Arc::new(file.into()))
    }
}

/// The process group that a child is in. `setpgid(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Group {
    /// A new one, which the child leads: what it starts is in it as well, and is signalled with it.
    #[default]
    Own,
    /// That of this process: for a child that shall read from the terminal, and hear its Ctrl-C. Signals
    /// go to the child alone; what it has started is on its own while this process lives.
    Host,
}

impl Command {
    /// A program, by its path; or by its name, which is looked up in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            order: Order::new(program.as_ref().to_owned()),
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.order.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = A>) -> &mut Self {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        self.order.args.extend(args);
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.order.set_env(name, Some(value));
        self
    }

    /// Sets variables of the child's environment.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> &mut Self {
        for (name, value) in variables {
            self.env(name, value);
        }
        self
    }

    /// Leaves a variable out of the child's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.order.set_env(name.as_ref().to_owned(), None);
        self
    }

    /// Leaves everything out of the child's environment but what is set from here on, and the mark that
    /// the [guardian](super#when-the-host-is-killed) finds it by.
    pub fn env_clear(&mut self) -> &mut Self {
        self.order.clear_env();
        self
    }

    /// The child's working folder. A relative path of a program is looked up from this process's own or
    /// from here, as the system likes: give an absolute one.
    pub fn current_dir(&mut self, folder: impl AsRef<Path>) -> &mut Self {
        self.order.folder = Some(PathBuf::from(folder.as_ref()));
        self
    }

    /// What the child reads from.
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Self {
        self.order.stdin = stdin.into();
        self
    }

    /// What the child writes to.
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Self {
        self.order.stdout = stdout.into();
        self
    }

    /// What the child complains to.
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Self {
        self.order.stderr = stderr.into();
        self
    }

    /// The child's process group. Default: [`Group::Own`], so that what it starts ends with it.
    pub fn group(&mut self, group: Group) -> &mut Self {
        self.order.group = group;
        self
    }

    /// How the child is ended that does not end by itself. Default: [`Ending::default`].
    pub fn ending(&mut self, ending: Ending) -> &mut Self {
        self.order.ending = ending;
        self
    }

    /// Starts the child without a [guardian](super#when-the-host-is-killed): killed with SIGKILL, this
    /// process leaves it behind. For machines without `/bin/sh`.
    pub fn unguarded(&mut self) -> &mut Self {
        self.order.guarded = false;
        self
    }

    /// Starts the child.
    ///
    /// To start a program may take long, and block: the file may lie on a slow disk, and a thread that
    /// forks waits until the child has begun to run the program. So one of the runtime's
    /// [threads for that](crate::blocking) does it; a core with many tasks would stand still for a third
    /// of a millisecond each time, and now and then for ten.
    ///
    /// Cancelled while it waits for a thread, it starts nothing. Once a thread has begun, it goes on: the
    /// child is returned, and the next op fails. Dropped meanwhile, it leaves a child behind that is ended
    /// at once, by SIGKILL, before the scope around ends.
    ///
    /// # Errors
    ///
    /// A [`NotStarted`](super::NotStarted) inside an [`io::Error`] of the kernel's kind: it says whether
    /// the program, its interpreter or the folder was not found or is not usable, or what else was in the
    /// way. [`Cancelled`](crate::Cancelled). `Unsupported` in a simulation.
    ///
    /// # Panics
    ///
    /// When polled off a core.
    pub async fn spawn(&self) -> io::Result<Child> {
        start::start(self.order.clone()).await
    }

    /// Runs the child to its end. It inherits what is not said otherwise; what it writes to a pipe is read, and lost.
    ///
    /// Cancelled, it ends the child first, as its [`Ending`] says, and returns when it is gone.
    ///
    /// # Errors
    ///
    /// As for [`Command::spawn`] and [`Child::wait`].
    pub async fn status(&self) -> io::Result<ExitStatus> {
        let mut child = self.spawn().await?;
        let result = child.wait_unheard().await;
        if result.is_err() {
            child.end().await?;
        }
        result
    }

    /// Runs the child to its end and takes what it writes, at most `limit` bytes of each stream; not of one that goes
    /// to a file or to nothing ([`Stdio::File`], [`Stdio::Null`]). It reads nothing, unless [`Command::stdin`] was set.
    ///
    /// Cancelled, it ends the child first, as its [`Ending`] says, and returns when it is gone.
    ///
    /// # Errors
    ///
    /// As for [`Command::spawn`] and [`Child::wait_with_output`].
    pub async fn output(&self, limit: usize) -> io::Result<Output> {
        let mut order = self.order.clone();
        if let Stdio::Inherit = order.stdin {
            order.stdin = Stdio::Null;
        }
        for output in [&mut order.stdout, &mut order.stderr] {
            if let Stdio::Inherit = output {
                *output = Stdio::Piped;
            }
        }
        let mut child = start::start(order).await?;
        let result = wait_with_output(&mut child, limit).await;
        if let Err(error) = &result
            && error.cancelled().is_some()
        {
            child.end().await?;
        }
        result
    }
}
