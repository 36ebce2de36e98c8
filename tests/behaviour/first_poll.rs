//! Scopes and tasks in their first poll, as long as nobody has asked for them and after.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use quoit::sync::{Event, Semaphore};
use quoit::time::{Instant, sleep};
use quoit::{
    Cancelled, CarriesCancelled, Delivery, GroupError, JoinError, JoinHandle, Reason, Runtime,
    Scope, ScopeDump, check, effective_deadline, group, leave_behind, spawn, yield_now,
};
use tests::{on_both, on_core, on_ring, poll_once};

type Nothing = Result<(), Cancelled>;

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_body_cancels_its_own_scope_before_anything_else() {
    on_core(|_| async {
        let scope = Scope::new();
        let body = async {
            assert_eq!(scope.cancelled(), None);
            assert_eq!(scope.cancel(), Delivery::Delivered);
            assert_eq!(scope.cancel(), Delivery::AlreadyCancelled);
            check()?;
            unreachable!("it is cancelled");
            #[allow(unreachable_code)]
            Ok::<_, Cancelled>(())
        };
        assert_eq!(scope.run(body).await, Ok(None));
        assert!(scope.absorbed());
        assert_eq!(scope.cancel(), Delivery::Gone);
        check().expect("it was the scope's own");
    });
}

