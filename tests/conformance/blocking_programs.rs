//! Many jobs, cancelled, dropped and panicking at random: nothing is run twice, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quoit::blocking::{JobContext, JobError, run, run_abandonable};
use quoit::sim::{Faults, Sim, for_seeds};
use quoit::time::sleep;
use quoit::{
    CarriesCancelled, Cores, Handle, JoinHandle, Reason, RemoteError, Runtime, Scope, spawn,
};
use tests::{Drops, poll_once};

const JOBS: u64 = 60;

/// What has happened, over all jobs.
#[derive(Debug, Default)]
struct Ledger {
    /// Made per closure, and dropped with it.
    closures: Drops,
    /// Made per result, and dropped with it.
    results: Drops,
    ran: AtomicU64,
    running: AtomicU64,
    most: AtomicU64,
}

/// A stream of numbers from a seed.
#[derive(Debug, Clone)]
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// One of the jobs: what it does is drawn beforehand.
fn job(
    ledger: &Arc<Ledger>,
    numbers: &mut Numbers,
) -> impl FnOnce(&JobContext) -> tests::Counted + Send + use<> {
    let ledger = Arc::clone(ledger);
    let captured = ledger.closures.value();
    let (panics, calls) = (numbers.below(8) == 0, numbers.below(3));
    let pause = Duration::from_micros(numbers.below(300));
    move |job| {
        let _captured = captured;
        ledger.ran.fetch_add(1, Ordering::AcqRel);
        let now = ledger.running.fetch_add(1, Ordering::AcqRel) + 1;
        ledger.most.fetch_max(now, Ordering::AcqRel);
        let result = ledger.results.value();
        for _ in 0..calls {
            match job.run_on_core(move || sleep(pause)) {
                Ok(Ok(())) | Err(RemoteError::Gone) => {}
                Ok(Err(cancelled)) => {
                    assert_eq!(job.check_cancelled(), Err(cancelled));
                }
                Err(error) => panic!("{error}"),
            }
        }
        ledger.running.fetch_sub(1, Ordering::AcqRel);
        assert!(!panics, "as drawn");
        result
    }
}

/// What came of one.
#[derive(Debug, Default)]
struct Tally {
    returned: u64,
    cancelled: u64,
    panicked: u64,
    dropped: u64,
    refused: u64,
}

async fn host(ledger: Arc<Ledger>, mut numbers: Numbers) -> Tally {
    let mut tally = Tally::default();
    sleep(Duration::from_micros(numbers.below(500)))
        .await
        .expect("nobody cancels the host");
    let job = job(&ledger, &mut numbers);
    let abandonable = numbers.below(2) == 0;
    let wait = async move {
        if abandonable {
            run_abandonable(job).await
        } else {
            run(job).await
        }
    };
    if numbers.below(6) == 0 {
        // Polled for a while, and dropped.
        let mut wait = Box::pin(wait);
        let polled = poll_once(wait.as_mut()).await;
        sleep(Duration::from_micros(numbers.below(400)))
            .await
            .expect("nobody cancels the host");
        drop((wait, polled));
        tally.dropped += 1;
        return tally;
    }
    let mut scope = Scope::new();
    if numbers.below(2) == 0 {
        scope = scope.timeout(Duration::from_micros(numbers.below(1_500)));
    }
    let cancel = scope.handle();
    if numbers.below(4) == 0 {
        let pause = Duration::from_micros(numbers.below(1_500));
        drop(spawn(async move {
            sleep(pause).await.expect("nobody cancels this one");
            cancel.cancel_with(Reason::User(4), Duration::ZERO);
        }));
    }
    let outcome = scope
        .run(async { Ok::<_, JobError>(wait.await) })
        .await
        .expect("nothing but a result");
    match outcome.expect("the scope has nothing to take") {
        Ok(_) => tally.returned += 1,
        Err(JobError::Panicked(payload)) => {
            assert_eq!(payload.downcast_ref(), Some(&"as drawn"));
            tally.panicked += 1;
        }
        Err(JobError::NoThread(_)) => tally.refused += 1,
        Err(error) => {
            let reason = error.cancelled().expect("nothing else").reason();
            assert!(matches!(reason, Reason::Deadline | Reason::User(4)));
            tally.cancelled += 1;
        }
    }
    tally
}

