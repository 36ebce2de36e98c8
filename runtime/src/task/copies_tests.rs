//! Wakers of others, which come back into the runtime when they are copied.
//!
//! Here, since no safe waker runs code of its own then.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::ptr;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use super::current;
use crate::op::{self, Listener, Socket};
use crate::time::{Alarm, Instant, sleep};
use crate::{Cancelled, Scope, block_on, check, group, leave_behind, spawn, yield_now};

const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(1000);

thread_local! {
    /// How often one has been copied.
    static COPIES: Cell<u32> = const { Cell::new(0) };
}

/// Two wakers in turn, so that each poll is somebody else's.
fn next_waker() -> Waker {
    let number = COPIES.get() as usize % 2;
    // SAFETY: the functions of the vtable touch no memory by the data, so it may be any number, on any thread.
    unsafe { Waker::from_raw(RawWaker::new(ptr::without_provenance(number), &VTABLE)) }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(copy, |_| {}, |_| {}, |_| {});

/// Uses all that a core keeps.
fn copy(number: *const ()) -> RawWaker {
    COPIES.set(COPIES.get() + 1);
    let mut nobody = Context::from_waker(Waker::noop());
    let scope = Scope::new();
    scope.cancel();
    assert!(scope.cancelled().is_some());
    drop(spawn(async {}));
    assert!(
        pin!(Alarm::at(Instant::now() + LONG))
            .poll(&mut nobody)
            .is_pending()
    );
    // In a scope that is cancelled both are refused.
    let _ = pin!(sleep(LONG)).poll(&mut nobody);
    let _ = pin!(op::nop()).poll(&mut nobody);
    RawWaker::new(number, &VTABLE)
}

/// Polls a future for others until it ends, by itself: their wakes go nowhere.
async fn for_others<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let waker = next_waker();
        let polled =
            poll_fn(|_| Poll::Ready(future.as_mut().poll(&mut Context::from_waker(&waker))));
        if let Poll::Ready(output) = polled.await {
            return output;
        }
        // Also where all else is refused.
        Scope::new()
            .shielded()
            .run(yield_now())
            .await
            .expect("a shield");
    }
}

/// Runs a body, in which so many copies are made at least.
fn with_copies<F: Future>(least: u32, body: impl FnOnce() -> F) -> F::Output {
    block_on(async {
        COPIES.set(0);
        let output = for_others(body()).await;
        assert!(COPIES.get() >= least, "{} copies", COPIES.get());
        output
    })
    .expect("a core")
}

#[test]
fn of_a_wait_for_time() {
    with_copies(2, || sleep(SHORT)).expect("nobody cancels");
    with_copies(2, || Alarm::at(Instant::now() + SHORT));
}

#[test]
fn of_an_op() {
    let read = with_copies(3, async || {
        let (reader, writer) = op::pipe().expect("a pipe");
        let writes = spawn(async move {
            sleep(SHORT).await?;
            op::write(&writer, b"x".to_vec())
                .await
                .0
                .expect("a pipe has room");
            Ok::<_, Cancelled>(())
        });
        let (read, _) = op::read(&reader, vec![0; 8]).await;
        writes.await.expect("it ends well").expect("nobody cancels");
        read
    });
    assert_eq!(read.expect("a byte"), 1);
}

#[test]
fn of_a_listener_that_pauses() {
    with_copies(3, async || {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = Socket::tcp(nowhere).expect("a socket");
        socket.bind(nowhere).expect("a port is free");
        socket.listen(1).expect("it is bound");
        let listener = Listener::new(socket);
        let scope = Scope::new().timeout(SHORT);
        let accepted = scope.run(async { listener.accept().await.map(drop) });
        assert!(accepted.await.is_ok_and(|accepted| accepted.is_none()));
        assert!(listener.pause().await.is_empty());
    });
}

#[test]
fn of_who_waits_for_what_a_scope_left_behind() {
    let ended = with_copies(3, async || {
        let scope = Scope::new();
        let run = scope.run(async {
            leave_behind(async {
                let _ = sleep(SHORT).await;
            });
            Ok::<_, Cancelled>(())
        });
        run.await
    });
    assert_eq!(ended, Ok(Some(())));
}

#[test]
fn of_a_group_with_a_daemon() {
    let ended = with_copies(3, async || {
        group(async |g| {
            g.spawn_daemon(async {
                let _ = sleep(LONG).await;
                let late = Scope::new().shielded();
                late.run(sleep(SHORT)).await.map(drop)
            });
            let child = g.spawn(async { sleep(SHORT).await });
            child.await.expect("it ends well");
            Ok::<_, Cancelled>(())
        })
        .await
    });
    assert!(ended.is_ok(), "{ended:?}");
}

#[test]
fn of_a_task_that_has_to_pause() {
    let pauses = with_copies(3, async || {
        let scope = Scope::new();
        scope.cancel();
        let swallows = scope.run(async {
            let pauses = || current::with(|core| core.counters().pauses.get());
            let before = pauses();
            while pauses() < before + 2 {
                let _ = yield_now().await;
            }
            Ok::<_, Cancelled>(pauses() - before)
        });
        swallows.await
    });
    assert_eq!(pauses, Ok(Some(2)));
}

#[test]
fn of_a_body_that_waits_in_something_foreign() {
    let ended = with_copies(3, async || {
        let scope = Scope::new().timeout(SHORT);
        let waits = scope.run(poll_fn(|_| {
            check().map_or_else(|cause| Poll::Ready(Err::<(), _>(cause)), |()| Poll::Pending)
        }));
        waits.await
    });
    assert_eq!(ended, Ok(None));
}
