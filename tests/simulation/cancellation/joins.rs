//! Handles of children: waited for, cancelled, dropped.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use quoit::{JoinError, JoinHandle};

use super::books::Told;
use super::failure::Failure;
use super::model::{Begun, Polled, task_number};
use super::ops::{At, Parked};
use super::panics::unfold;
use super::plan::{Plan, pick};
use super::reference::Node;
use super::waits::{Op, Until};
use crate::workload::Dice;

/// The handle of a child, and the wait for it.
#[derive(Debug)]
pub(super) struct Joining {
    plan: Arc<Plan>,
    task: Node,
    handle: Option<JoinHandle<u32, Failure>>,
    parked: Parked,
}

impl Drop for Joining {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            drop(handle);
            self.plan.with(|model| model.handle_dropped(self.task));
        }
    }
}

impl Joining {
    pub(super) fn new(at: &At, task: Node, handle: JoinHandle<u32, Failure>) -> Self {
        Self {
            plan: Arc::clone(&at.here.plan),
            task,
            handle: Some(handle),
            parked: Parked::new(at),
        }
    }

    /// Waits for the child. The wait outlives this call, if that is dropped.
    async fn join(&mut self, at: &At) -> Result<(), Failure> {
        let (task, core) = (self.task, at.here.index());
        let plan = Arc::clone(&self.plan);
        let told = poll_fn(|cx| {
            let Some(handle) = &mut self.handle else {
                return Poll::Ready(Ok(None));
            };
            let known = self.parked.id;
            plan.with(|model| match known {
                None => model.before_op(core, false),
                Some(id) => model.op_is_polled(id, core, at.scope),
            });
            let polled = pin!(handle).poll(cx);
            let came = match &polled {
                Poll::Pending => Polled::Pending,
                Poll::Ready(Err(JoinError::Cancelled(cancelled))) => Polled::Cancelled(*cancelled),
                Poll::Ready(_) => Polled::Done,
            };
            if let Some(id) = known {
                if came != Polled::Pending {
                    self.parked.id = None;
                    if std::mem::take(&mut self.parked.maybe_held) {
                        at.refusals.maybe_one();
                    }
                    plan.with(|model| model.op_ends(id, came));
                }
            } else {
                let op = Op::new("join", at.scope, core, Until::Told(task_number(task)));
                let held = at.refusals.held();
                if let Polled::Cancelled(_) = came {
                    at.refusals.add_one();
                }
                let begun = plan.with(|model| model.op_begins(op, came, held));
                match begun {
                    Begun::Parked(id) => self.parked.id = Some(id),
                    Begun::ParkedOrHeld(id) => {
                        at.refusals.maybe_one();
                        (self.parked.id, self.parked.maybe_held) = (Some(id), true);
                    }
                    Begun::Held => at.refusals.add_one(),
                    Begun::Over => {}
                }
            }
            polled.map(|told| match told {
                Err(JoinError::Cancelled(cancelled)) => Err(cancelled),
                told => Ok(Some(told)),
            })
        })
        .await?;
        let Some(told) = told else { return Ok(()) };
        drop(self.handle.take());
        let told = match told {
            Ok(value) => Told::Value(value),
            Err(JoinError::Reported) => Told::Reported,
            Err(JoinError::Failed(failure)) => Told::Failed(failure),
            Err(JoinError::Panicked(payload)) => Told::Panicked(unfold(&plan, payload).0),
            Err(JoinError::TaskCancelled(cancelled)) => Told::Cancelled(cancelled.reason()),
            Err(other) => {
                let text = format!("a handle told {other:?}");
                plan.with(|model| model.violated(text));
                return Ok(());
            }
        };
        plan.with(|model| model.handle_told(task, &told));
        Ok(())
    }

    /// Cancels the child alone.
    fn cancel(&self) {
        if let Some(handle) = &self.handle {
            handle.cancel();
            let (task, reason) = (self.task, quoit::Reason::Requested);
            self.plan
                .with(|model| model.cancel(task, reason, None, None));
        }
    }
}

/// Waits for all of them.
pub(super) async fn join_all(at: &At, joins: &mut Vec<Joining>) -> Result<(), Failure> {
    while let Some(mut joining) = joins.pop() {
        joining.join(at).await?;
    }
    Ok(())
}

/// Does something with a child that was started.
pub(super) async fn with_a_child(
    at: &At,
    joins: &mut Vec<Joining>,
    dice: &mut Dice,
) -> Result<(), Failure> {
    match dice.roll(6) {
        0 => drop(pick(joins, dice)),
        1 | 2 => {
            if let Some(joining) = joins.last() {
                joining.cancel();
            }
        }
        3 => {
            if let Some(joining) = joins.last()
                && let Some(handle) = joining.handle.as_ref().and_then(JoinHandle::cancel_handle)
            {
                at.plan().offer(handle, joining.task);
            }
        }
        _ => {
            // The wait is given up half-way, maybe, and taken up again.
            if let Some(joining) = joins.last_mut() {
                if dice.roll(3) == 0 {
                    let wait = pin!(joining.join(at));
                    if let Poll::Ready(ended) = tests::poll_once(wait).await {
                        return ended;
                    }
                } else {
                    joining.join(at).await?;
                }
            }
        }
    }
    Ok(())
}
