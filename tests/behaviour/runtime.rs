//! Cores: built, pinned, reached from outside, stopped.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use quoit::sim::{Fault, Sim};
use quoit::time::{Instant, sleep};
use quoit::{
    BuildError, Cancelled, CoreId, Cores, Handle, JoinError, Misuse, Reason, RemoteError, Runtime,
    Scope, SpawnError, block_on, blocking, group, isolating_group, op, spawn, yield_now,
};
use tests::{
    Child, Counted, Drops, Kernel, gauges, in_child, on_both, on_core, on_core_of, threads,
};

const LONG: Duration = Duration::from_secs(3600);

/// The processors that the calling thread may run on, as the kernel writes them.
fn processors_here() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("every kernel tells").trim().to_owned()
}

fn processors() -> Vec<usize> {
    quoit::doctor::examine().processors
}

// --- building and running ---

#[test]
fn main_runs_once_on_every_core() {
    on_both(|| {
        let runtime = Runtime::builder().cores(Cores::All).build().expect("cores");
        let expected: Vec<CoreId> = runtime.handle().cores();
        if !Kernel::here().is_simulated() {
            assert_eq!(expected.len(), processors().len());
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        let outcome = runtime.run(move |core| {
            let notes = Arc::clone(&notes);
            async move {
                assert_eq!(CoreId::current(), Some(core));
                notes.lock().expect("no panic").push(core);
                Ok::<_, io::Error>(())
            }
        });
        outcome.expect("every main ended well");
        let mut seen = seen.lock().expect("no panic").clone();
        seen.sort_by_key(|core| core.index());
        assert_eq!(seen, expected);
        assert_eq!(CoreId::current(), None);
    });
}

/// A main is no closure that may be given back: nobody would notice.
#[test]
fn mains_wait_for_room_in_a_full_mailbox() {
    on_both(|| {
        let runtime = Runtime::builder().cores(Cores::Count(1));
        let runtime = runtime.mailbox_capacity(1).build().expect("a core");
        let handle = runtime.handle();
        // In the simulation it lies there until somebody waits.
        let first = handle.spawn(handle.cores()[0], || async {});
        let ran = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&ran);
        let outcome = runtime.run(move |_| {
            let note = Arc::clone(&note);
            async move {
                note.store(true, Ordering::Relaxed);
                Ok::<_, Cancelled>(())
            }
        });
        assert_eq!(outcome, Ok(()));
        assert!(ran.load(Ordering::Relaxed), "the main was left out");
        first.expect("room").wait().expect("it ended");
    });
}

#[test]
fn a_main_is_sent_where_a_mailbox_was_full_for_a_moment() {
    Sim::with_seed(0).force(Fault::MailboxFull, 0).run(|| {
        let runtime = Runtime::builder().cores(Cores::Count(1));
        let runtime = runtime.build().expect("a core");
        let outcome = runtime.run(async |_| Err::<(), _>(io::Error::other("it ran")));
        assert_eq!(outcome.expect_err("it says so").to_string(), "it ran");
    });
}

/// Of a thread that has to be told of the room.
#[test]
fn a_main_is_sent_when_a_busy_core_has_room() {
    let runtime = Runtime::builder().cores(Cores::Count(1));
    let runtime = runtime.mailbox_capacity(1).build().expect("a core");
    let handle = runtime.handle();
    let core = handle.cores()[0];
    let (running, runs) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let busy = handle.spawn(core, move || async move {
        running.send(()).expect("the test listens");
        released.recv().expect("the test releases");
    });
    runs.recv().expect("the core runs the task, and only it");
    let second = handle.spawn(core, || async {});
    let (tell, told) = mpsc::channel();
    let (tell_thread, thread) = mpsc::channel();
    let main = std::thread::spawn(move || {
        let own = std::fs::read_link("/proc/thread-self").expect("/proc");
        tell_thread.send(own).expect("the test listens");
        runtime.run(move |_| {
            let tell = tell.clone();
            async move {
                tell.send(()).expect("the test listens");
                Ok::<_, Cancelled>(())
            }
        })
    });
    let stat = PathBuf::from("/proc")
        .join(thread.recv().expect("it runs"))
        .join("stat");
    let sleeps = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") S "));
    while !sleeps() {
        std::thread::yield_now();
    }
    release.send(()).expect("the task waits");
    let outcome = main.join().expect("no panic");
    assert_eq!(outcome, Ok(()));
    assert_eq!(told.try_recv(), Ok(()), "the main was left out");
    busy.expect("room").wait().expect("it ended");
    second.expect("room").wait().expect("it ended");
}

#[test]
fn block_on_lets_the_future_borrow() {
    on_both(|| {
        let mut log = vec![1];
        block_on(async {
            yield_now().await.expect("nobody cancels");
            log.push(2);
        })
        .expect("a core");
        assert_eq!(log, [1, 2]);
    });
}

