//! TCP echo on glommio: an executor on each pinned thread.
//!
//! Nothing is tuned: what its documentation offers, spinning before it parks and a shorter time between looks at
//! the ring, costs processor time or throughput. A stream is read without a buffer of its own, as `TcpStream` is by
//! default.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};

use clap::Parser;
use common::echo::Arguments;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let buffer = arguments.buffer;
    arguments.place.serve(move |listener| {
        // The thread is pinned already.
        let executor = LocalExecutorBuilder::new(Placement::Unbound).make()?;
        executor.run(accept(listener, buffer))
    })
}

async fn accept(listener: std::net::TcpListener, buffer: usize) -> io::Result<()> {
    // SAFETY: the descriptor is ours, and is given away here.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    loop {
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        glommio::spawn_local(echo(stream, buffer)).detach();
    }
}

async fn echo(mut stream: TcpStream, buffer: usize) -> io::Result<()> {
    let mut buffer = vec![0; buffer];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read]).await?,
        }
    }
}
