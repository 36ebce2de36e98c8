//! What every op does at its first poll, while it waits, and when it is aborted.
//!
//! ```text
//!   first poll ──► entry: is the active scope cancelled? ──► refused: X, nothing was done
//!                        │ no
//!                        ▼
//!                  register under the active scope ──► polls: follow the active scope
//!                                                        │
//!                              completed first: value ◄──┴──► aborted first: X
//! ```
//!
//! A task whose ops are refused again and again is made to yield now and then, and in the end to
//! pause (`patience.rs`), so that a loop which swallows every cancel cannot keep the core to itself.

use std::marker::PhantomData;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::tree::{GivenUp, NodeId, Outcome, ParkId, Parked, Purpose, Relay, Wait};
use super::{Cancelled, patience};
use crate::core_state::Core;
use crate::slab::Key;
use crate::task::current;
use crate::task::waker::task_of;

/// Checks the active scope, as every op does at its first poll.
#[inline]
pub(crate) fn entry(core: &Core, waker: &Waker) -> Poll<Result<(), Cancelled>> {
    core.see_remote_cancels();
    if !core.refuses(core.active.opened()) {
        return Poll::Ready(Ok(()));
    }
    refuse(core, waker)
}

#[cold]
fn refuse(core: &Core, waker: &Waker) -> Poll<Result<(), Cancelled>> {
    let active = core.active();
    if core.refusals.get() == 0 || core.refused_under.get() != active {
        core.refuse_under(active);
    }
    if core.allowance.get() == 0 {
        core.count_aborts(active);
    }
    let Some(allowance) = core.allowance.get().checked_sub(1) else {
        core.pause_task(waker);
        return Poll::Pending;
    };
    let asked = core.refusals.get() + 1;
    core.refusals.set(asked);
    if patience::is_yield(asked) {
        core.yield_to_others(waker);
        return Poll::Pending;
    }
    core.allowance.set(allowance);
    Poll::Ready(Err(core.tree.borrow().cause(active)))
}

/// Whether an op looks at its scope before it starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    /// It does.
    Checked,
    /// It is a release, and happens in every case.
    Always,
}

impl Entry {
    #[inline]
    pub(crate) fn poll(self, core: &Core, waker: &Waker) -> Poll<Result<(), Cancelled>> {
        match self {
            Self::Checked => entry(core, waker),
            Self::Always => Poll::Ready(Ok(())),
        }
    }
}

/// What a wait in memory finds when it looks.
#[derive(Debug)]
pub(crate) enum Look {
    Waiting,
    Ready,
    Aborted(Cancelled),
}

/// Registers a wait in memory under the active scope, whose owner keeps its address elsewhere than in a [`Park`].
#[inline(never)]
pub(crate) fn register(core: &Core, waker: &Waker, purpose: Purpose) -> ParkId {
    register_in_place(core, waker, purpose)
}

#[inline(always)]
fn register_in_place(core: &Core, waker: &Waker, purpose: Purpose) -> ParkId {
    let waker = waker.clone();
    let active = core.active();
    let mut tree = core.tree.borrow_mut();
    tree.park_with(active, || Wait::Memory { waker, purpose })
}

/// Registers a kernel op under the active scope.
#[inline(never)]
fn register_op(core: &Core, user_data: u64) -> ParkId {
    let active = core.active();
    let mut tree = core.tree.borrow_mut();
    tree.park_with(active, || Wait::Kernel(user_data))
}

/// Looks at a wait in memory, and follows the active scope. One that was aborted is there still: it counts when it
/// [ends](end).
pub(crate) fn look_at(core: &Core, id: ParkId, waker: &Waker) -> Look {
    core.see_remote_cancels();
    match poll(core, id, waker) {
        Parked::Waiting => Look::Waiting,
        Parked::Ready => Look::Ready,
        Parked::Aborted(cause) => Look::Aborted(cause),
    }
}

/// Notes who polls a wait, and lets that follow the active scope.
fn poll(core: &Core, id: ParkId, waker: &Waker) -> Parked {
    let mut copy = None;
    let polled = loop {
        let active = core.active();
        let mut tree = core.tree.borrow_mut();
        if let Some(polled) = tree.poll_park(id, active, waker, &mut copy) {
            break polled;
        }
        drop(tree);
        copy = Some(waker.clone());
    };
    drop(polled.stale);
    // If it has moved under a cancelled scope, somebody may have to be told.
    core.carry_out();
    polled.parked
}

