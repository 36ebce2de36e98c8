//! Whatever a wait is for, a cancel ends it that comes to it by a change around it.

use std::fmt::Debug;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quoit::op;
use quoit::sync::{
    Condition, Event, Mutex, OnceCell, Semaphore, broadcast, channel, oneshot, shared, watch,
};
use quoit::time::{Instant, interval, sleep};
use quoit::{
    Cancelled, CarriesCancelled, CoreId, Group, JoinError, Reason, Scope, Started, group, on, race,
    run_until_cancelled, spawn, timeout, yield_now, yield_uncancellable,
};
use tests::{Kernel, both_streams, conform_on, poll_once};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

type Wait = Pin<Box<dyn Future<Output = Result<(), Cancelled>>>>;

/// Makes a wait of a body, which fails with nothing but a cancellation.
fn wait<T, E>(body: impl Future<Output = Result<T, E>> + 'static) -> Wait
where
    E: CarriesCancelled + Debug,
{
    Box::pin(async {
        let cancelled = |error: E| error.cancelled().unwrap_or_else(|| panic!("{error:?}"));
        body.await.map(drop).map_err(cancelled)
    })
}

/// A wait of each kind that never ends by itself, by name.
async fn waits(there: CoreId) -> Vec<(&'static str, Wait)> {
    let mut waits = for_tasks();
    waits.extend(for_any_core());
    waits.extend(for_children(there));
    let (ours, theirs) = both_streams().await;
    let (reader, writer) = op::pipe().expect("a pipe");
    waits.extend([
        (
            "a receive",
            wait(async move {
                let received = ours.receive().await.map(drop);
                drop(theirs);
                received
            }),
        ),
        (
            "a read",
            wait(async move {
                let read = op::read(&reader, vec![0; 4]).await.0;
                drop(writer);
                read
            }),
        ),
    ]);
    waits
}

fn for_tasks() -> Vec<(&'static str, Wait)> {
    vec![
        ("a sleep", wait(sleep(LONG))),
        ("a tick", wait(async { interval(LONG).tick().await })),
        ("an event", wait(async { Event::new().wait().await })),
        (
            "an item",
            wait(async {
                let (_sender, receiver) = channel::bounded::<u8>(1);
                receiver.recv().await
            }),
        ),
        (
            "room for an item",
            wait(async {
                let (sender, _receiver) = channel::bounded(0);
                sender.send(1).await.map_err(|error| match error {
                    channel::SendError::Cancelled(1, cancelled) => cancelled,
                    other => panic!("{other:?}"),
                })
            }),
        ),
        (
            "a value",
            wait(async {
                let (_sender, mut receiver) = oneshot::channel::<u8>();
                receiver.recv().await
            }),
        ),
        (
            "the end of a receiver",
            wait(async {
                let (mut sender, _receiver) = oneshot::channel::<u8>();
                sender.closed().await
            }),
        ),
        (
            "news",
            wait(async {
                let (_sender, mut receiver) = watch::channel(1);
                receiver.changed().await.map(drop)
            }),
        ),
        (
            "what is told to all",
            wait(async {
                let (_sender, mut receiver) = broadcast::bounded::<u8>(1);
                receiver.recv().await
            }),
        ),
        (
            "a lock",
            wait(async {
                let mutex = Mutex::new(());
                let _held = mutex.try_lock();
                mutex.lock().await.map(drop)
            }),
        ),
        (
            "a condition",
            wait(async {
                let mutex = Mutex::new(());
                let guard = mutex.lock().await?;
                let waited = Condition::new().wait(guard).await.map(drop);
                waited.map_err(|error| error.cancelled())
            }),
        ),
        (
            "a permit",
            wait(async { Semaphore::new(0).acquire().await.map(drop) }),
        ),
        (
            "a foreign future",
            wait(run_until_cancelled(pending::<()>())),
        ),
        (
            "the making of a value",
            wait(async {
                let cell = OnceCell::new();
                let making = async || run_until_cancelled(pending::<()>()).await;
                cell.get_or_try_init(making).await.copied()
            }),
        ),
    ]
}

fn for_any_core() -> Vec<(&'static str, Wait)> {
    vec![
        (
            "an item of any core's",
            wait(async {
                let (_sender, receiver) = shared::channel::bounded::<u8>(1);
                receiver.recv_many(&mut Vec::new(), 2).await
            }),
        ),
        (
            "room for an item of any core's",
            wait(async {
                let (sender, receiver) = shared::channel::bounded(1);
                let mut items = [1, 2, 3].into();
                let sent = sender.send_many(&mut items).await;
                assert_eq!(items.len() + receiver.len(), 3);
                sent.map_err(|error| match error {
                    shared::channel::SendError::Cancelled((), cancelled) => cancelled,
                    other => panic!("{other:?}"),
                })
            }),
        ),
        (
            "any core's lock",
            wait(async {
                let mutex = shared::Mutex::new(());
                let _held = mutex.try_lock();
                mutex.lock().await.map(drop)
            }),
        ),
        (
            "any core's permit",
            wait(async { Arc::new(shared::Semaphore::new(0)).acquire_owned().await }),
        ),
    ]
}

fn for_children(there: CoreId) -> Vec<(&'static str, Wait)> {
    vec![
        (
            "a child elsewhere",
            wait(on(there, || async {
                Ok::<_, io::Error>(sleep(LONG).await?)
            })),
        ),
        (
            "a group's end",
            wait(group(async |g: Group<Cancelled>| {
                g.spawn(sleep(LONG));
                Ok(())
            })),
        ),
        (
            "a child's start",
            wait(group(async |g: Group<Cancelled>| {
                let started = g.start(async |_: Started<()>| sleep(LONG).await).await;
                started.map_err(|error| error.cancelled().expect("nothing else"))
            })),
        ),
        (
            "a child's end",
            wait(group(async |g: Group<Cancelled>| {
                let child = g.spawn(sleep(LONG));
                child.await.map_err(|error| match error {
                    JoinError::TaskCancelled(cancelled) | JoinError::Cancelled(cancelled) => {
                        cancelled
                    }
                    other => panic!("{other}"),
                })
            })),
        ),
        (
            "a race",
            wait(race(sleep(LONG), async {
                yield_uncancellable().await;
                sleep(LONG).await
            })),
        ),
        (
            "a timeout",
            wait(timeout(LONG * 2, async {
                Ok::<_, io::Error>(sleep(LONG).await?)
            })),
        ),
    ]
}

/// Lets each wait begin and end as `how` does that, and the core be quiet then.
fn each_of_them(how: impl AsyncFn(&'static str, Wait) + Clone + Send + 'static) {
    conform_on(2, |handle| async move {
        for (name, wait) in waits(handle.cores()[1]).await {
            how(name, wait).await;
        }
    });
}

#[test]
fn each_wait_moves_into_the_scope_that_polls_it() {
    each_of_them(async |name, mut wait| {
        assert!(poll_once(wait.as_mut()).await.is_pending(), "{name}");
        let began = Instant::now();
        let scope = Scope::new().timeout(SHORT);
        assert_eq!(scope.run(wait).await, Ok(None), "{name}");
        assert!(scope.absorbed() && began.elapsed() >= SHORT, "{name}");
        if Kernel::here() == Kernel::Simulated {
            assert_eq!(began.elapsed(), SHORT, "{name}");
        }
    });
}

#[test]
fn each_wait_moves_out_of_a_scope_that_ends_before_it() {
    each_of_them(async |name, mut wait| {
        let outer = Scope::new();
        let cancel = outer.handle();
        let ran = outer.run(async {
            let inner = Scope::new().timeout(LONG);
            let began = inner.run(async { Ok::<_, Cancelled>(poll_once(wait.as_mut()).await) });
            assert!(began.await?.expect("in time").is_pending(), "{name}");
            drop(spawn(async move {
                yield_now().await.expect("nobody cancels");
                cancel.cancel();
            }));
            wait.await
        });
        assert_eq!(ran.await, Ok(None), "{name}");
    });
}

#[test]
fn each_wait_ends_when_its_shield_is_cleared() {
    each_of_them(async |name, wait| {
        let outer = Scope::new();
        let ran = outer.run(async {
            let shield = Rc::new(Scope::new().shielded());
            outer.cancel();
            let clears = Rc::clone(&shield);
            drop(spawn(async move {
                yield_now().await.expect("nobody cancels");
                clears.set_shielded(false);
            }));
            let passed = shield.run(wait).await;
            assert!(passed.is_err() && !shield.absorbed(), "{name}");
            passed
        });
        assert_eq!(ran.await, Ok(None), "{name}");
    });
}

#[test]
fn each_wait_ends_with_the_grace_around_it() {
    each_of_them(async |name, wait| {
        let began = Instant::now();
        let outer = Scope::new();
        let ran = outer.run(async {
            outer.cancel_with(Reason::User(3), SHORT);
            let passed = Scope::new().grace_shielded().run(wait).await;
            let why = passed.expect_err("its grace is over").reason();
            assert_eq!(why, Reason::User(3), "{name}");
            assert!(began.elapsed() >= SHORT, "{name}");
            yield_now().await
        });
        assert_eq!(ran.await, Ok(None), "{name}");
    });
}
