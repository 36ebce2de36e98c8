//! Scopes, deadlines and handles, seen from programs.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::time::Duration;

use quoit::buf::Interrupted;
use quoit::op::{self, SharedFd};
use quoit::sync::Event;
use quoit::time::{Instant, sleep, sleep_until};
use quoit::{
    CancelHandle, Cancelled, CarriesCancelled, Delivery, GroupError, JoinHandle, Reason, Scope,
    check, group, run_until_cancelled, spawn, yield_now, yield_uncancellable,
};
use quoit_net::{TcpListener, TcpStream};
use tests::{
    Kernel, both_ends, both_streams, bytes, gauges, on_core, on_ring, poll_once, receive_all,
    receive_exactly,
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

/// A pipe whose ends are used on a core.
fn pipe() -> (SharedFd, SharedFd) {
    op::pipe().expect("a pipe")
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

// --- nothing is lost ---

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

/// What a handle was told lies with its core until somebody looks.
#[test]
fn what_a_handle_was_told_comes_before_what_the_scope_is_told_later() {
    const FIRST: Reason = Reason::User(1);
    on_core(|_| async move {
        let scope = Scope::new();
        let handle = scope.handle();
        let sent = handle.cancel_with(FIRST, Duration::ZERO);
        assert_eq!(sent, Delivery::Delivered);
        assert_eq!(scope.cancelled().map(Cancelled::reason), Some(FIRST));

        let scope = Scope::new();
        scope.handle().cancel_with(FIRST, Duration::ZERO);
        assert_eq!(scope.cancel(), Delivery::AlreadyCancelled);
        assert_eq!(scope.cancelled().map(Cancelled::reason), Some(FIRST));

        let scope = Scope::new();
        let handle = scope.handle();
        let ended = scope.run(async {
            handle.cancel_with(FIRST, Duration::ZERO);
            Ok::<_, Cancelled>(())
        });
        assert_eq!(ended.await, Ok(Some(())));
        assert_eq!(scope.cancelled().map(Cancelled::reason), Some(FIRST));

        let scope = Scope::new();
        let handle = scope.handle();
        let slept = scope.run(async {
            handle.set_deadline(Instant::now() + SHORT);
            scope.set_deadline(None);
            sleep(2 * SHORT).await
        });
        assert_eq!(slept.await, Ok(Some(())));
    });
}

/// A cancellation that somebody has kept.
fn kept() -> Cancelled {
    let scope = Scope::new();
    scope.cancel();
    scope.cancelled().expect("just now")
}

#[test]
fn a_scope_takes_what_its_handle_was_told_as_the_last_act_of_its_body() {
    on_core(|_| async {
        let opened_before = Scope::new();
        let handle = opened_before.handle();
        let ended = opened_before.run(async {
            handle.cancel();
            Err::<(), _>(kept())
        });
        assert_eq!(ended.await, Ok(None));
        for waits in [false, true] {
            let scope = Scope::new();
            let ended = scope.run(async {
                if waits {
                    yield_now().await?;
                }
                scope.handle().cancel();
                Err::<(), _>(kept())
            });
            assert_eq!(ended.await, Ok(None), "{waits}");
        }
        let ended = group(async |g| {
            g.handle().expect("it has not ended").cancel();
            Err::<(), _>(kept())
        });
        assert!(matches!(ended.await, Ok(None)));
        let ended = group(async |g| {
            let child = g.spawn(async move {
                yield_now().await?;
                g.handle().expect("it has not ended").cancel();
                Err::<(), _>(kept())
            });
            drop(child);
            Ok(())
        });
        assert!(ended.await.is_ok());
    });
}

/// In the very poll in which it begins to wait: whoever is cancelled there has looked already.
#[test]
fn a_foreign_wait_that_cancels_its_own_scope_ends() {
    on_core(|_| async {
        for way in 0..4 {
            let scope = Scope::new();
            let handle = scope.handle();
            let waits = run_until_cancelled(poll_fn(|_| {
                match way {
                    0 => drop(scope.cancel()),
                    1 => drop(handle.cancel()),
                    2 => scope.set_deadline(Some(Instant::now())),
                    _ => drop(handle.set_deadline(Instant::now())),
                }
                Poll::<()>::Pending
            }));
            assert_eq!(scope.run(waits).await, Ok(None), "{way}");
        }
        let ended = group(async |g| {
            let child = g.spawn(run_until_cancelled(poll_fn(move |_| {
                g.cancel();
                Poll::<()>::Pending
            })));
            drop(child.await);
            check()
        });
        assert_eq!(ended.await.expect("the group takes its own"), None);
        let own: Rc<RefCell<Option<JoinHandle<_>>>> = Rc::default();
        let task = Rc::clone(&own);
        own.replace(Some(spawn(run_until_cancelled(poll_fn(move |_| {
            task.borrow().as_ref().expect("put there").cancel();
            Poll::<()>::Pending
        })))));
        yield_now().await.expect("nobody cancels");
        let task = own.take().expect("put there");
        assert!(task.await.expect("it ends by itself").is_err());
    });
}

#[test]
fn what_the_handle_of_a_group_was_told_comes_before_what_the_group_is_told_later() {
    const FIRST: Reason = Reason::User(1);
    on_core(|_| async move {
        let ended = group(async |g| {
            let handle = g.handle().expect("it has not ended");
            handle.cancel_with(FIRST, Duration::ZERO);
            let seen = g.cancelled().map(Cancelled::reason);
            assert_eq!(seen, Some(FIRST));
            assert_eq!(g.cancel(), Delivery::AlreadyCancelled);
            check()
        });
        let ended = ended.await.expect("the group takes its own");
        assert_eq!(ended, None);
    });
}

#[test]
fn what_the_handle_of_a_task_was_told_comes_before_what_the_task_is_told_later() {
    const FIRST: Reason = Reason::User(1);
    on_core(|_| async move {
        let task = spawn(sleep(LONG));
        let handle = task.cancel_handle().expect("it has not ended");
        handle.cancel_with(FIRST, Duration::ZERO);
        task.cancel();
        let slept = task.await.expect("it ends by itself");
        assert_eq!(slept.map_err(Cancelled::reason), Err(FIRST));
    });
}

/// Computes until `deadline` has passed. For the real ring: a simulated clock stands still meanwhile.
fn compute_past(deadline: Instant) {
    while Instant::now() <= deadline {
        std::hint::spin_loop();
    }
}

#[test]
fn what_a_handle_was_told_comes_before_a_deadline_that_passes_later() {
    const FIRST: Reason = Reason::User(1);
    on_ring(|_| async {
        let deadline = Instant::now() + SHORT;
        let scope = Scope::new().deadline(deadline);
        let handle = scope.handle();
        let ended = scope.run(async {
            handle.cancel_with(FIRST, Duration::ZERO);
            compute_past(deadline);
            yield_now().await
        });
        assert_eq!(ended.await, Ok(None));
        assert_eq!(scope.cancelled().map(Cancelled::reason), Some(FIRST));
    });
}

#[test]
fn a_deadline_that_a_handle_has_moved_does_not_pass_where_it_was() {
    on_ring(|_| async {
        let deadline = Instant::now() + SHORT;
        let scope = Scope::new().deadline(deadline);
        let handle = scope.handle();
        let ended = scope.run(async {
            handle.set_deadline(Instant::NEVER);
            compute_past(deadline);
            sleep(Duration::ZERO).await?;
            yield_now().await
        });
        assert_eq!(ended.await, Ok(Some(())));
        assert_eq!(scope.cancelled(), None);
    });
}

#[test]
fn what_the_handle_of_a_group_was_told_comes_before_the_failure_of_a_child() {
    const FIRST: Reason = Reason::User(1);
    on_core(|_| async {
        let ended: Result<Option<()>, GroupError<io::Error>> = group(async |g| {
            let handle = g.handle().expect("it has not ended");
            drop(g.spawn(async move {
                handle.cancel_with(FIRST, Duration::ZERO);
                Err::<(), _>(io::Error::other("broken"))
            }));
            let slept = sleep(LONG).await;
            assert_eq!(slept.map_err(Cancelled::reason), Err(FIRST));
            assert_eq!(g.cancelled().map(Cancelled::reason), Some(FIRST));
            Ok(())
        })
        .await;
        assert_eq!(ended.expect_err("the child's").errors().len(), 1);
    });
}

#[test]
fn what_the_handle_of_a_group_was_told_comes_before_the_drop_of_the_group() {
    const FIRST: Reason = Reason::User(1);
    on_core(|_| async {
        let seen = Rc::new(Cell::new(None));
        let place = Rc::new(Cell::new(None));
        let (told, kept) = (Rc::clone(&seen), Rc::clone(&place));
        let scope = Scope::new();
        let ended = scope.run(async {
            let mut dropped = Box::pin(group(async move |g| {
                kept.set(g.handle());
                drop(g.spawn(async move {
                    let slept = sleep(LONG).await;
                    told.set(slept.err().map(Cancelled::reason));
                    slept
                }));
                sleep(LONG).await
            }));
            assert!(poll_once(dropped.as_mut()).await.is_pending());
            yield_now().await?;
            let handle = place.take().expect("it has begun");
            handle.cancel_with(FIRST, Duration::ZERO);
            drop(dropped);
            Ok::<_, Cancelled>(())
        });
        assert_eq!(ended.await, Ok(Some(())));
        assert_eq!(seen.get(), Some(FIRST));
    });
}

#[test]
fn a_scope_is_made_up_also_after_its_handle() {
    on_core(|_| async {
        let outer = Scope::new();
        let ended = outer.run(async {
            let shielded = Scope::new();
            shielded.handle();
            let shielded = shielded.shielded();
            outer.cancel();
            assert_eq!(shielded.run(yield_now()).await, Ok(Some(())));
            let with_grace = Scope::new();
            let handle = with_grace.handle();
            let with_grace = with_grace.grace(LONG).shielded();
            let ended = with_grace.run(async {
                handle.cancel();
                let inside = Scope::new().grace_shielded();
                inside.run(yield_now()).await
            });
            assert_eq!(ended.await, Ok(Some(Some(()))));
            yield_now().await
        });
        assert_eq!(ended.await, Ok(None));
    });
}

#[test]
fn a_deadline_from_a_handle_counts_as_one_of_the_scope_does_before_the_run() {
    on_core(|_| async {
        for seen_before in [false, true] {
            // The earlier of this and the timeout counts.
            let scope = Scope::new().timeout(LONG);
            scope.handle().set_deadline(Instant::now() + SHORT);
            if seen_before {
                yield_now().await.expect("nobody cancels");
            }
            assert_eq!(scope.run(sleep(2 * LONG)).await, Ok(None));
            let scope = Scope::new().timeout(SHORT);
            scope.handle().set_deadline(Instant::now() + LONG);
            if seen_before {
                yield_now().await.expect("nobody cancels");
            }
            assert_eq!(scope.run(sleep(LONG / 2)).await, Ok(None));
            // It moves the one that the scope had, and takes it away.
            for deadline in [Instant::now() + 2 * LONG, Instant::NEVER] {
                let scope = Scope::new().deadline(Instant::now() + SHORT);
                scope.handle().set_deadline(deadline);
                if seen_before {
                    yield_now().await.expect("nobody cancels");
                }
                assert_eq!(scope.run(sleep(2 * SHORT)).await, Ok(Some(())));
            }
        }
    });
}

#[test]
fn a_deadline_after_a_cancel_by_the_same_handle_changes_nothing() {
    const FIRST: Reason = Reason::User(1);
    on_core(|_| async {
        let scope = Scope::new();
        let handle = scope.handle();
        let ended = scope.run(async {
            handle.cancel_with(FIRST, Duration::ZERO);
            handle.set_deadline(Instant::now());
            yield_now().await
        });
        assert_eq!(ended.await, Ok(None));
        assert_eq!(scope.cancelled().map(Cancelled::reason), Some(FIRST));
    });
}

#[test]
fn a_group_whose_deadline_has_passed_is_cancelled_whether_or_not_it_was_noticed() {
    on_ring(|_| async {
        let ended = group(async |g| {
            let deadline = Instant::now() + SHORT;
            let handle = g.handle().expect("it has not ended");
            handle.set_deadline(deadline);
            check()?;
            compute_past(deadline + SHORT);
            assert_eq!(g.cancel(), Delivery::AlreadyCancelled);
            let why = g.cancelled().map(Cancelled::reason);
            assert_eq!(why, Some(Reason::Deadline));
            check()
        });
        assert_eq!(ended.await.expect("nothing failed"), None);
    });
}

#[test]
fn a_scope_with_two_deadlines_that_have_passed_is_cancelled_by_one() {
    on_ring(|handle| async move {
        let counted = || {
            let now = handle.metrics()[0];
            (now.deadlines, now.timers_fired)
        };
        let before = counted();
        let deadline = Instant::now() + SHORT;
        let scope = Scope::new().deadline(deadline);
        let moving = scope.handle();
        let ended = scope.run(async {
            check()?;
            compute_past(deadline + SHORT);
            // To one that has passed as well, and later.
            moving.set_deadline(deadline + SHORT);
            check()
        });
        assert_eq!(ended.await, Ok(None));
        let after = counted();
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1));
    });
}

