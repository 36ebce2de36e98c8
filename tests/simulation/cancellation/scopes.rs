//! Scopes, races and futures that are dropped half-way, each with its word to the model.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use quoit::{Reason, Scope, race, race_all};

use super::bodies::body;
use super::failure::{Failure, Outcome};
use super::ops::{self, At};
use super::pipes::Pipe;
use super::plan::{Here, Plan};
use super::reference::{Kind, Node, Seen, Shield};
use super::truth::Truth;
use crate::workload::Dice;

/// A scope of the model. Dropped, it is gone there too.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) plan: Arc<Plan>,
    pub(super) node: Node,
}

impl Opened {
    pub(super) fn new(at: &At, kind: Kind) -> Self {
        let plan = Arc::clone(&at.here.plan);
        let core = at.here.index();
        let node = plan.with(|model| model.scopes.open(Some(at.scope), kind, core));
        Self { plan, node }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.plan.with(|model| model.close(self.node));
    }
}

/// A scope that was not run yet. Dropped, nobody else has it either.
struct Unrun<'a>(&'a Here, Node);

impl Drop for Unrun<'_> {
    fn drop(&mut self) {
        self.0.unshelve_scope(self.1);
    }
}

/// How a scope is made.
struct Making {
    shield: Shield,
    timeout: Option<Duration>,
    /// Before now, or after.
    deadline: Option<u64>,
    grace: Duration,
}

impl Making {
    fn draw(at: &At, dice: &mut Dice) -> Self {
        let now = at.plan().now();
        Self {
            shield: match dice.roll(6) {
                0 => Shield::Full,
                1 => Shield::Grace,
                _ => Shield::None,
            },
            timeout: (dice.roll(3) == 0).then(|| dice.micros(2_000)),
            deadline: (dice.roll(6) == 0)
                .then(|| (now + dice.roll(1_500_000)).saturating_sub(300_000)),
            grace: match dice.roll(4) {
                0 => dice.micros(2_000),
                _ => Duration::ZERO,
            },
        }
    }

    fn make(&self, plan: &Plan, node: Node) -> Scope {
        let mut scope = Scope::new().grace(self.grace);
        scope = match self.shield {
            Shield::None => scope,
            Shield::Grace => scope.grace_shielded(),
            Shield::Full => scope.shielded(),
        };
        if let Some(timeout) = self.timeout {
            scope = scope.timeout(timeout);
        }
        if let Some(deadline) = self.deadline {
            scope = scope.deadline(plan.at(deadline));
        }
        plan.with(|model| {
            let made = &mut model.scopes.scopes[node];
            (made.shield, made.grace) = (self.shield, self.grace);
            (made.deadline, made.is_armed) = (self.deadline, false);
        });
        scope
    }
}

/// A scope of some kind, with a body in it.
pub(super) async fn scope(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let making = Making::draw(at, dice);
    scope_of(at, dice, &making, None).await
}

/// What a body does that was cancelled, before it passes that on: in a shield, and not for long.
pub(super) async fn clean_up(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let making = Making {
        shield: Shield::Full,
        timeout: Some(dice.micros(800)),
        deadline: None,
        grace: Duration::ZERO,
    };
    let pause = dice.micros(1_000);
    scope_of(at, dice, &making, Some(pause)).await
}

/// Runs a scope: its body sleeps so long, or is any.
async fn scope_of(
    at: &At,
    dice: &mut Dice,
    making: &Making,
    pause: Option<Duration>,
) -> Result<(), Failure> {
    let opened = Opened::new(at, Kind::Scope);
    let (plan, node) = (Arc::clone(&opened.plan), opened.node);
    let scope = Rc::new(making.make(&plan, node));
    at.here.shelve_scope(&scope, node);
    let unrun = Unrun(&at.here, node);
    let has_handle = dice.roll(2) == 0;
    if has_handle {
        let handle = scope.handle();
        plan.with(|model| model.handle_made(node));
        plan.offer(handle, node);
        match dice.roll(6) {
            0 => plan.cancel_by(handle, node, dice, Some(at.here.index())),
            1 => {
                let (plan, mut dice) = (Arc::clone(&plan), plan.dice());
                quoit::sim::after(dice.micros(1_500), move || {
                    plan.cancel_by(handle, node, &mut dice, None);
                });
            }
            _ => {}
        }
    } else if dice.roll(12) == 0 {
        at.here.change(&scope, node, dice);
    }
    if dice.roll(8) == 0 {
        // Made here, and entered a little later.
        ops::yields(at).await?;
    }
    let mut inside = at.within(node);
    let pipe = if dice.roll(3) == 0 {
        Pipe::new(&at.here)
    } else {
        None
    };
    if pipe.is_some() {
        inside.pipe.clone_from(&pipe);
    }
    let (ended, rest) = (Cell::new(None), plan.dice());
    plan.with(|model| model.scope_begins(node, at.scope, making.timeout));
    std::mem::forget(unrun);
    let says_when_late = dice.roll(3) == 0;
    let body = async {
        let outcome = match pause {
            Some(pause) => ops::sleep(&inside, pause).await.map(|()| 0),
            None => body(inside.clone(), rest).await,
        };
        let keeps = plan.with(|model| model.body_ends(node, &outcome));
        ended.set(Some((outcome.clone(), keeps)));
        outcome
    };
    let mut run = match says_when_late {
        true => scope.run_in_time(body).await,
        false => scope.run(body).await,
    };
    let cancelled = scope.cancelled().map(quoit::Cancelled::reason);
    if says_when_late {
        let is_late = run == Err(Failure::TimedOut);
        if is_late {
            run = Ok(None);
        }
        let should_be = run == Ok(None) && cancelled == Some(Reason::Deadline);
        if is_late != should_be {
            plan.with(|model| {
                model.violated(format!("scope {node} says that it is late: {is_late}"))
            });
        }
    }
    plan.with(|model| {
        model.own_was(node, cancelled);
        model.scope_ends(node, ended.take(), &run, scope.absorbed());
        if pipe.is_some_and(|pipe| !pipe.is_out_of_use()) {
            model.violated(format!(
                "scope {node} has ended, and the kernel has an op of it"
            ));
        }
    });
    drop(opened);
    run.map(drop)
}

