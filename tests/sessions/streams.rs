//! Streams with owners: left early in every way, they clean up once, and nobody else's things.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use quoit::time::sleep;
use quoit::{Cancelled, Group, Runtime, Scope, group, spawn};
use quoit_pool::{CallError, Items, Key, Lease, LentStream, OwnedStream, with_stream};
use tests::conform;

use crate::kind::{Kind, number, pool, settle};

type Failure = io::Error;

/// What a producer's clean-up notes: that it has begun, and that it is over.
#[derive(Debug, Default)]
struct CleanUp {
    begun: Cell<u32>,
    over: Cell<u32>,
}

impl CleanUp {
    /// Takes 20 ms, whoever cancels it.
    async fn run(&self) {
        self.begun.set(self.begun.get() + 1);
        let shielded = Scope::new().shielded();
        let slept = shielded.run(sleep(Duration::from_millis(20))).await;
        slept.expect("nobody cancels it");
        self.over.set(self.over.get() + 1);
    }

    fn is_over_once(&self) -> bool {
        (self.begun.get(), self.over.get()) == (1, 1)
    }
}

/// Sends numbers until it is left, or fails after some, and cleans up.
async fn numbers(
    items: Items<u32, Failure>,
    fails_at: Option<u32>,
    clean_up: &CleanUp,
) -> Result<(), Failure> {
    let mut outcome = Ok(());
    for number in 0.. {
        if fails_at == Some(number) {
            outcome = Err(io::Error::other("out of numbers"));
            break;
        }
        if let Err(cancelled) = items.send(number).await {
            outcome = Err(cancelled.into());
            break;
        }
    }
    clean_up.run().await;
    outcome
}

fn owned(fails_at: Option<u32>, clean_up: &Rc<CleanUp>) -> OwnedStream<u32, Failure> {
    let clean_up = Rc::clone(clean_up);
    OwnedStream::new(move |items| async move { numbers(items, fails_at, &clean_up).await })
}

#[test]
fn p030_a_block_that_breaks_off_ends_after_its_producer() {
    conform(|_| async {
        let clean_up = CleanUp::default();
        let first = with_stream(
            async |items| numbers(items, None, &clean_up).await,
            async |stream: &mut LentStream<u32, Failure>| {
                let mut last = None;
                while let Some(item) = stream.next().await {
                    last = Some(item?);
                    if last == Some(2) {
                        break;
                    }
                }
                assert_eq!(clean_up.begun.get(), 0);
                Ok::<_, Failure>(last)
            },
        );
        assert_eq!(first.await.expect("it has all it wants"), Some(2));
        assert!(clean_up.is_over_once());
        // The same of one that is a task.
        let clean_up = Rc::default();
        let mut stream = owned(None, &clean_up);
        assert_eq!(
            stream.next().await.expect("a number").expect("no failure"),
            0
        );
        stream.close().await;
        assert!(clean_up.is_over_once());
    });
}

#[test]
fn p031_what_a_consumer_fails_with_is_what_comes_out() {
    conform(|_| async {
        let clean_up = CleanUp::default();
        let failed = with_stream(
            async |items| numbers(items, None, &clean_up).await,
            async |stream: &mut LentStream<u32, Failure>| {
                stream.next().await.expect("a number")?;
                Err::<(), _>(io::Error::other("enough"))
            },
        );
        assert_eq!(
            failed.await.expect_err("it has failed").to_string(),
            "enough"
        );
        assert!(clean_up.is_over_once());
        let clean_up = CleanUp::default();
        let panicked = with_stream(
            async |items| numbers(items, None, &clean_up).await,
            async |stream: &mut LentStream<u32, Failure>| {
                stream.next().await.expect("a number")?;
                // Not `panic!`, which would be told on standard error.
                resume_unwind(Box::new("enough"));
                #[expect(unreachable_code, reason = "says what it would return")]
                Ok::<(), Failure>(())
            },
        );
        let payload = AssertUnwindSafe(panicked).catch_unwind().await;
        let payload = payload.expect_err("it has panicked");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"enough"));
        assert!(clean_up.is_over_once());
        // A failure of the producer that the block has not met comes after the block's value.
        let late = with_stream(
            async |items: Items<u32, Failure>| {
                let left = items.send(1).await.and(items.send(2).await);
                assert!(left.is_err());
                Err(io::Error::other("the clean-up has failed"))
            },
            async |stream: &mut LentStream<u32, Failure>| stream.next().await.transpose(),
        );
        let late = late.await.expect_err("somebody has to be told");
        assert_eq!(late.to_string(), "the clean-up has failed");
    });
}

