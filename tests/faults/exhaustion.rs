//! Limits are reached: nothing is lost, and all goes on when there is room again.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use quoit::op::{self, SharedFd};
use quoit::{Runtime, spawn};
use quoit_net::TcpListener;
use quoit_net::unix::UnixListener;
use tests::{Child, gauges, on_ring, on_ring_of};

#[test]
fn connections_wait_while_there_are_no_descriptors() {
    const CONNECTIONS: usize = 20;
    let test = "exhaustion::connections_wait_while_there_are_no_descriptors";
    Child::new()
        .under(["sh", "-c", "ulimit -n 128; exec \"$@\"", "sh"])
        .run(test, || {
            on_ring(|_| async {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                let address = listener.local_addr();
                let connect = || TcpStream::connect(address).expect("the queue has room");
                // One that is accepted as usual, so that the accept is under way.
                let first = connect();
                let accepted = listener.accept().await.expect("one waits");
                let mut filler = Vec::new();
                let mut open: Vec<_> = (0..CONNECTIONS / 2).map(|_| connect()).collect();
                while let Ok(file) = File::open("/dev/null") {
                    filler.push(file);
                }
                // Those that came before were accepted, or not: both must come out.
                let mut taken = Vec::new();
                let error = loop {
                    match listener.accept().await {
                        Ok(stream) => taken.push(stream),
                        Err(error) => break error,
                    }
                };
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                let error = listener.accept().await.expect_err("still none");
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                // What is open works on.
                accepted.write_all("served").await.0.expect("connected");
                let mut got = [0; 6];
                (&first).read_exact(&mut got).expect("it was sent");
                drop(filler);
                open.extend((0..CONNECTIONS / 2).map(|_| connect()));
                while taken.len() < CONNECTIONS {
                    taken.push(listener.accept().await.expect("there is room again"));
                }
                for (ours, mut theirs) in taken.iter().zip(open) {
                    assert_eq!(
                        ours.peer_addr().expect("connected"),
                        theirs.local_addr().expect("connected")
                    );
                    theirs.write_all(b"x").expect("connected");
                    assert_eq!(ours.read([0; 4]).await.0.expect("connected"), 1);
                }
            });
        });
}

/// Whether somebody listens at a socket is seen by asking, and that takes a descriptor.
#[test]
fn a_socket_that_nobody_could_be_asked_about_is_not_said_to_be_in_use() {
    let test = "exhaustion::a_socket_that_nobody_could_be_asked_about_is_not_said_to_be_in_use";
    Child::new()
        .under(["sh", "-c", "ulimit -n 128; exec \"$@\"", "sh"])
        .run(test, || {
            on_ring(|_| async {
                let folder = tempfile::tempdir().expect("a folder");
                let path = folder.path().join("socket");
                drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
                let mut filler = Vec::new();
                while let Ok(file) = File::open("/dev/null") {
                    filler.push(file);
                }
                // However many there are left, until there are enough.
                for left in 0.. {
                    let error = match UnixListener::bind(&*path) {
                        Ok(_) => break,
                        Err(error) => error.to_string(),
                    };
                    assert!(error.contains("no descriptor left"), "{left} left: {error}");
                    assert!(filler.pop().is_some(), "{left} left: {error}");
                }
            });
        });
}

#[test]
fn a_thousand_ops_go_through_the_smallest_ring() {
    const OPS: usize = 1_000;
    let builder = Runtime::builder()
        .submission_entries(8)
        .completion_entries(8);
    on_ring_of(builder, |handle| async move {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let reader = SharedFd::from(OwnedFd::from(reader));
        let reads: Vec<_> = (0..OPS)
            .map(|_| {
                let reader = reader.clone();
                spawn(async move { op::read(&reader, [0_u8; 1]).await })
            })
            .collect();
        while gauges(&handle).await.in_flight < OPS as u64 {}
        let sent: Vec<u8> = (0..OPS).map(|place| place as u8).collect();
        writer.write_all(&sent).expect("room");
        let mut received = Vec::new();
        for read in reads {
            let (count, byte) = read.await.expect("it ended");
            assert_eq!(count.expect("a byte each"), 1);
            received.push(byte[0]);
        }
        let (mut expected, mut found) = (sent, received);
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "each byte was read once");
        let counters = gauges(&handle).await;
        assert_eq!((counters.in_flight, counters.op_slots), (0, 0));
        assert!(
            counters.overflows > 0,
            "more completed than the queue holds"
        );
    });
}

#[test]
fn more_requests_than_entries_wait_in_line() {
    let builder = Runtime::builder()
        .submission_entries(8)
        .completion_entries(8);
    on_ring_of(builder, |handle| async move {
        let before = gauges(&handle).await;
        for _ in 0..10 {
            let tasks: Vec<_> = (0..1_000).map(|_| spawn(op::nop())).collect();
            for task in tasks {
                task.await.expect("it ended").expect("not cancelled");
            }
        }
        let after = gauges(&handle).await;
        assert_eq!(after.submitted - before.submitted, 10_000);
        assert_eq!(after.completions - before.completions, 10_000);
        assert_eq!(after.op_slots, 0);
    });
}
