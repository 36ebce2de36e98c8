//! The HTTP client against servers that others wrote: nginx, node's own, and Python's hypercorn; in the clear,
//! over TLS and in HTTP/2.
//!
//! Not part of `http_pool`, whose peers say byte by byte what they are told, in this process and in the simulation:
//! here they are processes of their own, which are started, counted from outside and killed. A server that is not
//! installed is left out, and that is said; `.ci/setup` installs them.
//!
//! | variable | default | |
//! |---|---|---|
//! | `QUOIT_SERVERS_ROUNDS` | 10 | how many requests each task of a storm makes |
//! | `QUOIT_SERVERS_SEED` | any | where the storms begin; each says its own |

mod asker;
mod everything;
mod keep_alive;
mod kills;
mod partner;
mod storms;
mod upstream;

use std::env;

/// How many requests each task of a storm makes.
pub(crate) fn rounds() -> usize {
    let said = env::var("QUOIT_SERVERS_ROUNDS");
    said.map_or(10, |rounds| rounds.parse().expect("a number"))
}

/// Where random runs begin.
pub(crate) fn seed() -> u64 {
    let said = env::var("QUOIT_SERVERS_SEED");
    said.map_or_else(
        |_| quoit::random().expect("the kernel has some"),
        |seed| seed.parse().expect("a number"),
    )
}

/// Lets other tasks of the core go on until this is so: half a minute at most, which is long also for a machine
/// under load.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = quoit::time::Instant::now();
    while !is_so() {
        let waited = begun.elapsed();
        assert!(waited < std::time::Duration::from_secs(30), "never: {what}");
        let pause = quoit::time::sleep(std::time::Duration::from_millis(1));
        pause.await.expect("nobody cancels");
    }
}
