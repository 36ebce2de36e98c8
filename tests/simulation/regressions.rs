//! Orders of events that once went wrong, made likely on purpose.

use std::future::poll_fn;
use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use quoit::op::{self, Listener, PipeReader, PipeWriter, Socket};
use quoit::sim::{Fault, Faults, Sim, for_seeds};
use quoit::time::{Instant, sleep};
use quoit::{
    Cancelled, CoreId, Delivery, Group, Handle, JoinError, Reason, Scope, check, isolating_group,
    on, spawn, yield_now,
};
use quoit_net::tcp::{TcpListener, TcpStream};

/// The kernel ends an accept early, and its scope is cancelled before the task has seen that: the task
/// must not begin to wait anew in the cancelled scope, where no cancel would ever reach it.
#[test]
fn an_accept_that_ended_early_sees_the_cancel_that_came_meanwhile() {
    for_seeds(0..300, |sim| {
        let faults = Faults::none()
            .rate(Fault::CompletionInterrupted, 0.5)
            .rate(Fault::Punt, 0.8);
        let outcome = sim.faults(faults).block_on(async {
            let address = "127.0.0.1:1".parse().expect("an address");
            let socket = Socket::tcp(address)?;
            socket.bind(address)?;
            socket.listen(1)?;
            let listener = Listener::new(socket);
            let scope = Scope::new();
            let handle = scope.handle();
            let turns = quoit::random()? % 8;
            drop(spawn(async move {
                for _ in 0..turns {
                    yield_now().await.expect("nobody cancels this");
                }
                handle.cancel();
            }));
            let accepted = scope.run(listener.accept()).await?;
            Ok::<_, io::Error>(accepted.is_none())
        });
        assert!(outcome.value.expect("it works"));
    });
}

/// As above, for the end of a listener that nobody accepts from any more.
#[test]
fn a_listener_finishes_whatever_its_accept_was_doing() {
    for_seeds(0..300, |sim| {
        let faults = Faults::benign().rate(Fault::CompletionInterrupted, 0.3);
        sim.faults(faults).block_on(async {
            let listener = TcpListener::bind("127.0.0.1:1").expect("it binds");
            let accepted = Scope::new()
                .timeout(Duration::from_millis(1))
                .run(listener.accept())
                .await
                .expect("no failure");
            assert!(accepted.is_none());
            assert!(listener.finish().await.is_empty());
        });
    });
}

/// A zero-copy send keeps its memory until the kernel lets go of it, and its turn only until the bytes
/// are taken: who sends next on the stream does not wait for the peer's acknowledgement.
#[test]
fn a_zero_copy_send_lets_the_next_send_go_before_it_ends() {
    let mut earlier = 0;
    for_seeds(0..50, |sim| {
        // One that is interrupted has sent nothing yet, and keeps its turn.
        let faults = Faults::none()
            .rate(Fault::LateNotification, 1.0)
            .rate(Fault::CompletionInterrupted, 0.3);
        let outcome = sim.faults(faults).block_on(async {
            let listener = TcpListener::bind("127.0.0.1:1")?;
            let near = Rc::new(TcpStream::connect(listener.local_addr()).await?);
            let far = listener.accept().await?;
            let first = {
                let near = Rc::clone(&near);
                spawn(async move {
                    near.write_zero_copy(vec![1; 100]).await.0?;
                    Ok::<_, io::Error>(Instant::now())
                })
            };
            yield_now().await?;
            near.write_all(vec![2; 100]).await.0?;
            let second = Instant::now();
            let first = first.await??;
            drop(near);
            let mut all = Vec::new();
            while let Some(chunk) = far.recv().await? {
                all.extend_from_slice(&chunk);
            }
            assert_eq!(all, [[1; 100], [2; 100]].concat(), "sends do not mix");
            Ok::<_, io::Error>(second < first)
        });
        earlier += u32::from(outcome.value.expect("it works"));
    });
    assert!(
        earlier > 0,
        "the second send always waited for the first one's memory"
    );
}

/// The body of an isolating group panics: its children are cancelled, as if it had failed.
#[test]
fn a_panicking_body_cancels_the_children_of_an_isolating_group() {
    for_seeds(0..20, |sim| {
        sim.block_on(async {
            let begun = Instant::now();
            let body = async |group: Group<Cancelled>| {
                drop(group.spawn(sleep(Duration::from_secs(3600))));
                yield_now().await?;
                resume_unwind(Box::new("the body"))
            };
            let ended = spawn(isolating_group::<(), _>(body)).await;
            assert!(matches!(ended, Err(JoinError::Panicked(_))));
            assert!(
                begun.elapsed() < Duration::from_secs(1),
                "the child was left alone"
            );
        });
    });
}

