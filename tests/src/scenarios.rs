//! Suites whose tests are named after scenarios, and the documents that list them: each says what the other
//! does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

/// A suite, its document, and what the names of its scenarios begin with.
#[derive(Debug, Clone, Copy)]
pub struct Scenarios {
    /// Relative to the root, such as `docs/conformance.md`.
    pub document: &'static str,
    /// Relative to the root, such as `tests/conformance`.
    pub suite: &'static str,
    /// `C` for C001, and tests that begin with `c001_`.
    pub letter: char,
    /// The numbers there are.
    pub numbers: &'static [RangeInclusive<u32>],
}

fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace")
}

/// Returns what stands in backquotes.
fn named(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

impl Scenarios {
    /// Checks that the document lists every scenario once; that each names tests of its own, or says that it is
    /// open and why; and that no test is left out.
    ///
    /// # Panics
    ///
    /// If it is not so.
    pub fn check(self) {
        let rows = self.rows();
        let listed: Vec<u32> = rows.iter().map(|(number, _)| *number).collect();
        let distinct: BTreeSet<u32> = listed.iter().copied().collect();
        assert_eq!(listed.len(), distinct.len(), "one is listed twice");
        assert_eq!(distinct, self.numbers.iter().cloned().flatten().collect());

        let tests = self.tests();
        let letter = self.letter;
        for (number, cell) in &rows {
            let named = named(cell);
            let open = cell
                .strip_prefix("open: ")
                .is_some_and(|why| !why.is_empty());
            assert!(open || !named.is_empty(), "{letter}{number:03} has no test");
            for name in named {
                assert_eq!(
                    tests.get(name),
                    Some(number),
                    "{letter}{number:03} names {name}"
                );
            }
        }

        let listed: BTreeSet<&str> = rows.iter().flat_map(|(_, cell)| named(cell)).collect();
        let missing: Vec<_> = tests
            .into_keys()
            .filter(|name| !listed.contains(name.as_str()))
            .collect();
        assert!(missing.is_empty(), "not in the document: {missing:#?}");
    }

    /// Returns the rows of the document: the number, and the cell that names tests.
    fn rows(self) -> Vec<(u32, String)> {
        let document = fs::read_to_string(root().join(self.document)).expect("it is there");
        let head = format!("| {}", self.letter);
        let row = |line: &str| {
            let mut cells = line.strip_prefix(&head)?.split('|').map(str::trim);
            let number = cells.next()?.parse().ok()?;
            cells.next()?;
            Some((number, cells.next()?.to_owned()))
        };
        document.lines().filter_map(row).collect()
    }

    /// Returns the names of the suite's tests that belong to a scenario, each with its scenario.
    fn tests(self) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        for file in fs::read_dir(root().join(self.suite)).expect("a folder of ours") {
            let path = file.expect("a folder of ours").path();
            let text = fs::read_to_string(path).expect("sources are text");
            let mut is_test = false;
            for line in text.lines() {
                if let Some(function) = line.strip_prefix("fn ")
                    && is_test
                {
                    let name = function.split('(').next().unwrap_or_default();
                    if let Some(number) = self.scenario_of(name) {
                        found.insert(name.to_owned(), number);
                    }
                }
                is_test = line == "#[test]" || is_test && line.starts_with("#[");
            }
        }
        assert!(found.len() > 30, "the suite was not found");
        found
    }

    /// Returns the scenario that a test's name begins with.
    fn scenario_of(self, name: &str) -> Option<u32> {
        let letter = self.letter.to_ascii_lowercase();
        let (number, _) = name.strip_prefix(letter)?.split_once('_')?;
        if number.len() == 3 {
            number.parse().ok()
        } else {
            None
        }
    }
}