#[test]
fn block_on_wants_one_core() {
    on_both(|| {
        if processors().len() < 2 {
            return;
        }
        let error = Runtime::builder().cores(Cores::Count(2)).block_on(async {});
        assert!(matches!(error, Err(BuildError::Cores(_))), "{error:?}");
    });
}

#[test]
fn block_on_inside_a_core_panics_and_the_core_goes_on() {
    on_core(|_| async {
        let inner = spawn(async { block_on(async {}) });
        let error = inner.await.expect_err("a core cannot block");
        assert!(
            error.to_string().contains("await the future instead"),
            "{error}"
        );
        op::nop().await.expect("the core works");
    });
}

#[test]
fn runtimes_one_after_the_other_all_work() {
    for round in 0..50_u32 {
        let answer = on_core(move |_| async move {
            op::nop().await.expect("the core works");
            round
        });
        assert_eq!(answer, round);
    }
}

/// A core is pinned: what its thread may use is not what the process may.
#[test]
fn a_runtime_that_is_built_on_a_core_has_all_processors() {
    let all = (processors(), processors_here());
    let runtime = Runtime::builder().cores(Cores::Count(1)).build();
    let runtime = runtime.expect("a core");
    let core = runtime.handle().cores()[0];
    let seen = runtime.handle().spawn(core, || async {
        let inner = Runtime::builder().build().expect("cores");
        assert_eq!(inner.handle().cores().len(), processors().len());
        // Nor are its threads for jobs.
        let innermost = inner.handle().cores()[0];
        let (tell, told) = mpsc::channel();
        let job = inner.handle().spawn(innermost, move || {
            blocking::run(move |_| tell.send(processors_here()))
        });
        drop(job.expect("room"));
        (processors(), told.recv().expect("it says so"))
    });
    let seen = seen.expect("room").wait().expect("it ends");
    assert_eq!(seen, all);
}

#[test]
fn runtimes_side_by_side_reach_each_other() {
    on_both(|| {
        let one = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let two = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("b");
        let (first, second) = (one.handle(), two.handle());
        assert_ne!(first.cores()[0], second.cores()[0]);
        let (tell, told) = mpsc::channel();
        let inner = second.clone();
        let outer = first
            .spawn(first.cores()[0], move || async move {
                let core = inner.cores()[0];
                let there = inner.spawn(core, move || async move {
                    op::nop().await.expect("the other core works");
                    tell.send(CoreId::current()).expect("the test listens");
                });
                // A core does not wait for another by blocking.
                let refused = there.expect("there is room").wait();
                assert!(matches!(refused, Err(RemoteError::WouldBlock)));
                CoreId::current()
            })
            .expect("there is room");
        assert_eq!(outer.wait().expect("it ended"), Some(first.cores()[0]));
        // Asked there, since only a core may wait for it without a handle.
        let asking = second.spawn(second.cores()[0], move || async move {
            loop {
                match told.try_recv() {
                    Ok(core) => return core,
                    Err(_) => sleep(Duration::from_micros(50))
                        .await
                        .expect("nobody cancels"),
                }
            }
        });
        let core = asking.expect("there is room").wait().expect("it ran");
        assert_eq!(core, Some(second.cores()[0]));
    });
}

#[test]
fn a_handle_does_not_reach_cores_of_another_runtime() {
    on_both(|| {
        let one = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let two = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("b");
        let stranger = two.handle().cores()[0];
        let spawned = catch_unwind(AssertUnwindSafe(|| {
            one.handle().spawn(stranger, || async {})
        }));
        let payload = spawned.map(drop).expect_err("not its own runtime");
        let said = payload.downcast_ref::<String>().map(String::as_str);
        let said = said.or(payload.downcast_ref::<&str>().copied());
        assert!(said.expect("it says why").contains("its own runtime"));
    });
}

// --- tasks ---

#[test]
fn tasks_need_not_be_send_and_all_run() {
    on_core(|handle| async move {
        let sum = Rc::new(Cell::new(0_u64));
        let tasks: Vec<_> = (0..10_000_u64)
            .map(|number| {
                let sum = Rc::clone(&sum);
                spawn(async move {
                    yield_now().await.expect("nobody cancels");
                    sum.set(sum.get() + number);
                    number
                })
            })
            .collect();
        for (number, task) in (0..).zip(tasks) {
            assert_eq!(task.await.expect("it ended"), number);
        }
        assert_eq!(sum.get(), 10_000 * 9_999 / 2);
        let counters = gauges(&handle).await;
        // One more is the body of this test.
        assert_eq!(counters.spawned, 10_001);
        assert_eq!(counters.tasks, 1);
        // The root scope and that of this task.
        assert_eq!(counters.scopes, 2);
    });
}

#[test]
fn a_task_goes_on_when_its_handle_is_dropped() {
    on_core(|_| async {
        let ended = Rc::new(Cell::new(false));
        let note = Rc::clone(&ended);
        drop(spawn(async move {
            op::nop().await.expect("the core works");
            note.set(true);
        }));
        while !ended.get() {
            op::nop().await.expect("the core works");
        }
    });
}

