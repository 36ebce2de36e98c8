//! A small HTTP server on hyper and tokio, as both teach it: a current-thread runtime on each pinned
//! thread, a listener each on one port (SO_REUSEPORT).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

/// Answers every request with the same few bytes.
#[derive(Parser, Clone)]
struct Arguments {
    #[arg(long, default_value = "127.0.0.1:7002")]
    listen: SocketAddr,
    /// Which cores to use, such as 0,1
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    cores: Vec<usize>,
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn main() {
    let arguments = Arguments::parse();
    let tls = arguments.tls_cert.as_ref().zip(arguments.tls_key.as_ref());
    let tls = tls.map(|(certificate, key)| {
        let certificates = CertificateDer::pem_file_iter(certificate).expect("a certificate");
        let certificates: Result<Vec<_>, _> = certificates.collect();
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certificates.expect("certificates"), key)
            .expect("they belong together");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    });
    let threads: Vec<_> = arguments
        .cores
        .iter()
        .map(|&core| {
            // Here, not in the thread: whoever reads that we listen may connect.
            let (listener, tls) = (listen(arguments.listen), tls.clone());
            std::thread::spawn(move || {
                core_affinity::set_for_current(core_affinity::CoreId { id: core });
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                LocalSet::new().block_on(&runtime, serve(listener, tls));
            })
        })
        .collect();
    println!("listening on {}", arguments.listen);
    for thread in threads {
        thread.join().expect("no panic");
    }
}

fn listen(address: SocketAddr) -> Socket {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )
    .expect("a socket");
    socket.set_reuse_port(true).expect("an option");
    socket.set_reuse_address(true).expect("an option");
    socket.set_nonblocking(true).expect("an option");
    socket.bind(&address.into()).expect("a free address");
    socket.listen(1024).expect("it listens");
    socket
}

async fn serve(socket: Socket, tls: Option<TlsAcceptor>) {
    let listener = TcpListener::from_std(socket.into()).expect("a listener");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let tls = tls.clone();
        tokio::task::spawn_local(async move {
            let mut builder = Builder::new(LocalExecutor);
            // As quoit does, a head has a deadline.
            builder.http1().timer(TokioTimer::new());
            // Answers to requests that came together leave together, as quoit's streams do by themselves.
            builder.http1().pipeline_flush(true);
            builder.http2().timer(TokioTimer::new());
            let service = service_fn(answer);
            let _ = match tls {
                None => {
                    builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                }
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                }
            };
        });
    }
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(
        b"Hello, world!",
    ))))
}

#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
