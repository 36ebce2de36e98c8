//! Unix sockets, end to end. On the real ring alone: the simulated kernel knows none, and says so.

use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::pin::pin;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use quoit::op::{Listener, Socket};
use quoit::sim::Sim;
use quoit::{Cores, Runtime, Scope, spawn};
use quoit_net::unix::{UnixAddress, UnixListener, UnixOptions, UnixStream};
use tests::http_client::until;
use tests::{Child, bytes, poll_once, quietly};

/// A folder of this test's own, and a path in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    (folder, path)
}

fn name(test: &str) -> UnixAddress {
    UnixAddress::abstract_name(format!("quoit-{}-{test}", process::id()))
}

async fn both_ends(listener: &UnixListener) -> (UnixStream, UnixStream) {
    let ours = UnixStream::connect(listener.local_addr().clone()).await;
    let theirs = listener.accept().await;
    (ours.expect("it listens"), theirs.expect("one connects"))
}

#[test]
fn bytes_go_both_ways_and_end() {
    quietly(|_| async {
        let (_folder, path) = place();
        let listener = UnixListener::bind(&*path).expect("a free path");
        let (ours, theirs) = both_ends(&listener).await;
        // More than the sockets take.
        let much = bytes(4 << 20, 7);
        let sent = much.clone();
        let sending = spawn(async move {
            ours.write_all(sent).await.0.expect("it is taken");
            ours.shutdown(Shutdown::Write).expect("connected");
            ours
        });
        let mut came = Vec::new();
        while let Some(chunk) = theirs.recv().await.expect("no error") {
            came.extend_from_slice(&chunk);
        }
        assert!(came == much, "other bytes came");
        let ours = sending.await.expect("no panic");
        theirs.write_all("thanks").await.0.expect("it is taken");
        let (read, buf) = ours.read_exact(vec![0; 6]).await;
        read.expect("it came");
        assert_eq!(buf, b"thanks");
    });
}

#[test]
fn both_ends_know_where_and_whose_they_are() {
    quietly(|_| async {
        let (_folder, path) = place();
        for address in [UnixAddress::path(&*path), name("ends")] {
            let listener = UnixListener::bind(address.clone()).expect("a free address");
            assert_eq!(*listener.local_addr(), address);
            let (ours, theirs) = both_ends(&listener).await;
            assert_eq!(ours.peer_addr().expect("connected"), address);
            assert_eq!(theirs.local_addr().expect("connected"), address);
            assert!(theirs.peer_addr().expect("connected").is_unnamed());
            let whose = theirs.peer_credentials().expect("the kernel knows");
            assert_eq!(whose.pid, process::id());
            assert_eq!(whose, ours.peer_credentials().expect("the kernel knows"));
        }
    });
}

#[test]
fn the_file_goes_with_its_listener() {
    quietly(|_| async {
        let (_folder, path) = place();
        let listener = UnixListener::bind(&*path).expect("a free path");
        assert!(
            fs::metadata(&path)
                .expect("it is there")
                .file_type()
                .is_socket()
        );
        drop(listener);
        assert!(!path.exists());
        let listener = UnixListener::bind(&*path).expect("free again");
        let waiting = UnixStream::connect(&*path).await.expect("it listens");
        let left = listener.finish().await;
        assert_eq!(left.len(), 1, "the one that waits");
        assert!(!path.exists());
        left[0].write_all("late").await.0.expect("it is taken");
        assert_eq!(
            &*waiting.recv().await.expect("no error").expect("bytes"),
            b"late"
        );
    });
}

