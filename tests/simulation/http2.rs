//! HTTP/2 on the simulated kernel: many streams on a connection, each answered as it should, or
//! ended by an error, or left by its client.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::client::conn::http2::{self, SendRequest};
use quoit::sim::{Sim, for_seeds};
use quoit::spawn;
use quoit_net::TcpStream;
use quoit_net::http::{Executor, Io};
use quoit_net::tcp::TcpOptions;

use crate::site::{self, AnyBody, Ask, Counted, Failure, Reader, read};
use crate::support::{Clients, World, address, at_most, below, one_in, pause_up_to, timed};

/// How long the server may take to drain; and how much longer its end may take.
const GRACE: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(1);

/// Asks for one thing; true if its answer came to its end.
pub(crate) async fn ask(
    mut sender: SendRequest<AnyBody>,
    world: World,
    reader: Reader,
) -> Result<bool, Failure> {
    let ask = Ask::some();
    sender.ready().await?;
    let answer = sender.send_request(ask.request()).await?;
    let status = answer.status().as_u16();
    let Some(body) = read(answer.into_body(), reader).await? else {
        return Ok(false);
    };
    ask.check(world, status, &body);
    Ok(true)
}

/// A connection with several streams at a time, some of which are left while they are under way.
async fn converse(world: World, counted: Arc<Counted>) {
    let options = if one_in(3) {
        TcpOptions::new().receive_buffer(1 + below(10_000))
    } else {
        TcpOptions::new()
    };
    let connected = TcpStream::connect_with(address(), &options).await;
    let Some(stream) = world.allows(connected) else {
        return;
    };
    let handshake = http2::handshake::<_, _, AnyBody>(Executor, Io::new(stream)).await;
    let Some((sender, connection)) = world.allows(handshake) else {
        return;
    };
    let connection = spawn(connection);
    let mut streams = Vec::new();
    for _ in 0..1 + below(6) {
        let (sender, counted) = (sender.clone(), Arc::clone(&counted));
        streams.push(spawn(async move {
            let limit = one_in(4).then(|| Duration::from_micros(below(50_000) as u64));
            let Some(outcome) = at_most(limit, ask(sender, world, Reader::MayLeave)).await else {
                return;
            };
            if world.allows(outcome) == Some(true) {
                counted.received.fetch_add(1, Ordering::Relaxed);
            }
        }));
        if one_in(3) {
            pause_up_to(100).await;
        }
    }
    drop(sender);
    for stream in streams {
        stream.await.expect("nobody drops it");
    }
    let _ = connection.await.expect("nobody drops it");
}

/// Returns a number that is the same for the same run.
fn site_under(world: World, sim: Sim) -> u64 {
    let program = || {
        let counted = Arc::new(Counted::default());
        let Some(server) = site::serve(world, &counted) else {
            return;
        };
        let mut clients = Clients::on(1 + below(2));
        for _ in 0..1 + below(3) {
            let counted = Arc::clone(&counted);
            clients.start(move || converse(world, counted));
        }
        clients.end();
        quoit::sim::end_faults();
        let ((), took) = timed(|| {
            let mut fresh = Clients::on(1);
            let counted = Arc::clone(&counted);
            fresh.start(move || converse(World::Kind, counted));
            fresh.end();
        });
        assert!(took < Duration::from_secs(10), "answers took {took:?}");
        let (report, took) = timed(|| server.shutdown(GRACE));
        let report = report.expect("no core failed");
        assert!(took < GRACE + SLACK, "the end took {took:?}: {report}");
        let (made, received) = counted.totals();
        assert!(received <= made, "an answer came from nowhere");
    };
    site::with_files(world.of(sim)).run(program).trace
}

#[test]
fn every_stream_is_answered() {
    for_seeds(0..40, |sim| {
        let _ = site_under(World::Kind, sim);
    });
}

#[test]
fn a_stream_is_answered_or_fails_and_the_server_goes_on() {
    for_seeds(0..40, |sim| {
        let _ = site_under(World::Harsh, sim);
    });
}

/// Nothing in hyper decides by what is not under the seed.
#[test]
fn a_seed_gives_the_same_run_again() {
    for_seeds(0..6, |sim| {
        let first = site_under(World::Harsh, sim.clone());
        assert_eq!(first, site_under(World::Harsh, sim));
    });
}
