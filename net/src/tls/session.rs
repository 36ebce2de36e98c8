//! rustls, driven: what comes in as bytes of the network and goes out as such.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use quoit::buf::Chunk;
use quoit::op::Stream;
use rustls::{Connection, ProtocolVersion, ServerConnection};
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
    pub(crate) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let taken = self.tls.writer().write(plain)?;
        self.flush(out);
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
