//! Deadlines: waiting for them, and what time it is.
//!
//! Timers are kept in user space, per core (`store.rs`); the kernel sees one timeout, the next
//! deadline, and only while the core is parked. No timer fires early.

mod instant;
pub(crate) mod store;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime};

pub use instant::Instant;
use store::{Of, Order, TimerId};

use crate::core_state::{Core, TimerTarget};
use crate::driver;
use crate::scope::Cancelled;
use crate::scope::park::{self, Look, Park};
use crate::scope::tree::Purpose;
use crate::task::current;

/// Waits for at least `duration`, from the first poll on.
///
/// A duration of zero lets other tasks run once. One past the clock's range never ends.
///
/// # Errors
///
/// [`Cancelled`], by the deadline or cancel of a scope around.
///
/// # Panics
///
/// When polled off a core.
#[inline]
pub fn sleep(duration: Duration) -> impl Future<Output = Result<(), Cancelled>> {
    Sleep::new(Stage::After(duration))
}

/// Waits until `deadline`.
///
/// A deadline that has passed lets other tasks run once.
///
/// # Errors
///
/// [`Cancelled`], by the deadline or cancel of a scope around.
///
/// # Panics
///
/// When polled off a core.
#[inline]
pub fn sleep_until(deadline: Instant) -> impl Future<Output = Result<(), Cancelled>> {
    Sleep::new(Stage::Until(deadline))
}

/// Reads the wall clock, for dates; it may jump.
pub fn wall_clock() -> SystemTime {
    driver::wall_clock()
}

/// Returns whether time is that of a simulation here: what comes of another clock cannot be replayed.
pub fn is_simulated() -> bool {
    driver::is_simulated()
}

/// A wait for a point in time. Small, since many lie in memory at a time.
#[must_use = "a sleep does nothing unless it is awaited"]
struct Sleep {
    stage: Stage,
    park: Park,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Not polled yet: for so long from then on.
    After(Duration),
    /// Not polled yet.
    Until(Instant),
    /// The point has passed, or is now: others have a turn.
    Yields,
    /// Others have had theirs.
    Yielded,
    /// The park keeps its deadline, and is there until that has come.
    Waits(Order),
    Over,
}

impl Sleep {
    #[inline]
    fn new(stage: Stage) -> Self {
        Self {
            stage,
            park: Park::new(),
        }
    }

    /// Lets others have a turn.
    #[inline(never)]
    fn yields(&mut self, core: &Core, waker: &Waker) -> Poll<Result<(), Cancelled>> {
        self.stage = Stage::Yields;
        core.notice_deadlines();
        ready!(park::entry(core, waker))?;
        self.stage = Stage::Yielded;
        core.yield_to_others(waker);
        Poll::Pending
    }

    #[inline(always)]
    fn begin(
        &mut self,
        core: &Core,
        waker: &Waker,
        deadline: Instant,
    ) -> Poll<Result<(), Cancelled>> {
        // Should the entry let it wait, it is not to begin anew.
        self.stage = Stage::Until(deadline);
        ready!(park::entry(core, waker))?;
        let park = self.park.register_here(core, waker, Purpose::Time);
        let mut timers = core.timers.borrow_mut();
        self.stage = Stage::Waits(timers.arm(deadline, Of::Park, park.key()));
        Poll::Pending
    }
}

impl Future for Sleep {
    type Output = Result<(), Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        current::with(|core| {
            let polled = self.poll_on(core, cx.waker());
            if polled.is_ready() {
                self.stage = Stage::Over;
            }
            polled
        })
    }
}

impl Sleep {
    #[inline]
    fn poll_on(&mut self, core: &Core, waker: &Waker) -> Poll<Result<(), Cancelled>> {
        let deadline = match self.stage {
            // No time to wait, and so none to look at the clock for.
            Stage::After(Duration::ZERO) | Stage::Yields => return self.yields(core, waker),
            Stage::After(duration) => Instant::now() + duration,
            Stage::Until(deadline) if deadline <= Instant::now() => {
                return self.yields(core, waker);
            }
            Stage::Until(deadline) => deadline,
            Stage::Yielded => return Poll::Ready(Ok(())),
            Stage::Waits(order) => return self.look(core, waker, order),
            Stage::Over => panic!("a sleep was polled after it had ended"),
        };
        self.begin(core, waker, deadline)
    }

