//! HTTP/1.1 on the simulated kernel: every request is answered as it should, or ends in an error.

use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::client::conn::http1;
use quoit::sim::{Fault, Faults, Sim, for_seeds};
use quoit::spawn;
use quoit_net::TcpStream;
use quoit_net::http::{Io, Server};
use quoit_net::tcp::TcpOptions;

use crate::raw_client::{Answers, send_cut, written};
use crate::site::{self, AnyBody, Ask, Counted, Reader, read};
use crate::support::{Clients, World, address, at_most, below, one_in, pause_up_to, timed};

/// How long the server may take to drain; and how much longer its end may take.
const GRACE: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(1);

/// Connects, mostly as usual, and sometimes with so little room that the server waits often.
async fn connect(world: World) -> Option<TcpStream> {
    let options = if one_in(3) {
        TcpOptions::new().receive_buffer(1 + below(10_000))
    } else {
        TcpOptions::new()
    };
    world.allows(TcpStream::connect_with(address(), &options).await)
}

/// Asks for several things, one after the other, on one connection.
async fn ask_in_turn(world: World, counted: Arc<Counted>) {
    let Some(stream) = connect(world).await else {
        return;
    };
    let handshake = http1::handshake::<_, AnyBody>(Io::new(stream)).await;
    let Some((mut sender, connection)) = world.allows(handshake) else {
        return;
    };
    let connection = spawn(connection);
    for _ in 0..1 + below(4) {
        let ask = Ask::some();
        if world.allows(sender.ready().await).is_none() {
            break;
        }
        let Some(answer) = world.allows(sender.send_request(ask.request()).await) else {
            break;
        };
        let status = answer.status().as_u16();
        // Or it was left in the middle.
        let Some(Some(body)) = world.allows(read(answer.into_body(), Reader::MayLeave).await)
        else {
            break;
        };
        ask.check(world, status, &body);
        counted.received.fetch_add(1, Ordering::Relaxed);
        if one_in(4) {
            pause_up_to(200).await;
        }
    }
    drop(sender);
    // How it ends is the connection's affair: answers that were left are cut.
    let _ = connection.await.expect("nobody drops it");
}

/// Sends several requests at once, and reads their answers meanwhile; or goes away.
async fn ask_at_once(world: World, counted: Arc<Counted>) {
    let Some(stream) = connect(world).await else {
        return;
    };
    let asks: Vec<Ask> = (0..1 + below(6)).map(|_| Ask::some()).collect();
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for ask in &asks {
        bytes.append(&mut written(ask));
        ends.push(bytes.len());
    }
    let mut patience = asks.len();
    if one_in(4) {
        // It goes away: at most the requests that are whole are answered.
        bytes.truncate(below(bytes.len()));
        let whole = ends.iter().filter(|&&end| end <= bytes.len()).count();
        patience = below(whole + 1);
    }
    let stream = Rc::new(stream);
    let sending = spawn({
        let stream = Rc::clone(&stream);
        async move {
            let outcome = send_cut(&stream, bytes).await;
            if outcome.is_err() {
                // The server waits for the rest as long as the handler does.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    });
    let mut answers = Answers::on(&stream);
    for ask in &asks[..patience] {
        let Some(answer) = world.allows(answers.next().await) else {
            break;
        };
        let Some(answer) = answer else {
            assert_eq!(world, World::Harsh, "an answer is missing");
            break;
        };
        ask.check(world, answer.status, &answer.body);
        counted.received.fetch_add(1, Ordering::Relaxed);
        assert!(!answer.is_last, "nobody has said that this is the end");
    }
    // The sender may be in the middle, if answers stay away.
    let _ = stream.shutdown(Shutdown::Both);
    sending.await.expect("nobody drops it");
}

/// Asks for one thing when all is well again: that must go well.
async fn ask_once() {
    let stream = TcpStream::connect(address()).await.expect("it listens");
    let stream = Rc::new(stream);
    let ask = Ask::some();
    send_cut(&stream, written(&ask)).await.expect("it listens");
    let answer = Answers::on(&stream).next().await;
    let answer = answer.expect("an answer").expect("an answer");
    ask.check(World::Kind, answer.status, &answer.body);
}

/// Starts some clients that ask in either way, each for as long as its patience lasts.
fn ask_about(world: World, counted: &Arc<Counted>, patience: Option<Duration>) {
    let mut clients = Clients::on(1 + below(2));
    for _ in 0..2 + below(4) {
        let counted = Arc::clone(counted);
        let at_once = one_in(2);
        clients.start(move || async move {
            pause_up_to(50).await;
            let asking = async {
                if at_once {
                    ask_at_once(world, counted).await;
                } else {
                    ask_in_turn(world, counted).await;
                }
            };
            let _: Option<()> = at_most(patience, asking).await;
        });
    }
    clients.end();
}

/// Ends the faults, asks once more, and stops the server: all of that goes well.
fn end_well(server: Server, counted: &Counted) {
    quoit::sim::end_faults();
    let ((), took) = timed(|| {
        let mut fresh = Clients::on(1);
        fresh.start(ask_once);
        fresh.end();
    });
    assert!(took < Duration::from_secs(5), "an answer took {took:?}");
    let (report, took) = timed(|| server.shutdown(GRACE));
    let report = report.expect("no core failed");
    assert!(took < GRACE + SLACK, "the end took {took:?}: {report}");
    let (made, received) = counted.totals();
    assert!(received <= made, "an answer came from nowhere");
}

fn site_under(world: World, sim: Sim) {
    site::with_files(world.of(sim)).run(|| {
        let counted = Arc::new(Counted::default());
        if let Some(server) = site::serve(world, &counted) {
            ask_about(world, &counted, None);
            end_well(server, &counted);
        }
    });
}

#[test]
fn a_request_is_answered() {
    for_seeds(0..40, |sim| site_under(World::Kind, sim));
}

#[test]
fn a_request_is_answered_or_fails_and_the_server_goes_on() {
    for_seeds(0..40, |sim| site_under(World::Harsh, sim));
}

/// Machines that are switched off, and networks that are cut: nothing arrives any more, and nobody
/// says so. Clients give up by themselves; the server has its deadlines.
#[test]
fn peers_that_vanish_without_a_word_keep_nobody_from_an_answer() {
    for_seeds(0..40, |sim| {
        let faults = Faults::some().rate(Fault::PeerVanishes, 0.02);
        site::with_files(sim.faults(faults)).run(|| {
            let counted = Arc::new(Counted::default());
            if let Some(server) = site::serve(World::Harsh, &counted) {
                ask_about(World::Harsh, &counted, Some(Duration::from_secs(100)));
                end_well(server, &counted);
            }
        });
    });
}