fn program(seed: u64) -> [u64; 5] {
    let ledger = Arc::new(Ledger::default());
    let threads = 1 + seed as usize % 4;
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .blocking_threads(threads)
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    let inner = Arc::clone(&ledger);
    let main = handle.spawn(handle.cores()[0], move || async move {
        let mut numbers = Numbers(seed);
        let hosts: Vec<JoinHandle<Tally>> = (0..JOBS)
            .map(|_| {
                let own = Numbers(numbers.below(u64::MAX));
                spawn(host(Arc::clone(&inner), own))
            })
            .collect();
        let mut all = Tally::default();
        for host in hosts {
            let one = host.await.expect("no panic");
            all.returned += one.returned;
            all.cancelled += one.cancelled;
            all.panicked += one.panicked;
            all.dropped += one.dropped;
            all.refused += one.refused;
            let usage = Handle::current().expect("on a core").blocking_usage();
            assert!(usage.threads <= threads, "{usage:?}");
        }
        // What was abandoned ends as well.
        loop {
            let usage = Handle::current().expect("on a core").blocking_usage();
            if usage.busy == 0 && usage.queued == 0 {
                break;
            }
            sleep(Duration::from_micros(50))
                .await
                .expect("nobody cancels");
        }
        all
    });
    let all = match main.expect("there is room").wait() {
        Ok(all) => all,
        Err(RemoteError::Panicked(payload)) => std::panic::resume_unwind(payload),
        Err(error) => panic!("{error}"),
    };
    // Reapers of dropped waits, too.
    drop(runtime);
    let told = all.returned + all.cancelled + all.panicked + all.dropped + all.refused;
    assert_eq!(told, JOBS);
    assert_eq!(ledger.closures.dropped(), JOBS, "closures: {all:?}");
    assert_eq!(ledger.closures.alive(), 0);
    assert_eq!(ledger.results.alive(), 0, "results: {all:?}");
    let ran = ledger.ran.load(Ordering::Acquire);
    assert_eq!(ledger.results.dropped(), ran, "each run has one result");
    assert!(ran >= all.returned + all.panicked);
    assert!(ledger.most.load(Ordering::Acquire) <= threads as u64);
    [
        all.returned,
        all.cancelled,
        all.panicked,
        all.dropped,
        all.refused,
    ]
}

fn add(sum: &mut [u64; 5], more: [u64; 5]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

#[test]
fn random_jobs_on_threads_are_run_once_or_dropped_once() {
    let mut sum = [0; 5];
    for seed in 0..40 {
        add(&mut sum, program(seed));
    }
    assert!(sum[..4].iter().all(|&count| count > 0), "{sum:?}");
}

#[test]
fn random_simulated_jobs_are_run_once_or_dropped_once() {
    let mut sum = [0; 5];
    for_seeds(0..300, |sim| {
        let seed = sim.seed();
        let faults = match seed % 3 {
            0 => Faults::none(),
            1 => Faults::benign(),
            _ => Faults::benign().rate(quoit::sim::Fault::ThreadRefused, 0.2),
        };
        add(&mut sum, sim.faults(faults).run(|| program(seed)).value);
    });
    if std::env::var_os("QUOIT_SIM_SEED").is_none() {
        assert!(sum.iter().all(|&count| count > 0), "{sum:?}");
    }
}

#[test]
fn equal_seeds_run_jobs_equally() {
    for seed in 0..6 {
        let trace = || {
            let sim = Sim::with_seed(seed).faults(Faults::benign());
            let outcome = sim.run(|| program(seed));
            (outcome.trace, outcome.events, outcome.value)
        };
        assert_eq!(trace(), trace());
    }
}