#[test]
fn an_inner_body_cancels_the_outer_scope_and_both_take_what_is_theirs() {
    on_core(|_| async {
        let outer = Scope::new();
        let outcome = outer
            .run(async {
                let inner = Scope::new();
                let within = inner.run(async {
                    outer.cancel();
                    check()
                });
                let outcome = within.await;
                assert!(outcome.is_err() && !inner.absorbed());
                outcome.map(drop)
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert!(outer.absorbed());
    });
}

#[test]
fn an_outer_scope_that_is_opened_late_has_the_inner_ones_below_it() {
    on_core(|_| async {
        let scopes = [Scope::new(), Scope::new(), Scope::new()];
        let parked = Rc::new(Event::new());
        let waits = Rc::clone(&parked);
        let outcome = scopes[0]
            .run(async {
                let inner = scopes[1].run(async {
                    let inner = scopes[2].run(waits.wait());
                    // The innermost waits: only now has anybody asked.
                    let mut inner = pin!(inner);
                    let first = poll_fn(|cx| Poll::Ready(inner.as_mut().poll(cx)));
                    assert!(first.await.is_pending());
                    scopes[1].cancel();
                    let outcome = inner.await;
                    assert!(outcome.is_err(), "it was cancelled from further out");
                    outcome.map(drop)
                });
                assert_eq!(inner.await, Ok(None));
                check()
            })
            .await;
        assert_eq!(outcome, Ok(Some(())));
        let absorbed = scopes.each_ref().map(Scope::absorbed);
        assert_eq!(absorbed, [false, true, false]);
    });
}

#[test]
fn a_handle_made_in_the_first_poll_cancels_that_scope_alone() {
    on_core(|_| async {
        let outer = Scope::new();
        let outcome = outer
            .run(async {
                let inner = Scope::new();
                let handle = RefCell::new(None);
                let within = inner.run(async {
                    *handle.borrow_mut() = Some(inner.handle());
                    let handle = inner.handle();
                    let told = spawn(async move {
                        handle.cancel_with(Reason::User(7), Duration::ZERO);
                    });
                    sleep(LONG).await?;
                    drop(told);
                    Ok::<_, Cancelled>(())
                });
                assert_eq!(within.await, Ok(None));
                let reason = inner.cancelled().map(|cause| cause.reason());
                assert_eq!(reason, Some(Reason::User(7)));
                let handle = handle.take().expect("it was made");
                assert_eq!(handle.cancel(), Delivery::Gone);
                check()
            })
            .await;
        assert_eq!(outcome, Ok(Some(())));
    });
}

#[test]
fn a_timeout_counts_from_the_beginning_of_the_run_however_late_it_is_armed() {
    on_core(|_| async {
        let before = Instant::now();
        let scope = Scope::new().timeout(LONG);
        let outcome = scope.run(async {
            let began = Instant::now();
            let deadline = effective_deadline().expect("there is one");
            assert!(before + LONG <= deadline && deadline <= began + LONG);
            // Moved before anything waits.
            scope.set_deadline(Some(Instant::now()));
            sleep(LONG).await
        });
        assert_eq!(outcome.await, Ok(None));
        assert_eq!(
            scope.cancelled().map(|cause| cause.reason()),
            Some(Reason::Deadline)
        );
    });
}

#[test]
fn a_deadline_that_somebody_notices_cancels_all_whose_time_is_over() {
    // Simulated time stands still while a body computes.
    on_ring(|_| async {
        let short = Duration::from_micros(10);
        let other = Scope::new();
        let _handle = other.handle();
        let scope = Scope::new().timeout(short);
        let outcome = scope.run(async {
            let end = Instant::now() + short;
            while Instant::now() < end {}
            // Not before: it is noticed once.
            other.set_deadline(Some(Instant::now() + short));
            while other.cancelled().is_none() {}
            check()
        });
        assert_eq!(outcome.await, Ok(None));
    });
}

#[test]
fn what_a_body_leaves_in_its_first_poll_is_waited_for() {
    on_core(|_| async {
        let event = Rc::new(Event::new());
        let ended = Rc::new(Event::new());
        let (waits, says) = (Rc::clone(&event), Rc::clone(&ended));
        let wakes = spawn(async move {
            yield_now().await.expect("nobody cancels");
            event.set();
        });
        let scope = Scope::new();
        let outcome = scope.run(async {
            leave_behind(async move {
                waits.wait().await.expect("nobody cancels");
                says.set();
            });
            Ok::<_, Cancelled>(1)
        });
        assert_eq!(outcome.await, Ok(Some(1)));
        assert!(ended.is_set(), "the run ends after what was left in it");
        wakes.await.expect("it ends well");
    });
}

/// Says, when it is dropped, whether ops are refused there.
struct Asks(Rc<RefCell<Vec<bool>>>);

impl Drop for Asks {
    fn drop(&mut self) {
        self.0.borrow_mut().push(check().is_err());
    }
}

#[test]
fn what_a_body_holds_is_dropped_in_its_scope() {
    on_core(|_| async {
        let said = Rc::new(RefCell::new(Vec::new()));
        for cancels in [true, false] {
            let scope = Scope::new();
            let holds = Asks(Rc::clone(&said));
            // The body has ended, and is dropped with what it holds after that.
            let scope = &scope;
            let mut holds = Some(holds);
            let body = poll_fn(move |_| {
                assert!(holds.as_mut().is_some());
                if cancels {
                    scope.cancel();
                }
                Poll::Ready(Ok::<_, Cancelled>(()))
            });
            assert_eq!(scope.run(body).await, Ok(Some(())));
        }
        assert_eq!(said.take(), [true, false]);
    });
}

#[test]
fn a_body_that_panics_in_its_first_poll_leaves_nothing_active() {
    on_core(|_| async {
        let said = Rc::new(RefCell::new(Vec::new()));
        for opens in [true, false] {
            let said = Rc::clone(&said);
            let panics = spawn(async move {
                let outer = Scope::new();
                let body = async {
                    let _holds = Asks(Rc::clone(&said));
                    let inner = Scope::new();
                    let body = async {
                        let _holds = Asks(Rc::clone(&said));
                        if opens {
                            inner.cancel();
                        }
                        panic!("on purpose");
                        #[allow(unreachable_code)]
                        Ok::<_, Cancelled>(())
                    };
                    let mut run = pin!(inner.run(body));
                    let caught = poll_fn(|cx| {
                        let polled =
                            catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx).map(drop)));
                        Poll::Ready(polled.is_err())
                    });
                    assert!(caught.await);
                    check()
                };
                assert_eq!(outer.run(body).await, Ok(Some(())));
                check()
            });
            assert_eq!(panics.await.expect("it was caught"), Ok(()));
        }
        // What the inner bodies held was dropped while they unwound, in their scopes.
        assert_eq!(said.take(), [true, false, false, false]);
    });
}

/// A body that gives something at its first poll, and whose destructor panics.
struct Bursts<'a>(&'a Scope, Option<Asks>);

impl Future for Bursts<'_> {
    type Output = Result<Asks, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.cancel();
        Poll::Ready(Ok(self.1.take().expect("polled once")))
    }
}

