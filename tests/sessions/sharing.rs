//! One session for a key, whoever asks for it, from wherever.

use std::rc::Rc;

use quoit::sync::Event;
use quoit::{Cancelled, Runtime, Scope, group, on, spawn};
use quoit_pool::{CallError, Key, LeaseError};
use tests::{conform, conform_on};

use crate::kind::{number, pool, pool_of, settle};

#[test]
fn p001_two_leases_one_after_the_other_are_of_one_session() {
    conform(|_| async {
        let (pool, seen) = pool();
        let key = Key::new("any", "one");
        let first = pool.lease(&key).await.expect("a session");
        let opened = number(&first).await;
        drop(first);
        let second = pool.lease(&key).await.expect("a session");
        assert_eq!(number(&second).await, opened);
        let metrics = pool.metrics();
        assert_eq!((metrics.opens, metrics.reuses), (1, 1));
        assert_eq!((metrics.sessions, metrics.leases), (1, 1));
        drop(second);
        assert_eq!(pool.close_all().await, Ok(1));
        assert_eq!((seen.opened(), seen.closed()), (1, 1));
    });
}

#[test]
fn p002_keys_that_differ_in_either_part_have_sessions_of_their_own() {
    conform(|_| async {
        let (pool, _) = pool();
        let mut numbers = Vec::new();
        let mut leases = Vec::new();
        for (server, scope) in [("a", "x"), ("a", "y"), ("b", "x")] {
            let lease = pool.lease(&Key::new(server, scope)).await.expect("one");
            numbers.push(number(&lease).await);
            leases.push(lease);
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 3);
        drop(leases);
        assert_eq!(pool.close_all().await, Ok(3));
    });
}

#[test]
fn p003_a_thousand_tasks_of_one_core_share_one_opening() {
    conform(|_| async {
        let (pool, seen) = pool();
        let leased = group(async |tasks| {
            for _ in 0..1000 {
                let pool = pool.clone();
                drop(tasks.spawn(async move {
                    let lease = pool.lease(&Key::new("slow", "all")).await;
                    let lease = lease.expect("the session that all share");
                    assert_eq!(number(&lease).await, 0);
                    Ok::<_, Cancelled>(())
                }));
            }
            Ok(())
        });
        assert_eq!(leased.await.expect("nobody fails"), Some(()));
        let metrics = pool.metrics();
        assert_eq!((metrics.opens, metrics.joins), (1, 999));
        assert_eq!((metrics.leases, metrics.waiting), (0, 0));
        assert_eq!(metrics.waiting_time.count(), 1000);
        assert_eq!(pool.close_all().await, Ok(1));
        assert_eq!((seen.opened(), seen.closed()), (1, 1));
    });
}

#[test]
fn p004_a_thousand_tasks_of_all_cores_share_one_opening() {
    conform_on(2, |handle| async move {
        let (pool, seen) = pool();
        let leased = group(async |tasks| {
            for task in 0..1000 {
                let (pool, core) = (pool.clone(), handle.cores()[task % 2]);
                drop(tasks.spawn(async move {
                    on(core, move || async move {
                        let lease = pool.lease(&Key::new("slow", "all")).await;
                        let lease = lease.expect("the session that all share");
                        assert_eq!(number(&lease).await, 0);
                        Ok::<_, std::io::Error>(())
                    })
                    .await
                }));
            }
            Ok(())
        });
        assert_eq!(leased.await.expect("nobody fails"), Some(()));
        assert_eq!(pool.metrics().opens, 1);
        assert_eq!(pool.close_all().await, Ok(1));
        assert_eq!((seen.opened(), seen.closed()), (1, 1));
    });
}

#[test]
fn p017_a_session_whose_core_was_shut_down_is_opened_anew_elsewhere() {
    let (pool, seen) = pool();
    let key = Key::new("any", "one");
    let first = Runtime::builder().build().expect("a runtime");
    let (inner, name) = (pool.clone(), key.clone());
    let leased = first
        .handle()
        .spawn(first.handle().cores()[0], move || async move {
            inner.lease(&name).await.expect("a session")
        });
    let old = leased.expect("its core runs").wait().expect("no panic");
    first.shutdown(std::time::Duration::from_secs(10));
    assert_eq!(
        (seen.opened(), seen.closed()),
        (1, 1),
        "its owner closed it"
    );
    quoit::block_on(async {
        let gone = old.call(async |_| Ok::<_, CallError>(())).await;
        assert!(matches!(gone, Err(CallError::CoreGone | CallError::Closed)));
        let new = pool.lease(&key).await.expect("a session of this core");
        assert!(new.is_here());
        assert_eq!(number(&new).await, 1);
        drop((old, new));
        assert_eq!(pool.close_all().await, Ok(1));
    })
    .expect("a runtime");
    assert_eq!((seen.opened(), seen.closed()), (2, 2));
}

