//! The slots of all kernel ops of a core, found by `user_data`, guarded by generations.
//!
//! Slots never move: addresses, message headers and buffers lie in them while the kernel works.
//! They come in chunks that are allocated once and kept.
//!
//! Invariants:
//! - An occupied slot is emptied only by a transition of `state.rs`, so never while the kernel
//!   holds it.
//! - A slot is reused only after the final completion; a late one for an older generation finds a
//!   stranger and does nothing.
//! - Cancel requests and ops that found the submission queue full wait in line here, linked through
//!   the slots themselves: neither can be lost for lack of room, and neither allocates.
//! - An op counts as a use of its descriptor from its start to its end: until then nobody closes the
//!   number.
//! - A descriptor knows of the multishot op on it, if there never were two at a time. That is the one op which somebody
//!   may wait for once it has ended; all that go on are counted. So whoever closes it need not look at every slot.
//! - No waker is woken and no payload dropped here: both come back as values.

use std::os::fd::{AsRawFd, RawFd};
use std::task::Waker;

use super::fd::SharedFd;
use super::payload::{Operation, Payload, lift};
use super::request::Request;
use super::state::{Asker, Effect, OpState};
use super::turn::SendTurn;
use crate::driver::{Completion, Driver};
use crate::metrics::Latencies;
use crate::panics::{caught, discard};
use crate::slab::LowestFree;
use crate::time::Instant;

/// The address of an op: its `user_data`.
///
/// Bits 0..24 index, 24..32 what kind of entry, 32..64 generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpId(u64);

/// What a completion is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// An op.
    Op(OpId),
    /// The answer to a cancel request for that op.
    CancelOf(OpId),
    /// The core's own wake-up channel.
    Wake,
    /// Nothing that anybody waits for: the answer to the request that ends the wake-up channel.
    Nothing,
}

const INDEX_BITS: u32 = 24;
const TAG_CANCEL: u64 = 1 << INDEX_BITS;
const TAG_WAKE: u64 = 2 << INDEX_BITS;
const TAGS: u64 = 0xff << INDEX_BITS;

/// The `user_data` of the core's own wake-up channel.
pub(crate) const WAKE: u64 = TAG_WAKE;

/// The `user_data` of the request that ends it: its answer is about no op.
pub(crate) const WAKE_CANCEL: u64 = TAG_CANCEL | TAG_WAKE;

impl OpId {
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(index) | u64::from(generation) << 32)
    }

    fn index(self) -> u32 {
        self.0 as u32 & ((1 << INDEX_BITS) - 1)
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the number that the kernel knows the op by.
    pub(crate) fn user_data(self) -> u64 {
        self.0
    }

    pub(crate) fn from_user_data(user_data: u64) -> Self {
        Self(user_data)
    }
}

impl About {
    /// Reads a completion's `user_data`.
    pub(crate) fn of(user_data: u64) -> Self {
        match user_data & TAGS {
            0 => Self::Op(OpId(user_data)),
            TAG_CANCEL => Self::CancelOf(OpId(user_data & !TAGS)),
            TAG_WAKE => Self::Wake,
            _ => Self::Nothing,
        }
    }
}

/// Whom a completion is told to.
#[derive(Debug, Default)]
pub(crate) enum Notify {
    /// Nobody waits.
    #[default]
    Nobody,
    /// A future that waits for the op itself.
    Waker(Waker),
    /// One that wants to hear of every result but this one.
    Unless(Waker, i32),
    /// A wait in memory that somebody else keeps: a number of theirs.
    Token(u64),
}

impl Notify {
    /// Returns who is told of a result.
    fn of(self, result: i32) -> Self {
        match self {
            Self::Unless(waker, expected) if result != expected => Self::Waker(waker),
            told => told,
        }
    }
}

