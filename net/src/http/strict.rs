//! What a request has to be before a handler sees it, past what hyper's parser asks of it: whom it is for
//! (the target, the Host field, `:authority`), and which codings its body comes in. And what an answer has to
//! be, past what hyper asks of it.
//!
//! A head has been parsed when it comes here. Nothing is read, and nothing is allocated for a request that
//! is in order, unless its target names another host than its Host field.

use std::cell::RefCell;
use std::net::Ipv6Addr;
use std::str;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version, response};

use super::activity::Asked;
use super::answer::Content;

/// How much of what RFC 9112 and RFC 9113 forbid in the address of a request is refused.
///
/// Where a message ends is never a matter of leniency: lengths that differ or are no numbers, codings that
/// are unknown, folded lines and the like are refused in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Strictness {
    /// Whoever asks has to say for whom, once and clearly. Refused with 400 are:
    ///
    /// - a request of HTTP/1.1 without a Host field, with more than one, or with one that is empty though
    ///   the target names no host (RFC 9112, section 3.2);
    /// - a Host that is no host with an optional port: a user, a path, white space, a port past 65535;
    /// - a target in a form that is not for its method: `*` for other methods than OPTIONS, `host:port` for
    ///   others than CONNECT, anything else for CONNECT (RFC 9112, section 3.2), and a CONNECT without a
    ///   port (RFC 9110, section 9.3.6);
    /// - a URI with a user, or with no host, as the target (RFC 9110, section 4.2);
    /// - in HTTP/2, an `:authority` with a user, and a Host that is another (RFC 9113, section 8.3.1).
    ///
    /// Of a request whose target is a whole URI, the handler sees the host of the URI in the Host field
    /// (RFC 9112, section 3.2.2).
    #[default]
    Strict,
    /// All of that reaches the handler as it was sent: for clients that cannot be mended, behind nothing
    /// that tells hosts apart.
    Lenient,
}

/// Says with which status a request is refused, if it is. The connection has to end then: whoever sent it
/// and we may not mean the same by what follows.
#[inline]
pub(super) fn check<T>(
    request: &mut Request<T>,
    asked: Asked,
    strictness: Strictness,
    known: &KnownHost,
) -> Result<(), StatusCode> {
    let is_http2 = request.version() == Version::HTTP_2;
    // Of a coding hyper asks that chunks are the last: then there is a body.
    if !is_http2 && asked == Asked::HeadAndBody {
        check_codings(request.headers())?;
    }
    let in_order = match strictness {
        Strictness::Lenient => true,
        Strictness::Strict if is_http2 => is_addressed_in_http2(request, known),
        Strictness::Strict => {
            let target = Target::of(request.method(), request.uri());
            target.is_some_and(|target| is_addressed(request, target, known))
        }
    };
    if in_order {
        Ok(())
    } else {
        Err(StatusCode::BAD_REQUEST)
    }
}

/// Takes from an answer what its status does not let it have, whatever the handler gave it: a length from
/// one without content (RFC 9110, section 8.6), content from one that must not have any (15.3.5, 15.3.6, 15.4.5).
pub(super) fn complete<B>(head: &mut response::Parts, content: &mut Content<B>) {
    match head.status {
        StatusCode::NO_CONTENT => {
            *content = Content::Nothing;
            head.headers.remove(CONTENT_LENGTH);
        }
        StatusCode::NOT_MODIFIED => *content = Content::Nothing,
        StatusCode::RESET_CONTENT => {
            *content = Content::Nothing;
            head.headers.remove(CONTENT_LENGTH);
            head.headers.remove(TRANSFER_ENCODING);
        }
        _ => {}
    }
}

/// Checks that a body comes in chunks and in no other coding: nobody here undoes one.
fn check_codings(headers: &HeaderMap) -> Result<(), StatusCode> {
    let lines = headers.get_all(TRANSFER_ENCODING).iter();
    let codings = lines
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|coding| !coding.is_empty());
    let mut is_chunked = false;
    for coding in codings {
        if !coding.eq_ignore_ascii_case(b"chunked") {
            return Err(StatusCode::NOT_IMPLEMENTED);
        }
        if is_chunked {
            return Err(StatusCode::BAD_REQUEST);
        }
        is_chunked = true;
    }
    Ok(())
}

/// What a target says of the host.
enum Target {
    /// Nothing: a path, or the server itself.
    Local,
    /// It names one: for CONNECT, or as a whole URI.
    Elsewhere,
}

impl Target {
    /// Tells the form of a target; `None` if it is none that the method may have (RFC 9112, section 3.2).
    fn of(method: &Method, uri: &Uri) -> Option<Self> {
        let is_connect = *method == Method::CONNECT;
        match (uri.scheme(), uri.authority()) {
            (None, Some(authority)) if is_connect && is_to_connect_to(authority) => {
                Some(Self::Elsewhere)
            }
            (Some(_), Some(authority)) if !is_connect && is_named(authority) => {
                Some(Self::Elsewhere)
            }
            (None, None) if !is_connect && is_path(method, uri) => Some(Self::Local),
            _ => None,
        }
    }
}

