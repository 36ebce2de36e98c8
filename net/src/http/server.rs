//! `Server`: HTTP on every core.
//!
//! ```text
//!   serving ──shutdown──► draining: no new connections, open ones answer what they have begun
//!                            │ all ended, or the grace period is over
//!                            ▼
//!                         stopped: what was left is cancelled
//! ```

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use quoit::metrics::Snapshot;
use quoit::{CoreId, CoreMetrics, Cores, RemoteHandle, Runtime};

use super::connection::{self, Draining, Limits, Site};
use super::core::Plan;
use super::course::{Answered, Audit};
use super::handle::{ServerHandle, Shared};
use super::listen::{Named, Options, Port};
use super::page::{Page, PageSite};
use super::strict::Strictness;
use super::trouble::{Listener, Trouble};
use super::{BoxError, Incoming, Listen, core};
use crate::Address;
use crate::tcp::TcpOptions;
use crate::tls::ServerTls;
use crate::unix::UnixOptions;

/// An HTTP server on cores of its own: HTTP/1.1, and HTTP/2 with prior knowledge, on one port.
///
/// ```no_run
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use http::Response;
/// use quoit_net::http::Server;
///
/// let server = Server::bind("127.0.0.1:8080").serve(|request| async move {
///     Ok::<_, Infallible>(Response::new(format!("you asked for {}\n", request.uri())))
/// })?;
/// println!("listening on http://{}", server.local_addr());
/// // … the program's own main loop …
/// let report = server.shutdown(Duration::from_secs(10))?;
/// println!("{report}");
/// # Ok::<_, std::io::Error>(())
/// ```
///
/// A client that closes its side of a connection has gone, also if it would still read: what it has asked for in vain
/// is cancelled. A TCP connection that was closed looks the same from here.
///
/// Dropped, it shuts down with a grace period of 5 s.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Present until the server has been stopped.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    runtime: Runtime,
    mains: Vec<RemoteHandle<io::Result<Report>>>,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Connections that were open when it began, and ended by themselves within the grace period, or owed nothing
    /// when it was over: all that was asked was answered, and it was for the client to close.
    pub finished: u64,
    /// Connections that were cut when the grace period was over, in the middle of something: a request that had begun
    /// to come, an answer that was not made or not taken, or what an upgrade has made of them.
    pub cut: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections finished, {} cut",
            self.finished, self.cut
        )
    }
}

/// Says how a server shall be.
#[derive(Debug, Clone)]
pub struct Builder<A> {
    address: A,
    also: Vec<Named>,
    cores: Cores,
    spin_before_park: Duration,
    limits: Limits,
    options: Options,
    tls: Option<ServerTls>,
    listener: Listener,
    page: Option<Page>,
    audit: Option<Audit>,
}

impl Server {
    /// Begins to say how a server shall be: on an internet address, or a [`UnixAddress`]. Several
    /// addresses of a name: the first that works.
    ///
    /// [`UnixAddress`]: crate::unix::UnixAddress
    pub fn bind<A: Listen>(address: A) -> Builder<A> {
        Builder {
            address,
            also: Vec::new(),
            cores: Cores::All,
            spin_before_park: Duration::ZERO,
            limits: Limits::default(),
            options: Options::default(),
            tls: None,
            listener: Listener::default(),
            page: None,
            audit: None,
        }
    }

    /// Returns the first internet address it listens on, with the port that the kernel chose.
    ///
    /// # Panics
    ///
    /// If it listens on Unix sockets alone: then ask [`Server::local_addrs`].
    pub fn local_addr(&self) -> SocketAddr {
        let first = self.local_addrs().iter().find_map(Address::as_tcp);
        first.expect("this server listens on no internet address: ask local_addrs")
    }

    /// Returns all addresses it listens on, in the order in which they were given.
    pub fn local_addrs(&self) -> &[Address] {
        self.shared.local()
    }

