//! Code that is not ours runs on a core: wakers, destructors, outputs, what a panic carries.
//!
//! It may panic, and it may come back into the runtime in the middle of something. Neither costs
//! the core its life, nor anybody else what they wait for.

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use quoit::op::{self, PipeReader, SharedFd, Stream};
use quoit::sync::{Condition, Event, Mutex};
use quoit::time::{Alarm, Instant, sleep};
use quoit::{
    Cancelled, CarriesCancelled, CoreId, Cores, Delivery, GroupPanic, Handle, JoinError,
    RemoteError, Runtime, Scope, Started, block_on, check, group, spawn, yield_now,
};
use tests::{Counted, Drops, Kernel, both_streams, gauges, on_both, on_core, poll_once};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(2);

/// A waker that somebody else wrote: code that runs when it is woken, and when its last clone is
/// dropped.
struct Foreign {
    woken: fn(),
    dropped: fn(),
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        (self.woken)();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        (self.dropped)();
    }
}

/// A waker whose wakes panic.
fn panics_when_woken() -> Waker {
    let woken = || panic!("in a waker");
    Waker::from(Arc::new(Foreign {
        woken,
        dropped: || {},
    }))
}

/// A waker that does nothing until its last clone is dropped.
fn when_dropped(dropped: fn()) -> Waker {
    Waker::from(Arc::new(Foreign {
        woken: || {},
        dropped,
    }))
}

