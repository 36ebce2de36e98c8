//! Who waits, in order: whoever leaves does so from where he stands, and nobody else is looked at. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::Key;
use crate::state::TicketId;

/// A place among those who wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot(i64);

/// Callers in their order.
#[derive(Debug, Default)]
pub(crate) struct Waiters(BTreeMap<Spot, TicketId>);

impl Waiters {
    pub(crate) fn push_back(&mut self, id: TicketId) -> Spot {
        let last = self.0.last_key_value().map_or(0, |(spot, _)| spot.0);
        self.put(Spot(last + 1), id)
    }

    pub(crate) fn push_front(&mut self, id: TicketId) -> Spot {
        let first = self.0.first_key_value().map_or(0, |(spot, _)| spot.0);
        self.put(Spot(first - 1), id)
    }

    fn put(&mut self, spot: Spot, id: TicketId) -> Spot {
        let before = self.0.insert(spot, id);
        assert!(before.is_none(), "nobody stands beyond the ends");
        spot
    }

    /// Takes out whoever stands there.
    pub(crate) fn remove(&mut self, spot: Spot) -> Option<TicketId> {
        self.0.remove(&spot)
    }

    pub(crate) fn pop_first(&mut self) -> Option<TicketId> {
        self.0.pop_first().map(|(_, id)| id)
    }

    pub(crate) fn first(&self) -> Option<TicketId> {
        self.iter().next()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = TicketId> {
        self.0.values().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Callers in their order, who each want something of a key.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    all: Waiters,
    by_key: BTreeMap<Key, BTreeSet<Spot>>,
    /// Where the first stands who wants a key.
    firsts: BTreeMap<Spot, Key>,
}

impl Queue {
    pub(crate) fn push_back(&mut self, key: &Key, id: TicketId) -> Spot {
        let spot = self.all.push_back(id);
        self.note(key, spot)
    }

    pub(crate) fn push_front(&mut self, key: &Key, id: TicketId) -> Spot {
        let spot = self.all.push_front(id);
        self.note(key, spot)
    }

    fn note(&mut self, key: &Key, spot: Spot) -> Spot {
        if let Some(spots) = self.by_key.get_mut(key) {
            let first = spots.first().copied();
            let first = first.expect("a key that is known is wanted");
            spots.insert(spot);
            if spot < first {
                let key = self.firsts.remove(&first);
                self.firsts.extend(key.map(|key| (spot, key)));
            }
        } else {
            self.by_key.insert(key.clone(), BTreeSet::from([spot]));
            self.firsts.insert(spot, key.clone());
        }
        spot
    }

    /// Takes out whoever stands there, and wants this.
    pub(crate) fn remove(&mut self, key: &Key, spot: Spot) {
        self.all.remove(spot);
        let spots = self.by_key.get_mut(key);
        let spots = spots.expect("whoever is in the queue is known by key");
        spots.remove(&spot);
        let next = spots.first().copied();
        let was_first = self.firsts.remove(&spot);
        if let (Some(key), Some(next)) = (was_first, next) {
            self.firsts.insert(next, key);
        }
        if next.is_none() {
            self.by_key.remove(key);
        }
    }

    /// Takes out all who want this, in their order.
    pub(crate) fn remove_all(&mut self, key: &Key) -> Vec<TicketId> {
        let spots = self.by_key.remove(key).unwrap_or_default();
        if let Some(first) = spots.first() {
            self.firsts.remove(first);
        }
        let ids = spots.into_iter().map(|spot| self.all.remove(spot));
        ids.map(|id| id.expect("somebody stands there")).collect()
    }

    pub(crate) fn first(&self) -> Option<TicketId> {
        self.all.first()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = TicketId> {
        self.all.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns how many are in the queue beside those who want one of the first keys, so many of them.
    pub(crate) fn len_behind(&self, keys: usize) -> usize {
        let first = self.firsts.values().take(keys);
        let before: usize = first.map(|key| self.by_key[key].len()).sum();
        self.len() - before
    }

    /// Returns how many keys are wanted.
    pub(crate) fn keys(&self) -> usize {
        self.by_key.len()
    }
}
