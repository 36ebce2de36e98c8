//! TLS, by rustls: servers, clients, and streams of both.
//!
//! In reading order: [`Identity`] is who somebody is, a certificate with its key; [`ServerTls`] and
//! [`ClientTls`] say how connections shall be; [`TlsStream`] is one; `session` drives rustls.
//!
//! No certificate of this machine is trusted by itself: a client is told whom to trust, as PEM.

mod certificates;
mod client;
mod identity;
mod server;
mod session;
mod stream;

pub use certificates::Certificates;
pub use client::ClientTls;
pub use identity::Identity;
pub use server::ServerTls;
pub use session::TlsInfo;
pub(crate) use session::{Plain, Session, accept};
pub use stream::TlsStream;

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// Says what was wrong with something that was given to us.
fn refused(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_string())
}

/// The algorithms: those of `ring`, which needs nothing to be built but a C compiler.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
