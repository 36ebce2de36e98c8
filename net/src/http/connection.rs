//! One HTTP connection, from its first byte to its end.
//!
//! Which protocol it speaks is seen from its first bytes: HTTP/2 with prior knowledge begins with a
//! preface that is no HTTP/1 request (RFC 9113, section 3.4).

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::{self, Future};
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::rt::Write;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use quoit::op::{Credentials, Stream};
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{Cancelled, CarriesCancelled, CoreId, Group, Scope, isolating_group};

use super::activity::Activity;
use super::course::{Audit, Spare};
use super::exchange::{Common, Dates, Exchange};
use super::figures::Figures;
use super::incoming::ClientsDoing;
use super::line::Line;
use super::lookout::{Lookout, Verdict};
use super::outgoing::Outgoing;
use super::own_answer::OwnAnswers;
use super::page::PageSite;
use super::streams::Streams;
use super::strict::{KnownHost, Strictness};
use super::trouble::Listener;
use super::upgrade::Switch;
use super::{BoxError, Incoming, Io, Timer};
use crate::Address;
use crate::tls::{self, ServerTls, TlsInfo};

/// What a connection may ask of the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) idle_timeout: Duration,
    pub(super) request_timeout: Option<Duration>,
    pub(super) head_timeout: Duration,
    pub(super) body_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) handler_timeout: Option<Duration>,
    pub(super) max_head: usize,
    pub(super) max_body: u64,
    pub(super) max_concurrent_streams: u32,
    pub(super) strictness: Strictness,
    /// Of one core.
    pub(super) max_connections: usize,
}

/// Whose a request is: [`Incoming::peer`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The client's address.
    pub address: Address,
    /// Who the client is, on a Unix socket.
    pub credentials: Option<Credentials>,
    /// The core that has the connection.
    pub core: CoreId,
    /// What the TLS handshake has come to; `None` without TLS.
    pub tls: Option<Arc<TlsInfo>>,
}

/// What a connection is to its requests.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) peer: Peer,
    /// How it goes on as something else, in HTTP/1.
    pub(super) switch: Option<Switch>,
}

/// Whose a connection is, as the kernel says.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) accepted: Instant,
    pub(super) address: Address,
    pub(super) credentials: Option<Credentials>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(75),
            request_timeout: None,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            handler_timeout: None,
            max_head: 64 * 1024,
            max_body: 16 * 1024 * 1024,
            max_concurrent_streams: super::http2::MAX_CONCURRENT_STREAMS,
            strictness: Strictness::Strict,
            max_connections: 16 * 1024,
        }
    }
}

/// What the connections of a core share.
#[derive(Debug)]
pub(super) struct Site<H> {
    pub(super) handler: H,
    pub(super) limits: Limits,
    pub(super) tls: Option<ServerTls>,
    pub(super) listener: Listener,
    pub(super) draining: Draining,
    pub(super) figures: Rc<Figures>,
    pub(super) spare: Rc<Spare>,
    pub(super) page: Option<PageSite>,
    pub(super) audit: Option<Audit>,
}

/// Whether the server drains, and what time it is.
#[derive(Debug, Default)]
pub(super) struct Draining {
    begun: Event,
    last_call: Cell<Duration>,
    pub(super) date: Rc<Date>,
}

/// What the answers of a core are dated with, written anew each second: until when it holds.
#[derive(Debug, Default)]
pub(super) struct Date {
    written: RefCell<Option<(Instant, HeaderValue)>>,
    /// The latest that the wall clock has said, and when it is looked at again.
    latest: Cell<Duration>,
    look_at: Cell<Option<Instant>>,
    is_set_back: Cell<bool>,
}

impl Date {
    /// Returns whether the wall clock was set back, and has not come to where it was: hyper's date stands still
    /// until then. Looked at once a second.
    pub(super) fn is_set_back(&self) -> bool {
        let now = Instant::recent();
        if self.look_at.get().is_none_or(|at| now >= at) {
            self.look_at.set(Some(now + SECOND));
            let clock = quoit::time::wall_clock().duration_since(UNIX_EPOCH);
            self.note_clock(clock.unwrap_or_default());
        }
        self.is_set_back.get()
    }

