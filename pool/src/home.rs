//! The sessions of one core, as calls find them there.
//!
//! A session never leaves the core that opened it. Its owner puts it here when it is open and takes it back
//! to close it; in between calls borrow it. A call is a scope of its own, which the owner can cancel.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use quoit::sync::Event;
use quoit::{CancelHandle, Cancelled, CarriesCancelled, Scope};

use crate::CallError;
use crate::registry::{Line, PoolId};
use crate::state::EntryId;

thread_local! {
    static HERE: RefCell<BTreeMap<(PoolId, EntryId), Rc<dyn Any>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A session on its core.
#[derive(Debug)]
pub(crate) struct Home<T> {
    session: T,
    /// The calls that are running, by number.
    calls: RefCell<BTreeMap<u64, CancelHandle>>,
    next_call: Cell<u64>,
    /// There are no more calls.
    is_closed: Cell<bool>,
    /// Set when the last call has ended after that.
    quiet: Event,
}

impl<T: 'static> Home<T> {
    /// Lets calls find a session.
    pub(crate) fn open(place: (PoolId, EntryId), session: T) -> Rc<Self> {
        let home = Rc::new(Self {
            session,
            calls: RefCell::default(),
            next_call: Cell::new(0),
            is_closed: Cell::new(false),
            quiet: Event::new(),
        });
        let erased: Rc<dyn Any> = Rc::<Self>::clone(&home);
        HERE.with_borrow_mut(|here| here.insert(place, erased));
        home
    }

    /// Finds a session of this core.
    fn find(place: (PoolId, EntryId)) -> Option<Rc<Self>> {
        let home = HERE.with_borrow(|here| here.get(&place).cloned())?;
        Some(home.downcast().expect("a pool has sessions of one type"))
    }

    pub(crate) fn session(&self) -> &T {
        &self.session
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        self.note_quiet();
    }

    fn note_quiet(&self) {
        if self.is_closed.get() && self.calls.borrow().is_empty() {
            self.quiet.set();
        }
    }

    /// Waits until the last call has ended, of a home that is closed.
    pub(crate) async fn quiet(&self) -> Result<(), Cancelled> {
        self.quiet.wait().await
    }

    /// Cancels the calls that are running.
    pub(crate) fn cancel_calls(&self) {
        let calls: Vec<_> = self.calls.borrow().values().copied().collect();
        for call in calls {
            call.cancel();
        }
    }

    /// Takes the session back, for its end.
    ///
    /// # Errors
    ///
    /// The home, if a call still runs.
    pub(crate) fn take(self: Rc<Self>) -> Result<T, Rc<Self>> {
        Rc::try_unwrap(self).map(|home| home.session)
    }
}

/// Makes calls find a session no more.
pub(crate) fn forget(place: (PoolId, EntryId)) {
    // A thread that ends has none.
    let home = HERE.try_with(|here| here.borrow_mut().remove(&place));
    drop(home);
}

/// One call that is running.
struct Call<T: 'static> {
    home: Rc<Home<T>>,
    number: u64,
}

impl<T: 'static> Drop for Call<T> {
    fn drop(&mut self) {
        self.home.calls.borrow_mut().remove(&self.number);
        self.home.note_quiet();
    }
}

/// Runs a call on a session of this core.
pub(crate) async fn call<T, R, E>(
    place: (PoolId, EntryId),
    line: &Line,
    body: impl AsyncFnOnce(&T) -> Result<R, E>,
) -> Result<R, E>
where
    T: 'static,
    E: From<CallError> + CarriesCancelled,
{
    let home = Home::<T>::find(place).filter(|home| !home.is_closed.get());
    let Some(home) = home else {
        return Err(line.fate().into());
    };
    let scope = Scope::new();
    let number = home.next_call.replace(home.next_call.get() + 1);
    home.calls.borrow_mut().insert(number, scope.handle());
    let call = Call { home, number };
    match scope.run(body(&call.home.session)).await {
        Ok(Some(value)) => Ok(value),
        // The owner has cancelled it.
        Ok(None) => Err(line.fate().into()),
        Err(error) => Err(error),
    }
}
