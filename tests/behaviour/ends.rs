//! Ends that come in an unusual order: a start given up, a group dropped while somebody starts a child
//! in it, a cancel that is delivered after its wait is over.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{
    Cancelled, Delivery, Group, Reason, Scope, Started, blocking, group, op, run_until_cancelled,
    spawn, yield_now,
};
use tests::{gauges, on_core, on_ring, poll_once};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

async fn serves(started: Started<()>) -> Result<(), Cancelled> {
    sleep(LONG).await?;
    let _ = started.report(());
    Ok(())
}

#[test]
fn a_start_that_is_given_up_leaves_no_cancellation_in_its_group() {
    on_core(|_| async {
        let outcome = group(async |g: Group<Cancelled>| {
            let scope = Scope::new().timeout(SHORT);
            // The cancel drops the call before it reaches the child, unless the child is polled first.
            let start = run_until_cancelled(async move { g.start(serves).await.is_ok() });
            let started = scope.run(start).await;
            assert!(matches!(started, Ok(None | Some(false))), "{started:?}");
            Ok(5)
        });
        assert_eq!(outcome.await.expect("nothing failed"), Some(5));
    });
}

#[test]
fn a_child_that_starts_in_a_group_that_was_dropped_is_cancelled() {
    on_core(|_| async {
        let outcome = group(async |around: Group<Cancelled>| {
            let place = Rc::new(Cell::new(None));
            let told = Rc::clone(&place);
            let mut target = Box::pin(group(async move |g: Group<Cancelled>| {
                told.set(Some(g));
                pending::<Result<(), Cancelled>>().await
            }));
            assert!(poll_once(target.as_mut()).await.is_pending());
            let target_handle = place.take().expect("it runs");
            let event = Rc::new(Event::new());
            let go = Rc::clone(&event);
            let starter = around.spawn(async move {
                let started = target_handle.start(async move |started: Started<u8>| {
                    go.wait().await?;
                    started.report(7).expect("once");
                    sleep(LONG).await
                });
                Ok(started.await.expect("it reports"))
            });
            for _ in 0..10 {
                yield_now().await?;
            }
            drop(target);
            event.set();
            assert_eq!(starter.await.expect("it returns"), 7);
            Ok(Instant::now())
        });
        let before = outcome
            .await
            .expect("nothing failed")
            .expect("not cancelled");
        assert!(Instant::now() - before < LONG, "the child was waited for");
    });
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// So many waits that a turn does not deliver a cancel to all of them.
const MANY: usize = 3000;

#[test]
fn a_cancel_that_comes_after_an_abandoned_job_has_ended_touches_nothing() {
    on_ring(|core| async move {
        let scope = Scope::new();
        let body = async {
            let (go, gate) = mpsc::channel();
            let mut job = Box::pin(blocking::run_abandonable(move |_| gate.recv()));
            let flag = Arc::new(Flag(AtomicBool::new(false)));
            let waker = Waker::from(Arc::clone(&flag));
            let polled = job.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending(), "it is looked at once, and not again");
            go.send(()).expect("the job stands in line, or waits");
            while !flag.0.load(Ordering::Acquire) {
                sleep(Duration::from_millis(1)).await?;
            }
            let mut sleeps: Vec<_> = (0..MANY).map(|_| Box::pin(sleep(LONG))).collect();
            for sleep in &mut sleeps {
                assert!(poll_once(sleep.as_mut()).await.is_pending());
            }
            scope.cancel();
            // The job is dropped before its turn has come.
            yield_now().await
        };
        assert_eq!(scope.run(body).await, Ok(None));
        for _ in 0..10 {
            yield_now().await.expect("nobody cancels");
        }
        assert_eq!(core.metrics()[0].panics, 0);
    });
}

thread_local! {
    /// A scope that a waker cancels, and what came of it.
    static MARK: RefCell<Option<(Rc<Scope>, Option<Delivery>)>> = const { RefCell::new(None) };
}

struct Canceller;

impl Wake for Canceller {
    fn wake(self: Arc<Self>) {
        MARK.with_borrow_mut(|mark| {
            let (scope, delivery) = mark.as_mut().expect("it is there");
            *delivery = Some(scope.cancel());
        });
    }
}