    fn note_clock(&self, clock: Duration) {
        self.is_set_back.set(clock < self.latest.get());
        self.latest.set(self.latest.get().max(clock));
    }

    pub(super) fn now(&self) -> HeaderValue {
        let mut written = self.written.borrow_mut();
        // By the turn's time: no clock is read for each answer.
        if let Some((until, date)) = &*written
            && Instant::recent() < *until
        {
            return date.clone();
        }
        let now = quoit::time::wall_clock();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let date = HeaderValue::try_from(httpdate::fmt_http_date(UNIX_EPOCH + since))
            .expect("a date is letters and digits");
        let until = Instant::now() + (SECOND - Duration::from_nanos(since.subsec_nanos().into()));
        *written = Some((until, date.clone()));
        date
    }
}

const SECOND: Duration = Duration::from_secs(1);

impl Draining {
    /// Begins to drain, with this much patience in all.
    pub(super) fn begin(&self, grace: Duration) {
        self.last_call.set(LAST_CALL.min(grace / 2));
        self.begun.set();
    }

    pub(super) fn is_set(&self) -> bool {
        self.begun.is_set()
    }

    async fn wait(&self) -> Result<(), Cancelled> {
        self.begun.wait().await
    }
}

/// How long a connection on which nothing has begun stays open when the server begins to drain; at
/// most half of the grace period.
const LAST_CALL: Duration = Duration::from_millis(500);

/// How long a client of HTTP/2 that is owed nothing may take to answer the goodbye of a server that drains: a few round
/// trips of any network.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often it is looked at most whether something takes too long on a connection of HTTP/2: a timeout that is next to
/// nothing is not to keep the core busy.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// HTTP/2's preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection until it ends; once `draining` is set, it answers what was asked and ends.
///
/// The connection is a group, and requests are its children.
pub(super) async fn serve<H, F, B, E>(
    stream: Stream,
    client: Client,
    activity: Rc<Activity>,
    site: Rc<Site<H>>,
) -> Result<(), BoxError>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
    E: Into<BoxError> + 'static,
{
    let met = Scope::new()
        .timeout(site.limits.head_timeout)
        .run(meet(stream, activity, &site))
        .await?;
    // Nothing came in time, or the server stops and nothing had come.
    let Some(Some(met)) = met else {
        return Ok(());
    };
    let served = isolating_group(async |group| Ok(speak(group, client, met, site).await));
    match served.await {
        Ok(served) => served.unwrap_or(Ok(())),
        Err(error) => Err(Cancelled::from(error).into()),
    }
}

