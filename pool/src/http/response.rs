//! Answers: the head, and a body that is read piece by piece.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use quoit::ForeignWait;
use quoit::sync::oneshot;
use quoit::time::{Alarm, Instant};
use quoit_net::http::Upgraded;

use super::Error;
use super::connection::{Switched, Verdict};
use super::request::within;
use super::shared::Lease;

/// The answer to a request: its head is here, its body comes as it is asked for.
///
/// It holds its place on the connection until the body was read to the end. Dropped before that, a connection
/// of HTTP/1 is closed, unless the rest is short and there already; of HTTP/2 only the stream is reset.
///
/// A peer may answer before it has all of the request. What is left of the request's body when this is dropped is not
/// sent any more, in the same way.
pub struct Response {
    head: http::response::Parts,
    /// How long the body is as a whole.
    length: Option<u64>,
    body: ResponseBody,
    upgraded: Option<oneshot::Receiver<Switched>>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.head.status)
            .field("version", &self.head.version)
            .field("headers", &self.head.headers)
            .finish_non_exhaustive()
    }
}

impl Response {
    pub(super) fn new(
        answer: http::Response<Incoming>,
        lease: Lease,
        upgraded: Option<oneshot::Receiver<Switched>>,
    ) -> Self {
        let (head, incoming) = answer.into_parts();
        let mut body = ResponseBody {
            incoming: Some(incoming),
            is_http2: head.version == Version::HTTP_2,
            lease: Some(lease),
            wait: ForeignWait::default(),
            deadline: None,
            alarm: None,
            failed: None,
        };
        let length = body.size_hint().exact();
        if upgraded.is_none() {
            body.note_end();
        }
        Self {
            head,
            length,
            body,
            upgraded,
        }
    }

    pub(super) fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.body.deadline = deadline;
        self
    }

    /// Returns the status code.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Returns the version of HTTP that the answer came in.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Returns the fields of the head.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Returns how long the body is, if its head says so; also once some of it was read.
    pub fn content_length(&self) -> Option<u64> {
        self.length
    }

    /// Passes on an answer with a status below 400.
    ///
    /// # Errors
    ///
    /// [`Error::Status`]; the body goes unread.
    pub fn error_for_status(self) -> Result<Self, Error> {
        let status = self.status();
        if status.is_client_error() || status.is_server_error() {
            return Err(Error::Status(status));
        }
        Ok(self)
    }

    /// Waits for the next piece of the body; `None` at its end. Trailers are passed over: see
    /// [`into_body`](Self::into_body).
    ///
    /// # Errors
    ///
    /// As [`send`](super::RequestBuilder::send). Cancelled, nothing of the body is lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.body.chunk().await
    }

    /// Waits for all of the body, however long it is: for peers that are trusted. Others:
    /// [`bytes_up_to`](Self::bytes_up_to).
    ///
    /// # Errors
    ///
    /// As [`send`](super::RequestBuilder::send). Cancelled, what has come of the body is lost with the answer.
    pub async fn bytes(self) -> Result<Bytes, Error> {
        self.bytes_up_to(usize::MAX).await
    }

    /// Waits for all of the body, if it is no longer than this.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`]; as [`bytes`](Self::bytes).
    pub async fn bytes_up_to(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(piece) = self.chunk().await? {
            if piece.len() > limit - first.len().max(all.len()) {
                return Err(Error::TooLong { limit });
            }
            // One piece needs no copy.
            if first.is_empty() && all.is_empty() {
                first = piece;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }

    /// Waits for all of the body, as text: what is no UTF-8 in it is replaced by `U+FFFD`.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    pub async fn text(self) -> Result<String, Error> {
        let bytes = self.bytes().await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the body, for those who take any [`http_body::Body`]. It has what is left of the request's time.
    pub fn into_body(self) -> ResponseBody {
        let mut body = self.body;
        body.alarm = body.deadline.map(Alarm::at);
        body
    }

    /// Takes the connection over that goes on as something else: the answer's status is 101, or 2xx to CONNECT.
    /// What the peer has sent behind its head comes first. The pool forgets the connection.
    ///
    /// # Errors
    ///
    /// [`Error::Request`], if the request did not ask for it, or the server said something else. As
    /// [`send`](super::RequestBuilder::send), if the connection has ended.
    pub async fn upgrade(mut self) -> Result<Upgraded, Error> {
        let Some(mut switched) = self.upgraded.take() else {
            return Err(Error::Request(format!(
                "the connection goes on with HTTP: the answer is {}, and an upgrade needs 101 to a request \
                 with the field `upgrade`, or success to CONNECT, over HTTP/1.1",
                self.status()
            )));
        };
        let (io, early) = match switched.recv().await {
            Ok(switched) => switched,
            Err(oneshot::RecvError::Cancelled(cancelled)) => return Err(cancelled.into()),
            Err(oneshot::RecvError::Closed) => {
                return Err(self.body.explain(Error::Lost("it was closed".into())));
            }
        };
        let upgraded = io.into_upgraded(early).await;
        upgraded.map_err(|error| Error::Lost(error.into()))
    }
}

/// The body of an answer.
pub struct ResponseBody {
    /// Until the end, or a failure.
    incoming: Option<Incoming>,
    is_http2: bool,
    lease: Option<Lease>,
    wait: ForeignWait,
    deadline: Option<Instant>,
    /// The same, where others poll.
    alarm: Option<Alarm>,
    /// A failure, until its connection's owner has said how that ended.
    failed: Option<(Error, Verdict)>,
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("has_ended", &self.incoming.is_none())
            .finish_non_exhaustive()
    }
}