fn is_path(method: &Method, uri: &Uri) -> bool {
    let path = uri.path();
    path.starts_with('/') || path == "*" && *method == Method::OPTIONS
}

/// Returns whether an authority names a host, and no user.
fn is_named(authority: &Authority) -> bool {
    Host::parse(authority.as_str().as_bytes()).is_some_and(|host| !host.name.is_empty())
}

/// Returns whether an authority names a host, and a port (RFC 9110, section 9.3.6).
fn is_to_connect_to(authority: &Authority) -> bool {
    let host = Host::parse(authority.as_str().as_bytes());
    host.is_some_and(|host| !host.name.is_empty() && host.port.is_some_and(|port| port > 0))
}

/// Checks the Host field of a request of HTTP/1, and puts what the target says into it.
fn is_addressed<T>(request: &mut Request<T>, target: Target, known: &KnownHost) -> bool {
    let is_1_0 = request.version() == Version::HTTP_10;
    let headers = request.headers();
    // Clients send it before the others, as RFC 9110, section 7.2, asks of them.
    let field = match headers.iter().next() {
        Some((name, value)) if *name == HOST => Some(value),
        _ => headers.get(HOST),
    };
    // Where a field comes twice there are more fields than names.
    let may_be_several = headers.len() > headers.keys_len();
    if field.is_none() && !is_1_0 || may_be_several && headers.get_all(HOST).iter().nth(1).is_some()
    {
        return false;
    }
    if let Some(field) = field
        && !known.is(field.as_bytes())
    {
        let Some(host) = Host::parse(field.as_bytes()) else {
            return false;
        };
        // A client that has none to name sends an empty one.
        let may_be_empty = is_1_0 || matches!(target, Target::Elsewhere);
        if !host.name.is_empty() {
            known.note(field.as_bytes());
        } else if !may_be_empty || host.port.is_some() {
            return false;
        }
    }
    if matches!(target, Target::Elsewhere)
        && let Some(authority) = request.uri().authority()
        && field.is_none_or(|field| field.as_bytes() != authority.as_str().as_bytes())
    {
        let host = HeaderValue::from_str(authority.as_str()).expect("an authority is text");
        request.headers_mut().insert(HOST, host);
    }
    true
}

/// Checks `:authority`, Host and `:path` of a request of HTTP/2.
fn is_addressed_in_http2<T>(request: &Request<T>, known: &KnownHost) -> bool {
    let uri = request.uri();
    let is_connect = request.method() == Method::CONNECT;
    let well_named = match uri.authority() {
        Some(authority) if is_connect && uri.scheme().is_none() => is_to_connect_to(authority),
        Some(authority) => {
            let bytes = authority.as_str().as_bytes();
            let is_known = known.is(bytes);
            let is_well = is_known || is_named(authority);
            if is_well && !is_known {
                known.note(bytes);
            }
            is_well
        }
        None => !is_connect,
    };
    if !well_named || uri.scheme().is_some() && !is_path(request.method(), uri) {
        return false;
    }
    let mut fields = request.headers().get_all(HOST).iter();
    let host = match (fields.next(), fields.next()) {
        (None, _) => return true,
        (Some(field), None) => Host::parse(field.as_bytes()),
        _ => return false,
    };
    let Some(host) = host else { return false };
    let authority = uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    match authority.map(Host::parse) {
        None => !host.name.is_empty(),
        Some(named) => named.is_some_and(|named| named.is(&host, uri.scheme())),
    }
}

/// What has named a host on a connection, a Host field or `:authority`: whoever asks again says the same.
#[derive(Debug, Default)]
pub(super) struct KnownHost(RefCell<([u8; KNOWN], usize)>);

/// How long a Host may be to be remembered.
const KNOWN: usize = 32;

impl KnownHost {
    fn is(&self, named: &[u8]) -> bool {
        let (known, length) = &*self.0.borrow();
        known[..*length] == *named && *length > 0
    }

    fn note(&self, named: &[u8]) {
        let (known, length) = &mut *self.0.borrow_mut();
        if let Some(place) = known.get_mut(..named.len()) {
            place.copy_from_slice(named);
            *length = named.len();
        }
    }
}

/// A host and a port: `uri-host [ ":" port ]` (RFC 9110, section 7.2).
#[derive(Debug)]
struct Host<'a> {
    name: &'a [u8],
    port: Option<u16>,
}

