//! An hour of a server's life: clients of either protocol come, ask, wait, leave properly or not, and
//! handlers answer, fail, panic, take their time, or ask another core.
//!
//! Each request has a number, which comes back in its answer. In the end each was handled at most once and
//! answered once, but for those that were given up; what the server has counted is what was told of each
//! request; and nothing is left.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use quoit::sim::{Sim, for_seeds};
use quoit::time::{Instant, sleep};
use quoit::{Cores, Handle, on, spawn};
use quoit_net::TcpStream;
use quoit_net::http::{Answered, Executor, Incoming, Io, Server};

use crate::support::{
    Clients, World, address, at_most, below, one_in, pass, pause_up_to, size, timed,
};

const HOUR: Duration = Duration::from_secs(3600);
/// After so long the server has noticed that a client has left: its deadlines, and what the network takes.
const NOTICED: Duration = Duration::from_secs(100);
const GRACE: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(1);
/// Connections are kept for 30 s: whoever pauses for longer may find his closed.
const KEPT: usize = 5_000;

/// What became of each request, by its number.
#[derive(Debug, Default)]
struct Book(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    next: u64,
    handled: BTreeMap<u64, u64>,
    answered: BTreeMap<u64, u64>,
    /// Given up, or never known to have arrived.
    left: BTreeMap<u64, ()>,
    /// What the server has told of them, by the class of their status; 0 for those without.
    told: [u64; 6],
    /// Of these, answers that were not taken to their end.
    cut: u64,
    /// Answers that clients have read to the end, by class.
    read: [u64; 6],
}

impl Book {
    fn write<T>(&self, write: impl FnOnce(&mut Pages) -> T) -> T {
        write(&mut self.0.lock().expect("nobody panics with it"))
    }

    fn number(&self) -> u64 {
        self.write(|pages| {
            pages.next += 1;
            pages.next
        })
    }
}

type Failure = Box<dyn Error + Send + Sync>;

async fn handle(
    request: Request<Incoming>,
    book: Arc<Book>,
) -> Result<Response<Full<Bytes>>, Failure> {
    let path = request.uri().path().to_owned();
    let (kind, number) = path[1..].split_once('/').ok_or("what?")?;
    let number: u64 = number.parse()?;
    book.write(|pages| *pages.handled.entry(number).or_default() += 1);
    let came = request.into_body().collect().await?.to_bytes().len();
    match kind {
        "fail" => return Err("as asked for".into()),
        // Without a word on standard error.
        "panic" => std::panic::resume_unwind(Box::new("as asked for")),
        "wait" => sleep(Duration::from_micros(below(60_000_000) as u64)).await?,
        "elsewhere" => {
            let cores = Handle::current().expect("on a core").cores();
            on(cores[below(cores.len())], move || async move {
                pause_up_to(1000).await;
                Ok::<_, std::io::Error>(())
            })
            .await?;
        }
        _ => {}
    }
    let mut answer = format!("{number} {came} ").into_bytes();
    answer.resize(answer.len() + size(), b'.');
    Ok(Response::new(Full::new(answer.into())))
}

