//! Children of groups: started at once, or with a word when they are ready.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quoit::{Group, StartError};

use super::bodies::body;
use super::books::{Child, Stage};
use super::failure::{Failure, Outcome};
use super::joins::Joining;
use super::ops::{self, At};
use super::panics::{caught, tell_panic};
use super::plan::Plan;
use super::reference::{Kind, Node};
use crate::workload::Dice;

/// A child that was accepted: it is polled, and not dropped before its end.
pub(super) struct Accepted {
    plan: Arc<Plan>,
    task: Node,
    polled: bool,
    ended: bool,
}

impl Accepted {
    pub(super) fn new(plan: &Arc<Plan>, task: Node) -> Self {
        Self {
            plan: Arc::clone(plan),
            task,
            polled: false,
            ended: false,
        }
    }

    pub(super) fn begins(&mut self) {
        self.polled = true;
    }

    pub(super) fn ends(&mut self) {
        self.ended = true;
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        let (task, polled, ended) = (self.task, self.polled, self.ended);
        self.plan.with(|model| {
            if !polled {
                model.violated(format!("task {task} was accepted, and never polled"));
            } else if !ended {
                model.violated(format!("task {task} was dropped before its end"));
            }
        });
    }
}

/// What a child does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Does {
    Anything,
    Waits(Duration),
}

/// Starts a child; `None` where the group has ended, and says so.
pub(super) fn spawn(
    at: &At,
    (g, group): (Group<Failure>, Node),
    daemon: bool,
    does: Does,
) -> Option<Joining> {
    let (plan, core) = (Arc::clone(&at.here.plan), at.here.index());
    if !plan.with(|model| model.groups[&group].open) {
        let refused = g.spawn::<u32>(async { unreachable!("its group has ended") });
        if !refused.is_finished() {
            plan.with(|model| model.violated("a group has ended, and takes a child".to_owned()));
        }
        return None;
    }
    let task = plan.with(|model| {
        let parent = if daemon {
            model.daemons(group, core)
        } else {
            group
        };
        let task = model.scopes.open(Some(parent), Kind::Task, core);
        model.children.insert(task, Child::new(group, Stage::Child));
        task
    });
    let mut inside = at.in_task(task);
    // It may outlive the scope that the pipe belongs to.
    inside.pipe = None;
    if daemon {
        inside.groups.retain(|(_, other)| *other != group);
    }
    let child = child(inside, task, does);
    let handle = match daemon {
        true => g.spawn_daemon(child),
        false if task.is_multiple_of(4) => g.spawn_eager(child),
        false => g.spawn(child),
    };
    Some(Joining::new(at, task, handle))
}

/// The future of a child.
fn child(at: At, task: Node, does: Does) -> impl Future<Output = Outcome> {
    let plan = Arc::clone(&at.here.plan);
    let mut accepted = Accepted::new(&plan, task);
    let rest = plan.dice();
    async move {
        accepted.begins();
        let refusals = Rc::clone(&at.refusals);
        let child = caught(async {
            match does {
                Does::Anything => body(at, rest).await,
                Does::Waits(time) => ops::sleep(&at, time).await.map(|()| task as u32),
            }
        });
        let outcome = refusals.of_task(child).await;
        accepted.ends();
        tell_panic(&plan, outcome, |outcome| {
            plan.with(|model| model.child_ends(task, outcome));
        })
    }
}

/// Starts a child that says when it is ready.
pub(super) async fn start(
    at: &At,
    (g, group): (Group<Failure>, Node),
    dice: &mut Dice,
) -> Result<(), Failure> {
    let (plan, core) = (Arc::clone(&at.here.plan), at.here.index());
    let open = plan.with(|model| model.groups[&group].open);
    if !open {
        let refused = g
            .start(async |_: quoit::Started<u32>| Ok::<u32, Failure>(0))
            .await;
        if !matches!(refused, Err(StartError::GroupClosed)) {
            plan.with(|model| model.violated(format!("a group has ended, and starts {refused:?}")));
        }
        return Ok(());
    }
    let task = plan.with(|model| {
        let task = model.scopes.open(Some(at.scope), Kind::Task, core);
        model
            .children
            .insert(task, Child::new(group, Stage::Starting));
        let book = model.groups.get_mut(&group).expect("it is open");
        book.promises += 1;
        task
    });
    let mut pending = Pending {
        plan: Arc::clone(&plan),
        task,
        ended: false,
    };
    let mut inside = at.in_task(task);
    inside.pipe = None;
    let (pause, reports) = (dice.micros(600), dice.roll(6) > 0);
    let mut accepted = Accepted::new(&plan, task);
    let rest = plan.dice();
    let teller = Arc::clone(&plan);
    let told = g
        .start(async move |started| {
            accepted.begins();
            let refusals = Rc::clone(&inside.refusals);
            let starting = caught(async {
                let first = ops::sleep(&inside, pause).await;
                if reports {
                    let refused = ops::check(&inside).await.is_err();
                    started.report(task as u32).expect("it is said once");
                    teller.with(|model| model.child_reports(task, refused));
                }
                first?;
                body(inside.clone(), rest).await
            });
            let outcome = refusals.of_task(starting).await;
            accepted.ends();
            tell_panic(&teller, outcome, |outcome| {
                teller.with(|model| model.child_ends(task, outcome));
            })
        })
        .await
        .map_err(Failure::from);
    pending.ended = true;
    plan.with(|model| model.start_told(task, &told));
    drop(pending);
    told.map(drop)
}

/// A call of `start`. Dropped, it holds its group open no more.
struct Pending {
    plan: Arc<Plan>,
    task: Node,
    ended: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.plan
            .with(|model| model.start_ends(self.task, !self.ended));
    }
}
