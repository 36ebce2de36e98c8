//! `docs/conformance.md` lists every scenario, and names every test.

use tests::Scenarios;

#[test]
fn document_and_suite_say_the_same() {
    let scenarios = Scenarios {
        document: "docs/conformance.md",
        suite: "tests/conformance",
        letter: 'C',
        numbers: &[1..=180, 236..=238],
    };
    scenarios.check();
}
