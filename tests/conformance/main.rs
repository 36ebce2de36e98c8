//! How cancellation behaves, scenario by scenario. A test's name begins with its scenario's.

mod across_programs;
mod across_sync;
mod blocking;
mod blocking_programs;
mod portal;
mod streams;
mod sync;
mod sync_programs;
mod waiters;