/// A waker that counts.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    fn wakes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Polls a future once for somebody else: `waker` hears of its progress.
fn poll_for<F: Future + ?Sized>(waker: &Waker, future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// A pipe whose ends are used on a core.
fn pipe() -> (SharedFd, SharedFd) {
    op::pipe().expect("a pipe")
}

fn one_core() -> (Runtime, Handle) {
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    (runtime, handle)
}

/// Runs `body` on the core of a runtime, and says whether the core ended without a panic after it.
fn core_ends_well<M>(body: impl FnOnce() -> M + Send + 'static) -> bool
where
    M: Future<Output = ()> + 'static,
{
    let (runtime, handle) = one_core();
    let task = handle.spawn(handle.cores()[0], body).expect("room");
    task.wait().expect("the body ended well");
    catch_unwind(AssertUnwindSafe(|| runtime.shutdown(Duration::ZERO))).is_ok()
}

// --- wakers that panic ---

#[test]
fn a_waker_that_panics_costs_neither_the_core_nor_the_other_timers() {
    on_core(|handle| async move {
        let (before, before_waker) = Count::new();
        let (after, after_waker) = Count::new();
        let mut alarms = [Instant::now() + LONG; 3].map(Alarm::at);
        for (alarm, waker) in
            alarms
                .iter_mut()
                .zip([before_waker, panics_when_woken(), after_waker])
        {
            assert!(poll_for(&waker, Pin::new(alarm)).is_pending());
        }
        // Now they are due, one after the other.
        let due = Instant::now();
        for (alarm, nanos) in alarms.iter_mut().zip(0..) {
            alarm.reset(due + Duration::from_nanos(nanos));
        }
        // Later than these three: all of them have fired when it does.
        sleep(SHORT).await.expect("nobody cancels");
        assert_eq!((before.wakes(), after.wakes()), (1, 1));
        assert_eq!(handle.metrics()[0].panics, 1);
        op::nop().await.expect("the core works");
    });
}

/// The waits lie on the core; what they stand for is given up with them, whatever becomes of their wakers.
#[test]
fn a_waker_that_panics_when_dropped_costs_nothing_of_the_wait_that_is_given_up() {
    on_core(|handle| async move {
        let drops = Drops::new();
        let counted = drops.value();
        let event = Rc::new(Event::new());
        let ends = Rc::clone(&event);
        let mut task = spawn(async move {
            ends.wait().await.expect("nobody cancels");
            counted
        });
        yield_now().await.expect("nobody cancels");
        let waker = when_dropped(|| panic!("as planned"));
        assert!(poll_for(&waker, Pin::new(&mut task)).is_pending());
        let mut pause = Box::pin(sleep(LONG));
        assert!(poll_for(&waker, pause.as_mut()).is_pending());
        // Who polls has one as well, which is dropped first: nothing comes of that.
        drop(waker);
        drop(pause);
        assert_eq!(handle.metrics()[0].panics, 0);
        drop(task);
        assert_eq!(handle.metrics()[0].panics, 1);
        event.set();
        while drops.alive() > 0 {
            yield_now().await.expect("nobody cancels");
        }
        // One of each is the body of this test.
        let gauges = gauges(&handle).await;
        assert_eq!((gauges.tasks, gauges.parked), (1, 1));
    });
}

#[test]
fn a_waker_that_panics_keeps_a_cancel_from_nobody() {
    on_core(|_| async {
        let (before, before_waker) = Count::new();
        let (after, after_waker) = Count::new();
        let scope = Scope::new();
        let cancel = scope.handle();
        let outcome = scope
            .run(async {
                let mut waits = [(); 3].map(|()| Box::pin(sleep(LONG)));
                for (wait, waker) in
                    waits
                        .iter_mut()
                        .zip([before_waker, panics_when_woken(), after_waker])
                {
                    assert!(poll_for(&waker, wait.as_mut()).is_pending());
                }
                cancel.cancel();
                // Whoever looks delivers.
                let seen = check();
                assert_eq!((before.wakes(), after.wakes()), (1, 1));
                for mut wait in waits {
                    let ended = poll_once(wait.as_mut()).await;
                    assert!(matches!(ended, Poll::Ready(Err(_))), "{ended:?}");
                }
                seen
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

thread_local! {
    /// What a waker polls where it is woken.
    static POLLED: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>> = const { RefCell::new(None) };
}

/// The second was told before anybody was woken for the first.
#[test]
fn who_is_polled_by_a_waker_finds_what_its_handle_was_told_before() {
    let woken = || {
        let mut polled = POLLED.take().expect("it is woken once");
        assert!(poll_for(Waker::noop(), polled.as_mut()).is_ready());
    };
    let polls = Waker::from(Arc::new(Foreign {
        woken,
        dropped: || {},
    }));
    on_core(|_| async move {
        let (first, second) = (Scope::new(), Scope::new());
        let handles = [first.handle(), second.handle()];
        let was_refused = Rc::new(RefCell::new(None));
        let finds = Rc::clone(&was_refused);
        let mut is_begun = false;
        let body = async move {
            poll_fn(|_| match std::mem::replace(&mut is_begun, true) {
                false => Poll::Pending,
                true => Poll::Ready(()),
            })
            .await;
            finds.replace(Some(check().is_err()));
            Ok::<_, Cancelled>(())
        };
        let mut in_second = Box::pin(async move { _ = second.run(body).await });
        assert!(poll_for(Waker::noop(), in_second.as_mut()).is_pending());
        POLLED.set(Some(in_second));
        let mut in_first = pin!(first.run(sleep(LONG)));
        assert!(poll_for(&polls, in_first.as_mut()).is_pending());
        for handle in handles {
            assert_eq!(handle.cancel(), Delivery::Delivered);
        }
        yield_now().await.expect("nobody cancels this");
        assert_eq!(was_refused.take(), Some(true));
    });
}

thread_local! {
    /// Whether a waker was refused where its last clone was dropped.
    static REFUSED: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
}

/// As where it is woken: it is nobody's op.
#[test]
fn no_scope_is_active_where_the_waker_of_a_scope_that_ends_is_dropped() {
    on_core(|_| async {
        let scope = Scope::new();
        let ran = scope.run(async {
            scope.cancel();
            let inner = Scope::new();
            let mut waits = Box::pin(inner.run(pending::<Result<(), Cancelled>>()));
            let waker = when_dropped(|| {
                REFUSED.with_borrow_mut(|refused| refused.push(check().is_err()));
            });
            assert!(poll_for(&waker, waits.as_mut()).is_pending());
            drop(waker);
            assert!(REFUSED.take().is_empty(), "it is to be woken");
            drop(waits);
            assert_eq!(REFUSED.take(), [false]);
            check()
        });
        assert_eq!(ran.await, Ok(None));
    });
}

// --- wakers that do things ---

/// A waker is woken in the middle of a poll of a stream, and drops a receive of that stream.
#[test]
fn a_wake_inside_a_poll_of_a_stream_may_use_that_stream() {
    type Held = RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>;
    thread_local!(static HELD: Held = const { RefCell::new(None) });

    on_core(|_| async {
        let (ours, _theirs) = both_streams().await;
        let stream = Rc::new(ours);
        let scope = Scope::new();
        let cancel = scope.handle();
        let waker = Waker::from(Arc::new(Foreign {
            woken: || HELD.with(|held| drop(held.take())),
            dropped: || {},
        }));
        // Something in the scope waits with that waker.
        let mut run = Box::pin(scope.run(async move {
            let mut wait = pin!(sleep(LONG));
            poll_fn(|_| poll_for(&waker, wait.as_mut())).await
        }));
        assert!(poll_once(run.as_mut()).await.is_pending());
        let receiving = Rc::clone(&stream);
        let mut held: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
            drop(receiving.receive().await);
        });
        assert!(poll_once(held.as_mut()).await.is_pending());
        HELD.set(Some(held));
        cancel.cancel();
        // This poll sees the cancel, and delivers it.
        let mut next = pin!(stream.receive());
        let _ = poll_once(next.as_mut()).await;
        assert!(HELD.take().is_none(), "the waker was woken");
        let ended = poll_once(run.as_mut()).await;
        assert!(matches!(ended, Poll::Ready(Ok(None))), "{ended:?}");
    });
}

/// A waker is woken in the middle of a receive of bytes that were put back, and takes them.
#[test]
fn bytes_that_a_wake_has_taken_are_not_the_end_of_the_stream() {
    thread_local!(static STREAM: RefCell<Option<Rc<Stream>>> = const { RefCell::new(None) });

    on_core(|_| async {
        let (ours, theirs) = both_streams().await;
        let stream = Rc::new(ours);
        theirs.send_all("x").await.0.expect("connected");
        let chunk = stream.receive().await.expect("no error").expect("no end");
        stream.put_back(chunk);
        let scope = Scope::new();
        let cancel = scope.handle();
        let waker = Waker::from(Arc::new(Foreign {
            woken: || {
                let stream = STREAM.take().expect("it is woken once");
                let taken = poll_for(Waker::noop(), pin!(stream.receive()));
                assert!(matches!(taken, Poll::Ready(Ok(Some(_)))), "{taken:?}");
            },
            dropped: || {},
        }));
        // Something in the scope waits with that waker.
        let mut run = Box::pin(scope.run(async move {
            let mut wait = pin!(sleep(LONG));
            poll_fn(|_| poll_for(&waker, wait.as_mut())).await
        }));
        assert!(poll_once(run.as_mut()).await.is_pending());
        STREAM.set(Some(Rc::clone(&stream)));
        cancel.cancel();
        // This poll sees the cancel, and delivers it.
        let mut next = pin!(stream.receive());
        let received = poll_once(next.as_mut()).await;
        assert!(received.is_pending(), "{received:?}");
        assert!(STREAM.take().is_none(), "the waker was woken");
        theirs.send_all("y").await.0.expect("connected");
        let received = next.await.expect("no error").expect("no end");
        assert_eq!(&*received, b"y");
    });
}

/// The same of a pipe, where what a small buffer has left is received next.
#[test]
fn bytes_that_a_wake_has_taken_are_not_the_end_of_a_pipe() {
    thread_local!(static READER: RefCell<Option<Rc<PipeReader>>> = const { RefCell::new(None) });

    on_core(|_| async {
        let (reader, writer) = pipe();
        let reader = Rc::new(PipeReader::new(reader));
        op::write(&writer, "xy").await.0.expect("room");
        reader.read([0; 1]).await.0.expect("a byte");
        let scope = Scope::new();
        let cancel = scope.handle();
        let waker = Waker::from(Arc::new(Foreign {
            woken: || {
                let reader = READER.take().expect("it is woken once");
                let taken = poll_for(Waker::noop(), pin!(reader.receive()));
                // An unruly kernel may have left nothing to take.
                let is_taken = matches!(taken, Poll::Ready(Ok(Some(_))));
                assert!(is_taken || !Kernel::here().counts_exactly(), "{taken:?}");
            },
            dropped: || {},
        }));
        // Something in the scope waits with that waker.
        let mut run = Box::pin(scope.run(async move {
            let mut wait = pin!(sleep(LONG));
            poll_fn(|_| poll_for(&waker, wait.as_mut())).await
        }));
        assert!(poll_once(run.as_mut()).await.is_pending());
        READER.set(Some(Rc::clone(&reader)));
        cancel.cancel();
        // This poll sees the cancel, and delivers it.
        let received = poll_once(pin!(reader.receive())).await;
        assert!(READER.take().is_none(), "the waker was woken");
        assert!(received.is_pending(), "{received:?}");
    });
}

#[test]
fn the_waker_of_a_leaked_alarm_may_panic_when_the_end_of_a_core_drops_it() {
    on_both(|| {
        static DROPPED: AtomicBool = AtomicBool::new(false);

        DROPPED.store(false, Ordering::Relaxed);
        let ended_well = core_ends_well(|| async {
            let mut alarm = Box::pin(Alarm::at(Instant::now() + LONG));
            let waker = when_dropped(|| {
                DROPPED.store(true, Ordering::Relaxed);
                panic!("in the destructor of a waker");
            });
            assert!(poll_for(&waker, alarm.as_mut()).is_pending());
            std::mem::forget(alarm);
        });
        assert!(DROPPED.load(Ordering::Relaxed));
        assert!(ended_well);
    });
}

/// Waits for the lock that it had, as no cancel keeps it from.
async fn locks_again() {
    let (mutex, condition) = (Mutex::new(()), Condition::new());
    let guard = mutex.lock().await.expect("nobody cancels");
    let mut waits = pin!(condition.wait(guard));
    assert!(poll_once(waits.as_mut()).await.is_pending());
    let _locked = mutex.lock().await;
    condition.notify_one();
    drop(waits.await);
}

/// Waits in memory that are leaked, two of each kind.
#[test]
fn the_wakers_of_leaked_waits_may_panic_when_the_end_of_a_core_drops_them() {
    on_both(|| {
        static DROPPED: AtomicU64 = AtomicU64::new(0);

        type Wait = Pin<Box<dyn Future<Output = ()>>>;
        let waits: [fn() -> Wait; 5] = [
            || Box::pin(async { sleep(LONG).await.unwrap_or(()) }),
            || Box::pin(async { Event::new().wait().await.unwrap_or(()) }),
            || Box::pin(async { drop(spawn(pending::<()>()).await) }),
            || Box::pin(locks_again()),
            || Box::pin(Alarm::at(Instant::now() + LONG)),
        ];
        for wait in waits {
            DROPPED.store(0, Ordering::Relaxed);
            let ended_well = core_ends_well(move || async move {
                for _ in 0..2 {
                    let waker = when_dropped(|| {
                        DROPPED.fetch_add(1, Ordering::Relaxed);
                        panic!("in the destructor of a waker");
                    });
                    let mut wait = wait();
                    assert!(poll_for(&waker, wait.as_mut()).is_pending());
                    std::mem::forget(wait);
                }
            });
            assert!(ended_well);
            assert_eq!(DROPPED.load(Ordering::Relaxed), 2);
        }
    });
}

// --- destructors that panic ---

#[test]
fn an_output_and_a_future_that_both_panic_when_dropped_cost_only_their_task() {
    struct Output;
    impl Drop for Output {
        fn drop(&mut self) {
            panic!("in the destructor of an output");
        }
    }
    struct Body;
    impl Drop for Body {
        fn drop(&mut self) {
            panic!("in the destructor of a future");
        }
    }
    impl Future for Body {
        type Output = Output;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Output> {
            Poll::Ready(Output)
        }
    }
    on_core(|handle| async move {
        drop(spawn(Body));
        for _ in 0..3 {
            yield_now().await.expect("nobody cancels");
        }
        let counters = gauges(&handle).await;
        assert!(counters.panics > 0);
        assert_eq!(counters.tasks, 1, "the body of this test");
    });
}

#[test]
fn what_a_second_panic_carries_may_panic_when_dropped() {
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("in the destructor of a payload");
        }
    }
    struct Body;
    impl Drop for Body {
        fn drop(&mut self) {
            panic_any(Payload);
        }
    }
    impl Future for Body {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            panic!("the first");
        }
    }
    on_core(|handle| async move {
        let joined = spawn(Body);
        drop(spawn(Body));
        let error = joined.await.expect_err("it panicked");
        assert_eq!(error.to_string(), "the task panicked: the first");
        let counters = gauges(&handle).await;
        assert_eq!(counters.panics, 2);
        assert_eq!(counters.tasks, 1, "the body of this test");
    });
}

/// What nobody gets in the end.
#[derive(Debug)]
struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        panic!("in the destructor of what is left");
    }
}

