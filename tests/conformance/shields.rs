//! A shielded scope does not see cancellation from outside; its own works as always.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::op;
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{Cancelled, Reason, Scope, check, spawn, yield_now};
use tests::{both_streams, conform};

use crate::support::{Either, LONG, SHORT, after_exactly, at_once, either, pipe, some_turns};

/// The op in the shield is parked when the cancel comes: in memory, or in the kernel.
#[test]
fn c031_op_in_a_shield_does_not_see_a_cancel_from_outside() {
    conform(|handle| async move {
        for in_the_kernel in [false, true] {
            let (reader, writer) = pipe();
            let go = Rc::new(Event::new());
            let outer = Scope::new();
            let cancel = outer.handle();
            let other = {
                let go = Rc::clone(&go);
                spawn(async move {
                    some_turns(1).await;
                    cancel.cancel();
                    some_turns(1).await;
                    go.set();
                    op::write(&writer, "x").await.0.expect("room");
                })
            };
            let before = handle.metrics()[0].aborts;
            let shield = Scope::new().shielded();
            let outcome = outer
                .run(async {
                    let inside = shield.run(async {
                        if in_the_kernel {
                            op::read(&reader, [0; 1]).await.0
                        } else {
                            go.wait().await?;
                            Ok(1)
                        }
                    });
                    assert!(matches!(inside.await, Ok(Some(1))));
                    op::nop().await
                })
                .await;
            assert!(matches!(outcome, Ok(None)), "{outcome:?}");
            assert_eq!(shield.cancelled(), None);
            assert_eq!(handle.metrics()[0].aborts, before);
            other.await.expect("it ended");
        }
    });
}

#[test]
fn c031_scope_inside_a_shield_is_shielded_with_it() {
    conform(|_| async {
        let outer = Scope::new().timeout(SHORT);
        let outcome = outer
            .run(async {
                let shielded = Scope::new().shielded();
                let slept = shielded
                    .run(async { Scope::new().run(sleep(4 * SHORT)).await })
                    .await?;
                assert_eq!(slept, Some(Some(())));
                yield_now().await
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

/// By a handle before its op, by one while the op is parked, and by its deadline.
#[test]
fn c032_shield_does_not_protect_from_its_own_scope() {
    conform(|_| async {
        let shield = Scope::new().shielded();
        let cancel = shield.handle();
        let outcome = shield
            .run(async {
                cancel.cancel();
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");

        let shield = Scope::new().shielded();
        let cancel = shield.handle();
        let canceller = spawn(async move { cancel.cancel() });
        assert_eq!(shield.run(sleep(LONG)).await, Ok(None));
        canceller.await.expect("it ended");

        let shield = Scope::new().shielded().timeout(SHORT);
        let began = Instant::now();
        assert_eq!(shield.run(sleep(LONG)).await, Ok(None));
        after_exactly(SHORT, began);
        assert_eq!(
            shield.cancelled().map(Cancelled::reason),
            Some(Reason::Deadline)
        );
    });
}

#[test]
fn c033_scope_in_a_shield_takes_its_own_cancel() {
    conform(|_| async {
        let (shield, inner) = (Scope::new().shielded(), Scope::new());
        let cancel = inner.handle();
        let outcome = shield
            .run(async {
                let inside = inner.run(async {
                    cancel.cancel();
                    op::nop().await
                });
                assert!(matches!(inside.await, Ok(None)));
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        assert_eq!(shield.cancelled(), None);
    });
}

/// Says goodbye to a peer that answers after a while, or never, within 100 ms; returns whether it
/// answered.
async fn goodbye(answers: bool) -> io::Result<Option<()>> {
    let (ours, theirs) = Scope::new()
        .shielded()
        .run(async { Ok::<_, io::Error>(both_streams().await) })
        .await?
        .expect("nobody cancels a shield");
    let peer = spawn(async move {
        let word = theirs.receive().await?;
        if answers {
            sleep(Duration::from_millis(20)).await?;
            theirs.send_all(word.expect("no end").to_vec()).await.0?;
        }
        // Until we have hung up.
        while theirs.receive().await?.is_some() {}
        Ok::<_, io::Error>(())
    });
    let shield = Scope::new().shielded().timeout(Duration::from_millis(100));
    let said = shield
        .run(async {
            ours.send_all("bye").await.0?;
            let answer = ours.receive().await?;
            assert!(answer.is_some());
            Ok(())
        })
        .await;
    assert_eq!(shield.cancelled().is_some(), !answers);
    drop(ours);
    let shield = Scope::new().shielded();
    shield
        .run(async {
            peer.await.expect("it ended").expect("connected");
            Ok::<_, io::Error>(())
        })
        .await?;
    said
}

#[test]
fn c040_goodbye_behind_a_shield_is_said() {
    conform(|_| async {
        let outer = Scope::new();
        let cancel = outer.handle();
        let began = Instant::now();
        let outcome = outer
            .run(async {
                cancel.cancel();
                let cancelled = op::nop().await.expect_err("cancelled");
                let said = goodbye(true).await;
                assert!(matches!(said, Ok(Some(()))), "{said:?}");
                Err::<(), _>(cancelled)
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        after_exactly(Duration::from_millis(20), began);
    });
}

#[test]
fn c041_goodbye_that_nobody_answers_is_given_up() {
    conform(|_| async {
        let outer = Scope::new();
        let cancel = outer.handle();
        let began = Instant::now();
        let outcome = outer
            .run(async {
                cancel.cancel();
                let cancelled = op::nop().await.expect_err("cancelled");
                let said = goodbye(false).await;
                assert!(matches!(said, Ok(None)), "{said:?}");
                Err::<(), _>(cancelled)
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        after_exactly(Duration::from_millis(100), began);
    });
}

#[test]
fn c042_shield_goes_with_the_run_that_is_dropped() {
    conform(|handle| async move {
        let outer = Scope::new();
        let cancel = outer.handle();
        let before = handle.metrics()[0].aborts;
        let outcome = outer
            .run(async {
                cancel.cancel();
                let began = Instant::now();
                let shield = Scope::new().shielded();
                let mut polled = false;
                let picked = either(
                    shield.run(sleep(LONG)),
                    // No op: it comes back once.
                    poll_fn(|cx| {
                        if std::mem::replace(&mut polled, true) {
                            return Poll::Ready(());
                        }
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }),
                );
                assert_eq!(picked.await, Either::Second(()));
                assert!(check().is_err(), "the shield is gone");
                at_once(began);
                op::nop().await
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        assert_eq!(handle.metrics()[0].aborts, before);
    });
}
