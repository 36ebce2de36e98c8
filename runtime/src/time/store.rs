//! Armed deadlines: the earliest is known exactly, and any can be removed cheaply. Pure.
//!
//! Deadlines that are armed in rising order, as timeouts of one length are, stand in a row. One that comes before the
//! last of the row goes into a heap, with four children per node. Both are ordered by deadline and then by the order of
//! arming; the earliest of all is the first of one of the two.
//!
//! A place in either says whose it is, and no timer knows its place: what moves in the heap is the heap alone. Most
//! timers are timeouts, and most timeouts are removed or moved. The place of one that was stays as a dead one, unless
//! it is at an end, until it comes first, or until more places are dead than alive: then all dead ones are swept out. A
//! removal costs `O(1)` so, spread over those before it, and a change as much as arming.
//!
//! A deadline may be kept elsewhere: by the wait that it ends, or by the scope that it cancels. Then its place is all
//! that is here, and whether it still is a deadline is asked there ([`Elsewhere`]): most timers are one of the two, and
//! need no entry of their own. Who keeps one lets go of it first, and [withdraws](TimerStore::withdraw) it then.
//!
//! Invariant: at most half of the places are dead, and there is none when no timer is armed. Their count is never too
//! low; of a wait that is over when its deadline comes, and that its owner has yet to see, it is one too high.
//!
//! No clock and no waker here: the caller says what time it is and what a timer stands for.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use super::Instant;
use crate::slab::{Key, Slab};

/// Names one armed timer. Once it fired or was removed, the name means nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerId(Key);

/// When a deadline was armed, among all others, and whose it is: that of its place, of which no other has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order(NonZeroU64);

/// Whose a deadline is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// A timer of the store.
    Timer,
    /// A wait, which keeps it.
    Park,
    /// A scope, which keeps it.
    Scope,
}

/// How many bits of an order say whose it is.
const OF_BITS: u32 = 2;

/// A bit that all orders have, more than are ever armed: so none is zero.
const ORDER: NonZeroU64 = NonZeroU64::new(1 << 63).expect("a bit is set");

impl Order {
    #[inline]
    fn of(self) -> Of {
        match self.0.get() % (1 << OF_BITS) {
            0 => Of::Timer,
            1 => Of::Park,
            _ => Of::Scope,
        }
    }
}

/// Where deadlines are kept that are no timers of the store.
pub(crate) trait Elsewhere {
    /// Returns whether a deadline of this order is still that of who has the key.
    fn is_armed(&self, of: Of, key: Key, order: Order) -> bool;
}

/// A deadline that has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due<T> {
    /// Of a timer, which stood for this.
    Timer(T),
    /// Of a wait.
    Park(Key),
    /// Of a scope.
    Scope(Key),
}

#[derive(Debug)]
struct Timer<T> {
    deadline: Instant,
    /// That of its place: another one of the same timer is dead.
    order: Order,
    target: T,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    deadline: Instant,
    order: Order,
    /// Of the timer, the wait or the scope.
    key: Key,
}

/// Where a place is.
#[derive(Debug, Clone, Copy)]
enum Side {
    Row,
    Heap,
}

/// All timers of one core.
#[derive(Debug)]
pub(crate) struct TimerStore<T> {
    timers: Slab<Timer<T>>,
    /// In rising order.
    row: VecDeque<Place>,
    heap: Vec<Place>,
    /// How many places belong to timers that were removed.
    dead: usize,
    /// How many are armed that are kept elsewhere.
    elsewhere: usize,
    armed_so_far: u64,
    /// Orders below this are those of deadlines that were taken out at the end of the core.
    first: u64,
}

impl<T> Default for TimerStore<T> {
    fn default() -> Self {
        Self {
            timers: Slab::default(),
            row: VecDeque::new(),
            heap: Vec::new(),
            dead: 0,
            elsewhere: 0,
            armed_so_far: 0,
            first: 0,
        }
    }
}

