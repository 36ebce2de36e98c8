//! Groups and their children, each with its word to the model.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use quoit::{
    CoreId, Group, GroupPanic, JoinError, JoinHandle, Remote, StartError, group, isolating_group,
};

use super::bodies::body;
use super::books::{Book, Child, Stage, Told};
use super::failure::{Failure, Outcome};
use super::model::{Begun, Polled, task_number};
use super::ops::{self, At, Parked, watched};
use super::plan::{Plan, UNTIL, here_of, pick};
use super::reference::{Kind, Node};
use super::scopes::Opened;
use super::waits::{Op, Until};
use crate::workload::Dice;

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
fn panic_number(plan: &Plan, payload: &(dyn Any + Send)) -> u32 {
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
fn unfold(plan: &Plan, payload: Box<dyn Any + Send>) -> (u32, usize, usize) {
    match payload.downcast::<GroupPanic>() {
        Ok(group) => {
            let (others, failures) = (group.others().len(), group.failures());
            (unfold(plan, group.into_first()).0, others, failures)
        }
        Err(payload) => (panic_number(plan, &*payload), 0, 0),
    }
}

/// A group with some children, and a body that may start more.
pub(super) async fn in_a_group(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let isolating = dice.roll(4) == 0;
    let opened = OpenGroup(Opened::new(at, Kind::Group));
    let (plan, node) = (Arc::clone(&opened.0.plan), opened.0.node);
    plan.with(|model| {
        model.groups.insert(node, Book::new(isolating));
        // Without children, its end is a yield.
        model.counts.may_wake[at.here.index()] += 1;
    });
    let mut rest = plan.dice();
    let members = async |g: Group<Failure>| {
        let mut inside = at.within(node);
        inside.groups.push((g, node));
        at.here.shelve_group(g, node);
        if rest.roll(2) == 0
            && let Some(handle) = g.handle()
        {
            plan.offer(handle, node);
        }
        let outcome = caught(async {
            let mut joins = Vec::new();
            for _ in 0..rest.roll(4) {
                let daemon = rest.roll(5) == 0;
                joins.extend(spawn(&inside, (g, node), daemon, Does::Anything));
            }
            if plan.has_crowd() {
                crowd(&inside, (g, node)).await?;
            }
            if rest.roll(3) == 0 {
                join_all(&inside, &mut joins).await?;
            }
            let outcome = body(inside.clone(), plan.dice()).await;
            if rest.roll(3) == 0 {
                join_all(&inside, &mut joins).await?;
            }
            outcome
        })
        .await;
        tell_panic(&plan, outcome, |outcome| {
            plan.with(|model| model.group_body_ends(node, outcome));
        })
    };
    let ran = if isolating {
        caught(isolating_group(members)).await
    } else {
        caught(group(members)).await
    };
    let came = match ran {
        Ok(came) => came.map_err(Failure::from),
        Err(payload) => {
            let told = unfold(&plan, payload);
            plan.with(|model| model.group_ends(node, Err(told)));
            drop(opened);
            // As whoever is around sees it.
            resume_unwind(Box::new(Panic(told.0)));
        }
    };
    plan.with(|model| model.group_ends(node, Ok(&came)));
    drop(opened);
    came.map(drop)
}

/// Tells what a body came to, and goes on with its panic.
fn tell_panic(
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

/// A group of the model. Dropped before its end, its children are cancelled there too.
struct OpenGroup(Opened);

impl Drop for OpenGroup {
    fn drop(&mut self) {
        self.0.plan.with(|model| model.group_dropped(self.0.node));
    }
}

/// A child that was accepted: it is polled, and not dropped before its end.
struct Accepted {
    plan: Arc<Plan>,
    task: Node,
    polled: bool,
    ended: bool,
}

impl Accepted {
    fn new(plan: &Arc<Plan>, task: Node) -> Self {
        Self {
            plan: Arc::clone(plan),
            task,
            polled: false,
            ended: false,
        }
    }

    fn begins(&mut self) {
        self.polled = true;
    }

    fn ends(&mut self) {
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

/// More children than one cancel reaches at once.
async fn crowd(at: &At, group: (Group<Failure>, Node)) -> Result<(), Failure> {
    for _ in 0..300 {
        drop(spawn(at, group, false, Does::Waits(UNTIL)));
    }
    ops::yields(at).await?;
    let reason = at.plan().reason();
    let told = group.0.cancel_for(reason);
    at.plan()
        .with(|model| model.cancel(group.1, reason, None, Some(told)));
    Ok(())
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
    let handle = if daemon {
        g.spawn_daemon(child)
    } else {
        g.spawn(child)
    };
    Some(Joining {
        plan,
        task,
        handle: Some(handle),
        parked: Parked::new(at),
    })
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

async fn join_all(at: &At, joins: &mut Vec<Joining>) -> Result<(), Failure> {
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
