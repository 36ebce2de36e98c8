//! Programs that are started, waited for with patience, and ended. Whatever way a measurement ends, none is left: those
//! of one that is killed are ended by a `Guardian`.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use quoit::time::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::interrupt::Interrupt;
use crate::outcome::complain;

/// The processors of this program, of which those that it starts get some.
#[derive(Debug)]
pub struct Processors {
    all: CpuSet,
    guardian: Arc<Guardian>,
}

impl Processors {
    /// Looks which there are.
    ///
    /// # Errors
    ///
    /// Those of `sched_getaffinity(2)`, and of starting a shell.
    pub fn here() -> io::Result<Self> {
        Self::until(None)
    }

    /// As [`Processors::here`]; what waits for a program fails, with [`io::ErrorKind::Interrupted`], once this comes.
    ///
    /// # Errors
    ///
    /// As for [`Processors::here`].
    pub fn until(interrupt: Option<Interrupt>) -> io::Result<Self> {
        Ok(Self {
            all: sched_getaffinity(None)?,
            guardian: Arc::new(Guardian::start(interrupt)?),
        })
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.count() as usize
    }

    /// Returns their numbers.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        (0..CpuSet::MAX_CPU).filter(|core| self.all.is_set(*core))
    }

    /// Starts a program on one processor, which it may leave only if it says so itself.
    fn spawn_on(&self, core: usize, command: &mut Command) -> io::Result<Child> {
        if !self.numbers().any(|number| number == core) {
            let missing = format!("there is no processor {core} here");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, missing));
        }
        let mut one = CpuSet::new();
        one.set(core);
        // A child inherits the processors of the thread that starts it.
        sched_setaffinity(None, &one)?;
        let spawned = command.spawn();
        sched_setaffinity(None, &self.all)?;
        spawned
    }

    /// Starts a program; on one processor, if one is named.
    fn spawn(&self, core: Option<usize>, command: &mut Command) -> io::Result<Running> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.process_group(self.guardian.group);
        let spawned = match core {
            Some(core) => self.spawn_on(core, command),
            None => command.spawn(),
        };
        let child = spawned.map_err(|error| {
            io::Error::new(error.kind(), format!("{program} cannot be run: {error}"))
        })?;
        Running::watch(child, &self.guardian)
    }

    /// Runs a program to its end and returns what it printed.
    ///
    /// # Errors
    ///
    /// If it cannot be started, fails, or is not done when patience ends; then it is killed.
    pub fn output(
        &self,
        core: Option<usize>,
        command: &mut Command,
        patience: Duration,
    ) -> io::Result<String> {
        // Files, not pipes: nobody has to read while it runs.
        let (mut said, mut complained) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(complained.try_clone()?);
        let mut running = self.spawn(core, command)?;
        if !running.ends_within(patience)? {
            let seconds = patience.as_secs();
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("not done after {seconds} s"),
            ));
        }
        let status = running.child.wait()?;
        if !status.success() {
            let why = complaint(&text(&mut complained)?);
            return Err(io::Error::other(format!("{status}: {why}")));
        }
        text(&mut said)
    }

    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or does not say where it listens.
    pub fn server(&self, core: usize, command: &mut Command) -> io::Result<Server> {
        self.server_within(core, command, START)
    }

    fn server_within(
        &self,
        core: usize,
        command: &mut Command,
        patience: Duration,
    ) -> io::Result<Server> {
        command.args([
            "--listen",
            &free_address()?.to_string(),
            "--cores",
            &core.to_string(),
        ]);
        let mut complained = tempfile::tempfile()?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complained.try_clone()?);
        let mut running = self.spawn(Some(core), command)?;
        let mut said = running.child.stdout.take().expect("it is piped");
        let line = self.guardian.line_within(&mut said, patience)?;
        if line.is_empty() {
            if !running.ends_within(patience)? {
                let what = "the server does not listen: it closes its output, and goes on";
                return Err(io::Error::other(what));
            }
            let (status, why) = (running.child.wait()?, complaint(&text(&mut complained)?));
            let what = format!("the server does not listen: {status}: {why}");
            return Err(io::Error::other(what));
        }
        let address = line
            .trim()
            .strip_prefix("listening on ")
            .and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| {
            io::Error::other(format!("the server says {line:?}, not where it listens"))
        })?;
        Ok(Server {
            running,
            address,
            complained,
            _said: said,
        })
    }

    /// Starts a program that says one line, and then goes on until its standard input ends.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or says no line before patience ends.
    pub fn held(
        &self,
        core: usize,
        command: &mut Command,
        patience: Duration,
    ) -> io::Result<Running> {
        let mut complained = tempfile::tempfile()?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complained.try_clone()?);
        let mut running = self.spawn(Some(core), command)?;
        let mut said = running.child.stdout.take().expect("it is piped");
        let line = self.guardian.line_within(&mut said, patience);
        if !line.as_ref().is_ok_and(|line| line.ends_with('\n')) {
            let said = complaint(&text(&mut complained)?);
            let why = line.err().map_or(said, |error| error.to_string());
            return Err(io::Error::other(format!("the load did not begin: {why}")));
        }
        running.said = Some((said, complained));
        Ok(running)
    }
}