/// What is left of a slot that became vacant: to be dropped where no borrow is held.
#[derive(Debug)]
#[must_use = "dropping it in the wrong place runs foreign code under a borrow"]
pub(crate) struct Leftover {
    pub(crate) _payload: Payload,
    pub(crate) _fd: Option<SharedFd>,
    /// What it gives up before the kernel is done with the rest.
    pub(crate) _early: Option<SendTurn>,
    pub(crate) notify: Notify,
}

impl Leftover {
    /// What the future of an op leaves that the kernel goes on with.
    fn of_orphan(untold: Notify, early: Option<SendTurn>) -> Self {
        Self {
            _payload: Payload::vacant(),
            _fd: None,
            _early: early,
            notify: untold,
        }
    }
}

/// An op that has ended, and what it leaves.
#[derive(Debug)]
#[must_use = "dropping it in the wrong place runs foreign code under a borrow"]
pub(crate) struct Collected<O> {
    pub(crate) operation: O,
    pub(crate) fd: Option<SharedFd>,
    pub(crate) _notify: Notify,
}

/// What a completion led to.
#[derive(Debug)]
pub(crate) enum Reaction {
    /// Nothing to do.
    None,
    /// Tell them.
    Tell(Notify),
    /// An orphan gives this up, and the kernel goes on with the rest: to be dropped where no borrow is held.
    GivesUp(SendTurn),
    /// An orphan ended; this account had been charged for it. What it leaves is still in its slot:
    /// [`OpSlab::clear`] takes it out.
    OrphanEnded { account: u64, ended: Ended },
}

/// The slot of an orphan that has ended: of no op any more, and not vacant yet.
#[derive(Debug)]
#[must_use = "its slot is not vacant before it was cleared"]
pub(crate) struct Ended(u32);

/// An op as it is told to people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpView {
    pub(crate) name: &'static str,
    fd: Option<RawFd>,
    pub(crate) state: OpState,
}

impl OpView {
    /// Returns the descriptor's number, as the program and its tools know it.
    pub(crate) fn descriptor(self) -> Option<RawFd> {
        #[cfg(feature = "sim")]
        if let Some(fd) = self.fd.filter(|&fd| crate::sim::is_simulated(fd)) {
            return Some(fd - crate::sim::kernel::FIRST_FD);
        }
        self.fd
    }
}

#[derive(Debug)]
struct Slot {
    payload: Payload,
    state: Option<OpState>,
    generation: u32,
    /// Whom to tell. Of an orphan, which tells nobody: the number of whoever is charged for it.
    notify: Notify,
    fd: Option<SharedFd>,
    line: Line,
    previous: u32,
    next: u32,
    /// When the kernel was told of it.
    submitted: Instant,
}

/// A core has one for each op, and one for each connection on which nothing happens.
#[cfg(not(random_layout))]
const _: () = assert!(size_of::<Slot>() <= 144);

/// In which line a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    None,
    Backlog,
    Cancels,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

const NOBODY: u32 = u32::MAX;

/// What a descriptor has in place of the index of its multishot op, once it had two at a time.
const SEVERAL: u32 = NOBODY - 1;

const EMPTY: Ends = Ends {
    first: NOBODY,
    last: NOBODY,
};

/// What the kernel answers with `EFAULT`, and does nothing for: a path that is nowhere.
const NOWHERE: Request = Request::Status {
    directory: libc::AT_FDCWD,
    path: 0,
    flags: 0,
    mask: 0,
    into: 0,
};

/// As many as [`LowestFree::add_word`] makes known.
const CHUNK: usize = 64;

/// All op slots of one core.
#[derive(Debug)]
pub(crate) struct OpSlab {
    chunks: Vec<Box<[Slot; CHUNK]>>,
    free: LowestFree,
    /// Ops that found the submission queue full.
    backlog: Ends,
    /// Ops whose cancel request has yet to be pushed.
    cancels: Ends,
    /// How many ops the kernel holds.
    in_kernel: u32,
    orphans: u32,
    cancel_requests: u64,
    /// Ops that were pushed since the kernel was last entered.
    pushed: Vec<u32>,
    latencies: &'static Latencies,
}

