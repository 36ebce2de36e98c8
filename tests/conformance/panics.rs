//! Panics, and the end of a runtime.
//!
//! A runtime that has ended is not looked at afterwards: it is gone, and what it leaves is counted.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use quoit::fs::OpenOptions;
use quoit::sim::{Fault, for_seeds, point};
use quoit::time::{Instant, sleep};
use quoit::{
    CancelHandle, Cores, Delivery, Group, GroupPanic, JoinError, Reason, Remote, Runtime, Scope,
    group, on, op, spawn, yield_now,
};
use quoit_net::TcpListener;
use tests::{
    Drops, Kernel, both_ends, conform, conform_on, descriptors, gauges, in_child, on_both, one_core,
};

use crate::support::{LONG, SHORT, pipe, reason, some_turns};

/// Waits, and takes a while to clean up; counts itself when that is done.
async fn waits(refused: Rc<Cell<u32>>) -> io::Result<()> {
    let outcome = sleep(LONG).await;
    let clean_up = Scope::new().shielded();
    clean_up.run(sleep(SHORT)).await?;
    refused.set(refused.get() + u32::from(outcome.is_err()));
    Ok(outcome?)
}

#[test]
fn c173_panic_of_a_child_comes_out_of_its_group_when_all_have_ended() {
    conform(|handle| async move {
        let refused = Rc::new(Cell::new(0));
        let inner = Rc::clone(&refused);
        let host = spawn(async move {
            let outcome = group(async |g: Group<io::Error>| {
                for _ in 0..2 {
                    g.spawn(waits(Rc::clone(&inner)));
                }
                g.spawn(async {
                    some_turns(2).await;
                    if true {
                        panic!("as planned");
                    }
                    Ok(())
                });
                waits(Rc::clone(&inner)).await
            });
            outcome.await.map(drop)
        });
        let error = host.await.expect_err("the group panicked");
        assert_eq!(error.to_string(), "the task panicked: as planned");
        assert_eq!(refused.get(), 3, "two children and the body");
        let counters = gauges(&handle).await;
        assert_eq!((counters.tasks, counters.scopes), (1, 2));
        op::nop().await.expect("the core goes on");
    });
}

#[test]
fn c174_first_of_several_panics_comes_out_with_the_others() {
    conform(|_| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let inner = Rc::clone(&order);
        let host = spawn(async move {
            let outcome = group(async |g: Group<io::Error>| {
                for name in ["one", "other"] {
                    let order = Rc::clone(&inner);
                    g.spawn(async move {
                        assert!(sleep(LONG).await.is_err());
                        order.borrow_mut().push(name);
                        if true {
                            panic!("{name}");
                        }
                        Ok(())
                    });
                }
                some_turns(1).await;
                g.spawn(async { Err::<(), _>(io::Error::other("E")) });
                Ok(())
            });
            outcome.await.map(drop)
        });
        let error = host.await.expect_err("the group panicked");
        let JoinError::Panicked(payload) = error else {
            panic!("{error}");
        };
        let panic = payload.downcast::<GroupPanic>().expect("more than one");
        assert_eq!((panic.others().len(), panic.failures()), (1, 1));
        let second = panic.others()[0].clone();
        let first = panic.into_first();
        let first = first.downcast_ref::<String>().expect("a text").clone();
        assert_eq!(
            *order.borrow(),
            [first, second],
            "in the order of the panics"
        );
    });
}

/// A waker that does its duty, and panics.
struct Panics(Waker);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
        panic!("in a waker");
    }
}

#[test]
fn c175_panic_during_a_delivery_keeps_it_from_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    conform(|handle| async move {
        let refused = Rc::new(Cell::new(0));
        let inner = Rc::clone(&refused);
        let before = gauges(&handle).await;
        let host = spawn(async move {
            let outcome = group(async |g: Group<io::Error>| {
                for index in 1..=10 {
                    let refused = Rc::clone(&inner);
                    g.spawn(async move {
                        let mut wait = pin!(sleep(LONG));
                        let outcome = poll_fn(|cx| match index {
                            5 => {
                                let waker = Waker::from(Arc::new(Panics(cx.waker().clone())));
                                wait.as_mut().poll(&mut Context::from_waker(&waker))
                            }
                            _ => wait.as_mut().poll(cx),
                        })
                        .await;
                        refused.set(refused.get() + u32::from(outcome.is_err()));
                        let _bomb = (index == 3).then(|| Bomb);
                        Ok(outcome?)
                    });
                }
                some_turns(1).await;
                g.cancel();
                op::nop().await
            });
            outcome.await.map(drop)
        });
        let error = host.await.expect_err("a destructor panicked");
        assert_eq!(error.to_string(), "the task panicked: in a destructor");
        assert_eq!(refused.get(), 10);
        let after = gauges(&handle).await;
        assert_eq!(after.aborts - before.aborts, 10);
        assert!(after.panics > before.panics, "the waker's is counted");
        assert_eq!((after.tasks, after.scopes), (before.tasks, before.scopes));
    });
}

