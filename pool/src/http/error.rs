//! What can go wrong with a request, and what to do about it.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::{error, fmt};

use http::StatusCode;
use quoit::{Cancelled, CarriesCancelled};

/// Why a request has no answer, or not all of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The request could not be made from what it was told: what is wrong, and what to say instead.
    Request(String),
    /// No address is known for the host: a name that is written wrong, or a resolver out of reach.
    Name {
        /// The name that was looked up.
        host: String,
        /// What the resolver said.
        cause: Arc<io::Error>,
    },
    /// No connection came about: nobody listens, the network says no, or it took too long.
    Connect {
        /// Where to.
        origin: String,
        /// What became of the last address that was tried.
        cause: Arc<io::Error>,
    },
    /// The server could not prove who it is, or does not speak TLS: the cause is rustls's own error.
    Tls {
        /// Where to.
        origin: String,
        /// What was wrong.
        cause: Arc<io::Error>,
    },
    /// What the peer says is no HTTP, or not the version that was expected. Its connection is closed.
    Protocol(Box<dyn StdError + Send + Sync>),
    /// The peer, or somebody on the way, ended the connection before the answer was whole. Whether the
    /// request was carried out is not known; ask again if that does no harm.
    Lost(Box<dyn StdError + Send + Sync>),
    /// The peer reset the stream of this request alone (HTTP/2): the reason is a code of RFC 9113,
    /// section 7, such as 0xb, `ENHANCE_YOUR_CALM`.
    Reset {
        /// The code.
        code: u32,
    },
    /// The peer answered no ping: it, or the network to it, is dead. See
    /// [`ClientBuilder::keep_alive`](super::ClientBuilder::keep_alive).
    PeerSilent,
    /// The request's own body failed, or panicked.
    Body(Box<dyn StdError + Send + Sync>),
    /// All connections were in use for so long: see
    /// [`ClientBuilder::pool_timeout`](super::ClientBuilder::pool_timeout), and give back the
    /// connections of answers that are not read.
    PoolTimeout {
        /// How long it waited.
        waited: Duration,
    },
    /// The request's own time was over.
    TimedOut,
    /// The answer is longer than was asked for.
    TooLong {
        /// How many bytes were to be taken at most.
        limit: usize,
    },
    /// The pool was closed: make another client, or close this one later.
    Closed,
    /// The answer's status says that it failed: from
    /// [`Response::error_for_status`](super::Response::error_for_status).
    Status(StatusCode),
    /// A scope around was cancelled.
    Cancelled(Cancelled),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(what) => f.write_str(what),
            Self::Name { host, cause } => write!(
                f,
                "no address is known for {host:?}: check how it is written, and the resolver ({cause})"
            ),
            Self::Connect { origin, cause } => write!(f, "cannot reach {origin}: {cause}"),
            Self::Tls { origin, cause } => write!(
                f,
                "{origin} is not who it should be, or does not speak TLS: {cause}; check the name, and \
                 whom the client trusts"
            ),
            Self::Protocol(cause) => {
                write!(
                    f,
                    "the peer does not speak the HTTP it should: {}",
                    root_of(&**cause)
                )
            }
            Self::Lost(cause) => write!(
                f,
                "the connection ended before the answer was whole: {}",
                root_of(&**cause)
            ),
            Self::Reset { code } => {
                write!(f, "the peer reset the request: {}", h2::Reason::from(*code))
            }
            Self::PeerSilent => {
                f.write_str("the peer has not answered a ping: it is taken for dead")
            }
            Self::Body(cause) => write!(f, "the request's body failed: {cause}"),
            Self::PoolTimeout { waited } => write!(
                f,
                "no connection became free in {waited:?}: allow more, or read the answers that hold them"
            ),
            Self::TimedOut => f.write_str("the request was not answered in its time"),
            Self::TooLong { limit } => {
                write!(
                    f,
                    "the answer is longer than the {limit} bytes that were allowed"
                )
            }
            Self::Closed => f.write_str("the pool of connections was closed"),
            Self::Status(status) => write!(f, "the server answered {status}"),
            Self::Cancelled(cancelled) => cancelled.fmt(f),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Name { cause, .. } | Self::Connect { cause, .. } | Self::Tls { cause, .. } => {
                Some(&**cause)
            }
            Self::Protocol(cause) | Self::Lost(cause) | Self::Body(cause) => Some(&**cause),
            Self::Cancelled(cancelled) => Some(cancelled),
            Self::Request(_)
            | Self::Reset { .. }
            | Self::PeerSilent
            | Self::PoolTimeout { .. }
            | Self::TimedOut
            | Self::TooLong { .. }
            | Self::Closed
            | Self::Status(_) => None,
        }
    }
}

