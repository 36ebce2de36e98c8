//! rustls, driven: what comes in as bytes of the network and goes out as such.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use quoit::buf::Chunk;
use quoit::op::Stream;
use rustls::{Connection, ContentType, ProtocolVersion, ServerConnection};
use rustls_pki_types::CertificateDer;

use super::ServerTls;

/// One side of a TLS connection, without the network.
pub(crate) struct Session {
    /// Large, and there for few of the streams.
    tls: Box<Connection>,
    said_goodbye: bool,
}

/// What a handshake has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version, such as `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, by its IANA name.
    pub cipher: &'static str,
    /// The protocol that both sides agreed on (ALPN).
    pub protocol: Option<Vec<u8>>,
    /// The name that the client asked for (SNI). Of servers.
    pub server_name: Option<String>,
    /// The certificates that the other side showed, its own first, as DER. They were checked.
    pub peer_certificates: Vec<Vec<u8>>,
    /// Whether an earlier session was resumed.
    pub is_resumed: bool,
}

/// What a look at the plain text found.
#[derive(Debug)]
pub(crate) enum Plain {
    /// Some was taken.
    Taken,
    /// More has to come first.
    None,
    /// The other side has said that nothing comes any more.
    End,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("version", &self.tls.protocol_version())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(tls: Connection) -> Self {
        Self {
            tls: Box::new(tls),
            said_goodbye: false,
        }
    }

    /// Takes what came from the network, as far as there is room for what is in it: what is left of
    /// `chunk` waits until some of that was taken.
    pub(crate) fn receive(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        while !chunk.is_empty() && self.tls.wants_read() {
            let mut bytes = &chunk[..];
            let taken = self.tls.read_tls(&mut bytes)?;
            chunk.advance(taken);
            self.tls
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Notes that the network has come to its end.
    pub(crate) fn receive_end(&mut self) {
        // It is told by `plain`.
        let _ = self.tls.read_tls(&mut io::empty());
        let _ = self.tls.process_new_packets();
    }

    /// Gives plain text to `take`, which says how much of it it has taken.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof`: the network came to an end, and the other side has not said so.
    pub(crate) fn plain(&mut self, take: impl FnOnce(&[u8]) -> usize) -> io::Result<Plain> {
        let mut reader = self.tls.reader();
        match reader.fill_buf() {
            Ok([]) => Ok(Plain::End),
            Ok(bytes) => {
                let taken = take(bytes);
                reader.consume(taken);
                Ok(Plain::Taken)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Plain::None),
            Err(error) => Err(error),
        }
    }

    /// Encrypts bytes behind what `out` holds; returns how many were taken.
    ///
    /// # Errors
    ///
    /// In TLS 1.2, where keys cannot be changed: they have been used for as many records as is safe (RFC 8446,
    /// section 5.5). A goodbye is in `out` then.
    pub(crate) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        self.flush(out);
        let before = out.len();
        let taken = self.tls.writer().write(plain)?;
        self.flush(out);
        // rustls says in place of it that nothing comes any more, or nothing at all, and takes it without a word.
        if taken > 0 && out.get(before) != Some(&u8::from(ContentType::ApplicationData)) {
            let what = "the keys of this connection have been used for as much as is safe: make another one";
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, what));
        }
        Ok(taken)
    }

    /// Puts what rustls wants to say behind what `out` holds.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) {
        while self.tls.wants_write() {
            self.tls.write_tls(out).expect("a vector takes everything");
        }
    }

    /// Says that nothing comes any more, once.
    pub(crate) fn say_goodbye(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.said_goodbye, true) {
            self.tls.send_close_notify();
            self.flush(out);
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Returns whether an end that the other side has not announced may have cut off what it says, and nobody
    /// else sees that: the answers of HTTP/1 may end with their connection, its requests and what is framed do not.
    pub(crate) fn may_be_cut_off(&self) -> bool {
        matches!(&*self.tls, Connection::Client(_)) && self.protocol() != Some(b"h2")
    }

    /// Returns the protocol that was agreed on.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// Returns what the handshake has come to.
    pub(crate) fn info(&self) -> TlsInfo {
        let server_name = match &*self.tls {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        };
        let version = self.tls.protocol_version();
        let suite = self.tls.negotiated_cipher_suite();
        let certificates = self.tls.peer_certificates().unwrap_or_default();
        let resumed = Some(rustls::HandshakeKind::Resumed);
        TlsInfo {
            version: match version {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "unknown",
            },
            cipher: suite
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("unknown"),
            protocol: self.protocol().map(<[u8]>::to_vec),
            server_name,
            peer_certificates: certificates.iter().map(der_of).collect(),
            is_resumed: self.tls.handshake_kind() == resumed,
        }
    }
}

fn der_of(certificate: &CertificateDer<'_>) -> Vec<u8> {
    certificate.as_ref().to_vec()
}

/// Shakes hands as a server. What came behind the handshake comes back.
pub(crate) async fn accept(
    tls: &ServerTls,
    stream: &Stream,
) -> io::Result<(Session, Option<Chunk>)> {
    let server = ServerConnection::new(Arc::clone(&tls.config()))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut session = Session::new(server.into());
    let rest = shake_hands(&mut session, stream).await?;
    Ok((session, rest))
}

