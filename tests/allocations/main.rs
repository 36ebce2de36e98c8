//! Who tells a core something allocates nothing.
//!
//! A binary of its own: allocations are counted for the whole process.

use std::alloc::System;
use std::future::poll_fn;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use quoit::time::{Instant, sleep};
use quoit::{CancelHandle, Cancelled, Delivery, Reason, Scope, spawn, yield_now};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tests::on_ring;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const LONG: Duration = Duration::from_secs(3600);

fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// Tells each of these scopes something else, and all of them that they are cancelled, again and again.
fn tell(handles: &[CancelHandle]) {
    for (place, handle) in handles.iter().enumerate() {
        assert_eq!(handle.set_deadline(Instant::NEVER), Delivery::Delivered);
        let told = match place % 3 {
            0 => handle.cancel(),
            1 => handle.cancel_with(Reason::User(7), Duration::ZERO),
            _ => handle.cancel_with(Reason::Requested, LONG),
        };
        assert_eq!(told, Delivery::Delivered);
        assert_eq!(handle.cancel(), Delivery::AlreadyCancelled);
    }
}

#[test]
fn who_cancels_from_elsewhere_or_wakes_allocates_nothing() {
    on_ring(|_| async {
        let mut handles = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..1000 {
            let scope = Scope::new();
            handles.push(scope.handle());
            tasks.push(spawn(async move { scope.run(sleep(LONG)).await }));
        }
        yield_now().await.expect("not cancelled");
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let gone = Scope::new();
        let gone_handle = gone.handle();
        assert_eq!(gone.run(async { Ok::<_, Cancelled>(7) }).await, Ok(Some(7)));

        let is_told = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&is_told);
        let teller = thread::spawn(move || {
            // The core is busy meanwhile, and allocates nothing itself.
            let before = allocations();
            tell(&handles);
            assert_eq!(gone_handle.cancel(), Delivery::Gone);
            waker.wake_by_ref();
            let after = allocations();
            tells.store(true, Ordering::Release);
            after - before
        });
        while !is_told.load(Ordering::Acquire) && !teller.is_finished() {
            spin_loop();
        }
        assert_eq!(teller.join().expect("all were told"), 0);
        for task in tasks {
            assert_eq!(task.await.expect("it ended"), Ok(None));
        }
    });
}
