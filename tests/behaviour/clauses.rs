//! Clauses of the rules of cancellation that no scenario tries.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use quoit::sync::{Event, Semaphore, shared};
use quoit::time::{Instant, sleep};
use quoit::{
    CancelHandle, Cancelled, CoreId, Delivery, Group, Misuse, Reason, Scope, ScopeDump, Started,
    check, group, on, race, spawn, yield_now, yield_uncancellable,
};
use tests::{Kernel, conform, gauges, poll_once};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

// --- a start is under its caller's scope: the one that polls it ---

#[test]
fn a_start_goes_to_the_scope_that_polls_it() {
    conform(|_| async {
        let done = group(async |g: Group<Cancelled>| {
            let mut start = Box::pin(g.start(async |_: Started<()>| sleep(LONG).await));
            assert!(poll_once(start.as_mut()).await.is_pending());
            let began = Instant::now();
            let scope = Scope::new().timeout(SHORT);
            let started = scope.run(start).await;
            assert!(matches!(started, Ok(None)), "{started:?}");
            if Kernel::here() == Kernel::Simulated {
                assert_eq!(began.elapsed(), SHORT);
            }
            Ok(())
        });
        assert_eq!(done.await.expect("nothing fails"), Some(()));
    });
}

#[test]
fn a_start_that_outlives_the_scope_that_polled_it_first_holds_it_not() {
    conform(|_| async {
        let go = Rc::new(Event::new());
        let waited = Rc::clone(&go);
        let done = group(async |g: Group<Cancelled>| {
            let mut start = Box::pin(g.start(async move |started: Started<u32>| {
                waited.wait().await?;
                started.report(7).expect("it is the first");
                Ok(())
            }));
            let scope = Scope::new();
            let ran = scope.run(async {
                assert!(poll_once(start.as_mut()).await.is_pending());
                Ok::<_, Cancelled>(())
            });
            assert_eq!(ran.await, Ok(Some(())));
            go.set();
            assert_eq!(start.await.expect("it reports"), 7);
            Ok(())
        });
        assert_eq!(done.await.expect("nothing fails"), Some(()));
    });
}

/// Dropped elsewhere than it began, it leaves its child to the scope that polled it last.
#[test]
fn a_start_that_is_dropped_leaves_its_child_to_the_scope_that_polled_it_last() {
    conform(|_| async {
        let has_ended = Rc::new(Cell::new(false));
        let noted = Rc::clone(&has_ended);
        let done = group(async |g: Group<Cancelled>| {
            let mut start = Box::pin(g.start(async move |_: Started<()>| {
                let refused = sleep(LONG).await;
                Scope::new().shielded().run(sleep(SHORT)).await?;
                noted.set(true);
                refused
            }));
            assert!(poll_once(start.as_mut()).await.is_pending());
            yield_uncancellable().await;
            let scope = Scope::new();
            let ran = scope.run(async {
                assert!(poll_once(start.as_mut()).await.is_pending());
                drop(start);
                Ok::<_, Cancelled>(())
            });
            assert_eq!(ran.await, Ok(Some(())));
            assert!(has_ended.get(), "the scope has ended before its child");
            Ok(())
        });
        assert_eq!(done.await.expect("nothing fails"), Some(()));
    });
}

// --- reasons ---

#[test]
fn a_cancel_for_a_misuse_is_a_request() {
    const MISUSE: Reason = Reason::Misuse(Misuse::Stray);
    conform(|_| async {
        let scope = Scope::new();
        let ran = scope.run(async {
            scope.cancel_with(MISUSE, Duration::ZERO);
            sleep(LONG).await
        });
        assert_eq!(ran.await, Ok(None));
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::Requested)
        );

        let cancelled = group(async |g: Group<Cancelled>| {
            g.cancel_for(MISUSE);
            sleep(LONG).await
        });
        assert!(matches!(cancelled.await, Ok(None)));

        let joined = group(async |g: Group<Cancelled>| {
            let child = g.spawn(sleep(LONG));
            child.cancel_for(MISUSE);
            assert!(child.await.is_err());
            Ok(())
        });
        assert!(matches!(joined.await, Ok(Some(()))));
    });
}

// --- a handle says what its scope says: Delivered, AlreadyCancelled or Gone ---

