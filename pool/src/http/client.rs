//! `Client` and `HttpPool`: where requests begin, and what their connections are kept in.

use std::rc::Rc;

use http::Method;
use quoit::Cancelled;

use super::config::{ClientBuilder, Config};
use super::request::RequestBuilder;
use super::shared::Shared;

/// An HTTP client: HTTP/1.1 and HTTP/2, over TCP, TLS and Unix sockets, with connections that are kept.
///
/// ```no_run
/// use std::time::Duration;
/// use quoit_pool::http::{Client, Error};
///
/// quoit::block_on(async {
///     let client = Client::new();
///     let request = client.get("http://127.0.0.1:8080/");
///     let answer = request.timeout(Duration::from_secs(5)).send().await?;
///     println!("{}: {}", answer.status(), answer.text().await?);
///     client.pool().close().await?;
///     Ok::<_, Error>(())
/// })
/// # ?.map_err(std::io::Error::from)?;
/// # Ok::<_, std::io::Error>(())
/// ```
///
/// Cheap to clone; clones share the pool. A client stays on its core, and each core has one of its own:
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// send(quoit_pool::http::Client::new());
/// ```
///
/// Redirects are not followed, cookies not kept, and contents not decoded: an answer is what the server said.
///
/// When the last clone and the last answer have been dropped, all connections are closed, unawaited;
/// [`HttpPool::close`] waits for that.
#[derive(Debug, Clone)]
pub struct Client {
    pool: HttpPool,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// Makes a client as [`ClientBuilder`] has it by default: it trusts nobody, so for `https` it needs to be
    /// [told](ClientBuilder::tls).
    ///
    /// # Panics
    ///
    /// Never; the defaults are right.
    pub fn new() -> Self {
        Self::builder().build().expect("the defaults are right")
    }

    /// Begins a client that is told how to be.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(super) fn of(config: Config) -> Self {
        Self {
            pool: HttpPool(Shared::new(config)),
        }
    }

    /// Returns the pool of its connections.
    pub fn pool(&self) -> &HttpPool {
        &self.pool
    }

    /// Begins a GET.
    pub fn get(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Begins a HEAD.
    pub fn head(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// Begins a POST.
    pub fn post(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Begins a PUT.
    pub fn put(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Begins a PATCH.
    pub fn patch(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Begins a DELETE.
    pub fn delete(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Begins a request to a whole URL: `http://host/path`, `https://host:port/path?query`. What is wrong with
    /// it comes out of [`RequestBuilder::send`].
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> RequestBuilder {
        RequestBuilder::new(Rc::clone(&self.pool.0), method, url.as_ref())
    }
}

/// The connections of a [`Client`] and its clones, on one core.
///
/// A connection of HTTP/1 has one request at a time, one of HTTP/2 as many as its peer allows. A request that
/// finds no room waits in order, and [not for ever](ClientBuilder::pool_timeout).
#[derive(Debug, Clone)]
pub struct HttpPool(Rc<Shared>);

impl HttpPool {
    /// Returns what has happened so far, and what there is now.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }

    /// Closes all connections, and waits until that is done.
    ///
    /// Peers hear of it, as of every connection that a pool closes: over HTTP/2 by GOAWAY with NO_ERROR, over TLS
    /// by `close_notify`. None is waited for: one that takes nothing has 100 ms, and is left without a word.
    ///
    /// Requests that wait or are under way end with [`Error::Closed`](super::Error::Closed), those that come
    /// later as well. A stream that was [handed over](super::Response::upgrade) is no longer the pool's.
    ///
    /// # Errors
    ///
    /// [`Cancelled`]: this waits no more. The pool closes all the same.
    pub async fn close(&self) -> Result<(), Cancelled> {
        self.0.begin_close();
        self.0.emptied().await
    }
}

/// What has happened in a pool, and what there is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connections that were made.
    pub connects: u64,
    /// Connects that failed.
    pub failed_connects: u64,
    /// Requests that were given a connection which had been used before.
    pub reuses: u64,
    /// Requests that were sent again, since the peer had done nothing about them.
    pub retries: u64,
    /// Idle connections that were closed because there were too many.
    pub evictions: u64,
    /// Idle connections that were closed because their time was over.
    pub expiries: u64,
    /// Connections that were closed because they could not be used any more.
    pub retired: u64,
    /// Connections that are being made, open, or being closed.
    pub connections: usize,
    /// Connections without a request.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
}
