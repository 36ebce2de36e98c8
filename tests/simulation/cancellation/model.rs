//! What a program says of itself while it runs, held against the reference.
//!
//! Every op, scope, group and task tells when it begins and what it came to. What the rules forbid is
//! written down as a violation; the first of them fails the run at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use quoit::{Cancelled, Delivery, Misuse, Reason, Remote};

use super::books::{Book, Child, Stage, Told};
use super::failure::{Failure, Outcome, Parts};
use super::ops::Held;
use super::reference::{Kind, Node, Reference, Seen, Shield, Time};
use super::truth::Truth;
use super::waits::{Op, OpId, Stands, Until};

/// All that is known of a program.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) scopes: Reference,
    ops: BTreeMap<OpId, Op>,
    next_op: OpId,
    pub(super) groups: BTreeMap<Node, Book>,
    pub(super) children: BTreeMap<Node, Child>,
    /// What tasks on other cores came to, and whether they were cancelled then.
    far: BTreeMap<Node, (Result<Outcome, u32>, Truth)>,
    /// How many turns each core has begun, as it was last said.
    pub(super) turns: Vec<u64>,
    pub(super) violations: Vec<String>,
    /// Whether every change is written into the trace.
    pub(super) talks: bool,
    pub(super) counts: Counts,
}

/// What has happened, in numbers.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) ops: u64,
    /// Parked ops that were cancelled, or may have been, per core.
    pub(super) may_abort: Vec<u64>,
    /// Cancels that were sent from a core, or may have been.
    pub(super) may_send: Vec<u64>,
    /// Parked ops that said that they were cancelled.
    pub(super) aborted: Vec<u64>,
    pub(super) refused: u64,
    pub(super) absorbed: u64,
    pub(super) passed_on: u64,
    pub(super) group_failures: u64,
    /// Wakes of tasks that wait in nothing the runtime knows.
    pub(super) may_wake: Vec<u64>,
    /// Questions that the reference could not answer.
    pub(super) open_questions: u64,
}

/// How an op was when it was polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    Pending,
    Done,
    Cancelled(Cancelled),
}

/// What becomes of an op after its first poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// It has ended.
    Over,
    Parked(OpId),
    /// The same, or it was refused and held, and will be told: nobody knows.
    ParkedOrHeld(OpId),
    /// It was refused and has to wait for that to be told: it begins again with its next poll.
    Held,
}

impl Model {
    pub(super) fn new(cores: usize, slack: Duration) -> Self {
        let mut model = Self::default();
        model.scopes.slack = slack.as_nanos() as u64;
        for core in 0..cores {
            model.scopes.open(None, Kind::Root, core);
        }
        model.turns = vec![0; cores];
        model.counts.may_abort = vec![0; cores];
        model.counts.aborted = vec![0; cores];
        model.counts.may_wake = vec![0; cores];
        model.counts.may_send = vec![0; cores];
        model
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if self.talks {
            quoit::sim::note(text());
        }
    }

    pub(super) fn violated(&mut self, text: String) {
        let text = format!("at {:?}: {text}", Duration::from_nanos(self.scopes.now));
        quoit::sim::note(format!("VIOLATION {text}"));
        self.violations.push(text);
    }

    /// Says what time it is.
    pub(super) fn tick(&mut self, now: Time) {
        for book in self.groups.values() {
            // A child that is starting holds its group open.
            if let Some(daemons) = book.daemons.filter(|_| book.promises > 0) {
                self.scopes.put_off(daemons, now);
            }
        }
        while self.scopes.pass_to(now) {
            self.review();
        }
        self.review();
    }

    /// Looks at every parked op, after a change, until nothing is passed on to another core.
    fn review(&mut self) {
        while self.review_once() {}
    }

