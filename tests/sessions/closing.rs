//! Closing: by key, scope, server, all; of what is open and what is being opened; from every place.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quoit::time::{Instant, sleep};
use quoit::{CoreId, Runtime, on, spawn};
use quoit_pool::{CallError, CloseError, Key, LeaseError};
use tests::{Kernel, conform, conform_on, on_both};

use crate::kind::{number, pool, pool_of, settle};

#[test]
fn p008_close_all_while_an_opening_hangs_returns_after_its_owner() {
    conform(|_| async {
        let (pool, seen) = pool();
        let waiter = {
            let pool = pool.clone();
            spawn(async move { pool.lease(&Key::new("hangs", "one")).await.map(drop) })
        };
        settle().await;
        assert_eq!(pool.close_all().await, Ok(1));
        assert_eq!(seen.cleaned(), 1);
        let waited = waiter.await.expect("no panic");
        assert!(matches!(waited, Err(LeaseError::Closed)), "{waited:?}");
        assert!(pool.keys().is_empty());
        assert_eq!(pool.metrics().sessions, 0);
    });
}

/// Nobody opens for whom there was no room yet.
#[test]
fn p008_close_all_reaches_those_who_wait_for_room() {
    conform(|_| async {
        let (pool, seen) = pool_of(|builder| builder.max_sessions(1));
        let first = pool.lease(&Key::new("any", "one")).await.expect("one");
        let waiter = {
            let pool = pool.clone();
            spawn(async move { pool.lease(&Key::new("any", "two")).await.map(drop) })
        };
        settle().await;
        let closer = {
            let pool = pool.clone();
            spawn(async move { pool.close_all().await })
        };
        settle().await;
        drop(first);
        assert_eq!(closer.await.expect("no panic"), Ok(1));
        let waited = waiter.await.expect("no panic");
        assert!(matches!(waited, Err(LeaseError::Closed)), "{waited:?}");
        settle().await;
        assert!(pool.keys().is_empty());
        assert_eq!((seen.opened(), seen.closed()), (1, 1));
    });
}

#[test]
fn p009_close_all_just_when_an_opening_succeeds() {
    // Before: the opening does not hear of it, and the session is closed as soon as it is there.
    conform(|_| async {
        let (pool, seen) = pool();
        let waiter = {
            let pool = pool.clone();
            spawn(async move { pool.lease(&Key::new("late", "one")).await.map(drop) })
        };
        settle().await;
        let closer = {
            let pool = pool.clone();
            spawn(async move { pool.close_all().await })
        };
        settle().await;
        seen.let_in.store(true, Ordering::Relaxed);
        assert_eq!(closer.await.expect("no panic"), Ok(1));
        assert_eq!((seen.opened(), seen.closed()), (1, 1));
        assert!(pool.keys().is_empty());
        let waited = waiter.await.expect("no panic");
        assert!(matches!(waited, Err(LeaseError::Closed)), "{waited:?}");
    });
    // After: it was leased, and then closed.
    conform(|_| async {
        let (pool, seen) = pool();
        seen.let_in.store(true, Ordering::Relaxed);
        let lease = pool.lease(&Key::new("late", "one")).await.expect("one");
        assert_eq!(pool.close_all().await, Ok(1));
        let called = lease.call(async |_| Ok::<_, CallError>(())).await;
        assert_eq!(called, Err(CallError::Closed));
        assert!(!lease.is_open());
        assert_eq!((seen.opened(), seen.closed()), (1, 1));
        assert!(pool.keys().is_empty());
    });
}

#[test]
fn p010_close_scope_ends_its_sessions_and_no_others() {
    conform(|_| async {
        let (pool, seen) = pool();
        for server in ["a", "b", "c"] {
            drop(pool.lease(&Key::new(server, "s")).await.expect("one"));
        }
        let other = pool.lease(&Key::new("a", "other")).await.expect("one");
        assert_eq!(pool.close_scope("s").await, Ok(3));
        assert_eq!(seen.closed(), 3);
        assert_eq!(number(&other).await, 3);
        assert_eq!(pool.keys(), [Key::new("a", "other")]);
        drop(other);
        assert_eq!(pool.close_server("b").await, Ok(0));
        assert_eq!(pool.close_server("a").await, Ok(1));
    });
}

