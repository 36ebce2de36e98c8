//! Ops that the kernel has: one cancel request each, and what becomes of memory, descriptors and bytes.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use quoit::buf::guard::GuardBuf;
use quoit::fs::OpenOptions;
use quoit::op::{self, SharedFd, Stream};
use quoit::sim::{self, Fault, for_seeds};
use quoit::time::sleep;
use quoit::{Cancelled, CarriesCancelled, Reason, Scope, check, spawn, yield_now};
use quoit_net::{TcpListener, TcpStream};
use tests::{
    Drops, Kernel, Put, beside_another, both_ends, both_streams, conform, conform_in, conform_of,
    connected, descriptors, full_address, gauges, in_child, one_core, poll_once, quietly,
};

use crate::support::{
    Either, SHORT, all_ways, either, kernel_is_done, pipe, reason, repetitions, some_turns,
    waiting, watched,
};

/// Reads one byte, and returns it.
async fn one_byte(reader: SharedFd) -> io::Result<u8> {
    let (count, byte) = op::read(&reader, [0; 1]).await;
    assert_eq!(count?, 1);
    Ok(byte[0])
}

/// Polls a future once for nobody: what it begins is in line, or in the kernel after the next entry.
fn begin<F: Future + ?Sized>(future: Pin<&mut F>) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(future.poll(&mut cx).is_pending());
}

// --- buffers ---

/// A late write into the buffer would meet memory that nobody can touch, and be counted.
#[test]
fn c153_dropped_read_keeps_its_buffer_until_the_kernel_is_done() {
    conform(|handle| async move {
        let (reader, writer) = pipe();
        let before = gauges(&handle).await.cancel_requests;
        {
            let mut read = pin!(op::read(&reader, GuardBuf::new(64)));
            assert!(poll_once(read.as_mut()).await.is_pending());
            op::nop().await.expect("it waits in the kernel");
            sim::force(Fault::CancelledLate);
        }
        let later = spawn(async move {
            sleep(Duration::from_millis(50)).await?;
            op::write(&writer, "late").await.0
        });
        assert_eq!(later.await.expect("it ended").expect("room"), 4);
        let after = kernel_is_done(&handle).await;
        assert_eq!(after.cancel_requests - before, 1);
        assert_eq!((after.orphan_faults, after.op_slots), (0, 0));
        let mut all = Vec::new();
        while all.len() < 4 {
            let (count, buf) = op::read(&reader, [0; 8]).await;
            all.extend_from_slice(&buf[..count.expect("bytes")]);
        }
        assert_eq!(all, b"late");
    });
}

/// The data comes while the op is being given up: nothing ends it any more.
#[test]
fn c153_dropped_read_that_is_done_all_the_same_keeps_its_buffer() {
    for fault in [
        Fault::CancelNotFound,
        Fault::CancelAlready,
        Fault::CancelledYetDone,
    ] {
        let mut swallowed = 0;
        for_seeds(0..20, |sim| {
            let outcome = sim.force_at("dropped", fault).run(|| {
                quietly(|handle| async move {
                    let (reader, writer) = pipe();
                    {
                        let mut read = pin!(op::read(&reader, GuardBuf::new(64)));
                        assert!(poll_once(read.as_mut()).await.is_pending());
                        op::nop().await.expect("it waits in the kernel");
                        // Both reach the kernel together, the byte first.
                        beside_another();
                        let mut write = pin!(op::write(&writer, "x"));
                        assert!(poll_once(write.as_mut()).await.is_pending());
                        sim::point("dropped");
                        write.await.0.expect("room");
                    }
                    let after = kernel_is_done(&handle).await;
                    assert_eq!(after.orphan_faults, 0);
                    drop(writer);
                    op::read(&reader, [0; 8])
                        .await
                        .0
                        .expect("a byte, or the end")
                })
            });
            swallowed += u32::from(outcome.value == 0);
        });
        assert!(swallowed > 0, "{fault:?}");
    }
}

// --- which came first ---

/// A byte is sent while the wait for it is cancelled: it is received, or it is still there. Whether the
/// wait was cut off before it came.
fn receive_that_is_cancelled(after_a_while: bool) -> std::collections::BTreeSet<bool> {
    all_ways(|| {
        quietly(move |_| async move {
            let (near, far) = both_ends().await;
            let scope = Scope::new();
            let handle = scope.handle();
            let sender = spawn(async move {
                far.write_all("x").await.0?;
                Ok::<_, io::Error>(far)
            });
            let canceller = spawn(async move {
                if after_a_while {
                    // As long on its way as the byte is.
                    op::nop().await?;
                }
                handle.cancel();
                // The next op of the core takes the cancel in.
                yield_now().await.map_err(io::Error::from)
            });
            let first = scope.run(near.recv()).await.expect("no failure");
            let far = sender.await.expect("it ended").expect("connected");
            canceller
                .await
                .expect("it ended")
                .expect("nobody cancels it");
            let received = match &first {
                Some(chunk) => chunk.as_deref() == Some(b"x"),
                None => near.recv().await.expect("no failure").as_deref() == Some(b"x"),
            };
            assert!(received, "the byte is lost");
            drop(far);
            first.is_none()
        })
    })
}

