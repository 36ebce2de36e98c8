//! How a server's connections shall be.

use std::io;
use std::sync::Arc;

use quoit::op::Stream;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::identity::certificates_of;
use super::{Certificates, Identity, TlsStream, accept, provider, refused};

/// How the TLS of a server shall be: TLS 1.2 and 1.3, sessions resumed.
///
/// A clone speaks of the same certificates. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificates: Certificates,
    clients: Clients,
}

/// Whose connections a server takes.
#[derive(Debug, Clone)]
enum Clients {
    Anybodys,
    /// Of those alone whose certificates these roots vouch for.
    Known(Arc<RootCertStore>),
    /// As above, or without a certificate.
    KnownOrNone(Arc<RootCertStore>),
}

impl ServerTls {
    /// Makes a server that is this.
    ///
    /// # Errors
    ///
    /// None that is known; `InvalidInput` if rustls refuses its own defaults.
    pub fn new(identity: Identity) -> io::Result<Self> {
        let certificates = Certificates::new(vec![identity]);
        Self::built(certificates, Clients::Anybodys, &[])
    }

    /// Adds an identity, for the names that its certificate is for. A client that asks for a name
    /// which no certificate is for, or for none, sees the first. Of several for the same name it sees the first whose
    /// signature it can check, so that keys of newer kinds can come before those that all clients know.
    #[must_use]
    pub fn also(self, identity: Identity) -> Self {
        self.certificates.add(identity);
        self
    }

    /// Demands a certificate of each client that these roots (PEM) vouch for.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: what is wrong with the roots.
    pub fn require_client_certificates(self, roots: &[u8]) -> io::Result<Self> {
        let roots = Arc::new(roots_of(roots)?);
        self.with_clients(Clients::Known(roots))
    }

    /// Asks each client for a certificate that these roots (PEM) vouch for; none is fine as well.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: what is wrong with the roots.
    pub fn request_client_certificates(self, roots: &[u8]) -> io::Result<Self> {
        let roots = Arc::new(roots_of(roots)?);
        self.with_clients(Clients::KnownOrNone(roots))
    }

    /// Offers these protocols, the best first (ALPN, RFC 7301). An HTTP server does so itself.
    ///
    /// # Errors
    ///
    /// As for [`ServerTls::new`].
    pub fn protocols(self, protocols: &[&[u8]]) -> io::Result<Self> {
        Self::built(self.certificates, self.clients, protocols)
    }

    /// Returns what changes the certificates while connections come: those that are open keep theirs.
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// Shakes hands with a client. Give it a deadline: a client may take its time.
    ///
    /// # Errors
    ///
    /// `InvalidData` with the cause, a [`rustls::Error`], if the client does not speak TLS or not
    /// ours: it was told. `UnexpectedEof` if it went away. [`quoit::Cancelled`].
    pub async fn accept(&self, stream: impl Into<Stream>) -> io::Result<TlsStream> {
        let stream = stream.into();
        let (session, rest) = accept(self, &stream).await?;
        Ok(TlsStream::new(stream, session, rest))
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    fn with_clients(self, clients: Clients) -> io::Result<Self> {
        let protocols = self.config.alpn_protocols.clone();
        let protocols: Vec<_> = protocols.iter().map(Vec::as_slice).collect();
        Self::built(self.certificates, clients, &protocols)
    }

    fn built(
        certificates: Certificates,
        clients: Clients,
        protocols: &[&[u8]],
    ) -> io::Result<Self> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(refused)?;
        let builder = match clients.verifier()? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates.clone()));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            config: Arc::new(config),
            certificates,
            clients,
        })
    }
}

impl Clients {
    fn verifier(&self) -> io::Result<Option<Arc<dyn ClientCertVerifier>>> {
        let (roots, must) = match self {
            Self::Anybodys => return Ok(None),
            Self::Known(roots) => (roots, true),
            Self::KnownOrNone(roots) => (roots, false),
        };
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
        let builder = if must {
            builder
        } else {
            builder.allow_unauthenticated()
        };
        let verifier = builder.build().map_err(refused)?;
        Ok(Some(verifier))
    }
}

/// Reads roots to trust.
pub(super) fn roots_of(pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in certificates_of(pem)? {
        roots
            .add(root)
            .map_err(|error| refused(format_args!("a root cannot be trusted: {error}")))?;
    }
    Ok(roots)
}
