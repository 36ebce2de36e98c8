//! Programs that are started, waited for with patience, and ended. Whatever way a measurement ends, none is left.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors of this program, of which those that it starts get some.
#[derive(Debug)]
pub struct Processors {
    all: CpuSet,
}

impl Processors {
    /// Looks which there are.
    ///
    /// # Errors
    ///
    /// Those of `sched_getaffinity(2)`.
    pub fn here() -> io::Result<Self> {
        Ok(Self {
            all: sched_getaffinity(None)?,
        })
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.count() as usize
    }

    /// Starts a program on one processor, which it may leave only if it says so itself.
    fn spawn_on(&self, core: usize, command: &mut Command) -> io::Result<Child> {
        if !(core < CpuSet::MAX_CPU && self.all.is_set(core)) {
            let missing = format!(
                "there is no processor {core} here: name others with --server-core and --load-core"
            );
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
        let spawned = match core {
            Some(core) => self.spawn_on(core, command),
            None => command.spawn(),
        };
        let child = spawned.map_err(|error| {
            io::Error::new(error.kind(), format!("{program} cannot be run: {error}"))
        })?;
        Running::watch(child)
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
            let complaint = text(&mut complained)?;
            let last = complaint.lines().rev().find(|line| !line.trim().is_empty());
            return Err(io::Error::other(format!(
                "{status}: {}",
                last.unwrap_or("it does not say why")
            )));
        }
        text(&mut said)
    }

    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or does not say where it listens.
    pub fn server(&self, core: usize, command: &mut Command) -> io::Result<Server> {
        command.args([
            "--listen",
            &free_address()?.to_string(),
            "--cores",
            &core.to_string(),
        ]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut running = self.spawn(Some(core), command)?;
        let mut said = BufReader::new(running.child.stdout.take().expect("it is piped"));
        if !is_ready(said.get_ref(), START)? {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the server does not say that it listens",
            ));
        }
        let mut line = String::new();
        said.read_line(&mut line)?;
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
        let mut said = BufReader::new(running.child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        if !is_ready(said.get_ref(), patience)? || said.read_line(&mut line)? == 0 {
            let complaint = text(&mut complained)?;
            let last = complaint.lines().last().unwrap_or("it does not say why");
            return Err(io::Error::other(format!("the load did not begin: {last}")));
        }
        running.said = Some(said);
        Ok(running)
    }
}

/// A program that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    handle: OwnedFd,
    /// Kept, so that it may say more.
    said: Option<BufReader<ChildStdout>>,
}

impl Running {
    fn watch(mut child: Child) -> io::Result<Self> {
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(handle) => Ok(Self {
                child,
                handle,
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
    /// Those of `poll(2)`.
    pub fn ends_within(&self, patience: Duration) -> io::Result<bool> {
        is_ready(&self.handle, patience)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("a program does not end: {error}");
        }
    }
}

/// A server that listens; it is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    running: Running,
    address: SocketAddr,
    _said: BufReader<ChildStdout>,
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

fn is_ready(what: &impl AsFd, patience: Duration) -> io::Result<bool> {
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    let mut polled = [PollFd::new(what, PollFlags::IN)];
    loop {
        match poll(&mut polled, Some(&patience)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
        let first = (0..CpuSet::MAX_CPU)
            .find(|core| processors.all.is_set(*core))
            .expect("one");
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
        let first = (0..CpuSet::MAX_CPU)
            .find(|core| processors.all.is_set(*core))
            .expect("one");
        let server = processors.server(first, &mut shell("echo hello; exec sleep 1000"));
        let told = server.expect_err("it does not listen").to_string();
        assert!(told.contains("hello"), "{told}");
        let server = processors.server(
            first,
            &mut shell("echo listening on 127.0.0.1:7; exec sleep 1000"),
        );
        assert_eq!(server.expect("it says so").address().port(), 7);
    }
}