#[test]
fn c154_cancelled_receive_loses_nothing_in_any_order() {
    assert_eq!(receive_that_is_cancelled(false), [true].into());
    assert_eq!(receive_that_is_cancelled(true), [false].into());
}

/// A read of a pipe is the kernel's from its begin to its end.
#[test]
fn c154_cancelled_read_loses_nothing_in_any_order() {
    let ways = all_ways(|| {
        quietly(|_| async {
            let (reader, writer) = pipe();
            let inner = reader.clone();
            let (cancel, task) = waiting(one_byte(inner)).await;
            let writing = spawn(async move { op::write(&writer, "x").await.0.map(|_| writer) });
            cancel.cancel();
            let first = task.await.expect("it ended").expect("no failure");
            let next = match first {
                Some(byte) => byte,
                None => one_byte(reader).await.expect("it is still there"),
            };
            assert_eq!(next, b'x');
            drop(writing.await.expect("it ended").expect("room"));
            first.is_some()
        })
    });
    assert!(ways.contains(&false), "{ways:?}");
}

// On the real ring: what happens in the kernel while the core does not look is done by others than
// the core.
#[test]
fn c154_of_arriving_bytes_and_a_cancel_the_first_counts() {
    quietly(|_| async {
        for cancel_first in [true, false] {
            let (ours, mut theirs) = connected().await;
            let ours = Rc::new(ours);
            let inner = Rc::clone(&ours);
            let (handle, task) = waiting(async move { inner.recv().await }).await;
            theirs.write_all(b"x").expect("the socket takes it");
            if cancel_first {
                // The byte is in the kernel; nobody has told us yet.
                handle.cancel();
                check().expect("another scope is cancelled");
            } else {
                // Twice through the kernel: its completion has been seen.
                some_turns(2).await;
                handle.cancel();
            }
            let outcome = task.await.expect("it ended").expect("no error");
            assert_eq!(outcome.is_none(), cancel_first);
            let chunk = match outcome {
                Some(chunk) => chunk,
                None => ours.recv().await.expect("no error"),
            };
            assert_eq!(&*chunk.expect("no end"), b"x");
        }
    });
}

// On the real ring, as above.
#[test]
fn c154_byte_of_a_pipe_is_read_or_stays_whatever_comes_first() {
    quietly(|_| async {
        for order in 0..3 {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            let reader: SharedFd = OwnedFd::from(reader).into();
            let (handle, task) = waiting(one_byte(reader.clone())).await;
            let mut write = || writer.write_all(b"x").expect("room");
            match order {
                0 => {
                    handle.cancel();
                    check().expect("another scope is cancelled");
                    write();
                }
                1 => {
                    write();
                    handle.cancel();
                    check().expect("another scope is cancelled");
                }
                _ => {
                    write();
                    some_turns(2).await;
                    handle.cancel();
                }
            }
            match task.await.expect("it ended").expect("no error") {
                Some(byte) => assert_eq!(byte, b'x', "order {order}"),
                None => {
                    assert!(order < 2, "the byte had been read before the cancel");
                    let byte = one_byte(reader).await.expect("it is still there");
                    assert_eq!(byte, b'x', "order {order}");
                }
            }
        }
    });
}

/// The cancel may come at any moment of a byte's way; as many come out as went in.
#[test]
fn c154_cancel_at_any_moment_loses_no_byte() {
    conform(|_| async {
        let rounds: u32 = if Kernel::here().is_simulated() {
            200
        } else {
            repetitions(20_000, 100_000)
        };
        let (reader, writer) = pipe();
        let (mut received, mut cancelled) = (0, 0);
        let refused = Rc::new(Cell::new(0));
        for round in 0..rounds {
            let scope = Scope::new();
            let cancel = scope.handle();
            let (reading, sent) = (reader.clone(), Rc::new(Cell::new(false)));
            let (cancel_sent, refused) = (Rc::clone(&sent), Rc::clone(&refused));
            let body = async move {
                let byte = one_byte(reading).await?;
                assert_eq!(check().is_err(), cancel_sent.get(), "the next op");
                refused.set(refused.get() + u32::from(cancel_sent.get()));
                Ok::<_, io::Error>(byte)
            };
            let reading = spawn(async move { scope.run(body).await });
            let to = writer.clone();
            let writing = spawn(async move {
                some_turns(round % 3).await;
                op::write(&to, vec![round as u8]).await.0
            });
            some_turns(round / 3 % 4).await;
            cancel.cancel();
            sent.set(true);
            let outcome = reading.await.expect("it ended").expect("no failure");
            assert_eq!(writing.await.expect("it ended").expect("room"), 1);
            let byte = match outcome {
                Some(byte) => {
                    received += 1;
                    byte
                }
                None => {
                    cancelled += 1;
                    one_byte(reader.clone()).await.expect("it is still there")
                }
            };
            assert_eq!(byte, round as u8);
        }
        assert!(received > 0 && cancelled > 0, "{received}, {cancelled}");
        assert!(
            refused.get() > 0,
            "no byte ever came first and was told of after the cancel"
        );
    });
}

