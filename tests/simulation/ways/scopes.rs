//! Scopes that are made up in one order or another, with handles or without; and groups.

use std::future::poll_fn;
use std::rc::Rc;

use quoit::time::Instant;
use quoit::{Cancelled, Scope, group};

use super::choices::{BEFORE, DEADLINE, HANDLE, KEEP, RUN, SHIELD, SPAWN};
use super::deeds::Target;
use super::failure::{Failure, Outcome};
use super::play::{Place, Play, pause};
use super::program::{FAR, Making, Shield, Step, UNIT};
use super::waits::with_fresh_waker;

impl Play {
    /// Runs a scope that was made in one order or another, with a handle or without.
    pub(super) async fn scope(
        self: &Rc<Self>,
        id: usize,
        making: Making,
        steps: &[Step],
        at: &Place,
    ) -> Outcome {
        let ways = |question| self.ways.of(id, question);
        let mut scope = Scope::new();
        let with_handle = ways(HANDLE);
        let mut handle = (with_handle == 1).then(|| scope.handle());
        if making.grace > 0 {
            scope = scope.grace(UNIT * making.grace as u32);
        }
        match (making.shield, ways(SHIELD)) {
            (Shield::None, 0) => {}
            (Shield::None, _) => {
                scope.set_shielded(true);
                scope.set_shielded(false);
            }
            (Shield::Grace, _) => scope = scope.grace_shielded(),
            (Shield::Full, 0) => scope = scope.shielded(),
            (Shield::Full, _) => scope.set_shielded(true),
        }
        if with_handle == 2 {
            handle = Some(scope.handle());
        }
        let far = Instant::now() + FAR;
        let mut inside = None;
        match (making.deadline.map(|at| self.at(at)), ways(DEADLINE)) {
            (Some(at), 0) => scope = scope.deadline(at),
            (Some(at), 1) => scope.set_deadline(Some(at)),
            (Some(at), 2) if at > Instant::now() && making.before.is_none() => {
                scope = scope.timeout(at.duration_since(Instant::now()));
            }
            (Some(at), 3) if making.before.is_none() => inside = Some((at, false)),
            (Some(at), 4) if making.before.is_none() => {
                let handle = handle.get_or_insert_with(|| scope.handle());
                handle.set_deadline(at);
            }
            (Some(at), 5) if making.before.is_none() => inside = Some((at, true)),
            (Some(at), _) if making.before.is_some() => scope = scope.deadline(at),
            (Some(at), _) => {
                scope = scope.deadline(far).timeout(FAR);
                scope.set_deadline(Some(at));
            }
            (None, 1) => scope = scope.timeout(FAR),
            (None, 2) => {
                scope = scope.deadline(far);
                scope.set_deadline(None);
            }
            (None, 3) => {
                scope = scope.deadline(far);
                let handle = handle.get_or_insert_with(|| scope.handle());
                handle.set_deadline(Instant::NEVER);
            }
            (None, _) => {}
        }
        let scope = Rc::new(scope);
        let put = |handle| {
            let target = Target::Scope(Rc::clone(&scope), handle);
            self.targets.borrow_mut().insert(id, target);
        };
        if let Some(deed) = making.before {
            if ways(BEFORE) == 1 {
                handle = Some(scope.handle());
            }
            put(handle);
            let told = self.tell(ways(BEFORE), id, deed);
            self.say(id, format!("{deed:?} {told:?}"));
        }
        put(handle);
        let rest = self.body(id, steps, at.may_be_dropped);
        let body = async {
            if with_handle == 3 || matches!(inside, Some((_, true))) {
                handle = Some(scope.handle());
                put(handle);
            }
            match (inside, handle) {
                (Some((at, true)), Some(handle)) => drop(handle.set_deadline(at)),
                (Some((at, _)), _) => scope.set_deadline(Some(at)),
                (None, _) => {}
            }
            rest.await
        };
        let outcome = match ways(RUN) {
            0 => scope.run(body).await,
            1 => match scope.run_in_time(body).await {
                Err(Failure::Late) => Ok(None),
                ended => ended,
            },
            _ => {
                let mut run = Box::pin(scope.run(body));
                poll_fn(|cx| with_fresh_waker(cx, |cx| run.as_mut().poll(cx))).await
            }
        };
        let (why, absorbed) = (scope.cancelled().map(Cancelled::reason), scope.absorbed());
        self.say(id, format!("{outcome:?}, {why:?}, {absorbed}"));
        outcome.map(drop)
    }

    pub(super) async fn group(
        self: &Rc<Self>,
        id: usize,
        steps: &[Step],
        children: &[(usize, Vec<Step>)],
        at: &Place,
    ) -> Outcome {
        let ended = group(async |g| {
            self.targets.borrow_mut().insert(id, Target::Group(g));
            for (child, steps) in children {
                let (play, child, body) =
                    (Rc::clone(self), *child, self.body(*child, steps, false));
                let task = async move {
                    pause(child).await;
                    let ended = body.await;
                    play.say(child, format!("{ended:?}"));
                    ended
                };
                let task = match self.ways.of(child, SPAWN) {
                    0 => g.spawn(task),
                    _ => g.spawn_eager(task),
                };
                if let Some(handle) = task.cancel_handle() {
                    let task = (self.ways.of(child, KEEP) == 0).then_some(task);
                    let target = Target::Task(task, handle);
                    self.targets.borrow_mut().insert(child, target);
                }
            }
            pause(id).await;
            self.body(id, steps, at.may_be_dropped).await
        });
        let outcome = ended.await.map_err(Failure::from);
        self.say(id, format!("{outcome:?}"));
        outcome.map(drop)
    }
}
