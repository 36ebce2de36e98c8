//! The HTTP server is told to stop in the middle of traffic: what was answered arrives.

use std::fmt::Debug;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use quoit::sim::{Fault, Faults, Sim, for_seeds};
use quoit::spawn;
use quoit_net::TcpStream;
use quoit_net::http::{Executor, Io};

use crate::http2::ask;
use crate::raw_client::{Answers, send_cut, written};
use crate::site::{self, AnyBody, Ask, Counted, Reader, read};
use crate::support::{Clients, World, address, below, one_in, pass, pause_up_to, timed};

/// More than any answer takes in a kind world.
const LONG: Duration = Duration::from_secs(60);

/// How much longer the end of the server may take.
const SLACK: Duration = Duration::from_secs(1);

/// What everybody knows.
#[derive(Debug)]
struct Traffic {
    world: World,
    /// Everything that was asked for may take as long as it takes.
    is_patient: bool,
    counted: Arc<Counted>,
    connections: AtomicU64,
    is_draining: AtomicBool,
}

impl Traffic {
    /// Starts a client that asks until nobody listens.
    fn begin(self: &Arc<Self>, clients: &mut Clients) {
        let (this, kind) = (Arc::clone(self), below(3));
        clients.start(move || async move {
            match kind {
                0 => this.ask_in_turn().await,
                1 => this.ask_at_once().await,
                _ => this.ask_in_streams().await,
            }
        });
    }

    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    fn received(&self) {
        self.counted.received.fetch_add(1, Ordering::Relaxed);
    }

    /// Connects, unless nobody listens any more.
    async fn connect(&self) -> Option<TcpStream> {
        match TcpStream::connect(address()).await {
            Ok(stream) => {
                self.connections.fetch_add(1, Ordering::Relaxed);
                Some(stream)
            }
            Err(error) => {
                let is_draining = self.is_draining() || self.world == World::Harsh;
                assert!(is_draining, "refused before the drain: {error}");
                None
            }
        }
    }

    /// A failure is for a harsh world, or for a server that drains.
    fn may_fail(&self, what: &dyn Debug) {
        let may = self.is_draining() || self.world == World::Harsh;
        assert!(may, "this failed before the drain: {what:?}");
    }

