//! What is behind nginx: a server of ours, which answers as the other partners do (`partners/server.mjs`).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use quoit::Cores;
use quoit::time::sleep;
use quoit_net::http::body::{self, Sender};
use quoit_net::http::{Incoming, Server, Upgraded, upgrade};

use crate::asker::{adler32, much};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>>;

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(crate) struct Upstream(Server);

impl Upstream {
    pub(crate) fn start() -> Self {
        let cuts = Arc::new(AtomicUsize::new(0));
        let server = Server::bind("127.0.0.1:0")
            .cores(Cores::Count(1))
            .head_timeout(LONG)
            .stall_timeout(LONG)
            .serve(move |request| answer(request, Arc::clone(&cuts)));
        Self(server.expect("a free port"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr()
    }

    pub(crate) fn end(self) {
        // What hangs is given up.
        let _ = self.0.shutdown(Duration::ZERO);
    }
}

fn whole(body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {});
    Response::new(Box::pin(body))
}

async fn all_of(request: Request<Incoming>) -> Result<Bytes, BoxError> {
    // Many MiB come from the tests.
    Ok(request.into_body().collect().await?.to_bytes())
}

async fn echo(stream: Upgraded) {
    while let Ok(Some(bytes)) = stream.recv().await {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn answer(request: Request<Incoming>, cuts: Arc<AtomicUsize>) -> Result<Answer, BoxError> {
    let unnumbered = HeaderValue::from_static("");
    let number = request.headers().get("x-number").unwrap_or(&unnumbered);
    let number = number.clone();
    let mut answer = answer_to(request, number.to_str()?.to_owned(), cuts).await?;
    answer.headers_mut().insert("x-number", number);
    Ok(answer)
}

async fn answer_to(
    mut request: Request<Incoming>,
    number: String,
    cuts: Arc<AtomicUsize>,
) -> Result<Answer, BoxError> {
    let path = request.uri().path().to_owned();
    Ok(match &*path {
        "/hello" => whole(format!("hello {number}")),
        "/slow" => {
            sleep(Duration::from_millis(5)).await?;
            whole(format!("hello {number}"))
        }
        // nginx sends nothing more of a request that is being answered.
        "/echo" => whole(all_of(request).await?),
        "/sum" => {
            let told = request.headers().get("x-length").cloned();
            let body = all_of(request).await?;
            if told.is_none_or(|told| told != body.len().to_string()) {
                cuts.fetch_add(1, Ordering::Relaxed);
            }
            whole(format!("{number} {} {}", body.len(), adler32(&body)))
        }
        "/cuts" => whole(cuts.load(Ordering::Relaxed).to_string()),
        "/much" => {
            let query = request.uri().query().unwrap_or_default();
            let mut words = query.split('&');
            let size = words.find_map(|word| word.strip_prefix("size="));
            let size: usize = size.expect("it is asked for").parse()?;
            let has_sum = words.any(|word| word == "sums");
            let all = Bytes::from(much(size, number.parse()?));
            if request.method() == Method::HEAD || !has_sum {
                let mut answer = whole(all);
                let fields = answer.headers_mut();
                fields.insert("content-length", HeaderValue::from(size));
                answer
            } else {
                let stream = body::stream(async move |sender: Sender| {
                    for piece in 0..all.len().div_ceil(10_000) {
                        let end = all.len().min((piece + 1) * 10_000);
                        sender.send(all.slice(piece * 10_000..end)).await?;
                    }
                    Ok::<_, io::Error>(())
                });
                Response::new(Box::pin(stream))
            }
        }
        "/half" => {
            let stream = body::stream(async move |sender: Sender| {
                sender.send("half").await?;
                sleep(LONG).await?;
                Ok::<_, io::Error>(())
            });
            let mut answer: Answer = Response::new(Box::pin(stream));
            let length = HeaderValue::from_static("1000");
            answer.headers_mut().insert("content-length", length);
            answer
        }
        "/never" => {
            all_of(request).await?;
            sleep(LONG).await?;
            unreachable!("nobody waits for so long")
        }
        "/upgrade" => {
            upgrade(&mut request, echo)?;
            let mut answer = whole("");
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let fields = answer.headers_mut();
            fields.insert("connection", HeaderValue::from_static("upgrade"));
            fields.insert("upgrade", HeaderValue::from_static("echo"));
            answer
        }
        _ => {
            let mut answer = whole("");
            *answer.status_mut() = StatusCode::NOT_FOUND;
            answer
        }
    })
}
