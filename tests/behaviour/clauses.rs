//! Clauses of the rules of cancellation that no scenario tries.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use quoit::time::sleep;
use quoit::{
    Cancelled, Group, Misuse, Reason, Scope, ScopeDump, group, spawn, yield_uncancellable,
};
use tests::{conform, gauges};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

// --- reasons ---

#[test]
fn a_cancel_for_a_misuse_is_a_request() {
    const MISUSE: Reason = Reason::Misuse(Misuse::Stray);
    conform(|_| async {
        let scope = Scope::new();
        let ran = scope.run(async {
            scope.cancel_with(MISUSE, Duration::ZERO);
            sleep(LONG).await
        });
        assert_eq!(ran.await, Ok(None));
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::Requested)
        );

        let cancelled = group(async |g: Group<Cancelled>| {
            g.cancel_for(MISUSE);
            sleep(LONG).await
        });
        assert!(matches!(cancelled.await, Ok(None)));

        let joined = group(async |g: Group<Cancelled>| {
            let child = g.spawn(sleep(LONG));
            child.cancel_for(MISUSE);
            assert!(child.await.is_err());
            Ok(())
        });
        assert!(matches!(joined.await, Ok(Some(()))));
    });
}

// --- waits in something the runtime does not know ---

/// One wait, however often its scope is cancelled anew: it has its eight wakes, and none behind a shield.
#[test]
fn a_foreign_wait_is_woken_so_many_times_however_often_its_shield_is_cleared() {
    conform(|handle| async move {
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        let scopes = [(); 2].map(|()| Rc::new(Scope::new()));
        let [outer, inner] = scopes.clone();
        let ready: Rc<(Cell<bool>, RefCell<Option<Waker>>)> = Rc::default();
        let source = Rc::clone(&ready);
        let task = spawn(async move {
            let wait = poll_fn(|cx| {
                counted.set(counted.get() + 1);
                *source.1.borrow_mut() = Some(cx.waker().clone());
                if source.0.get() {
                    Poll::Ready(Ok::<_, Cancelled>(()))
                } else {
                    Poll::Pending
                }
            });
            outer.run(inner.run(wait)).await
        });
        let [outer, inner] = scopes;
        sleep(SHORT).await.expect("nobody cancels");
        assert_eq!(polls.get(), 1);
        outer.cancel();
        yield_uncancellable().await;
        yield_uncancellable().await;
        assert_eq!(polls.get(), 2, "at once");
        inner.set_shielded(true);
        sleep(SHORT * 40).await.expect("nobody cancels");
        assert_eq!(polls.get(), 2, "nothing is cancelled behind the shield");
        for _ in 0..5 {
            inner.set_shielded(false);
            sleep(SHORT * 40).await.expect("nobody cancels");
            inner.set_shielded(true);
        }
        assert_eq!(polls.get(), 1 + 8);
        assert_eq!(gauges(&handle).await.foreign_wakes, 8);
        let told = ScopeDump::of_this_core().expect("on a core").to_string();
        assert!(!told.contains("unresponsive"), "{told}");
        inner.set_shielded(false);
        let told = ScopeDump::of_this_core().expect("on a core").to_string();
        assert!(told.contains("unresponsive"), "{told}");
        ready.0.set(true);
        let waker = ready.1.borrow_mut().take();
        waker.expect("it was polled").wake();
        assert_eq!(task.await.expect("no panic"), Ok(Some(Some(()))));
    });
}