#[test]
fn c176_panic_of_a_child_elsewhere_is_its_caller_s_failure() {
    conform_on(2, |handle| async move {
        let there = handle.cores()[1];
        let refused = Rc::new(Cell::new(0));
        let outcome = group(async |g: Group<io::Error>| {
            g.spawn(waits(Rc::clone(&refused)));
            on(there, || async {
                op::nop().await?;
                if true {
                    panic!("as planned");
                }
                Ok::<(), io::Error>(())
            })
            .await
        })
        .await;
        let error = outcome.expect_err("the child panicked");
        let remote = error.errors()[0].get_ref().expect("an error of ours");
        let remote: &Remote = remote.downcast_ref().expect("of another core");
        assert_eq!(*remote, Remote::Panicked("as planned".to_owned()));
        assert_eq!(refused.get(), 1);
        let goes_on = on(there, op::nop).await;
        goes_on.expect("the other core goes on");
    });
}

/// The main future ends while others wait for all sorts of things.
#[test]
fn c177_tasks_that_outlive_the_main_are_cancelled_and_leave_nothing() {
    let test = "panics::c177_tasks_that_outlive_the_main_are_cancelled_and_leave_nothing";
    in_child(test, || {
        on_both(|| {
            // Once for what a process keeps.
            quoit::block_on(op::nop())
                .expect("a core")
                .expect("it works");
            let before = descriptors();
            let drops = Drops::new();
            let refused = Arc::new(AtomicU64::new(0));
            let (values, told) = (drops.clone(), Arc::clone(&refused));
            let main = async move {
                type Wait = Pin<Box<dyn Future<Output = io::Result<()>>>>;
                let (reader, writer) = pipe();
                let (ours, theirs) = both_ends().await;
                let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                let (shared, other) = (reader.clone(), writer.clone());
                // Each keeps the far end open, so that nothing but the cancel ends its wait.
                let waits: Vec<Wait> = vec![
                    Box::pin(async { Ok(sleep(LONG).await?) }),
                    Box::pin(async move {
                        let _writer = writer;
                        op::read(&reader, vec![0; 8]).await.0.map(drop)
                    }),
                    Box::pin(async move {
                        let _writer = other;
                        op::poll(&shared, libc::POLLIN as u32).await.map(drop)
                    }),
                    Box::pin(async move {
                        let _theirs = theirs;
                        ours.recv().await.map(drop)
                    }),
                    Box::pin(async move { listener.accept().await.map(drop) }),
                ];
                for wait in waits {
                    let (value, told) = (values.value(), Arc::clone(&told));
                    drop(spawn(async move {
                        let _value = value;
                        let outcome = wait.await;
                        assert_eq!(reason(&outcome), Some(Reason::Shutdown));
                        told.fetch_add(1, Ordering::Relaxed);
                    }));
                }
                some_turns(2).await;
                7
            };
            assert_eq!(quoit::block_on(main).expect("a core"), 7);
            assert_eq!(refused.load(Ordering::Relaxed), 5);
            assert_eq!((drops.alive(), drops.dropped()), (0, 5));
            assert_eq!(descriptors(), before);
        });
    });
}

#[test]
fn c178_shutdown_waits_for_goodbyes_and_not_for_ever() {
    on_both(|| {
        let runtime = one_core().build().expect("tests need io_uring");
        let handle = runtime.handle();
        let (said, drops) = (Arc::new(AtomicBool::new(false)), Drops::new());
        let (tell, value) = (Arc::clone(&said), drops.value());
        let started = handle.spawn(handle.cores()[0], move || async move {
            drop(spawn(async move {
                assert!(sleep(LONG).await.is_err());
                let shield = Scope::new().shielded();
                let goodbye = shield.run(sleep(Duration::from_millis(100))).await;
                assert!(matches!(goodbye, Ok(Some(()))));
                tell.store(true, Ordering::Release);
            }));
            drop(spawn(async move {
                let _value = value;
                let shield = Scope::new().shielded();
                shield.run(sleep(Duration::MAX)).await
            }));
            some_turns(1).await;
        });
        started.expect("room").wait().expect("it ended");
        let began = Instant::now();
        runtime.shutdown(Duration::from_secs(1));
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(1), "{took:?}");
        if Kernel::here() == Kernel::Simulated {
            assert_eq!(took, Duration::from_secs(1));
        }
        assert!(said.load(Ordering::Acquire));
        assert_eq!((drops.alive(), drops.dropped()), (0, 1));
    });
}

