//! hyper's `Read` and `Write` on our streams.
//!
//! Reading copies out of received chunks into hyper's buffer. What hyper writes is gathered
//! ([`Outgoing`]); past a limit it waits.
//!
//! Invariants:
//! - A flush is done when its bytes will go out by themselves; an error of the send comes out at the
//!   next call, and a shutdown waits for it.
//! - A peer that takes nothing for the stall timeout, while hyper waits for it, is given up.
//! - A connection is closed only after the peer has closed its side, or has been given a while to:
//!   bytes that arrive at a closed socket make the kernel reset the connection, and a reset can
//!   overtake the end of an answer (RFC 9112, section 9.6).

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::rt::ReadBufCursor;
use quoit::buf::Chunk;
use quoit::op::{ReceiveWait, Stream};
use quoit::time::{Alarm, Instant};

use super::activity::Activity;
use super::frames::Frames;
use super::outgoing::Outgoing;
use super::own_answer::OwnAnswers;
use super::upgrade::{Carrier, Upgraded};
use crate::tls::{Plain, Session, TlsStream};

/// A stream, of TCP or Unix, as hyper wants it, with TLS upon it or without.
///
/// [`Server`](super::Server) has all of a server around it. hyper alone, as a program may want it that has deadlines,
/// limits and ends of its own, costs less; a handler is then dropped when its client goes away, wherever it waits, and
/// nobody drains:
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response};
/// use hyper::body::Incoming;
/// use hyper::server::conn::http1;
/// use hyper::service::service_fn;
/// use quoit_net::TcpListener;
/// use quoit_net::http::{Io, Timer};
///
/// async fn hello(_: Request<Incoming>) -> Result<Response<String>, Infallible> {
///     Ok(Response::new("hello".to_owned()))
/// }
///
/// async fn serve(listener: TcpListener) -> std::io::Result<()> {
///     loop {
///         let stream = listener.accept().await?;
///         let connection = http1::Builder::new()
///             .timer(Timer)
///             // Answers to requests that came together leave together; hyper keeps them while it has half a request.
///             .pipeline_flush(true)
///             .serve_connection(Io::new(stream), service_fn(hello));
///         drop(quoit::spawn(connection));
///     }
/// }
/// # quoit::block_on(async {
/// #     use std::io::{Read, Write};
/// #     let listener = TcpListener::bind("127.0.0.1:0")?;
/// #     let address = listener.local_addr();
/// #     let server = quoit::spawn(serve(listener));
/// #     let answer = quoit::blocking::run(move |_| {
/// #         let mut client = std::net::TcpStream::connect(address)?;
/// #         let request = "GET / HTTP/1.1\r\nhost: test\r\n";
/// #         write!(client, "{request}\r\n{request}connection: close\r\n\r\n")?;
/// #         let mut answer = String::new();
/// #         client.read_to_string(&mut answer)?;
/// #         Ok::<_, std::io::Error>(answer)
/// #     });
/// #     assert_eq!(answer.await.expect("it runs")?.matches("hello").count(), 2);
/// #     server.cancel();
/// #     Ok::<_, std::io::Error>(())
/// # }).expect("a ring")?;
/// # Ok::<_, std::io::Error>(())
/// ```
///
/// HTTP/2 takes [`Executor`](super::Executor) as well: `http2::Builder::new(Executor)`.
pub struct Io {
    stream: Rc<Stream>,
    /// What encrypts, behind a handshake.
    tls: Option<Session>,
    wait: ReceiveWait,
    /// Somebody ends the turns of the connection.
    has_turns: bool,
    /// Bytes that were received before hyper came, decrypted if need be.
    early: Vec<u8>,
    rest: Option<Chunk>,
    outgoing: Rc<RefCell<Outgoing>>,
    activity: Rc<Activity>,
    /// What the client sends, in HTTP/2.
    frames: Option<Frames>,
    /// What becomes of the answers that hyper makes on its own.
    own_answers: Option<OwnAnswers>,
    closing: Closing,
}

/// How far a shutdown has come.
enum Closing {
    No,
    /// Waiting for the peer's side; what still comes is thrown away.
    Theirs {
        until: Alarm,
        discarded: usize,
    },
    Done,
}

/// How long a peer may take nothing, where nobody says otherwise.
const STALL: Duration = Duration::from_secs(30);

/// How long the peer's side is waited for, and how much of what it still sends is thrown away.
const LINGER: Duration = Duration::from_secs(2);
const MAX_DISCARDED: usize = 1 << 20;

