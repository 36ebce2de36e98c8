//! The look at the core after every scenario fails for whatever it is meant to find.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use quoit::op;
use quoit::sim::Sim;
use quoit::sync::Event;
use quoit::time::{Alarm, Instant, sleep};
use quoit::{Handle, Scope, spawn};
use tests::{both_streams, conform, conform_on, poll_once, quietly};

use crate::support::{LONG, pipe};

/// Runs a body that leaves something behind, on the ring and in the simulation, and checks that it
/// fails each time, and says one of `texts`.
fn is_found<M>(texts: &[&str], body: impl FnOnce(Handle) -> M + Clone + Send + 'static)
where
    M: Future<Output = ()> + 'static,
{
    let ring = || quietly(body.clone());
    let simulated = || {
        Sim::with_seed(0).max_steps_per_instant(2_000).run(ring);
    };
    for run in [&ring as &dyn Fn(), &simulated] {
        let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("something was left behind");
        let text = payload.downcast_ref::<String>().expect("a text");
        assert!(texts.iter().any(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn a_task_that_spins_is_found() {
    is_found(&["never parks", "no time has passed"], |_| async {
        drop(spawn(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        })));
    });
}

#[test]
fn a_task_that_waits_is_found() {
    is_found(&["has tasks left"], |_| async {
        drop(spawn(pending::<()>()));
    });
}

#[test]
fn an_armed_timer_is_found() {
    is_found(&["waits for a point in time"], |_| async {
        drop(spawn(sleep(LONG)));
    });
    is_found(&["waits for a point in time"], |_| async {
        let mut alarm = Box::pin(Alarm::at(Instant::now() + LONG));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut alarm).poll(&mut cx).is_pending());
        std::mem::forget(alarm);
    });
}

#[test]
fn a_wait_that_nobody_ends_is_found() {
    is_found(&["has waits left"], |_| async {
        let event: &'static Event = Box::leak(Box::default());
        let mut wait = Box::pin(event.wait());
        assert!(poll_once(wait.as_mut()).await.is_pending());
        std::mem::forget(wait);
    });
}

#[test]
fn an_op_in_the_kernel_is_found() {
    is_found(&["waits for the kernel", "has waits left"], |_| async {
        let (reader, writer) = pipe();
        let mut read = Box::pin(async move { op::read(&reader, vec![0; 8]).await.0 });
        assert!(poll_once(read.as_mut()).await.is_pending());
        std::mem::forget((read, writer));
    });
    // One that no wait stands for.
    is_found(&["waits for the kernel"], |_| async {
        let (ours, theirs) = both_streams().await;
        assert!(poll_once(pin!(ours.receive())).await.is_pending());
        std::mem::forget((ours, theirs));
    });
}

#[test]
fn an_open_scope_is_found() {
    is_found(&["has scopes left"], |_| async {
        let scope = Scope::new();
        scope.handle();
        std::mem::forget(scope);
    });
}

#[test]
fn what_is_given_up_at_the_last_moment_is_no_noise() {
    conform_on(2, |_| async {
        let (reader, _writer) = pipe();
        let mut read = pin!(op::read(&reader, vec![0; 8]));
        assert!(poll_once(read.as_mut()).await.is_pending());
        let (ours, _theirs) = both_streams().await;
        assert!(poll_once(pin!(ours.receive())).await.is_pending());
    });
    conform(|_| async {
        sleep(std::time::Duration::from_millis(1))
            .await
            .map_err(io::Error::from)
            .expect("nobody cancels");
    });
}
