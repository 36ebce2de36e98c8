//! The servers that the cases share, and what their handler answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HOST, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Either, Full};
use quoit::Cores;
use quoit_net::http::{Builder, Incoming, Server, Strictness};

/// How many bytes a head may have.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// How many bytes a body may have.
pub(crate) const MAX_BODY: usize = 32 * 1024;

/// The date that `/dated` says.
pub(crate) const BIRTHDAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A time that no case waits for.
const LONG: Duration = Duration::from_secs(3600);

/// Begins a server whose patience no case exhausts.
pub(crate) fn builder() -> Builder<&'static str> {
    Server::bind("127.0.0.1:0")
        .cores(Cores::Count(1))
        .idle_timeout(LONG)
        .head_timeout(LONG)
        .body_timeout(LONG)
        .stall_timeout(LONG)
        .max_head(MAX_HEAD)
        .max_body(MAX_BODY as u64)
}

/// Returns where the server listens that is as strict as one is by default.
pub(crate) fn strict() -> SocketAddr {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let start = || builder().serve(answer).expect("a server");
    SERVER.get_or_init(start).local_addr()
}

/// Returns where the server listens that lets more pass.
pub(crate) fn lenient() -> SocketAddr {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let start = || {
        let builder = builder().strictness(Strictness::Lenient);
        builder.serve(answer).expect("a server")
    };
    SERVER.get_or_init(start).local_addr()
}

type Answer = Response<Either<Full<Bytes>, Unmeasured>>;

/// Says what was asked: the method, the target, and the body in brackets. Some paths say something else.
pub(crate) async fn answer(request: Request<Incoming>) -> std::io::Result<Answer> {
    let path = request.uri().path().to_owned();
    if let Some(code) = path.strip_prefix("/status/") {
        let mut answer = text(format!("status {code}"));
        *answer.status_mut() = code.parse().expect("a status");
        return Ok(answer);
    }
    Ok(match &*path {
        // The body is left where it is.
        "/unread" => text("unread"),
        "/forbidden" => {
            let mut answer = text("forbidden");
            *answer.status_mut() = StatusCode::FORBIDDEN;
            answer
        }
        "/host" => text(format!(
            "{:?}",
            request.headers().get_all(HOST).iter().collect::<Vec<_>>()
        )),
        "/field" => text(format!("{:?}", request.headers().get("x-field"))),
        "/unmeasured" => Response::new(Either::Right(Unmeasured::new())),
        "/trailing" => {
            let mut answer = Response::new(Either::Right(Unmeasured::before_a_trailer()));
            let named = HeaderValue::from_static("x-trailer");
            answer.headers_mut().insert(TRAILER, named);
            answer
        }
        "/coded" => {
            let mut answer = Response::new(Either::Right(Unmeasured::new()));
            let chunked = HeaderValue::from_static("chunked");
            answer.headers_mut().insert(TRANSFER_ENCODING, chunked);
            answer
        }
        "/no-content-with-a-length" => {
            let mut answer = text("12345");
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer.headers_mut().insert(CONTENT_LENGTH, 5.into());
            answer
        }
        "/not-modified-with-a-length" => {
            let mut answer = text("12345");
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer.headers_mut().insert(CONTENT_LENGTH, 5.into());
            answer
        }
        "/no-content-with-a-coding" => {
            let mut answer = text("12345");
            *answer.status_mut() = StatusCode::NO_CONTENT;
            let chunked = HeaderValue::from_static("chunked");
            answer.headers_mut().insert(TRANSFER_ENCODING, chunked);
            answer
        }
        "/dated" => {
            let mut answer = text("dated");
            let date = HeaderValue::from_static(BIRTHDAY);
            answer.headers_mut().insert(DATE, date);
            answer
        }
        "/fails" => return Err(std::io::Error::other("the handler fails")),
        "/trailers" => {
            let collected = request.into_body().collect().await?;
            text(format!("{:?}", collected.trailers().map(HeaderMap::len)))
        }
        _ => {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = String::from_utf8_lossy(&body);
            text(format!("{} {} [{body}]", head.method, head.uri))
        }
    })
}

fn text(text: impl Into<Bytes>) -> Answer {
    Response::new(Either::Left(Full::new(text.into())))
}

/// A body of three pieces that does not say how long it is.
#[derive(Debug)]
pub(crate) struct Unmeasured {
    left: u8,
    trailers: Option<HeaderMap>,
}

impl Unmeasured {
    fn new() -> Self {
        Self {
            left: 3,
            trailers: None,
        }
    }

    fn before_a_trailer() -> Self {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", HeaderValue::from_static("last"));
        Self {
            left: 3,
            trailers: Some(trailers),
        }
    }
}

impl Body for Unmeasured {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(Frame::data(Bytes::from_static(b"piece ")))
            }
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}
