//! A program while it runs: bodies and their steps.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::time::{Alarm, Instant, sleep, sleep_until};
use quoit::{
    Cancelled, JoinHandle, Scope, check, effective_deadline, group, race_all, spawn, timeout,
    yield_uncancellable,
};

use super::choices::{NOISE, TELLER, WRAP, Ways};
use super::deeds::Target;
use super::failure::{Body, Failure, Outcome};
use super::program::{FAR, IfCancelled, Moment, Step, UNIT, What, leaves_tasks};
use super::waits::with_fresh_waker;
use crate::workload::Dice;

/// Where a step stands.
pub(super) struct Place {
    /// A cancellation that its body has kept.
    pub(super) kept: Cell<Option<Cancelled>>,
    /// Its body may be dropped half-way.
    pub(super) may_be_dropped: bool,
}

/// A program while it runs.
pub(super) struct Play {
    pub(super) begun: Instant,
    pub(super) ways: Ways,
    /// A cancellation may be passed on where nothing is cancelled.
    pub(super) has_strays: bool,
    pub(super) targets: RefCell<BTreeMap<usize, Target>>,
    pub(super) seen: RefCell<BTreeMap<usize, Vec<String>>>,
}

impl Play {
    pub(super) fn at(&self, moment: Moment) -> Instant {
        self.begun + UNIT * moment as u32
    }

    pub(super) fn has_passed(&self, moment: Moment) -> bool {
        self.at(moment) <= Instant::now()
    }

    pub(super) fn say(&self, id: usize, what: String) {
        let when = self.begun.elapsed().as_nanos() as f64 / UNIT.as_nanos() as f64;
        let mut seen = self.seen.borrow_mut();
        seen.entry(id).or_default().push(format!("{when}: {what}"));
    }

    /// Returns a body that does so.
    pub(super) fn body(self: &Rc<Self>, id: usize, steps: &[Step], may_be_dropped: bool) -> Body {
        let (play, steps) = (Rc::clone(self), steps.to_vec());
        let leaves_tasks = leaves_tasks(&steps, false);
        let body: Body = Box::pin(async move {
            let at = Place {
                kept: Cell::new(None),
                may_be_dropped,
            };
            for step in &steps {
                play.make_noise(step.id).await;
                play.step(step, &at).await?;
            }
            Ok(())
        });
        match self.ways.of(id, WRAP) {
            // A scope would wait for them.
            1..7 if leaves_tasks => body,
            // What is stray is a failure where a task ends.
            6 if self.has_strays => body,
            way => wrapped(way, body, may_be_dropped),
        }
    }

    /// Does what changes nothing.
    pub(super) async fn make_noise(&self, id: usize) {
        match self.ways.of(id, NOISE) {
            0 => {}
            1 => yield_uncancellable().await,
            2 => drop(check()),
            3 => drop(effective_deadline()),
            _ => {
                for target in self.targets.borrow().values() {
                    match target {
                        Target::Scope(scope, _) => drop(scope.cancelled()),
                        Target::Group(group) => drop(group.cancelled()),
                        Target::Task(task, _) => {
                            task.as_ref().map(JoinHandle::is_finished);
                        }
                    }
                }
            }
        }
    }

