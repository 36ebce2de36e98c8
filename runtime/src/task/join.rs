//! `JoinHandle`: waits for a task's end and takes its output.

use std::any::Any;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::cell::TaskEnd;
use super::memory::TaskBox;
use super::table::Unwaited;
use super::{TaskId, current};
use crate::core_state::Core;
use crate::panics::text_of;
use crate::scope::park::{self, Look};
use crate::scope::tree::{NodeId, Purpose};
use crate::scope::{CancelHandle, Cancelled, GroupState, Reason};

/// Waits for a task on the same core, and gives its output.
///
/// Dropping the handle does nothing to the task. Awaiting it is an op like any other: in a
/// cancelled scope it fails with [`JoinError::Cancelled`], and the task goes on.
///
/// `E` is the error of the group that a task belongs to; a task of [`spawn`](crate::spawn) has none.
pub struct JoinHandle<T: 'static, E: 'static = Infallible> {
    task: TaskId,
    /// The core of the task, or [`TAKEN`], or [`NOWHERE`].
    home: u64,
    /// Of a child, whose output is a `Result<T, JoinError<E>>`; that of others is a `T`.
    group: Option<Rc<GroupState<E>>>,
    output: PhantomData<fn() -> T>,
}

/// Handles are moved about: they are small. The wait of one is noted with its task.
#[cfg(not(random_layout))]
const _: () = assert!(size_of::<Option<JoinHandle<String>>>() <= 24);

/// In place of a core, which has no such number: the output has been given.
const TAKEN: u64 = u64::MAX;

/// The same: there is no task, since its group had ended.
const NOWHERE: u64 = u64::MAX - 1;

/// Why a task gave no output.
#[non_exhaustive]
pub enum JoinError<E = Infallible> {
    /// The task panicked, and this is what it panicked with.
    Panicked(Box<dyn Any + Send>),
    /// It failed with this: a child of an [isolating group](crate::isolating_group).
    Failed(E),
    /// It failed or panicked, and its group tells of it when it ends.
    Reported,
    /// It was cancelled: a child of a group that ended with this. To whoever joins it, that is an
    /// error like any other.
    TaskCancelled(Cancelled),
    /// The runtime shut down and dropped the task before it had ended.
    Dropped,
    /// It left a group behind, leaked; its output is gone with it. Not of a child of a group: that has failed with
    /// [`Misuse::AbandonedGroup`](crate::Misuse::AbandonedGroup), or with a failure of its own.
    AbandonedGroup,
    /// Its group had ended before; it was dropped without having run.
    GroupClosed,
    /// It was the wait that was cancelled; the task goes on.
    Cancelled(Cancelled),
}

impl<E> JoinError<E> {
    /// Goes on with the task's panic on this side.
    ///
    /// # Panics
    ///
    /// With what the task panicked with; or, if it did not, with the error's text.
    pub fn resume(self) -> !
    where
        E: fmt::Display,
    {
        match self {
            Self::Panicked(payload) => resume_unwind(payload),
            other => panic!("{other}"),
        }
    }
}

impl<E: fmt::Display> fmt::Debug for JoinError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl<E: fmt::Display> fmt::Display for JoinError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(payload) => write!(f, "the task panicked: {}", text_of(&**payload)),
            Self::Failed(error) => write!(f, "the task failed: {error}"),
            Self::Reported => f.write_str("the task failed, and its group tells how"),
            Self::TaskCancelled(cancelled) => write!(f, "the task was {cancelled}"),
            Self::Dropped => f.write_str("the runtime shut down before the task had ended"),
            Self::AbandonedGroup => f.write_str(
                "the task ended while a group that it had opened was there: it was leaked",
            ),
            Self::GroupClosed => f.write_str("the group had ended: it takes no more tasks"),
            Self::Cancelled(cancelled) => write!(f, "waiting for the task was {cancelled}"),
        }
    }
}

impl<E: Error + 'static> Error for JoinError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cancelled(cancelled) => Some(cancelled),
            Self::Failed(error) => Some(error),
            // Not that of the task: who looks for a cancellation of the joiner's finds none.
            _ => None,
        }
    }
}

impl<E> From<Cancelled> for JoinError<E> {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

/// It carries the cancellation of the wait alone: that of the task is none of the joiner's.
impl<E> crate::CarriesCancelled for JoinError<E> {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Cancelled(cancelled) => Some(*cancelled),
            _ => None,
        }
    }
}

