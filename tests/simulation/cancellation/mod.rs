//! Random programs of structured concurrency, held against the rules of cancellation.
//!
//! A program nests scopes, groups, races and calls of other cores, and everybody cancels everybody:
//! from inside, by handle, from other cores, by deadline, by failing. Each op, scope, group and task
//! tells a model what it came to. The model knows the rules as the documents say them, in a plain
//! tree that is walked anew for each question, and says whether that was allowed.
//!
//! In reading order: [`truth`] and [`reference`] the rules, [`waits`] and [`books`] what is known of
//! parked ops and of groups, [`model`] what is asked and told of ops,
//! [`told_of_scopes`] of scopes and [`told_of_groups`] of groups; [`failure`] what bodies fail with,
//! [`plan`] what a program shares; then what programs are made of: [`ops`], [`pipes`] and
//! [`foreign`] waits, [`scopes`], [`branches`], [`groups`], [`children`], [`joins`], [`calls`], [`left`], [`unseen`],
//! [`panics`], [`meddling`], [`bodies`]. Here is how one begins and ends.

mod bodies;
mod books;
mod branches;
mod calls;
mod children;
mod failure;
mod foreign;
mod groups;
mod joins;
mod left;
mod meddling;
mod model;
mod ops;
mod panics;
mod pipes;
mod plan;
mod reference;
mod scopes;
mod told_of_groups;
mod told_of_scopes;
mod truth;
mod unseen;
mod waits;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quoit::sim::{Faults, Sim, for_seeds};
use quoit::time::sleep;
use quoit::{CoreId, CoreMetrics, Cores, Handle, Runtime, spawn};
use tests::thorough;

use crate::workload::{Dice, Weather};
use model::Counts;
use ops::At;
use plan::{Here, Plan, UNTIL, here_of};
use reference::Kind;

/// Runs the program of a seed, and returns what has happened in it.
fn program(sim: Sim) -> Counts {
    let seed = sim.seed();
    let (faults, weather) = match seed % 3 {
        0 => (Faults::none(), Weather::Calm),
        1 => (Faults::benign(), Weather::Benign),
        _ => (Faults::some(), Weather::Rough),
    };
    let outcome = sim.faults(faults).run(|| run(seed, weather));
    let counts = outcome.value;
    assert_eq!(
        outcome.counts.left_behind, 0,
        "seed {seed:#x} lost waits, scopes or tasks"
    );
    counts
}

fn run(seed: u64, weather: Weather) -> Counts {
    let mut dice = Dice::new(seed, 0);
    let cores = 1 + dice.roll(3) as usize;
    let plan = Arc::new(Plan::new(seed, weather, cores, &mut dice));
    let report = Report(Arc::clone(&plan));
    let runtime = Runtime::builder()
        .cores(Cores::Count(cores))
        .build()
        .expect("nothing refuses a ring here");
    plan.set_runtime(runtime.handle());
    for _ in 0..dice.roll(5) {
        let (plan, mut dice) = (Arc::clone(&plan), plan.dice());
        quoit::sim::after(dice.micros(6_000), move || {
            plan.cancel_something(&mut dice, None)
        });
    }
    for core in runtime.handle().cores() {
        Here::begin(Arc::clone(&plan), core);
    }
    let shared = Arc::clone(&plan);
    let handle = runtime.handle();
    runtime
        .run(move |core| core_main(core, Arc::clone(&shared), handle.clone()))
        .expect("no core fails");
    Here::forget_all();
    let counts = plan.with_at_end(|model| {
        if let Some(first) = model.violations.first() {
            panic!(
                "seed {seed:#x}: {first}\nand {} more",
                model.violations.len() - 1
            );
        }
        model.counts.clone()
    });
    drop(report);
    counts
}

/// Says what the model has found, should the program end otherwise.
struct Report(Arc<Plan>);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            Here::forget_all();
            self.0.with_at_end(|model| {
                for violation in model.violations.iter().take(3) {
                    eprintln!("VIOLATION {violation}");
                }
            });
        }
    }
}

/// One core: actors that do what comes to their minds, and somebody who meddles.
async fn core_main(core: CoreId, plan: Arc<Plan>, runtime: Handle) -> io::Result<()> {
    let here = here_of(core);
    let mut dice = plan.dice();
    let mut tasks: Vec<_> = (0..1 + dice.roll(3)).map(|_| actor(&here)).collect();
    let meddler = Rc::clone(&here);
    tasks.push(spawn(async move { meddle(&meddler).await }));
    sleep(UNTIL).await?;
    plan.over.store(true, Ordering::Relaxed);
    here.end_all();
    for task in tasks {
        task.await.expect("an actor keeps its panics");
    }
    plan.acting.fetch_sub(1, Ordering::Relaxed);
    while plan.acting.load(Ordering::Relaxed) > 0 {
        sleep(Duration::from_millis(20)).await?;
    }
    // What was left to nobody ends by itself; who swallows its cancels is made to pause each time.
    sleep(Duration::from_secs(20)).await?;
    here.end_all();
    let after = gauges(&runtime, core).await?;
    sleep(Duration::from_secs(60)).await?;
    let later = runtime.metrics()[core.index()];
    plan.with(|model| compare(model, core, [after, later]));
    Ok(())
}

