//! Groups, each with its word to the model.

use std::panic::resume_unwind;
use std::sync::Arc;

use quoit::{Group, group, isolating_group};

use super::bodies::body;
use super::books::Book;
use super::children::{Does, spawn};
use super::failure::Failure;
use super::joins::join_all;
use super::ops::{self, At};
use super::panics::{Panic, caught, tell_panic, unfold};
use super::plan::UNTIL;
use super::reference::{Kind, Node};
use super::scopes::Opened;
use crate::workload::Dice;

/// A group with some children, and a body that may start more.
pub(super) async fn in_a_group(at: &At, dice: &mut Dice) -> Result<(), Failure> {
    let isolating = dice.roll(4) == 0;
    let opened = OpenGroup(Opened::new(at, Kind::Group));
    let (plan, node) = (Arc::clone(&opened.0.plan), opened.0.node);
    plan.with(|model| {
        model.groups.insert(node, Book::new(isolating));
        // Without children, its end is a yield.
        model.counts.may_wake[at.here.index()] += 1;
    });
    let mut rest = plan.dice();
    let members = async |g: Group<Failure>| {
        let mut inside = at.within(node);
        inside.groups.push((g, node));
        at.here.shelve_group(g, node);
        if rest.roll(2) == 0
            && let Some(handle) = g.handle()
        {
            plan.offer(handle, node);
        }
        let outcome = caught(async {
            let mut joins = Vec::new();
            for _ in 0..rest.roll(4) {
                let daemon = rest.roll(5) == 0;
                joins.extend(spawn(&inside, (g, node), daemon, Does::Anything));
            }
            if plan.has_crowd() {
                crowd(&inside, (g, node)).await?;
            }
            if rest.roll(3) == 0 {
                join_all(&inside, &mut joins).await?;
            }
            let outcome = body(inside.clone(), plan.dice()).await;
            if rest.roll(3) == 0 {
                join_all(&inside, &mut joins).await?;
            }
            outcome
        })
        .await;
        tell_panic(&plan, outcome, |outcome| {
            plan.with(|model| model.group_body_ends(node, outcome));
        })
    };
    let ran = if isolating {
        caught(isolating_group(members)).await
    } else {
        caught(group(members)).await
    };
    let came = match ran {
        Ok(came) => came.map_err(Failure::from),
        Err(payload) => {
            let told = unfold(&plan, payload);
            plan.with(|model| model.group_ends(node, Err(told)));
            drop(opened);
            // As whoever is around sees it.
            resume_unwind(Box::new(Panic(told.0)));
        }
    };
    plan.with(|model| model.group_ends(node, Ok(&came)));
    drop(opened);
    came.map(drop)
}

/// A group of the model. Dropped before its end, its children are cancelled there too.
struct OpenGroup(Opened);

impl Drop for OpenGroup {
    fn drop(&mut self) {
        self.0.plan.with(|model| model.group_dropped(self.0.node));
    }
}

/// So many waits that what their cancel wants done is not done in one turn.
const CROWD: u32 = 1_100;

/// A group with more children than one turn of its core reaches by a cancel.
async fn crowd(at: &At, group: (Group<Failure>, Node)) -> Result<(), Failure> {
    for _ in 0..CROWD {
        drop(spawn(at, group, false, Does::Waits(UNTIL)));
    }
    ops::yields(at).await?;
    let reason = at.plan().reason();
    let told = group.0.cancel_for(reason);
    at.plan()
        .with(|model| model.cancel(group.1, reason, None, Some(told)));
    Ok(())
}
