//! A body while it runs in its scope: which scope is active when, and who takes the node away.

use std::borrow::Borrow;
use std::cell::Cell;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::tree::{Kind, NodeId};
use super::unopened::{FirstPoll, Of};
use super::{Cancelled, CarriesCancelled, Misuse, Scope};
use crate::core_state::Core;
use crate::task::{TaskId, current};
use crate::time::Instant;

/// Where a run of a scope stands. Filled in place: it lies in the future of the run.
#[derive(Default)]
pub(super) struct Active {
    /// The scope's node; `None` before the run begins, and after its end.
    node: Cell<Option<NodeId>>,
    /// The scope that this one was last polled under.
    outside: Cell<Option<NodeId>>,
    /// The task that polls it, from beginning to end.
    task: Cell<Option<TaskId>>,
    home: Cell<u64>,
    /// The tree knows whom to wake, should the body be cancelled: it waits in something foreign.
    noted: Cell<bool>,
}

impl Active {
    /// Enters a scope; fails if it was entered before, or belongs to another runtime.
    #[inline]
    fn begin(&self, core: &Core, scope: &Scope, kind: Kind) -> Result<(), Cancelled> {
        if scope.used.get() {
            return Err(Cancelled::misuse(Misuse::RunTwice));
        }
        let home = core.identity();
        let early = scope.entered.get();
        if early.is_some_and(|early| early.home != home) {
            return Err(Cancelled::misuse(Misuse::OtherRuntime));
        }
        let outside = core.active();
        let (node, deadline) = match early {
            // A handle was made before, so the node is elsewhere; what the handle did holds.
            Some(Entered { node, .. }) => {
                scope.notice_deadline();
                core.tree.borrow_mut().move_under(node, outside);
                core.carry_out();
                let told = core.tree.borrow().deadline(node);
                (node, scope.first_after(told))
            }
            None => {
                let node = Entered::put(core, scope, outside, kind);
                (node, scope.first_deadline())
            }
        };
        scope.used.set(true);
        if let Some((deadline, now)) = deadline {
            core.set_deadline(node, Some(deadline), now);
        }
        self.node.set(Some(node));
        self.outside.set(Some(outside));
        self.task.set(core.running.get());
        self.home.set(home);
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.node.get().is_some()
    }

    /// Returns the node of a run that goes on.
    #[inline]
    pub(super) fn node(&self) -> NodeId {
        self.node.get().expect("it has begun")
    }

    /// Polls a body with this scope active.
    fn poll_body<F: Future>(
        &self,
        core: &Core,
        body: Pin<&mut Option<F>>,
        cx: &mut Context<'_>,
    ) -> Poll<F::Output> {
        let body = body.as_pin_mut();
        let body = body.expect("a body is there until it has ended");
        let polled = self.inside(core, || body.poll(cx));
        if polled.is_pending() && self.is_at(core) {
            self.noted
                .set(core.after_pending(self.node(), Some(cx.waker())));
        }
        polled
    }

    /// Polls a body for the first time, of a scope that has no node yet. If it has none either when the body has ended,
    /// the run has; else it goes on with the node.
    #[inline]
    fn poll_first<F, T, E>(
        &self,
        core: &Core,
        (scope, deadline): (&Scope, Instant),
        mut body: Pin<&mut Option<F>>,
        cx: &mut Context<'_>,
        absorbs: &mut bool,
    ) -> Poll<F::Output>
    where
        F: Future<Output = Result<T, E>>,
        E: CarriesCancelled,
    {
        // Declared first, to be dropped last: what a body gave is not dropped in its scope, also where its destructor panics.
        let output;
        let mut first = First::begin(self, core, scope, deadline);
        let inside = body.as_mut().as_pin_mut();
        match inside.expect("a body is there until it has ended").poll(cx) {
            Poll::Ready(given) => output = given,
            Poll::Pending => {
                drop(first);
                self.noted
                    .set(core.after_pending(self.node(), Some(cx.waker())));
                return Poll::Pending;
            }
        }
        if let Err(error) = &output
            && let Some(node) = core.node_of_first_poll()
        {
            core.see_remote_cancels();
            let found = error.cancelled().filter(|found| !found.is_misuse());
            *absorbs = found.is_some() && core.tree.borrow().absorbs(node);
        }
        body.set(None);
        first.end();
        Poll::Ready(output)
    }

    /// Returns whether this is the scope's core. Polled under another runtime, or dropped after its
    /// own has ended, there is no scope; ops inside say so themselves.
    fn is_at(&self, core: &Core) -> bool {
        core.identity() == self.home.get()
    }

