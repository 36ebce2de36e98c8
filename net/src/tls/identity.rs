//! A certificate and its key.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use memchr::memmem;
use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use webpki::EndEntityCert;

use super::{provider, refused};

/// Who somebody is: a certificate, the chain that vouches for it, and its private key.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Identity")
            .field("certificates", &self.0.cert.len())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Takes an identity from PEM: certificates with one's own first, and a private key (PKCS #8,
    /// PKCS #1 or SEC 1).
    ///
    /// # Errors
    ///
    /// `InvalidInput`: what is wrong with which of the two, or that they do not belong together.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> io::Result<Self> {
        let chain = certificates_of(certificates)?;
        let certified =
            CertifiedKey::from_der(chain, key_of(key)?, &provider()).map_err(|error| {
                refused(format_args!(
                    "the certificate and the private key do not make an identity: {error}"
                ))
            })?;
        Ok(Self(Arc::new(certified)))
    }

    /// As [`Identity::from_pem`], from two files; which may be one.
    ///
    /// Reads files as any program does: for the time before a core serves anything.
    ///
    /// # Errors
    ///
    /// As for [`Identity::from_pem`] and those of reading, with the path in the message.
    pub fn from_files(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Self> {
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let read = |path: &Path| std::fs::read(path).map_err(|error| about(path, &error));
        let (chain, secret) = (read(certificates)?, read(key)?);
        Self::from_pem(&chain, &secret).map_err(|error| {
            let what = format!("{} and {}: {error}", certificates.display(), key.display());
            io::Error::new(error.kind(), what)
        })
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0)
    }

    /// Returns the names that the certificate says, in small letters. Whether it is [for](Self::is_for) one of them is
    /// another question.
    pub(super) fn names(&self) -> Vec<String> {
        let own = self.own();
        let names = own.iter().flat_map(|own| own.valid_dns_names());
        names.map(str::to_ascii_lowercase).collect()
    }

    /// Returns whether the certificate is for a server of this name.
    pub(super) fn is_for(&self, name: &ServerName<'_>) -> bool {
        self.own()
            .is_some_and(|own| own.verify_is_valid_for_subject_name(name).is_ok())
    }

    /// Returns whether the key can sign for somebody who can check these signatures.
    pub(super) fn can_sign(&self, schemes: &[SignatureScheme]) -> bool {
        self.0.key.choose_scheme(schemes).is_some()
    }

    fn own(&self) -> Option<EndEntityCert<'_>> {
        let own = self.0.cert.first();
        own.and_then(|own| EndEntityCert::try_from(own).ok())
    }
}

fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot read {}: {error}", path.display()),
    )
}

/// Reads certificates; at least one.
pub(super) fn certificates_of(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain =
        chain.map_err(|error| refused(format_args!("a certificate cannot be read: {error}")))?;
    if chain.is_empty() {
        return Err(refused(
            "there is no certificate: PEM with BEGIN CERTIFICATE is wanted",
        ));
    }
    Ok(chain)
}

/// Reads a private key.
fn key_of(pem: &[u8]) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        _ if is_encrypted(pem) => refused(
            "the private key is encrypted: take its passphrase away, such as with openssl pkey",
        ),
        pem::Error::NoItemsFound => {
            refused("there is no private key: PEM with BEGIN PRIVATE KEY is wanted")
        }
        error => refused(format_args!("the private key cannot be read: {error}")),
    })
}

/// Returns whether it is a key that only whoever knows its passphrase can read: of PKCS #8 (RFC 7468, section 11), or
/// as OpenSSL wrote keys before that (RFC 1421, section 4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    let marks = ["-----BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];
    let mut marks = marks.iter().map(|mark| mark.as_bytes());
    marks.any(|mark| memmem::find(pem, mark).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_named_with_what_is_wrong() {
        let own = rcgen::generate_simple_self_signed(["site.test".to_owned()]);
        let own = own.expect("a certificate");
        let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let old = key.replace(
            "BEGIN PRIVATE KEY-----\n",
            "BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n",
        );
        let old = old.replace("END PRIVATE", "END RSA PRIVATE");
        for (key, wrong) in [
            ("", "there is no private key"),
            (&*certificate, "there is no private key"),
            (
                &*key.replace("PRIVATE", "ENCRYPTED PRIVATE"),
                "is encrypted",
            ),
            (&*old, "is encrypted"),
            (&*key.replace("-----END", ""), "cannot be read"),
        ] {
            let error = Identity::from_pem(certificate.as_bytes(), key.as_bytes());
            let error = error.expect_err("it is no key");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(wrong), "{error}: {key}");
        }
        // What stands around a key is nothing of its own, as OpenSSL writes it.
        let key = format!(
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{key}"
        );
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("it is one");
    }
}
