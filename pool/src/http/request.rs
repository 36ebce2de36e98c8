//! Requests: put together, sent, and sent again where the peer did nothing about them.

use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use quoit::time::Instant;
use quoit::{ForeignWait, Scope};
use quoit_net::unix::UnixAddress;

use super::Error;
use super::body::{Body, OutgoingBody, Sending};
use super::config::Config;
use super::error::{Kind, kind_of};
use super::origin::Origin;
use super::registry::Speaks;
use super::response::Response;
use super::shared::{Lease, Shared};

/// How often a request is sent at most: as often as peers may say that they did nothing about it. A connection
/// that turns out to have ended before anything was sent on it does not count.
const ATTEMPTS: usize = 4;

/// A request that is put together. Nothing happens before [`send`](Self::send), and what is wrong with it comes
/// out there.
#[derive(Debug)]
#[must_use = "nothing is sent before `send().await`"]
pub struct RequestBuilder {
    pool: Rc<Shared>,
    method: Method,
    /// Or what is wrong with it.
    url: Result<Uri, String>,
    query: String,
    headers: HeaderMap,
    body: Body,
    timeout: Option<Duration>,
    unix: Option<UnixAddress>,
    wrong: Option<String>,
}

/// Makes a field of what somebody says.
pub(super) fn field<N, V>(name: N, value: V) -> Result<(HeaderName, HeaderValue), String>
where
    N: TryInto<HeaderName, Error: Into<http::Error>>,
    V: TryInto<HeaderValue, Error: Into<http::Error>>,
{
    let name = name.try_into().map_err(|error| {
        let error: http::Error = error.into();
        format!("a field has a name that none can have: {error}")
    })?;
    let value = value.try_into().map_err(|error| {
        let error: http::Error = error.into();
        format!("the field {name} has a value that none can have: {error}")
    })?;
    Ok((name, value))
}

impl RequestBuilder {
    pub(super) fn new(pool: Rc<Shared>, method: Method, url: &str) -> Self {
        Self {
            timeout: pool.config.timeout,
            pool,
            method,
            url: url.parse().map_err(|error| {
                format!("{url:?} is no URL: {error}; escape what is not ASCII, and spaces")
            }),
            query: String::new(),
            headers: HeaderMap::new(),
            body: Body::default(),
            unix: None,
            wrong: None,
        }
    }

