//! Servers that are killed with SIGKILL in the middle of requests: each request says what became of it, and the
//! pool goes on when the server is there again.

use std::rc::Rc;
use std::sync::{Arc, Mutex};

use http::{Method, Version};
use quoit::sync::Event;
use quoit::{JoinHandle, spawn};
use quoit_net::http::body;
use quoit_pool::http::{Error, Response};
use tests::quietly;

use crate::asker::Asker;
use crate::partner::{Kind, Partner, Way};
use crate::until;

/// The connection ended under it, and it says so.
fn is_lost(error: &Error) -> bool {
    let says = error.to_string();
    matches!(error, Error::Lost(_)) && says.starts_with("the connection ended before")
}

/// Nobody is there, and it says so.
fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Connect { .. }) && error.to_string().starts_with("cannot reach")
}

/// Starts a request that is not answered.
fn unanswered(asker: &Asker, method: Method) -> JoinHandle<Result<Response, Error>> {
    let (request, _) = asker.request(method, "/never");
    spawn(request.send())
}

/// A request of which a part of the body is sent; whoever has the rest waits with it for `end`, and has heard then
/// that nobody wants it.
fn half_sent(asker: &Asker, end: &Rc<Event>) -> JoinHandle<Result<Response, Error>> {
    let (sender, pieces) = body::channel(1);
    let (request, _) = asker.request(Method::POST, "/never");
    let (end, asking) = (Rc::clone(end), spawn(request.body(pieces).send()));
    drop(spawn(async move {
        sender.send("half").await.expect("there is room");
        end.wait().await.expect("nobody cancels");
        assert!(sender.is_gone());
    }));
    asking
}

async fn dies_and_comes_back(partner: Arc<Mutex<Partner>>, way: Way) {
    let asker = Asker::new(way.client().build().expect("a client"), &way, 1);
    let counts = || asker.client.pool().counts();
    let (request, _) = asker.request(Method::GET, "/half");
    let mut half = request.send().await.expect("a head");
    assert_eq!(half.chunk().await.expect("a piece").expect("some"), "half");
    let end = Rc::new(Event::new());
    let asking = [
        unanswered(&asker, Method::GET),
        unanswered(&asker, Method::POST),
        half_sent(&asker, &end),
    ];
    let connections = match way.version {
        Version::HTTP_11 => 4,
        _ => 1,
    };
    until("all are under way", || {
        let now = counts();
        now.reuses + now.connects == 4 && (now.connects, now.waiting) == (connections, 0)
    })
    .await;
    let hears = spawn(async move { half.chunk().await });
    partner.lock().expect("nobody fails").kill();

    let rest = hears.await.expect("no panic");
    assert!(rest.as_ref().is_err_and(is_lost), "{way:?}: {rest:?}");
    for asking in asking {
        let ended = asking.await.expect("no panic");
        assert!(ended.as_ref().is_err_and(is_lost), "{way:?}: {ended:?}");
    }
    end.set();
    until("nothing is left", || counts().connections == 0).await;
    for _ in 0..3 {
        let ended = asker.hello("/hello").await;
        assert!(ended.as_ref().is_err_and(is_refused), "{way:?}: {ended:?}");
    }
    until("nothing is left", || counts().connections == 0).await;
    assert_eq!(counts().failed_connects, 3, "{way:?}");

    partner.lock().expect("nobody fails").start_again();
    for _ in 0..3 {
        asker.hello("/hello").await.expect("it is there again");
    }
    assert_eq!(asker.at_rest().await, 1);
    assert_eq!(counts().connects, connections + 1, "{way:?}");
    asker.close().await;
    way.is_left().await;
}

fn survives(kind: Kind) {
    let Some(partner) = Partner::start(kind, 0) else {
        return;
    };
    let ways = partner.ways();
    let partner = Arc::new(Mutex::new(partner));
    for way in ways {
        let partner = Arc::clone(&partner);
        quietly(|_| dies_and_comes_back(partner, way));
    }
}

#[test]
fn p057_nginx_may_be_killed() {
    survives(Kind::Nginx);
}

#[test]
fn p057_node_may_be_killed() {
    survives(Kind::Node);
}

#[test]
fn p057_hypercorn_may_be_killed() {
    survives(Kind::Python);
}
