//! What waits in the scripts of `cancels`, and what it waits for.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use quoit::op::{self, Listener, SharedFd, Socket, Stream};

use tests::beside_another;

use crate::outcome::{Outcome, within};
use crate::streams::connected;

/// What waits, and for what.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject {
    PipeRead,
    /// Waits for room in a full pipe.
    PipeWrite,
    PipePoll,
    SocketReceive,
    StreamReceive,
    Accept,
}

pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// Where the op is, and where what it waits for comes from.
pub(crate) enum Ends {
    Pipe(SharedFd, SharedFd),
    Sockets(Rc<Stream>, Rc<Stream>),
    Listens(Rc<Listener>),
}

impl Subject {
    pub(crate) async fn ends(self) -> Ends {
        match self {
            Self::PipeRead | Self::PipePoll => {
                let (reads, writes) = op::pipe().expect("a pipe");
                Ends::Pipe(reads, writes)
            }
            Self::PipeWrite => {
                let (reads, writes) = op::pipe().expect("a pipe");
                let mut left = 65_536;
                while left > 0 {
                    // Under a fault it may take less at once.
                    left -= op::write(&writes, vec![1; left]).await.0.expect("room");
                }
                Ends::Pipe(reads, writes)
            }
            Self::SocketReceive | Self::StreamReceive => {
                let [ours, theirs] = connected().await;
                Ends::Sockets(Rc::new(ours), Rc::new(theirs))
            }
            Self::Accept => {
                let any = "127.0.0.1:0".parse().expect("an address");
                let socket = Socket::tcp(any).expect("a socket");
                socket.bind(any).expect("a free port");
                socket.listen(4).expect("a bound socket listens");
                Ends::Listens(Rc::new(Listener::new(socket)))
            }
        }
    }

    pub(crate) fn op(self, ends: &Ends) -> Running {
        match (self, ends) {
            (Self::PipeRead, Ends::Pipe(reads, _)) => {
                let reads = reads.clone();
                Box::pin(async move { Outcome::read(op::read(&reads, vec![0; 1]).await) })
            }
            (Self::PipeWrite, Ends::Pipe(_, writes)) => {
                let writes = writes.clone();
                Box::pin(async move { Outcome::counted(op::write(&writes, vec![2; 100]).await.0) })
            }
            (Self::PipePoll, Ends::Pipe(reads, _)) => {
                let reads = reads.clone();
                Box::pin(async move {
                    let ready = op::poll(&reads, libc::POLLIN as u32).await;
                    ready.map(|ready| Outcome::Count(ready.into())).into()
                })
            }
            (Self::SocketReceive, Ends::Sockets(ours, _)) => {
                let ours = Rc::clone(ours);
                Box::pin(
                    async move { Outcome::read(op::receive_into(&ours.fd(), vec![0; 1]).await) },
                )
            }
            (Self::StreamReceive, Ends::Sockets(ours, _)) => {
                let ours = Rc::clone(ours);
                Box::pin(async move {
                    let received = ours.receive().await;
                    let received = received.map(|chunk| match chunk {
                        Some(chunk) => Outcome::bytes(&chunk),
                        None => Outcome::said("end"),
                    });
                    received.into()
                })
            }
            (Self::Accept, Ends::Listens(listener)) => {
                let listener = Rc::clone(listener);
                Box::pin(async move { Outcome::done(listener.accept().await) })
            }
            _ => unreachable!("made for each other"),
        }
    }

    /// What the op waits for.
    pub(crate) fn event(self, ends: &Ends) -> Running {
        match (self, ends) {
            (Self::PipeWrite, Ends::Pipe(reads, _)) => {
                let reads = reads.clone();
                Box::pin(async move { Outcome::counted(op::read(&reads, vec![0; 4096]).await.0) })
            }
            (_, Ends::Pipe(_, writes)) => {
                let writes = writes.clone();
                Box::pin(async move {
                    // By the ring on every kernel: not all write to a pipe without it.
                    beside_another();
                    Outcome::counted(op::write(&writes, vec![1]).await.0)
                })
            }
            (_, Ends::Sockets(_, theirs)) => {
                let theirs = Rc::clone(theirs);
                Box::pin(async move { Outcome::done(theirs.send_all(vec![1]).await.0) })
            }
            (_, Ends::Listens(listener)) => {
                let address = listener.local_addr().expect("it is bound");
                Box::pin(async move {
                    let socket = Socket::tcp(address).expect("a socket");
                    Outcome::done(Stream::connect(socket, address.into()).await)
                })
            }
        }
    }

    /// What somebody finds who comes later.
    pub(crate) async fn later(self, ends: &Ends, patience: Duration) -> Outcome {
        match (self, ends) {
            (Self::PipeWrite, Ends::Pipe(reads, _)) => {
                let mut total = 0;
                loop {
                    let read = async { Outcome::counted(op::read(reads, vec![0; 70_000]).await.0) };
                    match within(patience, read).await {
                        Outcome::Count(count) => total += count,
                        // All that was in it.
                        Outcome::Waits => return Outcome::Count(total),
                        other => return other,
                    }
                }
            }
            (_, Ends::Pipe(reads, _)) => {
                let read = async { Outcome::read(op::read(reads, vec![0; 10]).await) };
                within(patience, read).await
            }
            (Self::SocketReceive, Ends::Sockets(ours, _)) => {
                let received =
                    async { Outcome::read(op::receive_into(&ours.fd(), vec![0; 10]).await) };
                within(patience, received).await
            }
            _ => within(patience, self.op(ends)).await,
        }
    }
}
