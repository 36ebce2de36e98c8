//! The leaf ops of these programs, each with its word to the model.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use quoit::op;
use quoit::sync::Event;
use quoit::{CarriesCancelled, Group};

use super::failure::Failure;
use super::model::{self, Begun, Polled};
use super::pipes::Pipe;
use super::plan::{Foreign, Here, Plan};
use super::reference::Node;
use super::waits::{Op, OpId, Until};
use crate::workload::Weather;

/// Where in a program something is done.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) here: Rc<Here>,
    /// The innermost scope around, and the task.
    pub(super) scope: Node,
    /// How often the task was refused.
    pub(super) refusals: Rc<Refusals>,
    /// Groups around, that children may be started in.
    pub(super) groups: Vec<(Group<Failure>, Node)>,
    pub(super) pipe: Option<Rc<Pipe>>,
    pub(super) depth: u32,
    /// Where the op is polled that is handed from one scope to another.
    pub(super) place: Option<Rc<Cell<Node>>>,
    /// Other branches of the task may wait in the same scope.
    pub(super) has_company: bool,
}

/// How often a task was refused, by ops that count.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    all: Cell<u32>,
    in_this_poll: Cell<u32>,
    /// Whether that is right.
    unsure: Cell<bool>,
}

impl Refusals {
    pub(super) fn add_one(&self) {
        self.all.set(self.all.get() + 1);
        self.in_this_poll.set(self.in_this_poll.get() + 1);
    }

    /// Adds one that may have been a refusal, or not.
    pub(super) fn maybe_one(&self) {
        self.unsure.set(true);
        self.add_one();
    }

    /// Whether the next refusal is held back: the others have a turn first, or the task has to pause.
    pub(super) fn held(&self) -> Held {
        match (self.in_this_poll.get(), self.all.get()) {
            (_, FREE..) => Held::Maybe,
            _ if self.unsure.get() => Held::Maybe,
            (told, _) if told % YIELD_EVERY == YIELD_EVERY - 1 => Held::Surely,
            _ => Held::Not,
        }
    }

    /// Runs the future of a task, and counts anew in each poll.
    pub(super) async fn of_task<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.in_this_poll.set(0);
            self.unsure.set(false);
            future.as_mut().poll(cx)
        })
        .await
    }
}

/// Whether a refusal is told at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Not,
    Maybe,
    Surely,
}

/// So many refusals in one poll of a task, and the last one waits until others have had a turn.
const YIELD_EVERY: u32 = 32;

/// Refusals of a task before it may have to pause: some fewer than there are, since not all that were
/// held back are counted.
const FREE: u32 = 900;

impl At {
    /// In this task, in a scope further in.
    pub(super) fn within(&self, scope: Node) -> Self {
        Self {
            scope,
            depth: self.depth + 1,
            has_company: false,
            ..self.clone()
        }
    }

