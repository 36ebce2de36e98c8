//! `Guardian`: ends the children of a host that was killed.
//!
//! Whoever is killed with SIGKILL cleans nothing up. So each runtime has a small process, a shell with a
//! script (`guardian.sh`), which is told of every child and waits for the end of its input. Only the host
//! has the other end: when that closes without a goodbye, the host is gone, and the guardian kills what it
//! was told of, with all that descends from it.
//!
//! It is started with the first child, and ends with the runtime. Other ways, and why not:
//!
//! - a signal at the parent's death (`PR_SET_PDEATHSIG`) comes when the *thread* ends that forked, and
//!   reaches no grandchild;
//! - a namespace of process numbers reaches all, but the children would live in another world, and plain
//!   users may not make one everywhere;
//! - a control group of our own reaches all, but only where somebody has given us one to write to;
//! - a fork of the host would need no shell, but holds copies of its memory, and runs between `fork` and
//!   `exec` for as long as the host lives.
//!
//! Invariants:
//! - Nobody else has the host's end of the input: it is closed in every child.
//! - A number that was given to somebody else is told by its start time, so that a goodbye that came late,
//!   or never, harms nobody.
//! - Only the threads that start children wait for the guardian. A core says that a child is gone, or
//!   leaves that to whoever says something next.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::driver::{process, sys};

/// The guardian of a runtime, once there is one.
#[derive(Debug, Default)]
pub(crate) struct Guardian {
    /// A number that nobody guesses, which the environment of every child has.
    mark: OnceLock<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shell: Option<Shell>,
    /// The children that live, as the guardian is told of them.
    watched: BTreeSet<String>,
}

/// The process, and the way to it.
#[derive(Debug)]
struct Shell {
    process: Child,
    input: Socket,
    /// What it has yet to be told.
    unsent: Vec<u8>,
}

/// The variable that marks whatever a runtime has started.
pub(super) const MARK: &str = "QUOIT_GUARDIAN";

/// How long the guardian may take nothing before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(10);

impl Guardian {
    /// Sees to it that there is a guardian; returns what a child's environment says of it. Blocks.
    pub(super) fn stand_ready(&self) -> io::Result<OsString> {
        let mark = match self.mark.get() {
            Some(mark) => mark,
            None => {
                let drawn = format!("{:016x}{:016x}", sys::random()?, sys::random()?);
                self.mark.get_or_init(|| drawn)
            }
        };
        self.lock().stand_ready(mark)?;
        // A host that is itself a child of one: the guardian of that shall find what is started here.
        let mut value = env::var_os(MARK).unwrap_or_default();
        if !value.is_empty() {
            value.push(":");
        }
        value.push(mark);
        Ok(value)
    }

