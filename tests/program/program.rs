//! The program, built once and started as often as it takes.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;
use tests::http_client::{Client, until};

/// Returns the program, which is built when it is first asked for: as this test was.
pub(crate) fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(build)
}

fn build() -> PathBuf {
    // <target>/[<triple>/]<profile>/deps/<this test>
    let this = std::env::current_exe().expect("this program has a path");
    let mut above = this.ancestors().skip(2);
    let profile_folder = above.next().expect("a profile has a folder");
    // Cargo gives tests a folder of their own below the same target folder.
    let beside = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = above
        .find(|folder| beside.starts_with(folder))
        .expect("both lie in the target folder");
    let inside = profile_folder.strip_prefix(target).expect("it is above");
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let profile = match name(profile_folder).expect("a profile has a name") {
        name if name == "debug" => "dev".to_owned(),
        name => name,
    };

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--frozen", "--message-format=json"])
        .args(["-p", "quoit-net", "--bin", "quoit"])
        .args(["--profile", &profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(triple) = inside.parent().and_then(name) {
        command.args(["--target", &triple]);
    }
    let output = command.output().expect("cargo can be started");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the program is not built: {complaints}"
    );
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().find_map(|message| {
        let (_, rest) = message.split_once("\"executable\":\"")?;
        rest.split_once('"').map(|(path, _)| PathBuf::from(path))
    });
    built.unwrap_or_else(|| panic!("cargo does not say where the program is: {messages}"))
}

/// The program, while it serves. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    said: BufReader<File>,
    address: SocketAddr,
}

/// How the program ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    /// What it said after it had begun to listen and had not been read.
    pub(crate) said: String,
}

impl Program {
    /// Serves `root` on a free port, with more options.
    pub(crate) fn serving(root: &Path, options: &[&str]) -> Self {
        Self::started(&mut Self::command(root, options))
    }

    /// Serves `root`, and writes what goes wrong into a file.
    pub(crate) fn complaining_to(file: &Path, root: &Path, options: &[&str]) -> Self {
        let file = File::create(file).expect("a new file");
        Self::started(Self::command(root, options).stderr(file))
    }

    /// Serves `root` with a standard error that is a pipe nobody reads any more.
    pub(crate) fn unheard(root: &Path, options: &[&str]) -> Self {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        Self::started(Self::command(root, options).stderr(writer))
    }

    /// Serves `root` with a standard output and a standard error that are full pipes; returns the ends from
    /// which nobody reads.
    pub(crate) fn unread(root: &Path, options: &[&str]) -> (PipeReader, PipeReader, Self) {
        let (output, errors) = (full_pipe(), full_pipe());
        // It cannot say which port is free. Nobody else is on this address.
        let [.., high, low] = std::process::id().to_be_bytes();
        let free = TcpListener::bind((Ipv4Addr::new(127, 77, high, low), 0)).expect("a free port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let mut command = Command::new(path());
        command.args(["serve", "--listen", &address.to_string(), "--root"]);
        command.arg(root).args(options);
        let command = command.stdin(Stdio::null());
        let command = command.stdout(output.1).stderr(errors.1);
        let child = command.spawn().expect("the program can be started");
        let program = Self {
            child,
            // It says nothing that could be read.
            said: BufReader::new(File::open("/dev/null").expect("it is there")),
            address,
        };
        until(|| TcpStream::connect(address).is_ok());
        (output.0, errors.0, program)
    }

    /// Serves `root` and says what it has to say on standard error; returns its standard output.
    pub(crate) fn saying_on_standard_error(root: &Path, options: &[&str]) -> (Self, ChildStdout) {
        let mut command = Self::command(root, options);
        let mut child = spawn(command.stderr(Stdio::piped()));
        let output = child.stdout.take().expect("it is a pipe");
        let said = OwnedFd::from(child.stderr.take().expect("it is a pipe"));
        (Self::listening(child, said.into()), output)
    }

    /// The command that serves `root` on a free port, with more options.
    pub(crate) fn command(root: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(path());
        command.args(["serve", "--listen", "127.0.0.1:0", "--root"]);
        command.arg(root).args(options);
        command
    }

    /// Starts `command`, and waits until it listens.
    pub(crate) fn started(command: &mut Command) -> Self {
        let mut child = spawn(command);
        let said = OwnedFd::from(child.stdout.take().expect("it is a pipe"));
        Self::listening(child, said.into())
    }

    fn listening(child: Child, said: File) -> Self {
        let mut said = BufReader::new(said);
        let line = next_line(&mut said);
        let address = line
            .strip_prefix("listening on ")
            .and_then(|url| url.split_once("://"))
            .map(|(_, address)| address)
            .and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("{line:?} names no address"));
        Self {
            child,
            said,
            address,
        }
    }

    /// Returns the address it said it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connects.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends a signal, by its short name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args(["-s", name, pid.as_str()])
            .status();
        assert!(status.expect("there is a kill").success());
    }

    /// Waits for the next line it says.
    pub(crate) fn next_line(&mut self) -> String {
        next_line(&mut self.said)
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> End {
        let mut said = String::new();
        self.said.read_to_string(&mut said).expect("it speaks text");
        let status = self.child.wait().expect("it is our child");
        End { status, said }
    }

    /// Returns a line of what the kernel says of it, such as `VmHWM`, in KiB.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line[1..].split_whitespace().next());
        value.expect("a line for memory").parse().expect("a number")
    }

    /// Returns how many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        descriptors.expect("it runs").count()
    }

    /// Returns how many descriptors it may have open, and how many it may give itself.
    pub(crate) fn allowed_descriptors(&self) -> (String, String) {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.child.id()));
        let limits = limits.expect("it runs");
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"));
        let mut values = line.expect("a line").split_whitespace().map(str::to_owned);
        let mut next = || values.next().expect("a limit");
        (next(), next())
    }

    /// Returns the names of its threads.
    pub(crate) fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let mut names: Vec<String> = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a pipe that takes nothing more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let file = format!("/proc/self/fd/{}", writer.as_raw_fd());
    // Opened once more, so that whoever gets the other one does wait.
    let mut options = File::options();
    let options = options.write(true).custom_flags(libc::O_NONBLOCK);
    let mut filling = options.open(file).expect("our own");
    for length in [4096, 1] {
        while filling.write(&[b'x'; 4096][..length]).is_ok() {}
    }
    (reader, writer)
}

fn spawn(command: &mut Command) -> Child {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped());
    piped.spawn().expect("the program can be started")
}

fn next_line(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    said.read_line(&mut line).expect("it speaks text");
    line.trim_end().to_owned()
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(path());
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("the program can be started")
}

/// An empty folder to serve.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}
