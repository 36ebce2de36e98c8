//! hyper alone on quoit's streams, as it is on any other runtime: what a request costs without the server of `quoit-net`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use benches::outcome::{complain, ended, say};
use bytes::Bytes;
use clap::Parser;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use quoit::op::Stream;
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
}

fn main() -> ExitCode {
    ended("hyper", run(Arguments::parse()))
}

fn run(arguments: Arguments) -> io::Result<()> {
    let runtime = Runtime::builder().cores(arguments.cores).build()?;
    let port = ShardedListener::bind(arguments.listen, &runtime.handle())?;
    say(format_args!("listening on {}\n", port.local_addr()))?;
    runtime.run(move |core| serve(port.clone(), core))
}

async fn serve(port: ShardedListener, core: CoreId) -> io::Result<()> {
    let listener = port.take(core)?;
    loop {
        match listener.accept().await {
            Ok(stream) => drop(quoit::spawn(speak(stream))),
            // Out of descriptors, or a peer that was gone before we looked.
            Err(error) if error.raw_os_error().is_some() => {
                complain(format_args!("accept failed: {error}"));
                quoit::time::sleep(Duration::from_millis(50)).await?;
            }
            Err(cancelled) => return Err(cancelled),
        }
    }
}

/// Speaks what the client begins with: HTTP/2 has a preface that is no request of HTTP/1 (RFC 9113, section 3.4).
async fn speak(stream: TcpStream) {
    let stream = Stream::from(stream);
    let Ok(Some(first)) = stream.receive().await else {
        return;
    };
    let is_http2 = first.starts_with(b"PRI");
    stream.put_back(first);
    // A client that has gone is no failure here.
    let _ = if is_http2 {
        let mut builder = http2::Builder::new(Executor);
        builder.timer(Timer);
        let served = builder.serve_connection(Io::new(stream), service_fn(answer));
        served.await
    } else {
        let mut builder = http1::Builder::new();
        // Answers to requests that came together leave together.
        builder.timer(Timer).pipeline_flush(true);
        let served = builder.serve_connection(Io::new(stream), service_fn(answer));
        served.await
    };
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let hello = Full::new(Bytes::from_static(b"Hello, world!"));
    Ok(Response::new(hello))
}
