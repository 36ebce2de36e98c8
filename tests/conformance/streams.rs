//! Items on their way between tasks.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::buf::Interrupted;
use quoit::sim::explore;
use quoit::sync::channel::{self, SendError, TrySendError};
use quoit::sync::{Event, TryRecvError, broadcast, oneshot, watch};
use quoit::time::sleep;
use quoit::{CarriesCancelled, Group, Scope, check, group, spawn, yield_now};
use tests::{Counted, Drops, Kernel, both_ends, both_streams, conform, park_once, poll_once};

use super::support::watched;
use super::waiters::{both, next_op_is_refused, nothing_is_left, until, waiter};

// --- C118: a receiver that was cancelled is in nobody's way ---

#[test]
fn c118_a_send_finds_no_receiver_where_one_was_cancelled() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            for polled_before in [false, true] {
                let (sender, receiver) = channel::bounded(capacity);
                let other = receiver.clone();
                let waits = waiter(async move { Ok(receiver.recv().await?) });
                until(|| other.waiting() == 1).await;
                waits.cancel();
                if polled_before {
                    park_once(&handle).await;
                    assert_eq!(other.waiting(), 0, "it is unlinked");
                }
                let sent = sender.try_send(7);
                if capacity == 0 {
                    assert_eq!(sent, Err(TrySendError::Full(7)));
                    assert_eq!(other.try_recv(), Err(TryRecvError::Empty));
                } else {
                    assert_eq!(sent, Ok(()));
                    assert_eq!(other.try_recv(), Ok(7));
                }
                assert_eq!(waits.end_after(2).await, None);
                assert_eq!((other.waiting(), other.len()), (0, 0));
            }
        }
        nothing_is_left(&handle).await;
    });
}

// --- C119: handed over or aborted, whichever came first ---

#[test]
fn c119_an_item_that_was_handed_over_first_is_returned() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            let (sender, receiver) = channel::bounded(capacity);
            let other = receiver.clone();
            let seen = Rc::new(Cell::new(None));
            let inside = Rc::clone(&seen);
            let waits = waiter(async move {
                let item = receiver.recv().await?;
                next_op_is_refused(item, &inside).await
            });
            until(|| other.waiting() == 1).await;
            sender.try_send(7).expect("somebody waits for it");
            waits.cancel();
            assert_eq!(other.try_recv(), Err(TryRecvError::Empty), "it is promised");
            assert_eq!(waits.end_after(2).await, None);
            assert_eq!(seen.take(), Some(Some(7)));
            assert_eq!(other.try_recv(), Err(TryRecvError::Empty));
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c119_a_receiver_that_was_cancelled_first_is_skipped() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            let (sender, receiver) = channel::bounded(capacity);
            let (first, second) = (receiver.clone(), receiver.clone());
            let cancelled = waiter(async move { Ok(first.recv().await?) });
            until(|| receiver.waiting() == 1).await;
            let next = waiter(async move { Ok(second.recv().await?) });
            until(|| receiver.waiting() == 2).await;
            cancelled.cancel();
            sender.try_send(7).expect("the next waits for it");
            assert_eq!(cancelled.end_after(2).await, None);
            assert_eq!(next.end_after(2).await, Some(Some(7)));
            assert_eq!((receiver.waiting(), receiver.len()), (0, 0));
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c119_every_order_of_send_cancel_and_receive_delivers_once() {
    for capacity in [0, 1] {
        let explored = explore(20_000, |sim| {
            sim.block_on(async {
                let (sender, receiver) = channel::bounded(capacity);
                let got = Rc::new(RefCell::new(Vec::new()));
                let takes = |receiver: channel::Receiver<i32>| {
                    let got = Rc::clone(&got);
                    async move {
                        let item = receiver.recv().await?;
                        got.borrow_mut().extend(item);
                        Ok(())
                    }
                };
                let cancelled = waiter(takes(receiver.clone()));
                let stays = waiter(takes(receiver.clone()));
                let scope = cancelled.scope;
                drop(spawn(async move { scope.cancel() }));
                let sends = waiter(async move {
                    sender.send(1).await.map_err(io::Error::from)?;
                    // The receiver that was not cancelled gets this, or the end.
                    let second = sender.try_send(2);
                    Ok(second.is_ok())
                });
                let both_sent = sends.end().await.expect("not cancelled");
                cancelled.end().await;
                stays.end().await.expect("not cancelled");
                let mut all = got.take();
                while let Ok(item) = receiver.try_recv() {
                    all.push(item);
                }
                let expected: &[i32] = if both_sent { &[1, 2] } else { &[1] };
                assert_eq!(all, expected, "each once, in order");
                assert_eq!(receiver.waiting(), 0);
            });
        });
        assert!(explored.complete && explored.orders > 10, "{explored:?}");
    }
}

