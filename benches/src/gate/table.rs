//! Figures as a table that people read, and the file it lies in.
//!
//! ```text
//! compiler: rustc 1.95.0
//!
//! scenario        instructions  allocations
//! margin                    3%           1%
//! spawn_join_1k         1650.4            1
//! cancel_recv         7420±10%            -
//! ```
//!
//! A figure may have a margin of its own behind it. `-` is for what is not counted there.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// In user space.
    Instructions,
    /// Times that memory was asked for.
    Allocations,
    /// But for clocks.
    SystemCalls,
    /// Readings of the clock.
    ClockReads,
    /// Turns of the core's loop.
    Turns,
    /// Polls of tasks.
    Polls,
    /// Tasks started.
    Spawned,
    /// Entries into the kernel.
    Enters,
    /// Requests to the kernel.
    Submitted,
    /// Completions taken.
    Completions,
    /// Resident memory.
    Bytes,
}

impl Counter {
    /// All, in the order of the columns.
    pub const ALL: [Self; 11] = [
        Self::Instructions,
        Self::Allocations,
        Self::SystemCalls,
        Self::ClockReads,
        Self::Turns,
        Self::Polls,
        Self::Spawned,
        Self::Enters,
        Self::Submitted,
        Self::Completions,
        Self::Bytes,
    ];

    /// What it is called, as a column and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Allocations => "allocations",
            Self::SystemCalls => "system_calls",
            Self::ClockReads => "clock_reads",
            Self::Turns => "turns",
            Self::Polls => "polls",
            Self::Spawned => "spawned",
            Self::Enters => "enters",
            Self::Submitted => "submitted",
            Self::Completions => "completions",
            Self::Bytes => "bytes",
        }
    }

    /// Differences below this are none, however small the figure is.
    #[must_use]
    pub fn least(self) -> f64 {
        match self {
            Self::Instructions => 1.0,
            Self::Allocations | Self::SystemCalls | Self::ClockReads => 0.02,
            Self::Bytes => 16.0,
            // Counted to the digit.
            _ => 0.001,
        }
    }

    /// By how much of itself a figure may differ, where a file says nothing else.
    fn usual_margin(self) -> f64 {
        match self {
            Self::Instructions => 0.03,
            Self::Allocations | Self::SystemCalls => 0.01,
            // How many there are is a matter of time: a turn that takes long looks more often.
            Self::ClockReads => 0.10,
            Self::Bytes => 0.05,
            _ => 0.01,
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counter| counter.name() == name)
    }
}

/// A figure, and by how much of itself it may differ if not as its column says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// What was counted for each piece.
    pub value: f64,
    /// Of the value: 0.1 is a tenth.
    pub margin: Option<f64>,
}

/// Under what figures were taken that compilers and libraries decide about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The compiler.
    pub compiler: String,
    /// The C library.
    pub library: String,
    /// How the compiler was told to build.
    pub build: String,
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}, build {}",
            self.compiler, self.library, self.build
        )
    }
}

/// What was counted, by scenario and counter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Under what.
    pub conditions: Conditions,
    margins: BTreeMap<Counter, f64>,
    /// The scenarios, in order, each with its figures.
    pub rows: Vec<(String, BTreeMap<Counter, Figure>)>,
}

