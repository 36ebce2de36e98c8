//! `Losses`: lines that are not in the log, and when that is said. No clock is read here.

use std::io;
use std::mem;
use std::time::Duration;

use quoit::time::Instant;

/// What was lost, and not said yet.
#[derive(Debug)]
pub(super) struct Losses {
    target: String,
    refused: u64,
    unwritten: u64,
    /// Why lines could not be written, the last time.
    error: String,
    said_at: Option<Instant>,
}

impl Losses {
    /// Of a log with this name.
    pub(super) fn new(target: String) -> Self {
        Self {
            target,
            refused: 0,
            unwritten: 0,
            error: String::new(),
            said_at: None,
        }
    }

    /// Counts lines for which there was no room.
    pub(super) fn refused(&mut self, lines: u64) {
        self.refused += lines;
    }

    /// Counts lines that could not be written.
    pub(super) fn unwritten(&mut self, lines: u64, error: &io::Error) {
        self.unwritten += lines;
        self.error = error.to_string();
    }

    /// Returns when something is to be said, if there is something.
    pub(super) fn due(&self, every: Duration) -> Option<Instant> {
        let said_at = self.said_at.filter(|_| self.refused + self.unwritten > 0);
        said_at.map(|said_at| said_at + every)
    }

    /// Returns what is to be said now, if it was not only just said.
    pub(super) fn say_at(&mut self, now: Instant, every: Duration) -> Vec<String> {
        if self.said_at.is_some_and(|said_at| now < said_at + every) {
            return Vec::new();
        }
        let said = self.say_all();
        if !said.is_empty() {
            self.said_at = Some(now);
        }
        said
    }

    /// Returns what was not said yet.
    pub(super) fn say_all(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        let lines = |count| if count == 1 { "line" } else { "lines" };
        match mem::take(&mut self.refused) {
            0 => {}
            count => said.push(format!(
                "the access log lost {count} {}: {} takes them slower than they come",
                lines(count),
                self.target
            )),
        }
        match mem::take(&mut self.unwritten) {
            0 => {}
            count => said.push(format!(
                "the access log lost {count} {}: {} cannot be written: {}",
                lines(count),
                self.target,
                self.error
            )),
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);

    #[test]
    fn losses_are_said_at_once_and_then_once_in_a_while() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut losses = Losses::new("log".to_owned());
        assert_eq!(losses.say_at(start, EVERY), [""; 0]);
        assert_eq!(losses.due(EVERY), None);
        losses.refused(1);
        assert_eq!(
            losses.say_at(start, EVERY),
            ["the access log lost 1 line: log takes them slower than they come"]
        );
        assert_eq!(losses.due(EVERY), None, "nothing is left to be said");
        losses.refused(2);
        losses.refused(3);
        assert_eq!(losses.say_at(after(59), EVERY), [""; 0]);
        assert_eq!(losses.due(EVERY), Some(after(60)));
        assert_eq!(
            losses.say_at(after(60), EVERY),
            ["the access log lost 5 lines: log takes them slower than they come"]
        );
        losses.unwritten(7, &io::ErrorKind::StorageFull.into());
        assert_eq!(
            losses.say_all(),
            ["the access log lost 7 lines: log cannot be written: no storage space"]
        );
        assert_eq!(losses.say_all(), [""; 0]);
    }
}
