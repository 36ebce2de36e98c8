//! The access log: a line for each request that has ended, written by a thread of its own.
//!
//! ```text
//!   core ──► line ──► queue with an end ──► thread ──in batches──► a file, or standard output
//!                          │ no room                   │ not written
//!                          └───────► counted ◄─────────┘
//!                                       │
//!                                       ▼
//!                        said on standard error, once a minute at most
//! ```
//!
//! Invariants:
//! - No core waits for the log, whatever becomes of it.
//! - Each line is in the log as a whole, or counted as lost.

mod entry;
mod losses;
mod output;
mod target;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use quoit::time::{Instant, wall_clock};
use quoit_net::http::Answered;

use entry::Entry;
use losses::Losses;
use output::Output;
pub(crate) use target::Target;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The combined log format of NCSA and Apache, and at the end the seconds that it took
    Combined,
    /// An object of JSON
    Json,
}

/// The log, while the server runs.
#[derive(Debug)]
pub(crate) struct AccessLog {
    target: Target,
    format: Format,
    queue: Queue,
    /// Says nothing, and ends with the thread.
    ended: Mutex<Receiver<()>>,
}

/// Where lines go in.
#[derive(Debug, Clone)]
struct Queue {
    lines: SyncSender<Vec<u8>>,
    shared: Arc<Shared>,
}

/// What the thread and the others share.
#[derive(Debug, Default)]
struct Shared {
    /// How many bytes of lines wait.
    bytes: AtomicUsize,
    /// How many lines found no room.
    refused: AtomicU64,
    /// What is to be written to from now on.
    next: Mutex<Option<Output>>,
    is_ending: AtomicBool,
}

/// How many lines may wait, and how many bytes of them: what clients send is not to fill the memory.
const MOST_LINES: usize = 16 * 1024;
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// How much is written at once.
const BATCH: usize = 64 * 1024;

/// How often it is said at most that lines were lost.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// How long the last lines may take when the program ends.
const LAST_LINES: Duration = Duration::from_secs(2);

impl AccessLog {
    /// Opens it and starts its thread. Signals that are to be waited for are blocked by then.
    pub(crate) fn begin(target: Target, format: Format) -> io::Result<Self> {
        let (lines, queued) = mpsc::sync_channel(MOST_LINES);
        let (ending, ended) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            output: target.open()?,
            queued,
            shared: Arc::clone(&shared),
            losses: Losses::new(target.to_string()),
            batch: Vec::with_capacity(BATCH),
        };
        quoit::start_thread("access-log", move || {
            writer.run();
            drop(ending);
        })?;
        Ok(Self {
            target,
            format,
            queue: Queue { lines, shared },
            ended: Mutex::new(ended),
        })
    }

    /// Returns what the server tells of its requests.
    pub(crate) fn listener(&self) -> impl Fn(&Answered<'_>) + Send + Sync + 'static {
        let (queue, format) = (self.queue.clone(), self.format);
        move |answered| {
            // When the request came in, as in the logs of others.
            let at = wall_clock().checked_sub(answered.took);
            let entry = Entry::of(answered, at.unwrap_or(std::time::UNIX_EPOCH));
            queue.offer(match format {
                Format::Combined => entry.combined(),
                Format::Json => entry.json(),
            });
        }
    }

    /// Opens the file anew, which may have been moved away; `false` if it is none.
    pub(crate) fn reopen(&self) -> io::Result<bool> {
        if !self.target.is_file() {
            return Ok(false);
        }
        let opened = self.target.open()?;
        let next = &self.queue.shared.next;
        let before = next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(opened);
        drop(before);
        self.queue.rouse();
        Ok(true)
    }

    /// Writes what waits; gives up if nobody takes it.
    pub(crate) fn finish(&self) {
        // Release: pairs with the Acquire of the thread, which then finds all lines in the queue.
        self.queue.shared.is_ending.store(true, Ordering::Release);
        self.queue.rouse();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Timeout) {
            crate::complain(format_args!(
                "the access log lost its last lines: {} took nothing for {} s",
                self.target,
                LAST_LINES.as_secs()
            ));
        }
    }
}

impl Queue {
    fn offer(&self, line: Vec<u8>) {
        let length = line.len();
        let before = self.shared.bytes.fetch_add(length, Ordering::Relaxed);
        if before + length > MOST_BYTES || self.lines.try_send(line).is_err() {
            self.shared.bytes.fetch_sub(length, Ordering::Relaxed);
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes the thread look. If there is no room it has lines to look at.
    fn rouse(&self) {
        let _ = self.lines.try_send(Vec::new());
    }
}

/// The thread that writes.
#[derive(Debug)]
struct Writer {
    output: Output,
    queued: Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    losses: Losses,
    batch: Vec<u8>,
}

impl Writer {
    fn run(mut self) {
        loop {
            let first = match self.losses.due(SAID_EVERY) {
                None => self.queued.recv().map_err(RecvTimeoutError::from),
                Some(due) => {
                    let left = due.duration_since(Instant::now());
                    self.queued.recv_timeout(left)
                }
            };
            // Acquire: pairs with the Release in `finish`.
            let is_ending = self.shared.is_ending.load(Ordering::Acquire)
                || first == Err(RecvTimeoutError::Disconnected);
            let mut waiting = first.ok();
            while let Some(line) = waiting.take() {
                self.gather(line);
                self.write();
                // To the last line, if no more is to come.
                waiting = if is_ending {
                    self.queued.try_recv().ok()
                } else {
                    None
                };
            }
            let said = if is_ending {
                self.losses.say_all()
            } else {
                self.losses.say_at(Instant::now(), SAID_EVERY)
            };
            for line in said {
                crate::complain(format_args!("{line}"));
            }
            if is_ending {
                return;
            }
        }
    }

    /// Puts this line and those that wait into a batch.
    fn gather(&mut self, first: Vec<u8>) {
        self.batch.clear();
        self.batch.extend_from_slice(&first);
        while self.batch.len() < BATCH
            && let Ok(line) = self.queued.try_recv()
        {
            self.batch.extend_from_slice(&line);
        }
    }

    fn write(&mut self) {
        let next = self.shared.next.lock();
        if let Some(output) = next.unwrap_or_else(PoisonError::into_inner).take() {
            self.output = output;
        }
        if let Err((lines, error)) = self.output.write(&self.batch) {
            self.losses.unwritten(lines, &error);
        }
        // Only now: until it is written it takes memory.
        self.shared
            .bytes
            .fetch_sub(self.batch.len(), Ordering::Relaxed);
        self.losses
            .refused(self.shared.refused.swap(0, Ordering::Relaxed));
    }
}
