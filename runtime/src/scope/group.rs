//! `group`: a body with tasks of its own, which ends after its last task.
//!
//! ```text
//!   body and children run ──► all have ended ──► daemons are cancelled ──► all have ended ──► done
//!            │ one fails: the group's own scope is cancelled, and the rest is as above
//! ```
//!
//! The children are tasks below the group's node of the scope tree, so the tree knows how many there
//! are, cancels them with the group, and says when the last one has gone. What they came to is
//! gathered in [`GroupState`], which the group and each child hold.
//!
//! Invariants:
//! - A group's future ends after all its children, or is dropped: then they are cancelled and belong
//!   to the scope around.
//! - Every failure of the body or a child is told once: by the group, or, of an isolating group, by
//!   the child's handle if somebody still has it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::running::{Running, poll_end};
use super::tree::{Kind, NodeId, Shield};
use super::{CancelHandle, Cancelled, CarriesCancelled, Delivery, Misuse, Reason, Scope, TimedOut};
use crate::core_state::Core;
use crate::panics::{Guarded, called, caught, contained, discard, guarded, text_of};
use crate::slab::Key;
use crate::task::cell::boxed_child;
use crate::task::{JoinError, JoinHandle, TaskId, after_others, current};

/// Runs a body that may start tasks, and ends after the last of them.
///
/// ```
/// use quoit::{Cancelled, group, time::sleep};
/// use std::time::Duration;
///
/// quoit::block_on(async {
///     let sum = group(async |g| {
///         let slow = g.spawn(async {
///             sleep(Duration::from_millis(1)).await?;
///             Ok::<_, Cancelled>(20)
///         });
///         let fast = g.spawn(async { Ok(22) });
///         Ok(slow.await.unwrap() + fast.await.unwrap())
///     });
///     assert_eq!(sum.await.unwrap(), Some(42));
/// })?;
/// # Ok::<_, quoit::BuildError>(())
/// ```
///
/// A group is a scope: it can be cancelled, by [`Group::cancel`] or from further out, and that
/// reaches body and children. If one of them fails or panics the group cancels itself; when all have
/// ended it tells every failure. The body runs in the caller's task and may borrow; children are
/// tasks and own what they use.
///
/// The wait for the children is no op: a cancel reaches them, not the wait. A group without children
/// lets other tasks run once.
///
/// `Ok(Some(value))`: what the body returned. `Ok(None)`: the group was cancelled, nothing failed,
/// and the body ended with the [`Cancelled`], which the group took. One that the body ends with while
/// nothing is cancelled is not the group's: it cancels the children, as a failure does, and goes on.
///
/// Dropping the returned future cancels the children and hands them to the scope around, whose end
/// waits for them.
///
/// # Errors
///
/// [`GroupError`] with all that failed, the cause first. A [`Cancelled`] from further out comes with
/// it, or alone.
///
/// # Panics
///
/// If the body or a child panicked: with what that panicked with, or, if there is more to tell, with
/// a [`GroupPanic`].
pub fn group<T, E>(
    body: impl AsyncFnOnce(Group<E>) -> Result<T, E>,
) -> impl Future<Output = Result<Option<T>, GroupError<E>>>
where
    E: CarriesCancelled + 'static,
{
    run(body, Failures::End)
}

/// As [`group`], but a child that fails or panics does not cancel the others.
///
/// The failure is told by the child's [`JoinHandle`], or by the group at its end, if the handle is
/// dropped before that and has not told it. A handle that is dropped later takes the failure with it.
/// A failing body cancels the children, as in any group. Also called a supervisor.
///
/// # Errors
///
/// As for [`group`].
///
/// # Panics
///
/// As for [`group`].
pub fn isolating_group<T, E>(
    body: impl AsyncFnOnce(Group<E>) -> Result<T, E>,
) -> impl Future<Output = Result<Option<T>, GroupError<E>>>
where
    E: CarriesCancelled + 'static,
{
    run(body, Failures::Stay)
}

/// What the failure of a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failures {
    /// It cancels the group.
    End,
    /// It stays with the child.
    Stay,
}

