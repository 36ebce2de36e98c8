//! Scopes: what is cancelled as a unit.
//!
//! In reading order: [`tree`] is the scope tree of a core, pure; [`unopened`] which scope is active;
//! [`cancelled`] the answer of an op that was cancelled, and how errors carry it; [`park`] what every
//! op does; [`patience`] what becomes of tasks that a cancel does not move; [`handle`] how a scope is
//! cancelled from anywhere. [`Scope`], here, runs a body ([`running`]); [`group`](mod@group) runs one
//! with tasks of its own ([`start`]: those that tell when they are ready); [`race`](mod@race) the first
//! to end; [`timeout`](mod@timeout) fails when it is late; [`on`](mod@remote) runs a child on another
//! core ([`far`]); [`foreign`] drops futures that know nothing of scopes.
//!
//! `guide.md` is the guide for those who use it: the public module `cancellation`.
//!
//! The rules in short: an op in a cancelled scope fails with [`Cancelled`] at its first poll, for
//! as long as the scope lasts; a parked op is aborted once; a result that was there first is
//! returned; a body that ends with `Cancelled` is absorbed by the outermost scope that was
//! cancelled; a scope's run ends when the kernel is done with everything started inside it.

pub(crate) mod cancelled;
pub(crate) mod far;
pub(crate) mod foreign;
mod group;
pub(crate) mod handle;
pub(crate) mod park;
pub(crate) mod patience;
mod race;
pub(crate) mod remote;
mod running;
mod start;
mod timeout;
pub(crate) mod tree;
pub(crate) mod unopened;

use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::time::Duration;

pub use cancelled::{Cancelled, CarriesCancelled, Misuse, Reason};
pub use foreign::{ForeignWait, run_until_cancelled};
pub(crate) use group::GroupState;
pub use group::{Group, GroupError, GroupPanic, group, isolating_group};
pub use handle::{CancelHandle, Delivery};
pub use race::{race, race_all, race_with};
pub use remote::{Remote, on};
pub use start::{AlreadyStarted, StartError, Started};
pub use timeout::{TimedOut, timeout};

use crate::core_state::Core;
use crate::task::current;
use crate::time::Instant;
use running::{Entered, Run};
use tree::{Kind, NodeId, Shield};

/// A scope: a body that is cancelled as a unit, by a deadline or by a handle.
///
/// The guide is [`cancellation`](crate::cancellation).
///
/// ```
/// use std::time::Duration;
/// use quoit::{Cancelled, Scope, time::sleep};
///
/// quoit::block_on(async {
///     let answer = Scope::new()
///         .timeout(Duration::from_millis(5))
///         .run(async {
///             sleep(Duration::from_secs(3600)).await?;
///             Ok::<_, Cancelled>(42)
///         })
///         .await?;
///     assert_eq!(answer, None, "the deadline cancelled the body");
///     Ok::<_, Cancelled>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
///
/// A scope stays on its core; its handles travel:
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// send(quoit::Scope::new());
/// ```
#[derive(Debug, Default)]
pub struct Scope {
    deadline: Cell<Option<Instant>>,
    timeout: Option<Duration>,
    grace: Duration,
    shield: Cell<Shield>,
    /// The node, from the first `handle()` or the start of `run` until the run ends.
    entered: Cell<Option<Entered>>,
    /// Its own cancel, while there is no node.
    cause: Cell<Option<Cancelled>>,
    /// When the grace of that ends.
    grace_end: Cell<Option<Instant>>,
    absorbed: Cell<bool>,
    used: Cell<bool>,
    ended: Cell<bool>,
    /// A scope stays on its core; its handles travel.
    not_send: PhantomData<*const ()>,
}

impl Scope {
    /// Makes a scope without a deadline.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the body, with reason [`Reason::Deadline`], when `timeout` has passed since the run
    /// began. The earlier of this and [`Scope::deadline`] counts.
    #[must_use]
    #[inline]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Cancels the body, with reason [`Reason::Deadline`], at `deadline`; before its first op if
    /// that has passed.
    #[must_use]
    pub fn deadline(self, deadline: Instant) -> Self {
        self.put_deadline(Some(deadline));
        self
    }

    /// Makes the body deaf to cancellation from outside: for a goodbye that must still be said.
    /// Give it a timeout of its own, so that it cannot outstay the caller's patience.
    #[must_use]
    pub fn shielded(self) -> Self {
        self.put_shield(Shield::Full);
        self
    }

    /// Makes the body deaf to cancellation from outside for as long as that has
    /// [grace](CancelHandle::cancel_with): for work that may end in order if there is time. A cancel
    /// without grace reaches it at once.
    #[must_use]
    pub fn grace_shielded(self) -> Self {
        self.put_shield(Shield::Grace);
        self
    }