/// Where hyper copies more than this, its memory is to be given back.
const MUCH: usize = 16 * 1024;

/// How much is gathered while a send is on its way. Past this hyper waits.
const GATHER: usize = 64 * 1024;

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outgoing = self.outgoing.borrow();
        f.debug_struct("Io")
            .field("stream", &self.stream)
            .field("gathered", &outgoing.gathered.len())
            .field("sending", &outgoing.sending_bytes())
            .finish_non_exhaustive()
    }
}

impl Io {
    /// Takes a stream over. A peer that takes nothing for 30 s, while hyper waits for it, is given
    /// up; see [`Io::stall_timeout`].
    pub fn new(stream: impl Into<Stream>) -> Self {
        Self::with_early_bytes(stream.into(), Vec::new(), None, Rc::default())
    }

    /// Takes a stream over of which `early` and then `rest` were received already.
    pub(super) fn with_early_bytes(
        stream: Stream,
        early: Vec<u8>,
        rest: Option<Chunk>,
        activity: Rc<Activity>,
    ) -> Self {
        let stream = Rc::new(stream);
        let outgoing = Outgoing::new(Rc::clone(&stream), Rc::clone(&activity), STALL);
        Self {
            stream,
            tls: None,
            wait: ReceiveWait::default(),
            has_turns: false,
            early,
            rest,
            outgoing: Rc::new(RefCell::new(outgoing)),
            activity,
            frames: None,
            own_answers: None,
            closing: Closing::No,
        }
    }

    /// Takes a TLS stream over, as [`Io::new`] does a plain one. To a client of HTTP/1 an end that the server has not
    /// announced is an error (`UnexpectedEof`): an answer without a length may have been cut off there (RFC 9112,
    /// section 9.8).
    pub fn tls(stream: TlsStream) -> Self {
        let (stream, session, rest) = stream.into_parts();
        Self::encrypted(stream, session, rest, Rc::default())
    }

    /// Takes over a stream that is encrypted: the handshake is done, and `rest` came behind it.
    pub(super) fn encrypted(
        stream: Stream,
        session: Session,
        rest: Option<Chunk>,
        activity: Rc<Activity>,
    ) -> Self {
        let mut io = Self::with_early_bytes(stream, Vec::new(), rest, activity);
        io.tls = Some(session);
        io
    }

    /// How long a peer may take nothing of what is sent while hyper waits for it.
    #[must_use]
    pub fn stall_timeout(self, stall: Duration) -> Self {
        self.outgoing.borrow_mut().set_stall_timeout(stall);
        self
    }

    /// Returns what is on its way out, for whoever polls the connection and ends its turns.
    pub(super) fn by_turns(&mut self) -> Rc<RefCell<Outgoing>> {
        self.has_turns = true;
        self.outgoing.borrow_mut().expect_turns();
        Rc::clone(&self.outgoing)
    }

    /// Bounds what the client may send without asking for anything: it speaks HTTP/2, and hyper has
    /// read nothing yet.
    pub(super) fn follow_frames(&mut self) {
        self.frames = Some(Frames::new(Instant::now()));
        self.activity.note_streams();
    }

    /// Completes the answers of HTTP/1 that hyper makes on its own.
    pub(super) fn own_answers(mut self, own_answers: OwnAnswers) -> Self {
        self.own_answers = Some(own_answers);
        self
    }

    /// Begins anew with another hyper, which reads first what the one before has read and nobody has asked for.
    pub(super) fn begin_anew(&mut self, unread: &[u8]) {
        self.activity.note_beginning();
        self.early.splice(..0, unread.iter().copied());
    }

    /// Returns what can be seen of the connection from outside while hyper has it.
    pub(super) fn activity(&self) -> Rc<Activity> {
        Rc::clone(&self.activity)
    }

    /// Ends hyper's part, where a connection goes on as something else: what was written goes out first.
    /// `early` is what hyper has read and did not want.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`, for what was still on its way.
    ///
    /// # Panics
    ///
    /// If somebody else of this crate still polls the connection.
    pub async fn into_upgraded(mut self, early: Bytes) -> io::Result<Upgraded> {
        poll_fn(|cx| self.outgoing.borrow_mut().poll_all_sent(cx)).await?;
        self.stream.end_receive(&mut self.wait);
        drop(self.outgoing);
        let stream = Rc::into_inner(self.stream).expect("nobody polls the connection any more");
        let early = match &*self.early {
            [] => early,
            then => [&early, then].concat().into(),
        };
        let carrier = match self.tls {
            Some(session) => Carrier::Tls(Box::new(TlsStream::new(stream, session, self.rest))),
            None => {
                self.rest.into_iter().for_each(|rest| stream.put_back(rest));
                Carrier::Plain(stream)
            }
        };
        Ok(Upgraded::new(early, carrier))
    }

