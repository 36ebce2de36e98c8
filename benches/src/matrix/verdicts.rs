//! Which goals are met, as far as the rounds tell.
//!
//! A goal is met if the median of the rounds meets it, or of the ratios of turns in the same round. One that has no
//! figure says why: no goal is left out.

use super::contenders::Role;
use super::goals::{GOALS, Goal, To};
use super::statistics::{Spread, paired};
use super::{Entry, Figure, Matrix, Row};

/// A goal, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// What was to be reached.
    pub goal: Goal,
    /// What was.
    pub verdict: Verdict,
    /// With whom quoit was compared, if it was.
    pub compared_with: Option<String>,
    /// The best peer, and the same of it.
    pub best_peer: Option<(String, f64)>,
}

/// Whether a goal is met.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is, with this figure.
    Met(Spread),
    /// It is not, with this figure.
    NotMet(Spread),
    /// Nobody knows, for this reason.
    NotMeasured(String),
}

impl Verdict {
    /// In words.
    #[must_use]
    pub fn text(&self) -> &'static str {
        match self {
            Self::Met(_) => "met",
            Self::NotMet(_) => "not met",
            Self::NotMeasured(_) => "not measured",
        }
    }

    /// Returns the figure that decided.
    #[must_use]
    pub fn figure(&self) -> Option<Spread> {
        match self {
            Self::Met(figure) | Self::NotMet(figure) => Some(*figure),
            Self::NotMeasured(_) => None,
        }
    }
}

/// Returns what came of each goal.
#[must_use]
pub fn judge(matrix: &Matrix) -> Vec<Judged> {
    GOALS.iter().map(|goal| judge_one(*goal, matrix)).collect()
}

fn judge_one(goal: Goal, matrix: &Matrix) -> Judged {
    let mut rows = matrix.rows.iter();
    let row = rows.find(|row| row.scenario.name == goal.scenario);
    let measured = match (row, matrix.not_possible.get(goal.scenario)) {
        (Some(row), _) => compare(&goal, row),
        (None, Some(why)) => Err(why.clone()),
        (None, None) => Err("its scenario is not part of this run".to_owned()),
    };
    let (verdict, compared_with) = match measured {
        Ok((figure, with)) if goal.bound.holds(figure.median) => (Verdict::Met(figure), with),
        Ok((figure, with)) => (Verdict::NotMet(figure), with),
        Err(why) => (Verdict::NotMeasured(why), None),
    };
    Judged {
        goal,
        verdict,
        compared_with,
        best_peer: row.and_then(|row| best_peer(&goal, row)),
    }
}

/// Returns the figure of a goal, and the name of whom it was compared with.
fn compare(goal: &Goal, row: &Row) -> Result<(Spread, Option<String>), String> {
    let form = match goal.whose {
        Role::WithOption => "quoit with an option",
        Role::Alike => "quoit as peers are",
        _ => "quoit",
    };
    let ours = figures_of(row, goal.figure, form, |entry| entry.role == goal.whose)?;
    let Some(other) = reference(goal, row)? else {
        let figure = ours.spread(goal.figure);
        let figure = figure.ok_or_else(|| format!("{} of quoit is no number", goal.figure.title()));
        return Ok((figure?, None));
    };
    let ratio = ratio(goal.figure, ours, other);
    let ratio = ratio.ok_or_else(|| format!("no ratio to {}: it has 0", other.name))?;
    Ok((ratio, Some(other.name.clone())))
}

/// Returns what a goal compares with, if it does; or why it cannot.
fn reference<'a>(goal: &Goal, row: &'a Row) -> Result<Option<&'a Entry>, String> {
    let one = |kind: &str, is_it: &dyn Fn(&Entry) -> bool| {
        figures_of(row, goal.figure, kind, is_it).map(Some)
    };
    match goal.to {
        To::Nothing => Ok(None),
        To::Itself => one("quoit", &is_ours),
        To::Limit => one("a limit", &|entry| entry.role == Role::Limit),
        To::Contender(name) => one(name, &|entry| entry.name == name),
        To::BestPeer => match row.best_peer(goal.figure) {
            None => Err("no peer was measured to the end".to_owned()),
            peer => Ok(peer),
        },
    }
}

/// Returns the first of its kind, if it was measured to the end and has the figure; otherwise why not.
fn figures_of<'a>(
    row: &'a Row,
    figure: Figure,
    kind: &str,
    is_it: impl Fn(&Entry) -> bool,
) -> Result<&'a Entry, String> {
    let entry = row.entries.iter().find(|entry| is_it(entry));
    let entry = entry.ok_or_else(|| format!("{kind} did not take part"))?;
    if let Some(why) = &entry.failed {
        return Err(format!("{} failed: {why}", entry.name));
    }
    if entry.values(figure).is_empty() {
        let why = match figure {
            Figure::User => ": turns under a second are too short for it",
            _ => "",
        };
        return Err(format!("{} has no {}{why}", entry.name, figure.title()));
    }
    Ok(entry)
}

fn is_ours(entry: &Entry) -> bool {
    entry.role == Role::Ours
}

fn ratio(figure: Figure, one: &Entry, other: &Entry) -> Option<Spread> {
    paired(&one.values(figure), &other.values(figure))
}