#[test]
fn a_file_that_another_has_put_in_place_stays() {
    quietly(|_| async {
        let (_folder, path) = place();
        let listener = UnixListener::bind(&*path).expect("a free path");
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "another's").expect("a file");
        drop(listener);
        assert_eq!(fs::read_to_string(&path).expect("it stays"), "another's");
    });
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced() {
    quietly(|_| async {
        let (_folder, path) = place();
        // Closed without a word, as when its process is killed.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
        assert!(path.exists());
        let listener = UnixListener::bind(&*path).expect("it is stale");
        let _ends = both_ends(&listener).await;
    });
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_to_him() {
    quietly(|_| async {
        let (_folder, path) = place();
        let theirs = std::os::unix::net::UnixListener::bind(&path).expect("a free path");
        let error = UnixListener::bind(&*path).expect_err("somebody listens");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let said = error.to_string();
        let begin = format!("cannot listen on {}: ", path.display());
        assert!(said.starts_with(&begin), "{said}");
        assert!(said.contains("another program listens there"), "{said}");
        // Looking has taken nothing from him but a connection that ended at once.
        let client = std::os::unix::net::UnixStream::connect(&path).expect("he listens");
        drop((client, theirs));

        let ours = UnixListener::bind(name("taken")).expect("a free name");
        let error = UnixListener::bind(name("taken")).expect_err("we listen");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(ours);
    });
}

/// Whoever has the lock has seen that the socket is stale, and has yet to put its own in place.
#[test]
fn a_socket_that_somebody_is_about_to_replace_is_left_to_him() {
    quietly(|_| async {
        let (_folder, path) = place();
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
        let stale = fs::metadata(&path).expect("it is there").ino();
        let lock = path.with_extension("quoit-lock");
        let locked = fs::File::create(&lock).expect("a new file");
        locked.try_lock().expect("nobody else has it");

        let error = UnixListener::bind(&*path).expect_err("somebody is about to listen");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("about to listen"), "{error}");
        assert_eq!(fs::metadata(&path).expect("it stays").ino(), stale);

        fs::remove_file(&path).expect("it is his to remove");
        let theirs = std::os::unix::net::UnixListener::bind(&path).expect("a free path");
        fs::remove_file(&lock).expect("it is his to remove");
        drop(locked);
        let error = UnixListener::bind(&*path).expect_err("somebody listens");
        assert!(error.to_string().contains("listens there"), "{error}");
        drop(theirs);
        let ours = UnixListener::bind(&*path).expect("it is stale again");
        let _ends = both_ends(&ours).await;
        assert!(!lock.exists(), "the lock was a moment's");
    });
}

