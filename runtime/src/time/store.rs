//! Armed deadlines: the earliest is known exactly, and any can be removed cheaply. Pure.
//!
//! A heap with four children per node, ordered by deadline and then by the order of arming. Deadlines that are armed in
//! rising order, as timeouts of one length are, go in at the end without a comparison beyond the first.
//!
//! A place in the heap says whose it is, and no timer knows its place: what moves in the heap is the heap alone. Most
//! timers are timeouts, and most timeouts are removed or moved. The place of one that was stays in the heap as a dead
//! one, unless it is the last, until it comes first, or until more places are dead than alive: then all dead ones are
//! swept out. A removal costs `O(1)` so, spread over those before it, and a change as much as arming.
//!
//! Invariant: at most half of the places are dead, and there is none when no timer is armed.
//!
//! No clock and no waker here: the caller says what time it is and what a timer stands for.

use super::Instant;
use crate::slab::{Key, Slab};

/// Names one armed timer. Once it fired or was removed, the name means nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerId(Key);

#[derive(Debug)]
struct Timer<T> {
    deadline: Instant,
    /// That of its place: another one of the same timer is dead.
    order: u64,
    target: T,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    deadline: Instant,
    order: u64,
    key: Key,
}

/// All timers of one core.
#[derive(Debug)]
pub(crate) struct TimerStore<T> {
    timers: Slab<Timer<T>>,
    heap: Vec<Place>,
    /// How many places belong to timers that were removed.
    dead: usize,
    armed_so_far: u64,
}

impl<T> Default for TimerStore<T> {
    fn default() -> Self {
        Self {
            timers: Slab::default(),
            heap: Vec::new(),
            dead: 0,
            armed_so_far: 0,
        }
    }
}

impl<T> TimerStore<T> {
    /// Arms a timer.
    #[inline(always)]
    pub(crate) fn insert(&mut self, deadline: Instant, target: T) -> TimerId {
        let order = self.next_order();
        let key = self.timers.insert(Timer {
            deadline,
            order,
            target,
        });
        self.place(deadline, order, key);
        TimerId(key)
    }

    /// Disarms a timer; `None` if it has fired or was removed.
    #[inline]
    pub(crate) fn remove(&mut self, id: TimerId) -> Option<T> {
        let timer = self.timers.remove(id.0)?;
        self.leave(timer.order);
        Some(timer.target)
    }

    /// Moves an armed timer to another deadline; false if it is armed no more.
    pub(crate) fn change(&mut self, id: TimerId, deadline: Instant) -> bool {
        let order = self.next_order();
        let Some(timer) = self.timers.get_mut(id.0) else {
            return false;
        };
        timer.deadline = deadline;
        let before = std::mem::replace(&mut timer.order, order);
        self.leave(before);
        self.place(deadline, order, id.0);
        true
    }

    /// Returns what an armed timer stands for.
    pub(crate) fn target_mut(&mut self, id: TimerId) -> Option<&mut T> {
        self.timers.get_mut(id.0).map(|timer| &mut timer.target)
    }

    /// Returns the earliest deadline.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        self.drop_dead_first();
        self.heap.first().map(|place| place.deadline)
    }

    /// Takes out the earliest timer if it is due at `now`; never one that lies ahead.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.heap.first()?.deadline > now {
            return None;
        }
        self.drop_dead_first();
        let first = self.heap.first()?;
        if first.deadline > now {
            return None;
        }
        let timer = self.timers.remove(first.key);
        self.take_first();
        if self.dead > self.timers.len() {
            self.sweep();
        }
        Some(timer.expect("the first is alive").target)
    }

    /// Returns what each armed timer stands for.
    #[cfg(feature = "sim")]
    pub(crate) fn targets(&self) -> impl Iterator<Item = &T> {
        self.timers.values().map(|timer| &timer.target)
    }

    /// Returns how many timers are armed.
    pub(crate) fn len(&self) -> usize {
        self.timers.len()
    }

    fn next_order(&mut self) -> u64 {
        self.armed_so_far += 1;
        self.armed_so_far
    }

    /// Lets the first place be that of an armed timer.
    #[inline]
    fn drop_dead_first(&mut self) {
        while self.dead > 0
            && let Some(first) = self.heap.first()
            && !is_alive(&self.timers, first)
        {
            self.dead -= 1;
            self.take_first();
        }
    }

    /// Puts a place into the heap.
    #[inline]
    fn place(&mut self, deadline: Instant, order: u64, key: Key) {
        let at = self.heap.len();
        self.heap.push(Place {
            deadline,
            order,
            key,
        });
        if at > 0 {
            let parent = &self.heap[(at - 1) / CHILDREN];
            if (deadline, order) < (parent.deadline, parent.order) {
                self.rise(at);
            }
        }
    }

    /// Gives up the place of this order, which is no timer's any more.
    #[inline]
    fn leave(&mut self, order: u64) {
        if self.heap.last().is_some_and(|last| last.order == order) {
            self.heap.pop();
        } else {
            self.dead += 1;
        }
        if self.dead > self.timers.len() {
            self.sweep();
        }
    }

    /// Sweeps the dead places out, all at once.
    #[cold]
    fn sweep(&mut self) {
        self.dead = 0;
        self.heap.retain(|place| is_alive(&self.timers, place));
        // Those below the last parent have nobody below them.
        for at in (0..self.heap.len().div_ceil(CHILDREN)).rev() {
            self.sink(at);
        }
    }

    fn take_first(&mut self) {
        self.heap.swap_remove(0);
        if !self.heap.is_empty() {
            self.sink(0);
        }
    }

    fn rise(&mut self, mut at: usize) {
        let rising = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            if !before(&rising, &self.heap[parent]) {
                break;
            }
            self.heap[at] = self.heap[parent];
            at = parent;
        }
        self.heap[at] = rising;
    }

    fn sink(&mut self, mut at: usize) {
        let sinking = self.heap[at];
        loop {
            let first = at * CHILDREN + 1;
            let end = (first + CHILDREN).min(self.heap.len());
            let Some(child) = (first..end).reduce(|best, next| {
                if before(&self.heap[next], &self.heap[best]) {
                    next
                } else {
                    best
                }
            }) else {
                break;
            };
            if !before(&self.heap[child], &sinking) {
                break;
            }
            self.heap[at] = self.heap[child];
            at = child;
        }
        self.heap[at] = sinking;
    }
}

