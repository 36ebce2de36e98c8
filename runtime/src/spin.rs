//! Looking on for a while before a park: only where the builder says so, and only while it pays.
//!
//! A core that parks and is woken loses ten microseconds and more. One that [spins] looks instead, for a
//! bounded time, at what others and the kernel write into memory: its inbox, the tail of the completion
//! queue, the flag by which the kernel tells of work it has deferred. It makes no system call meanwhile,
//! and since it has not published that it parks, nobody makes one to wake it.
//!
//! Whether it pays is judged by how long waits last, and each wait counts, spun or parked: one that ended
//! within the bound is one that a spin cuts short, or would have. While at least half of the waits of
//! late are such, every wait begins with a spin; else only one now and then, since a park lasts longer
//! than what it waited for. A try that finds nothing doubles the number of parks until the next.
//!
//! So an idle core spins a few times more, and parks; there it stays, since nothing of this wakes it.
//!
//! [spins]: crate::Builder::spin_before_park

use std::cell::RefCell;
use std::time::Duration;

use crate::core_state::Core;
use crate::time::Instant;

/// Says before which parks a core spins. Pure.
#[derive(Debug)]
pub(crate) struct Spin {
    limit: Duration,
    /// How many of the last waits ended within the limit, of [`ALL`]: each counts less with every one
    /// that comes after it.
    short: u32,
    /// Where it does not pay: after how many parks it is tried again, and how many that were the last time.
    until_try: u32,
    gap: u32,
    /// The wait that goes on has begun with a spin.
    has_spun: bool,
}

const ALL: u32 = 256;
const ENOUGH: u32 = ALL / 2;

/// The newest wait counts for one in so many.
const NEWEST: u32 = 8;

const FIRST_GAP: u32 = 16;
const LARGEST_GAP: u32 = 4096;

/// How many looks there are between two readings of the clock.
const LOOKS: u32 = 16;

impl Spin {
    /// Makes one that spins for at most `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        debug_assert!(!limit.is_zero(), "who does not spin needs no rule for it");
        Self {
            limit,
            short: ALL,
            until_try: FIRST_GAP,
            gap: FIRST_GAP,
            has_spun: false,
        }
    }

    /// Says whether the wait that begins now does so with a spin, and for how long at most.
    fn begin(&mut self) -> Option<Duration> {
        self.has_spun = false;
        if self.short < ENOUGH {
            self.until_try -= 1;
            if self.until_try > 0 {
                return None;
            }
        }
        self.has_spun = true;
        Some(self.limit)
    }

    /// Notes how a spin ended. If it found nothing a park follows.
    fn end(&mut self, found: bool) {
        if self.short >= ENOUGH {
            self.note(found);
        } else if found {
            self.short = ENOUGH;
        } else {
            self.gap = (self.gap * 2).min(LARGEST_GAP);
            self.until_try = self.gap;
        }
        if found {
            self.has_spun = false;
        }
    }

    /// Notes how long a park took.
    pub(crate) fn parked(&mut self, took: Duration) {
        if !std::mem::take(&mut self.has_spun) {
            self.note(took <= self.limit);
        }
    }

    fn note(&mut self, is_short: bool) {
        let was_enough = self.short >= ENOUGH;
        let newest = if is_short { ALL / NEWEST } else { 0 };
        self.short = self.short - self.short / NEWEST + newest;
        if was_enough && self.short < ENOUGH {
            self.gap = FIRST_GAP;
            self.until_try = FIRST_GAP;
        }
    }
}

impl Core {
    /// Spins, if that pays before the park that would begin now. Returns whether something has come; it
    /// has been reaped then.
    #[inline(never)]
    pub(crate) fn look_on(&self, spin: &RefCell<Spin>) -> bool {
        let begun = spin.borrow_mut().begin();
        let Some(limit) = begun else { return false };
        self.counters().spins.add(1);
        self.publish_gauges();
        // What a park would submit. Where the kernel is too busy to take it, a park waits for that as well.
        self.enter_if_needed();
        if self.driver.borrow_mut().unsubmitted() > 0 || self.ops.borrow().has_waiting() {
            spin.borrow_mut().end(false);
            return false;
        }
        let begin = self.fresh_time();
        let deadline = self.next_deadline();
        let end = deadline.map_or(begin + limit, |at| at.min(begin + limit));
        let mut now = begin;
        let mut found = self.has_news();
        while !found && now < end {
            for _ in 0..LOOKS {
                std::hint::spin_loop();
                found = self.has_news();
                if found {
                    break;
                }
            }
            now = Instant::now();
        }
        found |= deadline.is_some_and(|at| at <= now);
        self.counters()
            .spin_nanos
            .add((now - begin).as_nanos() as u64);
        spin.borrow_mut().end(found);
        self.clock_is_old.set(true);
        if found {
            self.counters().spin_hits.add(1);
            self.enter_if_needed();
            self.reap();
            self.wake_starved();
        }
        found
    }