impl ResponseBody {
    /// Waits for the next piece; `None` at the end. Trailers are passed over.
    ///
    /// # Errors
    ///
    /// As [`Response::chunk`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let deadline = self.deadline;
        let next = async {
            loop {
                match poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
                    None => return Ok(None),
                    Some(Err(error)) => return Err(error),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Some(data));
                        }
                    }
                }
            }
        };
        within(deadline, next).await
    }

    /// At the end of the body the connection is free for the next request; that needs nobody who asks for the
    /// `None` behind the last piece.
    fn note_end(&mut self) {
        if self
            .incoming
            .as_ref()
            .is_some_and(|body| body.is_end_stream())
        {
            self.end();
        }
    }

    /// Returns whether the body ended where its peer broke it off. hyper takes a reset with NO_ERROR for an end: a peer
    /// says that behind a whole answer, so that the rest of the request stays where it is (RFC 9113, section 8.1). But
    /// of a request that was whole no answer ends so, and none that owes some of its length.
    fn was_cut(&self) -> bool {
        let Some(rest) = self.incoming.as_ref().filter(|_| self.is_http2) else {
            return false;
        };
        let owes = rest.size_hint().exact().is_some_and(|left| left > 0);
        let has_body = self.lease.as_ref().is_some_and(Lease::has_body);
        !rest.is_end_stream() && (owes || !has_body)
    }

    fn end(&mut self) {
        let incoming = self.incoming.take();
        drop(incoming);
        if let Some(lease) = &self.lease {
            // It stays: a request's body that is still being sent ends with the answer.
            lease.complete();
        }
    }

    fn explain(&self, error: Error) -> Error {
        match &self.lease {
            Some(lease) => lease.handle.explain(error),
            None => error,
        }
    }

    /// Says why the body has failed, as soon as that is known.
    fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some((_, verdict)) = &mut self.failed
            && let Err(cancelled) = ready!(verdict.as_mut().poll(cx))
        {
            return Poll::Ready(Some(Err(cancelled.into())));
        }
        let Some((error, verdict)) = self.failed.take() else {
            return Poll::Ready(None);
        };
        let error = self.explain(error);
        let lease = self.lease.take();
        drop((verdict, lease));
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return this.poll_failed(cx);
        };
        if let Some(alarm) = &mut this.alarm
            && Pin::new(alarm).poll(cx).is_ready()
        {
            let (rest, lease) = (this.incoming.take(), this.lease.take());
            drop(rest);
            drop(lease);
            return Poll::Ready(Some(Err(Error::TimedOut)));
        }
        let polled = this.wait.poll(cx, |cx| Pin::new(incoming).poll_frame(cx));
        match ready!(polled) {
            Err(cancelled) => Poll::Ready(Some(Err(cancelled.into()))),
            Ok(None) if this.was_cut() => {
                let (rest, lease) = (this.incoming.take(), this.lease.take());
                drop(rest);
                drop(lease);
                let code = h2::Reason::NO_ERROR.into();
                Poll::Ready(Some(Err(Error::Reset { code })))
            }
            Ok(None) => {
                this.end();
                Poll::Ready(None)
            }
            Ok(Some(Ok(frame))) => {
                this.note_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Some(Err(error))) => {
                let incoming = this.incoming.take();
                drop(incoming);
                let error = Error::of_hyper(error);
                match &this.lease {
                    Some(lease) if matches!(error, Error::Lost(_)) => {
                        let verdict = lease.handle.verdict();
                        this.failed = Some((error, verdict));
                        this.poll_failed(cx)
                    }
                    _ => {
                        let lease = this.lease.take();
                        drop(lease);
                        Poll::Ready(Some(Err(error)))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_none() && self.failed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let (Some(lease), Some(rest)) = (&self.lease, self.incoming.take()) {
            lease.leave(rest);
        }
    }
}
