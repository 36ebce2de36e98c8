//! A server with a page, whose handlers wait as long as a test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use quoit::sync::shared::Semaphore;
use quoit::{Cancelled, Cores, Scope};
use quoit_net::http::{Incoming, Page, Server};
use tests::http_client::Client;

/// How many cores it has.
pub(crate) const CORES: usize = 2;

/// Begins a server on `address`. Its handlers:
///
/// | path | |
/// |---|---|
/// | `/missing` | 404 |
/// | `/broken` | 500 |
/// | `/wait` | waits for a permit of the gate |
/// | `/stubborn` | does so behind a shield, whatever is cancelled |
/// | all else | 200 |
pub(crate) fn serve(address: impl ToString, gate: &Arc<Semaphore>) -> Server {
    let gate = Arc::clone(gate);
    let server = Server::bind(address.to_string())
        .cores(Cores::Count(CORES))
        .page(Page::at("/_quoit/"))
        .serve(move |request| answer(Arc::clone(&gate), request));
    server.expect("a server")
}

/// A server whose gate is open.
pub(crate) fn open() -> Server {
    serve("127.0.0.1:0", &Arc::new(Semaphore::new(1)))
}

async fn answer(
    gate: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Cancelled> {
    let status = match request.uri().path() {
        "/missing" => StatusCode::NOT_FOUND,
        "/broken" => StatusCode::INTERNAL_SERVER_ERROR,
        "/wait" => {
            drop(gate.acquire().await?);
            StatusCode::OK
        }
        "/stubborn" => {
            let shielded = Scope::new().shielded();
            shielded
                .run(async { gate.acquire().await.map(drop) })
                .await?;
            StatusCode::OK
        }
        _ => StatusCode::OK,
    };
    let mut answer = Response::new(Full::new(Bytes::from_static(b"well")));
    *answer.status_mut() = status;
    Ok(answer)
}

/// Asks for a path so often, on one connection.
pub(crate) fn ask(address: SocketAddr, path: &str, times: usize) {
    let mut client = Client::connect(address);
    for _ in 0..times {
        client.get(path);
    }
}

/// Returns a count of the server's over all cores, of one label or of all.
pub(crate) fn total(server: &Server, name: &str, label: Option<&str>) -> f64 {
    let snapshot = server.snapshot();
    let counts = snapshot.cores.iter().flat_map(|core| &core.counts);
    let is_it = |value: Option<&str>| label.is_none() || label == value;
    let wanted = counts.filter(|count| {
        count.name == name && is_it(count.label.as_ref().map(|(_, value)| &**value))
    });
    wanted.map(|count| count.value).sum::<u64>() as f64
}

/// Returns the URL of the page.
pub(crate) fn url(server: &Server) -> String {
    format!("http://{}/_quoit/", server.local_addr())
}

/// Longer than what is open takes to end.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
