//! hyper alone on quoit's streams, as it is on any other runtime: what a request costs without the server of `quoit-net`.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use quoit::{CoreId, Cores, Runtime};
use quoit_net::http::{Executor, Io, Timer};
use quoit_net::{ShardedListener, TcpStream};

/// Answers every request with the same few bytes.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7001")]
    listen: SocketAddr,
    /// Which cores to use: all, or a list such as 0,2-3.
    #[arg(long, default_value = "all")]
    cores: Cores,
    /// Speak HTTP/2, which clients have to know before.
    #[arg(long)]
    http2: bool,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let runtime = Runtime::builder().cores(arguments.cores).build()?;
    let port = ShardedListener::bind(arguments.listen, &runtime.handle())?;
    println!("listening on {}", port.local_addr());
    io::stdout().flush()?;
    runtime.run(move |core| serve(port.clone(), core, arguments.http2))
}

async fn serve(port: ShardedListener, core: CoreId, http2: bool) -> io::Result<()> {
    let listener = port.take(core)?;
    loop {
        match listener.accept().await {
            Ok(stream) if http2 => drop(quoit::spawn(speak_http2(stream))),
            Ok(stream) => drop(quoit::spawn(speak_http1(stream))),
            // Out of descriptors, or a peer that was gone before we looked.
            Err(error) if error.raw_os_error().is_some() => {
                eprintln!("accept failed: {error}");
                quoit::time::sleep(Duration::from_millis(50)).await?;
            }
            Err(cancelled) => return Err(cancelled),
        }
    }
}

fn speak_http1(stream: TcpStream) -> impl Future<Output = hyper::Result<()>> {
    http1::Builder::new()
        .timer(Timer)
        // Answers to requests that came together leave together.
        .pipeline_flush(true)
        .serve_connection(Io::new(stream), service_fn(answer))
}

fn speak_http2(stream: TcpStream) -> impl Future<Output = hyper::Result<()>> {
    http2::Builder::new(Executor)
        .timer(Timer)
        .serve_connection(Io::new(stream), service_fn(answer))
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let hello = Full::new(Bytes::from_static(b"Hello, world!"));
    Ok(Response::new(hello))
}
