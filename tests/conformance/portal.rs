//! Threads of the program's own, and the tasks that they start on cores.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use quoit::time::sleep;
use quoit::{Cancelled, Cores, Handle, Reason, RemoteError, RemoteHandle, Runtime, SpawnError};
use tests::{Kernel, on_both};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

fn one_core() -> (Runtime, Handle) {
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    (runtime, handle)
}

/// Starts a task that sleeps, and counts how often it asks to.
fn sleeper(handle: &Handle, asked: &Arc<AtomicU32>) -> RemoteHandle<Result<(), Cancelled>> {
    let asked = Arc::clone(asked);
    let task = handle.spawn(handle.cores()[0], move || async move {
        asked.fetch_add(1, Ordering::AcqRel);
        sleep(LONG).await
    });
    task.expect("there is room in the mailbox")
}

fn is_cancelled(outcome: Result<Result<(), Cancelled>, RemoteError>, reason: Reason) {
    match outcome {
        Ok(Err(cancelled)) => assert_eq!(cancelled.reason(), reason),
        other => panic!("{other:?}"),
    }
}

/// Lets a core do something, outside of all cores.
fn give_way() {
    if Kernel::here().is_simulated() {
        quoit::block_on(sleep(Duration::from_micros(50)))
            .expect("no fault refuses a ring here")
            .expect("nobody cancels");
    } else {
        std::thread::yield_now();
    }
}

#[test]
fn c131_task_that_is_cancelled_in_the_next_instruction_is_polled_once() {
    on_both(|| {
        let (_runtime, handle) = one_core();
        for _ in 0..50 {
            let asked = Arc::default();
            let task = sleeper(&handle, &asked);
            task.cancel();
            is_cancelled(task.wait(), Reason::Requested);
            assert_eq!(asked.load(Ordering::Acquire), 1);
        }
    });
}

#[test]
fn c131_task_that_is_cancelled_before_its_core_takes_it_is_polled_once() {
    // A task holds the core meanwhile: on the ring alone.
    let (_runtime, handle) = one_core();
    let (holds, free) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (tell, until) = (Arc::clone(&holds), Arc::clone(&free));
    let holder = handle.spawn(handle.cores()[0], move || async move {
        tell.store(true, Ordering::Release);
        while !until.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    });
    let holder = holder.expect("there is room");
    while !holds.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    let asked = Arc::default();
    let task = sleeper(&handle, &asked);
    task.cancel();
    task.cancel();
    assert_eq!(asked.load(Ordering::Acquire), 0);
    free.store(true, Ordering::Release);
    holder.wait().expect("it ends");
    is_cancelled(task.wait(), Reason::Requested);
    assert_eq!(asked.load(Ordering::Acquire), 1);
}

#[test]
fn c131_task_that_is_cancelled_while_it_waits_ends_too() {
    on_both(|| {
        let (_runtime, handle) = one_core();
        let asked = Arc::default();
        let task = sleeper(&handle, &asked);
        while asked.load(Ordering::Acquire) == 0 {
            give_way();
        }
        task.cancel();
        is_cancelled(task.wait(), Reason::Requested);
        assert_eq!(asked.load(Ordering::Acquire), 1);
    });
}

#[test]
fn c131_cancel_after_the_end_does_nothing() {
    on_both(|| {
        let (_runtime, handle) = one_core();
        let ended = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&ended);
        let task = handle.spawn(handle.cores()[0], move || async move {
            tell.store(true, Ordering::Release);
            7
        });
        let task = task.expect("there is room");
        while !ended.load(Ordering::Acquire) {
            give_way();
        }
        task.cancel();
        assert_eq!(task.wait().expect("it has ended"), 7);
    });
}

#[test]
fn c131_portal_that_has_stopped_gives_the_task_back() {
    on_both(|| {
        let (runtime, handle) = one_core();
        let before = sleeper(&handle, &Arc::default());
        runtime.shutdown(LONG);
        before.cancel();
        // It had its turn, or the core ended without it.
        match before.wait() {
            Ok(Err(cancelled)) => assert_eq!(cancelled.reason(), Reason::Shutdown),
            Err(RemoteError::Gone) => {}
            other => panic!("{other:?}"),
        }
        let refused = handle.spawn(handle.cores()[0], || async {});
        assert!(matches!(refused, Err(SpawnError::Closed(_))), "{refused:?}");
    });
}

#[test]
fn c131_task_sent_while_the_portal_stops_is_cancelled_or_given_back() {
    on_both(|| {
        let (runtime, handle) = one_core();
        handle.shutdown_within(LONG);
        let mut told = 0;
        for _ in 0..50 {
            let task = handle.spawn(handle.cores()[0], || sleep(LONG));
            match task {
                Ok(task) => {
                    task.cancel();
                    match task.wait() {
                        Ok(Err(_)) | Err(RemoteError::Gone) => told += 1,
                        other => panic!("{other:?}"),
                    }
                }
                Err(SpawnError::Closed(_)) => told += 1,
                Err(refused) => panic!("{refused:?}"),
            }
        }
        assert_eq!(told, 50);
        drop(runtime);
    });
}

#[test]
fn c132_wait_ends_though_the_core_shuts_down() {
    on_both(|| {
        for grace in [Duration::ZERO, Duration::from_millis(5)] {
            let (runtime, handle) = one_core();
            let began = Arc::new(AtomicBool::new(false));
            let tell = Arc::clone(&began);
            // One that ends when it is cancelled, one that does not, and one that is not taken yet.
            let sleeps = sleeper(&handle, &Arc::default());
            let stays = handle.spawn(handle.cores()[0], move || {
                tell.store(true, Ordering::Release);
                pending::<()>()
            });
            while !began.load(Ordering::Acquire) {
                give_way();
            }
            handle.shutdown_within(grace);
            let late = handle.spawn(handle.cores()[0], || sleep(LONG));
            is_shut_down(sleeps.wait());
            assert!(matches!(
                stays.expect("there is room").wait(),
                Err(RemoteError::Gone)
            ));
            match late {
                Ok(late) => is_shut_down(late.wait()),
                Err(SpawnError::Closed(_)) => {}
                Err(refused) => panic!("{refused:?}"),
            }
            drop(runtime);
        }
    });
}

fn is_shut_down(outcome: Result<Result<(), Cancelled>, RemoteError>) {
    match outcome {
        Ok(Err(cancelled)) => assert_eq!(cancelled.reason(), Reason::Shutdown),
        Err(RemoteError::Gone) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn c132_thread_that_waits_is_told_of_the_end() {
    // A thread that has begun to wait before: on the ring alone.
    let (runtime, handle) = one_core();
    let core = handle.cores()[0];
    let began = Arc::new(AtomicU32::new(0));
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let (handle, began) = (handle.clone(), Arc::clone(&began));
            std::thread::spawn(move || {
                let task = handle.spawn(core, || std::future::poll_fn(|_| Poll::<()>::Pending));
                began.fetch_add(1, Ordering::AcqRel);
                task.expect("there is room").wait()
            })
        })
        .collect();
    while began.load(Ordering::Acquire) < 4 {
        std::thread::yield_now();
    }
    runtime.shutdown(Duration::ZERO);
    for waiter in waiters {
        let outcome = waiter.join().expect("no panic");
        assert!(matches!(outcome, Err(RemoteError::Gone)), "{outcome:?}");
    }
}
