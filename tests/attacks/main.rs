//! The server under attack.
//!
//! Each attack meets a server in a process of its own, so that what it keeps in memory can be read from
//! outside, and goes on while honest clients ask (`contest.rs`). It has won if the server keeps more than
//! its limits say, if an honest request stays without its answer, if honest clients get less than half of
//! what they get beside honest neighbours who move as many bytes, or if anything is left of it once the
//! attackers have gone.

mod bodies;
mod contest;
mod crowds;
mod descriptors;
mod flood;
mod frames;
mod heads;
mod tls;
mod victim;
mod wire;
