//! What is special to HTTP/2: how much a client may make us keep, and requests that are none.
//!
//! Per connection a client can make us keep, besides its requests' heads and handlers:
//! 1 MiB of bodies that no handler has read, 64 KiB of an answer for each stream that it does not read,
//! and what [`Io`](super::Io) gathers. What it says without asking for anything is bounded by
//! [`Frames`](super::frames::Frames).
//!
//! There are no keep-alive PINGs: a client that says nothing and has nothing to wait for is let go by
//! the idle timeout, one that takes nothing by the stall timeout, and whether one that waits for a
//! handler is still there is a question for TCP.

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, response};
use http_body::Body;
use hyper::server::conn::http2::Builder;

use super::answer::Content;
use super::connection::Limits;
use super::timer::Timer;

/// How many streams a client may have open: RFC 9113, section 6.5.2, recommends no fewer than 100,
/// so that clients need no second connection.
pub(super) const MAX_CONCURRENT_STREAMS: u32 = 128;

/// How much of a body is received ahead of its handler: half of what all may have, so that a handler
/// that does not read leaves room for the others.
const STREAM_WINDOW: u32 = CONNECTION_WINDOW / 2;

/// How much of all bodies is received ahead of their handlers: 10 MB/s over a distance of 100 ms.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How much of an answer is made ahead of what its client takes: as much as goes out in one send.
const SEND_BUFFER: usize = 64 * 1024;

/// How many requests may be reset before they were begun: in one read, that is, since all that came
/// in one are begun. Nobody changes his mind so fast, but for an attacker (CVE-2023-44487).
const PENDING_RESETS: usize = 20;

/// How many requests in the life of a connection may be so wrong that we reset them, or be too many at
/// once. A proxy hands on the mistakes of many.
const OWN_RESETS: usize = 1024;

/// How hyper shall speak HTTP/2.
pub(super) fn builder<E: Clone>(limits: &Limits, executor: E) -> Builder<E> {
    let mut builder = Builder::new(executor);
    builder
        .timer(Timer)
        .auto_date_header(false)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(OWN_RESETS);
    builder
}

/// Returns whether a request is malformed in a way that hyper lets pass: a CONNECT to nowhere (RFC
/// 9113, section 8.5), an empty scheme (section 8.3.1), white space around the value of a field (section 8.2.1).
pub(super) fn is_malformed<T>(request: &Request<T>) -> bool {
    let uri = request.uri();
    let is_padded =
        |value: &HeaderValue| matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
    request.headers().values().any(is_padded)
        || (request.method() == Method::CONNECT && uri.authority().is_none())
        || uri.scheme_str().is_some_and(str::is_empty)
}

/// Leaves of an answer what a HEAD asks for: its head, with the length that its body would have had. A
/// client takes anything more for a breach of the protocol (RFC 9113, section 8.1.1), and hyper sees to it in
/// HTTP/1 alone.
pub(super) fn leave_head<B: Body>(head: &mut response::Parts, content: &mut Content<B>) {
    if let Some(length @ 1..) = content.size_hint().exact() {
        let field = head.headers.entry(CONTENT_LENGTH);
        field.or_insert_with(|| length.into());
    }
    *content = Content::Nothing;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, uri: &str) -> Request<()> {
        let request = Request::builder().method(method).uri(uri);
        request.body(()).expect("a request")
    }

    #[test]
    fn connect_needs_somewhere_to_connect_to() {
        assert!(is_malformed(&request(Method::CONNECT, "/")));
        assert!(!is_malformed(&request(Method::CONNECT, "test:443")));
        assert!(!is_malformed(&request(Method::GET, "/")));
        assert!(!is_malformed(&request(Method::GET, "http://test/")));
    }
}
