//! Panics of bodies: raised with a number, and known again by it.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::Poll;

use quoit::GroupPanic;

use super::failure::Outcome;
use super::plan::Plan;

/// What the bodies here panic with.
pub(super) struct Panic(pub(super) u32);

/// Catches a panic of a future, which is dropped before that is told.
pub(super) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut future: Pin<Box<Option<_>>> = Box::pin(Some(future));
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let running = future.as_mut().as_pin_mut().expect("until it ends");
            running.poll(cx)
        }));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => {
                future.set(None);
                Poll::Ready(Ok(value))
            }
            Err(payload) => {
                future.set(None);
                Poll::Ready(Err(payload))
            }
        }
    })
    .await
}

/// The number of a panic. One without is none of ours: something is broken.
pub(super) fn panic_number(plan: &Plan, payload: &(dyn Any + Send)) -> u32 {
    if let Some(Panic(number)) = payload.downcast_ref() {
        return *number;
    }
    let text = payload.downcast_ref::<String>().cloned().or_else(|| {
        payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
    });
    plan.with(|model| model.violated(format!("a panic that nobody has asked for: {text:?}")));
    0
}

/// Takes the panic of a group apart: the first one's number, how many others, how many failures.
pub(super) fn unfold(plan: &Plan, payload: Box<dyn Any + Send>) -> (u32, usize, usize) {
    match payload.downcast::<GroupPanic>() {
        Ok(group) => {
            let (others, failures) = (group.others().len(), group.failures());
            (unfold(plan, group.into_first()).0, others, failures)
        }
        Err(payload) => (panic_number(plan, &*payload), 0, 0),
    }
}

/// Tells what a body came to, and goes on with its panic.
pub(super) fn tell_panic(
    plan: &Plan,
    outcome: Result<Outcome, Box<dyn Any + Send>>,
    tell: impl FnOnce(Result<Outcome, u32>),
) -> Outcome {
    match outcome {
        Ok(outcome) => {
            tell(Ok(outcome.clone()));
            outcome
        }
        Err(payload) => {
            let number = panic_number(plan, &*payload);
            tell(Err(number));
            resume_unwind(payload)
        }
    }
}
