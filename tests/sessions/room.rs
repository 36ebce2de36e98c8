//! Limits: who is closed for whom, who waits, and what grows old.

use std::rc::Rc;
use std::time::Duration;

use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{Scope, spawn, yield_now};
use quoit_pool::{CallError, Key, LeaseError, SessionPool};
use tests::{Kernel, conform, turns_of_others};

use crate::kind::{Kind, number, pool_of, settle, timed};

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

fn of_two(builder: quoit_pool::Builder<Kind>) -> quoit_pool::Builder<Kind> {
    builder.max_sessions(2)
}

#[test]
fn p015_the_one_used_least_recently_is_closed_to_make_room() {
    conform(|_| async {
        let (pool, seen) = pool_of(of_two);
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::new("any", name));
        for key in [&a, &b] {
            drop(pool.lease(key).await.expect("one"));
        }
        let lease = pool.lease(&c).await.expect("a was in the way");
        assert_eq!(pool.keys(), [b.clone(), c]);
        assert_eq!((seen.opened(), seen.closed()), (3, 1));
        assert_eq!(pool.metrics().evicted, 1);
        // Leased again, b is no longer the oldest: c is not leased any more, but was used before it.
        drop(lease);
        drop(pool.lease(&b).await.expect("still there"));
        drop(pool.lease(&a).await.expect("c was in the way"));
        assert_eq!(pool.keys(), [a, b]);
        pool.close_all().await.expect("nobody cancels");
        assert_eq!((seen.opened(), seen.closed()), (4, 4));
    });
}

/// Checks how long something took: no less, and in simulated time no more.
#[track_caller]
fn assert_took(took: Duration, expected: Duration) {
    assert!(took >= expected, "{took:?}");
    if Kernel::here() == Kernel::Simulated {
        assert_eq!(took, expected);
    }
}

#[test]
fn p016_who_finds_all_leased_waits_for_room_and_nobody_is_evicted() {
    conform(|_| async {
        let (pool, seen) = pool_of(of_two);
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::new("any", name));
        let first = pool.lease(&a).await.expect("one");
        let second = pool.lease(&b).await.expect("one");
        let patience = Duration::from_millis(100);
        let waiting = Scope::new().timeout(patience);
        let (waited, took) = timed(waiting.run(pool.lease(&c))).await;
        assert!(matches!(waited, Ok(None)), "{waited:?}");
        assert_took(took, patience);
        assert_eq!((seen.opened(), seen.closed()), (2, 0));
        assert_eq!(pool.metrics().waiting, 0);
        // With a lease that comes back in time.
        let returns = spawn(async move {
            sleep(Duration::from_millis(50)).await?;
            drop(first);
            Ok::<_, quoit::Cancelled>(())
        });
        let waiting = Scope::new().timeout(patience);
        let (third, took) = timed(waiting.run(pool.lease(&c))).await;
        let third = third.expect("no failure").expect("a has come back");
        assert_took(took, patience / 2);
        assert_eq!(number(&third).await, 2);
        assert!(matches!(returns.await, Ok(Ok(()))));
        assert_eq!(number(&second).await, 1, "b was not touched");
        assert_eq!(seen.closed(), 1);
        drop((second, third));
        pool.close_all().await.expect("nobody cancels");
    });
}

