//! Who waits, in the order of arrival; a waiter that gives up leaves no trace.
//!
//! A [`Line`] lies in its owner's cell, beside what is waited for, and holds something of each
//! waiter: what it wants, what it brings, what it was told. A [`Place`] lies in the waiter's future.
//!
//! ```text
//!            push           choose
//!  (nobody) ──────► InLine ────────► Chosen ──┐
//!                     │                       ├─ remove ──► (nobody)
//!                     └─ found aborted ► Out ─┘
//! ```
//!
//! Invariants:
//! - Who is chosen was waiting at that moment: `complete` of the scope tree decides between "handed
//!   over" and "aborted first", once. Whoever was aborted first is skipped.
//! - Who was chosen knows it also where the core is gone: the line says so, not the tree alone.
//! - Choosing wakes nobody. The waker is handed to the caller, who lets go of its cell first.
//! - Each step takes constant time; one who was aborted is passed once.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::task::{Context, Poll, Waker, ready};

use super::slots::{Index, Slots};
use crate::core_state::Core;
use crate::scope::Cancelled;
use crate::scope::park::{self, Look, Park};
use crate::scope::tree::{ParkId, Purpose};
use crate::task::current;
use crate::task::waker::task_of;

/// A line of waiting tasks, with something of each.
#[derive(Debug)]
pub(crate) struct Line<T> {
    entries: Slots<Entry<T>>,
    first: Option<Index>,
    last: Option<Index>,
    in_line: usize,
    not_send: PhantomData<*const ()>,
}

#[derive(Debug)]
struct Entry<T> {
    seat: Seat,
    standing: Standing,
    previous: Option<Index>,
    next: Option<Index>,
    value: T,
}

/// How an entry stands with its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    InLine,
    /// It was handed something, or told something.
    Chosen,
    /// It was passed over, because it had been aborted.
    Out,
}

/// A parked op, as whoever completes it knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat {
    park: ParkId,
    /// The core that the park is on, this time round.
    home: u64,
}

impl Seat {
    /// Ends the wait with success; returns whom to wake, or `None` if it had been aborted, or is on
    /// a core that is not here.
    pub(crate) fn choose(self) -> Option<Waker> {
        current::try_with(|core| {
            if self.home != core.identity() {
                return None;
            }
            core.tree.borrow_mut().complete(self.park)
        })?
    }

    /// Returns whether `choose` would find it waiting.
    fn is_waiting(self) -> bool {
        current::try_with(|core| {
            self.home == core.identity() && core.tree.borrow().is_waiting(self.park)
        }) == Some(true)
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            entries: Slots::new(),
            first: None,
            last: None,
            in_line: 0,
            not_send: PhantomData,
        }
    }
}

impl<T> Line<T> {
    /// Puts a place that was registered at the end of the line.
    pub(crate) fn push(&mut self, place: &mut Place, value: T) {
        let (park, home) = place.park.address().expect("it was registered");
        let index = self.entries.insert(Entry {
            seat: Seat { park, home },
            standing: Standing::InLine,
            previous: self.last,
            next: None,
            value,
        });
        match self.last.replace(index) {
            Some(last) => self.entry(last).next = Some(index),
            None => self.first = Some(index),
        }
        self.in_line += 1;
        place.index = Some(index);
    }

    /// Returns what the first has who waits, if somebody does.
    pub(crate) fn first(&mut self) -> Option<&mut T> {
        loop {
            let index = self.first?;
            if self.entry(index).seat.is_waiting() {
                return Some(&mut self.entry(index).value);
            }
            self.unlink(index, Standing::Out);
        }
    }

    /// Chooses the first who waits: returns what it has, and whom to wake.
    pub(crate) fn choose(&mut self) -> Option<(&mut T, Waker)> {
        loop {
            let index = self.first?;
            let entry = self.entry(index);
            let waker = entry.seat.choose();
            entry.standing = match waker {
                Some(_) => Standing::Chosen,
                None => Standing::Out,
            };
            self.first = entry.next.take();
            match self.first {
                Some(next) => self.entry(next).previous = None,
                None => self.last = None,
            }
            self.in_line -= 1;
            if let Some(waker) = waker {
                return Some((&mut self.entry(index).value, waker));
            }
        }
    }

