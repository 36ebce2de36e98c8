//! Random numbers from a seed, and whoever decides instead of them.
//!
//! Each part draws from a stream of its own, so that a new draw in one does not shift all others.

/// A stream of random numbers (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Stream(u64);

impl Stream {
    /// Makes the stream of one part under a seed.
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        let mut stream = Self(seed ^ mix(part.wrapping_add(0x51_7c_c1)));
        stream.next();
        stream
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Draws from `0..below`; 0 if that is empty.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(below)) >> 64) as u64
    }

    /// Says yes so many times of 65 536.
    pub(crate) fn chance(&mut self, rate: u32) -> bool {
        rate > 0 && (self.next() >> 48) < u64::from(rate)
    }
}

pub(crate) fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Who decides between things that may come in any order.
#[derive(Debug, Clone)]
pub(crate) enum Choices {
    /// A seed.
    Random(Stream),
    /// A path through the tree of all decisions: what is not on it yet is 0.
    Path { taken: Vec<Decision>, next: usize },
}

/// One decision of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) chosen: u32,
    pub(crate) of: u32,
}

impl Choices {
    /// Chooses one of `count`.
    pub(crate) fn choose(&mut self, count: usize) -> usize {
        if count < 2 {
            return 0;
        }
        match self {
            Self::Random(stream) => stream.below(count as u64) as usize,
            Self::Path { taken, next } => {
                let of = count as u32;
                if *next == taken.len() {
                    taken.push(Decision { chosen: 0, of });
                }
                let decision = taken[*next];
                assert!(
                    decision.of == of,
                    "the program decides by something other than the simulation: decision {next} \
                     was one of {}, and now is one of {of}",
                    decision.of
                );
                *next += 1;
                decision.chosen as usize
            }
        }
    }

    /// Checks that a program has ended at the end of its path: it takes as many decisions as when it went there before.
    pub(crate) fn check_end(&self) {
        if let Self::Path { taken, next } = self {
            assert!(
                *next == taken.len(),
                "the program decides by something other than the simulation: it took {} decisions, and now took {next}",
                taken.len()
            );
        }
    }

    /// Whether something unusual, with these odds in 65 536, is decided for. A path takes none of it.
    pub(crate) fn chance(&mut self, rate: u32) -> bool {
        match self {
            Self::Random(stream) => stream.chance(rate),
            Self::Path { .. } => false,
        }
    }
}

/// Moves a path on to the next one; false if there is none.
pub(crate) fn advance(path: &mut Vec<Decision>) -> bool {
    while let Some(last) = path.last_mut() {
        last.chosen += 1;
        if last.chosen < last.of {
            return true;
        }
        path.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |part| Stream::new(7, part).next();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut stream = Stream::new(1, 1);
        let below: Vec<u64> = (0..1_000).map(|_| stream.below(3)).collect();
        for value in 0..3 {
            let count = below.iter().filter(|&&drawn| drawn == value).count();
            assert!((250..420).contains(&count), "{value} came {count} times");
        }
        assert!((0..1_000).all(|_| !stream.chance(0)));
        assert!((0..1_000).all(|_| stream.chance(1 << 16)));
    }

    #[test]
    fn paths_visit_every_leaf_once() {
        // A tree: 2 ways; the first leads to 3 ways, the second to none.
        let mut path = Vec::new();
        let mut leaves = Vec::new();
        loop {
            let mut choices = Choices::Path {
                taken: path,
                next: 0,
            };
            let first = choices.choose(2);
            let second = if first == 0 { choices.choose(3) } else { 9 };
            leaves.push((first, second));
            let Choices::Path { taken, .. } = choices else {
                unreachable!("made so above");
            };
            path = taken;
            if !advance(&mut path) {
                break;
            }
        }
        assert_eq!(leaves, [(0, 0), (0, 1), (0, 2), (1, 9)]);
    }
}
