//! An answer on its way: the body as hyper takes it.

use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use quoit::{Cancelled, Group};

use super::BoxError;
use super::activity::Unwritten;
use super::body::{drop_whole, within};
use super::course::Course;

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
        // What is left of a piece that is handed out in parts.
        rest: Bytes,
        course: Course,
        connection: Group<Cancelled>,
    }

    impl<B> PinnedDrop for Counted<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.course.is_whole() {
                drop_whole(|| this.content.set(Content::Nothing));
            }
        }
    }
}

impl<B: Body> Counted<B> {
    /// Hands a body to hyper; `is_head` says that no more than the head will be sent.
    pub(super) fn new(
        content: Content<B>,
        mut course: Course,
        is_head: bool,
        connection: Group<Cancelled>,
    ) -> Self {
        course.begin_answer(is_head || content.is_end());
        Self {
            content,
            rest: Bytes::new(),
            course,
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
        if this.course.is_far_ahead(cx) {
            return Poll::Pending;
        }
        let in_parts = this.course.is_in_parts();
        let frame = match this.content.as_mut().project() {
            _ if !this.rest.is_empty() => {
                let bytes = part_of(this.rest);
                Some(Ok(Frame::data(this.course.handed(Data::Own { bytes }))))
            }
            ContentProjection::Nothing => None,
            ContentProjection::Own { bytes } if bytes.is_empty() => None,
            ContentProjection::Own { bytes } => {
                let mut bytes = std::mem::take(bytes);
                if in_parts {
                    *this.rest = bytes;
                    bytes = part_of(this.rest);
                }
                Some(Ok(Frame::data(this.course.handed(Data::Own { bytes }))))
            }
            ContentProjection::Body { body } => {
                let connection = *this.connection;
                let poll = || {
                    let polled = within(connection, || body.poll_frame(cx));
                    polled.map_ok(|frame| match in_parts {
                        true => large_in_one(frame),
                        false => Ok(frame),
                    })
                };
                let polled = catch_unwind(AssertUnwindSafe(poll));
                let is_awaited = matches!(polled, Ok(Poll::Pending));
                this.course.note_awaited(is_awaited);
                match polled {
                    Ok(polled) => ready!(polled).map(|frame| match frame {
                        Ok(Ok(frame)) => {
                            let hand = |data| this.course.handed(Data::Body { data });
                            Ok(frame.map_data(hand))
                        }
                        Ok(Err(large)) => {
                            *this.rest = large;
                            let bytes = part_of(this.rest);
                            Ok(Frame::data(this.course.handed(Data::Own { bytes })))
                        }
                        Err(error) => Err(error.into()),
                    }),
                    Err(payload) => {
                        drop(payload);
                        Some(Err("the body of the answer panicked".into()))
                    }
                }
            }
        };
        match &frame {
            None => this.course.note_end(),
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Buf::remaining);
                // hyper asks for nothing behind trailers.
                let is_last =
                    this.rest.is_empty() && (frame.is_trailers() || this.content.is_end());
                this.course.note_piece(length, is_last);
            }
            Some(Err(error)) => this.course.note_failure(error),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.content.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.content.size_hint();
        let rest = self.rest.len() as u64;
        if rest > 0 {
            let (lower, upper) = (hint.lower(), hint.upper());
            hint = SizeHint::new();
            hint.set_lower(lower + rest);
            if let Some(upper) = upper {
                hint.set_upper(upper + rest);
            }
        }
        hint
    }
}

/// As much of a piece as hyper gets at a time where it copies all it gets: it takes what one piece has, and asks for
/// more until it has 400 KiB. And as much as it has at a time of an answer that is ahead of its request, or twice that.
pub(super) const PART: usize = 64 * 1024;

/// Takes the next part of what is left of a large piece.
fn part_of(rest: &mut Bytes) -> Bytes {
    rest.split_to(rest.len().min(PART))
}

/// Returns a large piece as bytes: what is bytes already is not copied for that.
fn large_in_one<D: Buf>(frame: Frame<D>) -> Result<Frame<D>, Bytes> {
    if frame.data_ref().is_none_or(|data| data.remaining() <= PART) {
        return Ok(frame);
    }
    let mut data = match frame.into_data() {
        Ok(data) => data,
        Err(frame) => return Ok(frame),
    };
    Err(data.copy_to_bytes(data.remaining()))
}

/// A piece of an answer, which is there until hyper has written it.
#[derive(Debug)]
pub(super) struct Piece<D> {
    data: Data<D>,
    /// In HTTP/2, where it waits for the client's windows.
    unwritten: Option<Unwritten>,
}

/// What a piece consists of.
#[derive(Debug)]
pub(super) enum Data<D> {
    Own { bytes: Bytes },
    Body { data: D },
}

impl<D> Piece<D> {
    pub(super) fn new(data: Data<D>, unwritten: Option<Unwritten>) -> Self {
        Self { data, unwritten }
    }
}

impl<D: Buf> Buf for Piece<D> {
    fn remaining(&self) -> usize {
        match &self.data {
            Data::Own { bytes } => bytes.remaining(),
            Data::Body { data } => data.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match &self.data {
            Data::Own { bytes } => bytes.chunk(),
            Data::Body { data } => data.chunk(),
        }
    }

    fn advance(&mut self, count: usize) {
        match &mut self.data {
            Data::Own { bytes } => bytes.advance(count),
            Data::Body { data } => data.advance(count),
        }
        if let Some(unwritten) = &self.unwritten {
            unwritten.note_written();
        }
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        match &self.data {
            Data::Own { bytes } => bytes.chunks_vectored(into),
            Data::Body { data } => data.chunks_vectored(into),
        }
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        match &mut self.data {
            Data::Own { bytes } => bytes.copy_to_bytes(length),
            Data::Body { data } => data.copy_to_bytes(length),
        }
    }
}