/// A failure that is an `io::Error` is itself again.
impl<E: fmt::Display + 'static> From<JoinError<E>> for io::Error {
    fn from(error: JoinError<E>) -> Self {
        match error {
            JoinError::Cancelled(cancelled) => cancelled.into(),
            JoinError::Failed(failure) => {
                let text = failure.to_string();
                let failure: Box<dyn Any> = Box::new(failure);
                match failure.downcast::<Self>() {
                    Ok(failure) => *failure,
                    Err(_) => Self::other(text),
                }
            }
            other => Self::other(other.to_string()),
        }
    }
}

impl<T, E> fmt::Debug for JoinHandle<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}

impl<T: 'static> JoinHandle<T> {
    pub(crate) fn new(task: TaskId, home: u64) -> Self {
        Self::made(task, home, None)
    }
}

impl<T: 'static, E: 'static> JoinHandle<T, E> {
    pub(crate) fn of_child(task: TaskId, home: u64, group: Rc<GroupState<E>>) -> Self {
        Self::made(task, home, Some(group))
    }

    /// Makes the handle of a task that was not started.
    pub(crate) fn closed() -> Self {
        Self::made(TaskId::FIRST, NOWHERE, None)
    }

    #[inline]
    fn made(task: TaskId, home: u64, group: Option<Rc<GroupState<E>>>) -> Self {
        Self {
            task,
            home,
            group,
            output: PhantomData,
        }
    }

    /// Returns the node of the task, if it has not ended.
    fn node(&self, core: &Core) -> Option<NodeId> {
        let is_here = core.identity() == self.home;
        is_here.then(|| core.node_of(self.task))?
    }

    /// Returns whether the task has ended.
    pub fn is_finished(&self) -> bool {
        let has_ended =
            |core: &Core| core.identity() != self.home || core.tasks.borrow().has_ended(self.task);
        self.home == NOWHERE || current::with_unless_ended(self.home, has_ended).unwrap_or(true)
    }

    /// Takes the output of a task that has ended; `None` if it has not. As with an await, it is given once.
    ///
    /// This waits for nothing, so it is no op: it is not refused in a cancelled scope.
    ///
    /// ```
    /// use quoit::{Cancelled, group};
    ///
    /// quoit::block_on(async {
    ///     let sum = group(async |g| {
    ///         let mut at_once = g.spawn_eager(async { Ok::<_, Cancelled>(20) });
    ///         let mut in_turn = g.spawn(async { Ok(22) });
    ///         let twenty = at_once.try_join().expect("it was polled").unwrap();
    ///         assert!(in_turn.try_join().is_none(), "its turn has not come");
    ///         Ok(twenty + in_turn.await.unwrap())
    ///     });
    ///     assert_eq!(sum.await.unwrap(), Some(42));
    /// })?;
    /// # Ok::<_, quoit::BuildError>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If the output was given before. Off a core.
    pub fn try_join(&mut self) -> Option<Result<T, JoinError<E>>> {
        if self.home == NOWHERE {
            return Some(Err(JoinError::GroupClosed));
        }
        self.assert_not_taken();
        current::with(|core| match self.look(core) {
            Poll::Ready(told) => Some(told),
            Poll::Pending => None,
        })
    }

    fn assert_not_taken(&self) {
        assert!(
            self.home != TAKEN,
            "a join handle was asked after it had given its output"
        );
    }

    /// Looks whether the task has ended, and takes its output then.
    #[inline(always)]
    fn look(&mut self, core: &Core) -> Poll<Result<T, JoinError<E>>> {
        if core.identity() != self.home {
            self.home = TAKEN;
            return Poll::Ready(Err(JoinError::Dropped));
        }
        let mut tasks = core.tasks.borrow_mut();
        let (object, joiner) = ready!(tasks.take_ended(self.task));
        drop(tasks);
        self.home = TAKEN;
        if let Some(park) = joiner {
            park::end(core, park);
        }
        Poll::Ready(self.told(object))
    }

    /// Registers the wait for the end.
    fn wait(&self, core: &Core, waker: &Waker) {
        let park = park::register(core, waker, Purpose::Join);
        core.tasks.borrow_mut().set_joiner(self.task, Some(park));
    }

    /// Returns the output of a task that has ended; there is none, if the end of the core has dropped it.
    #[inline(always)]
    fn told(&self, object: Option<TaskBox>) -> Result<T, JoinError<E>> {
        match object {
            Some(object) => self.output(object),
            None => Err(JoinError::Dropped),
        }
    }

