//! Many requests at once on two cores, each given up at a moment of its own: nothing is lost by that. Every answer
//! is to its own request, connections and windows are all there afterwards, and the server has no others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Version;
use quoit::{Cores, Group, Runtime, Scope, group, on, spawn};
use quoit_pool::http::Error;
use tests::{Dice, bytes, quietly, quietly_of};

use crate::asker::{Asker, Sent};
use crate::partner::{Kind, Partner, Way};
use crate::{rounds, seed, until};

const CORES: usize = 2;

/// Who asks at once on a core, and how many connections of HTTP/1 there are for that.
const TASKS: usize = 5;
const CONNECTIONS: usize = 3;

/// Beyond what is left of a window of which much was not given back.
const LARGE: usize = 3 << 20;
const SENT: usize = 1 << 20;

/// Asks for something, and may give it up: before it begins, after a while, while its body is made, while the
/// answer's is read, or by leaving that.
async fn ask(asker: &Asker, dice: &mut Dice) -> Result<(), Error> {
    let scope = Scope::new();
    let handle = scope.handle();
    let size = dice.one_of(&[0, 10, 3_000, 100_000, 400_000]);
    let sent = bytes(size, dice.seed());
    let mut sent = match dice.flip() {
        true => Sent::whole(sent),
        false => Sent::in_pieces(sent, dice.one_of(&[1_000, 30_000])),
    };
    if dice.one_in(3) {
        sent.cancels = Some((dice.below(6), handle));
    }
    let scope = match dice.below(10) {
        0 => {
            handle.cancel();
            scope
        }
        1..=4 => scope.timeout(Duration::from_micros(dice.below(10_000) as u64)),
        _ => scope,
    };
    let what = dice.below(10);
    let asking = async {
        match what {
            0 => asker.hello("/hello").await,
            1 => asker.hello("/slow").await,
            2 | 3 => asker.echo(sent).await,
            4 | 5 => asker.sum(sent).await,
            6 => asker.much(size).await,
            7 | 8 => {
                let (mut answer, _) = asker.begin_much(size + 200_000).await?;
                let _ = answer.chunk().await?;
                if what == 8 {
                    handle.cancel();
                    let _ = answer.chunk().await?;
                }
                Ok(())
            }
            _ => {
                asker.head(size).await?;
                asker.none().await?;
                asker.elsewhere().await
            }
        }
    };
    scope.run(asking).await.map(drop)
}

/// All connections of a client still carry what is beyond every window, both ways.
async fn carries(asker: &Asker, connections: usize) {
    let before = asker.client.pool().counts();
    let carried = group(async |g: Group<Error>| {
        for _ in 0..connections {
            let asker = asker.clone();
            g.spawn(async move {
                asker.sum(Sent::whole(bytes(SENT, 1))).await?;
                asker.much(LARGE).await
            });
        }
        Ok(())
    });
    let carried = carried.await;
    assert!(carried.is_ok(), "{:?}: {carried:?}", asker.way);
    asker.at_rest().await;
    let after = asker.client.pool().counts();
    assert_eq!(
        (after.connects, after.retired, after.connections),
        (before.connects, before.retired, before.connections),
        "{:?}: the same connections",
        asker.way
    );
}

/// What the cores tell each other.
#[derive(Debug, Default)]
struct Gathering {
    at_rest: AtomicUsize,
    connections: AtomicUsize,
    counted: AtomicUsize,
}

