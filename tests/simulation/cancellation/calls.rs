//! Bodies on other cores, which their caller waits for.

use std::rc::Rc;
use std::sync::Arc;

use quoit::{CoreId, Remote};

use super::bodies::body;
use super::failure::{Failure, Outcome};
use super::ops::{At, watched};
use super::panics::{caught, tell_panic};
use super::plan::{Plan, here_of};
use super::reference::Node;
use super::waits::Until;
use crate::workload::Dice;

/// Runs a body on another core, and waits for it.
pub(super) async fn on_another_core(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let plan = Arc::clone(&at.here.plan);
    let cores = plan.runtime().cores();
    let there: CoreId = cores[dice.roll(cores.len() as u64) as usize];
    let far = plan.with(|model| model.far_begins(at.scope, at.here.index(), there.index()));
    let (rest, depth) = (plan.dice(), at.depth + 1);
    let mut ending = FarEnd {
        plan: Arc::clone(&plan),
        far,
        outcome: None,
    };
    let make = move || async move {
        let here = here_of(there);
        let inside = At {
            here,
            scope: far,
            refusals: Rc::default(),
            groups: Vec::new(),
            pipe: None,
            depth,
            place: None,
            has_company: false,
        };
        let plan = Arc::clone(&ending.plan);
        let refusals = Rc::clone(&inside.refusals);
        let outcome = refusals.of_task(caught(body(inside, rest))).await;
        tell_panic(&plan, outcome, |outcome| ending.outcome = Some(outcome))
    };
    let told = watched(at, "on", Until::Far(far), quoit::on(there, make)).await;
    plan.with(|model| model.far_told(far, &told));
    match told {
        // It was told there.
        Err(Failure::Remote(Remote::Panicked(_))) => Ok(()),
        told => told.map(drop),
    }
}

/// The end of a task on another core. Dropped without an outcome, it was never begun.
struct FarEnd {
    plan: Arc<Plan>,
    far: Node,
    outcome: Option<Result<Outcome, u32>>,
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        self.plan.with(|model| model.far_ends(self.far, outcome));
    }
}