// On the real ring: the connection is made by somebody else.
#[test]
fn c155_of_a_connection_and_a_cancel_the_first_counts() {
    let test = "kernel_ops::c155_of_a_connection_and_a_cancel_the_first_counts";
    in_child(test, || {
        quietly(|_| async {
            let before = descriptors();
            for cancel_first in [true, false] {
                let listener = Rc::new(TcpListener::bind("127.0.0.1:0").expect("a free port"));
                let inner = Rc::clone(&listener);
                let (handle, task) = waiting(async move {
                    let accepted = inner.accept().await?;
                    let next = reason(&op::nop().await);
                    Ok::<_, io::Error>((accepted, next))
                })
                .await;
                let theirs = std::net::TcpStream::connect(listener.local_addr());
                let theirs = theirs.expect("it listens");
                if !cancel_first {
                    some_turns(2).await;
                }
                handle.cancel();
                check().expect("another scope is cancelled");
                let outcome = task.await.expect("it ended").expect("no error");
                assert_eq!(outcome.is_none(), cancel_first);
                let ours = match outcome {
                    Some((stream, next)) => {
                        // It went on before the cancel came, or after it.
                        assert!(matches!(next, None | Some(Reason::Requested)));
                        stream
                    }
                    None => listener.accept().await.expect("it still waits"),
                };
                assert_eq!(
                    ours.peer_addr().expect("connected"),
                    theirs.local_addr().expect("connected")
                );
                ours.close().await.expect("no error");
                let listener = Rc::into_inner(listener).expect("its task has ended");
                assert!(listener.finish().await.is_empty());
            }
            assert_eq!(descriptors(), before);
        });
    });
}

/// As above, in every order of the two.
#[test]
fn c155_connection_and_cancel_meet_in_any_order_and_none_is_lost() {
    conform(|_| async {
        for turns in 0..6 {
            let listener = Rc::new(TcpListener::bind("127.0.0.1:0").expect("a free port"));
            let address = listener.local_addr();
            let (inner, sent) = (Rc::clone(&listener), Rc::new(Cell::new(false)));
            let cancel_sent = Rc::clone(&sent);
            let (handle, task) = waiting(async move {
                let stream = inner.accept().await?;
                assert_eq!(check().is_err(), cancel_sent.get(), "the next op");
                Ok::<_, io::Error>(stream)
            })
            .await;
            let connecting = spawn(TcpStream::connect(address));
            some_turns(turns).await;
            handle.cancel();
            sent.set(true);
            let ours = match task.await.expect("it ended").expect("no error") {
                Some(stream) => stream,
                None => listener.accept().await.expect("it still waits"),
            };
            let theirs = connecting.await.expect("it ended").expect("it listens");
            assert_eq!(
                ours.peer_addr().expect("connected"),
                theirs.local_addr().expect("connected")
            );
        }
    });
}

// --- descriptors ---

#[test]
fn c156_open_that_is_given_up_leaves_no_descriptor() {
    let test = "kernel_ops::c156_open_that_is_given_up_leaves_no_descriptor";
    in_child(test, || {
        conform_in(&[Put::File("file", b"x")], |_, folder| async move {
            let path = folder.join("file");
            let before = descriptors();
            let rounds = if Kernel::here().is_simulated() {
                200
            } else {
                repetitions(20_000, 100_000)
            };
            let outcome = Scope::new()
                .run(async {
                    let options = OpenOptions::new().read(true);
                    for round in 0..rounds {
                        let mut open = pin!(options.open(&path));
                        assert!(poll_once(open.as_mut()).await.is_pending());
                        if round % 2 == 0 {
                            op::nop().await?;
                        }
                    }
                    Ok::<_, io::Error>(())
                })
                .await;
            assert!(matches!(outcome, Ok(Some(()))));
            assert_eq!(descriptors(), before);
        });
    });
}

