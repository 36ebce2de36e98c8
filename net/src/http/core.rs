//! One core of a server, from its first connection to its last.
//!
//! One task accepts, from all addresses; each connection is a task. Where as many are open as may be, it
//! waits for one to end, and the kernel is asked for no more: they wait in its queue, which is bounded as
//! well. When the server drains, the accept
//! loop's scope is cancelled, and the task goes on to wait for the connections.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use quoit::op::{SharedFd, Stream};
use quoit::sync::{Event, OwnedPermit, Semaphore};
use quoit::time::sleep;
use quoit::{CarriesCancelled, JoinHandle, Reason, Scope};

use super::activity::Activity;
use super::connection::{self, Client, Site};
use super::figures::Tally;
use super::handle::Shared;
use super::listen::{Appetite, Door};
use super::server::Report;
use super::trouble::{Listener, Trouble};
use super::{BoxError, Incoming};

/// The connections of one core.
#[derive(Debug)]
struct Connections {
    /// A permit for each that may be open.
    room: Rc<Semaphore>,
    /// Those that the kernel had given before there was room for them.
    held: RefCell<VecDeque<(Stream, Client)>>,
    /// By the number that each has.
    open: RefCell<BTreeMap<u64, Connection>>,
    next: Cell<u64>,
    draining: Cell<bool>,
    /// Set when the last has ended after `draining`.
    none_left: Event,
    tally: Arc<Tally>,
}

/// One that is open.
#[derive(Debug)]
struct Connection {
    task: JoinHandle<()>,
    /// What it is at.
    activity: Rc<Activity>,
}

impl Connections {
    fn count(&self) -> u64 {
        self.open.borrow().len() as u64
    }

    /// Cancels those that are left; returns how many of them owed their clients something.
    fn cut(&self) -> u64 {
        let left = std::mem::take(&mut *self.open.borrow_mut());
        let mut owing = 0;
        for Connection { task, activity } in left.values() {
            owing += u64::from(activity.is_owing());
            task.cancel_for(Reason::Shutdown);
        }
        owing
    }
}

/// Counts one connection as long as it is open.
struct Open {
    connections: Rc<Connections>,
    number: u64,
    _permit: OwnedPermit,
}

