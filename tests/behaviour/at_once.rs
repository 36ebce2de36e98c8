//! What cores share and is there each time it is asked for: others have their turns all the same.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::sync::shared::{Mutex, Semaphore, channel};
use quoit::{Cancelled, Scope, spawn, yield_now};
use tests::{on_core, on_ring, poll_once};

/// So much a task has in one poll, before it lets others go first.
const AT_ONCE: usize = 256;

/// Runs a body beside another task, which asks for a turn whenever it has had one. Returns how often the body was
/// polled, and how many turns the other had meanwhile.
async fn polls_and_turns(body: impl Future<Output = ()>) -> (u32, u32) {
    let turns = Rc::new(Cell::new(0));
    let counted = Rc::clone(&turns);
    let other = spawn(async move {
        while Rc::strong_count(&counted) > 1 {
            counted.set(counted.get() + 1);
            yield_now().await.expect("nobody cancels");
        }
    });
    let (mut polls, mut body) = (0, pin!(body));
    poll_fn(|cx| {
        polls += 1;
        body.as_mut().poll(cx)
    })
    .await;
    let seen = turns.get();
    drop(turns);
    other.await.expect("no panic");
    (polls, seen)
}

/// Checks that a body which has `count` at once is polled as often as that says, and others between its polls.
async fn is_shared_out(body: impl Future<Output = ()>, count: usize) {
    let (polls, turns) = polls_and_turns(body).await;
    assert_eq!(polls as usize, count.div_ceil(AT_ONCE));
    assert!(turns + 1 >= polls, "{turns} turns in {polls} polls");
}

const MANY: usize = 4 * AT_ONCE;

fn filled(count: usize) -> (channel::Sender<usize>, channel::Receiver<usize>) {
    let (sender, receiver) = channel::bounded(count);
    for item in 0..count {
        sender.try_send(item).expect("there is room");
    }
    (sender, receiver)
}

#[test]
fn who_receives_what_is_there_lets_others_go_first() {
    on_core(|_| async {
        for count in [1, AT_ONCE, AT_ONCE + 1, MANY] {
            let (_sender, receiver) = filled(count);
            let body = async {
                for item in 0..count {
                    assert_eq!(receiver.recv().await, Ok(Some(item)));
                }
            };
            is_shared_out(body, count).await;
        }
    });
}

#[test]
fn who_sends_where_there_is_room_lets_others_go_first() {
    on_core(|_| async {
        let (sender, receiver) = channel::bounded(MANY);
        let body = async {
            for item in 0..MANY {
                sender.send(item).await.expect("there is room");
            }
        };
        is_shared_out(body, MANY).await;
        assert_eq!(receiver.len(), MANY);
    });
}

#[test]
fn items_count_that_come_and_go_together() {
    on_core(|_| async {
        let (sender, receiver) = channel::bounded(MANY);
        let batches = MANY / 64;
        let body = async {
            for batch in 0..batches {
                let mut items: VecDeque<_> = (0..64).map(|item| batch * 64 + item).collect();
                sender.send_many(&mut items).await.expect("there is room");
            }
        };
        is_shared_out(body, MANY).await;
        let mut items = Vec::new();
        let body = async {
            for _ in 0..batches {
                assert_eq!(receiver.recv_many(&mut items, 64).await, Ok(64));
            }
        };
        is_shared_out(body, MANY).await;
        assert!(items.into_iter().eq(0..MANY));
    });
}

#[test]
fn who_takes_what_is_free_lets_others_go_first() {
    on_core(|_| async {
        let (mutex, semaphore) = (Mutex::new(0), Semaphore::new(1));
        let locks = async {
            for _ in 0..MANY {
                *mutex.lock().await.expect("nobody cancels") += 1;
            }
        };
        is_shared_out(locks, MANY).await;
        let permits = async {
            for _ in 0..MANY {
                drop(semaphore.acquire().await.expect("nobody cancels"));
            }
        };
        is_shared_out(permits, MANY).await;
        assert_eq!(*mutex.lock().await.expect("nobody cancels"), MANY);
    });
}

/// It has nothing to wait for, so no wait of its own would show it the deadline.
#[test]
fn who_feeds_himself_sees_his_deadline() {
    on_ring(|_| async {
        let (sender, receiver) = channel::bounded(1);
        let scope = Scope::new().timeout(Duration::from_millis(5));
        let fed = scope.run(async {
            // An end, if the deadline is none.
            for item in 0..5_000_000 {
                sender.try_send(item).expect("there is room");
                receiver.recv().await?;
            }
            Ok::<_, Cancelled>(())
        });
        assert_eq!(fed.await, Ok(None));
    });
}

/// Somebody else's turn comes, and in it a cancel.
#[test]
fn who_lets_others_go_first_has_not_begun() {
    on_core(|_| async {
        let (sender, receiver) = filled(AT_ONCE + 1);
        let scope = Scope::new();
        let handle = scope.handle();
        let other = spawn(async move { handle.cancel() });
        let received = Cell::new(0);
        let body = async {
            loop {
                receiver.recv().await?;
                received.set(received.get() + 1);
            }
            #[expect(unreachable_code, reason = "it says what the body would return")]
            Ok::<(), Cancelled>(())
        };
        assert_eq!(scope.run(body).await, Ok(None));
        other.await.expect("no panic");
        assert_eq!((received.get(), receiver.len()), (AT_ONCE, 1));
        drop(sender);
        assert_eq!(receiver.recv().await, Ok(Some(AT_ONCE)));
        assert_eq!(receiver.recv().await, Ok(None));
    });
}

#[test]
fn who_is_dropped_while_others_go_first_has_not_begun() {
    on_core(|_| async {
        let (sender, receiver) = filled(AT_ONCE + 1);
        for _ in 0..AT_ONCE {
            receiver.recv().await.expect("nobody cancels");
        }
        {
            let mut next = pin!(receiver.recv());
            assert!(poll_once(next.as_mut()).await.is_pending(), "others first");
        }
        assert_eq!((receiver.len(), receiver.waiting()), (1, 0));
        // Asked again in the same poll, it is there: nobody is kept from going on.
        let mut next = pin!(receiver.recv());
        let again = poll_once(next.as_mut()).await;
        assert_eq!(again, Poll::Ready(Ok(Some(AT_ONCE))));
        drop(sender);
    });
}

#[test]
fn items_that_were_not_sent_while_others_go_first_come_back() {
    on_core(|_| async {
        let (sender, receiver) = channel::bounded(MANY);
        for item in 0..AT_ONCE {
            sender.send(item).await.expect("there is room");
        }
        let scope = Scope::new();
        let handle = scope.handle();
        let other = spawn(async move { handle.cancel() });
        let mut items: VecDeque<_> = (0..3).collect();
        let body = async {
            let error = sender.send_many(&mut items).await.expect_err("cancelled");
            Err::<(), _>(error.cancelled().expect("that is why"))
        };
        assert_eq!(scope.run(body).await, Ok(None));
        other.await.expect("no panic");
        assert!(items.into_iter().eq(0..3));
        assert_eq!(receiver.len(), AT_ONCE);
    });
}