/// What the handle of a scope answers, here and on another thread.
fn answers(handle: CancelHandle) -> [Delivery; 3] {
    let elsewhere = thread::spawn(move || handle.cancel()).join();
    let moved = handle.set_deadline(Instant::now());
    [handle.cancel(), elsewhere.expect("no panic"), moved]
}

#[test]
fn a_handle_knows_that_its_scope_was_cancelled_otherwise() {
    conform(|core| async move {
        let already = [Delivery::AlreadyCancelled; 3];
        let before = core.metrics()[0].remote_cancels;
        // By itself.
        let scope = Scope::new();
        let early = scope.handle();
        let ran = scope.run(async {
            assert_eq!(scope.cancel(), Delivery::Delivered);
            assert_eq!(answers(early), already);
            assert_eq!(answers(scope.handle()), already, "made since");
            yield_now().await
        });
        assert_eq!(ran.await, Ok(None));
        assert_eq!(answers(early), [Delivery::Gone; 3]);
        // By its deadline.
        let scope = Scope::new().timeout(Duration::ZERO);
        let handle = scope.handle();
        let ran = scope.run(async {
            assert!(yield_now().await.is_err());
            assert_eq!(answers(handle), already);
            yield_now().await
        });
        assert_eq!(ran.await, Ok(None));
        // By a child that fails.
        let failed = group(async |g: Group<io::Error>| {
            let handle = g.handle().expect("it is open");
            g.spawn(async { Err::<(), _>(io::ErrorKind::Other.into()) });
            sleep(LONG).await.expect_err("it is cancelled");
            assert_eq!(answers(handle), already);
            Ok(())
        });
        assert!(failed.await.is_err());
        // A cancel from further out is not its own.
        let outer = Scope::new();
        let ran = outer.run(async {
            let inner = Scope::new();
            inner
                .run(async {
                    outer.cancel();
                    assert_eq!(inner.handle().cancel(), Delivery::Delivered);
                    yield_now().await
                })
                .await
        });
        let ran = ran.await;
        assert!(matches!(ran, Ok(None | Some(None))), "{ran:?}");
        assert_eq!(gauges(&core).await.remote_cancels - before, 1);
    });
}

/// A child outlives its group, and is cancelled as that was: for its own now.
#[test]
fn a_handle_knows_that_its_task_was_left_cancelled_by_a_group_that_was_dropped() {
    conform(|core| async move {
        for shield in [false, true] {
            let before = gauges(&core).await.timers;
            let around = Scope::new().shielded();
            let left = around.run(async {
                let handle = Rc::new(Cell::new(None));
                let given = Rc::clone(&handle);
                let mut dropped = Box::pin(group(async move |g: Group<Cancelled>| {
                    let child = g.spawn(async move {
                        let scope = Scope::new();
                        let scope = if shield { scope.shielded() } else { scope };
                        scope.run(sleep(SHORT)).await.map(drop)
                    });
                    given.set(child.cancel_handle());
                    sleep(LONG).await
                }));
                assert!(poll_once(dropped.as_mut()).await.is_pending());
                yield_now().await?;
                let handle = handle.take().expect("it was started");
                assert_eq!(
                    handle.set_deadline(Instant::now() + LONG),
                    Delivery::Delivered
                );
                yield_now().await?;
                drop(dropped);
                assert_eq!(answers(handle), [Delivery::AlreadyCancelled; 3]);
                Ok::<_, Cancelled>(handle)
            });
            let handle = left.await.expect("no cancel").expect("no cancel");
            assert_eq!(answers(handle), [Delivery::Gone; 3]);
            assert_eq!(gauges(&core).await.timers, before, "a shield: {shield}");
        }
    });
}

// --- waits in something the runtime does not know ---

