//! A client's process: connections of either protocol, in the clear and with TLS, on a core of its own, and
//! raw ones on a thread. It lives for as long as it was told, unless it is killed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{env, io, thread};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Either, Full};
use hyper::client::conn::{http1, http2};
use quoit::time::{Instant, sleep};
use quoit::{JoinHandle, block_on, spawn};
use quoit_net::TcpStream;
use quoit_net::http::body::{self, StreamBody};
use quoit_net::http::{Executor, Io};
use quoit_net::tls::ClientTls;
use tests::{Dice, at_most};

use crate::questions::{PIECE, Question, What};
use crate::{raw, server};

/// What a client is told: its life, and where the servers are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders {
    pub(crate) seed: u64,
    /// Its numbers begin here.
    pub(crate) first: u64,
    pub(crate) milliseconds: u64,
    pub(crate) clear: SocketAddr,
    pub(crate) encrypted: SocketAddr,
}

/// How many numbers a client has.
pub(crate) const NUMBERS: u64 = 1024;

/// An answer that takes so long is lost. Longer than any takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How many visits it makes at a time.
const LANES: usize = 4;

impl Orders {
    pub(crate) fn role(self) -> String {
        let Self {
            seed,
            first,
            milliseconds,
            clear,
            encrypted,
        } = self;
        format!("client {seed} {first} {milliseconds} {clear} {encrypted}")
    }

    fn of_role(rest: &str) -> Option<Self> {
        let mut words = rest.split(' ');
        Some(Self {
            seed: words.next()?.parse().ok()?,
            first: words.next()?.parse().ok()?,
            milliseconds: words.next()?.parse().ok()?,
            clear: words.next()?.parse().ok()?,
            encrypted: words.next()?.parse().ok()?,
        })
    }
}

/// What all visits of a client share.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) orders: Orders,
    pub(crate) until: Instant,
    used: AtomicU64,
}

impl Life {
    /// Returns a number for the next request, as long as there is one and time for it. It is told
    /// before anything else becomes of it.
    pub(crate) fn number(&self) -> Option<u64> {
        if Instant::now() >= self.until {
            return None;
        }
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        let number = (used < NUMBERS).then(|| self.orders.first + used)?;
        println!("@asked {number}");
        Some(number)
    }
}

/// Lives as it was told.
pub(crate) fn live(rest: &str) {
    let orders = Orders::of_role(rest).expect("five words");
    // Behind what the harness has begun.
    println!();
    let life = Arc::new(Life {
        orders,
        until: Instant::now() + Duration::from_millis(orders.milliseconds),
        used: AtomicU64::new(0),
    });
    let mut dice = Dice::new(orders.seed);
    let (theirs, seed) = (Arc::clone(&life), dice.seed());
    let raw = thread::spawn(move || raw::visits(&theirs, Dice::new(seed)));
    let lanes = async {
        let certificate = env::var(server::CERTIFICATE).expect("it is set");
        let lanes: Vec<_> = (0..LANES)
            .map(|_| {
                let lane = Lane {
                    life: Arc::clone(&life),
                    certificate: certificate.clone(),
                    dice: Dice::new(dice.seed()),
                };
                spawn(lane.visits())
            })
            .collect();
        for lane in lanes {
            lane.await.expect("no lane panics");
        }
    };
    block_on(lanes).expect("a core");
    raw.join().expect("no raw visit panics");
}

/// One visit after the other.
struct Lane {
    life: Arc<Life>,
    certificate: String,
    dice: Dice,
}

type Sent = Either<Full<Bytes>, StreamBody>;

/// A client of either protocol.
enum Sender {
    One(http1::SendRequest<Sent>),
    Two(http2::SendRequest<Sent>),
}

impl Lane {
    async fn visits(mut self) {
        while Instant::now() < self.life.until {
            self.visit().await;
        }
    }

    /// Some requests on a connection; in HTTP/2 several at a time.
    async fn visit(&mut self) {
        let (mut sender, connection) = self.connect().await;
        for _ in 0..1 + self.dice.below(6) {
            let goes_on = match &mut sender {
                Sender::One(_) => {
                    let mut asker = self.asker();
                    asker.ask(&mut sender).await
                }
                Sender::Two(shared) => {
                    let asked: Vec<_> = (0..1 + self.dice.below(4))
                        .map(|_| {
                            let mut asker = self.asker();
                            let mut sender = Sender::Two(shared.clone());
                            spawn(async move { asker.ask(&mut sender).await })
                        })
                        .collect();
                    for asked in asked {
                        asked.await.expect("asking does not panic");
                    }
                    true
                }
            };
            if !goes_on || Instant::now() >= self.life.until {
                break;
            }
            let pause = self.dice.below(20_000) as u64;
            sleep(Duration::from_micros(pause))
                .await
                .expect("nobody cancels");
        }
        if self.dice.one_in(3) {
            // Gone without a word.
            connection.cancel();
        }
        drop(sender);
        // It may have been cancelled, or cut with an answer.
        let _ = connection.await;
    }

