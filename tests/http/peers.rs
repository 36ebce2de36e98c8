//! Clients on a core: hyper's, over a stream of ours.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use quoit::{JoinHandle, spawn};
use quoit_net::TcpStream;
use quoit_net::http::{Executor, Io};

/// What carries a connection: it ends with it.
pub(crate) type Connection = JoinHandle<hyper::Result<()>>;

/// Connects for HTTP/1.
pub(crate) async fn http1<B>(address: SocketAddr) -> (http1::SendRequest<B>, Connection)
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (sender, connection) = http1::handshake(Io::new(stream))
        .await
        .expect("no bytes yet");
    (sender, spawn(connection))
}

/// Connects for HTTP/2, which the server learns from the first bytes.
pub(crate) async fn http2<B>(address: SocketAddr) -> (http2::SendRequest<B>, Connection)
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await.expect("it listens");
    let handshake = http2::handshake(Executor, Io::new(stream));
    let (sender, connection) = handshake.await.expect("a preface can be sent");
    (sender, spawn(connection))
}

/// A request for a path, as both protocols take it.
pub(crate) fn request<B>(address: SocketAddr, path: &str, body: B) -> Request<B> {
    Request::builder()
        .method("POST")
        .uri(format!("http://{address}{path}"))
        .header("host", address.to_string())
        .body(body)
        .expect("a well-formed request")
}

/// A request without a body.
pub(crate) fn get(address: SocketAddr, path: &str) -> Request<Empty<Bytes>> {
    let mut request = request(address, path, Empty::new());
    *request.method_mut() = http::Method::GET;
    request
}

/// Reads an answer to its end.
pub(crate) async fn whole(answer: Response<Incoming>) -> Bytes {
    let body = answer.into_body().collect().await;
    body.expect("a whole answer").to_bytes()
}