impl Drop for Bursts<'_> {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
fn what_a_body_gave_is_not_dropped_in_its_scope() {
    on_core(|_| async {
        let said = Rc::new(RefCell::new(Vec::new()));
        let scope = Scope::new();
        let body = Bursts(&scope, Some(Asks(Rc::clone(&said))));
        let mut run = pin!(scope.run(body));
        let panics = poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx).map(drop)));
            Poll::Ready(polled.is_err())
        });
        assert!(panics.await);
        assert_eq!(said.take(), [false]);
    });
}

#[test]
fn a_foreign_wait_in_the_first_poll_is_woken_by_a_cancel() {
    on_core(|_| async {
        let scope = Rc::new(Scope::new());
        let theirs = Rc::clone(&scope);
        let cancels = spawn(async move {
            theirs.cancel();
        });
        let mut polls = 0;
        let body = poll_fn(|_| {
            polls += 1;
            match polls {
                1 => Poll::Pending,
                _ => Poll::Ready(check()),
            }
        });
        assert_eq!(scope.run(body).await, Ok(None));
        assert_eq!(polls, 2);
        cancels.await.expect("it ends well");
    });
}

#[test]
fn a_child_that_is_polled_at_once_finds_the_scopes_around_it() {
    on_core(|_| async {
        let outer = Scope::new();
        let outcome = outer
            .run(async {
                let outcome = group(async |g| {
                    let inner = Scope::new();
                    let within = inner.run(async {
                        // The child is the group's, wherever it is started.
                        let child = g.spawn_eager(async { check() });
                        inner.cancel();
                        assert!(check().is_err());
                        drop(child);
                        check()
                    });
                    assert_eq!(within.await, Ok(None));
                    check()
                });
                outcome.await.expect("nothing failed");
                check()
            })
            .await;
        assert_eq!(outcome, Ok(Some(())));
    });
}

#[test]
fn a_parked_op_that_is_polled_in_another_first_poll_follows_that_scope() {
    on_core(|_| async {
        let event = Event::new();
        let mut wait = pin!(event.wait());
        let first = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx)));
        assert!(first.await.is_pending());
        let scope = Scope::new();
        let outcome: Result<Option<()>, _> = scope
            .run(async {
                let again = poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx)));
                assert!(again.await.is_pending());
                scope.cancel();
                wait.as_mut().await
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

#[test]
fn a_run_that_is_dropped_after_its_first_poll_cancels_nobody_else() {
    on_core(|_| async {
        let scope = Scope::new();
        {
            let mut run = pin!(scope.run(async {
                pending::<()>().await;
                Ok::<_, Cancelled>(())
            }));
            let first = poll_fn(|cx| Poll::Ready(run.as_mut().poll(cx)));
            assert!(first.await.is_pending());
        }
        assert_eq!(scope.cancel(), Delivery::Gone);
        let again: Result<Option<()>, Cancelled> = scope.run(async { Ok(()) }).await;
        let reason = again.expect_err("it ran before").reason();
        assert!(matches!(reason, Reason::Misuse(_)), "{reason:?}");
        let nothing: Nothing = check();
        nothing.expect("nobody is cancelled");
    });
}

