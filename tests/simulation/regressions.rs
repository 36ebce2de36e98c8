//! Orders of events that once went wrong, made likely on purpose.

use std::io;
use std::time::Duration;

use quoit::op::{Listener, Socket};
use quoit::sim::{Fault, Faults, for_seeds};
use quoit::{Scope, spawn, yield_now};
use quoit_net::tcp::TcpListener;

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
