//! A connection's stream while hyper has it: it comes back when hyper lets go of it, however that comes about,
//! and the owner ends it with a goodbye.
//!
//! ```text
//!   Wire ──written by hyper──► Io ──► the peer
//!    └── dropped ──► Return ──► the owner: GOAWAY, close_notify, the end
//! ```
//!
//! What a goodbye is: over HTTP/2 GOAWAY with NO_ERROR (RFC 9113, section 6.8), over TLS `close_notify`
//! (RFC 8446, section 6.1). hyper says the first only on a way that waits for the peer, and neither where it is
//! dropped.
//!
//! A peer that has answered may close before it has read all of the request, and what is sent to it then fails. Its
//! answer is there all the same, behind which the end of the connection is read: so reads say what has become of it.
//!
//! Invariants:
//! - A stream is in one place: with hyper, on its return, or with whoever took it.
//! - A GOAWAY is put between frames, behind the preface, and never behind another one.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use quoit_net::http::Io;

use super::registry::Speaks;

/// GOAWAY (7): 8 bytes, of no stream; nothing of the peer's was looked at, for it may open no stream; NO_ERROR.
const GO_AWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Where a stream goes when hyper drops it.
#[derive(Default)]
pub(super) struct Return(Cell<Option<(Io, Written)>>);

impl Return {
    /// Brings back a stream that was taken, and on which HTTP/1 was spoken.
    pub(super) fn give_back(&self, io: Io) {
        self.0.set(Some((io, Written::new(Speaks::Http1))));
    }

    /// Says goodbye on the stream that has come back, if one has. That waits until the kernel has taken it, so it
    /// is to be bounded in time: a peer that takes nothing holds it up.
    pub(super) async fn say_goodbye(&self) -> io::Result<()> {
        let Some((io, written)) = self.0.take() else {
            return Ok(());
        };
        let last = if written.takes_goaway() { GO_AWAY } else { &[] };
        io.end(last).await
    }
}

/// A stream that hyper has.
pub(super) struct Wire {
    /// Until it is taken, or dropped.
    io: Option<Io>,
    written: Written,
    /// A write has met a peer that has gone.
    is_unheard: bool,
    back: Rc<Return>,
}

impl Wire {
    pub(super) fn new(io: Io, speaks: Speaks, back: &Rc<Return>) -> Self {
        Self {
            io: Some(io),
            written: Written::new(speaks),
            is_unheard: false,
            back: Rc::clone(back),
        }
    }

    /// Takes the stream, which comes back to nobody.
    pub(super) fn into_io(mut self) -> Io {
        self.io.take().expect("nobody else takes it")
    }

    fn io(&mut self) -> Pin<&mut Io> {
        Pin::new(self.io.as_mut().expect("it is there while somebody has it"))
    }

    /// Writes, unless the peer has gone: then it is for a read to fail.
    fn write<T>(
        &mut self,
        write: impl FnOnce(Pin<&mut Io>) -> Poll<io::Result<T>>,
        unheard: T,
    ) -> Poll<io::Result<T>> {
        if !self.is_unheard {
            match write(self.io()) {
                Poll::Ready(Err(error)) if is_gone(&error) => self.is_unheard = true,
                polled => return polled,
            }
        }
        match self.written.speaks {
            // No more of a body is asked for.
            Speaks::Http1 => Poll::Pending,
            // hyper reads nothing for as long as it cannot write. How much it has to say is bounded by windows.
            Speaks::Http2 => Poll::Ready(Ok(unheard)),
        }
    }
}

