//! One core of a server, from its first connection to its last.
//!
//! One task accepts, from all addresses; each connection is a task. When the server drains, the accept
//! loop's scope is cancelled, and the task goes on to wait for the connections.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use quoit::op::{SharedFd, Stream};
use quoit::sync::Event;
use quoit::time::sleep;
use quoit::{CarriesCancelled, Scope};

use super::connection::{self, Client, Site};
use super::listen::Door;
use super::server::{Report, Shared};
use super::trouble::{Listener, Trouble};
use super::{BoxError, Incoming};

/// The connections of one core.
#[derive(Debug, Default)]
struct Connections {
    open: Cell<u64>,
    draining: Cell<bool>,
    /// Set when the last has ended after `draining`.
    none_left: Event,
}

/// Counts one connection as long as it is open.
struct Open(Rc<Connections>);

impl Open {
    fn new(connections: &Rc<Connections>) -> Self {
        connections.open.set(connections.open.get() + 1);
        Self(Rc::clone(connections))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let open = self.0.open.get() - 1;
        self.0.open.set(open);
        if open == 0 && self.0.draining.get() {
            self.0.none_left.set();
        }
    }
}

/// Serves on this core until the server drains, and until its connections have ended or were cut.
pub(super) async fn serve<H, F, B, E>(
    doors: Vec<Door>,
    site: Rc<Site<H>>,
    shared: &Shared,
) -> io::Result<Report>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
    E: Into<BoxError> + 'static,
{
    let connections = Rc::new(Connections::default());
    let begin = |(stream, client): (Stream, Client)| {
        let (open, site) = (Open::new(&connections), Rc::clone(&site));
        drop(quoit::spawn(async move {
            let _open = open;
            let peer = client.address.clone();
            if let Err(error) = connection::serve(stream, client, Rc::clone(&site)).await
                && !connection::is_ordinary_end(&*error)
            {
                let (peer, error) = (&peer, &error);
                site.listener.tell(&Trouble::Connection { peer, error });
            }
        }));
    };
    let accepting = Scope::new();
    shared.accepting(accepting.handle());
    accepting
        .run(accept(&doors, &begin, &site.listener))
        .await?;
    // Those that were made and not yet begun are answered as well.
    for door in doors {
        door.finish().await.into_iter().for_each(&begin);
    }
    let at_start = connections.open.get();
    connections.draining.set(true);
    site.draining.begin(shared.grace());
    if at_start > 0 {
        let _: Option<()> = Scope::new()
            .timeout(shared.grace())
            .run(connections.none_left.wait())
            .await?;
    }
    let cut = connections.open.get();
    Ok(Report {
        finished: at_start - cut.min(at_start),
        cut,
    })
}

async fn accept(
    doors: &[Door],
    begin: &impl Fn((Stream, Client)),
    trouble: &Listener,
) -> io::Result<()> {
    let mut pause = PAUSE;
    let mut turn = 0_usize;
    loop {
        turn = turn.wrapping_add(1);
        match next(doors, turn).await {
            Ok((door, fd)) => {
                pause = PAUSE;
                // One that has gone already has no address, and nothing to be served.
                if let Some(met) = door.meet(fd) {
                    begin(met);
                }
            }
            Err(error) if error.cancelled().is_some() => return Err(error),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // No descriptor or no memory: connections wait in the kernel until there is.
                let error = &error;
                trouble.tell(&Trouble::Accept { error, pause });
                sleep(pause).await?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Waits for a connection at any of the doors. Of those where one waits `first` comes first.
async fn next(doors: &[Door], first: usize) -> io::Result<(&Door, SharedFd)> {
    if let [door] = doors {
        return Ok((door, door.listener.accept().await?));
    }
    // An accept that is dropped loses nothing: what came meanwhile is there for the next.
    let in_order = doors.iter().cycle().skip(first % doors.len());
    let mut accepts: Vec<_> = in_order
        .take(doors.len())
        .map(|door| (door, Box::pin(door.listener.accept())))
        .collect();
    poll_fn(|cx| {
        for (door, accept) in &mut accepts {
            if let Poll::Ready(accepted) = accept.as_mut().poll(cx) {
                return Poll::Ready(accepted.map(|fd| (*door, fd)));
            }
        }
        Poll::Pending
    })
    .await
}

const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// An error of the connection that was accepted, and not of accepting (`accept(2)`).
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}
