//! What clients here say and hear, byte by byte: over TCP, or over TLS upon it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A server that says nothing for so long has failed. Longer than any takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What carries the bytes.
pub(crate) trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// Connects; an answer that never comes is an error in the end.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A client's side of TLS that trusts one certificate, and offers these protocols.
pub(crate) fn client_of(certificate: &str, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate =
        CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// Puts TLS upon a connection; the handshake comes with the first bytes.
pub(crate) fn over_tls(
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("site.test").expect("a name");
    let client = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
    StreamOwned::new(client, stream)
}

/// A client of HTTP/1.1 that keeps its connection, and demands that each answer is the right one.
pub(crate) struct Client {
    wire: Box<dyn Wire>,
    ahead: Vec<u8>,
}

impl Client {
    /// Speaks over what is connected already.
    pub(crate) fn over(wire: impl Wire + 'static) -> Self {
        Self {
            wire: Box::new(wire),
            ahead: Vec::new(),
        }
    }

    /// Asks for an echo of so many bytes, and reads it.
    pub(crate) fn echo(&mut self, bytes: usize) {
        let body = vec![b'e'; bytes];
        self.post("/echo", &body);
        assert!(self.answer() == (200, body), "the echo is another");
    }

    /// Sends so many bytes, to be counted.
    pub(crate) fn give(&mut self, bytes: usize) {
        self.post("/count", &vec![b'g'; bytes]);
    }

    /// Reads that so many bytes came.
    pub(crate) fn is_counted(&mut self, bytes: usize) {
        let counted = bytes.to_string().into_bytes();
        assert_eq!(self.answer(), (200, counted), "not all came");
    }

    fn post(&mut self, path: &str, body: &[u8]) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        self.wire.write_all(&request).expect("the server takes it");
        self.wire.flush().expect("the server takes it");
    }

    /// Reads an answer: its status and body.
    fn answer(&mut self) -> (u16, Vec<u8>) {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more();
        };
        let head = String::from_utf8_lossy(&self.ahead[..end]).to_ascii_lowercase();
        self.ahead.drain(..end);
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{head:?} begins no answer"));
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length
            .and_then(|length| length.parse().ok())
            .unwrap_or_else(|| panic!("no end is given: {head:?}"));
        while self.ahead.len() < length {
            self.more();
        }
        let rest = self.ahead.split_off(length);
        (status, std::mem::replace(&mut self.ahead, rest))
    }

    fn more(&mut self) {
        let mut part = vec![0; 16 * 1024];
        let count = self.wire.read(&mut part).expect("an answer");
        assert_ne!(count, 0, "the server hung up on an honest client");
        self.ahead.extend_from_slice(&part[..count]);
    }
}

/// Returns whether an error says no more than that nothing can be done now.
pub(crate) fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
