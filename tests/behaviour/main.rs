//! How the parts behave together, on the real ring.

mod buffers;
mod cancel;
mod corners;
mod features;
mod foreign_code;
mod lives;
mod requests;
mod runtime;
mod sockets;
mod wakes;