    /// Returns whether nobody stands in line.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Returns whether a place was chosen. If not, the scope tree knows how it stands.
    #[inline]
    pub(crate) fn has_chosen(&self, place: &Place) -> bool {
        place
            .index
            .is_some_and(|index| self.entries.get(index).standing == Standing::Chosen)
    }

    /// Chooses everybody who waits.
    pub(crate) fn choose_all(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::with_capacity(self.in_line);
        while let Some((_, waker)) = self.choose() {
            wakers.push(waker);
        }
        wakers
    }

    /// Takes a place out, with how it stood; `None` if it is in no line.
    pub(crate) fn remove(&mut self, place: &mut Place) -> Option<(Standing, T)> {
        let index = place.index.take()?;
        let standing = self.entry(index).standing;
        if standing == Standing::InLine {
            self.unlink(index, Standing::Out);
        }
        Some((standing, self.entries.remove(index).value))
    }

    /// Returns how many stand in line.
    pub(crate) fn len(&self) -> usize {
        self.in_line
    }

    fn unlink(&mut self, index: Index, standing: Standing) {
        let entry = self.entry(index);
        entry.standing = standing;
        let (previous, next) = (entry.previous.take(), entry.next.take());
        match previous {
            Some(previous) => self.entry(previous).next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => self.entry(next).previous = previous,
            None => self.last = previous,
        }
        self.in_line -= 1;
    }

    #[inline]
    fn entry(&mut self, index: Index) -> &mut Entry<T> {
        self.entries.get_mut(index)
    }
}

/// What a wait ends by, but for what is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heeds {
    Cancels,
    Nothing,
}

/// One place in a line. It is taken out of the line before it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Place {
    park: Park,
    index: Option<Index>,
}

impl Place {
    /// Returns whether it stands in line already, or has been chosen from it.
    pub(crate) fn is_in_line(&self) -> bool {
        self.index.is_some()
    }

    /// Looks at the active scope, as every op does at its first poll.
    #[inline]
    pub(crate) fn entry(&self, cx: &Context<'_>) -> Poll<Result<(), Cancelled>> {
        if self.is_in_line() {
            return Poll::Ready(Ok(()));
        }
        current::with(|core| park::entry(core, cx.waker()))
    }

    /// Registers a wait, which is to be put in line at once. If a foreign waker has to be copied for it, that may
    /// bring about what is waited for, or a cancel: both are looked for once more, the former by `again`.
    #[inline]
    pub(crate) fn register<R>(
        &mut self,
        heeds: Heeds,
        cx: &Context<'_>,
        again: impl FnOnce() -> Option<R>,
    ) -> Poll<Result<Option<R>, Cancelled>> {
        let mut copy = None;
        if !self.try_register(heeds, cx, &mut copy) {
            if heeds == Heeds::Cancels {
                ready!(self.entry(cx))?;
            }
            if let Some(found) = again() {
                return Poll::Ready(Ok(Some(found)));
            }
            self.try_register(heeds, cx, &mut copy);
        }
        Poll::Ready(Ok(None))
    }

    /// The same, unless a foreign waker has to be copied first: then false, and the caller looks again for what it has
    /// looked for before, and comes back with the copy.
    pub(crate) fn try_register(
        &mut self,
        heeds: Heeds,
        cx: &Context<'_>,
        copy: &mut Option<Waker>,
    ) -> bool {
        current::with(|core| {
            let (waker, purpose) = (cx.waker(), Purpose::Turn);
            if task_of(waker, core.number()).is_some() {
                match heeds {
                    Heeds::Cancels => self.park.register_memory(core, waker, purpose),
                    Heeds::Nothing => self.park.register_deaf(core, waker, purpose),
                }
                return true;
            }
            let Some(waker) = copy.take() else {
                *copy = Some(waker.clone());
                return false;
            };
            match heeds {
                Heeds::Cancels => self.park.register_copy(core, waker, purpose),
                Heeds::Nothing => self.park.register_deaf_copy(core, waker, purpose),
            }
            true
        })
    }