/// Takes a wait out of the tree, if it still is there. Returns whether it was, and is none of a kernel op.
pub(crate) fn end(core: &Core, id: ParkId) -> bool {
    let given_up = core.tree.borrow_mut().give_up(id);
    match given_up {
        GivenUp::Nothing => return false,
        GivenUp::Waker(waker) => let_go(core, waker),
        GivenUp::Told => end_told(core, id),
    }
    true
}

/// Drops a waker, which may be foreign code: what it panics with is nobody's who gives his wait up.
#[inline]
fn let_go(core: &Core, waker: Waker) {
    match task_of(&waker, core.number()) {
        // It is a word.
        Some(_) => std::mem::forget(waker),
        None => core.contain(|| drop(waker)),
    }
}

/// As [`end`], of a wait that is more than a waker, or that a cancel has reached.
#[cold]
fn end_told(core: &Core, id: ParkId) {
    let Some(remains) = core.tree.borrow_mut().unpark(id) else {
        return;
    };
    if let Some(told) = remains.told() {
        core.saw_abort(told);
    }
    // Whose wait another drops is woken for the cancel that has ended it: he may have no other. Later, since a waker is
    // foreign code, and this may be a destructor.
    if let Some(waker) = remains.due()
        && task_of(&waker, core.number()).is_none_or(|task| core.running.get() != Some(task))
    {
        core.tree.borrow_mut().wake_later(waker);
    }
}

/// One op's place in the scope tree. Dropped, it leaves no trace.
#[derive(Debug, Default)]
pub(crate) struct Park {
    registered: Option<(ParkId, u64)>,
    not_send: PhantomData<*const ()>,
}

impl Park {
    pub(crate) const fn new() -> Self {
        Self {
            registered: None,
            not_send: PhantomData,
        }
    }

    /// Registers a wait in memory under the active scope.
    #[inline]
    pub(crate) fn register_memory(&mut self, core: &Core, waker: &Waker, purpose: Purpose) {
        self.note(core, register(core, waker, purpose));
    }

    /// As [`Park::register_memory`], within the caller, who is told where.
    #[inline(always)]
    pub(crate) fn register_here(&mut self, core: &Core, waker: &Waker, purpose: Purpose) -> ParkId {
        let id = register_in_place(core, waker, purpose);
        self.note(core, id);
        id
    }

    /// Registers a wait in memory under the active scope, with a waker that was copied for it.
    #[inline(never)]
    pub(crate) fn register_copy(&mut self, core: &Core, waker: Waker, purpose: Purpose) {
        self.register(core, || Wait::Memory { waker, purpose });
    }

    /// Registers a wait in memory that no cancel ends, nor tells.
    pub(crate) fn register_deaf(&mut self, core: &Core, waker: &Waker, purpose: Purpose) {
        self.register_deaf_copy(core, waker.clone(), purpose);
    }

    /// As [`Park::register_deaf`], with a waker that was copied for it.
    #[inline(never)]
    pub(crate) fn register_deaf_copy(&mut self, core: &Core, waker: Waker, purpose: Purpose) {
        self.register(core, || Wait::Deaf { waker, purpose });
    }

    /// Registers a wait in memory whose other side ends it, and is told of a cancel.
    #[inline(never)]
    pub(crate) fn register_relayed(
        &mut self,
        core: &Core,
        waker: &Waker,
        purpose: Purpose,
        relay: Rc<dyn Relay>,
    ) {
        let waker = waker.clone();
        let relay = core.tree.borrow_mut().keep_relay(relay);
        self.register(core, || Wait::Relayed {
            waker,
            purpose,
            relay,
        });
        // The copy was foreign code, and may have cancelled what was not cancelled when this op began.
        core.carry_out();
    }

    /// Makes the park of a kernel op, which is registered under the active scope.
    #[inline]
    pub(crate) fn of_op(core: &Core, user_data: u64) -> Self {
        Self {
            registered: Some((register_op(core, user_data), core.identity())),
            not_send: PhantomData,
        }
    }

    #[inline]
    fn note(&mut self, core: &Core, id: ParkId) {
        debug_assert!(self.registered.is_none());
        self.registered = Some((id, core.identity()));
    }

    /// Looks at a wait in memory, and follows the active scope.
    pub(crate) fn look(&mut self, core: &Core, waker: &Waker) -> Look {
        let id = self.id(core).expect("only a registered wait is looked at");
        look_at(core, id, waker)
    }