#[test]
fn a_handle_says_whether_its_task_has_ended() {
    on_core(|_| async {
        let task = spawn(async { 7 });
        assert!(!task.is_finished());
        while !task.is_finished() {
            yield_now().await.expect("nobody cancels");
        }
        assert_eq!(task.await.expect("it ended"), 7);
    });
}

#[test]
fn a_panic_of_a_task_stays_in_the_task() {
    on_core(|handle| async move {
        let joined = spawn(async { panic!("one") });
        drop(spawn(async { panic!("two") }));
        let error: JoinError = joined.await.expect_err("it panicked");
        assert_eq!(error.to_string(), "the task panicked: one");
        let later = spawn(async {
            op::nop().await.expect("the core works");
            1
        });
        assert_eq!(later.await.expect("it ended"), 1);
        assert_eq!(handle.metrics()[0].panics, 2);
    });
}

#[test]
fn a_panic_in_a_destructor_stays_in_the_task() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    on_core(|_| async {
        let output = spawn(async { Panics });
        while !output.is_finished() {
            yield_now().await.expect("nobody cancels");
        }
        // An output that nobody takes is dropped on the core.
        drop(spawn(async { Panics }));
        let body = spawn(async {
            let _held = Panics;
            op::nop().await.expect("the core works");
        });
        assert!(matches!(body.await, Err(JoinError::Panicked(_))));
        std::mem::forget(output.await.expect("it ended well"));
        op::nop().await.expect("the core works");
    });
}

#[test]
fn a_core_that_has_ended_says_what_it_said_last_and_nothing_of_a_stranger() {
    let test = "runtime::a_core_that_has_ended_says_what_it_said_last_and_nothing_of_a_stranger";
    in_child(test, || {
        let busy = |turns: u32| {
            let runtime = Runtime::builder().cores(Cores::Count(1));
            let runtime = runtime.build().expect("a core");
            let handle = runtime.handle();
            let task = handle.spawn(handle.cores()[0], move || async move {
                for _ in 0..turns {
                    yield_now().await.expect("nobody cancels");
                }
            });
            task.expect("room").wait().expect("it ended");
            (runtime, handle)
        };
        let polls = |handle: &quoit::Handle| {
            let told = handle.snapshot().cores[0].count("polls", None);
            assert_eq!(told, Some(handle.metrics()[0].polls));
            told.expect("every core counts them")
        };
        let (first, handle) = busy(10);
        first.shutdown(Duration::ZERO);
        assert_eq!(polls(&handle), 11);
        // It is the lowest number that is free.
        let (_second, _) = busy(10_000);
        assert_eq!(polls(&handle), 0);
        let told = &handle.snapshot().cores[0];
        assert_eq!((told.uptime, told.parked), (Duration::ZERO, Duration::ZERO));
        assert!(
            told.latencies
                .iter()
                .all(|latency| latency.histogram.is_empty())
        );
    });
}

// --- the mailbox ---

#[test]
fn a_core_that_has_ended_gives_the_closure_back() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let handle = runtime.handle();
        drop(runtime);
        let drops = Drops::new();
        let counted = drops.value();
        let refused = handle.spawn(handle.cores()[0], move || async move { drop(counted) });
        match refused {
            Err(SpawnError::Closed(closure)) => {
                assert_eq!(drops.dropped(), 0);
                drop(closure);
                assert_eq!(drops.alive(), 0);
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("the core has ended"),
        }
    });
}

#[test]
fn who_waits_hears_of_a_panic_and_of_a_core_that_ended() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let handle = runtime.handle();
        let core = handle.cores()[0];
        let panicking = handle.spawn(core, || async { panic!("as planned") });
        let outcome: Result<(), RemoteError> = panicking.expect("room").wait();
        assert!(matches!(outcome, Err(RemoteError::Panicked(_))));
        let in_closure = handle.spawn(core, || {
            assert!(CoreId::current().is_none(), "as planned");
            async {}
        });
        assert!(matches!(
            in_closure.expect("room").wait(),
            Err(RemoteError::Panicked(_))
        ));
        let endless = handle
            .spawn(core, std::future::pending::<()>)
            .expect("room");
        runtime.shutdown(Duration::ZERO);
        assert!(matches!(endless.wait(), Err(RemoteError::Gone)));
    });
}

// --- how mains end ---

#[test]
fn the_first_error_cancels_the_other_mains_and_comes_out() {
    on_both(|| {
        let runtime = Runtime::builder().cores(Cores::All).build().expect("cores");
        let others = runtime.handle().cores().len() - 1;
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&reasons);
        let outcome = runtime.run(move |core| {
            let notes = Arc::clone(&notes);
            async move {
                if core.index() == 0 {
                    return Err(io::Error::other("the first"));
                }
                let cancelled = sleep(LONG).await.expect_err("the first main fails");
                notes.lock().expect("no panic").push(cancelled.reason());
                Err(io::Error::from(cancelled))
            }
        });
        assert_eq!(outcome.expect_err("it failed").to_string(), "the first");
        assert_eq!(
            *reasons.lock().expect("no panic"),
            vec![Reason::Shutdown; others]
        );
    });
}

