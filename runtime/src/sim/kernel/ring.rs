//! One ring: its two queues, the requests in flight, and the deferred work of its core.
//!
//! ```text
//!   push ─► submissions ─enter─► in flight ─ready─► deferred work ─enter─► completions ─► reap
//!                                                                    └─ full ─► overflow
//! ```
//!
//! As a real ring of this runtime's is set up (DEFER_TASKRUN), completions appear only when the core
//! enters the kernel; the flag that there is deferred work tells without entering.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::RawFd;

use super::{ObjectId, OpKey};
use crate::buf::door::BufferRing;
use crate::driver::{Completion, Wait};
use crate::kernel_op::request::Request;
use crate::kernel_op::slab::About;

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for its object to change.
    Armed,
    /// It can be tried from this time on.
    Ready { at: u64 },
    /// A worker carries it out, which cannot be stopped, until this time.
    Running { until: u64 },
    /// It ends with this result and these flags, from this time on.
    Ends { at: u64, result: i32, flags: u32 },
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) user_data: u64,
    pub(crate) request: Request,
    pub(crate) stage: Stage,
    pub(crate) object: Option<ObjectId>,
    /// What else it waits for.
    pub(crate) also: Vec<ObjectId>,
    /// Bytes that are sent already, of a send that goes on until all are.
    pub(crate) sent: usize,
    pub(crate) since: u64,
    /// It was asked to end.
    pub(crate) asked: bool,
    /// It has been tried before.
    pub(crate) tried: bool,
    /// When it is tried again whatever happens, if that lies ahead.
    pub(crate) retry_at: u64,
}

/// The buffers that were announced.
#[derive(Debug)]
pub(crate) struct Provided {
    pub(crate) ring: BufferRing,
    pub(crate) incremental: bool,
    /// How many were taken, as 16 bits.
    pub(crate) head: u16,
    /// How much of the one at the head is filled.
    pub(crate) filled: u32,
    /// How many were looked at, as 16 bits, and which of those lie in the ring.
    pub(crate) looked_at: u16,
    pub(crate) lying: BTreeSet<u16>,
}

impl Provided {
    /// Looks at what was put in since the last look. Returns a buffer that lies there already.
    pub(crate) fn put_in_twice(&mut self) -> Option<u16> {
        while self.looked_at != self.ring.tail() {
            let (number, _, _) = self.ring.entry(self.looked_at);
            self.looked_at = self.looked_at.wrapping_add(1);
            if !self.lying.insert(number) {
                return Some(number);
            }
        }
        None
    }
}

#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) submissions: VecDeque<(Request, u64)>,
    pub(crate) submission_entries: usize,
    pub(crate) completions: VecDeque<Completion>,
    pub(crate) completion_entries: usize,
    pub(crate) overflow: VecDeque<Completion>,
    pub(crate) in_flight: BTreeMap<OpKey, InFlight>,
    /// Those in flight by their numbers.
    numbers: BTreeMap<u64, OpKey>,
    /// Answers that are on their way: to cancel requests.
    pub(crate) answers: Vec<(u64, Completion)>,
    /// Requests that could be tried, so that they are found without a search.
    ready: Vec<(u64, OpKey)>,
    /// The last request of each slot, by the slot's index.
    last: BTreeMap<u32, u64>,
    pub(crate) provided: Option<Provided>,
    /// How its core waits, if it does.
    pub(crate) waiting: Option<Wait>,
    /// The wait is to end without a reason.
    pub(crate) interrupted: bool,
}

impl Ring {
    pub(crate) fn new(submission_entries: u32, completion_entries: u32) -> Self {
        Self {
            submissions: VecDeque::new(),
            submission_entries: submission_entries as usize,
            completions: VecDeque::new(),
            completion_entries: completion_entries as usize,
            overflow: VecDeque::new(),
            in_flight: BTreeMap::new(),
            numbers: BTreeMap::new(),
            answers: Vec::new(),
            ready: Vec::new(),
            last: BTreeMap::new(),
            provided: None,
            waiting: None,
            interrupted: false,
        }
    }

    /// Notes that a request can be tried from `at` on.
    pub(crate) fn ready(&mut self, key: OpKey, at: u64) {
        let Some(op) = self.in_flight.get_mut(&key) else {
            return;
        };
        match op.stage {
            Stage::Armed => op.stage = Stage::Ready { at },
            Stage::Ready { at: before } if at < before => op.stage = Stage::Ready { at },
            Stage::Ready { .. } | Stage::Running { .. } | Stage::Ends { .. } => return,
        }
        self.ready.push((at, key));
    }

    /// Notes that a request, in whatever stage, is looked at from `at` on.
    pub(crate) fn look_at(&mut self, key: OpKey, at: u64) {
        self.ready.push((at, key));
    }

    /// Takes the requests that are to be looked at now.
    pub(crate) fn take_ready(&mut self, now: u64) -> Vec<OpKey> {
        let mut due = Vec::new();
        let mut seen = BTreeSet::new();
        let flying = &self.in_flight;
        self.ready.retain(|(at, key)| {
            if *at > now {
                return flying.contains_key(key);
            }
            if flying.contains_key(key) && seen.insert(*key) {
                due.push(*key);
            }
            false
        });
        due
    }

    /// Returns when there is something for the kernel to do for this ring.
    pub(crate) fn next_work(&self) -> Option<u64> {
        let ready = self.ready.iter().map(|(at, _)| *at);
        let answers = self.answers.iter().map(|(at, _)| *at);
        ready.chain(answers).min()
    }

    /// Takes a request in whose number no other has.
    pub(crate) fn insert(&mut self, key: OpKey, op: InFlight) {
        self.numbers.insert(op.user_data, key);
        self.in_flight.insert(key, op);
    }

    pub(crate) fn remove(&mut self, key: OpKey) -> Option<InFlight> {
        let op = self.in_flight.remove(&key)?;
        self.numbers.remove(&op.user_data);
        Some(op)
    }

    pub(crate) fn find(&self, user_data: u64) -> Option<OpKey> {
        self.numbers.get(&user_data).copied()
    }

    /// Notes whose number a request has. True if the one before it in its slot had the same: what is
    /// late for the one would be taken for the other's.
    pub(crate) fn is_used_again(&mut self, user_data: u64) -> bool {
        match About::of(user_data) {
            About::Op(_) => self.last.insert(user_data as u32, user_data) == Some(user_data),
            About::CancelOf(_) | About::Wake | About::Nothing => false,
        }
    }

    /// Returns the name of a request that names this descriptor and was not taken yet, or is in flight, if it is
    /// used there.
    pub(crate) fn names(&self, fd: RawFd, is_used: bool) -> Option<&'static str> {
        let in_flight = is_used.then_some(&self.in_flight);
        in_flight
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|op| &op.request)
            .chain(self.submissions.iter().map(|(request, _)| request))
            .find(|request| {
                request.descriptor() == Some(fd) && !matches!(request, Request::Close { .. })
            })
            .map(|request| request.kind().name())
    }

    /// Puts a completion where the core finds it. False if it overflowed.
    pub(crate) fn post(&mut self, completion: Completion, pretend_full: bool) -> bool {
        let full = self.completions.len() >= self.completion_entries || pretend_full;
        if full || !self.overflow.is_empty() {
            self.overflow.push_back(completion);
            return false;
        }
        self.completions.push_back(completion);
        true
    }

    /// Moves what has overflowed into the queue, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while self.completions.len() < self.completion_entries {
            match self.overflow.pop_front() {
                Some(completion) => self.completions.push_back(completion),
                None => return,
            }
        }
    }
}