impl OpSlab {
    pub(crate) fn new(latencies: &'static Latencies) -> Self {
        Self {
            chunks: Vec::new(),
            free: LowestFree::default(),
            backlog: EMPTY,
            cancels: EMPTY,
            in_kernel: 0,
            orphans: 0,
            cancel_requests: 0,
            pushed: Vec::new(),
            latencies,
        }
    }

    /// Places an op in a slot and pushes its request, or puts it in line if there is no room. Its first
    /// completion is told as `notify` says.
    pub(crate) fn start<O: Operation>(
        &mut self,
        driver: &mut Driver,
        operation: O,
        fd: Option<SharedFd>,
        notify: Notify,
    ) -> OpId {
        let mut waits = self.backlog.first != NOBODY;
        let index = self.vacant_index();
        let slot = slot_in(&mut self.chunks, index);
        let number: RawFd = fd.as_ref().map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd);
        debug_assert!(slot.fd.is_none() && matches!(slot.notify, Notify::Nobody));
        // Asked once it is where it stays. If there is no room it is asked again, later. Its buffer is somebody else's
        // code: if that panics, `take_unstarted` finds the slot as it is now.
        let request = slot.payload.put(operation, number);
        #[cfg(feature = "sim")]
        debug_assert_eq!(slot.payload.kind(), request.kind());
        if let Some(fd) = &fd {
            // Of one that was closed since the op began the kernel hears nothing: whoever starts it has it end.
            waits |= fd.is_closed();
            fd.begin_use();
        }
        slot.fd = fd;
        slot.notify = notify;
        let id = OpId::new(index, slot.generation);
        // Behind those that wait already: requests are issued in order.
        let pushed = !waits && driver.push(&request, id.user_data()).is_ok();
        if pushed {
            slot.state = Some(OpState::Queued.on_push());
            self.in_kernel += 1;
            if O::IS_TIMED {
                self.pushed.push(index);
            }
        } else {
            slot.state = Some(OpState::Queued);
            self.stand_in(Line::Backlog, index);
        }
        id
    }

    /// Empties the slot of an op whose start has panicked: it has a payload, and is nobody's.
    #[cold]
    pub(crate) fn take_unstarted(&mut self) -> Option<Leftover> {
        let is_unstarted = |slot: &Slot| {
            slot.state.is_none()
                && slot.payload.is_occupied()
                && matches!(slot.notify, Notify::Nobody)
        };
        let index = self
            .chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .position(is_unstarted)?;
        Some(self.vacate(index as u32, None))
    }

    /// Pushes what stands in line, as far as there is room. True if all of it went in.
    #[inline]
    pub(crate) fn push_waiting(&mut self, driver: &mut Driver) -> bool {
        !self.has_waiting() || self.push_lines(driver)
    }

    #[inline(never)]
    fn push_lines(&mut self, driver: &mut Driver) -> bool {
        while self.cancels.first != NOBODY {
            let index = self.cancels.first;
            let target = OpId::new(index, self.slot(index).generation).user_data();
            if driver
                .push(&Request::Cancel { target }, target | TAG_CANCEL)
                .is_err()
            {
                return false;
            }
            self.cancel_requests += 1;
            self.leave(index);
        }
        while self.backlog.first != NOBODY {
            let index = self.backlog.first;
            if !self.push(driver, index) {
                return false;
            }
            self.leave(index);
        }
        true
    }

    /// Returns whether anything stands in line.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        self.cancels.first != NOBODY || self.backlog.first != NOBODY
    }

    /// Returns whether ops were pushed that the kernel has not been told of.
    #[inline]
    pub(crate) fn has_pushed(&self) -> bool {
        !self.pushed.is_empty()
    }

    /// Notes that the kernel is told now of what was pushed.
    pub(crate) fn submit_at(&mut self, now: Instant) {
        for index in self.pushed.drain(..) {
            slot_in(&mut self.chunks, index).submitted = now;
        }
    }

    /// Takes a completion in, which was seen `now`. Returns what it led to; and, if nothing uses a
    /// descriptor any more that somebody waits to close, the number of that wait, to be completed first.
    pub(crate) fn on_completion(
        &mut self,
        id: OpId,
        completion: Completion,
        now: Instant,
    ) -> (Reaction, Option<u64>) {
        let Some((slot, state)) = find_in(&mut self.chunks, id) else {
            return (Reaction::None, None);
        };
        let more = completion.flags.more();
        let is_multishot = slot.payload.is_multishot();
        let mut wish = None;
        if is_multishot {
            wish = slot.payload.deliver(completion);
        }
        let (next, effect) = state.on_completion(completion.result, more);
        slot.state = next;
        let mut closer = None;
        if !more {
            closer = slot.end_use();
            // How long something took that was cut short says nothing of how long it takes. It may end with a part of
            // what it was to do; and the last completion of several is not the one that says so.
            let is_asked = !matches!(state, OpState::InKernel { asked: None });
            let is_whole = !is_asked && completion.result != -libc::ECANCELED;
            if is_whole && slot.payload.is_timed() {
                let took = now - slot.submitted;
                self.latencies.op(slot.payload.kind()).record_one(took);
            }
            self.in_kernel -= 1;
        }
        let reaction = match effect {
            Effect::None if is_multishot => match slot.payload.early() {
                Some(turn) => Reaction::GivesUp(turn),
                None => Reaction::None,
            },
            Effect::None => Reaction::None,
            Effect::Wake => Reaction::Tell(std::mem::take(&mut slot.notify).of(completion.result)),
            Effect::Free { result } => {
                slot.dispose(result);
                self.orphans -= 1;
                let Notify::Token(account) = slot.notify else {
                    unreachable!("an orphan is somebody's");
                };
                Reaction::OrphanEnded {
                    account,
                    ended: Ended(id.index()),
                }
            }
            Effect::RequestCancel | Effect::LeaveBacklog => {
                unreachable!("a completion asks for no cancel")
            }
        };
        // A cancel request that has not been sent yet has nothing left to cancel.
        if !more && slot.line != Line::None {
            self.leave(id.index());
        }
        if let Some(asker) = wish.filter(|_| more && matches!(reaction, Reaction::Tell(_))) {
            self.cancel(id, asker);
        }
        (reaction, closer)
    }

    /// Empties the slot of an orphan that has ended.
    pub(crate) fn clear(&mut self, ended: Ended) -> Leftover {
        self.vacate(ended.0, None)
    }

    /// Asks an op to end early; its answer is still wanted. Returns whom to tell, if it ended at
    /// once because the kernel had not got it yet.
    pub(crate) fn cancel(&mut self, id: OpId, asker: Asker) -> Notify {
        let Some((slot, state)) = find_in(&mut self.chunks, id) else {
            return Notify::Nobody;
        };
        let (next, effect) = state.cancel(asker);
        slot.state = next;
        match effect {
            Effect::RequestCancel => {
                self.stand_in(Line::Cancels, id.index());
                Notify::Nobody
            }
            Effect::LeaveBacklog => {
                let closer = slot.end_use();
                debug_assert!(
                    closer.is_none(),
                    "nothing stands in line while a close waits"
                );
                self.leave(id.index());
                let told = std::mem::take(&mut self.slot_mut(id.index()).notify);
                told.of(-libc::ECANCELED)
            }
            Effect::None => Notify::Nobody,
            Effect::Wake | Effect::Free { .. } => unreachable!("a cancel completes nothing"),
        }
    }

    /// Asks every op on a descriptor to end, because it is being closed. Returns whom to tell: those
    /// whose op ended at once, and those who wait to start one again. And whether the kernel holds any.
    #[cold]
    pub(crate) fn close(&mut self, fd: &SharedFd) -> (Vec<Notify>, bool) {
        let mut told = Vec::new();
        let mut kernel_holds = false;
        for id in self.ops_on(fd) {
            told.push(self.cancel(id, Asker::Close));
            let slot = self.slot_mut(id.index());
            if slot.state.is_some_and(OpState::kernel_holds) {
                kernel_holds = true;
            } else {
                told.push(std::mem::take(&mut slot.notify));
            }
        }
        (told, kernel_holds)
    }

    pub(super) fn ops_on(&self, fd: &SharedFd) -> Vec<OpId> {
        if let Some(only) = self.only_op_on(fd) {
            return Vec::from_iter(only);
        }
        let slots = self.chunks.iter().flat_map(|chunk| chunk.iter());
        let on_it = |(index, slot): (usize, &Slot)| {
            slot.is_on(fd)
                .then(|| OpId::new(index as u32, slot.generation))
        };
        slots.enumerate().filter_map(on_it).collect()
    }

    /// Returns the multishot op that a descriptor has, if it can be told without a search that whoever closes it need
    /// know of no other: those that go on are counted, and of the rest nobody waits but for such an op.
    pub(super) fn only_op_on(&self, fd: &SharedFd) -> Option<Option<OpId>> {
        if fd.multishot().get() == SEVERAL {
            return None;
        }
        let known = self.multishot_on(fd);
        let goes_on = |state| !matches!(state, OpState::Completed { .. });
        let is_used = known.is_some_and(|(_, slot)| slot.state.is_some_and(goes_on));
        (fd.uses() == u32::from(is_used))
            .then(|| known.map(|(index, slot)| OpId::new(index, slot.generation)))
    }

    /// Lets the descriptor of a multishot op know where that is, unless there is another of that kind on it.
    pub(crate) fn note_multishot(&self, id: OpId) {
        if let Some(fd) = &self.slot(id.index()).fd {
            let another = self
                .multishot_on(fd)
                .filter(|&(index, _)| index != id.index());
            let is_one = fd.multishot().get() != SEVERAL && another.is_none();
            fd.multishot()
                .set(if is_one { id.index() } else { SEVERAL });
        }
    }

    /// Returns the multishot op that a descriptor knows of, if that has not gone.
    fn multishot_on(&self, fd: &SharedFd) -> Option<(u32, &Slot)> {
        let index = fd.multishot().get();
        let chunk = self.chunks.get(index as usize / CHUNK)?;
        let slot = &chunk[index as usize % CHUNK];
        (slot.is_on(fd) && slot.payload.is_multishot()).then_some((index, slot))
    }

    /// Gives an op up: nobody wants its answer. `charge` says which account waits for the kernel
    /// to be done with it, if the kernel has it.
    pub(crate) fn abandon(&mut self, id: OpId, charge: impl FnOnce() -> u64) -> Option<Leftover> {
        let (slot, state) = find_in(&mut self.chunks, id)?;
        let (next, effect) = state.abandon();
        slot.state = next;
        let (mut untold, mut early) = (Notify::Nobody, None);
        if next.is_some() && next != Some(state) {
            untold = std::mem::replace(&mut slot.notify, Notify::Token(charge()));
            if slot.payload.is_multishot() {
                early = slot.payload.early();
            }
            self.orphans += 1;
        }
        match effect {
            Effect::RequestCancel => {
                self.stand_in(Line::Cancels, id.index());
                Some(Leftover::of_orphan(untold, early))
            }
            Effect::LeaveBacklog => {
                let closer = self.slot(id.index()).end_use();
                debug_assert!(
                    closer.is_none(),
                    "nothing stands in line while a close waits"
                );
                self.leave(id.index());
                Some(self.vacate(id.index(), None))
            }
            Effect::Free { result } => Some(self.vacate(id.index(), result)),
            Effect::None => Some(Leftover::of_orphan(untold, early)),
            Effect::Wake => unreachable!("nobody waits for an op that is given up"),
        }
    }

    /// Returns how the op ended, if it has: the kernel's result, and who had asked for its end.
    #[inline]
    pub(crate) fn completed(&mut self, id: OpId) -> Option<(i32, Option<Asker>)> {
        match find_in(&mut self.chunks, id)
            .expect("a ticket's op lives")
            .1
        {
            OpState::Completed { result, asked } => Some((result, asked)),
            _ => None,
        }
    }

    /// Takes an op that is completed out of its slot, which is vacant then. (As an `Option` it would be moved three
    /// times more: a large value is built where its owner wants it, and an alternative to it is not.)
    #[inline]
    pub(crate) fn collect<O: Operation>(&mut self, id: OpId) -> Collected<O> {
        let (slot, state) = find_in(&mut self.chunks, id).expect("a ticket's op lives");
        assert!(
            matches!(state, OpState::Completed { .. }),
            "an op is collected when it has ended"
        );
        debug_assert_eq!(slot.line, Line::None, "what is completed waits for nothing");
        let operation = slot.payload.take();
        slot.empty();
        let collected = Collected {
            operation,
            fd: slot.fd.take(),
            _notify: std::mem::take(&mut slot.notify),
        };
        self.free.give_back(id.index());
        collected
    }

    /// Takes what an op of several completions gives up before its last.
    pub(crate) fn early<O: Operation>(&mut self, id: OpId) -> Option<SendTurn> {
        let slot = self.find(id).expect("a ticket's op lives");
        slot.payload.get_mut::<O>().early()
    }

    /// Looks into the payload of a multishot op: a queue that we fill, not memory of the kernel's.
    pub(crate) fn payload<O: Operation>(&mut self, id: OpId) -> &mut O {
        const { assert!(O::MULTISHOT) };
        self.find(id)
            .expect("a ticket's op lives")
            .payload
            .get_mut()
    }

    /// Notes whom to tell of the next completion; returns who stood there before.
    #[inline]
    pub(crate) fn notify(&mut self, id: OpId, notify: Notify) -> Notify {
        let slot = self.find(id).expect("a ticket's op lives");
        std::mem::replace(&mut slot.notify, notify)
    }

    /// Lets the waker of the last poll hear of every result but `expected`.
    pub(crate) fn notify_unless(&mut self, id: OpId, expected: i32) {
        let slot = self.find(id).expect("a ticket's op lives");
        slot.notify = match std::mem::take(&mut slot.notify) {
            Notify::Waker(waker) | Notify::Unless(waker, _) => Notify::Unless(waker, expected),
            told => told,
        };
    }

    /// Returns whether an op's progress wakes whoever this waker does.
    pub(crate) fn will_wake(&mut self, id: OpId, waker: &Waker) -> bool {
        let slot = self.find(id).expect("a ticket's op lives");
        matches!(&slot.notify, Notify::Waker(known) if known.will_wake(waker))
    }

    /// Returns whether an op goes on, and its progress completes this wait.
    #[inline]
    pub(crate) fn will_tell(&mut self, id: OpId, wait: u64) -> bool {
        let slot = self.find(id).expect("a ticket's op lives");
        let has_ended = matches!(slot.state, Some(OpState::Completed { .. }));
        !has_ended && matches!(slot.notify, Notify::Token(token) if token == wait)
    }

    /// Returns whether the slot of an op still keeps what its request named: the memory and the
    /// descriptor are where they were when it was pushed.
    #[cfg(feature = "sim")]
    pub(crate) fn still_holds(&mut self, user_data: u64, request: &Request) -> bool {
        let Some(slot) = self.find(OpId::from_user_data(user_data)) else {
            return false;
        };
        let fd: RawFd = slot.fd.as_ref().map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd);
        slot.state.is_some_and(OpState::kernel_holds) && slot.payload.request(fd) == *request
    }

    /// Returns what is told to people of an op. Nothing of its request is looked at: the kernel may be
    /// using that.
    pub(crate) fn view(&self, id: OpId) -> Option<OpView> {
        let index = id.index() as usize;
        let slot = self.chunks.get(index / CHUNK)?.get(index % CHUNK)?;
        (slot.generation == id.generation())
            .then(|| slot.view())
            .flatten()
    }

    /// Returns every op whose future is gone and which the kernel has not ended, with the account
    /// that is charged for it.
    pub(crate) fn orphan_views(&self) -> impl Iterator<Item = (u64, OpView)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .filter(|slot| slot.state == Some(OpState::Orphaned))
            .filter_map(|slot| match slot.notify {
                Notify::Token(account) => Some((account, slot.view()?)),
                _ => None,
            })
    }

    /// Returns how many ops the kernel holds.
    pub(crate) fn in_kernel(&self) -> u32 {
        self.in_kernel
    }

    /// Returns how many of them have lost their future.
    pub(crate) fn orphans(&self) -> u32 {
        self.orphans
    }

    /// Returns how many slots are occupied.
    pub(crate) fn occupied(&self) -> u32 {
        self.free.handed_out()
    }

    /// Returns how many cancel requests were pushed so far.
    pub(crate) fn cancel_requests(&self) -> u64 {
        self.cancel_requests
    }

    /// Returns every op whose future is not gone yet.
    pub(crate) fn with_future(&self) -> Vec<OpId> {
        let occupied = |(index, slot): (usize, &Slot)| match slot.state {
            Some(OpState::Orphaned) | None => None,
            Some(_) => Some(OpId::new(index as u32, slot.generation)),
        };
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .enumerate()
            .filter_map(occupied)
            .collect()
    }

    // --- below: one slot ---

    /// Pushes an op that stood in line.
    fn push(&mut self, driver: &mut Driver, index: u32) -> bool {
        let slot = slot_in(&mut self.chunks, index);
        let id = OpId::new(index, slot.generation);
        let fd: RawFd = slot.fd.as_ref().map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd);
        // Its buffer is asked again, and there is nobody here to panic to.
        let request = caught(|| slot.payload.request(fd)).unwrap_or_else(|panicked| {
            discard(panicked);
            NOWHERE
        });
        #[cfg(feature = "sim")]
        debug_assert!(request == NOWHERE || slot.payload.kind() == request.kind());
        if driver.push(&request, id.user_data()).is_err() {
            return false;
        }
        slot.state = slot.state.map(OpState::on_push);
        self.in_kernel += 1;
        if slot.payload.is_timed() {
            self.pushed.push(index);
        }
        true
    }

    fn vacate(&mut self, index: u32, unread: Option<i32>) -> Leftover {
        self.leave(index);
        let slot = slot_in(&mut self.chunks, index);
        debug_assert!(slot.state.is_none_or(|state| !state.kernel_holds()));
        slot.dispose(unread);
        slot.empty();
        let leftover = Leftover {
            _payload: lift(&mut slot.payload),
            _fd: slot.fd.take(),
            _early: None,
            notify: std::mem::take(&mut slot.notify),
        };
        self.free.give_back(index);
        leftover
    }

    #[inline]
    fn vacant_index(&mut self) -> u32 {
        match self.free.take_near() {
            Some(index) => index,
            None => self.take_further_up(),
        }
    }

    #[cold]
    fn take_further_up(&mut self) -> u32 {
        self.free.take().unwrap_or_else(|| self.grow())
    }

    fn grow(&mut self) -> u32 {
        let first = (self.chunks.len() * CHUNK) as u32;
        assert!(
            first < 1 << INDEX_BITS,
            "fewer than 2^24 kernel ops at a time"
        );
        self.chunks
            .push(Box::new(std::array::from_fn(|_| Slot::vacant())));
        self.free.add_word();
        self.free.take().expect("room was just made")
    }

    fn find(&mut self, id: OpId) -> Option<&mut Slot> {
        find_in(&mut self.chunks, id).map(|(slot, _)| slot)
    }

    fn slot(&self, index: u32) -> &Slot {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    fn slot_mut(&mut self, index: u32) -> &mut Slot {
        slot_in(&mut self.chunks, index)
    }

    fn line_mut(&mut self, line: Line) -> &mut Ends {
        match line {
            Line::Backlog => &mut self.backlog,
            Line::Cancels => &mut self.cancels,
            Line::None => unreachable!("no line has no ends"),
        }
    }

    fn stand_in(&mut self, line: Line, index: u32) {
        let last = std::mem::replace(&mut self.line_mut(line).last, index);
        if last == NOBODY {
            self.line_mut(line).first = index;
        } else {
            self.slot_mut(last).next = index;
        }
        let slot = self.slot_mut(index);
        debug_assert_eq!(slot.line, Line::None);
        slot.line = line;
        slot.previous = last;
        slot.next = NOBODY;
    }

    fn leave(&mut self, index: u32) {
        let slot = self.slot_mut(index);
        let line = std::mem::replace(&mut slot.line, Line::None);
        if line == Line::None {
            return;
        }
        let (previous, next) = (slot.previous, slot.next);
        if previous == NOBODY {
            self.line_mut(line).first = next;
        } else {
            self.slot_mut(previous).next = next;
        }
        if next == NOBODY {
            self.line_mut(line).last = previous;
        } else {
            self.slot_mut(next).previous = previous;
        }
    }
}

