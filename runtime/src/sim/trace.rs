//! What happened, in order.
//!
//! Equal seeds give equal traces: nothing goes in that differs between two runs or two builds, such
//! as an address or the number of a core in its process.

use std::collections::VecDeque;
use std::fmt;

use super::fault::Fault;
use super::random::mix;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of virtual time since the simulation began.
    pub at: u64,
    /// Where: a core, in order of their making; none outside of all.
    pub core: Option<usize>,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// A core takes a step.
    Step,
    /// A core waits in the kernel, until then at the latest.
    Park {
        /// In nanoseconds since the simulation began.
        until: Option<u64>,
    },
    /// A core returns from the kernel.
    Wake,
    /// A core has ended.
    End,
    /// A request goes to the kernel.
    Submit {
        /// Its kind.
        request: &'static str,
        /// On which descriptor.
        descriptor: i32,
        /// Which request it is, counted from the first.
        number: u64,
    },
    /// A completion comes from the kernel.
    Complete {
        /// The kind of its request.
        request: &'static str,
        /// Which request it is, counted from the first.
        number: u64,
        /// Its result.
        result: i32,
        /// Its flags.
        flags: u32,
    },
    /// A fault comes.
    Fault(Fault),
    /// A call goes to the kernel past the ring.
    Call {
        /// Its name.
        name: &'static str,
        /// Its descriptor, or what it made.
        value: i64,
    },
    /// An event of the world: bytes arrive, or a scripted closure runs.
    World(&'static str),
    /// The program says something.
    Note(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.at / 1_000_000_000, self.at % 1_000_000_000);
        write!(f, "{seconds:>4}.{nanos:09} ")?;
        match self.core {
            Some(core) => write!(f, "core {core}: ")?,
            None => f.write_str("outside: ")?,
        }
        match &self.what {
            What::Step => f.write_str("step"),
            What::Park { until: None } => f.write_str("parks"),
            What::Park { until: Some(until) } => write!(
                f,
                "parks until {}.{:09}",
                until / 1_000_000_000,
                until % 1_000_000_000
            ),
            What::Wake => f.write_str("wakes"),
            What::End => f.write_str("has ended"),
            What::Submit {
                request,
                descriptor,
                number,
            } => write!(f, "submits #{number} {request} on {descriptor}"),
            What::Complete {
                request,
                number,
                result,
                flags,
            } => write!(
                f,
                "#{number} {request} completes with {result}, flags {flags}"
            ),
            What::Fault(fault) => write!(f, "fault {fault}"),
            What::Call { name, value } => write!(f, "{name} {value}"),
            What::World(what) => f.write_str(what),
            What::Note(note) => f.write_str(note),
        }
    }
}

/// How many of the last events a report shows.
const LAST: usize = 40;

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Recorder {
    hash: u64,
    count: u64,
    all: Option<Vec<Event>>,
    last: VecDeque<Event>,
}

impl Recorder {
    pub(crate) fn new(keep_all: bool) -> Self {
        Self {
            hash: 0,
            count: 0,
            all: keep_all.then(Vec::new),
            last: VecDeque::with_capacity(LAST),
        }
    }

    pub(crate) fn record(&mut self, event: Event) {
        self.count += 1;
        let core = event.core.map_or(u64::MAX, |core| core as u64);
        self.mix(event.at);
        self.mix(core);
        match &event.what {
            What::Step => self.mix(1),
            What::Park { until } => {
                self.mix(2);
                self.mix(until.unwrap_or(u64::MAX));
            }
            What::Wake => self.mix(3),
            What::End => self.mix(4),
            What::Submit {
                request,
                descriptor,
                number,
            } => {
                self.mix_text(request);
                self.mix(*descriptor as u64);
                self.mix(*number);
            }
            What::Complete {
                request,
                number,
                result,
                flags,
            } => {
                self.mix_text(request);
                self.mix(*number);
                self.mix(*result as u64);
                self.mix(u64::from(*flags));
            }
            What::Fault(fault) => {
                self.mix(5);
                self.mix(*fault as u64);
            }
            What::Call { name, value } => {
                self.mix_text(name);
                self.mix(*value as u64);
            }
            What::World(what) => self.mix_text(what),
            What::Note(note) => self.mix_text(note),
        }
        if let Some(all) = &mut self.all {
            all.push(event);
            return;
        }
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(event);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn take_all(&mut self) -> Vec<Event> {
        self.all.take().unwrap_or_default()
    }

    /// Returns the last events.
    pub(crate) fn tail(&self) -> Vec<Event> {
        match &self.all {
            Some(all) => all[all.len().saturating_sub(LAST)..].to_vec(),
            None => self.last.iter().cloned().collect(),
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = mix(self.hash.rotate_left(5) ^ word);
    }

    fn mix_text(&mut self, text: &str) {
        for part in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.mix(u64::from_le_bytes(word));
        }
        self.mix(text.len() as u64);
    }
}
