//! `Page`: what a server says of itself, beneath a path of its own.
//!
//! It is answered before any handler is asked, and counted as any request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use quoit::blocking::{JobError, run_abandonable};

use super::Peer;
use super::handle::Shared;

/// What the server says of itself, for a person and for programs, beneath a path of your choice.
///
/// | path | |
/// |---|---|
/// | `/_quoit/` | a live page: load, latencies and scopes of each core, and the scope tree on demand |
/// | `/_quoit/metrics` | all counts and histograms for Prometheus |
/// | `/_quoit/metrics.json` | the same as JSON: [`Snapshot::to_json`](quoit::metrics::Snapshot::to_json) |
/// | `/_quoit/scopes` | who waits for what since when, as text: [`ScopeDump`](quoit::ScopeDump) |
/// | `/_quoit/scopes.json` | the same as JSON |
///
/// It tells what a server does, and whom it talks to. So it answers those who sit on the same machine:
/// over loopback or a Unix socket. To everybody else the path belongs to the handler, as if there were no
/// page. A proxy on the same machine makes all its clients such: let it keep the path to itself, or say
/// [`only_for`](Self::only_for) whom to answer. (So is a browser on it, whichever site sends it here by a name
/// that was made to mean this machine.)
///
/// ```no_run
/// use std::convert::Infallible;
/// use http::Response;
/// use quoit_net::http::{Page, Server};
///
/// let server = Server::bind("127.0.0.1:8080")
///     .page(Page::at("/_quoit/"))
///     .serve(|_| async { Ok::<_, Infallible>(Response::new("hello\n".to_owned())) })?;
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Page {
    path: Arc<str>,
    for_whom: Arc<dyn Fn(&Peer) -> bool + Send + Sync>,
}

impl Page {
    /// Beneath this path; a `/` at the start and the end is added if there is none.
    pub fn at(path: &str) -> Self {
        let inner = path.trim_matches('/');
        let path = match inner {
            "" => "/".to_owned(),
            inner => format!("/{inner}/"),
        };
        Self {
            path: path.into(),
            for_whom: Arc::new(is_here),
        }
    }

    /// Answers those of whom this says so.
    #[must_use]
    pub fn only_for(mut self, whom: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        self.for_whom = Arc::new(whom);
        self
    }

    /// Answers everybody: for a server that strangers cannot reach.
    #[must_use]
    pub fn for_all(self) -> Self {
        self.only_for(|_| true)
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Whether a client is on this machine.
fn is_here(peer: &Peer) -> bool {
    peer.address
        .ip()
        .is_none_or(|ip| ip.to_canonical().is_loopback())
}

/// A page on one core of its server.
#[derive(Debug)]
pub(super) struct PageSite {
    page: Page,
    server: Arc<Shared>,
}

/// What of it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The path without its last slash, in which relative links would lead elsewhere.
    Beside,
    Page,
    Metrics,
    MetricsJson,
    Scopes,
    ScopesJson,
    Unknown,
}

impl PageSite {
    pub(super) fn new(page: Page, server: Arc<Shared>) -> Self {
        Self { page, server }
    }

    /// Returns which part a path means; `None` if it is the handler's.
    pub(super) fn part(&self, path: &str, peer: &Peer) -> Option<Part> {
        let part = part(&self.page.path, path)?;
        (self.page.for_whom)(peer).then_some(part)
    }

