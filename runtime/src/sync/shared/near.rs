//! Several values, of which the first lies in place: where there is one at a time, whoever has come for what lies around
//! it has it too, on the same cache lines.

use std::collections::VecDeque;

use crate::sync::slots::{Index, Slots};

/// Values by index, in slots.
#[derive(Debug)]
#[repr(C)]
pub(super) struct NearSlots<T> {
    here: Option<T>,
    /// Once there were any.
    others: Option<Box<Slots<T>>>,
}

impl<T> NearSlots<T> {
    pub(super) fn new() -> Self {
        Self {
            here: None,
            others: None,
        }
    }

    #[inline]
    pub(super) fn insert(&mut self, value: T) -> Index {
        if self.here.is_some() {
            let others = self.others.get_or_insert_with(|| Box::new(Slots::new()));
            return others.insert(value).next();
        }
        self.here = Some(value);
        Index::FIRST
    }

    /// Takes a value out, by its owner.
    #[inline]
    pub(super) fn remove(&mut self, index: Index) -> T {
        match index.previous() {
            None => self.here.take().expect(OWNED),
            Some(other) => self.others().remove(other),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: Index) -> &mut T {
        match index.previous() {
            None => self.here.as_mut().expect(OWNED),
            Some(other) => self.others().get_mut(other),
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        let others = self.others.iter().flat_map(|others| others.values());
        self.here.iter().chain(others)
    }

    fn others(&mut self) -> &mut Slots<T> {
        self.others.as_mut().expect(OWNED)
    }
}

const OWNED: &str = "a value stays until its owner takes it out";

/// A queue. While it holds one, that lies here.
#[derive(Debug)]
#[repr(C)]
pub(super) struct NearQueue<T> {
    first: Option<T>,
    /// Empty if there is no first.
    rest: VecDeque<T>,
}

impl<T> NearQueue<T> {
    pub(super) fn new() -> Self {
        Self {
            first: None,
            rest: VecDeque::new(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    #[inline]
    pub(super) fn push_back(&mut self, value: T) {
        if self.first.is_none() {
            self.first = Some(value);
        } else {
            self.rest.push_back(value);
        }
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<T> {
        let first = self.first.take();
        if !self.rest.is_empty() {
            self.first = self.rest.pop_front();
        }
        first
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> VecDeque<T> {
        let mut all = std::mem::take(&mut self.rest);
        if let Some(first) = self.first.take() {
            all.push_front(first);
        }
        all
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_wherever_they_lie() {
        let mut slots = NearSlots::new();
        let indexes: Vec<_> = (0..4).map(|value| slots.insert(value)).collect();
        assert_eq!(indexes.iter().filter(|&&at| at == indexes[0]).count(), 1);
        assert_eq!((slots.remove(indexes[0]), slots.remove(indexes[2])), (0, 2));
        assert_eq!(slots.values().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(
            [7, 8].map(|value| slots.insert(value)),
            [indexes[0], indexes[2]]
        );
        *slots.get_mut(indexes[0]) += 10;
        *slots.get_mut(indexes[3]) += 10;
        assert_eq!(slots.values().copied().collect::<Vec<_>>(), [17, 1, 8, 13]);
    }

    #[test]
    fn a_queue_keeps_its_order_wherever_its_first_lies() {
        let mut queue = NearQueue::new();
        let mut next = 0..;
        let mut expected = 0..;
        for (pushes, pops) in [(1, 1), (3, 2), (2, 3), (4, 1)] {
            next.by_ref()
                .take(pushes)
                .for_each(|value| queue.push_back(value));
            for value in expected.by_ref().take(pops) {
                assert_eq!(queue.pop_front(), Some(value));
            }
        }
        assert_eq!((queue.len(), queue.take().into()), (3, vec![7, 8, 9]));
        assert_eq!((queue.len(), queue.pop_front()), (0, None));
    }
}
