//! Handles of tasks, and what they tell, where that is unusual.

use std::any::Any;
use std::cell::Cell;
use std::future::pending;
use std::io;
use std::rc::Rc;

use quoit::{
    Cancelled, CarriesCancelled, Cores, Group, JoinError, Misuse, Reason, RemoteError, Runtime,
    blocking, group, isolating_group, spawn, yield_now, yield_uncancellable,
};
use tests::{on_core, poll_once};

type Shelf = Rc<Cell<Option<Box<dyn Any>>>>;

/// Opens a group that waits for ever, and leaves it where it outlives its task.
async fn leaves_a_group(shelf: Shelf) {
    let mut open = Box::pin(group(async |_: Group<Cancelled>| {
        pending::<Result<(), Cancelled>>().await
    }));
    assert!(poll_once(open.as_mut()).await.is_pending());
    shelf.set(Some(Box::new(open)));
}

thread_local! {
    /// Of who has nobody on his thread to leave it to.
    static KEPT: Shelf = Shelf::default();
}

fn failure() -> io::Error {
    io::Error::other("its own failure")
}

/// Of an isolating group a failure is told by the handle.
#[test]
fn a_child_that_leaves_a_group_behind_and_fails_tells_its_failure() {
    on_core(|_| async {
        let kept = Shelf::default();
        let shelf = Rc::clone(&kept);
        let told = isolating_group(async |g: Group<io::Error>| {
            let child = g.spawn(async {
                leaves_a_group(shelf).await;
                Err::<(), _>(failure())
            });
            let told = child.await.expect_err("it failed");
            assert!(matches!(told, JoinError::Failed(_)), "{told}");
            assert!(told.to_string().contains("its own failure"));
            Ok(())
        });
        told.await.expect("it was told");
    });
}

#[test]
fn a_failure_of_a_child_that_left_a_group_behind_is_its_groups_when_nobody_asks() {
    on_core(|_| async {
        for fails in [false, true] {
            let kept = Shelf::default();
            let shelf = Rc::clone(&kept);
            let told = isolating_group(async |g: Group<io::Error>| {
                let child = g.spawn(async move {
                    leaves_a_group(shelf).await;
                    match fails {
                        true => Err(failure()),
                        false => Ok(()),
                    }
                });
                while !child.is_finished() {
                    yield_now().await?;
                }
                drop(child);
                Ok(())
            });
            let told = told.await.expect_err("a child has failed");
            let [error] = told.errors() else {
                panic!("{told:?}")
            };
            if fails {
                assert_eq!(error.to_string(), "its own failure");
            } else {
                let reason = error.cancelled().map(Cancelled::reason);
                assert_eq!(reason, Some(Reason::Misuse(Misuse::AbandonedGroup)));
            }
        }
    });
}

/// Once, and by the group.
#[test]
fn that_a_child_has_left_a_group_behind_is_told_by_its_group() {
    on_core(|_| async {
        let kept = Shelf::default();
        let shelf = Rc::clone(&kept);
        let told = group(async |g: Group<io::Error>| {
            let mut child = g.spawn(async {
                leaves_a_group(shelf).await;
                Ok(())
            });
            while !child.is_finished() {
                yield_uncancellable().await;
            }
            let told = child.try_join().expect("it has ended");
            assert!(matches!(told, Err(JoinError::Reported)), "{told:?}");
            Ok(())
        });
        let told = told.await.expect_err("a child has failed");
        let reasons: Vec<_> = (told.errors().iter())
            .map(|error| error.cancelled().map(Cancelled::reason))
            .collect();
        assert_eq!(reasons, [Some(Reason::Misuse(Misuse::AbandonedGroup))]);
    });
}

/// What it panicked with says more.
#[test]
fn a_task_that_leaves_a_group_behind_and_panics_has_panicked() {
    on_core(|_| async {
        let kept = Shelf::default();
        let shelf = Rc::clone(&kept);
        let task = spawn(async {
            leaves_a_group(shelf).await;
            panic!("on purpose");
        });
        let told: Result<(), _> = task.await;
        assert!(matches!(told, Err(JoinError::Panicked(_))), "{told:?}");
        drop(kept);
    });
}

/// Whoever waits on a thread of his own, for a task that was started from there.
#[test]
fn a_task_of_another_thread_that_leaves_a_group_behind_tells_it() {
    on_core(|handle| async move {
        let core = handle.cores()[0];
        let leaves = || async {
            leaves_a_group(KEPT.with(Rc::clone)).await;
            7
        };
        let told = blocking::run(move |job| {
            let task = handle.spawn(core, leaves).expect("room");
            let told = [task.wait(), job.run_on_core(leaves)];
            let panics = handle.spawn(core, move || async move {
                leaves().await;
                panic!("on purpose")
            });
            Ok::<_, io::Error>((told, panics.expect("room").wait()))
        });
        let (told, panicked) = told.await.expect("it ends").expect("it has no errors");
        for told in told {
            let error = told.expect_err("it left a group behind");
            assert!(matches!(error, RemoteError::AbandonedGroup), "{error}");
            assert!(error.to_string().contains("a group"), "{error}");
        }
        assert!(matches!(panicked, Err(RemoteError::Panicked(_))));
        drop(KEPT.with(|kept| kept.take()));
    });
}

/// What the main returns comes out, unless it says that all is well.
#[test]
fn a_main_that_leaves_a_group_behind_has_failed() {
    for fails in [false, true] {
        let runtime = Runtime::builder().cores(Cores::Count(1));
        let runtime = runtime.build().expect("tests need io_uring");
        let ran = runtime.run(move |_| async move {
            leaves_a_group(KEPT.with(Rc::clone)).await;
            match fails {
                false => Ok(()),
                true => Err(failure()),
            }
        });
        let error = ran.expect_err("it left a group behind");
        match error.cancelled() {
            None => assert!(fails && error.to_string().contains("its own failure")),
            Some(cancelled) => {
                let reason = Reason::Misuse(Misuse::AbandonedGroup);
                assert_eq!((fails, cancelled.reason()), (false, reason));
            }
        }
    }
}