    /// Asks in turn, until the server wants no more.
    async fn ask_in_turn(&self) {
        while let Some(stream) = self.connect().await {
            let handshake = http1::handshake::<_, AnyBody>(Io::new(stream)).await;
            let (mut sender, connection) = match handshake {
                Ok(made) => made,
                Err(error) => return self.may_fail(&error),
            };
            let connection = spawn(connection);
            for round in 0..rounds() {
                let ask = Ask::some();
                if sender.ready().await.is_err() {
                    break;
                }
                let answer = match sender.send_request(ask.request()).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        // Who has come gets at least one answer.
                        assert!(round > 0 || !self.is_safe(), "turned away: {error}");
                        self.may_fail(&error);
                        break;
                    }
                };
                let status = answer.status().as_u16();
                let body = match read(answer.into_body(), Reader::Stays).await {
                    Ok(body) => body.expect("it has stayed"),
                    Err(error) => {
                        assert!(!self.is_safe(), "an answer was cut: {error}");
                        break;
                    }
                };
                ask.check(self.world, status, &body);
                self.received();
                if one_in(4) {
                    pause_up_to(1_500).await;
                }
            }
            drop(sender);
            let _ = connection.await.expect("nobody drops it");
        }
    }

    /// Whether every answer has to arrive.
    fn is_safe(&self) -> bool {
        self.world == World::Kind && self.is_patient
    }

    /// Sends several requests at once, cut anywhere, and reads what is answered.
    async fn ask_at_once(&self) {
        while let Some(stream) = self.connect().await {
            let stream = Rc::new(stream);
            let mut answers = Answers::on(&stream);
            for round in 0..rounds() {
                let is_due = round == 0 || !self.is_draining();
                if !self.batch(&stream, &mut answers, is_due).await {
                    break;
                }
            }
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Sends some requests and reads their answers; the first of them has to come if it `is_due`.
    /// Returns whether the server wants more.
    async fn batch(&self, stream: &Rc<TcpStream>, answers: &mut Answers, is_due: bool) -> bool {
        let mut asks: Vec<Ask> = (0..1 + below(5)).map(|_| Ask::some()).collect();
        // What a server discards after its last answer has a limit.
        while asks.iter().map(|ask| ask.body.len()).sum::<usize>() > 900_000 {
            asks.pop();
        }
        let bytes = asks.iter().flat_map(written).collect();
        let sending = spawn({
            let stream = Rc::clone(stream);
            async move {
                if send_cut(&stream, bytes).await.is_err() {
                    // Both sides would wait for each other.
                    let _ = stream.shutdown(Shutdown::Write);
                }
            }
        });
        let mut goes_on = true;
        for (place, ask) in asks.iter().enumerate() {
            let turned_away = |what: &dyn Debug| {
                let is_due = is_due && place == 0 && self.is_safe();
                assert!(
                    !is_due,
                    "a request had begun, and was not answered: {what:?}"
                );
                self.may_fail(what);
            };
            goes_on = match answers.next().await {
                Ok(Some(answer)) => {
                    ask.check(self.world, answer.status, &answer.body);
                    self.received();
                    !answer.is_last
                }
                Ok(None) => {
                    turned_away(&"the end");
                    false
                }
                Err(error) => {
                    let is_cut = error.kind() == ErrorKind::UnexpectedEof;
                    assert!(!(is_cut && self.is_safe()), "an answer was cut: {error}");
                    turned_away(&error);
                    false
                }
            };
            if !goes_on {
                self.may_fail(&"the server wants no more");
                let _ = stream.shutdown(Shutdown::Both);
                break;
            }
        }
        sending.await.expect("nobody drops it");
        goes_on
    }

    /// Asks for several things at a time, on a connection of HTTP/2.
    async fn ask_in_streams(self: &Arc<Self>) {
        while let Some(stream) = self.connect().await {
            let handshake = http2::handshake::<_, _, AnyBody>(Executor, Io::new(stream)).await;
            let (sender, connection) = match handshake {
                Ok(made) => made,
                Err(error) => return self.may_fail(&error),
            };
            let connection = spawn(connection);
            for _ in 0..rounds() {
                let streams: Vec<_> = (0..1 + below(4))
                    .map(|_| {
                        let (this, sender) = (Arc::clone(self), sender.clone());
                        spawn(async move {
                            let outcome = ask(sender, this.world, Reader::Stays).await;
                            match &outcome {
                                Ok(_) => this.received(),
                                Err(error) => this.may_fail(error),
                            }
                            outcome.is_ok()
                        })
                    })
                    .collect();
                let mut is_over = false;
                for stream in streams {
                    is_over |= !stream.await.expect("nobody drops it");
                }
                if is_over {
                    break;
                }
                if one_in(3) {
                    pause_up_to(1_500).await;
                }
            }
            drop(sender);
            let _ = connection.await.expect("nobody drops it");
        }
    }
}

/// Draws how often a client asks on one connection: some do for as long as they are answered.
fn rounds() -> usize {
    if one_in(3) { usize::MAX } else { 1 + below(4) }
}

fn drained_under(world: World, sim: Sim) {
    site::with_files(sim).run(|| {
        let counted = Arc::new(Counted::default());
        let Some(server) = site::serve(world, &counted) else {
            return;
        };
        let is_patient = one_in(2);
        let traffic = Arc::new(Traffic {
            world,
            is_patient,
            counted,
            connections: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
        });
        let mut clients = Clients::on(1 + below(2));
        for _ in 0..1 + below(5) {
            traffic.begin(&mut clients);
        }
        pass(Duration::from_micros(below(600_000) as u64));
        // These come while the server turns to its end.
        for _ in 0..below(4) {
            traffic.begin(&mut clients);
        }
        traffic.is_draining.store(true, Ordering::Relaxed);
        let grace = if is_patient {
            LONG
        } else {
            Duration::from_micros(below(2_000_000) as u64)
        };
        let (report, took) = timed(|| server.shutdown(grace));
        let report = report.expect("no core failed");
        assert!(took < grace + SLACK, "the end took {took:?}: {report}");
        clients.end();
        let connections = traffic.connections.load(Ordering::Relaxed);
        assert!(report.finished + report.cut <= connections, "{report}");
        let (made, received) = traffic.counted.totals();
        if traffic.is_safe() {
            assert_eq!(report.cut, 0, "{report}");
            assert_eq!(received, made, "an answer was lost");
        }
        assert!(received <= made, "an answer came from nowhere");
    });
}

#[test]
fn a_server_that_drains_loses_no_answer() {
    for_seeds(0..40, |sim| drained_under(World::Kind, World::Kind.of(sim)));
}

#[test]
fn a_server_drains_in_time_whatever_happens() {
    for_seeds(0..40, |sim| {
        drained_under(World::Harsh, World::Harsh.of(sim))
    });
}

/// What is gathered behind an answer whose send fails would be taken for that answer.
#[test]
fn no_answer_comes_in_place_of_one_that_was_not_sent() {
    for_seeds(0..60, |sim| {
        let faults = Faults::none()
            .rate(Fault::SendFails, 0.1)
            .rate(Fault::Delay, 0.5);
        drained_under(World::Harsh, sim.faults(faults));
    });
}
