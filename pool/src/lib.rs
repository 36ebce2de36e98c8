//! Sessions on loan: opened once, shared, and closed by the task that opened them.
//!
//! In reading order:
//!
//! - [`SessionPool`], [`Sessions`], [`Key`]: what a session is, how it is opened and closed.
//! - [`Lease`]: a session on loan, and calls on it from any core.
//! - [`Builder`]: limits and times. [`PoolMetrics`]: what has happened.
//! - [`LeaseError`], [`CallError`], [`CloseError`].
//! - [`OwnedStream`], [`with_stream`]: streams of items that end cleanly however they are left.
//! - [`http`]: an HTTP client whose connections are kept, HTTP/1.1 and HTTP/2.
//! - [`stdio`]: sessions with child processes over pipes, tool servers among them.
//!
//! A session is opened, kept and closed by its *owner*, one task on one core, and by nobody else. Whoever
//! leases it may be cancelled, panic, or be on another core: the owner closes what it opened, once.

mod config;
mod error;
mod figures;
mod home;
pub mod http;
mod key;
mod lease;
mod owner;
mod pool;
mod registry;
mod state;
pub mod stdio;
mod stream;
mod waiters;

pub use config::{Builder, ConfigError};
pub use error::{CallError, CloseError, LeaseError};
pub use figures::PoolMetrics;
pub use key::Key;
pub use lease::Lease;
pub use pool::{SessionPool, Sessions};
pub use stream::{ItemPermit, Items, LentStream, OwnedStream, with_stream};
