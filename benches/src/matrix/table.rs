//! The matrix as text for a terminal.

use std::fmt::Write;

use super::contenders::Role;
use super::statistics::Spread;
use super::verdicts::{Judged, Verdict, judge};
use super::{Entry, Figure, Matrix, Row};

/// Returns a scenario as a table: medians, and for the figures that decide the spread and the ratio to the reference.
#[must_use]
pub fn row(row: &Row) -> String {
    let mut text = format!("{} ({})\n", row.scenario.title, row.scenario.name);
    let figures = row.scenario.figures();
    let main = row.scenario.main_figures();
    let mut head = format!("  {:<16}", "");
    for figure in figures {
        let _ = write!(head, " {:>11}", figure.title());
    }
    for figure in main {
        if let Some(reference) = row.reference(*figure) {
            let title = format!("{} to {}", figure.title(), reference.name);
            let _ = write!(head, "  {title:>28}");
        }
    }
    text.push_str(head.trim_end());
    text.push('\n');
    for entry in &row.entries {
        text.push_str(&line(row, entry, figures, main));
    }
    for figure in main {
        if let Some((peer, ratio)) = row.to_best_peer(*figure) {
            let better = if figure.more_is_better() {
                "more"
            } else {
                "less"
            };
            let _ = writeln!(
                text,
                "  quoit to the best peer ({}), {}: {} ({better} is better)",
                peer.name,
                figure.title(),
                range(ratio)
            );
        }
    }
    text
}

fn line(row: &Row, entry: &Entry, figures: &[Figure], main: &[Figure]) -> String {
    let mut line = format!("  {:<16}", entry.name);
    if let Some(why) = &entry.failed {
        let _ = writeln!(line, " failed: {why}");
        return line;
    }
    for figure in figures {
        let median = entry
            .spread(*figure)
            .map_or_else(|| "-".to_owned(), |spread| number(spread.median));
        let _ = write!(line, " {median:>11}");
    }
    for figure in main {
        let Some(reference) = row.reference(*figure) else {
            continue;
        };
        let ratio = entry
            .ratio_to(reference, *figure)
            .map_or_else(|| "-".to_owned(), range);
        let _ = write!(line, "  {ratio:>28}");
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// Returns the end of what is told: the sum of it, where it ran, and what is not there.
#[must_use]
pub fn summary(matrix: &Matrix) -> String {
    let mut text = String::from("Summary: quoit, median of the rounds (least to most)\n");
    for row in &matrix.rows {
        for figure in row.scenario.main_figures() {
            let Some(ours) = row.ours() else { continue };
            let limit = row
                .reference(*figure)
                .filter(|entry| entry.role == Role::Limit);
            let to_limit = limit.and_then(|limit| ours.ratio_to(limit, *figure));
            let (to_limit, peer) = (
                to_limit.map_or_else(|| "-".to_owned(), range),
                row.to_best_peer(*figure),
            );
            let peer = peer.map_or_else(
                || "-".to_owned(),
                |(peer, ratio)| format!("{} ({})", range(ratio), peer.name),
            );
            let name = &row.scenario.name;
            let _ = writeln!(
                text,
                "  {name:<38} {:<9} to the limit {to_limit:<22} to the best peer {peer}",
                figure.title()
            );
        }
    }
    text.push_str(&goals(&judge(matrix)));
    let machine = &matrix.machine;
    let _ = writeln!(
        text,
        "{}, {} cores, Linux {}; {}",
        machine.processor, machine.cores, machine.kernel, machine.date
    );
    let versions: Vec<String> = machine
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let _ = writeln!(text, "{}", versions.join(", "));
    let _ = writeln!(text, "{}", matrix.course);
    for missing in &matrix.left_out {
        let _ = writeln!(text, "left out: {missing}");
    }
    text
}

/// Returns what came of the goals, one a line.
fn goals(judged: &[Judged]) -> String {
    let mut text = format!("Goals: {}\n", counts(judged));
    for judged in judged {
        let Judged {
            goal,
            verdict,
            compared_with: _,
            best_peer,
        } = judged;
        let bound = format!("{}{}", goal.bound.text(), goal.unit());
        let _ = match verdict {
            Verdict::Met(figure) | Verdict::NotMet(figure) => write!(
                text,
                "  {}: {} ({bound}): {}; rounds {} to {}",
                goal.title,
                goal.text(figure.median),
                verdict.text(),
                number(figure.least),
                number(figure.most)
            ),
            Verdict::NotMeasured(why) => {
                write!(
                    text,
                    "  {} ({bound}): {}: {why}",
                    goal.title,
                    verdict.text()
                )
            }
        };
        if let Some((peer, reached)) = best_peer {
            let _ = write!(text, "; {peer} {}", goal.text(*reached));
        }
        text.push('\n');
    }
    text
}

/// Returns how many goals are met, and how many are not.
#[must_use]
pub fn counts(judged: &[Judged]) -> String {
    let count = |of: fn(&Verdict) -> bool| {
        let these = judged.iter().filter(|judged| of(&judged.verdict));
        these.count()
    };
    format!(
        "{} met, {} not met, {} not measured",
        count(|verdict| matches!(verdict, Verdict::Met(_))),
        count(|verdict| matches!(verdict, Verdict::NotMet(_))),
        count(|verdict| matches!(verdict, Verdict::NotMeasured(_)))
    )
}

/// Returns a number with as many places as one reads.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size >= 1000.0 => format!("{value:.0}"),
        _ if size >= 100.0 => format!("{value:.1}"),
        _ if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Returns a ratio with its spread.
#[must_use]
pub fn range(spread: Spread) -> String {
    format!(
        "{} ({} to {})",
        number(spread.median),
        number(spread.least),
        number(spread.most)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::made_up;

    #[test]
    fn a_row_has_medians_ratios_and_who_failed() {
        let told = row(&made_up::matrix().rows[0]);
        let ours = told
            .lines()
            .find(|line| line.trim().starts_with("quoit "))
            .expect("our line");
        assert!(
            ours.contains("96000") && ours.contains("0.95 (0.95 to 0.96)"),
            "{told}"
        );
        assert!(told.contains("failed: it said <nothing> & more"), "{told}");
        assert!(
            told.contains("best peer (fast), rate /s: 2.00 (1.90 to 2.09)"),
            "{told}"
        );
    }

    #[test]
    fn the_summary_says_what_is_not_there() {
        let told = summary(&made_up::matrix());
        assert!(told.contains("left out: wrk is not installed"), "{told}");
        assert!(
            told.contains("a processor <of ours>, 2 cores, Linux 6.18"),
            "{told}"
        );
        assert!(told.contains("0.95 (0.95 to 0.96)"), "{told}");
    }

    #[test]
    fn every_goal_has_its_line() {
        let told = summary(&made_up::matrix());
        for line in [
            "Goals: 0 met, 2 not met, 49 not measured",
            "64 connections: rate to the bare ring: 0.95 (≥ 0.97): not met; rounds 0.95 to 0.96; fast 0.47",
            "Yield, 1 task (≤ 12 ns): not measured: its scenario is not part of this run",
        ] {
            assert!(told.contains(line), "{line:?} is missing: {told}");
        }
    }

    #[test]
    fn numbers_have_the_places_that_one_reads() {
        assert_eq!(
            [123_456.0, 123.45, 4.321, 0.0312, 0.0].map(number),
            ["123456", "123.5", "4.32", "0.0312", "0.00"]
        );
    }
}
