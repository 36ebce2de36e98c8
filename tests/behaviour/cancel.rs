//! Scopes, deadlines and handles, seen from programs.

use std::future::Future;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use quoit::buf::Interrupted;
use quoit::fs::{File, OpenOptions};
use quoit::op::{self, SharedFd};
use quoit::sync::Event;
use quoit::time::{Instant, sleep, sleep_until};
use quoit::{
    CancelHandle, Cancelled, CarriesCancelled, Delivery, Misuse, Reason, Runtime, Scope, check,
    spawn, yield_now,
};
use quoit_net::{TcpListener, TcpStream};
use tests::{
    Drops, Kernel, Outside, Put, both_ends, both_streams, bytes, connected, full_address, gauges,
    on_core, on_core_in, on_core_of, on_ring, poll_once, receive_all, receive_exactly,
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

/// A pipe whose ends are used on a core.
fn pipe() -> (SharedFd, SharedFd) {
    op::pipe().expect("a pipe")
}

fn reason<T>(outcome: &io::Result<T>) -> Option<Reason> {
    let error = outcome.as_ref().err()?;
    error.cancelled().map(Cancelled::reason)
}

/// Checks that a wait without an end is ended by the deadline of the scope around it.
async fn ends_at_its_deadline<T>(wait: impl Future<Output = io::Result<T>>) {
    let scope = Scope::new().timeout(SHORT);
    let begin = Instant::now();
    let outcome = scope.run(wait).await;
    assert!(matches!(outcome, Ok(None)), "{:?}", outcome.err());
    assert!(begin.elapsed() >= SHORT);
    assert_eq!(
        scope.cancelled().map(Cancelled::reason),
        Some(Reason::Deadline)
    );
}

// --- deadlines ---

#[test]
fn a_deadline_ends_a_sleep() {
    on_core(|handle| async move {
        ends_at_its_deadline(async { Ok(sleep(LONG).await?) }).await;
        ends_at_its_deadline(async { Ok(sleep_until(Instant::NEVER).await?) }).await;
        assert_eq!(gauges(&handle).await.deadlines, 2);
    });
}

#[test]
fn a_deadline_ends_a_wait_for_an_event() {
    on_core(|_| async {
        let event = Event::new();
        ends_at_its_deadline(async { Ok(event.wait().await?) }).await;
        event.set();
        event.wait().await.expect("it has happened");
    });
}

#[test]
fn a_deadline_ends_a_join_and_the_task_goes_on() {
    on_core(|_| async {
        let go = Rc::new(Event::new());
        let inner = Rc::clone(&go);
        let mut task = spawn(async move {
            inner
                .wait()
                .await
                .expect("only the wait for us is cancelled");
            7
        });
        ends_at_its_deadline(async { Ok((&mut task).await?) }).await;
        go.set();
        assert_eq!(task.await.expect("it ended"), 7);
    });
}

#[test]
fn a_deadline_ends_a_receive() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        ends_at_its_deadline(ours.recv()).await;
        ends_at_its_deadline(async { ours.read(vec![0; 16]).await.0 }).await;
        theirs
            .write_all("late")
            .await
            .0
            .expect("the socket takes it");
        assert_eq!(receive_exactly(&ours, 4).await, b"late");
    });
}

#[test]
fn a_deadline_ends_an_accept() {
    on_core(|_| async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        ends_at_its_deadline(listener.accept()).await;
        let theirs = TcpStream::connect(listener.local_addr())
            .await
            .expect("it listens");
        let ours = listener.accept().await.expect("somebody connected");
        assert_eq!(
            ours.peer_addr().expect("connected"),
            theirs.local_addr().expect("connected")
        );
    });
}

#[test]
fn a_deadline_ends_a_connect_and_the_socket_is_closed() {
    on_core(|handle| async move {
        let (address, _full) = full_address().await;
        ends_at_its_deadline(TcpStream::connect(address)).await;
        let counters = gauges(&handle).await;
        assert_eq!((counters.in_flight, counters.op_slots), (0, 0));
    });
}

