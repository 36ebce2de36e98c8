//! What all cores share of a pool: the registry, who is to be woken, and how owners are reached.
//!
//! The lock is held for a step of the [registry](crate::state) and never across an await, a wake or code
//! of the user's.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use quoit::time::Instant;
use quoit::{CancelHandle, Cancelled, CoreId, op, run_until_cancelled};

use crate::config::{Limits, Times};
use crate::figures::PoolMetrics;
use crate::state::{Decision, Effect, EntryId, Mode, Outcome, Place, Selection, State, TicketId};
use crate::{CallError, Key, Sessions};

/// Names a pool, in the life of the process.
pub(crate) type PoolId = u64;

/// What the handles, the leases and the owners of a pool share.
pub(crate) struct Registry<S: Sessions> {
    pub(crate) id: PoolId,
    pub(crate) sessions: S,
    pub(crate) times: Times,
    inside: Mutex<Inside<S::Error>>,
}

struct Inside<E> {
    state: State<E>,
    /// Who waits for the outcome of a ticket.
    callers: BTreeMap<TicketId, Waker>,
    owners: BTreeMap<EntryId, Arc<Line>>,
    /// Cores that have asked, each in the place that stands for it.
    cores: Vec<CoreId>,
    /// Who waits until an entry has gone.
    closers: BTreeMap<EntryId, Vec<Waker>>,
}

impl<E> Inside<E> {
    /// Returns what stands for a core in the registry.
    fn place_of(&mut self, core: CoreId) -> Place {
        let known = self.cores.iter().position(|other| *other == core);
        Place(known.unwrap_or_else(|| {
            self.cores.push(core);
            self.cores.len() - 1
        }))
    }
}

impl<S: Sessions> Registry<S> {
    pub(crate) fn new(sessions: S, limits: Limits, times: Times) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            sessions,
            times,
            inside: Mutex::new(Inside {
                state: State::new(limits),
                callers: BTreeMap::new(),
                owners: BTreeMap::new(),
                cores: Vec::new(),
                closers: BTreeMap::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside<S::Error>> {
        // No step panics half-way: what is behind a poisoned lock is whole.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step, and then does what it wants done.
    pub(crate) fn step<R>(&self, step: impl FnOnce(&mut State<S::Error>, Instant) -> R) -> R {
        self.change(|inside| step(&mut inside.state, Instant::now()))
    }

    /// Decides about a caller on this core: what becomes of it, the line to the owner if it has a lease, and
    /// what stands for its core.
    pub(crate) fn lease(
        &self,
        key: &Key,
        mode: Mode,
        core: CoreId,
    ) -> (Decision<S::Error>, Option<Arc<Line>>, Place) {
        self.change(|inside| {
            let place = inside.place_of(core);
            let decision = inside.state.lease(key, mode, place, Instant::now());
            let line = match &decision {
                Decision::Leased(entry, _) => inside.owners.get(entry).cloned(),
                _ => None,
            };
            (decision, line, place)
        })
    }

    fn change<R>(&self, change: impl FnOnce(&mut Inside<S::Error>) -> R) -> R {
        let mut inside = self.lock();
        let result = change(&mut inside);
        let effects = inside.state.take_effects();
        let discarded = inside.state.take_discarded();
        let mut wakers = Vec::new();
        let mut stopped = Vec::new();
        for effect in effects {
            match effect {
                Effect::Wake(ticket) => wakers.extend(inside.callers.remove(&ticket)),
                Effect::Stop(entry) => stopped.extend(inside.owners.get(&entry).cloned()),
                Effect::Gone(entry) => {
                    inside.owners.remove(&entry);
                    wakers.extend(inside.closers.remove(&entry).unwrap_or_default());
                }
            }
        }
        drop(inside);
        stopped.iter().for_each(|line| line.stop());
        wakers.into_iter().for_each(op::wake);
        // Each is somebody's code, and a panic of one keeps nothing from the others.
        for error in discarded {
            contained(|| drop(error));
        }
        result
    }

    /// Waits for what becomes of a ticket.
    pub(crate) async fn outcome(&self, ticket: TicketId) -> Result<Outcome<S::Error>, Cancelled> {
        run_until_cancelled(poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut inside = self.lock();
            if let Some(outcome) = inside.state.outcome(ticket, Instant::now()) {
                return Poll::Ready(outcome);
            }
            let before = inside.callers.insert(ticket, waker);
            // A waker may be anybody's code.
            drop(inside);
            drop(before);
            Poll::Pending
        }))
        .await
    }

    /// A caller waits no more.
    pub(crate) fn leave(&self, ticket: TicketId) {
        let waker = self.lock().callers.remove(&ticket);
        drop(waker);
        self.step(|state, now| state.leave(ticket, now));
    }

    /// Makes the line to an owner that is about to start on this core; `None` if its opening was closed
    /// already.
    pub(crate) fn open_line(&self, entry: EntryId, home: CoreId) -> Option<Arc<Line>> {
        let mut inside = self.lock();
        if !inside.state.is_opening(entry) {
            return None;
        }
        let line = Arc::new(Line::new(home));
        inside.owners.insert(entry, Arc::clone(&line));
        Some(line)
    }

    /// Returns the line to the owner of an entry, unless that has ended.
    pub(crate) fn line(&self, entry: EntryId) -> Option<Arc<Line>> {
        self.lock().owners.get(&entry).cloned()
    }

    /// Takes entries out, and returns those whose end is to be waited for.
    pub(crate) fn close(&self, which: Selection<'_>) -> Vec<(EntryId, Key)> {
        self.step(|state, now| state.close(which, now))
    }

    /// Takes the entries that have ended off the end of a list; true if none is left. Else `waker` is woken when the
    /// last of them ends: whoever waits for many is woken for each, and looks at no other.
    pub(crate) fn have_ended(&self, list: &mut Vec<(EntryId, Key)>, waker: &Waker) -> bool {
        let own = waker.clone();
        let mut inside = self.lock();
        while let Some(&(last, _)) = list.last() {
            if inside.state.is_there(last) {
                let closers = inside.closers.entry(last).or_default();
                if !closers.iter().any(|other| other.will_wake(waker)) {
                    closers.push(own);
                }
                return false;
            }
            list.pop();
        }
        true
    }

    /// Returns which entries of a list have not ended.
    pub(crate) fn left(&self, list: Vec<(EntryId, Key)>) -> Vec<Key> {
        let inside = self.lock();
        let left = list
            .into_iter()
            .filter(|(id, _)| inside.state.is_there(*id));
        left.map(|(_, key)| key).collect()
    }

    pub(crate) fn metrics(&self) -> PoolMetrics {
        let inside = self.lock();
        inside.state.metrics()
    }
}

/// Runs somebody's code, whose panic is nobody's. What it panics with may panic as well, and is kept then.
fn contained(job: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(job))
        && let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        std::mem::forget(next);
    }
}

