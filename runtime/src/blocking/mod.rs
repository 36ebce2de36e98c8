//! Work that cannot wait politely, on threads of its own.
//!
//! A core that blocks lets all its tasks wait. What has to block, such as a system call without an
//! op or a long computation, is handed as a *job* to one of a bounded number of threads, which all
//! cores of a runtime share ([`Builder::blocking_threads`](crate::Builder::blocking_threads)).
//!
//! ```text
//!            submit              taken by a thread           returns or panics
//!   (none) ─────────► in line ───────────────────► running ───────────────────► result
//!                        │                            │
//!                 cancel │ never run, dropped         │ cancel
//!                        ▼                            ├─ `run`: it is told, and waited for
//!                    Cancelled                        └─ `run_abandonable`: Cancelled, it runs on
//! ```
//!
//! Invariants:
//! - A closure is run once or dropped once; a result is handed over once or dropped once.
//! - A waiter is woken by its job's thread, or by the cancel that ends its wait: once.
//! - Threads share nothing of a core's but its inbox.
//!
//! In reading order: here is what a task calls and how it waits, in `context` what the job sees, in
//! `threads` who runs it, in `hand_over` how its result comes back.

mod context;
mod hand_over;
pub(crate) mod threads;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker, ready};

pub use context::JobContext;

use crate::core_state::Core;
use crate::panics::{caught, contained, discard, text_of};
use crate::scope::park::{self, Park};
use crate::scope::tree::{Purpose, Relay};
use crate::scope::{Cancelled, CarriesCancelled, Reason};
use crate::task::current;
use crate::time::Instant;
use hand_over::{Given, HandOver, Left};
use threads::{Pool, Ticket, Work};

/// Runs a job on a thread that may block, and waits for its end.
///
/// A cancel before a thread has taken the job ends the wait: the closure is dropped unrun. A job that
/// runs is not interrupted, nor given up: it is told ([`JobContext::check_cancelled`]), its result is
/// returned, and the next op fails. To wait no longer than the scope allows, see [`run_abandonable`].
///
/// ```
/// use quoit::blocking;
///
/// quoit::block_on(async {
///     let sum = blocking::run(|_| (1..=1_000_000_u64).sum::<u64>()).await;
///     assert_eq!(sum.unwrap(), 500_000_500_000);
/// })?;
/// # Ok::<_, quoit::BuildError>(())
/// ```
///
/// Dropped before the end, this takes the job out of the line; or tells it, if it runs, and the
/// scope around waits for its end. At the end of a runtime's grace period it is waited for no more.
///
/// A job that waits for another one, or for a task that does, needs a thread for both.
///
/// # Errors
///
/// [`JobError::Cancelled`]: the closure was not run. [`JobError::Panicked`]. [`JobError::NoThread`].
///
/// # Panics
///
/// When polled off a core.
pub async fn run<T, F>(job: F) -> Result<T, JobError>
where
    F: FnOnce(&JobContext) -> T + Send + 'static,
    T: Send + 'static,
{
    wait_for(job, false).await
}

/// As [`run`], for a job whose result nobody needs who is cancelled: a cancel ends the wait at once.
///
/// The thread runs on, detached, and the job is told. It occupies its thread until it ends. Its
/// result, or what it panics with, is dropped there. The same happens when this is dropped while the
/// job runs.
///
/// # Errors
///
/// [`JobError::Cancelled`]: the closure was not run, or nobody waits for it any more. A result that
/// was there before the cancel is returned. [`JobError::Panicked`]. [`JobError::NoThread`].
///
/// # Panics
///
/// When polled off a core.
pub async fn run_abandonable<T, F>(job: F) -> Result<T, JobError>
where
    F: FnOnce(&JobContext) -> T + Send + 'static,
    T: Send + 'static,
{
    wait_for(job, true).await
}

/// Why a job gave no output.
#[non_exhaustive]
pub enum JobError {
    /// The wait was cancelled before the job was taken by a thread: it was dropped unrun. Or, if it
    /// may be abandoned, while it ran.
    Cancelled(Cancelled),
    /// The job panicked, and this is what it panicked with.
    Panicked(Box<dyn Any + Send>),
    /// No thread could be started, and there was none: the job was dropped unrun.
    NoThread(io::Error),
}

impl JobError {
    /// Goes on with the job's panic on this side.
    ///
    /// # Panics
    ///
    /// With what the job panicked with; or, if it did not, with the error's text.
    pub fn resume(self) -> ! {
        match self {
            Self::Panicked(payload) => resume_unwind(payload),
            other => panic!("{other}"),
        }
    }
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobError({self})")
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(cancelled) => write!(f, "waiting for the job was {cancelled}"),
            Self::Panicked(payload) => write!(f, "the job panicked: {}", text_of(&**payload)),
            Self::NoThread(error) => write!(f, "no thread could be started for the job: {error}"),
        }
    }
}

