//! Whole programs under seeds: many requests at once, over a network and a kernel that do what they may, or
//! worse. Each ends with what it should, or an error; then all is well again, and nothing is left.

use std::io;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use quoit::sim::{Fault, Faults, Sim, for_seeds};
use quoit::time::sleep;
use quoit::{Cores, Group, RemoteError, Runtime, Scope, group};
use quoit_net::http::{Incoming, Server};
use quoit_pool::http::{Client, Error};

use crate::{patient, text};

/// Whether a request may fail that is not given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum World {
    Kind,
    Harsh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Http1,
    Http2,
}

const ADDRESS: &str = "10.0.0.1:80";
const URL: &str = "http://10.0.0.1/";

fn below(bound: u64) -> u64 {
    quoit::random().expect("a simulation always has some") % bound
}

async fn pause_up_to(milliseconds: u64) {
    // Cancelled, it only ends sooner.
    let _ = sleep(Duration::from_micros(below(milliseconds * 1000 + 1))).await;
}

/// Sends back what came, after a while.
async fn echo(request: Request<Incoming>) -> io::Result<Response<Full<bytes::Bytes>>> {
    let body = request.into_body().collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    if below(3) == 0 {
        sleep(Duration::from_millis(below(40))).await?;
    }
    Ok(Response::new(Full::new(body)))
}

/// Asks for some echoes, one after the other, and gives some of them up.
async fn ask(client: Client, world: World) {
    for _ in 0..1 + below(5) {
        let size = [0, 10, 3_000, 200_000][below(4) as usize];
        let sent = vec![below(256) as u8; size];
        let asking = async {
            let request = client.post(URL).body(sent.clone());
            let mut answer = request.send().await?;
            if below(8) == 0 {
                // Left in the middle, or before.
                let _ = answer.chunk().await?;
                return Ok(None);
            }
            answer.bytes().await.map(Some)
        };
        let scope = Scope::new();
        let scope = match below(3) {
            0 => scope.timeout(Duration::from_micros(below(60_000))),
            // Machines that vanish say nothing.
            _ if world == World::Harsh => scope.timeout(Duration::from_secs(100)),
            _ => scope,
        };
        match scope.run(asking).await {
            Ok(Some(Some(came))) => assert!(came == sent, "{} of {size}", came.len()),
            Ok(_) => {}
            Err(error) => assert_eq!(world, World::Harsh, "nothing may fail here: {error:?}"),
        }
        pause_up_to(20).await;
    }
}

async fn storm(world: World, over: Over) -> Result<(), Error> {
    let builder = match over {
        Over::Http1 => patient(),
        Over::Http2 => patient().http2_prior_knowledge(),
    };
    let idle = [None, Some(Duration::ZERO), Some(Duration::from_millis(5))][below(3) as usize];
    let builder = builder
        .max_connections_per_origin(1 + below(4) as usize)
        .idle_timeout(idle)
        .connect_timeout(Duration::from_secs(30));
    let client = builder.build()?;
    let asked = group(async |g: Group<Error>| {
        for _ in 0..1 + below(8) {
            let client = client.clone();
            g.spawn(async move {
                ask(client, world).await;
                Ok(())
            });
        }
        Ok(())
    });
    asked.await.expect("nobody fails or cancels");
    quoit::sim::end_faults();
    let counts = client.pool().counts();
    assert_eq!(counts.waiting, 0, "{counts:?}");
    // What is left of the storm may still be in the way of the first, and of HTTP/2 a connection whose peer has vanished,
    // until the kernel gives it up: after a quarter of an hour.
    for attempt in 0.. {
        let again = client
            .get(URL)
            .timeout(Duration::from_secs(100))
            .send()
            .await;
        match again {
            Ok(answer) => {
                answer.bytes().await?;
                break;
            }
            Err(error) => assert!(world == World::Harsh && attempt < 10, "{error:?}"),
        }
    }
    text(&client, URL).await?;
    client.pool().close().await?;
    let counts = client.pool().counts();
    assert_eq!((counts.connections, counts.idle), (0, 0), "{counts:?}");
    Ok(())
}

fn run(sim: Sim, world: World, over: Over) {
    sim.run(|| {
        let server = Server::bind(ADDRESS).cores(Cores::Count(1));
        // It has some, and that is as it should be.
        let server = server.on_trouble(|_| {}).serve(echo);
        let Ok(server) = server else {
            assert_eq!(world, World::Harsh, "nothing may fail here");
            return;
        };
        let runtime = Runtime::builder().cores(Cores::Count(1)).build();
        let runtime = runtime.expect("no fault refuses a ring here");
        let core = runtime.handle().cores()[0];
        let storm = runtime.handle().spawn(core, move || storm(world, over));
        match storm.expect("the mailbox has room").wait() {
            Ok(outcome) => outcome.expect("all is well at the end"),
            Err(RemoteError::Panicked(panic)) => std::panic::resume_unwind(panic),
            Err(error) => panic!("the client was lost: {error}"),
        }
        runtime.shutdown(Duration::ZERO);
        server
            .shutdown(Duration::from_secs(10))
            .expect("no core failed");
    });
}

#[test]
fn every_request_is_answered_or_given_up() {
    for over in [Over::Http1, Over::Http2] {
        for_seeds(0..40, |sim| {
            let faults = match sim.seed() % 2 {
                0 => Faults::benign(),
                _ => Faults::benign()
                    .rate(Fault::LateArrival, 0.5)
                    .rate(Fault::PeerStalls, 0.05)
                    .rate(Fault::ShortRead, 0.3),
            };
            run(sim.faults(faults), World::Kind, over);
        });
    }
}

#[test]
fn a_request_fails_alone_and_the_client_goes_on() {
    for over in [Over::Http1, Over::Http2] {
        for_seeds(0..40, |sim| {
            let faults = match sim.seed() % 3 {
                0 => Faults::some(),
                1 => Faults::some()
                    .rate(Fault::PeerReset, 0.03)
                    .rate(Fault::ReceiveFails, 0.01)
                    .rate(Fault::SendFails, 0.01)
                    .rate(Fault::ConnectRefused, 0.1),
                _ => Faults::some().rate(Fault::PeerVanishes, 0.02),
            };
            run(sim.faults(faults), World::Harsh, over);
        });
    }
}