async fn speak<H, F, B, E>(
    group: Group<Cancelled>,
    client: Client,
    met: Met,
    site: Rc<Site<H>>,
) -> Result<(), BoxError>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
    E: Into<BoxError> + 'static,
{
    let limits = site.limits;
    let Met { protocol, io, tls } = met;
    let peer = Peer {
        address: client.address,
        credentials: client.credentials,
        core: CoreId::current().expect("a connection is on a core"),
        tls: tls.map(Arc::new),
    };
    let mut io = io.stall_timeout(limits.stall_timeout);
    let activity = io.activity();
    if protocol == Protocol::Http2 {
        io.follow_frames();
        activity.tell_failures_to(site.listener.clone(), peer.address.clone());
    }
    // The bytes that told the protocol are the beginning of a request.
    activity.note_received(PREFACE);
    activity.record_in(Rc::clone(&site.figures), client.accepted);
    let line = Rc::new(Line::new(Rc::clone(&site)));
    let dates = Dates::of(protocol);
    let connected = Rc::new(Connected {
        peer,
        switch: (protocol == Protocol::Http1).then(Switch::default),
    });
    let common = Rc::new(Common {
        protocol,
        group,
        site: Rc::clone(&site),
        connected: Rc::clone(&connected),
        activity: Rc::clone(&activity),
        line: Rc::clone(&line),
        dates,
        known: KnownHost::default(),
    });
    let service = service_fn(move |request| Exchange::begin(&common, request));
    let finish = Cell::new(false);
    let outgoing = io.by_turns();
    match protocol {
        Protocol::Http1 => {
            // Not `pipeline_flush`: for as long as hyper has anything more to read it keeps what it has to say,
            // a body of any length as well, also where that is half a request; the answer to a malformed one
            // it leaves unsent. `Io` gathers the answers to pipelined requests by itself.
            let date = (dates == Dates::Own).then(|| Rc::clone(&site.draining.date));
            let own = OwnAnswers::new(date, limits.max_head);
            let io = io.own_answers(own);
            let mut builder = http1::Builder::new();
            builder
                .timer(Timer)
                .auto_date_header(dates == Dates::Hyper)
                // The lookout sees to it.
                .header_read_timeout(None)
                .max_header_size(limits.max_head);
            // Small answers cost hyper less if it copies bodies behind their heads (530 instructions of 6 800). Large
            // ones would be copied twice, and its buffer keep the size of the largest: then it begins anew, at rest.
            let copies = site.figures.bulk.will_be_small();
            if copies {
                activity.note_copies();
            }
            builder.writev(!copies);
            // In a place of its own: a connection is what it is of one protocol, and moved no more.
            let mut connection = Box::new(builder.serve_connection(io, service));
            {
                let mut watch = pin!(watch(&activity, &outgoing, limits, &site.draining, &finish));
                let tell = http1::Connection::graceful_shutdown;
                loop {
                    let driven = Pin::new(&mut *connection);
                    let driven = drive(driven, tell, &finish, &activity, &outgoing, watch.as_mut());
                    match driven.await {
                        Driven::Ended(Ok(())) => break,
                        Driven::Ended(Err(error)) => {
                            let mut io = connection.into_parts().io;
                            // What failed is told; that the client hears no more of it is not.
                            let _ = future::poll_fn(|cx| io.poll_cut(cx)).await;
                            return Err(error.into());
                        }
                        Driven::Cut => return Ok(()),
                        Driven::AtRest => {
                            let parts = connection.into_parts();
                            let mut io = parts.io;
                            io.begin_anew(&parts.read_buf);
                            builder.writev(true);
                            *connection = builder.serve_connection(io, parts.service);
                        }
                        Driven::Idle => break,
                    }
                }
            }
            let mut parts = connection.into_parts();
            if let Some(then) = connected.switch.as_ref().and_then(Switch::take) {
                drop(outgoing);
                activity.note_upgrade();
                then(parts.io.into_upgraded(parts.read_buf).await?).await;
            } else {
                // hyper has done so, unless the client has asked for an upgrade once, which nobody has given it.
                let io = &mut parts.io;
                future::poll_fn(|cx| Pin::new(&mut *io).poll_shutdown(cx)).await?;
            }
        }
        Protocol::Http2 => {
            let streams = Streams::new(group, Rc::clone(&line));
            let builder = super::http2::builder(&limits, streams);
            let mut connection = Box::pin(builder.serve_connection(io, service));
            let watch = pin!(watch_streams(&activity, limits, &site.draining, &finish));
            let tell = http2::Connection::graceful_shutdown;
            let driven = drive(
                connection.as_mut(),
                tell,
                &finish,
                &activity,
                &outgoing,
                watch,
            );
            let ended = match driven.await {
                Driven::Ended(ended) => ended,
                Driven::Cut => Ok(()),
                Driven::AtRest | Driven::Idle => unreachable!("HTTP/2 has no such rest"),
            };
            ended.map_err(|error| {
                if activity.is_flooded() {
                    "the client sent too many frames that ask for nothing".into()
                } else if activity.has_left() {
                    // hyper says of it what was wrong with its last frame.
                    io::Error::from(io::ErrorKind::UnexpectedEof).into()
                } else {
                    BoxError::from(error)
                }
            })?;
        }
    }
    Ok(())
}

/// Where a connection has come to.
enum Driven<E> {
    /// It has ended.
    Ended(Result<(), E>),
    /// It was cut.
    Cut,
    /// It goes on, and hyper is to begin anew: it has nothing that it would lose.
    AtRest,
    /// It shall finish, and hyper, which has begun anew, would wait for a request that has not begun.
    Idle,
}

