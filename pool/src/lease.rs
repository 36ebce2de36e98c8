//! `Lease`: a session on loan.

use std::fmt;
use std::sync::Arc;

use quoit::{Cancelled, CarriesCancelled, CoreId, Remote, on};

use crate::registry::{Line, Registry};
use crate::state::EntryId;
use crate::{CallError, Key, Sessions, home};

/// A session on loan, until this is dropped.
///
/// A lease can be taken to any core and thread; the session stays where it was opened. [`Lease::call`]
/// reaches it from every core, [`Lease::call_here`] from its own without a detour.
pub struct Lease<S: Sessions> {
    registry: Arc<Registry<S>>,
    entry: EntryId,
    key: Key,
    line: Arc<Line>,
}

impl<S: Sessions> fmt::Debug for Lease<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.key)
            .field("home", &self.home())
            .finish_non_exhaustive()
    }
}

impl<S: Sessions> Lease<S> {
    pub(crate) fn new(
        registry: Arc<Registry<S>>,
        entry: EntryId,
        key: Key,
        line: Arc<Line>,
    ) -> Self {
        Self {
            registry,
            entry,
            key,
            line,
        }
    }

    /// Returns which session it is.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the core where the session lives.
    pub fn home(&self) -> CoreId {
        self.line.home()
    }

    /// Returns whether the session was opened on the core of the caller.
    pub fn is_here(&self) -> bool {
        CoreId::current() == Some(self.home())
    }

    /// Returns whether calls may still succeed: the session is open. It may be over by the next call.
    pub fn is_open(&self) -> bool {
        let entry = self.entry;
        self.registry.step(|state, _| state.is_open(entry))
    }

    /// Runs `body` with the session, on the session's core, and returns what it returns.
    ///
    /// On that core itself it is no more than a call; from others it goes by message. It is under the
    /// caller's scope as if it ran here: a cancel is passed on, once, and the call ends when the body has.
    /// If the session is closed meanwhile, the body is cancelled after half of the pool's
    /// [grace](crate::Builder::grace).
    ///
    /// # Errors
    ///
    /// The body's own, or a [`CallError`] in its place.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub async fn call<R, E>(
        &self,
        body: impl AsyncFnOnce(&S::Session) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<CallError> + CarriesCancelled + Send + 'static,
    {
        let place = (self.registry.id, self.entry);
        if self.is_here() {
            return home::call(place, &self.line, body).await;
        }
        let line = Arc::clone(&self.line);
        let far = move || async move {
            let outcome = home::call(place, &line, body).await;
            outcome.map_err(Far::Body)
        };
        on(self.home(), far).await.map_err(|error| match error {
            Far::Body(error) => error,
            Far::Cancelled(cancelled) => cancelled.into(),
            Far::Remote(Remote::Panicked(text)) => CallError::Panicked(text).into(),
            Far::Remote(_) => CallError::CoreGone.into(),
        })
    }

    /// Runs `body` with the session, which lives on this core. Nothing in it needs to be `Send`.
    ///
    /// # Errors
    ///
    /// The body's own, or a [`CallError`] in its place: [`CallError::Elsewhere`] on another core than the
    /// session's.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub async fn call_here<R, E>(
        &self,
        body: impl AsyncFnOnce(&S::Session) -> Result<R, E>,
    ) -> Result<R, E>
    where
        E: From<CallError> + CarriesCancelled,
    {
        if !self.is_here() {
            return Err(CallError::Elsewhere.into());
        }
        home::call((self.registry.id, self.entry), &self.line, body).await
    }

    /// Says that the session is of no use: nobody leases it any more, and it is closed when the last lease
    /// has been given back. For one whose state is not known after a call was cancelled in the middle.
    pub fn retire(&self) {
        let entry = self.entry;
        self.registry.step(|state, now| state.retire(entry, now));
    }
}

impl<S: Sessions> Lease<S> {
    /// Says that the session is fit, of a lease that had to look.
    pub(crate) fn prove(&self) {
        let entry = self.entry;
        self.registry.step(|state, _| state.proved(entry));
    }

    /// Returns whether somebody has closed the session, which has not ended for another reason.
    pub(crate) fn was_closed(&self) -> bool {
        self.line.is_stopped() && self.line.fate() == CallError::Closed
    }
}

impl<S: Sessions> Drop for Lease<S> {
    fn drop(&mut self) {
        let entry = self.entry;
        self.registry.step(|state, now| state.release(entry, now));
    }
}

/// How a call on another core ends.
enum Far<E> {
    Body(E),
    Cancelled(Cancelled),
    Remote(Remote),
}

impl<E> From<Cancelled> for Far<E> {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}

impl<E> From<Remote> for Far<E> {
    fn from(remote: Remote) -> Self {
        Self::Remote(remote)
    }
}

impl<E: CarriesCancelled> CarriesCancelled for Far<E> {
    fn cancelled(&self) -> Option<Cancelled> {
        match self {
            Self::Body(error) => error.cancelled(),
            Self::Cancelled(cancelled) => Some(*cancelled),
            Self::Remote(_) => None,
        }
    }

    fn rest(self) -> Result<Self, Self> {
        match self {
            Self::Body(error) => error.rest().map(Self::Body).map_err(Self::Body),
            Self::Cancelled(_) => Err(self),
            Self::Remote(_) => Ok(self),
        }
    }
}
