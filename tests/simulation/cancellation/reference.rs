//! The reference: scopes as the rules speak of them, and nothing clever.
//!
//! A scope has a parent, a shield, what it was cancelled for and how much grace that has. Whether it
//! is effectively cancelled is looked up anew each time, all the way out. Nothing is ever removed.
//!
//! What the runtime may see now or a little later is *perhaps*: a deadline that is reached, a cancel
//! on its way to its core. It is certain when the rules say that it must have been seen, or when
//! somebody has. The first cause stays; as long as it is not known which was the first, each may be.

use std::time::Duration;

use quoit::{Delivery, Reason};

use super::truth::Truth;

/// A scope, by its number.
pub(super) type Node = usize;

/// Nanoseconds of virtual time.
pub(super) type Time = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shield {
    None,
    Grace,
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Root,
    Scope,
    Group,
    Daemons,
    Race,
    Task,
    /// A task that its caller waits for on another core.
    Far,
}

/// By when a cancel has been seen, if not by passing of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// By the next op of its core.
    NextOp,
    /// In a turn of its core after so many.
    LaterTurn(u64),
    /// In time, once nothing lives below this node but what is below the cancelled one.
    Quiet(Node),
    /// Somebody has yet to say.
    Unknown,
    /// In time.
    InTime,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Cause {
    pub(super) reason: Reason,
    pub(super) grace: Duration,
    pub(super) posted: Time,
    pub(super) seen: Seen,
    /// Of one that has the grace that is left of another: when that ends, at the earliest and at the latest; 0 if it has
    /// none.
    pub(super) ends: Option<(Time, Time)>,
}

impl Cause {
    /// When its grace ends, at the earliest and at the latest.
    fn ends(&self) -> (Time, Time) {
        let end = self.posted + nanos(self.grace);
        self.ends.unwrap_or((end, end))
    }

    /// Until when it may have some; `None` if it never had.
    fn last_of_grace(&self, slack: Time) -> Option<Time> {
        let had_some = match self.ends {
            Some((_, latest)) => latest > 0,
            None => !self.grace.is_zero(),
        };
        let (_, latest) = self.ends();
        had_some.then_some(latest + 2 * slack)
    }
}

#[derive(Debug)]
pub(super) struct Scope {
    pub(super) parent: Option<Node>,
    pub(super) kind: Kind,
    pub(super) core: usize,
    pub(super) shield: Shield,
    /// What it was or may have been cancelled for: one of these, and the first of them.
    pub(super) causes: Vec<Cause>,
    /// It was.
    pub(super) certain: bool,
    /// Some of that came with the end of a scope around it, and may have been seen from outside before.
    pub(super) inherits: bool,
    pub(super) deadline: Option<Time>,
    /// It has begun, or is known to its core by a handle.
    pub(super) has_node: bool,
    /// Its deadline is looked at by its core, not only by whoever asks it.
    pub(super) is_armed: bool,
    /// What a cancel has that says nothing of grace.
    pub(super) grace: Duration,
    pub(super) alive: bool,
    /// Where somebody waits for this one, if that is on another core.
    pub(super) caller: Option<Node>,
    /// A handle of it was used to cancel it.
    pub(super) told_by_handle: bool,
}

impl Scope {
    /// The scope whose end waits for this one.
    fn waited_in(&self) -> Option<Node> {
        self.caller.or(self.parent)
    }

    /// A deadline that has passed is a cancel on its way, since then or since `noticed`.
    fn deadline_passes(&mut self, now: Time, noticed: Option<Time>) {
        if let Some(deadline) = self.deadline.filter(|&deadline| deadline <= now) {
            self.deadline = None;
            if !self.certain {
                self.causes.push(Cause {
                    reason: Reason::Deadline,
                    grace: self.grace,
                    posted: noticed.unwrap_or(deadline),
                    seen: Seen::InTime,
                    ends: None,
                });
            }
        }
    }
}

/// All scopes of a program.
#[derive(Debug, Default)]
pub(super) struct Reference {
    pub(super) scopes: Vec<Scope>,
    /// How late a thing may be seen: nothing, where nobody is held up.
    pub(super) slack: Time,
    pub(super) now: Time,
}