#[test]
fn a_deadline_ends_reads_polls_and_receives_of_the_kernel() {
    on_core(|handle| async move {
        let (reader, writer) = pipe();
        ends_at_its_deadline(async { op::read(&reader, vec![0; 16]).await.0 }).await;
        ends_at_its_deadline(op::poll(&reader, libc::POLLIN as u32)).await;
        let (ours, _theirs) = both_streams().await;
        let ours = ours.fd();
        ends_at_its_deadline(async { op::receive_into(&ours, [0; 16]).await.0 }).await;
        // The bytes of a cancelled read are there for the next.
        op::write(&writer, "x").await.0.expect("room");
        let (count, buf) = op::read(&reader, [0; 2]).await;
        assert_eq!((count.expect("there is one"), buf), (1, *b"x\0"));
        assert_eq!(gauges(&handle).await.op_slots, 0);
    });
}

#[test]
fn a_deadline_ends_a_write_to_a_full_pipe_and_the_buffer_comes_back() {
    on_core(|_| async {
        let (_reader, writer) = pipe();
        let outcome = Scope::new()
            .timeout(SHORT)
            .run(async {
                loop {
                    let (written, buf) = op::write(&writer, vec![7; 4096]).await;
                    assert_eq!(buf, vec![7; 4096]);
                    written?;
                }
                #[expect(unreachable_code, reason = "it says what the body would return")]
                Ok::<(), io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(None)));
    });
}

#[test]
fn a_deadline_that_has_passed_refuses_the_first_op() {
    on_core(|_| async {
        for scope in [
            Scope::new().deadline(Instant::now()),
            Scope::new().timeout(Duration::ZERO),
        ] {
            let mut went_on = false;
            let outcome = scope
                .run(async {
                    op::nop().await?;
                    went_on = true;
                    Ok::<_, io::Error>(())
                })
                .await;
            assert!(matches!(outcome, Ok(None)));
            assert!(!went_on);
        }
    });
}

#[test]
fn the_earlier_of_two_deadlines_counts() {
    on_core(|_| async {
        let now = Instant::now();
        for scope in [
            Scope::new().timeout(SHORT).deadline(now + LONG),
            Scope::new().timeout(LONG).deadline(now + SHORT),
        ] {
            assert_eq!(scope.run(sleep(2 * LONG)).await, Ok(None));
            assert!(now.elapsed() >= SHORT);
        }
    });
}

#[test]
fn a_body_that_ends_in_time_disarms_its_deadline() {
    on_core(|handle| async move {
        for _ in 0..100 {
            let scope = Scope::new().timeout(LONG);
            let outcome = scope.run(async { Ok::<_, Cancelled>(1) }).await;
            assert_eq!(outcome, Ok(Some(1)));
        }
        let counters = gauges(&handle).await;
        // The timer of the pause in which the gauges were taken.
        assert_eq!((counters.timers, counters.deadlines), (1, 0));
    });
}

// --- the entry check ---

#[test]
fn a_close_in_a_cancelled_scope_closes() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let scope = Scope::new();
        let handle = scope.handle();
        let outcome = scope
            .run(async {
                handle.cancel();
                ours.close().await
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))));
        assert!(theirs.recv().await.expect("an orderly end").is_none());
    });
}

// --- which came first ---

/// Starts `wait` in a scope of its own, in a task, and returns the scope's handle once it waits.
async fn waiting<T: 'static>(
    wait: impl Future<Output = io::Result<T>> + 'static,
) -> (CancelHandle, quoit::JoinHandle<io::Result<Option<T>>>) {
    let (tell, told) = mpsc::channel();
    let task = spawn(async move {
        let scope = Scope::new();
        tell.send(scope.handle()).expect("the test listens");
        scope.run(wait).await
    });
    loop {
        if let Ok(handle) = told.try_recv() {
            // What it waits for is in the kernel now.
            op::nop().await.expect("not cancelled");
            return (handle, task);
        }
        yield_now().await.expect("not cancelled");
    }
}

