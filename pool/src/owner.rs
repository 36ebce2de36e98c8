//! The one task that opens a session, keeps it, and closes it.
//!
//! ```text
//!   open ──► put it where calls find it ──► wait: told to end, peer gone, too old, unused, shutdown
//!     │ fails, or is told to end                       │
//!     ▼                                                ▼
//!   clean up, say so                 no more calls ──► those that run end ──► close ──► say so
//! ```
//!
//! It runs at its core's root, below no caller. Everybody else only signals.
//!
//! Invariants:
//! - Whatever ends it, a panic or its core among them, the registry hears of it once, and last.
//! - The session is closed by this task: not when the opening was overtaken, not when a caller has gone.

use std::any::Any;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use quoit::time::{Alarm, Instant};
use quoit::{Cancelled, CarriesCancelled, CoreId, Scope, run_until_cancelled};

use crate::home::{self, Home};
use crate::registry::{Line, Registry};
use crate::state::{End, EntryId, Failure, Place};
use crate::{CallError, Key, Sessions};

/// Starts the owner of an entry, on this core.
pub(crate) fn start<S: Sessions>(
    registry: &Arc<Registry<S>>,
    entry: EntryId,
    key: Key,
    place: Place,
) {
    let here = CoreId::current().expect("whoever leases is on a core");
    let Some(line) = registry.open_line(entry, here) else {
        // It was closed before it had begun, and nobody is to be told.
        registry.step(|state, now| state.ended(entry, now));
        return;
    };
    let life = Life {
        registry: Arc::clone(registry),
        entry,
        line: Arc::clone(&line),
        home: None,
    };
    drop(quoit::spawn(own(life, line, key, place)));
}

/// Says that the owner has ended, however it did.
struct Life<S: Sessions> {
    registry: Arc<Registry<S>>,
    entry: EntryId,
    line: Arc<Line>,
    /// Where calls find the session, once it is open.
    home: Option<Rc<Home<S::Session>>>,
}

impl<S: Sessions> Life<S> {
    fn place(&self) -> (u64, EntryId) {
        (self.registry.id, self.entry)
    }
}

impl<S: Sessions> Drop for Life<S> {
    fn drop(&mut self) {
        // Last, also if a session panics as it is dropped.
        let _said = Said {
            registry: &self.registry,
            entry: self.entry,
        };
        home::forget((self.registry.id, self.entry));
        if let Some(home) = self.home.take() {
            // Its core drops it in the middle.
            self.line.note_fate(CallError::CoreGone);
            home.close();
            home.cancel_calls();
        }
    }
}

/// Lets the registry hear that an owner has ended.
struct Said<'a, S: Sessions> {
    registry: &'a Registry<S>,
    entry: EntryId,
}

impl<S: Sessions> Drop for Said<'_, S> {
    fn drop(&mut self) {
        let entry = self.entry;
        self.registry.step(|state, now| state.ended(entry, now));
    }
}

async fn own<S: Sessions>(mut life: Life<S>, line: Arc<Line>, key: Key, place: Place) {
    let registry = Arc::clone(&life.registry);
    let Some(session) = open(&life, &line, &key, place).await else {
        return;
    };
    let home = Home::open(life.place(), session);
    life.home = Some(Rc::clone(&home));
    let entry = life.entry;
    let accepted = registry.step(|state, now| state.opened(entry, now));
    if accepted && let Err(panicked) = caught(keep(&life, &line, &home)).await {
        line.note_fate(CallError::OwnerPanicked(text_of(&*panicked)));
        registry.step(|state, now| state.take_out(entry, End::Retired, now));
    }
    home::forget(life.place());
    end(&mut life, home, &key).await;
}

