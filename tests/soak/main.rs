//! A server for minutes: clients ask in every way there is and are killed in the middle of it; in the end
//! each request is accounted for, and nothing is left.
//!
//! ```text
//!   the judge ──starts, looks into──► the server: one in the clear and one with TLS, on two cores each
//!       │                                 ▲
//!       ├──starts, kills──► clients ──────┤  this program again, and curl
//!       └──threads──► raw sockets ────────┘  that are reset in the middle of a request
//! ```
//!
//! Each request carries a number. The server's process has a page for each in its book: how often a handler
//! began and ended with it, and what the server told of it. Each client says what it asks before it asks,
//! and what came of it after, on a pipe that outlives it. The judge holds the two, and the counters, against
//! each other; and what the server's process consists of, at rest, against what it was when it began.
//!
//! It runs for `QUOIT_SOAK_SECONDS` (`.ci/long soak`: 120), by default no longer than every change can wait
//! for. `QUOIT_SOAK_SEED` repeats who asks for what and when he is killed; what is under way just then is
//! the machine's to decide.

mod book;
mod client;
mod curl;
mod judge;
mod questions;
mod raw;
mod resets;
mod server;

use std::env;
use std::time::Duration;

/// Whether a process of this program is the server or a client, and what it has to know.
pub(crate) const ROLE: &str = "QUOIT_SOAK_ROLE";

/// The one test, by its name.
pub(crate) const NAME: &str = "a_server_outlives_its_clients_and_keeps_nothing_of_them";

#[test]
fn a_server_outlives_its_clients_and_keeps_nothing_of_them() {
    match env::var(ROLE) {
        Err(_) => judge::judge(soak_time(), seed()),
        Ok(role) => match role.split_once(' ').expect("a role and the rest") {
            ("server", rest) => server::live(rest),
            (_, rest) => client::live(rest),
        },
    }
}

/// What every change can wait for.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

fn soak_time() -> Duration {
    let said = env::var("QUOIT_SOAK_SECONDS");
    said.map_or(SHORT, |seconds| {
        Duration::from_secs(seconds.parse().expect("a number of seconds"))
    })
}

fn seed() -> u64 {
    let said = env::var("QUOIT_SOAK_SEED");
    said.map_or_else(
        |_| quoit::random().expect("the kernel has some"),
        |seed| seed.parse().expect("a number"),
    )
}
