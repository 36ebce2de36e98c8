//! `Group::start`: a child that tells when it is ready.
//!
//! ```text
//!   under the caller's scope ──► it reports ──► moved under the group; the caller has the value
//!            │ it ends first: so does `start`, with its failure
//! ```
//!
//! The call has a node of its own, with the child below: it goes to whatever scope polls the call, and out of one that
//! ends before the call does.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::task::Poll;

use super::park::{Look, Park};
use super::tree::{Kind, NodeId, ParkId, Purpose, Shield};
use super::{Cancelled, CarriesCancelled, Group, GroupState, Misuse, Reason};
use crate::core_state::Core;
use crate::panics::{called, caught, contained, guarded};
use crate::task::current;

impl<E: CarriesCancelled + 'static> Group<E> {
    /// Starts a child and waits until it says that it has started; returns what it says.
    ///
    /// Until then the child runs under the caller's scope, and what it fails with is this call's
    /// failure, not the group's. By [reporting](Started::report) it becomes a child of the group
    /// like any other. A call that waits holds the group open.
    ///
    /// ```
    /// use quoit::{Cancelled, group, time::sleep};
    /// use std::time::Duration;
    ///
    /// quoit::block_on(async {
    ///     let told = group(async |g| {
    ///         let told = g.start(async |started| {
    ///             started.report(8080).expect("once");
    ///             sleep(Duration::from_millis(1)).await?;
    ///             Ok::<_, Cancelled>(())
    ///         });
    ///         Ok(told.await.expect("it reports"))
    ///     });
    ///     assert_eq!(told.await.unwrap(), Some(8080));
    /// })?;
    /// # Ok::<_, quoit::BuildError>(())
    /// ```
    ///
    /// This is no op of its own: a cancel reaches the child, and the call ends when the child does.
    /// Dropped before that, it cancels the child; what that fails with, or has failed with when the
    /// call had yet to tell, the group tells. If the caller's scope is cancelled when the child
    /// reports, the child stays where it is, and the call ends with it. If the group was dropped
    /// meanwhile, the child is cancelled when it reports, and the caller's scope waits for its end.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the child failed, or ended without a report; the group had ended.
    ///
    /// # Panics
    ///
    /// If the child panicked before it had reported: with what that panicked with. Off a core.
    pub async fn start<V, T>(
        self,
        child: impl AsyncFnOnce(Started<V>) -> Result<T, E> + 'static,
    ) -> Result<V, StartError<E>>
    where
        V: 'static,
        T: 'static,
    {
        let Some(starting) = self.with(|core, group| Starting::begin(core, group, child)) else {
            return Err(StartError::GroupClosed);
        };
        starting.wait().await;
        let shared = &starting.shared;
        match (shared.ended.take(), shared.value.take()) {
            (Some(Ended::Failed(error)), _) => Err(StartError::Failed(error)),
            (Some(Ended::Panicked(payload)), value) => {
                // A panic of its destructor, while another goes on, would end the process.
                contained(|| drop(value));
                resume_unwind(payload)
            }
            (Some(Ended::Well) | None, Some(value)) => Ok(value),
            (Some(Ended::Well) | None, None) => Err(StartError::NotStarted),
        }
    }
}

/// By this a child says that it has started: see [`Group::start`].
pub struct Started<V> {
    report: Rc<dyn Report<V>>,
}

impl<V> fmt::Debug for Started<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

impl<V> Started<V> {
    /// Reports; once.
    ///
    /// # Errors
    ///
    /// [`AlreadyStarted`] with the value, if it has been said before.
    pub fn report(&self, value: V) -> Result<(), AlreadyStarted<V>> {
        self.report.report(value)
    }
}

/// A child reported twice that it has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadyStarted<V>(pub V);

impl<V> fmt::Display for AlreadyStarted<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a child reports once that it has started")
    }
}

impl<V: fmt::Debug> Error for AlreadyStarted<V> {}

/// Why a child has not started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError<E> {
    /// It failed with this before it had reported; a [`Cancelled`] of the caller's scope included.
    Failed(E),
    /// It ended well, and never reported.
    NotStarted,
    /// The group had ended; the child was dropped without having run.
    GroupClosed,
}

impl<E: fmt::Display> fmt::Display for StartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::NotStarted => {
                f.write_str("the child ended without reporting that it had started")
            }
            Self::GroupClosed => f.write_str("the group had ended: it takes no more tasks"),
        }
    }
}

/// Without a source: what the child failed with is what this says. So `E` may be a boxed error, which
/// is no `Error` itself.
impl<E: fmt::Debug + fmt::Display> Error for StartError<E> {}

impl<E: From<Cancelled>> From<Cancelled> for StartError<E> {
    fn from(cancelled: Cancelled) -> Self {
        Self::Failed(cancelled.into())
    }
}