/// Shakes hands. What came behind the handshake comes back.
pub(super) async fn shake_hands(
    session: &mut Session,
    stream: &Stream,
) -> io::Result<Option<Chunk>> {
    // rustls takes nothing while it has something to say: the rest of a chunk waits for that.
    let mut rest: Option<Chunk> = None;
    loop {
        let mut said = Vec::new();
        session.flush(&mut said);
        if !said.is_empty() {
            stream.send_all(said).await.0?;
        }
        if !session.is_handshaking() {
            return Ok(rest);
        }
        let received = match rest.take() {
            Some(rest) => Some(rest),
            None => stream.receive().await?,
        };
        let Some(mut chunk) = received else {
            return Err(gone());
        };
        let before = chunk.len();
        if let Err(error) = session.receive(&mut chunk) {
            // It is told why.
            let mut alert = Vec::new();
            session.flush(&mut alert);
            if !alert.is_empty() {
                let _ = stream.send_all(alert).await;
            }
            return Err(error);
        }
        if chunk.len() == before {
            // All was said, and still it takes nothing: the other side has said goodbye.
            return Err(gone());
        }
        rest = (!chunk.is_empty()).then_some(chunk);
    }
}

fn gone() -> io::Error {
    let what = "the other side went away before the handshake was over";
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::CryptoProvider;
    use rustls::sign::SingleCertAndKey;
    use rustls::{
        CipherSuite, CipherSuiteCommon, ClientConfig, ClientConnection, ServerConfig,
        SupportedCipherSuite, SupportedProtocolVersion, Tls12CipherSuite, Tls13CipherSuite,
    };
    use rustls_pki_types::ServerName;

    use super::super::server::roots_of;
    use super::super::{Identity, provider};
    use super::*;

    /// For how many records the keys of [`hasty`] are used.
    const RECORDS: u64 = 20;

    /// Algorithms whose keys are used up soon.
    fn hasty() -> Arc<CryptoProvider> {
        let mut provider = CryptoProvider::clone(&provider());
        let common = |common: &CipherSuiteCommon| CipherSuiteCommon {
            suite: common.suite,
            hash_provider: common.hash_provider,
            confidentiality_limit: RECORDS,
        };
        let wanted = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        let suites = &mut provider.cipher_suites;
        suites.retain(|suite| wanted.contains(&suite.suite()));
        for suite in suites {
            // For as long as the test runs.
            *suite = match *suite {
                SupportedCipherSuite::Tls12(known) => {
                    SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
                        common: common(&known.common),
                        ..*known
                    })))
                }
                SupportedCipherSuite::Tls13(known) => {
                    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                        common: common(&known.common),
                        ..*known
                    })))
                }
            };
        }
        Arc::new(provider)
    }

    /// A client, and a server that it has shaken hands with.
    fn pair(version: &'static SupportedProtocolVersion) -> (Session, ServerConnection) {
        let own = rcgen::generate_simple_self_signed(["site.test".to_owned()]);
        let own = own.expect("a certificate");
        let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes());
        let shown = SingleCertAndKey::from(identity.expect("both belong together").certified());
        let server = ServerConfig::builder_with_provider(hasty())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        let client = ClientConfig::builder_with_provider(hasty())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots_of(certificate.as_bytes()).expect("a root"))
            .with_no_client_auth();
        let name = ServerName::try_from("site.test").expect("a name");
        let client = ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut client = Session::new(client.into());
        let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
        while client.is_handshaking() || server.is_handshaking() {
            let mut said = Vec::new();
            client.flush(&mut said);
            hear(&mut server, &said);
            let mut back = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut back).expect("a vector");
            }
            let mut back = &back[..];
            while !back.is_empty() {
                client.tls.read_tls(&mut back).expect("there is room");
                client.tls.process_new_packets().expect("what was said");
            }
        }
        (client, server)
    }

    /// Lets a server hear this; returns what it makes of it, and whether that was the last.
    fn hear(server: &mut ServerConnection, mut said: &[u8]) -> (Vec<u8>, bool) {
        let mut heard = Vec::new();
        loop {
            let mut reader = server.reader();
            match reader.fill_buf() {
                Ok([]) => return (heard, true),
                Ok(bytes) => {
                    heard.extend_from_slice(bytes);
                    let count = bytes.len();
                    reader.consume(count);
                }
                Err(_) if said.is_empty() => return (heard, false),
                Err(_) => {
                    server.read_tls(&mut said).expect("there is room");
                    server.process_new_packets().expect("what was said");
                }
            }
        }
    }

    #[test]
    fn keys_that_are_used_up_are_changed_where_they_can_be() {
        let (mut client, mut server) = pair(&rustls::version::TLS13);
        for number in 0..10 * RECORDS {
            let word = number.to_ne_bytes();
            let (mut out, mut left) = (Vec::new(), &word[..]);
            while !left.is_empty() {
                let taken = client.send(left, &mut out).expect("it goes on");
                left = &left[taken..];
            }
            assert_eq!(hear(&mut server, &out), (word.to_vec(), false));
        }
    }

    #[test]
    fn keys_that_are_used_up_and_cannot_be_changed_are_the_end() {
        let (mut client, mut server) = pair(&rustls::version::TLS12);
        let mut sent = 0;
        let error = loop {
            let word = [sent; 2];
            let mut out = Vec::new();
            match client.send(&word, &mut out) {
                Ok(taken) => assert_eq!((taken, word.to_vec()), (2, hear(&mut server, &out).0)),
                Err(error) => {
                    assert_eq!(hear(&mut server, &out), (Vec::new(), true));
                    break error;
                }
            }
            sent += 1;
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
        assert!(u64::from(sent) < RECORDS && u64::from(sent) > RECORDS / 2);
        for _ in 0..3 {
            let mut out = Vec::new();
            client.send(b"more", &mut out).expect_err("it stays so");
            client.say_goodbye(&mut out);
            assert!(out.is_empty(), "it was said");
        }
    }
}
