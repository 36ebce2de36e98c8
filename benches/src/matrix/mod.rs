//! The matrix: contenders × scenarios, in turn, over some rounds; and what is told of it.
//!
//! A machine's speed changes by a third from one minute to the next. So contenders take turns within a scenario
//! (A B C A B C …), each turn against a server that was started for it, and what counts is the ratio of turns in the
//! same round: its median, with the least and the most.
//!
//! In reading order: [`scenarios`] what is asked, [`contenders`] of whom, [`program`] starts and ends programs,
//! [`interrupt`] says that somebody has had enough, [`round`] takes one turn, [`load`] reads what programs that make
//! load say, [`statistics`] has medians and ratios, [`machine`] where it ran; [`goals`] what is to be reached,
//! [`verdicts`] what was; [`table`], [`json`] and [`html`] (with [`svg`]) tell it.
//!
//! Only [`program`], [`interrupt`], [`round`] and [`machine`] touch anything outside; all else is text and numbers.

pub mod contenders;
pub mod goals;
pub mod html;
pub mod interrupt;
pub mod json;
pub mod load;
pub mod machine;
pub mod program;
pub mod round;
pub mod scenarios;
pub mod statistics;
pub mod svg;
pub mod table;
pub mod verdicts;

use std::collections::BTreeMap;

use contenders::Role;
use machine::Machine;
use scenarios::Scenario;
use statistics::{Spread, around_the_mean, paired, spread};

/// What was measured.
#[derive(Debug)]
pub struct Matrix {
    /// Where.
    pub machine: Machine,
    /// How many rounds of how many seconds, in words.
    pub course: String,
    /// A row for each scenario.
    pub rows: Vec<Row>,
    /// What is not there, and why.
    pub left_out: Vec<String>,
    /// Scenarios, by their names, that cannot be asked here, and why.
    pub not_possible: BTreeMap<String, String>,
}

/// One scenario, with all who took part.
#[derive(Debug)]
pub struct Row {
    /// What was asked.
    pub scenario: Scenario,
    /// Of whom, in the order of their turns.
    pub entries: Vec<Entry>,
}

/// One contender in one scenario.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The contender.
    pub name: String,
    /// What it is compared as.
    pub role: Role,
    /// One for each round; fewer, if it failed.
    pub turns: Vec<Turn>,
    /// Why it failed, if it did. What was measured before does not count.
    pub failed: Option<String>,
}

/// What one turn gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    /// The figures.
    pub figures: BTreeMap<Figure, f64>,
    /// Latencies in microseconds by percentile, in rising order.
    pub curve: Vec<(f64, f64)>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Answers a second.
    Rate,
    /// The server's processor time for a request, in microseconds.
    Cpu,
    /// What of it was spent in user space; the kernel samples it.
    User,
    /// How often the server's threads went to sleep, for a request.
    Switches,
    /// The median latency, in microseconds.
    P50,
    /// The 99th percentile.
    P99,
    /// The 99.9th percentile.
    P999,
    /// The server's memory, in MiB.
    Resident,
    /// The server's memory for a connection that says nothing, in KiB.
    PerConnection,
    /// How often the server's threads went to sleep while nobody said anything.
    IdleSwitches,
    /// The server's processor time in a second in which nobody said anything, in milliseconds.
    IdleCpu,
    /// Nanoseconds for one of what a micro benchmark does.
    Nanos,
}