    pub(super) async fn step(self: &Rc<Self>, step: &Step, at: &Place) -> Outcome {
        let id = step.id;
        match &step.what {
            What::Wait(until, if_cancelled) => {
                if !self.has_passed(*until) {
                    let ended = self.wait(id, self.at(*until)).await;
                    self.say(id, format!("{:?}", ended.map_err(Cancelled::reason)));
                    if let Err(cancelled) = ended {
                        pause(id).await;
                        return was_cancelled(id, *if_cancelled, cancelled, at);
                    }
                }
            }
            What::Do(moment, deeds) => {
                if !self.has_passed(*moment) {
                    let shield = Scope::new().shielded();
                    let _: Option<()> = shield.run(sleep_until(self.at(*moment))).await?;
                    if self.ways.of(id, TELLER) == 0 {
                        self.tell_all(id, deeds);
                    } else {
                        let (play, deeds) = (Rc::clone(self), deeds.clone());
                        let told = spawn(async move { play.tell_all(id, &deeds) });
                        let shield = Scope::new().shielded();
                        let told = shield.run(async { Ok::<_, Cancelled>(told.await) });
                        drop(told.await?);
                    }
                    for (target, _) in deeds {
                        self.say(id, format!("{target} {:?}", self.own_cause(*target)));
                    }
                }
            }
            What::Look => {
                let far = self.begun + FAR / 2;
                let until = effective_deadline().filter(|&at| at < far);
                let until = until.map(|at| at.duration_since(self.begun));
                self.say(id, format!("{:?}, {until:?}", check().is_err()));
            }
            What::Scope(making, steps) => return self.scope(id, *making, steps, at).await,
            What::Group(steps, children) => return self.group(id, steps, children, at).await,
            What::Half(end, _) if self.has_passed(*end) => {}
            What::Half(end, steps) => {
                let mut begun = self.body(id, steps, true);
                let mut alarm = Alarm::at(self.at(*end));
                let ended = poll_fn(|cx| {
                    if let Poll::Ready(ended) = begun.as_mut().poll(cx) {
                        return Poll::Ready(Some(ended));
                    }
                    Pin::new(&mut alarm).poll(cx).map(|()| None)
                });
                let ended = ended.await;
                drop(begun);
                self.say(id, format!("{ended:?}"));
                return ended.unwrap_or(Ok(()));
            }
            What::Fail => return Err(Failure::Own(id)),
            What::FailWithKept => {
                let kept = at.kept.take().map(Failure::Cancelled);
                return Err(kept.unwrap_or(Failure::Own(id)));
            }
        }
        Ok(())
    }
}

/// Lets those who began or were cancelled together go on one after the other.
pub(super) async fn pause(id: usize) {
    // No two sums of these are the same, or hardly ever.
    let apart = Duration::from_nanos(Dice::new(0, id as u64).roll(60_000));
    let shield = Scope::new().shielded();
    let paused: Result<_, Cancelled> = shield.run(sleep(apart)).await;
    paused.expect("a shield is deaf");
}

/// Puts something around a body that lets all through.
pub(super) fn wrapped(way: u64, mut body: Body, may_be_dropped: bool) -> Body {
    let through = |outcome: Result<Option<()>, Failure>| match outcome {
        // Nobody has cancelled this: so it differs.
        Ok(None) => Err(Failure::Late),
        other => other.map(drop),
    };
    match way {
        0 => body,
        1 => Box::pin(async move { through(Scope::new().run(body).await) }),
        2 => Box::pin(async move {
            let scope = Scope::new();
            scope.handle();
            through(scope.run(body).await)
        }),
        3 => Box::pin(timeout(FAR, body)),
        4 => Box::pin(async move { Ok(race_all([body]).await?) }),
        5 => Box::pin(async move {
            through(
                group(async move |_| body.await)
                    .await
                    .map_err(Failure::from),
            )
        }),
        // A task would go on.
        6 if !may_be_dropped => Box::pin(async move {
            let ended = group(async move |g| {
                drop(g.spawn(body));
                Ok(())
            });
            through(ended.await.map_err(Failure::from))
        }),
        7 => Box::pin(poll_fn(move |cx| {
            with_fresh_waker(cx, |cx| body.as_mut().poll(cx))
        })),
        _ => Box::pin(async move {
            yield_uncancellable().await;
            body.await
        }),
    }
}

pub(super) fn was_cancelled(
    id: usize,
    then: IfCancelled,
    cancelled: Cancelled,
    at: &Place,
) -> Outcome {
    match then {
        IfCancelled::PassOn => Err(Failure::Cancelled(cancelled)),
        IfCancelled::Fail => Err(Failure::Own(id)),
        IfCancelled::FailAndPassOn => Err(Failure::Both(id, cancelled)),
        IfCancelled::Swallow => Ok(()),
        IfCancelled::Keep => {
            at.kept.set(Some(cancelled));
            Ok(())
        }
    }
}
