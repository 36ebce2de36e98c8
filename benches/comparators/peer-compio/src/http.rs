//! A small HTTP server on hyper and compio, as cyper-core teaches it: a runtime on each pinned thread, with its ring set
//! up for one thread.

mod ring;

use std::convert::Infallible;
use std::io;

use clap::Parser;
use common::place::Place;
use compio::net::{TcpListener, TcpStream};
use cyper_core::{CompioExecutor, CompioTimer, HyperStream};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::server::conn::auto::Builder;

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
        compio::runtime::spawn(serve(stream)).detach();
    }
}

async fn serve(stream: TcpStream) {
    let mut builder = Builder::new(CompioExecutor);
    // As quoit does, a head has a deadline.
    builder.http1().timer(CompioTimer);
    // Answers to requests that came together leave together, as quoit's streams do by themselves.
    builder.http1().pipeline_flush(true);
    builder.http2().timer(CompioTimer);
    // A client that has gone is no failure here.
    let _ = builder
        .serve_connection(HyperStream::new_plain(stream), service_fn(answer))
        .await;
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(
        b"Hello, world!",
    ))))
}