impl Reference {
    pub(super) fn open(&mut self, parent: Option<Node>, kind: Kind, core: usize) -> Node {
        self.scopes.push(Scope {
            parent,
            kind,
            core,
            shield: Shield::None,
            causes: Vec::new(),
            certain: false,
            inherits: false,
            deadline: None,
            has_node: kind != Kind::Scope,
            is_armed: true,
            grace: Duration::ZERO,
            alive: true,
            caller: None,
            told_by_handle: false,
        });
        self.scopes.len() - 1
    }

    // --- the rules ---

    /// Effectively cancelled: itself, or it sees a cancel from outside.
    pub(super) fn refused(&self, node: Node) -> Truth {
        self.own(node).or(self.sees_outside(node))
    }

    /// It was cancelled, or something around it, whatever a shield hides of that.
    pub(super) fn cancelled_around(&self, node: Node) -> Truth {
        let mut around = Truth::No;
        let mut at = Some(node);
        while let Some(node) = at {
            around = around.or(self.own(node));
            at = self.scopes[node].parent;
        }
        around
    }

    /// A cancel from outside is visible here.
    pub(super) fn sees_outside(&self, node: Node) -> Truth {
        let scope = &self.scopes[node];
        match (scope.parent, scope.shield) {
            (None, _) | (_, Shield::Full) => Truth::No,
            (Some(parent), Shield::Grace) => self.hard(parent),
            (Some(parent), Shield::None) => self.refused(parent),
        }
    }

    /// Effectively cancelled, and out of grace.
    fn hard(&self, node: Node) -> Truth {
        let scope = &self.scopes[node];
        let outside = match (scope.parent, scope.shield) {
            (None, _) | (_, Shield::Full) => Truth::No,
            (Some(parent), _) => self.hard(parent),
        };
        self.own_hard(node).or(outside)
    }

    /// Whether a body that ends with a cancellation now keeps it here.
    pub(super) fn absorbs(&self, node: Node) -> Truth {
        self.own(node).and(self.sees_outside(node).not())
    }

    pub(super) fn own(&self, node: Node) -> Truth {
        let scope = &self.scopes[node];
        match (scope.certain, scope.causes.is_empty()) {
            (true, _) => Truth::Yes,
            (false, false) => Truth::Perhaps,
            (false, true) => Truth::No,
        }
    }

    fn own_hard(&self, node: Node) -> Truth {
        let over = |cause: &Cause| {
            let (earliest, _) = cause.ends();
            match cause.last_of_grace(self.slack) {
                Some(last) if self.now <= last => {
                    Truth::of(self.now >= earliest).and(Truth::Perhaps)
                }
                _ => Truth::Yes,
            }
        };
        let causes = self.scopes[node].causes.iter().map(over);
        let (all, any) = causes.fold((Truth::Yes, Truth::No), |(all, any), over| {
            (all.and(over), any.or(over))
        });
        match self.own(node) {
            Truth::Yes if all == Truth::Yes => Truth::Yes,
            Truth::No => Truth::No,
            _ => any.and(Truth::Perhaps),
        }
    }

    /// What an op may be told that is refused here: the cause of the outermost cancelled scope that
    /// it sees, or of one further out that may be.
    pub(super) fn causes(&self, node: Node) -> Vec<(Node, Reason)> {
        let mut causes = Vec::new();
        let mut hard_only = false;
        let mut at = Some(node);
        while let Some(node) = at {
            let scope = &self.scopes[node];
            let visible = if hard_only {
                self.own_hard(node)
            } else {
                self.own(node)
            };
            if visible == Truth::Yes {
                causes.clear();
            }
            if visible != Truth::No {
                causes.extend(scope.causes.iter().map(|cause| (node, cause.reason)));
            }
            hard_only |= scope.shield == Shield::Grace;
            at = scope.parent.filter(|_| scope.shield != Shield::Full);
        }
        causes
    }

    pub(super) fn is_within(&self, node: Node, top: Node) -> bool {
        let mut at = Some(node);
        while let Some(node) = at {
            if node == top {
                return true;
            }
            at = self.scopes[node].waited_in();
        }
        false
    }

