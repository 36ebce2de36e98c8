//! The runtime that is measured, and how its ring is set up.

use compio::driver::ProactorBuilder;
use compio::runtime::Runtime;

/// A ring that one thread uses, so that the kernel does its share when that thread waits for it: compio has a
/// setting for each. It sets none of them by itself.
pub(crate) fn tuned() -> ProactorBuilder {
    let mut ring = ProactorBuilder::new();
    ring.single_issuer(true).defer_taskrun(true);
    ring
}

/// A runtime for the calling thread.
pub(crate) fn build(ring: ProactorBuilder) -> Runtime {
    Runtime::builder()
        .with_proactor(ring)
        .build()
        .expect("io_uring")
}
