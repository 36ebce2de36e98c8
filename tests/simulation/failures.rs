//! Programs that fail, and programs that must not: each failure is told, once, by the run it belongs
//! to, and whatever the program does meanwhile.

use std::any::Any;
use std::future::pending;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use quoit::signal::{Signal, Signals};
use quoit::sim::{Fault, Faults, Sim, after, explore};
use quoit::sync::Event;
use quoit::time::{Instant, sleep, wall_clock};
use quoit::{CoreId, Cores, RemoteHandle, Runtime, block_on, spawn, yield_now};
use quoit_pool::http::Client;

fn sim() -> Sim {
    Sim::with_seed(1)
}

fn cores(count: usize) -> Runtime {
    let builder = Runtime::builder().cores(Cores::Count(count));
    builder.build().expect("no fault refuses a ring here")
}

fn main_core<T>(future: impl Future<Output = T>) -> T {
    block_on(future).expect("no fault refuses a ring here")
}

/// Returns what a program fails with.
#[track_caller]
fn failure(program: impl FnOnce()) -> String {
    let payload: Box<dyn Any + Send> =
        catch_unwind(AssertUnwindSafe(program)).expect_err("it fails");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a text")).to_owned(),
    }
}

#[test]
fn a_run_inside_a_run_is_refused_and_the_outer_one_goes_on() {
    sim().run(|| {
        let runtime = cores(2);
        let refused = failure(|| drop(sim().run(|| ())));
        assert!(refused.contains("runs one already"), "{refused}");
        drop(runtime);
    });
}

#[test]
fn a_failure_that_the_program_has_caught_fails_the_run() {
    let failed = failure(|| {
        sim().run(|| {
            let (sender, answer) = RemoteHandle::<()>::channel();
            let caught = catch_unwind(AssertUnwindSafe(|| answer.wait()));
            assert!(caught.is_err(), "nobody answers");
            drop(sender);
        });
    });
    assert!(failed.contains("(deadlock)"), "{failed}");
}

#[test]
fn a_failure_that_a_task_has_contained_fails_the_run() {
    let failed = failure(|| {
        sim().run(|| {
            main_core(async {
                let task = spawn(async {
                    let start = Instant::now();
                    while start.elapsed() < Duration::from_secs(1) {}
                });
                assert!(task.await.is_err(), "it panicked");
            });
        });
    });
    assert!(failed.contains("(spin)"), "{failed}");
}

/// What needs its core when it is dropped.
struct StartsTask;

impl Drop for StartsTask {
    fn drop(&mut self) {
        drop(spawn(async {}));
    }
}

#[test]
fn what_a_failed_main_future_holds_is_dropped_on_its_core() {
    let failed = failure(|| {
        sim().run(|| {
            main_core(async {
                let _starts = StartsTask;
                Event::new().wait().await
            })
        });
    });
    assert!(failed.contains("(deadlock)"), "{failed}");
}

#[test]
fn a_loop_that_looks_at_the_clock_is_told_from_a_hang() {
    let failed = failure(|| {
        sim().block_on(async {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(5) {}
        });
    });
    assert!(failed.contains("(spin)"), "{failed}");
    let failed = failure(|| {
        sim().block_on(async {
            let start = Instant::recent();
            while Instant::recent() == start {}
        });
    });
    assert!(failed.contains("(spin)"), "{failed}");
    let failed = failure(|| {
        sim().run(|| {
            let start = wall_clock();
            while wall_clock() == start {}
        });
    });
    assert!(failed.contains("(spin)"), "{failed}");
}

#[test]
fn a_sleep_without_end_is_a_deadlock_though_its_timer_is_armed() {
    let failed = failure(|| {
        sim().run(|| main_core(sleep(Duration::MAX)));
    });
    assert!(failed.contains("no timer comes due"), "{failed}");
    assert!(failed.contains("1 timer armed"), "{failed}");
}

