//! Standard output and standard error, for those who are not to wait for whoever reads them.
//!
//! A pipe that nobody reads is full at some time, and then whoever writes to it waits: a core, with all of
//! its connections, or a program that wants to end. So a text goes into a queue, and a thread of the stream's
//! own writes it. What finds no room in the queue is lost, counted, and told of when there is room again.
//!
//! ```text
//!   anybody ──► text ──► queue with an end ──► thread ──► the stream
//!                            │ no room            ▲
//!                            └────► counted ──────┘ told, behind what waits
//! ```
//!
//! The thread is started by the first text, inherits the signals that are blocked there, and stays: block those
//! that are to be waited for ([`quoit::signal`]) before anything is written. A stream that cannot be written to (a pipe whose reader
//! has gone) is no reason to end anything: what is meant for it is dropped. In a simulation it is the process's
//! real stream all the same: nobody there can tell. A stream that does not block, as a terminal does not if anybody
//! else who has it wanted that, is waited for as any other.
//!
//! ```
//! use std::time::Duration;
//! use quoit_net::stdio;
//!
//! stdio::stderr().write("something is wrong\n");
//! // Before the program ends, for as long as it can wait.
//! let _is_said = stdio::stderr().flush(Duration::from_secs(1));
//! ```

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

/// A stream of the process that takes texts at once and writes them when it can; see [`stdio`](self).
#[derive(Debug)]
pub struct Stdio {
    /// Of its thread.
    name: &'static str,
    write: fn(&[u8]) -> io::Result<()>,
    state: Mutex<State>,
    /// Told of each change that somebody may wait for.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<String>,
    /// How many bytes wait, those that are being written included.
    bytes: usize,
    /// How many texts found no room and were not told of.
    lost: u64,
    has_thread: bool,
    is_writing: bool,
}

/// How many bytes may wait: many thousands of complaints. A text that finds none waiting is taken, however
/// long it is.
const MOST_BYTES: usize = 1024 * 1024;

/// Returns the process's standard output.
pub fn stdout() -> &'static Stdio {
    static STDOUT: Stdio = Stdio::new("stdout", |bytes| write_all(io::stdout().lock(), bytes));
    &STDOUT
}

/// Returns the process's standard error.
pub fn stderr() -> &'static Stdio {
    static STDERR: Stdio = Stdio::new("stderr", |bytes| write_all(io::stderr(), bytes));
    &STDERR
}

