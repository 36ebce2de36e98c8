//! The simulated kernel: descriptors, sockets, pipes, files and rings, in memory and in virtual time.
//!
//! It does what the man pages and measurements of the real one allow, and no more. What they leave
//! open is decided by the seed.
//!
//! In reading order: `Kernel` here holds the parts together. [`ring`] is the queues of one ring,
//! [`work`] takes requests and posts what came of them, [`requests`] carries each kind out, [`cancel`]
//! ends those that are asked to end. What they work on: [`net`] is sockets and connections, [`address`]
//! what they are told, [`ports`] who has which, [`stream`] what goes over a connection, [`pipe`] pipes
//! and counters, [`files`] the tree of files and [`file_calls`] what is asked of them.
//!
//! Invariants:
//! - A request's memory is touched only while the ring's own core is in the kernel, and only after its
//!   slot has been asked whether it still keeps that memory.
//! - An object lives as long as a descriptor names it or a request uses it, as a file does.
//! - No user code is called from here: the kernel is borrowed while it works.

pub(crate) mod address;
mod cancel;
mod file_calls;
pub(crate) mod files;
pub(crate) mod net;
pub(crate) mod pipe;
pub(crate) mod ports;
mod requests;
pub(crate) mod ring;
mod stream;
pub(crate) mod work;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io;
use std::os::fd::RawFd;

use super::fault::{Fault, FaultState};
use super::random::{Choices, Stream};
use super::trace::{Event, Recorder, What};
use files::{FileTree, OpenFile};
use net::Net;
use pipe::PipeEnd;
use ring::Ring;

/// Descriptors of the simulation are numbers from here on, which the real kernel does not hand out:
/// so they tell themselves apart.
pub(crate) const FIRST_FD: RawFd = 1 << 28;

/// An object of the kernel's.
pub(crate) type ObjectId = usize;

/// A ring of the kernel's.
pub(crate) type RingId = usize;

/// A request in flight, counted over the whole run.
pub(crate) type OpKey = u64;

#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    /// Descriptors and requests that use it.
    owners: u32,
    /// Requests that wait for a change of it.
    watchers: Vec<(RingId, OpKey)>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Socket(net::Socket),
    Pipe(PipeEnd),
    Counter(u64),
    File(OpenFile),
}

/// Something that will happen by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Coming {
    /// Bytes or an end arrive at this socket.
    Arrival(ObjectId),
    /// A socket has waited for its peer for long enough.
    GivesUp(ObjectId),
    /// A request that waits tries again, whether or not anything has changed.
    Retry(RingId, OpKey),
    /// A closure of the program's own script.
    Script(usize),
    /// The same, of one that may block.
    Work(usize),
    /// A wait in the kernel ends without a reason.
    Interruption(RingId),
    /// Nothing but the time it is: somebody waits for it.
    Moment,
}

/// A rule of the simulation that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which check has found it.
    pub(crate) check: &'static str,
    /// What it found.
    pub(crate) what: String,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) now: u64,
    wall_offset: i64,
    pub(crate) choices: Choices,
    pub(crate) faults: FaultState,
    pub(crate) trace: Recorder,
    pub(crate) random: Stream,
    objects: Vec<Option<Object>>,
    free_objects: BTreeSet<ObjectId>,
    descriptors: Vec<Option<ObjectId>>,
    free_descriptors: BTreeSet<usize>,
    descriptor_limit: usize,
    /// Descriptors of the runtime itself.
    own_descriptors: usize,
    coming: BinaryHeap<Reverse<(u64, u64, Coming)>>,
    sequence: u64,
    pub(crate) net: Net,
    pub(crate) files: FileTree,
    pub(crate) rings: Vec<Option<Ring>>,
    /// The number of the next request, counted over the whole run.
    pub(crate) next_op: OpKey,
    pub(crate) violation: Option<Violation>,
    /// Whose turn it is.
    pub(crate) running: Option<usize>,
    pub(crate) counts: Counts,
    pub(crate) descriptor_names: BTreeMap<RawFd, &'static str>,
    pub(crate) incremental: bool,
    /// Channels of cores that were woken and have not run since.
    woken: BTreeSet<RawFd>,
}

