//! The end of a scope: in order, out of order, dropped and unwound.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::rc::Rc;

use quoit::time::sleep;
use quoit::{Cancelled, Misuse, Reason, Scope, check, op, spawn, yield_now};
use tests::{Drops, conform, gauges, poll_once};

use crate::support::{IntoResult, LONG, SHORT, both, kernel_is_done, pipe, some_turns};

/// Who says its name when it is dropped.
struct Named(&'static str, Rc<RefCell<Vec<&'static str>>>);

impl Drop for Named {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

/// There is no way to leave a scope but to end or drop its run: the run of an inner scope may still
/// outlive the outer one. It goes on under the scope around.
#[test]
fn c096_run_that_outlives_the_scope_around_goes_on_outside() {
    conform(|handle| async move {
        let around = Scope::new().timeout(3 * SHORT);
        let outcome = around
            .run(async {
                let (outer, inner) = (Scope::new(), Scope::new());
                let cancel = outer.handle();
                let mut run = Box::pin(inner.run(sleep(LONG)));
                let ended = outer
                    .run(async {
                        assert!(poll_once(run.as_mut()).await.is_pending());
                        cancel.cancel();
                        Ok::<_, Cancelled>(())
                    })
                    .await;
                assert_eq!(ended, Ok(Some(())));
                assert!(check().is_ok(), "the scope around is active");
                let late = run.await;
                assert_eq!(inner.cancelled(), None);
                late.map(drop)
            })
            .await;
        assert_eq!(outcome, Ok(None), "it was cancelled from around");
        assert_eq!(gauges(&handle).await.scopes, 2);
    });
}

#[test]
fn c097_scope_runs_once() {
    conform(|_| async {
        let scope = Scope::new();
        assert_eq!(scope.run(yield_now()).await, Ok(Some(())));
        let mut ran = false;
        let again = scope.run(async {
            ran = true;
            Ok::<_, Cancelled>(())
        });
        let error = again.await.expect_err("used up");
        assert!(!ran);
        assert_eq!(error.reason(), Reason::Misuse(Misuse::RunTwice));
    });
}

/// The second is refused at its first poll; the first goes on, and is cancelled as ever.
#[test]
fn c097_scope_that_two_tasks_run_runs_for_the_first() {
    conform(|_| async {
        let scope = Rc::new(Scope::new());
        let cancel = scope.handle();
        let inner = Rc::clone(&scope);
        let first = spawn(async move { inner.run(sleep(LONG)).await });
        some_turns(1).await;
        let drops = Drops::new();
        let value = drops.value();
        let second = scope.run(async move {
            let _value = value;
            Ok::<_, Cancelled>(())
        });
        let error = second.await.expect_err("in use");
        assert_eq!(
            (error.reason(), drops.alive()),
            (Reason::Misuse(Misuse::RunTwice), 0)
        );
        assert!(!first.is_finished());
        cancel.cancel();
        assert_eq!(first.await.expect("it ended"), Ok(None));
    });
}

/// A misuse is nobody's cancel, so no scope takes it.
#[test]
fn c097_misuse_is_absorbed_by_nobody() {
    conform(|_| async {
        let used = Scope::new();
        assert_eq!(used.run(yield_now()).await, Ok(Some(())));
        let around = Scope::new();
        let cancel = around.handle();
        let outcome = around
            .run(async {
                cancel.cancel();
                used.run(yield_now()).await
            })
            .await;
        let error = outcome.expect_err("a bug is told");
        assert_eq!(error.reason(), Reason::Misuse(Misuse::RunTwice));
    });
}

/// The op in the innermost scope is one of the kernel's.
#[test]
fn c101_dropped_future_takes_its_scopes_from_the_inside_out() {
    conform(|handle| async move {
        let before = gauges(&handle).await;
        let (reader, _writer) = pipe();
        let shared = reader.clone();
        let order = Rc::new(RefCell::new(Vec::new()));
        let named = |name| Named(name, Rc::clone(&order));
        let outcome = Scope::new()
            .run(async {
                let (a, b, c) = (Scope::new(), Scope::new(), Scope::new());
                let (in_a, in_b, in_c) = (named("a"), named("b"), named("c"));
                let nested = a.run(async {
                    let _in_a = in_a;
                    b.run(async {
                        let _in_b = in_b;
                        c.run(async {
                            let _in_c = in_c;
                            op::read(&shared, vec![0; 8]).into_result().await
                        })
                        .await
                    })
                    .await
                });
                {
                    let mut nested = pin!(nested);
                    assert!(poll_once(nested.as_mut()).await.is_pending());
                    op::nop().await?;
                }
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        assert_eq!(*order.borrow(), ["c", "b", "a"]);
        assert!(check().is_ok());
        let after = gauges(&handle).await;
        assert_eq!(after.cancel_requests - before.cancel_requests, 1);
        assert_eq!((after.scopes, after.parked), (before.scopes, before.parked));
        assert_eq!((after.orphans, after.op_slots), (0, 0));
        drop(shared);
        assert!(reader.is_unique());
    });
}

#[test]
fn c103_panic_of_a_body_unwinds_its_scopes_and_stays_in_the_task() {
    conform(|handle| async move {
        let before = gauges(&handle).await;
        let (reader, writer) = pipe();
        let order = Rc::new(RefCell::new(Vec::new()));
        let named = |name| Named(name, Rc::clone(&order));
        let (around, inner, sibling) = (named("around"), named("inner"), named("sibling"));
        let task = spawn(async move {
            let _around = around;
            let outer = Scope::new();
            let waits = async {
                let _sibling = sibling;
                op::read(&reader, vec![0; 8]).await.0.map(drop)
            };
            let panics = async {
                let _inner = inner;
                op::nop().await?;
                if check().is_ok() {
                    panic!("as planned");
                }
                Ok::<_, io::Error>(())
            };
            let (sibling, inner) = (Scope::new(), Scope::new());
            let both =
                async { Ok::<_, io::Error>(both(sibling.run(waits), inner.run(panics)).await) };
            outer.run(both).await.map(drop)
        });
        let error = task.await.expect_err("it panicked");
        assert_eq!(error.to_string(), "the task panicked: as planned");
        assert_eq!(*order.borrow(), ["inner", "sibling", "around"]);
        let after = kernel_is_done(&handle).await;
        assert_eq!(after.panics - before.panics, 1);
        assert_eq!(after.scopes, before.scopes);
        assert_eq!(after.cancel_requests - before.cancel_requests, 1);
        drop(writer);
    });
}

/// A task that nobody polls again is dropped with all that it had open when its core ends.
#[test]
fn c101_task_that_its_core_drops_takes_its_scopes_along() {
    tests::on_both(|| {
        let drops = Drops::new();
        let value = drops.value();
        let runtime = tests::one_core().build().expect("tests need io_uring");
        let handle = runtime.handle();
        let started = handle.spawn(handle.cores()[0], move || async move {
            drop(spawn(async move {
                let scope = Scope::new().shielded();
                let inner = Scope::new();
                let body = inner.run(async {
                    let _value = value;
                    pending::<Result<(), Cancelled>>().await
                });
                scope.run(body).await
            }));
            yield_now().await.expect("nobody cancels");
        });
        started.expect("room").wait().expect("it ended");
        assert_eq!(drops.alive(), 1);
        runtime.shutdown(std::time::Duration::ZERO);
        assert_eq!((drops.alive(), drops.dropped()), (0, 1));
    });
}
