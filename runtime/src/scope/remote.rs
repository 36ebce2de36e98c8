//! `on`: a child on another core, cancelled and joined like any child.
//!
//! ```text
//!   caller's core                                the other core
//!   a closure goes into its mailbox     ──►      starts a task, says where its scope is
//!   its scope is cancelled: one relay   ──►      the task's scope is cancelled
//!   the wait ends                       ◄──      the task has ended: output, error or panic
//! ```
//!
//! The two sides share one [`Call`]. The wait is told of a cancel and passes it on, once; only the
//! task's end, or that of its core, ends it. In between neither core does anything.

use std::any::Any;
use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker, ready};

use super::far::Meeting;
use super::park::{self, Look, Park};
use super::running::poll_end;
use super::tree::{NodeId, Purpose, Relay};
use super::{CancelHandle, Cancelled, CarriesCancelled, Misuse, Reason};
use crate::core_state::Core;
use crate::mailbox::closures::{ClosureQueue, Refused, Sender};
use crate::panics::{caught, guarded, text_of};
use crate::runtime::CoreId;
use crate::task::current;
use crate::task::waker::wake_from_anywhere;
use crate::time::Instant;

/// Why a child on another core gave no outcome of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remote {
    /// It panicked, with this in words.
    Panicked(String),
    /// Its core has ended, or did before the child had.
    Gone,
    /// Its core is shutting down, and it was cancelled for that.
    ShuttingDown,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(text) => write!(f, "a task on another core panicked: {text}"),
            Self::Gone => f.write_str("the other core ended before its task had"),
            Self::ShuttingDown => f.write_str("the other core is shutting down"),
        }
    }
}

impl Error for Remote {}

impl From<Remote> for io::Error {
    fn from(remote: Remote) -> Self {
        Self::other(remote)
    }
}

