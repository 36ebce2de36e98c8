//! The tasks that are to be polled, in the order in which they became ready.
//!
//! Two lists: one that is taken from, and one that is put to, which becomes the other when that is empty. So a place
//! is taken by counting on, and whoever has yielded joins by an exchange of lists. Each has room for all tasks of the
//! core, so to wake one takes no memory.

/// One that is to be polled: a task's slot, and whether it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u32);

/// Slots have fewer bits.
const MEASURED: u32 = 1 << 31;

impl Entry {
    #[inline]
    pub(super) fn new(slot: u32, is_measured: bool) -> Self {
        Self(if is_measured { slot | MEASURED } else { slot })
    }

    #[inline]
    pub(super) fn slot(self) -> u32 {
        self.0 & !MEASURED
    }

    #[inline]
    pub(super) fn is_measured(self) -> bool {
        self.0 & MEASURED != 0
    }
}

/// Lists of up to so many are copied faster than exchanged.
const FEW: usize = 16;

/// First in, first out.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    lists: [Vec<Entry>; 2],
    /// Which of them is taken from.
    leaving: bool,
    /// How many have been taken from it.
    at: usize,
}

/// Makes room in a list for `most` entries in all.
pub(super) fn make_room(list: &mut Vec<Entry>, most: usize) {
    list.reserve(most - list.len());
}

/// Puts all of `others` behind those in a list.
#[inline(always)]
fn append_to(list: &mut Vec<Entry>, others: &mut Vec<Entry>) {
    if others.len() <= FEW {
        for &other in &*others {
            list.push(other);
        }
        others.clear();
    } else if list.is_empty() {
        std::mem::swap(list, others);
    } else {
        list.append(others);
    }
}

impl RunQueue {
    /// Makes room for `most` entries in all: whoever becomes ready takes no memory.
    pub(super) fn make_room(&mut self, most: usize) {
        for list in &mut self.lists {
            make_room(list, most);
        }
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        self.arriving().push(entry);
    }

    #[inline(always)]
    fn arriving(&mut self) -> &mut Vec<Entry> {
        &mut self.lists[usize::from(!self.leaving)]
    }

    /// Returns those that are taken from, and those that have arrived since.
    #[inline(always)]
    fn both(&self) -> [&Vec<Entry>; 2] {
        let leaving = usize::from(self.leaving);
        [&self.lists[leaving], &self.lists[1 - leaving]]
    }

    /// Takes the first.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Entry> {
        loop {
            if let Some(&entry) = self.lists[usize::from(self.leaving)].get(self.at) {
                self.at += 1;
                return Some(entry);
            }
            if self.arriving().is_empty() {
                return None;
            }
            self.turn_over();
        }
    }

    /// Begins to take from those that have arrived since.
    #[inline]
    fn turn_over(&mut self) {
        self.lists[usize::from(self.leaving)].clear();
        self.at = 0;
        // Exchanged, they would be read before they are written.
        self.leaving = !self.leaving;
    }

    /// Returns the last so many that are `wanted`, in their order. None is looked at that stands before all of them.
    pub(super) fn last_of(&self, count: usize, wanted: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        let [leaving, arriving] = self.both();
        let all = leaving[self.at..].iter().chain(arriving).copied();
        let mut found: Vec<_> = all.rev().filter(wanted).take(count).collect();
        found.reverse();
        found
    }

    /// Takes the one in this place.
    pub(super) fn remove(&mut self, place: usize) -> Option<Entry> {
        let list = &mut self.lists[usize::from(self.leaving)];
        let left = list.len() - self.at;
        if place < left {
            return Some(list.remove(self.at + place));
        }
        let place = place - left;
        let arriving = self.arriving();
        (place < arriving.len()).then(|| arriving.remove(place))
    }

    /// As [`RunQueue::push`], which is slower where nobody is in the queue.
    #[inline]
    pub(super) fn append_one(&mut self, entry: Entry) {
        if !self.is_empty() {
            return self.push(entry);
        }
        // It is the next: the lists need not change places for it.
        self.at = 0;
        let leaving = &mut self.lists[usize::from(self.leaving)];
        leaving.clear();
        leaving.push(entry);
    }

    /// Puts all of `others` behind, in their order; none are left there.
    #[inline]
    pub(super) fn append(&mut self, others: &mut Vec<Entry>) {
        if self.is_empty() {
            // They are the next: the lists need not change places for them.
            self.at = 0;
            let leaving = &mut self.lists[usize::from(self.leaving)];
            leaving.clear();
            append_to(leaving, others);
        } else {
            append_to(self.arriving(), others);
        }
    }

    pub(super) fn len(&self) -> usize {
        let [leaving, arriving] = self.both();
        leaving.len() - self.at + arriving.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        let [leaving, arriving] = self.both();
        self.at == leaving.len() && arriving.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn plain(slot: u32) -> Entry {
        Entry::new(slot, false)
    }

    #[test]
    fn an_entry_says_whose_it_is_and_whether_that_is_measured() {
        for slot in [0, 5, (1 << 24) - 1] {
            for is_measured in [false, true] {
                let entry = Entry::new(slot, is_measured);
                assert_eq!((entry.slot(), entry.is_measured()), (slot, is_measured));
            }
        }
    }

    #[test]
    fn who_is_looked_for_is_looked_for_from_behind() {
        let mut queue = RunQueue::default();
        for slot in 0..10 {
            queue.push(plain(slot));
        }
        assert_eq!(queue.pop(), Some(plain(0)));
        for slot in 10..20 {
            queue.push(plain(slot));
        }
        let mut seen = Vec::new();
        let found = queue.last_of(3, |entry| {
            seen.push(entry.slot());
            entry.slot() % 4 == 0
        });
        assert_eq!(found, [8, 12, 16].map(plain));
        assert_eq!(seen, (8..20).rev().collect::<Vec<_>>());
        assert_eq!(queue.last_of(100, |_| true).len(), 19);
        assert_eq!(queue.last_of(0, |_| unreachable!()), []);
    }

    /// Whatever is done to it, it is the queue that a list would be.
    #[test]
    fn it_is_a_queue() {
        let (mut queue, mut model) = (RunQueue::default(), VecDeque::new());
        let mut random = 11_u64;
        for number in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match random >> 60 {
                0..6 => {
                    queue.push(plain(number));
                    model.push_back(plain(number));
                }
                6..11 => assert_eq!(queue.pop(), model.pop_front()),
                11 => {
                    queue.append_one(plain(number));
                    model.push_back(plain(number));
                }
                12..14 => {
                    let place = (random >> 30) as usize % (model.len() + 2);
                    assert_eq!(queue.remove(place), model.remove(place));
                }
                _ => {
                    let count = [3, FEW as u32 + 1][(random >> 40) as usize % 2];
                    let mut others: Vec<_> = (0..count).map(|more| plain(number + more)).collect();
                    model.extend(&others);
                    queue.append(&mut others);
                    assert!(others.is_empty());
                }
            }
            assert_eq!(queue.len(), model.len());
            assert_eq!(queue.is_empty(), model.is_empty());
        }
    }
}
