//! Who waits, in the order of arrival, with something of each.
//!
//! A line lies in a state under a [`Lock`]. Whoever changes that state hands out what has become free
//! before it lets go of the lock ([`change`]), and wakes afterwards; so between two holders of the
//! lock nothing is free that somebody waits for.
//!
//! Invariants:
//! - An entry stays until its owner takes it out; nobody else drops what it holds.
//! - Who waits is linked: each entry is looked at once, and is then chosen or skipped, and linked no more.
//! - Each step takes constant time.

use std::task::Waker;

use super::lock::{Guard, Lock};
use super::near::NearSlots;
use super::seat::Wait;
use crate::core_state::Core;
use crate::sync::slots::Index;
use crate::task::current;
use crate::task::waker::wake_from_anywhere;

/// The waits in their order, each with a `D` that the two sides pass to each other.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Line<D> {
    first: Option<Index>,
    last: Option<Index>,
    entries: NearSlots<Entry<D>>,
}

#[derive(Debug)]
struct Entry<D> {
    wait: Wait,
    /// Until it was chosen.
    waker: Option<Waker>,
    data: D,
    is_linked: bool,
    previous: Option<Index>,
    next: Option<Index>,
}

impl<D> Line<D> {
    pub(super) fn new() -> Self {
        Self {
            first: None,
            last: None,
            entries: NearSlots::new(),
        }
    }

    /// Adds a wait at the end; returns its number.
    pub(super) fn push(&mut self, wait: Wait, waker: Waker, data: D) -> Index {
        let number = self.entries.insert(Entry {
            wait,
            waker: Some(waker),
            data,
            is_linked: true,
            previous: self.last,
            next: None,
        });
        match self.last.replace(number) {
            Some(last) => self.entry(last).next = Some(number),
            None => self.first = Some(number),
        }
        number
    }

    /// Returns whether nobody waits. One who gave up, and was not looked at since, counts.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Hands over to the first who waits and has not given up: returns what it holds, and whom to
    /// wake.
    pub(super) fn choose(&mut self) -> Option<(&mut D, Waker)> {
        while let Some(number) = self.first {
            self.unlink(number);
            let entry = self.entry(number);
            if !entry.wait.was_given_up() {
                let waker = entry.waker.take().expect("it was not chosen before");
                return Some((&mut self.entry(number).data, waker));
            }
        }
        None
    }

    /// Returns what a wait holds.
    #[inline]
    pub(super) fn data(&mut self, number: Index) -> &D {
        &self.entry(number).data
    }

    /// Returns whether a wait was handed something. If not, it leaves `waker` there, if there is one, and brings back
    /// the one before.
    #[inline]
    pub(super) fn is_handed(&mut self, number: Index, waker: &mut Option<Waker>) -> bool {
        let known = &mut self.entry(number).waker;
        if known.is_some() && waker.is_some() {
            std::mem::swap(known, waker);
        }
        known.is_none()
    }

    /// Takes out a wait that has ended, by its owner.
    pub(super) fn remove(&mut self, number: Index) -> Ended<D> {
        if self.entry(number).is_linked {
            self.unlink(number);
        }
        let entry = self.entries.remove(number);
        Ended {
            data: entry.data,
            waker: entry.waker,
        }
    }

    /// Returns how many wait. Counts them, one by one.
    pub(super) fn waiting(&self) -> usize {
        let waits = |entry: &&Entry<D>| entry.is_linked && !entry.wait.was_given_up();
        self.entries.values().filter(waits).count()
    }

    fn unlink(&mut self, number: Index) {
        let entry = self.entry(number);
        entry.is_linked = false;
        let (previous, next) = (entry.previous.take(), entry.next.take());
        match previous {
            Some(previous) => self.entry(previous).next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => self.entry(next).previous = previous,
            None => self.last = previous,
        }
    }

    fn entry(&mut self, number: Index) -> &mut Entry<D> {
        self.entries.get_mut(number)
    }
}

/// A wait that was taken out of its line: to be dropped when the lock has been let go of.
#[derive(Debug)]
pub(super) struct Ended<D> {
    pub(super) data: D,
    waker: Option<Waker>,
}

impl<D> Ended<D> {
    pub(super) fn was_handed(&self) -> bool {
        self.waker.is_none()
    }
}

/// A state that has something for those who wait.
pub(super) trait HandsOut {
    /// Hands one thing that is free to one who waits for it; returns whom to wake.
    fn hand_out(&mut self) -> Option<Waker>;
}

/// Those who are to be woken when the lock has been let go of.
#[derive(Default)]
pub(super) struct Chosen {
    wakers: [Option<Waker>; AT_ONCE],
    count: usize,
}

/// So many are chosen before the lock is let go of. More than one change gives rise to, but for the
/// end of a channel, which comes to all who wait there.
const AT_ONCE: usize = 4;

impl Chosen {
    pub(super) fn add(&mut self, waker: Waker) {
        self.wakers[self.count] = Some(waker);
        self.count += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == AT_ONCE
    }

    fn wake(&mut self) {
        for waker in self.wakers.iter_mut().take(self.count) {
            if let Some(waker) = waker.take() {
                wake_from_anywhere(waker);
            }
        }
        self.count = 0;
    }
}

/// Changes a state, hands out what that has made free, and wakes.
///
/// What `change` returns is dropped by the caller, outside the lock.
pub(super) fn change<S: HandsOut, R>(
    lock: &Lock<S>,
    change: impl FnOnce(&mut S, &mut Chosen) -> R,
) -> R {
    change_with(lock, change, S::hand_out, |_| {})
}

/// The same with a function that hands one thing out, and one that comes last each time before the lock is let go of.
pub(super) fn change_with<S, R>(
    lock: &Lock<S>,
    change: impl FnOnce(&mut S, &mut Chosen) -> R,
    hand_out: impl FnMut(&mut S) -> Option<Waker>,
    last: impl FnMut(&mut S),
) -> R {
    see_cancels();
    change_held(lock, lock.lock(), change, hand_out, last)
}

/// The same where nobody has the lock, and the state is `fit`.
pub(super) fn try_change_with<S, R>(
    lock: &Lock<S>,
    fit: impl FnOnce(&mut S) -> bool,
    change: impl FnOnce(&mut S, &mut Chosen) -> R,
    hand_out: impl FnMut(&mut S) -> Option<Waker>,
    last: impl FnMut(&mut S),
) -> Option<R> {
    see_cancels();
    let mut state = lock.try_lock()?;
    fit(&mut state).then(|| change_held(lock, state, change, hand_out, last))
}

fn change_held<'a, S, R>(
    lock: &'a Lock<S>,
    mut state: Guard<'a, S>,
    change: impl FnOnce(&mut S, &mut Chosen) -> R,
    mut hand_out: impl FnMut(&mut S) -> Option<Waker>,
    mut last: impl FnMut(&mut S),
) -> R {
    let mut chosen = Chosen::default();
    let result = change(&mut state, &mut chosen);
    loop {
        while !chosen.is_full()
            && let Some(waker) = hand_out(&mut state)
        {
            chosen.add(waker);
        }
        last(&mut state);
        let more = chosen.is_full();
        drop(state);
        chosen.wake();
        if !more {
            return result;
        }
        state = lock.lock();
    }
}

/// Sees the cancels that were asked for on this core so far: who was cancelled before is not handed
/// anything.
fn see_cancels() {
    current::try_with(Core::see_remote_cancels);
}
