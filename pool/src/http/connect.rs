//! From an origin to a stream that HTTP can be spoken on: names, addresses, TLS.
//!
//! ```text
//!   names ──look-up, on a thread──► addresses ──raced──► a TCP stream ──TLS, with ALPN──► Io
//! ```
//!
//! All of it happens in the connection's owner, in its scope: a cancel ends it wherever it is.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quoit::blocking::{self, JobError};
use quoit::op::Stream;
use quoit::time::{Alarm, Instant};
use quoit::{CarriesCancelled, Scope};
use quoit_net::http::Io;
use quoit_net::{TcpStream, UnixStream};

use super::Error;
use super::config::Config;
use super::origin::Origin;
use super::registry::Speaks;

/// How long an address has before the next is tried beside it: RFC 8305, section 5, recommends 250 ms.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Connects to an origin, as far as HTTP; says what is spoken there.
pub(super) async fn connect(config: &Config, origin: &Origin) -> Result<(Io, Speaks), Error> {
    let scope = Scope::new().timeout(config.connect_timeout);
    let connected = scope.run(connect_in_any_time(config, origin)).await?;
    let (io, speaks) = connected.ok_or_else(|| {
        let what = format!("no connection came about in {:?}", config.connect_timeout);
        failed(origin, io::Error::new(io::ErrorKind::TimedOut, what))
    })?;
    let io = match speaks {
        // A server may take its time with a request; how long it has is for that to say.
        Speaks::Http1 => io.stall_timeout(Duration::MAX),
        // It reads whatever it does with requests, which it holds up by their windows.
        Speaks::Http2 => io,
    };
    Ok((io, speaks))
}

async fn connect_in_any_time(config: &Config, origin: &Origin) -> Result<(Io, Speaks), Error> {
    let stream = match &origin.unix {
        Some(address) => UnixStream::connect(address.clone()).await.map(Stream::from),
        None => race(addresses_of(config, origin).await?)
            .await
            .map(Stream::from),
    };
    let stream = stream.map_err(|error| failed(origin, error))?;
    if origin.is_encrypted {
        return shake_hands(config, origin, stream).await;
    }
    let speaks = if config.has_prior_knowledge {
        Speaks::Http2
    } else {
        Speaks::Http1
    };
    Ok((Io::new(stream), speaks))
}

fn failed(origin: &Origin, error: io::Error) -> Error {
    match error.cancelled() {
        Some(cancelled) => cancelled.into(),
        None => Error::Connect {
            origin: origin.to_string(),
            cause: Arc::new(error),
        },
    }
}

async fn shake_hands(
    config: &Config,
    origin: &Origin,
    stream: Stream,
) -> Result<(Io, Speaks), Error> {
    let tls = config.tls.as_ref();
    let tls = tls.expect("a request to an encrypted origin is refused without");
    let shaken = tls.connect(&origin.host, stream).await;
    let stream = shaken.map_err(|error| match error.cancelled() {
        Some(cancelled) => cancelled.into(),
        None => Error::Tls {
            origin: origin.to_string(),
            cause: Arc::new(error),
        },
    })?;
    let speaks = match stream.info().protocol.as_deref() {
        Some(b"h2") => Speaks::Http2,
        _ => Speaks::Http1,
    };
    Ok((Io::tls(stream), speaks))
}

/// Returns where an origin may be reached, in the order in which that is tried.
async fn addresses_of(config: &Config, origin: &Origin) -> Result<Vec<SocketAddr>, Error> {
    if let Some(ip) = origin.ip() {
        return Ok(vec![SocketAddr::new(ip, origin.port)]);
    }
    if let Some(known) = config.addresses.get(&origin.host) {
        return Ok(known.clone());
    }
    let unknown = |cause: io::Error| Error::Name {
        host: origin.host.clone(),
        cause: Arc::new(cause),
    };
    if quoit::time::is_simulated() {
        // The resolver is the machine's, and asks the network.
        let what =
            "names are not looked up in a simulation: say where the host is with `addresses`";
        return Err(unknown(io::Error::new(io::ErrorKind::Unsupported, what)));
    }
    let place = (origin.host.clone(), origin.port);
    let job = blocking::run_abandonable(move |_| {
        place.to_socket_addrs().map(Iterator::collect::<Vec<_>>)
    });
    let found = match job.await {
        Ok(found) => found.map_err(unknown)?,
        Err(JobError::Cancelled(cancelled)) => return Err(cancelled.into()),
        Err(JobError::NoThread(error)) => return Err(unknown(error)),
        Err(other) => other.resume(),
    };
    if found.is_empty() {
        let what = "the name is there, and has no address";
        return Err(unknown(io::Error::new(io::ErrorKind::NotFound, what)));
    }
    Ok(interleaved(found))
}

/// Puts addresses of both families by turns, beginning with the family of the first (RFC 8305, section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let of_first = |address: &SocketAddr| address.is_ipv6() == first_is_v6;
    let (one, other): (VecDeque<_>, VecDeque<_>) = addresses.into_iter().partition(of_first);
    let (mut one, mut other) = (one, other);
    let mut mixed = Vec::with_capacity(one.len() + other.len());
    while !(one.is_empty() && other.is_empty()) {
        mixed.extend(one.pop_front());
        mixed.extend(other.pop_front());
    }
    mixed
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// Connects to the first address that answers (RFC 8305, section 5): each is tried when the one before it has
/// failed or has had its time. The others are dropped, which closes their sockets. The error is the last one.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut left = VecDeque::from(addresses);
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut next_at = Alarm::at(Instant::now());
    let mut failure = None;
    poll_fn(move |cx| {
        loop {
            match poll_attempts(&mut attempts, cx) {
                Some(Ok(stream)) => {
                    attempts.clear();
                    return Poll::Ready(Ok(stream));
                }
                Some(Err(error)) if error.cancelled().is_some() => return Poll::Ready(Err(error)),
                Some(Err(error)) => {
                    failure = Some(error);
                    next_at = Alarm::at(Instant::now());
                    continue;
                }
                None => {}
            }
            if left.is_empty() && attempts.is_empty() {
                let none = || io::Error::new(io::ErrorKind::NotFound, "there is no address");
                return Poll::Ready(Err(failure.take().unwrap_or_else(none)));
            }
            if left.is_empty() || Pin::new(&mut next_at).poll(cx).is_pending() {
                return Poll::Pending;
            }
            let address = left.pop_front().expect("some are left");
            attempts.push(Box::pin(TcpStream::connect(address)));
            next_at = Alarm::at(Instant::now() + NEXT_ADDRESS_AFTER);
        }
    })
    .await
}

/// Polls all attempts; one that has ended is taken out.
fn poll_attempts(
    attempts: &mut Vec<Attempt>,
    cx: &mut Context<'_>,
) -> Option<io::Result<TcpStream>> {
    for place in 0..attempts.len() {
        if let Poll::Ready(ended) = attempts[place].as_mut().poll(cx) {
            drop(attempts.remove(place));
            return Some(ended);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (a, b) = (address("[::1]:1"), address("[::1]:2"));
        let (c, d, e) = (
            address("127.0.0.1:3"),
            address("127.0.0.1:4"),
            address("127.0.0.1:5"),
        );
        assert_eq!(interleaved(vec![a, b, c, d, e]), [a, c, b, d, e]);
        assert_eq!(interleaved(vec![c, d, a]), [c, a, d]);
        assert_eq!(interleaved(vec![]), []);
    }
}
