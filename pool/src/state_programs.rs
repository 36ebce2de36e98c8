//! Random programs of callers and owners, which hold the registry to what they know themselves.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::*;
use crate::config::Backoff;

/// A stream of numbers that a seed decides (xorshift64*).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Close seeds shall not begin alike.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }
}

/// What callers and owners know, in the plainest way: the reference that the registry is held to.
#[derive(Default)]
struct World {
    now: u64,
    waiting: BTreeMap<TicketId, (Key, Mode)>,
    leases: Vec<(EntryId, Mode)>,
    /// Owners that open, and those that have opened.
    opening: Vec<EntryId>,
    open: Vec<EntryId>,
    /// Owners that were told to end and have not.
    stopped: BTreeSet<EntryId>,
    ended: BTreeSet<EntryId>,
    /// Sessions that their one lease looks at.
    checked: BTreeSet<EntryId>,
}

struct Run {
    state: State<&'static str>,
    world: World,
    random: Random,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let limits = Limits {
            max_sessions: random.within(1..=4),
            max_waiting: random.within(0..=6),
            idle_timeout: [None, Some(Duration::from_millis(10)), Some(Duration::ZERO)]
                [random.below(3)],
            check_after: Duration::from_millis(random.within(0..=8) as u64),
            max_age: [None, Some(Duration::from_millis(40))][random.below(2)],
            backoff: Backoff {
                first: Duration::from_millis(2),
                longest: Duration::from_millis(8),
            },
        };
        Self {
            state: State::new(limits),
            world: World::default(),
            random,
        }
    }

    fn now(&self) -> Instant {
        // Any instant will do to count from.
        Instant::NEVER - Duration::from_secs(1 << 32) + Duration::from_millis(self.world.now)
    }

    fn key(&mut self) -> Key {
        let (server, scope) = (self.random.below(2), self.random.below(3));
        Key::new(["a", "b"][server], ["x", "y", "z"][scope])
    }

    /// Does what the registry wants done, as far as it is at once.
    fn carry_out(&mut self) {
        for effect in self.state.take_effects() {
            match effect {
                Effect::Wake(_) => {}
                Effect::Stop(id) => {
                    assert!(self.world.stopped.insert(id), "told twice");
                }
                Effect::Gone(id) => {
                    assert!(self.world.ended.insert(id), "ended twice");
                }
            }
        }
    }

    /// A caller looks at its ticket.
    fn look(&mut self, ticket: TicketId) {
        let (key, mode) = self.world.waiting[&ticket].clone();
        match self.state.outcome(ticket, self.now()) {
            None => return,
            Some(Outcome::Appointed(id)) => {
                assert_eq!(self.state.entries[&id].key, key);
                self.world.opening.push(id);
                return;
            }
            Some(Outcome::Granted(id)) => self.world.leases.push((id, mode)),
            Some(Outcome::Failed(_)) => {}
        }
        self.world.waiting.remove(&ticket);
    }

    fn step(&mut self) {
        let now = self.now();
        let waiting: Vec<_> = self.world.waiting.keys().copied().collect();
        match self.random.below(12) {
            0..=2 => {
                let (key, place) = (self.key(), Place(self.random.below(2)));
                let mode = [Mode::Shared, Mode::Shared, Mode::Exclusive][self.random.below(3)];
                match self.state.lease(&key, mode, place, now) {
                    Decision::Leased(id, is_checked) => {
                        self.world.leases.push((id, mode));
                        if is_checked {
                            self.world.checked.insert(id);
                        }
                    }
                    Decision::Wait(ticket) => {
                        self.world.waiting.insert(ticket, (key, mode));
                    }
                    Decision::BackingOff { .. } | Decision::Exhausted { .. } => {}
                }
            }
            3..=4 => {
                if let Some(ticket) = self.random.pick(&waiting) {
                    self.look(ticket);
                }
            }
            5 => {
                if let Some(ticket) = self.random.pick(&waiting) {
                    self.world.waiting.remove(&ticket);
                    self.state.leave(ticket, now);
                }
            }
            6 => self.opening_ends(),
            7 => {
                if !self.world.leases.is_empty() {
                    let at = self.random.below(self.world.leases.len());
                    let (id, _) = self.world.leases.swap_remove(at);
                    self.world.checked.remove(&id);
                    self.state.release(id, now);
                }
            }
            8 => {
                if let Some(id) = self.world.checked.pop_first() {
                    match self.random.below(3) {
                        0 => self.state.retire(id, now),
                        _ => self.state.proved(id),
                    }
                } else if let Some(id) = self.random.pick(&self.world.open) {
                    match self.random.below(4) {
                        0 => self.state.retire(id, now),
                        1 => self.state.take_out(id, End::Shutdown, now),
                        _ => {
                            if self.state.look(id, now).is_none() {
                                self.state.retire(id, now);
                            }
                        }
                    }
                    // An owner that takes itself out need not be told.
                }
            }
            9 => self.stopped_ends(),
            10 => {
                let key = self.key();
                let which = match self.random.below(8) {
                    0 => Selection::All,
                    1 => Selection::Server(key.server()),
                    2 => Selection::Scope(key.scope()),
                    _ => Selection::Session(&key),
                };
                for (id, _) in self.state.close(which, now) {
                    assert!(!self.state.is_open(id), "closed, and open");
                }
                assert!(self.state.live.keys().all(|key| !which.matches(key)));
            }
            _ => self.world.now += self.random.within(1..=12) as u64,
        }
        self.carry_out();
    }

    fn opening_ends(&mut self) {
        let Some(id) = self.random.pick(&self.world.opening) else {
            return;
        };
        self.world.opening.retain(|other| *other != id);
        let now = self.now();
        match self.random.below(5) {
            0 => {
                let failure = Failure::Error(Arc::new("refused"));
                self.state.open_failed(id, &failure, 7, now);
            }
            1 => self
                .state
                .open_aborted(id, Place(self.random.below(2)), now),
            2 if self.random.below(2) == 0 => {
                self.state.ended(id, now);
            }
            _ => {
                let was_stopped = self.world.stopped.contains(&id);
                assert_eq!(self.state.opened(id, now), !was_stopped);
                if was_stopped {
                    self.state.ended(id, now);
                } else {
                    self.world.open.push(id);
                }
            }
        }
    }

    /// An owner that was told to end does so; one whose owner panics ends untold.
    fn stopped_ends(&mut self) {
        let stopped = |id: &EntryId| self.world.stopped.contains(id);
        let open: Vec<_> = self.world.open.clone();
        let chosen: Vec<_> = open.iter().copied().filter(stopped).collect();
        let untold = self.random.below(10) == 0;
        let from = if untold { &open } else { &chosen };
        if let Some(id) = self.random.pick(from) {
            self.world.open.retain(|other| *other != id);
            self.state.ended(id, self.now());
        }
    }

    /// What holds after every step.
    fn check(&self) {
        let (state, world) = (&self.state, &self.world);
        assert!(state.entries.len() <= state.limits.max_sessions, "too many");
        assert!(state.queue.len() <= state.limits.max_waiting + world.waiting.len());
        let behind: Vec<_> = (0..=state.queue.keys())
            .map(|keys| state.queue.len_behind(keys))
            .collect();
        assert!(
            behind.is_sorted_by(|more, less| more > less),
            "each key is wanted: {behind:?}"
        );
        assert_eq!(
            (behind.first(), behind.last()),
            (Some(&state.queue.len()), Some(&0))
        );
        assert_eq!(state.tickets.len(), world.waiting.len());
        let entries = state.entries.iter();
        let idle = entries.filter(|(_, entry)| entry.is_idle());
        let idle: BTreeMap<_, _> = idle.map(|(id, entry)| (entry.last_use, *id)).collect();
        assert_eq!(state.idle, idle);
        for (key, id) in &state.live {
            let entry = &state.entries[id];
            assert_eq!(&entry.key, key);
            let live = [Phase::Appointed, Phase::Opening, Phase::Ready];
            assert!(live.contains(&entry.phase), "{entry:?}");
        }
        for (id, entry) in &state.entries {
            let is_live = state.live.get(&entry.key) == Some(id);
            let should = matches!(
                entry.phase,
                Phase::Appointed | Phase::Opening | Phase::Ready
            );
            assert_eq!(is_live, should, "{entry:?}");
            self.check_leases(*id, entry);
            for ticket in entry.line.iter() {
                assert_eq!(state.tickets[&ticket].key, entry.key);
            }
            if entry.phase == Phase::Opening {
                assert!(!entry.line.is_empty(), "nobody waits for it");
                assert!(world.opening.contains(id));
            }
            if matches!(entry.phase, Phase::Closing(_)) {
                assert!(world.stopped.contains(id), "nobody has told it");
            }
            if matches!(entry.phase, Phase::Retiring(_)) {
                assert!(entry.leases > 0, "it should be closing");
            }
        }
        self.check_progress();
    }

    fn check_leases(&self, id: EntryId, entry: &Entry) {
        let granted = self.state.tickets.values().filter_map(|ticket| {
            let At::Decided(Outcome::Granted(to)) = &ticket.at else {
                return None;
            };
            (*to == id).then_some(ticket.mode)
        });
        let held = self.world.leases.iter().filter(|(of, _)| *of == id);
        let modes: Vec<_> = held.map(|(_, mode)| *mode).chain(granted).collect();
        assert_eq!(entry.leases as usize, modes.len(), "{entry:?}");
        if modes.contains(&Mode::Exclusive) || self.world.checked.contains(&id) {
            assert_eq!(modes.len(), 1, "not alone");
        }
    }

    /// Nobody waits for what could be given.
    fn check_progress(&self) {
        let state = &self.state;
        for entry in state.entries.values() {
            if entry.phase == Phase::Ready
                && let Some(first) = entry.line.first()
            {
                let grantable = match state.tickets[&first].mode {
                    Mode::Shared => !entry.exclusive && !entry.is_checked,
                    Mode::Exclusive => entry.leases == 0,
                };
                assert!(!grantable, "it could be leased: {entry:?}");
            }
        }
        if let Some(first) = state.queue.first() {
            let has_entry = state.live.contains_key(&state.tickets[&first].key);
            assert!(!has_entry, "it should stand in its line");
            let full = state.entries.len() == state.limits.max_sessions;
            assert!(full, "there is room");
            let ends = |entry: &Entry| matches!(entry.phase, Phase::Closing(_));
            let comes = state.entries.values().any(ends);
            let idle = state.entries.values().any(Entry::is_idle);
            assert!(comes || !idle, "an idle one could be closed");
        }
    }

    /// Everybody goes on to the end: nothing may be left.
    fn finish(mut self) {
        for _ in 0..10_000 {
            let waiting: Vec<_> = self.world.waiting.keys().copied().collect();
            for ticket in waiting {
                self.look(ticket);
            }
            let now = self.now();
            if let Some(id) = self.world.opening.pop() {
                let was_stopped = self.world.stopped.contains(&id);
                match self.state.opened(id, now) {
                    true => self.world.open.push(id),
                    false => self.state.ended(id, now),
                }
                assert!(was_stopped || self.world.open.contains(&id));
            }
            if let Some(id) = self.world.checked.pop_first() {
                self.state.proved(id);
            }
            if let Some((id, _)) = self.world.leases.pop() {
                self.state.release(id, now);
            }
            self.carry_out();
            let stopped = self.world.stopped.clone();
            let over: Vec<_> = self.world.open.clone();
            for id in over.into_iter().filter(|id| stopped.contains(id)) {
                self.world.open.retain(|other| *other != id);
                self.state.ended(id, now);
                self.carry_out();
            }
            self.check();
            if self.world.waiting.is_empty() && self.world.leases.is_empty() {
                break;
            }
        }
        assert!(self.world.waiting.is_empty(), "somebody waits for ever");
        self.state.close(Selection::All, self.now());
        for id in std::mem::take(&mut self.world.open) {
            self.state.ended(id, self.now());
        }
        for id in std::mem::take(&mut self.world.opening) {
            self.state.ended(id, self.now());
        }
        assert!(self.state.entries.is_empty() && self.state.live.is_empty());
        assert!(self.state.tickets.is_empty() && self.state.queue.is_empty());
    }
}

/// With `QUOIT_POOL_SEEDS` so many programs, or with `QUOIT_POOL_SEED` that one.
#[test]
fn random_programs_find_the_registry_as_the_rules_say() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("QUOIT_POOL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QUOIT_POOL_SEEDS").unwrap_or(3_000),
    };
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            for _ in 0..120 {
                run.step();
                run.check();
            }
            run.finish();
        });
        assert!(run.is_ok(), "run it again with QUOIT_POOL_SEED={seed}");
    }
}
