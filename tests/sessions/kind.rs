//! Sessions that do as the name of their server says, and note what is done with them.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{Cancelled, CoreId, Scope};
use quoit_pool::{Builder, Key, SessionPool, Sessions};

/// How long `slow` takes to open.
pub(crate) const SLOW: Duration = Duration::from_millis(50);

/// What has happened to the sessions of a pool, in all.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) opened: AtomicUsize,
    pub(crate) closed: AtomicUsize,
    /// Openings that were given up or failed, and have cleaned up.
    pub(crate) cleaned: AtomicUsize,
    /// Sessions whose value is gone.
    pub(crate) dropped: AtomicUsize,
    /// `late` may open.
    pub(crate) let_in: AtomicBool,
    /// Where each was opened and closed, in order.
    pub(crate) places: Mutex<Vec<(&'static str, Option<CoreId>)>>,
}

impl Seen {
    fn note(&self, what: &'static str) {
        let mut places = self.places.lock().expect("nobody panics with it");
        places.push((what, CoreId::current()));
    }

    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    pub(crate) fn closed(&self) -> usize {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn cleaned(&self) -> usize {
        self.cleaned.load(Ordering::Relaxed)
    }

    pub(crate) fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The sessions. By the name of the server:
///
/// - `slow` opens in 50 ms; `hangs` never does; `late` opens when it is let, whoever cancels it.
/// - `fails` fails after 20 ms and takes 30 ms to clean up; `panics` panics.
/// - `lingers` takes a second to close; `stubborn` does not close until it is cancelled.
/// - All others open and close at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kind {
    pub(crate) seen: Arc<Seen>,
}

/// A session, with what a test does to it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: usize,
    pub(crate) home: Option<CoreId>,
    /// The peer goes when this is set.
    pub(crate) gone: Event,
    /// The owner panics when this is set.
    pub(crate) panics: Event,
    /// What a look at it finds; `None`: the look panics.
    pub(crate) fit: Cell<Option<bool>>,
    seen: Arc<Seen>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.seen.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts an opening that comes to nothing, when it has cleaned up.
async fn clean_up(seen: &Seen, takes: Duration) {
    let cleaning = Scope::new().shielded();
    cleaning
        .run(async {
            sleep(takes).await?;
            Ok::<_, Cancelled>(())
        })
        .await
        .expect("nobody cancels it");
    seen.note("cleaned");
    seen.cleaned.fetch_add(1, Ordering::Relaxed);
}

impl Sessions for Kind {
    type Session = Session;
    type Error = io::Error;

    async fn open(&self, key: &Key) -> io::Result<Session> {
        let seen = &self.seen;
        match key.server() {
            "slow" => sleep(SLOW).await?,
            "hangs" => {
                let waited = Event::new().wait().await;
                clean_up(seen, Duration::from_millis(10)).await;
                waited?;
            }
            "late" => {
                let late = Scope::new().shielded();
                let wait = async {
                    while !seen.let_in.load(Ordering::Relaxed) {
                        sleep(Duration::from_millis(1)).await?;
                    }
                    Ok::<_, Cancelled>(())
                };
                late.run(wait).await?;
            }
            "fails" => {
                sleep(Duration::from_millis(20)).await?;
                clean_up(seen, Duration::from_millis(30)).await;
                return Err(io::Error::other("the server is out of order"));
            }
            "panics" => panic!("the server cannot be opened"),
            _ => {}
        }
        seen.note("opened");
        Ok(Session {
            number: seen.opened.fetch_add(1, Ordering::Relaxed),
            home: CoreId::current(),
            gone: Event::new(),
            panics: Event::new(),
            fit: Cell::new(Some(true)),
            seen: Arc::clone(seen),
        })
    }

    async fn close(&self, key: &Key, session: Session) -> Result<(), Cancelled> {
        assert_eq!(
            CoreId::current(),
            session.home,
            "closed where it was opened"
        );
        let ended = match key.server() {
            "lingers" => sleep(Duration::from_secs(1)).await,
            "stubborn" => Event::new().wait().await,
            _ => Ok(()),
        };
        self.seen.note("closed");
        self.seen.closed.fetch_add(1, Ordering::Relaxed);
        ended
    }

    async fn gone(&self, session: &Session) {
        let panics = async {
            session.panics.wait().await?;
            panic!("the owner was told to");
        };
        let gone = async {
            session.gone.wait().await?;
            Ok::<_, Cancelled>(())
        };
        let _ = quoit::race(panics, gone).await;
    }

    async fn is_fit(&self, session: &Session) -> bool {
        settle().await;
        match session.fit.get() {
            Some(is_fit) => is_fit,
            None => std::panic::resume_unwind(Box::new("nobody can tell")),
        }
    }
}

/// A pool of them, and what happens to its sessions.
pub(crate) fn pool() -> (SessionPool<Kind>, Arc<Seen>) {
    pool_of(|builder| builder)
}

/// A pool that is set up so.
pub(crate) fn pool_of(
    set_up: impl FnOnce(Builder<Kind>) -> Builder<Kind>,
) -> (SessionPool<Kind>, Arc<Seen>) {
    let kind = Kind::default();
    let seen = Arc::clone(&kind.seen);
    let pool = set_up(SessionPool::builder(kind)).build();
    (pool.expect("it is set up right"), seen)
}

/// Returns the number of a leased session.
pub(crate) async fn number(lease: &quoit_pool::Lease<Kind>) -> usize {
    let number = lease.call(async |session| Ok::<_, quoit_pool::CallError>(session.number));
    number.await.expect("the session is open")
}

/// Lets as many tasks go first as are ready now, a few times over.
pub(crate) async fn settle() {
    for _ in 0..20 {
        quoit::yield_uncancellable().await;
    }
}

/// How long something took.
pub(crate) async fn timed<T>(body: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let value = body.await;
    (value, begun.elapsed())
}