    /// In a task of its own.
    pub(super) fn in_task(&self, task: Node) -> Self {
        Self {
            refusals: Rc::default(),
            ..self.within(task)
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.here.plan
    }

    fn place(&self) -> Node {
        self.place.as_ref().map_or(self.scope, |place| place.get())
    }

    fn op(&self, name: &'static str, until: Until) -> Op {
        Op::new(name, self.place(), self.here.index(), until)
    }
}

/// Runs an op, and tells the model of it.
pub(super) async fn watched<T>(
    at: &At,
    name: &'static str,
    until: Until,
    op: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (plan, core) = (at.plan(), at.here.index());
    let mut op = pin!(op);
    let mut parked = Parked::new(at);
    let mut fresh = true;
    poll_fn(|cx| {
        if fresh {
            plan.with(|model| model.before_op(core, name == "yield"));
        } else if let Some(id) = parked.id {
            plan.with(|model| model.op_is_polled(id, core, at.place()));
        }
        let polled = op.as_mut().poll(cx);
        let came = match &polled {
            Poll::Pending => Polled::Pending,
            Poll::Ready(Err(Failure::Cancelled(cancelled))) => Polled::Cancelled(*cancelled),
            Poll::Ready(_) => Polled::Done,
        };
        if fresh {
            let held = match name {
                // It is no op, and does not count.
                "check" => Held::Not,
                _ => at.refusals.held(),
            };
            let begun = plan.with(|model| model.op_begins(at.op(name, until), came, held));
            if let Polled::Cancelled(_) = came {
                match name {
                    "check" => {}
                    _ if model::looks_again(name) => at.refusals.maybe_one(),
                    _ => at.refusals.add_one(),
                }
            }
            match begun {
                Begun::Over => fresh = false,
                Begun::Held => at.refusals.add_one(),
                Begun::Parked(id) => (fresh, parked.id) = (false, Some(id)),
                Begun::ParkedOrHeld(id) => {
                    at.refusals.maybe_one();
                    (fresh, parked.id, parked.maybe_held) = (false, Some(id), true);
                }
            }
        } else if came != Polled::Pending
            && let Some(id) = parked.id.take()
        {
            if parked.maybe_held {
                at.refusals.maybe_one();
            }
            plan.with(|model| model.op_ends(id, came));
        }
        polled
    })
    .await
}

/// An op in the books. Dropped, it has been given up.
#[derive(Debug)]
pub(super) struct Parked {
    plan: Arc<Plan>,
    pub(super) id: Option<OpId>,
    /// It may not be parked at all, but wait to be told that it is refused.
    pub(super) maybe_held: bool,
}

impl Parked {
    pub(super) fn new(at: &At) -> Self {
        Self {
            plan: Arc::clone(&at.here.plan),
            id: None,
            maybe_held: false,
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.plan.with(|model| model.op_dropped(id));
        }
    }
}

pub(super) async fn sleep(at: &At, duration: Duration) -> Result<(), Failure> {
    let due = at.plan().now() + duration.as_nanos() as u64;
    watched(at, "sleep", Until::Time(due), async {
        Ok(quoit::time::sleep(duration).await?)
    })
    .await
}

pub(super) async fn yields(at: &At) -> Result<(), Failure> {
    watched(at, "yield", Until::Unseen, async {
        Ok(quoit::yield_now().await?)
    })
    .await
}

pub(super) async fn check(at: &At) -> Result<(), Failure> {
    watched(at, "check", Until::Unseen, async { Ok(quoit::check()?) }).await
}

pub(super) async fn nop(at: &At) -> Result<(), Failure> {
    watched(at, "nop", Until::Unseen, async {
        said(at, op::nop().await)
    })
    .await
}

/// Waits for something that another task does, some day.
pub(super) async fn event(at: &At) -> Result<(), Failure> {
    let (event, number) = (Rc::new(Event::new()), u64::from(at.plan().number()));
    if at.plan().is_over() {
        event.set();
    } else {
        let mut shelf = at.here.shelf.borrow_mut();
        shelf.events.push((Rc::clone(&event), number));
    }
    watched(at, "event", Until::Told(number), async {
        Ok(event.wait().await?)
    })
    .await
}

/// Lets others have a turn, whatever is cancelled.
pub(super) async fn yields_uncancellable(at: &At) {
    let core = at.here.index();
    at.plan().with(|model| model.counts.may_wake[core] += 1);
    quoit::yield_uncancellable().await;
}

/// Waits for something that the runtime does not know, and that a cancel drops.
pub(super) async fn foreign_until_cancelled(at: &At) -> Result<(), Failure> {
    let foreign = new_foreign(at);
    watched(at, "foreign", Until::Unseen, async {
        Ok(quoit::run_until_cancelled(foreign.wait()).await?)
    })
    .await
}

pub(super) fn new_foreign(at: &At) -> Rc<Foreign> {
    let foreign = Rc::new(Foreign::default());
    if at.plan().is_over() {
        foreign.end();
    } else {
        at.here.shelf.borrow_mut().foreign.push(Rc::clone(&foreign));
    }
    foreign
}

/// What an op of the kernel said: where operations may fail, a failure is a failure.
pub(super) fn said<T>(at: &At, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| match error.cancelled() {
        Some(cancelled) => cancelled.into(),
        None => {
            if at.plan().weather != Weather::Rough {
                let text = format!("an operation failed: {error}");
                at.plan().with(|model| model.violated(text));
            }
            Failure::Io(error.to_string())
        }
    })
}