impl From<Cancelled> for Left {
    fn from(_: Cancelled) -> Self {
        Self
    }
}

impl CarriesCancelled for Left {
    fn cancelled(&self) -> Option<Cancelled> {
        None
    }
}

/// What nobody gets of a group that panics is dropped before it does: in the middle of it, that would end the process.
#[test]
fn what_a_group_that_panics_has_left_may_panic_when_dropped() {
    on_core(|_| async move {
        let value = spawn(group(async |g| {
            drop(g.spawn(async { panic!("the first") as Result<(), Cancelled> }));
            Ok(Left)
        }));
        let others = spawn(group(async |g| {
            drop(g.spawn(async { panic!("the first") as Result<(), Left> }));
            drop(g.spawn(async {
                sleep(LONG).await.expect_err("the first has panicked");
                panic_any(Left) as Result<(), Left>
            }));
            for _ in 0..2 {
                drop(g.spawn(async {
                    sleep(LONG).await.expect_err("the first has panicked");
                    Err::<(), _>(Left)
                }));
            }
            Ok(())
        }));
        let expect = |error: JoinError, others: &[&str], failures| {
            let JoinError::Panicked(payload) = error else {
                panic!("{error}");
            };
            let told = payload.downcast::<GroupPanic>().expect("several failed");
            let others: Vec<_> = others.iter().map(ToString::to_string).collect();
            assert_eq!((told.others(), told.failures()), (&*others, failures));
            assert_eq!(told.into_first().downcast_ref(), Some(&"the first"));
        };
        let own_panic = "in the destructor of what is left";
        let error = value.await.expect_err("a child panicked");
        expect(error, &[own_panic], 0);
        let error = others.await.expect_err("two children panicked");
        expect(error, &["with a value that is no text"], 2);
    });
}