/// One wait, however often its scope is cancelled anew: it has its eight wakes, and none behind a shield.
#[test]
fn a_foreign_wait_is_woken_so_many_times_however_often_its_shield_is_cleared() {
    conform(|handle| async move {
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        let scopes = [(); 2].map(|()| Rc::new(Scope::new()));
        let [outer, inner] = scopes.clone();
        let ready: Rc<(Cell<bool>, RefCell<Option<Waker>>)> = Rc::default();
        let source = Rc::clone(&ready);
        let task = spawn(async move {
            let wait = poll_fn(|cx| {
                counted.set(counted.get() + 1);
                *source.1.borrow_mut() = Some(cx.waker().clone());
                if source.0.get() {
                    Poll::Ready(Ok::<_, Cancelled>(()))
                } else {
                    Poll::Pending
                }
            });
            outer.run(inner.run(wait)).await
        });
        let [outer, inner] = scopes;
        sleep(SHORT).await.expect("nobody cancels");
        assert_eq!(polls.get(), 1);
        outer.cancel();
        yield_uncancellable().await;
        yield_uncancellable().await;
        assert_eq!(polls.get(), 2, "at once");
        inner.set_shielded(true);
        sleep(SHORT * 40).await.expect("nobody cancels");
        assert_eq!(polls.get(), 2, "nothing is cancelled behind the shield");
        // They are spread over several such times, more of them where the core comes to run seldom.
        let mut further = 5;
        while polls.get() < 1 + 8 || further > 0 {
            further -= i32::from(polls.get() > 8);
            inner.set_shielded(false);
            sleep(SHORT * 40).await.expect("nobody cancels");
            inner.set_shielded(true);
        }
        assert_eq!(polls.get(), 1 + 8);
        assert_eq!(gauges(&handle).await.foreign_wakes, 8);
        let told = ScopeDump::of_this_core().expect("on a core").to_string();
        assert!(!told.contains("unresponsive"), "{told}");
        inner.set_shielded(false);
        let told = ScopeDump::of_this_core().expect("on a core").to_string();
        assert!(told.contains("unresponsive"), "{told}");
        ready.0.set(true);
        let waker = ready.1.borrow_mut().take();
        waker.expect("it was polled").wake();
        assert_eq!(task.await.expect("no panic"), Ok(Some(Some(()))));
    });
}

// --- a cancel from the same core is seen at the next op ---

#[test]
fn a_cancel_is_seen_by_the_next_op_behind_calls_of_the_same_core() {
    conform(|_| async {
        let here = CoreId::current().expect("on a core");
        let outer = Scope::new();
        let handle = outer.handle();
        let innermost = move || async move {
            assert_eq!(handle.cancel(), Delivery::Delivered);
            let seen = check();
            assert!(seen.is_err(), "it was told through three calls");
            Ok::<_, io::Error>(seen?)
        };
        let calls = on(here, move || on(here, move || on(here, innermost)));
        let done = outer.run(calls).await;
        assert!(matches!(done, Ok(None)), "{done:?}");
    });
}

// --- tasks that swallow every cancel ---

/// Which refuses it counts: two scopes that take turns do not hide a task that swallows both.
#[test]
fn a_task_that_swallows_two_cancels_in_turn_has_to_pause() {
    const REFUSALS: u32 = 1024 + 8;
    conform(|handle| async move {
        let scopes = [(); 2].map(|()| Scope::new());
        let body = |scope: &Scope| {
            scope.cancel();
            async {
                for _ in 0..REFUSALS {
                    assert!(sleep(LONG).await.is_err());
                    yield_uncancellable().await;
                }
                Ok::<_, Cancelled>(())
            }
        };
        let mut runs = scopes
            .each_ref()
            .map(|scope| Some(Box::pin(scope.run(body(scope)))));
        // One of them at a time; the other in the next poll.
        let mut turns = 0;
        poll_fn(|cx| {
            turns += 1;
            for at in [turns % 2, 1 - turns % 2] {
                let Some(run) = &mut runs[at] else { continue };
                if run.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                runs[at] = None;
            }
            Poll::Ready(())
        })
        .await;
        let seen = gauges(&handle).await;
        assert!((14..=40).contains(&seen.pauses), "{}", seen.pauses);
        assert_eq!(seen.swallowing, 0);
    });
}