impl<T> TimerStore<T> {
    /// Arms a timer.
    pub(crate) fn insert(&mut self, deadline: Instant, target: T) -> TimerId {
        let order = self.next_order(Of::Timer);
        let key = self.timers.insert(Timer {
            deadline,
            order,
            target,
        });
        self.place(deadline, order, key);
        TimerId(key)
    }

    /// Arms a deadline that is kept elsewhere, by who has the key there.
    #[inline(always)]
    pub(crate) fn arm(&mut self, deadline: Instant, of: Of, key: Key) -> Order {
        let order = self.next_order(of);
        self.elsewhere += 1;
        self.place(deadline, order, key);
        order
    }

    /// Disarms such a deadline, which is kept there no more; not one that has come.
    #[inline(always)]
    pub(crate) fn withdraw(&mut self, order: Order, elsewhere: &impl Elsewhere) {
        if order.0.get() < self.first {
            return;
        }
        self.elsewhere -= 1;
        self.leave(order, elsewhere);
    }

    /// Takes note that a deadline which has come will be withdrawn all the same: its wait was over before.
    pub(crate) fn came_late(&mut self) {
        self.elsewhere += 1;
    }

    /// Disarms a timer; `None` if it has fired or was removed.
    #[inline]
    pub(crate) fn remove(&mut self, id: TimerId, elsewhere: &impl Elsewhere) -> Option<T> {
        let timer = self.timers.remove(id.0)?;
        self.leave(timer.order, elsewhere);
        Some(timer.target)
    }

    /// Moves an armed timer to another deadline; false if it is armed no more.
    pub(crate) fn change(
        &mut self,
        id: TimerId,
        deadline: Instant,
        elsewhere: &impl Elsewhere,
    ) -> bool {
        let order = self.next_order(Of::Timer);
        let Some(timer) = self.timers.get_mut(id.0) else {
            return false;
        };
        timer.deadline = deadline;
        let before = std::mem::replace(&mut timer.order, order);
        self.leave(before, elsewhere);
        self.place(deadline, order, id.0);
        true
    }

    /// Returns what an armed timer stands for.
    pub(crate) fn target_mut(&mut self, id: TimerId) -> Option<&mut T> {
        self.timers.get_mut(id.0).map(|timer| &mut timer.target)
    }

    /// Returns the earliest deadline.
    pub(crate) fn next_deadline(&mut self, elsewhere: &impl Elsewhere) -> Option<Instant> {
        self.drop_dead_first(elsewhere);
        self.first().map(|(place, _)| place.deadline)
    }

    /// Takes out the earliest deadline if it is due at `now`; never one that lies ahead.
    pub(crate) fn pop_due(&mut self, now: Instant, elsewhere: &impl Elsewhere) -> Option<Due<T>> {
        loop {
            let (&first, side) = self.first().filter(|(first, _)| first.deadline <= now)?;
            let due = match first.order.of() {
                _ if !is_alive(&self.timers, elsewhere, &first) => None,
                Of::Timer => {
                    let timer = self.timers.remove(first.key);
                    timer.map(|timer| Due::Timer(timer.target))
                }
                of => {
                    self.elsewhere -= 1;
                    Some(match of {
                        Of::Scope => Due::Scope(first.key),
                        _ => Due::Park(first.key),
                    })
                }
            };
            self.take_first(side);
            if due.is_none() {
                self.dead = self.dead.saturating_sub(1);
            }
            if self.dead > self.len() {
                self.sweep(elsewhere);
            }
            if due.is_some() {
                return due;
            }
        }
    }

    /// Takes all timers out, at the end of the core: what is withdrawn later is in no store.
    pub(crate) fn empty(&mut self) -> Self {
        let none = Self {
            armed_so_far: self.armed_so_far,
            first: ORDER.get() | (self.armed_so_far + 1) << OF_BITS,
            ..Self::default()
        };
        std::mem::replace(self, none)
    }

    /// Returns what each armed timer stands for.
    #[cfg(feature = "sim")]
    pub(crate) fn targets(&self) -> impl Iterator<Item = &T> {
        self.timers.values().map(|timer| &timer.target)
    }