    /// Tells the guardian of a child, which nobody has reaped. Blocks until that is on its way.
    pub(super) fn watch(self: &Arc<Self>, pid: u32) -> io::Result<Watch> {
        let name = format!("{pid}:{}", process::started_at(pid)?);
        self.lock().watched.insert(name.clone());
        let watch = Watch {
            guardian: Arc::downgrade(self),
            name,
        };
        let mark = self.mark.get().expect("it was made ready before");
        let mut state = self.lock();
        state.say("+", &watch.name);
        loop {
            // One that has died meanwhile is replaced, and the new one told of all.
            state.stand_ready(mark)?;
            let shell = state.shell.as_mut().expect("it was made ready just above");
            if shell.unsent.is_empty() {
                return Ok(watch);
            }
            let input = shell.input.try_clone()?;
            drop(state);
            let has_room = process::writable_within(&input, PATIENCE)?;
            state = self.lock();
            if !has_room && let Some(mut stuck) = state.shell.take() {
                stuck.kill();
            }
            state.flush();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it held the lock left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Starts a guardian if there is none, or the last one has died, and tells it of all who live.
    fn stand_ready(&mut self, mark: &str) -> io::Result<()> {
        if self.shell.as_mut().is_none_or(Shell::has_ended) {
            let mut shell = Shell::start(mark)?;
            for name in &self.watched {
                shell.say("+", name);
            }
            self.shell = Some(shell);
            self.flush();
        }
        Ok(())
    }

    fn say(&mut self, sign: &str, name: &str) {
        if let Some(shell) = &mut self.shell {
            shell.say(sign, name);
        }
        self.flush();
    }

    /// Sends what there is room for. Nobody is told that the other side is gone: it is found out when
    /// the next child is started.
    fn flush(&mut self) {
        let Some(shell) = &mut self.shell else { return };
        while !shell.unsent.is_empty() {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            match shell.input.send_with_flags(&shell.unsent, flags) {
                Ok(count) => drop(shell.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    if let Some(mut broken) = self.shell.take() {
                        broken.kill();
                    }
                    return;
                }
            }
        }
    }
}

impl Shell {
    fn start(mark: &str) -> io::Result<Self> {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
        // For `cat` and `grep`, wherever they are.
        let mut path = env::var_os("PATH").unwrap_or_default();
        path.push(":/usr/bin:/bin");
        let process = Command::new("/bin/sh")
            .args(["-c", include_str!("guardian.sh"), "quoit-guardian"])
            .arg(mark)
            .env_clear()
            .env("PATH", path)
            .env("LC_ALL", "C")
            // It keeps no folder busy, no output open, and hears no Ctrl-C.
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self {
            process,
            input: ours,
            unsent: Vec::new(),
        })
    }

    fn say(&mut self, sign: &str, name: &str) {
        self.unsent
            .extend_from_slice(format!("{sign} {name}\n").as_bytes());
    }

    /// Returns whether it has ended; reaped by something else, it cannot be asked, and its number may be another's.
    fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    fn kill(&mut self) {
        if !self.has_ended() {
            // Nothing else ends one that is stuck; and it is ours to reap.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// A child that the guardian knows of. Dropped when it has been reaped.
#[derive(Debug)]
pub(super) struct Watch {
    /// It goes with its runtime, also if a child was leaked: then it ends that.
    guardian: Weak<Guardian>,
    name: String,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(guardian) = self.guardian.upgrade() else {
            return;
        };
        let mut state = guardian.lock();
        if state.watched.remove(&self.name) {
            state.say("-", &self.name);
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(mut shell) = state.shell.take() else {
            return;
        };
        if shell.has_ended() {
            return;
        }
        let last: &[u8] = if state.watched.is_empty() {
            b"bye\n"
        } else {
            b"over\n"
        };
        shell.unsent.extend_from_slice(last);
        let _ = shell
            .input
            .send_with_flags(&shell.unsent, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
        drop(shell.input);
        let ended = process::open(shell.process.id())
            .and_then(|pidfd| process::ended_within(pidfd.as_fd(), PATIENCE));
        if !ended.unwrap_or(false) {
            let _ = shell.process.kill();
        }
        let _ = shell.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// It may have no mark to be found by: somebody has taken that out of its environment.
    #[test]
    fn a_child_that_is_watched_is_ended_whatever_its_name() {
        let folder = env::temp_dir().join(format!("quoit-guardian-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("room for a folder");
        let program = folder.join("two\nlines");
        symlink("/bin/sleep", &program).expect("room for a name");
        let mut child = Command::new(&program)
            .arg("1000")
            .process_group(0)
            .spawn()
            .expect("it is there");
        std::fs::remove_dir_all(&folder).expect("it is ours");
        let start = process::started_at(child.id()).expect("it lives");
        let mark = format!("{:016x}", sys::random().expect("a number"));
        let mut shell = Command::new("/bin/sh")
            .args(["-c", include_str!("guardian.sh"), "quoit-guardian", &mark])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let mut input = shell.stdin.take().expect("it is piped");
        writeln!(input, "+ {}:{start}", child.id()).expect("it listens");
        // The end without a goodbye.
        drop(input);
        assert!(shell.wait().expect("it is ours").success());
        // Of no effect on who was killed, and the end of who was not.
        process::signal_group(child.id(), libc::SIGTERM).expect("it is ours");
        let status = child.wait().expect("it is ours");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
    }

    /// Of many that live, those that came last go first: they stand at the end of what the guardian remembers.
    #[test]
    fn a_goodbye_costs_no_more_where_many_live() {
        const MANY: u32 = 2_000;
        // Past all numbers that the kernel gives.
        let name = |number| format!("{}:1", (1 << 22) + 1 + number);
        let mut told = String::new();
        for number in 0..MANY {
            told += &format!("+ {}\n", name(number));
        }
        for number in (0..MANY).rev() {
            told += &format!("- {}\n", name(number));
        }
        told += "bye\n";
        // The seconds are those of its processor: it takes a fraction of one, and squared minutes.
        let script = concat!("ulimit -t 20\n", include_str!("guardian.sh"));
        let mut shell = Command::new("/bin/sh")
            .args(["-c", script, "quoit-guardian", "mark"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let mut input = shell.stdin.take().expect("it is piped");
        // It hears no more if it was ended.
        let _ = input.write_all(told.as_bytes());
        drop(input);
        let status = shell.wait().expect("it is ours");
        assert!(status.success(), "{status}");
    }
}