    /// Ends a connection that nobody needs any more: what was written goes out, then `last`, over TLS
    /// `close_notify` behind it (RFC 8446, section 6.1), and the end of this side. The peer's side is not waited
    /// for: whoever has answered does that, by hyper's shutdown.
    ///
    /// It may come from another scope than hyper's, which may have been cancelled. A peer that takes nothing holds
    /// it up: bound it in time.
    ///
    /// # Errors
    ///
    /// Those of `send(2)` and `shutdown(2)`: the peer may be gone. [`quoit::Cancelled`].
    pub async fn end(mut self, last: &[u8]) -> io::Result<()> {
        self.gather_goodbye(last)?;
        poll_fn(|cx| self.outgoing.borrow_mut().poll_all_sent_after_all(cx)).await?;
        self.stream.shutdown(Shutdown::Write)
    }

    fn gather_goodbye(&mut self, last: &[u8]) -> io::Result<()> {
        let mut outgoing = self.outgoing.borrow_mut();
        let Some(tls) = &mut self.tls else {
            outgoing.gathered.extend_from_slice(last);
            return Ok(());
        };
        let mut left = last;
        while !left.is_empty() {
            let taken = tls.send(left, &mut outgoing.gathered)?;
            left = &left[taken..];
        }
        tls.say_goodbye(&mut outgoing.gathered);
        Ok(())
    }