/// Returns whether a place is that of an armed timer, which may have another by now.
#[inline]
fn is_alive<T>(timers: &Slab<Timer<T>>, place: &Place) -> bool {
    timers
        .get(place.key)
        .is_some_and(|timer| timer.order == place.order)
}

fn before(a: &Place, b: &Place) -> bool {
    (a.deadline, a.order) < (b.deadline, b.order)
}

const CHILDREN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn equal_deadlines_fire_in_the_order_of_arming() {
        let mut store = TimerStore::default();
        for name in ["a", "b", "c", "d", "e", "f"] {
            store.insert(at(5), name);
        }
        let fired: Vec<_> = std::iter::from_fn(|| store.pop_due(at(5))).collect();
        assert_eq!(fired, ["a", "b", "c", "d", "e", "f"]);
    }

    #[test]
    fn nothing_fires_early() {
        let mut store = TimerStore::default();
        store.insert(at(10), ());
        assert_eq!(store.pop_due(at(9)), None);
        assert_eq!(store.pop_due(at(10)), Some(()));
    }

    #[test]
    fn a_removed_timer_leaves_nothing_behind() {
        let mut store = TimerStore::default();
        let first = store.insert(at(1), 1);
        store.insert(at(2), 2);
        assert_eq!(store.remove(first), Some(1));
        assert_eq!(store.remove(first), None);
        assert_eq!(store.next_deadline(), Some(at(2)));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_deadline_changed_a_million_times_takes_one_place() {
        let mut store = TimerStore::default();
        let id = store.insert(at(0), ());
        for n in 0..1_000_000 {
            assert!(store.change(id, at(n)));
        }
        assert_eq!(store.len(), 1);
        assert_eq!(store.next_deadline(), Some(at(999_999)));
    }

    /// Timeouts that never fire, as they come in a server's life: armed with rising deadlines, and removed.
    #[test]
    fn removed_timers_are_swept_out_in_time() {
        let mut store = TimerStore::default();
        let mut armed = std::collections::VecDeque::new();
        for n in 0..100_000 {
            armed.push_back(store.insert(at(n), n));
            if armed.len() > 100 {
                let first = armed.pop_front().expect("it is full");
                assert_eq!(store.remove(first), Some(n - 100));
            }
            assert!(store.heap.len() <= 2 * store.len(), "{n}");
        }
        for id in armed {
            assert!(store.remove(id).is_some());
        }
        assert_eq!((store.heap.len(), store.next_deadline()), (0, None));
    }

    #[test]
    fn agrees_with_a_sorted_map_in_a_random_life() {
        let mut store = TimerStore::default();
        let mut model: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let mut ids: Vec<(TimerId, u64, (u64, u64))> = Vec::new();
        let mut random = 42_u64;
        let mut armed = 0;
        for name in 0..30_000_u64 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let deadline = (random >> 40) % 1_000;
            match (random >> 61) % 4 {
                0 | 1 => {
                    armed += 1;
                    let id = store.insert(at(deadline), name);
                    model.insert((deadline, armed), name);
                    ids.push((id, name, (deadline, armed)));
                }
                2 if !ids.is_empty() => {
                    let (id, name, place) = ids.swap_remove((random >> 33) as usize % ids.len());
                    assert_eq!(store.remove(id), model.remove(&place).map(|_| name));
                }
                3 if !ids.is_empty() => {
                    let pick = (random >> 33) as usize % ids.len();
                    armed += 1;
                    let (id, name, place) = ids[pick];
                    if store.change(id, at(deadline)) {
                        assert_eq!(model.remove(&place), Some(name));
                        model.insert((deadline, armed), name);
                        ids[pick].2 = (deadline, armed);
                    } else {
                        armed -= 1;
                        assert_eq!(model.get(&place), None);
                    }
                }
                _ => {
                    let due = store.pop_due(at(deadline / 8));
                    let expected = model
                        .first_entry()
                        .filter(|first| first.key().0 <= deadline / 8);
                    assert_eq!(
                        due,
                        expected.map(std::collections::btree_map::OccupiedEntry::remove)
                    );
                }
            }
            assert_eq!(store.len(), model.len());
            assert_eq!(store.heap.len(), store.len() + store.dead);
            assert!(store.dead <= store.len());
            // To ask drops dead places: not always, so that others meet them.
            if (random >> 20).is_multiple_of(4) {
                assert_eq!(
                    store.next_deadline(),
                    model.keys().next().map(|key| at(key.0))
                );
            }
        }
    }
}
