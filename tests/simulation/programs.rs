//! Random programs are clean under every seed, and every seed repeats itself.

use quoit::sim::{Fault, Faults, Outcome, Sim, for_seeds};

use tests::thorough;

use super::workload::{self, Weather};

/// Every second seed has faults that make operations fail, every fourth none at all.
fn program(sim: Sim) -> Outcome<usize> {
    let seed = sim.seed();
    let (faults, weather) = match seed % 4 {
        // What nobody is held up by.
        0 if seed.is_multiple_of(8) => (
            Faults::none()
                .rate(Fault::CompletionOverflow, 0.02)
                .rate(Fault::SubmissionQueueFull, 0.02)
                .rate(Fault::LastLook, 0.2),
            Weather::Calm,
        ),
        0 => (Faults::none(), Weather::Calm),
        1 => (Faults::benign(), Weather::Benign),
        _ => (Faults::some(), Weather::Rough),
    };
    let outcome = sim
        .faults(faults)
        .run(|| workload::run(seed, weather).ledger.check());
    // These programs keep nothing for longer than their cores.
    assert_eq!(
        outcome.counts.left_behind, 0,
        "seed {seed:#x} lost waits, scopes or tasks"
    );
    outcome
}

#[test]
fn random_programs_are_clean() {
    let mut whole = 0;
    let mut seeds = 0;
    for_seeds(0..thorough(1_500), |sim| {
        whole += program(sim).value;
        seeds += 1;
    });
    assert!(
        seeds < 100 || whole > seeds / 10,
        "too few bytes were compared: {whole}"
    );
}

/// Two runs of one build must agree, and so must two builds, on one digest of 200 runs: the first writes it
/// into the file that `QUOIT_SIM_DIGEST` names, the next compares.
#[test]
fn equal_seeds_give_equal_traces() {
    let mut digest = 0_u64;
    for seed in 0..thorough(1_000) {
        let first = program(Sim::with_seed(seed));
        let second = program(Sim::with_seed(seed));
        assert_eq!(first.trace, second.trace, "seed {seed:#x} gave two traces");
        assert_eq!(first.events, second.events, "seed {seed:#x}");
        if seed < 200 {
            digest = digest.rotate_left(1) ^ first.trace;
        }
    }
    let Ok(file) = std::env::var("QUOIT_SIM_DIGEST") else {
        return;
    };
    let digest = format!("{digest:#x}\n");
    match std::fs::read_to_string(&file) {
        Ok(before) => assert_eq!(before, digest, "another build gave other traces"),
        Err(_) => std::fs::write(&file, digest).expect("the digest is kept for the next build"),
    }
}