/// Returns whether a write has failed since the peer takes no more.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(io) = self.io.take() {
            self.back.0.set(Some((io, self.written)));
        }
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.io().poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.write(|io| io.poll_write(cx, buf), buf.len());
        if let Poll::Ready(Ok(count)) = polled {
            self.written.note(&buf[..count]);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        let polled = self.write(|io| io.poll_write_vectored(cx, bufs), length);
        if let Poll::Ready(Ok(count)) = polled {
            let mut left = count;
            for buf in bufs {
                let part = buf.len().min(left);
                self.written.note(&buf[..part]);
                left -= part;
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(|io| io.poll_flush(cx), ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}

/// How far the bytes that were written have come: the heads of frames are followed over them.
#[derive(Debug, Clone, Copy)]
struct Written {
    /// Of HTTP/1 nothing is followed.
    speaks: Speaks,
    /// What was written of the head of the next frame, or the frame under way.
    head: [u8; HEAD],
    head_length: usize,
    /// What is left of the preface, or of the frame under way behind its head.
    left: usize,
    said_preface: bool,
    said_goaway: bool,
}

const HEAD: usize = 9;
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

impl Written {
    fn new(speaks: Speaks) -> Self {
        Self {
            speaks,
            head: [0; HEAD],
            head_length: 0,
            left: PREFACE,
            said_preface: false,
            said_goaway: false,
        }
    }

    fn note(&mut self, mut bytes: &[u8]) {
        if self.speaks == Speaks::Http1 {
            return;
        }
        while !bytes.is_empty() {
            if self.left > 0 {
                let part = self.left.min(bytes.len());
                self.left -= part;
                self.said_preface |= self.left == 0;
                bytes = &bytes[part..];
                continue;
            }
            let part = (HEAD - self.head_length).min(bytes.len());
            let end = self.head_length + part;
            self.head[self.head_length..end].copy_from_slice(&bytes[..part]);
            self.head_length = end;
            bytes = &bytes[part..];
            if self.head_length == HEAD {
                self.head_length = 0;
                let [a, b, c, kind, ..] = self.head;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.said_goaway |= kind == GO_AWAY[3];
            }
        }
    }

    /// Returns whether a GOAWAY can come next, and is none too many.
    fn takes_goaway(&self) -> bool {
        let is_between = self.said_preface && self.left == 0 && self.head_length == 0;
        self.speaks == Speaks::Http2 && is_between && !self.said_goaway
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::net::TcpListener;

    use hyper::rt::ReadBuf;
    use quoit::op::nop;
    use quoit_net::TcpStream;

    use super::*;

    /// The peer closes without a look at what it was sent, which resets the connection: whoever writes meets that
    /// before anybody reads.
    #[test]
    fn what_a_peer_has_said_is_read_also_where_it_takes_no_more() {
        for speaks in [Speaks::Http1, Speaks::Http2] {
            let read = quoit::block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let stream = TcpStream::connect(listener.local_addr()?).await?;
                let (mut peer, _) = listener.accept()?;
                stream.write_all("a request").await.0?;
                peer.write_all(b"an answer")?;
                drop(peer);
                let mut wire = Wire::new(Io::new(stream), speaks, &Rc::default());
                while !wire.is_unheard {
                    poll_fn(|cx| {
                        let written = Pin::new(&mut wire).poll_write(cx, b"and more");
                        assert!(!matches!(written, Poll::Ready(Err(_))), "{written:?}");
                        let flushed = Pin::new(&mut wire).poll_flush(cx);
                        assert!(!matches!(flushed, Poll::Ready(Err(_))), "{flushed:?}");
                        Poll::Ready(())
                    })
                    .await;
                    nop().await?;
                }
                let mut place = [0; 16];
                let mut buf = ReadBuf::new(&mut place);
                poll_fn(|cx| Pin::new(&mut wire).poll_read(cx, buf.unfilled())).await?;
                Ok::<_, io::Error>(buf.filled().to_vec())
            });
            let read = read.expect("a ring").expect("it is read");
            assert_eq!(read, b"an answer", "{speaks:?}");
        }
    }

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("it is short").to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 1]);
        frame.extend(vec![7; payload]);
        frame
    }

    /// However the bytes are cut, a GOAWAY can come between frames and nowhere else.
    #[test]
    fn a_goaway_comes_between_frames_alone() {
        let mut bytes = vec![b'P'; PREFACE];
        let mut ends = vec![bytes.len()];
        for frame in [frame(4, 0), frame(0, 5), frame(1, 300), frame(6, 8)] {
            bytes.extend(frame);
            ends.push(bytes.len());
        }
        for step in [1, 2, 9, 14, bytes.len()] {
            let mut written = Written::new(Speaks::Http2);
            let mut count = 0;
            assert!(!written.takes_goaway(), "the preface comes first");
            for part in bytes.chunks(step) {
                written.note(part);
                count += part.len();
                assert_eq!(
                    written.takes_goaway(),
                    ends.contains(&count),
                    "{count} by {step}"
                );
            }
        }
    }

    #[test]
    fn a_goaway_is_said_once_and_only_in_http2() {
        let mut written = Written::new(Speaks::Http2);
        written.note(&[b'P'; PREFACE]);
        written.note(GO_AWAY);
        assert!(!written.takes_goaway());
        let mut written = Written::new(Speaks::Http1);
        written.note(&[b'P'; PREFACE]);
        assert!(!written.takes_goaway());
    }
}
