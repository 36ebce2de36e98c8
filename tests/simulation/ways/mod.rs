//! Programs that mean the same, gone about in different ways: their bodies see the same.
//!
//! A program is a tree of waits, scopes, groups and bodies that are dropped half-way, in which scopes, groups and tasks
//! are cancelled, shielded and given deadlines. All that happens by itself has a time of its own, so that what is seen
//! does not depend on the order of tasks. [`play`] runs it: each thing in one of the ways that must not make a
//! difference, which [`choices`] draws. What is seen, and when, is compared with what is seen in the plain way.
//!
//! In reading order: [`program`] what there is to do, [`failure`] what bodies come to, [`choices`] where there are
//! several ways, [`play`] bodies and steps, [`waits`], [`deeds`] and [`scopes`]. Here is how the two are compared.

mod choices;
mod deeds;
mod failure;
mod play;
mod program;
mod scopes;
mod waits;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use quoit::Handle;
use quoit::sim::{Faults, Sim, for_seeds};
use quoit::time::{Instant, sleep};
use tests::{gauges, thorough};

use crate::workload::Dice;
use choices::{QUESTIONS, Ways};
use play::Play;
use program::{FAR, Maker, Step, UNIT, has_strays, smaller};

/// What is seen of a program, by step.
type Seen = BTreeMap<usize, Vec<String>>;

/// Runs a program in these ways.
fn seen_in(steps: &[Step], ways: &Ways, seed: u64) -> Seen {
    let sim = Sim::with_seed(seed).faults(Faults::none());
    let (steps, ways) = (steps.to_vec(), ways.clone());
    let outcome = sim.block_on(async move {
        let here = Handle::current().expect("on a core");
        let counts = async || {
            let now = gauges(&here).await;
            let scopes = (now.tasks, now.scopes, now.parked, now.timers);
            (
                scopes,
                now.op_slots,
                now.orphans,
                now.swallowing,
                now.unresponsive,
            )
        };
        let before = counts().await;
        // Deadlines of handles are exact at whole units.
        let to_come = Instant::NEVER.duration_since(Instant::now()).as_nanos() + 1;
        let part = Duration::from_nanos((to_come % UNIT.as_nanos()) as u64);
        sleep(part).await.expect("nobody cancels");
        let play = Rc::new(Play {
            begun: Instant::now(),
            ways,
            has_strays: has_strays(&steps),
            targets: RefCell::default(),
            seen: RefCell::default(),
        });
        let ended = play.body(0, &steps, false).await;
        play.say(0, format!("{ended:?}"));
        drop(play.targets.take());
        sleep(FAR).await.expect("nobody cancels");
        assert_eq!(counts().await, before, "something is left");
        play.seen.take()
    });
    outcome.value
}

/// Says what differs, of the smallest program and the fewest ways that do.
fn report(mut steps: Vec<Step>, mut ways: Ways, seed: u64, last: usize) -> ! {
    let plain = Ways {
        seed: None,
        ..ways.clone()
    };
    let differ =
        |steps: &[Step], ways: &Ways| seen_in(steps, ways, seed) != seen_in(steps, &plain, seed);
    while let Some(fewer) = smaller(&steps)
        .into_iter()
        .find(|fewer| differ(fewer, &ways))
    {
        steps = fewer;
    }
    for id in 0..=last {
        ways.plain.insert(id);
        if !differ(&steps, &ways) {
            ways.plain.remove(&id);
        }
    }
    let (expected, seen) = (seen_in(&steps, &plain, seed), seen_in(&steps, &ways, seed));
    let gone: Vec<_> = (0..=last)
        .filter(|id| !ways.plain.contains(id))
        .map(|id| (id, QUESTIONS.map(|question| ways.of(id, question))))
        .collect();
    panic!("seed {seed:#x}\n{steps:#?}\nways {gone:?}\nplain {expected:#?}\nseen {seen:#?}");
}

#[test]
fn what_bodies_see_does_not_depend_on_the_way() {
    for_seeds(0..thorough(1500), |sim| {
        let seed = sim.seed();
        let mut maker = Maker {
            dice: Dice::new(seed, 0),
            next: 0,
            taken: BTreeSet::new(),
            targets: Vec::new(),
            tame: seed % 2 == 0,
        };
        let steps = maker.steps(0, 0);
        let mut ways = Ways {
            seed: None,
            plain: BTreeSet::new(),
        };
        let expected = seen_in(&steps, &ways, seed);
        for way in 0..4 {
            ways.seed = Some(seed * 4 + way);
            if seen_in(&steps, &ways, seed) != expected {
                report(steps, ways, seed, maker.next);
            }
        }
    });
}