/// Connections are made that nobody takes any more: they come while the accept is given up, or before.
#[test]
fn c156_accept_that_is_given_up_leaves_no_descriptor() {
    let test = "kernel_ops::c156_accept_that_is_given_up_leaves_no_descriptor";
    in_child(test, || {
        conform(|_| async {
            let before = descriptors();
            let rounds = if Kernel::here().is_simulated() {
                20
            } else {
                500
            };
            for round in 0..rounds {
                let outcome = Scope::new()
                    .run(async {
                        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                        let mut accept = Box::pin(listener.accept());
                        assert!(poll_once(accept.as_mut()).await.is_pending());
                        let connecting = spawn(TcpStream::connect(listener.local_addr()));
                        some_turns(round % 5).await;
                        drop(accept);
                        drop(listener);
                        // Refused, or connected with nobody.
                        drop(connecting.await.expect("it ended"));
                        Ok::<_, io::Error>(())
                    })
                    .await;
                assert!(matches!(outcome, Ok(Some(()))));
            }
            assert_eq!(descriptors(), before);
        });
    });
}

/// The completion is there, and nobody has looked: an open, a read with its buffer, a receive.
#[test]
fn c157_result_that_nobody_looked_at_is_disposed_of_once() {
    let test = "kernel_ops::c157_result_that_nobody_looked_at_is_disposed_of_once";
    in_child(test, || {
        conform_in(&[Put::File("file", b"x")], |handle, folder| async move {
            let before = descriptors();
            let options = OpenOptions::new().read(true);
            let mut open = Box::pin(options.open(folder.join("file")));
            begin(open.as_mut());
            let (reader, writer) = pipe();
            op::write(&writer, "gone").await.0.expect("room");
            let mut read = Box::pin(op::read(&reader, GuardBuf::new(16)));
            begin(read.as_mut());
            let (ours, theirs) = both_streams().await;
            let mut receive = Box::pin(ours.receive());
            begin(receive.as_mut());
            theirs
                .send_all("kept")
                .await
                .0
                .expect("the socket takes it");
            while gauges(&handle).await.in_flight > 1 {}
            // The completion of the receive may be on its way; the stream goes on to wait.
            some_turns(3).await;
            drop((open, read, receive));
            let after = kernel_is_done(&handle).await;
            assert_eq!((after.op_slots, after.orphan_faults), (1, 0));
            let mut kept = Vec::new();
            while kept.len() < 4 {
                let chunk = ours.receive().await.expect("no error").expect("no end");
                kept.extend_from_slice(&chunk);
            }
            assert_eq!(kept, b"kept");
            drop((reader, writer, theirs));
            ours.close().await.expect("no error");
            assert_eq!(descriptors(), before);
        });
    });
}

/// Both go into the kernel in one entry, the op first.
#[test]
fn c158_op_that_was_not_submitted_yet_is_cancelled_behind_itself() {
    conform(|handle| async move {
        let (reader, writer) = pipe();
        let inner = reader.clone();
        let scope = Scope::new();
        let cancel = scope.handle();
        let before = gauges(&handle).await;
        let (run, polls) = watched(scope.run(async {
            let mut read = pin!(op::read(&inner, GuardBuf::new(8)));
            begin(read.as_mut());
            cancel.cancel();
            assert!(check().is_err());
            let (outcome, buf) = read.await;
            assert_eq!(reason(&outcome), Some(Reason::Requested));
            assert_eq!(buf.bytes(), b"");
            outcome
        }));
        let outcome = run.await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
        let after = handle.metrics()[0];
        assert_eq!(polls.get(), 2);
        if Kernel::here().counts_exactly() {
            let spent = (
                after.enters - before.enters,
                after.submitted - before.submitted,
            );
            // The pause in which the gauges were taken counts its own entry.
            assert!(spent.0 <= 2 && spent.1 == 2, "{spent:?}");
        }
        assert_eq!(
            gauges(&handle).await.cancel_requests - before.cancel_requests,
            1
        );
        op::write(&writer, "x").await.0.expect("room");
        assert_eq!(one_byte(reader).await.expect("nothing was taken"), b'x');
    });
}

#[test]
fn c159_ops_that_wait_in_line_are_cancelled_without_the_kernel() {
    conform_of(one_core().submission_entries(8), |handle| async move {
        let (reader, writer) = pipe();
        let drops = Drops::new();
        let scope = Scope::new();
        let cancel = scope.handle();
        let before = handle.metrics()[0].submitted;
        let outcome = scope
            .run(async {
                let mut reads: Vec<_> = (0..500)
                    .map(|_| {
                        let counted = drops.value();
                        let reader = reader.clone();
                        Box::pin(async move {
                            let _counted = counted;
                            op::read(&reader, vec![0_u8; 16]).await
                        })
                    })
                    .collect();
                for read in &mut reads {
                    assert!(poll_once(read.as_mut()).await.is_pending());
                }
                cancel.cancel();
                assert!(check().is_err());
                for read in reads {
                    let (outcome, buf) = read.await;
                    assert_eq!(reason(&outcome), Some(Reason::Requested));
                    assert_eq!(buf.len(), 16);
                }
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))));
        assert_eq!(drops.alive(), 0);
        let submitted = handle.metrics()[0].submitted - before;
        // As many as there was room for, each with a cancel request.
        assert!(submitted <= 2 * 8 + 1, "{submitted}");
        op::write(&writer, "x").await.0.expect("room");
        let (count, _) = op::read(&reader, [0; 4]).await;
        assert_eq!(count.expect("no byte was swallowed"), 1);
        let counters = gauges(&handle).await;
        assert_eq!((counters.op_slots, counters.parked), (0, 1));
    });
}

