//! Which of the tasks that become ready stands for the others: it is measured how long it waits for
//! its poll, and how long the poll takes.
//!
//! To read the clock for each would cost as much as a poll that does little. So every 32nd is
//! measured, and counts for all since the last. A core that has little to do parks long before its
//! 32nd: there one of those that a park is followed by is chosen, in one park of 16.

use std::collections::VecDeque;

use crate::time::Instant;

/// A busy core measures one of so many.
const ONE_OF: u32 = 32;

/// A core that parks measures one in so many parks.
const PARKS: u32 = 16;

/// A task that stands for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// When it became ready.
    pub(crate) ready: Instant,
    /// For how many it stands, itself included.
    pub(crate) weight: u64,
}

/// Chooses them.
#[derive(Debug)]
pub(super) struct Probing {
    /// Those that are ready and have not been polled, by their slots: one in 32 of the run queue.
    chosen: VecDeque<(u32, Probe)>,
    /// After so many more the next is chosen, which stands for so many in all.
    until: u32,
    weight: u32,
    /// How many tasks had become ready when the last was chosen, and at the last park.
    at_probe: u32,
    at_park: u32,
    parks: u32,
    dice: u32,
}

impl Default for Probing {
    fn default() -> Self {
        Self {
            chosen: VecDeque::new(),
            until: ONE_OF,
            weight: ONE_OF,
            at_probe: 0,
            at_park: 0,
            parks: 0,
            dice: 1,
        }
    }
}

impl Probing {
    /// Notes that the task in this slot became ready; true if it was chosen.
    #[inline]
    pub(super) fn note(&mut self, slot: u32) -> bool {
        self.until -= 1;
        let chosen = self.until == 0;
        if chosen {
            self.choose(slot);
        }
        chosen
    }

    #[cold]
    fn choose(&mut self, slot: u32) {
        let probe = Probe {
            ready: Instant::now(),
            weight: u64::from(self.weight),
        };
        self.at_probe = self.at_probe.wrapping_add(self.weight);
        (self.until, self.weight) = (ONE_OF, ONE_OF);
        self.chosen.push_back((slot, probe));
    }

    /// Returns what is to be noted of the task in this slot, which was chosen and leaves the run queue.
    #[cold]
    pub(super) fn take(&mut self, slot: u32) -> Option<Probe> {
        // They run in the order in which they became ready, as a rule.
        let place = self.chosen.iter().position(|&(of, _)| of == slot)?;
        self.chosen.remove(place).map(|(_, probe)| probe)
    }

    /// Returns how many were chosen that have not been taken.
    #[cfg(test)]
    pub(super) fn chosen(&self) -> usize {
        self.chosen.len()
    }

    /// Notes that the core parks, and chooses one of as many as came since the last park.
    pub(super) fn park(&mut self) {
        let all = self.at_probe.wrapping_add(self.weight - self.until);
        let came = all.wrapping_sub(self.at_park).clamp(1, ONE_OF);
        self.at_park = all;
        self.parks += 1;
        if self.parks >= PARKS {
            self.parks = 0;
            // A linear congruential generator: any of them, without a pattern that a program has too.
            self.dice = self
                .dice
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let until = self.until.min(1 + (self.dice >> 16) % came);
            self.weight -= self.until - until;
            self.until = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `came` tasks become ready and be polled; returns the places of those that were measured,
    /// and for how many they stand.
    fn burst(probing: &mut Probing, came: u32) -> Vec<(u32, u64)> {
        let chosen: Vec<u32> = (0..came).filter(|&slot| probing.note(slot)).collect();
        let mut weight = |slot| probing.take(slot).expect("it was chosen").weight;
        let found = chosen.iter().map(|&slot| (slot, weight(slot))).collect();
        assert!(probing.chosen.is_empty());
        found
    }

    #[test]
    fn a_busy_core_measures_one_of_32_and_each_stands_for_32() {
        let mut probing = Probing::default();
        for _ in 0..100 {
            assert_eq!(burst(&mut probing, 32), [(31, 32)]);
        }
    }

    #[test]
    fn what_is_measured_stands_for_all() {
        let mut probing = Probing::default();
        let mut stood_for = 0;
        for came in (1..=20).cycle().take(4_000) {
            stood_for += burst(&mut probing, came)
                .iter()
                .map(|&(_, w)| w)
                .sum::<u64>();
            probing.park();
        }
        let came: u64 = (1..=20).sum::<u64>() * 200;
        assert!(
            came - stood_for <= u64::from(PARKS) * 20,
            "{stood_for} of {came}"
        );
    }

    #[test]
    fn no_place_in_a_burst_is_preferred() {
        let mut probing = Probing::default();
        let mut places = [0_u32; 5];
        for _ in 0..40_000 {
            for (place, _) in burst(&mut probing, 5) {
                places[place as usize] += 1;
            }
            probing.park();
        }
        let (least, most) = (places.iter().min(), places.iter().max());
        assert!(most.unwrap() < &(least.unwrap() * 2), "{places:?}");
    }

    #[test]
    fn of_a_long_queue_every_32nd_is_chosen() {
        let mut probing = Probing::default();
        let found = burst(&mut probing, 100);
        assert_eq!(found, [(31, 32), (63, 32), (95, 32)]);
    }
}
