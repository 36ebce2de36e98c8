//! The site that the HTTP servers here serve: what can be asked for, and what the answer must be.

use std::collections::VecDeque;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use quoit::Cores;
use quoit::fs::File;
use quoit::sim::Sim;
use quoit::time::{Alarm, Instant};
use quoit_net::http::{Incoming, Server};

use crate::support::{World, address, below, one_in, pause_up_to, size, some_text, text};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Any body, of a request or an answer.
pub(crate) type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = Failure>>>;

/// The files of the site: where each begins in the text, and how long it is.
const FILES: [(usize, usize); 4] = [(0, 0), (77, 1), (1_234, 40_000), (500_000, 300_000)];

/// What both sides have counted.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Answers that a handler has given away.
    pub(crate) made: AtomicU64,
    /// Answers that a client has read to the end.
    pub(crate) received: AtomicU64,
}

impl Counted {
    pub(crate) fn totals(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.made), read(&self.received))
    }
}

/// Puts the files onto the machine.
pub(crate) fn with_files(sim: Sim) -> Sim {
    FILES.iter().enumerate().fold(sim, |sim, (number, file)| {
        sim.file(format!("/site/{number}"), text(file.0, file.1))
    })
}

/// Serves the site; `None` if the world was too harsh to begin.
pub(crate) fn serve(world: World, counted: &Arc<Counted>) -> Option<Server> {
    let counted = Arc::clone(counted);
    let server = Server::bind(address())
        .cores(Cores::Count(1 + below(3)))
        .serve(move |request| {
            let counted = Arc::clone(&counted);
            async move {
                let answer = answer(request).await?;
                counted.made.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Failure>(answer)
            }
        });
    world.allows(server)
}

async fn answer(request: Request<Incoming>) -> Result<Response<AnyBody>, Failure> {
    if one_in(4) {
        pause_up_to(30).await;
    }
    let path = request.uri().path().to_owned();
    let mut parts = path[1..].split('/');
    let kind = parts.next().unwrap_or_default();
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
    let body = match kind {
        "text" => whole(text(
            number().ok_or("where?")?,
            number().ok_or("how much?")?,
        )),
        "pieces" => in_pieces(text(
            number().ok_or("where?")?,
            number().ok_or("how much?")?,
        )),
        "echo" => whole(request.into_body().collect().await?.to_bytes()),
        "through" => Box::pin(request.into_body().map_err(Failure::from)),
        "file" => match file(number().ok_or("which file?")?).await {
            Ok(bytes) => whole(bytes),
            Err(_) => {
                let mut answer = Response::new(whole(Bytes::new()));
                *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(answer);
            }
        },
        _ => return Err("there is no such place".into()),
    };
    Ok(Response::new(body))
}

async fn file(number: usize) -> io::Result<Bytes> {
    let file = File::open(format!("/site/{number}")).await?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::new();
    loop {
        let room = Vec::with_capacity(1 + below(100_000));
        let (count, part) = file.read_at(room, bytes.len() as u64).await;
        if count? == 0 {
            break;
        }
        bytes.extend_from_slice(&part);
    }
    assert_eq!(bytes.len() as u64, size, "a file is as long as it says");
    file.close().await?;
    Ok(bytes.into())
}

/// A body whose size is told beforehand.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> AnyBody {
    Box::pin(Full::new(bytes.into()).map_err(|never| match never {}))
}

/// A body that is made piece by piece, with pauses, and does not say how long it is.
pub(crate) fn in_pieces(bytes: impl Into<Bytes>) -> AnyBody {
    let mut left = bytes.into();
    let mut pieces = VecDeque::new();
    while !left.is_empty() {
        let part = size().clamp(1, left.len());
        pieces.push_back(left.split_to(part));
    }
    Box::pin(Pieces {
        left: pieces,
        pause: None,
    })
}

struct Pieces {
    left: VecDeque<Bytes>,
    pause: Option<Alarm>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(pause) = &mut self.pause {
            ready!(Pin::new(pause).poll(cx));
            self.pause = None;
        }
        if one_in(4) {
            let until = Instant::now() + Duration::from_micros(below(20_000) as u64);
            self.pause = Some(Alarm::at(until));
        }
        Poll::Ready(self.left.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// A request, and what must come back.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    expected: Bytes,
}

impl Ask {
    /// Draws one.
    pub(crate) fn some() -> Self {
        let get = |path: String, expected: Bytes| Self {
            method: Method::GET,
            path,
            body: Bytes::new(),
            expected,
        };
        let (from, length) = (below(1 << 19), size());
        let there = Bytes::from_static(text(from, length));
        match below(6) {
            0 => {
                let number = below(FILES.len());
                let (from, length) = FILES[number];
                get(
                    format!("/file/{number}"),
                    Bytes::from_static(text(from, length)),
                )
            }
            1 => get(format!("/text/{from}/{length}"), there),
            2 => get(format!("/pieces/{from}/{length}"), there),
            kind => {
                let body = some_text();
                Self {
                    method: Method::POST,
                    path: if kind == 3 { "/through" } else { "/echo" }.to_owned(),
                    body: body.clone(),
                    expected: body,
                }
            }
        }
    }

    /// Makes the request as hyper takes it.
    pub(crate) fn request(&self) -> Request<AnyBody> {
        let body = if self.method == Method::POST && one_in(2) {
            in_pieces(self.body.clone())
        } else {
            whole(self.body.clone())
        };
        Request::builder()
            .method(self.method.clone())
            .uri(format!("http://{}{}", address(), self.path))
            .header("host", address().to_string())
            .body(body)
            .expect("a well-formed request")
    }

    /// Checks an answer.
    pub(crate) fn check(&self, world: World, status: u16, body: &[u8]) {
        if world == World::Harsh && self.path.starts_with("/file") && status == 500 {
            return;
        }
        assert_eq!(status, 200, "{} {}", self.method, self.path);
        let (came, expected) = (body.len(), self.expected.len());
        assert!(
            *body == *self.expected,
            "{} {}: {came} bytes came instead of {expected}, or others",
            self.method,
            self.path
        );
    }
}

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// To the end.
    Stays,
    /// Sometimes not to the end.
    MayLeave,
}

/// Reads a body, sometimes slowly; `None` if it was left.
pub(crate) async fn read(
    mut body: hyper::body::Incoming,
    reader: Reader,
) -> Result<Option<Vec<u8>>, hyper::Error> {
    let mut bytes = Vec::new();
    let (is_slow, leaves) = (one_in(4), reader == Reader::MayLeave && one_in(20));
    while let Some(frame) = body.frame().await {
        let data = frame?.into_data().expect("there are no trailers");
        bytes.extend_from_slice(&data);
        if is_slow && one_in(4) {
            pause_up_to(100).await;
        }
        if leaves && one_in(4) {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}