/// A scope is cancelled before its run: what is in a grace shield inside has the grace that was given.
#[test]
fn a_cancel_before_the_run_keeps_its_grace() {
    for early in [false, true] {
        Sim::with_seed(0).block_on(async move {
            let scope = Scope::new();
            // With a handle, its core knows it already.
            let _handle = early.then(|| scope.handle());
            let begun = Instant::now();
            let grace = Duration::from_millis(50);
            scope.cancel_with(Reason::User(7), grace);
            sleep(grace / 5).await.expect("it is not run yet");
            let body = async {
                assert!(check().is_err());
                let inside = Scope::new().grace_shielded();
                inside.run(sleep(Duration::from_secs(3600))).await
            };
            assert_eq!(scope.run(body).await, Ok(None));
            assert_eq!(begun.elapsed(), grace, "with a handle: {early}");
        });
    }
}

/// A scope that waits for its run says that its deadline has passed, also if a handle was made of it.
#[test]
fn a_scope_with_a_handle_knows_of_its_deadline_before_its_run() {
    for early in [false, true] {
        Sim::with_seed(0).block_on(async move {
            let scope = Scope::new().deadline(Instant::now() + Duration::from_millis(1));
            let _handle = early.then(|| scope.handle());
            assert_eq!(scope.cancelled(), None);
            sleep(Duration::from_millis(2))
                .await
                .expect("nobody cancels");
            let cancelled = scope.cancelled().map(Cancelled::reason);
            assert_eq!(cancelled, Some(Reason::Deadline), "with a handle: {early}");
            assert_eq!(scope.cancel(), Delivery::AlreadyCancelled);
            // Cancelled is for ever.
            scope.set_deadline(None);
            assert_eq!(scope.run(yield_now()).await, Ok(None));
        });
    }
}

/// A child on another core takes its time to end: its caller, which was polled meanwhile, is not taken
/// for one that waits in something foreign.
#[test]
fn a_call_that_was_told_of_a_cancel_is_left_to_wait() {
    let outcome = Sim::with_seed(0).block_on(async {
        let here = CoreId::current().expect("on a core");
        let runtime = Handle::current().expect("on a core");
        let child = || async {
            let goodbye = Scope::new().shielded();
            goodbye.run(sleep(Duration::from_secs(1))).await?;
            Err::<(), _>(io::Error::from(check().expect_err("it is cancelled")))
        };
        let ended = Scope::new()
            .timeout(Duration::from_millis(1))
            .run(async {
                let mut call = pin!(on(here, child));
                let shield = Scope::new().shielded();
                let mut other = pin!(shield.run(sleep(Duration::from_millis(2))));
                let mut waits = true;
                poll_fn(|cx| {
                    waits = waits && other.as_mut().poll(cx).is_pending();
                    call.as_mut().poll(cx)
                })
                .await
            })
            .await;
        assert!(matches!(ended, Ok(None)));
        runtime.metrics()[0].foreign_wakes
    });
    assert_eq!(outcome.value, 0);
}

/// Requests that are answered at once are submitted without a wait before a park. The kernel takes one of two, answers
/// it, and is too busy for the other: the task that has its answer goes on all the same.
#[test]
fn a_kernel_that_is_busy_before_a_park_keeps_no_answer_back() {
    for_seeds(0..300, |sim| {
        let faults = Faults::none()
            .rate(Fault::SubmissionQueueFull, 0.5)
            .rate(Fault::EnterBusy, 0.3);
        sim.faults(faults).block_on(async {
            let (reader, writer) = op::pipe().expect("a pipe");
            let writer = PipeWriter::new(writer).expect("signals can be blocked");
            let (other_end, prompt) = op::pipe().expect("a pipe");
            let prompt = PipeWriter::new(prompt).expect("signals can be blocked");
            let reads = spawn(async move {
                let reader = PipeReader::new(reader);
                while reader.receive().await.expect("no error").is_some() {}
            });
            for _ in 0..100 {
                prompt.write("a").await.0.expect("there is room");
                prompt.write("b").await.0.expect("there is room");
                writer.write("c").await.0.expect("there is room");
            }
            drop((writer, other_end));
            reads.await.expect("no panic");
        });
    });
}

/// A core gives the memory of ended tasks back in slices before it parks. That is something done.
#[test]
fn a_core_that_gives_much_memory_back_does_not_idle() {
    Sim::with_seed(0).block_on(async {
        let task = || async {
            let bytes = std::hint::black_box([0_u8; 900]);
            yield_now().await.expect("nobody cancels this");
            std::hint::black_box(&bytes);
        };
        let tasks: Vec<_> = (0..80_000).map(|_| spawn(task())).collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        sleep(Duration::from_millis(1))
            .await
            .expect("nobody cancels this");
    });
}