async fn run<T, E>(
    body: impl AsyncFnOnce(Group<E>) -> Result<T, E>,
    failures: Failures,
) -> Result<Option<T>, GroupError<E>>
where
    E: CarriesCancelled + 'static,
{
    let scope = Scope::new();
    let running = Running::begin(&scope, Kind::Group).expect("a scope of our own is new");
    let open = Open::new(&running, failures);
    let state = Rc::clone(&open.state);
    let handle = open.handle();
    let body = running.body(guarded(called(|| body(handle)))).await;
    let value = match body {
        Ok(Ok(Ok(value))) => Some(value),
        Ok(Ok(Err(error))) => {
            if let Err(payload) = caught(|| state.body_failed(error)) {
                state.body_panicked(payload);
            }
            None
        }
        Ok(Err(payload)) => {
            state.body_panicked(payload);
            None
        }
        Err(misuse) => return Err(GroupError::new(vec![misuse.into()], None)),
    };
    loop {
        let mut waited = false;
        poll_fn(|cx| {
            current::with(|core| {
                running.follow(core)?;
                let polled = running.poll_done(core, cx.waker());
                waited |= polled.is_pending();
                polled.map(Ok)
            })
        })
        .await
        .map_err(|misuse: Cancelled| GroupError::new(vec![misuse.into()], None))?;
        if let Some(daemons) = state.daemons.get() {
            state.end_daemons(daemons).await;
        }
        if !waited {
            // Others have a turn, whatever they are.
            after_others().await;
        }
        if state.is_done() {
            break;
        }
    }
    drop(open);
    state.outcome(value)
}

/// The handle by which tasks are started in a group. A plain value: copy it into the children.
///
/// Once the group has ended it starts nothing: [`JoinError::GroupClosed`].
///
/// A group stays on its core, and so does this:
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// fn check(group: quoit::Group<quoit::Cancelled>) {
///     send(group);
/// }
/// ```
pub struct Group<E> {
    key: Key,
    home: u64,
    /// Neither `Send` nor `Sync`.
    errors: PhantomData<*const E>,
}

impl<E> Clone for Group<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Group<E> {}

impl<E> fmt::Debug for Group<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

impl<E: CarriesCancelled + 'static> Group<E> {
    /// Starts a child: a task of this group, whoever starts it and in whatever scope.
    ///
    /// It is polled at least once, also in a group that is cancelled already; then its first op
    /// fails. Its handle waits for it and cancels it alone; dropped, it does nothing.
    ///
    /// # Panics
    ///
    /// Off a core, and on one that has 2^24 tasks already, or their outputs.
    pub fn spawn<T: 'static>(
        self,
        child: impl Future<Output = Result<T, E>> + 'static,
    ) -> JoinHandle<T, E> {
        self.spawn_as(Role::Child, Begin::InTurn, child)
    }

    /// As [`Group::spawn`], but the child is polled at once, before this returns: one that has its
    /// result at hand, or whose first op can begin now, does not wait for its turn.
    ///
    /// It runs on the caller's stack, and before whatever else is ready: for short beginnings.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub fn spawn_eager<T: 'static>(
        self,
        child: impl Future<Output = Result<T, E>> + 'static,
    ) -> JoinHandle<T, E> {
        self.spawn_as(Role::Child, Begin::AtOnce, child)
    }

    /// Starts a child that serves the others: when they and the body have ended, it is cancelled,
    /// and the group ends after it. If it fails, that is a failure like any other.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub fn spawn_daemon<T: 'static>(
        self,
        child: impl Future<Output = Result<T, E>> + 'static,
    ) -> JoinHandle<T, E> {
        self.spawn_as(Role::Daemon, Begin::InTurn, child)
    }

    fn spawn_as<T: 'static>(
        self,
        role: Role,
        begin: Begin,
        child: impl Future<Output = Result<T, E>> + 'static,
    ) -> JoinHandle<T, E> {
        let Some(state) = self.with(|_, state| Rc::clone(state)) else {
            return JoinHandle::closed();
        };
        let member = boxed_child(Member {
            child: guarded(child),
            group: Rc::clone(&state),
        });
        current::with(|core| {
            let task = match (role, begin) {
                (Role::Daemon, _) => core.spawn_boxed(state.daemons(core), member).0,
                (Role::Child, Begin::InTurn) => core.spawn_new(state.node, member),
                (Role::Child, Begin::AtOnce) => core.spawn_eager(state.node, member),
            };
            JoinHandle::of_child(task, core.identity(), state)
        })
    }

    /// Cancels body and children, with reason [`Reason::Requested`].
    pub fn cancel(self) -> Delivery {
        self.cancel_for(Reason::Requested)
    }

    /// Cancels body and children for this reason, such as a [`Reason::User`].
    pub fn cancel_for(self, reason: Reason) -> Delivery {
        self.if_open(|core, state| {
            if core.cancel(state.node, Cancelled::for_reason(reason), None) {
                Delivery::Delivered
            } else {
                Delivery::AlreadyCancelled
            }
        })
        .unwrap_or(Delivery::Gone)
    }

    /// Returns why the group was cancelled, if it was itself.
    pub fn cancelled(self) -> Option<Cancelled> {
        self.if_open(|core, state| {
            core.see_remote_cancels();
            core.notice_deadline_of(state.node);
            core.tree.borrow().own_cause(state.node)
        })
        .flatten()
    }

    /// Makes the group deaf to cancellation from outside, or no longer: see
    /// [`Scope::set_shielded`].
    pub fn set_shielded(self, shielded: bool) {
        let shield = if shielded { Shield::Full } else { Shield::None };
        self.if_open(|core, state| {
            core.see_remote_cancels();
            core.tree.borrow_mut().set_shield(state.node, shield);
            core.carry_out();
        });
    }

    /// Returns a handle that cancels the group from anywhere; `None` if it has ended.
    pub fn handle(self) -> Option<CancelHandle> {
        self.if_open(|core, state| CancelHandle::new(core, state.node))
    }

    /// Calls `f` with the group, if it has not ended. To be called on a core.
    pub(super) fn with<R>(self, f: impl FnOnce(&Core, &Rc<GroupState<E>>) -> R) -> Option<R> {
        current::with(|core| self.on(core, f))
    }

    /// The same; off a core it may have ended with its own.
    fn if_open<R>(self, f: impl FnOnce(&Core, &Rc<GroupState<E>>) -> R) -> Option<R> {
        current::with_unless_ended(self.home, |core| self.on(core, f)).flatten()
    }

    fn on<R>(self, core: &Core, f: impl FnOnce(&Core, &Rc<GroupState<E>>) -> R) -> Option<R> {
        if core.identity() != self.home {
            return None;
        }
        let state = core.groups.borrow().get(self.key).cloned()?;
        let state = state
            .downcast::<GroupState<E>>()
            .expect("a group has the type of its handle");
        // One that was leaked has ended with the task that had opened it.
        let is_open = core.tree.borrow().has_owner(state.node);
        is_open.then(|| f(core, &state))
    }
}

