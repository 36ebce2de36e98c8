//! **quoit**: an io_uring runtime for Rust. One pinned thread per core, one ring per thread, a tree
//! of cancel scopes on each core, and idle cores that are parked in the kernel.
//!
//! ```
//! use quoit::{Cores, Runtime};
//!
//! Runtime::builder().cores(Cores::All).build()?.run(|core| async move {
//!     println!("hello from core {core}");
//!     Ok::<_, std::io::Error>(())
//! })?;
//! # Ok::<_, std::io::Error>(())
//! ```
//!
//! In reading order:
//!
//! - [`Runtime`], [`Builder`], [`Handle`] and [`block_on`]: cores, and how to reach them.
//! - [`spawn`], [`JoinHandle`], [`yield_now`]: tasks. A task stays on its core; nothing needs `Send`.
//! - [`Scope`], [`Cancelled`], [`CancelHandle`], [`check`]: what is cancelled as a unit.
//! - [`group`], [`race`], [`timeout`], [`run_until_cancelled`]: what is made of scopes.
//! - [`cancellation`]: the guide to all of that, with programs.
//! - [`metrics`]: what has happened, in numbers and histograms; [`ScopeDump`]: who waits for what now.
//! - Deadlines: [`time`].
//! - Memory that the kernel may write to: [`buf`].
//! - Work that cannot wait politely, on threads: [`blocking`].
//! - Files in [`fs`], child processes in [`process`], signals in [`signal`], and in [`op`] the leaf ops that all of them are made of.
//! - Tasks that wait for each other: [`sync`]; on different cores: [`sync::shared`].
//! - With the feature `sim`: whole programs under a seed, in `sim`.
//!
//! Sockets, TLS and HTTP are in the crate `quoit-net`.

pub mod blocking;
pub mod buf;
#[doc = include_str!("scope/guide.md")]
pub mod cancellation {}
mod config;
mod core_loop;
mod core_state;
pub mod doctor;
mod driver;
pub mod fs;
mod kernel_op;
mod mailbox;
pub mod metrics;
pub mod op;
mod panics;
mod pipe;
pub mod process;
mod prompt;
mod random;
mod runtime;
mod scope;
pub mod signal;
#[cfg(feature = "sim")]
pub mod sim;
mod slab;
mod spin;
pub mod sync;
mod task;
pub mod time;

pub use config::{BuildError, Builder, Cores, ParseCoresError, RingFeature};
pub use kernel_op::fd::Closed;
pub use metrics::CoreMetrics;
pub use metrics::dump::ScopeDump;
pub use random::random;
pub use runtime::{
    CoreId, Handle, RemoteError, RemoteHandle, RemoteSender, Runtime, SpawnError, block_on,
    start_thread,
};
pub use scope::{
    AlreadyStarted, CancelHandle, Cancelled, CarriesCancelled, Delivery, ForeignWait, Group,
    GroupError, GroupPanic, Misuse, Reason, Remote, Scope, StartError, Started, TimedOut, check,
    effective_deadline, group, is_cancelled, isolating_group, on, race, race_all, race_with,
    run_until_cancelled, timeout,
};
pub use task::{JoinError, JoinHandle, leave_behind, spawn, yield_now, yield_uncancellable};