impl Figure {
    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Cpu => "cpu_us",
            Self::User => "user_us",
            Self::Switches => "switches",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::P999 => "p99.9_us",
            Self::Resident => "resident_mib",
            Self::PerConnection => "connection_kib",
            Self::IdleSwitches => "idle_switches",
            Self::IdleCpu => "idle_cpu_ms",
            Self::Nanos => "ns",
        }
    }

    /// The head of a column.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Rate => "rate /s",
            Self::Cpu => "CPU µs",
            Self::User => "user µs",
            Self::Switches => "sleeps",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
            Self::Resident => "RSS MiB",
            Self::PerConnection => "KiB/conn",
            Self::IdleSwitches => "sleeps",
            Self::IdleCpu => "CPU ms/s",
            Self::Nanos => "ns",
        }
    }

    /// Returns whether a turn has only a few samples of it: the mean of the rounds says more than their median then.
    fn is_sampled(self) -> bool {
        self == Self::User
    }

    /// Returns whether more is better.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        self == Self::Rate
    }
}

impl Row {
    /// Returns those who were measured to the end.
    pub fn measured(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.failed.is_none() && !entry.turns.is_empty())
    }

    /// Returns the one that the others are held against: the limit or, where there is none, the best peer.
    #[must_use]
    pub fn reference(&self, figure: Figure) -> Option<&Entry> {
        let mut measured = self.measured();
        let limit = measured.find(|entry| entry.role == Role::Limit && entry.has(figure));
        limit.or_else(|| self.best_peer(figure))
    }

    /// Returns the peer that is best by the median of a figure.
    #[must_use]
    pub fn best_peer(&self, figure: Figure) -> Option<&Entry> {
        let peers = self
            .measured()
            .filter(|entry| entry.role == Role::Peer && entry.has(figure));
        peers.min_by(|one, other| {
            let worth = |entry: &Entry| {
                let median = entry
                    .spread(figure)
                    .map_or(f64::INFINITY, |spread| spread.median);
                if figure.more_is_better() {
                    -median
                } else {
                    median
                }
            };
            worth(one).total_cmp(&worth(other))
        })
    }

    /// Returns quoit's own entry.
    #[must_use]
    pub fn ours(&self) -> Option<&Entry> {
        self.measured().find(|entry| entry.role == Role::Ours)
    }

    /// Returns quoit's ratio to the best peer, and who that is.
    #[must_use]
    pub fn to_best_peer(&self, figure: Figure) -> Option<(&Entry, Spread)> {
        let peer = self.best_peer(figure)?;
        Some((peer, self.ours()?.ratio_to(peer, figure)?))
    }
}

impl Entry {
    fn has(&self, figure: Figure) -> bool {
        self.turns
            .iter()
            .all(|turn| turn.figures.contains_key(&figure))
    }

    /// Returns a figure in all rounds, if each has it.
    #[must_use]
    pub fn values(&self, figure: Figure) -> Vec<f64> {
        let values = self
            .turns
            .iter()
            .map(|turn| turn.figures.get(&figure).copied());
        values.collect::<Option<_>>().unwrap_or_default()
    }

    /// Returns the median of the rounds, with the least and the most.
    #[must_use]
    pub fn spread(&self, figure: Figure) -> Option<Spread> {
        let values = self.values(figure);
        if figure.is_sampled() {
            around_the_mean(&values)
        } else {
            spread(&values)
        }
    }

    /// Returns the ratio to another, round by round.
    #[must_use]
    pub fn ratio_to(&self, other: &Self, figure: Figure) -> Option<Spread> {
        paired(&self.values(figure), &other.values(figure))
    }

    /// Returns the curve of latencies: at each percentile the median of the rounds.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let Some(first) = self.turns.first() else {
            return Vec::new();
        };
        let at = |index: usize| {
            let values: Vec<f64> = self
                .turns
                .iter()
                .filter_map(|turn| Some(turn.curve.get(index)?.1))
                .collect();
            spread(&values).map(|spread| spread.median)
        };
        let points = first.curve.iter().enumerate();
        points
            .filter_map(|(index, (percent, _))| Some((*percent, at(index)?)))
            .collect()
    }
}

#[cfg(test)]
pub(crate) mod made_up {
    //! A matrix that nobody measured.

    use super::contenders::Role;
    use super::scenarios::{Scale, all};
    use super::{Entry, Figure, Machine, Matrix, Row, Turn};