    fn look(&mut self, core: &Core, waker: &Waker, order: Order) -> Poll<Result<(), Cancelled>> {
        match self.park.look_last(core, waker) {
            Look::Waiting => Poll::Pending,
            Look::Ready => Poll::Ready(Ok(())),
            Look::Aborted(cancelled) => {
                // One that has moved under a cancelled scope is there still.
                self.park.end_here(core);
                core.withdraw(order);
                Poll::Ready(Err(cancelled))
            }
        }
    }

    /// Leaves nothing behind on the core.
    #[inline]
    fn give_up(&mut self, order: Order) {
        current::try_with(|core| {
            if self.park.end_here(core) {
                core.withdraw(order);
            }
        });
    }
}

impl Drop for Sleep {
    #[inline]
    fn drop(&mut self) {
        if let Stage::Waits(order) = self.stage {
            self.give_up(order);
        }
    }
}

/// Ticks at a fixed distance.
///
/// ```no_run
/// # async fn every_second() -> Result<(), quoit::Cancelled> {
/// let mut interval = quoit::time::interval(std::time::Duration::from_secs(1));
/// loop {
///     interval.tick().await?;
///     println!("tick");
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Interval {
    next: Instant,
    period: Duration,
}

/// Makes an interval whose first tick is one period from now.
///
/// # Panics
///
/// If the period is zero.
pub fn interval(period: Duration) -> Interval {
    assert!(
        period > Duration::ZERO,
        "an interval needs a period above zero"
    );
    Interval {
        next: Instant::now() + period,
        period,
    }
}

impl Interval {
    /// Waits for the next tick and returns when it was due.
    ///
    /// Ticks that were missed are left out, not made up for: the next one is again a whole number
    /// of periods after the first.
    ///
    /// # Errors
    ///
    /// [`Cancelled`], by the deadline or cancel of a scope around; the tick is not lost.
    pub async fn tick(&mut self) -> Result<Instant, Cancelled> {
        sleep_until(self.next).await?;
        let due = self.next;
        self.next = tick_after(due, self.period, Instant::now());
        Ok(due)
    }

    /// Returns the distance between ticks.
    pub fn period(&self) -> Duration {
        self.period
    }
}

/// Returns the first tick after `now`: a whole number of periods after one that was due.
fn tick_after(due: Instant, period: Duration, now: Instant) -> Instant {
    let since_the_last = now.duration_since(due).as_nanos() % period.as_nanos();
    // Less than the nanoseconds between two instants.
    now + (period - Duration::from_nanos(since_the_last as u64))
}

/// A timer for libraries that know nothing of scopes: it yields `()`, is not cancelled, and may be
/// sent and shared, though it makes progress only on the core where it is first polled.
///
/// Dropped on another thread, it leaves its timer there, which fires for nobody when it is due. Use
/// [`sleep`] where you can.
#[derive(Debug)]
pub struct Alarm {
    deadline: Instant,
    armed: Option<(TimerId, u64)>,
}

impl Alarm {
    /// Makes an alarm.
    pub fn at(deadline: Instant) -> Self {
        Self {
            deadline,
            armed: None,
        }
    }

