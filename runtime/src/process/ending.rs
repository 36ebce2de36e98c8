//! `Ending`: how a child is ended that does not end by itself. Pure: what comes next, and when.

use std::time::Duration;

/// How a child is ended: its input is closed, then it gets SIGTERM, then SIGKILL, with time in between.
///
/// Unless told otherwise the input is closed and SIGTERM sent at once, and SIGKILL five seconds later:
/// enough to flush and say goodbye, and less than those who supervise services usually wait before they
/// kill all of it.
///
/// One that was stopped, as by a terminal that it may not read from, goes on with SIGTERM, or would not hear of it.
/// Signals go to the child's [group](super::Group), and a child is given up for ended only when it has
/// been reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// From the beginning to SIGTERM.
    terminate_after: Duration,
    /// From the beginning to SIGKILL.
    grace: Duration,
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            terminate_after: Duration::ZERO,
            grace: Duration::from_secs(5),
        }
    }
}

impl Ending {
    /// SIGKILL at once: for a child that has nothing to lose.
    pub fn kill() -> Self {
        Self::default().grace(Duration::ZERO)
    }

    /// How long the child may take to end by itself after its input was closed, before it gets SIGTERM.
    /// Default: no time. For those that see the end of their input as a goodbye. No longer than the grace.
    #[must_use]
    pub fn terminate_after(mut self, patience: Duration) -> Self {
        self.terminate_after = patience;
        self
    }

    /// How long the child may take in all, before it gets SIGKILL. Default: five seconds.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Returns what comes next, `passed` after the input was closed, if `last` was done before.
    pub(super) fn next(self, last: Step, passed: Duration) -> Next {
        let killed = last == Step::Kill;
        let terminated = killed || last == Step::Terminate || self.terminate_after >= self.grace;
        match (terminated, killed) {
            (_, true) => Next::Wait(None),
            (_, false) if passed >= self.grace => Next::Do(Step::Kill),
            (true, false) => Next::Wait(Some(self.grace)),
            (false, false) if passed >= self.terminate_after => Next::Do(Step::Terminate),
            (false, false) => Next::Wait(Some(self.terminate_after)),
        }
    }
}

/// What was done to end a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    CloseInput,
    Terminate,
    Kill,
}

/// What to do to end a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Do(Step),
    /// Waits for its end: until so long after the beginning, or for as long as it takes.
    Wait(Option<Duration>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn each_step_is_done_once_and_at_its_time() {
        let ending = Ending::default()
            .terminate_after(seconds(2))
            .grace(seconds(5));
        let table = [
            (Step::CloseInput, 0, Next::Wait(Some(seconds(2)))),
            (Step::CloseInput, 2, Next::Do(Step::Terminate)),
            (Step::CloseInput, 5, Next::Do(Step::Kill)),
            (Step::Terminate, 2, Next::Wait(Some(seconds(5)))),
            (Step::Terminate, 5, Next::Do(Step::Kill)),
            (Step::Kill, 5, Next::Wait(None)),
            (Step::Kill, 99, Next::Wait(None)),
        ];
        for (last, passed, next) in table {
            assert_eq!(
                ending.next(last, seconds(passed)),
                next,
                "{last:?} at {passed} s"
            );
        }
    }

    #[test]
    fn child_without_grace_is_killed_first() {
        let next = Ending::kill().next(Step::CloseInput, Duration::ZERO);
        assert_eq!(next, Next::Do(Step::Kill));
    }

    #[test]
    fn patience_past_the_grace_leaves_sigterm_out() {
        let ending = Ending::default()
            .terminate_after(seconds(9))
            .grace(seconds(5));
        let next = |last, passed| ending.next(last, seconds(passed));
        assert_eq!(next(Step::CloseInput, 0), Next::Wait(Some(seconds(5))));
        assert_eq!(next(Step::CloseInput, 5), Next::Do(Step::Kill));
    }
}