    fn review_once(&mut self) -> bool {
        let mut relayed = Vec::new();
        for op in self.ops.values_mut() {
            op.review(&self.scopes);
            if let Until::Far(far) = op.until {
                relayed.push((
                    far,
                    op.causes.clone(),
                    matches!(op.stands, Stands::Doomed(_)),
                ));
            }
        }
        let mut changed = false;
        for (far, causes, certain) in relayed {
            changed |= self.relay(far, &causes, certain);
        }
        changed
    }

    /// The caller of a task on another core is cancelled, or may be. Returns whether that was news.
    fn relay(&mut self, far: Node, causes: &[Reason], certain: bool) -> bool {
        let turns = self.turns[self.scopes.scopes[far].core];
        let mut news = false;
        if self.scopes.scopes[far].certain {
            return news;
        }
        for &reason in causes {
            let known = &self.scopes.scopes[far].causes;
            if known.iter().all(|cause| cause.reason != reason) {
                self.scopes.post(far, reason, None, Seen::Unknown);
                news = true;
            }
        }
        let now = self.scopes.now;
        for cause in &mut self.scopes.scopes[far].causes {
            if certain && cause.seen == Seen::Unknown {
                (cause.seen, cause.posted) = (Seen::LaterTurn(turns), now);
            }
        }
        news
    }

    // --- ops ---

    /// An op is about to be polled for the first time. What was sent to its core it takes first; and
    /// if it is a yield, it looks at the clock.
    pub(super) fn before_op(&mut self, core: usize, is_yield: bool) {
        let turns = self.turns[core];
        self.scopes.op_begins(core, turns);
        if is_yield {
            self.scopes
                .deadlines_noticed(|_, scope| scope.core == core && scope.is_armed);
        }
        self.review();
    }

    /// An op was polled that had not begun: `held`: whether a refusal is told at once.
    pub(super) fn op_begins(&mut self, op: Op, polled: Polled, held: Held) -> Begun {
        self.counts.ops += 1;
        let (name, scope) = (op.name, op.scope);
        self.note(|| format!("begins {name} in {scope}: {polled:?}, op {}", self.next_op));
        let refused = self.scopes.refused(scope);
        match polled {
            Polled::Cancelled(_) if held == Held::Surely => {
                self.violated(format!(
                    "{name} was refused in a poll that had enough of it"
                ));
                Begun::Over
            }
            Polled::Cancelled(cancelled) => {
                self.counts.refused += 1;
                // These look again once they have parked, all in their first poll.
                let looks_again = matches!(name, "foreign" | "event" | "on");
                self.counts.may_abort[op.core] += u64::from(looks_again);
                self.expect_cause(name, scope, cancelled.reason());
                self.scopes.learn(scope, cancelled.reason());
                self.review();
                Begun::Over
            }
            Polled::Done | Polled::Pending if refused != Truth::Yes => {
                if polled == Polled::Done {
                    return Begun::Over;
                }
                let id = self.next_op;
                self.next_op += 1;
                // It may have been refused, and held.
                let uncounted = refused == Truth::Perhaps && held != Held::Not;
                self.ops.insert(id, Op { uncounted, ..op });
                self.review();
                match uncounted {
                    true => Begun::ParkedOrHeld(id),
                    false => Begun::Parked(id),
                }
            }
            // The others have a turn, or it has to pause, before it is told.
            Polled::Pending if held != Held::Not => Begun::Held,
            _ => {
                let path = self.scopes.path(scope);
                self.violated(format!("{name} has begun where it must be refused:{path}"));
                Begun::Over
            }
        }
    }

    fn expect_cause(&mut self, name: &str, scope: Node, reason: Reason) {
        let causes = self.scopes.causes(scope);
        if causes.iter().all(|(_, cause)| *cause != reason) {
            let path = self.scopes.path(scope);
            self.violated(format!(
                "{name} was refused for {reason:?}, allowed {causes:?}:{path}"
            ));
        }
    }

