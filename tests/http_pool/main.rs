//! The HTTP client and its pool: against peers that say what they are told, byte by byte, and against our own
//! server; on the real ring, and where nothing forbids it in the simulation.
//!
//! A test that stands for a scenario is named after it.

mod http1;
mod peer;

use quoit_pool::http::{Client, ClientBuilder};

/// A client whose pool closes nothing by itself.
pub(crate) fn patient() -> ClientBuilder {
    Client::builder().idle_timeout(None).without_keep_alive()
}
