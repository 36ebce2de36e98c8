//! A small HTTP server on every core: what a request costs.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use benches::outcome::{ended, say};
use bytes::Bytes;
use clap::Parser;
use http::Response;
use http_body_util::Full;
use quoit::Cores;
use quoit_net::http::Server;
use quoit_net::tls::{Identity, ServerTls};

/// Answers every request with the same few bytes.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7001")]
    listen: SocketAddr,
    /// Which cores to use: all, or a list such as 0,2-3.
    #[arg(long, default_value = "all")]
    cores: Cores,
    /// A certificate (PEM): TLS is spoken then.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn main() -> ExitCode {
    ended("http", run(Arguments::parse()))
}

fn run(arguments: Arguments) -> io::Result<()> {
    let mut server = Server::bind(arguments.listen).cores(arguments.cores);
    if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        server = server.tls(ServerTls::new(Identity::from_files(certificate, key)?)?);
    }
    let server = server.serve(|_| async {
        let hello = Full::new(Bytes::from_static(b"Hello, world!"));
        Ok::<_, Infallible>(Response::new(hello))
    })?;
    say(format_args!("listening on {}\n", server.local_addr()))?;
    // Until it is killed.
    server.wait().map(drop)
}