    /// A parked op is about to be polled, in this scope. It follows.
    pub(super) fn op_is_polled(&mut self, id: OpId, core: usize, scope: Node) {
        let moves = self.ops.get(&id).is_some_and(|op| op.scope != scope);
        if moves {
            self.before_op(core, false);
            let op = self.ops.get_mut(&id).expect("just seen");
            // What is decided is decided where it was.
            if op.stands == Stands::Waits || op.stands == Stands::Either {
                op.scope = scope;
            }
            op.uncounted = true;
            self.review();
        }
    }

    /// A parked op has ended.
    pub(super) fn op_ends(&mut self, id: OpId, polled: Polled) {
        let Some(op) = self.forget_op(id) else { return };
        let (now, slack) = (self.scopes.now, self.scopes.slack);
        self.note(|| format!("ends {} in {}: {polled:?}, op {id}", op.name, op.scope));
        let wrong = match polled {
            Polled::Pending => unreachable!("it has ended"),
            Polled::Done => op.ended_well(now, slack),
            Polled::Cancelled(cancelled) => {
                // One that is aborted by being polled elsewhere needs no wake.
                self.counts.aborted[op.core] += u64::from(!op.uncounted);
                let reason = cancelled.reason();
                if matches!(reason, Reason::User(_)) {
                    self.scopes.learn(op.scope, reason);
                }
                op.ended_cancelled(reason, now, slack)
            }
        };
        if let Some(wrong) = wrong {
            let path = self.scopes.path(op.scope);
            self.violated(format!("{} {wrong} (op {id}):{path}", op.name));
        }
    }

    /// A parked op was dropped.
    pub(super) fn op_dropped(&mut self, id: OpId) {
        self.note(|| format!("drops op {id}"));
        if let Some(op) = self.forget_op(id)
            && let Until::Far(far) = op.until
        {
            let reason = [Reason::Dropped];
            self.relay(far, &reason, true);
        }
    }

    fn forget_op(&mut self, id: OpId) -> Option<Op> {
        let op = self.ops.remove(&id)?;
        if !op.causes.is_empty() {
            // A yield is no wait that could be aborted: its task is woken, if nothing else waits there.
            match op.name {
                "yield" => self.counts.may_wake[op.core] += 1,
                _ => self.counts.may_abort[op.core] += 1,
            }
        }
        Some(op)
    }

    /// What some ops wait for has come.
    pub(super) fn told(&mut self, what: u64) {
        for op in self.ops.values_mut() {
            if op.until == Until::Told(what) {
                op.ready();
            }
        }
    }

