//! Waits in something that the runtime does not know, and cannot abort: it wakes them some times.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use super::model::Model;
use super::ops::{At, new_foreign};
use super::plan::Plan;
use super::reference::{Node, Reference, Time};
use super::truth::Truth;

/// Wakes that are spent on one wait in something foreign.
pub(super) const FOREIGN_WAKES: u64 = 8;

/// Until then a wait that is cancelled has been woken once: the longest pause of a task that
/// swallows what it is told, and more.
const BY_THEN: Time = 50_000_000;

/// The waits of a program.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    waits: BTreeMap<u64, Wait>,
    next: u64,
    /// Scopes whose last wait was one in something foreign: the next of that kind is the same one to
    /// the runtime, which may have spent all wakes on it.
    spent: BTreeSet<Node>,
}

#[derive(Debug)]
struct Wait {
    scope: Node,
    /// Since when it is cancelled for sure.
    cancelled: Option<Time>,
    /// It was polled since it may have been.
    polled: bool,
}

impl Foreign {
    /// Looks which waits are cancelled by now.
    pub(super) fn review(&mut self, scopes: &Reference) {
        for wait in self.waits.values_mut() {
            match scopes.refused(wait.scope) {
                Truth::No => (wait.cancelled, wait.polled) = (None, false),
                Truth::Perhaps => wait.cancelled = None,
                Truth::Yes => drop(wait.cancelled.get_or_insert(scopes.now)),
            }
        }
    }

    /// A scope waits in something that the runtime knows.
    pub(super) fn is_over(&mut self, scope: Node) {
        self.spent.remove(&scope);
    }
}

impl Model {
    fn foreign_begins(&mut self, scope: Node, has_company: bool) -> Option<u64> {
        // Who waits beside it in an op is woken for both.
        if has_company || self.foreign.spent.contains(&scope) {
            return None;
        }
        let id = self.foreign.next;
        self.foreign.next += 1;
        self.note(|| format!("begins something foreign in {scope}, wait {id}"));
        let wait = Wait {
            scope,
            cancelled: None,
            polled: false,
        };
        self.foreign.waits.insert(id, wait);
        self.foreign.review(&self.scopes);
        Some(id)
    }

    /// It is not refused for sure, though something has been cancelled.
    fn may_have_been_shielded(&self, scope: Node) -> bool {
        self.scopes.refused(scope) != Truth::Yes && self.scopes.cancelled_around(scope) != Truth::No
    }

    fn foreign_is_polled(&mut self, id: u64) {
        let (now, slack) = (self.scopes.now, self.scopes.slack);
        let wait = self.foreign.waits.get_mut(&id).expect("it waits");
        let polled = std::mem::replace(&mut wait.polled, true);
        let (scope, cancelled) = (wait.scope, wait.cancelled);
        self.note(|| format!("polls something foreign in {scope}, wait {id}"));
        if let Some(at) = cancelled
            && !polled
            && now > at + slack + BY_THEN
        {
            let path = self.scopes.path(scope);
            self.violated(format!(
                "something foreign was cancelled at {at}, and not woken:{path}"
            ));
        }
    }

    fn foreign_ends(&mut self, id: u64) {
        self.foreign_is_polled(id);
        self.foreign.waits.remove(&id);
    }
}

/// A wait in the books, if it is one that can be held to the rules.
struct Waiting {
    plan: Arc<Plan>,
    scope: Node,
    id: Option<u64>,
    began: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let (scope, id, began) = (self.scope, self.id, self.began);
        self.plan.with(|model| {
            if let Some(id) = id {
                model.foreign_ends(id);
            }
            if began {
                model.foreign.spent.insert(scope);
            }
        });
    }
}

/// Waits for something that no cancel ends.
pub(super) async fn foreign(at: &At) {
    let core = at.here.index();
    at.plan()
        .with(|model| model.counts.may_wake[core] += FOREIGN_WAKES);
    let foreign = new_foreign(at);
    let mut wait = pin!(foreign.wait());
    let mut waiting = Waiting {
        plan: Arc::clone(&at.here.plan),
        scope: at.scope,
        id: None,
        began: false,
    };
    poll_fn(|cx| {
        at.plan().with(|model| {
            if waiting.began && (at.has_company || model.may_have_been_shielded(at.scope)) {
                // To the runtime it may wait in something else by now.
                model.counts.may_wake[core] += FOREIGN_WAKES;
            }
            if let Some(id) = waiting.id {
                model.foreign_is_polled(id);
            }
        });
        let polled = wait.as_mut().poll(cx);
        if polled.is_pending() && !std::mem::replace(&mut waiting.began, true) {
            waiting.id = at
                .plan()
                .with(|model| model.foreign_begins(at.scope, at.has_company));
        }
        polled
    })
    .await;
}