/// What the kernel has seen in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Requests that were submitted.
    pub submitted: u64,
    /// Completions that were posted.
    pub completed: u64,
    /// Cancel requests.
    pub cancels: u64,
    /// Bytes that sockets and pipes have carried.
    pub bytes: u64,
    /// Descriptors that were opened.
    pub opened: u64,
    /// Descriptors that were closed.
    pub closed: u64,
    /// Waits, scopes and tasks that were in the books of a core when it had ended: what the program
    /// has kept for longer, or what was lost.
    pub left_behind: u64,
}

impl Kernel {
    pub(crate) fn new(seed: u64, choices: Choices, faults: FaultState, keep_trace: bool) -> Self {
        let random = Stream::new(seed, 2);
        // Where the kernel has incremental buffers is the machine's to say: every other seed.
        let incremental = Stream::new(seed, 3).chance(1 << 15);
        Self {
            now: 0,
            wall_offset: 0,
            choices,
            faults,
            trace: Recorder::new(keep_trace),
            random,
            objects: Vec::new(),
            free_objects: BTreeSet::new(),
            descriptors: Vec::new(),
            free_descriptors: BTreeSet::new(),
            descriptor_limit: usize::MAX,
            own_descriptors: 0,
            coming: BinaryHeap::new(),
            sequence: 0,
            net: Net::default(),
            files: FileTree::default(),
            rings: Vec::new(),
            next_op: 0,
            violation: None,
            running: None,
            counts: Counts::default(),
            descriptor_names: BTreeMap::new(),
            incremental,
            woken: BTreeSet::new(),
        }
    }

    // --- what happens ---

    pub(crate) fn record(&mut self, what: What) {
        let event = Event {
            at: self.now,
            core: self.running,
            what,
        };
        self.trace.record(event);
    }

    /// Says whether a fault comes; notes it if so.
    pub(crate) fn comes(&mut self, fault: Fault) -> bool {
        let comes = self.faults.comes(fault);
        if comes {
            self.record(What::Fault(fault));
        }
        comes
    }

    /// As [`Self::comes`], and draws from `0..below`.
    pub(crate) fn drawn(&mut self, fault: Fault, below: u64) -> Option<u64> {
        self.comes(fault).then(|| self.faults.draw(fault, below))
    }

    /// One of these errors, if the fault comes.
    pub(crate) fn refused(&mut self, fault: Fault, errors: &[i32]) -> Option<i32> {
        let drawn = self.drawn(fault, errors.len() as u64)?;
        Some(errors[drawn as usize])
    }

    pub(crate) fn violated(&mut self, check: &'static str, what: String) {
        if self.violation.is_none() {
            self.record(What::Note(format!("{check}: {what}")));
            self.violation = Some(Violation { check, what });
        }
    }

    // --- time ---

    /// Lets something happen after a while.
    pub(crate) fn after(&mut self, nanos: u64, coming: Coming) {
        self.sequence += 1;
        let entry = (self.now.saturating_add(nanos), self.sequence, coming);
        self.coming.push(Reverse(entry));
    }

