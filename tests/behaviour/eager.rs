//! Children that are polled at once, within the poll of whoever starts them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use quoit::sync::Event;
use quoit::{Cancelled, JoinError, Reason, Scope, check, group, isolating_group, op, yield_now};
use tests::on_core;

type Nothing = Result<(), Cancelled>;

#[test]
fn a_child_is_polled_before_its_start_returns_and_after_that_in_its_turn() {
    on_core(|_| async {
        let said = Rc::new(RefCell::new(Vec::new()));
        let outcome = group(async |g| {
            let say = |word: &'static str| said.borrow_mut().push(word);
            let event = Rc::new(Event::new());
            let (theirs, heard) = (Rc::clone(&event), Rc::clone(&said));
            g.spawn({
                let said = Rc::clone(&said);
                async move {
                    said.borrow_mut().push("in turn");
                    Ok(())
                }
            });
            let child = g.spawn_eager(async move {
                heard.borrow_mut().push("at once");
                theirs.wait().await?;
                heard.borrow_mut().push("woken");
                Ok(7)
            });
            say("started");
            event.set();
            say("set");
            let value = child.await.expect("it ended");
            say("joined");
            Ok::<_, Cancelled>(value)
        });
        assert_eq!(outcome.await.expect("nothing failed"), Some(7));
        let mut said = said.take();
        // Among the ready ones there is no promised order.
        let in_turn = said.iter().position(|&word| word == "in turn");
        said.remove(in_turn.filter(|&place| place >= 3).expect("it came later"));
        assert_eq!(said, ["at once", "started", "set", "woken", "joined"]);
    });
}

#[test]
fn a_child_with_its_result_at_hand_costs_one_poll_and_no_turn() {
    on_core(|handle| async move {
        let before = handle.metrics()[0];
        let outcome = group(async |g| {
            let child = g.spawn_eager(async { Ok(1) });
            let polls = handle.metrics()[0].polls - before.polls;
            Ok::<_, Cancelled>((child.await.expect("it ended"), polls))
        });
        assert_eq!(outcome.await.expect("nothing failed"), Some((1, 1)));
        let after = handle.metrics()[0];
        assert_eq!(after.spawned - before.spawned, 1);
    });
}

#[test]
fn the_one_who_starts_it_goes_on_as_if_nothing_had_been() {
    on_core(|_| async {
        let outer = Scope::new();
        let body = async {
            let outcome = group(async |g| {
                let inner = Scope::new();
                let body = async {
                    let child = g.spawn_eager(async {
                        // Its own cancel, and more refusals than a task may have in one poll.
                        let scope = Scope::new();
                        scope.cancel();
                        let refused = async {
                            for _ in 0..20 {
                                assert!(op::nop().await.is_err());
                            }
                            check()
                        };
                        scope.run(refused).await.map(drop)
                    });
                    assert_eq!(check(), Ok(()));
                    yield_now().await?;
                    inner.cancel();
                    assert!(check().is_err(), "the scope that was active is active");
                    child.await.expect_err("so is this wait cancelled");
                    Ok::<_, Cancelled>(())
                };
                assert_eq!(inner.run(body).await, Ok(Some(())));
                assert_eq!(check(), Ok(()));
                Ok::<_, Cancelled>(())
            });
            assert!(matches!(outcome.await, Ok(Some(()))));
            Ok::<_, Cancelled>(())
        };
        assert_eq!(outer.run(body).await, Ok(Some(())));
    });
}

#[test]
fn a_child_of_a_cancelled_group_is_polled_once_and_refused() {
    on_core(|_| async {
        let polled = Rc::new(Cell::new(0));
        let outcome = group(async |g| {
            g.cancel();
            let polled = Rc::clone(&polled);
            let child = g.spawn_eager(async move {
                polled.set(polled.get() + 1);
                yield_now().await
            });
            let ended = child.await.expect_err("the wait is refused");
            assert!(matches!(ended, JoinError::Cancelled(_)));
            Ok::<_, Cancelled>(())
        });
        assert!(matches!(outcome.await, Ok(Some(()))));
        assert_eq!(polled.get(), 1);
    });
}

#[test]
fn children_start_children_at_once_and_each_can_be_cancelled_alone() {
    on_core(|_| async {
        let depth = Rc::new(Cell::new(0));
        let outcome = group(async |g| {
            let inner = Rc::clone(&depth);
            let outer = g.spawn_eager(async move {
                inner.set(1);
                let deeper = Rc::clone(&inner);
                let child = g.spawn_eager(async move {
                    deeper.set(2);
                    Event::new().wait().await
                });
                assert_eq!(inner.get(), 2);
                let handle = child.cancel_handle().expect("it runs");
                handle.cancel_with(Reason::User(5), std::time::Duration::ZERO);
                match child.await {
                    Err(JoinError::TaskCancelled(cancelled)) => Ok(cancelled.reason()),
                    other => panic!("{other:?}"),
                }
            });
            Ok::<_, Cancelled>(outer.await.expect("it ended"))
        });
        let reason = outcome.await.expect("nothing failed");
        assert_eq!(reason, Some(Reason::User(5)));
    });
}

#[test]
fn a_panic_in_its_first_poll_is_its_own() {
    on_core(|_| async {
        let outcome = isolating_group(async |g| {
            let child = g.spawn_eager::<()>(async { panic!("at once") });
            let ended = child.await.expect_err("it panicked");
            assert!(matches!(ended, JoinError::Panicked(_)), "{ended:?}");
            yield_now().await
        });
        let outcome: Result<Option<()>, _> = outcome.await;
        assert!(matches!(outcome, Ok(Some(()))));
    });
}

#[test]
fn one_that_is_started_in_a_group_that_has_ended_is_dropped_unpolled() {
    on_core(|_| async {
        let kept = Rc::new(Cell::new(None));
        let keep = Rc::clone(&kept);
        let outcome = group(async |g| {
            keep.set(Some(g));
            Nothing::Ok(())
        });
        assert!(matches!(outcome.await, Ok(Some(()))));
        let group = kept.take().expect("it was kept");
        let child = group.spawn_eager::<()>(async { panic!("never polled") });
        assert!(matches!(child.await, Err(JoinError::GroupClosed)));
    });
}
