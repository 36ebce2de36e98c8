//! HTTP/2 upon TLS: the same server, agreed on in the handshake, and the same bounds.

use std::net::TcpStream;
use std::sync::{Arc, LazyLock};

use quoit_net::http::Server;
use quoit_net::tls::{Identity, ServerTls};
use rcgen::CertifiedKey;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::Client;
use crate::codes::*;
use crate::servers::{answer, patient};

/// Who the server is, and what a client trusts.
static IDENTITY: LazyLock<(Identity, CertificateDer<'static>)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["site.test".to_owned()]);
    let CertifiedKey { cert, signing_key } = made.expect("a certificate");
    let (chain, key) = (cert.pem(), signing_key.serialize_pem());
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes());
    (identity.expect("both belong together"), cert.der().clone())
});

fn server() -> Server {
    let tls = ServerTls::new(IDENTITY.0.clone()).expect("an identity");
    patient().tls(tls).serve(answer).expect("a server")
}

/// Connects, with HTTP/2 agreed on.
fn connect(server: &Server, section: &'static str) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(IDENTITY.1.clone()).expect("a certificate");
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = "site.test".try_into().expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let wire = TcpStream::connect(server.local_addr()).expect("it listens");
    Client::over(Box::new(StreamOwned::new(session, wire)), section)
}

/// Frames are the same whatever carries them.
#[test]
fn s3_2_requests_are_answered_upon_tls() {
    let server = server();
    let mut client = connect(&server, "3.2");
    client.greet();
    client.post(1, "/echo").data(NONE, 1, b"en");
    client
        .data(END_STREAM, 1, b"crypted")
        .answers_with(1, "encrypted");
}

/// What was agreed on is HTTP/2: what is none is an error, and no HTTP/1.
#[test]
fn s3_4_invalid_preface_upon_tls_ends_the_connection() {
    let server = server();
    let mut client = connect(&server, "3.4");
    client.raw(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    // GOAWAY may be omitted. Its own settings it has said.
    while let Some(frame) = client.read() {
        assert!(matches!(frame.kind, SETTINGS | GOAWAY), "{client:?}");
    }
}

/// Floods are bounded upon TLS as well, in whatever pieces the frames come out of it.
#[test]
fn s10_5_pings_upon_tls() {
    let server = server();
    let mut client = connect(&server, "10.5");
    client.greet();
    client.flood(|| crate::client::frame(PING, NONE, 0, &[0; 8]));
}
