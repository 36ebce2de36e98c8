//! What a pool is told when it is made: checked once, in [`ClientBuilder::build`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use quoit_net::tls::ClientTls;

use super::registry::Limits;
use super::{Client, Error};

#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) limits: Limits,
    pub(super) pool_timeout: Option<Duration>,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) tls: Option<ClientTls>,
    pub(super) has_prior_knowledge: bool,
    pub(super) addresses: HashMap<String, Vec<SocketAddr>>,
    pub(super) keep_alive: Option<(Duration, Duration)>,
    pub(super) headers: HeaderMap,
}

/// Says how a [`Client`] shall be. What is wrong with it comes out of [`build`](Self::build).
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    config: Config,
    http2: bool,
    wrong: Option<String>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        let mut headers = HeaderMap::new();
        let agent = concat!("quoit/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        Self {
            config: Config {
                limits: Limits {
                    per_origin: 100,
                    in_all: 1000,
                    idle: 100,
                    idle_timeout: Some(Duration::from_secs(60)),
                    streams: 1000,
                },
                pool_timeout: Some(Duration::from_secs(30)),
                connect_timeout: Duration::from_secs(10),
                timeout: None,
                tls: None,
                has_prior_knowledge: false,
                addresses: HashMap::new(),
                keep_alive: Some((Duration::from_secs(30), Duration::from_secs(20))),
                headers,
            },
            http2: true,
            wrong: None,
        }
    }
}

impl ClientBuilder {
    /// How many connections there are to one origin at most, on this core. Default 100: few servers like more
    /// of one client. HTTP/2 needs one.
    pub fn max_connections_per_origin(mut self, connections: usize) -> Self {
        self.config.limits.per_origin = connections;
        self
    }

    /// How many connections there are at most, on this core. Default 1000. At the limit the one that was idle
    /// for the longest time is closed to make room; if none is idle, requests wait in order.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.config.limits.in_all = connections;
        self
    }

    /// How many idle connections are kept at most; 0 keeps none. Default 100.
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.config.limits.idle = connections;
        self
    }

    /// How long an idle connection is kept: zero closes it at once, `None` keeps it until the peer closes it.
    /// Default 60 s, which is shorter than what most servers wait, so that we close before they do.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.limits.idle_timeout = timeout.into();
        self
    }

    /// How many requests share a connection of HTTP/2 at most, if its peer allows as many. Default 1000.
    pub fn max_streams(mut self, streams: usize) -> Self {
        self.config.limits.streams = streams;
        self
    }

    /// How long a request waits for a connection before it fails with [`Error::PoolTimeout`]; the making of
    /// one counts. Default 30 s; `None` waits for as long as the request's own time lasts.
    pub fn pool_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.pool_timeout = timeout.into();
        self
    }

    /// How long the making of a connection may take: name, connect, and TLS. Default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long a request may take, from [`send`](super::RequestBuilder::send) to the end of its answer,
    /// unless the request says otherwise. Default: as long as it takes, or its scope lasts.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.config.timeout = timeout.into();
        self
    }

    /// Whom to trust, and who to be, where a URL says `https`. Default: nobody, and such requests fail. No
    /// certificate of the machine is trusted by itself: read the roots, and say
    /// [`ClientTls::trusting`]. The protocols it offers are set here.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// Never speaks HTTP/2, also to servers that would.
    pub fn http1_only(mut self) -> Self {
        self.http2 = false;
        self
    }

    /// Speaks HTTP/2 where a URL says `http`, without asking (prior knowledge, RFC 9113, section 3.3).
    /// Default: HTTP/1.1.
    pub fn http2_prior_knowledge(mut self) -> Self {
        self.config.has_prior_knowledge = true;
        self
    }

    /// Asks the peer of an HTTP/2 connection that has requests on it for a sign of life after `interval`
    /// of silence, and gives it up when none comes for `limit`: its requests fail with
    /// [`Error::PeerSilent`]. Default 30 s and 20 s; neither may be zero.
    pub fn keep_alive(mut self, interval: Duration, limit: Duration) -> Self {
        self.config.keep_alive = Some((interval, limit));
        self
    }

    /// Sends no pings: a peer that is dead is noticed when the kernel gives up, after minutes.
    pub fn without_keep_alive(mut self) -> Self {
        self.config.keep_alive = None;
        self
    }

    /// Says where a host is, in place of the resolver: ports and all, the best first.
    pub fn addresses(mut self, host: &str, addresses: &[SocketAddr]) -> Self {
        let host = host.to_ascii_lowercase();
        self.config.addresses.insert(host, addresses.to_vec());
        self
    }

    /// Puts a field on every request that does not have it. Default: `user-agent: quoit/…`.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName, Error: Into<http::Error>>,
        V: TryInto<HeaderValue, Error: Into<http::Error>>,
    {
        match super::request::field(name, value) {
            Ok((name, value)) => drop(self.config.headers.insert(name, value)),
            Err(what) => self.wrong = self.wrong.or(Some(what)),
        }
        self
    }

    /// Makes the client, with a pool of its own, on this core. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`Error::Request`]: which of the settings is wrong, and what it may be.
    pub fn build(self) -> Result<Client, Error> {
        let limits = &self.config.limits;
        let counts = [
            ("max_connections_per_origin", limits.per_origin),
            ("max_connections", limits.in_all),
            ("max_streams", limits.streams),
        ];
        let zero = counts.iter().find(|(_, count)| *count == 0);
        let too_few = zero.map(|(name, _)| format!("{name} is 0: it must be 1 or more"));
        let no_time = self.config.connect_timeout.is_zero();
        let no_time = no_time.then(|| "connect_timeout is 0: no connection is made in that".into());
        let no_ping = self.config.keep_alive.and_then(|times| match times {
            (interval, _) if interval.is_zero() => {
                Some("keep_alive has an interval of 0: a peer is to be asked less often")
            }
            (_, limit) if limit.is_zero() => {
                Some("keep_alive has a limit of 0: no peer answers in that")
            }
            _ => None,
        });
        let no_ping = no_ping.map(str::to_owned);
        let has_length = self.config.headers.contains_key(header::CONTENT_LENGTH);
        let has_length = has_length.then(|| {
            "the field content-length is set for all requests: each has a length of its own".into()
        });
        let contradicts = self.config.has_prior_knowledge && !self.http2;
        let contradicts = contradicts
            .then(|| "http1_only and http2_prior_knowledge are both set: choose one".into());
        if let Some(what) = self
            .wrong
            .or(too_few)
            .or(no_time)
            .or(no_ping)
            .or(has_length)
            .or(contradicts)
        {
            return Err(Error::Request(what));
        }
        super::request::check_host(&self.config.headers)?;
        let mut config = self.config;
        let protocols: &[&[u8]] = if self.http2 {
            &[b"h2", b"http/1.1"]
        } else {
            &[b"http/1.1"]
        };
        config.tls = config.tls.map(|tls| tls.protocols(protocols));
        Ok(Client::of(config))
    }
}
