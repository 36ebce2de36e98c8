//! A body, and a look at its cores when it has ended: whatever it did, it leaves them quiet.
//!
//! Quiet: nothing is ready, and the next park has no timeout. The look is taken from outside, by
//! tasks that a core is woken for. In between the core has parked, which publishes its gauges: no
//! task, no timer, no wait, nothing in the kernel but the watch that it is woken by. Then a task that
//! does nothing costs one turn and one park, and nothing else is counted; in a simulation an hour
//! passes before it.

use std::future::Future;
use std::thread;
use std::time::Duration;

use quoit::{Builder, CoreId, CoreMetrics, Cores, Handle, Runtime, sim};

use crate::Kernel;
use crate::core::{on, on_both};

/// More turns than a core makes without a park to end what is left of a body.
const TURNS: u64 = 10_000;

/// How many times in a row a quiet core is woken for nothing.
const WAKES: u32 = 3;

/// How often a wake may come late, one after the other: one that always does is noise of the core's own.
const LATE: u32 = 100;

/// Runs `body` as a task on the one core of a new runtime, on the real ring and in the simulation,
/// looks each time whether it has left the core quiet, and returns what it returned on the ring.
pub fn conform<M>(body: impl FnOnce(Handle) -> M + Clone + Send + 'static) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    conform_of(one_core(), body)
}

/// As [`conform`], on the first core of a runtime with so many.
pub fn conform_on<M>(
    cores: usize,
    body: impl FnOnce(Handle) -> M + Clone + Send + 'static,
) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    conform_of(Runtime::builder().cores(Cores::Count(cores)), body)
}

/// As [`conform`], on the first core of the runtime that `builder` makes.
pub fn conform_of<M>(
    builder: Builder,
    body: impl FnOnce(Handle) -> M + Clone + Send + 'static,
) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    on_both(|| quietly_of(builder.clone(), body.clone()))
}

/// As [`conform`], on the kernel that the caller runs on, once: for bodies with a partner that is
/// not simulated, and inside of a simulation of the caller's own.
pub fn quietly<M>(body: impl FnOnce(Handle) -> M + Send + 'static) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    quietly_of(one_core(), body)
}

/// As [`quietly`], on the first core of the runtime that `builder` makes.
///
/// # Panics
///
/// As `body` does; and if it leaves a core that is not quiet.
pub fn quietly_of<M>(builder: Builder, body: impl FnOnce(Handle) -> M + Send + 'static) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    // What a body leaves behind is found by looking, not waited for.
    let runtime = builder
        .grace_period(Duration::ZERO)
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    let inner = handle.clone();
    let output = on(&handle, handle.cores()[0], move || body(inner));
    assert_quiet(&handle);
    output
}

/// Returns a builder for one core.
pub fn one_core() -> Builder {
    Runtime::builder().cores(Cores::Count(1))
}

/// Checks that every core of a runtime is quiet. Called outside of all cores.
///
/// # Panics
///
/// If one is not.
pub fn assert_quiet(handle: &Handle) {
    // What a kernel does of its own accord is no noise of the program's.
    sim::end_faults();
    for core in handle.cores() {
        let mut seen = look(handle, core);
        loop {
            until_parked(handle, core, seen);
            seen = look(handle, core);
            assert_nothing_waits(core, seen);
            if seen.in_flight == 0 {
                break;
            }
            if Kernel::here().is_simulated() {
                // A simulated kernel may take its time.
                pass(Duration::from_millis(1));
            }
        }
        if Kernel::here().is_simulated() {
            // A park that began under faults may end by one.
            pass(Duration::from_secs(3_600));
            seen = look(handle, core);
        }
        let (mut quiet, mut late) = (0, 0);
        while quiet < WAKES {
            until_parked(handle, core, seen);
            if Kernel::here().is_simulated() {
                pass(Duration::from_secs(3_600));
            }
            let again = look(handle, core);
            let expected = one_wake_after(seen);
            if late < LATE && is_late(again, expected) {
                (quiet, late) = (0, late + 1);
            } else {
                assert_eq!(again, expected, "{core} is not quiet");
                quiet += 1;
            }
            seen = again;
        }
    }
}

/// Returns whether all that is not as expected is when the wake came. A core that is about to park looks once more, and
/// may find the task that it is woken for before the wake itself, which then ends its next park. No simulated kernel
/// does that here.
fn is_late(seen: CoreMetrics, expected: CoreMetrics) -> bool {
    let mut in_time = seen;
    in_time.wake_calls = expected.wake_calls;
    in_time.completions = expected.completions;
    in_time.turns = expected.turns;
    in_time.parks = expected.parks;
    in_time.enters = expected.enters;
    !Kernel::here().is_simulated() && seen != expected && in_time == expected
}

/// Checks the gauges of a park. The kernel may still have what was given up: it was asked to end.
fn assert_nothing_waits(core: CoreId, parked: CoreMetrics) {
    assert_eq!(parked.timers, 0, "{core} waits for a point in time");
    assert_eq!(parked.tasks, 0, "{core} has tasks left");
    assert_eq!(parked.parked, 0, "{core} has waits left");
    let in_kernel = (parked.in_flight, parked.op_slots);
    let given_up = (parked.orphans, parked.orphans);
    assert_eq!(in_kernel, given_up, "{core} waits for the kernel");
    if parked.orphans == 0 {
        assert_eq!(parked.scopes, 1, "{core} has scopes left");
    }
}

/// Returns the counters of a core that was woken for nothing and has looked at them.
fn one_wake_after(mut quiet: CoreMetrics) -> CoreMetrics {
    // It is woken by a completion, and asks the kernel for nothing.
    quiet.wake_calls += 1;
    quiet.completions += 1;
    quiet.turns += 1;
    quiet.closures += 1;
    quiet.spawned += 1;
    quiet.polls += 1;
    quiet.parks += 1;
    quiet.enters += 1;
    quiet
}

/// Returns the counters of a core as the core itself sees them: its gauges are those of its last
/// park.
fn look(handle: &Handle, core: CoreId) -> CoreMetrics {
    let inner = handle.clone();
    on(handle, core, move || async move {
        inner.metrics()[core.index()]
    })
}

/// Waits, outside of all cores, until a core has parked since it looked at its counters.
fn until_parked(handle: &Handle, core: CoreId, seen: CoreMetrics) {
    loop {
        let now = handle.metrics()[core.index()];
        if now.parks > seen.parks {
            return;
        }
        assert!(now.turns < seen.turns + TURNS, "{core} never parks");
        if Kernel::here().is_simulated() {
            // Time passes when nobody can go on.
            pass(Duration::from_nanos(1));
        } else {
            thread::yield_now();
        }
    }
}

/// Lets virtual time pass.
pub(crate) fn pass(duration: Duration) {
    quoit::block_on(quoit::time::sleep(duration))
        .expect("no fault refuses a ring here")
        .expect("nobody cancels the main future");
}