/// Each lease is counted as what it was: the one that caused the opening, those that joined it, those after it.
#[test]
fn who_waits_for_room_together_has_joined_the_opening_of_the_first() {
    conform(|_| async {
        let (pool, _) = pool_of(|builder| builder.max_sessions(1));
        let first = pool.lease(&Key::new("any", "a")).await.expect("one");
        let ask = |_| {
            let pool = pool.clone();
            spawn(async move { pool.lease(&Key::new("any", "b")).await.map(drop) })
        };
        let asked: Vec<_> = (0..5).map(ask).collect();
        while pool.metrics().waiting < asked.len() {
            yield_now().await.expect("nobody cancels");
        }
        drop(first);
        for asked in asked {
            asked.await.expect("no panic").expect("room");
        }
        drop(pool.lease(&Key::new("any", "b")).await.expect("it is open"));
        let metrics = pool.metrics();
        assert_eq!((metrics.opens, metrics.joins, metrics.reuses), (2, 4, 1));
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn a_lease_timeout_says_that_it_was_one() {
    conform(|_| async {
        let (pool, _) = pool_of(|builder| {
            let builder = builder.max_sessions(1);
            builder.lease_timeout(Duration::from_millis(30))
        });
        let first = pool.lease(&Key::new("any", "a")).await.expect("one");
        let waited = pool.lease(&Key::new("any", "b")).await;
        assert!(matches!(waited, Err(LeaseError::TimedOut(_))), "{waited:?}");
        drop(first);
        drop(pool.lease(&Key::new("any", "b")).await.expect("room"));
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn callers_wait_for_room_in_order_and_no_more_of_them_than_may() {
    conform(|_| async {
        let (pool, _) = pool_of(|builder| builder.max_sessions(1).max_waiting(2));
        let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let first = pool.lease(&Key::new("any", "first")).await.expect("one");
        let mut waiters = Vec::new();
        for name in ["second", "third"] {
            let (pool, order) = (pool.clone(), std::rc::Rc::clone(&order));
            waiters.push(spawn(async move {
                let lease = pool.lease(&Key::new("any", name)).await.expect("room");
                order.borrow_mut().push(name);
                drop(lease);
            }));
            // It waits, before the next one comes.
            settle().await;
        }
        let refused = pool.lease(&Key::new("any", "fourth")).await;
        let Err(LeaseError::Exhausted {
            max_sessions,
            waiting,
        }) = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!((max_sessions, waiting), (1, 2));
        assert_eq!(pool.metrics().exhausted, 1);
        drop(first);
        for waiter in waiters {
            waiter.await.expect("no panic");
        }
        assert_eq!(*order.borrow(), ["second", "third"]);
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn a_session_that_nobody_leases_expires_and_one_that_is_used_does_not() {
    conform(|_| async {
        let idle = Duration::from_millis(60);
        let (pool, seen) = pool_of(|builder| builder.idle_timeout(idle));
        let key = Key::new("any", "one");
        let lease = pool.lease(&key).await.expect("one");
        // Leased, it stays for as long as it is; its time begins when it comes back.
        sleep(idle * 5 / 2).await.expect("nobody cancels");
        assert_eq!(number(&lease).await, 0);
        let unused = Instant::now();
        drop(lease);
        while seen.closed() == 0 {
            sleep(Duration::from_millis(5))
                .await
                .expect("nobody cancels");
        }
        assert!(unused.elapsed() >= idle);
        assert_eq!(pool.metrics().expired, 1);
        let lease = pool.lease(&key).await.expect("another");
        assert_eq!(number(&lease).await, 1);
        drop(lease);
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn a_session_that_is_too_old_is_leased_no_more_and_closed_after_its_last_lease() {
    conform(|_| async {
        let age = Duration::from_millis(30);
        let (pool, seen) = pool_of(|builder| builder.max_age(age));
        let key = Key::new("any", "one");
        let old = pool.lease(&key).await.expect("one");
        sleep(age * 2).await.expect("nobody cancels");
        settle().await;
        let new = pool.lease(&key).await.expect("another");
        assert_eq!((number(&old).await, number(&new).await), (0, 1));
        assert_eq!(seen.closed(), 0, "it is leased");
        drop(old);
        settle().await;
        assert_eq!(seen.closed(), 1);
        drop(new);
        pool.close_all().await.expect("nobody cancels");
        assert_eq!((seen.opened(), seen.closed()), (2, 2));
    });
}

#[test]
fn a_pool_without_room_for_anybody_is_refused() {
    let none = SessionPool::builder(Kind::default())
        .max_sessions(0)
        .build();
    let error = none.expect_err("nobody could lease").to_string();
    assert!(error.contains("max_sessions"), "{error}");
    let (first, longest) = (Duration::from_secs(2), Duration::from_secs(1));
    let swapped = SessionPool::builder(Kind::default()).backoff(first, longest);
    assert!(swapped.build().is_err());
}

#[test]
fn whoever_can_have_the_room_of_an_idle_session_is_not_refused() {
    conform(|_| async {
        for max_waiting in [0, 1] {
            let (pool, _) = pool_of(|builder| of_two(builder).max_waiting(max_waiting));
            for scope in ["a", "b"] {
                drop(pool.lease(&Key::new("any", scope)).await.expect("one"));
            }
            let tasks: Vec<_> = ["c", "d"]
                .into_iter()
                .map(|scope| {
                    let pool = pool.clone();
                    spawn(async move { pool.lease(&Key::new("any", scope)).await.map(drop) })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic").expect("an idle one goes");
            }
            assert_eq!(pool.metrics().exhausted, 0);
            pool.close_all().await.expect("nobody cancels");
        }
    });
}

/// All who want the same have the same session: room for one of them is room for all.
#[test]
fn whoever_can_share_the_room_of_an_idle_session_is_not_refused() {
    conform(|_| async {
        let set_up = |builder: quoit_pool::Builder<Kind>| {
            builder
                .max_sessions(1)
                .max_waiting(0)
                .check_after(Duration::ZERO)
        };
        let (pool, seen) = pool_of(set_up);
        let ask = |scope: &'static str, count| {
            let pool = pool.clone();
            let ask = move |_| {
                let pool = pool.clone();
                spawn(async move {
                    let lease = pool.lease(&Key::new("any", scope)).await?;
                    Ok::<_, LeaseError<_>>(number(&lease).await)
                })
            };
            (0..count).map(ask).collect::<Vec<_>>()
        };
        drop(pool.lease(&Key::new("any", "idle")).await.expect("one"));
        for asked in ask("wanted", 5) {
            assert_eq!(asked.await.expect("no panic").expect("room"), 1);
        }
        // So it is where one of them finds that the session is good for nothing.
        let lease = pool.lease(&Key::new("any", "wanted")).await.expect("one");
        let unfit = lease.call(async |session| {
            session.fit.set(Some(false));
            Ok::<_, CallError>(())
        });
        unfit.await.expect("the session is open");
        drop(lease);
        for asked in ask("wanted", 5) {
            assert_eq!(asked.await.expect("no panic").expect("room"), 2);
        }
        // Others have no room to hope for.
        let lease = pool.lease(&Key::new("any", "wanted")).await.expect("one");
        let refused = pool.lease(&Key::new("any", "other")).await;
        assert!(
            matches!(refused, Err(LeaseError::Exhausted { .. })),
            "{refused:?}"
        );
        drop(lease);
        assert_eq!((seen.opened(), pool.metrics().exhausted), (3, 1));
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn without_idle_time_a_session_lives_as_long_as_its_leases() {
    conform(|_| async {
        let (pool, seen) = pool_of(|builder| builder.idle_timeout(Duration::ZERO));
        let key = Key::new("any", "one");
        let lease = pool.lease(&key).await.expect("one");
        sleep(Duration::from_millis(5))
            .await
            .expect("nobody cancels");
        let second = pool.lease(&key).await.expect("the same");
        assert_eq!((number(&lease).await, number(&second).await), (0, 0));
        drop(lease);
        settle().await;
        assert_eq!(seen.closed(), 0);
        drop(second);
        settle().await;
        assert_eq!((seen.closed(), pool.metrics().expired), (1, 1));
    });
}

/// Who asks again and again, and ignores that it is refused, does not keep its core from others.
#[test]
fn a_lease_that_is_refused_yields_now_and_then() {
    conform(|_| async {
        let (pool, seen) = pool_of(of_two);
        let key = Key::new("any", "a");
        let turns = turns_of_others(async || pool.lease(&key).await.map(drop)).await;
        assert!(turns >= 10, "{turns}");
        assert_eq!(seen.opened(), 0);
    });
}

/// Room comes, and whoever is to open a session there goes away before it has begun.
#[test]
fn room_that_its_caller_does_not_take_goes_to_the_next() {
    conform(|_| async {
        let (pool, seen) = pool_of(|builder| builder.max_sessions(1));
        let lease = pool.lease(&Key::new("any", "one")).await.expect("one");
        let (key, other) = (Key::new("any", "two"), Key::new("any", "three"));
        let mut first = Box::pin(pool.lease(&key));
        assert!(tests::poll_once(first.as_mut()).await.is_pending());
        let mut second = Box::pin(pool.lease_exclusive(&key));
        assert!(tests::poll_once(second.as_mut()).await.is_pending());
        let mut third = Box::pin(pool.lease(&other));
        assert!(tests::poll_once(third.as_mut()).await.is_pending());
        drop(lease);
        settle().await;
        assert_eq!((seen.closed(), seen.opened()), (1, 1), "nobody has begun");
        drop(first);
        let second = second.await.expect("it comes next");
        assert_eq!(second.key(), &key);
        drop(second);
        let third = third.await.expect("it comes last");
        assert_eq!(third.key(), &other);
        drop(third);
        let counts = pool.metrics();
        assert_eq!((counts.opens, counts.evicted, counts.unwanted), (3, 2, 0));
        assert_eq!((counts.waiting, counts.leases), (0, 0));
        pool.close_all().await.expect("nobody cancels");
    });
}

/// Returns how long this thread has run so far.
fn time_on_the_processor() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat");
    let told = told.expect("the kernel counts it");
    let first = told.split(' ').next();
    first
        .and_then(|nanos| nanos.parse().ok())
        .expect("a number")
}

/// Lets so many wait for a session and leave, the last first; returns what that cost.
async fn wait_and_leave(keys: &[Key]) -> u64 {
    let (pool, _) = pool_of(|builder| builder.max_sessions(1).max_waiting(usize::MAX));
    let key = Key::new("any", "one");
    let lease = pool.lease_exclusive(&key).await.expect("one");
    let began = time_on_the_processor();
    let mut waiting: Vec<_> = keys.iter().map(|key| Box::pin(pool.lease(key))).collect();
    for lease in &mut waiting {
        assert!(tests::poll_once(lease.as_mut()).await.is_pending());
    }
    assert_eq!(pool.metrics().waiting, keys.len());
    while waiting.pop().is_some() {}
    let cost = time_on_the_processor() - began;
    assert_eq!(pool.metrics().waiting, 0);
    drop(lease);
    pool.close_all().await.expect("nobody cancels");
    cost
}

// On the real ring: it is about the time that the core takes.
#[test]
fn very_many_who_wait_cost_as_much_each_as_few() {
    tests::on_ring(|_| async {
        // In the line of a session, in the queue for room with others, and each for a key of its own.
        let same = |count| vec![Key::new("any", "one"); count];
        let other = |count| vec![Key::new("any", "other"); count];
        let own = |count| (0..count).map(|n| Key::new("any", n.to_string())).collect();
        for keys in [&same as &dyn Fn(usize) -> Vec<Key>, &other, &own] {
            let mut told = Vec::new();
            // A machine with other things to do may make some dearer: of several attempts, one has to be right.
            for _ in 0..3 {
                // As many in all: what is short is not seen on the processor's clock.
                let mut few = 0;
                for _ in 0..20 {
                    few += wait_and_leave(&keys(500)).await;
                }
                let many = wait_and_leave(&keys(10_000)).await;
                told.push((few, many));
            }
            let is_right = |(few, many): &(u64, u64)| *many < few * 5;
            assert!(
                told.iter().any(is_right),
                "nanoseconds for 20 times 500, and for 10 000: {told:?}"
            );
        }
    });
}

/// Opens so many sessions, and closes them, of which each ends in its turn: each by a caller of its own, or all by one.
async fn close_in_turn(count: usize, by_one: bool) {
    let (pool, _) = pool_of(|builder| builder.max_sessions(count).grace(LONG));
    let keys: Vec<_> = (0..count).map(|n| Key::new("any", n.to_string())).collect();
    let mut calls = Vec::new();
    for key in &keys {
        let (lease, end) = (pool.lease(key).await.expect("room"), Rc::new(Event::new()));
        let ends = Rc::clone(&end);
        let call = spawn(async move {
            let held_up = lease.call_here(async |_| Ok::<_, CallError>(ends.wait().await?));
            held_up.await.expect("it has all the time");
        });
        calls.push((end, call));
    }
    settle().await;
    let close = |key: Option<&Key>| {
        let (pool, key) = (pool.clone(), key.cloned());
        spawn(async move {
            match key {
                Some(key) => pool.close_session(&key).await,
                None => pool.close_all().await,
            }
        })
    };
    let closing: Vec<_> = match by_one {
        true => vec![close(None)],
        false => keys.iter().map(|key| close(Some(key))).collect(),
    };
    settle().await;
    for (end, call) in calls {
        end.set();
        call.await.expect("no panic");
        settle().await;
    }
    let mut closed = 0;
    for closing in closing {
        closed += closing.await.expect("no panic").expect("nobody cancels");
    }
    assert_eq!(closed, count);
}

/// Looks whether many take as long as they should, beside few so often that it comes to as many: what is short is not
/// seen on the processor's clock.
async fn assert_alike(few: impl AsyncFn(), many: impl AsyncFn(), what: &str) {
    let mut told = Vec::new();
    // A machine with other things to do may make some dearer: of several attempts, one has to be right.
    for _ in 0..3 {
        let began = time_on_the_processor();
        few().await;
        let between = time_on_the_processor();
        many().await;
        let (few, many) = (between - began, time_on_the_processor() - between);
        if many < few * 4 {
            return;
        }
        told.push((few, many));
    }
    panic!("nanoseconds for few, and for many, {what}: {told:?}");
}

// On the real ring: it is about the time that the core takes.
#[test]
fn closing_very_many_costs_as_much_each_as_few() {
    tests::on_ring(|_| async {
        for by_one in [true, false] {
            let few = async || {
                for _ in 0..40 {
                    close_in_turn(50, by_one).await;
                }
            };
            let many = async || close_in_turn(2_000, by_one).await;
            assert_alike(few, many, if by_one { "by one" } else { "each" }).await;
        }
    });
}

/// Makes room so many times in a pool that is full of idle sessions.
async fn make_room(sessions: usize, times: usize) {
    let (pool, _) = pool_of(|builder| builder.max_sessions(sessions));
    let key = |n: usize| Key::new("any", n.to_string());
    for n in 0..sessions {
        drop(pool.lease(&key(n)).await.expect("room"));
    }
    for n in sessions..sessions + times {
        drop(pool.lease(&key(n)).await.expect("room"));
    }
    assert_eq!(pool.metrics().evicted, times as u64);
    pool.close_all().await.expect("nobody cancels");
}

// On the real ring: it is about the time that the core takes.
#[test]
fn room_among_very_many_costs_as_much_as_among_few() {
    tests::on_ring(|_| async {
        let few = async || make_room(100, 20_000).await;
        let many = async || make_room(10_000, 10_000).await;
        assert_alike(few, many, "to make room").await;
    });
}

/// Sessions with servers of which none is there.
struct Nobody;

impl quoit_pool::Sessions for Nobody {
    type Session = ();
    type Error = std::io::Error;

    async fn open(&self, _: &Key) -> std::io::Result<()> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// Lets so many openings fail, each of another key.
async fn fail(count: usize) {
    let pool = SessionPool::builder(Nobody).build();
    let pool = pool.expect("it is set up right");
    for n in 0..count {
        let failed = pool.lease(&Key::new("any", n.to_string())).await;
        assert!(matches!(failed, Err(LeaseError::Open(_))), "{failed:?}");
    }
}

// On the real ring: it is about the time that the core takes.
#[test]
fn failures_of_very_many_cost_as_much_each_as_those_of_few() {
    tests::on_ring(|_| async {
        let few = async || {
            for _ in 0..20 {
                fail(500).await;
            }
        };
        assert_alike(few, async || fail(10_000).await, "to fail").await;
    });
}
