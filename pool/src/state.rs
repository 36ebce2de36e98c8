//! The registry: which sessions there are, who waits for them, who has them. It decides and does nothing:
//! no system calls here, no await, no clock.
//!
//! ```text
//!             lease          taken         opened        unfit, too old
//!  (absent) ───────► Appointed ───► Opening ───► Ready ───────────────► Retiring
//!                        │            │            │ close, evict, expire     │ last lease back
//!                        │ nobody     │ nobody     ▼                          ▼
//!                        │ waits      └────────► Closing ◄────────────────────┘
//!                        ▼                         │ its owner has ended
//!                     (absent) ◄───────────────────┘
//! ```
//!
//! A caller that cannot have a session at once holds a ticket: in the line of an entry, or in the queue for
//! room. What becomes of it is put on the ticket; the caller is woken and takes it.
//!
//! Invariants:
//! - A key leads to at most one entry that is appointed, opening or ready.
//! - A ticket stands in one line, or in the queue, or has its outcome.
//! - An outcome that grants a lease counts as one; whoever drops the ticket gives it back.
//! - Entries of every phase take room. What is leased is never evicted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quoit::time::Instant;

use crate::Key;
use crate::config::Limits;
use crate::figures::{Counts, PoolMetrics};
use crate::waiters::{Queue, Spot, Waiters};

/// How many failures may be kept that are over.
const FEW_FAILURES: usize = 64;

/// Names an entry, in the life of its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EntryId(pub(crate) u64);

/// Names a caller that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TicketId(u64);

/// Where an entry's session is to live: a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) usize);

/// How a session is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// With others.
    Shared,
    /// Alone.
    Exclusive,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Somebody closed it.
    Closed,
    /// To make room.
    Evicted,
    /// Nobody had leased it for too long.
    Expired,
    /// It was unfit, its peer had gone, or it was too old.
    Retired,
    /// Nobody waited for its opening any more.
    Unwanted,
    /// Its core shuts down.
    Shutdown,
}

/// Why an opening gave no session.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    Error(Arc<E>),
    TimedOut(Duration),
    Panicked(String),
    ShuttingDown,
    Closed,
}

impl<E> Clone for Failure<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Error(error) => Self::Error(Arc::clone(error)),
            Self::TimedOut(timeout) => Self::TimedOut(*timeout),
            Self::Panicked(text) => Self::Panicked(text.clone()),
            Self::ShuttingDown => Self::ShuttingDown,
            Self::Closed => Self::Closed,
        }
    }
}

/// What becomes of a caller that waits.
#[derive(Debug)]
pub(crate) enum Outcome<E> {
    /// It has a lease.
    Granted(EntryId),
    /// It is to start the owner of this entry, and goes on waiting.
    Appointed(EntryId),
    Failed(Failure<E>),
}

/// The answer to a caller that wants a session.
#[derive(Debug)]
pub(crate) enum Decision<E> {
    /// With whether it is to be checked first, and then [`proved`](State::proved) or retired.
    Leased(EntryId, bool),
    Wait(TicketId),
    BackingOff {
        retry_in: Duration,
        failures: u32,
        last: Arc<E>,
    },
    Exhausted {
        max_sessions: usize,
        waiting: usize,
    },
}

/// What is to be done, once the registry is not held any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A ticket has its outcome.
    Wake(TicketId),
    /// An owner is to end its session, or its opening.
    Stop(EntryId),
    /// An entry is gone.
    Gone(EntryId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A caller is to start the owner.
    Appointed,
    Opening,
    Ready,
    /// Gives no more leases, and ends after the last.
    Retiring(End),
    Closing(End),
}

#[derive(Debug)]
struct Entry {
    key: Key,
    phase: Phase,
    leases: u32,
    /// The one lease there is allows no other.
    exclusive: bool,
    /// The one lease there is looks whether the session is fit: the others wait for that.
    is_checked: bool,
    line: Waiters,
    /// When it was appointed; from `opened` on, when it was ready.
    since: Instant,
    /// When it was given back last, or opened.
    last_used: Instant,
    /// The same, counted: no two entries have the same.
    last_use: u64,
    /// Where it stands among the idle ones.
    idle_at: Option<u64>,
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.phase == Phase::Ready && self.leases == 0 && self.line.is_empty()
    }
}