    /// Returns when the next thing happens by itself.
    pub(crate) fn next_coming(&self) -> Option<u64> {
        self.coming.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Returns whether the next thing may block whoever lets it happen.
    pub(crate) fn next_may_block(&self) -> bool {
        let next = self.coming.peek();
        next.is_some_and(|Reverse((_, _, coming))| matches!(coming, Coming::Work(_)))
    }

    /// Takes the next thing that is due.
    pub(crate) fn take_due(&mut self) -> Option<Coming> {
        if self.next_coming()? > self.now {
            return None;
        }
        self.coming.pop().map(|Reverse((_, _, coming))| coming)
    }

    /// The wall clock, in nanoseconds since 1970.
    pub(crate) fn wall_nanos(&mut self) -> i64 {
        /// 2030-01-01.
        const BASE: i64 = 1_893_456_000_000_000_000;
        const DAY: i64 = 86_400_000_000_000;
        if let Some(drawn) = self.drawn(Fault::WallClockJumps, 2 * DAY as u64) {
            self.wall_offset += drawn as i64 - DAY;
        }
        // Past its range it stands still; a seed may have made the program sleep for centuries.
        let now = i64::try_from(self.now).unwrap_or(i64::MAX);
        BASE.saturating_add(now).saturating_add(self.wall_offset)
    }

    // --- descriptors ---

    pub(crate) fn limit_descriptors(&mut self, limit: usize) {
        self.descriptor_limit = limit;
    }

    pub(crate) fn make(&mut self, kind: Kind) -> ObjectId {
        let object = Object {
            kind,
            owners: 0,
            watchers: Vec::new(),
        };
        match self.free_objects.pop_first() {
            Some(free) => {
                self.objects[free] = Some(object);
                free
            }
            None => {
                self.objects.push(Some(object));
                self.objects.len() - 1
            }
        }
    }

    /// Gives an object a descriptor, the lowest free number. `EMFILE` when none is left.
    pub(crate) fn open(&mut self, object: ObjectId, name: &'static str) -> Result<RawFd, i32> {
        if !self.has_descriptor() {
            return Err(libc::EMFILE);
        }
        Ok(self.open_always(object, name))
    }

    /// Whether the program may have another descriptor.
    fn has_descriptor(&self) -> bool {
        let open = self.descriptors.len() - self.free_descriptors.len();
        open - self.own_descriptors < self.descriptor_limit
    }

    /// Gives an object of the runtime's own a descriptor, which the limit does not count.
    pub(crate) fn open_own(&mut self, object: ObjectId, name: &'static str) -> RawFd {
        self.own_descriptors += 1;
        self.open_always(object, name)
    }

    /// Closes a descriptor of [`Self::open_own`].
    pub(crate) fn close_own(&mut self, fd: RawFd) {
        if self.close(fd).is_ok() {
            self.own_descriptors -= 1;
        }
    }

    fn open_always(&mut self, object: ObjectId, name: &'static str) -> RawFd {
        let free = self.free_descriptors.pop_first();
        let place = free.unwrap_or(self.descriptors.len());
        if place == self.descriptors.len() {
            self.descriptors.push(None);
        }
        self.descriptors[place] = Some(object);
        self.own(object);
        self.counts.opened += 1;
        let fd = FIRST_FD + place as RawFd;
        self.descriptor_names.insert(fd, name);
        self.record(What::Call {
            name,
            value: i64::from(fd - FIRST_FD),
        });
        fd
    }

    /// Closes a descriptor. That a request in flight still names it is a bug of ours: its number may
    /// be somebody else's before the request ends.
    pub(crate) fn close(&mut self, fd: RawFd) -> Result<(), i32> {
        let object = self.look_up(fd)?;
        self.record(What::Call {
            name: "close",
            value: i64::from(fd - FIRST_FD),
        });
        // Each request that was taken is an owner: as a rule there is none but the descriptor, and maybe this close.
        let used = self.object(object).owners > 1;
        let mut rings = self.rings.iter().flatten();
        if let Some(request) = rings.find_map(|ring| ring.names(fd, used)) {
            self.violated(
                "descriptor",
                format!(
                    "descriptor {} was closed while a {request} that names it was in flight",
                    fd - FIRST_FD
                ),
            );
        }
        let place = (fd - FIRST_FD) as usize;
        self.descriptors[place] = None;
        self.free_descriptors.insert(place);
        self.descriptor_names.remove(&fd);
        self.counts.closed += 1;
        self.disown(object);
        Ok(())
    }

    pub(crate) fn look_up(&self, fd: RawFd) -> Result<ObjectId, i32> {
        fd.checked_sub(FIRST_FD)
            .and_then(|place| usize::try_from(place).ok())
            .and_then(|place| self.descriptors.get(place).copied().flatten())
            .ok_or(libc::EBADF)
    }

    /// Returns what is still open.
    pub(crate) fn open_descriptors(&self) -> Vec<(RawFd, &'static str)> {
        self.descriptor_names
            .iter()
            .map(|(fd, name)| (fd - FIRST_FD, *name))
            .collect()
    }

    // --- objects ---

    pub(crate) fn object(&self, id: ObjectId) -> &Object {
        self.objects[id].as_ref().expect("an object that is owned")
    }

    pub(crate) fn object_mut(&mut self, id: ObjectId) -> &mut Object {
        self.objects[id].as_mut().expect("an object that is owned")
    }

    pub(crate) fn own(&mut self, id: ObjectId) {
        self.object_mut(id).owners += 1;
    }

    pub(crate) fn disown(&mut self, id: ObjectId) {
        let object = self.object_mut(id);
        object.owners -= 1;
        if object.owners == 0 {
            self.release(id);
        }
    }

    /// Ends an object that nobody uses any more.
    pub(crate) fn release(&mut self, id: ObjectId) {
        let object = self.objects[id].take().expect("released once");
        self.free_objects.insert(id);
        match object.kind {
            Kind::Socket(socket) => self.release_socket(id, socket),
            Kind::Pipe(end) => self.release_pipe(&end),
            Kind::Counter(_) => {}
            Kind::File(file) => self.files.release(&file),
        }
    }

    /// Notes that a request waits for a change of an object.
    pub(crate) fn watch(&mut self, id: ObjectId, ring: RingId, key: OpKey) {
        let watchers = &mut self.object_mut(id).watchers;
        if !watchers.contains(&(ring, key)) {
            watchers.push((ring, key));
        }
    }

    pub(crate) fn unwatch(&mut self, id: ObjectId, ring: RingId, key: OpKey) {
        if let Some(object) = self.objects[id].as_mut() {
            object.watchers.retain(|watcher| *watcher != (ring, key));
        }
    }

    /// An object has changed: requests that wait for it may try again.
    pub(crate) fn changed(&mut self, id: ObjectId) {
        let Some(object) = self.objects[id].as_mut() else {
            return;
        };
        for (ring, key) in std::mem::take(&mut object.watchers) {
            let late = self.drawn(Fault::LateWake, 2_000_000).unwrap_or(0);
            let at = self.now + late;
            if late > 0 {
                self.after(late, Coming::Moment);
            }
            if let Some(ring) = self.rings[ring].as_mut() {
                ring.ready(key, at);
            }
        }
    }

    // --- counters ---

    /// The core with this channel runs.
    pub(crate) fn runs(&mut self, fd: RawFd) {
        self.woken.remove(&fd);
    }

    pub(crate) fn add_to_counter(&mut self, fd: RawFd) -> io::Result<()> {
        let id = self.look_up(fd).map_err(io::Error::from_raw_os_error)?;
        let Kind::Counter(count) = &mut self.object_mut(id).kind else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        *count += 1;
        let twice = !self.woken.insert(fd);
        self.record(What::Call {
            name: "wake",
            value: i64::from(fd - FIRST_FD),
        });
        if twice {
            self.violated(
                "wake",
                "a core was woken that had been woken and has not run since".to_owned(),
            );
        }
        self.changed(id);
        Ok(())
    }

    /// What is due has come: see to it. A script is the caller's.
    pub(crate) fn happen(&mut self, coming: &Coming) {
        match *coming {
            Coming::Arrival(id) => {
                self.record(What::World("bytes arrive"));
                self.arrive(id);
                // Also if nothing arrived: a peer that took nothing for a while does so again.
                self.changed(id);
            }
            Coming::GivesUp(id) => self.give_up(id),
            Coming::Retry(ring, key) => {
                let now = self.now;
                if let Some(ring) = self.rings[ring].as_mut() {
                    ring.ready(key, now);
                }
            }
            Coming::Interruption(ring) => {
                if let Some(ring) = self.rings[ring].as_mut()
                    && ring.waiting.is_some()
                {
                    ring.interrupted = true;
                }
            }
            Coming::Script(_) | Coming::Work(_) | Coming::Moment => {}
        }
    }
}