/// Returns the slot of an op that lives, and its state.
#[inline]
fn find_in(chunks: &mut [Box<[Slot; CHUNK]>], id: OpId) -> Option<(&mut Slot, OpState)> {
    let index = id.index() as usize;
    let slot = &mut chunks.get_mut(index / CHUNK)?[index % CHUNK];
    let state = slot.state?;
    (slot.generation == id.generation()).then_some((slot, state))
}

#[inline]
fn slot_in(chunks: &mut [Box<[Slot; CHUNK]>], index: u32) -> &mut Slot {
    &mut chunks[index as usize / CHUNK][index as usize % CHUNK]
}

impl Slot {
    /// Disposes of a result that nobody will read.
    fn dispose(&mut self, unread: Option<i32>) {
        if let Some(result) = unread
            && !self.payload.is_multishot()
        {
            self.payload.dispose(result);
        }
    }

    fn is_on(&self, fd: &SharedFd) -> bool {
        self.fd.as_ref().is_some_and(|own| own.is_same(fd))
    }

    /// Lets the slot be of no op, and its number that of none.
    #[inline]
    fn empty(&mut self) {
        self.state = None;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Counts the op's descriptor as used no more; see [`SharedFd::end_use`].
    fn end_use(&self) -> Option<u64> {
        self.fd.as_ref().and_then(SharedFd::end_use)
    }

    fn view(&self) -> Option<OpView> {
        Some(OpView {
            state: self.state?,
            name: self.payload.kind().name(),
            fd: self.fd.as_ref().map(AsRawFd::as_raw_fd),
        })
    }

    fn vacant() -> Self {
        Self {
            payload: Payload::vacant(),
            state: None,
            generation: 0,
            notify: Notify::Nobody,
            fd: None,
            line: Line::None,
            previous: NOBODY,
            next: NOBODY,
            submitted: Instant::from_nanos(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_entry_is_told_from_the_others() {
        // The first op of a core has the plainest address of all.
        let first = OpId::new(0, 0);
        let last = OpId::new((1 << INDEX_BITS) - 1, u32::MAX);
        for op in [first, last] {
            assert_eq!(About::of(op.user_data()), About::Op(op));
            assert_eq!(About::of(op.user_data() | TAG_CANCEL), About::CancelOf(op));
        }
        assert_eq!(About::of(WAKE), About::Wake);
        assert_eq!(About::of(WAKE_CANCEL), About::Nothing);
    }
}