// --- C120: a sender that was cancelled has sent nothing ---

#[test]
fn c120_a_cancelled_send_gives_its_item_back_and_the_others_keep_their_order() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            for polled_before in [false, true] {
                let (sender, receiver) = channel::bounded(capacity);
                for item in 0..capacity {
                    sender.try_send(item).expect("there is room");
                }
                let back = Rc::new(Cell::new(None));
                let mut senders = Vec::new();
                for item in 10..15 {
                    let (ours, back) = (sender.clone(), Rc::clone(&back));
                    senders.push(waiter(async move {
                        let sent = ours.send(item).await;
                        if let Err(SendError::Cancelled(item, _)) = sent {
                            back.set(Some(item));
                        }
                        Ok(sent?)
                    }));
                    until(|| sender.waiting() == senders.len()).await;
                }
                senders[2].cancel();
                if polled_before {
                    park_once(&handle).await;
                }
                let mut received = Vec::new();
                while received.len() < capacity + 4 {
                    received.extend(receiver.recv().await.expect("nobody cancels"));
                }
                let expected: Vec<_> = (0..capacity).chain([10, 11, 13, 14]).collect();
                assert_eq!(received, expected);
                for (place, sender) in senders.into_iter().enumerate() {
                    assert_eq!(sender.end_after(2).await.is_some(), place != 2);
                }
                assert_eq!(back.get(), Some(12));
                assert_eq!((sender.waiting(), receiver.len()), (0, 0));
            }
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c120_an_item_that_was_taken_first_is_sent() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            let (sender, receiver) = channel::bounded(capacity);
            for item in 0..capacity {
                sender.try_send(item).expect("there is room");
            }
            let seen = Rc::new(Cell::new(None));
            let (inside, ours) = (Rc::clone(&seen), sender.clone());
            let sends = waiter(async move {
                ours.send(10).await?;
                next_op_is_refused((), &inside).await
            });
            until(|| sender.waiting() == 1).await;
            assert_eq!(receiver.try_recv(), Ok(if capacity == 0 { 10 } else { 0 }));
            sends.cancel();
            assert_eq!(sends.end_after(2).await, None);
            assert_eq!(seen.take(), Some(()));
            assert_eq!(receiver.try_recv().ok(), (capacity == 1).then_some(10));
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c120_a_send_in_a_cancelled_scope_sends_nothing_though_there_is_room() {
    conform(|_| async {
        let (sender, receiver) = channel::bounded(1);
        let scope = Scope::new();
        let handle = scope.handle();
        let outcome = scope
            .run(async {
                handle.cancel();
                let error = sender.send(7).await.expect_err("the scope is cancelled");
                assert!(error.cancelled().is_some());
                assert_eq!(error.into_inner(), 7);
                sender.send(8).await?;
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "an error of a send is taken");
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn c120_an_op_in_a_cancelled_scope_receives_nothing_though_an_item_is_there() {
    conform(|_| async {
        let (sender, receiver) = channel::bounded(1);
        let (news, mut reader) = broadcast::bounded(1);
        let (level, mut watcher) = watch::channel(0);
        let (one, mut other) = oneshot::channel();
        sender.try_send(7).expect("room");
        news.send(7).expect("a receiver");
        level.send(7);
        one.send(7).expect("a receiver");
        let scope = Scope::new();
        scope.handle().cancel();
        let outcome = scope
            .run(async {
                assert!(receiver.recv().await.is_err());
                assert!(matches!(
                    reader.recv().await,
                    Err(broadcast::RecvError::Cancelled(_))
                ));
                assert!(watcher.changed().await.is_err());
                let refused = other.recv().await;
                assert!(matches!(refused, Err(oneshot::RecvError::Cancelled(_))));
                refused
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert_eq!(receiver.recv().await, Ok(Some(7)));
        assert_eq!(reader.recv().await, Ok(Some(7)));
        assert_eq!(watcher.changed().await.expect("open").as_deref(), Some(&7));
        assert_eq!(other.recv().await, Ok(7));
    });
}

// --- C121: an item's destructor runs once ---

#[test]
fn c121_every_order_of_hand_over_and_two_cancels_drops_the_item_once() {
    for capacity in [0, 1] {
        let explored = explore(20_000, |sim| {
            let drops = Drops::new();
            sim.block_on(async {
                let (sender, receiver) = channel::bounded(capacity);
                let item = drops.value();
                let receives = waiter(async move {
                    let item: Option<Counted> = receiver.recv().await?;
                    yield_now().await?;
                    Ok(item.is_some())
                });
                let sends = waiter(async move {
                    match sender.send(item).await {
                        // The receiver is gone.
                        Err(SendError::Closed(item)) => drop(item),
                        sent => sent?,
                    }
                    yield_now().await?;
                    Ok(())
                });
                for scope in [sends.scope, receives.scope] {
                    drop(spawn(async move { scope.cancel() }));
                }
                sends.end().await;
                receives.end().await;
            });
            assert_eq!((drops.dropped(), drops.alive()), (1, 0));
        });
        assert!(explored.complete && explored.orders > 10, "{explored:?}");
    }
}

#[test]
fn c121_an_item_in_hand_over_is_dropped_once_with_its_channel() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            let drops = Drops::new();
            let (sender, receiver) = channel::bounded(capacity);
            {
                let mut wait = pin!(receiver.recv());
                assert!(poll_once(wait.as_mut()).await.is_pending());
                sender.try_send(drops.value()).expect("somebody waits");
                // Promised, and dropped before it looked.
            }
            assert_eq!(drops.alive(), 1);
            drop(receiver);
            assert_eq!(drops.alive(), 0);
            assert!(matches!(
                sender.try_send(drops.value()),
                Err(TrySendError::Closed(_))
            ));
            assert_eq!((drops.dropped(), drops.alive()), (2, 0));
        }
        // In a sender's hands, and dropped with its wait.
        let drops = Drops::new();
        let (sender, _receiver) = channel::bounded(0);
        {
            let mut wait = pin!(sender.send(drops.value()));
            assert!(poll_once(wait.as_mut()).await.is_pending());
        }
        assert_eq!((drops.dropped(), sender.waiting()), (1, 0));
        nothing_is_left(&handle).await;
    });
}

/// What it does when it is dropped.
struct Calls<F: FnMut()>(F);

impl<F: FnMut()> Drop for Calls<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn c121_a_destructor_may_use_the_channel_it_came_from() {
    conform(|handle| async move {
        type Item = Calls<Box<dyn FnMut()>>;
        let calls = Rc::new(Cell::new(0));
        let (sender, receiver) = channel::bounded::<Item>(2);
        let item = || {
            let (sender, calls) = (sender.clone(), Rc::clone(&calls));
            Calls(Box::new(move || {
                calls.set(calls.get() + 1);
                if calls.get() < 10 {
                    let refuses = sender.is_closed() || sender.len() == 2;
                    let again = sender.try_send(Calls(Box::new(|| {})));
                    assert_eq!(again.is_err(), refuses);
                }
            }) as Box<dyn FnMut()>)
        };
        sender.send(item()).await.expect("room");
        sender.send(item()).await.expect("room");
        drop(receiver.recv().await);
        {
            let mut wait = pin!(sender.send(item()));
            assert!(poll_once(wait.as_mut()).await.is_pending());
        }
        drop(receiver);
        assert_eq!(calls.get(), 3);

        let (news, mut first) = broadcast::bounded(1);
        let second = first.clone();
        let inside = news.clone();
        let cry = Rc::new(Calls(Box::new(move || {
            assert!(inside.send(None).is_ok());
        }) as Box<dyn FnMut()>));
        assert!(news.send(Some(cry)).is_ok());
        drop(first.recv().await);
        drop(second);
        assert!(matches!(first.recv().await, Ok(Some(None))));

        let (level, watcher) = watch::channel(None::<Item>);
        let inside = watcher.clone();
        level.send(Some(Calls(Box::new(move || {
            assert!(inside.latest().is_none())
        }))));
        level.send(None);
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c121_a_destructor_that_panics_takes_no_wake_with_it() {
    conform(|handle| async move {
        let (sender, receiver) = channel::bounded(1);
        sender
            .try_send(Some(Calls(|| panic!("on purpose"))))
            .expect("room");
        let ours = sender.clone();
        let closed = waiter(async move {
            let refused = ours.send(None).await;
            Ok(matches!(refused, Err(SendError::Closed(None))))
        });
        until(|| sender.waiting() == 1).await;
        let drops = spawn(async move { drop(receiver) });
        assert!(drops.await.is_err(), "it panicked");
        assert_eq!(closed.end_after(2).await, Some(true));
        nothing_is_left(&handle).await;
    });
}

// --- C122: a consumer that has enough ---

#[test]
fn c122_a_producer_whose_consumer_has_left_finds_the_channel_closed_and_cleans_up() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            let cleaned = Rc::new(Cell::new(false));
            let (sender, receiver) = channel::bounded(capacity);
            let inside = Rc::clone(&cleaned);
            let producer = waiter(async move {
                let mut item = 0;
                let back = loop {
                    match sender.send(item).await {
                        Ok(()) => item += 1,
                        Err(SendError::Closed(back)) => break back,
                        Err(error) => return Err(error.into()),
                    }
                };
                yield_now().await?;
                inside.set(true);
                Ok(back)
            });
            let first = async {
                let first = receiver.recv().await?;
                drop(receiver);
                Ok::<_, io::Error>(first)
            };
            assert!(matches!(first.await, Ok(Some(0))));
            let back = producer.end().await;
            assert!(back.is_some_and(|item| item > 0), "it has its item back");
            assert!(cleaned.get(), "the block ends after the producer");
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c122_a_producer_that_is_cancelled_by_its_consumer_cleans_up() {
    conform(|handle| async move {
        let cleaned = Rc::new(Cell::new(false));
        let (sender, receiver) = channel::bounded(0);
        let inside = Rc::clone(&cleaned);
        let producer = waiter(async move {
            let _clean_up = Calls(move || inside.set(true));
            for item in 0.. {
                sender.send(item).await?;
            }
            Ok(())
        });
        assert_eq!(receiver.recv().await, Ok(Some(0)));
        producer.cancel();
        assert_eq!(producer.end().await, None);
        assert!(cleaned.get());
        assert_eq!(receiver.recv().await, Ok(None));
        nothing_is_left(&handle).await;
    });
}

/// A producer that sends until it is stopped, and whose clean-up takes a while.
async fn produces(sender: channel::Sender<i32>, cleaned: Rc<Cell<u32>>) -> io::Result<()> {
    let mut item = 0;
    let ended = loop {
        match sender.send(item).await {
            Ok(()) => item += 1,
            Err(SendError::Closed(_)) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    let clean_up = Scope::new().shielded();
    clean_up.run(sleep(Duration::from_millis(5))).await?;
    cleaned.set(cleaned.get() + 1);
    ended
}

#[test]
fn c122_a_block_that_is_left_after_its_first_item_ends_after_its_producer() {
    conform(|handle| async move {
        for (capacity, cancels) in [(0, false), (0, true), (1, false), (1, true)] {
            let cleaned = Rc::new(Cell::new(0));
            let (sender, receiver) = channel::bounded(capacity);
            let inside = Rc::clone(&cleaned);
            let block = group(async |g: Group<io::Error>| {
                g.spawn(produces(sender, inside));
                let first = receiver.recv().await?;
                // It leaves the producer to the cancel, or to the end of the channel.
                if cancels {
                    g.cancel();
                } else {
                    drop(receiver);
                }
                Ok(first)
            });
            assert_eq!(block.await.expect("nothing failed"), Some(Some(0)));
            assert_eq!(cleaned.get(), 1, "the block ends after its producer");
        }
        nothing_is_left(&handle).await;
    });
}

// --- C123: both sides in one scope ---

#[test]
fn c123_a_consumer_at_work_and_its_producer_both_clean_up_before_their_block_ends() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            let cleaned = Rc::new(Cell::new(0));
            let (sender, receiver) = channel::bounded(capacity);
            let scope = Scope::new();
            let cancel = scope.handle();
            let inside = Rc::clone(&cleaned);
            let outcome = scope
                .run(group(async |g: Group<io::Error>| {
                    let line = sender.clone();
                    g.spawn(produces(sender, Rc::clone(&inside)));
                    let _item = receiver.recv().await?;
                    // The producer waits with its next one.
                    until(|| line.waiting() == 1).await;
                    cancel.cancel();
                    let work = sleep(Duration::from_secs(3600)).await;
                    assert_eq!(inside.get(), 0, "it has only been told");
                    let clean_up = Scope::new().shielded();
                    clean_up.run(sleep(Duration::from_millis(1))).await?;
                    inside.set(inside.get() + 1);
                    Ok(work?)
                }))
                .await;
            assert!(matches!(outcome, Ok(None)), "absorbed: {outcome:?}");
            assert!(scope.cancelled().is_some());
            assert_eq!(cleaned.get(), 2);
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c123_a_cancel_ends_consumer_and_producer_once_each() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            let refusals = Cell::new(0);
            let (sender, receiver) = channel::bounded(capacity);
            let working = Event::new();
            let for_ever = Event::new();
            let scope = Scope::new();
            let scope_handle = scope.handle();
            let produce = async {
                let mut item = 0;
                loop {
                    if let Err(error) = sender.send(item).await {
                        assert!(error.cancelled().is_some());
                        refusals.set(refusals.get() + 1);
                        return Err(io::Error::from(error));
                    }
                    item += 1;
                }
            };
            let consume = async {
                let _item = receiver.recv().await?;
                working.set();
                let cancelled = for_ever.wait().await.expect_err("it never happens");
                refusals.set(refusals.get() + 1);
                Err::<(), _>(io::Error::from(cancelled))
            };
            let cancel = async {
                working.wait().await.expect("nobody cancels this one");
                // The producer waits as well by now: nobody takes its next item.
                until(|| sender.waiting() == 1).await;
                scope_handle.cancel();
            };
            let run = scope.run(async {
                let (produced, consumed): (io::Result<()>, _) = both(produce, consume).await;
                assert!(produced.is_err_and(|error| error.cancelled().is_some()));
                consumed
            });
            let (outcome, ()) = both(run, cancel).await;
            assert!(matches!(outcome, Ok(None)), "absorbed");
            assert_eq!(refusals.get(), 2, "one X each");
            assert_eq!((sender.waiting(), receiver.waiting()), (0, 0));
        }
        nothing_is_left(&handle).await;
    });
}

// --- C124: a wait that is dropped ---

#[test]
fn c124_a_dropped_wait_swallows_nothing() {
    conform(|handle| async move {
        for capacity in [0, 1] {
            let (sender, receiver) = channel::bounded(capacity);
            for handed_over in [false, true] {
                {
                    let mut dead = pin!(receiver.recv());
                    assert!(poll_once(dead.as_mut()).await.is_pending());
                    if handed_over {
                        sender.try_send(1).expect("somebody waits");
                    }
                }
                assert_eq!(receiver.waiting(), 0, "unlinked");
                let mut next = pin!(receiver.recv());
                if !handed_over {
                    assert!(poll_once(next.as_mut()).await.is_pending());
                    sender.try_send(1).expect("somebody waits");
                }
                assert_eq!(poll_once(next.as_mut()).await, Poll::Ready(Ok(Some(1))));
            }
        }
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c124_what_a_dropped_wait_was_promised_goes_to_the_next_in_line() {
    conform(|handle| async move {
        let (sender, receiver) = channel::bounded(2);
        let other = receiver.clone();
        let mut first = Box::pin(receiver.recv());
        let mut second = Box::pin(receiver.recv());
        assert!(poll_once(first.as_mut()).await.is_pending());
        assert!(poll_once(second.as_mut()).await.is_pending());
        let third = waiter(async move { Ok(other.recv().await?) });
        until(|| receiver.waiting() == 3).await;
        sender.try_send(1).expect("room");
        sender.try_send(2).expect("room");
        drop(first);
        drop(second);
        assert_eq!(
            third.end_after(2).await,
            Some(Some(1)),
            "in the order of the sends"
        );
        assert_eq!(receiver.try_recv(), Ok(2));
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c124_the_end_is_told_when_no_promise_is_left() {
    conform(|handle| async move {
        let (sender, receiver) = channel::bounded(1);
        let other = receiver.clone();
        let mut first = Box::pin(receiver.recv());
        assert!(poll_once(first.as_mut()).await.is_pending());
        let second = waiter(async move { Ok((other.recv().await?, other.recv().await?)) });
        until(|| receiver.waiting() == 2).await;
        sender.try_send(1).expect("room");
        drop(sender);
        park_once(&handle).await;
        assert_eq!(second.polls(), 1, "an item may still come to it");
        drop(first);
        assert_eq!(second.end_after(2).await, Some((Some(1), None)));
        nothing_is_left(&handle).await;
    });
}

#[test]
fn c124_a_dropped_wait_for_news_or_a_value_loses_neither() {
    conform(|handle| async move {
        let (news, mut reader) = broadcast::bounded(1);
        let (level, mut watcher) = watch::channel(0);
        let (one, mut other) = oneshot::channel();
        {
            let (mut news_comes, mut changes, mut comes) = (
                pin!(reader.recv()),
                pin!(watcher.changed()),
                pin!(other.recv()),
            );
            assert!(poll_once(news_comes.as_mut()).await.is_pending());
            assert!(poll_once(changes.as_mut()).await.is_pending());
            assert!(poll_once(comes.as_mut()).await.is_pending());
            news.send(7).expect("a receiver");
            level.send(7);
            one.send(7).expect("a receiver");
        }
        assert_eq!(reader.recv().await, Ok(Some(7)));
        assert_eq!(watcher.changed().await.expect("open").as_deref(), Some(&7));
        assert_eq!(other.recv().await, Ok(7));
        nothing_is_left(&handle).await;
    });
}

// --- the end of a channel ---

#[test]
fn the_last_sender_wakes_every_receiver_once() {
    conform(|handle| async move {
        let (sender, receiver) = channel::bounded::<i32>(1);
        let waits: Vec<_> = (0..3)
            .map(|_| {
                let receiver = receiver.clone();
                waiter(async move { Ok(receiver.recv().await?) })
            })
            .collect();
        until(|| receiver.waiting() == 3).await;
        let last = sender.clone();
        drop(sender);
        park_once(&handle).await;
        assert_eq!(receiver.waiting(), 3);
        drop(last);
        for waits in waits {
            assert_eq!(waits.end_after(2).await, Some(None));
        }
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
        nothing_is_left(&handle).await;
    });
}

#[test]
fn a_channel_that_is_closed_by_its_receiver_can_be_emptied() {
    conform(|handle| async move {
        let (sender, receiver) = channel::bounded(1);
        sender.try_send(1).expect("room");
        let ours = sender.clone();
        let sends = waiter(async move { Ok(ours.send(2).await) });
        until(|| sender.waiting() == 1).await;
        receiver.close();
        assert_eq!(sends.end_after(2).await, Some(Err(SendError::Closed(2))));
        assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
        assert_eq!(receiver.recv().await, Ok(Some(1)));
        assert_eq!(receiver.recv().await, Ok(None));
        nothing_is_left(&handle).await;
    });
}

#[test]
fn a_oneshot_tells_each_side_of_the_end_of_the_other() {
    conform(|handle| async move {
        let (mut sender, receiver) = oneshot::channel::<i32>();
        let closes = waiter(async move {
            sender.closed().await?;
            Ok(sender.send(1))
        });
        park_once(&handle).await;
        drop(receiver);
        assert_eq!(closes.end_after(2).await, Some(Err(1)));

        let (sender, mut receiver) = oneshot::channel::<i32>();
        let ends = waiter(async move { Ok(receiver.recv().await) });
        park_once(&handle).await;
        drop(sender);
        assert_eq!(
            ends.end_after(2).await,
            Some(Err(oneshot::RecvError::Closed))
        );
        nothing_is_left(&handle).await;
    });
}

#[test]
fn a_slow_receiver_is_told_how_many_items_it_lost() {
    conform(|handle| async move {
        let (news, mut slow) = broadcast::bounded(2);
        let mut quick = news.subscribe();
        let mut seen = Vec::new();
        for item in 0..5 {
            assert_eq!(news.send(item), Ok(2));
            seen.extend(quick.recv().await.expect("it keeps up"));
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!(slow.recv().await, Err(broadcast::RecvError::Lagged(3)));
        assert_eq!(slow.recv().await, Ok(Some(3)));
        drop(news);
        assert_eq!(slow.recv().await, Ok(Some(4)));
        assert_eq!(slow.recv().await, Ok(None));
        assert_eq!(quick.recv().await, Ok(None));
        assert!(check().is_ok());
        nothing_is_left(&handle).await;
    });
}

#[test]
fn news_wake_each_receiver_once_and_one_that_was_cancelled_first_not_again() {
    conform(|handle| async move {
        let (news, reader) = broadcast::bounded(4);
        let mut reads: Vec<_> = (0..3)
            .map(|_| {
                let mut reader = reader.clone();
                waiter(async move { reader.recv().await.map_err(io::Error::from) })
            })
            .collect();
        park_once(&handle).await;
        reads[1].cancel();
        news.send(1).expect("receivers");
        news.send(2).expect("receivers");
        let cancelled = reads.remove(1);
        assert_eq!(cancelled.end_after(2).await, None);
        for read in reads {
            assert_eq!(read.end_after(2).await, Some(Some(1)));
        }
        nothing_is_left(&handle).await;
    });
}

/// An item that is promised and not taken yet is older than one that a sender still has.
#[test]
fn a_receiver_that_comes_by_does_not_take_the_newer_item() {
    conform(|handle| async move {
        let (sender, receiver) = channel::bounded(0);
        let mut first = pin!(receiver.recv());
        assert!(poll_once(first.as_mut()).await.is_pending());
        sender.try_send(1).expect("somebody waits");
        let mut second = pin!(sender.send(2));
        assert!(poll_once(second.as_mut()).await.is_pending());
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(poll_once(first.as_mut()).await, Poll::Ready(Ok(Some(2))));
        assert_eq!(poll_once(second.as_mut()).await, Poll::Ready(Ok(())));
        nothing_is_left(&handle).await;
    });
}

/// Returns how many bytes were transferred before the cancel.
fn transferred(error: &io::Error) -> usize {
    assert!(error.cancelled().is_some(), "{error}");
    let inner = error.get_ref().expect("an error of ours");
    let interrupted: &Interrupted = inner.downcast_ref().expect("some bytes were transferred");
    interrupted.transferred
}

#[test]
fn c125_cancelled_read_says_how_much_came_and_the_next_goes_on_behind() {
    conform(|_| async {
        let (ours, theirs) = both_ends().await;
        let sent: Vec<u8> = (0..120).collect();
        let (first, rest) = (sent[..40].to_vec(), sent[40..].to_vec());
        let scope = Scope::new();
        let cancel = scope.handle();
        let (read, polls) = watched(ours.read_exact(Vec::with_capacity(100)));
        let partner = spawn(async move {
            theirs.write_all(first).await.0?;
            // It has looked at them, and waits for more.
            while polls.get() < 2 {
                yield_now().await?;
            }
            cancel.cancel();
            Ok::<_, io::Error>(theirs)
        });
        let body = async {
            let (outcome, buf) = read.await;
            let error = outcome.expect_err("it was cancelled");
            assert_eq!(transferred(&error), buf.len());
            Ok::<_, io::Error>(buf)
        };
        let mut received = scope.run(body).await.expect("no error").expect("a value");
        if Kernel::here().counts_exactly() {
            assert_eq!(received.len(), 40);
        }
        let theirs = partner.await.expect("it ended").expect("nobody cancels it");
        theirs.write_all(rest).await.0.expect("room");
        let left = Vec::with_capacity(sent.len() - received.len());
        let (outcome, rest) = ours.read_exact(left).await;
        outcome.expect("it is all there");
        received.extend(rest);
        assert_eq!(received, sent);
    });
}

#[test]
fn c125_cancelled_write_says_how_much_went_out_and_gives_its_buffer_back() {
    conform(|_| async {
        let (ours, theirs) = both_streams().await;
        // More than both sides take, of bytes that tell their place.
        let sent: Vec<u8> = (0..4 << 20).map(|place: u32| (place % 251) as u8).collect();
        let scope = Scope::new().timeout(Duration::from_millis(5));
        let body = async {
            let (outcome, buf) = ours.send_all(sent).await;
            let error = outcome.expect_err("nobody receives");
            Ok::<_, io::Error>((transferred(&error), buf))
        };
        let ended = scope.run(body).await;
        let (went_out, buf) = ended.expect("no error").expect("a value");
        assert!((1..4 << 20).contains(&went_out) && buf.len() == 4 << 20);
        drop(ours);
        let mut received = Vec::new();
        while let Some(chunk) = theirs.receive().await.expect("no error") {
            received.extend_from_slice(&chunk);
        }
        assert!(received == buf[..went_out], "what went out is what is told");
    });
}
