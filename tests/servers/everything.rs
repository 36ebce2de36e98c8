//! Everything that is asked for comes as it should, over one connection where that is possible.

use http::{Method, StatusCode, Version};
use tests::{bytes, quietly};

use crate::asker::{Asker, Sent};
use crate::partner::{Kind, Partner, Way};
use crate::until;

/// Beyond every window: ours is 5 MiB for a connection, those of the servers are smaller.
const LARGE: usize = 6 << 20;
const SENT: usize = 2 << 20;

/// Asks for all there is, of one server, in every way.
fn comes_from(kind: Kind) {
    let Some(partner) = Partner::start(kind, 0) else {
        return;
    };
    for way in partner.ways() {
        quietly(move |_| async move { all_of(&way).await });
    }
}

async fn all_of(way: &Way) {
    let client = way.client().build().expect("a client");
    let asker = Asker::new(client, way, 1);
    let asked = async {
        asker.hello("/hello").await?;
        asker.none().await?;
        asker.head(1_000).await?;
        asker.elsewhere().await?;
        asker.much(0).await?;
        asker.much(LARGE).await?;
        asker.sum(Sent::whole(bytes(SENT, 1))).await?;
        asker.sum(Sent::in_pieces(bytes(SENT, 2), 60_000)).await?;
        asker.echo(Sent::whole(bytes(SENT, 3))).await?;
        asker.echo(Sent::in_pieces(bytes(SENT, 4), 7_000)).await?;
        let trailers = asker.much_with_trailers(100_000).await?;
        // hypercorn sends some in HTTP/2 alone.
        let has_none = way.kind == Kind::Python && way.version == Version::HTTP_11;
        assert_eq!(trailers.contains_key("x-sum"), !has_none, "{way:?}");
        asker.hello("/slow").await
    };
    asked
        .await
        .unwrap_or_else(|error| panic!("{way:?}: {error}"));
    assert_eq!(asker.at_rest().await, 1, "{way:?}");
    let counts = asker.client.pool().counts();
    assert_eq!((counts.connects, counts.retired), (1, 0), "{way:?}");
    assert_eq!(way.open_connections(), 1, "{way:?}");
    if way.version == Version::HTTP_11 && way.kind != Kind::Python {
        upgrades(&asker).await;
    }
    asker.close().await;
    way.is_left().await;
}

/// The connection goes on as something else, and is no longer the pool's.
async fn upgrades(asker: &Asker) {
    let (request, _) = asker.request(Method::GET, "/upgrade");
    let request = request.header("connection", "upgrade");
    let answer = request.header("upgrade", "echo").send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let stream = answer.upgrade().await.expect("a stream");
    let sent = bytes(100_000, 5);
    stream.write_all(&sent).await.expect("connected");
    let mut came = Vec::new();
    while came.len() < sent.len() {
        let piece = stream.recv().await.expect("connected");
        came.extend_from_slice(&piece.expect("no end"));
    }
    assert!(came == sent, "{:?}", asker.way);
    let pool = asker.client.pool();
    until("it is not the pool's", || pool.counts().connections == 0).await;
    drop(stream);
}

#[test]
fn everything_comes_from_nginx() {
    comes_from(Kind::Nginx);
}

#[test]
fn everything_comes_from_node() {
    comes_from(Kind::Node);
}

#[test]
fn everything_comes_from_hypercorn() {
    comes_from(Kind::Python);
}
