//! Openings: waited for together, given up by the last, reported after the clean-up.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quoit::time::{Instant, sleep};
use quoit::{Cancelled, CarriesCancelled, Scope, group, spawn};
use quoit_pool::{Key, LeaseError, SessionPool, Sessions};
use tests::conform;

use crate::kind::{number, pool, pool_of, settle, timed};

#[test]
fn p005_a_failed_opening_fails_all_who_wait_after_its_clean_up() {
    conform(|_| async {
        let (pool, seen) = pool();
        let failed = group(async |tasks| {
            for _ in 0..5 {
                let pool = pool.clone();
                drop(tasks.spawn(async move {
                    let (leased, took) = timed(pool.lease(&Key::new("fails", "one"))).await;
                    let Err(LeaseError::Open(error)) = leased else {
                        panic!("{leased:?}");
                    };
                    assert_eq!(error.to_string(), "the server is out of order");
                    assert!(took >= Duration::from_millis(50), "{took:?}");
                    Ok::<_, Cancelled>(())
                }));
            }
            Ok(())
        });
        assert_eq!(failed.await.expect("nobody fails"), Some(()));
        assert_eq!(seen.cleaned(), 1);
        assert!(pool.keys().is_empty());
        let metrics = pool.metrics();
        assert_eq!(
            (metrics.sessions, metrics.failures, metrics.joins),
            (0, 1, 4)
        );
        // The next one opens anew, and finds the same.
        let again = pool.lease(&Key::new("fails", "one")).await;
        assert!(matches!(again, Err(LeaseError::Open(_))));
        assert_eq!(seen.cleaned(), 2);
    });
}

#[test]
fn p006_an_opening_goes_on_without_the_caller_that_caused_it() {
    conform(|_| async {
        let (pool, seen) = pool();
        let key = Key::new("slow", "one");
        let scope = Scope::new();
        let cancel = scope.handle();
        let first = {
            let (pool, key) = (pool.clone(), key.clone());
            spawn(async move { pool.lease(&key).await.map(drop) })
        };
        settle().await;
        let others: Vec<_> = (0..4)
            .map(|_| {
                let (pool, key) = (pool.clone(), key.clone());
                spawn(async move {
                    let lease = pool.lease(&key).await.expect("the opening goes on");
                    number(&lease).await
                })
            })
            .collect();
        settle().await;
        first.cancel();
        drop((scope, cancel));
        assert!(matches!(
            first.await,
            Ok(Err(LeaseError::Cancelled(_))) | Err(quoit::JoinError::Cancelled(_))
        ));
        for other in others {
            assert_eq!(other.await.expect("no panic"), 0);
        }
        assert_eq!(pool.metrics().opens, 1);
        pool.close_all().await.expect("nobody cancels");
        assert_eq!((seen.opened(), seen.closed()), (1, 1));
    });
}

#[test]
fn p007_an_opening_that_nobody_waits_for_is_cancelled_and_cleans_up() {
    conform(|_| async {
        let (pool, seen) = pool();
        let waiting = Scope::new().timeout(Duration::from_millis(5));
        let waited: Result<Option<()>, _> = waiting
            .run(async {
                let all = group(async |tasks| {
                    for _ in 0..3 {
                        let pool = pool.clone();
                        drop(tasks.spawn(async move {
                            let leased = pool.lease(&Key::new("hangs", "one")).await;
                            match leased {
                                Err(LeaseError::Cancelled(cancelled)) => Err::<(), _>(cancelled),
                                other => panic!("{other:?}"),
                            }
                        }));
                    }
                    Ok(())
                });
                all.await.map(drop).map_err(Cancelled::from)
            })
            .await;
        assert_eq!(waited, Ok(None));
        assert_eq!(pool.metrics().unwanted, 1);
        assert!(pool.keys().is_empty(), "another lease would open anew");
        // Nothing is there to be closed but the one that cleans up.
        assert_eq!(pool.close_all().await, Ok(1));
        assert_eq!((seen.opened(), seen.cleaned()), (0, 1));
        assert_eq!(pool.metrics().sessions, 0);
    });
}

#[test]
fn an_opening_that_takes_too_long_is_given_up() {
    conform(|_| async {
        let (pool, seen) = pool_of(|builder| builder.open_timeout(Duration::from_millis(20)));
        let leased = pool.lease(&Key::new("hangs", "one")).await;
        assert!(
            matches!(leased, Err(LeaseError::OpenTimedOut(_))),
            "{leased:?}"
        );
        assert_eq!(seen.cleaned(), 1, "before anybody was told");
    });
}