    /// Cancels the task alone, with reason [`Reason::Requested`]: its ops fail from now on. It ends
    /// as it sees fit, and can still be joined. One that has ended is not touched.
    pub fn cancel(&self) {
        self.cancel_for(Reason::Requested);
    }

    /// As [`JoinHandle::cancel`], for this reason.
    pub fn cancel_for(&self, reason: Reason) {
        current::with_unless_ended(self.home, |core| {
            if let Some(node) = self.node(core) {
                core.cancel(node, Cancelled::for_reason(reason), None);
            }
        });
    }

    /// Returns a handle that cancels the task from anywhere; `None` if it has ended.
    pub fn cancel_handle(&self) -> Option<CancelHandle> {
        current::with_unless_ended(self.home, |core| {
            let node = self.node(core)?;
            Some(CancelHandle::new(core, node))
        })
        .flatten()
    }

    /// Takes the output out of a task that has ended.
    #[inline(always)]
    fn output(&self, mut object: TaskBox) -> Result<T, JoinError<E>> {
        let output = object.as_mut().output();
        let told = match &self.group {
            None => output
                .downcast_mut::<Option<Result<T, TaskEnd>>>()
                .expect("a handle has the type of its task's output")
                .take()
                .map(|ended| ended.map(Ok)),
            Some(_) => output
                .downcast_mut::<Option<Result<Result<T, JoinError<E>>, TaskEnd>>>()
                .expect("a handle has the type of its task's output")
                .take(),
        };
        object.leave();
        match told.expect("an output is taken once") {
            Ok(output) => output,
            Err(TaskEnd::Panicked(payload)) => Err(JoinError::Panicked(payload)),
            Err(TaskEnd::Dropped) => Err(JoinError::Dropped),
            Err(TaskEnd::AbandonedGroup) => Err(JoinError::AbandonedGroup),
        }
    }
}

impl<T, E> Unpin for JoinHandle<T, E> {}

impl<T: 'static, E: 'static> Future for JoinHandle<T, E> {
    type Output = Result<T, JoinError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.home == NOWHERE {
            return Poll::Ready(Err(JoinError::GroupClosed));
        }
        self.assert_not_taken();
        current::with(|core| {
            if core.identity() != self.home {
                self.home = TAKEN;
                return Poll::Ready(Err(JoinError::Dropped));
            }
            core.see_remote_cancels();
            let refuses = core.refuses(core.active.opened());
            let mut tasks = core.tasks.borrow_mut();
            let joiner = if refuses {
                tasks.joiner(self.task)
            } else {
                // As mostly: then it is seen at a glance whether the task has ended and nobody waits for that.
                match tasks.take_unwaited(self.task) {
                    Unwaited::Ended(object) => {
                        drop(tasks);
                        self.home = TAKEN;
                        return Poll::Ready(self.told(object));
                    }
                    Unwaited::Runs => {
                        drop(tasks);
                        self.wait(core, cx.waker());
                        return Poll::Pending;
                    }
                    Unwaited::Waited(park) => Some(park),
                }
            };
            drop(tasks);
            if let Some(park) = joiner {
                match park::look_at(core, park, cx.waker()) {
                    // Spurious, or the end came without a word to this park.
                    Look::Waiting | Look::Ready => {}
                    Look::Aborted(cancelled) => {
                        core.tasks.borrow_mut().set_joiner(self.task, None);
                        park::end(core, park);
                        return Poll::Ready(Err(cancelled.into()));
                    }
                }
            } else if let Err(cancelled) = ready!(park::entry(core, cx.waker())) {
                return Poll::Ready(Err(cancelled.into()));
            }
            if let Poll::Ready(told) = self.look(core) {
                return Poll::Ready(told);
            }
            if joiner.is_none() {
                self.wait(core, cx.waker());
            }
            Poll::Pending
        })
    }
}

impl<T: 'static, E: 'static> Drop for JoinHandle<T, E> {
    #[inline]
    fn drop(&mut self) {
        if self.home != TAKEN && self.home != NOWHERE {
            self.detach();
        }
    }
}

impl<T: 'static, E: 'static> JoinHandle<T, E> {
    /// Lets the task go on without a handle.
    #[inline(never)]
    fn detach(&mut self) {
        let object = current::try_with(|core| {
            if core.identity() != self.home {
                return None;
            }
            core.detach(self.task)
        });
        let Some(object) = object.flatten() else {
            return;
        };
        match &self.group {
            // What it failed with is not lost: the group tells it.
            Some(group) => {
                if let Err(error) = self.output(object) {
                    group.unclaimed(error);
                }
            }
            None => drop(object),
        }
    }
}