    /// Follows the scope that the run is polled under, as a parked op does.
    #[inline]
    pub(super) fn follow(&self, core: &Core) -> Result<(), Cancelled> {
        if !self.is_at(core) {
            return Ok(());
        }
        if core.running.get() != self.task.get() {
            return Err(Cancelled::misuse(Misuse::ForeignTask));
        }
        let outside = core.active();
        if self.outside.get() != Some(outside) || self.noted.get() {
            self.move_under(core, outside);
        }
        Ok(())
    }

    #[cold]
    fn move_under(&self, core: &Core, outside: NodeId) {
        let mut tree = core.tree.borrow_mut();
        if self.outside.replace(Some(outside)) != Some(outside) {
            tree.move_under(self.node(), outside);
        }
        // While it is polled, nobody has to wake it.
        let woken = tree.set_foreign(self.node(), None);
        drop(tree);
        drop(woken);
        self.noted.set(false);
        core.carry_out();
    }

    /// Runs `f` with this scope active.
    fn inside<R>(&self, core: &Core, f: impl FnOnce() -> R) -> R {
        struct Restore<'a>(&'a Core, NodeId);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.activate_again(self.1);
            }
        }
        let _restore = self
            .is_at(core)
            .then(|| Restore(core, core.activate(self.node())));
        f()
    }

    /// Drops a body with this scope active, wherever that is done.
    fn drop_body<F>(&self, mut body: Pin<&mut Option<F>>) {
        match current::try_with(|core| self.inside(core, || body.set(None))) {
            Some(()) => {}
            None => body.set(None),
        }
    }

    /// Waits until the kernel is done with all that was started inside, and the tasks have ended
    /// that are left here. It is no op: no cancel ends it.
    pub(super) fn poll_done(&self, core: &Core, waker: &Waker) -> Poll<()> {
        if !self.is_at(core) {
            return Poll::Ready(());
        }
        poll_end(core, self.node(), waker)
    }

    /// Returns whether this scope takes a cancellation that its body has ended with.
    fn absorbs(&self, core: &Core, cancelled: Cancelled) -> bool {
        if cancelled.is_misuse() || !self.is_at(core) {
            return false;
        }
        core.see_remote_cancels();
        core.tree.borrow().absorbs(self.node())
    }

    /// Ends a scope of which nobody has a handle and in which nothing was left, as most are; false if it
    /// is none.
    #[inline]
    fn end_unnoticed(&self, core: &Core, scope: &Scope) -> bool {
        let ended = self.is_at(core) && core.close_if_unnoticed(self.node());
        if ended {
            self.node.set(None);
            scope.ended.set(true);
            scope.entered.set(None);
        }
        ended
    }

    /// Takes the node away, and leaves the scope what can still be asked for.
    fn end(&self, core: &Core, scope: &Scope) {
        scope.ended.set(true);
        scope.entered.set(None);
        if let Some(node) = self.node.take()
            && self.is_at(core)
        {
            // Whoever cancelled it by a handle was told that it was delivered.
            core.see_remote_cancels();
            scope.cause.set(core.tree.borrow().own_cause(node));
            core.close_node(node);
        }
    }

    /// Drops what is left of a body, and ends the scope.
    fn give_up<F>(&self, scope: &Scope, mut body: Pin<&mut Option<F>>) {
        /// Also where the body's destructor panics.
        struct End<'a>(&'a Active, &'a Core, &'a Scope);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.end(self.1, self.2);
            }
        }
        let given_up = current::try_with(|core| {
            let _end = End(self, core, scope);
            self.inside(core, || body.set(None));
        });
        if given_up.is_none() {
            scope.ended.set(true);
            scope.entered.set(None);
            body.set(None);
        }
    }
}

/// Waits until nothing is left that the end of a node has to wait for.
pub(super) fn poll_end(core: &Core, node: NodeId, waker: &Waker) -> Poll<()> {
    let is_done = || core.tree.borrow_mut().is_done(node);
    if is_done() {
        return Poll::Ready(());
    }
    // Copied outside of the borrow: it is foreign code, which may end what is waited for.
    let waker = waker.clone();
    let stale = core.tree.borrow_mut().await_end(node, waker);
    drop(stale);
    if is_done() {
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}

/// A body's first poll, in a scope that has a node only if somebody has asked for it. However it ends, the scope has
/// one, but by [`First::end`].
struct First<'a> {
    active: &'a Active,
    core: &'a Core,
    scope: &'a Scope,
    is_over: bool,
}

impl<'a> First<'a> {
    #[inline]
    fn begin(active: &'a Active, core: &'a Core, scope: &'a Scope, deadline: Instant) -> Self {
        scope.used.set(true);
        core.begin_first_poll(FirstPoll {
            of: Of::Scope {
                name: scope.name(),
                grace: scope.grace,
                deadline,
            },
            nodes: None,
        });
        Self {
            active,
            core,
            scope,
            is_over: false,
        }
    }

