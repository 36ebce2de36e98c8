//! Ops that are parked, as the reference knows them: what they wait for, and what may end them.

use quoit::Reason;

use super::reference::{Node, Reference, Time};

/// An op, by its number.
pub(super) type OpId = u64;

/// What an op waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// A point in time.
    Time(Time),
    /// Something that the program does, by its number: it tells.
    Told(u64),
    /// Something that nobody here sees coming: the kernel's answer.
    Unseen,
    /// A task on another core.
    Far(Node),
}

/// How it stands with an op that is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stands {
    Waits,
    /// It was there before any cancel.
    Ready,
    /// Its scope was cancelled before that, at this time.
    Doomed(Time),
    /// Either may have come first.
    Either,
}

#[derive(Debug)]
pub(super) struct Op {
    pub(super) name: &'static str,
    pub(super) scope: Node,
    pub(super) core: usize,
    pub(super) until: Until,
    pub(super) stands: Stands,
    /// What it may be aborted for.
    pub(super) causes: Vec<Reason>,
    /// Since when it may have been.
    pub(super) possible_since: Option<Time>,
    /// If it is aborted, that may not be by a wake: it was polled in another scope than before, or it
    /// was refused and had to wait to be told.
    pub(super) uncounted: bool,
}

impl Op {
    pub(super) fn new(name: &'static str, scope: Node, core: usize, until: Until) -> Self {
        Self {
            name,
            scope,
            core,
            until,
            stands: Stands::Waits,
            causes: Vec::new(),
            possible_since: None,
            uncounted: false,
        }
    }

    /// Looks whether its scope is cancelled by now.
    pub(super) fn review(&mut self, scopes: &Reference) {
        let decided = match self.stands {
            Stands::Ready => true,
            // One that is held is told what holds by then.
            Stands::Doomed(_) => !self.uncounted,
            Stands::Waits | Stands::Either => false,
        };
        if decided {
            return;
        }
        let causes = scopes.causes(self.scope);
        if !causes.is_empty() {
            self.possible_since.get_or_insert(scopes.now);
        }
        for (_, reason) in causes {
            if !self.causes.contains(&reason) {
                self.causes.push(reason);
            }
        }
        if self.stands == Stands::Waits && scopes.refused(self.scope) == super::truth::Truth::Yes {
            self.stands = Stands::Doomed(scopes.now);
        }
    }

    /// What it waits for has come.
    pub(super) fn ready(&mut self) {
        if self.stands == Stands::Waits {
            self.stands = if self.causes.is_empty() {
                Stands::Ready
            } else {
                Stands::Either
            };
        }
    }

    /// It has ended with its result: says what is wrong with that.
    pub(super) fn ended_well(&self, now: Time, slack: Time) -> Option<String> {
        let Stands::Doomed(at) = self.stands else {
            return match self.until {
                Until::Time(due) if now < due => Some("ended early".to_owned()),
                Until::Time(due) if now > due + slack => Some("ended late".to_owned()),
                _ => None,
            };
        };
        match self.until {
            Until::Time(due) if now < due => Some("ended early".to_owned()),
            Until::Time(due) if due > at + slack => Some(format!(
                "ended by itself, long after its scope was cancelled at {at}"
            )),
            Until::Told(_) => Some(format!(
                "ended with a result that came after its scope was cancelled at {at}"
            )),
            Until::Unseen if now > at + slack => {
                Some(format!("went on, and its scope was cancelled at {at}"))
            }
            Until::Time(_) | Until::Unseen | Until::Far(_) => None,
        }
    }

    /// It was aborted for this reason: says what is wrong with that.
    pub(super) fn ended_cancelled(&self, reason: Reason, now: Time, slack: Time) -> Option<String> {
        if !self.causes.contains(&reason) {
            return Some(format!(
                "was cancelled for {reason:?}, allowed {:?}",
                self.causes
            ));
        }
        match (self.stands, self.until) {
            (Stands::Ready, _) => Some("was cancelled after its result had come".to_owned()),
            (Stands::Doomed(_), Until::Far(_)) => None,
            (Stands::Doomed(at), _) if now > at + slack && !self.uncounted => {
                Some(format!("was told late of a cancel at {at}"))
            }
            (_, Until::Time(due)) if self.possible_since.is_some_and(|at| at > due + slack) => {
                Some("was cancelled after its time had come".to_owned())
            }
            _ => None,
        }
    }
}