    /// Returns what reaches this server from anywhere.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(Arc::clone(&self.shared))
    }

    /// Returns everything that the cores have counted and measured; see [`ServerHandle::snapshot`].
    pub fn snapshot(&self) -> Snapshot {
        self.handle().snapshot()
    }

    /// Returns what each core has done so far.
    pub fn metrics(&self) -> Vec<CoreMetrics> {
        self.handle().metrics()
    }

    /// Stops accepting, lets open connections answer what they have begun to read, and returns when
    /// all have ended or `grace` is over; what is left then is cancelled.
    ///
    /// # Errors
    ///
    /// The first failure of a core. `WouldBlock` on a thread that runs a core, which cannot wait: the
    /// server drains and stops all the same, on a thread of its own.
    pub fn shutdown(mut self, grace: Duration) -> io::Result<Report> {
        self.stop(grace)
    }

    /// Waits until somebody drains it ([`ServerHandle::drain`]) and it has ended.
    ///
    /// # Errors
    ///
    /// As for [`Server::shutdown`]; on a thread that runs a core it drains, with a grace period of 5 s.
    pub fn wait(mut self) -> io::Result<Report> {
        if CoreId::current().is_some() {
            return self.stop(DROP_GRACE);
        }
        self.end()
    }

    fn stop(&mut self, grace: Duration) -> io::Result<Report> {
        self.shared.drain(grace);
        self.end()
    }

    fn end(&mut self) -> io::Result<Report> {
        let Some(running) = self.running.take() else {
            return Ok(Report::default());
        };
        if CoreId::current().is_some() {
            // Nobody is there to be told how it went.
            let shared = Arc::clone(&self.shared);
            let stop = move || drop(running.stop(&shared));
            quoit::start_thread("quoit-stop", stop)?;
            let what = "a core cannot block until the server has drained; it drains by itself";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, what));
        }
        running.stop(&self.shared)
    }
}

impl Running {
    /// Waits until every core has drained, and stops them.
    fn stop(self, shared: &Shared) -> io::Result<Report> {
        let Self { runtime, mains } = self;
        let mut report = Report::default();
        let mut failure = None;
        for main in mains {
            let outcome = main.wait().unwrap_or_else(|error| {
                Err(io::Error::other(format!(
                    "a core of the server failed: {error}"
                )))
            });
            match outcome {
                Ok(core) => {
                    report.finished += core.finished;
                    report.cut += core.cut;
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        shared.stop();
        runtime.shutdown(LAST_GRACE);
        failure.map_or(Ok(report), Err)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody is there to be told of a failure.
        let _ = self.stop(DROP_GRACE);
    }
}

/// How long a server that is dropped waits for its connections.
const DROP_GRACE: Duration = Duration::from_secs(5);

/// How long connections that were cut may take to notice.
const LAST_GRACE: Duration = Duration::from_millis(500);

impl<A: Listen> Builder<A> {
    /// Listens here as well; as often as you like. All of them serve the same, and are bound together or
    /// not at all.
    ///
    /// ```no_run
    /// use std::convert::Infallible;
    /// use http::Response;
    /// use quoit_net::http::Server;
    /// use quoit_net::unix::UnixAddress;
    ///
    /// let server = Server::bind("127.0.0.1:8080")
    ///     .also("[::1]:8080")
    ///     .also(UnixAddress::path("/run/site.sock"))
    ///     .serve(|_| async { Ok::<_, Infallible>(Response::new("hello\n".to_owned())) })?;
    /// for address in server.local_addrs() {
    ///     println!("listening on {address}");
    /// }
    /// # Ok::<_, std::io::Error>(())
    /// ```
    #[must_use]
    pub fn also(mut self, address: impl Listen) -> Self {
        self.also.push(Named::new(&address));
        self
    }

    /// Which cores to use. Default: all that the process may use.
    #[must_use]
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = cores;
        self
    }

    /// For how long a core with nothing to do looks on before it parks; see
    /// [`quoit::Builder::spin_before_park`]. Default zero.
    #[must_use]
    pub fn spin_before_park(mut self, limit: Duration) -> Self {
        self.spin_before_park = limit;
        self
    }

    /// How long a connection may be open on which nothing is asked; then it is closed. Default 75 s: more
    /// than the 60 s for which most proxies keep theirs, so that they close first and lose no request.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = timeout;
        self
    }

    /// How long a request may take in all, from its head until the last of its answer was taken over for
    /// sending. A handler that has made no answer by then is cancelled, and if it ends with that the client
    /// is answered with 503; an answer that is under way is cut (HTTP/1) or reset (HTTP/2). Default: as long
    /// as it takes, since an answer may be a stream without an end.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.limits.request_timeout = Some(timeout);
        self
    }