#[test]
fn p011_close_session_ends_the_exact_key() {
    conform(|_| async {
        let (pool, seen) = pool();
        let key = Key::new("a", "one");
        drop(pool.lease(&key).await.expect("one"));
        let other = pool.lease(&Key::new("a", "two")).await.expect("one");
        assert_eq!(pool.close_session(&key).await, Ok(1));
        assert_eq!(pool.close_session(&key).await, Ok(0));
        assert_eq!(seen.closed(), 1);
        assert_eq!(number(&other).await, 1);
        drop(other);
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn p012_a_session_is_closed_by_its_owner_whoever_asks() {
    // From another core.
    conform_on(2, |handle| async move {
        let (pool, seen) = pool();
        let home = CoreId::current();
        drop(pool.lease(&Key::new("slow", "one")).await.expect("one"));
        let closer = pool.clone();
        let closed = on(handle.cores()[1], move || async move {
            Ok::<_, std::io::Error>(closer.close_all().await?)
        });
        assert_eq!(closed.await.expect("nobody cancels"), 1);
        assert_eq!(seen.closed(), 1, "before the closer returned");
        let places = seen.places.lock().expect("nobody panics with it").clone();
        assert_eq!(places, [("opened", home), ("closed", home)]);
    });
    // From outside of all cores.
    on_both(|| {
        let (pool, seen) = pool();
        let runtime = Runtime::builder().build().expect("a runtime");
        let core = runtime.handle().cores()[0];
        let inner = pool.clone();
        let leased = runtime.handle().spawn(core, move || async move {
            drop(inner.lease(&Key::new("any", "one")).await.expect("one"));
        });
        leased.expect("its core runs").wait().expect("no panic");
        assert_eq!(pool.close_all_blocking(Duration::from_secs(30)), Ok(1));
        let places = seen.places.lock().expect("nobody panics with it").clone();
        assert_eq!(places, [("opened", Some(core)), ("closed", Some(core))]);
        runtime.shutdown(Duration::from_secs(10));
    });
}

#[test]
fn p013_close_all_blocking_on_a_core_signals_and_would_block() {
    conform(|_| async {
        let (pool, seen) = pool();
        drop(pool.lease(&Key::new("any", "one")).await.expect("one"));
        let begun = Instant::now();
        let closed = pool.close_all_blocking(Duration::from_secs(3600));
        assert_eq!(closed, Err(CloseError::WouldBlock));
        if Kernel::here().is_simulated() {
            assert_eq!(begun.elapsed(), Duration::ZERO);
        }
        assert!(pool.keys().is_empty());
        assert_eq!(seen.closed(), 0, "the loop has not gone on");
        settle().await;
        assert_eq!(seen.closed(), 1);
    });
}

#[test]
fn p014_close_all_blocking_names_what_has_not_ended_in_time() {
    on_both(|| {
        let (pool, seen) = pool();
        let runtime = Runtime::builder().build().expect("a runtime");
        let inner = pool.clone();
        let handle = runtime.handle();
        let leased = handle.spawn(handle.cores()[0], move || async move {
            drop(inner.lease(&Key::new("lingers", "one")).await.expect("one"));
            drop(inner.lease(&Key::new("any", "two")).await.expect("one"));
        });
        leased.expect("its core runs").wait().expect("no panic");
        let (begun, patience) = (Instant::now(), Duration::from_millis(100));
        let closed = pool.close_all_blocking(patience);
        let took = begun.elapsed();
        assert!(took >= patience, "{took:?}");
        let Err(CloseError::TimedOut(left)) = closed else {
            panic!("{closed:?}");
        };
        assert!(left.contains(&Key::new("lingers", "one")), "{left:?}");
        if Kernel::here() == Kernel::Simulated {
            assert_eq!(took, patience);
            assert_eq!(left.len(), 1, "{left:?}");
        }
        // What was begun goes on.
        assert!(pool.close_all_blocking(Duration::from_secs(60)).is_ok());
        assert_eq!(seen.closed(), 2);
        runtime.shutdown(Duration::from_secs(10));
    });
}

#[test]
fn p022_a_pool_that_is_dropped_closes_its_sessions() {
    conform(|_| async {
        let (pool, seen) = pool();
        for scope in ["one", "two"] {
            drop(pool.lease(&Key::new("any", scope)).await.expect("one"));
        }
        drop(pool.clone());
        settle().await;
        assert_eq!(seen.closed(), 0, "somebody still has it");
        drop(pool);
        settle().await;
        assert_eq!((seen.closed(), seen.dropped()), (2, 2));
    });
    // The end of the runtime waits for them.
    let (pool, seen) = pool();
    let runtime = Runtime::builder().grace_period(Duration::from_secs(60));
    let runtime = runtime.build().expect("a runtime");
    let handle = runtime.handle();
    let inner = pool.clone();
    let leased = handle.spawn(handle.cores()[0], move || async move {
        drop(inner.lease(&Key::new("lingers", "one")).await.expect("one"));
    });
    leased.expect("its core runs").wait().expect("no panic");
    drop(pool);
    drop(runtime);
    assert_eq!(seen.closed(), 1);
}

#[test]
fn a_session_that_does_not_close_is_cancelled_after_the_grace_period() {
    conform(|_| async {
        let grace = Duration::from_millis(40);
        let (pool, seen) = pool_of(|builder| builder.grace(grace));
        drop(pool.lease(&Key::new("stubborn", "one")).await.expect("one"));
        let begun = Instant::now();
        assert_eq!(pool.close_all().await, Ok(1));
        let took = begun.elapsed();
        assert_eq!((seen.closed(), seen.dropped()), (1, 1));
        assert!(took >= grace / 2, "{took:?}");
        if Kernel::here() == Kernel::Simulated {
            assert!(took <= grace + Duration::from_millis(1), "{took:?}");
        }
    });
}

#[test]
fn calls_that_run_when_their_session_is_closed_may_end_and_are_cancelled_then() {
    conform(|_| async {
        let grace = Duration::from_millis(400);
        let (pool, seen) = pool_of(|builder| builder.grace(grace));
        let lease = pool.lease(&Key::new("any", "one")).await.expect("one");
        let closer = {
            let pool = pool.clone();
            spawn(async move { pool.close_all().await })
        };
        // One that ends in time.
        let short = lease.call_here(async |_| {
            settle().await;
            sleep(Duration::from_millis(10)).await?;
            Ok::<_, CallError>("in time")
        });
        assert_eq!(short.await, Ok("in time"));
        assert_eq!(closer.await.expect("no panic"), Ok(1));
        drop(lease);
        // One that does not.
        let lease = pool.lease(&Key::new("any", "one")).await.expect("one");
        let closer = {
            let pool = pool.clone();
            spawn(async move { pool.close_all().await })
        };
        let long = lease.call_here(async |_| {
            let cancelled = sleep(Duration::from_secs(3600)).await;
            assert!(cancelled.is_err());
            cancelled.map_err(CallError::from)
        });
        assert_eq!(long.await, Err(CallError::Closed));
        assert_eq!(closer.await.expect("no panic"), Ok(1));
        assert_eq!((seen.opened(), seen.closed()), (2, 2));
    });
}

#[test]
fn a_call_that_nobody_polls_is_not_waited_for_beyond_the_grace_period() {
    conform(|_| async {
        let grace = Duration::from_millis(40);
        let (pool, seen) = pool_of(|builder| builder.grace(grace));
        let lease = pool.lease(&Key::new("any", "one")).await.expect("one");
        let mut call = Box::pin(lease.call_here(async |_| {
            sleep(Duration::from_secs(3600)).await?;
            Ok::<_, CallError>(())
        }));
        assert!(tests::poll_once(call.as_mut()).await.is_pending());
        let begun = Instant::now();
        assert_eq!(pool.close_all().await, Ok(1));
        if Kernel::here() == Kernel::Simulated {
            let took = begun.elapsed();
            assert!(took <= grace + Duration::from_millis(1), "{took:?}");
        }
        assert_eq!((seen.closed(), seen.dropped()), (0, 0));
        // Its end is that of the call.
        assert_eq!(call.await, Err(CallError::Closed));
        assert_eq!(seen.dropped(), 1);
    });
}

/// The caller that looks whether a session is fit finds that it is not, and all were closed meanwhile.
#[test]
fn p009_a_session_that_is_looked_at_while_all_are_closed_is_not_opened_anew() {
    for far in [false, true] {
        conform_on(2, move |handle| async move {
            let (pool, seen) = pool_of(|builder| builder.check_after(Duration::ZERO));
            let key = Key::new("any", "one");
            let lease = pool.lease(&key).await.expect("one");
            let unfit = lease.call_here(async |session| {
                session.fit.set(Some(false));
                Ok::<_, CallError>(())
            });
            unfit.await.expect("it is open");
            drop(lease);
            let leasing = {
                let (pool, core) = (pool.clone(), handle.cores()[usize::from(far)]);
                spawn(on(core, move || async move {
                    let leased = pool.lease(&key).await;
                    Ok::<_, std::io::Error>(leased.map(drop))
                }))
            };
            while pool.metrics().leases == 0 {
                quoit::yield_uncancellable().await;
            }
            assert_eq!(pool.close_all().await, Ok(1));
            let leased = leasing.await.expect("no panic").expect("nobody cancels");
            assert!(matches!(leased, Err(LeaseError::Closed)), "{leased:?}");
            assert!(pool.keys().is_empty());
            assert_eq!((seen.opened(), seen.closed()), (1, 1));
        });
    }
}

/// Retired while it is leased, and then ended for another reason as well: it has ended once.
#[test]
fn a_session_is_counted_by_what_ended_it_first() {
    conform(|_| async {
        for panics in [false, true] {
            let (pool, seen) = pool();
            let lease = pool.lease(&Key::new("any", "one")).await.expect("one");
            lease.retire();
            if panics {
                let told = lease.call_here(async |session| {
                    session.panics.set();
                    Ok::<_, CallError>(())
                });
                told.await.expect("it is open");
                settle().await;
            }
            let closing = {
                let pool = pool.clone();
                spawn(async move { pool.close_all().await })
            };
            settle().await;
            drop(lease);
            assert!(closing.await.expect("no panic").is_ok());
            let ended = pool.metrics();
            assert_eq!((ended.opens, ended.retired, ended.closed), (1, 1, 0));
            assert_eq!((ended.sessions, seen.closed()), (0, 1));
        }
    });
}

/// A caller of another core waits for the opening, which begins anew there.
#[test]
fn an_opening_whose_core_is_shut_down_is_counted() {
    let (pool, seen) = pool();
    let runtimes = [(); 2].map(|()| Runtime::builder().build().expect("a runtime"));
    let mut leasing = Vec::new();
    for (place, runtime) in runtimes.iter().enumerate() {
        let (handle, inner) = (runtime.handle(), pool.clone());
        let lease = handle.spawn(handle.cores()[0], move || async move {
            let leased = inner.lease(&Key::new("hangs", "one")).await;
            leased.map(drop).expect_err("its core ends")
        });
        leasing.push(lease.expect("its core runs"));
        while pool.metrics().waiting == place {
            std::thread::yield_now();
        }
    }
    for (runtime, lease) in runtimes.into_iter().zip(leasing) {
        runtime.shutdown(Duration::from_secs(60));
        let error = lease.wait().expect("no panic");
        assert!(
            matches!(error, LeaseError::Cancelled(_) | LeaseError::ShuttingDown),
            "{error:?}"
        );
    }
    let ended = pool.metrics();
    // Of the second, nobody says whether it has begun, and whether its caller has left first.
    assert!(ended.shut_down >= 1, "{ended:?}");
    assert_eq!((ended.failures, ended.sessions, ended.waiting), (0, 0, 0));
    assert!(seen.cleaned() >= 1);
}