#[test]
fn p018_a_session_whose_peer_has_gone_is_replaced_and_nobody_notices() {
    conform(|_| async {
        let (pool, seen) = pool_of(|builder| builder.check_after(std::time::Duration::ZERO));
        let key = Key::new("any", "one");
        let lease = pool.lease(&key).await.expect("a session");
        // The owner hears of it.
        let told = lease.call_here(async |session| {
            session.gone.set();
            Ok::<_, CallError>(())
        });
        told.await.expect("the session is open");
        drop(lease);
        settle().await;
        let lease = pool.lease(&key).await.expect("another");
        assert_eq!(number(&lease).await, 1);
        assert_eq!(pool.metrics().retired, 1);
        // Nobody hears of it, but it is looked at.
        let unfit = lease.call_here(async |session| {
            session.fit.set(Some(false));
            Ok::<_, CallError>(())
        });
        unfit.await.expect("the session is open");
        drop(lease);
        let lease = pool.lease(&key).await.expect("another");
        assert_eq!(number(&lease).await, 2);
        assert_eq!(pool.metrics().retired, 2);
        drop(lease);
        // Neither was used again: the third is, and is fit.
        assert_eq!(pool.metrics().reuses, 0);
        drop(pool.lease(&key).await.expect("the third"));
        assert_eq!(pool.metrics().reuses, 1);
        pool.close_all().await.expect("nobody cancels");
        assert_eq!((seen.opened(), seen.closed()), (3, 3));
    });
}

