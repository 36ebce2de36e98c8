//! A point on the core's monotonic clock.
//!
//! Nanoseconds of `CLOCK_MONOTONIC`, which never goes back and starts at boot, as `u64`: enough for
//! 584 years. Arithmetic saturates, so a deadline past the clock's range is simply never reached.

use std::ops::{Add, Sub};
use std::time::Duration;

use crate::driver;
use crate::task::current;

/// A point on the monotonic clock, read through the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The end of the clock's range: a deadline there never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// Reads the clock. Works on a core and off it.
    pub fn now() -> Self {
        driver::monotonic_now()
    }

    /// Returns when the core last looked at the clock, without looking again: at most a turn ago, and
    /// for what came from the kernel in this turn about when it came. Off a core it is [`now`](Self::now).
    pub fn recent() -> Self {
        let Some(recent) = current::try_with(|core| core.now.get()) else {
            return Self::now();
        };
        driver::note_look();
        recent
    }

    /// Returns how long ago this was; zero if it lies ahead.
    pub fn elapsed(self) -> Duration {
        Self::now() - self
    }

    /// Returns the time from `earlier` until this instant; zero if `earlier` is later.
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Takes an instant of the standard library over, for libraries that speak in those. Never
    /// earlier than it says, and later by less than a microsecond.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub fn from_std(instant: std::time::Instant) -> Self {
        let (std_base, base) = current::with(|core| core.clock_base);
        match instant.checked_duration_since(std_base) {
            Some(since) => base + since,
            None => base - std_base.duration_since(instant),
        }
    }

    /// Returns the same instant as the standard library's.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub fn to_std(self) -> std::time::Instant {
        let (std_base, base) = current::with(|core| core.clock_base);
        if self >= base {
            std_base + (self - base)
        } else {
            std_base.checked_sub(base - self).unwrap_or(std_base)
        }
    }

    /// Makes an instant from nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Adds; what lies past the clock's range becomes [`Instant::NEVER`].
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_past_the_range_saturates() {
        let now = Instant::from_nanos(1_000);
        assert_eq!(now + Duration::MAX, Instant::NEVER);
        assert_eq!(now - Duration::MAX, Instant::from_nanos(0));
        assert_eq!(now - Instant::NEVER, Duration::ZERO);
    }

    #[test]
    fn an_instant_from_before_the_core_is_taken_over_as_it_was() {
        crate::block_on(async {
            let now = Instant::now();
            for back in [0, 1, 5_000].map(Duration::from_millis) {
                let earlier = now - back;
                assert_eq!(Instant::from_std(earlier.to_std()), earlier);
            }
        })
        .expect("a core");
    }
}
