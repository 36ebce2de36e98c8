//! How cancellation behaves, scenario by scenario: `docs/conformance.md` lists them.
//!
//! A test's name begins with its scenario's. Bodies run on the real ring and in the simulation, and
//! after every one of them the core must be quiet ([`tests::conform`]). How long something may take
//! at most is asked in simulated time alone.

mod across_cores;
mod across_programs;
mod across_sync;
mod blocking;
mod blocking_programs;
mod closing;
mod deadlines;
mod entry;
mod exit;
mod groups;
mod harness;
mod idle;
mod kernel_ops;
mod nesting;
mod panics;
mod pool;
mod portal;
mod processes;
mod redelivery;
mod shields;
mod streams;
mod support;
mod sync;
mod sync_programs;
mod table;
mod waiters;