    /// Moves the alarm to another deadline.
    pub fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        let moved = self.armed.is_some_and(|(timer, home)| {
            current::try_with(|core| {
                let mut timers = core.timers.borrow_mut();
                home == core.identity() && timers.change(timer, deadline, &*core.tree.borrow())
            }) == Some(true)
        });
        if !moved {
            self.disarm();
        }
    }

    fn disarm(&mut self) {
        if let Some((timer, home)) = self.armed.take() {
            current::try_with(|core| {
                if core.identity() == home {
                    drop(core.remove_timer(timer));
                }
            });
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline <= Instant::now() {
            self.disarm();
            return Poll::Ready(());
        }
        // Copied where no borrow is held: it is foreign code.
        let waker = cx.waker().clone();
        let stale = current::with(|core| {
            let mut timers = core.timers.borrow_mut();
            let armed = self.armed.filter(|(_, home)| *home == core.identity());
            match armed.and_then(|(timer, _)| timers.target_mut(timer)) {
                Some(TimerTarget::Alarm(known)) => Some(std::mem::replace(known, waker)),
                _ => {
                    let timer = timers.insert(self.deadline, TimerTarget::Alarm(waker));
                    self.armed = Some((timer, core.identity()));
                    None
                }
            }
        });
        drop(stale);
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.disarm();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::{Scope, spawn, yield_now};

    const LONG: Duration = Duration::from_secs(1000);

    /// How many timers are armed, and the first of them.
    fn armed() -> (usize, Option<Instant>) {
        current::with(|core| {
            let first = core.next_deadline();
            (core.timers.borrow().len(), first)
        })
    }

    #[test]
    fn a_sleep_that_is_cancelled_and_then_due_leaves_no_timer() {
        crate::block_on(async {
            let other = spawn(sleep(LONG));
            let task = spawn(sleep(Duration::from_millis(1)));
            yield_now().await?;
            assert_eq!(armed().0, 2);
            task.cancel();
            // It is told of the cancel, and has not looked.
            let due = Instant::now() + Duration::from_millis(2);
            current::with(|core| core.fire_timers(due));
            assert!(task.await.expect("it ends").is_err());
            assert_eq!(armed().0, 1);
            other.cancel();
            assert!(other.await.expect("it ends").is_err());
            assert_eq!(armed(), (0, None));
            Ok::<_, Cancelled>(())
        })
        .expect("a core")
        .expect("nobody cancels");
    }

    #[test]
    fn a_sleep_that_moves_under_a_cancelled_scope_leaves_no_timer() {
        crate::block_on(async {
            let mut sleep = pin!(sleep(LONG));
            let polled = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
            let scope = Scope::new();
            let moved = scope.run(async {
                scope.cancel();
                sleep.as_mut().await
            });
            assert_eq!(moved.await, Ok(None));
            assert_eq!(armed(), (0, None));
        })
        .expect("a core");
    }

    #[test]
    fn sleeps_given_up_in_any_order_leave_no_timer() {
        crate::block_on(async {
            let mut cx = Context::from_waker(Waker::noop());
            // Every other one comes before the last.
            let mut sleeps: Vec<_> = (0..1_000_u64)
                .map(|n| Box::pin(sleep(LONG + Duration::from_secs(n ^ 1))))
                .collect();
            for sleep in &mut sleeps {
                assert!(sleep.as_mut().poll(&mut cx).is_pending());
            }
            let mut random = 7_usize;
            while !sleeps.is_empty() {
                assert_eq!(armed().0, sleeps.len());
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                drop(sleeps.swap_remove((random >> 33) % sleeps.len()));
            }
            assert_eq!(armed(), (0, None));
        })
        .expect("a core");
    }

    #[test]
    fn a_tick_is_whole_periods_after_the_last_and_lies_ahead() {
        let due = Instant::from_nanos(1_000);
        for (period, now, next) in [
            (10, 1_000, 1_010),
            (10, 1_009, 1_010),
            (10, 1_010, 1_020),
            (10, 9_999, 10_000),
            // More were missed than fit 32 bits.
            (1, 1 << 40, (1 << 40) + 1),
            (3, 1_001 + (3 << 33), 1_003 + (3 << 33)),
        ] {
            let tick = tick_after(due, Duration::from_nanos(period), Instant::from_nanos(now));
            assert_eq!(tick, Instant::from_nanos(next), "{period} at {now}");
        }
        assert_eq!(tick_after(due, Duration::MAX, due), Instant::NEVER);
    }
}