/// Between an owner and all others: how it is told to end, and what became of it.
#[derive(Debug)]
pub(crate) struct Line {
    home: CoreId,
    told: Mutex<Told>,
    /// Why calls find no session any more.
    fate: OnceLock<CallError>,
}

#[derive(Debug, Default)]
struct Told {
    stop: bool,
    owner: Option<Waker>,
    /// Cancels the opening, while there is one.
    opening: Option<CancelHandle>,
}

impl Line {
    pub(crate) fn new(home: CoreId) -> Self {
        Self {
            home,
            told: Mutex::default(),
            fate: OnceLock::new(),
        }
    }

    /// Returns the core where the session lives.
    pub(crate) fn home(&self) -> CoreId {
        self.home
    }

    /// Notes why calls find no session any more; the first reason counts.
    pub(crate) fn note_fate(&self, why: CallError) {
        let _ = self.fate.set(why);
    }

    /// Returns why calls find no session any more.
    pub(crate) fn fate(&self) -> CallError {
        self.fate.get().cloned().unwrap_or(CallError::Closed)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the owner to end: an opening is cancelled at once.
    pub(crate) fn stop(&self) {
        let mut told = self.lock();
        told.stop = true;
        let (owner, opening) = (told.owner.take(), told.opening.take());
        drop(told);
        if let Some(opening) = opening {
            opening.cancel();
        }
        if let Some(owner) = owner {
            op::wake(owner);
        }
    }

    /// Has this opening cancelled when the owner is told to end.
    pub(crate) fn cancels(&self, opening: Option<CancelHandle>) {
        let mut told = self.lock();
        match opening {
            Some(opening) if told.stop => {
                drop(told);
                opening.cancel();
            }
            other => told.opening = other,
        }
    }

    /// Returns whether the owner was told to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    /// Waits until the owner is told to end; no op.
    pub(crate) async fn stopped(&self) {
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut told = self.lock();
            if told.stop {
                return Poll::Ready(());
            }
            let before = told.owner.replace(waker);
            drop(told);
            drop(before);
            Poll::Pending
        })
        .await;
    }
}
