//! `race`: the first to end; the others are cancelled and awaited.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::{Cancelled, CarriesCancelled, GroupError, Reason, Scope};
use crate::task::current;

/// Runs two bodies, cancels the one that is not done when the other ends, and waits for it.
///
/// ```
/// use std::time::Duration;
/// use quoit::{Cancelled, race, time::sleep};
///
/// quoit::block_on(async {
///     let first = race(
///         async {
///             sleep(Duration::from_secs(3600)).await?;
///             Ok::<_, Cancelled>("slow")
///         },
///         async { Ok("fast") },
///     );
///     assert_eq!(first.await.unwrap(), "fast");
/// })?;
/// # Ok::<_, quoit::BuildError>(())
/// ```
///
/// Both run in the caller's task, so they may borrow. If both end in the same poll, the first in the
/// order of the arguments wins, and the other's value is dropped ([`race_with`] gets both).
///
/// # Errors
///
/// What failed: of the winner as well as of the loser's clean-up. A [`Cancelled`] from further out
/// is on its way there; but a value that one of the two ended with in spite of that is given.
pub async fn race<T, E: CarriesCancelled>(
    first: impl IntoFuture<Output = Result<T, E>>,
    second: impl IntoFuture<Output = Result<T, E>>,
) -> Result<T, GroupError<E>> {
    race_with(first, second, |winner, _| winner).await
}

/// As [`race`]; if both end with a value, `combine` makes one of them. It gets the winner's first.
///
/// # Errors
///
/// As for [`race`].
pub async fn race_with<T, E: CarriesCancelled>(
    first: impl IntoFuture<Output = Result<T, E>>,
    second: impl IntoFuture<Output = Result<T, E>>,
    combine: impl FnOnce(T, T) -> T,
) -> Result<T, GroupError<E>> {
    let scopes = [Scope::new(), Scope::new()];
    let mut first = pin!(scopes[0].run(first.into_future()));
    let mut second = pin!(scopes[1].run(second.into_future()));
    let mut outcomes = Outcomes::new();
    let mut open = [true, true];
    poll_fn(|cx| {
        for at in 0..2 {
            if !open[at] {
                continue;
            }
            let polled = match at {
                0 => first.as_mut().poll(cx),
                _ => second.as_mut().poll(cx),
            };
            if let Poll::Ready(outcome) = polled {
                open[at] = false;
                let grace = outcomes.add(outcome);
                lost(&scopes[1 - at], grace);
            }
        }
        // One that was polled before its rival ended has been woken by the cancel.
        if open == [false, false] {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    outcomes.result(combine)
}

/// As [`race`], for any number of bodies.
///
/// # Errors
///
/// As for [`race`].
///
/// # Panics
///
/// If there is no body: nobody would ever win.
pub async fn race_all<'a, T, E, B>(bodies: impl IntoIterator<Item = B>) -> Result<T, GroupError<E>>
where
    E: CarriesCancelled,
    B: IntoFuture<Output = Result<T, E>>,
    B::IntoFuture: 'a,
    T: 'a,
    E: 'a,
{
    type Branch<'a, T, E> = Pin<Box<dyn Future<Output = Result<Option<T>, E>> + 'a>>;
    let mut scopes = Vec::new();
    let mut branches: Vec<Option<Branch<'a, T, E>>> = Vec::new();
    for body in bodies {
        let scope = Rc::new(Scope::new());
        scopes.push(Rc::clone(&scope));
        let body = body.into_future();
        branches.push(Some(Box::pin(async move { scope.run(body).await })));
    }
    assert!(!branches.is_empty(), "a race needs somebody to win it");
    let mut outcomes = Outcomes::new();
    let mut decided = false;
    poll_fn(|cx| {
        for place in &mut branches {
            let Some(branch) = place else {
                continue;
            };
            if let Poll::Ready(outcome) = branch.as_mut().poll(cx) {
                *place = None;
                let grace = outcomes.add(outcome);
                if !std::mem::replace(&mut decided, true) {
                    for scope in &scopes {
                        lost(scope, grace);
                    }
                }
            }
        }
        if branches.iter().all(Option::is_none) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    outcomes.result(|winner, _| winner)
}

fn lost(scope: &Scope, grace: Duration) {
    scope.cancel_with(Reason::Lost, grace);
}

/// Returns how much grace has what the caller's scope is cancelled with.
fn grace_around() -> Duration {
    let left = current::with(|core| core.grace_left(core.active()));
    left.unwrap_or(Duration::ZERO)
}

/// What the branches ended with, in the order of their ends.
struct Outcomes<T, E> {
    values: Vec<T>,
    errors: Vec<E>,
    cancelled: Option<Cancelled>,
}

impl<T, E: CarriesCancelled> Outcomes<T, E> {
    fn new() -> Self {
        Self {
            values: Vec::new(),
            errors: Vec::new(),
            cancelled: None,
        }
    }

    /// Adds the outcome of a branch; returns how much grace its rivals have. One that a cancel from outside has ended
    /// has not won: they keep what that has left them.
    fn add(&mut self, outcome: Result<Option<T>, E>) -> Duration {
        let error = match outcome {
            Ok(value) => {
                self.values.extend(value);
                return Duration::ZERO;
            }
            Err(error) => error,
        };
        let cancelled = error.cancelled().filter(|cause| !cause.is_misuse());
        self.cancelled = self.cancelled.or(cancelled);
        let failure = match cancelled {
            Some(_) => error.rest().ok(),
            None => Some(error),
        };
        let has_failed = failure.is_some();
        self.errors.extend(failure);
        if has_failed {
            Duration::ZERO
        } else {
            grace_around()
        }
    }

    fn result(self, combine: impl FnOnce(T, T) -> T) -> Result<T, GroupError<E>> {
        if !self.errors.is_empty() {
            return Err(GroupError::new(self.errors, self.cancelled));
        }
        let mut values = self.values.into_iter();
        match (values.next(), values.next()) {
            (Some(winner), Some(other)) => Ok(combine(winner, other)),
            (Some(winner), None) => Ok(winner),
            (None, _) => Err(GroupError::new(Vec::new(), self.cancelled)),
        }
    }
}
