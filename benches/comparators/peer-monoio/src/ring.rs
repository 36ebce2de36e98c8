//! The runtime that is measured, and how its ring is set up.

use io_uring::{Builder, IoUring};
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

/// A ring that one thread uses, so that the kernel does its share when that thread waits for it: monoio takes a
/// builder of rings for such settings. It sets none of them by itself.
pub(crate) fn tuned() -> Builder {
    let mut ring = IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    ring
}

/// A runtime for the calling thread.
pub(crate) fn build(ring: Builder) -> Runtime<TimeDriver<IoUringDriver>> {
    RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(ring)
        .enable_timer()
        .build()
        .expect("io_uring")
}