impl Table {
    /// Makes one without rows.
    #[must_use]
    pub fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            ..Self::default()
        }
    }

    /// Adds a figure; its scenario, too, if that is new.
    pub fn put(&mut self, scenario: &str, counter: Counter, value: f64) {
        let figure = Figure {
            value,
            margin: None,
        };
        let row = self.rows.iter_mut().find(|(name, _)| name == scenario);
        match row {
            Some((_, figures)) => drop(figures.insert(counter, figure)),
            None => {
                let figures = BTreeMap::from([(counter, figure)]);
                self.rows.push((scenario.to_owned(), figures));
            }
        }
    }

    /// Returns a figure.
    #[must_use]
    pub fn get(&self, scenario: &str, counter: Counter) -> Option<Figure> {
        let (_, figures) = self.rows.iter().find(|(name, _)| name == scenario)?;
        figures.get(&counter).copied()
    }

    /// Returns by how much a figure may differ from what this table says.
    #[must_use]
    pub fn margin(&self, counter: Counter, figure: Figure) -> f64 {
        let of_column = self.margins.get(&counter).copied();
        figure
            .margin
            .or(of_column)
            .unwrap_or_else(|| counter.usual_margin())
    }

    /// Takes the margins over from a table that is to be replaced.
    pub fn keep_margins(&mut self, old: &Self) {
        self.margins.clone_from(&old.margins);
        for (scenario, figures) in &mut self.rows {
            for (counter, figure) in figures {
                figure.margin = old.get(scenario, *counter).and_then(|old| old.margin);
            }
        }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// `InvalidData`, with the line and what is wrong with it.
    pub fn parse(text: &str) -> io::Result<Self> {
        let mut table = Self::default();
        let mut columns: Option<Vec<Counter>> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = |what: String| {
                io::Error::new(io::ErrorKind::InvalidData, format!("line {number}: {what}"))
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some(columns) = &columns else {
                columns = table.head(line).map_err(wrong)?;
                continue;
            };
            let mut words = line.split_whitespace();
            let scenario = words.next().unwrap_or_default();
            let cells: Vec<_> = words.collect();
            if cells.len() != columns.len() {
                let (has, wants) = (cells.len(), columns.len());
                let what = format!("{scenario} has {has} cells, and there are {wants} columns");
                return Err(wrong(what));
            }
            let mut figures = BTreeMap::new();
            for (counter, cell) in columns.iter().zip(cells) {
                if cell == "-" {
                    continue;
                }
                let what = || format!("{scenario}, {}: {cell:?}", counter.name());
                if scenario == "margin" {
                    let margin = percent(cell)
                        .ok_or_else(|| wrong(format!("{} is no percentage", what())))?;
                    table.margins.insert(*counter, margin);
                } else {
                    let figure =
                        figure(cell).ok_or_else(|| wrong(format!("{} is no figure", what())))?;
                    figures.insert(*counter, figure);
                }
            }
            if scenario == "margin" {
                continue;
            }
            if table.rows.iter().any(|(name, _)| name == scenario) {
                return Err(wrong(format!("{scenario} is there twice")));
            }
            table.rows.push((scenario.to_owned(), figures));
        }
        if columns.is_none() {
            let what = "no line begins with `scenario`: this is no table of figures";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(table)
    }

    /// Takes a line from above the rows; returns the columns if it names them.
    fn head(&mut self, line: &str) -> Result<Option<Vec<Counter>>, String> {
        if let Some(names) = line.strip_prefix("scenario") {
            let unknown = |name: &str| {
                let known = Counter::ALL.map(Counter::name).join(", ");
                format!("{name:?} is no counter: they are {known}")
            };
            let columns = names
                .split_whitespace()
                .map(|name| Counter::named(name).ok_or_else(|| unknown(name)));
            return columns.collect::<Result<_, _>>().map(Some);
        }
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        let place = match name {
            "compiler" => &mut self.conditions.compiler,
            "library" => &mut self.conditions.library,
            "build" => &mut self.conditions.build,
            _ => {
                return Err(format!(
                    "{line:?} is neither a condition (compiler, library, build) nor the line of columns"
                ));
            }
        };
        value.trim().clone_into(place);
        Ok(None)
    }
}

/// Reads `1650.4` or `1650.4±5%`.
fn figure(cell: &str) -> Option<Figure> {
    let (value, margin) = match cell.split_once('±') {
        None => (cell, None),
        Some((value, margin)) => (value, Some(percent(margin)?)),
    };
    let value = value.parse().ok().filter(|value: &f64| value.is_finite())?;
    Some(Figure { value, margin })
}

fn percent(cell: &str) -> Option<f64> {
    let percent: f64 = cell.strip_suffix('%')?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then(|| percent / 100.0)
}

/// Writes what [`Table::parse`] reads.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = &self.conditions;
        writeln!(f, "compiler: {}", conditions.compiler)?;
        writeln!(f, "library: {}", conditions.library)?;
        writeln!(f, "build: {}\n", conditions.build)?;
        write!(f, "{:<26}", "scenario")?;
        for counter in Counter::ALL {
            write!(f, " {:>12}", counter.name())?;
        }
        write!(f, "\n{:<26}", "margin")?;
        for counter in Counter::ALL {
            let margin = self.margins.get(&counter).copied();
            let margin = margin.unwrap_or_else(|| counter.usual_margin());
            write!(f, " {:>12}", Share(margin).to_string())?;
        }
        for (scenario, figures) in &self.rows {
            write!(f, "\n{scenario:<26}")?;
            for counter in Counter::ALL {
                let cell = match figures.get(&counter) {
                    None => "-".to_owned(),
                    Some(figure) => {
                        let margin = figure.margin.map(|margin| format!("±{}", Share(margin)));
                        short(figure.value) + &margin.unwrap_or_default()
                    }
                };
                write!(f, " {cell:>12}")?;
            }
        }
        writeln!(f)
    }
}