/// Polls a connection until it ends or `watch` says to cut it; tells it once when it shall finish
/// what it has begun.
async fn drive<C, E>(
    mut connection: Pin<&mut C>,
    tell: impl Fn(Pin<&mut C>),
    finish: &Cell<bool>,
    activity: &Activity,
    outgoing: &RefCell<Outgoing>,
    mut watch: Pin<&mut impl Future<Output = Result<(), Cancelled>>>,
) -> Driven<E>
where
    C: Future<Output = Result<(), E>>,
{
    let mut watching = true;
    let mut told = false;
    let ended = future::poll_fn(|cx| {
        let mut has_settled = false;
        loop {
            if finish.get() && !told {
                if activity.is_idle_anew() {
                    return Poll::Ready(Some(Driven::Idle));
                }
                told = true;
                tell(connection.as_mut());
            }
            let is_rest = activity.take_rest();
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                outgoing.borrow().note_end_of_turn();
                return Poll::Ready(Some(Driven::Ended(ended)));
            }
            if is_rest {
                activity.note_rest();
            }
            if !outgoing.borrow_mut().end_turn(cx) {
                // The connection is to hear of it at once.
                continue;
            }
            if activity.is_to_settle() {
                if !mem::replace(&mut has_settled, true) {
                    continue;
                }
                // It had more to do then: others have their turns before.
                cx.waker().wake_by_ref();
            } else if activity.is_to_begin_anew() && !finish.get() {
                return Poll::Ready(Some(Driven::AtRest));
            }
            // After the connection, of which it is to see where it stands now.
            if watching && let Poll::Ready(verdict) = watch.as_mut().poll(cx) {
                if verdict.is_ok() {
                    return Poll::Ready(None);
                }
                // Cancelled: what the connection does next will say so.
                watching = false;
                finish.set(true);
            }
            if told || !finish.get() {
                return Poll::Pending;
            }
        }
    })
    .await;
    if matches!(ended, Some(Driven::Ended(_))) {
        // hyper shuts nothing down where the client has asked for an upgrade, or something has failed behind
        // answers that are whole. An error of what is still sent then is nobody's any more.
        let _ = future::poll_fn(|cx| outgoing.borrow_mut().poll_all_sent(cx)).await;
    }
    ended.unwrap_or(Driven::Cut)
}

