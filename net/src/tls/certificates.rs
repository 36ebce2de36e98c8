//! Which certificate a server shows.

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;

use super::{Identity, refused};

/// The certificates that a server shows. Changed from any thread, they are seen by the next client.
#[derive(Clone)]
pub struct Certificates(Arc<RwLock<Vec<Identity>>>);

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificates").field(&self.shown()).finish()
    }
}

impl Certificates {
    pub(super) fn new(shown: Vec<Identity>) -> Self {
        Self(Arc::new(RwLock::new(shown)))
    }

    /// Shows these from now on, the first to clients that ask for no name we know. For certificates
    /// that are renewed while the server runs.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if there are none; the old ones stay.
    pub fn replace(&self, identities: Vec<Identity>) -> io::Result<()> {
        if identities.is_empty() {
            return Err(refused("a server needs a certificate"));
        }
        self.change(|shown| *shown = identities);
        Ok(())
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Vec<Identity>)) {
        // Held for a moment, by nobody who waits: a core that looks waits for no more than that.
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn shown(&self) -> Vec<Identity> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shown.clone()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let named = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok())
            .and_then(|name| shown.iter().find(|identity| identity.is_for(&name)));
        named.or_else(|| shown.first()).map(Identity::certified)
    }
}
