//! Scopes: what is cancelled as a unit.
//!
//! In reading order: [`tree`] is the scope tree of a core, pure; [`cancelled`] the answer of an op
//! that was cancelled, and how errors carry it; [`park`] what every op does; [`handle`] how a scope
//! is cancelled from anywhere. [`Scope`], here, runs a body.
//!
//! The rules in short: an op in a cancelled scope fails with [`Cancelled`] at its first poll, for
//! as long as the scope lasts; a parked op is aborted once; a result that was there first is
//! returned; a body that ends with `Cancelled` is absorbed by the outermost scope that was
//! cancelled; a scope's run ends when the kernel is done with everything started inside it.

pub(crate) mod cancelled;
pub(crate) mod handle;
pub(crate) mod park;
pub(crate) mod tree;

use std::cell::{Cell, RefCell};
use std::future::{self, Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

pub use cancelled::{Cancelled, CarriesCancelled, Reason};
pub use handle::{CancelHandle, Delivery};

use crate::core_state::{Core, TimerTarget};
use crate::task::current;
use crate::time::Instant;
use crate::time::store::TimerId;
use tree::NodeId;

/// A scope: a body that is cancelled as a unit, by a deadline or by a handle.
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
    deadline: Option<Instant>,
    timeout: Option<Duration>,
    shielded: bool,
    /// The node, from the first `handle()` or the start of `run` until the run ends.
    entered: RefCell<Option<Entered>>,
    cause: Cell<Option<Cancelled>>,
    used: Cell<bool>,
    /// A scope stays on its core; its handles travel.
    not_send: PhantomData<*const ()>,
}

impl Scope {
    /// Makes a scope without a deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the body, with reason [`Reason::Deadline`], when `timeout` has passed since the run
    /// began. The earlier of this and [`Scope::deadline`] counts.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Cancels the body, with reason [`Reason::Deadline`], at `deadline`; before its first op if
    /// that has passed.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Makes the body deaf to cancellation from outside: for a goodbye that must still be said.
    /// Give it a timeout of its own, so that it cannot outstay the caller's patience.
    #[must_use]
    pub fn shielded(mut self) -> Self {
        self.shielded = true;
        self
    }

    /// Returns a handle that cancels the body from anywhere: any task, thread or signal handler.
    ///
    /// # Panics
    ///
    /// Off a core, or after the run has ended.
    pub fn handle(&self) -> CancelHandle {
        current::with(|core| {
            let mut entered = self.entered.borrow_mut();
            if entered.is_none() {
                assert!(
                    !self.used.get(),
                    "a scope's handle is asked for before its run ends"
                );
                let root = core.tree.borrow().root();
                *entered = Some(Entered::new(core, root, self.shielded));
            }
            let entered = entered.as_ref().expect("made just above");
            assert!(
                entered.home == core.identity(),
                "a scope's handle is asked for in the runtime that the scope belongs to"
            );
            entered.announced.set(true);
            CancelHandle::new(core, entered.node)
        })
    }

    /// Returns why this scope was cancelled, if its own cancel was called or its deadline passed.
    pub fn cancelled(&self) -> Option<Cancelled> {
        match &*self.entered.borrow() {
            Some(entered) => current::try_with(|core| {
                let ours = entered.home == core.identity();
                ours.then(|| core.tree.borrow().own_cause(entered.node))
                    .flatten()
            })
            .flatten(),
            None => self.cause.get(),
        }
    }

    /// Runs `body` in this scope.
    ///
    /// `Ok(Some(value))`: the body ended with a value, cancelled or not. `Ok(None)`: this scope was
    /// cancelled, the body ended with [`Cancelled`], and the scope took it. `Err`: the body failed,
    /// or it was cancelled from further out and the `Cancelled` is on its way there.
    ///
    /// The run ends when the kernel is done with every op that was started inside, also with those
    /// whose futures were dropped there. For sockets and timers that is at once; an operation on a
    /// file that is already running holds the run until it is done.
    ///
    /// Dropping the returned future drops the body and hands what the kernel still holds to the
    /// scope around.
    ///
    /// # Errors
    ///
    /// The body's own, as said above. A second run of the same scope, or a run in another runtime
    /// than the one its handle was made in, fails with [`Reason::Misuse`].
    pub async fn run<T, E: CarriesCancelled>(
        &self,
        body: impl IntoFuture<Output = Result<T, E>>,
    ) -> Result<Option<T>, E> {
        let Some(running) = Running::begin(self) else {
            return Err(Cancelled::misuse().into());
        };
        let outcome = {
            let mut body = pin!(Some(body.into_future()));
            let mut body = Body {
                running: &running,
                future: body.as_mut(),
            };
            future::poll_fn(|cx| {
                running.follow();
                running.active(|| match body.future.as_mut().as_pin_mut() {
                    Some(future) => future.poll(cx),
                    None => unreachable!("the body is there until it is dropped"),
                })
            })
            .await
        };
        // Whose a cancellation is, is decided when the body ends; what is cancelled while the
        // kernel is waited for changes nothing.
        let cancelled = outcome.as_ref().err().and_then(CarriesCancelled::cancelled);
        let absorbs = cancelled.is_some_and(|cancelled| running.absorbs(cancelled));
        future::poll_fn(|cx| running.poll_kernel_is_done(cx.waker())).await;
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if absorbs => match error.rest() {
                Ok(rest) => Err(rest),
                Err(_) => Ok(None),
            },
            Err(error) => Err(error),
        }
    }
}