    // --- changes ---

    /// Cancels a scope, here and now. `told`: what the caller was told.
    pub(super) fn cancel(
        &mut self,
        node: Node,
        reason: Reason,
        grace: Option<Duration>,
        told: Option<Delivery>,
    ) -> Result<(), String> {
        let now = self.now;
        let scope = &mut self.scopes[node];
        let cause = Cause {
            reason,
            grace: grace.unwrap_or(scope.grace),
            posted: now,
            seen: Seen::InTime,
            ends: None,
        };
        let expected = match (scope.alive, scope.certain, scope.causes.is_empty()) {
            (false, ..) => return expect(told, &[Delivery::Gone], node),
            (true, true, _) => return expect(told, &[Delivery::AlreadyCancelled], node),
            (true, false, true) => &[Delivery::Delivered][..],
            (true, false, false) => &[Delivery::Delivered, Delivery::AlreadyCancelled],
        };
        expect(told, expected, node)?;
        match told {
            Some(Delivery::Delivered) => scope.causes = vec![cause],
            // What was on its way was there first.
            Some(_) => {}
            None => scope.causes.push(cause),
        }
        scope.certain = true;
        Ok(())
    }

    /// Cancels a scope, here and now, with the grace that is left of what cancels it from outside.
    pub(super) fn cancel_in_grace(&mut self, node: Node, reason: Reason) -> Result<(), String> {
        let mut ends = self.grace_ends(node);
        if self.refused(node) != Truth::Yes {
            ends.0 = 0;
        }
        let is_first = !self.scopes[node].certain;
        self.cancel(node, reason, Some(Duration::ZERO), None)?;
        let given = self.scopes[node].causes.last_mut();
        if let Some(given) = given.filter(|_| is_first) {
            given.ends = Some(ends);
        }
        Ok(())
    }

    /// A cancel is on its way to a scope, with the grace that is left then of what cancels it from outside.
    pub(super) fn post_in_grace(&mut self, node: Node, reason: Reason, seen: Seen) {
        self.post(node, reason, Some(Duration::ZERO), seen);
        let posted = self.scopes[node].causes.last_mut();
        if let Some(posted) = posted.filter(|cause| cause.seen == seen) {
            posted.ends = Some((0, 0));
        }
        self.extend_graces();
    }

    /// What has yet to be seen has the grace that is left then.
    pub(super) fn extend_graces(&mut self) {
        for node in 0..self.scopes.len() {
            let scope = &self.scopes[node];
            let Some(parent) = scope.parent.filter(|_| scope.alive && !scope.certain) else {
                continue;
            };
            let is_open =
                |cause: &Cause| matches!(cause.seen, Seen::Quiet(_)) && cause.ends.is_some();
            if scope.causes.iter().any(is_open) {
                let (_, latest) = self.grace_ends(parent);
                let causes = self.scopes[node].causes.iter_mut();
                for cause in causes.filter(|cause| is_open(cause)) {
                    cause.ends = cause
                        .ends
                        .map(|(earliest, known)| (earliest, known.max(latest)));
                }
            }
        }
    }

    /// A cancel is on its way to a scope.
    pub(super) fn post(&mut self, node: Node, reason: Reason, grace: Option<Duration>, seen: Seen) {
        let now = self.now;
        let scope = &mut self.scopes[node];
        if scope.certain {
            return;
        }
        scope.causes.push(Cause {
            reason,
            grace: grace.unwrap_or(scope.grace),
            posted: now,
            seen,
            ends: None,
        });
    }

    /// A cancel is on its way to another core, with grace that ends between these moments.
    pub(super) fn pass_on(&mut self, far: Node, reason: Reason, ends: (Time, Time)) {
        let now = self.now;
        let causes = &mut self.scopes[far].causes;
        match causes.iter_mut().find(|cause| cause.reason == reason) {
            Some(known) => {
                let (earliest, latest) = known.ends();
                known.ends = Some((earliest.min(ends.0), latest.max(ends.1)));
            }
            None => causes.push(Cause {
                reason,
                grace: Duration::ZERO,
                posted: now,
                seen: Seen::Unknown,
                ends: Some(ends),
            }),
        }
    }

