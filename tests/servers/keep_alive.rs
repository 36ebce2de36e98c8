//! Servers that end a connection after a few requests, in order: `connection: close`, or GOAWAY. No request fails
//! by that, and none is answered twice.

use http::Version;
use quoit::{Group, group};
use quoit_pool::http::Error;
use tests::{bytes, quietly};

use crate::asker::{Asker, Sent};
use crate::partner::{Kind, Partner, Way};
use crate::{rounds, until};

/// How many requests there are on a connection.
const REQUESTS: usize = 7;

/// Who asks at once.
const TASKS: usize = 5;

async fn asks(asker: Asker) -> Result<(), Error> {
    for round in 0..rounds() {
        match round % 4 {
            0 => asker.hello("/hello").await?,
            1 => asker.sum(Sent::whole(bytes(200_000, 1))).await?,
            2 => asker.much(200_000).await?,
            _ => asker.hello("/slow").await?,
        }
    }
    Ok(())
}

async fn goes_on(way: Way) {
    let asker = Asker::new(way.client().build().expect("a client"), &way, 1);
    let asked = group(async |g: Group<Error>| {
        for _ in 0..TASKS {
            g.spawn(asks(asker.clone()));
        }
        Ok(())
    });
    let asked = asked.await;
    assert!(asked.is_ok(), "{way:?}: {asked:?}");
    let connections = asker.at_rest().await;
    let counts = asker.client.pool().counts();
    let least = TASKS * rounds() / REQUESTS;
    assert!(counts.connects as usize >= least, "{way:?}: {counts:?}");
    until("the server has our connections, and no others", || {
        way.open_connections() == connections
    })
    .await;
    asker.close().await;
    way.is_left().await;
}

fn survives(kind: Kind) {
    let Some(partner) = Partner::start(kind, REQUESTS) else {
        return;
    };
    for way in partner.ways() {
        // hypercorn says nothing more on a connection of HTTP/2 once it has said GOAWAY: answers under way are lost.
        if way.kind == Kind::Python && way.version == Version::HTTP_2 {
            continue;
        }
        quietly(|_| goes_on(way));
    }
}

#[test]
fn connections_that_nginx_ends_in_order_cost_no_request() {
    survives(Kind::Nginx);
}

#[test]
fn connections_that_node_ends_in_order_cost_no_request() {
    survives(Kind::Node);
}

#[test]
fn connections_that_hypercorn_ends_in_order_cost_no_request() {
    survives(Kind::Python);
}
