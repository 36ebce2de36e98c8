//! No descriptor is left: accepting fails, and nothing else does.

use std::net::TcpStream;

use tests::http_client::{pause, until};

use crate::victim::{Setup, attacked};
use crate::wire::{self, Client};

/// How many descriptors the server may have: fewer than there are clients.
const DESCRIPTORS: u32 = 64;

/// Those that are in are served, the core rests between two attempts to let others in, and lets them in as
/// soon as it can.
#[test]
fn without_descriptors_those_inside_are_served_and_the_core_rests() {
    let name = "descriptors::without_descriptors_those_inside_are_served_and_the_core_rests";
    let setup = Setup {
        descriptors: Some(DESCRIPTORS),
        ..Setup::default()
    };
    attacked(name, setup, |victim| {
        let address = victim.address;
        let connect = || wire::connect(address).expect("the kernel has room");
        let mut honest = Client::over(connect());
        honest.echo(100);
        let crowd: Vec<TcpStream> = (0..3 * DESCRIPTORS).map(|_| connect()).collect();
        until(|| victim.figures()["troubles"] >= 3);
        for round in 0..100 {
            honest.echo(round);
        }
        // At rest it tries once in at most a second, and what it does for that is little: a core that asked
        // the kernel again at once would turn tens of thousands of times in a second.
        let before = victim.figures();
        pause(std::time::Duration::from_secs(2));
        let after = victim.figures();
        let turns = after["turns"] - before["turns"];
        assert!(turns < 2000, "{turns} turns for nothing");
        assert_eq!(before["connections"], after["connections"]);
        // They all go, and somebody new comes in.
        drop(crowd);
        let mut late = Client::over(connect());
        late.echo(100);
        honest.echo(100);
        until(|| victim.figures()["connections"] == 2);
    });
}
