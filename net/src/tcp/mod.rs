//! TCP: [`TcpListener`] accepts, [`TcpStream`] carries bytes, [`options`](TcpOptions) says how.

mod listener;
mod options;
mod stream;

pub use listener::TcpListener;
pub use options::TcpOptions;
pub(crate) use options::{cannot_listen, stands_for_none};
pub use stream::TcpStream;

pub use quoit::buf::Chunk;