/// Opens the session; `None` if there is none, and all who waited have been told.
async fn open<S: Sessions>(
    life: &Life<S>,
    line: &Line,
    key: &Key,
    place: Place,
) -> Option<S::Session> {
    let (registry, entry) = (&life.registry, life.entry);
    let timeout = registry.times.open_timeout;
    let scope = Scope::new().timeout(timeout);
    line.cancels(Some(scope.handle()));
    // Also what it does before there is a future.
    let opened = caught(async { scope.run(registry.sessions.open(key)).await }).await;
    line.cancels(None);
    let failure = match opened {
        Ok(Ok(Some(session))) => return Some(session),
        Ok(Ok(None)) => Failure::TimedOut(timeout),
        // Our own cancel is the core's; one that comes from elsewhere is a failure like any other.
        Ok(Err(error)) if error.cancelled().is_some() && quoit::is_cancelled() => {
            registry.step(|state, now| state.open_aborted(entry, place, now));
            return None;
        }
        Ok(Err(error)) => Failure::Error(Arc::new(error)),
        Err(panicked) => Failure::Panicked(text_of(&*panicked)),
    };
    // A system without random numbers backs off without jitter.
    let jitter = (quoit::random().unwrap_or_default() % 1024) as u32;
    registry.step(|state, now| state.open_failed(entry, &failure, jitter, now));
    None
}

/// Keeps the session until it is to end.
async fn keep<S: Sessions>(life: &Life<S>, line: &Line, home: &Home<S::Session>) {
    let (registry, entry) = (&life.registry, life.entry);
    let look = || registry.step(|state, now| state.look(entry, now));
    let mut shutdown = pin!(run_until_cancelled(pending::<()>()));
    let mut gone = pin!(registry.sessions.gone(home.session()));
    let mut stopped = pin!(line.stopped());
    let mut has_gone = false;
    let mut alarm: Option<Alarm> = None;
    poll_fn(|cx| {
        if stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if shutdown.as_mut().poll(cx).is_ready() {
            line.note_fate(CallError::CoreGone);
            registry.step(|state, now| state.take_out(entry, End::Shutdown, now));
            return Poll::Ready(());
        }
        if !has_gone && gone.as_mut().poll(cx).is_ready() {
            has_gone = true;
            registry.step(|state, now| state.retire(entry, now));
        }
        loop {
            if let Some(alarm) = &mut alarm
                && Pin::new(alarm).poll(cx).is_pending()
            {
                break;
            }
            match look() {
                Some(at) => alarm = Some(Alarm::at(at)),
                None => {
                    registry.step(|state, now| state.retire(entry, now));
                    alarm = Some(Alarm::at(Instant::NEVER));
                }
            }
        }
        // What was just decided may have been that it is to end.
        match line.is_stopped() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// Closes the session: within the grace period, and after it at once.
async fn end<S: Sessions>(life: &mut Life<S>, home: Rc<Home<S::Session>>, key: &Key) {
    life.line.note_fate(CallError::Closed);
    home.close();
    life.home = None;
    let grace = life.registry.times.grace;
    let sessions = &life.registry.sessions;
    let begun = Instant::now();
    // Deaf to a shutdown, for no longer than the grace.
    let until = |deadline| Scope::new().shielded().deadline(deadline);
    let calls = until(begun + grace / 2);
    if !matches!(calls.run(home.quiet()).await, Ok(Some(()))) {
        home.cancel_calls();
        // They end as calls do that are cancelled; or not, if nobody polls them or they do not listen.
        let cancelled = until(begun + grace / 4 * 3);
        let _: Result<Option<()>, Cancelled> = cancelled.run(home.quiet()).await;
    }
    let goodbye = until(begun + grace);
    // It has ended, by itself or because its time was over; a panic in it is a task's, and told as such.
    let _: Result<Option<()>, Cancelled> = match home.take() {
        Ok(session) => goodbye.run(sessions.close(key, session)).await,
        // A call that is still there drops the session when it ends, or keeps it for ever if it was leaked.
        Err(home) => {
            let abandoning = async {
                sessions.abandon(key, home.session()).await;
                Ok(())
            };
            goodbye.run(abandoning).await
        }
    };
}

/// Runs the user's code; a panic in it comes back.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(payload) => Poll::Ready(Err(payload)),
        },
    )
    .await
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "with a value that is no text".to_owned()
    }
}