    /// Takes from `slices` what there is room for.
    fn gather<'a>(
        &mut self,
        slices: impl IntoIterator<Item = &'a [u8]>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.activity.note_words();
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.make_ready(cx)?;
        // An answer that is ahead of its request comes in parts, which are taken as they are: hyper is to keep none.
        let room = match self.activity.is_ahead() {
            true => usize::MAX,
            false => GATHER,
        };
        if outgoing.gathered.len() >= room {
            // No room before the send on its way has ended and this one has begun.
            ready!(outgoing.poll_sent(cx))?;
            outgoing.begin_send(cx)?;
        }
        let gathered = &mut outgoing.gathered;
        let mut taken = 0;
        for slice in slices {
            if let Some(own) = &self.own_answers
                && let Some(line) = self.activity.unasked_line()
                && let Some(answer) = own.complete(slice, line)
            {
                self.activity.note_refusal();
                // Little, and the last of its connection: there is room.
                match &mut self.tls {
                    None => gathered.extend_from_slice(&answer),
                    Some(tls) => drop(tls.send(&answer, gathered)?),
                }
                taken += slice.len();
                continue;
            }
            let part = &slice[..slice.len().min(room.saturating_sub(gathered.len()))];
            taken += match &mut self.tls {
                None => {
                    gathered.extend_from_slice(part);
                    part.len()
                }
                Some(tls) => tls.send(part, gathered)?,
            };
        }
        if let Some(frames) = &mut self.frames {
            frames.note_sent(taken);
        }
        Poll::Ready(Ok(taken))
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(frames) = &mut this.frames
            && frames.is_over()
        {
            this.activity.note_flood();
            return Poll::Ready(frames.turn_away(&mut buf));
        }
        if !this.early.is_empty() {
            let part = this.early.len().min(buf.remaining());
            let part = allowed(&mut this.frames, &this.activity, &this.early[..part]);
            this.activity.note_line(&this.early[..part]);
            buf.put_slice(&this.early[..part]);
            this.early.drain(..part);
            if this.early.is_empty() {
                // It is not needed again.
                this.early = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        if this.tls.is_some() {
            return this.poll_read_encrypted(cx, buf);
        }
        let mut chunk = match this.rest.take() {
            Some(chunk) => chunk,
            None => match ready!(this.poll_receive(cx))? {
                Some(chunk) => chunk,
                None => {
                    this.activity.note_left();
                    return Poll::Ready(Ok(()));
                }
            },
        };
        let bytes = &*chunk;
        this.activity.note_received(bytes);
        let part = bytes.len().min(buf.remaining());
        let part = allowed(&mut this.frames, &this.activity, &bytes[..part]);
        this.activity.note_line(&bytes[..part]);
        buf.put_slice(&bytes[..part]);
        if part < bytes.len() {
            chunk.advance(part);
            this.rest = Some(chunk);
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        // All that hyper has in one piece: of small pieces of a body as much as there were at a time.
        if buf.len() > MUCH {
            self.activity.note_copied_much();
        }
        self.gather([buf], cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.gather(bufs.iter().map(|buf| &**buf), cx)
    }

    fn is_write_vectored(&self) -> bool {
        // In HTTP/2 what is small comes in one piece anyway, and what is large alone: slices are filled for nothing.
        if self.frames.is_some() {
            return false;
        }
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.note_flushed();
        ready!(self.outgoing.borrow_mut().poll_flush(cx))?;
        self.activity.note_way_out();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.activity.note_last_words();
        let mut outgoing = this.outgoing.borrow_mut();
        if let Some(tls) = &mut this.tls {
            tls.say_goodbye(&mut outgoing.gathered);
        }
        ready!(outgoing.poll_all_sent(cx))?;
        drop(outgoing);
        this.poll_close(cx)
    }
}

/// How many of these bytes hyper may read: at least one of any, unless the client is past its budget.
fn allowed(frames: &mut Option<Frames>, activity: &Activity, bytes: &[u8]) -> usize {
    match frames {
        Some(frames) => {
            let allowed = frames.follow(bytes, activity.answered());
            activity.note_frame(frames.begun());
            allowed
        }
        None => bytes.len(),
    }
}

impl Io {
    /// Receives more. Nothing arrives while the connection is polled, and hyper asks once for each request
    /// of HTTP/2 that it takes: the stream is asked once.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        if self.has_turns && self.activity.is_drained() {
            return Poll::Pending;
        }
        let polled = self.stream.poll_receive(&mut self.wait, cx);
        if polled.is_pending() {
            self.activity.note_drained();
        }
        polled
    }

    fn poll_read_encrypted(
        &mut self,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let tls = self.tls.as_mut().expect("it is encrypted");
            let (frames, activity) = (&mut self.frames, &self.activity);
            let found = tls.plain(|bytes| {
                let part = &bytes[..bytes.len().min(buf.remaining())];
                let part = &part[..allowed(frames, activity, part)];
                activity.note_received(part);
                activity.note_line(part);
                buf.put_slice(part);
                part.len()
            });
            match found {
                Ok(Plain::Taken) => return Poll::Ready(Ok(())),
                Ok(Plain::End) => {
                    self.activity.note_left();
                    return Poll::Ready(Ok(()));
                }
                // HTTP knows by itself whether a request has come to its end, and most answers.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.activity.note_left();
                    return Poll::Ready(if tls.may_be_cut_off() {
                        Err(error)
                    } else {
                        Ok(())
                    });
                }
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Plain::None) => {}
            }
            let received = match self.rest.take() {
                Some(rest) => Some(rest),
                None => ready!(self.poll_receive(cx))?,
            };
            let tls = self.tls.as_mut().expect("it is encrypted");
            let Some(mut chunk) = received else {
                tls.receive_end();
                continue;
            };
            let fed = tls.receive(&mut chunk);
            if !chunk.is_empty() && fed.is_ok() {
                self.rest = Some(chunk);
            }
            // New keys, or why the peer was not understood: goes out with what is sent next. That it was not
            // understood counts more than that it does not hear it.
            let mut outgoing = self.outgoing.borrow_mut();
            tls.flush(&mut outgoing.gathered);
            let begun = outgoing.begin_next(cx);
            fed.and(begun)?;
        }
    }

    /// Ends a connection on which an answer has failed: what was said before goes out, and the peer is left the time to
    /// take it, but nothing says that this was all.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.outgoing.borrow_mut().poll_all_sent(cx))?;
        self.poll_close(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.closing {
                Closing::No => {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.activity.note_goodbye();
                    let until = Alarm::at(Instant::now() + LINGER);
                    self.closing = Closing::Theirs {
                        until,
                        discarded: 0,
                    };
                }
                Closing::Theirs { until, discarded } => match self
                    .stream
                    .poll_receive(&mut self.wait, cx)
                {
                    Poll::Ready(Ok(Some(chunk))) if *discarded + chunk.len() < MAX_DISCARDED => {
                        *discarded += chunk.len();
                    }
                    Poll::Ready(_) => self.closing = Closing::Done,
                    Poll::Pending => {
                        ready!(Pin::new(until).poll(cx));
                        self.closing = Closing::Done;
                    }
                },
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}
