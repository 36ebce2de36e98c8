//! `channel`: pieces on their way from one who makes them to hyper.
//!
//! Invariants:
//! - Each piece that waits has a permit, so there are never more than the capacity.
//! - A body that was cut fails after the pieces that were sent before.
//! - Nothing is borrowed while somebody is woken or a piece is dropped.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use quoit::op::nop;
use quoit::sync::{OwnedPermit, Semaphore};

use super::super::BoxError;
use super::SendError;

/// Makes a body with an end to write to: of as many pieces as `capacity` at a time.
///
/// For pieces that are made elsewhere, such as by a task that serves several clients. If they are made
/// for this answer alone, [`stream`](super::stream) starts a task and cancels it.
///
/// ```
/// use http::Response;
/// use quoit_net::http::body;
///
/// let (sender, body) = body::channel(4);
/// let answer = Response::new(body);
/// # let producing = async move {
/// // In a task, while the answer is sent:
/// sender.send("one piece\n").await?;
/// sender.send("and another\n").await?;
/// drop(sender); // The end.
/// # Ok::<_, std::io::Error>(()) };
/// ```
///
/// # Panics
///
/// If `capacity` is 0.
pub fn channel(capacity: usize) -> (Sender, ChannelBody) {
    let (sender, body) = pipe(capacity, OnDrop::End);
    (sender, ChannelBody(body))
}

/// The end to write to. Dropped, it ends the body; to cut it, so that the client does not take it for
/// whole, use [`Sender::fail`].
pub struct Sender {
    pipe: Rc<Pipe>,
    on_drop: OnDrop,
}

/// What it means that a sender is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDrop {
    End,
    /// Somebody else says how it ends.
    Nothing,
}

/// A body that is what its [`Sender`] sends.
#[derive(Debug)]
pub struct ChannelBody(pub(super) Receiver);

pub(super) struct Receiver {
    pipe: Rc<Pipe>,
    /// Before an error is told, what was sent before it is let out.
    parting: Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>,
}

#[derive(Debug)]
struct Pipe {
    state: RefCell<State>,
    room: Rc<Semaphore>,
}

#[derive(Debug)]
struct State {
    pieces: VecDeque<(Frame<Bytes>, OwnedPermit)>,
    end: End,
    /// Whoever waits for the next piece.
    reader: Option<Waker>,
}

#[derive(Debug)]
enum End {
    /// More may come.
    Open,
    /// No more comes.
    Ended,
    /// No more comes, and this is why.
    Failed(BoxError),
    /// Nobody takes it any more.
    Gone,
}

pub(super) fn pipe(capacity: usize, on_drop: OnDrop) -> (Sender, Receiver) {
    assert!(capacity > 0, "a body needs room for one piece at least");
    let pipe = Rc::new(Pipe {
        state: RefCell::new(State {
            pieces: VecDeque::new(),
            end: End::Open,
            reader: None,
        }),
        room: Rc::new(Semaphore::new(capacity)),
    });
    let sender = Sender {
        pipe: Rc::clone(&pipe),
        on_drop,
    };
    let receiver = Receiver {
        pipe,
        parting: None,
    };
    (sender, receiver)
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("is_gone", &self.is_gone())
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// Sends a piece: waits while there is no room, which is while the client takes nothing.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the piece: gone, once nobody takes the body any more; cancelled, if a scope around
    /// is cancelled first. Then nothing of it was sent.
    pub async fn send(&self, piece: impl Into<Bytes>) -> Result<(), SendError<Bytes>> {
        let piece = piece.into();
        if piece.is_empty() {
            // In HTTP/1 it would be the end.
            return match quoit::op::entry().await {
                Err(cancelled) => Err(SendError::Cancelled(piece, cancelled)),
                Ok(()) if self.is_gone() => Err(SendError::Gone(piece)),
                Ok(()) => Ok(()),
            };
        }
        self.send_frame(piece, Frame::data).await
    }

    /// Sends the fields that follow a body, and ends it. In HTTP/1 they reach a client that has said
    /// `te: trailers`, of an answer that names them in `trailer`.
    ///
    /// # Errors
    ///
    /// As for [`Sender::send`], with the fields. Cancelled, it has cut the body, since the sender is gone: send them
    /// behind a shield where they shall follow a cancel.
    pub async fn send_trailers(self, fields: HeaderMap) -> Result<(), SendError<HeaderMap>> {
        self.send_frame(fields, Frame::trailers).await?;
        self.pipe.end(End::Ended);
        Ok(())
    }

    /// Ends the body: what was sent is all there is.
    pub fn end(self) {
        self.pipe.end(End::Ended);
    }

    /// Cuts the body: the client sees that the answer is not whole. In HTTP/1 its connection ends, in
    /// HTTP/2 its stream is reset. What was sent before goes out first, but for what a slow client has no
    /// room for.
    pub fn fail(self, error: impl Into<BoxError>) {
        self.pipe.end(End::Failed(error.into()));
    }

    /// Returns whether nobody takes the body any more: the client has gone, or did not want it.
    pub fn is_gone(&self) -> bool {
        matches!(self.pipe.state.borrow().end, End::Gone)
    }

    async fn send_frame<T>(
        &self,
        content: T,
        framed: impl FnOnce(T) -> Frame<Bytes>,
    ) -> Result<(), SendError<T>> {
        let permit = match Rc::clone(&self.pipe.room).acquire_owned().await {
            Ok(permit) => permit,
            Err(cancelled) => return Err(SendError::Cancelled(content, cancelled)),
        };
        if self.is_gone() {
            // There was room before: who was cancelled since then, and then lost the body, hears of the first.
            return Err(match quoit::op::entry().await {
                Err(cancelled) => SendError::Cancelled(content, cancelled),
                Ok(()) => SendError::Gone(content),
            });
        }
        self.pipe.push(framed(content), permit);
        Ok(())
    }

    /// Returns what says how the body ends, for who does not have the sender.
    pub(super) fn ending(&self) -> Ending {
        Ending(Rc::clone(&self.pipe))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::End {
            if std::thread::panicking() {
                self.pipe.end(End::Failed("its producer panicked".into()));
            } else if quoit::CoreId::current().is_some() && quoit::is_cancelled() {
                // Whoever was cancelled has not said all.
                self.pipe
                    .end(End::Failed("its producer was cancelled".into()));
            } else {
                self.pipe.end(End::Ended);
            }
        }
    }
}