/// A program that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    handle: OwnedFd,
    guardian: Arc<Guardian>,
    /// Of one that is held: kept, so that it may say more, and where its complaints are.
    said: Option<(ChildStdout, File)>,
}

impl Running {
    fn watch(mut child: Child, guardian: &Arc<Guardian>) -> io::Result<Self> {
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => Ok(Self {
                child,
                handle,
                guardian: Arc::clone(guardian),
                said: None,
            }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Waits for the program, no longer than so long; returns whether it has ended.
    ///
    /// # Errors
    ///
    /// Those of `poll(2)`; `Interrupted` if somebody wants no more of it.
    pub fn ends_within(&self, patience: Duration) -> io::Result<bool> {
        self.guardian.is_ready(&self.handle, patience)
    }

    /// Returns why one that should be held has ended.
    #[must_use]
    pub fn early_end(mut self) -> io::Error {
        let said = self.said.as_mut().map(|(_, complained)| text(complained));
        let why = complaint(&said.and_then(Result::ok).unwrap_or_default());
        io::Error::other(format!("the load has ended early: {why}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            complain(format_args!("a program does not end: {error}"));
        }
    }
}

/// A shell that kills what is left when this program has ended, however it did: its input ends then. All that is started
/// is in its process group from before it runs, so that there is no moment in which the shell does not know of it; and
/// what ends this program from a terminal does not end the shell as well.
#[derive(Debug)]
struct Guardian {
    shell: Child,
    group: i32,
    input: Option<ChildStdin>,
    interrupt: Option<Interrupt>,
}

const GUARDIAN: &str = "while read -r line; do :; done; kill -KILL 0";

impl Guardian {
    fn start(interrupt: Option<Interrupt>) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", GUARDIAN])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self {
            group: Pid::from_child(&shell).as_raw_nonzero().get(),
            input: shell.stdin.take(),
            shell,
            interrupt,
        })
    }

    /// Waits until there is something to be read of a program, or it has ended.
    fn is_ready(&self, what: &impl AsFd, patience: Duration) -> io::Result<bool> {
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        let watched = [Some(what.as_fd()), self.interrupt.as_ref().map(AsFd::as_fd)];
        let watched = watched.iter().flatten();
        let mut polled: Vec<_> = watched.map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        loop {
            match poll(&mut polled, Some(&patience)) {
                Ok(_) if polled.get(1).is_some_and(|fd| !fd.revents().is_empty()) => {
                    return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
                }
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads up to the end of a line, or of the output; not for longer than patience, however little comes at a time.
    fn line_within(&self, output: &mut ChildStdout, patience: Duration) -> io::Result<String> {
        let until = Instant::now() + patience;
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            if !self.is_ready(output, until.duration_since(Instant::now()))? {
                let said = String::from_utf8_lossy(&line);
                let what = format!("no line after {patience:?}, but {said:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            if output.read(&mut byte)? == 0 {
                break;
            }
            line.extend(byte);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.input = None;
        // It has nobody left but itself, and if it was killed, nothing is to be done about it.
        let _ = self.shell.wait();
    }
}

/// A server that listens; it is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    running: Running,
    address: SocketAddr,
    complained: File,
    _said: ChildStdout,
}

impl Server {
    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.running.child.id()
    }

    /// Returns why a turn failed: if the server has ended meanwhile, that is why.
    #[must_use]
    pub fn failure(mut self, seen: io::Error) -> io::Error {
        if !self.running.ends_within(Duration::ZERO).unwrap_or(false) {
            return seen;
        }
        let (Ok(status), Ok(said)) = (self.running.child.wait(), text(&mut self.complained)) else {
            return seen;
        };
        let why = complaint(&said);
        io::Error::other(format!("the server has ended: {status}: {why} ({seen})"))
    }
}

/// Lets this program, and all that it starts, open as many descriptors as it may. Returns how many these are.
///
/// # Errors
///
/// Those of `setrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let now = getrlimit(Resource::Nofile);
    // The kernel knows no number of descriptors without a limit; twenty thousand are enough here.
    let most = now.maximum.unwrap_or(20_000);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(most),
            maximum: now.maximum,
        },
    )?;
    Ok(most)
}

