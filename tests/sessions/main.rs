//! Sessions on loan, scenario by scenario. A test's name begins with its scenario's.
//!
//! Bodies run on the real ring and in the simulation, and after every one of them the cores must be quiet
//! ([`tests::conform`]): no task, no wait, nothing in the kernel.

mod closing;
mod kind;
mod openings;
mod programs;
mod room;
mod sharing;
mod stdio;
mod streams;
mod tool_servers;
