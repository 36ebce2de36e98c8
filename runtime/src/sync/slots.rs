//! Values by index, in slots that are used again: the last that became vacant first.
//!
//! An index has one owner, who takes the value out once. So nothing here compares generations, and an index that was
//! given back belongs to whoever gets it next.

use std::num::NonZeroU32;

#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    vacant: Option<Index>,
}

#[derive(Debug)]
enum Slot<T> {
    Occupied(T),
    /// With the one that became vacant before it.
    Vacant(Option<Index>),
}

/// One above the place of a slot, so that there may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Index(NonZeroU32);

impl Index {
    fn of(place: usize) -> Self {
        let above = u32::try_from(place + 1).ok().and_then(NonZeroU32::new);
        Self(above.expect(FIT))
    }

    #[inline]
    fn place(self) -> usize {
        self.0.get() as usize - 1
    }

    pub(crate) const FIRST: Self = Self(NonZeroU32::MIN);

    pub(crate) fn next(self) -> Self {
        Self(self.0.checked_add(1).expect(FIT))
    }

    #[inline]
    pub(crate) fn previous(self) -> Option<Self> {
        NonZeroU32::new(self.0.get() - 1).map(Self)
    }
}

const FIT: &str = "fewer than 2^32 slots fit memory";

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: None,
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Index {
        let Some(index) = self.vacant else {
            self.slots.push(Slot::Occupied(value));
            return Index::of(self.slots.len() - 1);
        };
        let slot = &mut self.slots[index.place()];
        match slot {
            Slot::Vacant(before) => self.vacant = *before,
            Slot::Occupied(_) => unreachable!("only what is vacant is handed out"),
        }
        *slot = Slot::Occupied(value);
        index
    }

    /// Takes a value out, by its owner.
    #[inline]
    pub(crate) fn remove(&mut self, index: Index) -> T {
        let vacant = Slot::Vacant(self.vacant.replace(index));
        match std::mem::replace(&mut self.slots[index.place()], vacant) {
            Slot::Occupied(value) => value,
            Slot::Vacant(_) => unreachable!("{OWNED}"),
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: Index) -> &T {
        match &self.slots[index.place()] {
            Slot::Occupied(value) => value,
            Slot::Vacant(_) => unreachable!("{OWNED}"),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: Index) -> &mut T {
        match &mut self.slots[index.place()] {
            Slot::Occupied(value) => value,
            Slot::Vacant(_) => unreachable!("{OWNED}"),
        }
    }

    /// Returns what is there, in the order of the slots.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Occupied(value) => Some(value),
            Slot::Vacant(_) => None,
        })
    }
}

const OWNED: &str = "a value stays until its owner takes it out";

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_out_makes_room() {
        let mut slots = Slots::new();
        let indexes: Vec<_> = (0..5).map(|value| slots.insert(value)).collect();
        assert_eq!((slots.remove(indexes[1]), slots.remove(indexes[3])), (1, 3));
        assert_eq!(slots.values().copied().collect::<Vec<_>>(), [0, 2, 4]);
        let again: Vec<_> = (7..10).map(|value| slots.insert(value)).collect();
        assert_eq!(again[..2], [indexes[3], indexes[1]]);
        *slots.get_mut(again[0]) += 10;
        let values: Vec<_> = slots.values().copied().collect();
        assert_eq!(
            (values, *slots.get(again[0])),
            (vec![0, 8, 2, 17, 4, 9], 17)
        );
    }
}
