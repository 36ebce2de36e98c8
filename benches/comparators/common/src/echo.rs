//! The arguments of an echo server.

use clap::Parser;

use crate::place::Place;

/// Sends back whatever it receives.
#[derive(Parser, Debug, Clone)]
pub struct Arguments {
    #[command(flatten)]
    pub place: Place,
    /// How many bytes one read takes at most.
    ///
    /// A connection that waits holds this much in most of them. The default takes a message of 16 KiB at
    /// once; with less, it takes several reads and writes.
    #[arg(long, default_value_t = 16 << 10)]
    pub buffer: usize,
}
