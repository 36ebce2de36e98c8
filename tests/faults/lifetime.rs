//! Runtimes come and go, and leave nothing behind.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

use quoit::op::{self, SharedFd};
use quoit::time::sleep;
use quoit::{Cores, Runtime, spawn};
use quoit_net::TcpListener;
use tests::{
    Drops, connected, descriptors, in_child, mapped_kib, poll_once, resident_kib, threads,
    until_parked,
};

const LONG: Duration = Duration::from_secs(3600);

/// Starts a runtime with tasks that wait for all sorts of things, and drops it.
fn one_life(drops: &Drops) {
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .grace_period(Duration::ZERO)
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    let values: Vec<_> = (0..5).map(|_| drops.value()).collect();
    let started = handle.spawn(handle.cores()[0], move || async move {
        let mut values = values.into_iter();
        let mut value = move || values.next().expect("one for each task");
        let held = value();
        drop(spawn(async move {
            let _held = held;
            let (reader, _writer) = io::pipe().expect("a pipe");
            let reader = SharedFd::from(OwnedFd::from(reader));
            op::read(&reader, vec![0; 4096]).await.0
        }));
        let held = value();
        drop(spawn(async move {
            let _held = held;
            sleep(LONG).await
        }));
        let held = value();
        drop(spawn(async move {
            let _held = held;
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.accept().await
        }));
        let held = value();
        drop(spawn(async move {
            let _held = held;
            let (ours, _theirs) = connected().await;
            ours.recv().await
        }));
        let held = value();
        drop(spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        }));
        op::nop().await.expect("they wait in the kernel");
    });
    started.expect("room").wait().expect("it ended");
}

#[test]
fn a_thousand_runtimes_leave_nothing_behind() {
    const WARM_UP: u64 = 100;
    const LIVES: u64 = 900;
    let test = "lifetime::a_thousand_runtimes_leave_nothing_behind";
    in_child(test, || {
        let drops = Drops::new();
        for _ in 0..WARM_UP {
            one_life(&drops);
        }
        let before = (descriptors(), threads());
        let (resident, mapped) = (resident_kib(), mapped_kib());
        for _ in 0..LIVES {
            one_life(&drops);
        }
        assert_eq!((descriptors(), threads()), before);
        assert_eq!(drops.alive(), 0);
        assert_eq!(drops.dropped(), 5 * (WARM_UP + LIVES));
        // One runtime maps 2 MiB for received bytes alone: a leak would show a hundredfold.
        let more = resident_kib().saturating_sub(resident);
        assert!(more < 4 * 1024, "{more} KiB more are resident");
        let more = mapped_kib().saturating_sub(mapped);
        assert!(more < 64 * 1024, "{more} KiB more are mapped");
    });
}

#[test]
fn a_thousand_times_block_on_leaves_nothing_behind() {
    let test = "lifetime::a_thousand_times_block_on_leaves_nothing_behind";
    in_child(test, || {
        let once = || {
            quoit::block_on(async {
                drop(spawn(sleep(LONG)));
                op::nop().await
            })
            .expect("a core")
            .expect("not cancelled");
        };
        for _ in 0..100 {
            once();
        }
        let before = (descriptors(), threads());
        let mapped = mapped_kib();
        for _ in 0..900 {
            once();
        }
        assert_eq!((descriptors(), threads()), before);
        let more = mapped_kib().saturating_sub(mapped);
        assert!(more < 64 * 1024, "{more} KiB more are mapped");
    });
}

/// The first op of a core has the plainest of addresses, and is easily taken for something else.
#[test]
fn the_end_of_a_core_closes_no_descriptor_of_others() {
    let test = "lifetime::the_end_of_a_core_closes_no_descriptor_of_others";
    in_child(test, || {
        let names = || {
            let mut names: Vec<_> = std::fs::read_dir("/proc/self/fd")
                .expect("/proc")
                .map(|entry| entry.expect("/proc").file_name())
                .collect();
            names.sort();
            names
        };
        // Once for what a process keeps.
        one_life(&Drops::new());
        let before = names();
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            // It parks once more before its end.
            .grace_period(Duration::from_millis(1))
            .build()
            .expect("tests need io_uring");
        let handle = runtime.handle();
        let (observed, (tell, told)) = (handle.clone(), mpsc::channel());
        let task = handle.spawn(handle.cores()[0], move || async move {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let mut accept = pin!(listener.accept());
            assert!(poll_once(accept.as_mut()).await.is_pending());
            tell.send(observed.metrics()[0].parks)
                .expect("the test listens");
            // Its task hears of no cancel, so it is still in the kernel at the end.
            std::future::pending::<()>().await;
        });
        let _ = task.expect("room");
        until_parked(&handle, told.recv().expect("it says so"));
        drop(runtime);
        assert_eq!(names(), before);
    });
}