impl<E: CarriesCancelled> CarriesCancelled for StartError<E> {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Failed(error) => error.cancelled(),
            Self::NotStarted | Self::GroupClosed => None,
        }
    }

    fn rest(self) -> Result<Self, Self> {
        match self {
            Self::Failed(error) => error.rest().map(Self::Failed).map_err(Self::Failed),
            other => Ok(other),
        }
    }
}

impl From<StartError<Self>> for io::Error {
    fn from(error: StartError<Self>) -> Self {
        match error {
            StartError::Failed(error) => error,
            other => Self::other(other.to_string()),
        }
    }
}

impl From<StartError<Cancelled>> for io::Error {
    fn from(error: StartError<Cancelled>) -> Self {
        match error {
            StartError::Failed(cancelled) => cancelled.into(),
            other => Self::other(other.to_string()),
        }
    }
}

/// A call that waits for its child. Dropped, it lets the group end; and cancels a child that has not
/// started.
struct Starting<V, E: CarriesCancelled + 'static> {
    shared: Rc<Shared<V, E>>,
    /// The call's node, and the scope that it was last polled under.
    node: NodeId,
    caller: Cell<NodeId>,
}

/// What the call and the child share.
struct Shared<V, E> {
    group: Rc<GroupState<E>>,
    home: u64,
    /// The child's node, once it is made.
    child: Cell<Option<NodeId>>,
    value: RefCell<Option<V>>,
    ended: RefCell<Option<Ended<E>>>,
    stage: Cell<Stage>,
    waiter: Cell<Option<ParkId>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It runs under the caller's scope.
    Starting,
    /// It has reported, and stays there all the same: that was cancelled.
    Ignored,
    /// It is a child of the group.
    Moved,
    /// The call has been dropped.
    Unwanted,
}

enum Ended<E> {
    Well,
    Failed(E),
    Panicked(Box<dyn Any + Send>),
}

impl<V: 'static, E: CarriesCancelled + 'static> Starting<V, E> {
    fn begin<T: 'static>(
        core: &Core,
        group: &Rc<GroupState<E>>,
        child: impl AsyncFnOnce(Started<V>) -> Result<T, E> + 'static,
    ) -> Self {
        let shared = Rc::new(Shared {
            group: Rc::clone(group),
            home: core.identity(),
            child: Cell::new(None),
            value: RefCell::new(None),
            ended: RefCell::new(None),
            stage: Cell::new(Stage::Starting),
            waiter: Cell::new(None),
        });
        let inside = Rc::clone(&shared);
        let caller = core.active();
        let call = core
            .tree
            .borrow_mut()
            .open(caller, Kind::Start, Shield::None);
        let (task, node) = core.spawn_under(call, async move {
            let started = Started {
                report: Rc::<Shared<V, E>>::clone(&inside) as Rc<dyn Report<V>>,
            };
            let outcome = guarded(called(|| child(started))).await;
            // An error is foreign code, also where it is asked what it carries.
            if let Err(payload) = caught(|| inside.child_ended(outcome)) {
                inside.child_ended::<T>(Err(payload));
            }
        });
        core.tree.borrow_mut().promise(group.node);
        shared.child.set(Some(node));
        // Nobody joins it, and its output is nothing.
        let output = core.tasks.borrow_mut().detach(task);
        drop(output);
        Self {
            shared,
            node: call,
            caller: Cell::new(caller),
        }
    }

    /// Waits until the child has reported or ended.
    async fn wait(&self) {
        let shared = &self.shared;
        let mut park = Park::new();
        let mut waits = false;
        poll_fn(|cx| {
            if shared.stage.get() == Stage::Moved || shared.ended.borrow().is_some() {
                return Poll::Ready(());
            }
            current::with(|core| {
                if !waits {
                    waits = true;
                    park.register_deaf(core, cx.waker(), Purpose::Start);
                    shared.waiter.set(park.id(core));
                }
                match park.look(core, cx.waker()) {
                    Look::Ready => Poll::Ready(()),
                    Look::Waiting | Look::Aborted(_) => {
                        self.follow(core);
                        Poll::Pending
                    }
                }
            })
        })
        .await;
        shared.waiter.set(None);
    }

    /// Follows the scope that the call is polled under, as a parked op does.
    fn follow(&self, core: &Core) {
        let caller = core.active();
        if self.caller.replace(caller) != caller {
            core.tree.borrow_mut().move_under(self.node, caller);
            core.carry_out();
        }
    }
}

impl<V, E: CarriesCancelled + 'static> Drop for Starting<V, E> {
    fn drop(&mut self) {
        let shared = &self.shared;
        let home = shared.home;
        shared.waiter.set(None);
        let ended = shared.ended.try_borrow_mut();
        let untold = ended.ok().and_then(|mut ended| ended.take());
        // Where the call has told how it ended, its child has no node that could be cancelled.
        let unfinished = shared.stage.get() != Stage::Moved && untold.is_none();
        if unfinished {
            shared.stage.set(Stage::Unwanted);
        }
        current::try_with(|core| {
            if core.identity() != home {
                return;
            }
            if let Some(untold) = untold {
                shared.tell_group_after_all(untold);
            }
            if let Some(child) = shared.child.get().filter(|_| unfinished) {
                core.cancel_in_grace(child, Cancelled::new(Reason::Dropped));
            }
            core.tree.borrow_mut().unpromise(shared.group.node);
            core.carry_out();
            core.close_node(self.node);
        });
    }
}

