//! A request from its head to the end of its answer: what is noted of it, and then counted, measured and told.
//!
//! It goes through many hands, and is moved by each: its notes stay in one place, which serves the core's next.

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, REFERER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version, response};
use http_body::Body;
use quoit::time::Instant;

use super::activity::{Activity, Asked, Handling};
use super::answer::{Content, Data, PART, Piece};
use super::connection::{Connected, Site};
use super::exchange::Kind;
use super::lookout::Expiry;
use super::trouble::undisturbed;
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
    connected: Rc<Connected>,
    method: Method,
    uri: Uri,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

/// One request, from its head to the end of its answer. Dropped before that, it was given up.
#[derive(Debug)]
pub(super) struct Course {
    activity: Rc<Activity>,
    spare: Rc<Spare>,
    /// There until it is dropped.
    notes: Option<Box<Notes>>,
}

/// What is noted of a request.
#[derive(Debug)]
struct Notes {
    entry: Option<Box<Entry>>,
    /// The connection counts a handler for as long as hyper waits for the answer.
    handling: Option<Handling>,
    expiry: Option<Rc<Expiry>>,
    begun: Instant,
    asked: Asked,
    method: Kind,
    status: Option<StatusCode>,
    sent: u64,
    /// How many bytes there will be, where the head says so.
    expected: Option<u64>,
    whole: bool,
    /// It was our side that failed.
    failed: bool,
    /// It ends in a turn of its connection, which measures it: in HTTP/1.
    is_in_turn: bool,
    /// Hyper has the body of the answer.
    is_answered: bool,
    /// Hyper waits for that body.
    is_awaited: bool,
}

/// A piece of an answer that is larger is better not copied once more: to copy it costs more than to send it beside its
/// head.
const BULK: usize = 8 * 1024;

const THERE: &str = "a request is noted until it is dropped";

/// What the last request of a core has left: the place of the next one's notes.
#[derive(Debug, Default)]
pub(super) struct Spare(RefCell<Option<Box<Notes>>>);

impl Notes {
    fn new() -> Self {
        Self {
            entry: None,
            handling: None,
            expiry: None,
            begun: Instant::recent(),
            asked: Asked::Head,
            method: Kind::Other,
            status: None,
            sent: 0,
            expected: None,
            whole: false,
            failed: false,
            is_in_turn: false,
            is_answered: false,
            is_awaited: false,
        }
    }

    /// Begins with another request, in the place of one that has ended. Field by field: made elsewhere, it would be
    /// copied.
    #[inline]
    fn begin(&mut self, version: Version, asked: Asked, method: Kind) {
        let Self {
            entry: None,
            handling: None,
            expiry: None,
            begun,
            asked: of_asked,
            method: of_method,
            status,
            sent,
            expected,
            whole,
            failed,
            is_in_turn,
            is_answered,
            is_awaited,
        } = self
        else {
            unreachable!("these went with it");
        };
        *begun = Instant::recent();
        *of_asked = asked;
        *of_method = method;
        *status = None;
        *sent = 0;
        *expected = None;
        *whole = false;
        *failed = false;
        *is_in_turn = version != Version::HTTP_2;
        *is_answered = false;
        *is_awaited = false;
    }

    /// Notes whether hyper has all of the answer. One that ends before it has as much as was said is cut, and the client
    /// sees that.
    #[inline]
    fn note_whole(&mut self, is_end: bool) {
        self.whole = match self.expected {
            Some(expected) => self.sent >= expected,
            None => is_end,
        };
        self.failed = is_end && !self.whole;
    }

    #[inline]
    fn note_awaited(&mut self, activity: &Activity, is_awaited: bool) {
        if mem::replace(&mut self.is_awaited, is_awaited) != is_awaited {
            activity.note_awaited(is_awaited);
        }
    }
}

impl Course {
    /// Begins with a head that was just read.
    #[inline]
    pub(super) fn begin<H, T>(
        site: &Site<H>,
        activity: &Rc<Activity>,
        connected: &Rc<Connected>,
        request: &Request<T>,
        asked: Asked,
    ) -> Self {
        let tally = &site.figures.tally;
        match request.version() {
            Version::HTTP_2 => tally.http2.add_one(),
            _ => tally.http1.add_one(),
        }
        let mut notes = match site.spare.0.take() {
            Some(notes) => notes,
            None => Box::new(Notes::new()),
        };
        notes.begin(request.version(), asked, Kind::of(request.method()));
        notes.entry = site.audit.as_ref().map(|audit| {
            Box::new(Entry {
                audit: audit.clone(),
                connected: Rc::clone(connected),
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                referer: request.headers().get(REFERER).cloned(),
                user_agent: request.headers().get(USER_AGENT).cloned(),
            })
        });
        notes.handling = Some(activity.handling(asked));
        notes.expiry = Expiry::of(&site.limits);
        Self {
            activity: Rc::clone(activity),
            spare: Rc::clone(&site.spare),
            notes: Some(notes),
        }
    }