#[test]
fn a_panic_of_a_main_comes_out_after_all_cores_have_stopped() {
    on_both(|| {
        let runtime = Runtime::builder().cores(Cores::All).build().expect("cores");
        let count = runtime.handle().cores().len() as u64;
        let drops = Drops::new();
        let inner = drops.clone();
        let main = move |core: CoreId| {
            let counted = inner.value();
            async move {
                let _counted = counted;
                assert!(core.index() != 0, "as planned");
                sleep(LONG).await
            }
        };
        let payload =
            catch_unwind(AssertUnwindSafe(|| runtime.run(main))).expect_err("a main panicked");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"as planned"));
        assert_eq!(drops.dropped(), count);
    });
}

#[test]
fn a_panic_of_the_future_of_block_on_comes_out() {
    on_both(|| {
        let payload = catch_unwind(|| {
            block_on(async {
                op::nop().await.expect("the core works");
                panic!("as planned");
            })
        })
        .expect_err("the future panicked");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"as planned"));
        block_on(op::nop()).expect("a core").expect("it works");
    });
}

#[test]
fn mains_that_a_shutdown_cancelled_count_as_ended() {
    on_both(|| {
        let runtime = Runtime::builder().cores(Cores::All).build().expect("cores");
        let handle = runtime.handle();
        let outcome = runtime.run(move |core| {
            let handle = handle.clone();
            async move {
                if core.index() == 0 {
                    handle.shutdown();
                }
                sleep(LONG).await
            }
        });
        assert_eq!(outcome, Ok(()));
    });
}

/// An error that lets time pass before it says what it carries: until its core has ended, and the core's number is
/// another's.
#[derive(Debug)]
struct Late(Cancelled);

static WITHOUT_A_CORE: OnceLock<usize> = OnceLock::new();

impl Late {
    fn lets_time_pass() {
        // Until the process ends.
        static OTHER: OnceLock<Mutex<Runtime>> = OnceLock::new();
        OTHER.get_or_init(|| {
            while threads() > *WITHOUT_A_CORE.get().expect("the test has counted") {
                std::thread::yield_now();
            }
            let other = Runtime::builder().cores(Cores::Count(1)).build();
            Mutex::new(other.expect("a core"))
        });
    }
}

impl From<Cancelled> for Late {
    fn from(cancelled: Cancelled) -> Self {
        Self(cancelled)
    }
}

impl quoit::CarriesCancelled for Late {
    fn cancelled(&self) -> Option<Cancelled> {
        Self::lets_time_pass();
        Some(self.0)
    }
}

#[test]
fn a_main_that_a_shutdown_cancelled_counts_as_ended_also_when_its_core_is_gone() {
    let test =
        "runtime::a_main_that_a_shutdown_cancelled_counts_as_ended_also_when_its_core_is_gone";
    in_child(test, || {
        WITHOUT_A_CORE.get_or_init(threads);
        let runtime = Runtime::builder().cores(Cores::Count(1));
        let runtime = runtime.build().expect("a core");
        let handle = runtime.handle();
        let outcome = runtime.run(move |_| {
            let handle = handle.clone();
            async move {
                handle.shutdown();
                Ok::<_, Late>(sleep(LONG).await?)
            }
        });
        assert!(outcome.is_ok(), "{outcome:?}");
    });
}

#[test]
fn an_error_that_is_no_cancel_comes_out_of_a_shutdown() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let handle = runtime.handle();
        let outcome = runtime.run(move |_| {
            let handle = handle.clone();
            async move {
                handle.shutdown();
                sleep(LONG).await.expect_err("the runtime stops");
                Err::<(), _>(io::Error::other("could not save"))
            }
        });
        assert_eq!(
            outcome.expect_err("it failed").to_string(),
            "could not save"
        );
    });
}

#[test]
fn what_failed_beside_a_cancel_comes_out_of_a_shutdown() {
    on_both(|| {
        let runtime = Runtime::builder().cores(Cores::Count(1));
        let runtime = runtime.build().expect("a core");
        let handle = runtime.handle();
        let outcome = runtime.run(move |_| {
            let handle = handle.clone();
            async move {
                let worked = group(async |g| {
                    g.spawn(async {
                        sleep(LONG).await.expect_err("the runtime stops");
                        Err::<(), _>(io::Error::other("could not save"))
                    });
                    yield_now().await?;
                    handle.shutdown();
                    Ok(sleep(LONG).await?)
                });
                Ok::<_, io::Error>(worked.await.map(drop)?)
            }
        });
        let failed = outcome.expect_err("a child failed");
        assert_eq!(failed.to_string(), "could not save");
    });
}

