//! HTTP on hyper.
//!
//! hyper speaks the protocols; what is here brings bytes, time and tasks to it: [`Io`] its `Read`
//! and `Write` on our streams, [`Timer`] its timers on ours, [`Executor`] its tasks on ours, and
//! [`Server`] a server on every core.
//!
//! Nothing here is `Send`: a handler may hold an `Rc` across awaits.

mod activity;
mod answer;
pub mod body;
mod connection;
mod core;
mod course;
mod exchange;
mod executor;
mod figures;
mod frames;
mod handle;
mod http2;
mod incoming;
mod io;
mod line;
mod listen;
mod lookout;
mod outgoing;
mod own_answer;
mod page;
mod request;
mod server;
mod service;
mod stall;
mod streams;
mod strict;
mod timer;
mod trouble;
mod upgrade;

use std::error::Error;

pub use connection::Peer;
pub use course::Answered;
pub use executor::Executor;
pub use handle::{ConnectionCounts, ServerHandle};
pub use incoming::Incoming;
pub use io::Io;
pub use listen::Listen;
pub use page::Page;
pub use server::{Builder, Report, Server};
pub use strict::Strictness;
pub use timer::Timer;
pub use trouble::Trouble;
pub use upgrade::{Upgraded, upgrade};

/// Whatever a handler or a body fails with.
type BoxError = Box<dyn Error + Send + Sync>;