/// The body while it runs: when it is dropped, its scope is active.
struct Body<'a, F> {
    running: &'a Running<'a>,
    future: Pin<&'a mut Option<F>>,
}

impl<F> Drop for Body<'_, F> {
    fn drop(&mut self) {
        self.running.active(|| self.future.set(None));
    }
}

/// A run of a scope. Dropped last of all that belongs to the run, it takes the node away.
struct Running<'a> {
    scope: &'a Scope,
    node: NodeId,
    /// The scope that this one was last polled under.
    outside: Cell<NodeId>,
    home: u64,
}

impl<'a> Running<'a> {
    /// Enters the scope; `None` if it was entered before, or belongs to another runtime.
    fn begin(scope: &'a Scope) -> Option<Self> {
        current::with(|core| {
            let home = core.identity();
            let mut entered = scope.entered.borrow_mut();
            if scope.used.get() || entered.as_ref().is_some_and(|early| early.home != home) {
                return None;
            }
            scope.used.set(true);
            let active = core.active.get();
            let early = entered.is_some();
            let entered = entered.get_or_insert_with(|| Entered::new(core, active, scope.shielded));
            let running = Self {
                scope,
                node: entered.node,
                outside: Cell::new(active),
                home,
            };
            if early {
                // A handle was made before, so the node is elsewhere; what the handle did holds.
                let aborts = core.tree.borrow_mut().move_under(entered.node, active);
                core.carry_out(aborts);
            }
            if let Some(deadline) = scope.first_deadline() {
                entered.arm(core, deadline);
            }
            Some(running)
        })
    }

    /// Follows the scope that the run is polled under, as a parked op does.
    fn follow(&self) {
        current::with(|core| {
            let outside = core.active.get();
            if core.identity() == self.home && outside != self.outside.replace(outside) {
                let aborts = core.tree.borrow_mut().move_under(self.node, outside);
                core.carry_out(aborts);
            }
        });
    }

    /// Runs `f` with this scope active.
    fn active<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Restore(NodeId, u64);
        impl Drop for Restore {
            fn drop(&mut self) {
                current::try_with(|core| {
                    if core.identity() == self.1 {
                        core.active.set(self.0);
                    }
                });
            }
        }
        let _restore = current::try_with(|core| {
            // Dropped after its runtime has ended, or polled under another, there is no scope to
            // be active; ops inside say so themselves.
            (core.identity() == self.home)
                .then(|| Restore(core.active.replace(self.node), self.home))
        });
        f()
    }

    fn poll_kernel_is_done(&self, waker: &std::task::Waker) -> Poll<()> {
        current::with(|core| {
            if core.identity() != self.home {
                return Poll::Ready(());
            }
            let (done, stale) = core.tree.borrow_mut().kernel_is_done(self.node, waker);
            drop(stale);
            if done { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    fn absorbs(&self, cancelled: Cancelled) -> bool {
        cancelled.reason() != Reason::Misuse
            && current::with(|core| core.tree.borrow().absorbs(self.node))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let entered = self.scope.entered.take();
        current::try_with(|core| {
            if core.identity() == self.home {
                self.scope
                    .cause
                    .set(core.tree.borrow().own_cause(self.node));
            }
        });
        drop(entered);
    }
}

impl Scope {
    fn first_deadline(&self) -> Option<Instant> {
        let relative = self.timeout.map(|timeout| Instant::now() + timeout);
        match (self.deadline, relative) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

/// A node of the tree with its deadline. Dropped, both are gone.
#[derive(Debug)]
struct Entered {
    node: NodeId,
    timer: Option<TimerId>,
    /// A handle was made, so that others know the node's cell.
    announced: Cell<bool>,
    home: u64,
}

impl Entered {
    fn new(core: &Core, parent: NodeId, shielded: bool) -> Self {
        let node = core.tree.borrow_mut().open(parent, shielded);
        Self {
            node,
            timer: None,
            announced: Cell::new(false),
            home: core.identity(),
        }
    }

    fn arm(&mut self, core: &Core, deadline: Instant) {
        if deadline == Instant::NEVER {
            return;
        }
        if deadline <= Instant::now() {
            let aborts = core
                .tree
                .borrow_mut()
                .cancel(self.node, Cancelled::deadline());
            core.carry_out(aborts);
        } else {
            let target = TimerTarget::Scope(self.node);
            self.timer = Some(core.timers.borrow_mut().insert(deadline, target));
            core.armed_scopes.set(core.armed_scopes.get() + 1);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        current::try_with(|core| {
            if core.identity() != self.home {
                return;
            }
            if let Some(timer) = self.timer {
                core.timers.borrow_mut().remove(timer);
                core.armed_scopes.set(core.armed_scopes.get() - 1);
            }
            if self.announced.get() {
                core.shared.cancels.retire(self.node.to_parts().0);
            }
            let aborts = core.tree.borrow_mut().close(self.node);
            core.carry_out(aborts);
        });
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
pub fn check() -> Result<(), Cancelled> {
    current::with(|core| {
        core.see_remote_cancels();
        let active = core.active.get();
        let tree = core.tree.borrow();
        if tree.is_cancelled(active) {
            Err(tree.cause(active))
        } else {
            Ok(())
        }
    })
}