/// A client of either protocol.
enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// Asks for one thing, to the end of its answer, and returns its status. An error is told by `None`.
async fn ask(sender: &mut Sender, world: World, fresh: bool, book: &Book) -> Option<u16> {
    let (kind, status) = match below(12) {
        0 => ("fail", 500),
        1 => ("panic", 500),
        2 => ("wait", 200),
        3 => ("elsewhere", 200),
        _ => ("answer", 200),
    };
    let number = book.number();
    // Until its answer is here, it is one that may have been given up.
    book.write(|pages| pages.left.insert(number, ()));
    let length = if one_in(2) { size() } else { 0 };
    let request = Request::builder()
        .method("POST")
        .uri(format!("http://{}/{kind}/{number}", address()))
        .header("host", address().to_string())
        .body(Full::new(vec![b'!'; length].into()))
        .expect("a well-formed request");
    let asked = async {
        let answer = match sender {
            Sender::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let came = answer.status().as_u16();
        Ok::<_, hyper::Error>((came, answer.into_body().collect().await?.to_bytes()))
    };
    let allowed = if fresh { world } else { World::Harsh };
    let (came, body) = allowed.allows(asked.await)?;
    assert_eq!(came, status, "{kind}");
    if status == 200 {
        let expected = format!("{number} {length} ");
        assert!(
            body.starts_with(expected.as_bytes()),
            "the answer to another"
        );
    }
    book.write(|pages| {
        pages.left.remove(&number);
        *pages.answered.entry(number).or_default() += 1;
        pages.read[usize::from(status / 100)] += 1;
    });
    Some(status)
}

/// One visit: some requests on a connection, with pauses.
async fn visit(world: World, book: &Book) -> Option<()> {
    let stream = world.allows(TcpStream::connect(address()).await)?;
    let (mut sender, connection) = if one_in(2) {
        let (sender, connection) = world.allows(http1::handshake(Io::new(stream)).await)?;
        (
            Sender::One(sender),
            spawn(async move { drop(connection.await) }),
        )
    } else {
        let handshake = http2::handshake(Executor, Io::new(stream)).await;
        let (sender, connection) = world.allows(handshake)?;
        (
            Sender::Two(sender),
            spawn(async move { drop(connection.await) }),
        )
    };
    let mut fresh = true;
    for _ in 0..1 + below(5) {
        let patience = one_in(6).then(|| Duration::from_micros(below(5_000_000) as u64));
        let asked = at_most(patience, ask(&mut sender, world, fresh, book)).await;
        // Whoever was answered by the server itself has to come again.
        if asked.flatten() != Some(200) {
            break;
        }
        if one_in(3) {
            fresh = false;
            pause_up_to(100_000).await;
        } else {
            pause_up_to(KEPT).await;
        }
    }
    if one_in(3) {
        // Gone without a word.
        connection.cancel();
    }
    drop(sender);
    // Its end may take as long as the server keeps it.
    let _ = connection.await;
    Some(())
}

/// Returns a number that is the same for the same run.
fn hour_under(world: World, sim: Sim) -> u64 {
    let program = move || {
        let book = Arc::new(Book::default());
        let (theirs, told) = (Arc::clone(&book), Arc::clone(&book));
        let server = Server::bind(address())
            .cores(Cores::Count(1 + below(3)))
            .on_trouble(|_| {})
            .on_answer(move |answered: &Answered<'_>| {
                let class = answered.status.map_or(0, |status| status.as_u16() / 100);
                told.write(|pages| {
                    pages.told[usize::from(class)] += 1;
                    pages.cut += u64::from(!answered.whole);
                });
            })
            .serve(move |request| handle(request, Arc::clone(&theirs)));
        let Some(server) = world.allows(server) else {
            return;
        };
        let mut clients = Clients::on(1 + below(2));
        for _ in 0..2 + below(3) {
            let book = Arc::clone(&book);
            clients.start(move || async move {
                let begun = Instant::now();
                while begun.elapsed() < HOUR {
                    let _ = visit(world, &book).await;
                    pause_up_to(60_000).await;
                }
            });
        }
        clients.end();
        quoit::sim::end_faults();
        pass(NOTICED);
        let snapshot = server.snapshot();
        let sum = |name: &str, label: Option<&str>| -> u64 {
            let counts = snapshot.cores.iter().map(|core| core.count(name, label));
            counts.map(|count| count.expect("it is counted")).sum()
        };
        let count_of = |name: &str| sum(name, None);
        book.write(|pages| {
            assert!(
                pages.handled.values().all(|&times| times == 1),
                "handled twice"
            );
            assert!(
                pages.answered.values().all(|&times| times == 1),
                "answered twice"
            );
            for number in 1..=pages.next {
                let is_answered = pages.answered.contains_key(&number);
                assert!(
                    is_answered != pages.left.contains_key(&number),
                    "{number} is lost"
                );
            }
            assert!(
                pages.answered.len() > 100,
                "an hour is long: {}",
                pages.answered.len()
            );
            let requests = sum("requests", Some("http1")) + sum("requests", Some("http2"));
            assert_eq!(
                pages.told.iter().sum::<u64>(),
                requests,
                "each request is told of"
            );
            assert_eq!(pages.cut, count_of("given_up"));
            for (class, name) in [(2, "2xx"), (4, "4xx"), (5, "5xx")] {
                let (told, read) = (pages.told[class], pages.read[class]);
                assert_eq!(sum("answers", Some(name)), told, "{name}");
                let unread = pages.left.len() as u64;
                assert!(
                    read <= told && told <= read + unread,
                    "{name}: {read} of {told}"
                );
            }
        });
        assert_eq!(count_of("connections"), 0, "somebody is still there");
        let (report, took) = timed(|| server.shutdown(GRACE));
        let report = report.expect("no core failed");
        assert!(took < GRACE + SLACK, "the end took {took:?}: {report}");
    };
    world.of(sim).run(program).trace
}

#[test]
fn an_hour_goes_well() {
    for_seeds(0..3, |sim| {
        let _ = hour_under(World::Kind, sim);
    });
}

#[test]
fn an_hour_with_faults_is_survived() {
    for_seeds(0..3, |sim| {
        let _ = hour_under(World::Harsh, sim);
    });
}

#[test]
fn the_same_hour_comes_again() {
    for_seeds(0..1, |sim| {
        let first = hour_under(World::Harsh, sim.clone());
        assert_eq!(first, hour_under(World::Harsh, sim));
    });
}