impl<V, E: CarriesCancelled + 'static> Shared<V, E> {
    fn child_ended<T>(&self, outcome: Result<Result<T, E>, Box<dyn Any + Send>>) {
        match self.stage.get() {
            Stage::Moved => self.tell_group(outcome),
            Stage::Unwanted => {
                // It was cancelled where it ran, which is none of the group's.
                let outcome = match outcome {
                    Ok(Err(error)) if is_on_its_way_out(&error) => match error.rest() {
                        Ok(failure) => Ok(Err(failure)),
                        Err(_) => return,
                    },
                    other => other,
                };
                self.tell_group(outcome);
            }
            Stage::Starting | Stage::Ignored => {
                let ended = match outcome {
                    Ok(Ok(_)) if self.group.has_abandoned_a_group() => {
                        Ended::Failed(Cancelled::misuse(Misuse::AbandonedGroup).into())
                    }
                    Ok(Ok(_)) => Ended::Well,
                    Ok(Err(error)) => Ended::Failed(self.named(error)),
                    Err(payload) => Ended::Panicked(payload),
                };
                self.ended.replace(Some(ended));
                self.tell();
            }
        }
    }

    fn tell_group<T>(&self, outcome: Result<Result<T, E>, Box<dyn Any + Send>>) {
        // What it says to a handle, it says to nobody.
        let told = self.group.child_ended(outcome);
        if let Err(error) = told {
            self.group.unclaimed(error);
        }
    }

    /// The call is dropped, and has not told what the child failed with.
    fn tell_group_after_all(&self, ended: Ended<E>) {
        let failed = match ended {
            Ended::Well => return,
            // Foreign code, as above.
            Ended::Failed(error) => caught(|| match error.cancelled() {
                Some(cause) if !cause.is_misuse() => error.rest().ok(),
                _ => Some(error),
            }),
            Ended::Panicked(payload) => Err(payload),
        };
        match failed {
            Ok(Some(failure)) => self.group.failed(failure),
            Ok(None) => {}
            Err(payload) => self.group.panicked(payload),
        }
    }

    /// A cancellation from nowhere is a failure.
    fn named(&self, error: E) -> E {
        let cancelled = error.cancelled().is_some_and(|cause| !cause.is_misuse());
        if cancelled && !is_on_its_way_out(&error) {
            error
                .rest()
                .unwrap_or_else(|_| Cancelled::misuse(Misuse::Stray).into())
        } else {
            error
        }
    }

    fn tell(&self) {
        if let Some(waiter) = self.waiter.take() {
            current::with(|core| core.complete(waiter));
        }
    }
}

/// Returns whether an error that the running child ends with carries a cancellation that it was meant
/// for.
fn is_on_its_way_out<E: CarriesCancelled>(error: &E) -> bool {
    error.cancelled().is_some_and(|cause| !cause.is_misuse())
        && current::with(|core| {
            core.see_remote_cancels();
            core.tree.borrow().is_cancelled_around(core.active.opened())
        })
}

/// A report, whatever the errors of the group are.
trait Report<V> {
    fn report(&self, value: V) -> Result<(), AlreadyStarted<V>>;
}

impl<V, E: CarriesCancelled + 'static> Report<V> for Shared<V, E> {
    fn report(&self, value: V) -> Result<(), AlreadyStarted<V>> {
        let is_second = match self.stage.get() {
            Stage::Moved | Stage::Ignored => true,
            // Nobody takes the value of the first one.
            Stage::Starting | Stage::Unwanted => self.value.borrow().is_some(),
        };
        if is_second {
            return Err(AlreadyStarted(value));
        }
        self.value.replace(Some(value));
        let child = self.child.get().expect("a child runs after it was made");
        let stays = self.stage.get() == Stage::Unwanted
            || current::with(|core| {
                core.see_remote_cancels();
                core.tree.borrow().is_cancelled(child)
            });
        if stays {
            if self.stage.get() == Stage::Starting {
                self.stage.set(Stage::Ignored);
            }
            return Ok(());
        }
        self.stage.set(Stage::Moved);
        current::with(|core| {
            let group = self.group.node;
            let is_open = core.tree.borrow().has_owner(group);
            if is_open {
                core.tree.borrow_mut().move_under(child, group);
                core.carry_out();
            } else {
                // The group was dropped: as its other children were.
                core.cancel_in_grace(child, Cancelled::new(Reason::Dropped));
            }
        });
        self.tell();
        Ok(())
    }
}
