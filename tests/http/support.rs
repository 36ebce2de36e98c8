//! What the tests of the server share: servers to begin with, bodies that are watched, and what
//! each side says.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use quoit::{CoreMetrics, Cores};
use quoit_net::http::{Builder, Server};
use quoit_net::tcp::TcpOptions;
use tests::Counted;
use tests::http_client::pause;

/// A time that no test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Begins a server of one core on a free port, with patience that no test exhausts.
pub(crate) fn one_core() -> Builder<&'static str> {
    Server::bind("127.0.0.1:0")
        .cores(Cores::Count(1))
        .idle_timeout(LONG)
        .head_timeout(LONG)
        .stall_timeout(LONG)
}

/// The same on every core.
pub(crate) fn all_cores() -> Builder<&'static str> {
    one_core().cores(Cores::All)
}

/// Little room in the kernel, so that what a client does not take soon holds the server up.
pub(crate) fn narrow() -> TcpOptions {
    TcpOptions::new().send_buffer(64 * 1024)
}

pub(crate) type Text = Response<Full<Bytes>>;

/// An answer that is a text.
pub(crate) fn text(text: impl Into<Bytes>) -> Result<Text, Infallible> {
    Ok(Response::new(Full::new(text.into())))
}

/// Waits until the cores have nothing more to do by themselves, and returns their counters.
pub(crate) fn at_rest(server: &Server) -> Vec<CoreMetrics> {
    let mut before = server.metrics();
    loop {
        pause(Duration::from_millis(50));
        let now = server.metrics();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// A body that is made while it is sent: pieces that each say at which place they belong.
#[derive(Debug)]
pub(crate) struct Pieces {
    next: u64,
    count: u64,
    made: Arc<AtomicU64>,
    _counted: Option<Counted>,
}

/// How large a piece is.
pub(crate) const PIECE: usize = 16 * 1024;

impl Pieces {
    /// A body of so many pieces.
    pub(crate) fn new(count: u64) -> Self {
        Self {
            next: 0,
            count,
            made: Arc::default(),
            _counted: None,
        }
    }

    /// Says in `made` how many bytes were asked for so far.
    pub(crate) fn counting(mut self, made: &Arc<AtomicU64>) -> Self {
        self.made = Arc::clone(made);
        self
    }

    /// Keeps a value as long as the body lives.
    pub(crate) fn holding(mut self, counted: Counted) -> Self {
        self._counted = Some(counted);
        self
    }
}

/// Makes the piece for a place.
fn piece(place: u64) -> Vec<u8> {
    let mut piece = vec![(place % 251) as u8; PIECE];
    piece[..8].copy_from_slice(&place.to_be_bytes());
    piece
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.next == self.count {
            return Poll::Ready(None);
        }
        let made = piece(self.next);
        self.next += 1;
        self.made.fetch_add(PIECE as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(made.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.count - self.next) * PIECE as u64)
    }
}

/// Checks what came of [`Pieces`], byte by byte.
#[derive(Debug, Default)]
pub(crate) struct Check {
    waiting: Vec<u8>,
    next: u64,
}

impl Check {
    /// Takes the next bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        let whole = self.waiting.len() / PIECE * PIECE;
        for came in self.waiting[..whole].chunks(PIECE) {
            assert!(came == piece(self.next), "piece {} is another", self.next);
            self.next += 1;
        }
        self.waiting.drain(..whole);
    }

    /// Returns how many bytes came.
    pub(crate) fn taken(&self) -> u64 {
        self.next * PIECE as u64 + self.waiting.len() as u64
    }
}