impl Stdio {
    const fn new(name: &'static str, write: fn(&[u8]) -> io::Result<()>) -> Self {
        Self {
            name,
            write,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                bytes: 0,
                lost: 0,
                has_thread: false,
                is_writing: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Has a text written, which brings its own end of line. Never waits: if 1 MiB waits already, the text is
    /// lost, and the stream is told how many were.
    ///
    /// What is written with `print!` or `eprint!` meanwhile may come before it.
    pub fn write(&'static self, text: impl Into<String>) {
        let text = text.into();
        let mut state = self.lock();
        if !state.waiting.is_empty() && state.bytes + text.len() > MOST_BYTES {
            state.lost += 1;
            return;
        }
        state.bytes += text.len();
        state.waiting.push_back(text);
        if !state.has_thread {
            let thread = thread::Builder::new().name(self.name.to_owned());
            // If there is none to be had, the next text tries again.
            state.has_thread = thread.spawn(|| self.run()).is_ok();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until everything was written, or `patience` is over; returns whether it was. It blocks the
    /// thread: not for a core.
    pub fn flush(&self, patience: Duration) -> bool {
        let is_busy = |state: &mut State| state.is_writing || state.has_more();
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), patience, is_busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !is_busy(&mut state)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            while !state.has_more() {
                let told = self.changed.wait(state);
                state = told.unwrap_or_else(PoisonError::into_inner);
            }
            let texts = std::mem::take(&mut state.waiting);
            let lost = std::mem::take(&mut state.lost);
            state.is_writing = true;
            drop(state);
            let mut written = 0;
            for text in texts {
                written += text.len();
                // Nobody is there to be told.
                let _ = (self.write)(text.as_bytes());
            }
            if lost > 0 {
                let _ = (self.write)(told_of(lost).as_bytes());
            }
            state = self.lock();
            state.bytes -= written;
            state.is_writing = false;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_more(&self) -> bool {
        !self.waiting.is_empty() || self.lost > 0
    }
}

/// Writes all of it, and waits wherever the stream has no room: whether it blocks is up to everybody who has it.
fn write_all(mut stream: impl Write + AsFd, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        let written = match bytes {
            [] => stream.flush().map(|()| None),
            left => stream.write(left).map(Some),
        };
        match written {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(Some(count)) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // What is wrong with it is told by the next write.
                let _ = poll(&mut [PollFd::new(&stream, PollFlags::OUT)], None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn told_of(lost: u64) -> String {
    let texts = if lost == 1 { "text" } else { "texts" };
    format!("quoit: {lost} {texts} for this stream were lost: nobody read what came before\n")
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read};
    use std::sync::OnceLock;

    use super::*;

    /// A stream of the test's own: a pipe.
    static PIPE: OnceLock<(Mutex<PipeReader>, PipeWriter)> = OnceLock::new();
    static STREAM: Stdio = Stdio::new("pipe", |bytes| write_all(&pipe().1, bytes));

    fn pipe() -> &'static (Mutex<PipeReader>, PipeWriter) {
        PIPE.get_or_init(|| {
            let (reader, writer) = io::pipe().expect("a pipe");
            (Mutex::new(reader), writer)
        })
    }

    fn read(bytes: usize) -> String {
        let mut text = vec![0; bytes];
        let mut reader = pipe().0.lock().expect("no panic");
        reader.read_exact(&mut text).expect("it is written");
        String::from_utf8(text).expect("text")
    }

    /// One after the other, since it is one pipe: nobody reads it at first, and then somebody does.
    #[test]
    fn who_writes_does_not_wait_and_is_told_what_was_lost() {
        const LINE: usize = 1024;
        let line = |number: usize| format!("{number:>width$}\n", width = LINE - 1);
        assert!(STREAM.flush(Duration::ZERO), "there is nothing to write");
        STREAM.write("a\n");
        assert!(STREAM.flush(Duration::from_secs(30)));
        assert_eq!(read(2), "a\n");

        // It is taken whole, alone as it is, and is more than a pipe takes.
        let long = "x".repeat(2 * MOST_BYTES);
        STREAM.write(&*long);
        assert!(!STREAM.flush(Duration::from_millis(1)), "nobody reads");
        while !STREAM.lock().is_writing {
            thread::yield_now();
        }
        // One finds an empty queue, and the others a full one.
        STREAM.write(line(0));
        STREAM.write(line(1));
        STREAM.write(line(2));
        assert!(!STREAM.flush(Duration::from_millis(1)), "nobody reads");
        assert_eq!(read(long.len()), long);
        assert_eq!(read(LINE), line(0));
        assert_eq!(read(told_of(2).len()), told_of(2));
        assert!(STREAM.flush(Duration::from_secs(30)));

        // There is room again.
        STREAM.write(line(3));
        STREAM.write(line(4));
        assert_eq!(read(2 * LINE), line(3) + &line(4));
    }

    #[test]
    fn a_stream_that_does_not_block_loses_nothing_either() {
        static ENDS: OnceLock<(PipeReader, PipeWriter)> = OnceLock::new();
        static STREAM: Stdio = Stdio::new("pipe", |bytes| {
            write_all(&ENDS.get().expect("it is there").1, bytes)
        });
        let ends = ENDS.get_or_init(|| io::pipe().expect("a pipe"));
        rustix::io::ioctl_fionbio(&ends.0, true).expect("a flag");
        rustix::io::ioctl_fionbio(&ends.1, true).expect("a flag");
        // More than a pipe takes at once.
        let long = format!("{}\n", "x".repeat(MOST_BYTES));
        STREAM.write(&*long);
        let (mut reader, mut read) = (&ends.0, Vec::new());
        loop {
            let is_written = STREAM.flush(Duration::ZERO);
            let mut part = [0; 4096];
            match reader.read(&mut part) {
                Ok(count) => read.extend_from_slice(&part[..count]),
                Err(_) if is_written => break,
                Err(_) => thread::yield_now(),
            }
        }
        assert!(read == long.as_bytes(), "{} of {}", read.len(), long.len());
    }
}
