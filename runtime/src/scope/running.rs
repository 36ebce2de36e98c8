//! A body while it runs in its scope: which scope is active when, and who takes the node away.

use std::cell::Cell;
use std::future::{self, Future};
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};

use super::tree::{Kind, NodeId};
use super::{Cancelled, Misuse, Scope};
use crate::core_state::Core;
use crate::task::{TaskId, current};

/// A run of a scope. Dropped last of all that belongs to the run, it takes the node away.
pub(super) struct Running<'a> {
    scope: &'a Scope,
    node: NodeId,
    /// The scope that this one was last polled under.
    outside: Cell<NodeId>,
    /// The task that polls it, from beginning to end.
    task: Option<TaskId>,
    home: u64,
}

impl<'a> Running<'a> {
    /// Enters the scope; fails if it was entered before, or belongs to another runtime.
    pub(super) fn begin(scope: &'a Scope) -> Result<Self, Cancelled> {
        Self::begin_as(scope, Kind::Scope)
    }

    pub(super) fn begin_as(scope: &'a Scope, kind: Kind) -> Result<Self, Cancelled> {
        current::with(|core| {
            let mut entered = scope.entered.borrow_mut();
            if scope.used.get() {
                return Err(Cancelled::misuse(Misuse::RunTwice));
            }
            if entered.as_ref().is_some_and(|early| !early.is_on(core)) {
                return Err(Cancelled::misuse(Misuse::OtherRuntime));
            }
            scope.used.set(true);
            let active = core.active.get();
            let early = entered.is_some();
            let entered = entered.get_or_insert_with(|| Entered::new_as(core, scope, active, kind));
            let running = Self {
                scope,
                node: entered.node,
                outside: Cell::new(active),
                task: core.running.get(),
                home: core.identity(),
            };
            if early {
                // A handle was made before, so the node is elsewhere; what the handle did holds.
                core.tree.borrow_mut().move_under(entered.node, active);
                core.carry_out();
            }
            if let Some(cause) = scope.cause.get() {
                core.cancel(entered.node, cause, None);
            }
            if let Some(deadline) = scope.first_deadline() {
                core.set_deadline(entered.node, Some(deadline));
            }
            Ok(running)
        })
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Runs a body with this scope active, also while it is dropped.
    ///
    /// Fails, and drops the body, if it is polled by another task than before.
    pub(super) async fn body<F: Future>(&self, body: F) -> Result<F::Output, Cancelled> {
        let mut body = pin!(Some(body));
        let mut body = Body {
            running: self,
            future: body.as_mut(),
        };
        future::poll_fn(|cx| {
            self.follow()?;
            let polled = self.active(|| match body.future.as_mut().as_pin_mut() {
                Some(future) => future.poll(cx),
                None => unreachable!("the body is there until it is dropped"),
            });
            match polled {
                Poll::Ready(output) => Poll::Ready(Ok(output)),
                Poll::Pending => {
                    self.waits(cx.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Follows the scope that the run is polled under, as a parked op does.
    pub(super) fn follow(&self) -> Result<(), Cancelled> {
        current::with(|core| {
            if core.identity() != self.home {
                return Ok(());
            }
            if core.running.get() != self.task {
                return Err(Cancelled::misuse(Misuse::ForeignTask));
            }
            let outside = core.active.get();
            let mut tree = core.tree.borrow_mut();
            if outside != self.outside.replace(outside) {
                tree.move_under(self.node, outside);
            }
            // While it is polled, nobody has to wake it.
            let woken = tree.set_foreign(self.node, None);
            drop(tree);
            drop(woken);
            core.carry_out();
            Ok(())
        })
    }

    /// Notes that the body waits, and whether in anything that a cancel reaches.
    fn waits(&self, waker: &Waker) {
        current::with(|core| {
            if core.identity() == self.home {
                core.after_pending(self.node, Some(waker));
            }
        });
    }

    /// Runs `f` with this scope active.
    pub(super) fn active<R>(&self, f: impl FnOnce() -> R) -> R {
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

    /// Waits until the kernel is done with all that was started inside, and the tasks have ended
    /// that are left here. It is no op: no cancel ends it.
    pub(super) fn poll_done(&self, waker: &Waker) -> Poll<()> {
        current::with(|core| {
            if core.identity() != self.home {
                return Poll::Ready(());
            }
            let (done, stale) = core.tree.borrow_mut().is_done(self.node, waker);
            drop(stale);
            if done { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Returns whether this scope takes a cancellation that its body has ended with.
    pub(super) fn absorbs(&self, cancelled: Cancelled) -> bool {
        !cancelled.is_misuse() && current::with(|core| core.tree.borrow().absorbs(self.node))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let entered = self.scope.entered.take();
        self.scope.ended.set(true);
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

/// A node of the tree. Dropped, it is gone, with its deadline.
#[derive(Debug)]
pub(super) struct Entered {
    node: NodeId,
    home: u64,
}

impl Entered {
    pub(super) fn new(core: &Core, scope: &Scope, parent: NodeId) -> Self {
        Self::new_as(core, scope, parent, Kind::Scope)
    }

    fn new_as(core: &Core, scope: &Scope, parent: NodeId, kind: Kind) -> Self {
        let mut tree = core.tree.borrow_mut();
        let node = tree.open(parent, kind, scope.shield.get());
        tree.set_grace_period(node, scope.grace);
        drop(tree);
        if let Some(cause) = scope.cause.get() {
            core.cancel(node, cause, None);
        }
        Self {
            node,
            home: core.identity(),
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn is_on(&self, core: &Core) -> bool {
        self.home == core.identity()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        current::try_with(|core| {
            if core.identity() == self.home {
                core.close_node(self.node);
            }
        });
    }
}
