//! `JobContext`: what a job may ask of the task that waits for it, and of that task's core.
//!
//! A job has it by reference, for as long as it runs: so there is no thread that is none of ours and
//! asks, and no second thread-local to find it by.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::core_state::Core;
use crate::mailbox::closures::{ClosureQueue, Job};
use crate::runtime::{CoreId, RemoteError, RemoteHandle, outcome_of};
use crate::scope::tree::ParkId;
use crate::scope::{Cancelled, Reason};
use crate::task::current;

/// By this a job learns whether somebody still waits for it, and calls back into its core.
///
/// It is handed to the job by reference and is gone with it, so it cannot be asked off a job:
///
/// ```compile_fail
/// # quoit::block_on(async {
/// let kept = quoit::blocking::run(|job| job).await;
/// # }).unwrap();
/// ```
///
/// ```compile_fail
/// let made = quoit::blocking::JobContext {};
/// ```
#[derive(Debug)]
pub struct JobContext(Arc<State>);

#[derive(Debug)]
struct State {
    /// 0, or one more than the reason of the cancel.
    cancelled: AtomicU64,
    core: CoreId,
    /// The wait, as a number: the scope that it stands under is the job's host. Written and read by its core alone.
    wait: AtomicU64,
    abandonable: bool,
}

impl JobContext {
    pub(super) fn new(core: &Core, abandonable: bool) -> Self {
        Self(Arc::new(State {
            cancelled: AtomicU64::new(0),
            core: core.id,
            wait: AtomicU64::new(0),
            abandonable,
        }))
    }

    /// Returns whether the job's waiter was cancelled, or has gone. Costs a load.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed) != 0
    }

    /// Fails if the job's waiter was cancelled, or has gone; and from then on for as long as the job
    /// runs, also when the scope it was waited for in has ended. A job that returns this error passes
    /// it on to that scope.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], with the reason of the scope; with [`Reason::Dropped`], if the waiter was
    /// dropped.
    pub fn check_cancelled(&self) -> Result<(), Cancelled> {
        match self.0.cancelled.load(Ordering::Relaxed) {
            0 => Ok(()),
            word => Err(Cancelled::new(Reason::from_word(word - 1))),
        }
    }

    /// Runs an async function on the core of the job's waiter, and blocks this thread until it has
    /// ended. `make` is called there; the future it makes need not be `Send`.
    ///
    /// A function of a job of [`run`](super::run) runs under the waiter's scope, as a task of its
    /// own: if that is cancelled, its ops fail. One of [`run_abandonable`](super::run_abandonable)
    /// runs detached, whatever happens to the waiter, until the runtime shuts down.
    ///
    /// Waits for room in the core's mailbox, if that is full.
    ///
    /// ```
    /// use std::time::Duration;
    /// use quoit::{blocking, time::sleep};
    ///
    /// quoit::block_on(async {
    ///     let slept = blocking::run(|job| job.run_on_core(|| sleep(Duration::from_millis(1)))).await;
    ///     assert_eq!(slept.unwrap().unwrap(), Ok(()));
    /// })?;
    /// # Ok::<_, quoit::BuildError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`RemoteError`]: the function panicked, or leaked a group; the core has ended, or did before the function had; on
    /// a thread that runs a core, at once, that waiting would block it.
    pub fn run_on_core<F, M>(&self, make: F) -> Result<M::Output, RemoteError>
    where
        F: FnOnce() -> M + Send + 'static,
        M: Future<Output: Send + 'static> + 'static,
    {
        if CoreId::current().is_some() {
            return Err(RemoteError::WouldBlock);
        }
        let mailbox = self.0.core.mailbox().ok_or(RemoteError::Gone)?;
        let (answer, answered) = RemoteHandle::channel();
        let state = Arc::clone(&self.0);
        self.send(
            &mailbox,
            Box::new(move || {
                current::with(|core| {
                    let wait = ParkId::from_token(state.wait.load(Ordering::Relaxed));
                    let under = {
                        let tree = core.tree.borrow();
                        let host = tree.node_of(wait).filter(|_| !state.abandonable);
                        host.unwrap_or_else(|| tree.root())
                    };
                    let (task, _) = core.spawn_under(under, async move {
                        answer.end(outcome_of(async move { make().await }).await);
                    });
                    let output = core.tasks.borrow_mut().detach(task);
                    drop(output);
                });
            }),
        )?;
        answered.wait()
    }

    /// Puts a closure into the core's mailbox; blocks while that is full.
    fn send(&self, mailbox: &ClosureQueue, job: Job) -> Result<(), RemoteError> {
        if !mailbox.send_in_turn(job) {
            return Err(RemoteError::Gone);
        }
        self.0.core.rouse();
        Ok(())
    }

    /// Notes that nobody waits any more, and why. The first reason stays.
    pub(super) fn cancel(&self, reason: Reason) {
        let word = reason.to_word() + 1;
        // It is alone what a job asks for: nothing is published by it.
        let _ = self
            .0
            .cancelled
            .compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns why the waiter was cancelled, if it was.
    pub(super) fn cause(&self) -> Option<Cancelled> {
        self.check_cancelled().err()
    }

    pub(super) fn is_abandonable(&self) -> bool {
        self.0.abandonable
    }

    /// This is the wait for the job.
    pub(super) fn wait_is(&self, token: u64) {
        self.0.wait.store(token, Ordering::Relaxed);
    }
}
