//! A request and its answer, as hyper asks for it: one future for each request.
//!
//! ```text
//!   hyper ──a head──► begin: admitted or refused, counted, its handler started
//!   hyper ──polls──► Exchange: what came of it ──► the answer, completed and counted ──► hyper
//! ```
//!
//! hyper moves the future before it polls it, so it is small: what the requests of a connection have in common is
//! shared, the request goes by the [`Line`], and so does what the handler made of it.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, DATE};
use http::{HeaderValue, Method, Request, Response, StatusCode, response};
use http_body::Body;
use hyper::body;
use quoit::{Cancelled, Group};

use super::activity::{Activity, Asked};
use super::answer::{Content, Counted};
use super::connection::{Connected, Limits, Protocol, Site};
use super::course::Course;
use super::incoming::{ClientsDoing, Fate};
use super::line::Line;
use super::request::{self, Outcome, Pending};
use super::strict::KnownHost;
use super::trouble::Trouble;
use super::{BoxError, Incoming, http2, strict};

/// What the requests of a connection share.
#[derive(Debug)]
pub(super) struct Common<H, B: 'static> {
    pub(super) protocol: Protocol,
    pub(super) group: Group<Cancelled>,
    pub(super) site: Rc<Site<H>>,
    pub(super) connected: Rc<Connected>,
    pub(super) activity: Rc<Activity>,
    pub(super) line: Rc<Line<H, B>>,
    pub(super) dates: Dates,
    pub(super) known: KnownHost,
}

/// Who dates the answers of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dates {
    /// hyper, where it writes heads itself: that costs less than a field does. Where the clock was set back, its
    /// date stands still: then we do.
    Hyper,
    /// We do: hyper reads a clock of its own, which no simulation replays.
    Own,
}

impl Dates {
    pub(super) fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 if !quoit::time::is_simulated() => Self::Hyper,
            _ => Self::Own,
        }
    }
}

/// A request that hyper waits for the answer of. Dropped before that, it is given up.
pub(super) struct Exchange<H, B: 'static> {
    common: Rc<Common<H, B>>,
    work: Work<H, B>,
    /// Until there is an answer, which takes it.
    course: Option<Course>,
    malformed: bool,
}

/// Who works at an answer.
enum Work<H, B: 'static> {
    Handler(Pending<H, B>),
    /// The server itself: what is asked for is a part of its page.
    Page(Pin<Box<dyn Future<Output = Response<Bytes>>>>),
    /// Nobody: the request is refused.
    Nobody(StatusCode),
}

/// Methods, as far as answers differ by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Head,
    Connect,
    Other,
}

impl Kind {
    pub(super) fn of(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ => Self::Other,
        }
    }
}

impl<H, B: Body + 'static> Exchange<H, B> {
    /// Takes a request in: its head was just read.
    pub(super) fn begin<F, E>(common: &Rc<Common<H, B>>, request: Request<body::Incoming>) -> Self
    where
        H: Fn(Request<Incoming>) -> F + 'static,
        F: Future<Output = Result<Response<B>, E>> + 'static,
        E: Into<BoxError> + 'static,
    {
        let Common {
            protocol,
            site,
            connected,
            activity,
            line,
            known,
            ..
        } = &**common;
        let (head, body) = request.into_parts();
        let mut place = line.request();
        let unread = Incoming::none(Rc::clone(connected));
        let request = place.insert(Request::from_parts(head, unread));
        let asked = match body.is_end_stream() {
            true => Asked::Head,
            false => Asked::HeadAndBody,
        };
        let course = Course::begin(site, activity, connected, request, asked);
        let expiry = course.expiry();
        match protocol {
            Protocol::Http1 => activity.expire(expiry.cloned()),
            Protocol::Http2 => line.begin(expiry.cloned()),
        }
        let checked = match protocol {
            Protocol::Http2 if http2::is_malformed(request) => Err(StatusCode::BAD_REQUEST),
            _ => strict::check(request, asked, site.limits.strictness, known),
        };
        let part = match (checked, &site.page) {
            (Ok(()), Some(page)) => page.part(request.uri().path(), &connected.peer),
            _ => None,
        };
        let work = match (
            part,
            checked.and_then(|()| admit(&body, asked, &site.limits)),
        ) {
            (Some(part), _) => {
                let (site, method) = (Rc::clone(site), request.method().clone());
                *place = None;
                Work::Page(Box::pin(async move {
                    let page = site.page.as_ref().expect("it was asked for a part of it");
                    page.answer(part, &method).await
                }))
            }
            (None, Err(status)) => {
                *place = None;
                Work::Nobody(status)
            }
            (None, Ok(fate)) => {
                let until = expiry.map(|expiry| expiry.at);
                let until = request::deadline(&site.limits, until);
                if asked == Asked::HeadAndBody {
                    let reading = activity.reading();
                    let incoming = request.body_mut();
                    incoming.read(body, &site.limits, fate.clone(), reading);
                }
                drop(place);
                line.expect_by(until);
                let handler = match protocol {
                    Protocol::Http1 => request::start(common.group, line),
                    Protocol::Http2 => None,
                };
                Work::Handler(Pending::new(handler, Rc::clone(line), fate))
            }
        };
        Self {
            common: Rc::clone(common),
            work,
            course: Some(course),
            malformed: checked.is_err(),
        }
    }
}

