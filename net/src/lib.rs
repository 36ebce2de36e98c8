//! Sockets and HTTP for the [`quoit`] runtime.
//!
//! In reading order: [`tcp`] and [`unix`] listeners and streams; [`tls`] upon them, by rustls; [`http`] a server,
//! on hyper; [`stdio`] what is said without waiting. [`embedding`] is the guide for those who put a server into a
//! program of theirs.
//!
//! Everything here is built from the leaf ops of [`quoit::op`], stays on the core it was made on,
//! and fails with [`quoit::Cancelled`] in a cancelled scope.

mod address;
#[doc = include_str!("embedding.md")]
pub mod embedding {}
pub mod http;
mod sharded;
pub mod stdio;
mod stream;
pub mod tcp;
pub mod tls;
pub mod unix;

pub use address::Address;
pub use sharded::ShardedListener;
pub use tcp::{TcpListener, TcpStream};
pub use unix::{UnixListener, UnixStream};
