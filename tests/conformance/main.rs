//! How cancellation behaves, scenario by scenario. A test's name begins with its scenario's.

mod streams;
mod sync;
mod sync_programs;
mod waiters;