    /// Ops that are parked below a scope: there are none once it has ended.
    fn ops_below(&self, top: Node) -> Vec<&'static str> {
        let below = self.ops.values();
        below
            .filter(|op| self.scopes.is_within(op.scope, top))
            .map(|op| op.name)
            .collect()
    }

    // --- scopes ---

    pub(super) fn cancel(
        &mut self,
        node: Node,
        reason: Reason,
        grace: Option<Duration>,
        told: Option<Delivery>,
    ) {
        self.note(|| format!("cancels {node}: {reason:?}, grace {grace:?}, told {told:?}"));
        if let Err(wrong) = self.scopes.cancel(node, reason, grace, told) {
            let path = self.scopes.path(node);
            self.violated(format!("{wrong}:{path}"));
        }
        self.review();
    }

    /// A cancel was sent by a handle, from this core or from another place.
    pub(super) fn cancel_by_handle(
        &mut self,
        node: Node,
        reason: Reason,
        grace: Option<Duration>,
        from: Option<usize>,
        told: Delivery,
    ) {
        self.note(|| format!("sends {node}: {reason:?}, grace {grace:?}, told {told:?}"));
        if let Some(core) = from {
            self.counts.may_send[core] += 1;
        }
        let scope = &mut self.scopes.scopes[node];
        let before = std::mem::replace(&mut scope.told_by_handle, true);
        let expected = match (scope.alive, before) {
            (false, _) => Delivery::Gone,
            (true, true) => Delivery::AlreadyCancelled,
            (true, false) => Delivery::Delivered,
        };
        let core = scope.core;
        if told != expected {
            let path = self.scopes.path(node);
            self.violated(format!(
                "a handle of scope {node} answered {told:?}, expected {expected:?}:{path}"
            ));
        }
        if told == Delivery::Delivered {
            let seen = if from == Some(core) {
                Seen::NextOp
            } else {
                Seen::LaterTurn(self.turns[core])
            };
            self.scopes.post(node, reason, grace, seen);
            self.review();
        }
    }

    /// A cancel will come to a scope, once something has ended.
    pub(super) fn post(&mut self, node: Node, reason: Reason, seen: Seen) {
        self.scopes.post(node, reason, None, seen);
        self.review();
    }

    /// A scope was asked what it was cancelled for itself.
    pub(super) fn own_is(&mut self, node: Node, told: Option<Reason>) {
        self.notice_deadline(node);
        let own = self.scopes.own(node);
        let causes = &self.scopes.scopes[node].causes;
        let right = match told {
            None => own.allows(false),
            Some(reason) => causes.iter().any(|cause| cause.reason == reason),
        };
        if !right {
            let path = self.scopes.path(node);
            self.violated(format!(
                "a scope says that it was cancelled for {told:?}:{path}"
            ));
        }
        if let Some(reason) = told {
            let scope = &mut self.scopes.scopes[node];
            scope.certain = true;
            scope.causes.retain(|cause| cause.reason == reason);
        }
    }

    pub(super) fn set_shield(&mut self, node: Node, shield: Shield) {
        self.note(|| format!("shields {node}: {shield:?}"));
        self.scopes.scopes[node].shield = shield;
        self.review();
    }

    /// Looks whether a scope's deadline has passed, as the scope itself does when it is asked.
    pub(super) fn notice_deadline(&mut self, node: Node) {
        self.scopes.deadlines_noticed(|other, _| other == node);
        self.review();
    }

    pub(super) fn set_deadline(&mut self, node: Node, deadline: Option<Time>) {
        let now = self.scopes.now;
        self.note(|| format!("sets the deadline of {node}: {deadline:?}"));
        if self.scopes.own(node) == Truth::Yes {
            return;
        }
        let scope = &mut self.scopes.scopes[node];
        scope.deadline = deadline;
        scope.is_armed = scope.has_node && deadline.is_some_and(|at| at > now);
        if deadline.is_some_and(|at| at <= now) {
            self.notice_deadline(node);
        }
    }

    /// A scope is run, in this one.
    pub(super) fn scope_begins(&mut self, node: Node, parent: Node, timeout: Option<Duration>) {
        let due = timeout.map(|timeout| self.scopes.now + timeout.as_nanos() as Time);
        let scope = &mut self.scopes.scopes[node];
        (scope.parent, scope.has_node) = (Some(parent), true);
        let first = scope.deadline.into_iter().chain(due).min();
        self.set_deadline(node, first);
        self.review();
    }

    /// A body has ended with this: says whether its scope keeps the cancellation, if it is one.
    pub(super) fn body_ends(&mut self, node: Node, outcome: &Outcome) -> Truth {
        match outcome {
            Err(failure) if failure.parts().cancelled.is_some() => self.scopes.absorbs(node),
            _ => Truth::No,
        }
    }

    /// Ops whose futures live on outside of a scope that has ended.
    pub(super) fn ops_leave(&mut self, node: Node) {
        let parent = self.scopes.scopes[node].parent;
        for op in self.ops.values_mut().filter(|op| op.scope == node) {
            op.scope = parent.expect("the root never ends");
        }
        self.review();
    }

    /// A race has come to this, and its branches, in the order of their ends, to that.
    pub(super) fn race_ends(&mut self, ends: Vec<(Outcome, Truth)>, came: &Result<u32, Failure>) {
        let mut failures = Vec::new();
        let mut values = Vec::new();
        let mut passes = Truth::No;
        for (outcome, keeps) in &ends {
            match outcome {
                Ok(value) => values.push(*value),
                Err(failure) => {
                    let parts = failure.parts();
                    failures.extend(parts.failure);
                    if parts.cancelled.is_some() {
                        passes = passes.or(keeps.not());
                    }
                }
            }
        }
        let right = match came {
            Ok(value) => failures.is_empty() && values.contains(value),
            Err(Failure::Several { errors, cancelled }) => {
                let same = errors.len() == failures.len()
                    && errors.iter().all(|error| failures.contains(error));
                let values = values.is_empty() || !failures.is_empty();
                same && values && passes.allows(cancelled.is_some())
            }
            Err(_) => false,
        };
        if !right {
            self.violated(format!("a race of {ends:?} came to {came:?}"));
        }
    }

    /// A scope has ended by itself, and its run came to this.
    pub(super) fn scope_ends(
        &mut self,
        node: Node,
        body: Option<(Outcome, Truth)>,
        run: &Result<Option<u32>, Failure>,
        absorbed: bool,
    ) {
        let Some((body, keeps)) = body else {
            // Never polled: as it is with a misuse, which these programs do not make.
            self.violated(format!("scope {node} ended without its body: {run:?}"));
            return;
        };
        let wrong = match &body {
            Ok(value) => *run != Ok(Some(*value)),
            Err(failure) => {
                let parts = failure.parts();
                let kept = match parts.failure {
                    Some(rest) => Err(rest),
                    None => Ok(None),
                };
                let cancelled = parts.cancelled.is_some();
                match absorbed && cancelled {
                    true => !keeps.allows(true) || *run != kept,
                    false => !keeps.allows(false) || *run != Err(failure.clone()),
                }
            }
        };
        if wrong || (absorbed && keeps == Truth::No) {
            let path = self.scopes.path(node);
            self.violated(format!(
                "a body ended with {body:?}, its scope keeps cancellations: {keeps:?}; \
                 but its run came to {run:?}, absorbed {absorbed}:{path}"
            ));
        }
        if absorbed {
            self.counts.absorbed += 1;
        } else if body.is_err_and(|failure| failure.parts().cancelled.is_some()) {
            self.counts.passed_on += 1;
        }
        self.nothing_lives_below(node);
    }

    /// A task has ended: no op of it is parked.
    pub(super) fn nothing_waits_below(&mut self, task: Node) {
        let ops = self.ops.values();
        let left: Vec<_> = ops
            .filter(|op| op.scope == task)
            .map(|op| op.name)
            .collect();
        if !left.is_empty() {
            self.violated(format!("task {task} has ended, and waits: {left:?}"));
        }
    }

    /// The end of a scope or group is the end of all that was started inside.
    pub(super) fn nothing_lives_below(&mut self, node: Node) {
        let tasks: Vec<Node> = self.scopes.life_below(node).collect();
        let ops = self.ops_below(node);
        if !tasks.is_empty() || !ops.is_empty() {
            let path = self.scopes.path(node);
            self.violated(format!(
                "a scope has ended, and in it are the tasks {tasks:?} and the ops {ops:?}:{path}"
            ));
        }
    }

    pub(super) fn close(&mut self, node: Node) {
        if !self.scopes.scopes[node].alive {
            return;
        }
        self.note(|| format!("closes {node}"));
        let parent = self.scopes.scopes[node].parent;
        for op in self.ops.values_mut() {
            // Its future lives on outside.
            if op.scope == node {
                op.scope = parent.expect("the root is never closed");
            }
        }
        self.scopes.close(node);
        self.review();
        if matches!(self.scopes.scopes[node].kind, Kind::Task | Kind::Far) {
            let open = self.groups.iter().filter(|(_, book)| book.open);
            for group in open.map(|(&group, _)| group).collect::<Vec<_>>() {
                self.look_for_the_end(group);
            }
        }
    }

    // --- tasks and groups ---

    /// Returns the scope of a group's daemons.
    pub(super) fn daemons(&mut self, group: Node, core: usize) -> Node {
        if let Some(daemons) = self.groups[&group].daemons {
            return daemons;
        }
        let daemons = self.scopes.open(Some(group), Kind::Daemons, core);
        let book = self.groups.get_mut(&group).expect("it is open");
        book.daemons = Some(daemons);
        daemons
    }

    /// The future of a group's child has ended, or panicked with this number.
    pub(super) fn child_ends(&mut self, task: Node, outcome: Result<Outcome, u32>) {
        let group = self.children[&task].group;
        if self.children[&task].stage == Stage::Starting {
            return self.starting_child_ends(task, outcome);
        }
        let told = match outcome {
            Ok(Ok(value)) => Told::Value(value),
            Ok(Err(failure)) => self.child_erred(task, group, &failure),
            Err(panic) => {
                let (keeps, book) = self.child_and_book(task, group);
                if keeps {
                    Told::Panicked(panic)
                } else {
                    book.panics.push(panic);
                    self.group_fails(group, false);
                    Told::Reported
                }
            }
        };
        let child = self.children.get_mut(&task).expect("it was started");
        child.told = Some(told);
        self.close(task);
        self.told(task_number(task));
        self.look_for_the_end(group);
    }

    /// A child has ended that had not come to its group.
    fn starting_child_ends(&mut self, task: Node, outcome: Result<Outcome, u32>) {
        let told = match outcome {
            Ok(Ok(value)) => Told::Value(value),
            Err(panic) => Told::Panicked(panic),
            Ok(Err(failure)) => {
                let parts = failure.parts();
                let stray = self.scopes.refused(task) == Truth::No && parts.cancelled.is_some();
                Told::Failed(match stray {
                    true => parts.failure.unwrap_or(Failure::Misuse(Misuse::Stray)),
                    false => failure,
                })
            }
        };
        let child = self.children.get_mut(&task).expect("it was started");
        child.told = Some(told);
        self.close(task);
    }

    /// A child reports that it has started; `refused`: in a scope that is cancelled.
    pub(super) fn child_reports(&mut self, task: Node, refused: bool) {
        let child = self.children.get_mut(&task).expect("it was started");
        child.reported = true;
        if child.stage == Stage::Starting && !refused {
            child.stage = Stage::Child;
            let group = child.group;
            if self.groups[&group].open {
                self.scopes.scopes[task].parent = Some(group);
            } else {
                // It was dropped meanwhile, and has no place for it: cancelled, as its other children
                // were.
                self.cancel(task, Reason::Dropped, None, None);
            }
            self.review();
        }
    }

    /// A call of `start` has ended, or was dropped: it holds the group open no more.
    pub(super) fn start_ends(&mut self, task: Node, dropped: bool) {
        let child = self.children.get_mut(&task).expect("it was started");
        let group = child.group;
        if dropped && child.stage == Stage::Starting && child.told.is_none() {
            child.stage = Stage::Unwanted;
            self.cancel(task, Reason::Dropped, None, None);
        }
        let book = self.groups.get_mut(&group).expect("it is there");
        book.promises -= 1;
        self.look_for_the_end(group);
    }

    /// Compares what `start` has told with what its child did.
    pub(super) fn start_told(&mut self, task: Node, told: &Result<u32, Failure>) {
        let child = &self.children[&task];
        let expected = match (&child.told, child.stage, child.reported) {
            (_, Stage::Child, _) | (Some(Told::Value(_)), _, true) => Ok(task as u32),
            (Some(Told::Value(_)), _, false) => Err(Failure::NotStarted),
            (Some(Told::Failed(failure)), ..) => Err(failure.clone()),
            (other, ..) => {
                let text = format!("start told {told:?} of a child that came to {other:?}");
                return self.violated(text);
            }
        };
        if *told != expected {
            self.violated(format!("start told {told:?}, expected {expected:?}"));
        }
    }

    fn child_erred(&mut self, task: Node, group: Node, failure: &Failure) -> Told {
        let parts = failure.parts();
        let Some(cancelled) = parts.cancelled else {
            return self.child_failed(task, group, failure.clone());
        };
        let refused = self.scopes.refused(task);
        let daemons = self.groups[&group].daemons;
        let own = self.scopes.absorbs(task);
        let own = own.or(daemons.map_or(Truth::No, |daemons| self.scopes.absorbs(daemons)));
        if refused == Truth::No {
            let stray = Failure::Misuse(Misuse::Stray);
            return self.child_failed(task, group, parts.failure.unwrap_or(stray));
        }
        let book = self.groups.get_mut(&group).expect("it is open");
        if refused == Truth::Perhaps {
            book.open_question = true;
        }
        book.passed_on = book.passed_on.or(own.not());
        match parts.failure {
            Some(rest) => self.child_failed(task, group, rest),
            None => Told::Cancelled(cancelled.reason()),
        }
    }

    fn child_failed(&mut self, task: Node, group: Node, failure: Failure) -> Told {
        let (keeps, book) = self.child_and_book(task, group);
        if keeps {
            return Told::Failed(failure);
        }
        book.errors.push(failure);
        self.group_fails(group, false);
        Told::Reported
    }

    /// Whether a child's failure stays with its handle; and its group.
    fn child_and_book(&mut self, task: Node, group: Node) -> (bool, &mut Book) {
        let handle = self.children[&task].has_handle;
        let book = self.groups.get_mut(&group).expect("it is open");
        (book.isolating && handle, book)
    }

    /// Something of a group has failed: that cancels it, if it is one that fails as a whole.
    fn group_fails(&mut self, group: Node, body: bool) {
        if !self.groups[&group].isolating || body {
            self.cancel(group, Reason::Failure, None, None);
        }
    }

    /// Somebody drops the handle of a child without having asked it.
    pub(super) fn handle_dropped(&mut self, task: Node) {
        let child = self.children.get_mut(&task).expect("it was started");
        child.has_handle = false;
        let book = self.groups.get_mut(&child.group).expect("it is there");
        match child.told.clone() {
            Some(Told::Failed(failure)) => book.errors.push(failure),
            Some(Told::Panicked(panic)) => book.panics.push(panic),
            _ => {}
        }
    }

    /// A handle has told what its child came to.
    pub(super) fn handle_told(&mut self, task: Node, told: &Told) {
        let child = self.children.get_mut(&task).expect("it was started");
        child.has_handle = false;
        if child.told.as_ref() != Some(told) {
            let text = format!("the handle of task {task} told {told:?}: {child:?}");
            self.violated(text);
        }
    }

    /// The body of a group has ended.
    pub(super) fn group_body_ends(&mut self, group: Node, outcome: Result<Outcome, u32>) {
        let book = self.groups.get_mut(&group).expect("it is open");
        let failed = !matches!(outcome, Ok(Ok(_)));
        match &outcome {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => {
                let parts = failure.parts();
                if parts.cancelled.is_some() {
                    book.passed_on = Truth::Yes;
                }
                book.errors.extend(parts.failure);
            }
            Err(panic) => book.panics.push(*panic),
        }
        book.body = Some(outcome);
        if failed {
            self.group_fails(group, true);
        }
        self.look_for_the_end(group);
    }

    /// Once body and children have ended, the daemons are cancelled.
    pub(super) fn look_for_the_end(&mut self, group: Node) {
        let book = &self.groups[&group];
        let Some(daemons) = book.daemons else { return };
        if book.body.is_none() || book.promises > 0 || self.has_children(group) {
            return;
        }
        if self.scopes.own(daemons) == Truth::No {
            self.scopes
                .post(daemons, Reason::Finished, None, Seen::Quiet(group));
            self.review();
        }
    }

    /// Whether children live directly below a group, daemons aside.
    fn has_children(&self, group: Node) -> bool {
        let mut life = self.scopes.life_below(group);
        let daemons = self.groups[&group].daemons;
        life.any(|task| !daemons.is_some_and(|daemons| self.scopes.is_within(task, daemons)))
    }

    /// A group was dropped before its end: what it has started is cancelled.
    pub(super) fn group_dropped(&mut self, group: Node) {
        let book = self.groups.get_mut(&group).expect("it is open");
        if !std::mem::take(&mut book.open) {
            return;
        }
        if let Some(daemons) = book.daemons.take() {
            self.cancel(daemons, Reason::Dropped, None, None);
            self.cancel(group, Reason::Dropped, None, None);
            self.close(daemons);
        } else {
            self.cancel(group, Reason::Dropped, None, None);
        }
    }

    /// A task begins on another core, which its caller waits for here.
    pub(super) fn far_begins(&mut self, caller: Node, here: usize, there: usize) -> Node {
        // Whichever side comes second sends a cancel, and only that one.
        self.counts.may_send[here] += 1;
        if there != here {
            self.counts.may_send[there] += 1;
        }
        // The roots are the first scopes.
        let far = self.scopes.open(Some(there), Kind::Far, there);
        self.scopes.scopes[far].caller = Some(caller);
        far
    }

    /// A task on another core has ended: with this, or unheard.
    pub(super) fn far_ends(&mut self, far: Node, outcome: Option<Result<Outcome, u32>>) {
        if let Some(outcome) = outcome {
            self.far.insert(far, (outcome, self.scopes.own(far)));
        }
        self.close(far);
    }

    /// Compares what a call of another core has told with what was done there.
    pub(super) fn far_told(&mut self, far: Node, told: &Outcome) {
        let Some((outcome, cancelled)) = self.far.get(&far) else {
            if !matches!(told, Err(Failure::Cancelled(_))) {
                self.violated(format!("a call told {told:?}, and nothing has run there"));
            }
            return;
        };
        let right = match outcome {
            Ok(Ok(value)) => *told == Ok(*value),
            Err(_) => matches!(told, Err(Failure::Remote(Remote::Panicked(_)))),
            Ok(Err(failure)) => match failure.parts() {
                Parts {
                    failure: Some(rest),
                    ..
                } => *told == Err(rest),
                Parts { failure: None, .. } => match told {
                    Err(Failure::Cancelled(_)) => cancelled.allows(true),
                    Err(Failure::Misuse(Misuse::Stray)) => cancelled.allows(false),
                    _ => false,
                },
            },
        };
        if !right {
            let text = format!("a call told {told:?}, and there it was {outcome:?}, {cancelled:?}");
            self.violated(text);
        }
    }

    /// A group has ended by itself, with a result or a panic.
    pub(super) fn group_ends(
        &mut self,
        group: Node,
        run: Result<&Result<Option<u32>, Failure>, (u32, usize, usize)>,
    ) {
        if let Some(daemons) = self.groups[&group].daemons {
            self.close(daemons);
        }
        self.nothing_lives_below(group);
        let absorbs = self.scopes.absorbs(group);
        let book = self.groups.get_mut(&group).expect("it is open");
        book.open = false;
        if book.open_question {
            self.counts.open_questions += 1;
            return;
        }
        if let Some(wrong) = book.compare(absorbs, run) {
            let text = format!("{wrong}: {book:?}, absorbs {absorbs:?}, came to {run:?}");
            let path = self.scopes.path(group);
            self.violated(format!("group {group}: {text}:{path}"));
        }
        self.counts.group_failures += u64::from(!self.groups[&group].errors.is_empty());
    }
}

/// What an op waits for that joins a task.
pub(super) fn task_number(task: Node) -> u64 {
    1 << 32 | task as u64
}
