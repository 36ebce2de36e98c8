//! One HTTP connection, from its first byte to its end.
//!
//! Which protocol it speaks is seen from its first bytes: HTTP/2 with prior knowledge begins with a
//! preface that is no HTTP/1 request (RFC 9113, section 3.4).

use std::error::Error;
use std::future::{self, Future};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use quoit::buf::Chunk;
use quoit::sync::Event;
use quoit::time::sleep;
use quoit::{Cancelled, CarriesCancelled, Scope};

use super::{Executor, Io, Timer};
use crate::tcp::TcpStream;

/// What a connection may ask of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub(super) head_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) max_head: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            max_head: 64 * 1024,
        }
    }
}

/// HTTP/2's preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection until it ends; once `draining` is set, it answers what was asked and ends.
pub(super) async fn serve<H, F, B, E>(
    stream: TcpStream,
    handler: H,
    limits: Limits,
    draining: &Event,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    let sniffed = Scope::new()
        .timeout(limits.head_timeout)
        .run(sniff(&stream, draining))
        .await?;
    // Nothing came in time, or the server stops and nothing had come.
    let Some(Some(Sniffed {
        protocol,
        early,
        rest,
    })) = sniffed
    else {
        return Ok(());
    };
    let io = Io::with_early_bytes(stream, early, rest).stall_timeout(limits.stall_timeout);
    match protocol {
        Protocol::Http1 => {
            // Told with the last answer, a client does not send another request after it.
            let service = service_fn(|request| {
                let answer = handler(request);
                async {
                    let mut answer = answer.await?;
                    if draining.is_set() {
                        answer
                            .headers_mut()
                            .insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, E>(answer)
                }
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(Timer)
                .header_read_timeout(limits.head_timeout)
                .max_header_size(limits.max_head)
                .pipeline_flush(true);
            let connection = pin!(builder.serve_connection(io, service));
            let last_call = async {
                // An idle client may be sending its next request just now: it gets its answer.
                draining.wait().await?;
                sleep(LAST_CALL).await
            };
            drive(connection, http1::Connection::graceful_shutdown, last_call).await?;
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(Executor);
            builder
                .timer(Timer)
                .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX));
            let connection = pin!(builder.serve_connection(io, service_fn(handler)));
            // GOAWAY says by itself which requests are still answered.
            drive(
                connection,
                http2::Connection::graceful_shutdown,
                draining.wait(),
            )
            .await?;
        }
    }
    Ok(())
}

/// How long an idle HTTP/1 connection stays open when the server begins to drain.
const LAST_CALL: Duration = Duration::from_millis(500);

/// Polls a connection to its end, and tells it once, when `when` is over, that this is the end.
async fn drive<C: Future>(
    mut connection: Pin<&mut C>,
    tell: impl Fn(Pin<&mut C>),
    when: impl Future<Output = Result<(), Cancelled>>,
) -> C::Output {
    let mut when = pin!(when);
    let mut told = false;
    future::poll_fn(|cx| {
        // Cancelled, it is told as well: it will not get far.
        if !told && when.as_mut().poll(cx).is_ready() {
            told = true;
            tell(connection.as_mut());
        }
        connection.as_mut().poll(cx)
    })
    .await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

struct Sniffed {
    protocol: Protocol,
    early: Vec<u8>,
    rest: Option<Chunk>,
}

/// Reads until it is clear which protocol the peer speaks; `None` if it went away, or the server
/// drains, before.
async fn sniff(stream: &TcpStream, draining: &Event) -> io::Result<Option<Sniffed>> {
    let mut early = Vec::new();
    loop {
        let Some(chunk) = until(stream.recv(), draining).await.transpose()?.flatten() else {
            return Ok(None);
        };
        let decided = protocol_of(&early, &chunk);
        if let Some(protocol) = decided {
            return Ok(Some(Sniffed {
                protocol,
                early,
                rest: Some(chunk),
            }));
        }
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

/// Waits for `future`, unless the server drains first.
async fn until<T>(future: impl Future<Output = T>, draining: &Event) -> Option<T> {
    let mut future = pin!(future);
    let mut drain = pin!(draining.wait());
    future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        match drain.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(None),
            // Cancelled: so is the future, and it says so itself.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Returns whether a connection's end is worth a word: peers come and go.
pub(super) fn is_ordinary_end(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
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
            if gone || error.cancelled().is_some() {
                return true;
            }
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message()
                || error.is_timeout()
                || error.is_parse()
                || error.is_canceled())
        {
            return true;
        }
        at = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

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