/// More ops are in the kernel than the queue has room for cancel requests.
#[test]
fn c160_cancel_request_that_finds_the_queue_full_is_sent_later() {
    conform_of(one_core().submission_entries(8), |handle| async move {
        const READS: u64 = 100;
        let (reader, _writer) = pipe();
        let scope = Scope::new();
        let cancel = scope.handle();
        let before = gauges(&handle).await;
        let (run, polls) = watched(scope.run(async {
            let mut reads: Vec<_> = (0..READS)
                .map(|_| Box::pin(op::read(&reader, vec![0; 8])))
                .collect();
            for read in &mut reads {
                assert!(poll_once(read.as_mut()).await.is_pending());
            }
            op::nop().await?;
            // The queue is full, before the first of them is asked to end.
            let mut nops: Vec<_> = (0..8).map(|_| Box::pin(op::nop())).collect();
            for nop in &mut nops {
                assert!(poll_once(nop.as_mut()).await.is_pending());
            }
            cancel.cancel();
            assert!(check().is_err());
            for read in reads {
                assert_eq!(reason(&read.await.0), Some(Reason::Requested));
            }
            for nop in nops {
                drop(nop.await);
            }
            Ok::<_, io::Error>(())
        }));
        assert!(matches!(run.await, Ok(Some(()))));
        let after = gauges(&handle).await;
        // One for each of them, and for those of the last ones that were in the queue.
        let asked = after.cancel_requests - before.cancel_requests;
        assert!(asked <= READS + 8, "{asked} cancel requests");
        if Kernel::here().counts_exactly() {
            // None of them was interrupted, and so out of the kernel when the cancel came.
            assert!(asked >= READS, "{asked} cancel requests");
        }
        assert!(u64::from(polls.get()) <= 2 * READS);
        assert_eq!((after.op_slots, after.in_flight), (0, 0));
        if Kernel::here().counts_exactly() {
            // A turn for each poll, and one for each time that the queue was full: it does not spin.
            let turns = after.turns - before.turns;
            assert!(turns <= 2 * READS, "{turns} turns");
        }
    });
}

/// Whichever of the two completions comes first.
#[test]
fn c161_cancel_that_is_granted_ends_the_op_once() {
    for answered_last in [false, true] {
        for_seeds(0..10, |sim| {
            let sim = if answered_last {
                sim.force_at("cancel", Fault::CancelAnsweredLast)
            } else {
                sim
            };
            sim.run(|| {
                quietly(|handle| async move {
                    let (reader, _writer) = pipe();
                    let before = gauges(&handle).await;
                    let (cancel, task) = waiting(one_byte(reader)).await;
                    sim::point("cancel");
                    cancel.cancel();
                    assert!(matches!(task.await.expect("it ended"), Ok(None)));
                    let after = gauges(&handle).await;
                    let asked = after.cancel_requests - before.cancel_requests;
                    assert_eq!((asked, after.aborts - before.aborts), (1, 1));
                    assert_eq!((after.op_slots, after.parked), (0, 1));
                });
            });
        });
    }
}

/// On whichever kernel, in its own order.
#[test]
fn c161_cancelled_op_is_asked_once() {
    conform(|handle| async move {
        let (reader, _writer) = pipe();
        let before = gauges(&handle).await;
        for _ in 0..100 {
            let (cancel, task) = waiting(one_byte(reader.clone())).await;
            cancel.cancel();
            assert!(matches!(task.await.expect("it ended"), Ok(None)));
        }
        let after = gauges(&handle).await;
        assert_eq!(after.aborts - before.aborts, 100);
        let asked = after.cancel_requests - before.cancel_requests;
        assert!(asked <= 100, "{asked} cancel requests");
        if Kernel::here().counts_exactly() {
            // None of them was interrupted, and so out of the kernel when the cancel came.
            assert_eq!(asked, 100);
        }
        assert_eq!(after.op_slots, 0);
    });
}

/// The kernel takes its time to end it: it is waited for, and nobody is woken meanwhile.
#[test]
fn c161_op_that_ends_late_is_left_alone_until_then() {
    for_seeds(0..20, |sim| {
        let sim = sim.force_at("cancel", Fault::CancelledLate);
        sim.run(|| {
            quietly(|handle| async move {
                let (reader, _writer) = pipe();
                let scope = Scope::new();
                let before = gauges(&handle).await;
                let (run, polls) = watched(scope.run(async {
                    let mut read = pin!(one_byte(reader));
                    assert!(poll_once(read.as_mut()).await.is_pending());
                    sim::point("cancel");
                    scope.cancel();
                    read.await
                }));
                assert!(matches!(run.await, Ok(None)));
                assert_eq!(polls.get(), 2, "begun, and told of its completion");
                let after = gauges(&handle).await;
                assert_eq!(after.cancel_requests - before.cancel_requests, 1);
                assert_eq!(after.foreign_wakes, before.foreign_wakes);
            });
        });
    });
}

