//! Series of requests of HTTP/1 on one connection, under seeds: of any size and kind, sent at once or one after the
//! other, taken as slowly as a client may, or left anywhere. Every answer is checked byte by byte against what was asked
//! for, and that each request was handled, told and counted once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::TRAILER;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use quoit::sim::{Sim, for_seeds};
use quoit::sync::Event;
use quoit::time::{Alarm, Instant, sleep};
use quoit::{Cores, spawn};
use quoit_net::TcpStream;
use quoit_net::http::{Incoming, Server};
use quoit_net::tcp::TcpOptions;

use crate::site::Failure;
use crate::support::{
    Clients, World, address, below, one_in, pass, pause_up_to, size, text, timed,
};

const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// More than a client takes who stays.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client may rest that takes its answers, and how often at most: longer than any head may take.
const REST: Duration = Duration::from_secs(4);
/// After that nobody is connected any more.
const GONE: Duration = Duration::from_secs(60);

// --- what can be asked for ---

/// How an answer comes, and what becomes of the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In one piece.
    Whole,
    /// In pieces that are there at once, of a size that is told or not.
    Known,
    Pieces,
    /// In pieces that are made meanwhile.
    Slow,
    /// Pieces, and a trailer.
    Trailers,
    /// Pieces, and a failure instead of the last.
    Fails,
    /// A head alone.
    Empty,
    NoContent,
    NotModified,
    /// What was sent, once it is there.
    Echo,
    /// What was sent, as it comes.
    Through,
    /// In one piece, at once; a task reads what was sent.
    Early,
    /// In one piece, at once; what was sent is kept until that is taken, and not read.
    Keeps,
    /// In one piece; nobody reads what was sent, or not all of it.
    Ignores,
    Begins,
}

const KINDS: [Kind; 15] = [
    Kind::Whole,
    Kind::Known,
    Kind::Pieces,
    Kind::Slow,
    Kind::Trailers,
    Kind::Fails,
    Kind::Empty,
    Kind::NoContent,
    Kind::NotModified,
    Kind::Echo,
    Kind::Through,
    Kind::Early,
    Kind::Keeps,
    Kind::Ignores,
    Kind::Begins,
];

/// A request, as both sides know it: its path says all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    client: usize,
    number: usize,
    kind: Kind,
    /// Which part of the text is the answer.
    from: usize,
    length: usize,
    /// How large pieces are.
    piece: usize,
    /// Which part of it is sent.
    sent_from: usize,
    sent_length: usize,
}

impl Asked {
    fn path(&self) -> String {
        let kind = KINDS.iter().position(|&kind| kind == self.kind);
        let kind = kind.expect("one of them");
        let Self {
            client,
            number,
            from,
            length,
            piece,
            sent_from,
            sent_length,
            ..
        } = *self;
        format!("/{client}/{number}/{kind}/{from}/{length}/{piece}/{sent_from}/{sent_length}")
    }

    fn of(path: &str) -> Self {
        let mut parts = path[1..]
            .split('/')
            .map(|part| part.parse().expect("a number"));
        let mut next = || parts.next().expect("a part");
        Self {
            client: next(),
            number: next(),
            kind: KINDS[next()],
            from: next(),
            length: next(),
            piece: next(),
            sent_from: next(),
            sent_length: next(),
        }
    }

    fn there(&self) -> Bytes {
        match self.kind {
            Kind::Echo | Kind::Through => self.sent(),
            Kind::Empty | Kind::NoContent | Kind::NotModified => Bytes::new(),
            _ => Bytes::from_static(text(self.from, self.length)),
        }
    }

    fn sent(&self) -> Bytes {
        Bytes::from_static(text(self.sent_from, self.sent_length))
    }

    fn status(&self) -> u16 {
        match self.kind {
            Kind::NoContent => 204,
            Kind::NotModified => 304,
            _ => 200,
        }
    }
}

// --- the server ---

/// What the server has done.
#[derive(Debug, Default)]
struct Book {
    handled: Mutex<HashMap<usize, Vec<usize>>>,
    /// What was told of requests: whether the answers were whole, and how many bytes they had.
    told: Mutex<HashMap<String, Vec<(bool, u64)>>>,
    /// Bodies that were read behind the answers: how many were begun, came whole, and failed.
    begun: AtomicU64,
    whole: AtomicU64,
    failed: AtomicU64,
}