/// Returns an address that nobody listens at. Servers with a socket for each thread need to know theirs beforehand.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the line in which a program says what went wrong: its last, or what it panicked with.
fn complaint(said: &str) -> String {
    let mut lines = said
        .lines()
        .skip_while(|line| !line.contains("' panicked at ") && !line.contains(") panicked at "));
    let panicked = lines.nth(1);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let line = panicked.or(last).unwrap_or("it does not say why");
    line.trim().to_owned()
}

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        command
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_program_runs_on_the_processor_it_was_given() {
        let processors = Processors::here().expect("there are some");
        let first = processors.numbers().next().expect("one");
        let mut command = shell("grep Cpus_allowed_list /proc/self/status");
        let said = processors
            .output(Some(first), &mut command, PATIENCE)
            .expect("it runs");
        assert_eq!(
            said.split_whitespace().nth(1),
            Some(first.to_string().as_str())
        );
        assert_eq!(
            sched_getaffinity(None).expect("ours"),
            processors.all,
            "ours are as before"
        );
    }

    /// Told of it once it runs, the guardian would leave one whose starter is killed in between.
    #[test]
    fn a_program_begins_in_the_group_that_ends_with_its_starter() {
        let processors = Processors::here().expect("there are some");
        let mut command = shell("cut -d ' ' -f 5 /proc/$$/stat");
        let group = processors.output(None, &mut command, PATIENCE);
        let group: i32 = group.expect("it runs").trim().parse().expect("a number");
        assert_eq!(group, processors.guardian.group);
        assert_ne!(group, rustix::process::getpgrp().as_raw_nonzero().get());
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let processors = Processors::here().expect("there are some");
        let failed = processors.output(None, &mut shell("echo no ring >&2; exit 3"), PATIENCE);
        let told = failed.expect_err("it fails").to_string();
        assert!(told.contains("no ring") && told.contains('3'), "{told}");
        let missing = processors.output(None, &mut Command::new("/no/such/program"), PATIENCE);
        assert!(
            missing
                .expect_err("it is missing")
                .to_string()
                .contains("/no/such/program")
        );
    }

    #[test]
    fn a_panic_is_told_by_what_it_says() {
        let said = "begun\n\nthread 'main' (7) panicked at src/x.rs:1:2:\nno ring\nstack backtrace:\n   0: one\n\
                    note: Some details are omitted\n";
        assert_eq!(complaint(said), "no ring");
        assert_eq!(complaint("one\n two \n\n"), "two");
        assert_eq!(complaint(""), "it does not say why");
    }

    #[test]
    fn a_program_without_an_end_is_killed() {
        let processors = Processors::here().expect("there are some");
        let hung = processors.output(
            None,
            &mut shell("exec sleep 1000"),
            Duration::from_millis(10),
        );
        assert_eq!(hung.expect_err("it hangs").kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_server_that_says_something_else_is_no_server() {
        let processors = Processors::here().expect("there are some");
        let first = processors.numbers().next().expect("one");
        let server = processors.server(first, &mut shell("echo hello; exec sleep 1000"));
        let told = server.expect_err("it does not listen").to_string();
        assert!(told.contains("hello"), "{told}");
        let server = processors.server(first, &mut shell("echo no ring >&2; exit 3"));
        let told = server.expect_err("it does not listen").to_string();
        assert!(told.contains("exit status: 3: no ring"), "{told}");
        let server = processors.server(
            first,
            &mut shell("echo listening on 127.0.0.1:7; exec sleep 1000"),
        );
        assert_eq!(server.expect("it says so").address().port(), 7);
    }

    #[test]
    fn nobody_who_stops_in_a_line_or_closes_the_output_is_waited_for_without_end() {
        let processors = Processors::here().expect("there are some");
        let first = processors.numbers().next().expect("one");
        let patience = Duration::from_millis(200);
        for line in [
            "printf listening; exec sleep 1000",
            "exec >&-; exec sleep 1000",
        ] {
            let server = processors.server_within(first, &mut shell(line), patience);
            assert!(server.is_err(), "{line}");
            let load = processors.held(first, &mut shell(line), patience);
            let told = load.expect_err(line).to_string();
            assert!(told.starts_with("the load did not begin: "), "{told}");
        }
    }

    #[test]
    fn a_load_that_has_ended_early_says_why() {
        let processors = Processors::here().expect("there are some");
        let first = processors.numbers().next().expect("one");
        let mut line = shell("echo held; echo it is gone >&2; exit 1");
        let load = processors.held(first, &mut line, PATIENCE);
        let load = load.expect("it says a line");
        assert!(load.ends_within(PATIENCE).expect("it is watched"));
        assert_eq!(
            load.early_end().to_string(),
            "the load has ended early: it is gone"
        );
    }

    #[test]
    fn a_server_that_has_ended_is_why_a_turn_failed() {
        let processors = Processors::here().expect("there are processors");
        let first = processors.numbers().next().expect("one");
        let line = "echo out of luck >&2; echo listening on 127.0.0.1:7; exec sleep 1000";
        let seen = || io::Error::other("nobody answers");
        let server = processors
            .server(first, &mut shell(line))
            .expect("it says so");
        assert_eq!(server.failure(seen()).to_string(), "nobody answers");
        let server = processors
            .server(first, &mut shell(line))
            .expect("it says so");
        rustix::process::kill_process(
            Pid::from_child(&server.running.child),
            rustix::process::Signal::KILL,
        )
        .expect("it runs");
        assert!(server.running.ends_within(PATIENCE).expect("it is watched"));
        let told = server.failure(seen()).to_string();
        assert!(
            told.contains("signal: 9") && told.contains("out of luck (nobody answers)"),
            "{told}"
        );
    }
}