#[test]
fn a_main_that_ends_with_a_cancelled_of_elsewhere_has_failed() {
    on_both(|| {
        let runtime = Runtime::builder().cores(Cores::Count(1));
        let runtime = runtime.build().expect("a core");
        let outcome = runtime.run(async |_| {
            let scope = Scope::new();
            let mut kept = None;
            let done = scope.run(async {
                scope.cancel();
                kept = sleep(LONG).await.err();
                Ok::<_, Cancelled>(())
            });
            done.await?;
            Err(kept.expect("it was refused"))
        });
        let failed = outcome.expect_err("nothing was cancelled here");
        assert_eq!(failed.reason(), Reason::Misuse(Misuse::Stray));
    });
}

#[test]
fn tasks_that_outlive_the_mains_are_cancelled_and_their_values_dropped() {
    on_both(|| {
        let drops = Drops::new();
        let inner = drops.clone();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let outcome = runtime.run(move |_| {
            let (drops, seen) = (inner.clone(), Arc::clone(&counter));
            async move {
                for _ in 0..100 {
                    let (counted, seen) = (drops.value(), Arc::clone(&seen));
                    drop(spawn(async move {
                        let _counted = counted;
                        let cancelled = sleep(LONG).await.expect_err("the runtime stops");
                        assert_eq!(cancelled.reason(), Reason::Shutdown);
                        seen.fetch_add(1, Ordering::Relaxed);
                    }));
                }
                op::nop().await
            }
        });
        outcome.expect("the main ended well");
        assert_eq!(seen.load(Ordering::Relaxed), 100);
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn tasks_that_block_on_leaves_behind_are_gone_when_it_returns() {
    on_both(|| {
        let drops = Drops::new();
        block_on(async {
            for _ in 0..10 {
                let counted = drops.value();
                drop(spawn(async move {
                    let _counted = counted;
                    let _ = sleep(LONG).await;
                }));
            }
            yield_now().await.expect("nobody cancels");
            assert_eq!(drops.dropped(), 0);
        })
        .expect("a core");
        assert_eq!(drops.dropped(), 10);
    });
}

// --- shutdown ---

#[test]
fn shutdown_returns_as_soon_as_all_tasks_have_ended() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let handle = runtime.handle();
        let drops = Drops::new();
        let counted = drops.value();
        let task = handle.spawn(handle.cores()[0], move || async move {
            let _counted = counted;
            sleep(LONG).await
        });
        // The grace period is an hour; the task takes none of it.
        runtime.shutdown(LONG);
        assert_eq!(drops.dropped(), 1);
        let outcome = task.expect("room").wait().expect("it ended by itself");
        assert_eq!(outcome.map_err(Cancelled::reason), Err(Reason::Shutdown));
    });
}

#[test]
fn a_task_may_use_its_grace_to_say_goodbye() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let handle = runtime.handle();
        let said = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&said);
        let task = handle.spawn(handle.cores()[0], move || async move {
            sleep(LONG).await.expect_err("the runtime stops");
            let goodbye = quoit::Scope::new()
                .shielded()
                .run(async { sleep(Duration::from_millis(20)).await })
                .await;
            note.store(goodbye == Ok(Some(())), Ordering::Relaxed);
        });
        runtime.shutdown(LONG);
        task.expect("room").wait().expect("it ended by itself");
        assert!(said.load(Ordering::Relaxed));
    });
}

#[test]
fn tasks_that_never_end_are_dropped_after_the_grace_period() {
    on_both(|| {
        for grace in [Duration::ZERO, Duration::from_millis(20)] {
            let runtime = Runtime::builder()
                .cores(Cores::Count(1))
                .build()
                .expect("a");
            let handle = runtime.handle();
            let drops = Drops::new();
            let inner = drops.clone();
            let spawned = handle.spawn(handle.cores()[0], move || async move {
                for _ in 0..100 {
                    let counted = inner.value();
                    drop(spawn(async move {
                        let _counted = counted;
                        std::future::pending::<()>().await;
                    }));
                }
            });
            spawned.expect("room").wait().expect("it ended");
            assert_eq!(drops.alive(), 100);
            let begin = Instant::now();
            runtime.shutdown(grace);
            assert!(begin.elapsed() >= grace, "{grace:?}");
            assert_eq!(drops.alive(), 0, "{grace:?}");
        }
    });
}

#[test]
fn destructors_that_start_tasks_do_not_hold_a_shutdown_up() {
    on_both(|| {
        struct Spawns(Counted);
        impl Drop for Spawns {
            fn drop(&mut self) {
                drop(spawn(async {}));
            }
        }
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let handle = runtime.handle();
        let drops = Drops::new();
        let held = Spawns(drops.value());
        let spawned = handle.spawn(handle.cores()[0], move || async move {
            drop(spawn(async move {
                let _held = (&held.0, &held);
                std::future::pending::<()>().await;
            }));
        });
        spawned.expect("room").wait().expect("it ended");
        runtime.shutdown(Duration::ZERO);
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn no_patience_at_all_overrules_a_long_grace_period() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let handle = runtime.handle();
        let endless = handle.spawn(handle.cores()[0], std::future::pending::<()>);
        handle.shutdown_within(LONG);
        handle.shutdown_within(Duration::ZERO);
        assert!(matches!(
            endless.expect("room").wait(),
            Err(RemoteError::Gone)
        ));
        drop(runtime);
    });
}