#[test]
fn a_join_that_a_handle_has_cancelled_before_the_task_ends_is_cancelled() {
    on_core(|_| async {
        for by_handle in [false, true] {
            let scope = Rc::new(Scope::new());
            let own = Rc::clone(&scope);
            let handle = scope.handle();
            let task = spawn(async move {
                yield_uncancellable().await;
                match by_handle {
                    false => own.cancel(),
                    true => handle.cancel(),
                };
            });
            let ended = scope.run(async {
                let joined = task.await;
                assert!(joined.is_err(), "by handle: {by_handle}");
                Ok::<_, Cancelled>(())
            });
            assert_eq!(ended.await, Ok(Some(())));
        }
    });
}

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

// --- a scope's life ---

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

// --- waits that go to others ---

type Wait = Pin<Box<dyn Future<Output = Result<(), Cancelled>>>>;

/// How the wait of one goes to another, between a cancel and the wakes for it.
#[derive(Debug, Clone, Copy)]
enum Goes {
    /// The other drops it.
    Dropped,
    /// The other waits for it from there on, and ends it.
    Awaited,
}

#[test]
fn whose_wait_has_gone_to_another_is_woken_for_a_cancel_all_the_same() {
    // More than are woken at once: the first child is the last in line.
    const OTHERS: usize = 1_500;
    for goes in [Goes::Dropped, Goes::Awaited] {
        on_core(move |_| async move {
            let place = Rc::new(RefCell::new(None));
            let waiting = Rc::clone(&place);
            let waker = Rc::new(RefCell::new(None));
            let known = Rc::clone(&waker);
            let was_told = Rc::new(Cell::new(false));
            let told = Rc::clone(&was_told);
            let outcome: Result<Option<()>, GroupError<Cancelled>> = group(async |g| {
                *place.borrow_mut() = Some(Box::pin(sleep(LONG)) as Wait);
                drop(g.spawn(poll_fn(move |cx| {
                    *known.borrow_mut() = Some(cx.waker().clone());
                    told.set(check().is_err());
                    if let Some(wait) = &mut *waiting.borrow_mut() {
                        let _ = wait.as_mut().poll(cx);
                    }
                    match check() {
                        Ok(()) => Poll::Pending,
                        Err(cancelled) => Poll::Ready(Err::<(), _>(cancelled)),
                    }
                })));
                for _ in 0..OTHERS {
                    drop(g.spawn(sleep(LONG)));
                }
                yield_now().await?;
                g.cancel();
                match goes {
                    Goes::Dropped => drop(place.take()),
                    Goes::Awaited => {
                        let wait = place.take().expect("nobody took it before");
                        assert!(wait.await.is_err());
                    }
                }
                for _ in 0..10 {
                    yield_uncancellable().await;
                }
                let was_told = was_told.get();
                // The group is to end all the same.
                let waker = waker.take();
                waker.into_iter().for_each(Waker::wake);
                assert!(was_told, "{goes:?}: nobody has woken the one who waited");
                Ok(())
            })
            .await;
            assert_eq!(outcome.expect("nothing failed"), Some(()));
        });
    }
}