    /// Returns whether somebody has something for this core. Looks at memory alone.
    #[inline]
    fn has_news(&self) -> bool {
        let mut driver = self.driver.borrow_mut();
        driver.has_completions() || driver.wants_enter() || self.has_mail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);
    const LONG: Duration = Duration::from_millis(5);

    /// Lets `waits` of this length pass; returns how many began with a spin.
    fn wait(spin: &mut Spin, length: Duration, waits: u32) -> u32 {
        let mut spun = 0;
        for _ in 0..waits {
            let begun = spin.begin();
            let found = begun.is_some() && length <= LIMIT;
            if begun.is_some() {
                spun += 1;
                spin.end(found);
            }
            if !found {
                spin.parked(length);
            }
        }
        spun
    }

    #[test]
    fn short_waits_are_spun_through() {
        let mut spin = Spin::new(LIMIT);
        assert_eq!(wait(&mut spin, LIMIT / 2, 1_000), 1_000);
    }

    #[test]
    fn a_core_whose_waits_are_long_spins_ever_less() {
        let mut spin = Spin::new(LIMIT);
        assert_eq!(wait(&mut spin, LONG, 100), 8);
        assert_eq!(wait(&mut spin, LONG, 100_000), 29);
    }

    #[test]
    fn it_is_taken_up_again_when_parks_are_short() {
        let mut spin = Spin::new(LIMIT);
        wait(&mut spin, LONG, 10_000);
        let spun = wait(&mut spin, LIMIT / 2, 1_000);
        assert!(spun > 980, "{spun}");
    }

    /// Waits that a spin cuts short, and a park makes long: of those only a try can tell.
    #[test]
    fn a_try_that_finds_something_is_followed_by_more() {
        let mut spin = Spin::new(LIMIT);
        wait(&mut spin, LONG, 100);
        while spin.begin().is_none() {
            spin.parked(LONG);
        }
        spin.end(true);
        assert_eq!(wait(&mut spin, LIMIT / 2, 100), 100);
    }

    #[test]
    fn what_pays_in_one_of_three_waits_is_seldom_done() {
        let mut spin = Spin::new(LIMIT);
        let spun: u32 = (0..3_000)
            .map(|n| wait(&mut spin, if n % 3 == 0 { LIMIT } else { LONG }, 1))
            .sum();
        assert!(spun < 300, "{spun}");
    }

    /// Something came between the end of a spin and its park: the wait that follows counts for itself.
    #[test]
    fn a_wait_that_ends_before_its_park_hides_no_other() {
        let mut spin = Spin::new(LIMIT);
        wait(&mut spin, LONG, 100);
        while spin.begin().is_none() {
            spin.parked(LONG);
        }
        spin.end(false);
        let before = spin.short;
        assert_eq!(spin.begin(), None);
        spin.parked(LIMIT);
        assert!(spin.short > before, "{} after {before}", spin.short);
    }

    /// What the kernel did not take is nothing that has come: a core that took it for that would come back at once,
    /// for as long as the kernel is busy.
    #[cfg(feature = "sim")]
    #[test]
    fn who_cannot_submit_does_not_spin() {
        use crate::sim::{self, Fault, Sim};
        use std::future::Future;
        use std::task::{Context, Waker};

        Sim::with_seed(5).run(|| {
            let builder = crate::Runtime::builder().cores(crate::Cores::Count(1));
            let runtime = builder.build().expect("a core");
            let handle = runtime.handle();
            let task = handle.spawn(handle.cores()[0], || async {
                let mut op = std::pin::pin!(crate::op::nop());
                let mut cx = Context::from_waker(Waker::noop());
                assert!(op.as_mut().poll(&mut cx).is_pending());
                sim::force(Fault::EnterAgain);
                let spin = RefCell::new(Spin::new(LIMIT));
                assert!(!crate::task::current::with(|core| core.look_on(&spin)));
                op.await.expect("not cancelled");
            });
            task.expect("room").wait().expect("it ended");
        });
    }
}