/// The op goes through while it is being asked, and the answer says one thing or another.
#[test]
fn c162_cancel_that_comes_too_late_is_ignored() {
    for fault in [
        Fault::CancelNotFound,
        Fault::CancelAlready,
        Fault::CancelledYetDone,
    ] {
        let mut late = 0;
        for_seeds(0..20, |sim| {
            let outcome = sim.force_at("cancel", fault).run(|| {
                quietly(|handle| async move {
                    let (reader, writer) = pipe();
                    let before = gauges(&handle).await;
                    let (cancel, task) = waiting(async move {
                        let byte = one_byte(reader.clone()).await;
                        assert_eq!(reason(&check()), Some(Reason::Requested));
                        Ok::<_, io::Error>((byte?, reader))
                    })
                    .await;
                    // The byte and the cancel go in together, in this order.
                    beside_another();
                    let mut write = pin!(op::write(&writer, "x"));
                    begin(write.as_mut());
                    sim::point("cancel");
                    cancel.cancel();
                    check().expect("another scope is cancelled");
                    let outcome = task.await.expect("it ended").expect("no failure");
                    write.await.0.expect("room");
                    let after = gauges(&handle).await;
                    assert!(after.cancel_requests - before.cancel_requests <= 1);
                    outcome.map(|(byte, _)| byte)
                })
            });
            late += u32::from(outcome.value == Some(b'x') && outcome.came(fault) == 1);
        });
        assert!(late > 0, "{fault:?}");
    }
}

/// Somebody else has ended it: by its descriptor, or with the thread that submitted it.
#[test]
fn c163_op_that_others_have_ended_has_failed() {
    for cancelled_as_well in [false, true] {
        for_seeds(0..10, |sim| {
            sim.force_at("read", Fault::EndedByOthers).run(|| {
                quietly(move |_| async move {
                    let (reader, _writer) = pipe();
                    let scope = Scope::new();
                    let cancel = scope.handle();
                    let outcome = scope
                        .run(async {
                            sim::point("read");
                            let read = one_byte(reader).await;
                            if cancelled_as_well {
                                // Too late to have been the reason.
                                cancel.cancel();
                                check().expect_err("cancelled");
                            }
                            read
                        })
                        .await;
                    let error = outcome.expect_err("no scope takes it");
                    assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
                    assert_eq!(error.cancelled(), None);
                });
            });
        });
    }
}

/// Reads a file while it is cancelled; returns whether that ended it, or nothing if it had ended.
async fn file_read_that_is_cancelled(path: &Path) -> Option<bool> {
    let options = OpenOptions::new().read(true);
    let file = options.open(path).await.expect("a file");
    let scope = Scope::new();
    let cancel = scope.handle();
    let (run, polls) = watched(async move {
        let body = async {
            beside_another();
            sim::point("read");
            let (count, buf) = file.read_at(vec![0; 8], 0).await;
            assert_eq!(&buf[..count?], b"content!");
            Ok::<_, io::Error>(reason(&check()))
        };
        scope.run(body).await.expect("no failure")
    });
    let task = spawn(run);
    yield_now().await.expect("nobody cancels");
    if task.is_finished() {
        return None;
    }
    let before = polls.get();
    cancel.cancel();
    check().expect("another scope is cancelled");
    let next = task.await.expect("it ended");
    assert_eq!(
        polls.get(),
        before + 1,
        "it was woken by the completion alone"
    );
    if let Some(next) = next {
        assert_eq!(next, Some(Reason::Requested));
    }
    Some(next.is_none())
}

#[test]
fn c164_read_of_a_file_that_is_running_returns_its_bytes() {
    let (mut done, mut stopped) = (0, 0);
    for_seeds(0..40, |sim| {
        let sim = sim.file("/f/a", "content!").force_at("read", Fault::Delay);
        sim.run(|| {
            let outcome = quietly(|handle| async move {
                let before = gauges(&handle).await.cancel_requests;
                let outcome = file_read_that_is_cancelled(Path::new("/f/a")).await;
                let asked = kernel_is_done(&handle).await.cancel_requests - before;
                assert!(asked <= 1, "{asked} cancel requests");
                outcome
            });
            done += u32::from(outcome == Some(false));
            stopped += u32::from(outcome == Some(true));
        });
    });
    assert!(done > 0, "it never was running when it was cancelled");
    assert!(stopped > 0, "it never was in line when it was cancelled");
}