/// Whatever it waited in, and whether it sees that of each in a poll of its own.
#[test]
fn each_wait_that_was_aborted_has_refusals_free_for_its_clean_up() {
    const WAITS: usize = 100;
    const REFUSALS: usize = 1024 + 16 * WAITS;
    type Wait = Pin<Box<dyn Future<Output = Result<(), Cancelled>>>>;
    conform(|handle| async move {
        let kinds: [fn() -> Wait; 6] = [
            || Box::pin(sleep(LONG)),
            || Box::pin(async { Event::new().wait().await }),
            || Box::pin(async { Semaphore::new(0).acquire().await.map(drop) }),
            || Box::pin(async { shared::Semaphore::new(0).acquire().await.map(drop) }),
            || {
                Box::pin(async {
                    let (_send, get) = shared::channel::bounded::<u8>(1);
                    get.recv().await.map(drop)
                })
            },
            // In a scope of its own, which is gone when that is counted.
            || Box::pin(async { Scope::new().run(sleep(LONG)).await.map(drop) }),
        ];
        for (wait, at_once) in kinds
            .into_iter()
            .flat_map(|wait| [(wait, true), (wait, false)])
        {
            let before = gauges(&handle).await.pauses;
            let scope = Scope::new();
            let body = async {
                let mut waits: Vec<_> = (0..WAITS).map(|_| wait()).collect();
                for wait in &mut waits {
                    assert!(poll_once(wait.as_mut()).await.is_pending());
                }
                scope.cancel();
                for wait in waits {
                    assert!(wait.await.is_err());
                    if !at_once {
                        yield_uncancellable().await;
                    }
                }
                for _ in 0..REFUSALS {
                    assert!(sleep(LONG).await.is_err());
                }
                assert_eq!(handle.metrics()[0].pauses, before);
                sleep(LONG).await
            };
            assert_eq!(scope.run(body).await, Ok(None));
            assert_eq!(gauges(&handle).await.pauses, before + 1);
        }
    });
}

/// Also where the task was refused in a scope of its own just before.
#[test]
fn waits_that_were_aborted_have_refusals_free_whatever_else_the_task_was_refused() {
    const WAITS: usize = 100;
    const REFUSALS: usize = 1024 + 16 * WAITS;
    conform(|handle| async move {
        let before = gauges(&handle).await.pauses;
        let scope = Scope::new();
        let body = async {
            let mut waits: Vec<_> = (0..WAITS).map(|_| Box::pin(sleep(LONG))).collect();
            for wait in &mut waits {
                assert!(poll_once(wait.as_mut()).await.is_pending());
            }
            scope.cancel();
            let goodbye = Scope::new().shielded();
            goodbye.cancel();
            assert_eq!(goodbye.run(sleep(LONG)).await, Ok(None));
            for wait in waits {
                assert!(wait.await.is_err());
            }
            for _ in 0..REFUSALS {
                assert!(sleep(LONG).await.is_err());
            }
            assert_eq!(handle.metrics()[0].pauses, before);
            sleep(LONG).await
        };
        assert_eq!(scope.run(body).await, Ok(None));
        assert_eq!(gauges(&handle).await.pauses, before + 1);
    });
}

/// Also those that it looks at when all the others have been used up.
#[test]
fn waits_that_were_aborted_have_refusals_free_where_they_are_looked_at_late() {
    const FREE: usize = 1024;
    const WAITS: usize = 100;
    for before_the_waits in [FREE - 1, FREE] {
        conform(move |handle| async move {
            let before = gauges(&handle).await.pauses;
            let scope = Scope::new();
            let body = async {
                let mut waits: Vec<_> = (0..WAITS).map(|_| Box::pin(sleep(LONG))).collect();
                for wait in &mut waits {
                    assert!(poll_once(wait.as_mut()).await.is_pending());
                }
                scope.cancel();
                for _ in 0..before_the_waits {
                    assert!(sleep(LONG).await.is_err());
                }
                if before_the_waits < FREE {
                    // It has not been refused in the poll in which it looks at them.
                    yield_uncancellable().await;
                }
                for wait in waits {
                    assert!(wait.await.is_err());
                }
                for _ in before_the_waits..FREE + 16 * WAITS {
                    assert!(sleep(LONG).await.is_err());
                }
                assert_eq!(handle.metrics()[0].pauses, before);
                sleep(LONG).await
            };
            assert_eq!(scope.run(body).await, Ok(None));
            assert_eq!(gauges(&handle).await.pauses, before + 1);
        });
    }
}