    /// Gives what is in a [grace shield](Scope::grace_shielded) inside so long to end when this scope
    /// is cancelled, by its deadline or by whoever says nothing else. Without this call: no time.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self.on_core(|core, node| core.tree.borrow_mut().set_grace_period(node, grace));
        self
    }

    /// Returns a handle that cancels the body from anywhere: any task, thread or signal handler.
    ///
    /// # Panics
    ///
    /// Off a core, after the run has ended, or in another runtime than the scope's.
    pub fn handle(&self) -> CancelHandle {
        current::with(|core| {
            let node = match self.entered() {
                Some(Entered { node, home }) => {
                    assert!(
                        home == core.identity(),
                        "a scope's handle is asked for in the runtime that the scope belongs to"
                    );
                    node
                }
                None => {
                    assert!(
                        !self.used.get(),
                        "a scope's handle is asked for before its run ends"
                    );
                    let root = core.tree.borrow().root();
                    let node = Entered::put(core, self, root, Kind::Scope);
                    // A handle moves it, or takes it away.
                    core.set_deadline(node, self.deadline.get(), Instant::now());
                    node
                }
            };
            CancelHandle::new(core, node)
        })
    }

    /// Cancels the body, with reason [`Reason::Requested`]; seen by its next op. Before the run: by
    /// the first. Where the scope has ended, [`Delivery::Gone`].
    pub fn cancel(&self) -> Delivery {
        self.cancel_for(Reason::Requested, None)
    }

    /// Cancels the body for this reason, and with this grace: see [`CancelHandle::cancel_with`].
    pub fn cancel_with(&self, reason: Reason, grace: Duration) -> Delivery {
        self.cancel_for(reason, Some(grace))
    }

    fn cancel_for(&self, reason: Reason, grace: Option<Duration>) -> Delivery {
        if self.ended.get() {
            return Delivery::Gone;
        }
        self.notice_deadline();
        let cause = Cancelled::for_reason(reason);
        let first = self.on_core(|core, node| core.cancel(node, cause, grace));
        match first {
            Some(true) => Delivery::Delivered,
            Some(false) => Delivery::AlreadyCancelled,
            None if self.used.get() => Delivery::Gone,
            None if self.cause.get().is_some() => Delivery::AlreadyCancelled,
            None => {
                self.note_cause(cause, grace);
                Delivery::Delivered
            }
        }
    }

    /// Notes a cancel that comes before the node.
    fn note_cause(&self, cause: Cancelled, grace: Option<Duration>) {
        let grace = grace.unwrap_or(self.grace);
        self.grace_end.set(Some(Instant::now() + grace));
        self.cause.set(Some(cause));
    }

    /// Lets a new node have the cancel that came before it, and what is left of its grace.
    fn pass_cause_on(&self, core: &Core, node: NodeId) {
        if let Some(cause) = self.cause.get() {
            let grace = self.grace_end.get().map(|end| end - Instant::now());
            core.cancel(node, cause, grace);
        }
    }

    /// Sets or clears the shield, at any time. What is aborted already stays so.
    pub fn set_shielded(&self, shielded: bool) {
        let shield = if shielded { Shield::Full } else { Shield::None };
        self.put_shield(shield);
    }

    fn put_shield(&self, shield: Shield) {
        self.shield.set(shield);
        self.on_core(|core, node| {
            core.tree.borrow_mut().set_shield(node, shield);
            core.carry_out();
        });
    }

    /// Sets, moves or takes away the deadline, at any time; of [`Scope::timeout`] as well, once the
    /// run has begun. A scope that is cancelled stays so.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.notice_deadline();
        self.put_deadline(deadline);
    }

    fn put_deadline(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
        self.on_core(|core, node| core.set_deadline(node, deadline, Instant::now()));
    }

    /// Returns why this scope was cancelled, if its own cancel was called or its deadline has passed.
    pub fn cancelled(&self) -> Option<Cancelled> {
        self.notice_deadline();
        self.on_core(|core, node| core.tree.borrow().own_cause(node))
            .unwrap_or(self.cause.get())
    }

    /// Returns whether the run ended with a [`Cancelled`] that this scope took.
    pub fn absorbed(&self) -> bool {
        self.absorbed.get()
    }

    /// A deadline that has passed is a cancel, whether or not anybody has noticed.
    fn notice_deadline(&self) {
        let passed = |deadline: Instant| deadline <= Instant::now();
        if self.ended.get() {
            return;
        }
        let entered = self.on_core(Core::notice_deadline_of);
        if entered.is_none()
            && self.deadline.get().is_some_and(passed)
            && self.cause.get().is_none()
        {
            self.note_cause(Cancelled::deadline(), None);
        }
    }

    /// Returns the node, if there is one; of a run whose first poll goes on there is.
    fn entered(&self) -> Option<Entered> {
        let entered = self.entered.get();
        if entered.is_none() && self.used.get() && !self.ended.get() {
            return self.open_now();
        }
        entered
    }

    #[cold]
    fn open_now(&self) -> Option<Entered> {
        let opened = current::try_with(|core| {
            let node = core.open_scope(self.name())?;
            let home = core.identity();
            Some(Entered { node, home })
        });
        self.entered.set(opened.flatten());
        self.entered.get()
    }

    /// Returns where this lies, which tells it from others for as long as it runs.
    fn name(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Returns the deadline of a run that may begin without a node, [`Instant::NEVER`] if it has none; `None` if it may
    /// not.
    #[inline]
    fn unopened_until(&self) -> Option<Instant> {
        let is_plain = !self.used.get()
            && self.entered.get().is_none()
            && self.cause.get().is_none()
            && self.shield.get() == Shield::None;
        if !is_plain {
            return None;
        }
        match self.first_deadline() {
            None => Some(Instant::NEVER),
            Some((deadline, now)) => (deadline > now).then_some(deadline),
        }
    }

    /// Calls `f` with the node, if there is one here.
    #[inline]
    fn on_core<R>(&self, f: impl FnOnce(&Core, NodeId) -> R) -> Option<R> {
        // As most are while they are made up.
        if self.entered.get().is_none() && !self.used.get() {
            return None;
        }
        current::try_with(|core| {
            let entered = self.entered()?;
            (entered.home == core.identity()).then(|| {
                // What a handle was told came first.
                core.see_remote_cancels();
                f(core, entered.node)
            })
        })
        .flatten()
    }

    /// Runs `body` in this scope.
    ///
    /// `Ok(Some(value))`: the body ended with a value, cancelled or not. `Ok(None)`: this scope was
    /// cancelled, the body ended with [`Cancelled`], and the scope took it. `Err`: the body failed,
    /// or it was cancelled from further out and the `Cancelled` is on its way there.
    ///
    /// The run ends when the kernel is done with every op that was started inside, also with those
    /// whose futures were dropped there, and when the tasks have ended that a group or a call of
    /// another core left behind here by being dropped. For sockets and timers that is at once; an
    /// operation on a file that is already running holds the run until it is done.
    ///
    /// Dropping the returned future drops the body and hands what the kernel still holds to the
    /// scope around.
    ///
    /// # Errors
    ///
    /// The body's own, as said above. A second run of the same scope, a run in another runtime than
    /// the one its handle was made in, or one that is polled in one task and then in another, fails
    /// with [`Reason::Misuse`].
    pub fn run<T, E: CarriesCancelled>(
        &self,
        body: impl IntoFuture<Output = Result<T, E>>,
    ) -> impl Future<Output = Result<Option<T>, E>> {
        Run::new(self, body.into_future())
    }

    /// Returns the deadline that a run has which begins at the moment that comes with it.
    fn first_deadline(&self) -> Option<(Instant, Instant)> {
        self.first_after(self.deadline.get())
    }

    /// The same, where this is the deadline that it was given before.
    fn first_after(&self, absolute: Option<Instant>) -> Option<(Instant, Instant)> {
        if absolute.is_none() && self.timeout.is_none() {
            return None;
        }
        let now = Instant::now();
        let relative = self.timeout.map(|timeout| now + timeout);
        let deadline = absolute.into_iter().chain(relative).min()?;
        Some((deadline, now))
    }
}