/// Two or three bodies, of which the first to end cancels the others.
pub(super) async fn racing(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let count = 2 + dice.roll(2) as usize;
    let opened: Vec<Opened> = (0..count).map(|_| Opened::new(at, Kind::Race)).collect();
    let nodes: Vec<Node> = opened.iter().map(|opened| opened.node).collect();
    let plan = Arc::clone(&at.here.plan);
    let ends: Rc<Cell<Vec<(Outcome, Truth)>>> = Rc::default();
    let branch = |which: usize| {
        let (inside, rest) = (at.within(nodes[which]), plan.dice());
        let (plan, nodes, ends) = (Arc::clone(&plan), nodes.clone(), Rc::clone(&ends));
        async move {
            let outcome = body(inside, rest).await;
            let node = nodes[which];
            let passes_on = matches!(&outcome, Err(failure) if failure.is_cancellation());
            let keeps = plan.with(|model| {
                for &other in &nodes {
                    if other != node {
                        model.post(other, Reason::Lost, Seen::Quiet(node), passes_on);
                    }
                }
                model.body_ends(node, &outcome)
            });
            let mut all = ends.take();
            all.push((outcome.clone(), keeps));
            ends.set(all);
            outcome
        }
    };
    let came = if count == 2 {
        race(branch(0), branch(1)).await
    } else {
        race_all((0..count).map(branch)).await
    };
    let came = came.map_err(Failure::from);
    plan.with(|model| {
        for &node in &nodes {
            model.nothing_lives_below(node);
        }
        model.race_ends(ends.take(), &came);
    });
    drop(opened);
    came.map(drop)
}

/// Begins something, and drops it after a while if it is not done by then.
pub(super) async fn half_way(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let limit = dice.micros(600);
    let mut inside = at.clone();
    inside.depth += 1;
    let rest = at.plan().dice();
    let mut begun = body(inside, rest);
    let mut limit: Pin<Box<dyn Future<Output = Result<(), Failure>>>> =
        Box::pin(ops::sleep(at, limit));
    let ended = poll_fn(|cx| {
        if let Poll::Ready(outcome) = begun.as_mut().poll(cx) {
            return Poll::Ready(outcome.map(drop));
        }
        limit.as_mut().poll(cx)
    })
    .await;
    drop(begun);
    ended
}

/// Begins a wait in one scope and ends it in another.
pub(super) async fn handed_over(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let place = Rc::new(Cell::new(at.scope));
    let mut moving = at.clone();
    moving.place = Some(Rc::clone(&place));
    let duration = dice.micros(2_000);
    let first_inside = dice.roll(2) == 0;
    let mut wait: Pin<Box<dyn Future<Output = Result<(), Failure>>>> = match dice.roll(2) {
        0 => Box::pin(async move { ops::sleep(&moving, duration).await }),
        _ => Box::pin(async move { ops::event(&moving).await }),
    };
    if !first_inside && let Poll::Ready(ended) = tests::poll_once(wait.as_mut()).await {
        return ended;
    }
    let making = Making::draw(at, dice);
    let opened = Opened::new(at, Kind::Scope);
    let (plan, node) = (Arc::clone(&opened.plan), opened.node);
    let scope = Rc::new(making.make(&plan, node));
    at.here.shelve_scope(&scope, node);
    plan.with(|model| model.scope_begins(node, at.scope, making.timeout));
    place.set(node);
    let (over, rest) = (Cell::new(None), Cell::new(None));
    let body = async {
        let ended = if first_inside {
            match tests::poll_once(wait.as_mut()).await {
                Poll::Ready(ended) => ended,
                Poll::Pending => {
                    rest.set(Some(()));
                    Ok(())
                }
            }
        } else {
            wait.as_mut().await
        };
        let outcome = ended.map(|()| node as u32);
        let keeps = plan.with(|model| model.body_ends(node, &outcome));
        over.set(Some((outcome.clone(), keeps)));
        outcome
    };
    let run = scope.run(body).await;
    let waits_on = rest.take().is_some();
    plan.with(|model| {
        if waits_on {
            // The wait goes on, outside.
            model.ops_leave(node);
        }
        model.scope_ends(node, over.take(), &run, scope.absorbed());
    });
    drop(opened);
    place.set(at.scope);
    if waits_on {
        return wait.await;
    }
    run.map(drop)
}