thread_local! {
    /// What the wakers of [`at_wakes`] do, the next one last.
    static JOBS: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// A waker that runs the next job.
struct RunsJob;

impl Wake for RunsJob {
    fn wake(self: Arc<Self>) {
        let job = JOBS.with_borrow_mut(Vec::pop);
        job.expect("there is one for each wake")();
    }
}

/// Cancels so many waits at once, whose wakers run these jobs.
fn at_wakes<const N: usize>(jobs: [Box<dyn FnOnce()>; N]) {
    JOBS.with_borrow_mut(|all| all.extend(jobs.into_iter().rev()));
    let scope = Scope::new();
    let event = Event::new();
    let mut waits: [_; N] = std::array::from_fn(|_| Box::pin(event.wait()));
    let mut run = pin!(scope.run(poll_fn(|_| {
        for wait in &mut waits {
            let waker = Waker::from(Arc::new(RunsJob));
            assert!(
                wait.as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        scope.cancel();
        Poll::Ready(check())
    })));
    let polled = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(polled, Poll::Ready(Ok(None)));
    assert!(JOBS.with_borrow(Vec::is_empty), "each was woken");
}

#[test]
fn a_child_is_polled_at_once_while_a_waker_ends_its_group() {
    on_core(|handle| async move {
        let given = Rc::new(Cell::new(None));
        let gives = Rc::clone(&given);
        let mut children = Box::pin(group(async move |g| {
            gives.set(Some(g));
            pending::<Nothing>().await
        }));
        let first = poll_fn(|cx| Poll::Ready(children.as_mut().poll(cx)));
        assert!(first.await.is_pending());
        let g = given.take().expect("it was polled");
        let said = Rc::new(Cell::new(None));
        let says = Rc::clone(&said);
        let starts = Box::new(move || {
            let body = async move {
                let child = g.spawn_eager(async move {
                    says.set(Some(check()));
                    Ok(())
                });
                drop(child);
                Ok::<_, Cancelled>(())
            };
            let scope = Scope::new().timeout(LONG);
            let mut run = pin!(scope.run(body));
            let polled = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_ready());
        });
        // The scope is opened when the child is started; what the cancel wants done besides has its time.
        at_wakes([starts, Box::new(|| drop(children))]);
        assert_eq!(said.get(), Some(Ok(())), "its group was there");
        assert_eq!(handle.metrics()[0].panics, 0);
        let again = group(async |g| g.spawn(async { check() }).await.map_err(|_| unreachable!()));
        assert!(matches!(again.await, Ok(Some(()))));
    });
}

#[test]
fn who_stands_in_line_in_a_scope_that_is_opened_for_it_has_missed_nothing() {
    on_core(|_| async {
        let semaphore = Rc::new(Semaphore::new(1));
        let permit = Rc::clone(&semaphore).acquire_owned().await;
        let waits = Rc::clone(&semaphore);
        let mut acquired = Box::pin(async move {
            let scope = Scope::new().timeout(LONG);
            scope.run(waits.acquire_owned()).await
        });
        let result = Rc::new(RefCell::new(None));
        let says = Rc::clone(&result);
        // No permit is there, so it waits, in a scope that is opened then.
        let starts = Box::new(move || {
            let polled = acquired
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            says.replace(Some(acquired));
        });
        at_wakes([starts, Box::new(|| drop(permit))]);
        let mut acquired = result.take().expect("it was begun");
        let polled = poll_once(acquired.as_mut()).await;
        assert!(
            matches!(polled, Poll::Ready(Ok(Some(_)))),
            "the permit is free"
        );
    });
}

/// A group whose body starts two children and waits, polled once: no child has been.
async fn begun_group(
    said: &Rc<RefCell<Vec<Nothing>>>,
) -> Pin<Box<dyn Future<Output = Result<Option<()>, GroupError<Cancelled>>>>> {
    let said = Rc::clone(said);
    let mut begun = Box::pin(group(async move |g| {
        for _ in 0..2 {
            let said = Rc::clone(&said);
            drop(g.spawn(async move {
                said.borrow_mut().push(check());
                check()
            }));
        }
        pending::<Nothing>().await
    }));
    let first = poll_fn(|cx| Poll::Ready(begun.as_mut().poll(cx)));
    assert!(first.await.is_pending());
    begun
}

#[test]
fn children_of_a_group_that_is_dropped_before_their_first_poll_are_waited_for_by_the_scope_around()
{
    on_core(|_| async {
        let said = Rc::default();
        let scope = Scope::new();
        let outcome = scope.run(async {
            drop(begun_group(&said).await);
            Ok::<_, Cancelled>(())
        });
        assert_eq!(outcome.await, Ok(Some(())));
        let reasons: Vec<_> = (said.take().into_iter())
            .map(|said| said.map_err(Cancelled::reason))
            .collect();
        assert_eq!(reasons, [Err(Reason::Dropped), Err(Reason::Dropped)]);
    });
}

#[test]
fn a_child_drops_its_group_in_its_first_poll_and_is_cancelled_with_it() {
    on_core(|_| async {
        for at_once in [true, false] {
            let slot = Rc::new(RefCell::new(None));
            let given = Rc::new(Cell::new(None));
            let gives = Rc::clone(&given);
            let mut begun = Box::pin(group(async move |g| {
                gives.set(Some(g));
                pending::<Nothing>().await
            }));
            let first = poll_fn(|cx| Poll::Ready(begun.as_mut().poll(cx)));
            assert!(first.await.is_pending());
            *slot.borrow_mut() = Some(begun);
            let g = given.take().expect("it was polled");
            let child = async move {
                check()?;
                drop(slot.take());
                check()
            };
            let child = match at_once {
                true => g.spawn_eager(child),
                false => g.spawn(child),
            };
            match child.await {
                Err(JoinError::TaskCancelled(why)) => assert_eq!(why.reason(), Reason::Dropped),
                other => panic!("{other:?}"),
            }
            let late = g.spawn(async { Ok(()) }).await;
            assert!(matches!(late, Err(JoinError::GroupClosed)));
        }
    });
}

#[test]
fn a_child_that_is_cancelled_before_its_first_poll_takes_that_for_itself() {
    on_core(|_| async {
        let outcome = group(async |g| {
            let children = [g.spawn(async { check() }), g.spawn(async { check() })];
            children[0].cancel_for(Reason::User(1));
            let handle = children[1].cancel_handle().expect("it has not ended");
            handle.cancel_with(Reason::User(2), Duration::ZERO);
            let spared = g.spawn(async { check() });
            assert!(!children.iter().any(JoinHandle::is_finished));
            for (child, number) in children.into_iter().zip(1..) {
                match child.await {
                    Err(JoinError::TaskCancelled(why)) => {
                        assert_eq!(why.reason(), Reason::User(number));
                    }
                    other => panic!("{other:?}"),
                }
            }
            spared.await.expect("nobody has cancelled it");
            Ok::<_, Cancelled>(())
        });
        assert!(matches!(outcome.await, Ok(Some(()))));
    });
}

#[test]
fn what_a_child_without_a_node_ended_with_was_the_groups_to_take() {
    on_core(|_| async {
        let outer = Scope::new();
        let within = async {
            let outcome = group(async |g| {
                g.cancel();
                // It never waits, so it has ended when this returns.
                drop(g.spawn_eager(async { check() }));
                outer.cancel();
                Ok::<_, Cancelled>(())
            });
            let error = outcome
                .await
                .expect_err("the group is cancelled from further out");
            assert!(error.errors().is_empty() && error.cancelled().is_some());
            check()
        };
        assert_eq!(outer.run(within).await, Ok(None));
    });
}

/// Starts a task when it is dropped, which holds the next, and counts.
struct Starts(Rc<Cell<u32>>, u32);

impl Drop for Starts {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        if self.1 > 0 {
            let next = Self(Rc::clone(&self.0), self.1 - 1);
            drop(spawn(async move {
                let _next = next;
                pending::<()>().await;
            }));
        }
    }
}

#[test]
fn the_end_of_a_core_drops_tasks_that_were_never_polled_and_those_that_they_start() {
    on_both(|| {
        let drops = Rc::new(Cell::new(0));
        let theirs = Rc::clone(&drops);
        let builder = Runtime::builder().grace_period(Duration::ZERO);
        let ended = builder.block_on(async move {
            let starts = Starts(Rc::clone(&theirs), 3);
            drop(spawn(async move {
                let _starts = starts;
                pending::<()>().await;
            }));
            let starts = Starts(theirs, 3);
            let leaked = group(async move |g| {
                drop(g.spawn(async move {
                    let _starts = starts;
                    pending::<Nothing>().await
                }));
                pending::<Nothing>().await
            });
            let mut leaked = Box::pin(leaked);
            let first = poll_fn(|cx| Poll::Ready(leaked.as_mut().poll(cx)));
            assert!(first.await.is_pending());
            std::mem::forget(leaked);
        });
        ended.expect("there is a ring");
        assert_eq!(drops.get(), 8);
    });
}

#[test]
fn a_dump_tells_of_tasks_that_have_not_been_polled() {
    on_core(|_| async {
        let outcome = group(async |g| {
            let before = ScopeDump::of_this_core().expect("it is one").to_string();
            let child = g.spawn(async { Ok(()) });
            let task = spawn(async {});
            let after = ScopeDump::of_this_core().expect("it is one").to_string();
            let ready = |dump: &str| {
                dump.lines()
                    .filter(|line| line.contains("is ready"))
                    .count()
            };
            assert_eq!(ready(&after), ready(&before) + 2, "{after}");
            child.await.expect("it ends well");
            task.await.expect("it ends well");
            Ok::<_, Cancelled>(())
        });
        assert!(matches!(outcome.await, Ok(Some(()))));
    });
}

#[test]
fn a_task_that_woke_itself_and_ended_leaves_its_place_when_it_has_left_the_queue() {
    on_core(|_| async {
        let outcome = group(async |g| {
            let mut children = Vec::new();
            for number in 0..100 {
                let child = poll_fn(move |cx| {
                    cx.waker().wake_by_ref();
                    Poll::Ready(Ok(number))
                });
                // Every other one gives its place back while it stands in the queue.
                let mut child = g.spawn_eager(child);
                match number % 2 {
                    0 => assert!(matches!(child.try_join(), Some(Ok(found)) if found == number)),
                    _ => children.push((number, child)),
                }
                children.push((number, g.spawn(async move { Ok(number) })));
            }
            for (number, child) in children {
                assert_eq!(child.await.expect("it ends well"), number);
            }
            Ok::<_, Cancelled>(())
        });
        assert!(matches!(outcome.await, Ok(Some(()))));
    });
}

/// An output that counts where it is dropped, and says whether it lies where it must.
#[repr(align(32))]
struct Wide(Rc<Cell<u32>>);

impl Drop for Wide {
    fn drop(&mut self) {
        assert!(std::ptr::from_ref(self).is_aligned());
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn an_output_of_a_first_poll_is_dropped_once_whoever_has_it() {
    on_core(|_| async {
        let drops = Rc::new(Cell::new(0));
        let wide = || {
            let drops = Rc::clone(&drops);
            async move { Wide(drops) }
        };
        let taken = spawn(wide()).await.expect("it ends well");
        assert_eq!(drops.get(), 0);
        drop(taken);
        assert_eq!(drops.get(), 1);
        // Nobody wants it, before and after it is there.
        drop(spawn(wide()));
        let kept = spawn(wide());
        yield_now().await.expect("nobody cancels");
        while !kept.is_finished() {
            yield_now().await.expect("nobody cancels");
        }
        assert_eq!(drops.get(), 2);
        drop(kept);
        assert_eq!(drops.get(), 3);
        spawn(async {}).await.expect("it ends well");
    });
}

#[test]
fn a_child_that_has_ended_is_not_its_group_to_whom_that_wakes() {
    on_core(|handle| async move {
        let child = Rc::new(RefCell::new(None));
        let keeps = Rc::clone(&child);
        let mut children = Box::pin(group(async move |g| {
            *keeps.borrow_mut() = Some(g.spawn(async { check() }));
            Ok::<_, Cancelled>(())
        }));
        // The group's end is waited for by one who cancels the child that it waits for.
        JOBS.with_borrow_mut(|all| {
            let child = Rc::clone(&child);
            all.push(Box::new(move || {
                child.borrow().as_ref().expect("it was started").cancel();
            }));
        });
        let waker = Waker::from(Arc::new(RunsJob));
        let polled = children.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        yield_now().await.expect("nobody cancels");
        assert!(JOBS.with_borrow(Vec::is_empty), "it was woken");
        assert_eq!(handle.metrics()[0].panics, 0);
        assert!(matches!(children.await, Ok(Some(()))));
        let child = child.borrow_mut().take().expect("it was started");
        child.await.expect("nobody cancelled it");
    });
}

#[test]
fn a_child_that_waited_and_has_ended_is_not_its_group_to_whom_that_wakes() {
    on_core(|handle| async move {
        let child = Rc::new(RefCell::new(None));
        let keeps = Rc::clone(&child);
        let mut children = Box::pin(group(async move |g| {
            *keeps.borrow_mut() = Some(g.spawn(async {
                yield_now().await?;
                check()
            }));
            Ok::<_, Cancelled>(())
        }));
        let said = Rc::new(Cell::new(None));
        JOBS.with_borrow_mut(|all| {
            let (child, says) = (Rc::clone(&child), Rc::clone(&said));
            all.push(Box::new(move || {
                let child = child.borrow();
                let child = child.as_ref().expect("it was started");
                says.set(Some((child.is_finished(), child.cancel_handle().is_some())));
            }));
        });
        let waker = Waker::from(Arc::new(RunsJob));
        let polled = children.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        while said.get().is_none() {
            yield_now().await.expect("nobody cancels");
        }
        assert_eq!(said.get(), Some((true, false)));
        assert_eq!(handle.metrics()[0].panics, 0);
        assert!(matches!(children.await, Ok(Some(()))));
        let child = child.borrow_mut().take().expect("it was started");
        child.await.expect("nobody cancelled it");
    });
}