/// Returns what the best peer reaches of the same.
fn best_peer(goal: &Goal, row: &Row) -> Option<(String, f64)> {
    // Peers have no such option.
    if goal.to == To::Itself {
        return None;
    }
    let peer = row.best_peer(goal.figure)?;
    let reached = match reference(goal, row).ok()? {
        None => peer.spread(goal.figure)?,
        Some(other) => ratio(goal.figure, peer, other)?,
    };
    Some((peer.name.clone(), reached.median))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::goals::Bound;
    use crate::matrix::made_up;

    fn judged(figure: Figure, to: To, bound: Bound) -> Judged {
        let goal = Goal {
            title: "A goal",
            scenario: "echo-c64",
            figure,
            whose: Role::Ours,
            to,
            bound,
        };
        judge_one(goal, &made_up::matrix())
    }

    #[test]
    fn a_rate_has_to_be_as_high_as_its_bound() {
        let met = judged(Figure::Rate, To::Limit, Bound::AtLeast(0.95));
        let ratio = met.verdict.figure().expect("it was measured");
        assert_eq!((ratio.median, ratio.least, ratio.most), (0.95, 0.95, 0.96));
        assert_eq!(met.verdict, Verdict::Met(ratio));
        assert_eq!(met.compared_with.as_deref(), Some("bare"));
        let missed = judged(Figure::Rate, To::Limit, Bound::AtLeast(0.97));
        assert_eq!(missed.verdict, Verdict::NotMet(ratio));
    }

    #[test]
    fn what_is_spent_has_to_be_as_low_as_its_bound() {
        let met = judged(Figure::Cpu, To::Limit, Bound::AtMost(1.06));
        assert!(matches!(met.verdict, Verdict::Met(_)), "{met:?}");
        let missed = judged(Figure::Cpu, To::Limit, Bound::AtMost(1.04));
        assert!(matches!(missed.verdict, Verdict::NotMet(_)), "{missed:?}");
    }

    #[test]
    fn a_figure_by_itself_has_the_best_peers_beside_it() {
        let judged = judged(Figure::Rate, To::Nothing, Bound::AtLeast(90_000.0));
        let figure = judged.verdict.figure().expect("it was measured");
        assert_eq!(figure.median, 96_000.0);
        assert_eq!(judged.compared_with, None);
        assert_eq!(judged.best_peer, Some(("fast".to_owned(), 50_000.0)));
    }

    #[test]
    fn the_best_peer_is_compared_with_the_limit_as_quoit_is() {
        let judged = judged(Figure::Rate, To::Limit, Bound::AtLeast(0.97));
        let (name, ratio) = judged.best_peer.expect("there are peers");
        assert_eq!((name.as_str(), ratio), ("fast", 0.475));
    }

    #[test]
    fn a_peer_is_the_best_one_or_the_one_of_a_name() {
        let best = judged(Figure::Rate, To::BestPeer, Bound::AtLeast(2.0));
        assert_eq!(best.compared_with.as_deref(), Some("fast"));
        assert_eq!(best.best_peer, Some(("fast".to_owned(), 1.0)));
        assert!(matches!(best.verdict, Verdict::Met(_)), "{best:?}");
        let slow = judged(Figure::Rate, To::Contender("slow"), Bound::AtLeast(10.0));
        assert_eq!(slow.compared_with.as_deref(), Some("slow"));
        assert!(matches!(slow.verdict, Verdict::NotMet(_)), "{slow:?}");
    }

    #[test]
    fn an_option_is_compared_with_quoit_as_it_comes() {
        let mut matrix = made_up::matrix();
        let entries = &mut matrix.rows[0].entries;
        let mut option = entries[1].clone();
        option.role = Role::WithOption;
        entries.push(option);
        let goal = Goal {
            title: "A goal",
            scenario: "echo-c64",
            figure: Figure::Rate,
            whose: Role::WithOption,
            to: To::Itself,
            bound: Bound::AtLeast(1.0),
        };
        let judged = judge_one(goal, &matrix);
        let ratio = judged.verdict.figure().expect("it was measured");
        assert!((ratio.median - 1.0 / 0.95).abs() < 1e-9, "{judged:?}");
        assert_eq!(judged.compared_with.as_deref(), Some("quoit"));
    }

    #[test]
    fn what_was_not_measured_says_why() {
        let matrix = made_up::matrix();
        let why = |change: fn(&mut Goal)| {
            let mut goal = judged(Figure::Rate, To::Limit, Bound::AtLeast(0.97)).goal;
            change(&mut goal);
            match judge_one(goal, &matrix).verdict {
                Verdict::NotMeasured(why) => why,
                other => panic!("{other:?}"),
            }
        };
        for (told, change) in [
            (
                "its scenario is not part of this run",
                (|goal| goal.scenario = "echo-idle") as fn(&mut Goal),
            ),
            ("wrk is not installed", |goal| goal.scenario = "http1-c512"),
            ("broken failed: it said <nothing> & more", |goal| {
                goal.to = To::Contender("broken");
            }),
            ("absent did not take part", |goal| {
                goal.to = To::Contender("absent");
            }),
            ("quoit has no CPU ms/s", |goal| {
                goal.figure = Figure::IdleCpu
            }),
        ] {
            assert_eq!(why(change), told);
        }
    }

    #[test]
    fn every_goal_is_told() {
        let judged = judge(&made_up::matrix());
        assert_eq!(judged.len(), GOALS.len());
        let measured = judged
            .iter()
            .filter(|judged| judged.verdict.figure().is_some());
        assert_eq!(measured.count(), 2);
    }
}
