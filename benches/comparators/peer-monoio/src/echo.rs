//! TCP echo on monoio: a runtime on each pinned thread, with its ring set up for one thread.

mod ring;

use std::io;

use clap::Parser;
use common::echo::Arguments;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};

/// Sends back whatever it receives.
#[derive(Parser)]
struct All {
    #[command(flatten)]
    shared: Arguments,
    /// Sets up the ring as monoio does by itself.
    #[arg(long)]
    as_shipped: bool,
}

fn main() -> io::Result<()> {
    let All { shared, as_shipped } = All::parse();
    let buffer = shared.buffer;
    shared.place.serve(move |listener| {
        let ring = if as_shipped {
            io_uring::IoUring::builder()
        } else {
            ring::tuned()
        };
        ring::build(ring).block_on(accept(listener, buffer))
    })
}

async fn accept(listener: std::net::TcpListener, buffer: usize) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        monoio::spawn(echo(stream, buffer));
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(buffer);
    loop {
        let (read, back) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        // The vector is as long as what was read, and the next read overwrites it from the start.
        let (written, back) = stream.write_all(back).await;
        written?;
        buffer = back;
    }
}
