//! Bodies of requests.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quoit_net::http::body::ChannelBody;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
type AnyBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError>>>;

/// The body of a request: nothing, bytes, or what is made while it is sent.
///
/// ```
/// use quoit_net::http::body;
/// use quoit_pool::http::Body;
///
/// let whole = Body::from("all of it");
/// let (sender, pieces) = body::channel(4);
/// let made_later = Body::from(pieces);
/// # drop((sender, whole, made_later));
/// ```
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Bytes(Bytes),
    Stream(AnyBody),
}

impl Body {
    /// Makes a body of any other. Its frames are asked for by the task that drives the connection, outside of
    /// the caller's scope: let a task of the caller's make them, and a
    /// [channel](quoit_net::http::body::channel) carry them. A panic there is the request's failure.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Stream(Box::pin(Boxing(Box::pin(body)))))
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }
}

impl Body {
    /// Returns how long it is, if that is known before it is sent.
    pub(super) fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Empty => Some(0),
            Kind::Bytes(bytes) => Some(bytes.len() as u64),
            Kind::Stream(body) => body.size_hint().exact(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Empty => f.write_str("Body::Empty"),
            Kind::Bytes(bytes) => write!(f, "Body::Bytes({})", bytes.len()),
            Kind::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

/// Cut if its sender fails; ended where the sender is dropped.
impl From<ChannelBody> for Body {
    fn from(body: ChannelBody) -> Self {
        Self::new(body)
    }
}

/// A body whose errors are boxed.
struct Boxing<B>(Pin<Box<B>>);

impl<B> http_body::Body for Boxing<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.0.as_mut().poll_frame(cx);
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// What the caller of a request knows of its body while the connection sends that. Where there is no body,
/// there is nothing to be shared.
#[derive(Debug, Clone)]
pub(super) struct Sending(Option<Rc<Sent>>);

/// What both know.
#[derive(Default)]
struct Sent {
    body: RefCell<Kind>,
    /// For a second attempt: a clone of what is all there, and the length.
    has_begun: Cell<bool>,
    is_done: Cell<bool>,
    /// Nobody wants the answer any more.
    is_stopped: Cell<bool>,
    failure: RefCell<Option<BoxError>>,
    waker: RefCell<Option<Waker>>,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent")
            .field("has_begun", &self.has_begun)
            .field("is_done", &self.is_done)
            .finish_non_exhaustive()
    }
}

impl Sending {
    /// Returns what the caller keeps, and what is sent.
    pub(super) fn new(body: Body) -> (Self, OutgoingBody) {
        let is_done = body.is_empty();
        let sent = match body.0 {
            Kind::Empty => None,
            kind => Some(Rc::new(Sent {
                body: RefCell::new(kind),
                is_done: Cell::new(is_done),
                ..Sent::default()
            })),
        };
        (Self(sent.clone()), OutgoingBody(sent))
    }

    /// Returns whether there is a body.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Returns whether the connection has taken all of it, or wants no more.
    pub(super) fn is_done(&self) -> bool {
        self.0.as_ref().is_none_or(|sent| sent.is_done.get())
    }

    /// Ends the body where it is: the answer is wanted no more.
    pub(super) fn stop(&self) {
        let Some(sent) = &self.0 else {
            return;
        };
        sent.is_stopped.set(true);
        let waker = sent.waker.take();
        if let Some(waker) = waker {
            quoit::op::wake(waker);
        }
    }

    /// Takes why the body failed, if that is why the request did.
    pub(super) fn take_failure(&self) -> Option<BoxError> {
        self.0.as_ref()?.failure.take()
    }

    /// Returns the body for another attempt, unless some of it is gone.
    pub(super) fn again(&self) -> Option<Body> {
        let Some(sent) = &self.0 else {
            return Some(Body::default());
        };
        let kind = sent.body.take();
        match kind {
            Kind::Empty | Kind::Bytes(_) => Some(Body(kind)),
            Kind::Stream(_) if !sent.has_begun.get() => Some(Body(kind)),
            Kind::Stream(_) => None,
        }
    }
}

impl Sent {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_stopped.get() {
            // The reset then says that it was our wish.
            return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())));
        }
        self.has_begun.set(true);
        let kind = self.body.take();
        let (kind, polled) = match kind {
            Kind::Empty => (Kind::Empty, Poll::Ready(None)),
            Kind::Bytes(bytes) => {
                let next = (!self.is_done.get()).then(|| Ok(Frame::data(bytes.clone())));
                self.is_done.set(true);
                // Kept for a second attempt: the bytes are shared.
                (Kind::Bytes(bytes), Poll::Ready(next))
            }
            Kind::Stream(mut body) => {
                let polled = catch_unwind(AssertUnwindSafe(|| {
                    let polled = body.as_mut().poll_frame(cx);
                    (polled, body.is_end_stream())
                }));
                let (polled, has_ended) = polled.unwrap_or_else(|panic| {
                    let what = format!("it panicked: {}", text_of(&*panic));
                    (Poll::Ready(Some(Err(what.into()))), true)
                });
                self.is_done
                    .set(has_ended || matches!(polled, Poll::Ready(None | Some(Err(_)))));
                (Kind::Stream(body), polled)
            }
        };
        let empty = self.body.replace(kind);
        drop(empty);
        match polled {
            Poll::Ready(Some(Err(error))) => {
                let told = error.to_string().into();
                let before = self.failure.replace(Some(error));
                drop(before);
                Poll::Ready(Some(Err(told)))
            }
            Poll::Pending => {
                let before = self.waker.replace(Some(cx.waker().clone()));
                drop(before);
                Poll::Pending
            }
            ready => ready,
        }
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with something that is no text")
}

/// A request's body as hyper gets it.
#[derive(Debug)]
pub(super) struct OutgoingBody(Option<Rc<Sent>>);

impl Drop for OutgoingBody {
    /// The connection wants no more: it has as much as was announced, or has ended.
    fn drop(&mut self) {
        if let Some(sent) = &self.0 {
            sent.is_done.set(true);
        }
    }
}

impl http_body::Body for OutgoingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &self.0 {
            Some(sent) => sent.poll(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|sent| sent.is_done.get())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(sent) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        match &*sent.body.borrow() {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Bytes(_) if sent.is_done.get() => SizeHint::with_exact(0),
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}
