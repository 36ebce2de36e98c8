//! The matrix as JSON, for programs: every round, and what is made of them.

use serde_json::{Map, Value, json};

use super::goals::Bound;
use super::statistics::Spread;
use super::verdicts::{Judged, Verdict, judge};
use super::{Entry, Figure, Matrix, Row};

/// Returns all of a matrix.
#[must_use]
pub fn whole(matrix: &Matrix) -> Value {
    let machine = &matrix.machine;
    let versions: Map<String, Value> = machine
        .versions
        .iter()
        .map(|(name, version)| (name.clone(), json!(version)))
        .collect();
    json!({
        "machine": {
            "processor": machine.processor,
            "cores": machine.cores,
            "kernel": machine.kernel,
            "date": machine.date,
            "versions": versions,
        },
        "course": matrix.course,
        "left_out": matrix.left_out,
        "goals": judge(matrix).iter().map(goal).collect::<Vec<_>>(),
        "scenarios": matrix.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn goal(judged: &Judged) -> Value {
    let goal = &judged.goal;
    let bound = match goal.bound {
        Bound::AtLeast(least) => json!({ "at_least": least }),
        Bound::AtMost(most) => json!({ "at_most": most }),
    };
    let mut told = json!({
        "title": goal.title,
        "scenario": goal.scenario,
        "figure": goal.figure.name(),
        "bound": bound,
        "verdict": judged.verdict.text(),
    });
    match &judged.verdict {
        Verdict::Met(figure) | Verdict::NotMet(figure) => told["value"] = spread(*figure),
        Verdict::NotMeasured(why) => told["why"] = json!(why),
    }
    if let Some(with) = &judged.compared_with {
        told["ratio_to"] = json!(with);
    }
    if let Some((peer, reached)) = &judged.best_peer {
        told["best_peer"] = json!({ "peer": peer, "value": reached });
    }
    told
}

fn row(row: &Row) -> Value {
    let figures = row.scenario.figures();
    let to_best_peer: Map<String, Value> = figures
        .iter()
        .filter_map(|figure| {
            let (peer, ratio) = row.to_best_peer(*figure)?;
            let mut told = spread(ratio);
            told["peer"] = json!(peer.name);
            Some((figure.name().to_owned(), told))
        })
        .collect();
    json!({
        "name": row.scenario.name,
        "title": row.scenario.title,
        "contenders": row.entries.iter().map(|entry| contender(row, entry, figures)).collect::<Vec<_>>(),
        "ours_to_best_peer": to_best_peer,
    })
}

fn contender(row: &Row, entry: &Entry, figures: &[Figure]) -> Value {
    let told: Map<String, Value> = figures
        .iter()
        .filter_map(|figure| {
            let mut told = spread(entry.spread(*figure)?);
            told["rounds"] = json!(entry.values(*figure));
            if let Some(reference) = row.reference(*figure)
                && let Some(ratio) = entry.ratio_to(reference, *figure)
            {
                told["ratio"] = spread(ratio);
                told["ratio"]["to"] = json!(reference.name);
            }
            Some((figure.name().to_owned(), told))
        })
        .collect();
    let (told, curve) = match entry.failed {
        Some(_) => (Map::new(), Vec::new()),
        None => (told, entry.curve()),
    };
    json!({
        "name": entry.name,
        "role": entry.role.name(),
        "failed": entry.failed,
        "figures": told,
        "curve_us": curve,
    })
}

fn spread(spread: Spread) -> Value {
    json!({ "median": spread.median, "least": spread.least, "most": spread.most })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::made_up;

    #[test]
    fn what_is_written_is_read_again() {
        let text = whole(&made_up::matrix()).to_string();
        let read: Value = serde_json::from_str(&text).expect("it is JSON");
        let row = &read["scenarios"][0];
        assert_eq!(row["name"], "echo-c64");
        let ours = &row["contenders"][0];
        assert_eq!(
            (&ours["name"], &ours["role"]),
            (&json!("quoit"), &json!("ours"))
        );
        assert_eq!(ours["figures"]["rate"]["median"], 96_000.0);
        assert_eq!(
            ours["figures"]["rate"]["rounds"],
            json!([95_000.0, 190_000.0, 96_000.0])
        );
        assert_eq!(ours["figures"]["rate"]["ratio"]["to"], "bare");
        assert_eq!(ours["figures"]["rate"]["ratio"]["median"], 0.95);
        assert_eq!(ours["curve_us"][1], json!([50.0, 100.0]));
        assert_eq!(row["ours_to_best_peer"]["rate"]["peer"], "fast");
        assert_eq!(read["left_out"][0], "wrk is not installed");
    }

    #[test]
    fn goals_are_told_with_what_decided() {
        let read = whole(&made_up::matrix());
        let goals = read["goals"].as_array().expect("a list");
        let of = |title: &str| goals.iter().find(|goal| goal["title"] == title);
        let rate = of("Echo 64 B, 64 connections: rate to the bare ring").expect("it is one");
        assert_eq!(rate["verdict"], "not met");
        assert_eq!(rate["value"]["median"], 0.95);
        assert_eq!(rate["bound"], json!({ "at_least": 0.97 }));
        assert_eq!(rate["ratio_to"], "bare");
        assert_eq!(rate["best_peer"]["peer"], "fast");
        let part = of("Yield, 1 task").expect("it is one");
        assert_eq!(part["verdict"], "not measured");
        assert_eq!(part["why"], "its scenario is not part of this run");
    }

    #[test]
    fn who_failed_has_a_reason_and_no_figures() {
        let read = whole(&made_up::matrix());
        let broken = &read["scenarios"][0]["contenders"][4];
        assert_eq!(broken["failed"], "it said <nothing> & more");
        assert_eq!(broken["figures"], json!({}));
        assert_eq!(broken["curve_us"], json!([]));
    }
}