/// What a machine is at when the cancel comes is up to the machine.
#[test]
fn c164_read_of_a_file_is_done_or_was_not_begun() {
    conform_in(&[Put::File("a", b"content!")], |_, folder| async move {
        if Kernel::here().counts_exactly() {
            for _ in 0..50 {
                file_read_that_is_cancelled(&folder.join("a")).await;
            }
        }
    });
}

#[test]
fn c165_close_in_a_cancelled_scope_closes() {
    let test = "kernel_ops::c165_close_in_a_cancelled_scope_closes";
    in_child(test, || {
        conform(|_| async {
            let before = descriptors();
            let (ours, theirs) = both_ends().await;
            let (reader, writer) = pipe();
            let scope = Scope::new();
            let handle = scope.handle();
            let outcome = scope
                .run(async {
                    handle.cancel();
                    check().expect_err("cancelled");
                    ours.close().await?;
                    op::close(reader).await
                })
                .await;
            assert!(matches!(outcome, Ok(Some(()))));
            assert!(theirs.recv().await.expect("an orderly end").is_none());
            let (refused, _) = op::write(&writer, "x").await;
            let refused = refused.map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::BrokenPipe));
            theirs.close().await.expect("no error");
            op::close(writer).await.expect("no error");
            assert_eq!(descriptors(), before);
        });
    });
}

/// Dropped before it was polled, after it was, or while it stands in line; the scope is cancelled too.
#[test]
fn c165_close_that_is_dropped_closes() {
    conform_of(one_core().submission_entries(8), |handle| async move {
        op::nop().await.expect("the core works");
        // The queue is empty, or has room for one more, or is full.
        for ahead in [None, Some(0), Some(7), Some(8), Some(9)] {
            let (reader, writer) = pipe();
            let scope = Scope::new();
            let cancel = scope.handle();
            let outcome = scope
                .run(async {
                    let mut nops: Vec<_> = (0..ahead.unwrap_or(0))
                        .map(|_| Box::pin(op::nop()))
                        .collect();
                    for nop in &mut nops {
                        begin(nop.as_mut());
                    }
                    cancel.cancel();
                    check().expect_err("cancelled");
                    let mut close = Box::pin(op::close(reader));
                    if ahead.is_some() {
                        begin(close.as_mut());
                    }
                    drop(close);
                    Ok::<_, Cancelled>(())
                })
                .await;
            assert_eq!(outcome, Ok(Some(())));
            kernel_is_done(&handle).await;
            let (refused, _) = op::write(&writer, "x").await;
            let refused = refused.map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::BrokenPipe), "{ahead:?} ahead");
        }
    });
}

/// Slots are used again as soon as they are vacant, while ops of the same slots are being given up.
/// The simulated kernel looks whether two requests in flight, or one after the other, have one number.
#[test]
fn c166_slot_that_is_used_again_gets_no_completion_of_the_op_before() {
    conform(|handle| async move {
        let (silent, _keep) = pipe();
        let (reader, writer) = pipe();
        for round in 0..200_u32 {
            let mut given_up = Box::pin(op::read(&silent, GuardBuf::new(8)));
            begin(given_up.as_mut());
            if round % 2 == 0 {
                op::nop().await.expect("it waits in the kernel");
            }
            drop(given_up);
            let mut next = Box::pin(one_byte(reader.clone()));
            begin(next.as_mut());
            some_turns(round % 4).await;
            op::write(&writer, vec![round as u8]).await.0.expect("room");
            assert_eq!(next.await.expect("its own byte"), round as u8);
        }
        let after = kernel_is_done(&handle).await;
        assert_eq!((after.orphan_faults, after.op_slots), (0, 0));
    });
}

#[test]
fn c167_connect_that_is_cancelled_leaves_no_socket() {
    let test = "kernel_ops::c167_connect_that_is_cancelled_leaves_no_socket";
    in_child(test, || {
        conform(|handle| async move {
            let (address, _full) = full_address().await;
            let before = descriptors();
            for _ in 0..3 {
                let scope = Scope::new().timeout(SHORT);
                let outcome = scope.run(TcpStream::connect(address)).await;
                assert!(matches!(outcome, Ok(None)), "{outcome:?}");
                let counters = kernel_is_done(&handle).await;
                assert_eq!((counters.in_flight, counters.op_slots), (0, 0));
                assert_eq!(descriptors(), before);
            }
            // The next one has a socket of its own.
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let stream = TcpStream::connect(listener.local_addr()).await;
            let accepted = listener.accept().await.expect("somebody connects");
            assert_eq!(
                stream.expect("it listens").local_addr().expect("connected"),
                accepted.peer_addr().expect("connected")
            );
        });
    });
}