    /// Returns how the wait stands. One that has its outcome has left the scope tree.
    pub(crate) fn look(&mut self, cx: &Context<'_>) -> Look {
        current::with(|core| self.park.look_last(core, cx.waker()))
    }

    /// Leaves the scope tree. A waker is dropped here, so no cell of the owner is borrowed.
    pub(crate) fn end(&mut self) {
        self.park.end();
    }

    /// Ends a wait that was chosen: the scope tree has forgotten it.
    #[inline]
    pub(crate) fn end_chosen(&mut self) {
        self.park.forget();
    }

    /// Returns how to complete the wait.
    pub(crate) fn seat(&self) -> Option<Seat> {
        current::with(|core| {
            let park = self.park.id(core)?;
            Some(Seat {
                park,
                home: core.identity(),
            })
        })
    }
}

/// Wakes whom `next` chooses, one by one, until it chooses nobody.
///
/// Cancels that were asked for so far count: who was cancelled before something was let go does not
/// get it. Off a core nobody can be woken, and nobody is chosen.
pub(crate) fn settle(mut next: impl FnMut() -> Option<Waker>) {
    current::try_with(|core| {
        core.see_remote_cancels();
        while let Some(waker) = next() {
            core.wake(waker);
        }
    });
}

/// Ends the wait of one who waits alone, and wakes him.
pub(crate) fn settle_one(seat: Option<Seat>) {
    if let Some(seat) = seat {
        see_cancels();
        wake_each(seat.choose());
    }
}

/// Wakes those who were chosen.
#[inline]
pub(crate) fn wake_each(chosen: impl IntoIterator<Item = Waker>) {
    current::try_with(|core| {
        for waker in chosen {
            core.wake(waker);
        }
    });
}

/// Sees the cancels that were asked for so far, so that nothing is refused for the sake of somebody
/// who gave up, or handed to him.
pub(crate) fn see_cancels() {
    current::try_with(Core::see_remote_cancels);
}

/// A line of those who wait to be woken, and for nothing else.
#[derive(Debug, Default)]
pub(crate) struct WaitList(RefCell<Line<()>>);

impl WaitList {
    /// Waits in line until woken, or for nothing if there is something to be had already.
    pub(crate) fn poll(
        &self,
        place: &mut Place,
        cx: &Context<'_>,
        mut is_there: impl FnMut() -> bool,
    ) -> Poll<Result<(), Cancelled>> {
        if !place.is_in_line() {
            ready!(place.entry(cx))?;
            if is_there() {
                return Poll::Ready(Ok(()));
            }
            let again = || is_there().then_some(());
            if ready!(place.register(Heeds::Cancels, cx, again))?.is_some() {
                return Poll::Ready(Ok(()));
            }
            self.0.borrow_mut().push(place, ());
            return Poll::Pending;
        }
        let look = current::with(|core| place.park.look_last_here(core, cx.waker()));
        let outcome = match look {
            Look::Waiting => return Poll::Pending,
            Look::Ready => Ok(()),
            Look::Aborted(cancelled) => Err(cancelled),
        };
        self.leave(place);
        Poll::Ready(outcome)
    }

    /// Gives a place up. True if it had been woken, and nobody has seen that.
    #[inline]
    pub(crate) fn leave(&self, place: &mut Place) -> bool {
        place.is_in_line() && self.remove(place)
    }

    fn remove(&self, place: &mut Place) -> bool {
        let left = self.0.borrow_mut().remove(place);
        place.end();
        left.is_some_and(|(standing, ())| standing == Standing::Chosen)
    }

    /// Wakes the first in line who has not been aborted; false if there is none.
    #[inline]
    pub(crate) fn wake_first(&self) -> bool {
        !self.0.borrow().is_empty() && self.wake_one()
    }

    fn wake_one(&self) -> bool {
        see_cancels();
        let chosen = self.0.borrow_mut().choose().map(|((), waker)| waker);
        let found = chosen.is_some();
        wake_each(chosen);
        found
    }

