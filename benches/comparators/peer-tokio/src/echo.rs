//! TCP echo on tokio: a current-thread runtime on each pinned thread, or one multi-thread runtime.
//!
//! Tasks are started by `tokio::spawn` in both: on a current-thread runtime that costs less than a
//! `LocalSet`. Nothing else is tuned; tokio's documentation advises no settings for this.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use common::echo::Arguments;
use common::place::{Place, say};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;

/// Sends back whatever it receives.
#[derive(Parser)]
struct All {
    #[command(flatten)]
    shared: Arguments,
    /// One runtime with a worker for each core, instead of a runtime each.
    #[arg(long)]
    multi_thread: bool,
}

fn main() -> io::Result<()> {
    let All {
        shared,
        multi_thread,
    } = All::parse();
    if multi_thread {
        return on_all(shared);
    }
    let buffer = shared.buffer;
    shared.place.serve(move |listener| {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(accept(listener, buffer))
    })
}

fn on_all(arguments: Arguments) -> io::Result<()> {
    let Place { listen, cores } = arguments.place;
    let one = Place {
        listen,
        cores: vec![0],
    };
    let mut listeners = one.listeners()?;
    say(&listeners)?;
    let started = AtomicUsize::new(0);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(cores.len())
        .on_thread_start(move || {
            // Relaxed: a number for each thread, and nothing is read by it.
            let number = started.fetch_add(1, Ordering::Relaxed);
            common::pin(cores[number % cores.len()]);
        })
        .enable_io()
        .build()?;
    // A task is scheduled on the workers; what is blocked on runs on this thread.
    let accepts = runtime.spawn(accept(listeners.remove(0), arguments.buffer));
    runtime.block_on(accepts).expect("no panic")
}

async fn accept(listener: std::net::TcpListener, buffer: usize) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo(stream, buffer));
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