/// Two cores look at the same stale socket at once, whichever comes first.
#[test]
fn of_those_who_begin_at_once_one_listens() {
    const ROUNDS: usize = 200;
    let (_folder, path) = place();
    let runtime = Runtime::builder().cores(Cores::Count(2)).build();
    let runtime = runtime.expect("two cores");
    let handle = runtime.handle();
    let both = Arc::new(Barrier::new(2));
    for round in 0..ROUNDS {
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
        // A child that another test starts has it too, until it runs its program.
        while std::os::unix::net::UnixStream::connect(&path).is_ok() {
            std::thread::yield_now();
        }
        let tasks: Vec<_> = handle
            .cores()
            .into_iter()
            .map(|core| {
                let (both, path) = (Arc::clone(&both), path.clone());
                let task = handle.spawn(core, move || async move {
                    both.wait();
                    let listener = UnixListener::bind(&*path);
                    both.wait();
                    let is_reached = std::os::unix::net::UnixStream::connect(&path).is_ok();
                    both.wait();
                    (listener.map(drop).map_err(|error| error.kind()), is_reached)
                });
                task.expect("room in the mailbox")
            })
            .collect();
        let mut came: Vec<_> = tasks
            .into_iter()
            .map(|task| task.wait().expect("no panic"))
            .collect();
        came.sort_by_key(|(bound, _)| bound.is_err());
        let expected = [(Ok(()), true), (Err(io::ErrorKind::AddrInUse), true)];
        assert_eq!(came, expected, "round {round}");
        assert!(!path.exists(), "round {round}: the file is gone");
    }
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    quietly(|_| async {
        let (folder, path) = place();
        fs::write(&path, "precious").expect("a file");
        let error = UnixListener::bind(&*path).expect_err("a file is there");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("no socket is there"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("it stays"), "precious");

        let nowhere = folder.path().join("none/socket");
        let error = UnixListener::bind(&*nowhere).expect_err("no such folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("has to be there"), "{error}");
        let error = UnixStream::connect(&*nowhere).await.expect_err("nobody");
        let begin = format!("cannot connect to {}: ", nowhere.display());
        assert!(error.to_string().starts_with(&begin), "{error}");
    });
}

#[test]
fn the_file_has_the_mode_that_was_asked_for() {
    quietly(|_| async {
        for mode in [0o600, 0o666] {
            let (_folder, path) = place();
            let options = UnixOptions::new().mode(mode);
            let _listener = UnixListener::bind_with(&*path, &options).expect("a free path");
            let found = fs::metadata(&path).expect("it is there").permissions();
            assert_eq!(found.mode() & 0o777, mode);
        }
    });
}

/// The kernel blocks whoever connects to a full queue; here it is a wait like any other.
#[test]
fn a_connect_that_waits_for_room_is_cancelled() {
    quietly(|_| async {
        let options = UnixOptions::new().backlog(0);
        let listener = UnixListener::bind_with(name("full"), &options).expect("a free name");
        let _first = UnixStream::connect(name("full"))
            .await
            .expect("there is room for one");
        let second = Scope::new()
            .timeout(Duration::from_millis(20))
            .run(UnixStream::connect(name("full")))
            .await;
        assert!(second.expect("no error").is_none(), "nobody accepts");
        let _accepted = listener.accept().await.expect("the first waits");
        let _third = UnixStream::connect(name("full"))
            .await
            .expect("there is room");
    });
}

/// Returns whether a worker thread of a ring of this process sleeps in a call.
fn a_worker_waits() -> bool {
    let threads = fs::read_dir("/proc/self/task").expect("the kernel lists them");
    threads.into_iter().any(|thread| {
        let status = thread.map(|thread| fs::read_to_string(thread.path().join("status")));
        let status = status.expect("a thread").unwrap_or_default();
        status.starts_with("Name:\tiou-wrk") && status.contains("State:\tS")
    })
}

/// A process that is stopped, or frozen, and goes on has its waits in the kernel interrupted. This one has done nothing
/// by then, unlike that of TCP, and begins anew.
#[test]
fn a_connect_that_waits_for_room_outlasts_a_stop() {
    Child::new().run(
        "unix::a_connect_that_waits_for_room_outlasts_a_stop",
        || {
            quietly(|_| async {
                let options = UnixOptions::new().backlog(0);
                let listener =
                    UnixListener::bind_with(name("stop"), &options).expect("a free name");
                let _first = UnixStream::connect(name("stop"))
                    .await
                    .expect("there is room for one");
                let mut second = pin!(UnixStream::connect(name("stop")));
                for _ in 0..20 {
                    assert!(poll_once(second.as_mut()).await.is_pending());
                    // It is tried in other ways first; a kernel may have more of them.
                    for _ in 0..10_000 {
                        quoit::op::nop().await.expect("not cancelled");
                        if a_worker_waits() {
                            break;
                        }
                    }
                    // Somebody else stops us: who stops himself does not come to say that it goes on.
                    let both = "kill -STOP $PPID; sleep 0.01; kill -CONT $PPID";
                    let stopped = Command::new("sh").args(["-c", both]).status();
                    assert!(stopped.expect("a shell").success());
                }
                let _accepted = listener.accept().await.expect("the first waits");
                let _second = second.await.expect("there is room");
            });
        },
    );
}

#[test]
fn a_cancelled_accept_loses_no_connection() {
    quietly(|_| async {
        let listener = UnixListener::bind(name("accept")).expect("a free name");
        let none = Scope::new()
            .timeout(Duration::from_millis(5))
            .run(listener.accept())
            .await;
        assert!(none.expect("no error").is_none(), "nobody connects");
        let _ours = UnixStream::connect(name("accept"))
            .await
            .expect("it listens");
        let _theirs = listener.accept().await.expect("it was taken meanwhile");
    });
}

/// Two cores wait on one socket: the kernel wakes one of them for each connection, in turn. Each turn is
/// one connection's, so nobody is woken in vain.
#[test]
fn cores_that_share_a_socket_are_woken_in_turn() {
    const COUNT: u64 = 200;
    let (_folder, path) = place();
    let listening = std::os::unix::net::UnixListener::bind(&path).expect("a free path");
    let socket = Socket::from(OwnedFd::from(listening));
    let runtime = Runtime::builder().cores(Cores::Count(2)).build();
    let runtime = runtime.expect("two cores");
    let handle = runtime.handle();
    let accepted: Arc<[AtomicU64; 2]> = Arc::default();
    for core in handle.cores() {
        let socket = socket.try_clone().expect("a descriptor");
        let counts = Arc::clone(&accepted);
        let task = handle.spawn(core, move || async move {
            let listener = Listener::new(socket);
            while listener.accept_one().await.is_ok() {
                counts[core.index()].fetch_add(1, Ordering::Relaxed);
            }
        });
        drop(task.expect("room in the mailbox"));
    }
    let parks = || -> Vec<u64> { handle.metrics().iter().map(|core| core.parks).collect() };
    let count = |core: usize| accepted[core].load(Ordering::Relaxed);
    until(|| handle.metrics().iter().all(|core| core.in_flight > 0));
    let before = parks();
    for done in 1..=COUNT {
        let client = std::os::unix::net::UnixStream::connect(&path);
        drop(client.expect("it listens"));
        until(|| count(0) + count(1) == done);
    }
    // A core counts, and then parks: the last ones may yet have to.
    until(|| (0..2).all(|core| parks()[core] - before[core] >= count(core)));
    let after = parks();
    for core in 0..2 {
        assert!(count(core) > COUNT / 4, "core {core} got {}", count(core));
        assert_eq!(after[core] - before[core], count(core), "woken in vain");
    }
}

#[test]
fn a_simulation_says_that_it_has_none() {
    let outcome = Sim::with_seed(0).block_on(async {
        let bound = UnixListener::bind(name("sim")).map(drop);
        let connected = UnixStream::connect(name("sim")).await.map(drop);
        [bound, connected].map(|outcome| outcome.expect_err("there are none"))
    });
    for error in outcome.value {
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("use TCP there"), "{error}");
    }
}