/// Runs a child on a core of this process, and waits for it.
///
/// `make` is called there; the future it makes need not be `Send`. The child is under the caller's
/// scope as if it ran here: a cancel is passed on, once, with the grace that it has; the call ends when
/// the child has, and what it left to its scope; what it returns, fails with or panics with comes back.
/// [`effective_deadline`](crate::effective_deadline) knows there what the deadlines around were when the
/// call began.
///
/// ```
/// use quoit::{CoreId, Handle, on};
///
/// quoit::block_on(async {
///     let here = Handle::current().expect("on a core").cores()[0];
///     let place = on(here, || async { Ok::<_, std::io::Error>(CoreId::current()) }).await;
///     assert_eq!(place.unwrap(), Some(here));
/// })?;
/// # Ok::<_, quoit::BuildError>(())
/// ```
///
/// Waits for room in the other core's mailbox, if that is full. Dropped, it cancels the child, and
/// the scope around waits for its end.
///
/// # Errors
///
/// The child's own; [`Cancelled`], if the caller's scope was cancelled and the child ended with
/// that; [`Remote`], if the child panicked, or its core has ended or shuts down.
///
/// # Panics
///
/// When polled off a core.
pub async fn on<T, E, F>(core: CoreId, make: impl FnOnce() -> F + Send + 'static) -> Result<T, E>
where
    F: Future<Output = Result<T, E>> + 'static,
    T: Send + 'static,
    E: From<Remote> + CarriesCancelled + Send + 'static,
{
    let call = Arc::new(Call::new());
    send(core, Arc::clone(&call), make).await?;
    let mut calling = Calling {
        call,
        relay: None,
        park: Park::new(),
        done: false,
    };
    calling.outcome().await
}

/// Puts the child into the other core's mailbox; as an op, which waits for room.
async fn send<T, E, F>(
    core: CoreId,
    call: Arc<Call<T, E>>,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<(), E>
where
    F: Future<Output = Result<T, E>> + 'static,
    T: Send + 'static,
    E: From<Remote> + CarriesCancelled + Send + 'static,
{
    let target = core.mailbox().ok_or(Remote::Gone)?;
    let far = Far {
        call,
        answered: false,
    };
    let around = current::with(|here| {
        let active = here.active();
        here.tree.borrow().deadlines(active)
    });
    let mut job: Option<crate::mailbox::closures::Job> =
        Some(Box::new(move || start_there(far, around, make)));
    let mut park = Park::new();
    let mut waits = false;
    let mut sender = Sender::new(&target);
    poll_fn(|cx| {
        current::with(|here| {
            if !waits {
                ready!(park::entry(here, cx.waker()))?;
            } else if let Look::Aborted(cancelled) = park.look(here, cx.waker()) {
                return Poll::Ready(Err(cancelled.into()));
            }
            let unsent = job.take().expect("sent once");
            match sender.send_or_wait(unsent, cx.waker()) {
                Ok(()) => {
                    core.rouse();
                    Poll::Ready(Ok(()))
                }
                Err((Refused::Closed, _)) => Poll::Ready(Err(Remote::Gone.into())),
                Err((Refused::Full, unsent)) => {
                    job = unsent;
                    if !waits {
                        waits = true;
                        park.register_memory(here, cx.waker(), Purpose::Remote);
                    }
                    Poll::Pending
                }
            }
        })
    })
    .await
}

/// Starts the child, on its core.
fn start_there<T, E, F>(far: Far<T, E>, around: [Instant; 2], make: impl FnOnce() -> F + 'static)
where
    F: Future<Output = Result<T, E>> + 'static,
    T: Send + 'static,
    E: From<Remote> + CarriesCancelled + Send + 'static,
{
    current::with(|core| {
        let root = core.tree.borrow().root();
        let call = Arc::clone(&far.call);
        let mut far = far;
        let (task, node) = core.spawn_under(root, async move {
            let outcome = guarded(async move { make().await }).await;
            // An error is foreign code, also where it is asked what it carries.
            let outcome = caught(|| named(outcome)).unwrap_or_else(|payload| named(Err(payload)));
            // As a scope would: what was started inside has ended before the call has.
            poll_fn(|cx| current::with(|core| poll_end(core, core.active(), cx.waker()))).await;
            far.answer(Outcome::Ended(outcome));
        });
        let output = core.tasks.borrow_mut().detach(task);
        drop(output);
        core.tree.borrow_mut().set_around(node, around);
        call.scope.arrive(core, node);
    });
}

/// Says in terms of the caller what the child came to.
fn named<T, E>(outcome: Result<Result<T, E>, Box<dyn Any + Send>>) -> Result<T, E>
where
    E: From<Remote> + CarriesCancelled,
{
    let error = match outcome {
        Ok(Ok(_)) if has_leaked_a_group() => {
            return Err(Cancelled::misuse(Misuse::AbandonedGroup).into());
        }
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(payload) => return Err(Remote::Panicked(text_of(&*payload)).into()),
    };
    if error.cancelled().is_none_or(Cancelled::is_misuse) {
        return Err(error);
    }
    let (refused, own) = current::with(|core| {
        core.see_remote_cancels();
        let tree = core.tree.borrow();
        let task = core.active.opened();
        (tree.is_cancelled(task), tree.own_cause(task).is_some())
    });
    if own {
        // On its way to the caller's scope, with all else that the error says.
        return Err(error);
    }
    Err(error.rest().unwrap_or_else(|_| match refused {
        true => Remote::ShuttingDown.into(),
        false => Cancelled::misuse(Misuse::Stray).into(),
    }))
}

/// Returns whether the task that ends here leaves a group behind.
pub(crate) fn has_leaked_a_group() -> bool {
    current::with(|core| {
        let task = core.active();
        core.tree.borrow().has_group_below(task)
    })
}

/// A scope on another core, to be cancelled from here, there or not.
#[derive(Debug)]
pub(crate) struct FarScope(Meeting);

impl FarScope {
    pub(crate) fn new() -> Self {
        Self(Meeting::new())
    }

    /// Cancels it, now or when it begins, with grace until `grace_end`. Only the first call counts.
    pub(crate) fn cancel(&self, reason: Reason, grace_end: Option<Instant>) {
        let why = [reason.to_word(), grace_end.map_or(0, Instant::as_nanos)];
        if let Some(place) = self.0.ask(why)
            && let Some(handle) = CancelHandle::unpack(place)
        {
            send_cancel(handle, why);
        }
    }

    /// It begins, as this node of this core.
    pub(crate) fn arrive(&self, core: &Core, node: NodeId) {
        let handle = CancelHandle::new(core, node);
        if let Some(why) = self.0.arrive(handle.pack()) {
            send_cancel(handle, why);
        }
    }
}

fn send_cancel(handle: CancelHandle, [reason, grace_end]: [u64; 2]) {
    let reason = Reason::from_word(reason);
    match grace_end {
        0 => handle.cancel_for(reason),
        end => handle.cancel_with(reason, Instant::from_nanos(end) - Instant::now()),
    };
}

/// What the two sides share.
struct Call<T, E> {
    scope: FarScope,
    answer: Mutex<Answer<T, E>>,
}

struct Answer<T, E> {
    outcome: Option<Outcome<T, E>>,
    waiter: Option<Waker>,
}

enum Outcome<T, E> {
    Ended(Result<T, E>),
    /// Its core ended first.
    Gone,
}

impl<T, E> Call<T, E> {
    fn new() -> Self {
        Self {
            scope: FarScope::new(),
            answer: Mutex::new(Answer {
                outcome: None,
                waiter: None,
            }),
        }
    }

    /// Held for a few instructions; no foreign code runs meanwhile.
    fn lock(&self) -> MutexGuard<'_, Answer<T, E>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the outcome, or notes whom to wake when it is there.
    fn poll_outcome(&self, waker: &Waker) -> Poll<Outcome<T, E>> {
        let waker = waker.clone();
        let mut answer = self.lock();
        if let Some(outcome) = answer.outcome.take() {
            return Poll::Ready(outcome);
        }
        let stale = answer.waiter.replace(waker);
        drop(answer);
        drop(stale);
        Poll::Pending
    }
}

/// The child's side. Dropped without an answer, it says that its core has gone.
struct Far<T, E> {
    call: Arc<Call<T, E>>,
    answered: bool,
}

impl<T, E> Far<T, E> {
    fn answer(&mut self, outcome: Outcome<T, E>) {
        self.answered = true;
        let mut answer = self.call.lock();
        answer.outcome = Some(outcome);
        let waiter = answer.waiter.take();
        drop(answer);
        if let Some(waiter) = waiter {
            wake_from_anywhere(waiter);
        }
    }
}

impl<T, E> Drop for Far<T, E> {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(Outcome::Gone);
        }
    }
}

/// The caller's side. Dropped before the child's end, it cancels the child and leaves somebody to
/// wait for it.
struct Calling<T: Send + 'static, E: Send + 'static> {
    call: Arc<Call<T, E>>,
    relay: Option<Rc<Passing<T, E>>>,
    park: Park,
    done: bool,
}

/// Passes a cancel of the wait on.
struct Passing<T, E> {
    call: Arc<Call<T, E>>,
    cause: Cell<Option<Cancelled>>,
}

impl<T, E> Relay for Passing<T, E> {
    fn relay(&self, cause: Cancelled, grace_end: Option<Instant>) {
        self.cause.set(Some(cause));
        self.call.scope.cancel(cause.reason(), grace_end);
    }
}

impl<T, E> Calling<T, E>
where
    T: Send + 'static,
    E: From<Remote> + CarriesCancelled + Send + 'static,
{
    async fn outcome(&mut self) -> Result<T, E> {
        let outcome = poll_fn(|cx| {
            current::with(|core| {
                if self.relay.is_none() {
                    let relay = Rc::new(Passing {
                        call: Arc::clone(&self.call),
                        cause: Cell::new(None),
                    });
                    self.relay = Some(Rc::clone(&relay));
                    let purpose = Purpose::Remote;
                    self.park.register_relayed(core, cx.waker(), purpose, relay);
                }
                self.park.look(core, cx.waker());
                self.call.poll_outcome(cx.waker())
            })
        })
        .await;
        self.done = true;
        let cause = self.relay.take().and_then(|relay| relay.cause.get());
        match (outcome, cause) {
            (Outcome::Ended(result), _) => result,
            (Outcome::Gone, Some(cause)) => Err(cause.into()),
            (Outcome::Gone, None) => Err(Remote::Gone.into()),
        }
    }
}

impl<T: Send + 'static, E: Send + 'static> Drop for Calling<T, E> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let grace_end = current::try_with(|core| {
            if !self.park.is_at(core) {
                return None;
            }
            // What a cancel has left it which has yet to be passed on, it keeps.
            core.see_remote_cancels();
            let node = self.park.node(core);
            core.tree.borrow().grace_end(node)
        });
        self.call.scope.cancel(Reason::Dropped, grace_end.flatten());
        current::try_with(|core| {
            if !self.park.is_at(core) {
                return;
            }
            let call = Arc::clone(&self.call);
            let (task, _) = core.spawn_under(self.park.node(core), async move {
                let mut park = Park::new();
                let mut waits = false;
                let unwanted = poll_fn(|cx| {
                    current::with(|core| {
                        if !std::mem::replace(&mut waits, true) {
                            park.register_deaf(core, cx.waker(), Purpose::Remote);
                        }
                        park.look(core, cx.waker());
                    });
                    call.poll_outcome(cx.waker())
                })
                .await;
                drop(unwanted);
            });
            let output = core.tasks.borrow_mut().detach(task);
            drop(output);
        });
    }
}

impl CoreId {
    pub(crate) fn mailbox(self) -> Option<Arc<ClosureQueue>> {
        self.shared()?.mailbox(self.incarnation())
    }

    pub(crate) fn rouse(self) {
        if let Some(shared) = self.shared() {
            shared.rouse();
        }
    }
}
