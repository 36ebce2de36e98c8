//! Whether the kernel answers at once what it is told.
//!
//! A write to a pipe that has room, a send on a socket, a read of what is in the page cache: such requests are done by
//! the time their submission returns. A core that goes to park with them would say to all others that it parks, and
//! take it back at once. So where submissions were answered at once of late, the next is made without a wait, and the
//! park follows if there was no answer. That costs one more entry into the kernel each time the guess was wrong, which
//! is why it is made only where guesses were right.

use std::cell::Cell;

/// What was seen of late. Pure.
#[derive(Debug)]
pub(crate) struct Prompt {
    /// While it is not zero, submissions are tried without a wait.
    trust: Cell<u32>,
    /// Else after so many submissions; and how many those were the last time.
    until_try: Cell<u32>,
    gap: Cell<u32>,
}

const MOST_TRUST: u32 = 8;

/// What a wrong guess costs of it: trust stays only where three of four are right.
const LOST: u32 = 3;

const FIRST_GAP: u32 = 16;
const LARGEST_GAP: u32 = 1024;

impl Default for Prompt {
    fn default() -> Self {
        Self {
            trust: Cell::new(0),
            until_try: Cell::new(FIRST_GAP),
            gap: Cell::new(FIRST_GAP),
        }
    }
}

impl Prompt {
    /// Says whether to look for answers to the submission that is made now before the core parks.
    #[inline]
    pub(crate) fn guess(&self) -> bool {
        self.trust.get() > 0 || self.is_to_be_tried()
    }

    fn is_to_be_tried(&self) -> bool {
        let left = self.until_try.get() - 1;
        self.until_try.set(left);
        left == 0
    }

    /// Notes whether answers were there after all.
    #[inline]
    pub(crate) fn note(&self, was_right: bool) {
        let trust = self.trust.get();
        if was_right {
            self.trust.set((trust + 1).min(MOST_TRUST));
        } else {
            self.note_wrong(trust);
        }
    }

    #[cold]
    fn note_wrong(&self, trust: u32) {
        self.trust.set(trust.saturating_sub(LOST));
        if trust <= LOST {
            let gap = if trust > 0 {
                FIRST_GAP
            } else {
                self.gap.get() * 2
            };
            self.gap.set(gap.min(LARGEST_GAP));
            self.until_try.set(self.gap.get());
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Makes so many submissions, of which those are answered at once that `is_prompt` says; returns how many guesses
    /// were made, and how many of those were wrong.
    fn submit(prompt: &Prompt, times: u32, is_prompt: impl Fn(u32) -> bool) -> (u32, u32) {
        let (mut guesses, mut wrong) = (0, 0);
        for time in 0..times {
            if prompt.guess() {
                guesses += 1;
                wrong += u32::from(!is_prompt(time));
                prompt.note(is_prompt(time));
            }
        }
        (guesses, wrong)
    }

    #[test]
    fn what_is_answered_at_once_is_guessed_soon() {
        let prompt = Prompt::default();
        assert_eq!(submit(&prompt, 1_000, |_| true), (1_000 - FIRST_GAP + 1, 0));
    }

    #[test]
    fn what_is_not_is_tried_ever_less() {
        let prompt = Prompt::default();
        let (_, wrong) = submit(&prompt, 100_000, |_| false);
        assert!(wrong < 110, "{wrong}");
    }

    #[test]
    fn a_change_is_noticed() {
        let prompt = Prompt::default();
        submit(&prompt, 1_000, |_| true);
        let (_, wrong) = submit(&prompt, 1_000, |_| false);
        assert!(wrong <= MOST_TRUST.div_ceil(LOST) + 6, "{wrong}");
        submit(&prompt, 2 * LARGEST_GAP, |_| true);
        assert_eq!(submit(&prompt, 100, |_| true), (100, 0));
    }

    #[test]
    fn guesses_that_are_right_every_other_time_are_not_made() {
        let prompt = Prompt::default();
        let (_, wrong) = submit(&prompt, 100_000, |time| time % 2 == 0);
        assert!(wrong < 6_000, "{wrong}");
    }
}