pin_project! {
    /// A child, which tells its group what it came to.
    struct Member<F, E> {
        #[pin]
        child: Guarded<F>,
        group: Rc<GroupState<E>>,
    }
}

impl<F, T, E> Future for Member<F, E>
where
    F: Future<Output = Result<T, E>>,
    E: CarriesCancelled + 'static,
{
    type Output = Result<T, JoinError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = ready!(this.child.poll(cx));
        if !matches!(outcome, Ok(Err(_))) {
            return Poll::Ready(this.group.child_ended(outcome));
        }
        // An error is foreign code, also where it is asked what it carries.
        let told = caught(|| this.group.child_ended(outcome));
        Poll::Ready(told.unwrap_or_else(|payload| Err(this.group.child_panicked(payload))))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Child,
    Daemon,
}

/// When a task is polled first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// After those that are ready.
    InTurn,
    AtOnce,
}

/// A group that can be found by its handles. Dropped before its end, it cancels its children.
struct Open<E: CarriesCancelled + 'static> {
    key: Key,
    home: u64,
    state: Rc<GroupState<E>>,
}

impl<E: CarriesCancelled + 'static> Open<E> {
    fn new(running: &Running<'_>, failures: Failures) -> Self {
        current::with(|core| {
            let state = Rc::new(GroupState {
                node: running.node(),
                home: core.identity(),
                failures,
                errors: RefCell::default(),
                panics: RefCell::default(),
                passed_on: Cell::new(None),
                stray: Cell::new(None),
                daemons: Cell::new(None),
                has_let_daemons_go: Cell::new(false),
            });
            let erased: Rc<dyn Any> = Rc::<GroupState<E>>::clone(&state);
            Self {
                key: core.groups.borrow_mut().insert(erased),
                home: core.identity(),
                state,
            }
        })
    }

    fn handle(&self) -> Group<E> {
        Group {
            key: self.key,
            home: self.home,
            errors: PhantomData,
        }
    }
}