#[test]
fn a_report_that_came_to_nothing_may_panic_when_dropped() {
    on_core(|_| async move {
        let task = spawn(group(async |g| {
            let scope = Scope::new();
            let start = scope.run(async {
                scope.cancel();
                let child = async |started: Started<Left>| {
                    started.report(Left).expect("once");
                    panic!("the first") as Result<(), Cancelled>
                };
                g.start(child).await
            });
            assert!(start.await.is_err());
            Ok::<_, Cancelled>(())
        }));
        let error = task.await.expect_err("the child panicked");
        assert_eq!(error.to_string(), "the task panicked: the first");
    });
}

/// The future of `block_on` lies on its caller's stack; the core stops in order all the same.
#[test]
fn a_main_future_that_panics_when_dropped_leaves_its_tasks_to_the_core() {
    on_both(|| {
        struct Notes(Arc<AtomicBool>);
        impl Drop for Notes {
            fn drop(&mut self) {
                self.0.store(CoreId::current().is_some(), Ordering::Relaxed);
            }
        }
        struct Main(Arc<AtomicBool>);
        impl Drop for Main {
            fn drop(&mut self) {
                panic_any("as planned");
            }
        }
        impl Future for Main {
            type Output = ();
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
                let notes = Notes(Arc::clone(&self.0));
                drop(spawn(async move {
                    let _notes = notes;
                    pending::<()>().await;
                }));
                Poll::Ready(())
            }
        }
        let on_the_core = Arc::new(AtomicBool::new(false));
        let main = Main(Arc::clone(&on_the_core));
        let builder = Runtime::builder().grace_period(Duration::ZERO);
        let payload = catch_unwind(AssertUnwindSafe(|| builder.block_on(main)))
            .expect_err("the destructor panicked");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"as planned"));
        assert!(on_the_core.load(Ordering::Relaxed));
        block_on(op::nop()).expect("a core").expect("it works");
    });
}