#[test]
fn a_waker_that_runs_while_a_scope_begins_may_cancel_it() {
    on_ring(|_| async {
        let scope = Rc::new(Scope::new().deadline(Instant::now() + SHORT));
        MARK.set(Some((Rc::clone(&scope), None)));
        let waker = Waker::from(Arc::new(Canceller));
        let mut due = pin!(sleep(Duration::from_millis(1)));
        let polled = due.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let begun = Instant::now();
        while Instant::now() < begun + 2 * SHORT {}
        // Both the sleep and the deadline are due; the sleep comes first.
        assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
        let (_, delivery) = MARK.take().expect("put there");
        assert_eq!(delivery, Some(Delivery::Delivered));
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::Requested)
        );
    });
}

#[test]
fn a_group_that_was_leaked_takes_no_child_after_its_task_has_ended() {
    on_core(|_| async {
        let place = Rc::new(Cell::new(None));
        let told = Rc::clone(&place);
        let opener = spawn(async move {
            let mut leaked = Box::pin(group(async move |g: Group<Cancelled>| {
                told.set(Some(g));
                pending::<Result<(), Cancelled>>().await
            }));
            assert!(poll_once(leaked.as_mut()).await.is_pending());
            std::mem::forget(leaked);
        });
        assert!(opener.await.is_err(), "it has left a group behind");
        let group = place.take().expect("it ran");
        let child = group.spawn(async { Ok(()) });
        assert!(matches!(child.await, Err(quoit::JoinError::GroupClosed)));
        assert_eq!(group.cancel(), Delivery::Gone);
    });
}

/// Nothing else is cancelled on the core.
#[test]
fn what_the_body_of_a_leaked_group_drops_is_refused_when_its_task_has_ended() {
    struct Asks(Rc<Cell<Option<Result<(), Cancelled>>>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            self.0.set(Some(quoit::check()));
        }
    }
    on_core(|_| async {
        let told = Rc::new(Cell::new(None));
        let place = Rc::new(Cell::new(None));
        let (asks, keeps) = (Asks(Rc::clone(&told)), Rc::clone(&place));
        let opener = spawn(async move {
            let mut leaked = Box::pin(group(async move |_: Group<Cancelled>| {
                let _asks = asks;
                pending::<Result<(), Cancelled>>().await
            }));
            assert!(poll_once(leaked.as_mut()).await.is_pending());
            let leaked: Box<dyn Any> = Box::new(leaked);
            keeps.set(Some(leaked));
        });
        assert!(opener.await.is_err(), "it has left a group behind");
        assert!(quoit::check().is_ok());
        drop(place.take());
        assert!(matches!(told.get(), Some(Err(_))), "its scope was active");
        assert!(quoit::check().is_ok());
    });
}

/// A body that waits in a future of another library, beside a child: the cancel wakes it, though the
/// child is still there, or has gone meanwhile, or is a daemon.
#[test]
fn a_group_s_body_in_a_foreign_wait_is_woken_by_its_cancel() {
    on_core(|_| async {
        for (child_lasts, is_daemon) in [(SHORT, false), (LONG, false), (LONG, true)] {
            let outcome = group(async |g: Group<Cancelled>| {
                let child = async move { sleep(child_lasts).await };
                drop(match is_daemon {
                    true => g.spawn_daemon(child),
                    false => g.spawn(child),
                });
                drop(g.spawn(async move {
                    sleep(2 * SHORT).await?;
                    g.cancel();
                    Ok(())
                }));
                poll_fn(|_| match quoit::check() {
                    Ok(()) => Poll::Pending,
                    Err(cancelled) => Poll::Ready(Err::<(), _>(cancelled)),
                })
                .await
            });
            assert!(matches!(outcome.await, Ok(None)));
        }
    });
}

#[test]
fn a_daemon_of_a_group_that_was_leaked_is_cancelled_as_its_children_are() {
    on_core(|handle| async move {
        let before = gauges(&handle).await.scopes;
        let refused = Rc::new(Cell::new(None));
        let place = Rc::new(Cell::new(None));
        let (told, heard) = (Rc::clone(&refused), Rc::clone(&place));
        let opener = spawn(async move {
            let mut leaked = Box::pin(group(async move |g: Group<Cancelled>| {
                heard.set(g.handle());
                // It is polled only when the group is gone.
                drop(g.spawn_daemon(async move {
                    let outcome = sleep(SHORT).await;
                    told.set(Some(outcome.is_err()));
                    outcome
                }));
                pending::<Result<(), Cancelled>>().await
            }));
            assert!(poll_once(leaked.as_mut()).await.is_pending());
            std::mem::forget(leaked);
        });
        assert!(opener.await.is_err(), "it has left a group behind");
        sleep(2 * SHORT).await.expect("not cancelled");
        assert_eq!(refused.get(), Some(true), "its group is cancelled");
        let group = place.take().expect("it ran");
        assert_eq!(group.cancel(), Delivery::Gone);
        assert_eq!(gauges(&handle).await.scopes, before, "no node stays");
    });
}

