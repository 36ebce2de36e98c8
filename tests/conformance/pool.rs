//! A pool of one, whose waiters are cancelled just as what they wait for is ready.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quoit::{Cancelled, check, op, yield_now};
use quoit_pool::{Key, LeaseError, SessionPool, Sessions};
use tests::{Kernel, conform, gauges};

use super::support::some_turns;
use super::waiters::waiter;

/// Connections that take three turns to be made: how many there are, and how many there have been.
#[derive(Default)]
struct Line {
    open: AtomicUsize,
    opened: AtomicUsize,
}

struct Lines(Arc<Line>);

impl Sessions for Lines {
    type Session = ();
    type Error = io::Error;

    async fn open(&self, _: &Key) -> io::Result<()> {
        some_turns_here(3).await?;
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        assert_eq!(
            self.0.open.fetch_add(1, Ordering::Relaxed),
            0,
            "one at most"
        );
        Ok(())
    }

    async fn close(&self, _: &Key, (): ()) -> Result<(), Cancelled> {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

async fn some_turns_here(count: u32) -> io::Result<()> {
    for _ in 0..count {
        op::nop().await?;
    }
    Ok(())
}

/// Somebody has the connection, until this is dropped.
struct Owns(Rc<Cell<u32>>);

impl Owns {
    fn begin(owners: &Rc<Cell<u32>>) -> Self {
        assert_eq!(owners.replace(owners.get() + 1), 0, "two owners");
        Self(Rc::clone(owners))
    }
}

impl Drop for Owns {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Takes the connection, and keeps it for a turn; notes whether it was cancelled with it in its hands.
async fn takes(
    pool: SessionPool<Lines>,
    scope: &'static str,
    owners: Rc<Cell<u32>>,
    cancelled_with_it: Rc<Cell<bool>>,
) -> io::Result<()> {
    let lease = match pool.lease_exclusive(&Key::new("line", scope)).await {
        Ok(lease) => lease,
        Err(LeaseError::Cancelled(cancelled)) => return Err(cancelled.into()),
        Err(other) => panic!("{other}"),
    };
    let _owns = Owns::begin(&owners);
    cancelled_with_it.set(check().is_err());
    yield_now().await?;
    drop(lease);
    Ok(())
}

/// The first is cancelled at every moment of the opening, with nobody behind it, with one who wants the
/// same, and with one who wants another in its place.
#[test]
fn c143_a_connection_whose_waiter_is_cancelled_goes_to_the_next_or_into_the_pool() {
    conform(|handle| async move {
        let mut ways = BTreeSet::new();
        for next in [None, Some("one"), Some("other")] {
            for turns in 0..12 {
                let line = Arc::new(Line::default());
                let pool = SessionPool::builder(Lines(Arc::clone(&line))).max_sessions(1);
                let pool = pool.build().expect("it is set up right");
                let (owners, with_it) = (Rc::default(), Rc::new(Cell::new(false)));
                let first = takes(pool.clone(), "one", Rc::clone(&owners), Rc::clone(&with_it));
                let first = waiter(first);
                some_turns(1).await;
                let second = next.map(|scope| {
                    waiter(takes(
                        pool.clone(),
                        scope,
                        Rc::clone(&owners),
                        Rc::default(),
                    ))
                });
                some_turns(turns).await;
                first.cancel();
                let whole = first.end().await.is_some();
                if let Some(second) = second {
                    assert_eq!(second.end().await, Some(()), "{next:?} after {turns}");
                }
                ways.insert((next, whole, with_it.get()));
                // Whatever became of it, it can be had: there is no second one, and nobody has the first.
                let metrics = pool.metrics();
                assert_eq!((metrics.leases, metrics.waiting, owners.get()), (0, 0, 0));
                let last = takes(pool.clone(), "one", Rc::clone(&owners), Rc::default());
                last.await.expect("nobody cancels it");
                pool.close_all().await.expect("nobody cancels");
                assert_eq!(line.open.load(Ordering::Relaxed), 0);
                let opened = line.opened.load(Ordering::Relaxed);
                assert!((1..=3).contains(&opened), "{opened} were made");
            }
        }
        if Kernel::here().counts_exactly() {
            for next in [None, Some("one"), Some("other")] {
                let some = |whole| ways.iter().any(|way| (way.0, way.1) == (next, whole));
                assert!(some(false) && some(true), "{ways:?}");
            }
        }
        assert_eq!(gauges(&handle).await.tasks, 1);
    });
}
