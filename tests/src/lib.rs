//! What the suites share: one core and its handle, a peer on a plain thread, destructors that
//! count, and tests that need a process of their own.

mod child;
mod core;
mod drops;
pub mod http_client;
mod peer;
mod process;

pub use child::{Child, in_child};
pub use core::{gauges, on_core, on_core_of, park_once, poll_once, until_parked};
pub use drops::{Counted, Drops};
pub use peer::{both_ends, bytes, connected, listening, reset, silent_address};
pub use process::{descriptors, mapped_kib, resident_kib, switches, threads};
