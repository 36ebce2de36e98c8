//! The other side of a client, by hand: it accepts, reads, and says what it is told.

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::LazyLock;

use quoit::{Cancelled, CarriesCancelled, Group, JoinHandle, group, spawn};
use quoit_net::tls::{ClientTls, Identity, ServerTls, TlsStream};
use quoit_net::{TcpListener, TcpStream};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};

/// Listens, and accepts one connection after the other.
#[derive(Debug)]
pub(crate) struct Host {
    listener: TcpListener,
    tls: Option<ServerTls>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").expect("a free port"),
            tls: None,
        }
    }

    /// Speaks TLS, and these protocols; it is `site.test`.
    pub(crate) fn encrypted(protocols: &[&[u8]]) -> Self {
        let tls = server_tls();
        Self {
            tls: Some(tls.protocols(protocols).expect("names")),
            ..Self::new()
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Returns a URL of this host.
    pub(crate) fn url(&self) -> String {
        match self.tls {
            None => format!("http://{}/", self.address()),
            Some(_) => "https://site.test/".to_owned(),
        }
    }

    pub(crate) async fn accept(&self) -> Peer {
        self.try_accept().await.expect("nobody cancels")
    }

    async fn try_accept(&self) -> Result<Peer, Cancelled> {
        loop {
            let accepted = self.listener.accept().await;
            let stream = match accepted.map_err(|error| (error.cancelled(), error)) {
                Ok(stream) => stream,
                Err((Some(cancelled), _)) => return Err(cancelled),
                Err((None, error)) => panic!("a listener goes on: {error}"),
            };
            let wire = match &self.tls {
                None => Wire::Plain(stream),
                // Who does not like the certificate goes away.
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => Wire::Encrypted(Box::new(stream)),
                    Err(error) => match error.cancelled() {
                        Some(cancelled) => return Err(cancelled),
                        None => continue,
                    },
                },
            };
            return Ok(Peer {
                wire,
                early: Vec::new(),
            });
        }
    }

    /// Serves each connection, which `serve` gets with its number, until the task is cancelled.
    pub(crate) fn serve<F>(self, serve: impl Fn(usize, Peer) -> F + 'static) -> JoinHandle<()>
    where
        F: Future<Output = ()> + 'static,
    {
        spawn(async move {
            let served = group(async |peers: Group<Cancelled>| {
                for number in 0.. {
                    let peer = self.try_accept().await?;
                    let serving = serve(number, peer);
                    drop(peers.spawn(async move {
                        serving.await;
                        Ok(())
                    }));
                }
                Ok(())
            });
            let _ = served.await;
            self.listener.finish().await;
        })
    }
}

/// Ends what [`Host::serve`] has started.
pub(crate) async fn end_of(serving: JoinHandle<()>) {
    serving.cancel();
    // Cancelled, or ended by itself.
    let _ = serving.await;
}

enum Wire {
    Plain(TcpStream),
    Encrypted(Box<TlsStream>),
}

/// One connection, seen from the server.
pub(crate) struct Peer {
    wire: Wire,
    early: Vec<u8>,
}

impl Peer {
    /// Waits for the head of a request; `None` if the connection ends before one.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            let end = self.early.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.early.drain(..end + 4).collect();
                return Some(String::from_utf8(head).expect("heads are text"));
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// Waits for so many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.early.len() < count {
            if !self.receive().await {
                return None;
            }
        }
        Some(self.early.drain(..count).collect())
    }

    /// Waits until more has come; false at the end, or if the test is over.
    async fn receive(&mut self) -> bool {
        let came = match &self.wire {
            Wire::Plain(stream) => stream
                .recv()
                .await
                .map(|chunk| chunk.map(|chunk| chunk.to_vec())),
            Wire::Encrypted(stream) => stream
                .recv()
                .await
                .map(|bytes| (!bytes.is_empty()).then_some(bytes)),
        };
        match came {
            Ok(Some(bytes)) => {
                self.early.extend_from_slice(&bytes);
                true
            }
            Ok(None) => false,
            Err(error) => {
                let is_end = matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
                );
                assert!(
                    is_end || error.cancelled().is_some(),
                    "a connection fails by its end alone: {error}"
                );
                false
            }
        }
    }

    /// Says this; false if the client has gone.
    pub(crate) async fn say(&self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        match &self.wire {
            Wire::Plain(stream) => stream.write_all(bytes.to_vec()).await.0.is_ok(),
            Wire::Encrypted(stream) => stream.write_all(bytes).await.is_ok(),
        }
    }

    /// Answers with 200 and this text.
    pub(crate) async fn answer(&self, text: &str) {
        let length = text.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}");
        self.say(answer).await;
    }

    /// Waits until the client has closed the connection; what it said before is thrown away.
    pub(crate) async fn end(mut self) {
        while self.receive().await {
            self.early.clear();
        }
    }

    /// Waits until the client has closed the connection; returns whether it has said so: over TLS by
    /// `close_notify`, else by an end that is no reset.
    pub(crate) async fn farewell(self) -> bool {
        loop {
            match &self.wire {
                Wire::Plain(stream) => match stream.recv().await {
                    Ok(Some(_)) => {}
                    ended => return ended.is_ok(),
                },
                Wire::Encrypted(stream) => match stream.recv().await {
                    Ok(bytes) if !bytes.is_empty() => {}
                    ended => return ended.is_ok(),
                },
            }
        }
    }

    /// Ends this side, and says so if that can be said.
    pub(crate) async fn goodbye(&self) {
        let ended = match &self.wire {
            Wire::Plain(stream) => stream.shutdown(Shutdown::Write),
            Wire::Encrypted(stream) => stream.shutdown().await,
        };
        ended.expect("the client is there");
    }

    /// Answers every request with its number on this connection, from 0.
    pub(crate) async fn count(mut self) {
        let mut number = 0;
        while self.head().await.is_some() {
            self.answer(&number.to_string()).await;
            number += 1;
        }
    }
}

/// Who vouches for `site.test`, and for nobody else. Keys take a while.
static ISSUER: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(|| {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate")
});

/// The certificate and the key of `site.test`.
pub(crate) fn site_pem() -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["site.test".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &*ISSUER).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

fn site() -> Identity {
    let (certificate, key) = site_pem();
    Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("both belong together")
}

/// A server that is `site.test`.
pub(crate) fn server_tls() -> ServerTls {
    ServerTls::new(site()).expect("an identity")
}

/// A client that trusts whoever vouches for `site.test`.
pub(crate) fn trusting() -> ClientTls {
    ClientTls::trusting(ISSUER.pem().as_bytes()).expect("a root")
}