/// Sends what a session says, for as long as anybody listens.
async fn ask(lease: &Lease<Kind>, items: &Items<usize, CallError>) -> Result<(), CallError> {
    loop {
        let said = lease.call_here(async |session| Ok::<_, CallError>(session.number));
        items.send(said.await?).await?;
    }
}

#[test]
fn p032_a_stream_closes_what_it_opened_and_leaves_what_it_was_given() {
    conform(|_| async {
        let (pool, seen) = pool();
        let key = Key::new("any", "one");
        // One that opens its session.
        let inner = pool.clone();
        let name = key.clone();
        let mut stream = OwnedStream::new(move |items: Items<usize, CallError>| async move {
            let lease = inner.lease(&name).await.expect("a session");
            let asked = ask(&lease, &items).await;
            drop(lease);
            let closing = Scope::new().shielded();
            closing.run(inner.close_session(&name)).await?;
            asked
        });
        assert_eq!(stream.next().await, Some(Ok(0)));
        stream.close().await;
        assert_eq!((seen.opened(), seen.closed()), (1, 1));
        // One that is given a session.
        let lease = pool.lease(&key).await.expect("another");
        let first = with_stream(
            async |items: Items<usize, CallError>| ask(&lease, &items).await,
            async |stream: &mut LentStream<usize, CallError>| stream.next().await.transpose(),
        );
        assert_eq!(first.await, Ok(Some(1)));
        assert_eq!(seen.closed(), 1);
        assert_eq!(number(&lease).await, 1);
        drop(lease);
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn p033_a_stream_that_was_taken_to_its_end_has_cleaned_up_once() {
    conform(|_| async {
        let clean_up = Rc::<CleanUp>::default();
        let noted = Rc::clone(&clean_up);
        let mut stream = OwnedStream::new(move |items: Items<u32, Failure>| async move {
            items.send(1).await?;
            noted.run().await;
            Ok(())
        });
        assert_eq!(
            stream.next().await.expect("a number").expect("no failure"),
            1
        );
        assert!(stream.next().await.is_none());
        assert!(clean_up.is_over_once());
        assert!(stream.next().await.is_none(), "and that stays so");
        drop(stream);
        settle().await;
        assert!(clean_up.is_over_once());
    });
}

#[test]
fn p034_a_producer_that_fails_is_told_once_and_after_its_items() {
    conform(|_| async {
        let clean_up = Rc::default();
        let mut stream = owned(Some(2), &clean_up);
        for expected in 0..2 {
            let item = stream.next().await.expect("a number");
            assert_eq!(item.expect("no failure"), expected);
        }
        let failed = stream
            .next()
            .await
            .expect("an error")
            .expect_err("an error");
        assert_eq!(failed.to_string(), "out of numbers");
        assert!(stream.next().await.is_none());
        assert!(clean_up.is_over_once());
        // The same in a block.
        let clean_up = CleanUp::default();
        let seen = with_stream(
            async |items| numbers(items, Some(2), &clean_up).await,
            async |stream: &mut LentStream<u32, Failure>| {
                let mut seen = Vec::new();
                while let Some(item) = stream.next().await {
                    seen.push(item.map_err(|error| error.to_string()));
                }
                Ok::<_, Failure>(seen)
            },
        );
        let seen = seen.await.expect("the block has been told");
        assert_eq!(seen, [Ok(0), Ok(1), Err("out of numbers".to_owned())]);
        assert!(clean_up.is_over_once());
    });
}

#[test]
fn p035_of_two_streams_over_one_session_one_is_left_and_the_other_goes_on() {
    conform(|_| async {
        let (pool, _) = pool();
        let lease = Rc::new(pool.lease(&Key::new("any", "one")).await.expect("one"));
        let stream = || {
            let lease = Rc::clone(&lease);
            OwnedStream::new(move |items: Items<usize, CallError>| async move {
                ask(&lease, &items).await
            })
        };
        let (mut left, mut other) = (stream(), stream());
        assert_eq!(left.next().await, Some(Ok(0)));
        assert_eq!(other.next().await, Some(Ok(0)));
        drop(left);
        for _ in 0..100 {
            assert_eq!(other.next().await, Some(Ok(0)));
        }
        other.close().await;
        settle().await;
        drop(lease);
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn p036_a_stream_that_is_dropped_or_leaked_is_ended_by_its_core() {
    conform(|_| async {
        let clean_up = Rc::default();
        let mut stream = owned(None, &clean_up);
        let task = spawn(async move {
            let first = stream.next().await.expect("a number");
            first.expect("no failure")
        });
        assert_eq!(task.await.expect("no panic"), 0);
        assert_eq!(clean_up.over.get(), 0, "nobody has waited for it");
        while !clean_up.is_over_once() {
            sleep(Duration::from_millis(1))
                .await
                .expect("nobody cancels");
        }
    });
    // Leaked: the end of the runtime reaches it, and waits.
    let over = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let runtime = Runtime::builder().grace_period(Duration::from_secs(60));
    let runtime = runtime.build().expect("a runtime");
    let noted = std::sync::Arc::clone(&over);
    let leaked = runtime
        .handle()
        .spawn(runtime.handle().cores()[0], move || async move {
            let mut stream = OwnedStream::new(move |items: Items<u32, Failure>| async move {
                let left = items.send(1).await.and(items.send(2).await);
                CleanUp::default().run().await;
                noted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(left?)
            });
            stream.next().await.expect("a number").expect("no failure");
            std::mem::forget(stream);
        });
    leaked.expect("its core runs").wait().expect("no panic");
    drop(runtime);
    assert_eq!(over.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn p037_a_stream_that_nobody_asks_leaves_its_core_quiet() {
    conform(|handle| async move {
        let made = Rc::new(RefCell::new(Vec::new()));
        let noted = Rc::clone(&made);
        let mut stream = OwnedStream::new(move |items: Items<u32, Cancelled>| async move {
            for number in 0.. {
                noted.borrow_mut().push(number);
                items.send(number).await?;
            }
            Ok(())
        });
        settle().await;
        assert!(made.borrow().is_empty(), "it was not asked");
        assert_eq!(stream.next().await, Some(Ok(0)));
        settle().await;
        // One lies ready, and the producer waits with the next.
        assert_eq!(*made.borrow(), [0, 1, 2]);
        let polls = || handle.metrics()[0].polls;
        sleep(Duration::from_millis(20))
            .await
            .expect("nobody cancels");
        let before = polls();
        sleep(Duration::from_millis(20))
            .await
            .expect("nobody cancels");
        // This task's own, and nothing else.
        assert_eq!(polls() - before, 1);
        assert_eq!(*made.borrow(), [0, 1, 2]);
        stream.close().await;
    });
}

#[test]
fn combinators_of_others_work_with_a_stream() {
    conform(|_| async {
        let clean_up = Rc::default();
        let stream = owned(None, &clean_up);
        let taken: Vec<_> = stream
            .map_ok(|number| number * 2)
            .take(3)
            .try_collect()
            .await
            .expect("no failure");
        assert_eq!(taken, [0, 2, 4]);
        while !clean_up.is_over_once() {
            sleep(Duration::from_millis(1))
                .await
                .expect("nobody cancels");
        }
    });
}

#[test]
fn a_producer_that_panics_takes_its_consumer_with_it() {
    conform(|_| async {
        let mut stream = OwnedStream::new(move |items: Items<u32, Failure>| async move {
            items.send(1).await?;
            resume_unwind(Box::new("the producer"))
        });
        stream.next().await.expect("a number").expect("no failure");
        let panicked = AssertUnwindSafe(stream.next()).catch_unwind().await;
        let payload = panicked.expect_err("it has panicked");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"the producer"));
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn a_consumer_that_is_cancelled_can_ask_again() {
    conform(|_| async {
        let clean_up = Rc::default();
        let mut stream = OwnedStream::new(|items: Items<u32, Failure>| async move {
            sleep(Duration::from_millis(30)).await?;
            Ok(items.send(1).await?)
        });
        let scope = Scope::new().timeout(Duration::from_millis(1));
        let asked = scope.run(async { stream.next().await.transpose() }).await;
        assert!(matches!(asked, Ok(None)), "{asked:?}");
        assert_eq!(
            stream.next().await.expect("a number").expect("no failure"),
            1
        );
        drop((stream, owned(None, &clean_up)));
        assert_eq!(clean_up.begun.get(), 0, "it was never asked");
        settle().await;
    });
}

#[test]
fn a_producer_does_not_begin_for_a_consumer_that_is_refused() {
    conform(|_| async {
        let clean_up = Rc::new(CleanUp::default());
        let mut stream = owned(None, &clean_up);
        let scope = Scope::new();
        let asked = scope.run(async {
            scope.cancel();
            stream.next().await.transpose()
        });
        assert!(matches!(asked.await, Ok(None)));
        drop(stream);
        // What had been started would have its turn by then.
        settle().await;
        assert_eq!(clean_up.begun.get(), 0, "there is nothing to clean up");
        let mut stream = owned(None, &clean_up);
        let asked = Scope::new();
        asked.cancel();
        let asked = asked.run(async { stream.next().await.transpose() });
        assert!(matches!(asked.await, Ok(None)));
        let first = stream.next().await.expect("it goes on");
        assert_eq!(first.expect("an item"), 0);
        stream.close().await;
        assert!(clean_up.is_over_once());
    });
}

#[test]
fn a_producer_of_several_tasks_is_woken_as_a_whole() {
    conform(|_| async {
        let mut stream = OwnedStream::new(|items: Items<u32, GroupFailure>| async move {
            let items = Rc::new(items);
            let sent = group(async |tasks: Group<Cancelled>| {
                for _ in 0..2 {
                    let items = Rc::clone(&items);
                    drop(tasks.spawn(async move {
                        for number in 0..3 {
                            items.send(number).await?;
                        }
                        Ok(())
                    }));
                }
                Ok(())
            });
            sent.await.map(drop)
        });
        let mut taken = 0;
        while let Some(item) = stream.next().await {
            item.expect("no failure");
            taken += 1;
        }
        assert_eq!(taken, 6);
    });
}

type GroupFailure = quoit::GroupError<Cancelled>;

/// A crowd that sends: each is woken for its own turn alone, and served in the order in which it came.
#[test]
fn a_crowd_that_sends_is_served_in_order_and_woken_one_at_a_time() {
    const CROWD: u32 = 300;
    conform(|_| async {
        let polls = Rc::new(Cell::new(0));
        let noted = Rc::clone(&polls);
        let mut stream = OwnedStream::new(move |items: Items<u32, GroupFailure>| async move {
            let shared = Rc::new((items, Cell::new(0)));
            let sent = group(async |tasks: Group<Cancelled>| {
                for _ in 0..CROWD {
                    let (shared, polls) = (Rc::clone(&shared), Rc::clone(&noted));
                    drop(tasks.spawn(async move {
                        let (items, next) = &*shared;
                        let number = next.replace(next.get() + 1);
                        let mut sending = pin!(items.send(number));
                        let counted = poll_fn(|cx| {
                            polls.set(polls.get() + 1);
                            sending.as_mut().poll(cx)
                        });
                        counted.await
                    }));
                }
                Ok(())
            });
            sent.await.map(drop)
        });
        for number in 0..CROWD {
            let item = stream.next().await.expect("a number");
            assert_eq!(item.expect("no failure"), number);
        }
        assert!(stream.next().await.is_none());
        assert!(polls.get() <= 2 * CROWD, "{} polls", polls.get());
    });
}

#[test]
fn what_is_sent_into_reserved_room_waits_for_nobody_and_a_cancel_loses_nothing() {
    conform(|_| async {
        let kept = Rc::new(RefCell::new(None));
        let keep = Rc::clone(&kept);
        let mut stream = OwnedStream::new(move |items: Items<String, Cancelled>| async move {
            for number in 0.. {
                let item = number.to_string();
                match items.reserve().await {
                    Ok(permit) => permit.send(item),
                    Err(cancelled) => {
                        keep.replace(Some(item));
                        return Err(cancelled);
                    }
                }
            }
            Ok(())
        });
        assert_eq!(stream.next().await, Some(Ok("0".to_owned())));
        settle().await;
        stream.close().await;
        assert_eq!(kept.take().as_deref(), Some("2"), "1 lay there");
    });
}

#[test]
fn reserved_room_that_is_given_back_goes_to_the_next() {
    conform(|_| async {
        let mut stream = OwnedStream::new(async |items: Items<u32, Cancelled>| {
            let permit = items.reserve().await?;
            let mut next = pin!(items.send(1));
            assert!(tests::poll_once(next.as_mut()).await.is_pending());
            drop(permit);
            next.await?;
            assert!(!items.is_closed());
            Ok(())
        });
        assert_eq!(stream.next().await, Some(Ok(1)));
        assert_eq!(stream.next().await, None);
    });
}

/// A task that has items from the producer, and outlives it, is told nothing of that, but to look.
#[test]
fn who_sends_to_nobody_lets_others_have_their_turn() {
    conform(|_| async {
        let is_over = Rc::new(Cell::new(false));
        let over = Rc::clone(&is_over);
        let mut stream = OwnedStream::new(move |items: Items<u32, Cancelled>| async move {
            let stranger = spawn(async move {
                while !items.is_closed() {
                    items.send(1).await.expect("nobody cancels it");
                }
                for _ in 0..100 {
                    items.send(2).await.expect("nobody cancels it");
                }
                over.set(true);
            });
            drop(stranger);
            quoit::sync::Event::new().wait().await
        });
        assert_eq!(stream.next().await, Some(Ok(1)));
        stream.close().await;
        let mut turns = 0;
        while !is_over.get() {
            turns += 1;
            quoit::yield_uncancellable().await;
        }
        assert!(turns > 10, "{turns} turns of others");
    });
}

#[test]
fn nothing_comes_after_the_end() {
    conform(|_| async {
        let kept = Rc::new(RefCell::new(None));
        let keep = Rc::clone(&kept);
        let mut stream = OwnedStream::new(move |items: Items<u32, Failure>| async move {
            items.send(1).await?;
            *keep.borrow_mut() = Some(items);
            Ok(())
        });
        assert_eq!(
            stream.next().await.expect("a number").expect("no failure"),
            1
        );
        assert!(stream.next().await.is_none());
        let items = kept.borrow_mut().take().expect("it was kept");
        items.send(7).await.expect("nobody cancels");
        assert!(stream.next().await.is_none());
    });
}

/// Notes in which kind of scope it is woken.
#[derive(Default)]
struct Noting {
    wakes: AtomicU32,
    is_cancelled: AtomicBool,
}

impl Wake for Noting {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.is_cancelled
            .fetch_or(quoit::is_cancelled(), Ordering::Relaxed);
    }
}

impl Noting {
    fn was_woken_outside_of_scopes(&self) -> bool {
        let wakes = self.wakes.load(Ordering::Relaxed);
        wakes == 1 && !self.is_cancelled.load(Ordering::Relaxed)
    }
}

#[test]
fn a_waker_sees_no_scope_of_whoever_sends_an_item_or_gives_a_session_back() {
    conform(|_| async {
        // Sent in a cancelled scope.
        let go = Rc::new(quoit::sync::Event::new());
        let may_go = Rc::clone(&go);
        let mut stream = OwnedStream::new(move |items: Items<u32, Cancelled>| async move {
            may_go.wait().await?;
            let permit = items.reserve().await?;
            let scope = Scope::new();
            let sending = scope.run(async {
                scope.cancel();
                permit.send(1);
                quoit::check()
            });
            sending.await.map(drop)
        });
        let consumer = Arc::new(Noting::default());
        let waker = Waker::from(Arc::clone(&consumer));
        let asked = stream.poll_next_unpin(&mut Context::from_waker(&waker));
        assert!(asked.is_pending());
        settle().await;
        go.set();
        settle().await;
        assert!(consumer.was_woken_outside_of_scopes());
        assert_eq!(stream.next().await, Some(Ok(1)));
        assert_eq!(stream.next().await, None);
        // Given back in one.
        let (pool, key) = (pool().0, Key::new("any", "one"));
        let lease = pool.lease_exclusive(&key).await.expect("a session");
        let caller = Arc::new(Noting::default());
        let waker = Waker::from(Arc::clone(&caller));
        let mut waiting = pin!(pool.lease_exclusive(&key));
        let asked = waiting.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(asked.is_pending());
        let scope = Scope::new();
        let giving_back = scope.run(async {
            scope.cancel();
            drop(lease);
            quoit::check()
        });
        assert!(matches!(giving_back.await, Ok(None)));
        assert!(caller.was_woken_outside_of_scopes());
        drop(waiting.await.expect("it is handed over"));
        pool.close_all().await.expect("nobody cancels");
    });
}

thread_local! {
    /// What a [`Meddler`] sends with.
    static ITEMS: RefCell<Option<Rc<Items<u32, Cancelled>>>> = const { RefCell::new(None) };
}

/// Sends an item when it is dropped, as a part of a waker.
struct Meddler;

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Meddler {
    fn drop(&mut self) {
        let items = ITEMS.take().expect("it meddles once");
        let sent = pin!(items.send(7)).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(sent, Poll::Ready(Ok(())));
    }
}

#[test]
fn a_waker_may_use_the_stream_that_drops_it() {
    conform(|_| async {
        let mut stream = OwnedStream::new(async |items: Items<u32, Cancelled>| {
            ITEMS.set(Some(Rc::new(items)));
            quoit::sync::Event::new().wait().await
        });
        let mut polled_with =
            |waker: &Waker| stream.poll_next_unpin(&mut Context::from_waker(waker));
        // Begins the producer.
        assert!(polled_with(Waker::noop()).is_pending());
        settle().await;
        // The wait is aborted, and the stream keeps the last waker.
        let scope = Scope::new();
        let aborted = scope.run(async {
            assert!(polled_with(Waker::noop()).is_pending());
            scope.cancel();
            let meddler = Waker::from(Arc::new(Meddler));
            let polled = polled_with(&meddler);
            assert!(matches!(polled, Poll::Ready(Some(Err(_)))), "{polled:?}");
            Ok::<_, Cancelled>(())
        });
        aborted.await.expect("nobody else cancels");
        assert!(polled_with(Waker::noop()).is_pending());
        assert_eq!(polled_with(Waker::noop()), Poll::Ready(Some(Ok(7))));
        stream.close().await;
    });
}
