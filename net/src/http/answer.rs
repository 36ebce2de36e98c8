//! An answer on its way: the body as hyper takes it, and what is noted when hyper is done with it.

use std::fmt;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, REFERER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use quoit::time::Instant;
use quoit::{Cancelled, Group};

use super::activity::{Activity, Asked};
use super::body::{drop_whole, within};
use super::figures::Figures;
use super::{BoxError, Peer};

/// A request that was answered, or given up: for an access log.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answered<'a> {
    /// Whose it was.
    pub peer: &'a Peer,
    /// What was asked.
    pub method: &'a Method,
    /// For what.
    pub uri: &'a Uri,
    /// In which version of HTTP.
    pub version: Version,
    /// The client's `Referer`.
    pub referer: Option<&'a HeaderValue>,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'a HeaderValue>,
    /// What it was answered with; `None` if the client had gone before there was an answer.
    pub status: Option<StatusCode>,
    /// How many bytes of the answer's body were taken over for sending.
    pub sent: u64,
    /// Whether that was all of it.
    pub whole: bool,
    /// How long it took, from the turn in which the head was read.
    pub took: Duration,
}

/// Who is told of requests that have ended.
#[derive(Clone)]
pub(super) struct Audit(Arc<dyn Fn(&Answered<'_>) + Send + Sync>);

impl Audit {
    pub(super) fn new(listener: impl Fn(&Answered<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}

/// What is told of a request once it has ended, kept meanwhile.
#[derive(Debug)]
struct Entry {
    audit: Audit,
    peer: Peer,
    method: Method,
    uri: Uri,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

/// One request, from its head to the end of its answer. Dropped before that, it was given up.
#[derive(Debug)]
pub(super) struct Course {
    figures: Rc<Figures>,
    entry: Option<Box<Entry>>,
    begun: Instant,
    status: Option<StatusCode>,
    sent: u64,
    /// How many bytes there will be, where the head says so.
    expected: Option<u64>,
    whole: bool,
    /// It was our side that failed.
    failed: bool,
    /// It ends in a turn of its connection, which measures it: in HTTP/1.
    is_in_turn: bool,
}

impl Course {
    /// Begins with a head that was just read.
    #[inline]
    pub(super) fn begin<T>(
        figures: &Rc<Figures>,
        audit: Option<&Audit>,
        peer: &Peer,
        request: &Request<T>,
    ) -> Self {
        let tally = &figures.tally;
        match request.version() {
            Version::HTTP_2 => tally.http2.add_one(),
            _ => tally.http1.add_one(),
        }
        let entry = audit.map(|audit| {
            Box::new(Entry {
                audit: audit.clone(),
                peer: peer.clone(),
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                referer: request.headers().get(REFERER).cloned(),
                user_agent: request.headers().get(USER_AGENT).cloned(),
            })
        });
        Self {
            figures: Rc::clone(figures),
            entry,
            begun: Instant::recent(),
            status: None,
            sent: 0,
            expected: None,
            whole: false,
            failed: false,
            is_in_turn: request.version() != Version::HTTP_2,
        }
    }

    /// Notes with what it is answered.
    pub(super) fn answer<B: Body>(&mut self, head: &response::Parts, content: &Content<B>) {
        let status = head.status;
        self.figures.tally.answer(status);
        self.status = Some(status);
        let length = || {
            let field = head.headers.get(CONTENT_LENGTH)?;
            field.to_str().ok()?.parse().ok()
        };
        // hyper asks for nothing more once it has so many bytes; and for none where there is to be none.
        self.expected = content.size_hint().exact().or_else(length);
        self.whole = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        if self.whole {
            if !self.is_in_turn {
                self.figures.request.record(self.begun.elapsed());
            }
        } else if self.failed {
            self.figures.tally.failed.add_one();
        } else {
            self.figures.tally.given_up.add_one();
        }
        if let Some(entry) = self.entry.take() {
            let answered = Answered {
                peer: &entry.peer,
                method: &entry.method,
                uri: &entry.uri,
                version: entry.version,
                referer: entry.referer.as_ref(),
                user_agent: entry.user_agent.as_ref(),
                status: self.status,
                sent: self.sent,
                whole: self.whole,
                took: self.begun.elapsed(),
            };
            (entry.audit.0)(&answered);
        }
    }
}

/// Hyper has the body of an answer.
#[derive(Debug)]
struct Answering {
    activity: Rc<Activity>,
    asked: Asked,
    course: Course,
    /// Hyper waits for the body.
    is_awaited: bool,
}

impl Answering {
    fn note_awaited(&mut self, is_awaited: bool) {
        if std::mem::replace(&mut self.is_awaited, is_awaited) != is_awaited {
            self.activity.note_awaited(is_awaited);
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.note_awaited(false);
        self.activity.end_answer(self.asked);
        if self.course.whole && self.course.is_in_turn {
            self.activity.note_whole(self.course.begun);
        }
    }
}

pin_project! {
    /// What an answer consists of.
    #[derive(Debug)]
    #[project = ContentProjection]
    pub(super) enum Content<B> {
        /// A head alone.
        Nothing,
        /// What the server says by itself.
        Own { bytes: Bytes },
        /// What the handler says.
        Body { #[pin] body: B },
    }
}

pin_project! {
    /// A body that is counted for as long as hyper has it. A panic in it is an error of its answer, and
    /// of nothing else.
    #[derive(Debug)]
    pub(super) struct Counted<B> {
        #[pin]
        content: Content<B>,
        answering: Answering,
        connection: Group<Cancelled>,
    }

    impl<B> PinnedDrop for Counted<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.answering.course.whole {
                drop_whole(|| this.content.set(Content::Nothing));
            }
        }
    }
}

impl<B: Body> Counted<B> {
    /// Hands a body to hyper; `is_head` says that no more than the head will be sent.
    pub(super) fn new(
        content: Content<B>,
        activity: &Rc<Activity>,
        asked: Asked,
        mut course: Course,
        is_head: bool,
        connection: Group<Cancelled>,
    ) -> Self {
        activity.begin_answer();
        course.whole |= is_head || content.is_end() || course.expected == Some(0);
        Self {
            content,
            answering: Answering {
                activity: Rc::clone(activity),
                asked,
                course,
                is_awaited: false,
            },
            connection,
        }
    }
}

impl<B: Body> Content<B> {
    fn is_end(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Own { bytes } => bytes.is_empty(),
            Self::Body { body } => body.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Own { bytes } => SizeHint::with_exact(bytes.len() as u64),
            Self::Body { body } => body.size_hint(),
        }
    }
}

impl<B: Body<Error: Into<BoxError>>> Body for Counted<B> {
    type Data = Piece<B::Data>;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let mut this = self.project();
        let frame = match this.content.as_mut().project() {
            ContentProjection::Nothing => None,
            ContentProjection::Own { bytes } if bytes.is_empty() => None,
            ContentProjection::Own { bytes } => {
                let piece = Piece::Own(std::mem::take(bytes));
                Some(Ok(Frame::data(piece)))
            }
            ContentProjection::Body { body } => {
                let connection = *this.connection;
                let poll = || within(connection, || body.poll_frame(cx));
                let polled = catch_unwind(AssertUnwindSafe(poll));
                this.answering
                    .note_awaited(matches!(polled, Ok(Poll::Pending)));
                match polled {
                    Ok(polled) => ready!(polled).map(|frame| match frame {
                        Ok(frame) => Ok(frame.map_data(Piece::Body)),
                        Err(error) => Err(error.into()),
                    }),
                    Err(payload) => {
                        drop(payload);
                        Some(Err("the body of the answer panicked".into()))
                    }
                }
            }
        };
        let answering = this.answering;
        answering.activity.note_answered();
        let course = &mut answering.course;
        match &frame {
            None => course.whole = true,
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Buf::remaining);
                course.sent += length as u64;
                course.whole =
                    this.content.is_end() || course.expected.is_some_and(|all| course.sent >= all);
            }
            Some(Err(_)) => course.failed = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// A piece of an answer.
#[derive(Debug)]
pub(super) enum Piece<D> {
    Own(Bytes),
    Body(D),
}

impl<D: Buf> Buf for Piece<D> {
    fn remaining(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.remaining(),
            Self::Body(data) => data.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes.chunk(),
            Self::Body(data) => data.chunk(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Own(bytes) => bytes.advance(count),
            Self::Body(data) => data.advance(count),
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Own(bytes) => bytes.chunks_vectored(into),
            Self::Body(data) => data.chunks_vectored(into),
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        match self {
            Self::Own(bytes) => bytes.copy_to_bytes(length),
            Self::Body(data) => data.copy_to_bytes(length),
        }
    }
}
