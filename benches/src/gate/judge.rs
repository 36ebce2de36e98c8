//! Compares what was counted with what is expected. Pure.

use std::collections::BTreeSet;
use std::fmt;

use super::table::{Counter, Table, short};

/// What is not as expected.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A figure is another, by more than its margin.
    Changed {
        /// Of which scenario.
        scenario: String,
        /// Which figure.
        counter: Counter,
        /// What was counted.
        is: f64,
        /// What was expected.
        was: f64,
        /// How much of that it may differ.
        margin: f64,
    },
    /// Something was counted that nobody expects.
    New(String, Counter),
    /// Something is expected that was not counted.
    Gone(String, Counter),
}

/// Returns all that is not as expected. What was left out is not missed.
#[must_use]
pub fn judge(
    counted: &Table,
    expected: &Table,
    left_out: &BTreeSet<(String, Counter)>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (scenario, figures) in &counted.rows {
        for (&counter, figure) in figures {
            if left_out.contains(&(scenario.clone(), counter)) {
                continue;
            }
            let Some(was) = expected.get(scenario, counter) else {
                findings.push(Finding::New(scenario.clone(), counter));
                continue;
            };
            let margin = expected.margin(counter, was);
            let allowed = (was.value.abs() * margin).max(counter.least());
            if (figure.value - was.value).abs() > allowed {
                findings.push(Finding::Changed {
                    scenario: scenario.clone(),
                    counter,
                    is: figure.value,
                    was: was.value,
                    margin,
                });
            }
        }
    }
    for (scenario, figures) in &expected.rows {
        for &counter in figures.keys() {
            let is_left_out = left_out.contains(&(scenario.clone(), counter));
            if !is_left_out && counted.get(scenario, counter).is_none() {
                findings.push(Finding::Gone(scenario.clone(), counter));
            }
        }
    }
    findings
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed {
                scenario,
                counter,
                is,
                was,
                margin,
            } => {
                let how = if is > was { "worse" } else { "better" };
                let change = if *was == 0.0 {
                    String::new()
                } else {
                    format!("{:+.1} %, ", (is - was) / was * 100.0)
                };
                write!(
                    f,
                    "{scenario}: {} {}, was {} ({how}: {change}margin {} %)",
                    short(*is),
                    counter.name(),
                    short(*was),
                    short(margin * 100.0)
                )
            }
            Self::New(scenario, counter) => {
                write!(
                    f,
                    "{scenario}: {} are new, nothing is expected",
                    counter.name()
                )
            }
            Self::Gone(scenario, counter) => {
                write!(
                    f,
                    "{scenario}: {} are expected and were not counted",
                    counter.name()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::table::Conditions;

    fn table(figures: &[(&str, Counter, f64)]) -> Table {
        let mut table = Table::new(Conditions::default());
        for (scenario, counter, value) in figures {
            table.put(scenario, *counter, *value);
        }
        table
    }

    fn told(counted: &Table, expected: &Table, left_out: &[(&str, Counter)]) -> Vec<String> {
        let left_out = left_out
            .iter()
            .map(|(name, counter)| ((*name).to_owned(), *counter))
            .collect();
        let findings = judge(counted, expected, &left_out);
        findings.iter().map(Finding::to_string).collect()
    }

    use Counter::{Allocations, Instructions};

    #[test]
    fn what_became_worse_or_better_is_told_with_its_amount() {
        let expected = table(&[("spawn", Instructions, 1685.0), ("spawn", Allocations, 1.0)]);
        let worse = table(&[("spawn", Instructions, 1912.0), ("spawn", Allocations, 1.0)]);
        assert_eq!(
            told(&worse, &expected, &[]),
            ["spawn: 1912 instructions, was 1685 (worse: +13.5 %, margin 3 %)"]
        );
        let better = table(&[("spawn", Instructions, 1685.0), ("spawn", Allocations, 0.5)]);
        assert_eq!(
            told(&better, &expected, &[]),
            ["spawn: 0.5 allocations, was 1 (better: -50.0 %, margin 1 %)"]
        );
    }

    #[test]
    fn what_lies_within_its_margin_is_as_expected() {
        let expected = table(&[
            ("spawn", Instructions, 1000.0),
            ("check", Instructions, 3.0),
        ]);
        // A thirtieth more; and less than one instruction, whatever share that is.
        let counted = table(&[
            ("spawn", Instructions, 1029.0),
            ("check", Instructions, 3.9),
        ]);
        assert_eq!(told(&counted, &expected, &[]), [""; 0]);
        let counted = table(&[
            ("spawn", Instructions, 1031.0),
            ("check", Instructions, 4.1),
        ]);
        assert_eq!(told(&counted, &expected, &[]).len(), 2);
    }

    #[test]
    fn what_was_nothing_has_no_share_to_grow_by() {
        let expected = table(&[("check", Allocations, 0.0)]);
        let counted = table(&[("check", Allocations, 1.0)]);
        assert_eq!(
            told(&counted, &expected, &[]),
            ["check: 1 allocations, was 0 (worse: margin 1 %)"]
        );
    }

    #[test]
    fn what_is_new_and_what_is_missing_are_told() {
        let expected = table(&[("spawn", Instructions, 1685.0)]);
        let counted = table(&[("yield", Instructions, 660.0)]);
        assert_eq!(
            told(&counted, &expected, &[]),
            [
                "yield: instructions are new, nothing is expected",
                "spawn: instructions are expected and were not counted",
            ]
        );
    }

    #[test]
    fn what_was_left_out_is_not_missed() {
        let expected = table(&[("spawn", Instructions, 1685.0), ("spawn", Allocations, 1.0)]);
        let counted = table(&[("spawn", Instructions, 9999.0)]);
        let left_out = [("spawn", Instructions), ("spawn", Allocations)];
        assert_eq!(told(&counted, &expected, &left_out), [""; 0]);
        assert_eq!(told(&counted, &expected, &left_out[..1]).len(), 1);
    }
}