#[derive(Debug)]
struct Ticket<E> {
    key: Key,
    mode: Mode,
    place: Place,
    since: Instant,
    at: At<E>,
    /// Where it stands, in a line or in the queue.
    spot: Spot,
    /// It has waited for an opening that another has caused: once, however often that is begun anew.
    has_joined: bool,
}

#[derive(Debug)]
enum At<E> {
    Queue,
    Line(EntryId),
    Decided(Outcome<E>),
}

/// Failures of one key in a row.
#[derive(Debug)]
struct Failures<E> {
    count: u32,
    until: Instant,
    last: Arc<E>,
}

/// Which entries are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Selection<'a> {
    Session(&'a Key),
    Scope(&'a str),
    Server(&'a str),
    All,
}

impl Selection<'_> {
    fn matches(&self, key: &Key) -> bool {
        match self {
            Self::Session(wanted) => *wanted == key,
            Self::Scope(scope) => key.scope() == *scope,
            Self::Server(server) => key.server() == *server,
            Self::All => true,
        }
    }
}

/// All sessions of a pool.
#[derive(Debug)]
pub(crate) struct State<E> {
    limits: Limits,
    entries: BTreeMap<EntryId, Entry>,
    /// The live entry of each key.
    live: BTreeMap<Key, EntryId>,
    /// All entries of each key: one that is live, and those that are closing.
    by_key: BTreeSet<(Key, EntryId)>,
    tickets: BTreeMap<TicketId, Ticket<E>>,
    /// Who waits for room, in order.
    queue: Queue,
    /// Entries that nobody uses or waits for, the one that was used least recently first.
    idle: BTreeMap<u64, EntryId>,
    /// How many entries are closing.
    closing: usize,
    failures: BTreeMap<Key, Failures<E>>,
    /// With so many, those that are over are looked for.
    most_failures: usize,
    next_entry: u64,
    next_ticket: u64,
    /// Grows with each lease that comes back.
    uses: u64,
    effects: Vec<Effect>,
    /// Errors that nobody wants, to be dropped where the registry is not held: they are somebody's code.
    discarded: Vec<Arc<E>>,
    pub(crate) counts: Counts,
}

impl<E> State<E> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            live: BTreeMap::new(),
            by_key: BTreeSet::new(),
            tickets: BTreeMap::new(),
            queue: Queue::default(),
            idle: BTreeMap::new(),
            closing: 0,
            failures: BTreeMap::new(),
            most_failures: FEW_FAILURES,
            next_entry: 0,
            next_ticket: 0,
            uses: 0,
            effects: Vec::new(),
            discarded: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Takes what is to be done after the last steps.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Takes what is to be dropped after the last steps.
    pub(crate) fn take_discarded(&mut self) -> Vec<Arc<E>> {
        std::mem::take(&mut self.discarded)
    }

    // --- callers ---

    /// Decides about a caller: it has a lease, or waits.
    pub(crate) fn lease(
        &mut self,
        key: &Key,
        mode: Mode,
        place: Place,
        now: Instant,
    ) -> Decision<E> {
        if let Some(&id) = self.live.get(key) {
            let entry = self.entries.get_mut(&id).expect("live entries are there");
            if entry.phase == Phase::Ready && entry.line.is_empty() && grant(entry, mode) {
                let unused = now - entry.last_used;
                entry.is_checked = entry.leases == 1 && unused >= self.limits.check_after;
                let is_checked = entry.is_checked;
                // One that is to be checked counts when it is known to be fit.
                self.counts.reuses += u64::from(!is_checked);
                self.note_idle(id);
                return Decision::Leased(id, is_checked);
            }
            let ticket = self.ticket(key, mode, place, now);
            self.join_line(ticket, id);
            return Decision::Wait(ticket);
        }
        if let Some(failures) = self.failures.get(key)
            && now < failures.until
        {
            return Decision::BackingOff {
                retry_in: failures.until - now,
                failures: failures.count,
                last: Arc::clone(&failures.last),
            };
        }
        if self.queue.is_empty() && self.entries.len() < self.limits.max_sessions {
            let ticket = self.ticket(key, mode, place, now);
            self.appoint(key.clone(), vec![ticket], now);
            return Decision::Wait(ticket);
        }
        let ticket = self.ticket(key, mode, place, now);
        let spot = self.queue.push_back(key, ticket);
        self.stand(ticket, At::Queue, spot);
        self.make_room();
        if self.is_too_long() {
            self.queue.remove(key, spot);
            self.tickets.remove(&ticket);
            self.counts.exhausted += 1;
            return Decision::Exhausted {
                max_sessions: self.limits.max_sessions,
                waiting: self.queue.len(),
            };
        }
        Decision::Wait(ticket)
    }

    /// Returns whether more wait for room than may. Those for whom room is coming do not count: they are all who want one
    /// of the first keys.
    fn is_too_long(&self) -> bool {
        let most = self.limits.max_waiting;
        // The cheap question first: at least one wants each key.
        self.queue.len() > most.saturating_add(self.closing)
            && self.queue.len_behind(self.closing) > most
    }

    /// The session that a lease has looked at is fit: the others may have it.
    pub(crate) fn proved(&mut self, id: EntryId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && std::mem::take(&mut entry.is_checked)
        {
            self.counts.reuses += 1;
            if entry.phase == Phase::Ready {
                self.serve_line(id);
            }
        }
    }

    /// Takes the outcome of a ticket, if there is one. With `Appointed` the opening has begun: the caller
    /// starts the owner, and goes on waiting. After all others the ticket is gone.
    pub(crate) fn outcome(&mut self, id: TicketId, now: Instant) -> Option<Outcome<E>> {
        let ticket = self.tickets.get_mut(&id)?;
        if !matches!(ticket.at, At::Decided(_)) {
            return None;
        }
        if let At::Decided(Outcome::Appointed(entry)) = ticket.at {
            ticket.at = At::Line(entry);
            let entry_of_it = self.entries.get_mut(&entry).expect("it was just appointed");
            entry_of_it.phase = Phase::Opening;
            return Some(Outcome::Appointed(entry));
        }
        let ticket = self.tickets.remove(&id)?;
        self.counts.waiting.push(now - ticket.since);
        match ticket.at {
            At::Decided(outcome) => Some(outcome),
            At::Queue | At::Line(_) => unreachable!("looked at above"),
        }
    }

    /// A caller waits no more. What it was given meanwhile goes back, or on to the next.
    pub(crate) fn leave(&mut self, id: TicketId, now: Instant) {
        let Some(ticket) = self.tickets.remove(&id) else {
            return;
        };
        match ticket.at {
            At::Queue => self.queue.remove(&ticket.key, ticket.spot),
            At::Line(entry) => self.leave_line(entry, ticket.spot),
            At::Decided(Outcome::Granted(entry)) => self.release(entry, now),
            At::Decided(Outcome::Appointed(entry)) => self.decline(entry, ticket.spot),
            At::Decided(Outcome::Failed(Failure::Error(error))) => self.discarded.push(error),
            At::Decided(Outcome::Failed(_)) => {}
        }
        self.serve_queue(now);
    }

    fn leave_line(&mut self, entry_id: EntryId, spot: Spot) {
        let Some(entry) = self.entries.get_mut(&entry_id) else {
            return;
        };
        entry.line.remove(spot);
        match entry.phase {
            Phase::Opening if entry.line.is_empty() => self.begin_closing(entry_id, End::Unwanted),
            Phase::Ready => self.serve_line(entry_id),
            _ => {}
        }
    }

    /// The caller that was to start the owner will not.
    fn decline(&mut self, entry_id: EntryId, spot: Spot) {
        let Some(entry) = self.entries.get_mut(&entry_id) else {
            return;
        };
        entry.line.remove(spot);
        match entry.line.first() {
            Some(next) => self.decide(next, Outcome::Appointed(entry_id)),
            None => self.remove(entry_id),
        }
    }

    /// A lease was given back.
    pub(crate) fn release(&mut self, id: EntryId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        self.uses += 1;
        entry.leases -= 1;
        entry.exclusive = false;
        entry.last_used = now;
        entry.last_use = self.uses;
        match entry.phase {
            // Given back in the middle of the look at it: nobody knows what it is good for.
            Phase::Ready if entry.is_checked => self.retire(id, now),
            Phase::Ready => {
                self.serve_line(id);
                if self.entries[&id].is_idle() && self.limits.idle_timeout == Some(Duration::ZERO) {
                    self.begin_closing(id, End::Expired);
                }
                self.make_room();
            }
            Phase::Retiring(end) if entry.leases == 0 => self.begin_closing(id, end),
            _ => {}
        }
    }

    /// Ends an entry whose session is of no use: no more leases, and closed after the last.
    pub(crate) fn retire(&mut self, id: EntryId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.phase != Phase::Ready {
            return;
        }
        entry.phase = Phase::Retiring(End::Retired);
        self.note_idle(id);
        self.counts.retired += 1;
        let entry = self.entries.get_mut(&id).expect("it is there");
        let line = std::mem::take(&mut entry.line);
        let is_leased = entry.leases > 0;
        let key = entry.key.clone();
        self.live.remove(&key);
        if !is_leased {
            self.begin_closing(id, End::Retired);
        }
        self.requeue(line.iter());
        self.serve_queue(now);
        self.make_room();
    }

    // --- owners ---

    /// The session is open: false if it was closed meanwhile.
    pub(crate) fn opened(&mut self, id: EntryId, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        if entry.phase != Phase::Opening {
            return false;
        }
        entry.phase = Phase::Ready;
        self.counts.opens += 1;
        self.counts.opening.push(now - entry.since);
        self.uses += 1;
        entry.since = now;
        entry.last_used = now;
        entry.last_use = self.uses;
        let key = entry.key.clone();
        let forgotten = self.failures.remove(&key);
        self.discarded
            .extend(forgotten.map(|failures| failures.last));
        self.serve_line(id);
        self.make_room();
        true
    }

    /// The opening has failed, and what was begun is cleaned up. `jitter` is a share of the back-off, of
    /// 1024.
    pub(crate) fn open_failed(
        &mut self,
        id: EntryId,
        failure: &Failure<E>,
        jitter: u32,
        now: Instant,
    ) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.phase == Phase::Opening
        {
            let (line, key) = (std::mem::take(&mut entry.line), entry.key.clone());
            self.counts.failures += 1;
            for ticket in line.iter() {
                self.decide(ticket, Outcome::Failed(failure.clone()));
            }
            if let Failure::Error(error) = failure {
                self.back_off(key, error, jitter, now);
            }
        }
        self.forget(id, now);
    }

    fn back_off(&mut self, key: Key, error: &Arc<E>, jitter: u32, now: Instant) {
        let longest = self.limits.backoff.longest;
        // Whoever has not tried again for so long begins anew.
        let is_over = |old: &Failures<E>| now >= old.until + longest;
        // Looked for when there are twice as many as were left by the last look: each costs the same then.
        if self.failures.len() >= self.most_failures {
            let over = self.failures.extract_if(.., |_, old| is_over(old));
            self.discarded
                .extend(over.map(|(_, failures)| failures.last));
            self.most_failures = (2 * self.failures.len()).max(FEW_FAILURES);
        }
        let before = self.failures.get(&key).filter(|old| !is_over(old));
        let count = before.map_or(0, |old| old.count) + 1;
        let failures = Failures {
            count,
            until: now + self.limits.backoff.pause(count, jitter),
            last: Arc::clone(error),
        };
        let before = self.failures.insert(key, failures);
        self.discarded.extend(before.map(|failures| failures.last));
    }

    /// The core of an opening shuts down: callers of other cores open anew, those of its own do not.
    pub(crate) fn open_aborted(&mut self, id: EntryId, place: Place, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            let line = std::mem::take(&mut entry.line);
            let tickets = &self.tickets;
            let (here, elsewhere): (Vec<_>, Vec<_>) = line
                .iter()
                .partition(|ticket| tickets[ticket].place == place);
            for ticket in here {
                self.decide(ticket, Outcome::Failed(Failure::ShuttingDown));
            }
            self.drop_live(id);
            self.requeue(elsewhere.into_iter());
        }
        self.ended(id, now);
    }

    /// The owner has ended, whatever the reason.
    pub(crate) fn ended(&mut self, id: EntryId, now: Instant) {
        let phase = self.entries.get(&id).map(|entry| entry.phase);
        if matches!(phase, Some(Phase::Opening | Phase::Ready)) {
            // Nobody has asked for that: it went with its core.
            self.counts.shut_down += 1;
        }
        self.forget(id, now);
    }

    /// Takes an entry out whose owner has ended.
    fn forget(&mut self, id: EntryId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            let (line, phase) = (std::mem::take(&mut entry.line), entry.phase);
            self.drop_live(id);
            self.remove(id);
            if phase == Phase::Opening {
                // Lost on the way. Whoever tried again at once might do so for ever.
                for ticket in line.iter() {
                    self.decide(ticket, Outcome::Failed(Failure::ShuttingDown));
                }
            } else {
                self.requeue(line.iter());
            }
        }
        self.serve_queue(now);
    }

    /// Takes an entry out whose owner ends it by itself, for this reason.
    pub(crate) fn take_out(&mut self, id: EntryId, end: End, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !matches!(entry.phase, Phase::Closing(_))
        {
            let line = std::mem::take(&mut entry.line);
            self.begin_closing(id, end);
            self.requeue(line.iter());
            self.serve_queue(now);
        }
    }

    /// Looks whether a session has been there for too long: when to look again, or `None` if it is to end.
    pub(crate) fn look(&mut self, id: EntryId, now: Instant) -> Option<Instant> {
        let (idle, age) = (self.limits.idle_timeout, self.limits.max_age);
        let entry = self.entries.get_mut(&id)?;
        if entry.phase != Phase::Ready {
            // It is told when it is to end.
            return Some(Instant::NEVER);
        }
        let too_old = age.map_or(Instant::NEVER, |age| entry.since + age);
        if now >= too_old {
            return None;
        }
        let expires = match idle {
            None => Instant::NEVER,
            Some(idle) if entry.is_idle() => entry.last_used + idle,
            // It ends when it comes back.
            Some(Duration::ZERO) => Instant::NEVER,
            // Not before that, whenever it comes back.
            Some(idle) => now + idle,
        };
        if now < expires {
            return Some(expires.min(too_old));
        }
        self.begin_closing(id, End::Expired);
        Some(Instant::NEVER)
    }

    // --- closing ---

    /// Takes entries out, in one step; returns all of these keys that have not ended, also what was being
    /// closed before.
    pub(crate) fn close(&mut self, which: Selection<'_>, now: Instant) -> Vec<(EntryId, Key)> {
        let mut met = self.chosen(which);
        for (id, _) in &met {
            let entry = self.entries.get_mut(id).expect("just listed");
            let line = std::mem::take(&mut entry.line);
            let phase = entry.phase;
            for ticket in line.iter() {
                self.decide(ticket, Outcome::Failed(Failure::Closed));
            }
            match phase {
                // Nobody has begun.
                Phase::Appointed => {
                    self.drop_live(*id);
                    self.remove(*id);
                }
                Phase::Closing(_) => {}
                _ => self.begin_closing(*id, End::Closed),
            }
        }
        for id in self.leave_queue(which) {
            self.decide(id, Outcome::Failed(Failure::Closed));
        }
        self.serve_queue(now);
        met.retain(|(id, _)| self.entries.contains_key(id));
        met
    }

    fn chosen(&self, which: Selection<'_>) -> Vec<(EntryId, Key)> {
        let Selection::Session(key) = which else {
            let all = self.entries.iter().map(|(id, entry)| (*id, &entry.key));
            let chosen = all.filter(|(_, key)| which.matches(key));
            return chosen.map(|(id, key)| (id, key.clone())).collect();
        };
        // Nobody else's is looked at, however many there are.
        let from = self.by_key.range((key.clone(), EntryId(0))..);
        let of_key = from.take_while(|(other, _)| other == key);
        of_key.map(|(key, id)| (*id, key.clone())).collect()
    }

    /// Takes whoever waits for one of these out of the queue.
    fn leave_queue(&mut self, which: Selection<'_>) -> Vec<TicketId> {
        if let Selection::Session(key) = which {
            return self.queue.remove_all(key);
        }
        let tickets = &self.tickets;
        let chosen = |id: &TicketId| which.matches(&tickets[id].key);
        let waiting: Vec<_> = self.queue.iter().filter(chosen).collect();
        for id in &waiting {
            let ticket = &self.tickets[id];
            self.queue.remove(&ticket.key, ticket.spot);
        }
        waiting
    }

    /// Returns whether an entry is still there.
    pub(crate) fn is_there(&self, id: EntryId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Returns whether an entry is being opened, and was not closed.
    pub(crate) fn is_opening(&self, id: EntryId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.phase == Phase::Opening)
    }

    /// Returns whether leases of an entry are still good.
    pub(crate) fn is_open(&self, id: EntryId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| matches!(entry.phase, Phase::Ready | Phase::Retiring(_)))
    }

    /// Returns what has been done, and what is there.
    pub(crate) fn metrics(&self) -> PoolMetrics {
        let leases = self.entries.values().map(|entry| entry.leases as usize);
        let undecided = |ticket: &&Ticket<E>| !matches!(ticket.at, At::Decided(_));
        let waiting = self.tickets.values().filter(undecided).count();
        self.counts
            .metrics((self.entries.len(), leases.sum(), waiting))
    }

    /// Returns the keys that have a live entry.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.live.keys().cloned().collect()
    }

    // --- steps ---

    fn ticket(&mut self, key: &Key, mode: Mode, place: Place, now: Instant) -> TicketId {
        let id = TicketId(self.next_ticket);
        self.next_ticket += 1;
        let ticket = Ticket {
            key: key.clone(),
            mode,
            place,
            since: now,
            at: At::Queue,
            spot: Spot::default(),
            has_joined: false,
        };
        self.tickets.insert(id, ticket);
        id
    }

    fn stand(&mut self, id: TicketId, at: At<E>, spot: Spot) {
        let ticket = self.tickets.get_mut(&id).expect("it waits");
        (ticket.at, ticket.spot) = (at, spot);
    }

    /// Puts a caller at the end of an entry's line.
    fn join_line(&mut self, id: TicketId, entry_id: EntryId) {
        let entry = self.entries.get_mut(&entry_id).expect("it is there");
        // The first of them has caused the opening.
        let joins = entry.phase != Phase::Ready && !entry.line.is_empty();
        let spot = entry.line.push_back(id);
        let ticket = self.tickets.get_mut(&id).expect("it waits");
        if joins && !std::mem::replace(&mut ticket.has_joined, true) {
            self.counts.joins += 1;
        }
        self.note_idle(entry_id);
        self.stand(id, At::Line(entry_id), spot);
    }

    /// Something has changed about an entry: it may be idle now, or not any more.
    fn note_idle(&mut self, id: EntryId) {
        let entry = self.entries.get_mut(&id).expect("it is there");
        let now = entry.is_idle().then_some(entry.last_use);
        let before = std::mem::replace(&mut entry.idle_at, now);
        if before == now {
            return;
        }
        if let Some(before) = before {
            self.idle.remove(&before);
        }
        if let Some(now) = now {
            self.idle.insert(now, id);
        }
    }

    fn decide(&mut self, id: TicketId, outcome: Outcome<E>) {
        let ticket = self
            .tickets
            .get_mut(&id)
            .expect("tickets in lines are there");
        ticket.at = At::Decided(outcome);
        self.effects.push(Effect::Wake(id));
    }

    /// Makes an entry, whose first caller is to start the owner.
    fn appoint(&mut self, key: Key, line: Vec<TicketId>, now: Instant) {
        let id = EntryId(self.next_entry);
        self.next_entry += 1;
        let first = *line.first().expect("somebody wants it");
        self.live.insert(key.clone(), id);
        let entry = Entry {
            key,
            phase: Phase::Appointed,
            leases: 0,
            exclusive: false,
            is_checked: false,
            line: Waiters::default(),
            since: now,
            last_used: now,
            last_use: 0,
            idle_at: None,
        };
        self.by_key.insert((entry.key.clone(), id));
        self.entries.insert(id, entry);
        for ticket in line {
            self.join_line(ticket, id);
        }
        self.decide(first, Outcome::Appointed(id));
    }

    /// Grants what can be granted of an entry's line, in order.
    fn serve_line(&mut self, id: EntryId) {
        loop {
            let entry = self.entries.get_mut(&id).expect("it is ready");
            let Some(first) = entry.line.first() else {
                break;
            };
            if !grant(entry, self.tickets[&first].mode) {
                break;
            }
            entry.line.pop_first();
            self.decide(first, Outcome::Granted(id));
        }
        self.note_idle(id);
    }

    /// Lets those at the head of the queue in, while there is room.
    fn serve_queue(&mut self, now: Instant) {
        while let Some(first) = self.queue.first() {
            let ticket = &self.tickets[&first];
            let (key, spot) = (ticket.key.clone(), ticket.spot);
            if let Some(&id) = self.live.get(&key) {
                // Somebody else has opened it meanwhile.
                self.queue.remove(&key, spot);
                self.join_line(first, id);
                if self.entries[&id].phase == Phase::Ready {
                    self.serve_line(id);
                }
                continue;
            }
            if self.entries.len() >= self.limits.max_sessions {
                self.make_room();
                return;
            }
            // All who wait for the same wait together.
            let line = self.queue.remove_all(&key);
            self.appoint(key, line, now);
        }
    }

    /// Puts callers whose entry has gone back to the head of the queue, in their order.
    fn requeue(&mut self, line: impl DoubleEndedIterator<Item = TicketId>) {
        for id in line.rev() {
            let key = &self.tickets[&id].key;
            let spot = self.queue.push_front(key, id);
            self.stand(id, At::Queue, spot);
        }
    }

    /// Closes as many of those that were used least recently as callers wait for room.
    fn make_room(&mut self) {
        let free = self.limits.max_sessions.saturating_sub(self.entries.len());
        let mut short = self.queue.keys().saturating_sub(free + self.closing);
        while short > 0 {
            let Some((_, &oldest)) = self.idle.first_key_value() else {
                return;
            };
            self.begin_closing(oldest, End::Evicted);
            short -= 1;
        }
    }

    fn begin_closing(&mut self, id: EntryId, end: End) {
        self.drop_live(id);
        let entry = self.entries.get_mut(&id).expect("it is there");
        let before = std::mem::replace(&mut entry.phase, Phase::Closing(end));
        self.note_idle(id);
        self.closing += 1;
        match end {
            // It was counted when it was retired.
            _ if matches!(before, Phase::Retiring(_)) => {}
            End::Evicted => self.counts.evicted += 1,
            End::Expired => self.counts.expired += 1,
            End::Closed => self.counts.closed += 1,
            End::Unwanted => self.counts.unwanted += 1,
            End::Shutdown => self.counts.shut_down += 1,
            End::Retired => self.counts.retired += 1,
        }
        self.effects.push(Effect::Stop(id));
    }

    fn drop_live(&mut self, id: EntryId) {
        let key = &self.entries[&id].key;
        if self.live.get(key) == Some(&id) {
            let key = key.clone();
            self.live.remove(&key);
        }
    }

    fn remove(&mut self, id: EntryId) {
        self.drop_live(id);
        let entry = self.entries.remove(&id).expect("it was there");
        self.by_key.remove(&(entry.key, id));
        if let Some(idle_at) = entry.idle_at {
            self.idle.remove(&idle_at);
        }
        self.closing -= usize::from(matches!(entry.phase, Phase::Closing(_)));
        self.effects.push(Effect::Gone(id));
    }
}

/// Leases an entry once more, if its leases allow it.
fn grant(entry: &mut Entry, mode: Mode) -> bool {
    let allowed = match mode {
        Mode::Shared => !entry.exclusive && !entry.is_checked,
        Mode::Exclusive => entry.leases == 0,
    };
    if allowed {
        entry.leases += 1;
        entry.exclusive = mode == Mode::Exclusive;
    }
    allowed
}

#[cfg(test)]
#[path = "state_programs.rs"]
mod programs;
