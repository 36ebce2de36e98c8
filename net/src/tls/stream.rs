//! `TlsStream`: bytes both ways, encrypted on the way.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr};

use quoit::buf::Chunk;
use quoit::op::Stream;
use quoit::sync::Mutex;

use super::TlsInfo;
use super::session::{Plain, Session};

/// A TLS connection on one core, of either side.
///
/// One task at a time may receive; writes of several tasks go out one after the other, each as a whole.
#[derive(Debug)]
pub struct TlsStream {
    stream: Stream,
    session: RefCell<Session>,
    /// What was received and had no room in the session yet.
    rest: RefCell<Option<Chunk>>,
    /// Whose turn it is to write: a write of several pieces is one.
    turn: Mutex<()>,
    /// A record was lost on its way out: nothing after it can be understood.
    is_broken: Cell<bool>,
}

/// Notes, if it is not told better, that a write did not come to its end.
struct Breaks<'a>(Option<&'a Cell<bool>>);

impl Drop for Breaks<'_> {
    fn drop(&mut self) {
        if let Some(is_broken) = self.0 {
            is_broken.set(true);
        }
    }
}

/// As much plain text as is encrypted for one send.
const PIECE: usize = 64 * 1024;

impl TlsStream {
    pub(crate) fn new(stream: Stream, session: Session, rest: Option<Chunk>) -> Self {
        Self {
            stream,
            session: RefCell::new(session),
            rest: RefCell::new(rest),
            turn: Mutex::new(()),
            is_broken: Cell::new(false),
        }
    }

    pub(crate) fn into_parts(self) -> (Stream, Session, Option<Chunk>) {
        (
            self.stream,
            self.session.into_inner(),
            self.rest.into_inner(),
        )
    }

    /// Returns what the handshake has come to.
    pub fn info(&self) -> TlsInfo {
        self.session.borrow().info()
    }

    /// Returns the peer's address.
    ///
    /// # Errors
    ///
    /// Those of `getpeername(2)`: the connection may be gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Waits for bytes; none at the end of the stream, if the peer has said that it is the end.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof`: the connection ended without a word of the peer's, and what came may have
    /// been cut off. `InvalidData` with the cause, a [`rustls::Error`]. Those of
    /// [`TcpStream::recv`](crate::TcpStream::recv). Cancelled, nothing that came is lost. Where the peer demands new keys, this
    /// sends as well; cancelled in the middle of that, it breaks the way out.
    pub async fn recv(&self) -> io::Result<Vec<u8>> {
        // What lies there already, the end as well, is not to be had in a cancelled scope.
        quoit::op::entry().await?;
        let mut plain = Vec::new();
        loop {
            let found = self.session.borrow_mut().plain(|bytes| {
                plain.extend_from_slice(bytes);
                bytes.len()
            })?;
            match found {
                Plain::Taken | Plain::End => return Ok(plain),
                Plain::None => {}
            }
            let rest = self.rest.take();
            let received = match rest {
                Some(rest) => Some(rest),
                None => self.stream.receive().await?,
            };
            let Some(mut chunk) = received else {
                self.session.borrow_mut().receive_end();
                continue;
            };
            let fed = self.session.borrow_mut().receive(&mut chunk);
            if !chunk.is_empty() && fed.is_ok() {
                self.rest.replace(Some(chunk));
            }
            // Tickets, new keys, or why the peer was not understood. What has come counts more than that the peer did
            // not take this: whoever writes next hears of that.
            let _ = self.send_what_waits().await;
            fed?;
        }
    }

    /// Writes all of these bytes.
    ///
    /// # Errors
    ///
    /// Those of [`TcpStream::write_all`](crate::TcpStream::write_all). After a write that failed or was cancelled once it had begun
    /// the stream is broken, and says so: a record without its end cannot be followed by another. `BrokenPipe` also
    /// where the keys of a connection of TLS 1.2 have been used for as much as is safe, some millions of writes.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let _turn = self.turn.lock().await?;
        let mut breaks = Breaks(None);
        let mut left = bytes;
        loop {
            // As every op: what is refused was not encrypted.
            quoit::op::entry().await?;
            self.check_unbroken()?;
            if !left.is_empty() {
                let piece = &left[..left.len().min(PIECE)];
                let mut out = Vec::with_capacity(piece.len() + 512);
                let taken = self.session.borrow_mut().send(piece, &mut out);
                // Without its other pieces this one cannot be followed by anything either.
                breaks.0 = Some(&self.is_broken);
                // Or a goodbye, if it was not taken.
                let sent = self.send(out).await;
                left = &left[taken?..];
                sent?;
            }
            if left.is_empty() {
                breaks.0 = None;
                return Ok(());
            }
        }
    }

    /// Says that nothing comes any more (`close_notify`), and ends this side of the connection. In a
    /// cancelled scope it is refused; say goodbye behind a shield.
    ///
    /// # Errors
    ///
    /// As for [`TlsStream::write_all`], and those of `shutdown(2)`.
    pub async fn shutdown(&self) -> io::Result<()> {
        let _turn = self.turn.lock().await?;
        self.check_unbroken()?;
        let mut out = Vec::new();
        self.session.borrow_mut().say_goodbye(&mut out);
        self.send(out).await?;
        self.stream.shutdown(Shutdown::Write)
    }

    /// Sends what rustls wants to say by itself; later, where the scope is cancelled.
    async fn send_what_waits(&self) -> io::Result<()> {
        if quoit::is_cancelled() || self.is_broken.get() {
            return Ok(());
        }
        let mut out = Vec::new();
        self.session.borrow_mut().flush(&mut out);
        self.send(out).await
    }

    /// Sends records. They stand in line for the network before anybody else can encrypt: a write
    /// takes its place when it is polled first, and no cancel comes in between.
    async fn send(&self, records: Vec<u8>) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut breaks = Breaks(Some(&self.is_broken));
        self.stream.send_all(records).await.0?;
        // Somebody before us in the line may have given up meanwhile.
        self.check_unbroken()?;
        breaks.0 = None;
        Ok(())
    }

    fn check_unbroken(&self) -> io::Result<()> {
        if self.is_broken.get() {
            let what = "a write of this TLS stream was given up half-way: nothing can follow it";
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, what));
        }
        Ok(())
    }
}
