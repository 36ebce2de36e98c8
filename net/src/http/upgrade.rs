//! Upgrades: a connection of HTTP/1.1 that goes on as something else.
//!
//! ```text
//!   the handler ──upgrade──► Switch ◄──takes── the connection, when hyper is done with it
//!        │                     ▲
//!        └── answers 101 ──────┘ agreed; any other answer forgets it
//! ```
//!
//! hyper's own way to hand the connection over asks for one that may change threads. So the connection
//! takes it back from hyper itself, and goes on with what the handler has left it: in its own group, so
//! that it counts as open, and is cancelled where the server's patience ends.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{Method, Request, StatusCode, Version};
use http_body::Body;
use quoit::op::Stream;

use super::Incoming;
use super::exchange::Kind;
use crate::tls::TlsStream;

/// Lets a connection go on as something else, once the answer has told the client so: `then` gets it, with
/// whatever the client has sent behind its request.
///
/// The answer has to be 101 with `connection: upgrade` and the protocol in `upgrade`, or 200 to CONNECT;
/// after any other `then` is dropped, and the connection goes on with HTTP. `then` is the rest of the
/// connection: it counts as one that is open, a drain waits for it, and when the server's patience ends
/// it is cancelled.
///
/// ```
/// use http::header::{CONNECTION, UPGRADE};
/// use http::{Request, Response, StatusCode};
/// use quoit_net::http::{Incoming, Upgraded, upgrade};
///
/// async fn echo(mut request: Request<Incoming>) -> std::io::Result<Response<String>> {
///     upgrade(&mut request, async |stream: Upgraded| {
///         while let Ok(Some(bytes)) = stream.recv().await {
///             if stream.write_all(&bytes).await.is_err() {
///                 break;
///             }
///         }
///     })?;
///     let mut answer = Response::new(String::new());
///     *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
///     answer.headers_mut().insert(CONNECTION, "upgrade".parse().expect("a value"));
///     answer.headers_mut().insert(UPGRADE, "echo".parse().expect("a value"));
///     Ok(answer)
/// }
/// ```
///
/// # Errors
///
/// `InvalidInput` if the request does not ask for it: it has neither `connection: upgrade` with an
/// `upgrade` in HTTP/1.1 nor the method CONNECT; or if it has a body. `Unsupported` in HTTP/2, which has no upgrades.
pub fn upgrade<T, F>(request: &mut Request<Incoming>, then: T) -> io::Result<()>
where
    T: FnOnce(Upgraded) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let Some(switch) = request.body().switch() else {
        let what = "HTTP/2 has no upgrades: answer as to any other request";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    };
    if !request.body().is_end_stream() {
        let what = "a request with a body cannot be upgraded: where the body ends is no business of what follows";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    if !asks(request) {
        let what =
            "the request does not ask for an upgrade: it needs `connection: upgrade` and `upgrade`";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    switch.put(Box::new(|stream| Box::pin(then(stream))));
    Ok(())
}

fn asks(request: &Request<Incoming>) -> bool {
    let fields = request.headers();
    let says_upgrade = fields.get_all(CONNECTION).iter().any(|value| {
        let mut words = value.as_bytes().split(|byte| *byte == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    // HTTP/1.0 knows no upgrades (RFC 9110, section 7.8).
    let may_upgrade = request.version() == Version::HTTP_11;
    request.method() == Method::CONNECT
        || (may_upgrade && says_upgrade && fields.contains_key(UPGRADE))
}

type Then = Box<dyn FnOnce(Upgraded) -> Pin<Box<dyn Future<Output = ()>>>>;

/// What a connection goes on with.
#[derive(Default)]
pub(super) struct Switch {
    then: RefCell<Option<Then>>,
    is_agreed: Cell<bool>,
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("is_agreed", &self.is_agreed.get())
            .finish_non_exhaustive()
    }
}

impl Switch {
    fn put(&self, then: Then) {
        let old = self.then.replace(Some(then));
        drop(old);
    }

    /// Returns whether the handler has said what the connection is to go on with.
    pub(super) fn is_offered(&self) -> bool {
        self.then.borrow().is_some()
    }

    /// Notes what the request was answered with.
    pub(super) fn answered(&self, asked: Kind, status: StatusCode) {
        let agrees = status == StatusCode::SWITCHING_PROTOCOLS
            || (asked == Kind::Connect && status.is_success());
        if agrees {
            self.is_agreed.set(true);
        } else {
            let refused = self.then.take();
            drop(refused);
        }
    }

    /// Takes what the connection goes on with, if both sides have agreed.
    pub(super) fn take(&self) -> Option<Then> {
        let is_agreed = self.is_agreed.get();
        self.then.take().filter(|_| is_agreed)
    }
}

/// A connection that has gone over to another protocol, on its core: bytes both ways, encrypted if it was
/// before.
///
/// One task at a time may receive; writes of several tasks go out one after the other, each as a whole.
#[derive(Debug)]
pub struct Upgraded {
    /// What came behind the request.
    early: RefCell<Bytes>,
    carrier: Carrier,
}

#[derive(Debug)]
pub(super) enum Carrier {
    Plain(Stream),
    Tls(Box<TlsStream>),
}

impl Upgraded {
    pub(super) fn new(early: Bytes, carrier: Carrier) -> Self {
        Self {
            early: RefCell::new(early),
            carrier,
        }
    }

    /// Waits for bytes; `None` at the end.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`, and over TLS those of [`TlsStream::recv`]. Cancelled, nothing is lost: what
    /// arrives is there for the next call.
    pub async fn recv(&self) -> io::Result<Option<Bytes>> {
        quoit::op::entry().await?;
        let early = self.early.take();
        if !early.is_empty() {
            return Ok(Some(early));
        }
        match &self.carrier {
            Carrier::Plain(stream) => {
                let chunk = stream.receive().await?;
                Ok(chunk.map(|chunk| Bytes::copy_from_slice(&chunk)))
            }
            Carrier::Tls(stream) => {
                let bytes = stream.recv().await?;
                Ok((!bytes.is_empty()).then(|| bytes.into()))
            }
        }
    }

    /// Writes all of these bytes.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`; if some bytes went out before a failure or a cancel, the error holds an
    /// [`Interrupted`](quoit::buf::Interrupted) that says how many. Over TLS those of
    /// [`TlsStream::write_all`].
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.carrier {
            Carrier::Plain(stream) => stream.send_all(bytes.to_vec()).await.0,
            Carrier::Tls(stream) => stream.write_all(bytes).await,
        }
    }

    /// Says that nothing comes any more; what was written before still arrives.
    ///
    /// # Errors
    ///
    /// Those of `shutdown(2)`, and over TLS those of [`TlsStream::shutdown`].
    pub async fn shutdown(&self) -> io::Result<()> {
        match &self.carrier {
            Carrier::Plain(stream) => stream.shutdown(Shutdown::Write),
            Carrier::Tls(stream) => stream.shutdown().await,
        }
    }
}