/// Code of others drops the receive when its time is over; the bytes come then.
#[test]
fn c169_bytes_of_a_receive_that_was_dropped_come_first() {
    conform(|_| async {
        let (ours, theirs) = both_streams().await;
        for round in 0..50_u8 {
            let picked = either(ours.receive(), sleep(Duration::from_micros(100))).await;
            assert!(matches!(picked, Either::Second(Ok(()))));
            theirs.send_all(vec![round; 10]).await.0.expect("room");
            some_turns(u32::from(round % 3)).await;
            theirs.send_all(vec![!round; 10]).await.0.expect("room");
            let received = receive_exactly(&ours, 20).await;
            assert_eq!(received, [vec![round; 10], vec![!round; 10]].concat());
        }
    });
}

/// As above, with the drop at any moment of the bytes' way, in every order.
#[test]
fn c169_bytes_that_come_while_a_receive_is_dropped_come_first() {
    all_ways(|| {
        quietly(|_| async {
            let (ours, theirs) = both_streams().await;
            let sender = spawn(async move {
                theirs.send_all("0123456789").await.0.expect("room");
                theirs
            });
            {
                let mut receive = pin!(ours.receive());
                assert!(poll_once(receive.as_mut()).await.is_pending());
                yield_now().await.expect("nobody cancels");
            }
            assert_eq!(receive_exactly(&ours, 10).await, b"0123456789");
            drop(sender.await.expect("it ended"));
            // A way of its own for each order would be nothing to compare.
            0
        })
    });
}

async fn receive_exactly(stream: &Stream, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let chunk = stream.receive().await.expect("no error").expect("no end");
        all.extend_from_slice(&chunk);
    }
    all
}

/// All in one turn, in this order or the other way round.
#[test]
fn c170_op_that_is_cancelled_three_times_over_is_asked_once() {
    conform(|handle| async move {
        for inner_first in [false, true] {
            let (reader, _writer) = pipe();
            let before = gauges(&handle).await;
            let around = Scope::new();
            let ended = around
                .run(async {
                    let (outer, inner) = (Scope::new(), Scope::new());
                    let (cancel_outer, cancel_inner) = (outer.handle(), inner.handle());
                    let body = async {
                        let mut read = Box::pin(op::read(&reader, vec![0; 8]));
                        assert!(poll_once(read.as_mut()).await.is_pending());
                        op::nop().await?;
                        let both = [cancel_outer, cancel_inner];
                        for index in if inner_first { [1, 0] } else { [0, 1] } {
                            both[index].cancel();
                            assert!(check().is_err());
                        }
                        drop(read);
                        check().map_err(io::Error::from)
                    };
                    let outcome = outer.run(inner.run(body)).await;
                    assert!(matches!(outcome, Ok(None)), "{outcome:?}");
                    Ok::<_, io::Error>(())
                })
                .await;
            assert!(matches!(ended, Ok(Some(()))));
            let after = kernel_is_done(&handle).await;
            let requests = after.cancel_requests - before.cancel_requests;
            let aborts = after.aborts - before.aborts;
            match Kernel::here() {
                // What was interrupted is not to be cancelled any more.
                Kernel::Unruly => assert!(requests <= 1 && aborts <= 1),
                _ => assert_eq!((requests, aborts), (1, 1)),
            }
        }
    });
}

/// The queues of the ring are far smaller.
#[test]
fn c171_very_many_ops_that_are_cancelled_at_once_all_end() {
    // The kernel finds an op to be cancelled by a table that is as large as this queue is.
    let small = one_core().submission_entries(256).completion_entries(4_096);
    conform_of(small, |handle| async move {
        let ops: u64 = if Kernel::here().is_simulated() {
            1_000
        } else {
            100_000
        };
        let (reader, writer) = pipe();
        let drops = Drops::new();
        let scope = Scope::new();
        let cancel = scope.handle();
        let before = gauges(&handle).await;
        let outcome = scope
            .run(async {
                let mut reads: Vec<_> = (0..ops)
                    .map(|_| {
                        let (value, reader) = (drops.value(), reader.clone());
                        Box::pin(async move {
                            let _value = value;
                            one_byte(reader).await
                        })
                    })
                    .collect();
                for read in &mut reads {
                    begin(read.as_mut());
                }
                op::nop().await?;
                cancel.cancel();
                assert!(check().is_err());
                for read in reads {
                    assert_eq!(reason(&read.await), Some(Reason::Requested));
                }
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        assert_eq!((drops.alive(), drops.dropped()), (0, ops));
        let after = gauges(&handle).await;
        assert_eq!(after.aborts - before.aborts, ops);
        let asked = after.cancel_requests - before.cancel_requests;
        assert!(asked <= ops, "{asked} cancel requests");
        assert_eq!((after.op_slots, after.in_flight, after.parked), (0, 0, 1));
        op::write(&writer, "x").await.0.expect("room");
        assert_eq!(one_byte(reader).await.expect("none was swallowed"), b'x');
    });
}