    /// Adds a field. `host` says whom the request is for, where that is not the URL's host: in HTTP/2 as `:authority`.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        match field(name, value) {
            Ok((name, value)) => drop(self.headers.append(name, value)),
            Err(what) => self.wrong = self.wrong.or(Some(what)),
        }
        self
    }

    /// Adds a name and a value to the URL's query, escaped as forms do it.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        escape(name, &mut self.query);
        self.query.push('=');
        escape(value, &mut self.query);
        self
    }

    /// Sends this behind the head. Default: nothing.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// How long all of it may take, to the end of the answer: then it fails with [`Error::TimedOut`]. Default:
    /// [that of the client](super::ClientBuilder::timeout). A scope around with a deadline does as well.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Reaches the server by this socket; the URL's host is what the server is told.
    pub fn unix(mut self, address: impl Into<UnixAddress>) -> Self {
        self.unix = Some(address.into());
        self
    }

    /// Sends the request, and waits for the head of its answer.
    ///
    /// A request of which the peer says that it has done nothing about it is sent again, at most three times;
    /// so is one without a body, by a method that may be repeated (RFC 9110, section 9.2.2), if the peer closed
    /// an idle connection just before it came. Other connections that are idle there are closed then.
    ///
    /// Cancelled or dropped, it leaves nothing behind: a connection of HTTP/1 is closed, of HTTP/2 only the
    /// stream is reset.
    ///
    /// # Errors
    ///
    /// [`Error`]; each kind says what to do.
    ///
    /// # Panics
    ///
    /// When polled off a core.
    pub async fn send(self) -> Result<Response, Error> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let pool = Rc::clone(&self.pool);
        let (ask, body) = self.finish()?;
        if deadline.is_none() {
            return fetch(&pool, &ask, body).await;
        }
        let sent = within(deadline, fetch(&pool, &ask, body)).await;
        sent.map(|answer| answer.with_deadline(deadline))
    }

    /// Returns how long the body is, if it or the head says so: both say the same.
    fn length(&self) -> Result<Option<u64>, Error> {
        let told = self.headers.get_all(header::CONTENT_LENGTH);
        let number = |told: &HeaderValue| {
            let text = told.to_str().ok()?;
            let number = text.parse::<u64>().ok()?;
            (number.to_string() == text).then_some(number)
        };
        let known = self.body.length();
        let length = known.or_else(|| told.iter().next().and_then(number));
        let is_wrong = |told: &&HeaderValue| length.is_none() || number(told) != length;
        let Some(wrong) = told.iter().find(is_wrong) else {
            return Ok(length);
        };
        Err(Error::Request(match known {
            Some(length) => format!(
                "the field content-length says {wrong:?}, and the body has {length} bytes: leave the field out"
            ),
            None => format!("the field content-length says {wrong:?}, and is to be one number"),
        }))
    }

    fn finish(self) -> Result<(Ask, Body), Error> {
        if let Some(what) = self.wrong {
            return Err(Error::Request(what));
        }
        let length = self.length()?;
        check_host(&self.headers)?;
        let url = self.url.map_err(Error::Request)?;
        let origin = self.pool.origin_of(&url, self.unix)?;
        if origin.is_encrypted && self.pool.config.tls.is_none() {
            return Err(Error::Request(format!(
                "{origin} is to be trusted by nobody: give the client a `ClientTls`"
            )));
        }
        let ask = Ask {
            origin,
            method: self.method,
            url: with_query(url, &self.query)?,
            headers: self.headers,
            length,
            config: Rc::clone(&self.pool.config),
        };
        Ok((ask, self.body))
    }
}

/// Checks that fields name one host at most, and that it can be one: in HTTP/2 it is part of the URL.
pub(super) fn check_host(headers: &HeaderMap) -> Result<(), Error> {
    let hosts = headers.get_all(header::HOST);
    let is_wrong = |host: &&HeaderValue| Authority::try_from(host.as_bytes()).is_err();
    if let Some(wrong) = hosts.iter().find(is_wrong) {
        let what = format!("the field host says {wrong:?}, which is no host");
        return Err(Error::Request(what));
    }
    let mut hosts = hosts.iter();
    if let (Some(one), Some(other)) = (hosts.next(), hosts.next()) {
        let what =
            format!("the field host says {one:?} and {other:?}: a request is for one of them");
        return Err(Error::Request(what));
    }
    Ok(())
}

/// Runs a part of a request, which has to be over by then.
pub(super) async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(deadline) = deadline else {
        return work.await;
    };
    let done = Scope::new().deadline(deadline).run(work).await?;
    done.ok_or(Error::TimedOut)
}

fn with_query(url: Uri, query: &str) -> Result<Uri, Error> {
    if query.is_empty() {
        return Ok(url);
    }
    let mut parts = url.clone().into_parts();
    let before = url.path_and_query().map_or("/", PathAndQuery::as_str);
    let joint = if before.contains('?') { '&' } else { '?' };
    let whole = format!("{before}{joint}{query}");
    // What was escaped can stand in a query, but not any number of it.
    let parsed = whole.parse().map_err(|error| {
        let length = query.len();
        Error::Request(format!("a query of {length} bytes makes no URL: {error}"))
    })?;
    parts.path_and_query = Some(parsed);
    Uri::from_parts(parts).map_err(|error| Error::Request(format!("{url} takes no query: {error}")))
}

fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                into.push(char::from(byte));
            }
            b' ' => into.push('+'),
            _ => write!(into, "%{byte:02X}").expect("a string takes everything"),
        }
    }
}

/// A request without its body: what an attempt is made of.
struct Ask {
    origin: Rc<Origin>,
    method: Method,
    url: Uri,
    /// Those that the caller has set.
    headers: HeaderMap,
    /// How long the body is, if that is known.
    length: Option<u64>,
    config: Rc<Config>,
}