impl<E: CarriesCancelled + 'static> Drop for Open<E> {
    fn drop(&mut self) {
        current::try_with(|core| {
            if core.identity() != self.home {
                return;
            }
            let state = core.groups.borrow_mut().remove(self.key);
            let daemons = self.state.daemons.take();
            let tree = core.tree.borrow();
            let left = tree.tasks_below(self.state.node)
                + daemons.map_or(0, |daemons| tree.tasks_below(daemons));
            drop(tree);
            if left > 0 {
                core.counters().adopted_groups.add(1);
                // What a cancel from outside has left them, they keep.
                core.cancel_in_grace(self.state.node, Cancelled::new(Reason::Dropped));
            }
            if let Some(daemons) = daemons {
                core.close_node(daemons);
            }
            drop(state);
        });
    }
}

/// What a group and its children share.
pub(crate) struct GroupState<E> {
    pub(super) node: NodeId,
    home: u64,
    failures: Failures,
    /// In the order in which they came, so the cause is first.
    errors: RefCell<Vec<E>>,
    panics: RefCell<Vec<Box<dyn Any + Send>>>,
    /// A cancellation that somebody ended with, and that may not be the group's to take.
    passed_on: Cell<Option<Cancelled>>,
    /// One that the body ended with where nothing was cancelled: it is nobody's here.
    stray: Cell<Option<Cancelled>>,
    /// The node that daemons run under.
    daemons: Cell<Option<NodeId>>,
    /// They were cancelled while nothing around was: that is why they end, whatever is cancelled later.
    has_let_daemons_go: Cell<bool>,
}

impl<E> GroupState<E> {
    /// Takes a failure that nobody has asked the child for.
    pub(crate) fn unclaimed(&self, error: JoinError<E>) {
        match error {
            JoinError::Failed(error) => self.errors.borrow_mut().push(error),
            JoinError::Panicked(payload) => self.panics.borrow_mut().push(payload),
            _ => {}
        }
    }
}

