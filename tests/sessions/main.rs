//! Sessions on loan, scenario by scenario. A test's name begins with its scenario's.
//!
//! Bodies run on the real ring and in the simulation, and after every one of them the cores must be quiet
//! ([`tests::conform`]): no task, no wait, nothing in the kernel. Sessions with child processes run on the ring
//! alone.

mod closing;
mod kind;
mod openings;
mod programs;
mod room;
mod sharing;
mod stdio;
mod streams;
mod table;
mod tool_servers;
