//! A runtime of one core, and a body that runs there.

use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use quoit::{Builder, CoreMetrics, Cores, Handle, RemoteError, Runtime};

/// Runs `body` as a task on the one core of a new runtime, and returns what it returned.
pub fn on_core<M>(body: impl FnOnce(Handle) -> M + Send + 'static) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    on_core_of(Runtime::builder(), body)
}

/// Runs `body` as a task on the one core of the runtime that `builder` makes.
pub fn on_core_of<M>(builder: Builder, body: impl FnOnce(Handle) -> M + Send + 'static) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    // What a body leaves behind is dropped when it has ended.
    let runtime = builder
        .cores(Cores::Count(1))
        .grace_period(Duration::ZERO)
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    let core = handle.cores()[0];
    let task = handle.clone().spawn(core, move || body(handle));
    match task.expect("a new mailbox has room").wait() {
        Ok(output) => output,
        Err(RemoteError::Panicked(payload)) => resume_unwind(payload),
        Err(error) => panic!("{error}"),
    }
}

/// Returns once the core of `handle`, which this runs on, has parked: that publishes its gauges.
pub async fn park_once(handle: &Handle) {
    let before = handle.metrics()[0].parks;
    // A core parks for a deadline that lies ahead; so short a one may have passed before it does.
    while handle.metrics()[0].parks == before {
        quoit::time::sleep(Duration::from_micros(50))
            .await
            .expect("nobody cancels a test's own pause");
    }
}

/// Returns the counters of the core of `handle`, which this runs on, with gauges that are as of now.
pub async fn gauges(handle: &Handle) -> CoreMetrics {
    park_once(handle).await;
    handle.metrics()[0]
}

/// Polls a future once, and says what came of it.
pub async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Waits, on a foreign thread, until the core of `handle` has parked more than `parks` times.
pub fn until_parked(handle: &Handle, parks: u64) {
    while handle.metrics()[0].parks <= parks {
        std::thread::yield_now();
    }
}
