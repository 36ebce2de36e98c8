//! TLS: streams of both sides, and a server that speaks HTTP upon it.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join3};
use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use quoit::op::{Stream, nop};
use quoit::{CarriesCancelled, Scope, spawn};
use quoit_net::http::{Executor, Incoming, Io, Server, Trouble};
use quoit_net::tls::{ClientTls, Identity, ServerTls, TlsInfo, TlsStream};
use quoit_net::{TcpListener, TcpStream};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::SignatureScheme;
use tests::http_client::Client;
use tests::{bytes, on_core, on_ring, poll_once};

use crate::peers;
use crate::support::{Text, one_core, text};

/// Somebody who vouches for others.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        Self { issuer }
    }

    fn root(&self) -> Vec<u8> {
        self.issuer.pem().into_bytes()
    }

    /// Vouches for somebody of this name.
    fn identity(&self, name: &str) -> Identity {
        self.identity_of([name.to_owned()])
    }

    /// Vouches for somebody of these names.
    fn identity_of(&self, names: impl IntoIterator<Item = String>) -> Identity {
        self.identity_with(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    /// Vouches for somebody of these names, who has a key of this kind.
    fn identity_with(
        &self,
        names: impl IntoIterator<Item = impl Into<String>>,
        kind: &'static rcgen::SignatureAlgorithm,
    ) -> Identity {
        let key = KeyPair::generate_for(kind).expect("a key");
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("both belong together")
    }

    pub(crate) fn client(&self) -> ClientTls {
        ClientTls::trusting(&self.root()).expect("a root")
    }

    /// A client that can check no other signatures than these.
    fn client_that_knows(&self, kinds: Vec<SignatureScheme>) -> Arc<rustls::ClientConfig> {
        let mut provider = rustls::crypto::ring::default_provider();
        let known = &mut provider.signature_verification_algorithms;
        let kept = known
            .mapping
            .iter()
            .filter(|(kind, _)| kinds.contains(kind));
        // For as long as the test runs.
        known.mapping = Vec::leak(kept.copied().collect());
        let mut roots = rustls::RootCertStore::empty();
        let root = self.issuer.der().clone();
        roots.add(root).expect("a root");
        let config = rustls::ClientConfig::builder_with_provider(provider.into());
        let config = config.with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots);
        config.with_no_client_auth().into()
    }
}

const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

/// Keys take a while.
pub(crate) static OURS: LazyLock<Authority> = LazyLock::new(|| Authority::new("ours"));

pub(crate) fn server_tls() -> ServerTls {
    ServerTls::new(OURS.identity("site.test")).expect("an identity")
}

/// What both sides of a handshake got.
type Both = (io::Result<TlsStream>, io::Result<TlsStream>);

/// Shakes hands on this core; the server's outcome comes first.
async fn shake(server: &ServerTls, client: &ClientTls, name: &str) -> Both {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr();
    let server = server.clone();
    let accepting = spawn(async move { server.accept(listener.accept().await?).await });
    let stream = TcpStream::connect(address).await.expect("it listens");
    let connected = client.connect(name, stream).await;
    (accepting.await.expect("no panic"), connected)
}

async fn pair(server: &ServerTls, client: &ClientTls) -> (TlsStream, TlsStream) {
    let (ours, theirs) = shake(server, client, "site.test").await;
    (ours.expect("shaken"), theirs.expect("shaken"))
}

async fn exactly(stream: &TlsStream, size: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < size {
        let came = stream.recv().await.expect("more comes");
        assert!(!came.is_empty(), "the end after {} bytes", read.len());
        read.extend(came);
    }
    read
}