#[test]
fn an_opening_that_panics_says_so() {
    conform(|_| async {
        let (pool, _) = pool();
        let leased = pool.lease(&Key::new("panics", "one")).await;
        let Err(LeaseError::Panicked(text)) = leased else {
            panic!("{leased:?}");
        };
        assert_eq!(text, "the server cannot be opened");
        assert!(pool.keys().is_empty());
    });
}

/// Falls before there is a future to be polled.
struct Hasty;

impl Sessions for Hasty {
    type Session = ();
    type Error = io::Error;

    fn open(&self, _: &Key) -> impl Future<Output = io::Result<()>> {
        resume_unwind(Box::new("too soon"));
        #[expect(unreachable_code, reason = "says what it would return")]
        async {
            Ok(())
        }
    }
}

#[test]
fn an_opening_that_panics_before_it_begins_is_not_tried_for_ever() {
    conform(|_| async {
        let pool = SessionPool::builder(Hasty).build().expect("set up right");
        let leased = pool.lease(&Key::new("any", "one")).await;
        let Err(LeaseError::Panicked(text)) = leased else {
            panic!("{leased:?}");
        };
        assert_eq!(text, "too soon");
        assert_eq!(pool.metrics().failures, 1);
    });
}

#[test]
fn a_server_that_failed_twice_is_left_alone_for_a_while() {
    conform(|_| async {
        let long = Duration::from_millis(200);
        let (pool, seen) = pool_of(|builder| builder.backoff(long, long));
        let key = Key::new("fails", "one");
        for _ in 0..2 {
            assert!(matches!(pool.lease(&key).await, Err(LeaseError::Open(_))));
        }
        let failed = Instant::now();
        let leased = pool.lease(&key).await;
        let Err(LeaseError::BackingOff {
            retry_in,
            failures,
            last,
        }) = leased
        else {
            panic!("{leased:?}");
        };
        assert!(retry_in <= long, "{retry_in:?}");
        assert_eq!(failures, 2);
        assert_eq!(last.to_string(), "the server is out of order");
        assert_eq!(seen.cleaned(), 2, "it was not tried");
        // Another key of the server is none of its business.
        drop(
            pool.lease(&Key::new("any", "one"))
                .await
                .expect("a session"),
        );
        sleep(retry_in).await.expect("nobody cancels");
        assert!(matches!(pool.lease(&key).await, Err(LeaseError::Open(_))));
        assert!(failed.elapsed() >= long / 2 - Duration::from_millis(1));
        assert_eq!(seen.cleaned(), 3);
        pool.close_all().await.expect("nobody cancels");
    });
}

/// Opens nothing, and fails with an error that panics when it is dropped, if it is the first.
struct Brittle {
    failed: AtomicBool,
}

#[derive(Debug)]
struct Splinter {
    is_sharp: bool,
}

impl Drop for Splinter {
    fn drop(&mut self) {
        if self.is_sharp {
            resume_unwind(Box::new("the error falls apart"));
        }
    }
}

impl fmt::Display for Splinter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server fell apart")
    }
}

impl std::error::Error for Splinter {}

impl From<Cancelled> for Splinter {
    fn from(_: Cancelled) -> Self {
        Self { is_sharp: false }
    }
}

impl CarriesCancelled for Splinter {
    fn cancelled(&self) -> Option<Cancelled> {
        None
    }
}

impl Sessions for Brittle {
    type Session = ();
    type Error = Splinter;

    async fn open(&self, _: &Key) -> Result<(), Splinter> {
        let is_sharp = !self.failed.swap(true, Ordering::Relaxed);
        Err(Splinter { is_sharp })
    }
}

/// The pool forgets the first error as the second comes.
#[test]
fn callers_are_told_though_an_error_panics_as_it_is_dropped() {
    conform(|_| async {
        let brittle = Brittle {
            failed: AtomicBool::new(false),
        };
        let pool = SessionPool::builder(brittle)
            .backoff(Duration::ZERO, Duration::ZERO)
            .build()
            .expect("set up right");
        for _ in 0..3 {
            let (pool, key) = (pool.clone(), Key::new("any", "one"));
            let mut caller = spawn(async move { pool.lease(&key).await });
            settle().await;
            let told = caller.try_join().expect("it is told at once");
            assert!(matches!(told, Ok(Err(LeaseError::Open(_)))), "{told:?}");
        }
        assert_eq!(pool.metrics().failures, 3);
    });
}
