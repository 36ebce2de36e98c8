//! The body of a request, as its handler reads it.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use quoit::time::{Alarm, Instant};
use quoit::{CarriesCancelled, ForeignWait};

use super::BoxError;
use super::activity::Reading;
use super::connection::{Connected, Limits, Peer};
use super::upgrade::Switch;

/// The body of a request, which arrives while it is read.
///
/// The client is read from no faster than this is. Waiting for the next piece is an op: in a
/// cancelled scope it fails with [`quoit::Cancelled`], carried by the [`io::Error`].
///
/// In HTTP/1.1 a client that says `expect: 100-continue` is told to go on when this is first read. In
/// HTTP/2 nobody is: hyper answers with nothing but the answer there. A client goes on by itself after a
/// while (RFC 9110, 10.1.1); one that waits for longer than [`Builder::body_timeout`] has sent nothing
/// for too long.
///
/// # Errors
///
/// - `FileTooLarge`: it is larger than the server takes ([`Builder::max_body`]).
/// - `TimedOut`: nothing came for too long ([`Builder::body_timeout`]).
/// - `UnexpectedEof`: the client went away before its end.
/// - `InvalidInput`, `InvalidData`: what came is no body.
/// - Those of a connection that was reset.
///
/// A handler that fails because of one of these need not make an answer of it: the server answers
/// with 413, 408 or 400.
///
/// [`Builder::max_body`]: super::Builder::max_body
/// [`Builder::body_timeout`]: super::Builder::body_timeout
pub struct Incoming {
    /// None if there is none. In a place of its own: most requests have none, and are moved often.
    body: Option<Box<Reader>>,
    connected: Rc<Connected>,
}

/// A body that is read.
struct Reader {
    body: hyper::body::Incoming,
    is_http2: bool,
    wait: ForeignWait,
    patience: Duration,
    given_up_at: Option<Alarm>,
    /// How many bytes more it may have.
    room: u64,
    limit: u64,
    fate: Fate,
    /// The connection knows that somebody has the body.
    reading: Reading,
}

/// What became of the body, for the case that the handler fails because of it.
///
/// A request without a body has none: nothing can be wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Fate(Option<Rc<Cell<Option<Fault>>>>);

/// What was wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client is told with this status.
    Refused(StatusCode),
    /// There is no client any more.
    Gone,
}

impl Fate {
    /// Of a request that has a body, or none.
    pub(super) fn new(has_body: bool) -> Self {
        Self(has_body.then(Rc::default))
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.0.as_ref().and_then(|fault| fault.get())
    }

    fn refuse(&self, status: StatusCode) {
        self.set(Fault::Refused(status));
    }

    fn gone(&self) {
        self.set(Fault::Gone);
    }

    fn set(&self, what: Fault) {
        if let Some(fault) = &self.0 {
            fault.set(Some(what));
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("size_hint", &self.size_hint())
            .finish_non_exhaustive()
    }
}

impl Incoming {
    /// Of a request without a body.
    pub(super) fn none(connected: Rc<Connected>) -> Self {
        Self {
            body: None,
            connected,
        }
    }

    /// Returns whose the request is.
    ///
    /// What looks for it in the extensions, such as a layer of `tower`, finds it there if it was put there:
    ///
    /// ```
    /// use http::Request;
    /// use quoit_net::http::Incoming;
    ///
    /// fn with_peer(mut request: Request<Incoming>) -> Request<Incoming> {
    ///     let peer = request.body().peer().clone();
    ///     request.extensions_mut().insert(peer);
    ///     request
    /// }
    /// ```
    pub fn peer(&self) -> &Peer {
        &self.connected.peer
    }

    /// There is a body, which is read as far as these limits go.
    pub(super) fn read(
        &mut self,
        body: hyper::body::Incoming,
        limits: &Limits,
        fate: Fate,
        reading: Reading,
    ) {
        self.body = Some(Box::new(Reader {
            body,
            is_http2: self.connected.switch.is_none(),
            wait: ForeignWait::default(),
            patience: limits.body_timeout,
            given_up_at: None,
            room: limits.max_body,
            limit: limits.max_body,
            fate,
            reading,
        }));
    }