/// What one core does.
async fn on_core(
    place: usize,
    way: Way,
    seed: u64,
    gathering: Arc<Gathering>,
) -> Result<(), io::Error> {
    let client = way.client().max_connections_per_origin(CONNECTIONS);
    let first = 1 + place as u64 * 1_000_000;
    let asker = Asker::new(client.build().expect("a client"), &way, first);
    let mut dice = Dice::new(seed + place as u64);
    let asked = group(async |g: Group<Error>| {
        for _ in 0..TASKS {
            let (asker, mut dice) = (asker.clone(), Dice::new(dice.seed()));
            g.spawn(async move {
                for _ in 0..rounds() {
                    ask(&asker, &mut dice).await?;
                }
                Ok(())
            });
        }
        Ok(())
    });
    let asked = asked.await;
    assert!(asked.is_ok(), "{way:?}: {asked:?}");
    let connections = asker.at_rest().await;
    assert!(connections <= CONNECTIONS, "{way:?}: {connections}");
    if way.version == Version::HTTP_2 {
        let counts = asker.client.pool().counts();
        assert_eq!((counts.connects, counts.retired), (1, 0), "{way:?}");
    }
    if connections == 0 {
        // All have ended with requests that were given up.
        asker.hello("/hello").await.expect("an answer");
        asker.at_rest().await;
    }
    carries(&asker, connections.max(1)).await;
    let cuts = asker.cuts().await.expect("an answer");
    assert_eq!(cuts, "0", "{way:?} took what was cut for whole");

    let connections = asker.at_rest().await;
    gathering
        .connections
        .fetch_add(connections, Ordering::Relaxed);
    gathering.at_rest.fetch_add(1, Ordering::Release);
    if place == 0 {
        until("all cores are at rest", || {
            gathering.at_rest.load(Ordering::Acquire) == CORES
        })
        .await;
        let ours = gathering.connections.load(Ordering::Relaxed);
        until("the server has our connections, and no others", || {
            way.open_connections() == ours
        })
        .await;
        gathering.counted.store(1, Ordering::Release);
    }
    until("they are counted", || {
        gathering.counted.load(Ordering::Acquire) == 1
    })
    .await;
    asker.close().await;
    Ok(())
}

fn storm(kind: Kind) {
    let Some(partner) = Partner::start(kind, 0) else {
        return;
    };
    let seed = seed();
    println!("QUOIT_SERVERS_SEED={seed}");
    for way in partner.ways() {
        let seen = way.clone();
        let builder = Runtime::builder().cores(Cores::Count(CORES));
        quietly_of(builder, move |handle| async move {
            let gathering = Arc::new(Gathering::default());
            let cores = handle.cores().into_iter().enumerate();
            let storms: Vec<_> = cores
                .map(|(place, core)| {
                    let (way, gathering) = (way.clone(), Arc::clone(&gathering));
                    spawn(on(core, move || on_core(place, way, seed, gathering)))
                })
                .collect();
            for storm in storms {
                storm.await.expect("no panic").expect("nobody cancels");
            }
        });
        tests::http_client::until(|| seen.open_connections() == 0);
    }
}

#[test]
fn cancelled_at_any_moment_nothing_is_lost_with_nginx() {
    storm(Kind::Nginx);
}

#[test]
fn cancelled_at_any_moment_nothing_is_lost_with_node() {
    storm(Kind::Node);
}

#[test]
fn cancelled_at_any_moment_nothing_is_lost_with_hypercorn() {
    storm(Kind::Python);
}

/// Connects are given up wherever they are, by clients of their own: in the name, the connect, the handshake, and
/// soon after.
fn given_up_while_connecting(kind: Kind) {
    let Some(partner) = Partner::start(kind, 0) else {
        return;
    };
    let mut dice = Dice::new(seed());
    for way in partner.ways() {
        let times: Vec<_> = (0..2 * rounds()).map(|_| dice.below(5_000)).collect();
        quietly(move |_| async move {
            for after in times {
                let client = way.client().build().expect("a client");
                let asker = Asker::new(client, &way, 1);
                let scope = Scope::new().timeout(Duration::from_micros(after as u64));
                let ended = scope.run(asker.hello("/hello")).await;
                assert!(ended.is_ok(), "{way:?}: {ended:?}");
                assert!(asker.at_rest().await <= 1, "{way:?}");
                asker.hello("/hello").await.expect("an answer");
                asker.close().await;
            }
            way.is_left().await;
        });
    }
}

#[test]
fn given_up_while_connecting_nothing_is_lost_with_nginx() {
    given_up_while_connecting(Kind::Nginx);
}

#[test]
fn given_up_while_connecting_nothing_is_lost_with_node() {
    given_up_while_connecting(Kind::Node);
}

#[test]
fn given_up_while_connecting_nothing_is_lost_with_hypercorn() {
    given_up_while_connecting(Kind::Python);
}
