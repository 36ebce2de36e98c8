//! What a program says of itself while it runs, held against the reference.
//!
//! Every op, scope, group and task tells when it begins and what it came to. What the rules forbid is
//! written down as a violation; the first of them fails the run at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use quoit::{Cancelled, Reason};

use super::books::{Book, Child};
use super::failure::{Failure, Outcome};
use super::foreign::Foreign;
use super::ops::Held;
use super::reference::{Kind, Node, Reference, Seen, Time};
use super::truth::Truth;
use super::waits::{Op, OpId, Stands, Until};

/// All that is known of a program.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) scopes: Reference,
    pub(super) ops: BTreeMap<OpId, Op>,
    next_op: OpId,
    pub(super) foreign: Foreign,
    pub(super) groups: BTreeMap<Node, Book>,
    pub(super) children: BTreeMap<Node, Child>,
    /// What tasks on other cores came to, and whether they were cancelled then.
    pub(super) far: BTreeMap<Node, (Result<Outcome, u32>, Truth)>,
    /// Tasks on other cores whose bodies have ended.
    pub(super) left_by_fars: Vec<Node>,
    /// How many turns each core has begun, as it was last said.
    pub(super) turns: Vec<u64>,
    pub(super) violations: Vec<String>,
    /// Whether so many wait that the cancel of all takes a core several turns.
    pub(super) crowded: bool,
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

    pub(super) fn note(&self, text: impl FnOnce() -> String) {
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
        self.close_empty_fars();
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
    pub(super) fn review(&mut self) {
        while self.review_once() {}
        self.scopes.extend_graces();
        self.foreign.review(&self.scopes);
    }

    fn review_once(&mut self) -> bool {
        let mut relayed = Vec::new();
        for op in self.ops.values_mut() {
            op.review(&self.scopes);
            if let Until::Far(far) = op.until {
                let certain = matches!(op.stands, Stands::Doomed(_));
                let ends = self.scopes.grace_ends(op.scope);
                relayed.push((far, op.causes.clone(), certain, ends));
            }
        }
        let mut changed = false;
        for (far, causes, certain, ends) in relayed {
            changed |= self.relay(far, &causes, certain, ends);
        }
        changed
    }

    /// The caller of a task on another core is cancelled, or may be. Returns whether that was news.
    fn relay(&mut self, far: Node, causes: &[Reason], certain: bool, ends: (Time, Time)) -> bool {
        let turns = self.turns[self.scopes.scopes[far].core];
        let mut news = false;
        if self.scopes.scopes[far].certain {
            return news;
        }
        for &reason in causes {
            let known = &self.scopes.scopes[far].causes;
            news |= known.iter().all(|cause| cause.reason != reason);
            self.scopes.pass_on(far, reason, ends);
        }
        let now = self.scopes.now;
        let seen = if self.crowded {
            // It may be sent only in a turn to come.
            Seen::InTime
        } else {
            Seen::LaterTurn(turns)
        };
        for cause in &mut self.scopes.scopes[far].causes {
            if certain && cause.seen == Seen::Unknown {
                (cause.seen, cause.posted) = (seen, now);
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
                self.counts.may_abort[op.core] += u64::from(looks_again(name));
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
                let until = match op.until {
                    // It had to pause before it began, longer than it was to last.
                    Until::Time(due) => Until::Time(due.max(self.scopes.now)),
                    until => until,
                };
                self.ops.insert(
                    id,
                    Op {
                        until,
                        uncounted,
                        ..op
                    },
                );
                self.review();
                match uncounted {
                    true => Begun::ParkedOrHeld(id),
                    false => {
                        self.foreign.is_over(scope);
                        Begun::Parked(id)
                    }
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
                    self.scopes.learn_late(op.scope, reason);
                }
                // What a task on another core ends with comes as it is.
                let own = match op.until {
                    Until::Far(far) => self
                        .far
                        .get(&far)
                        .and_then(|(ended, _)| ended.as_ref().ok()),
                    _ => None,
                };
                let is_its_own = own.is_some_and(|ended| {
                    let parts = ended.as_ref().err().map(Failure::parts);
                    parts.and_then(|parts| parts.cancelled) == Some(cancelled)
                });
                let told = op.causes.first().copied().filter(|_| is_its_own);
                op.ended_cancelled(told.unwrap_or(reason), now, slack)
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
            self.relay(far, &reason, true, (0, 0));
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
        } else if op.stands == Stands::Ready && self.scopes.refused(op.scope) != Truth::No {
            // Its scope waited in nothing any more where a branch beside it brought the result in the same poll.
            self.counts.may_wake[op.core] += 1;
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
    pub(super) fn ops_below(&self, top: Node) -> Vec<&'static str> {
        let below = self.ops.values();
        below
            .filter(|op| self.scopes.is_within(op.scope, top))
            .map(|op| op.name)
            .collect()
    }
}

/// Whether such an op looks at its scope once more when it has parked, in its first poll.
pub(super) fn looks_again(name: &str) -> bool {
    matches!(name, "foreign" | "event" | "on")
}

/// What an op waits for that joins a task.
pub(super) fn task_number(task: Node) -> u64 {
    1 << 32 | task as u64
}
