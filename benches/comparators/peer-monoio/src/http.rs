//! A small HTTP server on hyper and monoio, as monoio-compat teaches it: a runtime on each pinned thread, with its ring
//! set up for one thread.

mod ring;

use std::convert::Infallible;
use std::io;

use clap::Parser;
use common::place::Place;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::server::conn::auto::Builder;
use monoio::io::IntoPollIo;
use monoio::net::{TcpListener, TcpStream};
use monoio_compat::hyper::{MonoioExecutor, MonoioIo, MonoioTimer};

/// Answers every request with the same few bytes.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    place: Place,
}

fn main() -> io::Result<()> {
    let Arguments { place } = Arguments::parse();
    place.serve(|listener| ring::build(ring::tuned()).block_on(accept(listener)))
}

async fn accept(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        monoio::spawn(serve(stream));
    }
}

async fn serve(stream: TcpStream) {
    let stream = stream.into_poll_io().expect("a stream that was accepted");
    let mut builder = Builder::new(MonoioExecutor);
    // As quoit does, a head has a deadline.
    builder.http1().timer(MonoioTimer);
    // Answers to requests that came together leave together, as quoit's streams do by themselves.
    builder.http1().pipeline_flush(true);
    builder.http2().timer(MonoioTimer);
    // A client that has gone is no failure here.
    let _ = builder
        .serve_connection(MonoioIo::new(stream), service_fn(answer))
        .await;
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(
        b"Hello, world!",
    ))))
}
