//! A body while it runs in its scope: which scope is active when, and who takes the node away.

use std::borrow::Borrow;
use std::cell::Cell;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;

use super::tree::{Kind, NodeId};
use super::{Cancelled, CarriesCancelled, Misuse, Scope};
use crate::core_state::Core;
use crate::task::{TaskId, current};

/// Where a run of a scope stands.
pub(super) struct Active {
    node: NodeId,
    /// The scope that this one was last polled under.
    outside: Cell<NodeId>,
    /// The task that polls it, from beginning to end.
    task: Option<TaskId>,
    home: u64,
}

impl Active {
    /// Enters a scope; fails if it was entered before, or belongs to another runtime.
    fn begin(scope: &Scope, kind: Kind) -> Result<Self, Cancelled> {
        current::with(|core| {
            if scope.used.get() {
                return Err(Cancelled::misuse(Misuse::RunTwice));
            }
            let early = Entered::of(core, scope);
            if early.is_some_and(|(_, is_here)| !is_here) {
                return Err(Cancelled::misuse(Misuse::OtherRuntime));
            }
            scope.used.set(true);
            let outside = core.active.get();
            let node = match early {
                // A handle was made before, so the node is elsewhere; what the handle did holds.
                Some((node, _)) => {
                    core.tree.borrow_mut().move_under(node, outside);
                    core.carry_out();
                    node
                }
                None => Entered::put(core, scope, outside, kind),
            };
            if let Some(deadline) = scope.first_deadline() {
                core.set_deadline(node, Some(deadline));
            }
            Ok(Self {
                node,
                outside: Cell::new(outside),
                task: core.running.get(),
                home: core.identity(),
            })
        })
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Polls a body with this scope active. Fails if another task polls it than before.
    fn poll_body<F: Future>(
        &self,
        body: Pin<&mut Option<F>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<F::Output, Cancelled>> {
        self.follow()?;
        let body = body.as_pin_mut();
        let body = body.expect("a body is there until it has ended");
        let polled = self.active(|| body.poll(cx));
        if polled.is_pending() {
            self.waits(cx.waker());
        }
        polled.map(Ok)
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
    fn absorbs(&self, cancelled: Cancelled) -> bool {
        !cancelled.is_misuse() && current::with(|core| core.tree.borrow().absorbs(self.node))
    }

    /// Takes the node away, and leaves the scope what can still be asked for.
    fn end(&self, scope: &Scope) {
        let entered = scope.entered.take();
        scope.ended.set(true);
        current::try_with(|core| {
            if core.identity() == self.home {
                scope.cause.set(core.tree.borrow().own_cause(self.node));
            }
        });
        drop(entered);
    }
}

/// A run of a scope whose body is polled elsewhere. Dropped last of all that belongs to the run, it
/// takes the node away.
pub(super) struct Running<'a> {
    scope: &'a Scope,
    active: Active,
}

impl<'a> Running<'a> {
    pub(super) fn begin(scope: &'a Scope, kind: Kind) -> Result<Self, Cancelled> {
        let active = Active::begin(scope, kind)?;
        Ok(Self { scope, active })
    }

    /// Runs a body with this scope active, also while it is dropped.
    ///
    /// Fails, and drops the body, if it is polled by another task than before.
    pub(super) fn body<F: Future>(&self, body: F) -> Body<'_, F> {
        Body {
            active: &self.active,
            body: Some(body),
        }
    }
}

impl Deref for Running<'_> {
    type Target = Active;

    fn deref(&self) -> &Active {
        &self.active
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.active.end(self.scope);
    }
}

pin_project! {
    /// A body while it runs: when it is dropped, its scope is active.
    pub(super) struct Body<'a, F> {
        active: &'a Active,
        #[pin]
        body: Option<F>,
    }

    impl<F> PinnedDrop for Body<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            this.active.active(|| this.body.set(None));
        }
    }
}

impl<F: Future> Future for Body<'_, F> {
    type Output = Result<F::Output, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let output = ready!(this.active.poll_body(this.body.as_mut(), cx));
        this.active.active(|| this.body.set(None));
        Poll::Ready(output)
    }
}

