//! Which certificate a server shows.
//!
//! ```text
//!   the name that is asked for ──► certificates with that name ──► those that are for it ──► the first that
//!   (none, or none known: those      (looked up, not searched)      (as a client sees it)     the client can check,
//!    of the first certificate)                                                                or else the first
//! ```
//!
//! Invariant: of certificates with other names nothing is looked at: there may be many.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;

use super::{Identity, refused};

/// The certificates that a server shows. Changed from any thread, they are seen by the next client.
#[derive(Clone)]
pub struct Certificates(Arc<RwLock<Shown>>);

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_tuple("Certificates")
            .field(&shown.identities)
            .finish()
    }
}

impl Certificates {
    pub(super) fn new(shown: Vec<Identity>) -> Self {
        Self(Arc::new(RwLock::new(Shown::of(shown))))
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
        let mut shown = Shown::of(identities);
        self.change(|before| std::mem::swap(before, &mut shown));
        Ok(())
    }

    /// Shows one more.
    pub(super) fn add(&self, identity: Identity) {
        self.change(|shown| shown.add(identity));
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        // Held for a moment, by nobody who waits: a core that looks waits for no more than that.
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = shown.find(hello.server_name(), hello.signature_schemes());
        found.map(Identity::certified)
    }
}

/// Identities, and where each name is among them.
#[derive(Default)]
struct Shown {
    identities: Vec<Identity>,
    /// In small letters; one for all names beneath another as `*.site.test`.
    places: HashMap<String, Vec<usize>>,
}

impl Shown {
    fn of(identities: Vec<Identity>) -> Self {
        let mut shown = Self::default();
        identities
            .into_iter()
            .for_each(|identity| shown.add(identity));
        shown
    }

    fn add(&mut self, identity: Identity) {
        let place = self.identities.len();
        for name in identity.names() {
            let places = self.places.entry(name).or_default();
            // A certificate may say a name twice.
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
        self.identities.push(identity);
    }

    /// Returns who is shown to a client that asks for this name, and can check such signatures.
    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Identity> {
        let named = name.map(|name| self.named(name)).unwrap_or_default();
        let of_first = || {
            let names = self.identities.first().map(Identity::names);
            self.at(names.iter().flatten().map(String::as_str))
        };
        let places = match named.is_empty() {
            true => of_first(),
            false => named,
        };
        let mut found = places.iter().map(|&place| &self.identities[place]);
        let fits = found.clone().find(|identity| identity.can_sign(schemes));
        // One that it cannot check, if there is no other: rustls tells it why that comes to nothing.
        fits.or_else(|| found.next())
            .or_else(|| self.identities.first())
    }

    /// Returns where those are that are for this name.
    fn named(&self, name: &str) -> Vec<usize> {
        let Ok(named) = ServerName::try_from(name) else {
            return Vec::new();
        };
        let name = name.to_ascii_lowercase();
        let beneath = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let mut places = self.at([&*name].into_iter().chain(beneath.as_deref()));
        places.retain(|&place| self.identities[place].is_for(&named));
        places
    }

    /// Returns where those are that have one of these names, in order.
    fn at<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<usize> {
        let places = names.filter_map(|name| self.places.get(name)).flatten();
        let mut places: Vec<usize> = places.copied().collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm,
    };

    use super::*;

    const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    const ED25519: SignatureScheme = SignatureScheme::ED25519;
    const BOTH: &[SignatureScheme] = &[ECDSA, ED25519];

    fn identity(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Identity {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.self_signed(&key).expect("a certificate");
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("both belong together")
    }

    fn shown(all: &[(&[&str], &'static SignatureAlgorithm)]) -> Shown {
        Shown::of(
            all.iter()
                .map(|(names, key)| identity(names, key))
                .collect(),
        )
    }

    /// Which is found.
    #[track_caller]
    fn place(shown: &Shown, name: Option<&str>, schemes: &[SignatureScheme]) -> usize {
        let found = shown
            .find(name, schemes)
            .expect("there are some")
            .certified();
        let mut all = shown.identities.iter().map(Identity::certified);
        let place = all.position(|one| Arc::ptr_eq(&one, &found));
        place.expect("it is one of them")
    }

    #[test]
    fn the_first_that_is_for_a_name_is_shown() {
        let shown = shown(&[
            (&["first.test"], &PKCS_ECDSA_P256_SHA256),
            (&["*.site.test"], &PKCS_ECDSA_P256_SHA256),
            (
                &["Www.Site.Test", "site.test", "site.test"],
                &PKCS_ECDSA_P256_SHA256,
            ),
            (&["mail.site.test", "site.test"], &PKCS_ECDSA_P256_SHA256),
        ]);
        for (name, expected) in [
            (None, 0),
            (Some("first.test"), 0),
            (Some("FIRST.test"), 0),
            (Some("site.test"), 2),
            (Some("SITE.test"), 2),
            (Some("www.site.test"), 1),
            (Some("mail.site.test"), 1),
            (Some("a.b.site.test"), 0),
            (Some("*.site.test"), 0),
            (Some("other.test"), 0),
            (Some("test"), 0),
            (Some(""), 0),
            (Some("192.0.2.1"), 0),
        ] {
            assert_eq!(place(&shown, name, BOTH), expected, "{name:?}");
        }
    }

    #[test]
    fn of_several_for_a_name_the_first_is_shown_that_the_client_can_check() {
        let shown = shown(&[
            (&["www.site.test"], &PKCS_ED25519),
            (&["other.test"], &PKCS_ECDSA_P256_SHA256),
            (&["*.site.test"], &PKCS_ECDSA_P256_SHA256),
            (
                &["mail.site.test", "www.site.test"],
                &PKCS_ECDSA_P256_SHA256,
            ),
        ]);
        for (name, schemes, expected) in [
            (Some("www.site.test"), BOTH, 0),
            (Some("www.site.test"), &[ECDSA], 2),
            (Some("www.site.test"), &[ED25519], 0),
            (Some("www.site.test"), &[], 0),
            (Some("mail.site.test"), &[ECDSA], 2),
            (Some("other.test"), &[ED25519], 1),
            // Of those with the names of the first.
            (None, BOTH, 0),
            (None, &[ECDSA], 3),
            (Some("site.test"), &[ECDSA], 3),
            (None, &[], 0),
        ] {
            assert_eq!(
                place(&shown, name, schemes),
                expected,
                "{name:?} {schemes:?}"
            );
        }
    }

    #[test]
    fn only_certificates_with_the_name_are_looked_at() {
        let names: Vec<String> = (0..100)
            .map(|number| format!("site-{number}.test"))
            .collect();
        let keys = names
            .iter()
            .map(|name| identity(&[name], &PKCS_ECDSA_P256_SHA256));
        let shown = Shown::of(keys.collect());
        for (place, name) in names.iter().enumerate() {
            assert_eq!(shown.at([&**name].into_iter()), [place]);
            assert_eq!(shown.named(name), [place]);
        }
        assert_eq!(shown.named("site-100.test"), []);
    }
}