#[test]
fn bytes_go_both_ways_and_each_side_hears_the_end() {
    on_core(|_| async {
        let (ours, theirs) = pair(&server_tls(), &OURS.client()).await;
        let (ours, theirs) = (Rc::new(ours), Rc::new(theirs));
        let sent = bytes(700_000, 1);
        let (writer, all) = (Rc::clone(&theirs), sent.clone());
        let writing = spawn(async move {
            writer.write_all(&all).await?;
            writer.shutdown().await
        });
        assert!(exactly(&ours, sent.len()).await == sent);
        assert_eq!(ours.recv().await.expect("the end"), b"");
        writing.await.expect("no panic").expect("all was taken");
        ours.write_all(b"and back").await.expect("this way is open");
        assert_eq!(exactly(&theirs, 8).await, b"and back");
    });
}

#[test]
fn a_cancelled_scope_is_not_told_of_an_end_that_lies_there() {
    on_core(|_| async {
        let (ours, theirs) = pair(&server_tls(), &OURS.client()).await;
        theirs.shutdown().await.expect("connected");
        assert_eq!(ours.recv().await.expect("the end"), b"");
        let scope = Scope::new();
        let asked = scope.run(async {
            scope.cancel();
            ours.recv().await
        });
        assert!(asked.await.expect("no failure").is_none());
        assert_eq!(ours.recv().await.expect("the end"), b"");
    });
}

#[test]
fn an_end_that_nobody_has_said_is_no_end() {
    on_core(|_| async {
        let server = server_tls();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr();
        let accepting = spawn(async move { server.accept(listener.accept().await?).await });
        let stream = TcpStream::connect(address).await.expect("it listens");
        let theirs = OURS
            .client()
            .connect("site.test", stream)
            .await
            .expect("shaken");
        let ours = accepting.await.expect("no panic").expect("shaken");
        theirs.write_all(b"half of").await.expect("sent");
        drop(theirs);
        assert_eq!(exactly(&ours, 7).await, b"half of");
        let error = ours.recv().await.expect_err("it was cut off");
        assert!(
            matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ),
            "{error}"
        );
    });
}