#[test]
fn of_an_event_and_a_cancel_the_first_counts() {
    on_core(|_| async {
        for cancel_first in [true, false] {
            let event = Rc::new(Event::new());
            let inner = Rc::clone(&event);
            let (handle, task) = waiting(async move { Ok(inner.wait().await?) }).await;
            if cancel_first {
                assert_eq!(handle.cancel(), Delivery::Delivered);
                // The cancel is seen now, and the event comes too late.
                check().expect("another scope is cancelled");
                event.set();
            } else {
                event.set();
                assert_eq!(handle.cancel(), Delivery::Delivered);
                check().expect("another scope is cancelled");
            }
            let outcome = task.await.expect("it ended").expect("no error");
            assert_eq!(outcome.is_none(), cancel_first);
        }
    });
}

/// Lets tasks and completions come before the caller, so many turns of them.
async fn some_turns(count: u32) {
    for _ in 0..count {
        op::nop().await.expect("nobody cancels");
    }
}

#[test]
fn a_byte_a_connection_and_a_cancel_may_meet_anywhere_and_nothing_is_lost() {
    on_core(|_| async {
        for turns in 0..6 {
            let (ours, theirs) = both_ends().await;
            let ours = Rc::new(ours);
            let inner = Rc::clone(&ours);
            let (handle, task) = waiting(async move { inner.recv().await }).await;
            let sending = spawn(async move { theirs.write_all("x").await.0.map(|()| theirs) });
            some_turns(turns).await;
            handle.cancel();
            let chunk = match task.await.expect("it ended").expect("no error") {
                Some(chunk) => chunk,
                None => ours.recv().await.expect("no error"),
            };
            assert_eq!(&*chunk.expect("no end"), b"x");
            sending.await.expect("it ended").expect("connected");

            let listener = Rc::new(TcpListener::bind("127.0.0.1:0").expect("a free port"));
            let address = listener.local_addr();
            let inner = Rc::clone(&listener);
            let (handle, task) = waiting(async move { inner.accept().await }).await;
            let connecting = spawn(TcpStream::connect(address));
            some_turns(turns).await;
            handle.cancel();
            let ours = match task.await.expect("it ended").expect("no error") {
                Some(stream) => stream,
                None => listener.accept().await.expect("it still waits"),
            };
            let theirs = connecting.await.expect("it ended").expect("it listens");
            assert_eq!(
                ours.peer_addr().expect("connected"),
                theirs.local_addr().expect("connected")
            );

            let (reader, writer) = pipe();
            let inner = reader.clone();
            let (handle, task) = waiting(async move {
                let (count, buf) = op::read(&inner, [0; 4]).await;
                Ok(buf[..count?].to_vec())
            })
            .await;
            let writing = spawn(async move { op::write(&writer, "x").await.0.map(|_| writer) });
            some_turns(turns).await;
            handle.cancel();
            let byte = match task.await.expect("it ended").expect("no error") {
                Some(byte) => byte,
                None => {
                    let (count, buf) = op::read(&reader, [0; 4]).await;
                    buf[..count.expect("a byte")].to_vec()
                }
            };
            assert_eq!(byte, b"x");
            writing.await.expect("it ended").expect("room");
        }
    });
}

// On the real ring: what happens in the kernel while the core does not look is done by others than
// the core.

