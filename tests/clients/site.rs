//! What the clients meet: a server on two cores, in the clear or with TLS.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use quoit::sync::Event;
use quoit::{CoreId, Cores, Handle, on};
use quoit_net::http::body::{self, EventSender};
use quoit_net::http::{Incoming, Server};
use quoit_net::tls::{Identity, ServerTls};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

/// A server, and what its handlers say.
///
/// | path | |
/// |---|---|
/// | `/hello` | a word |
/// | `/echo` | what was sent, once all of it is here |
/// | `/mirror` | what was sent, while it comes |
/// | `/large` | [`LARGE`] bytes, made while they are sent |
/// | `/events` | three events, and the end |
/// | `/news` | an event, and then nothing until the client goes |
/// | `/wait` | no answer: waits on both cores until it is cancelled |
#[derive(Debug)]
pub(crate) struct Site {
    server: Server,
    secrets: Option<TempDir>,
    heard: Receiver<String>,
}

/// How much a large answer is: more than fits into any socket.
pub(crate) const LARGE: usize = 32 << 20;
const PIECE: usize = 64 << 10;

type Answer = Response<Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

impl Site {
    pub(crate) fn in_the_clear() -> Self {
        Self::serving(None)
    }

    /// With a certificate of its own for `localhost`.
    pub(crate) fn with_tls() -> Self {
        let secrets = tempfile::tempdir().expect("a folder");
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(secrets.path().join("cert.pem"), cert.pem()).expect("a new file");
        let key = signing_key.serialize_pem();
        fs::write(secrets.path().join("key.pem"), key).expect("a new file");
        Self::serving(Some(secrets))
    }

    fn serving(secrets: Option<TempDir>) -> Self {
        let (said, heard) = mpsc::channel();
        let mut server = Server::bind("127.0.0.1:0")
            .cores(Cores::Count(2))
            .head_timeout(LONG)
            .stall_timeout(LONG);
        if let Some(secrets) = &secrets {
            let file = |name| secrets.path().join(name);
            let identity = Identity::from_files(file("cert.pem"), file("key.pem"));
            let tls = ServerTls::new(identity.expect("both belong together"));
            server = server.tls(tls.expect("a certificate"));
        }
        let server = server.serve(move |request| answer(request, said.clone()));
        Self {
            server: server.expect("a free port"),
            secrets,
            heard,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// The URL of a path; with TLS, under the name of the certificate.
    pub(crate) fn url(&self, path: &str) -> String {
        match self.secrets {
            Some(_) => format!("https://localhost:{}{path}", self.address().port()),
            None => format!("http://{}{path}", self.address()),
        }
    }

    /// The file of the certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        let secrets = self.secrets.as_ref().expect("it speaks TLS");
        secrets.path().join("cert.pem")
    }

    /// Waits for what handlers say, in any order.
    pub(crate) fn hear(&self, count: usize) -> Vec<String> {
        let mut said: Vec<_> = self.heard.iter().take(count).collect();
        said.sort();
        said
    }

    /// Waits until no connection is open.
    pub(crate) fn is_left(&self) {
        let handle = self.server.handle();
        tests::http_client::until(|| handle.open_connections() == 0);
    }
}

async fn answer(request: Request<Incoming>, said: Sender<String>) -> Result<Answer, BoxError> {
    Ok(match request.uri().path() {
        "/hello" => whole("hello\n"),
        "/echo" => whole(request.into_body().collect().await?.to_bytes()),
        "/mirror" => Response::new(Box::pin(request.into_body().map_err(BoxError::from))),
        "/large" => Response::new(Box::pin(body::stream(async |sender: body::Sender| {
            for place in 0..LARGE / PIECE {
                sender.send(vec![place as u8; PIECE]).await?;
            }
            Ok::<_, io::Error>(())
        }))),
        "/events" => boxed(body::events(async |sender: EventSender| {
            for count in 1..=3 {
                let event = body::Event::new(format!("{count}\nof three")).name("count");
                sender.send(event.id(count.to_string())).await?;
            }
            Ok::<_, io::Error>(())
        })),
        "/news" => boxed(body::events(async move |sender: EventSender| {
            sender.send(body::Event::new("first")).await?;
            wait_in_vain(said, "news").await
        })),
        "/wait" => {
            say(&said, "begun");
            let here = CoreId::current().expect("on a core");
            let cores = Handle::current().expect("on a core").cores();
            let there = cores.into_iter().find(|&core| core != here);
            let elsewhere = said.clone();
            let call = on(there.expect("two"), || wait_in_vain(elsewhere, "elsewhere"));
            let ended: io::Result<()> = call.await;
            ended.expect_err("it waits in vain");
            wait_in_vain(said, "here").await?;
            unreachable!("it waits in vain")
        }
        _ => {
            let mut answer = whole("there is nothing\n");
            *answer.status_mut() = StatusCode::NOT_FOUND;
            answer
        }
    })
}

fn whole(bytes: impl Into<Bytes>) -> Answer {
    boxed(Response::new(Full::new(bytes.into())))
}

fn boxed(answer: Response<impl Body<Data = Bytes, Error: Into<BoxError>> + 'static>) -> Answer {
    answer.map(|body| Box::pin(body.map_err(Into::into)) as _)
}

/// Waits for something that never comes, and says why it ended.
async fn wait_in_vain(said: Sender<String>, who: &str) -> io::Result<()> {
    let cancelled = Event::new().wait().await.expect_err("it never happens");
    say(&said, &format!("{who}: {:?}", cancelled.reason()));
    Err(cancelled.into())
}

fn say(said: &Sender<String>, what: &str) {
    said.send(what.to_owned()).expect("a test listens");
}
