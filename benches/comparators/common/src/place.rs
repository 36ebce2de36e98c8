//! Where a server listens: listeners that exist before any thread starts, and pinned threads.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use clap::Args;
use socket2::{Domain, Protocol, Socket, Type};

/// An address, and the threads that serve it.
#[derive(Args, Debug, Clone)]
pub struct Place {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7000")]
    pub listen: SocketAddr,
    /// Which processors to use, such as 0,1: a pinned thread each.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub cores: Vec<usize>,
}

impl Place {
    /// Listens, once for each core.
    ///
    /// Where there are several, they share the port by SO_REUSEPORT. The sockets block.
    ///
    /// # Errors
    ///
    /// If the address cannot be had.
    pub fn listeners(&self) -> io::Result<Vec<TcpListener>> {
        listeners(self.listen, self.cores.len())
    }

    /// Listens, says where, and runs `serve` on a pinned thread for each core, with its listener.
    ///
    /// # Errors
    ///
    /// If the address cannot be had, or `serve` returns one.
    ///
    /// # Panics
    ///
    /// If `serve` does, or a core cannot be had.
    pub fn serve(
        &self,
        serve: impl Fn(TcpListener) -> io::Result<()> + Clone + Send + 'static,
    ) -> io::Result<()> {
        let listeners = self.listeners()?;
        say(&listeners)?;
        let threads = self.cores.iter().zip(listeners).map(|(&core, listener)| {
            let serve = serve.clone();
            thread::spawn(move || {
                crate::pin(core);
                serve(listener)
            })
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    }
}

/// Says where it is listened, so that whoever started this may begin.
///
/// # Errors
///
/// If nobody can be told.
///
/// # Panics
///
/// If there is no listener.
pub fn say(listeners: &[TcpListener]) -> io::Result<()> {
    println!("listening on {}", listeners[0].local_addr()?);
    io::stdout().flush()
}

fn listeners(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut address = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(count > 1)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        let listener = TcpListener::from(socket);
        // Where the kernel chose the port, the others take the same.
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}
