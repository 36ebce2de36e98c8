//! The matrix as one page, which needs nothing but itself: no script, no font, no request.

use std::fmt::Write;

use super::contenders::Role;
use super::statistics::Spread;
use super::svg::{Bar, Curve, bars, curves, escape};
use super::table::{counts, number, range};
use super::verdicts::{Judged, Verdict, judge};
use super::{Entry, Figure, Matrix, Row};

/// Returns the page.
#[must_use]
pub fn page(matrix: &Matrix) -> String {
    let mut page = head();
    let names = names(matrix);
    let machine = &matrix.machine;
    let _ = write!(
        page,
        "<h1>quoit beside others</h1><p class=\"about\">{}, {} cores, Linux {}. {}.<br>{}.</p>",
        escape(&machine.processor),
        machine.cores,
        escape(&machine.kernel),
        escape(&machine.date),
        escape(&matrix.course)
    );
    page.push_str("<p class=\"about\">");
    let versions: Vec<String> = machine
        .versions
        .iter()
        .map(|(name, version)| format!("{} <b>{}</b>", escape(name), escape(version)))
        .collect();
    page.push_str(&versions.join(", "));
    page.push_str("</p>");
    page.push_str(READING);
    goals(&mut page, &judge(matrix));
    overview(&mut page, matrix);
    page.push_str("<p class=\"legend\">");
    for (colour, name) in names.iter().enumerate() {
        let _ = write!(
            page,
            "<span><i class=\"b{colour}\"></i>{}</span>",
            escape(name)
        );
    }
    page.push_str("</p>");
    let is_part = |row: &Row| row.scenario.main_figures() == [Figure::Nanos];
    for row in matrix.rows.iter().filter(|row| !is_part(row)) {
        scenario(&mut page, row, &names);
    }
    if matrix.rows.iter().any(is_part) {
        page.push_str("<h2 id=\"parts\">Parts of the runtimes</h2><div class=\"parts\">");
        for row in matrix.rows.iter().filter(|row| is_part(row)) {
            scenario(&mut page, row, &names);
        }
        page.push_str("</div>");
    }
    if !matrix.left_out.is_empty() {
        page.push_str("<h2 id=\"left-out\">Left out</h2><ul>");
        for missing in &matrix.left_out {
            let _ = write!(page, "<li>{}</li>", escape(missing));
        }
        page.push_str("</ul>");
    }
    page.push_str("</main></body></html>\n");
    page
}

/// Returns what stands above the page, with the colours.
fn head() -> String {
    let (mut light, mut dark, mut classes) = (String::new(), String::new(), String::new());
    for (number, (on_white, on_black)) in COLOURS.iter().enumerate() {
        let _ = write!(light, "--{number}: {on_white}; ");
        let _ = write!(dark, "--{number}: {on_black}; ");
        for (class, property) in [("c", "fill"), ("s", "stroke"), ("b", "background")] {
            let _ = write!(
                classes,
                ".{class}{number} {{ {property}: var(--{number}); }} "
            );
        }
        classes.push('\n');
    }
    HEAD.replace("@light", light.trim_end())
        .replace("@dark", dark.trim_end())
        .replace("@classes\n", &classes)
}

/// Returns the names of all contenders, each once: its place is its colour.
fn names(matrix: &Matrix) -> Vec<&str> {
    let mut names = Vec::new();
    for entry in matrix.rows.iter().flat_map(|row| &row.entries) {
        if !names.contains(&entry.name.as_str()) {
            names.push(&entry.name);
        }
    }
    names
}

