//! A scope that its own body cancels, and what ops find when they begin.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::op;
use quoit::sync::Event;
use quoit::time::{Instant, sleep, sleep_until};
use quoit::{
    CancelHandle, Cancelled, CarriesCancelled, Delivery, Group, Misuse, Reason, Scope, check,
    group, isolating_group, run_until_cancelled, spawn, yield_now, yield_uncancellable,
};
use quoit_net::{TcpListener, TcpStream};
use tests::{Kernel, both_ends, conform, conform_in, gauges, quietly, receive_all};

use crate::support::{
    LONG, SHORT, after_exactly, at_once, both, pipe, reason, some_turns, waiting, watched,
};

/// By the scope itself, and through a handle.
#[test]
fn c001_op_after_the_scope_s_own_cancel_is_refused_at_once() {
    conform(|handle| async move {
        for through_a_handle in [false, true] {
            let before = handle.metrics()[0];
            let began = Instant::now();
            let scope = Scope::new();
            let cancel = through_a_handle.then(|| scope.handle());
            let (run, polls) = watched(scope.run(async {
                let told = cancel.map_or_else(|| scope.cancel(), |cancel| cancel.cancel());
                assert_eq!(told, Delivery::Delivered);
                sleep(Duration::from_secs(5)).await
            }));
            assert_eq!(run.await, Ok(None));
            at_once(began);
            // No turn has passed, so nobody was woken.
            let after = handle.metrics()[0];
            assert_eq!(polls.get(), 1);
            assert_eq!((after.turns, after.aborts), (before.turns, before.aborts));
            assert_eq!(
                scope.cancelled().map(Cancelled::reason),
                Some(Reason::Requested)
            );
            assert!(scope.absorbed());
            // The timer of the pause in which the gauges were taken.
            assert_eq!(gauges(&handle).await.timers, 1);
        }
    });
}

/// By the scope itself, and through a handle, whose message is not taken in any more.
#[test]
fn c002_cancel_that_nobody_saw_ends_with_its_scope() {
    conform(|handle| async move {
        for through_a_handle in [false, true] {
            let scope = Scope::new();
            let cancel = through_a_handle.then(|| scope.handle());
            let outcome = scope
                .run(async {
                    let told = cancel.map_or_else(|| scope.cancel(), |cancel| cancel.cancel());
                    assert_eq!(told, Delivery::Delivered);
                    Ok::<_, Cancelled>(7)
                })
                .await;
            assert_eq!(outcome, Ok(Some(7)));
            assert!(!scope.absorbed());
            assert_eq!(
                scope.cancelled().map(Cancelled::reason),
                Some(Reason::Requested)
            );
            assert_eq!(scope.cancel(), Delivery::Gone);
            let before = handle.metrics()[0].aborts;
            op::nop().await.expect("nobody cancelled this one");
            sleep(SHORT).await.expect("nobody cancelled this one");
            assert_eq!(handle.metrics()[0].aborts, before);
        }
    });
}

#[test]
fn c003_thousandth_cancel_is_as_the_first() {
    conform(|handle| async move {
        let before = handle.metrics()[0].remote_cancels;
        let scope = Scope::new();
        let cancel = scope.handle();
        let outcome = scope
            .run(async {
                assert_eq!(
                    cancel.cancel_with(Reason::User(1), Duration::ZERO),
                    Delivery::Delivered
                );
                for _ in 1..1_000 {
                    assert_eq!(
                        cancel.cancel_with(Reason::User(2), Duration::ZERO),
                        Delivery::AlreadyCancelled
                    );
                }
                assert_eq!(reason(&op::nop().await), Some(Reason::User(1)));
                assert_eq!(
                    cancel.cancel_with(Reason::User(3), Duration::ZERO),
                    Delivery::AlreadyCancelled
                );
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::User(1))
        );
        assert_eq!(handle.metrics()[0].remote_cancels - before, 1);
    });
}

