//! Waits that a cancel has ended and that are dropped unseen: what they let their task be refused before it pauses.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures_util::future::{join_all, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use quoit::op::{PipeReader, PipeWriter};
use quoit::sync::{Event, Semaphore, shared};
use quoit::time::sleep;
use quoit::{
    CancelHandle, Cancelled, CarriesCancelled, Group, Handle, Scope, blocking, group, on, op, race,
    run_until_cancelled, spawn, yield_uncancellable,
};
use tests::{both_streams, conform, conform_on, gauges, on_ring, poll_once};

const LONG: Duration = Duration::from_secs(3600);

/// Refusals of a task in a scope that are free, and how many more for each wait that a cancel of that has ended.
const FREE: usize = 1024;
const FREE_PER_WAIT: usize = 16;

/// How many there are of each kind.
const WAITS: usize = 6;

type Wait = Pin<Box<dyn Future<Output = bool>>>;

/// Runs a wait; says whether it was cancelled.
fn boxed<T, E: CarriesCancelled>(wait: impl Future<Output = Result<T, E>> + 'static) -> Wait {
    Box::pin(async { is_cancelled(&wait.await) })
}

fn is_cancelled<T, E: CarriesCancelled>(result: &Result<T, E>) -> bool {
    let error = result.as_ref().err();
    error.is_some_and(|error| error.cancelled().is_some())
}

fn nap() -> Wait {
    boxed(sleep(LONG))
}

/// Lets them begin.
async fn begin(kind: &str, waits: &mut [Wait]) {
    for wait in waits {
        assert!(poll_once(wait.as_mut()).await.is_pending(), "{kind}");
    }
}

async fn naps(count: usize) -> Vec<Wait> {
    let mut waits: Vec<_> = (0..count).map(|_| nap()).collect();
    begin("a nap", &mut waits).await;
    waits
}

/// Is refused so often in the active scope.
async fn refused(times: usize) {
    for _ in 0..times {
        assert!(sleep(LONG).await.is_err());
    }
}

/// Checks that the active scope refuses this task so often for nothing, and not once more.
async fn is_free(handle: &Handle, times: usize) {
    let before = handle.metrics()[0].pauses;
    refused(times).await;
    assert_eq!(handle.metrics()[0].pauses, before, "it paused before");
    refused(1).await;
    assert_eq!(handle.metrics()[0].pauses, before + 1, "more were free");
}

/// As [`is_free`], where so many waits count.
async fn counted(handle: &Handle, waits: usize) {
    is_free(handle, FREE + FREE_PER_WAIT * waits).await;
}

/// Runs `body` in a scope that it cancels and has for its own.
async fn in_a_scope(body: impl AsyncFnOnce(&Scope)) {
    let scope = Scope::new();
    let ran = scope.run(async {
        body(&scope).await;
        Ok::<_, Cancelled>(())
    });
    assert_eq!(ran.await, Ok(Some(())));
}

// --- kinds of waits ---

/// Cancels the task as it goes.
struct Cancels(CancelHandle);