impl Open {
    fn new(connections: &Rc<Connections>, permit: OwnedPermit) -> Self {
        let number = connections.next.replace(connections.next.get() + 1);
        connections.tally.begin();
        Self {
            connections: Rc::clone(connections),
            number,
            _permit: permit,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let connections = &self.connections;
        let left = connections.open.borrow_mut().remove(&self.number);
        drop(left);
        connections.tally.end();
        if connections.open.borrow().is_empty() && connections.draining.get() {
            connections.none_left.set();
        }
    }
}

/// What a core serves with.
pub(super) struct Plan<H> {
    pub(super) doors: Vec<Door>,
    pub(super) site: Site<H>,
    pub(super) shared: Arc<Shared>,
}

/// Serves on this core until the server drains, and until its connections have ended or were cut.
pub(super) async fn serve<H, F, B, E>(plan: Plan<H>) -> io::Result<Report>
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, E>> + 'static,
    B: Body<Error: Into<BoxError>> + 'static,
    E: Into<BoxError> + 'static,
{
    let Plan {
        doors,
        site,
        shared,
    } = plan;
    let site = Rc::new(site);
    let tally = Arc::clone(&site.figures.tally);
    let connections = Rc::new(Connections {
        room: Rc::new(Semaphore::new(site.limits.max_connections)),
        held: RefCell::default(),
        open: RefCell::default(),
        next: Cell::new(0),
        draining: Cell::new(false),
        none_left: Event::new(),
        tally,
    });
    let begin = |(stream, client): (Stream, Client), permit: OwnedPermit| {
        let (open, site) = (Open::new(&connections, permit), Rc::clone(&site));
        let number = open.number;
        let activity = Rc::<Activity>::default();
        let seen = Rc::clone(&activity);
        let task = quoit::spawn(async move {
            let _open = open;
            let peer = client.address.clone();
            if let Err(error) = connection::serve(stream, client, seen, Rc::clone(&site)).await
                && !connection::is_ordinary_end(&*error)
                // hyper hands a cancellation on as a text, in HTTP/2.
                && !quoit::is_cancelled()
            {
                let (peer, error) = (&peer, &error);
                site.listener.tell(&Trouble::Connection { peer, error });
            }
        });
        // It begins in a turn of its own.
        let mut open = connections.open.borrow_mut();
        open.insert(number, Connection { task, activity });
    };
    let accepting = Scope::new();
    shared.accepting(accepting.handle());
    accepting
        .run(accept(&doors, &connections, &begin, &site.listener))
        .await?;
    // Those that were made and not yet begun are answered as well.
    let mut waiting = connections.held.take();
    for door in doors {
        waiting.extend(door.finish().await);
    }
    let at_start = connections.count() + waiting.len() as u64;
    site.draining.begin(shared.grace());
    let finishing = Scope::new().deadline(shared.deadline());
    shared.finishing(finishing.handle());
    let _: Option<()> = finishing
        .run(async {
            while let Some(met) = waiting.pop_front() {
                let permit = Rc::clone(&connections.room).acquire_owned();
                // In its place again if it is too late for it.
                match permit.await {
                    Ok(permit) => begin(met, permit),
                    Err(cancelled) => {
                        waiting.push_front(met);
                        return Err(cancelled);
                    }
                }
            }
            connections.draining.set(true);
            match connections.count() {
                0 => Ok(()),
                _ => connections.none_left.wait().await,
            }
        })
        .await?;
    let cut = connections.cut() + waiting.len() as u64;
    Ok(Report {
        finished: at_start - cut.min(at_start),
        cut,
    })
}

async fn accept(
    doors: &[Door],
    connections: &Connections,
    begin: &impl Fn((Stream, Client), OwnedPermit),
    trouble: &Listener,
) -> io::Result<()> {
    let mut pause = PAUSE;
    let mut turn = 0_usize;
    let mut asked = Appetite::All;
    loop {
        turn = turn.wrapping_add(1);
        let is_full = connections.room.available() == 0;
        if is_full {
            connections.tally.fill();
            hold(doors, connections).await;
        }
        let permit = Rc::clone(&connections.room).acquire_owned().await?;
        let held = connections.held.borrow_mut().pop_front();
        if let Some(met) = held {
            begin(met, permit);
            continue;
        }
        // Whoever asks for all is given some ahead: only who has room for those asks for them.
        let appetite = match connections.room.available() {
            ..AHEAD => Appetite::One,
            _ => Appetite::All,
        };
        if std::mem::replace(&mut asked, appetite) != appetite {
            hold(doors, connections).await;
        }
        if !connections.held.borrow().is_empty() {
            continue;
        }
        match next(doors, turn, appetite).await {
            Ok((door, fd)) => {
                pause = PAUSE;
                // One that has gone already has no address, and nothing to be served.
                if let Some(met) = door.meet(fd) {
                    begin(met, permit);
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

/// Leaves connections with the kernel. Those that it has given already are kept until there is room.
async fn hold(doors: &[Door], connections: &Connections) {
    for door in doors {
        let taken = door.pause().await;
        connections.held.borrow_mut().extend(taken);
    }
}

/// With fewer permits than this connections are accepted one by one.
const AHEAD: usize = 128;

/// Waits for a connection at any of the doors. Of those where one waits `first` comes first.
async fn next(doors: &[Door], first: usize, appetite: Appetite) -> io::Result<(&Door, SharedFd)> {
    if let [door] = doors {
        return Ok((door, door.accept(appetite).await?));
    }
    // An accept that is dropped loses nothing: what came meanwhile is there for the next.
    let in_order = doors.iter().cycle().skip(first % doors.len());
    let mut accepts: Vec<_> = in_order
        .take(doors.len())
        .map(|door| (door, Box::pin(door.accept(appetite))))
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
