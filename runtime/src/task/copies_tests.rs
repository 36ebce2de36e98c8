//! Wakers of others, which come back into the runtime when they are copied, or dropped.
//!
//! Here, since no safe waker runs code of its own then.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::hint::spin_loop;
use std::net::SocketAddr;
use std::pin::pin;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::Duration;

use super::current;
use crate::blocking::{self, JobError};
use crate::op::{self, Listener, Socket};
use crate::sync::{Event, OnceCell, Semaphore, broadcast, channel, oneshot, shared, watch};
use crate::time::{Alarm, Instant, sleep};
use crate::{
    Cancelled, Closed, Handle, Scope, block_on, check, group, leave_behind, spawn, yield_now,
};

const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(1000);

thread_local! {
    /// How often one has been copied.
    static COPIES: Cell<u32> = const { Cell::new(0) };
    /// How often one has been woken.
    static WAKES: Cell<u32> = const { Cell::new(0) };
    /// What the next copy does besides.
    static ALSO: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
    /// What the next one does that is dropped.
    static LAST: Cell<Option<Box<dyn FnOnce()>>> = const { Cell::new(None) };
}

/// Two wakers in turn, so that each poll is somebody else's.
fn next_waker() -> Waker {
    let number = COPIES.get() as usize % 2;
    // SAFETY: the functions of the vtable touch no memory by the data, so it may be any number, on any thread.
    unsafe { Waker::from_raw(RawWaker::new(ptr::without_provenance(number), &VTABLE)) }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(copy, note_wake, note_wake, end);

fn end(_: *const ()) {
    if let Some(last) = LAST.take() {
        last();
    }
}

fn note_wake(_: *const ()) {
    WAKES.set(WAKES.get() + 1);
}

/// Uses all that a core keeps.
fn copy(number: *const ()) -> RawWaker {
    COPIES.set(COPIES.get() + 1);
    if let Some(also) = ALSO.take() {
        also();
    }
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

/// Runs a body, in which so many copies are made at least: again, if the thread was kept from it until what it waits for
/// was there.
fn with_copies<F: Future>(least: u32, body: impl Fn() -> F) -> F::Output {
    for _ in 0..100 {
        COPIES.set(0);
        let output = block_on(for_others(body())).expect("a core");
        if COPIES.get() >= least {
            return output;
        }
    }
    panic!("{} copies", COPIES.get());
}

#[test]
fn of_a_wait_for_time() {
    with_copies(2, || sleep(SHORT)).expect("nobody cancels");
    // Its time begins on the core: to start one may take longer.
    with_copies(2, async || Alarm::at(Instant::now() + SHORT).await);
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

/// The descriptor is closed while the waker of an op that begins on it is copied, and another is under way.
#[test]
fn of_an_op_whose_descriptor_is_closed_meanwhile() {
    block_on(async {
        let (reader, _writer) = op::pipe().expect("a pipe");
        let other = reader.clone();
        let other = spawn(async move { op::read(&other, [0; 4]).await.0 });
        op::nop().await.expect("nobody cancels");
        let (closing, mut begun) = oneshot::channel();
        let fd = reader.clone();
        ALSO.set(Some(Box::new(move || {
            let mut close = Box::pin(op::close(fd));
            let nobody = &mut Context::from_waker(Waker::noop());
            assert!(close.as_mut().poll(nobody).is_pending());
            assert!(closing.send(close).is_ok());
        })));
        let (read, _) = for_others(op::read(&reader, [0; 4])).await;
        let other = other.await.expect("no panic");
        begun
            .recv()
            .await
            .expect("it was copied")
            .await
            .expect("closed");
        for ended in [read, other] {
            let error = ended.expect_err("nothing was written");
            let inner = error.get_ref();
            assert!(inner.is_some_and(|inner| inner.is::<Closed>()), "{error}");
        }
    })
    .expect("a core");
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

/// Of two who come for a buffer, one while the other's waker is copied, both are woken.
#[test]
fn of_who_waits_for_a_buffer() {
    let woken = block_on(async {
        ALSO.set(Some(Box::new(|| {
            current::with(|core| core.buffers.wake_when_provided(Waker::noop()));
        })));
        let waker = next_waker();
        current::with(|core| {
            core.buffers.wake_when_provided(&waker);
            core.buffers.wakes().len()
        })
    });
    assert_eq!(woken.expect("a core"), 2);
    assert!(ALSO.take().is_none(), "the waker was copied");
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
        let mut polls = 0;
        let waits = scope.run(poll_fn(move |_| {
            polls += 1;
            match check() {
                Err(cause) if polls > 3 => Poll::Ready(Err::<(), _>(cause)),
                _ => Poll::Pending,
            }
        }));
        waits.await
    });
    assert_eq!(ended, Ok(None));
}

/// Polls a future once, with a waker that does this when it is copied.
fn polled_with<F: Future>(future: F, also: impl FnOnce() + 'static) -> Poll<F::Output> {
    ALSO.set(Some(Box::new(also)));
    let waker = next_waker();
    let polled = pin!(future).poll(&mut Context::from_waker(&waker));
    assert!(ALSO.take().is_none(), "the waker was not copied");
    polled
}

#[test]
fn what_a_copy_brings_about_is_not_waited_for() {
    block_on(async {
        let permits = Rc::new(Semaphore::new(1));
        let permit = Rc::clone(&permits).acquire_owned().await.expect("free");
        let polled = polled_with(permits.acquire(), || drop(permit));
        assert!(polled.is_ready(), "a permit");

        let (sender, receiver) = channel::bounded(1);
        let (sender, receiver) = (Rc::new(sender), Rc::new(receiver));
        let sends = Rc::clone(&sender);
        let polled = polled_with(receiver.recv(), move || sends.try_send(1).expect("room"));
        assert_eq!(polled, Poll::Ready(Ok(Some(1))));
        sender.try_send(2).expect("room");
        let receives = Rc::clone(&receiver);
        let polled = polled_with(sender.send(3), move || {
            assert_eq!(receives.try_recv(), Ok(2));
        });
        assert_eq!(polled, Poll::Ready(Ok(())));
        assert_eq!(receiver.try_recv(), Ok(3));
        let receives = Rc::clone(&receiver);
        sender.try_send(4).expect("room");
        let polled = polled_with(sender.send(5), move || receives.close());
        assert_eq!(polled, Poll::Ready(Err(channel::SendError::Closed(5))));

        let (sender, mut receiver) = oneshot::channel();
        let polled = polled_with(receiver.recv(), || sender.send(6).expect("it is there"));
        assert_eq!(polled, Poll::Ready(Ok(6)));

        let event = Rc::new(Event::new());
        let sets = Rc::clone(&event);
        assert_eq!(
            polled_with(event.wait(), move || sets.set()),
            Poll::Ready(Ok(()))
        );

        let (sender, mut receiver) = watch::channel(0);
        let polled = polled_with(receiver.changed(), move || drop(sender.send(7)));
        assert_eq!(polled, Poll::Ready(Ok(Some(Rc::new(7)))));

        let (sender, mut receiver) = broadcast::bounded(1);
        let polled = polled_with(receiver.recv(), move || assert_eq!(sender.send(8), Ok(1)));
        assert_eq!(polled, Poll::Ready(Ok(Some(8))));

        let cell = Rc::new(OnceCell::new());
        let mut makes = Box::pin({
            let cell = Rc::clone(&cell);
            async move { cell.get_or_init(pending::<u32>).await.copied() }
        });
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(makes.as_mut().poll(&mut nobody).is_pending());
        let polled = polled_with(cell.get_or_init(async || 9), move || drop(makes));
        assert_eq!(polled, Poll::Ready(Ok(&9)));
    })
    .expect("a core");
}

#[test]
fn who_is_cancelled_by_a_copy_does_not_wait() {
    let refused = |wait: &dyn Fn(Box<dyn FnOnce()>) -> bool| {
        let ended = block_on(async {
            let scope = Scope::new();
            let handle = scope.handle();
            let body = poll_fn(|_| {
                let is_refused = wait(Box::new(move || {
                    handle.cancel();
                    assert!(check().is_err());
                }));
                Poll::Ready(Ok::<_, Cancelled>(is_refused))
            });
            scope.run(body).await
        });
        ended.expect("a core").expect("nobody else cancels") == Some(true)
    };
    let permits = Semaphore::new(0);
    assert!(refused(&|cancels| matches!(
        polled_with(permits.acquire(), cancels),
        Poll::Ready(Err(_))
    )));
    let event = Event::new();
    assert!(refused(&|cancels| matches!(
        polled_with(event.wait(), cancels),
        Poll::Ready(Err(_))
    )));
    let (sender, receiver) = channel::bounded(0);
    assert!(refused(&|cancels| matches!(
        polled_with(sender.send(1), cancels),
        Poll::Ready(Err(channel::SendError::Cancelled(1, _)))
    )));
    assert!(refused(&|cancels| matches!(
        polled_with(receiver.recv(), cancels),
        Poll::Ready(Err(_))
    )));
}

/// The same in lines that several cores share, and of a job.
#[test]
fn who_is_cancelled_by_a_copy_waits_on_no_other_core_and_for_no_job() {
    /// Polls a wait with a waker of which a copy cancels the scope, and once more if it is woken.
    fn refused<F: Future>(
        at_copy: u32,
        first: Option<mpsc::Receiver<()>>,
        wait: impl FnOnce() -> F,
    ) -> Option<F::Output> {
        let mut first = Some(first);
        let mut wait = pin!(Some(wait()));
        let ended = block_on(async {
            let scope = Scope::new();
            let handle = scope.handle();
            let body = poll_fn(|cx| {
                fn at(copy: u32, cancels: impl FnOnce() + 'static) {
                    ALSO.set(Some(Box::new(move || match copy {
                        1 => cancels(),
                        _ => at(copy - 1, cancels),
                    })));
                }
                let first = first.take().expect("it is polled once");
                at(at_copy, move || {
                    if let Some(first) = first {
                        first.recv().expect("it begins");
                    }
                    handle.cancel();
                    assert!(check().is_err());
                });
                let mut wait = wait.as_mut().as_pin_mut().expect("it waits");
                let waker = next_waker();
                WAKES.set(0);
                let mut polled = wait.as_mut().poll(&mut Context::from_waker(&waker));
                assert!(ALSO.take().is_none(), "{at_copy} copies");
                if polled.is_pending() && WAKES.take() > 0 {
                    polled = wait.poll(cx);
                }
                Poll::Ready(Ok::<_, Cancelled>(polled))
            });
            let polled = scope.run(body).await.expect("nobody else cancels");
            wait.set(None);
            polled
        });
        match ended.expect("a core")? {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    let permits = shared::Semaphore::new(0);
    let (sender, receiver) = shared::channel::bounded(0);
    for at_copy in 1..=3 {
        let refused_permit = refused(at_copy, None, || permits.acquire());
        assert!(matches!(refused_permit, Some(Err(_))), "{at_copy}");
        let unsent = refused(at_copy, None, || sender.send(1)).expect("it is refused");
        assert!(unsent.is_err_and(|error| error.cancelled().is_some()));
        let received = refused(at_copy, None, || receiver.recv());
        assert!(matches!(received, Some(Err(_))), "{at_copy}");
        assert_eq!((sender.waiting(), receiver.waiting()), (0, 0));
    }
    let job = refused(1, None, || {
        blocking::run(|_| panic!("it is not run: nobody waits for it yet"))
    });
    assert!(matches!(job, Some(Err(JobError::Cancelled(_)))), "{job:?}");
    for at_copy in 1..=2 {
        let (begins, begun) = mpsc::channel();
        let (ends, runs) = mpsc::channel::<()>();
        // At the first copy there is no job yet; at the next it runs.
        let first = (at_copy > 1).then_some(begun);
        let job = refused(at_copy, first, || {
            blocking::run_abandonable(move |_| {
                let _ = begins.send(());
                runs.recv().is_err()
            })
        });
        assert!(
            matches!(job, Some(Err(JobError::Cancelled(_)))),
            "{at_copy}"
        );
        drop(ends);
    }
}

/// The waker that was copied in vain, as the result has come meanwhile, cancels what has just ended.
#[test]
fn a_result_is_given_once_whatever_its_wakers_do() {
    struct Bell(AtomicBool);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    for at_copy in 1..=2 {
        let given = block_on(async {
            let scope = Scope::new();
            let handle = scope.handle();
            let bell = Arc::new(Bell(AtomicBool::new(false)));
            let (ends, runs) = mpsc::channel::<()>();
            let mut job = pin!(blocking::run_abandonable(move |_| runs.recv().is_err()));
            let body = poll_fn(|_| {
                let first = Waker::from(Arc::clone(&bell));
                let polled = job.as_mut().poll(&mut Context::from_waker(&first));
                assert!(polled.is_pending());
                fn at(copy: u32, ends: impl FnOnce() + 'static) {
                    ALSO.set(Some(Box::new(move || match copy {
                        1 => ends(),
                        _ => at(copy - 1, ends),
                    })));
                }
                let (bell, ends) = (Arc::clone(&bell), ends.clone());
                at(at_copy, move || {
                    ends.send(()).expect("it runs");
                    while !bell.0.load(Ordering::Acquire) {
                        spin_loop();
                    }
                    LAST.set(Some(Box::new(move || {
                        handle.cancel();
                        assert!(check().is_err());
                    })));
                });
                let waker = next_waker();
                let polled = job.as_mut().poll(&mut Context::from_waker(&waker));
                assert!(ALSO.take().is_none(), "{at_copy} copies");
                drop(LAST.take());
                polled.map(Ok::<_, Cancelled>)
            });
            let given = scope.run(body).await.expect("nobody else cancels");
            let counted = Handle::current().expect("a core").metrics()[0].panics;
            assert_eq!(counted, 0, "{at_copy}");
            given.expect("it has ended")
        });
        assert!(matches!(given.expect("a core"), Ok(false)), "{at_copy}");
    }
}
