//! Unix sockets: [`UnixListener`] accepts, [`UnixStream`] carries bytes, [`UnixAddress`] says where,
//! [`UnixOptions`] how.
//!
//! Whoever binds at a path looks at what is there, may remove it, and listens: one program at a time, by a
//! lock that is nothing but a moment's (`path_lock.rs`).
//!
//! Real sockets only: the simulated kernel knows none, and says so.

mod address;
mod listener;
mod options;
mod path_lock;
mod shared;
mod stream;

pub use address::UnixAddress;
pub use listener::UnixListener;
pub use options::UnixOptions;

pub(crate) use options::Place;
pub(crate) use shared::{SecondLook, SharedUnix};
pub use stream::UnixStream;
pub(crate) use stream::peer_addr;

pub use quoit::buf::Chunk;
pub use quoit::op::Credentials;
