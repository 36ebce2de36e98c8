//! `docs/sessions.md` lists every scenario, and names every test.

use tests::Scenarios;

#[test]
fn document_and_suite_say_the_same() {
    let scenarios = Scenarios {
        document: "docs/sessions.md",
        suite: "tests/sessions",
        letter: 'P',
        numbers: &[1..=26, 30..=37],
    };
    scenarios.check();
}