impl<E: CarriesCancelled + 'static> GroupState<E> {
    /// Notes what a child ended with; what its handle will tell comes back.
    pub(super) fn child_ended<T>(
        &self,
        outcome: Result<Result<T, E>, Box<dyn Any + Send>>,
    ) -> Result<T, JoinError<E>> {
        match outcome {
            Ok(Ok(_)) if self.has_abandoned_a_group() => {
                Err(self.child_failed(Cancelled::misuse(Misuse::AbandonedGroup).into()))
            }
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.child_erred(error)),
            Err(payload) => Err(self.child_panicked(payload)),
        }
    }

    /// Notes that a child panicked; what its handle will tell comes back.
    pub(super) fn child_panicked(&self, payload: Box<dyn Any + Send>) -> JoinError<E> {
        if self.failures == Failures::Stay && self.is_awaited() {
            return JoinError::Panicked(payload);
        }
        self.panicked(payload);
        JoinError::Reported
    }

    fn child_erred(&self, error: E) -> JoinError<E> {
        let Some(cancelled) = error.cancelled().filter(|cause| !cause.is_misuse()) else {
            return self.child_failed(error);
        };
        let (told, own) = current::with(|core| {
            core.see_remote_cancels();
            let tree = core.tree.borrow();
            // One without a node is refused what the group is, and was not cancelled itself.
            let task = core.active.opened();
            let is_opened = core.active.polled().is_some();
            // By its own handle, or as a daemon at the end: that is taken here.
            let daemon = self.daemons.get().is_some_and(|node| {
                tree.absorbs(node) || self.has_let_daemons_go.get() && tree.is_within(task, node)
            });
            let (refused, absorbs) = tree.refusal(task);
            let told = refused || tree.is_cancelled_around(task);
            (told, is_opened && absorbs || daemon)
        });
        if !told {
            let stray = Cancelled::misuse(Misuse::Stray).into();
            return self.child_failed(error.rest().unwrap_or(stray));
        }
        if !own {
            self.passed_on.set(self.passed_on.get().or(Some(cancelled)));
        }
        match error.rest() {
            Ok(failure) => self.child_failed(failure),
            Err(_) => JoinError::TaskCancelled(cancelled),
        }
    }

    fn child_failed(&self, error: E) -> JoinError<E> {
        if self.failures == Failures::Stay && self.is_awaited() {
            return JoinError::Failed(error);
        }
        self.failed(error);
        JoinError::Reported
    }

    /// Notes a failure, which ends the group.
    pub(super) fn failed(&self, error: E) {
        self.errors.borrow_mut().push(error);
        self.end();
    }

    /// Notes a panic, which ends the group.
    pub(super) fn panicked(&self, payload: Box<dyn Any + Send>) {
        self.panics.borrow_mut().push(payload);
        self.end();
    }

    fn end(&self) {
        if self.failures == Failures::End {
            self.cancel(Reason::Failure);
        }
    }

    fn cancel(&self, reason: Reason) {
        current::try_with(|core| {
            if core.identity() == self.home {
                core.cancel(self.node, Cancelled::new(reason), None);
            }
        });
    }

    fn body_panicked(&self, payload: Box<dyn Any + Send>) {
        self.panicked(payload);
        // Without its body a group has come to its end, also an isolating one.
        self.cancel(Reason::Failure);
    }

    fn body_failed(&self, error: E) {
        let cancelled = error.cancelled().filter(|cause| !cause.is_misuse());
        let refused = current::with(|core| {
            core.see_remote_cancels();
            core.tree.borrow().is_cancelled(self.node)
        });
        if let Some(cancelled) = cancelled {
            let place = if refused {
                &self.passed_on
            } else {
                &self.stray
            };
            place.set(Some(cancelled));
        }
        let failure = match cancelled {
            Some(_) => error.rest().ok(),
            None => Some(error),
        };
        let is_on_its_way = refused && failure.is_none();
        self.errors.borrow_mut().extend(failure);
        // Also where the failure is a cancellation that is none of ours.
        if is_on_its_way {
            // What has grace to end in order keeps it.
            current::with(|core| {
                core.cancel_in_grace(self.node, Cancelled::new(Reason::Failure));
            });
        } else {
            self.cancel(Reason::Failure);
        }
    }

    /// Returns whether somebody has the handle of the child that ends.
    fn is_awaited(&self) -> bool {
        current::with(|core| {
            core.running
                .get()
                .is_some_and(|task: TaskId| core.tasks.borrow().is_wanted(task))
        })
    }

    /// Returns whether the task that ends has left a group of its own behind.
    pub(super) fn has_abandoned_a_group(&self) -> bool {
        current::with(|core| {
            let task = core.active.polled();
            task.is_some_and(|task| core.tree.borrow().has_group_below(task))
        })
    }

    fn daemons(&self, core: &Core) -> NodeId {
        if let Some(daemons) = self.daemons.get() {
            return daemons;
        }
        let daemons = core
            .tree
            .borrow_mut()
            .open(self.node, Kind::Daemons, Shield::None);
        self.daemons.set(Some(daemons));
        daemons
    }

    /// Cancels the daemons, and waits for their end.
    async fn end_daemons(&self, daemons: NodeId) {
        poll_fn(|cx| {
            current::with(|core| {
                if core.cancel_in_grace(daemons, Cancelled::new(Reason::Finished)) {
                    let is_ours = core.tree.borrow().absorbs(daemons);
                    self.has_let_daemons_go.set(is_ours);
                }
                poll_end(core, daemons, cx.waker())
            })
        })
        .await;
        self.daemons.set(None);
        self.has_let_daemons_go.set(false);
        current::with(|core| core.close_node(daemons));
    }

    fn is_done(&self) -> bool {
        self.daemons.get().is_none()
            && current::with(|core| core.tree.borrow().has_ended_below(self.node))
    }

    fn outcome<T>(&self, value: Option<T>) -> Result<Option<T>, GroupError<E>> {
        let absorbs = current::with(|core| {
            core.see_remote_cancels();
            core.tree.borrow().absorbs(self.node)
        });
        let passed_on = self.passed_on.get().filter(|_| !absorbs);
        let passed_on = self.stray.get().or(passed_on);
        let failed = !self.panics.borrow().is_empty() || !self.errors.borrow().is_empty();
        if !failed && passed_on.is_none() {
            return Ok(value);
        }
        // Nobody gets it. It is dropped before anything unwinds: a panic of its destructor then would end the process.
        // And before all is told: the handles of children that it has may have failures.
        if let Err(payload) = caught(|| drop(value)) {
            self.panics.borrow_mut().push(payload);
        }
        let mut panics = self.panics.take();
        let errors = self.errors.take();
        if panics.is_empty() {
            return Err(GroupError::new(errors, passed_on));
        }
        let first = panics.remove(0);
        if panics.is_empty() && errors.is_empty() {
            resume_unwind(first);
        }
        let others = panics.iter().map(|panic| text_of(&**panic)).collect();
        let failures = errors.len();
        // What is told of in words is dropped before as well.
        panics.into_iter().for_each(discard);
        for error in errors {
            contained(|| drop(error));
        }
        resume_unwind(Box::new(GroupPanic {
            first,
            panics: others,
            failures,
        }))
    }
}

