//! Tasks that a cancel does not move: made to yield, then to pause, then left alone. Pure.
//!
//! Two kinds. A task that *swallows* every refusal and asks again is made to yield now and then
//! ([`YIELD_EVERY`]); after a number of refusals that no clean-up needs it has to pause before each
//! further one. A body that waits in something *foreign*, which the runtime cannot abort, is woken a
//! few times, further and further apart, and is then listed as unresponsive.
//!
//! Nothing here is done on loop turns: each step is asked for by a poll or by a timer that the last
//! step armed, both have an end, and both go when the scope or the task goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ptr;
use std::task::Waker;
use std::time::Duration;

use super::tree::NodeId;
use crate::time::store::TimerId;

/// For which time that a task asks in a cancelled scope, in one poll, it must yield.
const YIELD_EVERY: u32 = 32;

/// Refusals of one task in one scope before it has to pause, and how many more for each op that was
/// parked there when the scope was cancelled: each of those may have a clean-up of its own, once it has ended.
const FREE: u64 = 1024;
const FREE_PER_OP: u64 = 16;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Wakes spent on one wait in something foreign, and the first gap between them.
const FOREIGN_WAKES: u32 = 8;
const FIRST_GAP: Duration = Duration::from_millis(1);

/// Returns whether a task that asks in a cancelled scope for this time in one poll is made to yield: it has not been
/// refused then, and asks again.
pub(crate) fn is_yield(asked: u32) -> bool {
    asked.is_multiple_of(YIELD_EVERY)
}

/// Returns how often a task was refused that has asked so often in one poll.
pub(crate) fn refused(asked: u32) -> u32 {
    asked - asked / YIELD_EVERY
}

/// What is known of the tasks of a core that a cancel did not move.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    swallowers: BTreeMap<u32, Swallower>,
    /// The same by the scope that refuses: very many may be refused once by one, and end each in its time.
    by_source: BTreeSet<(NodeId, u32)>,
    foreign: BTreeMap<NodeId, Foreign>,
    /// How many of them have to pause, and how many are left alone.
    listed: (usize, usize),
}

#[derive(Debug)]
struct Swallower {
    /// What each scope has refused it that refuses it.
    by_source: BTreeMap<NodeId, Refusals>,
    /// How many of them have refused it too often.
    too_often: u32,
    next_pause: Duration,
    timer: Option<TimerId>,
    /// A pause is over, and the next refusal is free.
    permit: bool,
    /// Who pauses, and by what they are known: very many branches may.
    waiting: VecDeque<Waker>,
    names: BTreeSet<[usize; 2]>,
}

#[derive(Debug)]
struct Refusals {
    count: u64,
    free: u64,
}

#[derive(Debug, Default)]
struct Foreign {
    wakes: u32,
    timer: Option<TimerId>,
}

impl Swallower {
    /// Returns how long the next pause is.
    fn pause(&mut self) -> Duration {
        let pause = self.next_pause;
        self.next_pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    fn has_to_pause(&self) -> bool {
        self.too_often > 0
    }

    /// Takes out who has paused for longest.
    fn next(&mut self) -> Option<Waker> {
        let first = self.waiting.pop_front()?;
        self.names.remove(&name_of(&first));
        Some(first)
    }

    /// Takes all out who pause.
    fn all(&mut self) -> Vec<Waker> {
        self.names.clear();
        self.waiting.drain(..).collect()
    }
}

/// Returns what tells a waker from those that wake somebody else, as [`Waker::will_wake`] sees it.
fn name_of(waker: &Waker) -> [usize; 2] {
    [waker.data().addr(), ptr::from_ref(waker.vtable()).addr()]
}

impl Refusals {
    const NONE: Self = Self {
        count: 0,
        free: FREE,
    };

    fn are_too_many(&self) -> bool {
        self.count >= self.free
    }
}

impl Foreign {
    fn is_left_alone(&self) -> bool {
        self.wakes >= FOREIGN_WAKES && self.timer.is_none()
    }
}

/// What is left of something that is forgotten: timers to disarm, and wakers, which want to be woken
/// or dropped where no borrow is held.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    pub(crate) timers: Vec<TimerId>,
    pub(crate) wakers: Vec<Waker>,
}

impl Patience {
    /// Returns whether anything is known of a task.
    pub(crate) fn knows_task(&self, task: u32) -> bool {
        self.swallowers.contains_key(&task)
    }