#[test]
fn a_runtime_dropped_stops_within_its_own_grace_period() {
    on_both(|| {
        let drops = Drops::new();
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .grace_period(Duration::from_millis(10))
            .build()
            .expect("a core");
        let handle = runtime.handle();
        let counted = drops.value();
        let endless = handle.spawn(handle.cores()[0], move || async move {
            let _counted = counted;
            std::future::pending::<()>().await;
        });
        drop(runtime);
        assert_eq!(drops.alive(), 0);
        assert!(matches!(
            endless.expect("room").wait(),
            Err(RemoteError::Gone)
        ));
    });
}

// --- settings ---

#[test]
fn every_setting_works_at_its_limits() {
    let mut limits = vec![
        Runtime::builder().submission_entries(8),
        Runtime::builder()
            .submission_entries(8)
            .completion_entries(8),
        Runtime::builder().submission_entries(32_768),
        Runtime::builder()
            .submission_entries(32_768)
            .completion_entries(32_768),
        Runtime::builder()
            .submission_entries(8)
            .completion_entries(65_536),
        Runtime::builder().spin_before_park(Duration::from_secs(1)),
        Runtime::builder().mailbox_capacity(1),
        Runtime::builder().mailbox_capacity(1 << 20),
        Runtime::builder().receive_buffers(4, 512),
        Runtime::builder().receive_buffers(32_768, 512),
        Runtime::builder().receive_buffers(4, 1 << 20),
    ];
    for builder in limits.drain(..) {
        on_core_of(builder, |_| async {
            let tasks: Vec<_> = (0..100).map(|_| spawn(op::nop())).collect();
            for task in tasks {
                task.await.expect("it ended").expect("the core works");
            }
        });
    }
}

#[test]
fn settings_past_their_limits_are_named() {
    on_both(|| {
        let refused =
            |builder: quoit::Builder| builder.build().expect_err("past a limit").to_string();
        let set: BTreeSet<String> = [
            refused(Runtime::builder().submission_entries(4)),
            refused(Runtime::builder().submission_entries(65_536)),
            refused(Runtime::builder().completion_entries(100)),
            refused(Runtime::builder().completion_entries(1 << 17)),
            refused(Runtime::builder().receive_buffers(2, 4096)),
            refused(Runtime::builder().receive_buffers(16, 1 << 21)),
            refused(Runtime::builder().mailbox_capacity(0)),
        ]
        .into();
        assert_eq!(set.len(), 7);
        for message in set {
            assert!(message.contains("but must be"), "{message}");
        }
    });
}

// --- on the real ring: processors and threads are the machine's ---