    async fn connect(&mut self) -> (Sender, JoinHandle<()>) {
        let orders = self.life.orders;
        let is_two = self.dice.flip();
        let io = if self.dice.flip() {
            let stream = TcpStream::connect(orders.encrypted)
                .await
                .expect("it listens");
            let offered: &[u8] = if is_two { b"h2" } else { b"http/1.1" };
            let tls = ClientTls::trusting(self.certificate.as_bytes()).expect("a certificate");
            let tls = tls.protocols(&[offered]);
            Io::tls(tls.connect("site.test", stream).await.expect("a handshake"))
        } else {
            Io::new(TcpStream::connect(orders.clear).await.expect("it listens"))
        };
        // How connections end is seen from what becomes of their requests.
        if is_two {
            let (sender, connection) = http2::handshake(Executor, io).await.expect("no bytes yet");
            (
                Sender::Two(sender),
                spawn(async move { drop(connection.await) }),
            )
        } else {
            let (sender, connection) = http1::handshake(io).await.expect("no bytes yet");
            (
                Sender::One(sender),
                spawn(async move { drop(connection.await) }),
            )
        }
    }

    fn asker(&mut self) -> Asker {
        Asker {
            life: Arc::clone(&self.life),
            dice: Dice::new(self.dice.seed()),
        }
    }
}

/// Asks one thing.
struct Asker {
    life: Arc<Life>,
    dice: Dice,
}

impl Asker {
    /// Asks, and says what came of it; returns whether the connection can be asked again.
    async fn ask(&mut self, sender: &mut Sender) -> bool {
        let Some(number) = self.life.number() else {
            return false;
        };
        let question = Question::drawn(&mut self.dice, number);
        let gives_up = self.dice.one_in(8);
        let patience = match gives_up {
            true => Duration::from_micros(self.dice.below(20_000) as u64),
            false => PATIENCE,
        };
        let body = self.body(question);
        match at_most(Some(patience), answered(sender, question, body)).await {
            None if gives_up => {
                println!("@left {number}");
                false
            }
            None => {
                println!("@wrong {number} {question}: no answer for {PATIENCE:?}");
                false
            }
            Some(Ok(status)) => {
                println!("@answered {number} {status}");
                true
            }
            Some(Err(why)) if question.what == What::Cut && why == CUT => {
                println!("@cut {number}");
                false
            }
            Some(Err(why)) => {
                println!("@wrong {number} {question}: {why}");
                false
            }
        }
    }

    /// The request's body, at once or piece by piece.
    fn body(&mut self, question: Question) -> Sent {
        let bytes = question.body();
        if !question.has_body() || self.dice.flip() {
            return Either::Left(Full::new(bytes.into()));
        }
        Either::Right(body::stream(async move |sender: body::Sender| {
            for piece in bytes.chunks(PIECE) {
                sender.send(piece.to_vec()).await?;
            }
            Ok::<_, io::Error>(())
        }))
    }
}

/// What is wrong with an answer whose body does not come to its end.
const CUT: &str = "its body was cut";

/// Asks, and compares the answer with the right one.
async fn answered(sender: &mut Sender, question: Question, body: Sent) -> Result<u16, String> {
    let authority = "site.test";
    let request = Request::builder()
        .method(if question.has_body() { "POST" } else { "GET" })
        .header("host", authority)
        .uri(match sender {
            Sender::One(_) => question.to_string(),
            Sender::Two(_) => format!("http://{authority}{question}"),
        })
        .body(body)
        .expect("a well-formed request");
    let answer = match sender {
        Sender::One(sender) => sender.send_request(request).await,
        Sender::Two(sender) => sender.send_request(request).await,
    };
    let answer = answer.map_err(|error| format!("no answer: {error:?}"))?;
    let status = answer.status().as_u16();
    if status != question.status() {
        return Err(format!("answered with {status}"));
    }
    let mut body = answer.into_body();
    let mut came = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => came.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Err(_) if came == question.answer() => return Err(CUT.to_owned()),
            Err(error) => return Err(format!("after {} bytes: {error:?}", came.len())),
        }
    }
    match came == question.answer() {
        true => Ok(status),
        false => Err(format!("another answer, of {} bytes", came.len())),
    }
}