impl Ask {
    /// Returns the head and body as they are written in the protocol of a connection.
    fn written(&self, speaks: Speaks, body: OutgoingBody) -> Request<OutgoingBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        let mut headers = self.fields();
        match speaks {
            Speaks::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                // It is in the URL, and two of them may contradict each other.
                let host = headers.remove(header::HOST);
                *request.uri_mut() = self.url_at(host.as_ref());
            }
            Speaks::Http1 => {
                *request.uri_mut() = self.target();
                let host = headers.entry(header::HOST);
                host.or_insert_with(|| self.origin.field.clone());
                if self.length == Some(0) && expects_content(&self.method) {
                    let length = headers.entry(header::CONTENT_LENGTH);
                    length.or_insert(HeaderValue::from_static("0"));
                }
            }
        }
        *request.headers_mut() = headers;
        request
    }

    /// Returns the caller's fields, and those of the client that the caller has not set.
    fn fields(&self) -> HeaderMap {
        if self.headers.is_empty() {
            return self.config.headers.clone();
        }
        let mut fields = self.headers.clone();
        for (name, value) in &self.config.headers {
            if !fields.contains_key(name) {
                fields.insert(name.clone(), value.clone());
            }
        }
        fields
    }

    /// Returns the URL, with the host that the caller has named in a field.
    fn url_at(&self, host: Option<&HeaderValue>) -> Uri {
        let named = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let is_connect = self.method == Method::CONNECT;
        let named = named.or_else(|| is_connect.then(|| self.whither()));
        let Some(named) = named else {
            return self.url.clone();
        };
        let mut parts = self.url.clone().into_parts();
        parts.authority = Some(named);
        Uri::from_parts(parts).unwrap_or_else(|_| self.url.clone())
    }

    /// What stands in the first line of HTTP/1 (RFC 9112, section 3.2).
    fn target(&self) -> Uri {
        if self.method == Method::CONNECT {
            return Uri::from(self.whither());
        }
        let path = self.url.path_and_query().cloned();
        Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
    }

    /// Returns the host and port that a CONNECT is for: it has no usual one (RFC 9110, section 9.3.6).
    fn whither(&self) -> Authority {
        let authority = self.url.authority().expect("an origin has one");
        if authority.port().is_some() {
            return authority.clone();
        }
        let whither = format!("{}:{}", authority.host(), self.origin.port);
        Authority::try_from(whither).expect("a host with a port is one")
    }

    /// Returns whether the answer may be the beginning of another protocol.
    fn asks_for_upgrade(&self) -> bool {
        self.method == Method::CONNECT
            || self.headers.contains_key(header::UPGRADE)
            || self.config.headers.contains_key(header::UPGRADE)
    }

    /// Returns whether the answer is one.
    fn is_upgraded_by(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS
            || (self.method == Method::CONNECT && status.is_success())
    }
}