/// Watches over an HTTP/1 connection: lets it finish once it was idle for too long, or the server drains
/// and no request has begun; ends where it is to be cut.
async fn watch(
    activity: &Activity,
    outgoing: &RefCell<Outgoing>,
    limits: Limits,
    draining: &Draining,
    finish: &Cell<bool>,
) -> Result<(), Cancelled> {
    let mut last_call = pin!(last_call(activity, draining, finish));
    let mut lookout = Lookout::new(activity);
    let mut is_waiting = false;
    future::poll_fn(|cx| {
        // Once it waits nothing else wakes it, and the connection is polled for each request.
        if !is_waiting || draining.is_set() || quoit::is_cancelled() {
            is_waiting = true;
            // It never ends well: it says when the connection shall finish.
            if let Poll::Ready(ended) = last_call.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
        }
        match lookout.poll(activity, outgoing, &limits, cx) {
            Poll::Ready(Verdict::Cut) => Poll::Ready(Ok(())),
            Poll::Ready(Verdict::Finish) => {
                finish.set(true);
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Lets an HTTP/1 connection finish once the server drains and no request has begun. An idle client may be
/// sending its next one just then: it gets its answer.
async fn last_call(
    activity: &Activity,
    draining: &Draining,
    finish: &Cell<bool>,
) -> Result<(), Cancelled> {
    draining.wait().await?;
    loop {
        sleep(draining.last_call.get()).await?;
        if !activity.has_begun() {
            finish.set(true);
            return future::pending().await;
        }
    }
}

/// Watches over an HTTP/2 connection, of which hyper knows no deadlines: one on which nothing has
/// happened for the idle timeout shall finish, and is cut if it does not; one that has been stuck in
/// its answers for the stall timeout, or in a head for the head timeout, is cut. A handler takes as long as it takes.
/// Where the server drains, a client that is owed nothing has a moment to answer the goodbye.
async fn watch_streams(
    activity: &Activity,
    limits: Limits,
    draining: &Draining,
    finish: &Cell<bool>,
) -> Result<(), Cancelled> {
    let longest = limits.stall_timeout.min(limits.idle_timeout);
    let longest = longest.min(limits.head_timeout).max(SHORTEST_LOOK);
    let mut seen = activity.progress();
    let mut nothing_for = Duration::ZERO;
    // It is idle from then on, or from its last transfer.
    let mut at_rest = Instant::now();
    loop {
        let mut tick = longest;
        let idle_at = |at_rest: Instant| {
            let last = activity.last_transfer().unwrap_or(at_rest);
            last.max(at_rest) + limits.idle_timeout
        };
        if !activity.is_handling() && !activity.is_answering() {
            tick = tick.min(idle_at(at_rest) - Instant::now());
        }
        // While the client takes nothing, hyper does not read what it sends.
        if let Some(begun) = activity.frame_begun()
            && !activity.is_unsent()
        {
            let left = limits.head_timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            tick = tick.min(left);
        }
        if draining.is_set() {
            tick = tick.min(FAREWELL / 2);
        }
        if finish.get() {
            sleep(tick).await?;
        } else if let Some(slept) = until(sleep(tick), draining.wait()).await {
            slept?;
        } else {
            finish.set(true);
            continue;
        }
        let now = activity.progress();
        if activity.is_handling() {
            at_rest = Instant::now();
        }
        if now != seen || activity.is_handling() {
            seen = now;
            nothing_for = Duration::ZERO;
            continue;
        }
        nothing_for += tick;
        if draining.is_set() && !activity.is_owing() && nothing_for >= FAREWELL {
            return Ok(());
        }
        if activity.is_answering() && nothing_for >= limits.stall_timeout {
            return Ok(());
        }
        if !activity.is_answering() && idle_at(at_rest) <= Instant::now() {
            (nothing_for, at_rest) = (Duration::ZERO, Instant::now());
            if finish.replace(true) {
                return Ok(());
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A client, once it is known what it speaks.
struct Met {
    protocol: Protocol,
    io: Io,
    tls: Option<TlsInfo>,
}

/// Learns what the client speaks; `None` if it went away, or the server drains, before it has said
/// anything.
async fn meet<H>(
    stream: Stream,
    activity: Rc<Activity>,
    site: &Site<H>,
) -> io::Result<Option<Met>> {
    match &site.tls {
        Some(tls) => shake_hands(stream, activity, tls, &site.draining).await,
        None => sniff(stream, activity, &site.draining).await,
    }
}

async fn shake_hands(
    stream: Stream,
    activity: Rc<Activity>,
    tls: &ServerTls,
    draining: &Draining,
) -> io::Result<Option<Met>> {
    let Some(accepted) = until(tls::accept(tls, &stream), last_moment(draining)).await else {
        return Ok(None);
    };
    let (session, rest) = accepted?;
    // Who agrees on nothing speaks what everybody does.
    let protocol = match session.protocol() {
        Some(H2) => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let info = session.info();
    Ok(Some(Met {
        protocol,
        io: Io::encrypted(stream, session, rest, activity),
        tls: Some(info),
    }))
}

/// What a server offers (RFC 9113, section 3.2; RFC 7301), the best first.
pub(super) const OFFERED: [&[u8]; 2] = [H2, b"http/1.1"];
const H2: &[u8] = b"h2";

/// Reads until it is clear which protocol the peer speaks.
async fn sniff(
    stream: Stream,
    activity: Rc<Activity>,
    draining: &Draining,
) -> io::Result<Option<Met>> {
    let mut early = Vec::new();
    loop {
        // Whoever has begun to speak is heard to the end of his sentence.
        let received = if early.is_empty() {
            until(stream.receive(), last_moment(draining))
                .await
                .transpose()?
                .flatten()
        } else {
            stream.receive().await?
        };
        let Some(chunk) = received else {
            return Ok(None);
        };
        if let Some(protocol) = protocol_of(&early, &chunk) {
            let io = Io::with_early_bytes(stream, early, Some(chunk), activity);
            let tls = None;
            return Ok(Some(Met { protocol, io, tls }));
        }
        activity.note_received(&chunk);
        early.extend_from_slice(&chunk);
    }
}

/// Says which protocol begins with these bytes, once they are enough to tell.
fn protocol_of(early: &[u8], then: &[u8]) -> Option<Protocol> {
    let mut bytes = early.iter().chain(then).copied();
    for &expected in PREFACE {
        match bytes.next() {
            None => return None,
            Some(byte) if byte != expected => return Some(Protocol::Http1),
            Some(_) => {}
        }
    }
    Some(Protocol::Http2)
}

/// When a connection that has said nothing is closed: a while after the server begins to drain.
async fn last_moment(draining: &Draining) -> Result<(), Cancelled> {
    draining.wait().await?;
    sleep(draining.last_call.get()).await
}

/// Waits for `future`, unless `signal` comes first.
async fn until<T>(
    future: impl Future<Output = T>,
    signal: impl Future<Output = Result<(), Cancelled>>,
) -> Option<T> {
    let mut future = pin!(future);
    let mut signal = pin!(signal);
    let mut cancelled = false;
    future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        if cancelled {
            return Poll::Pending;
        }
        match signal.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(None),
            // Cancelled: so is the future, and it says so itself.
            Poll::Ready(Err(_)) => {
                cancelled = true;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Returns whether a connection's end is not worth a word: peers come and go.
pub(super) fn is_ordinary_end(error: &(dyn Error + 'static)) -> bool {
    is_not_worth_a_word(error, true)
}

/// Returns whether the body of an answer has failed because its client went away, or was cancelled. What it has lost
/// otherwise, such as a server behind this one, is worth a word.
pub(super) fn is_clients_doing(error: &(dyn Error + 'static)) -> bool {
    is_not_worth_a_word(error, false)
}

/// `is_connections` says that the connection itself has failed with this.
fn is_not_worth_a_word(error: &(dyn Error + 'static), mut is_connections: bool) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if error.is::<Cancelled>() || error.is::<ClientsDoing>() {
            return true;
        }
        let mut behind = error.source();
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let gone = matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::NotConnected
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::TimedOut
            );
            if is_connections && gone || error.cancelled().is_some() {
                return true;
            }
            // What it carries is not what it names as its source: that is the next one.
            behind = error.get_ref().map_or(behind, |inner| Some(inner));
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            let gone = error.is_incomplete_message()
                || error.is_timeout()
                || error.is_parse()
                || error.is_canceled();
            if is_connections && gone {
                return true;
            }
            // Behind this is what a body has failed with, or a handler.
            is_connections &= !error.is_user();
        }
        at = behind;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_is_seen_until_it_has_come_there_again() {
        let date = Date::default();
        let mut said = Vec::new();
        for seconds in [100, 101, 101, 40, 41, 100, 101, 102] {
            date.note_clock(Duration::from_secs(seconds));
            said.push(date.is_set_back.get());
        }
        assert_eq!(said, [false, false, false, true, true, true, false, false]);
    }

    #[test]
    fn protocol_is_told_as_early_as_it_can_be() {
        assert_eq!(
            protocol_of(b"", b"GET / HTTP/1.1\r\n"),
            Some(Protocol::Http1)
        );
        assert_eq!(protocol_of(b"", b"P"), None);
        assert_eq!(
            protocol_of(b"P", b"OST / HTTP/1.1\r\n"),
            Some(Protocol::Http1)
        );
        assert_eq!(
            protocol_of(b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n"),
            Some(Protocol::Http2)
        );
        assert_eq!(protocol_of(&PREFACE[..23], b""), None);
        assert_eq!(
            protocol_of(b"PRI * HTTP/1.1\r\n", b""),
            Some(Protocol::Http1)
        );
    }
}