/// A part of a hundred, as people write it.
struct Share(f64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", short(self.0 * 100.0))
    }
}

/// Writes a figure with as many digits as mean something.
#[must_use]
pub fn short(value: f64) -> String {
    let digits = if value.abs() < 100.0 { 4 } else { 1 };
    let text = format!("{value:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0" } else { text }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# What it costs.
compiler: rustc 1.95.0 (59807616e 2026-04-14)
library: glibc 2.36
build: plain

scenario  instructions  allocations
margin              3%           1%
spawn           1650.4            1
cancel        7420±10%            -
";

    #[test]
    fn what_is_written_is_read_again() {
        let table = Table::parse(TEXT).expect("it is right");
        assert_eq!(table.conditions.library, "glibc 2.36");
        let spawn = table
            .get("spawn", Counter::Instructions)
            .expect("it is there");
        assert_eq!(table.margin(Counter::Instructions, spawn), 0.03);
        let cancel = table
            .get("cancel", Counter::Instructions)
            .expect("it is there");
        assert_eq!((cancel.value, cancel.margin), (7420.0, Some(0.1)));
        assert_eq!(table.get("cancel", Counter::Allocations), None);

        let again = Table::parse(&table.to_string()).expect("we wrote it");
        assert_eq!(again.rows, table.rows);
        assert_eq!(again.conditions, table.conditions);
        assert_eq!(again.to_string(), table.to_string());
    }

    #[test]
    fn a_broken_file_says_where_and_how() {
        for (from, to, complaint) in [
            (
                "1650.4",
                "16x",
                "line 8: spawn, instructions: \"16x\" is no figure",
            ),
            (
                "3%",
                "3",
                "line 7: margin, instructions: \"3\" is no percentage",
            ),
            (
                "            -",
                "",
                "line 9: cancel has 1 cells, and there are 2 columns",
            ),
            ("cancel ", "spawn ", "line 9: spawn is there twice"),
            ("allocations", "alloc", "line 6: \"alloc\" is no counter"),
            (
                "library:",
                "lib:",
                "line 3: \"lib: glibc 2.36\" is neither a condition",
            ),
            ("scenario", "# ", "line 7: "),
        ] {
            let error = Table::parse(&TEXT.replace(from, to)).expect_err(complaint);
            assert!(
                error.to_string().contains(complaint),
                "{error}, not {complaint}"
            );
        }
        let error = Table::parse("# empty\n").expect_err("it has no columns");
        assert!(error.to_string().contains("no table of figures"), "{error}");
    }

    #[test]
    fn margins_outlive_the_figures() {
        let mut new = Table::new(Conditions::default());
        new.put("cancel", Counter::Instructions, 8000.0);
        new.keep_margins(&Table::parse(TEXT).expect("it is right"));
        let cancel = new
            .get("cancel", Counter::Instructions)
            .expect("it is there");
        assert_eq!(cancel.margin, Some(0.1));
    }

    #[test]
    fn figures_have_the_digits_that_count() {
        assert_eq!(short(1650.44), "1650.4");
        assert_eq!(short(0.0625), "0.0625");
        assert_eq!(short(-0.000_01), "0");
        assert_eq!(short(1.0), "1");
    }
}