/// Returns whether a server expects content with this method, and is to be told that there is none (RFC 9110, section
/// 8.6): many answer with 411 otherwise. HTTP/2 says it with the head.
fn expects_content(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

async fn fetch(pool: &Rc<Shared>, ask: &Ask, mut body: Body) -> Result<Response, Error> {
    let mut attempts = 0;
    loop {
        let lease = pool.lease(&ask.origin).await?;
        let failed = match try_once(ask, lease, body).await? {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        attempts += usize::from(failed.counts);
        match failed.again {
            Some(again) if attempts < ATTEMPTS => {
                pool.note_retry();
                body = again;
            }
            _ => return Err(failed.error),
        }
    }
}

/// An attempt that came to nothing.
struct Failed {
    error: Error,
    /// The body for another one, if another one does no harm.
    again: Option<Body>,
    /// It is one of those that are made at most. Else nothing was sent, and a connection less is there that was
    /// used before: that has an end by itself.
    counts: bool,
}

async fn try_once(ask: &Ask, lease: Lease, body: Body) -> Result<Result<Response, Failed>, Error> {
    let is_empty = body.is_empty();
    let Some(speaks) = lease.handle.speaks() else {
        return Ok(Err(gone(&lease, Some(body))));
    };
    let switch =
        (speaks == Speaks::Http1 && ask.asks_for_upgrade()).then(|| lease.handle.expect_switch());
    let piping = (speaks == Speaks::Http2).then_some(&lease.handle.piping);
    let (sending, outgoing) = Sending::new(body, ask.length, piping);
    let Some(answer) = lease.send(ask.written(speaks, outgoing), &sending) else {
        return Ok(Err(gone(&lease, sending.again())));
    };
    // It holds the request at first, and stays where it is.
    let (mut answer, mut wait) = (pin!(answer), ForeignWait::default());
    let answered = poll_fn(|cx| wait.poll(cx, |cx| answer.as_mut().poll(cx))).await;
    let mut failed = match answered? {
        Ok(answer) => {
            let upgraded = switch.filter(|_| ask.is_upgraded_by(answer.status()));
            if upgraded.is_none() {
                lease.handle.forget_switch();
            }
            return Ok(Ok(Response::new(answer, lease, upgraded)));
        }
        Err(failed) => failed,
    };
    let was_written = failed.take_message().is_none();
    let error = failed.into_error();
    if kind_of(&error) == Kind::Lost && speaks == Speaks::Http2 {
        // It may be the peer's silence, which the owner knows of.
        lease.handle.verdict().await?;
    }
    if lease.handle.is_closed() {
        return Ok(Err(Failed {
            error: Error::Closed,
            again: None,
            counts: true,
        }));
    }
    if let Some(cause) = sending.take_failure() {
        return Ok(Err(Failed {
            error: Error::Body(cause),
            again: None,
            counts: true,
        }));
    }
    let kind = kind_of(&error);
    let is_harmless = match kind {
        Kind::GoneAway => {
            // Before the owner hears of it: the next attempt must not come here.
            lease.retire_connection();
            true
        }
        Kind::Refused => true,
        // The peer closed it when, or before, the request came.
        Kind::Lost if lease.is_reused && !was_written => {
            lease.retire_connection();
            true
        }
        Kind::Lost if lease.was_idle => {
            lease.retire_connection();
            let may_be_repeated = is_empty && ask.method.is_idempotent();
            if may_be_repeated {
                // Once, and on a connection that is fresh, or at work.
                lease.retire_idle();
            }
            may_be_repeated
        }
        Kind::Lost | Kind::Reset(_) | Kind::PeerSilent | Kind::Protocol => false,
    };
    Ok(Err(Failed {
        error: lease.handle.explain(Error::of_hyper(error)),
        again: is_harmless.then(|| sending.again()).flatten(),
        counts: was_written || kind != Kind::Lost || !lease.is_reused,
    }))
}

/// The connection ended between the assignment and the request.
fn gone(lease: &Lease, again: Option<Body>) -> Failed {
    let is_closed = lease.handle.is_closed();
    lease.retire_connection();
    Failed {
        error: if is_closed {
            Error::Closed
        } else {
            Error::Lost("it was closed before the request was sent".into())
        },
        again: again.filter(|_| !is_closed),
        counts: !lease.is_reused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped_and_joined() {
        let mut query = String::new();
        escape("a b&c=ü*", &mut query);
        assert_eq!(query, "a+b%26c%3D%C3%BC*");
        let url = |text: &str| text.parse::<Uri>().expect("a URI");
        let joined = |text: &str| with_query(url(text), "x=1").expect(text).to_string();
        assert_eq!(joined("http://test"), "http://test/?x=1");
        assert_eq!(joined("http://test/p?y=2"), "http://test/p?y=2&x=1");
    }

    #[test]
    fn a_field_that_none_can_be_is_refused_with_its_name() {
        let error = field("x y", "z").expect_err("a space in a name");
        assert!(error.contains("name"), "{error}");
        let error = field("x-test", "a\nb").expect_err("a line end in a value");
        assert!(error.contains("x-test"), "{error}");
    }
}
