//! What groups and their children came to, as far as the reference knows.

use quoit::Reason;

use super::failure::{Failure, Outcome};
use super::reference::Node;
use super::truth::Truth;

/// A group.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) isolating: bool,
    pub(super) daemons: Option<Node>,
    /// They were cancelled at the end where nothing around was.
    pub(super) let_daemons_go: Truth,
    /// It takes children.
    pub(super) open: bool,
    /// Children that are starting, and may come to it.
    pub(super) promises: u32,
    pub(super) body: Option<Result<Outcome, u32>>,
    /// What failed, in its order.
    pub(super) errors: Vec<Failure>,
    pub(super) panics: Vec<u32>,
    /// Somebody ended with a cancellation that may not be the group's.
    pub(super) passed_on: Truth,
    /// The body ended with one where nothing was cancelled.
    pub(super) stray: Truth,
    /// Something about it could not be decided.
    pub(super) open_question: bool,
}

impl Book {
    pub(super) fn new(isolating: bool) -> Self {
        Self {
            isolating,
            daemons: None,
            let_daemons_go: Truth::No,
            open: true,
            promises: 0,
            body: None,
            errors: Vec::new(),
            panics: Vec::new(),
            passed_on: Truth::No,
            stray: Truth::No,
            open_question: false,
        }
    }

    /// Compares what the group came to with what it must: a result, or a panic that tells its number
    /// and how many others panicked and failed.
    pub(super) fn compare(
        &self,
        absorbs: Truth,
        run: Result<&Result<Option<u32>, Failure>, (u32, usize, usize)>,
    ) -> Option<&'static str> {
        let run = match (run, self.panics.first()) {
            (Err(panic), Some(&first)) => {
                let told = (first, self.panics.len() - 1, self.errors.len());
                return (panic != told).then_some("another panic than that of its tasks");
            }
            (Err(_), None) => return Some("a panic from nowhere"),
            (Ok(_), Some(_)) => return Some("a panic was lost"),
            (Ok(run), None) => run,
        };
        let passes = self.passed_on.and(absorbs.not().or(self.stray));
        let value = match &self.body {
            Some(Ok(Ok(value))) => Some(*value),
            _ => None,
        };
        match run {
            Ok(_) if !self.errors.is_empty() => Some("failures were lost"),
            Ok(_) if !passes.allows(false) => Some("a cancellation was kept that is not its own"),
            Ok(given) => (*given != value).then_some("another value than the body's"),
            Err(Failure::Several { errors, cancelled }) => {
                if *errors != self.errors {
                    Some("other failures than those of its tasks, or in another order")
                } else if !passes.allows(cancelled.is_some()) {
                    Some("a cancellation where none is to be, or none where one is")
                } else if errors.is_empty() && cancelled.is_none() {
                    Some("an error of nothing")
                } else {
                    None
                }
            }
            Err(_) => Some("an error that no group has"),
        }
    }
}

/// A child of a group.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) group: Node,
    pub(super) has_handle: bool,
    pub(super) stage: Stage,
    /// It has said that it has started.
    pub(super) reported: bool,
    pub(super) told: Option<Told>,
}

impl Child {
    pub(super) fn new(group: Node, stage: Stage) -> Self {
        Self {
            group,
            has_handle: stage == Stage::Child,
            stage,
            reported: false,
            told: None,
        }
    }
}

/// How a task stands to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is a child.
    Child,
    /// It belongs to the call of `start` still.
    Starting,
    /// That call was dropped.
    Unwanted,
}

/// What the handle of a child tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Value(u32),
    Reported,
    Failed(Failure),
    Panicked(u32),
    Cancelled(Reason),
}