// --- destructors that do things ---

#[test]
fn an_output_that_nobody_took_is_dropped_on_its_core() {
    on_both(|| {
        struct Spawns(Arc<AtomicBool>);
        impl Drop for Spawns {
            fn drop(&mut self) {
                drop(spawn(async {}));
                self.0.store(CoreId::current().is_some(), Ordering::Relaxed);
            }
        }
        let on_the_core = Arc::new(AtomicBool::new(false));
        let output = Spawns(Arc::clone(&on_the_core));
        let ended_well = core_ends_well(move || async move {
            let task = spawn(async { output });
            while !task.is_finished() {
                yield_now().await.expect("nobody cancels");
            }
            // A handle that is leaked never takes it.
            std::mem::forget(task);
        });
        assert!(ended_well);
        assert!(on_the_core.load(Ordering::Relaxed));
    });
}

// --- on the real ring: the core is blocked meanwhile ---

#[test]
fn closures_that_never_ran_may_panic_when_dropped() {
    struct Bomb {
        _counted: Counted,
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in the destructor of a closure");
        }
    }
    let drops = Drops::new();
    let mut unrun = Vec::new();
    at_the_end_of_a_core(|handle, core| {
        let bombs = (0..10).map(|_| {
            let bomb = Bomb {
                _counted: drops.value(),
            };
            handle.spawn(core, move || async move { drop(bomb) })
        });
        unrun.extend(bombs.map(|unrun| unrun.expect("room")));
    });
    for task in unrun {
        assert!(matches!(task.wait(), Err(RemoteError::Gone)));
    }
    assert_eq!((drops.alive(), drops.dropped()), (0, 10));
}

