//! What an answer carries: nothing, a text, or part of a file.
//!
//! A file is read piece by piece as the client takes it: one piece is in memory at a time, however
//! large the file.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quoit::buf::BufResult;
use quoit::fs::File;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Body {
    Empty,
    Text(Bytes),
    File(FilePart),
}

/// Bytes `at..end` of a file.
pub(crate) struct FilePart {
    file: File,
    at: u64,
    end: u64,
    reading: Option<Reading>,
}

type Reading = Pin<Box<dyn Future<Output = BufResult<usize, Vec<u8>>>>>;

/// One piece. Below the size from which the allocator maps pages anew for each.
const PIECE: u64 = 64 * 1024;

impl fmt::Debug for FilePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilePart")
            .field("at", &self.at)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Body {
    /// Carries bytes `at..end` of a file.
    pub(crate) fn file(file: File, at: u64, end: u64) -> Self {
        if at == end {
            Self::Empty
        } else {
            Self::File(FilePart {
                file,
                at,
                end,
                reading: None,
            })
        }
    }
}

impl FilePart {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.at == self.end {
            return Poll::Ready(None);
        }
        let (file, at, left) = (&self.file, self.at, self.end - self.at);
        let reading = self.reading.get_or_insert_with(|| {
            let (file, piece) = (file.clone(), Vec::with_capacity(left.min(PIECE) as usize));
            Box::pin(async move { file.read_at(piece, at).await })
        });
        let (result, mut piece) = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        Poll::Ready(Some(match result {
            Ok(0) => {
                // The length was promised: the client must see that it is not kept.
                self.at = self.end;
                let what = "the file became shorter while it was sent";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
            }
            Ok(_) => {
                piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                self.at += piece.len() as u64;
                Ok(piece.into())
            }
            Err(error) => {
                self.at = self.end;
                Err(error)
            }
        }))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let data = match this {
            Self::Empty => None,
            Self::Text(text) => {
                let text = std::mem::take(text);
                *this = Self::Empty;
                Some(Ok(text))
            }
            Self::File(part) => ready!(part.poll_piece(cx)),
        };
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_empty(),
            Self::File(part) => part.at == part.end,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Text(text) => text.len() as u64,
            Self::File(part) => part.end - part.at,
        })
    }
}
