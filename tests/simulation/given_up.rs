//! Requests that nobody waits for any more, by the hundred: handlers that would work for ever, here and on
//! another core, end once their client has left, their time is over or the server stops, and each says
//! why.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{Empty, Full};
use hyper::client::conn::{http1, http2};
use quoit::sim::{Sim, for_seeds};
use quoit::sync::Event;
use quoit::time::sleep;
use quoit::{Cores, Handle, Reason, Scope, on, spawn};
use quoit_net::TcpStream;
use quoit_net::http::{Executor, Incoming, Io, Server};

use crate::support::{Clients, World, address, at_most, below, one_in, pass, pause_up_to, timed};

const GRACE: Duration = Duration::from_secs(2);
/// A handler notices at once; the network may take its time to tell that a client has left.
const NOTICED: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(1);

/// Parts of handlers: how many have begun, and how they ended.
#[derive(Debug, Default)]
struct Book {
    begun: AtomicU64,
    ended: AtomicU64,
    disconnected: AtomicU64,
    late: AtomicU64,
    stopped: AtomicU64,
}

impl Book {
    fn working(&self) -> u64 {
        self.begun.load(Ordering::Relaxed) - self.ended.load(Ordering::Relaxed)
    }

    fn of(&self, reason: Reason) -> &AtomicU64 {
        match reason {
            Reason::Disconnected => &self.disconnected,
            Reason::Deadline => &self.late,
            Reason::Shutdown => &self.stopped,
            other => panic!("nobody cancels for this: {other:?}"),
        }
    }
}

/// Works until it is cancelled, and cleans up.
async fn work(book: Arc<Book>) -> io::Result<()> {
    book.begun.fetch_add(1, Ordering::Relaxed);
    let cancelled = Event::new().wait().await.expect_err("it never happens");
    let cleans_up = Scope::new().shielded();
    let cleaned = cleans_up.run(async { sleep(Duration::from_micros(below(500) as u64)).await });
    assert!(cleaned.await.is_ok(), "a shield holds");
    book.of(cancelled.reason()).fetch_add(1, Ordering::Relaxed);
    book.ended.fetch_add(1, Ordering::Relaxed);
    Err(cancelled.into())
}

async fn handle(request: Request<Incoming>, book: Arc<Book>) -> io::Result<Response<Full<Bytes>>> {
    if request.uri().path() == "/work" {
        if one_in(2) {
            let cores = Handle::current().expect("on a core").cores();
            let core = cores[below(cores.len())];
            let elsewhere = Arc::clone(&book);
            let ended: io::Result<()> = on(core, move || work(elsewhere)).await;
            // It may not have begun, where the client was quicker.
            ended.expect_err("it works for ever");
        }
        work(book).await?;
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"well"))))
}

fn ask() -> Request<Empty<Bytes>> {
    Request::builder()
        .uri(format!("http://{}/work", address()))
        .header("host", address().to_string())
        .body(Empty::new())
        .expect("a well-formed request")
}

/// Asks for work and leaves, by closing or by resetting a stream; or is told that it takes too long.
async fn leave(world: World) {
    let Some(stream) = world.allows(TcpStream::connect(address()).await) else {
        return;
    };
    let patience = Duration::from_micros(below(60_000) as u64);
    if one_in(2) {
        let Some((mut sender, connection)) = world.allows(http1::handshake(Io::new(stream)).await)
        else {
            return;
        };
        let connection = spawn(connection);
        let answer = at_most(Some(patience), sender.send_request(ask())).await;
        if let Some(Ok(answer)) = answer {
            assert_eq!(answer.status(), 503, "it works for ever");
        }
        connection.cancel();
        return;
    }
    let handshake = http2::handshake::<_, _, Empty<Bytes>>(Executor, Io::new(stream)).await;
    let Some((sender, connection)) = world.allows(handshake) else {
        return;
    };
    let connection = spawn(connection);
    let streams: Vec<_> = (0..1 + below(5))
        .map(|_| {
            let mut sender = sender.clone();
            let patience = Duration::from_micros(below(60_000) as u64);
            spawn(async move {
                let answer = at_most(Some(patience), sender.send_request(ask())).await;
                if let Some(Ok(answer)) = answer {
                    assert_eq!(answer.status(), 503, "it works for ever");
                }
            })
        })
        .collect();
    for stream in streams {
        stream.await.expect("no panic");
    }
    if one_in(2) {
        // Its streams were reset; the connection lives on for a while.
        pause_up_to(50).await;
    }
    connection.cancel();
}

fn given_up_under(world: World, sim: Sim, totals: &Arc<Book>) {
    let totals = Arc::clone(totals);
    world.of(sim).run(move || {
        let book = Arc::new(Book::default());
        let theirs = Arc::clone(&book);
        let mut builder = Server::bind(address())
            .cores(Cores::Count(1 + below(3)))
            .on_trouble(|_| {});
        if one_in(2) {
            builder = builder.handler_timeout(Duration::from_micros(1 + below(50_000) as u64));
        }
        let server = builder.serve(move |request| handle(request, Arc::clone(&theirs)));
        let Some(server) = world.allows(server) else {
            return;
        };
        // Or it stops in the middle of it all, and turns clients away.
        let stops_early = one_in(3);
        let allowed = if stops_early { World::Harsh } else { world };
        let mut clients = Clients::on(1 + below(2));
        for _ in 0..1 + below(5) {
            clients.start(move || async move {
                for _ in 0..1 + below(3) {
                    leave(allowed).await;
                }
            });
        }
        if !stops_early {
            clients.end();
            quoit::sim::end_faults();
            pass(NOTICED);
            assert_eq!(book.working(), 0, "somebody works for nobody: {book:?}");
            let (report, took) = timed(|| server.shutdown(GRACE));
            report.expect("no core failed");
            assert!(took < GRACE + SLACK, "the end took {took:?}");
        } else {
            let (report, took) =
                timed(|| server.shutdown(Duration::from_micros(below(30_000) as u64)));
            report.expect("no core failed");
            assert!(took < GRACE + SLACK, "the end took {took:?}");
            assert_eq!(book.working(), 0, "somebody outlives the server: {book:?}");
            clients.end();
        }
        for reason in [Reason::Disconnected, Reason::Deadline, Reason::Shutdown] {
            let count = book.of(reason).load(Ordering::Relaxed);
            totals.of(reason).fetch_add(count, Ordering::Relaxed);
        }
    });
}

/// Under many seeds handlers end for every reason that there is.
fn given_up_in(world: World) {
    let totals = Arc::new(Book::default());
    for_seeds(0..100, |sim| given_up_under(world, sim, &totals));
    for reason in [Reason::Disconnected, Reason::Deadline, Reason::Shutdown] {
        let count = totals.of(reason).load(Ordering::Relaxed);
        assert!(count > 10, "{reason:?}: {totals:?}");
    }
}

#[test]
fn no_handler_works_for_nobody() {
    given_up_in(World::Kind);
}

#[test]
fn no_handler_works_for_nobody_on_a_bad_day() {
    given_up_in(World::Harsh);
}