    /// The body is gone: a scope that has no node has ended.
    #[inline]
    fn end(&mut self) {
        self.is_over = true;
        match self.core.end_first_poll() {
            Some(nodes) => self.go_on(nodes),
            None => self.scope.ended.set(true),
        }
    }

    /// Lets the run go on with a node.
    #[cold]
    fn go_on(&self, (node, outside): (NodeId, NodeId)) {
        let home = self.core.identity();
        self.scope.entered.set(Some(Entered { node, home }));
        self.active.node.set(Some(node));
        self.active.outside.set(Some(outside));
        self.active.task.set(self.core.running.get());
        self.active.home.set(home);
    }
}

impl Drop for First<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_over {
            self.core.active();
            let nodes = self.core.end_first_poll();
            self.go_on(nodes.expect("it was opened"));
        }
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
        let active = Active::default();
        current::with(|core| active.begin(core, scope, kind))?;
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
        current::try_with(|core| self.active.end(core, self.scope));
        self.scope.ended.set(true);
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
            let this = this.project();
            this.active.drop_body(this.body);
        }
    }
}

impl<F: Future> Future for Body<'_, F> {
    type Output = Result<F::Output, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        current::with(|core| {
            let output = match this.active.follow(core) {
                Ok(()) => Ok(ready!(this.active.poll_body(core, this.body.as_mut(), cx))),
                Err(misuse) => Err(misuse),
            };
            this.active.inside(core, || this.body.set(None));
            Poll::Ready(output)
        })
    }
}

pin_project! {
    /// A scope and its body, from entry to end. Holds the body once: scopes are nested, and a copy
    /// more per level doubles with each.
    #[must_use = "a scope does nothing unless its run is awaited"]
    pub(super) struct Run<S: Borrow<Scope>, F: Future> {
        scope: S,
        active: Active,
        #[pin]
        body: Option<F>,
        output: Option<F::Output>,
        absorbs: bool,
    }

    impl<S: Borrow<Scope>, F: Future> PinnedDrop for Run<S, F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // What the body gave is none of the scope's.
            if this.active.has_begun() {
                this.active.give_up((*this.scope).borrow(), this.body);
            }
        }
    }
}

impl<S: Borrow<Scope>, F: Future> Run<S, F> {
    pub(super) fn new(scope: S, body: F) -> Self {
        Self {
            scope,
            active: Active::default(),
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
        current::with(|core| {
            let active = &*this.active;
            let unopened = match active.has_begun() {
                true => None,
                false => scope.unopened_until(),
            };
            let followed = if active.has_begun() {
                active.follow(core)
            } else if unopened.is_some() {
                Ok(())
            } else {
                active.begin(core, scope, Kind::Scope)?;
                Ok(())
            };
            let output = match (this.output.take(), unopened) {
                (Some(output), _) => output,
                (None, Some(deadline)) => {
                    let run = (scope, deadline);
                    ready!(active.poll_first(core, run, this.body.as_mut(), cx, this.absorbs))
                }
                (None, None) => {
                    let output = match followed {
                        Ok(()) => ready!(active.poll_body(core, this.body.as_mut(), cx)),
                        Err(misuse) => Err(misuse.into()),
                    };
                    // Whose a cancellation is, is decided when the body ends; what is cancelled
                    // while the kernel is waited for changes nothing.
                    if let Err(error) = &output {
                        let cancelled = error.cancelled();
                        *this.absorbs = cancelled.is_some_and(|found| active.absorbs(core, found));
                    }
                    active.inside(core, || this.body.set(None));
                    output
                }
            };
            if active.has_begun() && !active.end_unnoticed(core, scope) {
                if active.poll_done(core, cx.waker()).is_pending() {
                    *this.output = Some(output);
                    return Poll::Pending;
                }
                active.end(core, scope);
            }
            match output {
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
        })
    }
}

/// A scope's node of the tree, and the life of a core that the tree is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entered {
    pub(super) node: NodeId,
    pub(super) home: u64,
}

impl Entered {
    /// Opens a node for a scope that has none, and lets it have the cancel that came before.
    pub(super) fn put(core: &Core, scope: &Scope, parent: NodeId, kind: Kind) -> NodeId {
        let mut tree = core.tree.borrow_mut();
        let node = tree.open(parent, kind, scope.shield.get());
        if scope.grace > Duration::ZERO {
            tree.set_grace_period(node, scope.grace);
        }
        drop(tree);
        let home = core.identity();
        scope.entered.set(Some(Self { node, home }));
        scope.pass_cause_on(core, node);
        node
    }

    /// Takes the node away.
    pub(super) fn close(self) {
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
