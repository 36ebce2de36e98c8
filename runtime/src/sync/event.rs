//! `Event`: something happened, and stays so.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::wait_list::{Place, WaitList};
use crate::scope::Cancelled;

/// Something that happens once, and that any number of tasks of a core may wait for.
///
/// ```
/// use std::rc::Rc;
/// use quoit::sync::Event;
///
/// quoit::block_on(async {
///     let ready = Rc::new(Event::new());
///     let waiter = quoit::spawn({
///         let ready = Rc::clone(&ready);
///         async move { ready.wait().await }
///     });
///     ready.set();
///     waiter.await.expect("the task ended").expect("nobody cancelled it");
/// })?;
/// # Ok::<_, quoit::BuildError>(())
/// ```
#[derive(Debug, Default)]
pub struct Event {
    set: Cell<bool>,
    waiters: WaitList,
}

impl Event {
    /// Makes an event that has not happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// It has happened: wakes all who wait, and lets pass all who come.
    pub fn set(&self) {
        self.set.set(true);
        self.waiters.wake_all();
    }

    /// Returns whether it has happened.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Waits until it has happened.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], if a scope around is cancelled first.
    pub fn wait(&self) -> impl Future<Output = Result<(), Cancelled>> {
        Wait {
            event: self,
            place: Place::default(),
        }
    }
}

struct Wait<'a> {
    event: &'a Event,
    place: Place,
}

impl Future for Wait<'_> {
    type Output = Result<(), Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let is_there = || this.event.is_set();
        this.event.waiters.poll(&mut this.place, cx, is_there)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.event.waiters.leave(&mut self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CarriesCancelled, Scope};
    use std::time::Duration;

    #[test]
    fn a_wait_that_is_given_up_leaves_no_trace() {
        crate::block_on(async {
            let event = Event::new();
            let waited = Scope::new()
                .timeout(Duration::from_millis(1))
                .run(event.wait())
                .await;
            assert!(matches!(waited, Ok(None)));
            assert_eq!(event.waiters.len(), 0);
            event.set();
            assert!(event.wait().await.is_ok());
            assert_eq!(event.waiters.len(), 0);
        })
        .expect("a core");
    }

    #[test]
    fn an_event_that_has_happened_does_not_outvote_a_cancel() {
        crate::block_on(async {
            let event = Event::new();
            event.set();
            let scope = Scope::new();
            let handle = scope.handle();
            let body = async {
                handle.cancel();
                let refused = event.wait().await;
                assert!(refused.is_err_and(|error| error.cancelled().is_some()));
                Ok::<_, Cancelled>(())
            };
            assert_eq!(scope.run(body).await, Ok(Some(())));
        })
        .expect("a core");
    }
}