    /// When the grace ends, at the earliest and at the latest, of what cancels this scope; 0 if it has none.
    pub(super) fn grace_ends(&self, node: Node) -> (Time, Time) {
        let hard = self.hard(node);
        let (mut earliest, mut latest, mut surely) = (None, 0, None);
        let mut at = Some(node).filter(|_| hard != Truth::Yes);
        while let Some(node) = at {
            let scope = &self.scopes[node];
            let ends = || scope.causes.iter().map(Cause::ends);
            earliest = ends().map(|(first, _)| first).chain(earliest).min();
            let last = ends().map(|(_, last)| last).max();
            latest = latest.max(last.unwrap_or(0));
            surely = last
                .filter(|_| scope.certain)
                .into_iter()
                .chain(surely)
                .min();
            at = scope.parent.filter(|_| scope.shield == Shield::None);
        }
        let Some(earliest) = earliest.filter(|_| hard == Truth::No) else {
            return (0, surely.unwrap_or(latest));
        };
        (earliest, surely.unwrap_or(latest) + self.slack)
    }

    /// A scope's owner is done with it: the tasks below go to its parent, and what it has cancelled
    /// stays so.
    pub(super) fn close(&mut self, node: Node) {
        let (parent, mut causes, certain) = {
            let scope = &mut self.scopes[node];
            scope.alive = false;
            (scope.parent, scope.causes.clone(), scope.certain)
        };
        for cause in &mut causes {
            // Who would have sent it, once something had ended, has been dropped.
            if matches!(cause.seen, Seen::Quiet(_)) {
                cause.seen = Seen::Unknown;
            }
        }
        for task in &mut self.scopes {
            if !task.alive || task.waited_in() != Some(node) {
                continue;
            }
            match &mut task.caller {
                Some(caller) => *caller = parent.expect("the root is never closed"),
                None => task.parent = parent,
            }
            if task.kind == Kind::Task && !task.certain && task.shield == Shield::None {
                task.certain = certain;
                task.inherits |= !causes.is_empty();
                task.causes.extend(&causes);
            }
        }
    }

    /// What waits for others to end waits on.
    pub(super) fn put_off(&mut self, node: Node, now: Time) {
        for cause in &mut self.scopes[node].causes {
            if matches!(cause.seen, Seen::Quiet(_)) {
                cause.posted = now;
            }
        }
    }

    /// Moves the clock. Returns true, having stopped there, when something becomes certain by time
    /// alone on the way; to be called until it does not.
    pub(super) fn pass_to(&mut self, now: Time) -> bool {
        let slack = self.slack;
        let mut next: Option<Time> = None;
        for node in 0..self.scopes.len() {
            for at in 0..self.scopes[node].causes.len() {
                let cause = self.scopes[node].causes[at];
                if let Seen::Quiet(other) = cause.seen
                    && self
                        .life_below(other)
                        .any(|task| !self.is_within(task, node))
                {
                    // Its time has not begun.
                    self.scopes[node].causes[at].posted = now;
                }
            }
            let scope = &mut self.scopes[node];
            if !scope.alive {
                continue;
            }
            if scope.is_armed {
                scope.deadline_passes(now, None);
            }
            let mut due = |at: Time| {
                if at < now && at >= self.now {
                    next = Some(next.map_or(at, |known| known.min(at)));
                }
            };
            for cause in &scope.causes {
                if cause.seen != Seen::Unknown && !scope.certain {
                    due(cause.posted + slack);
                }
                if let Some(last) = cause.last_of_grace(slack) {
                    due(last);
                }
            }
        }
        self.now = next.map_or(now, |at| at + 1);
        for node in 0..self.scopes.len() {
            for at in 0..self.scopes[node].causes.len() {
                let cause = self.scopes[node].causes[at];
                if cause.seen != Seen::Unknown && self.now > cause.posted + slack {
                    self.scopes[node].certain = true;
                }
            }
        }
        next.is_some()
    }