pin_project! {
    /// A scope and its body, from entry to end. Holds the body once: scopes are nested, and a copy
    /// more per level doubles with each.
    #[must_use = "a scope does nothing unless its run is awaited"]
    pub(super) struct Run<S: Borrow<Scope>, F: Future> {
        scope: S,
        active: Option<Active>,
        #[pin]
        body: Option<F>,
        output: Option<F::Output>,
        absorbs: bool,
    }

    impl<S: Borrow<Scope>, F: Future> PinnedDrop for Run<S, F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            match this.active.take() {
                Some(active) => {
                    active.active(|| this.body.set(None));
                    // What the body gave is none of the scope's.
                    active.end((*this.scope).borrow());
                }
                None => this.body.set(None),
            }
        }
    }
}

impl<S: Borrow<Scope>, F: Future> Run<S, F> {
    pub(super) fn new(scope: S, body: F) -> Self {
        Self {
            scope,
            active: None,
            body: Some(body),
            output: None,
            absorbs: false,
        }
    }

    pub(super) fn scope(self: Pin<&Self>) -> &Scope {
        self.get_ref().scope.borrow()
    }
}

impl<S, F, T, E> Future for Run<S, F>
where
    S: Borrow<Scope>,
    F: Future<Output = Result<T, E>>,
    E: CarriesCancelled,
{
    type Output = Result<Option<T>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let scope: &Scope = (*this.scope).borrow();
        let active = match this.active {
            Some(active) => active,
            None => this.active.insert(Active::begin(scope, Kind::Scope)?),
        };
        if this.output.is_none() {
            let output = match ready!(active.poll_body(this.body.as_mut(), cx)) {
                Ok(output) => output,
                Err(misuse) => Err(misuse.into()),
            };
            // Whose a cancellation is, is decided when the body ends; what is cancelled while the
            // kernel is waited for changes nothing.
            *this.absorbs = output
                .as_ref()
                .err()
                .and_then(CarriesCancelled::cancelled)
                .is_some_and(|cancelled| active.absorbs(cancelled));
            *this.output = Some(output);
            active.active(|| this.body.set(None));
        }
        ready!(active.poll_done(cx.waker()));
        active.end(scope);
        *this.active = None;
        match this.output.take().expect("the body has ended") {
            Ok(value) => Poll::Ready(Ok(Some(value))),
            Err(error) if *this.absorbs => {
                scope.absorbed.set(true);
                Poll::Ready(match error.rest() {
                    Ok(rest) => Err(rest),
                    Err(_) => Ok(None),
                })
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// A node of the tree. Dropped, it is gone, with its deadline.
#[derive(Debug)]
pub(super) struct Entered {
    node: NodeId,
    home: u64,
}

impl Entered {
    /// Opens a node for a scope that has none, and lets it have the cancel that came before.
    pub(super) fn put(core: &Core, scope: &Scope, parent: NodeId, kind: Kind) -> NodeId {
        let mut tree = core.tree.borrow_mut();
        let node = tree.open(parent, kind, scope.shield.get());
        tree.set_grace_period(node, scope.grace);
        drop(tree);
        let home = core.identity();
        scope.entered.replace(Some(Self { node, home }));
        scope.pass_cause_on(core, node);
        node
    }

    /// Returns the node of a scope, if it has one, and whether that is on this core.
    pub(super) fn of(core: &Core, scope: &Scope) -> Option<(NodeId, bool)> {
        let entered = scope.entered.borrow();
        let entered = entered.as_ref()?;
        Some((entered.node, entered.home == core.identity()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run_until_cancelled, timeout};
    use std::io;
    use std::time::Duration;

    /// Scopes are nested; a level that holds its body twice doubles the future with each.
    #[test]
    fn a_level_of_scope_adds_to_the_size_of_a_future_and_does_not_multiply_it() {
        const LEVEL: usize = 160;
        let body = || std::future::ready(io::Result::Ok([0_u8; 1000]));
        let scopes = [Scope::new(), Scope::new()];
        // A body of a thousand bytes, whose output has as many.
        let bare = size_of_val(&body()) + 1000;
        let once = size_of_val(&scopes[0].run(body()));
        assert!(once <= bare + LEVEL, "{once} of {bare}");
        let late = size_of_val(&timeout(Duration::ZERO, body()));
        assert!(
            late <= bare + LEVEL + size_of::<Scope>(),
            "{late} of {bare}"
        );
        let foreign = size_of_val(&run_until_cancelled(body()));
        assert!(foreign <= bare + LEVEL, "{foreign} of {bare}");
        let inner = scopes[0].run(body());
        let inner = async { inner.await.map(drop) };
        let twice = size_of_val(&scopes[1].run(inner));
        assert!(twice <= 2 * once + 2 * LEVEL, "{twice} of {once}");
    }
}