impl Drop for Scope {
    /// One that has a handle and was never run is gone.
    fn drop(&mut self) {
        if let Some(entered) = self.entered.take() {
            entered.close();
        }
    }
}

/// Fails if the active scope is cancelled; does not yield.
///
/// For loops that compute: call it now and then. A loop that ignores its answer is not slowed down.
///
/// # Errors
///
/// [`Cancelled`], as an op would.
///
/// # Panics
///
/// Off a core.
#[inline]
pub fn check() -> Result<(), Cancelled> {
    current::with(|core| {
        core.see_remote_cancels();
        match core.refuses(core.active.opened()) {
            true => refused(core),
            false => Ok(()),
        }
    })
}

#[cold]
fn refused(core: &Core) -> Result<(), Cancelled> {
    Err(core.tree.borrow().cause(core.active.opened()))
}

/// Returns whether ops are refused here: whether a scope around is cancelled, as far as shields let
/// it be seen.
///
/// # Panics
///
/// Off a core.
pub fn is_cancelled() -> bool {
    check().is_err()
}

/// Returns the earliest deadline around, as far as shields let it be seen; one that has passed where
/// ops are refused already.
///
/// # Panics
///
/// Off a core.
pub fn effective_deadline() -> Option<Instant> {
    if is_cancelled() {
        return Some(Instant::from_nanos(0));
    }
    current::with(|core| {
        let active = core.active();
        core.tree.borrow().effective_deadline(active)
    })
}