/// Takes a request with this body in, or says with which status it is refused.
fn admit(body: &body::Incoming, asked: Asked, limits: &Limits) -> Result<Fate, StatusCode> {
    // What is known to be too large is not begun.
    if body.size_hint().lower() > limits.max_body {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    Ok(Fate::new(asked == Asked::HeadAndBody))
}

impl<H, B: 'static> Unpin for Exchange<H, B> {}

impl<H, B: Body + 'static> Future for Exchange<H, B> {
    type Output = Result<Response<Counted<B>>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let outcome = match &mut this.work {
            Work::Handler(pending) => ready!(pending.poll(cx)),
            Work::Page(page) => Outcome::Own(ready!(page.as_mut().poll(cx))),
            Work::Nobody(status) => Outcome::Refused(*status),
        };
        Poll::Ready(this.answer(outcome))
    }
}

impl<H, B: Body + 'static> Exchange<H, B> {
    /// Makes the answer of what came of the request.
    fn answer(&mut self, outcome: Outcome) -> Result<Response<Counted<B>>, BoxError> {
        let Common {
            protocol,
            site,
            connected,
            line,
            ..
        } = &*self.common;
        let mut course = self.course.take().expect("a request is answered once");
        course.note_handled();
        let tally = &site.figures.tally;
        let fail = |error: &BoxError| {
            tally.failed.add_one();
            let peer = &connected.peer.address;
            site.listener.tell(&Trouble::Request { peer, error });
            refusal(StatusCode::INTERNAL_SERVER_ERROR)
        };
        let (mut head, mut content) = match outcome {
            Outcome::Answered => {
                let Some(Ok(answer)) = line.answer() else {
                    unreachable!("it was seen there");
                };
                let (head, body) = answer.into_parts();
                match self.is_final(head.status) {
                    true => (head, Content::Body { body }),
                    false => fail(&format!("{} is no final answer", head.status).into()),
                }
            }
            Outcome::Own(answer) => {
                let (head, bytes) = answer.into_parts();
                (head, Content::Own { bytes })
            }
            Outcome::Failed(error) => fail(&error),
            Outcome::Late => {
                tally.late.add_one();
                if let Some(expiry) = course.expiry() {
                    expiry.note_over();
                }
                refusal(StatusCode::SERVICE_UNAVAILABLE)
            }
            Outcome::Refused(status) => {
                tally.refused.add_one();
                refusal(status)
            }
            Outcome::Nobody(error) => return Err(ClientsDoing(error).into()),
        };
        // An answer of ours to a request whose body nobody reads.
        let unread = matches!(content, Content::Nothing) && course.asked() == Asked::HeadAndBody;
        strict::complete(&mut head, &mut content);
        if self.common.dates == Dates::Own || site.draining.date.is_set_back() {
            let date = head.headers.entry(DATE);
            date.or_insert_with(|| site.draining.date.now());
        }
        let status = head.status;
        course.answer(&head, &content);
        if let Some(switch) = &connected.switch {
            switch.answered(course.method(), status);
        }
        let goes_on = status == StatusCode::SWITCHING_PROTOCOLS;
        let last = !goes_on && (site.draining.is_set() || unread || self.malformed);
        if *protocol == Protocol::Http1 && last {
            // Told with its last answer, a client does not send another request after it. Nor
            // does it after a body that nobody will read, or what could not be understood.
            let close = HeaderValue::from_static("close");
            head.headers.insert(CONNECTION, close);
        }
        let is_head = course.method() == Kind::Head;
        if is_head && *protocol == Protocol::Http2 {
            http2::leave_head(&mut head, &mut content);
        }
        let body = Counted::new(content, course, is_head, self.common.group);
        Ok(Response::from_parts(head, body))
    }

    /// Returns whether a status ends the exchange. hyper would cut a connection at an interim one, and in HTTP/2 send
    /// it as the last.
    fn is_final(&self, status: StatusCode) -> bool {
        let goes_on = || {
            let switch = self.common.connected.switch.as_ref();
            status == StatusCode::SWITCHING_PROTOCOLS && switch.is_some_and(|it| it.is_offered())
        };
        !status.is_informational() || goes_on()
    }
}

/// An answer of the server's own, without a body.
fn refusal<B>(status: StatusCode) -> (response::Parts, Content<B>) {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    (head, Content::Nothing)
}
