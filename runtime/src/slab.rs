//! Slots addressed by index, each with a generation, handed out from the lowest free one.
//!
//! Everything a core keeps many of (tasks, scope nodes, parks, timers) lives in such a slab. The
//! lowest free index is handed out first: after a long life with a random order of ends, live
//! entries still lie close together, which is what walking over many of them costs.
//!
//! Invariants:
//! - A key is answered only while the entry it was made for lives: generations of a slot differ.
//! - An index is handed out again only after `remove`.

use std::num::{NonZeroU32, NonZeroU64};

use crate::driver::table::Table;

/// Which indexes are free, lowest first.
///
/// Two levels of bits: a bit per index, and a bit per word of those that says "something may be free
/// in here", which is turned off by who looks and finds nothing. `low` is a word below which nothing
/// is free.
#[derive(Debug, Default)]
pub(crate) struct LowestFree {
    words: Vec<u64>,
    summary: Vec<u64>,
    low: usize,
    handed_out: u32,
}

impl LowestFree {
    /// Hands out the lowest index below the current end that is free.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.low = self.next_word_with_room()?;
        self.take_near()
    }

    /// As [`LowestFree::take`], where that lies by the last: `None` says nothing of what lies further up.
    #[inline(always)]
    pub(crate) fn take_near(&mut self) -> Option<u32> {
        let word = self.words.get_mut(self.low).filter(|word| **word != 0)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        self.handed_out += 1;
        Some(self.low as u32 * 64 + bit)
    }

    /// Gives `index` back.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, index: u32) {
        let word = index as usize / 64;
        let bits = &mut self.words[word];
        debug_assert!(*bits & (1 << (index % 64)) == 0, "given back twice");
        let was_full = *bits == 0;
        *bits |= 1 << (index % 64);
        if was_full {
            self.summary[word / 64] |= 1 << (word % 64);
            self.low = self.low.min(word);
        }
        self.handed_out -= 1;
    }

    /// Makes the next 64 indexes known, all of them free, for a store that grows by so many at a time.
    #[cold]
    pub(crate) fn add_word(&mut self) {
        let word = self.words.len();
        self.words.push(u64::MAX);
        self.summary.resize(word / 64 + 1, 0);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    /// Returns how many indexes are handed out.
    pub(crate) fn handed_out(&self) -> u32 {
        self.handed_out
    }

    fn next_word_with_room(&mut self) -> Option<usize> {
        let mut group = self.low / 64;
        while let Some(bits) = self.summary.get_mut(group) {
            if *bits == 0 {
                group += 1;
                continue;
            }
            let word = group * 64 + bits.trailing_zeros() as usize;
            if self.words[word] != 0 {
                return Some(word);
            }
            *bits &= *bits - 1;
        }
        None
    }
}

/// The address of one entry of a slab: useless once the entry is removed.
///
/// One word, which travels in a register: above, the entry's generation; below, its [`Link`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(NonZeroU64);

/// The bit of a link that is no part of its index: so no link is zero.
const MARK: NonZeroU32 = NonZeroU32::new(1 << 31).expect("a bit is set");

impl Key {
    /// Of the entry that a slab has first.
    pub(crate) const FIRST: Self = Self(NonZeroU64::new(MARK.get() as u64).expect("a bit is set"));

    #[inline]
    pub(crate) fn new(index: u32, generation: u32) -> Self {
        let word = NonZeroU64::from(Link::to(index).0) | u64::from(generation) << 32;
        Self(word)
    }

    #[inline]
    pub(crate) fn index(self) -> u32 {
        self.link().index() as u32
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        (self.0.get() >> 32) as u32
    }

    /// Returns the key as a plain number, and back.
    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        self.0.get()
    }

    #[inline]
    pub(crate) fn from_word(word: u64) -> Self {
        Self::new(word as u32, (word >> 32) as u32)
    }

    /// Returns the way to an entry that outlives whoever goes it.
    #[inline]
    pub(crate) fn link(self) -> Link {
        Link(MARK | self.0.get() as u32)
    }
}

/// The way from one entry to another that lives as long as the link is there: half of a [`Key`],
/// also in an `Option`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Link(NonZeroU32);

impl Link {
    #[inline]
    fn to(index: u32) -> Self {
        Self(MARK | index)
    }

    #[inline]
    fn index(self) -> usize {
        (self.0.get() & !MARK.get()) as usize
    }
}

/// Entries of one kind.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Table<Entry<T>>,
    free: LowestFree,
    first_generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::starting_at(0)
    }
}

impl<T> Slab<T> {
    /// Makes a slab whose slots begin with this generation: for keys that others may still have
    /// from an earlier life.
    pub(crate) fn starting_at(first_generation: u32) -> Self {
        Self {
            entries: Table::new(),
            free: LowestFree::default(),
            first_generation,
        }
    }

    /// Makes a slab that has room for a few from the beginning.
    pub(crate) fn with_room() -> Self {
        let mut slab = Self::default();
        slab.make_room();
        slab
    }

