//! Orders of events that once went wrong, made likely on purpose.

use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

use quoit::op::{Listener, Socket};
use quoit::sim::{Fault, Faults, for_seeds};
use quoit::time::{Instant, sleep};
use quoit::{Cancelled, Group, JoinError, Scope, isolating_group, spawn, yield_now};
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