/// A core in its last turn, which has looked into its mailbox; what `send` leaves there is dropped with it.
fn at_the_end_of_a_core(send: impl FnOnce(&Handle, CoreId)) {
    let (runtime, handle) = one_core();
    let core = handle.cores()[0];
    let (stopping, stops) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let last = handle.spawn(core, move || async move {
        sleep(LONG).await.expect_err("the runtime stops");
        stopping.send(()).expect("the test listens");
        released.recv().expect("the test releases");
    });
    handle.shutdown_within(Duration::ZERO);
    stops.recv().expect("the core takes its last turn");
    send(&handle, core);
    release.send(()).expect("the task waits");
    last.expect("room").wait().expect("it ended");
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.shutdown(Duration::ZERO)));
    assert!(ended.is_ok(), "the core's thread panicked");
}

/// Closures that were never run start tasks as they are dropped: those end on their core as well.
#[test]
fn tasks_that_the_destructor_of_a_closure_starts_are_dropped_on_their_core() {
    struct Starts(mpsc::Sender<Option<CoreId>>);
    impl Drop for Starts {
        fn drop(&mut self) {
            let says = Says(self.0.clone());
            drop(spawn(async move {
                let _says = says;
                pending::<()>().await;
            }));
        }
    }
    struct Says(mpsc::Sender<Option<CoreId>>);
    impl Drop for Says {
        fn drop(&mut self) {
            self.0.send(CoreId::current()).expect("the test listens");
        }
    }
    let (says, said) = mpsc::channel();
    let starts = Starts(says);
    at_the_end_of_a_core(|handle, core| {
        let unrun = handle.spawn(core, move || async move { drop(starts) });
        drop(unrun.expect("room"));
    });
    let places: Vec<_> = said.iter().collect();
    assert!(matches!(places[..], [Some(_)]), "{places:?}");
}

