//! `docs/sessions.md` lists every scenario, and names every test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The scenarios there are.
fn all_rows() -> impl Iterator<Item = u32> {
    (1..=26).chain(30..=37)
}

fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace")
}

/// Returns the rows of the document: the number, and the cell that names tests.
fn rows() -> Vec<(u32, String)> {
    let document = fs::read_to_string(root().join("docs/sessions.md")).expect("it is there");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| P")?.split('|').map(str::trim);
        let number = cells.next()?.parse().ok()?;
        cells.next()?;
        Some((number, cells.next()?.to_owned()))
    };
    document.lines().filter_map(row).collect()
}

/// Returns the names of the suite's tests that belong to a scenario, each with its scenario.
fn tests() -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let folder = root().join("tests/sessions");
    for file in fs::read_dir(folder).expect("a folder of ours") {
        let path = file.expect("a folder of ours").path();
        let text = fs::read_to_string(path).expect("sources are text");
        let mut is_test = false;
        for line in text.lines() {
            if let Some(function) = line.strip_prefix("fn ")
                && is_test
            {
                let name = function.split('(').next().unwrap_or_default();
                if let Some(number) = scenario(name) {
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
fn scenario(name: &str) -> Option<u32> {
    let (number, _) = name.strip_prefix('p')?.split_once('_')?;
    if number.len() == 3 {
        number.parse().ok()
    } else {
        None
    }
}

/// Returns what stands in backquotes.
fn named(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_scenario_is_listed_once() {
    let listed: Vec<u32> = rows().into_iter().map(|(number, _)| number).collect();
    let distinct: BTreeSet<u32> = listed.iter().copied().collect();
    assert_eq!(listed.len(), distinct.len(), "one is listed twice");
    assert_eq!(distinct, all_rows().collect());
}

#[test]
fn every_scenario_has_a_test() {
    let tests = tests();
    for (number, cell) in rows() {
        let named = named(&cell);
        assert!(!named.is_empty(), "P{number:03} has no test");
        for name in named {
            let of = tests.get(name);
            assert_eq!(of, Some(&number), "P{number:03} names {name}");
        }
    }
}

#[test]
fn every_test_of_a_scenario_is_listed() {
    let rows = rows();
    let listed: BTreeSet<&str> = rows.iter().flat_map(|(_, cell)| named(cell)).collect();
    let missing: Vec<String> = tests()
        .into_keys()
        .filter(|name| !listed.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "not in the document: {missing:#?}");
}
