//! One listener per core on one port.
//!
//! Every listener that shares a port gets its part of the connections from the kernel, taken or
//! not. So all are made at once, for as many cores as there are, and each core takes its own.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use quoit::CoreId;
use quoit::op::Socket;

use crate::tcp::{TcpListener, TcpOptions};

/// A port that all cores of a runtime listen on.
///
/// ```no_run
/// use quoit::Runtime;
/// use quoit_net::ShardedListener;
///
/// let runtime = Runtime::builder().build()?;
/// let port = ShardedListener::bind("127.0.0.1:0".parse().unwrap(), &runtime.handle())?;
/// println!("listening on {}", port.local_addr());
/// runtime.run(move |core| {
///     let port = port.clone();
///     async move {
///         let listener = port.take(core)?;
///         let stream = listener.accept().await?;
///         stream.write_all("hello\n").await.0
///     }
/// })?;
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ShardedListener {
    shares: Arc<[Mutex<Option<Socket>>]>,
    local: SocketAddr,
}

impl ShardedListener {
    /// Listens on `address`, once for every core of the runtime. Each must [`take`](Self::take) its
    /// share, or the kernel gives connections to a listener that nobody serves.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)` and `listen(2)`, with the address in the message.
    pub fn bind(address: SocketAddr, runtime: &quoit::Handle) -> io::Result<Self> {
        Self::bind_with(address, runtime, &TcpOptions::new())
    }

    /// Listens with options; the port is shared whatever they say.
    ///
    /// # Errors
    ///
    /// As for [`ShardedListener::bind`].
    pub fn bind_with(
        address: SocketAddr,
        runtime: &quoit::Handle,
        options: &TcpOptions,
    ) -> io::Result<Self> {
        // Sharing a port must not mean to share it with a stranger of the same user: the first
        // listener has to get the port for itself, if it asks for a certain one.
        if address.port() != 0 {
            drop(options.clone().reuse_port(false).listen(address)?);
        }
        let options = options.clone().reuse_port(true);
        let first = options.listen(address)?;
        let local = first.local_addr()?;
        let mut shares = vec![Mutex::new(Some(first))];
        for _ in 1..runtime.cores().len() {
            shares.push(Mutex::new(Some(options.listen(local)?)));
        }
        Ok(Self {
            shares: shares.into(),
            local,
        })
    }

    /// Takes the share of a core; call it there, once.
    ///
    /// # Errors
    ///
    /// `NotFound` if it was taken already.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub fn take(&self, core: CoreId) -> io::Result<TcpListener> {
        let share = self
            .shares
            .get(core.index())
            .and_then(|share| share.lock().unwrap_or_else(PoisonError::into_inner).take());
        match share {
            Some(listener) => TcpListener::from_socket(listener),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("core {core} has taken its share of {} already", self.local),
            )),
        }
    }

    /// Returns the address, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}
