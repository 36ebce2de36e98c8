//! What a body leaves behind when it ends: tasks that its scope waits for, and destructors that ask what is cancelled.

use std::rc::Rc;
use std::sync::Arc;

use super::bodies::body;
use super::children::Accepted;
use super::model::Model;
use super::ops::At;
use super::panics::caught;
use super::plan::Plan;
use super::reference::{Kind, Node};
use super::unseen::unseen;
use crate::workload::Dice;

/// Starts a task that nobody hears of, with any body, or one that has waits which it may never look at: the scope around
/// waits for its end.
pub(super) fn leave_behind(at: &At, dice: &mut Dice) {
    let (plan, core) = (Arc::clone(&at.here.plan), at.here.index());
    let task = plan.with(|model| model.scopes.open(Some(at.scope), Kind::Task, core));
    let mut inside = at.in_task(task);
    // It may outlive the scope that the pipe belongs to.
    inside.pipe = None;
    let mut accepted = Accepted::new(&plan, task);
    let rest = plan.dice();
    let has_waits = dice.roll(3) == 0;
    quoit::leave_behind(async move {
        accepted.begins();
        let refusals = Rc::clone(&inside.refusals);
        let body = match has_waits {
            true => Box::pin(unseen(inside, rest)),
            false => body(inside, rest),
        };
        let ended = refusals.of_task(caught(body)).await;
        accepted.ends();
        plan.with(|model| {
            model.nothing_waits_below(task);
            model.close(task);
        });
        drop(ended);
    });
}

/// Dropped with a body, it asks whether that is refused.
pub(super) struct Asks {
    plan: Arc<Plan>,
    core: usize,
    scope: Node,
}

impl Asks {
    pub(super) fn new(at: &At) -> Self {
        Self {
            plan: Arc::clone(&at.here.plan),
            core: at.here.index(),
            scope: at.scope,
        }
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        self.plan.with(|model| model.before_op(self.core, false));
        let refused = quoit::check().is_err();
        self.plan
            .with(|model| model.told_at_drop(self.scope, refused));
    }
}

impl Model {
    /// A destructor was told whether the scope is refused whose body is dropped.
    fn told_at_drop(&mut self, scope: Node, refused: bool) {
        if !self.scopes.refused(scope).allows(refused) {
            let path = self.scopes.path(scope);
            self.violated(format!(
                "a destructor was told that it is refused: {refused}:{path}"
            ));
        }
    }
}
