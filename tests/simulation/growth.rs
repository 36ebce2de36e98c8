//! What a run costs does not grow with what is over: time that has passed, scripts that have run, and those
//! who wait for the same thing.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use quoit::op::{Listener, Socket, Stream};
use quoit::sim::Sim;
use quoit::time::sleep;
use quoit::{Scope, spawn};

/// Clients wait for room while others are accepted: each tries again once a second, and when somebody was accepted.
#[test]
fn a_client_that_waits_for_room_tries_no_more_often_because_others_are_accepted() {
    const CLIENTS: u64 = 300;
    let outcome = Sim::with_seed(1).block_on(async {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let socket = Socket::tcp(address).expect("a socket");
        socket.bind(address).expect("a port that nobody has");
        socket.listen(1).expect("a bound socket listens");
        let listener = Rc::new(Listener::new(socket));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                spawn(async move {
                    let socket = Socket::tcp(address)?;
                    Stream::connect(socket, address.into()).await.map(drop)
                })
            })
            .collect();
        for _ in 0..CLIENTS {
            let accepted = Scope::new()
                .timeout(Duration::from_secs(300))
                .run(listener.accept())
                .await;
            assert!(matches!(accepted, Ok(Some(_))), "{accepted:?}");
            sleep(Duration::from_millis(300))
                .await
                .expect("nobody cancels");
        }
        for client in clients {
            client.await.expect("no panic").expect("there is room");
        }
    });
    // Ninety seconds, in each of which those clients look who wait still, and the core with them.
    assert!(outcome.steps < 60_000, "{} steps", outcome.steps);
}