    /// As [`Park::look`]; a wait that has its outcome leaves the tree. Who asks needs the place no more then.
    #[inline(never)]
    pub(crate) fn look_last(&mut self, core: &Core, waker: &Waker) -> Look {
        self.look_last_here(core, waker)
    }

    /// As [`Park::look_last`], within the caller.
    #[inline(always)]
    pub(crate) fn look_last_here(&mut self, core: &Core, waker: &Waker) -> Look {
        let id = self.id(core).expect("only a registered wait is looked at");
        core.see_remote_cancels();
        let polled = core.active.polled();
        let outcome = core.tree.borrow_mut().outcome(id, polled, waker);
        match outcome {
            Outcome::Ready => {
                self.registered = None;
                Look::Ready
            }
            Outcome::Aborted(cause, told) => {
                self.registered = None;
                core.saw_abort(told);
                Look::Aborted(cause)
            }
            // Whoever polls again and again what has not moved is answered shortly.
            Outcome::Unchanged => Look::Waiting,
            Outcome::None => self.look(core, waker),
        }
    }

    /// Lets a kernel op follow the active scope.
    pub(crate) fn follow(&mut self, core: &Core, waker: &Waker) {
        let Some(id) = self.id(core) else { return };
        poll(core, id, waker);
    }

    /// Returns why this op was aborted.
    pub(crate) fn cause(&self, core: &Core) -> Cancelled {
        let tree = core.tree.borrow();
        let aborted = self.id(core).and_then(|id| tree.aborted(id));
        aborted.unwrap_or_else(|| tree.cause(core.active.opened()))
    }

    /// Returns the scope that this op stands under.
    pub(crate) fn node(&self, core: &Core) -> NodeId {
        let known = self.id(core).and_then(|id| core.tree.borrow().node_of(id));
        known.unwrap_or_else(|| core.active())
    }

    /// Returns a number that the core can complete this wait by.
    pub(crate) fn token(&self) -> Option<u64> {
        self.registered.map(|(id, _)| id.to_token())
    }

    /// Returns the wait's address, for whoever completes it.
    pub(crate) fn id(&self, core: &Core) -> Option<ParkId> {
        self.registered.map(|(id, home)| {
            assert!(
                home == core.identity(),
                "an op was polled outside the runtime that started it"
            );
            id
        })
    }

    /// Returns where the wait is registered, and on which core, this time round.
    #[inline]
    pub(crate) fn address(&self) -> Option<(ParkId, u64)> {
        self.registered
    }

    /// Returns whether this is registered on `core`.
    pub(crate) fn is_at(&self, core: &Core) -> bool {
        self.registered
            .is_some_and(|(_, home)| home == core.identity())
    }

    /// Ends a wait that was completed: the tree has forgotten it.
    #[inline]
    pub(crate) fn forget(&mut self) {
        debug_assert!(
            self.registered.is_none_or(|(id, home)| {
                current::try_with(|core| core.identity() != home || core.tree.borrow().is_ready(id))
                    .unwrap_or(true)
            }),
            "it waits still"
        );
        self.registered = None;
    }

    /// Leaves the tree.
    #[inline]
    pub(crate) fn end(&mut self) {
        if self.registered.is_some() {
            current::try_with(|core| self.end_here(core));
            self.registered = None;
        }
    }

    /// As [`Park::end`], where the core is known. Returns whether a wait was there that is none of a kernel op.
    #[inline]
    pub(crate) fn end_here(&mut self, core: &Core) -> bool {
        self.registered
            .take()
            .is_some_and(|(id, home)| core.identity() == home && end(core, id))
    }

    #[inline(always)]
    fn register(&mut self, core: &Core, wait: impl FnOnce() -> Wait) {
        let active = core.active();
        let id = core.tree.borrow_mut().park_with(active, wait);
        self.note(core, id);
    }
}

impl Drop for Park {
    #[inline]
    fn drop(&mut self) {
        self.end();
    }
}

impl ParkId {
    /// Packs the address into a number.
    pub(crate) fn to_token(self) -> u64 {
        let key = self.key();
        u64::from(key.index()) | u64::from(key.generation()) << 32
    }

    pub(crate) fn from_token(token: u64) -> Self {
        Self::from_key(Key::new(token as u32, (token >> 32) as u32))
    }
}