/// The first table: what was to be reached, and what was.
fn goals(page: &mut String, judged: &[Judged]) {
    let _ = write!(
        page,
        "<h2 id=\"goals\">Goals</h2><p>{}.</p><div class=\"wide\"><table><thead><tr><th>goal</th><th>bound</th>\
         <th></th><th>quoit</th><th>the best peer</th></tr></thead><tbody>",
        counts(judged)
    );
    for judged in judged {
        let goal = &judged.goal;
        let _ = write!(
            page,
            "<tr><td class=\"long\">{}</td><td>{}{}</td>",
            escape(goal.title),
            goal.bound.text(),
            goal.unit()
        );
        let told = judged.verdict.text();
        let measured = |class: &str, figure: Spread| {
            let (median, unit) = (goal.number(figure.median), goal.unit());
            let rounds = [figure.least, figure.most].map(number).join(" to ");
            let peer = judged.best_peer.as_ref().map_or_else(
                || "–".to_owned(),
                |(peer, reached)| format!("{} {}", escape(peer), goal.text(*reached)),
            );
            format!(
                "<td class=\"{class}\">{told}</td><td>{median} ({rounds}){unit}</td><td>{peer}</td></tr>"
            )
        };
        page.push_str(&match &judged.verdict {
            Verdict::Met(figure) => measured("better", *figure),
            Verdict::NotMet(figure) => measured("worse", *figure),
            Verdict::NotMeasured(why) => {
                let why = escape(why);
                format!("<td>{told}</td><td class=\"long\" colspan=\"2\">{why}</td></tr>")
            }
        });
    }
    page.push_str("</tbody></table></div>");
}

/// The second table: quoit, in each scenario.
fn overview(page: &mut String, matrix: &Matrix) {
    page.push_str(
        "<h2>Summary</h2><div class=\"wide\"><table><thead><tr><th>scenario</th><th>figure</th><th>quoit</th>\
         <th>to the limit</th><th>to the best peer</th><th>which is</th></tr></thead><tbody>",
    );
    for row in &matrix.rows {
        for figure in row.scenario.main_figures() {
            let Some(ours) = row.ours() else { continue };
            let Some(median) = ours.spread(*figure) else {
                continue;
            };
            let limit = row
                .reference(*figure)
                .filter(|entry| entry.role == Role::Limit);
            let to_limit = limit.and_then(|limit| ours.ratio_to(limit, *figure));
            let peer = row.to_best_peer(*figure);
            let ratio = |ratio: Option<_>| {
                ratio.map_or_else(|| "<td>–</td>".to_owned(), |ratio| cell(*figure, ratio))
            };
            let _ = write!(
                page,
                "<tr><td><a href=\"#{}\">{}</a></td><td>{}</td><td>{}</td>{}{}<td>{}</td></tr>",
                escape(&row.scenario.name),
                escape(&row.scenario.title),
                figure.title(),
                number(median.median),
                ratio(to_limit),
                ratio(peer.as_ref().map(|(_, ratio)| *ratio)),
                peer.as_ref()
                    .map_or_else(|| "–".to_owned(), |(peer, _)| escape(&peer.name)),
            );
        }
    }
    page.push_str("</tbody></table></div>");
}

/// A ratio. It is marked only if all rounds agree about who is better.
fn cell(figure: Figure, ratio: Spread) -> String {
    let (less, more) = (ratio.most < 1.0, ratio.least > 1.0);
    let (better, worse) = if figure.more_is_better() {
        (more, less)
    } else {
        (less, more)
    };
    let class = match (better, worse) {
        (true, _) => " class=\"better\"",
        (_, true) => " class=\"worse\"",
        _ => "",
    };
    format!("<td{class}>{}</td>", range(ratio))
}

fn scenario(page: &mut String, row: &Row, names: &[&str]) {
    let title = escape(&row.scenario.title);
    let _ = write!(
        page,
        "<section id=\"{}\"><h3>{title}</h3>",
        escape(&row.scenario.name)
    );
    let colour = |entry: &Entry| {
        names
            .iter()
            .position(|name| *name == entry.name)
            .unwrap_or(0)
    };
    for figure in row.scenario.main_figures() {
        let Some(reference) = row.reference(*figure) else {
            continue;
        };
        let drawn: Vec<Bar<'_>> = row
            .measured()
            .filter_map(|entry| {
                let ratio = entry.ratio_to(reference, *figure)?;
                Some(Bar {
                    name: &entry.name,
                    colour: colour(entry),
                    ratio,
                })
            })
            .collect();
        let better = if figure.more_is_better() {
            "more"
        } else {
            "less"
        };
        let caption = format!(
            "{}, ratio to {}; {better} is better",
            figure.title(),
            escape(&reference.name)
        );
        let _ = write!(
            page,
            "<figure><figcaption>{caption}</figcaption>{}</figure>",
            bars(&drawn, &caption)
        );
    }
    let points: Vec<_> = row.measured().map(|entry| (entry, entry.curve())).collect();
    let drawn: Vec<Curve<'_>> = points
        .iter()
        .map(|(entry, points)| Curve {
            name: &entry.name,
            colour: colour(entry),
            points,
        })
        .collect();
    let latencies = curves(&drawn, "Latencies by percentile");
    if !latencies.is_empty() {
        let _ = write!(
            page,
            "<figure><figcaption>Latency by percentile; lower is better</figcaption>{latencies}</figure>"
        );
    }
    table(page, row);
    page.push_str("</section>");
}