// --- on the real ring: they leave descriptors and tasks behind, which fails a simulation ---

/// The end of a core gives up an op whose waker owns another op.
#[test]
fn an_op_that_owns_another_does_not_trouble_the_end_of_a_core() {
    type Owned = RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>;
    thread_local!(static OWNED: Owned = const { RefCell::new(None) });

    // The owner in the place before the other, and behind it.
    for owner_first in [true, false] {
        let ended_well = core_ends_well(move || async move {
            let (reader, writer) = pipe();
            let start = |waker: Waker| {
                let reader = reader.clone();
                let mut read: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                    drop(op::read(&reader, vec![0; 8]).await);
                });
                assert!(poll_for(&waker, read.as_mut()).is_pending());
                read
            };
            let owner = || start(when_dropped(|| OWNED.with(|owned| drop(owned.take()))));
            let other = || start(Waker::noop().clone());
            let (owner, other) = if owner_first {
                let owner = owner();
                (owner, other())
            } else {
                let other = other();
                (owner(), other)
            };
            OWNED.set(Some(other));
            op::nop().await.expect("the core works");
            // Nobody drops these but the end of the core.
            std::mem::forget((owner, writer));
        });
        assert!(ended_well, "owner first: {owner_first}");
    }
}

#[test]
fn the_waker_of_a_leaked_op_may_panic_when_the_end_of_a_core_drops_it() {
    static DROPPED: AtomicBool = AtomicBool::new(false);

    let ended_well = core_ends_well(|| async {
        let (reader, writer) = pipe();
        let mut read = Box::pin(async move { op::read(&reader, vec![0; 8]).await.0 });
        let waker = when_dropped(|| {
            DROPPED.store(true, Ordering::Relaxed);
            panic!("in the destructor of a waker");
        });
        assert!(poll_for(&waker, read.as_mut()).is_pending());
        std::mem::forget((read, writer));
    });
    assert!(DROPPED.load(Ordering::Relaxed));
    assert!(ended_well);
}

#[test]
fn the_waker_of_an_op_may_panic_when_the_op_is_given_up() {
    on_core(|handle| async move {
        let before = handle.metrics()[0].panics;
        let (reader, _writer) = pipe();
        let mut read = Box::pin(async move { op::read(&reader, vec![0; 8]).await.0 });
        let waker = when_dropped(|| panic!("in the destructor of a waker"));
        assert!(poll_for(&waker, read.as_mut()).is_pending());
        drop(waker);
        // The op has the last of it.
        drop(read);
        assert_eq!(handle.metrics()[0].panics - before, 1);
    });
}

/// Each task that the end of the core drops starts the next one.
#[test]
fn destructors_that_start_their_like_do_not_hold_a_shutdown_up() {
    /// It would go on for so long, which is not for ever: the test ends if it fails.
    const ENOUGH: u64 = 10_000;

    struct Again(Arc<AtomicU64>);
    impl Drop for Again {
        fn drop(&mut self) {
            if CoreId::current().is_some() && self.0.fetch_add(1, Ordering::Relaxed) < ENOUGH {
                start(Self(Arc::clone(&self.0)));
            }
        }
    }
    fn start(again: Again) {
        drop(spawn(async move {
            let _again = again;
            pending::<()>().await;
        }));
    }
    let dropped = Arc::new(AtomicU64::new(0));
    let first = Again(Arc::clone(&dropped));
    assert!(core_ends_well(move || async move { start(first) }));
    let dropped = dropped.load(Ordering::Relaxed);
    assert!((1..ENOUGH).contains(&dropped), "{dropped}");
}