    /// Returns how many refusals by the scope `source` a task may have from here on before it has to pause.
    pub(crate) fn allowance(&mut self, task: u32, source: NodeId) -> u32 {
        let Some(known) = self.swallowers.get_mut(&task) else {
            return u32::MAX;
        };
        let refused = known.by_source.get(&source).unwrap_or(&Refusals::NONE);
        let free = refused.free.saturating_sub(refused.count);
        match u32::try_from(free).unwrap_or(u32::MAX) {
            0 => u32::from(std::mem::take(&mut known.permit)),
            free => free,
        }
    }

    /// Notes what a poll of a task came to: refusals by the scope `source`, and ops of it that the cancel of
    /// that had reached and that have ended.
    pub(crate) fn note(&mut self, task: u32, source: NodeId, refused: u32, aborted: u32) {
        let known = self.swallowers.entry(task).or_insert_with(|| Swallower {
            by_source: BTreeMap::new(),
            too_often: 0,
            next_pause: FIRST_PAUSE,
            timer: None,
            permit: false,
            waiting: VecDeque::new(),
            names: BTreeSet::new(),
        });
        let had_to_pause = known.has_to_pause();
        let refusals = known.by_source.entry(source).or_insert(Refusals::NONE);
        known.too_often -= u32::from(refusals.are_too_many());
        refusals.count += u64::from(refused);
        refusals.free += FREE_PER_OP * u64::from(aborted);
        known.too_often += u32::from(refusals.are_too_many());
        self.listed.0 += usize::from(known.has_to_pause());
        self.listed.0 -= usize::from(had_to_pause);
        self.by_source.insert((source, task));
    }

    /// Returns whether the end of a task's pause wakes whoever this waker does.
    pub(crate) fn will_wake(&self, task: u32, waker: &Waker) -> bool {
        let known = self.swallowers.get(&task);
        known.is_some_and(|known| known.names.contains(&name_of(waker)))
    }

    /// Lets an op of a task wait for the end of a pause, with a waker if that is not known; it is left where it cannot.
    /// Returns how long the pause is to be, if a timer has to be armed for it.
    pub(crate) fn pause(&mut self, task: u32, waker: &mut Option<Waker>) -> Option<Duration> {
        let known = self.swallowers.get_mut(&task)?;
        if let Some(waker) = waker.take() {
            known.names.insert(name_of(&waker));
            known.waiting.push_back(waker);
        }
        known.timer.is_none().then(|| known.pause())
    }

    /// Notes the timer of a pause.
    pub(crate) fn paused(&mut self, task: u32, timer: TimerId) {
        if let Some(known) = self.swallowers.get_mut(&task) {
            known.timer = Some(timer);
        }
    }

    /// Ends a pause, whose timer has fired; returns whom to wake, and how long the next one is for those who wait still:
    /// it was for one refusal, and he may have gone.
    pub(crate) fn pause_over(&mut self, task: u32) -> (Option<Waker>, Option<Duration>) {
        let Some(known) = self.swallowers.get_mut(&task) else {
            return (None, None);
        };
        known.timer = None;
        known.permit = true;
        let first = known.next();
        let more = (!known.waiting.is_empty()).then(|| known.pause());
        (first, more)
    }

    /// Returns whether a body that waits in something foreign may be woken once more for that wait.
    pub(crate) fn may_wake(&self, node: NodeId) -> bool {
        let known = self.foreign.get(&node);
        known.is_none_or(|known| known.wakes < FOREIGN_WAKES)
    }

    /// Notes that a body which waits in something foreign is woken.
    pub(crate) fn woken(&mut self, node: NodeId) {
        self.change_foreign(node, |known| known.wakes += 1);
    }

    /// A cancelled body was polled and waits in something foreign, still: returns after which gap
    /// to wake it once more, if a timer has to be armed for that.
    pub(crate) fn still_waits(&mut self, node: NodeId) -> Option<Duration> {
        self.change_foreign(node, |known| {
            if known.timer.is_some() || known.wakes >= FOREIGN_WAKES {
                return None;
            }
            // One that cancelled itself and then began to wait was polled in vain already.
            known.wakes = known.wakes.max(1);
            Some(FIRST_GAP * (1 << (known.wakes - 1)))
        })
    }

    fn change_foreign<R>(&mut self, node: NodeId, change: impl FnOnce(&mut Foreign) -> R) -> R {
        let known = self.foreign.entry(node).or_default();
        let before = usize::from(known.is_left_alone());
        let changed = change(known);
        self.listed.1 += usize::from(known.is_left_alone());
        self.listed.1 -= before;
        changed
    }

