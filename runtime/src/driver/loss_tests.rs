//! A core's loop dies of a panic of its own: who waits for the core elsewhere is told, and goes on.
//!
//! Here, since its ring has to be taken from under it.

use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::task::current;
use crate::{
    CancelHandle, Cores, Delivery, Remote, RemoteError, RingFeature, Runtime, Scope, on, op, spawn,
    time, yield_now,
};

/// Puts something else in the place of a ring: the next entry into the kernel fails.
fn take_ring(number: i32) {
    let other = std::fs::File::open("/dev/null").expect("every system has it");
    // SAFETY: the number is that of a ring of this test's own. Its core uses it for nothing but to enter
    // the kernel, and closes what lies there at its end; the ring itself lives on in its mappings.
    let replaced = unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&other), number) };
    assert_eq!(replaced, number);
}

fn assert_gone<T>(outcome: io::Result<T>) {
    let error = outcome.err().expect("its core is lost");
    let remote = error.get_ref().expect("an error of ours");
    assert_eq!(remote.downcast_ref(), Some(&Remote::Gone));
}

#[test]
fn c180_core_whose_loop_panics_is_gone() {
    let runtime = two_cores();
    let cores = runtime.handle().cores();
    let (here, there) = (cores[0], cores[1]);
    let waits = runtime.handle().spawn(here, move || async move {
        let (tell, told) = mpsc::channel::<(CancelHandle, i32)>();
        let child = spawn(on(there, move || async move {
            let scope = Scope::new();
            let ring = current::with(|core| core.driver.borrow().ring_number());
            tell.send((scope.handle(), ring)).expect("it listens");
            scope.run(pending::<io::Result<()>>()).await
        }));
        let (cancel, ring) = loop {
            match told.try_recv() {
                Ok(found) => break found,
                Err(_) => yield_now().await.expect("nobody cancels"),
            }
        };
        take_ring(ring);
        // Wakes it, if it does not enter the kernel by itself.
        let _ = cancel.cancel();
        assert_gone(child.await.expect("it ended").map(drop));
        while cancel.cancel() != Delivery::Gone {
            yield_now().await.expect("nobody cancels");
        }
        assert_gone(on(there, || async { Ok::<(), io::Error>(()) }).await);
        op::nop().await.expect("this core goes on");
    });
    waits
        .expect("room")
        .wait()
        .expect("nothing panics on this core");
    // The runtime's owner hears of it.
    let end = catch_unwind(AssertUnwindSafe(|| runtime.shutdown(Duration::ZERO)));
    let payload = end.expect_err("a core was lost");
    let text = payload.downcast_ref::<String>().expect("a text");
    assert!(text.contains("without a kernel"), "{text}");
}

/// Two cores, whose rings can be taken: the registered descriptor of one is out of reach.
fn two_cores() -> Runtime {
    Runtime::builder()
        .cores(Cores::Count(2))
        .without(RingFeature::RegisteredRing)
        .build()
        .expect("tests need io_uring")
}

/// Ends the core that calls this: its next entry into the kernel fails.
async fn lose_this_core() {
    take_ring(current::with(|core| core.driver.borrow().ring_number()));
    loop {
        op::nop().await.ok();
    }
}

#[test]
fn a_runtime_that_has_lost_a_core_waits_for_the_others() {
    let runtime = two_cores();
    let handle = runtime.handle();
    let cores = handle.cores();
    let has_ended = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&has_ended);
    let goes_on = handle.spawn(cores[1], move || async move {
        let pause = Duration::from_millis(50);
        Scope::new().shielded().run(time::sleep(pause)).await.ok();
        ends.store(true, Ordering::Relaxed);
    });
    let lost = handle.spawn(cores[0], lose_this_core).expect("room");
    assert!(matches!(lost.wait(), Err(RemoteError::Gone)));
    let grace = Duration::from_secs(100);
    let end = catch_unwind(AssertUnwindSafe(|| runtime.shutdown(grace)));
    assert!(end.is_err(), "a core was lost");
    assert!(has_ended.load(Ordering::Relaxed));
    assert!(goes_on.expect("room").wait().is_ok());
}

/// It would go on with a core less, and nobody would hear of it.
#[test]
fn a_run_that_has_lost_a_core_ends() {
    let ends = || {
        two_cores().run(|core| async move {
            if core.index() == 1 {
                lose_this_core().await;
            }
            time::sleep(Duration::MAX).await
        })
    };
    let payload = catch_unwind(ends).expect_err("a core was lost");
    let text = payload.downcast_ref::<String>().expect("a text");
    assert!(text.contains("without a kernel"), "{text}");
}