#[test]
fn c003_thousandth_cancel_of_the_scope_itself_is_as_the_first() {
    conform(|handle| async move {
        let before = gauges(&handle).await.deliveries;
        let scope = Scope::new();
        let outcome = scope
            .run(async {
                let first = scope.cancel_with(Reason::User(1), Duration::ZERO);
                assert_eq!(first, Delivery::Delivered);
                for _ in 1..1_000 {
                    assert_eq!(scope.cancel(), Delivery::AlreadyCancelled);
                }
                assert_eq!(reason(&op::nop().await), Some(Reason::User(1)));
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(gauges(&handle).await.deliveries - before, 1);
    });
}

#[test]
fn c004_cancel_stops_no_running_code() {
    conform(|_| async {
        let ran = Cell::new(0);
        let step = || ran.set(ran.get() + 1);
        let scope = Scope::new();
        let cancel = scope.handle();
        let outcome = scope
            .run(async {
                cancel.cancel();
                step();
                async { step() }.await;
                step();
                op::nop().await?;
                step();
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(ran.get(), 3);
    });
}

/// Who yields uncancellably lets every ready task run once before it goes on.
#[test]
fn c005_uncancellable_yield_does_not_look() {
    conform(|_| async {
        let (ticks, done) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
        let (ticking, stop) = (Rc::clone(&ticks), Rc::clone(&done));
        // One that is always ready.
        let ticker = spawn(poll_fn(move |cx| {
            ticking.set(ticking.get() + 1);
            if stop.get() {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let scope = Scope::new();
        let outcome = scope
            .run(async {
                scope.cancel();
                for _ in 0..2 {
                    let before = ticks.get();
                    yield_uncancellable().await;
                    assert!(ticks.get() > before);
                }
                let before = ticks.get();
                let refused = yield_now().await;
                assert_eq!(ticks.get(), before, "it does not yield");
                refused
            })
            .await;
        assert_eq!(outcome, Ok(None));
        done.set(true);
        ticker.await.expect("it ended");
    });
}

#[test]
fn c006_inner_scope_passes_an_outer_cancel_on() {
    conform(|_| async {
        let after = Cell::new(false);
        let (outer, inner) = (Scope::new(), Scope::new());
        let cancel = outer.handle();
        let outcome = outer
            .run(async {
                inner
                    .run(async {
                        cancel.cancel_with(Reason::User(4), Duration::ZERO);
                        op::nop().await
                    })
                    .await?;
                after.set(true);
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert!(!after.get());
        assert!(outer.absorbed() && !inner.absorbed());
        assert_eq!(inner.cancelled(), None);
        assert_eq!(
            outer.cancelled().map(Cancelled::reason),
            Some(Reason::User(4))
        );
    });
}

#[test]
fn c006_inner_scope_passes_an_outer_deadline_on() {
    conform(|_| async {
        let outer = Scope::new().timeout(SHORT);
        let outcome = outer
            .run(async {
                let inner = Scope::new();
                let outcome = inner.run(sleep(LONG)).await;
                assert_eq!(inner.cancelled(), None);
                let cancelled = outcome.expect_err("it is on its way to the outer scope");
                assert_eq!(cancelled.reason(), Reason::Deadline);
                Err::<(), _>(cancelled)
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

/// The group's body cancels it, and waits itself; a child waits as well.
#[test]
fn c007_group_that_its_body_cancels_ends_after_its_child() {
    conform(|handle| async move {
        let ended = Rc::new(Cell::new(0));
        let before = gauges(&handle).await;
        let inner = Rc::clone(&ended);
        let (run, polls) = watched(group(async |g: Group<Cancelled>| {
            g.spawn(async move {
                let refused = sleep(LONG).await;
                inner.set(inner.get() + 1);
                refused
            });
            some_turns(1).await;
            assert_eq!(g.cancel(), Delivery::Delivered);
            sleep(LONG).await
        }));
        let outcome = run.await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(ended.get(), 1);
        let after = gauges(&handle).await;
        assert_eq!(after.aborts - before.aborts, 1, "the child's");
        assert_eq!(after.deliveries - before.deliveries, 1);
        assert_eq!((after.tasks, after.scopes), (before.tasks, before.scopes));
        if Kernel::here().counts_exactly() {
            // Begun, back from the turn, and told of the child's end.
            assert_eq!(polls.get(), 3);
        }
    });
}

#[test]
fn c008_scope_that_was_cancelled_before_its_run_refuses_its_first_op() {
    conform(|_| async {
        let scope = Rc::new(Scope::new());
        assert_eq!(
            scope.handle().cancel_with(Reason::User(5), Duration::ZERO),
            Delivery::Delivered
        );
        let entered = Rc::clone(&scope);
        let began = Instant::now();
        let task = spawn(async move {
            let (run, polls) = watched(entered.run(sleep(LONG)));
            (run.await, polls.get())
        });
        assert_eq!(task.await.expect("it ended"), (Ok(None), 1));
        at_once(began);
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::User(5))
        );
    });
}

#[test]
fn c009_cancel_after_the_run_changes_nothing() {
    conform(|handle| async move {
        let scope = Scope::new();
        let cancel = scope.handle();
        assert_eq!(
            scope.run(async { Ok::<_, Cancelled>(()) }).await,
            Ok(Some(()))
        );
        // Another scope in the same place is not its business.
        let next = Scope::new();
        let next_cancel = next.handle();
        let before = handle.metrics()[0];
        let (run, polls) = watched(next.run(async {
            assert_eq!(cancel.cancel(), Delivery::Gone);
            op::nop().await?;
            check()?;
            Ok::<_, io::Error>(())
        }));
        assert!(matches!(run.await, Ok(Some(()))));
        assert_eq!(polls.get(), 2, "begun, and ended by its completion");
        assert_eq!((scope.cancelled(), next.cancelled()), (None, None));
        assert_eq!(next_cancel.cancel(), Delivery::Gone);
        let after = handle.metrics()[0];
        assert_eq!(after.aborts, before.aborts);
        assert_eq!(after.remote_cancels, before.remote_cancels);
    });
}

/// The second cause comes by deadline, by handle, or in a scope around.
#[test]
fn c010_first_cause_stays() {
    conform(|_| async {
        let scope = Scope::new().timeout(SHORT);
        let handle = scope.handle();
        let outcome = scope
            .run(async {
                assert_eq!(
                    handle.cancel_with(Reason::User(1), Duration::ZERO),
                    Delivery::Delivered
                );
                let first = sleep(LONG).await;
                let past = Instant::now() + 2 * SHORT;
                let pause = Scope::new().shielded();
                pause.run(sleep_until(past)).await.expect("deaf");
                let second = sleep(LONG).await;
                assert_eq!(
                    handle.cancel_with(Reason::User(2), Duration::ZERO),
                    Delivery::AlreadyCancelled
                );
                let third = sleep(LONG).await;
                for refused in [first, second, third] {
                    assert_eq!(reason(&refused), Some(Reason::User(1)));
                }
                Ok::<_, Cancelled>(())
            })
            .await;
        assert_eq!(outcome, Ok(Some(())));
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::User(1))
        );
        assert_eq!(handle.cancel(), Delivery::Gone);
    });
}

#[test]
fn c010_deadline_that_came_first_stays_the_cause() {
    conform(|_| async {
        let scope = Scope::new().timeout(SHORT);
        let handle = scope.handle();
        let outcome = scope
            .run(async {
                let first = sleep(LONG).await;
                handle.cancel_with(Reason::User(2), Duration::ZERO);
                let second = sleep(LONG).await;
                for refused in [first, second] {
                    assert_eq!(reason(&refused), Some(Reason::Deadline));
                }
                yield_now().await
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::Deadline)
        );
    });
}

/// Somebody keeps a `Cancelled` and returns it where nothing is cancelled.
#[test]
fn c011_cancelled_that_was_kept_from_elsewhere_is_a_failure() {
    conform(|handle| async move {
        let before = handle.metrics()[0].aborts;
        let outcome = group(async |g: Group<Cancelled>| {
            g.spawn(async {
                let first = Scope::new();
                first.cancel();
                let kept = Cell::new(None);
                let taken = first
                    .run(async {
                        let refused = op::nop().await.expect_err("cancelled");
                        kept.set(refused.cancelled());
                        Err::<(), _>(refused)
                    })
                    .await;
                assert!(matches!(taken, Ok(None)), "{taken:?}");
                let second = Scope::new();
                let outcome = second
                    .run(async { Err::<(), _>(kept.get().expect("it was kept")) })
                    .await;
                assert!(outcome.is_err() && !second.absorbed());
                outcome
            });
            // The failure has cancelled the group.
            sleep(LONG).await
        })
        .await;
        let error = outcome.expect_err("a child failed");
        let stray = Reason::Misuse(Misuse::Stray);
        assert_eq!(
            error
                .errors()
                .iter()
                .map(|error| error.reason())
                .collect::<Vec<_>>(),
            [stray]
        );
        assert!(error.cancelled().is_none());
        assert!(handle.metrics()[0].aborts - before <= 1);
    });
}

/// As a scope does, a group decides whose it is when its body ends: what it cancels for that is not its reason.
#[test]
fn c011_cancelled_that_was_kept_goes_on_out_of_a_group_whose_body_ends_with_it() {
    /// Ends with one of another scope.
    async fn stray(cancels: bool, g: Group<Cancelled>) -> Result<(), Cancelled> {
        let elsewhere = Scope::new();
        elsewhere.cancel();
        drop(g.spawn(sleep(LONG)));
        yield_now().await?;
        if cancels {
            g.cancel();
        }
        Err(elsewhere.cancelled().expect("just now"))
    }
    conform(|_| async {
        for cancels in [false, true] {
            let outcomes = [
                group(async |g| stray(cancels, g).await).await,
                isolating_group(async |g| stray(cancels, g).await).await,
            ];
            for outcome in outcomes {
                if cancels {
                    assert_eq!(outcome.expect("it takes what came of its own cancel"), None);
                    continue;
                }
                let error = outcome.expect_err("nothing was cancelled");
                assert!(error.errors().is_empty());
                assert_eq!(
                    error.cancelled().map(Cancelled::reason),
                    Some(Reason::Requested)
                );
            }
        }
        // The task around has failed.
        let around = group(async |outer| {
            outer.spawn(async {
                let inner = group(async |g| stray(false, g).await).await;
                inner
                    .map(drop)
                    .map_err(|error| error.cancelled().expect("on its way"))
            });
            Ok::<_, Cancelled>(())
        });
        let error = around.await.expect_err("its child failed");
        let reasons: Vec<_> = error.errors().iter().map(|error| error.reason()).collect();
        assert_eq!(reasons, [Reason::Misuse(Misuse::Stray)]);
    });
}

#[test]
fn c012_ready_data_is_still_there() {
    conform_in(&[], |_, folder| async move {
        let (reader, writer) = pipe();
        op::write(&writer, "p").await.0.expect("room");
        let (ours, theirs) = both_ends().await;
        theirs.write_all("s").await.0.expect("the socket takes it");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let waits = TcpStream::connect(listener.local_addr()).await;
        let _waits = waits.expect("it listens");
        let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = other.local_addr();
        let event = Event::new();
        event.set();
        let mut task = spawn(async { 7 });
        while !task.is_finished() {
            yield_now().await.expect("not cancelled yet");
        }
        let path = folder.join("new");

        let scope = Scope::new();
        let handle = scope.handle();
        let outcome = scope
            .run(async {
                assert_eq!(handle.cancel(), Delivery::Delivered);
                let refused = |outcome: Option<Reason>| {
                    assert_eq!(outcome, Some(Reason::Requested));
                };
                refused(reason(&op::nop().await));
                refused(reason(&op::read(&reader, [0; 1]).await.0));
                refused(reason(&op::write(&writer, "q").await.0));
                refused(reason(&op::poll(&reader, libc::POLLIN as u32).await));
                refused(reason(&ours.recv().await));
                refused(reason(&ours.read([0; 1]).await.0));
                refused(reason(&ours.write_all("t").await.0));
                refused(reason(&ours.write_all_vectored(vec!["u", "v"]).await.0));
                refused(reason(&listener.accept().await));
                refused(reason(&TcpStream::connect(address).await));
                refused(reason(&quoit::fs::File::create(&path).await));
                refused(reason(&event.wait().await));
                refused(reason(&sleep(Duration::ZERO).await));
                refused(reason(&sleep(LONG).await));
                refused(reason(&yield_now().await));
                refused(reason(&check()));
                let joined = (&mut task).await.expect_err("cancelled");
                refused(joined.cancelled().map(Cancelled::reason));
                let foreign = async { panic!("it is not polled") };
                refused(reason(&run_until_cancelled(foreign).await));
                Ok::<_, io::Error>("done")
            })
            .await;
        // A body that ends with a value has ended with a value, cancelled or not.
        assert_eq!(outcome.expect("no error"), Some("done"));

        // None of it happened.
        let missing = quoit::fs::File::open(&path).await;
        let missing = missing.expect_err("nobody made it");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let nobody = Scope::new().timeout(SHORT).run(other.accept()).await;
        assert!(matches!(nobody, Ok(None)), "{nobody:?}");
        let (count, buf) = op::read(&reader, [0; 8]).await;
        assert_eq!(&buf[..count.expect("a byte")], b"p");
        let (count, buf) = ours.read([0; 8]).await;
        assert_eq!(&buf[..count.expect("a byte")], b"s");
        listener.accept().await.expect("it still waits");
        assert_eq!(task.await.expect("it ended"), 7);
        ours.write_all("end").await.0.expect("still open");
        ours.shutdown(std::net::Shutdown::Write).expect("connected");
        assert_eq!(receive_all(&theirs).await, b"end");
    });
}

#[test]
fn c012_rest_of_a_chunk_is_still_there() {
    conform(|_| async {
        let (ours, theirs) = both_ends().await;
        theirs.write_all("ab").await.0.expect("the socket takes it");
        let (count, first) = ours.read([0; 1]).await;
        assert_eq!((count.expect("a byte"), first), (1, *b"a"));
        let scope = Scope::new();
        let handle = scope.handle();
        let outcome = scope
            .run(async {
                handle.cancel();
                ours.read([0; 1]).await.0
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        let (count, second) = ours.read([0; 1]).await;
        assert_eq!((count.expect("a byte"), second), (1, *b"b"));
    });
}

// On the real ring: a simulated clock stands still while a core computes.
#[test]
fn c013_computing_task_that_is_cancelled_is_not_woken() {
    quietly(|handle| async move {
        let scope = Scope::new();
        let (run, polls) = watched(scope.run(async {
            scope.cancel();
            let before = handle.metrics()[0];
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(100) {
                std::hint::spin_loop();
            }
            assert_eq!(handle.metrics()[0], before);
            op::nop().await
        }));
        let outcome = run.await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(polls.get(), 1);
    });
}

/// The branch that cancels is polled after the other, or before it.
#[test]
fn c014_branch_of_a_task_is_cancelled_by_the_other() {
    conform(|handle| async move {
        for wait_first in [true, false] {
            let (ours, theirs) = both_ends().await;
            let scope = Scope::new();
            let cancel = scope.handle();
            let waits = async { ours.recv().await.map(drop) };
            let cancels = async {
                cancel.cancel();
                Ok::<_, io::Error>(())
            };
            let before = handle.metrics()[0].aborts;
            let (run, polls) = watched(scope.run(async {
                let (waited, cancelled) = if wait_first {
                    both(waits, cancels).await
                } else {
                    let (cancelled, waited) = both(cancels, waits).await;
                    (waited, cancelled)
                };
                cancelled?;
                waited
            }));
            let outcome = run.await;
            assert!(matches!(outcome, Ok(None)), "{outcome:?}");
            let aborts = handle.metrics()[0].aborts - before;
            if wait_first {
                assert!(polls.get() <= 4, "{} polls", polls.get());
                assert_eq!(aborts, 1);
            } else {
                assert_eq!((polls.get(), aborts), (1, 0));
            }
            drop(theirs);
        }
    });
}

/// As above, by a task that does nothing else: the cancel is seen before the core parks.
#[test]
fn c014_cancel_by_another_task_of_the_core_is_seen_in_its_next_turn() {
    conform(|_| async {
        let event = Rc::new(Event::new());
        let inner = Rc::clone(&event);
        let (cancel, task) = waiting(async move { inner.wait().await }).await;
        let began = Instant::now();
        let canceller = spawn(async move { cancel.cancel() });
        assert_eq!(task.await.expect("it ended"), Ok(None));
        assert_eq!(canceller.await.expect("it ended"), Delivery::Delivered);
        at_once(began);
        some_turns(2).await;
    });
}

/// What each kind of handle says of a scope that is not there.
#[test]
fn c009_handle_of_a_scope_that_never_ran_is_gone_with_it() {
    let old: CancelHandle = conform(|_| async {
        let scope = Scope::new();
        let handle = scope.handle();
        drop(scope);
        assert_eq!(handle.cancel(), Delivery::Gone);
        Scope::new().handle()
    });
    assert_eq!(old.cancel(), Delivery::Gone);
    conform(move |_| async move {
        let began = Instant::now();
        let scope = Scope::new();
        let _handle = scope.handle();
        assert_eq!(old.cancel(), Delivery::Gone);
        assert_eq!(scope.run(sleep(SHORT)).await, Ok(Some(())));
        after_exactly(SHORT, began);
        assert_eq!(scope.cancelled(), None);
    });
}