#[test]
fn who_is_not_trusted_or_another_is_refused_with_the_cause() {
    on_core(|_| async {
        let strangers = Authority::new("strangers");
        let (ours, theirs) = shake(&server_tls(), &strangers.client(), "site.test").await;
        let error = theirs.expect_err("nobody vouches for it");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        assert!(
            matches!(cause, Some(rustls::Error::InvalidCertificate(_))),
            "{error}"
        );
        let told = ours.expect_err("the client went away");
        let cause = told.get_ref().and_then(|cause| cause.downcast_ref());
        assert!(
            matches!(cause, Some(rustls::Error::AlertReceived(_))),
            "{told}"
        );

        let (_, theirs) = shake(&server_tls(), &OURS.client(), "another.test").await;
        let error = theirs.expect_err("its certificate is for another name");
        assert!(error.to_string().contains("not valid for name"), "{error}");

        let (_, theirs) = shake(&server_tls(), &OURS.client(), "no name").await;
        let error = theirs.expect_err("a name has no space");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn each_name_has_its_certificate_and_they_can_be_replaced() {
    on_core(|_| async {
        let server = server_tls().also(OURS.identity("other.test"));
        let client = OURS.client();
        for name in ["site.test", "other.test"] {
            let (ours, theirs) = shake(&server, &client, name).await;
            assert_eq!(
                ours.expect("shaken").info().server_name.as_deref(),
                Some(name)
            );
            theirs.expect("it is who it should be");
        }
        let (old, open) = pair(&server, &client).await;
        let newer = OURS.identity("site.test");
        let before = open.info().peer_certificates;
        server
            .certificates()
            .replace(vec![newer])
            .expect("one at least");
        let fresh = OURS.client();
        let (_, theirs) = shake(&server, &fresh, "site.test").await;
        assert_ne!(theirs.expect("shaken").info().peer_certificates, before);
        let (_, gone) = shake(&server, &fresh, "other.test").await;
        gone.expect_err("there is none for this name any more");
        open.write_all(b"still").await.expect("what is open stays");
        assert_eq!(exactly(&old, 5).await, b"still");
        let none = server.certificates().replace(Vec::new());
        assert_eq!(none.expect_err("none").kind(), io::ErrorKind::InvalidInput);
    });
}

/// Of certificates for one name: whoever knows newer kinds of keys sees one, and who does not, sees the other.
#[test]
fn a_client_sees_a_certificate_that_it_can_check() {
    let newer = OURS.identity_with(["site.test"], &rcgen::PKCS_ED25519);
    let older = OURS.identity_with(["site.test"], &rcgen::PKCS_ECDSA_P256_SHA256);
    let server = ServerTls::new(newer).expect("an identity").also(older);
    on_ring(|_| async move {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr();
        for (kinds, chosen) in [
            (
                vec![SignatureScheme::ED25519, ECDSA],
                SignatureScheme::ED25519,
            ),
            (vec![ECDSA], ECDSA),
        ] {
            let client = OURS.client_that_knows(kinds);
            let server = server.clone();
            let shaking = quoit::blocking::run(move |_| {
                let mut stream = std::net::TcpStream::connect(address)?;
                let name = "site.test".try_into().expect("a name");
                let mut client = rustls::ClientConnection::new(client, name).expect("a client");
                while client.is_handshaking() {
                    client.complete_io(&mut stream)?;
                }
                let shown = client.peer_certificates().expect("it was shown one");
                Ok::<_, io::Error>(shown[0].to_vec())
            });
            let accepting = async { server.accept(listener.accept().await?).await };
            let (shown, accepted) = join(shaking, accepting).await;
            accepted.expect("they agree");
            let shown = shown.expect("no panic").expect("they agree");
            // The key says of itself what it is for (RFC 8410, section 3; RFC 5480, section 2.1.1.1).
            let kind: &[u8] = match chosen {
                ECDSA => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
                _ => &[0x2b, 0x65, 0x70],
            };
            let has = shown.windows(kind.len()).any(|part| part == kind);
            assert!(has, "{chosen:?}");
        }
    });
}

#[test]
fn a_server_may_want_to_know_its_clients() {
    on_core(|_| async {
        let theirs = Authority::new("theirs");
        let known = theirs.identity("client.test");
        let wants = server_tls()
            .require_client_certificates(&theirs.root())
            .expect("a root");
        let (ours, shaken) =
            shake(&wants, &OURS.client().identity(known.clone()), "site.test").await;
        assert_eq!(ours.expect("it is known").info().peer_certificates.len(), 1);
        shaken.expect("so is the server");

        let (ours, _) = shake(&wants, &OURS.client(), "site.test").await;
        let error = ours.expect_err("it shows none");
        assert!(error.to_string().contains("no certificates"), "{error}");
        let unknown = OURS.identity("client.test");
        let (ours, _) = shake(&wants, &OURS.client().identity(unknown), "site.test").await;
        ours.expect_err("nobody vouches for it");

        let asks = server_tls()
            .request_client_certificates(&theirs.root())
            .expect("a root");
        let (ours, _) = shake(&asks, &OURS.client(), "site.test").await;
        assert!(
            ours.expect("none is fine")
                .info()
                .peer_certificates
                .is_empty()
        );
    });
}

#[test]
fn a_session_is_resumed() {
    on_core(|_| async {
        let (server, client) = (server_tls(), OURS.client());
        let mut resumed = Vec::new();
        for _ in 0..2 {
            let (ours, theirs) = pair(&server, &client).await;
            resumed.push((ours.info().is_resumed, theirs.info().is_resumed));
            // The ticket comes with the first bytes.
            ours.write_all(b"hello").await.expect("sent");
            exactly(&theirs, 5).await;
        }
        assert_eq!(resumed, [(false, false), (true, true)]);
    });
}

#[test]
fn a_write_that_is_given_up_half_way_is_the_last() {
    on_core(|_| async {
        let (ours, _theirs) = pair(&server_tls(), &OURS.client()).await;
        // Nobody reads it, so that sooner or later a deadline comes in the middle of a write. One that
        // comes between two has broken nothing.
        let error = loop {
            let scope = Scope::new().timeout(Duration::from_millis(20));
            match scope.run(ours.write_all(&[7; 500_000])).await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let again = ours.write_all(b"more").await;
        let again = again.expect_err("it cannot be understood");
        assert_eq!(again.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn writes_of_several_tasks_do_not_mix_however_long_they_are() {
    on_core(|_| async {
        let (ours, theirs) = pair(&server_tls(), &OURS.client()).await;
        let (long, short) = (bytes(1 << 20, 5), *b"and short");
        let mut first = Box::pin(ours.write_all(&long));
        assert!(poll_once(first.as_mut()).await.is_pending());
        let mut second = Box::pin(ours.write_all(&short));
        assert!(poll_once(second.as_mut()).await.is_pending());
        let mut ending = Box::pin(ours.shutdown());
        assert!(poll_once(ending.as_mut()).await.is_pending());
        let reading = async {
            let mut read = Vec::new();
            loop {
                match theirs.recv().await.expect("an orderly end") {
                    end if end.is_empty() => return read,
                    came => read.extend(came),
                }
            }
        };
        let (sent, read) = join(join3(first, second, ending), reading).await;
        sent.0.and(sent.1).and(sent.2).expect("all was taken");
        assert!(read == [&long[..], &short].concat());
    });
}

/// A cancel that comes between two pieces finds nothing in the kernel that it could break.
#[test]
fn a_write_that_is_refused_between_two_of_its_pieces_is_the_last() {
    on_core(|_| async {
        let (ours, _theirs) = pair(&server_tls(), &OURS.client()).await;
        let scope = Scope::new();
        let written = scope.run(async {
            let all = vec![7; 1 << 20];
            let mut writing = Box::pin(ours.write_all(&all));
            assert!(poll_once(writing.as_mut()).await.is_pending());
            // What the socket takes of it has gone out.
            nop().await?;
            scope.cancel();
            writing.await
        });
        assert!(written.await.expect("no failure").is_none());
        let again = ours.write_all(b"more").await;
        let again = again.expect_err("nobody knows where the first one ended");
        assert_eq!(again.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_cancelled_scope_writes_nothing_not_even_no_bytes() {
    on_core(|_| async {
        let (ours, theirs) = pair(&server_tls(), &OURS.client()).await;
        let scope = Scope::new();
        scope.cancel();
        let written = scope.run(ours.write_all(b"")).await;
        assert!(written.expect("no failure").is_none());
        ours.write_all(b"").await.expect("nothing is wrong");
        ours.write_all(b"kept").await.expect("nor here");
        assert_eq!(exactly(&theirs, 4).await, b"kept");
    });
}

/// The peer has gone, so it cannot be told why.
#[test]
fn what_was_not_understood_is_told_by_its_cause_also_where_the_peer_has_gone() {
    on_ring(|_| async {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let connecting = TcpStream::connect(listener.local_addr()).await;
        let theirs = Stream::from(connecting.expect("it listens"));
        let ours = Stream::from(listener.accept().await.expect("it connects"));
        let (our_fd, their_fd) = (ours.fd(), theirs.fd());
        let server = server_tls();
        let accepting = spawn(async move { server.accept(ours).await });
        let client = OURS.client().connect("site.test", theirs).await;
        let theirs = client.expect("shaken");
        let ours = accepting.await.expect("no panic").expect("shaken");
        theirs.write_all(b"word").await.expect("connected");
        assert_eq!(exactly(&ours, 4).await, b"word");

        let beside = Stream::new(their_fd);
        beside.send_all("no record").await.0.expect("connected");
        let linger = beside.with_socket(|socket| socket.set_linger(Some(Duration::ZERO)));
        linger.expect("a socket").expect("it resets");
        quoit::op::close(beside.fd()).await.expect("open");
        let gone = quoit::op::poll(&our_fd, libc::POLLHUP as u32).await;
        gone.expect("it has heard of the reset");
        let error = ours.recv().await.expect_err("it is no record");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    });
}

#[test]
fn a_cancelled_scope_loses_no_record() {
    on_core(|_| async {
        let (ours, theirs) = pair(&server_tls(), &OURS.client()).await;
        let scope = Scope::new();
        scope.cancel();
        let body = async {
            let refused = ours.write_all(b"lost").await.expect_err("it is cancelled");
            assert!(refused.cancelled().is_some());
            let refused = ours.recv().await.expect_err("it is cancelled");
            assert!(refused.cancelled().is_some());
            ours.shutdown().await
        };
        assert!(scope.run(body).await.expect("it is the scope's").is_none());
        ours.write_all(b"kept")
            .await
            .expect("as if nothing had been");
        assert_eq!(exactly(&theirs, 4).await, b"kept");
    });
}

// --- HTTP ---

/// Says by which protocol it was asked.
fn site(tls: ServerTls) -> Server {
    let server = one_core()
        .tls(tls)
        .serve(|request: Request<Incoming>| async move {
            let peer = request.body().peer();
            let tls: &TlsInfo = peer.tls.as_ref().expect("it is encrypted");
            text(format!(
                "{:?} {} {:?}",
                request.version(),
                tls.version,
                tls.server_name
            ))
        });
    server.expect("a server")
}

async fn connect(address: SocketAddr, protocols: &[&[u8]]) -> io::Result<TlsStream> {
    let client = OURS.client().protocols(protocols);
    client
        .connect("site.test", TcpStream::connect(address).await?)
        .await
}

#[test]
fn a_client_speaks_what_it_offers() {
    let server = site(server_tls());
    let address = server.local_addr();
    on_ring(move |_| async move {
        for protocols in [&[b"http/1.1" as &[u8]][..], &[]] {
            let stream = connect(address, protocols).await.expect("shaken");
            let (mut sender, connection) = http1::handshake(Io::tls(stream))
                .await
                .expect("no bytes yet");
            let _connection = spawn(connection);
            for _ in 0..3 {
                let answer = sender.send_request(peers::get(address, "/")).await;
                let text = peers::whole(answer.expect("an answer")).await;
                assert_eq!(text, "HTTP/1.1 TLSv1.3 Some(\"site.test\")");
            }
        }
        let stream = connect(address, &[b"h2", b"http/1.1"])
            .await
            .expect("shaken");
        assert_eq!(stream.info().protocol.as_deref(), Some(&b"h2"[..]));
        let (mut sender, connection) = http2::handshake(Executor, Io::tls(stream))
            .await
            .expect("a preface can be sent");
        let _connection = spawn(connection);
        let answer = sender.send_request(peers::get(address, "/")).await;
        let text = peers::whole(answer.expect("an answer")).await;
        assert_eq!(text, "HTTP/2.0 TLSv1.3 Some(\"site.test\")");
        let error = connect(address, &[b"spdy/3"])
            .await
            .expect_err("nobody speaks that");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn a_large_answer_and_a_large_request_are_whole() {
    let server = one_core()
        .tls(server_tls())
        .serve(|request: Request<Incoming>| async move {
            let body = request.into_body().collect().await?;
            Ok::<Text, io::Error>(http::Response::new(body.to_bytes().into()))
        });
    let server = server.expect("a server");
    let address = server.local_addr();
    on_ring(move |_| async move {
        let sent = Bytes::from(bytes(3_000_000, 9));
        for protocol in [&b"http/1.1"[..], b"h2"] {
            let stream = Io::tls(connect(address, &[protocol]).await.expect("shaken"));
            let body = http_body_util::Full::new(sent.clone());
            let request = peers::request(address, "/", body);
            let answer = if protocol == b"h2" {
                let (mut sender, connection) =
                    http2::handshake(Executor, stream).await.expect("a preface");
                drop(spawn(connection));
                sender.send_request(request).await
            } else {
                let (mut sender, connection) = http1::handshake(stream).await.expect("no bytes");
                drop(spawn(connection));
                sender.send_request(request).await
            };
            assert!(peers::whole(answer.expect("an answer")).await == sent);
        }
    });
}

#[test]
fn who_does_not_speak_tls_is_let_go_and_the_owner_told() {
    let (said, heard) = mpsc::channel();
    let server = one_core()
        .tls(server_tls())
        .on_trouble(move |trouble| match trouble {
            Trouble::Connection { error, .. } => said.send(error.to_string()).expect("heard"),
            other => panic!("{other}"),
        })
        .serve(|_| async { text("well") })
        .expect("a server");
    let client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    let mut alert = Vec::new();
    // Or the bytes that it had no use for make the kernel reset the connection.
    let _ = client.into_socket().read_to_end(&mut alert);
    let what = heard.recv().expect("it is told");
    assert!(what.contains("corrupt message"), "{what}");
}

#[test]
fn a_handshake_that_never_comes_is_waited_for_no_longer_than_a_head() {
    let server = one_core()
        .tls(server_tls())
        .head_timeout(Duration::from_millis(50))
        .serve(|_| async { text("well") })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ends();
}

#[test]
fn a_server_with_tls_drains() {
    let server = site(server_tls());
    let address = server.local_addr();
    let report = on_ring(move |_| async move {
        let stream = connect(address, &[b"http/1.1"]).await.expect("shaken");
        let (mut sender, connection) = http1::handshake(Io::tls(stream))
            .await
            .expect("no bytes yet");
        let connection = spawn(connection);
        let answer = sender.send_request(peers::get(address, "/")).await;
        assert_eq!(answer.expect("an answer").status(), 200);
        let report = quoit::blocking::run(move |_| server.shutdown(Duration::from_secs(5)));
        let report = report.await.expect("it ran").expect("it stops");
        connection
            .await
            .expect("no panic")
            .expect("it was closed in order");
        report
    });
    assert_eq!((report.finished, report.cut), (1, 0));
}

#[test]
fn a_handshake_whose_flight_is_larger_than_one_read_of_it_is_whole_before_it_is_told() {
    on_core(|_| async {
        let names = (0..200).map(|n| format!("number-{n}-of-very-many.site.test"));
        let identity = OURS.identity_of(std::iter::once("site.test".to_owned()).chain(names));
        let server = ServerTls::new(identity).expect("an identity");
        // It trusts somebody else: nothing may come of this.
        let stranger = Authority::new("theirs").client();
        let (_, connected) = shake(&server, &stranger, "site.test").await;
        let error = connected.expect_err("nobody it knows has vouched for the server");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let (ours, theirs) = pair(&server, &OURS.client()).await;
        assert_eq!(ours.info().version, theirs.info().version);
        assert_eq!(theirs.info().peer_certificates.len(), 1);
        // Its own bytes go out, though it reads nothing.
        theirs.write_all(b"hello").await.expect("sent");
        assert_eq!(exactly(&ours, 5).await, b"hello");
    });
}

#[test]
fn what_is_not_understood_is_answered_with_a_date() {
    let server = site(server_tls());
    let address = server.local_addr();
    on_ring(move |_| async move {
        let stream = connect(address, &[b"http/1.1"]).await.expect("shaken");
        let sent = stream.write_all(b"GET / HTTP/1.1\r\nno colon\r\n\r\n");
        sent.await.expect("it is taken");
        let mut answer = Vec::new();
        loop {
            let came = stream.recv().await.expect("an orderly end");
            if came.is_empty() {
                break;
            }
            answer.extend(came);
        }
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.ends_with(" GMT\r\n\r\n"), "{answer}");
        assert_eq!(answer.matches("\r\ndate: ").count(), 1, "{answer}");
    });
}