    /// Wakes everybody who waits now.
    pub(crate) fn wake_all(&self) {
        see_cancels();
        let chosen = self.0.borrow_mut().choose_all();
        wake_each(chosen);
    }

    /// Returns how many wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts `count` places in line, and returns them.
    fn places(line: &mut Line<usize>, count: usize) -> Vec<Place> {
        let cx = Context::from_waker(Waker::noop());
        let place = |value| {
            let mut place = Place::default();
            let registered = place.register(Heeds::Cancels, &cx, || None::<()>);
            assert_eq!(registered, Poll::Ready(Ok(None)));
            line.push(&mut place, value);
            place
        };
        (0..count).map(place).collect()
    }

    fn chosen(line: &mut Line<usize>) -> Option<usize> {
        line.choose().map(|(value, _)| *value)
    }

    #[test]
    fn any_place_may_leave_and_the_others_keep_their_order() {
        crate::block_on(async {
            for leaving in [vec![0], vec![2], vec![4], vec![1, 2], vec![4, 3, 0]] {
                let mut line = Line::default();
                let mut places = places(&mut line, 5);
                for &place in &leaving {
                    let left = line.remove(&mut places[place]);
                    assert_eq!(left, Some((Standing::InLine, place)));
                    assert_eq!(line.remove(&mut places[place]), None, "it has left");
                }
                assert_eq!(line.len(), 5 - leaving.len());
                for place in (0..5).filter(|place| !leaving.contains(place)) {
                    assert_eq!(line.first().copied(), Some(place));
                    assert_eq!(chosen(&mut line), Some(place));
                    let left = line.remove(&mut places[place]);
                    assert_eq!(left, Some((Standing::Chosen, place)));
                }
                assert_eq!((chosen(&mut line), line.len()), (None, 0));
            }
        })
        .expect("a core");
    }

    #[test]
    fn one_who_was_aborted_is_passed_over() {
        crate::block_on(async {
            let mut line = Line::default();
            let scope = crate::Scope::new();
            let handle = scope.handle();
            let mut cancelled = Vec::new();
            let body = async {
                cancelled = places(&mut line, 2);
                handle.cancel();
                crate::yield_now().await
            };
            assert_eq!(scope.run(body).await, Ok(None));
            let mut waits = places(&mut line, 1);
            assert_eq!(chosen(&mut line), Some(0));
            assert_eq!(line.first(), None);
            let standings: Vec<_> = cancelled
                .iter_mut()
                .chain(&mut waits)
                .map(|place| line.remove(place).expect("it stood in line").0)
                .collect();
            assert_eq!(standings, [Standing::Out, Standing::Out, Standing::Chosen]);
        })
        .expect("a core");
    }

    #[test]
    fn one_on_a_core_that_is_gone_is_passed_over_and_leaves() {
        let mut line = Line::default();
        let mut gone = crate::block_on(async { places(&mut line, 1) }).expect("a core");
        assert_eq!(line.first(), None, "off a core nobody can be woken");
        crate::block_on(async {
            let _waits = places(&mut line, 1);
            assert_eq!(chosen(&mut line), Some(0));
        })
        .expect("a core");
        assert_eq!(line.remove(&mut gone[0]), Some((Standing::Out, 0)));
    }

    #[test]
    fn a_list_wakes_those_who_wait_and_says_who_has_not_seen_it() {
        crate::block_on(async {
            let list = WaitList::default();
            let cx = Context::from_waker(Waker::noop());
            let (mut first, mut second) = (Place::default(), Place::default());
            let poll = |place: &mut Place| list.poll(place, &cx, || false);
            assert!(poll(&mut first).is_pending());
            assert!(poll(&mut second).is_pending());
            assert!(list.wake_first());
            assert!(poll(&mut second).is_pending());
            assert!(list.leave(&mut first), "woken, and not looked");
            list.wake_all();
            assert_eq!(poll(&mut second), Poll::Ready(Ok(())));
            assert!(!list.leave(&mut second) && !list.wake_first());
        })
        .expect("a core");
    }
}