    /// Notes the timer of a wake.
    pub(crate) fn wake_armed(&mut self, node: NodeId, timer: TimerId) {
        if self.knows(node) {
            self.change_foreign(node, |known| known.timer = Some(timer));
        }
    }

    /// The timer of a wake has fired.
    pub(crate) fn wake_due(&mut self, node: NodeId) {
        if self.knows(node) {
            self.change_foreign(node, |known| known.timer = None);
        }
    }

    /// A body that waited in something foreign waits there no more.
    pub(crate) fn moved(&mut self, node: NodeId) -> Forgotten {
        let known = self.foreign.remove(&node);
        if known.as_ref().is_some_and(Foreign::is_left_alone) {
            self.listed.1 -= 1;
        }
        Forgotten {
            timers: known.and_then(|known| known.timer).into_iter().collect(),
            wakers: Vec::new(),
        }
    }

    /// Returns whether anything is known of a body.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.foreign.contains_key(&node)
    }

    /// Forgets a scope that has ended.
    pub(crate) fn forget_node(&mut self, node: NodeId) -> Forgotten {
        let mut forgotten = self.moved(node);
        let refused = self.by_source.range((node, 0)..=(node, u32::MAX));
        let refused: Vec<u32> = refused.map(|&(_, task)| task).collect();
        for task in refused {
            let more = self.forget_source(task, node);
            forgotten.timers.extend(more.timers);
            forgotten.wakers.extend(more.wakers);
        }
        forgotten
    }

    /// Forgets what a scope has refused a task.
    fn forget_source(&mut self, task: u32, source: NodeId) -> Forgotten {
        self.by_source.remove(&(source, task));
        let Some(known) = self.swallowers.get_mut(&task) else {
            return Forgotten::default();
        };
        let Some(refusals) = known.by_source.remove(&source) else {
            return Forgotten::default();
        };
        if known.by_source.is_empty() {
            known.too_often = 0;
            self.listed.0 -= usize::from(refusals.are_too_many());
            return self.forget_task(task);
        }
        if !refusals.are_too_many() {
            return Forgotten::default();
        }
        known.too_often -= 1;
        if known.has_to_pause() {
            return Forgotten::default();
        }
        self.listed.0 -= 1;
        known.next_pause = FIRST_PAUSE;
        known.permit = false;
        Forgotten {
            timers: known.timer.take().into_iter().collect(),
            wakers: known.all(),
        }
    }

    /// Forgets a task that has ended.
    pub(crate) fn forget_task(&mut self, task: u32) -> Forgotten {
        match self.swallowers.remove(&task) {
            Some(known) => {
                for &source in known.by_source.keys() {
                    self.by_source.remove(&(source, task));
                }
                self.listed.0 -= usize::from(known.has_to_pause());
                Forgotten {
                    timers: known.timer.into_iter().collect(),
                    wakers: known.waiting.into(),
                }
            }
            None => Forgotten::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.swallowers.is_empty() && self.foreign.is_empty()
    }

    /// Returns whether a task has been refused so often that it has to pause.
    pub(crate) fn is_swallowing(&self, task: u32) -> bool {
        self.swallowers
            .get(&task)
            .is_some_and(Swallower::has_to_pause)
    }

    /// Returns how often a task has been refused by the scope that has refused it most, if that was counted, and
    /// whether it pauses now.
    pub(crate) fn refusals(&self, task: u32) -> (u64, bool) {
        self.swallowers.get(&task).map_or((0, false), |known| {
            let most = known.by_source.values().map(|refusals| refusals.count);
            (most.max().unwrap_or(0), known.timer.is_some())
        })
    }

    /// Returns how often a body was woken in vain, and whether it is left alone now.
    pub(crate) fn attempts(&self, node: NodeId) -> (u32, bool) {
        self.foreign
            .get(&node)
            .map_or((0, false), |known| (known.wakes, known.is_left_alone()))
    }

    /// Returns how many tasks have to pause, and how many bodies are left alone.
    pub(crate) fn listed(&self) -> (usize, usize) {
        self.listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Slab;
    use crate::time::Instant;
    use crate::time::store::TimerStore;

    fn nodes() -> (NodeId, NodeId) {
        let mut slab = Slab::default();
        let mut node = || {
            let key = slab.insert(());
            NodeId::from_parts(key.index(), key.generation())
        };
        (node(), node())
    }

    fn waker() -> Option<Waker> {
        Some(Waker::noop().clone())
    }

    fn timer() -> TimerId {
        TimerStore::default().insert(Instant::from_nanos(1), ())
    }

    #[test]
    fn a_task_has_to_pause_after_so_many_refusals_and_not_before() {
        let (scope, other) = nodes();
        let mut patience = Patience::default();
        assert_eq!(patience.allowance(3, scope), u32::MAX);
        patience.note(3, scope, 1000, 2);
        assert_eq!(
            patience.allowance(3, scope),
            (FREE + 2 * FREE_PER_OP) as u32 - 1000
        );
        patience.note(3, scope, 1000, 0);
        assert!(patience.is_swallowing(3));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert_eq!(patience.allowance(3, scope), 0);
            pauses.extend(patience.pause(3, &mut waker()));
            patience.paused(3, timer());
            assert_eq!(patience.pause(3, &mut None), None, "one timer is enough");
            let (first, more) = patience.pause_over(3);
            assert!(first.is_some());
            assert_eq!(more, None);
            assert_eq!(patience.allowance(3, scope), 1);
            patience.note(3, scope, 1, 0);
        }
        let millis: Vec<_> = pauses.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [1, 2, 4, 8, 16, 20, 20]);
        patience.note(3, other, 1, 0);
        assert_eq!(
            patience.allowance(3, other),
            FREE as u32 - 1,
            "another scope begins anew"
        );
        assert!(patience.is_swallowing(3));
        patience.forget_node(scope);
        assert!(!patience.is_swallowing(3));
        assert_eq!(patience.listed(), (0, 0));
    }

    #[test]
    fn a_pause_is_over_for_one_and_goes_on_for_the_others() {
        let (scope, _) = nodes();
        let mut patience = Patience::default();
        patience.note(3, scope, 5000, 0);
        let first = patience.pause(3, &mut waker());
        patience.paused(3, timer());
        let others = [(); 2].map(|()| patience.pause(3, &mut waker()));
        assert_eq!((first, others), (Some(FIRST_PAUSE), [None; 2]));
        for more in [Some(FIRST_PAUSE * 2), Some(FIRST_PAUSE * 4), None] {
            let (woken, next) = patience.pause_over(3);
            assert!(woken.is_some());
            assert_eq!(next, more);
            patience.paused(3, timer());
        }
    }

    #[test]
    fn a_foreign_wait_is_woken_so_many_times_and_then_left_alone() {
        let (scope, _) = nodes();
        let mut patience = Patience::default();
        patience.woken(scope);
        let mut gaps = Vec::new();
        while let Some(gap) = patience.still_waits(scope) {
            gaps.push(gap.as_millis());
            patience.wake_armed(scope, timer());
            assert_eq!(
                patience.still_waits(scope),
                None,
                "polled for another reason"
            );
            patience.wake_due(scope);
            patience.woken(scope);
        }
        assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(patience.attempts(scope), (FOREIGN_WAKES, true));
        assert_eq!(patience.listed(), (0, 1));
        patience.moved(scope);
        assert_eq!(patience.listed(), (0, 0));
        assert!(patience.is_empty());
    }

    #[test]
    fn what_ends_takes_its_timers_along() {
        let (scope, other) = nodes();
        let mut patience = Patience::default();
        patience.note(1, scope, 5000, 0);
        patience.note(2, other, 5000, 0);
        patience.pause(1, &mut waker());
        patience.paused(1, timer());
        patience.still_waits(scope);
        patience.wake_armed(scope, timer());
        let forgotten = patience.forget_node(scope);
        assert_eq!((forgotten.timers.len(), forgotten.wakers.len()), (2, 1));
        assert!(patience.is_swallowing(2));
        assert_eq!(patience.listed(), (1, 0));
        patience.forget_task(2);
        assert_eq!(patience.listed(), (0, 0));
        assert!(patience.is_empty());
    }

    #[test]
    fn a_task_that_another_scope_refuses_goes_with_that_one() {
        let (before, scope) = nodes();
        let mut patience = Patience::default();
        patience.note(1, before, 1, 0);
        patience.note(1, scope, 1, 0);
        patience.note(2, before, 1, 0);
        patience.forget_node(before);
        assert_eq!((patience.refusals(1).0, patience.refusals(2).0), (1, 0));
        patience.forget_node(scope);
        assert!(patience.is_empty());
    }
}