impl Error for JobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cancelled(cancelled) => Some(cancelled),
            Self::NoThread(error) => Some(error),
            Self::Panicked(_) => None,
        }
    }
}

impl From<Cancelled> for JobError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl CarriesCancelled for JobError {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Cancelled(cancelled) => Some(*cancelled),
            Self::Panicked(_) | Self::NoThread(_) => None,
        }
    }

    fn rest(self) -> Result<Self, Self> {
        if self.cancelled().is_some() {
            Err(self)
        } else {
            Ok(self)
        }
    }
}

impl From<JobError> for io::Error {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Cancelled(cancelled) => cancelled.into(),
            JobError::NoThread(error) => error,
            JobError::Panicked(_) => Self::other(error.to_string()),
        }
    }
}

/// How much of a runtime's threads for jobs is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Threads that live.
    pub threads: usize,
    /// Of these, threads that have a job: also one that nobody waits for any more.
    pub busy: usize,
    /// Jobs that wait for a thread.
    pub queued: usize,
}

/// What the task that waits and the job share.
struct Shared<T> {
    context: JobContext,
    place: HandOver<Outcome<T>>,
}

enum Outcome<T> {
    Returned(T),
    Panicked(Box<dyn Any + Send>),
    /// The closure was dropped.
    Unrun,
    NoThread(io::Error),
}

impl<T> Outcome<T> {
    /// Says it in terms of the waiter.
    fn told(self, context: &JobContext) -> Result<T, JobError> {
        match self {
            Self::Returned(value) => Ok(value),
            Self::Panicked(payload) => Err(JobError::Panicked(payload)),
            // Without a cause it was the pool that ended, and with it the runtime.
            Self::Unrun => Err(context.cause().unwrap_or_else(Cancelled::shutdown).into()),
            Self::NoThread(error) => Err(JobError::NoThread(error)),
        }
    }

    /// Drops what nobody wants; a panic of that is nobody's.
    fn discard(self) {
        match self {
            Self::Panicked(payload) => discard(payload),
            other => drop(contained(|| drop(other))),
        }
    }
}

/// The closure, and where its result goes. Dropped before it was run, it says so.
struct Job<T, F> {
    shared: Arc<Shared<T>>,
    work: Option<F>,
}

impl<T, F> Job<T, F> {
    fn end(&self, outcome: Outcome<T>) {
        match self.shared.place.give(outcome) {
            // It may be foreign code.
            Given::Taken(Some(waiter)) => drop(contained(|| waiter.wake())),
            Given::Taken(None) => {}
            Given::Unwanted(outcome) => outcome.discard(),
        }
    }
}

impl<T, F> Work for Job<T, F>
where
    F: FnOnce(&JobContext) -> T + Send,
    T: Send,
{
    fn run(mut self: Box<Self>) {
        let work = self.work.take().expect("run once");
        let returned = caught(|| work(&self.shared.context));
        self.end(match returned {
            Ok(value) => Outcome::Returned(value),
            Err(payload) => Outcome::Panicked(payload),
        });
    }

    fn refuse(mut self: Box<Self>, error: io::Error) {
        let work = self.work.take();
        contained(|| drop(work));
        self.end(Outcome::NoThread(error));
    }
}

impl<T, F> Drop for Job<T, F> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            contained(|| drop(work));
            self.end(Outcome::Unrun);
        }
    }
}

async fn wait_for<T, F>(job: F, abandonable: bool) -> Result<T, JobError>
where
    F: FnOnce(&JobContext) -> T + Send + 'static,
    T: Send + 'static,
{
    poll_fn(|cx| current::with(|core| park::entry(core, cx.waker()))).await?;
    let mut job = Some(job);
    let mut waiting = Waiting {
        inner: None,
        again: false,
    };
    poll_fn(|cx| {
        current::with(|core| {
            if let Some(job) = job.take() {
                waiting.inner = Some(Inner::begin(core, cx.waker(), job, abandonable));
            }
            waiting.poll(core, cx.waker())
        })
    })
    .await
}

/// A task's side of a job.
struct Waiting<T: Send + 'static> {
    /// Until the end.
    inner: Option<Inner<T>>,
    /// It was dropped once, and stands for whoever did that.
    again: bool,
}

struct Inner<T> {
    telling: Rc<Telling<T>>,
    park: Park,
}

/// Tells the job of a cancel; takes it back, or gives it up, where that may be.
struct Telling<T> {
    shared: Arc<Shared<T>>,
    pool: Arc<Pool>,
    ticket: Cell<Option<Ticket>>,
    /// The job was given up, before its end or in that moment.
    given_up: Cell<bool>,
    /// The wait is over: a cancel that is delivered late has nothing to end.
    over: Cell<bool>,
    result: RefCell<Option<Outcome<T>>>,
}