    /// Returns how many deadlines were let go of elsewhere that nobody has withdrawn.
    #[cfg(feature = "sim")]
    pub(crate) fn forgotten(&self, elsewhere: &impl Elsewhere) -> usize {
        let places = self.row.iter().chain(&self.heap);
        let dead = places.filter(|place| !is_alive(&self.timers, elsewhere, place));
        dead.count().saturating_sub(self.dead)
    }

    /// Returns how many timers are armed.
    pub(crate) fn len(&self) -> usize {
        self.timers.len() + self.elsewhere
    }

    #[inline]
    fn next_order(&mut self, of: Of) -> Order {
        self.armed_so_far += 1;
        Order(ORDER | self.armed_so_far << OF_BITS | of as u64)
    }

    /// Returns the earliest place, and where it is.
    #[inline]
    fn first(&self) -> Option<(&Place, Side)> {
        match (self.row.front(), self.heap.first()) {
            (Some(row), Some(heap)) if before(heap, row) => Some((heap, Side::Heap)),
            (Some(row), _) => Some((row, Side::Row)),
            (None, heap) => heap.map(|heap| (heap, Side::Heap)),
        }
    }

    /// Lets the first place be that of an armed timer.
    #[inline]
    fn drop_dead_first(&mut self, elsewhere: &impl Elsewhere) {
        while self.dead > 0
            && let Some((first, side)) = self.first()
            && !is_alive(&self.timers, elsewhere, first)
        {
            self.dead -= 1;
            self.take_first(side);
        }
    }

    /// Makes a place.
    #[inline]
    fn place(&mut self, deadline: Instant, order: Order, key: Key) {
        let place = Place {
            deadline,
            order,
            key,
        };
        let last = self.row.back();
        if last.is_none_or(|last| last.deadline <= deadline) {
            self.row.push_back(place);
        } else {
            self.place_in_heap(place);
        }
    }

    fn place_in_heap(&mut self, place: Place) {
        let at = self.heap.len();
        self.heap.push(place);
        if at > 0 && before(&place, &self.heap[(at - 1) / CHILDREN]) {
            self.rise(at);
        }
    }

    /// Gives up the place of this order, which is no timer's any more.
    #[inline]
    fn leave(&mut self, order: Order, elsewhere: &impl Elsewhere) {
        let is_it = |place: &Place| place.order == order;
        if self.row.front().is_some_and(is_it) {
            self.row.pop_front();
        } else if self.row.back().is_some_and(is_it) {
            self.row.pop_back();
        } else if self.heap.last().is_some_and(is_it) {
            self.heap.pop();
        } else {
            self.dead += 1;
        }
        if self.dead > self.len() {
            self.sweep(elsewhere);
        }
    }

    /// Sweeps the dead places out, all at once.
    #[cold]
    fn sweep(&mut self, elsewhere: &impl Elsewhere) {
        self.dead = 0;
        let timers = &self.timers;
        let is_alive = |place: &Place| is_alive(timers, elsewhere, place);
        self.row.retain(is_alive);
        self.heap.retain(is_alive);
        // Those below the last parent have nobody below them.
        for at in (0..self.heap.len().div_ceil(CHILDREN)).rev() {
            self.sink(at);
        }
    }

