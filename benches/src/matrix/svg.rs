//! Drawings for the report: bars of ratios with their spread, and curves of latencies. Text and numbers only; colours
//! and fonts are the page's.

use std::fmt::Write;

use super::statistics::Spread;
use super::table::number;

/// One bar.
#[derive(Debug)]
pub struct Bar<'a> {
    /// Whose it is.
    pub name: &'a str,
    /// Which colour of the page it has.
    pub colour: usize,
    /// How long it is, and how far the rounds lie apart.
    pub ratio: Spread,
}

/// One curve.
#[derive(Debug)]
pub struct Curve<'a> {
    /// Whose it is.
    pub name: &'a str,
    /// Which colour of the page it has.
    pub colour: usize,
    /// Percentiles and microseconds, in rising order.
    pub points: &'a [(f64, f64)],
}

/// Draws bars, one beneath the other, with a line at one. What is longer than three ends there, with its number.
#[must_use]
pub fn bars(bars: &[Bar<'_>], label: &str) -> String {
    let longest = bars
        .iter()
        .map(|bar| bar.ratio.most)
        .fold(1.0, f64::max)
        .min(LONGEST)
        * 1.05;
    let x = |ratio: f64| NAMES + ratio.clamp(0.0, longest) / longest * (WIDTH - NAMES - NUMBERS);
    let height = bars.len() * STEP + STEP / 2;
    let mut svg = open(WIDTH, height as f64, label);
    for (index, bar) in bars.iter().enumerate() {
        let (top, middle) = (index * STEP + 4, index * STEP + STEP / 2);
        let Spread {
            median,
            least,
            most,
        } = bar.ratio;
        let (begin, end) = (x(0.0), x(median));
        let name = escape(bar.name);
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"{:.0}\" y=\"{}\">{name}</text>\
             <rect class=\"c{}\" x=\"{begin:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{}\"><title>{name}: {}</title></rect>\
             <path class=\"spread\" d=\"M{:.1} {middle}H{:.1}\"/>\
             <text class=\"number\" x=\"{:.1}\" y=\"{}\">{}{}</text>",
            NAMES - 8.0,
            middle + 4,
            bar.colour,
            end - begin,
            STEP - 8,
            super::table::range(bar.ratio),
            x(least),
            x(most),
            x(most).max(end) + 6.0,
            middle + 4,
            number(median),
            if median > LONGEST { " »" } else { "" },
        );
    }
    let one = x(1.0);
    let _ = write!(
        svg,
        "<path class=\"one\" d=\"M{one:.1} 0V{height}\"/></svg>"
    );
    svg
}

