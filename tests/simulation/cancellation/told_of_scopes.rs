//! What the model is told of scopes and races: cancels, shields, deadlines, and what they came to.

use std::time::Duration;

use quoit::{Delivery, Reason};

use super::failure::{Failure, Outcome};
use super::model::Model;
use super::reference::{Kind, Node, Seen, Shield, Time};
use super::truth::Truth;

impl Model {
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

    /// A scope ends because of what cancels it from outside, and cancels what is left in it.
    pub(super) fn cancel_in_grace(&mut self, node: Node, reason: Reason) {
        self.note(|| format!("cancels {node} in the grace it has: {reason:?}"));
        if let Err(wrong) = self.scopes.cancel_in_grace(node, reason) {
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
        let is_told = before || scope.certain;
        let expected = match (scope.alive, is_told, scope.causes.is_empty()) {
            (false, ..) => &[Delivery::Gone][..],
            (true, true, _) => &[Delivery::AlreadyCancelled],
            (true, false, true) => &[Delivery::Delivered],
            (true, false, false) => &[Delivery::Delivered, Delivery::AlreadyCancelled],
        };
        let core = scope.core;
        if !expected.contains(&told) {
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

    /// A cancel will come to a scope, once something has ended; `in_grace` with what is left of that which cancels it from
    /// outside.
    pub(super) fn post(&mut self, node: Node, reason: Reason, seen: Seen, in_grace: bool) {
        if in_grace {
            self.scopes.post_in_grace(node, reason, seen);
        } else {
            self.scopes.post(node, reason, None, seen);
        }
        self.review();
    }

    /// A scope was asked what it was cancelled for itself.
    pub(super) fn own_is(&mut self, node: Node, told: Option<Reason>) {
        self.notice_deadline(node);
        self.own_was(node, told);
    }

    /// The same of one whose run has ended: it looks at no clock any more, and a deadline may have
    /// passed in its last turn that nobody has noticed.
    pub(super) fn own_was(&mut self, node: Node, told: Option<Reason>) {
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
            self.scopes.know(node, reason);
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

    /// A scope that has not begun is asked for a handle: from now on its deadline passes by itself.
    pub(super) fn handle_made(&mut self, node: Node) {
        let scope = &mut self.scopes.scopes[node];
        scope.has_node = true;
        let deadline = scope.deadline;
        self.set_deadline(node, deadline);
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
}