/// Says how a body ends. Dropped before that, it cuts it.
#[derive(Debug)]
pub(super) struct Ending(Rc<Pipe>);

impl Ending {
    pub(super) fn told(self, outcome: Result<(), BoxError>) {
        self.0.end(match outcome {
            Ok(()) => End::Ended,
            Err(error) => End::Failed(error),
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let what = "the producer of the body ended before it had";
        self.0.end(End::Failed(what.into()));
    }
}

impl Pipe {
    fn push(&self, frame: Frame<Bytes>, permit: OwnedPermit) {
        let reader = {
            let mut state = self.state.borrow_mut();
            state.pieces.push_back((frame, permit));
            state.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }

    /// Ends it, unless it has ended.
    fn end(&self, end: End) {
        let reader = {
            let mut state = self.state.borrow_mut();
            if !matches!(state.end, End::Open) {
                return;
            }
            state.end = end;
            state.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }
}

impl Receiver {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut copy = None;
        loop {
            let mut state = self.pipe.state.borrow_mut();
            if let Some((frame, permit)) = state.pieces.pop_front() {
                drop(state);
                // There is room for another.
                drop(permit);
                return Poll::Ready(Some(Ok(frame)));
            }
            match state.end {
                End::Failed(_) => {
                    drop(state);
                    // hyper gives up at once what it has not handed over, but flushes while it waits for
                    // us. The kernel takes what it was handed together with the first of these, and
                    // what was gathered meanwhile with the second.
                    let twice = async {
                        nop().await?;
                        nop().await
                    };
                    self.parting.get_or_insert_with(|| Box::pin(twice));
                    return self.poll_parting(cx);
                }
                End::Ended | End::Gone => return Poll::Ready(None),
                End::Open => {}
            }
            let Some(waker) = copy.take() else {
                drop(state);
                // Copied where nothing is borrowed: it is foreign code, which may send.
                copy = Some(cx.waker().clone());
                continue;
            };
            let old = state.reader.replace(waker);
            drop(state);
            drop(old);
            return Poll::Pending;
        }
    }

    /// Tells why there is no more, once the kernel was there.
    fn poll_parting(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(parting) = &mut self.parting {
            // Cancelled, there is nothing to wait for.
            let _ = ready!(parting.as_mut().poll(cx));
        }
        let end = std::mem::replace(&mut self.pipe.state.borrow_mut().end, End::Ended);
        Poll::Ready(match end {
            End::Failed(error) => Some(Err(error)),
            End::Open | End::Ended | End::Gone => None,
        })
    }

    /// Returns whether all of it was taken.
    pub(super) fn has_ended(&self) -> bool {
        let state = self.pipe.state.borrow();
        state.pieces.is_empty() && matches!(state.end, End::Ended)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let (pieces, end, reader) = {
            let mut state = self.pipe.state.borrow_mut();
            let end = std::mem::replace(&mut state.end, End::Gone);
            (std::mem::take(&mut state.pieces), end, state.reader.take())
        };
        drop((pieces, end, reader));
        // Whoever waits for room is told that it is of no use.
        self.pipe.room.set_total(usize::MAX);
    }
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.has_ended()
    }
}
