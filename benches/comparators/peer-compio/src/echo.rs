//! TCP echo on compio: a runtime on each pinned thread, with its ring set up for one thread.

mod ring;

use std::io;
use std::num::NonZero;
use std::pin::pin;

use clap::Parser;
use common::echo::Arguments;
use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncReadMulti, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use futures::StreamExt;

/// Sends back whatever it receives.
#[derive(Parser)]
struct All {
    #[command(flatten)]
    shared: Arguments,
    /// Sets up the ring as compio does by itself.
    #[arg(long)]
    as_shipped: bool,
    /// Receives by `read_multi`, into 1 024 buffers that the kernel chooses from.
    ///
    /// A connection that finds none is closed: compio returns the error.
    #[arg(long)]
    multi: bool,
}

fn main() -> io::Result<()> {
    let All {
        shared,
        as_shipped,
        multi,
    } = All::parse();
    let buffer = shared.buffer;
    shared.place.serve(move |listener| {
        let ring = if as_shipped {
            ProactorBuilder::new()
        } else {
            ring::tuned()
        };
        let ring = if multi { with_pool(ring, buffer) } else { ring };
        ring::build(ring).block_on(accept(listener, buffer, multi))
    })
}

/// How many buffers the pool has, from which the kernel takes one for each receive of `read_multi`.
const BUFFERS: NonZero<u16> = NonZero::new(1024).expect("it is not zero");

/// A ring with a pool of buffers of this size.
fn with_pool(mut ring: ProactorBuilder, buffer: usize) -> ProactorBuilder {
    ring.buffer_pool_size(BUFFERS)
        .buffer_pool_buffer_len(buffer);
    ring
}

async fn accept(listener: std::net::TcpListener, buffer: usize, multi: bool) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        if multi {
            compio::runtime::spawn(echo_multi(stream)).detach();
        } else {
            compio::runtime::spawn(echo(stream, buffer)).detach();
        }
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(buffer);
    loop {
        buffer.clear();
        let BufResult(read, back) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        let BufResult(written, back) = stream.write_all(back).await;
        written?;
        buffer = back;
    }
}

async fn echo_multi(stream: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = (&stream, &stream);
    let mut received = pin!(reader.read_multi(0));
    while let Some(buffer) = received.next().await {
        writer.write_all(buffer?).await.0?;
    }
    Ok(())
}
