//! Runs a script on both kernels and says whether the model allows what the real one did.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::time::Duration;

use quoit::block_on;
use quoit::sim::{Faults, Sim};
use tests::Dice;

use crate::outcome::Record;

/// Something to do, the same on every kernel.
pub(crate) trait Script: Debug {
    /// What lies in its folder when it begins.
    fn stored(&self) -> &[Stored] {
        &[]
    }

    /// How many descriptors there may be, in the simulation.
    fn descriptors(&self) -> usize {
        1 << 16
    }

    /// Does it.
    fn run(&self, place: &Place) -> impl Future<Output = Record>;
}

/// A script whose steps may be left out, to find those that matter.
pub(crate) trait Steps: Script + Clone {
    fn steps(&mut self) -> &mut Vec<impl Debug>;
}

/// Something in a script's folder, by its path below it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stored {
    File(&'static str, &'static str),
    Folder(&'static str),
    /// A symbolic link. An absolute target begins at the script's folder.
    Link(&'static str, &'static str),
}

/// Where a script runs.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its folder.
    pub(crate) folder: String,
    /// How long to wait for a step before it counts as waiting for ever.
    pub(crate) patience: Duration,
}

/// How long a step may take on the real kernel. A machine that is busy with others may need the second,
/// or the third; to begin with those would make every step that does wait for ever as slow.
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(4),
    Duration::from_millis(60),
    Duration::from_millis(1500),
];

/// Time costs nothing there: more than anything that comes late by a fault.
const SIMULATED_PATIENCE: Duration = Duration::from_secs(20);

/// How many seeds are tried with faults that no program need notice, after [`PLAIN`] without any.
const SEEDS: u64 = 400;
const PLAIN: u64 = 20;

/// As many are enough where the outcomes are known beforehand.
const FEWER: u64 = 100;

/// Makes scripts from seeds, and demands of each that the model allows what the kernel does.
pub(crate) fn all_hold<S: Steps>(usual: u64, make: impl Fn(&mut Dice) -> S) {
    let count = number("QUOIT_FIDELITY").unwrap_or(usual);
    let first = number("QUOIT_FIDELITY_SEED").unwrap_or(0);
    for seed in first..first + count {
        let script = make(&mut Dice::new(seed));
        if let Err(what) = holds(&script, &PATIENCE) {
            let (script, what) = shortened(script, what);
            panic!(
                "QUOIT_FIDELITY_SEED={seed}: the model forbids what the kernel does\n{script:?}\n{what}"
            );
        }
    }
}

/// Leaves out what does not matter for the script to fail.
fn shortened<S: Steps>(mut script: S, mut what: String) -> (S, String) {
    let mut place = script.steps().len();
    while let Some(before) = place.checked_sub(1) {
        place = before;
        let mut shorter = script.clone();
        shorter.steps().remove(place);
        if let Err(still) = holds(&shorter, &PATIENCE[1..2]) {
            (script, what) = (shorter, still);
        }
    }
    (script, what)
}

/// Demands that a script comes to one of these, on the real kernel and under every seed, and to each of
/// them under some seed: that the model allows this and nothing else.
pub(crate) fn comes_to(script: &impl Script, allowed: &[Record]) {
    comes_to_in(script, allowed, PLAIN + FEWER);
}

/// As [`comes_to`] for one outcome, but without faults: where bytes may be cut anywhere by them.
pub(crate) fn comes_to_plainly(script: &impl Script, expected: &Record) {
    comes_to_in(script, std::slice::from_ref(expected), PLAIN);
}

fn comes_to_in(script: &impl Script, allowed: &[Record], attempts: u64) {
    // What does wait is the same after the longest patience, what was only slow is not.
    let mut patience = PATIENCE[1..].iter();
    let real = loop {
        let last = patience.len() == 1;
        let real = on_the_kernel(script, *patience.next().expect("the last ends it"));
        if last || allowed.contains(&real) {
            break real;
        }
    };
    assert!(
        allowed.contains(&real),
        "{script:?}\nthe kernel came to {real:?}\nand not to one of {allowed:#?}"
    );
    let mut seen = BTreeSet::new();
    for attempt in 0..attempts {
        let modelled = in_the_model(script, attempt);
        let place = allowed.iter().position(|record| *record == modelled);
        let place = place.unwrap_or_else(|| {
            panic!("{script:?}\nthe model came to {modelled:?}\nand not to one of {allowed:#?}")
        });
        seen.insert(place);
    }
    let all: BTreeSet<usize> = (0..allowed.len()).collect();
    assert_eq!(seen, all, "{script:?}\nthe model never came to the others");
}

fn holds(script: &impl Script, patience: &[Duration]) -> Result<(), String> {
    let mut last = String::new();
    for patience in patience {
        let real = on_the_kernel(script, *patience);
        let mut nearest: Option<(usize, Record)> = None;
        for attempt in 0..PLAIN + SEEDS {
            let modelled = in_the_model(script, attempt);
            if modelled == real {
                return Ok(());
            }
            let pairs = modelled.iter().zip(&real);
            let alike = pairs.take_while(|(one, other)| one == other).count();
            if nearest.as_ref().is_none_or(|(best, _)| alike > *best) {
                nearest = Some((alike, modelled));
            }
        }
        let (alike, modelled) = nearest.expect("some seed was tried");
        last = format!(
            "step {alike}: kernel {:?}, model {:?}\nkernel {real:?}\nmodel  {modelled:?}",
            real.get(alike),
            modelled.get(alike),
        );
    }
    Err(last)
}

fn on_the_kernel(script: &impl Script, patience: Duration) -> Record {
    // One folder more, for paths that lead out of it.
    let around = tempfile::tempdir().expect("a folder for a script");
    let folder = around.path().join("folder");
    std::fs::create_dir(&folder).expect("the folder around it is ours");
    let place = Place {
        folder: folder.to_str().expect("plain letters").to_owned(),
        patience,
    };
    for stored in script.stored() {
        let made = match *stored {
            Stored::File(path, bytes) => std::fs::write(place.path(path), bytes),
            Stored::Folder(path) => std::fs::create_dir(place.path(path)),
            Stored::Link(path, target) => symlink(place.target(target), place.path(path)),
        };
        made.expect("a script's folder is ours");
    }
    block_on(script.run(&place)).expect("tests need io_uring")
}

fn in_the_model(script: &impl Script, attempt: u64) -> Record {
    let place = Place {
        folder: "/simulated/folder".to_owned(),
        patience: SIMULATED_PATIENCE,
    };
    let faults = if attempt < PLAIN {
        Faults::none()
    } else {
        Faults::benign()
    };
    let mut sim = Sim::with_seed(attempt)
        .faults(faults)
        .descriptors(script.descriptors())
        .folder(&*place.folder);
    for stored in script.stored() {
        sim = match *stored {
            Stored::File(path, bytes) => sim.file(place.path(path), bytes),
            Stored::Folder(path) => sim.folder(place.path(path)),
            Stored::Link(path, target) => sim.link(place.path(path), place.target(target)),
        };
    }
    sim.block_on(script.run(&place)).value
}

impl Place {
    /// Returns the path of something below the folder.
    pub(crate) fn path(&self, below: &str) -> String {
        format!("{}/{below}", self.folder)
    }

    fn target(&self, target: &str) -> String {
        match target.strip_prefix('/') {
            Some(below) => self.path(below),
            None => target.to_owned(),
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|_| panic!("{variable} is {text:?}, but must be a number")))
}