impl Book {
    fn note_handled(&self, asked: &Asked) {
        let mut handled = self.handled.lock().expect("no panic");
        handled.entry(asked.client).or_default().push(asked.number);
    }
}

fn note(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn serve(book: &Arc<Book>) -> Server {
    let (book, told) = (Arc::clone(book), Arc::clone(book));
    let mut options = TcpOptions::new();
    if one_in(2) {
        options = options.send_buffer(1 + below(60_000));
    }
    Server::bind(address())
        .cores(Cores::Count(1 + below(2)))
        .options(options)
        .head_timeout(HEAD_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .stall_timeout(STALL_TIMEOUT)
        .on_trouble(|_| {})
        .on_answer(move |answered| {
            let mut told = told.told.lock().expect("no panic");
            let entries = told.entry(answered.uri.path().to_owned()).or_default();
            entries.push((answered.whole, answered.sent));
        })
        .serve(move |request| answer(request, Arc::clone(&book)))
        .expect("a server")
}

type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = Failure>>>;

async fn answer(
    mut request: Request<Incoming>,
    book: Arc<Book>,
) -> Result<Response<AnyBody>, Failure> {
    let asked = Asked::of(request.uri().path());
    book.note_handled(&asked);
    if one_in(4) {
        pause_up_to(30).await;
    }
    let mut pieces = Pieces::of(asked.there(), usize::MAX);
    pieces.is_known = true;
    let mut fields = HeaderMap::new();
    match asked.kind {
        Kind::Whole | Kind::Empty | Kind::NoContent | Kind::NotModified | Kind::Ignores => {}
        Kind::Known | Kind::Pieces | Kind::Slow => {
            pieces = Pieces::of(asked.there(), asked.piece);
            pieces.is_known = asked.kind == Kind::Known;
            pieces.is_slow = asked.kind == Kind::Slow;
        }
        Kind::Trailers => {
            fields.insert(TRAILER, HeaderValue::from_static("x-last"));
            let mut last = HeaderMap::new();
            last.insert("x-last", HeaderValue::from_static("word"));
            pieces = Pieces::of(asked.there(), asked.piece);
            pieces.last = Some(Ok(last));
        }
        Kind::Fails => {
            pieces = Pieces::of(asked.there(), asked.piece);
            pieces.left.pop_back();
            pieces.last = Some(Err("as it was told to".into()));
        }
        Kind::Echo => {
            let body = request.body_mut().collect().await?;
            pieces = Pieces::of(body.to_bytes(), asked.piece);
            pieces.is_known = one_in(2);
        }
        Kind::Through => {
            return Ok(Response::new(Box::pin(
                request.into_body().map_err(Failure::from),
            )));
        }
        Kind::Early => {
            drop(spawn(read_behind(request, asked, book)));
        }
        Kind::Keeps => pieces.kept = Some(request),
        Kind::Begins => {
            let _ = request.body_mut().frame().await;
        }
    }
    let mut answer = Response::new(Box::pin(pieces) as AnyBody);
    *answer.headers_mut() = fields;
    *answer.status_mut() = StatusCode::from_u16(asked.status())?;
    Ok(answer)
}

async fn read_behind(mut request: Request<Incoming>, asked: Asked, book: Arc<Book>) {
    note(&book.begun);
    let mut came = Vec::new();
    pause_up_to(50).await;
    while let Some(frame) = request.body_mut().frame().await {
        let Ok(frame) = frame else {
            return note(&book.failed);
        };
        if let Ok(data) = frame.into_data() {
            came.extend_from_slice(&data);
        }
        if one_in(4) {
            pause_up_to(50).await;
        }
    }
    assert!(came == asked.sent(), "{asked:?}: something else was sent");
    note(&book.whole);
    // It may be kept.
    if one_in(2) {
        pause_up_to(50).await;
    }
}

/// An answer in pieces.
struct Pieces {
    left: VecDeque<Bytes>,
    is_known: bool,
    is_slow: bool,
    pause: Option<Alarm>,
    last: Option<Result<HeaderMap, Failure>>,
    kept: Option<Request<Incoming>>,
}

impl Pieces {
    fn of(mut bytes: Bytes, size: usize) -> Self {
        let mut left = VecDeque::new();
        while !bytes.is_empty() {
            left.push_back(bytes.split_to(size.clamp(1, bytes.len())));
        }
        Self {
            left,
            is_known: false,
            is_slow: false,
            pause: None,
            last: None,
            kept: None,
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.is_slow && self.pause.is_none() && one_in(4) {
            let until = Instant::now() + Duration::from_micros(below(20_000) as u64);
            self.pause = Some(Alarm::at(until));
        }
        if let Some(pause) = &mut self.pause {
            ready!(Pin::new(pause).poll(cx));
            self.pause = None;
        }
        let next = self.left.pop_front().map(|piece| Ok(Frame::data(piece)));
        Poll::Ready(next.or_else(|| self.last.take().map(|last| last.map(Frame::trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_known && self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_known {
            true => SizeHint::with_exact(self.left.iter().map(|piece| piece.len() as u64).sum()),
            false => SizeHint::default(),
        }
    }
}

// --- the clients ---

/// What a connection has to come to behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    /// Whether it does depends on how much has come.
    MayEnd,
    Ends,
    /// It ends in the middle of it.
    IsCut,
}

/// A request as it is sent, and what it is answered with.
#[derive(Debug)]
struct Sent {
    asked: Option<Asked>,
    head: Vec<u8>,
    body: Vec<u8>,
    /// The body is sent once the client was told to go on.
    waits: bool,
    expects: bool,
    is_head: bool,
    then: Then,
}

impl Sent {
    fn some(client: usize, number: usize) -> Self {
        if one_in(40) {
            return Self {
                asked: None,
                head: b"no request\r\n\r\n".to_vec(),
                body: Vec::new(),
                waits: false,
                expects: false,
                is_head: false,
                then: Then::Ends,
            };
        }
        let mut kind = KINDS[below(KINDS.len())];
        if kind == Kind::Fails && !one_in(4) {
            kind = Kind::Whole;
        }
        let sends = match kind {
            Kind::Echo | Kind::Through | Kind::Early | Kind::Keeps => true,
            Kind::Ignores | Kind::Begins => one_in(2),
            _ => one_in(16),
        };
        let length = match one_in(4) {
            true => 1 + below(900_000),
            false => size(),
        };
        let asked = Asked {
            client,
            number,
            kind,
            from: below(1 << 19),
            length: length + usize::from(kind == Kind::Fails),
            piece: [1 + below(100), 1 + below(5_000), 1 + below(200_000)][below(3)]
                .max(length / 2_000),
            sent_from: below(1 << 19),
            sent_length: if sends { size().min(60_000) } else { 0 },
        };
        let is_whole = kind == Kind::Whole;
        let is_head = is_whole && one_in(4);
        let (version, mut then) = match is_whole && one_in(16) {
            true => ("1.0", Then::Ends),
            false => ("1.1", Then::GoesOn),
        };
        if kind == Kind::Fails {
            then = Then::IsCut;
        }
        let reads = matches!(kind, Kind::Echo | Kind::Through | Kind::Early);
        if sends && !reads && then == Then::GoesOn {
            then = Then::MayEnd;
        }
        let method = if is_head {
            "HEAD"
        } else if sends {
            "POST"
        } else {
            "GET"
        };
        let mut head = format!(
            "{method} {} HTTP/{version}\r\nhost: site\r\nte: trailers\r\n",
            asked.path()
        );
        if one_in(24) && then != Then::IsCut {
            head.push_str("connection: close\r\n");
            then = Then::Ends;
        } else if version == "1.0" && one_in(2) {
            head.push_str("connection: keep-alive\r\n");
            then = if sends { Then::MayEnd } else { Then::GoesOn };
        }
        // Whoever answers before has no need of it, and says nothing.
        let expects = asked.sent_length > 0 && kind == Kind::Echo && one_in(2);
        if expects {
            head.push_str("expect: 100-continue\r\n");
        }
        let body = if !sends {
            Vec::new()
        } else if version == "1.0" || one_in(2) {
            head.push_str(&format!("content-length: {}\r\n", asked.sent_length));
            asked.sent().to_vec()
        } else {
            head.push_str("transfer-encoding: chunked\r\n");
            in_chunks(&asked.sent())
        };
        head.push_str("\r\n");
        let waits = expects && one_in(2);
        Self {
            asked: Some(asked),
            head: head.into_bytes(),
            body,
            waits,
            expects,
            is_head,
            then,
        }
    }
}

fn in_chunks(bytes: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    let mut left = bytes;
    while !left.is_empty() {
        let (chunk, rest) = left.split_at((1 + below(20_000)).min(left.len()));
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
        left = rest;
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    chunks
}

/// What the reading and the writing side of a client tell each other.
#[derive(Debug, Default)]
struct Between {
    /// Told to go on with the body.
    goes_on: Event,
}

async fn send_some(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        let part = match below(4) {
            0 => 1 + below(8),
            1 => 1 + below(1_000),
            _ => left.len(),
        };
        let (piece, rest) = left.split_at(part.min(left.len()));
        stream.write_all(piece.to_vec()).await.0?;
        if one_in(4) {
            pause_up_to(10).await;
        }
        left = rest;
    }
    Ok(())
}

async fn send_all(
    stream: Rc<TcpStream>,
    sent: Rc<Vec<(Sent, Between)>>,
    at_once: bool,
) -> io::Result<()> {
    let mut gathered = Vec::new();
    for (request, between) in sent.iter() {
        gathered.extend_from_slice(&request.head);
        if request.waits {
            send_some(&stream, &gathered).await?;
            gathered.clear();
            if between.goes_on.wait().await.is_err() {
                return Ok(());
            }
        }
        gathered.extend_from_slice(&request.body);
        if !at_once || one_in(4) {
            send_some(&stream, &gathered).await?;
            gathered.clear();
            if one_in(4) {
                pause_up_to(500).await;
            }
        }
    }
    send_some(&stream, &gathered).await
}

/// How a client takes what it is sent.
#[derive(Debug)]
struct Pace {
    is_slow: bool,
    rests: u32,
    /// So many bytes are taken before it leaves.
    left: usize,
}

/// The reading side of a client.
#[derive(Debug)]
struct Wire {
    stream: Rc<TcpStream>,
    ahead: Vec<u8>,
    pace: Pace,
    /// The answer to which is taken, and whether that is to fail.
    now: Option<Asked>,
    may_fail: bool,
}

/// It has left, as it was told to.
#[derive(Debug)]
struct Left;

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Whole,
    /// The connection had ended before.
    Nothing,
    Cut,
}

impl Wire {
    /// Takes more; `false` at the end.
    async fn more(&mut self) -> Result<bool, Left> {
        if self.pace.rests > 0 && one_in(3) {
            self.pace.rests -= 1;
            let _ = sleep(REST).await;
        } else if self.pace.is_slow && one_in(2) {
            pause_up_to(100).await;
        }
        if self.pace.left == 0 {
            return Err(Left);
        }
        let chunk = match self.stream.recv().await {
            Ok(chunk) => chunk,
            // Of a connection that fails the rest of what came may be unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && self.may_fail => None,
            Err(error) => panic!("{:?}: {error}", self.now),
        };
        let Some(chunk) = chunk else {
            return Ok(false);
        };
        self.pace.left = self.pace.left.saturating_sub(chunk.len());
        self.ahead.extend_from_slice(&chunk);
        Ok(true)
    }

    async fn line(&mut self) -> Result<Option<String>, Left> {
        let mut seen = 0;
        loop {
            let found = self.ahead[seen..].windows(2).position(|two| two == b"\r\n");
            if let Some(end) = found.map(|at| seen + at) {
                let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
                self.ahead.drain(..end + 2);
                return Ok(Some(line));
            }
            seen = self.ahead.len().saturating_sub(1);
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Takes so many bytes, or what there is of them.
    async fn up_to(&mut self, count: usize) -> Result<Vec<u8>, Left> {
        while self.ahead.len() < count && self.more().await? {}
        let rest = self.ahead.split_off(count.min(self.ahead.len()));
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    /// Takes an answer and checks it.
    async fn answer(&mut self, request: &Sent, between: &Between) -> Result<Came, Left> {
        let asked = &request.asked;
        self.now = *asked;
        self.may_fail = request.then == Then::IsCut;
        let expected = asked.as_ref().map_or(Bytes::new(), Asked::there);
        let mut went_on = false;
        let (length, status) = loop {
            if self.ahead.is_empty() && !self.more().await? {
                assert!(!went_on, "{asked:?}: told to go on, and nothing else");
                return Ok(Came::Nothing);
            }
            let Some(line) = self.line().await? else {
                panic!("{asked:?}: half a line of a head");
            };
            let code = line
                .strip_prefix("HTTP/1.1 ")
                .or_else(|| line.strip_prefix("HTTP/1.0 "));
            let status = code
                .and_then(|rest| rest.get(..3))
                .and_then(|code| code.parse().ok());
            let status: u16 =
                status.unwrap_or_else(|| panic!("{asked:?}: {line:?} begins no answer"));
            let (mut length, mut is_chunked) = (None, false);
            loop {
                let Some(line) = self.line().await? else {
                    panic!("{asked:?}: half a head");
                };
                let line = line.to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = Some(value.parse::<usize>().expect("a length is a number"));
                }
                is_chunked |= line == "transfer-encoding: chunked";
            }
            if status == 100 {
                assert!(
                    request.expects && !went_on,
                    "{asked:?}: nobody waits for that"
                );
                went_on = true;
                between.goes_on.set();
                continue;
            }
            assert!(length.is_none() || !is_chunked, "{asked:?}: two lengths");
            break (length, status);
        };
        assert_eq!(
            status,
            asked.as_ref().map_or(400, Asked::status),
            "{asked:?}"
        );
        assert_eq!(went_on, request.expects, "{asked:?}");
        let has_none = request.is_head || matches!(status, 204 | 304);
        if has_none {
            // Of a head without content it need not be said.
            let told = (status == 200 && !expected.is_empty()).then_some(expected.len());
            assert_eq!(length, told, "{asked:?}");
            return Ok(Came::Whole);
        }
        let body = match length {
            Some(length) => self.up_to(length).await?,
            None => {
                let mut body = Vec::new();
                loop {
                    let Some(line) = self.line().await? else {
                        return self.check_cut(asked, &body, &expected);
                    };
                    let size = usize::from_str_radix(&line, 16);
                    let size = size.unwrap_or_else(|_| panic!("{asked:?}: {line:?} is no size"));
                    let part = self.up_to(size).await?;
                    let is_whole = part.len() == size;
                    body.extend_from_slice(&part);
                    if !is_whole {
                        return self.check_cut(asked, &body, &expected);
                    }
                    let mut line = self.line().await?;
                    if size == 0 && line.as_deref() == Some("x-last: word") {
                        line = self.line().await?;
                    }
                    match line.as_deref() {
                        Some("") if size == 0 => break,
                        Some("") => {}
                        Some(line) => panic!("{asked:?}: {line:?} ends no chunk"),
                        None => return self.check_cut(asked, &body, &expected),
                    }
                }
                body
            }
        };
        if length.is_some_and(|length| body.len() < length) {
            return self.check_cut(asked, &body, &expected);
        }
        let same = body
            .iter()
            .zip(&expected)
            .take_while(|(one, other)| one == other);
        let (same, came, wanted) = (same.count(), body.len(), expected.len());
        assert!(
            same == came && came == wanted,
            "{asked:?}: {came} of {wanted} bytes, another at {same}"
        );
        Ok(Came::Whole)
    }

    fn check_cut(&self, asked: &Option<Asked>, body: &[u8], expected: &[u8]) -> Result<Came, Left> {
        assert!(expected.starts_with(body), "{asked:?}: it begins otherwise");
        Ok(Came::Cut)
    }
}

/// What clients have seen.
#[derive(Debug, Default)]
struct Seen {
    /// Requests whose answers they have.
    answered: Mutex<Vec<Asked>>,
    /// How many answers were cut, and how many clients have left before the end.
    cut: AtomicU64,
    left: AtomicU64,
}

async fn ask(client: usize, seen: Arc<Seen>) {
    let mut options = TcpOptions::new();
    if one_in(2) {
        options = options.receive_buffer(1 + below(10_000));
    }
    let stream = TcpStream::connect_with(address(), &options)
        .await
        .expect("it listens");
    let stream = Rc::new(stream);
    let leaves = one_in(4);
    let mut wire = Wire {
        stream: Rc::clone(&stream),
        ahead: Vec::new(),
        now: None,
        may_fail: false,
        pace: Pace {
            is_slow: one_in(2),
            rests: [0, 0, 1, 3][below(4)],
            left: if leaves { below(400_000) } else { usize::MAX },
        },
    };
    let sent = (0..1 + below(12)).map(|number| (Sent::some(client, number), Between::default()));
    let sent = Rc::new(sent.collect::<Vec<_>>());
    let writer = spawn(send_all(stream.clone(), Rc::clone(&sent), one_in(2)));
    match take_all(&mut wire, &sent, &seen).await {
        Ok(true) => {
            let written = writer.await.expect("no panic");
            written.expect("the server takes it all");
            match below(3) {
                // It ends once it is idle.
                0 => {}
                1 => stream.shutdown(Shutdown::Write).expect("it is open"),
                _ => return,
            }
            // Who has taken all of it has no reason to leave.
            wire.pace.left = usize::MAX;
            assert!(
                !wire.more().await.expect("it stays"),
                "nobody has asked for more"
            );
        }
        Ok(false) => {
            // What is still to be sent nobody wants.
            writer.cancel();
            let _ = writer.await;
        }
        Err(Left) => {
            note(&seen.left);
            writer.cancel();
            let _ = writer.await;
        }
    }
}

/// Takes all answers. Returns whether the connection goes on.
async fn take_all(wire: &mut Wire, sent: &[(Sent, Between)], seen: &Seen) -> Result<bool, Left> {
    let mut may_end = false;
    for (request, between) in sent {
        let asked = &request.asked;
        let came = wire.answer(request, between).await?;
        if came == Came::Nothing {
            assert!(
                may_end || request.then == Then::IsCut,
                "{asked:?}: no answer"
            );
            return Ok(false);
        }
        if request.then == Then::IsCut {
            assert_eq!(came, Came::Cut, "{asked:?}");
            note(&seen.cut);
            return Ok(false);
        }
        assert_eq!(came, Came::Whole, "{asked:?}");
        if let Some(asked) = asked {
            seen.answered.lock().expect("no panic").push(*asked);
        }
        if request.then == Then::Ends {
            assert!(wire.ahead.is_empty(), "{asked:?}: something is behind it");
            assert!(!wire.more().await?, "{asked:?}: something is behind it");
            return Ok(false);
        }
        may_end |= request.then == Then::MayEnd;
    }
    Ok(!may_end)
}

fn series_under(sim: Sim) {
    World::Kind.of(sim).run(|| {
        let (book, seen) = (Arc::new(Book::default()), Arc::new(Seen::default()));
        let server = serve(&book);
        let mut clients = Clients::on(1 + below(2));
        for client in 0..1 + below(6) {
            let seen = Arc::clone(&seen);
            clients.start(move || ask(client, seen));
        }
        clients.end();
        pass(GONE);
        check(&server, &book, &seen);
        let (report, took) = timed(|| server.shutdown(GONE));
        assert_eq!(report.expect("no core failed").cut, 0);
        assert!(
            took < Duration::from_secs(1),
            "nobody is connected: {took:?}"
        );
    });
}

/// Checks what the server says against what the clients have seen.
fn check(server: &Server, book: &Book, seen: &Seen) {
    let handle = server.handle();
    assert_eq!(handle.open_connections(), 0, "nobody is connected");
    let handled = book.handled.lock().expect("no panic");
    for (client, numbers) in &*handled {
        let in_order = numbers.iter().copied().eq(0..numbers.len());
        assert!(in_order, "client {client} has asked otherwise: {numbers:?}");
    }
    let told = book.told.lock().expect("no panic");
    let all: usize = handled.values().map(Vec::len).sum();
    assert_eq!(told.len(), all, "each is told of");
    for (path, entries) in &*told {
        assert_eq!(entries.len(), 1, "{path} is told of once: {entries:?}");
    }
    for asked in &*seen.answered.lock().expect("no panic") {
        let told = told[&asked.path()][0];
        let length = match told.1 {
            // Of a head alone nothing is sent.
            0 => 0,
            _ => asked.there().len() as u64,
        };
        assert_eq!(told, (true, length), "{asked:?}");
    }
    let snapshot = handle.snapshot();
    let count = |name, label| -> u64 {
        let cores = snapshot.cores.iter();
        cores
            .map(|core| core.count(name, label).expect("it is counted"))
            .sum()
    };
    assert_eq!(count("requests", Some("http1")), all as u64);
    let whole = told.values().filter(|entries| entries[0].0).count() as u64;
    assert_eq!(snapshot.merged("request").count(), whole);
    let others = count("given_up", None) + count("failed", None);
    assert_eq!(whole + others, all as u64);
    assert_eq!(count("late", None), 0);
    let behind = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!(
        behind(&book.begun),
        behind(&book.whole) + behind(&book.failed)
    );
    if behind(&seen.left) == 0 {
        assert!(count("failed", None) >= behind(&seen.cut));
    }
}

#[test]
fn whatever_is_asked_for_on_one_connection_comes_in_order_and_whole() {
    for_seeds(0..100, series_under);
}
