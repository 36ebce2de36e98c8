//! Bodies that tasks make, under seeds: a client that stays gets all of it, in order; a client that leaves ends
//! whoever makes it, and the core has room for the next.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use quoit::sim::{Sim, for_seeds};
use quoit::{Cores, Reason, spawn};
use quoit_net::TcpStream;
use quoit_net::http::body::{Sender, StreamBody, stream};
use quoit_net::http::{Executor, Incoming, Io, Server};

use crate::support::{Clients, World, address, below, one_in, pass, pause_up_to, text};

const GRACE: Duration = Duration::from_secs(2);
/// A producer notices at once; the network may take its time to tell that a client has left.
const NOTICED: Duration = Duration::from_secs(5);

/// Producers: how many have begun, how they ended; and bodies that came as a whole.
#[derive(Debug, Default)]
struct Book {
    begun: AtomicU64,
    ended: AtomicU64,
    disconnected: AtomicU64,
    whole: AtomicU64,
}

fn note(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// How long the body of `/whole` is.
const WHOLE: usize = 100_000;

/// Sends text in pieces of any size: so much of it, or for ever.
async fn make(sender: Sender, is_endless: bool, book: Arc<Book>) -> io::Result<()> {
    note(&book.begun);
    let mut at = 0;
    let ended = loop {
        if at == WHOLE && !is_endless {
            break Ok(());
        }
        let size = (1 + below(20_000)).min(WHOLE - at % WHOLE);
        if let Err(error) = sender.send(text(at % WHOLE, size)).await {
            break Err(error);
        }
        at += size;
        if one_in(4) {
            pause_up_to(3).await;
        }
    };
    let reason = ended.as_ref().err().and_then(|error| error.cancelled());
    if reason.is_some_and(|cancelled| cancelled.reason() == Reason::Disconnected) {
        note(&book.disconnected);
    }
    note(&book.ended);
    Ok(ended?)
}

fn ask(path: &str) -> Request<Empty<Bytes>> {
    Request::builder()
        .uri(format!("http://{}{path}", address()))
        .header("host", address().to_string())
        .body(Empty::new())
        .expect("a well-formed request")
}

/// Takes all of an answer, or some pieces of it.
async fn take(
    world: World,
    answer: Response<hyper::body::Incoming>,
    is_endless: bool,
    book: &Book,
) {
    let mut body = answer.into_body();
    let mut came = Vec::new();
    let mut pieces = is_endless.then(|| below(8));
    loop {
        match &mut pieces {
            Some(0) => return,
            Some(left) => *left -= 1,
            None => {}
        }
        let Some(frame) = body.frame().await else {
            break;
        };
        let Some(frame) = world.allows(frame) else {
            return;
        };
        came.extend_from_slice(&frame.into_data().expect("no trailers"));
    }
    assert!(!is_endless, "it never ends");
    assert!(came == text(0, WHOLE), "another body came");
    note(&book.whole);
}

async fn visit(world: World, book: Arc<Book>) {
    let Some(stream) = world.allows(TcpStream::connect(address()).await) else {
        return;
    };
    let is_endless = one_in(2);
    let path = if is_endless { "/endless" } else { "/whole" };
    if one_in(2) {
        let Some((mut sender, connection)) = world.allows(http1::handshake(Io::new(stream)).await)
        else {
            return;
        };
        let connection = spawn(connection);
        if let Some(answer) = world.allows(sender.send_request(ask(path)).await) {
            take(world, answer, is_endless, &book).await;
        }
        connection.cancel();
        return;
    }
    let handshake = http2::handshake::<_, _, Empty<Bytes>>(Executor, Io::new(stream)).await;
    let Some((mut sender, connection)) = world.allows(handshake) else {
        return;
    };
    let connection = spawn(connection);
    if let Some(answer) = world.allows(sender.send_request(ask(path)).await) {
        take(world, answer, is_endless, &book).await;
    }
    if one_in(2) {
        // The stream was reset; the connection lives on for a while.
        pause_up_to(50).await;
    }
    connection.cancel();
}

fn bodies_under(world: World, sim: Sim, totals: &Arc<Book>) {
    let totals = Arc::clone(totals);
    world.of(sim).run(move || {
        let book = Arc::new(Book::default());
        let theirs = Arc::clone(&book);
        let mut builder = Server::bind(address())
            .cores(Cores::Count(1 + below(2)))
            .on_trouble(|_| {});
        if one_in(2) {
            builder = builder.max_connections(1 + below(2));
        }
        let server = builder.serve(move |request: Request<Incoming>| {
            let book = Arc::clone(&theirs);
            let is_endless = request.uri().path() == "/endless";
            let body: StreamBody = stream(move |sender| make(sender, is_endless, book));
            async { Ok::<_, io::Error>(Response::new(body)) }
        });
        let Some(server) = world.allows(server) else {
            return;
        };
        let mut clients = Clients::on(1 + below(2));
        for _ in 0..1 + below(4) {
            let book = Arc::clone(&book);
            clients.start(move || async move {
                for _ in 0..1 + below(3) {
                    visit(world, Arc::clone(&book)).await;
                }
            });
        }
        clients.end();
        quoit::sim::end_faults();
        pass(NOTICED);
        let [begun, ended] = [&book.begun, &book.ended].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(begun, ended, "somebody makes a body for nobody: {book:?}");
        assert_eq!(server.handle().open_connections(), 0);
        server.shutdown(GRACE).expect("no core failed");
        totals
            .whole
            .fetch_add(book.whole.load(Ordering::Relaxed), Ordering::Relaxed);
        let disconnected = book.disconnected.load(Ordering::Relaxed);
        totals
            .disconnected
            .fetch_add(disconnected, Ordering::Relaxed);
    });
}

/// Under many seeds bodies come as a whole, and producers are left alone by their clients.
fn bodies_in(world: World) {
    let totals = Arc::new(Book::default());
    for_seeds(0..60, |sim| bodies_under(world, sim, &totals));
    for count in [&totals.whole, &totals.disconnected] {
        assert!(count.load(Ordering::Relaxed) > 10, "{totals:?}");
    }
}

#[test]
fn no_body_is_made_for_nobody() {
    bodies_in(World::Kind);
}

#[test]
fn no_body_is_made_for_nobody_on_a_bad_day() {
    bodies_in(World::Harsh);
}