    /// Answers for a part of it.
    pub(super) async fn answer(&self, part: Part, method: &Method) -> Response<Bytes> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refused = said(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "only GET and HEAD are answered here\n".into(),
            );
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(ALLOW, allowed);
            return refused;
        }
        let ok = StatusCode::OK;
        match part {
            Part::Beside => {
                let mut moved = said(StatusCode::PERMANENT_REDIRECT, TEXT, Bytes::new());
                let to = HeaderValue::from_str(&self.page.path);
                if let Ok(to) = to {
                    moved.headers_mut().insert(LOCATION, to);
                }
                moved
            }
            Part::Page => said(ok, HTML, Bytes::from_static(include_bytes!("page.html"))),
            Part::Metrics => said(
                ok,
                PROMETHEUS,
                self.server.snapshot().to_prometheus().into(),
            ),
            Part::MetricsJson => said(ok, JSON, self.server.snapshot().to_json().into()),
            Part::Scopes => self.scopes(TEXT, |dump| dump.to_string()).await,
            Part::ScopesJson => self.scopes(JSON, |dump| dump.to_json()).await,
            Part::Unknown => {
                let what = "there is no such part of the page\n";
                said(StatusCode::NOT_FOUND, TEXT, what.into())
            }
        }
    }

    /// Asks all cores, on a thread that may wait: a core cannot wait for another.
    async fn scopes(
        &self,
        kind: &'static str,
        write: impl FnOnce(quoit::ScopeDump) -> String + Send + 'static,
    ) -> Response<Bytes> {
        let server = Arc::clone(&self.server);
        match run_abandonable(move |_| write(server.dump(PATIENCE))).await {
            Ok(text) => said(StatusCode::OK, kind, text.into()),
            Err(error) => {
                let why = match error {
                    JobError::NoThread(error) => format!("no thread to ask the cores: {error}\n"),
                    other => format!("the cores were not asked: {other}\n"),
                };
                said(StatusCode::SERVICE_UNAVAILABLE, TEXT, why.into())
            }
        }
    }
}

/// How long cores are waited for that are busy.
const PATIENCE: Duration = Duration::from_secs(1);

fn part(base: &str, path: &str) -> Option<Part> {
    let Some(rest) = path.strip_prefix(base) else {
        return (base.strip_suffix('/') == Some(path)).then_some(Part::Beside);
    };
    Some(match rest {
        "" => Part::Page,
        "metrics" => Part::Metrics,
        "metrics.json" => Part::MetricsJson,
        "scopes" => Part::Scopes,
        "scopes.json" => Part::ScopesJson,
        // All else beneath the root is the handler's.
        _ if base == "/" => return None,
        _ => Part::Unknown,
    })
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' exposition formats, text, version 0.0.4.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page brings all it needs, and asks nobody but its server.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn said(status: StatusCode, kind: &'static str, what: Bytes) -> Response<Bytes> {
    let mut answer = Response::new(what);
    *answer.status_mut() = status;
    let fields: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    for (name, value) in fields {
        answer
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_page_s_or_the_handler_s() {
        for (base, path, expected) in [
            ("/_quoit/", "/_quoit/", Some(Part::Page)),
            ("/_quoit/", "/_quoit", Some(Part::Beside)),
            ("/_quoit/", "/_quoit/metrics", Some(Part::Metrics)),
            ("/_quoit/", "/_quoit/metrics.json", Some(Part::MetricsJson)),
            ("/_quoit/", "/_quoit/scopes", Some(Part::Scopes)),
            ("/_quoit/", "/_quoit/scopes.json", Some(Part::ScopesJson)),
            ("/_quoit/", "/_quoit/metrics/", Some(Part::Unknown)),
            ("/_quoit/", "/_quoitx", None),
            ("/_quoit/", "/", None),
            ("/_quoit/", "/a/_quoit/", None),
            ("/", "/", Some(Part::Page)),
            ("/", "/metrics", Some(Part::Metrics)),
            ("/", "/other", None),
        ] {
            assert_eq!(part(base, path), expected, "{path} beneath {base}");
        }
    }

    #[test]
    fn a_path_gets_the_slashes_it_lacks() {
        for path in ["stats", "/stats", "stats/", "/stats/", "//stats//"] {
            assert_eq!(&*Page::at(path).path, "/stats/");
        }
        assert_eq!(&*Page::at("/").path, "/");
    }
}
