//! Corners where two mechanisms meet: a busy core and its clock, bytes that were put back and a cancel.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use quoit::op::{self, ReceiveWait, SharedFd, Stream};
use quoit::sim::{Fault, Sim};
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{Cores, JoinHandle, RemoteHandle, RingFeature, Runtime, Scope, spawn, yield_now};
use tests::{
    Drops, Kernel, both_streams, on_both, on_core, on_ring, on_ring_of, poll_once, until_parked,
};

const LONG: Duration = Duration::from_secs(3600);

fn pipe() -> (SharedFd, SharedFd) {
    op::pipe().expect("a pipe")
}

/// A stream of which the first byte of "hello" was read, so that the rest lies with it.
async fn with_a_rest() -> (Stream, Stream) {
    loop {
        let (ours, theirs) = both_streams().await;
        theirs.send_all("hello").await.0.expect("connected");
        let chunk = ours.receive().await.expect("no error").expect("no end");
        // An unruly kernel may give less of it.
        if chunk.len() == 5 {
            ours.put_back(chunk);
            let (count, first) = ours.read([0; 1]).await;
            assert_eq!((count.expect("a byte"), first), (1, *b"h"));
            return (ours, theirs);
        }
    }
}

/// Yields until `task` has ended, a million times at most; returns whether it has.
async fn ends_while_this_task_yields<T: 'static>(task: &JoinHandle<T>) -> bool {
    for _ in 0..1_000_000 {
        if task.is_finished() {
            return true;
        }
        yield_now().await.expect("nobody cancels");
    }
    task.is_finished()
}

// --- a core that is never idle: on the real ring, since a simulated clock stands still meanwhile ---

#[test]
fn a_timer_fires_while_a_task_yields_without_end() {
    on_ring(|_| async {
        let sleeper = spawn(sleep(Duration::from_millis(1)));
        assert!(ends_while_this_task_yields(&sleeper).await);
    });
}

thread_local! {
    /// What [`PollsAtOnce`] polls.
    static AT_ONCE: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>> = const { RefCell::new(None) };
}

/// A waker that polls where it is woken, as some libraries do.
struct PollsAtOnce;

impl Wake for PollsAtOnce {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(self);
        AT_ONCE.with_borrow_mut(|future| {
            let future = future.as_mut().expect("it is there");
            let _ended = future.as_mut().poll(&mut Context::from_waker(&waker));
        });
    }
}

#[test]
fn a_timer_fires_while_a_waker_that_polls_at_once_yields_without_end() {
    on_ring(|_| async {
        let sleeper = spawn(sleep(Duration::from_millis(1)));
        let (ended, over) = (Rc::new(Cell::new(false)), Rc::new(Event::new()));
        let (says, tells) = (Rc::clone(&ended), Rc::clone(&over));
        AT_ONCE.set(Some(Box::pin(async move {
            says.set(ends_while_this_task_yields(&sleeper).await);
            tells.set();
            pending().await
        })));
        Waker::from(Arc::new(PollsAtOnce)).wake();
        over.wait().await.expect("nobody cancels");
        drop(AT_ONCE.take());
        assert!(ended.get());
    });
}

#[test]
fn a_completion_is_seen_while_a_task_yields_without_end() {
    for builder in [
        Runtime::builder(),
        Runtime::builder().without(RingFeature::TaskrunFlag),
    ] {
        on_ring_of(builder, |_| async {
            let (reader, writer) = pipe();
            let read = spawn(async move { op::read(&reader, [0; 8]).await.0 });
            for _ in 0..100 {
                yield_now().await.expect("nobody cancels");
            }
            assert!(!read.is_finished(), "nothing was written");
            op::write(&writer, "x").await.0.expect("room");
            assert!(ends_while_this_task_yields(&read).await);
        });
    }
}

// --- what a stream holds back ---

#[test]
fn a_receive_of_a_rest_delivers_a_cancel_that_was_on_its_way() {
    on_core(|_| async {
        let (stream, _theirs) = with_a_rest().await;
        let scope = Scope::new();
        scope.handle().cancel();
        let outcome = scope.run(stream.receive()).await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        let rest = stream.receive().await.expect("no error").expect("no end");
        assert_eq!(&*rest, b"ello");
    });
}

#[test]
fn a_poll_of_a_rest_delivers_a_cancel_that_was_on_its_way() {
    on_core(|_| async {
        let (stream, _theirs) = with_a_rest().await;
        let scope = Scope::new();
        scope.handle().cancel();
        let mut wait = ReceiveWait::default();
        let outcome = scope
            .run(poll_fn(|cx| stream.poll_receive(&mut wait, cx)))
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        stream.end_receive(&mut wait);
        let rest = stream.receive().await.expect("no error").expect("no end");
        assert_eq!(&*rest, b"ello");
    });
}

