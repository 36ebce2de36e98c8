//! Armed deadlines: the earliest is known exactly, and any can be removed cheaply. Pure.
//!
//! A heap with four children per node, ordered by deadline and then by the order of arming. Every
//! timer knows its place in the heap, so removal and change are `O(log n)` and leave nothing behind:
//! the store never holds more than the live timers. Deadlines that are armed in rising order, as
//! timeouts of one length are, go in at the end without a comparison beyond the first.
//!
//! No clock and no waker here: the caller says what time it is and what a timer stands for.

use super::Instant;
use crate::slab::{Key, Slab};

/// Names one armed timer. Once it fired or was removed, the name means nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerId(Key);

#[derive(Debug)]
struct Timer<T> {
    place: u32,
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
    armed_so_far: u64,
}

impl<T> Default for TimerStore<T> {
    fn default() -> Self {
        Self {
            timers: Slab::default(),
            heap: Vec::new(),
            armed_so_far: 0,
        }
    }
}

impl<T> TimerStore<T> {
    /// Arms a timer.
    pub(crate) fn insert(&mut self, deadline: Instant, target: T) -> TimerId {
        let place = self.heap.len() as u32;
        let key = self.timers.insert(Timer { place, target });
        self.armed_so_far += 1;
        self.heap.push(Place {
            deadline,
            order: self.armed_so_far,
            key,
        });
        self.rise(place as usize);
        TimerId(key)
    }

    /// Disarms a timer; `None` if it has fired or was removed.
    pub(crate) fn remove(&mut self, id: TimerId) -> Option<T> {
        let timer = self.timers.remove(id.0)?;
        self.take_place(timer.place as usize);
        Some(timer.target)
    }

    /// Moves an armed timer to another deadline; false if it is armed no more.
    pub(crate) fn change(&mut self, id: TimerId, deadline: Instant) -> bool {
        let Some(timer) = self.timers.get(id.0) else {
            return false;
        };
        let at = timer.place as usize;
        self.armed_so_far += 1;
        self.heap[at].deadline = deadline;
        self.heap[at].order = self.armed_so_far;
        let at = self.rise(at);
        self.sink(at);
        true
    }

    /// Returns what an armed timer stands for.
    pub(crate) fn target_mut(&mut self, id: TimerId) -> Option<&mut T> {
        self.timers.get_mut(id.0).map(|timer| &mut timer.target)
    }

    /// Returns when an armed timer is due.
    pub(crate) fn deadline(&self, id: TimerId) -> Option<Instant> {
        let timer = self.timers.get(id.0)?;
        Some(self.heap[timer.place as usize].deadline)
    }

    /// Returns the earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|place| place.deadline)
    }

    /// Takes out the earliest timer if it is due at `now`; never one that lies ahead.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<T> {
        let first = self.heap.first()?;
        if first.deadline > now {
            return None;
        }
        let timer = self
            .timers
            .remove(first.key)
            .expect("every place belongs to a timer");
        self.take_place(0);
        Some(timer.target)
    }

    /// Returns what each armed timer stands for.
    #[cfg(feature = "sim")]
    pub(crate) fn targets(&self) -> impl Iterator<Item = &T> {
        let timers = self.heap.iter().map(|place| self.timers.get(place.key));
        timers.map(|timer| &timer.expect("every place belongs to a timer").target)
    }

    /// Returns how many timers are armed.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    fn take_place(&mut self, at: usize) {
        let last = self.heap.pop().expect("a timer has a place");
        if at < self.heap.len() {
            self.put(at, last);
            let at = self.rise(at);
            self.sink(at);
        }
    }

    fn put(&mut self, at: usize, place: Place) {
        self.heap[at] = place;
        self.timers
            .get_mut(place.key)
            .expect("every place belongs to a timer")
            .place = at as u32;
    }

    fn rise(&mut self, mut at: usize) -> usize {
        let rising = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            if !before(&rising, &self.heap[parent]) {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, rising);
        at
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
            self.put(at, self.heap[child]);
            at = child;
        }
        self.put(at, sinking);
    }
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
            assert_eq!(
                store.next_deadline(),
                model.keys().next().map(|key| at(key.0))
            );
        }
    }
}