/// A close heeds no cancel: its wait goes on under what was around the task.
#[test]
fn a_group_that_was_leaked_while_its_body_closes_leaves_that_to_the_core() {
    on_ring(|handle| async move {
        let (reader, _writer) = op::pipe().expect("a pipe");
        let of_reader = reader.clone();
        let read = spawn(async move { op::read(&of_reader, vec![0; 8]).await.0 });
        yield_now().await.expect("not cancelled");
        // The read is in the kernel: a close waits for it.
        op::nop().await.expect("not cancelled");
        let before = gauges(&handle).await;
        let opener = spawn(async move {
            let mut leaked = Box::pin(group(async move |_: Group<Cancelled>| {
                let _ = op::close(reader).await;
                Ok(())
            }));
            assert!(poll_once(leaked.as_mut()).await.is_pending());
            std::mem::forget(leaked);
        });
        assert!(opener.await.is_err(), "it has left a group behind");
        assert!(read.await.expect("no panic").is_err(), "it was closed");
        let after = gauges(&handle).await;
        assert_eq!(
            after.scopes,
            before.scopes - 1,
            "that of the read; no other stays"
        );
    });
}

#[test]
fn a_scope_whose_body_panics_as_it_is_dropped_has_ended() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("a destructor panics");
        }
    }
    on_core(|handle| async move {
        let before = gauges(&handle).await.scopes;
        let scope = Scope::new();
        let named = scope.handle();
        {
            let mut run = Box::pin(scope.run(async {
                let _bad = Bad;
                sleep(LONG).await
            }));
            assert!(poll_once(run.as_mut()).await.is_pending());
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(run)));
            assert!(dropped.is_err(), "the panic is the caller's");
        }
        assert_eq!(gauges(&handle).await.scopes, before, "its node is gone");
        assert_eq!(named.cancel(), Delivery::Gone);
    });
}

#[test]
fn a_child_that_reports_to_a_group_that_was_dropped_is_cancelled_and_not_misused() {
    on_core(|_| async {
        let heard = Rc::new(Cell::new(None));
        let told = Rc::clone(&heard);
        let (reader, _writer) = op::pipe().expect("a pipe");
        let starting = Rc::new(Cell::new(None));
        let go = Rc::new(Event::new());
        let may = Rc::clone(&go);
        let place = Rc::clone(&starting);
        let mut dropped = Box::pin(group(async move |g: Group<Cancelled>| {
            place.set(Some(g));
            // An op in the kernel, whose future goes before the group does.
            let mut read = Box::pin(op::read(&reader, vec![0; 1]));
            assert!(poll_once(read.as_mut()).await.is_pending());
            drop(read);
            pending::<Result<(), Cancelled>>().await
        }));
        assert!(poll_once(dropped.as_mut()).await.is_pending());
        let g = starting.take().expect("it ran");
        let mut start = Box::pin(g.start(async move |started: Started<()>| {
            may.wait().await?;
            started.report(()).expect("once");
            let outcome = sleep(LONG).await;
            told.set(Some(outcome));
            outcome
        }));
        assert!(poll_once(start.as_mut()).await.is_pending());
        go.set();
        drop(dropped);
        assert!(start.await.is_ok());
        while heard.get().is_none() {
            yield_now().await.expect("not cancelled");
        }
        let cancelled = heard
            .take()
            .expect("it ran")
            .expect_err("its group is gone");
        assert_eq!(cancelled.reason(), Reason::Dropped);
    });
}

#[test]
fn a_scope_that_a_child_leaked_keeps_no_wake_from_its_group_s_body() {
    on_core(|_| async {
        let outcome = group(async |g: Group<Cancelled>| {
            let leaks = g.spawn(async {
                let mut run = Box::pin(async { Scope::new().run(sleep(LONG)).await });
                assert!(poll_once(run.as_mut()).await.is_pending());
                std::mem::forget(run);
                Ok(())
            });
            leaks.await.expect("it ended");
            drop(g.spawn(async move {
                sleep(SHORT).await?;
                g.cancel();
                Ok(())
            }));
            poll_fn(|_| match quoit::check() {
                Ok(()) => Poll::Pending,
                Err(cancelled) => Poll::Ready(Err::<(), _>(cancelled)),
            })
            .await
        });
        assert!(matches!(outcome.await, Ok(None)));
    });
}