    /// An op begins on a core that has taken so many turns: what was sent to it must have been seen.
    pub(super) fn op_begins(&mut self, core: usize, turns: u64) {
        for scope in &mut self.scopes {
            if scope.core != core || scope.certain {
                continue;
            }
            scope.certain = scope.causes.iter().any(|cause| match cause.seen {
                Seen::NextOp => true,
                Seen::LaterTurn(before) => turns > before,
                Seen::Quiet(_) | Seen::Unknown | Seen::InTime => false,
            });
        }
    }

    /// Somebody has looked whether deadlines have passed, of one scope or of all of a core.
    pub(super) fn deadlines_noticed(&mut self, of: impl Fn(Node, &Scope) -> bool) {
        for (node, scope) in self.scopes.iter_mut().enumerate() {
            // Its own, and not one that was passed on from another core.
            let passed =
                |cause: &Cause| cause.reason == Reason::Deadline && cause.seen == Seen::InTime;
            if !scope.alive || !of(node, scope) {
                continue;
            }
            if !scope.is_armed {
                // Its grace begins only now.
                scope.deadline_passes(self.now, Some(self.now));
            }
            if scope.causes.iter().any(passed) {
                scope.certain = true;
            }
        }
    }

    /// Somebody was told this, as what he sees from here: the scope that it is of is cancelled.
    pub(super) fn learn(&mut self, node: Node, reason: Reason) {
        if let Some(only) = self.of_which(node, reason) {
            self.know(only, reason);
        }
    }

    /// A wait has ended with this, which somebody saw from here then. A scope that has inherited a cause since is not
    /// cancelled for what it saw outside.
    pub(super) fn learn_late(&mut self, node: Node, reason: Reason) {
        let only = self.of_which(node, reason);
        if let Some(only) = only.filter(|&only| !self.scopes[only].inherits) {
            self.know(only, reason);
        }
    }

    /// The one scope that this may be the cause of.
    fn of_which(&self, node: Node, reason: Reason) -> Option<Node> {
        let causes = self.causes(node).into_iter();
        let mut told = causes.filter(|(_, cause)| *cause == reason);
        let (only, _) = told.next()?;
        told.next().is_none().then_some(only)
    }

    /// A scope was cancelled for this.
    pub(super) fn know(&mut self, node: Node, reason: Reason) {
        let scope = &mut self.scopes[node];
        scope.certain = true;
        scope.causes.retain(|cause| cause.reason == reason);
    }

    /// The tasks that live below a scope.
    pub(super) fn life_below(&self, top: Node) -> impl Iterator<Item = Node> {
        let nodes = 0..self.scopes.len();
        nodes.filter(move |&node| {
            let scope = &self.scopes[node];
            scope.alive
                && node != top
                && matches!(scope.kind, Kind::Task | Kind::Far)
                && self.is_within(node, top)
        })
    }

    /// Says in words how a scope stands, and those around it.
    pub(super) fn path(&self, node: Node) -> String {
        let mut text = String::new();
        let mut at = Some(node);
        while let Some(node) = at {
            let scope = &self.scopes[node];
            let said = |cause: &Cause| (cause.reason, cause.posted, cause.grace);
            let causes: Vec<_> = scope.causes.iter().map(said).collect();
            let sure = if scope.certain { "" } else { "perhaps " };
            text += &format!("\n    {:?} {node} on core {}", scope.kind, scope.core);
            if scope.shield != Shield::None {
                text += &format!(", shield {:?}", scope.shield);
            }
            if !causes.is_empty() {
                text += &format!(", {sure}cancelled: {causes:?}");
            }
            if !scope.alive {
                text += ", gone";
            }
            at = scope.parent;
        }
        text
    }
}

fn nanos(duration: Duration) -> Time {
    u64::try_from(duration.as_nanos()).expect("a short time")
}

fn expect(told: Option<Delivery>, expected: &[Delivery], node: Node) -> Result<(), String> {
    match told {
        Some(told) if !expected.contains(&told) => Err(format!(
            "a cancel of scope {node} was answered {told:?}, expected {expected:?}"
        )),
        _ => Ok(()),
    }
}
