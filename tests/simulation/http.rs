//! The HTTP server of `quoit-net` on the simulated kernel.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use quoit::sim::{Faults, Sim, for_seeds};
use quoit_net::http::{Io, Server, Timer};
use quoit_net::tcp::TcpStream;

async fn answer(
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    Ok(Response::new(Full::new(body)))
}

#[test]
fn a_request_is_answered() {
    for_seeds(0..50, |sim| {
        let sim: Sim = sim.faults(Faults::benign());
        sim.run(|| {
            let server = Server::bind("127.0.0.1:8080")
                .serve(answer)
                .expect("it serves");
            let address = server.local_addr();
            let status = quoit::block_on(async move {
                let stream = TcpStream::connect(address).await.expect("connects");
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(Io::new(stream))
                        .await
                        .expect("speaks");
                drop(quoit::spawn(async move { drop(connection.await) }));
                let request = Request::get("http://x/")
                    .body(Empty::<Bytes>::new())
                    .expect("a request");
                sender
                    .send_request(request)
                    .await
                    .expect("an answer")
                    .status()
            })
            .expect("a ring");
            assert_eq!(status, 200);
            let _ = Timer;
            server.shutdown(Duration::from_secs(1)).expect("it stops");
        });
    });
}