impl Drop for Cancels {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Makes waits of a kind, so many.
type Kind = (
    &'static str,
    fn(usize) -> Pin<Box<dyn Future<Output = Vec<Wait>>>>,
);

fn each(count: usize, make: impl Fn() -> Wait) -> Vec<Wait> {
    (0..count).map(|_| make()).collect()
}

async fn of_kernel(count: usize) -> Vec<Wait> {
    each(count, || {
        let (reader, writer) = op::pipe().expect("a pipe");
        boxed(async move {
            let read = op::read(&reader, vec![0; 8]).await.0;
            drop(writer);
            read
        })
    })
}

async fn of_pipes_that_are_full(count: usize) -> Vec<Wait> {
    each(count, || {
        let (reader, writer) = op::pipe().expect("a pipe");
        boxed(async move {
            let _reader = PipeReader::new(reader);
            let writer = PipeWriter::new(writer).expect("a pipe");
            writer.write_all(vec![0; 1 << 21]).await.0
        })
    })
}

async fn of_sends(count: usize) -> Vec<Wait> {
    let mut waits = Vec::new();
    for _ in 0..count {
        let (ours, theirs) = both_streams().await;
        waits.push(boxed(async move {
            let sent = ours.send_all(vec![0; 1 << 24]).await.0;
            drop(theirs);
            sent
        }));
    }
    waits
}

async fn of_multishots(count: usize) -> Vec<Wait> {
    let mut waits = Vec::new();
    for _ in 0..count {
        let (ours, theirs) = both_streams().await;
        waits.push(boxed(async move {
            let received = ours.receive().await;
            drop(theirs);
            received
        }));
    }
    waits
}

async fn of_joins(count: usize) -> Vec<Wait> {
    each(count, || {
        boxed(async {
            let child = spawn(sleep(LONG));
            let _cancels = Cancels(child.cancel_handle().expect("it has not ended"));
            child.await
        })
    })
}

/// Jobs that wait as long as those who wait for them.
async fn of_jobs(count: usize) -> Vec<Wait> {
    each(count, || {
        let (waits, gate) = mpsc::channel::<()>();
        boxed(async move {
            let job = blocking::run_abandonable(move |_| gate.recv());
            let done = job.await.map_err(io::Error::from);
            drop(waits);
            done
        })
    })
}

const KINDS: [Kind; 10] = [
    ("a timer", |n| Box::pin(async move { each(n, nap) })),
    ("an event", |n| {
        Box::pin(async move { each(n, || boxed(async { Event::new().wait().await })) })
    }),
    ("a permit", |n| {
        Box::pin(async move {
            each(n, || {
                boxed(async { Semaphore::new(0).acquire().await.map(drop) })
            })
        })
    }),
    ("a shared permit", |n| {
        Box::pin(async move {
            each(n, || {
                boxed(async { shared::Semaphore::new(0).acquire().await.map(drop) })
            })
        })
    }),
    ("a shared channel", |n| {
        Box::pin(async move {
            each(n, || {
                boxed(async {
                    let (_send, get) = shared::channel::bounded::<u8>(1);
                    get.recv().await
                })
            })
        })
    }),
    ("something foreign", |n| {
        Box::pin(async move { each(n, || boxed(run_until_cancelled(pending::<()>()))) })
    }),
    ("in a scope of its own", |n| {
        Box::pin(async move { each(n, || boxed(async { Scope::new().run(sleep(LONG)).await })) })
    }),
    ("an op of the kernel", |n| Box::pin(of_kernel(n))),
    ("a multishot op", |n| Box::pin(of_multishots(n))),
    ("a join", |n| Box::pin(of_joins(n))),
];

/// Those that may go on once they are told, and are refused then.
const GO_ON: [Kind; 2] = [
    ("a write", |n| Box::pin(of_pipes_that_are_full(n))),
    ("a send", |n| Box::pin(of_sends(n))),
];

/// Checks that each counts once: dropped unseen, or looked at, or both.
async fn each_counts_once(handle: &Handle, (kind, make): Kind, looks: &[usize]) {
    for &looked_at in looks {
        let mut waits = make(WAITS).await;
        in_a_scope(async |scope| {
            begin(kind, &mut waits).await;
            scope.cancel();
            for wait in &mut waits[..looked_at] {
                assert!(wait.as_mut().await, "{kind} was not cancelled");
            }
            drop(waits);
            counted(handle, WAITS).await;
        })
        .await;
    }
}

#[test]
fn each_kind_of_wait_counts_once_however_it_ends() {
    conform(|handle| async move {
        for kind in KINDS {
            each_counts_once(&handle, kind, &[0, WAITS / 2, WAITS]).await;
        }
        for kind in GO_ON {
            each_counts_once(&handle, kind, &[0]).await;
        }
    });
}

// On the real ring: a job that blocks.
#[test]
fn a_wait_for_a_job_counts_once_however_it_ends() {
    on_ring(|handle| async move {
        let kind: Kind = ("a blocking job", |n| Box::pin(of_jobs(n)));
        each_counts_once(&handle, kind, &[0, WAITS / 2, WAITS]).await;
    });
}

/// A call of another core, whose child is told and waited for.
#[test]
fn a_call_counts_once_however_it_ends() {
    conform_on(2, |handle| async move {
        let there = handle.cores()[1];
        for looked_at in [0, WAITS / 2, WAITS] {
            in_a_scope(async |scope| {
                let call = || boxed(on(there, || async { io::Result::Ok(sleep(LONG).await?) }));
                let mut waits = each(WAITS, call);
                begin("a call", &mut waits).await;
                scope.cancel();
                for wait in &mut waits[..looked_at] {
                    assert!(wait.as_mut().await, "it was cancelled");
                }
                drop(waits);
                counted(&handle, WAITS).await;
            })
            .await;
        }
    });
}

/// What is told of a cancel and has a result all the same was waiting there, too.
#[test]
fn a_call_that_a_cancel_has_reached_counts_where_it_has_a_value() {
    conform_on(2, |handle| async move {
        let there = handle.cores()[1];
        in_a_scope(async |scope| {
            let call = || {
                boxed(on(there, || async {
                    assert!(sleep(LONG).await.is_err());
                    io::Result::Ok(())
                }))
            };
            let mut waits = each(WAITS, call);
            begin("a call", &mut waits).await;
            scope.cancel();
            for wait in &mut waits {
                assert!(!wait.as_mut().await, "its child has a value");
            }
            counted(&handle, WAITS).await;
        })
        .await;
    });
}

// --- what the waits are dropped by ---

/// As `select` does, a race, and collections of futures.
#[test]
fn what_combines_waits_and_drops_them_lets_each_count() {
    conform(|handle| async move {
        in_a_scope(async |scope| {
            let mut losers = Vec::new();
            for _ in 0..WAITS / 2 {
                let mut both = Box::pin(select(nap(), nap()));
                assert!(poll_once(both.as_mut()).await.is_pending());
                losers.push(both);
            }
            scope.cancel();
            for both in losers {
                // The first is looked at, the other is not.
                let left = both.await.factor_first();
                assert!(left.0);
            }
            counted(&handle, WAITS).await;
        })
        .await;
        in_a_scope(async |scope| {
            let mut all: FuturesUnordered<_> = (0..WAITS).map(|_| nap()).collect();
            assert!(poll_once(pin!(all.next())).await.is_pending());
            scope.cancel();
            assert_eq!(all.next().await, Some(true));
            drop(all);
            counted(&handle, WAITS).await;
        })
        .await;
        in_a_scope(async |scope| {
            let mut all = Box::pin(join_all((0..WAITS).map(|_| nap())));
            assert!(poll_once(all.as_mut()).await.is_pending());
            scope.cancel();
            drop(all);
            counted(&handle, WAITS).await;
        })
        .await;
        in_a_scope(async |scope| {
            let mut races = each(WAITS / 2, || boxed(race(sleep(LONG), sleep(LONG))));
            begin("a race", &mut races).await;
            scope.cancel();
            drop(races);
            counted(&handle, WAITS).await;
        })
        .await;
    });
}

/// As clean-ups in destructors.
struct DropsThem(Option<Vec<Wait>>);

impl Drop for DropsThem {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// The scope that has ended a wait is the one that it counts for, wherever its task drops it, or looks at it.
#[test]
fn a_wait_counts_for_the_scope_that_has_ended_it() {
    conform(|handle| async move {
        for is_looked_at in [false, true] {
            let end = async |waits: Vec<Wait>| {
                for wait in waits {
                    match is_looked_at {
                        true => assert!(wait.await),
                        false => drop(wait),
                    }
                }
            };
            // In a shield.
            in_a_scope(async |scope| {
                let waits = naps(WAITS).await;
                scope.cancel();
                let shield = Scope::new().shielded();
                let ended = shield.run(async {
                    end(waits).await;
                    Ok::<_, Cancelled>(())
                });
                assert_eq!(ended.await, Ok(Some(())));
                counted(&handle, WAITS).await;
            })
            .await;
            // In a scope that was cancelled itself, and for which they do not count.
            in_a_scope(async |scope| {
                let waits = naps(WAITS).await;
                scope.cancel();
                let inner = Scope::new().shielded();
                let ended = inner.run(async {
                    inner.cancel();
                    refused(1).await;
                    end(waits).await;
                    is_free(&handle, FREE - 1).await;
                    Ok::<_, Cancelled>(())
                });
                assert_eq!(ended.await, Ok(Some(())));
                counted(&handle, WAITS).await;
            })
            .await;
            // Where the scope has a shield by then.
            in_a_scope(async |around| {
                let scope = Scope::new();
                let ended = scope.run(async {
                    let waits = naps(WAITS).await;
                    around.cancel();
                    scope.set_shielded(true);
                    end(waits).await;
                    scope.set_shielded(false);
                    counted(&handle, WAITS).await;
                    Ok::<_, Cancelled>(())
                });
                assert_eq!(ended.await, Ok(Some(())));
            })
            .await;
            // From a scope within, which has ended.
            in_a_scope(async |scope| {
                let inner = Scope::new();
                let begun = inner.run(async {
                    let waits = naps(WAITS).await;
                    scope.cancel();
                    Ok::<_, Cancelled>(waits)
                });
                let waits = begun
                    .await
                    .expect("it has a value")
                    .expect("it has a value");
                end(waits).await;
                counted(&handle, WAITS).await;
            })
            .await;
            // Of two that are cancelled, those of the inner one.
            in_a_scope(async |around| {
                let scope = Scope::new();
                let ended = scope.run(async {
                    let waits = naps(WAITS).await;
                    scope.cancel();
                    around.cancel();
                    end(waits).await;
                    counted(&handle, 0).await;
                    Ok::<_, Cancelled>(())
                });
                assert_eq!(ended.await, Ok(Some(())));
            })
            .await;
        }
    });
}

/// By what is polled beside the body, further out.
#[test]
fn a_wait_counts_where_its_task_drops_it_out_of_the_scope() {
    conform(|handle| async move {
        let kept = RefCell::new(Vec::new());
        let scope = Scope::new();
        let mut body = pin!(scope.run(async {
            kept.replace(naps(WAITS).await);
            scope.cancel();
            yield_uncancellable().await;
            assert!(kept.borrow().is_empty());
            counted(&handle, WAITS).await;
            Ok::<_, Cancelled>(())
        }));
        poll_fn(|cx| {
            let polled = body.as_mut().poll(cx);
            drop(kept.take());
            polled.map(drop)
        })
        .await;
    });
}

/// In a destructor, and where all that was free is used up, and behind so many that their tasks are told later.
#[test]
fn a_wait_counts_when_it_is_dropped_late() {
    const MANY: usize = 1_100;
    conform(|handle| async move {
        in_a_scope(async |scope| {
            let before = handle.metrics()[0].pauses;
            let guard = DropsThem(Some(naps(10).await));
            scope.cancel();
            refused(FREE).await;
            drop(guard);
            refused(FREE_PER_WAIT * 10).await;
            assert_eq!(handle.metrics()[0].pauses, before);
            refused(1).await;
            assert_eq!(handle.metrics()[0].pauses, before + 1);
        })
        .await;
        in_a_scope(async |scope| {
            let waits = naps(MANY).await;
            scope.cancel();
            drop(waits);
            counted(&handle, MANY).await;
        })
        .await;
    });
}

/// They were given up, and no cancel has reached them.
#[test]
fn a_wait_that_no_cancel_has_reached_does_not_count() {
    conform(|handle| async move {
        for (kind, make) in KINDS.into_iter().chain(GO_ON) {
            let (mut before, mut behind) = (make(4).await, make(4).await);
            in_a_scope(async |scope| {
                begin(kind, &mut before).await;
                drop(before);
                let shield = Scope::new().shielded();
                let begun = shield.run(async {
                    begin(kind, &mut behind).await;
                    scope.cancel();
                    drop(behind);
                    Ok::<_, Cancelled>(())
                });
                assert_eq!(begun.await, Ok(Some(())), "{kind}");
                counted(&handle, 0).await;
            })
            .await;
        }
    });
}

// --- what does not count ---

/// Neither for the task that drops it nor for the one that waited.
#[test]
fn a_wait_that_another_task_drops_counts_for_nobody() {
    conform(|handle| async move {
        for is_looked_at in [false, true] {
            let kept = Rc::new(RefCell::new(Vec::new()));
            let (begun, left) = (Rc::new(Event::new()), Rc::new(Cell::new(2)));
            let ended = group(async |g: Group<Cancelled>| {
                let (ours, handle) = (Rc::clone(&kept), handle.clone());
                let (begins, leaves) = (Rc::clone(&begun), Rc::clone(&left));
                g.spawn(async move {
                    ours.replace(naps(WAITS).await);
                    begins.set();
                    while leaves.get() == 2 {
                        yield_uncancellable().await;
                    }
                    counted(&handle, 0).await;
                    Ok(())
                });
                begun.wait().await?;
                g.cancel();
                for wait in kept.take() {
                    match is_looked_at {
                        true => assert!(wait.await),
                        false => drop(wait),
                    }
                }
                left.set(1);
                Ok(())
            });
            assert!(ended.await.is_ok());
            in_a_scope(async |scope| {
                let waits = naps(WAITS).await;
                let cancel = scope.handle();
                let other = spawn(async move {
                    cancel.cancel();
                    // The cancel is seen by the first op that comes.
                    assert!(quoit::check().is_ok());
                    drop(waits);
                });
                other.await.expect_err("it joins in a cancelled scope");
                counted(&handle, 1).await;
            })
            .await;
        }
    });
}

/// Drops what it has when it is woken.
#[derive(Default)]
struct Job(AtomicBool);

thread_local!(static KEPT: RefCell<Vec<Wait>> = const { RefCell::new(Vec::new()) });

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
        drop(KEPT.take());
    }
}

