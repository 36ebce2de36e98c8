//! An op that is cancelled or let go of while what it waits for happens: before, after, or at once.
//!
//! Nothing is awaited before its time here: two things that are begun without a turn of the core in
//! between reach the kernel together, in that order.

use std::fmt::Debug;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use quoit::op;
use quoit::time::sleep;
use quoit::{CancelHandle, Scope};
use tests::{Dice, poll_once};

use crate::compare::{Place, Script, Steps, all_hold, comes_to, comes_to_plainly};
use crate::outcome::{Outcome, Outcome::*, Record, settle};
use crate::subjects::{Ends, Running, Subject};

use Step::{Begin, Cancel, Happen, Turn};

/// An op, and what happens to it.
#[derive(Debug, Clone)]
pub(crate) struct Cancels {
    pub(crate) subject: Subject,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// Begins the op, in a scope of its own.
    Begin,
    /// Begins what it waits for.
    Happen,
    /// Cancels its scope.
    Cancel,
    /// Lets go of its future.
    Abandon,
    /// Lets the core go to the kernel and back.
    Turn,
}

struct World {
    place: Ends,
    op: Option<Running>,
    cancel: Option<CancelHandle>,
    event: Option<Running>,
}

impl Steps for Cancels {
    fn steps(&mut self) -> &mut Vec<impl Debug> {
        &mut self.steps
    }
}

impl Script for Cancels {
    async fn run(&self, place: &Place) -> Record {
        let mut world = World {
            place: self.subject.ends().await,
            op: None,
            cancel: None,
            event: None,
        };
        let mut record = Record::new();
        for step in &self.steps {
            record.push(step.take(self.subject, &mut world).await);
        }
        // What came of it all, and what whoever comes later finds.
        record.push(came_to(&mut world.op, place.patience).await);
        world.op = None;
        record.push(came_to(&mut world.event, place.patience).await);
        world.event = None;
        settle().await;
        record.push(self.subject.later(&world.place, place.patience).await);
        record
    }
}

/// Waits for something that was begun, which has a scope of its own, as long as patience lasts.
async fn came_to(running: &mut Option<Running>, patience: Duration) -> Outcome {
    let Some(running) = running else {
        return Outcome::Nothing;
    };
    let mut patience = pin!(sleep(patience));
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = running.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        patience.as_mut().poll(cx).map(|_| Outcome::Waits)
    })
    .await
}

impl Step {
    async fn take(self, subject: Subject, world: &mut World) -> Outcome {
        match self {
            Self::Begin if world.op.is_none() => {
                let scope = Scope::new();
                world.cancel = Some(scope.handle());
                let op = subject.op(&world.place);
                let op = Box::pin(async move {
                    let body = async { Ok::<_, std::io::Error>(op.await) };
                    match scope.run(body).await {
                        Ok(Some(outcome)) => outcome,
                        Ok(None) => Outcome::Cancelled,
                        Err(error) => Err(error).into(),
                    }
                });
                begun(op, &mut world.op).await
            }
            Self::Happen if world.event.is_none() => {
                begun(subject.event(&world.place), &mut world.event).await
            }
            Self::Cancel => match &world.cancel {
                Some(cancel) => {
                    cancel.cancel();
                    Outcome::Done
                }
                None => Outcome::Nothing,
            },
            Self::Abandon => match world.op.take() {
                Some(_) => Outcome::Done,
                None => Outcome::Nothing,
            },
            Self::Turn => Outcome::done(op::nop().await),
            Self::Begin | Self::Happen => Outcome::Nothing,
        }
    }
}

async fn begun(mut running: Running, place: &mut Option<Running>) -> Outcome {
    match poll_once(running.as_mut()).await {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => {
            *place = Some(running);
            Outcome::Waits
        }
    }
}

fn script(dice: &mut Dice) -> Cancels {
    let subject = dice.one_of(&[
        Subject::PipeRead,
        Subject::PipeWrite,
        Subject::PipePoll,
        Subject::SocketReceive,
        Subject::StreamReceive,
        Subject::Accept,
    ]);
    let end = dice.one_of(&[Step::Cancel, Step::Abandon]);
    // The three of them in any order, with turns in between or none.
    let mut three = vec![Step::Begin, Step::Happen, end];
    let mut steps = Vec::new();
    while !three.is_empty() {
        steps.push(three.remove(dice.below(three.len())));
        for _ in 0..dice.below(3) {
            steps.push(Step::Turn);
        }
    }
    if dice.flip() {
        steps.push(Step::Begin);
    }
    Cancels { subject, steps }
}

#[test]
fn what_is_cancelled_ends_as_the_kernel_has_it() {
    all_hold(200, script);
}

/// The byte that arrives.
fn one() -> Outcome {
    Outcome::bytes(&[1])
}

fn cancels(subject: Subject, steps: &[Step], allowed: &[Record]) {
    let steps = steps.to_vec();
    comes_to(&Cancels { subject, steps }, allowed);
}

#[test]
fn what_waits_ends_when_it_is_cancelled_and_takes_nothing() {
    let told = |[at_once, later]: [Outcome; 2]| {
        vec![Waits, Done, Done, Done, at_once, Cancelled, later, one()]
    };
    let steps = [Begin, Turn, Cancel, Turn, Happen];
    cancels(Subject::PipeRead, &steps, &[told([Waits, Count(1)])]);
    // A send may go past the ring.
    let sent = [told([Done, Nothing]), told([Waits, Done])];
    cancels(Subject::SocketReceive, &steps, &sent);
}

#[test]
fn what_has_completed_is_not_cancelled_any_more() {
    // Under a fault it may not have completed after all that time.
    comes_to_plainly(
        &Cancels {
            subject: Subject::PipeRead,
            steps: vec![Begin, Turn, Happen, Turn, Turn, Cancel],
        },
        &vec![Waits, Done, Waits, Done, Done, Done, one(), Count(1), Waits],
    );
}

#[test]
fn a_cancel_that_comes_before_the_deferred_work_leaves_the_bytes_where_they_are() {
    let told = |op, later| vec![Waits, Done, Waits, Done, op, Count(1), later];
    cancels(
        Subject::PipeRead,
        &[Begin, Turn, Happen, Cancel],
        &[
            told(Cancelled, one()),
            // It may have been carried out meanwhile: a cancel is not a promise.
            told(one(), Waits),
        ],
    );
}