impl<T> Relay for Telling<T> {
    fn relay(&self, cause: Cancelled, _: Option<Instant>) {
        if self.over.get() {
            return;
        }
        self.shared.context.cancel(cause.reason());
        if self.take_back() || !self.shared.context.is_abandonable() {
            return;
        }
        self.given_up.set(true);
        match self.shared.place.leave() {
            // Its thread has woken the waiter.
            Left::Result(outcome) => drop(self.result.replace(Some(outcome))),
            Left::Early(waiter) => {
                if let Some(waiter) = waiter {
                    waiter.wake();
                }
            }
        }
    }
}

impl<T> Telling<T> {
    /// Takes the job out of the line, and lets it say that it was not run.
    fn take_back(&self) -> bool {
        let job = self
            .ticket
            .get()
            .and_then(|ticket| self.pool.take_back(ticket));
        let stood_there = job.is_some();
        drop(job);
        stood_there
    }
}

impl<T: Send + 'static> Inner<T> {
    fn begin<F>(core: &Core, waker: &Waker, work: F, abandonable: bool) -> Self
    where
        F: FnOnce(&JobContext) -> T + Send + 'static,
    {
        let shared = Arc::new(Shared {
            context: JobContext::new(core, abandonable),
            place: HandOver::new(),
        });
        let telling = Rc::new(Telling {
            shared: Arc::clone(&shared),
            pool: Arc::clone(core.blocking.pool()),
            ticket: Cell::new(None),
            given_up: Cell::new(false),
            over: Cell::new(false),
            result: RefCell::new(None),
        });
        let mut park = Park::new();
        let relay = Rc::clone(&telling) as Rc<dyn Relay>;
        park.register_relayed(core, waker, Purpose::Job, relay);
        if let Some(token) = park.token() {
            shared.context.wait_is(token);
        }
        let work = Some(work);
        let job = Box::new(Job { shared, work });
        // The waker was copied for the wait: foreign code, which may have cancelled it.
        if telling.shared.context.is_cancelled() {
            drop(job);
        } else {
            telling.ticket.set(Some(telling.pool.submit(job)));
        }
        Self { telling, park }
    }

    fn poll(&mut self, core: &Core, waker: &Waker) -> Poll<Outcome<T>> {
        let telling = &self.telling;
        self.park.look(core, waker);
        let given_up = || telling.given_up.get();
        let mut unneeded = None;
        if !given_up()
            && let Poll::Ready(outcome) = telling.shared.place.poll(waker, given_up, &mut unneeded)
        {
            telling.over.set(true);
            return Poll::Ready(outcome);
        }
        drop(unneeded);
        if !given_up() {
            return Poll::Pending;
        }
        let outcome = telling.result.take();
        Poll::Ready(outcome.unwrap_or(Outcome::Unrun))
    }
}

impl<T: Send + 'static> Waiting<T> {
    fn poll(&mut self, core: &Core, waker: &Waker) -> Poll<Result<T, JobError>> {
        let inner = self.inner.as_mut().expect("not polled after its end");
        let outcome = ready!(inner.poll(core, waker));
        let context = &inner.telling.shared.context;
        let told = outcome.told(context);
        self.inner = None;
        Poll::Ready(told)
    }
}

impl<T: Send + 'static> Drop for Waiting<T> {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else {
            return;
        };
        let telling = &inner.telling;
        telling.shared.context.cancel(Reason::Dropped);
        if telling.given_up.get() {
            if let Some(outcome) = telling.result.take() {
                outcome.discard();
            }
            return;
        }
        if telling.take_back() {
            return;
        }
        let waits_on = !telling.shared.context.is_abandonable() && !self.again;
        let mut left = Some(inner);
        if waits_on {
            current::try_with(|core| leave_behind(core, &mut left));
        }
        if let Some(inner) = left {
            inner.telling.over.set(true);
            if let Left::Result(outcome) = inner.telling.shared.place.leave() {
                outcome.discard();
            }
        }
    }
}

/// Lets a task wait in the place of a waiter that was dropped: the scope around ends after the job.
fn leave_behind<T: Send + 'static>(core: &Core, left: &mut Option<Inner<T>>) {
    let Some(inner) = left.take_if(|inner| inner.park.is_at(core)) else {
        return;
    };
    let under = inner.park.node(core);
    let mut waiting = Waiting {
        inner: Some(inner),
        again: true,
    };
    let (task, _) = core.spawn_under(under, async move {
        let unwanted = poll_fn(|cx| current::with(|core| waiting.poll(core, cx.waker()))).await;
        contained(|| drop(unwanted));
    });
    let output = core.tasks.borrow_mut().detach(task);
    drop(output);
}