#[test]
fn a_script_runs_outside_of_all_cores_also_while_one_waits() {
    sim().run(|| {
        main_core(async {
            after(Duration::from_millis(1), || {
                assert_eq!(CoreId::current(), None);
            });
            // A task that waits in place: while it does, the script comes.
            let inner = Runtime::builder()
                .cores(Cores::Count(1))
                .grace_period(Duration::from_millis(10))
                .build()
                .expect("no fault refuses a ring here");
            let handle = inner.handle();
            let endless = handle.spawn(handle.cores()[0], pending::<()>);
            drop(endless.expect("the mailbox has room"));
            drop(inner);
        });
    });
}

#[test]
fn time_passes_for_a_script_that_blocks_although_a_main_future_could_go_on() {
    let outcome = sim().max_steps(10_000).run(|| {
        main_core(async {
            after(Duration::from_millis(1), || {
                main_core(sleep(Duration::from_millis(50))).expect("nobody cancels");
            });
            sleep(Duration::from_millis(20))
                .await
                .expect("nobody cancels");
        });
    });
    assert_eq!(outcome.elapsed, Duration::from_millis(51));
}

#[test]
fn a_core_that_is_interrupted_all_the_time_is_not_to_blame() {
    let faults = Faults::none()
        .rate(Fault::SpuriousWake, 1.0)
        .rate(Fault::EnterInterrupted, 0.9);
    let outcome = sim().faults(faults).block_on(async {
        sleep(Duration::from_secs(1)).await.expect("nobody cancels");
    });
    assert!(outcome.came(Fault::SpuriousWake) > 64);
}

#[test]
fn all_orders_are_explored_without_faults_but_those_that_are_forced() {
    let mut came = (0, 0);
    explore(100, |sim| {
        let outcome = sim
            .faults(Faults::benign().rate(Fault::SlowTurn, 0.9))
            .force(Fault::CoreStalls, 0)
            .block_on(async { yield_now().await.expect("nobody cancels") });
        came.0 += outcome.came(Fault::SlowTurn);
        came.1 += outcome.came(Fault::CoreStalls);
    });
    assert_eq!(came.0, 0);
    assert!(came.1 > 0);
}

/// The first run has more to decide than those after it, which go where it went as far as they go.
#[test]
fn an_order_that_ends_too_early_is_told() {
    let mut runs = 0;
    let failed = failure(|| {
        explore(100, |sim| {
            runs += 1;
            let rounds = if runs == 1 { 3 } else { 1 };
            sim.block_on(async move {
                for _ in 0..rounds {
                    drop(spawn(async {}));
                    drop(spawn(async {}));
                    yield_now().await.expect("nobody cancels");
                }
            });
        });
    });
    let told = "decides by something other than the simulation";
    assert!(failed.contains(told), "{failed}");
    assert_eq!(runs, 2);
}

#[test]
fn a_runtime_that_outlives_its_simulation_waits_for_no_core_of_the_next() {
    static KEPT: Mutex<Option<Runtime>> = Mutex::new(None);
    sim().run(|| {
        let runtime = cores(2);
        runtime.handle().shutdown();
        KEPT.lock().expect("nobody panics").replace(runtime);
    });
    sim().run(|| {
        let kept = KEPT.lock().expect("nobody panics").take();
        drop(kept.expect("kept above"));
    });
}

#[test]
fn the_wall_clock_does_not_go_back_over_centuries() {
    let century = Duration::from_secs(100 * 365 * 86_400);
    sim().block_on(async {
        let mut before = SystemTime::UNIX_EPOCH;
        for _ in 0..5 {
            sleep(century).await.expect("nobody cancels");
            let now = wall_clock();
            assert!(now >= before, "{now:?} came after {before:?}");
            before = now;
        }
    });
}

#[test]
fn signals_are_refused_with_what_to_do_instead() {
    let outside = Signals::block(&[Signal::User2]).expect("a thread of a test may block them");
    sim().run(|| {
        let refused = [
            Signals::block(&[Signal::User2]).map(drop),
            outside.wait().map(drop),
            outside.stream().map(drop),
        ];
        for refused in refused {
            let error = refused.expect_err("there are none");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("sim::after"), "{error}");
        }
    });
}

#[test]
fn names_are_refused_with_what_to_do_instead() {
    sim().block_on(async {
        let client = Client::new();
        let error = client.get("http://localhost:1/").send().await;
        let error = error.expect_err("nobody is asked where it is");
        assert!(error.to_string().contains("`addresses`"), "{error}");
    });
}