    pub(super) fn switch(&self) -> Option<&Switch> {
        self.connected.switch.as_ref()
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.body {
            Some(reader) => reader.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let reader = self.body.as_ref();
        reader.is_none_or(|reader| reader.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(reader) => reader.body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        // Of a body that outlives its answer hyper would say the end with the next request only.
        if self.body.is_end_stream() {
            return Poll::Ready(None);
        }
        let body = &mut self.body;
        let polled = self.wait.poll(cx, |cx| Pin::new(body).poll_frame(cx));
        if polled.is_ready() {
            self.given_up_at = None;
            if matches!(polled, Poll::Ready(Ok(None))) || self.body.is_end_stream() {
                self.reading.note_whole();
            }
        }
        match polled {
            Poll::Pending => self.poll_patience(cx).map(|late| Some(Err(late))),
            Poll::Ready(Err(cancelled)) => Poll::Ready(Some(Err(cancelled.into()))),
            // hyper takes a reset with NO_ERROR for the end, as which it counts behind an answer alone.
            Poll::Ready(Ok(None)) if self.is_http2 && !self.body.is_end_stream() => {
                let kind = io::ErrorKind::UnexpectedEof;
                Poll::Ready(Some(Err(self.gone(kind, "it reset the stream"))))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(None),
            Poll::Ready(Ok(Some(Ok(frame)))) => Poll::Ready(Some(self.take(frame))),
            Poll::Ready(Ok(Some(Err(error)))) => Poll::Ready(Some(Err(self.explain(error)))),
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> io::Result<Frame<Bytes>> {
        let size = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.room.checked_sub(size) {
            Some(room) => {
                self.room = room;
                Ok(frame)
            }
            None => {
                self.fate.refuse(StatusCode::PAYLOAD_TOO_LARGE);
                Err(too_large(self.limit))
            }
        }
    }

    /// Says that nothing came, if that has been so for too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let patience = self.patience;
        let alarm = self
            .given_up_at
            .get_or_insert_with(|| Alarm::at(Instant::now() + patience));
        Pin::new(alarm).poll(cx).map(|()| {
            self.fate.refuse(StatusCode::REQUEST_TIMEOUT);
            let what = format!("nothing more of the request's body came for {patience:?}");
            io::Error::new(io::ErrorKind::TimedOut, ClientsDoing(what.into()))
        })
    }

    fn explain(&self, error: hyper::Error) -> io::Error {
        let mut sources = std::iter::successors(error.source(), |&error| error.source());
        let cause = sources.find_map(|source| source.downcast_ref::<io::Error>());
        if let Some(cancelled) = cause.and_then(CarriesCancelled::cancelled) {
            return cancelled.into();
        }
        match cause.map(io::Error::kind) {
            Some(kind @ (io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) => {
                self.fate.refuse(StatusCode::BAD_REQUEST);
                io::Error::new(kind, error)
            }
            kind => self.gone(kind.unwrap_or(io::ErrorKind::UnexpectedEof), error),
        }
    }

    fn gone(&self, kind: io::ErrorKind, why: impl fmt::Display) -> io::Error {
        self.fate.gone();
        self.reading.note_over();
        let what = "the client went away before its request's body had come to an end";
        io::Error::new(kind, ClientsDoing(format!("{what}: {why}").into()))
    }
}

/// A failure of which nobody has to be told: the client went away, or sent nothing more. Whoever passes it on keeps
/// what it is.
#[derive(Debug)]
pub(super) struct ClientsDoing(pub(super) BoxError);

impl fmt::Display for ClientsDoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ClientsDoing {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

fn too_large(limit: u64) -> io::Error {
    let what = format!("the request's body is larger than the {limit} bytes that are taken here");
    io::Error::new(io::ErrorKind::FileTooLarge, what)
}
