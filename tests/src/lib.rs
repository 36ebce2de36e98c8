//! What the suites share: one core and its handle, on the real ring and in the simulation; the other
//! side of a connection; destructors that count; tests that need a process of their own.

mod again;
mod at_most;
mod child;
mod core;
mod dice;
mod drops;
mod folder;
mod host;
pub mod http_client;
mod outside;
mod peer;
mod process;
mod quiet;
mod scenarios;
mod serve;

pub use again::{Again, End};
pub use at_most::at_most;
pub use child::{Child, in_child};
pub use core::{
    Kernel, beside_another, gauges, on_both, on_core, on_core_of, on_core_of_each, on_ring,
    on_ring_of, park_once, poll_once, turns_of_others, until_parked, whole,
};
pub use dice::Dice;
pub use drops::{Counted, Drops};
pub use folder::{Put, conform_in, content_of, on_core_in, read_all};
pub use host::{Host, is_host, kill_hosts};
pub use outside::Outside;
pub use peer::{
    FullQueue, both_ends, both_ends_with, both_streams, bytes, connected, full_address, listening,
    receive_all, receive_exactly, refusing_address, reset, reset_from_afar,
};
pub use process::{
    allow_descriptors, children, descriptors, exists, mapped_kib, resident_kib, runs, stat,
    switches, threads,
};
pub use quiet::{assert_quiet, conform, conform_of, conform_on, one_core, quietly, quietly_of};
pub use scenarios::Scenarios;
pub use serve::Serve;

/// Returns how many of so many runs a test does in this build: without the optimiser, each takes several
/// times as long, and a fifth of them has to do.
pub const fn thorough(runs: u64) -> u64 {
    if cfg!(debug_assertions) {
        runs.div_ceil(5)
    } else {
        runs
    }
}