    /// How long a client may take to say its first word (a handshake of TLS included), and from the first
    /// byte of a request until its head is whole; then the connection is cut. Default 30 s: long for any
    /// network, and too short to starve us.
    #[must_use]
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.limits.head_timeout = timeout;
        self
    }

    /// How long a client may take nothing of an answer that waits for it. Default 30 s.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.limits.stall_timeout = timeout;
        self
    }

    /// How long a client may send nothing of a request's body that a handler waits for; the handler's
    /// read fails then, and the answer is 408. Default 30 s, as for a head: a connection that is alive
    /// sends something in that time.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.limits.body_timeout = timeout;
        self
    }

    /// How long a handler may take to make an answer, reading the request's body included; then it is
    /// cancelled, and if it ends with that the client is answered with 503. Default: as long as it
    /// takes, since only you know what it does.
    #[must_use]
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.limits.handler_timeout = Some(timeout);
        self
    }

    /// How many bytes the body of a request may have; more is answered with 413. A body takes memory
    /// only as it is read, so this is for handlers that gather it. Default 16 MiB.
    #[must_use]
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.limits.max_body = bytes;
        self
    }

    /// Speaks TLS and nothing else: HTTP/2 with clients that offer it, HTTP/1.1 with the others. A
    /// client may take as long for the handshake as for the head of a request.
    #[must_use]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Tells this of what no client can be told. On the core where it happens: it is not to wait.
    /// If it panics, nothing else is harmed. Default: a line on standard error, for which no core waits
    /// ([`stdio`](crate::stdio)).
    #[must_use]
    pub fn on_trouble(mut self, listener: impl Fn(&Trouble<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Listener::new(listener);
        self
    }

    /// Says what the server does beneath a path: a live page, and the same for programs. Default: it
    /// does not.
    #[must_use]
    pub fn page(mut self, page: Page) -> Self {
        self.page = Some(page);
        self
    }

    /// Tells this of each request that has ended: answered, refused or given up. On the core that had it:
    /// it is not to wait. What a client sends that is no request is refused, counted
    /// ([`ServerHandle::snapshot`]) and told to nobody. If it panics, nothing else is harmed.
    #[must_use]
    pub fn on_answer(mut self, listener: impl Fn(&Answered<'_>) + Send + Sync + 'static) -> Self {
        self.audit = Some(Audit::new(listener));
        self
    }

    /// How many connections a core may have open. Beyond that it accepts no more: they wait in the
    /// kernel, as many as [`TcpOptions::backlog`] says, and one comes in for each that ends. A port is
    /// shared by all cores, and a connection that the kernel has given to one stays there, also where
    /// another has room.
    ///
    /// Default 16 384: at some kilobytes each that is memory a machine has, and a bound that a flood
    /// meets before the memory ends.
    #[must_use]
    pub fn max_connections(mut self, per_core: usize) -> Self {
        self.limits.max_connections = per_core;
        self
    }

    /// How many bytes the head of a request may have; more is answered with 431, as are more than 100 fields in
    /// HTTP/1. Default 64 KiB.
    #[must_use]
    pub fn max_head(mut self, bytes: usize) -> Self {
        self.limits.max_head = bytes;
        self
    }

    /// How many requests a client may have open at a time on a connection of HTTP/2; one more is refused,
    /// and the client may try it again. Default 128: RFC 9113 recommends no fewer than 100, and each may
    /// keep a handler busy and 64 KiB of an answer in memory.
    ///
    /// What else a client of HTTP/2 may make us keep is fixed: 512 KiB of a body and 1 MiB of all bodies
    /// that no handler has read. Frames that ask for nothing (PING, SETTINGS, RST_STREAM and the like)
    /// are bounded too: a thousand at once, 64 per second, and two more for each request and each piece
    /// of an answer. A client past that is told ENHANCE_YOUR_CALM and its connection ends.
    #[must_use]
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.limits.max_concurrent_streams = streams;
        self
    }

    /// What is refused of requests that do not say, once and clearly, for whom they are. Default:
    /// [`Strictness::Strict`], whatever the RFCs want refused; whoever stands before the server (a proxy, a
    /// cache, a filter) may have understood such a request in another way. A refusal is an answer with 400
    /// and, in HTTP/1, the end of the connection; the handler does not see the request.
    #[must_use]
    pub fn strictness(mut self, strictness: Strictness) -> Self {
        self.limits.strictness = strictness;
        self
    }

    /// Options of the listening TCP sockets.
    #[must_use]
    pub fn options(mut self, options: TcpOptions) -> Self {
        self.options.tcp = options;
        self
    }

    /// Options of the listening Unix sockets.
    #[must_use]
    pub fn unix_options(mut self, options: UnixOptions) -> Self {
        self.options.unix = options;
        self
    }

    /// Starts the server: returns when every core listens.
    ///
    /// The handler is cloned to every core. What it makes of a request need not be `Send`.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`, with the address in the message; [`quoit::BuildError`]; `InvalidInput` if
    /// [`Builder::max_concurrent_streams`] is 0, with which HTTP/2 could ask for nothing. Nothing stays
    /// bound then.
    pub fn serve<H, F, B, E>(self, handler: H) -> io::Result<Server>
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<B>, E>> + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
        E: Into<BoxError> + 'static,
    {
        self.serve_with(move |_| {
            let handler = handler.clone();
            async move { Ok(handler) }
        })
    }

    /// Starts the server with a handler that is made on each core, with state that stays there.
    ///
    /// # Errors
    ///
    /// As for [`Builder::serve`], and what making a handler fails with.
    pub fn serve_with<M, P, H, F, B, E>(self, make: M) -> io::Result<Server>
    where
        M: Fn(CoreId) -> P + Clone + Send + 'static,
        P: Future<Output = io::Result<H>> + 'static,
        H: Fn(Request<Incoming>) -> F + 'static,
        F: Future<Output = Result<Response<B>, E>> + 'static,
        B: Body<Error: Into<BoxError>> + 'static,
        E: Into<BoxError> + 'static,
    {
        if self.limits.max_concurrent_streams == 0 {
            let what =
                "max_concurrent_streams is 0, with which no request could be made: set 1 or more";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if self.limits.max_connections == 0 {
            let what = "max_connections is 0: a server needs room for one connection at least";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let runtime = Runtime::builder()
            .cores(self.cores)
            .spin_before_park(self.spin_before_park)
            .build()?;
        let tls = self.tls.map(|tls| tls.protocols(&connection::OFFERED));
        let tls = tls.transpose()?;
        let cores = runtime.handle();
        let named = [Named::new(&self.address)].into_iter().chain(self.also);
        let ports = Port::bind_all(named.collect(), &cores, &self.options)?;
        let local = ports.iter().map(Port::local_addr).collect();
        let most = self.limits.max_connections;
        let (shared, figures) = Shared::new(cores.clone(), local, most);
        let shared = Arc::new(shared);
        let mut made = Vec::new();
        let mut mains = Vec::new();
        for (core, figures) in cores.cores().into_iter().zip(figures) {
            let (make, ports, shared) = (make.clone(), ports.clone(), Arc::clone(&shared));
            let (limits, tls, trouble) = (self.limits, tls.clone(), self.listener.clone());
            let (page, audit) = (self.page.clone(), self.audit.clone());
            let (tell, told) = RemoteHandle::<io::Result<()>>::channel();
            let main = cores.spawn(core, move || async move {
                let ready = match make(core).await {
                    Ok(handler) => {
                        let doors: io::Result<Vec<_>> =
                            ports.iter().map(|port| port.take(core)).collect();
                        doors.map(|doors| (handler, doors))
                    }
                    Err(error) => Err(error),
                };
                match ready {
                    Ok((handler, doors)) => {
                        tell.send(Ok(()));
                        drop(ports);
                        let site = Site {
                            handler,
                            limits,
                            tls,
                            listener: trouble,
                            draining: Draining::default(),
                            figures: Rc::new(figures),
                            spare: Rc::default(),
                            page: page.map(|page| PageSite::new(page, Arc::clone(&shared))),
                            audit,
                        };
                        let plan = Plan {
                            doors,
                            site,
                            shared,
                        };
                        core::serve(plan).await
                    }
                    Err(error) => {
                        tell.send(Err(error));
                        Ok(Report::default())
                    }
                }
            });
            mains.push(
                main.map_err(|_| io::Error::other("a core ended before the server had begun"))?,
            );
            made.push(told);
        }
        let server = Server {
            shared,
            running: Some(Running { runtime, mains }),
        };
        for told in made {
            // Dropped on a failure, the server shuts down the cores that had begun.
            told.wait()
                .map_err(|_| io::Error::other("a core ended before the server had begun"))??;
        }
        Ok(server)
    }
}
