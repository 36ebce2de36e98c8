//! The servers that the cases ask: on the real ring, one of a kind for all cases of a process.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use quoit::Cores;
use quoit::time::sleep;
use quoit_net::http::{Builder, Incoming, Server};

/// How many streams a client of the shared server may have open.
pub(crate) const STREAMS: u32 = 100;

/// How large the answer to `/large` is.
pub(crate) const LARGE: usize = 200_000;

/// How long no case takes.
const LONG: Duration = Duration::from_secs(3600);

/// Begins a server of one core on a free port, with patience that no case exhausts.
pub(crate) fn patient() -> Builder<&'static str> {
    Server::bind("127.0.0.1:0")
        .cores(Cores::Count(1))
        .idle_timeout(LONG)
        .head_timeout(LONG)
        .body_timeout(LONG)
        .stall_timeout(LONG)
        .max_concurrent_streams(STREAMS)
        // Cases end connections on purpose.
        .on_trouble(|_| {})
}

/// Answers as the path says: `/echo` with the request's body, once all of it came, `/fields` with its
/// trailers, `/wait` never, `/large` with much, `/status/…` with that status, anything else with the path, whatever the body.
pub(crate) async fn answer(
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let path = request.uri().path().to_owned();
    let body = match path.as_str() {
        "/echo" => request.into_body().collect().await?.to_bytes(),
        "/fields" => {
            let whole = request.into_body().collect().await?;
            format!("{:?}", whole.trailers()).into()
        }
        "/cookie" => format!("{:?}", request.headers().get_all("cookie")).into(),
        "/wait" => {
            sleep(LONG).await?;
            Bytes::new()
        }
        "/large" => vec![b'x'; LARGE].into(),
        _ => format!("{} {}", request.method(), request.uri()).into(),
    };
    let mut answer = Response::new(Full::new(body));
    if let Some(status) = path.strip_prefix("/status/") {
        *answer.status_mut() = status.parse()?;
    }
    Ok(answer)
}

/// The address of the server that most cases share.
pub(crate) fn shared() -> SocketAddr {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(|| patient().serve(answer).expect("a server"));
    server.local_addr()
}
