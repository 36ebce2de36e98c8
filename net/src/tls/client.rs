//! How a client's connections shall be.

use std::io;
use std::sync::Arc;

use quoit::op::Stream;
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use super::server::roots_of;
use super::session::{Session, shake_hands};
use super::{Identity, TlsStream, provider, refused};

/// How the TLS of a client shall be: whom it trusts, and who it is. Cheap to clone; clones share the
/// sessions that can be resumed.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Makes a client that trusts whom these roots (PEM) vouch for.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: what is wrong with the roots.
    pub fn trusting(roots: &[u8]) -> io::Result<Self> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_root_certificates(roots_of(roots)?)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Shows this certificate to servers that ask for one.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        let shown = rustls::sign::SingleCertAndKey::from(identity.certified());
        Arc::make_mut(&mut self.config).client_auth_cert_resolver = Arc::new(shown);
        self
    }

    /// Offers these protocols, the best first (ALPN, RFC 7301).
    #[must_use]
    pub fn protocols(mut self, protocols: &[&[u8]]) -> Self {
        let protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::make_mut(&mut self.config).alpn_protocols = protocols;
        self
    }

    /// Shakes hands with a server, which must prove that it is `name`: a host name or an address.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `name` is none. `InvalidData` with the cause, a [`rustls::Error`], if the
    /// server is not who it should be, or does not speak TLS. `UnexpectedEof` if it went away.
    /// [`quoit::Cancelled`].
    pub async fn connect(&self, name: &str, stream: impl Into<Stream>) -> io::Result<TlsStream> {
        let named = ServerName::try_from(name.to_owned()).map_err(|error| {
            refused(format_args!(
                "{name:?} is no name that a server can have: {error}"
            ))
        })?;
        let client = ClientConnection::new(Arc::clone(&self.config), named).map_err(refused)?;
        let mut session = Session::new(client.into());
        let stream = stream.into();
        let rest = shake_hands(&mut session, &stream).await?;
        Ok(TlsStream::new(stream, session, rest))
    }
}