#[test]
fn who_comes_during_the_look_at_a_session_waits_for_what_it_finds() {
    conform(|_| async {
        for finds in [Some(false), None, Some(true)] {
            let (pool, _) = pool_of(|builder| builder.check_after(std::time::Duration::ZERO));
            let key = Key::new("any", "one");
            let lease = pool.lease(&key).await.expect("a session");
            let told = lease.call_here(async move |session| {
                session.fit.set(finds);
                Ok::<_, CallError>(())
            });
            told.await.expect("the session is open");
            drop(lease);
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let (pool, key) = (pool.clone(), key.clone());
                    spawn(async move { number(&pool.lease(&key).await.expect("one")).await })
                })
                .collect();
            let expected = usize::from(finds != Some(true));
            for task in tasks {
                assert_eq!(task.await.expect("no panic"), expected, "{finds:?}");
            }
            pool.close_all().await.expect("nobody cancels");
        }
        // Given up in the middle of the look, it is retired: nobody knows.
        let (pool, _) = pool_of(|builder| builder.check_after(std::time::Duration::ZERO));
        let key = Key::new("any", "one");
        drop(pool.lease(&key).await.expect("a session"));
        let mut leasing = Box::pin(pool.lease(&key));
        assert!(tests::poll_once(leasing.as_mut()).await.is_pending());
        drop(leasing);
        assert_eq!(number(&pool.lease(&key).await.expect("one")).await, 1);
        assert_eq!(pool.metrics().retired, 1);
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn p019_an_owner_that_panics_fails_its_leases_and_no_others() {
    conform(|_| async {
        let (pool, _) = pool();
        let (key, other) = (Key::new("any", "one"), Key::new("any", "other"));
        let first = pool.lease(&key).await.expect("a session");
        let second = pool.lease(&key).await.expect("the same");
        let beside = pool.lease(&other).await.expect("another");
        let told = first.call_here(async |session| {
            session.panics.set();
            Ok::<_, CallError>(())
        });
        told.await.expect("the session is open");
        settle().await;
        for lease in [&first, &second] {
            let failed = lease.call(async |_| Ok::<_, CallError>(())).await;
            let Err(CallError::OwnerPanicked(text)) = failed else {
                panic!("{failed:?}");
            };
            assert_eq!(text, "the owner was told to");
        }
        assert_eq!(number(&beside).await, 1);
        let again = pool.lease(&key).await.expect("a new one");
        assert_eq!(number(&again).await, 2);
        drop((first, second, beside, again));
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn p021_a_lease_that_is_handed_to_a_cancelled_caller_goes_back() {
    conform(|_| async {
        let (pool, _) = pool();
        let key = Key::new("any", "one");
        for waits_alone in [true, false] {
            let first = pool.lease_exclusive(&key).await.expect("a session");
            let (inner, name) = (pool.clone(), key.clone());
            let scope = Rc::new(Scope::new());
            let cancel = scope.handle();
            let waiter = spawn(async move {
                let leased = scope.run(async {
                    let lease = inner.lease_exclusive(&name).await?;
                    // It may have it; what it does next fails.
                    let cancelled = quoit::check();
                    drop(lease);
                    cancelled?;
                    Ok::<_, LeaseError<_>>(())
                });
                leased.await
            });
            let third = (!waits_alone).then(|| {
                let (inner, name) = (pool.clone(), key.clone());
                spawn(async move { inner.lease_exclusive(&name).await.map(drop) })
            });
            settle().await;
            // Handed over, and cancelled before it could take it.
            drop(first);
            cancel.cancel();
            assert!(matches!(waiter.await, Ok(Ok(None))), "cancelled");
            if let Some(third) = third {
                third.await.expect("no panic").expect("it comes next");
            }
            assert_eq!(pool.metrics().leases, 0);
            drop(pool.lease_exclusive(&key).await.expect("nobody has it"));
        }
        // Handed over, and its wait dropped before it was looked at.
        let first = pool.lease_exclusive(&key).await.expect("a session");
        let mut second = Box::pin(pool.lease_exclusive(&key));
        assert!(tests::poll_once(second.as_mut()).await.is_pending());
        drop(first);
        assert_eq!(pool.metrics().leases, 1, "it is handed over");
        drop(second);
        assert_eq!(pool.metrics().leases, 0);
        drop(pool.lease_exclusive(&key).await.expect("nobody has it"));
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn who_leases_alone_waits_for_all_others_and_comes_in_order() {
    conform(|_| async {
        let (pool, _) = pool();
        let key = Key::new("any", "one");
        let shared = [
            pool.lease(&key).await.expect("a session"),
            pool.lease(&key).await.expect("the same"),
        ];
        let order = Rc::new(std::cell::RefCell::new(Vec::new()));
        let alone = {
            let (pool, key, order) = (pool.clone(), key.clone(), Rc::clone(&order));
            spawn(async move {
                let lease = pool.lease_exclusive(&key).await.expect("in the end");
                order.borrow_mut().push("alone");
                settle().await;
                order.borrow_mut().push("still alone");
                drop(lease);
            })
        };
        settle().await;
        let after = {
            let (pool, key, order) = (pool.clone(), key.clone(), Rc::clone(&order));
            spawn(async move {
                let lease = pool.lease(&key).await.expect("in the end");
                order.borrow_mut().push("after");
                drop(lease);
            })
        };
        settle().await;
        assert!(order.borrow().is_empty(), "two have it");
        drop(shared);
        alone.await.expect("no panic");
        after.await.expect("no panic");
        assert_eq!(*order.borrow(), ["alone", "still alone", "after"]);
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn a_call_from_another_core_runs_at_home_and_is_cancelled_with_its_caller() {
    conform_on(2, |handle| async move {
        let (pool, _) = pool();
        let lease = pool.lease(&Key::new("any", "one")).await.expect("one");
        let home = lease.home();
        let elsewhere = handle.cores()[1];
        assert_ne!(home, elsewhere);
        let called = on(elsewhere, move || async move {
            assert!(!lease.is_here());
            let here = lease.call_here(async |_| Ok::<_, CallError>(())).await;
            assert_eq!(here, Err(CallError::Elsewhere));
            let place = lease
                .call(async |session| Ok::<_, CallError>(session.home))
                .await;
            assert_eq!(place, Ok(Some(lease.home())));
            // A cancel goes there, and the call ends when the body has.
            let scope = Scope::new();
            let cancel = scope.handle();
            let hanging = lease.call(async move |_| {
                cancel.cancel();
                let waited = Event::new().wait().await;
                assert!(waited.is_err());
                waited.map_err(CallError::from)
            });
            let outcome = scope.run(hanging).await;
            assert_eq!(outcome, Ok(None));
            drop(lease);
            Ok::<_, std::io::Error>(())
        });
        called.await.expect("no panic");
        pool.close_all().await.expect("nobody cancels");
    });
}