/// All that failed in a group, or in a race.
///
/// It carries a [`Cancelled`] on its way further out, if there was one; the scope that takes it
/// passes the failures on.
pub struct GroupError<E> {
    errors: Vec<E>,
    cancelled: Option<Cancelled>,
}

impl<E> GroupError<E> {
    pub(super) fn new(errors: Vec<E>, cancelled: Option<Cancelled>) -> Self {
        Self { errors, cancelled }
    }

    /// Returns the failures, the cause first; none if it is a cancellation alone.
    pub fn errors(&self) -> &[E] {
        &self.errors
    }

    /// Returns the failures, the cause first.
    pub fn into_errors(self) -> Vec<E> {
        self.errors
    }
}

impl<E> From<Cancelled> for GroupError<E> {
    fn from(cancelled: Cancelled) -> Self {
        Self::new(Vec::new(), Some(cancelled))
    }
}

impl<E: From<TimedOut>> From<TimedOut> for GroupError<E> {
    fn from(late: TimedOut) -> Self {
        Self::new(vec![late.into()], None)
    }
}

impl<E> CarriesCancelled for GroupError<E> {
    fn cancelled(&self) -> Option<Cancelled> {
        self.cancelled
    }

    fn rest(self) -> Result<Self, Self> {
        if self.errors.is_empty() {
            Err(self)
        } else {
            Ok(Self::new(self.errors, None))
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupError")
            .field("errors", &self.errors)
            .field("cancelled", &self.cancelled)
            .finish()
    }
}

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.errors[..], &self.cancelled) {
            ([], Some(cancelled)) => write!(f, "{cancelled}"),
            ([], None) => f.write_str("nothing failed"),
            ([only], _) => write!(f, "{only}"),
            ([first, others @ ..], _) => {
                let plural = if others.len() == 1 { "" } else { "s" };
                write!(f, "{first} (and {} more failure{plural}", others.len())?;
                for other in others {
                    write!(f, "; {other}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for GroupError<E> {}

/// A failure by itself is itself again; several, or with a cancellation, come wrapped.
impl From<GroupError<Self>> for io::Error {
    fn from(mut error: GroupError<Self>) -> Self {
        match (error.errors.len(), error.cancelled) {
            (0, Some(cancelled)) => cancelled.into(),
            (1, None) => error.errors.remove(0),
            _ => Self::other(error),
        }
    }
}

impl From<GroupError<Cancelled>> for io::Error {
    fn from(error: GroupError<Cancelled>) -> Self {
        Cancelled::from(error).into()
    }
}

impl From<GroupError<Self>> for Cancelled {
    fn from(error: GroupError<Self>) -> Self {
        let failure = error.errors.first().copied().or(error.cancelled);
        failure.unwrap_or_else(|| Self::misuse(Misuse::Ended))
    }
}

/// What a group panics with if more than one of its tasks panicked, or others failed as well.
pub struct GroupPanic {
    first: Box<dyn Any + Send>,
    panics: Vec<String>,
    failures: usize,
}

impl GroupPanic {
    /// Returns what the first one panicked with.
    pub fn into_first(self) -> Box<dyn Any + Send> {
        self.first
    }

    /// Returns what the others panicked with, in words.
    pub fn others(&self) -> &[String] {
        &self.panics
    }

    /// Returns how many tasks failed with an error besides.
    pub fn failures(&self) -> usize {
        self.failures
    }
}

impl fmt::Debug for GroupPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupPanic({self})")
    }
}

impl fmt::Display for GroupPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of(&*self.first))?;
        for panic in &self.panics {
            write!(f, "; and another: {panic}")?;
        }
        match self.failures {
            0 => Ok(()),
            1 => f.write_str("; and 1 task failed"),
            count => write!(f, "; and {count} tasks failed"),
        }
    }
}
