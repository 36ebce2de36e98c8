//! This program, run again as somebody else, who is told things and says things, line by line.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Another process of this program. It is killed where this is dropped before its end.
#[derive(Debug)]
pub struct Again {
    child: Child,
    commands: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
}

impl Again {
    /// Returns what follows the program's name, for it to run one test and hide nothing that it says:
    /// `test` is the name of the calling test, with its module.
    pub fn arguments(test: &str) -> [&str; 4] {
        [test, "--exact", "--nocapture", "--test-threads=1"]
    }

    /// Returns the command that runs one test of this program again; see [`Again::arguments`].
    ///
    /// # Panics
    ///
    /// If this program has no path.
    pub fn command(test: &str) -> Command {
        let mut command = Command::new(env::current_exe().expect("this program has a path"));
        command.args(Self::arguments(test));
        command
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().expect("this program runs again");
        let commands = child.stdin.take();
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        Self {
            child,
            commands,
            said,
        }
    }

    /// Returns the number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it a line.
    ///
    /// # Panics
    ///
    /// If it does not listen.
    pub fn tell(&mut self, line: &str) {
        let commands = self.commands.as_mut().expect("until the end");
        writeln!(commands, "{line}").expect("it listens");
        commands.flush().expect("it listens");
    }

    /// Reads to the next line with this mark, and returns what is behind it.
    ///
    /// # Panics
    ///
    /// If it ends before.
    pub fn line_behind(&mut self, mark: &str) -> String {
        loop {
            let line = self.line().expect("it has ended");
            if let Some(at) = line.find(mark) {
                return line[at + mark.len()..].trim().to_owned();
            }
        }
    }

    /// Reads its next line; `None` at its end.
    ///
    /// # Panics
    ///
    /// If it says what is no text.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.said.read_line(&mut line).expect("text");
        (count > 0).then_some(line)
    }

    /// Ends it: it is told nothing more.
    ///
    /// # Panics
    ///
    /// If it does not end well, with what it said.
    pub fn end(mut self) {
        drop(self.commands.take());
        let mut rest = String::new();
        while let Some(line) = self.line() {
            rest.push_str(&line);
        }
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "it failed ({status}): {rest}");
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It ended by itself, and well.
    Lived,
    /// It was killed.
    Killed,
}

impl Again {
    /// Hears it to its end, and kills it after a while (`SIGKILL`), if it is still there and `killed_after`
    /// says so.
    ///
    /// # Panics
    ///
    /// If it fails, or says what is no text.
    pub fn hear_out(mut self, killed_after: Option<Duration>, mut hear: impl FnMut(&str)) -> End {
        let Self { child, said, .. } = &mut self;
        thread::scope(|threads| {
            let (ended, end) = mpsc::channel::<()>();
            if let Some(after) = killed_after {
                threads.spawn(move || {
                    if end.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
                        child.kill().expect("it is ours");
                    }
                });
            }
            let mut line = String::new();
            while said.read_line(&mut line).expect("text") > 0 {
                // Of a line that was cut short nothing is known.
                if line.ends_with('\n') {
                    hear(&line);
                }
                line.clear();
            }
            drop(ended);
        });
        let status = self.child.wait().expect("a child");
        if killed_after.is_some() && status.signal() == Some(libc::SIGKILL) {
            return End::Killed;
        }
        assert!(status.success(), "it failed: {status}");
        End::Lived
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // It has ended already, unless its test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
