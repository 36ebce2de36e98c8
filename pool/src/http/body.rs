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

/// How much of a body that is all there goes out as one, by HTTP/2: the usual length of a frame.
const PIECE: usize = 16 * 1024;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;
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
pub(super) struct Sent {
    /// What is all there stays, for a second attempt.
    body: RefCell<Kind>,
    /// How much of it was handed out.
    taken: Cell<u64>,
    /// How much there is of what is made while it is sent, if the head says that.
    announced: Option<u64>,
    has_begun: Cell<bool>,
    /// All of it was handed out.
    has_ended: Cell<bool>,
    /// The connection has taken all of it, or wants no more.
    is_done: Cell<bool>,
    /// By HTTP/2, where what was handed out waits for the peer's window.
    is_windowed: bool,
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
    pub(super) fn new(
        body: Body,
        announced: Option<u64>,
        piping: Option<&Rc<Piping>>,
    ) -> (Self, OutgoingBody) {
        let is_empty = body.is_empty();
        let sent = match body.0 {
            Kind::Empty => None,
            kind => Some(Rc::new(Sent {
                body: RefCell::new(kind),
                has_ended: Cell::new(is_empty),
                is_done: Cell::new(is_empty),
                announced,
                is_windowed: piping.is_some(),
                ..Sent::default()
            })),
        };
        let piping = piping.filter(|_| sent.is_some()).cloned();
        (Self(sent.clone()), OutgoingBody { sent, piping })
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
    fn poll(&self, cx: &mut Context<'_>) -> Polled {
        if self.is_stopped.get() {
            // The reset then says that it was our wish.
            return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())));
        }
        self.has_begun.set(true);
        let kind = self.body.take();
        let (kind, polled) = match kind {
            Kind::Empty => (Kind::Empty, Poll::Ready(None)),
            Kind::Bytes(bytes) => {
                let next = (!self.has_ended.get()).then(|| Ok(Frame::data(self.next_of(&bytes))));
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
                let polled = self.measured(polled, has_ended);
                self.note_end(has_ended || matches!(polled, Poll::Ready(None | Some(Err(_)))));
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
                self.note_waker(cx);
                Poll::Pending
            }
            ready => ready,
        }
    }

    /// Lets a body fail that is not as long as the head says: its peer would wait for the rest of it, or take what is
    /// too much for the next request.
    fn measured(&self, polled: Polled, has_ended: bool) -> Polled {
        let Some(announced) = self.announced else {
            return polled;
        };
        let (length, is_last) = match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let data = frame.data_ref();
                (data.map_or(0, Bytes::len) as u64, data.is_none())
            }
            Poll::Ready(None) => (0, true),
            Poll::Ready(Some(Err(_))) | Poll::Pending => return polled,
        };
        let taken = self.taken.get() + length;
        self.taken.set(taken);
        let what = if taken > announced {
            format!("it is longer than the {announced} bytes that the head says")
        } else if taken < announced && (has_ended || is_last) {
            format!("it ends after {taken} of the {announced} bytes that the head says")
        } else {
            return polled;
        };
        Poll::Ready(Some(Err(what.into())))
    }

    /// Takes the next piece of what is all there; the bytes are shared.
    fn next_of(&self, bytes: &Bytes) -> Bytes {
        let taken = self.taken.get() as usize;
        let left = bytes.len() - taken;
        let next = match left {
            _ if !self.is_windowed || (taken == 0 && left <= PIECE) => left,
            1 => 1,
            // The last byte goes by itself: once the window has room for that, it had room for all before it.
            _ => PIECE.min(left - 1),
        };
        self.taken.set((taken + next) as u64);
        self.note_end(next == left);
        bytes.slice(taken..taken + next)
    }

    fn note_end(&self, has_ended: bool) {
        self.has_ended.set(has_ended);
        if !self.is_windowed {
            self.is_done.set(has_ended);
        }
    }

    fn note_waker(&self, cx: &Context<'_>) {
        let is_known = matches!(&*self.waker.borrow(), Some(known) if known.will_wake(cx.waker()));
        if !is_known {
            let before = self.waker.replace(Some(cx.waker().clone()));
            drop(before);
        }
    }

    /// Returns whether nobody wants it sent any more; if not yet, `cx` is woken then.
    pub(super) fn is_stopped(&self, cx: &Context<'_>) -> bool {
        if !self.is_stopped.get() {
            self.note_waker(cx);
        }
        self.is_stopped.get()
    }
}

/// The body that hyper has asked last, within one poll: a task that it starts there sends the rest of that.
#[derive(Default)]
pub(super) struct Piping(Cell<Option<Rc<Sent>>>);

impl Piping {
    pub(super) fn take(&self) -> Option<Rc<Sent>> {
        self.0.take()
    }
}

impl fmt::Debug for Piping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piping").finish_non_exhaustive()
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with something that is no text")
}

/// A request's body as hyper gets it.
#[derive(Debug)]
pub(super) struct OutgoingBody {
    sent: Option<Rc<Sent>>,
    /// Of HTTP/2.
    piping: Option<Rc<Piping>>,
}

impl Drop for OutgoingBody {
    /// The connection wants no more: it has as much as was announced, or has ended.
    fn drop(&mut self) {
        if let Some(sent) = &self.sent {
            sent.is_done.set(true);
        }
        if let Some(piping) = &self.piping {
            drop(piping.take());
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
        if let Some(piping) = &self.piping {
            let before = piping.0.replace(self.sent.clone());
            drop(before);
        }
        match &self.sent {
            Some(sent) => sent.poll(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let sent = self.sent.as_ref();
        sent.is_none_or(|sent| sent.has_ended.get() || sent.is_done.get())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(sent) = &self.sent else {
            return SizeHint::with_exact(0);
        };
        match &*sent.body.borrow() {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64 - sent.taken.get()),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}