#[test]
fn of_arriving_bytes_and_a_cancel_the_first_counts_and_no_byte_is_lost() {
    on_ring(|_| async {
        for cancel_first in [true, false] {
            let (ours, mut theirs) = connected().await;
            let ours = Rc::new(ours);
            let inner = Rc::clone(&ours);
            let (handle, task) = waiting(async move { inner.recv().await }).await;
            if cancel_first {
                theirs.write_all(b"x").expect("the socket takes it");
                // The byte is in the kernel; nobody has told us yet.
                handle.cancel();
                check().expect("another scope is cancelled");
            } else {
                theirs.write_all(b"x").expect("the socket takes it");
                // Twice through the kernel: its completion has been seen.
                op::nop().await.expect("not cancelled");
                op::nop().await.expect("not cancelled");
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

#[test]
fn of_a_connection_and_a_cancel_the_first_counts_and_no_connection_is_lost() {
    on_ring(|_| async {
        for cancel_first in [true, false] {
            let listener = Rc::new(TcpListener::bind("127.0.0.1:0").expect("a free port"));
            let inner = Rc::clone(&listener);
            let (handle, task) = waiting(async move { inner.accept().await }).await;
            let theirs = std::net::TcpStream::connect(listener.local_addr()).expect("it listens");
            if !cancel_first {
                op::nop().await.expect("not cancelled");
                op::nop().await.expect("not cancelled");
            }
            handle.cancel();
            check().expect("another scope is cancelled");
            let outcome = task.await.expect("it ended").expect("no error");
            assert_eq!(outcome.is_none(), cancel_first);
            let ours = match outcome {
                Some(stream) => stream,
                None => listener.accept().await.expect("it still waits"),
            };
            assert_eq!(
                ours.peer_addr().expect("connected"),
                theirs.local_addr().expect("connected")
            );
        }
    });
}

#[test]
fn a_byte_of_a_pipe_is_read_or_stays_whatever_comes_first() {
    on_ring(|_| async {
        for order in 0..3 {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            let mut writer = writer;
            let reader: SharedFd = OwnedFd::from(reader).into();
            let inner = reader.clone();
            let (handle, task) = waiting(async move {
                let (count, buf) = op::read(&inner, [0; 4]).await;
                Ok(buf[..count?].to_vec())
            })
            .await;
            match order {
                0 => {
                    handle.cancel();
                    check().expect("another scope is cancelled");
                    writer.write_all(b"x").expect("room");
                }
                1 => {
                    writer.write_all(b"x").expect("room");
                    handle.cancel();
                    check().expect("another scope is cancelled");
                }
                _ => {
                    writer.write_all(b"x").expect("room");
                    op::nop().await.expect("not cancelled");
                    op::nop().await.expect("not cancelled");
                    handle.cancel();
                }
            }
            match task.await.expect("it ended").expect("no error") {
                Some(read) => assert_eq!(read, b"x", "order {order}"),
                None => {
                    assert!(order < 2, "the byte had been read before the cancel");
                    let (count, buf) = op::read(&reader, [0; 4]).await;
                    assert_eq!(&buf[..count.expect("a byte")], b"x", "order {order}");
                }
            }
        }
    });
}

// --- nothing is lost: on both again ---

#[test]
fn a_receive_that_is_given_up_loses_no_bytes() {
    on_core(|_| async {
        let sent = bytes(1 << 20, 1);
        let expected = sent.clone();
        let (ours, theirs) = both_ends().await;
        let peer = spawn(async move {
            for part in sent.chunks(997) {
                let (outcome, _) = theirs.write_all(part.to_vec()).await;
                outcome.expect("somebody reads");
            }
        });
        let mut received = Vec::new();
        let mut given_up = 0_u32;
        for round in 0_u32.. {
            if round % 2 == 0 {
                // Dropped after a poll.
                let mut wait = pin!(ours.recv());
                match poll_once(wait.as_mut()).await {
                    Poll::Ready(Ok(Some(chunk))) => received.extend_from_slice(&chunk),
                    Poll::Ready(Ok(None)) => break,
                    Poll::Ready(Err(error)) => panic!("{error}"),
                    Poll::Pending => given_up += 1,
                }
            } else {
                // Cancelled at some moment.
                let outcome = Scope::new()
                    .timeout(Duration::from_micros(u64::from(round % 50)))
                    .run(ours.read(vec![0; 300]).into_result())
                    .await;
                match outcome.expect("no error") {
                    Some((0, _)) => break,
                    Some((count, buf)) => received.extend_from_slice(&buf[..count]),
                    None => given_up += 1,
                }
            }
        }
        peer.await.expect("the peer ended well");
        assert!(given_up > 0, "no wait was ever given up");
        assert!(received == expected, "bytes were lost or changed");
    });
}

/// The answer of an op with a buffer, as a scope's body returns it.
trait IntoResult<T, B>: Future<Output = (io::Result<T>, B)> + Sized {
    async fn into_result(self) -> io::Result<(T, B)> {
        let (outcome, buf) = self.await;
        outcome.map(|value| (value, buf))
    }
}

impl<T, B, F: Future<Output = (io::Result<T>, B)>> IntoResult<T, B> for F {}

#[test]
fn an_accept_that_is_given_up_loses_no_connection() {
    on_core(|handle| async move {
        const CONNECTIONS: usize = 500;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr();
        let peer = spawn(async move {
            let mut open = Vec::new();
            for _ in 0..CONNECTIONS {
                open.push(TcpStream::connect(address).await.expect("it listens"));
            }
            open
        });
        let mut accepted = Vec::new();
        let mut round = 0;
        while accepted.len() < CONNECTIONS {
            round += 1;
            let outcome = Scope::new()
                .timeout(Duration::from_micros(round % 60))
                .run(listener.accept())
                .await;
            accepted.extend(outcome.expect("no error"));
        }
        let open = peer.await.expect("the peer ended well");
        let mut ours: Vec<_> = accepted
            .iter()
            .map(|stream| stream.peer_addr().expect("connected"))
            .collect();
        let mut theirs: Vec<_> = open
            .iter()
            .map(|stream| stream.local_addr().expect("connected"))
            .collect();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs);
        drop(listener);
        assert_eq!(gauges(&handle).await.orphan_faults, 0);
    });
}

#[test]
fn a_cancelled_send_says_how_much_went_out() {
    on_core(|_| async {
        // More than the sockets of both sides take.
        let size = match Kernel::here() {
            Kernel::Real => 64 << 20,
            Kernel::Simulated | Kernel::Unruly => 1 << 20,
        };
        let sent = bytes(size, 2);
        let expected = sent.clone();
        let (ours, theirs) = both_ends().await;
        let went_out = Scope::new()
            .timeout(SHORT)
            .run(async {
                let (outcome, buf) = ours.write_all(sent).await;
                assert_eq!(buf.len(), size, "the whole buffer comes back");
                let error = outcome.expect_err("nobody reads");
                assert_eq!(
                    error.cancelled().map(Cancelled::reason),
                    Some(Reason::Deadline)
                );
                let inner = error.get_ref().expect("an error of ours");
                let interrupted: &Interrupted = inner.downcast_ref().expect("some bytes went out");
                Ok::<_, io::Error>(interrupted.transferred)
            })
            .await
            .expect("no error")
            .expect("the body ended with a value");
        drop(ours);
        let received = receive_all(&theirs).await;
        assert_eq!(received.len(), went_out);
        assert!(received == expected[..went_out], "bytes were changed");
    });
}

// --- nesting ---

#[test]
fn each_scope_takes_its_own_cancel() {
    on_core(|_| async {
        let outer = Scope::new();
        let outcome = outer
            .run(async {
                let inner = Scope::new().timeout(SHORT);
                assert_eq!(inner.run(sleep(LONG)).await, Ok(None));
                // The outer scope is as it was.
                op::nop().await.map_err(|_| "cancelled").expect("not this");
                Ok::<_, Cancelled>(3)
            })
            .await;
        assert_eq!(outcome, Ok(Some(3)));
        assert_eq!(outer.cancelled(), None);
    });
}

#[test]
fn of_two_cancelled_scopes_the_outer_one_takes_it() {
    on_core(|_| async {
        let outer = Scope::new();
        let outer_handle = outer.handle();
        let outcome = outer
            .run(async {
                let inner = Scope::new();
                let inner_handle = inner.handle();
                let outcome = inner
                    .run(async {
                        inner_handle.cancel_with(Reason::User(1), Duration::ZERO);
                        outer_handle.cancel_with(Reason::User(2), Duration::ZERO);
                        sleep(LONG).await
                    })
                    .await;
                let cancelled = outcome.expect_err("the outer scope's");
                assert_eq!(cancelled.reason(), Reason::User(2));
                assert_eq!(
                    inner.cancelled().map(Cancelled::reason),
                    Some(Reason::User(1))
                );
                Err::<(), _>(cancelled)
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

#[test]
fn a_shield_keeps_outer_cancels_out_and_its_own_in() {
    on_core(|_| async {
        let outer = Scope::new();
        let handle = outer.handle();
        let outcome = outer
            .run(async {
                handle.cancel_with(Reason::User(9), Duration::ZERO);
                let goodbye = Scope::new()
                    .shielded()
                    .run(async {
                        op::nop().await?;
                        sleep(Duration::from_millis(1)).await?;
                        Ok::<_, io::Error>("said")
                    })
                    .await;
                assert_eq!(goodbye.expect("deaf"), Some("said"));
                let patience = Scope::new().shielded().timeout(SHORT);
                assert_eq!(patience.run(sleep(LONG)).await, Ok(None));
                // Outside the shield the cancel holds.
                sleep(LONG).await
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert_eq!(
            outer.cancelled().map(Cancelled::reason),
            Some(Reason::User(9))
        );
    });
}

#[test]
fn a_scope_inside_a_shield_is_shielded_with_it() {
    on_core(|_| async {
        let outer = Scope::new().timeout(SHORT);
        let outcome = outer
            .run(async {
                let shielded = Scope::new().shielded();
                let slept = shielded
                    .run(async { Scope::new().run(sleep(4 * SHORT)).await })
                    .await?;
                assert_eq!(slept, Some(Some(())));
                yield_now().await
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

#[test]
fn deep_nests_are_cancelled_as_one() {
    fn nest(depth: u32) -> std::pin::Pin<Box<dyn Future<Output = Result<u32, Cancelled>>>> {
        Box::pin(async move {
            if depth == 0 {
                sleep(LONG).await?;
                return Ok(0);
            }
            let value = Scope::new().run(nest(depth - 1)).await?;
            Ok(value.map_or(depth, |value| value + 1))
        })
    }
    on_core(|handle| async move {
        let outcome = Scope::new().timeout(SHORT).run(nest(200)).await;
        assert_eq!(outcome, Ok(None));
        assert_eq!(gauges(&handle).await.scopes, 2);
    });
}

#[test]
fn a_task_stands_under_the_root_and_not_under_the_scope_it_was_started_in() {
    on_core(|_| async {
        let go = Rc::new(Event::new());
        let inner = Rc::clone(&go);
        let scope = Scope::new();
        let handle = scope.handle();
        let task = scope
            .run(async {
                let task = spawn(async move { inner.wait().await });
                handle.cancel();
                Ok::<_, Cancelled>(task)
            })
            .await
            .expect("no error")
            .expect("a value");
        go.set();
        assert_eq!(task.await.expect("it ended"), Ok(()));
    });
}

#[test]
fn an_op_that_moves_into_a_cancelled_scope_is_cancelled_there() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let (reader, _writer) = pipe();
        let mut receive = Box::pin(ours.recv());
        let mut read = Box::pin(op::read(&reader, [0; 4]).into_result());
        assert!(poll_once(receive.as_mut()).await.is_pending());
        assert!(poll_once(read.as_mut()).await.is_pending());
        op::nop().await.expect("both are in the kernel");
        let outcome = Scope::new().timeout(SHORT).run(receive.as_mut()).await;
        assert!(matches!(outcome, Ok(None)));
        let outcome = Scope::new().timeout(SHORT).run(read.as_mut()).await;
        assert!(matches!(outcome, Ok(None)));
        drop(receive);
        theirs.write_all("x").await.0.expect("the socket takes it");
        let chunk = ours.recv().await.expect("no error").expect("no end");
        assert_eq!(&*chunk, b"x");
    });
}

// --- a scope's life ---

#[test]
fn a_scope_runs_once() {
    on_core(|_| async {
        let scope = Scope::new();
        assert_eq!(scope.run(yield_now()).await, Ok(Some(())));
        let mut ran = false;
        let again = scope.run(async {
            ran = true;
            Ok::<_, Cancelled>(())
        });
        let error = again.await.expect_err("used up");
        assert!(!ran);
        assert_eq!(error.reason(), Reason::Misuse(Misuse::RunTwice));
    });
}

#[test]
fn a_failure_of_the_body_comes_out_also_when_the_scope_is_cancelled() {
    on_core(|_| async {
        let scope = Scope::new();
        let handle = scope.handle();
        let outcome = scope
            .run(async {
                handle.cancel();
                Err::<(), _>(io::Error::other("broken"))
            })
            .await;
        assert_eq!(outcome.expect_err("it failed").to_string(), "broken");
    });
}

#[test]
fn a_cancel_from_another_thread_wakes_a_parked_core_once() {
    on_core(|handle| async move {
        let scope = Scope::new();
        let cancel = scope.handle();
        let before = handle.metrics()[0];
        let other = Outside::run_when_parked(&handle, move || {
            let first = cancel.cancel();
            let rest: Vec<Delivery> = (0..100).map(|_| cancel.cancel()).collect();
            (first, rest)
        });
        assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
        let (first, rest) = other.join().await;
        assert_eq!(first, Delivery::Delivered);
        assert!(rest.iter().all(|&delivery| delivery != Delivery::Delivered));
        let after = handle.metrics()[0];
        assert_eq!(after.wake_calls - before.wake_calls, 1);
        assert_eq!(after.failed_wakes, 0);
        assert_eq!(after.remote_cancels, 1);
        assert_eq!(after.aborts, 1);
    });
}

// On the real ring: a simulated clock stands still while a core computes, and nothing else runs.

#[test]
fn a_computing_loop_sees_its_deadline_when_it_yields() {
    on_ring(|_| async {
        let scope = Scope::new().timeout(SHORT);
        let outcome = scope
            .run(async {
                loop {
                    yield_now().await?;
                }
                #[expect(unreachable_code, reason = "it says what the body would return")]
                Ok::<(), Cancelled>(())
            })
            .await;
        assert_eq!(outcome, Ok(None));
    });
}

#[test]
fn a_computing_loop_sees_a_cancel_from_another_thread_when_it_checks() {
    on_ring(|_| async {
        let scope = Scope::new();
        let cancel = scope.handle();
        let outcome = scope
            .run(async {
                let other =
                    thread::spawn(move || cancel.cancel_with(Reason::User(3), Duration::ZERO));
                let cancelled = loop {
                    if let Err(cancelled) = check() {
                        break cancelled;
                    }
                };
                assert_eq!(other.join().expect("no panic"), Delivery::Delivered);
                Err::<(), _>(cancelled)
            })
            .await;
        assert_eq!(outcome, Ok(None));
        assert_eq!(
            scope.cancelled().map(Cancelled::reason),
            Some(Reason::User(3))
        );
    });
}

#[test]
fn cancels_from_many_threads_reach_every_scope() {
    on_ring(|handle| async move {
        const SCOPES: usize = 1_000;
        let (tell, told) = mpsc::channel();
        let tasks: Vec<_> = (0..SCOPES)
            .map(|_| {
                let tell = tell.clone();
                spawn(async move {
                    let scope = Scope::new();
                    tell.send(scope.handle()).expect("the test listens");
                    scope.run(sleep(LONG)).await
                })
            })
            .collect();
        yield_now().await.expect("not cancelled");
        let mut handles = Vec::new();
        while handles.len() < SCOPES {
            handles.extend(told.try_iter());
            yield_now().await.expect("not cancelled");
        }
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let handles = handles.clone();
                thread::spawn(move || {
                    let delivered = handles
                        .iter()
                        .filter(|handle| handle.cancel() == Delivery::Delivered);
                    delivered.count()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.expect("it ended"), Ok(None));
        }
        let delivered: usize = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum();
        assert_eq!(delivered, SCOPES);
        assert_eq!(handle.metrics()[0].remote_cancels, SCOPES as u64);
    });
}

// --- what the kernel still holds: on both again ---

#[test]
fn a_run_ends_when_the_kernel_is_done_with_what_was_dropped_inside() {
    on_core(|handle| async move {
        let (reader, _writer) = pipe();
        let inner = reader.clone();
        let outcome = Scope::new()
            .run(async {
                for _ in 0..100 {
                    let mut read = pin!(op::read(&inner, vec![0; 64]));
                    assert!(poll_once(read.as_mut()).await.is_pending());
                    // Half of them are in the kernel, half still in line when they are dropped.
                    op::nop().await?;
                    let mut other = pin!(op::read(&inner, vec![0; 64]));
                    assert!(poll_once(other.as_mut()).await.is_pending());
                }
                drop(inner);
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))));
        // No op keeps the descriptor open any more: it is ours alone.
        assert!(reader.is_unique(), "an op still uses the descriptor");
        let counters = gauges(&handle).await;
        assert_eq!((counters.orphans, counters.in_flight), (0, 0));
        assert_eq!(counters.op_slots, 0);
    });
}

#[test]
fn a_run_that_is_dropped_leaves_the_kernel_s_part_to_the_scope_around() {
    on_core(|_| async {
        let (reader, _writer) = pipe();
        let inner = reader.clone();
        let outcome = Scope::new()
            .run(async move {
                let scope = Scope::new();
                {
                    let mut run = pin!(scope.run(op::read(&inner, vec![0; 64]).into_result()));
                    assert!(poll_once(run.as_mut()).await.is_pending());
                    op::nop().await?;
                }
                drop(inner);
                Ok::<_, io::Error>(())
            })
            .await;
        assert!(matches!(outcome, Ok(Some(()))));
        assert!(reader.is_unique(), "an op still uses the descriptor");
    });
}

#[test]
fn ops_that_wait_in_line_are_cancelled_without_the_kernel() {
    let builder = Runtime::builder().submission_entries(8);
    on_core_of(builder, |handle| async move {
        let (reader, writer) = pipe();
        let drops = Drops::new();
        let scope = Scope::new();
        let cancel = scope.handle();
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
        op::write(&writer, "x").await.0.expect("room");
        let (count, _) = op::read(&reader, [0; 4]).await;
        assert_eq!(count.expect("no byte was swallowed"), 1);
        let counters = gauges(&handle).await;
        assert_eq!((counters.op_slots, counters.parked), (0, 1));
    });
}

#[test]
fn an_open_that_is_given_up_leaves_no_descriptor() {
    tests::in_child(
        "cancel::an_open_that_is_given_up_leaves_no_descriptor",
        || {
            on_core_in(&[Put::File("file", b"x")], |_, folder| async move {
                let path = folder.join("file");
                let before = tests::descriptors();
                let outcome = Scope::new()
                    .run(async {
                        let options = OpenOptions::new().read(true);
                        for round in 0..200_u32 {
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
                assert_eq!(tests::descriptors(), before);
            });
        },
    );
}