/// A second stop that has less grace takes the rest from the first: grace shields end, and what they hold
/// is told before it is dropped.
#[test]
fn c178_second_stop_with_less_grace_ends_the_grace_of_the_first() {
    on_both(|| {
        let runtime = one_core().build().expect("tests need io_uring");
        let handle = runtime.handle();
        let told = Arc::new(Mutex::new(None));
        let (inner, tell) = (handle.clone(), Arc::clone(&told));
        let started = handle.spawn(handle.cores()[0], move || async move {
            drop(spawn(async move {
                let began = Instant::now();
                let shield = Scope::new().grace_shielded();
                let outcome = shield.run(sleep(Duration::MAX)).await;
                *tell.lock().expect("nobody panics with it") =
                    Some((began.elapsed(), reason(&outcome)));
            }));
            drop(spawn(async move {
                let shield = Scope::new().shielded();
                let stop = async {
                    inner.shutdown_within(LONG);
                    sleep(20 * SHORT).await?;
                    inner.shutdown_within(40 * SHORT);
                    sleep(Duration::MAX).await
                };
                shield.run(stop).await
            }));
        });
        started.expect("room").wait().expect("it ended");
        runtime.shutdown(LONG);
        let told = told.lock().expect("nobody panics with it").take();
        let (took, why) = told.expect("it was not dropped unheard");
        assert_eq!(why, Some(Reason::Shutdown));
        assert!(took >= 60 * SHORT, "{took:?}");
        if Kernel::here() == Kernel::Simulated {
            assert_eq!(took, 60 * SHORT);
        }
    });
}

/// Nobody waits: then the shutdown ends with the last of them.
#[test]
fn c178_shutdown_ends_when_the_last_goodbye_is_said() {
    on_both(|| {
        let runtime = one_core().build().expect("tests need io_uring");
        let handle = runtime.handle();
        let started = handle.spawn(handle.cores()[0], || async {
            drop(spawn(async {
                let shield = Scope::new().shielded();
                shield.run(sleep(20 * SHORT)).await
            }));
            some_turns(1).await;
        });
        started.expect("room").wait().expect("it ended");
        let began = Instant::now();
        runtime.shutdown(LONG);
        if Kernel::here().is_simulated() {
            assert!(began.elapsed() <= 40 * SHORT);
        }
    });
}

/// Writes a file, and leaves while the disk is at it.
fn shutdown_during_a_sync(path: &Path, grace: Duration) {
    let runtime = one_core().build().expect("tests need io_uring");
    let handle = runtime.handle();
    let (path, drops) = (path.to_owned(), Drops::new());
    let value = drops.value();
    let started = handle.spawn(handle.cores()[0], move || async move {
        let options = OpenOptions::new().write(true).create(true);
        let file = options.open(path).await.expect("a file");
        file.write_at("x", 0).await.0.expect("room on the disk");
        drop(spawn(async move {
            let _value = value;
            point("sync");
            file.sync_all().await
        }));
        yield_now().await.expect("nobody cancels");
    });
    started.expect("room").wait().expect("it ended");
    runtime.shutdown(grace);
    assert_eq!((drops.alive(), drops.dropped()), (0, 1));
}

/// The simulation looks whether a core has ended while the kernel had something of it, and whether memory
/// was touched after that.
#[test]
fn c179_shutdown_waits_for_an_operation_on_a_file() {
    for grace in [Duration::from_secs(1), Duration::ZERO] {
        for_seeds(0..20, |sim| {
            let sim = sim.folder("/f").force_at("sync", Fault::Delay);
            sim.run(|| shutdown_during_a_sync(Path::new("/f/a"), grace));
        });
    }
    let folder = tempfile::tempdir().expect("a folder for this test");
    for round in 0..20 {
        let path = folder.path().join(format!("{round}"));
        shutdown_during_a_sync(&path, Duration::from_secs(1));
    }
}

/// That a core ends under its children is the same to who waits elsewhere as that its loop panics, which
/// `runtime/src/driver/loss_tests.rs` sees to.
#[test]
fn c180_child_on_a_core_that_ends_is_gone() {
    conform(|_| async {
        let other = Runtime::builder().cores(Cores::Count(1)).build();
        let other = other.expect("tests need io_uring");
        let (there, their_handle) = (other.handle().cores()[0], other.handle());
        let (tell, told) = mpsc::channel::<CancelHandle>();
        let waiting = spawn(async move {
            on(there, move || async move {
                let scope = Scope::new();
                tell.send(scope.handle()).expect("it listens");
                let shield = Scope::new().shielded();
                // It would stay for ever, and is dropped.
                shield.run(scope.run(pending::<io::Result<()>>())).await
            })
            .await
            .map(drop)
        });
        let cancel = loop {
            match told.try_recv() {
                Ok(cancel) => break cancel,
                Err(_) => yield_now().await.expect("nobody cancels"),
            }
        };
        their_handle.shutdown_within(Duration::ZERO);
        let error = waiting
            .await
            .expect("it ended")
            .expect_err("its core is gone");
        let remote = error.get_ref().expect("an error of ours");
        assert_eq!(remote.downcast_ref(), Some(&Remote::Gone));
        while cancel.cancel() != Delivery::Gone {
            yield_now().await.expect("nobody cancels");
        }
        let refused = on(there, || async { Ok::<(), io::Error>(()) }).await;
        let remote = refused.expect_err("nobody is there");
        let remote = remote.get_ref().expect("an error of ours");
        assert_eq!(remote.downcast_ref(), Some(&Remote::Gone));
        op::nop().await.expect("this core goes on");
        drop(other);
    });
}