impl<'a> Host<'a> {
    /// Takes a host apart; `None` if it is none. The name may be empty, and an empty port is none.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let end_of_name = if bytes.starts_with(b"[") {
            let end = bytes.iter().position(|&byte| byte == b']')?;
            is_address(&bytes[1..end]).then_some(end + 1)?
        } else {
            let odd = bytes.iter().position(|&byte| !is_plain(byte));
            match odd.map(|odd| (odd, bytes[odd])) {
                None => bytes.len(),
                Some((end, b':')) => end,
                Some(_) => {
                    let end = bytes.iter().position(|&byte| byte == b':');
                    let end = end.unwrap_or(bytes.len());
                    is_registered_name(&bytes[..end]).then_some(end)?
                }
            }
        };
        let (name, rest) = bytes.split_at(end_of_name);
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        Some(Self { name, port })
    }

    /// Returns whether both are the same, for a URI of this scheme.
    fn is(&self, other: &Self, scheme: Option<&Scheme>) -> bool {
        let port = |host: &Self| host.port.or_else(|| default_port(scheme));
        self.name.eq_ignore_ascii_case(other.name) && port(self) == port(other)
    }
}

fn default_port(scheme: Option<&Scheme>) -> Option<u16> {
    match scheme?.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn port(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |port, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        port.checked_mul(10)?.checked_add(u16::from(digit))
    })
}

/// `reg-name`, an IPv4 address among them (RFC 3986, section 3.2.2).
fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if is_plain(*byte) => rest,
            _ => return false,
        };
    }
}

/// What stands between brackets: an IPv6 address, or one that is not known yet (RFC 3986, section 3.2.2).
fn is_address(address: &[u8]) -> bool {
    if let [b'v' | b'V', rest @ ..] = address {
        let Some(dot) = rest.iter().position(|&byte| byte == b'.') else {
            return false;
        };
        let (version, rest) = (&rest[..dot], &rest[dot + 1..]);
        let is_part = |&byte: &u8| is_plain(byte) || byte == b':';
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !rest.is_empty()
            && rest.iter().all(is_part);
    }
    str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// `unreserved` and `sub-delims` (RFC 3986, section 2).
fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}

/// A table, since every byte of every Host is looked up.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        plain[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-._~!$&'()*+,;=";
    let mut place = 0;
    while place < marks.len() {
        plain[marks[place] as usize] = true;
        place += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_perhaps_a_port() {
        for (text, name, port) in [
            ("test", "test", None),
            ("test:80", "test", Some(80)),
            ("test:", "test", None),
            ("", "", None),
            (":1", "", Some(1)),
            ("[::1]:65535", "[::1]", Some(65535)),
            ("a%20b", "a%20b", None),
        ] {
            let host = Host::parse(text.as_bytes()).expect(text);
            assert_eq!((host.name, host.port), (name.as_bytes(), port), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_told() {
        for text in [
            "a@b",
            "a b",
            "a/b",
            "a:b",
            "a:1:2",
            "a:65536",
            "a:+1",
            "a%2",
            "a%zz",
            "::1",
            "[::1",
            "[::1]a",
            "[]",
            "[a]",
            "[v.a]",
            "[v1.]",
            "[vg.a]",
            "[::1%25lo]",
            "a\\b",
            "\u{e9}",
        ] {
            assert!(Host::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_host_that_is_known_speaks_for_no_other() {
        let known = KnownHost::default();
        let long = "a".repeat(KNOWN + 1);
        for (hosts, is_taken) in [
            (&["test:80"][..], true),
            (&["test:80"], true),
            (&["test:80", "test:80"], false),
            (&["test:8o"], false),
            (&["test:"], true),
            (&["te st"], false),
            (&[""], false),
            (&[":80"], false),
            (&[], false),
            (&[&long], true),
            (&[&long], true),
            (&["test:80"], true),
        ] {
            let mut request = Request::builder().uri("/").header("accept", "*/*");
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let mut request = request.body(()).expect("a request");
            let outcome = check(&mut request, Asked::Head, Strictness::Strict, &known);
            assert_eq!(outcome.is_ok(), is_taken, "{hosts:?}");
        }
    }

    /// A request of HTTP/2, as h2 makes one.
    fn http2(uri: &str, hosts: &[&str]) -> Request<()> {
        let mut request = Request::builder().version(Version::HTTP_2).uri(uri);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn the_host_of_http_2_is_its_authority() {
        for (uri, hosts, is_taken) in [
            ("http://test/", &[][..], true),
            ("http://test/", &["test"], true),
            ("http://test/", &["TEST"], true),
            ("http://test/", &["test:80"], true),
            ("https://test:443/", &["test:"], true),
            ("http://test/", &["other"], false),
            ("http://test/", &["test:443"], false),
            ("http://test/", &["test", "test"], false),
            ("http://test/", &["te st"], false),
            ("http://test/", &[""], false),
            ("http://user@test/", &[], false),
            ("http://:80/", &[], false),
            ("/", &[], true),
            ("/", &["test"], true),
            ("/", &[""], false),
        ] {
            let known = KnownHost::default();
            let check = |strictness| check(&mut http2(uri, hosts), Asked::Head, strictness, &known);
            let outcome = check(Strictness::Strict);
            assert_eq!(outcome.is_ok(), is_taken, "{uri} {hosts:?}");
            let lenient = check(Strictness::Lenient);
            assert_eq!(lenient, Ok(()), "{uri} {hosts:?}");
        }
    }
}
