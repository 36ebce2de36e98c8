//! What a connection weighs on which nothing happens: memory of a server that is another process.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quoit_net::TcpListener;

use super::requests;
use crate::outcome::say;
use crate::process::resident;

/// How many connections make what all share, and how many are weighed: together as many as programs may have that
/// nobody gave more descriptors than the usual 1024.
const FIRST: u32 = 64;
const CONNECTIONS: u32 = 832;

/// Serves echo until it is killed. Says where, in a line.
///
/// # Errors
///
/// Those of sockets and of the ring.
pub fn serve() -> io::Result<()> {
    // Memory is weighed, not how the machine was set to hand it out.
    rustix::thread::disable_transparent_huge_pages(true)?;
    quoit::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        say(format_args!("{}\n", listener.local_addr()))?;
        requests::serve_echo(listener).await;
        Ok(())
    })?
}

/// A server that ends with its owner.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server, which calls [`serve`], and returns how many bytes of its memory each of many connections keeps.
/// Each was used once.
///
/// # Errors
///
/// Those of starting it and of sockets; too few descriptors, of which `limit` are allowed.
pub fn bytes_per_connection(program: &Path, arguments: &[&str], limit: u64) -> io::Result<f64> {
    // Beside the connections: what a program has open anyway.
    let needed = u64::from(FIRST + CONNECTIONS + 64);
    if limit < needed {
        return Err(io::Error::other(format!(
            "idle connections need {needed} descriptors, and {limit} are allowed: `ulimit -n {needed}` allows them"
        )));
    }
    let mut started = Command::new(program);
    started.args(arguments).stdout(Stdio::piped());
    let mut server = Server(started.spawn()?);
    let said = server.0.stdout.take().expect("a pipe was asked for");
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    let address: SocketAddr = line.trim().parse().map_err(|_| {
        io::Error::other(format!("the server should say where it listens: {line:?}"))
    })?;
    // The first few make what all share.
    let first: io::Result<Vec<_>> = (0..FIRST).map(|_| used(address)).collect();
    let first = first?;
    let before = resident(server.0.id())?;
    let more: io::Result<Vec<_>> = (0..CONNECTIONS).map(|_| used(address)).collect();
    let more = more?;
    let after = resident(server.0.id())?;
    drop((first, more));
    Ok(after.saturating_sub(before) as f64 / f64::from(CONNECTIONS))
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects, says something and hears it.
fn used(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = [7; 64];
    stream.write_all(&bytes)?;
    stream.read_exact(&mut bytes)?;
    Ok(stream)
}