/// A core has nothing but the task that asks, in a sleep, and has been quiet since.
fn compare(model: &mut model::Model, core: CoreId, [after, later]: [CoreMetrics; 2]) {
    let left = [
        ("tasks", after.tasks, 1),
        ("scopes", after.scopes, 2),
        ("parked", after.parked, 1),
        ("timers", after.timers, 1),
        ("op slots", after.op_slots, 0),
        ("orphans", after.orphans, 0),
        ("swallowing", after.swallowing, 0),
        ("unresponsive", after.unresponsive, 0),
    ];
    for (name, count, expected) in left {
        if count != expected {
            model.violated(format!(
                "core {core} has {count} {name} left, expected {expected}"
            ));
        }
    }
    let turns = later.turns - after.turns;
    let counts = &model.counts;
    let (may, did) = (counts.may_abort[core.index()], counts.aborted[core.index()]);
    let bounds = [
        (
            "woken foreign waits",
            later.foreign_wakes,
            counts.may_wake[core.index()],
        ),
        (
            "sent cancels",
            later.cancels_sent,
            counts.may_send[core.index()],
        ),
        ("aborted waits", later.aborts, may),
    ];
    let over = bounds.into_iter().find(|(_, count, most)| count > most);
    if let Some((what, count, most)) = over {
        model.violated(format!(
            "core {core} has {what} {count} times, at most {most} are right"
        ));
        return;
    }
    if turns > 12 {
        model.violated(format!("core {core} has taken {turns} turns for nothing"));
    }
    if later.aborts < did {
        let aborts = later.aborts;
        model.violated(format!(
            "core {core} has aborted {aborts} waits; {did} have said so, and {may} may have"
        ));
    }
}

/// Returns the counters of a core, with gauges that are as of now.
async fn gauges(runtime: &Handle, core: CoreId) -> io::Result<CoreMetrics> {
    let metrics = || runtime.metrics()[core.index()];
    let before = metrics().parks;
    while metrics().parks == before {
        sleep(Duration::from_micros(50)).await?;
    }
    Ok(metrics())
}

/// A task on its own, with a body.
fn actor(here: &Rc<Here>) -> quoit::JoinHandle<()> {
    let here = Rc::clone(here);
    let plan = Arc::clone(&here.plan);
    let core = here.index();
    let task = plan.with(|model| model.scopes.open(Some(core), Kind::Task, core));
    let rest = plan.dice();
    spawn(async move {
        let at = At {
            here,
            scope: task,
            refusals: Rc::default(),
            groups: Vec::new(),
            pipe: None,
            depth: 0,
            place: None,
            has_company: false,
        };
        let refusals = Rc::clone(&at.refusals);
        let ended = refusals
            .of_task(panics::caught(bodies::body(at, rest)))
            .await;
        plan.with(|model| {
            model.nothing_waits_below(task);
            model.close(task);
        });
        drop(ended);
    })
}

/// Comes by now and then, and changes something.
async fn meddle(here: &Here) {
    let mut dice = here.plan.dice();
    for _ in 0..dice.roll(20) {
        let pause = dice.micros(700);
        sleep(pause).await.expect("nobody cancels this one");
        match dice.roll(6) {
            0 => here.plan.cancel_something(&mut dice, Some(here.index())),
            1 => here.set_an_event(&mut dice),
            2 => here.end_something_foreign(&mut dice),
            _ => here.meddle(&mut dice),
        }
    }
}

#[test]
fn programs_of_scopes_and_groups_keep_the_rules() {
    let (mut seeds, mut ops, mut refused, mut absorbed, mut open) = (0, 0, 0, 0, 0);
    for_seeds(0..thorough(500), |sim| {
        let counts = program(sim);
        seeds += 1;
        ops += counts.ops;
        refused += counts.refused + counts.aborted.iter().sum::<u64>();
        absorbed += counts.absorbed;
        open += counts.open_questions;
    });
    if seeds >= 100 {
        assert!(
            refused > 10 * seeds,
            "too few ops were cancelled: {refused} of {ops}"
        );
        assert!(absorbed > seeds, "too few scopes took a cancel: {absorbed}");
        assert!(open < seeds, "the reference had no answer {open} times");
    }
}