/// Draws curves: along the percentiles, which grow thinner to the right, up the microseconds, each step ten times the
/// last.
#[must_use]
pub fn curves(curves: &[Curve<'_>], label: &str) -> String {
    let values = || {
        curves
            .iter()
            .flat_map(|curve| curve.points)
            .map(|point| point.1)
            .filter(|value| *value > 0.0)
    };
    let lowest = values().fold(f64::INFINITY, f64::min);
    let highest = values().fold(0.0, f64::max);
    if highest == 0.0 {
        return String::new();
    }
    // Whole powers of ten.
    let (floor, ceiling) = (
        lowest.log10().floor(),
        highest.log10().ceil().max(lowest.log10().floor() + 1.0),
    );
    let y = |micros: f64| {
        let share = (micros.log10() - floor) / (ceiling - floor);
        HEIGHT - BELOW - share * (HEIGHT - BELOW - 8.0)
    };
    // As many nines as there are: 0, 90, 99, 99.9, 99.99, 99.999.
    let x = |percent: f64| {
        let nines = -(1.0 - percent.min(MOST) / 100.0).log10();
        LEFT + nines / NINES * (WIDTH - LEFT - RIGHT)
    };
    let mut svg = open(WIDTH, HEIGHT, label);
    for power in floor as i32..=ceiling as i32 {
        let (at, micros) = (y(10_f64.powi(power)), power);
        let told = match micros {
            ..0 => format!("{} ns", 10_f64.powi(micros + 3)),
            0..3 => format!("{} µs", 10_f64.powi(micros)),
            3..6 => format!("{} ms", 10_f64.powi(micros - 3)),
            _ => format!("{} s", 10_f64.powi(micros - 6)),
        };
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{WIDTH}\"/><text class=\"name\" x=\"{:.0}\" y=\"{:.1}\">{told}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for percent in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, MOST] {
        let at = x(percent);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} 8V{:.0}\"/><text class=\"percent\" x=\"{at:.1}\" y=\"{:.0}\">{percent}</text>",
            HEIGHT - BELOW,
            HEIGHT - 8.0
        );
    }
    for curve in curves {
        let mut path = String::new();
        // The most of all has no place among percentiles: one answer alone decides it.
        for (percent, micros) in curve
            .points
            .iter()
            .filter(|point| point.0 <= MOST && point.1 > 0.0)
        {
            let begin = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{begin}{:.1} {:.1}", x(*percent), y(*micros));
        }
        let _ = write!(
            svg,
            "<path class=\"curve s{}\" d=\"{path}\"><title>{}</title></path>",
            curve.colour,
            escape(curve.name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Returns a text with what HTML would take for its own written out.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

fn open(width: f64, height: f64, label: &str) -> String {
    let label = escape(label);
    format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">")
}

const WIDTH: f64 = 640.0;
/// Of the bars: room for names, for numbers, and how high each is.
const NAMES: f64 = 120.0;
const NUMBERS: f64 = 70.0;
const STEP: usize = 24;
/// The longest ratio that has its length.
const LONGEST: f64 = 3.0;
/// Of the curves: their height, and room for numbers.
const HEIGHT: f64 = 260.0;
const BELOW: f64 = 28.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 28.0;
/// The last percentile, and how many nines it has.
const MOST: f64 = 99.999;
const NINES: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, median: f64) -> Bar<'_> {
        let ratio = Spread {
            median,
            least: median * 0.9,
            most: median * 1.1,
        };
        Bar {
            name,
            colour: 0,
            ratio,
        }
    }

    /// Returns the width of each bar.
    fn widths(svg: &str) -> Vec<f64> {
        let widths = svg
            .split("width=\"")
            .skip(1)
            .filter_map(|text| text.split('"').next()?.parse().ok());
        widths.collect()
    }

    #[test]
    fn bars_are_as_long_as_their_ratios() {
        let told = widths(&bars(&[bar("a", 1.0), bar("b", 0.5)], "rate"));
        assert_eq!(told.len(), 2);
        assert!((told[0] / told[1] - 2.0).abs() < 0.01, "{told:?}");
    }

    #[test]
    fn a_bar_that_is_too_long_ends_within_the_drawing_with_its_number() {
        let svg = bars(&[bar("a", 1.0), bar("b", 400.0)], "time");
        assert!(svg.contains("400.0 »"), "{svg}");
        assert!(
            widths(&svg).iter().all(|width| *width <= WIDTH - NAMES),
            "{svg}"
        );
    }

    #[test]
    fn curves_rise_within_the_drawing() {
        let points = [(0.0, 20.0), (50.0, 40.0), (99.9, 900.0), (100.0, 50_000.0)];
        let svg = curves(
            &[Curve {
                name: "a",
                colour: 2,
                points: &points,
            }],
            "latency",
        );
        let path = svg
            .split("class=\"curve s2\" d=\"")
            .nth(1)
            .and_then(|text| text.split('"').next());
        let path = path.expect("it is drawn");
        let ups: Vec<f64> = path
            .split(['M', 'L'])
            .skip(1)
            .map(|point| {
                point
                    .split(' ')
                    .nth(1)
                    .expect("y")
                    .parse()
                    .expect("a number")
            })
            .collect();
        assert!(svg.contains(">10 µs<") && svg.contains(">1 ms<"), "{svg}");
        // The most of all is not drawn.
        assert_eq!(ups.len(), 3, "{path}");
        assert!(ups.windows(2).all(|pair| pair[0] > pair[1]), "{path}");
        assert!(ups.iter().all(|y| (0.0..HEIGHT).contains(y)), "{path}");
    }

    #[test]
    fn no_latencies_are_no_drawing() {
        assert_eq!(curves(&[], "latency"), "");
        assert_eq!(
            curves(
                &[Curve {
                    name: "a",
                    colour: 0,
                    points: &[]
                }],
                "latency"
            ),
            ""
        );
    }

    #[test]
    fn names_are_text() {
        let svg = bars(&[bar("<script>", 1.0)], "\"");
        assert!(
            svg.contains("&lt;script&gt;") && !svg.contains("<script>"),
            "{svg}"
        );
    }
}