impl From<Cancelled> for Error {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl CarriesCancelled for Error {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Cancelled(cancelled) => Some(*cancelled),
            _ => None,
        }
    }
}

/// A cancellation stays one; the rest is of the nearest kind, with this error inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Cancelled(cancelled) => return (*cancelled).into(),
            Error::Request(_) => io::ErrorKind::InvalidInput,
            Error::Name { .. } => io::ErrorKind::NotFound,
            Error::Connect { cause, .. } | Error::Tls { cause, .. } => cause.kind(),
            Error::Protocol(_) => io::ErrorKind::InvalidData,
            Error::Lost(_) | Error::Reset { .. } => io::ErrorKind::ConnectionReset,
            Error::PeerSilent | Error::PoolTimeout { .. } | Error::TimedOut => {
                io::ErrorKind::TimedOut
            }
            Error::Closed => io::ErrorKind::ConnectionAborted,
            Error::Body(_) | Error::TooLong { .. } | Error::Status(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl Error {
    /// Returns the same error once more, for another who waited for the same connect.
    pub(super) fn once_more(&self) -> Self {
        match self {
            Self::Request(what) => Self::Request(what.clone()),
            Self::Name { host, cause } => Self::Name {
                host: host.clone(),
                cause: Arc::clone(cause),
            },
            Self::Connect { origin, cause } => Self::Connect {
                origin: origin.clone(),
                cause: Arc::clone(cause),
            },
            Self::Tls { origin, cause } => Self::Tls {
                origin: origin.clone(),
                cause: Arc::clone(cause),
            },
            other => Self::Lost(other.to_string().into()),
        }
    }

    /// Says what hyper's error is to a caller.
    pub(super) fn of_hyper(error: hyper::Error) -> Self {
        match kind_of(&error) {
            Kind::Reset(code) => Self::Reset { code },
            Kind::Refused => Self::Reset {
                code: h2::Reason::REFUSED_STREAM.into(),
            },
            Kind::PeerSilent => Self::PeerSilent,
            Kind::Protocol => Self::Protocol(error.into()),
            Kind::GoneAway | Kind::Lost => Self::Lost(error.into()),
        }
    }
}

/// hyper says in general what happened, and its innermost cause in particular.
fn root_of<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root
}

/// What hyper's errors come down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The peer goes away, and has said that it did nothing about the request (RFC 9113, section 8.7).
    GoneAway,
    /// The peer did nothing about the request, and refuses it alone.
    Refused,
    Reset(u32),
    PeerSilent,
    Protocol,
    Lost,
}

/// Says what an error of hyper's is.
pub(super) fn kind_of(error: &hyper::Error) -> Kind {
    if let Some(h2) = caused_by::<h2::Error>(error) {
        let reason = h2.reason().map_or(0, u32::from);
        let refused = h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        if h2.is_remote() && h2.is_go_away() {
            return Kind::GoneAway;
        }
        if h2.is_remote() && h2.is_reset() {
            return if refused {
                Kind::Refused
            } else {
                Kind::Reset(reason)
            };
        }
        return if h2.is_io() {
            Kind::Lost
        } else {
            Kind::Protocol
        };
    }
    // So hyper says what is no chunk.
    let is_no_chunk = caused_by::<io::Error>(error)
        .is_some_and(|error| error.kind() == io::ErrorKind::InvalidInput);
    let is_no_head = error.is_parse() || error.is_parse_too_large() || error.is_parse_status();
    if error.is_timeout() {
        Kind::PeerSilent
    } else if is_no_head || is_no_chunk {
        Kind::Protocol
    } else {
        Kind::Lost
    }
}

fn caused_by<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