#[test]
fn each_core_runs_on_its_own_processor() {
    let wanted = processors();
    let runtime = Runtime::builder()
        .cores(Cores::List(wanted.clone()))
        .build()
        .expect("cores");
    let (tell, told) = mpsc::channel();
    let outcome = runtime.run(move |core| {
        let tell = tell.clone();
        async move {
            tell.send((core.index(), processors_here()))
                .expect("the test listens");
            Ok::<_, io::Error>(())
        }
    });
    outcome.expect("every main ended well");
    let mut seen: Vec<(usize, String)> = told.iter().collect();
    seen.sort();
    let expected: Vec<(usize, String)> = wanted
        .iter()
        .enumerate()
        .map(|(index, processor)| (index, processor.to_string()))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_process_restricted_to_one_processor_gets_one_core() {
    let last = processors().last().expect("at least one").to_string();
    let test = "runtime::a_process_restricted_to_one_processor_gets_one_core";
    Child::new()
        .under(["taskset", "-c", last.as_str()])
        .run(test, || {
            let allowed = processors();
            assert_eq!(allowed.len(), 1);
            let runtime = Runtime::builder()
                .cores(Cores::All)
                .build()
                .expect("a core");
            assert_eq!(runtime.handle().cores().len(), 1);
            runtime.shutdown(Duration::ZERO);
            let other = usize::from(allowed[0] == 0);
            let refused = |cores| {
                let built = Runtime::builder().cores(cores).build();
                built.expect_err("not allowed").to_string()
            };
            assert_eq!(
                refused(Cores::Count(2)),
                "2 cores were asked for, and this process may use 1"
            );
            assert!(refused(Cores::List(vec![other])).contains("is not among those"));
        });
}

#[test]
fn block_on_returns_the_output_and_leaves_the_thread_as_it_was() {
    let before = processors_here();
    let inside = Runtime::builder()
        .cores(Cores::Count(1))
        .block_on(async { processors_here() })
        .expect("a core");
    assert_eq!(inside, processors()[0].to_string());
    assert_eq!(processors_here(), before);
    let unpinned = block_on(async { processors_here() }).expect("a core");
    assert_eq!(unpinned, before);
    assert_eq!(CoreId::current(), None);
}

/// Else it would have the one processor that its starter is busy on.
#[test]
fn a_thread_that_a_core_starts_does_not_stay_on_that_core() {
    let here = processors_here();
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .build()
        .expect("a core");
    let handle = runtime.handle();
    let (tell, told) = mpsc::channel();
    let started = handle.spawn(handle.cores()[0], || async move {
        quoit::start_thread("elsewhere", move || {
            tell.send(processors_here()).expect("the test listens");
        })
    });
    let started = started.expect("room").wait().expect("no panic");
    started.expect("there is room for a thread");
    assert_eq!(told.recv().as_ref(), Ok(&here));
}

#[test]
fn a_thread_with_a_name_that_is_none_is_refused() {
    on_both(|| {
        let refused = quoit::start_thread("a\0b", || {}).expect_err("no name has a zero in it");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn a_runtime_that_has_ended_leaves_no_thread() {
    let test = "runtime::a_runtime_that_has_ended_leaves_no_thread";
    in_child(test, || {
        let before = threads();
        let runtime = Runtime::builder().cores(Cores::All).build().expect("cores");
        assert_eq!(threads(), before + processors().len());
        runtime.shutdown(Duration::ZERO);
        assert_eq!(threads(), before);
    });
}

// --- on the real ring: they block a core, wait by a channel, or compute until time has passed ---

#[test]
fn a_full_mailbox_gives_the_closure_back() {
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .mailbox_capacity(2)
        .build()
        .expect("a core");
    let handle = runtime.handle();
    let core = handle.cores()[0];
    let (running, runs) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let busy = handle.spawn(core, move || async move {
        running.send(()).expect("the test listens");
        released.recv().expect("the test releases");
    });
    runs.recv().expect("the core runs the task, and only it");
    let drops = Drops::new();
    let ran = Arc::new(AtomicUsize::new(0));
    let job = |counted: Counted| {
        let ran = Arc::clone(&ran);
        move || async move {
            let _counted = counted;
            ran.fetch_add(1, Ordering::Relaxed);
        }
    };
    let first = handle.spawn(core, job(drops.value())).expect("room");
    let second = handle.spawn(core, job(drops.value())).expect("room");
    let back = match handle.spawn(core, job(drops.value())) {
        Err(SpawnError::Full(closure)) => closure,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("there was no room"),
    };
    assert_eq!(drops.dropped(), 0);
    release.send(()).expect("the task waits");
    for task in [busy.expect("room"), first, second] {
        task.wait().expect("it ended");
    }
    let third = handle.spawn(core, back).expect("room again");
    third.wait().expect("it ended");
    assert_eq!(ran.load(Ordering::Relaxed), 3);
    assert_eq!(drops.alive(), 0);
}

/// Else a mailbox that is full all the time holds nobody up, and what it was to bound grows without end.
#[test]
fn a_core_takes_no_more_closures_than_it_gets_round_to() {
    const TASKS: u64 = 10_000;

    /// Sends as many as there is room for, of which each does so in turn.
    fn refill(handle: &Handle, polled: &Arc<AtomicU64>) {
        loop {
            let (own, count) = (handle.clone(), Arc::clone(polled));
            let sent = handle.spawn(handle.cores()[0], move || async move {
                if count.fetch_add(1, Ordering::Relaxed) < TASKS {
                    refill(&own, &count);
                }
            });
            if sent.map(drop).is_err() {
                return;
            }
        }
    }
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let handle = runtime.handle();
        let polled = Arc::new(AtomicU64::new(0));
        let behind = handle.spawn(handle.cores()[0], {
            let handle = handle.clone();
            move || async move {
                refill(&handle, &polled);
                let mut behind = 0;
                while polled.load(Ordering::Relaxed) < TASKS {
                    yield_now().await?;
                    let spawned = handle.metrics()[0].spawned;
                    behind = behind.max(spawned - polled.load(Ordering::Relaxed));
                }
                Ok::<_, Cancelled>(behind)
            }
        });
        let behind = behind.expect("room").wait().expect("it ended");
        let behind = behind.expect("nobody cancels");
        assert!(behind < 1_000, "{behind}");
    });
}

#[test]
fn tasks_that_swallow_every_cancel_do_not_hold_a_shutdown_up() {
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .build()
        .expect("a");
    let handle = runtime.handle();
    let drops = Drops::new();
    let inner = drops.clone();
    let spawned = handle.spawn(handle.cores()[0], move || async move {
        let counted = || inner.value();
        let held = counted();
        drop(spawn(async move {
            let _held = held;
            loop {
                let _ = sleep(LONG).await;
            }
        }));
        let held = counted();
        drop(spawn(async move {
            let _held = held;
            loop {
                let _ = yield_now().await;
            }
        }));
        let held = counted();
        drop(spawn(async move {
            let _held = held;
            loop {
                let _ = op::nop().await;
            }
        }));
        let held = counted();
        drop(spawn(async move {
            let _held = held;
            let event = quoit::sync::Event::new();
            loop {
                let _ = event.wait().await;
            }
        }));
        let held = counted();
        drop(spawn(async move {
            let _held = held;
            let (ours, _theirs) = tests::connected().await;
            loop {
                let _ = ours.recv().await;
            }
        }));
        let held = counted();
        drop(spawn(async move {
            let _held = held;
            loop {
                let endless = spawn(std::future::pending::<()>());
                let _ = endless.await;
            }
        }));
        op::nop().await.expect("the core works");
    });
    spawned.expect("room").wait().expect("it ended");
    runtime.shutdown(Duration::from_millis(20));
    assert_eq!(drops.alive(), 0);
    assert_eq!(drops.dropped(), 6);
}

/// The long one is short enough for the test to end if it counts, which would be wrong.
#[test]
fn the_shortest_grace_period_counts() {
    let long = Duration::from_secs(5);
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .build()
        .expect("a");
    let handle = runtime.handle();
    let core = handle.cores()[0];
    let (tell, told) = mpsc::channel();
    let stopping = handle.spawn(core, move || async move {
        // The core has begun to stop, by the long grace period, when it says so.
        let cancelled = sleep(LONG).await;
        tell.send(cancelled).expect("the test listens");
        std::future::pending::<()>().await;
    });
    let begin = Instant::now();
    handle.shutdown_within(long);
    told.recv()
        .expect("the task hears of it")
        .expect_err("the runtime stops");
    handle.shutdown_within(Duration::from_millis(1));
    assert!(matches!(
        stopping.expect("room").wait(),
        Err(RemoteError::Gone)
    ));
    assert!(begin.elapsed() < long, "the second call had no effect");
    drop(runtime);
}

/// The mains end at once, and the grace is for the tasks that they leave.
#[test]
fn the_end_of_the_mains_takes_nothing_of_the_grace_of_a_shutdown() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .grace_period(Duration::ZERO)
            .build()
            .expect("a");
        let handle = runtime.handle();
        let said = Arc::new(AtomicBool::new(false));
        let says = Arc::clone(&said);
        let main = move |_| {
            let (handle, says) = (handle.clone(), Arc::clone(&says));
            async move {
                drop(spawn(async move {
                    let goodbye = sleep(Duration::from_millis(50));
                    let said = Scope::new().grace_shielded().run(goodbye).await;
                    says.store(said == Ok(Some(())), Ordering::Relaxed);
                }));
                handle.shutdown_within(LONG);
                sleep(LONG).await
            }
        };
        assert_eq!(runtime.run(main), Ok(()));
        assert!(said.load(Ordering::Relaxed));
    });
}

