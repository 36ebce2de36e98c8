//! How the parts behave together: on the real ring, and in the simulation under some seeds.
//!
//! What runs on the ring alone stands under a heading that says why.

mod at_once;
mod buffers;
mod cancel;
mod clauses;
mod corners;
mod dump;
mod eager;
mod ends;
mod features;
mod files;
mod first_poll;
mod foreign_code;
mod handles;
mod latencies;
mod lives;
mod moves;
mod pipes;
mod processes;
mod requests;
mod rules;
mod runtime;
mod sends;
mod sockets;
mod spinning;
mod unix;
mod unseen;
mod wakes;