    #[inline]
    fn notes(&self) -> &Notes {
        self.notes.as_ref().expect(THERE)
    }

    #[inline]
    fn notes_mut(&mut self) -> &mut Notes {
        self.notes.as_mut().expect(THERE)
    }

    #[inline]
    pub(super) fn asked(&self) -> Asked {
        self.notes().asked
    }

    #[inline]
    pub(super) fn method(&self) -> Kind {
        self.notes().method
    }

    /// Returns when it has to have been answered.
    #[inline]
    pub(super) fn expiry(&self) -> Option<&Rc<Expiry>> {
        self.notes().expiry.as_ref()
    }

    /// Notes that no handler works at it any more.
    #[inline]
    pub(super) fn note_handled(&mut self) {
        self.notes_mut().handling = None;
    }

    /// Notes with what it is answered.
    pub(super) fn answer<B: Body>(&mut self, head: &response::Parts, content: &Content<B>) {
        let status = head.status;
        self.activity.figures().tally.answer(status);
        let notes = self.notes_mut();
        if let Some(expiry) = notes.expiry.take() {
            expiry.note_answer();
        }
        notes.status = Some(status);
        let length = || {
            let field = head.headers.get(CONTENT_LENGTH)?;
            field.to_str().ok()?.parse().ok()
        };
        // hyper asks for nothing more once it has so many bytes; and for none where there is to be none.
        notes.expected = content.size_hint().exact().or_else(length);
        notes.whole = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    }

    /// Notes that hyper has the body of the answer, and whether it is over with that.
    #[inline]
    pub(super) fn begin_answer(&mut self, is_over: bool) {
        self.activity.begin_answer();
        let notes = self.notes_mut();
        notes.is_answered = true;
        notes.whole |= is_over || notes.expected == Some(0);
    }

    /// Notes whether hyper waits for the body.
    #[inline]
    pub(super) fn note_awaited(&mut self, is_awaited: bool) {
        let notes = self.notes.as_mut().expect(THERE);
        notes.note_awaited(&self.activity, is_awaited);
    }

    /// Notes that hyper took a piece of the body, the last there is or not.
    #[inline]
    pub(super) fn note_piece(&mut self, length: usize, is_last: bool) {
        self.activity.note_answered();
        if length > BULK {
            self.activity.note_bulk();
        }
        self.activity.note_handed(length);
        let notes = self.notes_mut();
        notes.sent += length as u64;
        notes.note_whole(is_last);
    }

    /// Returns a piece of the body as hyper gets it: of HTTP/2 the connection counts it until it is written.
    #[inline]
    pub(super) fn handed<D>(&self, data: Data<D>) -> Piece<D> {
        let waits = !self.notes().is_in_turn;
        Piece::new(data, waits.then(|| self.activity.unwritten()))
    }

    /// Returns whether hyper gets the body in parts: it copies what it gets, or is to hand over soon what it has.
    #[inline]
    pub(super) fn is_in_parts(&self) -> bool {
        self.activity.is_copying() || self.activity.is_ahead()
    }

    /// Returns whether hyper is to hand over what it has before it gets more. Then it is told.
    #[inline]
    pub(super) fn is_far_ahead(&self, cx: &mut Context<'_>) -> bool {
        self.activity.is_far_ahead(PART, cx)
    }

    /// Notes that hyper was told of the end of the body.
    pub(super) fn note_end(&mut self) {
        self.activity.note_answered();
        self.notes_mut().note_whole(true);
    }

    /// Notes that the body has failed.
    pub(super) fn note_failure(&mut self, error: &BoxError) {
        self.activity.note_answered();
        self.activity.tell_failure(error);
        self.notes_mut().failed = true;
    }

    /// Returns whether hyper has all of the answer.
    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.notes().whole
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        let Some(mut notes) = self.notes.take() else {
            return;
        };
        let activity = &self.activity;
        if notes.is_answered {
            notes.note_awaited(activity, false);
            activity.end_answer(notes.asked);
        }
        notes.handling = None;
        notes.expiry = None;
        let figures = activity.figures();
        if notes.whole {
            match notes.is_in_turn {
                true => activity.note_whole(notes.begun),
                false => figures.request.record(notes.begun.elapsed()),
            }
        } else if notes.failed {
            figures.tally.failed.add_one();
        } else {
            figures.tally.given_up.add_one();
        }
        if let Some(entry) = notes.entry.take() {
            let answered = Answered {
                peer: &entry.connected.peer,
                method: &entry.method,
                uri: &entry.uri,
                version: entry.version,
                referer: entry.referer.as_ref(),
                user_agent: entry.user_agent.as_ref(),
                status: notes.status,
                sent: notes.sent,
                whole: notes.whole,
                took: notes.begun.elapsed(),
            };
            undisturbed(|| (entry.audit.0)(&answered));
        }
        let before = self.spare.0.replace(Some(notes));
        drop(before);
    }
}
