//! What the model is told of groups and tasks: who has begun, who has ended, and with what.

use quoit::{Misuse, Reason, Remote};

use super::books::{Book, Stage, Told};
use super::failure::{Failure, Outcome};
use super::model::{Model, task_number};
use super::reference::{Kind, Node, Seen};
use super::truth::Truth;

impl Model {
    /// Returns the scope of a group's daemons.
    pub(super) fn daemons(&mut self, group: Node, core: usize) -> Node {
        if let Some(daemons) = self.groups[&group].daemons {
            return daemons;
        }
        let daemons = self.scopes.open(Some(group), Kind::Daemons, core);
        let book = self.groups.get_mut(&group).expect("it is open");
        book.daemons = Some(daemons);
        book.let_daemons_go = Truth::No;
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
                let stray =
                    parts.cancelled.is_some() && self.scopes.cancelled_around(task) == Truth::No;
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
                self.cancel_in_grace(task, Reason::Dropped);
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
            self.cancel_in_grace(task, Reason::Dropped);
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
        // A shield that hides it now may have come up since.
        let around = self.scopes.cancelled_around(task);
        let daemons = self.groups[&group].daemons;
        let own = self.scopes.absorbs(task);
        let own = own.or(daemons.map_or(Truth::No, |daemons| {
            let of_a_daemon = Truth::of(self.scopes.is_within(task, daemons));
            let let_go = self.groups[&group].let_daemons_go.and(of_a_daemon);
            self.scopes.absorbs(daemons).or(let_go)
        }));
        if around == Truth::No {
            let stray = Failure::Misuse(Misuse::Stray);
            return self.child_failed(task, group, parts.failure.unwrap_or(stray));
        }
        if self.children[&task].stage == Stage::Unwanted {
            // It was cancelled where it ran, which is none of the group's.
            return match parts.failure {
                Some(rest) => self.child_failed(task, group, rest),
                None => Told::Cancelled(cancelled.reason()),
            };
        }
        let book = self.groups.get_mut(&group).expect("it is open");
        if around == Truth::Perhaps {
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
        let refused = self.scopes.refused(group);
        let book = self.groups.get_mut(&group).expect("it is open");
        let failed = !matches!(outcome, Ok(Ok(_)));
        let passes_on = matches!(&outcome, Ok(Err(failure)) if failure.is_cancellation());
        match &outcome {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => {
                let parts = failure.parts();
                if parts.cancelled.is_some() {
                    book.passed_on = Truth::Yes;
                    book.stray = refused.not();
                }
                book.errors.extend(parts.failure);
            }
            Err(panic) => book.panics.push(*panic),
        }
        book.body = Some(outcome);
        if passes_on && refused != Truth::No {
            self.cancel_in_grace(group, Reason::Failure);
        } else if failed {
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
            // When the group sees it is not known to the moment, and so not what came first.
            let let_go = self.scopes.sees_outside(daemons).not().and(Truth::Perhaps);
            self.scopes
                .post_in_grace(daemons, Reason::Finished, Seen::Quiet(group));
            let book = self.groups.get_mut(&group).expect("it is open");
            book.let_daemons_go = let_go;
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
        let daemons = book.daemons.take();
        self.cancel_in_grace(group, Reason::Dropped);
        if let Some(daemons) = daemons {
            self.close(daemons);
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

    /// The body of a task on another core has ended: with this, or unheard. The task stays until what it left has ended.
    pub(super) fn far_ends(&mut self, far: Node, outcome: Option<Result<Outcome, u32>>) {
        if let Some(outcome) = outcome {
            self.far.insert(far, (outcome, self.scopes.own(far)));
        }
        self.left_by_fars.push(far);
        self.close_empty_fars();
    }

    /// Closes the tasks on other cores whose bodies have ended, and what they had left.
    pub(super) fn close_empty_fars(&mut self) {
        let (empty, left) = std::mem::take(&mut self.left_by_fars)
            .into_iter()
            .partition(|&far| self.scopes.life_below(far).next().is_none());
        self.left_by_fars = left;
        let empty: Vec<Node> = empty;
        for far in empty {
            self.close(far);
        }
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
            Ok(Err(failure)) => {
                let left = failure.parts().failure;
                let left = left.unwrap_or(Failure::Misuse(Misuse::Stray));
                // Cancelled by its caller, it comes as it is.
                let whole = cancelled.allows(true) && told.as_ref() == Err(failure);
                whole || cancelled.allows(false) && *told == Err(left)
            }
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