/// That it is made to yield now and then takes nothing of it.
#[test]
fn a_task_pauses_after_so_many_refusals_and_not_one_before() {
    const FREE: usize = 1024;
    conform(|handle| async move {
        let before = handle.metrics()[0].pauses;
        let scope = Scope::new();
        scope.cancel();
        let body = async {
            for _ in 0..FREE {
                assert!(sleep(LONG).await.is_err());
            }
            assert_eq!(handle.metrics()[0].pauses, before);
            sleep(LONG).await
        };
        assert_eq!(scope.run(body).await, Ok(None));
        assert_eq!(gauges(&handle).await.pauses, before + 1);
    });
}

/// The scope that refuses is the same, whatever scopes come and go inside.
#[test]
fn a_task_that_is_refused_in_a_scope_of_its_own_each_time_pauses_as_well() {
    const FREE: usize = 1024;
    type Refused = Pin<Box<dyn Future<Output = bool>>>;
    // As who tries again and again, each time with a timeout.
    let kinds: [(fn() -> Refused, usize); 3] = [
        (
            || Box::pin(async { Scope::new().run(sleep(LONG)).await.is_err() }),
            1,
        ),
        (
            || Box::pin(async { Scope::new().timeout(LONG).run(sleep(LONG)).await.is_err() }),
            1,
        ),
        (
            || Box::pin(async { race(sleep(LONG), sleep(LONG)).await.is_err() }),
            2,
        ),
    ];
    conform(move |handle| async move {
        for (ask, refusals) in kinds {
            let before = handle.metrics()[0].pauses;
            let scope = Scope::new();
            scope.cancel();
            let body = async {
                for _ in 0..FREE / refusals {
                    assert!(ask().await, "it is refused");
                }
                assert_eq!(handle.metrics()[0].pauses, before);
                for _ in 0..4 {
                    assert!(ask().await, "it is refused");
                }
                sleep(LONG).await
            };
            assert_eq!(scope.run(body).await, Ok(None));
            let pauses = gauges(&handle).await.pauses - before;
            assert_eq!(pauses, 4 * refusals as u64 + 1);
        }
    });
}

/// One branch has ignored its cancel too often, and pauses; the other is told in the same poll, once.
#[test]
fn who_is_told_of_a_cancel_beside_a_branch_that_pauses_is_refused_at_once() {
    const FREE: usize = 1024;
    conform(|_| async move {
        let (ignored, heeded) = (Scope::new(), Rc::new(Scope::new()));
        ignored.cancel();
        let is_ready = Rc::new(Cell::new(false));
        let canceller = spawn({
            let (heeded, is_ready) = (Rc::clone(&heeded), Rc::clone(&is_ready));
            async move {
                while !is_ready.get() {
                    yield_uncancellable().await;
                }
                heeded.cancel();
            }
        });
        let has_cleaned_up = Cell::new(false);
        let mut ignores = pin!(ignored.run(async {
            for _ in 1..FREE {
                assert!(sleep(LONG).await.is_err());
            }
            is_ready.set(true);
            while heeded.cancelled().is_none() {
                yield_uncancellable().await;
            }
            for _ in 0..2 {
                assert!(!has_cleaned_up.get(), "it was told in this poll");
                assert!(sleep(LONG).await.is_err());
            }
            assert!(has_cleaned_up.get(), "it was made to pause as well");
            sleep(LONG).await
        }));
        let mut heeds = pin!(heeded.run(async {
            assert!(sleep(LONG).await.is_err());
            let told = sleep(LONG).await;
            has_cleaned_up.set(true);
            told
        }));
        let mut open = [true; 2];
        poll_fn(|cx| {
            open[0] = open[0] && ignores.as_mut().poll(cx).is_pending();
            open[1] = open[1] && heeds.as_mut().poll(cx).is_pending();
            match open {
                [false, false] => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
        canceller.await.expect("it ends");
    });
}

/// One that comes after it has its place.
#[test]
fn what_a_task_was_refused_is_forgotten_with_it() {
    conform(|handle| async move {
        let before = gauges(&handle).await.pauses;
        let ended = group(async |g: Group<Cancelled>| {
            g.cancel();
            for _ in 0..2 {
                let child = g.spawn(async {
                    for _ in 0..800 {
                        assert!(sleep(LONG).await.is_err());
                    }
                    Ok(())
                });
                while !child.is_finished() {
                    yield_uncancellable().await;
                }
            }
            Ok(())
        });
        assert_eq!(ended.await.expect("nothing fails"), Some(()));
        assert_eq!(gauges(&handle).await.pauses, before);
    });
}