/// As a waker of somebody else's may that a timer wakes.
#[test]
fn a_wait_that_is_dropped_outside_of_all_polls_counts_for_nobody() {
    conform(|handle| async move {
        // Of none of the scopes inside: only its time ends it.
        let job = Arc::new(Job::default());
        let mut alarm = pin!(sleep(Duration::from_millis(1)));
        let waker = Waker::from(Arc::clone(&job));
        let polled = alarm.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        in_a_scope(async |scope| {
            KEPT.replace(naps(WAITS).await);
            scope.cancel();
            while !job.0.load(Ordering::Relaxed) {
                let shield = Scope::new().shielded();
                let slept = shield.run(sleep(Duration::from_millis(1)));
                assert_eq!(slept.await, Ok(Some(())));
            }
            counted(&handle, 0).await;
        })
        .await;
    });
}

/// Of nothing that is dropped with it, anything is left.
#[test]
fn a_task_that_ends_with_its_waits_leaves_nothing() {
    conform(|handle| async move {
        let before = gauges(&handle).await;
        let ended = group(async |g: Group<Cancelled>| {
            for _ in 0..3 {
                g.spawn(async {
                    let _waits = naps(8).await;
                    let refused = sleep(LONG).await;
                    yield_uncancellable().await;
                    refused
                });
            }
            quoit::yield_now().await?;
            g.cancel();
            Ok(())
        });
        assert_eq!(ended.await.expect("nothing fails"), Some(()));
        let after = gauges(&handle).await;
        assert_eq!(after.pauses, before.pauses);
        assert_eq!(
            (after.parked, after.swallowing),
            (before.parked, before.swallowing)
        );
    });
}
