//! A core that looks on before it parks, where its builder says so.

use std::future::pending;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use quoit::op::{SharedFd, Stream};
use quoit::time::{Instant, sleep};
use quoit::{
    Builder, Cancelled, CoreMetrics, Cores, Delivery, Handle, RingFeature, Runtime, Scope,
};
use tests::{Kernel, on_core_of};

/// No core of a test is kept from its processor for so long.
const LONG: Duration = Duration::from_secs(1);

fn spinning() -> Builder {
    Runtime::builder()
        .cores(Cores::Count(1))
        .spin_before_park(LONG)
}

fn metrics(handle: &Handle) -> CoreMetrics {
    handle.metrics()[0]
}

#[test]
fn nothing_spins_in_a_simulation() {
    on_core_of(spinning(), |handle| async move {
        for _ in 0..20 {
            sleep(Duration::from_millis(1))
                .await
                .expect("not cancelled");
        }
        let now = metrics(&handle);
        if Kernel::here().is_simulated() {
            assert_eq!((now.spins, now.spin_hits, now.spin_nanos), (0, 0, 0));
            assert!(now.parks > 0);
        }
    });
}

#[test]
fn a_longer_spin_than_a_second_is_refused() {
    let error = Runtime::builder()
        .spin_before_park(Duration::from_micros(1_000_001))
        .build()
        .expect_err("past the limit");
    let message = error.to_string();
    assert!(message.contains("spin_before_park"), "{message}");
    assert!(message.contains("at most 1000000"), "{message}");
}

// --- on the real ring: time does not pass in the simulation while a core looks on ---

/// Sends a core a closure so many times, each when it has begun to wait, as `began` tells; returns what
/// it counted from the first to the answer to the last.
fn exchange(builder: Builder, began: fn(&CoreMetrics) -> u64) -> (CoreMetrics, CoreMetrics) {
    let runtime = builder.build().expect("a core");
    let handle = runtime.handle();
    let core = handle.cores()[0];
    let mut seen = 0;
    let mut first = None;
    for _ in 0..ROUNDS {
        while began(&metrics(&handle)) <= seen {
            std::thread::yield_now();
        }
        let before = metrics(&handle);
        seen = began(&before);
        first.get_or_insert(before);
        let (said, heard) = mpsc::channel();
        let job = handle.spawn(core, move || async move { said.send(()) });
        heard.recv().expect("it runs");
        drop(job.expect("room"));
    }
    (first.expect("there were some"), metrics(&handle))
}

const ROUNDS: u64 = 50;

#[test]
fn who_spins_is_reached_without_a_park_and_without_a_call() {
    let (before, after) = exchange(spinning(), |now| now.spins);
    assert_eq!(after.parks, before.parks);
    assert_eq!(after.wake_calls, before.wake_calls);
    assert_eq!(after.spin_hits - before.spin_hits, ROUNDS);
    assert!(after.spin_nanos > before.spin_nanos);
}

#[test]
fn who_does_not_spin_parks_each_time() {
    let plain = Runtime::builder().cores(Cores::Count(1));
    let untold = spinning().without(RingFeature::TaskrunFlag);
    for builder in [plain, untold] {
        let (before, after) = exchange(builder, |now| now.parks);
        assert!(after.parks - before.parks >= ROUNDS - 1);
        assert_eq!((after.spins, after.spin_hits, after.spin_nanos), (0, 0, 0));
    }
}

#[test]
fn a_timer_ends_a_spin_when_it_is_due() {
    let pause = Duration::from_millis(1);
    let runtime = spinning().build().expect("a core");
    let handle = runtime.handle();
    let inner = handle.clone();
    let job = handle.spawn(handle.cores()[0], move || async move {
        let (begin, before) = (Instant::now(), metrics(&inner));
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            sleep(pause).await.expect("not cancelled");
            assert!(begin.elapsed() >= pause);
        }
        (begin.elapsed(), before, metrics(&inner))
    });
    let (took, before, after) = job.expect("room").wait().expect("no panic");
    assert_eq!(after.parks, before.parks);
    // Where the core was kept from its processor until a pause was over, it had none to spin through.
    let spins = after.spins - before.spins;
    assert!((1..=ROUNDS).contains(&spins), "{spins}");
    assert_eq!(after.spin_hits - before.spin_hits, spins);
    let spun = Duration::from_nanos(after.spin_nanos - before.spin_nanos);
    assert!(spun <= took, "{spun:?} of {took:?}");
}

#[test]
fn who_spins_sees_a_cancel_and_bytes_and_a_stop() {
    let runtime = spinning().build().expect("a core");
    let handle = runtime.handle();
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let has_begun = |waits| {
        while metrics(&handle).spins < waits {
            std::thread::yield_now();
        }
        metrics(&handle)
    };
    has_begun(1);
    let (tell, told) = mpsc::channel();
    let job = handle.spawn(handle.cores()[0], move || async move {
        let scope = Scope::new();
        tell.send(scope.handle()).expect("it listens");
        assert_eq!(
            scope.run(pending::<Result<(), Cancelled>>()).await,
            Ok(None)
        );
        let stream = Stream::new(SharedFd::from(OwnedFd::from(ours)));
        let chunk = stream.receive().await.expect("no error").expect("no end");
        assert_eq!(&chunk[..], b"bytes");
        pending::<()>().await;
    });
    let job = job.expect("room");
    let cancel = told.recv().expect("it tells");
    let before = has_begun(2);
    assert_eq!(cancel.cancel(), Delivery::Delivered);
    has_begun(3);
    theirs.write_all(b"bytes").expect("it is open");
    let after = has_begun(4);
    assert_eq!(after.parks, before.parks);
    assert_eq!(after.wake_calls, before.wake_calls);
    assert!(after.spin_hits - before.spin_hits >= 2);
    handle.shutdown_within(Duration::ZERO);
    assert!(job.wait().is_err(), "it never ends");
}