    fn entry(name: &str, role: Role, rates: &[f64]) -> Entry {
        let turn = |rate: &f64| Turn {
            figures: [
                (Figure::Rate, *rate),
                (Figure::Cpu, 1e6 / rate),
                (Figure::P99, 1e7 / rate),
            ]
            .into(),
            curve: vec![
                (0.0, 50.0),
                (50.0, 100.0),
                (99.0, 1e7 / rate),
                (100.0, 2e7 / rate),
            ],
        };
        let turns = rates.iter().map(turn).collect();
        Entry {
            name: name.to_owned(),
            role,
            turns,
            failed: None,
        }
    }

    /// Three rounds of echoes: quoit at 0.95 of the limit, twice as fast as the better of two peers, one that failed.
    pub(crate) fn matrix() -> Matrix {
        let scenario = all(Scale::Full)
            .into_iter()
            .find(|scenario| scenario.name == "echo-c64");
        let mut broken = entry("broken", Role::Peer, &[9e9]);
        broken.failed = Some("it said <nothing> & more".to_owned());
        let entries = vec![
            entry("quoit", Role::Ours, &[95_000.0, 190_000.0, 96_000.0]),
            entry("bare", Role::Limit, &[100_000.0, 200_000.0, 100_000.0]),
            entry("slow", Role::Peer, &[10_000.0, 11_000.0, 12_000.0]),
            entry("fast", Role::Peer, &[50_000.0, 95_000.0, 46_000.0]),
            broken,
        ];
        Matrix {
            machine: Machine {
                processor: "a processor <of ours>".to_owned(),
                cores: 2,
                kernel: "6.18".to_owned(),
                date: "Thu, 01 Jan 1970 00:00:00 GMT".to_owned(),
                versions: vec![("quoit".to_owned(), "0.1.0".to_owned())],
            },
            course: "3 rounds".to_owned(),
            rows: vec![Row {
                scenario: scenario.expect("it is one of them"),
                entries,
            }],
            left_out: vec!["wrk is not installed".to_owned()],
            not_possible: [("http1-c512".to_owned(), "wrk is not installed".to_owned())].into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, made_up};

    #[test]
    fn ratios_are_those_of_turns_in_one_round() {
        let matrix = made_up::matrix();
        let row = &matrix.rows[0];
        let limit = row.reference(Figure::Rate).expect("there is one");
        assert_eq!(limit.name, "bare");
        let ratio = row
            .ours()
            .and_then(|ours| ours.ratio_to(limit, Figure::Rate))
            .expect("both ran");
        // The middle round was twice as fast for both: it widens nothing.
        assert_eq!((ratio.median, ratio.least, ratio.most), (0.95, 0.95, 0.96));
    }

    #[test]
    fn the_best_peer_is_the_fastest_or_the_cheapest_and_never_one_that_failed() {
        let matrix = made_up::matrix();
        for figure in [Figure::Rate, Figure::Cpu] {
            let (peer, _) = matrix.rows[0]
                .to_best_peer(figure)
                .expect("there are peers");
            assert_eq!(peer.name, "fast", "{figure:?}");
        }
    }

    #[test]
    fn without_a_limit_the_best_peer_is_the_reference() {
        let mut matrix = made_up::matrix();
        matrix.rows[0].entries.remove(1);
        let reference = matrix.rows[0]
            .reference(Figure::Rate)
            .expect("there are peers");
        assert_eq!(reference.name, "fast");
    }

    #[test]
    fn a_figure_that_a_round_lacks_is_no_figure() {
        let mut matrix = made_up::matrix();
        let ours = &mut matrix.rows[0].entries[0];
        ours.turns[1].figures.remove(&Figure::Cpu);
        assert!(ours.spread(Figure::Cpu).is_none());
        assert!(ours.spread(Figure::Rate).is_some());
    }
}
