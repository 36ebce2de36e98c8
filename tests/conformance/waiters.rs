//! What the rows about waiting share: tasks in scopes of their own, whose polls are counted.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use quoit::{CancelHandle, Handle, JoinHandle, Scope, check, spawn, yield_now};
use tests::gauges;

/// A task whose body runs in a scope of its own.
pub(crate) struct Waiter<T: 'static> {
    pub(crate) scope: CancelHandle,
    polls: Rc<Cell<u32>>,
    task: JoinHandle<io::Result<Option<T>>>,
}

/// Starts a task whose body runs in a scope of its own.
pub(crate) fn waiter<T: 'static>(body: impl Future<Output = io::Result<T>> + 'static) -> Waiter<T> {
    let scope = Scope::new();
    let handle = scope.handle();
    let polls = Rc::new(Cell::new(0));
    let count = Rc::clone(&polls);
    let task = spawn(async move {
        let mut run = pin!(scope.run(body));
        poll_fn(|cx| {
            count.set(count.get() + 1);
            run.as_mut().poll(cx)
        })
        .await
    });
    Waiter {
        scope: handle,
        polls,
        task,
    }
}

impl<T: 'static> Waiter<T> {
    /// Returns how often the task was polled.
    pub(crate) fn polls(&self) -> u32 {
        self.polls.get()
    }

    pub(crate) fn cancel(&self) {
        self.scope.cancel();
    }

    /// Waits for the end; `None` if the scope has absorbed a cancel.
    pub(crate) async fn end(self) -> Option<T> {
        let output = self.task.await.expect("the task ended");
        output.expect("no error but a cancel")
    }

    /// Waits for the end of a task that was polled so often: once to begin, and once for each wake.
    pub(crate) async fn end_after(self, polls: u32) -> Option<T> {
        let count = Rc::clone(&self.polls);
        let value = self.end().await;
        assert_eq!(count.get(), polls, "polls");
        value
    }
}

/// Lets other tasks run until something holds.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        yield_now().await.expect("nobody cancels the test");
    }
    panic!("it does not come to hold");
}

/// Checks that the next op is refused, and passes the refusal on.
pub(crate) async fn next_op_is_refused<T>(value: T, seen: &Cell<Option<T>>) -> io::Result<T> {
    assert!(check().is_err(), "the scope is cancelled");
    seen.set(Some(value));
    Err(yield_now()
        .await
        .expect_err("the scope is cancelled")
        .into())
}

/// Polls two futures in turn until both have ended.
pub(crate) async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            second = Some(output);
        }
        if first.is_some() && second.is_some() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    (first.expect("ended"), second.expect("ended"))
}

/// Checks that no op but this one is parked, and no scope open but that of this task.
pub(crate) async fn nothing_is_left(handle: &Handle) {
    let gauges = gauges(handle).await;
    assert_eq!((gauges.parked, gauges.scopes, gauges.tasks), (1, 2, 1));
}
