//! Connections by the hundred: that say nothing, or are gone again at once.

use std::net::TcpStream;

use tests::http_client::until;

use crate::contest::{Contest, Ends, Neighbours, Stay};
use crate::flood::Flood;
use crate::victim::{SHORT, Setup, attacked};
use crate::wire::{self, Client};

/// What an idle connection takes: a task, its timers, a slot of the ring.
const IDLE_KIB: u64 = 16;

/// More connections than there is room for: those that are in are served, the others wait in the kernel.
#[test]
fn connections_beyond_the_limit_wait_outside() {
    const MOST: usize = 64;
    let setup = Setup {
        server: |builder| builder.max_connections(MOST),
        ..Setup::default()
    };
    attacked(
        "crowds::connections_beyond_the_limit_wait_outside",
        setup,
        |victim| {
            let (address, before) = (victim.address, victim.descriptors());
            let connect = || wire::connect(address).expect("the kernel has room");
            let mut honest = Client::over(connect());
            honest.echo(100);
            let resident = victim.resident_kib();
            let crowd: Vec<_> = (0..500).map(|_| connect()).collect();
            until(|| victim.figures()["connections_full"] > 0);
            for round in 0..300 {
                honest.echo(round);
            }
            assert_eq!(victim.figures()["connections"], MOST as u64);
            // What is taken ahead of those who have room is little, and counts as well.
            assert!(victim.descriptors() <= before + MOST, "others were let in");
            let most = resident + MOST as u64 * IDLE_KIB + 8 * 1024;
            assert!(victim.resident_kib() <= most, "more than {most} KiB");
            drop(crowd);
            until(|| victim.figures()["connections"] == 1);
            honest.echo(100);
        },
    );
}

/// Those who say nothing make room when their time is over.
#[test]
fn silent_connections_make_room_in_time() {
    const MOST: usize = 8;
    let setup = Setup {
        server: |builder| builder.max_connections(MOST).head_timeout(SHORT),
        ..Setup::default()
    };
    attacked(
        "crowds::silent_connections_make_room_in_time",
        setup,
        |victim| {
            let crowd: Vec<_> = (0..3 * MOST)
                .map(|_| TcpStream::connect(victim.address).expect("the kernel has room"))
                .collect();
            // Behind all of them in the kernel's queue.
            let mut honest =
                Client::over(wire::connect(victim.address).expect("the kernel has room"));
            honest.echo(100);
            assert!(victim.figures()["connections_accepted"] > 3 * MOST as u64);
            drop(crowd);
        },
    );
}

/// Connections that are made and closed at once, with all that a close can be.
#[test]
fn connections_that_come_and_go() {
    attacked(
        "crowds::connections_that_come_and_go",
        Setup::default(),
        |victim| {
            let contest = Contest {
                neighbours: Neighbours {
                    count: 10,
                    bytes: 100,
                    stay: Stay::Comes,
                },
                memory_kib: 128 * IDLE_KIB,
                ends: Ends::Maybe,
            };
            let nothing = |_| Vec::new();
            let flood = Flood::of(10, victim.address, nothing).that_leaves();
            contest.fight(victim, vec![flood]);
        },
    );
}
