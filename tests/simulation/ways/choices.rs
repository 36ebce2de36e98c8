//! Where there are several ways, and which is gone.

use std::collections::BTreeSet;

use crate::workload::Dice;

/// Which way is gone, at each place where there are several. A place draws from a stream of its own.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    /// `None`: the plain way, everywhere.
    pub(super) seed: Option<u64>,
    /// Steps that go the plain way.
    pub(super) plain: BTreeSet<usize>,
}

impl Ways {
    /// Draws one of so many; the first is the plain one.
    pub(super) fn of(&self, id: usize, (question, count): Question) -> u64 {
        match self.seed {
            Some(seed) if !self.plain.contains(&id) => {
                // Half of them are plain.
                let mut dice = Dice::new(seed, id as u64 * 64 + question);
                dice.roll(2) * dice.roll(count)
            }
            _ => 0,
        }
    }
}

/// Where there are several ways, and how many.
pub(super) type Question = (u64, u64);

pub(super) const WRAP: Question = (0, 9);
pub(super) const WAIT: Question = (1, 12);
pub(super) const NOISE: Question = (2, 5);
pub(super) const HANDLE: Question = (3, 4);
pub(super) const SHIELD: Question = (4, 2);
pub(super) const DEADLINE: Question = (5, 7);
pub(super) const RUN: Question = (6, 3);
pub(super) const SPAWN: Question = (7, 2);
pub(super) const KEEP: Question = (8, 2);
pub(super) const TELLER: Question = (9, 2);
pub(super) const BEFORE: Question = (10, 2);
/// And those after it: the deeds of a step.
pub(super) const DEED: u64 = 11;

pub(super) const QUESTIONS: [Question; 14] = [
    WRAP,
    WAIT,
    NOISE,
    HANDLE,
    SHIELD,
    DEADLINE,
    RUN,
    SPAWN,
    KEEP,
    TELLER,
    BEFORE,
    (DEED, 2),
    (DEED + 1, 2),
    (DEED + 2, 2),
];
