//! A core's loop dies of a panic of its own: who waits for the core elsewhere is told, and goes on.
//!
//! Here, since its ring has to be taken from under it.

use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use crate::task::current;
use crate::{
    CancelHandle, Cores, Delivery, Remote, RingFeature, Runtime, Scope, on, op, spawn, yield_now,
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
    // The registered descriptor of a ring is out of reach.
    let runtime = Runtime::builder()
        .cores(Cores::Count(2))
        .without(RingFeature::RegisteredRing)
        .build()
        .expect("tests need io_uring");
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
