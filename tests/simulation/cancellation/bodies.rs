//! Bodies: some steps, one after the other, each drawn.

use std::panic::resume_unwind;
use std::pin::Pin;

use quoit::CarriesCancelled;

use super::children::{self, Does};
use super::failure::{Failure, Outcome};
use super::joins::{self, Joining};
use super::ops::{self, At};
use super::panics::Panic;
use super::{branches, calls, foreign, groups, left, pipes, scopes};
use crate::workload::Dice;

/// A body, whatever it is that it runs in.
pub(super) fn body(at: At, mut dice: Dice) -> Pin<Box<dyn Future<Output = Outcome>>> {
    Box::pin(async move {
        let _asks = (dice.roll(4) == 0).then(|| left::Asks::new(&at));
        let mut joins = Vec::new();
        let mut kept = None;
        let steps = if at.plan().spend() {
            1 + dice.roll(5)
        } else {
            1
        };
        for _ in 0..steps {
            let Err(failure) = step(&at, &mut joins, &mut dice).await else {
                continue;
            };
            match dice.roll(10) {
                // Swallows it, and goes on.
                0 | 1 => {}
                2 => kept = Some(failure),
                3 | 4 if failure.cancelled().is_some() => {
                    let _ = scopes::clean_up(&at, &mut dice).await;
                    return Err(failure);
                }
                _ => return Err(failure),
            }
        }
        if let Some(failure) = kept {
            return Err(failure);
        }
        match dice.roll(24) {
            0 | 1 => Err(Failure::Own(at.plan().number())),
            2 if at.plan().panics => resume_unwind(Box::new(Panic(at.plan().number()))),
            _ => Ok(at.plan().number()),
        }
    })
}

async fn step(at: &At, joins: &mut Vec<Joining>, dice: &mut Dice) -> Result<(), Failure> {
    let sides = if at.depth < 6 { 43 } else { 20 };
    match dice.roll(sides) {
        0 | 1 => ops::sleep(at, dice.micros(1_500)).await,
        2 => {
            // Longer than most of these programs.
            let long = dice.micros(400_000);
            ops::sleep(at, long).await
        }
        3 => ops::yields(at).await,
        4 => ops::check(at).await,
        5 | 6 => ops::event(at).await,
        7 => {
            at.here.set_an_event(dice);
            Ok(())
        }
        8 => pipes::read(at, dice).await,
        9 => pipes::write(at, dice).await,
        10 => ops::nop(at).await,
        11 => {
            foreign::foreign(at).await;
            Ok(())
        }
        12 => ops::foreign_until_cancelled(at).await,
        13 => {
            ops::yields_uncancellable(at).await;
            Ok(())
        }
        14 => {
            at.here.end_something_foreign(dice);
            Ok(())
        }
        15 | 16 => {
            at.here.meddle(dice);
            Ok(())
        }
        17 => {
            at.plan().cancel_something(dice, Some(at.here.index()));
            Ok(())
        }
        18 => stubborn(at, dice).await,
        19 => joins::with_a_child(at, joins, dice).await,
        20..26 => scopes::scope(at, dice).await,
        26..30 => groups::in_a_group(at, dice).await,
        30 => scopes::racing(at, dice).await,
        31 => scopes::half_way(at, dice).await,
        32 => scopes::handed_over(at, dice).await,
        33 | 34 => calls::on_another_core(at, dice).await,
        40 | 41 => branches::beside_each_other(at, dice).await,
        42 => {
            left::leave_behind(at, dice);
            Ok(())
        }
        35 => match at.groups.last() {
            Some(&group) => children::start(at, group, dice).await,
            None => Ok(()),
        },
        36 => match at.here.any_group(dice) {
            Some(group) => children::start(at, group, dice).await,
            None => Ok(()),
        },
        _ => {
            let group = match dice.roll(4) {
                0 => at.here.any_group(dice),
                _ => at.groups.last().copied(),
            };
            joins.extend(group.and_then(|group| children::spawn(at, group, false, Does::Anything)));
            Ok(())
        }
    }
}

/// Asks again and again, whatever it is told.
async fn stubborn(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let mut times = dice.roll(40);
    if quoit::is_cancelled() && dice.roll(60) == 0 {
        // So often that it is made to pause.
        times = 2_000;
    }
    let mut last = Ok(());
    for _ in 0..times {
        last = match dice.roll(3) {
            0 => ops::check(at).await,
            1 => ops::sleep(at, dice.micros(2)).await,
            _ => ops::yields(at).await,
        };
    }
    last
}