    /// Stores `value` in the lowest free slot.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.place(value).0
    }

    /// Stores `value` in the lowest free slot, and returns it there.
    #[inline(always)]
    pub(crate) fn place(&mut self, value: T) -> (Key, &mut T) {
        let index = match self.free.take_near() {
            Some(index) => index,
            None => self.take_further_up(),
        };
        let entry = &mut self.entries[index as usize];
        debug_assert!(entry.value.is_none(), "only what is free is handed out");
        let key = Key::new(index, entry.generation);
        // Nothing is there that would have to be dropped.
        std::mem::forget(entry.value.replace(value));
        (key, entry.value.as_mut().expect("it was just put there"))
    }

    /// Hands out the first index that is free, and makes room for more if none is.
    #[cold]
    fn take_further_up(&mut self) -> u32 {
        self.free.take().unwrap_or_else(|| {
            self.make_room();
            self.free.take().expect("room was just made")
        })
    }

    fn make_room(&mut self) {
        let length = self.entries.len() + 64;
        assert!(
            length < MARK.get() as usize,
            "fewer than 2^31 entries fit memory"
        );
        let generation = self.first_generation;
        self.entries.extend(64, || Entry {
            generation,
            value: None,
        });
        self.free.add_word();
    }

    /// Takes the entry out, if it still lives.
    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.link().index())?;
        if entry.generation != key.generation() {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.give_back(key.index());
        Some(value)
    }

    /// Drops the entry that a link leads to, where it lies.
    #[inline(always)]
    pub(crate) fn clear(&mut self, link: Link) {
        let entry = &mut self.entries[link.index()];
        debug_assert!(entry.value.is_some(), "a link leads to what lives");
        entry.value = None;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.give_back(link.index() as u32);
    }

    /// As [`Slab::clear`], of an entry of which nothing is to be dropped, as the caller has seen.
    #[inline(always)]
    pub(crate) fn clear_plain(&mut self, link: Link) {
        let entry = &mut self.entries[link.index()];
        debug_assert!(entry.value.is_some(), "a link leads to what lives");
        std::mem::forget(entry.value.take());
        entry.generation = entry.generation.wrapping_add(1);
        self.free.give_back(link.index() as u32);
    }

    /// Returns the entry, if it still lives.
    #[inline(always)]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.link().index())?;
        if entry.generation == key.generation() {
            entry.value.as_ref()
        } else {
            None
        }
    }

    /// Returns the entry, if it still lives.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.link().index())?;
        if entry.generation == key.generation() {
            entry.value.as_mut()
        } else {
            None
        }
    }

    /// Returns the entry that a link leads to.
    #[inline(always)]
    pub(crate) fn linked(&self, link: Link) -> &T {
        let value = &self.entries[link.index()].value;
        value.as_ref().expect("a link leads to what lives")
    }

    /// Returns the entry that a link leads to.
    #[inline(always)]
    pub(crate) fn linked_mut(&mut self, link: Link) -> &mut T {
        let value = &mut self.entries[link.index()].value;
        value.as_mut().expect("a link leads to what lives")
    }

    /// Returns the key of the entry that a link leads to.
    #[inline(always)]
    pub(crate) fn key(&self, link: Link) -> Key {
        Key::new(link.index() as u32, self.entries[link.index()].generation)
    }

    /// Returns the entry that has this index now, with its key.
    pub(crate) fn at(&self, index: u32) -> Option<(Key, &T)> {
        let entry = self.entries.get(index as usize)?;
        Some((Key::new(index, entry.generation), entry.value.as_ref()?))
    }

    /// Returns what lives, in the order of the slots, where the slab itself ends.
    pub(crate) fn end(&mut self) -> impl Iterator<Item = T> {
        self.entries
            .iter_mut()
            .filter_map(|entry| entry.value.take())
    }

    /// Returns what lives, in the order of the slots.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter_map(|entry| entry.value.as_ref())
    }

    /// Returns how many entries live.
    pub(crate) fn len(&self) -> usize {
        self.free.handed_out() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_free_index_comes_first() {
        let mut slab = Slab::default();
        let keys: Vec<Key> = (0..10_000).map(|n| slab.insert(n)).collect();
        for at in [9_999, 4_200, 77, 64, 3] {
            assert_eq!(slab.remove(keys[at]), Some(at));
        }
        let again: Vec<u32> = (0..6).map(|n| slab.insert(n).index()).collect();
        assert_eq!(again, [3, 64, 77, 4_200, 9_999, 10_000]);
    }

    #[test]
    fn old_key_is_a_stranger() {
        let mut slab = Slab::default();
        let old = slab.insert('a');
        assert_eq!(slab.remove(old), Some('a'));
        let new = slab.insert('b');
        assert_eq!(new.index(), old.index());
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.get(new), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn every_index_is_handed_out_once_in_a_random_life() {
        let mut free = LowestFree::default();
        let mut out = std::collections::BTreeSet::new();
        let mut end = 0;
        let mut random = 7_u64;
        for _ in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            if random >> 63 == 0 {
                let index = free.take_near().or_else(|| free.take());
                let index = index.unwrap_or_else(|| {
                    free.add_word();
                    end += 64;
                    free.take().expect("there is room")
                });
                assert!(
                    index < end && out.insert(index),
                    "{index} was handed out already"
                );
            } else if let Some(&index) = out.iter().nth((random >> 33) as usize % out.len().max(1))
            {
                out.remove(&index);
                free.give_back(index);
            }
            assert_eq!(free.handed_out() as usize, out.len());
        }
    }
}