    fn take_first(&mut self, side: Side) {
        match side {
            Side::Row => drop(self.row.pop_front()),
            Side::Heap => {
                self.heap.swap_remove(0);
                if !self.heap.is_empty() {
                    self.sink(0);
                }
            }
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
fn is_alive<T>(timers: &Slab<Timer<T>>, elsewhere: &impl Elsewhere, place: &Place) -> bool {
    match place.order.of() {
        Of::Timer => timers
            .get(place.key)
            .is_some_and(|timer| timer.order == place.order),
        of => elsewhere.is_armed(of, place.key, place.order),
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

    /// Where nothing is kept.
    struct Nowhere;

    impl Elsewhere for Nowhere {
        fn is_armed(&self, _: Of, _: Key, _: Order) -> bool {
            unreachable!("all are timers of the store")
        }
    }

    fn pop<T>(store: &mut TimerStore<T>, now: Instant) -> Option<T> {
        store.pop_due(now, &Nowhere).map(|due| match due {
            Due::Timer(target) => target,
            Due::Park(_) | Due::Scope(_) => unreachable!("all are timers of the store"),
        })
    }

    fn places<T>(store: &TimerStore<T>) -> usize {
        store.row.len() + store.heap.len()
    }

    #[test]
    fn equal_deadlines_fire_in_the_order_of_arming() {
        let mut store = TimerStore::default();
        for name in ["a", "b", "c", "d", "e", "f"] {
            store.insert(at(5), name);
        }
        let fired: Vec<_> = std::iter::from_fn(|| pop(&mut store, at(5))).collect();
        assert_eq!(fired, ["a", "b", "c", "d", "e", "f"]);
    }

    #[test]
    fn nothing_fires_early() {
        let mut store = TimerStore::default();
        store.insert(at(10), ());
        assert_eq!(pop(&mut store, at(9)), None);
        assert_eq!(pop(&mut store, at(10)), Some(()));
    }

    #[test]
    fn a_removed_timer_leaves_nothing_behind() {
        let mut store = TimerStore::default();
        let first = store.insert(at(1), 1);
        store.insert(at(2), 2);
        assert_eq!(store.remove(first, &Nowhere), Some(1));
        assert_eq!(store.remove(first, &Nowhere), None);
        assert_eq!(store.next_deadline(&Nowhere), Some(at(2)));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_deadline_changed_a_million_times_takes_one_place() {
        let mut store = TimerStore::default();
        let id = store.insert(at(0), ());
        for n in 0..1_000_000 {
            assert!(store.change(id, at(n), &Nowhere));
        }
        assert_eq!(store.len(), 1);
        assert_eq!(store.next_deadline(&Nowhere), Some(at(999_999)));
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
                assert_eq!(store.remove(first, &Nowhere), Some(n - 100));
            }
            assert!(places(&store) <= 2 * store.len(), "{n}");
        }
        for id in armed {
            assert!(store.remove(id, &Nowhere).is_some());
        }
        assert_eq!((places(&store), store.next_deadline(&Nowhere)), (0, None));
    }

    /// Keeps deadlines by their orders.
    #[derive(Default)]
    struct Keeper(BTreeMap<Key, Order>);

    impl Elsewhere for Keeper {
        fn is_armed(&self, _: Of, key: Key, order: Order) -> bool {
            self.0.get(&key) == Some(&order)
        }
    }

    fn key(n: u32) -> Key {
        Key::new(n, 0)
    }

    #[test]
    fn deadlines_kept_elsewhere_fire_among_timers_in_the_order_of_arming() {
        let (mut store, mut keeper) = (TimerStore::default(), Keeper::default());
        keeper.0.insert(key(1), store.arm(at(5), Of::Park, key(1)));
        store.insert(at(5), "timer");
        keeper.0.insert(key(2), store.arm(at(5), Of::Scope, key(2)));
        keeper.0.insert(key(3), store.arm(at(4), Of::Scope, key(3)));
        assert_eq!(
            (store.len(), store.next_deadline(&keeper)),
            (4, Some(at(4)))
        );
        let fired: Vec<_> = std::iter::from_fn(|| store.pop_due(at(5), &keeper)).collect();
        let expected = [
            Due::Scope(key(3)),
            Due::Park(key(1)),
            Due::Timer("timer"),
            Due::Scope(key(2)),
        ];
        assert_eq!(fired, expected);
        assert_eq!((store.len(), places(&store)), (0, 0));
    }

    /// A scope that is cancelled lets go of its deadline, and the core withdraws it a little later.
    #[test]
    fn what_was_let_go_of_does_not_fire_before_it_is_withdrawn() {
        let (mut store, mut keeper) = (TimerStore::<()>::default(), Keeper::default());
        let gone = store.arm(at(1), Of::Scope, key(1));
        let later = store.arm(at(2), Of::Scope, key(1));
        keeper.0.insert(key(1), later);
        assert_eq!(store.pop_due(at(1), &keeper), None);
        store.withdraw(gone, &keeper);
        assert_eq!(
            (store.len(), store.next_deadline(&keeper)),
            (1, Some(at(2)))
        );
        assert_eq!(store.pop_due(at(2), &keeper), Some(Due::Scope(key(1))));
        assert_eq!((store.len(), places(&store)), (0, 0));
    }

    #[test]
    fn a_wait_that_was_over_when_its_deadline_came_is_counted_until_it_is_withdrawn() {
        let (mut store, mut keeper) = (TimerStore::<()>::default(), Keeper::default());
        let over = store.arm(at(1), Of::Park, key(1));
        let other = store.arm(at(9), Of::Park, key(2));
        keeper.0.extend([(key(1), over), (key(2), other)]);
        assert_eq!(store.pop_due(at(1), &keeper), Some(Due::Park(key(1))));
        store.came_late();
        assert_eq!(store.len(), 2);
        keeper.0.remove(&key(1));
        store.withdraw(over, &keeper);
        assert_eq!(
            (store.len(), store.next_deadline(&keeper)),
            (1, Some(at(9)))
        );
        keeper.0.remove(&key(2));
        store.withdraw(other, &keeper);
        assert_eq!((store.len(), places(&store), store.dead), (0, 0, 0));
    }

    #[test]
    fn a_store_that_was_emptied_is_not_confused_by_what_is_withdrawn_from_it() {
        let (mut store, mut keeper) = (TimerStore::<()>::default(), Keeper::default());
        let before = store.arm(at(1), Of::Park, key(1));
        store.empty();
        let order = store.arm(at(2), Of::Park, key(1));
        assert_ne!(before, order);
        keeper.0.insert(key(1), order);
        store.withdraw(before, &keeper);
        assert_eq!(store.next_deadline(&keeper), Some(at(2)));
        assert_eq!(store.len(), 1);
        assert_eq!(store.pop_due(at(2), &keeper), Some(Due::Park(key(1))));
        assert_eq!(store.len(), 0);
    }

    /// Sleeps that are given up, as they come in a server's life.
    #[test]
    fn deadlines_that_were_withdrawn_are_swept_out_in_time() {
        let (mut store, mut keeper) = (TimerStore::<()>::default(), Keeper::default());
        for n in 0..100_000_u32 {
            let order = store.arm(at(n.into()), Of::Park, key(n));
            keeper.0.insert(key(n), order);
            if let Some(old) = n.checked_sub(100) {
                let order = keeper.0.remove(&key(old)).expect("it is kept");
                store.withdraw(order, &keeper);
            }
            assert!(places(&store) <= 2 * store.len(), "{n}");
        }
        while let Some((_, order)) = keeper.0.pop_first() {
            store.withdraw(order, &keeper);
        }
        assert_eq!((places(&store), store.len()), (0, 0));
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
                    assert_eq!(
                        store.remove(id, &Nowhere),
                        model.remove(&place).map(|_| name)
                    );
                }
                3 if !ids.is_empty() => {
                    let pick = (random >> 33) as usize % ids.len();
                    armed += 1;
                    let (id, name, place) = ids[pick];
                    if store.change(id, at(deadline), &Nowhere) {
                        assert_eq!(model.remove(&place), Some(name));
                        model.insert((deadline, armed), name);
                        ids[pick].2 = (deadline, armed);
                    } else {
                        armed -= 1;
                        assert_eq!(model.get(&place), None);
                    }
                }
                _ => {
                    let due = pop(&mut store, at(deadline / 8));
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
            assert_eq!(places(&store), store.len() + store.dead);
            assert!(store.dead <= store.len());
            // To ask drops dead places: not always, so that others meet them.
            if (random >> 20).is_multiple_of(4) {
                assert_eq!(
                    store.next_deadline(&Nowhere),
                    model.keys().next().map(|key| at(key.0))
                );
            }
        }
    }

    /// What is kept elsewhere, as the tree does it: a wait for as long as it is there, a scope until it lets go.
    #[derive(Default)]
    struct Tree {
        waits: Slab<()>,
        scopes: Slab<Option<Order>>,
    }

    impl Elsewhere for Tree {
        fn is_armed(&self, of: Of, key: Key, order: Order) -> bool {
            match of {
                Of::Timer => unreachable!("the store has it"),
                Of::Park => self.waits.get(key).is_some(),
                Of::Scope => self.scopes.get(key) == Some(&Some(order)),
            }
        }
    }

    /// Whose deadline it is, in the order of arming.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Whose {
        Timer(u64),
        Wait(Key),
        Scope(Key),
    }

    /// A store, what is kept elsewhere, and all that is armed, sorted.
    #[derive(Default)]
    struct Life {
        store: TimerStore<u64>,
        tree: Tree,
        armed: BTreeMap<(u64, u64), Whose>,
        so_far: u64,
        timers: Vec<(TimerId, u64)>,
        waits: Vec<(Key, Order)>,
        /// Of these, the waits that have an outcome and were not looked at.
        over: Vec<Key>,
        /// And those of them whose deadlines have come since.
        late: usize,
        scopes: Vec<Key>,
        let_go: Vec<Order>,
    }

    impl Life {
        fn note(&mut self, deadline: u64, whose: Whose) {
            self.so_far += 1;
            self.armed.insert((deadline, self.so_far), whose);
        }

        /// Returns whether it was armed.
        fn forget(&mut self, whose: Whose) -> bool {
            let count = self.armed.len();
            self.armed.retain(|_, other| *other != whose);
            self.armed.len() < count
        }

        fn change_timer(&mut self, pick: usize, deadline: u64) {
            let (id, name) = self.timers[pick % self.timers.len()];
            let changed = self.store.change(id, at(deadline), &self.tree);
            assert_eq!(changed, self.forget(Whose::Timer(name)));
            if changed {
                self.note(deadline, Whose::Timer(name));
            }
        }

        fn remove_timer(&mut self, pick: usize) {
            let (id, name) = self.timers.swap_remove(pick % self.timers.len());
            let is_armed = self.forget(Whose::Timer(name));
            let removed = self.store.remove(id, &self.tree);
            assert_eq!(removed, is_armed.then_some(name));
        }

        fn begin_wait(&mut self, deadline: u64) {
            let key = self.tree.waits.insert(());
            self.waits
                .push((key, self.store.arm(at(deadline), Of::Park, key)));
            self.note(deadline, Whose::Wait(key));
        }

        fn end_wait(&mut self, pick: usize) {
            let (key, order) = self.waits.swap_remove(pick % self.waits.len());
            self.over.retain(|over| *over != key);
            self.tree.waits.remove(key).expect("it is there");
            if !self.forget(Whose::Wait(key)) {
                self.late -= 1;
            }
            self.store.withdraw(order, &self.tree);
        }

        /// Moves the deadline of a scope, or takes it away; what it was before is withdrawn a little later.
        fn move_scope(&mut self, pick: usize, deadline: Option<u64>) {
            let key = self.scopes[pick % self.scopes.len()];
            let order = deadline.map(|deadline| self.store.arm(at(deadline), Of::Scope, key));
            let scope = self.tree.scopes.get_mut(key).expect("it is there");
            let before = std::mem::replace(scope, order);
            assert_eq!(before.is_some(), self.forget(Whose::Scope(key)));
            if let Some(deadline) = deadline {
                self.note(deadline, Whose::Scope(key));
            }
            self.let_go.extend(before);
        }

        fn end_scope(&mut self, pick: usize) {
            let key = self.scopes.swap_remove(pick % self.scopes.len());
            self.forget(Whose::Scope(key));
            self.let_go
                .extend(self.tree.scopes.remove(key).expect("it is there"));
        }

        fn withdraw_all(&mut self) {
            while let Some(order) = self.let_go.pop() {
                self.store.withdraw(order, &self.tree);
            }
        }

        fn pop_due(&mut self, now: u64) {
            let first = self.armed.first_entry();
            let expected = first.filter(|first| first.key().0 <= now);
            let expected = expected.map(std::collections::btree_map::OccupiedEntry::remove);
            let due = self.store.pop_due(at(now), &self.tree);
            let due = due.map(|due| match due {
                Due::Timer(name) => Whose::Timer(name),
                Due::Park(key) => Whose::Wait(key),
                Due::Scope(key) => Whose::Scope(key),
            });
            assert_eq!(due, expected);
            match due {
                Some(Whose::Wait(key)) if self.over.contains(&key) => {
                    self.store.came_late();
                    self.late += 1;
                }
                Some(Whose::Wait(key)) => {
                    self.tree.waits.remove(key).expect("it is there");
                    self.waits.retain(|(wait, _)| *wait != key);
                }
                Some(Whose::Scope(key)) => {
                    *self.tree.scopes.get_mut(key).expect("it is there") = None;
                }
                Some(Whose::Timer(_)) | None => {}
            }
        }

        fn check(&mut self) {
            let armed = self.armed.len() + self.late;
            assert_eq!(self.store.len(), armed + self.let_go.len());
            assert!(places(&self.store) <= 2 * armed + self.let_go.len() + 1);
            if self.let_go.is_empty() {
                let first = self.armed.keys().next().map(|key| at(key.0));
                assert_eq!(self.store.next_deadline(&self.tree), first);
            }
        }
    }

    /// Timers, waits and scopes: each ends, moves and comes due in any order, in places that others have had.
    #[test]
    fn deadlines_kept_elsewhere_agree_with_a_sorted_map_in_random_lives() {
        for seed in 0..2_000_u64 {
            let mut life = Life::default();
            let mut random = seed;
            let mut roll = || {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                random >> 33
            };
            let mut now = 0;
            // Some lives are all of one length, and most arm in rising order then.
            let spread = [1, 3, 50, 1_000][seed as usize % 4];
            // And some are short: there is little that is dead.
            for name in 0..[20, 200][seed as usize % 8 / 4] {
                let (pick, deadline) = (roll() as usize, now + roll() % spread);
                match roll() % 16 {
                    0 | 1 => {
                        life.timers
                            .push((life.store.insert(at(deadline), name), name));
                        life.note(deadline, Whose::Timer(name));
                    }
                    2 if !life.timers.is_empty() => life.change_timer(pick, deadline),
                    3 if !life.timers.is_empty() => life.remove_timer(pick),
                    4..=6 => life.begin_wait(deadline),
                    7 | 8 if !life.waits.is_empty() => life.end_wait(pick),
                    9 if !life.waits.is_empty() => {
                        let key = life.waits[pick % life.waits.len()].0;
                        if !life.over.contains(&key) {
                            life.over.push(key);
                        }
                    }
                    10 => life.scopes.push(life.tree.scopes.insert(None)),
                    11 if !life.scopes.is_empty() => {
                        life.move_scope(pick, Some(deadline));
                    }
                    12 if !life.scopes.is_empty() => {
                        let away = roll() % 4 == 0;
                        life.move_scope(pick, (!away).then_some(deadline));
                    }
                    13 if !life.scopes.is_empty() && roll() % 2 == 0 => life.end_scope(pick),
                    14 => now += roll() % (spread + 1),
                    _ => life.pop_due(now),
                }
                // Mostly at once.
                if roll() % 4 > 0 {
                    life.withdraw_all();
                }
                life.check();
            }
            life.withdraw_all();
            while !life.waits.is_empty() {
                life.end_wait(0);
            }
            while !life.scopes.is_empty() {
                life.end_scope(0);
                life.withdraw_all();
            }
            while !life.timers.is_empty() {
                life.remove_timer(0);
            }
            let store = &life.store;
            assert_eq!((places(store), store.len(), store.dead), (0, 0, 0));
        }
    }
}