#[test]
fn bytes_that_are_put_back_wake_who_waits_for_some() {
    on_core(|_| async {
        let (ours, theirs) = both_streams().await;
        let stream = Rc::new(ours);
        theirs.send_all("!").await.0.expect("connected");
        let chunk = stream.receive().await.expect("no error").expect("no end");
        let waiting = Rc::clone(&stream);
        let waiter = spawn(async move { waiting.receive().await });
        yield_now().await.expect("nobody cancels");
        assert!(!waiter.is_finished(), "there is nothing to receive");
        stream.put_back(chunk);
        for _ in 0..10 {
            yield_now().await.expect("nobody cancels");
        }
        assert!(waiter.is_finished());
        let received = waiter.await.expect("it ended").expect("no error");
        assert_eq!(&*received.expect("no end"), b"!");
    });
}

// --- the end of a core ---

// On the real ring: the test waits for the core by a channel.

/// The long one is short enough for the test to end if it counts, which would be wrong.
#[test]
fn a_core_that_waits_out_its_grace_hears_of_a_shorter_one() {
    let long = Duration::from_secs(10);
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .build()
        .expect("a core");
    let handle = runtime.handle();
    let (tell, told) = mpsc::channel();
    let observed = handle.clone();
    let endless = handle.spawn(handle.cores()[0], move || async move {
        sleep(LONG).await.expect_err("the runtime stops");
        tell.send(observed.metrics()[0].parks)
            .expect("the test listens");
        std::future::pending::<()>().await;
    });
    let begin = Instant::now();
    handle.shutdown_within(long);
    // It parks with nothing to wait for but the end of its grace.
    until_parked(&handle, told.recv().expect("the task hears of it"));
    runtime.shutdown(Duration::from_millis(1));
    assert!(begin.elapsed() < long, "the second call had no effect");
    assert!(endless.expect("room").wait().is_err());
}

// On both again.

/// Begins a read that nothing comes for.
async fn begun_read() -> impl Future {
    let (reader, writer) = pipe();
    let mut read = Box::pin(async move {
        let _writer = writer;
        op::read(&reader, vec![0; 8]).await
    });
    assert!(poll_once(read.as_mut()).await.is_pending());
    read
}

/// All its tasks have ended; what it waits for is the kernel alone. The simulation looks whether it has heard.
#[test]
fn a_core_that_has_nothing_left_to_run_hears_of_a_shorter_grace() {
    Sim::with_seed(0).force(Fault::CancelledLate, 0).run(|| {
        let runtime = Runtime::builder().cores(Cores::Count(1));
        let runtime = runtime.build().expect("a core");
        let handle = runtime.handle();
        let asks = handle.clone();
        let (tell, told) = RemoteHandle::channel();
        let last = handle.spawn(handle.cores()[0], move || async move {
            let _read = begun_read().await;
            tell.send(());
            sleep(LONG).await.expect_err("the runtime stops");
            asks.shutdown_within(Duration::ZERO);
        });
        told.wait().expect("it reads");
        runtime.shutdown(LONG);
        last.expect("room").wait().expect("it ended by itself");
    });
}

/// As above, of one that has begun to wait: it is woken for that, or it would wait until the kernel lets go.
#[test]
fn a_core_that_waits_for_the_kernel_alone_is_woken_for_a_shorter_grace() {
    Sim::with_seed(0).force(Fault::CancelledLate, 0).run(|| {
        let runtime = Runtime::builder().cores(Cores::Count(1));
        let runtime = runtime.build().expect("a core");
        let (handle, core) = (runtime.handle(), runtime.handle().cores()[0]);
        let pass = |nanos| {
            let (_sender, never) = RemoteHandle::<()>::channel();
            let waited = never.wait_for(Duration::from_nanos(nanos));
            assert!(waited.is_err(), "nobody sends");
        };
        let reading = handle.spawn(core, || async { drop(begun_read().await) });
        reading.expect("room").wait().expect("it ended");
        handle.shutdown_within(LONG);
        while handle.spawn(core, || async {}).is_ok() {
            pass(10);
        }
        pass(10);
        let calls = || handle.metrics()[0].wake_calls;
        let before = calls();
        handle.shutdown_within(Duration::ZERO);
        assert_eq!(calls(), before + 1);
        drop(runtime);
    });
}

#[test]
fn the_end_of_a_core_drops_each_of_very_many_tasks_once() {
    on_both(|| {
        let tasks: u64 = match Kernel::here() {
            Kernel::Real => 20_000,
            Kernel::Simulated | Kernel::Unruly => 2_000,
        };
        let drops = Drops::new();
        let inner = drops.clone();
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a core");
        let handle = runtime.handle();
        let started = handle.spawn(handle.cores()[0], move || async move {
            for _ in 0..tasks {
                let counted = inner.value();
                drop(spawn(async move {
                    let _counted = counted;
                    std::future::pending::<()>().await;
                }));
            }
        });
        started.expect("room").wait().expect("it ended");
        assert_eq!((drops.alive(), drops.dropped()), (tasks, 0));
        runtime.shutdown(Duration::ZERO);
        assert_eq!((drops.alive(), drops.dropped()), (0, tasks));
    });
}