// --- errors of tasks, as `io::Error` ---

#[test]
fn a_failed_child_is_joined_as_the_error_it_failed_with() {
    on_core(|_| async {
        let kinds = isolating_group(async |g| {
            let gone = g.spawn(async { Err::<(), _>(io::ErrorKind::NotFound.into()) });
            let panics = g.spawn::<()>(async { panic!("on purpose") });
            let gone = io::Error::from(gone.await.expect_err("it failed"));
            let panics = io::Error::from(panics.await.expect_err("it panicked"));
            Ok::<_, io::Error>((gone.kind(), panics.to_string()))
        });
        let (kind, text) = kinds.await.expect("told already").expect("not cancelled");
        assert_eq!(kind, io::ErrorKind::NotFound);
        assert_eq!(text, "the task panicked: on purpose");
    });
}

#[test]
fn what_a_thread_is_told_of_a_task_becomes_an_io_error() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a core");
        let (handle, core) = (runtime.handle(), runtime.handle().cores()[0]);
        let panics = handle.spawn(core, || async { panic!("on purpose") });
        let told: Result<(), _> = panics.expect("room").wait();
        let error = io::Error::from(told.expect_err("it panicked"));
        assert_eq!(error.to_string(), "the task panicked: on purpose");
        runtime.shutdown(Duration::ZERO);
        let refused = handle.spawn(core, || async {}).expect_err("it has ended");
        assert_eq!(io::Error::from(refused).to_string(), "the core has ended");
    });
}

#[test]
fn a_group_says_in_words_how_many_have_failed() {
    on_core(|_| async {
        for (count, said) in [
            (1, "one"),
            (2, "one (and 1 more failure; one)"),
            (3, "one (and 2 more failures; one; one)"),
        ] {
            let failed = group(async |g| {
                for _ in 0..count {
                    g.spawn(async { Err::<(), _>(io::Error::other("one")) });
                }
                Ok(())
            });
            assert_eq!(failed.await.expect_err("they failed").to_string(), said);
            let panics = spawn(group(async move |g| {
                g.spawn::<()>(async { panic!("two") });
                for _ in 0..count {
                    g.spawn(async { Err::<(), _>(io::Error::other("one")) });
                }
                Ok(())
            }));
            let told = panics.await.expect_err("it panicked").to_string();
            let plural = if count == 1 { "" } else { "s" };
            assert_eq!(
                told,
                format!("the task panicked: two; and {count} task{plural} failed")
            );
        }
    });
}