fn table(page: &mut String, row: &Row) {
    let figures = row.scenario.figures();
    page.push_str("<div class=\"wide\"><table><thead><tr><th></th>");
    for figure in figures {
        let _ = write!(page, "<th>{}</th>", figure.title());
    }
    page.push_str("</tr></thead><tbody>");
    for entry in &row.entries {
        let _ = write!(page, "<tr><td>{}</td>", escape(&entry.name));
        if let Some(why) = &entry.failed {
            let _ = write!(
                page,
                "<td class=\"worse\" colspan=\"{}\">failed: {}</td></tr>",
                figures.len(),
                escape(why)
            );
            continue;
        }
        for figure in figures {
            let told = entry.spread(*figure).map_or_else(
                || "<td>–</td>".to_owned(),
                |spread| {
                    format!(
                        "<td title=\"{}\">{}</td>",
                        range(spread),
                        number(spread.median)
                    )
                },
            );
            page.push_str(&told);
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></div>");
}

/// A colour for each contender that there may be, on white and on black.
pub(super) const COLOURS: [(&str, &str); 13] = [
    ("#d9480f", "#ff7a3d"),
    ("#495057", "#ced4da"),
    ("#adb5bd", "#6c757d"),
    ("#1c7ed6", "#4dabf7"),
    ("#74b3e8", "#2f6f9f"),
    ("#2b8a3e", "#69db7c"),
    ("#9c36b5", "#da77f2"),
    ("#c79100", "#ffd43b"),
    ("#0b7285", "#3bc9db"),
    ("#e64980", "#faa2c1"),
    ("#5c940d", "#c0eb75"),
    ("#5f3dc4", "#9775fa"),
    ("#8d5524", "#e8b98a"),
];

const READING: &str = "<p>Contenders took turns, each turn against a server that was started for it. A ratio is that of \
turns in one round; what is shown is the median of the rounds, with the least and the most. The <i>limit</i> is a \
program on a bare ring, written by hand for this alone. A goal is met if the median meets it, and what the best peer \
reaches of the same stands beside it. A ratio is coloured only if all rounds agree. <i>CPU</i> is \
the server's processor time for a request, and <i>user</i> what of it was in user space, sampled at the ticks of the \
kernel's clock: the mean of the rounds; <i>sleeps</i> is how often its threads gave up the processor to wait, for a \
request (of idle connections: in all the time); <i>RSS</i> is its memory when the load has ended (of idle connections: \
while they are held). Latencies of HTTP are those of wrk, which adds to them what it would have asked while it waited; \
of pipelined HTTP/1.1 and of HTTP/2 there are none. A write to <code>/dev/null</code> and a cached read, one at once, go \
past the ring in quoit, and through it on the bare ring.</p>";

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>quoit beside others</title>
<style>
:root { color-scheme: light dark; --back: #fff; --text: #1b1f24; --faint: #656d76; --line: #d6dbe0;
  --better: #116329; --worse: #a40e26; @light }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --text: #e3e6ea; --faint: #98a1ab; --line: #363c43;
  --better: #56d364; --worse: #ff7b72; @dark } }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; } h3 { margin: 2rem 0 .5rem; }
.about, figcaption { color: var(--faint); font-size: .9rem; }
a { color: inherit; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
td.long { white-space: normal; }
.better { color: var(--better); } .worse { color: var(--worse); }
.legend { position: sticky; top: 0; background: var(--back); padding: .5rem 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; border-radius: 2px; }
figure { margin: .75rem 0; } svg { width: 100%; max-width: 44rem; height: auto; }
svg text { fill: var(--text); font-size: 12px; } svg .name { text-anchor: end; } svg .percent { text-anchor: middle; }
svg .spread { stroke: var(--text); stroke-width: 2; } svg .one { stroke: var(--faint); stroke-dasharray: 3 3; }
svg .grid { stroke: var(--line); } svg .curve { fill: none; stroke-width: 2; }
@classes
</style></head><body><main>
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::made_up;

    #[test]
    fn the_page_has_the_machine_the_ratios_and_what_is_left_out() {
        let page = page(&made_up::matrix());
        for told in [
            "a processor &lt;of ours&gt;, 2 cores, Linux 6.18",
            "quoit <b>0.1.0</b>",
            "<td class=\"worse\">0.95 (0.95 to 0.96)</td>",
            "<td class=\"better\">2.00 (1.90 to 2.09)</td>",
            "rate /s, ratio to bare; more is better",
            "Latency by percentile",
            "failed: it said &lt;nothing&gt; &amp; more",
            "<li>wrk is not installed</li>",
            "<td>≥ 0.97</td><td class=\"worse\">not met</td><td>0.95 (0.95 to 0.96)</td><td>fast 0.47</td>",
            "<td>not measured</td><td class=\"long\" colspan=\"2\">its scenario is not part of this run</td>",
        ] {
            assert!(page.contains(told), "{told:?} is missing: {page}");
        }
    }

    #[test]
    fn each_contender_has_a_colour_of_its_own() {
        let mut matrix = made_up::matrix();
        let entry = matrix.rows[0].entries[0].clone();
        matrix.rows[0].entries = (0..COLOURS.len())
            .map(|number| Entry {
                name: format!("contender {number}"),
                ..entry.clone()
            })
            .collect();
        let page = page(&matrix);
        for number in 0..COLOURS.len() {
            for told in [
                format!("<i class=\"b{number}\"></i>contender {number}<"),
                format!(".b{number} {{ background: var(--{number}); }}"),
                format!(".s{number} {{ stroke: var(--{number}); }}"),
                format!("class=\"curve s{number}\""),
            ] {
                assert!(page.contains(&told), "{told}");
            }
            assert_eq!(
                page.matches(&format!(" --{number}: #")).count(),
                2,
                "{number}"
            );
        }
        let mut colours: Vec<_> = COLOURS
            .iter()
            .flat_map(|(light, dark)| [light, dark])
            .collect();
        colours.sort_unstable();
        colours.dedup();
        assert_eq!(colours.len(), 2 * COLOURS.len());
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let page = page(&made_up::matrix());
        for foreign in [
            "http://", "https://", "src=", "@import", "url(", "<script", "<link",
        ] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn what_is_opened_is_closed() {
        let page = page(&made_up::matrix());
        for tag in [
            "main", "section", "figure", "svg", "table", "tr", "td", "div", "p", "ul", "li", "h2",
            "h3", "text", "path",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            let empty = if tag == "path" {
                page.matches("/>").count() - page.matches("<rect").count()
                    + page.matches("</rect>").count()
            } else {
                0
            };
            assert_eq!(
                opened,
                page.matches(&format!("</{tag}>")).count() + empty,
                "{tag}"
            );
        }
    }

    #[test]
    fn a_ratio_that_rounds_disagree_about_has_no_colour() {
        let spread = Spread {
            median: 1.2,
            least: 0.9,
            most: 1.3,
        };
        assert_eq!(cell(Figure::Rate, spread), "<td>1.20 (0.90 to 1.30)</td>");
        let spread = Spread {
            median: 1.2,
            least: 1.1,
            most: 1.3,
        };
        assert!(cell(Figure::Cpu, spread).contains("worse"));
        assert!(cell(Figure::Rate, spread).contains("better"));
    }
}
