//! Several bodies of one task, in one scope: branches that wait beside each other.

use std::future::poll_fn;
use std::task::Poll;

use super::bodies::body;
use super::failure::{Failure, Outcome};
use super::ops::At;
use crate::workload::Dice;

/// Runs two or three bodies at once, to the end of each.
pub(super) async fn beside_each_other(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let mut inside = at.clone();
    inside.depth += 1;
    inside.has_company = true;
    let count = 2 + dice.roll(2);
    let mut branches: Vec<_> = (0..count)
        .map(|_| (body(inside.clone(), at.plan().dice()), None::<Outcome>))
        .collect();
    poll_fn(|cx| {
        for (branch, outcome) in &mut branches {
            if outcome.is_none()
                && let Poll::Ready(ended) = branch.as_mut().poll(cx)
            {
                *outcome = Some(ended);
            }
        }
        match branches.iter().all(|(_, outcome)| outcome.is_some()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    let outcomes = branches.into_iter().filter_map(|(_, outcome)| outcome);
    let first = outcomes.filter_map(Result::err).next();
    first.map_or(Ok(()), Err)
}
